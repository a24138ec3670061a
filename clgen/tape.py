"""The tape of what a model's modules put out, and the hooks that write to it while somebody wants to know."""

from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .names import Place, part

BEGIN, END, STOP = "call begins", "call ends", "gradient stopped"
SPANS = 1000
"""Of how many recordings that stopped gradients a tape can tell afterwards; of older ones no graph is left."""


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
        self._since: int | None = None
        self._spans: deque[tuple[int, int]] = deque(maxlen=SPANS)

    def start(self, *, stopping: bool = False) -> None:
        """Forget what was recorded, and record from here on."""
        self.last = None
        self.recording, self.stopping = True, stopping
        if stopping and not torch.compiler.is_compiling():
            self._since = torch.autograd._get_sequence_nr()

    def end(self) -> None:
        """Record no longer."""
        self.recording = False
        if self._since is not None:
            self._spans.append((self._since, torch.autograd._get_sequence_nr()))
            self._since = None

    def stopped(self) -> bool:
        """Return, during backward, whether gradients were stopped when the node that now runs was made.

        Autograd numbers its nodes in the order of the forward pass.
        """
        number = torch._C._current_autograd_node()._sequence_nr()
        if self._since is not None and number >= self._since:
            return True
        return any(first <= number < last for first, last in reversed(self._spans))

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
    gradient must then stop if it did the first time, whatever other calls came in between.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def behind(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Return the output detached if the tape says so; None leaves it as it is."""
        return _detached(output, module) if self._stops() else None

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Return the inputs detached if the tape says so; None leaves them as they are."""
        return _detached((args, kwargs), module) if self._stops() else None

    def _stops(self) -> bool:
        if _repeating():
            return self.tape.stopped()
        stops = self.tape.recording and self.tape.stopping
        if stops:
            self.tape.note(STOP)
        return stops


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
