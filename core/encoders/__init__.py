"""Encoders and heads; each tells its output dimension as `out_features`."""

from .conv import ImpalaCNN, NatureCNN
from .heads import PredictionHead, ProjectionHead
from .mlp import MLP
from .momentum import MomentumEncoder
from .pretrained import PretrainedEncoder, describe, load_encoder
from .resnet import ResNet
from .small_cnn import SmallCNN
from .timm import Timm
from .vit import ViT

__all__ = [
    "MLP",
    "ImpalaCNN",
    "MomentumEncoder",
    "NatureCNN",
    "PredictionHead",
    "PretrainedEncoder",
    "ProjectionHead",
    "ResNet",
    "SmallCNN",
    "Timm",
    "ViT",
    "describe",
    "load_encoder",
]
