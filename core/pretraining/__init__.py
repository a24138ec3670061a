"""Pretraining encoders on their own: methods, each a paper's algorithm, and one trainer on Accelerate."""

from .barlow import BarlowTwins
from .byol import BYOL
from .method import Branch, Method, MethodFactory
from .moco import MoCo
from .mocov3 import MoCoV3
from .simclr import SimCLR
from .simsiam import SimSiam
from .supcon import SupCon
from .trainer import Trained, Trainer
from .vicreg import VICReg

__all__ = [
    "BYOL",
    "BarlowTwins",
    "Branch",
    "Method",
    "MethodFactory",
    "MoCo",
    "MoCoV3",
    "SimCLR",
    "SimSiam",
    "SupCon",
    "Trained",
    "Trainer",
    "VICReg",
]
