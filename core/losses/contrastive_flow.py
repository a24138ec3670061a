"""Contrastive flow matching: velocities towards their own target and away from others'. Shape legend: B rows."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..check import number, shape


class FlowTerms(NamedTuple):
    """The two terms of contrastive flow matching, to log them apart: their sum can be negative.

    Attributes:
        flow: scalar >= 0, the mean square of prediction - own target.
        contrast: scalar >= 0, the mean square of prediction - another row's target; 0 where no row has another.
    """

    flow: Tensor
    contrast: Tensor


def contrastive_flow_matching(
    prediction: Tensor,
    target: Tensor,
    weight: float = 0.05,
    *,
    labels: Tensor | None = None,
    different_class: bool = True,
    null_class: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the contrastive flow-matching loss (Stoica et al. 2025, https://arxiv.org/abs/2506.05350).

        L = mean_i |v_i - u_i|^2 - weight mean_i |v_i - u_j(i)|^2,    j(i) != i drawn at random

    as means over all entries, like `F.mse_loss`, which it is at weight 0. It can be negative and is no error then.

    With negatives drawn from all rows, the prediction that minimises it is that of flow matching, pushed away from the
    mean target, which tells nothing of the classes: `undo_flow_bias` takes it back. With `labels`, negatives are of
    another class and the push is away from the other classes' mean.

    Args:
        prediction: `(B, ...)` velocities v.
        target: likewise u, noise - image in diffusers.
        weight: lambda in [0, 1); at 1 and above the loss has no minimum. The paper: 0.05.
        labels: `(B,)` long; negatives are then drawn among rows of another label, and a row without any has none.
        different_class: False draws them among all rows in spite of labels, which then only tell the null class.
        null_class: rows of this label, unconditional ones, have no negative and are none; it needs `labels`.
        generator: of the draw, on the device of the tensors.

    Raises:
        ValueError: shapes that disagree, fewer than 2 rows, or a weight out of range.
    """
    weight = number("weight", weight, 0.0, 1.0, below=True)
    flow, contrast = contrastive_flow_terms(
        prediction,
        target,
        labels=labels,
        different_class=different_class,
        null_class=null_class,
        generator=generator,
    )
    return flow - weight * contrast


def contrastive_flow_terms(
    prediction: Tensor,
    target: Tensor,
    *,
    labels: Tensor | None = None,
    different_class: bool = True,
    null_class: int | None = None,
    generator: torch.Generator | None = None,
) -> FlowTerms:
    """Return both terms of `contrastive_flow_matching`, arguments and errors as there.

    Each is a mean over all B rows, so that rows without a negative weigh the contrast down.
    """
    if prediction.shape != target.shape or prediction.ndim < 2 or len(prediction) < 2:
        raise ValueError(
            f"prediction and target must be of one shape (B, ...) with B >= 2, got {shape(prediction)} and "
            f"{shape(target)}"
        )
    negative, has_one = other_rows(
        len(target),
        labels=labels,
        different_class=different_class,
        null_class=null_class,
        generator=generator,
        device=target.device,
    )
    return flow_terms(prediction, target, negative, has_one)


def flow_terms(prediction: Tensor, target: Tensor, negative: Tensor, has_one: Tensor) -> FlowTerms:
    """Return both terms for negatives that are known, in float32 (float64 for such rows).

    Args:
        prediction: `(B, ...)`.
        target: likewise.
        negative: `(B,)` long, the row whose target repels.
        has_one: `(B,)` bool, whether that counts.
    """
    away = row_errors(prediction, target[negative])
    return FlowTerms(row_errors(prediction, target).mean(), away.masked_fill(~has_one, 0.0).mean())


def row_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean square of each row's difference, `(B,)`, in float32 (float64 for such rows)."""
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    errors: Tensor = (prediction.flatten(1).to(dtype) - target.flatten(1).to(dtype)).square().mean(1)
    return errors


def other_rows(
    rows: int,
    *,
    labels: Tensor | None = None,
    different_class: bool = True,
    null_class: int | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Return for each row another one, `(B,)` long, drawn uniformly, and whether there is one, `(B,)` bool.

    Args:
        rows: B >= 2.
        labels: `(B,)` long: only rows of another label.
        different_class: False: of any label.
        null_class: rows of this label have none and are none.
        generator: of the draw.
        device: of the result.

    Raises:
        ValueError: a null class without labels, or labels of another shape.
    """
    if labels is None:
        if null_class is not None:
            raise ValueError(f"null_class needs labels, got null_class={null_class} without")
        step = torch.randint(1, rows, (rows,), generator=generator, device=device)
        every = torch.arange(rows, device=device)
        return (every + step) % rows, torch.ones(rows, dtype=torch.bool, device=device)
    if labels.shape != (rows,):
        raise ValueError(f"labels must be one for each row, ({rows},), got {shape(labels)}")
    itself = torch.eye(rows, dtype=torch.bool, device=device)
    allowed = labels.unsqueeze(1) != labels if different_class else ~itself
    if null_class is not None:
        known = labels != null_class
        allowed = allowed & known.unsqueeze(1) & known
    draw = torch.rand(rows, rows, generator=generator, device=device).masked_fill(~allowed, -1.0)
    return draw.argmax(1), allowed.any(1)


def undo_flow_bias(velocity: Tensor, mean_target: Tensor, weight: float) -> Tensor:
    """Return flow matching's velocity from one trained with `contrastive_flow_matching` at this weight.

        v_CFM = (v_FM - weight E[u]) / (1 - weight)    =>    v_FM = (1 - weight) v_CFM + weight E[u]

    The first is where the loss is stationary if negatives are independent of the row: 2 (v - E[u | x_t]) = 2 weight
    (v - E[u]). With u = noise - image, E[u] is minus the mean image. What training gains from it beyond this map may
    be that samples overshoot, as guidance makes them.

    Args:
        velocity: `(B, ...)` of the trained model.
        mean_target: E[u], `(...)` or `(B, ...)`; with negatives of other classes, the mean of these.
        weight: lambda in [0, 1).

    Raises:
        ValueError: a weight out of range.
    """
    weight = number("weight", weight, 0.0, 1.0, below=True)
    return (1 - weight) * velocity + weight * mean_target
