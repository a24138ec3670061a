"""Where a bonus enters an algorithm: the rollout's rewards before they are learnt from, or the reward that is stored.

Shape legend: T steps of a rollout, E environments.
"""

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer


def is_on_policy(model: BaseAlgorithm) -> bool:
    """Whether the algorithm learns from a rollout buffer (else from a replay buffer).

    Raises:
        ValueError: it has neither, or a replay buffer that computes rewards anew.
    """
    if getattr(model, "rollout_buffer", None) is not None:
        return True
    replay = getattr(model, "replay_buffer", None)
    if replay is None:
        raise ValueError(
            f"a novelty bonus needs an algorithm with a rollout or replay buffer, got {type(model).__name__}"
        )
    if isinstance(replay, HerReplayBuffer):
        raise ValueError(
            "a novelty bonus needs a replay buffer that keeps the rewards it is given, got HerReplayBuffer, which "
            "computes those of relabelled goals anew"
        )
    return False


def add_to_rollout(buffer: Any, bonus_TE: np.ndarray, dones: np.ndarray) -> None:
    """Add a bonus to the rewards of a whole rollout, and compute its returns and advantages anew.

    What the rewards hold already, the value of a truncated episode's last observation, stays.

    Args:
        buffer: a rollout buffer whose advantages have been computed, before its first `get`.
        bonus_TE: `(T, E)` what to add.
        dones: `(E,)` bool, whether the last step ended an episode.
    """
    values = last_values(buffer, dones)
    buffer.rewards += bonus_TE.astype(buffer.rewards.dtype)
    buffer.compute_returns_and_advantage(last_values=torch.as_tensor(values), dones=dones)


def last_values(buffer: Any, dones: np.ndarray) -> np.ndarray:
    """The host's values `(E,)` of the observations after the rollout, read from the advantages of its last step.

        A_T = r_T + gamma V(o_{T+1}) - V(o_T)    where the episode goes on

    so that it does not matter how an algorithm computes a value (with recurrent states, for example); 0 where the
    episode ended, whose last step has no value after it.
    """
    going_on = ~np.asarray(dones, dtype=bool)
    if not buffer.gamma:
        return np.zeros(len(going_on), dtype=np.float32)
    last_A, last_V, last_r = (np.asarray(x[-1], np.float64) for x in (buffer.advantages, buffer.values, buffer.rewards))
    return np.where(going_on, (last_A + last_V - last_r) / buffer.gamma, 0.0).astype(np.float32)


def add_to_stored(model: BaseAlgorithm, rewards: np.ndarray, bonus_E: np.ndarray) -> None:
    """Add a bonus to the rewards that an off-policy algorithm is about to store.

    With `VecNormalize` what is stored are the environment's own rewards, which are divided when a batch is drawn: the
    bonus is multiplied by the divisor of now, so that it comes out as large as it went in. The running statistics of
    rewards never see it.

    Args:
        model: the host.
        rewards: `(E,)` the rewards the collecting loop holds; changed in place.
        bonus_E: `(E,)` what to add.

    Raises:
        ValueError: the rewards are integers, which cannot take a bonus in place.
    """
    normalize = model.get_vec_normalize_env()
    if normalize is not None:
        normalize.old_reward = normalize.old_reward + normalize.unnormalize_reward(bonus_E)
        return
    if not np.issubdtype(rewards.dtype, np.floating):
        raise ValueError(f"a novelty bonus needs rewards of a floating type, got {rewards.dtype} from the environment")
    rewards += bonus_E.astype(rewards.dtype)
