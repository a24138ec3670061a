"""`Pairs` whose keys are those of all processes. Shape legend: n local queries, M keys of all processes."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..masks import check_candidates
from ..pairs import Pairs, SameLabel
from .gather import gather_with_gradient
from .processes import known_counts, rank_and_size


def gathered_pairs(pairs: Pairs, counts: Sequence[int] | None = None) -> Pairs:
    """Return the pairs with the keys of all processes; queries stay local, so that no process does another's work.

    The mean over processes of a loss that is a mean over queries is then the full-batch loss, and parameter gradients
    averaged over processes are its gradient (see `gather_with_gradient`). Where processes hold different numbers of
    queries, multiply each loss by `loss_share`.

    Columns move by the number of keys on the processes before: an index by that number; a matrix is laid between
    columns of zeros, which makes the other processes' keys negatives; labels are gathered, so that equal ones on
    other processes are positives. Context named `key_...` is gathered with the keys. With one process the pairs
    are returned as they are.

    In the layout of `two_view_pairs`, query and key are one tensor. After this they are two: `(2n, D)` local views as
    queries, and all `(2 sum n, D)` views as keys, view by view of each process in turn. Positive and `exclude` name the
    same views as before. Heads of an objective run on the gathered keys, W times as many rows as before; to spare
    that, or where a head holds BatchNorm and every process would take other statistics for queries than for keys,
    put the head at the end of the encoder.

    Args:
        pairs: of this process.
        counts: keys of each process where known; None asks, which waits for the device (see `row_counts`).

    Returns:
        Pairs of n queries and M keys.

    Raises:
        ValueError: positives, exclusions or counts do not fit the keys.
    """
    query, key, positive, exclude, context = pairs
    check_candidates(len(query), len(key), positive, exclude)
    counts = known_counts(key, counts)
    if len(counts) == 1:
        return pairs
    rank, _ = rank_and_size()
    before, after = sum(counts[:rank]), sum(counts[rank + 1 :])

    def moved(columns: Tensor) -> Tensor:
        return columns + before if columns.ndim == 1 else F.pad(columns, (before, after))

    return Pairs(
        query,
        gather_with_gradient(key, counts),
        SameLabel(positive.query, gather_with_gradient(positive.key, counts))
        if isinstance(positive, SameLabel)
        else moved(positive),
        None if exclude is None else moved(exclude),
        {
            name: gather_with_gradient(value, counts) if name.startswith("key_") else value
            for name, value in context.items()
        },
    )
