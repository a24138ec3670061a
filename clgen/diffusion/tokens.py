"""Two feature maps as tokens at the same places. Shape legend: B images, T tokens, D and E feature dimensions."""

import torch.nn.functional as F
from torch import Tensor

from ...core.check import shape


def matched_tokens(student: Tensor, teacher: Tensor, aspect: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return `(B, T, D)` and `(B, T, E)` tokens, of which one and the same place of the image has the same index.

    The teacher's are resized to the student's grid, bilinearly, with antialiasing where they are finer. Where either
    side is one vector for the whole image, the other one becomes the mean of its tokens, and T = 1.

    Args:
        student: map `(B, D, h, w)`, tokens `(B, T, D)` row by row, or vectors `(B, D)`.
        teacher: likewise of dimension E.
        aspect: height of the image over its width, by which tokens are put on a grid.

    Raises:
        ValueError: tokens that fill no grid of this aspect.
    """
    if student.ndim == 2 or teacher.ndim == 2:
        return _mean(student).unsqueeze(1), _mean(teacher).unsqueeze(1)
    if student.ndim == teacher.ndim == 3 and student.shape[1] == teacher.shape[1]:
        return student, teacher
    height, width = student.shape[2:] if student.ndim == 4 else _grid(student, aspect)
    on_grid = teacher if teacher.ndim == 4 else teacher.mT.unflatten(2, _grid(teacher, aspect))
    if on_grid.shape[2:] != (height, width):
        on_grid = F.interpolate(on_grid, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return student.flatten(2).mT if student.ndim == 4 else student, on_grid.flatten(2).mT


def _mean(features: Tensor) -> Tensor:
    if features.ndim == 2:
        return features
    return features.mean(1) if features.ndim == 3 else features.flatten(2).mean(2)


def _grid(tokens: Tensor, aspect: float) -> tuple[int, int]:
    count = tokens.shape[1]
    height = round((count * aspect) ** 0.5)
    width = count // max(height, 1)
    if height * width != count or abs(height - aspect * width) >= 1:
        raise ValueError(
            f"tokens must fill a grid of the image's aspect {aspect:g}, got {shape(tokens)}: leave out a class token, "
            "or tap a map"
        )
    return height, width
