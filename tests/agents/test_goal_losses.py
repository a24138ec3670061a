"""Losses and energies of the contrastive critic against float64 by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.agents.goal import losses
from contraux.agents.goal.energy import ENERGIES, make_energy, of_rows
from contraux.core.losses import clip

BY_HAND = [[2.0, -1.0, 0.5], [0.0, 1.0, -3.0], [1.5, 0.25, -0.5]]


def log_sum(values):
    return math.log(sum(math.exp(value) for value in values))


def by_hand(name, f):
    n = len(f)
    columns = [[row[j] for row in f] for j in range(n)]
    forward = -sum(f[i][i] - log_sum(f[i]) for i in range(n)) / n
    backward = -sum(f[i][i] - log_sum(columns[i]) for i in range(n)) / n
    soft = lambda x: math.log(1 + math.exp(x))  # noqa: E731  -log sigmoid(-x)
    binary = sum(soft(-f[i][i]) + sum(soft(f[i][j]) for j in range(n) if j != i) / (n - 1) for i in range(n)) / n
    return {"forward": forward, "backward": backward, "symmetric": forward + backward, "binary": binary}[name]


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses_by_hand(name):
    f = torch.tensor(BY_HAND, dtype=torch.float64)
    assert losses.contrastive_loss(name)(f).item() == pytest.approx(by_hand(name, BY_HAND), rel=1e-12)
    single = losses.contrastive_loss(name)(f.float())
    assert single.item() == pytest.approx(by_hand(name, BY_HAND), rel=1e-6)


def test_the_four_losses_differ_where_it_matters():
    assert len({round(by_hand(name, BY_HAND), 6) for name in losses.LOSSES}) == 4


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradients_by_differences(name):
    f = torch.tensor(BY_HAND, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses.contrastive_loss(name), f)
    assert torch.autograd.gradcheck(losses.logsumexp_penalty, f)


def test_penalty_by_hand_is_over_goals():
    f = torch.tensor(BY_HAND, dtype=torch.float64)
    expected = sum(log_sum(row) ** 2 for row in BY_HAND) / 3
    assert losses.logsumexp_penalty(f).item() == pytest.approx(expected, rel=1e-12)
    assert losses.logsumexp_penalty(f.T).item() != pytest.approx(expected, rel=1e-3)


def test_symmetric_is_twice_clip():
    f = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(losses.symmetric_info_nce(f), 2 * clip(f, torch.arange(6), temperature=1.0))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 7), st.integers(0, 10_000))
def test_what_each_loss_leaves_free(n, seed):
    """A level of its own for each state-action changes forward not at all, for each goal backward not at all."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.randn(n, n, dtype=torch.float64, generator=generator)
    level = torch.randn(n, 1, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(losses.forward_info_nce(f + level), losses.forward_info_nce(f))
    torch.testing.assert_close(losses.backward_info_nce(f + level.T), losses.backward_info_nce(f))
    assert (losses.backward_info_nce(f + level) - losses.backward_info_nce(f)).abs() > 1e-9
    for name in losses.LOSSES:  # naming the pairs in another order changes nothing
        order = torch.randperm(n, generator=generator)
        loss = losses.contrastive_loss(name)
        torch.testing.assert_close(loss(f[order][:, order]), loss(f))


@pytest.mark.parametrize("times", [1, 40])
def test_binary_is_best_at_the_log_ratio(times):
    """Two states, three goals, every pair as often as its probability says: the loss is flat where it should be.

    State-action s is true with goal g in c_sg of N pairs, and meets it as another's in n_s m_g - c_sg of N (N - 1), so
    that f = log( c_sg (N - 1) / (n_s m_g - c_sg) ), which becomes log p(g | s) - log p(g) for many pairs.
    """
    counts = times * torch.tensor([[7, 2, 1], [1, 3, 6]])
    state, goal = (
        index.repeat_interleave(counts.flatten()) for index in torch.cartesian_prod(*map(torch.arange, (2, 3))).T
    )
    n, n_s, m_g = int(counts.sum()), counts.sum(1, keepdim=True), counts.sum(0)
    best = (counts * (n - 1) / (n_s * m_g - counts)).double().log().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.binary_nce(best[state][:, goal]), best)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)
    ratio = (counts * n / (n_s * m_g)).double().log()
    assert (best - ratio).abs().max() < 0.3 / times
    (gradient,) = torch.autograd.grad(losses.binary_nce(best[state][:, goal] + 0.1), best)
    assert (gradient > 1e-3).all()


ROWS = ([[1.0, 2.0], [-0.5, 0.25]], [[0.5, -1.0], [2.0, 1.0]])
ENERGY_BY_HAND = {
    "dot": [-1.5, -0.75],
    "cosine": [-1.5 / math.sqrt(5 * 1.25), -0.75 / math.sqrt(0.3125 * 5)],
    "l2": [-math.sqrt(0.25 + 9), -math.sqrt(6.25 + 0.5625)],
    "l2_squared": [-9.25, -6.8125],
    "bilinear": [-1.5 / math.sqrt(2), -0.75 / math.sqrt(2)],  # W begins as the identity over sqrt(D)
}


@pytest.mark.parametrize("name", ENERGIES)
def test_energies_by_hand_and_rows_are_the_diagonal(name):
    first, second = (torch.tensor(rows, dtype=torch.float64, requires_grad=True) for rows in ROWS)
    energy = make_energy(name, 2)
    rows = of_rows(energy, first, second)
    torch.testing.assert_close(rows, torch.tensor(ENERGY_BY_HAND[name], dtype=torch.float64))
    torch.testing.assert_close(rows, energy(first, second).diagonal())
    weight = torch.tensor([1.0, -2.0], dtype=torch.float64)
    one = torch.autograd.grad((rows * weight).sum(), (first, second))
    other = torch.autograd.grad((energy(first, second).diagonal() * weight).sum(), (first, second))
    for a, b in zip(one, other, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b)


def test_unknown_names_are_said():
    with pytest.raises(ValueError, match="unknown energy 'l3': did you mean l2"):
        make_energy("l3", 2)
    with pytest.raises(ValueError, match="unknown loss 'symetric': did you mean symmetric"):
        losses.contrastive_loss("symetric")
