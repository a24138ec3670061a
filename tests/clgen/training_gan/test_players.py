"""The backbones: sizes, classes, where methods look, and that files bring them back."""

import copy
import json

import pytest
import torch
from torch import nn

from contraux.clgen import attach
from contraux.clgen.training_gan import dcgan, load_discriminator, load_generator, resnet, sndcgan
from contraux.clgen.training_gan.parts import ConditionalBatchNorm
from contraux.clgen.training_gan.players import Head
from contraux.clgen.training_gan.saving import save_part

BACKBONES = {"dcgan": dcgan, "sndcgan": sndcgan, "resnet": resnet}


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("classes", [0, 3])
def test_images_and_scores_of_every_size(make, size, classes):
    torch.manual_seed(0)
    generator, discriminator = make(size=size, channels=2, classes=classes, width=2, latent=5, head=4 * (size == 16))
    labels = (torch.tensor([0, 2, 1]),) if classes else ()
    latents = torch.randn(3, 5, requires_grad=True)
    images = generator(latents, *labels)
    assert images.shape == (3, 2, size, size) == (3, *generator.image)
    assert images.abs().max() <= 1
    scores = discriminator(images, *labels)
    assert scores.shape == (3,)
    scores.sum().backward()
    assert latents.grad.abs().sum() > 0
    assert all(p.grad is not None for p in (*generator.parameters(), *discriminator.parameters()))
    assert discriminator.head(discriminator.body(images), *labels).shape == (3,)
    for tap in discriminator.taps.values():
        assert discriminator.get_submodule(tap) is not None
    with pytest.raises(ValueError, match="labels must be"):
        generator(latents, *(() if classes else (torch.zeros(3).long(),)))
    with pytest.raises(ValueError, match=r"latents must be \(B, 5\), got \(3, 4\)"):
        generator(torch.zeros(3, 4), *labels)


@pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES)
def test_a_method_attaches_to_the_trunk_and_to_its_last_stage_but_one(make):
    discriminator = make(size=16, channels=1, width=4).discriminator
    x = torch.randn(4, 1, 16, 16)
    places = {tap: discriminator.taps[tap] for tap in ("local", "global")}
    aux = attach(discriminator, places, "infomax", example=x)
    with aux:
        discriminator(x), discriminator(x.flip(0))
    aux.loss().backward()
    assert (
        discriminator.body[0].get_submodule("0" if hasattr(discriminator.body[0], "0") else "first").weight is not None
    )
    assert all(p.grad is not None for p in discriminator.body.parameters() if p.requires_grad)
    assert all(p.grad is None for p in discriminator.head.parameters())


def test_no_batch_norm_in_spectral_discriminators():
    def norms(module):
        return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())

    for make in (sndcgan, resnet, lambda **kw: dcgan(spectral_norm=True, **kw)):
        generator, discriminator = make(size=32, channels=3, width=4, classes=3)
        assert norms(discriminator) == 0 < norms(generator)
        for part in discriminator.modules():
            if isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding):
                assert nn.utils.parametrize.is_parametrized(part, "weight")
        copy.deepcopy(discriminator)(torch.zeros(2, 3, 32, 32), torch.zeros(2).long())
    assert norms(dcgan(size=32, channels=3, width=4).discriminator) == 2  # not in the first of three layers


def test_the_spectral_norm_is_one():
    discriminator = sndcgan(size=16, channels=1, width=4).discriminator.train()
    x = torch.randn(8, 1, 16, 16)
    for _ in range(50):
        discriminator(x)
    weight = discriminator.eval().body[0][0].weight.flatten(1)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.0, abs=1e-3)


def test_conditional_batch_norm_by_hand():
    norm = ConditionalBatchNorm(2, 3).train()
    nn.init.normal_(norm.gain.weight), nn.init.normal_(norm.bias.weight)
    x, labels = torch.randn(5, 2, 4, 4), torch.tensor([0, 2, 1, 0, 2])
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    plain = (x - mean) / (variance + norm.norm.eps).sqrt()
    expected = torch.stack([plain[i] * norm.gain.weight[y][:, None, None] + norm.bias.weight[y][:, None, None]
                            for i, y in enumerate(labels)])  # fmt: skip
    torch.testing.assert_close(norm(x, labels), expected)


def test_projection_by_hand():
    head = Head(6, 3, pool=True)
    x, labels = torch.randn(2, 6, 2, 2), torch.tensor([2, 0])
    h = x.sum((2, 3))
    own = head.classifier.weight[labels]
    expected = h @ head.score.weight[0] + head.score.bias + (own * h).sum(1)
    torch.testing.assert_close(head(x, labels), expected)


@pytest.mark.parametrize("hidden", [0, 8])
def test_the_projection_begins_as_small_as_the_score(hidden):
    """DCGAN draws weights from N(0, 0.02^2): torch's N(0, 1) for the classes would drown the score."""
    torch.manual_seed(0)
    discriminator = dcgan(size=16, channels=1, classes=400, width=4, head=hidden).discriminator
    assert discriminator.head.classifier.weight.std().item() == pytest.approx(0.02, rel=0.05)


def description(name, classes=()):
    backbone = {"_target_": f"contraux.clgen.training_gan.{name}", "width": 2, "latent": 5}
    return {"backbone": backbone, "size": 16, "channels": 1, "classes": list(classes)}


@pytest.mark.parametrize("name", BACKBONES)
def test_files_bring_the_players_back(tmp_path, name):
    generator, discriminator = BACKBONES[name](size=16, channels=1, classes=2, width=2, latent=5)
    z, labels = torch.randn(4, 5), torch.tensor([0, 1, 1, 0])
    discriminator(generator(z, labels), labels)  # moves running statistics
    save_part(generator, "generator", tmp_path / "generator", description(name, "ab"))
    save_part(discriminator, "discriminator", tmp_path / "discriminator", description(name, "ab"))
    assert sorted(path.name for path in (tmp_path / "generator").iterdir()) == ["config.json", "model.safetensors"]
    same = load_generator(tmp_path)
    assert same.names == ("a", "b") and not same.training
    images = generator.eval()(z, labels)
    assert torch.equal(images, same(z, labels))
    assert torch.equal(discriminator.eval()(images, labels), load_discriminator(tmp_path)(images, labels))


def test_files_that_do_not_fit(tmp_path):
    generator = dcgan(size=16, channels=1, width=2, latent=5).generator
    with pytest.raises(ValueError, match="must be a run of `contraux gan`"):
        load_generator(tmp_path)
    save_part(generator, "generator", tmp_path / "generator", description("dcgan"))
    with pytest.raises(ValueError, match="must hold a discriminator, and holds 'generator'"):
        load_discriminator(tmp_path / "generator")
    config = json.loads((tmp_path / "generator" / "config.json").read_text())
    for key, value, sentence in [
        ("size", 32, "do not fit its config.json"),
        ("size", None, r"config.json must be what a run of `contraux gan` writes, and has no fitting size"),
        ("classes", 3, "has no fitting classes"),
        ("backbone", "dcgan", "has no fitting backbone"),
        ("channels", "1", "has no fitting channels"),
        ("backbone", {"_target_": "os.system", "command": "true"}, "would run 'os.system'"),
        ("backbone", {"_target_": "contraux.clgen.training_gan.Augment"}, "must describe two players"),
    ]:
        (tmp_path / "generator" / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ValueError, match=sentence):
            load_generator(tmp_path)
    (tmp_path / "generator" / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="has no fitting part, backbone, size, channels, classes"):
        load_generator(tmp_path)


@pytest.mark.parametrize(("wrong", "sentence"), [
    ({"size": 24}, "size must be one of 16, 32, 64, 128, got 24"),
    ({"width": 0}, "width must be a whole number >= 1, got 0"),
    ({"latent": 0}, "latent must be a whole number >= 1, got 0"),
])  # fmt: skip
@pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES)
def test_numbers_out_of_range(make, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**{"size": 16, "channels": 1, **wrong})
