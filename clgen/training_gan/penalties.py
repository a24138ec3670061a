"""Penalties on the gradient of scores with respect to images. Shape legend: B images, C channels, H x W size."""

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""Images `(B, C, H, W)` -> scores `(B,)`."""


def zero_centred(score: Score, images: Tensor) -> Tensor:
    """Return the mean squared norm of the gradient at images, without a factor.

        mean_b || d score_b / d image_b ||^2

    Half of it, times gamma, is R1 at real images and R2 at generated ones (Mescheder et al. 2018, eq. 9 and 10;
    https://arxiv.org/abs/1801.04406).

    Args:
        score: no image may influence another's score, so no batch norm in training mode.
        images: `(B, C, H, W)`; their graph is left alone.

    Returns:
        A scalar >= 0, with a gradient to the weights of `score`.
    """
    return gradient(score, images).square().flatten(1).sum(1).mean()


def one_centred(score: Score, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Return the penalty of Gulrajani et al. 2017, eq. 3, without its factor; https://arxiv.org/abs/1704.00028.

        mean_b (|| d score_b / d image_b || - 1)^2    at    image = mix real + (1 - mix) fake

    Args:
        score: as for `zero_centred`.
        real: `(B, C, H, W)`.
        fake: likewise.
        mix: `(B,)` uniform in [0, 1).
    """
    weight = mix.view(-1, 1, 1, 1)
    norms = gradient(score, weight * real + (1 - weight) * fake).square().flatten(1).sum(1)
    return ((norms + 1e-12).sqrt() - 1).square().mean()  # the root has no derivative at 0


def gradient(score: Score, images: Tensor) -> Tensor:
    """Return the gradient `(B, C, H, W)` of each score with respect to its image, itself differentiable."""
    images = images.detach().requires_grad_()
    (found,) = torch.autograd.grad(score(images).sum(), images, create_graph=True)
    return found
