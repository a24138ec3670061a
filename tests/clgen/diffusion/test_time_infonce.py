"""Time-InfoNCE against loops in float64, and its limits."""

import math
import warnings
from functools import partial

import pytest
import torch

from contraux.clgen.diffusion import TimeInfoNCE, second_views
from contraux.core import Contrastive
from contraux.core.losses import graded_info_nce, info_nce

IDENTITY = torch.tensor([7, 8, 9, 7, 8, 11, 7])  # the image 7 three times
SIGNAL = torch.tensor([0.9, 0.5, 0.8, 0.2, 0.0, 0.7, 0.6])  # of the pair of 8 nothing is left


def method(**settings):
    objective = partial(Contrastive, loss=graded_info_nce, temperature=0.2)
    return TimeInfoNCE({"features": (5,)}, **{"objective": objective, "schedule": None, **settings})


def loss_of(features, identity=IDENTITY, signal=SIGNAL, made=None):
    context = {"timesteps": torch.arange(len(features)), "identity": identity, "signal": signal}
    return (made or method())({"denoise": {"features": features}}, context)


def by_loops(features, identity, signal, temperature=0.2):
    h, a, y = features.double().tolist(), signal.double().tolist(), identity.tolist()
    norm = [math.sqrt(sum(v * v for v in row)) for row in h]
    total, anchors = 0.0, 0
    for i in range(len(h)):
        scaled = {}
        for j in range(len(h)):
            if j == i or (y[i] == y[j] and min(a[i], a[j]) == 0):
                continue
            cosine = sum(p * q for p, q in zip(h[i], h[j], strict=True)) / (norm[i] * norm[j])
            scaled[j] = cosine / temperature
        whole = math.log(sum(math.exp(s) for s in scaled.values()))
        positives = [j for j in scaled if y[j] == y[i]]
        if positives:
            anchors += 1
            total += sum(min(a[i], a[j]) * (whole - scaled[j]) for j in positives) / len(positives)
    return total / anchors if anchors else 0.0


def test_against_loops():
    features = torch.randn(7, 5)
    outcome = loss_of(features)
    assert outcome.loss.item() == pytest.approx(by_loops(features, IDENTITY, SIGNAL), rel=1e-5)
    assert outcome.metrics["paired"].item() == pytest.approx(3 / 7)  # 8 is at no signal, 9 and 11 come once
    ungraded = loss_of(features, made=method(objective=partial(Contrastive, loss=info_nce, temperature=0.2)))
    assert abs(ungraded.loss.item() - outcome.loss.item()) > 0.05  # the grades count


def test_by_hand():
    # rows 0 and 1 show one image, row 2 another; orthogonal units, so that every logit is 0 but the diagonal's.
    outcome = loss_of(torch.eye(5)[:3], torch.tensor([1, 1, 2]), torch.tensor([0.5, 0.25, 1.0]))
    assert outcome.loss.item() == pytest.approx(0.25 * math.log(2))


def test_the_gradient_reaches_the_features_and_the_head():
    features = torch.randn(7, 5, requires_grad=True)
    made = method(objective=partial(Contrastive, projection=Linear, loss=graded_info_nce))
    loss_of(features, made=made).loss.backward()
    assert (features.grad.abs().sum(1) > 0).all()  # singles and pairs without signal are negatives
    assert made.objective.projection.weight.grad.abs().sum() > 0


class Linear(torch.nn.Linear):
    def __init__(self, dim):
        super().__init__(dim, 4)


@pytest.mark.parametrize(
    ("identity", "signal"),
    [
        (torch.arange(7), SIGNAL),  # share 0: nobody has a partner
        (IDENTITY, torch.zeros(7)),  # nothing is left of any image
        (torch.full((7,), -1), SIGNAL),  # nobody knows which image it is
    ],
)
def test_without_pairs_the_loss_and_its_gradient_are_zero(identity, signal):
    features = torch.randn(7, 5, requires_grad=True)
    outcome = loss_of(features, identity, signal)
    outcome.loss.backward()
    assert outcome.loss.item() == 0 and not features.grad.any() and outcome.metrics["paired"] == 0


def test_the_loss_is_proportional_to_the_signal():
    features = torch.randn(7, 5)
    half = loss_of(features, signal=SIGNAL / 2).loss
    torch.testing.assert_close(half, loss_of(features).loss / 2)


def test_at_one_noise_level_it_is_info_nce_of_the_images():
    features = torch.randn(6, 5)
    identity = torch.tensor([0, 1, 2, 0, 1, 2])
    both = loss_of(features, identity, torch.full((6,), 1.0)).loss
    cosines = torch.nn.functional.normalize(features) @ torch.nn.functional.normalize(features).T
    plain = info_nce(cosines.fill_diagonal_(-torch.inf), torch.tensor([3, 4, 5, 0, 1, 2]), temperature=0.2)
    torch.testing.assert_close(both, plain)


def test_order_of_rows_does_not_matter():
    features, order = torch.randn(7, 5), torch.randperm(7)
    shuffled = loss_of(features[order], IDENTITY[order], SIGNAL[order]).loss
    torch.testing.assert_close(shuffled, loss_of(features).loss)


def test_the_schedule_grades_as_the_signal_does():
    features, t = torch.randn(6, 5), torch.tensor([10, 900, 300, 700, 20, 500])
    source = second_views(6, 0.5)
    given = {"timesteps": t, "identity": source}
    made = method(schedule="linear")
    by_schedule = made({"denoise": {"features": features}}, given).loss
    signal = made.levels.signal(t)
    assert by_schedule.item() == pytest.approx(by_loops(features, source, signal), rel=1e-5)
    moved = made({"denoise": {"features": features}}, {**given, "timesteps": t.flip(0)}).loss
    assert moved.item() != pytest.approx(by_schedule.item(), rel=1e-3)


def test_a_first_batch_without_pairs_warns_once():
    features, identity = torch.randn(7, 5), torch.arange(7)
    made = method()
    with pytest.warns(UserWarning, match="no image is there twice: make batches with .*second_views"):
        outcome = loss_of(features, identity=identity, made=made)
    assert outcome.loss.item() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss_of(features, identity=identity, made=made)
        loss_of(features, made=method())
