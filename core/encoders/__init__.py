"""Encoders and heads; each tells its output dimension as `out_features`."""

from .conv import NatureCNN
from .heads import PredictionHead, ProjectionHead
from .mlp import MLP
from .momentum import MomentumEncoder

__all__ = ["MLP", "MomentumEncoder", "NatureCNN", "PredictionHead", "ProjectionHead"]
