"""The heads of the papers, layer by layer, and the momentum copies of pretraining."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contraux.core.encoders import MomentumEncoder, PredictionHead, ProjectionHead
from contraux.core.encoders.momentum import cosine_momentum


def described(head):
    """Each layer in a word: sizes of linear ones with + for a bias, BN with its scale and shift or bn without."""
    words = {nn.ReLU: lambda _: "relu", nn.LayerNorm: lambda _: "LN"}
    words[nn.Linear] = lambda one: f"{one.in_features}-{one.out_features}{'+' * (one.bias is not None)}"
    words[nn.BatchNorm1d] = lambda one: f"{'BN' if one.affine else 'bn'}{one.num_features}"
    return " ".join(words[type(layer)](layer) for layer in head.layers)


@pytest.mark.parametrize(
    ("head", "layers"),
    [
        (ProjectionHead(9), "9-128+ relu 128-128+"),
        (ProjectionHead(9, None, 4), "9-4+"),  # MoCo v1
        (ProjectionHead(9, None, 4, True), "9-4+ LN"),  # CURL
        (ProjectionHead(9, 8, 4, batch_norm=True), "9-8 BN8 relu 8-4+"),  # BYOL
        (ProjectionHead(9, 8, 4, depth=3), "9-8+ relu 8-8+ relu 8-4+"),  # SimCLR v2
        (
            ProjectionHead(9, 8, 4, depth=3, batch_norm=True, final_batch_norm=True),  # SimSiam, MoCo v3
            "9-8 BN8 relu 8-8 BN8 relu 8-4 bn4",
        ),
        (ProjectionHead(9, 8, 4, depth=3, batch_norm=True, bias=False), "9-8 BN8 relu 8-8 BN8 relu 8-4"),  # Barlow
        (PredictionHead(9), "9-512+ relu 512-9+"),
        (PredictionHead(9, 4, batch_norm=True), "9-4 BN4 relu 4-9+"),  # BYOL, SimSiam
        (PredictionHead(9, 4, batch_norm=True, final_batch_norm=True), "9-4 BN4 relu 4-9 bn9"),  # MoCo v3
    ],
)
def test_heads_of_the_papers(head, layers):
    assert described(head) == layers
    assert head(torch.randn(3, 9)).shape == (3, head.out_features)


def test_weights_of_heads_before_batch_norm_still_load():
    """What saved agents hold."""
    for head, names in (
        (ProjectionHead(5, 7, 4), {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}),
        (ProjectionHead(5, None, 4, True), {"layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"}),
        (PredictionHead(5, 7), {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}),
    ):
        assert set(head.state_dict()) == names


def test_hand_worked_batch_norm():
    head = ProjectionHead(1, 1, 1, batch_norm=True, final_batch_norm=True)
    with torch.no_grad():
        head.layers[0].weight.fill_(2.0)
        head.layers[3].weight.fill_(5.0)
    # 2 x = 0, 2, 4: mean 2, variance 8/3; standardised -a, 0, a with a = sqrt(3/2); relu 0, 0, a; times 5, standardised
    # again: mean 5a/3, variance (5a)^2 2/9, hence -1/sqrt(2), -1/sqrt(2), sqrt(2)
    out = head(torch.tensor([[0.0], [1.0], [2.0]]))
    torch.testing.assert_close(out.flatten(), torch.tensor([-(0.5**0.5), -(0.5**0.5), 2**0.5]), rtol=1e-4, atol=1e-4)


def test_gradient_in_float64():
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    for head in (
        ProjectionHead(5, 6, 3, depth=3, batch_norm=True, final_batch_norm=True, bias=False),
        PredictionHead(5, 3, residual=True, batch_norm=True, final_batch_norm=True),
    ):
        assert torch.autograd.gradcheck(head.double(), x)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ProjectionHead(4, depth=1), "depth must be a whole number >= 2, got 1"),
        (lambda: ProjectionHead(4, hidden=0), "hidden must be a whole number >= 1, got 0"),
        (lambda: PredictionHead(4, hidden=0), "hidden must be a whole number >= 1, got 0"),
        (
            lambda: ProjectionHead(4, layer_norm=True, final_batch_norm=True),
            "a head ends with layer_norm or final_batch_norm, got both",
        ),
    ],
)
def test_wrong_arguments(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_momentum_on_a_schedule():
    online = nn.Linear(1, 1)
    copy = MomentumEncoder(online, 0.9)
    for parameter in copy.encoder.parameters():
        nn.init.constant_(parameter, 1.0)
    for parameter in online.parameters():
        nn.init.constant_(parameter, 3.0)
    copy.update(online, 0.75)  # 0.75 * 1 + 0.25 * 3
    assert copy.encoder.weight.item() == 1.5
    copy.update(online, 1.0)
    assert copy.encoder.weight.item() == 1.5
    copy.update(online)  # 0.9 * 1.5 + 0.1 * 3
    assert copy.encoder.weight.item() == pytest.approx(1.65)


def test_a_copy_can_keep_running_statistics_of_its_own():
    online = nn.BatchNorm1d(1)
    copy = MomentumEncoder(online, 0.5, copy_buffers=False)
    copy(torch.tensor([[1.0], [3.0]]))
    online(torch.tensor([[10.0], [30.0]]))
    online(torch.tensor([[10.0], [30.0]]))
    copy.update(online)
    assert copy.encoder.running_mean.item() == pytest.approx(0.2)  # 0.9 * 0 + 0.1 * 2
    assert copy.encoder.num_batches_tracked.item() == 1


def test_momentum_by_hand():
    assert cosine_momentum(0.99, 0.0) == pytest.approx(0.99, abs=1e-15)
    assert cosine_momentum(0.99, 1.0) == 1.0
    assert cosine_momentum(0.99, 0.5) == pytest.approx(0.995)
    assert cosine_momentum(0.6, 1 / 3) == pytest.approx(0.7)  # cos(60 degrees) = 1/2: 1 - 0.4 * 3/4


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 0.9999), st.floats(0, 1), st.floats(0, 1))
def test_momentum_rises_from_its_base_to_one(base, one, other):
    early, late = sorted((one, other))
    assert base - 1e-12 <= cosine_momentum(base, early) <= cosine_momentum(base, late) + 1e-12 <= 1 + 2e-12
    assert not math.isnan(cosine_momentum(base, early))
