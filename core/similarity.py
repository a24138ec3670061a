"""Similarities `(N, D), (M, D) -> (N, M)`: larger is more alike.

Shape legend: N queries, M keys, D feature dimension.

The result is float32 also inside an autocast region and for half-precision features; float64 stays float64. In half
precision a temperature of 0.1 would turn rounding of the similarity into errors of a few per cent in the softmax.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from .check import shape, whole

ZERO_NORM = 1e18  # stands for the norm of a zero vector: 0 / 1e18 = 0 and the gradient vanishes instead of exploding


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """Return `q·k / (|q| |k|)`, in [-1, 1]; a zero vector has similarity 0 with everything and receives no gradient.

    Raises:
        ValueError: the shapes are not `(N, D)` and `(M, D)`.
    """
    with full_precision(query):
        query, key = _pair(query, key)
        # Dividing the product is a fifth cheaper than normalising both factors (N = M = 64, D = 128, with backward).
        return query @ key.T / (safe_norm(query).unsqueeze(1) * safe_norm(key))


def safe_norm(vectors: Tensor) -> Tensor:
    """Return the `(N,)` norms of `(N, D)` vectors to divide by: a zero vector's is so large that it stays zero."""
    norm = torch.linalg.vector_norm(vectors, dim=1)
    return norm.masked_fill(norm == 0, ZERO_NORM)


def dot(query: Tensor, key: Tensor) -> Tensor:
    """Return `q·k`, unbounded.

    Raises:
        ValueError: the shapes are not `(N, D)` and `(M, D)`.
    """
    with full_precision(query):
        query, key = _pair(query, key)
        return query @ key.T


def negative_euclidean(query: Tensor, key: Tensor, squared: bool = False) -> Tensor:
    """Return `-|q - k|`, or `-|q - k|^2` with `squared`, in (-inf, 0].

    The gradient of the distance at coincident points, where it has none, is 0. Distances are taken from the
    differences themselves, not from `|q|^2 - 2 q·k + |k|^2`, which loses the small ones.

    Raises:
        ValueError: the shapes are not `(N, D)` and `(M, D)`.
    """
    with full_precision(query):
        query, key = _pair(query, key)
        distance = torch.cdist(query, key, compute_mode="donot_use_mm_for_euclid_dist")
        return -distance.square() if squared else -distance


def bilinear(query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
    """Return `q^T W k` for a `(D, D)` weight, unbounded (van den Oord et al. 2018, eq. 3; CURL, section 4.5).

    Raises:
        ValueError: the shapes are not `(N, D)`, `(M, D)` and `(D, D)`.
    """
    with full_precision(query):
        query, key = _pair(query, key)
        if weight.shape != (query.shape[1], key.shape[1]):
            raise ValueError(
                f"bilinear needs a weight ({query.shape[1]}, {key.shape[1]}) for these features, got {shape(weight)}; "
                "give Bilinear the dimension that the projection puts out"
            )
        return query @ weight.to(query.dtype) @ key.T


class Bilinear(nn.Module):
    """`bilinear` with a learned weight `(dim, dim)`.

    Deviation: the weight begins as the identity over sqrt(dim), where CURL draws it uniformly from [0, 1) and ATC as a
    linear layer. Features normalised to unit variance per dimension (CURL's LayerNorm) then begin with logits
    `sqrt(dim) * cosine`, so that a positive counts as more alike from the first step, instead of with random ones of a
    standard deviation near 0.29 dim; and building the module draws no random number.

    Args:
        dim: feature dimension D of queries and keys.

    Raises:
        ValueError: dim is not a whole number >= 1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        dim = whole("dim of Bilinear", dim, 1)
        self.weight = nn.Parameter(torch.eye(dim) / dim**0.5)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return `(N, M)` similarities of `(N, D)` queries and `(M, D)` keys."""
        return bilinear(query, key, self.weight)


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the tensor's device; nothing where there is none anyway."""
    kind = tensor.device.type
    inside = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if inside else nullcontext()


def full_dtype(*tensors: Tensor) -> torch.dtype:
    """Return float64 where one of the tensors is, otherwise float32: what similarities are taken in."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def check_features(query: Tensor, key: Tensor) -> None:
    """Raise a ValueError unless they are `(N, D)` and `(M, D)`."""
    if query.ndim != 2 or key.ndim != 2 or query.shape[1] != key.shape[1]:
        raise ValueError(f"query and key must be (N, D) and (M, D), got {shape(query)} and {shape(key)}")


def _pair(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    check_features(query, key)
    dtype = full_dtype(query, key)
    return query.to(dtype), key.to(dtype)
