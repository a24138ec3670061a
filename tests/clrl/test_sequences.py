"""Sequences of observations with the actions and rewards between them, against what really happened."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_hosts import ENCODER
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from contraux.clrl import ContrastiveAuxiliary
from contraux.clrl.actions import ActionCode
from contraux.clrl.callback import build_parts
from contraux.clrl.observations import Observer
from contraux.clrl.sources import Sequences
from contraux.core.preset import preset

CPU = torch.device("cpu")


class Told(gym.Env):
    """Observations (environment, episode, step), rewards that say the action and the step."""

    made = 0

    def __init__(self, continuous=False):
        self.observation_space = spaces.Box(-1e6, 1e6, (3,), np.float32)
        self.action_space = spaces.Box(-4.0, 2.0, (2,), np.float32) if continuous else spaces.Discrete(3)
        self.number, self.episode = Told.made, -1
        Told.made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.clock = self.episode + 1, 0
        return self._see(), {}

    def step(self, action):
        told = float(np.asarray(action, dtype=np.float32).reshape(-1)[0])
        reward = 100.0 * self.clock + told
        self.clock += 1
        return self._see(), reward, self.clock == 5 + self.number, self.clock == 9, {}

    def _see(self):
        return np.array([self.number, self.episode, self.clock], np.float32)


class Numbers(nn.Module):
    """An encoder that shows what it is given, and counts its passes."""

    features_dim = 3

    def __init__(self):
        super().__init__()
        self.scale, self.passes = nn.Parameter(torch.ones(3)), 0

    def forward(self, observations):
        self.passes += 1
        return observations * self.scale


HOSTS = {
    "ring": lambda: PPO("MlpPolicy", _envs(), n_steps=32, batch_size=16, n_epochs=1, policy_kwargs=dict(ENCODER)),
    "ring, continuous": lambda: PPO("MlpPolicy", _envs(True), n_steps=32, batch_size=16, policy_kwargs=dict(ENCODER)),
    "replay": lambda: DQN("MlpPolicy", _envs(), learning_starts=20, buffer_size=200, policy_kwargs=dict(ENCODER)),
    "replay, continuous": lambda: SAC("MlpPolicy", _envs(True), learning_starts=20, policy_kwargs=dict(ENCODER)),
}


def _envs(continuous=False):
    Told.made = 0
    return DummyVecEnv([lambda: Told(continuous)] * 2)


@pytest.mark.parametrize("name", HOSTS)
def test_actions_and_rewards_are_those_between_the_observations(name):
    model = HOSTS[name]()
    auxiliary = ContrastiveAuxiliary("temporal", batch_size=16)
    model.learn(96, callback=auxiliary)
    window = auxiliary.store.sample(64, 3, torch.Generator().manual_seed(0))
    for offset in range(3):
        now, following = window.observation(offset)[""], window.observation(offset + 1)[""]
        np.testing.assert_array_equal(following - now, [[0, 0, 1]] * 64)
        action, reward = window.action(offset).reshape(64, -1), window.reward(offset)
        told = reward - 100 * now[:, 2]
        if "continuous" in name:
            assert np.abs(action).max() <= 1
            told = 2 * (told + 4) / 6 - 1  # from [-4, 2] to [-1, 1]
        np.testing.assert_allclose(action[:, 0], told, atol=2e-4)  # told is a small number in a float32 reward
        assert len(np.unique(action[:, 0])) > 2


def test_rewards_are_normalised_where_the_hosts_are():
    venv = VecNormalize(_envs(), norm_obs=False, clip_reward=1e9)
    model = DQN("MlpPolicy", venv, learning_starts=20, buffer_size=200, policy_kwargs=dict(ENCODER))
    auxiliary = ContrastiveAuxiliary("temporal", batch_size=16)
    model.learn(60, callback=auxiliary)
    window = auxiliary.store.sample(8, 1, torch.Generator().manual_seed(0))
    raw = model.replay_buffer.rewards[window.row, window.env]
    np.testing.assert_allclose(window.reward(0), raw / np.sqrt(venv.ret_rms.var + venv.epsilon), rtol=1e-5)


def sample(**settings):
    """Sequences of a ring that one run of PPO has filled, their window and the encoder."""
    model, auxiliary = HOSTS["ring"](), ContrastiveAuxiliary("temporal", batch_size=16)
    model.learn(96, callback=auxiliary)
    encoder = Numbers()
    source = Sequences(encoder, auxiliary.observer, **settings)
    window = auxiliary.store.sample(16, source.horizon, torch.Generator().manual_seed(1))
    return source, source(window, torch.Generator()), window, encoder


@pytest.mark.parametrize("momentum", [None, 0.0, 0.9])
def test_rows_are_where_the_contract_says(momentum):
    source, pairs, window, encoder = sample(k=2, past=2, momentum=momentum, actions=True, rewards=True)
    assert source.sizes == {"steps": 2, "action_dim": 3, "action_choices": (3,)} and source.horizon == 4
    np.testing.assert_array_equal(pairs.query.detach(), window.observation(2)[""])
    np.testing.assert_array_equal(pairs.key[:16].detach(), window.observation(3)[""])
    np.testing.assert_array_equal(pairs.key[16:].detach(), window.observation(4)[""])
    for back in range(2):
        np.testing.assert_array_equal(pairs.context["past"][:, back].detach(), window.observation(back)[""])
    assert pairs.positive.tolist() == list(range(16))
    assert pairs.context["action"].shape == (16, 2, 3)
    for ahead in range(2):
        np.testing.assert_array_equal(pairs.context["action"][:, ahead].argmax(1), window.action(2 + ahead))
        np.testing.assert_array_equal(pairs.context["reward"][:, ahead], window.reward(2 + ahead))
    assert encoder.passes == {None: 1, 0.0: 2, 0.9: 1}[momentum]
    assert pairs.key.requires_grad == (momentum is None)
    assert torch.autograd.grad(pairs.context["past"].sum(), encoder.scale)[0].abs().max() > 0


def test_the_last_step_alone():
    _, pairs, window, _ = sample(k=3, keys="last")
    np.testing.assert_array_equal(pairs.key.detach(), window.observation(3)[""])
    assert pairs.key.shape == pairs.query.shape and pairs.context == {}


@pytest.mark.parametrize("momentum", [None, 0.0, 0.9])
@pytest.mark.parametrize(("keys", "rows"), [("all", 32), ("last", 16)])
def test_another_view_of_the_query(momentum, keys, rows):
    def noise(x, generator):
        return x + torch.rand(x.shape, generator=generator) / 2

    _, pairs, window, encoder = sample(
        k=2, past=1, keys=keys, momentum=momentum, second_view=True, views={"vector": noise}
    )
    now = torch.as_tensor(window.observation(1)[""])
    for seen in (pairs.query, pairs.context["view"]):
        assert ((seen - now > 0) & (seen - now < 0.5)).all()
    assert not torch.equal(pairs.query, pairs.context["view"])
    ahead = torch.as_tensor(window.observation(3)[""])
    assert len(pairs.key) == rows and ((pairs.key[-16:] - ahead > 0) & (pairs.key[-16:] - ahead < 0.5)).all()
    assert pairs.context["view"].requires_grad == pairs.key.requires_grad == (momentum is None)
    assert encoder.passes == {None: 1, 0.0: 2, 0.9: 1}[momentum]


def test_recurrent_policies_give_sequences_without_padding():
    model = RecurrentPPO("MlpLstmPolicy", _envs(), n_steps=32, batch_size=16, n_epochs=1, policy_kwargs=dict(ENCODER))
    auxiliary = ContrastiveAuxiliary("temporal", batch_size=16)
    model.learn(96, callback=auxiliary)
    window = auxiliary.store.sample(64, 4, torch.Generator().manual_seed(0))
    steps = [window.observation(offset)[""] for offset in range(5)]
    for offset, step in enumerate(steps):
        np.testing.assert_array_equal(step, steps[0] + [0, 0, offset])


def test_codes_of_actions():
    box = ActionCode(spaces.Box(np.array([0.0, -np.inf]), np.array([10.0, np.inf]), dtype=np.float64))
    np.testing.assert_allclose(box.scaled(np.array([[2.5, 7.0]])), [[-0.5, 7.0]])
    assert box.size == 2
    discrete = ActionCode(spaces.Discrete(3))
    assert discrete.encode(np.array([[0], [2]]), CPU).tolist() == [[1, 0, 0], [0, 0, 1]]
    several = ActionCode(spaces.MultiDiscrete([2, 3]))
    assert several.size == 5 and several.choices == (2, 3) and discrete.choices == (3,)
    assert several.encode(np.array([[1, 2]]), CPU).tolist() == [[0, 1, 0, 0, 1]]
    binary = ActionCode(spaces.MultiBinary(3))
    assert binary.encode(np.array([[1, 0, 1]]), CPU).tolist() == [[1, 0, 1]]
    assert binary.choices == box.choices == ()  # values, not choices


def test_bad_parts_are_refused_in_one_sentence():
    encoder = Numbers()
    observer = Observer(Told().observation_space, True, CPU, spaces.Text(4))
    with pytest.raises(ValueError, match=r"needs an action space Discrete, .*, got Text"):
        Sequences(encoder, observer, k=1, actions=True)
    with pytest.raises(ValueError, match="k must be a whole number >= 1, got 0"):
        Sequences(encoder, observer, k=0)
    observer = Observer(Told().observation_space, True, CPU, spaces.Discrete(2))
    config = preset(
        "temporal", "source={_target_: contraux.clrl.sources.Sequences, _partial_: true, k: 1, actions: true}"
    )
    with pytest.raises(
        ValueError,
        match=r"provides the sizes \['action_choices', 'action_dim', 'steps'\], got a module Contrastive .*\[\]",
    ):
        build_parts(config, encoder, observer)
