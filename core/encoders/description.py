"""An encoder in words: its class and arguments as plain values, from which it can be built again."""

from collections.abc import Iterator, Mapping
from functools import partial
from inspect import isclass
from typing import Any, cast

from omegaconf import OmegaConf
from torch import nn

from ..preset import build, targets

PACKAGE = __package__ or ""
"""Where encoders live that a description may name."""

LIBRARY_WEIGHTS: Mapping[str, Any] = {"weights": None, "pretrained": False}
"""Arguments of our encoders that download weights, and their value for none."""


def describe(factory: Any) -> dict[str, Any] | None:
    """Return the description of the encoders that a factory makes: `_target_` and arguments, without the input shape.

    Weights of a library are left out, since saved weights take their place.

    Args:
        factory: a Hydra partial or `functools.partial` of a class with keyword arguments, such a class, or a config
            with `_target_`.

    Returns:
        Plain values; None for a factory that has no name to be found by (a lambda).

    Raises:
        ValueError: the partial has positional arguments, which would be mistaken for the input shape.
    """
    if isinstance(factory, Mapping) or OmegaConf.is_config(factory):
        plain = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(factory), resolve=True))
        return _without_weights({key: value for key, value in plain.items() if key not in ("_partial_", "input_shape")})
    function, arguments = factory, {}
    if isinstance(factory, partial):
        function, arguments = factory.func, factory.keywords
        if factory.args:
            raise ValueError(f"an encoder's factory must have keyword arguments only, got {factory.args!r}")
    name = getattr(function, "__qualname__", "<")
    if "<" in name:
        return None
    ours = getattr(function, "__module__", "").startswith(f"{PACKAGE}.")
    where = PACKAGE if ours else function.__module__  # ours by their public name, which outlives the file's
    return _without_weights({"_target_": f"{where}.{name}", **_plain(arguments)})


def is_buildable(description: Any) -> bool:
    """Return whether :func:`build_encoder` would run all that a description names."""
    return (
        isinstance(description, Mapping) and "_target_" in description and all(map(_is_encoder, targets(description)))
    )


def build_encoder(description: Any, input_shape: tuple[int, ...], source: str) -> nn.Module:
    """Build the encoder of a description that came out of a file, if it is one of ours, without library weights.

    Args:
        description: what :func:`describe` returned.
        input_shape: of one example.
        source: the file, for sentences.

    Raises:
        ValueError: it would run anything but an encoder of contraux; also what the encoder's constructor finds wrong.
    """
    from hydra.errors import InstantiationException  # here: who imports the core alone does not wait for Hydra

    if not isinstance(description, Mapping) or "_target_" not in description:
        raise ValueError(
            f"{source} does not say which class the encoder is: build it yourself and pass it, encoder=module"
        )
    for target in targets(description):
        if not _is_encoder(target):
            raise ValueError(
                f"{source} would run {target!r}, which is no encoder of contraux: if you trust it, build that encoder "
                "yourself and pass it, encoder=module"
            )
    words = [key for key in description if str(key).startswith("_") and key != "_target_"]
    if words or any("${" in value for value in _strings(description)):
        raise ValueError(f"{source} must hold plain arguments of the encoder, got {dict(description)!r}")
    try:
        return build({**_without_weights(dict(description)), "input_shape": list(input_shape)}, trusted=False)
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(f"the encoder that {source} describes cannot be built: {reason}") from error


def _is_encoder(target: Any) -> bool:
    """Return whether it names a module that this package defines."""
    if not isinstance(target, str) or not target.startswith(f"{PACKAGE}."):
        return False
    from hydra.utils import get_object

    try:
        found = get_object(target)
    except (ImportError, ValueError):
        return False
    return isclass(found) and issubclass(found, nn.Module) and found.__module__.startswith(f"{PACKAGE}.")


def _without_weights(description: dict[str, Any]) -> dict[str, Any]:
    if not str(description.get("_target_")).startswith(f"{PACKAGE}."):
        return description
    return {**description, **{key: value for key, value in LIBRARY_WEIGHTS.items() if key in description}}


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in arguments.items()
    }


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    if isinstance(node, Mapping):
        node = [*node.keys(), *node.values()]
    if isinstance(node, list | tuple):
        for child in node:
            yield from _strings(child)
