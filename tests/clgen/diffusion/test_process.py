"""Processes are diffusers' own: noise, targets, and steps of the samplers."""

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from contraux.clgen.training_diffusion import Diffusion, Flow, target


def rows(count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, count, 1, 4, 4, generator=generator)


def mixed(process, clean, noise, timesteps):
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in process.levels(timesteps))
    return alpha * clean + sigma * noise


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_diffusion_noises_as_diffusers_does(schedule):
    clean, noise = rows()
    timesteps = torch.tensor([0, 1, 250, 500, 900, 999])
    process = Diffusion(schedule=schedule)
    theirs = DDIMScheduler(beta_schedule=schedule)
    assert torch.allclose(mixed(process, clean, noise, timesteps), theirs.add_noise(clean, noise, timesteps), atol=2e-4)
    levels = process.levels(timesteps)
    velocity = theirs.get_velocity(clean, noise, timesteps)
    assert torch.allclose(target("v_prediction", clean, noise, *levels), velocity, atol=2e-4)
    assert torch.equal(levels.signal, levels.alpha / (levels.alpha**2 + levels.sigma**2).sqrt())


def test_flow_noises_as_diffusers_does():
    clean, noise = rows(4)
    theirs = FlowMatchEulerDiscreteScheduler()
    timesteps = torch.tensor([1.0, 250.0, 700.0, 1000.0])
    assert torch.allclose(
        mixed(Flow(), clean, noise, timesteps), theirs.scale_noise(clean, timesteps, noise), atol=1e-6
    )
    levels = Flow().levels(timesteps)
    assert levels.signal[1].item() == pytest.approx(0.75 / (0.75**2 + 0.25**2) ** 0.5)


@pytest.mark.parametrize("steps", [4, 10])
def test_flow_is_sampled_by_eulers_steps(steps):
    """x(sigma') = x + (sigma' - sigma) v, and to the same image as FlowMatchEulerDiscreteScheduler on those sigmas."""
    scheduler, theirs = Flow().sampler(), FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    theirs.set_timesteps(sigmas=scheduler.sigmas[:-1].tolist())
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 1, 4, 4, generator=generator)
    velocities = torch.randn(steps, 2, 1, 4, 4, generator=generator)
    x = by_hand = other = noise
    for i, (t, s, velocity) in enumerate(zip(scheduler.timesteps, theirs.timesteps, velocities, strict=True)):
        by_hand = by_hand + (scheduler.sigmas[i + 1] - scheduler.sigmas[i]) * velocity
        x = scheduler.step(velocity, t, x).prev_sample
        other = theirs.step(velocity, s, other).prev_sample
    assert scheduler.sigmas[0] > 0.99 and scheduler.sigmas[-1] == 0
    assert torch.allclose(x, by_hand, atol=1e-5)
    assert torch.allclose(x, other, atol=1e-5)


@pytest.mark.parametrize("normal", [None, 1.0])
def test_timesteps_are_drawn_over_the_whole_range(normal):
    drawn = Flow(normal=normal).draw(4000, torch.Generator().manual_seed(0)) / 1000
    assert 0 <= drawn.min() < 0.05 and 0.95 < drawn.max() <= 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)
    middle = ((drawn > 0.25) & (drawn < 0.75)).float().mean().item()
    assert middle == pytest.approx(0.5 if normal is None else 0.728, abs=0.03)  # P(|z| < ln 3)
    whole = Diffusion(timesteps=10).draw(1000, torch.Generator().manual_seed(0))
    assert whole.unique().tolist() == list(range(10))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Diffusion("pndm"), "unknown sampler 'pndm'"),
        (lambda: Diffusion(prediction="flow"), "unknown prediction 'flow'"),
        (lambda: Diffusion(schedule="cosine"), "unknown schedule 'cosine'"),
        (
            lambda: Diffusion(spacing="trailing"),
            "epsilon with spacing trailing must have clip=true .* leaves 4.9e-05 of",
        ),
        (lambda: Diffusion(timesteps=1), "timesteps must be a whole number >= 2, got 1"),
        (lambda: Flow(order=4), "unknown order '4'"),
        (lambda: Flow(normal=0.0), "normal must be a number > 0, got 0.0"),
    ],
)
def test_what_breaks_a_rule(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_sampling_may_begin_at_the_last_timestep_where_something_can_be_said_of_the_image():
    for process in (
        Diffusion(spacing="trailing", clip=True),
        Diffusion(spacing="trailing", prediction="v_prediction"),
        Diffusion(spacing="trailing", schedule="linear"),
    ):
        scheduler = process.sampler()
        scheduler.set_timesteps(4)
        assert scheduler.timesteps[0] == 999
        assert scheduler.config.clip_sample == process.clip
