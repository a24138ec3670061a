"""Ridge regression of many variables at many strengths from one decomposition.

Shape legend: N, M frames, D features, V variables, A strengths.
"""

from collections.abc import Sequence

import numpy as np


def ridge(
    train_ND: np.ndarray, labels_NV: np.ndarray, others: Sequence[np.ndarray], alphas: Sequence[float]
) -> list[np.ndarray]:
    """Return what ridge regressions predict for other features.

        W = (X^T X + alpha I)^-1 X^T Y,    X and Y centred by their means over training

    which is scikit-learn's `Ridge(alpha)`. A prediction outside the range of a variable's training labels is moved to
    the end of that range: the few features that are nearly constant in training and not in the test otherwise turn a
    good fit into an R2 far below zero.

    Args:
        train_ND: features.
        labels_NV: numbers.
        others: features `(M, D)` to predict for.
        alphas: A strengths >= 0, for standardised features.

    Returns:
        `(A, M, V)` float64 for each of `others`.
    """
    train = train_ND.astype(np.float64)
    labels = labels_NV.astype(np.float64)
    x_mean, y_mean = train.mean(0), labels.mean(0)
    x, y = train - x_mean, labels - y_mean
    values, vectors = np.linalg.eigh(x.T @ x)
    rotated = vectors.T @ (x.T @ y)
    # Directions in which features do not vary have no say, whatever alpha.
    known = values > 1e-10 * max(float(values[-1]), 1e-30)
    low, high = labels.min(0), labels.max(0)
    weights = [
        vectors @ np.where(known[:, None], rotated / np.where(known, values + alpha, 1.0)[:, None], 0.0)
        for alpha in alphas
    ]
    return [
        np.stack([((other.astype(np.float64) - x_mean) @ own + y_mean).clip(low, high) for own in weights])
        for other in others
    ]


def r2(truth_MV: np.ndarray, predicted_MV: np.ndarray) -> np.ndarray:
    """Return `(V,)`, `1 - sum (y - f)^2 / sum (y - mean y)^2`; variables that do not vary have none (NaN)."""
    truth = truth_MV.astype(np.float64)
    left = np.square(truth - predicted_MV).sum(0)
    total = np.square(truth - truth.mean(0)).sum(0)
    return np.where(total > 0, 1 - left / np.where(total > 0, total, 1.0), np.nan)
