"""Data sets to pretrain and evaluate on: every one serves whole batches of uint8 images; `protocol` is the contract.

A data set is a function `f(split, ...) -> DataSet` in a file of its own and a YAML in `configs/data/`; `loader` reads
batches of it in a given order.
"""

from .arrays import arrays
from .digits import digits
from .folder import folder
from .frames import frames
from .huggingface import huggingface
from .loader import batches, epoch_order
from .memory import InMemory
from .protocol import Batch, DataFactory, DataSet
from .torchvision_sets import cifar10, cifar100, stl10

__all__ = [
    "Batch",
    "DataFactory",
    "DataSet",
    "InMemory",
    "arrays",
    "batches",
    "cifar10",
    "cifar100",
    "digits",
    "epoch_order",
    "folder",
    "frames",
    "huggingface",
    "stl10",
]
