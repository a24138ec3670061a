"""Losses taken in tiles and blocks: the same number and gradient as the whole matrix, in float64 and by hand."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contraux.core import Contrastive, Pairs, contrastive_loss, two_view_pairs
from contraux.core.kernels import both_directions, composed, cpu, entry, rows, symmetric
from contraux.core.losses import clip, info_nce, nt_xent, sup_con
from contraux.core.pairs import SameLabel
from contraux.core.samplers import Queue, Weighting
from contraux.core.similarity import Bilinear, cosine, dot


@pytest.fixture
def small_blocks(monkeypatch):
    """Kernels from the first similarity on, with blocks so small that even tiny cases need several."""
    monkeypatch.setattr(entry, "SMALL", 0)
    monkeypatch.setattr(entry, "COMPOSED", 0)
    monkeypatch.setattr(cpu, "SMALL", 0)
    monkeypatch.setattr(symmetric, "ROWS", 3)
    monkeypatch.setattr(symmetric, "COLUMNS", 4)
    monkeypatch.setattr(rows, "CELLS", 20)
    monkeypatch.setattr(rows, "PANEL", 3)
    monkeypatch.setattr(both_directions, "ROWS", 3)
    monkeypatch.setattr(both_directions, "COLUMNS", 4)
    monkeypatch.setattr(composed, "CELLS", 20)


def normal(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def whole(pairs, similarity, loss, temperature, remembered=None):
    """The definition: all similarities, then the loss; index exclusions and queues by hand."""
    key = pairs.key if remembered is None else torch.cat((pairs.key, remembered))
    matrix = similarity(pairs.query, key)
    positive, n, m = pairs.positive, *matrix.shape
    if isinstance(positive, SameLabel):
        positive = F.pad(positive.query[:, None] == positive.key, (0, m - len(pairs.key)))
    weights = None
    if pairs.exclude is not None:
        weights = matrix.new_ones(n, m)
        weights[torch.arange(n), pairs.exclude] = 0.0
    return loss(matrix, positive, weights, temperature=temperature)


def check(pairs, similarity=cosine, loss=info_nce, temperature=0.1, queue=None, whole_loss=None, rtol=1e-9):
    inputs = list({id(x): x for x in (pairs.query, pairs.key)}.values())
    learned = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    remembered = None if queue is None else queue.memory().key.clone()
    expected = whole(pairs, similarity, whole_loss or loss, learned, remembered)
    found = contrastive_loss(pairs, similarity=similarity, sampler=queue, loss=loss, temperature=learned)
    assert "WithGradient" in found.grad_fn.name()
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=rtol, atol=1e-9)
    for one, other in zip(
        torch.autograd.grad(3 * found, [*inputs, learned]),
        torch.autograd.grad(3 * expected, [*inputs, learned]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=max(rtol, 1e-7), atol=1e-9 + rtol)
    with torch.no_grad():
        again = contrastive_loss(pairs, similarity=similarity, sampler=queue, loss=loss, temperature=learned)
    torch.testing.assert_close(again, found)


TEMPERATURES = [0.02, 0.1, 1.0]  # below and above the one that needs a shift


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_nt_xent(small_blocks, monkeypatch, n, temperature, keep, loss):
    monkeypatch.setattr(symmetric, "KEPT", 99 if keep else 0)
    both = normal(2 * n, 4)
    pairs = two_view_pairs(both[:n], both[n:])
    check(Pairs(both, both, pairs.positive, pairs.exclude), loss=loss, temperature=temperature, whole_loss=nt_xent)


def test_nt_xent_whose_positives_do_not_point_back(small_blocks):
    both = normal(9, 4)
    positive = torch.tensor([1, 0, 0, 0, 7, 4, 2, 8, 3])
    check(Pairs(both, both, positive), loss=nt_xent)
    key = normal(9, 4)
    check(Pairs(both, key, positive), loss=nt_xent)
    check(Pairs(both, both, positive, torch.arange(9)), similarity=dot, loss=nt_xent, temperature=1.0)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([cosine, dot]),
    st.sampled_from(TEMPERATURES),
    st.booleans(),
    st.integers(0, 8),
    st.integers(0, 2**31 - 1),
)
@settings(max_examples=60, deadline=None)
def test_info_nce(n, m, similarity, temperature, exclude, remembered, seed):
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "SMALL", 0)
        patch.setattr(cpu, "SMALL", 0)
        patch.setattr(rows, "CELLS", 20)
        patch.setattr(rows, "PANEL", 3)
        positive, excluded = torch.randint(m, (n,)), torch.randint(m, (n,))
        queue = None
        if remembered:
            queue = Queue(4, remembered).double()
            queue.remember(torch.randn(remembered, 4, dtype=torch.float64), {})
        pairs = Pairs(normal(n, 4), normal(m, 4), positive, excluded if exclude else None)
        check(pairs, similarity, temperature=temperature, queue=queue)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("similarity", [cosine, dot])
def test_clip(small_blocks, n, temperature, similarity):
    check(Pairs(normal(n, 4), normal(n, 4), torch.randperm(n)), similarity, clip, temperature)


def test_labels_with_a_queue_in_blocks(small_blocks):
    queue = Queue(4, 5).double()
    queue.remember(torch.randn(5, 4, dtype=torch.float64), {"key_label": torch.tensor([0, 1, 2, 1, 9])})
    label = torch.tensor([0, 1, 1, 2, 5, -1, 0])  # 5 has only itself, -1 has nothing
    query, key = normal(7, 4), normal(7, 4)
    learned = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    found = contrastive_loss(Pairs(query, key, SameLabel(label, label)), sampler=queue, temperature=learned)
    assert "WithGradient" in found.grad_fn.name()
    every = torch.cat((label, queue.memory().context["key_label"]))
    mask = (label[:, None] == every) & (label[:, None] >= 0)
    expected = info_nce(cosine(query, torch.cat((key, queue.memory().key))), mask, temperature=learned)
    torch.testing.assert_close(found, expected)
    inputs = (query, key, learned)
    for one, other in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("similarity", [cosine, dot])
@pytest.mark.parametrize("loss", [info_nce, sup_con])
def test_labels(small_blocks, similarity, itself, temperature, loss):
    label = torch.tensor([0, 1, 1, 2, 5, -1, 0])
    query, key = normal(7, 4), normal(7, 4)
    learned = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    mask = (label[:, None] == label) & (label[:, None] >= 0)
    weights = torch.ones(7, 7, dtype=torch.float64)
    if itself:
        mask, weights = mask.fill_diagonal_(False), weights.fill_diagonal_(0.0)
    pairs = Pairs(query, key, SameLabel(label, label), torch.arange(7) if itself else None)
    found = contrastive_loss(pairs, similarity=similarity, loss=loss, temperature=learned)
    assert "WithGradient" in found.grad_fn.name()
    expected = info_nce(similarity(query, key), mask, weights, learned)
    torch.testing.assert_close(found, expected)
    inputs = (query, key, learned)
    for one, other in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(one, other)
    matrix = Pairs(query, key, mask.float(), None if not itself else torch.eye(7, dtype=torch.bool))
    torch.testing.assert_close(contrastive_loss(matrix, similarity=similarity, temperature=learned), expected)


def test_what_is_excluded_is_no_positive_of_a_mask():
    query, key = normal(3, 4), normal(3, 4)
    everything = torch.ones(3, 3, dtype=torch.bool)
    exclude = torch.eye(3, dtype=torch.bool)
    expected = info_nce(cosine(query, key), ~exclude, (~exclude).double())
    torch.testing.assert_close(contrastive_loss(Pairs(query, key, everything, exclude)), expected)


class Harder(Weighting):
    """Weights that depend on the similarities of the row and have a gradient."""

    def weigh(self, similarity, negative, is_positive, context):
        return similarity.masked_fill(~negative, -torch.inf).softmax(1) * 3 + 0 * context["own"][:, None]


def test_any_similarity_and_sampler_in_blocks(small_blocks):
    bilinear, sampler = Bilinear(4).double(), Harder()
    nn.init.normal_(bilinear.weight)
    context = {"own": torch.randn(7, dtype=torch.float64), "key_other": torch.randn(5)}
    exclude = torch.rand(7, 5) < 0.3
    pairs = Pairs(normal(7, 4), normal(5, 4), torch.randint(5, (7,)), exclude, context)
    found = contrastive_loss(pairs, similarity=bilinear, sampler=sampler, temperature=0.5)
    assert "WithGradient" in found.grad_fn.name()
    matrix = bilinear(pairs.query, pairs.key)
    weights = sampler(matrix, pairs.positive, exclude, context).weights
    expected = info_nce(matrix, pairs.positive, weights, 0.5)
    torch.testing.assert_close(found, expected)
    inputs = (pairs.query, pairs.key, bilinear.weight)
    for one, other in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_float32_gradients_are_as_good_as_those_of_the_whole_matrix():
    torch.manual_seed(0)
    for loss in (nt_xent, info_nce, clip):
        exact = normal(2000, 32)
        z = exact.detach().float().requires_grad_()
        key, exact_key = (z, exact) if loss is nt_xent else (z.flip(0), exact.flip(0))
        positive = torch.arange(2000).roll(1000)
        expected = torch.autograd.grad(loss(cosine(exact, exact_key), positive, temperature=0.1), exact)[0]
        found = torch.autograd.grad(contrastive_loss(Pairs(z, key, positive), loss=loss, temperature=0.1), z)[0]
        assert (found - expected).norm() / expected.norm() < 3e-6


@pytest.mark.parametrize("loss", [nt_xent, info_nce, clip])
def test_a_low_temperature_and_opposed_vectors_stay_finite(loss):
    torch.manual_seed(0)
    z = F.normalize(torch.randn(1000, 8))
    z = torch.cat((z, -z)).requires_grad_()  # each positive is the least alike of all
    key = z if loss is nt_xent else z.clone()
    value = contrastive_loss(Pairs(z, key, torch.arange(2000).roll(1000)), loss=loss, temperature=0.01)
    gradient = torch.autograd.grad(value, z)[0]
    assert value.item() == pytest.approx(200, rel=0.1) and gradient.isfinite().all()


def test_zero_vectors_and_nan(small_blocks):
    z = torch.randn(6, 4)
    z[2] = 0.0
    z.requires_grad_()
    pairs = Pairs(z, z, torch.arange(6).roll(3), torch.arange(6))
    gradient = torch.autograd.grad(contrastive_loss(pairs), z)[0]
    assert gradient.isfinite().all() and gradient[2].abs().max() < 1e-12 and gradient[5].abs().max() > 0
    broken = z.detach().clone()
    broken[1, 1] = torch.nan
    assert contrastive_loss(Pairs(broken, broken, pairs.positive, pairs.exclude)).isnan()
    assert contrastive_loss(Pairs(broken, broken.clone(), pairs.positive)).isnan()
    assert contrastive_loss(Pairs(broken, broken.clone(), pairs.positive), loss=clip).isnan()


def test_no_second_derivative_and_it_says_so(small_blocks):
    pairs = Pairs(normal(6, 4), normal(6, 4), torch.arange(6))
    with pytest.raises(NotImplementedError, match="has no second derivative"):
        torch.autograd.grad(contrastive_loss(pairs), pairs.query, create_graph=True)


def test_half_precision_and_autocast(small_blocks):
    exact = torch.randn(8, 16)
    half = exact.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(Pairs(half, half, torch.arange(8).roll(4)), loss=nt_xent)
    assert loss.dtype == torch.float32
    expected = nt_xent(cosine(half, half), torch.arange(8).roll(4))
    torch.testing.assert_close(loss, expected)
    assert torch.autograd.grad(loss, half)[0].dtype == torch.bfloat16


def test_inside_compile(small_blocks):
    head = nn.Linear(4, 4)
    x = torch.randn(8, 4)

    def run(x):
        z = head(x).relu()
        return contrastive_loss(Pairs(z, z, torch.arange(8).roll(4)), loss=nt_xent) * 2

    expected = torch.autograd.grad(run(x), head.weight)[0]
    found = torch.autograd.grad(torch.compile(run, backend="aot_eager")(x), head.weight)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", [info_nce, nt_xent, partial(info_nce)])
def test_an_objective_reports_what_it_reports_of_the_whole_matrix(monkeypatch, loss):
    both = torch.randn(40, 8)
    pairs = two_view_pairs(both[:20], both[20:])
    expected = Contrastive(8, loss=loss)(pairs).metrics
    monkeypatch.setattr(cpu, "SMALL", 0)
    found = Contrastive(8, loss=loss)(pairs)
    assert found.metrics.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found.metrics[name], value)
    monkeypatch.setattr(entry, "SEEN", 40 * 5)  # of five queries
    few = Contrastive(8, loss=loss)(pairs)
    assert few.metrics.keys() == expected.keys() and few.loss == found.loss


def test_nothing_of_the_size_of_the_matrix_is_stored():
    """The largest tensor that any operation makes."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for one in out if isinstance(out, tuple | list) else [out]:
                if isinstance(one, torch.Tensor):
                    largest = max(largest, one.numel())
            return out

    z = torch.randn(6000, 8, requires_grad=True)
    for loss, key in ((nt_xent, z), (info_nce, z.clone()), (clip, z.clone())):
        largest = 0
        with Watch():
            contrastive_loss(Pairs(z, key, torch.arange(6000).roll(3000)), loss=loss).backward()
        assert largest <= 2**22
    largest = 0
    with Watch():
        labels = torch.randint(10, (6000,))
        contrastive_loss(Pairs(z, z, SameLabel(labels, labels), torch.arange(6000))).backward()
    assert largest <= 2**21


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"key": torch.zeros(6, 3)}, r"query and key must be \(N, D\) and \(M, D\), got \(6, 4\) and \(6, 3\)"),
        ({"positive": torch.arange(5)}, r"positive must be long \(6,\)"),
        ({"positive": SameLabel(torch.arange(6), torch.arange(5))}, r"labels of key must be long \(6,\)"),
        ({"exclude": torch.arange(5)}, r"exclude must be bool \(6, 6\) or long \(6,\)"),
    ],
)
def test_wrong_pairs(small_blocks, change, sentence):
    pairs = Pairs(torch.zeros(6, 4), torch.zeros(6, 4), torch.arange(6))
    with pytest.raises(ValueError, match=sentence):
        contrastive_loss(pairs._replace(**change))


@pytest.mark.parametrize("wrong", [-1, 6])
@pytest.mark.parametrize("loss", [info_nce, nt_xent])
@pytest.mark.parametrize("tile", [3, 512])
def test_an_index_outside_is_an_error(small_blocks, monkeypatch, loss, wrong, tile):
    monkeypatch.setattr(symmetric, "ROWS", tile)
    z = torch.randn(6, 4)
    for key in (z, z.clone()):
        with pytest.raises((IndexError, RuntimeError), match=r"positive must lie in|out of bounds|out of range"):
            contrastive_loss(Pairs(z, key, torch.tensor([1, 0, 3, 2, 5, wrong])), loss=loss)


def test_wrong_temperature(small_blocks):
    pairs = Pairs(torch.zeros(6, 4), torch.zeros(6, 4), torch.arange(6))
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature must be a"):
            contrastive_loss(pairs, temperature=wrong)
    with pytest.raises(ValueError, match="floating scalar tensor"):
        contrastive_loss(pairs, temperature=torch.ones(2))
    with pytest.raises(ValueError, match="no_temperature has no temperature: it must be None, got 0"):

        def no_temperature(similarity, positive, weights=None):
            return similarity.sum()

        contrastive_loss(pairs, loss=no_temperature, temperature=0.5)
