"""What a GAN run found, in the few lines that are printed at its end."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = ("discriminator", "generator", "auxiliary", "accuracy")


def show(run: Path, result: dict[str, Any]) -> None:
    """Print what a run found and where it lies."""
    console = Console(highlight=False)
    run = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
    if result["status"] == "interrupted":
        console.print(
            f"stopped by {result['by']} after {result['step']} of {result['steps']} steps; a checkpoint is saved. "
            f"To go on:\n  contraux gan resume={run}",
            soft_wrap=True,
        )
        return
    last = result["last"]
    rows = {
        **{name: f"{last[name]:.3f}" for name in SHOWN if name in last},
        **figures(result.get("metrics") or {}),
        "steps": f"{result['steps']} of {result['batch_size']} in {result['seconds']:.0f} s, "
        f"{result['images_per_second']:.0f} img/s",
        "samples": str(run / "samples.png"),
        "generator": str(run / "generator"),
        "to sample": f"contraux sample checkpoint={run}",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.width = max(console.width, 60 + len(str(run)))
    console.print(table)


def figures(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the numbers of a nested dict as text, by their dotted names."""
    found: dict[str, str] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": text for inner, text in figures(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = f"{value:.3f}"
    return found
