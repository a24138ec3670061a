"""The variables a probe asks for: the bytes of an Atari game that AtariARI has named, or the entries of a vector."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

import yaml

from ...core.check import choice


class Variable(NamedTuple):
    """One variable of the state.

    Attributes:
        name: such as `ball_x`.
        category: such as `small_object_localization`; figures are also given as means over the variables of one.
        entry: which byte of the RAM, or which entry of the state vector.
    """

    name: str
    category: str
    entry: int


def games() -> list[str]:
    """Return the games whose RAM is annotated, sorted."""
    return sorted(_table())


def game_of(id: str) -> str:
    """Return a game's name in the table: `ALE/MsPacman-v5` and `MsPacmanNoFrameskip-v4` are both `mspacman`."""
    name = re.sub(r"-v\d+$", "", id.rpartition("/")[2])
    return re.sub(r"(-?ram|NoFrameskip|Deterministic)", "", name).lower()


def ram_variables(id: str) -> list[Variable]:
    """Return the annotated bytes of a game.

    Args:
        id: a Gymnasium id.

    Raises:
        ValueError: the game has no annotation; the sentence names the nearest that have.
    """
    table = _table()
    game = choice("game with annotated RAM", game_of(id), table)
    return [
        Variable(name, category, byte) for category, variables in table[game].items() for name, byte in _each(variables)
    ]


def vector_variables(name: str, size: int) -> list[Variable]:
    """Return the entries of a state vector as variables `NAME_0`, `NAME_1`, ..., all of the category `state`."""
    return [Variable(f"{name}_{index}", "state", index) for index in range(size)]


def _each(variables: dict[str, int | list[int]]) -> Iterator[tuple[str, int]]:
    for name, byte in variables.items():
        if isinstance(byte, int):
            yield name, byte
        else:
            yield from ((f"{name}_{i}", one) for i, one in enumerate(byte))


def _table() -> dict[str, dict[str, dict[str, int | list[int]]]]:
    return yaml.safe_load(files(__package__).joinpath("ram_variables.yaml").read_text(encoding="utf-8"))
