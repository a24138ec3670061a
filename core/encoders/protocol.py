"""What pretraining, evaluation and hosts ask of an encoder. Shape legend: N examples, D features."""

from collections.abc import Sequence
from typing import Protocol

from torch import nn


class EncoderFactory(Protocol):
    """What a YAML of `configs/encoder/` describes: `encoder(input_shape) -> module` with an integer `out_features`.

    The module turns `(N, *input_shape)` floating inputs, normalised by mean and standard deviation, into `(N, D)`
    features with D = `out_features`.
    """

    def __call__(self, input_shape: Sequence[int]) -> nn.Module:
        """Return the encoder of inputs of this shape, `(C, H, W)` for images or `(D,)` for vectors."""
        ...
