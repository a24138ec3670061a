"""Denoisers of diffusers, small by default, for images of a shape. Shape legend: C channels, S x S pixels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.check import choice, number, whole
from ..diffusion.labels import NULL, keep_all_labels, takes_labels

CHANNELS = ((8, (16, 32)), (16, (32, 64)), (32, (64, 128, 128)), (64, (64, 128, 256, 256)))
"""Up to this many pixels, these channels of a U-Net where none are given."""

KINDS = ("UNet2DModel", "DiTTransformer2DModel")


def unet(
    shape: Sequence[int],
    conditional: bool,
    *,
    channels: Sequence[int] | None = None,
    layers: int = 2,
    attention: int = 1,
    groups: int = 8,
    head_dim: int = 8,
    dropout: float = 0.0,
) -> nn.Module:
    """Return a `UNet2DModel` (Ho et al. 2020, https://arxiv.org/abs/2006.11239, appendix B).

    Args:
        shape: `(C, S, S)` of an image; S must be a multiple of 2^(levels - 1).
        conditional: whether it takes class labels.
        channels: of each level, the largest first, multiples of `groups` and more than it; None: by the size.
        layers: residual blocks of each level.
        attention: how many of the smallest levels have it; the middle has it in any case.
        groups: of the group norms.
        head_dim: of attention.
        dropout: in residual blocks, in [0, 1).

    Raises:
        ValueError: a value breaks its rule.
    """
    size = _square(shape)
    if channels is None:
        channels = next((found for up_to, found in CHANNELS if size <= up_to), (64, 128, 256, 256, 512))
    levels = len(channels)
    for name, value in (("layers", layers), ("groups", groups), ("head_dim", head_dim)):
        whole(name, value, 1)
    whole("attention", attention)
    number("dropout", dropout, 0, 1, below=True)
    if not levels or any(whole("channels", width, 1) % groups or width == groups for width in channels):
        raise ValueError(
            f"channels must be multiples of groups, {groups}, and more, since a group of one channel loses what the "
            f"timestep adds to it, got {list(channels)}"
        )
    if size % 2 ** (levels - 1):
        raise ValueError(
            f"the size of images must be a multiple of {2 ** (levels - 1)} for {levels} levels, got {size}: give "
            "another size, or fewer model.channels"
        )
    from diffusers import UNet2DModel

    attends = [level >= levels - attention for level in range(levels)]
    found: Any = UNet2DModel(
        sample_size=size,
        in_channels=shape[0],
        out_channels=shape[0],
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        down_block_types=tuple("AttnDownBlock2D" if yes else "DownBlock2D" for yes in attends),
        up_block_types=tuple("AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)),
        norm_num_groups=groups,
        attention_head_dim=head_dim,
        dropout=dropout,
        num_class_embeds=NULL + 1 if conditional else None,
    )
    module: nn.Module = found
    return module


def dit(
    shape: Sequence[int],
    conditional: bool,
    *,
    layers: int = 6,
    heads: int = 4,
    head_dim: int = 16,
    patch: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """Return a `DiTTransformer2DModel` (Peebles and Xie 2023, https://arxiv.org/abs/2212.09748), on pixels.

    It always takes labels; an unconditional one is given the null class alone. Its own dropping of labels is off, and
    its weights start as the paper's do, which diffusers leaves to who trains: see `adaln_zero`.

    Args:
        shape: `(C, S, S)` of an image; S must be a multiple of `patch`.
        conditional: of no consequence here.
        layers: blocks.
        heads: of attention.
        head_dim: of each; their product is the width.
        patch: pixels along the side of a token.
        dropout: in [0, 1).

    Raises:
        ValueError: a value breaks its rule.
    """
    size = _square(shape)
    for name, value in (("layers", layers), ("heads", heads), ("head_dim", head_dim), ("patch", patch)):
        whole(name, value, 1)
    number("dropout", dropout, 0, 1, below=True)
    if size % patch:
        raise ValueError(f"the size of images must be a multiple of patch, {patch}, got {size}")
    from diffusers import DiTTransformer2DModel

    found: Any = DiTTransformer2DModel(
        sample_size=size,
        in_channels=shape[0],
        out_channels=shape[0],  # given, since DiTPipeline reads it
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        patch_size=patch,
        dropout=dropout,
        num_embeds_ada_norm=NULL,
    )
    adaln_zero(found)
    keep_all_labels(found)
    module: nn.Module = found
    return module


@torch.no_grad()
def adaln_zero(model: nn.Module) -> None:
    """Give a DiT the paper's first weights (its section 3.2, adaLN-Zero): every block begins as the identity.

    What scales and shifts a block's rows and gates what it adds is 0, as is the last layer; embeddings of classes and
    timesteps are normal with deviation 0.02; every other layer is Glorot-uniform with bias 0.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            if name.endswith("norm1.linear") or name.startswith("proj_out"):
                nn.init.zeros_(module.weight)
            elif "timestep_embedder" in name:
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def folder(shape: Sequence[int], conditional: bool, *, path: str) -> nn.Module:
    """Return the denoiser of a folder that diffusers wrote, to be trained further.

    Args:
        shape: `(C, S, S)` of an image, which must be the model's.
        conditional: whether it takes class labels, which a U-Net must then have been made for.
        path: of a `UNet2DModel`, of a `DiTTransformer2DModel`, or of a pipeline that has one: a finished run too.

    Raises:
        ValueError: no such folder, or a model that does not fit; the sentence says which.
    """
    import diffusers

    size = _square(shape)
    place = _model_folder(Path(path))
    kind = str(_read(place / "config.json").get("_class_name"))
    choice("kind of model", kind, KINDS)
    found: nn.Module = getattr(diffusers, kind).from_pretrained(place, local_files_only=True)
    config: Any = found.config
    own = config.sample_size if isinstance(config.sample_size, int) else tuple(config.sample_size or (size,))
    if config.in_channels != shape[0] or own not in (size, (size,), (size, size)):
        raise ValueError(
            f"the images must be of the model's {config.in_channels} channels and {config.sample_size} pixels, got "
            f"{shape[0]} and {size}: give size=, or other data"
        )
    if kind == "UNet2DModel":
        rows = config.num_class_embeds
        if conditional and rows != NULL + 1:
            raise ValueError(f"conditional=true needs a U-Net with num_class_embeds={NULL + 1}, got {rows}")
        if not conditional and takes_labels(found):
            raise ValueError("a U-Net with a class embedding needs conditional=true, got false")
    elif config.num_embeds_ada_norm != NULL:
        raise ValueError(f"a DiT must have num_embeds_ada_norm={NULL}, got {config.num_embeds_ada_norm}")
    keep_all_labels(found)
    return found


def _square(shape: Sequence[int]) -> int:
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"images must be square, (C, S, S), got {tuple(shape)}: give size=")
    return shape[1]


def _model_folder(path: Path) -> Path:
    for place in (path / "pipeline", path):
        index = _read(place / "model_index.json")
        for name in ("unet", "transformer"):
            if name in index:
                return place / name
    if not (path / "config.json").is_file():
        raise ValueError(
            f"model.path must be a folder of diffusers, with a config.json or model_index.json, got {path}"
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
