"""The hooks that record what modules put out, while somebody wants to know, and otherwise do nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .names import Place, module_at, part

BEGIN, END, STOP = "call begins", "call ends", "gradient stopped"


class Event(NamedTuple):
    """What one hook noted; a chain, the latest first.

    Not a list: `torch.compile` guards on a list's length, and so would compile the model again for each call of a step.

    Attributes:
        what: a tap's name, or BEGIN, END, STOP.
        output: of the tapped module.
        graded: whether autograd was on.
        before: the event before.
    """

    what: str
    output: Tensor | None
    graded: bool
    before: "Event | None"


class Tape:
    """What the hooks of one model write to.

    Attributes:
        recording: whether the hooks record.
        stopping: whether what stands behind the stop gets detached inputs.
        last: the latest event.
    """

    def __init__(self) -> None:
        self.recording = self.stopping = False
        self.last: Event | None = None

    def start(self, *, stopping: bool = False) -> None:
        """Forget what was recorded, and record from here on."""
        self.last = None
        self.recording, self.stopping = True, stopping

    def note(self, what: str, output: Tensor | None = None) -> None:
        """Add an event."""
        self.last = Event(what, output, torch.is_grad_enabled(), self.last)

    def taken(self) -> list[Event]:
        """Return the events, earliest first, and forget them, and with them their graphs."""
        last, self.last = self.last, None
        events = []
        while last is not None:
            events.append(last)
            last = last.before
        return events[::-1]

    def __reduce__(self) -> tuple[Any, ...]:
        return Tape, ()  # a copy of the model, such as a moving average, gets hooks with a tape that nobody reads


class Mark:
    """A hook on the model itself: says which records belong to one call."""

    def __init__(self, tape: Tape, what: str) -> None:
        self.tape, self.what = tape, what

    def __call__(self, *_: Any) -> None:
        """Note it."""
        if self.tape.recording and not _repeating():
            self.tape.note(self.what)


class Record:
    """A forward hook: puts a copy of the output on the tape, which no later layer can change in place."""

    def __init__(self, tape: Tape, tap: str, place: Place) -> None:
        self.tape, self.tap, self.place = tape, tap, place

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Record if the tape does."""
        if self.tape.recording and not _repeating():
            self.tape.note(self.tap, part(output, self.place).clone())


class Stop:
    """Where the gradient stops: as a forward hook behind its module, as a forward pre-hook before it.

    Gradient checkpointing runs a part of the model once more during backward, when nothing records any longer; the
    gradient must then stop if it did the first time.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.stopped = False

    def behind(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Return the output detached if the tape says so; None leaves it as it is."""
        return _detached(output, module) if self._stops() else None

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Return the inputs detached if the tape says so; None leaves them as they are."""
        return _detached((args, kwargs), module) if self._stops() else None

    def _stops(self) -> bool:
        if _repeating():
            return self.stopped
        self.stopped = self.tape.recording and self.tape.stopping
        if self.stopped:
            self.tape.note(STOP)
        return self.tape.recording and self.tape.stopping


def _repeating() -> bool:
    """Return whether backward is running, in which a forward pass repeats one for gradient checkpointing."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _detached(value: Any, module: nn.Module) -> Any:
    """Return the value with every tensor in it detached.

    Raises:
        ValueError: it has parts that may hide tensors.
    """
    for leaf in () if torch.compiler.is_compiling() else tree_leaves(value):
        if hasattr(leaf, "__dict__") and not isinstance(leaf, Tensor | type) and not callable(leaf):
            raise ValueError(
                f"the gradient must stop at tensors, in tuples, lists or dicts, and {type(module).__name__} passes on "
                f"a {type(leaf).__name__}: attach(..., stop_at=another module)"
            )
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, value)


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
            self.tape.recording = False

    def remove(self) -> None:
        """Take the hooks off, and forget what they recorded."""
        for handle in self._handles:
            handle.remove()
        self.tape.taken()

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
        ValueError: a tap did not fire.
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
