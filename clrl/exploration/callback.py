"""A novelty bonus for any Stable-Baselines3 algorithm: one callback, which leaves nothing behind on the model.

Shape legend: T steps, E environments.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from ...core.check import choice, number, whole
from ...core.preset import build, option, options
from .. import sidecar
from ..observations import Observer
from ..stores import Observations
from .bonus import Bonus, Host, Rows, Steps
from .embedding import Embedding, preprocessed
from .rewards import add_to_rollout, add_to_stored, is_on_policy
from .scale import ReturnScale

SUFFIX = ".exploration.safetensors"
_ROWS = 1024  # observations that wait to be embedded in one batch

State = tuple[dict[str, Tensor], dict[str, Any]]


class NoveltyBonus(BaseCallback):
    """Rewards an agent for observations that are new to it, beside the environment's own reward.

    The bonus of a transition is the novelty of the observation it leads to (the terminal one where an episode ends),
    divided by a running standard deviation (:class:`~contraux.clrl.exploration.scale.ReturnScale`) and multiplied by
    `weight`. On-policy it is added to the rewards of a rollout, and returns and advantages are computed anew;
    off-policy to the reward that is stored. What environments report, and so every logged return, stays theirs. With
    weight 0 everything is computed and logged, and the host's weights stay those of a run without the callback, to
    the last bit.

    Metrics go to the model's logger under `exploration/`: `novelty` as it is measured, `reward` as it is added, both
    means over steps, `deviation`, `weight`, and those of the bonus.

    Args:
        bonus: a name (`configs/exploration/*.yaml`), or a factory that makes a
            :class:`~contraux.clrl.exploration.bonus.Bonus` from a :class:`~contraux.clrl.exploration.bonus.Host`.
        weight: finite, >= 0; or a function of the share of training that remains (1 to 0), such as Stable-Baselines3's
            `LinearSchedule`.
        embedding: `features` of the encoder, or the auxiliary's `projection` of them.
        unit_length: whether embeddings are divided by their norm, as cosine objectives see them.
        encoder: `critic` or `actor`: whose encoder, where they are not one.
        seed: of the networks a bonus has; None takes the model's seed, or a fresh one where it has none.
        verbose: Stable-Baselines3's verbosity.

    Raises:
        ValueError: when made, a value breaks its rule or the name is unknown; when `learn` starts, the model has no
            encoder to embed with, or a buffer that cannot take a bonus.
    """

    def __init__(
        self,
        bonus: str | Callable[[Host], Bonus] = "episodic",
        weight: float | Callable[[float], float] = 0.1,
        *,
        embedding: str = "features",
        unit_length: bool = True,
        encoder: str = "critic",
        seed: int | None = None,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        if not isinstance(bonus, str) and not callable(bonus):
            raise ValueError(f"bonus must be a name or a factory of bonuses, got {bonus!r}")
        self.factory = _named(bonus) if isinstance(bonus, str) else bonus
        self.weight = weight if callable(weight) else number("weight", weight, 0.0)
        self.embedding = choice("embedding", embedding, ("features", "projection"))
        self.unit_length = bool(unit_length)
        self.encoder = choice("encoder", encoder, ("critic", "actor"))
        self.seed = None if seed is None else whole("seed", seed, 0)
        self.bonus: Bonus | None = None
        self._owner: BaseAlgorithm | None = None
        self._restored: State | None = None
        self._reached: Any = None  # the observation at which the last learn() stopped
        self._seen_timesteps = -1
        self._waiting: list[tuple[Observations, np.ndarray, Observations]] = []
        self._scaled: list[np.ndarray] = []

    # --- what Stable-Baselines3 calls ---------------------------------------------------------------------------------

    def _init_callback(self) -> None:
        if self._owner is not None and self._owner is not self.model:
            raise ValueError(
                f"a NoveltyBonus serves one model, got a second {type(self.model).__name__}: make a new one, and load "
                "into it what was saved beside a model"
            )
        self._owner = self.model
        self.on_policy = is_on_policy(self.model)

    def _on_training_start(self) -> None:
        if self.bonus is None:  # by now an auxiliary has its heads
            self._build()
        if self._restored is not None:
            self._put_back(self._restored)
            self._restored = None
        self._waiting, self._scaled, self._seen_timesteps = [], [], -1
        if self.model._last_obs is not self._reached:
            self.scale.begin()
            first = self.observer.split(self.model._last_obs)  # type: ignore[arg-type]
            self._bonus.begin(np.ones(self.model.n_envs, dtype=bool), self._see(first))

    def _on_rollout_start(self) -> None:
        self._waiting, self._scaled = [], []

    def _on_step(self) -> bool:
        if self.num_timesteps == self._seen_timesteps:
            return True  # the same callback, passed twice
        self._seen_timesteps = self.num_timesteps
        self._waiting.append(self._step())
        if not self.on_policy:
            reward = self._score()
            if self.current_weight():
                add_to_stored(self.model, self.locals["rewards"], reward[0] * self.current_weight())
        elif len(self._waiting) * self.model.n_envs >= _ROWS:
            self._scaled.append(self._score())
        return True

    def _on_rollout_end(self) -> None:
        if self._waiting:
            self._scaled.append(self._score())
        if self.on_policy and self._scaled and self.current_weight():
            dones = np.asarray(self.model._last_episode_starts, dtype=bool)
            bonus = np.concatenate(self._scaled) * self.current_weight()
            add_to_rollout(self.model.rollout_buffer, bonus, dones)  # type: ignore[attr-defined]
        self._scaled = []
        self._bonus.update()
        for name, value in self._bonus.metrics().items():
            self.logger.record_mean(f"exploration/{name}", value)
        self.logger.record("exploration/deviation", self.scale.deviation)
        self.logger.record("exploration/weight", self.current_weight())

    def _on_training_end(self) -> None:
        if self._waiting:  # learn() was stopped within a rollout
            self._score()
        self._reached = self.model._last_obs
        self.locals, self.globals = {}, {}  # they hold modules, which nothing can copy

    def current_weight(self) -> float:
        """The weight now; a schedule is asked with the share of training that remains."""
        if not callable(self.weight):
            return self.weight
        return number("weight", self.weight(self.model._current_progress_remaining), 0.0)

    # --- from steps to rewards ----------------------------------------------------------------------------------------

    @property
    def _bonus(self) -> Bonus:
        assert self.bonus is not None
        return self.bonus

    def _build(self) -> None:
        model, policy = self.model, self.model.policy
        self.observer = Observer(policy.observation_space, policy.normalize_images, model.device, model.action_space)
        self.scale = ReturnScale(model.n_envs, getattr(model, "gamma", 0.99))
        seed = next(s for s in (self.seed, model.seed, int(torch.Generator().seed() % 2**31)) if s is not None)
        self._embed: Embedding | None = None

        def embedded_dim() -> int:
            self._embed = Embedding(
                model, self.observer, self.encoder,
                projected=self.embedding == "projection", unit_length=self.unit_length,
            )  # fmt: skip
            return self._embed.dim

        wanted = getattr(getattr(self.factory, "func", self.factory), "embedded", True)
        dim = embedded_dim() if wanted else 0
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.bonus = self.factory(Host(dim, model.n_envs, model.device, policy.make_features_extractor))

    def _step(self) -> tuple[Observations, np.ndarray, Observations]:
        """What the last step led to: following observations, which episodes ended, and where new ones began."""
        new = {name: leaf.copy() for name, leaf in self.observer.split(self.locals["new_obs"]).items()}
        ended = np.array(self.locals["dones"], dtype=bool)
        first = {name: leaf[ended].copy() for name, leaf in new.items()}
        for env in np.flatnonzero(ended):
            terminal = self.locals["infos"][env].get("terminal_observation")
            if terminal is not None:
                for name, leaf in self.observer.split(terminal).items():
                    new[name][env] = leaf[0]
        return new, ended, first

    def _score(self) -> np.ndarray:
        """`(T, E)` scaled bonuses of the steps that wait, before their weight."""
        following, ended, first = zip(*self._waiting, strict=True)
        self._waiting = []
        ended_TE = np.stack(ended)
        begun = self._see(_joined(first)) if ended_TE.any() else None
        steps = Steps(self._see(_joined(following)), ended_TE, begun)
        novelty_TE = self._bonus.novelty(steps).cpu().numpy().astype(np.float64)
        scaled_TE = self.scale(novelty_TE, ended_TE)
        self.logger.record_mean("exploration/novelty", float(novelty_TE.mean()))
        self.logger.record_mean("exploration/reward", float(scaled_TE.mean()) * self.current_weight())
        return scaled_TE

    def _see(self, observations: Observations) -> Rows:
        return preprocessed(self.observer, observations) if self._embed is None else self._embed(observations)

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """What goes on in another process, as tensors by name and plain values; memories of episodes do not."""
        if self._restored is not None:
            return self._restored
        if self.bonus is None:
            return {}, {"bonus": None}
        return self.bonus.state(), {"bonus": type(self.bonus).__name__, "scale": self.scale.state()}

    def load_state(self, state: State) -> None:
        """Go on from what :meth:`state` returned, when `learn` starts."""
        self._restored = state if state[1]["bonus"] is not None else None

    def _put_back(self, state: State) -> None:
        tensors, values = state
        kind = type(self._bonus).__name__
        if values["bonus"] != kind:
            raise ValueError(f"the saved novelty bonus must be of the kind of this one, {kind}, got {values['bonus']}")
        self._bonus.load_state({name: tensor.to(self.model.device) for name, tensor in tensors.items()})
        self.scale.load_state(values["scale"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the state beside a model that is saved at `path`: `ppo.zip` -> `ppo.exploration.safetensors`."""
        sidecar.write(_beside(path), *self.state())

    def load(self, path: str | os.PathLike[str]) -> "NoveltyBonus":
        """Take over the state saved beside a model, and return this callback, which must be made as the saved one was.

        Raises:
            FileNotFoundError: nothing was saved there.
            ValueError: the file is no such state.
        """
        self.load_state(sidecar.read(_beside(path)))
        return self


def _beside(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path.with_name(path.name.removesuffix(".zip") + SUFFIX)


def _named(name: str) -> Callable[[Host], Bonus]:
    known = [own for own in options("exploration") if own != "none"]
    return build(option("exploration", choice("bonus", name, known)).bonus, trusted=True)


def _joined(parts: tuple[Observations, ...]) -> Observations:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
