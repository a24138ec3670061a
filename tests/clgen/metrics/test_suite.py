"""What `evaluate_images` says of images made worse on purpose, and that it says so of nothing else."""

import json
import math
import re
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from contraux.clgen.images import Images, as_uint8, images_of
from contraux.clgen.metrics import (
    Classifier,
    Extracted,
    NoLabels,
    RandomCNN,
    Reals,
    Settings,
    classifier,
    evaluate_images,
    frechet_distance,
    gaussian,
    made,
    manifold,
    random_cnn,
    scale_of,
    seen,
    squared_mmd,
)
from contraux.clgen.metrics.fit import fit
from contraux.clgen.metrics.neighbourhoods import squared_radii
from contraux.core.data import digits

EXTRACTORS = ("digits_cnn", "random_cnn")
FEW = Settings(subsets=5, draws=2)


@pytest.fixture(scope="module")
def reals():
    return Reals(rows(images_of(digits("train")), slice(0, 800)), images_of(digits("test")), "digits")


@pytest.fixture(scope="module")
def networks(reals):
    return [classifier(reals, width=8, steps=200), random_cnn(reals)]


@pytest.fixture(scope="module")
def halves(reals):
    """The test images: half of them for the floor, half of them as a generator as good as the data."""
    return rows(reals.test, slice(0, 270)), rows(reals.test, slice(270, None))


@pytest.fixture(scope="module")
def noisy(reals, networks, halves):
    """What is said of real images with more and more noise; that with none first."""
    held_out, fake = halves
    noise = torch.randn(fake.tensor.shape, generator=torch.Generator().manual_seed(0))
    return [
        evaluate_images(reals.train, fake.tensor + sd * noise, networks, held_out=held_out, settings=FEW)
        for sd in (0, 0.3, 0.6, 1)
    ]


def rows(images, chosen):
    return images._replace(tensor=images.tensor[chosen], labels=images.labels[chosen])


def evaluated(reals, networks, halves, fake, **arguments):
    return evaluate_images(reals.train, fake, networks, held_out=halves[0], settings=FEW, **arguments)


# --- what gets worse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_the_more_noise_the_further_and_the_fewer_realistic(noisy, extractor):
    for metric, sign in (("frechet", 1), ("kernel", 1), ("precision", -1), ("density", -1), ("coverage", -1)):
        name = f"{metric}/{extractor}"
        for values in ([x["metrics"][name] for x in noisy], [x["same_n"][name]["mean"] for x in noisy]):
            steps = sign * np.diff(values)
            assert (steps > 0).all(), (name, values)


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_the_floor_is_that_of_good_images_and_below_all_noise(noisy, extractor):
    good, noise = noisy[0], noisy[1]
    for metric in ("frechet", "kernel"):
        name = f"{metric}/{extractor}"
        assert good["floor"][name]["mean"] < noise["same_n"][name]["mean"]
        # Real images are about as far as the floor: much nearer to it than those with noise.
        away = [abs(found["same_n"][name]["mean"] - good["floor"][name]["mean"]) for found in (good, noise)]
        assert away[0] < away[1] / 2
        assert noise["floor"][name] == good["floor"][name]  # it knows nothing of the generated images


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_classes_left_out_lower_recall_and_coverage_but_not_precision(reals, networks, halves, extractor):
    fake = halves[1]
    kept = rows(fake, fake.labels >= 5)
    whole = rows(fake, torch.arange(len(kept.labels)))  # as many of all classes
    one, other = (
        {name: value["mean"] for name, value in evaluated(reals, networks, halves, x.tensor)["same_n"].items()}
        for x in (whole, kept)
    )
    for metric in ("recall", "coverage"):
        assert other[f"{metric}/{extractor}"] < one[f"{metric}/{extractor}"]
    assert other[f"precision/{extractor}"] > 0.9
    for metric in ("frechet", "kernel"):
        assert other[f"{metric}/{extractor}"] > one[f"{metric}/{extractor}"]


def test_the_classes_of_images_by_hand(reals, networks, halves):
    kept = rows(halves[1], halves[1].labels >= 5)
    found = evaluated(reals, networks, halves, kept.tensor)
    network = networks[0]
    with torch.no_grad():
        shares = [
            np.bincount(network(images.tensor).logits.argmax(1), minlength=10) / len(images.labels)
            for images in (reals.train, kept)
        ]
    said = found["classes"]["digits_cnn"]
    assert said["names"] == [str(i) for i in range(10)]
    np.testing.assert_allclose(said["real"], shares[0], atol=1e-6)
    np.testing.assert_allclose(said["fake"], shares[1], atol=1e-6)
    metrics = found["metrics"]
    assert metrics["class_variation/digits_cnn"] == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert 0.4 < metrics["class_variation/digits_cnn"] < 0.6 and metrics["missing_classes/digits_cnn"] >= 4
    assert found["floor"]["missing_classes/digits_cnn"]["mean"] == 0
    assert not any("class" in name and "random_cnn" in name for name in metrics)  # it knows none
    assert "random_cnn" not in found["classes"]


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_pictures_made_many_times_keep_precision_exactly_and_lose_recall(reals, networks, halves, extractor):
    few = halves[1].tensor[:27]
    once, often = (evaluated(reals, networks, halves, x)["metrics"] for x in (few, few.repeat(10, 1, 1, 1)))
    assert often[f"precision/{extractor}"] == pytest.approx(once[f"precision/{extractor}"], abs=1e-12)
    assert often[f"density/{extractor}"] == pytest.approx(once[f"density/{extractor}"], abs=1e-12)
    assert often[f"precision/{extractor}"] > 0.9
    whole = evaluated(reals, networks, halves, halves[1].tensor)["metrics"]
    assert often[f"recall/{extractor}"] < 0.1 < 0.8 < whole[f"recall/{extractor}"]
    assert often[f"coverage/{extractor}"] < whole[f"coverage/{extractor}"] / 2


def test_labels_are_seen_within_classes_and_by_agreement_alone(reals, networks, halves):
    fake = rows(halves[1], torch.argsort(halves[1].labels, stable=True))
    wrong = fake.labels.roll(len(fake.labels) // 2)
    right, exchanged, none = (
        evaluated(reals, networks[:1], halves, fake.tensor, labels=labels)["metrics"]
        for labels in (fake.labels, wrong, None)
    )
    assert right["class_agreement/digits_cnn"] > 0.85 > 0.2 > exchanged["class_agreement/digits_cnn"]
    for name in none:
        assert right[name] == exchanged[name] == none[name]
    assert set(right) - set(none) <= {"class_agreement/digits_cnn", "intra_class_frechet/digits_cnn"}
    twice = fake.tensor.repeat(2, 1, 1, 1)  # so that each class has the 32 images that its distance needs
    within = [
        evaluated(reals, networks, halves, twice, labels=labels.repeat(2))["metrics"] for labels in (fake.labels, wrong)
    ]
    for extractor in EXTRACTORS:
        name = f"intra_class_frechet/{extractor}"
        assert within[1][name] > 2 * within[0][name] > 0


# --- the same N -------------------------------------------------------------------------------------------------------


def test_at_the_same_n_and_at_the_floor_are_the_metrics_of_so_many_images(reals, networks):
    """With 120 images on all sides a draw is of all of them; a second call and the functions alone say the same."""
    real, fake, held_out = (rows(reals.test, slice(start, start + 120)) for start in (0, 120, 240))
    found = evaluate_images(real, fake.tensor, networks, held_out=held_out, settings=FEW)
    assert found["counts"] == {"real": 120, "fake": 120, "held_out": 120, "same_n": 120, "draws": 2}
    other = evaluate_images(real, held_out.tensor, networks, settings=FEW)
    for name, value in found["metrics"].items():
        if not name.startswith("kernel"):
            assert found["same_n"][name]["mean"] == pytest.approx(value, rel=1e-9, abs=1e-9)
            assert found["same_n"][name]["sd"] < 1e-9
            assert found["floor"][name]["mean"] == pytest.approx(other["metrics"][name], rel=1e-9, abs=1e-9)
    for network in networks:
        x, y, z = (seen(network, as_uint8(images.tensor)).features for images in (real, fake, held_out))
        scale = np.var(x, axis=0, ddof=1).mean() ** -0.5
        mean = x.mean(0)
        x, y, z = ((features - mean) * scale for features in (x, y, z))
        for which, others in (("same_n", y), ("floor", z)):
            values = found[which]
            assert values[f"kernel/{network.name}"]["mean"] == pytest.approx(squared_mmd(x, others), rel=1e-9)
            assert values[f"frechet/{network.name}"]["mean"] == pytest.approx(frechet_distance(x, others), rel=1e-9)
            for name, value in manifold(x, others, 5)._asdict().items():
                assert values[f"{name}/{network.name}"]["mean"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("fakes", "held_out", "expected"), [(100, 60, 60), (50, 60, 50), (300, 400, 200), (90, None, 90), (500, None, 100)]
)
def test_both_sides_of_floor_and_generated_have_one_n(reals, networks, fakes, held_out, expected):
    fake = reals.train.tensor[-fakes:]
    others = None if held_out is None else rows(reals.test, slice(0, held_out))
    settings = Settings(subsets=1, draws=1)
    found = evaluate_images(rows(reals.train, slice(0, 200)), fake, networks[1:], held_out=others, settings=settings)
    assert found["counts"]["same_n"] == expected
    assert any("lack rank" in note for note in found["notes"]) == (expected <= 64)


class Numbers(nn.Module):
    """One feature, a number written into the first pixels."""

    name, classes, rescaled = "number", (), False

    def forward(self, images):
        return Extracted(images[:, 0, 0, :1].double() + images[:, 0, 0, 1:2].double() / 256)


def test_without_held_out_images_the_floor_is_of_two_disjoint_halves():
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (16, 1, 4, 4), dtype=np.uint8))
    real = Images(pixels.float() / 127.5 - 1, torch.full((16,), -1), ())
    found = evaluate_images(real, pixels[:8], [Numbers()], settings=Settings(subsets=1, draws=5))
    values = pixels[:, 0, 0, 0].double().numpy() + pixels[:, 0, 0, 1].double().numpy() / 256
    every = np.array(list(combinations(range(16), 8)))
    masks = np.zeros((len(every), 16), bool)
    np.put_along_axis(masks, every, True, 1)
    one, other = values[every], np.stack([values[~mask] for mask in masks])
    distances = (one.mean(1) - other.mean(1)) ** 2 + (one.std(1, ddof=1) - other.std(1, ddof=1)) ** 2
    for draw in range(5):
        settings = Settings(subsets=1, draws=1, seed=draw)
        floor = evaluate_images(real, pixels[:8], [Numbers()], settings=settings)["floor"]["frechet/number"]
        assert np.abs(distances - floor["mean"]).min() < 1e-9 * distances.max()
    assert found["floor"]["frechet/number"]["sd"] > 0


def test_a_distance_within_classes_that_some_draws_lack_is_no_mean_of_the_others():
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (70, 1, 4, 4), dtype=np.uint8))
    labels = torch.tensor([0] * 66 + [1] * 4)
    real = Images(pixels.float() / 127.5 - 1, labels, ("a", "b"))
    given = []  # whether the value is there, over 1, 2, ... draws of one seed
    for seed in range(6):
        settings = [Settings(subsets=1, draws=draws, seed=seed) for draws in (1, 2, 4, 8)]
        found = [evaluate_images(real, pixels[:34], [Numbers()], labels=labels[:34], settings=x) for x in settings]
        assert all("intra_class_frechet/number" in one["metrics"] for one in found)
        given.append(["intra_class_frechet/number" in one["same_n"] for one in found])
        assert given[-1] == sorted(given[-1], reverse=True)  # what one draw lacks, more draws lack
    assert [True, False] in [[one[0], one[-1]] for one in given]


def test_fewer_images_are_further_away_by_the_estimate_alone(reals, networks):
    floors = []
    for count in (100, 400):
        fake, held_out = reals.test.tensor[:count], rows(reals.test, slice(0, count))
        found = evaluate_images(reals.train, fake, networks, held_out=held_out, settings=FEW)
        floors.append([found["floor"][f"frechet/{name}"]["mean"] for name in EXTRACTORS])
    assert all(small > 1.5 * large for small, large in zip(*floors, strict=True))


# --- what must not matter ---------------------------------------------------------------------------------------------


def test_no_number_depends_on_the_batch_size(reals, networks, halves):
    fake = halves[1].tensor
    one, other = (evaluated(reals, networks, halves, fake, batch_size=size) for size in (7, 1000))
    assert one.keys() == other.keys()
    for name, value in one["metrics"].items():
        assert value == pytest.approx(other["metrics"][name], rel=1e-4, abs=1e-6), name
    for which in ("same_n", "floor"):
        for name, value in one[which].items():
            assert value["mean"] == pytest.approx(other[which][name]["mean"], rel=1e-4, abs=1e-6), name


def test_bytes_and_floats_that_round_to_them_have_the_same_numbers(reals, networks, halves):
    fake = halves[1].tensor
    jitter = torch.rand(fake.shape, generator=torch.Generator().manual_seed(0)) * 0.9 / 255 - 0.45 / 255
    as_bytes, as_floats = (evaluated(reals, networks, halves, x) for x in (as_uint8(fake), fake + jitter))
    assert as_bytes == as_floats


def test_the_seed_decides_draws_and_nothing_outside_changes(reals, networks, halves):
    network = networks[0].train()
    torch.manual_seed(3)
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in network.state_dict().items()}
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002
    fake = halves[1].tensor[:60]
    found = [
        evaluate_images(reals.train, fake, networks, held_out=halves[0], settings=FEW._replace(seed=seed))
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0]["same_n"]["frechet/digits_cnn"] != found[2]["same_n"]["frechet/digits_cnn"]
    assert found[0]["metrics"]["frechet/digits_cnn"] == found[2]["metrics"]["frechet/digits_cnn"]
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == legacy).all()  # noqa: NPY002
    assert network.training and all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    network.eval()


def test_the_mean_variance_of_real_features_is_1(reals, networks, halves):
    found = evaluated(reals, networks, halves, halves[1].tensor)
    for network in networks:
        features = seen(network, as_uint8(reals.train.tensor)).features
        scale = found["extractors"][network.name]["scale"]
        assert np.var(scale * features, axis=0, ddof=1).mean() == pytest.approx(1, abs=1e-12)
        assert found["extractors"][network.name]["features"] == features.shape[1]


class Moved(RandomCNN):
    """The same features in another unit, from another zero."""

    def forward(self, images):
        return Extracted(1000 * super().forward(images).features.double() + 50)


def test_unit_and_zero_of_features_do_not_matter_where_they_are_rescaled(reals, networks, halves):
    plain, moved, raw = RandomCNN(1), Moved(1, name="moved"), Moved(1, name="raw")
    raw.rescaled = False
    metrics = evaluated(reals, [plain, moved, raw], halves, halves[1].tensor)["metrics"]
    for metric in ("frechet", "kernel", "precision", "recall", "density", "coverage"):
        assert metrics[f"{metric}/moved"] == pytest.approx(metrics[f"{metric}/random_cnn"], rel=1e-6, abs=1e-9)
    scale = scale_of(seen(raw, as_uint8(reals.train.tensor)).features)
    assert metrics["frechet/raw"] * scale**2 == pytest.approx(metrics["frechet/moved"], rel=1e-6)
    assert metrics["recall/raw"] == metrics["recall/moved"]


def test_few_rows_bound_neighbours_and_not_distances(reals, networks, halves):
    fake = halves[1].tensor
    all_rows, few = (
        evaluate_images(reals.train, fake, networks[1:], held_out=halves[0], settings=FEW._replace(rows=count))
        for count in (10_000, 100)
    )
    assert few["metrics"]["frechet/random_cnn"] == all_rows["metrics"]["frechet/random_cnn"]
    assert few["metrics"]["recall/random_cnn"] * 100 == pytest.approx(round(few["metrics"]["recall/random_cnn"] * 100))
    assert few["metrics"]["coverage/random_cnn"] > all_rows["metrics"]["coverage/random_cnn"]  # 100 to 100, not to 800


def test_what_depends_on_the_real_images_alone_is_computed_once(reals, networks, halves, monkeypatch):
    calls = {"gaussian": 0, "squared_radii": 0}

    def counted(name, function):
        def call(*arguments):
            calls[name] += 1
            return function(*arguments)

        for module in ("suite", "gaussians", "neighbourhoods"):
            monkeypatch.setattr(f"contraux.clgen.metrics.{module}.{name}", call, raising=False)

    counted("gaussian", gaussian)
    counted("squared_radii", squared_radii)
    evaluate_images(reals.train, halves[1].tensor, networks[1:], held_out=halves[0], settings=FEW)
    assert calls == {"gaussian": 2 + 3 * FEW.draws, "squared_radii": 2 + 3 * FEW.draws}


def test_a_classifier_is_trained_where_it_is_told(reals):
    with pytest.raises(ValueError, match="device must be auto, cpu or another that torch finds here, got 'abacus'"):
        classifier(reals, steps=1, width=8, device="abacus")
    devices = set()

    class Watched(Classifier):
        def forward(self, images):
            devices.add((images.device.type, self.head.weight.device.type))
            return super().forward(images)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    made, accuracy = fit(
        lambda: Watched((1, 8, 8), reals.train.classes, "watched", 8), reals.train, reals.test, steps=2, batch_size=8,
        learning_rate=0.01, weight_decay=0.0, seed=0, device=device,
    )  # fmt: skip
    assert devices == {(device, device), ("cpu", "cpu")} and made.head.weight.device.type == "cpu" and accuracy > 0


def test_names_never_say_fid_and_all_is_json(noisy):
    found = noisy[1]

    def keys(value):
        for key, below in value.items() if isinstance(value, dict) else ():
            yield key
            yield from keys(below)

    assert not [key for key in keys(found) if "fid" in key.lower() or "inception" in key.lower()]
    for which in ("metrics", "same_n", "floor"):
        assert {name.partition("/")[2] for name in found[which]} == set(EXTRACTORS)
        assert found["metrics"].keys() == found[which].keys()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert all(math.isfinite(value) for value in found["metrics"].values())


# --- extractors -------------------------------------------------------------------------------------------------------


def test_a_classifier_is_decided_by_its_seed_and_trained_on_the_training_split_alone(reals):
    few = partial(classifier, width=8, steps=3)
    one = few(reals)
    other = few(reals._replace(test=rows(reals.test, slice(0, 40))))
    unlike = few(reals, seed=1)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert not torch.equal(one.head.weight, unlike.head.weight)
    with torch.no_grad():
        predicted = one(reals.test.tensor).logits.argmax(1)
    assert one.metadata["held_out"] == pytest.approx((predicted == reals.test.labels).double().mean().item())
    assert few(reals._replace(test=None)).metadata["held_out"] is None
    assert not any(parameter.requires_grad for parameter in one.parameters()) and not one.training


def test_a_classifier_learns_digits(networks):
    assert networks[0].metadata["held_out"] > 0.9  # of 10 classes, after 200 steps


def test_images_of_another_size_and_grey_ones_are_suited_to_the_network():
    network = Classifier((3, 8, 8), ("a", "b"), "colours", 8).eval()
    grey = digits("test").inputs[:4]
    assert torch.equal(network(grey).features, network(grey.expand(-1, 3, -1, -1)).features)
    assert network(torch.zeros(2, 3, 16, 16)).features.shape == (2, 32)
    with pytest.raises(ValueError, match=r"colours reads images of 3 channels, got \(2, 4, 8, 8\)"):
        network(torch.zeros(2, 4, 8, 8))


class Pixels:
    """An extractor that is no module: the pixels themselves, as they were handed."""

    name, classes, rescaled = "pixels", (), False

    def __call__(self, images):
        return Extracted(images.flatten(1))


def test_any_callable_with_three_attributes_is_an_extractor(reals, halves):
    fake = halves[1].tensor
    found = evaluated(reals, [Pixels()], halves, fake)["metrics"]["frechet/pixels"]
    x, y = (np.rint((images.flatten(1).double().numpy() + 1) * 127.5) for images in (reals.train.tensor, fake))
    assert found == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_random_weights_are_he_and_by_seed():
    one, same, other = RandomCNN(3, 32), RandomCNN(3, 32), RandomCNN(3, 32, seed=1)
    x = torch.rand(4, 3, 16, 16)
    assert torch.equal(one(x).features, same(x).features) and not torch.equal(one(x).features, other(x).features)
    for layer in one.layers:
        if isinstance(layer, nn.Conv2d):
            spread = layer.weight.square().mean().item() * layer.weight[0].numel() / 2
            assert abs(spread - 1) < 4 * math.sqrt(2 / layer.weight.numel())


def test_what_has_no_labels_goes_without_a_classifier(reals):
    unlabelled = reals._replace(train=reals.train._replace(labels=torch.full((len(reals.train.labels),), -1)))
    found, notes = made([classifier, random_cnn], unlabelled)
    assert [extractor.name for extractor in found] == ["random_cnn"] and "its images have no labels" in notes[0]
    with pytest.raises(ValueError, match="at least one extractor, got none; no classifier of digits"):
        made([classifier], unlabelled)
    with pytest.raises(NoLabels):
        classifier(unlabelled)
    with pytest.raises(ValueError, match="different names, got random_cnn, random_cnn"):
        made([random_cnn, random_cnn], reals)


def test_a_classifier_of_other_classes_says_nothing_of_shares(reals, networks, halves):
    renamed = reals.train._replace(classes=tuple("abcdefghij"))
    found = evaluate_images(renamed, halves[1].tensor, networks[:1], settings=FEW)
    assert found["classes"] == {} and not any("class" in name for name in found["metrics"])


def test_the_python_of_the_page_runs():
    """With a classifier that is there already, smaller than the one the page trains."""
    page = Path(__file__).resolve().parents[3] / "docs/generative_metrics.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    small = Reals(images_of(digits("train"), 16), images_of(digits("test"), 16), "digits")
    classifier(small, folder="extractors/digits_16", width=8, steps=1)
    names = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    assert len(blocks) == 3 and 0 < names["found"]["floor"]["frechet/digits_cnn"]["mean"] < 1e3
    assert names["x"].shape == (len(small.train.labels), 64) and names["fakes"].shape == (300, 1, 16, 16)


# --- mistakes ---------------------------------------------------------------------------------------------------------

SMALL = Images(torch.zeros(20, 1, 8, 8), torch.zeros(20, dtype=torch.long), ("a", "b"))
VARIED = SMALL._replace(tensor=torch.linspace(-1, 1, 20 * 64).reshape(20, 1, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"fake": VARIED.tensor[:7]}, "at least 8 images on each side, got 7"),
        ({"fake": VARIED.tensor, "settings": Settings(k=10)}, "at least 11 images on each side, got 10"),
        ({"fake": VARIED.tensor, "held_out": rows(VARIED, slice(0, 3))}, "at least 8 images on each side, got 3"),
        ({"fake": torch.zeros(9, 3, 8, 8)}, r"fake images must be like the real ones, \(N, 1, 8, 8\), got \(9, 3, 8"),
        ({"fake": torch.zeros(9, 1, 8)}, r"\(N, 1, 8, 8\), got \(9, 1, 8\)"),
        ({"held_out": SMALL._replace(tensor=torch.zeros(20, 1, 4, 4))}, r"held_out images must be like the real ones"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"one for each of 20 fakes, got \(3,\)"),
        ({"labels": torch.zeros(20)}, "labels must be whole numbers"),
        ({"labels": torch.full((20,), 2)}, "labels must be < 2, the number of classes, got 2"),
        ({"fake": torch.full((9, 1, 8, 8), math.nan)}, "fake images must be finite, and 9 of 9 are not"),
        ({"fake": torch.zeros(9, 1, 8, 8, dtype=torch.long)}, r"must be uint8 in \[0, 255\] or floats in \[-1, 1\]"),
        ({"real": SMALL}, "features of real images must vary"),
        ({"settings": Settings(draws=0)}, "draws must be a whole number >= 1, got 0"),
        ({"settings": Settings(k=0)}, "k must be a whole number >= 1, got 0"),
        ({"settings": Settings(k=2.5)}, "k must be a whole number >= 1, got 2.5"),
        ({"settings": Settings(k="five")}, "k must be a whole number >= 1, got 'five'"),
        ({"settings": Settings(rows=5)}, "rows must be a whole number >= 6, got 5"),
        ({"settings": Settings(rows="all")}, "rows must be a whole number >= 6, got 'all'"),
        ({"settings": Settings(seed=-1)}, "seed must be a whole number >= 0, got -1"),
        ({"settings": Settings(subset_size=21)}, "subset_size must be <= the smaller set's rows, 20, got 21"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
    ],
)
def test_mistakes_are_said(arguments, sentence):
    given = {"real": VARIED, "fake": VARIED.tensor, **arguments}
    with pytest.raises(ValueError, match=sentence):
        evaluate_images(given.pop("real"), given.pop("fake"), [RandomCNN(1)], **given)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"width": 12}, "width must be a multiple of 8, got 12"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"batch_size": 1}, "batch_size must be a whole number >= 2, got 1"),
        ({"learning_rate": 0}, "learning_rate must be a number > 0, got 0"),
        ({"weight_decay": -1}, "weight_decay must be a number >= 0, got -1"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        (
            {"learning_rate": 1e30, "steps": 101, "width": 8, "batch_size": 4},
            "the loss of an extractor must stay finite, got nan at step 100",
        ),
    ],
)
def test_mistakes_of_a_classifier_are_said(reals, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        classifier(reals, **arguments)
