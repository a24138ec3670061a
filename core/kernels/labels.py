"""InfoNCE with positives by label, by blocks of rows. Shape legend: N queries, M keys, D dimension, B of a block."""

import torch
from torch import Tensor

from ..masks import positive_mask
from ..pairs import SameLabel
from .unit import by_temperature

CELLS = 2**21  # similarities held at a time: 8 MiB in float32, beside the share of each positive


def label_info_nce(
    query_ND: Tensor,
    key_MD: Tensor,
    positive: SameLabel,
    exclude: Tensor | None,
    temperature: float | Tensor,
    *,
    shift: bool,
    need_query: bool = True,
    need_key: bool = True,
    need_temperature: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return SupCon's L_out of dot products, its gradient by queries, by keys, and by the temperature.

        e_ij = exp(q_i . k_j / t)    r_i = sum_j e_ij    y_ij = [j in P_i] / |P_i|
        L = mean over the U queries with a positive of log r_i - sum_j y_ij q_i . k_j / t
        g_ij = (e_ij / r_i - y_ij) / (U t)    dL/dq_i = sum_j g_ij k_j    dL/dk_j = sum_i g_ij q_i

    (Khosla et al. 2020, eq. 2, https://arxiv.org/abs/2004.11362.) Three products, as in `row_info_nce`, whose arguments
    these are.
    """
    n = len(query_ND)
    grad_query = torch.empty_like(query_ND) if need_query or need_temperature else None
    grad_key = torch.zeros_like(key_MD) if need_key else None
    total, used = query_ND.new_zeros(()), query_ND.new_zeros(())
    size = max(1, min(n, CELLS // len(key_MD)))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        query_BD = query_ND[rows]
        block_BM = (query_BD / temperature) @ key_MD.T
        same_BM = positive_mask(SameLabel(positive.query[rows], positive.key), len(key_MD))
        if exclude is not None:
            same_BM.scatter_(1, exclude[rows, None], False)
            block_BM.scatter_(1, exclude[rows, None], -torch.inf)
        count_B1 = same_BM.sum(1, keepdim=True)
        share_BM = same_BM / count_B1.clamp(min=1)
        chosen_B = torch.where(same_BM, block_BM, 0.0).mul_(share_BM).sum(1)
        top_B1 = block_BM.amax(1, keepdim=True) if shift else block_BM.new_zeros(1, 1)
        (block_BM.sub_(top_B1) if shift else block_BM).exp_()
        sum_B1 = block_BM.sum(1, keepdim=True)
        has_B1 = (count_B1 > 0).to(block_BM.dtype)
        # a query without any candidate has a sum of zero: its loss is left out, and so is its gradient
        total += torch.where(count_B1 > 0, sum_B1.log() + top_B1 - chosen_B.unsqueeze(1), 0.0).sum()
        used += has_B1.sum()
        block_BM.mul_(has_B1 / sum_B1.clamp(min=torch.finfo(sum_B1.dtype).tiny)).sub_(share_BM)
        if grad_query is not None:
            torch.mm(block_BM, key_MD, out=grad_query[rows])
        if grad_key is not None:
            grad_key.addmm_(block_BM.T, query_BD)
    used.clamp_(min=1)
    for gradient in (grad_query, grad_key):
        if gradient is not None:
            gradient /= used * temperature
    heat = by_temperature(query_ND, grad_query, temperature) if grad_query is not None and need_temperature else None
    return total / used, grad_query, grad_key, heat
