"""Two real processes (gloo) of B / 2 rows train as one of B rows; pytest starts this file as a script, twice."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))  # pytest has it; the script below has not

from small_methods import NAMES, labels, small, trainable, views

from contraux.core.distributed import cached_backward, split_rows
from contraux.core.encoders import MomentumEncoder
from contraux.core.pretraining.shuffled import Shuffled

W, B, STEPS = 2, 8, 4


def train(method, model, own, chunk=None):
    """Losses of a few steps on these rows of each batch, and the state they leave."""
    optimizer = torch.optim.SGD(trainable(method).values(), lr=0.1, momentum=0.9)
    losses = []
    for number in range(STEPS):
        a, b = (x[own] for x in views(B, seed=number))
        known = labels(B)[own]
        optimizer.zero_grad()
        if chunk is None:
            loss = model(a, b, known).loss
            loss.backward()
        else:  # what a trainer does without DistributedDataParallel
            modules, inputs = zip(*method.branches(a, b), strict=True)
            chunks = [split_rows(x, chunk) for x in inputs]
            loss = cached_backward(modules, chunks, partial(method.compare, labels=known)).loss
            for weight in trainable(method).values():
                dist.all_reduce(weight.grad)
                weight.grad /= W
        optimizer.step()
        method.update((number + 1) / STEPS)
        losses.append(loss.item())
    return losses, method.state_dict()


def shuffled(rank):
    """Keys of eight rows through batch norm on two processes whose generators differ."""
    torch.manual_seed(10 + rank)
    module = Shuffled(MomentumEncoder(nn.BatchNorm1d(3, affine=False), 0.5), 4)
    x, _ = views(B)
    return module(x[:, :3].float()[rank * 4 : rank * 4 + 4])


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=W)
    own = slice(rank * B // W, (rank + 1) * B // W)
    found = {"shuffled": shuffled(rank)}
    for name in NAMES:
        method = small(name).double()
        torch.manual_seed(20 + rank)  # trainers seed each process apart
        found[name] = train(method, DistributedDataParallel(method, broadcast_buffers=False), own)
        found[f"{name} chunks"] = train(small(name).double(), None, own, chunk=3)
    normed = small("moco", True).double()
    found["moco with batch norm"] = train(normed, DistributedDataParallel(normed, broadcast_buffers=False), own)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both processes found, in rank order."""
    folder = tmp_path_factory.mktemp("processes")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)], env=env, cwd=folder, stderr=subprocess.PIPE, text=True
        )
        for rank in range(W)
    ]
    try:
        errors = [one.communicate(timeout=120)[1] for one in running]
    finally:
        for one in running:
            one.kill()
    assert [one.returncode for one in running] == [0] * W, "\n".join(errors)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(W)]


@pytest.mark.parametrize("how", ["", " chunks"])
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(found, name, how):
    method = small(name).double()
    losses, state = train(method, method, slice(None))
    assert max(losses) - min(losses) > 1e-3  # it does train
    mean = sum(torch.tensor(one[name + how][0], dtype=torch.float64) for one in found) / W
    torch.testing.assert_close(mean, torch.tensor(losses, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    for one in found:
        for key, value in state.items():  # weights, copies, queue and its order
            torch.testing.assert_close(one[name + how][1][key], value, rtol=1e-8, atol=1e-11, msg=key)


def test_queues_are_the_same_on_all_processes_whatever_batch_norm_does(found):
    one, other = (each["moco with batch norm"][1] for each in found)
    assert torch.equal(one["objective.sampler.keys"], other["objective.sampler.keys"])
    assert one["objective.sampler._extra_state"].tolist() == [12, 20]  # 4 batches of 8 in a queue of 20
    differing = {key for key in one if not torch.equal(one[key], other[key])}
    assert differing and all("running" in key for key in differing)  # statistics are those of each process


def test_keys_are_shuffled_across_processes_as_in_the_paper(found):
    torch.manual_seed(10)  # the first process's generator says
    order = torch.randperm(B)
    x = views(B)[0][:, :3].float()
    expected = torch.empty(B, 3)
    for share in order.chunk(W):
        expected[share] = (x[share] - x[share].mean(0)) / (x[share].var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(torch.cat([one["shuffled"] for one in found]), expected)
    assert sorted(order[:4].tolist()) not in ([0, 1, 2, 3], [4, 5, 6, 7])  # a shuffle that stays at home shows nothing


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
