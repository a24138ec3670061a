"""The other keys of the batch as negatives. Shape legend: N queries, M keys, D feature dimension."""

from torch import Tensor, nn


class InBatch(nn.Module):
    """Every other key of the batch is a negative of weight 1, except the excluded ones (weight 0)."""

    uniform = True

    def columns(self, key_MD: Tensor) -> Tensor:
        """Return the keys of the batch, `(M, D)`."""
        return key_MD

    def forward(self, similarity: Tensor, positive: Tensor, exclude: Tensor | None) -> Tensor | None:
        """Return `1 - exclude` in the similarity's dtype, or None when nothing is excluded."""
        return None if exclude is None else (~exclude).to(similarity.dtype)

    def remember(self, key_MD: Tensor) -> None:
        """Remember nothing."""
