"""A pretraining run's checkpoint: one folder that is always whole, from which the run goes on to the bit.

Accelerate writes what it prepared: weights, momentum copies and queues as safetensors, the optimizer's state, the
gradient scaler and the random states of every process; it reads them back with `weights_only`, so that nothing in them
runs. Order of the data, views and learning rate are functions of seed and step, so the step is all that is added.
"""

import json
from pathlib import Path

from accelerate import Accelerator

from ..files import begin_folder, existing, finish_folder, write_json

FOLDER, POSITION = "checkpoint", "position.json"


def save(accelerator: Accelerator, run: Path, step: int) -> None:
    """Write `run/checkpoint` in place of the one before; every process must call it."""
    folder = run / FOLDER
    if accelerator.is_main_process:
        unfinished = begin_folder(folder)
        write_json(unfinished / POSITION, {"step": step, "processes": accelerator.num_processes})
    accelerator.wait_for_everyone()
    accelerator.save_state(str(folder.with_name(f"{FOLDER}.unfinished")), safe_serialization=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        finish_folder(folder)
    accelerator.wait_for_everyone()


def position(run: Path) -> int | None:
    """Return the step of the checkpoint in a run folder, or None where there is none."""
    folder = existing(run / FOLDER)
    return None if folder is None else int(json.loads((folder / POSITION).read_text(encoding="utf-8"))["step"])


def load(accelerator: Accelerator, run: Path) -> int:
    """Put everything that was prepared back to where it was saved, and return the step; every process must call it.

    Raises:
        ValueError: there is no checkpoint, or it is of another number of processes.
    """
    folder = existing(run / FOLDER)
    if folder is None:
        raise ValueError(f"resume needs a run folder with a checkpoint, and {run} has none: start the run anew")
    saved = json.loads((folder / POSITION).read_text(encoding="utf-8"))
    if saved["processes"] != accelerator.num_processes:
        raise ValueError(
            f"a run goes on with as many processes as it had, {saved['processes']}, got {accelerator.num_processes}"
        )
    accelerator.load_state(str(folder))
    return int(saved["step"])
