"""CPC: its scores by hand, against loops, and where its gradient goes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from preset_kinds import objective_of

from contraux.core import Pairs
from contraux.core.preset import preset
from contraux.core.samplers import Queue
from contraux.core.similarity import Bilinear, cosine
from contraux.core.temporal import CPC


def sequences(n=5, past=2, steps=3, dim=4, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    made = [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((n, dim), (steps * n, dim))]
    context = {"past": torch.randn(n, past, dim, dtype=dtype, requires_grad=True)} if past else {}
    return Pairs(*made, torch.arange(n), context=context)


def gru_by_hand(gru, sequence):
    """The last state, gate by gate (Cho et al. 2014 in PyTorch's arrangement: reset, update, new)."""
    state = torch.zeros(gru.hidden_size, dtype=sequence.dtype)
    wi, wh, bi, bh = gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0
    for x in sequence:
        (xr, xz, xn), (hr, hz, hn) = (wi @ x + bi).chunk(3), (wh @ state + bh).chunk(3)
        reset, update = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        state = (1 - update) * torch.tanh(xn + reset * hn) + update * state
    return state


@torch.no_grad()
def by_loops(objective, pairs):
    """Loss, accuracy of each step, one window and one candidate after another."""
    n, steps, dim = len(pairs.query), objective.steps, objective.dim
    losses, right = [], []
    for j in range(steps):
        weight = objective.prediction.weight[j * dim : (j + 1) * dim]
        for i in range(n):
            past = list(pairs.context["past"][i]) if "past" in pairs.context else []
            context = gru_by_hand(objective.gru, torch.stack([*past, pairs.query[i]]))
            scores = [float(pairs.key[j * n + m] @ weight @ context) for m in range(n)]
            losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[i])
            right.append(scores[i] > max(score for m, score in enumerate(scores) if m != i))
    return sum(losses) / len(losses), [sum(right[j * n : (j + 1) * n]) / n for j in range(steps)]


@pytest.mark.parametrize("past", [0, 1, 3])
def test_against_loops(past):
    pairs = sequences(past=past)
    objective = CPC(4, steps=3, hidden=6).double()
    with torch.no_grad():
        objective.prediction.weight.mul_(4)  # so that steps differ
    outcome = objective(pairs)
    loss, accuracies = by_loops(objective, pairs)
    assert outcome.loss.item() == pytest.approx(loss, rel=1e-12)
    assert outcome.metrics["accuracy"].item() == pytest.approx(sum(accuracies) / 3)
    assert outcome.metrics["accuracy_first"].item() == pytest.approx(accuracies[0])
    assert outcome.metrics["accuracy_last"].item() == pytest.approx(accuracies[-1])
    assert outcome.metrics["mutual_information"].item() == pytest.approx(math.log(5) - loss, rel=1e-9)


def test_two_windows_by_hand():
    """W_1 c = c and W_2 c = 2 c, with contexts that are tanh of the input: a GRU whose gates are shut."""
    objective = CPC(1, steps=2, hidden=1).double()
    with torch.no_grad():
        for parameter in objective.gru.parameters():
            parameter.zero_()
        objective.gru.bias_ih_l0[1] = -800.0  # the update gate: nothing of the old state is kept
        objective.gru.weight_ih_l0[2] = 1.0
        objective.prediction.weight.copy_(torch.tensor([[1.0], [2.0]]))
    past = torch.tensor([[[9.0]], [[-9.0]]], dtype=torch.float64)  # forgotten
    query = torch.tensor([[math.atanh(0.5)], [math.atanh(-0.5)]], dtype=torch.float64)
    key = torch.tensor([[1.0], [3.0], [2.0], [0.0]], dtype=torch.float64)  # of step 1, then of step 2
    outcome = objective(Pairs(query, key, torch.arange(2), context={"past": past}))
    # step 1: scores (0.5, 1.5) and (-0.5, -1.5), step 2: (2, 0) and (-2, 0); positives on the diagonal
    first = math.log(1 + math.exp(1.0)), math.log(1 + math.exp(1.0))
    second = math.log(1 + math.exp(-2.0)), math.log(1 + math.exp(-2.0))
    assert outcome.loss.item() == pytest.approx(sum((*first, *second)) / 4, rel=1e-12)
    assert outcome.metrics["accuracy_first"] == 0 and outcome.metrics["accuracy_last"] == 1
    assert outcome.metrics["accuracy"] == 0.5
    assert outcome.metrics["positive_similarity"].item() == pytest.approx((0.5 - 1.5 + 2 + 0) / 4)
    assert outcome.metrics["negative_similarity"].item() == pytest.approx((1.5 - 0.5 + 0 - 2) / 4)


def test_gradient_reaches_features_of_every_time_and_every_weight():
    pairs = sequences()
    objective = CPC(4, steps=3, hidden=6).double()
    sources = [pairs.query, pairs.key, pairs.context["past"], *objective.parameters()]
    for gradient in torch.autograd.grad(objective(pairs).loss, sources):
        assert gradient.isfinite().all() and gradient.abs().amax() > 0
    key, past = torch.autograd.grad(objective(pairs).loss, [pairs.key, pairs.context["past"]])
    assert (key.abs().amax(1) > 0).all() and (past.abs().amax(2) > 0).all()


@given(n=st.integers(2, 6), past=st.integers(0, 3), steps=st.integers(1, 3), seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_the_order_of_windows_does_not_matter_and_that_of_times_does(n, past, steps, seed):
    pairs = sequences(n, past, steps, seed=seed)
    objective = CPC(4, steps=steps, hidden=6).double()
    order = torch.randperm(n)
    context = {name: value[order] for name, value in pairs.context.items()}
    key = pairs.key.unflatten(0, (steps, n))[:, order].flatten(0, 1)
    shuffled = Pairs(pairs.query[order], key, pairs.positive, context=context)
    torch.testing.assert_close(objective(shuffled).loss, objective(pairs).loss)
    if past > 1:
        backwards = pairs._replace(context={"past": pairs.context["past"].flip(1)})
        assert not torch.isclose(objective(backwards).loss, objective(pairs).loss, rtol=1e-9)
    if steps > 1:
        swapped = pairs._replace(key=pairs.key.unflatten(0, (steps, n)).flip(0).flatten(0, 1))
        assert not torch.isclose(objective(swapped).loss, objective(pairs).loss, rtol=1e-9)


def test_parts_can_be_exchanged_and_each_step_has_its_own():
    objective = CPC(4, steps=2, similarity=Bilinear(4), sampler=Queue(4, 6), temperature=0.5)
    weights = [contrast.similarity.weight for contrast in objective.contrasts]
    assert weights[0] is not weights[1]
    pairs = sequences(steps=2, dtype=torch.float32)
    objective(pairs)
    first, second = (contrast.sampler.memory().key for contrast in objective.contrasts)
    torch.testing.assert_close(first, pairs.key[:5].detach())
    torch.testing.assert_close(second, pairs.key[5:].detach())
    preset_made = objective_of(preset("cpc", "similarity=cosine", "module.temperature=0.1"), 4)
    assert preset_made.contrasts[0].similarity.func is cosine


def test_wrong_shapes_and_settings_say_so():
    objective = CPC(4, steps=3)
    with pytest.raises(ValueError, match=r"CPC of 3 steps needs .* keys \(3 N, 4\), got \(5, 4\) and \(10, 4\)"):
        objective(sequences(steps=2, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"needs queries \(N, 4\)"):
        objective(sequences(dim=6, dtype=torch.float32))
    for arguments, sentence in (({"steps": 0}, "steps must be"), ({"steps": 1, "hidden": 0}, "hidden must be")):
        with pytest.raises(ValueError, match=sentence):
            CPC(4, **arguments)


def test_half_precision_is_compared_in_float32():
    pairs = sequences(dtype=torch.float32)
    objective = CPC(4, steps=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outcome = objective(pairs)
    assert outcome.loss.dtype == torch.float32
    torch.testing.assert_close(outcome.loss, objective(pairs).loss, rtol=0.02, atol=0.02)
