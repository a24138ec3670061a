"""Windows read from real Stable-Baselines3 replay buffers, against every window that is allowed, listed by hand."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from contraux.clrl.stores import ReplayRows

BOX = spaces.Box(-1e6, 1e6, (2,), np.float32)
ACTION = spaces.Box(-1, 1, (1,), np.float32)
TERMINAL = 1000  # added to the step of a terminal observation, which no later row repeats


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fill(buffer, steps, ends, n_envs=1, start=0, wrap=lambda value: value, rows=None):
    """Write transitions (env, step) -> (env, step + 1); `ends` maps (env, step) to "terminated" or "truncated"."""
    for step in range(start, start + steps):
        if rows is not None:
            rows.before_add()
        observation = np.array([[env, step] for env in range(n_envs)], np.float32)
        following = np.array(
            [[env, step + 1 + (TERMINAL if (env, step) in ends else 0)] for env in range(n_envs)], np.float32
        )
        dones = np.array([(env, step) in ends for env in range(n_envs)])
        infos = [{"TimeLimit.truncated": ends.get((env, step)) == "truncated"} for env in range(n_envs)]
        buffer.add(wrap(observation), wrap(following), np.zeros((n_envs, 1)), np.zeros(n_envs), dones, infos)


ENDS = {(0, 4): "terminated", (1, 7): "truncated", (0, 13): "truncated", (1, 14): "terminated", (0, 21): "terminated"}


def pairs(rows, k, seeds=range(60), size=12):
    found = set()
    for seed in seeds:
        window = rows.sample(size, k, generator(seed))
        for first, last in zip(window.observation(0)[""], window.observation(k)[""], strict=True):
            assert first[0] == last[0]
            assert last[1] % TERMINAL == first[1] + k
            found.add((int(first[0]), int(first[1])))
    return found


@pytest.mark.parametrize("k", [0, 1, 2, 5])
@pytest.mark.parametrize("steps", [10, 24])
def test_windows_are_those_within_one_episode_and_outside_the_write_head(k, steps):
    buffer = ReplayBuffer(32, BOX, ACTION, n_envs=2)  # 16 rows, so 24 steps wrap around
    fill(buffer, steps, ENDS, n_envs=2)
    oldest = max(0, steps - 16)
    allowed = {
        (env, t)
        for env in range(2)
        for t in range(oldest, steps - max(k - 1, 0))
        if not any((env, t + i) in ENDS for i in range(k - 1))
    }
    assert pairs(ReplayRows(buffer), k) == allowed


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("steps", [10, 24])
def test_without_next_observations_no_terminal_one_and_no_next_episode_is_a_positive(k, steps):
    buffer = ReplayBuffer(32, BOX, ACTION, n_envs=2, optimize_memory_usage=True, handle_timeout_termination=False)
    fill(buffer, steps, ENDS, n_envs=2)
    oldest = 0 if steps < 16 else steps - 16 + 1  # the oldest row's observation is overwritten by the newest's next one
    allowed = {
        (env, t)
        for env in range(2)
        for t in range(oldest, steps - k)
        if not any((env, t + i) in ENDS for i in range(k))
    }
    assert pairs(ReplayRows(buffer), k) == allowed


def test_a_new_learn_breaks_the_stored_sequence():
    buffer = ReplayBuffer(40, BOX, ACTION)
    rows = ReplayRows(buffer)
    rows.interrupt()
    fill(buffer, 6, {}, rows=rows)
    rows.interrupt()  # learn() again: the environment was reset without a done
    fill(buffer, 6, {}, start=6, rows=rows)
    found = pairs(rows, 3, size=8)
    assert found == {(0, t) for t in (0, 1, 2, 3, 6, 7, 8, 9)}  # windows read transitions t, t+1, t+2


def test_breaks_that_nobody_watched_are_found_in_a_buffer_filled_before():
    buffer = ReplayBuffer(40, BOX, ACTION)
    fill(buffer, 6, {})
    fill(buffer, 6, {}, start=20)
    rows = ReplayRows(buffer)
    rows.interrupt()
    assert pairs(rows, 3, size=8) == {(0, t) for t in (0, 1, 2, 3, 20, 21, 22, 23)}


def test_dict_buffers_hand_out_aligned_leaves():
    space = spaces.Dict({"a": BOX, "b": BOX})
    buffer = DictReplayBuffer(40, space, ACTION, n_envs=2)
    fill(buffer, 12, ENDS, n_envs=2, wrap=lambda value: {"a": value, "b": value * 2})
    window = ReplayRows(buffer).sample(12, 2, generator())
    for offset in (0, 2):
        observation = window.observation(offset)
        np.testing.assert_array_equal(observation["b"], observation["a"] * 2)


def test_vec_normalize_applies_on_the_way_out():
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.reset()
    for _ in range(20):
        env.step(np.zeros((1, 1), np.float32))
    space = env.observation_space
    buffer = ReplayBuffer(10, space, ACTION)
    raw = np.array([[0.5, -0.5, 2.0]], np.float32)
    for _ in range(4):
        buffer.add(raw, raw, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    for k in (0, 1):
        found = ReplayRows(buffer, env).sample(4, k, generator()).observation(k)[""]
        np.testing.assert_allclose(found, np.repeat(env.normalize_obs(raw), 4, axis=0))


def test_k_longer_than_the_episodes_is_said_with_the_length_found():
    buffer = ReplayBuffer(40, BOX, ACTION)
    fill(buffer, 20, {(0, step): "terminated" for step in range(4, 20, 5)})
    rows = ReplayRows(buffer)
    assert rows.sample(8, 5, generator()) is not None  # five steps and the terminal observation after them
    with pytest.raises(ValueError, match="got k=6, while the longest of them has 5 steps"):
        rows.sample(8, 6, generator())


def test_an_almost_empty_buffer_gives_nothing_yet():
    buffer = ReplayBuffer(40, BOX, ACTION)
    fill(buffer, 5, {})
    assert ReplayRows(buffer).sample(8, 1, generator()) is None
    assert ReplayRows(buffer).sample(5, 9, generator()) is None
