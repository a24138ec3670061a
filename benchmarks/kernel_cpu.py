"""Exact contrastive losses on a CPU, forward and backward, side by side with the peers.

    OMP_WAIT_POLICY=passive python benchmarks/kernel_cpu.py [--only nt_xent_8192] [--threads 2] [--seconds 40]

float32, D = 128, temperature 0.1. All compute cosines of the vectors they are given, normalising included, but for
open_clip, whose loss takes unit vectors as they are. Each case runs in a process of its own, its implementations in
random order, again and again for the seconds given (at least 3 rounds); times are medians. Each round also times a
2048^3 product, whose rate gives the time of the three products that a loss and its two gradients need without symmetry
(6 N^2 D operations): the column "of limit". Peak memory is taken in a fresh process for each implementation, after a
small warm-up: the high-water mark of the resident set over what was resident with the inputs in place. Errors are
relative Euclidean ones of the gradient against float64, at N = 2048.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from contraux.core import Pairs, SameLabel, contrastive_loss
from contraux.core.losses import clip, info_nce, nt_xent
from contraux.core.samplers import Bandit, CancelTopK, Hardest, Hardness, Queue, Random
from contraux.core.similarity import cosine

DIM, TAU = 128, 0.1
OTHER_LOSSES = ("random half", "hardest 64", "hardness", "cancel top 10", "bandit")
"""Implementations whose value differs on purpose."""
Losses = dict[str, Callable[[], Tensor]]
"""Name of an implementation -> a loss ready for backward."""


def unit(n: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


def nt_xent_case(n: int) -> tuple[list[Tensor], Losses]:
    z = unit(n).requires_grad_()
    positive, itself = torch.arange(n).roll(n // 2), torch.arange(n)

    def plain(z: Tensor) -> Tensor:
        z = F.normalize(z, dim=1)
        return F.cross_entropy((z @ z.T / TAU).fill_diagonal_(-torch.inf), positive)

    def lightly() -> Tensor:
        from lightly.loss import NTXentLoss

        return NTXentLoss(temperature=TAU)(z[: n // 2], z[n // 2 :])

    compiled = torch.compile(plain)
    return [z], {
        "contraux": lambda: contrastive_loss(Pairs(z, z, positive, itself), loss=nt_xent, temperature=TAU),
        "plain": lambda: plain(z),
        "torch.compile": lambda: compiled(z),
        "lightly": lightly,
    }


def clip_case(n: int) -> tuple[list[Tensor], Losses]:
    q, k, positive = unit(n).requires_grad_(), unit(n, 1).requires_grad_(), torch.arange(n)

    def plain(q: Tensor, k: Tensor) -> Tensor:
        logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / TAU
        return (F.cross_entropy(logits, positive) + F.cross_entropy(logits.T, positive)) / 2

    def open_clip() -> Tensor:
        from open_clip.loss import ClipLoss

        return ClipLoss()(q, k, torch.tensor(1 / TAU))

    compiled = torch.compile(plain)
    return [q, k], {
        "contraux": lambda: contrastive_loss(Pairs(q, k, positive), loss=clip, temperature=TAU),
        "plain": lambda: plain(q, k),
        "torch.compile": lambda: compiled(q, k),
        "open_clip": open_clip,
    }


def one_way_case(n: int) -> tuple[list[Tensor], Losses]:
    q, k, positive = unit(n).requires_grad_(), unit(n, 1).requires_grad_(), torch.arange(n)

    def plain(q: Tensor, k: Tensor) -> Tensor:
        return F.cross_entropy(F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / TAU, positive)

    compiled = torch.compile(plain)
    return [q, k], {
        "contraux": lambda: contrastive_loss(Pairs(q, k, positive), temperature=TAU),
        "plain": lambda: plain(q, k),
        "torch.compile": lambda: compiled(q, k),
    }


def queue_case(n: int) -> tuple[list[Tensor], Losses]:
    q, k, positive = unit(n).requires_grad_(), unit(n, 1), torch.arange(n)
    queue = Queue(DIM, 65536)
    queue.remember(unit(65536, 2), {})

    def plain(q: Tensor) -> Tensor:
        q = F.normalize(q, dim=1)
        logits = torch.cat((q @ F.normalize(k, dim=1).T, q @ F.normalize(queue.keys, dim=1).T), 1)
        return F.cross_entropy(logits / TAU, positive)

    compiled = torch.compile(plain)
    return [q], {
        "contraux": lambda: contrastive_loss(Pairs(q, k, positive), sampler=queue, temperature=TAU),
        "plain": lambda: plain(q),
        "torch.compile": lambda: compiled(q),
    }


def sup_con_case(n: int) -> tuple[list[Tensor], Losses]:
    z, itself = unit(n).requires_grad_(), torch.arange(n)
    labels = torch.randint(100, (n,), generator=torch.Generator().manual_seed(3))

    def plain() -> Tensor:
        unit_z = F.normalize(z, dim=1)
        eye = torch.eye(n, dtype=torch.bool)
        picked = F.log_softmax((unit_z @ unit_z.T / TAU).masked_fill(eye, -torch.inf), 1)
        mask = (labels[:, None] == labels) & ~eye
        return -(picked.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)).mean()

    def metric_learning() -> Tensor:
        from pytorch_metric_learning.losses import SupConLoss

        return SupConLoss(temperature=TAU)(z, labels)

    return [z], {
        "contraux": lambda: contrastive_loss(Pairs(z, z, SameLabel(labels, labels), itself), temperature=TAU),
        "plain": plain,
        "pytorch-metric-learning": metric_learning,
    }


def sampler_case(n: int) -> tuple[list[Tensor], Losses]:
    """InfoNCE with the weights of samplers, beside the whole matrix with weights of 1."""
    q, k, positive = unit(n).requires_grad_(), unit(n, 1).requires_grad_(), torch.arange(n)
    pairs = Pairs(q, k, positive)
    samplers = {
        "random half": Random(share=0.5),
        "hardest 64": Hardest(64),
        "hardness": Hardness(),
        "cancel top 10": CancelTopK(10),
        "bandit": Bandit(),
    }
    return [q, k], {
        "contraux": lambda: contrastive_loss(pairs, temperature=TAU),
        "weights of 1": lambda: info_nce(cosine(q, k), positive, torch.ones(n, n), temperature=TAU),
        **{
            name: lambda sampler=sampler: contrastive_loss(pairs, sampler=sampler, temperature=TAU)
            for name, sampler in samplers.items()
        },
    }


CASES: dict[str, tuple[Callable[[int], tuple[list[Tensor], Losses]], int, int]] = {
    "nt_xent_512": (nt_xent_case, 512, 512),
    "nt_xent_2048": (nt_xent_case, 2048, 2048),
    "nt_xent_8192": (nt_xent_case, 8192, 8192),
    "nt_xent_65536": (nt_xent_case, 65536, 65536),
    "one_way_8192": (one_way_case, 8192, 8192),
    "clip_8192": (clip_case, 8192, 8192),
    "queue_256x65536": (queue_case, 256, 256 + 65536),
    "sup_con_4096": (sup_con_case, 4096, 4096),
    "samplers_2048": (sampler_case, 2048, 2048),
    "samplers_4096": (sampler_case, 4096, 4096),
}
"""Name -> what makes it, N, columns. At 65536 rows nobody else fits into memory."""


def step(inputs: list[Tensor], loss: Callable[[], Tensor]) -> None:
    torch.autograd.grad(loss(), inputs)


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def run_case(name: str, seconds: float) -> dict[str, Any]:
    make, n, columns = CASES[name]
    inputs, losses = make(n)
    if n > 30_000:
        losses = {"contraux": losses["contraux"]}
    square = torch.randn(2048, 2048)
    if n <= 30_000:
        for key, loss in losses.items():
            step(inputs, loss)  # compiles
            value, ours = loss().item(), losses["contraux"]().item()
            if key not in OTHER_LOSSES and abs(value - ours) > 1e-4 * abs(ours):
                raise RuntimeError(f"{key} computes {value}, contraux {ours}: not the same loss")
    times: dict[str, list[float]] = {key: [] for key in ("product", *losses)}
    start, rounds, order = time.perf_counter(), 0, random.Random(0)
    while rounds < (3 if n <= 30_000 else 1) or (time.perf_counter() - start < seconds and rounds < 101):
        times["product"].append(timed(lambda: square @ square))
        for key in order.sample(list(losses), len(losses)):
            times[key].append(timed(lambda loss=losses[key]: step(inputs, loss)))
        rounds += 1
    rate = 2 * 2048**3 / statistics.median(times.pop("product"))
    return {"limit": 6 * n * columns * DIM / rate, "rate": rate, "rounds": rounds, "times": times}


def run_memory(name: str, implementation: str) -> float:
    """Return MiB at the peak of one step over what is resident before it."""
    make, n, _ = CASES[name]
    small_inputs, small = make(256)
    step(small_inputs, small[implementation])
    inputs, losses = make(n)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step(inputs, losses[implementation])
    return (resident("VmHWM") - before) / 1024


def resident(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def run_errors() -> dict[str, dict[str, float]]:
    """Return relative errors of gradients against the same loss by hand in float64."""
    n, found = 2048, {}
    positive = torch.arange(n).roll(n // 2)
    for name, loss, make, other in (
        ("nt_xent", nt_xent, nt_xent_case, "lightly"),
        ("clip", clip, clip_case, "open_clip"),
    ):
        inputs, losses = make(n)
        exact = [x.detach().double().requires_grad_() for x in inputs]
        at = positive if name == "nt_xent" else torch.arange(n)
        expected = torch.autograd.grad(loss(cosine(exact[0], exact[-1]), at, temperature=TAU), exact[0])[0]
        found[name] = {}
        for key in ("contraux", "plain", "torch.compile", other):
            gradient = torch.autograd.grad(losses[key](), inputs[0])[0]
            # open_clip takes the vectors as they are, so that only the part along the sphere is comparable
            along = (gradient * inputs[0]).sum(1, keepdim=True) * inputs[0]
            found[name][key] = ((gradient - along - expected).norm() / expected.norm()).item()
    return found


def child(*arguments: str) -> Any:
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, __file__, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*CASES, "errors"], default=[*CASES, "errors"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=40.0, help="for each case")
    parser.add_argument("--json", type=Path, help="write all figures there too")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--errors", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.case:
        print(json.dumps(run_case(options.case, options.seconds)))
    elif options.memory:
        print(json.dumps(run_memory(*options.memory)))
    elif options.errors:
        print(json.dumps(run_errors()))
    else:
        report(options)


def report(options: argparse.Namespace) -> None:
    console, figures = Console(width=120), {}
    table = Table("case", "implementation", "ms (range)", "times contraux", "of limit", "peak MiB")
    threads = f"--threads={options.threads}"
    for name in options.only:
        if name == "errors":
            continue
        case = figures[name] = child("--case", name, threads, f"--seconds={options.seconds}")
        ours = statistics.median(case["times"]["contraux"])
        case["memory"] = {key: child("--memory", name, key, threads) for key in case["times"]}
        for key, times in case["times"].items():
            middle = statistics.median(times)
            table.add_row(
                name,
                key,
                f"{middle * 1e3:.4g} ({min(times) * 1e3:.4g}-{max(times) * 1e3:.4g})",
                f"{middle / ours:.2f}",
                f"{middle / case['limit']:.2f}",
                f"{case['memory'][key]:.0f}",
            )
        table.add_section()
        console.print(f"{name}: {case['rounds']} rounds, product at {case['rate'] / 1e9:.0f} GFLOP/s")
    console.print(table)
    if "errors" in options.only:
        figures["errors"] = child("--errors", threads)
        for name, errors in figures["errors"].items():
            console.print(
                f"relative error of the gradient, {name}, N = 2048: "
                + ", ".join(f"{k} {v:.1e}" for k, v in errors.items())
            )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
