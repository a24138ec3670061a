"""A model and its auxiliary as one module, for who wants one unit to wrap, to compile or to save."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .tap import call

if TYPE_CHECKING:
    from .auxiliary import Auxiliary


class Attached(nn.Module):
    """Calls of the model and the loss of them in one forward pass, for DistributedDataParallel and `torch.compile`.

        unit = DistributedDataParallel(aux.as_module())
        (real, fake), auxiliary = unit(x_real, x_fake)
        loss = adversarial(real, fake) + auxiliary

    The state_dict has both, under `model.` and `auxiliary.`.

    Args:
        auxiliary: attached to the model.
    """

    def __init__(self, auxiliary: "Auxiliary") -> None:
        super().__init__()
        self.model = auxiliary.model
        self.auxiliary = auxiliary

    def forward(self, *calls: Any, generator: bool = False, **context: Any) -> tuple[tuple[Any, ...], Tensor]:
        """Return what the model puts out for each call, and the auxiliary's loss.

        Args:
            calls: inputs of the model for each role of the method, in order: a tensor, a tuple of positional arguments
                or a mapping of named ones.
            generator: take the generator's phase.
            context: as for `Auxiliary.loss`.

        Raises:
            ValueError: as `Auxiliary.loss` does.
        """
        with self.auxiliary.for_generator() if generator else self.auxiliary:
            outputs = tuple(call(self.model, inputs) for inputs in calls)
        return outputs, self.auxiliary.loss(**context)
