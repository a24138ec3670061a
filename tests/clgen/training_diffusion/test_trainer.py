"""Steps of training against a step by hand, and what must leave a run as it is."""

from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional
from trap import Trap

from contraux.clgen import attach
from contraux.clgen.diffusion.labels import NULL
from contraux.clgen.images import images_of
from contraux.clgen.metrics import Classifier, classifier
from contraux.clgen.training_diffusion import Diffusion, Flow, Trainer, dit, unet
from contraux.clgen.training_diffusion.batch import Drawer
from contraux.clgen.training_diffusion.engine import Engine
from contraux.clgen.training_diffusion.evaluation import Evaluation
from contraux.clgen.training_diffusion.grids import Grids
from contraux.clgen.training_diffusion.schedule import factor
from contraux.core.data import digits
from contraux.core.training.state import shared_state

SHAPE = (1, 8, 8)
CPU = torch.device("cpu")
SGD = partial(torch.optim.SGD, lr=0.1)


@pytest.fixture(scope="module")
def images():
    return images_of(digits("test"))


def small(seed=0, conditional=False):
    torch.manual_seed(seed)
    return unet(SHAPE, conditional, channels=(8, 8), layers=1, groups=4, attention=0)


def drawer(images, process, **changed):
    settings = {"batch_size": 8, "share": 0.0, "label_dropout": 0.0, "labelled": False, "conditional": False, "seed": 3}
    return Drawer(images, process, **{**settings, **changed})


def engine(model, process, auxiliary=None, **changed):
    shared_state("cpu", "no")
    settings = {
        "weight": 0.05, "flow_weight": 0.0, "snr_gamma": None, "ema_decay": 0.9, "max_grad_norm": None,
        "compile": False,
    }  # fmt: skip
    return Engine(Accelerator(cpu=True), model, auxiliary, SGD, process, **{**settings, **changed})


def trainer(images, folder, model=None, objective=None, **changed):
    model = small() if model is None else model
    auxiliary = None if objective is None else attach(model, objective=objective)
    settings = {"steps": 4, "batch_size": 8, "device": "cpu", "progress_bar": False, "pair_share": 0.5}
    settings |= {"process": Diffusion()}
    return Trainer(
        model=model, images=images, optimizer=partial(torch.optim.AdamW, lr=1e-3), folder=folder,
        auxiliary=auxiliary, **{**settings, **changed},
    )  # fmt: skip


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_rows_are_functions_of_seed_and_step(images):
    draw = drawer(images, Diffusion(), share=0.5, labelled=True, conditional=True, label_dropout=0.3)
    whole, again = draw(5, CPU, slice(0, 8)), draw(5, CPU, slice(0, 8))
    for name, one, other in zip(whole._fields, whole, again, strict=True):
        assert torch.equal(one, other), name
    parts = [draw(5, CPU, slice(0, 4)), draw(5, CPU, slice(4, 8))]
    for name in ("clean", "noise", "timesteps", "classes", "given", "identity"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    other = drawer(images, Diffusion(), seed=4)(5, CPU, slice(0, 8))
    assert not torch.equal(other.noise, whole.noise)
    assert not torch.equal(draw(6, CPU, slice(0, 8)).noise, whole.noise)


def test_second_views_are_the_same_images_with_other_noise(images):
    rows = drawer(images, Diffusion(), share=0.5)(0, CPU, slice(0, 8))
    assert rows.identity.tolist()[6:] == rows.identity.tolist()[:2]  # 6 images, 2 of them twice
    assert len(set(rows.identity.tolist())) == 6
    assert torch.equal(rows.clean, images.tensor[rows.identity])
    assert torch.equal(rows.classes, images.labels[rows.identity])
    assert not torch.equal(rows.noise[6], rows.noise[0])
    assert (rows.timesteps[6:] != rows.timesteps[:2]).all()
    assert (rows.other != torch.arange(8)).all()
    seen = {i for step in range(90) for i in drawer(images, Diffusion())(step % 67, CPU, slice(0, 8)).identity.tolist()}
    assert len(seen) == 67 * 8  # an epoch shows no image twice


def test_a_model_that_is_told_nothing_is_given_the_null_class(images):
    assert drawer(images, Diffusion())(0, CPU, slice(0, 8)).given is None
    given = drawer(images, Diffusion(), labelled=True)(0, CPU, slice(0, 8)).given
    assert given.tolist() == [NULL] * 8


@pytest.mark.parametrize("kind", ["epsilon, min-SNR", "v_prediction", "flow, contrastive", "flow, contrastive, SNR"])
def test_a_step_by_hand(images, kind):
    """The gradient of the loss written anew, in float64, from the same rows."""
    process = Flow() if "flow" in kind else Diffusion(prediction=kind.split(",")[0])
    model = small()
    before, rows = weights(model), drawer(images, process)(0, CPU, slice(0, 8))
    reference = small().double()
    clean, noise, t = rows.clean.double(), rows.noise.double(), rows.timesteps
    if "flow" in kind:
        sigma = (t.double() / 1000).view(-1, 1, 1, 1)
        output = reference((1 - sigma) * clean + sigma * noise, t).sample
        aim = noise - clean
        gamma, weight = None, torch.ones_like(sigma)
        if "SNR" in kind:
            gamma, weight = 5.0, sigma**2 * (((1 - sigma) / sigma) ** 2).clamp(max=5)
            assert (weight < 0.1).any()  # where an unweighted contrast would have no minimum
        expected = (weight * ((output - aim) ** 2 - 0.1 * (output - aim[rows.other]) ** 2)).mean()
        own = engine(model, process, flow_weight=0.1, snr_gamma=gamma)
    else:
        kept = process.sampler().alphas_cumprod.double()[t].view(-1, 1, 1, 1)
        output = reference(kept.sqrt() * clean + (1 - kept).sqrt() * noise, t).sample
        if kind == "v_prediction":
            expected = functional.mse_loss(output, kept.sqrt() * noise - (1 - kept).sqrt() * clean)
            own = engine(model, process)
        else:
            weight = (5 * (1 - kept) / kept).clamp(max=1)
            assert 0 < (weight < 1).sum() < 8
            expected = (weight * (output - noise) ** 2).mean()
            own = engine(model, process, snr_gamma=5.0)
    expected.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
    outcome = own.update(rows, 0.5)
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(weights(model), (before - 0.05 * gradient).float(), atol=2e-6)


def test_the_average_by_hand(images):
    model = small()
    own, draw = engine(model, Diffusion()), drawer(images, Diffusion())
    mean = None
    for step in range(4):
        own.update(draw(step, CPU, slice(0, 8)), 1.0)
        decay = min((1 + step) / (10 + step), 0.9) if step else 0.0
        mean = weights(model) if mean is None else decay * mean + (1 - decay) * weights(model)
    assert torch.allclose(weights(own.average()), mean, atol=1e-6)
    assert (weights(model) - mean).abs().max() > 1e-4
    assert not own.average().training and model.training


def test_at_weight_0_the_weights_are_those_without_an_objective(images, tmp_path):
    runs = {}
    for name, objective, weight in [("base", None, 0.05), ("inert", "time_infonce", 0.0), ("on", "time_infonce", 0.5)]:
        runs[name] = trainer(images, tmp_path / name, objective=objective, weight=weight)
        result = runs[name].fit()
        assert result.status == "completed" and result.step == 4
    base, inert, on = (weights(run.model) for run in runs.values())
    assert torch.equal(base, inert)
    assert (base - on).abs().max() > 1e-5
    assert torch.equal(weights(runs["base"].averaged), weights(runs["inert"].averaged))


def test_an_objective_is_told_what_it_asks_for(images):
    model, process = small(), Diffusion()
    auxiliary, told = attach(model, objective="time_infonce"), {}
    forward = auxiliary.method.forward
    auxiliary.method.forward = lambda features, context: told.update(context) or forward(features, context)
    rows = drawer(images, process, share=1.0)(0, CPU, slice(0, 8))
    metrics = engine(model, process, auxiliary).update(rows, 1.0).metrics
    assert torch.equal(told["timesteps"], rows.timesteps) and torch.equal(told["identity"], rows.identity)
    kept = process.sampler().alphas_cumprod[rows.timesteps].sqrt()
    assert torch.allclose(told["signal"], kept, atol=1e-4)
    assert set(told) == {"timesteps", "identity", "signal"}
    assert metrics["auxiliary"] > 0 and metrics["paired"] == 1


@pytest.mark.parametrize("objective", ["time_infonce", "dispersive"])
def test_a_compiled_denoiser_feeds_the_objective_and_learns_the_same(images, tmp_path, objective):
    found = [
        trainer(images, tmp_path / str(compile), objective=objective, compile=compile, steps=2).fit().last
        for compile in (False, "aot_eager")
    ]
    assert found[0]["auxiliary"] != 0
    assert found[1] == pytest.approx(found[0], abs=1e-4)


def test_a_dit_learns_with_checkpointed_gradients_as_without(images, tmp_path):
    found = []
    for name in ("without", "with"):
        torch.manual_seed(0)
        model = dit(SHAPE, True, layers=2, heads=2, head_dim=8)
        run = trainer(
            images, tmp_path / name, model, "time_infonce", conditional=True, process=Flow(), steps=3,
            gradient_checkpointing=name == "with",
        )  # fmt: skip
        found.append(run.fit().last)
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_it_learns(images, tmp_path):
    run = trainer(images, tmp_path, steps=60, batch_size=32, pair_share=0.0, decay="cosine")
    assert run.fit().last["denoising"] < 0.6  # 1 for who predicts nothing


def test_the_learning_rate_rises_and_stays_or_falls():
    assert [factor(step, 10, 4, "constant") for step in (0, 1, 3, 4, 9)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert [factor(step, 10, 0, "constant") for step in (0, 9)] == [1.0, 1.0]
    assert factor(7, 10, 4, "cosine") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"weight": -1}, "weight must be a number >= 0, got -1"),
        ({"pair_share": 1.5}, r"pair_share must be a number in \[0, 1\], got 1.5"),
        ({"flow_weight": 1.0}, r"flow_weight must be a number in \[0, 1\), got 1.0"),
        ({"flow_weight": 0.1}, "flow_weight needs scheduler=flow: .* got the prediction epsilon"),
        ({"snr_gamma": 0}, "snr_gamma must be a number > 0, got 0"),
        ({"decay": "linear"}, "unknown decay 'linear'"),
        ({"batch_size": 4000}, "batch_size must be at most the 539 images, got 4000"),
        ({"conditional": True}, "needs a denoiser that takes class labels"),
    ],
)
def test_what_breaks_a_rule(images, tmp_path, changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        trainer(images, tmp_path, **changed)


def test_the_null_class_is_no_class_of_the_data(images, tmp_path):
    for count in (NULL, NULL + 1):
        many = images._replace(classes=tuple(map(str, range(count))))
        if count == NULL:
            trainer(many, tmp_path, small(conditional=True), conditional=True)
        else:
            with pytest.raises(ValueError, match=r"has room for 1000 classes, .* and these data have 1001"):
                trainer(many, tmp_path, small(conditional=True), conditional=True)


def test_what_the_evaluation_would_find_wrong_is_known_before_the_training(images, tmp_path):
    Classifier(SHAPE, ("0", "1"), "other_cnn", 8).save(tmp_path / "other")
    (tmp_path / "levels.json").write_text("{}")
    own, none = ({"classifier": partial(classifier, folder=tmp_path / place)} for place in ("other", "new"))
    for changed, sentence in [
        (
            {"beside": str(tmp_path / "run")},
            "evaluation.beside must be a finished run of contraux diffusion, got .*run",
        ),
        ({"at": "mid_blok"}, "did you mean mid_block"),
        ({"sampling_steps": [5, 2000], "extractors": none}, "sampling_steps must be at most the 1000 timesteps"),
        ({"extractors": own}, "was trained on other images than these"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            Evaluation(**changed).check(small(), Diffusion(), images, data="digits")
    fits = Evaluation(beside=str(tmp_path), at="mid_block", extractors=none)
    fits.check(small(), Diffusion(), images, data="digits")
    Evaluation(extractors=none, sampling_steps=[2000]).check(small(), Flow(), images, data="digits")
    assert not (tmp_path / "new").exists()  # nothing is trained yet
    with pytest.raises(ValueError, match="sampling_steps must be at most the 1000 timesteps of training, got 2000"):
        trainer(images, tmp_path, grids=Grids(tmp_path, SHAPE, sampling_steps=2000))


def test_a_trainer_fits_once_and_keeps_a_run_that_is_there(images, tmp_path):
    run = trainer(images, tmp_path, steps=1)
    run.fit()
    with pytest.raises(ValueError, match="a trainer fits once"):
        run.fit()
    with pytest.raises(ValueError, match=r"folder must be one without a checkpoint, got .* with one of step 1"):
        trainer(images, tmp_path, steps=1).fit()
    with pytest.raises(ValueError, match=r"a run goes on with the settings it had, and weight was 0.05, got 0.1"):
        trainer(images, tmp_path, steps=1, weight=0.1).fit(resume=True)


def test_a_checkpoint_that_holds_code_is_refused_before_it_runs(images, tmp_path):
    """Accelerate unpickles what is registered beside the model: the moving average, the objective."""
    trainer(images, tmp_path, steps=1, objective="dispersive").fit()
    kept = sorted((tmp_path / "checkpoint").glob("custom_checkpoint_*.pkl"))
    assert len(kept) == 2
    with torch.serialization.safe_globals([]):
        assert all(torch.load(path, weights_only=True) for path in kept)
    torch.save({"shadow_params": Trap()}, kept[0])
    with pytest.raises(ValueError, match=r"must hold nothing but arrays, and .*custom_checkpoint_0\.pkl does not"):
        trainer(images, tmp_path, steps=1, objective="dispersive").fit(resume=True)
    assert not Path("sprung").exists()


def test_a_run_that_goes_on_draws_what_its_checkpoint_should_have_had(images, tmp_path):
    """A kill may come between the checkpoint and its picture."""
    grids = Grids(str(tmp_path), SHAPE, every=2, count=4, sampling_steps=2)
    trainer(images, tmp_path, steps=2, grids=grids).fit()
    picture = tmp_path / "samples" / "step_000002.png"
    before = picture.read_bytes()
    picture.unlink()
    trainer(images, tmp_path, steps=2, grids=grids).fit(resume=True)
    assert picture.read_bytes() == before
