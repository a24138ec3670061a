"""Two real processes (gloo) of B / 2 rows train as one of B rows; pytest starts this file as a script, twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))  # pytest has it; the script below has not

from gan_methods import CASES, NAMES, B, given, images, inputs, made

W, STEPS = 2, 2


def train(name, own, wrap):
    """Losses of a few steps of both phases on these rows, and the heads and the fakes' gradient that they leave."""
    disc, aux = made(name)
    model = wrap(disc)
    optimizer = torch.optim.SGD([*disc.parameters(), *aux.parameters()], 0.05)
    losses, grown = [], []
    for seed in range(STEPS):
        with aux:
            logits = [model(x[own]) for x in inputs(aux.method.roles, seed)]
        loss = aux.loss(**{key: value[own] for key, value in given(CASES[name].given, seed).items()})
        optimizer.zero_grad()
        (loss + sum(logit.mean() for logit in logits)).backward()
        optimizer.step()
        losses.append(loss.item())
        if CASES[name].given_for_generator is not None:
            fake = images(seed, fake=True)[own].requires_grad_()
            with aux.for_generator():
                disc(fake)
            wanted = aux.loss(**{key: x[own] for key, x in given(CASES[name].given_for_generator, seed).items()})
            losses.append(wanted.item())
            grown.append(torch.autograd.grad(wanted, fake)[0])
    own = aux.state_dict()
    own.pop("_extra_state")  # the seed that several processes draw with, and one does not
    return losses, {**disc.state_dict(), **own}, grown


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=W)
    own = slice(rank * B // W, (rank + 1) * B // W)
    found = {name: train(name, own, DistributedDataParallel) for name in NAMES}
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


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(found, name):
    losses, state, grown = train(name, slice(None), lambda disc: disc)
    assert max(losses) - min(losses) > 1e-4  # it does train
    for rank in range(W):
        their_losses, their_state, _ = found[rank][name]
        assert their_losses == pytest.approx(losses, rel=1e-4)  # each process has the full batch's loss
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(their_state[key], value, rtol=1e-3, atol=1e-5, msg=f"{rank} {key}")
    for i, whole in enumerate(grown):  # the mean over processes is the full batch's, so each holds W times its share
        parts = torch.cat([found[rank][name][2][i] for rank in range(W)]) / W
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
