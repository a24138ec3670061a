"""Gradient caching: the gradient of a contrastive batch larger than memory. Shape legend: N rows, D dimension."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import get_device_states, set_device_states

from ..check import shape
from ..pairs import Outcome
from ..similarity import full_precision
from .chunks import tensors_of

Encoder = Callable[[Any], Tensor]


def cached_backward(
    encoders: Sequence[Encoder],
    chunks: Sequence[Sequence[Any]],
    objective: Callable[..., Outcome | Tensor],
    *,
    backward: Callable[[Tensor], Any] = Tensor.backward,
) -> Outcome:
    """Add the gradient of one large batch to `.grad`, holding the activations of one chunk (Gao et al. 2021).

    1. Every chunk is encoded without a graph, and the random state before it is kept.
    2. The objective sees the embeddings of the whole batch; its backward gives its own parameters their gradient, and
       dL/dz for every embedding z (the cache).
    3. Every chunk is encoded again, with a graph and under its random state, and dL/dz is sent back through it.

    The sum over chunks of (dL/dz) dz/dtheta is the gradient of the large batch (section 3.2), with dropout too: the
    mask of a chunk is the same both times. It costs one more forward pass. https://arxiv.org/abs/2101.06983

    BatchNorm in an encoder takes its statistics from a chunk, not from the batch: the gradient is then that of a batch
    encoded in these chunks, not of one encoded at once. Buffers of modules in training mode (running statistics,
    power iteration of spectral normalisation) are put back before step 3, so that they move once for each chunk.

    Autocast: call it inside the region (or let the encoders open one); both passes then compute alike, and backward
    runs outside of it, as torch recommends (inside, what the forward pass computed in float32, such as the similarity,
    would be differentiated in half precision). A GradScaler scales the loss of step 2, `backward=lambda loss:
    scaler.scale(loss).backward()`: the cached gradient carries the scale through step 3, and `scaler.step` removes it
    from all parameters. With Accelerate, pass `backward=accelerator.backward`, which does the same.

    Processes: an encoder in DistributedDataParallel (what Accelerate prepares) synchronises in its last chunk only. The
    objective may gather (`gathered_pairs`), or be such a module itself. An encoder with buffers, which torch broadcasts
    before every chunk, needs one number of chunks on all processes; so does one that is wrapped again (compiled after
    it was distributed), because it synchronises in every chunk. A module of two towers that is called for one tower
    at a time needs `find_unused_parameters=True`.

    Args:
        encoders: each turns one of its chunks into `(n, ...)` embeddings. The same encoder may stand twice (two views,
            query and key). What is said of buffers, of DistributedDataParallel and of the devices' random states
            holds for modules and their bound methods; of another callable, and of a module that moves its input,
            only the CPU, the current CUDA device and the devices of the inputs are known.
        chunks: for each encoder, the chunks of its batch, for example from `split_rows`. They are gone through twice.
        objective: called with one tensor of embeddings `(N, ...)` for each encoder; returns an Outcome or a scalar.
            An encoder whose embeddings get no gradient from it (keys of a momentum encoder) has no step 3.
        backward: called with the loss.

    Returns:
        The outcome, with its loss detached.

    Raises:
        ValueError: encoders and chunks do not match, or an encoder returned no tensor with rows.
    """
    if not encoders or len(encoders) != len(chunks) or not all(chunks):
        found = [len(each) for each in chunks]
        raise ValueError(f"every encoder needs at least one chunk, got {len(encoders)} encoders and {found} chunks")
    modules = [_module(encoder) for encoder in encoders]
    buffers = {module: [(one, one.clone()) for one in _training_buffers(module)] for module in modules}
    with torch.no_grad():
        encoded = [_encode(*each) for each in zip(encoders, modules, chunks, strict=True)]
    # In older torch a weight that autocast cast without a graph comes from its cache in step 3, and gets no gradient
    # (https://github.com/pytorch/pytorch/issues/112583).
    torch.clear_autocast_cache()

    whole_batch = [embeddings.requires_grad_() for embeddings, _ in encoded]
    seen = objective(*whole_batch)
    outcome = seen if isinstance(seen, Outcome) else Outcome(seen, {})
    with full_precision(outcome.loss):
        backward(outcome.loss)

    steps = [
        (encoder, module, chunk, gradient)
        for encoder, module, (embeddings, passed) in zip(encoders, modules, encoded, strict=True)
        if embeddings.grad is not None
        for chunk, gradient in zip(passed, embeddings.grad.split([chunk.rows for chunk in passed]), strict=True)
    ]
    last = {module: place for place, (_, module, *_) in enumerate(steps)}
    with torch.no_grad():
        for buffer, before in chain.from_iterable(buffers[module] for module in last):
            buffer.copy_(before)
    for place, (encoder, module, chunk, gradient) in enumerate(steps):
        with _without_synchronising(module) if place < last[module] else nullcontext():
            with chunk.random.replayed():
                embedding = encoder(chunk.batch)
            if embedding.requires_grad:
                with full_precision(embedding):
                    embedding.backward(gradient)
    return Outcome(outcome.loss.detach(), outcome.metrics)


class _Random:
    """The random states of the CPU and of the devices of these tensors, as they are now."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        one_each = {tensor.device: tensor for tensor in tensors if tensor.device.type not in ("cpu", "meta")}
        self.kind = next(iter(one_each)).type if one_each else "cuda"
        self.cpu = torch.get_rng_state()
        self.devices, self.states = get_device_states(*one_each.values())

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, random numbers are drawn from these states; afterwards everything goes on as if none had been."""
        with torch.random.fork_rng(self.devices, device_type=self.kind):
            torch.set_rng_state(self.cpu)
            set_device_states(self.devices, self.states, device_type=self.kind)
            yield


class _Chunk(NamedTuple):
    batch: Any
    rows: int
    random: _Random


def _encode(encoder: Encoder, module: nn.Module | None, chunks: Sequence[Any]) -> tuple[Tensor, list[_Chunk]]:
    """Return the embeddings of all chunks, and what is needed to encode each once more."""
    known = [] if module is None else [*module.parameters(), *module.buffers()]
    if torch.cuda.is_initialized():
        known.append(torch.empty(0, device="cuda"))
    embeddings, passed = [], []
    for batch in chunks:
        random = _Random((*known, *tensors_of(batch)))
        embedding = encoder(batch)
        if not isinstance(embedding, Tensor) or embedding.ndim == 0:
            got = shape(embedding) if isinstance(embedding, Tensor) else type(embedding).__name__
            raise ValueError(f"an encoder must return a tensor with rows, got {got}")
        embeddings.append(embedding)
        passed.append(_Chunk(batch, len(embedding), random))
    return torch.cat(embeddings), passed


def _training_buffers(module: nn.Module | None) -> Iterator[Tensor]:
    for part in () if module is None else module.modules():
        if part.training:
            yield from part.buffers(recurse=False)


def _without_synchronising(module: nn.Module | None) -> AbstractContextManager[Any]:
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def _module(encoder: Encoder) -> nn.Module | None:
    owner = encoder if isinstance(encoder, nn.Module) else getattr(encoder, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
