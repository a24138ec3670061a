"""The contract that every YAML of configs/gan/method keeps, on a discriminator as a user writes it."""

import io
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
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
    "insgen": Case(
        "body", ("module.momentum=0.9", "module.objective.sampler.size=2"), ("real_key", "fake_key"), ("fake_key",)
    ),
    "infomax": Case({"local": "first", "global": "body"}, (), (), ()),
    "real_fake_supcon": Case(),
    "class_supcon": Case("body", (), ("labels",), ("labels",)),
}
every_method = pytest.mark.parametrize("name", NAMES)


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


def test_every_yaml_has_its_case():
    assert set(NAMES) == set(CASES)
    for name in NAMES:
        assert (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


@every_method
@pytest.mark.parametrize("normalise", [False, True])
def test_the_discriminators_phase_trains_discriminator_and_heads(name, normalise):
    disc, aux = made(name, normalise)
    optimizer = torch.optim.SGD([*disc.parameters(), *aux.parameters()], 0.1)
    before = {key: value.clone() for key, value in aux.method.named_parameters()}
    loss, logits = step(name, disc, aux)
    assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite() and loss > 0
    assert aux.metrics
    for value in aux.metrics.values():
        assert value.shape == () and not value.requires_grad and value.isfinite()
    (loss + sum(logit.mean() for logit in logits[:1])).backward()
    grown = {key: p.grad for key, p in disc.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() and grad.abs().sum() > 0 for grad in grown.values())
    optimizer.step()
    moved = {key: value for key, value in aux.method.named_parameters() if value.requires_grad}
    assert moved
    for key, value in moved.items():
        assert (value != before[key]).any(), key


@every_method
def test_the_loss_falls_when_it_is_trained_on(name):
    disc, aux = made(name)
    optimizer = torch.optim.Adam([*disc.parameters(), *aux.parameters()], 5e-3)
    losses = []
    for i in range(30):
        loss, _ = step(name, disc, aux, 1 + 10 * i)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.9 * sum(losses[1:4])  # after the first, from which on a queue is full


@every_method
def test_the_generators_phase_trains_the_generator_alone(name):
    disc, aux = made(name)
    fake = images(2, fake=True).requires_grad_()
    if CASES[name].given_for_generator is None:
        with pytest.raises(ValueError, match="has no term for the generator"), aux.for_generator():
            pass
        return
    state = deepcopy(aux.method.state_dict())
    loss = generator_step(name, disc, aux, fake)
    assert loss.shape == () and loss.isfinite() and loss > 0
    loss.backward()
    assert fake.grad.abs().sum() > 0 and (fake.grad.flatten(1).abs().sum(1) > 0).all()
    assert all(parameter.grad is None for parameter in aux.parameters())
    assert all(value.requires_grad for key, value in aux.method.named_parameters() if "momentum" not in key)
    after = aux.method.state_dict()
    for key, value in state.items():
        if not key.endswith(("._u", "._v")):  # the power iteration of spectral norm takes a step
            torch.testing.assert_close(after[key], value, rtol=0, atol=0, msg=key)


@every_method
def test_the_order_of_the_examples_does_not_matter(name):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    values = []
    for rows in (torch.arange(B), order):
        disc, aux = made(name)
        with aux:
            for x in inputs(aux.method.roles, 1):
                disc(x[rows])
        values.append(aux.loss(**{key: value[rows] for key, value in given(CASES[name].given).items()}))
    torch.testing.assert_close(values[1], values[0])


@every_method
def test_a_state_dict_takes_everything_along(name):
    disc, aux = made(name)
    for seed in (1, 5):
        loss, _ = step(name, disc, aux, seed)
        loss.backward()
        with torch.no_grad():
            for parameter in aux.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    file = io.BytesIO()
    torch.save({"disc": disc.state_dict(), "aux": aux.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    torch.manual_seed(7)
    other, copy = made(name)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1.0)
    other.load_state_dict(saved["disc"])
    copy.load_state_dict(saved["aux"])
    for seed in (9, 13):
        torch.testing.assert_close(step(name, other, copy, seed)[0], step(name, disc, aux, seed)[0], rtol=0, atol=0)


@every_method
def test_the_discriminator_stays_the_users(name):
    disc, aux = made(name)
    keys = list(Disc().state_dict())
    assert list(disc.state_dict()) == keys and type(disc) is Disc
    assert not {id(parameter) for parameter in aux.parameters()} & {id(parameter) for parameter in disc.parameters()}
    step(name, disc, aux)
    aux.detach()
    assert list(disc.state_dict()) == keys


@every_method
def test_heads_need_an_example(name):
    disc, case = Disc(), CASES[name]
    with pytest.raises(ValueError, match="example"):
        attach(disc, at=case.at, objective=name, overrides=case.overrides)
