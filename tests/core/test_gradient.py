import math

import pytest
import torch

from contraux.core import Outcome, auxiliary_gradients


def outcome(a, b):
    # gradient 3 for a and (0, 4) for b: norm 5
    return Outcome(3 * a + 4 * b[1], {"accuracy": torch.tensor(0.5)})


def test_norm_and_clipping_by_hand():
    a, b, unused = (
        torch.tensor(1.0, requires_grad=True),
        torch.ones(2, requires_grad=True),
        torch.ones(3).requires_grad_(),
    )
    for limit, scale in ((None, 1.0), (10.0, 1.0), (5.0, 1.0), (0.5, 0.1)):
        before = outcome(a, b)
        gradients, after = auxiliary_gradients(before, [a, unused, b], limit)
        assert gradients[1] is None
        torch.testing.assert_close(gradients[0], torch.tensor(3.0 * scale))
        torch.testing.assert_close(gradients[2], torch.tensor([0.0, 4.0 * scale]))
        assert after.metrics["gradient_norm"].item() == 5.0
        assert after.metrics["accuracy"] == 0.5 and "gradient_norm" not in before.metrics
        assert after.loss is before.loss
    assert a.grad is None and b.grad is None


def test_a_gradient_that_two_parameters_share_is_scaled_once():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    gradients, _ = auxiliary_gradients(Outcome((a + b).sum(), {}), [a, b], 1.0)
    # both (1, 1): norm 2, scaled to 1/2
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.tensor([0.5, 0.5]))


def test_matches_torchs_own_clipping():
    layers = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    x, parameters = torch.randn(7, 4), list(layers.parameters())
    gradients, after = auxiliary_gradients(Outcome(layers(x).square().sum(), {}), parameters, 0.3)
    layers(x).square().sum().backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.3)
    torch.testing.assert_close(after.metrics["gradient_norm"], norm)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-7)


def test_zero_and_missing_gradients():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    gradients, after = auxiliary_gradients(Outcome((a * 0).sum(), {}), [a], 0.5)
    assert gradients[0].tolist() == [0, 0] and after.metrics["gradient_norm"] == 0
    gradients, after = auxiliary_gradients(Outcome(a.sum(), {}), [b], 0.5)
    assert gradients == [None] and after.metrics["gradient_norm"] == 0
    assert not after.metrics["gradient_norm"].requires_grad


@pytest.mark.parametrize("limit", [0, -1.0, math.inf, True])
def test_wrong_limit(limit):
    a = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"max_norm must be a (finite )?number > 0, got"):
        auxiliary_gradients(Outcome(a.sum(), {}), [a], limit)


def test_a_loss_without_graph():
    with pytest.raises(ValueError, match=r"the loss must depend on something that requires a gradient"):
        auxiliary_gradients(Outcome(torch.tensor(1.0), {}), [])
