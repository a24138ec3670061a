"""Hugging Face data sets without a network: a folder of images, a saved data set, Parquet files."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from contraux.core.data import batches, huggingface

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def picture(level):
    return Image.fromarray(np.full((6, 8, 3), level, dtype=np.uint8))


@pytest.fixture
def saved():
    features = datasets.Features(
        {
            "number": datasets.Value("int64"),
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )

    def rows(start, count):
        return {
            "number": [7 - i % 3 for i in range(count)],
            "picture": [picture(start + i) for i in range(count)],
            "kind": [i % 2 for i in range(count)],
        }

    both = {"train": rows(0, 10), "test": rows(100, 4)}
    found = datasets.DatasetDict({k: datasets.Dataset.from_dict(v, features=features) for k, v in both.items()})
    found.save_to_disk("saved")
    return found


def test_what_save_to_disk_wrote_is_served_as_it_is(saved):
    train, test = (huggingface(split, name="saved", size=4) for split in ("train", "test"))
    assert (len(train), len(test), train.shape, train.classes) == (10, 4, (3, 4, 4), ("cat", "dog"))
    batch = train.__getitems__([9, 0])
    assert batch.inputs.dtype == torch.uint8
    assert batch.inputs[:, 0, 0, 0].tolist() == [9, 0] and batch.labels.tolist() == [1, 0]
    assert test.__getitems__([3]).inputs.unique().tolist() == [103]
    np.testing.assert_allclose(test.mean, np.mean(np.arange(10)) / 255)
    assert torch.equal(pickle.loads(pickle.dumps(train)).__getitems__([5]).inputs, train.__getitems__([5]).inputs)
    read = torch.cat([batch.inputs for batch in batches(train, [[i] for i in range(10)], workers=2)])
    assert read[:, 0, 0, 0].tolist() == list(range(10))


def test_a_seed_splits_where_there_is_no_split_for_testing(saved):
    train, test = (
        huggingface(split, name="saved", test_split=None, size=2, test_share=0.4) for split in ("train", "test")
    )
    own = [data.__getitems__(range(len(data))) for data in (train, test)]
    assert sorted(torch.cat([batch.inputs[:, 0, 0, 0] for batch in own]).tolist()) == list(range(10))
    assert [torch.bincount(batch.labels).tolist() for batch in own] == [[3, 3], [2, 2]]
    assert all((batch.inputs[:, 0, 0, 0] % 2 == batch.labels).all() for batch in own)


def test_labels_may_be_numbers(saved):
    train = huggingface("train", name="saved", label_column="number", size=2)
    assert train.classes == ("5", "6", "7") and train.labels.tolist()[:4] == [2, 1, 0, 2]


def test_labels_may_be_words_and_missing():
    rows = {"image": [picture(i) for i in range(4)], "word": ["pear", None, "fig", "pear"], "share": [0.5] * 4}
    features = {"image": datasets.Image(), "word": datasets.Value("string"), "share": datasets.Value("float32")}
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).save_to_disk("words")
    where = {"name": "words", "test_split": None, "test_share": 0, "size": 2}
    train = huggingface("train", label_column="word", **where)
    assert train.classes == ("fig", "pear") and train.labels.tolist() == [1, -1, 0, 1]
    with pytest.raises(ValueError, match=r"label_column must hold integers or strings, got 0.5 in 'share'"):
        huggingface("train", label_column="share", **where)


def test_folders_of_images_and_parquet_files_are_found(saved):
    from pathlib import Path

    for split in ("train", "test"):
        for i, kind in enumerate(["a", "b"]):
            folder = Path("images") / split / kind
            folder.mkdir(parents=True)
            picture(10 * i).save(folder / "0.png")
    train = huggingface("train", name="images", size=3)
    assert train.classes == ("a", "b") and train.__getitems__([1]).inputs.unique().tolist() == [10]
    Path("files").mkdir()
    for split in ("train", "test"):
        saved[split].to_parquet(f"files/{split}.parquet")
    test = huggingface("test", name="files", size=3, channels=1)
    assert test.shape == (1, 3, 3) and test.__getitems__([2]).inputs.unique().tolist() == [102]
    assert test.classes == ("cat", "dog")


def test_a_damaged_image_is_named_and_the_next_one_stands_in():
    features = datasets.Features({"image": datasets.Image()})
    picture(5).save("whole.png")
    with open("whole.png", "rb") as file:
        cut_off = file.read()[:45]
    encoded = [{"bytes": b"nothing", "path": None}, None, {"bytes": cut_off, "path": None}, picture(9)]
    datasets.Dataset.from_dict({"image": encoded}, features=features).save_to_disk("saved")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = huggingface("train", name="saved", test_split=None, test_share=0, size=2)
        assert data.__getitems__([0, 1, 2, 3]).inputs.unique().tolist() == [9] and data.classes == ()
    said = [str(warning.message) for warning in caught]
    assert [sentence[:34] for sentence in said] == [f"image {i} of saved train cannot be r" for i in range(3)]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"test_split": "validation"}, "among the splits of 'saved', which are train, test, got 'validation'"),
        ({"train_split": "all"}, "among the splits of 'saved', which are train, test, got 'all'"),
        (
            {"image_column": "number"},
            r"there are number \(Value\), picture \(Image\), kind \(ClassLabel\), got 'number'",
        ),
        ({"label_column": "label"}, r"label_column must be a column, there are .*, got 'label'"),
        ({"split": "val"}, "unknown split 'val'"),
        ({"channels": 0}, "channels must be a whole number >= 1, got 0"),
    ],
)
def test_what_breaks_a_rule_is_said(saved, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        huggingface(**{"split": "train", "name": "saved", "size": 2, **wrong})


def test_a_data_set_that_cannot_be_had_is_said(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the data set 'nobody/nothing' cannot be had: "):
        huggingface("train", name="nobody/nothing")


def test_code_of_a_data_set_is_not_run(tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match="cannot be had"):
        huggingface("train", name=str(tmp_path / "evil"))
    assert not (tmp_path / "ran").exists()


def test_versions_that_run_code_are_refused(monkeypatch):
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(ValueError, match=r"datasets must be version 4 or newer, got 3\.6\.0"):
        huggingface("train", name="saved")
