"""Images from noise, by a scheduler of diffusers. Shape legend: B images."""

from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.labels import NULL, predicted
from ..diffusion.process import Diffusion, Process

ROWS = 256  # that a denoiser is given at once


def check_steps(process: Process, steps: int) -> None:
    """Raise ValueError where a sampler cannot take so many steps: one of DDIM or DDPM has those of the training."""
    if isinstance(process, Diffusion) and steps > process.timesteps:
        raise ValueError(f"sampling_steps must be at most the {process.timesteps} timesteps of training, got {steps}")


@torch.no_grad()
def sample(
    model: nn.Module,
    process: Process,
    noise: Tensor,
    *,
    steps: int,
    labels: Tensor | None = None,
    guidance: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Return `(B, C, H, W)` images in [-1, 1], as the pipeline that a run leaves would make them of the same noise.

    With guidance w, the output for the null class u and that for the label c become u + w (c - u) (Ho and Salimans
    2022, https://arxiv.org/abs/2207.12598, eq. 6 with their w one lower). Where all labels are the null class this is u
    whatever w, and the denoiser is not asked twice.

    Args:
        model: a U-Net or DiT of diffusers.
        process: whose sampler is used.
        noise: `(B, C, H, W)`, standard normal.
        steps: of the sampler.
        labels: `(B,)` long; None for a model that takes none.
        guidance: 1 or less: none.
        seed: of the noise that DDPM adds on the way.
    """
    was_training = model.training
    model.eval()
    generator = torch.Generator(noise.device).manual_seed(seed)
    parts = [slice(i, i + ROWS) for i in range(0, len(noise), ROWS)]
    try:
        return torch.cat(
            [
                _sampled(
                    model, process.sampler(), noise[part], steps, None if labels is None else labels[part], guidance,
                    generator,
                )
                for part in parts
            ]
        )  # fmt: skip
    finally:
        model.train(was_training)


def _sampled(
    model: nn.Module,
    scheduler: Any,
    images: Tensor,
    steps: int,
    labels: Tensor | None,
    guidance: float,
    generator: torch.Generator,
) -> Tensor:
    scheduler.set_timesteps(steps)
    guided = labels is not None and guidance > 1 and bool((labels != NULL).any())
    if guided:
        labels = torch.cat((labels, torch.full_like(labels, NULL)))  # type: ignore[arg-type]
    for t in scheduler.timesteps:
        rows = torch.cat((images, images)) if guided else images
        rows = scheduler.scale_model_input(rows, t)
        output = predicted(model, rows, t.to(images.device).expand(len(rows)), labels)
        if guided:
            conditional, unconditional = output.chunk(2)
            output = unconditional + guidance * (conditional - unconditional)
        images = scheduler.step(output, t, images, generator=generator).prev_sample
    return images.clamp(-1, 1)
