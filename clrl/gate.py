"""Let an auxiliary gradient in as far as it agrees with the host's own, or no further than that goes itself."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

GATES = ("none", "sign", "cosine", "norm")


class Compared(NamedTuple):
    """Two gradients, each over all its tensors taken as one vector.

    Attributes:
        cosine: scalar in [-1, 1]; 0 where one of them has no length.
        ratio: scalar >= 0, the length of the host's over that of the auxiliary's; 1 where the latter has none.
    """

    cosine: Tensor
    ratio: Tensor


def compare_gradients(host: Sequence[Tensor], auxiliary: Sequence[Tensor]) -> Compared:
    """Compare two gradients.

    Args:
        host: the gradient of the host's loss by each parameter.
        auxiliary: of the auxiliary's, by the same parameters.
    """
    dots = torch.stack([torch.sum(one * other) for one, other in zip(host, auxiliary, strict=True)])
    ours, own = (
        torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(side)))).double() for side in (host, auxiliary)
    )
    cosine = torch.where(ours * own > 0, dots.double().sum() / (ours * own), 0.0)
    ratio = torch.where(own > 0, ours / own, 1.0)
    return Compared(cosine.to(dots.dtype), ratio.to(dots.dtype))


def gate_factor(gate: str, compared: Compared) -> Tensor:
    """Return the factor in [0, 1] on the auxiliary's gradient.

    Args:
        gate: `sign`, the unweighted version of Du et al. 2018, arXiv 1812.02224: 1 where the cosine is >= 0, else 0;
            `cosine`, their weighted version: max(0, cosine); `norm`: min(1, ratio), so that the auxiliary's gradient,
            before its weight, is never longer than the host's.
        compared: see :func:`compare_gradients`.
    """
    if gate == "norm":
        return compared.ratio.clamp(max=1.0)
    return (compared.cosine >= 0).to(compared.cosine.dtype) if gate == "sign" else compared.cosine.clamp(min=0.0)
