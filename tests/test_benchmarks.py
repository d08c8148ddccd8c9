"""What a benchmark compares must be true without a clock: our side solves each world, on nearly every seed."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def actor_critic(one_thread):
    return load("actor_critic")


@pytest.mark.parametrize(
    ("name", "updates", "steps"),  # steps: what Stable-Baselines3's A2C needed in the median
    [
        ("FrozenLake 4x4", 200, 5_056),
        ("FrozenLake 4x4 slippery", 600, 73_550),
        ("FrozenLake 8x8", 300, 40_940),
        ("CliffWalking", 300, 148_056),
        ("CartPole", 400, 173_688),
    ],
)
def test_actor_critic_solves_worlds_of_others(actor_critic, name, updates, steps):
    world = actor_critic.WORLDS[name]
    runs = [actor_critic.ours(world, seed, math.inf, updates=updates) for seed in range(5)]
    assert sum(solved for solved, _, _ in runs) >= 4
    assert sorted(taken for _, taken, _ in runs)[2] < steps


def test_the_threshold_is_near_the_best_and_out_of_reach_of_chance(actor_critic):
    for name, best in (("FrozenLake 4x4 slippery", 0.7442), ("CliffWalking", -13), ("Taxi", 7.93)):
        judge = actor_critic.Judge(actor_critic.WORLDS[name], math.inf)
        states, actions = judge.arrays.states, judge.arrays.actions
        # the best return within the limit, from a backward pass over time written here with plain loops of tensors
        values = torch.zeros(states, dtype=torch.float64)
        for _ in range(judge.limit):
            values = (judge.arrays.P * (judge.arrays.R + values)).sum(-1).amax(1)
        assert abs(float(judge.arrays.start @ values) - best) < 1e-3
        assert judge.threshold < best
        chance = torch.full((states, actions), 1 / actions, dtype=torch.float64)
        assert not judge.solved(lambda chance=chance: chance, [])
