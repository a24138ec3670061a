"""What a finished generator is worth: the metrics of its images. Shape legend: N images."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.check import whole
from ...core.files import write_json
from ..images import Images
from ..sampling import sample

QUALITY = "quality.json"


@dataclass
class Evaluation:
    """The metrics of `contraux.clgen.metrics`, of the averaged generator.

    Distances compare with the images that were trained on, and, for the floor, with those of the test split. A
    classifier of the data is trained on all of the training split, whatever part of it the run has seen.

    Args:
        samples: images generated for them, N; None: as many as the training split has.
        extractors: factories, see `contraux.clgen.metrics.extractor.ExtractorFactory`; None: a classifier of the data
            and a network of random weights.
        folder: where the classifier of the default is, or shall be, kept; None: it is trained anew.

    Raises:
        ValueError: a number out of range.
    """

    samples: int | None = None
    extractors: Sequence[Any] | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.samples is not None:
            whole("samples", self.samples, 8)

    def check(self, whole_train: Images, test: Images | None, *, data: str) -> None:
        """Find now what would be found wrong once the training is over; the arguments are those of a call.

        Raises:
            ValueError: too few images, test images of another shape, or a folder without a classifier of these data.
        """
        from ..metrics.classifier import check_kept
        from ..metrics.extractor import Reals
        from ..metrics.suite import Settings, checked

        checked(whole_train, whole_train.tensor[: self.samples], None, test, Settings())
        check_kept(self._factories(), Reals(whole_train, test, data))

    def __call__(
        self, generator: nn.Module, whole_train: Images, test: Images | None, run: Path, *, data: str, seed: int
    ) -> dict[str, float]:
        """Return the metrics by name, such as `frechet/digits_cnn`, and write them with the floor to `quality.json`.

        Args:
            generator: with `latent` and, for a conditional one, `classes`; each class is then asked for equally often.
            whole_train: the training split.
            test: further real images, or None.
            run: folder of the file.
            data: name of the data.
            seed: of the latents and of the metrics' draws.
        """
        from ..metrics.extractor import Reals, made
        from ..metrics.suite import Settings, evaluate_images

        networks, notes = made(self._factories(), Reals(whole_train, test, data))
        for note in notes:
            warnings.warn(note, stacklevel=2)
        count = len(whole_train.tensor) if self.samples is None else self.samples
        classes = int(getattr(generator, "classes", 0))
        labels: Tensor | None = torch.arange(count) % classes if classes else None
        training = generator.training
        images = sample(generator, count, labels, seed=seed)
        generator.train(training)
        device = next(generator.parameters()).device
        found: Mapping[str, Any] = evaluate_images(
            whole_train, images, networks, labels=labels, held_out=test, settings=Settings(seed=seed), device=device
        )
        write_json(run / QUALITY, found)
        metrics: dict[str, float] = found["metrics"]
        return metrics

    def _factories(self) -> Sequence[Any]:
        if self.extractors is not None:
            return self.extractors
        from functools import partial

        from ..metrics.classifier import classifier
        from ..metrics.networks import random_cnn

        return [partial(classifier, folder=self.folder), random_cnn]
