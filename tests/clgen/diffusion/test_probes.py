"""Measurements by noise level, on models whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from contraux.clgen.diffusion.probes import (
    Denoiser,
    denoising_error,
    level_features,
    perturbed_error,
    probe_by_level,
)
from contraux.clgen.diffusion.process import Diffusion, Flow
from contraux.clgen.images import Images
from contraux.core.evaluation import effective_rank


class Known(nn.Module):
    """Puts out what `rule(noisy, timestep)` says; its features are the noisy image."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.told = rule, []
        self.weight = nn.Parameter(torch.zeros(()))
        self.body = nn.Identity()

    def forward(self, sample, timestep, class_labels=None):
        self.told.append(timestep)
        assert not self.training
        return SimpleNamespace(sample=self.rule(self.body(sample), timestep.view(-1, 1, 1, 1)))


def images(count=40, classes=4, seed=0):
    """Class k has its bright pixel at place k."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    tensor = 0.1 * torch.randn(count, 1, 2, 2, generator=generator)
    tensor.view(count, 4)[torch.arange(count), labels] += 1.0
    return Images(tensor, labels, tuple("abcd"))


def test_the_error_of_a_model_that_says_nothing_is_the_square_of_the_target():
    data = images()
    silent = Denoiser(Known(lambda x, t: torch.zeros_like(x)), Diffusion(prediction="sample"), batch_size=7)
    found = denoising_error(silent, data, bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    square = data.tensor.double().square().flatten(1).mean(1)
    np.testing.assert_allclose(found.mean, square.mean().item(), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, (square.std() / 40**0.5).item(), rtol=1e-5)


def test_every_bin_has_its_timesteps():
    known = Known(lambda x, t: torch.zeros_like(x))
    denoising_error(Denoiser(known, Diffusion()), images(400), bins=5)
    for k, told in enumerate(known.told[::2]):
        assert told.dtype == torch.long and told.min() >= 200 * k and told.max() < 200 * (k + 1)
        assert told.max() - told.min() > 180
    known.told.clear()
    denoising_error(Denoiser(known, Flow(timesteps=10)), images(), bins=1)
    assert known.told[0].is_floating_point() and 0 <= known.told[0].min() and known.told[0].max() < 10


def test_noise_is_by_its_share_and_the_same_for_every_model_and_batch():
    process = Diffusion()

    def noise_of(x, t):  # of a black image: the noisy one is sigma noise
        return x / (1 - process._alphas[t]).sqrt().float()

    black = Images(torch.zeros(30, 1, 2, 2), torch.zeros(30, dtype=torch.long), ("a",))
    exact = Known(noise_of)
    assert denoising_error(Denoiser(exact, process), black).mean.max() < 1e-8
    data, echo = images(), Known(lambda x, t: x)
    whole, parts, other = (
        denoising_error(Denoiser(echo, process, batch_size=size, seed=seed), data).mean
        for size, seed in ((64, 0), (7, 0), (64, 1))
    )
    np.testing.assert_allclose(whole, parts, rtol=1e-6)
    assert abs(whole - other).max() > 1e-3


def test_a_wrong_timestep_is_told_and_the_noise_stays():
    """The exact noise of a black image from the timestep told: wrong by the ratio of the sigmas."""
    process = Diffusion()
    black = Images(torch.zeros(2000, 1, 2, 2), torch.zeros(2000, dtype=torch.long), ("a",))
    told = []

    def noise_of(x, t):
        told.append(t.flatten())
        return x / (1 - process._alphas[t]).sqrt().float()

    found = perturbed_error(Denoiser(Known(noise_of), process, batch_size=2000), black, (0, 100, 2000), bins=2)
    assert found.shape == (3, 2)
    right, late, last = told[0], told[2], told[4]
    assert torch.equal(late, right + 100) and (last == 999).all()  # t < 500: none beyond the end
    sigma = (1 - process._alphas).sqrt()
    expected = (sigma[right] / sigma[late] - 1).square().mean().item()
    assert found[0].max() < 1e-8 and found[1, 0] == pytest.approx(expected, rel=0.1)
    assert found[2, 0] > found[1, 0]


def test_features_are_the_noisy_images_and_the_model_stays_as_it_was():
    data, process = images(), Diffusion()
    model = Known(lambda x, t: x).train()
    denoiser = Denoiser(model, process, batch_size=9)
    clean = level_features(denoiser, data, 0.0, "body", "flatten")
    np.testing.assert_allclose(clean, data.tensor.flatten(1).numpy(), atol=0.05)
    noisy = level_features(denoiser, data, 0.5, "body", "flatten")
    alpha, sigma = (one.item() for one in process.levels(torch.tensor([500])))
    noise = (noisy - alpha * data.tensor.flatten(1).numpy()) / sigma
    assert abs(noise.mean()) < 0.2 and abs(noise.std() - 1) < 0.15
    assert model.training and not model._forward_hooks and not model.body._forward_hooks


def test_a_probe_against_scikit_learn():
    train, test = images(200, seed=1), images(120, seed=2)
    denoiser = Denoiser(Known(lambda x, t: x), Diffusion())
    found = probe_by_level(denoiser, train, test, (0.0, 0.5, 0.9), at="body", pool="flatten")
    assert found.accuracy[0] == 100 and found.accuracy[0] > found.accuracy[1] > found.accuracy[2] >= 10
    own = level_features(Denoiser(denoiser.model, denoiser.process, seed=1), train, 0.5, "body", "flatten")
    held_out = level_features(denoiser, test, 0.5, "body", "flatten")
    fitted = LogisticRegression(max_iter=1000).fit((own - own.mean(0)) / own.std(0), train.labels)
    expected = 100 * fitted.score((held_out - own.mean(0)) / own.std(0), test.labels)
    assert found.accuracy[1] == pytest.approx(expected, abs=1e-9)
    assert found.effective_rank[1] == effective_rank(torch.from_numpy(held_out))
    assert found.converged.all()


def test_a_unet_and_a_dit_of_diffusers(tiny_unet, tiny_dit):
    data = Images(torch.rand(12, 1, 8, 8) * 2 - 1, torch.arange(12) % 3, tuple("abc"))
    for model, process in ((tiny_unet, Diffusion()), (tiny_unet, Flow())):
        denoiser = Denoiser(model, process)
        assert np.isfinite(denoising_error(denoiser, data, bins=3).mean).all()
        assert level_features(denoiser, data, 0.3).shape == (12, 16)
        assert np.isfinite(probe_by_level(denoiser, data, data, (0.3,)).accuracy).all()
    assert not tiny_unet.mid_block._forward_hooks


def test_a_conditional_model_is_told_the_null_class_unless_asked():
    told = []

    class Conditional(Known):
        class_embedding = nn.Identity()

        def forward(self, sample, timestep, class_labels):
            told.append(class_labels)
            return super().forward(sample, timestep)

    data = images()
    data.labels[0] = -1
    for asked in (False, True):
        denoising_error(Denoiser(Conditional(lambda x, t: x), Diffusion(), told=asked), data, bins=1)
    assert (told[0] == 1000).all()
    assert told[1].tolist() == [1000, *data.labels[1:].tolist()]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda d: denoising_error(d, images(), bins=0), "bins must be a whole number >= 1, got 0"),
        (lambda d: denoising_error(d, images(1)), "needs at least 2 images, got 1"),
        (lambda d: level_features(d, images(), 1.0), r"level must be a number in \[0, 1\), got 1.0"),
        (lambda d: level_features(d, images(), 0.5), "at must be the dotted name of a module of Known"),
        (
            lambda d: probe_by_level(d, images()._replace(labels=torch.full((40,), -1)), images()),
            "needs images with classes",
        ),
    ],
)
def test_sentences(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(Denoiser(Known(lambda x, t: x), Diffusion()))


def test_a_model_without_the_null_class_must_be_told():
    known = Known(lambda x, t: torch.zeros_like(x))
    known.class_embedding = nn.Embedding(4, 3)
    with pytest.raises(ValueError, match="without the null class 1000 must be told the classes"):
        Denoiser(known, Diffusion())
    denoising_error(Denoiser(known, Diffusion(), told=True), images(), bins=1)


def test_a_flow_is_told_its_own_time_to_the_last():
    """Times in (T - 1, T) are times; discrete steps end at T - 1."""
    known = Known(lambda x, t: torch.zeros_like(x)).eval()
    subject, data = Denoiser(known, Flow()), images(1)
    time = torch.tensor([999.75])
    subject.output(data, time, torch.zeros_like(data.tensor))
    subject.output(data, time, torch.zeros_like(data.tensor), shift=100.0)
    Denoiser(known, Diffusion()).output(data, torch.tensor([999]), torch.zeros_like(data.tensor), shift=100.0)
    assert [told.item() for told in known.told] == [999.75, 1000.0, 999]
