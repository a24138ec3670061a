"""What the dispersive method adds to its losses: normalisation, memory and what it reports."""

import math

import pytest
import torch

from contraux.clgen.diffusion import Dispersive
from contraux.core.losses.dispersive import (
    dispersive_covariance,
    dispersive_hinge,
    dispersive_info_nce_l2,
    normalised,
)


def of(made, features):
    return made({"denoise": {"features": features}}, {})


def method(**settings):
    return Dispersive({"features": (6,)}, **settings)


@pytest.mark.parametrize("normalize", ["l2", "whiten", None])
def test_each_variant_is_its_loss(normalize):
    features = torch.randn(5, 6)
    z = normalised(features, normalize)
    expected = {
        "info_nce_l2": dispersive_info_nce_l2(z, temperature=0.7),
        "hinge": dispersive_hinge(z, margin=1.5),
        "covariance": dispersive_covariance(z),
    }
    for variant, loss in expected.items():
        made = method(variant=variant, normalize=normalize, temperature=0.7, margin=1.5)
        torch.testing.assert_close(of(made, features).loss, loss)
    assert len({round(loss.item(), 4) for loss in expected.values()}) == 3


def test_the_gradient_reaches_every_row():
    for variant in ("info_nce_l2", "hinge", "covariance"):
        features = torch.randn(5, 6, requires_grad=True)
        of(method(variant=variant, margin=4.0), features).loss.backward()
        assert (features.grad.abs().sum(1) > 0).all()


def test_what_it_reports():
    features = torch.randn(8, 6)
    outcome = of(method(normalize=None), 1000 * features)
    assert outcome.metrics["saturation"].item() == pytest.approx(1.0, abs=1e-3)
    assert outcome.metrics["scale"].item() == pytest.approx(1000 * features.square().mean().sqrt().item(), rel=1e-5)
    outcome = of(method(), features)
    assert outcome.metrics["saturation"].item() == pytest.approx(-outcome.loss.item() / math.log(8))
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])  # squared distances 2, 2 and 4
    hinge = Dispersive({"features": (2,)}, variant="hinge", margin=3.0)
    assert of(hinge, square).metrics["saturation"].item() == pytest.approx(1 / 3)
    assert "saturation" not in of(method(variant="covariance"), features).metrics


def test_the_queue_holds_earlier_batches():
    made = method(queue=4)
    first, second, third = torch.randn(3, 6), torch.randn(3, 6), torch.randn(2, 6)
    torch.testing.assert_close(of(made, first).loss, of(method(), first).loss)  # nothing is remembered yet
    z = [normalised(x, "l2") for x in (first, second, third)]
    torch.testing.assert_close(of(made, second).loss, dispersive_info_nce_l2(z[1], z[0]))
    outcome = of(made, third)
    remembered = torch.cat((z[0], z[1]))[-4:]
    torch.testing.assert_close(outcome.loss, dispersive_info_nce_l2(z[2], remembered))
    assert outcome.metrics["saturation"].item() == pytest.approx(-outcome.loss.item() / math.log(6))
    again = method(queue=4)
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(of(again, first).loss, of(made, first).loss)


def test_the_queue_can_be_read_in_backward_after_it_went_on():
    made, features = method(queue=3), torch.randn(3, 6, requires_grad=True)
    of(made, torch.randn(3, 6))
    loss = of(made, features).loss
    of(made, torch.randn(3, 6))
    loss.backward()
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"variant": "cosine"}, "unknown variant 'cosine'"),
        ({"normalize": "l1"}, "unknown normalize 'l1'"),
        ({"temperature": 0}, "temperature must be a number > 0, got 0"),
        ({"margin": 0}, "margin must be a number > 0, got 0"),
        ({"queue": 0}, "size of Queue must be a whole number >= 1, got 0"),
    ],
)
def test_sentences(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        method(**settings)
