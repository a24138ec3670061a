"""Supervised contrast by class, for class-conditional GANs.

Shape legend: N rows of a call, D feature dimension.
"""

import torch
from torch import Tensor

from ...core.pairs import Outcome, Pairs, SameLabel
from ..method import Context, Features, GenerativeMethod, ObjectiveFactory, Sizes


class ClassSupCon(GenerativeMethod):
    """SupCon (Khosla et al. 2020, eq. 2, https://arxiv.org/abs/2004.11362) with the classes of the images.

    For the discriminator, positives of a real image are the other real images of its class, and candidates all others.
    With `fake_labels`, the classes that the fakes were asked for, the fakes of a class are one more class of its own:
    candidates of the real images, and positives of each other. For the generator, the same on its fakes alone and the
    `labels` they were asked for, with the head standing still. An image without label (-1) is a candidate only.

    ContraGAN and ReACGAN are this with a learned proxy of each class; no paper trains just this, to our knowledge.

    Args:
        sizes: of the tap `features`.
        objective: `dim -> objective`: head and comparison, with a loss that takes several positives.

    Raises:
        ValueError: as for the objective.
    """

    generator_roles = ("fake",)
    context = generator_context = ("labels",)
    optional = ("fake_labels",)

    def __init__(self, sizes: Sizes, *, objective: ObjectiveFactory) -> None:
        super().__init__()
        (dim,) = sizes["features"]
        self.objective = objective(dim)

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the real images and `labels`, and of the fakes if `fake_labels` are given."""
        rows, labels = features["real"]["features"], 2 * context["labels"]
        if "fake_labels" in context:
            rows = torch.cat((rows, features["fake"]["features"]))
            labels = torch.cat((labels, 2 * context["fake_labels"] + 1))
        return self._outcome(rows, labels)

    def generator(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the fakes and the `labels` they were asked for."""
        return self._outcome(features["fake"]["features"], context["labels"])

    def update(self) -> None:
        """Tell the objective that a step is over."""
        self.objective.update()

    def _outcome(self, rows: Tensor, labels: Tensor) -> Outcome:
        itself = torch.arange(len(rows), device=rows.device)
        outcome: Outcome = self.objective(Pairs(rows, rows, SameLabel(labels, labels), exclude=itself))
        return outcome
