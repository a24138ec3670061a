"""One optimizer step of a method, on whatever devices Accelerate has. Shape legend: B examples of a batch."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..distributed import average_gradients, cached_backward, split_rows
from ..encoders import MomentumEncoder
from ..pairs import Outcome
from ..training.optimizers import OptimizerFactory, made_optimizer, parameter_groups, stepping
from ..training.start import prepared
from .method import Method

Views = tuple[Tensor, Tensor, Tensor]
"""First view, second view and labels of this process's rows of one batch."""


class Engine:
    """A method and its optimizer where they train.

    Args:
        accelerator: says where.
        method: moved there.
        optimizer: factory.
        scale: of its learning rate.
        chunk_size: rows encoded at once, by gradient caching; None encodes all.
        max_grad_norm: clips the gradient's norm; None never.
        channels_last: memory layout of images and convolutions.
        compile: torch.compile what embeds.
        sync_batchnorm: take statistics over all processes, on GPUs.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        method: Method,
        optimizer: OptimizerFactory,
        *,
        scale: float,
        chunk_size: int | None,
        max_grad_norm: float | None,
        channels_last: bool,
        compile: bool,
        sync_batchnorm: bool,
    ) -> None:
        self.accelerator, self.chunk_size, self.max_grad_norm = accelerator, chunk_size, max_grad_norm
        self.channels_last = channels_last
        if accelerator.num_processes > 1 and sync_batchnorm and not method.local_batch_norm:
            method = _synchronised(method, accelerator.device)
        if channels_last:
            method = method.to(memory_format=torch.channels_last)
        if compile:
            copies = [part for part in method.modules() if isinstance(part, MomentumEncoder)]
            for part in (method.online, *(copy.encoder for copy in copies)):
                part.compile()
        groups = parameter_groups(method.to(accelerator.device))
        made = made_optimizer(optimizer, groups)
        self.rates = [group["lr"] * scale for group in made.param_groups]
        self.method = method.train()
        self.model, self.optimizer = prepared(accelerator, method, made)

    def update(self, batches: Sequence[Views], factor: float) -> Outcome:
        """Take one step on the mean gradient of the batches, and return the outcome of the last.

        Args:
            batches: views and labels of this process's rows.
            factor: of the learning rate.

        Raises:
            ValueError: the learning rate makes a step overflow.
        """
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        outcome = None
        for place, views in enumerate(batches):
            last = place + 1 == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                outcome = self._gradient(*views, share=len(batches))
        if outcome is None:
            raise ValueError("an optimizer step needs at least one batch, got none")
        if self.chunk_size is not None and self.accelerator.num_processes > 1:
            average_gradients(self.method.parameters())  # which gradient caching leaves to its caller
        if self.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        with stepping(self.rates[0] * factor):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return outcome

    def _gradient(self, first: Tensor, second: Tensor, labels: Tensor, share: int) -> Outcome:
        """Add the gradient of one batch, divided by `share`, encoding it whole or in chunks."""
        if self.channels_last and first.ndim == 4:
            first, second = (x.contiguous(memory_format=torch.channels_last) for x in (first, second))
        backward: Callable[[Tensor], None] = self.accelerator.backward
        if share > 1:
            backward = partial(_backward_of_share, self.accelerator, share)
        if self.chunk_size is None:
            outcome: Outcome = self.model(first, second, labels)
            backward(outcome.loss)
            return outcome
        with self.accelerator.autocast():
            modules, views = zip(*self.method.branches(first, second), strict=True)
            chunks = [split_rows(view, self.chunk_size) for view in views]
            return cached_backward(modules, chunks, partial(self.method.compare, labels=labels), backward=backward)


def _backward_of_share(accelerator: Accelerator, share: int, loss: Tensor) -> None:
    accelerator.backward(loss / share)


def _synchronised(method: Method, device: torch.device) -> Method:
    if device.type == "cuda":
        found: Any = nn.SyncBatchNorm.convert_sync_batchnorm(method)
        return found
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in method.modules()):
        warnings.warn(
            "batch norm has each process's own statistics: torch synchronises them on GPUs only", stacklevel=5
        )
    return method
