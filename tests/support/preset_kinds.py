"""Which presets are plain `Contrastive` objectives, and sizes for those that ask for some."""

import inspect

from contraux.core.preset import build, preset, presets

CONTRASTIVE = [name for name in presets() if preset(name).module["_target_"].endswith(".Contrastive")]
"""Presets whose objective compares queries and keys as they come, with parts to exchange."""

SIZES = {"action_dim": 3, "action_choices": (3,), "local_dim": 6, "steps": 3}
"""What sources tell the objectives that want to know."""


def objective_of(config, dim):
    """The objective of a preset's config for features of dimension `dim`, and sizes as above where it needs them."""
    factory = build(config.module)
    needed = [
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    ]
    return factory(dim, **{name: SIZES[name] for name in needed})
