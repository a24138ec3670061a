import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core import two_view_pairs
from contraux.core.losses import info_nce, nt_xent
from contraux.core.similarity import cosine

LOSSES = {"info_nce": info_nce, "nt_xent": nt_xent}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def reference(similarity, positive, weights=None, temperature=0.1, itself=False):
    """The formula term by term in Python floats; `positive` is an (N, M) table of weights."""
    losses = []
    for i, row in enumerate(similarity.tolist()):
        wanted = {j: p for j, p in enumerate(positive[i].tolist()) if p > 0 and not (itself and i == j)}
        if not wanted:
            continue
        denominator = 0.0
        for j, s in enumerate(row):
            if itself and i == j:
                continue
            weight = 1.0 if j in wanted or weights is None else weights[i, j].item()
            denominator += weight * math.exp(s / temperature)
        terms = [p * -math.log(math.exp(row[j] / temperature) / denominator) for j, p in wanted.items()]
        losses.append(sum(terms) / sum(wanted.values()))
    return sum(losses) / len(losses)


def case(n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(n, m, generator=generator, dtype=torch.float64) * 2 - 1
    weights = torch.rand(n, m, generator=generator, dtype=torch.float64) * 3
    weights[torch.rand(n, m, generator=generator) < 0.3] = 0.0
    return similarity, weights, generator


def test_info_nce_by_hand():
    # temperature 1/2, similarities log(2)/2 and 0: the exponentials are 2 and 1
    similarity = torch.tensor([[math.log(2) / 2, 0.0, 0.0], [0.0, 0.0, math.log(3) / 2]])
    positive = torch.tensor([0, 1])
    # row 0: -log(2 / 4); row 1: -log(1 / (1 + 1 + 3))
    expected = (math.log(2) + math.log(5)) / 2
    assert info_nce(similarity, positive, temperature=0.5).item() == pytest.approx(expected, rel=1e-6)
    # weights: row 0 counts its negatives 0 and 3: -log(2 / (2 + 3)); row 1: -log(1 / (1 + 0.5 * 1 + 0)); the 9 and 7
    # stand at positives and do not matter
    weights = torch.tensor([[9.0, 0.0, 3.0], [0.5, 7.0, 0.0]])
    expected = (math.log(2.5) + math.log(1.5)) / 2
    assert info_nce(similarity, positive, weights, 0.5).item() == pytest.approx(expected, rel=1e-6)
    # two positives in row 0: (-log(2/4) - log(1/4)) / 2; row 1 has one
    several = torch.tensor([[True, True, False], [False, True, False]])
    expected = ((math.log(2) + math.log(4)) / 2 + math.log(5)) / 2
    assert info_nce(similarity, several, temperature=0.5).item() == pytest.approx(expected, rel=1e-6)
    # soft: 0.2 and 0.6 are 1/4 and 3/4
    soft = torch.tensor([[0.2, 0.6, 0.0], [0.0, 1.0, 0.0]])
    expected = (0.25 * math.log(2) + 0.75 * math.log(4) + math.log(5)) / 2
    assert info_nce(similarity, soft, temperature=0.5).item() == pytest.approx(expected, rel=1e-6)


def test_nt_xent_by_hand():
    # exponentials: 1s except e^{s_01} = e^{s_10} = 3; row 0 and 1 are partners, so are 2 and 3; itself never counts
    similarity = torch.zeros(4, 4)
    similarity[0, 1] = similarity[1, 0] = math.log(3)
    similarity.fill_diagonal_(50.0)
    # rows 0, 1: -log(3 / (3 + 1 + 1)); rows 2, 3: -log(1 / 3)
    expected = (math.log(5 / 3) + math.log(3)) / 2
    assert nt_xent(similarity, torch.tensor([1, 0, 3, 2]), temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**31 - 1), st.sampled_from([0.07, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_info_nce_equals_the_formula(n, m, seed, temperature):
    similarity, weights, generator = case(n, m, seed)
    index = torch.randint(m, (n,), generator=generator)
    table = torch.nn.functional.one_hot(index, m).double()
    several = torch.rand(n, m, generator=generator) < 0.4
    several[0, index[0]] = True
    soft = several.double() * torch.rand(n, m, generator=generator).double().clamp(min=0.01)
    for w in (None, weights):
        for positive, row in ((index, table), (several, several.double()), (soft, soft)):
            expected = reference(similarity, row, w, temperature)
            assert info_nce(similarity, positive, w, temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**31 - 1))
@settings(max_examples=40, deadline=None)
def test_nt_xent_equals_the_formula(n, d, seed):
    _, _, generator = case(1, 1, seed)
    a, b = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    pairs = two_view_pairs(a, b)
    similarity = cosine(pairs.query, pairs.key)
    table = torch.nn.functional.one_hot(pairs.positive, 2 * n).double()
    expected = reference(similarity, table, None, 0.5, itself=True)
    assert nt_xent(similarity, pairs.positive, temperature=0.5).item() == pytest.approx(expected, rel=1e-9)
    assert nt_xent(similarity, table + torch.eye(2 * n), temperature=0.5).item() == pytest.approx(expected, rel=1e-9)
    excluded = info_nce(similarity, pairs.positive, 1 - torch.eye(2 * n, dtype=torch.float64), 0.5)
    assert excluded.item() == pytest.approx(expected, rel=1e-9)


def test_two_view_layout():
    a, b = torch.randn(3, 2), torch.randn(3, 2)
    pairs = two_view_pairs(a, b)
    assert pairs.query is pairs.key
    assert torch.equal(pairs.query, torch.cat((a, b)))
    assert pairs.positive.tolist() == [3, 4, 5, 0, 1, 2]
    assert torch.equal(pairs.exclude, torch.arange(6))
    with pytest.raises(ValueError, match=r"one shape \(N, D\), got \(3, 2\) and \(4, 2\)"):
        two_view_pairs(a, torch.randn(4, 2))


# The contract every loss keeps; a new loss is one more row of LOSSES.


def square(seed=0, n=6):
    similarity, weights, generator = case(n, n, seed)
    positive = (torch.arange(n) + 1) % n
    return similarity, positive, weights, generator


@every_loss
@given(seed=st.integers(0, 2**31 - 1), shift=st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_permutation_and_shift_leave_a_loss_alone(loss, seed, shift):
    similarity, positive, weights, generator = square(seed)
    order = torch.randperm(6, generator=generator)
    place = order.argsort()
    for w in (None, weights):
        value = loss(similarity, positive, w, temperature=0.2)
        moved = None if w is None else w[order][:, order]
        same = loss(similarity[order][:, order], place[positive[order]], moved, temperature=0.2)
        torch.testing.assert_close(same, value)
        torch.testing.assert_close(loss(similarity + shift, positive, w, temperature=0.2), value)


@every_loss
def test_limits(loss):
    similarity, positive, _, _ = square()
    similarity.requires_grad_()
    nothing = loss(similarity, positive, torch.zeros(6, 6, dtype=torch.float64))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, similarity)[0].abs().max() == 0
    rivals = 4 if loss is nt_xent else 5
    equal = loss(torch.zeros(6, 6), positive)
    assert equal.item() == pytest.approx(math.log(rivals + 1), rel=1e-6)
    torch.testing.assert_close(
        loss(similarity, positive, torch.ones(6, 6, dtype=torch.float64)), loss(similarity, positive)
    )


@every_loss
def test_gradients_in_float64(loss):
    similarity, positive, weights, _ = square()
    similarity.requires_grad_()
    mask = torch.nn.functional.one_hot(positive, 6).bool()
    mask[0, 3] = True
    for wanted in (positive, mask, mask * 0.3):
        for w in (None, weights):
            assert torch.autograd.gradcheck(lambda s, p=wanted, w=w: loss(s, p, w, 0.3), similarity)
    with_gradient = (weights + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: loss(similarity.detach(), positive, w, 0.3), with_gradient)


@every_loss
@pytest.mark.parametrize("temperature", [0.01, 1e-3])
def test_extreme_temperature_and_masks_stay_finite(loss, temperature):
    similarity, positive, weights, _ = square()
    similarity = similarity.float()
    similarity[0, 4] = -torch.inf
    mask = torch.nn.functional.one_hot(positive, 6).bool()
    mask[2, 4] = True
    for wanted in (positive, mask):
        for w in (None, weights.float().requires_grad_()):
            leaf = similarity.clone().requires_grad_()
            value = loss(leaf, wanted, w, temperature)
            assert value.dtype == torch.float32 and value.isfinite()
            gradients = torch.autograd.grad(value, [leaf] if w is None else [leaf, w])
            assert all(gradient.isfinite().all() for gradient in gradients)


@every_loss
def test_queries_without_positive_are_left_out(loss):
    similarity, positive, _, _ = square()
    mask = torch.nn.functional.one_hot(positive, 6).bool()
    mask[3:] = False
    rows = torch.stack([loss(similarity, mask & (torch.arange(6) == i).unsqueeze(1)) for i in range(3)])
    torch.testing.assert_close(loss(similarity, mask), rows.mean())
    assert loss(similarity, torch.zeros_like(mask)).item() == 0


@every_loss
@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan, True, "0.1"])
def test_wrong_temperature(loss, temperature):
    similarity, positive, _, _ = square()
    with pytest.raises(ValueError, match=r"temperature must be a (finite )?number > 0, got"):
        loss(similarity, positive, temperature=temperature)


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
def test_wrong_tensors(loss, change, sentence):
    similarity, positive, _, _ = square()
    with pytest.raises(ValueError, match=sentence):
        loss(**({"similarity": similarity, "positive": positive} | change))


@every_loss
@pytest.mark.parametrize("index", [6, -1, -100])
def test_positive_out_of_range_is_torchs_error_on_the_cpu(loss, index):
    similarity, positive, _, _ = square()
    positive[0] = index
    with pytest.raises(IndexError):
        loss(similarity, positive)


def test_nt_xent_needs_a_square():
    with pytest.raises(ValueError, match=r"square similarity \(2N, 2N\), got \(2, 4\)"):
        nt_xent(torch.zeros(2, 4), torch.zeros(2).long())
