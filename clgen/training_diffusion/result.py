"""What a diffusion run found, in the few lines that are printed at its end."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .pipeline import FOLDER

LEFT_OUT = re.compile(r"_(kernel|density|class_variation|missing_classes)/")  # `result.json` has them


def show(run: Path, result: dict[str, Any]) -> None:
    """Print what a run found and where it lies."""
    console = Console(highlight=False)
    run = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
    if result["status"] == "interrupted":
        console.print(
            f"stopped by {result['by']} after {result['step']} of {result['steps']} steps; a checkpoint is saved. "
            f"To go on:\n  contraux diffusion resume={run}",
            soft_wrap=True,
        )
        return
    seconds, speed, last = result["seconds"], result["images_per_second"], result["last"]
    rows = {
        "loss": f"{last['loss']:.4f}",
        **{name: f"{last[name]:.4f}" for name in ("denoising", "auxiliary", "flow_contrast") if name in last},
        **lines({name: value for name, value in (result.get("metrics") or {}).items() if not LEFT_OUT.search(name)}),
        "steps": f"{result['steps']} of {result['batch_size']} in {seconds:.0f} s, {speed:.0f} img/s",
        "pipeline": str(run / FOLDER),
        "samples": str(run / "samples"),
        "everything else": str(run),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    needed = max(map(len, rows)) + max(map(len, rows.values())) + 2
    console.width = max(console.width, needed)  # a path that is cut off is of no use
    console.print(table)


def lines(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return a line for each measure, with its values at several noise levels or shifts side by side.

    `probe_0.3` and `probe_0.6` become `probe at 0.3, 0.6`; `steps_10_recall` and `steps_40_recall` likewise.
    """
    found: dict[str, list[tuple[str, float]]] = {}
    for name, value in metrics.items():
        start = re.fullmatch(r"steps_(\d+)_(.+)", name)
        end = re.fullmatch(r"(.+)_([\d.]+)", name)
        if start:
            found.setdefault(f"{start[2]} in {{}} steps", []).append((start[1], value))
        elif end:
            found.setdefault(f"{end[1]} at {{}}", []).append((end[2], value))
        else:
            found.setdefault(name, []).append(("", value))
    return {
        name.replace("_", " ").format(", ".join(place for place, _ in values)): ", ".join(
            f"{value:.4g}" for _, value in values
        )
        for name, values in found.items()
    }
