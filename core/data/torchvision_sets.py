"""Data sets that torchvision downloads and reads, held in memory. Shape legend: N examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..check import choice
from .memory import InMemory
from .split import SPLITS
from .statistics import given, statistics

STL10_PARTS = ("train", "train+unlabeled", "unlabeled")


def cifar10(
    split: str,
    *,
    path: str | Path = "data",
    download: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> InMemory:
    """Return CIFAR-10: 50,000 and 10,000 colour images of ten classes, uint8 `(3, 32, 32)`.

    Args:
        split: `train` or `test`.
        path: the folder where torchvision keeps its files.
        download: whether to fetch what is missing.
        mean: one number a channel, images counted in [0, 1]; None: computed from training images.
        std: likewise, > 0.

    Raises:
        ValueError: the files are not there and could not be fetched, or a value breaks its rule.
    """
    return _cifar("CIFAR10", split, path, download, mean, std)


def cifar100(
    split: str,
    *,
    path: str | Path = "data",
    download: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> InMemory:
    """Return CIFAR-100: 50,000 and 10,000 images of a hundred classes, uint8 `(3, 32, 32)`; as :func:`cifar10`."""
    return _cifar("CIFAR100", split, path, download, mean, std)


def stl10(
    split: str,
    *,
    path: str | Path = "data",
    download: bool = True,
    train_part: str = "train",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> InMemory:
    """Return STL-10: 5,000 and 8,000 colour images of ten classes and 100,000 without, uint8 `(3, 96, 96)`.

    Args:
        split: `train` or `test`.
        path: the folder where torchvision keeps its files.
        download: whether to fetch what is missing, 2.6 GB.
        train_part: what to train on: `train`, `unlabeled` (labels -1), or `train+unlabeled`.
        mean: one number a channel, images counted in [0, 1]; None: computed from training images.
        std: likewise, > 0.

    Raises:
        ValueError: the files are not there and could not be fetched, or a value breaks its rule.
    """
    choice("train_part", train_part, STL10_PARTS)
    part_of = {"train": train_part, "test": "test"}

    def read(which: str) -> tuple[np.ndarray, Any, Sequence[str]]:
        found = _torchvision("STL10", path, download, split=part_of[which])
        return found.data, found.labels, found.classes

    return _in_memory(read, split, mean, std)


def _cifar(
    name: str,
    split: str,
    path: str | Path,
    download: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> InMemory:
    def read(which: str) -> tuple[np.ndarray, Any, Sequence[str]]:
        found = _torchvision(name, path, download, train=which == "train")
        return found.data.transpose(0, 3, 1, 2), found.targets, found.classes

    return _in_memory(read, split, mean, std)


def _in_memory(
    read: Callable[[str], tuple[np.ndarray, Any, Sequence[str]]],
    split: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> InMemory:
    """Return a split of what `read` returns: images `(N, 3, H, W)`, labels, classes."""
    choice("split", split, SPLITS)
    known = given(mean, std, 3)
    if known is None:
        images = torch.from_numpy(read("train")[0])
        known = statistics(images.__getitem__, len(images))
    pixels, labels, classes = read(split)
    return InMemory(torch.from_numpy(pixels), torch.as_tensor(np.asarray(labels, dtype=np.int64)), classes, known)


def _torchvision(name: str, path: str | Path, download: bool, **arguments: Any) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, name)(str(path), download=download, **arguments)
    except (OSError, RuntimeError) as error:  # no network, or files that are not there or not whole
        does = "could not be downloaded there" if download else "must not be downloaded (download=false)"
        raise ValueError(
            f"{name} must be in {str(path)!r}, but is missing or damaged and {does}: {type(error).__name__}: {error}"
        ) from error
