"""One encoder in one game with one seed. Shape legend: N frames, D features, V variables."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.check import choice
from ...core.evaluation.features import evaluating
from .arms import Arm
from .networks import BeforeFinalReLU, Pixels, untrained
from .probe import Probe, Splits, classes
from .recording import Recording
from .saved import load
from .split import Kept, Split
from .train import Supervised, Training

LAYERS = ("before_relu", "after_relu", "both")


@dataclass(frozen=True)
class Data:
    """What the arms of one environment and seed have in common.

    Attributes:
        recording: frames with labels.
        split: of them.
        kept: which columns of the labels are probed, and why the others are not.
        unlabelled: makes the frames that objectives train on, when first asked.
    """

    recording: Recording
    split: Split
    kept: Kept
    unlabelled: Callable[[], Recording]

    def labels(self) -> Splits:
        """Return `(N, V)` labels of each part."""
        parts = (self.split.train, self.split.validation, self.split.test)
        return Splits(*(self.recording.labels[own][:, self.kept.columns] for own in parts))


@dataclass(frozen=True)
class Bench:
    """How encoders are made and probed.

    Attributes:
        probe: the probes.
        training: of objectives.
        supervised: of the encoder that sees the labels.
        layer: `before_relu`, `after_relu` or `both`: which features are probed where an encoder ends with a ReLU.
        role: `critic` or `actor`, of saved agents.
        features_dim: D of encoders made here.
        pixels: height and width that frames are averaged down to.
        batch_size: of passes through an encoder.
        device: where encoders and classifiers are.
    """

    probe: Probe
    training: Training
    supervised: Supervised
    layer: str = "before_relu"
    role: str = "critic"
    features_dim: int = 256
    pixels: int = 21
    batch_size: int = 256
    device: str = "cpu"

    def __post_init__(self) -> None:
        choice("layer", self.layer, LAYERS)
        choice("role", self.role, ("critic", "actor"))

    def run(self, arm: Arm, data: Data, seed: int) -> tuple[dict[str, Any], nn.Module]:
        """Make an encoder and probe it.

        Returns:
            Figures by layer and variable, with what else there is to say; and the encoder.
        """
        begun, cpu = time.perf_counter(), time.process_time()
        encoder, made = self._encoder(arm, data, seed)
        trained, trained_cpu = time.perf_counter(), time.process_time()
        layers: dict[str, Any] = {}
        facts: dict[str, Any] = {}
        for layer in LAYERS[:2]:
            if self.layer not in (layer, "both"):
                continue
            network = encoder if layer == "after_relu" else BeforeFinalReLU(encoder)
            features = self.features(network, data)
            facts["features"] = features.train.shape[1]
            facts[f"constant_{layer}"] = int((features.train.std(0) == 0).sum())
            found = self.probe(features, data.labels(), self.device)
            named = [data.recording.variables[column] for column in data.kept.columns]
            layers[layer] = [
                {"name": variable.name, "category": variable.category, **figures}
                for variable, figures in zip(named, found, strict=True)
            ]
            if isinstance(network, BeforeFinalReLU) and not network.ends_with_relu:
                break  # there is no ReLU for the features to be after
        seconds = {
            "training": trained - begun,
            "training_cpu": trained_cpu - cpu,
            "probing": time.perf_counter() - trained,
            "probing_cpu": time.process_time() - trained_cpu,
        }
        facts |= {"training": made, "seconds": {name: round(value, 2) for name, value in seconds.items()}}
        return {"layers": layers, **facts}, encoder

    def features(self, encoder: nn.Module, data: Data) -> Splits:
        """Return `(N, D)` float32 features of each part, from the encoder in evaluation mode.

        Raises:
            ValueError: features that are not finite, or not of two axes.
        """
        parts = []
        with evaluating(encoder), torch.no_grad():
            for indices in (data.split.train, data.split.validation, data.split.test):
                rows = np.array_split(indices, -(-len(indices) // self.batch_size))
                batches: list[Tensor] = [encoder(data.recording.inputs(own)).float().cpu() for own in rows]
                parts.append(torch.cat(batches).numpy())
        if any(part.ndim != 2 for part in parts):
            raise ValueError(f"an encoder must return (N, D) features, got {parts[0].shape}")
        if not all(np.isfinite(part).all() for part in parts):
            raise ValueError("features must be finite, and some are not: the encoder's training has diverged")
        return Splits(*parts)

    def _encoder(self, arm: Arm, data: Data, seed: int) -> tuple[nn.Module, dict[str, float]]:
        observer = data.recording.observer
        if arm.kind == "saved":
            return load(arm.file(seed), observer.space, self.device, self.role), {}
        if arm.kind == "pixels":
            stacks = [leaf for leaf in data.recording.ring.leaves.values() if len(leaf.shape) == 3]
            channels = stacks[0].shape[0] // stacks[0].stack if len(stacks) == 1 else None
            return Pixels(channels, self.pixels), {}
        encoder = untrained(observer, self.features_dim, seed).to(self.device)
        if arm.kind == "objective":
            return encoder, self.training(encoder, arm.objective(), data.unlabelled(), seed)
        if arm.kind == "supervised":
            labels = data.labels()
            taught = [self._codes(labels, v) for v in range(len(data.kept.columns))]
            train = (data.split.train, [own[0] for own in taught])
            validation = (data.split.validation, [own[1] for own in taught])
            return encoder, self.supervised(encoder, data.recording, train, validation, seed)
        return encoder, {}

    def _codes(self, labels: Splits, v: int) -> tuple[np.ndarray, np.ndarray]:
        """Return classes from 0 of one variable in training and validation; -1 for what training does not have."""
        train, validation, _ = classes([own[:, v] for own in labels], self.probe.bins)
        values = np.unique(train)
        codes = np.searchsorted(values, validation).clip(0, len(values) - 1)
        return np.searchsorted(values, train), np.where(values[codes] == validation, codes, -1)
