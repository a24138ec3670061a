"""The contrastive objective: heads, similarity, sampler and loss as one module.

Shape legend: N queries, M keys of the batch, Q remembered keys, D feature dimension.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .check import number, shape, whole
from .encoders import MomentumEncoder
from .kernels.entry import default_temperature, score, takes
from .losses import info_nce
from .masks import check_candidates
from .metrics import contrastive_metrics
from .pairs import Outcome, Pairs, SameLabel
from .samplers import InBatch, Sampler
from .similarity import cosine

HeadFactory = Callable[[int], nn.Module]


class Contrastive(nn.Module):
    """One similarity matrix, who is positive in it, and how much each negative weighs.

        z_q = prediction(projection(query))    z_k = projection(key), or its momentum copy without gradient
        loss(similarity(z_q, columns(z_k)), positive, weights, temperature)

    Args:
        dim: dimension D of the features in `Pairs`.
        projection: `in_features -> module` with `out_features`, for queries and keys; None takes features as they are.
        prediction: the same, on top of it and for queries only; it must keep the dimension.
        momentum: None sends keys through the projection itself, with gradient. A number in [0, 1) sends them through
            an exponential moving average of it, and no gradient reaches the keys.
        similarity: `(N, D), (M, D) -> (N, M)`, a function or a module such as `Bilinear`.
        sampler: who counts as a negative; None: `InBatch()`.
        loss: `(similarity, positive, weights, temperature=...) -> scalar`.
        temperature: a number > 0; or a module without arguments that returns one, such as `LearnedTemperature`; or
            None for the loss's own default, which is the only choice for a loss without one (`triplet`).

    Modules given as similarity, sampler, loss or temperature are copied, so that two objectives made from one
    description (for the encoders of actor and critic) never share weights or memory.

    Raises:
        ValueError: a number out of range; a factory whose module has no `out_features` or puts out another dimension.
    """

    def __init__(
        self,
        dim: int,
        *,
        projection: HeadFactory | None = None,
        prediction: HeadFactory | None = None,
        momentum: float | None = None,
        similarity: Callable[[Tensor, Tensor], Tensor] = cosine,
        sampler: Sampler | None = None,
        loss: Callable[..., Tensor] = info_nce,
        temperature: float | nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dim = whole("dim", dim, 1)
        self.temperature: Any = _own(temperature)
        if temperature is not None and not isinstance(temperature, nn.Module):
            self.temperature = number("temperature", temperature, 0.0, above=True)
        self.projection, out = (nn.Identity(), self.dim) if projection is None else _head("projection", projection, dim)
        self.prediction: nn.Module | None = None
        if prediction is not None:
            self.prediction, predicted = _head("prediction", prediction, out)
            if predicted != out:
                raise ValueError(f"prediction must keep the dimension {out} of the projections, got {predicted}")
        self.momentum = None if momentum is None else MomentumEncoder(self.projection, momentum)
        self.similarity = _own(similarity)
        self.sampler = InBatch() if sampler is None else _own(sampler)
        self.loss = _own(loss)
        if not takes(self.loss, "temperature") and (temperature, self.sampler.temperature) != (None, None):
            found = self.sampler.temperature if temperature is None else temperature
            raise ValueError(f"{_name(self.loss)} has no temperature: it must be None, got {found}")
        self._default_temperature = default_temperature(self.loss) or 0.1
        with torch.no_grad():  # a Bilinear or Queue of another dimension says so here, not at the first batch
            self.similarity(torch.zeros(2, out), torch.zeros(2, out))
            self.sampler.eval().remember(torch.zeros(2, out), {})
            self.sampler.train()

    def forward(self, pairs: Pairs) -> Outcome:
        """Return loss and metrics of `contraux.core.contrastive_metrics`; in training mode a queue remembers the keys.

        Raises:
            ValueError: the features have another dimension than the objective was built for, or shapes disagree.
        """
        query, key, positive, exclude = pairs[:4]
        for name, features in (("query", query), ("key", key)):
            if features.ndim != 2 or features.shape[1] != self.dim:
                found = f"dimension {features.shape[1]}" if features.ndim == 2 else f"shape {shape(features)}"
                raise ValueError(f"features have {found}, the objective was built for {self.dim} (in {name})")
        check_candidates(len(query), len(key), positive, exclude)
        query, key = self._project(query, key)
        if self.prediction is not None:
            query = self.prediction(query)
        context = pairs.context
        if isinstance(positive, SameLabel):
            context = {**context, "label": positive.query, "key_label": positive.key}
        pairs = Pairs(query, key, positive, exclude, context)
        temperature = self.temperature() if isinstance(self.temperature, nn.Module) else self.temperature
        scored = score(pairs, self.similarity, self.sampler, self.loss, temperature)
        metrics = contrastive_metrics(
            scored.similarity, *scored.candidates, self._metric_temperature(temperature), scored.info_nce
        )
        self.sampler.remember(key, context)
        return Outcome(scored.loss, {**metrics, **self.sampler.metrics()})

    def _metric_temperature(self, temperature: float | Tensor | None) -> float | Tensor:
        """Return what the loss divides similarities by; 0.1 where it divides them by nothing."""
        if self.sampler.temperature is not None:
            return self.sampler.temperature
        return self._default_temperature if temperature is None else temperature

    def update(self) -> None:
        """Move the momentum projection one step towards the projection; call it after each optimizer step."""
        if self.momentum is not None:
            self.momentum.update(self.projection)

    def _project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        if self.momentum is not None:
            return self.projection(query), self.momentum(key.detach())
        if query is key:
            both = self.projection(query)
            return both, both
        if query.dtype != key.dtype:
            return self.projection(query), self.projection(key)
        projected = self.projection(torch.cat((query, key)))  # one larger product is faster than two
        return projected.split((len(query), len(key)))


def _own(part: Any) -> Any:
    """Return a copy of a module, and a plain partial for a Hydra one, which checks its target anew at every call.

    That check (Hydra 1.3.8) takes more than 0.1 ms a call, as much as similarity and loss themselves at N = 64.
    """
    if isinstance(part, partial):
        return partial(part.func, *part.args, **part.keywords)
    return deepcopy(part) if isinstance(part, nn.Module) else part


def _name(loss: Any) -> str:
    plain = loss.func if isinstance(loss, partial) else loss
    return getattr(plain, "__name__", type(plain).__name__)


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
