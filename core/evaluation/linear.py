"""Linear probes: logistic regression on frozen features. Shape legend: N, M examples, D features, L labels of one."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from ..check import number, whole
from .draws import Shots, draw_labels, shots_name
from .geometry import evenly_spaced
from .subject import Features, Found, Subject


@dataclass(frozen=True)
class Probe:
    """The fixed protocol of every linear probe here: multinomial logistic regression, L2, L-BFGS to convergence.

        minimise  c sum_i -log softmax(W x_i + b)[y_i] + |W|^2 / 2

    Nothing is chosen on the test split, and no strength is searched for, so that arms differ by their features alone.

    Args:
        c: > 0, inverse strength of the penalty.
        max_iter: >= 1; a probe that stops there without having converged is counted and said.
    """

    c: float = 1.0
    max_iter: int = 1000

    def __post_init__(self) -> None:
        number("c", self.c, 0.0, above=True)
        whole("max_iter", self.max_iter, 1)

    def predict(self, train_ND: np.ndarray, labels_N: np.ndarray, test_MD: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the predicted label of each test row, and whether the fit had converged.

        Where all training labels are the same, that is what is predicted.
        """
        if (labels_N == labels_N[0]).all():
            return np.full(len(test_MD), labels_N[0]), True
        model = LogisticRegression(C=self.c, max_iter=self.max_iter)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(train_ND, labels_N)
        stopped = False
        for warning in caught:
            if issubclass(warning.category, ConvergenceWarning):
                stopped = True
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return model.predict(test_MD), not stopped


@dataclass(frozen=True)
class LinearProbe:
    """Accuracy (percent) of a linear probe on all labels of the training split.

    Where examples have several labels, such as the bytes of an emulator's memory, there is a probe for each label, and
    accuracy and F1 are means over labels (Anand et al. 2019, section 5). https://arxiv.org/abs/1906.08226

    Deviations: fit to convergence, not by Adam with early stopping; the F1 of a label is the mean over its values
    weighted by how often each occurs, as in the authors' code; all bytes, not only those that somebody has named.

    Args:
        c: > 0, see `Probe`.
        max_iter: >= 1, see `Probe`.
        min_entropy: >= 0 in nats; labels of less entropy over the training split are left out, since always guessing
            their one frequent value would look like knowledge.
        most: >= 1, how many of the labels that are left have a probe, evenly spaced; None: all. Every probe takes
            seconds, and an emulator's memory has 128 bytes.
    """

    c: float = 1.0
    max_iter: int = 1000
    min_entropy: float = 0.6
    most: int | None = 16
    seeded: ClassVar[bool] = False
    labels: ClassVar[str] = "any"

    def __post_init__(self) -> None:
        Probe(self.c, self.max_iter)
        number("min_entropy", self.min_entropy, 0.0)
        if self.most is not None:
            whole("most", self.most, 1)

    def __call__(self, subject: Subject, seed: int) -> Found:
        """Return `linear`; or `linear` and `linear_f1` over the labels of each example."""
        train, test = (split.known() for split in subject.standardised)
        if train.labels.ndim == 1:
            predicted_M, converged = Probe(self.c, self.max_iter).predict(train.rows, train.labels, test.rows)
            notes = unconverged("linear", int(not converged), 1, self.max_iter)
            return Found({"linear": accuracy(predicted_M, test.labels)}, notes=notes)
        return self._of_each(train, test)

    def _of_each(self, train: Features, test: Features) -> Found:
        total = train.labels.shape[1]
        varied = [label for label in range(total) if entropy(train.labels[:, label]) >= max(self.min_entropy, 1e-12)]
        if not varied:
            raise ValueError(
                f"a linear probe needs a label with an entropy of at least min_entropy={self.min_entropy:g} nats, and "
                f"none of the {total} has it"
            )
        used = [varied[i] for i in evenly_spaced(len(varied), self.most or len(varied))]
        probe, correct, f1, stopped = Probe(self.c, self.max_iter), [], [], 0
        for label in used:
            truth_M = test.labels[:, label]
            predicted_M, converged = probe.predict(train.rows, train.labels[:, label], test.rows)
            correct.append(accuracy(predicted_M, truth_M))
            f1.append(100 * float(f1_score(truth_M, predicted_M, average="weighted", zero_division=0)))
            stopped += not converged
        share = "" if len(used) == len(varied) else f"{len(used)}, evenly spaced, of the "
        notes = [
            f"linear: means over {share}{len(varied)} of {total} labels, those of at least {self.min_entropy:g} nats"
        ]
        notes += unconverged("linear", stopped, len(used), self.max_iter)
        return Found({"linear": float(np.mean(correct)), "linear_f1": float(np.mean(f1))}, notes=notes)


@dataclass(frozen=True)
class FewLabels:
    """Accuracy (percent) of a linear probe on few labels of each class, mean over draws of them.

    Features are standardised over the whole training split, which takes no labels. A draw of more labels contains that
    of fewer, and every encoder gets the same draws, so that differences are paired.

    Args:
        shots: labels of each class, such as `[1, 5, 10]`; `1%` is that share of each class, at least one.
        draws: >= 1, how many draws of labels one value is the mean of.
        c: > 0, see `Probe`.
        max_iter: >= 1, see `Probe`.
    """

    shots: Sequence[Shots] = (1, 5, 10)
    draws: int = 5
    c: float = 1.0
    max_iter: int = 1000
    seeded: ClassVar[bool] = True
    labels: ClassVar[str] = "class"

    def __post_init__(self) -> None:
        Probe(self.c, self.max_iter)
        whole("draws", self.draws, 1)
        for shots in self.shots:
            shots_name(shots)

    def __call__(self, subject: Subject, seed: int) -> Found:
        """Return `linear_1_shot`, `linear_1_percent` and so on."""
        train, test = (split.known() for split in subject.standardised)
        probe = Probe(self.c, self.max_iter)
        values: dict[str, float] = {}
        stopped = 0
        for shots in self.shots:
            correct = []
            for draw in range(self.draws):
                chosen = draw_labels(train.labels, shots, (seed, draw), subject.train_data.classes)
                predicted_M, converged = probe.predict(train.rows[chosen], train.labels[chosen], test.rows)
                correct.append(accuracy(predicted_M, test.labels))
                stopped += not converged
            values[f"linear_{shots_name(shots)}"] = float(np.mean(correct))
        fits = self.draws * len(self.shots)
        return Found(values, notes=unconverged("few labels", stopped, fits, self.max_iter))


def accuracy(predicted_M: np.ndarray, truth_M: np.ndarray) -> float:
    """Return the percentage of equal entries."""
    return 100 * float((predicted_M == truth_M).mean())


def entropy(labels_N: np.ndarray) -> float:
    """Return the entropy of the labels' frequencies, in nats."""
    share = np.unique(labels_N, return_counts=True)[1] / len(labels_N)
    return float(-(share * np.log(share)).sum())


def unconverged(name: str, stopped: int, fits: int, max_iter: int) -> list[str]:
    """Return a sentence where fits had not converged."""
    if not stopped:
        return []
    return [f"{name}: {stopped} of {fits} fits had not converged after max_iter={max_iter} iterations"]
