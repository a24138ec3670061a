"""The contrastive objective: heads, similarity, sampler and loss as one module.

Shape legend: N queries, M keys of the batch, Q remembered keys, D feature dimension.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .check import number
from .kernels.entry import default_temperature, loss_settings, name_of, score, takes
from .losses import info_nce, max_margin, nt_xent
from .metrics import contrastive_metrics
from .pairs import Outcome, Pairs, SameLabel
from .projected import HeadFactory, Projected, own
from .samplers import InBatch, Sampler
from .similarity import cosine


class Contrastive(Projected):
    """One similarity matrix, who is positive in it, and how much each negative weighs.

        z_q = prediction(projection(query))    z_k = projection(key), or its momentum copy without gradient
        loss(similarity(z_q, z_k and the sampler's memory), positive, weights, temperature)

    Large batches are taken in tiles or blocks of rows where `contraux.core.contrastive_loss` can; the metrics are then
    those of the first queries.

    Args:
        dim: dimension D of the features in `Pairs`.
        projection: `in_features -> module` with `out_features`, for queries and keys; None takes features as they are.
        prediction: the same, on top of it and for queries only; it must keep the dimension.
        momentum: None sends keys through the projection itself, with gradient. A number in [0, 1) sends them through
            an exponential moving average of it, and no gradient reaches the keys.
        similarity: `(N, D), (M, D) -> (N, M)`, a function or a module such as `Bilinear`.
        sampler: who counts as a negative; None: `InBatch()`.
        loss: `(similarity, positive, weights, temperature=...) -> scalar`; a module with `update` has it called with
            the objective's.
        temperature: a number > 0; or a module without arguments that returns one, such as `LearnedTemperature`; or
            None for the loss's own default, which is the only choice for a loss without one (`triplet`).

    Modules given as similarity, sampler, loss or temperature are copied, so that two objectives made from one
    description (for the encoders of actor and critic) never share weights or memory.

    Raises:
        ValueError: a number out of range; a factory whose module has no `out_features` or puts out another dimension;
            a loss of another kind, or a temperature for a loss without one.
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
        super().__init__(dim, projection, prediction, momentum)
        self.temperature: Any = own(temperature)
        if temperature is not None and not isinstance(temperature, nn.Module):
            self.temperature = number("temperature", temperature, 0.0, above=True)
        self.similarity = own(similarity)
        self.sampler = InBatch() if sampler is None else own(sampler)
        self.loss = own(loss)
        if not takes(self.loss, "positive"):
            raise ValueError(
                f"Contrastive needs a loss of a similarity matrix, got {name_of(self.loss)}, which compares rows; "
                "NegativeFree takes such a loss"
            )
        loss_settings(self.loss, self.sampler, temperature)  # a temperature that the loss has not is refused here
        self._default_temperature = default_temperature(self.loss) or 0.1
        self._needs_itself = getattr(self.loss, "func", self.loss) in (nt_xent, max_margin)
        out = torch.zeros(2, self.out_features)
        with torch.no_grad():  # a Bilinear or Queue of another dimension says so here, not at the first batch
            self.similarity(out, out)
            self.sampler.eval().remember(out, {})
            self.sampler.train()

    def forward(self, pairs: Pairs) -> Outcome:
        """Return loss and metrics of `contraux.core.contrastive_metrics`; in training mode a queue remembers the keys.

        A learned temperature is among the metrics, and so is what the sampler chose.

        Raises:
            ValueError: the features have another dimension than the objective was built for, shapes disagree, or a loss
                among all views (`nt_xent`, `max_margin`) is given queries that are not the keys.
        """
        query, key, positive, exclude, context = pairs
        if self._needs_itself and exclude is None and query is not key:
            raise ValueError(
                f"{name_of(self.loss)} compares every view with every view: queries must be the keys, or exclude must "
                "name each row itself, as two_view_pairs does; got pairs of neither kind"
            )
        query, key = self.project(query, key)
        if isinstance(positive, SameLabel):
            context = {**context, "label": positive.query, "key_label": positive.key}
        temperature = self.temperature() if isinstance(self.temperature, nn.Module) else self.temperature
        pairs = Pairs(query, key, positive, exclude, context)
        scored = score(pairs, self.similarity, self.sampler, self.loss, temperature)
        used = temperature if self.sampler.temperature is None else self.sampler.temperature
        used = self._default_temperature if used is None else used
        metrics = contrastive_metrics(scored.similarity, *scored.candidates, used, scored.info_nce)
        if isinstance(temperature, Tensor):
            metrics["temperature"] = temperature.detach()
        self.sampler.remember(key, context)
        return Outcome(scored.loss, {**metrics, **self.sampler.metrics()})

    def update(self) -> None:
        """Move the momentum projection towards the projection, and a loss that anneals; call it after each step."""
        super().update()
        if hasattr(self.loss, "update"):
            self.loss.update()
