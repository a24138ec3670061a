"""Heads between an encoder and a similarity; they are thrown away after training."""

from torch import Tensor, nn

from ..check import whole


class ProjectionHead(nn.Module):
    """`(N, in_features) -> (N, out)`, for queries and keys alike.

    With `hidden`, linear - ReLU - linear, the head g of SimCLR (Chen et al. 2020, section 2.1), and deeper: three
    layers with batch norm are the heads of SimSiam, MoCo v3, Barlow Twins and VICReg. Without, one linear layer;
    `layer_norm` then gives the linear - LayerNorm that ends CURL's encoder (Laskin et al. 2020,
    https://arxiv.org/abs/2004.04136).

    Args:
        in_features: dimension of the encoder's features.
        hidden: width of the hidden layers, or None for a single linear layer.
        out: dimension of the output, also `out_features`.
        layer_norm: end with a LayerNorm.
        depth: linear layers, >= 2, where there is a hidden one.
        batch_norm: between each hidden linear layer and its ReLU; such a layer has no bias, which batch norm would
            take out again.
        final_batch_norm: end with batch norm without scale and shift (SimSiam, MoCo v3).
        bias: of the last linear layer, which has none before `final_batch_norm` anyway.

    Raises:
        ValueError: a width or the depth is not a whole number in its range, or both final norms are asked for.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int | None = 128,
        out: int = 128,
        layer_norm: bool = False,
        *,
        depth: int = 2,
        batch_norm: bool = False,
        final_batch_norm: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        width = whole("in_features", in_features, 1)
        self.out_features = whole("out", out, 1)
        if layer_norm and final_batch_norm:
            raise ValueError("a head ends with layer_norm or final_batch_norm, got both")
        layers: list[nn.Module] = []
        if hidden is not None:
            layers = _hidden(width, hidden, whole("depth", depth, 2) - 1, batch_norm)
            width = hidden
        layers += _last(width, self.out_features, bias, final_batch_norm)
        if layer_norm:
            layers.append(nn.LayerNorm(self.out_features))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, out)` projections of `(N, in_features)` features; batch norm needs N >= 2 in training."""
        return self.layers(x)


class PredictionHead(nn.Module):
    """`(N, in_features) -> (N, in_features)`, for queries only: linear - ReLU - linear.

    The predictor q of BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733) and h of SimSiam, with `batch_norm`;
    with `final_batch_norm` too, that of MoCo v3. With `residual` the input is added to the result, as in the anchor
    network h of ATC (Stooke et al. 2021, https://arxiv.org/abs/2009.08319).

    Args:
        in_features: dimension of the projections, also `out_features`.
        hidden: width of the hidden layer.
        residual: add the input to the output.
        batch_norm: between the hidden linear layer and its ReLU; that layer then has no bias.
        final_batch_norm: end with batch norm without scale and shift; the layer before it has no bias.

    Raises:
        ValueError: a width is not a whole number >= 1.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int = 512,
        residual: bool = False,
        *,
        batch_norm: bool = False,
        final_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.out_features = whole("in_features", in_features, 1)
        self.residual = residual
        last = _last(whole("hidden", hidden, 1), self.out_features, True, final_batch_norm)
        self.layers = nn.Sequential(*_hidden(self.out_features, hidden, 1, batch_norm), *last)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, in_features)` predictions of the keys from `(N, in_features)` projections."""
        return x + self.layers(x) if self.residual else self.layers(x)


def _hidden(width: int, hidden: int, count: int, batch_norm: bool) -> list[nn.Module]:
    """Return so many hidden layers: linear, batch norm if asked for, ReLU."""
    layers: list[nn.Module] = []
    for _ in range(count):
        layers.append(nn.Linear(width, whole("hidden", hidden, 1), bias=not batch_norm))
        layers += [nn.BatchNorm1d(hidden), nn.ReLU()] if batch_norm else [nn.ReLU()]
        width = hidden
    return layers


def _last(width: int, out: int, bias: bool, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Linear(width, out, bias=bias and not batch_norm)]
    return [*layers, nn.BatchNorm1d(out, affine=False)] if batch_norm else layers
