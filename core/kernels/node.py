"""One node of the autograd graph whose gradient is taken along with its value."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Compute = Callable[[Sequence[bool]], tuple[Tensor, Sequence[Tensor | None]]]
"""Given which inputs need a gradient, return the scalar value and those gradients (None for the others)."""


@torch.compiler.disable
def with_gradient(compute: Compute, *inputs: Tensor) -> Tensor:
    """Return the value of `compute` as a function of the inputs, whose gradients it also returns.

    `compute` runs without autograd, once, with the inputs at hand; backward only scales what it found. Nothing else is
    kept. Inside `torch.compile` it is a break in the graph.

    Raises:
        NotImplementedError: in a backward pass with `create_graph=True`, in which the gradient would count as constant.
    """
    if not torch.is_grad_enabled():
        return compute([False] * len(inputs))[0]
    return _WithGradient.apply(compute, *inputs)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Compute, *inputs: Tensor) -> Tensor:
        value, gradients = compute(ctx.needs_input_grad[1:])
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "a contrastive loss taken in blocks has no second derivative (create_graph=True was asked for); take "
                "the similarity and the loss by hand, loss(similarity(query, key), positive), which stores all of it"
            )
        return None, *(None if one is None else one * grad for one in ctx.saved_tensors)
