"""What a run writes while it learns: callbacks and file formats that a resumed run goes on with."""

import os
import time
from pathlib import Path

import numpy as np
from stable_baselines3.common import logger as sb3_logger
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, ProgressBarCallback
from tqdm.rich import tqdm

from ..core.files import keep_rows
from ..core.interruption import Interruption
from .checkpoint import save_checkpoint

STEP_COLUMN = "time/total_timesteps"


class Episodes(BaseCallback):
    """Writes every finished training episode into a CSV with the columns step, return, length.

    Args:
        path: the file; it is begun anew unless `until` is given.
        until: go on with the file, without the episodes after this step (those a resumed run will live again).
    """

    def __init__(self, path: Path, until: int | None = None) -> None:
        super().__init__()
        if until is None:
            path.write_text("step,return,length\n")
        else:
            keep_rows(path, "step", until)
        self._file = path.open("a", newline="", buffering=1)

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._file.write(f"{self.num_timesteps},{info['episode']['r']},{info['episode']['l']}\n")
        return True


class Checkpoints(BaseCallback):
    """Saves a checkpoint about every `every` steps, between rollouts; None saves none.

    Args:
        run: the run folder.
        every: environment steps.
        replay_buffer: whether the replay buffer goes along.
    """

    def __init__(self, run: Path, every: int | None, *, replay_buffer: bool) -> None:
        super().__init__()
        self.run, self.every, self.replay_buffer = run, every, replay_buffer

    def _on_training_start(self) -> None:
        self._last = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.every is not None and self.model.num_timesteps - self._last >= self.every:
            save_checkpoint(self.model, self.run, replay_buffer=self.replay_buffer)
            self._last = self.model.num_timesteps

    def _on_step(self) -> bool:
        return True


class Stop(BaseCallback):
    """Ends `learn()` after the step in which SIGINT or SIGTERM came; in a worker, also when its parent has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.interruption = Interruption()

    def _on_step(self) -> bool:
        return self.interruption.look() is None


class ProgressBar(ProgressBarCallback):
    """SB3's progress bar, in steps per second, and closed whatever happens."""

    def _on_training_start(self) -> None:
        self.pbar = tqdm(
            total=self.locals["total_timesteps"], initial=self.model.num_timesteps, unit=" steps", unit_scale=True
        )

    def close(self) -> None:
        """Close the bar; harmless where none was opened."""
        if hasattr(self, "pbar"):
            self.pbar.close()


class Clock:
    """Wall and CPU seconds spent inside its `with`."""

    def __enter__(self) -> "Clock":
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


class ProgressCSV(sb3_logger.CSVOutputFormat):
    """SB3's CSV log, which goes on with the rows it finds instead of overwriting them."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.touch()
        self.file = path.open("r+", newline="")
        header = self.file.readline().rstrip("\n")
        self.keys = header.split(",") if header else []
        self.file.seek(0, os.SEEK_END)
        self.separator, self.quotechar = ",", '"'


def progress_logger(run: Path, *, tensorboard: bool, until: int | None = None) -> sb3_logger.Logger:
    """Return an SB3 logger into `progress.csv` and, with `tensorboard` and where it is installed, TensorBoard files.

    Args:
        run: the run folder.
        tensorboard: whether to write TensorBoard files as well.
        until: go on with the log, without the rows after this step; None begins anew.
    """
    path = run / "progress.csv"
    if until is None:
        path.unlink(missing_ok=True)
    else:
        keep_rows(path, STEP_COLUMN, until)
    formats: list[sb3_logger.KVWriter] = [ProgressCSV(path)]
    if tensorboard and sb3_logger.SummaryWriter is not None:
        formats.append(sb3_logger.TensorBoardOutputFormat(str(run / "tensorboard")))
    return sb3_logger.Logger(str(run), formats)


def go_on_with_evaluations(callback: EvalCallback, path: Path, until: int) -> None:
    """Give an EvalCallback the evaluations up to a step from a file it wrote, so that it writes them again."""
    if not path.exists():
        return
    with np.load(path) as saved:
        kept = saved["timesteps"] <= until
        callback.evaluations_timesteps = saved["timesteps"][kept].tolist()
        callback.evaluations_results = saved["results"][kept].tolist()
        callback.evaluations_length = saved["ep_lengths"][kept].tolist()
        if "successes" in saved:
            callback.evaluations_successes = saved["successes"][kept].tolist()
