"""What `contraux record` says of a recording it made, and how to train an encoder on it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..core.data.split import episodes_part

BATCH = 256  # configs/pretrain.yaml
TEST_SHARE, SPLIT_SEED = 0.2, 0  # configs/data/frames.yaml
AS_AGENTS_SEE_ATARI = [84, 84, 1]
NATURE, SMALL_CNN = 36, 4  # smallest sides of images that these encoders take


def show(folder: Path, summary: Mapping[str, Any]) -> None:
    """Print what was recorded and how to train on it."""
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    early = "" if summary["by"] is None else f", stopped by {summary['by']}"
    mean = "" if summary["mean_return"] is None else f", mean return {summary['mean_return']:.1f}"
    rows = {
        "environment": f"{summary['env']}, each action {summary['frame_skip']} times, {summary['source']}",
        "frames": f"{summary['frames']} of {' x '.join(map(str, summary['shape']))}{early}",
        "finished episodes": f"{summary['finished_episodes']}{mean}",
        "speed": f"{summary['frames_per_second']:.0f} frames/s",
        "size": f"{summary['bytes'] / 1e6:.1f} MB: {', '.join(summary['files'])}",
        "folder": str(folder),
        "next": pretraining(folder, summary),
    }
    if is_atari(summary) and summary["shape"] != AS_AGENTS_SEE_ATARI:
        rows["for contraux rl"] = "record with size=84 grayscale=true, which is what its agents see of Atari"
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 40 + len(rows["next"]))  # a path that is cut off is of no use
    console.print(table)


def pretraining(folder: Path, summary: Mapping[str, Any]) -> str:
    """Return a line of the command line that pretrains on this recording: one that runs, on a CPU too.

    Frames as agents see an Atari game are stacked as theirs are, for `NatureCNN`, which is the encoder of such agents;
    others have no partner to suit, and get a small encoder that takes them. A short recording is not split, or is
    trained on in smaller batches.

    Args:
        folder: that of the recording, with its `episodes.npy`.
        summary: its `record.json`.
    """
    words = ["data=frames", f"data.path={folder}"]
    if is_atari(summary) and summary["shape"] == AS_AGENTS_SEE_ATARI:
        words.append("data.frame_stack=4")
    side = min(summary["shape"][:2])
    if side >= SMALL_CNN:
        words.append("encoder=nature" if side >= NATURE else "encoder=small_cnn")
    numbers, episodes = np.unique(np.load(folder / "episodes.npy", allow_pickle=False), return_inverse=True)
    training = len(episodes)
    if len(numbers) > 1:
        training = int(np.isin(episodes, episodes_part("train", len(numbers), TEST_SHARE, SPLIT_SEED)).sum())
    else:
        words.append("data.test_share=0")
    if training < BATCH:
        words.append(f"batch_size={training}")
    return f"contraux pretrain {shlex.join(words)}"


def is_atari(summary: Mapping[str, Any]) -> bool:
    """Return whether an Atari emulator was recorded."""
    return "ram" in summary["files"]
