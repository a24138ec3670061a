"""Samplers: who counts as a negative and how much; the only place with memory."""

from .in_batch import InBatch
from .protocol import Candidates, Memory, Sampler
from .queue import Queue
from .weighting import Weighting

__all__ = ["Candidates", "InBatch", "Memory", "Queue", "Sampler", "Weighting"]
