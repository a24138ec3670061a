"""What `attach` returns: a context that records, and the loss of what was recorded.

Shape legend: B rows of a call.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.distributed import broadcast_from_first, gather_with_gradient
from ..core.distributed.processes import rank_and_size
from ..core.encoders import MomentumEncoder
from ..core.pairs import Outcome
from .as_module import Attached
from .method import GenerativeMethod
from .pooling import pooled, wide
from .tap import Tap, call, kept_randomness


class Auxiliary(nn.Module):
    """A contrastive method on a tapped model, which it does not own: its weights are the method's heads alone.

        with aux:                                    # a step of the discriminator or denoiser
            real, fake = disc(x_real), disc(x_fake)
        loss = adversarial(real, fake) + aux.loss()

        with aux.for_generator():                    # a step of the generator, where the method has a term for it
            fake = disc(generator(z))
        loss = adversarial(fake) + aux.loss()

    One backward for the sum: with DistributedDataParallel, two on one forward leave other gradients on each process.
    Under several processes the features of all of them are compared, each process computes the loss of the full batch,
    and gradients averaged over processes (as DistributedDataParallel and Accelerate do) are that loss's; processes
    must hold the same number of rows. Heads see the same everywhere and so stay equal without being wrapped.

    What follows the weights (momentum heads, the momentum copy of the model) moves at the next `with aux:` after a
    `loss()` of the discriminator's phase, so that no call of its own is needed after the optimizer's step.

    Attributes:
        method: the method, with its heads.
        metrics: detached scalars of the last `loss()`.
    """

    metrics: dict[str, Tensor]

    def __init__(self, model: nn.Module, tap: Tap, method: GenerativeMethod, pool: str) -> None:
        super().__init__()
        self.method = method
        self.momentum: MomentumEncoder | None = None
        self.metrics = {}
        self._model = [model]  # in a list, so that the user's weights are not ours
        self._tap, self._pool = tap, pool
        self._momentum_tap: Tap | None = None
        self._roles: tuple[str, ...] | None = None
        self._generating = self._due = False
        self._seed: int | None = None  # of every process, once there are several and they hold the same

    @property
    def model(self) -> nn.Module:
        """The tapped model, without wrappers."""
        return self._model[0]

    @property
    def places(self) -> dict[str, str]:
        """Where each tap sits, as a run should note it."""
        return {tap: str(place) for tap, place in self._tap.places.items()}

    def follow(self, momentum: float) -> None:
        """Keep a momentum copy of the model, with taps of its own.

        Raises:
            ValueError: the model cannot be copied, or the momentum is not a number in [0, 1).
        """
        try:
            self.momentum = MomentumEncoder(self.model, momentum)
        except RuntimeError as error:
            raise ValueError(
                f"a momentum copy must be possible with copy.deepcopy, and {type(self.model).__name__} cannot be "
                f"copied ({' '.join(str(error).split())}): after a forward pass torch.nn.utils.spectral_norm forbids "
                "it, and torch.nn.utils.parametrizations.spectral_norm does not"
            ) from error
        self._momentum_tap = Tap(self.momentum.encoder, self._tap.places)

    def __enter__(self) -> "Auxiliary":
        self._begin(self.method.roles, generating=False)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end(kind is not None)

    @contextmanager
    def calls(self, *roles: str) -> Iterator["Auxiliary"]:
        """Record calls that come in another order: `with aux.calls("fake", "real"):`.

        Raises:
            ValueError: the roles are not the method's.
        """
        if sorted(roles) != sorted(self.method.roles):
            raise ValueError(f"calls must be {', '.join(self.method.roles)} in any order, got {', '.join(roles)}")
        with self._recording(roles):
            yield self

    @contextmanager
    def for_generator(self) -> Iterator["Auxiliary"]:
        """Record a step of the generator: no gradient is stopped, and `loss()` is the method's term for the generator.

        Raises:
            ValueError: the method has none.
        """
        if not self.method.generator_roles:
            raise ValueError(f"{type(self.method).__name__} has no term for the generator: use its loss alone")
        with self._recording(self.method.generator_roles, generating=True):
            yield self

    def loss(self, **context: Any) -> Tensor:
        """Return the method's loss of what was recorded, a float32 scalar; the record is then forgotten.

        Args:
            context: what the method asks for by name: `labels=`, `timesteps=`; for a method with a momentum copy also
                its key inputs, `real_key=images`, a tuple of arguments where the model takes several.

        Raises:
            ValueError: the taps did not fire, the calls are not those of the method's roles, or context is missing or
                unknown.
        """
        if self._roles is None:
            raise ValueError("loss() must follow a `with aux:` in which the model was called, got no recording")
        roles, self._roles, generating = self._roles, None, self._generating
        calls = self._tap.calls()
        method = self.method
        keys = method.generator_key_roles if generating else method.key_roles
        self._check(context, keys, method.generator_context if generating else method.context)
        device = next(iter(calls[0].values())).device
        if rank_and_size()[1] > 1 and self._seed is None:
            self._make_equal(device)
        features = self._by_role(calls, roles)
        for role in keys:
            features[role] = self._key_features(context.pop(role))
        given = {name: _gathered(value) for name, value in context.items() if value is not None}
        with torch.autocast(device.type, enabled=False), self._same_randomness(device):
            outcome = self._generator_outcome(features, given) if generating else method(features, given)
        self._due = self._due or not generating
        self.metrics = outcome.metrics
        loss: Tensor = outcome.loss
        return loss

    def detach(self) -> None:
        """Take the hooks off the model, which is then as it was."""
        self._tap.remove()
        self._roles = None

    def as_module(self) -> Attached:
        """Return model and auxiliary as one module, for who wants one unit to wrap or to compile."""
        return Attached(self)

    def get_extra_state(self) -> Tensor:
        """Return what `state_dict` holds beside the weights.

        Whether the momentum copies have still to follow the last step, and the seed of what the method draws next on
        several processes, -1 on one.
        """
        return torch.tensor([int(self._due), -1 if self._seed is None else self._seed])

    def set_extra_state(self, state: Tensor) -> None:
        """Take what `get_extra_state` returned."""
        due, seed = state.tolist()
        self._due, self._seed = bool(due), None if seed < 0 else seed

    @contextmanager
    def _recording(self, roles: tuple[str, ...], *, generating: bool = False) -> Iterator[None]:
        self._begin(roles, generating=generating)
        failed = True
        try:
            yield
            failed = False
        finally:
            self._end(failed)

    def _begin(self, roles: tuple[str, ...], *, generating: bool) -> None:
        if self._tap.tape.recording:
            raise ValueError("`with aux:` must not be entered twice, got one within another")
        if not generating and self._due:
            self._due = False
            self.method.update()
            if self.momentum is not None:
                self.momentum.update(self.model)
        self._generating, self._roles = generating, roles
        self._tap.tape.start(stopping=self.method.stop_gradient and not generating)

    def _end(self, failed: bool) -> None:
        self._tap.tape.end()
        if failed:
            self._roles = None
            self._tap.tape.taken()

    def _by_role(self, calls: list[dict[str, Tensor]], roles: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
        if len(calls) == 1 and len(roles) > 1:
            rows = len(next(iter(calls[0].values())))
            if rows % len(roles):
                raise ValueError(
                    f"one call for {', '.join(roles)} must hold them in equal parts, got {rows} rows for {len(roles)}"
                )
            parts = {tap: found.chunk(len(roles)) for tap, found in calls[0].items()}
            calls = [{tap: found[i] for tap, found in parts.items()} for i in range(len(roles))]
        if len(calls) != len(roles):
            raise ValueError(
                f"inside `with aux:` {type(self.method).__name__} takes one call of the model for each of "
                f"{', '.join(roles)}, or one with all their rows, got {len(calls)} calls: make other calls, such as "
                "those of a gradient penalty, outside"
            )
        return {role: self._features(found) for role, found in zip(roles, calls, strict=True)}

    def _features(self, call: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what a method sees of one call: pooled, in float32, the rows of all processes."""
        kinds = self.method.taps
        return {
            tap: _gathered(wide(found) if kinds[tap] == "map" else pooled(found, self._pool))
            for tap, found in call.items()
        }

    @torch.no_grad()
    def _key_features(self, inputs: Any) -> dict[str, Tensor]:
        if self.momentum is None or self._momentum_tap is None:
            raise ValueError(f"{type(self.method).__name__} has key inputs and so needs a momentum, got None")
        with self._momentum_tap.recording():
            call(self.momentum, inputs)
        return self._features(self._momentum_tap.calls()[0])

    def _check(self, context: Mapping[str, Any], keys: tuple[str, ...], needed: tuple[str, ...]) -> None:
        name = type(self.method).__name__
        missing = [key for key in (*needed, *keys) if context.get(key) is None]
        if missing:
            raise ValueError(f"{name} needs loss({', '.join(f'{key}=...' for key in missing)}), which was not given")
        allowed = {*self.method.context, *self.method.generator_context, *self.method.optional}
        allowed |= {*self.method.key_roles, *self.method.generator_key_roles}
        unknown = [key for key in context if key not in allowed]
        if unknown:
            raise ValueError(f"{name} takes {', '.join(sorted(allowed)) or 'nothing'} in loss(), got {unknown[0]}=")
        for key in set(keys) ^ ({*self.method.key_roles, *self.method.generator_key_roles} & set(context)):
            raise ValueError(f"{key}= has no use in this phase of {name}")

    def _generator_outcome(self, features: Mapping[str, Mapping[str, Tensor]], given: Mapping[str, Tensor]) -> Outcome:
        """Return the generator's term; the method's own weights stand still in it."""
        trained = [parameter for parameter in self.method.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            return self.method.generator(features, given)
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    @torch.no_grad()
    def _make_equal(self, device: torch.device) -> None:
        """Give every process the weights of the first; from the same features they then stay the same."""
        seed = torch.randint(2**62, (1,), device=device)
        broadcast_from_first((*self.parameters(), *self.buffers(), seed))
        self._seed = int(seed)

    @contextmanager
    def _same_randomness(self, device: torch.device) -> Iterator[None]:
        """Let what a method draws be the same on every process, so that its heads stay so."""
        if self._seed is None:
            yield
            return
        with kept_randomness(device):
            torch.manual_seed(self._seed)
            self._seed += 1
            yield


def _gathered(value: Any) -> Any:
    """Return the rows of all processes, in rank order; what has no rows as it is."""
    size = rank_and_size()[1]
    if size == 1 or not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return gather_with_gradient(value, [len(value)] * size)
