"""Contrastive losses across processes, and batches larger than memory.

Everything here follows one rule: each process computes a loss whose mean over processes is the loss of the full batch,
and parameter gradients are averaged over processes, as DistributedDataParallel and Accelerate do.
"""

from .averages import average_gradients, averaged
from .broadcast import broadcast_from_first
from .chunks import split_rows
from .gather import gather_with_gradient
from .grad_cache import cached_backward
from .layout import gathered_pairs
from .processes import loss_share, row_counts
from .ring import ring_info_nce

__all__ = [
    "average_gradients",
    "averaged",
    "broadcast_from_first",
    "cached_backward",
    "gather_with_gradient",
    "gathered_pairs",
    "loss_share",
    "ring_info_nce",
    "row_counts",
    "split_rows",
]
