"""Time-InfoNCE: an image finds itself at another noise level. Shape legend: B rows of a batch."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.pairs import Outcome, Pairs
from ..method import Context, Features, GenerativeMethod, ObjectiveFactory, Sizes
from .noise_levels import NoiseLevels
from .pairing import same_image
from .rows import check_rows


class TimeInfoNCE(GenerativeMethod):
    """The same image at two noise levels is a positive pair, the other images of the batch are negatives.

        L = mean_i  1/|P_i| sum_{p in P_i} g_ip log( Z_i / e^{s_ip} ),    s = cosine(head(h_i), head(h_p)) / temperature

    where P_i are the other rows of the image of row i, and the grade g_ip = min(sqrt(alpha-bar_i), sqrt(alpha-bar_p))
    is the signal left in the noisier of the two: where little is left of the image, little is asked for. A pair without
    any signal counts neither as positive nor as negative. Rows without a partner are negatives of the others and have
    no loss of their own; a batch without pairs has loss 0, of which the first such batch warns.

    A batch for it comes from `contraux.clgen.diffusion.second_views`: both views are rows of the batch that is denoised
    anyway. Compare with the same batches at weight 0, since repeating images alone changes the training.

    It was not found in the literature as of 2026; the nearest are contrastive losses on frozen latents with time as
    side information. So there is no paper to deviate from.

    Args:
        sizes: of the tap `features`.
        objective: `dim -> Contrastive`, its loss one that takes graded positives (`graded_info_nce`).
        schedule: what a timestep leaves of the signal, see `alphas_cumprod`.
        steps: of the schedule.
        alpha_bar: `scheduler.alphas_cumprod`, in place of schedule and steps.

    `loss()` takes `timesteps` `(B,)` and `identity` `(B,)` long, the image's index in the data; and, for any other
    noise, `signal` `(B,)`: sqrt(alpha-bar) of each row.
    """

    roles = ("denoise",)
    context = ("timesteps", "identity")
    optional = ("signal",)

    def __init__(
        self,
        sizes: Sizes,
        *,
        objective: ObjectiveFactory,
        schedule: str | None = "linear",
        steps: int = 1000,
        alpha_bar: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        (dim,) = sizes["features"]
        self.levels = NoiseLevels(schedule, steps, alpha_bar)
        self.objective = objective(dim)
        self._looked = False

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return loss and metrics; `paired` is the share of rows that have a partner.

        Raises:
            ValueError: timesteps or identities that are not one for each row.
        """
        h = features["denoise"]["features"]
        check_rows(h, timesteps=context["timesteps"], identity=context["identity"])
        signal = self.levels.signal(context["timesteps"], context.get("signal"))
        same = same_image(context["identity"])
        self._look(same)
        grade = torch.minimum(signal.unsqueeze(1), signal) * same
        grade.fill_diagonal_(0.0)
        nothing_left = (same & (grade == 0)).fill_diagonal_(True)  # the row itself among them
        outcome = self.objective(Pairs(h, h, grade, nothing_left))
        paired = (grade > 0).any(1).float().mean()
        return outcome._replace(metrics={**outcome.metrics, "paired": paired})

    def _look(self, same: Tensor) -> None:
        """Warn, at the first batch alone, where no image is there twice: asking waits for the device."""
        if self._looked or torch.compiler.is_compiling():
            return
        self._looked = True
        if int(same.sum(1).max()) <= 1:
            warnings.warn(
                "time_infonce has loss 0 on this batch, in which no image is there twice: make batches with "
                "contraux.clgen.diffusion.second_views, or pairs.share=0.5 in contraux diffusion",
                stacklevel=4,
            )

    def update(self) -> None:
        """Move a momentum head, where the objective has one."""
        self.objective.update()
