"""What the losses of a similarity matrix share: their arguments, and the mean at the end.

Shape legend: N queries, M keys.
"""

from typing import Literal

import torch
from torch import Tensor

from ..check import choice, number, shape

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
    index = positive.dtype == torch.long and positive.shape == similarity.shape[:1]
    mask = positive.shape == similarity.shape and (positive.dtype == torch.bool or positive.is_floating_point())
    if not index and not mask:
        n, m = similarity.shape
        raise ValueError(
            f"positive must be long ({n},) or bool or floating ({n}, {m}), got {positive.dtype} {shape(positive)}"
        )
    if weights is not None and (weights.shape != similarity.shape or not weights.is_floating_point()):
        raise ValueError(
            f"weights must be floating {shape(similarity)} like the similarity, got {weights.dtype} {shape(weights)}"
        )


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
    choice("reduction", reduction, ("mean", "sum", "none"))
    if used_N is not None:
        loss_N = loss_N.masked_fill(~used_N, 0.0)
    if reduction == "none":
        return loss_N
    if reduction == "sum":
        return loss_N.sum()
    return loss_N.mean() if used_N is None else loss_N.sum() / used_N.sum().clamp(min=1)
