"""Digits, splits, statistics, and batches in a given order by any number of workers."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from contraux.core.data import Batch, InMemory, batches, digits, epoch_order
from contraux.core.data.memory import encoded
from contraux.core.data.split import episodes_part, part
from contraux.core.data.statistics import GREY_LEVEL, statistics


def global_generators():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


def test_digits_are_those_of_scikit_learn_split_class_by_class():
    train, test = digits("train", seed=3), digits("test", seed=3)
    assert train.shape == test.shape == (1, 8, 8) and train.classes == tuple("0123456789")
    assert (len(train), len(test)) == (1258, 539)
    everything = load_digits()
    share = torch.bincount(test.labels).numpy() / np.bincount(everything.target)
    assert abs(share - 0.3).max() < 1 / 170
    scaled = [(image * 255 / 16).round().astype(np.uint8).tobytes() for image in everything.images]
    originals = dict(zip(scaled, everything.target, strict=True))
    seen = []
    for data in (train, test):
        images = data.inputs.numpy()
        assert images.dtype == np.uint8 and images.min() == 0 and images.max() == 255
        for image, label in zip(images, data.labels.tolist(), strict=True):
            assert originals[image.tobytes()] == label
            seen.append(image.tobytes())
    assert sorted(seen) == sorted(scaled)
    assert not torch.equal(digits("test", seed=4).inputs, test.inputs)


def test_statistics_of_digits_are_the_training_splits():
    train, test = digits("train"), digits("test")
    pixels = train.inputs.double().numpy() / 255
    np.testing.assert_allclose([train.mean[0], train.std[0]], [pixels.mean(), pixels.std()], rtol=1e-12)
    assert (train.mean, train.std) == (test.mean, test.std)


def test_rows_are_copies_in_the_order_asked_for():
    data = InMemory(torch.arange(12).view(3, 1, 2, 2).to(torch.uint8), torch.tensor([5, 6, 7]), (), ((0.0,), (1.0,)))
    batch = data.__getitems__([2, 0, 2])
    assert isinstance(batch, Batch)
    assert batch.inputs[:, 0, 0, 0].tolist() == [8, 0, 8] and batch.labels.tolist() == [7, 5, 7]
    batch.inputs.zero_()
    assert data.inputs.sum() == 66


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.floats(0.05, 0.95), st.integers(0, 3))
def test_a_split_is_a_partition_that_keeps_the_share_of_every_class(labels, share, seed):
    labels = np.array(labels)
    try:
        train, test = (part(split, labels, share, seed) for split in ("train", "test"))
    except ValueError as error:
        assert "split must not be empty" in str(error)
        return
    assert sorted([*train, *test]) == list(range(len(labels)))
    kinds, counts = np.unique(labels, return_counts=True)
    for kind, count in zip(kinds, counts, strict=True):
        testing = (labels[test] == kind).sum()
        if count == 1 and len(kinds) > 1:
            assert testing == 0
        else:
            assert abs(testing - share * count) < 1
    splittable = counts.sum() if len(kinds) == 1 else counts[counts > 1].sum()
    assert abs(len(test) - share * splittable) <= 0.5 + 1e-9


def test_a_split_depends_on_the_seed_only_and_is_not_the_first_ones():
    labels = np.repeat([0, 1], 50)
    tests = [part("test", labels, 0.5, seed).tolist() for seed in range(5)]
    assert tests[0] == part("test", labels, 0.5, 0).tolist()
    assert len({tuple(each) for each in tests}) == 5
    counts = np.bincount(np.concatenate([part("test", labels, 0.5, seed) for seed in range(400)]), minlength=100)
    assert counts.min() > 140 and counts.max() < 260  # 200 expected, standard deviation 10


@pytest.mark.parametrize(("episodes", "share", "count"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 2), (10, 0.36, 4)])
def test_episodes_are_split_with_at_least_one_on_each_side(episodes, share, count):
    train, test = (episodes_part(split, episodes, share, 0) for split in ("train", "test"))
    assert len(test) == count and sorted([*train, *test]) == list(range(episodes))


def test_one_episode_cannot_be_split():
    with pytest.raises(ValueError, match="a split by episodes needs at least 2 episodes, got 1"):
        episodes_part("train", 1, 0.2, 0)
    assert episodes_part("train", 1, 0, 0).tolist() == [0]
    with pytest.raises(ValueError, match="the test split must not be empty, got test_share=0 of 1 episodes"):
        episodes_part("test", 1, 0, 0)


@pytest.mark.parametrize("count", [1, 300, 700])
def test_statistics_over_chunks_are_those_of_all_pixels(count):
    images = torch.randint(0, 256, (count, 3, 5, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, 1] = 7  # a channel that does not vary
    mean, std = statistics(images.__getitem__, count)
    pixels = images.double().numpy() / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, np.maximum(pixels.std((0, 2, 3)), GREY_LEVEL), rtol=1e-12)
    assert std[1] == GREY_LEVEL == 1 / 255


def test_statistics_look_at_evenly_spaced_examples():
    asked = []

    def read(indices):
        asked.extend(indices)
        return torch.zeros(len(indices), 1, 2, 2, dtype=torch.uint8)

    statistics(read, 101, limit=5)
    assert asked == [0, 25, 50, 75, 100]


def test_a_constant_entry_of_vectors_has_deviation_one():
    vectors = torch.tensor([[0.1, 1.0, 0.0, 1e-9], [0.1, 3.0, 0.0, -1e-9], [0.1, 5.0, 0.0, 0.0]])
    mean, std = statistics(vectors.__getitem__, 3)
    np.testing.assert_allclose(mean, [0.1, 3, 0, 0], atol=1e-8)
    np.testing.assert_allclose(std, [1, np.sqrt(8 / 3), 1, 1e-9 * np.sqrt(2 / 3)], rtol=1e-6)
    vectors[1, 2] = torch.nan
    with pytest.raises(ValueError, match="inputs must be finite numbers, got others in entry 2"):
        statistics(vectors.__getitem__, 3)


def test_labels_are_numbered_in_the_order_of_their_values():
    labels, classes = encoded(np.array([7, -3, 3, 7]))
    assert labels.tolist() == [1, -1, 0, 1] and classes == ("3", "7") and labels.dtype == torch.int64
    labels, classes = encoded(np.array(["b", "a", "b"]))
    assert labels.tolist() == [1, 0, 1] and classes == ("a", "b")
    with pytest.raises(ValueError, match=r"labels must be integers or strings, one an example, got float64 \(1,\)"):
        encoded(np.array([0.5]))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 5), st.integers(1, 50), st.booleans(), st.booleans())
def test_an_epoch_visits_each_example_once(length, epoch, seed, size, drop_last, shuffle):
    arguments = {"seed": seed, "batch_size": size, "drop_last": drop_last, "shuffle": shuffle}
    if drop_last and size > length:
        with pytest.raises(ValueError, match=f"batch_size must be <= the number of examples, {length}, got {size}"):
            epoch_order(length, epoch, **arguments)
        return
    before = global_generators()
    order = epoch_order(length, epoch, **arguments)
    assert order == epoch_order(length, epoch, **arguments)
    assert global_generators() == before
    flat = [index for batch in order for index in batch]
    assert len(set(flat)) == len(flat) == (length - length % size if drop_last else length)
    assert all(len(batch) == size for batch in order[:-1])
    if not shuffle:
        assert flat == list(range(len(flat)))


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(100, epoch, seed=seed, batch_size=100)[0]) for epoch in range(4) for seed in range(4)}
    assert len(orders) == 16  # (seed, epoch) and (epoch, seed) as well


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_nothing_is_drawn_from_global_generators(workers):
    data, order = digits("train"), epoch_order(1258, 0, seed=0, batch_size=100, drop_last=False)
    before = global_generators()
    found = list(batches(data, order, workers=workers, pin=True))
    assert global_generators() == before
    assert len(found) == len(order)
    for indices, batch in zip(order, found, strict=True):
        assert isinstance(batch, Batch) and batch.inputs.dtype == torch.uint8
        assert torch.equal(batch.inputs, data.inputs[indices]) and torch.equal(batch.labels, data.labels[indices])
    assert not multiprocessing.active_children()


def test_an_endless_order_is_read_a_little_ahead_and_closing_ends_the_workers():
    drawn = []

    def endless():
        while True:
            drawn.append(len(drawn))
            yield [drawn[-1] % 10]

    reading = batches(digits("test"), endless(), workers=2)
    for _ in range(5):
        next(reading)
    assert len(multiprocessing.active_children()) == 2 and len(drawn) <= 5 + 4
    reading.close()
    assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="workers must be a whole number >= 0, got -1"):
        batches(digits("test"), [[0]], workers=-1)


class Breaks:
    def __getitems__(self, indices):
        raise ValueError(f"cannot serve {indices}")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_raises_is_raised_here(workers):
    with pytest.raises(ValueError, match=r"cannot serve \[3\]"):
        list(batches(Breaks(), [[3]], workers=workers))
    assert not multiprocessing.active_children()


def test_an_interrupt_from_the_terminal_does_not_end_the_workers():
    program = """
import signal, sys
from contraux.core.data import batches, digits

caught = []
reading = batches(digits("test"), ([i] for i in range(60)), workers=2)
next(reading)
signal.signal(signal.SIGINT, lambda *_: caught.append(1))  # which the workers do not inherit
print("ready", flush=True)
while not caught:
    signal.sigtimedwait([], 0.05)
print(sum(1 for _ in reading), flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    assert child.communicate(timeout=30)[0] == "59\n" and child.returncode == 0
