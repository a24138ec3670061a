"""Bandit and Bayesian: what they reward, when they decide, that they find the better arm, and that they resume."""

import io
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from contraux.core import Contrastive, Pairs
from contraux.core.losses import info_nce, triplet
from contraux.core.samplers import Arm, Bandit, Bayesian, Chain, Hardness, Queue
from contraux.core.samplers.adaptive import arm_weights, scaled_gain, tally
from contraux.core.samplers.bayesian import upper_confidence
from contraux.core.samplers.policies import Exp3, Thompson, exp3_probabilities, exp3_update

ARMS = [(0.0, 0.0), (1.0, 0.5), (1.0, 1.0)]
MAKERS = {
    "exp3": lambda **kwargs: Bandit(**{"arms": ARMS, "method": "exp3", "interval": 2, "warmup": 4, "seed": 3} | kwargs),
    "thompson": lambda **kwargs: Bandit(
        **{"arms": ARMS, "method": "thompson", "interval": 2, "warmup": 4, "seed": 3} | kwargs
    ),
    "bayesian": lambda **kwargs: Bayesian(**{"interval": 2, "warmup": 4, "seed": 3} | kwargs),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
QUERIES = 1000


def batch(sampler, accuracy):
    """One batch in which that share of the queries is correct."""
    similarity = torch.zeros(QUERIES, 2)
    similarity[: round(accuracy * QUERIES), 0] = 1.0
    found = sampler(similarity, torch.zeros(QUERIES, dtype=torch.long), None, {})
    sampler.remember(torch.zeros(2, 3), {})
    return found


def train(sampler, intervals, value, seed=0):
    """A learner whose accuracy rises by `value(arm)` in each interval, with noise; return the arms that were taken."""
    rng, accuracy, arms = np.random.default_rng(seed), 0.2, []
    for _ in range(intervals):
        accuracy = min(max(accuracy + value(sampler.arm), 0.1), 0.9)
        for _ in range(sampler.interval):
            batch(sampler, min(max(accuracy + rng.normal(0, 0.01), 0), 1))
        arms.append(sampler.arm)
    return arms


def test_arm_weights_by_hand():
    # uniform 1 and hardness weights 0.5 and 1.5 (e^{beta s / t} = 1 and 3), mixed 3 to 1
    similarity, negative = torch.tensor([[9.0, 0.0, math.log(3) / 4]]), torch.tensor([[False, True, True]])
    found = arm_weights(similarity, negative, 2.0, 0.25, 0.5)
    assert found[0, 1:].tolist() == pytest.approx([0.75 + 0.125, 0.75 + 0.375])
    assert arm_weights(similarity, negative, 5.0, 0.0, 0.1)[0, 1:].tolist() == [1, 1]
    assert arm_weights(similarity, ~negative, 5.0, 1.0, 0.1)[0, 0] == 1


def test_tally_counts_who_is_correct():
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.5, 0.5, 0.1], [0.1, 0.2, 0.9], [0.9, 0.1, 0.1], [0.1, 0.2, 0.9]])
    is_positive = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    negative = ~is_positive
    assert [x.item() for x in tally(similarity, negative, is_positive)] == [
        2,
        4,
    ]  # a tie is wrong, no positive no count
    negative[3] = False
    negative[2, 2] = False
    negative[1, 1] = False
    assert [x.item() for x in tally(similarity, negative, is_positive)] == [2, 2]


def test_gains_are_scaled_by_the_largest_of_late():
    assert scaled_gain(0.0, 0.0) == (0.5, 0.0)
    assert scaled_gain(0.2, 0.0) == (1.0, 0.2)
    reward, scale = scaled_gain(-0.09, 0.2)
    assert (reward, scale) == (pytest.approx(0.25), pytest.approx(0.18))
    assert scaled_gain(-0.3, 0.2) == (0.0, 0.3)


def test_exp3_by_hand():
    p = exp3_probabilities(np.array([math.log(3), 0.0]), 0.2)
    assert p.tolist() == pytest.approx([0.8 * 0.75 + 0.1, 0.8 * 0.25 + 0.1])
    updated = exp3_update(np.array([math.log(3), 0.0]), 1, 0.6, 0.2, 0.5)
    # the arm of probability 0.3: log w + 0.2 x (0.6 / 0.3) / 2 = 0.2; the other only halves its log w
    assert updated.tolist() == pytest.approx([math.log(3) / 2, 0.2])
    policy = Exp3(2, 0.2, 1.0)
    policy.learn(0, 1.0)
    assert policy.learned() == pytest.approx([0.2 * (1 / 0.5) / 2, 0.0])
    assert exp3_probabilities(np.array([2000.0, 0.0]), 0.1).tolist() == pytest.approx([0.95, 0.05])


def test_thompson_draws_from_the_posterior():
    policy = Thompson(2, 0.5)
    for arm, reward in ((0, 0.75), (1, 0.25)):
        policy.learn(arm, reward)
    assert policy.learned() == [0.375, 0.25, 0.125, 0.75]
    rng = np.random.default_rng(0)
    drawn, probabilities = zip(*(policy.draw(rng) for _ in range(500)), strict=True)
    # P(Beta(1.375, 1.125) > Beta(1.25, 1.75)), by an integral over a grid
    from scipy.stats import beta

    x = (np.arange(10_000) + 0.5) / 10_000
    expected = (beta.pdf(x, 1.375, 1.125) * beta.cdf(x, 1.25, 1.75)).mean()
    assert 1 - np.mean(drawn) == pytest.approx(expected, abs=0.08)
    assert np.mean(probabilities, axis=0)[0] == pytest.approx(expected, abs=0.005)


def test_upper_confidence_is_the_posterior():
    """Against the formula of a Gaussian process, written out."""
    rng = np.random.default_rng(0)
    points, rewards, candidates = rng.random((5, 2)), rng.random(5), rng.random((7, 2))

    def kernel(a, b):
        d = math.sqrt(5) * np.linalg.norm(a[:, None] - b[None], axis=2) / 0.5
        return (1 + d + d**2 / 3) * np.exp(-d)

    noise = np.diag([0.5**-4, 0.5**-3, 0.5**-2, 0.5**-1, 1.0])
    inverse, cross = np.linalg.inv(kernel(points, points) + noise), kernel(candidates, points)
    y = (rewards - rewards.mean()) / rewards.std()
    mean = rewards.mean() + rewards.std() * cross @ inverse @ y
    deviation = rewards.std() * np.sqrt(1 - np.einsum("ij,jk,ik->i", cross, inverse, cross))
    found = upper_confidence(points, rewards, candidates, 1.5, 0.5)
    np.testing.assert_allclose(found, mean + 1.5 * deviation, rtol=1e-6)
    assert np.isfinite(upper_confidence(points[:1], rewards[:1], candidates, 1.0, 0.9)).all()


@every
def test_warm_up_is_uniform_and_decisions_come_every_interval(make):
    sampler = make(interval=3, warmup=7)
    decided = []
    for _ in range(15):
        weights = batch(sampler, 0.5).weights
        if not decided or decided[-1] == 0:
            assert (weights[:, 1] == 1).all()
        decided.append(sampler.decisions)
        if not sampler.decisions:
            assert sampler.arm == Arm(0.0, 0.0) and sampler.metrics()["sampler/reward"] == 0.5
    assert decided == [0] * 8 + [1] * 3 + [2] * 3 + [3]


@every
def test_the_reward_is_the_gain_over_the_interval_before(make):
    sampler = make()
    for accuracy in (0.1, 0.3, 0.4, 0.6):  # the warm-up; its last interval has accuracy 0.5
        batch(sampler, accuracy)
    assert sampler.decisions == 1
    arm = sampler.arm
    for accuracy in (0.6, 0.8):  # + 0.2, the largest so far
        assert sampler.arm == arm
        batch(sampler, accuracy)
    assert sampler.metrics()["sampler/reward"] == 1.0
    for accuracy in (0.6, 0.71):  # - 0.045 with a scale of 0.18
        batch(sampler, accuracy)
    assert sampler.metrics()["sampler/reward"].item() == pytest.approx(0.5 - 0.125)


@every
def test_weights_are_those_of_the_arm(make):
    sampler = make()
    train(sampler, 5, lambda arm: 0.05)
    similarity = torch.rand(4, 6)
    found = sampler.eval()(similarity, torch.arange(4), None, {}).weights
    hardness, hard_ratio, _ = sampler.arm
    expected = Hardness(hardness, 0.1)(similarity, torch.arange(4), None, {}).weights * hard_ratio + (1 - hard_ratio)
    torch.testing.assert_close(found, expected.scatter(1, torch.arange(4)[:, None], 0.0))
    assert sampler.metrics()["sampler/hardness"].item() == pytest.approx(hardness)


@pytest.mark.parametrize("best", [0, 2])
@pytest.mark.parametrize("name", ["exp3", "thompson"])
def test_a_bandit_finds_the_better_arm(name, best):
    shares = []
    for seed in range(3):
        sampler = MAKERS[name](seed=seed, discount=0.99)
        arms = train(sampler, 400, lambda arm: 0.02 if arm == Arm(*ARMS[best]) else -0.02, seed)
        shares.append(sum(arm == Arm(*ARMS[best]) for arm in arms[-200:]) / 200)
        assert sampler.policy.draw(np.random.default_rng(0))[1].argmax() == best
    assert min(shares) > 0.6, shares


def test_a_bandit_follows_a_best_arm_that_changes():
    sampler = MAKERS["thompson"](discount=0.95)
    train(sampler, 200, lambda arm: 0.02 if arm == Arm(*ARMS[0]) else -0.02)
    arms = train(sampler, 200, lambda arm: 0.02 if arm == Arm(*ARMS[2]) else -0.02, seed=1)
    assert sum(arm == Arm(*ARMS[2]) for arm in arms[-100:]) > 60


def test_bayesian_optimisation_finds_the_better_region():
    errors = []
    for seed in range(3):
        sampler = Bayesian(hard_ratio=(1.0, 1.0), interval=2, warmup=0, seed=seed)
        arms = train(sampler, 80, lambda arm: 0.03 - 0.2 * abs(arm.hardness - 0.2), seed)
        assert all(0 <= arm.hardness <= 1 and arm.hard_ratio == 1 for arm in arms[1:])
        errors.append(np.mean([abs(arm.hardness - 0.2) for arm in arms[-40:]]))
    assert max(errors) < 0.2, errors  # a random choice is 0.34 off


def test_bayesian_optimisation_forgets_what_is_older_than_its_window():
    sampler = Bayesian(interval=2, warmup=0, window=3)
    arms = train(sampler, 8, lambda arm: 0.01)
    # the last arm has no reward yet
    assert sampler.points[:, 0].tolist() == pytest.approx([arm.hardness for arm in arms[-4:-1]])
    assert len(sampler.rewards) == 3


@every
@pytest.mark.parametrize("batches", [3, 9, 12])
def test_a_restored_sampler_makes_the_same_choices(make, batches):
    one = make()
    rng = np.random.default_rng(1)
    for _ in range(batches):
        batch(one, rng.random())
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = make()
    other.load_state_dict(torch.load(file, weights_only=True))
    for accuracy in rng.random(30):
        first, second = batch(one, accuracy), batch(other, accuracy)
        assert torch.equal(first.weights, second.weights) and one.arm == other.arm
        assert one.metrics() == other.metrics()
    assert len(set(train(one, 10, lambda arm: 0.0))) > 1


@every
def test_evaluation_measures_and_chooses_nothing(make):
    sampler = make()
    train(sampler, 4, lambda arm: 0.1)
    before = {name: value.clone() for name, value in sampler.state_dict().items()}
    sampler.eval()
    for _ in range(9):
        batch(sampler, 0.1)
    after = sampler.state_dict()
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in after)
    assert sampler.decisions > 0


class Reads(TorchDispatchMode):
    """Counts what asks a tensor for its value."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            self.count += 1
        return func(*args, **(kwargs or {}))


@every
def test_the_device_is_read_once_an_interval(make, monkeypatch):
    lists = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: lists.append(1) or tolist(self))
    sampler = make(interval=5, warmup=5)
    with Reads() as reads:
        for _ in range(30):
            batch(sampler, 0.5)
            sampler.metrics()
    assert reads.count == 0 and len(lists) == 6


@every
def test_no_global_random_state_is_touched(make):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(make(), 10, lambda arm: 0.01)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_blocks_of_rows_are_one_batch():
    whole, blocks = MAKERS["exp3"](), MAKERS["exp3"]()
    for _ in range(4):
        similarity, positive = torch.randn(6, 8), torch.arange(6)
        whole(similarity, positive, None, {})
        for rows in (slice(0, 4), slice(4, 6)):
            blocks(similarity[rows], positive[rows], None, {})
        for sampler in (whole, blocks):
            sampler.remember(similarity, {})
    assert whole.decisions == 1
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(whole.state_dict().values(), blocks.state_dict().values(), strict=True)
    )


def test_the_chosen_temperature_is_the_losses():
    arms = [(0.0, 0.0, 0.5), (0.0, 0.0, 0.25)]
    sampler = Bandit(arms, interval=1, warmup=0)
    objective = Contrastive(4, sampler=sampler, temperature=0.9)
    seen = set()
    for _ in range(12):
        pairs = Pairs(torch.randn(5, 4), torch.randn(5, 4), torch.arange(5))
        chosen = objective.sampler.temperature
        seen.add(chosen)
        similarity = torch.nn.functional.cosine_similarity(pairs.query[:, None], pairs.key[None], dim=2)
        outcome = objective(pairs)
        torch.testing.assert_close(outcome.loss, info_nce(similarity, pairs.positive, None, chosen))
        assert outcome.metrics["sampler/temperature"].item() in (0.5, 0.25)
    assert seen == {0.5, 0.25}
    with pytest.raises(ValueError, match=r"triplet has no temperature: it must be None, got 0.5"):
        Contrastive(4, sampler=sampler, loss=triplet)
    low, high = 0.05, 0.8
    chooser = Bayesian(temperatures=(low, high), interval=1, warmup=0)
    assert chooser.temperature == pytest.approx(0.2)  # geometric mean
    arms = train(chooser, 30, lambda arm: 0.0)
    assert all(low <= arm.temperature <= high for arm in arms) and len({arm.temperature for arm in arms}) > 20


def test_with_a_queue_in_an_objective():
    objective = Contrastive(4, sampler=Chain([Queue(4, 12), Bandit(ARMS, interval=2, warmup=2)]))
    for _ in range(8):
        features = torch.randn(6, 4, requires_grad=True)
        outcome = objective(Pairs(features, features + 0.1 * torch.randn(6, 4), torch.arange(6)))
        outcome.loss.backward()
        assert features.grad.isfinite().all() and outcome.loss.isfinite()
    assert objective.sampler.samplers[1].decisions == 4
    assert {"sampler/arm", "sampler/probability", "sampler/hardness", "sampler/hard_ratio", "sampler/reward"} <= set(
        outcome.metrics
    )


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Bandit(ARMS[:1]), "Bandit needs at least 2 arms, got 1"),
        (lambda: Bandit([(0, 0), (1, 1, 0.5)]), "all arms of Bandit must have a temperature or none, got some with"),
        (lambda: Bandit([(0, 0), (1, 1.5)]), r"hard_ratio of arm 1 must be a number in \[0, 1\], got 1.5"),
        (lambda: Bandit([(-1, 0), (1, 1)]), "hardness of arm 0 must be a number >= 0, got -1"),
        (lambda: Bandit(method="exp4"), "unknown method of Bandit 'exp4': did you mean exp3"),
        (lambda: Bandit(interval=0), "interval of Bandit must be a whole number >= 1, got 0"),
        (lambda: Bandit(discount=0.0), r"discount of Bandit must be a number in \(0, 1\], got 0.0"),
        (lambda: Bayesian(hardness=(1, 0)), "high hardness of Bayesian must be a number >= 1, got 0"),
        (lambda: Bayesian(hard_ratio=(0, 2)), r"high hard_ratio of Bayesian must be a number in \[0, 1\], got 2"),
        (lambda: Bayesian(temperatures=(0, 1)), "low temperatures of Bayesian must be a number > 0, got 0"),
        (lambda: Bayesian(hardness=(1,)), r"hardness of Bayesian must be \(low, high\), got 1 numbers"),
        (lambda: Chain([Bandit([(0, 0, 0.1), (1, 1, 0.1)])] * 2), "may choose the temperature, got 2"),
    ],
)
def test_wrong_construction(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
