"""A training run's checkpoint: one folder that is always whole, from which the run goes on to the bit.

Accelerate writes what it prepared: weights, momentum copies and queues as safetensors, the optimizer's state, the
gradient scaler and the random states of every process, which are read back with `weights_only`, so that nothing in them
runs. What a trainer registers beside is looked at in the same way before Accelerate, which would run it, reads it.
Order of the data, views and learning rate are functions of seed and step, so the step is all that is added, and the
run's settings, to which one that goes on is held.
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import load as load_file

from ..files import PREVIOUS, begin_folder, existing, finish_folder, write_json
from .settings import Settings, difference

FOLDER, POSITION = "checkpoint", "position.json"


def save(accelerator: Accelerator, run: Path, step: int, settings: Settings) -> None:
    """Write `run/checkpoint` in place of the one before; every process must call it."""
    folder = run / FOLDER
    if accelerator.is_main_process:
        unfinished = begin_folder(folder)
        position = {"step": step, "processes": accelerator.num_processes, "settings": settings}
        write_json(unfinished / POSITION, position)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(folder.with_name(f"{FOLDER}.unfinished")), safe_serialization=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        finish_folder(folder)
    accelerator.wait_for_everyone()


def remove(run: Path) -> None:
    """Delete a run's checkpoint, if there is one."""
    for name in (FOLDER, FOLDER + PREVIOUS):
        shutil.rmtree(run / name, ignore_errors=True)


def position(run: Path) -> int | None:
    """Return the step of the checkpoint in a run folder, or None where there is none."""
    folder = existing(run / FOLDER)
    return None if folder is None else int(_position(folder)["step"])


def check(run: Path, processes: int, settings: Settings) -> None:
    """Refuse to go on with a run that is not there, or that was another one.

    Raises:
        ValueError: there is no checkpoint, or it is of another number of processes or of other settings.
    """
    folder = existing(run / FOLDER)
    if folder is None:
        raise ValueError(f"resume needs a run folder with a checkpoint, and {run} has none: start the run anew")
    saved = _position(folder)
    if saved["processes"] != processes:
        raise ValueError(f"a run goes on with as many processes as it had, {saved['processes']}, got {processes}")
    changed = difference(saved["settings"], settings)
    if changed is not None:
        raise ValueError(f"{changed}: give what it was, or start anew in another folder than {run}")


def load(accelerator: Accelerator, run: Path) -> int:
    """Put everything that was prepared back to where it was saved, and return the step; every process must call it.

    Raises:
        ValueError: the checkpoint holds code, or the random states are not its own afterwards.
    """
    folder = existing(run / FOLDER)
    if folder is None:
        raise ValueError(f"there is no checkpoint in {run}")
    for path in folder.glob("custom_checkpoint_*.pkl"):  # which Accelerate would unpickle with whatever code they hold
        try:
            load_file(path, map_location="cpu")
        except Exception as error:
            raise ValueError(f"a checkpoint must hold nothing but arrays, and {path} does not: {error}") from error
    accelerator.load_state(str(folder))
    states = folder / f"random_states_{accelerator.process_index}.pkl"
    try:  # Accelerate goes on where it cannot restore them
        restored = _restored(load_file(states), accelerator.device)
    except Exception as error:
        raise ValueError(f"the random states of a checkpoint must be readable, and {states} is not: {error}") from error
    if not restored:
        raise ValueError(
            f"the random states in {states} could not be restored, so that the run cannot go on to the bit"
        )
    return int(_position(folder)["step"])


def _restored(saved: dict[str, Any], device: torch.device) -> bool:
    """Return whether the global generators are in their saved states; a GPU's only where it had been saved."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    kind_saved, keys_saved, *rest_saved = saved["numpy_random_seed"]
    same = (
        random.getstate() == saved["random_state"]
        and (kind, rest) == (kind_saved, rest_saved)
        and bool((keys == keys_saved).all())
        and torch.equal(torch.get_rng_state(), saved["torch_manual_seed"])
    )
    if device.type == "cuda" and "torch_cuda_manual_seed" in saved:
        index = torch.cuda.current_device() if device.index is None else device.index
        same = same and torch.equal(torch.cuda.get_rng_state(index), saved["torch_cuda_manual_seed"][index])
    return same


def _position(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / POSITION).read_text(encoding="utf-8"))
    return found
