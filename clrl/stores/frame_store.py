"""Stacks of frames kept as references to single frames, each stored once.

Shape legend: T rows, E environments, C channels (of all frames of a stack together), H x W pixels.
"""

from typing import Any

import numpy as np

ZERO = 0  # the slot of the black channel, with which stacks are padded at an episode's start


class FrameStore:
    """Two tables of T x E stacks, `now` and `following`, whose equal channels are stored once.

    What is shared is decided by comparing bytes, never by what an environment ought to do, so that what comes out
    equals what went in whatever that was: a stack that equals the last one written to `following` takes its channels
    over, and one that continues the stack beside it takes over all but its newest frame. Everything else (an
    episode's first stack, a frame that was skipped) is stored anew. Slots nobody refers to any more are used again.

    Args:
        rows: T.
        n_envs: E.
        shape: of one stack, `(C, H, W)`, the oldest frame first.
    """

    def __init__(self, rows: int, n_envs: int, shape: tuple[int, ...]):
        self.shape = shape
        channels = shape[0]
        self.now = np.zeros((rows, n_envs, channels), dtype=np.int32)
        self.following = np.zeros_like(self.now)
        # One new frame a step, and a margin for the first stacks of episodes; pages never written take no memory.
        self.slots = np.empty((1 + rows * n_envs + rows * n_envs // 32 + 2 * channels * n_envs, *shape[1:]), np.uint8)
        self.slots[ZERO] = 0
        self.references = np.zeros(len(self.slots), dtype=np.int32)
        self.references[ZERO] = np.iinfo(np.int32).max // 2  # never given up
        self.used = 1  # slots from here on were never written
        self.given_up: list[int] = []
        # Channels of one frame: 1 for grey ones, 3 for colour. Which it is shows in how stacks continue each other.
        self.strides = [n for n in range(1, channels) if channels % n == 0]
        self.last: tuple[np.ndarray, np.ndarray] | None = None  # the newest stacks (E, C, H, W) and slots (E, C)
        self.acted_on = np.zeros((n_envs, *shape), np.uint8)  # the stacks last written to `now`

    @property
    def nbytes(self) -> int:
        """Bytes of the frames written so far, and of the tables."""
        tables = self.now.nbytes + self.following.nbytes + self.references.nbytes
        return self.used * int(self.slots[ZERO].nbytes) + tables

    def interrupt(self) -> None:
        """Say that what is written next does not follow what was written last."""
        self.last = None

    def write_now(self, row: int, stacks: np.ndarray) -> None:
        """Put stacks `(E, C, H, W)` into a row of `now`."""
        found = np.empty(self.now.shape[1:], dtype=np.int32)
        same = np.zeros(len(stacks), dtype=bool)
        if self.last is not None:
            same = (stacks == self.last[0]).reshape(len(stacks), -1).all(axis=1)
            found[same] = self.last[1][same]
        for env in np.flatnonzero(~same):
            found[env] = self._anew(stacks[env])
        self._assign(self.now, row, found)
        self.acted_on = stacks

    def write_following(self, row: int, stacks: np.ndarray) -> None:
        """Put stacks `(E, C, H, W)` into a row of `following`, after the same row of `now`."""
        found = np.empty(self.following.shape[1:], dtype=np.int32)
        remaining = np.arange(len(stacks))
        for stride in self.strides:
            before, after = self.acted_on, stacks
            if len(remaining) < len(stacks):
                before, after = before[remaining], after[remaining]
            continues = (after[:, :-stride] == before[:, stride:]).reshape(len(remaining), -1).all(axis=1)
            envs = remaining[continues]
            found[envs, :-stride] = self.now[row, envs, stride:]
            found[envs, -stride:] = self._store(stacks[envs, -stride:])
            remaining = remaining[~continues]
            if not len(remaining):
                self.strides.remove(stride)
                self.strides.insert(0, stride)  # tried first the next time
                break
        for env in remaining:
            found[env] = self._anew(stacks[env])
        self._assign(self.following, row, found)
        self.last = (stacks.copy(), found)

    def read(self, slots: np.ndarray) -> np.ndarray:
        """The channels in these slots: `(...)` -> `(..., H, W)`."""
        return np.take(self.slots, slots, axis=0)

    def arrays(self, rows: int) -> dict[str, np.ndarray]:
        """Return what :meth:`restore` takes: both tables' first `rows` rows, and the slots that were written."""
        return {"now": self.now[:rows], "following": self.following[:rows], "slots": self.slots[: self.used]}

    def restore(self, now: np.ndarray, following: np.ndarray, slots: np.ndarray) -> None:
        """Put the arrays of a store of the same sizes in the place of what is here.

        Raises:
            ValueError: more rows, other environments or other images, or a reference to a slot that is not there.
        """
        if any(len(own) > len(self.now) or own.shape[1:] != self.now.shape[1:] for own in (now, following)):
            raise ValueError(f"frames must fit a store of {self.now.shape} references, got {now.shape}")
        if slots.shape[1:] != self.slots.shape[1:] or max(now.max(initial=0), following.max(initial=0)) >= len(slots):
            raise ValueError(f"frames must be {self.slots.shape[1:]} and all there, got {slots.shape}")
        for table, own in ((self.now, now), (self.following, following)):
            table[: len(own)], table[len(own) :] = own, ZERO
        if len(slots) > len(self.slots):
            self._resize(len(slots))
        self.used = len(slots)
        self.slots[: self.used] = slots
        self.references[:] = 0
        for table in (self.now, self.following):
            self.references += np.bincount(table.ravel(), minlength=len(self.references)).astype(np.int32)
        self.references[ZERO] = np.iinfo(np.int32).max // 2
        self.given_up = np.flatnonzero(self.references[: self.used] == 0).tolist()
        self.interrupt()

    def _anew(self, stack: np.ndarray) -> np.ndarray:
        """Slots of a stack `(C, H, W)` that continues nothing; a channel that is black or repeats is stored once."""
        found = np.empty(len(stack), dtype=np.int32)
        for channel, image in enumerate(stack):
            if not image.any():
                found[channel] = ZERO
                continue
            equal = (before for before in range(channel) if np.array_equal(stack[before], image))
            same = next(equal, None)
            found[channel] = self._store(image[None])[0] if same is None else found[same]
        return found

    def _store(self, images: np.ndarray) -> np.ndarray:
        """Write images `(..., H, W)` into free slots, and return those `(...)`."""
        n = int(np.prod(images.shape[:-2]))
        again = [self.given_up.pop() for _ in range(min(n, len(self.given_up)))]
        fresh = n - len(again)
        if self.used + fresh > len(self.slots):
            self._resize(self.used + fresh + len(self.slots) // 8)
        slots = np.array([*again, *range(self.used, self.used + fresh)], dtype=np.int32).reshape(images.shape[:-2])
        self.used += fresh
        self.slots[slots] = images
        return slots

    def _assign(self, table: np.ndarray, row: int, slots: np.ndarray) -> None:
        before = table[row].copy()
        np.add.at(self.references, slots, 1)
        np.subtract.at(self.references, before, 1)
        table[row] = slots
        self.given_up += np.unique(before[self.references[before] == 0]).tolist()

    def _resize(self, length: int) -> None:
        slots = np.empty((length, *self.slots.shape[1:]), np.uint8)
        slots[: self.used] = self.slots[: self.used]
        references = np.zeros(length, dtype=np.int32)
        references[: self.used] = self.references[: self.used]
        self.slots, self.references = slots, references

    def __getstate__(self) -> dict[str, Any]:
        """Only the slots that were written."""
        written = {"slots": self.slots[: self.used], "references": self.references[: self.used]}
        return {**self.__dict__, **written, "length": len(self.slots)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        length = state.pop("length")
        self.__dict__.update(state)
        self._resize(length)
