"""The one trainer of GANs. Shape legend: B images of a batch, over all processes."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ...core.check import choice, number, whole
from ...core.data import epoch_order
from ...core.distributed import broadcast_from_first
from ...core.pairs import Outcome
from ...core.training import checkpoint
from ...core.training.loop import Loop, Step, Trained
from ...core.training.optimizers import OptimizerFactory, made_optimizer
from ...core.training.record import Failure
from ...core.training.settings import Settings, described
from ...core.training.start import PRECISIONS, started
from ..auxiliary import Auxiliary
from ..images import Images
from .adversarial import Adversarial
from .augment import Augment
from .draws import Draws
from .engine import Engine, Players, mixes_rows
from .pictures import Pictures
from .roles import check_roles

KEPT = (
    "steps", "batch_size", "seed", "discriminator_steps", "ema", "weight", "generator_weight", "perturbation",
    "precision", "generator", "discriminator", "adversarial", "augment", "generator_optimizer",
    "discriminator_optimizer",
)  # fmt: skip
"""What a run that goes on must be given again, beside the same images."""


@dataclass
class Trainer:
    """Trains a generator against a discriminator, through Accelerate: one CPU or GPU, or many by `accelerate launch`.

    Latents, the order of images and augmentation are functions of `seed` and the step alone, drawn for the whole batch
    on every process: W processes of B / W rows see what one process of B rows would, and a resumed run goes on to the
    bit (on a CPU). All begin with the weights of the first. Statistics of batch norm are each process's own on CPUs, of
    all on GPUs. Several processes average gradients without DistributedDataParallel, so that penalties and taps see the
    plain modules.

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
        check_roles(self.auxiliary, self.images, self.conditional, self.augment, own_term=own_term)
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
        settings = self.settings
        accelerator = started(self, settings, resume=resume)
        self._fitted = True
        engine = self._engine(accelerator)
        begun = checkpoint.load(accelerator, self.folder) if resume else None
        pictures = Pictures(self.images, engine.players, self.conditional, self.seed, self.folder)
        if accelerator.is_main_process and not resume:
            pictures.real()
        order = self._order(accelerator, begun or 0)
        found = Loop(
            self,
            accelerator,
            settings,
            [engine.players],
            lambda step: self._step(engine, order, step, accelerator.device),
            self.batch_size * self.discriminator_steps,
            begun,
            ADVICE,
            says=lambda last: f"D {last['discriminator']:.3f} G {last['generator']:.3f}",
            keeps=self._watch,
            draw=pictures.samples,
            draw_every=self.sample_every,
        ).run()
        if found.status == "completed" and accelerator.is_main_process:
            pictures.interpolation()
        return found

    def _step(self, engine: Engine, order: Iterator[Tensor], step: int, device: torch.device) -> Step:
        """Take the discriminator's steps and the generator's; the loss is that of the last of the former."""
        for part in range(self.discriminator_steps):
            rows = next(order)
            real = self.images.tensor[rows].to(device, non_blocking=True)
            labels = self.images.labels[rows].to(device, non_blocking=True)
            found = engine.discriminator_step(step * self.discriminator_steps + part, real, labels)
        found |= engine.generator_step(step, real, labels)
        outcome = Outcome(found.pop("loss") + 0 * found["generator"], found)
        return Step(engine.optimizers[1].param_groups[0]["lr"], outcome)

    def _watch(self, step: int, last: dict[str, float]) -> bool:
        """Raise where the discriminator has won for good; return whether it is not about to."""
        won = last.get("won", 0.0)
        if self.collapse_after is not None and won >= self.collapse_after:
            raise Collapsed(step, round(won))
        return won < self.log_every

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

    def _engine(self, accelerator: Accelerator) -> Engine:
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            for part in (self.generator, self.discriminator):
                nn.SyncBatchNorm.convert_sync_batchnorm(part)
        players = Players(self.generator, self.discriminator, self.augment, self.auxiliary, self.ema)
        players = accelerator.prepare_model(players, evaluation_mode=True).train()
        broadcast_from_first((*players.parameters(), *players.buffers()))
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


ADVICE = (
    "try a lower learning rate of the discriminator, a penalty (adversarial.r1=1), augment=diffaug, or a backbone with "
    "spectral norm (backbone=sndcgan)"
)


class Collapsed(Failure):
    """The discriminator tells real from fake without fail, so that the generator has nothing left to learn from."""

    def __init__(self, step: int, won: int) -> None:
        super().__init__(
            f"the discriminator must not win for good, and its loss has been vanishing for {won} steps at step {step}"
        )


def trained(*modules: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]
