"""An observation, some that came before it and the k that follow, with the actions between: CPC, SPR, TACO.

Shape legend: N windows, D features, k steps ahead, P observations of the past, A numbers in the code of an action.
"""

import torch
from torch import Tensor, nn

from ...core.check import choice, whole
from ...core.encoders import MomentumEncoder
from ...core.pairs import Pairs
from ..observations import Observer, Views
from ..stores import Window
from .stack import stack


class Sequences(nn.Module):
    """Query: features of o_t. Keys: features of o_{t+1} … o_{t+k}. Actions, rewards and the past are context.

    `Pairs.key` is `(k N, D)`, all windows of the first step, then all of the second; `Pairs.positive` names the first.
    With `keys="last"` only o_{t+k} is encoded and `Pairs.key` is `(N, D)`. The context holds

        past    (N, P, D)  features of o_{t-P} … o_{t-1}, with gradient, where `past` > 0
        action  (N, k, A)  codes of a_t … a_{t+k-1}, where `actions`
        reward  (N, k)     rewards for these actions, where `rewards`
        view    (N, D)     features of another view of o_t, encoded as keys are, where `second_view`

    Windows lie within one episode, so that recurrent contexts need no padding.

    Args:
        encoder: the host's features extractor; it stays the host's and is no part of this module's state.
        observer: the host's spaces and preprocessing.
        k: steps ahead, an integer >= 1.
        past: P, an integer >= 0.
        keys: `all` or `last`.
        momentum: of the key encoder, an exponential moving average of the encoder, in [0, 1); None shares the encoder,
            gradient included; 0 shares it without a gradient.
        views: the view of each kind of leaf; every observation is seen through its own draw.
        actions: whether the context has actions.
        rewards: whether it has rewards.
        second_view: whether it has another view of the query's observation.

    Raises:
        ValueError: a number out of range, or actions of a space that has no code.
    """

    def __init__(
        self,
        encoder: nn.Module,
        observer: Observer,
        *,
        k: int,
        past: int = 0,
        keys: str = "all",
        momentum: float | None = None,
        views: Views | None = None,
        actions: bool = False,
        rewards: bool = False,
        second_view: bool = False,
    ):
        super().__init__()
        self.k, self.past, self.keys = whole("k", k, 1), whole("past", past, 0), choice("keys", keys, ("all", "last"))
        self.horizon = self.past + self.k
        self.actions, self.rewards = actions, rewards
        self.second_view = second_view
        self.sizes: dict[str, int | tuple[int, ...]] = {"steps": self.k}
        if actions:
            self.sizes |= {"action_dim": observer.actions.size, "action_choices": observer.actions.choices}
        self.views: Views = dict(views or {})
        self.observer = observer
        self._encoder = (encoder,)  # in a tuple: the host's module is not registered as ours
        self.key_gradient = momentum is None
        self.key_encoder = MomentumEncoder(encoder, momentum) if momentum else None

    def forward(self, window: Window, generator: torch.Generator) -> Pairs:
        """Encode each window in as few passes as gradients allow."""
        steps = self.k if self.keys == "all" else 1
        own = [self._see(window, offset, generator) for offset in range(self.past + 1)]
        keys = [self._see(window, self.horizon - back, generator) for back in reversed(range(steps))]
        if self.second_view:
            keys.append(self._see(window, self.past, generator))
        encode = self._encoder[0].forward
        if self.key_gradient:
            features = encode(stack(own + keys))
            n = len(features) // (len(own) + len(keys))
            seen, key = features.split([len(own) * n, len(keys) * n])
        else:
            with torch.no_grad():
                key = (self.key_encoder or encode)(stack(keys))
            seen = encode(stack(own))
            n = len(seen) // len(own)
        context: dict[str, Tensor] = {}
        if self.past:
            context["past"] = seen[: self.past * n].unflatten(0, (self.past, n)).transpose(0, 1)
        taken = range(self.past, self.horizon)
        if self.second_view:
            key, context["view"] = key[: steps * n], key[steps * n :]
        if self.actions:
            codes = [self.observer.actions.encode(window.action(offset), key.device) for offset in taken]
            context["action"] = torch.stack(codes, dim=1)
        if self.rewards:
            earned = [torch.as_tensor(window.reward(offset), device=key.device) for offset in taken]
            context["reward"] = torch.stack(earned, dim=1)
        return Pairs(seen[self.past * n :], key, torch.arange(n, device=key.device), context=context)

    def _see(self, window: Window, offset: int, generator: torch.Generator) -> Tensor | dict[str, Tensor]:
        return self.observer.encoder_input(window.observation(offset), self.views, generator)

    def update(self) -> None:
        """Move the key encoder towards the encoder."""
        if self.key_encoder is not None:
            self.key_encoder.update(self._encoder[0])
