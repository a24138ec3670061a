"""What is drawn has the distribution of torchvision's transforms, which draw the same from a generator of their own."""

from collections import Counter

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from contraux.core.views import ColorJitter, GaussianBlur, RandomGrayscale, RandomResizedCrop, RandomSolarize
from contraux.core.views.image.crop import random_boxes

N = 3000
DOUBT = 1e-3
"""A test fails below this probability of data as far apart; seeds are fixed, so that it passes always or never."""


def uniform(draws, n=N):
    return torch.rand(n, draws, generator=torch.Generator().manual_seed(1))


def same(ours, theirs):
    one, other = (torch.as_tensor(each).double().numpy() for each in (ours, theirs))
    return stats.ks_2samp(one, other, method="asymp").pvalue > DOUBT


BOXES = {
    "simclr": ((96, 96), (0.08, 1.0), (3 / 4, 4 / 3)),
    "large": ((96, 96), (0.6, 1.0), (3 / 4, 4 / 3)),  # many first tries do not fit
    "wide": ((40, 100), (0.08, 1.0), (3 / 4, 4 / 3)),
    "too wide": ((20, 100), (0.5, 1.0), (3 / 4, 4 / 3)),  # no try fits: the centred box
    "too high": ((100, 20), (0.5, 1.0), (3 / 4, 4 / 3)),
    "some centred": ((50, 100), (0.6, 0.9), (3 / 4, 4 / 3)),
    "tiny": ((8, 8), (0.2, 1.0), (3 / 4, 4 / 3)),
}


def torchvision_boxes(size, scale, ratio, n=N):
    crop, image = v2.RandomResizedCrop(8, scale=scale, ratio=ratio), torch.empty(1, *size)
    drawn = [crop.make_params([image]) for _ in range(n)]
    return torch.tensor([[one[key] for key in ("top", "left", "height", "width")] for one in drawn]).unbind(1)


@pytest.mark.parametrize(("size", "scale", "ratio"), BOXES.values(), ids=BOXES.keys())
def test_boxes(size, scale, ratio):
    torch.manual_seed(2)
    ours, theirs = random_boxes(uniform(23), size, scale, ratio), torchvision_boxes(size, scale, ratio)
    for mine, other in zip(ours, theirs, strict=True):
        assert same(mine, other)
    for statistic in (
        lambda t, b, h, w: h * w,
        lambda t, b, h, w: w / h,
        lambda t, b, h, w: t / (size[0] - h).clamp(min=1),
        lambda t, b, h, w: b / (size[1] - w).clamp(min=1),
    ):
        assert same(statistic(*ours), statistic(*theirs))
    top, left, height, width = ours
    assert (top >= 0).all() and (left >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (top + height <= size[0]).all() and (left + width <= size[1]).all()


def test_the_box_when_no_try_fits_is_the_centred_one_of_torchvision():
    for name in ("too wide", "too high"):
        size, scale, ratio = BOXES[name]
        ours = torch.stack(random_boxes(uniform(23, 50), size, scale, ratio), 1)
        assert len(ours.unique(dim=0)) == 1
        assert torch.equal(ours[0], torch.stack(torchvision_boxes(size, scale, ratio, 1), 1)[0].float())


def test_the_wrong_distribution_of_boxes_would_be_noticed():
    theirs = torchvision_boxes(*BOXES["simclr"])
    ours = random_boxes(uniform(23), (96, 96), (0.08, 1.0), (0.7, 1.4))
    assert not same(ours.width / ours.height, theirs[3] / theirs[2])
    ours = random_boxes(uniform(23), (96, 96), (0.12, 1.0), (3 / 4, 4 / 3))
    assert not same(ours.width * ours.height, theirs[3] * theirs[2])


def test_the_last_number_below_one_stays_inside_the_image():
    last = torch.full((1, 23), 1 - 2.0**-24)
    for side in range(20, 4100, 17):
        top, left, height, width = random_boxes(last, (side, side), (0.08, 0.1), (1.0, 1.0))
        assert top + height == side and left + width == side


def test_jitter_factors_rotation_and_order():
    torch.manual_seed(3)
    theirs = v2.ColorJitter(0.8, 0.4, 1.5, 0.2)
    drawn = [theirs.make_params([]) for _ in range(N)]
    ours = ColorJitter(0.8, 0.4, 1.5, 0.2, p=1.0)
    order, in_order, turns, before = ours.parameters(uniform(ours.draws), (8, 8))
    factors = torch.empty_like(in_order).scatter_(1, order, in_order)
    for column, name in enumerate(["brightness", "contrast", "saturation"]):
        assert same(factors[:, column], [one[f"{name}_factor"] for one in drawn])
    assert same(turns, [one["hue_factor"] for one in drawn])
    count = Counter((*o, b) for o, b in zip(order.tolist(), before.tolist(), strict=True))
    assert len(count) == 24  # 6 orders of the three, 4 places of the hue: torchvision's permutations of four
    assert stats.chisquare(list(count.values())).pvalue > DOUBT
    columns = torch.cat((factors, turns.unsqueeze(1), before.unsqueeze(1), order[:, :1]), 1).T
    assert torch.corrcoef(columns).fill_diagonal_(0).abs().max() < 4 / N**0.5  # independent of each other


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("make", [ColorJitter, RandomGrayscale, GaussianBlur, RandomSolarize, RandomResizedCrop])
def test_probabilities(make, p):
    if make is RandomResizedCrop:
        operation = RandomResizedCrop(flip=p)
        first, last = operation.parameters(uniform(operation.draws), (8, 8))[2][:, [0, -1], 0].unbind(1)
        chosen = first > last
    elif make is ColorJitter:
        operation = ColorJitter(hue=0.1, p=p)
        chosen = operation.parameters(uniform(operation.draws), (8, 8))[3] >= 0
    else:
        operation = make(p=p)
        chosen = operation.parameters(uniform(operation.draws), (8, 8))[0]
    assert stats.binomtest(int(chosen.sum()), N, p).pvalue > DOUBT


def test_sigma():
    torch.manual_seed(4)
    theirs, blur = v2.GaussianBlur(9, (0.1, 2.0)), GaussianBlur(sigma=(0.1, 2.0))
    assert same(blur.parameters(uniform(2), (9, 9))[1], [theirs.make_params([])["sigma"][0] for _ in range(N)])
