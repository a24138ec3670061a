"""Optimizers of what a user wrote: what is wrong with their settings is said in sentences."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def made_optimizer(factory: Callable[..., torch.optim.Optimizer], parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """Return the optimizer that a factory makes of parameters, or of groups of them.

    Raises:
        ValueError: it takes no such settings, or what it finds wrong itself.
    """
    try:
        return factory(parameters)
    except TypeError as error:
        raise ValueError(f"the optimizer cannot be made of these settings: {error}") from error


@contextmanager
def stepping(rate: float) -> Iterator[None]:
    """Say in a sentence that an optimizer's step overflows.

    Args:
        rate: its learning rate.

    Raises:
        ValueError: the learning rate makes the step overflow.
    """
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise ValueError(
            f"the learning rate must be small enough for steps that are float32 numbers, got {rate:g}"
        ) from error
