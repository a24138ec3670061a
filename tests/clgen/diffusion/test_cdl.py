"""CDL on a Gaussian, whose denoiser and densities are known."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from contraux.clgen.diffusion import NoiseClassifier, denoiser
from contraux.clgen.diffusion.noise_levels import log_snr
from contraux.core.losses.noise_classifier import log_density_ratio, noise_classification, snr_points

VARIANCE = 0.5


def exact(variance=VARIANCE):
    """The denoiser of N(0, variance): linear."""
    return lambda w, deviation: w * (variance / (variance + deviation**2)).view(-1, *[1] * (w.ndim - 1))


def true_ratio(z, deviation):
    """log N(z; 0, v + s^2) - log N(z; 0, v), summed over entries."""
    v, q = VARIANCE, VARIANCE + deviation**2
    square = z.square().flatten(1).sum(1)
    return z[0].numel() / 2 * (torch.log(v / q)) + square / 2 * (1 / v - 1 / q)


def test_the_integral_gives_the_densities():
    """With noise of exactly +1 and -1 the expectation over noise is exact for a linear denoiser."""
    z = torch.tensor([[0.0], [0.3], [-1.4], [3.0]], dtype=torch.float64)
    s = torch.tensor([0.2, 1.0, 3.0, 0.7], dtype=torch.float64)
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    g = (2 * torch.logit(u)).exp()
    weight = (g * 2 / (u * (1 - u)) / len(u)).unsqueeze(1).expand(-1, 4)
    errors = [0.0, 0.0]
    for sign in (1.0, -1.0):
        r = g.rsqrt().unsqueeze(1)
        w = z[:, 0] + sign * r
        q2 = s**2 + r**2
        of_clean = w * VARIANCE / (VARIANCE + r**2)
        of_noised = w * (VARIANCE + s**2) / (VARIANCE + q2)  # the denoiser of N(0, v + s^2), not through D
        errors[0] = errors[0] + (z[:, 0] - of_clean) ** 2 / 2
        errors[1] = errors[1] + (z[:, 0] - of_noised) ** 2 / 2
    found = log_density_ratio(*errors, weight)
    torch.testing.assert_close(found, true_ratio(z, s), rtol=1e-3, atol=1e-3)


def test_the_class_estimates_the_same_without_bias():
    rows = 20000
    for value, s in ((0.0, 1.0), (1.5, 1.0), (-0.8, 0.4)):
        z, deviation = torch.full((rows, 1), value), torch.full((rows,), s)
        found = NoiseClassifier(exact(), points=8).log_ratio(z, deviation, torch.Generator().manual_seed(0))
        error = found.std().item() / math.sqrt(rows)
        assert found.mean().item() == pytest.approx(true_ratio(z[:1], deviation[:1]).item(), abs=4 * error + 1e-3)
        assert error < 0.05


def test_snr_points_integrate():
    """int dg / (1 + g)^2 = 1, one point in each part."""
    g, weight = snr_points(64, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (weight / (1 + g) ** 2).sum(0).mean().item() == pytest.approx(1.0, abs=2e-3)
    assert (g.diff(dim=0) > 0).all()


def test_classification_by_hand():
    ratio = torch.tensor([2.0, -1.0, 3.0])
    noised = torch.tensor([True, False, False])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 3
    assert noise_classification(ratio, noised).item() == pytest.approx(expected, rel=1e-6)
    assert noise_classification(torch.zeros(4), torch.arange(4) > 1).item() == pytest.approx(math.log(2))


def test_the_exact_denoiser_tells_noise_better_than_others():
    images = VARIANCE**0.5 * torch.randn(4000, 4)

    def loss(variance):
        classifier = NoiseClassifier(exact(variance), points=16, deviation=(0.5, 2.0))
        return classifier(images, torch.Generator().manual_seed(1))

    at_truth = loss(VARIANCE)
    assert at_truth.loss < math.log(2) and at_truth.metrics["accuracy"] > 0.7
    assert at_truth.loss < min(loss(0.1).loss, loss(2.5).loss) - 0.01


def test_the_gradient_reaches_the_denoiser_and_it_costs_what_it_says():
    variance = torch.tensor(0.1, requires_grad=True)
    evaluated = []

    def counted(w, deviation):
        evaluated.append(len(w))
        return exact(variance)(w, deviation)

    NoiseClassifier(counted, points=4)(torch.randn(6, 1, 2, 2)).loss.backward()
    assert variance.grad.abs() > 0
    assert sum(evaluated) == 2 * 4 * 6


def predictions(kind, alpha_bar, steps=1000):
    """What an exact model of N(0, 1/2) predicts, as a function of noisy image and timestep."""

    def predict(noisy, timesteps):
        if kind == "flow":
            sigma = (timesteps / steps).view(-1, 1)
            signal = 1 - sigma
        else:
            signal = alpha_bar[timesteps].sqrt().view(-1, 1)
            sigma = (1 - signal**2).sqrt()
        x = noisy * signal * VARIANCE / (signal**2 * VARIANCE + sigma**2)
        noise = (noisy - signal * x) / sigma
        if kind == "flow":
            return noise - x
        return {"epsilon": noise, "sample": x, "v_prediction": signal * noise - sigma * x}[kind]

    return predict


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow"])
def test_models_of_every_prediction_become_denoisers(kind):
    alpha_bar = DDPMScheduler().alphas_cumprod
    denoise = denoiser(predictions(kind, alpha_bar), alpha_bar, prediction=kind)
    w, deviation = torch.randn(5, 3), torch.tensor([0.05, 0.3, 1.0, 4.0, 30.0])
    torch.testing.assert_close(denoise(w, deviation), exact()(w, deviation), rtol=0.02, atol=0.01)


def test_the_nearest_timestep():
    alpha_bar, seen = DDPMScheduler().alphas_cumprod, []

    def predict(noisy, timesteps):
        seen.append(timesteps)
        return noisy

    wanted = torch.tensor([0, 1, 400, 998, 999])
    deviation = (-log_snr(alpha_bar.double()) / 2).exp()[wanted]
    denoise = denoiser(predict, alpha_bar)
    denoise(torch.zeros(5, 2), deviation.float() * 1.0001)
    denoise(torch.zeros(2, 2), torch.tensor([1e-6, 1e6]))
    assert seen[0].tolist() == wanted.tolist() and seen[1].tolist() == [0, 999]


def test_as_part_of_a_step_of_a_unet(tiny_unet):
    alpha_bar = DDPMScheduler().alphas_cumprod
    classifier = NoiseClassifier(denoiser(lambda x, t: tiny_unet(x, t).sample, alpha_bar), points=2)
    images, noise, t = torch.rand(4, 1, 8, 8) * 2 - 1, torch.randn(4, 1, 8, 8), torch.randint(0, 1000, (4,))
    prediction = tiny_unet(DDPMScheduler().add_noise(images, noise, t), t).sample
    (F.mse_loss(prediction, noise) + classifier(images[:2]).loss).backward()
    assert all(weight.grad.isfinite().all() for weight in tiny_unet.parameters())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: NoiseClassifier(exact(), points=0), "points must be a whole number >= 1, got 0"),
        (lambda: NoiseClassifier(exact(), deviation=(0.0, 1.0)), "the lower deviation must be a number > 0, got 0.0"),
        (lambda: NoiseClassifier(exact(), deviation=(1.0, 0.5)), "the upper deviation must be a number >= 1, got 0.5"),
        (lambda: denoiser(exact(), prediction="noise"), "unknown prediction 'noise'"),
        (lambda: denoiser(exact()), "needs the scheduler's alphas_cumprod, got None"),
        (
            lambda: log_density_ratio(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3)),
            r"one shape \(P, B\), got \(2, 3\), \(2, 3\) and \(3,\)",
        ),
    ],
)
def test_sentences(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
