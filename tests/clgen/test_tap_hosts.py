"""`attach` on hosts that others wrote: losses and gradients are those of the same model and a hook of our own.

The hosts are real and small, with weights by chance, in float64, so that a gradient a millionth off is seen.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from diffusers import (
    DiTTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
    UVit2DModel,
)
from diffusers.training_utils import EMAModel
from tapped import Gap, Keyed, Spread, Stopped, assert_same, grads, images
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint
from torchgan.models import DCGANDiscriminator

from contraux.clgen import GenerativeMethod, attach

B = 3
T = torch.tensor([3, 500, 900])
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def noise(*shape, seed=5):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Host(NamedTuple):
    """A model of others, and where it is tapped.

    Attributes:
        make: the model.
        inputs: of a call, by name or in order.
        module: the tapped one.
        item: of what it puts out.
        default: whether `attach` finds it by itself, and an example too.
        repeated: a module that diffusers' gradient checkpointing runs once more; None: there is none.
    """

    make: Callable[[], nn.Module]
    inputs: dict[str, Any] | tuple[Any, ...]
    module: str
    item: Any = None
    default: bool = False
    repeated: str | None = None


ONE = dict(in_channels=1, out_channels=1, sample_size=8)
SMALL = dict(num_attention_heads=2, attention_head_dim=8, num_layers=4, patch_size=2, **ONE)
UNET = dict(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, attention_head_dim=4, **ONE)
IMAGE = noise(B, 1, 8, 8)
TEXT = noise(B, 2, 6)
RGB = noise(B, 3, 32, 32)
BLOCK = "transformer_blocks.1"

HOSTS = {
    "UNet2DModel": Host(
        lambda: UNet2DModel(down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, **UNET),
        {"sample": IMAGE, "timestep": T},
        "mid_block",
        default=True,
        repeated="mid_block.resnets.1",
    ),
    "UNet2DConditionModel": Host(
        lambda: UNet2DConditionModel(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=6,
            **UNET,
        ),
        {"sample": IMAGE, "timestep": T, "encoder_hidden_states": TEXT},
        "mid_block",
        default=True,
        repeated="mid_block.resnets.1",
    ),
    "DiTTransformer2DModel": Host(
        lambda: DiTTransformer2DModel(num_embeds_ada_norm=10, norm_num_groups=4, **SMALL),
        {"hidden_states": IMAGE, "timestep": T, "class_labels": torch.tensor([1, 2, 1])},
        BLOCK,
        default=True,
        repeated=BLOCK,
    ),
    "PixArtTransformer2DModel": Host(
        lambda: PixArtTransformer2DModel(
            cross_attention_dim=16, caption_channels=6, norm_num_groups=4, use_additional_conditions=False, **SMALL
        ),
        {"hidden_states": IMAGE, "timestep": T, "encoder_hidden_states": TEXT},
        BLOCK,
        default=True,
        repeated=BLOCK,
    ),
    "SD3Transformer2DModel": Host(
        lambda: SD3Transformer2DModel(
            joint_attention_dim=6, caption_projection_dim=16, pooled_projection_dim=5, pos_embed_max_size=8, **SMALL
        ),
        {"hidden_states": IMAGE, "timestep": T, "encoder_hidden_states": TEXT, "pooled_projections": noise(B, 5)},
        BLOCK,
        item=1,
        default=True,
        repeated=BLOCK,
    ),
    "UVit2DModel": Host(
        lambda: UVit2DModel(
            hidden_size=16, cond_embed_dim=6, micro_cond_encode_dim=4, micro_cond_embed_dim=8, encoder_hidden_size=6,
            vocab_size=20, codebook_size=16, in_channels=8, block_out_channels=8, num_res_blocks=1, block_num_heads=2,
            num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, sample_size=4,
        ),
        {
            "input_ids": torch.arange(B * 16).reshape(B, 4, 4) % 20,
            "encoder_hidden_states": TEXT,
            "pooled_text_emb": noise(B, 6),
            "micro_conds": noise(B, 2),
        },
        "transformer_layers.0",
    ),  # its own checkpointing fails with diffusers 0.42.1, attached or not
    "resnet18": Host(lambda: torchvision.models.resnet18(num_classes=1), (RGB,), "layer3"),
    "timm resnet": Host(lambda: timm.create_model("test_resnet", num_classes=1), (RGB,), "layer3"),
    "timm vit": Host(lambda: timm.create_model("test_vit", num_classes=1, img_size=32), (RGB,), "norm"),
    "timm maps": Host(lambda: timm.create_model("test_resnet", features_only=True), (RGB,), "", item=-2),
    "torchgan": Host(lambda: DCGANDiscriminator(32, 3, 4), (RGB,), "model"),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    return HOSTS[name].make().double().train()


def called(model, inputs):
    output = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    output = getattr(output, "sample", output)
    return output[-1] if isinstance(output, list) else output


def attached(name, model):
    host = HOSTS[name]
    if host.default:
        return attach(model, objective=Spread)
    at = host.module + ("" if host.item is None else f"[{host.item}]")
    return attach(model, at=at, objective=Spread, example=host.inputs)


def step_by_hand(name, head):
    """The gradients with the method's arithmetic written out, and a hook that only looks."""
    model, host, seen = made(name), HOSTS[name], []
    model.get_submodule(host.module).register_forward_hook(lambda _, __, output: seen.append(output))
    torch.manual_seed(1)
    loss = called(model, host.inputs).square().mean()
    features = seen[0] if host.item is None else seen[0][host.item]
    z = head(features.mean((2, 3) if features.ndim == 4 else 1))
    (loss + torch.cdist(z, z).square().neg().exp().mean()).backward()
    return grads(model, head)


@pytest.mark.parametrize("name", HOSTS)
def test_losses_and_gradients_are_those_of_a_hook_by_hand(name):
    model, host = made(name), HOSTS[name]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    aux = attached(name, model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())  # batch norms too
    runs = []
    if host.repeated is not None:
        model.enable_gradient_checkpointing()
        model.get_submodule(host.repeated).register_forward_pre_hook(lambda *_: runs.append(1))
    torch.manual_seed(1)
    with aux:
        loss = called(model, host.inputs).square().mean()
    (loss + aux.loss()).backward()
    assert len(runs) == (0 if host.repeated is None else 2)
    assert_same(grads(model, aux.method.head), step_by_hand(name, copy.deepcopy(aux.method.head)), **EXACT)


def test_a_model_without_a_default_lists_its_children():
    with pytest.raises(ValueError, match=r"UVit2DModel, which has no default .* down_block, .* transformer_layers"):
        attach(made("UVit2DModel"), objective=Spread)


@pytest.mark.parametrize("name", ["UNet2DModel", "SD3Transformer2DModel"])
def test_save_pretrained_of_an_attached_model(name, tmp_path):
    model, twin = made(name), made(name)
    aux = attached(name, model)
    with aux:
        called(model, HOSTS[name].inputs)
        model.save_pretrained(tmp_path / "attached")
    aux.loss().backward()
    twin.save_pretrained(tmp_path / "plain")
    for file in (tmp_path / "plain").iterdir():
        assert (tmp_path / "attached" / file.name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "attached").iterdir())) == 2
    again = type(model).from_pretrained(tmp_path / "attached", torch_dtype=torch.float64).train()
    assert type(again) is type(twin) and not any(hooks(again))
    torch.testing.assert_close(called(again, HOSTS[name].inputs), called(twin, HOSTS[name].inputs), **EXACT)


def test_moving_averages_stay_out_of_it():
    model, inputs = made("UNet2DModel"), HOSTS["UNet2DModel"].inputs
    count = len(list(model.parameters()))
    aux = attached("UNet2DModel", model)
    average = EMAModel(model.parameters(), decay=0.9, model_cls=UNet2DModel, model_config=model.config)
    optimizer = torch.optim.SGD([*model.parameters(), *aux.parameters()], 0.1)
    expected = [weight.detach().clone() for weight in model.parameters()]
    for decay in (0.0, 2 / 11):  # EMAModel's warm-up, (1 + step) / (10 + step)
        with aux:
            loss = called(model, inputs).square().mean()
            twin = AveragedModel(model)  # a deep copy, as many training scripts make
            called(twin, inputs)
        loss = loss + aux.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.step(model.parameters())
        expected = [decay * one + (1 - decay) * two for one, two in zip(expected, model.parameters(), strict=True)]
    assert len(average.shadow_params) == count
    assert_same(average.shadow_params, expected, **EXACT)
    average.store(model.parameters())
    average.copy_to(model.parameters())
    with aux:
        called(model, inputs)
    assert aux.loss().requires_grad
    average.restore(model.parameters())


class Deep(nn.Module):
    """Checkpoints what stands behind its first layers, unless `reentrant` is None."""

    def __init__(self, reentrant):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Tanh())
        self.trunk = nn.Sequential(nn.Conv2d(4, 5, 3, 2, 1), nn.Tanh(), nn.Conv2d(5, 6, 3, 1, 1), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
        self.reentrant = reentrant

    def last(self, x):
        return self.head(self.trunk(x).mean((2, 3)))

    def forward(self, x):
        x = self.first(x)
        return self.last(x) if self.reentrant is None else checkpoint(self.last, x, use_reentrant=self.reentrant)


def deep_step(reentrant, penalty, method, at, stop_at):
    """The gradients of a step; the penalty comes from a call outside, as a gradient penalty must."""
    torch.manual_seed(0)
    disc = Deep(reentrant).double()
    aux = attach(disc, at=at, objective=method, example=images().double(), stop_at=stop_at)
    loss = disc(images(B, 3).double()).square().mean() if penalty in ("before", "inside") else 0.0
    with aux:
        real, fake = disc(images(B, 1).double()), disc(images(B, 2).double())
    loss = loss + real.mean() - fake.square().mean() + aux.loss()
    if penalty == "after":
        loss = loss + disc(images(B, 3).double()).square().mean()
    if penalty == "inside":
        with aux:  # the next recording has begun
            loss.backward()
    else:
        loss.backward()
    return grads(disc, aux.method)


@pytest.mark.parametrize("penalty", ["none", "before", "after", "inside"])
@pytest.mark.parametrize(
    ("reentrant", "method", "at", "stop_at"),
    [
        (False, Gap, "trunk.1", None),
        (False, Stopped, "trunk", None),
        (False, Stopped, "trunk.1", "head"),
        (False, Stopped, "first", None),
        (True, Gap, "first", None),
        (True, Stopped, "first", "head"),
    ],
)
def test_checkpointing_changes_no_gradient(reentrant, method, at, stop_at, penalty):
    expected = deep_step(None, penalty, method, at, stop_at)
    assert_same(deep_step(reentrant, penalty, method, at, stop_at), expected, **EXACT)


def test_a_tap_inside_a_reentrant_checkpoint_says_what_to_use():
    with pytest.raises(ValueError, match=r"the tap at trunk must record with a gradient.* use_reentrant=False"):
        deep_step(True, "none", Gap, "trunk", None)


class Normed(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.body = nn.Sequential(norm(nn.Conv2d(1, 4, 3, 2, 1)), nn.LeakyReLU(0.2), norm(nn.Conv2d(4, 6, 3, 2, 1)))
        self.head = norm(nn.Linear(6, 1))

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def hooks(model):
    """How many hooks each module has."""
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, spectral_norm])
def test_spectral_norm_iterates_as_without_us(norm):
    def normed():
        torch.manual_seed(0)
        return Normed(norm).double()

    disc, twin = normed(), normed()
    aux = attach(disc, at="body", objective=Gap, example=images().double())
    assert_same(list(disc.buffers()), list(twin.buffers()), rtol=0, atol=0)  # the example did not iterate
    for seed in range(2):
        inputs = images(B, seed).double(), images(B, seed + 10).double()
        with aux:
            real, fake = disc(inputs[0]), disc(inputs[1])
        (fake.mean() - real.square().mean() + aux.loss()).backward()
        features, scores = [], []
        for x in inputs:
            features.append(twin.body(x).mean((2, 3)))
            scores.append(twin.head(features[-1]))
        gap = (features[0].mean(0) - features[1].mean(0)).square().sum()
        (scores[1].mean() - scores[0].square().mean() + gap).backward()
        assert_same(grads(disc), grads(twin), **EXACT)
        assert_same(list(disc.buffers()), list(twin.buffers()), **EXACT)
    aux.detach()
    assert hooks(disc) == hooks(twin) and list(disc.state_dict()) == list(twin.state_dict())


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, spectral_norm])
def test_a_momentum_copy_of_spectral_norm(norm):
    disc = Normed(norm)
    disc(images())
    before = hooks(disc)
    if norm is spectral_norm:  # without an example it is as its last forward pass left it
        with pytest.raises(ValueError, match=r"Normed cannot be copied .*parametrizations\.spectral_norm does not"):
            attach(disc, at="body", objective=KeyedWithoutHeads)
        assert hooks(disc) == before
    aux = attach(disc, at="body", objective=Keyed, example=images())
    with aux:
        disc(images(B, 1)), disc(images(B, 2))
    aux.loss(real_key=images(B, 3)).backward()
    assert all(weight.grad is None for weight in aux.momentum.parameters())
    start = {name: weight.detach().clone() for name, weight in disc.named_parameters()}
    with torch.no_grad():
        for weight in disc.parameters():
            weight += 1.0
    with aux:
        disc(images(B, 1))
    for name, weight in aux.momentum.encoder.named_parameters():
        torch.testing.assert_close(weight, start[name] + 0.5)


class KeyedWithoutHeads(Keyed):
    def __init__(self, sizes):
        GenerativeMethod.__init__(self)
        self.register_buffer("scale", torch.ones(()))


class TenLines(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.LeakyReLU(0.2)
        )
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def contrad_step(disc, images, at):
    """The three lines on anybody's discriminator; returns what of it and of the heads moved."""
    opt = torch.optim.Adam(disc.parameters(), 1e-3)
    aux = attach(disc, at=at, objective="contrad", example=images)
    opt.add_param_group({"params": aux.parameters()})
    before = [weight.clone() for weight in (*disc.parameters(), *aux.parameters())]
    with aux:
        real, _, fake = disc(images), disc(images.flip(3)), disc(torch.tanh(images.roll(1, 0)))
    loss = F.softplus(-real).mean() + F.softplus(fake).mean() + aux.loss()
    opt.zero_grad()
    loss.backward()
    opt.step()
    after = (*disc.parameters(), *aux.parameters())
    return aux, [not torch.equal(one, two) for one, two in zip(before, after, strict=True)]


@pytest.mark.parametrize(
    ("make", "at"), [(TenLines, "body"), (lambda: DCGANDiscriminator(32, 3, 8), "model")], ids=["own", "torchgan"]
)
def test_a_step_with_three_lines(make, at):
    torch.manual_seed(0)
    disc = make()
    kind, names = type(disc), list(disc.state_dict())
    aux, moved = contrad_step(disc, images(6, 1, channels=3, size=32), at)
    assert all(moved)
    assert type(disc) is kind and list(disc.state_dict()) == names
    assert sum(hooks(disc)) > 0
    aux.detach()
    assert sum(hooks(disc)) == 0


def test_one_activation_in_several_places_is_no_place():
    disc = DCGANDiscriminator(32, 3, 4)  # has one LeakyReLU for all of its layers
    for at, stop_at in (("model.1.2", None), ("model.1.1", "model.1.2")):
        what = "stop_at" if stop_at else "the tap at model.1.2"
        sentence = f"{what} must be one place, and model.0.1, model.1.2, model.2.2 are one and the same module"
        with pytest.raises(ValueError, match=sentence):
            attach(disc, at=at, objective=Stopped, example=images(channels=3, size=32), stop_at=stop_at)
    assert sum(hooks(disc)) == 0


class Told(nn.Module):
    """Two blocks that share the embedding of a number, which puts out the same for both."""

    def __init__(self):
        super().__init__()
        embedding = nn.Linear(1, 4)
        self.blocks = nn.ModuleList(nn.ModuleDict({"told": embedding, "own": nn.Linear(4, 4)}) for _ in range(2))

    def forward(self, x, t):
        for block in self.blocks:
            x = block["own"](x) * block["told"](t)
        return x


def test_one_embedding_in_several_places_is_one():
    model = Told()
    aux = attach(model, at="blocks.1.told", objective=Spread, example=(torch.zeros(2, 4), torch.ones(2, 1)))
    with aux:
        model(torch.ones(B, 4), torch.rand(B, 1))
    assert aux.loss().requires_grad and aux.method.seen["denoise"]["features"].shape == (B, 4)
