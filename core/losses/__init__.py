"""Losses as pure functions.

Matrix losses compare every query with every key: `loss(similarity, positive, weights=None, temperature=...) -> scalar`.
"""

from .clip import clip
from .info_nce import info_nce
from .nt_xent import nt_xent

__all__ = ["clip", "info_nce", "nt_xent"]
