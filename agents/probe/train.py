"""Encoders trained on frames without reinforcement learning: by an objective alone, or by the labels themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from ...clrl.auxiliary_step import AuxiliaryStep, StepSettings
from ...clrl.parts import build_parts
from ...core.check import number, whole
from .networks import BeforeFinalReLU
from .probe import macro_f1
from .recording import Recording


@dataclass(frozen=True)
class Training:
    """How an encoder is trained by an objective alone, on frames in which nobody learns to act.

    Args:
        frames: how many are recorded for it, from episodes of their own.
        steps: updates of Adam.
        batch_size: windows each.
        learning_rate: of encoder and heads.
        max_grad_norm: clips the gradient; None never does.
    """

    frames: int = 10_000
    steps: int = 1_600
    batch_size: int = 64
    learning_rate: float = 3e-4
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "steps", "batch_size"):
            whole(f"train.{name}", getattr(self, name), 2 if name == "batch_size" else 1)
        number("train.learning_rate", self.learning_rate, 0.0, above=True)
        if self.max_grad_norm is not None:
            number("train.max_grad_norm", self.max_grad_norm, 0.0, above=True)

    def __call__(self, encoder: nn.Module, config: Any, recording: Recording, seed: int) -> dict[str, float]:
        """Train the encoder in place, by the very step that joins an auxiliary to an agent.

        Args:
            encoder: with `features_dim`, on the recording's device.
            config: of a preset, with the nodes `source` and `module`.
            recording: what it learns from.
            seed: of heads, batches and views.

        Returns:
            The objective's metrics, means over the last tenth of the updates.

        Raises:
            ValueError: the config breaks a rule, or no episode is longer than its windows.
            FloatingPointError: the loss was not finite.
        """
        device = recording.observer.device
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            parts = build_parts(config, encoder, recording.observer)
        source, objective = (part.to(device) for part in parts)
        encoder.train()
        settings = StepSettings(1.0, "separate", 1, self.batch_size, self.learning_rate, self.max_grad_norm)
        owner = torch.optim.SGD(encoder.parameters(), lr=self.learning_rate)  # never stepped: it says whose weights
        step = AuxiliaryStep(encoder, owner, source, objective, settings)
        generator = torch.Generator().manual_seed(seed)
        metrics: dict[str, float] = {}
        mark = self.steps - max(self.steps // 10, 1)
        for update in range(self.steps):
            if update % 100 == 0 or update == mark:
                step.take_metrics()  # says so where the loss is not finite
            step.update(recording.ring, generator, 1.0)
        metrics = step.take_metrics()
        if not metrics:
            raise ValueError(
                f"train.frames must hold at least one batch of {self.batch_size} windows, got {self.frames} frames"
            )
        encoder.eval()
        return metrics


@dataclass(frozen=True)
class Supervised:
    """The same encoder, trained end to end with a softmax head for each variable: what its features could hold.

    The features before the final ReLU carry the heads, standardised over the batch: where most of a frame never
    changes, what does is a tiny part of the features to begin with, and without this 1,200 updates on Pong taught
    nothing. Every `every` updates the mean macro-F1 over variables is taken on validation, and the weights with the
    highest are kept. (The cross-entropy there is lowest long before: heads of a hundred values grow too sure of
    themselves while they still get better.)

    Args:
        steps: updates of Adam, at most.
        batch_size: frames each.
        learning_rate: of encoder and heads.
        every: updates between looks at validation.
        patience: looks without a new best after which training ends.
    """

    steps: int = 3_000
    batch_size: int = 64
    learning_rate: float = 3e-4
    every: int = 100
    patience: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "every", "patience"):
            whole(f"supervised.{name}", getattr(self, name), 2 if name == "batch_size" else 1)
        number("supervised.learning_rate", self.learning_rate, 0.0, above=True)

    def __call__(
        self,
        encoder: BaseFeaturesExtractor,
        recording: Recording,
        train: tuple[np.ndarray, Sequence[np.ndarray]],
        validation: tuple[np.ndarray, Sequence[np.ndarray]],
        seed: int,
    ) -> dict[str, float]:
        """Train the encoder in place.

        Args:
            encoder: with `features_dim`.
            recording: the frames.
            train: indices, and for each variable the classes `(N,)` of these frames.
            validation: likewise; -1 for a class that training does not have.
            seed: of heads and batches.

        Returns:
            `updates` taken, `validation_f1` at the best, and `stopped_early` (0 or 1): 0 says that more updates might
            have helped.
        """
        device = recording.observer.device
        sizes = [int(own.max()) + 1 for own in train[1]]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            standardised = nn.BatchNorm1d(encoder.features_dim, affine=False, track_running_stats=False)
            head = nn.Sequential(standardised, nn.Linear(encoder.features_dim, sum(sizes))).to(device)
        model = BeforeFinalReLU(encoder)
        optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=self.learning_rate)
        drawn = np.random.default_rng(seed)

        def loss(chosen: np.ndarray) -> torch.Tensor:
            targets = [torch.as_tensor(own[chosen], dtype=torch.int64, device=device) for own in train[1]]
            found = head(model(recording.inputs(train[0][chosen]))).split(sizes, 1)
            return torch.stack([F.cross_entropy(z, y) for z, y in zip(found, targets, strict=True)]).mean()

        def score() -> float:
            encoder.eval()
            rows = np.array_split(validation[0], -(-len(validation[0]) // 512))
            with torch.no_grad():
                found = head(torch.cat([model(recording.inputs(own)) for own in rows])).split(sizes, 1)
            encoder.train()
            guesses = [own.argmax(1).cpu().numpy() for own in found]
            return float(np.mean([macro_f1(y, own) for y, own in zip(validation[1], guesses, strict=True)]))

        best, kept, waited, update = -1.0, _copy(encoder), 0, 0
        encoder.train()
        for update in range(1, self.steps + 1):
            optimizer.zero_grad()
            loss(drawn.integers(len(train[0]), size=self.batch_size)).backward()
            optimizer.step()
            if update % self.every and update < self.steps:
                continue
            if (now := score()) > best:
                best, kept, waited = now, _copy(encoder), 0
            else:
                waited += 1
                if waited == self.patience:
                    break
        encoder.load_state_dict(kept)
        encoder.eval()
        return {"updates": update, "validation_f1": best, "stopped_early": float(waited == self.patience)}


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
