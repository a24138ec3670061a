"""Supervised contrast of real and fake, within the batch that the discriminator sees anyway.

Shape legend: N rows of a call, D feature dimension.
"""

import torch

from ...core.pairs import Outcome, Pairs, SameLabel
from ..method import Context, Features, GenerativeMethod, ObjectiveFactory, Sizes


class RealFakeSupCon(GenerativeMethod):
    """SupCon (Khosla et al. 2020, eq. 2, https://arxiv.org/abs/2004.11362) with the labels real and fake.

    Positives of a real image are the other real images, of a fake the other fakes; candidates are all others. It needs
    neither views nor labels and no further pass of the discriminator. No paper trains just this, to our knowledge; the
    term for fakes in ContraD is one half of it. The generator has no term.

    Args:
        sizes: of the tap `features`.
        objective: `dim -> objective`: head and comparison, with a loss that takes several positives.

    Raises:
        ValueError: as for the objective.
    """

    def __init__(self, sizes: Sizes, *, objective: ObjectiveFactory) -> None:
        super().__init__()
        (dim,) = sizes["features"]
        self.objective = objective(dim)

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return the loss of real and fake together."""
        real, fake = (features[role]["features"] for role in self.roles)
        both = torch.cat((real, fake))
        row = torch.arange(len(both), device=both.device)
        is_fake = (row >= len(real)).long()
        outcome: Outcome = self.objective(Pairs(both, both, SameLabel(is_fake, is_fake), exclude=row))
        return outcome

    def update(self) -> None:
        """Tell the objective that a step is over."""
        self.objective.update()
