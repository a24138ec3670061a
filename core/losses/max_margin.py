"""Max-margin contrastive learning (MMCL): the negatives that count are support vectors. Shape legend: N rows."""

import torch
from torch import Tensor

from ..check import number, whole
from .arguments import check_matrix, check_scalar, check_square, has_positive, reduced, split


def max_margin(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    width: float | Tensor = 10.0,
    c: float = 100.0,
    ridge: float = 0.1,
    steps: int = 100,
) -> Tensor:
    """Return how far the positives lie on the wrong side of a support vector machine (Shah et al. 2022, MMCL by PGD).

    For each query x a machine parts x from its negatives Y, and the loss is minus its decision for the positives z:

        K(a, b) = exp(-|a - b|^2 / width),    |a - b|^2 = s_aa + s_bb - 2 s_ab
        alpha = argmin over 0 <= alpha <= c w of 1/2 alpha^T (D + ridge I) alpha - 2 sum_n alpha_n
        D_nm = K(x, x) + K(y_n, y_m) - K(x, y_n) - K(x, y_m)
        L = mean_z [ sum_n alpha_n K(z, y_n) - (sum_n alpha_n) K(z, x) ]

    It is the dual of a kernel SVM with the multiplier of x written as the sum of the others, solved by accelerated
    projected gradient; alpha takes no gradient. All machines take their steps together, with one product of two
    (N, N) matrices a step and no (N, N, N). https://arxiv.org/abs/2112.11450

    The machine of one query needs similarities between its negatives, so that rows and columns must be the same
    examples: every view with every view, as for `nt_xent`. The loss of a row depends on all, and there is no
    `reduction`. It lies in [-sum alpha, sum alpha]; a query without negatives has alpha = 0, loss 0 and no gradient.

    Deviations: negatives are all candidates, where the authors' code takes those of one view. The step is 1 / trace,
    which is never too long, the start is the best multiple of ones, and the number of steps is fixed; the code has step
    0.001, a random start, and stops when alpha does. Soft positives weigh the mean over z, and a negative's weight
    scales its c. Where similarities are not symmetric the machine sees the mean of s_ij and s_ji. The defaults are the
    authors' for ImageNet-100 (width, ridge) and CIFAR-100 (c).

    Args:
        similarity: `(N, N)` floating, cosines, dot products or negative distances; each row with itself on the
            diagonal, where -inf stands for 1, the cosine. Elsewhere -inf is a pair without any similarity.
        positive: as for `nt_xent`: a mask's diagonal is ignored.
        weights: `(N, N)` floating >= 0; 0 leaves a negative out. The diagonal and positives' entries are ignored. None:
            1 for all. No gradient flows to weights.
        width: > 0, a number or a scalar tensor, to which gradient flows: the square of the Gaussian's width, in the
            units of a squared distance. It is no temperature of similarities.
        c: > 0, largest multiplier of a negative of weight 1; large is a hard margin.
        ridge: > 0, added to the diagonal of D: squared slack.
        steps: of the solver, >= 1.

    Returns:
        Scalar of the similarity's dtype.

    Raises:
        ValueError: the similarity is not square, a number is out of range, or as for `info_nce`.
    """
    c = number("c", c, 0.0, above=True)
    ridge = number("ridge", ridge, 0.0, above=True)
    steps = whole("steps", steps, 1)
    check_matrix(similarity, positive, weights)
    check_square("max_margin", similarity)
    check_scalar("width", width, 0.0, above=True)
    itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    if positive.ndim == 2:
        positive = positive.masked_fill(itself, 0)
    _, share, weight = split(similarity, positive, weights)
    kernel = _kernel(similarity, width, itself)
    alpha = _multipliers(kernel.detach(), c * weight.detach().masked_fill(itself, 0.0), ridge, steps)
    of_positives = kernel[positive] if positive.ndim == 1 else _mean_rows(kernel, share)
    loss = (alpha * of_positives).sum(1) - alpha.sum(1) * of_positives.diagonal()
    return reduced(loss, has_positive(positive), "mean")


def _kernel(similarity: Tensor, width: float | Tensor, itself: Tensor) -> Tensor:
    """Return the `(N, N)` kernel, exactly 1 on the diagonal and 0 where the similarity is -inf."""
    norm = similarity.diagonal()
    norm = norm.masked_fill(norm == -torch.inf, 1.0)
    absent = (similarity == -torch.inf) & ~itself
    distance = norm.unsqueeze(1) + norm - 2 * similarity.masked_fill(absent | itself, 0.0)
    return (-distance.masked_fill(itself, 0.0) / width).exp().masked_fill(absent, 0.0)


def _mean_rows(kernel: Tensor, share: Tensor) -> Tensor:
    total = share.sum(1, keepdim=True)
    return (share / total.where(total > 0, 1.0)) @ kernel


@torch.no_grad()
def _multipliers(kernel: Tensor, most: Tensor, ridge: float, steps: int) -> Tensor:
    """Return `(N, N)` alpha in [0, most], a row for the machine of each query (Beck and Teboulle 2009, FISTA)."""
    kernel = ((kernel + kernel.T) / 2).clamp(max=1.0)
    one = (most > 0).to(kernel.dtype)

    def curvature(alpha: Tensor) -> Tensor:  # (D + ridge I) alpha, row by row
        total = alpha.sum(1, keepdim=True)
        return alpha @ kernel + total * (1 - kernel) - (alpha * kernel).sum(1, keepdim=True) + ridge * alpha

    step = 1 / ((2 * one * (1 - kernel)).sum(1, keepdim=True) + ridge)  # the trace bounds the largest eigenvalue
    slope = (one * curvature(one)).sum(1, keepdim=True)
    alpha = torch.minimum(one * (2 * one.sum(1, keepdim=True) / slope.where(slope > 0, 1.0)), most)
    ahead, momentum = alpha, 1.0
    for _ in range(steps):
        moved = torch.minimum((ahead - step * (curvature(ahead) - 2)).clamp(min=0.0), most)
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / next_momentum * (moved - alpha)
        alpha, momentum = moved, next_momentum
    return alpha
