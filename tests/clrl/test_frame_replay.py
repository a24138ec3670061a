"""The replay buffer that stores each frame once, beside Stable-Baselines3's own: the same samples, less memory."""

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TransformObservation
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_hosts import Ball
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack, VecTransposeImage

from contraux.clrl import ContrastiveAuxiliary, FrameReplayBuffer
from contraux.clrl.stores import FrameNStepReplayBuffer

ACTIONS = spaces.Discrete(2)


def images(channels, size=6):
    return spaces.Box(0, 255, (channels, size, size), np.uint8)


def both(rows, space, n_envs=1, kinds=(ReplayBuffer, FrameReplayBuffer), **kwargs):
    return tuple(kind(rows, space, ACTIONS, device="cpu", n_envs=n_envs, **kwargs) for kind in kinds)


def assert_equal_samples(theirs, ours, size=64):
    drawn = []
    for buffer in (theirs, ours):
        np.random.seed(5)  # noqa: NPY002  (SB3 draws from the global state)
        drawn.append(buffer.sample(size))
    for name, expected, found in zip(drawn[0]._fields, *drawn, strict=True):
        if expected is not None:
            assert expected.dtype == found.dtype
            torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=name)


def assert_equal_arrays(theirs, ours):
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        np.testing.assert_array_equal(np.asarray(getattr(ours, name)), getattr(theirs, name), err_msg=name)


def play(env, buffers, steps, seed=0):
    """Fill the buffers as an off-policy algorithm does."""
    generator = np.random.default_rng(seed)
    observations = env.reset()
    for _ in range(steps):
        actions = np.array([env.action_space.sample() for _ in range(env.num_envs)])
        following, rewards, dones, infos = env.step(actions)
        stored = following.copy()
        for i in np.flatnonzero(dones):
            stored[i] = infos[i]["terminal_observation"]
        rewards = generator.normal(size=rewards.shape)
        for buffer in buffers:
            buffer.add(observations, stored, actions, rewards, dones, infos)
        observations = following


def colour(env):
    """Three channels that differ, so that a colour is no frame of its own."""
    space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    return TransformObservation(env, lambda image: np.concatenate([image, image // 2, 255 - image], axis=2), space)


@pytest.mark.parametrize("stack", [1, 2, 4])
@pytest.mark.parametrize("wrap", [None, colour])
def test_stacks_of_real_environments_are_those_of_sb3(stack, wrap):
    env = make_vec_env(Ball, n_envs=3, seed=1, wrapper_class=wrap, env_kwargs={"size": 36})
    env = VecTransposeImage(VecFrameStack(env, stack))
    theirs, ours = both(300, env.observation_space, 3)
    for steps in (30, 100, 45):  # not full, full, and over the end once more; each begins with a reset
        play(env, (theirs, ours), steps)
        assert_equal_arrays(theirs, ours)
        assert_equal_samples(theirs, ours)
    stored = ours.frames.nbytes / (theirs.observations.nbytes + theirs.next_observations.nbytes)
    assert stored < 1.25 / (
        2 * stack
    )  # episodes of 20 steps: a reset's frame in every twentieth row, a margin of tables


def test_frames_stacked_by_gymnasium_with_their_padding():
    env = make_vec_env(
        lambda: FrameStackObservation(
            TransformObservation(Ball(), lambda image: image[..., 0], spaces.Box(0, 255, (36, 36), np.uint8)), 3
        )
    )
    assert env.observation_space.shape == (3, 36, 36)
    theirs, ours = both(90, env.observation_space)
    play(env, (theirs, ours), 130)
    assert_equal_arrays(theirs, ours)
    assert ours.frames.used <= 100  # the first stack of an episode is one frame three times


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_whatever_is_written_comes_out(data):
    """Episodes that end anywhere, frames that repeat, skip, or jump back: drawn from four images only."""
    channels, n_envs = data.draw(st.sampled_from([1, 2, 3, 4, 6])), data.draw(st.integers(1, 2))
    theirs, ours = both(data.draw(st.integers(1, 6)) * n_envs, images(channels, 1), n_envs)
    value = st.integers(0, 3)
    stack = st.lists(value, min_size=n_envs * channels, max_size=n_envs * channels)

    def drawn():
        return np.array(data.draw(stack), np.uint8).reshape(n_envs, channels, 1, 1)

    previous = drawn()
    for _ in range(data.draw(st.integers(1, 16))):
        step = data.draw(st.sampled_from(["continue", "jump", "reset"]))
        if step == "reset":
            theirs.reset(), ours.reset()
        observation = drawn() if step == "jump" else previous
        n = data.draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
        following = np.concatenate([observation[:, n:], drawn()[:, :n]], axis=1)
        for buffer in (theirs, ours):
            buffer.add(observation, following, np.zeros(n_envs), np.zeros(n_envs), np.zeros(n_envs), [{}] * n_envs)
        previous = drawn() if data.draw(st.booleans()) else following
        assert_equal_arrays(theirs, ours)
    frames = ours.frames
    counted = np.bincount(np.concatenate([frames.now.ravel(), frames.following.ravel()]), minlength=frames.used)
    np.testing.assert_array_equal(counted[1 : frames.used], frames.references[1 : frames.used])
    assert sorted(frames.given_up) == np.flatnonzero(counted[: frames.used] == 0)[int(counted[0] == 0) :].tolist()


def test_slots_are_used_again_for_ever():
    env = VecTransposeImage(VecFrameStack(make_vec_env(Ball, n_envs=2, seed=0), 4))
    (ours,) = both(100, env.observation_space, 2, kinds=(FrameReplayBuffer,))
    used = []
    for _ in range(4):
        play(env, (ours,), 200)
        used.append(ours.frames.used)
    assert used[3] <= used[0] + 8 and used[3] < 120


def test_more_frames_than_expected_make_room_for_themselves():
    theirs, ours = both(200, images(4))
    before, generator = len(ours.frames.slots), np.random.default_rng(0)
    for _ in range(230):  # nothing continues anything
        observation, following = generator.integers(1, 255, (2, 1, 4, 6, 6), dtype=np.uint8)
        for buffer in (theirs, ours):
            buffer.add(observation, following, np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    assert len(ours.frames.slots) > 3 * before
    assert_equal_arrays(theirs, ours)


def test_what_is_handed_in_may_change_afterwards():
    theirs, ours = both(10, images(2))
    observation, following = np.full((1, 2, 6, 6), 1, np.uint8), np.full((1, 2, 6, 6), 2, np.uint8)
    for value in range(3, 8):
        for buffer in (theirs, ours):
            buffer.add(observation, following, np.zeros(1), np.zeros(1), np.zeros(1), [{}])
        observation[:], following[:] = following, value
    assert_equal_arrays(theirs, ours)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda buffer: pickle.loads(pickle.dumps(buffer))])
def test_copies_and_pickles_go_on_alike(again):
    env = VecTransposeImage(VecFrameStack(make_vec_env(Ball, n_envs=2, seed=0), 3))
    theirs, ours = both(120, env.observation_space, 2)
    play(env, (theirs, ours), 50)
    other = again(ours)
    play(env, (theirs, other), 50)
    assert_equal_arrays(theirs, other)
    assert len(pickle.dumps(ours)) < len(pickle.dumps(theirs)) / 4


def test_n_step_returns_are_those_of_sb3():
    env = VecTransposeImage(VecFrameStack(make_vec_env(Ball, n_envs=2, seed=0), 3))
    kinds = (NStepReplayBuffer, FrameNStepReplayBuffer)
    theirs, ours = both(120, env.observation_space, 2, kinds=kinds, n_steps=3, gamma=0.9)
    play(env, (theirs, ours), 100)
    assert_equal_samples(theirs, ours)


@pytest.mark.parametrize("auxiliary", [None, "curl", "temporal"])
@pytest.mark.parametrize(("algorithm", "continuous"), [(DQN, False), (SAC, True)])
def test_agents_and_their_auxiliaries_learn_the_same_to_the_last_bit(algorithm, continuous, auxiliary):
    def learned(buffer):
        env = VecFrameStack(make_vec_env(Ball, n_envs=2, seed=3, env_kwargs={"continuous": continuous}), 3)
        model = algorithm(
            "CnnPolicy",
            env,
            seed=1,
            device="cpu",
            buffer_size=80,
            learning_starts=20,
            batch_size=8,
            train_freq=8,
            replay_buffer_class=buffer,
            policy_kwargs={"features_extractor_kwargs": {"features_dim": 16}},
        )
        callback = auxiliary and ContrastiveAuxiliary(auxiliary, batch_size=8, k=3 if auxiliary == "temporal" else None)
        model.learn(130, callback=callback)
        return torch.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])

    torch.testing.assert_close(learned(FrameReplayBuffer), learned(ReplayBuffer), rtol=0, atol=0)


def test_saved_and_loaded_with_a_model(tmp_path):
    env = VecFrameStack(make_vec_env(Ball, n_envs=2, seed=3), 4)
    settings = {"buffer_size": 60, "learning_starts": 10, "batch_size": 8, "device": "cpu", "seed": 0}
    model = DQN("CnnPolicy", env, replay_buffer_class=FrameReplayBuffer, **settings)
    model.learn(50)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DQN.load(tmp_path / "model", env=env)
    loaded.load_replay_buffer(tmp_path / "replay")
    assert isinstance(loaded.replay_buffer, FrameReplayBuffer)
    assert_equal_arrays(model.replay_buffer, loaded.replay_buffer)
    loaded.learn(50, reset_num_timesteps=False)
    assert loaded.replay_buffer.full


@pytest.mark.parametrize(
    ("space", "kwargs", "sentence"),
    [
        (spaces.Box(-1, 1, (3,)), {}, r"stores images, .* got Box\(-1"),
        (spaces.Box(0, 1, (3, 8, 8)), {}, "stores images"),
        (images(4), {"optimize_memory_usage": True}, "needs optimize_memory_usage=False, got True"),
    ],
)
def test_what_it_does_not_store_gets_a_sentence(space, kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        FrameReplayBuffer(10, space, ACTIONS, **kwargs)
