"""ContraGAN: the conditional contrastive loss 2C. Shape legend: N examples, D feature dimension."""

from typing import Any

from torch import Tensor

from ...core.check import number
from ...core.losses import mil_nce
from ...core.metrics import contrastive_metrics
from ...core.pairs import Outcome
from ...core.projected import HeadFactory
from ..method import Context, Features, GenerativeMethod, Sizes
from .proxies import ClassProxies


class ContraGAN(GenerativeMethod):
    """Kang and Park 2020, section 3.2 and algorithm 1, https://arxiv.org/abs/2006.12681.

        e = embedding of the features, p = proxy of the class, cosines over the temperature t
        L_i = -log( (e^{e_i p_yi / t} + sum_{j != i, y_j = y_i} e^{e_i e_j / t})
                  / (e^{e_i p_yi / t} + sum_{j != i} e^{e_i e_j / t}) )

    for the discriminator on real images, for the generator on its fakes with the classes they were asked for and the
    same head, which stands still then.

    Where the classes separate, the loss says nothing of what an image of a class looks like: in StudioGAN's own table
    ContraGAN has a far worse distance within classes than BigGAN (CIFAR-10: 120 to 14), so measure that too.

    Deviation: the logarithms are taken with the maximum taken out of both sums, where StudioGAN exponentiates the
    similarities as they are, which overflows in half precision at small temperatures. No spectral norm on the proxies,
    whose cosines it would not change.

    Args:
        sizes: of the tap `features`; StudioGAN sums its last map over space.
        classes: number of classes.
        head: `in_features -> module` with `out_features`, the embedding.
        temperature: > 0.

    Raises:
        ValueError: a number out of range.
    """

    generator_roles = ("fake",)
    context = generator_context = ("labels",)

    def __init__(self, sizes: Sizes, *, classes: Any, head: HeadFactory, temperature: float = 1.0) -> None:
        super().__init__()
        (dim,) = sizes["features"]
        self.compare = ClassProxies(dim, classes, head)
        self.temperature = number("temperature", temperature, 0.0, above=True)

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the real images and `labels`; the fakes are not looked at."""
        return self._outcome(features["real"]["features"], context["labels"])

    def generator(self, features: Features, context: Context) -> Outcome:
        """Return the loss of the fakes and the `labels` they were asked for."""
        return self._outcome(features["fake"]["features"], context["labels"])

    def _outcome(self, features: Tensor, labels: Tensor) -> Outcome:
        similarity, same, other = self.compare(features, labels)
        weights = other.to(similarity.dtype)
        loss = mil_nce(similarity, same, weights, self.temperature)
        return Outcome(loss, contrastive_metrics(similarity, same, weights, self.temperature))
