"""Every loss has its YAML, with every parameter at its default."""

import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

import contraux
from contraux.core import losses

FOLDER = Path(contraux.__file__).parent / "configs" / "loss"
FILES = sorted(FOLDER.glob("*.yaml"))
GIVEN = {"similarity", "positive", "weights", "temperature", "reduction", "query", "key"}  # by whoever calls
METRICS = {"alignment", "uniformity"}  # parts of alignment_uniformity
WITH_A_MODULE = {"sig_lip"}  # whose YAML is the module with the learned bias


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_loss_from_its_yaml(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    config = OmegaConf.create(text)
    target = get_object(config["_target_"])
    found = {key: value for key, value in config.items() if not key.startswith("_")}
    signature = inspect.signature(target).parameters
    assert found == {name: p.default for name, p in signature.items() if name not in GIVEN}
    assert all("#" in line for line in text.splitlines() if line.split(":")[0] in found)
    loss = instantiate(config)
    assert isinstance(loss, partial) == inspect.isfunction(target)
    if "query" in signature:
        assert loss(torch.randn(4, 3), torch.randn(4, 3)).isfinite()
    else:
        assert loss(torch.randn(4, 4), torch.tensor([1, 0, 3, 2])).isfinite()


def test_every_loss_has_one():
    targets = {OmegaConf.load(path)["_target_"].rpartition(".")[2] for path in FILES}
    assert targets == set(losses.__all__) - METRICS - WITH_A_MODULE
