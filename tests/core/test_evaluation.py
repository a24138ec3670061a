"""Measures of frozen features, by hand and against independent references."""

import copy
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import nn

from contraux.core.data.protocol import Batch
from contraux.core.evaluation import (
    Episodes,
    Features,
    FewLabels,
    FineTune,
    Geometry,
    LinearProbe,
    NearestNeighbours,
    RawInputs,
    Subject,
    calibrate,
    draw_labels,
    effective_rank,
    features,
    nearest_neighbours,
)
from contraux.core.evaluation.draws import shots_name
from contraux.core.evaluation.episodes import draw_episodes, logistic, prototypes
from contraux.core.evaluation.geometry import evenly_spaced, same_class_pairs
from contraux.core.evaluation.linear import Probe, entropy


class Data:
    """A data set in memory."""

    def __init__(self, inputs, labels, classes=()):
        self.inputs, self.labels = torch.as_tensor(inputs), torch.as_tensor(labels).long()
        self.shape, self.classes = tuple(self.inputs.shape[1:]), classes
        self.mean, self.std = (0.0,) * self.shape[0], (1.0,) * self.shape[0]

    def __len__(self):
        return len(self.inputs)

    def __getitems__(self, indices):
        return Batch(self.inputs[indices], self.labels[indices])


def subject_of(train, test, encoder=None, **kwargs):
    encoder = RawInputs() if encoder is None else encoder
    return Subject(encoder, features(encoder, train), features(encoder, test), train, test, **kwargs)


def blobs(n, classes=3, d=4, spread=0.3, seed=0):
    """Vectors around `classes` corners, each class equally often."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return Data((np.eye(classes, d)[labels] * 3 + spread * rng.normal(size=(n, d))).astype(np.float32), labels)


def network(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 16, 5)]
    return Scaled(nn.Sequential(*layers))


class Scaled(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.float() / 255)


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pictures = rng.integers(0, 100, size=(n, 1, 6, 6)) + 120 * labels[:, None, None, None]
    return Data(pictures.astype(np.uint8), labels)


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_are_those_of_eval_mode_in_order_and_leave_the_encoder_alone():
    encoder, data = network(), images(23)
    encoder.train()
    encoder.net[1].eval()  # a mode of its own
    before = copy.deepcopy(encoder.state_dict())
    modes = [part.training for part in encoder.modules()]
    made = features(encoder, data, batch_size=7)
    assert made.rows.dtype == np.float32 and made.rows.shape == (23, 5)
    assert made.labels.tolist() == data.labels.tolist()
    assert [part.training for part in encoder.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())
    with torch.no_grad():
        np.testing.assert_allclose(made.rows, encoder.eval()(data.inputs).numpy(), atol=1e-6)


def test_workers_change_nothing():
    one, two = (features(RawInputs(), images(20), batch_size=6, workers=workers) for workers in (0, 2))
    assert (one.rows == two.rows).all() and (one.labels == two.labels).all()


class Broken(nn.Module):
    def forward(self, x):
        rows = x.float().flatten(1)
        rows[3, 0] = float("nan")
        return rows


def test_features_refuse_what_nobody_can_measure():
    with pytest.raises(ValueError, match="features must be finite, and those of 1 of 8 examples are not"):
        features(Broken(), images(8))
    with pytest.raises(ValueError, match=r"must return \(N, D\) features, got \(8, 1, 6, 6\)"):
        features(nn.Identity(), images(8))
    with pytest.raises(ValueError, match="at least 1 example, got 0"):
        features(RawInputs(), images(0))
    with pytest.raises(ValueError, match="batch_size must be a whole number >= 1, got 0"):
        features(RawInputs(), images(4), batch_size=0)


def test_raw_inputs_are_in_the_unit_interval_and_large_images_are_averaged():
    assert RawInputs()(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)).tolist() == [[pytest.approx(0.2)] * 9] * 2
    assert RawInputs()(torch.tensor([[300.0, -2.0]])).tolist() == [[300.0, -2.0]]
    image = torch.tensor([[0, 2, 10, 10], [4, 6, 10, 10]]).repeat(1, 1, 1, 1).to(torch.uint8)
    np.testing.assert_allclose(RawInputs(2)(image) * 255, [[1, 10, 5, 10]], rtol=1e-6)  # 2 rows stay, 4 columns -> 2
    assert RawInputs()(torch.zeros(1, 3, 96, 40, dtype=torch.uint8)).shape == (1, 3 * 32 * 32)


def test_standardised_uses_the_training_split_for_both_and_keeps_constants():
    train = Data(np.array([[0.0, 5.0], [2.0, 5.0]], np.float32), [0, 1])
    test = Data(np.array([[4.0, 6.0]], np.float32), [0])
    standard_train, standard_test = subject_of(train, test).standardised
    assert standard_train.rows.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert standard_test.rows.tolist() == [[3.0, 1.0]]


# --- draws ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=60), st.integers(1, 4), st.integers(0, 5))
def test_draws_have_as_many_of_each_class_and_contain_smaller_ones(labels, shots, seed):
    labels = np.array(labels)
    if np.unique(labels, return_counts=True)[1].min() < shots:
        with pytest.raises(ValueError, match=f"{shots} labels of each class need as many examples, and class"):
            draw_labels(labels, shots, seed)
        return
    chosen = draw_labels(labels, shots, seed)
    assert len(set(chosen)) == len(chosen)
    assert (np.unique(labels[chosen], return_counts=True)[1] == shots).all()
    assert set(np.unique(labels[chosen])) == set(np.unique(labels))
    assert shots == 1 or set(draw_labels(labels, shots - 1, seed)) < set(chosen)


def test_a_share_is_that_of_each_class_and_at_least_one():
    labels = np.repeat([0, 1, 2], [200, 100, 10])
    assert np.bincount(labels[draw_labels(labels, "2%", 0)]).tolist() == [4, 2, 1]
    assert [shots_name(shots) for shots in (5, "1%", "12.5 %")] == ["5_shot", "1_percent", "12.5_percent"]
    assert not np.array_equal(draw_labels(labels, 5, 0), draw_labels(labels, 5, 1))
    with pytest.raises(ValueError, match="class 'seven' has 10"):
        draw_labels(labels, 11, 0, ["one", "two", "seven"])
    for broken in ("5", "101%", "0%"):
        with pytest.raises(ValueError, match="shots"):
            shots_name(broken)


# --- linear probes ----------------------------------------------------------------------------------------------------


def test_a_probe_separates_what_is_separable_and_says_when_it_has_not_converged():
    train, test = blobs(60), blobs(30, seed=1)
    assert LinearProbe()(subject_of(train, test), 0).values == {"linear": 100.0}
    noisy = subject_of(blobs(60, spread=3.0), test)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said in the report, not on the terminal
        found = LinearProbe(max_iter=2)(noisy, 0)
    assert found.notes == ["linear: 1 of 1 fits had not converged after max_iter=2 iterations"]
    assert not LinearProbe()(noisy, 0).notes


def test_one_class_only_is_what_is_predicted():
    predicted, converged = Probe().predict(np.zeros((3, 2)), np.array([4, 4, 4]), np.ones((2, 2)))
    assert predicted.tolist() == [4, 4] and converged


def test_unknown_classes_count_neither_in_training_nor_in_the_accuracy():
    train, test = blobs(60), blobs(30, seed=1)
    train.labels[:30] = -1
    test.labels[::2] = -1
    subject = subject_of(train, test)
    for measure, name in ((LinearProbe(), "linear"), (FewLabels(shots=[2]), "linear_2_shot"), (FineTune(), None)):
        values = measure(subject, 0).values
        assert name is None or values[name] == 100.0
    assert NearestNeighbours(k=5)(subject, 0).values["knn"] == 100.0


def test_few_labels_is_the_mean_over_draws_that_a_seed_repeats():
    train, test = blobs(90, spread=1.5), blobs(60, spread=1.5, seed=1)
    subject = subject_of(train, test)
    measure = FewLabels(shots=[1, 10, "50%"], draws=3)
    found = measure(subject, 3).values
    assert list(found) == ["linear_1_shot", "linear_10_shot", "linear_50_percent"]
    assert found == measure(subject, 3).values != measure(subject, 4).values
    standard_train, standard_test = subject.standardised
    by_hand = []
    for draw in range(3):
        i = draw_labels(standard_train.labels, 1, (3, draw))
        model = LogisticRegression().fit(standard_train.rows[i], standard_train.labels[i])
        by_hand.append(100 * model.score(standard_test.rows, standard_test.labels))
    assert found["linear_1_shot"] == pytest.approx(np.mean(by_hand))
    assert found["linear_1_shot"] < found["linear_50_percent"]


def test_several_labels_of_each_example_have_a_probe_each():
    train, test = blobs(80, classes=4), blobs(40, classes=4, seed=1)
    rng = np.random.default_rng(0)
    for data in (train, test):
        known, n = data.labels, len(data)
        coin = torch.as_tensor(rng.integers(0, 2, n))
        rare = torch.as_tensor((np.arange(n) % 20 == 0).astype(np.int64))
        data.labels = torch.stack([known + 7, torch.zeros(n).long(), coin, rare], 1)
    found = LinearProbe(min_entropy=0.6)(subject_of(train, test), 0)
    assert found.notes[0] == "linear: means over 2 of 4 labels, those of at least 0.6 nats"
    coin_accuracy = 2 * found.values["linear"] - 100  # the class is told without a mistake, the coin is not
    assert 20 < coin_accuracy < 80
    assert found.values["linear_f1"] <= 100
    two = LinearProbe(min_entropy=0.0, most=2)(subject_of(train, test), 0)  # of labels 0, 2 and 3: the first and last
    assert two.notes[0] == "linear: means over 2, evenly spaced, of the 3 of 4 labels, those of at least 0 nats"
    assert two.values["linear"] > found.values["linear"] + 5  # without the coin
    everything = LinearProbe(min_entropy=0.0, most=None)(subject_of(train, test), 0)
    assert everything.notes[0] == "linear: means over 3 of 4 labels, those of at least 0 nats"
    with pytest.raises(ValueError, match="none of the 4 has it"):
        LinearProbe(min_entropy=3.0)(subject_of(train, test), 0)


def test_f1_is_weighted_by_how_often_a_value_occurs():
    """Two values, told by the sign of x; of the test's 4, three are 0 and one of these is misplaced.

    By hand: F1(0) = 2 * 1 * (2/3) / (1 + 2/3) = 0.8 with weight 3/4, F1(1) = 2 * (1/2) * 1 / 1.5 = 2/3 with 1/4.
    """
    train = Data(np.array([[-1.0]] * 4 + [[1.0]] * 4, np.float32), [[0]] * 4 + [[1]] * 4)
    test = Data(np.array([[-1.0], [-1.0], [1.0], [1.0]], np.float32), [[0], [0], [0], [1]])
    found = LinearProbe()(subject_of(train, test), 0).values
    assert found["linear"] == 75.0
    assert found["linear_f1"] == pytest.approx(100 * (0.75 * 0.8 + 0.25 * 2 / 3))


def test_entropy_by_hand():
    assert entropy(np.array([3, 3, 3])) == 0.0
    assert entropy(np.array([0, 0, 0, 9])) == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_one_near_neighbour_outweighs_two_farther_ones_at_a_low_temperature():
    """Label 5 once at cos 1, label 2 twice at cos 0.6: e^(1/t) against 2 e^(0.6/t), equal at t = 0.4 / ln 2."""
    train = np.array([[2.0, 0.0], [0.6, 0.8], [0.6, -0.8], [-1.0, 0.0]], np.float32)
    labels, query = np.array([5, 2, 2, 7]), np.array([[9.0, 0.0]], np.float32)
    equal = 0.4 / np.log(2)
    assert nearest_neighbours(train, labels, query, k=3, temperature=equal - 0.01).tolist() == [5]
    assert nearest_neighbours(train, labels, query, k=3, temperature=equal + 0.01).tolist() == [2]
    assert nearest_neighbours(train, labels, query, k=1, temperature=5.0).tolist() == [5]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(1, 30), st.sampled_from([1, 31, 100, 10_000]))
def test_neighbours_vote_as_in_a_plain_loop_in_blocks_of_any_size(seed, k, budget):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(30, 5)).astype(np.float32), rng.normal(size=(11, 5)).astype(np.float32)
    labels = rng.integers(0, 4, 30)
    expected = []
    for x in test.astype(float):
        cosine = [float(x @ z / np.linalg.norm(x) / np.linalg.norm(z)) for z in train.astype(float)]
        votes = np.zeros(4)
        for i in sorted(range(30), key=lambda i: -cosine[i])[:k]:
            votes[labels[i]] += np.exp(cosine[i] / 0.1)
        expected.append(int(votes.argmax()))
    assert nearest_neighbours(train, labels, test, k=k, budget=budget).tolist() == expected


def test_more_neighbours_than_examples_are_all_of_them_and_said():
    train, test = blobs(60), blobs(30, seed=1)
    found = NearestNeighbours()(subject_of(train, test), 0)
    assert found.values == {"knn": 100.0} and found.notes == ["knn: k = 60, all training examples, instead of 200"]
    with pytest.raises(ValueError, match="k must be at most the number of training rows, 60, got 61"):
        nearest_neighbours(train.inputs.numpy(), train.labels.numpy(), test.inputs.numpy(), k=61)


# --- episodes ---------------------------------------------------------------------------------------------------------


def test_prototypes_by_hand():
    """One dimension, two ways of two shots: prototypes 1 and 5, so that queries up to 3 belong to the first."""
    support = torch.tensor([[[[0.0], [2.0]], [[4.0], [6.0]]]])
    query = torch.tensor([[[[2.9], [3.1], [-9.0]], [[2.9], [3.1], [99.0]]]])
    assert prototypes(support, query).tolist() == [pytest.approx(4 / 6)]


@pytest.mark.parametrize(("ways", "shots", "c"), [(2, 4, 0.01), (5, 3, 0.1), (4, 5, 10.0)])
def test_logistic_agrees_with_scikit_learn_episode_by_episode(ways, shots, c):
    data = blobs(300, classes=6, d=20, spread=1.5)
    made = features(RawInputs(), data)
    support, query = draw_episodes(made, ways, shots, 10, 12, 0)
    expected = []
    for own, asked in zip(support.double().numpy(), query.double().numpy(), strict=True):
        # scikit-learn's binary model has one weight vector, w = 2 v: |w|^2 / 2 there is 2 (|v|^2 + |v|^2) / 2 here
        strength = 2 * c if ways == 2 else c
        model = LogisticRegression(C=strength, fit_intercept=False, tol=1e-8, max_iter=10_000)
        model.fit(own.reshape(ways * shots, -1), np.repeat(range(ways), shots))
        expected.append(model.score(asked.reshape(ways * 10, -1), np.repeat(range(ways), 10)))
    np.testing.assert_allclose(logistic(support.double(), query.double(), c, tolerance=1e-9), expected, atol=1e-9)
    assert np.abs(logistic(support, query, c).numpy() - expected).max() <= 1 / (10 * ways) + 1e-9  # as it is used


def test_episodes_draw_distinct_examples_of_distinct_classes():
    rows = np.arange(80, dtype=np.float32)[:, None]
    labels = np.arange(80) % 4
    support, query = draw_episodes(Features(rows, labels), ways=3, shots=2, queries=5, episodes=50, seed=0)
    assert support.shape == (50, 3, 2, 1) and query.shape == (50, 3, 5, 1)
    for episode in torch.cat([support, query], 2).squeeze(3):
        drawn = episode.long()
        assert len(drawn.unique()) == 21  # no example twice
        assert (drawn % 4 == drawn[:, :1] % 4).all() and len((drawn[:, 0] % 4).unique()) == 3
    with pytest.raises(ValueError, match="5-way episodes need as many classes, and the test split has 4"):
        draw_episodes(Features(rows, labels), 5, 1, 1, 2, 0)
    with pytest.raises(ValueError, match="need 21 test examples of each class, and class 'zero' has 20"):
        draw_episodes(Features(rows, labels), 2, 6, 15, 2, 0, ["zero"])


def test_episodes_report_a_mean_and_half_of_its_interval():
    subject = subject_of(blobs(200, classes=5, d=6, spread=1.5), blobs(200, classes=5, d=6, spread=1.5, seed=1))
    measure = Episodes(ways=3, shots=[1, 4], queries=6, episodes=40)
    found = measure(subject, 0)
    names = ["prototypes_3_way_1_shot", "logistic_3_way_1_shot", "prototypes_3_way_4_shot", "logistic_3_way_4_shot"]
    assert list(found.values) == list(found.half_widths) == names
    support, query = draw_episodes(subject.standardised[1], 3, 1, 6, 40, (0, 1))
    each = 100 * prototypes(support, query).numpy()
    assert found.values[names[0]] == pytest.approx(each.mean())
    assert found.half_widths[names[0]] == pytest.approx(1.96 * each.std(ddof=1) / np.sqrt(40))
    assert found.values[names[2]] > found.values[names[0]] > 100 / 3
    assert measure(subject, 1).values != found.values == measure(subject, 0).values


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_effective_rank_by_hand():
    """Singular values 3 and 1: p = 3/4, 1/4, and e^H = 4 / 3^(3/4)."""
    rows = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # of mean 0, so the same centred
    for centred in (True, False):
        assert effective_rank(rows, centred=centred) == pytest.approx(4 / 3**0.75)
    shifted = rows + torch.tensor([100.0, 0.0])
    assert effective_rank(shifted) == pytest.approx(4 / 3**0.75)
    assert effective_rank(shifted, centred=False) == pytest.approx(1.05, abs=0.01)  # RankMe sees the mean
    assert effective_rank(torch.eye(7), centred=False) == pytest.approx(7)
    constant = torch.full((5, 3), 0.1)
    assert effective_rank(constant) == 0.0 and effective_rank(constant, centred=False) == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"features must be floating \(N, D\)"):
        effective_rank(torch.zeros(3))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.integers(2, 12), st.integers(1, 6), st.floats(0.01, 100))
def test_effective_rank_is_in_its_range_and_knows_no_scale_or_rotation(seed, n, d, scale):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    rank = effective_rank(rows)
    assert 1 - 1e-9 <= rank <= min(n - 1, d) + 1e-9
    assert effective_rank(scale * rows @ rotation) == pytest.approx(rank)


def test_geometry_by_hand():
    """Four points on the unit circle, of a class each two neighbours: |a - b|^2 = 2 within, all pairs 2 or 4."""
    points = Data(np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -1.0]], np.float32), [0, 0, 1, 1])
    found = Geometry()(subject_of(points, points), 0).values
    assert found["alignment_of_classes"] == pytest.approx(2.0)
    assert found["uniformity"] == pytest.approx(np.log((4 * np.exp(-4.0) + 2 * np.exp(-8.0)) / 6))
    assert "alignment_of_views" not in found
    s = np.linalg.svd(points.inputs.numpy() - points.inputs.numpy().mean(0), compute_uv=False)
    p = s / s.sum()
    assert found["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
    few = Geometry(rows=3)(subject_of(points, points), 0)
    assert few.notes == ["geometry: 3 of 4 test examples, evenly spaced"]
    points.labels = torch.tensor([-1, -1, -1, -1])
    assert "alignment_of_classes" not in Geometry()(subject_of(points, points), 0).values


def test_unknown_classes_are_no_pair():
    points = Data(np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -1.0]], np.float32), [0, 0, -1, -1])
    points.inputs[1] = torch.tensor([4.0, 0.0])
    assert Geometry()(subject_of(points, points), 0).values["alignment_of_classes"] == pytest.approx(0.0)


def test_alignment_of_views_is_that_of_the_network_within_the_normalisation():
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(2, 2, bias=False)
            nn.init.eye_(self.encoder.weight)

        def forward(self, x):
            return self.encoder(x / 100 - 7)

    def views(x, generator):
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2), torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    encoder, data = Normalised(), blobs(10, classes=2, d=2)
    found = Geometry()(subject_of(data, data, encoder, views=views, batch_size=4), 0)
    assert found.values["alignment_of_views"] == pytest.approx(2.0)


def test_pairs_of_a_class_never_pair_an_example_with_itself():
    labels = np.array([0, 0, 0, 1, 2, 2])
    first, second = same_class_pairs(labels)
    assert (labels[first] == labels[second]).all() and (first != second).all()
    assert sorted(first) == sorted(second) == [0, 1, 2, 4, 5]
    assert evenly_spaced(10, 4).tolist() == [0, 3, 6, 9] and evenly_spaced(3, 9).tolist() == [0, 1, 2]


# --- baselines --------------------------------------------------------------------------------------------------------


def test_calibration_is_the_mean_over_batches_and_touches_nothing_else():
    encoder, data = network(), images(40)
    before = copy.deepcopy(encoder.state_dict())
    made = calibrate(encoder, data, batch_size=20)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    with torch.no_grad():
        maps = encoder.net[0](data.inputs.float() / 255)
    norm = made.net[1]
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    variances = torch.stack([maps[half].transpose(0, 1).flatten(1).var(1) for half in order.split(20)])
    torch.testing.assert_close(norm.running_var, variances.mean(0), atol=1e-5, rtol=1e-5)
    assert not norm.training or encoder.net[1].training
    assert norm.momentum == encoder.net[1].momentum and norm.num_batches_tracked == 2
    for (name, one), other in zip(made.named_parameters(), encoder.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_calibration_of_what_has_no_batch_normalisation_is_a_copy():
    encoder = nn.Linear(4, 2)
    made = calibrate(encoder, blobs(10))
    assert made is not encoder and torch.equal(made.weight, encoder.weight)


def test_calibration_leaves_out_a_last_batch_that_is_smaller():
    assert calibrate(network(), images(43), batch_size=20).net[1].num_batches_tracked == 2
    assert calibrate(network(), images(7), batch_size=20).net[1].num_batches_tracked == 1
    assert calibrate(network(), images(60), batch_size=20, examples=25).net[1].num_batches_tracked == 1


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_fine_tuning_learns_in_a_copy():
    encoder, train, test = calibrate(network(), images(60)).eval(), images(60), images(40, seed=1)
    before = copy.deepcopy(encoder.state_dict())
    subject = subject_of(train, test, encoder)
    state = torch.get_rng_state()
    measure = FineTune(shots=[5, "50%"], epochs=60, learning_rate=1e-2, encoder_learning_rate=1e-3)
    found = measure(subject, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(found.values) == ["fine_tune_5_shot", "fine_tune_50_percent"]
    assert min(found.values.values()) > 90
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert found.values == measure(subject, 0).values


def test_fine_tuning_moves_the_encoder_and_not_only_the_head():
    """Features that a frozen encoder has thrown away can only come back through its own weights."""

    class OneLess(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 0.1]]))

        def forward(self, x):
            return x @ self.weight.T

    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    inputs = np.stack([2 * rng.normal(size=200), 2.0 * labels - 1], 1).astype(np.float32)
    train, test = Data(inputs[:100], labels[:100]), Data(inputs[100:], labels[100:])
    subject = subject_of(train, test, OneLess())
    frozen, tuned = (
        FineTune(shots=[40], epochs=200, learning_rate=1e-2, encoder_learning_rate=rate)(subject, 0).values
        for rate in (0.0, 3e-2)
    )
    assert frozen["fine_tune_40_shot"] < 75 and tuned["fine_tune_40_shot"] > 90
    assert FineTune()(subject_of(train, test), 0).values == {}  # nothing to tune in raw inputs


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LinearProbe(c=0), "c must be a number > 0, got 0"),
        (lambda: LinearProbe(most=0), "most must be a whole number >= 1, got 0"),
        (lambda: LinearProbe(min_entropy=-1), "min_entropy must be a number >= 0, got -1"),
        (lambda: FewLabels(shots=[0]), "shots must be a whole number >= 1, got 0"),
        (lambda: FewLabels(draws=0), "draws must be a whole number >= 1, got 0"),
        (lambda: NearestNeighbours(k=0), "k must be a whole number >= 1, got 0"),
        (lambda: NearestNeighbours(temperature=0), "temperature must be a number > 0, got 0"),
        (lambda: Episodes(ways=1), "ways must be a whole number >= 2, got 1"),
        (lambda: Episodes(shots=["1%"]), "shots must be a whole number >= 1, got '1%'"),
        (lambda: FineTune(epochs=0), "epochs must be a whole number >= 1, got 0"),
        (lambda: Geometry(rows=1), "rows must be a whole number >= 2, got 1"),
    ],
)
def test_settings_break_their_rules(make, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        make()
