"""`contraux probe`: what an encoder's features say of the state behind a frame. `configs/probe.yaml` describes it."""

import importlib.util
import json
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import hydra.utils
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from stable_baselines3.common.vec_env import VecEnv
from tqdm.rich import tqdm

from ...core.check import whole
from ...core.files import write_json
from ...core.provenance import versions
from ..environments import check_id, register_atari
from ..job import derived_seed
from .arms import Arm, read_arms
from .cell import Bench, Data
from .encoder_folder import save_encoder
from .picture import draw
from .probe import Probe
from .recording import Recording, record
from .report import Results, as_markdown, as_values, collect, show
from .saved import load_policy
from .split import split, varying
from .train import Supervised, Training


class Place(NamedTuple):
    """One environment with one seed.

    Attributes:
        env: its name in tables and folders.
        id: its Gymnasium id.
        make: makes its environments from a seed.
        seed: of everything random.
    """

    env: str
    id: str
    make: Callable[..., VecEnv]
    seed: int


class Cell(NamedTuple):
    """One encoder at one place, with where its figures are and what they were made with."""

    place: Place
    arm: Arm
    file: Path
    settings: dict[str, Any]


def main(cfg: DictConfig) -> None:
    """Do what is not done yet, and report on everything.

    Raises:
        ValueError: a value breaks its rule, or the folder has figures of other settings; the sentence says which.
        SystemExit: with 130 when interrupted.
    """
    if cfg.threads is not None:
        torch.set_num_threads(whole("threads", cfg.threads, 1))
    folder = Path(cfg.folder)
    try:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise ValueError("probe repeats by itself, got -m: give games=[…], encoders=[…] and seeds=N")
        cells = plan(cfg, folder)
        bench = make_bench(cfg)
        reference = str(cfg.reference)
        names = list(dict.fromkeys(cell.arm.name for cell in cells))
        if reference not in names:
            raise ValueError(f"reference must be one of the encoders, {', '.join(names)}, got {reference!r}")
        todo = [cell for cell in cells if not finished(cell)]
    except BaseException:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # Hydra made it
        raise
    console = Console()
    if len(todo) < len(cells):
        console.print(f"{len(cells) - len(todo)} of {len(cells)} probes are done already, in {folder}")
    if todo:
        write_json(folder / "versions.json", versions())
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    try:
        _work(cfg, bench, todo, folder)
    except KeyboardInterrupt:
        console.print(f"stopped; the same command with folder={folder} goes on where this one ended", soft_wrap=True)
        write_report(folder, cells, reference)
        raise SystemExit(130) from None
    show(cast(Results, write_report(folder, cells, reference)), console)
    console.print(f"table: {folder / 'table.md'}", soft_wrap=True)


def _work(cfg: DictConfig, bench: Bench, todo: list[Cell], folder: Path) -> None:
    shown = os.isatty(2) if cfg.progress_bar is None else cfg.progress_bar
    data: dict[Place, Data] = {}
    with tqdm(total=len(todo), unit=" probes", disable=not shown) as bar:
        for cell in todo:
            place = cell.place
            bar.set_description(f"{place.env}, seed {place.seed}, {cell.arm.name}")
            if place not in data:
                data = {place: prepare(cfg, place, bench.device)}  # one at a time in memory
            found, encoder = bench.run(cell.arm, data[place], place.seed)
            cell.file.parent.mkdir(parents=True, exist_ok=True)
            if cfg.save_encoders:
                save_encoder(encoder, cell.file.with_suffix(""), {"arm": cell.arm.name, "env": place.id})
            own = {"env": place.env, "arm": cell.arm.name, "seed": place.seed}
            write_json(cell.file, {**own, **found, "data": facts(data[place]), "settings": cell.settings})
            bar.update(1)


def plan(cfg: DictConfig, folder: Path) -> list[Cell]:
    """Return all cells of a comparison, seed by seed, so that an interruption leaves whole pairs.

    Raises:
        ValueError: no such game or encoder, a missing key, or a number out of range.
    """
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        if not (missing == "env.id" and cfg.games):
            raise ValueError(f"{missing} must be given: {missing}=…")
    first = whole("first_seed", cfg.first_seed)
    seeds = range(first, first + whole("seeds", cfg.seeds, 1))
    arms = read_arms(_plain(cfg.encoders), _plain(cfg.baselines), seeds)
    shared = _shared(cfg)
    places = [place for seed in seeds for place in _places(cfg, seed)]
    return [
        Cell(
            place,
            arm,
            folder / "cells" / place.env / arm.name / f"seed_{place.seed}.json",
            {"id": place.id, **shared, **_own(cfg, arm), **arm.settings(place.seed)},
        )
        for place in places
        for arm in arms
    ]


def _places(cfg: DictConfig, seed: int) -> list[Place]:
    ids = [_game_id(str(game)) for game in cfg.games] if cfg.games else [cfg.env.id]
    places = []
    for id in ids:
        make = hydra.utils.instantiate({**cfg.env, "id": id}, _convert_="all")
        name = id if isinstance(id, str) else str(getattr(make.keywords["id"], "__name__", "environment"))
        places.append(Place(re.sub(r"[^\w.-]", "_", name.removeprefix("ALE/")), name, make, seed))
    return places


def _game_id(game: str) -> str:
    """Return `ALE/Pong-v5` for `Pong` or itself."""
    register_atari()
    id = game if "/" in game else f"ALE/{game}-v5"
    check_id(id)
    return id


def _shared(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that all figures of a folder have in common."""
    names = ("labels", "frames", "player", "epsilon", "shares", "min_entropy", "layer", "features_dim", "probe")
    env = {key: value for key, value in _plain(cfg.env).items() if key != "id"}
    return json.loads(json.dumps({"env": env, **{name: _plain(cfg[name]) for name in names}}, default=str))


def _own(cfg: DictConfig, arm: Arm) -> dict[str, Any]:
    """Return the settings that matter to one kind of encoder only."""
    names = {"objective": ("train",), "supervised": ("supervised",), "pixels": ("pixels",), "saved": ("role",)}
    return {name: _plain(cfg[name]) for name in names.get(arm.kind, ())}


def finished(cell: Cell) -> bool:
    """Return whether a cell's figures are there.

    Raises:
        ValueError: they are, but of other settings.
    """
    if not cell.file.exists():
        return False
    found = json.loads(cell.file.read_text(encoding="utf-8"))["settings"]
    if found != cell.settings:
        differing = [key for key in {**found, **cell.settings} if found.get(key) != cell.settings.get(key)]
        raise ValueError(
            f"{cell.file} was made with another {', '.join(differing)}: give another folder, or remove that file"
        )
    return True


def make_bench(cfg: DictConfig) -> Bench:
    """Return the bench that a config describes; ValueError where a number is out of range."""
    device = (
        "cuda" if cfg.device == "auto" and torch.cuda.is_available() else "cpu" if cfg.device == "auto" else cfg.device
    )
    return Bench(
        probe=Probe(**_plain(cfg.probe)),
        training=Training(**_plain(cfg.train)),
        supervised=Supervised(**_plain(cfg.supervised)),
        layer=cfg.layer,
        role=cfg.role,
        features_dim=whole("features_dim", cfg.features_dim, 1),
        pixels=whole("pixels", cfg.pixels, 1),
        device=device,
    )


def prepare(cfg: DictConfig, place: Place, device: str) -> Data:
    """Record frames with labels, split them, and choose the variables.

    Raises:
        ValueError: see `record`, `split` and `varying`.
    """
    agent = None if str(cfg.player) == "random" else load_policy(str(cfg.player), device).policy
    playing = {"agent": agent, "epsilon": cfg.epsilon, "device": device}
    seed = derived_seed(place.seed, "probe")
    recording = record(place.make, place.id, frames=cfg.frames, seed=seed, labels=str(cfg.labels), **playing)
    parts = split(recording.episode, recording.frame, **_plain(cfg.shares), seed=seed)
    train, test = recording.labels[parts.train], recording.labels[parts.test]
    kept = varying(recording.variables, train, test, cfg.min_entropy)

    labels = str(cfg.labels) if str(cfg.labels).startswith("observation.") else None  # then it must not be seen here

    @cache
    def unlabelled() -> Recording:
        own = derived_seed(place.seed, "probe training")
        return record(place.make, place.id, frames=cfg.train.frames, seed=own, labels=labels, **playing)

    return Data(recording, parts, kept, unlabelled)


def facts(data: Data) -> dict[str, Any]:
    """Return what there is to say of the frames."""
    parts, kept = data.split, data.kept
    return {
        "frames": [len(parts.train), len(parts.validation), len(parts.test)],
        "episodes": list(parts.episodes),
        "duplicates": list(parts.duplicates),
        "variables": [data.recording.variables[column].name for column in kept.columns],
        "dropped": {name: round(nats, 4) for name, nats in kept.dropped.items()},
        "constant": kept.constant,
    }


def write_report(folder: Path, cells: list[Cell], reference: str) -> Results | None:
    """Write `results.json`, `table.md` and `probes.png` of what is finished; None where nothing is."""
    done = [json.loads(cell.file.read_text(encoding="utf-8")) for cell in cells if cell.file.exists()]
    if not done:
        return None
    results = collect(done, reference)
    write_json(folder / "results.json", as_values(results))
    (folder / "table.md").write_text(as_markdown(results), encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is not None:
        draw(results, folder / "probes.png")
    return results


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
