"""The one loop that trains GANs. Shape legend: B images of a batch, over all processes."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm.auto import tqdm

from ...core.check import choice, number, whole
from ...core.data import epoch_order
from ...core.interruption import Interruption
from ...core.pairs import Outcome
from ...core.training import checkpoint
from ...core.training.optimizers import made_optimizer
from ...core.training.record import NotFinite, Record
from ...core.training.settings import Settings, described
from ...core.training.state import on_cpu, shared_state
from ...core.training.trackers import check_trackers
from ..auxiliary import Auxiliary
from ..images import Images
from .adversarial import Adversarial
from .augment import Augment
from .draws import STREAMS, Draws
from .engine import Engine, Players, mixes_rows
from .pictures import Pictures

PRECISIONS = ("no", "fp16", "bf16")
KEPT = (
    "steps", "batch_size", "seed", "discriminator_steps", "ema", "weight", "generator_weight", "perturbation",
    "precision", "generator", "discriminator", "adversarial", "augment", "generator_optimizer",
    "discriminator_optimizer",
)  # fmt: skip
"""What a run that goes on must be given again, beside the same images."""

OptimizerFactory = Callable[..., torch.optim.Optimizer]


class Trained(NamedTuple):
    """What came of a run.

    Attributes:
        status: `completed`, or `interrupted` by a signal, after its checkpoint was written.
        by: the signal's name, or None.
        step: steps of the generator taken, of `steps`.
        steps: of the whole training.
        last: losses and metrics of the last step.
        seconds: of training in this process, pictures and checkpoints included.
        images_per_second: real images that the discriminator saw, over those seconds and all processes.
    """

    status: str
    by: str | None
    step: int
    steps: int
    last: dict[str, float]
    seconds: float
    images_per_second: float


@dataclass
class Trainer:
    """Trains a generator against a discriminator, through Accelerate: one CPU or GPU, or many by `accelerate launch`.

    Latents, the order of images and augmentation are functions of `seed` and the step alone, drawn for the whole batch
    on every process: W processes of B / W rows see what one process of B rows would, and a resumed run goes on to the
    bit (on a CPU). Statistics of batch norm are each process's own on CPUs, of all on GPUs. Several processes average
    gradients without DistributedDataParallel, so that penalties and taps see the plain modules.

    Args:
        generator: `(latents (B, Z)[, labels]) -> images`, with the attribute `latent` = Z.
        discriminator: `(images[, labels]) -> scores`.
        images: what to learn, all in memory.
        adversarial: losses and penalties.
        generator_optimizer: factory, called with the generator's parameters.
        discriminator_optimizer: factory, called with the discriminator's and the auxiliary's.
        folder: where progress, pictures and checkpoints go.
        augment: of everything the discriminator sees.
        auxiliary: a contrastive method attached to `discriminator` (`contraux.clgen.attach`), or None.
        weight: of the auxiliary in the discriminator's loss, >= 0.
        generator_weight: of the auxiliary in the generator's, where the method has a term for it; >= 0.
        perturbation: standard deviation of what moves latents for `fake_key` images, >= 0.
        conditional: whether the players are given labels.
        steps: of the generator, >= 1.
        batch_size: B, of each player's step, >= 2.
        discriminator_steps: for each of the generator's, >= 1.
        ema: momentum of the generator's average, in [0, 1); smaller in the first steps.
        precision: no, bf16 or fp16, of the players; losses and penalties stay float32.
        seed: of everything random, >= 0.
        device: cpu, or auto.
        collapse_after: steps on end with a vanishing loss of the discriminator after which a run stops; None: never.
        checkpoint_every: steps between checkpoints; None saves only the last. One is always saved at the end.
        sample_every: steps between pictures of samples; None: only at the end.
        log_every: steps between readings of the device, >= 1.
        trackers: names of Accelerate's trackers.
        progress_bar: show one on the main process.

    Raises:
        ValueError: a value breaks its rule.
    """

    generator: nn.Module
    discriminator: nn.Module
    images: Images
    adversarial: Adversarial
    generator_optimizer: OptimizerFactory
    discriminator_optimizer: OptimizerFactory
    folder: Path
    augment: Augment = field(default_factory=Augment)
    auxiliary: Auxiliary | None = None
    weight: float = 1.0
    generator_weight: float = 1.0
    perturbation: float = 0.15
    conditional: bool = False
    steps: int = 1200
    batch_size: int = 64
    discriminator_steps: int = 1
    ema: float = 0.995
    precision: str = "no"
    seed: int = 0
    device: str = "auto"
    collapse_after: int | None = 500
    checkpoint_every: int | None = 500
    sample_every: int | None = 200
    log_every: int = 20
    trackers: Sequence[str] = ()
    progress_bar: bool = True
    _fitted: bool = field(init=False, default=False, repr=False)

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch_size", 2), ("discriminator_steps", 1), ("log_every", 1), ("seed", 0)):
            whole(name, getattr(self, name), low)
        for name in ("checkpoint_every", "sample_every", "collapse_after"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        for name in ("weight", "generator_weight", "perturbation"):
            number(name, getattr(self, name), 0.0)
        number("ema", self.ema, 0.0, 1.0, below=True)
        choice("precision", self.precision, PRECISIONS)
        choice("device", self.device, ("auto", "cpu"))
        whole("the generator's latent", getattr(self.generator, "latent", None), 1)
        found = len(self.images.tensor)
        if self.batch_size > found:
            raise ValueError(f"batch_size must be at most the {found} images of the data, got {self.batch_size}")
        own_term = self.generator_weight > 0
        _check_roles(self.auxiliary, self.images, self.conditional, self.augment, own_term=own_term)
        if self.adversarial.penalised and mixes_rows(self.discriminator):
            warnings.warn(
                "a gradient penalty is of each image on its own, and batch norm in the discriminator mixes them: take "
                "backbone=sndcgan, backbone=resnet or backbone.spectral_norm=true",
                stacklevel=3,
            )

    @property
    def settings(self) -> Settings:
        """What makes this run the one it is, by dotted name; read before `fit`."""
        found: Settings = {}
        for name in KEPT:
            found |= described(name, getattr(self, name))
        if self.auxiliary is not None:
            found |= described("method", self.auxiliary.method) | described("at", self.auxiliary.places)
        return {"images": str(tuple(self.images.tensor.shape)), "conditional": self.conditional, **found}

    def fit(self, *, resume: bool = False) -> Trained:
        """Train to the end, or until SIGINT or SIGTERM, and leave a checkpoint.

        Python's, NumPy's and torch's global generators are seeded. A trainer fits once. The players end where they
        trained; `self.average` is the generator's moving average.

        Args:
            resume: go on from the checkpoint in the folder, which must be of these settings.

        Raises:
            ValueError: it has fitted before, a tracker is not installed, the optimizers' settings do not fit, the batch
                does not divide among the processes, there is a checkpoint and no `resume`, or one that does not fit, a
                loss is not finite, or the discriminator has won for good; the last good checkpoint stays.
        """
        if self._fitted:
            raise ValueError("a trainer fits once, got another fit(): make a new one")
        check_trackers(self.trackers)
        self.folder = Path(self.folder)
        settings, begun = self.settings, checkpoint.position(self.folder)
        if begun is not None and not resume:
            raise ValueError(
                f"folder must be one without a checkpoint, got {str(self.folder)!r} with one of step {begun}: "
                "fit(resume=True) goes on from it, and another folder begins anew"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        accelerator = self._accelerator()
        if resume:
            checkpoint.check(self.folder, accelerator.num_processes, settings)
        self._fitted = True
        engine = self._engine(accelerator)
        begun = checkpoint.load(accelerator, self.folder) if resume else 0
        record = Record(accelerator, self.folder / "progress.csv", begun if resume else None)
        pictures = Pictures(self.images, engine.players, self.conditional, self.seed, self.folder)
        if accelerator.is_main_process and not resume:
            pictures.real()
        return self._loop(accelerator, engine, record, pictures, settings, begun, begun if resume else None)

    def _loop(
        self, accelerator: Accelerator, engine: Engine, record: Record, pictures: Pictures, settings: Settings,
        begun: int, saved: int | None,
    ) -> Trained:  # fmt: skip
        interruption, start, step = Interruption(), time.perf_counter(), begun
        images, order = self.batch_size * self.discriminator_steps, self._order(accelerator, begun)

        def speed() -> float:
            return (step - begun) * images / (time.perf_counter() - start)

        try:
            with interruption.listening(), self._bar(accelerator, begun, images) as bar:
                while step < self.steps:
                    outcome = self._step(engine, order, step, accelerator.device)
                    step += 1
                    record.add(step, engine.optimizers[1].param_groups[0]["lr"], outcome)
                    bar.update(images)
                    due = _due(step, self.checkpoint_every)
                    drawn = _due(step, self.sample_every) or step == self.steps
                    read = step % self.log_every == 0 or due or drawn
                    stop = _agreed(accelerator, interruption, read)
                    if read or stop or step == self.steps:
                        record.write(speed)
                        bar.set_postfix_str(f"D {record.last['discriminator']:.3f} G {record.last['generator']:.3f}")
                        self._watch(step, record.last.get("won", 0.0))
                    if drawn and accelerator.is_main_process:
                        pictures.samples(step)
                    if stop or step == self.steps or (due and record.last.get("won", 0.0) < self.log_every):
                        if not finite(engine.players):
                            raise NotFinite(step, float("nan"), "the weights")
                        checkpoint.save(accelerator, self.folder, step, settings)
                        saved = step
                    if stop:
                        break
        except (NotFinite, Collapsed) as error:
            kept = "no checkpoint had been saved" if saved is None else f"the checkpoint of step {saved} is kept"
            raise ValueError(f"{error}; {kept}: {TRY}") from error
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
        status = "completed" if step == self.steps else "interrupted"
        if status == "completed" and accelerator.is_main_process:
            pictures.interpolation()
        seconds = round(time.perf_counter() - start, 3)
        return Trained(status, interruption.reason, step, self.steps, record.last, seconds, round(speed(), 1))

    def _step(self, engine: Engine, order: Iterator[Tensor], step: int, device: torch.device) -> Outcome:
        """Take the discriminator's steps and the generator's, and return the loss of the last of the former."""
        for part in range(self.discriminator_steps):
            rows = next(order)
            real = self.images.tensor[rows].to(device, non_blocking=True)
            labels = self.images.labels[rows].to(device, non_blocking=True)
            found = engine.discriminator_step(step * self.discriminator_steps + part, real, labels)
        found |= engine.generator_step(step, real, labels)
        return Outcome(found.pop("loss") + 0 * found["generator"], found)

    def _watch(self, step: int, won: float) -> None:
        """Raise where the discriminator has won for good."""
        if self.collapse_after is not None and won >= self.collapse_after:
            raise Collapsed(step, round(won))

    def _order(self, accelerator: Accelerator, begun: int) -> Iterator[Tensor]:
        """Yield the indices of this process's rows of every batch from step `begun` on."""
        local = self.batch_size // accelerator.num_processes
        mine = slice(accelerator.process_index * local, (accelerator.process_index + 1) * local)
        each = len(self.images.tensor) // self.batch_size
        batch = begun * self.discriminator_steps
        while True:
            order = epoch_order(len(self.images.tensor), batch // each, seed=self.seed, batch_size=self.batch_size)
            for indices in order[batch % each :]:
                yield torch.tensor(indices[mine])
                batch += 1

    def _accelerator(self) -> Accelerator:
        shared_state(self.device, self.precision)
        accelerator = Accelerator(
            mixed_precision=self.precision,
            cpu=on_cpu(self.device),
            log_with=list(self.trackers) or None,
            project_dir=self.folder if self.trackers else None,
        )
        processes = accelerator.num_processes
        if self.batch_size % processes:
            raise ValueError(f"batch_size must divide among the {processes} processes, got {self.batch_size}")
        if self.trackers:
            accelerator.init_trackers("")
        set_seed(self.seed, device_specific=True)
        return accelerator

    def _engine(self, accelerator: Accelerator) -> Engine:
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            for part in (self.generator, self.discriminator):
                nn.SyncBatchNorm.convert_sync_batchnorm(part)
        players = Players(self.generator, self.discriminator, self.augment, self.auxiliary, self.ema)
        players = accelerator.prepare_model(players, evaluation_mode=True).train()
        self.average = players.average.encoder
        critics = [players.discriminator, *([] if self.auxiliary is None else [self.auxiliary])]
        made = (
            made_optimizer(self.generator_optimizer, trained(players.generator)),
            made_optimizer(self.discriminator_optimizer, trained(*critics)),
        )
        optimizers = tuple(accelerator.prepare_optimizer(optimizer) for optimizer in made)
        rank, processes = accelerator.process_index, accelerator.num_processes
        return Engine(
            accelerator,
            players,
            (optimizers[0], optimizers[1]),
            self.adversarial,
            Draws(self.seed, self.batch_size, rank, processes, accelerator.device),
            weight=self.weight,
            generator_weight=self.generator_weight,
            perturbation=self.perturbation,
            conditional=self.conditional,
        )

    def _bar(self, accelerator: Accelerator, begun: int, images: int) -> "tqdm[NoReturn]":
        shown = self.progress_bar and accelerator.is_main_process
        return tqdm(total=self.steps * images, initial=begun * images, unit="img", unit_scale=True, disable=not shown)


TRY = (
    "try a lower learning rate of the discriminator, a penalty (adversarial.r1=1), augment=diffaug, or a backbone with "
    "spectral norm (backbone=sndcgan)"
)


class Collapsed(ValueError):
    """The discriminator tells real from fake without fail, so that the generator has nothing left to learn from."""

    def __init__(self, step: int, won: int) -> None:
        super().__init__(
            f"the discriminator must not win for good, and its loss has been vanishing for {won} steps at step {step}"
        )


def trained(*modules: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def finite(players: nn.Module) -> bool:
    """Return whether all weights and statistics are; waits for the device."""
    values = [x for x in (*players.parameters(), *players.buffers()) if x.is_floating_point()]
    return bool(torch.stack([x.isfinite().all() for x in values]).all())


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _agreed(accelerator: Accelerator, interruption: Interruption, ask: bool) -> bool:
    """Return whether to stop: several processes must agree, and ask each other only now and then."""
    if accelerator.num_processes == 1:
        return interruption.look() is not None
    if not ask:
        return False
    flag = torch.tensor(float(interruption.look() is not None), device=accelerator.device)
    return float(accelerator.reduce(flag, "sum")) > 0


def _check_roles(
    auxiliary: Auxiliary | None, images: Images, conditional: bool, augment: Augment, *, own_term: bool
) -> None:
    """Raise where a method asks for what this run has not; `own_term`: whether the generator has a term of it.

    Raises:
        ValueError: a role or context that is unknown, views without augmentation, or labels that there are not.
    """
    labelled = bool(images.classes) and bool((images.labels >= 0).all())
    if conditional and not labelled:
        raise ValueError("conditional=true needs images that all have a class, and these have none: conditional=false")
    if auxiliary is None:
        return
    method: Any = auxiliary.method
    name = type(method).__name__
    asked = (*method.roles, *method.key_roles, *method.generator_roles, *method.generator_key_roles)
    for role in asked:
        if role not in STREAMS:
            raise ValueError(f"{name} asks for {role!r} images, and there are real, view, fake, real_key and fake_key")
    if {"view", "real_key"} & set(asked) and augment.numbers == 0:
        raise ValueError(f"{name} compares views of an image, which need an augmentation: augment=affine")
    if "labels" in method.context and not labelled:
        raise ValueError(f"{name} needs images that all have a class, and these have none")
    if own_term and "labels" in method.generator_context and not conditional:
        raise ValueError(
            f"{name} looks at the classes of generated images: conditional=true, or generator_weight=0 for its term of "
            "the discriminator alone"
        )
