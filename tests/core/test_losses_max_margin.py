import math

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from contraux.core import two_view_pairs
from contraux.core.losses import max_margin
from contraux.core.similarity import cosine, dot, negative_euclidean


def support_vectors(kernel, query, negatives, c, ridge):
    """The quadratic program as a bounded least squares problem, which SciPy solves with an active set."""
    k = kernel.numpy()
    y = np.array(negatives)
    gram = k[query, query] + k[np.ix_(y, y)] - k[query, y][None] - k[query, y][:, None] + ridge * np.eye(len(y))
    factor = np.linalg.cholesky(gram)
    target = np.linalg.solve(factor, np.full(len(y), 2.0))
    return lsq_linear(factor.T, target, bounds=(0, c), method="bvls", tol=1e-14).x


def reference(kernel, positives, negatives, c, ridge):
    losses = []
    for i, (ps, ns) in enumerate(zip(positives, negatives, strict=True)):
        alpha = support_vectors(kernel, i, ns, c, ridge) if ns else []
        for_each = [
            sum(a * kernel[p, n].item() for a, n in zip(alpha, ns, strict=True)) - sum(alpha) * kernel[p, i].item()
            for p in ps
        ]
        losses.append(sum(for_each) / len(ps))
    return sum(losses) / len(losses)


def clusters(n, d, noise, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, d, generator=generator, dtype=torch.float64)[torch.arange(n) % 3]
    views = [centres + noise * torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2)]
    return two_view_pairs(*views)


def test_one_negative_by_hand():
    # rows x, z, y with z the positive of x; all distances are given through cosines, temperature 1:
    # |x - z|^2 = 2 ln 2 / 2, so that K(x, z) = 1/2, K(x, y) = 1/4, K(z, y) = 1/8
    similarity = torch.ones(3, 3, dtype=torch.float64)
    for i, j, k in ((0, 1, 1 / 2), (0, 2, 1 / 4), (1, 2, 1 / 8)):
        similarity[i, j] = similarity[j, i] = 1 + math.log(k) / 2
    positive = torch.zeros(3, 3, dtype=torch.bool)
    positive[0, 1] = True
    # D = 2 - 2/4 = 3/2, alpha = 2 / (3/2 + ridge) = 1, loss = alpha (1/8 - 1/2)
    found = max_margin(similarity, positive, None, 1.0, ridge=0.5)
    assert found.item() == pytest.approx(1 / 8 - 1 / 2, rel=1e-12)
    # alpha stops at c; a weight scales c
    found = max_margin(similarity, positive, None, 1.0, c=0.5, ridge=0.5)
    assert found.item() == pytest.approx(0.5 * (1 / 8 - 1 / 2), rel=1e-12)
    weights = torch.full((3, 3), 0.5, dtype=torch.float64)
    found = max_margin(similarity, positive, weights, 1.0, c=0.5, ridge=0.5)
    assert found.item() == pytest.approx(0.25 * (1 / 8 - 1 / 2), rel=1e-12)
    # to the gradient alpha is a number: d(K(z, y) - K(z, x)) = 2 K ds
    leaf = similarity.clone().requires_grad_()
    gradient = torch.autograd.grad(max_margin(leaf, positive, None, 1.0, ridge=0.5), leaf)[0]
    assert gradient[1].tolist() == pytest.approx([-2 / 2, -1 / 8 + 1 / 2, 2 / 8], rel=1e-9)


@pytest.mark.parametrize(
    ("temperature", "c", "ridge"), [(10.0, 100.0, 0.1), (0.5, 100.0, 0.1), (1.0, 0.4, 0.1), (5.0, 3.0, 1.0)]
)
def test_it_equals_a_solver_of_quadratic_programs(temperature, c, ridge):
    pairs = clusters(6, 5, 0.4)
    kernel = (-(2 - 2 * cosine(pairs.query, pairs.key)) / temperature).exp()
    n = len(kernel)
    positives = [[p] for p in pairs.positive.tolist()]
    negatives = [[j for j in range(n) if j not in (i, p)] for i, (p,) in enumerate(positives)]
    expected = reference(kernel, positives, negatives, c, ridge)
    similarity = cosine(pairs.query, pairs.key)
    found = [
        max_margin(similarity, pairs.positive, None, temperature, c, ridge, steps).item() for steps in (1, 100, 3000)
    ]
    assert found[2] == pytest.approx(expected, rel=1e-6)
    assert found[1] == pytest.approx(expected, rel=1e-2)  # the default number of steps
    assert abs(found[0] - expected) > abs(found[2] - expected)


def test_several_positives_excluded_pairs_and_queries_without_either():
    pairs = clusters(4, 3, 0.5)
    similarity = cosine(pairs.query, pairs.key)
    kernel = (-(2 - 2 * similarity) / 2.0).exp()
    mask = torch.zeros(8, 8, dtype=torch.bool)
    positives = [[1, 4], [2], [5, 6, 7], [0]]
    for i, row in enumerate(positives):
        mask[i, row] = True
    mask.fill_diagonal_(True)  # ignored
    mask[4:] = torch.eye(8, dtype=torch.bool)[4:]  # so that these have none
    weights = torch.ones(8, 8, dtype=torch.float64)
    weights[0, 2:4] = 0.0
    weights[1] = 0.0
    negatives = [[j for j in range(8) if j != i and j not in positives[i] and weights[i, j] > 0] for i in range(4)]
    assert negatives[1] == []
    expected = reference(kernel, positives, negatives, 100.0, 0.2)
    found = max_margin(similarity, mask, weights, 2.0, ridge=0.2, steps=3000)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_the_kernel_takes_its_distances_from_any_similarity():
    pairs = clusters(5, 4, 0.5)
    unit = torch.nn.functional.normalize(pairs.query)
    value = max_margin(cosine(unit, unit), pairs.positive, None, 2.0)
    torch.testing.assert_close(max_margin(dot(unit, unit), pairs.positive, None, 2.0), value)
    # -|a - b|^2 has itself 0: |a - b|^2 counts twice
    torch.testing.assert_close(max_margin(negative_euclidean(unit, unit, True), pairs.positive, None, 4.0), value)
    wide = max_margin(dot(3 * unit, 3 * unit), pairs.positive, None, 18.0)
    torch.testing.assert_close(wide, value)


def test_descent_parts_positives_from_negatives():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(8, 6, generator=generator).requires_grad_() for _ in range(2))
    optimizer = torch.optim.Adam([a, b], lr=0.05)
    for _ in range(60):
        pairs = two_view_pairs(a, b)
        loss = max_margin(cosine(pairs.query, pairs.key), pairs.positive, None, 1.0, steps=30)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    similarity = cosine(a, b).detach()
    others = similarity[~torch.eye(8, dtype=torch.bool)]
    assert similarity.diagonal().min() > 0.9
    assert others.mean() < 0.05


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"c": 0.0}, "c must be"), ({"ridge": 0}, "ridge must be a number > 0, got 0"), ({"steps": 0}, "steps must be")],
)
def test_wrong_numbers(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        max_margin(torch.eye(3), torch.tensor([1, 2, 0]), **change)
