"""The one seam into Stable-Baselines3: a callback that joins a contrastive auxiliary to whatever trains an encoder."""

import copy
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from ..core.check import choice, number, whole
from ..core.preset import preset
from . import sidecar, state
from .auxiliary_step import AuxiliaryStep, StepSettings
from .discovery import choose_encoders
from .gate import GATES
from .host_store import check_room, follow, make_store
from .observations import Observer
from .parts import build_parts
from .schedule import SCHEDULES
from .shared_pass import check_host, check_shared
from .sources import ObservationPairs
from .stores import NoStore, ReplayRows, RingBuffer
from .watch import peers, watch

_FALLBACK_BATCH = 256


class ContrastiveAuxiliary(BaseCallback):
    """Trains the encoder of any Stable-Baselines3 or sb3-contrib algorithm with a contrastive objective beside its own.

    At every `every`-th step of the optimizer that owns the encoder it draws its own batch, from the replay buffer or,
    where there is none, from a ring buffer it fills during rollouts, and lets the clipped, weighted gradient into that
    step (`mode="joint"`) or takes a step of its own right after it (`mode="separate"`, as CURL and ATC do; CURL's code
    lets two Adams take that step, which is what `weight=2` does). With `mode="shared"` it draws nothing: the features
    that the host makes of its own batch are the queries, keys are other views of the same observations by the momentum
    encoder, and one backward pass carries both gradients, which saves most of the cost where images are encoded. It
    serves objectives with k = 0 and keys without a gradient (CURL); the host's own clipping then applies to the sum.

    Heads have their own Adam in every mode and are trained on the unweighted loss, so that `weight=0` only watches:
    the host's weights stay those of a run without the callback, to the last bit.

    Metrics go to the model's logger under `auxiliary/`.

    Args:
        objective: a preset's name (`configs/objective/*.yaml`), a config with the same two keys `source` and `module`,
            or an objective module, which is then fed pairs (o_t, o_{t+1}).
        weight: of the auxiliary's gradient, finite, >= 0. In separate mode it scales the encoder's learning rate.
        mode: `joint`, `separate` or `shared`.
        schedule: `constant`, or `linear` or `cosine`: the weight falls to 0 at the end of `learn`.
        gate: `none`; or, in joint mode, how the encoder's gradient is gated by its cosine with the host's (Du et al.
            2018, arXiv 1812.02224): `sign` lets it in where that is >= 0, `cosine` multiplies it by max(0, cosine).
            Cosine and factor are among the metrics.
        encoder: `critic`, `actor` or `all`: whose encoder; one that both share has both roles.
        every: take part in every n-th step of the host's optimizer, an integer >= 1.
        batch_size: windows per update; None takes the model's own batch size, or 256 where it has none.
        buffer_size: frames the ring buffer holds over all environments (unused with a replay buffer).
        learning_rate: of the heads, and of the encoder in separate mode; None follows the host's.
        max_grad_norm: the auxiliary's own gradient is clipped to this norm before it is weighted; None never clips.
        k: steps from query to key; None leaves it to the objective.
        seed: of heads, batches and views; None takes the model's seed, or a fresh one where it has none.
        verbose: Stable-Baselines3's verbosity.

    Raises:
        ValueError: when made, a value breaks its rule or the preset is unknown; when `learn` starts, the model has no
            trained encoder of that role; while it learns, no episode seen was longer than k.
    """

    def __init__(
        self,
        objective: str | Mapping[str, Any] | DictConfig | nn.Module = "temporal",
        weight: float = 1.0,
        *,
        mode: str = "joint",
        schedule: str = "constant",
        gate: str = "none",
        encoder: str = "critic",
        every: int = 1,
        batch_size: int | None = None,
        buffer_size: int = 20_000,
        learning_rate: float | None = None,
        max_grad_norm: float | None = 0.5,
        k: int | None = None,
        seed: int | None = None,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        self.weight = number("weight", weight, 0.0)
        self.mode = choice("mode", mode, ("joint", "separate", "shared"))
        self.schedule = choice("schedule", schedule, tuple(SCHEDULES))
        self.gate = choice("gate", gate, GATES)
        if self.gate != "none" and self.mode != "joint":
            raise ValueError(f"a gate compares gradients that one step joins: it needs mode='joint', got {mode!r}")
        self.encoder = choice("encoder", encoder, ("critic", "actor", "all"))
        self.every = whole("every", every, 1)
        self.batch_size = None if batch_size is None else whole("batch_size", batch_size, 2)
        self.buffer_size = whole("buffer_size", buffer_size, 2)
        self.learning_rate = None if learning_rate is None else number("learning_rate", learning_rate, 0.0, above=True)
        self.max_grad_norm = None if max_grad_norm is None else number("max_grad_norm", max_grad_norm, 0.0, above=True)
        self.seed = None if seed is None else whole("seed", seed, 0)
        self.k = None if k is None else whole("k", k, 0)
        self.name = objective if isinstance(objective, str) else "custom"
        self.config, self.module = self._resolve(objective)
        self.generator = torch.Generator()
        self.steps: dict[str, AuxiliaryStep] = {}
        self._owner: BaseAlgorithm | None = None
        self._learn: Any = None
        self._restored: state.State | None = None
        self._seen_timesteps = -1
        self._trusted = True  # False once the config came out of a file

    def _resolve(self, objective: Any) -> tuple[DictConfig | None, nn.Module | None]:
        if isinstance(objective, nn.Module) and callable(getattr(objective, "update", None)):
            return None, objective
        plain = isinstance(objective, Mapping | DictConfig) and {"source", "module"} <= set(objective)
        if not isinstance(objective, str) and not plain:
            raise ValueError(
                f"objective must be a preset's name, a config with the keys source and module, or an nn.Module with "
                f"update() that turns Pairs into an Outcome, got {objective!r}"
            )
        config = preset(objective) if isinstance(objective, str) else cast(DictConfig, OmegaConf.create(objective))
        config = copy.deepcopy(config)
        if self.k is not None:
            config.source.k = self.k
        return config, None

    # --- what Stable-Baselines3 calls ---------------------------------------------------------------------------------

    def _init_callback(self) -> None:
        if self._owner is not None and self._owner is not self.model:
            raise ValueError(
                f"a ContrastiveAuxiliary serves one model, got a second {type(self.model).__name__}: make a new one "
                "for a new model, or ContrastiveAuxiliary.load(path) to go on with what was saved beside a model"
            )
        if self._owner is None:
            self._build()
            self._owner = self.model
        else:
            self._rebind()
        watch(self.model, self, f"a contrastive auxiliary ({self.name})")

    def _on_training_start(self) -> None:
        self._learn = self.model.start_time
        self.store.interrupt()
        self._seen_timesteps, self._updates_at_start = -1, self.updates

    def _on_step(self) -> bool:
        if self.num_timesteps == self._seen_timesteps:
            return True  # the same callback, passed twice
        self._seen_timesteps = self.num_timesteps
        if isinstance(self.store, ReplayRows):
            self.store.before_add()
        elif isinstance(self.store, RingBuffer):
            acted_on = cast(np.ndarray, self.model._last_obs)  # or a dict of arrays; set before any step
            taken = np.asarray(self.locals.get("clipped_actions", self.locals["actions"]))
            self.store.add(
                self.observer.split(acted_on),
                np.asarray(self.locals["dones"], dtype=bool),
                self.observer.actions.scaled(taken),
                np.asarray(self.locals["rewards"]),
            )
        return True

    def _on_training_end(self) -> None:
        self._learn = None
        self.locals, self.globals = {}, {}  # they hold modules, which nothing can copy
        if self.updates == self._updates_at_start:
            warnings.warn(
                f"the auxiliary took part in no update of this learn(), which ended at {self.model.num_timesteps} "
                f"timesteps; it waits for {self._host_batch()} stored observations (batch_size)",
                UserWarning,
                stacklevel=2,
            )

    # --- building and attaching ---------------------------------------------------------------------------------------

    def _build(self) -> None:
        model = self.model
        policy = model.policy
        chosen = choose_encoders(model, self.encoder)
        self.observer = Observer(policy.observation_space, policy.normalize_images, model.device, model.action_space)
        self.store = NoStore() if self.mode == "shared" else make_store(model, self.observer, self.buffer_size)
        seed = next(s for s in (self.seed, model.seed, int(torch.Generator().seed() % 2**31)) if s is not None)
        self.generator.manual_seed(seed)
        settings = StepSettings(
            self.weight, self.mode, self.every, self._host_batch(), self.learning_rate, self.max_grad_norm, self.gate
        )
        if self.mode == "shared":
            check_host(model)
        with _own_initialisation(seed):
            for host, optimizer in chosen:
                source, objective = (part.to(model.device) for part in self._make_parts(host.module, len(chosen) > 1))
                if self.mode == "shared":
                    check_shared(source)
                check_room(self.store, model.n_envs, settings.batch_size, source.horizon)
                self.steps[host.names[0]] = AuxiliaryStep(host.module, optimizer, source, objective, settings)
        if self._restored is not None:
            state.restore(self, self._restored)
            self._restored = None

    def _rebind(self) -> None:
        """Follow what the host may have replaced between two `learn`: optimizer, replay buffer, normalisation."""
        chosen = {host.names[0]: (host.module, found) for host, found in choose_encoders(self.model, self.encoder)}
        if {name: module for name, (module, _) in chosen.items()} != {n: s.encoder for n, s in self.steps.items()}:
            raise ValueError(
                f"the model's encoders must stay those the auxiliary was made for, {sorted(self.steps)}, "
                f"got others now ({sorted(chosen)}): make a new ContrastiveAuxiliary"
            )
        for name, (_, optimizer) in chosen.items():
            self.steps[name].host = optimizer
        self.store = follow(self.store, self.model, self.observer, self.buffer_size)

    def _host_batch(self) -> int:
        return self.batch_size or getattr(self.model, "batch_size", None) or _FALLBACK_BATCH

    def _make_parts(self, encoder: nn.Module, shared: bool) -> tuple[Any, Any]:
        if self.config is not None:
            return build_parts(self.config, encoder, self.observer, trusted=self._trusted)
        source = ObservationPairs(encoder, self.observer, k=1 if self.k is None else self.k)
        return source, copy.deepcopy(self.module) if shared else self.module

    def attached(self, model: BaseAlgorithm) -> Any:
        """See :class:`~contraux.clrl.watch.Attachment`."""
        return self._hooked() if model is self.model and model.start_time == self._learn else None

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        with ExitStack() as stack:
            for step in self.steps.values():
                stack.enter_context(step.attached(self.store, self.generator, self.current_weight))
            yield
        self._log()

    def _log(self) -> None:
        for name, step in self.steps.items():
            prefix = "auxiliary/" if peers(self.model, self) == 1 else f"auxiliary/{self.name}/"
            prefix += "" if len(self.steps) == 1 else f"{name}/"
            for metric, value in step.take_metrics().items():
                self.logger.record(prefix + metric, value)
            self.logger.record(prefix + "updates", step.updates, exclude="tensorboard")

    def current_weight(self) -> float:
        """The weight by the schedule, for what remains of this `learn`."""
        return self.weight * SCHEDULES[self.schedule](float(self.model._current_progress_remaining))

    @property
    def updates(self) -> int:
        """Auxiliary updates made so far, over all encoders."""
        return sum(step.updates for step in self.steps.values())

    # --- state --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, include_buffer: bool = True) -> None:
        """Save heads, momentum copies, queue, ring buffer, optimizer and random state beside a model, atomically.

        Args:
            path: where the model is saved, with or without `.zip`; the file is called `….auxiliary.safetensors`.
            include_buffer: whether the ring buffer goes along.

        Raises:
            ValueError: the auxiliary has not been part of a `learn` yet.
        """
        if self._owner is None and self._restored is None:
            raise ValueError("an auxiliary can be saved once it was part of learn(), got one that never was")
        sidecar.write(sidecar.sidecar_path(path), *self.state(include_buffer=include_buffer))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        objective: nn.Module | None = None,
        trusted: bool = False,
    ) -> "ContrastiveAuxiliary":
        """Make the auxiliary that was saved beside a model; the state is put in place when `learn` starts.

        Args:
            path: where the model is saved.
            objective: needed if the auxiliary was made from an objective module, whose code no file holds.
            trusted: whether a config that names code outside contraux may run.

        Raises:
            FileNotFoundError: nothing was saved there.
            ValueError: the file is no sidecar, or an objective module is missing.
        """
        tensors, values = sidecar.read(sidecar.sidecar_path(path))
        return cls.from_state(tensors, values, objective=objective, trusted=trusted)

    @classmethod
    def from_state(
        cls,
        tensors: dict[str, torch.Tensor],
        values: dict[str, Any],
        *,
        objective: nn.Module | None = None,
        trusted: bool = False,
    ) -> "ContrastiveAuxiliary":
        """Make an auxiliary from what :meth:`state` returned; see :meth:`load`."""
        if objective is None and values["objective"] is None:
            raise ValueError(
                "the auxiliary was made from an objective module, whose code is not saved, got objective=None: "
                "pass the module again, load(path, objective=…)"
            )
        auxiliary = cls(values["objective"] if objective is None else objective, **values["settings"])
        auxiliary.name = values["name"]
        auxiliary._restored = (tensors, values) if "encoders" in values else None
        auxiliary._trusted = trusted or objective is not None
        return auxiliary

    def state(self, *, include_buffer: bool = True) -> state.State:
        """Everything `learn` needs to go on, as tensors by name and plain values; before it, the settings alone."""
        return self._restored or state.gather(self, include_buffer=include_buffer)


@contextmanager
def _own_initialisation(seed: int) -> Iterator[None]:
    """Initialise heads from their own seed and leave the global random state, the host's, as it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
