"""The policies of `configs/views/`: they make views of the data they are for, and say what the papers say."""

from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from scipy import stats

import contraux
from contraux.core.views import StandardisedNoise

FOLDER = Path(contraux.__file__).parent / "configs" / "views"
SHAPES = {"digits": (1, 8, 8), "shift": (4, 20, 20), "noise": (7,)}
POLICIES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def config(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def build(name, **changes):
    shape = SHAPES.get(name, (3, 32, 40))
    statistics = {"mean": [0.4] * shape[0], "std": [0.2] * shape[0]}
    return instantiate({**config(name), **changes})(shape=shape, **statistics), shape


def batch(shape, n=6):
    return torch.rand(n, *shape) if len(shape) == 1 else torch.randint(256, (n, *shape), dtype=torch.uint8)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_makes_two_views_of_its_data(name):
    views, shape = build(name)
    x = batch(shape)
    first, second = views(x, torch.Generator().manual_seed(0))
    assert first.shape == second.shape == (6, *views.first.shape) == x.shape
    assert first.dtype == second.dtype == torch.float32 and first.isfinite().all() and second.isfinite().all()
    assert (first != second).any(1).flatten(1).any(1).all() if first.ndim > 2 else (first != second).all()
    again = views(x, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], first) and torch.equal(again[1], second)
    pieces = [views(x[i : i + 3], torch.Generator().manual_seed(0), i, 6) for i in (0, 3)]
    for whole, *parts in zip((first, second), *pieces, strict=True):
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ("noise", "shift")])
def test_size_is_that_of_the_data_unless_asked_for(name):
    views, shape = build(name)
    assert views.first.shape == shape
    changed = config(name)
    for side in ("first", "second"):
        if changed[side]:
            changed[side]["steps"]["crop"]["size"] = 16
    views = build(name, **changed)[0]
    assert views.first.shape == views.second.shape == (shape[0], 16, 16)


def test_a_step_can_be_switched_off():
    steps = {**config("simclr")["first"]["steps"], "blur": None}
    with_blur, without = build("simclr")[0], build("simclr", first={**config("simclr")["first"], "steps": steps})[0]
    assert len(with_blur.first.steps) == 4 and len(without.first.steps) == 3
    assert with_blur.first.draws == without.first.draws + 2


def test_byol_and_mocov3_differ_in_blur_and_solarization_only():
    for name in ("byol", "mocov3"):
        first, second = (config(name)[side]["steps"] for side in ("first", "second"))
        assert {key for key in first if first[key] != second[key]} == {"blur", "solarize"}
        assert (first["blur"]["p"], second["blur"]["p"], second["solarize"]["p"]) == (1.0, 0.1, 0.2)


def test_digits_are_never_mirrored():
    views, _ = build("digits")
    ramp = torch.arange(0, 240, 30, dtype=torch.uint8).expand(200, 1, 8, 8)
    view = views.first(ramp, torch.Generator().manual_seed(0))
    assert (view.diff(dim=3) > -1e-4).all() and (view.diff(dim=3) > 1e-4).any()


def test_noise_standardises_and_adds_a_normal():
    x = torch.randn(4000, 2) * torch.tensor([3.0, 0.1]) + torch.tensor([5.0, -2.0])
    view = StandardisedNoise(0.3, shape=(2,), mean=[5.0, -2.0], std=[3.0, 0.1])
    plain = StandardisedNoise(0.0, shape=(2,), mean=[5.0, -2.0], std=[3.0, 0.1])(x, torch.Generator())
    torch.testing.assert_close(plain, (x - torch.tensor([5.0, -2.0])) / torch.tensor([3.0, 0.1]))
    noise = view(x, torch.Generator().manual_seed(0)) - plain
    for column in noise.T:
        assert stats.kstest(column.numpy(), stats.norm(0, 0.3).cdf).pvalue > 1e-3
    assert view.apply(x[:1], torch.zeros(1, 2)).isfinite().all()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: StandardisedNoise(-1.0, shape=(2,), mean=[0, 0], std=[1, 1]), "noise must be a number >= 0, got -1.0"),
        (
            lambda: StandardisedNoise(shape=(1, 8, 8), mean=[0], std=[1]),
            r"needs vectors, shape \(D,\), got \(1, 8, 8\)",
        ),
        (lambda: StandardisedNoise(shape=(2,), mean=[0], std=[1, 1]), "one number an entry, 2 in all, got 1"),
        (lambda: StandardisedNoise(shape=(2,), mean=[0, 0], std=[1, 0]), "std must be > 0, got 0"),
        (
            lambda: StandardisedNoise(shape=(2,), mean=[0, 0], std=[1, 1])(torch.zeros(3, 4), torch.Generator()),
            r"floating vectors \(N, 2\), got torch.float32 \(3, 4\)",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
