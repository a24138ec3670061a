"""Any folder of images, with a subfolder for each class or without. Shape legend: N images."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..check import choice, whole
from .pictures import Pictures
from .split import SPLITS, part
from .statistics import given

IMAGES = {
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
}  # fmt: skip
TEST_FOLDERS = ("test", "val", "validation", "valid")


def folder(
    split: str,
    *,
    path: str | Path,
    size: int = 224,
    channels: int = 3,
    test_folder: str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Pictures:
    """Return the images below a folder, decoded when they are asked for, uint8 `(C, size, size)`.

    `path/<class>/.../image.jpg` gives an image its class; images that lie in `path` itself have none (label -1).
    With `path/train` and a folder for testing beside it, those are the splits; otherwise a seed splits them, class by
    class. What is no image by its ending, and what is hidden, is left alone; links are followed.

    Args:
        split: `train` or `test`.
        path: the folder.
        size: side of the squares: shorter side resized, centre cut out.
        channels: 3 for RGB, 1 for grey.
        test_folder: the subfolder for testing; None: the first of test, val, validation, valid there is.
        test_share: of each class, in [0, 1); without effect where there are subfolders of the splits.
        seed: which images are for testing, integer >= 0; likewise.
        mean: one number a channel, images counted in [0, 1]; None: computed from training images.
        std: likewise, > 0.

    Raises:
        ValueError: no folder, no image in it, none that can be read, or a value that breaks its rule.
    """
    choice("split", split, SPLITS)
    known = given(mean, std, whole("channels", channels, 1))
    root = Path(path)
    testing = _folder_for_testing(root, test_folder)
    found = images_below(root / "train" if testing or _subfolders(root) == {"train"} else root)

    def listed(which: str) -> Listing:
        if testing is None:
            return found.rows(part(which, found.labels, test_share, seed))
        return found if which == "train" else images_below(testing, found.classes)

    load = partial(_pictures, size=size, channels=channels, known=known)
    train = load(listed("train"))
    return train if split == "train" else load(listed("test"), train=train)


class Listing:
    """The images below a folder, in the order of their names, and the class of each.

    Args:
        root: the folder.
        files: `(N,)` bytes, paths below it; in one array, which worker processes share without copying it.
        labels: `(N,)` long.
        classes: their names.
    """

    def __init__(self, root: Path, files: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
        self.root, self.files, self.labels, self.classes = root, files, labels, classes

    def path(self, index: int) -> Path:
        """Return where image `index` is."""
        return self.root / os.fsdecode(self.files[index].item())

    def name(self, index: int) -> str:
        """Return it as a sentence has it."""
        return str(self.path(index))

    def rows(self, indices: np.ndarray) -> "Listing":
        """Return some of the images."""
        return Listing(self.root, self.files[indices], self.labels[indices], self.classes)


def images_below(root: Path, classes: tuple[str, ...] = ()) -> Listing:
    """Return the images below a folder: those in `root/<class>/...` have that class, those in `root` itself none.

    Args:
        root: the folder.
        classes: those there are, in order; empty: the subfolders with images, by name.

    Raises:
        ValueError: no folder, no image, or a class that is not among `classes`.
    """
    if not root.is_dir():
        raise ValueError(f"path must be a folder of images, got {str(root)!r}, which is no folder")
    found = list(_walk(root, "", frozenset()))
    if not found:
        raise ValueError(f"path must hold images ({' '.join(sorted(IMAGES))}), got {str(root)!r}, which holds none")
    tops = [path.partition("/")[0] if "/" in path else None for path in found]
    names = sorted({top for top in tops if top is not None})
    strange = sorted(set(names) - set(classes or names))
    if strange:
        raise ValueError(f"classes for testing must be classes for training too, got {strange[0]!r} in {root}")
    numbers = {name: i for i, name in enumerate(classes or names)}
    labels = np.array([-1 if top is None else numbers[top] for top in tops])
    return Listing(root, np.array([os.fsencode(path) for path in found]), labels, tuple(numbers))


def _walk(root: Path, below: str, above: frozenset[str]) -> Iterator[str]:
    """Yield the paths of images relative to `root`, sorted; `above` are the folders one is in, against link loops."""
    here = os.path.realpath(root / below)
    if here in above:
        return
    with os.scandir(root / below) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            yield from _walk(root, path, above | {here})
        elif os.path.splitext(entry.name)[1].lower() in IMAGES:
            yield path


def _folder_for_testing(root: Path, test_folder: str | None) -> Path | None:
    names = TEST_FOLDERS if test_folder is None else (test_folder,)
    found = [root / name for name in names if (root / name).is_dir()]
    if test_folder is not None and not (found and (root / "train").is_dir()):
        raise ValueError(f"test_folder must lie beside a folder train in {str(root)!r}, got {test_folder!r}")
    return found[0] if found and (root / "train").is_dir() else None


def _subfolders(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()} if root.is_dir() else set()


def _pictures(found: Listing, **arguments: Any) -> Pictures:
    return Pictures(found.path, found.name, torch.from_numpy(found.labels), found.classes, **arguments)
