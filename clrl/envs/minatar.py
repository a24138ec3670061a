"""MinAtar: five Atari games on a 10 x 10 grid, fast enough for a laptop (Young and Tian 2019, arXiv:1903.03176)."""

import difflib
from typing import Any

import gymnasium

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")


def minatar(game: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Return a MinAtar game; its observation is `(10, 10, C)` bool, a channel for each kind of object.

    The package's own Gymnasium environment, with the actions that have an effect in the game (its `-v1` ids).

    Args:
        game: `asterix`, `breakout`, `freeway`, `seaquest` or `space_invaders`.
        kwargs: what `minatar.Environment` takes, e.g. `sticky_action_prob=0.1`, `difficulty_ramping=True`.

    Raises:
        ValueError: MinAtar is not installed, or has no such game.
    """
    if game not in GAMES:
        near = difflib.get_close_matches(str(game), GAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"game must be one of {', '.join(GAMES)}, got {game!r}: the nearest is {near}")
    try:
        from minatar.gym import BaseEnv
    except ImportError as error:
        raise ValueError("MinAtar needs minatar, which is not installed: pip install 'contraux[minatar]'") from error
    env: gymnasium.Env[Any, Any] = BaseEnv(game, use_minimal_action_set=True, **kwargs)
    return env
