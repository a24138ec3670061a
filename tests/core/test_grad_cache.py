import weakref
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import nn

from contraux.core import Contrastive, Pairs, two_view_pairs
from contraux.core.distributed import cached_backward, split_rows
from contraux.core.encoders import PredictionHead, ProjectionHead
from contraux.core.losses import info_nce
from contraux.core.similarity import Bilinear, cosine


def encoder(dropout=0.0, norm=False, dtype=torch.float64, out=6):
    middle = nn.BatchNorm1d(8) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(5, 8), middle, nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, out)).to(dtype)


def batch(n=10, dtype=torch.float64):
    return torch.randn(n, 5, dtype=dtype)


def loss_of(query, key):
    return info_nce(cosine(query, key), torch.arange(len(query)), temperature=0.2)


def gradients(*modules):
    found = [p.grad.clone() for module in modules for p in module.parameters()]
    for module in modules:
        module.zero_grad()
    return found


def assert_same(found, expected, **tolerance):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, **(tolerance or {"rtol": 1e-10, "atol": 1e-13}))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [3, 10, 64])
def test_the_gradient_is_that_of_the_whole_batch(shared, rows):
    f = encoder()
    g = f if shared else encoder()
    x, y = batch(), batch()
    expected_loss = loss_of(f(x), g(y))
    expected_loss.backward()
    modules = {f, g}
    expected = gradients(*modules)
    outcome = cached_backward((f, g), (split_rows(x, rows), split_rows(y, 4)), loss_of)
    torch.testing.assert_close(outcome.loss, expected_loss.detach(), rtol=1e-12, atol=0)
    assert not outcome.loss.requires_grad and outcome.metrics == {}
    assert_same(gradients(*modules), expected)


def test_gradients_add_up_and_a_mean_of_chunks_would_be_another():
    f, x, y = encoder(), batch(), batch()
    loss_of(f(x), f(y)).backward()
    loss_of(f(x), f(y)).backward()
    twice = gradients(f)
    for _ in range(2):
        cached_backward((f, f), (split_rows(x, 5), split_rows(y, 5)), loss_of)
    assert_same(gradients(f), twice)
    for part in (slice(0, 5), slice(5, 10)):  # gradient accumulation: fewer negatives, another gradient
        loss_of(f(x[part]), f(y[part])).backward()
    assert (gradients(f)[0] - twice[0]).abs().max() > 0.1 * twice[0].abs().max()


def test_an_objective_with_heads_gets_its_own_gradient():
    f, x, y = encoder(), batch(), batch()
    head = partial(ProjectionHead, hidden=7, out=4)
    objective = Contrastive(6, projection=head, prediction=PredictionHead, temperature=0.2).double()
    expected_outcome = objective(two_view_pairs(f(x), f(y)))
    expected_outcome.loss.backward()
    expected = gradients(f, objective)
    views = (split_rows(x, 3), split_rows(y, 3))
    outcome = cached_backward((f, f), views, lambda a, b: objective(two_view_pairs(a, b)))
    assert_same(gradients(f, objective), expected)
    assert outcome.metrics.keys() == expected_outcome.metrics.keys()
    for name, value in outcome.metrics.items():
        torch.testing.assert_close(value, expected_outcome.metrics[name])


def test_dropout_draws_the_same_masks_twice_and_the_random_stream_goes_on_as_after_one_pass():
    f, x, y = encoder(dropout=0.5), batch(), batch()
    xs, ys = split_rows(x, 3), split_rows(y, 3)
    torch.manual_seed(3)
    loss = loss_of(torch.cat([f(one) for one in xs]), torch.cat([f(one) for one in ys]))
    loss.backward()
    after = torch.rand(1)
    expected = gradients(f)
    torch.manual_seed(3)
    outcome = cached_backward((f, f), (xs, ys), loss_of)
    assert torch.equal(torch.rand(1), after)
    torch.testing.assert_close(outcome.loss, loss.detach(), rtol=1e-12, atol=0)
    assert_same(gradients(f), expected)
    torch.manual_seed(4)
    cached_backward((f, f), (xs, ys), loss_of)
    assert not torch.allclose(gradients(f)[0], expected[0])  # other masks would have been noticed


def test_batch_norm_is_that_of_the_chunks_and_its_statistics_move_once():
    f, x, y = encoder(norm=True), batch(12), batch(12)
    start = {name: value.clone() for name, value in f.state_dict().items()}
    xs, ys = split_rows(x, 4), split_rows(y, 4)
    loss_of(torch.cat([f(one) for one in xs]), torch.cat([f(one) for one in ys])).backward()
    expected, buffers = gradients(f)[2:], [buffer.clone() for buffer in f.buffers()]  # 0 and 1 stand before the norm
    f.load_state_dict(start)
    cached_backward((f, f), (xs, ys), loss_of)
    assert_same(gradients(f)[2:], expected)
    for buffer, other in zip(f.buffers(), buffers, strict=True):
        torch.testing.assert_close(buffer, other)
    assert f[1].num_batches_tracked == 6
    f.load_state_dict(start)
    loss_of(f(x), f(y)).backward()  # and so it is not the gradient of one large batch: the documented exception
    assert (gradients(f)[2] - expected[0]).abs().max() > 1e-3


def test_only_one_chunk_of_activations_is_alive_at_a_time():
    width, rows, n = 32, 4, 40
    f = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 6))
    x = batch(n, torch.float32)
    weights = {p.data_ptr() for p in f.parameters()}
    alive, peak = 0, 0

    class Saved:
        pass

    def pack(tensor):
        nonlocal alive, peak
        saved = Saved()
        saved.tensor = tensor
        if tensor.shape[-1:] == (width,) and tensor.data_ptr() not in weights:
            size = tensor.numel()
            alive += size
            peak = max(peak, alive)
            weakref.finalize(saved, forget, size)
        return saved

    def forget(size):
        nonlocal alive
        alive -= size

    def peak_of(run):
        nonlocal peak
        peak = 0
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            run()
        assert alive == 0
        return peak

    one_chunk = peak_of(lambda: f(x[:rows]).sum().backward())
    assert one_chunk >= 2 * rows * width
    assert peak_of(lambda: loss_of(f(x), f(x)).backward()) > 15 * one_chunk
    chunks = split_rows(x, rows)
    assert peak_of(lambda: cached_backward((f, f), (chunks, chunks), loss_of)) == one_chunk


def test_embeddings_without_a_gradient_are_encoded_once():
    f, calls = encoder(), []
    g = encoder(norm=True)

    def count(batch):
        calls.append(len(batch))
        return g(batch)

    x = batch(12)
    cached_backward((f, count), (split_rows(x, 4), split_rows(x, 4)), lambda q, k: loss_of(q, k.detach()))
    assert calls == [4, 4, 4]
    cached_backward((f, g), (split_rows(x, 4), split_rows(x, 4)), lambda q, k: loss_of(q, k.detach()))
    assert g[1].num_batches_tracked == 6  # its statistics moved, once for each chunk
    frozen = encoder().requires_grad_(False)
    cached_backward((f, frozen), (split_rows(x, 4), split_rows(x, 4)), loss_of)
    assert f[0].weight.grad is not None and frozen[0].weight.grad is None


class Text(NamedTuple):
    ids: torch.Tensor
    more: dict


def test_chunks_may_be_nested():
    found = split_rows(Text(torch.arange(5), {"x": [torch.ones(5, 2), None], "scale": torch.tensor(2.0)}), 2)
    assert [one.ids.tolist() for one in found] == [[0, 1], [2, 3], [4]]
    assert found[2].more["x"][0].shape == (1, 2) and found[2].more["x"][1] is None and found[2].more["scale"] == 2

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = encoder()

        def forward(self, batch):
            return self.inner(batch["x"] * batch["mask"][0])

    f = Tower()
    data = {"x": batch(), "mask": (torch.rand(10, 1, dtype=torch.float64),)}
    f(data).square().sum().backward()
    expected = gradients(f)
    cached_backward([f], [split_rows(data, 3)], lambda z: z.square().sum())
    assert_same(gradients(f), expected)


def test_bound_methods_of_a_module_are_encoders():
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.text = encoder(norm=True), encoder()

        def encode_image(self, x):
            return self.image(x)

        def encode_text(self, x):
            return self.text(x)

    f, x = Clip(), batch(8)
    cached_backward((f.encode_image, f.encode_text), (split_rows(x, 4), split_rows(x, 4)), loss_of)
    assert f.image[1].num_batches_tracked == 2
    assert all(p.grad is not None for p in f.parameters())


def test_autocast_gives_the_gradient_of_the_large_batch_under_autocast():
    f, x, y = encoder(dtype=torch.float32), batch(12, torch.float32), batch(12, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(f(x), f(y))
    loss.backward()
    expected = gradients(f)
    with torch.autocast("cpu", torch.bfloat16):
        outcome = cached_backward((f, f), (split_rows(x, 4), split_rows(y, 4)), loss_of)
        with torch.no_grad():
            assert f(x).dtype == torch.bfloat16  # the region goes on afterwards
    assert outcome.loss.dtype == torch.float32
    torch.testing.assert_close(outcome.loss, loss.detach())
    assert_same(gradients(f), expected, rtol=0.05, atol=2e-3)  # bfloat16 sums in another order


def test_what_is_computed_in_float32_inside_autocast_is_differentiated_in_float32():
    class Full(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = encoder(dtype=torch.float32)

        def forward(self, x):
            with torch.autocast("cpu", enabled=False):
                return self.inner(x)

    f, x, y = Full(), batch(12, torch.float32), batch(12, torch.float32)
    objective = Contrastive(6, similarity=Bilinear(6))
    views = (split_rows(x, 4), split_rows(y, 4))

    def loss(q, k):
        return objective(Pairs(q, k, torch.arange(12)))

    loss(f(x), f(y)).loss.backward()
    expected = gradients(f, objective)
    with torch.autocast("cpu", torch.bfloat16):
        cached_backward((f, f), views, loss)
    assert_same(gradients(f, objective), expected, rtol=1e-4, atol=1e-6)


def test_a_grad_scaler_scales_every_parameter_and_unscales_them():
    f, x, y = encoder(dtype=torch.float32), batch(12, torch.float32), batch(12, torch.float32)
    temperature = nn.Parameter(torch.tensor(0.3))

    def objective(q, k):
        return info_nce(cosine(q, k), torch.arange(12), temperature=temperature)

    objective(f(x), f(y)).backward()
    expected = [*gradients(f), temperature.grad.clone()]
    temperature.grad = None
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD([*f.parameters(), temperature], lr=0.1)
    outcome = cached_backward(
        (f, f),
        (split_rows(x, 4), split_rows(y, 4)),
        objective,
        backward=lambda loss: scaler.scale(loss).backward(),
    )
    torch.testing.assert_close(temperature.grad, 1024 * expected[-1])
    scaler.unscale_(optimizer)
    assert_same([*(p.grad for p in f.parameters()), temperature.grad], expected, rtol=1e-4, atol=1e-6)
    assert outcome.loss < 10


def test_checkpointed_encoders_keep_their_masks():
    inner, x = encoder(dropout=0.5), batch()
    xs = split_rows(x, 5)

    def f(chunk):
        return torch.utils.checkpoint.checkpoint(inner, chunk, use_reentrant=False)

    torch.manual_seed(0)
    cached_backward((f,), (xs,), lambda z: z.square().sum())
    found = gradients(inner)
    torch.manual_seed(0)
    torch.cat([inner(one) for one in xs]).square().sum().backward()
    assert_same(found, gradients(inner))


def test_sentences():
    f, x = encoder(), batch()
    with pytest.raises(ValueError, match=r"every encoder needs at least one chunk, got 1 encoders and \[2, 2\] chunks"):
        cached_backward((f,), (split_rows(x, 5), split_rows(x, 5)), loss_of)
    with pytest.raises(ValueError, match=r"got 1 encoders and \[0\] chunks"):
        cached_backward((f,), ([],), loss_of)
    with pytest.raises(ValueError, match="an encoder must return a tensor with rows, got tuple"):
        cached_backward((lambda batch: (f(batch),),), ([x],), loss_of)
    with pytest.raises(ValueError, match=r"rows must be a whole number >= 1, got 0"):
        split_rows(x, 0)
    with pytest.raises(ValueError, match=r"one number of rows >= 1, got \[3, 4\]"):
        split_rows((torch.ones(3), torch.ones(4)), 2)
    with pytest.raises(ValueError, match=r"one number of rows >= 1, got \[\]"):
        split_rows({"a": None}, 2)
