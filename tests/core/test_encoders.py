import pytest
import torch
from torch import nn

from contraux.core.encoders import MLP, MomentumEncoder, PredictionHead, ProjectionHead

MODULES = {
    "mlp": lambda: MLP(5, [7, 6], 4, "tanh"),
    "projection": lambda: ProjectionHead(5, 7, 4),
    "projection_norm": lambda: ProjectionHead(5, None, 4, layer_norm=True),
    "prediction": lambda: PredictionHead(5, 7),
    "prediction_residual": lambda: PredictionHead(5, 7, residual=True),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())
def test_out_features_and_gradient_in_float64(make):
    module = make().double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert module(x).shape == (3, module.out_features)
    assert torch.autograd.gradcheck(module, x)


def fill(module, value=1.0):
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    return module


def test_hand_worked():
    x = torch.tensor([[1.0, -3.0]])
    # all weights and biases 1: hidden = relu(1 - 3 + 1) = 0, out = 0 * 2 + 1 = 1
    assert fill(ProjectionHead(2, 2, 1))(x).tolist() == [[1.0]]
    # residual: x + (0 + 1)
    assert fill(PredictionHead(2, 2, residual=True))(x).tolist() == [[2.0, -2.0]]
    assert fill(PredictionHead(2, 2))(x).tolist() == [[1.0, 1.0]]
    # no activation after the last layer: 1 - 3 + 1 = -1
    assert fill(MLP(2, [], 1))(x).tolist() == [[-1.0]]
    # elu(-1) = e^-1 - 1, plus the bias
    assert fill(MLP(2, [1], 1, "elu"))(x).item() == pytest.approx(torch.e**-1, rel=1e-6)


def test_layer_norm_head_is_normalised():
    out = ProjectionHead(5, None, 64, layer_norm=True)(torch.randn(10, 5) * 100)
    torch.testing.assert_close(out.mean(1), torch.zeros(10), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(1, unbiased=False), torch.ones(10), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MLP(4, [8, 0], 2), "hidden must be a whole number >= 1, got 0"),
        (lambda: MLP(4, [], 2, "rleu"), "unknown activation 'rleu': did you mean relu"),
        (lambda: ProjectionHead(4, out=2.0), "out must be a whole number >= 1, got 2.0"),
        (lambda: PredictionHead(True), "in_features must be a whole number >= 1, got True"),
        (lambda: MomentumEncoder(nn.Identity(), 1), r"momentum must be a number in \[0, 1\), got 1"),
        (lambda: MomentumEncoder(nn.Identity(), -0.1), r"momentum must be a number in \[0, 1\), got -0.1"),
    ],
)
def test_wrong_arguments(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_momentum_arithmetic():
    online = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    fill(online, 1.0)
    average = MomentumEncoder(online, 0.9)
    fill(online, 2.0)
    online[1].running_mean.fill_(7.0)
    online[1].num_batches_tracked.fill_(3)
    average.update(online)
    # 0.9 * 1 + 0.1 * 2 = 1.1, then 0.9 * 1.1 + 0.1 * 2 = 1.19
    torch.testing.assert_close(average.encoder[0].weight, torch.tensor([[1.1]]))
    average.update(online)
    for parameter in average.encoder.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 1.19))
    assert average.encoder[1].running_mean.item() == 7.0 and average.encoder[1].num_batches_tracked.item() == 3
    assert all(parameter.eq(2.0).all() for parameter in online.parameters())


def test_momentum_zero_copies_and_the_copy_is_frozen():
    online = MLP(3, [4], 2)
    copy = MomentumEncoder(online, 0)
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(1.0)
    x = torch.randn(5, 3, requires_grad=True)
    assert not torch.equal(copy(x), online(x))
    copy.update(online)
    assert torch.equal(copy(x), online(x))
    assert not copy(x).requires_grad
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())


def test_momentum_follows_its_parents_mode_and_has_no_parameters_to_need():
    parent = nn.Sequential(MomentumEncoder(nn.Dropout(), 0.5))
    assert parent.eval()[0].encoder.training is False
    assert parent.train()[0].encoder.training is True
    parent[0].update(nn.Dropout())  # nothing to move
