"""What a finished denoiser is worth."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..images import Images
from .trainer import Trainer


def evaluate(cfg: DictConfig, trainer: Trainer, test: Images, run: Path) -> dict[str, Any]:
    """Return the metrics."""
    return {}
