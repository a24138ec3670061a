"""Samplers: who counts as a negative and how much; the only place with memory."""

from .in_batch import InBatch
from .protocol import Sampler
from .queue import Queue

__all__ = ["InBatch", "Queue", "Sampler"]
