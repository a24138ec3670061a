"""`contraux compare-gan` and `contraux compare-diffusion`: the arms of an experiment over the same seeds.

`core.comparison` does the runs, with the job of either host; this reports on them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ..core.comparison import Run, compare, read_controls
from ..core.comparison.table import Results, all_completed, failures, results_of, show
from ..core.files import write_json
from .charts import Curve, draw_curves, draw_differences
from .measures import metrics_of
from .report import as_markdown, as_values, findings, header, notes, rows

ReadCurves = Callable[[Path], Mapping[str, Curve]]


def run(cfg: DictConfig, perform: Callable[[DictConfig], Any], read: ReadCurves = lambda _: {}) -> None:
    """Launch the runs that are still to be done, then report on all of them.

    Args:
        cfg: settings of a run and of the comparison.
        perform: does one run in Hydra's output folder; a function of a module.
        read: returns the curves of a run's folder by title.

    Raises:
        ValueError: a setting of the comparison breaks its rule, or a folder was made with other settings.
        SystemExit: with 1 when runs failed, 130 when the comparison was interrupted.
    """
    settings: dict[str, Any] = OmegaConf.to_container(cfg.compare)  # type: ignore[assignment]
    chosen = settings["metrics"]
    if chosen is not None and not (isinstance(chosen, list) and all(isinstance(one, str) for one in chosen)):
        raise ValueError(f"compare.metrics must be a list of names or patterns, or null for all, got {chosen!r}")
    compare(cfg, perform, partial(write_report, chosen=chosen, controls=read_controls(cfg), read=read))


def write_report(
    folder: Path,
    name: str,
    runs: Sequence[Run],
    *,
    chosen: Sequence[str] | None,
    controls: Mapping[str, str],
    read: ReadCurves,
) -> bool:
    """Print what was found, save table, numbers and pictures, and return whether all runs completed."""
    results = results_of(runs)
    controls = {arm: control for arm, control in controls.items() if arm in results and control in results}
    metrics = metrics_of(results, chosen)
    console = Console(highlight=False)
    console.width = max(console.width, 150 if controls else 110)  # better a broken line than a table cut off
    said = [*findings(results, metrics, controls), *notes(results, metrics, controls)]
    show(header(controls), rows(results, metrics, controls), said, failures(results), console)
    (folder / "table.md").write_text(as_markdown(name, results, metrics, controls), encoding="utf-8")
    write_json(folder / "results.json", as_values(name, results, metrics, controls))
    places = [folder / "table.md", folder / "results.json"]
    try:
        if draw_differences(results, metrics, controls, name, folder / "differences.png"):
            places.append(folder / "differences.png")
        if draw_curves(curves_by_arm(results, runs, read), name, folder / "curves.png"):
            places.append(folder / "curves.png")
    except ImportError:
        console.print("no picture: matplotlib is not installed, pip install 'contraux[jobs]'")
    console.print(f"table, numbers, picture: {' '.join(map(str, places))}", soft_wrap=True)
    return all_completed(results)


def curves_by_arm(results: Results, runs: Sequence[Run], read: ReadCurves) -> dict[str, dict[str, list[Curve]]]:
    """Return the curves of the completed runs by title and arm."""
    found: dict[str, dict[str, list[Curve]]] = {}
    for run in runs:
        if results[run.arm][run.seed]["status"] == "completed":
            for title, curve in read(run.folder).items():
                found.setdefault(title, {}).setdefault(run.arm, []).append(curve)
    return found
