"""Where labels come from: an emulator's RAM, an info key, a leaf of the observation, or the environment itself.

Shape legend: E environments, V variables.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from .variables import Variable, ram_variables, vector_variables

KINDS = ("ram", "info.KEY", "observation.LEAF", "attribute.PATH")


class Labels:
    """Reads the state that belongs to the observation which environments have just returned.

    Args:
        what: `ram`, `info.KEY`, `observation.LEAF` or `attribute.PATH` (of the unwrapped environment, dots allowed).
        env: environments stepped in this process.
        id: the environment's Gymnasium id, which names the game for `ram`.

    Attributes:
        variables: the variables, in the order of what :meth:`read` returns; known from the first reading on.
        leaf: the leaf of the observation that is the label, which no encoder may see; None for other kinds.

    Raises:
        ValueError: `what` is none of these, or the environment has no emulator or no such leaf.
    """

    def __init__(self, what: str, env: VecEnv, id: str) -> None:
        kind, _, self.name = str(what).partition(".")
        if (kind == "ram") == bool(self.name) or kind not in ("ram", "info", "observation", "attribute"):
            raise ValueError(f"labels must be one of {', '.join(KINDS)}, got {what!r}")
        self.kind, self.env = kind, env
        self.variables: list[Variable] = ram_variables(id) if kind == "ram" else []
        self.leaf = self.name if kind == "observation" else None
        if kind == "ram" and any(getattr(one, "ale", None) is None for one in self._unwrapped()):
            raise ValueError(f"labels=ram needs an Atari emulator, which {id} has not: give labels=info.KEY or another")
        if self.leaf is not None:
            space = env.observation_space
            leaves = list(space.spaces) if isinstance(space, spaces.Dict) else []
            if self.leaf not in leaves or len(leaves) < 2:
                raise ValueError(
                    f"labels=observation.LEAF must name one of several leaves of the observation, got {self.leaf!r} "
                    f"for {', '.join(leaves) or space}"
                )

    def read(self, observations: Any, infos: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return `(E, V)` of the present state: uint8 bytes of RAM, or float64.

        Args:
            observations: what the environments have just returned.
            infos: that belong to these observations; of a reset, where an episode has just begun.

        Raises:
            ValueError: there is no such key or attribute, or it holds no numbers.
        """
        if self.kind == "ram":
            bytes_ = [variable.entry for variable in self.variables]
            return np.stack([one.ale.getRAM()[bytes_] for one in self._unwrapped()])
        if self.kind == "observation":
            rows = list(observations[self.name])
        elif self.kind == "info":
            missing = [info for info in infos if self.name not in info]
            if missing:
                raise ValueError(
                    f"labels=info.{self.name} needs that key in the info of every reset and step, "
                    f"found {sorted(missing[0])}"
                )
            rows = [info[self.name] for info in infos]
        else:
            try:
                rows = [attrgetter(self.name)(one) for one in self._unwrapped()]
            except AttributeError as error:
                raise ValueError(f"labels=attribute.{self.name} is no attribute of the environment: {error}") from error
        try:
            read = np.stack([np.asarray(row, dtype=np.float64).reshape(-1) for row in rows])
        except (TypeError, ValueError) as error:
            raise ValueError(f"labels must be numbers, and of one size, which {self.name!r} is not: {error}") from error
        if not self.variables:
            self.variables = vector_variables(self.name.rpartition(".")[2], read.shape[1])
        return read

    def _unwrapped(self) -> list[Any]:
        return self.env.get_attr("unwrapped")


def visible(space: spaces.Space[Any], label: str | None) -> tuple[spaces.Space[Any], str | None]:
    """Return the observation space without the leaf that is the label.

    Returns:
        The space; and the name of the only leaf that is left, which then stands by itself, or None.
    """
    if label is None or not isinstance(space, spaces.Dict):
        return space, None
    rest = {name: own for name, own in space.spaces.items() if name != label}
    if len(rest) > 1:
        return spaces.Dict(rest), None
    (name,) = rest
    return rest[name], name
