"""The few validators that constructors share; each raises a ValueError that states the rule and the value found."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


def number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False
) -> float:
    """Return `value` as a float if it is a finite number in the range.

    Args:
        name: how the sentence calls it.
        value: what the user gave; bool is not a number here.
        low: smallest value allowed; with `above` the value must be larger than it.
        high: largest value allowed; with `below` the value must be smaller than it.
        above: exclude `low` itself.
        below: exclude `high` itself.

    Raises:
        ValueError: for example `temperature must be a number > 0, got -1.0`.
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    if real:
        found = float(value)
        in_range = (found > low if above else found >= low) and (found < high if below else found <= high)
        if in_range and math.isfinite(found):
            return found
    finite = "finite " if real and not math.isfinite(value) else ""
    raise ValueError(f"{name} must be a {finite}number{_range(low, high, above, below)}, got {value!r}")


def whole(name: str, value: Any, low: int = 0) -> int:
    """Return `value` as an int if it is a whole number >= `low` (bool is not).

    Raises:
        ValueError: for example `pad must be a whole number >= 1, got 0`.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= low:
        return int(value)
    raise ValueError(f"{name} must be a whole number >= {low}, got {value!r}")


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`, otherwise name the nearest ones first.

    Raises:
        ValueError: for example `unknown preset 'crul': did you mean curl? There are: atc, curl, temporal`.
    """
    known = sorted(options)
    if isinstance(value, str) and value in known:
        return value
    near = get_close_matches(str(value), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"unknown {name} {value!r}: {hint}There are: {', '.join(known)}")


def shape(tensor: Any) -> str:
    """Return a tensor's shape as `(64, 128)`, for sentences."""
    return str(tuple(tensor.shape))


def _range(low: float, high: float, above: bool, below: bool) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f" {'>' if above else '>='} {low:g}"
    if math.isinf(low):
        return f" {'<' if below else '<='} {high:g}"
    return f" in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
