"""Augmentation: each transformation by hand, its gradient, and that the same numbers do the same."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.clgen.training_gan import ADA, AffineContrast, Augment, DiffAug
from contraux.clgen.training_gan.augment import affine, color, cutout, translation


def images(count=3, channels=3, size=8, seed=0):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


def numbers(augment, count=3, seed=1):
    return torch.rand(count, augment.numbers, generator=torch.Generator().manual_seed(seed))


EVERY = [
    Augment,
    DiffAug,
    lambda: DiffAug(["cutout"]),
    AffineContrast,
    lambda: AffineContrast(flip=0.5, saturation=0.5),
    ADA,
]


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_are_changed_each_by_its_own_numbers(make, channels):
    augment, x = make(), images(channels=channels)
    if isinstance(augment, ADA):
        augment.probability.fill_(0.7)
    u = numbers(augment)
    found = augment(x, u)
    assert found.shape == x.shape and found.dtype == x.dtype
    torch.testing.assert_close(found[1:], augment(x[1:], u[1:]))
    if augment.numbers:
        assert not torch.equal(found, x)


@pytest.mark.parametrize("make", [DiffAug, AffineContrast, ADA])
def test_the_gradient_is_that_of_finite_differences(make):
    augment, x = make(), images(2, 1, 4).double().requires_grad_()
    if isinstance(augment, ADA):
        augment.probability.fill_(1.0)
    u = numbers(augment, 2)
    assert torch.autograd.gradcheck(lambda x: augment(x, u), x)


def test_color_by_hand():
    x = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]]])
    found = color(x, torch.tensor([[0.6, 0.25, 0.9]]))
    brighter = x + 0.1
    grey = brighter.mean(1, keepdim=True)
    saturated = (brighter - grey) * 0.5 + grey
    torch.testing.assert_close(found, (saturated - saturated.mean()) * 1.4 + saturated.mean())
    torch.testing.assert_close(color(x, torch.tensor([[0.5, 0.5, 0.5]])), x)


def test_translation_moves_whole_pixels_and_fills_with_zeros():
    x = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    found = translation(x, torch.tensor([[0.0, 0.99]]))  # one pixel each way: up to an eighth of eight
    expected = torch.zeros_like(x)
    expected[..., 1:, :-1] = x[..., :-1, 1:]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(translation(x, torch.tensor([[0.5, 0.5]])), x)


def test_cutout_by_hand():
    found = cutout(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0.5]]))
    expected = torch.ones(8, 8)
    expected[:2, 2:6] = 0  # centre at row 0 and column 4, four pixels wide, cut off above
    torch.testing.assert_close(found[0, 0], expected)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 0.999), min_size=2, max_size=2))
def test_a_cutout_is_never_larger_than_its_square(u):
    hole = (cutout(torch.ones(1, 1, 8, 8), torch.tensor([u])) == 0).sum()
    assert 4 <= hole <= 16


def test_affine_by_hand():
    x = images(1, 1, 8)
    zero, one, still = torch.zeros(1), torch.ones(1), torch.zeros(1, 2)
    torch.testing.assert_close(affine(x, zero, one, one, still), x)
    torch.testing.assert_close(affine(x, zero, -one, one, still), x.flip(3), atol=1e-5, rtol=0)
    quarter = affine(x, torch.tensor([math.pi / 2]), one, one, still)
    torch.testing.assert_close(quarter, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    moved = affine(x, zero, one, one, torch.tensor([[2 / 8, 0.0]]))
    torch.testing.assert_close(moved[..., :-1], x[..., 1:], atol=1e-5, rtol=0)


def test_affine_contrast_at_the_middle_of_its_ranges_changes_nothing():
    augment = AffineContrast(saturation=0.5)
    torch.testing.assert_close(augment(images(), torch.full((3, 9), 0.5)), images(), atol=1e-5, rtol=0)


def test_ada_does_nothing_until_the_scores_ask_for_it():
    augment, x = ADA(target=0.5, interval=2, images=100), images(4)
    u = numbers(augment, 4)
    torch.testing.assert_close(augment(x, u), x, atol=1e-5, rtol=0)
    sure, unsure = torch.ones(10), torch.tensor([1.0, -1.0] * 5)
    augment.observe(sure, 1)
    assert augment.probability == 0
    augment.observe(sure, 2)  # r = 1: up by 10 images x 2 steps of 100
    assert augment.probability == pytest.approx(0.2)
    augment.observe(unsure, 3)
    augment.observe(sure, 4)  # r = 0.5 is the target itself
    assert augment.probability == pytest.approx(0.2)
    augment.observe(unsure, 5)
    augment.observe(unsure, 6)
    assert augment.probability == pytest.approx(0.0)
    for step in range(20):
        augment.observe(sure, step + 1)
    assert augment.probability == 1
    assert (augment(x, u) - x).abs().mean() > 0.1


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: DiffAug("color"), "policy must be a list of color, translation, cutout, got 'color'"),
    (lambda: DiffAug(["colour"]), "did you mean color"),
    (lambda: AffineContrast(zoom=1.0), r"zoom must be a number in \[0, 1\), got 1.0"),
    (lambda: ADA(target=1.0), "target must be a number"),
])  # fmt: skip
def test_what_does_not_fit(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
