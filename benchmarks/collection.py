"""Steps per second of `ptlearn.grid.collection.collect` beside gymnasium's `SyncVectorEnv` and NumPy, same dynamics.

Both follow the uniform policy for at most 100 steps an episode: `collect` samples 4,096 episodes with their
log-probabilities into one record; the 64 environments of the vector are given random actions drawn beforehand, and
what they return is dropped. They are as `gymnasium.make` gives them, with its time limit and without its checker, and
once more bare, without the limit. The third peer is what one would write by hand: a loop of NumPy over the steps of
4,096 episodes at once, which looks the successors up in arrays and writes down states, actions and rewards, but no
log-probabilities. The rounds are interleaved, because the speed of a shared machine drifts.

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
PEERS = {
    "made": "SyncVectorEnv of gymnasium.make",
    "bare": "SyncVectorEnv without wrappers",
    "numpy": "a loop of NumPy",
}
WORLDS = {
    "GridWorld 8x8": (ID, {"map": "empty-8x8"}),
    "GridWorld 8x8, slip 0.2": (ID, {"map": "empty-8x8", "slip": 0.2}),
    "FrozenLake 8x8": ("FrozenLake-v1", {"map_name": "8x8"}),
}


def with_vector(vector, actions: np.ndarray) -> np.ndarray:
    for chosen in actions:
        vector.step(chosen)
    return actions >= 0


def with_numpy(mdp, successors: np.ndarray, sums: np.ndarray, rewards: np.ndarray, generator) -> np.ndarray:
    """Walks of the uniform policy; successors, running sums of their probabilities and rewards are (S, A, K)."""
    terminal, first = mdp.terminal.numpy(), mdp.start.numpy()
    states = generator.choice(mdp.states, size=EPISODES, p=first)
    seen, done, paid, going = [], [], [], []
    for _ in range(HORIZON):
        alive = ~terminal[states]
        if not alive.any():
            break
        actions = generator.integers(mdp.actions, size=EPISODES)
        which = (generator.random(EPISODES)[:, None] > sums[states, actions]).sum(1).clip(max=sums.shape[2] - 1)
        seen.append(states)
        done.append(actions)
        paid.append(rewards[states, actions, which])
        going.append(alive)
        states = successors[states, actions, which]
    record = [np.stack(steps, 1) for steps in (seen, done, paid, going)]
    return record[-1]


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
    chances, successors = mdp.outcomes
    arrays = successors.numpy(), chances.cumsum(-1).numpy(), mdp.R.gather(2, successors).numpy()
    numbers = np.random.default_rng(0)
    actions = np.random.default_rng(0).integers(mdp.actions, size=(VECTOR_STEPS, ENVIRONMENTS))
    sides = {
        "made": lambda: with_vector(made, actions),
        "bare": lambda: with_vector(bare, actions),
        "numpy": lambda: with_numpy(mdp, *arrays, numbers),
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
    print(f"{'':26}{'collect':>12}" + "".join(f"{side:>11}{'ratio':>7}{'by core time':>14}" for side in PEERS))
    for case, (name, arguments) in WORLDS.items():
        speed = compare(name, arguments, options.rounds)
        own, own_busy = speed["collect"]
        print(f"{case:26}{own:12,.0f}", end="")
        for side in PEERS:
            peer, peer_busy = speed[side]
            print(f"{peer:11,.0f}{own / peer:7.3g}{own_busy / peer_busy:14.3g}", end="")
        print()
        for side, beside in PEERS.items():
            print(f"ratio: walks in {case} | {beside} | {own / speed[side][0]:.3g}", flush=True)


if __name__ == "__main__":
    main()
