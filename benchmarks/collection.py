"""Environment steps per second of `ptlearn.grid.collection.collect` beside gymnasium's `SyncVectorEnv`, same dynamics.

Both follow the uniform policy for at most 100 steps an episode: `collect` samples 4,096 episodes with their
log-probabilities into one record; the 64 environments of the vector are given random actions drawn beforehand, and
what they return is dropped. They are as `gymnasium.make` gives them, with its time limit and without its checker, and
once more bare, without the limit. The rounds are interleaved, because the speed of a shared machine drifts.

    python benchmarks/collection.py [--threads 2] [--rounds 5]

On busy cores set OMP_WAIT_POLICY=PASSIVE for the process (threads that spin while they wait starve each other) and
trust the ratio by core time.
"""

import argparse
import statistics
import time

import gymnasium
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv

from ptlearn.grid.collection import collect, from_gymnasium
from ptlearn.grid.gridworld import ID
from ptlearn.rl.policies import TabularPolicy

EPISODES, HORIZON, ENVIRONMENTS, VECTOR_STEPS = 4096, 100, 64, 300
WORLDS = {
    "GridWorld 8x8": (ID, {"map": "empty-8x8"}),
    "GridWorld 8x8, slip 0.2": (ID, {"map": "empty-8x8", "slip": 0.2}),
    "FrozenLake 8x8": ("FrozenLake-v1", {"map_name": "8x8"}),
}


def with_vector(vector, actions: np.ndarray) -> np.ndarray:
    for chosen in actions:
        vector.step(chosen)
    return actions >= 0


def with_collect(mdp, policy, generator) -> np.ndarray:
    return collect(mdp, policy, EPISODES, horizon=HORIZON, generator=generator)[0].mask.numpy()


def compare(name: str, options: dict, rounds: int) -> dict[str, tuple[float, float]]:
    """Median steps per second of each side, by the clock and by the time of all cores."""

    def make():
        return gymnasium.make(name, disable_env_checker=True, max_episode_steps=HORIZON, **options)

    world = make().unwrapped
    mdp = world.to_mdp() if hasattr(world, "to_mdp") else from_gymnasium(world)
    policy, generator = TabularPolicy(mdp.states, mdp.actions), torch.Generator().manual_seed(0)
    made = SyncVectorEnv([make] * ENVIRONMENTS)
    bare = SyncVectorEnv([lambda: make().unwrapped] * ENVIRONMENTS)
    actions = np.random.default_rng(0).integers(mdp.actions, size=(VECTOR_STEPS, ENVIRONMENTS))
    sides = {
        "made": lambda: with_vector(made, actions),
        "bare": lambda: with_vector(bare, actions),
        "collect": lambda: with_collect(mdp, policy, generator),
    }
    speeds = {side: [] for side in sides}
    for vector in (made, bare):
        vector.reset(seed=0)
    for run in sides.values():
        run()
    for _ in range(rounds):
        for side, run in sides.items():
            start, busy = time.perf_counter(), time.process_time()
            taken = run()  # True for every step
            seconds, busy_seconds = time.perf_counter() - start, time.process_time() - busy
            speeds[side].append((taken.sum() / seconds, taken.sum() / busy_seconds))
    return {side: tuple(map(statistics.median, zip(*values, strict=True))) for side, values in speeds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{EPISODES} episodes against {ENVIRONMENTS} environments, {options.threads} threads; steps per second")
    peers = ("made", "bare")
    print(f"{'':26}{'collect':>12}" + "".join(f"{side:>11}{'ratio':>7}{'by core time':>14}" for side in peers))
    for case, (name, arguments) in WORLDS.items():
        speed = compare(name, arguments, options.rounds)
        own, own_busy = speed["collect"]
        print(f"{case:26}{own:12,.0f}", end="")
        for side in peers:
            peer, peer_busy = speed[side]
            print(f"{peer:11,.0f}{own / peer:7.0f}{own_busy / peer_busy:14.0f}", end="")
        print()
        for side in peers:
            print(f"ratio: walks in {case} | SyncVectorEnv, {side} | {own / speed[side][0]:.0f}", flush=True)


if __name__ == "__main__":
    main()
