"""How every training starts: its folder, and Accelerate."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import nn
from torch.optim import Optimizer

from . import checkpoint
from .settings import Settings
from .state import on_cpu, shared_state
from .trackers import check_trackers

PRECISIONS = ("no", "fp16", "bf16")


class Training(Protocol):
    """What `started` and `Loop` ask of a trainer; each class says what it means there."""

    folder: Path
    batch_size: int
    seed: int
    device: str
    precision: str
    trackers: Sequence[str]
    checkpoint_every: int | None
    log_every: int
    progress_bar: bool

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training; of a GAN the generator's."""


def started(trainer: Training, settings: Settings, *, resume: bool, rows: int = 1) -> Accelerator:
    """Return the accelerator of a trainer that may begin, or go on, in its folder.

    Python's, NumPy's and torch's global generators are seeded.

    Args:
        trainer: whose `folder` becomes a path, and is made.
        settings: which the checkpoint must be of.
        resume: go on from the checkpoint.
        rows: that each process must have at least.

    Raises:
        ValueError: a tracker is not installed, there is a checkpoint and no `resume`, or one that does not fit, or the
            batch does not divide among the processes.
    """
    check_trackers(trainer.trackers)
    trainer.folder = folder = Path(trainer.folder)
    begun = checkpoint.position(folder)
    if begun is not None and not resume:
        raise ValueError(
            f"folder must be one without a checkpoint, got {str(folder)!r} with one of step {begun}: "
            "fit(resume=True) goes on from it, and another folder begins anew"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shared_state(trainer.device, trainer.precision)
    accelerator = Accelerator(
        mixed_precision=trainer.precision,
        cpu=on_cpu(trainer.device),
        log_with=list(trainer.trackers) or None,
        project_dir=folder if trainer.trackers else None,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    processes = accelerator.num_processes
    if trainer.batch_size % processes or trainer.batch_size // processes < rows:
        each = "" if rows == 1 else f", {rows} rows each at least"
        raise ValueError(f"batch_size must divide among the {processes} processes{each}, got {trainer.batch_size}")
    if resume:
        checkpoint.check(folder, processes, settings)
    set_seed(trainer.seed, device_specific=True)
    return accelerator


def prepared(accelerator: Accelerator, model: nn.Module, optimizer: Optimizer) -> tuple[Any, Any]:
    """Return both as Accelerate runs them, without a warning of torch on an argument that Accelerate still names so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        found: tuple[Any, Any] = accelerator.prepare(model, optimizer)
    return found
