"""The bonuses' arithmetic: by hand, against float64 references of other algorithms, and never across episodes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contraux.clrl.exploration import Elliptical, EpisodicKNN, Host, RandomNetworkDistillation, Steps
from contraux.clrl.exploration.scale import ReturnScale

ALL = np.ones(1, dtype=bool)


def run(bonus, following, ended=None, first=None):
    """Novelty `(T, E)` of rows `(T, E, D)`."""
    following = torch.as_tensor(np.asarray(following, np.float32))
    ended = np.zeros(following.shape[:2], dtype=bool) if ended is None else np.asarray(ended, dtype=bool)
    first = None if first is None else torch.as_tensor(np.asarray(first, np.float32))
    return bonus.novelty(Steps(following.flatten(0, 1), ended, first)).numpy()


def kernel_reward(squares, mean, k=2, epsilon=1e-4, xi=0.008, c=1e-3):
    nearest = sorted(squares)[:k]
    return 1 / (math.sqrt(sum(epsilon / (max(x / mean - xi, 0) + epsilon) for x in nearest)) + c)


# --- nearest neighbours -----------------------------------------------------------------------------------------------


def test_neighbours_by_hand():
    bonus = EpisodicKNN(Host(2, 1), k=2, momentum=0.5)
    bonus.begin(ALL, torch.tensor([[0.0, 0.0]]))
    found = run(bonus, [[[3.0, 4.0]], [[3.0, 4.0]], [[0.0, 1.0]]])[:, 0]
    # 1: one neighbour at squared distance 25, which is the mean: normalised 1.
    first = 1 / (math.sqrt(1e-4 / (1 - 0.008 + 1e-4)) + 1e-3)
    # 2: at 0 and 25, mean 12.5; running (25 * .25 + 12.5 * .5) / .75 = 50 / 3: normalised 0 and 1.5.
    second = 1 / (math.sqrt(1 + 1e-4 / (1.5 - 0.008 + 1e-4)) + 1e-3)
    # 3: the two nearest of 1, 18, 18; mean 9.5; running (25 * .125 + 12.5 * .25 + 9.5 * .5) / .875.
    third = kernel_reward([1.0, 18.0, 18.0], (25 * 0.125 + 12.5 * 0.25 + 9.5 * 0.5) / 0.875)
    np.testing.assert_allclose(found, [first, second, third], rtol=1e-5)
    assert found[1] < 1.0 < found[2] < found[0]  # a place it has been to is worth less than a near one, than a far one


def test_a_constant_walk_is_worth_ever_less_and_then_nothing_above_the_maximum_similarity():
    bonus = EpisodicKNN(Host(1, 1), k=9, maximum_similarity=2.5)
    bonus.begin(ALL, torch.zeros(1, 1))
    found = run(bonus, np.zeros((9, 1, 1)))[:, 0]
    expected = [1 / (math.sqrt(n) + 1e-3) if math.sqrt(n) + 1e-3 <= 2.5 else 0.0 for n in range(1, 10)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (found[6:] == 0).all() and (found[:6] > 0).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.1, 50.0))
def test_neighbours_do_not_see_the_scale_of_the_embedding(seed, scale):
    z = np.random.default_rng(seed).normal(size=(6, 1, 3))
    one, other = (EpisodicKNN(Host(3, 1), k=3) for _ in range(2))
    for bonus in (one, other):
        bonus.begin(ALL, torch.zeros(1, 3))
    np.testing.assert_allclose(run(one, z), run(other, z * scale), rtol=2e-3)


def test_a_full_memory_forgets_the_oldest():
    small, large = EpisodicKNN(Host(1, 1), k=1, capacity=2, momentum=0.0), EpisodicKNN(Host(1, 1), k=1, momentum=0.0)
    walk = np.array([[[1.0]], [[2.0]], [[0.0]]])  # the start, 0, was overwritten by 2
    for bonus in (small, large):
        bonus.begin(ALL, torch.zeros(1, 1))
    assert run(large, walk)[2, 0] == pytest.approx(1 / 1.001, rel=1e-5)  # been there
    assert run(small, walk)[2, 0] == pytest.approx(kernel_reward([1.0], 1.0, k=1), rel=1e-5)


# --- ellipse ----------------------------------------------------------------------------------------------------------


def test_ellipse_by_hand():
    bonus = Elliptical(Host(2, 1), ridge=0.5)
    bonus.begin(ALL, torch.tensor([[1.0, 0.0]]))  # C = [[1.5, 0], [0, .5]]
    found = run(bonus, [[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]])[:, 0]
    # then C = [[2.5, 0], [0, .5]], then [[2.5, 0], [0, 1.5]]
    np.testing.assert_allclose(found, [1 / 1.5, 1 / 0.5, 1 / 2.5 + 1 / 1.5], rtol=1e-6)


def test_ellipse_equals_a_float64_inverse_over_long_episodes():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 2, 8)) @ np.diag([1.0, 1, 1, 1, 0.1, 0.1, 1e-3, 0])  # some directions hardly ever
    first = rng.normal(size=(2, 8))
    bonus = Elliptical(Host(8, 2), ridge=0.1)
    bonus.begin(np.ones(2, dtype=bool), torch.as_tensor(first.astype(np.float32)))
    found = run(bonus, z)
    z, first = z.astype(np.float32).astype(np.float64), first.astype(np.float32).astype(np.float64)
    for env in range(2):
        covariance = 0.1 * np.eye(8) + np.outer(first[env], first[env])
        for t in range(3000):
            if t % 100 == 0:
                assert found[t, env] == pytest.approx(z[t, env] @ np.linalg.inv(covariance) @ z[t, env], rel=1e-5)
            covariance += np.outer(z[t, env], z[t, env])
        np.testing.assert_allclose(bonus.inverse_EDD[env].numpy(), np.linalg.inv(covariance), rtol=1e-8, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_ellipse_does_not_see_a_rotation_and_seeing_again_is_never_worth_more(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(5, 1, 4))
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    found = []
    for turn in (np.eye(4), rotation):
        bonus = Elliptical(Host(4, 1))
        bonus.begin(ALL, torch.as_tensor((z[0] @ turn).astype(np.float32)))
        found.append(run(bonus, np.concatenate([z, z]) @ turn)[:, 0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
    assert (found[0][5:] <= found[0][:5] + 1e-6).all()


# --- episodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda n: EpisodicKNN(Host(3, n), k=3, momentum=0.0), lambda n: Elliptical(Host(3, n))]
)
def test_episodes_never_mix(make):
    """Two environments with episodes of their own lengths are worth what their episodes are worth alone.

    (Without a running mean, `momentum=0`, each neighbour reward is of its step alone: every env is measured by itself.)
    """
    rng = np.random.default_rng(3)
    lengths = [[4, 7, 1, 8], [9, 2, 9]]  # of both 20 steps
    episodes = [[rng.normal(size=(length + 1, 3)) for length in own] for own in lengths]
    following = np.stack([np.concatenate([episode[1:] for episode in own]) for own in episodes], axis=1)
    ended = np.zeros((20, 2), dtype=bool)
    for env, own in enumerate(lengths):
        ended[np.cumsum(own) - 1, env] = True
    starts = {(np.cumsum(own)[i - 1] - 1, env): episodes[env][i][0] for env, own in enumerate(lengths) for i in
              range(1, len(own))}  # fmt: skip
    first = [starts.get((t, env), np.zeros(3)) for t, env in zip(*np.nonzero(ended), strict=True)]

    if isinstance(make(2), EpisodicKNN):  # its mean is over environments: one at a time
        found = []
        for env in range(2):
            bonus = make(1)
            bonus.begin(ALL, torch.as_tensor(episodes[env][0][:1].astype(np.float32)))
            own = [row for row, (_, e) in zip(first, zip(*np.nonzero(ended), strict=True), strict=True) if e == env]
            found.append(run(bonus, following[:, env : env + 1], ended[:, env : env + 1], own)[:, 0])
        found = np.stack(found, axis=1)
    else:
        bonus = make(2)
        bonus.begin(np.ones(2, dtype=bool), torch.as_tensor(np.stack([e[0][0] for e in episodes]).astype(np.float32)))
        found = run(bonus, following, ended, first)

    for env, own in enumerate(episodes):
        alone = []
        for episode in own:
            bonus = make(1)
            bonus.begin(ALL, torch.as_tensor(episode[:1].astype(np.float32)))
            alone.append(run(bonus, episode[1:, None])[:, 0])
        np.testing.assert_allclose(found[:, env], np.concatenate(alone), rtol=1e-4)


def test_a_step_more_in_one_environment_changes_no_other():
    """Memories of unequal length lie side by side: what is not filled is never a neighbour."""
    both = EpisodicKNN(Host(1, 2), k=5)
    both.begin(np.array([True, True]), torch.tensor([[0.0], [100.0]]))
    run(both, np.array([[[1.0], [101.0]], [[2.0], [102.0]]]), [[False, False], [False, True]], [[100.0]])
    assert both.count.tolist() == [3, 1]
    before = both.mean_square / both.weight
    value = run(both, np.array([[[3.0], [101.0]]]))[0, 1]
    mean = (9 + 4 + 1 + 1) / 4  # of all distances found in this step
    running = (before * both.weight.div(1.0).sub(0.01) + 0.01 * mean) / both.weight
    assert value == pytest.approx(kernel_reward([1.0], float(running), k=5), rel=1e-4)


# --- random network distillation --------------------------------------------------------------------------------------


class Flat(nn.Module):
    features_dim = 4

    def forward(self, x):
        return x


def distillation(**settings):
    torch.manual_seed(0)
    return RandomNetworkDistillation(Host(0, 1, make_encoder=Flat), hidden=32, out=8, **settings)


def test_prediction_error_falls_where_it_has_been_and_not_where_it_has_not():
    bonus = distillation(learning_rate=1e-3, batch_size=16)
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(size=(64, 1, 4)), rng.normal(size=(64, 1, 4)) + 3
    run(bonus, np.concatenate([seen, unseen]))  # whitened by the statistics of both
    bonus._waiting.clear()
    before = run(bonus, seen).mean(), run(bonus, unseen).mean()
    bonus._waiting.clear()
    for _ in range(100):
        run(bonus, seen)
        bonus.update()
    after = run(bonus, seen).mean(), run(bonus, unseen).mean()
    assert after[0] < 0.1 * before[0] and after[1] > 3 * after[0]
    assert bonus.metrics()["predictor_loss"] < before[0]


def test_each_observation_trains_the_predictor_once_and_the_target_never():
    bonus = distillation(batch_size=10)
    target = [parameter.clone() for parameter in bonus.target.parameters()]
    for rows, steps in ((7, 0), (7, 1), (6, 2), (25, 4)):
        run(bonus, np.random.default_rng(rows).normal(size=(rows, 1, 4)))
        bonus.update()
        state = bonus.optimizer.state_dict()["state"]
        assert (int(state[0]["step"]) if state else 0) == steps
    assert all(torch.equal(one, other) for one, other in zip(target, bonus.target.parameters(), strict=True))


def test_whitening_equals_the_moments_of_all_that_was_seen():
    bonus = distillation()
    parts = [np.random.default_rng(n).normal(5, 3, size=(n, 4)).astype(np.float32) for n in (1, 30, 200)]
    for part in parts:
        white = bonus._whiten(torch.as_tensor(part))
    everything = np.concatenate(parts).astype(np.float64)
    expected = np.clip((parts[-1] - everything.mean(0)) / everything.std(0), -5, 5)
    np.testing.assert_allclose(white.numpy(), expected, atol=1e-4)


def test_distillation_goes_on_where_it_was_saved():
    one, other = distillation(batch_size=8), distillation(batch_size=8)
    nn.init.normal_(other.target[-1].weight)
    rows = np.random.default_rng(0).normal(size=(3, 16, 1, 4))
    run(one, rows[0])
    one.update()
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    for bonus in (one, other):
        run(bonus, rows[1])
        bonus.update()
    np.testing.assert_array_equal(run(one, rows[2]), run(other, rows[2]))


# --- scale ------------------------------------------------------------------------------------------------------------


def test_scale_is_the_deviation_of_discounted_returns_that_end_with_episodes():
    novelty = np.random.default_rng(0).uniform(0, 3, size=(50, 2))
    ended = np.zeros((50, 2), dtype=bool)
    ended[[10, 30], 0] = ended[20, 1] = True
    scale, returns, seen = ReturnScale(2, 0.9), np.zeros(2), []
    for t in range(50):
        returns = 0.9 * returns + novelty[t]
        seen.append(returns.copy())
        returns[ended[t]] = 0
    halves = [scale(novelty[:20], ended[:20]), scale(novelty[20:], ended[20:])]
    assert scale.deviation == pytest.approx(np.std(seen), rel=1e-4)
    np.testing.assert_allclose(halves[1], novelty[20:] / scale.deviation)
    other = ReturnScale(2, 0.9)
    other.load_state(scale.state())
    assert other.deviation == scale.deviation


def test_the_first_reward_is_clipped():
    assert ReturnScale(1, 0.99)(np.array([[7.0]]), np.array([[False]])).item() == 5.0


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Elliptical(Host(2, 1), ridge=0), "ridge must be a number > 0, got 0"),
        (lambda: EpisodicKNN(Host(2, 1), k=0), "k must be a whole number >= 1, got 0"),
        (lambda: EpisodicKNN(Host(2, 1), momentum=1.0), r"momentum must be a number in \[0, 1\), got 1.0"),
        (lambda: RandomNetworkDistillation(Host(2, 1)), "needs a host with make_encoder, got None"),
    ],
)
def test_values_out_of_range(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
