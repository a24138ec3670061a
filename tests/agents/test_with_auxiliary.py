"""Agents that carry their auxiliary, for every algorithm the seam supports."""

import io
import zipfile

import pytest
import stable_baselines3
import torch
from sb3_hosts import HOSTS
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env

from contraux import agents
from contraux.agents import ContrastivePPO, with_auxiliary
from contraux.clrl import ContrastiveAuxiliary, vector_encoder


@pytest.mark.parametrize("name", HOSTS)
def test_save_and_load_carry_the_auxiliary(name):
    host = HOSTS[name]
    cls = with_auxiliary(host.algorithm)
    model = host._replace(algorithm=cls).make(auxiliary=ContrastiveAuxiliary(batch_size=16, weight=0.5))
    model.learn(host.steps)
    assert model.auxiliary.updates > 0
    model.save("model")
    before = {key: value.clone() for key, value in model.auxiliary.state()[0].items()}

    loaded = host.load("model", cls)
    assert type(loaded).__name__ == f"Contrastive{host.algorithm.__name__}"
    assert loaded.auxiliary.weight == 0.5
    if hasattr(model, "replay_buffer"):
        loaded.replay_buffer = model.replay_buffer
    assert loaded.auxiliary.updates == 0  # put in place when learn() starts
    loaded.learn(host.steps, reset_num_timesteps=False)
    assert loaded.auxiliary.updates > model.auxiliary.updates
    after = loaded.auxiliary.state()[0]
    assert set(after) == set(before)
    plain = host.load("model")  # Stable-Baselines3 itself reads the same file
    assert all(torch.equal(value, plain.policy.state_dict()[key]) for key, value in model.policy.state_dict().items())


def test_state_is_the_same_after_a_round_trip_through_bytes():
    host = HOSTS["PPO"]
    model = host._replace(algorithm=ContrastivePPO).make(auxiliary=ContrastiveAuxiliary("temporal", batch_size=16))
    model.learn(host.steps)
    file = io.BytesIO()
    model.save(file)
    loaded = ContrastivePPO.load(file)
    for key, value in model.auxiliary.state()[0].items():
        assert torch.equal(loaded.auxiliary.state()[0][key], value)
    second = io.BytesIO()
    loaded.save(second)  # not trained in between: nothing is lost
    again = ContrastivePPO.load(second)
    assert again.auxiliary.state()[0].keys() == model.auxiliary.state()[0].keys()


def test_the_zip_holds_no_pickle_of_ours():
    host = HOSTS["PPO"]
    model = host._replace(algorithm=ContrastivePPO).make(auxiliary=ContrastiveAuxiliary("temporal", batch_size=16))
    model.learn(host.steps).save("model")
    with zipfile.ZipFile("model.zip") as archive:
        assert "auxiliary.safetensors" in archive.namelist()
        assert "auxiliary" not in archive.read("data").decode()


def test_checkpoints_carry_it_too(tmp_path):
    host = HOSTS["PPO"]
    model = host._replace(algorithm=ContrastivePPO).make(auxiliary=ContrastiveAuxiliary("temporal", batch_size=16))
    model.learn(192, callback=CheckpointCallback(64, str(tmp_path)))
    saved = sorted(tmp_path.glob("*.zip"))
    assert saved
    assert ContrastivePPO.load(saved[-1]).auxiliary._restored is not None


def test_none_is_the_plain_algorithm_bit_by_bit():
    host = HOSTS["PPO"]
    plain = host.make().learn(host.steps).policy.state_dict()
    ours = host._replace(algorithm=ContrastivePPO).make(auxiliary=None).learn(host.steps).policy.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in plain.items())


def test_a_preset_name_and_the_default():
    env = make_vec_env("CartPole-v1", n_envs=2)
    for auxiliary in ({}, {"auxiliary": "curl"}):
        model = ContrastivePPO("MlpPolicy", env, n_steps=64, policy_kwargs=vector_encoder(), **auxiliary).learn(128)
        assert model.auxiliary.updates > 0


def test_the_ready_made_agents():
    for name in ("PPO", "A2C", "DQN", "SAC", "TD3"):
        cls = getattr(agents, f"Contrastive{name}")
        assert issubclass(cls, getattr(stable_baselines3, name))
        assert cls is with_auxiliary(getattr(stable_baselines3, name))


def test_what_is_refused():
    with pytest.raises(TypeError, match="algorithm must be a Stable-Baselines3 algorithm class, got 'PPO'"):
        with_auxiliary("PPO")
    with pytest.raises(ValueError, match="auxiliary must be a preset's name, a ContrastiveAuxiliary or None, got 3"):
        ContrastivePPO("MlpPolicy", "CartPole-v1", policy_kwargs=vector_encoder(), auxiliary=3)
    with pytest.raises(ValueError, match=r"vector_encoder\(\)"):
        ContrastivePPO("MlpPolicy", "CartPole-v1")
