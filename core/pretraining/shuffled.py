"""Shuffled batch norm of MoCo. Shape legend: B examples, D features."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..check import whole
from ..distributed import gather_with_gradient
from ..distributed.processes import rank_and_size
from ..encoders import MomentumEncoder
from .layouts import equal_rows


class Shuffled(nn.Module):
    """Encode keys beside other keys than their queries' neighbours (He et al. 2020, MoCo, section 3.3).

    A query and its key whose batch norm took statistics of the same examples can recognise each other by these. Across
    processes the examples of all are dealt out anew in a random order, encoded, and their keys sent back, as in the
    paper. In one process the batch is encoded in a random order and in groups, each with statistics of its own, while
    queries have those of the whole batch.

    Nothing is shuffled in evaluation mode, nor where the encoder has no batch norm. The order comes from torch's global
    generator of the inputs' device, across processes from that of the first.

    Args:
        encoder: `(B, ...) -> (B, D)`.
        groups: in one process, >= 1; fewer where a group would have less than 2 rows. 1 shuffles nothing.

    Raises:
        ValueError: groups is not a whole number >= 1.
    """

    encoder: MomentumEncoder

    def __init__(self, encoder: MomentumEncoder, groups: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.groups = whole("shuffle_groups", groups, 1)
        self._normalises = any(isinstance(module, _BatchNorm) for module in encoder.modules())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, D)` keys in the order of the `(B, ...)` inputs, without gradient."""
        rank, size = rank_and_size()
        groups = min(self.groups, len(x) // 2)
        if not self.training or not self._normalises or (size == 1 and groups < 2):
            return self.encoder(x)
        order = torch.randperm(len(x) * size, device=x.device)  # there, for a copy from the CPU would wait
        if size > 1:
            dist.broadcast(order, 0)
            counts = equal_rows(x)
            share = gather_with_gradient(x, counts)[order.chunk(size)[rank]]
            keys = gather_with_gradient(self.encoder(share), counts)
        else:
            keys = torch.cat([self.encoder(group) for group in x[order].tensor_split(groups)])
        return keys[order.argsort().chunk(size)[rank]]
