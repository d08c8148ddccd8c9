"""C23 to C25 on the grid world, from definitions, closed forms and brute force."""

import itertools
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import MAPS, GridWorld
from ptlearn.policy_gradient import episode_returns

STEPS = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
SIDEWAYS = {"up": ("left", "right"), "down": ("left", "right"), "left": ("up", "down"), "right": ("up", "down")}


def table(pi):
    """A policy with these probabilities (S, A)."""
    return lambda observations: pi.log()[observations]


def uniform(world):
    return torch.full((world.states, world.actions), 1 / world.actions, dtype=torch.float64)


def some_policy(world, seed):
    return torch.randn(world.states, 4, generator=torch.Generator().manual_seed(seed)).double().softmax(-1)


def transition(rows, before, action, after, slip):
    """p(after | before, action) by the rules of the lecture's picture, cells as (row, column)."""
    if rows[before[0]][before[1]] in "GX":
        return float(after == before)
    total = 0.0
    for move, chance in ((action, 1 - slip), *((side, slip / 2) for side in SIDEWAYS[action])):
        row, column = before[0] + STEPS[move][0], before[1] + STEPS[move][1]
        blocked = row not in range(len(rows)) or column not in range(len(rows[0])) or rows[row][column] == "#"
        total += chance * (after == (before if blocked else (row, column)))
    return total


def chi_square_p(counts, expected):
    """How often chance alone puts counts this far from the expected ones; rows are independent draws."""
    assert not counts[expected == 0].any()
    terms = torch.where(expected > 0, (counts - expected) ** 2 / expected, 0.0)
    freedom = ((expected > 0).sum(-1) - 1).sum()
    return float(torch.special.gammaincc(freedom / 2, terms.sum() / 2))


# C23 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_c23_the_world_keeps_the_interface():
    check_env(gymnasium.make("ptlearn/GridWorld-v0", map="default", slip=0.2).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", ["default", "small", "cliff"])
@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_c23_the_arrays_follow_the_rules(name, slip):
    world = GridWorld(name, slip=slip)
    arrays, rows = world.to_mdp(), MAPS[name]
    for (s, before), (a, action), (t, after) in itertools.product(
        enumerate(world.cells), enumerate(STEPS), enumerate(world.cells)
    ):
        chance = transition(rows, before, action, after, slip)
        assert float(arrays.P[s, a, t]) == pytest.approx(chance, abs=1e-12)
        pays = {"G": 1.0, "X": -1.0}.get(rows[after[0]][after[1]], 0.0) * (rows[before[0]][before[1]] not in "GX")
        assert chance == 0 or float(arrays.R[s, a, t]) == pays
    assert arrays.start.tolist() == [float(rows[row][column] == "S") for row, column in world.cells]


def test_c23_steps_land_where_the_arrays_say():
    world, draws = GridWorld("default", slip=0.2), 300
    arrays = world.to_mdp()
    world.reset(seed=23)
    counts = torch.zeros_like(arrays.P)
    going = (~arrays.terminal).nonzero()[:, 0].tolist()
    for state, action, _ in itertools.product(going, range(4), range(draws)):
        world.state = state
        after, reward, terminated, truncated, _ = world.step(action)
        assert (reward, terminated, truncated) == (arrays.R[state, action, after], bool(arrays.terminal[after]), False)
        counts[state, action, after] += 1
    assert chi_square_p(counts[going], draws * arrays.P[going]) > 1e-3
    slippier = GridWorld("default", slip=0.25).to_mdp().P[going]
    assert chi_square_p(counts[going], draws * slippier) < 1e-6


# C24 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_c24_a_policy_is_a_distribution_over_trajectories(slip):
    world = GridWorld("small", slip=slip).to_mdp(gamma=0.9)
    pi = some_policy(world, 24)
    every, final, chances = mdp.enumerate_trajectories(world, table(pi), 3)
    assert float(chances.sum()) == pytest.approx(1, abs=1e-12)
    J = 0.0
    for row in range(len(chances)):
        steps = int(every.mask[row].sum())
        states = [*every.observations[row, :steps].tolist(), int(final[row])]
        chance, total = float(world.start[states[0]]), 0.0
        for t, action in enumerate(every.actions[row, :steps].tolist()):
            chance *= float(pi[states[t], action] * world.P[states[t], action, states[t + 1]])
            total += 0.9**t * float(world.R[states[t], action, states[t + 1]])
        assert float(chances[row]) == pytest.approx(chance, rel=1e-9)
        J += chance * total
    assert float(mdp.objective(world, pi, horizon=3)) == pytest.approx(J, abs=1e-12)


def sampled_counts(world, behavior, every, final, draws):
    """How many of that many episodes took each of the listed trajectories."""

    def names(rollout, ends):
        steps = torch.where(rollout.mask, rollout.observations * 4 + rollout.actions + 1, 0)
        return [(*row, end) for row, end in zip(steps.tolist(), ends.tolist(), strict=True)]

    rollout, ends = collect(world, table(behavior), draws, horizon=3, generator=torch.Generator().manual_seed(7))
    place = {name: index for index, name in enumerate(names(every, final))}
    return torch.bincount(torch.tensor([place[name] for name in names(rollout, ends)]), minlength=len(place)).double()


def test_c24_trajectories_are_sampled_as_often_as_they_are_likely():
    world, draws = GridWorld("small", slip=0.2).to_mdp(), 40_000
    pi = some_policy(world, 24)
    every, final, chances = mdp.enumerate_trajectories(world, table(pi), 3)
    expected = draws * chances
    common = expected >= 5

    def p_value(behavior):
        counts = sampled_counts(world, behavior, every, final, draws)
        return chi_square_p(*(torch.cat([x[common], x[~common].sum()[None]]) for x in (counts, expected)))

    assert p_value(pi) > 1e-3
    assert p_value(0.9 * pi + 0.1 * uniform(world)) < 1e-6  # another policy is another distribution


def test_c24_three_ways_to_the_objective_agree():
    world = GridWorld("default", slip=0.2).to_mdp(gamma=0.9)
    pi = uniform(world)
    exact = float(mdp.objective(world, pi))
    # Bellman's equation as a fixed point, in numpy
    P, R = world.P.numpy(), world.R.numpy()
    V = np.zeros(world.states)
    for _ in range(400):
        V = np.einsum("sat,sat->s", P, R + 0.9 * V) / 4
    assert exact == pytest.approx(float(world.start.numpy() @ V), abs=1e-12)
    rollout, _ = collect(world, table(pi), 60_000, horizon=100, generator=torch.Generator().manual_seed(24))
    returns = episode_returns(rollout.rewards, rollout.mask, gamma=0.9)
    error = float(returns.std()) / math.sqrt(len(returns))
    assert abs(float(returns.mean()) - exact) < 4 * error < 0.004
    wrong_gamma = float(mdp.objective(GridWorld("default", slip=0.2).to_mdp(gamma=0.8), pi))
    assert abs(float(returns.mean()) - wrong_gamma) > 8 * error


def test_c24_the_error_falls_with_the_root_of_the_episodes_and_intervals_hold():
    world = GridWorld("default", slip=0.2).to_mdp(gamma=0.9)
    pi, generator = uniform(world), torch.Generator().manual_seed(1)
    exact = float(mdp.objective(world, pi, horizon=100))
    rollout, _ = collect(world, table(pi), 300 * 120, horizon=100, generator=generator)
    returns = episode_returns(rollout.rewards, rollout.mask, gamma=0.9)
    means = {n: returns.view(-1, n).mean(1) for n in (30, 120)}
    ratio = float(means[30].std() / means[120].std())
    assert 2 * 0.85 < ratio < 2 * 1.15  # sqrt(120 / 30), 300 estimates and 1,200
    errors = returns.view(-1, 120).std(1) / math.sqrt(120)
    assert 0.90 < float(((means[120] - exact).abs() < 1.96 * errors).double().mean()) < 0.99
    few = returns.view(-1, 10)[:2000]
    covered = (few.mean(1) - exact).abs() < 1.96 * few.std(1) / math.sqrt(10)
    assert 0.75 < float(covered.double().mean()) < 0.90  # too narrow: the lesson says so


def test_c24_slipping_does_not_matter_to_the_uniform_policy_only():
    slippery, dry = (GridWorld("default", slip=slip).to_mdp(gamma=0.9) for slip in (0.2, 0.0))
    assert float(mdp.objective(slippery, uniform(dry)) - mdp.objective(dry, uniform(dry))) == pytest.approx(
        0, abs=1e-12
    )
    best = [float(world.start @ mdp.value_iteration(world)) for world in (slippery, dry)]
    assert best[0] < 0.65 * best[1]
    assert best[1] == pytest.approx(0.9**7, abs=1e-9)  # eight moves to the star, the last of which pays


def test_c24_value_iteration_finds_the_best_of_all_policies():
    world = GridWorld("small", slip=0.2).to_mdp(gamma=0.9)
    acting, best = (~world.terminal).nonzero()[:, 0], -math.inf
    for choice in itertools.product(range(4), repeat=len(acting)):
        pi = uniform(world)
        pi[acting] = torch.eye(4, dtype=torch.float64)[list(choice)]
        best = max(best, float(mdp.objective(world, pi)))
    assert float(world.start @ mdp.value_iteration(world)) == pytest.approx(best, abs=1e-9)


def test_c24_without_discounting_the_best_values_give_no_direction():
    world = GridWorld("default", slip=0.2).to_mdp(gamma=1.0)
    values = mdp.value_iteration(world)
    assert float((values[~world.terminal] - 1).abs().max()) < 1e-6
    assert float(mdp.objective(world, mdp.greedy(world, values), horizon=1000)) == 0
    hurried = GridWorld("default", slip=0.2).to_mdp(gamma=0.99)
    greedy = mdp.greedy(hurried, mdp.value_iteration(hurried))
    assert float(mdp.objective(world, greedy, horizon=1000)) > 0.999


# C25 -----------------------------------------------------------------------------------------------------------------


def empty(n, **options):
    return GridWorld(["S" + "." * (n - 1), *["." * n] * (n - 2), "." * (n - 1) + "G"], **options)


@pytest.mark.parametrize("length", [1, 4, 9, 20])
def test_c25_steps_until_the_goal_of_a_corridor(length):
    # a lazy walk with a reflecting end: L (L + 1) moves along the corridor, and half of all moves go up or down
    world = GridWorld(["S" + "." * (length - 1) + "G"]).to_mdp()
    assert float(mdp.occupancy(world, uniform(world)).sum()) == pytest.approx(2 * length * (length + 1), rel=1e-9)


def test_c25_steps_and_episodes_until_the_first_reward_grow_with_the_map():
    steps, episodes = {}, {}
    for n in (4, 8, 16):
        world = empty(n).to_mdp()
        # the same numbers from the matrix of the walk alone
        walk = world.P.numpy().mean(1)
        inner = walk[:-1, :-1]
        steps[n] = np.linalg.solve(np.eye(len(inner)) - inner, np.ones(len(inner)))[0]
        episodes[n] = 1 / np.linalg.matrix_power(walk, 100)[0, -1]
        assert float(mdp.occupancy(world, uniform(world)).sum()) == pytest.approx(steps[n], rel=1e-9)
        assert 1 / float(mdp.objective(world, uniform(world), horizon=100)) == pytest.approx(episodes[n], rel=1e-9)
    assert 5 < steps[8] / steps[4] < 6.5 and 5 < steps[16] / steps[8] < 6  # the area, and a little more
    assert 4 < episodes[8] / episodes[4] < 6 and episodes[16] / episodes[8] > 80
    assert 600 < episodes[16] < 650


def test_c25_random_walks_take_as_long_as_computed():
    world = empty(6).to_mdp()
    policy, generator = table(uniform(world)), torch.Generator().manual_seed(25)
    rollout, _ = collect(world, policy, 2000, horizon=100_000, generator=generator)
    lengths = rollout.mask.sum(1).double()
    assert rollout.terminated.all()
    error = float(lengths.std()) / math.sqrt(len(lengths))
    assert abs(float(lengths.mean()) - float(mdp.occupancy(world, uniform(world)).sum())) < 4 * error < 20
    won = collect(empty(8).to_mdp(), table(uniform(empty(8).to_mdp())), 20_000, horizon=100, generator=generator)[0]
    share = float(won.terminated.double().mean())
    exact = float(mdp.objective(empty(8).to_mdp(), uniform(empty(8).to_mdp()), horizon=100))
    assert abs(share - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000) < 0.02


def needed(side):
    """Episodes of each policy to tell a leaning one from the uniform one in 95 % of trials: (sparse, dense)."""
    grid = empty(side)
    world = grid.to_mdp()
    distance = torch.tensor([float(2 * (side - 1) - row - column) for row, column in grid.cells]).double()
    leaning = torch.tensor([0.0, 0.2, 0.2, 0.0]).double().softmax(-1).expand(world.states, 4)
    moments = {"sparse": [], "dense": []}
    for pi in (uniform(world), leaning):
        walk = torch.einsum("sa,sat->st", pi, world.P)
        ends = world.start @ torch.linalg.matrix_power(walk, 100)  # the distribution of the state after 100 steps
        for name, value in (("sparse", world.terminal.double()), ("dense", distance[0] - distance)):
            moments[name].append((ends @ value, ends @ value**2 - (ends @ value) ** 2))
    return tuple(
        float(1.645**2 * (worse[1] + better[1]) / (better[0] - worse[0]) ** 2) for worse, better in moments.values()
    )


def test_c25_a_sparse_reward_needs_many_times_the_episodes_on_a_large_map_only():
    sparse, dense = needed(16)
    assert sparse > 15 * dense and dense < 12
    sparse, dense = needed(4)
    assert 0.8 < sparse / dense < 1.25


def test_c25_a_dense_reward_may_change_what_is_best():
    grid = empty(8)
    world, gamma = grid.to_mdp(), 0.99
    distance = torch.tensor([float(14 - row - column) for row, column in grid.cells]).double()
    over = world.terminal[:, None, None]

    def best(rewards):
        changed = mdp.MDP(world.P, torch.where(over, 0.0, rewards), world.start, gamma)
        values = mdp.value_iteration(changed)
        return values, float(mdp.objective(world, mdp.greedy(changed, values), horizon=1000))

    plain, reached = best(world.R)
    assert reached == 1
    shaped, reached = best(world.R - gamma * distance + distance[:, None, None])
    assert reached == 1
    torch.testing.assert_close(shaped, plain + distance, atol=1e-7, rtol=0)
    assert best(world.R + 1 - distance / 14)[1] == 0
