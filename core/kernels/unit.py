"""Vectors of length one, and the gradient through that. Shape legend: N vectors, D dimension."""

import torch
from torch import Tensor

from ..similarity import safe_norm


def unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(N, D)` vectors over their norms, and the `(N, 1)` norms; a zero vector stays zero."""
    norm = safe_norm(vectors).unsqueeze(1)
    return vectors / norm, norm


def by_temperature(query: Tensor, grad: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the gradient by the temperature t of a loss of q_i . k_j / t, from the one by the queries.

        dL/dt = -1/t sum_ij dL/ds_ij s_ij = -1/t sum_i q_i . dL/dq_i

    Where queries are the keys and `grad` is by both roles, each similarity is in it twice: halve the result.
    """
    return torch.dot(query.reshape(-1), grad.view(-1)) / -temperature


def through_norm(grad: Tensor, unit: Tensor, norm: Tensor) -> Tensor:
    """Return the gradient of x from that of x / |x|, in place: its part orthogonal to x, over |x|."""
    along = torch.linalg.vecdot(grad, unit).unsqueeze(1)
    return grad.addcmul_(unit, along, value=-1.0).div_(norm)
