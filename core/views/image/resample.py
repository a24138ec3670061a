"""Resizing a box of each image. Shape legend: N images, C channels, H x W their size, S outputs of a line, K taps."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Taps(NamedTuple):
    """Which pixels of a line, of each image, are averaged into which output pixel.

    Attributes:
        pixel: `(N, S, K)` indices of pixels in the line, whole numbers of any dtype.
        weight: `(N, S, K)`, sums to 1 over K.
    """

    pixel: Tensor
    weight: Tensor


def taps(start_N: Tensor, length_N: Tensor, mirrored_N: Tensor | None, pixels: int, outputs: int) -> Taps:
    """Return the taps that resize the part [start, start + length) of a line of `pixels` to `outputs`, mirrored or not.

    Bilinear with antialiasing: the weights are a triangle around the place of the output pixel, which reaches as far to
    either side as the output pixel is wide, but at least one pixel; pixels outside of the part count nothing. The
    starts and lengths `(N,)` are whole numbers.
    """
    start_N1, length_N1 = start_N.unsqueeze(1), length_N.unsqueeze(1)
    centre_NS = (torch.arange(outputs, device=start_N.device) + 0.5) * (length_N1 / outputs)
    if mirrored_N is not None:
        centre_NS = torch.where(mirrored_N.unsqueeze(1), length_N1 - centre_NS, centre_NS)
    reach_N1 = (length_N1 / outputs).clamp(min=1.0)
    first_NS = (centre_NS - reach_N1 + 0.5).floor_()
    pixel_NSK = first_NS.unsqueeze(2) + torch.arange(math.ceil(2 * max(pixels / outputs, 1)), device=start_N.device)
    away_NSK = (pixel_NSK + 0.5 - centre_NS.unsqueeze(2)).abs_()
    weight_NSK = (1 - away_NSK / reach_N1.unsqueeze(2)).clamp_(min=0.0)
    inside_NSK = pixel_NSK.clamp(min=0.0).minimum(length_N1.unsqueeze(2) - 1)
    weight_NSK = weight_NSK * (inside_NSK == pixel_NSK)
    return Taps(inside_NSK + start_N1.unsqueeze(2), weight_NSK / weight_NSK.sum(2, keepdim=True))


def resized(x_NCHW: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Return images averaged along rows and along columns by their own taps, `(N, C, S of rows, S of columns)`.

    Resizing a box and blurring are separable: rows are averaged, then columns, which are the rows of the transposed
    image. A row is contiguous in memory, so that the averaging is one `embedding_bag` among all rows of the batch. On a
    CPU that takes, transposing included, half the time of `grid_sample`, which cannot shrink without aliasing, and a
    third of that of a convolution in groups.
    """
    return _averaged(_averaged(x_NCHW, rows).transpose(2, 3).contiguous(), columns).transpose(2, 3).contiguous()


def _averaged(x_NCHW: Tensor, rows: Taps) -> Tensor:
    n, c, h, w = x_NCHW.shape
    outputs, k = rows.pixel.shape[1:]
    plane_NC11 = torch.arange(0, n * c * h, h, device=x_NCHW.device, dtype=torch.int32).view(n, c, 1, 1)
    index_NCSK = rows.pixel.to(torch.int32).unsqueeze(1) + plane_NC11
    weight_NCSK = rows.weight.unsqueeze(1).expand(n, c, outputs, k)
    averaged = F.embedding_bag(
        index_NCSK.view(-1, k), x_NCHW.view(-1, w), per_sample_weights=weight_NCSK.reshape(-1, k), mode="sum"
    )
    return averaged.view(n, c, outputs, w)
