"""Where to tap diffusers' denoisers, and an input that fits them, when nobody says.

U-Nets are tapped at `mid_block`, their narrowest map; transformers behind the block `depth // 4`, counted from 0, which
for 12 and 28 blocks are the fourth and the eighth, REPA's choice (Yu et al. 2024, https://arxiv.org/abs/2410.06940,
section 4 and their code). The timestep's embedding is `time` for methods that look at it.
"""

from typing import Any

import torch
from torch import nn

BLOCKS = ("transformer_blocks", "joint_transformer_blocks", "blocks", "layers")
TIME = (
    "time_embedding",
    "time_embed.timestep_embedder",
    "time_text_embed.timestep_embedder",
    "adaln_single.emb.timestep_embedder",
    "time_caption_embed.timestep_embedder",
    "time_step_proj",
    "time_embed.emb.timestep_embedder",
    "time_extra_emb.timestep_embedder",
    "condition_embedder.time_embedder",
    "transformer_blocks.0.norm1.emb.timestep_embedder",  # DiT, where every block has one of its own
)
JOINT = {
    "AuraFlowTransformer2DModel": 1,
    "ChromaTransformer2DModel": 1,
    "CogVideoXTransformer3DModel": 0,
    "FluxTransformer2DModel": 1,
    "QwenImageTransformer2DModel": 1,
    "SD3Transformer2DModel": 1,
}
"""Models whose blocks put out tokens of text and of the image, and which of the two are the image's."""


def is_diffusers(model: nn.Module) -> bool:
    """Return whether this is a model of diffusers, without importing it."""
    return any(
        base.__name__ == "ModelMixin" and base.__module__.startswith("diffusers.") for base in type(model).__mro__
    )


def default_place(model: nn.Module, tap: str) -> str | None:
    """Return the dotted name for a method's tap `features` or `time`; None where there is no default."""
    if not is_diffusers(model):
        return None
    names = dict(model.named_modules())
    if tap == "time":
        return next((name for name in TIME if name in names), None)
    if tap != "features":
        return None
    if "mid_block" in names:
        return "mid_block"
    blocks = next((name for name in BLOCKS if isinstance(getattr(model, name, None), nn.ModuleList)), None)
    if blocks is None or len(getattr(model, blocks)) == 0:
        return None
    image = next((JOINT[base.__name__] for base in type(model).__mro__ if base.__name__ in JOINT), None)
    name = f"{blocks}.{len(getattr(model, blocks)) // 4}"
    return name if image is None else f"{name}[{image}]"


def default_example(model: nn.Module) -> dict[str, Any] | None:
    """Return inputs for two examples of a denoiser of diffusers by its config; None for models not in `EXAMPLES`."""
    kind = next((base.__name__ for base in type(model).__mro__ if base.__name__ in EXAMPLES), None)
    if kind is None or not is_diffusers(model):
        return None
    config: Any = model.config
    size = config.get("sample_size") or 32
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    weights = next(model.parameters())
    sample = torch.zeros(2, config.in_channels, height, width, device=weights.device, dtype=weights.dtype)
    steps = torch.zeros(2, dtype=torch.long, device=weights.device)
    return EXAMPLES[kind](config, sample, steps)


def _unet(config: Any, sample: torch.Tensor, steps: torch.Tensor) -> dict[str, Any]:
    labels = {} if config.class_embed_type is None and config.num_class_embeds is None else {"class_labels": steps}
    return {"sample": sample, "timestep": steps, **labels}


def _conditional_unet(config: Any, sample: torch.Tensor, steps: torch.Tensor) -> dict[str, Any] | None:
    if config.class_embed_type is not None or config.addition_embed_type is not None:
        return None  # what they take is more than the config tells
    width = config.encoder_hid_dim or config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    labels = {} if config.num_class_embeds is None else {"class_labels": steps}
    return {"sample": sample, "timestep": steps, "encoder_hidden_states": sample.new_zeros(2, 1, width), **labels}


def _dit(config: Any, sample: torch.Tensor, steps: torch.Tensor) -> dict[str, Any]:
    return {"hidden_states": sample, "timestep": steps, "class_labels": steps}


def _pixart(config: Any, sample: torch.Tensor, steps: torch.Tensor) -> dict[str, Any] | None:
    if config.use_additional_conditions or (config.use_additional_conditions is None and config.sample_size == 128):
        return None
    return _sana(config, sample, steps)


def _sana(config: Any, sample: torch.Tensor, steps: torch.Tensor) -> dict[str, Any]:
    width = config.caption_channels or config.cross_attention_dim
    text = sample.new_zeros(2, 1, width)
    guidance = {"guidance": sample.new_ones(2)} if config.get("guidance_embeds") else {}
    return {"hidden_states": sample, "timestep": steps, "encoder_hidden_states": text, **guidance}


def _sd3(config: Any, sample: torch.Tensor, steps: torch.Tensor) -> dict[str, Any]:
    text = sample.new_zeros(2, 1, config.joint_attention_dim)
    whole = sample.new_zeros(2, config.pooled_projection_dim)
    return {"hidden_states": sample, "timestep": steps, "encoder_hidden_states": text, "pooled_projections": whole}


def _flux(config: Any, sample: torch.Tensor, steps: torch.Tensor) -> dict[str, Any]:
    places = sample.new_zeros(4, 3)
    return {
        "hidden_states": sample.new_zeros(2, 4, config.in_channels),
        "timestep": sample.new_zeros(2),
        "encoder_hidden_states": sample.new_zeros(2, 1, config.joint_attention_dim),
        "pooled_projections": sample.new_zeros(2, config.pooled_projection_dim),
        "img_ids": places,
        "txt_ids": places[:1],
        **({"guidance": sample.new_ones(2)} if config.guidance_embeds else {}),
    }


EXAMPLES = {
    "UNet2DModel": _unet,
    "UNet2DConditionModel": _conditional_unet,
    "DiTTransformer2DModel": _dit,
    "PixArtTransformer2DModel": _pixart,
    "SanaTransformer2DModel": _sana,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
}
