"""ReACGAN: the data-to-data cross-entropy D2D-CE. Shape legend: N examples, D feature dimension."""

from typing import Any, Literal

import torch
from torch import Tensor

from ...core.check import choice, number
from ...core.losses import d2d_ce
from ...core.metrics import contrastive_metrics
from ...core.pairs import Outcome
from ...core.projected import HeadFactory
from ..method import Context, Features, GenerativeMethod, Sizes
from .proxies import ClassProxies


class ReACGAN(GenerativeMethod):
    """Kang, Shim, Cho and Park 2021, section 3, https://arxiv.org/abs/2111.01118.

        e = embedding of the features, p = proxy of the class
        L_i = -log( e^{a_i} / (e^{a_i} + sum_{y_j != y_i} e^{b_ij}) )
        a_i = min(0, cos(e_i, p_yi) - m_p) / t,   b_ij = max(0, cos(e_i, e_j) - m_n) / t,   m_n = 1 - m_p

    for the discriminator on real images, for the generator on its fakes with the classes they were asked for and the
    same head, which stands still then. Examples of the same class are neither positive nor negative; easy pairs, beyond
    the margins, pull no more.

    It gains in distance and precision and pays in recall (StudioGAN's table, ImageNet: 0.38 to BigGAN's 0.65): measure
    that too.

    `variant="studiogan"` is what the authors' code computes, which is not the paper's formula:
    `contraux.core.losses.d2d_ce`.

    Deviation: no spectral norm on the proxies, whose cosines it would not change.

    Args:
        sizes: of the tap `features`; StudioGAN sums its last map over space.
        classes: number of classes.
        head: `in_features -> module` with `out_features`, the embedding.
        temperature: > 0.
        margin: m_p, in (0, 1].
        variant: `paper` or `studiogan`.

    Raises:
        ValueError: a number out of range, or another variant.
    """

    generator_roles = ("fake",)
    context = generator_context = ("labels",)

    def __init__(
        self,
        sizes: Sizes,
        *,
        classes: Any,
        head: HeadFactory,
        temperature: float = 0.5,
        margin: float = 0.98,
        variant: Literal["paper", "studiogan"] = "paper",
    ) -> None:
        super().__init__()
        (dim,) = sizes["features"]
        self.compare = ClassProxies(dim, classes, head)
        self.temperature = number("temperature", temperature, 0.0, above=True)
        self.margin = number("margin", margin, 0.0, 1.0, above=True)
        choice("variant", variant, ("paper", "studiogan"))
        self.variant = variant

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the real images and `labels`; the fakes are not looked at."""
        return self._outcome(features["real"]["features"], context["labels"])

    def generator(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the fakes and the `labels` they were asked for."""
        return self._outcome(features["fake"]["features"], context["labels"])

    def _outcome(self, features: Tensor, labels: Tensor) -> Outcome:
        similarity, _, other = self.compare(features, labels)
        weights = other.to(similarity.dtype)
        proxy = torch.full_like(labels, len(labels))
        loss = d2d_ce(similarity, proxy, weights, self.temperature, self.margin, 1 - self.margin, self.variant)
        return Outcome(loss, contrastive_metrics(similarity, proxy, weights, self.temperature))
