"""Methods of the YAML files, small enough for tests."""

from pathlib import Path

import torch
import yaml
from hydra.utils import instantiate
from torch import nn

import contraux

FOLDER = Path(contraux.__file__).parent / "configs" / "method"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NEGATIVE_FREE = ("barlow", "byol", "simsiam", "vicreg")
COPIED = ("byol", "moco", "moco_v1", "mocov3")


class Encoder(nn.Sequential):
    """Six numbers to five features."""

    def __init__(self, batch_norm=False):
        self.out_features = 5
        norm = [nn.BatchNorm1d(7)] if batch_norm else []
        super().__init__(nn.Linear(6, 7), *norm, nn.Tanh(), nn.Linear(7, 5))


def config(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def small(name, batch_norm=False, encoder=None, **changes):
    """The method of a YAML with narrow heads, the projection without batch norm unless asked for; seeded."""
    node = config(name)
    if node["projection"]["hidden"] is not None:
        node["projection"] |= {"hidden": 8}
    node["projection"] |= {"out": 4, "batch_norm": batch_norm, "final_batch_norm": batch_norm}
    if "prediction" in node:
        node["prediction"] |= {"hidden": 6, "batch_norm": batch_norm, "final_batch_norm": batch_norm}
    if "sampler" in node["objective"] and "dim" in node["objective"]["sampler"]:
        node["objective"]["sampler"] |= {"dim": 4, "size": 20}
    node |= changes
    torch.manual_seed(0)
    return instantiate(node, _convert_="all")(Encoder(batch_norm) if encoder is None else encoder)


def views(rows=8, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    first, noise = torch.randn(2, rows, 6, generator=generator, dtype=dtype)
    return first, first + 0.3 * noise


def labels(rows=8):
    """Three classes and unknown ones."""
    return torch.tensor([0, 1, 0, -1, 2, 1, -1, 0])[torch.arange(rows) % 8]


def trainable(method):
    return {name: one for name, one in method.named_parameters() if one.requires_grad}


def gradients(method):
    return {name: one.grad for name, one in trainable(method).items()}
