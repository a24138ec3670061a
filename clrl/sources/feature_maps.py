"""An observation and the map that the encoder's convolutions make of it, now and k steps later: ST-DIM.

Shape legend: N windows, D features, C channels, H x W = L positions of the feature map.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.check import choice, whole
from ...core.pairs import Pairs
from ..observations import Observer, Views
from ..stores import Window
from .stack import Batch, stack


class FeatureMaps(nn.Module):
    """Query: the features of o_t. Keys: the feature map of o_{t+k}, a row for each position. Context: that of o_t.

    The map is tapped where it arises inside the encoder, by a hook that is there during our own forward pass only;
    both observations go through the encoder in one batch. `Pairs.key` is `(L N, C)`, all windows of the first position
    (the upper left one), then all of the second along the row; `Pairs.positive` names the first, and

        key_local  (L N, C)  the map of o_t, rows in the same order

    is the context. Gradient flows through everything.

    Args:
        encoder: the host's features extractor; it stays the host's and is no part of this module's state.
        observer: the host's observation space and preprocessing.
        k: steps from query to key, an integer >= 1.
        layer: dotted name, within the encoder, of the module whose output is the map. None takes the last one before
            the map is flattened: in NatureCNN what follows the third convolution, 7 x 7 for 84 x 84 images. So does the
            paper's code (AtariARI), after the third of three convolutions for 84 x 84 and of four for whole frames;
            rlpyt takes the map before, in Stable-Baselines3's NatureCNN `cnn.3`, 9 x 9.
        views: the view of each kind of leaf; the observations of a window are seen through a draw each.

    Raises:
        ValueError: k is out of range, no module makes a map, or `layer` is none of those that do.
    """

    def __init__(
        self,
        encoder: nn.Module,
        observer: Observer,
        *,
        k: int = 1,
        layer: str | None = None,
        views: Views | None = None,
    ):
        super().__init__()
        self.horizon = whole("k", k, 1)
        self.views: Views = dict(views or {})
        self.observer = observer
        self._encoder = (encoder,)  # in a tuple: the host's module is not registered as ours
        blank = {name: np.zeros((2, *observer.shape(name)), leaf.dtype) for name, leaf in observer.leaves.items()}
        maps = map_shapes(encoder, observer.encoder_input(blank, {}, torch.Generator()))
        if not maps:
            kinds = ", ".join(sorted(set(observer.kinds.values())))
            raise ValueError(
                "ST-DIM needs an encoder in which a module's output is a map (N, C, H, W) of more than one position, "
                f"got {type(encoder).__name__} without one for observations of kind {kinds}; "
                "choose objective=temporal or objective=cpc"
            )
        self.layer = list(maps)[-1] if layer is None else choice("layer with a feature map", layer, maps)
        self.sizes: dict[str, int | tuple[int, ...]] = {"local_dim": maps[self.layer][0]}

    def forward(self, window: Window, generator: torch.Generator) -> Pairs:
        """Encode both ends of each window in one pass."""
        ends = [self._see(window, offset, generator) for offset in (0, self.horizon)]
        features, found = with_map(self._encoder[0], self.layer, stack(ends))
        query = features.chunk(2)[0]
        local, key = (rows(one) for one in found.chunk(2))
        positive = torch.arange(len(query), device=query.device)
        return Pairs(query, key, positive, context={"key_local": local})

    def _see(self, window: Window, offset: int, generator: torch.Generator) -> Batch:
        return self.observer.encoder_input(window.observation(offset), self.views, generator)

    def update(self) -> None:
        """Nothing here follows the encoder."""


def rows(maps: Tensor) -> Tensor:
    """`(N, C, H, W) -> (H W N, C)`: all windows of the first position, then all of the second."""
    return maps.flatten(2).permute(2, 0, 1).flatten(0, 1)


def with_map(encoder: nn.Module, layer: str, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the encoder's features, and what one of its modules put out on the way.

    The encoder is called through `forward`, so that hooks which the host has on it stay the host's.
    """
    found: list[Tensor] = []
    handle = encoder.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: found.append(output))
    try:
        features = encoder.forward(batch)
    finally:
        handle.remove()
    return features, found[-1]


@torch.no_grad()
def map_shapes(encoder: nn.Module, batch: Batch) -> dict[str, tuple[int, ...]]:
    """Return `(C, H, W)` of every module inside whose output for a batch is a map of more than one position.

    In the order in which they are done, a container after what it contains. The encoder is left as it was: it runs in
    evaluation mode, in which nothing inside should move.
    """
    size = len(next(iter(batch.values())) if isinstance(batch, dict) else batch)
    found: dict[str, tuple[int, ...]] = {}

    def look(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and len(output) == size and output[0, 0].numel() > 1:
                found.pop(name, None)  # a module that runs twice is as late as its last run
                found[name] = tuple(output.shape[1:])

        return hook

    inside = [(name, module) for name, module in encoder.named_modules() if name]
    training = [(module, module.training) for module in encoder.modules()]
    handles = [module.register_forward_hook(look(name)) for name, module in inside]
    try:
        encoder.eval()
        encoder.forward(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training:
            module.training = mode
    return found
