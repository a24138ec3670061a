"""`contraux compare-gan`: GANs with different settings over the same seeds. `configs/compare-gan.yaml` describes it."""

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ...core.training.state import shared_state
from ..compare import run
from . import job


def main(cfg: DictConfig) -> None:
    """Launch the runs that are still to be done, then report on all of them.

    Raises:
        ValueError: a setting of the comparison breaks its rule, or a folder was made with other settings.
        SystemExit: with 1 when runs failed, 130 when the comparison was interrupted.
    """
    run(cfg, perform)


def perform(cfg: DictConfig) -> None:
    """Do one run in Hydra's output folder."""
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    shared_state(cfg.device)
    job.perform(cfg, Path(HydraConfig.get().runtime.output_dir))
