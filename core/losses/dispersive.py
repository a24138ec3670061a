"""Dispersion of a batch of features, without positives.

Shape legend: N rows, Q remembered ones, M = N + Q, D feature dimension.
"""

import math

import torch
from torch import Tensor

from ..check import choice, number
from ..similarity import full_precision, safe_norm
from .arguments import check_temperature, rows

NORMALISATIONS = ("l2", "whiten")


def dispersive_info_nce_l2(features: Tensor, memory: Tensor | None = None, temperature: float = 0.5) -> Tensor:
    """Return the InfoNCE-l2 form of the dispersive loss (Wang and He 2025, table 2, https://arxiv.org/abs/2506.09027).

        L = log mean_{i,j} exp(-|z_i - z_j|^2 / temperature),   in [-log M, 0]

    over all N M pairs, each row with itself among them. That it cannot fall below -log M is because of these; whoever
    makes all features larger gets there without spreading them, which is what `normalised` is for.

    Args:
        features: `(N, D)`.
        memory: `(Q, D)` rows of earlier batches, which are compared with too; M = N + Q.
        temperature: > 0.

    Raises:
        ValueError: a number out of range, or features that are not floating `(N, D)` with N >= 2.
    """
    check_temperature(temperature)
    with full_precision(features):
        square = _squares(*_with_memory("dispersive_info_nce_l2", features, memory))
        return torch.logsumexp((-square / temperature).flatten(), 0) - math.log(square.numel())


def dispersive_hinge(features: Tensor, memory: Tensor | None = None, margin: float = 1.0) -> Tensor:
    """Return the hinge form of the dispersive loss (Wang and He 2025, table 2).

        L = mean_{i,j} max(0, margin - |z_i - z_j|^2)^2,   in [margin^2 / M, margin^2]

    over all N M pairs, each row with itself among them.

    Args:
        features: `(N, D)`.
        memory: `(Q, D)` rows of earlier batches; M = N + Q.
        margin: > 0, a squared distance, beyond which two rows are far enough apart.

    Raises:
        ValueError: as for `dispersive_info_nce_l2`.
    """
    margin = number("margin", margin, 0.0, above=True)
    with full_precision(features):
        square = _squares(*_with_memory("dispersive_hinge", features, memory))
        return (margin - square).clamp(min=0).square().mean()


def dispersive_covariance(features: Tensor, memory: Tensor | None = None) -> Tensor:
    """Return the covariance form of the dispersive loss (Wang and He 2025, table 2): squares off the diagonal.

        L = sum_{m != n} C_mn^2,   C = 1/M sum_i (z_i - mean)(z_i - mean)^T,   >= 0

    Of rows of unit length it is at most 1. It falls as features shrink, so that it too wants `normalised` ones.

    Args:
        features: `(N, D)`.
        memory: `(Q, D)` rows of earlier batches; M = N + Q.

    Raises:
        ValueError: as for `dispersive_info_nce_l2`.
    """
    with full_precision(features):
        _, every = _with_memory("dispersive_covariance", features, memory)
        centred = every - every.mean(0)
        m, d = centred.shape
        # The squares of C sum to those of the Gram matrix of the rows, which is the smaller one of flattened maps.
        product = centred @ centred.T if m < d else centred.T @ centred
        return (product.square().sum() - centred.square().sum(0).square().sum()) / m**2


def normalised(features: Tensor, way: str | None) -> Tensor:
    """Return `(N, D)` features in float32 whose scale the loss cannot use.

    Args:
        features: `(N, D)`.
        way: `l2` makes each row of length 1, so that squared distances lie in [0, 4]. `whiten` gives each dimension
            mean 0 and variance 1 over the batch and divides by sqrt(D), so that the mean squared distance is 2 whatever
            the features are; a dimension that is the same in all rows becomes 0. Whitening of correlations too would
            make all distances of N <= D rows equal, and there would be nothing to learn. None divides by sqrt(D) only,
            as the authors' code does: the loss then falls by mere growth of the features.

    Raises:
        ValueError: another way, or features that are not floating `(N, D)` with N >= 2.
    """
    (features,) = rows("a dispersive loss", 2, features)
    if way is not None:
        choice("normalize", way, NORMALISATIONS)
    with full_precision(features):
        if way == "l2":
            return features / safe_norm(features).unsqueeze(1)
        if way == "whiten":
            centred = features - features.mean(0)
            deviation = safe_norm(centred.T) / math.sqrt(len(features))
            return centred / (deviation * math.sqrt(features.shape[1]))
        return features / math.sqrt(features.shape[1])


def _with_memory(name: str, features: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
    (features,) = rows(name, 2, features)
    return features, features if memory is None else torch.cat((features, memory.to(features.dtype)))


def _squares(query: Tensor, key: Tensor) -> Tensor:
    """Return `(N, M)` squared distances >= 0, from products: features are long, and M could be a memory's."""
    length = key.square().sum(1)
    square = length[: len(query)].unsqueeze(1) + length - 2 * query @ key.T
    itself = torch.eye(*square.shape, dtype=torch.bool, device=square.device)
    return square.masked_fill(itself, 0.0).clamp(min=0)
