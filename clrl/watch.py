"""Make sure that what we attach to a model is there while it updates, and at no other time.

Stable-Baselines3 tells a callback when training starts and ends, but not that `learn` raised, nor that a later `learn`
runs without it. So a model that meets one of our callbacks gets another class: its algorithm's, with `train` wrapped,
so that hooks are attached when `train` begins and are gone when it ends, by return or by exception. (PyTorch's
`parametrize` and FSDP2 replace a module's class in the same way.) Nothing is added to the model's `__dict__`, which
`save` would write to disk; name, module and `isinstance` stay as they were, and copies and pickles are of the
algorithm's own class.
"""

import functools
import types
import warnings
import weakref
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm

Kind = TypeVar("Kind")


class Attachment(Protocol):
    """A callback whose hooks live while the model updates."""

    def attached(self, model: BaseAlgorithm) -> AbstractContextManager[None] | None:
        """A context in which the hooks are there, or None if the current `learn` runs without this callback."""
        ...


class Watch:
    """The attachments one model has met, by weak reference, with their kind and what each is called in a warning."""

    def __init__(self) -> None:
        self._met: list[tuple[weakref.ref[Attachment], type, str]] = []
        self._warned_at: Any = None

    def add(self, attachment: Attachment, description: str) -> None:
        """Remember an attachment; one that is known already is not added again."""
        if not any(met() is attachment for met, *_ in self._met):
            kind = type(attachment)  # a successor takes the place of those of its kind that are gone
            self._met = [entry for entry in self._met if entry[0]() is not None or entry[1] is not kind]
            self._met.append((weakref.ref(attachment), kind, description))

    def of_kind(self, kind: type) -> int:
        """How many attachments of a kind the model has met and are still in use."""
        return sum(met() is not None and known is kind for met, known, _ in self._met)

    def in_use(self, kind: type[Kind]) -> list[Kind]:
        """The attachments of a kind that are still in use."""
        return [found for met, *_ in self._met if isinstance(found := met(), kind)]

    def during_update(self, model: BaseAlgorithm) -> ExitStack:
        """Attach all that take part in the current `learn`; warn once a `learn` of a kind of which none does."""
        present, missing = set(), {}
        with ExitStack() as stack:
            for met, kind, description in self._met:
                attachment = met()
                context = None if attachment is None else attachment.attached(model)
                if context is None:
                    missing[kind] = description
                else:
                    stack.enter_context(context)
                    present.add(kind)
            lost = [description for kind, description in missing.items() if kind not in present]
            if lost and self._warned_at != model.start_time:
                self._warned_at = model.start_time
                warnings.warn(
                    f"this model was trained with {' and '.join(lost)} and goes on without: "
                    "pass the callback to learn() again to keep it",
                    UserWarning,
                    stacklevel=4,
                )
            return stack.pop_all()


_WATCHES: weakref.WeakKeyDictionary[BaseAlgorithm, Watch] = weakref.WeakKeyDictionary()


def watch(model: BaseAlgorithm, attachment: Attachment, description: str) -> None:
    """From now on attach `attachment` whenever the model updates (idempotent).

    Args:
        model: any algorithm that updates in a method `train`, as Stable-Baselines3's do.
        attachment: what to attach.
        description: what a warning calls it.

    Raises:
        ValueError: the algorithm has no method `train`.
    """
    if not hasattr(model, "train"):
        raise ValueError(f"a model must update in a method train() to be attached to, got {type(model).__name__}")
    if model not in _WATCHES:
        _WATCHES[model] = Watch()
        if not hasattr(type(model), "_contraux_watched"):
            model.__class__ = _watched_class(type(model))
    _WATCHES[model].add(attachment, description)


def peers(model: BaseAlgorithm, attachment: Attachment) -> int:
    """How many attachments of this kind the model has, this one included."""
    return _WATCHES[model].of_kind(type(attachment))


def attachments(model: BaseAlgorithm, kind: type[Kind]) -> list[Kind]:
    """Return the attachments of a kind that the model has met and are still in use."""
    return [] if model not in _WATCHES else _WATCHES[model].in_use(kind)


def _blank(algorithm: type[BaseAlgorithm]) -> BaseAlgorithm:
    return algorithm.__new__(algorithm)


@functools.cache
def _watched_class(algorithm: type[BaseAlgorithm]) -> type[BaseAlgorithm]:
    """The algorithm's `train` with every attachment of the model in place, and nothing else changed."""

    def train(self: BaseAlgorithm, *args: Any, **kwargs: Any) -> Any:
        known = _WATCHES.get(self)
        with ExitStack() if known is None else known.during_update(self):
            return algorithm.train(self, *args, **kwargs)  # type: ignore[attr-defined]

    def reduce(self: BaseAlgorithm, protocol: Any) -> Any:
        plain: tuple[Any, ...] = algorithm.__reduce_ex__(self, protocol)  # type: ignore[assignment]
        return (_blank, (algorithm,), *plain[2:])

    namespace = {
        "_contraux_watched": True,
        "train": functools.wraps(algorithm.train)(train),  # type: ignore[attr-defined]
        "__reduce_ex__": reduce,
        "__module__": algorithm.__module__,
        "__qualname__": algorithm.__qualname__,
        "__doc__": algorithm.__doc__,
    }
    return types.new_class(algorithm.__name__, (algorithm,), exec_body=lambda body: body.update(namespace))
