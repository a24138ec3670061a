"""The file beside a model that carries its auxiliary: tensors and plain values in one safetensors file, no code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

SUFFIX = ".auxiliary.safetensors"
_FORMAT = "contraux-auxiliary-1"


def sidecar_path(model_path: str | os.PathLike[str]) -> Path:
    """The sidecar of a model saved at `model_path`: `ppo` or `ppo.zip` -> `ppo.auxiliary.safetensors`."""
    path = Path(model_path)
    if path.name.endswith(SUFFIX):
        return path
    return path.with_name(path.name.removesuffix(".zip") + SUFFIX)


def write(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write atomically: a reader finds the old file or the new one, never a part.

    Args:
        path: the file to write.
        tensors: by name; moved to the CPU.
        values: anything JSON holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    metadata = {"format": _FORMAT, "values": json.dumps(values)}
    try:
        save_file(_apart(tensors), beside, metadata)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own, which safetensors insists on."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if place in seen else plain
        seen.add(place)
    return apart


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write` wrote. Nothing in the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a sidecar of this format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no auxiliary was saved at {path}; write one with auxiliary.save(model_path)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"{path} must be of format {_FORMAT}, got {metadata.get('format')!r}")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["values"])
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file, got one that ends in: {error}") from error


def flatten_optimizer(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of an optimizer's `state_dict()`, by `index.name`."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, slots in state["state"].items()
        for name, value in slots.items()
    }


def unflatten_optimizer(tensors: Mapping[str, Tensor], like: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten_optimizer`, with the parameter groups of `like`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": like["param_groups"]}
