"""Actor and contrastive critic of goal-conditioned reinforcement learning.

Shape legend: N rows, A action values, D dimension of representations.
"""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim, preprocess_obs
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    create_mlp,
    get_actor_critic_arch,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import Actor
from torch import Tensor, nn

from ...core.check import number, whole
from .energy import make_energy, of_rows

GOAL = "desired_goal"


class ContrastiveCritic(nn.Module):
    """A classifier of future states: f(s, a, g) = energy(phi(s, a), psi(g)) / temperature.

    State and goal have a features extractor and an MLP each. The state is every entry of the observation but the
    desired goal: some environments leave the achieved goal out of `observation` (AntMaze does).

    Args:
        observation_space: Dict with `desired_goal`.
        action_space: Box.
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
        action_space: spaces.Box,
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
        state_action = self.state_extractor.features_dim + get_action_dim(action_space)
        goal = self.goal_extractor.features_dim
        self.phi = nn.Sequential(*create_mlp(state_action, dim, net_arch, activation_fn, post_linear_modules=between))
        self.psi = nn.Sequential(*create_mlp(goal, dim, net_arch, activation_fn, post_linear_modules=between))
        self.energy = make_energy(energy, dim)
        self.temperature = number("temperature", temperature, 0.0, above=True)

    def represent_state_action(self, observations: dict[str, Tensor], actions: Tensor) -> Tensor:
        """Return phi `(N, D)` of observations, whose desired goal is not looked at, and actions `(N, A)`."""
        state = {name: observations[name] for name in self.state_space}
        features = self.state_extractor(preprocess_obs(state, self.state_space, self.normalize_images))
        phi: Tensor = self.phi(torch.cat([features, actions], dim=1))
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


class ContrastivePolicy(BasePolicy):
    """SAC's actor beside a :class:`ContrastiveCritic`.

    Args:
        observation_space: Dict with `observation`, `achieved_goal` and `desired_goal`.
        action_space: Box.
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

    actor: Actor
    critic: ContrastiveCritic

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Box,
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

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        """Return a new actor, with a features extractor of its own unless one is given."""
        arguments: Any = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return Actor(**arguments).to(self.device)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Return actions `(N, A)` in [-1, 1]."""
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
