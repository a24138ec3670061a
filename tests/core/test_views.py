import numpy as np
import pytest
import torch

from contraux.core.views import Chain, Intensity, RandomCrop, RandomShift, VectorNoise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, c, h, w, dtype=torch.uint8):
    return (torch.rand(n, c, h, w) * 255).to(dtype)


def shifts(image, pad):
    """All (2 pad + 1)^2 shifts of one (C, H, W) image, by numpy's own edge padding."""
    _, h, w = image.shape
    wide = np.pad(image.numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    return {(t, s): wide[:, t : t + h, s : s + w] for t in range(2 * pad + 1) for s in range(2 * pad + 1)}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_shift_equals_numpy(dtype):
    x = images(40, 3, 7, 11, dtype)
    out = RandomShift(2)(x, generator())
    assert out.dtype == dtype and out.shape == x.shape
    found = []
    for before, after in zip(x.float(), out.float(), strict=True):
        matches = [where for where, ref in shifts(before, 2).items() if np.array_equal(ref, after.numpy())]
        assert len(matches) == 1  # one whole shift, shared by all channels
        found += matches
    assert len(set(found)) > 15  # of 25; the samples were drawn apart


def test_every_shift_is_equally_likely():
    pad, n = 1, 9000
    x = torch.arange(12.0).view(1, 1, 3, 4).expand(n, 1, 3, 4)
    out = RandomShift(pad)(x, generator())
    counts = [(out.numpy() == ref[None]).all(axis=(1, 2, 3)).sum() for ref in shifts(x[0], pad).values()]
    assert sum(counts) == n
    assert all(abs(count - n / 9) < 5 * (n / 9) ** 0.5 for count in counts)


def test_a_shift_larger_than_the_image_still_repeats_the_border():
    x = images(20, 1, 2, 3)
    for before, after in zip(x, RandomShift(6)(x, generator()), strict=True):
        assert any(np.array_equal(ref, after.numpy()) for ref in shifts(before, 6).values())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_is_a_piece_of_the_image(dtype):
    x = images(60, 2, 6, 8, dtype)
    out = RandomCrop(5)(x, generator())
    assert out.dtype == dtype and out.shape == (60, 2, 5, 5)
    places = []
    for before, after in zip(x, out, strict=True):
        places += [(t, s) for t in range(2) for s in range(4) if torch.equal(before[:, t : t + 5, s : s + 5], after)]
    assert len(places) == 60 and set(places) == {(t, s) for t in range(2) for s in range(4)}
    assert torch.equal(RandomCrop(6)(x[..., :6], generator()), x[..., :6])


def test_noise_has_its_standard_deviation():
    x = torch.full((2000, 4), 3.0)
    out = VectorNoise(0.5)(x, generator()) - x
    assert abs(out.std().item() - 0.5) < 0.02 and abs(out.mean().item()) < 0.03
    assert torch.equal(VectorNoise(0.0)(x, generator()), x)
    assert VectorNoise()(x.double(), generator()).dtype == torch.float64
    assert VectorNoise()(x.bfloat16(), generator()).dtype == torch.bfloat16


def test_intensity_is_one_factor_an_image():
    x = images(4000, 2, 3, 3) | 1  # nowhere 0
    out = Intensity(0.1)(x, generator())
    assert out.dtype == torch.float32
    factors = out / x
    first = factors[:, :1, :1, :1]
    torch.testing.assert_close(factors, first.expand_as(factors))  # all channels and pixels of an image alike
    drawn = (first.flatten() - 1) / 0.1
    torch.testing.assert_close(drawn.abs().max(), torch.tensor(2.0), atol=1e-4, rtol=0)  # clipped there
    at_the_clip = (drawn.abs() > 1.999).float().mean().item()
    assert abs(at_the_clip - 0.0455) < 0.012  # P(|e| > 2) of a normal variable
    inside = drawn[drawn.abs() < 1.999]
    assert abs(inside.mean().item()) < 0.05 and abs(inside.std().item() - 0.8796) < 0.03  # of a normal cut at 2
    assert abs((drawn.abs() < 1).float().mean().item() - 0.6827) < 0.03


def test_intensity_keeps_floating_types_and_goes_beyond_white():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert Intensity()(images(4, 1, 5, 5, dtype), generator()).dtype == dtype
    white = torch.full((64, 1, 2, 2), 255, dtype=torch.uint8)
    assert Intensity(0.05)(white, generator()).amax() > 255
    assert torch.equal(Intensity(0.0)(white, generator()), white.float())


def test_a_chain_is_its_views_in_order_from_one_generator():
    x, own = images(8, 4, 20, 20), generator(7)
    expected = Intensity(0.05)(RandomShift(2)(x, own), own)
    chain = Chain([RandomShift(2), Intensity(0.05)])
    assert torch.equal(chain(x, generator(7)), expected)
    assert chain == Chain((RandomShift(2), Intensity(0.05)))


CASES = {
    "shift": (RandomShift(4), images(8, 4, 20, 20)),
    "shift_float": (RandomShift(4), images(8, 4, 20, 20, torch.float32)),
    "crop": (RandomCrop(12), images(8, 4, 20, 20)),
    "noise": (VectorNoise(0.1), torch.randn(8, 6)),
    "intensity": (Intensity(0.05), images(8, 4, 20, 20)),
    "intensity_float": (Intensity(0.05), images(8, 4, 20, 20, torch.float32)),
    "chain": (Chain([RandomShift(4), Intensity(0.05)]), images(8, 4, 20, 20)),
}
every_view = pytest.mark.parametrize(("view", "x"), CASES.values(), ids=CASES.keys())


@every_view
def test_only_the_given_generator_is_drawn_from(view, x):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    own = generator(3)
    first, second = view(x, own), view(x, own)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert not torch.equal(first, second)
    assert torch.equal(view(x, generator(3)), first)


@every_view
def test_identical_samples_come_out_distinct(view, x):
    same = x[:1].expand_as(x)
    before = same.clone()
    out = view(same, generator(4))  # a seed without two equal draws among 81
    assert len({tuple(sample.flatten().tolist()) for sample in out}) == len(x)
    assert torch.equal(same, before)


@every_view
def test_memory_layout_does_not_matter(view, x):
    strided = x.transpose(0, -1).contiguous().transpose(0, -1)
    assert not strided.is_contiguous()
    assert torch.equal(view(strided, generator(5)), view(x, generator(5)))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: RandomShift(0), "pad must be a whole number >= 1, got 0"),
        (lambda: RandomCrop(0), "size must be a whole number >= 1, got 0"),
        (lambda: VectorNoise(-1), "std must be a number >= 0, got -1"),
        (lambda: Intensity(-1), "scale must be a number >= 0, got -1"),
        (lambda: Chain([]), "Chain needs at least one view, got none"),
        (lambda: Intensity()(torch.zeros(8, 3), generator()), r"Intensity needs images \(N, C, H, W\), got \(8, 3\)"),
        (
            lambda: RandomShift()(torch.zeros(8, 3), generator()),
            r"images \(N, C, H, W\), got \(8, 3\); use VectorNoise",
        ),
        (lambda: RandomCrop(9)(torch.zeros(2, 3, 9, 8), generator()), r"at least that size, got \(2, 3, 9, 8\)"),
        (
            lambda: VectorNoise()(torch.zeros(2, 3, 4), generator()),
            r"floating vectors \(N, D\), got torch.float32 \(2,",
        ),
        (lambda: VectorNoise()(torch.zeros(2, 3).byte(), generator()), "got torch.uint8"),
    ],
)
def test_wrong_inputs(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
