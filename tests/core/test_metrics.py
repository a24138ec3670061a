import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core import contrastive_metrics
from contraux.core.losses import info_nce


def values(*args, **kwargs):
    return {name: value.item() for name, value in contrastive_metrics(*args, **kwargs).items()}


def test_hand_worked():
    # exponentials at temperature 1: row 0: 4, 1, 1; row 1: 1, 2, 2 (a tie, not correct)
    similarity = torch.tensor([[4.0, 1.0, 1.0], [1.0, 2.0, 2.0]]).log()
    found = values(similarity, torch.tensor([0, 1]), temperature=1.0)
    assert found["accuracy"] == 0.5
    # L = (log(6/4) + log(5/2)) / 2
    assert found["mutual_information"] == pytest.approx(math.log(3) - (math.log(1.5) + math.log(2.5)) / 2, rel=1e-6)
    assert found["positive_similarity"] == pytest.approx((math.log(4) + math.log(2)) / 2, rel=1e-6)
    assert found["negative_similarity"] == pytest.approx(math.log(2) / 4, rel=1e-6)


def test_hand_worked_with_weights():
    similarity = torch.tensor([[4.0, 1.0, 8.0], [1.0, 2.0, 2.0]]).log()
    weights = torch.tensor([[0.0, 0.1, 0.0], [1.0, 0.0, 9.0]])  # row 0 without its rival 8; weights > 0 count alike
    found = values(similarity, torch.tensor([0, 1]), weights, 1.0)
    assert found["accuracy"] == 0.5
    # row 0: two candidates, L = log(5/4); row 1: three, L = log(5/2)
    information = (math.log(2) - math.log(1.25) + math.log(3) - math.log(2.5)) / 2
    assert found["mutual_information"] == pytest.approx(information, rel=1e-6)
    assert found["negative_similarity"] == pytest.approx((0 + 0 + math.log(2)) / 3, rel=1e-6)


def test_several_positives_and_queries_without():
    similarity = torch.tensor([[0.3, 0.9, 0.5], [0.1, 0.2, 0.3], [0.9, 0.1, 0.2]])
    positive = torch.tensor([[True, True, False], [False, False, False], [False, False, True]])
    found = values(similarity, positive, temperature=1.0)
    assert found["accuracy"] == 0.5  # row 0: 0.9 > 0.5; row 1 is left out; row 2: 0.2 < 0.9
    assert found["positive_similarity"] == pytest.approx((0.3 + 0.9 + 0.2) / 3, rel=1e-6)
    assert found["negative_similarity"] == pytest.approx((0.5 + 0.9 + 0.1) / 3, rel=1e-6)
    expected = math.log(3) - info_nce(similarity, positive, temperature=1.0).item()
    assert found["mutual_information"] == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_bounds_and_agreement_of_both_paths(n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(n, m, generator=generator) * 2 - 1
    positive = torch.randint(m, (n,), generator=generator)
    fast = values(similarity, positive, temperature=0.1)
    assert fast["mutual_information"] <= math.log(m) + 1e-5
    assert 0 <= fast["accuracy"] <= 1
    mask = torch.nn.functional.one_hot(positive, m).bool()
    for general in (values(similarity, mask, temperature=0.1), values(similarity, positive, torch.ones(n, m), 0.1)):
        assert general == pytest.approx(fast, rel=1e-4, abs=1e-5)


def test_a_solved_batch_reaches_the_bound():
    found = values(torch.eye(8) * 5, torch.arange(8), temperature=0.1)
    assert found["accuracy"] == 1 and found["mutual_information"] == pytest.approx(math.log(8), rel=1e-5)
    chance = values(torch.zeros(8, 8), torch.arange(8))
    assert chance["accuracy"] == 0 and chance["mutual_information"] == pytest.approx(0, abs=1e-6)


def test_detached_and_without_negatives():
    similarity = torch.tensor([[0.5]], requires_grad=True)
    found = contrastive_metrics(similarity, torch.tensor([0]))
    assert not any(value.requires_grad for value in found.values())
    assert {name: value.item() for name, value in found.items()} == {
        "accuracy": 1,
        "mutual_information": 0,
        "positive_similarity": 0.5,
        "negative_similarity": 0,
    }
