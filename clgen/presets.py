"""Presets of generative methods by name: a YAML each, the same file that the command line composes."""

from omegaconf import DictConfig, OmegaConf

from ..core.check import choice
from ..core.preset import option, options, overridden

GROUPS = ("gan/method", "diffusion/objective")


def generative_presets() -> list[str]:
    """Return the names of all presets that `attach` knows, sorted."""
    return sorted(name for group in GROUPS for name in options(group) if name != "none")


def generative_preset(name: str, *overrides: str) -> DictConfig:
    """Return the config of a preset, changed by `dotted.key=value` overrides: `("contrad", "module.fake_weight=0.5")`.

    Args:
        name: a file of `configs/gan/method/` or `configs/diffusion/objective/`.
        overrides: of keys that the preset has.

    Returns:
        A config with the nodes `pool` and `module`.

    Raises:
        ValueError: the preset or a key does not exist (the sentence names the nearest).
    """
    choice("preset", name, generative_presets())
    group = next(group for group in GROUPS if name in options(group))
    config = OmegaConf.masked_copy(option(group, name), ["pool", "module"])  # the weight is the caller's
    return overridden(config, f"preset {name!r}", overrides)
