"""Run by test_gpu_kernels.py in a process of its own, with Triton's interpreter: prints one line a case that fails."""

import itertools
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.nn.functional as F

from contraux.core import Pairs, SameLabel, contrastive_loss
from contraux.core.kernels import entry, gpu
from contraux.core.losses import clip, info_nce, nt_xent, sup_con
from contraux.core.samplers import Queue
from contraux.core.similarity import cosine, dot

TILE = gpu.Tile(16, 32, 16, 4)


def mean_of_users(candidates, x, same):
    count = same.sum(1)
    loss = candidates.logsumexp(1) - torch.where(same, x, 0.0).sum(1) / count.clamp(min=1)
    return loss[count > 0].sum() / (count > 0).sum().clamp(min=1)


def reference(q, k, positive, exclude, memory, t, symmetric):
    """The definition in float64, with automatic gradients."""
    x, m = q @ k.T / t, len(k)
    if isinstance(positive, SameLabel):
        same = (positive.query[:, None] == positive.key) & (positive.query >= 0)[:, None]
    else:
        same = F.one_hot(positive, m).bool()
    live = torch.ones_like(same)
    if exclude is not None:
        out = F.one_hot(exclude, m).bool()
        same = same & ~out if isinstance(positive, SameLabel) else same
        live = same | ~out
    candidates = x.masked_fill(~live, -torch.inf)
    if memory is not None:
        candidates = torch.cat((candidates, q @ memory.T / t), 1)
    loss = mean_of_users(candidates, x, same)
    return (loss + mean_of_users(candidates.T, x.T, same.T)) / 2 if symmetric else loss


def error(found, expected):
    return ((found.double() - expected).norm() / expected.norm().clamp(min=1e-12)).item()


def compare(what, found, expected, most):
    errors = [error(one, other) for one, other in zip(found, expected, strict=True)]
    if not max(errors) < most:  # a NaN is wrong too
        print("WRONG", what, errors)
    return 1


def every_flag():
    cases = 0
    flags = itertools.product(("index", "label"), *[(False, True)] * 5)
    for positives, excluding, remembering, symmetric, deterministic, one in flags:
        labels = positives == "label"
        if (symmetric and (labels or excluding or remembering or one)) or (remembering and (labels or one)):
            continue
        for n, m, d in ((37, 53, 19), (5, 7, 40)):  # one piece of the dimension, or several
            m = n if one else m
            q = F.normalize(torch.randn(n, d))
            k = q if one else F.normalize(torch.randn(m, d))
            positive = torch.randint(m, (n,))
            if labels:
                query_label = torch.randint(-1, 6, (n,))
                positive = SameLabel(query_label, query_label if one else torch.randint(-1, 6, (m,)))
            exclude = torch.arange(n) % m if excluding else None
            memory = F.normalize(torch.randn(29, d)) if remembering else None
            for t in (0.01, 0.2):
                inputs = [x.double().requires_grad_() for x in (q, k)]
                inputs[1] = inputs[0] if one else inputs[1]
                heat = torch.tensor(t, dtype=torch.float64, requires_grad=True)
                far = None if memory is None else memory.double()
                loss = reference(*inputs, positive, exclude, far, heat, symmetric)
                wanted = [inputs[0], heat] if one else [*inputs, heat]
                expected = [loss.detach(), *torch.autograd.grad(loss, wanted)]
                value, by_query, by_key, by_heat = gpu.gpu_info_nce(
                    q,
                    k,
                    positive,
                    exclude,
                    memory,
                    torch.tensor(t),
                    symmetric=symmetric,
                    deterministic=deterministic,
                    tile=TILE,
                )
                found = [value, by_query, *([] if one else [by_key]), by_heat]
                what = (positives, excluding, remembering, symmetric, deterministic, one, n, m, d, t)
                cases += compare(what, found, expected, 1e-4 if t > 0.1 else 1e-3)
    return cases


def half_precision():
    """In float16: the interpreter's products take no bfloat16."""
    q, k, positive = torch.randn(40, 24), torch.randn(50, 24), torch.randint(50, (40,))
    q, k = F.normalize(q), F.normalize(k)
    low = [x.half().double().requires_grad_() for x in (q, k)]
    loss = reference(*low, positive, None, None, 0.2, False)
    expected = [loss.detach(), *torch.autograd.grad(loss, low)]
    found = gpu.gpu_info_nce(q, k, positive, None, None, 0.2, dtype=torch.float16, tile=TILE, needs=(True, True, False))
    assert found[1].dtype == torch.float32 and found[3] is None
    return compare("float16", found[:3], expected, 2e-3)


def through_the_entry():
    """The same functions a GPU's tensors come through, `contrastive_loss` with its gradient by the raw features."""
    entry.on_cpu = gpu.on_gpu
    gpu.SMALL = entry.SMALL = 0
    gpu.tile_for = lambda dtype, dim, shared: TILE
    queue = Queue(6, 20)
    queue.remember(torch.randn(20, 6), {})
    z, key = torch.randn(10, 6), torch.randn(10, 6)
    z[3] = 0.0
    z.requires_grad_()
    key.requires_grad_()
    positive = torch.arange(10).roll(5)
    label = torch.randint(3, (10,))
    cases = 0
    for name, pairs, loss, sampler in (
        ("nt_xent", Pairs(z, z, positive), nt_xent, None),
        ("two views", Pairs(z, z, positive, torch.arange(10)), info_nce, None),
        ("one way", Pairs(z, key, positive), info_nce, None),
        ("queue", Pairs(z, key, positive), info_nce, queue),
        ("clip", Pairs(z, key, positive), clip, None),
        ("labels", Pairs(z, key, SameLabel(label, label), torch.arange(10)), sup_con, None),
    ):
        for similarity in (cosine, dot):
            heat = torch.tensor(0.3, requires_grad=True)
            found = contrastive_loss(pairs, similarity=similarity, sampler=sampler, loss=loss, temperature=heat)
            assert "WithGradient" in found.grad_fn.name(), name
            expected = contrastive_loss(
                pairs, similarity=lambda q, k, s=similarity: s(q, k), sampler=sampler, loss=loss, temperature=heat
            )
            assert "WithGradient" not in expected.grad_fn.name(), name
            wanted = [z, heat] if pairs.key is z else [z, key, heat]
            gradients = [torch.autograd.grad(x, wanted) for x in (found, expected)]
            cases += compare(
                (name, similarity.__name__),
                [found.detach(), *gradients[0]],
                [expected.detach(), *gradients[1]],
                1e-4,
            )
    return cases


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print("cases", every_flag() + half_precision() + through_the_entry())
