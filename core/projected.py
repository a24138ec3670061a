"""What objectives do before they compare: heads, and a momentum copy of them for keys.

Shape legend: N queries, M keys, D feature dimension.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .check import shape, whole
from .encoders import MomentumEncoder

HeadFactory = Callable[[int], nn.Module]


class Projected(nn.Module):
    """Projection, prediction and momentum projection of `Pairs`; a subclass compares what comes out.

        z_q = prediction(projection(query))    z_k = projection(key), or its momentum copy without gradient

    Args:
        dim: dimension D of the features in `Pairs`.
        projection: `in_features -> module` with `out_features`, for queries and keys; None takes features as they are.
        prediction: the same, on top of it and for queries only; it must keep the dimension.
        momentum: None sends keys through the projection itself, with gradient. A number in [0, 1) sends them through
            an exponential moving average of it, and no gradient reaches the keys.

    Raises:
        ValueError: a number out of range; a factory whose module has no `out_features` or puts out another dimension.
    """

    def __init__(
        self, dim: int, projection: HeadFactory | None, prediction: HeadFactory | None, momentum: float | None
    ) -> None:
        super().__init__()
        self.dim = whole("dim", dim, 1)
        self.out_features = self.dim
        self.projection: nn.Module = nn.Identity()
        if projection is not None:
            self.projection, self.out_features = _head("projection", projection, dim)
        self.prediction: nn.Module | None = None
        if prediction is not None:
            self.prediction, predicted = _head("prediction", prediction, self.out_features)
            if predicted != self.out_features:
                raise ValueError(
                    f"prediction must keep the dimension {self.out_features} of the projections, got {predicted}"
                )
        self.momentum = None if momentum is None else MomentumEncoder(self.projection, momentum)

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return z_q and z_k; one and the same tensor where queries are the keys and nothing treats them apart.

        Raises:
            ValueError: the features have another dimension than this was built for.
        """
        for name, features in (("query", query), ("key", key)):
            if features.ndim != 2 or features.shape[1] != self.dim:
                found = f"dimension {features.shape[1]}" if features.ndim == 2 else f"shape {shape(features)}"
                raise ValueError(f"features have {found}, the objective was built for {self.dim} (in {name})")
        query, key = self._projections(query, key)
        return (query if self.prediction is None else self.prediction(query)), key

    def update(self) -> None:
        """Move the momentum projection one step towards the projection; call it after each optimizer step."""
        if self.momentum is not None:
            self.momentum.update(self.projection)

    def _projections(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        if self.momentum is not None:
            return self.projection(query), self.momentum(key.detach())
        if query is key:
            both = self.projection(query)
            return both, both
        if query.dtype != key.dtype:
            return self.projection(query), self.projection(key)
        projected = self.projection(torch.cat((query, key)))  # one larger product is faster than two
        return projected.split((query.shape[0], key.shape[0]))


def own(part: Any) -> Any:
    """Return a copy of a module, and a plain partial for a Hydra one, which checks its target anew at every call.

    That check (Hydra 1.3.8) takes more than 0.1 ms a call, as much as similarity and loss themselves at N = 64.
    """
    if isinstance(part, partial):
        return partial(part.func, *part.args, **part.keywords)
    return deepcopy(part) if isinstance(part, nn.Module) else part


def _head(name: str, factory: HeadFactory, dim: int) -> tuple[nn.Module, int]:
    """Return the head a factory makes for `dim` features and its output dimension, after trying it once."""
    head = factory(dim)
    out = getattr(head, "out_features", None)
    if not isinstance(head, nn.Module) or not isinstance(out, int):
        raise ValueError(f"{name} must make a module with an integer `out_features`, got {type(head).__name__}")
    training = head.training
    with torch.no_grad():
        found = head.eval()(torch.zeros(2, dim))
    head.train(training)
    if found.shape != (2, out):
        raise ValueError(f"{name} must turn (2, {dim}) into (2, {out}), its out_features, got {shape(found)}")
    return head, out
