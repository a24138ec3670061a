"""REPA: tokens at the same places, the loss by loops, the frozen encoder and the stop."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from contraux.clgen.diffusion import PretrainedTeacher, Repa, TimmTeacher
from contraux.clgen.diffusion.tokens import matched_tokens
from contraux.core.encoders import PretrainedEncoder, SmallCNN, ViT, describe

IMAGES = torch.rand(3, 1, 8, 8) * 2 - 1


class Patches(nn.Conv2d):
    """Clean images -> a map of 2 x 2."""

    def __init__(self):
        super().__init__(1, 7, 4, 4)
        self.out_features = 7
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def run(made, h, clean=IMAGES):
    return made({"denoise": {"features": h}}, {"clean": clean})


@pytest.mark.parametrize("kind", ["map", "tokens"])
def test_against_loops(kind):
    h = torch.randn(3, 5, 2, 2, requires_grad=True)
    given = h if kind == "map" else h.flatten(2).mT
    made = Repa({"features": tuple(given.shape[1:])}, encoder=Patches(), hidden=6)
    outcome = run(made, given)
    target, total = made.encoder(IMAGES), 0.0
    for i in range(3):
        for y in range(2):
            for x in range(2):
                p, f = made.projection(h[i, :, y, x]).tolist(), target[i, :, y, x].tolist()
                total -= sum(a * b for a, b in zip(p, f, strict=True)) / math.hypot(*p) / math.hypot(*f)
    assert outcome.loss.item() == pytest.approx(total / 12, rel=1e-5)
    assert outcome.metrics["alignment"].item() == pytest.approx(-total / 12, rel=1e-5)
    outcome.loss.backward()
    assert (h.grad.abs().sum((1, 2, 3)) > 0).all()
    assert all(weight.grad.abs().sum() > 0 for weight in made.projection.parameters())


def test_the_encoder_is_nobodys_to_train_or_save_but_moves_along():
    encoder = Patches()
    made = Repa({"features": (5, 2, 2)}, encoder=encoder, hidden=6).train()
    assert not encoder.training and not any(weight.requires_grad for weight in encoder.parameters())
    assert len(list(made.parameters())) == 6
    assert not any("encoder" in key for key in made.state_dict())
    assert made.double().encoder.weight.dtype == torch.float64
    copied = copy.deepcopy(made)
    assert copied.encoder is not encoder and torch.equal(copied.encoder.weight, encoder.weight)


def test_it_stops():
    encoder = Patches()
    made = Repa({"features": (5, 2, 2)}, encoder=encoder, hidden=6, stop_step=2)
    h = torch.randn(3, 5, 2, 2)
    for _ in range(2):
        assert run(made, h).loss != 0
        made.update()
    assert encoder.calls == 2
    loss = run(made, h).loss
    loss.backward()
    assert loss.item() == 0 and encoder.calls == 2
    assert all(not weight.grad.any() for weight in made.parameters())
    resumed = Repa({"features": (5, 2, 2)}, encoder=encoder, hidden=6, stop_step=2)
    resumed.load_state_dict(made.state_dict())
    assert resumed.stopped


def test_tokens_by_hand():
    """A map of 2 x 4 and its tokens, a row after the other."""
    grid = torch.arange(8.0).view(1, 1, 2, 4)
    tokens = grid.flatten(2).mT
    for a in (grid, tokens):
        for b in (grid, tokens):
            student, teacher = matched_tokens(a, b, 0.5)
            assert torch.equal(student, tokens) and torch.equal(teacher, tokens)
    coarse = torch.tensor([[[[0.0, 4.0]]]])
    for given in (coarse, coarse.flatten(2).mT):
        student, teacher = matched_tokens(grid, given, 0.5)
        assert teacher.flatten().tolist() == pytest.approx([0, 1, 3, 4] * 2)  # bilinear between pixel centres
    vector = torch.tensor([[9.0]])
    student, teacher = matched_tokens(grid, vector)
    assert student.tolist() == [[[3.5]]] and teacher.tolist() == [[[9.0]]]
    student, teacher = matched_tokens(vector, tokens)
    assert student.tolist() == [[[9.0]]] and teacher.tolist() == [[[3.5]]]


def test_finer_teachers_are_averaged_not_sampled():
    fine = torch.zeros(1, 1, 8, 8)
    fine[..., ::2] = 1.0  # stripes, which sampling every other pixel would miss or see alone
    _, teacher = matched_tokens(torch.zeros(1, 3, 2, 2), fine)
    assert (teacher - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("aspect", [1.0, 3.0])
def test_tokens_that_fill_no_grid(aspect):
    with pytest.raises(ValueError, match=r"must fill a grid of the image's aspect .*got \(1, 5, 3\)"):
        matched_tokens(torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 3), aspect)


def save(folder, factory, channels=1, size=8):
    shape = (channels, size, size)
    encoder = PretrainedEncoder(factory(shape), shape, [0.3] * channels, [0.5] * channels, describe(factory))
    encoder.save_pretrained(folder)
    return encoder.eval()


def test_a_pretrained_encoder_sees_what_it_was_trained_on(tmp_path):
    encoder = save(tmp_path / "encoder", partial(SmallCNN, width=8))
    teacher = PretrainedTeacher(tmp_path)  # a run folder, as contraux pretrain leaves it
    torch.testing.assert_close(teacher(IMAGES), encoder((IMAGES + 1) / 2))
    assert teacher.out_features == 32
    larger = torch.nn.functional.interpolate(IMAGES, (16, 16))
    assert teacher(larger).shape == (3, 32)
    with pytest.raises(ValueError, match=r"clean must be images \(B, 1, H, W\) for this encoder, got \(3, 3, 8, 8\)"):
        teacher(IMAGES.expand(-1, 3, -1, -1))


def test_a_layer_of_a_pretrained_encoder(tmp_path):
    save(tmp_path / "cnn", partial(SmallCNN, width=8))
    spatial = PretrainedTeacher(tmp_path / "cnn", layer="encoder.layers.8")
    assert spatial(IMAGES).shape == (3, 32, 2, 2) and spatial.out_features == 32
    torch.testing.assert_close(spatial(IMAGES).mean((2, 3)), PretrainedTeacher(tmp_path / "cnn")(IMAGES))
    save(tmp_path / "vit", partial(ViT, patch_size=4, dim=12, layers=1, heads=2), channels=3)
    tokens = PretrainedTeacher(tmp_path / "vit", layer="encoder.network.encoder", skip=1)
    assert tokens(IMAGES).shape == (3, 4, 12) and tokens.out_features == 12  # one channel is repeated
    made = Repa({"features": (16, 5)}, encoder=tokens, hidden=6)
    run(made, torch.randn(3, 16, 5)).loss.backward()
    with pytest.raises(ValueError, match=r"has no module .encoder\.layers\.99"):
        PretrainedTeacher(tmp_path / "cnn", layer="encoder.layers.99")
    copied = copy.deepcopy(spatial)
    torch.testing.assert_close(copied(IMAGES), spatial(IMAGES))


def test_timm_models():
    pytest.importorskip("timm")
    vit = TimmTeacher("vit_tiny_patch16_224", pretrained=False, size=32)
    assert vit(IMAGES).shape == (3, 4, 192) and vit.out_features == 192  # without the class token
    assert TimmTeacher("vit_tiny_patch16_224", pretrained=False, spatial=False, size=32)(IMAGES).shape == (3, 192)
    cnn = TimmTeacher("resnet10t", pretrained=False)
    assert cnn(IMAGES).shape == (3, 512, 6, 6)  # its own 176 pixels
    with pytest.raises(ValueError, match="timm's 'no_such_model' could not be made"):
        TimmTeacher("no_such_model")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: run(Repa({"features": (4,)}, encoder=Patches()), torch.zeros(2, 4)),
            "clean must be the images of the 2 rows that are denoised, got 3",
        ),
        (lambda: PretrainedTeacher(None), "where=FOLDER of `contraux pretrain`"),
        (lambda: Repa({"features": (4, 2, 2)}, encoder=nn.Flatten()), "integer `out_features`.*got Flatten with None"),
        (lambda: Repa({"features": (4,)}, encoder=Patches(), hidden=0), "hidden must be a whole number >= 1, got 0"),
        (lambda: Repa({"features": (4,)}, encoder=Patches(), stop_step=-1), "stop_step must be a whole number >= 0"),
    ],
)
def test_sentences(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_out_features_can_be_given():
    made = Repa({"features": (4,)}, encoder=nn.Flatten(), out_features=64, hidden=6)
    assert run(made, torch.randn(3, 4)).loss.isfinite()
