"""Real processes (gloo): pytest starts this file as a script W times, each process saves what it found, tests compare.

Three processes, not two: with two, the neighbour before and the neighbour after are the same.
"""

import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from contraux.core import Contrastive, Pairs, two_view_pairs
from contraux.core.distributed import (
    cached_backward,
    gather,
    gather_with_gradient,
    gathered_pairs,
    loss_share,
    ring_info_nce,
    row_counts,
    split_rows,
)
from contraux.core.encoders import PredictionHead, ProjectionHead
from contraux.core.losses import info_nce
from contraux.core.pairs import SameLabel
from contraux.core.samplers import Queue
from contraux.core.similarity import cosine

W = 3
EQUAL, UNEQUAL = (4, 4, 4), (5, 2, 4)
LAYOUTS = ("index", "two_view", "labels", "matrix")


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6)).double()


def head():
    torch.manual_seed(1)
    projection = partial(ProjectionHead, hidden=7, out=4)
    return Contrastive(6, projection=projection, prediction=partial(PredictionHead, hidden=5)).double()


def data(counts):
    torch.manual_seed(2)
    return torch.randn(sum(counts), 5).double(), torch.randn(sum(counts), 5).double()


def own(counts, rank):
    start = sum(counts[:rank])
    return slice(start, start + counts[rank])


def flat(*modules):
    found = torch.cat([p.grad.flatten().clone() for module in modules for p in module.parameters()])
    for module in modules:
        module.zero_grad()
    return found


def clip(query, key, temperature=0.2, first=0):
    return info_nce(cosine(query, key), first + torch.arange(len(query)), temperature=temperature)


def pairs_of(layout, a, b, rows, total):
    """The pairs of these rows among `total`; labels, masks and exclusions are functions of the row's number."""
    numbers = torch.arange(total)[rows]
    if layout == "two_view":
        return two_view_pairs(a, b)
    if layout == "index":
        context = {"step": numbers, "key_label": numbers}
        return Pairs(a, b, torch.arange(len(numbers)).flip(0), context=context)
    if layout == "labels":
        return Pairs(a, b, SameLabel(numbers % 4, numbers % 4))
    positive = torch.eye(len(numbers)).double() * 0.5
    return Pairs(a, b, positive, torch.eye(len(numbers), dtype=torch.bool).roll(1, 1))


# ---- what runs in each process


def averaged(*modules):
    """Plain torch.distributed: what the docs say to do without DistributedDataParallel."""
    for module in modules:
        for p in module.parameters():
            dist.all_reduce(p.grad)
            p.grad /= W
    return flat(*modules)


class OwnSlice(torch.autograd.Function):
    """The well-known layer: backward returns its own slice of its own process's gradient."""

    @staticmethod
    def forward(ctx, x):
        parts = [torch.empty_like(x) for _ in range(W)]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad):
        return grad.chunk(W)[dist.get_rank()]


def without_gradient(x):
    parts = [torch.empty_like(x) for _ in range(W)]
    dist.all_gather(parts, x.detach())
    parts[dist.get_rank()] = x
    return torch.cat(parts)


def torchs(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.cat(dist.nn.functional.all_gather(x))


def gathering(rank):
    found = {}
    for name, counts in (("equal", EQUAL), ("unequal", UNEQUAL)):
        rows, (x, y) = own(counts, rank), data(counts)
        f = encoder()
        ddp = DistributedDataParallel(f)

        def local(encode, gathered, rows=rows, x=x, y=y):
            both = encode(torch.cat((x[rows], y[rows])))
            query, key = both.chunk(2)
            return clip(query, gathered(key), first=rows.start)

        def everywhere(encode, gathered, rows=rows, x=x, y=y):
            query, key = encode(torch.cat((x[rows], y[rows]))).chunk(2)
            return clip(gathered(query), gathered(key))

        assert row_counts(x[rows]) == counts
        share = loss_share(counts)
        for how, loss in (("local", local), ("everywhere", everywhere)):
            weight = share if how == "local" else 1.0
            (weight * loss(f, gather_with_gradient)).backward()
            found[f"gather {name} {how} plain"] = averaged(f)
            (weight * loss(ddp, partial(gather_with_gradient, counts=counts))).backward()
            found[f"gather {name} {how} ddp"] = flat(f)
            if name == "equal":
                for label, layer in (
                    ("own slice", OwnSlice.apply),
                    ("no gradient", without_gradient),
                    ("torch", torchs),
                ):
                    loss(ddp, layer).backward()
                    found[f"{label} {how}"] = flat(f)
        scatters, gather.scatters = gather.scatters, lambda x: True  # what GPUs do
        (share * local(ddp, gather_with_gradient)).backward()
        gather.scatters = scatters
        found[f"gather {name} reduce-scatter"] = flat(f)

        z = x[rows].clone().requires_grad_()
        penalty = torch.autograd.grad(gather_with_gradient(z).pow(3).sum(), z, create_graph=True)[0].pow(2).sum()
        found[f"second derivative {name}"] = torch.autograd.grad(penalty, z)[0]

        numbers = torch.arange(sum(counts))[rows]
        found[f"dtypes {name}"] = [
            gather_with_gradient(one) for one in (numbers, numbers % 2 == 0, numbers.bfloat16(), numbers.view(-1, 1, 1))
        ]
    try:
        gather_with_gradient(torch.ones(2), counts=(2, 2))
    except ValueError as error:
        found["sentence"] = str(error)
    return found


def laid_out(rank, layout, counts, encode, objective):
    """The loss of one layout with its keys gathered."""
    rows, (x, y) = own(counts, rank), data(counts)
    a, b = encode(torch.cat((x[rows], y[rows]))).chunk(2)
    pairs = gathered_pairs(pairs_of(layout, a, b, rows, sum(counts)))
    return objective(pairs).loss * loss_share(counts)


def objectives(rank):
    found = {}
    for counts in (EQUAL, UNEQUAL):
        for layout in LAYOUTS:
            f, objective = encoder(), head()
            laid_out(rank, layout, counts, f, objective).backward()
            found[f"{layout} {counts} plain"] = averaged(f, objective)
            parts = DistributedDataParallel(f), DistributedDataParallel(objective)
            laid_out(rank, layout, counts, *parts).backward()
            found[f"{layout} {counts} ddp"] = flat(f, objective)

    x, y = (one[own(UNEQUAL, rank)] for one in data(UNEQUAL))
    gathered = gathered_pairs(pairs_of("index", x, y, own(UNEQUAL, rank), sum(UNEQUAL)))
    found["context"] = gathered.context
    remembering = Contrastive(5, sampler=Queue(5, 20))
    remembering(gathered_pairs(Pairs(x.float(), y.float(), torch.arange(len(x)))))
    found["queue"] = remembering.sampler.memory().key.clone()
    return found


def accelerated(rank):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == W and accelerator.process_index == rank
    f, objective = encoder(), head()
    optimizer = torch.optim.SGD([*f.parameters(), *objective.parameters()], lr=0.1)
    encode, criterion, optimizer = accelerator.prepare(f, objective, optimizer)
    assert isinstance(encode, DistributedDataParallel)
    accelerator.backward(laid_out(rank, "index", EQUAL, encode, criterion))
    found = {"accelerate": flat(f, objective)}

    rows, (x, y) = own(EQUAL, rank), data(EQUAL)
    cached_backward(
        (encode, encode),
        (split_rows(x[rows], 2), split_rows(y[rows], 3)),
        lambda a, b: criterion(gathered_pairs(pairs_of("index", a, b, rows, sum(EQUAL)))),
        backward=accelerator.backward,
    )
    found["accelerate cached"] = flat(f, objective)
    optimizer.step()
    return found


def rings(rank):
    found = {}
    for counts in (EQUAL, UNEQUAL):
        rows, (x, y) = own(counts, rank), data(counts)
        for symmetric in (False, True):
            for size in (2, 1024):
                f, temperature = encoder(), nn.Parameter(torch.tensor(0.3).double())
                query, key = f(x[rows]), f(y[rows])
                loss = ring_info_nce(query, key, temperature, symmetric=symmetric, rows=size)
                (loss * (2 if rank == 1 else 1)).backward()  # another weight for one process: it travels too
                heat = nn.ParameterList([temperature])
                found[f"ring {counts} {symmetric} {size}"] = loss.detach(), averaged(f, heat)
    return found


def ring_memory(rank):
    """The largest tensor of any operation, forward and backward, where everything is 60 rows a process."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for one in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(one, torch.Tensor):
                    self.size = max(self.size, one.numel())
            return out

    query, key = torch.randn(60, 4, requires_grad=True), torch.randn(60, 4, requires_grad=True)
    with Largest() as largest:
        ring_info_nce(query, key, symmetric=True, rows=10).backward()
    return {"ring memory": largest.size}


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.towers = nn.ModuleList([encoder(), encoder()])

    def forward(self, batch):
        which, x = batch
        return self.towers[which](x)


def caching(rank):
    found = {}
    rows, (x, y) = own(UNEQUAL, rank), data(UNEQUAL)
    reductions = []

    def count(state, bucket):
        reductions.append(bucket.index())
        return allreduce_hook(None, bucket)

    f, objective = encoder(), DistributedDataParallel(head())
    ddp = DistributedDataParallel(f)
    ddp.register_comm_hook(None, count)

    def loss(a, b):
        outcome = objective(gathered_pairs(pairs_of("index", a, b, rows, sum(UNEQUAL))))
        return outcome.loss * loss_share(UNEQUAL)

    for size in (1, 3):  # other numbers of chunks on every process
        reductions.clear()
        cached_backward((ddp, ddp), (split_rows(x[rows], size), split_rows(y[rows], size)), loss)
        found[f"cached {size}"] = flat(f, objective)
        found[f"reductions {size}"] = list(reductions)

    towers = Towers()
    ddp = DistributedDataParallel(towers, find_unused_parameters=True)
    for _ in range(2):
        chunks = (split_rows((0, x[rows]), 1), split_rows((1, y[rows]), 2))
        cached_backward((ddp, ddp), chunks, lambda a, b: loss_share(UNEQUAL) * _local(a, b, rows))
        found["cached towers"] = flat(towers)
    return found


def _local(a, b, rows):
    return clip(a, gather_with_gradient(b), first=rows.start)


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=W)
    found = {}
    for part in (gathering, objectives, rings, ring_memory, caching, accelerated):
        found |= part(rank)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


# ---- what pytest runs


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What every process found, in rank order."""
    folder = tmp_path_factory.mktemp("processes")
    running = []
    for rank in range(W):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(W)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # Accelerate asks for them, then joins the group
        command = [sys.executable, __file__, str(rank), str(folder)]
        running.append(subprocess.Popen(command, env=env, cwd=folder, stderr=subprocess.PIPE, text=True))
    try:
        errors = [one.communicate(timeout=120)[1] for one in running]
    finally:
        for one in running:
            one.kill()
    assert [one.returncode for one in running] == [0] * W, "\n".join(errors)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(W)]


def same(found, name, expected):
    for one in found:
        torch.testing.assert_close(one[name], expected, rtol=1e-9, atol=1e-12)


def single(counts=EQUAL):
    """The loss's gradient on one process, of the query-to-key loss."""
    f, (x, y) = encoder(), data(counts)
    clip(f(x), f(y)).backward()
    return flat(f)


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("how", ["local", "everywhere"])
@pytest.mark.parametrize("means", ["plain", "ddp"])
def test_gather_has_the_gradient_of_one_process(found, counts, how, means):
    name = "equal" if counts == EQUAL else "unequal"
    same(found, f"gather {name} {how} {means}", single(counts))


def test_gather_reduces_and_scatters_alike(found):
    same(found, "gather equal reduce-scatter", single(EQUAL))
    same(found, "gather unequal reduce-scatter", single(UNEQUAL))


def test_other_gathers_fail_the_same_check_as_they_are_known_to(found):
    expected = single()
    same(found, "torch local", expected)
    same(found, "torch everywhere", expected)
    same(found, "own slice everywhere", expected / W)
    same(found, "no gradient everywhere", expected / W)
    for name in ("own slice local", "no gradient local"):
        error = (found[0][name] - expected).norm() / expected.norm()
        assert error > 0.05, name


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL])
def test_gather_has_second_derivatives_and_takes_every_dtype(found, counts):
    name = "equal" if counts == EQUAL else "unequal"
    x, _ = data(counts)
    z = x.requires_grad_()
    # every process's loss is the sum over all rows, so that one's own gradient is W times 3 z^2
    penalty = (W * 3 * z**2).pow(2).sum()
    expected = torch.autograd.grad(penalty, z)[0]
    numbers = torch.arange(sum(counts))
    for rank, one in enumerate(found):
        torch.testing.assert_close(one[f"second derivative {name}"], expected[own(counts, rank)])
        long, boolean, half, cube = one[f"dtypes {name}"]
        assert torch.equal(long, numbers) and torch.equal(boolean, numbers % 2 == 0)
        assert torch.equal(half, numbers.bfloat16()) and torch.equal(cube, numbers.view(-1, 1, 1))


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("means", ["plain", "ddp"])
def test_an_objective_on_gathered_pairs_has_the_gradient_of_one_process(found, counts, layout, means):
    same(found, f"{layout} {counts} {means}", single_objective(layout, counts))


def single_objective(layout, counts):
    """The full batch on one process, its positives laid out by hand."""
    f, objective, (x, y) = encoder(), head(), data(counts)
    query, key, total = f(x), f(y), sum(counts)
    slices = [own(counts, rank) for rank in range(W)]
    numbers = torch.arange(total)
    if layout == "two_view":
        pairs = two_view_pairs(query, key)
    elif layout == "labels":
        pairs = Pairs(query, key, SameLabel(numbers % 4, numbers % 4))
    elif layout == "index":
        pairs = Pairs(query, key, torch.cat([numbers[rows].flip(0) for rows in slices]))
    else:
        exclude = torch.block_diag(*[torch.eye(n, dtype=torch.bool).roll(1, 1) for n in counts]).bool()
        pairs = Pairs(query, key, torch.eye(total).double() * 0.5, exclude)
    objective(pairs).loss.backward()
    return flat(f, objective)


def test_context_of_keys_is_gathered_and_that_of_queries_is_not(found):
    numbers = torch.arange(sum(UNEQUAL))
    for rank, one in enumerate(found):
        assert torch.equal(one["context"]["key_label"], numbers)
        assert torch.equal(one["context"]["step"], numbers[own(UNEQUAL, rank)])


def test_a_queue_remembers_the_same_keys_on_every_process(found):
    _, y = data(UNEQUAL)
    same(found, "queue", y.float())


def test_accelerate(found):
    same(found, "accelerate", single_objective("index", EQUAL))
    same(found, "accelerate cached", single_objective("index", EQUAL))


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("rows", [2, 1024])
def test_ring_has_loss_and_gradient_of_one_process(found, counts, symmetric, rows):
    f, (x, y) = encoder(), data(counts)
    temperature = nn.Parameter(torch.tensor(0.3).double())
    numbers = torch.arange(sum(counts))
    similarity = cosine(f(x), f(y))
    losses = info_nce(similarity, numbers, temperature=temperature, reduction="none")
    if symmetric:
        losses = (losses + info_nce(similarity.T, numbers, temperature=temperature, reduction="none")) / 2
    parts = [losses[own(counts, rank)].sum() * W / sum(counts) for rank in range(W)]
    ((parts[0] + 2 * parts[1] + parts[2]) / W).backward()
    expected = flat(f, nn.ParameterList([temperature]))
    for part, one in zip(parts, found, strict=True):
        loss, gradient = one[f"ring {counts} {symmetric} {rows}"]
        torch.testing.assert_close(loss, part.detach(), rtol=1e-10, atol=0)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_ring_never_holds_more_than_a_part_of_a_block(found):
    assert [one["ring memory"] for one in found] == [10 * 60] * W  # rows x n, not n x n, nor n x N


def test_caching_across_processes(found):
    expected = single_objective("index", UNEQUAL)
    same(found, "cached 1", expected)
    same(found, "cached 3", expected)
    for one in found:  # one bucket, reduced once however many chunks
        assert one["reductions 1"] == one["reductions 3"] == [0]
    towers, (x, y) = Towers(), data(UNEQUAL)
    clip(towers((0, x)), towers((1, y))).backward()
    same(found, "cached towers", flat(towers))


def test_one_process_needs_no_group():
    x, y = (one.requires_grad_() for one in data(EQUAL))
    assert gather_with_gradient(x) is x
    pairs = Pairs(x, y, torch.arange(12))
    assert gathered_pairs(pairs) is pairs
    assert row_counts(x) == (12,) and loss_share((12,)) == 1.0
    for symmetric in (False, True):
        loss = ring_info_nce(x, y, 0.2, symmetric=symmetric, rows=5)
        expected = clip(x, y) if not symmetric else (clip(x, y) + clip(y, x)) / 2
        torch.testing.assert_close(loss, expected)
        found, wanted = torch.autograd.grad(loss, (x, y)), torch.autograd.grad(expected, (x, y))
        torch.testing.assert_close(found, wanted)


def test_ring_stays_finite_where_exponentials_do_not_and_computes_half_precision_in_float32():
    x = torch.randn(6, 4, requires_grad=True)
    loss = ring_info_nce(x, x.detach(), 1e-3)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite() and gradient.isfinite().all()
    half = x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = ring_info_nce(half, half.detach().roll(1, 0), 0.5)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, clip(half.float(), half.float().roll(1, 0), 0.5))
    assert torch.autograd.grad(loss, half)[0].dtype == torch.bfloat16


def test_sentences(found):
    rule = "counts must be the rows of each of the 3 processes with 2 at rank 0, got (2, 2)"
    assert found[0]["sentence"] == rule
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"counts must be .* the 1 processes with 3 at rank 0, got \(4,\)"):
        gather_with_gradient(x, counts=(4,))
    with pytest.raises(ValueError, match="needs a tensor with rows, got a scalar"):
        gather_with_gradient(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"one shape \(n, D\), got \(3, 2\) and \(2, 2\)"):
        ring_info_nce(x, x[:2])
    with pytest.raises(ValueError, match="temperature must be a number > 0, got 0"):
        ring_info_nce(x, x, 0.0)
    with pytest.raises(ValueError, match="rows must be a whole number >= 1, got 0"):
        ring_info_nce(x, x, rows=0)
    with pytest.raises(ValueError, match=r"exclude must be bool \(3, 3\)"):
        gathered_pairs(Pairs(x, x, torch.arange(3), torch.ones(2, 2, dtype=torch.bool)))


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
