"""Success of goal-conditioned environments, by the name Stable-Baselines3 logs and evaluates it."""

from typing import Any

import gymnasium
from gymnasium import spaces


class GoalSuccess(gymnasium.Wrapper[Any, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Report `info["is_success"]` where an environment says `info["success"]`: the goal was reached in this episode.

    Stable-Baselines3 reads `is_success` at the end of an episode. Gymnasium-Robotics' mazes call it `success` and mean
    the step, so that an agent which passes through the goal early would count as a failure.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._reached = False

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in which the goal was not reached."""
        self._reached = False
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and remember whether it reached the goal."""
        observation, reward, terminated, truncated, info = super().step(action)
        if "success" in info and "is_success" not in info:
            self._reached = self._reached or bool(info["success"])
            info = {**info, "is_success": self._reached}
        return observation, reward, terminated, truncated, info


def with_goal_success(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Return a goal-conditioned environment in a :class:`GoalSuccess`, and any other as it is."""
    space = env.observation_space
    return GoalSuccess(env) if isinstance(space, spaces.Dict) and "desired_goal" in space.spaces else env
