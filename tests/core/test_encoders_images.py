"""Encoders of images and vectors: sizes, what the networks compute, and that weights of a library are asked for."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.models import ResNet18_Weights, ViT_B_16_Weights, list_models
from torchvision.models import resnet18 as torchvision_resnet18

import contraux
from contraux.core.encoders import MLP, ImpalaCNN, NatureCNN, ResNet, SmallCNN, Timm, ViT
from contraux.core.encoders.resnet import MODELS
from contraux.core.preset import build

CONFIGS = Path(contraux.__file__).parent / "configs" / "encoder"
SMALL_VIT = partial(ViT, patch_size=4, dim=24, layers=2, heads=3)
ENCODERS = {
    "small_cnn": (SmallCNN, (3, 9, 4)),
    "small_cnn_group": (partial(SmallCNN, norm="group"), (1, 8, 8)),
    "small_cnn_layer": (partial(SmallCNN, norm="layer", width=8), (2, 8, 8)),
    "resnet": (ResNet, (4, 32, 40)),
    "resnet_cifar": (partial(ResNet, stem="cifar"), (1, 8, 8)),
    "vit": (SMALL_VIT, (2, 12, 12)),
    "timm": (partial(Timm, name="convnext_atto"), (2, 32, 32)),
    "timm_of_one_size": (partial(Timm, name="vit_tiny_patch16_224"), (1, 32, 32)),
    "timm_with_a_wide_head": (partial(Timm, name="mobilenetv3_small_050"), (3, 32, 32)),
    "nature": (NatureCNN, (4, 36, 50)),
    "impala": (ImpalaCNN, (4, 21, 8)),
    "mlp": (partial(MLP, hidden=[8], out=5), (2, 3, 4)),
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("make", "shape"), ENCODERS.values(), ids=ENCODERS.keys())
def test_out_features_and_a_gradient_for_every_parameter(make, shape):
    torch.manual_seed(0)
    encoder = make(shape)
    x = torch.randn(3, *shape)
    out = encoder(x)
    assert out.shape == (3, encoder.out_features) and encoder.training
    (out * torch.randn_like(out)).sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_sizes_of_the_papers():
    # 1*32*9 + 64, 32*64*9 + 128, 64*128*9 + 256
    assert count(SmallCNN((1, 8, 8))) == 288 + 64 + 18432 + 128 + 73728 + 256 == 92896
    # 8*8*4*32+32, 4*4*32*64+64, 3*3*64*64+64, 7*7*64*512+512
    assert count(NatureCNN((4, 84, 84))) == 8224 + 32832 + 36928 + 1606144
    impala = ImpalaCNN((4, 72, 96))
    convolutions = [module for module in impala.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 15
    assert [c.out_channels for c in convolutions] == [16] * 5 + [32] * 10
    linear = next(module for module in impala.modules() if isinstance(module, nn.Linear))
    assert (linear.in_features, linear.out_features) == (32 * 9 * 12, 256)
    assert ImpalaCNN((1, 8, 8), width=2).layers[0].out_channels == 32
    assert count(ResNet((3, 224, 224), "resnet50")) == 25_557_032 - 2048 * 1000 - 1000  # torchvision's, less its head
    assert count(ViT((3, 224, 224))) == 21_665_664  # ViT-S/16 without a head, as timm counts it


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_norms_without_the_batch_see_each_image_alone(norm):
    x = torch.randn(4, 1, 8, 8)
    encoder = SmallCNN((1, 8, 8), norm=norm)
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]))
    batch = SmallCNN((1, 8, 8))
    assert (batch(x)[:1] - batch(x[:1])).abs().max() > 1e-3


def test_small_cnn_by_hand():
    encoder = SmallCNN((1, 8, 8), width=8, norm="layer").eval()
    x = torch.rand(2, 1, 8, 8)
    seen = x
    for index, (channels, stride) in enumerate(((8, 1), (16, 2), (32, 2))):
        convolution = encoder.layers[3 * index]
        assert convolution.bias is None and convolution.out_channels == channels
        seen = F.conv2d(F.pad(seen, (1, 1, 1, 1)), convolution.weight, stride=stride)
        mean, variance = seen.mean((1, 2, 3), keepdim=True), seen.var((1, 2, 3), unbiased=False, keepdim=True)
        seen = torch.relu((seen - mean) / (variance + 1e-5).sqrt())
    assert seen.shape == (2, 32, 2, 2)
    torch.testing.assert_close(encoder(x), seen.mean((2, 3)))


def test_impala_by_hand():
    encoder = ImpalaCNN((2, 9, 12), out=3)
    convolutions = iter([module for module in encoder.modules() if isinstance(module, nn.Conv2d)])

    def conv(x):
        layer = next(convolutions)
        return F.conv2d(x, layer.weight, layer.bias, padding=1)

    x = seen = torch.rand(2, 2, 9, 12)
    for _ in range(3):
        seen = F.max_pool2d(conv(seen), 3, 2, 1)
        for _ in range(2):
            seen = seen + conv(torch.relu(conv(torch.relu(seen))))
    linear = next(module for module in encoder.modules() if isinstance(module, nn.Linear))
    expected = torch.relu(F.linear(torch.relu(seen).flatten(1), linear.weight, linear.bias))
    torch.testing.assert_close(encoder(x), expected)


def test_the_cifar_stem_keeps_the_size_and_the_imagenet_stem_divides_by_four():
    x = torch.rand(1, 1, 32, 32)
    for stem, side in (("cifar", 32), ("imagenet", 8)):
        network = ResNet((1, 32, 32), stem=stem).network
        seen = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        assert seen.shape == (1, 64, side, side)


def test_resnet_is_torchvisions():
    ours, theirs = ResNet((3, 40, 40)), torchvision_resnet18()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.network.state_dict())
    x = torch.rand(2, 3, 40, 40)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert {"resnet18", "resnet34", "resnet101", "wide_resnet50_2"} <= set(MODELS) < set(list_models())


def test_mlp_flattens():
    x = torch.rand(5, 2, 3)
    one, other = MLP((2, 3), [4], 2), MLP(6, [4], 2)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x.flatten(1)))


def test_frozen_patches_stay():
    encoder = SMALL_VIT((1, 8, 8), frozen_patches=True)
    frozen = [name for name, parameter in encoder.named_parameters() if not parameter.requires_grad]
    assert frozen == ["network.conv_proj.weight", "network.conv_proj.bias"]


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5), st.integers(4, 40), st.integers(4, 40))
def test_small_cnn_takes_any_size(channels, height, width):
    assert SmallCNN((channels, height, width), width=8)(torch.rand(2, channels, height, width)).shape == (2, 32)


# --- weights of a library: nothing can be downloaded here, so the request is what is looked at -----------------------


@pytest.fixture
def requests(monkeypatch):
    """What torch was asked to download, answered with random weights of the real model."""
    seen = []

    def answer(url, **arguments):
        seen.append((url, arguments))
        return answer.state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", answer)
    seen.append(answer)
    return seen


def test_resnet_asks_torchvision_for_weights_and_uses_them(requests):
    answer = requests.pop()
    answer.state = torchvision_resnet18().state_dict()
    encoder = ResNet((3, 64, 64), weights="IMAGENET1K_V1")
    assert requests[0][0] == ResNet18_Weights.IMAGENET1K_V1.url
    assert requests[0][1]["check_hash"] and requests[0][1]["weights_only"]
    for name, value in encoder.network.state_dict().items():
        assert torch.equal(value, answer.state[name])


def test_vit_asks_torchvision_for_weights_and_interpolates_positions(requests, monkeypatch):
    answer = requests.pop()
    made = ViT((3, 32, 32), patch_size=8, dim=24, layers=2, heads=3)
    answer.state = {**made.network.state_dict(), "heads.head.weight": torch.zeros(1), "heads.head.bias": torch.zeros(1)}
    same = ViT((3, 32, 32), patch_size=8, dim=24, layers=2, heads=3, weights="vit_b_16.IMAGENET1K_V1")
    assert requests[0][0] == ViT_B_16_Weights.IMAGENET1K_V1.url
    for name, value in same.network.state_dict().items():
        assert torch.equal(value, answer.state[name])
    larger = ViT((3, 64, 64), patch_size=8, dim=24, layers=2, heads=3, weights="vit_b_16")
    position = larger.network.encoder.pos_embedding
    assert position.shape == (1, 65, 24)
    assert torch.equal(position[:, 0], answer.state["encoder.pos_embedding"][:, 0])
    with pytest.raises(
        ValueError, match="are for a ViT of dim=24, layers=2, patch_size=8, got one of dim=24, layers=3"
    ):
        ViT((3, 32, 32), patch_size=8, dim=24, layers=3, heads=3, weights="vit_b_16")


def test_timm_is_asked_for_weights(monkeypatch):
    import timm

    seen = {}
    real = timm.create_model

    def create(name, pretrained, **arguments):
        seen.update(name=name, pretrained=pretrained)
        return real(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", create)
    Timm((3, 32, 32), "resnet18.a1_in1k", pretrained=True)
    assert seen == {"name": "resnet18.a1_in1k", "pretrained": True}


def test_weights_that_cannot_be_downloaded(monkeypatch):
    from urllib.error import URLError

    def refuse(*_, **__):
        raise URLError("no way out")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(ValueError, match=r"weights IMAGENET1K_V1 of resnet18 could not be downloaded: .*no way out"):
        ResNet((3, 64, 64), weights="IMAGENET1K_V1")


# --- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SmallCNN((1, 3, 8)), "SmallCNN needs images of at least 4 x 4 pixels, got 3 x 8"),
        (lambda: SmallCNN((64,)), r"SmallCNN reads images, input_shape must be \(C, H, W\), got \(64,\)"),
        (lambda: SmallCNN((1, 8, 8), norm="bach"), "unknown norm 'bach': did you mean batch"),
        (lambda: SmallCNN((1, 8, 8), width=12), "width must be a multiple of 8, got 12"),
        (lambda: SmallCNN((0, 8, 8)), "every size in input_shape of SmallCNN must be a whole number >= 1, got 0"),
        (lambda: NatureCNN((4, 35, 84)), "NatureCNN needs images of at least 36 x 36 pixels, got 35 x 84"),
        (lambda: ImpalaCNN((4, 84, 7)), "ImpalaCNN needs images of at least 8 x 8 pixels, got 84 x 7"),
        (lambda: ImpalaCNN((4, 84, 84), width=0), "width must be a whole number >= 1, got 0"),
        (lambda: MLP((4, 0), [], 2), "every size in input_shape of MLP must be a whole number >= 1, got 0"),
        (lambda: MLP((), [], 2), r"input_shape of MLP must have at least one size, got \(\)"),
        (lambda: ResNet((3, 64, 64), "resnet19"), "unknown ResNet 'resnet19': did you mean resnet1"),
        (lambda: ResNet((3, 8, 8)), "at least 32 x 32 pixels, got 8 x 8, for which stem=cifar is made"),
        (lambda: ResNet((3, 64, 64), stem="cifra"), "unknown stem 'cifra': did you mean cifar"),
        (lambda: ResNet((3, 64, 64), weights="IMAGENET1K_V9"), "unknown weights of resnet18 'IMAGENET1K_V9'"),
        (
            lambda: ResNet((1, 64, 64), weights="IMAGENET1K_V1"),
            "are for 3 channels and the imagenet stem, got 1 channel and the imagenet stem",
        ),
        (lambda: ResNet((3, 64, 64), stem="cifar", weights="IMAGENET1K_V1"), "got 3 channels and the cifar stem"),
        (lambda: ViT((3, 30, 30)), "square images of a multiple of patch_size=16 pixels, got 30 x 30"),
        (lambda: ViT((3, 32, 64)), "square images of a multiple of patch_size=16 pixels, got 32 x 64"),
        (lambda: ViT((3, 32, 32), dim=100), "dim must be a multiple of heads=6, got 100"),
        (lambda: ViT((1, 32, 32), weights="vit_b_16"), "weights='vit_b_16' are for 3 channels, got 1"),
        (lambda: ViT((3, 32, 32), weights="vit_b_61"), "unknown model in weights 'vit_b_61': did you mean vit_b_16"),
        (lambda: Timm((3, 32, 32), "resnet81"), "unknown model of timm 'resnet81': did you mean resnet"),
        (lambda: Timm((3, 32, 32), "hf-hub:somebody/something"), "unknown model of timm 'hf-hub:somebody/something'"),
        (lambda: Timm((3, 32, 32), "local-dir:/tmp"), "unknown model of timm 'local-dir:/tmp'"),
        (
            lambda: Timm((3, 8, 8), "convnext_atto"),
            r"timm's convnext_atto could not be made for images of \(3, 8, 8\): ",
        ),
        (
            lambda: Timm((3, 8, 8), "vit_tiny_patch16_224"),
            "timm's vit_tiny_patch16_224 could not be made for images of",
        ),
    ],
)
def test_wrong_arguments(make, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        make()
    assert len(str(raised.value).splitlines()) == 1


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ValueError, match=r"pip install 'contraux\[timm\]'"):
        Timm((3, 32, 32), "resnet18")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_makes_an_encoder(path):
    config = yaml.safe_load(path.read_text())
    if path.stem == "timm":
        config["name"] = "resnet18"
    shape = (5,) if path.stem == "mlp" else (3, 64, 64)
    encoder = build(config)(shape)
    assert encoder.eval()(torch.rand(2, *shape)).shape == (2, encoder.out_features)
