"""Resizing, grids and PNGs."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from contraux.clgen.images import as_uint8, images_of, resized, save_grid, save_pngs
from contraux.core.data import InMemory, digits, folder


def in_memory(inputs, labels=None):
    labels = torch.full((len(inputs),), -1) if labels is None else labels
    return InMemory(inputs, labels, ("zero", "one"), ((0.5,), (0.5,)))


def test_digits_have_the_range_size_and_labels_of_the_data():
    data = digits("train")
    found = images_of(data, 16)
    assert found.tensor.shape == (len(data), 1, 16, 16) and found.tensor.dtype == torch.float32
    assert found.tensor.min() == -1 and found.tensor.max() == 1
    assert torch.equal(found.labels, data.labels) and found.classes == tuple("0123456789")
    assert torch.equal(images_of(data).tensor, data.inputs.float() / 127.5 - 1)


def test_resizing_is_pillows_bicubic_on_floats():
    image = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for size in (16, 40):
        theirs = np.asarray(Image.fromarray(image[0, 0].numpy()).resize((size, size), Image.Resampling.BICUBIC))
        assert np.abs(theirs).max() > 1 or size == 16  # bicubic overshoots, which is clamped
        np.testing.assert_allclose(resized(image, size)[0, 0], theirs.clip(-1, 1), atol=1e-5)


def test_the_middle_of_an_oblong_image_is_kept():
    image = torch.full((1, 1, 8, 24), -1.0)
    image[..., 8:16] = 1
    assert torch.equal(resized(image, 8), torch.ones(1, 1, 8, 8))
    assert resized(torch.zeros(2, 3, 9, 7), 7).shape == (2, 3, 7, 7)


def test_bytes_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(as_uint8(images_of(in_memory(levels)).tensor), levels)
    assert as_uint8(torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]


def test_pngs_are_read_back_as_data_by_class(tmp_path):
    images = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.tensor([1, 0, -1, 1])
    save_pngs(images[:3], tmp_path / "all", labels[:3], ("zero", "one"))
    save_pngs(images[3:], tmp_path / "all", labels[3:], ("zero", "a/b"), first=3)
    names = sorted(path.relative_to(tmp_path / "all").as_posix() for path in (tmp_path / "all").rglob("*.*"))
    assert names == ["00002.png", "1/00003.png", "one/00000.png", "zero/00001.png"]
    save_pngs(images[:2], tmp_path / "two", labels[:2], ("zero", "one"))
    read = partial(folder, path=tmp_path / "two", size=8, channels=1, test_share=0)("train")
    batch = read.__getitems__([0, 1])  # by name: one, zero
    assert torch.equal(batch.inputs, images[:2]) and read.classes == ("one", "zero")


def test_a_grid_has_its_columns(tmp_path):
    save_grid(torch.ones(5, 1, 4, 4), tmp_path / "new" / "grid.png", columns=3)
    grid = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    assert grid.shape == (2 * 5 + 1, 3 * 5 + 1, 3)
    assert grid[1, 1, 0] == 255 and grid[0, 0, 0] == 0 and grid[9, 14, 0] == 0  # the sixth place is empty
    save_grid(torch.zeros(5, 3, 4, 4), tmp_path / "square.png")
    assert np.asarray(Image.open(tmp_path / "square.png")).shape == (11, 16, 3)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: images_of(in_memory(torch.zeros(2, 5))), r"must be images \(C, H, W\), got examples of shape \(5,\)"),
        (lambda: images_of(in_memory(torch.zeros(2, 1, 4, 4)), 0), "size must be a whole number >= 1, got 0"),
        (lambda: as_uint8(torch.zeros(1, 1, 2, 2, dtype=torch.int32)), "uint8 in .* got torch.int32"),
        (lambda: save_grid(torch.zeros(2, 2, 4, 4), "x.png"), r"to be drawn, got \(2, 2, 4, 4\)"),
        (lambda: save_pngs(torch.zeros(2, 1, 4, 4), "x", torch.zeros(3)), r"one an image, 2, got \(3,\)"),
    ],
)
def test_mistakes_are_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
