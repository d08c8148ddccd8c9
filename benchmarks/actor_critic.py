"""Actor-critic of `ptlearn.rl.training` beside Stable-Baselines3's A2C and PPO, on other people's worlds.

A run is over when its policy, as it acts, earns the threshold. Where the world publishes its arrays that is the exact
expected return within the time limit, for every contender, and the threshold is the best one less five percent of its
size (FrozenLake, Taxi) or -20 (CliffWalking). Where it does not (CartPole), it is the mean of the last 100 training
episodes, and the threshold Gymnasium's own 475. The clock stands still while a policy is judged.

Ours comes twice where it can: on the arrays, as `collect` samples them by the batch, and stepping the environment, as
`collect_from` and the peers do. The peers are set up as somebody who knows them would: on CartPole as RL Baselines3 Zoo
does it, elsewhere (the Zoo has nothing there) with a policy and a value without hidden layers, which on numbered states
is a table, as ours are, and a learning rate of 0.03, for PPO on the lake of 8 x 8 of 0.003: on the two larger lakes
five more pairs of a rate and an entropy bonus were tried with one seed, and the three that solved it with up to
five: that one alone did better. The contenders take turns, seed by seed, all with one thread. A run that never gets
there counts with what it used until it was given up.

    python benchmarks/actor_critic.py [--worlds CliffWalking CartPole] [--seeds 5]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import torch

from ptlearn.grid import mdp as exact
from ptlearn.grid.collection import Bins, collect, collect_from, from_gymnasium
from ptlearn.policy_gradient import advantage
from ptlearn.rl.policies import FeatureCritic, FeaturePolicy, TabularCritic, TabularPolicy
from ptlearn.rl.training import train_policy

GAMMA, ENVIRONMENTS, JUDGED_EVERY = 0.99, 8, 1000  # of the peers: environments side by side, steps between judgements


@dataclass(frozen=True)
class World:
    """An environment with its time limit, when it counts as solved, and the settings of each side for it."""

    environment: dict  # arguments of gymnasium.make
    ours: dict  # lr, critic_lr, lam, batch (episodes per update)
    a2c: dict  # arguments of Stable-Baselines3's A2C
    ppo: dict  # and of its PPO; steps, those over which a schedule runs
    threshold: float | None = None  # mean return; None: the best possible less five percent
    cap: float = 30.0  # seconds after which a run is given up


LAKE = {"lr": 0.2, "critic_lr": 0.1, "lam": 0.3, "batch": 16}
TABLE = {"policy_kwargs": {"net_arch": []}, "ent_coef": 0.01}
A2C_TABLE = {"learning_rate": 0.03} | TABLE
PPO_TABLE = {"learning_rate": 0.03, "n_steps": 128, "batch_size": 256} | TABLE
ZOO_PPO = {
    "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0,
    "learning_rate": lambda left: 0.001 * left, "clip_range": lambda left: 0.2 * left, "steps": 100_000,
}  # fmt: skip
WORLDS = {
    "FrozenLake 4x4": World({"id": "FrozenLake-v1", "is_slippery": False}, LAKE, A2C_TABLE, PPO_TABLE),
    "FrozenLake 4x4 slippery": World({"id": "FrozenLake-v1"}, LAKE, A2C_TABLE, PPO_TABLE),
    "FrozenLake 8x8": World(
        {"id": "FrozenLake-v1", "map_name": "8x8", "is_slippery": False}, LAKE, A2C_TABLE,
        PPO_TABLE | {"learning_rate": 0.003},
    ),
    "CliffWalking": World(
        {"id": "CliffWalking-v1", "max_episode_steps": 200}, {"lr": 0.2, "critic_lr": 4, "lam": 0.9, "batch": 8},
        A2C_TABLE, PPO_TABLE, -20,
    ),
    "Taxi": World(
        {"id": "Taxi-v4"}, {"lr": 0.1, "critic_lr": 2, "lam": 0.7, "batch": 64}, A2C_TABLE, PPO_TABLE
    ),
    "CartPole": World(
        {"id": "CartPole-v1"}, {"lr": 0.01, "critic_lr": 0.05, "lam": 0.98, "batch": 4},
        {"ent_coef": 0.0}, ZOO_PPO, 475, cap=60.0,
    ),
}  # fmt: skip
# position, speed, angle, angular speed: a network on the middles of fine bins
POLE = Bins([[i * w for i in range(-n, n + 1)] for w, n in ((0.4, 5), (0.3, 4), (0.02, 8), (0.25, 5))])


class Judge:
    """Whether a policy earns the threshold, and for how long it has been asked."""

    def __init__(self, world: World, cap: float):
        self.environment = gymnasium.make(**world.environment)
        self.limit, self.cap, self.paused, self.start = self.environment.spec.max_episode_steps, cap, 0.0, None
        self.known = hasattr(self.environment.unwrapped, "P")
        self.threshold = world.threshold
        if self.known:
            self.arrays = from_gymnasium(self.environment)
            best = best_return(self.arrays, self.limit)
            self.threshold = best - 0.05 * abs(best) if world.threshold is None else world.threshold

    def solved(self, probabilities: Callable[[], torch.Tensor], last_returns: list[float]) -> bool:
        """probabilities() -> pi (S, A), asked only where the world is known; last_returns of training episodes."""
        begin = time.perf_counter()
        if self.known:
            pi = probabilities()
            pi = torch.cat([pi, pi.new_full((self.arrays.states - len(pi), pi.shape[1]), 1 / pi.shape[1])])
            earned = float(exact.objective(self.arrays, pi, self.limit))
        else:
            earned = statistics.fmean(last_returns) if len(last_returns) >= 100 else -float("inf")
        self.paused += time.perf_counter() - begin
        return earned >= self.threshold

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start - self.paused


def best_return(arrays: exact.MDP, limit: int) -> float:
    """The most that any policy earns within the time limit, by dynamic programming."""
    values = torch.zeros(arrays.states, dtype=torch.float64)
    for _ in range(limit):
        values = exact.action_values(arrays, values).max(1).values
    return float(arrays.start @ values)


# ---------------------------------------------------------------- (world, seed, cap) -> solved, steps, seconds


def ours(
    world: World, seed: int, cap: float, *, stepping: bool = False, updates: int = 10**9
) -> tuple[bool, int, float]:
    """Actor-critic with GAE, written with the package's own parts; `updates` caps it by count instead of the clock."""
    judge, settings = Judge(world, cap), dict(world.ours)
    lam, batch = settings.pop("lam"), settings.pop("batch")
    torch.manual_seed(seed)
    if judge.known:
        arrays = from_gymnasium(judge.environment, gamma=GAMMA)
        policy, critic = TabularPolicy(arrays.states, arrays.actions), TabularCritic(arrays.states)
    else:
        features = POLE.centers / POLE.centers.std(0)
        policy, critic = FeaturePolicy(features, 2), FeatureCritic(features)
    last_returns, won = [], False

    def collect_batch(policy, generator):
        if judge.known and not stepping:
            return collect(arrays, policy, batch, horizon=judge.limit, generator=generator)
        return collect_from(judge.environment, policy, batch, generator=generator, encode=None if judge.known else POLE)

    def weigh(rollout, values, bootstrap, logprobs):
        last_returns.extend(rollout.rewards.sum(1).tolist())
        return advantage(rollout.rewards, values, rollout.mask, bootstrap, gamma=GAMMA, lam=lam)

    def over(policy, history):
        nonlocal won
        won = judge.solved(lambda: exact.probabilities(judge.arrays, policy).detach(), last_returns[-100:])
        return won or judge.seconds > cap

    judge.start = time.perf_counter()
    settings |= {"critic": critic, "gamma": GAMMA, "lam": lam, "seed": seed, "until": over}
    history = train_policy(policy, collect_batch, weigh, updates=updates, **settings)
    return won, history.steps[-1], judge.seconds


def peer(
    algorithm: str, world: World, seed: int, cap: float, *, steps: int = 10**9, **settings
) -> tuple[bool, int, float]:  # fmt: skip
    """An algorithm of Stable-Baselines3 with its MlpPolicy; `steps`, after which it is over and schedules are at 0."""
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    judge = Judge(world, cap)

    class Over(BaseCallback):
        won, next_look = False, JUDGED_EVERY

        def probabilities(self):
            states = torch.arange(int(judge.environment.observation_space.n))
            with torch.no_grad():
                return self.model.policy.get_distribution(states).distribution.probs.double()

        def _on_step(self) -> bool:
            if self.num_timesteps < self.next_look:
                return True
            self.next_look += JUDGED_EVERY
            returns = [episode["r"] for episode in self.model.ep_info_buffer]
            self.won = judge.solved(self.probabilities, returns)
            return not self.won and judge.seconds < cap

    environments = make_vec_env(lambda: gymnasium.make(**world.environment), n_envs=ENVIRONMENTS, seed=seed)
    model = getattr(stable_baselines3, algorithm)(
        "MlpPolicy", environments, seed=seed, device="cpu", **{"gamma": GAMMA} | settings
    )
    over = Over()
    judge.start = time.perf_counter()
    model.learn(steps, callback=over)
    return over.won, model.num_timesteps, judge.seconds


CONTENDERS = {
    "ours, on arrays": lambda *run: ours(*run, stepping=False),
    "ours, stepping": lambda *run: ours(*run, stepping=True),
    "A2C": lambda world, *run: peer("A2C", world, *run, **world.a2c),
    "PPO": lambda world, *run: peer("PPO", world, *run, **world.ppo),
}


def compare(name: str, seeds: int) -> None:
    """One world: every contender on every seed, and a table."""
    world = WORLDS[name]
    judge = Judge(world, world.cap)
    contenders = {c: run for c, run in CONTENDERS.items() if judge.known or c != "ours, on arrays"}
    results = {contender: [] for contender in contenders}
    for seed in range(seeds):
        for contender, run in contenders.items():
            results[contender].append(run(world, seed, world.cap))
    print(f"\n{name}: mean return of at least {judge.threshold:.4g} within {judge.limit} steps; "
          f"{seeds} seeds, at most {world.cap:g} s each")  # fmt: skip
    own = None
    for contender, runs in results.items():
        steps, seconds = (statistics.median(run[i] for run in runs) for i in (1, 2))
        count = sum(run[0] for run in runs)
        print(f"  {contender:16} solved {count} of {seeds}   median {steps:10,.0f} steps {seconds:7.2f} s", flush=True)
        own = own or seconds
        if contender in ("A2C", "PPO"):
            print(f"ratio: time to solve {name} | {contender} of Stable-Baselines3 | {seconds / own:.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS), help="which of them")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each contender")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first one imports torch's compiler, for a second
    print("one thread")
    for name in options.worlds:
        compare(name, options.seeds)


if __name__ == "__main__":
    main()
