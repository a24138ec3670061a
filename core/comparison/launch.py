"""Doing the runs of a comparison that are still to be done, through Hydra's launcher."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import InstantiationException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ..files import read_json, write_json
from ..interruption import orphaned
from .plan import COMPOSED, Run, kept, plan
from .watching import Watching

Perform = Callable[[DictConfig], Any]
Report = Callable[[Path, str, Sequence[Run]], bool]


def compare(cfg: DictConfig, perform: Perform, report: Report) -> None:
    """Launch the runs that are still to be done, then report on all of them. The task of a job's Hydra main.

    Args:
        cfg: the settings of a run, and `compare` with name, folder, seeds, first_seed and arms.
        perform: does one run in Hydra's output folder and leaves its `result.json` there; a function
            of a module, for a launcher may send it to other processes.
        report: given folder, name and runs, says what came of them; returns whether all completed.

    Raises:
        ValueError: a setting of the comparison breaks its rule, or a folder was made with other settings.
        SystemExit: with 1 when runs failed, 130 when the comparison was interrupted.
    """
    own = HydraConfig.get()
    loader = GlobalHydra.instance().config_loader()
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    overrides = list(own.overrides.task)
    config = loader.load_configuration(own.job.config_name, [*own.overrides.hydra, *overrides], RunMode.RUN)
    task = partial(run_arm, perform)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)

    folder, runs = plan(cfg, overrides, own.runtime.choices)
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
    if not report(folder, cfg.compare.name, runs):
        raise SystemExit(1)


def run_arm(perform: Perform, cfg: DictConfig) -> None:
    """Do one run; what it fails with stands in its `result.json`, and the others go on.

    A worker whose parent was killed ends here, so that it does not go on with runs a new start will do.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    path = folder / "result.json"
    try:
        OmegaConf.save(cfg, folder / COMPOSED, resolve=True)
        perform(cfg)
    except Exception as error:
        if read_json(path).get("status") != "failed":  # before it could write that itself
            write_json(path, {"status": "failed", "arm": cfg.arm, "seed": cfg.seed, "error": reason_of(error)})
    if orphaned():
        os._exit(1)


def reason_of(error: BaseException) -> str:
    """Return what an error says, rid of Hydra's wrapping."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) if type(error) is ValueError else repr(error)


def compose(context: HydraContext, config: DictConfig, run: Run) -> dict[str, Any]:
    """Return the settings a run will be made with, as they will stand in its `composed.yaml`."""
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
