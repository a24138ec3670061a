"""Batches of a data set in a given order, read ahead by worker processes. Shape legend: N examples, B of a batch."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..check import whole
from .protocol import Batch, DataSet

AHEAD = 2  # batches each worker reads ahead


def batches(data: DataSet, order: Iterable[Sequence[int]], *, workers: int = 0, pin: bool = False) -> Iterator[Batch]:
    """Yield the batches whose indices `order` lists, in that order, whatever the number of workers.

    Nothing is drawn from a global generator. Worker processes live until the order ends or the iterator is closed, so
    an order over many epochs starts them once; an order is consumed a few batches ahead. Workers ignore SIGINT, which
    a terminal sends to them too: when to stop is the business of the process that reads.

    Args:
        data: serves whole batches; with workers it must survive pickling where processes are not forked.
        order: the indices of each batch; a list, or a generator for what need not be in memory.
        workers: processes, integer >= 0; 0 reads in this one, when asked.
        pin: whether to put batches in page-locked memory, for a copy to a GPU beside the computation; nothing where
            there is no CUDA.

    Raises:
        ValueError: a number of workers below 0.
    """
    workers = whole("workers", workers)
    loader: DataLoader[Batch] = DataLoader(
        cast("Dataset[Batch]", data),
        batch_sampler=cast("Iterable[list[int]]", order),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin and torch.cuda.is_available(),
        worker_init_fn=_begin_worker if workers else None,
        prefetch_factor=AHEAD if workers else None,
        generator=torch.Generator(),  # otherwise a seed for workers is drawn from the global one
    )
    return _closing(loader)


def epoch_order(
    length: int, epoch: int, *, seed: int, batch_size: int, drop_last: bool = True, shuffle: bool = True
) -> list[list[int]]:
    """Return the indices of each batch of one epoch: a function of its arguments alone, so every process has the same.

    Args:
        length: number of examples N.
        epoch: which one, integer >= 0.
        seed: integer >= 0.
        batch_size: examples of a batch, integer >= 1, over all processes.
        drop_last: leave out the examples that do not fill a batch.
        shuffle: False goes through the examples as they are, in every epoch.

    Returns:
        About N / B lists of B indices, in which no index occurs twice.

    Raises:
        ValueError: a number out of range, or no batch at all.
    """
    whole("length", length, 1)
    size = whole("batch_size", batch_size, 1)
    if drop_last and size > length:
        raise ValueError(f"batch_size must be <= the number of examples, {length}, got {batch_size}")
    random = np.random.default_rng([whole("seed", seed), whole("epoch", epoch)])
    indices = random.permutation(length).tolist() if shuffle else list(range(length))
    end = length - length % size if drop_last else length
    return [indices[i : i + size] for i in range(0, end, size)]


def _closing(loader: DataLoader[Batch]) -> Iterator[Batch]:
    iterator = iter(loader)
    try:
        yield from iterator
    finally:  # not left to the collector: after an error the traceback keeps the iterator alive
        getattr(iterator, "_shutdown_workers", lambda: None)()


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
