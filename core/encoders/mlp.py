"""A multi-layer perceptron for vectors."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..check import choice, whole

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Module):
    """Linear layers with an activation between them and none after the last: `(N, in_features) -> (N, out)`.

    Args:
        in_features: dimension of the input.
        hidden: widths of the hidden layers; none makes a single linear layer.
        out: dimension of the output, also `out_features`.
        activation: elu, gelu, relu, silu or tanh.

    Raises:
        ValueError: a width is not a whole number >= 1, or the activation is unknown.
    """

    def __init__(self, in_features: int, hidden: Sequence[int], out: int, activation: str = "relu") -> None:
        super().__init__()
        make = ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]
        width = whole("in_features", in_features, 1)
        layers: list[nn.Module] = []
        for wide in hidden:
            layers += [nn.Linear(width, whole("hidden", wide, 1)), make()]
            width = wide
        self.out_features = whole("out", out, 1)
        self.layers = nn.Sequential(*layers, nn.Linear(width, self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, out)` features of `(N, in_features)` vectors."""
        return self.layers(x)
