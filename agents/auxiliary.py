"""Agents that carry their auxiliary: an algorithm whose constructor takes one and whose save and load keep it."""

import functools
import io
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor, nn

from ..clrl import ContrastiveAuxiliary, sidecar
from ..clrl.discovery import choose_encoders
from ..clrl.exploration import NoveltyBonus

Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)
_ENTRY = "auxiliary.safetensors"
_BONUS_ENTRY = "exploration.safetensors"


@functools.cache
def with_auxiliary(algorithm: type[Algorithm]) -> type[Algorithm]:
    """A subclass of any Stable-Baselines3 or sb3-contrib algorithm that trains with a contrastive auxiliary.

    Its constructor takes two more keywords. `auxiliary` is a preset's name, a
    :class:`~contraux.clrl.ContrastiveAuxiliary`, or None for none. `exploration` is a
    :class:`~contraux.clrl.exploration.NoveltyBonus`, its name, or None. `save` puts the state of both into the model's
    zip file, as safetensors entries that Stable-Baselines3 itself passes over, and writes the file atomically; `load`
    takes them from there. The same algorithm gives the same class.

    Args:
        algorithm: the class to extend, e.g. `PPO`.

    Raises:
        TypeError: `algorithm` is not a Stable-Baselines3 algorithm class.
    """
    if not (isinstance(algorithm, type) and issubclass(algorithm, BaseAlgorithm)):
        raise TypeError(f"algorithm must be a Stable-Baselines3 algorithm class, got {algorithm!r}")

    class WithAuxiliary(algorithm):  # type: ignore[misc, valid-type]
        def __init__(
            self,
            *args: Any,
            auxiliary: str | ContrastiveAuxiliary | None = "temporal",
            exploration: str | NoveltyBonus | None = None,
            **kwargs: Any,
        ):
            super().__init__(*args, **kwargs)
            self.auxiliary = _as_auxiliary(auxiliary)
            self.exploration = _as_bonus(exploration)
            if self.auxiliary is not None and kwargs.get("_init_setup_model", True):
                choose_encoders(self, self.auxiliary.encoder)  # a model without an encoder is told so now

        def learn(self, total_timesteps: int, callback: MaybeCallback = None, *args: Any, **kwargs: Any) -> Any:
            """Train with auxiliary and bonus; `callback` and what follows are Stable-Baselines3's."""
            callbacks = _as_list(callback)
            own = [one for one in (self.auxiliary, self.exploration) if one is not None and one not in callbacks]
            return super().learn(total_timesteps, [*own, *callbacks] or None, *args, **kwargs)

        def _excluded_save_params(self) -> list[str]:
            return [*super()._excluded_save_params(), "auxiliary", "exploration"]

        def save(
            self,
            path: str | os.PathLike[str] | io.BufferedIOBase,
            exclude: Iterable[str] | None = None,
            include: Iterable[str] | None = None,
        ) -> None:
            """Save model, auxiliary and bonus in one zip file, atomically where `path` is a path."""
            if isinstance(path, io.BufferedIOBase):
                super().save(path, exclude, include)
                _append(path, self.auxiliary, self.exploration)
                return
            target = Path(path)
            target = target if target.suffix else target.with_suffix(".zip")
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
            try:
                with open(beside, "w+b") as file:
                    super().save(file, exclude, include)
                    _append(file, self.auxiliary, self.exploration)
                os.replace(beside, target)
            finally:
                beside.unlink(missing_ok=True)

        @classmethod
        def load(
            cls,
            path: Any,
            *args: Any,
            auxiliary: Any = _ENTRY,
            exploration: str | NoveltyBonus | None = None,
            objective: nn.Module | None = None,
            trusted: bool = False,
            **kwargs: Any,
        ) -> Any:
            """Load model and auxiliary; pass `auxiliary` (or None) to use another than the saved one.

            A bonus is made anew, as it was for the saved model, and passed as `exploration`: it takes over the saved
            state. `objective` and `trusted` are those of :meth:`~contraux.clrl.ContrastiveAuxiliary.load`.
            """
            model = super().load(path, *args, **kwargs)
            saved = auxiliary is _ENTRY
            model.auxiliary = _extract(path, objective, trusted) if saved else _as_auxiliary(auxiliary)
            model.exploration = _as_bonus(exploration)
            state = _entry(path, _BONUS_ENTRY)
            if state is not None and model.exploration is not None:
                model.exploration.load_state(state)
            elif state is not None:
                warnings.warn(
                    "this model was saved with a novelty bonus and is loaded without: pass it as exploration to go on",
                    UserWarning,
                    stacklevel=2,
                )
            return model

    WithAuxiliary.__name__ = WithAuxiliary.__qualname__ = f"Contrastive{algorithm.__name__}"
    WithAuxiliary.__module__ = __package__  # where the ready-made ones are found by pickle
    WithAuxiliary.__doc__ = (
        f"{algorithm.__name__} with a contrastive auxiliary (keyword `auxiliary`), which save and load keep.\n\n"
        f"{algorithm.__doc__ or ''}"
    )
    return WithAuxiliary


def _as_auxiliary(auxiliary: Any) -> ContrastiveAuxiliary | None:
    if isinstance(auxiliary, str):
        return ContrastiveAuxiliary(auxiliary)
    if auxiliary is not None and not isinstance(auxiliary, ContrastiveAuxiliary):
        raise ValueError(f"auxiliary must be a preset's name, a ContrastiveAuxiliary or None, got {auxiliary!r}")
    return auxiliary


def _as_list(callback: MaybeCallback) -> list[BaseCallback]:
    if callback is None:
        return []
    given = callback if isinstance(callback, list) else [callback]
    return [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in given]


def _as_bonus(exploration: Any) -> NoveltyBonus | None:
    if isinstance(exploration, str):
        return NoveltyBonus(exploration)
    if exploration is not None and not isinstance(exploration, NoveltyBonus):
        raise ValueError(f"exploration must be a bonus's name, a NoveltyBonus or None, got {exploration!r}")
    return exploration


def _append(file: Any, auxiliary: ContrastiveAuxiliary | None, exploration: NoveltyBonus | None) -> None:
    """Add auxiliary and bonus to a model's zip file; one that was never part of `learn` has no more than settings."""
    parts = {_ENTRY: auxiliary, _BONUS_ENTRY: exploration}
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts.items():
            if part is not None:
                sidecar.write(Path(folder) / name, *part.state())
                with zipfile.ZipFile(file, "a") as archive:
                    archive.write(Path(folder) / name, name)


def _extract(path: Any, objective: nn.Module | None, trusted: bool) -> ContrastiveAuxiliary | None:
    state = _entry(path, _ENTRY)
    return None if state is None else ContrastiveAuxiliary.from_state(*state, objective=objective, trusted=trusted)


def _entry(path: Any, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `_append` put into a model's zip file under a name, if anything."""
    if not isinstance(path, io.BufferedIOBase) and not Path(path).exists():
        path = Path(path).with_name(Path(path).name + ".zip")  # as Stable-Baselines3 looks for it
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        return sidecar.read(Path(archive.extract(name, folder))) if name in archive.namelist() else None
