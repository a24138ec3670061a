"""Losses as pure functions `loss(similarity, positive, weights=None, temperature=0.1) -> scalar`."""

from .info_nce import info_nce
from .nt_xent import nt_xent

__all__ = ["info_nce", "nt_xent"]
