"""Agents that carry their auxiliary: an algorithm whose constructor takes one and whose save and load keep it."""

import functools
import io
import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import nn

from ..clrl import ContrastiveAuxiliary, sidecar
from ..clrl.discovery import choose_encoders

Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)
_ENTRY = "auxiliary.safetensors"


@functools.cache
def with_auxiliary(algorithm: type[Algorithm]) -> type[Algorithm]:
    """A subclass of any Stable-Baselines3 or sb3-contrib algorithm that trains with a contrastive auxiliary.

    Its constructor takes one more keyword, `auxiliary`: a preset's name, a
    :class:`~contraux.clrl.ContrastiveAuxiliary`, or None for the plain algorithm. `save` puts the auxiliary's state
    into the model's zip file, as a safetensors entry that Stable-Baselines3 itself passes over, and writes the file
    atomically; `load` takes it from there. The same algorithm gives the same class.

    Args:
        algorithm: the class to extend, e.g. `PPO`.

    Raises:
        TypeError: `algorithm` is not a Stable-Baselines3 algorithm class.
    """
    if not (isinstance(algorithm, type) and issubclass(algorithm, BaseAlgorithm)):
        raise TypeError(f"algorithm must be a Stable-Baselines3 algorithm class, got {algorithm!r}")

    class WithAuxiliary(algorithm):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, auxiliary: str | ContrastiveAuxiliary | None = "temporal", **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.auxiliary = _as_auxiliary(auxiliary)
            if self.auxiliary is not None and kwargs.get("_init_setup_model", True):
                choose_encoders(self, self.auxiliary.encoder)  # a model without an encoder is told so now

        def learn(self, total_timesteps: int, callback: MaybeCallback = None, *args: Any, **kwargs: Any) -> Any:
            """Train with the auxiliary; `callback` and what follows are Stable-Baselines3's."""
            callbacks = _as_list(callback)
            if self.auxiliary is not None and self.auxiliary not in callbacks:
                callbacks = [self.auxiliary, *callbacks]
            return super().learn(total_timesteps, callbacks or None, *args, **kwargs)

        def _excluded_save_params(self) -> list[str]:
            return [*super()._excluded_save_params(), "auxiliary"]

        def save(
            self,
            path: str | os.PathLike[str] | io.BufferedIOBase,
            exclude: Iterable[str] | None = None,
            include: Iterable[str] | None = None,
        ) -> None:
            """Save model and auxiliary in one zip file, atomically where `path` is a path."""
            if isinstance(path, io.BufferedIOBase):
                super().save(path, exclude, include)
                _append(path, self.auxiliary)
                return
            target = Path(path)
            target = target if target.suffix else target.with_suffix(".zip")
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
            try:
                with open(beside, "w+b") as file:
                    super().save(file, exclude, include)
                    _append(file, self.auxiliary)
                os.replace(beside, target)
            finally:
                beside.unlink(missing_ok=True)

        @classmethod
        def load(
            cls,
            path: Any,
            *args: Any,
            auxiliary: Any = _ENTRY,
            objective: nn.Module | None = None,
            trusted: bool = False,
            **kwargs: Any,
        ) -> Any:
            """Load model and auxiliary; pass `auxiliary` (or None) to use another than the saved one.

            `objective` and `trusted` are those of :meth:`~contraux.clrl.ContrastiveAuxiliary.load`.
            """
            model = super().load(path, *args, **kwargs)
            saved = auxiliary is _ENTRY
            model.auxiliary = _extract(path, objective, trusted) if saved else _as_auxiliary(auxiliary)
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


def _append(file: Any, auxiliary: ContrastiveAuxiliary | None) -> None:
    """Add the auxiliary to a model's zip file; one that was never part of `learn` has only its settings to keep."""
    if auxiliary is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        entry = Path(folder) / _ENTRY
        sidecar.write(entry, *auxiliary.state())
        with zipfile.ZipFile(file, "a") as archive:
            archive.write(entry, _ENTRY)


def _extract(path: Any, objective: nn.Module | None, trusted: bool) -> ContrastiveAuxiliary | None:
    if not isinstance(path, io.BufferedIOBase) and not Path(path).exists():
        path = Path(path).with_name(Path(path).name + ".zip")  # as Stable-Baselines3 looks for it
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        if _ENTRY not in archive.namelist():
            return None
        state = sidecar.read(Path(archive.extract(_ENTRY, folder)))
    return ContrastiveAuxiliary.from_state(*state, objective=objective, trusted=trusted)
