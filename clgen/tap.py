"""The hooks that record what modules put out, while somebody wants to know, and otherwise do nothing."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .names import Place, module_at, part


class Tape:
    """What the hooks of one model write to.

    Attributes:
        recording: whether the hooks record.
        stopping: whether what stands behind the stop gets detached inputs.
        records: of each tap what its module put out, call after call.
    """

    def __init__(self, taps: tuple[str, ...]) -> None:
        self.recording = False
        self.stopping = False
        self.records: dict[str, list[Tensor]] = {tap: [] for tap in taps}

    def clear(self) -> None:
        """Forget the records, and with them their graphs."""
        self.records = {tap: [] for tap in self.records}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tape":
        return Tape(tuple(self.records))

    def __reduce__(self) -> tuple[Any, ...]:
        return Tape, (tuple(self.records),)


class Record:
    """A forward hook: puts the output on the tape, and hands on a detached one where the gradient is to stop here.

    A copy of the hooked module, such as an exponential moving average, gets a hook with a tape of its own that nobody
    reads: the copy is inert.
    """

    def __init__(self, tape: Tape, tap: str, place: Place, stops: bool) -> None:
        self.tape, self.tap, self.place, self.stops = tape, tap, place, stops

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Record if the tape does; returning None leaves the output as it is."""
        if not self.tape.recording:
            return None
        self.tape.records[self.tap].append(part(output, self.place))
        return tree_map(_detached, output) if self.stops and self.tape.stopping else None


class Stop:
    """A forward pre-hook: hands detached inputs to its module where the gradient is to stop before it."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Detach if the tape says so; returning None leaves the inputs as they are."""
        if not (self.tape.recording and self.tape.stopping):
            return None
        return tree_map(_detached, args), tree_map(_detached, kwargs)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


class Tap:
    """The hooks on one model; its class, its names and its state_dict stay as they are.

    Args:
        model: the user's module, unwrapped.
        places: of each tap.
        stop_at: module whose inputs are detached while the tape stops gradients; None: behind every tap.

    Raises:
        ValueError: a module that is not there.
    """

    def __init__(self, model: nn.Module, places: Mapping[str, Place], stop_at: str | None = None) -> None:
        self.places = dict(places)
        self.tape = Tape(tuple(places))
        modules = {tap: module_at(model, place.name) for tap, place in places.items()}
        stop = None if stop_at is None else module_at(model, stop_at)
        self._handles = [
            modules[tap].register_forward_hook(Record(self.tape, tap, place, stop is None))
            for tap, place in places.items()
        ]
        if stop is not None:
            self._handles.append(stop.register_forward_pre_hook(Stop(self.tape), with_kwargs=True))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def calls(self) -> list[dict[str, Tensor]]:
        """Return of each call what every tap recorded, and forget it.

        A module that runs several times within a call of the model (an embedding that several blocks share) counts by
        its first time, where another tap says how many calls there were.

        Raises:
            ValueError: a tap recorded nothing, or not as often as the others.
        """
        records = self.tape.records
        self.tape.clear()
        silent = [str(self.places[tap]) for tap, found in records.items() if not found]
        if silent:
            raise ValueError(
                f"the tap at {silent[0]} must fire inside `with aux:`, and did not: call the model there, see that the "
                "call runs this module, and attach before the first call of a compiled model (hooks that come later "
                "are ignored by torch.compile; torch.compiler.reset() makes it look again)"
            )
        count = min(map(len, records.values()))
        for tap, found in records.items():
            if len(found) % count:
                raise ValueError(
                    f"taps must fire equally often, and {self.places[tap]} fired {len(found)} times where another "
                    f"fired {count} times"
                )
        return [{tap: found[i * (len(found) // count)] for tap, found in records.items()} for i in range(count)]


def sizes_by_example(model: nn.Module, tap: Tap, example: Any) -> dict[str, Tensor]:
    """Return what each tap records when the model runs on an example, in evaluation mode and without gradient.

    Args:
        model: the user's module.
        tap: on it.
        example: a tensor, a tuple of positional arguments, or a mapping of named ones.

    Raises:
        ValueError: a tap did not fire.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    tap.tape.clear()
    tap.tape.recording = True
    try:
        with torch.no_grad():
            call(model, example)
        return tap.calls()[0]
    finally:
        tap.tape.recording = False
        tap.tape.clear()
        for module, training in modes.items():
            module.training = training


def call(model: nn.Module, inputs: Any) -> Any:
    """Return what the model puts out for a tensor, a tuple of positional arguments, or a mapping of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy, whose hooks record nothing.

    Raises:
        ValueError: it cannot be copied.
    """
    try:
        return deepcopy(model)
    except RuntimeError as error:
        raise ValueError(
            f"a momentum copy must be possible with copy.deepcopy, and {type(model).__name__} cannot be copied "
            f"({' '.join(str(error).split())}): after a forward pass torch.nn.utils.spectral_norm forbids it, and "
            "torch.nn.utils.parametrizations.spectral_norm does not"
        ) from error
