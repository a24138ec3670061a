"""Class labels of a denoiser, and their absence. Shape legend: B rows."""

from typing import Any

import torch
from torch import Tensor, nn

NULL = 1000
"""The class that stands for none: diffusers' `DiTPipeline` takes this one and no other for guidance.

So a conditional model has room for 1,000 classes and this one, however few the data have.
"""


def takes_labels(model: nn.Module) -> bool:
    """Return whether a denoiser is called with class labels: every DiT, and a U-Net that has an embedding for them."""
    return type(model).__name__.startswith("DiT") or getattr(model, "class_embedding", None) is not None


def dropped(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return labels of which a share, drawn row by row, is the null class, and with them all that are negative.

    Once and outside the model, so that all its blocks agree (Ho and Salimans 2022, https://arxiv.org/abs/2207.12598,
    algorithm 1).

    Args:
        labels: `(B,)` long.
        share: probability in [0, 1].
        generator: of the draw, on the device of the labels.
    """
    gone = torch.rand(len(labels), generator=generator, device=labels.device) < share
    return labels.masked_fill(gone | (labels < 0), NULL)


def keep_all_labels(model: nn.Module) -> None:
    """Switch off the dropping of labels inside diffusers' DiT, where every block draws for itself.

    A row without a label in one block then has one in most others, so that no unconditional model is learned. The
    embedding of the null class, which is there for it, stays.
    """
    for module in model.modules():
        if type(module).__name__ == "LabelEmbedding":
            part: Any = module
            part.dropout_prob = 0.0


def predicted(model: nn.Module, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
    """Return what a U-Net or DiT of diffusers puts out for `(B, C, H, W)` rows, in float32.

    Args:
        model: it, wrapped or not.
        noisy: x_t.
        timesteps: `(B,)`.
        labels: `(B,)` long; None for a model that takes none.
    """
    output: Tensor = model(noisy, timestep=timesteps, class_labels=labels).sample
    return output[:, : noisy.shape[1]].float()  # a DiT that also predicts variances puts out twice the channels
