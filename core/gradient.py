"""The gradient of an auxiliary loss, apart from the host's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .check import number
from .pairs import Outcome


def auxiliary_gradients(
    outcome: Outcome, parameters: Sequence[Tensor], max_norm: float | None = None
) -> tuple[list[Tensor | None], Outcome]:
    """Return the gradient of `outcome.loss`, clipped, and the outcome with `gradient_norm` among its metrics.

    `.grad` is neither read nor written. Nothing here waits for the device. A gradient that is not finite stays so: the
    caller sees it in `gradient_norm`.

    Args:
        outcome: what an objective returned; its graph is freed.
        parameters: what to differentiate by.
        max_norm: largest Euclidean norm of all gradients taken together, > 0; longer ones are scaled down to it. None
            does not clip.

    Returns:
        A gradient for each parameter, None where the loss does not depend on it, and the outcome with the norm before
        clipping added.

    Raises:
        ValueError: max_norm is not a number > 0, or the loss carries no gradient at all.
    """
    if max_norm is not None:
        number("max_norm", max_norm, 0.0, above=True)
    if not outcome.loss.requires_grad:
        raise ValueError(
            "the loss must depend on something that requires a gradient, got one that does not; was the forward pass "
            "run under torch.no_grad()?"
        )
    gradients: list[Tensor | None] = list(torch.autograd.grad(outcome.loss, list(parameters), allow_unused=True))
    found = [gradient for gradient in gradients if gradient is not None]
    if not found:
        return gradients, _with_norm(outcome, torch.zeros_like(outcome.loss))
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))
    if max_norm is not None:
        gradients = _scaled(gradients, found, (max_norm / norm).clamp(max=1.0))
    return gradients, _with_norm(outcome, norm)


def _scaled(gradients: list[Tensor | None], found: list[Tensor], factor: Tensor) -> list[Tensor | None]:
    """Return the gradients times a factor; in place where each has its own memory, which autograd does not promise."""
    if len({gradient.untyped_storage().data_ptr() for gradient in found}) == len(found):
        torch._foreach_mul_(found, factor)
        return gradients
    clipped = iter(torch._foreach_mul(found, factor))
    return [None if gradient is None else next(clipped) for gradient in gradients]


def _with_norm(outcome: Outcome, norm: Tensor) -> Outcome:
    return Outcome(outcome.loss, {**outcome.metrics, "gradient_norm": norm.detach()})
