"""Layouts of `Pairs` that methods share, with the rows of all processes. Shape legend: B examples, D features.

Processes hold the same number of rows, so that nobody has to ask and wait for a device.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..distributed import gather_with_gradient, gathered_pairs
from ..distributed.processes import rank_and_size
from ..layout import two_view_pairs
from ..pairs import Pairs


def query_to_key(query: Tensor, key: Tensor, labels: Tensor | None) -> Pairs:
    """Return `(B, D)` queries of this process, each looking for its own key among those of all processes."""
    own = torch.arange(len(query), device=query.device)
    return gathered_pairs(Pairs(query, key, own, context=_context(labels, 1)), equal_rows(key))


def among_all_views(both: Tensor, labels: Tensor | None) -> Pairs:
    """Return the `(2 B, D)` views of this process, each looking for its other view among those of all processes.

    Args:
        both: `(2 B, D)`, all first views and then all second ones.
        labels: `(B,)` or None.
    """
    pairs = two_view_pairs(*both.chunk(2))._replace(context=_context(labels, 2))
    return gathered_pairs(pairs, equal_rows(pairs.key))


def paired_rows(query: Tensor, key: Tensor) -> Pairs:
    """Return queries and keys of all processes, each query with its own key.

    Every process then computes the loss of the full batch, as losses with statistics over the batch need; its gradient
    comes out right all the same (`gather_with_gradient`).
    """
    query, key = (gather_with_gradient(x, equal_rows(x)) for x in (query, key))
    return Pairs(query, key, torch.arange(len(query), device=query.device))


def equal_rows(x: Tensor) -> tuple[int, ...]:
    """Return the rows of each process, which are as many as here."""
    return (len(x),) * rank_and_size()[1]


def _context(labels: Tensor | None, views: int) -> Mapping[str, Tensor]:
    """Return labels as samplers read them (`cancel_by_label`); nothing where an example has several."""
    if labels is None or labels.ndim != 1:
        return {}
    labels = labels.repeat(views)
    return {"label": labels, "key_label": labels}
