"""What a run leaves: generator and discriminator as weights and a description, in files without code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...core.files import existing, whole_folder, write_json
from ...core.preset import build
from .players import Backbone

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_part(module: nn.Module, part: str, folder: Path, description: Mapping[str, Any]) -> None:
    """Write `folder/model.safetensors` and `folder/config.json`, whole or not at all.

    Args:
        module: a generator or discriminator.
        part: which of the two.
        folder: takes the place of one that is there.
        description: `backbone` with its `_target_` and arguments, `size`, `channels`, `classes` (their names), and what
            else is worth knowing.
    """
    with whole_folder(folder) as unfinished:
        save_file(
            {name: x.detach().cpu().contiguous() for name, x in module.state_dict().items()}, unfinished / WEIGHTS
        )
        write_json(unfinished / CONFIG, {"part": part, **description})


def load_generator(folder: str | Path) -> nn.Module:
    """Return the generator that a run left, in evaluation mode on the CPU; loading runs no code but contraux's own.

    Its attributes `latent`, `image` and `classes` say what it takes and makes; `names` are the names of its classes,
    and `average` is whether it is a moving average, None where the file does not tell.

    Args:
        folder: a run folder of `contraux gan`, whose averaged generator is taken, or a folder with a `config.json`.

    Raises:
        ValueError: there is none, or files that do not fit.
    """
    return _load(Path(folder), "generator")


def load_discriminator(folder: str | Path) -> nn.Module:
    """Return the discriminator that a run left, as `load_generator` does the generator.

    Raises:
        ValueError: there is none, or files that do not fit.
    """
    return _load(Path(folder), "discriminator")


def _load(folder: Path, part: str) -> nn.Module:
    found = next(
        (one for one in (folder, existing(folder / part)) if one is not None and (one / CONFIG).is_file()), None
    )
    if found is None:
        raise ValueError(
            f"{folder} must be a run of `contraux gan` that has ended or been interrupted, or a folder with a "
            f"{CONFIG}, and is neither"
        )
    try:
        config: dict[str, Any] = json.loads((found / CONFIG).read_text(encoding="utf-8"))
        weights = load_file(found / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{found} must hold a readable {CONFIG} and {WEIGHTS}: {error}") from error
    _check_description(config, found / CONFIG)
    if config["part"] != part:
        raise ValueError(f"{found} must hold a {part}, and holds {config['part']!r}")
    try:
        backbone = build({**config["backbone"], "_partial_": False, **_arguments(config)})
    except InstantiationException:  # it takes other arguments
        backbone = None
    if not isinstance(backbone, Backbone):
        target = config["backbone"].get("_target_")
        raise ValueError(f"the backbone in {found / CONFIG} must describe two players, got {target!r}")
    module = getattr(backbone, part)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {found} do not fit its {CONFIG}: {' '.join(str(error).split())}") from error
    module.names, module.average = tuple(config["classes"]), config.get("average")
    loaded: nn.Module = module.eval()
    return loaded


def _check_description(config: Any, path: Path) -> None:
    kinds = {"part": str, "backbone": dict, "size": int, "channels": int, "classes": list}
    wrong = [name for name, kind in kinds.items() if not isinstance(config, dict) or type(config.get(name)) is not kind]
    if wrong:
        raise ValueError(f"{path} must be what a run of `contraux gan` writes, and has no fitting {', '.join(wrong)}")


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"size": config["size"], "channels": config["channels"], "classes": len(config["classes"])}
