"""Contrastive flow matching by hand, and the map that undoes its bias in closed form."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core.losses.contrastive_flow import (
    contrastive_flow_matching,
    contrastive_flow_terms,
    flow_terms,
    other_rows,
    undo_flow_bias,
)


def test_two_rows_by_hand():
    """With two rows there is no choice: each is repelled by the other."""
    v, u = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    flow = ((0 + 4) + (9 + 4)) / 4
    contrast = ((4 + 1) + (1 + 1)) / 4
    found = contrastive_flow_terms(v, u)
    assert (found.flow.item(), found.contrast.item()) == (flow, contrast)
    assert contrastive_flow_matching(v, u, 0.5).item() == pytest.approx(flow - 0.5 * contrast)
    assert contrastive_flow_matching(u, u, 0.5).item() < 0  # a perfect prediction; no error


def test_without_weight_it_is_mse_and_maps_count_by_entry():
    v, u = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3)
    torch.testing.assert_close(contrastive_flow_matching(v, u, 0.0), F.mse_loss(v, u))
    negative = torch.tensor([1, 2, 3, 0])
    terms = flow_terms(v, u, negative, torch.tensor([True, True, True, False]))
    torch.testing.assert_close(terms.contrast, F.mse_loss(v[:3], u[negative[:3]]) * 3 / 4)


@settings(deadline=None, max_examples=40)
@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=9), seed=st.integers(0, 999))
def test_who_can_be_a_negative(labels, seed):
    y, generator = torch.tensor(labels), torch.Generator().manual_seed(seed)
    rows = len(y)
    plain, has_one = other_rows(rows, generator=generator)
    assert (plain != torch.arange(rows)).all() and has_one.all()
    of_others, has_one = other_rows(rows, labels=y, null_class=3, generator=generator)
    for i in range(rows):
        allowed = {j for j in range(rows) if y[j] != y[i] and 3 not in (int(y[i]), int(y[j]))}
        assert bool(has_one[i]) == bool(allowed)
        assert not allowed or int(of_others[i]) in allowed
    any_class, has_one = other_rows(rows, labels=y, different_class=False, null_class=3, generator=generator)
    known = (y != 3).sum()
    assert torch.equal(has_one, (y != 3) & (known > 1))
    assert all(y[any_class[i]] != 3 and any_class[i] != i for i in range(rows) if has_one[i])


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 2, 3])])
def test_the_draw_is_uniform_and_follows_its_generator(labels):
    counts = torch.zeros(4)
    for seed in range(900):
        negative, _ = other_rows(4, labels=labels, generator=torch.Generator().manual_seed(seed))
        counts[negative[0]] += 1
    assert counts[0] == 0 and (counts[1:] / 300 - 1).abs().max() < 0.2
    draws = [
        contrastive_flow_matching(
            torch.arange(8.0).view(4, 2), torch.arange(8.0).view(4, 2) ** 2, generator=torch.Generator().manual_seed(3)
        )
        for _ in range(2)
    ]
    assert torch.equal(*draws)


@pytest.mark.parametrize("weight", [0.05, 0.4])
def test_the_bias_in_closed_form(weight):
    """One velocity for each noisy image and every pair of rows as negative: the minimum by solving for it."""
    torch.manual_seed(1)
    seen = torch.tensor([0, 0, 1, 1, 1, 2])  # which noisy image a row shows; its targets differ
    target = torch.randn(6, 2, dtype=torch.float64) + torch.tensor([1.0, -2.0])
    row, negative = (x.flatten() for x in torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"))

    def loss(velocity):
        v = velocity.view(3, 2)[seen]
        flow = (v[row] - target[row]).square().mean()
        contrast = (v[row] - target[negative]).square().mean()
        # the same through our function, rows of the product one after the other
        ours = flow_terms(torch.cat((v[row], v[row])), torch.cat((target[row], target[negative])), *halves())
        assert torch.allclose(ours.contrast, contrast / 2)
        return flow - weight * contrast

    def halves():
        behind = torch.arange(36) + 36
        return torch.cat((behind, behind - 36)), torch.arange(72) < 36

    start = torch.zeros(6, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(loss, start)
    hessian = torch.autograd.functional.hessian(loss, start)
    trained = torch.linalg.solve(hessian, -gradient).view(3, 2)
    by_flow_matching = torch.stack([target[seen == k].mean(0) for k in range(3)])
    mean = target.mean(0)
    torch.testing.assert_close(trained, (by_flow_matching - weight * mean) / (1 - weight))
    torch.testing.assert_close(undo_flow_bias(trained, mean, weight), by_flow_matching)
    assert (trained - by_flow_matching).abs().max() > 0.01


def test_the_gradient_reaches_every_prediction_in_float32():
    v = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
    loss = contrastive_flow_matching(v, torch.randn(4, 3, dtype=torch.bfloat16))
    assert loss.dtype == torch.float32
    loss.backward()
    assert (v.grad.abs().sum(1) > 0).all()


ROWS = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: contrastive_flow_matching(ROWS, ROWS, 1.0), r"weight must be a number in \[0, 1\), got 1.0"),
        (lambda: contrastive_flow_matching(ROWS, ROWS[:2]), r"one shape.*got \(3, 2\) and \(2, 2\)"),
        (lambda: contrastive_flow_matching(ROWS[:1], ROWS[:1]), "B >= 2"),
        (lambda: contrastive_flow_matching(ROWS, ROWS, null_class=2), "null_class needs labels, got null_class=2"),
        (lambda: contrastive_flow_matching(ROWS, ROWS, labels=torch.zeros(2)), r"labels must be .*\(3,\), got \(2,\)"),
        (lambda: undo_flow_bias(ROWS, ROWS, -0.1), r"weight must be a number in \[0, 1\), got -0.1"),
    ],
)
def test_sentences(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
