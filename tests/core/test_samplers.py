"""The contract that every sampler keeps; a new sampler is one more row of SAMPLERS. Then the queue."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core import Contrastive, Pairs, contrastive_loss
from contraux.core.kernels import composed, entry
from contraux.core.losses import info_nce
from contraux.core.samplers import (
    Bandit,
    Bayesian,
    CancelByGuide,
    CancelByLabel,
    CancelTopK,
    Chain,
    Debiased,
    Hardest,
    Hardness,
    InBatch,
    Margin,
    Queue,
    Random,
    SemiHard,
    Threshold,
)


@dataclass(frozen=True)
class Row:
    """A sampler and where it may differ from the others: `reads` device values, changes positives, is `random`."""

    make: Callable[[], Any]
    reads: bool = False
    attracts: bool = False
    random: bool = False


SAMPLERS = {
    "in_batch": Row(InBatch),
    "queue": Row(lambda: Queue(3, 5, guide_dim=2)),
    "random_count": Row(lambda: Random(count=2, seed=5), random=True),
    "random_share": Row(lambda: Random(share=0.5), random=True),
    "hardest": Row(lambda: Hardest(2)),
    "margin": Row(lambda: Margin(0.3)),
    "semi_hard": Row(lambda: SemiHard(0.4)),
    "threshold": Row(lambda: Threshold(0.2)),
    "hardness": Row(lambda: Hardness(1.5, 0.2)),
    "hardness_annealed": Row(lambda: Hardness(2.0, 0.5, final=0.0, steps=9)),
    "debiased": Row(lambda: Debiased(0.2, 0.3)),
    "cancel_by_label": Row(CancelByLabel),
    "cancel_by_guide": Row(CancelByGuide),
    "cancel_by_guide_threshold": Row(lambda: CancelByGuide(None, 0.2, 0.7)),
    "cancel_top_k": Row(lambda: CancelTopK(2)),
    "attract_top_k": Row(lambda: CancelTopK(1, attract=True), attracts=True),
    "bandit_exp3": Row(lambda: Bandit(method="exp3", interval=1, warmup=1), reads=True),
    "bandit_thompson": Row(lambda: Bandit([(0, 0, 0.2), (2, 0.5, 0.3)], "thompson", 2, 0), reads=True),
    "bayesian": Row(lambda: Bayesian(interval=1, warmup=0, temperatures=(0.1, 1)), reads=True),
    "chain": Row(lambda: Chain([Queue(3, 4), CancelByLabel(), Hardest(2)])),
    "chain_that_attracts": Row(lambda: Chain([CancelTopK(1, attract=True), Hardness(), Random(count=3)]), random=True),
    "chain_with_bandit": Row(lambda: Chain([Queue(3, 4), CancelByGuide(), Bandit(interval=1, warmup=0)]), reads=True),
}
every_sampler = pytest.mark.parametrize("row", SAMPLERS.values(), ids=SAMPLERS.keys())


def context(n, m):
    return {
        "label": torch.randint(-1, 3, (n,)),
        "key_label": torch.randint(-1, 3, (m,)),
        "guide": torch.randn(n, 2),
        "key_guide": torch.randn(m, 2),
    }


def some_rows(context, rows):
    return {name: values if name.startswith("key_") else values[rows] for name, values in context.items()}


def used(row):
    """A sampler that has seen a few batches, so that memories are filled and arms chosen."""
    sampler = row.make()
    for start in range(4):
        torch.manual_seed(start)
        sampler(torch.randn(3, 3), torch.arange(3), None, context(3, 3))
        sampler.remember(torch.randn(3, 3), context(3, 3))
    return sampler


def state(sampler):
    return {name: value.clone() for name, value in sampler.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one
    )


@st.composite
def problems(draw):
    """Similarity with ties, positives of each kind, and exclusions: none, some, or all that are not positive."""
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    similarity = (torch.rand(n, m, generator=generator, dtype=dtype) * 20).round() / 10 - 1
    kind = draw(st.sampled_from(["index", "mask", "soft"]))
    is_positive = torch.rand(n, m, generator=generator) < 0.3
    column = torch.randint(m, (n,), generator=generator)
    if kind == "index":
        positive, is_positive = column, torch.zeros(n, m, dtype=torch.bool).scatter(1, column.unsqueeze(1), True)
    else:
        positive = is_positive if kind == "mask" else is_positive * torch.rand(n, m, generator=generator).clamp(min=0.1)
    exclude = draw(st.sampled_from(["none", "some", "all"]))
    some = torch.ones(n, m) if exclude == "all" else torch.rand(n, m, generator=generator) < 0.4
    return similarity, positive, is_positive, None if exclude == "none" else some.bool() & ~is_positive


@every_sampler
@given(problem=problems(), training=st.booleans())
@settings(max_examples=30, deadline=None)
def test_contract(row, problem, training):
    similarity, positive, is_positive, exclude = problem
    n, m = similarity.shape
    known = context(n, m)
    sampler = used(row).train(training)
    restored = row.make().train(training)
    restored.load_state_dict(sampler.state_dict())
    before, random = state(sampler), torch.get_rng_state()
    similarity = similarity.requires_grad_()
    found, weights = sampler(similarity, positive, exclude, known)

    assert torch.equal(torch.get_rng_state(), random)
    if not training:
        assert same(before, state(sampler))
    if sampler.uniform and exclude is None:
        assert found is positive and weights is None
        return
    assert weights.shape == (n, m) and weights.dtype == similarity.dtype
    assert weights.min() >= 0 and weights.isfinite().all()
    if exclude is not None:
        assert (weights[exclude] == 0).all()
        assert not (found > 0)[exclude].any() if found.ndim == 2 else True
    if row.attracts or row.random:
        assert (positive_mask(found, m) | ~is_positive).all()
    else:
        assert found is positive
    again = restored(similarity, positive, exclude, known)
    assert torch.equal(again.weights, weights) and torch.equal(again.positive, found)

    loss = info_nce(similarity, found, weights, 0.2)
    (gradient,) = torch.autograd.grad(loss, similarity)
    assert loss.isfinite() and gradient.isfinite().all()
    if row.random:  # the subset depends on the call
        return
    parts = [
        sampler(similarity[rows], positive[rows], None if exclude is None else exclude[rows], some_rows(known, rows))
        for rows in (slice(0, n // 2), slice(n // 2, n))
        if rows.stop > rows.start
    ]
    torch.testing.assert_close(torch.cat([part.weights for part in parts]), weights)
    assert torch.equal(torch.cat([part.positive for part in parts]), found)


def positive_mask(positive, columns):
    return positive > 0 if positive.ndim == 2 else torch.nn.functional.one_hot(positive, columns).bool()


@every_sampler
def test_state_travels_through_a_safe_file_and_goes_on(row):
    sampler = used(row)
    assert not list(sampler.parameters())
    assert all(isinstance(value, torch.Tensor) for value in sampler.state_dict().values())
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    other = row.make()
    other.load_state_dict(torch.load(file, weights_only=True))
    for one in (other, copy.deepcopy(sampler)):
        assert same(state(one), state(sampler)) and one.metrics() == sampler.metrics()
        assert one.temperature == sampler.temperature


@every_sampler
def test_metrics_are_scalars_of_fixed_names(row):
    sampler = row.make()
    names = sampler.metrics().keys()
    assert all(name.startswith("sampler/") for name in names)
    for value in used(row).metrics().values():
        assert value.shape == () and value.is_floating_point() and not value.requires_grad and value.isfinite()
    assert used(row).metrics().keys() == names


@every_sampler
@pytest.mark.parametrize("exclude", [False, True])
def test_in_an_objective_by_blocks_or_at_once(row, exclude, monkeypatch):
    if row.random:
        return
    torch.manual_seed(1)
    query, key = torch.randn(7, 3, requires_grad=True), torch.randn(7, 3, requires_grad=True)
    excluded = torch.rand(7, 7) < 0.3 if exclude else None
    pairs = Pairs(query, key, torch.arange(7), excluded, context(7, 7))
    sampler = used(row).eval()
    whole = contrastive_loss(pairs, sampler=sampler)
    gradients = torch.autograd.grad(whole, (query, key))
    monkeypatch.setattr(entry, "COMPOSED", 0)
    monkeypatch.setattr(entry, "SMALL", 0)
    monkeypatch.setattr(composed, "CELLS", 25)  # 3 rows of 7 columns
    blocks = contrastive_loss(pairs, sampler=sampler)
    torch.testing.assert_close(blocks, whole)
    torch.testing.assert_close(torch.autograd.grad(blocks, (query, key)), gradients)
    outcome = Contrastive(3, sampler=sampler)(pairs)
    assert outcome.loss.isfinite() and sampler.metrics().keys() <= outcome.metrics.keys()


@every_sampler
@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_nothing_waits_for_the_device(row, exclude, mask):
    if row.reads:
        return
    sampler = row.make().to("meta")
    known = {name: values.to("meta") for name, values in context(4, 6).items()}
    positive = torch.zeros(4, 6, dtype=torch.bool) if mask else torch.arange(4)
    similarity = torch.empty(4, 6, device="meta", requires_grad=True)
    excluded = torch.empty(4, 6, device="meta", dtype=torch.bool) if exclude else None
    for _ in range(2):
        found = sampler(similarity, positive.to("meta"), excluded, known)
        sampler.remember(torch.empty(6, 3, device="meta"), known)
        assert all(value.device.type == "meta" for value in sampler.metrics().values())
    assert found.weights is None or found.weights.is_meta


def keys(start, count):
    """Keys that say their number: (start, -start), (start + 1, ...), ..."""
    numbers = torch.arange(start, start + count, dtype=torch.float32)
    return torch.stack((numbers, -numbers), dim=1)


def remembered(queue):
    return [] if queue.memory() is None else sorted(queue.memory().key[:, 0].tolist())


@given(st.integers(1, 7), st.lists(st.integers(1, 17), max_size=8))
@settings(max_examples=80, deadline=None)
def test_first_in_first_out(size, batches):
    queue = Queue(2, size)
    seen = []
    for count in batches:
        queue.remember(keys(len(seen), count), {})
        seen += range(len(seen), len(seen) + count)
        assert remembered(queue) == seen[-size:]
        assert len(queue) == min(len(seen), size)


def test_an_empty_queue_adds_nothing():
    assert Queue(2, 5).memory() is None


def test_labels_are_remembered_with_the_keys():
    queue = Queue(2, 5)
    queue.remember(keys(0, 3), {"key_label": torch.tensor([7, 8, 9])})
    queue.remember(keys(3, 3), {})
    key, context = queue.memory()
    found = dict(zip(key[:, 0].tolist(), context["key_label"].tolist(), strict=True))
    assert found == {1: 8, 2: 9, 3: -1, 4: -1, 5: -1}


def test_guides_are_remembered_with_the_keys():
    queue = Queue(2, 3, guide_dim=1)
    queue.remember(keys(0, 4), {"key_guide": torch.tensor([[5.0], [6.0], [7.0], [8.0]])})
    queue.remember(keys(4, 1), {})
    key, context = queue.memory()
    found = dict(zip(key[:, 0].tolist(), context["key_guide"][:, 0].tolist(), strict=True))
    assert found == {2: 7, 3: 8, 4: 0}
    with pytest.raises(ValueError, match=r"key_guide must be \(4, 1\) for this queue, got \(4, 2\)"):
        queue.remember(keys(0, 4), {"key_guide": torch.zeros(4, 2)})


def test_only_training_mode_remembers():
    queue = Queue(2, 5).eval()
    queue.remember(keys(0, 3), {})
    assert len(queue) == 0
    queue.train().remember(keys(0, 3), {})
    assert len(queue) == 3


def test_no_gradient():
    queue = Queue(2, 5)
    batch = keys(0, 3).requires_grad_()
    queue.remember(batch * 2, {})
    assert not queue.keys.requires_grad
    assert queue.memory().key[:, 0].tolist() == [0, 2, 4]


def test_state_travels_through_a_safe_file():
    queue = Queue(2, 5)
    for start in (0, 4):
        queue.remember(keys(start, 4), {})
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    other = Queue(2, 5)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert all(isinstance(value, torch.Tensor) for value in queue.state_dict().values())
    for one in (queue, other, copy.deepcopy(queue)):
        assert remembered(one) == [3, 4, 5, 6, 7]
        one.remember(keys(8, 2), {})
        assert remembered(one) == [5, 6, 7, 8, 9]


def test_dtype_is_the_modules():
    queue = Queue(2, 5).to(torch.float64)
    queue.remember(keys(0, 2).bfloat16(), {})
    assert queue.keys.dtype == torch.float64
    assert queue.memory().key.dtype == torch.float64


def test_wrong_inputs():
    with pytest.raises(ValueError, match="size of Queue must be a whole number >= 1, got 0"):
        Queue(2, 0)
    with pytest.raises(ValueError, match=r"a queue of dimension 2 needs keys \(M, 2\), got \(4, 3\)"):
        Queue(2, 5).remember(torch.zeros(4, 3), {})
