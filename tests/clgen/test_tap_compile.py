"""The tap within torch.compile: it fires, gradients are those of eager mode, and few graphs are made.

With the backend aot_eager, which does all that a hook can disturb; inductor takes longer and only makes the kernels.
"""

import pytest
import torch
import torch._dynamo
from tapped import Disc, Gap, Spread, Stopped, assert_same, grads, images
from torch._dynamo.utils import counters

from contraux.clgen import attach


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs():
    return counters["stats"]["unique_graphs"]


def seeded():
    torch.manual_seed(0)
    return Disc()


def step(model, aux):
    with aux:
        real, fake = model(images(3, 1)), model(images(3, 2))
    (real.sum() - fake.mean() + aux.loss()).backward()
    return grads(aux.model, aux.method)


def eager(method, at="body"):
    disc = seeded()
    return step(disc, attach(disc, at=at, objective=method, example=images()))


def whole(disc, **how):
    return torch.compile(disc, **how)


def in_place(disc, **how):
    disc.compile(**how)
    return disc


def a_part_in_place(disc, **how):
    disc.body.compile(**how)
    return disc


def a_part(disc, **how):
    disc.body = torch.compile(disc.body, **how)
    return disc


@pytest.mark.parametrize(
    ("compiled", "method"),
    [(whole, Gap), (whole, Stopped), (in_place, Stopped), (a_part_in_place, Stopped), (a_part, Stopped)],
)
def test_gradients_are_those_of_eager_mode(compiled, method):
    model = compiled(seeded(), backend="aot_eager", fullgraph=True)
    aux = attach(model, at="body", objective=method, example=images())
    assert graphs() == 0  # the example did not compile it
    assert_same(step(model, aux), eager(method))
    assert graphs() == 1


def test_modules_of_a_compiled_part_keep_their_names():
    model = a_part(seeded(), backend="aot_eager")
    aux = attach(model, at="body.2", objective=Gap, example=images())
    assert_same(step(model, aux), eager(Gap, "body.2"))


def phases(model, aux, calls=5):
    """The phases of a step of a GAN, and a look at the scores."""
    with aux:
        model(images(3 * 2, 1))
    aux.loss().backward()
    with aux.calls(*aux.method.roles):
        scores = [model(images(3, seed)) for seed in range(2)]
    (sum(score.sum() for score in scores) + aux.loss()).backward()
    with aux.for_generator():
        model(images(3, 1))
    aux.loss().backward()
    for seed in range(calls):
        model(images(3, seed)).sum().backward()
    with torch.no_grad():
        model(images(3, 1))


@pytest.mark.parametrize(("method", "most"), [(Gap, 4), (Stopped, 5)])
def test_graphs_are_few_whatever_is_toggled(method, most):
    """One each for recording, not recording and without gradient, one for other batch sizes, one for the stop."""
    model = whole(seeded(), backend="aot_eager")
    aux = attach(model, at="body", objective=method, example=images())
    for _ in range(3):
        phases(model, aux)
    made, frames = graphs(), counters["frames"]["total"]
    for _ in range(4):
        phases(model, aux)
    assert graphs() == made <= most and counters["frames"]["total"] == frames and not counters["graph_break"]


def test_the_number_of_calls_makes_no_graphs():
    class Many(Gap):
        roles = tuple("abcdefgh")

        def forward(self, features, context):
            rows = torch.cat([features[role]["features"] for role in self.roles])
            return Gap.generator(self, {"fake": {"features": rows}}, context)

    model = whole(seeded(), backend="aot_eager")
    aux = attach(model, at="body", objective=Many, example=images())
    with aux:
        for seed in range(8):
            model(images(3, seed))
    aux.loss().backward()
    assert graphs() == 1


def test_attached_after_the_first_compiled_call():
    model = whole(seeded(), backend="aot_eager")
    model(images())
    aux = attach(model, at="body", objective=Gap, example=images())
    with pytest.raises(ValueError, match=r"the tap at body must fire .* attach before the first call of a compiled"):
        step(model, aux)
    torch.compiler.reset()
    assert_same(step(model, aux), eager(Gap))
    aux.detach()
    model(images(3, 1)).sum().backward()
    assert aux.model.body[0].weight.grad.abs().sum() > 0


def test_model_and_auxiliary_as_one_unit():
    disc = seeded()
    aux = attach(disc, at="body", objective=Stopped, example=images())
    unit = torch.compile(aux.as_module(), backend="aot_eager")
    for _ in range(3):
        (real, fake), loss = unit(images(3, 1), images(3, 2))
        (real.sum() - fake.mean() + loss).backward()
        assert_same(grads(disc, aux.method), eager(Stopped))


def test_a_unet_of_diffusers():
    from diffusers import UNet2DModel

    def unet():
        torch.manual_seed(0)
        return UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(4,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            add_attention=False,
            norm_num_groups=2,
        )

    def denoise(model, aux):
        with aux:
            prediction = model(images(4, 1), torch.tensor([3, 500, 20, 999])).sample
        (prediction.square().mean() + aux.loss()).backward()
        return grads(aux.model, aux.method)

    model = unet()
    torch.manual_seed(1)
    expected = denoise(model, attach(model, objective=Spread))
    model = torch.compile(unet(), backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    aux = attach(model, objective=Spread)
    for _ in range(3):
        assert_same(denoise(model, aux), expected, rtol=1e-4, atol=1e-6)
    assert graphs() == 1
