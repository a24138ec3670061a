"""NT-Xent: InfoNCE among all views of a batch, without oneself. Shape legend: N examples, 2N views."""

import torch
from torch import Tensor

from .arguments import check_matrix, check_square
from .info_nce import info_nce


def nt_xent(
    similarity: Tensor, positive: Tensor, weights: Tensor | None = None, temperature: float | Tensor = 0.1
) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy (Chen et al. 2020, eq. 1 and algorithm 1).

        L_i = -log( e^{s_ip(i)} / sum_{k != i} e^{s_ik} ),   s = similarity / temperature,   mean over the 2N views

    It is `info_nce` on a square matrix whose diagonal never counts, neither as negative nor as positive; for the
    paper's loss give it cosines and the layout of `contraux.core.two_view_pairs`. https://arxiv.org/abs/2002.05709

    Args:
        similarity: `(2N, 2N)` floating, every view against every view.
        positive: as for `info_nce`. A mask's diagonal is ignored; an index on the diagonal makes the loss infinite.
        weights: as for `info_nce`.
        temperature: > 0; a number or a scalar tensor.

    Returns:
        Scalar of the similarity's dtype.

    Raises:
        ValueError: the similarity is not square, or as for `info_nce`.
    """
    check_matrix(similarity, positive, weights)  # before the mask is laid over them
    check_square("nt_xent", similarity)
    itself = torch.eye(similarity.shape[0], dtype=torch.bool, device=similarity.device)
    if positive.shape == similarity.shape:
        positive = positive.masked_fill(itself, 0)
    return info_nce(similarity.masked_fill(itself, -torch.inf), positive, weights, temperature)
