"""The contract that every matrix loss keeps; a new loss is one more row of LOSSES."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contraux.core.losses import (
    HardNegative,
    SigLIP,
    clip,
    d2d_ce,
    dclw,
    debiased,
    decoupled,
    graded_info_nce,
    hard_negative,
    info_nce,
    max_margin,
    mil_nce,
    nt_xent,
    pairwise_info_nce,
    sig_lip,
    sup_con,
    triplet,
)


@dataclass(frozen=True)
class Row:
    """A loss and what is particular about it.

    Attributes:
        loss: with its parameters bound.
        square: rows and columns are the same examples, and the diagonal never counts.
        shift: adding a number to all similarities changes nothing.
        frozen: part of the value takes no gradient, so that differences of it are another number.
        alone: the loss of a query with one positive of similarity s and no negatives, at temperature t.
        scale: soft positives count relative to each other only.
        copies: a negative of weight 2 is the same as two of weight 1.
    """

    loss: Callable[..., torch.Tensor]
    square: bool = False
    shift: bool = True
    frozen: bool = False
    alone: Callable[[float, float], float] = lambda s, t: 0.0
    scale: bool = True
    copies: bool = True

    def takes(self, name: str) -> bool:
        loss = self.loss.func if isinstance(self.loss, partial) else self.loss
        return name in inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters

    def at(self, temperature: Any) -> dict[str, Any]:
        return {"temperature": temperature} if self.takes("temperature") else {}


def sigmoid_alone(s: float, t: float) -> float:
    return math.log1p(math.exp(-(s / t - 10)))


LOSSES = {
    "info_nce": Row(info_nce),
    "nt_xent": Row(nt_xent, square=True, copies=False),
    "sup_con": Row(sup_con),
    "sup_con in": Row(partial(sup_con, form="in")),
    "triplet": Row(partial(triplet, margin=0.7)),
    "mil_nce": Row(mil_nce),
    "pairwise_info_nce": Row(pairwise_info_nce),
    "d2d_ce": Row(d2d_ce, shift=False),
    "decoupled": Row(decoupled),
    "graded_info_nce": Row(graded_info_nce, scale=False),
    "dclw": Row(dclw, frozen=True),
    "debiased": Row(debiased, shift=False),
    "debiased without bias": Row(partial(debiased, tau_plus=0.0)),
    "hard_negative": Row(hard_negative, shift=False),
    "HardNegative": Row(HardNegative(2.0, 0.5, 100).eval(), shift=False),
    "clip": Row(clip, copies=False),
    "sig_lip": Row(sig_lip, shift=False, alone=sigmoid_alone, scale=False),
    "SigLIP": Row(SigLIP(), shift=False, alone=sigmoid_alone, scale=False),
    "max_margin": Row(partial(max_margin, steps=10), square=True, frozen=True, copies=False),
}
every_loss = pytest.mark.parametrize("row", LOSSES.values(), ids=LOSSES.keys())
every_row_wise_loss = pytest.mark.parametrize(
    "row",
    [row for row in LOSSES.values() if row.takes("reduction")],
    ids=[k for k, r in LOSSES.items() if r.takes("reduction")],
)


@dataclass
class Case:
    similarity: torch.Tensor
    positive: torch.Tensor
    weights: torch.Tensor | None


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(n: int = 6, m: int | None = None, seed: int = 0) -> Case:
    """Similarities in [-1, 1], the next row's column as positive, some weights 0; float64."""
    m, generator = n if m is None else m, seeded(seed)
    similarity = torch.rand(n, m, generator=generator, dtype=torch.float64) * 2 - 1
    weights = torch.rand(n, m, generator=generator, dtype=torch.float64) * 3
    weights[torch.rand(n, m, generator=generator) < 0.3] = 0.0
    return Case(similarity, (torch.arange(n) + 1) % m, weights)


def hot(case: Case) -> torch.Tensor:
    return F.one_hot(case.positive, case.similarity.shape[1]).bool()


@st.composite
def cases(draw: st.DrawFn, square: bool = False) -> Case:
    """Any shape, dtype and kind of positives; rows without positives or negatives; -inf where nothing counts."""
    n = draw(st.integers(1, 6))
    m = n if square else draw(st.integers(1, 7))
    generator = seeded(draw(st.integers(0, 2**31 - 1)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    similarity = (torch.rand(n, m, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)
    if square:
        similarity.fill_diagonal_(1.0)
    index = torch.randint(m, (n,), generator=generator)
    if square and n > 1:
        index = (torch.arange(n) + 1 + torch.randint(n - 1, (n,), generator=generator)) % n
    mask = torch.rand(n, m, generator=generator) < 0.4
    kind = draw(st.sampled_from(["index", "mask", "soft"]))
    if square and n == 1:
        kind, mask = "mask", torch.zeros(1, 1, dtype=torch.bool)  # the only column is the query itself
    positive = {"index": index, "mask": mask, "soft": mask * torch.rand(n, m, generator=generator).clamp(min=1e-3)}[
        kind
    ]
    weights = None
    if draw(st.booleans()):
        weights = (torch.rand(n, m, generator=generator, dtype=torch.float64) * 3).to(dtype)
        weights[torch.rand(n, m, generator=generator) < 0.3] = 0.0
        weights[torch.rand(n, generator=generator) < 0.3] = 0.0
        is_positive = mask if kind != "index" else F.one_hot(index, m).bool()
        unused = (weights == 0) & ~is_positive
        similarity[unused & (torch.rand(n, m, generator=generator) < 0.5)] = -torch.inf
    return Case(similarity, positive, weights)


@every_loss
@given(data=st.data(), temperature=st.sampled_from([0.02, 0.1, 1.0, 10.0]))
@settings(max_examples=40, deadline=None)
def test_values_and_gradients_are_finite(row, data, temperature):
    case = data.draw(cases(row.square))
    similarity = case.similarity.clone().requires_grad_()
    weights = None if case.weights is None else case.weights.clone().requires_grad_()
    heat = torch.tensor(temperature, dtype=similarity.dtype, requires_grad=True)
    value = row.loss(similarity, case.positive, weights, **row.at(heat))
    assert value.dtype == similarity.dtype and value.shape == ()
    assert value.isfinite()
    if value.requires_grad:
        wanted = [x for x in (similarity, weights, heat) if x is not None]
        for gradient in torch.autograd.grad(value, wanted, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


@every_loss
@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_and_columns_does_not_matter(row, seed):
    case, generator = plain(seed=seed), seeded(seed + 1)
    rows = torch.randperm(6, generator=generator)
    columns = rows if row.square else torch.randperm(6, generator=generator)
    for weights in (None, case.weights):
        value = row.loss(case.similarity, case.positive, weights)
        moved = None if weights is None else weights[rows][:, columns]
        for positive in (columns.argsort()[case.positive[rows]], hot(case)[rows][:, columns]):
            torch.testing.assert_close(row.loss(case.similarity[rows][:, columns], positive, moved), value)


@every_loss
def test_an_index_is_a_mask_with_one_true_a_row(row):
    for seed in range(5):
        case = plain(seed=seed)
        for weights in (None, case.weights):
            value = row.loss(case.similarity, case.positive, weights)
            torch.testing.assert_close(row.loss(case.similarity, hot(case), weights), value)
            torch.testing.assert_close(row.loss(case.similarity, hot(case).double(), weights), value)
            if row.scale:
                torch.testing.assert_close(row.loss(case.similarity, hot(case) * 0.3, weights), value)


@every_loss
def test_soft_positives_of_one_size_are_a_mask(row):
    case = plain()
    several = hot(case) | hot(case).roll(2, 1)
    value = row.loss(case.similarity, several, case.weights)
    assert value != row.loss(case.similarity, hot(case), case.weights)
    torch.testing.assert_close(row.loss(case.similarity, several.double(), case.weights), value)
    if row.scale:
        torch.testing.assert_close(row.loss(case.similarity, several * 0.25, case.weights), value)


@every_loss
def test_adding_to_all_similarities_changes_nothing_where_the_formula_says_so(row):
    case = plain()
    value = row.loss(case.similarity, case.positive, case.weights)
    moved = row.loss(case.similarity + 0.7, case.positive, case.weights)
    assert torch.allclose(moved, value, rtol=1e-9) == row.shift


@every_loss
def test_gradient_reaches_positives_and_negatives_and_nothing_else(row):
    case = plain()
    similarity = case.similarity.requires_grad_()
    gradient = torch.autograd.grad(row.loss(similarity, case.positive, case.weights), similarity)[0]
    if row is LOSSES["max_margin"]:
        gradient = gradient.T  # it compares the positive with the query and its negatives
    mine, theirs = gradient[hot(case)], gradient[~hot(case) & (case.weights > 0)]
    assert mine.isfinite().all() and mine.sum() < 0
    assert theirs.isfinite().all() and theirs.sum() > 0 and (theirs != 0).float().mean() > 0.3
    if not row.square:
        assert (gradient[~hot(case) & (case.weights == 0)] == 0).all()


@every_loss
def test_gradients_in_float64(row):
    case = plain()
    similarity, weights = case.similarity.requires_grad_(), (case.weights + 0.1).requires_grad_()
    several = hot(case).roll(2, 1) | hot(case)
    heat = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for positive in (case.positive, several, several * 0.3):
        for w in (None, case.weights):

            def loss(similarity, heat, weights=w, positive=positive):
                return row.loss(similarity, positive, weights, **row.at(heat))

            if row.takes("temperature") and not (row.frozen and row.square):
                assert torch.autograd.gradcheck(lambda t, f=loss: f(similarity.detach(), t), heat)
            if not row.frozen:
                assert torch.autograd.gradcheck(lambda s, f=loss: f(s, heat.detach()), similarity)
        if not (row.frozen and row.square):
            assert torch.autograd.gradcheck(lambda w, f=loss: f(similarity.detach(), heat.detach(), w), weights)


@every_loss
def test_a_temperature_is_a_number_or_a_tensor(row):
    if not row.takes("temperature"):
        return
    case = plain()
    value = row.loss(case.similarity, case.positive, case.weights, 0.3)
    heat = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    same = row.loss(case.similarity, case.positive, case.weights, temperature=heat)
    torch.testing.assert_close(same, value)
    assert torch.autograd.grad(same, heat)[0] != 0


@every_row_wise_loss
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_rows_alone_add_up_to_the_whole(row, data):
    case = data.draw(cases())
    arguments = (case.similarity, case.positive, *([] if case.weights is None else [case.weights]))
    each = row.loss(*arguments, reduction="none")
    assert each.shape == (len(case.similarity),)
    total = row.loss(*arguments, reduction="sum")
    torch.testing.assert_close(total, each.sum())
    has_positive = torch.ones(len(each)).bool() if case.positive.ndim == 1 else (case.positive > 0).any(1)
    assert (each[~has_positive] == 0).all()
    torch.testing.assert_close(row.loss(*arguments), total / has_positive.sum().clamp(min=1))
    cut = data.draw(st.integers(0, len(each)))
    blocks = [[x[rows] for x in arguments] for rows in (slice(cut), slice(cut, None)) if len(each[rows])]
    torch.testing.assert_close(sum(row.loss(*block, reduction="sum") for block in blocks), total)
    torch.testing.assert_close(torch.cat([row.loss(*block, reduction="none") for block in blocks]), each)


@every_loss
def test_queries_without_positive_are_left_out(row):
    case = plain()
    mask = hot(case)
    mask[3:] = False
    similarity = case.similarity.requires_grad_()
    value = row.loss(similarity, mask)
    if row.loss is not clip and not row.square:  # there, their rows are negatives of others
        torch.testing.assert_close(value, row.loss(similarity[:3], mask[:3]))
        assert (torch.autograd.grad(value, similarity)[0][3:] == 0).all()
    if row.square:
        each = [row.loss(similarity, mask & (torch.arange(6) == i).unsqueeze(1)) for i in range(3)]
        torch.testing.assert_close(value, torch.stack(each).mean())
    nobody = row.loss(similarity, torch.zeros_like(mask))
    assert nobody.item() == 0
    assert (torch.autograd.grad(nobody, similarity)[0] == 0).all()


@every_loss
def test_queries_without_negatives_have_a_defined_loss(row):
    case = plain()
    similarity = case.similarity.requires_grad_()
    value = row.loss(similarity, case.positive, torch.zeros(6, 6, dtype=torch.float64), **row.at(0.5))
    alone = [row.alone(similarity[i, p].item(), 0.5) for i, p in enumerate(case.positive.tolist())]
    assert value.item() == pytest.approx(sum(alone) / 6, rel=1e-9, abs=0)
    gradient = torch.autograd.grad(value, similarity)[0]
    assert gradient.isfinite().all()
    assert (gradient[~hot(case)] == 0).all()
    if not any(alone):
        assert (gradient == 0).all()


@every_loss
def test_weights_of_one_are_no_weights_and_those_of_positives_and_below_zero_do_not_matter(row):
    case = plain()
    for positive in (case.positive, hot(case) | hot(case).roll(1, 1)):
        ones = torch.ones(6, 6, dtype=torch.float64)
        torch.testing.assert_close(row.loss(case.similarity, positive, ones), row.loss(case.similarity, positive))
        value = row.loss(case.similarity, positive, case.weights)
        assert value != row.loss(case.similarity, positive)
        is_positive = hot(case) if positive.ndim == 1 else positive
        others = torch.where(is_positive, 7.0, case.weights).masked_fill((case.weights == 0) & ~is_positive, -1.0)
        torch.testing.assert_close(row.loss(case.similarity, positive, others), value)


@every_loss
def test_what_stands_at_weight_zero_does_not_matter_not_even_minus_infinity(row):
    case = plain()
    unused = (case.weights == 0) & ~hot(case)
    if row.square:
        unused = torch.eye(6, dtype=torch.bool)
        case.similarity.fill_diagonal_(1.0)
    for positive in (case.positive, hot(case)):
        values, gradients = [], []
        for filled in (case.similarity, case.similarity.masked_fill(unused, -torch.inf)):
            heat = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
            similarity = filled.clone().requires_grad_()
            value = row.loss(similarity, positive, case.weights, **row.at(heat))
            values.append(value)
            gradients.append(torch.autograd.grad(value, [similarity, *([heat] if row.at(heat) else [])]))
        torch.testing.assert_close(values[1], values[0])
        torch.testing.assert_close(gradients[1][0].masked_fill(unused, 0), gradients[0][0].masked_fill(unused, 0))
        torch.testing.assert_close(gradients[1][1:], gradients[0][1:])


@every_loss
def test_a_negative_of_weight_two_is_two_negatives(row):
    if not row.copies:
        return
    case = plain()
    case.weights[:, 2] = torch.where(case.positive == 2, 0.0, 2.0)  # the second copy of a positive counts nothing
    twice = torch.cat((case.similarity, case.similarity[:, 2:3]), 1)
    weights = torch.cat((case.weights, case.weights[:, 2:3] / 2), 1)
    weights[:, 2] /= 2
    torch.testing.assert_close(
        row.loss(twice, case.positive, weights), row.loss(case.similarity, case.positive, case.weights)
    )


@every_loss
@pytest.mark.parametrize("temperature", [0.01, 1e-3])
def test_extreme_temperatures_stay_finite_in_float32(row, temperature):
    case = plain()
    similarity = case.similarity.float()
    if row.square:
        similarity.fill_diagonal_(1.0)
    case.weights[0, 4] = 0.0
    similarity[0, 4] = -torch.inf
    mask = hot(case)
    mask[2, 4] = True
    for positive in (case.positive, mask):
        leaf, weights = similarity.clone().requires_grad_(), case.weights.float().requires_grad_()
        heat = torch.tensor(temperature, requires_grad=True)
        value = row.loss(leaf, positive, weights, **row.at(heat))
        assert value.dtype == torch.float32 and value.isfinite()
        for gradient in torch.autograd.grad(value, [leaf, weights, heat], allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("where", ["positive", "negative"])
def test_nan_is_not_hidden(row, where):
    for mask in (False, True):
        case = plain()
        several = hot(case) | hot(case).roll(2, 1)
        case.weights.fill_(1.0)
        case.similarity[0, 1 if where == "positive" else 5] = torch.nan
        for weights in (None, case.weights):
            assert row.loss(case.similarity, several if mask else case.positive, weights).isnan()


@every_loss
@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan, True, "0.1", torch.ones(1), torch.tensor(1)])
def test_wrong_temperature(row, temperature):
    if row.takes("temperature"):
        case = plain()
        with pytest.raises(ValueError, match=r"temperature must be a (finite )?number > 0"):
            row.loss(case.similarity, case.positive, temperature=temperature)


@every_row_wise_loss
def test_wrong_reduction(row):
    case = plain()
    for positive in (case.positive, hot(case)):
        with pytest.raises(ValueError, match="unknown reduction 'median'"):
            row.loss(case.similarity, positive, reduction="median")


@every_loss
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"similarity": torch.zeros(6)}, r"\(6,\)"),
        ({"similarity": torch.zeros(6, 6, dtype=torch.long)}, "similarity must be a floating"),
        ({"similarity": torch.zeros(0, 0), "positive": torch.zeros(0).long()}, "N, M >= 1"),
        ({"positive": torch.zeros(5).long()}, r"positive must be long \(6,\) or bool or floating \(6, 6\), got"),
        ({"positive": torch.zeros(6)}, "positive must be long"),
        ({"positive": torch.zeros(6, 6).long()}, "positive must be long"),
        (
            {"weights": torch.ones(6)},
            r"weights must be floating \(6, 6\) like the similarity, got torch.float32 \(6,\)",
        ),
        ({"weights": torch.ones(6, 6).bool()}, "weights must be floating"),
    ],
)
def test_wrong_tensors(row, change, sentence):
    case = plain()
    with pytest.raises(ValueError, match=sentence):
        row.loss(**({"similarity": case.similarity, "positive": case.positive} | change))


@every_loss
@pytest.mark.parametrize("index", [6, -1, -100])
def test_positive_out_of_range_is_torchs_error_on_the_cpu(row, index):
    case = plain()
    case.positive[0] = index
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        row.loss(case.similarity, case.positive)


@every_loss
def test_square_losses_say_so(row):
    similarity, positive = torch.zeros(2, 4), torch.zeros(2).long()
    if row.square:
        with pytest.raises(ValueError, match=r"needs a square similarity .*, got \(2, 4\)"):
            row.loss(similarity, positive)
    else:
        assert row.loss(similarity, positive).isfinite()


def test_modules_take_what_functions_take():
    expected = ["similarity", "positive", "weights", "temperature", "reduction"]
    for module in (SigLIP(), HardNegative(1.0, 0.0, 5)):
        assert list(inspect.signature(module.forward).parameters) == expected
