"""Inverse dynamics against log-likelihoods written out, for every kind of action."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core import Pairs
from contraux.core.preset import build, preset
from contraux.core.temporal import InverseDynamics
from contraux.core.temporal.inverse_dynamics import choice_loss


def batch(action, d=5):
    torch.manual_seed(0)
    query, key = (torch.randn(len(action), d, requires_grad=True) for _ in range(2))
    return Pairs(query, key, torch.arange(len(action)), context={"action": action})


def one_hot(sizes, n=7, steps=1):
    torch.manual_seed(2)
    chosen = [torch.randint(size, (n, steps)) for size in sizes]
    return torch.cat([F.one_hot(c, size) for c, size in zip(chosen, sizes, strict=True)], dim=2).float(), chosen


def test_the_loss_of_choices_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0), 0.0, 0.0, math.log(2.0)]], dtype=torch.float64)
    action = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    # two choices: the second of (1, 3)/4, the first of (1, 1, 2)/4
    assert choice_loss(logits, action, (2, 3)).item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 4), abs=1e-12)
    # one choice of five: the code then has one 1
    single = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert choice_loss(logits, single, (5,)).item() == pytest.approx(-math.log(3 / 8), abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 6))
def test_choices_are_their_log_likelihood_in_loops(sizes, n):
    action, chosen = one_hot(sizes, n)
    objective = InverseDynamics(5, action_dim=sum(sizes), action_choices=sizes, hidden=8).double()
    pairs = batch(action)
    pairs = pairs._replace(query=pairs.query.double(), key=pairs.key.double())
    expected, right = 0.0, 0
    for i in range(n):
        predicted = objective.head(torch.cat((pairs.query[i], pairs.key[i])))
        start = 0
        for size, taken in zip(sizes, chosen, strict=True):
            block = predicted[start : start + size].detach().exp()
            expected -= math.log(block[taken[i, 0]] / block.sum()) / n
            right += int(block.argmax() == taken[i, 0])
            start += size
    outcome = objective(pairs)
    assert outcome.loss.item() == pytest.approx(expected, abs=1e-9)
    assert outcome.metrics["accuracy"].item() == pytest.approx(right / (n * len(sizes)), abs=1e-6)


def test_values_are_their_mean_squared_error():
    action = torch.tensor([[[0.5, -1.0]], [[0.0, 1.0]]])
    objective = InverseDynamics(5, action_dim=2, action_choices=())
    with torch.no_grad():
        objective.head[2].weight.zero_()
        objective.head[2].bias.copy_(torch.tensor([0.25, 0.5]))
    outcome = objective(batch(action))
    # errors: (-1/4, 3/2), (1/4, -1/2); variances: 1/16 and 1
    expected = (1 / 16 + 9 / 4 + 1 / 16 + 1 / 4) / 4
    assert outcome.loss.item() == pytest.approx(expected, abs=1e-6)
    assert outcome.metrics["explained_variance"].item() == pytest.approx(1 - expected / ((1 / 16 + 1) / 2), abs=1e-5)


@pytest.mark.parametrize("choices", [(3,), (2, 3), ()])
def test_the_gradient_reaches_both_observations_and_the_head(choices):
    action = one_hot(choices)[0] if choices else torch.rand(7, 1, 2)
    objective = InverseDynamics(5, action_dim=action.shape[2], action_choices=choices)
    pairs = batch(action)
    for gradient in torch.autograd.grad(objective(pairs).loss, [pairs.query, pairs.key, *objective.parameters()]):
        assert gradient.abs().max() > 0
    objective.update()


def test_of_several_actions_the_first_is_asked_for():
    action, _ = one_hot((4,), steps=3)
    objective = InverseDynamics(5, action_dim=4, action_choices=(4,))
    later = action.clone()
    later[:, 1:] = later[:, 1:].roll(1, dims=2)
    first = action.clone()
    first[:, 0] = first[:, 0].roll(1, dims=1)
    loss = objective(batch(action)).loss
    assert objective(batch(later)).loss == loss != objective(batch(first)).loss


@pytest.mark.parametrize("choices", [(3,), (2, 2), ()])
def test_it_finds_the_action_in_the_difference(choices):
    """Features move by what the action says, among noise that it does not touch."""
    torch.manual_seed(0)
    size = sum(choices) or 2
    objective = InverseDynamics(6, action_dim=size, action_choices=choices, hidden=64)
    optimizer, moves = torch.optim.Adam(objective.parameters(), 1e-2), torch.randn(size, 6)
    for _ in range(150):
        action = torch.rand(128, 1, 2) * 2 - 1
        if choices:
            chosen = [F.one_hot(torch.randint(n, (128, 1)), n) for n in choices]
            action = torch.cat(chosen, dim=2).float()
        query = torch.randn(128, 6)
        outcome = objective(Pairs(query, query + action[:, 0] @ moves, torch.arange(128), context={"action": action}))
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
    assert outcome.metrics["accuracy" if choices else "explained_variance"] > 0.9


def test_what_does_not_fit_is_refused_in_one_sentence():
    action, _ = one_hot((3,))
    objective, pairs = InverseDynamics(5, action_dim=3, action_choices=(3,)), batch(action)
    with pytest.raises(ValueError, match=r"needs the actions in the context as 'action' .*, got none"):
        objective(pairs._replace(context={}))
    with pytest.raises(ValueError, match=r"queries and keys \(N, 5\) and actions \(N, k, 3\), got \(7, 5\), \(6, 5\)"):
        objective(pairs._replace(key=pairs.key[:-1]))
    with pytest.raises(ValueError, match=r"action_choices must add up to action_dim 3 or be empty, got \(2, 2\)"):
        InverseDynamics(5, action_dim=3, action_choices=(2, 2))
    assert build(preset("inverse").module)(5, action_dim=3, action_choices=(3,)).choices == (3,)
