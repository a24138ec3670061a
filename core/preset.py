"""Presets by name: one YAML each in `configs/objective/`, the same file that the command line composes.

A preset's loss, sampler and similarity can be exchanged for any of `configs/loss/`, `configs/sampler/` and
`configs/similarity/`, by the same names in Python and on the command line.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from inspect import isclass, isfunction
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .check import choice
from .kernels.entry import takes

PACKAGE = "contraux"
PARTS = (f"{PACKAGE}.core.", f"{PACKAGE}.clrl.sources.", f"{PACKAGE}.clgen.")
"""Where the parts of objectives, data and views are defined: what a config may name that nobody vouched for."""

EXCHANGED = ("loss", "sampler", "similarity")
"""Parts of an objective's `module` that a preset may take from another YAML, whose folder has the part's name."""


def presets() -> list[str]:
    """Return the names of all presets, sorted."""
    return options("objective")


def preset(name: str, *overrides: str) -> DictConfig:
    """Return the config of a preset, changed by overrides.

    Args:
        name: `temporal`, `curl`, `atc`, or another file of `configs/objective/`.
        overrides: `dotted.key=value` each, the value in YAML; a mapping replaces what stood there:
            `preset("curl", "source.k=3", "source.views={image: null, vector: null}")`. `loss=`, `sampler=` and
            `similarity=` take the name of a YAML, as on the command line, and put it in place of the preset's own part
            (`exchanged`) before anything else is changed: `preset("curl", "sampler=hardest", "module.sampler.k=16")`.

    Returns:
        A config with the nodes `source` and `module`; `build` makes objects of them.

    Raises:
        ValueError: the preset or a key does not exist (the sentence names the nearest), or an override is not
            `key=value`.
    """
    config = option("objective", choice("preset", name, presets()))
    named = split_overrides(overrides)
    parts = {key: option(key, choice(key, value, options(key))) for key, value in named if key in EXCHANGED}
    own = [f"{key}={value}" for key, value in named if key not in EXCHANGED]
    return overridden(exchanged(config, parts), f"preset {name!r}", own)


def split_overrides(overrides: Iterable[str]) -> list[tuple[str, str]]:
    """Return key and value of each `dotted.key=value`.

    Raises:
        ValueError: one reads otherwise.
    """
    for override in overrides:
        if "=" not in str(override):
            raise ValueError(f"an override must read dotted.key=value, got {override!r}")
    return [(key, value) for key, _, value in (str(override).partition("=") for override in overrides)]


def overridden(config: DictConfig, what: str, overrides: Iterable[str]) -> DictConfig:
    """Return the config after `dotted.key=value` overrides of keys that it has, the value in YAML.

    Args:
        config: changed in place.
        what: how the sentence on an unknown key calls it.
        overrides: a mapping as value replaces what stood there.

    Raises:
        ValueError: a key does not exist (the sentence names the nearest), or an override is not `key=value`.
    """
    for key, value in split_overrides(overrides):
        known = list(_keys(OmegaConf.to_container(config), ""))
        if key not in known:
            near = get_close_matches(key, known, n=3, cutoff=0.4) or known
            raise ValueError(f"unknown key {key!r} in {what}: did you mean {' or '.join(near)}?")
        # Not yaml.safe_load of the value: OmegaConf also reads 1e-3 as a number.
        try:
            read = OmegaConf.from_dotlist([f"value={value}"])["value"]
        except yaml.YAMLError as error:
            raise ValueError(f"the value of an override must be YAML, got {f'{key}={value}'!r}") from error
        OmegaConf.update(config, key, read, merge=False)
    return config


def exchanged(objective: DictConfig, parts: Mapping[str, Any], *, keep_temperature: bool = False) -> DictConfig:
    """Return a copy of an objective's config with other parts in the place of its own.

    A part is replaced wholly: nothing of the old one's settings is left. The objective's temperature was meant for its
    own loss; a new one that has no temperature takes none.

    Args:
        objective: with the nodes `source` and `module`.
        parts: `loss`, `sampler` or `similarity` -> config of the new part; None keeps the objective's own.
        keep_temperature: leave the temperature as it is, since somebody asked for it.

    Raises:
        ValueError: a part of another name, the objective has no place for one (it is none, or of another kind), or
            the loss does not exist.
    """
    config = deepcopy(objective)
    for name, part in parts.items():
        choice("part of an objective", name, EXCHANGED)
        if part is None:
            continue
        if config.module is None or name not in config.module:
            kind = "no objective" if config.module is None else config.module.get("_target_")
            raise ValueError(f"{name}={part['_target_']} needs an objective that has a {name}, got {kind}")
        config.module[name] = part
        if name == "loss" and "temperature" in config.module and not keep_temperature:
            if not takes(_found(part["_target_"]), "temperature"):
                config.module.temperature = None
    return config


def exchanged_on_line(objective: DictConfig, parts: Mapping[str, Any], words: Iterable[str], at: str) -> DictConfig:
    """Return `exchanged(objective, parts)` for a command line, whose words may not also set what is replaced.

    Args:
        objective: with the node `module`.
        parts: as for `exchanged`.
        words: overrides of the line; one that sets the temperature keeps it.
        at: the dotted key of `module` on the line.

    Raises:
        ValueError: as for `exchanged`, or a word sets a part that is replaced.
    """
    parts = {name: part for name, part in parts.items() if part is not None}
    if not parts:
        return objective
    plain = [word.lstrip("+~") for word in words]
    for name in parts:
        own = next((word for word in plain if re.match(rf"{re.escape(at)}\.{name}\b", word)), None)
        if own is not None:
            raise ValueError(f"{name}=NAME replaces {at}.{name} wholly: set {name}.KEY, got {own!r} too")
    asked_for = any(word.startswith(f"{at}.temperature=") for word in plain)
    return exchanged(objective, parts, keep_temperature=asked_for)


def options(group: str) -> list[str]:
    """Return the names of the YAML files of a group, sorted."""
    folder = files(PACKAGE) / "configs" / group
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def option(group: str, name: str) -> DictConfig:
    """Return one YAML of a group as a config."""
    config = OmegaConf.create((files(PACKAGE) / "configs" / group / f"{name}.yaml").read_text(encoding="utf-8"))
    if not isinstance(config, DictConfig):
        raise ValueError(f"{group} {name!r} must be a mapping, got {type(config).__name__}")
    return config


def build(config: Any, *, trusted: bool = False) -> Any:
    """Return the object that one node of a config describes by its `_target_` (Hydra's `instantiate`).

    A config is code: it can call whatever it names. Unless it is `trusted`, every `_target_` in it must be a module of
    contraux or something that its own YAMLs name; not, for example, a class's `load`, which reads pickles.

    Args:
        config: a mapping with `_target_`, for example `preset("curl").module`.
        trusted: allow any target, because you wrote the config.

    Raises:
        ValueError: no `_target_`, or one that is not allowed; also whatever the constructor finds wrong.
    """
    from hydra.errors import InstantiationException  # here: who imports the core alone does not wait for Hydra
    from hydra.utils import instantiate

    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    if not isinstance(plain, Mapping) or "_target_" not in plain:
        raise ValueError(f"a config to build must be a mapping with `_target_`, got {plain!r}")
    if not trusted:
        for target in targets(plain):
            if not _ours(target):
                raise ValueError(
                    f"a config is code, and this one would run {target!r}, which is nothing that contraux defines "
                    "for configs; pass trusted=True if you wrote it"
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
    found = _found(target)
    plain = isclass(found) or (isfunction(found) and "." not in found.__qualname__)
    return plain and found.__module__.startswith(PARTS) and made_for_configs(target, found)


def made_for_configs(target: str, found: Any) -> bool:
    """Return whether a config may name something of contraux: a module, or what one of its own YAMLs names.

    Other functions of ours may write files or build configs of their own, which nobody looked at.
    """
    return (isclass(found) and issubclass(found, nn.Module)) or target in _named_by_yamls()


@cache
def _named_by_yamls() -> frozenset[str]:
    texts = (path.read_text(encoding="utf-8") for path in _yamls(files(PACKAGE) / "configs"))
    return frozenset(name for text in texts for name in re.findall(rf"\b{PACKAGE}\.[\w.]*\w", text))


def _yamls(folder: Traversable) -> Iterator[Traversable]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _yamls(entry)
        elif entry.name.endswith(".yaml"):
            yield entry


def _found(target: str) -> Any:
    from hydra.utils import get_object

    try:
        return get_object(target)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{target!r} does not exist: {' '.join(str(error).split())}") from error


def targets(node: Any) -> Iterator[Any]:
    """Yield every `_target_` in nested plain values, in whatever depth."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from targets(child)


def _keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield f"{prefix}{key}"
            yield from _keys(child, f"{prefix}{key}.")
