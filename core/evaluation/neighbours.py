"""Weighted nearest neighbours. Shape legend: N training rows, M test rows, D features, C classes, B rows of a block."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from ..check import number, whole
from .linear import accuracy
from .subject import Found, Subject

BUDGET = 2**24
"""Similarities held at once, 64 MiB of float32."""


def nearest_neighbours(
    train_ND: np.ndarray,
    labels_N: np.ndarray,
    test_MD: np.ndarray,
    k: int = 200,
    temperature: float = 0.1,
    device: torch.device | str = "cpu",
    budget: int = BUDGET,
) -> np.ndarray:
    """Return the label that the k nearest training rows vote for, for each test row (Wu et al. 2018, section 3.4).

        score(c) = sum_i [y_i = c] exp(s_i / temperature)  over the k training rows i of largest s_i = cos(f, f_i)

    https://arxiv.org/abs/1805.01978. The matrix of similarities is never whole: blocks of test rows are compared with
    all training rows, `budget` similarities at once (at least one row).

    Args:
        train_ND: training features.
        labels_N: their labels.
        test_MD: test features.
        k: >= 1, at most N.
        temperature: > 0.
        device: where it is computed.
        budget: similarities held at once, >= 1.

    Raises:
        ValueError: a number is out of range.
    """
    k, temperature = whole("k", k, 1), number("temperature", temperature, 0.0, above=True)
    if k > len(train_ND):
        raise ValueError(f"k must be at most the number of training rows, {len(train_ND)}, got {k}")
    classes, positions_N = np.unique(labels_N, return_inverse=True)
    bank_ND = F.normalize(torch.from_numpy(train_ND).to(device), dim=1)
    class_N = torch.from_numpy(positions_N).to(device)
    predicted = []
    for block in torch.from_numpy(test_MD).split(max(whole("budget", budget, 1) // len(train_ND), 1)):
        query_BD = F.normalize(block.to(device), dim=1)
        near_Bk, which_Bk = (query_BD @ bank_ND.T).topk(k, dim=1)
        weights_Bk = ((near_Bk.double() - near_Bk[:, :1]) / temperature).exp()  # divided by the nearest one's
        score_BC = weights_Bk.new_zeros(len(block), len(classes)).scatter_add_(1, class_N[which_Bk], weights_Bk)
        predicted.append(score_BC.argmax(1).cpu().numpy())
    return classes[np.concatenate(predicted)]


@dataclass(frozen=True)
class NearestNeighbours:
    """Accuracy (percent) of `nearest_neighbours` with the training split as memory.

    Args:
        k: >= 1; where there are fewer training examples it is their number, and the report says so.
        temperature: > 0.
    """

    k: int = 200
    temperature: float = 0.1
    seeded: ClassVar[bool] = False
    labels: ClassVar[str] = "class"

    def __post_init__(self) -> None:
        whole("k", self.k, 1)
        number("temperature", self.temperature, 0.0, above=True)

    def __call__(self, subject: Subject, seed: int) -> Found:
        """Return `knn`."""
        train, test = subject.train.known(), subject.test.known()
        k = min(self.k, len(train.rows))
        notes = [] if k == self.k else [f"knn: k = {k}, all training examples, instead of {self.k}"]
        predicted_M = nearest_neighbours(train.rows, train.labels, test.rows, k, self.temperature, subject.device)
        return Found({"knn": accuracy(predicted_M, test.labels)}, notes=notes)
