"""Each method against its paper's formula, term by term in Python floats."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from contraux.clgen.gan import ClassSupCon, ContraD, ContraGAN, Head, InfoMaxGAN, InsGen, ReACGAN, RealFakeSupCon
from contraux.core import Contrastive
from contraux.core.losses import info_nce, nt_xent, pairwise_info_nce, sup_con
from contraux.core.samplers import Queue
from contraux.core.similarity import dot

T = 0.5


def rows(seed: int, n: int = 4, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cos(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.tolist(), b.tolist()
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def features(**roles: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    return {role: {"features": value} for role, value in roles.items()}


def plain(loss, temperature=T, **more):
    """An objective without a head."""
    return partial(Contrastive, loss=loss, temperature=temperature, **more)


def by_nt_xent(a: torch.Tensor, b: torch.Tensor) -> float:
    both, n, losses = torch.cat((a, b)), len(a), []
    for i, z in enumerate(both):
        e = [math.exp(cos(z, other) / T) for other in both]
        losses.append(-math.log(e[(i + n) % (2 * n)] / (sum(e) - e[i])))
    return mean(losses)


def by_sup_con(anchors: list[int], labels: list[int], z: torch.Tensor) -> float:
    losses = []
    for i in anchors:
        e = {j: math.exp(cos(z[i], z[j]) / T) for j in range(len(z)) if j != i}
        positives = [j for j in e if labels[j] == labels[i] >= 0]
        if positives:
            losses.append(mean([-math.log(e[j] / sum(e.values())) for j in positives]))
    return mean(losses)


def test_contrad():
    method = ContraD({"features": (3,)}, real=plain(nt_xent), fake=plain(sup_con), fake_weight=0.3)
    real, view, fake = rows(0).requires_grad_(), rows(1).requires_grad_(), rows(2).requires_grad_()
    outcome = method(features(real=real, view=view, fake=fake), {})
    contrast = by_nt_xent(real, view)
    among_fakes = by_sup_con([0, 1, 2, 3], [1] * 4 + [0] * 8, torch.cat((fake, real, view)).detach())
    assert outcome.loss.item() == pytest.approx(contrast + 0.3 * among_fakes, rel=1e-12)
    assert outcome.metrics["real/loss"].item() == pytest.approx(contrast, rel=1e-12)
    assert outcome.metrics["fake/loss"].item() == pytest.approx(among_fakes, rel=1e-12)
    assert {"real/accuracy", "fake/accuracy"} <= set(outcome.metrics)
    for gradient in torch.autograd.grad(outcome.loss, (real, view, fake)):
        assert (gradient.abs().sum(1) > 0).all()
    # real images are only candidates of the fakes: as many as one likes, and a fake weight of 0 leaves nothing of them
    none = ContraD({"features": (3,)}, real=plain(nt_xent), fake=plain(sup_con), fake_weight=0.0)
    assert none(features(real=real, view=view, fake=fake), {}).loss.item() == pytest.approx(contrast, rel=1e-12)
    assert method.stop_gradient and method.roles == ("real", "view", "fake") and not method.generator_roles


def test_contrad_keeps_its_heads_apart():
    head = partial(Head, hidden=5, out=2)
    method = ContraD(
        {"features": (3,)}, real=plain(nt_xent, projection=head), fake=plain(sup_con, projection=head)
    ).double()
    real, view, fake = rows(0), rows(1), rows(2)
    outcome = method(features(real=real, view=view, fake=fake), {})
    h1, h2 = method.real.projection, method.fake.projection
    expected = by_nt_xent(h1(real), h1(view))
    expected += by_sup_con([0, 1, 2, 3], [1] * 4 + [0] * 8, h2(torch.cat((fake, real, view))))
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-12)
    layers = [type(layer) for layer in h1.layers]
    assert layers == [nn.Linear, nn.LeakyReLU, nn.Linear] and h1.layers[1].negative_slope == 0.1


LABELS = torch.tensor([0, 1, 0, 2])


def conditional(method, **more):
    torch.manual_seed(0)
    return method({"features": (3,)}, classes=3, head=partial(Head, hidden=None, out=4), **more).double()


def embedded(method, x):
    return method.compare.embedding(x).detach(), method.compare.proxies.weight.detach()


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_contragan(temperature):
    method, x = conditional(ContraGAN, temperature=temperature), rows(3)
    e, p = embedded(method, x)
    losses = []
    for i, y in enumerate(LABELS.tolist()):
        proxy = math.exp(cos(e[i], p[y]) / temperature)
        alike = {j: math.exp(cos(e[i], e[j]) / temperature) for j in range(4) if j != i}
        own = proxy + sum(value for j, value in alike.items() if LABELS[j] == y)
        losses.append(-math.log(own / (proxy + sum(alike.values()))))
    both = {"real": {"features": x}, "fake": {"features": rows(9)}}
    assert method(both, {"labels": LABELS}).loss.item() == pytest.approx(mean(losses), rel=1e-12)
    assert method.generator(features(fake=x), {"labels": LABELS}).loss.item() == pytest.approx(mean(losses), rel=1e-12)


def by_d2d_ce(e, p, variant, m=0.98, t=0.5):
    losses = []
    for i, y in enumerate(LABELS.tolist()):
        attraction = max(0.0, m - cos(e[i], p[y])) / t
        scaled = {j: (cos(e[i], e[j]) + m - 1) / t for j in range(len(e)) if j != i}
        shift = max(scaled.values()) if variant == "studiogan" else 0.0
        repulsion = sum(math.exp(max(0.0, x) - shift) for j, x in scaled.items() if LABELS[j] != y)
        losses.append(attraction + math.log(math.exp(-attraction) + repulsion))
    return mean(losses)


@pytest.mark.parametrize("variant", ["paper", "studiogan"])
def test_reacgan(variant):
    method, x = conditional(ReACGAN, variant=variant), rows(3)
    expected = by_d2d_ce(*embedded(method, x), variant)
    both = {"real": {"features": x}, "fake": {"features": rows(9)}}
    assert method(both, {"labels": LABELS}).loss.item() == pytest.approx(expected, rel=1e-12)
    assert method.generator(features(fake=x), {"labels": LABELS}).loss.item() == pytest.approx(expected, rel=1e-12)
    other = "studiogan" if variant == "paper" else "paper"
    assert abs(by_d2d_ce(*embedded(method, x), other) - expected) > 0.05


@pytest.mark.parametrize("method", [ContraGAN, ReACGAN, partial(ReACGAN, variant="studiogan")])
def test_only_the_proxies_of_the_batch_learn_and_one_example_is_enough(method):
    made = conditional(method)
    made(features(real=rows(3)), {"labels": torch.tensor([0, 0, 2, 0])}).loss.backward()
    moved = made.compare.proxies.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, False, True]
    assert made.compare.embedding.layers[0].weight.grad.abs().sum() > 0
    alone = made(features(real=rows(4, 1).requires_grad_()), {"labels": LABELS[:1]}).loss
    assert alone.item() == 0.0  # its proxy is the only candidate
    alone.backward()
    same = made(features(real=rows(4)), {"labels": torch.zeros(4, dtype=torch.long)}).loss
    assert same.item() == pytest.approx(0.0, abs=1e-12)  # and so with one class only


@pytest.mark.parametrize("method", [ContraGAN, ReACGAN])
def test_the_number_of_classes_is_asked_for(method):
    with pytest.raises(ValueError, match=r"number of classes .* got None: attach\(\.\.\., overrides="):
        method({"features": (3,)}, classes=None, head=partial(Head, hidden=None))
    with pytest.raises(ValueError, match="classes must be a whole number >= 1, got 0"):
        method({"features": (3,)}, classes=0, head=partial(Head, hidden=None))
    with pytest.raises(ValueError, match="temperature must be a number > 0, got 0"):
        conditional(method, temperature=0)


def test_a_label_that_is_no_class_is_torchs_error_on_the_cpu():
    with pytest.raises(IndexError):
        conditional(ContraGAN)(features(real=rows(3)), {"labels": torch.tensor([0, 1, 2, 3])})


def insgen(**more):
    torch.manual_seed(1)
    objective = plain(
        info_nce,
        temperature=0.2,
        projection=partial(Head, hidden=None, out=2),
    )
    return InsGen({"features": (3,)}, objective=objective, queue=partial(Queue, 2), size=8, **more).double()


def by_moco(q, k, queue):
    losses = []
    for i in range(len(q)):
        e = [math.exp(cos(q[i], other) / 0.2) for other in (*k, *queue)]
        losses.append(-math.log(e[i] / sum(e)))
    return mean(losses)


def test_insgen():
    method = insgen(momentum=0.9, fake_weight=0.5, generator_weight=0.1)
    first = features(real=rows(0), fake=rows(1), real_key=rows(2), fake_key=rows(3))
    expected = by_moco(method.real.projection(rows(0)), method.real.projection(rows(2)), [])
    expected += 0.5 * by_moco(method.fake.projection(rows(1)), method.fake.projection(rows(3)), [])
    keys = {role: getattr(method, role).projection(rows(seed)).detach() for role, seed in (("real", 2), ("fake", 3))}
    assert method(first, {}).loss.item() == pytest.approx(expected, rel=1e-9)
    for role, key in keys.items():  # what the momentum heads put out of the momentum copy's features
        torch.testing.assert_close(getattr(method, role).sampler.memory().key, key.detach())
    old = [
        {key: value.clone() for key, value in getattr(method, role).projection.state_dict().items()} for role in keys
    ]
    with torch.no_grad():
        for parameter in (*method.real.projection.parameters(), *method.fake.projection.parameters()):
            parameter.add_(torch.linspace(-1, 1, parameter.numel(), dtype=parameter.dtype).view_as(parameter))
    for _ in range(3):  # a call moves nothing
        method(first, {})
    method.update()
    for role, before in zip(keys, old, strict=True):
        objective = getattr(method, role)
        for key, value in objective.projection.state_dict().items():
            expected_key = 0.9 * before[key] + 0.1 * value
            torch.testing.assert_close(objective.momentum.encoder.state_dict()[key], expected_key)


def test_insgen_for_the_generator_remembers_nothing():
    method = insgen()
    method(features(real=rows(0), fake=rows(1), real_key=rows(2), fake_key=rows(3)), {})
    queue, fake = method.fake.sampler.memory().key.clone(), rows(5).requires_grad_()
    outcome = method.generator(features(fake=fake, fake_key=rows(6)), {})
    head = method.fake.projection
    expected = 0.1 * by_moco(head(fake), head(rows(6)), queue)
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(method.fake.sampler.memory().key, queue, rtol=0, atol=0)
    assert method.fake.sampler.training and len(method.real.sampler) == 4
    assert (torch.autograd.grad(outcome.loss, fake)[0].abs().sum(1) > 0).all()
    method.eval()
    method.generator(features(fake=fake, fake_key=rows(6)), {})
    assert not method.fake.sampler.training


def test_insgen_keys_take_no_gradient():
    method, key = insgen(), rows(2).requires_grad_()
    method(features(real=rows(0), fake=rows(1), real_key=key, fake_key=rows(3)), {}).loss.backward()
    assert key.grad is None


class Same(nn.Module):
    """A head that changes nothing."""

    def __init__(self, in_features):
        super().__init__()
        self.out_features = in_features

    def forward(self, x):
        return x


def infomax(sizes, head=Same):
    objective = plain(pairwise_info_nce, temperature=1.0, similarity=dot)
    return InfoMaxGAN(sizes, local_head=head, global_head=head, objective=objective)


def by_infomax(g, places):
    """Of `(N, D)` and `(N, L, D)`."""
    n, losses = len(g), []
    for i in range(n):
        e = [[math.exp(float(g[i] @ f)) for f in places[j]] for j in range(n)]
        others = sum(sum(e[j]) for j in range(n) if j != i)
        losses += [-math.log(own / (own + others)) for own in e[i]]
    return mean(losses)


def test_infomax_of_a_map_and_of_tokens():
    g, places = rows(0), torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = by_infomax(g, places)
    tokens = infomax({"local": (6, 3), "global": (3,)})
    found = tokens({"real": {"local": places, "global": g}}, {})
    assert found.loss.item() == pytest.approx(expected, rel=1e-12)
    picture = places.transpose(1, 2).unflatten(2, (2, 3))  # (N, C, H, W)
    maps = infomax({"local": (3, 2, 3), "global": (3,)})
    for outcome in (
        maps({"real": {"local": picture, "global": g}}, {}),
        maps.generator({"fake": {"local": picture, "global": g}}, {}),
    ):
        assert outcome.loss.item() == pytest.approx(expected, rel=1e-12)


def test_infomax_by_hand():
    """Image 0 scores its two places log 2 and log 4, and those of image 1 with 0; image 1 scores all with 0."""
    g = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    places = torch.tensor([[[math.log(2), 0.0], [math.log(4), 0.0]], [[0.0, 1.0], [0.0, 2.0]]], dtype=torch.float64)
    found = infomax({"local": (2, 2), "global": (2,)})({"real": {"local": places, "global": g}}, {})
    first = [-math.log(2 / (2 + 2)), -math.log(4 / (4 + 2))]
    second = [-math.log(1 / (1 + 2))] * 2  # its candidates are the other's places, which it scores 0
    assert found.loss.item() == pytest.approx(mean(first + second), rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "dim"),
    [({"hidden": 4, "shortcut": True}, 8), ({"hidden": 4}, 5), ({"hidden": None}, 4), ({"hidden": 20}, 12)],
)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_infomax_with_heads_is_that_of_what_the_heads_put_out(shape, dim, spectral_norm):
    """However the products are ordered: with few factors the last layer is applied to the global vectors."""
    torch.manual_seed(0)
    head = partial(Head, out=12, spectral_norm=spectral_norm, **shape)
    method = infomax({"local": (6, 3), "global": (3,)}, head).double().eval()
    assert method.objective.dim == dim
    g, places = rows(0).requires_grad_(), torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    learned = [g, places, *method.parameters()]
    found = method({"real": {"local": places, "global": g}}, {})
    query, key = method.global_head(g), method.local_head(places.flatten(0, 1))
    assert found.loss.item() == pytest.approx(by_infomax(query.detach(), key.detach().unflatten(0, (4, 6))), rel=1e-10)
    own = torch.arange(4).repeat_interleave(6) == torch.arange(4).unsqueeze(1)
    plainly = pairwise_info_nce(query @ key.T, own, temperature=1.0)
    assert found.metrics["positive_similarity"].item() == pytest.approx((query @ key.T)[own].mean().item(), rel=1e-5)
    pairs = zip(torch.autograd.grad(found.loss, learned), torch.autograd.grad(plainly, learned), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_infomax_with_cosines_is_not_reordered():
    objective = plain(pairwise_info_nce, temperature=1.0)
    method = InfoMaxGAN(
        {"local": (6, 3), "global": (3,)}, local_head=partial(Head, hidden=4, out=12),
        global_head=partial(Head, hidden=4, out=12), objective=objective,
    )  # fmt: skip
    assert method.objective.dim == 12


def test_infomax_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"'local' must be a map \(C, H, W\) or tokens \(T, C\), got \(3,\)"):
        infomax({"local": (3,), "global": (3,)})
    with pytest.raises(ValueError, match="must put out one dimension, got 4 and 3"):
        infomax({"local": (4, 2, 2), "global": (3,)})


def test_real_fake_supcon():
    method = RealFakeSupCon({"features": (3,)}, objective=plain(sup_con))
    real, fake = rows(0), rows(1, 3)
    expected = by_sup_con(list(range(7)), [0] * 4 + [1] * 3, torch.cat((real, fake)))
    found = method(features(real=real, fake=fake), {})
    assert found.loss.item() == pytest.approx(expected, rel=1e-12)
    assert method(features(real=fake, fake=real), {}).loss.item() == pytest.approx(expected, rel=1e-12)


def test_class_supcon():
    method = ClassSupCon({"features": (3,)}, objective=plain(sup_con))
    real, fake = rows(0, 6), rows(1, 4)
    labels, asked = torch.tensor([0, 1, 0, 1, 2, -1]), torch.tensor([0, 0, 1, 1])
    given = features(real=real, fake=fake)
    expected = by_sup_con(list(range(6)), labels.tolist(), real)
    assert method(given, {"labels": labels}).loss.item() == pytest.approx(expected, rel=1e-12)
    expected = by_sup_con(list(range(10)), [*labels.tolist(), 10, 10, 11, 11], torch.cat((real, fake)))
    found = method(given, {"labels": labels, "fake_labels": asked}).loss.item()
    assert found == pytest.approx(expected, rel=1e-12)
    expected = by_sup_con(list(range(4)), asked.tolist(), fake)
    assert method.generator(features(fake=fake), {"labels": asked}).loss.item() == pytest.approx(expected, rel=1e-12)


def test_heads():
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    one = Head(3, None, 2)
    torch.testing.assert_close(one(x), x @ one.layers[0].weight.T + one.layers[0].bias)
    two = Head(3, 5, 2, leak=0.2, shortcut=True)
    hidden = two.layers[0](x)
    expected = two.layers[2](torch.where(hidden > 0, hidden, 0.2 * hidden)) + two.shortcut(x)
    torch.testing.assert_close(two(x), expected)
    normalised = Head(3, 5, 2, shortcut=True, spectral_norm=True)
    for _ in range(60):
        normalised(x)
    for layer in (normalised.layers[0], normalised.layers[2], normalised.shortcut):
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1.0, abs=1e-3)
    for wrong, sentence in (
        ({"in_features": 0}, "in_features must be a whole number >= 1, got 0"),
        ({"hidden": 0}, "hidden must be a whole number >= 1, got 0"),
        ({"out": 0}, "out must be a whole number >= 1, got 0"),
        ({"leak": -1.0}, "leak must be a number >= 0, got -1.0"),
        ({"hidden": None, "shortcut": True}, "a shortcut needs a hidden layer"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Head(**({"in_features": 3} | wrong))
