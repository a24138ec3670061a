"""The tap: hooks on one model, and the calls of it that they recorded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .names import Place, module_at, names_of
from .tape import BEGIN, END, STOP, Event, Mark, Record, Stop, Tape


class Tap:
    """The hooks on one model; its class, its names and its state_dict stay as they are.

    Args:
        model: the user's module, unwrapped.
        places: of each tap.
        stop_at: module whose inputs are detached while the tape stops gradients; None: behind every tap.
        stops: whether the tape ever will.

    Raises:
        ValueError: a module that is not there.
    """

    def __init__(
        self, model: nn.Module, places: Mapping[str, Place], stop_at: str | None = None, *, stops: bool = False
    ) -> None:
        self.places = dict(places)
        self.tape = Tape()
        self.stops = stops
        modules = {tap: module_at(model, place.name) for tap, place in places.items()}
        before = None if stop_at is None else module_at(model, stop_at)
        self._names = {tap: names_of(model, module) for tap, module in modules.items()}
        self._stop_names = [] if before is None else names_of(model, before)
        # Records come first: a stop, also that of another auxiliary, changes what later hooks see.
        self._handles = [
            module.register_forward_hook(Record(self.tape, tap, self.places[tap]), prepend=True)
            for tap, module in modules.items()
        ]
        if before is not None and stops:
            self._handles.append(before.register_forward_pre_hook(Stop(self.tape).before, with_kwargs=True))
        elif stops:
            self._handles += [module.register_forward_hook(Stop(self.tape).behind) for module in modules.values()]
        self._handles.append(model.register_forward_pre_hook(Mark(self.tape, BEGIN), prepend=True))
        self._handles.append(model.register_forward_hook(Mark(self.tape, END)))

    @contextmanager
    def recording(self, *, stopping: bool = False) -> Iterator[None]:
        """Record what the modules put out."""
        self.tape.start(stopping=stopping)
        try:
            yield
        finally:
            self.tape.end()

    def remove(self) -> None:
        """Take the hooks off, and forget what they recorded."""
        for handle in self._handles:
            handle.remove()
        self.tape.taken()

    def check_places(self) -> None:
        """Look at a recorded call for a module that the model holds under several names, as one activation for all.

        Raises:
            ValueError: it puts out different things in these places, so that its name means none of them.
        """
        outputs: dict[str, list[Tensor | None]] = {}
        event = self.tape.last
        while event is not None:
            outputs.setdefault(event.what, []).append(event.output)
            event = event.before
        for tap, names in self._names.items():
            first, *rest = outputs.get(tap, [None])
            if len(names) > 1 and not all(_same(first, one) for one in rest):
                raise ValueError(_ambiguous(f"the tap at {self.places[tap].told}", names))
        if len(self._stop_names) > 1 and len(outputs.get(STOP, [])) > 1:
            raise ValueError(_ambiguous("stop_at", self._stop_names))

    def calls(self) -> list[dict[str, Tensor]]:
        """Return of each call of the model what every tap recorded, and forget it.

        A module that runs several times within a call (an embedding that several blocks share) counts by its first
        time. Who calls parts of the model instead has made a call whenever a tap fires that already did.

        Raises:
            ValueError: a tap recorded nothing in a call, or without a gradient; or the gradient did not stop.
        """
        events = self.tape.taken()
        calls = _split(events)
        for tap, place in self.places.items():
            missing = sum(tap not in call for call in calls)
            if missing == len(calls):
                raise ValueError(
                    f"the tap at {place.told} must fire inside `with aux:`, and did not: call the model there, see "
                    "that the call runs this module, and attach before the first call of a compiled model (hooks that "
                    "come later are ignored by torch.compile; torch.compiler.reset() makes it look again)"
                )
            if missing:
                raise ValueError(
                    f"the tap at {place.told} must fire in every call inside `with aux:`, and did not in {missing} of "
                    f"{len(calls)}"
                )
            if torch.is_grad_enabled() and not any(event.graded for event in events if event.what == tap):
                raise ValueError(
                    f"the tap at {place.told} must record with a gradient, and it was off, so that the loss would "
                    "train the heads alone: use torch.utils.checkpoint with use_reentrant=False, or take the loss "
                    "under torch.no_grad() too"
                )
        if self.tape.stopping and not any(event.what == STOP for event in events):
            raise ValueError("the gradient must stop at stop_at, and that module did not run: name one that does")
        return calls


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return one.is_meta or torch.equal(one, other)


def _ambiguous(what: str, names: list[str]) -> str:
    return (
        f"{what} must be one place, and {', '.join(names)} are one and the same module, which runs several times in a "
        "call: name the module before it or around it"
    )


def _split(events: list[Event]) -> list[dict[str, Tensor]]:
    """Return what each call of the model recorded."""
    calls: list[dict[str, Tensor]] = []
    current: dict[str, Tensor] | None = None
    inside = False
    for what, output, _, _ in events:
        if what == BEGIN or (output is not None and (current is None or (what in current and not inside))):
            current = {}
            calls.append(current)
        if what in (BEGIN, END):
            inside = what == BEGIN
            current = current if inside else None
        elif output is not None and current is not None:
            current.setdefault(what, output)
    return calls


def sizes_by_example(model: nn.Module, tap: Tap, example: Any) -> dict[str, Tensor]:
    """Return what each tap records when the model runs on an example: in evaluation mode, without gradient, as it is.

    Nothing of it stays: modes and the state of random numbers are as before, and a compiled model is not compiled.

    Args:
        model: the user's module.
        tap: on it.
        example: a tensor, a tuple of positional arguments, or a mapping of named ones, on any device.

    Raises:
        ValueError: a tap did not fire, or at several places.
    """
    weights = next(model.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device
    example = tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, example)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), kept_randomness(device), torch.compiler.set_stance("force_eager"):
            with tap.recording(stopping=tap.stops):
                call(model, example)
            tap.check_places()
            return tap.calls()[0]
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def kept_randomness(device: torch.device) -> Iterator[None]:
    """Put the random numbers of CPU and device back afterwards."""
    if device.type in ("cpu", "meta"):
        with torch.random.fork_rng(devices=[]):
            yield
    else:
        with torch.random.fork_rng(devices=[device], device_type=device.type):
            yield


def call(model: nn.Module, inputs: Any) -> Any:
    """Return what the model puts out for a tensor, a tuple of positional arguments, or a mapping of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
