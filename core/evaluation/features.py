"""From a data set to features: one pass of a frozen encoder. Shape legend: N examples, D features."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from ..check import shape, whole
from ..data.loader import batches
from ..data.protocol import Batch, DataSet
from .subject import Features


def features(
    encoder: nn.Module, data: DataSet, batch_size: int = 256, device: torch.device | str | None = None, workers: int = 0
) -> Features:
    """Return what the encoder, in eval mode and without gradients, makes of every example, in order.

    The encoder's parameters, statistics and modes are afterwards what they were; it stays on `device`.

    Args:
        encoder: takes the batch's inputs as they are (uint8 images, or float vectors) and returns `(N, D)`.
        data: the data set.
        batch_size: examples a pass, >= 1.
        device: where the encoder runs; None leaves it where it is.
        workers: processes that read the data, >= 0.

    Raises:
        ValueError: the data set is empty, a number is out of range, or the encoder does not return `(N, D)`; features
            that are not finite.
    """
    if len(data) == 0:
        raise ValueError("a data set to evaluate on must have at least 1 example, got 0")
    rows, labels = [], []
    device = device_of(encoder) if device is None else device
    encoder.to(device)
    with evaluating(encoder), torch.no_grad():
        for batch in in_order(data, batch_size, workers):
            found = encoder(batch.inputs.to(device, non_blocking=True))
            if found.ndim != 2 or len(found) != len(batch.inputs):
                raise ValueError(
                    f"an encoder must return (N, D) features, got {shape(found)} for inputs {shape(batch.inputs)}"
                )
            rows.append(found.float().cpu().numpy())
            labels.append(batch.labels.numpy())
    made = Features(np.concatenate(rows), np.concatenate(labels))
    if not np.isfinite(made.rows).all():
        broken = int((~np.isfinite(made.rows).all(1)).sum())
        raise ValueError(f"features must be finite, and those of {broken} of {len(made.rows)} examples are not")
    return made


def in_order(data: DataSet, batch_size: int, workers: int = 0) -> Iterator[Batch]:
    """Yield all examples in order, in batches."""
    size, total = whole("batch_size", batch_size, 1), len(data)
    yield from batches(data, [range(i, min(i + size, total)) for i in range(0, total, size)], workers=workers)


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's parameters are; one without any is on the CPU."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put the module and all below it into eval mode; afterwards each is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
