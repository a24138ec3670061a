"""The folder of one run on one or several processes: whose it is, and whether a run may begin or go on in it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from . import checkpoint

T = TypeVar("T")


def shared(run: Path) -> Path:
    """Return the main process's run folder; folders that the others began a second later are removed."""
    found = [str(run)]
    broadcast_object_list(found)
    folder = Path(found[0])
    if folder != run and {path.name for path in run.iterdir()} <= {".hydra"}:
        shutil.rmtree(run)
        if {path.name for path in run.parent.iterdir()} == {"multirun.yaml"}:  # a sweep's folder of another second
            shutil.rmtree(run.parent)
    return folder


def in_turn(load: Callable[[], T]) -> T:
    """Load data first in the main process, then in the first of each node, then in the others.

    So what has to be downloaded is downloaded once, whether nodes share their disks or not.
    """
    state = PartialState()
    own = 0 if state.is_main_process else 1 if state.is_local_main_process else 2
    found: list[T] = []
    error: Exception | None = None
    for turn in range(3):
        if turn == own:
            try:
                found.append(load())
            except Exception as caught:  # the others still wait for their turn, and will find the same
                error = caught
        state.wait_for_everyone()
    if error is not None:
        raise error
    return found[0]


def name_of(node: Mapping[str, Any] | None) -> str:
    """Return the last part of a node's `_target_`, for people."""
    return str((node or {}).get("_target_", "none")).rpartition(".")[2]


def refuse_used(run: Path, product: str) -> None:
    """Raise ValueError where a folder already holds a run, so that none is overwritten.

    Args:
        run: the folder.
        product: the folder in it that a completed run leaves, such as `encoder`.
    """
    if checkpoint.position(run) is not None:
        raise ValueError(f"{run} already holds a run: resume={run} goes on with it, or give another hydra.run.dir")
    if (run / product).exists():
        raise ValueError(f"{run} already holds a run, which is completed: give another hydra.run.dir")


def refuse_finished(run: Path, product: str) -> None:
    """Raise ValueError where nothing is left to do, or there is no checkpoint to resume from. Arguments as above."""
    path = run / "result.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")).get("status") == "completed":
        raise ValueError(f"the run in {run} is completed: its {product} is {run / product}")
    if checkpoint.position(run) is None:
        raise ValueError(f"resume needs a run folder with a checkpoint, and {run} has none: start the run anew")
