"""Contrastive goal-conditioned reinforcement learning. Shape legend: N rows of a batch, A action values."""

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from torch import Tensor

from ...core.check import number, shape
from ...core.metrics import contrastive_metrics
from .losses import contrastive_loss, logsumexp_penalty
from .policy import GOAL, ContrastivePolicy
from .replay import FutureReplayBuffer

KEYS = ("observation", "achieved_goal", "desired_goal")


class ContrastiveRL(OffPolicyAlgorithm):
    """Reach goals without a reward: the critic tells futures apart, the actor makes the goal a likely future.

    The critic f(s, a, g) is trained to tell, in a batch of N transitions, which of N goals was reached later in the
    episode of which transition, with goals drawn as :class:`~contraux.agents.goal.replay.FutureReplayBuffer` says; at
    its best it is log p(g | s, a) - log p(g) up to what the loss leaves free, and so orders actions as a Q-function of
    "be at g" would. The actor maximises it with SAC's entropy term, whose temperature alpha is learned:

        critic  L(f) + c 1/N sum_i (log sum_j e^{f_ij})^2
        actor   1/N sum_i ( alpha log pi(a_i | s_i, g_i) - f(s_i, a_i, g_i) ),    a_i from pi

    (Eysenbach et al. 2022, https://arxiv.org/abs/2206.07568; Bortkiewicz et al. 2024,
    https://arxiv.org/abs/2408.11052.) Rewards and target networks play no part. Actions are a Box, with SAC's actor, or
    Discrete: the actor then gives the chance of each choice, and its loss is the mean over all of them in the place of
    one drawn (Christodoulou 2019, https://arxiv.org/abs/1910.07207).

    Deviations: goals are drawn from every stored transition, the latest of an unfinished episode included, where the
    papers store whole trajectories. One critic, as in the study, where the first authors' code can take the smaller of
    two. A terminal state is no absorbing one: futures end with the episode, however it ended. The usual target entropy
    of choices is ours.

    Args:
        policy: `MultiInputPolicy`, or a class with `actor` and `critic` like :class:`ContrastivePolicy`.
        env: goal-conditioned environment: observations are a Dict with `observation`, `achieved_goal`, `desired_goal`.
        learning_rate: of actor, critic and alpha; a number or a schedule.
        buffer_size: transitions kept, over all environments.
        learning_starts: steps of uniformly random actions before the first update.
        batch_size: N, which is also the number of goals each transition is compared with; >= 2.
        gamma: in (0, 1); how far in the future goals lie: 1 / (1 - gamma) steps on average, if episodes are longer.
        train_freq: steps between updates, or `(n, "episode")`.
        gradient_steps: updates each time; -1 for as many as steps were taken.
        energy: `dot`, `cosine`, `l2`, `l2_squared` or `bilinear`; see :func:`~contraux.agents.goal.energy.make_energy`.
        loss: `forward`, `backward`, `symmetric` or `binary`; see :mod:`contraux.agents.goal.losses`.
        temperature: energies are divided by it; > 0. A cosine wants one near 0.1.
        logsumexp_penalty: c, >= 0.
        random_goals: share of the actor's goals that come from another transition of the batch, in [0, 1]. 0: every
            goal is one this episode reached later (Bortkiewicz et al.); 0.5 (the first authors' code) trains on goals
            that nobody has been seen to reach from here as well.
        ent_coef: alpha, a number, or `auto` to learn it, `auto_0.1` to begin at 0.1.
        target_entropy: entropy that alpha is learned for, or `auto`: minus the number of action values of a Box, half
            the largest one, log(choices) / 2, of a Discrete space.
        stats_window_size: episodes the logged success and return are averaged over.
        tensorboard_log: folder, or None.
        policy_kwargs: see :class:`~contraux.agents.goal.policy.ContrastivePolicy`.
        verbose: Stable-Baselines3's verbosity.
        seed: of weights, exploration and batches.
        device: of the networks.
        _init_setup_model: whether the networks are made at once.

    Raises:
        ValueError: observations of another kind, or a value that breaks its rule.
        AssertionError: actions that are neither Box nor Discrete, from Stable-Baselines3.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MultiInputPolicy": ContrastivePolicy}
    policy: ContrastivePolicy
    replay_buffer: FutureReplayBuffer

    def __init__(
        self,
        policy: str | type[ContrastivePolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1000,
        batch_size: int = 256,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        energy: str = "l2",
        loss: str = "symmetric",
        temperature: float = 1.0,
        logsumexp_penalty: float = 0.1,
        random_goals: float = 0.5,
        ent_coef: str | float = "auto",
        target_entropy: str | float = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            gamma=number("gamma", gamma, 0.0, 1.0, above=True, below=True),
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            replay_buffer_class=FutureReplayBuffer,
            replay_buffer_kwargs={"gamma": gamma},
            policy_kwargs={**(policy_kwargs or {}), "energy": energy, "temperature": temperature},
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete),
        )
        contrastive_loss(loss)  # says at once if there is none of that name
        self.loss = loss
        self.logsumexp_penalty = number("logsumexp_penalty", logsumexp_penalty, 0.0)
        self.random_goals = number("random_goals", random_goals, 0.0, 1.0)
        self.ent_coef, self.target_entropy = ent_coef, target_entropy
        self.log_ent_coef: Tensor | None = None
        self.ent_coef_optimizer: torch.optim.Adam | None = None
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        check_goal_space(self.observation_space)
        if isinstance(self.action_space, spaces.Discrete) and self.action_space.start != 0:
            raise ValueError(f"choices must count from 0, got {self.action_space}")
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 2:
            raise ValueError(f"batch_size must be a whole number >= 2, got {self.batch_size!r}")
        super()._setup_model()
        if self.target_entropy == "auto":
            self.target_entropy = usual_entropy(self.action_space)
        self.target_entropy = number("target_entropy", self.target_entropy)
        learned, initial = entropy_coefficient(self.ent_coef)
        if learned:
            self.log_ent_coef = torch.tensor([np.log(initial)], device=self.device, dtype=torch.float32)
            self.log_ent_coef.requires_grad_(True)
            self.ent_coef_optimizer = torch.optim.Adam([self.log_ent_coef], lr=self.lr_schedule(1))
        else:
            self.ent_coef_tensor = torch.tensor(initial, device=self.device)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if reset_num_timesteps or self._last_obs is None:  # SB3 resets the environments now, with no word to the buffer
            self.replay_buffer.interrupt()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """Take `gradient_steps` steps of critic, alpha and actor, each on one batch for all three; log the last one."""
        self.policy.set_training_mode(True)
        optimizers = [self.policy.actor.optimizer, self.policy.critic.optimizer]
        if self.ent_coef_optimizer is not None:
            optimizers.append(self.ent_coef_optimizer)
        self._update_learning_rate(optimizers)
        found: dict[str, Tensor] = {}
        for step in range(gradient_steps):
            batch = self.replay_buffer.sample_futures(batch_size, env=self._vec_normalize_env)
            energies_NN, critic = self._train_critic(batch.observations, batch.actions)
            actor = self._train_actor(batch.observations)
            if step == gradient_steps - 1:
                true = torch.arange(batch_size, device=self.device)
                found = {**critic, **actor, **contrastive_metrics(energies_NN, true, temperature=1.0)}
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, value in found.items():
            self.logger.record(f"train/{name}", value.item())

    def _train_critic(self, observations: dict[str, Tensor], actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        energies_NN = self.policy.critic.of_all_pairs(observations, actions)
        loss = contrastive_loss(self.loss)(energies_NN)
        penalty = logsumexp_penalty(energies_NN)
        self.policy.critic.optimizer.zero_grad()
        (loss + self.logsumexp_penalty * penalty).backward()
        self.policy.critic.optimizer.step()
        return energies_NN.detach(), {"critic_loss": loss.detach(), "logsumexp_penalty": penalty.detach()}

    def _train_actor(self, observations: dict[str, Tensor]) -> dict[str, Tensor]:
        goals = shuffled(observations[GOAL], round(self.random_goals * len(observations[GOAL])))
        observations = {**observations, GOAL: goals}
        log_prob, energy = self.policy.judge(observations)
        alpha = self._train_alpha(log_prob.detach())
        loss = (alpha * log_prob - energy).mean()
        # Gradients of the actor alone: those of the critic's weights would be thrown away.
        weights = [weight for weight in self.policy.actor.parameters() if weight.requires_grad]
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            weight.grad = gradient
        self.policy.actor.optimizer.step()
        return {"actor_loss": loss.detach(), "ent_coef": alpha, "entropy": -log_prob.detach().mean()}

    def _train_alpha(self, log_prob: Tensor) -> Tensor:
        """Take a step towards the target entropy, and return alpha as it was before."""
        if self.log_ent_coef is None or self.ent_coef_optimizer is None:
            return self.ent_coef_tensor
        alpha = self.log_ent_coef.detach().exp().squeeze()
        loss = -(self.log_ent_coef * (log_prob.mean() + float(self.target_entropy))).sum()
        self.ent_coef_optimizer.zero_grad()
        loss.backward()
        self.ent_coef_optimizer.step()
        return alpha

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        optimizers = ["policy.actor.optimizer", "policy.critic.optimizer"]
        if self.ent_coef_optimizer is None:
            return ["policy", *optimizers], ["ent_coef_tensor"]
        return ["policy", *optimizers, "ent_coef_optimizer"], ["log_ent_coef"]


def shuffled(goals: Tensor, count: int) -> Tensor:
    """Return `(N, ...)` goals of which each of the first `count` is that of the row before it, in a ring of those."""
    return torch.cat([goals[:count].roll(1, 0), goals[count:]])


def usual_entropy(space: spaces.Space[Any]) -> float:
    """Return the entropy, in nats, that alpha is learned for where none is given."""
    if isinstance(space, spaces.Discrete):
        return float(np.log(space.n)) / 2
    return -float(np.prod(space.shape))  # type: ignore[arg-type]


def entropy_coefficient(value: str | float) -> tuple[bool, float]:
    """Return whether alpha is learned and where it begins, from a number, `auto` or `auto_0.1`.

    Raises:
        ValueError: anything else, or a number below 0 (for `auto`, not above 0).
    """
    if not isinstance(value, str):
        return False, number("ent_coef", value, 0.0)
    kind, _, initial = value.partition("_")
    try:
        start = float(initial) if initial else 1.0
    except ValueError:
        start = 0.0
    if kind != "auto" or not 0 < start < float("inf"):
        raise ValueError(f"ent_coef must be a number >= 0, 'auto' or 'auto_' and a number > 0, got {value!r}")
    return True, start


def check_goal_space(space: spaces.Space[Any]) -> None:
    """Raise a ValueError unless observations are those of a goal-conditioned environment."""
    names = list(space) if isinstance(space, spaces.Dict) else type(space).__name__
    if not isinstance(space, spaces.Dict) or not set(KEYS) <= set(space):
        raise ValueError(f"observations must be a Dict with {', '.join(KEYS)}, got {names}")
    achieved, desired = space["achieved_goal"], space["desired_goal"]
    if achieved.shape != desired.shape:
        raise ValueError(f"achieved and desired goal must have one shape, got {shape(achieved)} and {shape(desired)}")
