"""Collected episodes against exact answers: all trajectories, J, the arrays; and environments made by others."""

import math
from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from ptlearn.grid.collection import Bins, _cumulative, _invert, _levels, collect, collect_from, from_gymnasium
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import MDP, enumerate_trajectories, objective, probabilities, value_iteration
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import check_behavior

RIGHT, LEFT = 1, 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_policy(states, actions, *, scale=1.0, seed=0, dtype=torch.float32):
    """A table of normal logits, as a policy."""
    logits = scale * torch.randn(states, actions, generator=seeded(seed), dtype=dtype)
    return lambda observations: logits[observations]


def always(action, *, states=10, actions=4):
    """The policy that takes one action for sure: the others have probability 0."""
    logits = torch.full((states, actions), -torch.inf)
    logits[:, action] = 0
    return lambda observations: logits[observations]


def standard_errors(samples, expected):
    """How far the mean of samples is from what is expected, in standard errors."""
    samples = samples.double()
    return abs(float(samples.mean()) - float(expected)) / (float(samples.std()) / math.sqrt(len(samples)))


def follow(rollout, final_states):
    """The state after every step (B, T): the next observation, or the final state."""
    lengths = rollout.mask.sum(1)
    after = torch.cat([rollout.observations[:, 1:], torch.zeros(len(lengths), 1, dtype=torch.long)], 1)
    after[torch.arange(len(lengths)), lengths - 1] = final_states
    return after


# ---------------------------------------------------------------- collect


def trajectories(rollout, final_states):
    """Every row as something that can be counted: states and actions up to its length, and where it ended."""
    rows = zip(rollout.observations.tolist(), rollout.actions.tolist(), rollout.mask.sum(1).tolist())
    return [(*s[:n], *a[:n], end) for (s, a, n), end in zip(rows, final_states.tolist())]


def test_every_trajectory_comes_as_often_as_its_probability_says():
    mdp = GridWorld("small", slip=0.3).to_mdp()
    policy = random_policy(6, 4, scale=0.5)
    episodes = 100_000
    counts = Counter(trajectories(*collect(mdp, policy, episodes, horizon=3, generator=seeded())))

    def surprise(other):
        rollout, final_states, chances = enumerate_trajectories(mdp, other, 3)
        expected = dict(zip(trajectories(rollout, final_states), (episodes * chances).tolist()))
        assert set(counts) <= set(expected)
        common = [name for name, number in expected.items() if number > 10]
        rare = sum(number for number in expected.values() if number <= 10)
        cells = [(counts[name], expected[name]) for name in common]
        cells.append((episodes - sum(seen for seen, _ in cells), rare))
        statistic, freedom = sum((seen - number) ** 2 / number for seen, number in cells), len(cells) - 1
        return (statistic - freedom) / math.sqrt(2 * freedom)

    logits = policy(torch.arange(6)).clone()
    assert surprise(policy) < 5
    logits[0, RIGHT] += 0.1
    assert surprise(lambda observations: logits[observations]) > 5


@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_the_mean_return_is_j(slip):
    mdp = GridWorld("default", slip=slip, step_reward=-0.02).to_mdp()
    policy, other = random_policy(mdp.states, 4, scale=0.5), random_policy(mdp.states, 4, scale=0.7)
    rollout, _ = collect(mdp, policy, 60_000, horizon=40, generator=seeded())
    returns = rollout.rewards.sum(1)
    assert standard_errors(returns, objective(mdp, probabilities(mdp, policy), 40)) < 4
    assert standard_errors(returns, objective(mdp, probabilities(mdp, other), 40)) > 4


def test_every_step_is_one_the_arrays_allow():
    mdp = GridWorld("four-rooms", slip=0.2, step_reward=-0.5).to_mdp()
    rollout, final_states = collect(mdp, random_policy(mdp.states, 4), 500, horizon=60, generator=seeded())
    mask, after = rollout.mask, follow(rollout, final_states)
    assert (mdp.P[rollout.observations, rollout.actions, after][mask] > 0).all()
    assert (mdp.R[rollout.observations, rollout.actions, after][mask] == rollout.rewards[mask]).all()
    assert not mdp.terminal[rollout.observations][mask].any()
    assert torch.equal(rollout.terminated, mdp.terminal[final_states])
    assert (mask.sum(1)[~rollout.terminated] == 60).all()
    assert (mdp.start[rollout.observations[:, 0]] > 0).all()


def test_the_record_is_padded_with_zeros_to_its_longest_episode():
    mdp = GridWorld("small", step_reward=-0.5).to_mdp()
    rollout, _ = collect(mdp, random_policy(6, 4), 300, horizon=200, generator=seeded())
    lengths = rollout.mask.sum(1)
    assert rollout.terminated.all() and int(lengths.max()) == rollout.mask.shape[1] < 200
    assert torch.equal(rollout.mask, torch.arange(rollout.mask.shape[1]) < lengths[:, None])
    for field in (rollout.observations, rollout.actions, rollout.rewards, rollout.logprobs):
        assert (field[~rollout.mask] == 0).all() and field.is_contiguous()
    assert rollout.observations.dtype == rollout.actions.dtype == torch.int64


@pytest.mark.parametrize("horizon", [1, 8, 9, 10, 16, 17, 10**12])
def test_the_corridor_ends_at_its_goal_or_at_the_horizon(horizon):
    mdp = GridWorld("corridor").to_mdp()
    rollout, final_states = collect(mdp, always(RIGHT), 3, horizon=horizon, generator=seeded())
    steps = min(horizon, 9)
    assert rollout.observations.tolist() == [list(range(steps))] * 3
    assert rollout.actions.tolist() == [[RIGHT] * steps] * 3
    assert rollout.rewards.tolist() == [[0.0] * (steps - 1) + [float(horizon >= 9)]] * 3
    assert rollout.terminated.tolist() == [horizon >= 9] * 3 and final_states.tolist() == [steps] * 3
    assert rollout.logprobs.tolist() == [[0.0] * steps] * 3 and rollout.mask.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_log_probabilities_are_the_policys(dtype):
    mdp = GridWorld("default", slip=0.1).to_mdp()
    policy = random_policy(mdp.states, 4, scale=4, dtype=dtype)
    rollout, _ = collect(mdp, policy, 200, horizon=30, generator=seeded())
    check_behavior(policy, rollout, atol=1e-6 if dtype == torch.float32 else 1e-12)
    assert rollout.logprobs.dtype == rollout.rewards.dtype == dtype
    with pytest.raises(ValueError, match="logprobs are off"):
        check_behavior(lambda observations: 1.001 * policy(observations), rollout, atol=1e-6)


def test_a_policy_in_half_precision_is_scored_in_single():
    mdp = GridWorld("small").to_mdp()
    policy = random_policy(6, 4, dtype=torch.bfloat16)
    rollout, _ = collect(mdp, policy, 50, horizon=5, generator=seeded())
    assert rollout.logprobs.dtype == torch.float32 and check_behavior(policy, rollout, atol=1e-6) <= 1e-6


def test_a_seed_decides_everything():
    mdp, policy = GridWorld("default", slip=0.2).to_mdp(), random_policy(22, 4)

    def run(seed):
        return trajectories(*collect(mdp, policy, 50, horizon=20, generator=seeded(seed)))

    assert run(3) == run(3) and run(3) != run(4)
    generator = seeded()
    first, second = (trajectories(*collect(mdp, policy, 50, horizon=20, generator=generator)) for _ in range(2))
    assert first != second


def test_an_episode_that_starts_at_its_end_has_no_steps():
    mdp = MDP([[[0.0, 1.0]], [[0.0, 1.0]]], [[1.0], [0.0]], [0.5, 0.5])
    one = random_policy(2, 1)
    rollout, final_states = collect(mdp, one, 2000, horizon=5, generator=seeded())
    assert rollout.mask.shape == (2000, 1) and rollout.terminated.all() and (final_states == 1).all()
    assert 1000 - 5 * 22.4 < int(rollout.mask.sum()) < 1000 + 5 * 22.4  # binomial: standard deviation 22.4
    nowhere = MDP(mdp.P, mdp.R, [0.0, 1.0])
    rollout, _ = collect(nowhere, one, 3, horizon=5, generator=seeded())
    assert rollout.mask.shape == (3, 0) and rollout.terminated.all()


def test_a_world_without_an_end_is_cut_off():
    mdp = MDP([[[0.5, 0.5]], [[1.0, 0.0]]], [[1.0], [2.0]], [1.0, 0.0])
    rollout, final_states = collect(mdp, random_policy(2, 1), 4, horizon=33, generator=seeded())
    assert rollout.mask.all() and rollout.mask.shape == (4, 33) and not rollout.terminated.any()
    assert (rollout.rewards == 1 + rollout.observations).all()
    assert (final_states[rollout.observations[:, -1] == 1] == 0).all()


def test_the_extreme_numbers_pick_possible_outcomes_only():
    p = torch.tensor(
        [
            [0, 0.3, 0, 0.7, 0],
            [1, 0, 0, 0, 0],
            [0, 0, 0, 0, 1],
            [0.1] * 3 + [0.7, 0],
            [0, 1 / 3, 1 / 3, 1 / 3, 0],
            [1e-17, 1 - 1e-9, 0, 1e-9, 0],
        ],
        dtype=torch.float64,
    )
    levels, rows = _levels(p), np.arange(6)
    lowest = _invert(levels, rows, np.zeros(6)) - 8 * rows
    highest = _invert(levels, rows, np.full(6, np.nextafter(1, 0))) - 8 * rows
    assert lowest.tolist() == [1, 0, 4, 0, 1, 0]
    assert highest.tolist() == [3, 0, 4, 3, 3, 3]


def test_inversion_is_counting_the_entries_that_are_not_above():
    for outcomes in (1, 2, 3, 4, 12, 17):
        p = torch.rand(5, outcomes, dtype=torch.float64, generator=seeded()) ** 3
        numbers, rows = np.random.default_rng(0).random(400), np.arange(400) % 5
        expected = (_cumulative(p)[rows] <= numbers[:, None]).sum(1)
        slots = 2 ** math.ceil(math.log2(outcomes))
        assert (_invert(_levels(p), rows, numbers) == slots * rows + expected).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "episodes=0: expected at least 1"),
        ({"horizon": 0}, "horizon=0: expected at least 1"),
        ({"episodes": 2.5}, "episodes=2.5: expected a whole number"),
        ({"horizon": None}, "horizon=None: expected a whole number"),
        (
            {"policy": random_policy(6, 5)},
            "policy returned logits of shape (6, 5) for all states: expected (6, 4), one per action",
        ),
        (
            {"policy": lambda o: torch.full((*o.shape, 4), torch.nan)},
            "policy returned logits that are not finite for state 0",
        ),
    ],
)
def test_collect_says_in_one_line_what_is_wrong(change, message):
    arguments = {"policy": random_policy(6, 4), "episodes": 3, "horizon": 3} | change
    with pytest.raises(ValueError) as error:
        collect(GridWorld("small").to_mdp(), **arguments)
    assert str(error.value) == message


def test_a_policy_with_parameters_is_not_recorded_by_autograd():
    logits = torch.zeros(6, 4, requires_grad=True)
    rollout, _ = collect(GridWorld("small").to_mdp(), lambda o: logits[o], 3, horizon=3, generator=seeded())
    assert not rollout.logprobs.requires_grad


# ---------------------------------------------------------------- from_gymnasium


def best_values(P, gamma, sweeps):
    """Value iteration over the published lists, in which a terminated move has no future."""
    values = dict.fromkeys(P, 0.0)
    for _ in range(sweeps):
        values = {
            state: max(
                sum(p * (r + gamma * (0 if ends else values[after])) for p, after, r, ends in moves)
                for moves in actions.values()
            )
            for state, actions in P.items()
        }
    return values


@pytest.mark.parametrize(
    ("name", "options", "gamma", "sweeps"),
    [
        ("FrozenLake-v1", {"is_slippery": True}, 0.99, 2000),
        ("FrozenLake-v1", {"is_slippery": False}, 1.0, 50),
        ("CliffWalking-v1", {"is_slippery": True}, 0.9, 400),
        ("Taxi-v4", {}, 0.95, 30),
        ("Taxi-v4", {"is_rainy": True}, 0.5, 60),
    ],
)
def test_the_best_values_are_those_of_the_published_lists(name, options, gamma, sweeps):
    environment = gymnasium.make(name, **options)
    mdp = from_gymnasium(environment, gamma=gamma)
    values, expected = value_iteration(mdp), best_values(environment.unwrapped.P, gamma, sweeps)
    assert mdp.states == environment.observation_space.n and mdp.gamma == gamma
    assert torch.equal(mdp.start, torch.as_tensor(environment.unwrapped.initial_state_distrib).double())
    starts = mdp.start.nonzero()[:, 0].tolist()
    assert values[starts].tolist() == pytest.approx([expected[state] for state in starts], abs=1e-8)


def test_the_cliff_costs_thirteen_steps_and_ends():
    mdp = from_gymnasium(gymnasium.make("CliffWalking-v1"))
    assert float(mdp.start @ value_iteration(mdp)) == -13
    assert mdp.terminal.nonzero()[:, 0].tolist() == [47]
    assert mdp.R[36, RIGHT, 36] == -100 and mdp.P[36, RIGHT, 36] == 1  # falling leads back to the start, without an end


class Published(gymnasium.Env):
    """An environment that is nothing but its P."""

    def __init__(self, P, start):
        self.P, self.initial_state_distrib = P, np.array(start)
        self.observation_space, self.action_space = Discrete(len(P)), Discrete(len(P[0]))


def test_a_state_that_both_ends_and_goes_on_gets_an_end_beside_it():
    # heads: 1 and over; tails: on to state 1, which pays 2 and always ends, in state 0
    world = Published({0: {0: [(0.5, 1, 1.0, True), (0.5, 1, 0.0, False)]}, 1: {0: [(1.0, 0, 2.0, True)]}}, [1.0, 0.0])
    mdp = from_gymnasium(world)
    assert mdp.states == 3 and mdp.terminal.tolist() == [False, False, True] and mdp.start.tolist() == [1, 0, 0]
    assert float(objective(mdp, torch.ones(3, 1))) == 0.5 * 1 + 0.5 * 2


def test_rewards_that_differ_for_the_same_move_become_their_mean():
    world = Published({0: {0: [(0.25, 1, 8.0, True), (0.75, 1, 0.0, True)]}, 1: {0: [(1.0, 0, 5.0, False)]}}, [1, 0])
    mdp = from_gymnasium(world)
    assert mdp.R[0, 0].tolist() == [0, 2] and mdp.terminal.tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CartPole-v1", {}, "CartPoleEnv publishes no P with initial_state_distrib: expected e.g. FrozenLake"),
        ("Blackjack-v1", {}, "BlackjackEnv publishes no P with initial_state_distrib: expected e.g. FrozenLake"),
        (
            "Taxi-v4",
            {"fickle_passenger": True},
            "fickle_passenger=True is not in the environment's P: expected False",
        ),
    ],
)
def test_an_environment_whose_arrays_are_unknown_is_refused(name, options, message):
    with pytest.raises(ValueError) as error:
        from_gymnasium(gymnasium.make(name, **options))
    assert str(error.value) == message


# ---------------------------------------------------------------- collect_from


def test_stepping_an_environment_and_sampling_its_arrays_agree_with_j():
    environment = gymnasium.make("FrozenLake-v1")
    mdp = from_gymnasium(environment)
    good = 6 * (mdp.P * (mdp.R + value_iteration(mdp))).sum(-1).float()
    policy, other = (lambda observations: good[observations]), random_policy(16, 4)
    expected = objective(mdp, probabilities(mdp, policy), 100)
    stepped, _ = collect_from(environment, policy, 2000, generator=seeded())
    sampled, _ = collect(mdp, policy, 20_000, horizon=100, generator=seeded())
    for rollout in (stepped, sampled):
        assert standard_errors(rollout.rewards.sum(1), expected) < 4
        assert standard_errors(rollout.rewards.sum(1), objective(mdp, probabilities(mdp, other), 100)) > 4
    lengths = [rollout.mask.sum(1).double() for rollout in (stepped, sampled)]
    assert standard_errors(lengths[0], lengths[1].mean()) < 4


def test_stepping_gives_steps_the_arrays_allow_and_the_same_record():
    world = GridWorld("default", slip=0.2, step_reward=-0.5)
    mdp, policy = world.to_mdp(), random_policy(22, 4, dtype=torch.float64)
    rollout, final_states = collect_from(world, policy, 200, horizon=25, generator=seeded())
    mask, after = rollout.mask, follow(rollout, final_states)
    assert (mdp.P[rollout.observations, rollout.actions, after][mask] > 0).all()
    assert (mdp.R[rollout.observations, rollout.actions, after][mask] == rollout.rewards[mask]).all()
    assert torch.equal(rollout.terminated, mdp.terminal[final_states]) and final_states.dtype == torch.int64
    for field in (rollout.observations, rollout.actions, rollout.rewards, rollout.logprobs):
        assert (field[~mask] == 0).all()
    assert rollout.rewards.dtype == torch.float64 and check_behavior(policy, rollout, atol=1e-6) <= 1e-6
    assert int(mask.sum(1).max()) == mask.shape[1]


def test_time_limits_truncate_and_do_not_terminate():
    limited = gymnasium.make("ptlearn/GridWorld-v0", map="corridor", max_episode_steps=9)
    for action, horizon, steps, terminated in [
        (RIGHT, None, 9, True),  # reaches the goal in the step in which the time is over: that counts as an end
        (LEFT, None, 9, False),
        (RIGHT, 5, 5, False),
        (RIGHT, 20, 9, True),
    ]:
        rollout, final_states = collect_from(limited, always(action), 2, horizon=horizon, generator=seeded())
        assert rollout.mask.tolist() == [[True] * steps] * 2 and rollout.terminated.tolist() == [terminated] * 2
        assert final_states.tolist() == [steps if action == RIGHT else 0] * 2


class Shifted(gymnasium.Env):
    """States 5, 6, 7 and actions 1, 2 (stay, go); counts its resets."""

    observation_space, action_space = Discrete(3, start=5), Discrete(2, start=1)

    def __init__(self):
        self.seeds = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.state = 5
        return np.int64(self.state), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.state += int(action == 2)
        return np.int64(self.state), np.float32(action), np.bool_(self.state == 7), False, {}


def vector_of(count):
    return gymnasium.make_vec("FrozenLake-v1", num_envs=count, vectorization_mode="sync")


def test_only_an_environment_becomes_an_mdp():
    for given, name in ((vector_of(1), "SyncVectorEnv"), ("FrozenLake-v1", "str"), (None, "NoneType")):
        with pytest.raises(ValueError, match=f"^{name} publishes no P with initial_state_distrib: expected"):
            from_gymnasium(given)


def test_spaces_that_do_not_start_at_zero_become_states_and_actions_that_do():
    rollout, final_states = collect_from(Shifted(), random_policy(3, 2), 100, horizon=30, generator=seeded())
    after = follow(rollout, final_states)
    assert (final_states == 2).all() and rollout.terminated.all()
    assert ((after - rollout.observations) == rollout.actions)[rollout.mask].all()
    assert torch.equal(rollout.rewards, (rollout.actions + 1.0) * rollout.mask)


def test_several_environments_take_turns_and_every_episode_has_its_own_seed():
    worlds = [Shifted() for _ in range(3)]
    rollout, _ = collect_from(worlds, random_policy(3, 2), 10, horizon=30, generator=seeded())
    assert len(rollout.mask) == 10 and [len(world.seeds) for world in worlds] == [4, 3, 3]
    assert len({seed for world in worlds for seed in world.seeds}) == 10


def test_a_seed_decides_everything_when_stepping():
    policy = random_policy(16, 4)

    def run(seed, environment):
        return trajectories(*collect_from(environment, policy, 20, generator=seeded(seed)))

    used = gymnasium.make("FrozenLake-v1")
    first = run(3, used)
    assert run(3, used) == first == run(3, gymnasium.make("FrozenLake-v1"))
    assert run(4, used) != first


def test_cart_pole_through_bins():
    bins = Bins([[0.0], [0.0], [-0.1, 0.0, 0.1], [0.0]])
    environment = gymnasium.make("CartPole-v1")
    policy = random_policy(bins.states, 2)
    rollout, final_states = collect_from(environment, policy, 20, generator=seeded(), encode=bins)
    assert torch.equal(rollout.rewards, rollout.mask.float()) and rollout.terminated.all()
    assert int(rollout.observations.max()) < bins.states == 32
    assert check_behavior(policy, rollout, atol=1e-6) <= 1e-6
    # the recorded states are those of a replay with the same seeds and actions
    *seeds, _ = torch.randint(2**31, (21,), generator=seeded()).tolist()
    observation, _ = environment.reset(seed=seeds[0])
    for state, action in zip(rollout.observations[0][rollout.mask[0]], rollout.actions[0][rollout.mask[0]].tolist()):
        assert state == bins(observation)
        observation, *_ = environment.step(action)
    assert final_states[0] == bins(observation)


class Continuous(Shifted):
    action_space = Box(-1, 1, (1,))


class Wide(Shifted):
    observation_space = Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("environments", "options", "message"),
    [
        (
            Continuous(),
            {},
            "environments[0] has the action space Box(-1.0, 1.0, (1,), float32): expected Discrete",
        ),
        (
            [Shifted(), Continuous()],
            {},
            "environments[1] has the action space Box(-1.0, 1.0, (1,), float32): expected Discrete",
        ),
        (
            Wide(),
            {},
            "environments[0] has the observation space Box(-1.0, 1.0, (2,), float32): expected Discrete, or encode",
        ),
        ([], {}, "environments is empty: expected at least one"),
        (["FrozenLake-v1"], {}, "environments[0] is a str: expected a gymnasium.Env"),
        ("FrozenLake-v1", {}, "environments[0] is a str: expected a gymnasium.Env"),
        (None, {}, "environments[0] is a NoneType: expected a gymnasium.Env"),
        (GridWorld, {}, "environments[0] is a type: expected a gymnasium.Env"),
        (vector_of(2), {}, "environments[0] is a SyncVectorEnv: expected a gymnasium.Env"),
        ([Shifted(), vector_of(1)], {}, "environments[1] is a SyncVectorEnv: expected a gymnasium.Env"),
        ((Shifted(), vector_of(1)), {}, "environments[1] is a SyncVectorEnv: expected a gymnasium.Env"),
        ([Shifted(), GridWorld()], {}, "environments[1] has other spaces than environments[0]: expected the same"),
        (
            Wide(),
            {"encode": lambda observation: 0},
            "encode has no attribute states: expected the number of states it can return, as Bins has",
        ),
        (Shifted(), {"horizon": 0}, "horizon=0: expected at least 1"),
        (Shifted(), {"horizon": 2.0}, "horizon=2.0: expected a whole number"),
        (Shifted(), {"episodes": "3"}, "episodes='3': expected a whole number"),
        (Shifted(), {"episodes": -2}, "episodes=-2: expected at least 1"),
        (
            Shifted(),
            {"policy": random_policy(3, 4)},
            "policy returned logits of shape (3, 4) for all states: expected (3, 2), one per action",
        ),
    ],
)
def test_collect_from_says_in_one_line_what_is_wrong(environments, options, message):
    arguments = {"policy": random_policy(3, 2), "episodes": 2, "horizon": 5} | options
    with pytest.raises(ValueError) as error:
        collect_from(environments, **arguments)
    assert str(error.value) == message


# ---------------------------------------------------------------- bins


def test_bins_are_a_product_grid():
    bins = Bins([[-1.0, 0.0, 2.0], [5.0]])
    assert bins.states == 8
    assert [bins(x) for x in ([-2, 0], [-1, 0], [-0.5, 5], [1, 5], [2, 4.9], [9, 9])] == [0, 2, 3, 5, 6, 7]
    assert bins(np.array([1, 5], dtype=np.float32)) == 5 and type(bins(np.array([1.0, 5.0]))) is int


def test_the_center_of_a_bin_is_inside_it():
    bins = Bins([[-1.0, 0.0, 2.0], [5.0], []])
    assert bins.centers.shape == (8, 3) and bins.centers.is_floating_point()
    assert [bins(center.tolist()) for center in bins.centers] == list(range(8))
    assert bins.centers[:, 0].unique().tolist() == [-1.5, -0.5, 1.0, 3.0]


def test_bins_say_in_one_line_what_is_wrong():
    with pytest.raises(ValueError) as error:
        Bins([[0.0], [1.0, 1.0]])
    assert str(error.value) == "edges[1] is [1.0, 1.0]: expected ascending numbers"
    with pytest.raises(ValueError) as error:
        Bins([[0.0], [1.0]])(np.zeros(3))
    assert str(error.value) == "observation has 3 components: expected 2, as edges has"
    with pytest.raises(ValueError, match=r"^observation is \[0\.5, nan\]: expected numbers, no NaN$"):
        Bins([[0.0], [1.0]])([0.5, float("nan")])
    with pytest.raises(ValueError, match=r"^edges\[0\] is \[nan\]: expected ascending numbers$"):
        Bins([[float("nan")]])


def test_a_policy_for_fewer_states_is_refused():
    with pytest.raises(ValueError, match="policy does not take all 16 states: index 10 is out of bounds"):
        collect_from(gymnasium.make("FrozenLake-v1"), TabularPolicy(10, 4), 2)
