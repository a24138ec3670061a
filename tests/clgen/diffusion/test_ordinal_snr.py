"""Ordinal log-SNR InfoNCE against loops in float64, and its limits."""

import math
from functools import partial

import pytest
import torch

from contraux.clgen.diffusion import OrdinalSNR
from contraux.clgen.diffusion.ordinal_snr import soft_targets
from contraux.core import Contrastive
from contraux.core.encoders import ProjectionHead

HEAD = partial(ProjectionHead, hidden=None, out=4)


def method(**settings):
    parts = {"projection": HEAD, "time_projection": HEAD, "objective": partial(Contrastive, temperature=0.5)}
    return OrdinalSNR({"features": (5,), "time": (3,)}, **{**parts, "schedule": None, **settings})


def outcome_of(made, features, time, signal):
    taps = {"denoise": {"features": features, "time": time}}
    return made(taps, {"timesteps": torch.arange(len(signal)), "signal": signal})


def by_loops(made, features, time, signal):
    z = made.projection(features).detach().double().tolist()
    k = made.time_projection(time).detach().double().tolist()
    level = [math.log(a * a / (1 - a * a)) for a in signal.double().tolist()]
    total, kl = 0.0, 0.0
    for i, row in enumerate(z):
        logits = [
            sum(p * q for p, q in zip(row, key, strict=True)) / math.hypot(*row) / math.hypot(*key) / 0.5 for key in k
        ]
        whole = math.log(sum(map(math.exp, logits)))
        target = [math.exp(-((level[i] - one) ** 2) / (2 * made.bandwidth**2)) for one in level]
        share = [one / sum(target) for one in target]
        total += sum(p * (whole - s) for p, s in zip(share, logits, strict=True))
        kl += sum(p * (math.log(p) + whole - s) for p, s in zip(share, logits, strict=True))
    return total / len(z), kl / len(z)


@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
def test_against_loops(bandwidth):
    made, signal = method(bandwidth=bandwidth), torch.tensor([0.9, 0.5, 0.8, 0.2, 0.85])
    features, time = torch.randn(5, 5), torch.randn(5, 3)
    outcome = outcome_of(made, features, time, signal)
    loss, kl = by_loops(made, features, time, signal)
    assert outcome.loss.item() == pytest.approx(loss, rel=1e-5)
    assert outcome.metrics["kl"].item() == pytest.approx(kl, rel=1e-4)


def test_soft_targets_by_hand():
    found = soft_targets(torch.tensor([0.0, 2.0, -1.0]), 2.0)
    expected = torch.tensor([[0, 4, 1], [4, 0, 9], [1, 9, 0]]).mul(-1 / 8).exp()
    torch.testing.assert_close(found, expected)


def test_one_noise_level_tells_nothing():
    """Every target is uniform: the best is to be equally similar to all, and the loss is then log B."""
    made, signal = method(), torch.full((6,), 0.7)
    alike = torch.randn(1, 3).expand(6, 3)
    outcome = outcome_of(made, torch.randn(6, 5), alike, signal)
    assert outcome.loss.item() == pytest.approx(math.log(6), rel=1e-5)
    assert outcome.metrics["kl"].item() == pytest.approx(0.0, abs=1e-5)
    assert outcome.metrics["log_snr_error"] == 0


def test_narrow_targets_are_info_nce_of_each_row_with_its_own_embedding():
    made, signal = method(bandwidth=1e-3), torch.tensor([0.9, 0.5, 0.8, 0.2])
    features, time = torch.randn(4, 5), torch.randn(4, 3)
    z, key = (torch.nn.functional.normalize(x) for x in (made.projection(features), made.time_projection(time)))
    expected = torch.nn.functional.cross_entropy(z @ key.T / 0.5, torch.arange(4))
    torch.testing.assert_close(outcome_of(made, features, time, signal).loss, expected)


def test_the_error_in_nats_by_hand():
    made = method(projection=Same, time_projection=Same)
    made.projection, made.time_projection = torch.nn.Identity(), torch.nn.Identity()
    signal = torch.sigmoid(torch.tensor([0.0, 1.0, 3.0])).sqrt()  # log-SNR of 0, 1 and 3
    features = torch.eye(3, 4)
    key = torch.eye(3, 4)[[0, 2, 1]]  # row 1 finds row 2's embedding and the other way round
    outcome = outcome_of(made, features, key, signal)
    assert outcome.metrics["log_snr_error"].item() == pytest.approx(4 / 3, rel=1e-4)


class Same(torch.nn.Identity):
    out_features = 4


@pytest.mark.parametrize(
    ("learner", "features", "time"), [("both", True, True), ("features", True, False), ("time", False, True)]
)
def test_who_learns(learner, features, time):
    made = method(learner=learner)
    h, e = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    outcome_of(made, h, e, torch.tensor([0.9, 0.5, 0.8, 0.2])).loss.backward()
    assert (h.grad is not None and bool((h.grad.abs().sum(1) > 0).all())) == features
    assert (e.grad is not None and bool((e.grad.abs().sum(1) > 0).all())) == time
    assert all(weight.grad.abs().sum() > 0 for weight in made.parameters() if weight.ndim == 2)


def test_a_timestep_for_all_rows_is_refused():
    with pytest.raises(ValueError, match=r"timestep's embedding must have a row for each .*got 1 for 3"):
        outcome_of(method(), torch.randn(3, 5), torch.randn(1, 3), torch.tensor([0.9, 0.5, 0.8]))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bandwidth": 0.0}, "bandwidth must be a number > 0, got 0.0"),
        ({"learner": "none"}, "unknown learner 'none'"),
        ({"projection": partial(ProjectionHead, out=5)}, "put out one dimension, got 5 and 4"),
    ],
)
def test_sentences(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        method(**settings)
