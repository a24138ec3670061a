"""Objectives of time: what an agent's sequences offer beyond one pair of observations, a paper a file."""

from .cpc import CPC
from .inverse_dynamics import InverseDynamics
from .spr import SPR, LatentTransition, roll_out
from .st_dim import STDIM
from .taco import TACO

__all__ = ["CPC", "SPR", "STDIM", "TACO", "InverseDynamics", "LatentTransition", "roll_out"]
