"""Mean and standard deviation of inputs. Shape legend: B examples of a batch, C channels, H x W size, D entries."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..check import number

LIMIT = 10_000  # examples looked at, evenly spaced over the training split
CHUNK = 256  # of them at a time
GREY_LEVEL = 1 / 255  # the least standard deviation of images: below it there is nothing but rounding
NEGLIGIBLE = 1e-6  # a vector entry that varies by less than this share of its mean is constant

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def statistics(read: Callable[[list[int]], Tensor], total: int, limit: int = LIMIT) -> Statistics:
    """Return mean and standard deviation of each channel, or vector entry, of up to `limit` evenly spaced examples.

    `read` returns the examples of some indices below `total`: `(B, C, H, W)` uint8 or `(B, D)` floats. Images count
    in [0, 1], over all pixels. A channel whose deviation is below one grey level gets that instead, a constant vector
    entry gets 1, so that a division by it is safe.

    Raises:
        ValueError: vectors with values that are not finite.
    """
    chosen = np.unique(np.linspace(0, total - 1, min(total, limit)).round().astype(int))
    batches = (read(chosen[i : i + CHUNK].tolist()) for i in range(0, len(chosen), CHUNK))
    first = next(batches)
    if first.dtype == torch.uint8:
        return _of_counts(sum((_counts(images) for images in batches), start=_counts(first)))
    return _of_vectors(torch.cat([first, *batches]).double().numpy())


def given(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int) -> Statistics | None:
    """Return what a config gives as mean and standard deviation, checked; None where it gives neither.

    Raises:
        ValueError: only one of them, not one number a channel, or a standard deviation that is not > 0.
    """
    if mean is None and std is None:
        return None
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std must both have {channels} numbers, one a channel, got {mean!r} and {std!r}")
    return (
        tuple(number("mean", value) for value in mean),
        tuple(number("std", value, 0, above=True) for value in std),
    )


def _counts(images: Tensor) -> np.ndarray:
    """Return `(C, 256)`: how often each grey level occurs in each channel."""
    return np.stack([torch.bincount(images[:, c].flatten(), minlength=256).numpy() for c in range(images.shape[1])])


def _of_counts(counts: np.ndarray) -> Statistics:
    levels = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.maximum(std, GREY_LEVEL).tolist())


def _of_vectors(vectors: np.ndarray) -> Statistics:
    mean, std = vectors.mean(0), vectors.std(0)
    if not np.isfinite(std).all():
        raise ValueError(f"inputs must be finite numbers, got others in entry {np.flatnonzero(~np.isfinite(std))[0]}")
    constant = std <= NEGLIGIBLE * np.abs(mean)
    return tuple(mean.tolist()), tuple(np.where(constant, 1.0, std).tolist())
