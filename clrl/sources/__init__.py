"""Sources: how observations become pairs of features. A source holds the host's encoder and its momentum copy."""

from .observation_pairs import ObservationPairs
from .sham import ShamPairs
from .source import Source

__all__ = ["ObservationPairs", "ShamPairs", "Source"]
