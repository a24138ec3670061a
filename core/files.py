"""Files and folders that are always whole: written beside their place, then renamed into it."""

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED, PREVIOUS = ".unfinished", ".previous"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON, atomically."""
    unfinished = path.with_suffix(UNFINISHED)
    unfinished.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file of `write_json` holds; empty where there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def begin_folder(folder: Path) -> Path:
    """Return an empty folder beside `folder`, to be filled and then handed to `finish_folder`."""
    unfinished = folder.with_name(folder.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    return unfinished


def finish_folder(folder: Path) -> None:
    """Put what `begin_folder` began in the place of `folder`; whoever is killed meanwhile leaves one whole folder.

    A directory cannot replace another in one step, so for a moment only `folder.previous` exists: `existing` finds it.
    """
    unfinished = folder.with_name(folder.name + UNFINISHED)
    for file in unfinished.rglob("*"):
        if file.is_file():
            _flush(file)
    previous = folder.with_name(folder.name + PREVIOUS)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    unfinished.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Fill the folder it yields; it takes the place of `folder` at the end, unless something was raised."""
    unfinished = begin_folder(folder)
    yield unfinished
    finish_folder(folder)


def existing(folder: Path) -> Path | None:
    """Return the last whole state of a folder written this way, or None."""
    for found in (folder, folder.with_name(folder.name + PREVIOUS)):
        if found.is_dir():
            return found
    return None


def keep_rows(path: Path, column: str, until: int) -> None:
    """Drop the rows of a CSV whose value in a column is greater than `until`; a missing file stays missing."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    if not rows or column not in rows[0]:
        return
    index = rows[0].index(column)
    kept = [row for row in rows[1:] if len(row) == len(rows[0]) and row[index] and float(row[index]) <= until]
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([rows[0], *kept])
    unfinished.replace(path)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
