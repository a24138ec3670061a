"""Two real processes (gloo) of B / 2 rows train as one of B rows; pytest starts this file as a script, twice.

In float64, so that a gradient a millionth off is seen. Heads begin differently on each process; the first one's count.
"""

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # pytest has it; the script below has not

from tapped import Disc, Gap, Keyed, Stopped, grads, images

from contraux.clgen import attach
from contraux.core.pairs import Outcome

W, B, STEPS = 2, 8, 3


class Labelled(Gap):
    """With an image's label as its weight, so that a label that strays is seen."""

    context = ("labels",)

    def forward(self, features, context):
        weight = context["labels"].double().unsqueeze(1)
        return super().forward({role: {"features": weight * one["features"]} for role, one in features.items()}, {})


class Drawing(Gap):
    """Draws at random what it looks at."""

    def forward(self, features, context):
        self.drawn = torch.rand(6)
        gap = self.scale * self.drawn * (features["real"]["features"].mean(0) - features["fake"]["features"].mean(0))
        return Outcome(gap.square().sum(), {})


SEED = "_extra_state"  # what several processes draw with, and one does not
METHODS = {"gap": Gap, "stopped": Stopped, "keyed": Keyed, "labelled": Labelled}


def seeded(method, seed):
    torch.manual_seed(0)
    disc = Disc().double()
    aux = attach(disc, at="body", objective=method, example=images().double())
    torch.manual_seed(seed)
    nn.init.normal_(aux.method.scale)
    return disc, aux


def batch(seed, own=slice(None)):
    return images(B, seed).double()[own]


def rest(method, seed, own):
    given = {"real_key": batch(seed + 50, own)} if method is Keyed else {}
    return given | ({"labels": torch.arange(B)[own]} if method is Labelled else {})


def as_ddp(disc, aux, **how):
    ddp = DistributedDataParallel(disc, **how)

    def step(real, fake, context):
        with aux:
            scores = ddp(real), ddp(fake)
        return scores[0].square().mean() - scores[1].mean() + aux.loss(**context)

    return step


def as_unit(disc, aux, **how):
    unit = DistributedDataParallel(aux.as_module(), **how)

    def step(real, fake, context):
        (real, fake), loss = unit(real, fake, **context)
        return real.square().mean() - fake.mean() + loss

    return step


def as_one(disc, aux):
    def step(real, fake, context):
        with aux:
            scores = disc(real), disc(fake)
        return scores[0].square().mean() - scores[1].mean() + aux.loss(**context)

    return step


def train(method, how, own, seed=0):
    """The gradients of the first step, and the weights after a few."""
    disc, aux = seeded(method, seed)
    step = how(disc, aux)
    optimizer = torch.optim.SGD([*disc.parameters(), *aux.parameters()], 0.1, momentum=0.9)
    first = None
    for number in range(STEPS):
        step(batch(number, own), batch(number + 20, own), rest(method, number, own)).backward()
        first = first or [p.grad.clone() for p in (*disc.parameters(), *aux.method.parameters())]
        optimizer.step()
        optimizer.zero_grad()
    weights = [*disc.state_dict().values(), *(value for key, value in aux.state_dict().items() if key != SEED)]
    return first, [value.clone() for value in weights]


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.grown = nn.ConvTranspose2d(3, 1, 8)

    def forward(self, z):
        return self.grown(z)


def generate(how, own, seed=0):
    """The gradients of the generator in its own phase."""
    disc, aux = seeded(Gap, seed)
    torch.manual_seed(7)
    generator = Generator().double()
    z = torch.randn(B, 3, 1, 1, generator=torch.Generator().manual_seed(3)).double()
    wrapped = DistributedDataParallel(generator) if how else generator
    if how == "unit":  # the module itself: the wrapper would wait for gradients of the heads
        (scores,), loss = DistributedDataParallel(aux.as_module()).module(wrapped(z[own]), generator=True)
    else:
        with aux.for_generator():
            scores = disc(wrapped(z[own]))
        loss = aux.loss()
    (loss - scores.mean()).backward()
    assert aux.method.scale.grad is None
    return [p.grad for p in generator.parameters()]


def with_accelerate(rank, own):
    """Accelerate's own wrapping, its optimizer and its backward, with gradients accumulated over two batches."""
    from accelerate.utils import GradientAccumulationPlugin

    plugin = GradientAccumulationPlugin(num_steps=2, sync_with_dataloader=False)
    kwargs = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(cpu=True, gradient_accumulation_plugin=plugin, kwargs_handlers=[kwargs])
    disc, aux = seeded(Gap, 100 + rank)
    optimizer = torch.optim.SGD([*disc.parameters(), *aux.parameters()], 0.1)
    model, optimizer = accelerator.prepare(disc, optimizer)
    assert isinstance(model, DistributedDataParallel) == (accelerator.num_processes > 1)
    for number in range(4):
        with accelerator.accumulate(model):
            with aux:
                scores = model(batch(number, own)), model(batch(number + 20, own))
            accelerator.backward(scores[0].square().mean() - scores[1].mean() + aux.loss())
            optimizer.step()
            optimizer.zero_grad()
    return [*disc.state_dict().values(), *aux.method.state_dict().values()]


def draws(own, rank):
    """What a method draws, its heads after steps, and whether the process's own random numbers stayed."""
    disc, aux = seeded(Drawing, 300 + rank)
    optimizer = torch.optim.SGD(aux.parameters(), 0.1)
    seen, stayed = [], []
    for number in range(3):
        with aux:
            disc(batch(number, own)), disc(batch(number + 20, own))
        state = torch.get_rng_state()
        aux.loss().backward()
        stayed.append(torch.equal(torch.get_rng_state(), state))
        seen.append(aux.method.drawn)
        optimizer.step()
        optimizer.zero_grad()
    return seen, stayed[1:], aux.method.scale.detach()  # at the first, all agree on a seed


def channels_last(own, rank):
    """A momentum copy whose weights do not lie in the usual order."""
    disc, aux = seeded(Keyed, 400 + rank)
    aux.momentum.encoder.to(memory_format=torch.channels_last)
    with torch.no_grad():
        aux.momentum.encoder.body[2].weight += rank
    with aux:
        disc(batch(0, own)), disc(batch(20, own))
    aux.loss(real_key=batch(50, own))
    return aux.momentum.encoder.body[2].weight


def two_backwards(own):
    disc, aux = seeded(Gap, 0)
    ddp = DistributedDataParallel(disc)
    with aux:
        scores = ddp(batch(0, own)), ddp(batch(20, own))
    scores[0].mean().backward(retain_graph=True)
    aux.loss().backward()
    return grads(disc)


def unused(how, own):
    """DistributedDataParallel that looks for weights without gradient: from the scores it finds none of the body's."""
    try:
        return train(Stopped, partial(how, find_unused_parameters=True), own)
    except RuntimeError as error:
        return str(error)


def process(rank, folder):
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)  # starts the process group by the environment
    assert accelerator.num_processes == W and dist.get_backend() == "gloo"
    own = slice(rank * B // W, (rank + 1) * B // W)
    found = {}
    for name, method in METHODS.items():
        found[name] = train(method, as_ddp, own, seed=100 + rank)
        found[f"{name} unit"] = train(method, as_unit, own, seed=100 + rank)
    found["generator"] = generate("ddp", own, seed=100 + rank)
    found["generator unit"] = generate("unit", own, seed=100 + rank)
    found["accelerate"] = with_accelerate(rank, own)
    found["draws"] = draws(own, rank)
    found["channels last"] = channels_last(own, rank)
    found["two backwards"] = two_backwards(own)
    found["unused"] = unused(as_ddp, own)
    found["unused unit"] = unused(as_unit, own)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both processes found, in rank order."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as one:
        one.bind(("localhost", 0))
        shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(one.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    shared |= {name: str(W) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
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


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("unit", ["", " unit"])
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_train_as_one(found, name, unit):
    first, after = train(METHODS[name], as_one, slice(None), seed=100)
    for one in found:
        assert_same(one[name + unit][0], first)
        assert_same(one[name + unit][1], after)
    assert sum(gradient.abs().sum() > 1e-4 for gradient in first) >= 6  # the last bias moves real and fake alike


@pytest.mark.parametrize("unit", ["", " unit"])
def test_generators_have_the_gradient_of_the_full_batch(found, unit):
    expected = generate("", slice(None), seed=100)
    for one in found:
        assert_same(one["generator" + unit], expected)


def test_accelerate(found):
    expected = with_accelerate(0, slice(None))
    for one in found:
        assert_same(one["accelerate"], expected)


def test_heads_stay_equal_when_the_method_draws(found):
    (seen, stayed, heads), (other_seen, _, other_heads) = (one["draws"] for one in found)
    assert all(map(torch.equal, seen, other_seen)) and torch.equal(heads, other_heads)
    assert not torch.equal(seen[0], seen[1]) and all(stayed)


def test_copies_in_channels_last_are_made_equal(found):
    one, other = (each["channels last"] for each in found)
    assert torch.equal(one, other) and not one.is_contiguous()


def test_why_one_backward(found):
    one, other = (each["two backwards"] for each in found)
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None)


def test_unused_weights_behind_a_stop_need_the_unit(found):
    _, after = train(Stopped, as_one, slice(None))
    for one in found:
        assert "ready only once" in one["unused"]
        assert_same(one["unused unit"][1], after)


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
