"""Uniform numbers for views."""

import torch
from torch import Tensor


def uniform(rows: int, draws: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return `(rows, draws)` uniform float32 numbers in [0, 1) from the generator, on `device`.

    Numbers of a CPU's generator go to a GPU from pinned memory, so that the copy waits for nothing.
    """
    u = torch.rand(rows, draws, generator=generator, device=generator.device)
    if u.device.type == "cpu" and device.type == "cuda":
        return u.pin_memory().to(device, non_blocking=True)
    return u.to(device)
