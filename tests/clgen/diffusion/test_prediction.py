"""Targets and min-SNR weights, by hand and by what they are for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.clgen.training_diffusion import clean_of, min_snr_weight, target

ONE = torch.tensor([1.0])


def levels(angle):
    return torch.tensor([angle]).cos(), torch.tensor([angle]).sin()


def test_targets_by_hand():
    clean, noise, alpha, sigma = torch.tensor([[2.0]]), torch.tensor([[-1.0]]), 0.8 * ONE, 0.6 * ONE
    found = {name: target(name, clean, noise, alpha, sigma).item() for name in ("epsilon", "sample", "flow")}
    assert found == {"epsilon": -1.0, "sample": 2.0, "flow": -3.0}
    assert target("v_prediction", clean, noise, alpha, sigma).item() == pytest.approx(0.8 * -1 - 0.6 * 2)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow"])
def test_the_target_means_the_image_it_came_from(prediction):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 1, 3, 3, generator=generator)
    sigma = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    alpha = 1 - sigma if prediction == "flow" else (1 - sigma**2).sqrt()
    a, s = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    noisy = a * clean + s * noise
    aim = target(prediction, clean, noise, alpha, sigma)
    assert torch.allclose(clean_of(prediction, aim, noisy, alpha, sigma), clean, atol=1e-5)


@pytest.mark.parametrize(
    ("prediction", "signal", "noise", "gamma", "weight"),
    [
        ("epsilon", 0.8, 0.2, 5.0, 1.0),  # SNR 4, below gamma
        ("epsilon", 0.8, 0.2, 2.0, 0.5),  # 2 / 4
        ("sample", 0.8, 0.2, 5.0, 4.0),
        ("sample", 0.8, 0.2, 2.0, 2.0),
        ("v_prediction", 0.8, 0.2, 5.0, 0.8),  # 4 / 5
        ("v_prediction", 0.8, 0.2, 2.0, 0.4),  # 2 / 5
        ("flow", 0.5625, 0.0625, 5.0, 0.3125),  # sigma 1/4: SNR 9, 1/16 x 5
        ("flow", 0.0625, 0.5625, 5.0, 0.0625),  # sigma 3/4: SNR 1/9, 9/16 x 1/9
    ],
)
def test_weights_by_hand(prediction, signal, noise, gamma, weight):
    found = min_snr_weight(prediction, torch.tensor([signal]).sqrt(), torch.tensor([noise]).sqrt(), gamma)
    assert found.item() == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow"])
@settings(deadline=None, max_examples=30)
@given(sigma=st.floats(0.05, 0.95), gamma=st.floats(0.1, 20), seed=st.integers(0, 1000))
def test_weighted_errors_are_those_of_the_image_times_the_clipped_snr(prediction, sigma, gamma, seed):
    """What min-SNR weighting says, for any output of the denoiser, in float64."""
    generator = torch.Generator().manual_seed(seed)
    clean, noise, output = torch.randn(3, 1, 7, generator=generator, dtype=torch.float64)[:, :, :]
    s = torch.tensor([sigma], dtype=torch.float64)
    a = 1 - s if prediction == "flow" else (1 - s**2).sqrt()
    clean, noise, output = clean[None], noise[None], output[None]
    noisy = a * clean + s * noise
    own = (output - target(prediction, clean, noise, a, s)).square().sum()
    of_image = (clean_of(prediction, output, noisy, a, s) - clean).square().sum()
    weight = min_snr_weight(prediction, a, s, gamma)
    assert (weight * own).item() == pytest.approx(((a / s) ** 2).clamp(max=gamma).item() * of_image.item())


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow"])
def test_weights_are_finite_where_only_noise_or_only_image_is_left(prediction):
    ends = torch.tensor([0.0, 1.0])
    found = min_snr_weight(prediction, ends, 1 - ends, 5.0)
    expected = {"epsilon": [1.0, 0.0], "sample": [0.0, 5.0], "v_prediction": [0.0, 0.0], "flow": [0.0, 0.0]}
    assert found.tolist() == expected[prediction]


def test_another_prediction_is_refused():
    with pytest.raises(ValueError, match="unknown prediction 'eps': did you mean epsilon"):
        target("eps", ONE, ONE, ONE, ONE)
