"""Ordinal log-SNR InfoNCE: how noisy is this, and does the timestep's embedding say the same? B rows, D dimension."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ...core.check import choice, number
from ...core.pairs import Outcome, Pairs
from ...core.projected import HeadFactory
from ..method import Context, Features, GenerativeMethod, ObjectiveFactory, Sizes
from .noise_levels import NoiseLevels
from .rows import check_rows

LEARNERS = ("both", "features", "time")


class OrdinalSNR(GenerativeMethod):
    """Features and timestep embeddings agree on the noise level, near levels counting as nearly right.

        L = -mean_i sum_j k_ij log softmax_j( cosine(g(h_i), f(e_j)) / temperature ),
        k_ij = exp(-(l_i - l_j)^2 / (2 bandwidth^2)) / sum_m exp(-(l_i - l_m)^2 / (2 bandwidth^2))

    with l the log-SNR of a row, h its features and e the embedding of its timestep: soft targets over the batch. Where
    all rows have one noise level the targets are uniform and nothing can be told. `kl` is the loss without the entropy
    of the targets, which no features can get below: 0 is perfect.

    Denoisers are told the timestep, so that features can repeat it without looking at the noise: a low loss alone says
    little. What it should change is the error under a wrong timestep (`contraux.clgen.diffusion.probes`). It was not
    found in the literature as of 2026; the targets are those of regression by soft labels, and the nearest objective
    is the noise classifier of CDL.

    Args:
        sizes: of the taps `features` and `time`.
        projection: `in_features -> module`, g, for features.
        time_projection: likewise f, for the embedding of the timestep; both put out the same dimension.
        objective: `dim -> Contrastive`, its loss one that takes soft positives (`info_nce`).
        bandwidth: > 0, in nats of log-SNR.
        learner: `both`; or `features` or `time`: no gradient reaches the other tap. Both heads learn in any case.
        schedule: what a timestep leaves of the signal, see `alphas_cumprod`.
        steps: of the schedule.
        alpha_bar: `scheduler.alphas_cumprod`, in place of schedule and steps.

    `loss()` takes `timesteps` `(B,)`; and, for any other noise, `signal` `(B,)`: sqrt(alpha-bar) of each row.

    Raises:
        ValueError: a number out of range, or heads of two dimensions.
    """

    taps: ClassVar[Mapping[str, str]] = {"features": "pooled", "time": "pooled"}
    roles = ("denoise",)
    context = ("timesteps",)
    optional = ("signal",)

    def __init__(
        self,
        sizes: Sizes,
        *,
        projection: HeadFactory,
        time_projection: HeadFactory,
        objective: ObjectiveFactory,
        bandwidth: float = 1.0,
        learner: str = "both",
        schedule: str | None = "linear",
        steps: int = 1000,
        alpha_bar: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.bandwidth = number("bandwidth", bandwidth, 0.0, above=True)
        self.learner = choice("learner", learner, LEARNERS)
        self.levels = NoiseLevels(schedule, steps, alpha_bar)
        self.projection, self.time_projection = projection(sizes["features"][0]), time_projection(sizes["time"][0])
        dims = [getattr(head, "out_features", None) for head in (self.projection, self.time_projection)]
        if dims[0] != dims[1] or dims[0] is None:
            raise ValueError(f"projection and time_projection must put out one dimension, got {dims[0]} and {dims[1]}")
        self.objective = objective(dims[0])

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return loss and metrics; `log_snr_error` is how far, in nats, the most similar embedding is on average.

        Raises:
            ValueError: timesteps or embeddings that are not one for each row.
        """
        h, e = features["denoise"]["features"], features["denoise"]["time"]
        check_rows(h, timesteps=context["timesteps"])
        if len(e) != len(h):
            raise ValueError(
                f"the timestep's embedding must have a row for each row of the features, got {len(e)} for {len(h)}: "
                "give the denoiser a timestep for each row, (B,)"
            )
        level = self.levels.log_snr(context["timesteps"], context.get("signal"))
        target = soft_targets(level, self.bandwidth)
        z = self.projection(h if self.learner != "time" else h.detach())
        key = self.time_projection(e if self.learner != "features" else e.detach())
        outcome = self.objective(Pairs(z, key, target))
        share = target / target.sum(1, keepdim=True)
        entropy = -torch.special.xlogy(share, share).sum(1).mean()
        with torch.no_grad():
            nearest = level[self.objective.similarity(z, key).argmax(1)]
        metrics = {"kl": outcome.loss.detach() - entropy, "log_snr_error": (level - nearest).abs().mean()}
        return outcome._replace(metrics={**outcome.metrics, **metrics})

    def update(self) -> None:
        """Move a momentum head, where the objective has one."""
        self.objective.update()


def soft_targets(level: Tensor, bandwidth: float) -> Tensor:
    """Return `(B, B)` exp(-(l_i - l_j)^2 / (2 bandwidth^2)), in [0, 1], 1 on the diagonal.

    Args:
        level: `(B,)` log-SNR in nats.
        bandwidth: > 0, likewise.
    """
    return torch.exp(-(level.unsqueeze(1) - level).square() / (2 * bandwidth**2))
