"""Optimizers of what a user wrote: what is wrong with their settings is said in sentences."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""What a YAML of `configs/optimizer/` describes: `optimizer(parameters, or groups) -> torch.optim.Optimizer`."""


def made_optimizer(factory: OptimizerFactory, parameters: Iterable[Any]) -> Optimizer:
    """Return the optimizer that a factory makes of parameters, or of groups of them.

    Raises:
        ValueError: it takes no such settings, or what it finds wrong itself.
    """
    try:
        return factory(parameters)
    except TypeError as error:
        raise ValueError(f"the optimizer cannot be made of these settings: {error}") from error


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return the trained parameters in two groups, of which the second has no weight decay (and no LARS scaling).

    Without decay are biases and the scales of norms: parameters with one dimension or none (Goyal et al. 2017, 5.1).
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


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
