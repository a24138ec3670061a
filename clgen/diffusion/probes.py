"""What a denoiser is worth by noise level: its error, what its features tell, and what a wrong timestep does to it.

Noise is a function of seed and level, so that two denoisers are compared on the same noisy images. Levels are shares of
the T timesteps, in [0, 1): 0.3 of a thousand is t = 300.

Shape legend: N images, K noise levels or bins, S shifts, D feature dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...core.check import number, whole
from ...core.evaluation import Probe, effective_rank
from ...core.evaluation.features import evaluating
from ..defaults import default_place
from ..images import Images
from ..names import read_place, unwrapped
from ..pooling import pooled
from .labels import NULL, predicted, takes_labels
from .prediction import per_row, target
from .process import Process
from .watch import watched


@dataclass(frozen=True)
class Denoiser:
    """A denoiser and the process of its noise: what the functions below measure.

    Attributes:
        model: a U-Net or DiT of diffusers, without its conditions but class labels; evaluated as it is, without
            gradient, and its modes are afterwards what they were.
        process: of the noise.
        told: whether the model is told the images' classes; otherwise all are told the null class, 1000, so that
            features cannot repeat what they were told.
        batch_size: images a pass.
        seed: of the noise.

    Raises:
        ValueError: a number out of range, or a model that has no null class and is not told the classes.
    """

    model: nn.Module
    process: Process
    told: bool = False
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        whole("batch_size", self.batch_size, 1)
        rows = getattr(getattr(self.model, "class_embedding", None), "num_embeddings", None)
        if rows is not None and rows <= NULL and not self.told:
            raise ValueError(
                f"a model without the null class {NULL} must be told the classes, told=True, and this one has {rows}"
            )

    def timesteps(self, shares: Tensor) -> Tensor:
        """Return timesteps at shares of T in [0, 1), in the dtype that the process draws."""
        dtype = self.process.draw(1, torch.Generator()).dtype
        found = shares * self.process.timesteps
        return found.to(dtype) if dtype.is_floating_point else found.floor().to(dtype)

    def output(self, images: Images, timesteps: Tensor, noise: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return what the model puts out for noisy images and what it should, both `(N, C, H, W)` on its device.

        Args:
            images: clean ones.
            timesteps: `(N,)` of the noise.
            noise: like the images.
            shift: added to what the model is told, within the range of timesteps.
        """
        device = next(self.model.parameters()).device
        clean, noise, timesteps = images.tensor.to(device), noise.to(device), timesteps.to(device)
        alpha, sigma = self.process.levels(timesteps)
        noisy = per_row(alpha, clean) * clean + per_row(sigma, clean) * noise
        labels = None
        if takes_labels(self.model):
            labels = images.labels.to(device) if self.told else torch.full((len(clean),), NULL, device=device)
            labels = labels.masked_fill(labels < 0, NULL)
        last = self.process.timesteps - (0 if timesteps.dtype.is_floating_point else 1)
        said = (timesteps + shift).clamp(0, last).to(timesteps.dtype)
        return predicted(self.model, noisy, said, labels), target(self.process.prediction, clean, noise, alpha, sigma)


class Errors(NamedTuple):
    """Mean squared errors of what the denoiser predicts, in its own units.

    Attributes:
        edges: `(K + 1,)` of the bins, as shares of T.
        mean: `(K,)`.
        deviation: `(K,)` standard error of the mean, over images.
    """

    edges: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def denoising_error(denoiser: Denoiser, images: Images, bins: int = 10, shift: float = 0.0) -> Errors:
    """Return the error in each of K bins of equal width, every image once in each, at a timestep drawn in it.

    Args:
        denoiser: see `Denoiser`.
        images: held-out ones.
        bins: K.
        shift: timesteps added to what the model is told, while the noise stays: the error under a wrong t.

    Raises:
        ValueError: a number out of range, or fewer than 2 images.
    """
    bins, shift, count = whole("bins", bins, 1), number("shift", shift), len(images.tensor)
    if count < 2:
        raise ValueError(f"a standard error needs at least 2 images, got {count}")
    means, deviations = [], []
    with evaluating(denoiser.model), torch.no_grad():
        for k in range(bins):
            draw, noise = _drawn(images, denoiser.seed, k)
            timesteps = denoiser.timesteps((k + draw) / bins)
            errors = []
            for rows in _batches(count, denoiser.batch_size):
                found, wanted = denoiser.output(_rows(images, rows), timesteps[rows], noise[rows], shift)
                errors.append((found - wanted).square().flatten(1).mean(1).double().cpu())
            every = torch.cat(errors)
            means.append(every.mean().item())
            deviations.append(every.std().item() / count**0.5)
    return Errors(np.linspace(0, 1, bins + 1), np.array(means), np.array(deviations))


def perturbed_error(
    denoiser: Denoiser, images: Images, shifts: Sequence[float] = (-100, -50, 0, 50, 100), bins: int = 10
) -> np.ndarray:
    """Return `(S, K)` mean errors where the model is told t + shift for images that are noisy as at t.

    Args:
        denoiser: see `Denoiser`.
        images: held-out ones.
        shifts: in timesteps; the same noise for all of them.
        bins: K, see `denoising_error`.

    Raises:
        ValueError: as for `denoising_error`.
    """
    return np.stack([denoising_error(denoiser, images, bins, shift).mean for shift in shifts])


def level_features(
    denoiser: Denoiser, images: Images, level: float, at: str | None = None, pool: str = "mean"
) -> np.ndarray:
    """Return `(N, D)` float32 features of images that are noisy as at one level.

    Args:
        denoiser: see `Denoiser`.
        images: clean ones.
        level: share of T, in [0, 1).
        at: dotted name of the module that is looked at; None: where `attach` would tap.
        pool: as for `attach`.

    Raises:
        ValueError: a level out of range, or no such module.
    """
    level, model = number("level", level, 0.0, 1.0, below=True), unwrapped(denoiser.model)
    place = default_place(model, "features") if at is None else at
    if place is None:
        raise ValueError(f"at must be the dotted name of a module of {type(model).__name__}, which has no default")
    found = []
    _, noise = _drawn(images, denoiser.seed, round(level * 1e6))
    timesteps = denoiser.timesteps(torch.full((len(noise),), level))
    with evaluating(denoiser.model), torch.no_grad(), watched(model, read_place(place)) as outputs:
        for rows in _batches(len(noise), denoiser.batch_size):
            denoiser.output(_rows(images, rows), timesteps[rows], noise[rows])
            if not outputs:
                raise ValueError(f"the module at {place} must be part of the forward pass, and is not")
            found.append(pooled(outputs[0], pool).float().cpu().numpy())  # the first time, of one that runs twice
            outputs.clear()
    return np.concatenate(found)


class LevelProbes(NamedTuple):
    """What the features tell at each noise level.

    Attributes:
        levels: `(K,)` shares of T.
        accuracy: `(K,)` percent, of a linear probe on the classes of held-out images.
        effective_rank: `(K,)` of the held-out images' features.
        converged: `(K,)` bool, whether the fit of the probe had.
    """

    levels: np.ndarray
    accuracy: np.ndarray
    effective_rank: np.ndarray
    converged: np.ndarray


def probe_by_level(
    denoiser: Denoiser,
    train: Images,
    test: Images,
    levels: Sequence[float] = (0.05, 0.3, 0.6),
    *,
    at: str | None = None,
    pool: str = "mean",
    probe: Probe | None = None,
) -> LevelProbes:
    """Return accuracy of a linear probe and effective rank of the features at each noise level.

    The probe is that of `contraux evaluate`: logistic regression on features standardised over the training images.
    Training and test images are noisy as at the same level.

    Args:
        denoiser: see `Denoiser`.
        train: images that the probe is fitted to, with classes.
        test: images that it is tested on.
        levels: shares of T, in [0, 1).
        at: see `level_features`.
        pool: likewise.
        probe: its strength; None: `Probe()`.

    Raises:
        ValueError: as for `level_features`, or images without classes.
    """
    probe = Probe() if probe is None else probe
    train, test = (_rows(one, torch.nonzero(one.labels >= 0)[:, 0]) for one in (train, test))
    if not len(train.labels) or not len(test.labels):
        raise ValueError("a linear probe needs images with classes on both sides, got none")
    accuracy, rank, converged = [], [], []
    for level in levels:
        # Another seed for the training images: their noise is not that of the test images.
        other = Denoiser(denoiser.model, denoiser.process, denoiser.told, denoiser.batch_size, denoiser.seed + 1)
        own, held_out = level_features(other, train, level, at, pool), level_features(denoiser, test, level, at, pool)
        mean, deviation = own.mean(0), own.std(0)
        deviation = np.where(deviation > 1e-6 * max(float(deviation.max()), 1e-30), deviation, 1.0)
        found, fitted = probe.predict(
            (own - mean) / deviation, train.labels.cpu().numpy(), (held_out - mean) / deviation
        )
        accuracy.append(100 * float((found == test.labels.cpu().numpy()).mean()))
        rank.append(effective_rank(torch.from_numpy(held_out)))
        converged.append(fitted)
    return LevelProbes(np.array(levels, dtype=float), np.array(accuracy), np.array(rank), np.array(converged))


def _drawn(images: Images, seed: int, level: int) -> tuple[Tensor, Tensor]:
    """Return `(N,)` uniform draws and noise like the images."""
    words = np.random.SeedSequence([seed, level]).generate_state(2)
    generator = torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
    draw = torch.rand(len(images.tensor), generator=generator)
    return draw, torch.randn(images.tensor.shape, generator=generator)


def _batches(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _rows(images: Images, rows: slice | Tensor) -> Images:
    return images._replace(tensor=images.tensor[rows], labels=images.labels[rows])
