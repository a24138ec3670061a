"""Environments from plain arguments, agents that suit them, and what is said where one does not exist."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import CrossQ, RecurrentPPO
from stable_baselines3 import A2C, PPO, SAC

from contraux.agents.agent import make_agent, suitable_policy
from contraux.agents.environments import check_id, group_override, make
from contraux.agents.job import derived_seed
from contraux.clrl import VectorEncoder


class Picture(gymnasium.Env):
    """A Dict of an image, channels last, and a vector."""

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (36, 36, 3), np.uint8), "vector": spaces.Box(-1, 1, (2,), np.float32)}
    )
    action_space = spaces.Discrete(2)

    def __init__(self, length=3):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps == self.length, False, {}


def test_copies_are_monitored_and_seeded_apart():
    env = make("CartPole-v1", seed=0, n_envs=2)
    first = env.reset()
    assert first.shape == (2, 4) and not np.allclose(first[0], first[1])
    np.testing.assert_array_equal(make("CartPole-v1", seed=0, n_envs=2).reset(), first)
    assert not np.allclose(make("CartPole-v1", seed=derived_seed(0, "evaluation"), n_envs=2).reset(), first)
    infos = []
    while not any("episode" in info for info in infos):
        *_, infos = env.step(np.array([0, 0]))


def test_a_class_of_ones_own_with_arguments_and_images_channel_first():
    env = make(Picture, seed=0, kwargs={"length": 2})
    assert env.reset()["image"].shape == (1, 3, 36, 36)
    env.step([0])
    *_, infos = env.step([0])
    assert infos[0]["episode"]["l"] == 2


def test_atari_is_stacked_grey_and_skips_four():
    env = make("ALE/Boxing-v5", seed=0, kwargs={"frameskip": 1}, frame_stack=4, atari=True)
    assert env.observation_space == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert env.reset().shape == (1, 4, 84, 84)
    before = env.get_attr("ale")[0].getEpisodeFrameNumber()
    env.step([0])
    assert env.get_attr("ale")[0].getEpisodeFrameNumber() - before == 4
    env.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"id": "CartPoel-v1"}, "got 'CartPoel-v1': the nearest are CartPole"),
        ({"id": "CartPole-v1", "n_envs": 0}, r"n_envs must be .* >= 1, got 0"),
        ({"id": "CartPole-v1", "frame_stack": 1.5}, r"frame_stack must be .* >= 1, got 1.5"),
    ],
)
def test_what_cannot_be_made_is_said(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**arguments, seed=0)


@pytest.mark.parametrize("missing", ["ale_py", "cv2"])
def test_a_missing_extra_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"Atari needs .*, which is not installed: pip install 'contraux\[atari\]'"):
        make("ALE/Boxing-v5", seed=0, atari=True)


def test_ids_stand_for_the_generic_option():
    assert group_override("Acrobot-v1") == ["env=gym", "env.id=Acrobot-v1"]
    assert group_override("ALE/Pong-v5,ALE/Boxing-v5") == ["env=atari", "env.id=ALE/Pong-v5,ALE/Boxing-v5"]
    assert group_override("somebodys.module:Theirs-v0") == ["env=gym", "env.id=somebodys.module:Theirs-v0"]
    check_id("CartPole")  # an id may leave out its version
    with pytest.raises(ValueError, match="noisy_cartpole"):
        group_override("noisy_cartpol", ["noisy_cartpole"])


def test_policy_follows_the_observations():
    image = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    vector = spaces.Box(-1, 1, (3,), np.float32)
    assert suitable_policy(PPO, image) == "CnnPolicy"
    assert suitable_policy(PPO, vector) == "MlpPolicy"
    assert suitable_policy(PPO, spaces.Dict({"a": vector})) == "MultiInputPolicy"
    assert suitable_policy(RecurrentPPO, image) == "CnnLstmPolicy"
    with pytest.raises(ValueError, match="CrossQ has no Cnn policy"):
        suitable_policy(CrossQ, image)


def test_vectors_get_an_encoder_and_policy_kwargs_go_on_top():
    env = make("CartPole-v1", seed=0)
    agent = make_agent(A2C, env, policy_kwargs={"net_arch": [8]}, seed=0)
    assert isinstance(agent.policy.features_extractor, VectorEncoder)
    assert agent.policy.mlp_extractor.policy_net[0].out_features == 8
    pixels = make_agent(PPO, make(Picture, seed=0), n_steps=4, batch_size=4)
    assert not isinstance(pixels.policy.features_extractor, VectorEncoder)


def test_arguments_an_algorithm_does_not_take():
    env = make("CartPole-v1", seed=0)
    with pytest.raises(ValueError, match="PPO takes no argument 'n_epoch': the nearest are n_epochs"):
        make_agent(PPO, env, n_epoch=3)
    with pytest.raises(ValueError, match=r"agent\.n_epochs must be a number, got 'ten'"):
        make_agent(PPO, env, n_epochs="ten")
    with pytest.raises(ValueError, match="SAC: The algorithm only supports"):
        make_agent(SAC, env)


def test_derived_seeds_differ_by_purpose_step_and_seed():
    seeds = {
        derived_seed(s, purpose, step) for s in range(20) for purpose in ("evaluation", "resumed") for step in (0, 7)
    }
    assert len(seeds) == 80 and max(seeds) < 2**31
