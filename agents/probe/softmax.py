"""Linear softmax classifiers, one for each of several variables.

Shape legend: N, M frames, D features, V variables, K classes of all variables together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Softmax(NamedTuple):
    """Fitted classifiers.

    Attributes:
        weights: `(D, K)`.
        bias: `(K,)`.
        sizes: V numbers of classes, whose sum is K.
        converged: `(V,)` bool, whether each reached the tolerance.
        iterations: of the slowest solve.
    """

    weights: Tensor
    bias: Tensor
    sizes: tuple[int, ...]
    converged: Tensor
    iterations: int

    def predict(self, features_MD: Tensor) -> Tensor:
        """Return `(M, V)` long, the most probable class of each variable."""
        logits = torch.addmm(self.bias, features_MD, self.weights)
        return torch.stack([own.argmax(1) for own in logits.split(self.sizes, 1)], 1)


def fit_softmax(
    features_ND: Tensor,
    classes_NV: Tensor,
    sizes: Sequence[int],
    *,
    c: float = 1.0,
    max_iter: int = 1000,
    tolerance: float = 1e-4,
    start: Softmax | None = None,
) -> Softmax:
    """Minimise, for each variable v by itself,

        mean_i -log softmax(W_v^T x_i + b_v)[y_iv] + |W_v|^2 / (2 c N)

    which is scikit-learn's `LogisticRegression(C=c)`, of two classes its `C=2c`, by full-batch L-BFGS. (One solve for
    all variables takes three times as long: it goes on until the slowest has converged.) It has converged where no
    entry of the gradient exceeds `tolerance`, scikit-learn's own criterion. In float32 a tolerance far below 1e-5 is
    out of reach.

    Args:
        features_ND: floats, whitened: where some directions vary far more than others, thousands of steps do not end.
        classes_NV: long, in [0, size of the variable).
        sizes: V numbers of classes.
        c: > 0, inverse strength of the penalty.
        max_iter: of L-BFGS.
        tolerance: > 0, largest entry of the gradient at the solution.
        start: where to start; None: at zero.
    """
    sizes = tuple(sizes)
    starts: list[Tensor | None] = [None] * len(sizes)
    if start is not None:
        starts = list(torch.cat([start.weights, start.bias[None]]).split(sizes, 1))
    found = [
        _fit_one(features_ND, target_N, size, c, max_iter, tolerance, own)
        for target_N, size, own in zip(classes_NV.unbind(1), sizes, starts, strict=True)
    ]
    parameters = torch.cat([own for own, _, _ in found], 1)
    converged = torch.stack([largest <= tolerance for _, largest, _ in found])
    return Softmax(parameters[:-1], parameters[-1], sizes, converged, max(iterations for _, _, iterations in found))


def _fit_one(
    features_ND: Tensor, target_N: Tensor, size: int, c: float, max_iter: int, tolerance: float, start: Tensor | None
) -> tuple[Tensor, Tensor, int]:
    """Return weights and bias `(D + 1, size)`, the largest entry of the gradient there, and the iterations taken."""
    n, d = features_ND.shape
    parameters = features_ND.new_zeros(d + 1, size) if start is None else start.clone()
    parameters.requires_grad_()

    def objective() -> Tensor:
        logits = torch.addmm(parameters[-1], features_ND, parameters[:-1])
        return F.cross_entropy(logits, target_N) + parameters[:-1].square().sum() / (2 * c * n)

    solver = torch.optim.LBFGS(
        [parameters],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
        (gradient,) = torch.autograd.grad(objective(), [parameters])
    return parameters.detach(), gradient.abs().max(), int(solver.state[parameters]["n_iter"])
