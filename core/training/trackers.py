"""Names of Accelerate's trackers."""

from collections.abc import Sequence

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers


def check_trackers(trackers: Sequence[str]) -> None:
    """Raise where one is not installed, which Accelerate would pass over in silence.

    Raises:
        ValueError: one is unknown or not installed, or this is no list.
    """
    unknown = [name for name in trackers if name not in {str(found) for found in get_available_trackers()}]
    if isinstance(trackers, str) or unknown:
        raise ValueError(
            f"trackers must be a list of installed ones, got {trackers!r}: pip install 'contraux[jobs]' for "
            "tensorboard, 'contraux[wandb]' for wandb"
        )


def start_trackers(accelerator: Accelerator) -> None:
    """Open those that the accelerator was made with."""
    if accelerator.log_with:
        accelerator.init_trackers("")
