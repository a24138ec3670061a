"""Generated images in files: a folder of pictures or an array. Shape legend: M images, C channels, H x W size."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ...core.data.arrays import images_first
from ...core.data.folder import IMAGES, images_below
from ...core.data.mapped import Mapped, channels_last, whole_array
from ..images import as_float, class_folder, resized


class Samples(NamedTuple):
    """What was generated.

    Attributes:
        tensor: `(M, C, H, W)` float32 in [-1, 1].
        labels: `(M,)` classes asked for, -1 where none; None where nothing says any.
        notes: what a reader must know, in sentences.
    """

    tensor: Tensor
    labels: Tensor | None
    notes: tuple[str, ...] = ()


def read_samples(
    where: str | Path,
    *,
    channels: int,
    classes: Sequence[str] = (),
    size: int | None = None,
    labels: str | Path | None = None,
    layout: str | None = None,
) -> Samples:
    """Return the images of a folder, or of an `.npy` file.

    Args:
        where: a folder of PNGs or other pictures, those in a subfolder asked to be of the class it is named after, by
            name or number; or an `.npy` file of `(M, H, W)`, `(M, H, W, C)` or `(M, C, H, W)` images, uint8 or floats
            in [-1, 1].
        channels: that the data have: pictures are read as grey (1) or RGB (3).
        classes: of the data.
        size: to which images of another size are resized; None: all must have one size.
        labels: an `.npy` file of the classes asked for, `(M,)` integers, < 0 for none; for an array alone.
        layout: of an array, `channels_first` or `channels_last`; None: as the shape tells.

    Raises:
        ValueError: no such file, files of another kind, or values out of range.
    """
    path = Path(where)
    if path.is_dir():
        if labels is not None:
            raise ValueError(f"labels belong to an array, and the folder {path} has them as subfolders")
        return _folder(path, channels, classes, size)
    if not path.exists():
        raise ValueError(f"samples must be a folder of pictures or an .npy file, and {str(path)!r} is not there")
    if path.suffix.lower() in IMAGES:
        raise ValueError(f"samples must be a folder of pictures or an .npy file, not one picture, got {str(path)!r}")
    array = Mapped(path).array
    if array.ndim not in (3, 4) or len(array) == 0:
        raise ValueError(f"samples must be (M, H, W), (M, H, W, C) or (M, C, H, W), got {array.shape} in {str(path)!r}")
    read = images_first(np.array(array), channels_last(array.shape[1:], layout))
    images, notes = _floats(read, path)
    asked = None if labels is None else torch.from_numpy(whole_array(Path(labels)))
    if asked is not None and (asked.is_floating_point() or asked.shape != images.shape[:1]):
        raise ValueError(f"labels must be {len(images)} whole numbers, got {tuple(asked.shape)} {asked.dtype}")
    return Samples(resized(images, size), None if asked is None else asked.long(), notes)


def _folder(root: Path, channels: int, classes: Sequence[str], size: int | None) -> Samples:
    found = images_below(root)
    numbers = {name: label for label in range(len(classes)) for name in (str(label), class_folder(label, classes))}
    numbers |= {name: label for label, name in enumerate(classes)}
    strange = [name for name in found.classes if name not in numbers]
    if strange and classes:
        raise ValueError(
            f"subfolders must have the names or numbers of classes, {', '.join(classes)}, got {strange[0]!r}"
        )
    pictures = [_picture(found.path(i), channels, size) for i in range(len(found.labels))]
    other = next((i for i, picture in enumerate(pictures) if picture.shape != pictures[0].shape), None)
    if other is not None:
        raise ValueError(
            f"samples must have one size, or size=N be given, got {tuple(pictures[0].shape[1:])} and "
            f"{tuple(pictures[other].shape[1:])} in {found.path(other)}"
        )
    asked = [-1 if label < 0 or not classes else numbers[found.classes[label]] for label in found.labels.tolist()]
    known = any(label >= 0 for label in asked)
    return Samples(torch.stack(pictures), torch.tensor(asked) if known else None)


def _picture(path: Path, channels: int, size: int | None) -> Tensor:
    try:
        with Image.open(path) as opened:
            pixels = np.array(opened.convert("L" if channels == 1 else "RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ValueError(f"samples must be pictures, and {path} cannot be read: {error}") from error
    return resized(as_float(images_first(pixels[None], pixels.ndim == 3)), size)[0]


def _floats(images: Tensor, path: Path) -> tuple[Tensor, tuple[str, ...]]:
    if not images.is_floating_point():
        return as_float(images), ()
    low, high = float(images.min()), float(images.max())
    if not (-1.001 <= low and high <= 1.001):
        raise ValueError(f"float images must lie in [-1, 1], got [{low:g}, {high:g}] in {str(path)!r}: or save uint8")
    note = f"all values of {path.name} lie in [0, 1]: floats are read as [-1, 1], so save uint8 if they are not"
    return as_float(images), (note,) if low >= 0 else ()
