"""Both probes of every variable: classified by its value, and predicted as a number.

Shape legend: N frames of one split, D features, V variables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import f1_score

from ...core.check import number, whole
from .ridge import r2, ridge
from .softmax import Softmax, fit_softmax

MEASURES = ("macro_f1", "weighted_f1", "accuracy", "r2")
MOST_CLASSES = 256  # of whole numbers: the values of a byte


class Splits(NamedTuple):
    """One array for each of training, validation and test."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Probe:
    """The protocol, the same for every encoder.

    The classifiers see whitened features: their penalty is then on the variance of the logits, and what they find is
    the same for any invertible linear map of the features. (A penalty on weights of standardised features, as
    scikit-learn's users have it, hides what lies in directions of little variance, and trained encoders put most there:
    of one trained on Pong two of 256 directions held nearly all variance.) The regression sees standardised features.
    For each variable the classifier takes the `c`, and the regression the `alpha`, that do best on validation
    (macro-F1, R2); nothing is chosen on the test.

    Args:
        c: inverse strengths of the classifier's penalty, each > 0; see `fit_softmax`.
        alphas: strengths of the regression's, each > 0; see `ridge`.
        max_iter: >= 1, of each fit of the classifiers.
        tolerance: > 0, at which they have converged.
        bins: >= 2; a variable that is not made of at most 256 whole numbers is classified by so many quantiles of its
            training labels.
    """

    c: Sequence[float] = (0.01, 0.1, 1.0)
    alphas: Sequence[float] = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
    max_iter: int = 1000
    tolerance: float = 1e-4
    bins: int = 10

    def __post_init__(self) -> None:
        for name, values in (("probe.c", self.c), ("probe.alphas", self.alphas)):
            if not isinstance(values, Sequence) or isinstance(values, str) or not len(values):
                raise ValueError(f"{name} must be a list of numbers > 0, got {values!r}")
            for value in values:
                number(name, value, 0.0, above=True)
        whole("probe.max_iter", self.max_iter, 1)
        number("probe.tolerance", self.tolerance, 0.0, above=True)
        whole("probe.bins", self.bins, 2)

    def __call__(self, features: Splits, labels: Splits, device: torch.device | str = "cpu") -> list[dict[str, float]]:
        """Return the figures of each variable on the test.

        Args:
            features: `(N, D)` each.
            labels: `(N, V)` each; every variable varies in training and test.
            device: where the classifiers are fitted.

        Returns:
            For each variable `macro_f1`, `weighted_f1`, `accuracy` (all in [0, 1]), `r2` (at most 1), the `c` and
            `alpha` chosen, and `converged` (0 or 1) of the classifier.
        """
        features = standardise(features)
        return [
            {**classified, **regressed}
            for classified, regressed in zip(
                self._classify(whiten(features), labels, device), self._regress(features, labels), strict=True
            )
        ]

    def _classify(self, features: Splits, labels: Splits, device: torch.device | str) -> list[dict[str, float]]:
        variables = range(labels.train.shape[1])
        coded = [Splits(*classes([own[:, v] for own in labels], self.bins)) for v in variables]
        values = [np.unique(own.train) for own in coded]
        targets = [np.searchsorted(own, one.train) for own, one in zip(values, coded, strict=True)]
        train, validation, test = (torch.as_tensor(own, dtype=torch.float32, device=device) for own in features)
        classes_NV = torch.as_tensor(np.stack(targets, 1), device=device)
        sizes = [len(own) for own in values]
        best: list[dict[str, float]] = [{} for _ in variables]
        scores = np.full(len(best), -np.inf)
        fitted: Softmax | None = None
        for c in sorted(self.c):  # the strongest penalty first: it is soon solved, and where the next one starts
            fitted = fit_softmax(
                train, classes_NV, sizes, c=c, max_iter=self.max_iter, tolerance=self.tolerance, start=fitted
            )
            guesses, answers = fitted.predict(validation).cpu().numpy(), fitted.predict(test).cpu().numpy()
            for v in variables:
                score = macro_f1(coded[v].validation, values[v][guesses[:, v]])
                if score > scores[v]:
                    scores[v] = score
                    found = classified(coded[v].test, values[v][answers[:, v]])
                    best[v] = {**found, "c": c, "converged": float(fitted.converged[v])}
        return best

    def _regress(self, features: Splits, labels: Splits) -> list[dict[str, float]]:
        guesses, answers = ridge(features.train, labels.train, [features.validation, features.test], self.alphas)
        scores_AV = np.stack([r2(labels.validation, own) for own in guesses])
        chosen = np.where(np.isnan(scores_AV), -np.inf, scores_AV).argmax(0)
        found_AV = np.stack([r2(labels.test, own) for own in answers])
        return [{"r2": float(found_AV[a, v]), "alpha": float(self.alphas[a])} for v, a in enumerate(chosen)]


def standardise(features: Splits) -> Splits:
    """Return features of mean 0 and standard deviation 1 over training; what is constant there is 0 everywhere."""
    mean_D, sd_D = features.train.mean(0), features.train.std(0)
    varies = sd_D > 1e-6 * max(float(sd_D.max(initial=0.0)), 1e-30)
    return Splits(*(np.where(varies, (own - mean_D) / np.where(varies, sd_D, 1.0), 0.0) for own in features))


def whiten(features: Splits) -> Splits:
    """Return the principal components over training, each of variance 1 there.

    Components with less than 1e-8 of the largest variance are left out: in float32 they are rounding.
    """
    mean_D = features.train.mean(0, dtype=np.float64)
    centred = features.train - mean_D
    variances_D, directions_DD = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = variances_D > 1e-8 * max(float(variances_D[-1]), 1e-30)
    scaled = directions_DD[:, kept] / np.sqrt(variances_D[kept])
    return Splits(*((own - mean_D) @ scaled for own in features))


def classes(columns: Sequence[np.ndarray], bins: int) -> list[np.ndarray]:
    """Return the classes of a variable's values: at most 256 whole numbers stand for themselves, others are binned.

    Args:
        columns: `(N,)` values each; the first, of training, decides and gives the quantiles.
        bins: how many quantiles.
    """
    train = columns[0]
    different = np.unique(train)
    if len(different) <= MOST_CLASSES and (different == np.round(different)).all():
        return list(columns)
    edges = np.unique(np.quantile(train, np.linspace(0, 1, bins + 1)[1:-1]))
    return [np.searchsorted(edges, column, side="right") for column in columns]


def classified(truth_N: np.ndarray, predicted_N: np.ndarray) -> dict[str, float]:
    """Return accuracy and F1: `macro`, the plain mean over the values; `weighted` by how often each is the truth."""
    return {
        "macro_f1": macro_f1(truth_N, predicted_N),
        "weighted_f1": float(f1_score(truth_N, predicted_N, average="weighted", zero_division=0)),
        "accuracy": float((truth_N == predicted_N).mean()),
    }


def macro_f1(truth_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Return the mean F1 over the values that are true or predicted somewhere."""
    return float(f1_score(truth_N, predicted_N, average="macro", zero_division=0))
