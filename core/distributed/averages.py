"""Means over processes of what each of them found for itself."""

from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from .processes import rank_and_size


def averaged(value: Tensor) -> Tensor:
    """Return the mean of a detached value over processes; without a process group the value itself."""
    size = rank_and_size()[1]
    if size == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / size


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average `.grad` over processes in one all_reduce; parameters that got none anywhere keep none."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    vector_to_parameters(averaged(parameters_to_vector(gradients)), gradients)
