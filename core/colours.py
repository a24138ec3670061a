"""Colours and lines of pictures."""

from typing import TypedDict

# Okabe and Ito's colours, told apart with any colour vision; line styles tell curves apart that lie on each other.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
STYLES = ("-", "--", ":", "-.")


class Line(TypedDict):
    """What Matplotlib's `plot` takes."""

    color: str
    linestyle: str


def line(i: int) -> Line:
    """Return how the curve of number `i` >= 0 is drawn; no two of the first 32 are drawn alike."""
    turn = i // len(COLOURS)  # curves of one colour get another style each
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[(i + turn) % len(STYLES)]}
