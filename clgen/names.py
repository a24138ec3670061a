"""Modules by dotted name, and which part of what they put out: `mid_block`, `down_blocks.1[0]`, `trunk[features]`."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import Tensor, nn


class Place(NamedTuple):
    """Where a tap sits.

    Attributes:
        name: of the module, dotted; empty for the model itself.
        item: of its output: an index of a tuple, or a key or attribute; None takes the output as it is.
    """

    name: str
    item: int | str | None

    def __str__(self) -> str:
        return self.name + ("" if self.item is None else f"[{self.item}]")

    @property
    def told(self) -> str:
        """How a sentence calls it."""
        return str(self) if self.name else f"the model itself{self}"


def read_place(text: Any) -> Place:
    """Return the place that `name` or `name[item]` means.

    Raises:
        ValueError: it reads neither way.
    """
    found = re.fullmatch(r"([\w.\-]*)(?:\[['\"]?([\w\-]+)['\"]?\])?", text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            f"a tap must be a dotted module name, or one with an item as in 'down_blocks.1[0]', got {text!r}"
        )
    name, item = found.groups()
    return Place(name, int(item) if item is not None and re.fullmatch(r"-?\d+", item) else item)


WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Names under which torch's wrappers of a part of a model keep it: of torch.compile, of checkpointing, of FSDP."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the user's own module, out of the wrappers of `torch.compile` and data parallelism.

    Raises:
        ValueError: DataParallel over several devices, whose copies of the model would all record at once.
    """
    while True:
        inner = next((getattr(model, name) for name in WRAPPERS if hasattr(model, name)), None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            devices = model.device_ids or []
            if isinstance(model, nn.DataParallel) and len(devices) > 1:
                raise ValueError(
                    f"a model to attach to must not be in DataParallel over several devices, got {len(devices)}: "
                    "use DistributedDataParallel"
                )
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def module_at(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule of a dotted name; wrappers of torch within the model need not be named.

    Raises:
        ValueError: there is none; the sentence names the nearest.
    """
    modules: dict[str, nn.Module] = {}
    for full, module in model.named_modules(remove_duplicate=False):
        modules.setdefault(".".join(word for word in full.split(".") if word not in WRAPPERS), module)
        modules.setdefault(full, module)
    if name in modules:
        return modules[name]
    known = [known for known in modules if known]
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    top = ", ".join(child for child, _ in model.named_children()) or "none"
    raise ValueError(f"{type(model).__name__} has no module {name!r}: {hint}Its children are: {top}")


def names_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Return every name under which a model holds a module."""
    return [name for name, one in model.named_modules(remove_duplicate=False) if one is module]


def part(output: Any, place: Place) -> Tensor:
    """Return the tensor of a module's output that a place means.

    Raises:
        ValueError: the output is no tensor, or has no such item.
    """
    found = output
    if place.item is not None:
        try:
            if isinstance(place.item, str) and not isinstance(output, Mapping):
                found = getattr(output, place.item)
            else:
                found = output[place.item]
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError(
                f"{place.name or 'the model itself'} puts out {_described(output)}, which has no item {place.item!r}"
            ) from None
    if isinstance(found, Tensor):
        return found
    raise ValueError(
        f"a tap must be at a tensor, and {place.told} puts out {_described(found)}: choose {_choices(place, found)}"
    )


def _choices(place: Place, output: Any) -> str:
    if isinstance(output, Mapping) and place.item is None:
        return " or ".join(f"{place.name}[{key}]" for key in output)
    if isinstance(output, tuple | list) and place.item is None:
        return f"{place.name}[0] to {place.name}[{len(output) - 1}]"
    return "another module"


def _described(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
