"""Sources: how observations become pairs of features. A source holds the host's encoder and its momentum copy."""

from .feature_maps import FeatureMaps
from .observation_pairs import ObservationPairs
from .sequences import Sequences
from .sham import ShamPairs
from .source import Source

__all__ = ["FeatureMaps", "ObservationPairs", "Sequences", "ShamPairs", "Source"]
