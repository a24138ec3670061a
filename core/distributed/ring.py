"""InfoNCE over all processes without any of them holding all keys.

Shape legend: n local pairs, N of all W processes, D dimension.

Queries stay; keys travel round the ring, one neighbour a step, and what is known of them travels along: their
log-sum-exp over the queries they met (symmetric form) and, in backward, their gradient.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..check import shape, whole
from ..kernels.unit import unit
from ..losses.arguments import check_temperature
from ..similarity import full_dtype, full_precision
from .processes import known_counts, rank_and_size


def ring_info_nce(
    query: Tensor,
    key: Tensor,
    temperature: float | Tensor = 0.1,
    *,
    symmetric: bool = False,
    counts: Sequence[int] | None = None,
    rows: int = 1024,
) -> Tensor:
    """Return this process's part of the InfoNCE of cosines over all processes, key i being the positive of query i.

        L_i = -log( e^{s_ii} / sum_j e^{s_ij} ),   s = cosine / temperature,   j over the N keys of all processes

    and with `symmetric` the mean of that and the same with queries and keys exchanged (CLIP, Radford et al. 2021). The
    value is `W/N sum of L_i over the local i`: its mean over the W processes is the full-batch loss. Gradients follow
    the rule of `gather_with_gradient`: averaged over processes, as DistributedDataParallel does, parameter gradients,
    the temperature's too, equal those of the full batch on one process.

    A process holds its own queries, the keys of one or two others, and a `(rows, n)` part of the similarities. Backward
    sends the keys round a second time and computes the similarities again: three products where a stored matrix needs
    two. The next keys are on their way while a block is computed. (Exchange with neighbours: Zhai et al. 2023, SigLIP,
    section 3.3; ring with log-sum-exp: Cheng et al. 2024, Inf-CL, https://arxiv.org/abs/2410.17243.)

    Every process must call it, and run backward through it, at the same point of its program.

    Deviations: Inf-CL computes a block in a fused kernel; here it is plain torch in chunks of rows.

    Args:
        query: `(n, D)` floating; n of each process its own. Half precision is computed in float32.
        key: `(n, D)` floating, on the same device.
        temperature: > 0; a number, or a scalar tensor (the same on all processes), to which gradient flows.
        symmetric: whether keys look for their queries too.
        counts: n of each process where it is known; None asks, which waits for the device (see `row_counts`).
        rows: queries whose similarities are held at once.

    Returns:
        Scalar, float32 or float64. It has first derivatives only.

    Raises:
        ValueError: shapes differ, temperature or rows are out of range, or counts do not fit.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(f"query and key must have one shape (n, D), got {shape(query)} and {shape(key)}")
    check_temperature(temperature)
    whole("rows", rows, 1)
    counts = known_counts(query, counts)
    with full_precision(query):
        dtype = full_dtype(query, key)
        query, key = unit(query.to(dtype))[0], unit(key.to(dtype))[0]
        heat = temperature.to(query) if isinstance(temperature, Tensor) else query.new_full((), temperature)
        return _RingInfoNCE.apply(query, key, heat, symmetric, counts, rows)


class _RingInfoNCE(torch.autograd.Function):
    """Of unit vectors. With rows p_ij = e^{s_ij - lse_i} and columns c_ij = e^{s_ij - lse_j},

        dL/ds_ij = g_i (p_ij - [i = j]) + g_j (c_ij - [i = j]),

    where g is the gradient of the owner's loss times W/N (halved when symmetric). The second term exists when symmetric
    and needs lse_j and g_j of the key's owner, which travel with the key.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, heat: Tensor, symmetric: bool, counts: tuple[int, ...], rows: int
    ) -> Tensor:
        row_lse = query.new_full((len(query),), -torch.inf)
        met: _Passing | None = None  # log-sum-exp of the keys at hand over the queries they met before
        for step, keys in _visits(key, counts):
            here = keys.new_full((len(keys),), -torch.inf)
            for part in _parts(len(query), rows):
                logits = query[part] @ keys.T / heat
                row_lse[part] = torch.logaddexp(row_lse[part], logits.logsumexp(1))
                if symmetric:
                    here = torch.logaddexp(here, logits.logsumexp(0))
            if symmetric:
                met = _Passing(here if met is None else torch.logaddexp(met.arrived(), here), step, counts, tag=1)
        column_lse = None if met is None else met.arrived()
        ctx.save_for_backward(query, key, heat, row_lse, column_lse)
        ctx.counts, ctx.rows = counts, rows
        loss = (row_lse if column_lse is None else (row_lse + column_lse) / 2) - (query * key).sum(1) / heat
        return loss.sum() * (len(counts) / sum(counts))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        query, key, heat, row_lse, column_lse = ctx.saved_tensors
        counts, dim = ctx.counts, query.shape[1]
        weight = grad_loss * (len(counts) / sum(counts))
        travelling = key
        if column_lse is not None:
            weight = weight / 2
            travelling = torch.cat((key, column_lse.unsqueeze(1), weight.expand(len(key), 1)), dim=1)
        grad_query, grad_heat = torch.zeros_like(query), torch.zeros_like(heat)
        grad_key: _Passing | None = None
        for step, block in _visits(travelling, counts):
            keys, column = block[:, :dim], block[:, dim:].T
            here = torch.zeros_like(keys)
            for part in _parts(len(query), ctx.rows):
                logits = query[part] @ keys.T / heat
                grad = (logits - row_lse[part].unsqueeze(1)).exp_().mul_(weight)
                if column_lse is not None:
                    grad += (logits - column[0]).exp_().mul_(column[1])
                if step == 0:  # our own keys, the positives on the diagonal
                    grad[:, part].diagonal().sub_(weight if column_lse is None else 2 * weight)
                grad_heat -= (grad * logits).sum()
                grad_query[part] += grad @ keys
                here += grad.T @ query[part]
            grad_key = _Passing(here if grad_key is None else grad_key.arrived() + here, step, counts, tag=1)
        assert grad_key is not None  # there is at least one step
        return grad_query / heat, grad_key.arrived() / heat, grad_heat / heat, None, None, None


class _Passing:
    """A tensor on its way to the next process while the one from the previous process arrives.

    Args:
        tensor: what the process has at this step, one row for each key at hand.
        step: how many processes these keys were passed on by, so that the number of rows to come is known.
        counts: rows of each process.
        tag: tells tensors apart that are on their way at the same time.
    """

    def __init__(self, tensor: Tensor, step: int, counts: tuple[int, ...], tag: int) -> None:
        rank, size = rank_and_size()
        self.sent = self.coming = tensor.contiguous()  # what is sent must live until it has left
        self.work: list[dist.Work] = []
        if size > 1:
            self.coming = tensor.new_empty(counts[(rank - step - 1) % size], *tensor.shape[1:])
            send = dist.P2POp(dist.isend, self.sent, (rank + 1) % size, tag=tag)
            receive = dist.P2POp(dist.irecv, self.coming, (rank - 1) % size, tag=tag)
            self.work = dist.batch_isend_irecv([send, receive])

    def arrived(self) -> Tensor:
        for work in self.work:
            work.wait()
        return self.coming


def _visits(own: Tensor, counts: tuple[int, ...]) -> Iterator[tuple[int, Tensor]]:
    """Yield the step and the tensor at hand: our own first, then those of the processes before us, backwards."""
    at_hand, last = own, len(counts) - 1
    for step in range(last + 1):
        coming = _Passing(at_hand, step, counts, tag=0) if step < last else None
        yield step, at_hand
        if coming is not None:
            at_hand = coming.arrived()


def _parts(length: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]
