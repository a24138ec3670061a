"""What a diffusion run found, in the few lines that are printed at its end."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .pipeline import FOLDER


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
        **{name.replace("_", " "): f"{value:.4g}" for name, value in (result.get("metrics") or {}).items()},
        "steps": f"{result['steps']} of {result['batch_size']} in {seconds:.0f} s, {speed:.0f} img/s",
        "pipeline": str(run / FOLDER),
        "samples": str(run / "samples"),
        "everything else": str(run),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.width = max(console.width, 40 + len(rows["pipeline"]))  # a path that is cut off is of no use
    console.print(table)
