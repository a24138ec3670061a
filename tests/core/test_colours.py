"""Curves of one picture are told apart."""

from contraux.core.colours import line


def test_no_two_curves_are_drawn_alike():
    assert len({tuple(line(i).values()) for i in range(32)}) == 32
    assert line(0)["color"] == line(8)["color"] != line(1)["color"]
