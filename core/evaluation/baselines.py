"""What a pretrained encoder is compared with: its architecture untrained but calibrated, and the inputs as they are."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..check import whole
from ..data.loader import batches
from ..data.protocol import DataSet
from .features import device_of, evaluating


class RawInputs(nn.Module):
    """An encoder that does nothing: uint8 images as numbers in [0, 1], all else as it is, flattened to `(N, D)`.

    Args:
        size: >= 1; larger images are averaged down to this height and width, for a probe has a weight for each entry.
    """

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.size = whole("size", size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, D)` float32."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if x.ndim == 4 and max(x.shape[2:]) > self.size:
            x = F.adaptive_avg_pool2d(x, (min(x.shape[2], self.size), min(x.shape[3], self.size)))
        return x.flatten(1)


def calibrate(
    encoder: nn.Module,
    data: DataSet,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    seed: int = 0,
    examples: int = 10_000,
    workers: int = 0,
) -> nn.Module:
    """Return a copy of the encoder whose batch normalisation knows the statistics of the data.

    A network that was never trained normalises with mean 0 and variance 1, and its features can be far worse than its
    weights: the difference between it and a pretrained one would be in part one of statistics. One pass in train mode
    sets them to the plain mean over batches (`momentum=None`). Nothing else is in train mode (no dropout), no weight
    changes, and a network without batch normalisation comes back as it was.

    Args:
        encoder: left as it is.
        data: training split.
        batch_size: >= 2; batches are drawn without replacement, and all have this size (or the data's, if smaller).
        device: where it runs, and the copy stays; None: where the encoder is.
        seed: of the order.
        examples: at most so many, but at least one batch.
        workers: processes that read the data.
    """
    device = device_of(encoder) if device is None else device
    encoder = copy.deepcopy(encoder).to(device)
    layers = [part for part in encoder.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not layers:
        return encoder
    size = min(whole("batch_size", batch_size, 2), len(data))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    order = order[: max(examples // size, 1) * size]
    before = [layer.momentum for layer in layers]
    with evaluating(encoder), torch.no_grad():
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.training = True
        whole_batches = [indices.tolist() for indices in order.split(size) if len(indices) == size]
        for batch in batches(data, whole_batches, workers=workers):
            encoder(batch.inputs.to(device))
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum
    return encoder
