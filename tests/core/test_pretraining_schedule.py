"""Learning rate and parameter groups, by hand."""

import math

import pytest
import torch
from torch import nn

from contraux.core.pretraining.schedule import lars, warmup_cosine
from contraux.core.training.optimizers import parameter_groups


def test_warmup_rises_to_one_and_the_cosine_falls_to_zero():
    factors = [warmup_cosine(step, steps=12, warmup=4) for step in range(12)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0  # the cosine begins at its top
    assert factors[8] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    assert factors[10] == pytest.approx((1 + math.cos(math.pi * 6 / 8)) / 2)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert len(set(factors[4:])) == 8


def test_no_warmup_begins_at_the_full_rate():
    assert warmup_cosine(0, steps=10, warmup=0) == 1.0


def test_biases_and_norms_do_not_decay_and_what_is_frozen_is_left_out():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    decayed, others = parameter_groups(model)
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight)]
    assert [id(p) for p in others["params"]] == [id(p) for p in (model[0].bias, model[1].weight, model[1].bias)]
    assert others["weight_decay"] == 0.0
    assert "weight_decay" not in decayed


def test_lars_takes_trusted_steps_of_matrices_and_plain_ones_of_the_rest():
    weight, bias = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([3.0, 4.0]))
    groups = [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = lars(groups, lr=1.0, momentum=0.0, weight_decay=0.1, trust_coeff=0.01)
    weight.grad, bias.grad = torch.tensor([[0.0, 2.0]]), torch.tensor([0.0, 2.0])
    optimizer.step()
    decayed = torch.tensor([[0.3, 2.4]])
    ratio = 0.01 * 5.0 / (2.0 + 0.1 * 5.0)  # trust |w| / (|g| + decay |w|), You et al. 2017, eq. 6
    assert torch.allclose(weight, torch.tensor([[3.0, 4.0]]) - ratio * decayed)
    assert torch.equal(bias, torch.tensor([3.0, 2.0]))
