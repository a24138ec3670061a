"""Images as generators make them: floats in [-1, 1], resized once. Shape legend: N images, C channels, H x W size."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid

from ..core.check import shape, whole
from ..core.data.protocol import DataSet

CHUNK = 1024  # images read and resized at a time
SAFE = re.compile(r"\w[\w. -]*")  # names that can be a folder's


class Images(NamedTuple):
    """A whole data set as a generator sees it.

    Attributes:
        tensor: `(N, C, H, W)` float32 in [-1, 1].
        labels: `(N,)` long classes, -1 where unknown.
        classes: names of the classes; label i is `classes[i]`. Empty without labels.
    """

    tensor: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def images_of(data: DataSet, size: int | None = None) -> Images:
    """Return all images of a data set, resized once, in the order of their indices.

        x = 2 resize(u / 255) - 1, with bicubic interpolation and antialiasing, clamped to [-1, 1]

    An image that is not square is cut to its middle after its shorter side has got `size` pixels. All of it is held in
    memory: 50,000 colour images of 32 x 32 are 614 MB.

    Args:
        data: a data set of images.
        size: side of the squares, >= 1; None leaves images as they are.

    Raises:
        ValueError: vectors instead of images, no examples, or a size out of range.
    """
    if len(data.shape) != 3:
        raise ValueError(f"data must be images (C, H, W), got examples of shape {tuple(data.shape)}")
    if len(data) == 0:
        raise ValueError("data must have at least 1 image, got 0")
    parts, labels = [], []
    for start in range(0, len(data), CHUNK):
        batch = data.__getitems__(range(start, min(start + CHUNK, len(data))))
        parts.append(resized(as_float(batch.inputs), size))
        labels.append(batch.labels if batch.labels.ndim == 1 else torch.full((len(batch.labels),), -1))
    return Images(torch.cat(parts), torch.cat(labels).long(), tuple(data.classes))


def resized(images: Tensor, size: int | None) -> Tensor:
    """Return float images `(N, C, size, size)` in [-1, 1] of `(N, C, H, W)`: bicubic, antialiased, the middle cut out.

    Raises:
        ValueError: a size out of range.
    """
    if size is None:
        return images
    size = whole("size", size, 1)
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    short = min(height, width)
    sizes = [max(size, round(side * size / short)) for side in (height, width)]
    found = functional.interpolate(images, sizes, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    top, left = ((side - size) // 2 for side in sizes)
    return found[..., top : top + size, left : left + size].contiguous()


def as_float(images: Tensor) -> Tensor:
    """Return images as float32 in [-1, 1]: uint8 are rescaled, floats are taken to be in that range already.

    Raises:
        ValueError: integers other than uint8.
    """
    if images.is_floating_point():
        return images.float()
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 in [0, 255] or floats in [-1, 1], got {images.dtype}")
    return images.float() / 127.5 - 1


def as_uint8(images: Tensor) -> Tensor:
    """Return images as uint8: floats in [-1, 1] are clamped, rescaled and rounded, uint8 stay as they are.

    Raises:
        ValueError: integers other than uint8.
    """
    if images.dtype == torch.uint8:
        return images
    return as_float(images).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def save_grid(images: Tensor, path: str | Path, columns: int | None = None) -> None:
    """Write images as one PNG, row by row, a pixel of black between them.

    Args:
        images: `(N, C, H, W)` uint8 or floats in [-1, 1]; C is 1 or 3.
        path: of the file; folders above it are made.
        columns: images in a row, >= 1; None makes about a square.

    Raises:
        ValueError: images of another kind, or a number out of range.
    """
    _drawable(images)
    columns = int(len(images) ** 0.5 + 0.999) if columns is None else whole("columns", columns, 1)
    _write(make_grid(as_uint8(images).cpu(), nrow=columns, padding=1), Path(path))


def save_pngs(
    images: Tensor, folder: str | Path, labels: Tensor | None = None, classes: Sequence[str] = (), first: int = 0
) -> None:
    """Write each image as a PNG `00000.png`, ..., those with a label in the subfolder of their class.

    That is what `contraux score samples=FOLDER` reads, and `data=folder`.

    Args:
        images: `(N, C, H, W)` uint8 or floats in [-1, 1]; C is 1 or 3.
        folder: is made where it does not exist; other files in it are left alone.
        labels: `(N,)` long, or None; an image with a label < 0 is put into the folder itself.
        classes: names of the subfolders; a class without a usable name has its number.
        first: the first image's number, so that several calls can fill one folder.

    Raises:
        ValueError: images of another kind, or labels that are not one an image.
    """
    _drawable(images)
    if labels is not None and labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be one an image, {len(images)}, got {shape(labels)}")
    numbers = [-1] * len(images) if labels is None else labels.tolist()
    for i, (image, label) in enumerate(zip(as_uint8(images).cpu(), numbers, strict=True), start=first):
        below = Path(folder) if label < 0 else Path(folder) / class_folder(label, classes)
        _write(image, below / f"{i:05d}.png")


def class_folder(label: int, classes: Sequence[str] = ()) -> str:
    """Return the name of a class's subfolder: its name where that can be one, otherwise its number."""
    name = classes[label] if label < len(classes) else ""
    return name if SAFE.fullmatch(name) else str(label)


def _drawable(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must be (N, 1 or 3, H, W), N >= 1, to be drawn, got {shape(images)}")


def _write(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(unfinished, format="PNG")
    unfinished.replace(path)
