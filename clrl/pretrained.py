"""A pretrained encoder as the features extractor of any Stable-Baselines3 policy."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.optim import Adam

from ..core.check import choice, number
from ..core.encoders import PretrainedEncoder, load_encoder
from .slow import SlowOptimizer, slow_down

MODES = ("finetune", "frozen", "slow")


def pretrained_encoder(
    checkpoint: str | Path | PretrainedEncoder,
    mode: str = "finetune",
    learning_rate_scale: float = 0.1,
    **policy_kwargs: Any,
) -> dict[str, Any]:
    """`policy_kwargs` that make a pretrained encoder the features extractor of a policy.

    A saved model brings its weights with it: it loads where the checkpoint is not. An `optimizer_class` that the
    algorithm itself would choose (A2C's RMSprop) must be given here in mode `slow`, which otherwise takes Adam.

    Example:
        `PPO("CnnPolicy", env, policy_kwargs=pretrained_encoder("runs/pretrain/...", mode="frozen"))`

    Args:
        checkpoint: a run folder of `contraux pretrain`, an encoder's folder, the name of a model on the Hugging Face
            Hub, or a loaded encoder.
        mode: `finetune` trains it like the rest of the policy; `frozen` never, and in evaluation mode throughout, so
            that running statistics stay too; `slow` trains it with a smaller learning rate.
        learning_rate_scale: of mode `slow`, in (0, 1]: its share of the policy's learning rate.
        policy_kwargs: anything else for the policy, e.g. `net_arch=[64]`.

    Raises:
        ValueError: a value breaks its rule, or there is no encoder; when the policy is made, observations of another
            shape or range than the encoder was trained on.
    """
    choice("mode", mode, MODES)
    scale = number("learning_rate_scale", learning_rate_scale, 0.0, 1.0, above=True)
    taken = sorted({"features_extractor_class", "features_extractor_kwargs"} & set(policy_kwargs))
    if taken:
        raise ValueError(f"a pretrained encoder is the features extractor, got {taken[0]} for the policy too")
    encoder = checkpoint if isinstance(checkpoint, PretrainedEncoder) else load_encoder(checkpoint)
    if mode != "frozen" and not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(f"mode={mode} trains the encoder, got one whose weights are all frozen (requires_grad=False)")
    if mode == "slow":
        policy_kwargs["optimizer_class"] = SlowOptimizer(policy_kwargs.get("optimizer_class", Adam))
    return {
        "features_extractor_class": PretrainedExtractor,
        "features_extractor_kwargs": {
            "checkpoint": Checkpoint(encoder),
            "frozen": mode == "frozen",
            "learning_rate_scale": scale if mode == "slow" else None,
            "normalize_images": policy_kwargs.get("normalize_images", True),
        },
        **policy_kwargs,
    }


class PretrainedExtractor(BaseFeaturesExtractor):
    """`(N, ...)` preprocessed observations -> `(N, features_dim)` features of a pretrained encoder.

    Stable-Baselines3 has divided images by 255 before; the encoder's mean and standard deviation remain.

    Args:
        observation_space: images (channels first) or vectors of the very shape the encoder was trained on.
        checkpoint: where each extractor of a policy takes its copy of the encoder.
        frozen: weights are buffers, unknown to any optimizer, and the encoder is always in evaluation mode.
        learning_rate_scale: marks the parameters for a `SlowOptimizer`; None does not.
        normalize_images: the policy's: whether images were divided by 255 before.

    Raises:
        ValueError: observations of another shape or range than the encoder's inputs.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        checkpoint: "Checkpoint",
        frozen: bool = False,
        learning_rate_scale: float | None = None,
        normalize_images: bool = True,
    ) -> None:
        encoder, self_contained = checkpoint.make()
        check_observations(observation_space, encoder)
        super().__init__(observation_space, encoder.out_features)
        self.frozen, self.has_weights = frozen, self_contained
        self.divisor = 255.0 if is_image_space(observation_space) and not normalize_images else None
        self.encoder = encoder
        if frozen:
            _make_buffers(encoder)
        elif learning_rate_scale is not None:
            slow_down(encoder, learning_rate_scale)
        self.train()

    def forward(self, observations: Tensor) -> Tensor:
        """Return `(N, features_dim)` features.

        Raises:
            ValueError: the extractor was unpickled, and nothing has loaded weights into it since.
        """
        if not self.has_weights:
            raise ValueError(
                "the policy_kwargs of a pretrained encoder are pickled without its weights, which a saved model "
                "brings: call pretrained_encoder anew in each process that makes a model"
            )
        if self.divisor is not None:
            observations = observations / self.divisor
        if not self.encoder.is_image:
            observations = observations.flatten(start_dim=1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder(observations)

    def train(self, mode: bool = True) -> "PretrainedExtractor":
        """Set training mode, which a frozen encoder never enters."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yield the weights, also frozen ones, which are none of the policy's parameters."""
        yield from self.encoder.state_dict(keep_vars=True).values() if self.frozen else super().parameters(recurse)

    def apply(self, fn: Callable[[nn.Module], None]) -> "PretrainedExtractor":
        """Do nothing: on-policy algorithms initialise encoders this way (orthogonally), after they were made."""
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.has_weights |= any(name.startswith(prefix) for name in state_dict)


class Checkpoint:
    """A loaded encoder among the arguments of a policy: it hands out copies, and is pickled without the weights.

    Stable-Baselines3 pickles those arguments into every saved model, beside the weights. An encoder of a class that is
    not contraux's, which no description could bring back, is pickled whole.

    Args:
        encoder: the loaded encoder.
    """

    def __init__(self, encoder: PretrainedEncoder) -> None:
        self.config = encoder.config()
        self.encoder: PretrainedEncoder | None = encoder

    def make(self) -> tuple[PretrainedEncoder, bool]:
        """Return an encoder of the policy's own, and whether it has its weights."""
        if self.encoder is None:
            return PretrainedEncoder.from_config(self.config, source="the saved model"), False
        return deepcopy(self.encoder), True

    def __deepcopy__(self, memo: Any) -> "Checkpoint":
        return self  # nothing changes it

    def __getstate__(self) -> dict[str, Any]:
        whole = self.encoder is not None and not self.encoder.is_described
        return {"config": self.config, "encoder": self.encoder if whole else None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checkpoint) and self.config == other.config

    def __hash__(self) -> int:
        return hash(repr(self.config))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config['encoder']}, input_shape={self.config['input_shape']})"


def check_observations(space: spaces.Space, encoder: PretrainedEncoder) -> None:
    """Raise ValueError unless what Stable-Baselines3 makes of observations is what the encoder was trained on."""
    if isinstance(space, spaces.Dict):
        raise ValueError(f"a pretrained encoder reads one array, got observations {space}")
    wanted = encoder.input_shape
    found = space.shape if isinstance(space, spaces.Box) else (get_flattened_obs_dim(space),)
    if found != wanted:
        raise ValueError(
            f"the encoder was trained on inputs {wanted}, but observations are {found}{_hint(found, wanted)}"
        )
    if encoder.is_image and not is_image_space(space):
        low, high = np.min(space.low), np.max(space.high)  # type: ignore[attr-defined]
        if not (low >= 0 and high <= 1):
            raise ValueError(
                "the encoder was trained on images, uint8 in [0, 255] or floats in [0, 1], "
                f"but observations are {space.dtype} in [{low}, {high}]"
            )


def _hint(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(found) != 3 or len(wanted) != 3:
        return ""
    if (found[2], *found[:2]) == wanted:
        return ", with channels last, which Stable-Baselines3 changes for uint8 images only"
    (channels, *size), (ours, *own) = found, wanted
    if size == own and channels != ours:
        return f": {channels} channels, stacked frames included, and not {ours}"
    return ""


def _make_buffers(module: nn.Module) -> None:
    """Turn parameters into buffers of the same names: state dictionaries stay, no optimizer finds them."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
