"""Let an auxiliary gradient in only where it agrees with the host's own (Du et al. 2018, arXiv 1812.02224)."""

from collections.abc import Sequence

import torch
from torch import Tensor

GATES = ("none", "sign", "cosine")


def gradient_cosine(host: Sequence[Tensor], auxiliary: Sequence[Tensor]) -> Tensor:
    """Return the cosine of two gradients, each over all its tensors taken as one vector; 0 where one has no length.

    Args:
        host: the gradient of the host's loss by each parameter.
        auxiliary: of the auxiliary's, by the same parameters.
    """
    dots = torch.stack([torch.sum(one * other) for one, other in zip(host, auxiliary, strict=True)])
    lengths = [
        torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(side)))).double() for side in (host, auxiliary)
    ]
    product = lengths[0] * lengths[1]
    return torch.where(product > 0, dots.double().sum() / product, 0.0).to(dots.dtype)


def gate_factor(gate: str, cosine: Tensor) -> Tensor:
    """Return the factor in [0, 1] on the auxiliary's gradient.

    Args:
        gate: `sign`, the paper's unweighted version: 1 where the cosine is >= 0, else 0; `cosine`, its weighted
            version: max(0, cosine).
        cosine: scalar; see :func:`gradient_cosine`.
    """
    return (cosine >= 0).to(cosine.dtype) if gate == "sign" else cosine.clamp(min=0.0)
