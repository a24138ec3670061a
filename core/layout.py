"""Common layouts of `Pairs`. Shape legend: N examples, D feature dimension."""

import torch
from torch import Tensor

from .check import shape
from .pairs import Pairs


def two_view_pairs(a_ND: Tensor, b_ND: Tensor) -> Pairs:
    """Lay out two views of the same N examples for NT-Xent: every row looks for its other view among all 2N.

    `query` and `key` are the same `(2N, D)` tensor `[a; b]`, the positive of row i is row (i + N) mod 2N and `exclude`
    names each row itself (Chen et al. 2020, https://arxiv.org/abs/2002.05709, algorithm 1).

    Raises:
        ValueError: the views are not two `(N, D)` tensors of one shape.
    """
    if a_ND.ndim != 2 or a_ND.shape != b_ND.shape:
        raise ValueError(f"two views must have one shape (N, D), got {shape(a_ND)} and {shape(b_ND)}")
    n = a_ND.shape[0]
    both = torch.cat((a_ND, b_ND))
    positive = torch.arange(2 * n, device=both.device).roll(n)
    return Pairs(both, both, positive, torch.arange(2 * n, device=both.device))
