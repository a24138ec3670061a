"""`contraux extractor` and `contraux score` as a user meets them: pictures, arrays, kept classifiers, mistakes."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from trap import Trap

from contraux.clgen.images import as_uint8, images_of, save_grid, save_pngs
from contraux.clgen.metrics import Classifier, Inception, Reals, Settings, evaluate_images, random_cnn
from contraux.clgen.metrics.samples import read_samples
from contraux.core.data import digits
from contraux.core.encoders import SmallCNN
from contraux.core.encoders.pretrained import PretrainedEncoder

EXTRACTOR = ["extractor", "classifier.steps=60", "classifier.width=8", "threads=1"]
SCORE = [
    "score", "threads=1", "device=cpu", "metrics.draws=2", "metrics.subsets=4", "extractors.classifier.width=8",
    "extractors.classifier.steps=1",
]  # fmt: skip
CLASSES = tuple("0123456789")


@pytest.fixture(scope="module")
def place(tmp_path_factory, contraux):
    """A folder with a classifier, and the same 350 real images as pictures, as pictures by class, and as an array."""
    folder = tmp_path_factory.mktemp("place")
    data = images_of(digits("test"))
    images, labels = data.tensor[:350], data.labels[:350]
    save_pngs(images, folder / "pictures")
    save_pngs(images, folder / "by_class", labels, CLASSES)
    np.save(folder / "fakes.npy", as_uint8(images)[:, 0].numpy())
    np.save(folder / "labels.npy", labels.numpy())
    done = contraux.run(*EXTRACTOR, "folder=kept", cwd=folder)
    assert done.returncode == 0, done.stderr
    folder.joinpath("said.txt").write_text(done.stdout)
    return folder


def result(folder):
    return json.loads((folder / "result.json").read_text())


# --- the classifier ---------------------------------------------------------------------------------------------------


def test_the_extractor_is_saved_with_what_it_is_and_says_what_it_gets_right(place):
    assert sorted(path.name for path in (place / "kept").iterdir()) == ["config.json", "model.safetensors"]
    found = Classifier.load(place / "kept")
    test = images_of(digits("test"))
    with torch.no_grad():
        right = (found(test.tensor).logits.argmax(1) == test.labels).double().mean().item()
    assert found.metadata["held_out"] == pytest.approx(right, abs=1e-6)
    said = (place / "said.txt").read_text()
    assert f"digits_cnn: accuracy on held-out images {100 * right:.2f} %, 32 features" in said and "s: kept" in said
    assert found.metadata["steps"] == 60 and found.metadata["images"] == len(digits("train"))
    assert found.classes == CLASSES and found.input_shape == (1, 8, 8)


def test_a_folder_that_is_there_is_not_trained_over(place, contraux):
    done = contraux.run(*EXTRACTOR, "folder=kept", cwd=place)
    assert done.returncode == 2 and "folder must be new, and kept is there already" in done.stderr
    assert done.stderr.count("\n") == 1


def test_its_folder_is_named_after_data_and_size_and_accuracy_can_be_left_out(tmp_path, contraux):
    words = ["classifier.steps=1", "classifier.width=8", "threads=1", "size=9", "held_out=false"]
    done = contraux.run("extractor", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy on held-out images not measured" in done.stdout
    assert Classifier.load(tmp_path / "extractors/digits_9").input_shape == (1, 9, 9)


# --- the report -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(place, contraux):
    """The report of the pictures by class, with the classifier kept before."""
    kept = {path: path.stat().st_mtime_ns for path in (place / "kept").iterdir()}
    words = ["samples=by_class", "extractors.classifier.folder=kept", "folder=report"]
    done = contraux.run(*SCORE, *words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (place / "kept").iterdir()} == kept
    return done.stdout, result(place / "report")


def test_the_report_is_what_evaluate_images_says(place, scored):
    found = scored[1]
    train, test = (images_of(digits(split)) for split in ("train", "test"))
    networks = [Classifier.load(place / "kept"), random_cnn(Reals(train, test, "digits"))]
    expected = evaluate_images(
        train, test.tensor[:350], networks, held_out=test, settings=Settings(draws=2, subsets=4)
    )  # in another order and without labels
    for name, value in expected["metrics"].items():
        if not name.startswith("kernel"):
            assert found["metrics"][name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert found["classes"] == expected["classes"] and found["counts"] == expected["counts"]
    assert found["counts"] == {"real": len(train.labels), "fake": 350, "held_out": len(test.labels), "same_n": 350,
                               "draws": 2}  # fmt: skip
    assert found["extractors"].keys() == {"digits_cnn", "random_cnn"} == expected["extractors"].keys()
    with torch.no_grad():
        right = networks[0](test.tensor[:350]).logits.argmax(1) == test.labels[:350]
    assert found["metrics"]["class_agreement/digits_cnn"] == pytest.approx(right.double().mean().item())


def test_the_report_is_a_file_of_numbers_a_page_and_a_table(place, scored):
    said, found = scored
    assert "numbers and table: report/result.json report/table.md" in said
    assert found["samples"] == "by_class" and found["data"] == "digits" and found["size"] == 8
    assert found["settings"]["metrics"]["draws"] == 2 and "torch" in found["versions"]["libraries"]
    page = (place / "report/table.md").read_text()
    assert page.startswith("# by_class against digits, 8 x 8 pixels\n")
    for text in (said, page):
        for words in ("Fréchet distance ↓", "recall ↑", "350 against 350", "real: 350 against 350", "digits_cnn",
                      "held-out real images in the place of the generated ones, at the same N"):  # fmt: skip
            assert words in text
        assert "FID" not in text
    assert "| real | 0." in page and "| fake | 0." in page  # the shares of the classes


def test_arrays_and_pictures_have_one_result(place, scored, contraux):
    words = ["samples=fakes.npy", "labels=labels.npy", "extractors.classifier.folder=kept", "folder=array"]
    done = contraux.run(*SCORE, *words, cwd=place)
    assert done.returncode == 0, done.stderr
    found = result(place / "array")
    for name, value in scored[1]["metrics"].items():
        if not name.startswith("kernel"):  # whose subsets depend on the order
            assert found["metrics"][name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_without_a_folder_the_classifier_is_trained_anew_and_with_one_it_is_saved(place, contraux):
    words = ["samples=pictures", "extractors.random_cnn=null", "extractors.classifier.folder=new/classifier"]
    first = contraux.run(*SCORE, *words, "folder=new/one", cwd=place)
    assert first.returncode == 0, first.stderr
    assert Classifier.load(place / "new/classifier").metadata["steps"] == 1
    written = (place / "new/classifier/model.safetensors").stat().st_mtime_ns
    second = contraux.run(*SCORE, *words, "folder=new/two", "extractors.classifier.steps=60", cwd=place)
    assert second.returncode == 0 and (place / "new/classifier/model.safetensors").stat().st_mtime_ns == written
    one, two = result(place / "new/one"), result(place / "new/two")
    assert one["metrics"] == two["metrics"]  # what is kept counts, and not how it would be trained
    assert "class_agreement/digits_cnn" not in one["metrics"]  # nothing was asked of these
    third = contraux.run(*SCORE, "samples=pictures", "extractors.random_cnn=null", "folder=new/three", cwd=place)
    assert third.returncode == 0
    assert result(place / "new/three")["metrics"] == one["metrics"]  # the same seed, the same weights


def test_encoders_of_ones_own_and_other_extractors_have_their_rows(place, contraux):
    described = {"_target_": "contraux.core.encoders.SmallCNN", "width": 8}
    encoder = PretrainedEncoder(SmallCNN((1, 8, 8), 8), (1, 8, 8), (0.3,), (0.4,), described)
    encoder.save_pretrained(place / "encoder")
    other = "{_target_: contraux.clgen.metrics.random_cnn, _partial_: true, seed: 1, name: other}"
    done = contraux.run(
        *SCORE, "samples=pictures", "extractors.classifier=null", "pretrained=encoder", "folder=three",
        f"+extractors.other={other}", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = result(place / "three")
    assert list(found["extractors"]) == ["random_cnn", "other", "encoder"]
    assert found["metrics"]["frechet/other"] != found["metrics"]["frechet/random_cnn"]


def test_data_without_labels_go_without_a_classifier_and_with_halves_for_the_floor(place, contraux):
    words = ["data=folder", "data.path=pictures", "data.size=8", "data.channels=1", "data.test_share=0"]
    done = contraux.run(*SCORE, "samples=pictures", *words, "held_out=null", "folder=unlabelled", cwd=place)
    assert done.returncode == 0, done.stderr
    found = result(place / "unlabelled")
    assert list(found["extractors"]) == ["random_cnn"] and found["counts"]["same_n"] == 175
    assert "no classifier of folder: its images have no labels to train one with" in done.stdout
    assert "other real images of the same set" in done.stdout
    assert found["metrics"]["frechet/random_cnn"] < 1e-6 < 0.1 < found["floor"]["frechet/random_cnn"]["mean"]
    done = contraux.run(*EXTRACTOR, *words, "held_out=false", "folder=x", cwd=place)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no classifier of folder: its images have no labels" in done.stderr and not (place / "x").exists()


def test_floats_in_0_1_are_read_as_minus_1_1_with_a_note(place, contraux):
    np.save(place / "unit.npy", np.load(place / "fakes.npy")[:64].astype(np.float32) / 255)
    done = contraux.run(*SCORE, "samples=unit.npy", "extractors.classifier=null", "folder=unit", cwd=place)
    assert done.returncode == 0 and "floats are read as [-1, 1], so save uint8 if they are not" in done.stdout


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        (["extractor", "--help"], ["extractors/DATA_SIZE", "classifier.steps=800", "held_out=false"]),
        (
            ["score", "--help"],
            ["samples=FILE.npy", "metrics.k=5", "pretrained=RUN", "inception=FILE", "reference=train"],
        ),
    ],
)
def test_help_names_the_keys(tmp_path, contraux, words, rules):
    done = contraux.run(*words, cwd=tmp_path)
    assert done.returncode == 0 and all(rule in done.stdout for rule in rules)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def strange(place):
    """Files and folders that are no samples, and no extractors."""
    images = images_of(digits("test")).tensor
    save_grid(images[:100], place / "grid.png")
    save_grid(images[:100], place / "grids/grid.png")
    save_pngs(images[:20], place / "sizes")
    save_pngs(torch.zeros(1, 1, 9, 9), place / "sizes", first=20)
    save_pngs(torch.zeros(20, 1, 8, 9), place / "oblong")
    save_pngs(images[:20], place / "run/samples")
    save_pngs(images[:20], place / "broken")
    (place / "broken/00003.png").write_bytes(b"\x89PNG\r\n")
    (place / "empty").mkdir()
    np.save(place / "wide.npy", np.full((20, 8, 8), 255.0))
    np.save(place / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(place / "three.npy", np.arange(3))
    for name, text in (("truncated", None), ("pickled", Trap()), ("other_config", None), ("list", None)):
        shutil.copytree(place / "kept", place / name)
        if text is not None:
            (place / name / "model.safetensors").write_bytes(pickle.dumps(text))
    weights = place / "truncated/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    config = json.loads((place / "other_config/config.json").read_text())
    (place / "other_config/config.json").write_text(json.dumps({**config, "width": 16}))
    (place / "list/config.json").write_text("[1, 2]")
    (place / "inception.pth").write_bytes(pickle.dumps(Trap()))
    torch.save({"weight": Trap()}, place / "zipped.pth")
    torch.save({"weight": torch.zeros(2)}, place / "others.pth")
    return place


SAMPLES = {
    "nothing": "samples must be a folder of pictures or an .npy file, and '{}' is not there",
    "grid.png": "samples must be a folder of pictures or an .npy file, not one picture, got '{}'",
    "empty": "which holds none",
    "run": "subfolders must have the names or numbers of classes, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got 'samples'",
    "sizes": "samples must have one size, or size=N be given, got (8, 8) and (9, 9) in {}/00020.png",
    "broken": "samples must be pictures, and {}/00003.png cannot be read",
    "wide.npy": "float images must lie in [-1, 1], got [255, 255] in '{}'",
    "objects.npy": "an array must be an .npy file of numbers, got '{}'",
    "three.npy": "samples must be (M, H, W), (M, H, W, C) or (M, C, H, W), got (3,) in '{}'",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_no_samples_is_said(strange, name):
    with pytest.raises(ValueError, match=re.escape(SAMPLES[name].format(strange / name))):
        read_samples(strange / name, channels=1, classes=CLASSES)


def test_labels_that_do_not_fit_are_said(strange):
    with pytest.raises(ValueError, match=r"labels must be 350 whole numbers, got \(3,\)"):
        read_samples(strange / "fakes.npy", channels=1, classes=CLASSES, labels=strange / "three.npy")
    with pytest.raises(ValueError, match="labels belong to an array, and the folder"):
        read_samples(strange / "pictures", channels=1, classes=CLASSES, labels=strange / "labels.npy")


@pytest.mark.parametrize("name", ["empty", "truncated", "pickled", "other_config", "list"])
def test_what_is_no_extractor_is_said(strange, name, monkeypatch):
    monkeypatch.chdir(strange)
    with pytest.raises(
        ValueError, match=f"must hold config.json and model.safetensors .* and {name} does not: "
    ) as found:
        Classifier.load(name)
    assert "\n" not in str(found.value) and not (strange / "sprung").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "samples must be given: samples=…"),
        (["samples=grids"], "metrics need at least 8 images on each side, got 1"),
        (["samples=oblong"], "samples must be square, or size=N be given, got 8 x 9"),
        (["samples=pictures", "held_out=train"], "held_out must be the other split than reference, or null"),
        (["samples=pictures", "metrics.kk=5"], "unknown key 'metrics.kk': did you mean metrics.k?"),
        (["samples=pictures", "extractors.classifier=null", "extractors.random_cnn=null"], "at least one extractor"),
        (["samples=pictures", "pretrained=pictures"], "an encoder's folder must hold config.json"),
        (["samples=pictures", "size=9", "extractors.classifier.folder=kept"], "was trained on other images than these"),
        (["samples=pictures", "extractors.classifier.folder=pickled"], "and pickled does not: "),
        (["samples=pictures", "inception=inception.pth"], "it holds more than arrays, and nothing of it was run"),
    ],
)
def test_mistakes_of_score_are_one_sentence(strange, contraux, words, sentence):
    if any(word.startswith("inception=") for word in words):
        pytest.importorskip("torch_fidelity")
    done = contraux.run(*SCORE, *words, "folder=wrong", cwd=strange)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert done.stderr.startswith("contraux: ") and done.stderr.count("\n") == 1
    assert not (strange / "wrong").exists() and not (strange / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing.pth", r"\[Errno 2\]"),
        ("zipped.pth", "it holds more than arrays, and nothing of it was run"),
        ("others.pth", "Error.* in loading state_dict"),
    ],
)
def test_what_is_no_inception_is_said(strange, name, reason, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.chdir(strange)
    with pytest.raises(
        ValueError, match=f"torch-fidelity's file of the Inception network, and '{name}' is not: {reason}"
    ):
        Inception(name)
    assert not (strange / "sprung").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["classifier.width=12"], "width must be a multiple of 8, got 12"),
        (["classifier.stepps=1"], "unknown key 'classifier.stepps': did you mean classifier.steps?"),
        (["data=folder"], "data.path must be given"),
    ],
)
def test_mistakes_of_extractor_are_one_sentence(tmp_path, contraux, words, sentence):
    done = contraux.run("extractor", *words, "folder=wrong", cwd=tmp_path)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert done.stderr.startswith("contraux: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "wrong").exists()
