"""Actor and contrastive critic of goal-conditioned reinforcement learning.

Shape legend: N rows, A numbers of an action (one-hot for a Discrete space), D dimension of representations.
"""

from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    create_mlp,
    get_actor_critic_arch,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import Actor
from torch import Tensor, nn

from ...clrl.actions import ActionCode
from ...core.check import number, whole
from .energy import make_energy, of_rows

GOAL = "desired_goal"


class ContrastiveCritic(nn.Module):
    """A classifier of future states: f(s, a, g) = energy(phi(s, a), psi(g)) / temperature.

    State and goal have a features extractor and an MLP each. The state is every entry of the observation but the
    desired goal: some environments leave the achieved goal out of `observation` (AntMaze does).

    Args:
        observation_space: Dict with `desired_goal`.
        action_space: Box or Discrete.
        net_arch: widths of the hidden layers of phi and of psi.
        features_extractor_class: what turns the entries of a Dict into one vector.
        features_extractor_kwargs: its arguments.
        activation_fn: of the hidden layers.
        layer_norm: whether a LayerNorm stands before each activation.
        repr_dim: dimension D of both representations.
        energy: `dot`, `cosine`, `l2`, `l2_squared` or `bilinear`.
        temperature: > 0.
        normalize_images: whether images are divided by 255.

    Raises:
        ValueError: an energy of another name, or a number out of range.
    """

    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Box | spaces.Discrete,
        net_arch: list[int],
        features_extractor_class: type[BaseFeaturesExtractor],
        features_extractor_kwargs: dict[str, Any],
        activation_fn: type[nn.Module] = nn.ReLU,
        layer_norm: bool = False,
        repr_dim: int = 64,
        energy: str = "l2",
        temperature: float = 1.0,
        normalize_images: bool = True,
    ) -> None:
        super().__init__()
        self.state_space = spaces.Dict({name: part for name, part in observation_space.items() if name != GOAL})
        self.goal_space = spaces.Dict({GOAL: observation_space[GOAL]})
        self.normalize_images = normalize_images
        # These names do not end in `features_extractor`: an auxiliary could not feed them a whole observation.
        self.state_extractor = features_extractor_class(self.state_space, **features_extractor_kwargs)
        self.goal_extractor = features_extractor_class(self.goal_space, **features_extractor_kwargs)
        dim = whole("repr_dim", repr_dim, 1)
        between: list[type[nn.Module]] = [nn.LayerNorm] if layer_norm else []
        self.code = ActionCode(action_space)
        state_action = self.state_extractor.features_dim + self.code.size
        goal = self.goal_extractor.features_dim
        self.phi = nn.Sequential(*create_mlp(state_action, dim, net_arch, activation_fn, post_linear_modules=between))
        self.psi = nn.Sequential(*create_mlp(goal, dim, net_arch, activation_fn, post_linear_modules=between))
        self.energy = make_energy(energy, dim)
        self.temperature = number("temperature", temperature, 0.0, above=True)

    def represent_state(self, observations: dict[str, Tensor]) -> Tensor:
        """Return features `(N, F)` of observations, whose desired goal is not looked at."""
        state = {name: observations[name] for name in self.state_space}
        features: Tensor = self.state_extractor(preprocess_obs(state, self.state_space, self.normalize_images))
        return features

    def represent_state_action(self, observations: dict[str, Tensor], actions: Tensor) -> Tensor:
        """Return phi `(N, D)` of observations and actions as buffers store them: `(N, A)` or `(N, 1)` choices."""
        code = self.code.encode(actions, actions.device)
        phi: Tensor = self.phi(torch.cat([self.represent_state(observations), code], dim=1))
        return phi

    def represent_goal(self, goals: Tensor) -> Tensor:
        """Return psi `(N, D)` of goals."""
        found = preprocess_obs({GOAL: goals}, self.goal_space, self.normalize_images)
        psi: Tensor = self.psi(self.goal_extractor(found))
        return psi

    def of_all_pairs(self, observations: dict[str, Tensor], actions: Tensor) -> Tensor:
        """Return f `(N, N)` of every state-action (rows) with every desired goal (columns)."""
        phi, psi = self.represent_state_action(observations, actions), self.represent_goal(observations[GOAL])
        return self.energy(phi, psi) / self.temperature

    def forward(self, observations: dict[str, Tensor], actions: Tensor) -> Tensor:
        """Return f `(N,)` of each state-action with its own desired goal."""
        phi, psi = self.represent_state_action(observations, actions), self.represent_goal(observations[GOAL])
        return of_rows(self.energy, phi, psi) / self.temperature

    def of_all_actions(self, observations: dict[str, Tensor]) -> Tensor:
        """Return f `(N, A)` of each state, its own desired goal and each of the A choices of a Discrete space."""
        features, psi = self.represent_state(observations), self.represent_goal(observations[GOAL])
        rows, choices = len(features), self.code.size
        code = torch.eye(choices, device=features.device).repeat(rows, 1)
        phi = self.phi(torch.cat([features.repeat_interleave(choices, 0), code], dim=1))
        energies = of_rows(self.energy, phi, psi.repeat_interleave(choices, 0)) / self.temperature
        return energies.view(rows, choices)


class CategoricalActor(BasePolicy):
    """The chances of each choice of a Discrete action space: a features extractor and an MLP.

    Args:
        observation_space: of whole observations, the desired goal included.
        action_space: Discrete.
        net_arch: widths of the hidden layers.
        features_extractor: of observations.
        features_dim: of its features.
        activation_fn: of the hidden layers.
        normalize_images: whether images are divided by 255.
    """

    optimizer: torch.optim.Optimizer
    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.net_arch, self.features_dim, self.activation_fn = net_arch, features_dim, activation_fn
        self.logits = nn.Sequential(*create_mlp(features_dim, int(action_space.n), net_arch, activation_fn))

    def log_chances(self, observations: PyTorchObs) -> Tensor:
        """Return log pi `(N, A)` of each choice."""
        return F.log_softmax(self.logits(self.extract_features(observations, self.features_extractor)), dim=1)

    def forward(self, observations: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Return choices `(N,)`: the likeliest, or one drawn by its chance."""
        distribution = CategoricalDistribution(int(self.action_space.n))  # type: ignore[attr-defined]
        return distribution.proba_distribution(self.log_chances(observations)).get_actions(deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self(observation, deterministic)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "net_arch": self.net_arch,
            "features_extractor": self.features_extractor,
            "features_dim": self.features_dim,
            "activation_fn": self.activation_fn,
        }


class ContrastivePolicy(BasePolicy):
    """SAC's actor, or for a Discrete space a :class:`CategoricalActor`, beside a :class:`ContrastiveCritic`.

    Args:
        observation_space: Dict with `observation`, `achieved_goal` and `desired_goal`.
        action_space: Box or Discrete.
        lr_schedule: learning rate by the remaining share of the training.
        net_arch: widths of hidden layers, one list or `{"pi": ..., "qf": ...}`; `qf` are those of phi and psi.
        activation_fn: of the hidden layers.
        layer_norm: LayerNorm in the critic, as Bortkiewicz et al. 2024 advise for wide and deep ones.
        repr_dim: dimension of the critic's representations.
        energy: see :class:`ContrastiveCritic`.
        temperature: see :class:`ContrastiveCritic`.
        features_extractor_class: of actor, states and goals, each their own.
        features_extractor_kwargs: its arguments.
        normalize_images: whether images are divided by 255.
        optimizer_class: of actor and critic.
        optimizer_kwargs: its arguments but the learning rate.
    """

    actor: Actor | CategoricalActor
    critic: ContrastiveCritic

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Box | spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        layer_norm: bool = False,
        repr_dim: int = 64,
        energy: str = "l2",
        temperature: float = 1.0,
        features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
        )
        self.arguments: dict[str, Any] = {
            "net_arch": [256, 256] if net_arch is None else net_arch,
            "activation_fn": activation_fn,
            "layer_norm": layer_norm,
            "repr_dim": repr_dim,
            "energy": energy,
            "temperature": temperature,
        }
        actor_arch, critic_arch = get_actor_critic_arch(self.arguments["net_arch"])
        self.actor_kwargs = {
            "observation_space": observation_space,
            "action_space": action_space,
            "net_arch": actor_arch,
            "activation_fn": activation_fn,
            "normalize_images": normalize_images,
        }
        self.actor = self.make_actor()
        self.critic = ContrastiveCritic(
            observation_space,
            action_space,
            critic_arch,
            self.features_extractor_class,
            self.features_extractor_kwargs,
            activation_fn,
            layer_norm,
            repr_dim,
            energy,
            temperature,
            normalize_images,
        )
        for part in (self.actor, self.critic):
            made: Any = self.optimizer_class
            part.optimizer = made(part.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor | CategoricalActor:
        """Return a new actor, with a features extractor of its own unless one is given."""
        arguments: Any = self._update_features_extractor(self.actor_kwargs, features_extractor)
        made = CategoricalActor if isinstance(self.action_space, spaces.Discrete) else Actor
        return made(**arguments).to(self.device)

    def judge(self, observations: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return `(N,)` log pi and `(N,)` f of the actor's actions, with gradients that reach the actor.

        Of a Box: of one action drawn for each observation, by reparametrisation. Of a Discrete space: what both are on
        average over the choices, which leaves nothing to chance and needs no gradient through the critic (Christodoulou
        2019, https://arxiv.org/abs/1910.07207, eq. 12).
        """
        if isinstance(self.actor, Actor):
            actions, log_chance = self.actor.action_log_prob(observations)
            return log_chance, self.critic(observations, actions)
        log_chances = self.actor.log_chances(observations)
        with torch.no_grad():
            energies = self.critic.of_all_actions(observations)
        chances = log_chances.exp()
        return (chances * log_chances).sum(1), (chances * energies).sum(1)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Return actions: `(N, A)` in [-1, 1] of a Box, `(N,)` choices of a Discrete space."""
        return self._predict(obs, deterministic=deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        action: Tensor = self.actor(observation, deterministic)
        return action

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            **self.arguments,
            "lr_schedule": self._dummy_schedule,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }
