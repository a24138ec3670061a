"""`contraux diffusion`: train a denoiser of diffusers, with a contrastive auxiliary or without."""

from ..diffusion.prediction import clean_of, min_snr_weight, target
from ..diffusion.process import Diffusion, Flow, Process
from .grids import Grids
from .models import dit, folder, unet
from .pipeline import pipeline_of, save_pipeline
from .sampling import sample
from .trainer import Trainer

__all__ = [
    "Diffusion",
    "Flow",
    "Grids",
    "Process",
    "Trainer",
    "clean_of",
    "dit",
    "folder",
    "min_snr_weight",
    "pipeline_of",
    "sample",
    "save_pipeline",
    "target",
    "unet",
]
