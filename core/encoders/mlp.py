"""A multi-layer perceptron for vectors."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from ..check import choice, whole
from .inputs import shape_of

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Module):
    """Linear layers with an activation between them and none after the last: `(N, *input_shape) -> (N, out)`.

    Args:
        input_shape: a number D, or the shape of one example, which is flattened to D numbers.
        hidden: widths of the hidden layers; none makes a single linear layer.
        out: dimension of the output, also `out_features`.
        activation: elu, gelu, relu, silu or tanh.

    Raises:
        ValueError: a size is not a whole number >= 1, or the activation is unknown.
    """

    def __init__(
        self, input_shape: int | Sequence[int], hidden: Sequence[int], out: int, activation: str = "relu"
    ) -> None:
        super().__init__()
        make = ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]
        width = prod(shape_of("MLP", input_shape))
        layers: list[nn.Module] = []
        for wide in hidden:
            layers += [nn.Linear(width, whole("hidden", wide, 1)), make()]
            width = wide
        self.out_features = whole("out", out, 1)
        self.layers = nn.Sequential(*layers, nn.Linear(width, self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, out)` features of `(N, *input_shape)` inputs."""
        return self.layers(x.flatten(start_dim=1))
