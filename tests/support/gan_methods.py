"""A discriminator as a user writes it, and what each method for GANs needs of its user."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import contraux
from contraux.clgen import attach

FOLDER = Path(contraux.__file__).parent / "configs" / "gan" / "method"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "none")
B, CLASSES = 6, 3


class Disc(nn.Module):
    def __init__(self, normalise=False):
        super().__init__()
        norm = spectral_norm if normalise else lambda layer: layer
        self.first = nn.Sequential(norm(nn.Conv2d(1, 6, 3, 2, 1)), nn.LeakyReLU(0.1))
        self.body = nn.Sequential(norm(nn.Conv2d(6, 8, 3, 2, 1)), nn.LeakyReLU(0.1))
        self.head = norm(nn.Linear(8, 1))

    def forward(self, x):
        return self.head(self.body(self.first(x)).mean((2, 3)))


class Case(NamedTuple):
    """What a method needs of its user.

    Attributes:
        at: where the taps sit.
        overrides: of the preset.
        given: makes what `loss` is given in the discriminator's phase.
        given_for_generator: likewise; None: the method has no term for the generator.
    """

    at: Any = "body"
    overrides: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    given_for_generator: tuple[str, ...] | None = None


CASES = {
    "contrad": Case(),
    "contragan": Case("body", (f"module.classes={CLASSES}",), ("labels",), ("labels",)),
    "reacgan": Case("body", (f"module.classes={CLASSES}",), ("labels",), ("labels",)),
    "insgen": Case("body", ("module.momentum=0.9", "module.size=2"), ("real_key", "fake_key"), ("fake_key",)),
    "infomax": Case({"local": "first", "global": "body"}, (), (), ()),
    "real_fake_supcon": Case(),
    "class_supcon": Case("body", (), ("labels",), ("labels",)),
}


def images(seed: int, rows: int = B, fake: bool = False) -> torch.Tensor:
    """A shade for each class, with noise; fakes have a gradient from left to right."""
    generator = torch.Generator().manual_seed(seed)
    shade = torch.rand(rows, 1, 1, 1, generator=generator) - 0.5 + labels()[:rows].reshape(-1, 1, 1, 1) - 1
    noise = torch.randn(rows, 1, 16, 16, generator=generator)
    return shade + 0.1 * noise + fake * torch.linspace(-1, 1, 16)


def labels() -> torch.Tensor:
    return torch.arange(B) % CLASSES


def inputs(roles: tuple[str, ...], seed: int) -> list[torch.Tensor]:
    """Views and keys are the real images and the fakes with other noise."""
    found = {"real": images(seed), "fake": images(seed + 1, fake=True)}
    other = 0.1 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(seed + 1000))
    found["view"] = found["real_key"] = found["real"] + other
    found["fake_key"] = found["fake"] + other
    return [found[role] for role in roles]


def given(names: tuple[str, ...], seed: int = 1) -> dict[str, torch.Tensor]:
    keys = [name for name in names if name != "labels"]
    everything = {"labels": labels(), **dict(zip(keys, inputs(tuple(keys), seed), strict=True))}
    return {name: everything[name] for name in names}


def made(name: str, normalise: bool = False, **more: Any) -> tuple[Disc, Any]:
    torch.manual_seed(0)
    disc = Disc(normalise)
    case = CASES[name]
    return disc, attach(disc, at=case.at, objective=name, example=images(0, 2), overrides=case.overrides, **more)


def step(name: str, disc: Disc, aux: Any, seed: int = 1) -> tuple[torch.Tensor, list[torch.Tensor]]:
    with aux:
        logits = [disc(x) for x in inputs(aux.method.roles, seed)]
    return aux.loss(**given(CASES[name].given, seed)), logits


def generator_step(name: str, disc: Disc, aux: Any, fake: torch.Tensor) -> torch.Tensor:
    with aux.for_generator():
        disc(fake)
    return aux.loss(**given(CASES[name].given_for_generator))
