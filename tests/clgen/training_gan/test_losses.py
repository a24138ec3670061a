"""The adversarial losses and penalties by hand, and against torch's own losses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from contraux.clgen import training_gan as gan
from contraux.clgen.training_gan import Adversarial, one_centred, zero_centred
from contraux.clgen.training_gan.losses import accuracy

REAL = torch.tensor([2.0, -0.5], dtype=torch.float64)
FAKE = torch.tensor([0.5, -3.0], dtype=torch.float64)
PLAYERS = [
    ("non_saturating", "non_saturating"),
    ("hinge", "linear"),
    ("wasserstein", "linear"),
    ("least_squares", "least_squares"),
    ("relativistic", "relativistic"),
]


def log1p_exp(x):
    return math.log(1 + math.exp(x))


BY_HAND = {
    "non_saturating": (
        (log1p_exp(-2.0) + log1p_exp(0.5)) / 2 + (log1p_exp(0.5) + log1p_exp(-3.0)) / 2,
        (log1p_exp(-0.5) + log1p_exp(3.0)) / 2,
    ),
    "hinge": ((0 + 1.5) / 2 + (1.5 + 0) / 2, -(0.5 - 3.0) / 2),
    "wasserstein": (-1.25 - 0.75, 1.25),
    "least_squares": ((1.0 + 2.25) / 4 + (0.25 + 9.0) / 4, (0.25 + 16.0) / 4),
    "relativistic": ((log1p_exp(-1.5) + log1p_exp(-2.5)) / 2, (log1p_exp(1.5) + log1p_exp(2.5)) / 2),
}


@pytest.mark.parametrize(("critic", "maker"), PLAYERS)
def test_by_hand(critic, maker):
    discriminator, generator = getattr(gan, f"{critic}_discriminator"), getattr(gan, f"{maker}_generator")
    expected = BY_HAND[critic]
    assert discriminator(REAL, FAKE).item() == pytest.approx(expected[0], rel=1e-12)
    assert generator(REAL, FAKE).item() == pytest.approx(expected[1], rel=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-30, 30), min_size=2, max_size=5))
def test_non_saturating_is_binary_cross_entropy(scores):
    real, fake = torch.tensor(scores, dtype=torch.float64), torch.tensor(scores[::-1], dtype=torch.float64) / 2
    expected = functional.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    expected = expected + functional.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(gan.non_saturating_discriminator(real, fake), expected)
    expected = functional.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    torch.testing.assert_close(gan.non_saturating_generator(None, fake), expected)


@pytest.mark.parametrize(("critic", "maker"), PLAYERS)
def test_each_player_pulls_the_scores_its_own_way(critic, maker):
    real, fake = torch.tensor([0.3, -0.5], requires_grad=True), torch.tensor([0.5, 0.2], requires_grad=True)
    getattr(gan, f"{critic}_discriminator")(real, fake).backward()
    assert real.grad.sum() < 0 < fake.grad.sum()
    fake.grad = None
    getattr(gan, f"{maker}_generator")(real.detach(), fake).backward()
    assert fake.grad.sum() < 0


def test_relativistic_pairs_and_needs_real_scores():
    moved = gan.relativistic_discriminator(REAL + 7, FAKE + 7)
    torch.testing.assert_close(moved, gan.relativistic_discriminator(REAL, FAKE))
    assert gan.relativistic_discriminator(REAL, FAKE.flip(0)) != moved
    with pytest.raises(ValueError, match="needs the scores of real images, got None"):
        gan.relativistic_generator(None, FAKE)


def test_accuracy_counts_pairs():
    assert accuracy(torch.tensor([1.0, 0.0, 2.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 1.0])) == 0.5


def quadratic(weight):
    """score = w/2 |x|^2, whose gradient is w x."""
    return lambda images: weight / 2 * images.square().sum((1, 2, 3))


def test_penalties_of_a_quadratic_by_hand():
    weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    real = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64).view(2, 1, 1, 2)
    fake = torch.tensor([[0.0, 0.0], [0.0, 3.0]], dtype=torch.float64).view(2, 1, 1, 2)
    mix = torch.tensor([0.5, 1.0], dtype=torch.float64)
    found = zero_centred(quadratic(weight), real)
    assert found.item() == pytest.approx((9 * 25 + 9 * 1) / 2)
    found.backward()
    assert weight.grad.item() == pytest.approx(2 * 3 * (25 + 1) / 2)
    weight.grad = None
    norms = [3 * 2.5, 3 * 1.0]
    found = one_centred(quadratic(weight), real, fake, mix)
    assert found.item() == pytest.approx(sum((norm - 1) ** 2 for norm in norms) / 2)
    found.backward()
    assert weight.grad.item() == pytest.approx((2 * 6.5 * 2.5 + 2 * 2.0 * 1.0) / 2)
    game = Adversarial(gan.hinge_discriminator, gan.linear_generator, r1=0.1, r2=0.4, gradient_penalty=10.0, interval=4)
    total = game.penalty(quadratic(weight), quadratic(2 * weight), real, fake, mix)
    expected = 0.05 * (9 * 26) / 2 + 0.2 * (36 * 9) / 2 + 10 * (6.5**2 + 2.0**2) / 2
    assert total.item() == pytest.approx(4 * expected)


def test_a_flat_score_has_a_finite_gradient():
    weight = torch.zeros((), requires_grad=True)
    one_centred(quadratic(weight), torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.ones(2)).backward()
    assert weight.grad.isfinite()


@pytest.mark.parametrize(("wrong", "sentence"), [
    ({"r1": -1}, "r1 must be a number >= 0, got -1"),
    ({"interval": 0}, "interval must be a whole number >= 1, got 0"),
    ({"vanishing": -0.1}, "vanishing must be a number >= 0"),
])  # fmt: skip
def test_numbers_out_of_range(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Adversarial(gan.hinge_discriminator, gan.linear_generator, **wrong)
