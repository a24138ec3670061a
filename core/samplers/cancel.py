"""False negatives cancelled by what is known of them. Shape legend: N queries, M candidates, G dimension of a guide."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..check import number, shape
from ..similarity import cosine
from .weighting import Weighting


def same_label(label: Tensor, key_label: Tensor) -> Tensor:
    """Return `(N, M)` bool: equal labels; negative ones are unknown and equal nothing."""
    own = label.unsqueeze(1)
    return (own == key_label) & (own >= 0)


def guided(
    guide: Tensor,
    is_positive: Tensor,
    absolute: float | None = None,
    relative: float | None = None,
    threshold: float | None = None,
) -> Tensor:
    """Return `(N, M)` bool: who is so similar for the guide, g, that it is taken for a positive.

        g > g_pos - absolute,    or g > g_pos (1 - relative),    or g > threshold

    with g_pos the guide's similarity of the query's positive, of several the most similar one. Each None asks nothing;
    the first two say no for a query without a positive.

    Args:
        guide: `(N, M)` similarities.
        is_positive: `(N, M)` bool.
        absolute: see above.
        relative: see above.
        threshold: see above.
    """
    own_N1 = guide.masked_fill(~is_positive, -torch.inf).amax(1, keepdim=True)
    own_N1 = own_N1.masked_fill(~is_positive.any(1, keepdim=True), torch.inf)
    false = torch.zeros_like(is_positive)
    if absolute is not None:
        false = false | (guide > own_N1 - absolute)
    if relative is not None:
        false = false | (guide > own_N1 * (1 - relative))
    if threshold is not None:
        false = false | (guide > threshold)
    return false


class CancelByLabel(Weighting):
    """Negatives of the query's own label weigh 0, the others 1.

    The context must hold `label` (N,) and `key_label` (M,), whole numbers; a negative label is unknown and never
    cancelled. A `Queue` remembers `key_label` with its keys. A query of which every negative has its label keeps none.
    """

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return which labels differ.

        Raises:
            ValueError: the context lacks an entry, or one has another shape.
        """
        n, m = similarity.shape
        return ~same_label(_entry(self, context, "label", n, 1), _entry(self, context, "key_label", m, 1))


class CancelByGuide(Weighting):
    """Negatives that a guide finds too similar to the query weigh 0, the others 1 (Solatorio 2024, GISTEmbed).

    A guide is another encoder (a larger, earlier or supervised one), of which the context holds the features: `guide`
    (N, G) of the queries and `key_guide` (M, G) of the keys. They are compared by cosine and cancelled where `guided`
    says so, by the rules of GISTEmbedLoss in sentence-transformers: `absolute` is its margin strategy of that name,
    `relative` the other. A negative that meets any of the rules given is cancelled. A guide of zeros is unknown and
    never cancelled; a `Queue` remembers `key_guide` if it is given the dimension. https://arxiv.org/abs/2402.16829

    Deviation: only what the similarity compares is cancelled; the paper adds queries among themselves and keys among
    themselves to the candidates.

    Args:
        absolute: cancel above the positive's guide similarity less this; the paper: 0. None: not by this rule.
        relative: cancel above the positive's guide similarity times (1 - this), in [0, 1]; None: not by this rule.
        threshold: cancel above this cosine, in [-1, 1], wherever the positive is; None: not by this rule.

    Raises:
        ValueError: no rule is given, or a number out of range.
    """

    def __init__(
        self, absolute: float | None = 0.0, relative: float | None = None, threshold: float | None = None
    ) -> None:
        super().__init__()
        if absolute is None and relative is None and threshold is None:
            raise ValueError("CancelByGuide needs absolute, relative or threshold, got none of them")
        self.absolute = None if absolute is None else number("absolute of CancelByGuide", absolute)
        self.relative = None if relative is None else number("relative of CancelByGuide", relative, 0.0, 1.0)
        self.threshold = None if threshold is None else number("threshold of CancelByGuide", threshold, -1.0, 1.0)

    @torch.no_grad()
    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return who is not taken for a positive.

        Raises:
            ValueError: the context lacks an entry, or one has another shape.
        """
        n, m = similarity.shape
        guide, key_guide = _entry(self, context, "guide", n, 2), _entry(self, context, "key_guide", m, 2)
        known = guide.any(1).unsqueeze(1) & key_guide.any(1)
        return ~(known & guided(cosine(guide, key_guide), is_positive, self.absolute, self.relative, self.threshold))


def _entry(sampler: Weighting, context: Mapping[str, Tensor], name: str, rows: int, ndim: int) -> Tensor:
    """Return an entry of the context with that many rows and dimensions."""
    kind = type(sampler).__name__
    if name not in context:
        found = ", ".join(map(repr, sorted(context))) or "nothing"
        raise ValueError(f"{kind} needs {name!r} in the context of the pairs, which holds {found}")
    entry = context[name]
    if entry.ndim != ndim or len(entry) != rows:
        expected = f"({rows},)" if ndim == 1 else f"({rows}, G)"
        raise ValueError(f"{name!r} in the context for {kind} must be {expected}, got {shape(entry)}")
    return entry
