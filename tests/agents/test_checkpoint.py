"""What a checkpoint brings back: buffers, generators, and always a whole folder."""

import random

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from contraux.agents import checkpoint
from contraux.agents.environments import make
from contraux.clrl.stores import FrameNStepReplayBuffer, FrameReplayBuffer

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
SPACES = {"vector": VECTOR, "dict": spaces.Dict({"a": VECTOR, "image": spaces.Box(0, 255, (1, 4, 4), np.uint8)})}


def filled(kind, steps, size=10, **kwargs):
    space = SPACES[kind]
    buffer = (DictReplayBuffer if kind == "dict" else ReplayBuffer)(
        size, space, spaces.Discrete(2), n_envs=2, device="cpu", **kwargs
    )
    rng = np.random.default_rng(0)
    space.seed(0)
    for _ in range(steps):
        draw = [space.sample() for _ in range(2)]
        rows = {key: np.stack([one[key] for one in draw]) for key in draw[0]} if kind == "dict" else np.stack(draw)
        buffer.add(rows, rows, rng.integers(2, size=2), rng.normal(size=2), rng.integers(2, size=2), [{}, {}])
    return buffer


def same(one, other):
    arrays, others = checkpoint._arrays(one), checkpoint._arrays(other)
    assert arrays.keys() == others.keys() and len(arrays) >= 4
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name])
    assert (one.pos, one.full) == (other.pos, other.full)


@pytest.mark.parametrize("kind", ["vector", "dict"])
@pytest.mark.parametrize("steps", [0, 3, 5, 7])  # five steps of two environments fill it; seven wrap around
def test_replay_buffer_comes_back(tmp_path, kind, steps):
    path = tmp_path / "buffer.safetensors"
    buffer = filled(kind, steps)
    checkpoint.save_replay_buffer(buffer, path)
    empty = filled(kind, 0)
    checkpoint.load_replay_buffer(empty, path)
    same(empty, buffer)


def test_replay_buffer_without_next_observations_keeps_the_last_one(tmp_path):
    memory = {"optimize_memory_usage": True, "handle_timeout_termination": False}
    buffer = filled("vector", 3, **memory)
    assert buffer.observations[3].any()  # the observation after the last transition
    checkpoint.save_replay_buffer(buffer, tmp_path / "b")
    empty = filled("vector", 0, **memory)
    checkpoint.load_replay_buffer(empty, tmp_path / "b")
    same(empty, buffer)


def test_only_filled_rows_are_saved(tmp_path):
    checkpoint.save_replay_buffer(filled("vector", 3, size=100_000), tmp_path / "b")
    assert (tmp_path / "b").stat().st_size < 5_000


def test_replay_buffer_of_another_size_is_refused(tmp_path):
    checkpoint.save_replay_buffer(filled("vector", 5), tmp_path / "b")
    with pytest.raises(ValueError, match="a replay buffer must be resumed with the size and spaces it was saved with"):
        checkpoint.load_replay_buffer(filled("vector", 0, size=4), tmp_path / "b")


def playing(steps, kind=FrameReplayBuffer, buffer=None, **kwargs):
    """Transitions of two environments, each with stacks of two frames that follow one another."""
    if buffer is None:
        space = spaces.Box(0, 255, (2, 6, 6), np.uint8)
        buffer = kind(20, space, spaces.Discrete(2), n_envs=2, device="cpu", **kwargs)
    rng = np.random.default_rng(steps)
    seen = rng.integers(1, 256, (2, 2, 6, 6)).astype(np.uint8)
    for _ in range(steps):
        new = rng.integers(1, 256, (2, 1, 6, 6)).astype(np.uint8)
        following = np.concatenate([seen[:, 1:], new], 1)
        done = rng.random(2) < 0.2
        buffer.add(seen, following, rng.integers(2, size=2), rng.normal(size=2), done, [{}, {}])
        seen = following.copy()
        seen[done] = rng.integers(1, 256, (int(done.sum()), 2, 6, 6))
    return buffer


def assert_same_samples(one, other):
    drawn = []
    for buffer in (one, other):
        np.random.seed(0)  # noqa: NPY002 (SB3 draws from it)
        drawn.append(buffer.sample(64))
    for theirs, ours in zip(*drawn, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "kwargs"), [(FrameReplayBuffer, {}), (FrameNStepReplayBuffer, {"n_steps": 3, "gamma": 0.9})]
)
@pytest.mark.parametrize("steps", [1, 4, 10, 23])  # ten steps of two environments fill it
def test_frames_come_back_and_what_is_added_then_is_right(tmp_path, kind, kwargs, steps):
    buffer = playing(steps, kind, **kwargs)
    checkpoint.save_replay_buffer(buffer, tmp_path / "b")
    loaded = playing(0, kind, **kwargs)
    checkpoint.load_replay_buffer(loaded, tmp_path / "b")
    same(loaded, buffer)
    assert np.asarray(loaded.observations)[:1].any()
    np.testing.assert_array_equal(np.asarray(loaded.observations), np.asarray(buffer.observations))
    np.testing.assert_array_equal(np.asarray(loaded.next_observations), np.asarray(buffer.next_observations))
    assert_same_samples(buffer, loaded)
    for one in (buffer, loaded):
        playing(17, buffer=one)  # slots that are given up by then are used again
    assert_same_samples(buffer, loaded)
    assert loaded.frames.used <= buffer.frames.used + 4


def test_a_buffer_of_frames_that_was_saved_without_them_is_refused(tmp_path):
    space, actions = spaces.Box(0, 255, (0,), np.uint8), spaces.Discrete(2)
    checkpoint.save_replay_buffer(ReplayBuffer(20, space, actions, n_envs=2, device="cpu"), tmp_path / "b")
    with pytest.raises(ValueError, match="must hold the frames that observations are made of, and was saved without"):
        checkpoint.load_replay_buffer(playing(3), tmp_path / "b")


def test_frames_are_refused_by_a_buffer_that_stores_stacks(tmp_path):
    checkpoint.save_replay_buffer(playing(3), tmp_path / "b")
    stacks = ReplayBuffer(20, spaces.Box(0, 255, (2, 6, 6), np.uint8), spaces.Discrete(2), n_envs=2, device="cpu")
    with pytest.raises(ValueError, match=r"got frames/.* for a buffer without it"):
        checkpoint.load_replay_buffer(stacks, tmp_path / "b")


def draws():
    return torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.random(), random.gauss(0, 1)  # noqa: NPY002


def test_global_generators_go_on_where_they_were(tmp_path):
    np.random.normal()  # noqa: NPY002 (leaves half of a Gaussian pair in the state)
    random.gauss(0, 1)
    checkpoint.save_random_state(tmp_path / "r")
    first, second = draws(), draws()
    assert first != second
    checkpoint.load_random_state(tmp_path / "r")
    assert draws() == first


def test_an_interrupted_swap_leaves_the_previous_checkpoint_readable(tmp_path):
    env = make("CartPole-v1", seed=0)
    model = DQN("MlpPolicy", env, buffer_size=50, learning_starts=10, seed=0).learn(20)
    assert not checkpoint.has_checkpoint(tmp_path)
    folder = checkpoint.save_checkpoint(model, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.zip", "random.safetensors", "replay_buffer.safetensors"
    ]  # fmt: skip
    checkpoint.save_checkpoint(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    folder.rename(tmp_path / "checkpoint.previous")  # the process ended between the two renames
    (tmp_path / "checkpoint.unfinished").mkdir()
    assert checkpoint.has_checkpoint(tmp_path)
    loaded = checkpoint.load_checkpoint(DQN, tmp_path, env, "cpu")
    assert loaded.num_timesteps == 20
    same(loaded.replay_buffer, model.replay_buffer)
    checkpoint.save_checkpoint(loaded, tmp_path)
    assert (tmp_path / "checkpoint" / "model.zip").exists()
