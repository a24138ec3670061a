"""Each operation against torchvision's of one image, with the same parameters; then what a view as a whole promises."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from contraux.core.views import (
    ColorJitter,
    GaussianBlur,
    ImageAugmentation,
    PixelShift,
    RandomGrayscale,
    RandomResizedCrop,
    RandomSolarize,
    TwoViews,
)
from contraux.core.views.image import augmentation
from contraux.core.views.image.blur import blurred
from contraux.core.views.image.crop import random_boxes
from contraux.core.views.image.hue import rotate_hue
from contraux.core.views.image.jitter import blend
from contraux.core.views.image.resample import resized, taps

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
EXACT = {"rtol": 0, "atol": 2e-5}  # of values in [0, 1]: a 200th of a step of 8 bits


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n, h, w, channels=3):
    """Smooth images with edges, and some pixels at exactly 0, 1 and grey."""
    coarse = torch.nn.functional.interpolate(torch.rand(n, channels, 5, 5), (h, w), mode="bicubic")
    x = (coarse + 0.1 * torch.randn(n, channels, h, w)).clamp(0, 1)
    x[:, :, 0] = x[:, :1, 0]
    return x


def each(function, x, *parameters):
    return torch.stack([function(one, *(p[i] for p in parameters)) for i, one in enumerate(x)])


SIZES = {
    "same": ((20, 20), (20, 20)),
    "grow": ((14, 20), (32, 32)),
    "shrink": ((90, 70), (16, 16)),
    "shrink one way": ((40, 48), (44, 44)),
    "digits": ((8, 8), (8, 8)),
    "little": ((256, 256), (224, 224)),
}


@pytest.mark.parametrize(("source", "size"), SIZES.values(), ids=SIZES.keys())
def test_crop_and_flip_equal_torchvisions_resized_crop(source, size):
    n = 6 if size[0] > 100 else 40
    x, u = photos(n, *source), torch.rand(n, 23)
    boxes, flip = random_boxes(u, source, (0.08, 1.0), (3 / 4, 4 / 3)), u[:, -1] < 0.5
    rows = taps(boxes.top, boxes.height, None, source[0], size[0])
    columns = taps(boxes.left, boxes.width, flip, source[1], size[1])

    def reference(image, top, left, height, width, flip):
        box = [int(top), int(left), int(height), int(width)]
        out = tv.resized_crop(image, *box, list(size), antialias=True)
        return tv.horizontal_flip(out) if flip else out

    assert 0 < flip.sum() < n
    expected = each(reference, x, *boxes, flip)
    torch.testing.assert_close(resized(x, rows, columns), expected, **EXACT)
    if size[0] == size[1]:
        crop = RandomResizedCrop(size[0])
        torch.testing.assert_close(crop(x, *crop.parameters(u, source)), expected, **EXACT)


def test_crop_without_a_size_keeps_that_of_the_images():
    crop = RandomResizedCrop(flip=0.0, scale=(1.0, 1.0), ratio=(1.5, 1.5))
    x = photos(5, 8, 12)
    torch.testing.assert_close(crop(x.clone(), *crop.parameters(torch.rand(5, 23), (8, 12))), x)  # the whole image


def test_hue_equals_torchvisions():
    x, turns = photos(60, 9, 9), torch.rand(60) - 0.5
    turns[:3] = torch.tensor([0.0, 0.5, -0.5])
    corners = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 1, 1.0]])  # of the hexagon
    x[:, :, 1, :6] = corners
    expected = each(lambda image, turn: tv.adjust_hue(image, turn.item()), x, turns)
    torch.testing.assert_close(rotate_hue(x.clone(), turns), expected, **EXACT)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "name"), list(enumerate(["brightness", "contrast", "saturation"])))
def test_blend_equals_torchvisions(kind, name, channels):
    x, factors = photos(40, 12, 10, channels), torch.rand(40) * 2
    adjust = getattr(tv, f"adjust_{name}")
    expected = each(lambda image, factor: adjust(image, factor.item()), x, factors)
    torch.testing.assert_close(blend(x.clone(), torch.full((40,), kind), factors), expected, **EXACT)
    if channels == 3:
        assert (expected == 1).any() and (expected - x).abs().mean() > 0.05  # the clamp acts; something happens


def jitter_reference(image, order, factors, turns, before):
    """Torchvision's functions, one after the other in the order drawn."""
    if before < 0:
        return image
    adjust = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation]
    for done in range(4):
        if before == done:
            image = tv.adjust_hue(image, turns.item())
        if done < 3:
            image = adjust[order[done]](image, factors[done].item())
    return image


def test_jitter_equals_torchvisions_functions_in_each_images_own_order():
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8)
    x = photos(150, 8, 8)
    parameters = jitter.parameters(torch.rand(150, jitter.draws), (8, 8))
    order, _, _, before = parameters
    assert len({(*o, b) for o, b in zip(order.tolist(), before.tolist(), strict=True) if b >= 0}) > 20  # of 24
    assert 0 < (before < 0).sum() < 60
    torch.testing.assert_close(jitter(x.clone(), *parameters), each(jitter_reference, x, *parameters), **EXACT)


@pytest.mark.parametrize(("width", "size"), [(9, (30, 40)), (23, (12, 50)), (1, (5, 5))])
def test_blur_equals_torchvisions(width, size):
    x, sigma = photos(20, *size), torch.rand(20) * 1.9 + 0.1
    expected = each(lambda image, s: tv.gaussian_blur(image, [width] * 2, [s.item()] * 2), x, sigma)
    torch.testing.assert_close(blurred(x, sigma, width), expected, **EXACT)


def test_the_kernel_is_a_tenth_of_the_image():
    blur, chosen = GaussianBlur(p=1.0, sigma=(2.0, 2.0)), torch.zeros(1, 2)
    for side, width in ((224, 23), (96, 9), (32, 3)):
        dot = torch.zeros(1, 1, side, side)
        dot[0, 0, side // 2, side // 2] = 1
        spread = blur(dot, *blur.parameters(chosen, (side, side)))[0, 0, side // 2] > 0
        assert spread.sum() == width


@pytest.mark.parametrize(
    ("operation", "reference"),
    [
        (RandomGrayscale(0.5), lambda x: tv.rgb_to_grayscale(x, 3)),
        (RandomSolarize(0.5, threshold=0.6), lambda x: tv.solarize(x, 0.6)),
    ],
    ids=["grayscale", "solarize"],
)
def test_chosen_images_equal_torchvisions_and_the_others_stay(operation, reference):
    x, u = photos(60, 7, 9), torch.rand(60, 1)
    out = operation(x.clone(), *operation.parameters(u, (7, 9)))
    chosen = u[:, 0] < 0.5
    assert 10 < chosen.sum() < 50
    torch.testing.assert_close(out[chosen], each(reference, x[chosen]), **EXACT)
    assert torch.equal(out[~chosen], x[~chosen])


def test_solarize_at_its_default_inverts_128_of_255_and_leaves_127():
    grey = torch.tensor([127, 128]).view(2, 1, 1, 1) / 255
    out = RandomSolarize(1.0)(grey.clone(), torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(out, torch.tensor([127, 127]).view(2, 1, 1, 1) / 255)
    at_and_below = torch.tensor([0.25, 0.249]).view(2, 1, 1, 1)
    out = RandomSolarize(1.0, threshold=0.25)(at_and_below, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(out.flatten(), torch.tensor([0.75, 0.249]))


def test_shift_moves_by_whole_pixels_up_to_the_last():
    shift = PixelShift(2)
    u = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1 - 2.0**-24, 1 - 2.0**-24]])
    x = photos(3, 6, 7, 5)
    out = shift(x, *shift.parameters(u, (6, 7)))
    for image, moved, by in zip(x, out, (0, 2, 4), strict=True):
        wide = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
        assert np.array_equal(wide[:, by : by + 6, by : by + 7], moved.numpy())


def policy(shape=(3, 24, 20), size=16, **other):
    steps = {
        "crop": RandomResizedCrop(size),
        "jitter": ColorJitter(0.8, 0.8, 0.8, 0.2),
        "grayscale": RandomGrayscale(0.2),
        "blur": GaussianBlur(kernel=5),
        "solarize": RandomSolarize(0.2),
        **other,
    }
    return ImageAugmentation(steps, shape=shape, mean=MEAN[: shape[0]], std=STD[: shape[0]])


def bytes_of(n, shape=(3, 24, 20)):
    return (photos(n, *shape[1:], shape[0]) * 255).round().to(torch.uint8)


def test_a_whole_view_equals_torchvisions_functions_of_each_image():
    view, x = policy(), bytes_of(80)
    u = torch.rand(80, view.draws)
    numbers = u.split([23, 9, 1, 2, 1], 1)
    boxes = random_boxes(numbers[0], (24, 20), (0.08, 1.0), (3 / 4, 4 / 3))
    jitter = view.steps[1].parameters(numbers[1], (16, 16))

    def reference(image, top, left, height, width, u, *jitter):
        box = [int(top), int(left), int(height), int(width)]
        out = tv.resized_crop(tv.to_dtype(image, torch.float32, scale=True), *box, [16, 16], antialias=True)
        out = tv.horizontal_flip(out) if u[22] < 0.5 else out
        out = jitter_reference(out, *jitter)
        out = tv.rgb_to_grayscale(out, 3) if u[32] < 0.2 else out
        out = tv.gaussian_blur(out, [5, 5], [(u[34] * 1.9 + 0.1).item()] * 2) if u[33] < 0.5 else out
        out = tv.solarize(out, 0.5) if u[35] < 0.2 else out
        return tv.normalize(out, MEAN, STD)

    out, expected = view.apply(x, u), each(reference, x, *boxes, u, *jitter)
    assert out.shape == (80, *view.shape) == (80, 3, 16, 16) and out.dtype == torch.float32
    close = (out - expected).abs().amax((1, 2, 3)) < 1e-4
    solarized = u[:, 35] < 0.2  # where rounding decides on which side of the threshold a pixel is
    assert close[~solarized].all() and ((out - expected).abs()[solarized] < 1e-4).float().mean() > 0.999


def test_identical_images_become_distinct_views_which_torchvision_on_a_batch_does_not():
    x = bytes_of(1).expand(8, -1, -1, -1)
    per_batch = v2.Compose([v2.RandomResizedCrop(16), v2.ColorJitter(0.8, 0.8, 0.8, 0.2)])
    assert len(per_batch(x).unique(dim=0)) == 1
    assert len(policy()(x, generator()).unique(dim=0)) == 8
    for only in (
        RandomResizedCrop(16),
        ColorJitter(0.4, p=1.0),
        ColorJitter(hue=0.1, p=1.0),
        GaussianBlur(1.0, kernel=5),
    ):
        view = ImageAugmentation({"only": only}, shape=(3, 24, 20), mean=MEAN, std=STD)
        assert len(view(x, generator()).unique(dim=0)) == 8, only


def test_a_view_is_a_function_of_the_generator_and_the_images_alone():
    view, x = policy(), bytes_of(20)
    before = x.clone()
    first = view(x, generator())
    assert not torch.equal(view(x, generator(1)), first)  # what was drawn before does not matter
    assert torch.equal(view(x, generator()), first) and torch.equal(policy()(x, generator()), first)
    assert torch.equal(x, before)
    u = torch.rand(20, view.draws, generator=generator())
    assert torch.equal(view.apply(x, u), first)


def test_a_row_does_not_depend_on_its_batch(monkeypatch):
    view, x = policy(), bytes_of(30)
    u = torch.rand(30, view.draws)
    whole = view.apply(x, u)
    torch.testing.assert_close(view.apply(x[7:19], u[7:19]), whole[7:19], **EXACT)
    torch.testing.assert_close(view.apply(x[3:4], u[3:4]), whole[3:4], **EXACT)
    order = torch.randperm(30)
    torch.testing.assert_close(view.apply(x[order], u[order]), whole[order], **EXACT)
    monkeypatch.setattr(augmentation, "CACHED_BYTES", 4 * 3 * 24 * 20 * 4)  # 4 images at a time
    torch.testing.assert_close(view.apply(x, u), whole, **EXACT)


def test_processes_make_the_rows_of_one_batch():
    made = TwoViews(lambda shape, mean, std: policy(shape), shape=(3, 24, 20), mean=MEAN, std=STD)
    x = bytes_of(12)
    whole = made(x, generator())
    parts = [made(x[start : start + 4], generator(), start, 12) for start in (0, 4, 8)]
    for view, *pieces in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.cat(pieces), view, **EXACT)
    assert not torch.equal(*whole)


def test_images_in_other_clothes_give_the_same_view():
    view, x = policy(), bytes_of(10)
    expected = view(x, generator())
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(view(channels_last, generator()), expected)
    for dtype in (torch.float32, torch.float64):
        floating = x.to(dtype) / 255
        before = floating.clone()
        torch.testing.assert_close(view(floating, generator()), expected, rtol=0, atol=1e-4)
        assert torch.equal(floating, before)  # never overwritten
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view(x, generator()), expected)
    assert view(x[:0], generator()).shape == (0, 3, 16, 16)


def test_without_steps_it_normalises():
    view, x = ImageAugmentation({"blur": None}, shape=(3, 24, 20), mean=MEAN, std=STD), bytes_of(4)
    assert view.draws == 0
    torch.testing.assert_close(view(x, generator()), tv.normalize(x / 255, MEAN, STD))


def test_every_row_at_once_gives_what_the_chosen_rows_give(monkeypatch):
    """What a GPU computes, where the number of chosen rows is unknown."""
    view, x = policy(), bytes_of(40)
    expected = view(x, generator())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(view(x, generator()), expected, **EXACT)


def test_nothing_is_read_back_from_a_gpu():
    from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

    view = policy()
    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors without values: whoever asks for one gets an error
        x = torch.empty(6, 3, 24, 20, dtype=torch.uint8, device="cuda")
        u = torch.empty(6, view.draws, device="cuda")
        with pytest.raises(DynamicOutputShapeException):
            u.nonzero()
        out = view.apply(x, u)
    assert out.shape == (6, 3, 16, 16) and out.device.type == "cuda"


def test_it_compiles_as_one_graph():
    view, x = policy(), bytes_of(10)
    u = torch.rand(10, view.draws)
    compiled = torch.compile(view.apply, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, u), view.apply(x, u), **EXACT)


def test_grey_images_have_no_colours_to_change():
    shape = (1, 24, 20)
    colours = {"jitter": ColorJitter(saturation=0.8, hue=0.5, p=1.0), "grayscale": RandomGrayscale(1.0)}
    view, x = ImageAugmentation(colours, shape=shape, mean=[0.0], std=[1.0]), bytes_of(9, shape)
    torch.testing.assert_close(view(x, generator()), x / 255, **EXACT)
    assert policy(shape)(x, generator()).shape == (9, 1, 16, 16)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RandomResizedCrop(0), "size must be a whole number >= 1, got 0"),
        (lambda: RandomResizedCrop(scale=(0.5, 1.5)), r"the largest of scale must be a number in \[0.5, 1\], got 1.5"),
        (lambda: RandomResizedCrop(scale=(0.0, 1.0)), r"the smallest of scale must be a number in \(0, 1\], got 0.0"),
        (lambda: RandomResizedCrop(ratio=(2.0, 1.0)), "the largest of ratio must be a number >= 2, got 1.0"),
        (lambda: RandomResizedCrop(ratio=1.0), "ratio must be two numbers, smallest and largest, got 1.0"),
        (lambda: RandomResizedCrop(flip=2.0), r"flip must be a number in \[0, 1\], got 2.0"),
        (lambda: ColorJitter(contrast=-1.0), "contrast must be a number >= 0, got -1.0"),
        (lambda: ColorJitter(hue=0.6), r"hue must be a number in \[0, 0.5\], got 0.6"),
        (lambda: GaussianBlur(kernel=4), "kernel must be odd, got 4"),
        (lambda: policy(blur=GaussianBlur(kernel=33)), "needs images larger than 16 pixels, got 16"),
        (lambda: RandomSolarize(threshold=128), r"threshold must be a number in \[0, 1\], got 128"),
        (lambda: PixelShift(0), "pad must be a whole number >= 1, got 0"),
        (
            lambda: ImageAugmentation({"g": RandomGrayscale()}, shape=(4, 8, 8), mean=[0] * 4, std=[1] * 4),
            r"RandomGrayscale needs images of 1 or 3 channels, got \(1, 4, 8, 8\)",
        ),
        (
            lambda: ImageAugmentation({"j": ColorJitter(0.4)}, shape=(4, 8, 8), mean=[0] * 4, std=[1] * 4),
            "ColorJitter needs images of 1 or 3 channels",
        ),
        (lambda: ImageAugmentation({}, shape=(8,), mean=[0] * 8, std=[1] * 8), r"shape \(C, H, W\), got \(8,\)"),
        (
            lambda: ImageAugmentation({}, shape=(3, 8, 8), mean=[0.5], std=STD),
            r"mean must be one number a channel, 3 in all, got \[0.5\]",
        ),
        (lambda: ImageAugmentation({}, shape=(1, 8, 8), mean=[0.5], std=[0.0]), r"std must be > 0, got \[0.0\]"),
        (lambda: policy()(bytes_of(2, (3, 20, 24)), generator()), r"images of shape \(3, 24, 20\), got a batch"),
        (lambda: policy()(bytes_of(2).int(), generator()), "uint8 or floating images .* torch.int32"),
        (lambda: policy().apply(bytes_of(2), torch.rand(2, 3)), r"36 numbers for each of 2 images, got \(2, 3\)"),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
