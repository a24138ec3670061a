import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core.samplers import InBatch, Queue

SAMPLERS = {"in_batch": InBatch, "queue": lambda: Queue(2, 5)}
every_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS.keys())


def keys(start, count):
    """Keys that say their number: (start, -start), (start + 1, ...), ..."""
    numbers = torch.arange(start, start + count, dtype=torch.float32)
    return torch.stack((numbers, -numbers), dim=1)


def remembered(queue):
    return [] if queue.memory() is None else sorted(queue.memory().key[:, 0].tolist())


@every_sampler
def test_contract(make):
    sampler = make()
    sampler.remember(keys(0, 3), {})
    batch = keys(10, 4)
    memory = sampler.memory()
    columns = batch if memory is None else torch.cat((batch, memory.key))
    similarity = batch @ columns.T
    exclude = torch.zeros(4, len(columns), dtype=torch.bool)
    exclude[1, 2] = True
    positive = torch.arange(4)
    assert sampler(similarity, positive, None, {}).weights is None
    found, weights = sampler(similarity, positive, exclude, {})
    assert found is positive
    assert weights.dtype == similarity.dtype and weights.shape == similarity.shape
    assert weights[1, 2] == 0 and weights.min() >= 0 and weights.sum() == weights.numel() - 1
    assert not list(sampler.parameters()) and sampler.metrics() == {} and sampler.temperature is None
    restored = make()
    restored.load_state_dict(sampler.state_dict())
    if memory is not None:
        assert torch.equal(restored.memory().key, memory.key)


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
