"""What objectives ask of the tensors that `aux.loss(...)` is given."""

from torch import Tensor

from ...core.check import shape


def check_rows(features: Tensor, **given: Tensor) -> None:
    """Raise a ValueError unless each tensor has one value for each row of the features; reads no values.

    Raises:
        ValueError: for example `timesteps must be one for each of the 32 rows, (32,), got (1,)`.
    """
    rows = len(features)
    for name, value in given.items():
        if value.shape != (rows,):
            raise ValueError(f"{name} must be one for each of the {rows} rows, ({rows},), got {shape(value)}")
