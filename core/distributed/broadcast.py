"""Giving every process what the first has."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from .processes import rank_and_size


@torch.no_grad()
def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the first process; without a process group they stay what they are."""
    if rank_and_size()[1] == 1:
        return
    for tensor in tensors:
        whole = tensor.contiguous()
        dist.broadcast(whole, 0)
        if whole is not tensor:  # channels last
            tensor.copy_(whole)
