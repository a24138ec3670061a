"""A goal-conditioned environment small enough for tests."""

import gymnasium
import numpy as np
from gymnasium import spaces


class PointReach(gymnasium.Env):
    """A point in a square that moves by its action; `success` when it is near the goal; `length` steps an episode.

    `observation` is the step's number in its episode and the episode's number, so that a test can tell where a
    transition came from, and `achieved_goal` is the position, followed, with `labelled`, by those two numbers.
    """

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, length=10, labelled=False, terminates=False):
        self.length, self.labelled, self.terminates = length, labelled, terminates
        self.episode = -1
        goal = spaces.Box(-np.inf, np.inf, (4 if labelled else 2,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "observation": spaces.Box(-np.inf, np.inf, (2,), np.float32),
                "achieved_goal": goal,
                "desired_goal": goal,
            }
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.episode = 0, self.episode + 1
        self.position, self.target = self.np_random.uniform(-1, 1, (2, 2))
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        self.position = np.clip(self.position + 0.3 * np.asarray(action), -1, 1)
        near = bool(np.linalg.norm(self.position - self.target) < 0.2)
        reward = float(near)
        return self._observe(), reward, self.terminates and near, self.steps == self.length, {"success": near}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return (np.linalg.norm(achieved_goal - desired_goal, axis=-1) < 0.2).astype(np.float32)

    def _observe(self):
        numbers = [self.steps, self.episode]
        label = numbers if self.labelled else []
        target = [*self.target, *([0, 0] if self.labelled else [])]
        return {
            "observation": np.array(numbers, np.float32),
            "achieved_goal": np.array([*self.position, *label], np.float32),
            "desired_goal": np.array(target, np.float32),
        }


class LineReach(PointReach):
    """The same with three choices: the point stays in place or moves left or right, and the goal differs in x alone."""

    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.target[1] = self.position[1]
        return self._observe(), {}

    def step(self, action):
        return super().step(((0.0, -1.0, 1.0)[int(action)], 0.0))
