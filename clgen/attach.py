"""One way in to every discriminator and denoiser: `attach`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ..core.check import choice
from ..core.preset import build
from .auxiliary import Auxiliary
from .defaults import default_example, default_place
from .method import GenerativeMethod
from .names import Place, read_place, unwrapped
from .pooling import POOLS, pooled
from .presets import generative_preset
from .tap import Tap, sizes_by_example

Factory = Callable[[Mapping[str, tuple[int, ...]]], GenerativeMethod]


def attach(
    model: nn.Module,
    at: str | Mapping[str, str] | None = None,
    objective: str | Mapping[str, Any] | DictConfig | Factory = "contrad",
    *,
    example: Tensor | tuple[Any, ...] | Mapping[str, Any] | None = None,
    pool: str | None = None,
    stop_at: str | None = None,
    overrides: Sequence[str] = (),
    trusted: bool = False,
) -> Auxiliary:
    """Attach a contrastive method to a discriminator or denoiser, whose class, names and state_dict stay as they are.

        aux = attach(disc, at="body", objective="contrad", example=images)
        opt.add_param_group({"params": aux.parameters()})
        with aux:
            real, view, fake = disc(x_real), disc(x_view), disc(x_fake)
        loss = adversarial(real, fake) + aux.loss()

    Attach before the first call of a compiled model. A deep copy of the model (an exponential moving average) is free
    of the tap. A model in DistributedDataParallel or `torch.compile` is unwrapped.

    Args:
        model: any module; what is called inside `with aux:`.
        at: dotted name of the module whose output is compared, `body` or `down_blocks.1[0]` for an item of a tuple or
            mapping; or one for each of the method's taps, `{"local": "body.2", "global": "body"}`. None takes the
            default of diffusers' denoisers, which no discriminator has.
        objective: the name of a preset (`configs/gan/method/`, `configs/diffusion/objective/`), a config like theirs,
            or a function from the taps' sizes to a method.
        example: an input of the model, whose forward pass says how large the features are: a tensor, a tuple of
            positional arguments or a mapping of named ones. Denoisers of diffusers need none. Without one, a method
            that has heads cannot be built.
        pool: mean, sum, max or flatten: how maps and tokens become vectors; None: the preset's own, or mean.
        stop_at: for a method that stops gradients (ContraD): the module whose inputs are detached while `with aux:`
            records. None detaches what stands behind the tap.
        overrides: `dotted.key=value` each, of keys of the preset: `["module.fake_weight=0.5"]`.
        trusted: whether a config may name code outside contraux.

    Raises:
        ValueError: a name or value that does not fit; the sentence says which.
    """
    model = unwrapped(model)
    if isinstance(objective, str):
        objective = generative_preset(objective, *overrides)
    elif overrides:
        raise ValueError(f"overrides are for presets by name, got {list(overrides)!r} with another objective")
    if isinstance(objective, Mapping | DictConfig):
        config: Mapping[str, Any] = objective
        pool = pool or config.get("pool")
        factory: Factory = build(config.get("module"), trusted=trusted)
    else:
        factory = objective
    pool = choice("pool", pool or "mean", POOLS)
    built = getattr(factory, "func", factory)
    taps: Mapping[str, str] = getattr(built, "taps", GenerativeMethod.taps)
    stops = bool(getattr(built, "stop_gradient", stop_at is not None))
    if stop_at is not None and not stops:
        raise ValueError(f"stop_at is for methods that stop gradients, and this one does not, got {stop_at!r}")
    if stops and len(taps) > 1 and stop_at is None:
        raise ValueError(f"a method that stops gradients and has the taps {', '.join(taps)} needs stop_at, got None")
    places = _places(model, at, taps)
    tap = Tap(model, places, stop_at, stops=stops)
    try:
        example = default_example(model) if example is None else example
        sizes: Mapping[str, tuple[int, ...]] = _Unknown(taps)
        if example is not None:
            found = sizes_by_example(model, tap, example)
            sizes = {
                name: tuple((one if taps[name] == "map" else pooled(one, pool)).shape[1:])
                for name, one in found.items()
            }
        method = factory(sizes)
        if method.taps != taps or method.stop_gradient != stops:
            raise ValueError(
                "an objective must tell its taps and stop_gradient before it is built: give the class of "
                f"{type(method).__name__}, or functools.partial of it"
            )
        weights = next(model.parameters(), None)
        if weights is not None:
            method = method.to(weights.device, torch.float64 if weights.dtype == torch.float64 else None)
        auxiliary = Auxiliary(model, tap, method, pool)
        if method.momentum is not None:
            auxiliary.follow(method.momentum)
    except BaseException:
        tap.remove()
        raise
    return auxiliary


def _places(model: nn.Module, at: str | Mapping[str, str] | None, taps: Mapping[str, str]) -> dict[str, Place]:
    if isinstance(at, str):
        first, *rest = taps
        at = {first: at}
        given = {tap: default_place(model, tap) for tap in rest}
        missing = [tap for tap, place in given.items() if place is None]
        if missing:
            raise ValueError(
                f"at must name a module for each of {', '.join(taps)}, got one for {first} only: "
                f"at={{{', '.join(f'{tap!r}: ...' for tap in taps)}}}"
            )
        at |= {tap: str(place) for tap, place in given.items()}
    names = {tap: default_place(model, tap) for tap in taps} | dict(at or {})
    unknown = [tap for tap in names if tap not in taps]
    if unknown:
        raise ValueError(f"at must name modules for {', '.join(taps)}, got one for {unknown[0]!r}")
    for tap, name in names.items():
        if name is None:
            children = ", ".join(child for child, _ in model.named_children()) or "none"
            raise ValueError(
                f"at must be the dotted name of a module of {type(model).__name__}, which has no default for {tap!r}; "
                f"its children are: {children}"
            )
    return {tap: read_place(name) for tap, name in names.items()}


class _Unknown(Mapping[str, tuple[int, ...]]):
    """Sizes that no example has told; who asks for one is told to give it."""

    def __init__(self, taps: Mapping[str, str]) -> None:
        self._taps = taps

    def __getitem__(self, tap: str) -> tuple[int, ...]:
        if tap not in self._taps:
            raise KeyError(tap)
        raise ValueError(
            f"this method has heads, whose size a forward pass tells: attach(..., example=an input), for {tap!r}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._taps)

    def __len__(self) -> int:
        return len(self._taps)
