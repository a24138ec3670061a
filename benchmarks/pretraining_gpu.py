"""Images a second of pretraining on a GPU, how busy it is, and what bounds it.

    python benchmarks/pretraining_gpu.py [--quick] [--batch 512] [--json figures.json]

SimCLR on random images of 32, 96 and 224 pixels with ResNet-18 and ResNet-50 in bf16, channels last, images in memory.
Each row has the whole trainer (`contraux pretrain`'s own loop), then its parts alone on the same batch: copying the
batch to the device, both views, and encoder with loss, backward pass and optimizer step. `busy` is what NVML says of
the GPU during the trainer's run; the largest part bounds it. `--device cpu --quick` shows that the script runs.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from rich.console import Console
from rich.table import Table

from contraux.core.data.memory import InMemory
from contraux.core.encoders import ResNet
from contraux.core.preset import option
from contraux.core.pretraining import Trainer

SIZES = (32, 96, 224)


def images(size: int, n: int) -> InMemory:
    """Random pixels: what is measured is the machine."""
    inputs = torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return InMemory(inputs, torch.full((n,), -1), (), ([0.5] * 3, [0.25] * 3))


def make_method(name: str, size: int) -> Any:
    encoder = ResNet((3, size, size), name=name, stem="cifar" if size == 32 else "imagenet")
    return hydra.utils.instantiate(option("method", "simclr"), _convert_="all")(encoder)


def make_views(data: InMemory) -> Any:
    two = hydra.utils.instantiate(option("views", "cifar" if data.shape[-1] == 32 else "simclr"), _convert_="all")
    return two(shape=data.shape, mean=data.mean, std=data.std)


class Busy:
    """Reads how busy the GPU is, ten times a second."""

    def __init__(self, device: str) -> None:
        self.device, self.found, self._ended = device, [], threading.Event()

    def __enter__(self) -> "Busy":
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        return self

    def _read(self) -> None:
        while self.device == "cuda" and not self._ended.wait(0.1):
            try:
                self.found.append(torch.cuda.utilization())
            except ModuleNotFoundError as error:  # torch asks for NVML's bindings
                print(f"`busy` stays empty: {error} (pip install nvidia-ml-py)")
                return

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.thread.join()

    def median(self) -> float | None:
        return statistics.median(self.found) if self.found else None


def seconds(run: Callable[[], Any], device: str, reps: int) -> float:
    """Median of the time of one call, after two that warm up."""
    times = []
    for _ in range(reps + 2):
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def whole(name: str, data: InMemory, batch: int, device: str) -> tuple[float, float | None]:
    """Images a second of the trainer, and how busy the GPU was."""
    with tempfile.TemporaryDirectory() as folder, Busy(device) as busy:
        trainer = Trainer(
            make_method(name, data.shape[-1]), data, make_views(data), partial(torch.optim.SGD, lr=0.1, momentum=0.9),
            Path(folder), epochs=3, batch_size=batch, precision="bf16", channels_last=True, progress_bar=False,
            device="auto" if device == "cuda" else "cpu", checkpoint_every=None,
        )  # fmt: skip
        speed = trainer.fit().images_per_second
    return speed, busy.median()


def parts(name: str, data: InMemory, batch: int, device: str, reps: int) -> dict[str, float]:
    """Seconds of each part alone."""
    host = data.inputs[:batch]
    host = host.pin_memory() if device == "cuda" else host
    method, views = make_method(name, data.shape[-1]).to(device), make_views(data)
    method = method.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator(device).manual_seed(0)
    there = host.to(device)
    one, other = views(there, generator)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = method(one, other).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.update(0.0)

    return {
        "copy": seconds(lambda: host.to(device, non_blocking=True), device, reps),
        "views": seconds(lambda: views(there, generator), device, reps),
        "step": seconds(step, device, reps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--reps", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one small case")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("a GPU is needed, found none (--device cpu --quick shows that the script runs)")
    cases = [("resnet18", 32)] if arguments.quick else [(n, s) for n in ("resnet18", "resnet50") for s in SIZES]
    batch, reps = (32, 2) if arguments.quick else (arguments.batch, arguments.reps)
    rows = []
    table = Table("encoder", "pixels", "trainer img/s", "busy %", "copy ms", "views ms", "step ms", "bound by")
    for name, size in cases:
        data = images(size, batch * (2 if arguments.quick else 12))
        speed, busy = whole(name, data, batch, arguments.device)
        took = parts(name, data, batch, arguments.device, reps)
        slowest = max(took, key=lambda part: took[part])
        rows.append({"encoder": name, "pixels": size, "images_per_second": speed, "busy": busy, **took})
        table.add_row(
            name, str(size), f"{speed:.0f}", "-" if busy is None else f"{busy:.0f}",
            *(f"{took[part] * 1e3:.1f}" for part in ("copy", "views", "step")), slowest,
        )  # fmt: skip
    Console(width=110).print(table)
    if arguments.json:
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
        arguments.json.write_text(json.dumps({"device": device, "batch": batch, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
