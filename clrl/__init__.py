"""Contrastive auxiliaries for Stable-Baselines3: one callback, any algorithm.

from stable_baselines3 import PPO
from contraux.clrl import ContrastiveAuxiliary

PPO("CnnPolicy", env).learn(100_000, callback=ContrastiveAuxiliary("curl", weight=1.0))
"""

from .augmentation import ObservationAugmentation
from .callback import ContrastiveAuxiliary
from .pretrained import PretrainedExtractor, pretrained_encoder
from .stores import FrameReplayBuffer
from .vector import VectorEncoder, vector_encoder

__all__ = [
    "ContrastiveAuxiliary",
    "FrameReplayBuffer",
    "ObservationAugmentation",
    "PretrainedExtractor",
    "VectorEncoder",
    "pretrained_encoder",
    "vector_encoder",
]
