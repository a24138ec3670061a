"""The contract that every YAML of configs/gan/method keeps, on a discriminator as a user writes it."""

import io
from copy import deepcopy

import pytest
import torch
from gan_methods import CASES, FOLDER, NAMES, B, Disc, generator_step, given, images, inputs, made, step
from torch._subclasses.fake_tensor import FakeTensorMode

from contraux.clgen import attach

every_method = pytest.mark.parametrize("name", NAMES)


def test_every_yaml_has_its_case():
    assert set(NAMES) == set(CASES)
    for name in NAMES:
        assert (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


@every_method
@pytest.mark.parametrize("normalise", [False, True])
def test_the_discriminators_phase_trains_discriminator_and_heads(name, normalise):
    disc, aux = made(name, normalise)
    optimizer = torch.optim.SGD([*disc.parameters(), *aux.parameters()], 0.1)
    before = {key: value.clone() for key, value in aux.method.named_parameters()}
    loss, logits = step(name, disc, aux)
    assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite() and loss > 0
    assert aux.metrics
    for value in aux.metrics.values():
        assert value.shape == () and not value.requires_grad and value.isfinite()
    (loss + sum(logit.mean() for logit in logits[:1])).backward()
    grown = {key: p.grad for key, p in disc.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() and grad.abs().sum() > 0 for grad in grown.values())
    optimizer.step()
    moved = {key: value for key, value in aux.method.named_parameters() if value.requires_grad}
    assert moved
    for key, value in moved.items():
        assert (value != before[key]).any(), key


@every_method
def test_the_loss_falls_when_it_is_trained_on(name):
    disc, aux = made(name)
    optimizer = torch.optim.Adam([*disc.parameters(), *aux.parameters()], 2e-3)
    losses = []
    for _ in range(40):
        loss, _ = step(name, disc, aux)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[1]  # after the first, from which on a queue is full


@every_method
def test_the_generators_phase_trains_the_generator_alone(name):
    disc, aux = made(name)
    fake = images(2, fake=True).requires_grad_()
    if CASES[name].given_for_generator is None:
        with pytest.raises(ValueError, match="has no term for the generator"), aux.for_generator():
            pass
        return
    state = deepcopy(aux.method.state_dict())
    loss = generator_step(name, disc, aux, fake)
    assert loss.shape == () and loss.isfinite() and loss > 0
    loss.backward()
    assert fake.grad.abs().sum() > 0 and (fake.grad.flatten(1).abs().sum(1) > 0).all()
    assert all(parameter.grad is None for parameter in aux.parameters())
    assert all(value.requires_grad for key, value in aux.method.named_parameters() if "momentum" not in key)
    after = aux.method.state_dict()
    for key, value in state.items():
        if not key.endswith(("._u", "._v")):  # the power iteration of spectral norm takes a step
            torch.testing.assert_close(after[key], value, rtol=0, atol=0, msg=key)


@every_method
def test_the_order_of_the_examples_does_not_matter(name):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    values = []
    for rows in (torch.arange(B), order):
        disc, aux = made(name)
        with aux:
            for x in inputs(aux.method.roles, 1):
                disc(x[rows])
        values.append(aux.loss(**{key: value[rows] for key, value in given(CASES[name].given).items()}))
    torch.testing.assert_close(values[1], values[0])


@every_method
def test_a_state_dict_takes_everything_along(name):
    disc, aux = made(name)
    for seed in (1, 5):
        loss, _ = step(name, disc, aux, seed)
        loss.backward()
        with torch.no_grad():
            for parameter in aux.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    file = io.BytesIO()
    torch.save({"disc": disc.state_dict(), "aux": aux.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    torch.manual_seed(7)
    other, copy = made(name)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1.0)
    other.load_state_dict(saved["disc"])
    copy.load_state_dict(saved["aux"])
    for seed in (9, 13):
        torch.testing.assert_close(step(name, other, copy, seed)[0], step(name, disc, aux, seed)[0], rtol=0, atol=0)


@every_method
def test_the_discriminator_stays_the_users(name):
    disc, aux = made(name)
    keys = list(Disc().state_dict())
    assert list(disc.state_dict()) == keys and type(disc) is Disc
    assert not {id(parameter) for parameter in aux.parameters()} & {id(parameter) for parameter in disc.parameters()}
    step(name, disc, aux)
    aux.detach()
    assert list(disc.state_dict()) == keys


@every_method
def test_heads_need_an_example(name):
    disc, case = Disc(), CASES[name]
    with pytest.raises(ValueError, match="example"):
        attach(disc, at=case.at, objective=name, overrides=case.overrides)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "contrad"])
def test_no_phase_reads_a_value(name):
    """It would stall a GPU. Tensors without values raise where one is read, which the CPU's kernel of NT-Xent does."""
    _, aux = made(name)
    method, shapes = aux.method, {"pooled": (B, 8), "map": (B, 6, 8, 8)}
    with FakeTensorMode(allow_non_fake_inputs=True):
        features = {
            role: {tap: torch.randn(shapes[kind], requires_grad=True) for tap, kind in method.taps.items()}
            for role in (*method.roles, *method.key_roles)
        }
        context = {"labels": torch.arange(B)} if method.context else {}
        for _ in range(2):
            method(features, context).loss.backward()
        if method.generator_roles:
            method.generator(features, context).loss.backward()
