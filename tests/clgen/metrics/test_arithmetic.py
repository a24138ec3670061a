"""Distances and shares on features: hand numbers, properties, and the sums of other libraries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contraux.clgen.metrics import (
    class_agreement,
    class_shares,
    frechet,
    frechet_distance,
    gaussian,
    gaussian_of,
    intra_class_frechet,
    kernel_distance,
    manifold,
    missing_classes,
    squared_mmd,
    total_variation,
)
from contraux.clgen.metrics import rows as rows_module

SIDES = {"real": True, "fake": False}


def features(count, dim=6, seed=0, shift=0.0, spread=1.0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, dim)) @ np.diag(np.linspace(0.5, 2, dim)) * spread + shift


# --- Fréchet ----------------------------------------------------------------------------------------------------------


def test_frechet_of_two_gaussians_by_hand():
    # On one axis: (1 - 4)² + (2 - 3)² = 10. With C₁ = diag(4, 1), C₂ = diag(1, 9): 0 + (2 - 1)² + (1 - 3)² = 5.
    assert frechet(gaussian_of([1.0], [[4.0]]), gaussian_of([4.0], [[9.0]])) == pytest.approx(10, abs=1e-12)
    axes = [gaussian_of([0.0, 0.0], np.diag(values)) for values in ([4.0, 1.0], [1.0, 9.0])]
    assert frechet(*axes) == pytest.approx(5, abs=1e-12)


def test_frechet_of_covariances_that_do_not_commute():
    # C₁ = diag(4, 0) and C₂ = [[1, 1], [1, 1]]: C₁C₂ has the eigenvalues 4 and 0, so 4 + 2 - 2·2 = 2.
    found = frechet(gaussian_of([0, 0], [[4, 0], [0, 0]]), gaussian_of([0, 0], [[1, 1], [1, 1]]))
    assert found == pytest.approx(2, abs=1e-12)


def test_factors_of_rows_and_of_moments_are_one_gaussian(monkeypatch):
    monkeypatch.setattr("contraux.clgen.metrics.gaussians.BLOCK", 7)  # several blocks
    one, other = features(50), features(33, seed=1, shift=0.3)
    for rows in (one, other):
        np.testing.assert_allclose(gaussian(rows).covariance, np.cov(rows.T), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(gaussian(rows).mean, rows.mean(0), rtol=1e-14)
    by_moments = frechet(*(gaussian_of(rows.mean(0), np.cov(rows.T)) for rows in (one, other)))
    assert frechet_distance(one, other) == pytest.approx(by_moments, rel=1e-10)


@pytest.mark.parametrize("count", [2, 4, 40])
def test_a_covariance_without_full_rank_is_handled(count):
    one, other = features(count), features(40, seed=1)
    one[:, 2] = one[:, 1] = 3.0  # two features without any spread
    found = frechet_distance(one, other)
    # The root of C₁^½ C₂ C₁^½, whose eigenvalues are real and >= 0, is the slow way to the same number.
    values, vectors = np.linalg.eigh(np.cov(one.T))
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ np.cov(other.T) @ root).clip(0)
    covariances = np.trace(np.cov(one.T) + np.cov(other.T))
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + covariances - 2 * np.sqrt(inner).sum()
    assert found == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one.copy()) < 1e-12


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 12), st.integers(1, 8))
def test_frechet_is_a_squared_distance(seed, n, m, dim):
    one, other = features(n, dim, seed), features(m, dim, seed + 1, shift=0.5)
    found = frechet_distance(one, other)
    assert found >= 0
    assert frechet_distance(other, one) == pytest.approx(found, rel=1e-9, abs=1e-9)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]
    assert frechet_distance(3 * one @ rotation - 7, 3 * other @ rotation - 7) == pytest.approx(9 * found, rel=1e-6)


def test_frechet_is_that_of_torchmetrics_on_the_same_floats():
    peer = pytest.importorskip("torchmetrics.image.fid")
    metric = peer.FrechetInceptionDistance(feature=Rows(6)).set_dtype(torch.float64)
    sets = {"real": features(120), "fake": features(90, seed=1, shift=0.4, spread=1.2)}
    for side, real in SIDES.items():
        metric.update(torch.from_numpy(sets[side]), real=real)
    assert frechet_distance(sets["real"], sets["fake"]) == pytest.approx(metric.compute().item(), rel=1e-9)


class Rows(nn.Module):
    """A feature module that hands its inputs on."""

    def __init__(self, dim):
        super().__init__()
        self.num_features = dim

    def forward(self, x):
        return x


# --- kernel distance --------------------------------------------------------------------------------------------------


def test_squared_mmd_by_hand():
    # D = 1, x = {0, 1}, y = {1, 2}: k(0,1) = 1; k(1,2) = 27; cross 1, 1, 8, 27. 1 + 27 - 2·37/4 = 9.5.
    assert squared_mmd(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == pytest.approx(9.5, abs=1e-12)


def test_squared_mmd_does_not_depend_on_blocks(monkeypatch):
    one, other = features(40), features(23, seed=1)
    whole = squared_mmd(one, other)
    monkeypatch.setattr("contraux.clgen.metrics.kernel.BLOCK", 50)
    assert squared_mmd(one, other) == pytest.approx(whole, rel=1e-12)


def test_the_estimate_is_unbiased():
    values = [squared_mmd(features(8, 3, seed=2 * i), features(8, 3, seed=2 * i + 1)) for i in range(2000)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error and min(values) < 0


def test_kernel_distance_is_that_of_torchmetrics_on_the_same_floats():
    peer = pytest.importorskip("torchmetrics.image.kid")
    metric = peer.KernelInceptionDistance(feature=Rows(6), subsets=1, subset_size=60).set_dtype(torch.float64)
    sets = {"real": features(60), "fake": features(60, seed=1, shift=0.4)}
    for side, real in SIDES.items():
        metric.update(torch.from_numpy(sets[side]), real=real)
    mean, _ = metric.compute()  # of everything, so the order that it draws does not matter
    found = kernel_distance(sets["real"], sets["fake"], subsets=1, subset_size=60)
    assert found.mean == pytest.approx(mean.item(), rel=1e-9) and found.sd == 0


def test_subsets_are_half_of_the_smaller_set_and_drawn_by_the_seed():
    one, other = features(60), features(41, seed=1)
    found = kernel_distance(one, other, subsets=20)
    assert found.subset_size == 20 and found.sd > 0
    assert found == kernel_distance(one, other, subsets=20) != kernel_distance(one, other, subsets=20, seed=1)
    exact = squared_mmd(one, other)
    assert abs(found.mean - exact) < 3 * found.sd


# --- precision, recall, density, coverage -----------------------------------------------------------------------------


def test_manifold_by_hand():
    # k = 1 on a line. Real 0, 1, 10: radii 1, 1, 9. Fake .5, .6, 1.5, -3: radii .1, .1, .9, 3.5.
    found = manifold(np.array([[0.0], [1], [10]]), np.array([[0.5], [0.6], [1.5], [-3]]), k=1)
    assert found.precision == 3 / 4  # -3 is 3 away from 0, and 13 from 10
    assert found.recall == 2 / 3  # 0 is near -3, 1 near 1.5, 10 near none
    assert found.density == 6 / 4  # each of the first three lies in two neighbourhoods
    assert found.coverage == 1


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_manifold_is_that_of_prdc(k, seed, capsys, monkeypatch):
    compute_prdc = pytest.importorskip("prdc").compute_prdc
    real, fake = features(83, seed=seed), features(57, seed=seed + 10, shift=0.5, spread=0.8)
    expected = compute_prdc(real, fake, nearest_k=k)
    monkeypatch.setattr(rows_module, "BLOCK", 400)  # many blocks
    assert manifold(real, fake, k)._asdict() == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["coverage"] < 1 and 0 < expected["recall"] < 1  # so that each can be wrong


def test_copies_have_all_and_far_ones_nothing():
    real = features(40)
    assert manifold(real, real.copy(), 3)[:2] == (1, 1) and manifold(real, real.copy(), 3).coverage == 1
    assert manifold(real, real + 1e3, 3) == (0, 0, 0, 0)


def test_one_picture_many_times_has_precision_without_recall_or_coverage():
    real = features(200)
    collapsed = real[:1] + 1e-3 * features(200, seed=1)
    found = manifold(real, collapsed)
    assert found.precision > 0.95 and found.recall < 0.02 and found.coverage < 0.1


# --- classes ----------------------------------------------------------------------------------------------------------


def test_shares_variation_and_missing_classes_by_hand():
    real, fake = class_shares(np.array([0, 1, 2, 2]), 4), class_shares(np.array([0, 0, 0, 2]), 4)
    assert real.tolist() == [0.25, 0.25, 0.5, 0] and fake.tolist() == [0.75, 0, 0.25, 0]
    assert total_variation(real, fake) == pytest.approx((0.5 + 0.25 + 0.25) / 2)
    assert missing_classes(real, fake) == 1  # class 3 has no real images either
    assert missing_classes(real, fake, below=0.6) == 2  # class 2 has half of its share


def test_agreement_leaves_out_what_was_asked_to_be_nothing():
    assert class_agreement(np.array([0, 1, -1, 2]), np.array([0, 2, 0, 2])) == pytest.approx(2 / 3)


def test_intra_class_distance_sees_labels_exchanged_and_leaves_out_small_classes():
    real = np.concatenate([features(40), features(40, seed=1, shift=3), features(5, seed=2)])
    labels = np.repeat([0, 1, 2], [40, 40, 5])
    fake = np.concatenate([features(50, seed=3), features(50, seed=4, shift=3), features(50, seed=5)])
    asked = np.repeat([0, 1, 2], 50)
    good = intra_class_frechet(real, labels, fake, asked)
    assert list(good) == [0, 1]
    assert good[1] == pytest.approx(frechet_distance(real[40:80], fake[50:100]), rel=1e-12)
    exchanged = intra_class_frechet(real, labels, fake, np.repeat([1, 0, 2], 50))
    assert min(exchanged.values()) > 10 * max(good.values())
    assert not intra_class_frechet(real, labels, fake, asked, least=51)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: frechet_distance(features(1), features(5)), r"with N >= 2, got \(1, 6\)"),
        (lambda: frechet_distance(features(5, 3), features(5)), "as many features, got 3 and 6"),
        (lambda: squared_mmd(features(5, 3), features(5)), "as many features, got 3 and 6"),
        (lambda: gaussian(np.full((4, 2), np.nan)), "features must be finite, and 4 of 4 are not"),
        (lambda: gaussian_of(np.zeros(2), np.zeros((3, 3))), r"got \(2,\) and \(3, 3\)"),
        (lambda: manifold(features(5), features(9)), r"with N >= 6, got \(5, 6\)"),
        (lambda: manifold(features(5), features(9), k=0), "k must be a whole number >= 1, got 0"),
        (lambda: kernel_distance(features(9), features(5), subset_size=6), "smaller set's rows, 5, got 6"),
        (lambda: class_shares(np.array([0, 4]), 4), r"each in \[0, 4\), got \(2,\)"),
        (lambda: class_agreement(np.array([-1]), np.array([0])), "some known"),
        (lambda: missing_classes(np.ones(1), np.ones(1), 0), "below must be a number in"),
    ],
)
def test_mistakes_are_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
