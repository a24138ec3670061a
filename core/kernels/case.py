"""What the kernels are made for, and how their result becomes part of the graph.

Shape legend: N queries, M keys of the batch, Q remembered keys, D feature dimension.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..pairs import SameLabel
from .node import with_gradient
from .unit import through_norm, unit

UNSHIFTED = 2 / 85
"""Exponentials of cosines over a temperature above it need no shift in float32: all lie within e^-42.5 and e^42.5."""

Kernel = Callable[
    [Tensor, Tensor, float | Tensor, Sequence[bool]], tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
]
"""Queries, keys, temperature and which of the three need a gradient -> the loss and those gradients."""


class Case(NamedTuple):
    """Positives without a matrix, at most one column a query excluded, uniform negatives.

    Attributes:
        query: `(N, D)` float32 or float64.
        key: `(M, D)` likewise; the same object where the batch is compared with itself.
        positive: `(N,)` long, or labels.
        exclude: `(N,)` long or None.
        memory: `(Q, D)` or None.
        cosines: compare cosines, otherwise dot products.
        temperature: > 0.
        dtype: of the features before they became float32 or float64; products may be taken in it.
    """

    query: Tensor
    key: Tensor
    positive: Tensor | SameLabel
    exclude: Tensor | None
    memory: Tensor | None
    cosines: bool
    temperature: float | Tensor
    dtype: torch.dtype

    @property
    def cells(self) -> int:
        """How many similarities there are, N (M + Q)."""
        remembered = 0 if self.memory is None else self.memory.shape[0]
        return self.query.shape[0] * (self.key.shape[0] + remembered)

    @property
    def shift(self) -> bool:
        """Whether exponentials need a maximum subtracted; reads the temperature only on a CPU."""
        return not self.cosines or self.query.device.type != "cpu" or float(_value(self.temperature)) <= UNSHIFTED


def attached(case: Case, kernel: Kernel) -> Tensor:
    """Return the kernel's loss for this case as a node of the graph; cosines are taken as products of unit vectors."""
    learned = [case.temperature] if isinstance(case.temperature, Tensor) else []

    def compute(needs: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        needs = [*needs, False][:3]
        same = case.query is case.key
        query = case.query.detach()
        vectors = [query, query if same else case.key.detach()]
        norms: list[Tensor] = []
        if case.cosines:
            (query, query_norm) = unit(vectors[0])
            (key, key_norm) = (query, query_norm) if same else unit(vectors[1])
            vectors, norms = [query, key], [query_norm, key_norm]
        loss, *gradients = kernel(vectors[0], vectors[1], _value(case.temperature), needs)
        for i, norm in enumerate(norms):
            grad = gradients[i]
            if grad is not None:
                gradients[i] = through_norm(grad, vectors[i], norm)
        return loss, [one if need else None for one, need in zip(gradients, needs, strict=True)][: 2 + len(learned)]

    return with_gradient(compute, case.query, case.key, *learned)


def _value(temperature: float | Tensor) -> float | Tensor:
    return temperature.detach() if isinstance(temperature, Tensor) else temperature
