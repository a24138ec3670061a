"""The one trainer of every method. Shape legend: B examples of a batch, over all processes."""

import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from ..check import choice, number, whole
from ..data import Batch, DataSet, batches, epoch_order
from ..training import checkpoint
from ..training.loop import Loop, Step, Trained
from ..training.optimizers import OptimizerFactory
from ..training.settings import Settings, described
from ..training.start import PRECISIONS, started
from ..views.pair import TwoViews
from .engine import Engine, Views
from .method import Method
from .schedule import SCALED_FROM, warmup_cosine

KEPT = (
    "epochs", "batch_size", "accumulate", "chunk_size", "seed", "warmup", "scale_learning_rate", "max_grad_norm",
    "precision", "channels_last", "compile", "sync_batchnorm", "method", "views", "optimizer",
)  # fmt: skip
"""What a run that goes on must be given again, beside data of the same length and shape."""


@dataclass
class Trainer:
    """Trains a method on the views of a data set, through Accelerate: one CPU or GPU, or many by `accelerate launch`.

    Order of the data and views are functions of `seed` and the step alone, drawn for the whole batch on every process:
    W processes of B / W rows see what one process of B rows would, and a resumed run goes on to the bit (on a CPU).

    Args:
        method: what to train, on any device; moved where Accelerate says.
        data: its examples; the last, smaller batch of an epoch is left out.
        views: makes the two views on the device.
        optimizer: factory, called with groups of parameters.
        folder: where progress and checkpoints go.
        epochs: passes over the data, >= 1.
        batch_size: B, examples of an optimizer step over all processes, >= 2.
        warmup: share of the training, in [0, 1), in which the learning rate rises; then it follows a cosine to 0.
        scale_learning_rate: multiply the optimizer's rate by B x accumulate / 256.
        chunk_size: rows that each process encodes at once, for a batch larger than memory, by gradient caching; None
            encodes all. Two views of chunk_size rows are held.
        accumulate: batches whose gradients are averaged into one optimizer step. It does not make the contrastive
            batch larger (a warning says so): `chunk_size` does.
        max_grad_norm: clips the gradient's norm, > 0; None never.
        precision: no, bf16 or fp16, of the encoder; losses stay float32.
        channels_last: memory layout of images and convolutions; faster on GPUs with half precision.
        compile: torch.compile the encoders.
        sync_batchnorm: take BatchNorm's statistics over all processes, where there are several and they run on GPUs.
        workers: processes that load data, per training process; 0 loads in the training process.
        seed: of order, views and global generators, >= 0.
        device: cpu, or auto.
        checkpoint_every: optimizer steps between checkpoints; None saves only the last. One is always saved at the end.
        log_every: steps between readings of the device, >= 1.
        trackers: names of Accelerate's trackers, for example tensorboard or wandb.
        progress_bar: show one on the main process.

    Raises:
        ValueError: a value breaks its rule.
    """

    method: Method
    data: DataSet
    views: TwoViews
    optimizer: OptimizerFactory
    folder: Path
    epochs: int = 100
    batch_size: int = 256
    warmup: float = 0.1
    scale_learning_rate: bool = True
    chunk_size: int | None = None
    accumulate: int = 1
    max_grad_norm: float | None = None
    precision: str = "no"
    channels_last: bool = False
    compile: bool = False
    sync_batchnorm: bool = True
    workers: int = 0
    seed: int = 0
    device: str = "auto"
    checkpoint_every: int | None = 500
    log_every: int = 20
    trackers: Sequence[str] = ()
    progress_bar: bool = True
    per_epoch: int = field(init=False)
    _fitted: bool = field(init=False, default=False, repr=False)

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 2), ("accumulate", 1), ("log_every", 1)):
            whole(name, getattr(self, name), low)
        for name in ("workers", "seed"):
            whole(name, getattr(self, name))
        for name in ("chunk_size", "checkpoint_every"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        number("warmup", self.warmup, 0, 1, below=True)
        if self.max_grad_norm is not None:
            number("max_grad_norm", self.max_grad_norm, 0, above=True)
        choice("precision", self.precision, PRECISIONS)
        choice("device", self.device, ("auto", "cpu"))
        self.per_epoch = len(self.data) // (self.batch_size * self.accumulate)
        if self.per_epoch == 0:
            raise ValueError(
                f"batch_size x accumulate must be at most the {len(self.data)} examples of the data, got "
                f"{self.batch_size} x {self.accumulate}"
            )
        if self.method.needs_labels and not self.data.classes:
            raise ValueError(
                f"{type(self.method).__name__} needs data with one class for each example, and these name no classes: "
                "take other data, or a method that needs no labels, such as simclr"
            )
        if self.accumulate > 1:
            warnings.warn(
                f"accumulate={self.accumulate} averages gradients of batches of {self.batch_size}, whose examples are "
                "compared within each batch alone; batch_size with chunk_size enlarges the contrastive batch",
                stacklevel=3,
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.per_epoch * self.epochs

    @property
    def settings(self) -> Settings:
        """What makes this run the one it is, by dotted name; read before `fit`."""
        found: Settings = {}
        for name in KEPT:
            found |= described(name, getattr(self, name))
        return {"len(data)": len(self.data), **found, **described("data.shape", tuple(self.data.shape))}

    def fit(self, *, resume: bool = False) -> Trained:
        """Train to the end, or until SIGINT or SIGTERM, and leave a checkpoint.

        Python's, NumPy's and torch's global generators are seeded. A trainer fits once: its method is then trained.

        Args:
            resume: go on from the checkpoint in the folder, which must be of these settings and of as much data.

        Raises:
            ValueError: it has fitted before, the batch does not divide among the processes, there is a checkpoint and
                no `resume`, or one that does not fit, or the loss is not finite; the last good checkpoint stays.
        """
        if self._fitted:
            raise ValueError(
                "a trainer fits once, got another fit(): make a new one of a new method (fit(resume=True) goes on from "
                "the checkpoint in its folder)"
            )
        settings = self.settings
        accelerator = started(self, settings, resume=resume)
        self._fitted = True
        engine = self._engine(accelerator)
        begun = checkpoint.load(accelerator, self.folder) if resume else None
        loader = self._loader(accelerator, begun or 0)

        def take(step: int) -> Step:
            factor = warmup_cosine(step, self.steps, round(self.warmup * self.steps))
            parts = range(step * self.accumulate, (step + 1) * self.accumulate)
            outcome = engine.update([self._views(accelerator, loader, i) for i in parts], factor)
            engine.method.update((step + 1) / self.steps)
            return Step(engine.rates[0] * factor, outcome)

        images = self.batch_size * self.accumulate
        try:
            return Loop(self, accelerator, settings, [engine.method], take, images, begun).run()
        finally:
            loader.close()  # ends the workers

    def _engine(self, accelerator: Accelerator) -> Engine:
        return Engine(
            accelerator,
            self.method,
            self.optimizer,
            scale=self.batch_size * self.accumulate / SCALED_FROM if self.scale_learning_rate else 1.0,
            chunk_size=self.chunk_size,
            max_grad_norm=self.max_grad_norm,
            channels_last=self.channels_last,
            compile=self.compile,
            sync_batchnorm=self.sync_batchnorm,
        )

    def _loader(self, accelerator: Accelerator, begun: int) -> Generator[Batch, None, None]:
        """Yield this process's rows of every batch from step `begun` on."""
        local = self.batch_size // accelerator.num_processes
        mine = slice(accelerator.process_index * local, (accelerator.process_index + 1) * local)

        def order() -> Iterator[list[int]]:
            each = self.per_epoch * self.accumulate
            for epoch in range(begun // self.per_epoch, self.epochs):
                drawn = epoch_order(len(self.data), epoch, seed=self.seed, batch_size=self.batch_size)
                done = max(begun - epoch * self.per_epoch, 0) * self.accumulate
                yield from (indices[mine] for indices in islice(drawn, done, each))

        yield from batches(self.data, order(), workers=self.workers, pin=accelerator.device.type == "cuda")

    def _views(self, accelerator: Accelerator, loader: Iterator[Batch], batch: int) -> Views:
        """Return the views of the next batch, from a generator that is the same everywhere and after every resume."""
        inputs, labels = (x.to(accelerator.device, non_blocking=True) for x in next(loader))
        words = np.random.SeedSequence([self.seed, batch]).generate_state(2)
        generator = torch.Generator(accelerator.device).manual_seed(int(words[0]) << 31 ^ int(words[1]))
        start = accelerator.process_index * len(inputs)
        return (*self.views(inputs, generator, start=start, total=self.batch_size), labels)
