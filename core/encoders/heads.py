"""Heads between an encoder and a similarity; they are thrown away after training."""

from torch import Tensor, nn

from ..check import whole


class ProjectionHead(nn.Module):
    """`(N, in_features) -> (N, out)`, for queries and keys alike.

    With `hidden`, linear - ReLU - linear, the head g of SimCLR (Chen et al. 2020, section 2.1; theirs has batch norm in
    the deeper variants, this one none). Without, one linear layer; `layer_norm` then gives the linear - LayerNorm that
    ends CURL's encoder (Laskin et al. 2020, https://arxiv.org/abs/2004.04136).

    Args:
        in_features: dimension of the encoder's features.
        hidden: width of the hidden layer, or None for a single linear layer.
        out: dimension of the output, also `out_features`.
        layer_norm: end with a LayerNorm.

    Raises:
        ValueError: a width is not a whole number >= 1.
    """

    def __init__(self, in_features: int, hidden: int | None = 128, out: int = 128, layer_norm: bool = False) -> None:
        super().__init__()
        width = whole("in_features", in_features, 1)
        self.out_features = whole("out", out, 1)
        layers: list[nn.Module] = []
        if hidden is not None:
            layers += [nn.Linear(width, whole("hidden", hidden, 1)), nn.ReLU()]
            width = hidden
        layers.append(nn.Linear(width, self.out_features))
        if layer_norm:
            layers.append(nn.LayerNorm(self.out_features))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, out)` projections of `(N, in_features)` features."""
        return self.layers(x)


class PredictionHead(nn.Module):
    """`(N, in_features) -> (N, in_features)`, for queries only: linear - ReLU - linear.

    The predictor q of BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733; theirs has batch norm, this one none).
    With `residual` the input is added to the result, as in the anchor network h of ATC (Stooke et al. 2021,
    https://arxiv.org/abs/2009.08319).

    Args:
        in_features: dimension of the projections, also `out_features`.
        hidden: width of the hidden layer.
        residual: add the input to the output.

    Raises:
        ValueError: a width is not a whole number >= 1.
    """

    def __init__(self, in_features: int, hidden: int = 512, residual: bool = False) -> None:
        super().__init__()
        self.out_features = whole("in_features", in_features, 1)
        wide = whole("hidden", hidden, 1)
        self.residual = residual
        self.layers = nn.Sequential(nn.Linear(in_features, wide), nn.ReLU(), nn.Linear(wide, in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, in_features)` predictions of the keys from `(N, in_features)` projections."""
        return x + self.layers(x) if self.residual else self.layers(x)
