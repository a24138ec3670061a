"""Arrays in .npy files: every layout, labels, splits, and what is refused."""

import pickle

import numpy as np
import pytest
import torch

from contraux.core.data import arrays, batches


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def saved(name, array):
    np.save(f"{name}.npy", array)
    return f"{name}.npy"


@pytest.mark.parametrize(
    ("shape", "layout", "expected", "axes"),
    [
        ((6, 5, 7), None, (1, 5, 7), None),
        ((6, 5, 7, 3), None, (3, 5, 7), (0, 3, 1, 2)),
        ((6, 3, 5, 7), None, (3, 5, 7), (0, 1, 2, 3)),
        ((6, 1, 5, 7), None, (1, 5, 7), (0, 1, 2, 3)),
        ((6, 12, 5, 7), "channels_first", (12, 5, 7), (0, 1, 2, 3)),
        ((6, 3, 5, 3), "channels_last", (3, 3, 5), (0, 3, 1, 2)),
    ],
)
def test_images_of_every_layout_are_served_channels_first(rng, shape, layout, expected, axes):
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    data = arrays("train", inputs=saved("x", images), layout=layout, test_share=0)
    batch = data.__getitems__([4, 0])
    assert data.shape == expected and batch.inputs.dtype == torch.uint8 and batch.inputs.is_contiguous()
    right = images[:, None] if axes is None else images.transpose(axes)
    np.testing.assert_array_equal(batch.inputs, right[[4, 0]])
    assert batch.labels.tolist() == [-1, -1] and data.classes == ()
    np.testing.assert_allclose(data.mean, right.mean((0, 2, 3)) / 255, rtol=1e-9)


@pytest.mark.parametrize("kind", ["<f8", ">f4", "<f2"])
def test_vectors_of_any_float_become_float32(rng, kind):
    vectors = rng.normal(3, 2, (20, 4)).astype(kind)
    data = arrays("train", inputs=saved("x", vectors), test_share=0)
    assert data.shape == (4,)
    batch = data.__getitems__([7, 7, 1])
    assert batch.inputs.dtype == torch.float32
    np.testing.assert_array_equal(batch.inputs, vectors[[7, 7, 1]].astype(np.float32))
    np.testing.assert_allclose(data.std, vectors.astype(float).std(0), rtol=1e-5)


def test_a_seed_splits_and_labels_are_numbered(rng):
    images = np.arange(30, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    files = {"inputs": saved("x", images), "labels": saved("y", np.repeat([4, 9, 2], 10))}
    train, test = (arrays(split, **files, test_share=0.2, seed=5) for split in ("train", "test"))
    assert (len(train), len(test)) == (24, 6) and train.classes == test.classes == ("2", "4", "9")
    own = [data.__getitems__(range(len(data))) for data in (train, test)]
    assert sorted(torch.cat([batch.inputs[:, 0, 0, 0] for batch in own]).tolist()) == list(range(30))
    for batch in own:
        assert batch.labels.tolist() == [[1, 2, 0][int(level) // 10] for level in batch.inputs[:, 0, 0, 0]]
    assert torch.bincount(own[1].labels).tolist() == [2, 2, 2]
    assert test.mean == train.mean != (own[1].inputs.double().mean().item() / 255,)


def test_files_for_testing_share_the_numbers_of_the_classes(rng):
    files = {
        "inputs": saved("x", rng.integers(0, 256, (4, 3, 3), dtype=np.uint8)),
        "labels": saved("y", np.array(["dog", "cat", "dog", "cat"])),
        "test_inputs": saved("u", rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)),
        "test_labels": saved("v", np.array(["dog", "eel", "cat"])),
    }
    train, test = arrays("train", **files), arrays("test", **files)
    assert train.classes == test.classes == ("cat", "dog", "eel")
    assert train.labels.tolist() == [1, 0, 1, 0] and test.labels.tolist() == [1, 2, 0]
    assert (test.mean, test.std) == (train.mean, train.std) and len(test) == 3


def test_several_labels_an_example_stay_as_they_are(rng):
    labels = rng.integers(0, 256, (10, 5), dtype=np.uint8)
    data = arrays("train", inputs=saved("x", rng.normal(size=(10, 2))), labels=saved("y", labels), test_share=0)
    np.testing.assert_array_equal(data.__getitems__([3, 1]).labels, labels[[3, 1]])
    assert data.labels.dtype == torch.int64 and data.classes == ()


def test_a_pickle_holds_no_rows_and_workers_read_for_themselves(rng):
    images = rng.integers(0, 256, (400, 20, 20), dtype=np.uint8)
    data = arrays("train", inputs=saved("x", images), test_share=0)
    data.__getitems__([0])
    packed = pickle.dumps(data)
    assert len(packed) < images.nbytes / 10
    assert torch.equal(pickle.loads(packed).__getitems__([9]).inputs, data.__getitems__([9]).inputs)
    read = torch.cat([batch.inputs for batch in batches(data, [[i, i + 1] for i in range(0, 400, 2)], workers=2)])
    np.testing.assert_array_equal(read[:, 0], images)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"inputs": "missing.npy"}, "an array must be an .npy file of numbers, got 'missing.npy'"),
        ({"inputs": "text.npy"}, "an array must be an .npy file of numbers, got 'text.npy'"),
        ({"inputs": "objects.npy"}, "an array must be an .npy file of numbers, got 'objects.npy'"),
        ({"inputs": "archive.npz"}, r"an array must be an .npy file of numbers, got 'archive.npz' \(it is an archive"),
        ({"inputs": "none.npy"}, r"inputs must hold examples, got shape \(0, 2, 2\)"),
        ({"inputs": "int.npy"}, r"inputs must be \(N, H, W\), .* uint8, or \(N, D\) floats, got \(6, 2, 2\) int64"),
        ({"inputs": "square.npy"}, r"layout must say channels_first or channels_last for images of shape \(3, 2, 3\)"),
        ({"inputs": "square.npy", "layout": "NHWC"}, "unknown layout 'NHWC'"),
        ({"inputs": "x.npy", "labels": "short.npy"}, r"labels must be 6 integers or strings, .* got \(2,\) int64"),
        (
            {"inputs": "x.npy", "labels": "floats.npy"},
            "labels must be integers or strings, one an example, got float64",
        ),
        ({"inputs": "x.npy", "test_labels": "short.npy"}, "test_labels need test_inputs, got 'short.npy' alone"),
        ({"inputs": "x.npy", "test_inputs": "y.npy"}, "inputs and test_inputs must have one shape, got"),
    ],
)
def test_what_breaks_a_rule_is_said(files, sentence):
    with open("text.npy", "w") as file:
        file.write("no array")
    np.save("objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    np.savez("archive.npz", a=np.zeros(2))
    np.save("none.npy", np.zeros((0, 2, 2), np.uint8))
    np.save("int.npy", np.zeros((6, 2, 2), np.int64))
    np.save("square.npy", np.zeros((6, 3, 2, 3), np.uint8))
    np.save("x.npy", np.zeros((6, 2, 2), np.uint8))
    np.save("y.npy", np.zeros((6, 2, 3), np.uint8))
    np.save("short.npy", np.zeros(2, np.int64))
    np.save("floats.npy", np.zeros(6))
    split = "test" if "test_inputs" in files else "train"
    with pytest.raises(ValueError, match=sentence):
        arrays(split, **files)
