"""What encoders ask of the shape of their inputs."""

from collections.abc import Sequence

from ..check import whole


def image_shape(encoder: str, input_shape: Sequence[int], least: int = 1, hint: str = "") -> tuple[int, int, int]:
    """Return `(C, H, W)` if an encoder can read images of this shape.

    Args:
        encoder: how the sentence calls it.
        input_shape: of one example, without the batch.
        least: smallest height and width.
        hint: what else would help, at the end of the sentence about images that are too small.

    Raises:
        ValueError: no three whole numbers, or an image that is too small.
    """
    found = shape_of(encoder, input_shape)
    if len(found) != 3:
        raise ValueError(f"{encoder} reads images, input_shape must be (C, H, W), got {found}")
    channels, height, width = found
    if min(height, width) < least:
        raise ValueError(f"{encoder} needs images of at least {least} x {least} pixels, got {height} x {width}{hint}")
    return channels, height, width


def shape_of(encoder: str, input_shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return the shape as a tuple of whole numbers >= 1; a number stands for a vector of that length.

    Raises:
        ValueError: a size is not a whole number >= 1, or there is none.
    """
    sizes = tuple(input_shape) if isinstance(input_shape, Sequence) else (input_shape,)
    if not sizes:
        raise ValueError(f"input_shape of {encoder} must have at least one size, got ()")
    return tuple(whole(f"every size in input_shape of {encoder}", size, 1) for size in sizes)
