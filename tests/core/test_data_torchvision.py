"""CIFAR and STL-10 through torchvision, from tiny files in their own formats; and what is said without a network."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from contraux.core.data import cifar10, cifar100, stl10


def pickled(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(values))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch):
    """Two batches for training and one for testing, with checksums of their own."""
    images = {}

    def write(kind, names, test, meta, classes, key):
        folder = tmp_path / kind.base_folder
        rng = np.random.default_rng(0)
        for attribute, files in (("train_list", names), ("test_list", [test])):
            listed = []
            for name in files:
                images[kind.__name__, name] = pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
                listed.append([name, pickled(folder / name, {"data": pixels, key: [3, 0, 1, 2]})])
            monkeypatch.setattr(kind, attribute, listed)
        md5 = pickled(folder / meta["filename"], {meta["key"]: classes})
        monkeypatch.setattr(kind, "meta", {**meta, "md5": md5})

    ten, hundred = datasets.CIFAR10, datasets.CIFAR100
    write(ten, ["data_batch_1", "data_batch_2"], "test_batch", ten.meta, list("abcdefghij"), "labels")
    write(hundred, ["train"], "test", hundred.meta, [str(i) for i in range(100)], "fine_labels")
    return tmp_path, images


def test_cifar10_is_read_whole_channels_first(tiny_cifar):
    folder, images = tiny_cifar
    train = cifar10("train", path=folder)
    assert (len(train), train.shape, train.classes) == (8, (3, 32, 32), tuple("abcdefghij"))
    right = np.concatenate([images["CIFAR10", "data_batch_1"], images["CIFAR10", "data_batch_2"]]).reshape(
        -1, 3, 32, 32
    )
    batch = train.__getitems__([5, 1])
    np.testing.assert_array_equal(batch.inputs, right[[5, 1]])
    assert batch.inputs.dtype == torch.uint8 and batch.inputs.is_contiguous() and batch.labels.tolist() == [0, 0]
    test = cifar10("test", path=folder, download=False)
    np.testing.assert_array_equal(test.inputs.numpy()[2].ravel(), images["CIFAR10", "test_batch"][2])
    np.testing.assert_allclose([test.mean, test.std], [right.mean((0, 2, 3)) / 255, right.std((0, 2, 3)) / 255])
    known = cifar10("test", path=folder, mean=[0.1, 0.2, 0.3], std=[1, 1, 1])
    assert known.mean == (0.1, 0.2, 0.3)


def test_cifar100_has_its_own_files(tiny_cifar):
    folder, images = tiny_cifar
    test = cifar100("test", path=folder)
    assert len(test.classes) == 100 and test.labels.tolist() == [3, 0, 1, 2]
    np.testing.assert_array_equal(test.inputs.numpy().reshape(4, -1), images["CIFAR100", "test"])


@pytest.fixture
def tiny_stl10(tmp_path, monkeypatch):
    folder = tmp_path / datasets.STL10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = {}
    for attribute in ("train_list", "test_list"):
        listed = []
        for name, _ in getattr(datasets.STL10, attribute):
            if "_X" in name:  # the file has columns first
                count = 5 if "unlabeled" in name else 3
                images[name] = rng.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
                content = images[name].transpose(0, 1, 3, 2).tobytes()
            else:
                content = bytes([10, 1, 2])  # classes count from 1
            (folder / name).write_bytes(content)
            listed.append([name, hashlib.md5(content).hexdigest()])
        monkeypatch.setattr(datasets.STL10, attribute, listed)
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    return tmp_path, images


@pytest.mark.parametrize(
    ("part", "names", "labels"),
    [
        ("train", ["train_X.bin"], [9, 0, 1]),
        ("unlabeled", ["unlabeled_X.bin"], [-1] * 5),
        ("train+unlabeled", ["train_X.bin", "unlabeled_X.bin"], [9, 0, 1] + [-1] * 5),
    ],
)
def test_stl10_trains_on_the_part_asked_for(tiny_stl10, part, names, labels):
    folder, images = tiny_stl10
    train, test = (stl10(split, path=folder, train_part=part) for split in ("train", "test"))
    right = np.concatenate([images[name] for name in names])
    batch = train.__getitems__(range(len(train)))
    np.testing.assert_array_equal(batch.inputs, right)
    assert batch.inputs.is_contiguous() and batch.labels.tolist() == labels and train.classes == tuple("abcdefghij")
    np.testing.assert_array_equal(test.inputs, images["test_X.bin"])
    assert test.labels.tolist() == [9, 0, 1]
    np.testing.assert_allclose(test.mean, right.mean((0, 2, 3)) / 255)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"CIFAR10 must be in 'data', but is missing or damaged and must not be downl"):
        cifar10("train", download=False)
    with pytest.raises(ValueError, match="unknown train_part 'all'"):
        stl10("train", train_part="all")
    with pytest.raises(ValueError, match="unknown split 'val'"):
        cifar100("val")


@pytest.mark.parametrize("data", [cifar10, stl10])
def test_a_download_that_fails_is_said(tmp_path, monkeypatch, data):
    kind = getattr(datasets, data.__name__.upper())
    monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/data.tar.gz")  # nobody listens there
    with pytest.raises(
        ValueError, match=r"must be in 'data', but is missing or damaged and could not be downloaded ther"
    ):
        data("train")
