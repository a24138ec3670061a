"""`contraux compare`: the arms of an experiment over the same seeds, through whichever of Hydra's launchers is chosen.

The launcher gets one list of overrides per seed and arm, seed by seed, so that arms are interleaved and an interruption
leaves whole pairs; each run writes its own folder `<arm>/seed_<n>`, from which all that is reported is read. Finished
runs are kept when the comparison is started again; one that failed or was cut short starts anew.
(A Hydra sweeper would be the other way to say this, but Hydra takes sweepers only from a package `hydra_plugins`.)
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..core.check import whole
from ..core.files import write_json
from ..core.interruption import orphaned
from . import job
from .curves import draw
from .report import Results, as_markdown, as_values, show
from .result import learning_curve, read_episodes, success_curve

WITHOUT_EFFECT = (
    "compare",
    "progress_bar",
    "resume",
    "trusted",
)  # keys that may differ between two starts of one comparison


class Run(NamedTuple):
    """One run of a comparison."""

    arm: str
    seed: int
    folder: Path
    overrides: list[str]

    def ended(self) -> bool:
        """Return whether the run has completed or failed."""
        return job.read_result(self.folder).get("status") in ("completed", "failed")


def run_arm(cfg: DictConfig) -> None:
    """Train one run; what it fails with stands in its `result.json`, and the others go on.

    A worker whose parent was killed ends here, so that it does not go on with runs a new start will do.
    """
    try:
        job.perform(cfg)
    except Exception as error:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if job.read_result(folder).get("status") != "failed":  # before it could write that itself
            write_json(folder / "result.json", job.failure({"arm": cfg.arm, "seed": cfg.seed}, error))
    if orphaned():
        os._exit(1)


def main(cfg: DictConfig) -> None:
    """Launch the runs that are still to be done, then report on all of them.

    Raises:
        ValueError: a setting of the comparison breaks its rule, or a folder was made with other settings.
        SystemExit: with 1 when runs failed, 130 when the comparison was interrupted.
    """
    own = HydraConfig.get()
    loader = GlobalHydra.instance().config_loader()
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    overrides = list(own.overrides.task)
    config = loader.load_configuration(own.job.config_name, [*own.overrides.hydra, *overrides], RunMode.RUN)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=run_arm, config=config)

    folder, runs = plan(cfg, overrides)
    composed = [compose(context, config, run) for run in runs]  # so that a mistake is said before any run starts
    open_runs = [run for run, settings in zip(runs, composed, strict=True) if not kept(run, settings)]
    for run in open_runs:
        shutil.rmtree(run.folder, ignore_errors=True)
    if len(open_runs) < len(runs):
        Console().print(f"{len(runs) - len(open_runs)} of {len(runs)} runs are done already, in {folder}")
    if open_runs:
        try:
            with Watching(open_runs):
                launcher.launch([run.overrides for run in open_runs], initial_job_idx=0)
        except (KeyboardInterrupt, SystemExit):
            Console().print("stopped; the same command goes on where this one ended", soft_wrap=True)
            raise SystemExit(130) from None
        except Exception as error:  # a worker that was killed takes the launcher with it: report what there is
            reason = next(iter(str(error).splitlines()), "")
            Console(stderr=True).print(f"the launcher stopped, {type(error).__name__}: {reason}", soft_wrap=True)
    if not write_report(folder, cfg.compare.name, runs):
        raise SystemExit(1)


def compose(context: HydraContext, config: DictConfig, run: Run) -> dict[str, Any]:
    """Return the settings a run will be made with, as they will stand in its `config.yaml`."""
    composed = context.config_loader.load_sweep_config(config, run.overrides)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composed)
    try:
        settings = OmegaConf.to_container(
            OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]), resolve=True
        )
    finally:
        HydraConfig.instance().cfg = before
    return cast(dict[str, Any], settings)


def kept(run: Run, settings: Mapping[str, Any]) -> bool:
    """Return whether a run is complete; ValueError if it was made with other settings than these."""
    if job.read_result(run.folder).get("status") != "completed":
        return False
    made = flat(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(run.folder / "config.yaml"))))
    now = flat(settings)
    differing = [key for key in {**made, **now} if made.get(key) != now.get(key)]
    if differing:
        key, more = differing[0], f", and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ValueError(
            f"{run.folder} was made with {key}={made.get(key)}, now {now.get(key)}{more}: give another compare.folder, "
            "or remove that one"
        )
    return True


def plan(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Path, list[Run]]:
    """Return the comparison's folder and its runs, seed by seed.

    Raises:
        ValueError: no experiment or arms, seeds that are no counts, or an arm that is no list of overrides.
    """
    settings = cfg.compare
    if settings.name is None:
        raise ValueError("compare needs experiment=NAME (or a compare.name and compare.arms of your own)")
    seeds, first = whole("compare.seeds", settings.seeds, 1), whole("compare.first_seed", settings.first_seed)
    if not isinstance(settings.arms, DictConfig) or not settings.arms:
        raise ValueError(f"compare.arms must name at least one arm and its overrides, got {settings.arms!r}")
    arms = cast(dict[str, Any], OmegaConf.to_container(settings.arms))
    for arm, own in arms.items():
        if not isinstance(own, list) or not all(isinstance(word, str) for word in own):
            raise ValueError(f"compare.arms.{arm} must be a list of overrides, such as [objective=none], got {own!r}")
    folder = Path(settings.folder)
    return folder, [
        Run(arm, seed, folder / arm / f"seed_{seed}", [*overrides, *own, f"arm={arm}", f"seed={seed}"])
        for seed in range(first, first + seeds)
        for arm, own in arms.items()
    ]


class Watching:
    """Shows how many runs have ended, and when the last one will, from their folders: so with any launcher.

    Args:
        runs: the runs to wait for.
        interval: seconds between two looks.
    """

    def __init__(self, runs: Sequence[Run], interval: float = 0.5) -> None:
        self.runs, self.interval = runs, interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        if sys.stderr.isatty():
            self._bar()
        else:
            self._lines()

    def _bar(self) -> None:
        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), speed_estimate_period=3600) as bar:
            task = bar.add_task("runs", total=len(self.runs))
            while not self._over.wait(self.interval):
                bar.update(task, completed=self._ended())
            bar.update(task, completed=self._ended())

    def _lines(self) -> None:
        begun, shown = time.monotonic(), 0
        while not self._over.wait(self.interval):
            ended = self._ended()
            if ended - shown >= max(len(self.runs) // 8, 1):
                elapsed = time.monotonic() - begun
                left = elapsed / ended * (len(self.runs) - ended)
                print(f"{ended} of {len(self.runs)} runs, {elapsed:.0f} s, about {left:.0f} s left", file=sys.stderr)
                shown = ended

    def _ended(self) -> int:
        return sum(run.ended() for run in self.runs)


def write_report(folder: Path, name: str, runs: Sequence[Run]) -> bool:
    """Print what was found, save `table.md`, `results.json` and `curves.png`, and return whether all runs completed."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        results.setdefault(run.arm, {})[run.seed] = job.read_result(run.folder) or {"status": "never started"}
    console = Console(highlight=False)
    console.width = max(console.width, 110)  # a broken line is read more easily than a table cut off
    show(results, console)
    (folder / "table.md").write_text(as_markdown(name, results))
    write_json(folder / "results.json", as_values(name, results))
    places = [folder / "table.md", folder / "results.json"]
    try:
        draw_curves(results, runs, name, folder / "curves.png")
        places.append(folder / "curves.png")
        if draw_successes(results, runs, name, folder / "success.png"):
            places.append(folder / "success.png")
    except ImportError:
        console.print("no picture: matplotlib is not installed, pip install 'contraux[jobs]'")
    console.print(f"table, numbers, picture: {' '.join(map(str, places))}", soft_wrap=True)
    return all(result["status"] == "completed" for arm in results.values() for result in arm.values())


def draw_curves(results: Results, runs: Sequence[Run], name: str, path: Path) -> None:
    """Draw the learning curves of the completed runs."""
    curves: dict[str, list[np.ndarray]] = {}
    completed = [run for run in runs if results[run.arm][run.seed]["status"] == "completed"]
    steps = max((results[run.arm][run.seed]["taken_steps"] for run in completed), default=0)
    at = np.linspace(0, steps, 41)[1:]
    for run in completed:
        curves.setdefault(run.arm, []).append(learning_curve(*read_episodes(run.folder / "episodes.csv"), at))
    draw({arm: np.stack(own) for arm, own in curves.items()}, at, name, path)


def draw_successes(results: Results, runs: Sequence[Run], name: str, path: Path) -> bool:
    """Draw the success of evaluations, where the completed runs have some at the same steps; return whether."""
    curves: dict[str, list[np.ndarray]] = {}
    steps: list[np.ndarray] = []
    for run in runs:
        file = run.folder / "evaluations.npz"
        if results[run.arm][run.seed]["status"] == "completed" and file.exists():
            at, successes = success_curve(file)
            steps.append(at)
            curves.setdefault(run.arm, []).append(successes)
    if not steps or not len(steps[0]) or any(not np.array_equal(at, steps[0]) for at in steps):
        return False
    ylabel = "success in evaluation, %"
    draw({arm: np.stack(own) for arm, own in curves.items()}, steps[0], name, path, ylabel)
    return True


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a config below dotted keys, without those that do not change what a run does."""
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if not prefix and key in WITHOUT_EFFECT:
            continue
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return leaves
