"""What a pretraining run found, in the few lines that are printed at its end."""

from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from rich.console import Console
from rich.table import Table


def show(run: Path, result: dict[str, Any]) -> None:
    """Print what a run found and where it lies."""
    console = Console(highlight=False)
    run = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
    if result["status"] == "interrupted":
        console.print(
            f"stopped by {result['by']} after {result['step']} of {result['steps']} steps; a checkpoint is saved. "
            f"To go on:\n  contraux pretrain resume={run}",
            soft_wrap=True,
        )
        return
    seconds, speed = result["seconds"], result["images_per_second"]
    rows = {
        "loss": f"{result['last']['loss']:.4f}",
        **{name: f"{result['last'][name]:.3f}" for name in ("accuracy", "spread") if name in result["last"]},
        **{name: percent(figure) for name, figure in (result.get("evaluation") or {}).items()},
        "steps": f"{result['steps']} of {result['batch_size']} in {seconds:.0f} s, {speed:.0f} img/s",
        "encoder": str(run / "encoder"),
        "everything else": str(run),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.width = max(console.width, 40 + len(rows["encoder"]))  # a path that is cut off is of no use
    console.print(table)


def percent(figure: dict[str, Any]) -> str:
    """Return mean and standard deviation of an accuracy."""
    spread = "" if figure["sd"] is None else f" ± {figure['sd']:.2f} over {figure['n']} draws"
    return f"{figure['mean']:.2f} %{spread}"


def without_hydra(error: BaseException) -> str:
    """Return what an error says, rid of Hydra's wrapping."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) if isinstance(error, ValueError) else repr(error)
