"""N-way k-shot episodes.

Shape legend: E episodes, W ways, K shots, Q queries a way, S = W K support rows, X = W Q query rows, D features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..check import number, whole
from .draws import title
from .subject import Features, Found, Subject


@dataclass(frozen=True)
class Episodes:
    """Accuracy (percent) in N-way k-shot episodes (Vinyals et al. 2016, section 4): a mean with a 95 % interval.

    Each episode draws classes, and of each class support and query examples, all from the test split; a classifier sees
    the support's labels only. There are two: the nearest `prototypes` (Snell et al. 2017) and logistic regression.
    https://arxiv.org/abs/1606.04080, https://arxiv.org/abs/1703.05175

    Deviations: the classes are those of the training split, whose examples, without labels, pretraining saw; the
    papers' are new. Features are standardised over the training split.

    Args:
        ways: >= 2 classes an episode.
        shots: support examples a class, each number a figure of its own.
        queries: >= 1 query examples a class.
        episodes: >= 2 for each seed.
        c: > 0, inverse strength of the logistic regression's penalty.
    """

    ways: int = 5
    shots: Sequence[int] = (1, 5)
    queries: int = 15
    episodes: int = 200
    c: float = 1.0
    seeded: ClassVar[bool] = True
    labels: ClassVar[str] = "class"

    def __post_init__(self) -> None:
        whole("ways", self.ways, 2)
        whole("queries", self.queries, 1)
        whole("episodes", self.episodes, 2)
        number("c", self.c, 0.0, above=True)
        for shots in self.shots:
            whole("shots", shots, 1)

    def __call__(self, subject: Subject, seed: int) -> Found:
        """Return `prototypes_5_way_1_shot`, `logistic_5_way_1_shot` and so on."""
        test = subject.standardised[1].known()
        values, half_widths = {}, {}
        for shots in self.shots:
            drawn = draw_episodes(
                test, self.ways, shots, self.queries, self.episodes, (seed, shots), subject.test_data.classes
            )
            support_EWKD, query_EWQD = (part.to(subject.device) for part in drawn)
            for name, correct_E in {
                "prototypes": prototypes(support_EWKD, query_EWQD),
                "logistic": logistic(support_EWKD, query_EWQD, self.c),
            }.items():
                name = f"{name}_{self.ways}_way_{shots}_shot"
                values[name] = 100 * float(correct_E.mean())
                half_widths[name] = 196 * float(correct_E.std()) / math.sqrt(self.episodes)
        return Found(values, half_widths)


def draw_episodes(
    features: Features,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int | Sequence[int],
    names: Sequence[str] = (),
) -> tuple[Tensor, Tensor]:
    """Return support `(E, W, K, D)` and queries `(E, W, Q, D)`; within an episode no example occurs twice.

    Raises:
        ValueError: fewer classes than ways, or a class with too few examples; the sentence names it.
    """
    classes = np.unique(features.labels)
    if len(classes) < ways:
        raise ValueError(f"{ways}-way episodes need as many classes, and the test split has {len(classes)}")
    members = [np.flatnonzero(features.labels == name) for name in classes]
    each = shots + queries
    for name, own in zip(classes, members, strict=True):
        if len(own) < each:
            raise ValueError(
                f"{shots}-shot episodes with {queries} queries need {each} test examples of each class, and class "
                f"{title(name, names)} has {len(own)}"
            )
    rng = np.random.default_rng(seed)
    chosen = np.empty((episodes, ways, each), dtype=np.int64)
    for episode in chosen:
        for row, way in zip(episode, rng.choice(len(classes), ways, replace=False), strict=True):
            row[:] = rng.choice(members[way], each, replace=False)
    drawn_EWXD = torch.from_numpy(features.rows[chosen])
    return drawn_EWXD[:, :, :shots], drawn_EWXD[:, :, shots:]


def prototypes(support_EWKD: Tensor, query_EWQD: Tensor) -> Tensor:
    """Return the share of queries `(E,)` nearest, by Euclidean distance, to their own class's mean.

    The prototype of a class is the mean of its support (Snell et al. 2017, eq. 1 and 2).
    """
    distance_EXW = torch.cdist(query_EWQD.flatten(1, 2), support_EWKD.mean(2))
    return _correct(-distance_EXW, query_EWQD)


def logistic(support_EWKD: Tensor, query_EWQD: Tensor, c: float = 1.0, tolerance: float = 1e-3) -> Tensor:
    """Return the share of queries `(E,)` that logistic regression, fitted to each episode's support, gets right.

        minimise  c sum_i -log softmax(V x_i)[y_i] + |V|^2 / 2  over V (W, D)

    All episodes are solved at once. By the representer theorem V = A^T X, with X (S, D) the support; in these terms the
    gradient is A - c (Y - P), so that accelerated gradient descent (Nesterov, for 1-strongly convex functions) needs
    products with X X^T (S, S) only, whatever D is.

    Deviations from the usual estimator: no intercept, which balanced classes do not need.

    Args:
        support_EWKD: the labelled examples.
        query_EWQD: those to be told apart.
        c: > 0.
        tolerance: > 0; stops when no entry of A changes by more than this times c in a step.
    """
    episodes, ways, shots, _ = support_EWKD.shape
    support_ESD, query_EXD = support_EWKD.flatten(1, 2), query_EWQD.flatten(1, 2)
    gram_ESS = support_ESD @ support_ESD.mT
    largest_E11 = torch.linalg.eigvalsh(gram_ESS)[:, -1].clamp(min=0.0).view(-1, 1, 1)
    smooth_E11 = 1 + c * largest_E11 / 2  # the softmax's Hessian is at most 1/2
    momentum_E11 = (smooth_E11.sqrt() - 1) / (smooth_E11.sqrt() + 1)
    truth_SW = torch.eye(ways, dtype=gram_ESS.dtype, device=gram_ESS.device).repeat_interleave(shots, 0)
    a_ESW = ahead_ESW = gram_ESS.new_zeros(episodes, ways * shots, ways)
    for step in range(5000):
        before_ESW = a_ESW
        residual_ESW = truth_SW - (gram_ESS @ ahead_ESW).softmax(2)
        a_ESW = ahead_ESW - (ahead_ESW - c * residual_ESW) / smooth_E11
        ahead_ESW = a_ESW + momentum_E11 * (a_ESW - before_ESW)
        if step % 20 == 19 and float((c * residual_ESW - ahead_ESW).abs().amax()) < tolerance * c:
            break
    return _correct(query_EXD @ support_ESD.mT @ a_ESW, query_EWQD)


def _correct(score_EXW: Tensor, query_EWQD: Tensor) -> Tensor:
    ways, queries = query_EWQD.shape[1:3]
    truth_X = torch.arange(ways, device=score_EXW.device).repeat_interleave(queries)
    return (score_EXW.argmax(2) == truth_X).double().mean(1)
