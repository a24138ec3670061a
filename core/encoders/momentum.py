"""A slowly moving copy of an encoder, for keys."""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..check import number


class MomentumEncoder(nn.Module):
    """An exponential moving average of another module, never trained by gradient (He et al. 2020, MoCo, eq. 2).

        key <- momentum * key + (1 - momentum) * online

    The copy begins equal to `online`. It is in training mode when its parent is.

    Args:
        online: the module to follow; it is copied, not kept.
        momentum: in [0, 1); 0 copies at each update. Target rates written tau are 1 - momentum.
        copy_buffers: copy the buffers of `online` (such as running statistics) at each update. Otherwise the copy's
            own are left to it: batch norm in training mode then keeps running statistics of what the copy itself saw,
            which are the right ones for its averaged weights.

    Raises:
        ValueError: momentum is not a number in [0, 1).
    """

    def __init__(self, online: nn.Module, momentum: float, *, copy_buffers: bool = True) -> None:
        super().__init__()
        self.momentum = number("momentum", momentum, 0.0, 1.0, below=True)
        self.copy_buffers = copy_buffers
        self.encoder = deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the copy returns for these arguments, without gradient."""
        return self.encoder(*args, **kwargs)

    @torch.no_grad()
    def update(self, online: nn.Module, momentum: float | None = None) -> None:
        """Move one step towards `online`, a module of the same structure.

        Args:
            online: the module to follow.
            momentum: in [0, 1], of this step, where it is on a schedule; None: that of the constructor.
        """
        keep = self.momentum if momentum is None else momentum
        keys: list[Tensor] = list(self.encoder.parameters())
        targets: list[Tensor] = list(online.parameters())
        if keys:
            torch._foreach_lerp_(keys, targets, 1.0 - keep)
        if self.copy_buffers:
            for mine, theirs in zip(self.encoder.buffers(), online.buffers(), strict=True):
                mine.copy_(theirs)


def cosine_momentum(momentum: float, progress: float) -> float:
    """Return the momentum that rises from `momentum` to 1 along half a cosine (Grill et al. 2020, BYOL, section 3.3).

        1 - (1 - momentum) (cos(pi progress) + 1) / 2

    Args:
        momentum: at the beginning, in [0, 1).
        progress: share of the training that is done, k / K of the paper, in [0, 1].
    """
    return 1.0 - (1.0 - momentum) * (math.cos(math.pi * progress) + 1.0) / 2.0
