"""How far a comparison is."""

import sys
import threading
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .plan import Run


class Watching:
    """Shows how many runs have ended, and when the last one will, from their folders: so with any launcher.

    Args:
        runs: the runs to wait for.
        interval: seconds between two looks.
    """

    def __init__(self, runs: Sequence[Run], interval: float = 0.5) -> None:
        self.runs, self.interval = runs, interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        if sys.stderr.isatty():
            self._bar()
        else:
            self._lines()

    def _bar(self) -> None:
        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), speed_estimate_period=3600) as bar:
            task = bar.add_task("runs", total=len(self.runs))
            while not self._over.wait(self.interval):
                bar.update(task, completed=self._ended())
            bar.update(task, completed=self._ended())

    def _lines(self) -> None:
        begun, shown = time.monotonic(), 0
        while not self._over.wait(self.interval):
            ended = self._ended()
            if ended - shown >= max(len(self.runs) // 8, 1):
                elapsed = time.monotonic() - begun
                left = elapsed / ended * (len(self.runs) - ended)
                print(f"{ended} of {len(self.runs)} runs, {elapsed:.0f} s, about {left:.0f} s left", file=sys.stderr)
                shown = ended

    def _ended(self) -> int:
        return sum(run.ended() for run in self.runs)
