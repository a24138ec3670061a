"""What a module inside a model puts out, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ..names import Place, module_at, part


@contextmanager
def watched(model: nn.Module, place: Place) -> Iterator[list[Tensor]]:
    """Yield a list that gets what the module puts out, call after call; afterwards the model is as it was.

    For measuring and for frozen encoders, of which no copies or compiled calls are made meanwhile; `attach` is for
    training.

    Raises:
        ValueError: no such module, or an output that is no tensor.
    """
    found: list[Tensor] = []
    handle = module_at(model, place.name).register_forward_hook(
        lambda module, inputs, output: found.append(part(output, place))
    )
    try:
        yield found
    finally:
        handle.remove()
