"""Similarity, sampler and loss one after the other, on the whole matrix or on blocks of its rows.

Shape legend: N queries, M keys of the batch, Q remembered keys, D feature dimension, B rows of a block.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..masks import exclude_mask, positive_mask
from ..pairs import Pairs, SameLabel
from ..samplers import Candidates, Memory, Sampler
from .node import with_gradient

Similarity = Callable[[Tensor, Tensor], Tensor]
Loss = Callable[..., Tensor]

CELLS = 2**20  # similarities of a block: 4 MiB in float32, of which autograd holds half a dozen


class Scored(NamedTuple):
    """A loss, and what its metrics are taken from.

    Attributes:
        loss: scalar.
        similarity: `(R, M + Q)` of the first R queries, detached.
        candidates: of those queries, detached.
        info_nce: the loss of those queries, where it is InfoNCE of candidates that all weigh 1; otherwise None.
    """

    loss: Tensor
    similarity: Tensor
    candidates: Candidates
    info_nce: Tensor | None = None


def composed(
    pairs: Pairs, memory: Memory | None, similarity: Similarity, sampler: Sampler, loss: Loss, settings: dict[str, Any]
) -> Scored:
    """Return the loss of the whole `(N, M + Q)` matrix; `settings` are further arguments of the loss."""
    if memory is not None:  # a copy, since what is remembered may change before the backward pass
        memory = memory._replace(key=memory.key.clone())
    matrix, found = candidates(pairs, memory, similarity, sampler)
    value = loss(matrix, found.positive, found.weights, **settings)
    return Scored(value, matrix.detach(), _detached(found))


def in_blocks(
    pairs: Pairs, memory: Memory | None, similarity: Similarity, sampler: Sampler, loss: Loss, settings: dict[str, Any]
) -> Scored:
    """Return the same for a loss that takes `reduction`, holding `(B, M + Q)` similarities at a time.

    Each block goes through similarity, sampler and loss with `reduction="sum"` and back to its gradients before the
    next begins.
    """
    n, columns = len(pairs.query), len(pairs.key) + (0 if memory is None else len(memory.key))
    size = max(1, min(n, CELLS // columns))
    modules = [part for part in (similarity, sampler, loss) if isinstance(part, nn.Module)]
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    temperature = settings.get("temperature")
    learned = [temperature] if isinstance(temperature, Tensor) else []
    seen: list[Scored] = []

    def compute(needs: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        query, key, *rest = (x.detach() for x in (pairs.query, pairs.key, *learned))
        leaves = [x.requires_grad_(need) for x, need in zip((key, *rest), needs[1:], strict=False)]
        own = {**settings, "reduction": "sum"} | ({"temperature": leaves[1]} if learned else {})
        total, used = query.new_zeros((), dtype=torch.float32), torch.zeros((), device=query.device)
        sums: list[Tensor | None] = [None] * (len(leaves) + len(weights))
        by_query = torch.empty_like(query) if needs[0] else None
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            block = rows_of(pairs._replace(query=query, key=leaves[0]), rows)
            block.query.requires_grad_(needs[0])
            with torch.set_grad_enabled(any(needs)):
                matrix, found = candidates(block, memory, similarity, sampler)
                value = loss(matrix, found.positive, found.weights, **own)
            if not seen:
                seen.append(Scored(value.detach(), matrix.detach(), _detached(found)))
            total = total + value.detach()
            used += len(found.positive) if found.positive.ndim == 1 else (found.positive > 0).any(1).sum()
            if value.requires_grad:
                _add(value, block.query, by_query, rows, [*leaves, *weights], sums)
        used = used.clamp(min=1)
        gradients = [None if one is None else one.div_(used) for one in (by_query, *sums)]
        return total / used, [one if need else None for one, need in zip(gradients, needs, strict=True)]

    value = with_gradient(compute, pairs.query, pairs.key, *learned, *weights)
    return seen[0]._replace(loss=value)


def similarities(similarity: Similarity, query: Tensor, key: Tensor, memory: Memory | None) -> Tensor:
    """Return `(N, M + Q)` similarities to the batch's keys and then the remembered ones."""
    own = similarity(query, key)
    return own if memory is None else torch.cat((own, similarity(query, memory.key)), dim=1)


def widened(matrix: Tensor, columns: int) -> Tensor:
    """Return an `(N, M)` matrix with zeros (False) on the right up to `columns`."""
    return torch.nn.functional.pad(matrix, (0, columns - matrix.shape[1]))


def candidates(
    pairs: Pairs, memory: Memory | None, similarity: Similarity, sampler: Sampler
) -> tuple[Tensor, Candidates]:
    """Return the `(N, M + Q)` similarities, and who is positive and how much each negative weighs among them."""
    matrix = similarities(similarity, pairs.query, pairs.key, memory)
    columns = matrix.shape[1]
    context = pairs.context if memory is None else _with_memory(pairs.context, memory)
    positive = pairs.positive
    if isinstance(positive, SameLabel):
        key = positive.key if memory is None else torch.cat((positive.key, memory.context["key_label"]))
        positive = positive_mask(SameLabel(positive.query, key), columns)
    elif positive.ndim == 2 and memory is not None:
        positive = widened(positive, columns)
    exclude = exclude_mask(pairs.exclude, columns)
    if exclude is not None and memory is not None:
        exclude = widened(exclude, columns)
    if exclude is not None and positive.ndim == 2:
        positive = positive.masked_fill(exclude, 0)
    return matrix, sampler(matrix, positive, exclude, context)


def _with_memory(context: Mapping[str, Tensor], memory: Memory) -> dict[str, Tensor]:
    """Return the context with what is remembered behind its `key_` entries: unknown labels are -1, features zero."""
    wide = dict(context)
    for name, values in context.items():
        if name.startswith("key_"):
            unknown = values.new_full((len(memory.key), *values.shape[1:]), 0 if values.is_floating_point() else -1)
            wide[name] = torch.cat((values, memory.context.get(name, unknown)))
    return wide


def rows_of(pairs: Pairs, rows: slice) -> Pairs:
    """Return the pairs of a block of queries with all keys."""
    positive = pairs.positive
    return Pairs(
        pairs.query[rows],
        pairs.key,
        SameLabel(positive.query[rows], positive.key) if isinstance(positive, SameLabel) else positive[rows],
        None if pairs.exclude is None else pairs.exclude[rows],
        {name: values if name.startswith("key_") else values[rows] for name, values in pairs.context.items()},
    )


def _add(
    value: Tensor,
    query: Tensor,
    by_query: Tensor | None,
    rows: slice,
    others: list[Tensor],
    sums: list[Tensor | None],
) -> None:
    """Take a block's gradients: by its queries into their rows, by all others added up."""
    wanted = [x for x in (query, *others) if x.requires_grad]
    found = iter(torch.autograd.grad(value, wanted, allow_unused=True))
    if by_query is not None:
        grad = next(found)
        by_query[rows] = 0.0 if grad is None else grad
    for i, other in enumerate(others):
        more = next(found) if other.requires_grad else None
        if more is not None:
            sums[i] = more.clone() if sums[i] is None else sums[i].add_(more)  # type: ignore[union-attr]


def _detached(found: Candidates) -> Candidates:
    return Candidates(found.positive, None if found.weights is None else found.weights.detach())
