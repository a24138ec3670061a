"""What a finished denoiser is worth: its images, its error by noise level, and what its features tell."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...core.check import number, whole
from ...core.files import write_json
from ..diffusion.probes import Denoiser, denoising_error, perturbed_error, probe_by_level
from ..diffusion.process import Process
from ..images import Images
from ..names import module_at, read_place
from .quality import quality
from .sampling import check_steps

LEVELS = "levels.json"


@dataclass
class Evaluation:
    """The measures of a run's end, and their strength.

    Args:
        samples: images generated for the metrics of their quality; 0: none.
        extractors: whose features the metrics of quality look at, factories by any name; none: no such metrics.
        sampling_steps: how many steps of the sampler, each measured.
        images: of the test split at most, and twice as many of the training split for the probes.
        bins: of the noise level, for the error.
        shifts: timesteps that the denoiser is told too many and too few, > 0.
        levels: shares of T, in [0, 1), at which a linear probe looks at the features.
        at: dotted name of the module whose features are looked at; None: where an objective is attached by default.
        beside: a run whose curves are drawn beside this one's; None: none.
        picture: draw `levels.png`.

    Raises:
        ValueError: a value breaks its rule.
    """

    samples: int = 512
    extractors: Mapping[str, Any] = field(default_factory=dict)
    sampling_steps: Sequence[int] = (5, 10, 40)
    images: int = 1000
    bins: int = 10
    shifts: Sequence[float] = (50, 100)
    levels: Sequence[float] = (0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
    at: str | None = None
    beside: str | None = None
    picture: bool = True

    def __post_init__(self) -> None:
        whole("samples", self.samples)
        whole("images", self.images, 2)
        whole("bins", self.bins, 1)
        for steps in self.sampling_steps:
            whole("sampling_steps", steps, 1)
        for shift in self.shifts:
            number("shifts", shift, 0, above=True)
        for level in self.levels:
            number("levels", level, 0, 1, below=True)

    def check(self, model: nn.Module, process: Process, train: Images, *, data: str) -> None:
        """Find now what would be found wrong once the training is over; the arguments are those of a call.

        Raises:
            ValueError: no such module or run beside, more steps than the sampler has, or a classifier of other data.
        """
        if self._extractors():
            for steps in self.sampling_steps:
                check_steps(process, steps)
            from ..metrics.classifier import check_kept
            from ..metrics.extractor import Reals

            check_kept(self._extractors(), Reals(train, None, data))
        if train.classes and self.at is not None:
            module_at(model, read_place(self.at).name)
        if self.picture and self.beside is not None and not (Path(self.beside) / LEVELS).is_file():
            raise ValueError(f"evaluation.beside must be a finished run of contraux diffusion, got {self.beside}")

    def __call__(
        self,
        model: nn.Module,
        process: Process,
        train: Images,
        test: Images,
        run: Path,
        *,
        data: str,
        conditional: bool,
        guidance: float,
        seed: int,
    ) -> dict[str, float]:
        """Return metrics by name, and write the curves over the noise level to `levels.json` and `levels.png`.

        Args:
            model: a denoiser with averaged weights.
            process: of the noise.
            train: images it was trained on.
            test: images it was not.
            run: folder of the files.
            data: their name.
            conditional: whether it was told classes.
            guidance: with which it samples then.
            seed: of noise.
        """
        found: dict[str, float] = {}
        if self._extractors():
            found |= quality(
                model, process, train, test, run, extractors=self._extractors(), data=data, count=self.samples,
                sampling_steps=self.sampling_steps, conditional=conditional, guidance=guidance, seed=seed,
            )  # fmt: skip
        test = _first(test, self.images)
        curves = self._errors(Denoiser(model, process, told=conditional, seed=seed), test)
        if train.classes and test.classes:
            curves |= self._probes(Denoiser(model, process, seed=seed), _first(train, 2 * self.images), test)
        write_json(run / LEVELS, curves)
        if self.picture:
            try:
                from .curves import draw

                draw(run / LEVELS, run / "levels.png", None if self.beside is None else Path(self.beside) / LEVELS)
            except ImportError:
                warnings.warn("no picture without matplotlib: pip install 'contraux[jobs]'", stacklevel=2)
        return found | _summary(curves)

    def _extractors(self) -> list[Any]:
        """Return what looks at the samples; empty where there are none."""
        return [one for one in self.extractors.values() if one is not None] if self.samples else []

    def _errors(self, denoiser: Denoiser, test: Images) -> dict[str, Any]:
        error = denoising_error(denoiser, test, self.bins)
        curves = {"edges": error.edges.tolist(), "error": error.mean.tolist(), "deviation": error.deviation.tolist()}
        signed = [sign * shift for shift in self.shifts for sign in (-1, 1)]
        if not signed:
            return curves
        shifted = perturbed_error(denoiser, test, signed, self.bins)
        return curves | {"shifts": signed, "shifted_error": shifted.tolist()}

    def _probes(self, denoiser: Denoiser, train: Images, test: Images) -> dict[str, Any]:
        found = probe_by_level(denoiser, train, test, self.levels, at=self.at)
        if not found.converged.all():
            warnings.warn("a linear probe had not converged", stacklevel=2)
        return {
            "levels": found.levels.tolist(),
            "accuracy": found.accuracy.tolist(),
            "effective_rank": found.effective_rank.tolist(),
        }


def _first(images: Images, count: int) -> Images:
    """Return at most `count` images, drawn once and for all."""
    if len(images.tensor) <= count:
        return images
    rows = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(images.tensor))[:count]))
    return images._replace(tensor=images.tensor[rows], labels=images.labels[rows])


def _summary(curves: dict[str, Any]) -> dict[str, float]:
    """Return one number for each measure that the picture shows as a curve, and each probe."""
    found = {"denoising_error": float(np.mean(curves["error"]))}
    shifts = np.abs(curves.get("shifts", []))
    for shift in sorted(set(shifts.tolist())):
        found[f"shifted_error_{shift:g}"] = float(np.mean(np.array(curves["shifted_error"])[shifts == shift]))
    for i, level in enumerate(curves.get("levels", [])):
        found[f"probe_{level:g}"] = curves["accuracy"][i]
    for i, level in enumerate(curves.get("levels", [])):
        found[f"effective_rank_{level:g}"] = curves["effective_rank"][i]
    return found
