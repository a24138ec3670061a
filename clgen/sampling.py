"""Images of a generator. Shape legend: N images, Z latent dimension, C channels, H x W size."""

import torch
from torch import Tensor, nn

from ..core.check import whole


def sample(
    generator: nn.Module, n: int, labels: Tensor | None = None, *, seed: int = 0, batch_size: int = 256
) -> Tensor:
    """Return `(N, C, H, W)` images in [-1, 1] on the CPU.

    Latents are drawn on the CPU as one, so that neither the device nor `batch_size` changes them.

    Args:
        generator: as `load_generator` returns it; put into evaluation mode.
        n: N, >= 1.
        labels: `(N,)` long, for a conditional one.
        seed: of the latents, >= 0.
        batch_size: images made at once, >= 1.

    Raises:
        ValueError: a number out of range, or labels that do not fit.
    """
    drawn = torch.Generator().manual_seed(whole("seed", seed))
    latents = torch.randn(whole("n", n, 1), int(generator.latent), generator=drawn)  # type: ignore[arg-type]
    device, made = next(generator.parameters()).device, []
    size = whole("batch_size", batch_size, 1)
    generator.eval()
    with torch.no_grad():
        for start in range(0, n, size):
            rows = slice(start, start + size)
            given = () if labels is None else (labels[rows].to(device),)
            made.append(generator(latents[rows].to(device), *given).float().cpu())
    return torch.cat(made)
