"""Data sets to pretrain and evaluate on: every one serves whole batches of uint8 images; `protocol` is the contract."""

from .protocol import Batch, DataFactory, DataSet

__all__ = ["Batch", "DataFactory", "DataSet"]
