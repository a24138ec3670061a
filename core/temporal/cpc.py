"""CPC: what was seen so far predicts the features of each of the next steps.

Shape legend: N windows, P observations of the past, K steps ahead, D features, H width of the context.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ..check import shape, whole
from ..losses import info_nce
from ..objectives import Contrastive
from ..pairs import Outcome, Pairs
from ..samplers import Sampler
from ..similarity import dot


class CPC(nn.Module):
    """Contrastive predictive coding: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748.

    A recurrent network sums up the features z up to now, and a linear map for each step ahead picks the features of
    that step out of those of all windows:

        c_t = GRU(z_{t-P} ... z_t)    score_j(n, m) = z_{t+j}[m]^T W_j c_t[n], the log of equation 3
        loss = 1/K sum_j InfoNCE(score_j), equation 4

    The features are `Pairs.query` (z_t), `Pairs.key` (z_{t+1} ... z_{t+K}, `(K N, D)`, all windows of the first step
    first) and the context `past` (z_{t-P} ... z_{t-1}, `(N, P, D)`; without it c_t has seen z_t only), as
    `contraux.clrl.sources.Sequences` makes them. Gradient flows through all of them. The order of the rows says who is
    positive; `positive` and `exclude` are not read. Windows lie within one episode, so nothing is padded or masked.

    Deviations: the negatives of a step are the features of the other windows of the batch at that very step. The paper
    draws other times of the same sequence too, AtariARI takes the targets of all times in the batch, and rlpyt all
    features of the batch, so that in all of them the moment within an episode has to be told apart. Here there is one
    context a window, not one for each of its moments. A GRU without the actions and rewards that rlpyt's LSTM sees.

    Args:
        dim: dimension D of the features.
        steps: K, as many as the source looks ahead; it says so.
        hidden: H, width of the GRU; 256 in the paper's experiments on speech.
        similarity: of predictions W_j c_t and features; the paper's is the scalar product.
        sampler: who counts as a negative, as for `Contrastive`; each step has its own.
        loss: as for `Contrastive`.
        temperature: likewise; W_j carries the scale.

    Raises:
        ValueError: a number out of range, or as for `Contrastive`.
    """

    def __init__(
        self,
        dim: int,
        *,
        steps: int,
        hidden: int = 256,
        similarity: Callable[[Tensor, Tensor], Tensor] = dot,
        sampler: Sampler | None = None,
        loss: Callable[..., Tensor] = info_nce,
        temperature: float | nn.Module | None = 1.0,
    ) -> None:
        super().__init__()
        self.dim, self.steps = whole("dim", dim, 1), whole("steps", steps, 1)
        self.gru = nn.GRU(self.dim, whole("hidden", hidden, 1), batch_first=True)
        self.prediction = nn.Linear(hidden, self.steps * self.dim, bias=False)  # W_1 ... W_K, one above the other
        self.contrasts = nn.ModuleList(
            Contrastive(dim, similarity=similarity, sampler=sampler, loss=loss, temperature=temperature)
            for _ in range(self.steps)
        )

    def forward(self, pairs: Pairs) -> Outcome:
        """Return the mean loss of the steps and the means of what `Contrastive` reports of each.

        `accuracy_first` and `accuracy_last` are the accuracies one step and K steps ahead.

        Raises:
            ValueError: the features have another dimension or the keys another number of steps than this was built for.
        """
        query, key = pairs.query, pairs.key
        n = query.shape[0]
        if query.ndim != 2 or query.shape[1] != self.dim or key.shape != (self.steps * n, self.dim):
            raise ValueError(
                f"CPC of {self.steps} steps needs queries (N, {self.dim}) and keys ({self.steps} N, {self.dim}), got "
                f"{shape(query)} and {shape(key)}"
            )
        predicted_KND = self.predict(query, pairs.context.get("past"))
        diagonal = torch.arange(n, device=query.device)
        steps = zip(self.contrasts, predicted_KND, key.unflatten(0, (self.steps, n)), strict=True)
        outcomes = [contrast(Pairs(predicted, ahead, diagonal)) for contrast, predicted, ahead in steps]
        metrics = {name: torch.stack([seen.metrics[name] for seen in outcomes]).mean() for name in outcomes[0].metrics}
        metrics["accuracy_first"] = outcomes[0].metrics["accuracy"]
        metrics["accuracy_last"] = outcomes[-1].metrics["accuracy"]
        return Outcome(torch.stack([outcome.loss for outcome in outcomes]).mean(), metrics)

    def predict(self, now: Tensor, past: Tensor | None = None) -> Tensor:
        """Return W_j c_t, `(K, N, D)`, from `(N, D)` features and the `(N, P, D)` before them, oldest first."""
        seen = now.unsqueeze(1)
        if past is not None:
            seen = torch.cat((past, seen), dim=1)
        _, context = self.gru(seen)
        return self.prediction(context[-1]).unflatten(1, (self.steps, self.dim)).transpose(0, 1)

    def update(self) -> None:
        """Let losses that anneal move on; call it after each step."""
        for contrast in self.contrasts:
            cast(Contrastive, contrast).update()
