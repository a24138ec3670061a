"""Futures of transitions: the exact distribution, episodes that are never crossed, buffers that are full or saved."""

import numpy as np
import pytest
import torch
from goal_envs import PointReach
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from contraux.agents import checkpoint
from contraux.agents.goal.replay import FutureReplayBuffer, truncated_geometric

SPACES = PointReach(labelled=True)


def filled(lengths, *, size=1000, gamma=0.9, n_envs=1, terminated=True):
    """A buffer of labelled transitions: environment e has episodes of these lengths, each longer by e.

    Each row's achieved goal is (env, 0, step, episode), its next one the same with step + 1.
    """
    buffer = FutureReplayBuffer(
        size * n_envs, SPACES.observation_space, SPACES.action_space, "cpu", n_envs=n_envs, gamma=gamma
    )
    ends = [np.cumsum([length + env for length in lengths]) for env in range(n_envs)]
    for time in range(int(min(end[-1] for end in ends))):
        episode = [int(np.searchsorted(end, time, side="right")) for end in ends]
        step = [time - int(end[e - 1] if e else 0) for end, e in zip(ends, episode, strict=True)]
        done = [time + 1 == end[e] for end, e in zip(ends, episode, strict=True)]
        buffer.add(
            observe(step, episode),
            observe([s + 1 for s in step], episode),
            np.zeros((n_envs, 2)),
            np.zeros(n_envs),
            np.array(done),
            [{"TimeLimit.truncated": not terminated and d} for d in done],
        )
    return buffer


def observe(step, episode):
    goal = np.array([[env, 0, s, e] for env, (s, e) in enumerate(zip(step, episode, strict=True))], np.float32)
    return {"observation": goal[:, 2:], "achieved_goal": goal, "desired_goal": np.full_like(goal, -7)}


def offsets(buffer, size):
    """Episode, step and k of sampled futures, with the check that env and episode are the transition's own."""
    np.random.seed(0)  # noqa: NPY002
    found = buffer.sample_futures(size).observations
    start, goal = found["achieved_goal"].numpy(), found["desired_goal"].numpy()
    np.testing.assert_array_equal(start[:, [0, 3]], goal[:, [0, 3]])
    assert (goal[:, 2] > start[:, 2]).all()
    return start[:, 3].astype(int), start[:, 2].astype(int), (goal[:, 2] - start[:, 2]).astype(int)


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.999])
def test_steps_to_the_goal_follow_the_truncated_geometric(gamma, terminated):
    """Chi-square against P(k) = gamma^(k-1) / sum over what is left of the episode, for each step of each episode."""
    lengths = (1, 4, 7)
    episode, step, k = offsets(filled(lengths, gamma=gamma, terminated=terminated), 60_000)
    for e, length in enumerate(lengths):
        for s in range(length):
            drawn = k[(episode == e) & (step == s)]
            left = length - s
            weight = gamma ** np.arange(left)
            expected = len(drawn) * weight / weight.sum()
            counts = np.bincount(drawn - 1, minlength=left)
            assert len(counts) == left and len(drawn) > 4000
            assert left == 1 or stats.chisquare(counts, expected).pvalue > 1e-3
    counts = np.bincount(episode * 100 + step, minlength=1)
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3  # transitions themselves are drawn uniformly


def test_environments_end_their_episodes_apart():
    episode, step, k = offsets(filled((3, 5, 4), n_envs=3), 20_000)
    assert {0, 1, 2} <= set(episode)
    assert k.max() == 7  # the last environment's second episode has 5 + 2 steps, and its last state can be drawn
    assert ((step + k) <= np.array([5, 7, 6])[episode]).all()


def test_an_unfinished_episode_is_sampled_as_far_as_it_has_come():
    buffer = filled((4, 6))
    buffer.add(observe([0], [2]), observe([1], [2]), np.zeros((1, 2)), np.zeros(1), np.array([False]), [{}])
    buffer.add(observe([1], [2]), observe([2], [2]), np.zeros((1, 2)), np.zeros(1), np.array([False]), [{}])
    episode, step, k = offsets(buffer, 5000)
    assert set(zip(step[episode == 2].tolist(), k[episode == 2].tolist(), strict=True)) == {(0, 1), (0, 2), (1, 1)}


def test_a_reset_in_between_ends_an_episode():
    buffer = filled((4, 6))
    for episode in (2, 3):  # neither of the two says that it ends
        for step in range(3):
            buffer.add(
                observe([step], [episode]), observe([step + 1], [episode]), np.zeros((1, 2)), np.zeros(1),
                np.array([False]), [{}],
            )  # fmt: skip
        buffer.interrupt()
    episode, _, _ = offsets(buffer, 5000)
    assert set(episode) == {0, 1, 2, 3}
    buffer.interrupt()
    offsets(buffer, 5000)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    size=st.integers(2, 14),
    n_envs=st.integers(1, 3),
)
def test_a_full_buffer_keeps_what_followed_and_crosses_nothing(lengths, size, n_envs):
    buffer = filled(lengths, size=size, n_envs=n_envs)
    total = min(sum(lengths) + env * len(lengths) for env in range(n_envs))
    assert buffer.full == (total >= size)
    _, step, k = offsets(buffer, 400)
    assert (step + k <= max(lengths) + n_envs - 1).all()


def test_the_oldest_transitions_of_an_episode_go_one_by_one():
    buffer = filled((6, 5), size=8)  # 11 steps: 3 were overwritten
    episode, step, k = offsets(buffer, 4000)
    assert set(step[episode == 0]) == {3, 4, 5} and set(step[episode == 1]) == set(range(5))
    assert k[(episode == 0) & (step == 3)].max() == 3


@given(
    uniform=st.floats(0, 1, exclude_max=True),
    length=st.integers(1, 2000),
    gamma=st.floats(1e-6, 1 - 1e-9),
)
@settings(deadline=None, max_examples=300)
def test_quantiles_stay_inside(uniform, length, gamma):
    (k,) = truncated_geometric(np.array([uniform]), np.array([length]), gamma)
    assert 1 <= k <= length


def test_quantiles_by_hand():
    """gamma 1/2 and 3 steps: probabilities 4/7, 2/7, 1/7."""
    uniform = np.array([0.0, 0.57, 0.572, 0.857, 0.858, 0.999999])
    np.testing.assert_array_equal(truncated_geometric(uniform, np.full(6, 3), 0.5), [1, 1, 2, 2, 3, 3])


def test_near_one_it_is_uniform():
    k = truncated_geometric(np.arange(1000) / 1000 + 5e-4, np.full(1000, 10), 1 - 1e-9)
    np.testing.assert_array_equal(np.bincount(k)[1:], np.full(10, 100))


def test_saved_arrays_bring_the_episodes_back(tmp_path):
    buffer = filled((4, 6, 9), size=12, n_envs=2)
    checkpoint.save_replay_buffer(buffer, tmp_path / "b")
    empty = FutureReplayBuffer(24, SPACES.observation_space, SPACES.action_space, "cpu", n_envs=2, gamma=0.9)
    checkpoint.load_replay_buffer(empty, tmp_path / "b")
    for one, other in zip(offsets(buffer, 500), offsets(empty, 500), strict=True):
        np.testing.assert_array_equal(one, other)


def test_goals_are_normalised_as_desired_ones():
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = VecNormalize(DummyVecEnv([lambda: PointReach(labelled=True)]), norm_reward=False)
    for key, mean in (("achieved_goal", 1.0), ("desired_goal", 3.0)):
        env.obs_rms[key].mean[:], env.obs_rms[key].var[:] = mean, 4.0
    buffer = filled((4,))
    np.random.seed(0)  # noqa: NPY002
    raw = buffer.sample_futures(50).observations
    np.random.seed(0)  # noqa: NPY002
    found = buffer.sample_futures(50, env).observations
    torch.testing.assert_close(found["desired_goal"], (raw["desired_goal"] - 3) / 2, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["achieved_goal"], (raw["achieved_goal"] - 1) / 2, atol=1e-5, rtol=0)


def test_what_breaks_a_rule_is_said():
    with pytest.raises(ValueError, match=r"gamma must be a number in \(0, 1\), got 1"):
        filled((1,), gamma=1)
    empty = FutureReplayBuffer(4, SPACES.observation_space, SPACES.action_space, "cpu")
    with pytest.raises(ValueError, match="got none"):
        empty.sample_futures(2)
