"""Encoders to probe, as modules from preprocessed observations to features. Shape legend: N frames, D features."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import Tensor, nn

from ...clrl.observations import Observer
from ...clrl.vector import VectorEncoder
from ...core.evaluation.baselines import RawInputs


class BeforeFinalReLU(nn.Module):
    """What the last ReLU of an encoder takes, where the encoder ends with one; else what the encoder returns.

    A third to a half of the features of a NatureCNN can be zero for every observation: what the ReLU cut off is still
    there before it. AtariARI's encoders have no ReLU at the end.

    Args:
        encoder: its in-place ReLUs are made to return new tensors.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.ends_with_relu = False
        for part in encoder.modules():
            if isinstance(part, nn.ReLU):
                part.inplace = False

    def forward(self, inputs: Any) -> Tensor:
        """Return `(N, D)`."""
        taken: dict[int, Tensor] = {}

        def keep(_: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
            taken[id(result)] = arguments[0]

        relus = [part for part in self.encoder.modules() if isinstance(part, nn.ReLU)]
        handles = [part.register_forward_hook(keep) for part in relus]
        try:
            features = self.encoder(inputs)
        finally:
            for handle in handles:
                handle.remove()
        self.ends_with_relu = id(features) in taken
        return taken.get(id(features), features)


class Pixels(nn.Module):
    """The newest frame itself, averaged down to `size` x `size`, or a vector as it is.

    Args:
        channels: of one frame.
        size: >= 1.
    """

    def __init__(self, channels: int | None, size: int) -> None:
        super().__init__()
        self.channels, self.raw = channels, RawInputs(size)

    def forward(self, inputs: Any) -> Tensor:
        """Return `(N, D)`; leaves of a Dict one after the other."""
        leaves = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
        return torch.cat([self.raw(self._newest(leaf)) for leaf in leaves], 1)

    def _newest(self, leaf: Tensor) -> Tensor:
        return leaf[:, -self.channels :] if self.channels is not None and leaf.ndim == 4 else leaf


def untrained(observer: Observer, features_dim: int, seed: int) -> BaseFeaturesExtractor:
    """Return the encoder that Stable-Baselines3 gives such observations, with the random weights of a seed.

    A NatureCNN for images, contraux's `VectorEncoder` for vectors (Stable-Baselines3 has none with weights), and a
    `CombinedExtractor` for a Dict with images, whose images have `features_dim` features each. The global random state
    is afterwards what it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if "image" not in observer.kinds.values():
            return VectorEncoder(observer.space, hidden=(features_dim,), features_dim=features_dim)
        if isinstance(observer.space, spaces.Dict):
            return CombinedExtractor(observer.space, cnn_output_dim=features_dim)
        assert isinstance(observer.space, spaces.Box)
        return NatureCNN(observer.space, features_dim=features_dim)
