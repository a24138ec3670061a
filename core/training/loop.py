"""The loop of every trainer: it takes steps, writes what they found, and saves checkpoints.

A trainer gives it what differs: how a step is taken, what is drawn, what ends a training beside numbers that fail.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..interruption import Interruption
from ..pairs import Outcome
from . import checkpoint
from .record import Failure, NotFinite, Record
from .settings import Settings
from .start import Training
from .trackers import start_trackers


class Trained(NamedTuple):
    """What came of a run.

    Attributes:
        status: `completed`, or `interrupted` by a signal, after its checkpoint was written.
        by: why it stopped, mostly the signal's name, or None.
        step: steps taken, of `steps`.
        steps: of the whole training.
        last: learning rate, losses and metrics of the last step.
        seconds: of training in this process; loading, checkpoints and pictures of the steps included.
        images_per_second: rows of the steps' batches over those seconds, over all processes.
    """

    status: str
    by: str | None
    step: int
    steps: int
    last: dict[str, float]
    seconds: float
    images_per_second: float


ADVICE = "try a lower learning rate, or bf16 in the place of fp16"


class Step(NamedTuple):
    """What a step found, and the learning rate that it was taken at."""

    learning_rate: float
    outcome: Outcome


def loss_of(last: dict[str, float]) -> str:
    """Return what the bar says: the loss."""
    return f"loss {last['loss']:.4g}"


def always(step: int, last: dict[str, float]) -> bool:
    """Return True."""
    return True


@dataclass
class Loop:
    """Takes steps until the last, or until SIGINT or SIGTERM.

    Progress is in `progress.csv`, a row a step. Several processes must each run it.

    Args:
        trainer: whose numbers say how long, how often, and where.
        accelerator: of the run.
        settings: which a run that goes on is held to.
        modules: whose weights and statistics must be finite for a checkpoint.
        take: `step -> Step`, counting from 0.
        images: of a step, over all processes.
        begun: step of the checkpoint that it goes on from; None begins anew.
        advice: what to try where it fails; ends the sentence.
        says: what stands beside the bar, of the numbers of the last step.
        keeps: `(step, numbers of the last step) -> bool` after every reading: whether a checkpoint that is due is worth
            keeping; raises a `Failure` where there is no going on.
        draw: draws after so many steps, of nothing but weights and seeds, on the main process, once the checkpoint is
            saved and not when a signal waits; a run that goes on draws what its checkpoint should have had.
        draw_every: steps between drawings; None: only after the last.
    """

    trainer: Training
    accelerator: Accelerator
    settings: Settings
    modules: Iterable[nn.Module]
    take: Callable[[int], Step]
    images: int
    begun: int | None
    advice: str = ADVICE
    says: Callable[[dict[str, float]], str] = loss_of
    keeps: Callable[[int, dict[str, float]], bool] = always
    draw: Callable[[int], None] | None = None
    draw_every: int | None = None

    def run(self) -> Trained:
        """Go to the end, and leave a checkpoint.

        Raises:
            ValueError: a loss or a weight is not finite, or `keeps` says that there is no going on; the last good
                checkpoint stays.
        """
        start, begun, saved = time.perf_counter(), self.begun or 0, self.begun
        interruption, step, steps, folder = Interruption(), begun, self.trainer.steps, self.trainer.folder

        def speed() -> float:
            return (step - begun) * self.images / (time.perf_counter() - start)

        try:
            start_trackers(self.accelerator)
            record = Record(self.accelerator, folder / "progress.csv", self.begun)
            if begun:
                self._draw(begun)
            with interruption.listening(), self._bar(begun) as bar:
                while step < steps:
                    rate, outcome = self.take(step)
                    step += 1
                    record.add(step, rate, outcome)
                    bar.update(self.images)
                    due, last = every(self.trainer.checkpoint_every, step), step == steps
                    read = every(self.trainer.log_every, step) or due or self._drawn(step)
                    stop = agreed(self.accelerator, interruption, read)
                    if read or stop or last:
                        record.write(speed)
                        bar.set_postfix_str(self.says(record.last))
                        due = self.keeps(step, record.last) and due  # asked at every reading: it may raise
                    if due or stop or last:
                        if not finite(self.accelerator, self.modules):
                            raise NotFinite(step, float("nan"), "the weights")
                        checkpoint.save(self.accelerator, folder, step, self.settings)
                        saved = step
                    if last or not stop:
                        self._draw(step)
                    if stop:
                        break
        except Failure as error:
            kept = "no checkpoint had been saved" if saved is None else f"the checkpoint of step {saved} is kept"
            raise ValueError(f"{error}; {kept}: {self.advice}") from error
        finally:
            for tracker in self.accelerator.trackers:  # not `end_training`, which also ends the group of processes
                tracker.finish()
        status = "completed" if step == steps else "interrupted"
        seconds = round(time.perf_counter() - start, 3)
        by = interruption.reason or (None if status == "completed" else "a signal to another process")
        return Trained(status, by, step, steps, record.last, seconds, round(speed(), 1))

    def _drawn(self, step: int) -> bool:
        return self.draw is not None and (step == self.trainer.steps or every(self.draw_every, step))

    def _draw(self, step: int) -> None:
        if self.draw is not None and self._drawn(step) and self.accelerator.is_main_process:
            self.draw(step)

    def _bar(self, begun: int) -> "tqdm[NoReturn]":
        shown = self.trainer.progress_bar and self.accelerator.is_main_process
        total, done = self.trainer.steps * self.images, begun * self.images
        return tqdm(total=total, initial=done, unit="img", unit_scale=True, disable=not shown)


def every(steps: int | None, step: int) -> bool:
    """Return whether something that happens every so many steps, or never, does after this one."""
    return steps is not None and step % steps == 0


def finite(accelerator: Accelerator, modules: Iterable[nn.Module]) -> bool:
    """Return whether all weights and statistics that are saved are, in every process; waits for the device."""
    values = [x for part in modules for x in part.state_dict().values() if isinstance(x, Tensor)]
    found = torch.stack([x.isfinite().all() for x in values if x.is_floating_point()]).all().float()
    if accelerator.num_processes > 1:
        found = accelerator.reduce(found, "mean")
    return float(found) == 1.0


def agreed(accelerator: Accelerator, interruption: Interruption, ask: bool) -> bool:
    """Return whether to stop: several processes must agree, and ask each other only now and then."""
    if accelerator.num_processes == 1:
        return interruption.look() is not None
    if not ask:
        return False
    flag = torch.tensor(float(interruption.look() is not None), device=accelerator.device)
    return float(accelerator.reduce(flag, "sum")) > 0
