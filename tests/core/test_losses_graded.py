"""Graded InfoNCE by hand: what grades do that shares do not."""

import math

import torch

from contraux.core.losses import graded_info_nce, info_nce


def test_by_hand():
    similarity = torch.zeros(2, 3, dtype=torch.float64)
    positive = torch.tensor([[0.5, 0.25, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    # log 3 for either positive, times 0.5 and 0.25, mean of both; the second query has none.
    expected = torch.tensor(0.375 * math.log(3), dtype=torch.float64)
    torch.testing.assert_close(graded_info_nce(similarity, positive, temperature=1.0), expected)
    torch.testing.assert_close(info_nce(similarity, positive, temperature=1.0), expected / 0.375)


def test_grades_of_one_are_info_nce():
    similarity, mask = torch.randn(4, 6), torch.rand(4, 6) > 0.5
    torch.testing.assert_close(graded_info_nce(similarity, mask.float()), info_nce(similarity, mask))
    torch.testing.assert_close(graded_info_nce(similarity, mask), info_nce(similarity, mask))


def test_a_grade_scales_gradients_and_its_own_gradient_is_the_loss():
    similarity = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    grade = torch.tensor([[0.0, 0.3, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    graded = graded_info_nce(similarity, grade, temperature=0.5)
    plain = info_nce(similarity, torch.tensor([1]), temperature=0.5)
    (by_graded, by_grade) = torch.autograd.grad(graded, (similarity, grade))
    (by_plain,) = torch.autograd.grad(plain, similarity)
    torch.testing.assert_close(by_graded, 0.3 * by_plain)
    torch.testing.assert_close(by_grade[0, 1], plain)
