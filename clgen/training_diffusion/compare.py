"""`contraux compare-diffusion`: denoisers with different settings over the same seeds.

`configs/compare-diffusion.yaml` describes what it reads.
"""

from itertools import pairwise
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ...core.files import read_json
from ...core.training.state import shared_state
from ..charts import Curve
from ..compare import run
from . import job
from .evaluation import LEVELS


def main(cfg: DictConfig) -> None:
    """Launch the runs that are still to be done, then report on all of them.

    Raises:
        ValueError: diffusers is missing, a setting breaks its rule, or a folder was made with other settings.
        SystemExit: with 1 when runs failed, 130 when the comparison was interrupted.
    """
    job.quiet()
    run(cfg, perform, read_curves)


def perform(cfg: DictConfig) -> None:
    """Do one run in Hydra's output folder."""
    job.quiet()
    shared_state(cfg.device)
    job.perform(cfg, Path(HydraConfig.get().runtime.output_dir))


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return what a run found at each noise level; empty where it was not evaluated."""
    found, xlabel = read_json(folder / LEVELS), "noise level t / T"
    curves = {}
    if "levels" in found:
        curves["linear probe, % right"] = Curve(found["levels"], found["accuracy"], xlabel)
        curves["effective rank"] = Curve(found["levels"], found["effective_rank"], xlabel)
    if "edges" in found:
        middle = [(low + high) / 2 for low, high in pairwise(found["edges"])]
        curves["denoising error"] = Curve(middle, found["error"], xlabel, log=True)
    return curves
