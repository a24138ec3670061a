"""What a run was told, as plain values by dotted name, so that one that goes on can be held to it."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

Settings = dict[str, bool | int | float | str | None]


def described(name: str, value: Any) -> Settings:
    """Return a value and what it is made of: `optimizer` is `AdamW`, `optimizer.lr` is 0.001.

    A number, string or None is itself; a function or class is its name; a partial also has its arguments, an object its
    public attributes, a module its parts; torch's own modules are the line they print. Tensors are left out: they are
    what a checkpoint keeps.
    """
    return dict(_described(name, value, frozenset()))


def difference(saved: Settings, given: Settings) -> str | None:
    """Return a sentence on the first setting that differs, or None."""
    for name in dict.fromkeys((*saved, *given)):
        one, other = saved.get(name, "absent"), given.get(name, "absent")
        if one != other:
            return f"a run goes on with the settings it had, and {name} was {one!r}, got {other!r}"
    return None


def _described(name: str, value: Any, above: frozenset[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        yield name, value
    elif isinstance(value, Tensor | np.ndarray) or id(value) in above:
        return
    elif isinstance(value, partial):
        yield from _described(name, value.func, above)
        yield from _parts(name, {**dict(enumerate(value.args)), **value.keywords}, above | {id(value)})
    elif isinstance(value, Mapping):
        yield from _parts(name, value, above | {id(value)})
    elif isinstance(value, list | tuple):
        yield from _parts(name, dict(enumerate(value)), above | {id(value)})
    elif isinstance(value, nn.Module) and type(value).__module__.startswith("torch."):
        yield name, f"{type(value).__name__}({value.extra_repr()})"
        yield from _parts(name, dict(value.named_children()), above | {id(value)})
    else:
        yield name, getattr(value, "__qualname__", type(value).__qualname__)
        if not isinstance(value, type) and not hasattr(value, "__code__"):
            own = {key: part for key, part in getattr(value, "__dict__", {}).items() if not key.startswith("_")}
            own.pop("training", None)
            children = dict(value.named_children()) if isinstance(value, nn.Module) else {}
            yield from _parts(name, {**own, **children}, above | {id(value)})


def _parts(name: str, parts: Mapping[Any, Any], above: frozenset[int]) -> Iterator[tuple[str, Any]]:
    for key, part in parts.items():
        yield from _described(f"{name}.{key}", part, above)
