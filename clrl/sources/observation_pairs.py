"""An observation and the one k steps later, each through its own view: CURL (k = 0), ATC (k > 0), temporal InfoNCE.

Shape legend: N windows, D features.
"""

import torch
from torch import Tensor, nn

from ...core.check import whole
from ...core.encoders import MomentumEncoder
from ...core.pairs import Pairs
from ..observations import Observer, Views
from ..stores import Window
from .stack import stack


class ObservationPairs(nn.Module):
    """Query: the features of a view of o_t. Key: the features of another view of o_{t+k}. Positives on the diagonal.

    The encoder is called through `forward`, so that hooks which the host has on it (its own augmentation) stay the
    host's. Without momentum both sides go through the encoder in one batch and both get a gradient; with momentum 0
    the encoder itself makes the keys, without a gradient, which on images saves half of the backward pass.

    Args:
        encoder: the host's features extractor; it stays the host's and is no part of this module's state.
        observer: the host's observation space and preprocessing.
        k: steps from query to key, an integer >= 0.
        momentum: of the key encoder, an exponential moving average of the encoder, in [0, 1); None shares the encoder,
            gradient included.
        views: the view of each kind of leaf, e.g. `{"image": RandomShift(4)}`.

    Raises:
        ValueError: k = 0 and no view changes this observation space, so that query and key would be the same.
    """

    def __init__(
        self,
        encoder: nn.Module,
        observer: Observer,
        *,
        k: int,
        momentum: float | None = None,
        views: Views | None = None,
    ):
        super().__init__()
        self.horizon = whole("k", k, 0)
        self.sizes: dict[str, int] = {}
        self.views: Views = dict(views or {})
        if not self.horizon and not observer.shows_difference(self.views):
            kinds = ", ".join(sorted(set(observer.kinds.values())))
            raise ValueError(
                f"query and key must differ: got k=0 and no view for observations of kind {kinds}; "
                "pass k >= 1 or a view (source.views.image, source.views.vector)"
            )
        self.observer = observer
        self._encoder = (encoder,)  # in a tuple: the host's module is not registered as ours
        self.key_gradient = momentum is None
        self.key_encoder = MomentumEncoder(encoder, momentum) if momentum else None

    def forward(self, window: Window, generator: torch.Generator) -> Pairs:
        """Encode both ends of each window: `(N, D)` queries and keys."""
        query_input = self._see(window, 0, generator)
        key_input = self._see(window, self.horizon, generator)
        encode = self._encoder[0].forward
        if self.key_gradient:
            query, key = encode(stack((query_input, key_input))).chunk(2)
        elif self.key_encoder is not None:
            query, key = encode(query_input), self.key_encoder(key_input)
        else:
            with torch.no_grad():
                key = encode(key_input)
            query = encode(query_input)
        return Pairs(query, key, torch.arange(len(query), device=query.device))

    def pairs_with(self, query: Tensor, seen: Tensor | dict[str, Tensor], generator: torch.Generator) -> Pairs:
        """Pairs of features that the host has made already, `(N, D)`, with another view of what it made them from.

        Args:
            query: the features; gradient flows into them.
            seen: the encoder's input, preprocessed.
            generator: of the view.
        """
        viewed = self.observer.viewed(seen, self.views, generator)
        with torch.no_grad():
            key = (self.key_encoder or self._encoder[0].forward)(viewed)
        return Pairs(query, key, torch.arange(len(query), device=query.device))

    def _see(self, window: Window, offset: int, generator: torch.Generator) -> Tensor | dict[str, Tensor]:
        return self.observer.encoder_input(window.observation(offset), self.views, generator)

    def update(self) -> None:
        """Move the key encoder towards the encoder."""
        if self.key_encoder is not None:
            self.key_encoder.update(self._encoder[0])
