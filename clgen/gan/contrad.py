"""ContraD: the discriminator learns by contrast alone, and a head on top tells real from fake.

Shape legend: N rows of a call, D feature dimension.
"""

import torch

from ...core.check import number
from ...core.layout import two_view_pairs
from ...core.pairs import Outcome, Pairs, SameLabel
from ..method import Context, Features, GenerativeMethod, ObjectiveFactory, Sizes
from .outcomes import weighted


class ContraD(GenerativeMethod):
    """Jeong and Shin 2021, algorithm 1 and section 3, https://arxiv.org/abs/2103.09742.

        real: NT-Xent of the two views of the real images through head h1, each view among all 2 N
        fake: SupCon of the fakes through head h2; positives of a fake: the other fakes; candidates: these and both
              real views
        loss = real + fake_weight * fake

    While `with aux:` records, what stands behind the tap gets its output detached: the adversarial loss trains the
    discriminator's head and nothing before it. Views and fakes must all be augmented, by the same augmentation; the
    adversarial loss takes real and fake and leaves the view's logits. A gradient penalty with respect to images must be
    taken from a call outside `with aux:`, since through a stopped head it is zero. The generator has no term: its step
    is the plain one, without a stop.

    Deviations: the adversarial head is the user's own, where the paper's has a hidden layer. The features are pooled
    as `attach` was told, where the authors flatten SNDCGAN's map (`pool="flatten"`). No warm-up of the learning rate.

    Args:
        sizes: of the tap `features`.
        real: `dim -> objective`: head h1 and the comparison of real views.
        fake: `dim -> objective`: head h2 and the comparison of fakes; a loss that takes several positives.
        fake_weight: >= 0, lambda_con of the paper.

    Raises:
        ValueError: the weight is no number >= 0, or as for the objectives.
    """

    roles = ("real", "view", "fake")
    stop_gradient = True

    def __init__(
        self, sizes: Sizes, *, real: ObjectiveFactory, fake: ObjectiveFactory, fake_weight: float = 1.0
    ) -> None:
        super().__init__()
        (dim,) = sizes["features"]
        self.real, self.fake = real(dim), fake(dim)
        self.fake_weight = number("fake_weight", fake_weight, 0.0)

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return the sum of both losses; metrics of each under `real/` and `fake/`."""
        real, view, fake = (features[role]["features"] for role in self.roles)
        n = len(fake)
        is_real = torch.arange(n + len(real) + len(view), device=fake.device) >= n
        pairs = Pairs(
            query=fake,
            key=torch.cat((fake, real, view)),
            positive=SameLabel(torch.zeros(n, dtype=torch.long, device=fake.device), is_real.long()),
            exclude=torch.arange(n, device=fake.device),
        )
        return weighted(real=(1.0, self.real(two_view_pairs(real, view))), fake=(self.fake_weight, self.fake(pairs)))

    def update(self) -> None:
        """Tell the objectives that a step is over."""
        self.real.update()
        self.fake.update()
