"""Exact contrastive losses on a GPU, forward and backward, side by side with the peers.

    python benchmarks/kernel_gpu.py [--quick] [--rounds 7] [--json figures.json]

First the kernels are checked against float64 on the device, then timed: unit vectors, temperature 0.07, implementations
in random order each round, medians. `TFLOP/s` counts the operations that the loss needs (6 N M D; 8 for CLIP's two
directions from one pass), `of cuBLAS` is that rate over the one of a matrix product of the same shape and dtype; peak
memory is torch's own over what was allocated with the inputs; `oom` is out of memory. Peers: plain
`F.cross_entropy`, `torch.compile` of it, open_clip's ClipLoss, lightly's NTXentLoss, and Inf-CL (`pip install inf-cl`)
where it is installed.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from contraux.core import Pairs, SameLabel, contrastive_loss
from contraux.core.kernels import gpu
from contraux.core.losses import clip, info_nce, nt_xent, sup_con
from contraux.core.samplers import Queue
from contraux.core.similarity import cosine

TAU = 0.07
PLAIN_LIMIT = 40 * 2**30  # bytes of similarities above which nobody is asked to store them


def unit(n: int, dim: int, dtype: torch.dtype, seed: int) -> Tensor:
    values = torch.randn(n, dim, generator=torch.Generator("cuda").manual_seed(seed), device="cuda")
    return F.normalize(values, dim=1).to(dtype).requires_grad_()


def nt_xent_case(n: int, dim: int, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Callable[[], Tensor]], int]:
    z, positive = unit(n, dim, dtype, 0), torch.arange(n, device="cuda").roll(n // 2)

    def plain(z: Tensor) -> Tensor:
        return F.cross_entropy((z @ z.T).float().div(TAU).fill_diagonal_(-torch.inf), positive)

    def lightly() -> Tensor:
        from lightly.loss import NTXentLoss

        return NTXentLoss(temperature=TAU)(z[: n // 2], z[n // 2 :])

    compiled = torch.compile(plain)
    ours = Pairs(z, z, positive)
    return (
        [z],
        {
            "contraux": lambda: contrastive_loss(ours, loss=nt_xent, temperature=TAU),
            "plain": lambda: plain(z),
            "torch.compile": lambda: compiled(z),
            "lightly": lightly,
        },
        6 * n * n * dim,
    )


def clip_case(n: int, dim: int, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Callable[[], Tensor]], int]:
    q, k, positive = unit(n, dim, dtype, 0), unit(n, dim, dtype, 1), torch.arange(n, device="cuda")

    def plain(q: Tensor, k: Tensor) -> Tensor:
        logits = (q @ k.T).float() / TAU
        return (F.cross_entropy(logits, positive) + F.cross_entropy(logits.T, positive)) / 2

    def open_clip() -> Tensor:
        from open_clip.loss import ClipLoss

        return ClipLoss()(q, k, torch.tensor(1 / TAU, device="cuda", dtype=dtype))

    compiled = torch.compile(plain)
    losses = {
        "contraux": lambda: contrastive_loss(Pairs(q, k, positive), loss=clip, temperature=TAU),
        "plain": lambda: plain(q, k),
        "torch.compile": lambda: compiled(q, k),
        "open_clip": open_clip,
    }
    if find_spec("inf_cl"):
        from inf_cl import cal_inf_loss

        scale = torch.tensor(1 / TAU, device="cuda")
        losses["inf-cl"] = lambda: (cal_inf_loss(q, k, scale=scale) + cal_inf_loss(k, q, scale=scale)) / 2
    return [q, k], losses, 8 * n * n * dim


def one_way_case(n: int, dim: int, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Callable[[], Tensor]], int]:
    q, k, positive = unit(n, dim, dtype, 0), unit(n, dim, dtype, 1), torch.arange(n, device="cuda")

    def plain(q: Tensor, k: Tensor) -> Tensor:
        return F.cross_entropy((q @ k.T).float() / TAU, positive)

    compiled = torch.compile(plain)
    losses = {
        "contraux": lambda: contrastive_loss(Pairs(q, k, positive), temperature=TAU),
        "plain": lambda: plain(q, k),
        "torch.compile": lambda: compiled(q, k),
    }
    if find_spec("inf_cl"):
        from inf_cl import cal_inf_loss

        scale = torch.tensor(1 / TAU, device="cuda")
        losses["inf-cl"] = lambda: cal_inf_loss(q, k, scale=scale)
    return [q, k], losses, 6 * n * n * dim


def queue_case(n: int, dim: int, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Callable[[], Tensor]], int]:
    q, k, positive = unit(n, dim, dtype, 0), unit(n, dim, dtype, 1).detach(), torch.arange(n, device="cuda")
    queue = Queue(dim, 65536).to("cuda", dtype)
    queue.remember(unit(65536, dim, dtype, 2).detach(), {})

    def plain(q: Tensor) -> Tensor:
        return F.cross_entropy(torch.cat((q @ k.T, q @ queue.keys.T), 1).float() / TAU, positive)

    compiled = torch.compile(plain)
    return (
        [q],
        {
            "contraux": lambda: contrastive_loss(Pairs(q, k, positive), sampler=queue, temperature=TAU),
            "plain": lambda: plain(q),
            "torch.compile": lambda: compiled(q),
        },
        4 * n * (n + 65536) * dim,
    )


CASES = {"nt_xent": nt_xent_case, "clip": clip_case, "one_way": one_way_case, "queue": queue_case}


def checks(console: Console) -> None:
    """Compare the kernels with float64 on the device, every variant; raise at the first that is wrong."""
    n, dim = 2000, 100
    for dtype, most in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        z, key = unit(n, dim, dtype, 0), unit(n, dim, dtype, 1)
        positive, label = torch.randperm(n, device="cuda"), torch.randint(50, (n,), device="cuda")
        itself = torch.arange(n, device="cuda")
        views = Pairs(z, z, itself.roll(n // 2))
        for name, pairs, loss in (
            ("nt_xent", views, nt_xent),
            ("two views", views._replace(exclude=itself), info_nce),
            ("one way", Pairs(z, key, positive), info_nce),
            ("clip", Pairs(z, key, positive), clip),
            ("labels", Pairs(z, key, SameLabel(label, label), itself), sup_con),
        ):
            exact = [x.detach().double().requires_grad_() for x in (z, key)]
            exact[1] = exact[0] if pairs.key is z else exact[1]
            for deterministic in (False, True):
                torch.use_deterministic_algorithms(deterministic)
                heat = torch.tensor(TAU, device="cuda", requires_grad=True)
                value = contrastive_loss(pairs, loss=loss, temperature=heat)
                assert "WithGradient" in value.grad_fn.name(), name
                inputs = [z, heat] if pairs.key is z else [z, key, heat]
                found = torch.autograd.grad(value, inputs)
                torch.use_deterministic_algorithms(False)
                wide = torch.tensor(TAU, device="cuda", dtype=torch.float64, requires_grad=True)
                moved = pairs._replace(query=exact[0], key=exact[1])
                expected = torch.autograd.grad(
                    contrastive_loss(moved, similarity=lambda q, k: cosine(q, k), loss=loss, temperature=wide),
                    [exact[0], wide] if pairs.key is z else [*exact, wide],
                )
                errors = [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]
                console.print(f"{dtype} {name}{' deterministic' if deterministic else ''}: relative errors {errors}")
                if not max(errors[:-1]) < most:
                    sys.exit(f"wrong gradient: {name}, {dtype}")


def milliseconds(function: Callable[[], Any]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def run(case: str, n: int, dim: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    columns = n + 65536 if case == "queue" else n
    inputs, losses, operations = CASES[case](n, dim, dtype)
    figures: dict[str, Any] = {}
    steps: dict[str, Callable[[], Any]] = {}
    for name, loss in losses.items():
        if name not in ("contraux", "inf-cl") and 4 * n * columns > PLAIN_LIMIT:
            figures[name] = "oom"
            continue

        def step(loss: Callable[[], Tensor] = loss) -> None:
            torch.autograd.grad(loss(), inputs)

        try:
            step()  # compiles
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            figures[name] = {"mib": (torch.cuda.max_memory_allocated() - before) / 2**20}
            steps[name] = step
        except torch.cuda.OutOfMemoryError:
            figures[name] = "oom"
            torch.cuda.empty_cache()
        except Exception as error:  # a peer that cannot do this shape does not end the table
            if name == "contraux":
                raise
            figures[name] = f"{type(error).__name__}: {error}"[:60]
    a, b = inputs[0].detach(), torch.randn(min(columns, 16384), dim, device="cuda", dtype=dtype)
    times: dict[str, list[float]] = {name: [] for name in ("product", *steps)}
    order = random.Random(0)
    for _ in range(rounds):
        times["product"].append(milliseconds(lambda: a @ b.T))
        for name in order.sample(list(steps), len(steps)):
            times[name].append(milliseconds(steps[name]))
    rate = 2 * n * b.shape[0] * dim / statistics.median(times["product"]) / 1e9
    for name in steps:
        ms = statistics.median(times[name])
        figures[name] |= {"ms": ms, "tflops": operations / ms / 1e9, "of_cublas": operations / ms / 1e9 / rate}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="N of 4096 and 16384, D of 128 only")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write all figures there too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs an NVIDIA GPU that torch can see, found none")
    console = Console(width=120)
    console.print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    gpu.SMALL = 0
    checks(console)
    sizes = (4096, 16384) if options.quick else (4096, 16384, 65536, 262144)
    table = Table("case", "N", "D", "dtype", "implementation", "ms", "TFLOP/s", "of cuBLAS", "peak MiB")
    everything = []
    for case in CASES:
        for n in (4096,) if case == "queue" else sizes:
            for dim in (128,) if options.quick else (128, 256, 768):
                for dtype in (torch.bfloat16, torch.float32):
                    for name, found in run(case, n, dim, dtype, options.rounds).items():
                        where = [case, str(n), str(dim), str(dtype).removeprefix("torch."), name]
                        everything.append([*where, found])
                        cells = [found, "", "", ""]
                        if not isinstance(found, str):
                            cells = [f"{found['ms']:.3g}", f"{found['tflops']:.0f}", f"{found['of_cublas']:.2f}"]
                            cells.append(f"{found['mib']:.0f}")
                        table.add_row(*where, *cells)
                    table.add_section()
                    torch.cuda.empty_cache()
                    if options.json:
                        options.json.write_text(json.dumps(everything, indent=1))
    console.print(table)


if __name__ == "__main__":
    main()
