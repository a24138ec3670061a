"""`contraux record`: frames of a random policy as a data set. `configs/record.yaml` describes what it reads and writes.

Shape legend: T frames, H x W size, C channels.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm.rich import tqdm

from ..core.check import whole
from ..core.data.area import grey, resize_by_area
from ..core.data.growing import Growing
from ..core.files import UNFINISHED, whole_folder, write_json
from ..core.interruption import INTERRUPTED, Interruption
from ..core.provenance import versions
from .environments import Factory
from .player import Player
from .recorded import show


def main(cfg: DictConfig) -> None:
    """Record what the config describes, and print what came of it.

    Raises:
        ValueError: a value breaks its rule, or the environment shows no images; the sentence says which.
        SystemExit: with code 130 when SIGINT or SIGTERM ended the recording, after it was written.
    """
    for missing in sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing} must be given: {missing}=…")
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    env, folder = plain["env"], Path(HydraConfig.get().runtime.output_dir)
    id = hydra.utils.instantiate(env["id"]) if isinstance(env["id"], dict) else env["id"]
    settings = {key: plain[key] for key in ("steps", "seed", "size", "grayscale", "frame_skip", "progress_bar")}
    try:
        summary = record(id, folder, kwargs=env["kwargs"], **settings)
    except BaseException:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # Hydra made it
        raise
    show(folder, summary)
    if summary["status"] == "interrupted":
        raise SystemExit(INTERRUPTED)


def record(
    id: str | Factory,
    folder: str | Path,
    *,
    steps: int = 10_000,
    seed: int = 0,
    size: int | Sequence[int] | None = None,
    grayscale: bool = False,
    frame_skip: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
    progress_bar: bool | None = False,
) -> dict[str, Any]:
    """Play a random policy and write what it sees into a folder, for :func:`contraux.core.data.frames` to read.

    Image observations (uint8, two or three axes) are recorded as they are, otherwise what the environment renders. The
    folder has `frames.npy` `(T, H, W, C)` uint8, `episodes.npy` `(T,)`, `actions.npy` and `rewards.npy` `(T, ...)`, and
    `record.json`; `ram.npy` `(T, 128)` where there is an Atari emulator; `observations.npy` `(T, D)` where observations
    are not images. Frame t is what was seen before action t; what an episode ends with is not recorded. SIGINT or
    SIGTERM ends the recording, and keeps what there is; an error keeps nothing. A second signal leaves
    it as it is in `<folder>.unfinished`.

    Args:
        id: a Gymnasium id, or a callable that returns an environment.
        folder: new or empty.
        steps: T, integer >= 1.
        seed: of environment and actions, integer >= 0.
        size: height and width, or one number for both; each new pixel is the mean of the area it covers.
        grayscale: whether frames become grey.
        frame_skip: how often each action is repeated; of Atari's frames the last two are combined by their maximum,
            since some games draw an object in every other frame only. None: 4 for Atari, 1 for others.
        kwargs: what the environment itself takes.
        progress_bar: None: on a terminal.

    Returns:
        What `record.json` holds.

    Raises:
        ValueError: a value breaks its rule, or the environment shows no images.
    """
    whole("steps", steps, 1)
    whole("seed", seed)
    if frame_skip is not None:
        whole("frame_skip", frame_skip, 1)
    shape, folder = _size(size), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"folder must be new or empty, got {str(folder)!r}, which is in use")
    player = Player(id, kwargs or {}, seed, frame_skip)
    stop, begun = Interruption(), time.perf_counter()
    shown = os.isatty(2) if progress_bar is None else progress_bar
    try:
        with stop.listening(), whole_folder(folder) as unfinished:
            with tqdm(total=steps, unit=" frames", unit_scale=True, disable=not shown) as bar:
                found = _write(unfinished, player, steps, stop, bar.update, shape, grayscale)
            summary = {
                "status": "completed" if stop.reason is None else "interrupted",
                "by": stop.reason,
                "env": id if isinstance(id, str) else getattr(id, "__qualname__", str(id)),
                "kwargs": {key: repr(value) for key, value in (kwargs or {}).items()},
                "seed": seed,
                "frame_skip": player.skip,
                "source": "rendered" if player.renders else "observations",
                **found,
                "frames_per_second": round(found["frames"] / (time.perf_counter() - begun), 1),
                "versions": versions(),
            }
            write_json(unfinished / "record.json", summary)
    except Exception:
        shutil.rmtree(folder.with_name(folder.name + UNFINISHED), ignore_errors=True)
        raise
    finally:
        player.close()
    return summary


def _write(
    folder: Path,
    player: Player,
    steps: int,
    stop: Interruption,
    advance: Callable[[int], Any],
    size: tuple[int, int] | None,
    grayscale: bool,
) -> dict[str, Any]:
    """Write up to `steps` rows of every file, at least one, and return what there is to say about them."""
    columns: dict[str, Growing] = {}
    returns: list[float] = []
    current = 0.0
    with ExitStack() as files:
        for _ in range(steps):
            row: dict[str, Any] = player.see()
            image = grey(row["frames"]) if grayscale else row["frames"]
            row["frames"] = image if size is None else resize_by_area(image, size)
            row["episodes"] = np.int64(len(returns))
            row["actions"], reward, ended = player.act()
            row["rewards"] = np.float64(reward)
            for name, value in row.items():
                if name not in columns:
                    columns[name] = files.enter_context(Growing(folder / f"{name}.npy", value.shape, value.dtype))
                columns[name].append(value)
            current += reward
            if ended:
                returns, current = [*returns, current], 0.0
            advance(1)
            if stop.look() is not None:
                break
    return {
        "frames": columns["frames"].rows,
        "shape": list(columns["frames"].shape),
        "files": sorted(columns),
        "finished_episodes": len(returns),
        "mean_return": float(np.mean(returns)) if returns else None,
        "bytes": sum((folder / f"{name}.npy").stat().st_size for name in columns),
    }


def _size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = list(size) if isinstance(size, Sequence) and not isinstance(size, str) else [size, size]
    if len(pair) != 2:
        raise ValueError(f"size must be one whole number, or height and width, got {size!r}")
    height, width = (whole("size", side, 1) for side in pair)
    return height, width
