"""Loss and gradient of each method against its paper's formula, written out once more or a peer's."""

import pytest
import torch
import torch.nn.functional as F
from small_methods import labels, small, trainable, views


def agree(method, loss, reference, rtol=1e-9):
    """The same number, and the same gradient in everything that is trained."""
    torch.testing.assert_close(loss, reference, rtol=rtol, atol=1e-12)
    weights = list(trainable(method).values())
    for mine, other in zip(
        torch.autograd.grad(loss, weights, retain_graph=True),
        torch.autograd.grad(reference, weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=rtol * 100, atol=1e-11)


def moved(method, progress=0.0):
    """The method after its online network has moved away from its copy, and the copy some way behind."""
    with torch.no_grad():
        for number, weight in enumerate(trainable(method).values()):
            weight.add_(0.1 * torch.randn_like(weight) + 0.01 * number)
    method.update(progress)
    return method


def mlp(encoder, head, x):
    """The networks written out: Encoder, then linear - ReLU - linear."""
    x = encoder[2](encoder[0](x).tanh())
    for number, layer in enumerate(head.layers):
        x = x.relu() if number % 2 else F.linear(x, layer.weight, layer.bias)
    return x


def test_simclr_is_algorithm_1():
    loss = pytest.importorskip("lightly.loss")
    method, (a, b) = small("simclr").double(), views()
    z = [mlp(method.encoder, method.online.projection, x) for x in (a, b)]
    agree(method, method(a, b).loss, loss.NTXentLoss(0.2)(*z))


def test_simclr_row_by_row():
    method, (a, b) = small("simclr").double(), views()
    z = [mlp(method.encoder, method.online.projection, x) for x in (a, b)]
    rows = F.normalize(torch.cat(z), dim=1)
    total = 0.0
    for i in range(16):
        e = [((rows[i] @ rows[k]) / 0.2).exp() for k in range(16)]
        total = total - (e[(i + 8) % 16] / sum(e[k] for k in range(16) if k != i)).log()
    agree(method, method(a, b).loss, total / 16)


def test_supcon_is_equation_2_and_unknown_examples_have_their_other_view():
    method, (a, b), known = small("supcon").double(), views(), labels()
    rows = F.normalize(torch.cat([mlp(method.encoder, method.online.projection, x) for x in (a, b)]), dim=1)
    total = 0.0
    for i in range(16):
        e = [((rows[i] @ rows[k]) / 0.1).exp() for k in range(16)]
        denominator = sum(e[k] for k in range(16) if k != i)
        same = [k for k in range(16) if k != i and (known[k % 8] == known[i % 8] >= 0 or k % 8 == i % 8)]
        assert len(same) == {0: 5, 1: 3, 2: 1, -1: 1}[int(known[i % 8])]
        total = total - sum((e[p] / denominator).log() for p in same) / len(same)
    agree(method, method(a, b, known).loss, total / 16)


def test_supcon_without_any_label_is_simclr():
    supcon, (a, b) = small("supcon").double(), views()
    simclr = small("simclr").double()
    simclr.load_state_dict(supcon.state_dict())
    simclr.objective.temperature = 0.1
    agree(supcon, supcon(a, b, torch.full((8,), -1)).loss, supcon.objective(_two_views(supcon, a, b)).loss)
    torch.testing.assert_close(supcon(a, b, torch.full((8,), -1)).loss, simclr(a, b).loss)


def _two_views(method, a, b):
    from contraux.core import two_view_pairs

    return two_view_pairs(method.online(a), method.online(b))


@pytest.mark.parametrize(("name", "temperature"), [("moco", 0.2), ("moco_v1", 0.07)])
def test_moco_is_algorithm_1_with_the_batchs_other_keys(name, temperature):
    method = moved(small(name, momentum=0.5).double())
    copy = method.target.encoder.encoder
    remembered = []
    for seed in (1, 2, 3, 4):
        a, b = views(seed=seed)
        query = mlp(method.encoder, method.online.projection, a)
        key = mlp(copy.encoder, copy.projection, b).detach()
        everyone = torch.cat((key, torch.cat([*remembered, key[:0]])[-20:]))  # of 24 keys the queue holds 20
        logits = F.normalize(query, dim=1) @ F.normalize(everyone, dim=1).T / temperature
        agree(method, method(a, b).loss, F.cross_entropy(logits, torch.arange(8)))
        remembered.append(key)
    assert len(everyone) == 28


def test_moco_v3_is_algorithm_1():
    method, (a, b) = moved(small("mocov3").double()), views()
    copy = method.target.encoder
    q1, q2 = (mlp_on(method.prediction, mlp(method.encoder, method.online.projection, x)) for x in (a, b))
    k1, k2 = (mlp(copy.encoder, copy.projection, x).detach() for x in (a, b))
    assert not torch.allclose(k1, mlp(method.encoder, method.online.projection, a))
    total = 0.0
    for q, k in ((q1, k2), (q2, k1)):
        logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T
        total = total + F.cross_entropy(logits / 0.2, torch.arange(8))
    outcome = method(a, b)
    agree(method, outcome.loss, total)
    hits = [
        (F.normalize(q, dim=1) @ F.normalize(k, dim=1).T).argmax(1) == torch.arange(8) for q, k in ((q1, k2), (q2, k1))
    ]
    assert outcome.metrics["accuracy"].item() == pytest.approx(torch.cat(hits).float().mean().item())


def mlp_on(head, x):
    return F.linear(F.linear(x, head.layers[0].weight, head.layers[0].bias).relu(), *head.layers[2].parameters())


def test_byol_is_equation_2():
    method, (a, b) = moved(small("byol").double()), views()
    copy = method.target.encoder
    q1, q2 = (mlp_on(method.prediction, mlp(method.encoder, method.online.projection, x)) for x in (a, b))
    k1, k2 = (mlp(copy.encoder, copy.projection, x).detach() for x in (a, b))
    squares = [(F.normalize(q, dim=1) - F.normalize(k, dim=1)).square().sum(1).mean() for q, k in ((q1, k2), (q2, k1))]
    agree(method, 4 + 4 * method(a, b).loss, sum(squares))


def test_simsiam_is_algorithm_1():
    loss = pytest.importorskip("lightly.loss")
    method, (a, b) = small("simsiam").double(), views()
    z1, z2 = (mlp(method.encoder, method.online.projection, x) for x in (a, b))
    p1, p2 = (mlp_on(method.prediction, z) for z in (z1, z2))
    distance = loss.NegativeCosineSimilarity()
    agree(method, method(a, b).loss, distance(p1, z2.detach()) / 2 + distance(p2, z1.detach()) / 2)


def test_barlow_twins_is_algorithm_1():
    method, (a, b) = small("barlow").double(), views()
    z = [mlp(method.encoder, method.online.projection, x) for x in (a, b)]
    one, other = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() for x in z)
    c = one.T @ other / 8
    total = sum((1 - c[i, i]) ** 2 for i in range(4))
    total = total + 0.005 * sum(c[i, j] ** 2 for i in range(4) for j in range(4) if i != j)
    agree(method, method(a, b).loss, total)


def test_vicreg_is_algorithm_1():
    loss = pytest.importorskip("lightly.loss")
    method, (a, b) = small("vicreg").double(), views()
    z = [mlp(method.encoder, method.online.projection, x) for x in (a, b)]
    agree(method, method(a, b).loss, loss.VICRegLoss()(*z))


@pytest.mark.parametrize(("name", "progress", "m"), [
    ("moco", 0.9, 0.75), ("mocov3", 0.5, 0.875), ("byol", 0.0, 0.75), ("byol", 0.5, 0.875), ("byol", 1.0, 1.0),
])  # fmt: skip
def test_momentum_by_hand(name, progress, m):
    method = small(name, momentum=0.75).double()
    copy = method.target.encoder.encoder if name == "moco" else method.target.encoder
    before = [weight.clone() for weight in copy.parameters()]
    with torch.no_grad():
        for weight in method.online.parameters():
            weight.add_(torch.randn_like(weight))
    method.update(progress)
    for old, new, online in zip(before, copy.parameters(), method.online.parameters(), strict=True):
        torch.testing.assert_close(new, m * old + (1 - m) * online)
