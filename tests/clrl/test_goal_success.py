"""Success of an episode, where an environment speaks of each step."""

import gymnasium
import numpy as np
from gymnasium import spaces

from contraux.clrl.envs.goal_success import GoalSuccess, with_goal_success


class Scripted(gymnasium.Env):
    """Says what it is told to at each step."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Dict({"desired_goal": spaces.Box(-1, 1, (1,))})

    def __init__(self, infos):
        self.infos = iter(infos)

    def reset(self, *, seed=None, options=None):
        return {"desired_goal": np.zeros(1, np.float32)}, {}

    def step(self, action):
        return {"desired_goal": np.zeros(1, np.float32)}, 0.0, False, False, next(self.infos)


def said(infos, resets=()):
    env = with_goal_success(Scripted(infos))
    env.reset()
    found = []
    for i in range(len(infos)):
        if i in resets:
            env.reset()
        found.append(env.step(0)[-1].get("is_success"))
    return found


def test_passing_through_the_goal_counts_until_the_episode_ends():
    steps = [{"success": s} for s in (False, True, False, False, False)]
    assert said(steps, resets={3}) == [False, True, True, False, False]
    assert steps[1] == {"success": True}  # the environment's own dictionary is left alone


def test_what_an_environment_says_itself_stands():
    assert said([{"success": True, "is_success": False}, {"is_success": 1.0}, {}]) == [False, 1.0, None]


def test_others_are_left_as_they_are():
    plain = gymnasium.make("CartPole-v1")
    assert with_goal_success(plain) is plain
    assert isinstance(with_goal_success(Scripted([])), GoalSuccess)
