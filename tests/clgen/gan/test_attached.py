"""What a method asks of the tap, through `attach`: stopped gradients, momentum copies, maps and labels."""

import math

import pytest
import torch
import torch.nn.functional as F
from gan_methods import CLASSES, NAMES, Disc, generator_step, given, images, inputs, labels, made, step

from contraux.clgen import attach


def test_contrads_adversarial_loss_stops_at_the_head_and_its_own_does_not():
    disc, aux = made("contrad")
    loss, (real, _, fake) = step("contrad", disc, aux)
    adversarial = F.softplus(-real).mean() + F.softplus(fake).mean()
    body = list(disc.body.parameters())
    head = list(disc.head.parameters())
    assert all(one is None for one in torch.autograd.grad(adversarial, body, retain_graph=True, allow_unused=True))
    assert all(one.abs().sum() > 0 for one in torch.autograd.grad(adversarial, head, retain_graph=True))
    assert all(one is None for one in torch.autograd.grad(loss, head, retain_graph=True, allow_unused=True))
    assert all(one.abs().sum() > 0 for one in torch.autograd.grad(loss, body))
    penalty = torch.autograd.grad(disc(images(1).requires_grad_()).sum(), body)  # outside, nothing is stopped
    assert all(one.abs().sum() > 0 for one in penalty)


def test_one_call_with_real_view_and_fake():
    disc, aux = made("contrad")
    several, _ = step("contrad", disc, aux)
    with aux:
        disc(torch.cat(inputs(("real", "view", "fake"), 1)))
    torch.testing.assert_close(aux.loss(), several)


def momentum_features(aux, x):
    with torch.no_grad():
        return aux.momentum.encoder.body(aux.momentum.encoder.first(x)).mean((2, 3))


def test_insgen_moves_its_copies_once_a_step_and_fills_its_queues_from_them():
    disc, aux = made("insgen")
    start = [p.clone() for p in disc.parameters()]
    head = aux.method.real.projection.layers[0].weight
    first = head.detach().clone()
    step("insgen", disc, aux)
    with torch.no_grad():
        for parameter in (*disc.parameters(), head):
            parameter.add_(1.0)
    generator_step("insgen", disc, aux, images(2, fake=True))
    copies = list(aux.momentum.encoder.parameters())
    for mine, before in zip(copies, start, strict=True):  # nothing has moved before the next step
        torch.testing.assert_close(mine, before)
    with aux:
        disc(images(1)), disc(images(2, fake=True))
    for mine, before in zip(copies, start, strict=True):  # momentum 0.9 of what is 1 more
        torch.testing.assert_close(mine, before + 0.1)
    torch.testing.assert_close(aux.method.real.momentum.encoder.layers[0].weight, first + 0.1)
    keys = given(("real_key", "fake_key"))
    aux.loss(**keys)
    with torch.no_grad():
        for role in ("real", "fake"):
            objective = getattr(aux.method, role)
            key = objective.momentum(momentum_features(aux, keys[f"{role}_key"]))
            remembered = objective.sampler.memory().key  # of 6 keys the newest 2
            torch.testing.assert_close(remembered.sort(0).values, key[-2:].sort(0).values)


def test_insgen_says_what_it_needs():
    with pytest.raises(ValueError, match=r'got None: attach\(..., overrides=\["module.size=N"\]\)'):
        attach(Disc(), at="body", objective="insgen", example=images(0))
    disc, aux = made("insgen")
    with aux:
        disc(images(1)), disc(images(2))
    with pytest.raises(ValueError, match=r"InsGen needs loss\(fake_key=\.\.\.\), which was not given"):
        aux.loss(real_key=images(3))


@pytest.mark.parametrize("name", ["contragan", "reacgan", "class_supcon"])
def test_conditional_methods_say_that_they_need_labels(name):
    disc, aux = made(name)
    with aux:
        disc(images(1)), disc(images(2))
    with pytest.raises(ValueError, match=r"needs loss\(labels=\.\.\.\), which was not given"):
        aux.loss()
    with aux.for_generator():
        disc(images(2))
    with pytest.raises(ValueError, match=r"needs loss\(labels=\.\.\.\), which was not given"):
        aux.loss()


def test_class_supcon_takes_the_classes_of_fakes():
    disc, aux = made("class_supcon")
    values = []
    for more in ({}, {"fake_labels": labels()}, {"fake_labels": labels().sort().values}):
        with aux:
            disc(images(1)), disc(images(2, fake=True))
        values.append(aux.loss(labels=labels(), **more).item())
    assert len(set(values)) == 3


@pytest.mark.parametrize("name", ["contragan", "reacgan", "infomax"])
def test_the_discriminators_phase_does_not_look_at_fakes(name):
    values = []
    for seed in (2, 3):
        disc, aux = made(name)
        with aux:
            disc(images(1)), disc(images(seed, fake=True))
        values.append(aux.loss(**({} if name == "infomax" else {"labels": labels()})))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)


def test_infomax_needs_two_places():
    with pytest.raises(ValueError, match="at must name a module for each of local, global"):
        attach(Disc(), at="body", objective="infomax", example=images(0))


def test_reacgan_by_both_variants():
    values = []
    for variant in ("paper", "studiogan"):
        torch.manual_seed(0)
        disc = Disc()
        overrides = [f"module.classes={CLASSES}", f"module.variant={variant}"]
        aux = attach(disc, at="body", objective="reacgan", example=images(0), overrides=overrides)
        values.append(step("reacgan", disc, aux)[0].item())
    assert math.isfinite(sum(values)) and values[0] != values[1]


def test_bfloat16_features_are_compared_in_float32():
    for name in NAMES:
        disc, aux = made(name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, logits = step(name, disc, aux)
        assert logits[0].dtype == torch.bfloat16 and loss.dtype == torch.float32 and loss.isfinite()
        plain, _ = step(name, *made(name))
        assert abs(loss.item() - plain.item()) < 0.1 * plain.item(), name
