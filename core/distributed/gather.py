"""Rows of all processes in one tensor, with the gradient of the full batch.

Why not torch's own: `torch.distributed.nn.functional.all_gather` has this gradient (the tests compare), but torch 2.14
deprecates it; what replaces it stands in a private module and was renamed between the versions we support; and neither
takes different numbers of rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .processes import known_counts, rank_and_size


def gather_with_gradient(x: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """Return the rows of `x` of all W processes, in rank order; backward sums the gradients of all processes' losses.

    Process s computes a loss L_s on the gathered rows. Backward gives process r, for its own rows x_r,

        dx_r = sum_s dL_s / dx_r    (a reduce-scatter),

    because the others compared their queries with these rows too. With parameter gradients *averaged* over processes,

        1/W sum_r dx_r dx_r/dtheta = d/dtheta (1/W sum_s L_s),

    the gradient of the full-batch loss, whether L_s is the mean over the queries of process s (their mean over
    processes is the full-batch loss) or every process computes the whole full-batch loss. DistributedDataParallel
    and Accelerate average. Without them, sum `.grad` over processes with `torch.distributed.all_reduce` and divide it
    by W; the sum alone is W times too large. A layer whose backward returns its own slice of the gradient, without
    the sum, yields 1/W of the gradient when every process computes the full loss, and loses what the others' queries
    say of these keys otherwise.

    Every process must call it in the same order, with `x` requiring a gradient on all or none, and run backward
    through it: a process that does not leaves the others waiting. Without a process group, or with one process,
    `x` itself is returned. Second derivatives exist.

    Args:
        x: `(n, ...)` of any dtype, n of each process its own; the other dimensions are the same everywhere.
        counts: n of each process where it is known; None asks, which waits for the device (see `row_counts`).

    Returns:
        `(sum of n, ...)`.

    Raises:
        ValueError: `counts` does not fit, or `x` has no rows to speak of (a scalar).
    """
    if x.ndim == 0:
        raise ValueError("gather_with_gradient needs a tensor with rows, got a scalar")
    counts = known_counts(x, counts)
    return x if len(counts) == 1 else _Gather.apply(x, counts)


class _Gather(torch.autograd.Function):
    """Rows of all processes; its gradient is `_SumToOwner`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        padded = _pad(x, max(counts)).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _SumToOwner.apply(grad, ctx.counts), None


class _SumToOwner(torch.autograd.Function):
    """The sum over processes of the rows that are this process's own; its gradient is `_Gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        return (_reduce_scatter if scatters(x) else _all_reduce)(x, counts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(grad, ctx.counts), None


def scatters(x: Tensor) -> bool:
    """Whether to reduce and scatter in one; gloo, for CPU tensors, has it since torch 2.8 only, as all-reduces."""
    return x.device.type != "cpu"


def _reduce_scatter(x: Tensor, counts: tuple[int, ...]) -> Tensor:
    rank, _ = rank_and_size()
    parts = [_pad(part, max(counts)).contiguous() for part in x.split(counts)]
    own = torch.empty_like(parts[rank])
    dist.reduce_scatter(own, parts)
    return own[: counts[rank]]


def _all_reduce(x: Tensor, counts: tuple[int, ...]) -> Tensor:
    rank, _ = rank_and_size()
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total.split(counts)[rank].clone()


def _pad(x: Tensor, rows: int) -> Tensor:
    return x if len(x) == rows else torch.cat((x, x.new_zeros(rows - len(x), *x.shape[1:])))
