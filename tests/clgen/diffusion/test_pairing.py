"""Which rows of a batch are second views."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contraux.clgen.diffusion import paired_batch, second_views
from contraux.clgen.diffusion.pairing import same_image


def test_by_hand():
    assert paired_batch(32, 1.0) == (16, 16)
    assert paired_batch(30, 0.5) == (20, 10)
    assert paired_batch(30, 0.25) == (24, 6)
    assert paired_batch(32, 0.0) == (32, 0)
    assert paired_batch(33, 1.0) == (17, 16)
    assert paired_batch(1, 1.0) == (1, 0)
    assert second_views(6, 0.5).tolist() == [0, 1, 2, 3, 0, 1]
    assert second_views(4, 0).tolist() == [0, 1, 2, 3]


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 300), share=st.floats(0, 1))
def test_the_batch_stays_full_and_no_image_comes_three_times(rows, share):
    images, seconds = paired_batch(rows, share)
    assert images + seconds == rows
    assert seconds <= images * share + 1e-6  # never more than asked for
    assert images * share - seconds < 2  # nor a whole row and its rounding less
    source = second_views(rows, share)
    counts = torch.bincount(source, minlength=images)
    assert len(counts) == images and counts.min() >= 1 and counts.max() <= 2
    assert int((counts == 2).sum()) == seconds


def test_same_image_knows_nothing_of_negative_identities():
    found = same_image(torch.tensor([3, -1, 3, -1, 0]))
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[0, 0] = expected[0, 2] = expected[2, 0] = expected[2, 2] = expected[4, 4] = True
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("rows", "share"), [(0, 0.5), (8, 1.5), (8, -0.1), (8, float("nan"))])
def test_numbers_out_of_range(rows, share):
    with pytest.raises(ValueError, match=r"must be a"):
        paired_batch(rows, share)
