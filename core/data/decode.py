"""From the file of an image to its pixels. Shape legend: C channels, S size of the square."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes each EXIF orientation
DIRECT = {1: ("L",), 3: ("L", "RGB", "YCbCr", "CMYK")}  # modes to resize in; others are converted first


def decode(file: Path | BinaryIO, size: int, channels: int = 3) -> np.ndarray:
    """Return the central square of an image, resized to `(C, S, S)` uint8.

    The shorter side becomes `size`, averaging over what a new pixel covers (PIL's bilinear filter, which is a triangle
    of the new pixel's width); JPEGs are decoded at a half, a quarter or an eighth where that is still as large. What
    is transparent becomes white, grey levels of 16 bits and floats are scaled to 8 bits, the EXIF orientation is
    applied, and of an animation the first frame counts.

    Args:
        file: a path, or an open binary file.
        size: integer >= 1.
        channels: 3 for RGB, 1 for grey.

    Raises:
        Exception: of many types, where the file is no image or is damaged.
    """
    mode = "RGB" if channels == 3 else "L"
    with Image.open(file) as opened:
        opened.draft(mode, (size, size))
        opened.load()  # first: PIL turns TIFFs itself, and a PNG may note its orientation after the pixels
        turn = TURNS.get(_orientation(opened))
        image = _plain(opened, DIRECT[channels])
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        square = image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    square = square if square.mode == mode else square.convert(mode)
    pixels = np.asarray(square if turn is None else square.transpose(turn))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _plain(image: Image.Image, direct: tuple[str, ...]) -> Image.Image:
    """Return an opaque image in one of the modes `direct`."""
    if image.mode in direct and "transparency" not in image.info:
        return image
    if image.mode[:1] in ("I", "F"):
        return _scaled(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        image = Image.alpha_composite(white, seen)
    return image.convert(direct[-1] if direct == ("L",) else "RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Return grey levels of more than 8 bits as 8 bits: 16-bit ones / 257, floats up to 1 times 255."""
    levels = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        levels = levels * 255 if levels.max() <= 1 else levels
    elif image.mode != "I" or levels.max() > 255:  # mode I holds 8 bits as well
        levels = levels / 257
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata, of which PIL raises many kinds: the pixels may be fine
        return 1
