"""Heads between a discriminator's features and a similarity. Shape legend: N rows."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalised

from ...core.check import number, whole


class Head(nn.Module):
    """`(N, in_features) -> (N, out)`: linear - leaky ReLU - linear, as GAN papers have it.

    With `shortcut` a linear layer from input to output is added, as in InfoMax-GAN. Without `hidden` it is one linear
    layer, the embedding of ContraGAN.

    `g @ forward(x).T` is also `pulled_back(g) @ before_last(x).T`, which is cheaper for many x and few g.

    Args:
        in_features: dimension of the discriminator's features.
        hidden: width of the hidden layer, or None for a single linear layer.
        out: dimension of the output, also `out_features`.
        leak: slope of the leaky ReLU below 0; 0 is a ReLU.
        shortcut: add a linear map of the input to the output.
        spectral_norm: of every linear layer (Miyato et al. 2018, https://arxiv.org/abs/1802.05957). Its power iteration
            takes a step at each call in training mode.

    Attributes:
        out_features: dimension of the output.
        factors: F, what an output is a linear function of: the hidden layer, the input of the shortcut, and 1.

    Raises:
        ValueError: a width is not a whole number >= 1, the leak is below 0, or a shortcut without a hidden layer.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int | None = 512,
        out: int = 128,
        *,
        leak: float = 0.1,
        shortcut: bool = False,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        width = whole("in_features", in_features, 1)
        self.out_features = whole("out", out, 1)
        leak = number("leak", leak, 0.0)
        if shortcut and hidden is None:
            raise ValueError("a shortcut needs a hidden layer to lead past, got hidden None")

        def linear(rows: int, columns: int) -> nn.Module:
            layer = nn.Linear(rows, columns)
            return normalised(layer) if spectral_norm else layer

        layers: list[nn.Module] = []
        if hidden is not None:
            layers = [linear(width, whole("hidden", hidden, 1)), nn.LeakyReLU(leak)]
        self.layers = nn.Sequential(*layers, linear(width if hidden is None else hidden, out))
        self.shortcut = linear(width, out) if shortcut else None
        self.factors = (width if hidden is None else hidden) + (width if shortcut else 0) + 1

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, out)` projections of `(N, in_features)` features."""
        projected: Tensor = self.layers(x)
        return projected if self.shortcut is None else projected + self.shortcut(x)

    def before_last(self, x: Tensor) -> Tensor:
        """Return the `(N, F)` factors that the last layers are applied to, of `(N, in_features)` features."""
        hidden = x
        for layer in list(self.layers)[:-1]:
            hidden = layer(hidden)
        parts = [hidden] if self.shortcut is None else [hidden, x]
        return torch.cat((*parts, x.new_ones(len(x), 1)), 1)

    def pulled_back(self, g: Tensor) -> Tensor:
        """Return `(M, F)` vectors whose products with the factors are those of `(M, out)` vectors with the output."""
        last: list[Any] = [self.layers[-1]] if self.shortcut is None else [self.layers[-1], self.shortcut]
        bias = sum((layer.bias for layer in last[1:]), start=last[0].bias)
        return torch.cat((*(g @ layer.weight for layer in last), (g @ bias).unsqueeze(1)), 1)
