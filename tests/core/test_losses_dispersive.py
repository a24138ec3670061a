"""Dispersive losses by hand and by loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core.losses.dispersive import (
    dispersive_covariance,
    dispersive_hinge,
    dispersive_info_nce_l2,
    normalised,
)

ROWS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)  # squared distances 1, 4, 5
PAST = torch.tensor([[1.0, 1.0]], dtype=torch.float64)  # from the rows 2, 1, 2


def test_info_nce_l2_by_hand():
    whole = 3 + 2 * (math.exp(-1 / 0.5) + math.exp(-4 / 0.5) + math.exp(-5 / 0.5))
    assert dispersive_info_nce_l2(ROWS).item() == pytest.approx(math.log(whole / 9), rel=1e-12)
    whole += 2 * math.exp(-2 / 0.5) + math.exp(-1 / 0.5)
    assert dispersive_info_nce_l2(ROWS, PAST).item() == pytest.approx(math.log(whole / 12), rel=1e-12)


def test_hinge_by_hand():
    assert dispersive_hinge(ROWS, margin=4.5).item() == pytest.approx((3 * 4.5**2 + 2 * (3.5**2 + 0.5**2)) / 9)
    expected = (3 * 4.5**2 + 2 * (3.5**2 + 0.5**2) + 2 * 2.5**2 + 3.5**2) / 12
    assert dispersive_hinge(ROWS, PAST, margin=4.5).item() == pytest.approx(expected)


@pytest.mark.parametrize(("n", "d"), [(3, 2), (4, 9), (12, 3)])
def test_covariance_is_what_torch_says_off_the_diagonal(n, d):
    rows, past = torch.randn(n, d, dtype=torch.float64), torch.randn(5, d, dtype=torch.float64)
    for given_past, every in ((None, rows), (past, torch.cat((rows, past)))):
        c = torch.cov(every.T, correction=0)
        expected = (c.square().sum() - c.diagonal().square().sum()).item()
        assert dispersive_covariance(rows, given_past).item() == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 9), d=st.integers(1, 7), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**16))
def test_ranges(n, d, scale, seed):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    assert -math.log(n) - 1e-9 <= dispersive_info_nce_l2(rows).item() <= 1e-9
    assert 4 / n - 1e-9 <= dispersive_hinge(rows, margin=2.0).item() <= 4 + 1e-9
    assert -1e-9 <= dispersive_covariance(normalised(rows, "l2")).item() <= 1


@pytest.mark.parametrize("way", ["l2", "whiten"])
@pytest.mark.parametrize("loss", [dispersive_info_nce_l2, dispersive_hinge, dispersive_covariance])
def test_growth_of_normalised_features_changes_nothing(loss, way):
    rows = torch.randn(8, 6, dtype=torch.float64)
    torch.testing.assert_close(loss(normalised(50 * rows, way)), loss(normalised(rows, way)))


def test_growth_of_features_as_they_are_reaches_the_floor():
    rows = torch.randn(8, 6)
    values = [dispersive_info_nce_l2(normalised(scale * rows, None)).item() for scale in (0.1, 1.0, 10.0, 100.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(-math.log(8), abs=1e-3)


def test_normalised_by_hand():
    torch.testing.assert_close(normalised(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "l2")[0], torch.tensor([0.6, 0.8]))
    whitened = normalised(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), "whiten")
    torch.testing.assert_close(whitened, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]) / math.sqrt(2))
    rows = torch.randn(9, 5, dtype=torch.float64) * torch.tensor([1, 10, 100, 0.1, 3])
    z = normalised(rows, "whiten")
    torch.testing.assert_close((torch.cdist(z, z) ** 2).mean(), torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(normalised(rows, None), rows / math.sqrt(5))


@pytest.mark.parametrize("loss", [dispersive_info_nce_l2, dispersive_hinge, dispersive_covariance])
def test_gradients(loss):
    rows = (0.5 * torch.randn(4, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(loss, rows)
    alike = torch.ones(4, 3, requires_grad=True)  # nothing tells them apart: no direction, and no NaN either
    loss(alike).backward()
    assert not alike.grad.any()


def test_a_step_down_the_gradient_spreads_directions():
    rows = torch.nn.functional.normalize(torch.randn(16, 8) + 2, dim=1).requires_grad_()
    z = normalised(rows, "l2")
    dispersive_info_nce_l2(z).backward()
    moved = normalised(rows.detach() - rows.grad, "l2")
    assert torch.cdist(moved, moved).mean() > torch.cdist(z, z).mean()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: dispersive_info_nce_l2(ROWS, temperature=0.0), "temperature must be a number > 0, got 0.0"),
        (lambda: dispersive_hinge(ROWS, margin=-1.0), "margin must be a number > 0, got -1.0"),
        (lambda: dispersive_covariance(ROWS[:1]), r"N >= 2 and D >= 1, got torch.float64 \(1, 2\)"),
        (lambda: normalised(ROWS, "zca"), "unknown normalize 'zca'"),
    ],
)
def test_sentences(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
