"""Losses, a family a file; pure functions, with a module beside them where something is learned or counted.

Matrix losses compare every query with every key:
`loss(similarity (N, M), positive, weights=None, temperature=..., ..., reduction="mean") -> scalar`, where `positive` is
an index, a mask or soft weights, and `weights` says how much each negative counts. What every one of them keeps is in
`info_nce`; without `reduction` the loss of a query depends on the other queries, and without `temperature`
(`triplet`) the similarity is taken as it is.

Paired losses have no negatives and act on rows: `loss(query (N, D), key (N, D), ...) -> scalar`.
"""

from .alignment_uniformity import alignment, alignment_uniformity, uniformity
from .barlow_twins import barlow_twins
from .clip import clip
from .d2d_ce import d2d_ce
from .debiased import debiased
from .decoupled import dclw, decoupled
from .graded_info_nce import graded_info_nce
from .hard_negative import HardNegative, hard_negative
from .info_nce import info_nce
from .max_margin import max_margin
from .mil_nce import mil_nce
from .negative_cosine import negative_cosine
from .nt_xent import nt_xent
from .pairwise_info_nce import pairwise_info_nce
from .sig_lip import SigLIP, sig_lip
from .sup_con import sup_con
from .triplet import triplet
from .vicreg import vicreg

__all__ = [
    "HardNegative",
    "SigLIP",
    "alignment",
    "alignment_uniformity",
    "barlow_twins",
    "clip",
    "d2d_ce",
    "dclw",
    "debiased",
    "decoupled",
    "graded_info_nce",
    "hard_negative",
    "info_nce",
    "max_margin",
    "mil_nce",
    "negative_cosine",
    "nt_xent",
    "pairwise_info_nce",
    "sig_lip",
    "sup_con",
    "triplet",
    "uniformity",
    "vicreg",
]
