"""An encoder that was trained here, as a folder that `encoder.checkpoint` of `contraux rl` takes."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from ...core.encoders import NatureCNN as OurNatureCNN
from ...core.encoders import PretrainedEncoder, describe


def save_encoder(encoder: nn.Module, folder: Path, metadata: Mapping[str, Any]) -> bool:
    """Save a NatureCNN for images; other networks are not saved.

    Stable-Baselines3's network of that name and contraux's have the same layers in the same order.

    Returns:
        Whether it was saved.
    """
    if not isinstance(encoder, NatureCNN):
        return False
    shape = tuple(encoder._observation_space.shape or ())
    ours = OurNatureCNN(shape, out=encoder.features_dim)
    ours.load_state_dict(dict(zip(ours.state_dict(), encoder.state_dict().values(), strict=True)))
    channels = shape[0]
    described = describe(partial(OurNatureCNN, out=encoder.features_dim))
    PretrainedEncoder(ours, shape, [0.0] * channels, [1.0] * channels, described, metadata).save_pretrained(folder)
    return True
