"""When a difference over seeds counts as shown: the rule of every comparison, on numbers checked by hand."""

import pytest

from contraux.core.paired import paired


def found(*differences):
    return paired(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))


def test_up_down_and_ties_are_counted():
    difference = found(1.0, 2.0, 0.0, -1.0, 3.0)
    assert (difference.up, difference.down, difference.pairs, difference.mean) == (3, 1, 5, 1.0)


@pytest.mark.parametrize(
    ("differences", "finding"),
    [
        ((1.0, 2.0, 3.0, 4.0), "too few seeds to tell"),
        ((1.0, 2.0, 3.0, 4.0, 5.0), "higher"),
        ((-1.0, -2.0, -3.0, -4.0, -5.0), "lower"),
        ((5.0, 5.0, 5.0, 5.0, -0.1), "higher"),  # four of five are 80 %
        ((-5.0, -5.0, -5.0, -5.0, 0.1), "lower"),
        ((5.0, 5.0, 5.0, -0.1, -0.1), "no difference shown, the seeds disagree"),  # although the interval is above 0
        ((-5.0, -5.0, -5.0, 0.0, 0.0), "no difference shown, the seeds disagree"),  # a tie agrees with neither
        ((9.0, -1.0, -1.0, -1.0, -1.0), "no difference shown"),  # one good seed of five
    ],
)
def test_a_finding_needs_the_interval_and_the_seeds(differences, finding):
    assert found(*differences).finding == finding


def test_three_of_five_seeds_alone_move_the_interval():
    assert found(5.0, 5.0, 5.0, -0.1, -0.1).low > 0
    assert found(-5.0, -5.0, -5.0, 0.0, 0.0).high < 0
