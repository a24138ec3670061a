"""The quality of a denoiser's images, at several numbers of sampling steps."""

from collections.abc import Sequence

from torch import nn

from ..images import Images
from .process import Process


def quality(
    model: nn.Module,
    process: Process,
    train: Images,
    test: Images,
    count: int,
    sampling_steps: Sequence[int],
    *,
    conditional: bool,
    guidance: float,
    seed: int,
) -> dict[str, float]:
    """Return metrics."""
    return {}
