"""Arms over the same seeds: statistics, tables, pictures, and what is said of data that measures cannot use."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from contraux.core.data import digits
from contraux.core.data.protocol import Batch
from contraux.core.encoders import SmallCNN
from contraux.core.evaluation import (
    Arm,
    Comparison,
    Episodes,
    Features,
    FewLabels,
    Figure,
    FineTune,
    Found,
    Geometry,
    LinearProbe,
    NearestNeighbours,
    RawInputs,
    compare,
    evaluate,
    paired,
)
from contraux.core.evaluation.evaluate import steps
from contraux.core.evaluation.picture import draw, plane
from contraux.core.evaluation.report import as_markdown, as_values, findings, rows, spread_of


class Data:
    def __init__(self, inputs, labels):
        self.inputs, self.labels = torch.as_tensor(inputs), torch.as_tensor(labels).long()
        self.shape, self.classes = tuple(self.inputs.shape[1:]), ()
        self.mean, self.std = (0.0,) * self.shape[0], (1.0,) * self.shape[0]

    def __len__(self):
        return len(self.inputs)

    def __getitems__(self, indices):
        return Batch(self.inputs[indices], self.labels[indices])


def vectors(labels, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    first = labels if labels.ndim == 1 else labels[:, 0]
    return Data((np.eye(4)[first % 4] + rng.normal(size=(len(labels), 4))).astype(np.float32), labels)


class Scale(nn.Module):
    """An encoder that makes a seed visible."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class First:
    """The first feature of the first example, and with `seeded` the seed itself in the tenths."""

    labels = "none"

    def __init__(self, seeded):
        self.seeded, self.calls = seeded, 0

    def __call__(self, subject, seed):
        self.calls += 1
        return Found({"seeded" if self.seeded else "plain": float(subject.test.rows[0, 0]) + self.seeded * seed / 10})


# --- statistics -------------------------------------------------------------------------------------------------------


def test_a_figure_by_hand():
    figure = Figure({0: 1.0, 3: 3.0, 5: 8.0})
    assert figure.mean == 4.0 and figure.sd == pytest.approx(np.sqrt(13))
    assert figure.as_values() == {"mean": 4.0, "sd": figure.sd, "n": 3, "by_seed": {"0": 1.0, "3": 3.0, "5": 8.0}}
    assert Figure({2: 1.0}).sd is None


def test_differences_pair_seeds_and_not_means():
    difference = paired(Figure({0: 10.0, 1: 21.0, 2: 32.0, 7: 0.0}), Figure({2: 30.0, 1: 20.0, 0: 11.0, 9: 99.0}))
    assert difference.mean == pytest.approx(2 / 3) and difference.pairs == 3 and difference.up == 2
    assert -1.0 <= difference.low <= difference.mean <= difference.high <= 2.0
    assert difference.finding == "too few seeds to tell"
    assert paired(Figure({0: 1.0}), Figure({1: 1.0})) is None


def test_a_fixed_figure_meets_every_seed_of_the_other():
    other = Figure({seed: float(seed) for seed in range(5)})
    difference = paired(Figure({0: 10.0}, fixed=True), other)
    assert (difference.mean, difference.pairs, difference.up, difference.finding) == (8.0, 5, 5, "higher")
    assert paired(other, Figure({0: 10.0}, fixed=True)).finding == "lower"
    assert paired(other, Figure({0: 2.0}, fixed=True)).finding == "no difference shown"
    both = paired(Figure({0: 3.0}, fixed=True), Figure({0: 1.0}, fixed=True))
    assert both == (2.0, None, None, 1, 1, 0)


def test_the_interval_is_that_of_the_bootstrap_distribution():
    """Of two differences, 0 and 1, the mean of a resample is 0, 1/2, 1 with probability 1/4, 1/2, 1/4."""
    difference = paired(Figure({0: 0.0, 1: 1.0}), Figure({0: 0.0, 1: 0.0}))
    assert (difference.low, difference.high) == (0.0, 1.0)
    many = paired(Figure({i: float(i % 2) for i in range(100)}), Figure(dict.fromkeys(range(100), 0.0)))
    assert many.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert many.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)


# --- compare ----------------------------------------------------------------------------------------------------------


def test_arms_share_seeds_and_a_fixed_one_is_asked_once():
    train, test = vectors(np.arange(8) % 2), vectors(np.arange(8) % 2, seed=1)
    x = float(test.inputs[0, 0])
    made, told = [], []

    def varying(seed):
        made.append(seed)
        return Scale(seed)

    plain, seeded = First(False), First(True)
    arms = {"one": Arm(lambda _: Scale(10), True), "each": Arm(varying, False)}
    measures = {"plain": plain, "seeded": seeded}
    found = compare(arms, train, test, measures=measures, seeds=[4, 2, 3], tell=told.append)
    assert made == [4, 2, 3] and plain.calls == 1 + 3 and seeded.calls == 3 + 3
    assert len(told) == steps(arms, measures, [4, 2, 3]) and told[0] == "one, seed 4: features"
    assert found.figures["one"]["plain"] == Figure({4: pytest.approx(10 * x)}, True, {})
    assert dict(found.figures["one"]["seeded"].by_seed) == {s: pytest.approx(10 * x + s / 10) for s in (4, 2, 3)}
    assert dict(found.figures["each"]["plain"].by_seed) == {s: pytest.approx(s * x) for s in (4, 2, 3)}
    assert found.differences("one", "each")["plain"].mean == pytest.approx(7 * x)
    assert found.differences("one", "each")["seeded"].mean == pytest.approx(7 * x)
    assert found.embeddings["each"].rows[0, 0] == pytest.approx(4 * x)
    with pytest.raises(ValueError, match="seeds must be at least one, each once"):
        compare(arms, train, test, measures=measures, seeds=[1, 1])


def test_data_without_labels_leave_only_what_needs_none():
    train, test = vectors(np.arange(12) % 2), vectors(np.arange(12) % 2, seed=1)
    test.labels = torch.full((12,), -1)
    measures = {"knn": NearestNeighbours(k=3), "geometry": Geometry()}
    sentence = r"knn need labels, and the test split has none: .*data.label=ram.*measures.knn=null"
    with pytest.raises(ValueError, match=sentence):
        evaluate(RawInputs(), train, test, measures=measures)
    assert set(evaluate(RawInputs(), train, test, measures={"geometry": Geometry()})) == {
        "uniformity",
        "effective_rank",
        "rankme",
    }


def test_several_labels_of_each_example_leave_out_what_needs_one_and_say_so():
    train, test = (vectors(np.stack([np.arange(40) % 4, np.arange(40) % 2], 1), seed) for seed in (0, 1))
    arms = {"raw": Arm(lambda _: RawInputs(), True)}
    measures = {"linear": LinearProbe(), "knn": NearestNeighbours(), "few": FewLabels(), "geometry": Geometry()}
    found = compare(arms, train, test, measures=measures, seeds=[0, 1])
    assert set(found.figures["raw"]) == {"linear", "linear_f1", "uniformity", "effective_rank", "rankme"}
    assert "left out, for they need one label an example, and the data have 2: knn, few" in found.notes


def test_too_few_examples_of_a_class_name_it():
    train, test = vectors(np.array([0] * 9 + [1] * 3)), vectors(np.arange(12) % 2, seed=1)
    with pytest.raises(ValueError, match="5 labels of each class need as many examples, and class 1 has 3"):
        evaluate(RawInputs(), train, test, measures={"few": FewLabels(shots=[1, 5])})
    with pytest.raises(ValueError, match="1-shot episodes with 15 queries need 16 test examples of each class"):
        evaluate(RawInputs(), train, test, measures={"episodes": Episodes(ways=2)})


def test_evaluation_leaves_an_encoder_bit_identical_and_ready_to_train_on():
    torch.manual_seed(0)

    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = SmallCNN((1, 8, 8), width=8)

        def forward(self, x):
            return self.encoder(x.float() / 255)

    encoder, train, test = Normalised().train(), digits("train"), digits("test")
    before, random = copy.deepcopy(encoder.state_dict()), torch.get_rng_state()
    measures = {
        "linear": LinearProbe(), "few": FewLabels(shots=[1, 5], draws=2), "knn": NearestNeighbours(),
        "episodes": Episodes(episodes=20), "fine": FineTune(epochs=2), "geometry": Geometry(),
    }  # fmt: skip
    found = evaluate(encoder, train, test, measures=measures, seeds=[0, 1])
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(part.training for part in encoder.modules())
    assert found["linear"]["n"] == 1 and found["linear_1_shot"]["n"] == 2
    assert found["linear"]["mean"] > found["linear_5_shot"]["mean"] > found["linear_1_shot"]["mean"] > 10
    assert found == evaluate(encoder, train, test, measures=measures, seeds=[0, 1])
    encoder(test.inputs[:4]).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_the_quick_measures_are_the_default():
    found = evaluate(RawInputs(), digits("train"), digits("test"))
    assert list(found) == ["knn", "linear_1_shot", "linear_5_shot", "linear_10_shot"]
    assert found["knn"]["mean"] > 90 and found["linear_1_shot"]["n"] == 5
    assert found["linear_10_shot"]["mean"] == pytest.approx(88.6, abs=1.5)  # the value of these draws


# --- report -----------------------------------------------------------------------------------------------------------


def comparison():
    rng = np.random.default_rng(0)
    own = {"knn": Figure({0: 95.0}, True), "few": Figure({s: 70.0 + s for s in range(5)})}
    other = {"knn": Figure({s: 90.0 - s for s in range(5)}), "few": Figure({s: 70.0 - s for s in range(5)})}
    raw = {"knn": Figure({0: 99.0}, True)}
    embeddings = {name: Features(rng.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 10) for name in "ab"}
    return Comparison({"checkpoint": own, "random": other, "raw": raw}, ["k is small"], embeddings)


def test_the_table_by_hand():
    assert rows(comparison(), "random") == [
        ("knn", "95.0", "88.0 ± 1.6 (n=5)", "99.0", "+7.0 [5.8, 8.2]", "5/5"),
        ("few", "72.0 ± 1.6 (n=5)", "68.0 ± 1.6 (n=5)", "–", "+4.0 [1.6, 6.4]", "4/5"),
    ]
    assert findings(comparison(), "random") == ["checkpoint against random, higher: knn, few"]
    page = as_markdown(comparison(), "random", "Title")
    assert page.startswith(
        "# Title\n\n| measure | checkpoint | random | raw | checkpoint − random [95 %] | seeds up |\n"
    )
    assert "* k is small" in page
    assert [row[-1] for row in rows(comparison(), None)] == ["99.0", "–"]


def test_values_hold_every_figure_and_both_differences():
    values = as_values(comparison())
    assert values["arms"]["random"]["few"]["by_seed"] == {str(s): 70.0 - s for s in range(5)}
    assert values["differences"]["checkpoint - random"]["few"]["mean"] == 4.0
    assert values["differences"]["checkpoint - raw"]["knn"]["pairs"] == 1
    assert "few" not in values["differences"]["checkpoint - raw"]


def test_it_is_said_what_the_spread_is_made_of():
    assert "not of pretraining" in spread_of(1, 5)[0] and len(spread_of(1, 5)) == 1
    assert spread_of(5, 5) == [] and "3 seeds: fewer than 5" in spread_of(3, 3)[0]


# --- picture ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_picture_is_drawn_without_a_screen(tmp_path, method):
    draw(comparison().embeddings, tmp_path / "embedding.png", method=method, classes=[f"c{i}" for i in range(10)])
    assert (tmp_path / "embedding.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["embedding.png"]


def test_the_plane_of_pca_keeps_the_directions_of_most_spread():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(50, 2))
    rows_ND = np.concatenate([hidden, hidden @ rng.normal(size=(2, 5)), 1e-3 * rng.normal(size=(50, 1))], 1)
    rows_ND[:, -1] = 4.0  # a constant feature must not divide by zero
    flat = plane(rows_ND.astype(np.float32), "pca")
    explained = np.linalg.lstsq(flat, hidden - hidden.mean(0), rcond=None)[1]
    assert (explained < 1e-6).all()
    assert plane(np.zeros((3, 1), np.float32), "pca").shape == (3, 2)
    with pytest.raises(ValueError, match="unknown picture 'umap'"):
        plane(rows_ND, "umap")


def test_several_labels_and_unknown_classes_have_a_picture_too(tmp_path):
    rows_ND = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    several = Features(rows_ND, np.zeros((20, 128), np.int64))
    unknown = Features(rows_ND, np.array([-1] * 10 + [3] * 10))
    draw({"several": several, "unknown": unknown}, tmp_path / "a.png", method="pca")
    assert (tmp_path / "a.png").exists()


def test_a_note_names_the_arms_it_is_about_unless_it_is_about_all():
    class Noting(First):
        def __call__(self, subject, seed):
            notes = ["of all", *(["of one"] if isinstance(subject.encoder, Scale) else [])]
            return Found({"x": 0.0}, notes=notes)

    data = vectors(np.arange(8) % 2)
    arms = {"scaled": Arm(Scale, False), "raw": Arm(lambda _: RawInputs(), True)}
    found = compare(arms, data, data, measures={"noting": Noting(True)}, seeds=[1, 2])
    assert found.notes == ["of all", "of one (scaled)"]
