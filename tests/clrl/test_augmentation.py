"""The arm every comparison needs: each YAML of it trains a model on augmented images, and only while it updates."""

from pathlib import Path

import pytest
import sb3_hosts  # registers the environments
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env

import contraux
from contraux.clrl import ObservationAugmentation
from contraux.core.views import Chain, Intensity, RandomShift

FOLDER = Path(contraux.__file__).parent / "configs" / "augmentation"
VIEWS = {
    "shift": RandomShift(4),
    "intensity": Intensity(0.05),
    "shift_intensity": Chain([RandomShift(4), Intensity(0.05)]),
}


def made(name):
    return instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"))  # as the jobs do


def model():
    assert "contraux-tests/Ball-v0" in sb3_hosts.gym.registry
    env = make_vec_env("contraux-tests/Ball-v0", n_envs=2, seed=3, env_kwargs={"size": 40})
    return DQN(
        "CnnPolicy", env, learning_starts=20, batch_size=8, buffer_size=100, train_freq=8, seed=1, device="cpu",
        policy_kwargs={"features_extractor_kwargs": {"features_dim": 16}},
    )  # fmt: skip


def test_a_run_that_is_gone_on_with_sees_other_views_than_at_its_start(tmp_path):
    first = made("shift")
    trained = model().learn(64, callback=first)
    trained.save(tmp_path / "model")
    drawn = []
    for one in (model(), DQN.load(tmp_path / "model", env=trained.get_env())):
        augmentation = made("shift")
        augmentation.model = one
        augmentation._init_callback()
        drawn.append(torch.rand(3, generator=augmentation.generator))
    assert not torch.equal(*drawn)


def test_every_yaml_is_known_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*VIEWS, "none"}
    assert yaml.safe_load((FOLDER / "none.yaml").read_text()) == {"views": None}


@pytest.mark.parametrize("name", VIEWS)
def test_the_host_learns_from_what_the_views_make(name):
    plain = model().learn(64)
    augmentation = made(name)
    assert isinstance(augmentation, ObservationAugmentation) and augmentation.views == {"image": VIEWS[name]}
    seen = []
    augmented = model()
    augmented.q_net.features_extractor.register_forward_hook(lambda *call: seen.append(call[1][0]))
    augmented.learn(64, callback=augmentation)
    weights = [dict(one.policy.state_dict()) for one in (plain, augmented)]
    assert any(not torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    updates = [x for x in seen if len(x) == 8]
    assert updates and all(x.dtype == torch.float32 for x in updates)
    # the ball is white (1.0 after preprocessing) on black: brightness shows as other numbers, a shift does not
    assert any(((x > 0) & (x != 1)).any() for x in updates) == ("intensity" in name)
    acting = [x for x in seen if len(x) == 2]
    assert acting and all(((x == 0) | (x == 1)).all() for x in acting)  # the policy acts on images as they are
