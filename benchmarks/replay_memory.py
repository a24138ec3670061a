"""Memory and time of FrameReplayBuffer beside Stable-Baselines3's ReplayBuffer, on an Atari game played at random.

    python benchmarks/replay_memory.py [--frames 100000] [--env ALE/Breakout-v5]

Memory: bytes of observations as each buffer holds them when it is full of `--frames` transitions (SB3's arrays have
that size from the start). Time: CPU time of `add` and `sample`, both buffers in turn, over the same transitions; the
samples are compared bit by bit as they are drawn.
"""

import argparse
import statistics
import time

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from threadpoolctl import threadpool_limits

from contraux.agents.environments import make
from contraux.clrl import FrameReplayBuffer

COMPARED = 20_000  # transitions in the buffers that are timed: SB3's would not fit some machines at 100,000


def buffers(rows, env, kinds):
    return [kind(rows, env.observation_space, env.action_space, device="cpu", n_envs=env.num_envs) for kind in kinds]


def play(env, targets, rows):
    """Fill the buffers with `rows` transitions, and return the CPU seconds each of them took."""
    seconds = [0.0] * len(targets)
    observations = env.reset()
    for _ in range(rows // env.num_envs):
        actions = np.array([env.action_space.sample() for _ in range(env.num_envs)])
        following, rewards, dones, infos = env.step(actions)
        stored = following.copy()
        for i in np.flatnonzero(dones):
            stored[i] = infos[i]["terminal_observation"]
        for i, target in enumerate(targets):
            begun = time.process_time()
            target.add(observations, stored, actions, rewards, dones, infos)
            seconds[i] += time.process_time() - begun
        observations = following
    return seconds


def sampling(theirs, ours, batch, rounds=15, calls=40):
    """Median and range, over interleaved rounds, of our CPU time relative to theirs, and microseconds of both."""
    ratios, each = [], {id(theirs): [], id(ours): []}
    for seed in range(rounds):
        drawn = []
        for buffer in (theirs, ours) if seed % 2 else (ours, theirs):
            np.random.seed(seed)  # noqa: NPY002  (SB3 draws from the global state)
            begun = time.process_time()
            for _ in range(calls):
                samples = buffer.sample(batch)
            each[id(buffer)].append((time.process_time() - begun) / calls * 1e6)
            drawn.append(samples)
        assert all((one == other).all() for one, other in zip(*drawn, strict=True) if one is not None)
        ratios.append(each[id(ours)][-1] / each[id(theirs)][-1])
    return (
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        *(statistics.median(each[id(b)]) for b in (theirs, ours)),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--env", default="ALE/Breakout-v5")
    arguments = parser.parse_args()
    env = make(arguments.env, seed=0, n_envs=8, kwargs={"frameskip": 1}, frame_stack=4, atari=True)
    env.action_space.seed(0)

    (ours,) = buffers(arguments.frames, env, [FrameReplayBuffer])
    play(env, [ours], arguments.frames)
    theirs = 2 * arguments.frames * int(np.prod(env.observation_space.shape))
    print(f"{arguments.env}, {arguments.frames} transitions of {env.observation_space.shape}, observations only:")
    print(f"  SB3 {theirs / 2**20:.0f} MiB, frames once {ours.frames.nbytes / 2**20:.0f} MiB", end="")
    print(f" = 1 / {theirs / ours.frames.nbytes:.2f}; episodes that ended {int(ours.dones.sum())}")
    del ours

    theirs, ours = buffers(COMPARED, env, [ReplayBuffer, FrameReplayBuffer])
    added = play(env, [theirs, ours], COMPARED)
    each = [seconds / COMPARED * 1e6 for seconds in added]
    print(f"add: SB3 {each[0]:.1f} us a transition, frames once {each[1]:.1f} us, {added[1] / added[0]:.2f} x")
    for batch in (32, 256):
        median, low, high, them, us = sampling(theirs, ours, batch)
        print(f"sample {batch}: SB3 {them:.0f} us, frames once {us:.0f} us, {median:.2f} x ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
