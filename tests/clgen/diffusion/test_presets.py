"""Every preset on real denoisers of diffusers: a new objective is one more row of CONTEXT."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from contraux.clgen import attach
from contraux.clgen.diffusion import second_views
from contraux.core.encoders import PretrainedEncoder, SmallCNN, describe
from contraux.core.preset import options

ROWS = 6
SOURCE = second_views(ROWS, 1.0)
T = torch.tensor([20, 400, 900, 300, 50, 650])
IMAGES = torch.rand(ROWS, 1, 8, 8, generator=torch.Generator().manual_seed(0))[SOURCE] * 2 - 1
CONTEXT = {
    "time_infonce": {"timesteps": T, "identity": SOURCE},
    "ordinal_snr": {"timesteps": T},
    "dispersive": {},
    "label_supcon": {"labels": torch.tensor([0, 1, 0, 1, -1, 0])},
    "repa": {"clean": IMAGES},
}
HOSTS = ("tiny_unet", "tiny_conditional_unet", "tiny_dit")
PLACES = {"tiny_unet": "mid_block", "tiny_conditional_unet": "mid_block", "tiny_dit": "transformer_blocks.1"}


@pytest.fixture
def overrides(tmp_path):
    factory = partial(SmallCNN, width=8)
    PretrainedEncoder(factory((1, 8, 8)), (1, 8, 8), [0.5], [0.5], describe(factory)).save_pretrained(tmp_path / "run")
    return {"repa": [f"module.encoder.where={tmp_path / 'run'}", "module.encoder.layer=encoder.layers.8"]}


def denoise(host, model, x=IMAGES):
    noisy = DDPMScheduler().add_noise(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), T[: len(x)])
    if host == "tiny_conditional_unet":
        return model(noisy, T, encoder_hidden_states=torch.ones(len(x), 2, 6)).sample
    if host == "tiny_dit":
        return model(noisy, T, class_labels=torch.zeros(len(x), dtype=torch.long)).sample
    return model(noisy, T).sample


def test_every_preset_has_a_row():
    assert set(CONTEXT) == set(options("diffusion/objective")) - {"none"}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", CONTEXT)
def test_a_step_with_default_taps(name, host, overrides, request):
    model = request.getfixturevalue(host)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    aux = attach(model, objective=name, overrides=overrides.get(name, []))
    assert aux.places["features"] == PLACES[host]
    optimizer = torch.optim.AdamW([*model.parameters(), *aux.parameters()], 1e-3)
    losses = []
    for _ in range(3):
        with aux:
            prediction = denoise(host, model)
        auxiliary = aux.loss(**CONTEXT[name])
        optimizer.zero_grad()
        (F.mse_loss(prediction, torch.zeros_like(prediction)) + 0.05 * auxiliary).backward()
        assert auxiliary.ndim == 0 and auxiliary.dtype == torch.float32 and auxiliary.isfinite()
        assert all(value.isfinite() and not value.requires_grad for value in aux.metrics.values())
        assert all(weight.grad is not None for weight in aux.parameters())
        optimizer.step()
        losses.append(auxiliary.item())
    assert len(set(losses)) == 3
    assert model.state_dict().keys() == before.keys()


@pytest.mark.parametrize("name", CONTEXT)
def test_the_gradient_reaches_the_model_through_the_tap_alone(name, overrides, tiny_unet):
    aux = attach(tiny_unet, objective=name, overrides=overrides.get(name, []))
    with aux:
        denoise("tiny_unet", tiny_unet)
    aux.loss(**CONTEXT[name]).backward()
    reached = {key.split(".")[0] for key, weight in tiny_unet.named_parameters() if weight.grad is not None}
    assert reached == {"conv_in", "time_embedding", "down_blocks", "mid_block"}
    assert all(weight.grad.abs().sum() > 0 for weight in tiny_unet.conv_in.parameters())


@pytest.mark.parametrize("name", CONTEXT)
def test_minimised_alone_it_falls(name, overrides, tiny_unet):
    aux = attach(tiny_unet, objective=name, overrides=overrides.get(name, []))
    optimizer = torch.optim.Adam([*tiny_unet.parameters(), *aux.parameters()], 2e-3)
    losses = []
    for _ in range(25):
        with aux:
            denoise("tiny_unet", tiny_unet)
        loss = aux.loss(**CONTEXT[name])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01


def test_other_settings_by_name(tiny_unet):
    for variant in ("hinge", "covariance"):
        aux = attach(
            tiny_unet,
            objective="dispersive",
            overrides=[f"module.variant={variant}", "module.normalize=whiten", "module.queue=8"],
        )
        with aux:
            denoise("tiny_unet", tiny_unet)
        assert aux.loss().isfinite()
        aux.detach()
    aux = attach(tiny_unet, objective="time_infonce", overrides=["module.schedule=null"])
    with aux:
        denoise("tiny_unet", tiny_unet)
    assert aux.loss(timesteps=T, identity=SOURCE, signal=torch.rand(ROWS)).isfinite()


def test_the_contexts_sentences(tiny_unet):
    aux = attach(tiny_unet, objective="time_infonce")
    with aux:
        denoise("tiny_unet", tiny_unet)
    with pytest.raises(ValueError, match=r"TimeInfoNCE needs loss\(identity=\.\.\.\), which was not given"):
        aux.loss(timesteps=T)
    with aux:
        denoise("tiny_unet", tiny_unet)
    with pytest.raises(ValueError, match=r"timesteps must be one for each of the 6 rows, \(6,\), got \(1,\)"):
        aux.loss(timesteps=T[:1], identity=SOURCE)
    with pytest.raises(ValueError, match="where=FOLDER"):
        attach(tiny_unet, objective="repa")
