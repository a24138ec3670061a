import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.core.similarity import Bilinear, bilinear, cosine, dot, negative_euclidean

WEIGHT = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
ALL = {
    "cosine": cosine,
    "dot": dot,
    "negative_euclidean": negative_euclidean,
    "squared": lambda q, k: negative_euclidean(q, k, squared=True),
    "bilinear": lambda q, k: bilinear(q, k, torch.eye(q.shape[-1], device=q.device)),
}
each = pytest.mark.parametrize("similarity", ALL.values(), ids=ALL.keys())


def test_hand_worked():
    query = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    key = torch.tensor([[4.0, 3.0], [0.0, -2.0], [3.0, 4.0]])
    # cosine: (12 + 12) / 25, -8 / 10, 1; and 4 / 5, 0, 3 / 5
    torch.testing.assert_close(cosine(query, key), torch.tensor([[0.96, -0.8, 1.0], [0.8, 0.0, 0.6]]))
    torch.testing.assert_close(dot(query, key), torch.tensor([[24.0, -8.0, 25.0], [4.0, 0.0, 3.0]]))
    # differences of the first query: (-1, 1), (3, 6), (0, 0); of the second: (-3, -3), (1, 2), (-2, -4)
    squares = torch.tensor([[2.0, 45.0, 0.0], [18.0, 5.0, 20.0]])
    torch.testing.assert_close(negative_euclidean(query, key, squared=True), -squares)
    torch.testing.assert_close(negative_euclidean(query, key), -squares.sqrt())
    # q^T W = (3, 6 - 4) = (3, 2) and (1, 2): W is not symmetric, so that q^T W^T k would differ
    torch.testing.assert_close(bilinear(query, key, WEIGHT), torch.tensor([[18.0, -4.0, 17.0], [10.0, -4.0, 11.0]]))


def test_a_new_bilinear_is_the_scaled_dot_product_and_draws_nothing():
    before = torch.get_rng_state()
    module = Bilinear(16)
    assert torch.equal(torch.get_rng_state(), before)
    query, key = torch.randn(3, 16), torch.randn(5, 16)
    torch.testing.assert_close(module(query, key), query @ key.T / 4)


@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 5), st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_permutation_and_symmetry(n, m, d, seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(n, d, generator=generator, dtype=torch.float64)
    key = torch.randn(m, d, generator=generator, dtype=torch.float64)
    rows, columns = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
    for similarity in ALL.values():
        matrix = similarity(query, key)
        assert matrix.shape == (n, m)
        torch.testing.assert_close(similarity(query[rows], key[columns]), matrix[rows][:, columns])
        torch.testing.assert_close(similarity(key, query), matrix.T)
    torch.testing.assert_close(cosine(3 * query, 0.1 * key), cosine(query, key))
    assert cosine(query, key).abs().max() <= 1 + 1e-12


@each
def test_gradient_in_float64(similarity):
    query = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    key = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(similarity, (query, key))


def test_gradient_of_bilinear_weight():
    query, key = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w: bilinear(query, key, w), torch.randn(3, 3).double().requires_grad_())


@each
def test_gradient_is_finite_at_coincident_and_zero_points(similarity):
    query = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    key = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    matrix = similarity(query, key)
    matrix.sum().backward()
    for tensor in (matrix, query.grad, key.grad):
        assert tensor.isfinite().all() and tensor.abs().max() < 10


def test_zero_vector_under_cosine():
    query = torch.zeros(1, 3, requires_grad=True)
    similarity = cosine(query, torch.randn(4, 3))
    assert torch.equal(similarity, torch.zeros(1, 4))
    assert torch.autograd.grad(similarity.sum(), query)[0].abs().max() < 1e-12


@each
def test_float32_under_autocast_and_for_half_inputs(similarity):
    query, key = torch.randn(8, 64), torch.randn(8, 64)
    exact = similarity(query.double(), key.double())
    assert exact.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (query @ key.T).dtype == torch.bfloat16  # autocast is on
        inside = similarity(query, key)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside.double(), exact, rtol=1e-5, atol=1e-4)  # bfloat16 would be off by 1e-2
    half = similarity(query.bfloat16(), key)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, similarity(query.bfloat16().float(), key))


def test_small_distances_keep_their_digits():
    query = torch.full((30, 8), 100.0)
    key = query + torch.linspace(0, 0.01, 30).unsqueeze(1)
    exact = -(query.double().unsqueeze(1) - key.double()).norm(dim=2)
    torch.testing.assert_close(negative_euclidean(query, key).double(), exact, rtol=1e-6, atol=1e-9)


@each
@pytest.mark.parametrize(("a", "b"), [((3, 4), (3, 5)), ((4,), (3, 4)), ((2, 3, 4), (3, 4))])
def test_wrong_shapes_name_both(similarity, a, b):
    with pytest.raises(ValueError) as error:
        similarity(torch.zeros(a), torch.zeros(b))
    assert str(a) in str(error.value) and str(b) in str(error.value)


def test_wrong_bilinear():
    with pytest.raises(ValueError, match=r"weight \(3, 3\) for these features, got \(2, 2\)"):
        bilinear(torch.zeros(1, 3), torch.zeros(1, 3), WEIGHT)
    with pytest.raises(ValueError, match="dim of Bilinear must be a whole number >= 1, got 0"):
        Bilinear(0)
