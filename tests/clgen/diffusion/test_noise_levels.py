"""What a timestep leaves of the image, against diffusers' schedulers and by hand."""

import math

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from contraux.clgen.diffusion import NoiseLevels, alphas_cumprod

T = torch.tensor([0, 10, 500, 999])


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("steps", [1000, 50])
def test_schedules_are_those_of_diffusers(schedule, steps):
    theirs = DDPMScheduler(steps, beta_schedule=schedule).alphas_cumprod.double()
    torch.testing.assert_close(alphas_cumprod(schedule, steps), theirs, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_the_signal_is_what_stands_before_the_image_in_the_noisy_one(schedule):
    scheduler = DDPMScheduler(beta_schedule=schedule)
    x = torch.ones(4, 1, 2, 2)
    noisy = scheduler.add_noise(x, torch.zeros_like(x), T)
    torch.testing.assert_close(NoiseLevels(schedule).signal(T), noisy[:, 0, 0, 0], rtol=1e-3, atol=1e-5)
    given = NoiseLevels(alpha_bar=scheduler.alphas_cumprod)
    torch.testing.assert_close(given.signal(T), noisy[:, 0, 0, 0])


def test_flow_has_the_signal_to_noise_ratio_of_diffusers_flow_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler()
    t = scheduler.timesteps[[0, 250, 990]]
    x, noise = torch.ones(3, 1), torch.ones(3, 1)
    of_image = scheduler.scale_noise(x, t, 0 * noise)[:, 0]
    of_noise = scheduler.scale_noise(0 * x, t, noise)[:, 0]
    levels = NoiseLevels("flow")
    torch.testing.assert_close(levels.log_snr(t)[1:], 2 * (of_image / of_noise).log()[1:], rtol=1e-4, atol=1e-4)
    signal = levels.signal(t)
    torch.testing.assert_close(signal, of_image / (of_image**2 + of_noise**2).sqrt())
    assert signal[0] == 0 and levels.log_snr(t)[0] == pytest.approx(math.log(1e-6 / (1 - 1e-6)), rel=1e-4)
    torch.testing.assert_close(levels.signal(torch.tensor([500])), torch.tensor([0.5**0.5]))
    torch.testing.assert_close(alphas_cumprod("flow", 1000)[500], torch.tensor(0.5, dtype=torch.float64))


def test_log_snr_by_hand_and_from_a_given_signal():
    levels = NoiseLevels(alpha_bar=[0.9, 0.5, 0.0])
    t = torch.tensor([0, 1, 2])
    expected = torch.tensor([math.log(9), 0.0, math.log(1e-6 / (1 - 1e-6))])
    torch.testing.assert_close(levels.log_snr(t), expected)
    signal = torch.tensor([0.5, 0.5, 0.8])
    torch.testing.assert_close(levels.signal(t, signal), signal)
    torch.testing.assert_close(
        NoiseLevels(None).log_snr(t, signal), torch.tensor([math.log(1 / 3), math.log(1 / 3), math.log(16 / 9)])
    )


def test_signal_and_log_snr_fall_with_the_timestep():
    for schedule in ("linear", "scaled_linear", "squaredcos_cap_v2", "flow"):
        levels = NoiseLevels(schedule)
        every = torch.arange(1000)
        assert (levels.signal(every).diff() < 0).all()
        assert (levels.log_snr(every).diff() <= 0).all()


def test_nothing_of_it_is_in_the_state_dict():
    assert not NoiseLevels("linear").state_dict()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: NoiseLevels("cosine"), "unknown schedule 'cosine'"),
        (lambda: NoiseLevels("linear", 0), "steps must be a whole number >= 1, got 0"),
        (lambda: NoiseLevels(alpha_bar=[1.5]), r"alpha_bar must be values in \[0, 1\]"),
        (lambda: NoiseLevels(None).signal(T), r"give a schedule, or loss\(signal=...\)"),
        (lambda: NoiseLevels("linear").signal(T.float()), "must be whole numbers, got torch.float32"),
        (lambda: NoiseLevels("linear").signal(T[0]), r"one for each row, \(B,\), got \(\)"),
        (lambda: NoiseLevels("linear").signal(T, torch.ones(3)), r"signal must be floating \(4,\).*\(3,\)"),
    ],
)
def test_sentences(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
