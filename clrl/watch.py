"""Make sure that what we attach to a model is there while it updates, and at no other time.

Stable-Baselines3 tells a callback when training starts and ends, but not that `learn` raised, nor that a later `learn`
runs without it. So a model that meets one of our callbacks gets a class of its own, its algorithm's class with `train`
wrapped: hooks are attached when `train` begins and are gone when it ends, by return or by exception. (PyTorch's
`parametrize` and FSDP2 give a module a class of its own in the same way.) Nothing is added to the model's `__dict__`,
which `save` would write to disk; name, module and `isinstance` stay as they were.
"""

import functools
import types
import warnings
import weakref
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

from stable_baselines3.common.base_class import BaseAlgorithm


class Attachment(Protocol):
    """A callback whose hooks live while the model updates."""

    def attached(self, model: BaseAlgorithm) -> AbstractContextManager[None] | None:
        """A context in which the hooks are there, or None if the current `learn` runs without this callback."""
        ...


class Watch:
    """The attachments one model has met, by weak reference, with what each is called in a warning."""

    def __init__(self) -> None:
        self._met: list[tuple[weakref.ref[Attachment], str]] = []
        self._warned_at: Any = None

    def add(self, attachment: Attachment, description: str) -> None:
        """Remember an attachment; one that is known already is not added again."""
        if not any(met() is attachment for met, _ in self._met):
            self._met = [(met, text) for met, text in self._met if met() is not None]  # a successor replaces the dead
            self._met.append((weakref.ref(attachment), description))

    def during_update(self, model: BaseAlgorithm) -> ExitStack:
        """Attach all that take part in the current `learn`; warn once a `learn` if none of those met does."""
        stack = ExitStack()
        missing = []
        for met, description in self._met:
            attachment = met()
            context = None if attachment is None else attachment.attached(model)
            if context is None:
                missing.append(description)
            else:
                stack.enter_context(context)
        if missing and len(missing) == len(self._met) and self._warned_at != model.start_time:
            self._warned_at = model.start_time
            warnings.warn(
                f"this model was trained with {', '.join(missing)} and goes on without: "
                "pass the callback to learn() again to keep it",
                UserWarning,
                stacklevel=4,
            )
        return stack


def watch(model: BaseAlgorithm, attachment: Attachment, description: str) -> None:
    """From now on attach `attachment` whenever the model updates (idempotent).

    Args:
        model: any algorithm that updates in a method `train`, as Stable-Baselines3's do.
        attachment: what to attach.
        description: what a warning calls it.
    """
    known: Watch | None = getattr(type(model), "_watch", None)
    if known is None:
        known = Watch()
        model.__class__ = _watched_class(type(model), known)
    known.add(attachment, description)


def _watched_class(algorithm: type[BaseAlgorithm], the_watch: Watch) -> type[BaseAlgorithm]:
    """A subclass for one model: the algorithm's `train` with every attachment in place, and nothing else changed."""

    def train(self: BaseAlgorithm, *args: Any, **kwargs: Any) -> Any:
        with the_watch.during_update(self):
            return algorithm.train(self, *args, **kwargs)  # type: ignore[attr-defined]

    namespace = {
        "_watch": the_watch,
        "train": functools.wraps(algorithm.train)(train),  # type: ignore[attr-defined]
        "__module__": algorithm.__module__,
        "__qualname__": algorithm.__qualname__,
        "__doc__": algorithm.__doc__,
    }
    return types.new_class(algorithm.__name__, (algorithm,), exec_body=lambda body: body.update(namespace))
