"""What losses share: checks of their arguments, sums over positives and negatives, and the mean at the end.

Shape legend: N queries or pairs, M keys, D feature dimension.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ..check import choice, number, shape
from ..masks import check_positive, positive_mask
from ..similarity import full_dtype

Reduction = Literal["mean", "sum", "none"]
"""`mean` over the queries with a positive, their `sum`, or `none`: the loss of each query, 0 for one without."""


def check_temperature(temperature: float | Tensor) -> None:
    """Raise a ValueError unless it is a number > 0 or a floating scalar tensor, whose value is not read."""
    if not isinstance(temperature, Tensor):
        number("temperature", temperature, 0.0, above=True)
    elif temperature.ndim != 0 or not temperature.is_floating_point():
        raise ValueError(
            f"temperature must be a number > 0 or a floating scalar tensor, got {temperature.dtype} "
            f"{shape(temperature)}"
        )


def check_matrix(similarity: Tensor, positive: Tensor, weights: Tensor | None) -> None:
    """Raise a ValueError with a sentence unless shapes and dtypes are those `info_nce` documents; reads no values."""
    if similarity.ndim != 2 or not similarity.is_floating_point() or 0 in similarity.shape:
        raise ValueError(
            f"similarity must be a floating (N, M) tensor with N, M >= 1, got {similarity.dtype} {shape(similarity)}"
        )
    n, m = similarity.shape
    check_positive(n, m, positive)
    if weights is not None and (weights.shape != similarity.shape or not weights.is_floating_point()):
        raise ValueError(
            f"weights must be floating {shape(similarity)} like the similarity, got {weights.dtype} {shape(weights)}"
        )


def check_scalar(name: str, value: Any, low: float = -math.inf, *, above: bool = False) -> None:
    """Raise a ValueError unless it is a number >= low (> with `above`) or a floating scalar tensor, not read."""
    if not isinstance(value, Tensor):
        number(name, value, low, above=above)
    elif value.ndim != 0 or not value.is_floating_point():
        raise ValueError(f"{name} must be a number or a floating scalar tensor, got {value.dtype} {shape(value)}")


def check_square(name: str, similarity: Tensor) -> None:
    """Raise a ValueError unless every row is compared with every row."""
    if similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"{name} needs a square similarity (N, N), each row with each, got {shape(similarity)}")


def check_reduction(reduction: str) -> None:
    """Raise a ValueError unless it is one of `Reduction`."""
    choice("reduction", reduction, ("mean", "sum", "none"))


def rows(name: str, least: int, *features: Tensor) -> list[Tensor]:
    """Return features of one shape in float32, or float64 where some are.

    Raises:
        ValueError: they are not floating `(N, D)` of one shape with D >= 1 and N >= least.
    """
    first = features[0].shape
    fits = all(x.is_floating_point() and x.ndim == 2 and x.shape == first for x in features)
    if not fits or first[0] < least or first[1] < 1:
        found = " and ".join(f"{x.dtype} {shape(x)}" for x in features)
        raise ValueError(f"{name} needs floating rows (N, D) of one shape with N >= {least} and D >= 1, got {found}")
    return [x.to(full_dtype(*features)) for x in features]


def split(similarity: Tensor, positive: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return three `(N, M)` matrices of one dtype: similarities, shares of the positives, weights of the negatives.

    A share is 0 at whatever is no positive. A weight is 0 at positives, where it was 0 or below, and where the
    similarity is -inf. A similarity that has neither is 0, so that nothing it was reaches a value or a gradient.
    """
    share = positive_mask(positive, similarity.shape[1]).to(similarity.dtype)
    rival = (share <= 0) & (similarity != -torch.inf)
    if weights is None:
        weight = rival.to(similarity.dtype)
    else:
        weight = weights.to(similarity.dtype).masked_fill(~rival | (weights <= 0), 0.0)
    return similarity.masked_fill((share <= 0) & (weight == 0), 0.0), share, weight


def has_positive(positive: Tensor) -> Tensor | None:
    """Return `(N,)` bool, or None where every query has one because it is an index."""
    return None if positive.ndim == 1 else (positive > 0).any(1)


def positive_mean(values: Tensor, share: Tensor) -> Tensor:
    """Return the `(N,)` means of `(N, M)` values over the positives, weighted with their shares; 0 without any."""
    total = share.sum(1)
    return (values.masked_fill(share <= 0, 0.0) * share).sum(1) / total.where(total > 0, 1.0)


def log_sum(logits: Tensor, weight: Tensor) -> Tensor:
    """Return the `(N,)` values of log sum_j w_j e^{x_j}; 0, without gradient, where every weight is 0."""
    counts = weight != 0
    log = (logits + weight.where(counts, 1.0).log()).masked_fill(~counts, -torch.inf)
    return torch.logsumexp(log.masked_fill(~counts.any(1, keepdim=True), 0.0), 1).masked_fill(~counts.any(1), 0.0)


def scaled(similarity: Tensor, temperature: float | Tensor) -> Tensor:
    """Return `(N, M)` similarity / temperature; a similarity of -inf adds no NaN to the temperature's gradient."""
    if not isinstance(temperature, Tensor) or not temperature.requires_grad:
        return similarity / temperature
    absent = similarity == -torch.inf
    return (similarity.masked_fill(absent, 0.0) / temperature).masked_fill(absent, -torch.inf)


def log_weights(weights: Tensor, positive: Tensor) -> Tensor:
    """Return `(N, M)` log w with -inf for 0 (and no NaN in its gradient), and 0 for positives."""
    counts = weights > 0
    log = weights.where(counts, 1.0).log().masked_fill(~counts, -torch.inf)
    if positive.ndim == 1:
        return log.scatter(1, positive.unsqueeze(1), 0.0)
    return log.masked_fill(positive > 0, 0.0)


def reduced(loss_N: Tensor, used_N: Tensor | None, reduction: Reduction) -> Tensor:
    """Return the losses of the queries as `reduction` says.

    Args:
        loss_N: `(N,)` losses.
        used_N: `(N,)` bool, which queries have a positive; None: all. The loss of the others becomes 0, whatever it
            was, NaN too, and so does its gradient if it was finite.
        reduction: `mean`, `sum` or `none`.

    Raises:
        ValueError: another reduction.
    """
    check_reduction(reduction)
    if used_N is not None:
        loss_N = loss_N.masked_fill(~used_N, 0.0)
    if reduction == "none":
        return loss_N
    if reduction == "sum":
        return loss_N.sum()
    return loss_N.mean() if used_N is None else loss_N.sum() / used_N.sum().clamp(min=1)
