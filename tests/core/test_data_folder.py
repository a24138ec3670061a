"""Folders of images: what is found, how it is cut, which split it is in, and what becomes of damaged files."""

import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from contraux.core.data import folder
from contraux.core.data.decode import decode


def save(path, pixels, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **how)


def plain(path, level, size=(6, 6)):
    save(path, np.full((*size, 3), level))


@pytest.fixture
def two_classes(tmp_path):
    """Ten images of each class; the grey level of image i of class c is 100 c + i."""
    for c, name in enumerate(["cat", "dog"]):
        for i in range(10):
            plain(tmp_path / "animals" / name / "deeper" / f"{i}.png", 100 * c + i)
    return tmp_path / "animals"


def levels(data):
    return data.__getitems__(range(len(data))).inputs[:, 0, 0, 0].tolist()


def test_class_folders_are_split_class_by_class(two_classes):
    train, test = (folder(split, path=two_classes, size=4, test_share=0.3, seed=1) for split in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog")
    assert train.shape == (3, 4, 4) and (len(train), len(test)) == (14, 6)
    for data, each in ((train, 7), (test, 3)):
        batch = data.__getitems__(range(len(data)))
        assert batch.inputs.dtype == torch.uint8 and batch.inputs.shape == (2 * each, 3, 4, 4)
        assert torch.bincount(batch.labels).tolist() == [each, each]
        assert [int(level >= 100) for level in levels(data)] == batch.labels.tolist()
    assert sorted(levels(train) + levels(test)) == [*range(10), *range(100, 110)]
    assert levels(folder("test", path=two_classes, size=4, test_share=0.3, seed=1)) == levels(test)
    assert levels(folder("test", path=two_classes, size=4, test_share=0.3, seed=2)) != levels(test)


def test_indices_may_repeat_and_come_in_any_order(two_classes):
    data = folder("train", path=two_classes, size=4, test_share=0)
    batch = data.__getitems__([19, 0, 19])
    assert batch.inputs[:, 0, 0, 0].tolist() == [109, 0, 109] and batch.labels.tolist() == [1, 0, 1]


def test_a_flat_folder_has_no_labels_and_other_files_are_left_alone(tmp_path):
    for i in range(4):
        plain(tmp_path / "flat" / f"{i}.JPG", 50 * i)
    plain(tmp_path / "flat" / ".hidden.png", 0)
    plain(tmp_path / "flat" / ".thumbnails" / "a.png", 0)
    (tmp_path / "flat" / "readme.txt").write_text("no image")
    (tmp_path / "flat" / "empty").mkdir()
    data = folder("train", path=tmp_path / "flat", size=2, test_share=0)
    assert levels(data) == [0, 50, 100, 150] and data.classes == ()
    assert data.__getitems__([0, 3]).labels.tolist() == [-1, -1]


@pytest.mark.parametrize("name", ["test", "val"])
def test_subfolders_of_the_splits_are_the_splits(tmp_path, name):
    for i, split in enumerate(["train", name]):
        plain(tmp_path / split / "b" / "0.png", 10 * i)
        plain(tmp_path / split / "c" / "0.png", 10 * i + 1)
    plain(tmp_path / "train" / "a" / "0.png", 5)
    assert levels(folder("train", path=tmp_path, size=2)) == [5, 0, 1]
    test = folder("test", path=tmp_path, size=2)
    assert levels(test) == [10, 11] and test.classes == ("a", "b", "c")
    assert test.__getitems__([0, 1]).labels.tolist() == [1, 2]
    plain(tmp_path / name / "d" / "0.png", 0)
    with pytest.raises(ValueError, match=r"classes for testing must be classes for training too, got 'd' in "):
        folder("test", path=tmp_path, size=2)


def test_the_folder_for_testing_can_be_named_and_a_lone_train_is_no_class(tmp_path):
    plain(tmp_path / "train" / "a" / "0.png", 1)
    plain(tmp_path / "train" / "b" / "0.png", 2)
    lone = folder("train", path=tmp_path, size=2, test_share=0)
    assert lone.classes == ("a", "b")
    plain(tmp_path / "test" / "no_label.png", 3)
    plain(tmp_path / "val" / "b" / "0.png", 4)
    assert folder("test", path=tmp_path, size=2).__getitems__([0]).labels.tolist() == [-1]
    assert levels(folder("test", path=tmp_path, size=2, test_folder="val")) == [4]
    with pytest.raises(ValueError, match=r"test_folder must lie beside a folder train in .*, got 'dev'"):
        folder("test", path=tmp_path, size=2, test_folder="dev")


def test_links_are_followed_and_a_loop_ends(tmp_path):
    plain(tmp_path / "elsewhere" / "a.png", 7)
    (tmp_path / "root" / "x").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "y")
    os.symlink(tmp_path / "root", tmp_path / "root" / "x" / "loop")
    os.symlink(tmp_path / "elsewhere" / "a.png", tmp_path / "root" / "x" / "b.png")
    data = folder("train", path=tmp_path / "root", size=2, test_share=0)
    assert data.classes == ("x", "y") and levels(data) == [7, 7]


def test_damaged_files_are_named_once_and_the_next_readable_image_stands_in(two_classes):
    names = [two_classes / "cat" / "deeper" / f"{i}.png" for i in (2, 3)]
    names[0].write_bytes(b"no image at all")
    names[1].write_bytes(names[1].read_bytes()[:45])  # cut off
    os.remove(two_classes / "dog" / "deeper" / "9.png")
    os.symlink("nowhere", two_classes / "dog" / "deeper" / "9.png")
    data = folder("train", path=two_classes, size=4, test_share=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batch = data.__getitems__([1, 2, 3, 4, 18, 19])
        again = data.__getitems__([19, 2])
    assert batch.inputs[:, 0, 0, 0].tolist() == [1, 4, 4, 4, 108, 0] and batch.labels.tolist() == [0, 0, 0, 0, 1, 0]
    assert again.inputs[:, 0, 0, 0].tolist() == [0, 4]
    said = [str(warning.message) for warning in caught]
    assert len(said) == 3
    for name, sentence in zip([*names, two_classes / "dog" / "deeper" / "9.png"], said, strict=True):
        assert sentence.startswith(f"{name} cannot be read and is skipped (")


def test_workers_tell_each_other_what_they_could_not_read(two_classes):
    for i in range(5):
        (two_classes / "dog" / "deeper" / f"{i}.png").write_bytes(b"")
    program = f"""
import warnings, torch
from contraux.core.data import batches, epoch_order, folder

data = folder("train", path={str(two_classes)!r}, size=4, test_share=0)
order = [indices for epoch in (0, 1) for indices in epoch_order(20, epoch, seed=0, batch_size=4)]
there = [batch.inputs for batch in batches(data, order, workers=2)]
warnings.simplefilter("error")  # this process knows now, too
here = [batch.inputs for batch in batches(data, order)]
print(len(there) == 10 and all(torch.equal(one, other) for one, other in zip(here, there)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert 5 <= done.stderr.count("cannot be read and is skipped") <= 8  # two may come upon the same at one moment


@pytest.mark.parametrize("content", [None, "text", "damaged"])
def test_a_folder_without_images_or_with_damaged_ones_only_is_an_error(tmp_path, content):
    root = tmp_path / "root"
    root.mkdir()
    if content == "text":
        (root / "a.txt").write_text("text")
    if content == "damaged":
        for i in range(3):
            (root / f"{i}.jpg").write_bytes(b"\xff\xd8\xff")
    rule = "at least one image must be readable, got 3" if content == "damaged" else "which holds none"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=rule):
            folder("train", path=root, test_share=0)
    with pytest.raises(ValueError, match="which is no folder"):
        folder("train", path=tmp_path / "missing")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"split": "training"}, "unknown split 'training': did you mean train"),
        ({"size": 0}, "size must be a whole number >= 1, got 0"),
        ({"channels": 2}, "unknown channels '2'"),
        ({"test_share": 1.0}, r"test_share must be a number in \[0, 1\), got 1.0"),
        ({"split": "test", "test_share": 0}, "the test split must not be empty, got test_share=0 of 20 examples"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"mean": [0.5], "std": [0.5]}, "mean and std must both have 3 numbers, one a channel, got"),
        ({"mean": [0.5] * 3, "std": [0.5, 0.5, 0.0]}, "std must be a number > 0, got 0.0"),
    ],
)
def test_what_breaks_a_rule_is_said(two_classes, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        folder(**{"split": "train", "path": two_classes, "size": 4, **wrong})


def test_statistics_are_those_of_the_training_split(two_classes):
    train, test = (folder(split, path=two_classes, size=4, test_share=0.5) for split in ("train", "test"))
    own = np.array(levels(train)) / 255
    assert levels(train) != levels(test)
    np.testing.assert_allclose([train.mean, test.mean], own.mean(), rtol=1e-12)
    np.testing.assert_allclose([train.std, test.std], own.std(), rtol=1e-12)
    known = folder("test", path=two_classes, size=4, mean=[0.1, 0.2, 0.3], std=[1, 1, 2])
    assert (known.mean, known.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))


def test_it_survives_pickling_for_processes_that_are_not_forked(two_classes):
    data = folder("train", path=two_classes, size=4, test_share=0)
    assert levels(pickle.loads(pickle.dumps(data))) == levels(data)


def test_the_centre_is_cut_out_and_averaged_down(tmp_path):
    wide = np.zeros((4, 12, 3))
    wide[:, 4:8] = 200  # the central square
    save(tmp_path / "wide.png", wide)
    np.testing.assert_array_equal(decode(tmp_path / "wide.png", 4), np.full((3, 4, 4), 200))
    save(tmp_path / "tall.png", wide.transpose(1, 0, 2))
    np.testing.assert_array_equal(decode(tmp_path / "tall.png", 4), np.full((3, 4, 4), 200))
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    save(tmp_path / "checks.png", checks)
    assert abs(decode(tmp_path / "checks.png", 8, 1).astype(int) - 127.5).max() < 8  # nothing is aliased


@pytest.mark.parametrize("ending", ["png", "jpg", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_a_camera_noted_is_applied(tmp_path, orientation, ending):
    stored = np.zeros((8, 12, 3), dtype=np.uint8)
    stored[:4, 2:6] = 250
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / f"a.{ending}", stored, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    square = stored[:, 2:10]  # the centre; what each orientation means, by the EXIF standard:
    upright = {
        1: square,
        2: square[:, ::-1],
        3: square[::-1, ::-1],
        4: square[::-1],
        5: square.transpose(1, 0, 2),
        6: np.rot90(square, -1),
        7: square[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(square),
    }[orientation]
    difference = decode(tmp_path / f"a.{ending}", 8).transpose(1, 2, 0).astype(int) - upright
    assert abs(difference).max() < 60  # a JPEG blurs


def test_every_mode_becomes_rgb_or_grey(tmp_path):
    colour = np.zeros((8, 8, 3), dtype=np.uint8)
    colour[..., 0], colour[..., 1] = 200, 100  # grey: 0.299 * 200 + 0.587 * 100 = 118.5
    image = Image.fromarray(colour)
    for mode, ending in [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("P", "gif"), ("CMYK", "tiff"), ("RGB", "jpg"),
                         ("CMYK", "jpg"), ("YCbCr", "jpg"), ("RGB", "webp"), ("LAB", "tiff")]:  # fmt: skip
        path = tmp_path / f"{mode}.{ending}"
        if mode == "LAB":
            Image.new("LAB", (8, 8), (128, 128, 128)).save(path)
            assert decode(path, 4).shape == (3, 4, 4)
            continue
        image.convert(mode, palette=Image.Palette.ADAPTIVE).save(path)
        rgb, grey = decode(path, 4), decode(path, 4, 1)
        assert rgb.dtype == grey.dtype == np.uint8 and rgb.shape == (3, 4, 4) and grey.shape == (1, 4, 4)
        assert abs(rgb.astype(int) - np.array([200, 100, 0])[:, None, None]).max() <= 4, path
        assert abs(grey.astype(int) - 118.5).max() <= 4, path


def test_grey_levels_of_any_depth(tmp_path):
    sixteen = np.full((4, 4), 257 * 200, dtype=np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "16.png")
    Image.fromarray(sixteen).save(tmp_path / "16.tiff")
    Image.fromarray(sixteen.astype(np.int32)).save(tmp_path / "32.tiff")
    Image.fromarray(np.full((4, 4), 200 / 255, dtype=np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((4, 4), 200.0, dtype=np.float32)).save(tmp_path / "float255.tiff")
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint8)).save(tmp_path / "8.png")
    for path in sorted(tmp_path.glob("*.*")):
        for channels in (1, 3):
            np.testing.assert_array_equal(decode(path, 2, channels), np.full((channels, 2, 2), 200), err_msg=path.name)
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "1.png")
    np.testing.assert_array_equal(decode(tmp_path / "1.png", 4, 1)[0], np.eye(4) * 255)


def test_what_is_transparent_becomes_white(tmp_path):
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:2, :, 3] = 255  # the upper half is black, the lower one transparent
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    image.convert("LA").save(tmp_path / "la.png")
    palette = Image.fromarray(np.repeat([[0], [0], [1], [1]], 4, axis=1).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.save(tmp_path / "p.png", transparency=1)
    expected = np.repeat([[0], [0], [255], [255]], 4, axis=1)
    for path in sorted(tmp_path.glob("*.png")):
        for channels in (1, 3):
            np.testing.assert_array_equal(decode(path, 4, channels), [expected] * channels, err_msg=path.name)


def test_large_jpegs_decoded_small_are_what_they_would_be_decoded_whole(tmp_path):
    rows, columns = np.indices((160, 200))
    waves = 128 + 100 * np.sin(rows * 2 * np.pi / 20) * np.sin(columns * 2 * np.pi / 20)  # four new pixels long
    save(tmp_path / "a.jpg", np.stack([waves, 255 - waves, np.full_like(waves, 90)], -1), quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        whole = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR, (20, 0, 180, 160)))
    difference = decode(tmp_path / "a.jpg", 32).transpose(1, 2, 0).astype(int) - whole
    assert np.ptp(whole[..., 0]) > 80 and abs(difference).max() <= 12
