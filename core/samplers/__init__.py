"""Samplers: who counts as a negative and how much; the only place with memory."""

from .adaptive import Arm
from .bandit import Bandit
from .bayesian import Bayesian
from .cancel import CancelByGuide, CancelByLabel
from .cancel_top_k import CancelTopK
from .chain import Chain
from .debiased import Debiased
from .hardest import Hardest
from .hardness import Hardness
from .in_batch import InBatch
from .margin import Margin, SemiHard, Threshold
from .protocol import Candidates, Memory, Sampler
from .queue import Queue
from .random import Random
from .weighting import Weighting

__all__ = [
    "Arm",
    "Bandit",
    "Bayesian",
    "CancelByGuide",
    "CancelByLabel",
    "CancelTopK",
    "Candidates",
    "Chain",
    "Debiased",
    "Hardest",
    "Hardness",
    "InBatch",
    "Margin",
    "Memory",
    "Queue",
    "Random",
    "Sampler",
    "SemiHard",
    "Threshold",
    "Weighting",
]
