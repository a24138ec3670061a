"""The one-node loss against the composed one, a loop in float64, and torch's numerical gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contraux.core.kernels.cosine_info_nce import cosine_info_nce
from contraux.core.losses import info_nce
from contraux.core.objectives import Contrastive
from contraux.core.pairs import Pairs
from contraux.core.similarity import cosine


def features(n, m, d, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(n, d, generator=generator, dtype=dtype)
    key = torch.randn(m, d, generator=generator, dtype=dtype)
    return query, key, torch.randint(m, (n,), generator=generator)


def test_by_hand():
    query = torch.tensor([[3.0, 0.0]])
    key = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    loss, similarity = cosine_info_nce(query, key, torch.tensor([0]), 0.5)
    assert similarity.tolist() == [[1.0, 0.0, -1.0]]
    assert loss.item() == pytest.approx(math.log(math.exp(2) + 1 + math.exp(-2)) - 2)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 9), m=st.integers(1, 9), d=st.integers(1, 6), seed=st.integers(0, 99), t=st.floats(0.05, 3))
def test_same_number_and_gradient_as_the_composed_loss(n, m, d, seed, t):
    query, key, positive = features(n, m, d, seed)
    ours, theirs = ([query.clone().requires_grad_(), key.clone().requires_grad_()] for _ in range(2))
    loss, similarity = cosine_info_nce(*ours, positive, t)
    expected_similarity = cosine(*theirs)
    expected = info_nce(expected_similarity, positive, temperature=t)
    torch.testing.assert_close(similarity, expected_similarity.detach())
    torch.testing.assert_close(loss, expected)
    for one, other in zip(torch.autograd.grad(loss * 3, ours), torch.autograd.grad(expected * 3, theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_numerical_gradient():
    query, key, positive = features(5, 7, 4)
    inputs = (query.requires_grad_(), key.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, k: cosine_info_nce(q, k, positive, 0.2)[0], inputs)


def test_only_what_needs_a_gradient_gets_one():
    query, key, positive = features(4, 4, 3)
    cosine_info_nce(query.requires_grad_(), key, positive, 0.1)[0].backward()
    assert query.grad is not None
    assert key.grad is None
    assert not cosine_info_nce(query.detach(), key, positive, 0.1)[0].requires_grad


def test_a_zero_vector_has_similarity_zero_and_no_gradient():
    query, key, positive = features(3, 3, 4)
    query[0] = 0
    query.requires_grad_()
    loss, similarity = cosine_info_nce(query, key, positive, 0.1)
    loss.backward()
    assert similarity[0].tolist() == [0, 0, 0]
    assert torch.isfinite(query.grad).all()
    assert query.grad[0].abs().max() < 1e-12


def test_autocast_and_half_give_float32():
    query, key, positive = features(6, 6, 8, dtype=torch.float32)
    plain = cosine_info_nce(query, key, positive, 0.1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, similarity = cosine_info_nce(query, key, positive, 0.1)
    assert similarity.dtype == torch.float32
    assert torch.equal(loss, plain)
    assert cosine_info_nce(query.half(), key.half(), positive, 0.1)[1].dtype == torch.float32


def test_second_derivatives_exist():
    query, key, positive = features(3, 4, 4)
    inputs = (query.requires_grad_(), key.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda q, k: cosine_info_nce(q, k, positive, 0.5)[0], inputs)
    assert torch.autograd.gradgradcheck(lambda q: cosine_info_nce(q, key.detach(), positive, 0.5)[0], inputs[:1])


def test_the_objective_uses_it_and_gives_what_the_composed_way_gives():
    query, key, _ = features(6, 6, 10, dtype=torch.float32)
    pairs = Pairs(query.requires_grad_(), key, torch.arange(6))
    one = Contrastive(10)
    other = Contrastive(10, similarity=lambda q, k: cosine(q, k))
    found, expected = one(pairs), other(pairs)
    assert "CosineInfoNCE" in found.loss.grad_fn.name() and "CosineInfoNCE" not in expected.loss.grad_fn.name()
    torch.testing.assert_close(found.loss, expected.loss)
    assert found.metrics.keys() == expected.metrics.keys()
    for name, value in expected.metrics.items():
        torch.testing.assert_close(found.metrics[name], value)
    excluded = Pairs(query, key, torch.arange(6), ~torch.eye(6, dtype=torch.bool))
    assert one(excluded).loss.item() == 0  # no negative is left


def test_the_gradient_reaches_an_encoder():
    encoder = nn.Linear(5, 10)
    query, key, _ = features(6, 6, 5, dtype=torch.float32)
    Contrastive(10)(Pairs(encoder(query), encoder(key), torch.arange(6))).loss.backward()
    assert encoder.weight.grad.abs().sum() > 0
