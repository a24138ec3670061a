"""What a run writes while it trains: one row for each step, read from the device a block at a time."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from ..files import keep_rows
from ..pairs import Outcome


class Record:
    """Keeps loss and metrics of each step on the device until `write`, which is the only place that waits for it.

    `progress.csv` has the columns step, learning_rate, loss and the metrics; values have all their digits, so that two
    runs can be compared to the bit.

    Args:
        accelerator: whose trackers get the last row of each block, and whose processes are averaged over.
        path: of the CSV; only the main process writes it.
        until: go on with the file after this step; None begins anew.
    """

    def __init__(self, accelerator: Accelerator, path: Path, until: int | None = None) -> None:
        self.accelerator, self.path = accelerator, path
        self.last: dict[str, float] = {}
        self._kept: list[tuple[int, float, dict[str, Tensor]]] = []
        if accelerator.is_main_process:
            if until is None:
                path.unlink(missing_ok=True)
            else:
                keep_rows(path, "step", until)
        if until is not None:
            accelerator.wait_for_everyone()
            self.last = _last_row(path)

    def add(self, step: int, learning_rate: float, outcome: Outcome) -> None:
        """Keep what a step found, without waiting for it."""
        self._kept.append((step, learning_rate, {"loss": outcome.loss.detach(), **outcome.metrics}))

    def write(self, speed: Callable[[], float] | None = None) -> None:
        """Write what was kept since the last time; every process must call it.

        Args:
            speed: images a second, for the trackers; asked after the device is done.

        Raises:
            ValueError: a loss is not finite.
        """
        if not self._kept:
            return
        names = list(self._kept[0][2])
        rows = torch.stack([torch.stack([row[name].float() for name in names]) for _, _, row in self._kept])
        if self.accelerator.num_processes > 1:
            rows = self.accelerator.reduce(rows, "mean")
        values = rows.tolist()
        steps = [(step, rate) for step, rate, _ in self._kept]
        self._kept = []
        if self.accelerator.is_main_process:
            self._append(names, [[*step, *row] for step, row in zip(steps, values, strict=True)])
        for (step, _), row in zip(steps, values, strict=True):
            if not math.isfinite(row[0]):
                raise NotFinite(step, row[0])
        self.last = {"learning_rate": steps[-1][1], **dict(zip(names, values[-1], strict=True))}
        speeds = {} if speed is None else {"images_per_second": speed()}
        self.accelerator.log({**self.last, **speeds}, step=steps[-1][0])

    def _append(self, names: list[str], rows: list[list[float]]) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["step", "learning_rate", *names])
            writer.writerows(rows)


def _last_row(path: Path) -> dict[str, float]:
    if not path.exists():  # on a node that does not share the main process's disk
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: float(value) for name, value in rows[-1].items() if name != "step"} if rows else {}


class Failure(ValueError):
    """Why a training cannot go on."""


class NotFinite(Failure):
    """A loss that is NaN or infinite, and the step that found it."""

    def __init__(self, step: int, value: float, what: str = "the loss") -> None:
        super().__init__(f"{what} must stay finite, got {value} at step {step}")
        self.step = step
