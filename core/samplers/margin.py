"""Negatives by a threshold on their similarity. Shape legend: N queries, M candidates."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..check import number
from .weighting import Weighting


def least_positive(similarity: Tensor, is_positive: Tensor) -> Tensor:
    """Return `(N, 1)`: the similarity of each query's least similar positive, inf for a query without any."""
    return similarity.masked_fill(~is_positive, torch.inf).amin(1, keepdim=True)


def within_margin(similarity: Tensor, is_positive: Tensor, margin: float) -> Tensor:
    """Return `(N, M)` bool: s > s_pos - margin, columns that a triplet loss with that margin does not leave at 0."""
    return similarity > least_positive(similarity, is_positive) - margin


def semi_hard(similarity: Tensor, is_positive: Tensor, margin: float) -> Tensor:
    """Return `(N, M)` bool: s_pos - margin < s < s_pos (Schroff et al. 2015, eq. 4)."""
    return within_margin(similarity, is_positive, margin) & (similarity < least_positive(similarity, is_positive))


class Margin(Weighting):
    """Negatives more similar than the positive less a margin weigh 1, the others 0: `s > s_pos - margin`.

    With several positives s_pos is the least similar one: a negative stays if it is too close for any of them.

    A query that no negative comes near keeps none, so that its InfoNCE or triplet loss is 0: it has nothing left to
    learn at this margin. The mean over queries still counts it; once all are solved, training stands still.

    Args:
        margin: >= 0, in the units of the similarity; 0 keeps the negatives that are more similar than the positive.

    Raises:
        ValueError: margin is not a number >= 0.
    """

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        self.margin = number("margin of Margin", margin, 0.0)

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return `within_margin`."""
        return within_margin(similarity, is_positive, self.margin)


class SemiHard(Weighting):
    """Negatives less similar than the positive, but by less than a margin, weigh 1: `s_pos - margin < s < s_pos`.

    FaceNet's semi-hard negatives (Schroff et al. 2015, eq. 4): those more similar than the positive, which may be
    mislabelled and collapse the encoder early in training, are left out. With several positives s_pos is the least
    similar one. https://arxiv.org/abs/1503.03832

    Deviations: similarities instead of squared distances. Between unit vectors `d^2 = 2 - 2 s`, so that the paper's
    margin of 0.2 is one of 0.1 between cosines, the default. All that qualify stay, not one for each positive. A query
    for which none qualifies keeps none (loss 0), where some implementations fall back to another one: the fallback
    would be the very negative that the rule leaves out.

    Args:
        margin: > 0, in the units of the similarity.

    Raises:
        ValueError: margin is not a number > 0.
    """

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        self.margin = number("margin of SemiHard", margin, 0.0, above=True)

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return `semi_hard`."""
        return semi_hard(similarity, is_positive, self.margin)


class Threshold(Weighting):
    """Negatives of a similarity above a fixed threshold weigh 1, the others 0, wherever the positive is.

    A query without such negatives keeps none (loss 0).

    Args:
        low: in the units of the similarity.

    Raises:
        ValueError: low is not a finite number.
    """

    def __init__(self, low: float = 0.0) -> None:
        super().__init__()
        self.low = number("low of Threshold", low)

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return which similarities are above the threshold."""
        return similarity > self.low
