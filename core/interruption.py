"""Ending a long job at a point of its own choosing."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130
"""Exit code after SIGINT, as shells have it."""


class Interruption:
    """Notes SIGINT and SIGTERM instead of dying of them; a second signal acts as it would have without us.

    `reason` says why to stop, or is None; `look()` also notes that the parent of a worker process has ended.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM while the context lasts, in the main thread; another thread cannot."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {}

        def note(number: int, _: Any) -> None:
            self.reason = signal.Signals(number).name
            restore()

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            restore()

    def look(self) -> str | None:
        """Return why to stop, or None to go on."""
        if orphaned():
            self.reason = "end of the parent process"
        return self.reason


def orphaned() -> bool:
    """Return whether this is a worker process whose parent has ended."""
    parent = multiprocessing.parent_process()
    return parent is not None and os.getppid() != parent.pid
