"""Objectives that look at actions, on every kind of action space and on images, beside what really happened."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_hosts import ENCODER, BallWithState
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from contraux.clrl import ContrastiveAuxiliary
from contraux.core.preset import preset

SPACES = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(np.array([-4.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)),
    "multi-binary": spaces.MultiBinary(3),
}
OBJECTIVES = ("spr", "taco", "inverse")


class Echo(gym.Env):
    """The next observation is the action just taken, in numbers, beside noise; the reward is their sum."""

    def __init__(self, action_space):
        self.action_space = action_space
        self.observation_space = spaces.Box(-10, 10, (6,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return self._see(np.zeros(1)), {}

    def step(self, action):
        self.clock += 1
        numbers = np.asarray(action, np.float32).reshape(-1)
        return self._see(numbers), float(numbers.sum()), False, self.clock >= 12, {}

    def _see(self, numbers):
        seen = self.np_random.normal(size=6).astype(np.float32)
        seen[: len(numbers)] = numbers
        return seen


def ppo(kind, **overrides):
    env = DummyVecEnv([lambda: Echo(SPACES[kind])] * 2)
    kwargs = {
        "n_steps": 32,
        "batch_size": 16,
        "n_epochs": 1,
        "seed": 0,
        "policy_kwargs": dict(ENCODER),
        "device": "cpu",
    }
    return PPO("MlpPolicy", env, **{**kwargs, **overrides})


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_kind_of_action(objective, kind):
    auxiliary = ContrastiveAuxiliary(objective, batch_size=16)
    model = ppo(kind)
    before = [parameter.clone() for parameter in model.policy.features_extractor.parameters()]
    model.learn(128, callback=auxiliary)
    assert auxiliary.updates > 0
    assert not all(map(torch.equal, before, model.policy.features_extractor.parameters()))


@pytest.mark.parametrize("kind", SPACES)
def test_the_inverse_model_finds_the_actions_that_were_taken(kind):
    """Which it can only if codes, kinds and times are right: the observation of the wrong step is noise."""
    auxiliary = ContrastiveAuxiliary("inverse", batch_size=64, learning_rate=1e-2)
    model = ppo(kind, learning_rate=3e-3, batch_size=64, n_epochs=8)
    model.learn(768, callback=auxiliary)
    step = next(iter(auxiliary.steps.values()))
    window = auxiliary.store.sample(512, 1, torch.Generator().manual_seed(0))
    metrics = step.objective(step.source(window, torch.Generator())).metrics
    name = "accuracy" if kind in ("discrete", "multi-discrete") else "explained_variance"
    assert set(metrics) == {name}
    assert metrics[name] > 0.9, metrics


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("objective", [*OBJECTIVES, "curl_intensity", "atc_no_shift"])
def test_images(objective, continuous):
    kwargs = {"seed": 1, "device": "cpu", "policy_kwargs": {"features_extractor_kwargs": {"features_dim": 16}}}
    env = DummyVecEnv([lambda: gym.make("contraux-tests/Ball-v0", size=40, continuous=continuous)] * 2)
    if continuous:
        model = SAC("CnnPolicy", env, learning_starts=20, buffer_size=200, train_freq=16, batch_size=8, **kwargs)
    else:
        model = PPO("CnnPolicy", env, n_steps=32, batch_size=16, n_epochs=1, **kwargs)
    auxiliary = ContrastiveAuxiliary(objective, batch_size=8)
    model.learn(96, callback=auxiliary)
    assert auxiliary.updates > 0


def test_images_beside_vectors():
    env = DummyVecEnv([BallWithState] * 2)
    model = PPO("MultiInputPolicy", env, n_steps=32, batch_size=16, n_epochs=1, seed=1, device="cpu")
    auxiliary = ContrastiveAuxiliary(preset("taco", "source.k=2"), batch_size=8)
    model.learn(64, callback=auxiliary)
    assert auxiliary.updates > 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_another_k_reaches_the_objective_and_what_is_saved(objective):
    auxiliary = ContrastiveAuxiliary(objective, batch_size=16, k=2)
    model = ppo("discrete").learn(128, callback=auxiliary)
    model.save("model")
    auxiliary.save("model")
    restored = ContrastiveAuxiliary.load("model")
    PPO.load("model", env=model.get_env()).learn(128, callback=restored, reset_num_timesteps=False)
    assert restored.updates > auxiliary.updates
    assert next(iter(restored.steps.values())).source.k == 2
