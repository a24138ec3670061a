"""One way in: a loss of pairs, taken by whatever is fastest for it and small enough.

Shape legend: N queries, M keys of the batch, Q remembered keys, D feature dimension.
"""

from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..losses import clip, info_nce, nt_xent, sup_con
from ..losses.arguments import check_temperature
from ..masks import check_candidates, exclude_mask
from ..pairs import Pairs, SameLabel
from ..samplers import Candidates, InBatch, Memory, Sampler
from ..similarity import check_features, cosine, dot, full_precision
from .case import Case
from .composed import Loss, Scored, Similarity, candidates, composed, in_blocks, rows_of
from .cosine_info_nce import cosine_info_nce
from .cpu import on_cpu
from .gpu import on_gpu

SMALL = 2**18  # up to so many similarities InfoNCE of cosines is one node with the whole matrix
COMPOSED = 2**22  # above so many, losses without a kernel of their own are taken in blocks of rows
SEEN = 2**21  # similarities that metrics are taken from where they are not at hand


def contrastive_loss(
    pairs: Pairs,
    *,
    similarity: Similarity = cosine,
    sampler: Sampler | None = None,
    loss: Loss = info_nce,
    temperature: float | Tensor | None = None,
) -> Tensor:
    """Return `loss(similarity(query, key), ...)` of the pairs without storing the `(N, M)` matrix where it is large.

    The same number as similarity, sampler and loss one after the other, by the first of these that applies:

    - `info_nce` of cosines up to 2^18 similarities (512 x 512) in one node with the whole matrix;
    - on CPU, `nt_xent` of cosines by tiles of the upper triangle (`symmetric_nt_xent`), `info_nce` of cosines or dot
      products by blocks of rows, with a queue too (`row_info_nce`), `clip` from one pass for both directions
      (`both_directions`), `info_nce` and `sup_con` by labels (`label_info_nce`), all with one positive a query by
      its index, or by labels, at most one column excluded, and a uniform sampler;
    - on a GPU and above 2^21 similarities, the same by Triton kernels (`gpu_info_nce`), in the features' own half
      precision with float32 sums; float32 in TF32 where `torch.set_float32_matmul_precision` allows it; without atomic
      additions under `torch.use_deterministic_algorithms`;
    - above 2^22 similarities any other loss that takes `reduction`, with any sampler and similarity, by blocks of rows;
    - otherwise the whole matrix.

    Tiles and blocks take the gradient along with the loss, have no second derivative and are a break in a graph of
    `torch.compile`. Similarities are taken in float32 under autocast and for half precision. Features that are not
    finite give a loss that is not. An index outside the columns raises an IndexError on a CPU; on a GPU it is torch's
    own device-side assertion, and in a Triton kernel a query without a positive.

    Args:
        pairs: what a host would hand to an objective, after its heads.
        similarity: `(N, D), (M, D) -> (N, M)`.
        sampler: who counts as a negative; None: `InBatch()`. It is not told that the batch is over (`remember`).
        loss: `(similarity, positive, weights, temperature=..., reduction=...) -> scalar`, the last two where it has
            them.
        temperature: > 0, a number or scalar tensor; None: the sampler's choice, or the loss's own default.

    Raises:
        ValueError: shapes disagree, or the loss has no temperature and one was given.
    """
    return score(pairs, similarity, _EVERY_KEY if sampler is None else sampler, loss, temperature, metrics=False).loss


def score(
    pairs: Pairs,
    similarity: Similarity,
    sampler: Sampler,
    loss: Loss,
    temperature: float | Tensor | None,
    *,
    metrics: bool = True,
) -> Scored:
    """Return `contrastive_loss` with what its metrics are taken from, or without where that saves work."""
    query, key, positive, exclude = pairs[:4]
    check_features(query, key)
    n, m = query.shape[0], key.shape[0]  # len() of a tensor takes 2 us, and batches can be small
    check_candidates(n, m, positive, exclude)
    settings = loss_settings(loss, sampler, temperature)
    memory = sampler.memory()
    cells = n * (m if memory is None else m + memory.key.shape[0])
    compare, plain = _plain(similarity), _plain(loss)
    by_index = exclude is None or exclude.ndim == 1
    known = sampler.uniform and (compare is cosine or compare is dot)
    if known and by_index and (isinstance(positive, SameLabel) or positive.ndim == 1):
        one_node = cells <= SMALL and compare is cosine and plain is info_nce and exclude is None
        if one_node and isinstance(positive, Tensor):
            columns = key if memory is None else torch.cat((key, memory.key))
            value, matrix = cosine_info_nce(query, columns, positive, **settings)
            return Scored(value, matrix, Candidates(positive, None), value.detach())
        kernel = _kernel(pairs, memory, compare is cosine, plain, settings)
        if kernel is not None:
            if not metrics:
                return Scored(kernel, *_NOTHING)
            if plain is nt_xent:  # a kernel took it, so that nothing but each row itself is excluded
                pairs = pairs._replace(exclude=torch.arange(n, device=query.device))
            return Scored(kernel, *_seen(pairs, memory, similarity, sampler))
    if cells > COMPOSED and plain is nt_xent and n == m and memory is None:
        pairs, loss = _without_itself(pairs), info_nce
    way = in_blocks if cells > COMPOSED and takes(loss, "reduction") else composed
    return way(pairs, memory, similarity, sampler, loss, settings)


_EVERY_KEY = InBatch()
_NOTHING = (torch.empty(0, 0), Candidates(torch.empty(0, dtype=torch.long), None))


def takes(loss: Loss, name: str) -> bool:
    """Return whether a loss, a function or module or partial of one, has an argument of that name."""
    code = getattr(_function(loss), "__code__", None)
    if code is None:  # some other callable
        return name in signature(loss).parameters
    return name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def default_temperature(loss: Loss) -> float | Tensor | None:
    """Return the temperature a loss takes when it is given none, or None if it has none."""
    if isinstance(loss, partial) and "temperature" in loss.keywords:
        return loss.keywords["temperature"]
    return signature(_function(loss)).parameters["temperature"].default if takes(loss, "temperature") else None


def _function(loss: Loss) -> Any:
    plain: Any = loss.func if isinstance(loss, partial) else loss
    if isinstance(plain, type):  # a module that is still to be made
        return plain.forward  # type: ignore[attr-defined]
    return type(plain).forward if isinstance(plain, nn.Module) else plain


def name_of(loss: Loss) -> str:
    """Return what a loss is called, in a sentence."""
    plain = loss.func if isinstance(loss, partial) else loss
    return getattr(plain, "__name__", type(plain).__name__)


def loss_settings(loss: Loss, sampler: Sampler, temperature: Any) -> dict[str, Any]:
    """Return the temperature for the loss, if any: what the sampler chose, or what was given.

    Raises:
        ValueError: there is one and the loss takes none.
    """
    chosen = temperature if sampler.temperature is None else sampler.temperature
    if chosen is None:
        return {}
    if not takes(loss, "temperature"):
        raise ValueError(f"{name_of(loss)} has no temperature: it must be None, got {chosen}")
    return {"temperature": chosen}


def _plain(part: Any) -> Any:
    """Return the function that a partial changes nothing of, otherwise the part itself."""
    if isinstance(part, partial) and not part.args and not part.keywords:
        return part.func
    return part


def _kernel(pairs: Pairs, memory: Memory | None, cosines: bool, loss: Any, settings: dict[str, Any]) -> Tensor | None:
    """Return the loss from a kernel, or None if there is none for this case."""
    if loss not in (info_nce, nt_xent, clip, sup_con):
        return None
    temperature = settings["temperature"] if settings else default_temperature(loss)
    assert temperature is not None  # these have one
    check_temperature(temperature)
    with full_precision(pairs.query):
        dtype = torch.promote_types(torch.promote_types(pairs.query.dtype, pairs.key.dtype), torch.float32)
        query = pairs.query.to(dtype)
        key = query if pairs.query is pairs.key else pairs.key.to(dtype)
        remembered = None if memory is None else memory.key.to(dtype)
        half = pairs.query.dtype if pairs.query.dtype == pairs.key.dtype else dtype
        case = Case(query, key, pairs.positive, pairs.exclude, remembered, cosines, temperature, half)
        if query.device.type == "cuda":
            return on_gpu(case, loss)
        return on_cpu(case, loss) if query.device.type == "cpu" else None


def _seen(pairs: Pairs, memory: Memory | None, similarity: Similarity, sampler: Sampler) -> tuple[Tensor, Candidates]:
    """Return similarities and candidates of the first queries, as many as metrics are taken from."""
    columns = len(pairs.key) + (0 if memory is None else len(memory.key))
    rows = slice(0, max(1, SEEN // columns))
    with torch.no_grad():
        return candidates(rows_of(pairs, rows), memory, similarity, sampler)


def _without_itself(pairs: Pairs) -> Pairs:
    """Return square pairs in which no row is its own candidate, as `nt_xent` says of itself."""
    n = len(pairs.query)
    itself = torch.arange(n, device=pairs.query.device)
    exclude = exclude_mask(pairs.exclude, n) if pairs.exclude is not None and not _same(pairs.exclude, itself) else None
    if exclude is None:
        return pairs._replace(exclude=itself)
    return pairs._replace(exclude=exclude | torch.eye(n, dtype=torch.bool, device=itself.device))


def _same(exclude: Tensor, itself: Tensor) -> bool:
    return exclude.ndim == 1 and torch.equal(exclude, itself)
