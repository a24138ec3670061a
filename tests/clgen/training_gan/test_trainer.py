"""The trainer: what a step does by hand, what the seed says, what an auxiliary changes, and when it stops."""

import copy
import csv
from functools import partial

import pytest
import torch
from torch import nn

from contraux.clgen import attach
from contraux.clgen import training_gan as gan
from contraux.clgen.images import Images
from contraux.clgen.training_gan import ADA, Adversarial, AffineContrast, Backbone, DiffAug, Trainer, sndcgan
from contraux.clgen.training_gan.draws import STREAMS, Draws
from contraux.core.pairs import Outcome

CPU = torch.device("cpu")


def pictures(count=24, classes=2):
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(count) % max(classes, 1)
    tensor = (torch.rand(count, 1, 16, 16, generator=generator) - 0.5 + labels[:, None, None, None] * 0.5).clamp(-1, 1)
    return Images(tensor, labels if classes else labels - 1, tuple(f"class {i}" for i in range(classes)))


GAMES = {
    "non_saturating": Adversarial(gan.non_saturating_discriminator, gan.non_saturating_generator, vanishing=0.01),
    "wasserstein": Adversarial(gan.wasserstein_discriminator, gan.linear_generator, gradient_penalty=10.0),
    "relativistic": Adversarial(
        gan.relativistic_discriminator, gan.relativistic_generator, paired=True, r1=0.1, r2=0.1, interval=2
    ),
}


def players(classes=0, seed=0, make=sndcgan):
    torch.manual_seed(seed)
    return make(size=16, channels=1, classes=classes, width=2, latent=4)


def trainer(folder, backbone=None, method=None, game="non_saturating", optimizer=torch.optim.SGD, **kwargs):
    conditional = kwargs.get("conditional", False)
    backbone = backbone or players(2 if conditional else 0)
    images = kwargs.pop("images", pictures())
    auxiliary = None
    if method is not None:
        example = (images.tensor[:2], images.labels[:2]) if conditional else images.tensor[:2]
        places = dict(backbone.discriminator.taps) if method == "infomax" else "body"
        if method == "infomax":
            places.pop("features")
        overrides = {"contragan": ["module.classes=2"], "reacgan": ["module.classes=2"], "insgen": ["module.size=8"]}
        auxiliary = attach(backbone.discriminator, places, method, example=example, overrides=overrides.get(method, []))
    own = {"steps": 4, "batch_size": 8, "device": "cpu", "progress_bar": False, "sample_every": None, "log_every": 1}
    rate = partial(optimizer, lr=kwargs.pop("rate", 0.05))
    return Trainer(
        backbone.generator, backbone.discriminator, images, kwargs.pop("adversarial", GAMES[game]), rate, rate, folder,
        auxiliary=auxiliary, **{**own, **kwargs},
    )  # fmt: skip


def rows(folder):
    with (folder / "progress.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def weights(*modules):
    return [p.detach().clone() for module in modules for p in (*module.parameters(), *module.buffers())]


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Line(nn.Module):
    """A discriminator whose score is one weight times the sum of an image."""

    classes = 0

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.01))

    def forward(self, images):
        return self.weight * images.sum((1, 2, 3))


class Shade(nn.Module):
    """A generator of even images: as bright as its weight times the first latent, and its bias."""

    latent = 4

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(-0.2))

    def forward(self, latents):
        return (self.weight * latents[:, :1] + self.bias).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)


def test_one_step_by_hand(tmp_path):
    """Non-saturating losses, R1, a discriminator of one weight; plain gradient steps of both players."""
    images = pictures(8)
    game = Adversarial(gan.non_saturating_discriminator, gan.non_saturating_generator, r1=0.02)
    maker, critic = Shade(), Line()
    run = trainer(tmp_path, Backbone(maker, critic), images=images, adversarial=game, steps=1, ema=0.5)
    run.fit()
    draws = Draws(0, 8, 0, 1, CPU)
    w, rate = 0.01, 0.05
    real = images.tensor.sum((1, 2, 3))  # the order does not matter to a mean of all
    fake = 256 * (0.3 * draws.normal("latents", 0, 4)[:, 0] - 0.2)
    slope = (-real * torch.sigmoid(-w * real)).mean() + (fake * torch.sigmoid(w * fake)).mean()
    slope = slope + 0.01 * 2 * w * 256  # R1: gamma / 2 ||w 1||^2, whose derivative is gamma w 256
    w = w - rate * slope.item()
    assert critic.weight.item() == pytest.approx(w, rel=1e-4)
    z = draws.normal("generator/latents", 0, 4)[:, 0]
    fake = 256 * (0.3 * z - 0.2)
    pull = -w * torch.sigmoid(-w * fake) * 256
    assert maker.bias.item() == pytest.approx(-0.2 - rate * pull.mean().item(), rel=1e-4)
    assert maker.weight.item() == pytest.approx(0.3 - rate * (pull * z).mean().item(), rel=1e-4)
    momentum = 1 / 10  # of the first step, below 0.5
    assert run.average.bias.item() == pytest.approx(momentum * -0.2 + (1 - momentum) * maker.bias.item(), rel=1e-5)
    (row,) = rows(tmp_path)
    assert row["penalty"] == pytest.approx(0.01 * 0.01**2 * 256, rel=1e-4)
    assert row["loss"] == pytest.approx(row["discriminator"] + row["penalty"], rel=1e-6)


def test_lazy_penalties_come_every_interval_and_as_much_stronger(tmp_path):
    run = trainer(tmp_path, game="relativistic", discriminator_steps=1)
    run.fit()
    found = [row["penalty"] for row in rows(tmp_path)]
    assert found[1] == found[3] == 0 < min(found[0], found[2])


def test_the_seed_says_everything(tmp_path):
    found = []
    for name, seed, disturbed in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        run = trainer(tmp_path / name, players(seed=3), seed=seed, augment=DiffAug())
        torch.manual_seed(disturbed)
        run.fit()
        found.append(weights(run.generator, run.discriminator, run.average))
    assert equal(found[0], found[1]) and not equal(found[0], found[2])
    assert (tmp_path / "a/progress.csv").read_bytes() == (tmp_path / "b/progress.csv").read_bytes()


METHODS = ["contrad", "insgen", "infomax", "real_fake_supcon", "class_supcon", "contragan", "reacgan"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_both_players_and_its_heads(tmp_path, method):
    labelled = method in ("class_supcon", "contragan", "reacgan")
    run = trainer(
        tmp_path, method=method, conditional=labelled, augment=AffineContrast(), discriminator_steps=2, steps=2
    )
    before = weights(run.generator), weights(run.discriminator)
    heads = [p.detach().clone() for p in run.auxiliary.parameters() if p.requires_grad]
    trained = run.fit()
    assert not equal(before[0], weights(run.generator)) and not equal(before[1], weights(run.discriminator))
    after = [p for p in run.auxiliary.parameters() if p.requires_grad]
    assert all(not torch.equal(a, b) for a, b in zip(heads, after, strict=True) if a.numel() > 1 and a.any())
    assert trained.status == "completed" and trained.last["auxiliary"] != 0
    term = bool(run.auxiliary.method.generator_roles)
    assert ("generator_auxiliary" in trained.last) == term
    assert any(name.startswith("generator_auxiliary/") for name in rows(tmp_path)[0]) == term


@pytest.mark.parametrize("make", [sndcgan, gan.dcgan])
@pytest.mark.parametrize("method", METHODS)
def test_an_auxiliary_of_weight_0_changes_nothing(tmp_path, method, make):
    found, told = [], method in ("class_supcon", "contragan", "reacgan")
    for name, own in (("none", None), ("zero", method)):
        run = trainer(
            tmp_path / name, players(2 * told, make=make), own, weight=0.0, generator_weight=0.0, conditional=told,
            augment=AffineContrast(), optimizer=torch.optim.Adam, steps=3,
        )  # fmt: skip
        run.fit()
        found.append(weights(run.generator, run.discriminator, run.average))
    assert equal(*found)


def test_contrad_stops_the_adversarial_gradient_in_the_trunk_but_not_the_penaltys(tmp_path):
    for r1, moves in ((0.0, False), (10.0, True)):
        game = Adversarial(gan.non_saturating_discriminator, gan.non_saturating_generator, r1=r1)
        run = trainer(tmp_path / str(r1), None, "contrad", adversarial=game, augment=AffineContrast(), steps=1)
        run.auxiliary.method.forward = lambda features, context: Outcome(torch.zeros(()), {})  # of its own: nothing
        before = [p.detach().clone() for p in run.discriminator.body.parameters()]
        head = [p.detach().clone() for p in run.discriminator.head.parameters()]
        run.fit()
        after = run.discriminator.body.parameters()
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == moves
        assert any(not torch.equal(a, b) for a, b in zip(head, run.discriminator.head.parameters(), strict=True))


def test_a_batch_of_all_roles_is_what_calls_one_by_one_are(tmp_path):
    found = []
    for one_call in (True, False):
        run = trainer(tmp_path / str(one_call), players(), "contrad", augment=AffineContrast(), steps=1)
        for part in run.discriminator.modules():  # so that the power iteration does not count the calls
            if hasattr(part, "n_power_iterations"):
                part.n_power_iterations = 0
        make = run._engine

        def engine(accelerator, make=make, one_call=one_call):
            made = make(accelerator)
            made.one_call = one_call
            return made

        run._engine = engine
        run.fit()
        found.append(weights(run.generator, run.discriminator))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("game", GAMES)
def test_conditional_players(tmp_path, game):
    run = trainer(tmp_path, game=game, conditional=True, steps=2, augment=ADA(interval=1, images=50))
    last = run.fit().last
    assert "augment_probability" in last
    assert (tmp_path / "samples.png").exists() and (tmp_path / "interpolation.png").exists()


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    """With momentum copies, queues, ADA's probability and Adam's state on the way."""
    own = {"method": "insgen", "optimizer": torch.optim.Adam, "checkpoint_every": 2, "discriminator_steps": 2}
    augments = [ADA(interval=2, images=200) for _ in range(3)]
    whole = trainer(tmp_path / "whole", augment=augments[0], **own)
    whole.fit()
    first = trainer(tmp_path / "parts", augment=augments[1], **own)
    stop = first._step

    def killed(engine, order, step, device):
        if step == 3:
            raise KeyboardInterrupt
        return stop(engine, order, step, device)

    first._step = killed
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = trainer(tmp_path / "parts", players(seed=99), augment=augments[2], **own)
    second.fit(resume=True)
    assert equal(
        weights(whole.generator, whole.discriminator, whole.average, whole.auxiliary),
        weights(second.generator, second.discriminator, second.average, second.auxiliary),
    )
    assert (tmp_path / "whole/progress.csv").read_bytes() == (tmp_path / "parts/progress.csv").read_bytes()


def test_a_run_that_goes_on_is_held_to_its_settings(tmp_path):
    trainer(tmp_path).fit()
    for wrong in ({"ema": 0.9}, {"game": "wasserstein"}, {"augment": DiffAug(["cutout"])}, {"method": "infomax"}):
        with pytest.raises(ValueError, match="a run goes on with the settings it had"):
            trainer(tmp_path, **wrong).fit(resume=True)
    with pytest.raises(ValueError, match="folder must be one without a checkpoint"):
        trainer(tmp_path).fit()


class Sure(Line):
    """A discriminator that knows: real images are not even, generated ones are."""

    def forward(self, images):
        return 0 * self.weight * images.sum((1, 2, 3)) + 40 * (images.std((1, 2, 3)) > 0.01).float() - 20


def test_a_discriminator_that_wins_for_good_ends_the_run(tmp_path):
    run = trainer(tmp_path, Backbone(Shade(), Sure()), steps=50, collapse_after=7, checkpoint_every=3, log_every=2)
    with pytest.raises(ValueError, match=r"vanishing for 8 steps at step 8; no checkpoint had been saved: try a lower"):
        run.fit()
    assert rows(tmp_path)[-1]["won"] == 8
    run = trainer(tmp_path / "on", Backbone(Shade(), Sure()), steps=9, collapse_after=None)
    assert run.fit().last["won"] == 9


def test_what_is_not_finite_ends_the_run_with_the_last_good_checkpoint(tmp_path):
    run = trainer(tmp_path, checkpoint_every=2, steps=10)
    step = run._step

    def broken(engine, order, at, device):
        if at == 5:
            with torch.no_grad():
                next(run.generator.parameters()).fill_(float("nan"))
        return step(engine, order, at, device)

    run._step = broken
    with pytest.raises(
        ValueError, match="the loss must stay finite, got nan at step 6; the checkpoint of step 4 is kept"
    ):
        run.fit()
    going_on = trainer(tmp_path, checkpoint_every=2, steps=10)
    assert going_on.fit(resume=True).step == 10


def test_draws_are_slices_of_the_whole_and_streams_differ():
    whole = Draws(3, 6, 0, 1, CPU)
    parts = [Draws(3, 6, rank, 3, CPU) for rank in range(3)]
    for stream in STREAMS:
        assert torch.equal(whole.normal(stream, 2, 5), torch.cat([part.normal(stream, 2, 5) for part in parts]))
    drawn = [whole.uniform(stream, step, 5) for stream in STREAMS for step in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


@pytest.mark.parametrize(("wrong", "sentence"), [
    ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
    ({"batch_size": 25}, "batch_size must be at most the 24 images of the data, got 25"),
    ({"ema": 1.0}, r"ema must be a number in \[0, 1\), got 1.0"),
    ({"weight": -1}, "weight must be a number >= 0, got -1"),
    ({"precision": "half"}, "unknown precision 'half'"),
    ({"method": "contrad"}, "ContraD compares views of an image, which need an augmentation: augment=affine"),
    ({"method": "insgen"}, "InsGen compares views of an image"),
    ({"method": "class_supcon", "generator_weight": 0.5}, "looks at the classes of generated images: conditional=true"),
    ({"method": "class_supcon", "images": pictures(classes=0)}, "needs images that all have a class"),
    ({"conditional": True, "images": pictures(classes=0)}, "conditional=true needs images that all have a class"),
])  # fmt: skip
def test_what_does_not_fit(tmp_path, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        trainer(tmp_path, **wrong)


def test_a_penalty_beside_batch_norm_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="batch norm in the discriminator mixes them"):
        trainer(tmp_path, players(make=gan.dcgan), game="wasserstein")


def test_precision_and_copies(tmp_path):
    run = trainer(tmp_path, method="real_fake_supcon", precision="bf16", game="relativistic", steps=2)
    run.fit()
    assert all(p.dtype == torch.float32 for p in run.generator.parameters())
    copy.deepcopy(run.discriminator)(torch.zeros(2, 1, 16, 16))


@pytest.mark.parametrize("method", ["class_supcon", "contragan", "reacgan"])
def test_classes_of_fakes_are_not_asked_for_without_a_term_of_the_generator(tmp_path, method):
    last = trainer(tmp_path, method=method, generator_weight=0.0, steps=1).fit().last
    assert last["auxiliary"] != 0 and "generator_auxiliary" not in last


def test_insgens_generator_makes_its_fakes_once(tmp_path):
    """Two passes for the discriminator, of fakes and moved latents, and one for the generator."""
    run = trainer(tmp_path, method="insgen", augment=AffineContrast(), steps=2)
    run.fit()
    counts = {int(value) for name, value in run.generator.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {2 * 3}


def test_momentum_copies_look_in_the_precision_of_the_run(tmp_path):
    run = trainer(tmp_path, method="insgen", augment=AffineContrast(), steps=1, precision="bf16")
    seen = []
    run.auxiliary.momentum.encoder.body.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run.fit()
    assert seen == [torch.bfloat16] * 3  # real and fake keys, and those for the generator


def test_what_was_frozen_stays_so(tmp_path):
    run = trainer(tmp_path, steps=2, optimizer=partial(torch.optim.SGD, weight_decay=0.1))
    still = [next(player.parameters()).requires_grad_(False) for player in (run.generator, run.discriminator.body)]
    before = [parameter.clone() for parameter in still]
    others = [[p for p in player.parameters() if p.requires_grad] for player in (run.generator, run.discriminator)]
    moved = [[p.detach().clone() for p in own] for own in others]
    run.fit()
    assert equal(before, still) and not any(parameter.requires_grad for parameter in still)
    assert all(p.requires_grad for own in others for p in own)
    assert not any(equal(*pair) for pair in zip(moved, others, strict=True))


@pytest.mark.parametrize(("wrong", "sentence"), [
    ({"optimizer": partial(torch.optim.Adam, foo=1)}, "the optimizer cannot be made of these settings: .*foo"),
    (
        {"optimizer": partial(torch.optim.AdamW, weight_decay=1.0), "rate": 1e39},
        "the learning rate must be small enough for steps that are float32 numbers, got 1e.39",
    ),
    ({"trackers": ["wandb_"]}, r"trackers must be a list of installed ones, got \['wandb_'\]"),
    ({"trackers": "tensorboard"}, "trackers must be a list of installed ones, got 'tensorboard'"),
])  # fmt: skip
def test_what_is_found_when_training_begins(tmp_path, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        trainer(tmp_path, **wrong).fit()
