"""Who we are among the processes, and how many rows each of them holds."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_size() -> tuple[int, int]:
    """Return the rank of this process and how many there are: `(0, 1)` without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def row_counts(x: Tensor) -> tuple[int, ...]:
    """Return how many rows `x` has on each process, in rank order.

    Every process must call it. The numbers are read on the host, so that a GPU is waited for: where they stay the same
    from step to step (a loader that drops the last, smaller batch), ask once and pass them on as `counts`.

    Args:
        x: any tensor with rows, on a device of the process group's backend; only its length is exchanged.
    """
    _, size = rank_and_size()
    if size == 1:
        return (len(x),)
    own = torch.tensor([len(x)], device=x.device)
    found = [torch.empty_like(own) for _ in range(size)]
    dist.all_gather(found, own)
    return tuple(torch.cat(found).tolist())


def loss_share(counts: Sequence[int]) -> float:
    """Return what this process's mean loss must be multiplied by where processes hold different numbers of queries.

        share_r = W n_r / (n_1 + ... + n_W)    so that    1/W sum_r share_r mean_r = mean over all queries

    It is 1 when all W processes hold the same number.

    Args:
        counts: queries (with a positive, where some have none) of each process, as `row_counts` returns them.
    """
    rank, size = rank_and_size()
    return size * counts[rank] / sum(counts)


def known_counts(x: Tensor, counts: Sequence[int] | None) -> tuple[int, ...]:
    """Return `counts` after a look at this process's own, or ask for them.

    Raises:
        ValueError: there is not one for each process, or this process's is not the length of `x`.
    """
    if counts is None:
        return row_counts(x)
    rank, size = rank_and_size()
    if len(counts) != size or counts[rank] != len(x):
        raise ValueError(
            f"counts must be the rows of each of the {size} processes with {len(x)} at rank {rank}, got {tuple(counts)}"
        )
    return tuple(counts)
