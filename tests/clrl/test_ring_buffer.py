"""The ring buffer against a plain list of everything it was ever given."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.clrl.stores import RingBuffer
from contraux.clrl.stores.ring import Leaf


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


ACTION = Leaf((), np.dtype(np.int64))


def add(ring, observations, dones):
    """Add a time step whose action and reward say how many have been added before it, in its environment."""
    env = np.arange(len(dones))
    ring.add(observations, dones, ring.written * 10 + env, ring.written / 2 + env)


def numbered(step, n_envs):
    """An observation that says where it comes from: (environment, step)."""
    return {"": np.array([[env, step] for env in range(n_envs)], dtype=np.float32)}


def vector_ring(rows, n_envs):
    return RingBuffer(rows, n_envs, {"": Leaf((2,), np.dtype(np.float32))}, ACTION)


@settings(max_examples=60, deadline=None)
@given(
    n_envs=st.integers(1, 3),
    length=st.integers(5, 30),
    steps=st.integers(1, 80),
    horizon=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_windows_never_cross_an_episode_end_or_the_write_head(n_envs, length, steps, horizon, seed):
    rng = np.random.default_rng(seed)
    ring = vector_ring(length * n_envs, n_envs)
    ends = []
    for step in range(steps):
        dones = rng.random(n_envs) < 0.2
        add(ring, numbered(step, n_envs), dones)
        ends.append(dones)
    allowed = {
        (env, t)
        for env in range(n_envs)
        for t in range(max(0, steps - length), steps - horizon)
        if not any(ends[t + i][env] for i in range(horizon))
    }
    size = min(steps, length) * n_envs
    if not allowed:
        if np.any(ends):
            with pytest.raises(ValueError, match="k must be smaller"):
                ring.sample(size, horizon, generator(seed))
        else:
            assert ring.sample(size, horizon, generator(seed)) is None
        return
    window = ring.sample(size, horizon, generator(seed))
    first, last = window.observation(0)[""], window.observation(horizon)[""]
    assert {(int(env), int(t)) for env, t in first} <= allowed
    np.testing.assert_array_equal(last[:, 0], first[:, 0])
    np.testing.assert_array_equal(last[:, 1], first[:, 1] + horizon)


def test_every_allowed_window_is_drawn_about_equally_often():
    ring = vector_ring(100, 2)
    for step in range(20):
        add(ring, numbered(step, 2), np.array([step == 9, False]))
    drawn = np.concatenate([ring.sample(30, 2, generator(seed)).observation(0)[""] for seed in range(400)])
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 8 + 8 + 18  # env 0: 0-7 and 10-17; env 1: 0-17
    expected = 400 * 30 / len(counts)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


class Stacker:
    """Stacks frames like VecFrameStack: zeros, or repeats of the first frame, before an episode's first."""

    def __init__(self, n_envs, stack, repeat):
        self.frames = [[] for _ in range(n_envs)]
        self.stack, self.repeat = stack, repeat

    def __call__(self, frames, starts):
        out = []
        for env, frame in enumerate(frames):
            if starts[env]:
                self.frames[env] = [frame if self.repeat else np.zeros_like(frame)] * (self.stack - 1)
            self.frames[env].append(frame)
            out.append(np.concatenate(self.frames[env][-self.stack :]))
        return np.stack(out)


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_stacked_frames_come_out_as_they_went_in(repeat, n_channels):
    rng = np.random.default_rng(0)
    n_envs, stack, steps = 2, 4, 300
    ring = RingBuffer(160, n_envs, {"": Leaf((stack * n_channels, 5, 6), np.dtype(np.uint8), stack)}, ACTION)
    stacker, given, starts = Stacker(n_envs, stack, repeat), {}, np.ones(n_envs, bool)
    for step in range(steps):
        frames = rng.integers(0, 256, (n_envs, n_channels, 5, 6), dtype=np.uint8)
        frames[:, 0, 0, 0], frames[:, 0, 0, 1], frames[:, 0, 0, 2] = np.arange(n_envs), step % 250, step // 250
        observation = stacker(frames, starts)
        dones = rng.random(n_envs) < 0.07
        add(ring, {"": observation}, dones)
        for env in range(n_envs):
            given[env, step] = observation[env]
        starts = dones
        if step == 150:
            ring.interrupt()  # the same environments go on: what follows still comes out exactly
    for k in (0, 1, 3):
        window = ring.sample(80, k, generator(k))
        for offset in {0, k}:
            for image in window.observation(offset)[""]:
                newest = image[-n_channels]
                np.testing.assert_array_equal(
                    image, given[int(newest[0, 0]), int(newest[0, 1]) + 250 * int(newest[0, 2])]
                )


def test_a_frame_that_does_not_continue_the_stack_starts_anew():
    ring = RingBuffer(40, 1, {"": Leaf((3, 2, 2), np.dtype(np.uint8), 3)}, ACTION)
    observations = [np.random.default_rng(i).integers(0, 256, (1, 3, 2, 2), dtype=np.uint8) for i in range(8)]
    for observation in observations:  # unrelated stacks, no episode end is reported
        add(ring, {"": observation}, np.array([False]))
    found = ring.sample(24, 0, generator()).observation(0)[""]
    assert {image.tobytes() for image in found} <= {image.tobytes() for image in observations}
    assert ring.sample(24, 1, generator()) is None


def test_each_frame_is_stored_once():
    leaf = Leaf((4, 84, 84), np.dtype(np.uint8), 4)
    ring = RingBuffer(1000, 4, {"": leaf}, ACTION)
    assert ring.nbytes == 1000 * 84 * 84


def test_dict_leaves_stay_aligned():
    leaves = {"image": Leaf((2, 3, 3), np.dtype(np.uint8), 2), "vector": Leaf((1,), np.dtype(np.float32))}
    ring = RingBuffer(60, 1, leaves, ACTION)
    frames = [np.full((1, 1, 3, 3), 0, np.uint8)]
    for step in range(1, 25):
        frames.append(np.full((1, 1, 3, 3), step, np.uint8))
        stacked = np.concatenate(frames[-2:], axis=1)
        add(ring, {"image": stacked, "vector": np.array([[step]], np.float32)}, np.array([step % 9 == 0]))
    window = ring.sample(20, 2, generator())
    for offset in (0, 2):
        observation = window.observation(offset)
        np.testing.assert_array_equal(observation["image"][:, 1, 0, 0], observation["vector"][:, 0])


def test_too_few_rows_is_no_error_and_too_long_a_k_is():
    ring = vector_ring(100, 1)
    add(ring, numbered(0, 1), np.array([False]))
    assert ring.sample(8, 1, generator()) is None
    for step in range(1, 30):
        add(ring, numbered(step, 1), np.array([step % 6 == 5]))
    with pytest.raises(ValueError, match=r"got k=6, while the longest of them has 6 steps"):
        ring.sample(8, 6, generator())
    assert ring.sample(8, 5, generator()) is not None


def test_a_ring_too_small_for_one_window_is_refused():
    with pytest.raises(ValueError, match="buffer_size must hold at least 5 frames per environment, got 8 for 2"):
        RingBuffer(8, 2, {"": Leaf((4, 5, 5), np.dtype(np.uint8), 4)}, ACTION)


def test_state_round_trip_goes_on_as_if_nothing_happened():
    rng = np.random.default_rng(1)

    def feed(ring, steps):
        for step in steps:
            add(ring, numbered(step, 2), rng.random(2) < 0.1)

    ring = vector_ring(40, 2)
    feed(ring, range(33))
    tensors, values = ring.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    other = vector_ring(40, 2)
    other.load_state(tensors, values)
    for target in (ring, other):
        rng = np.random.default_rng(2)
        feed(target, range(33, 45))
    one, two = (target.sample(16, 2, generator(5)).observation(2)[""] for target in (ring, other))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="use the same n_envs, buffer_size"):
        vector_ring(60, 2).load_state(tensors, values)
