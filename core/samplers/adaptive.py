"""What adaptive samplers share: arms, and the reward by which they choose. Shape legend: N queries, M candidates."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..check import number, whole
from .hardness import hardness_weights
from .weighting import Weighting

SCALE_DECAY = 0.9  # by which the scale of rewards forgets a large gain, for each decision


class Arm(NamedTuple):
    """One way to weigh negatives.

    Attributes:
        hardness: >= 0, beta of `Hardness`.
        hard_ratio: in [0, 1], share of the weight that is dealt out by hardness; the rest is uniform.
        temperature: > 0, of the loss; None leaves the objective's own.
    """

    hardness: float
    hard_ratio: float
    temperature: float | None = None


def arm_weights(similarity: Tensor, negative: Tensor, hardness: float, hard_ratio: float, temperature: float) -> Tensor:
    """Return `(N, M)` weights (1 - ratio) + ratio `hardness_weights`, of mean 1 over each row's negatives."""
    return (1 - hard_ratio) + hard_ratio * hardness_weights(similarity, negative, hardness, temperature)


def tally(similarity: Tensor, negative: Tensor, is_positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many queries have a positive more similar than every negative, and how many have both (long scalars).

    Similarities are taken as they are, without weights; a tie is not correct.
    """
    best_N = similarity.masked_fill(~is_positive, -torch.inf).amax(1)
    rival_N = similarity.masked_fill(~negative, -torch.inf).amax(1)
    both_N = is_positive.any(1) & negative.any(1)
    return ((best_N > rival_N) & both_N).sum(), both_N.sum()


def scaled_gain(gain: float, scale: float) -> tuple[float, float]:
    """Return `(1 + gain / scale') / 2` in [0, 1] and the new scale', the largest |gain| of late.

    scale' is |gain| or 0.9 times the scale before, whichever is larger, so that rewards use the whole range again when
    gains shrink in the course of training. 0.5 is no gain.
    """
    scale = max(abs(gain), SCALE_DECAY * scale)
    return (0.5 if scale == 0 else (1 + gain / scale) / 2), scale


class Adaptive(Weighting):
    """A sampler that chooses an arm every `interval` batches by what the last ones gained; a subclass says how.

    **Reward.** In training mode every batch is measured before the update that it causes: the share of its queries
    whose positive is more similar than all negatives that are not excluded, all weighing 1 (`tally`). So each batch is
    held out until it is measured (prequential evaluation), no further data are needed, and arms are compared by one
    measure, which does not depend on what they do to the loss. With batches that repeat old examples it is held out
    only as far as their views are new. The reward of a decision is the mean accuracy while it was in force less that
    of the interval before, scaled to [0, 1] by `scaled_gain`.

    **Warm-up.** The first batches weigh all negatives alike, because mining from the start can collapse an encoder. It
    ends with the first whole interval after `warmup` batches; there is at least one, with which the first decision is
    compared.

    **Memory of the choice.** Everything learned is in the `state_dict`; draws depend on the seed and the number of the
    decision alone, so that a sampler restored from it goes on as if nothing had happened. In evaluation nothing is
    measured or chosen.

    Decisions are taken by `remember`, in plain numbers. It reads two scalars from the device, once in `interval`
    batches, and nothing else waits for it. Columns of a memory count among the negatives: while a queue fills up,
    accuracy falls for that reason alone, which is best left to the warm-up. In a distributed run each process decides
    by its own queries.
    """

    correct: Tensor
    seen: Tensor

    def __init__(self, interval: int, warmup: int, temperature: float, resting: float | None) -> None:
        super().__init__()
        kind = type(self).__name__
        self.interval = whole(f"interval of {kind}", interval, 1)
        self.warmup = whole(f"warmup of {kind}", warmup)
        self.divisor = number(f"temperature of {kind}", temperature, 0.0, above=True)
        self.register_buffer("correct", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.arm = Arm(0.0, 0.0, resting)  # in force now; this one in the warm-up
        self.temperature = resting
        self.decisions = 0
        self.reward = 0.5  # of the last decision that was judged
        self._batches = 0
        self._before = 0.0  # accuracy of the interval before
        self._scale = 0.0
        self._reported: dict[str, Tensor] = {}

    def choose(self) -> Arm:
        """Return the arm for the next interval; `decisions` counts it already."""
        raise NotImplementedError

    def learn(self, reward: float) -> None:
        """Take notice of the reward, in [0, 1], of the arm chosen last."""
        raise NotImplementedError

    def report(self) -> dict[str, float]:
        """Return what else to report of the choice."""
        return {}

    @torch.no_grad()
    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return the `arm_weights` of the arm in force, without gradient, and count who is correct."""
        if self.training:
            correct, seen = tally(similarity, negative, is_positive)
            self.correct += correct
            self.seen += seen
        hardness, hard_ratio, temperature = self.arm
        return arm_weights(similarity, negative, hardness, hard_ratio, temperature or self.divisor)

    @torch.no_grad()
    def remember(self, key: Tensor, context: Mapping[str, Tensor]) -> None:
        """Count the batch, and at the end of an interval learn and choose; only in training mode."""
        if not self.training:
            return
        self._batches += 1
        if self._batches % self.interval:
            return
        correct, seen = torch.stack((self.correct, self.seen)).tolist()
        self.correct.zero_()
        self.seen.zero_()
        if not seen:  # no query had both a positive and a negative
            return
        accuracy = correct / seen
        if self.decisions:
            self.reward, self._scale = scaled_gain(accuracy - self._before, self._scale)
            self.learn(self.reward)
        self._before = accuracy
        if self._batches >= self.warmup:
            self.decisions += 1
            self.arm = self.choose()
            self.temperature = self.arm.temperature
        self._reported = {}

    def metrics(self) -> dict[str, Tensor]:
        """Return hardness, hard ratio and, where it is chosen, temperature in force, and the last reward (`sampler/`).

        The tensors are made anew only after a decision.
        """
        if not self._reported or next(iter(self._reported.values())).device != self.seen.device:
            chosen = {} if self.temperature is None else {"temperature": self.temperature}
            found = {"hardness": self.arm.hardness, "hard_ratio": self.arm.hard_ratio, **chosen, "reward": self.reward}
            self._reported = {
                f"sampler/{name}": torch.full((), value, device=self.seen.device)
                for name, value in {**found, **self.report()}.items()
            }
        return dict(self._reported)

    def learned(self) -> Sequence[float]:
        """Return what the subclass has learned, for the state."""
        raise NotImplementedError

    def restore(self, learned: list[float]) -> None:
        """Take back what `learned` returned."""
        raise NotImplementedError

    def get_extra_state(self) -> Tensor:
        """Return counters, the arm in force and what was learned, as a float64 vector for `state_dict`."""
        arm = (self.arm.hardness, self.arm.hard_ratio, self.arm.temperature or math.nan)
        counters = (self._batches, self.decisions, self.reward, self._before, self._scale)
        return torch.tensor([*counters, *arm, *self.learned()], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what `get_extra_state` returned."""
        batches, decisions, self.reward, self._before, self._scale, hardness, ratio, temperature, *rest = state.tolist()
        self._batches, self.decisions = int(batches), int(decisions)
        self.arm = Arm(hardness, ratio, None if math.isnan(temperature) else temperature)
        self.temperature = self.arm.temperature
        self._reported = {}
        self.restore(rest)
