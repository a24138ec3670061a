"""Presets by name: one YAML each in `configs/objective/`, the same file that the command line composes."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.resources import files
from inspect import isclass, isfunction
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from .check import choice

PACKAGE = "contraux"
PARTS = (f"{PACKAGE}.core.", f"{PACKAGE}.clrl.sources.")
"""Where the parts of an objective are defined: what a config may name that nobody vouched for."""


def presets() -> list[str]:
    """Return the names of all presets, sorted."""
    folder = files(PACKAGE) / "configs" / "objective"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset(name: str, *overrides: str) -> DictConfig:
    """Return the config of a preset, changed by overrides.

    Args:
        name: `temporal`, `curl`, `atc`, or another file of `configs/objective/`.
        overrides: `dotted.key=value` each, the value in YAML; a mapping replaces what stood there:
            `preset("curl", "source.k=3", "source.views={image: null, vector: null}")`.

    Returns:
        A config with the nodes `source` and `module`; `build` makes objects of them.

    Raises:
        ValueError: the preset or a key does not exist (the sentence names the nearest), or an override is not
            `key=value`.
    """
    path = files(PACKAGE) / "configs" / "objective" / f"{choice('preset', name, presets())}.yaml"
    config = OmegaConf.create(path.read_text(encoding="utf-8"))
    if not isinstance(config, DictConfig):
        raise ValueError(f"preset {name!r} must be a mapping, got {type(config).__name__}")
    for override in overrides:
        key, equals, value = str(override).partition("=")
        if not equals:
            raise ValueError(f"an override must read dotted.key=value, got {override!r}")
        known = list(_keys(OmegaConf.to_container(config), ""))
        if key not in known:
            near = get_close_matches(key, known, n=3, cutoff=0.4) or known
            raise ValueError(f"unknown key {key!r} in preset {name!r}: did you mean {' or '.join(near)}?")
        # Not yaml.safe_load of the value: OmegaConf also reads 1e-3 as a number.
        try:
            read = OmegaConf.from_dotlist([f"value={value}"])["value"]
        except yaml.YAMLError as error:
            raise ValueError(f"the value of an override must be YAML, got {override!r}") from error
        OmegaConf.update(config, key, read, merge=False)
    return config


def build(config: Any, *, trusted: bool = False) -> Any:
    """Return the object that one node of a config describes by its `_target_` (Hydra's `instantiate`).

    A config is code: it can call whatever it names. Unless it is `trusted`, every `_target_` in it must be a class or
    function that contraux defines as a part of objectives; not, for example, a class's `load`, which reads pickles.

    Args:
        config: a mapping with `_target_`, for example `preset("curl").module`.
        trusted: allow any target, because you wrote the config.

    Raises:
        ValueError: no `_target_`, or one that is not allowed; also whatever the constructor finds wrong.
    """
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    if not isinstance(plain, Mapping) or "_target_" not in plain:
        raise ValueError(f"a config to build must be a mapping with `_target_`, got {plain!r}")
    if not trusted:
        for target in _targets(plain):
            if not _ours(target):
                raise ValueError(
                    f"a config is code, and this one would run {target!r}, which is no part of an objective; pass "
                    "trusted=True if you wrote it"
                )
    try:
        return instantiate(plain, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from error  # the constructor's own sentence
        raise


def _ours(target: Any) -> bool:
    """Return whether the dotted name is one of our parts, and not merely reachable through an import or a class."""
    if not isinstance(target, str) or not target.startswith(PARTS):
        return False
    try:
        found = get_object(target)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{target!r} does not exist: {error}") from error
    module = getattr(found, "__module__", None) or ""
    plain = isclass(found) or (isfunction(found) and "." not in found.__qualname__)
    return plain and module.startswith(PARTS) and module != __name__  # this module can run what it was not shown


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from _targets(child)


def _keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield f"{prefix}{key}"
            yield from _keys(child, f"{prefix}{key}.")
