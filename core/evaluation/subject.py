"""What is measured, and what a measure is. Shape legend: N examples, D features, L labels of one example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..data.protocol import DataSet

TwoViewsOf = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Two augmented views of a batch of inputs, normalised: `contraux.core.views.TwoViews`."""


class Features(NamedTuple):
    """What an encoder made of a data set.

    Attributes:
        rows: `(N, D)` float32.
        labels: `(N,)` int64 classes, -1 where unknown; or `(N, L)` int64 where each example has L labels of its own.
    """

    rows: np.ndarray
    labels: np.ndarray

    def known(self) -> "Features":
        """Return the examples whose class is known; all of them where an example has several labels."""
        if self.labels.ndim > 1:
            return self
        known_N = self.labels >= 0
        return Features(self.rows[known_N], self.labels[known_N])


@dataclass(frozen=True)
class Subject:
    """One encoder with what it makes of a data set: what measures look at.

    Attributes:
        encoder: takes a batch's inputs as they are and returns `(N, D)`; in eval mode, and left as it is.
        train: features of the training split.
        test: features of the test split.
        train_data: the training split itself.
        test_data: the test split itself.
        views: makes two augmented views, for alignment; None where pretraining's views are not known.
        device: where the encoder is.
        batch_size: of passes through the encoder.
        workers: processes that read the data in such passes.
    """

    encoder: nn.Module
    train: Features
    test: Features
    train_data: DataSet
    test_data: DataSet
    views: TwoViewsOf | None = None
    device: torch.device | str = "cpu"
    batch_size: int = 256
    workers: int = 0

    @cached_property
    def standardised(self) -> tuple[Features, Features]:
        """Both splits with each feature at mean 0 and standard deviation 1 over all training examples.

        No label is used for it, so that probes of few labels see the same features as probes of all.
        """
        mean_D, sd_D = self.train.rows.mean(0), self.train.rows.std(0)
        sd_D = np.where(sd_D > 1e-6 * max(float(sd_D.max(initial=0.0)), 1e-30), sd_D, 1.0)  # a constant stays 0
        train, test = ((split.rows - mean_D) / sd_D for split in (self.train, self.test))
        return Features(train, self.train.labels), Features(test, self.test.labels)


@dataclass(frozen=True)
class Found:
    """What a measure found.

    Attributes:
        values: by name; accuracies in percent.
        half_widths: of the 95 % interval over what was drawn within this one value (episodes), by the same names.
        notes: sentences on what a reader must know beside the numbers.
    """

    values: Mapping[str, float]
    half_widths: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Measure(Protocol):
    """One way to say what features are worth: one file, and one entry under `measures` of `configs/evaluate.yaml`.

    Attributes:
        seeded: the value depends on the seed (draws of labels, episodes); otherwise it is taken once per encoder.
        labels: `class`, if every example must have one label; `any`, if it may have several; `none` needed.
    """

    seeded: ClassVar[bool]
    labels: ClassVar[str]

    def __call__(self, subject: Subject, seed: int) -> Found:
        """Return the values of this encoder."""
        ...
