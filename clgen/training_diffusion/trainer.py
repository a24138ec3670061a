"""The one trainer of every denoiser. Shape legend: B rows of a batch, over all processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from ...core.check import choice, number, whole
from ...core.training import checkpoint
from ...core.training.loop import Loop, Step, Trained
from ...core.training.optimizers import OptimizerFactory
from ...core.training.settings import Settings, described
from ...core.training.start import PRECISIONS, started
from ..auxiliary import Auxiliary
from ..diffusion.labels import NULL, takes_labels
from ..diffusion.pairing import paired_batch
from ..diffusion.process import Process
from ..images import Images
from .batch import Drawer
from .engine import Engine
from .grids import Grids
from .sampling import check_steps
from .schedule import factor

DECAYS = ("constant", "cosine")
KEPT = (
    "steps", "batch_size", "seed", "warmup", "decay", "max_grad_norm", "ema_decay", "snr_gamma", "conditional",
    "label_dropout", "pair_share", "weight", "flow_weight", "precision", "compile", "optimizer", "process",
)  # fmt: skip
"""What a run that goes on must be given again, beside model, objective and images of the same number and shape."""


@dataclass
class Trainer:
    """Trains a denoiser of diffusers on images, through Accelerate: one CPU or GPU, or many by `accelerate launch`.

    Order, noise, timesteps and dropped labels are functions of `seed` and the step alone, drawn for the whole batch on
    every process: W processes of B / W rows see what one process of B rows would, and a resumed run goes on to the bit
    (on a CPU).

    Args:
        model: a U-Net or DiT of diffusers, on any device.
        images: what it learns.
        process: how noise comes in and what is predicted.
        optimizer: factory, called with groups of parameters.
        folder: where progress, sample grids and checkpoints go.
        auxiliary: attached to the model; None: none.
        weight: of the auxiliary's loss, >= 0. 0 trains exactly as without it.
        flow_weight: lambda of contrastive flow matching (Stoica et al. 2025, https://arxiv.org/abs/2506.05350), in
            [0, 1): minus this times the squared distance to another row's target, among the rows of each process of the
            training. For noise processes that predict the flow.
        pair_share: of the images of a batch that are shown twice, at two noise levels, in [0, 1].
        conditional: tell the denoiser the class of each image.
        label_dropout: share of labels that is dropped, for classifier-free guidance, in [0, 1).
        steps: of the optimizer.
        batch_size: B, rows of a step over all processes, >= 2.
        warmup: share of the training, in [0, 1), in which the learning rate rises.
        decay: constant or cosine: what it does then.
        snr_gamma: of min-SNR weighting (Hang et al. 2023), > 0; None: every row counts the same.
        ema_decay: of the moving average of the weights, in [0, 1); the first steps average less, as in diffusers.
        max_grad_norm: clips the gradient's norm, > 0; None never.
        precision: no, bf16 or fp16, of the denoiser; losses stay float32.
        compile: torch.compile the denoiser; a name is the backend's.
        gradient_checkpointing: compute activations again in the backward pass, for less memory.
        seed: of order, noise, and global generators, >= 0.
        device: cpu, or auto.
        checkpoint_every: steps between checkpoints; None saves only the last. One is always saved at the end.
        log_every: steps between readings of the device, >= 1.
        grids: draws samples while training; None: nothing is drawn.
        trackers: names of Accelerate's trackers, for example tensorboard or wandb.
        progress_bar: show one on the main process.

    Raises:
        ValueError: a value breaks its rule.
    """

    model: nn.Module
    images: Images
    process: Process
    optimizer: OptimizerFactory
    folder: Path
    auxiliary: Auxiliary | None = None
    weight: float = 0.05
    flow_weight: float = 0.0
    pair_share: float = 0.0
    conditional: bool = False
    label_dropout: float = 0.1
    steps: int = 800
    batch_size: int = 32
    warmup: float = 0.05
    decay: str = "constant"
    snr_gamma: float | None = None
    ema_decay: float = 0.995
    max_grad_norm: float | None = 1.0
    precision: str = "no"
    compile: bool | str = False
    gradient_checkpointing: bool = False
    seed: int = 0
    device: str = "auto"
    checkpoint_every: int | None = 500
    log_every: int = 20
    grids: Grids | None = None
    trackers: Sequence[str] = ()
    progress_bar: bool = True
    averaged: nn.Module = field(init=False, repr=False)
    _fitted: bool = field(init=False, default=False, repr=False)

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch_size", 2), ("log_every", 1), ("seed", 0)):
            whole(name, getattr(self, name), low)
        if self.checkpoint_every is not None:
            whole("checkpoint_every", self.checkpoint_every, 1)
        number("weight", self.weight, 0)
        number("pair_share", self.pair_share, 0, 1)
        for name in ("flow_weight", "label_dropout", "warmup", "ema_decay"):
            number(name, getattr(self, name), 0, 1, below=True)
        for name in ("snr_gamma", "max_grad_norm"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), 0, above=True)
        if self.flow_weight and self.process.prediction != "flow":
            raise ValueError(
                "flow_weight needs scheduler=flow: what samples from another prediction would find it 1 / (1 - "
                f"flow_weight) too large, got the prediction {self.process.prediction}"
            )
        choice("decay", self.decay, DECAYS)
        choice("precision", self.precision, PRECISIONS)
        choice("device", self.device, ("auto", "cpu"))
        needed = paired_batch(self.batch_size, self.pair_share)[0]
        if len(self.images.tensor) < needed:
            raise ValueError(f"batch_size must be at most the {len(self.images.tensor)} images, got {self.batch_size}")
        if self.conditional and not self.images.classes:
            raise ValueError("conditional=true needs data with classes, and these have none")
        if self.grids is not None:
            check_steps(self.process, self.grids.sampling_steps)
        if self.conditional and len(self.images.classes) > NULL:
            raise ValueError(
                f"conditional=true has room for {NULL} classes, as DiTPipeline has, and these data have "
                f"{len(self.images.classes)}"
            )
        if self.conditional and not takes_labels(self.model):
            raise ValueError("conditional=true needs a denoiser that takes class labels, and this U-Net takes none")

    @property
    def settings(self) -> Settings:
        """What makes this run the one it is, by dotted name."""
        found: Settings = {"len(images)": len(self.images.tensor)}
        config: Any = getattr(self.model, "config", {})
        found |= described("model", {key: config[key] for key in config if not key.startswith("_")})
        found |= described("model.kind", type(self.model).__name__)
        for name in KEPT:
            found |= described(name, getattr(self, name))
        if self.auxiliary is not None:
            found |= described("objective", self.auxiliary.method)
            found |= described("places", self.auxiliary.places)
        return found | described("images.shape", tuple(self.images.tensor.shape[1:]))

    def fit(self, *, resume: bool = False) -> Trained:
        """Train to the end, or until SIGINT or SIGTERM, and leave a checkpoint.

        Python's, NumPy's and torch's global generators are seeded. A trainer fits once. Afterwards `averaged` is a
        denoiser with the moving average of the weights.

        Args:
            resume: go on from the checkpoint in the folder, which must be of these settings and of as many images.

        Raises:
            ValueError: it has fitted before, the batch does not divide among the processes, there is a checkpoint and
                no `resume`, or one that does not fit, or the loss is not finite; the last good checkpoint stays.
        """
        if self._fitted:
            raise ValueError("a trainer fits once, got another fit(): make a new one of a new model")
        settings = self.settings
        accelerator = started(self, settings, resume=resume, rows=2)
        self._fitted = True
        engine = self._engine(accelerator)
        begun = checkpoint.load(accelerator, self.folder) if resume else None
        engine.loaded()
        drawn = self._drawer(accelerator)

        def take(step: int) -> Step:
            rate = factor(step, self.steps, round(self.warmup * self.steps), self.decay)
            return Step(engine.rates[0] * rate, engine.update(drawn(step), rate))

        loop = Loop(self, accelerator, settings, [engine.trained], take, self.batch_size, begun)
        grids = self.grids
        if grids is not None:
            loop.draw = lambda step: grids.draw(engine.average(), self.process, step)
            loop.draw_every = grids.every
        found = loop.run()
        self.averaged = engine.average()
        return found

    def _engine(self, accelerator: Accelerator) -> Engine:
        if self.gradient_checkpointing:
            part: Any = self.model
            part.enable_gradient_checkpointing()
        return Engine(
            accelerator,
            self.model,
            self.auxiliary,
            self.optimizer,
            self.process,
            weight=self.weight,
            flow_weight=self.flow_weight,
            snr_gamma=self.snr_gamma,
            ema_decay=self.ema_decay,
            max_grad_norm=self.max_grad_norm,
            compile=self.compile,
        )

    def _drawer(self, accelerator: Accelerator) -> Callable[[int], Any]:
        draw = Drawer(
            self.images,
            self.process,
            batch_size=self.batch_size,
            share=self.pair_share,
            label_dropout=self.label_dropout,
            labelled=takes_labels(self.model),
            conditional=self.conditional,
            seed=self.seed,
        )
        local = self.batch_size // accelerator.num_processes
        mine = slice(accelerator.process_index * local, (accelerator.process_index + 1) * local)
        return lambda step: draw(step, accelerator.device, mine)
