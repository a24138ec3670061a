"""Label-supervised contrast for conditional denoisers. Shape legend: B rows of a batch."""

import torch

from ...core.masks import positive_mask
from ...core.pairs import Outcome, Pairs, SameLabel
from ..method import Context, Features, GenerativeMethod, ObjectiveFactory, Sizes
from .rows import check_rows


class LabelSupCon(GenerativeMethod):
    """SupCon on the denoiser's features: rows of the same label are positives (Khosla et al. 2020, eq. 2).

    Rows without a label, negative or the null class of classifier-free guidance, have no positives and are no negatives
    either, since theirs might be the same label.

    A denoiser that is told the label can repeat it without looking at the image. Give the true labels, also of the rows
    whose label was dropped: these have to be read from the image. https://arxiv.org/abs/2004.11362

    Deviations: on features of noisy images, without augmentation: the positives are other images of the label alone,
    so that a row whose label nobody else has is left out.

    Args:
        sizes: of the tap `features`.
        objective: `dim -> Contrastive`.
        null_class: label that means no label; None: negative ones only.

    `loss()` takes `labels` `(B,)` long.
    """

    roles = ("denoise",)
    context = ("labels",)

    def __init__(self, sizes: Sizes, *, objective: ObjectiveFactory, null_class: int | None = None) -> None:
        super().__init__()
        (dim,) = sizes["features"]
        self.null_class = null_class
        self.objective = objective(dim)

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return loss and metrics; `labelled` is the share of rows that have another of their label.

        Raises:
            ValueError: labels that are not one for each row.
        """
        h, labels = features["denoise"]["features"], context["labels"]
        check_rows(h, labels=labels)
        if self.null_class is not None:
            labels = labels.masked_fill(labels == self.null_class, -1)
        itself = torch.eye(len(h), dtype=torch.bool, device=h.device)
        positive = positive_mask(SameLabel(labels, labels), len(h)) & ~itself
        unknown = (labels < 0).expand(len(h), -1)
        outcome = self.objective(Pairs(h, h, positive, itself | unknown))
        return outcome._replace(metrics={**outcome.metrics, "labelled": positive.any(1).float().mean()})

    def update(self) -> None:
        """Move a momentum head, where the objective has one."""
        self.objective.update()
