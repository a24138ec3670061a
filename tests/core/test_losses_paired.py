"""Losses without negatives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core.losses import alignment, alignment_uniformity, barlow_twins, negative_cosine, uniformity, vicreg

LOSSES = {  # and the least number of pairs
    "negative_cosine": (negative_cosine, 1),
    "vicreg": (vicreg, 2),
    "barlow_twins": (barlow_twins, 2),
    "alignment": (alignment, 1),
    "alignment_uniformity": (alignment_uniformity, 2),
}
every_loss = pytest.mark.parametrize(("loss", "least"), LOSSES.values(), ids=LOSSES.keys())


def test_negative_cosine_by_hand():
    query = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    key = torch.tensor([[10.0, 0.0], [-2.0, 0.0]])
    assert negative_cosine(query, key).item() == pytest.approx(-(3 / 5 - 1) / 2)
    unit = torch.nn.functional.normalize
    byol = (unit(query) - unit(key)).square().sum(1).mean()
    torch.testing.assert_close(2 + 2 * negative_cosine(query, key), byol)


def test_vicreg_by_hand():
    # dimension 0 has values 0, 2 (variance 2), dimension 1 has 0, 1 (variance 1/2), their covariance is 1
    query = torch.tensor([[0.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    key = torch.zeros(2, 2, dtype=torch.float64)
    invariance, collapsed = 5 / 4, 1 - math.sqrt(0.5001)
    assert vicreg(query, key, 1, 0, 0).item() == pytest.approx(invariance, rel=1e-12)
    v_query, v_key = (0 + collapsed) / 2, 1 - 0.01
    assert vicreg(query, key, 0, 1, 0).item() == pytest.approx((v_query + v_key) / 2, rel=1e-12)
    assert vicreg(query, key, 0, 0, 1).item() == pytest.approx(2 * 1 / 2, rel=1e-12)
    whole = 25 * invariance + 25 * (v_query + v_key) / 2 + 1
    assert vicreg(query, key).item() == pytest.approx(whole, rel=1e-12)


def test_barlow_twins_by_hand():
    # dimension 0 of both views agrees; dimension 1 is opposite; across, (1, -1, 0) and (1, 1, -2) have correlation 0
    query = 1e4 * torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    key = query * torch.tensor([1.0, -3.0]) + 5.0
    assert barlow_twins(query, key).item() == pytest.approx(4.0)
    # both dimensions of the key follow dimension 0 of the query: C = [[1, 1], [0, 0]]
    both = query[:, :1].expand(3, 2)
    assert barlow_twins(query, both, 0.25).item() == pytest.approx(0 + 1 + 0.25)


def test_a_constant_dimension_has_no_correlation_and_no_large_gradient():
    query, key = torch.randn(2, 7, 3)
    query[:, 1] = 0.1  # whose mean is not quite 0.1 in float32
    key[:, 1] = 0.1
    leaf = query.clone().requires_grad_()
    value = barlow_twins(leaf, key)
    others = barlow_twins(query[:, [0, 2]], key[:, [0, 2]])
    torch.testing.assert_close(value, others + 1, rtol=1e-3, atol=1e-3)
    assert torch.autograd.grad(value, leaf)[0].abs().max() < 1e3


def test_alignment_and_uniformity_by_hand():
    query = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    key = torch.tensor([[0.0, 5.0], [0.0, 3.0]], dtype=torch.float64)
    # squared distances 2 and 0
    assert alignment(query, key).item() == pytest.approx(1.0)
    assert alignment(query, key, 1.0).item() == pytest.approx(math.sqrt(2) / 2)
    assert alignment(query, key, 4.0).item() == pytest.approx(2.0)
    leaf = query.clone().requires_grad_()
    assert torch.autograd.grad(alignment(leaf, key, 0.5), leaf)[0].isfinite().all()
    assert uniformity(query).item() == pytest.approx(-4.0)
    assert uniformity(key, 3.0).item() == pytest.approx(0.0)
    three = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = math.log((math.exp(-2 * 4) + 2 * math.exp(-2 * 2)) / 3)
    assert uniformity(three).item() == pytest.approx(expected, rel=1e-12)
    both = alignment_uniformity(query, key, 3.0, 0.5, alpha=1.0, t=1.0)
    assert both.item() == pytest.approx(3 * math.sqrt(2) / 2 + 0.5 * (-2.0 + 0.0) / 2)


@every_loss
@given(
    extra=st.integers(0, 4),
    d=st.integers(1, 5),
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["random", "zero", "equal", "one"]),
)
@settings(max_examples=30, deadline=None)
def test_values_and_gradients_are_finite(loss, least, extra, d, seed, kind):
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(least + extra, d, generator=generator) for _ in range(2))
    if kind == "zero":
        query = query * 0
    if kind == "equal":
        key = query.clone()
    if kind == "one":
        query = query[:1].expand_as(query)
    query, key = query.clone().requires_grad_(), key.clone().requires_grad_()
    value = loss(query, key)
    assert value.shape == () and value.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value, [query, key]))


@every_loss
def test_gradients_reach_both_views_in_float64(loss, least):
    query, key = torch.randn(2, 5, 3, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(loss, (query, key))
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(loss(query, key), [query, key]))


@every_loss
def test_the_order_of_pairs_does_not_matter_and_pairing_does(loss, least):
    query, key = torch.randn(2, 6, 4, dtype=torch.float64)
    order = torch.randperm(6)
    torch.testing.assert_close(loss(query[order], key[order]), loss(query, key))
    assert not torch.isclose(loss(query, key.roll(1, 0)), loss(query, key))
    torch.testing.assert_close(loss(key, query), loss(query, key))


@every_loss
def test_full_precision_under_autocast_and_for_half(loss, least):
    query, key = torch.randn(2, 6, 4)
    value = loss(query, key)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(query, key), value)
    half = loss(query.bfloat16(), key.bfloat16())
    assert half.dtype == torch.float32
    assert torch.equal(half, loss(query.bfloat16().float(), key.bfloat16().float()))
    assert loss(query.double(), key).dtype == torch.float64


@every_loss
def test_nan_is_not_hidden(loss, least):
    query, key = torch.randn(2, 6, 4)
    query[2, 1] = torch.nan
    assert loss(query, key).isnan()


@every_loss
@pytest.mark.parametrize(
    "shapes", [((3, 2), (4, 2)), ((3, 2), (3, 1)), ((3,), (3,)), ((3, 0), (3, 0)), ((0, 2), (0, 2))]
)
def test_wrong_rows(loss, least, shapes):
    with pytest.raises(
        ValueError, match=rf"needs floating rows \(N, D\) of one shape with N >= {least} and D >= 1, got"
    ):
        loss(*(torch.zeros(s) for s in shapes))
    with pytest.raises(ValueError, match=r"got torch.int64 \(3, 2\) and"):
        loss(torch.zeros(3, 2).long(), torch.zeros(3, 2))
    if least == 2:
        with pytest.raises(ValueError, match=r"N >= 2 and D >= 1, got torch.float32 \(1, 2\) and"):
            loss(torch.zeros(1, 2), torch.zeros(1, 2))


def test_one_row_has_no_uniformity():
    with pytest.raises(
        ValueError, match=r"uniformity needs floating .* N >= 2 and D >= 1, got torch.float32 \(1, 2\)$"
    ):
        uniformity(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("loss", "change"),
    [
        (vicreg, {"invariance": -1.0}),
        (vicreg, {"variance": math.inf}),
        (vicreg, {"covariance": "1"}),
        (barlow_twins, {"redundancy": -1.0}),
        (alignment, {"alpha": 0.0}),
        (alignment_uniformity, {"align": -1.0}),
        (alignment_uniformity, {"spread": -1.0}),
        (alignment_uniformity, {"t": 0.0}),
    ],
)
def test_wrong_numbers(loss, change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be a "):
        loss(torch.ones(3, 2), torch.ones(3, 2), **change)
