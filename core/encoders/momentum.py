"""A slowly moving copy of an encoder, for keys."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..check import number


class MomentumEncoder(nn.Module):
    """An exponential moving average of another module, never trained by gradient (He et al. 2020, MoCo, eq. 2).

        key <- momentum * key + (1 - momentum) * online

    The copy begins equal to `online`. Its buffers (such as running statistics) are copied, not averaged. It is in
    training mode when its parent is.

    Args:
        online: the module to follow; it is copied, not kept.
        momentum: in [0, 1); 0 copies at each update. Target rates written tau are 1 - momentum.

    Raises:
        ValueError: momentum is not a number in [0, 1).
    """

    def __init__(self, online: nn.Module, momentum: float) -> None:
        super().__init__()
        self.momentum = number("momentum", momentum, 0.0, 1.0, below=True)
        self.encoder = deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the copy returns for these arguments, without gradient."""
        return self.encoder(*args, **kwargs)

    @torch.no_grad()
    def update(self, online: nn.Module) -> None:
        """Move one step towards `online`, a module of the same structure."""
        keys: list[Tensor] = list(self.encoder.parameters())
        targets: list[Tensor] = list(online.parameters())
        if keys:
            torch._foreach_lerp_(keys, targets, 1.0 - self.momentum)
        for mine, theirs in zip(self.encoder.buffers(), online.buffers(), strict=True):
            mine.copy_(theirs)
