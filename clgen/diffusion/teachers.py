"""Frozen encoders of clean images that a denoiser's features are aligned with.

Shape legend: B images, C channels, D feature dimension, T tokens.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.check import shape, whole
from ...core.encoders import load_encoder
from ..names import read_place
from .watch import watched

LAYERS = "layer=NAME, a dotted name inside it, such as encoder.layers.8"


class PretrainedTeacher(nn.Module):
    """`(B, C, H, W)` clean images in [-1, 1] -> features of an encoder that `contraux pretrain` left behind.

    Images are resized to what the encoder was trained on and normalised by the encoder itself. One channel is repeated
    for an encoder of three.

    Args:
        where: run folder, encoder folder, or name on the Hugging Face Hub, see `contraux.core.encoders.load_encoder`.
        layer: dotted name of the module whose output is taken, a map or tokens; None: the encoder's own, `(B, D)`.
        skip: tokens to leave out at the front, 1 for a class token.

    Attributes:
        out_features: D.

    Raises:
        ValueError: nothing is there, the encoder reads no images, or it has no such layer.
    """

    def __init__(self, where: str | Path | None, layer: str | None = None, skip: int = 0) -> None:
        super().__init__()
        if where is None:
            raise ValueError(
                "an encoder to align with must be named: where=FOLDER of `contraux pretrain`, as in "
                "overrides=['module.encoder.where=runs/pretrain/digits']"
            )
        self.encoder = load_encoder(where)
        if not self.encoder.is_image:
            raise ValueError(f"an encoder to align with must read images, got one of {self.encoder.input_shape}")
        self.skip = whole("skip", skip)
        self.place = None if layer is None else read_place(layer)
        self.requires_grad_(False).eval()
        height, width = self.encoder.input_shape[1:]
        self.out_features = _dimension(self(torch.zeros(1, self.encoder.input_shape[0], height, width)))

    @torch.no_grad()
    def forward(self, clean: Tensor) -> Tensor:
        """Return `(B, D)`, or the layer's `(B, D, h, w)` map or `(B, T, D)` tokens.

        Raises:
            ValueError: images of other channels.
        """
        images = _fitted((clean + 1) / 2, self.encoder.input_shape)
        if self.place is None:
            return self.encoder(images)
        with watched(self.encoder, self.place) as outputs:
            self.encoder(images)
        if not outputs:
            raise ValueError(f"the layer {self.place} must be part of the encoder's forward pass, and is not")
        found = outputs[0]
        return found[:, self.skip :] if found.ndim == 3 else found


class TimmTeacher(nn.Module):
    """`(B, C, H, W)` clean images in [-1, 1] -> features of a model of timm, such as DINOv2 (the extra `timm`).

    Images are resized and normalised as the model's own configuration says.

    Args:
        name: `vit_base_patch14_dinov2.lvd142m` is the paper's; any of `timm.list_models()`.
        pretrained: download timm's weights.
        spatial: a map or tokens, without class and register tokens; False: `(B, D)` pooled by the model.
        size: side of the images it reads; None: its own. REPA gives DINOv2 224, so that 16 x 16 tokens come out.

    Attributes:
        out_features: D.

    Raises:
        ValueError: timm is not installed, or does not know the model.
    """

    mean: Tensor
    std: Tensor
    network: Any

    def __init__(self, name: str, pretrained: bool = True, spatial: bool = True, size: int | None = None) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ValueError("TimmTeacher needs timm, which is not installed: pip install 'contraux[timm]'") from error
        sized: dict[str, Any] = {} if size is None else {"img_size": whole("size", size, 1)}
        try:
            self.network = timm.create_model(name, pretrained=pretrained, num_classes=0, **sized)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"timm's {name!r} could not be made: {reason}") from error
        config = timm.data.resolve_model_data_config(self.network)
        channels, height, width = config["input_size"]
        self.input_shape = (channels, size or height, size or width)
        self.spatial = spatial
        self.out_features: int = self.network.num_features
        self.skip: int = getattr(self.network, "num_prefix_tokens", 0)
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(config[key]).view(-1, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, clean: Tensor) -> Tensor:
        """Return `(B, D, h, w)` maps or `(B, T, D)` tokens, or `(B, D)`.

        Raises:
            ValueError: images of other channels.
        """
        images = (_fitted((clean + 1) / 2, self.input_shape) - self.mean) / self.std
        if not self.spatial:
            return self.network(images)
        found = self.network.forward_features(images)
        if found.ndim == 3:
            return found[:, self.skip :]
        if found.ndim == 4 and found.shape[1] != self.out_features:  # some of timm's put channels last
            return found.movedim(-1, 1)
        return found


def _fitted(images: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """Return images of the channels and size that an encoder reads."""
    channels, height, width = input_shape
    if images.ndim != 4 or images.shape[1] not in (1, channels):
        raise ValueError(f"clean must be images (B, {channels}, H, W) for this encoder, got {shape(images)}")
    if images.shape[2:] != (height, width):
        images = F.interpolate(images, (height, width), mode="bicubic", antialias=True, align_corners=False)
        images = images.clamp(0, 1)
    return images.expand(-1, channels, -1, -1)


def _dimension(features: Tensor) -> int:
    if features.ndim not in (2, 3, 4):
        raise ValueError(f"a layer to align with must be features, tokens or a map, got {shape(features)}: {LAYERS}")
    return features.shape[2] if features.ndim == 3 else features.shape[1]
