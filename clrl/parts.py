"""Source and objective of a preset, built for one encoder, for the callback and for who trains an encoder alone."""

import inspect
from typing import Any

from torch import nn

from ..core.preset import build
from .observations import Observer


def build_parts(config: Any, encoder: nn.Module, observer: Observer, *, trusted: bool = False) -> tuple[Any, Any]:
    """Return source and objective that a config's nodes `source` and `module` describe.

    Args:
        config: a preset, or another config with these two nodes.
        encoder: with `features_dim`, as Stable-Baselines3's features extractors have.
        observer: the observations that the encoder takes.
        trusted: whether the config may name code outside contraux.

    Raises:
        ValueError: the source does not provide what the objective looks at, or the objective looks at nothing of what
            the source provides; also what their constructors find wrong.
    """
    source = build(config.source, trusted=trusted)(encoder, observer)
    factory = build(config.module, trusted=trusted)
    taken = {
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    }
    if not taken <= set(source.sizes) or (source.sizes and not taken):
        raise ValueError(
            f"source and module of an objective must fit: {type(source).__name__} provides the sizes "
            f"{sorted(source.sizes)}, got a module {config.module['_target_'].rsplit('.', 1)[-1]} that needs "
            f"{sorted(taken)}"
        )
    return source, factory(encoder.features_dim, **{name: source.sizes[name] for name in taken})
