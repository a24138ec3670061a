"""`contraux evaluate`: say what pretrained encoders are worth. `configs/evaluate.yaml` describes what it reads."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import hydra.utils
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits
from torch import nn

from ..check import choice, whole
from ..data.protocol import DataFactory, DataSet
from ..files import write_json
from ..provenance import versions
from .baselines import RawInputs, calibrate
from .checkpoints import Checkpoint, check_shapes, data_of, load, untrained, views_of
from .evaluate import Arm, Comparison, compare, steps
from .picture import METHODS, draw
from .report import as_markdown, as_values, show, spread_of
from .subject import Measure

RANDOM, RAW = "random, calibrated", "raw inputs"


def main(cfg: DictConfig) -> None:
    """Evaluate what the config describes, write the report, and print it.

    Raises:
        ValueError: a value breaks its rule; the sentence says which.
    """
    if OmegaConf.is_missing(cfg, "checkpoint") or not cfg.checkpoint:
        raise ValueError("checkpoint must be given: checkpoint=FOLDER, or several, checkpoint=[A,B,C]")
    several = isinstance(cfg.checkpoint, ListConfig)
    checkpoints = [load(str(where)) for where in (cfg.checkpoint if several else [cfg.checkpoint])]
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing} must be given: {missing}=…")
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
        threadpool_limits(cfg.threads)  # NumPy's and scikit-learn's own
    if cfg.picture is not None:
        choice("picture", cfg.picture, METHODS)
    perform(
        checkpoints,
        None if cfg.data is None else hydra.utils.instantiate(cfg.data, _convert_="all"),
        measures={
            str(name): hydra.utils.instantiate(node, _convert_="all")
            for name, node in cfg.measures.items()
            if node is not None
        },
        seeds=seeds_of(checkpoints, cfg.seeds, cfg.first_seed),
        random=switch("random", cfg.random),
        raw=switch("raw", cfg.raw),
        folder=folder_for([checkpoint.where for checkpoint in checkpoints], cfg.folder),
        settings=cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True)),
        picture=cfg.picture,
        trusted=switch("trusted", cfg.trusted),
        device=device_named(cfg.device),
        batch_size=whole("batch_size", cfg.batch_size, 2),
        workers=whole("workers", cfg.workers),
        progress_bar=sys.stderr.isatty() if cfg.progress_bar is None else switch("progress_bar", cfg.progress_bar),
    )


def perform(
    checkpoints: Sequence[Checkpoint],
    data: DataFactory | None,
    *,
    measures: Mapping[str, Measure],
    seeds: Sequence[int],
    random: bool,
    raw: bool,
    folder: Path,
    settings: Mapping[str, Any],
    picture: str | None,
    trusted: bool,
    device: torch.device,
    batch_size: int,
    workers: int,
    progress_bar: bool,
) -> Comparison:
    """Compare the checkpoints with their baselines, and leave `evaluation.json`, `table.md` and `embedding.png`."""
    begun = time.perf_counter()
    make = data_of(checkpoints, trusted=trusted) if data is None else data
    train, test = make(split="train"), make(split="test")
    for split in (train, test):
        check_shapes(checkpoints, split)
    same: dict[str, Any] = {"batch_size": batch_size, "device": device, "workers": workers}
    arms = arms_of(checkpoints, seeds, train, random=random, raw=raw, **same)
    with progress(steps(arms, measures, seeds), progress_bar) as tell:
        found = compare(
            arms, train, test, measures=measures, seeds=seeds, tell=tell,
            views=views_of(checkpoints[0], trusted=trusted), **same,
        )  # fmt: skip
    found = Comparison(found.figures, [*spread_of(len(checkpoints), len(seeds)), *found.notes], found.embeddings)
    reference = next((name for name in (RANDOM, RAW) if name in arms), None)
    values = {
        "checkpoints": [checkpoint.where for checkpoint in checkpoints],
        "seeds": list(seeds),
        **as_values(found),
        "data": {"train": len(train), "test": len(test), "shape": list(train.shape), "classes": list(train.classes)},
        "seconds": round(time.perf_counter() - begun, 3),
        "device": str(device),
        "settings": dict(settings),
        "versions": versions(),
    }
    write(found, values, folder, reference, picture, train)
    return found


def write(
    found: Comparison,
    values: Mapping[str, Any],
    folder: Path,
    reference: str | None,
    picture: str | None,
    data: DataSet,
) -> None:
    """Write the report into the folder, and print it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", values)
    title = f"Evaluation of {', '.join(values['checkpoints'])}"
    (folder / "table.md").write_text(as_markdown(found, reference, title), encoding="utf-8")
    places = [folder / "evaluation.json", folder / "table.md"]
    console = Console(highlight=False)
    console.width = max(console.width, 140)  # a broken line is read more easily than a table cut off
    show(found, reference, console)
    if picture is not None:
        shown = {name: rows for name, rows in found.embeddings.items() if name != RAW}
        try:
            draw(shown, folder / "embedding.png", method=picture, classes=data.classes)
            places.append(folder / "embedding.png")
        except ImportError:
            console.print("no picture: matplotlib is not installed, pip install 'contraux[jobs]'")
    console.print(f"numbers, table, picture: {' '.join(map(str, places))}", soft_wrap=True)


def arms_of(
    checkpoints: Sequence[Checkpoint], seeds: Sequence[int], train: DataSet, *, random: bool, raw: bool, **same: Any
) -> dict[str, Arm]:
    """Return the checkpoints, one a seed or one for all, and what they are compared with."""
    by_seed = dict(zip(seeds, checkpoints, strict=True)) if len(checkpoints) > 1 else dict.fromkeys(seeds, *checkpoints)

    def calibrated(seed: int) -> nn.Module:
        try:
            encoder = untrained(by_seed[seed])(seed)
        except ValueError as error:
            raise ValueError(f"{error}; random=false goes without random encoders") from error
        return calibrate(encoder, train, seed=seed, **same)

    arms = {"checkpoint": Arm(lambda seed: by_seed[seed].encoder, len(checkpoints) == 1)}
    if random:
        arms[RANDOM] = Arm(calibrated, False)
    if raw:
        arms[RAW] = Arm(lambda _: RawInputs(), True)
    return arms


def seeds_of(checkpoints: Sequence[Checkpoint], seeds: Any, first_seed: Any) -> list[int]:
    """Return the seeds to evaluate with: one checkpoint has `seeds` of them, of several each has its own.

    Raises:
        ValueError: a number out of range, or the same checkpoint twice.
    """
    count, first = whole("seeds", seeds, 1), whole("first_seed", first_seed)
    if len(checkpoints) == 1:
        return list(range(first, first + count))
    places = [os.path.realpath(checkpoint.where) for checkpoint in checkpoints]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise ValueError(f"checkpoints must differ, got {twice} twice")
    own = [checkpoint.seed for checkpoint in checkpoints]
    if None in own or len(set(own)) < len(own):
        return list(range(first, first + len(checkpoints)))
    return cast("list[int]", own)


def folder_for(checkpoints: Sequence[str], folder: str | None) -> Path:
    """Return where the report is written."""
    if folder is not None:
        return Path(folder)
    if len(checkpoints) == 1 and Path(checkpoints[0]).is_dir():
        return Path(checkpoints[0]) / "evaluation"
    return Path("runs") / "evaluate" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def switch(name: str, value: Any) -> bool:
    """Return a setting that is on or off; Hydra reads `no` and `off` as text.

    Raises:
        ValueError: for example `random must be true or false, got 'no'`.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


def device_named(name: str) -> torch.device:
    """Return the device; `auto` is a GPU where there is one.

    Raises:
        ValueError: torch has no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device must be auto, cpu or another that torch finds here, got {name!r}") from error
    return device


@contextmanager
def progress(total: int, shown: bool) -> Iterator[Callable[[str], None]]:
    """Yield what is told each step before it begins, and shows a bar of them on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("evaluate", total=total)
        begun = 0

        def tell(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, completed=begun)
            begun += 1

        yield tell
        bar.update(task, description="evaluated", completed=total)
