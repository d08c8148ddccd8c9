"""A world too large for tables of its transitions is refused in one line; what a table holds is looked up once."""

import gymnasium
import pytest
import torch

from ptlearn.grid.collection import collect, from_gymnasium
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import check_table, state_values
from ptlearn.rl.policies import TabularPolicy


def square(side):
    return ["S" + "." * (side - 1), *["." * side] * (side - 2), "." * (side - 1) + "G"]


def test_a_grid_of_ten_thousand_cells_is_refused_before_it_is_made():
    world = GridWorld(square(100))
    said = r"^10,000 states and 4 actions .* 400,000,000 transitions \(3.2 GB.*25,000,000$"
    with pytest.raises(ValueError, match=said):
        world.to_mdp()


def test_the_largest_table_is_fifty_by_fifty():
    check_table(50 * 50, 4)
    with pytest.raises(ValueError, match="expected at most"):
        check_table(50 * 51, 4)


def test_an_environment_that_publishes_too_much_is_refused():
    world = gymnasium.make("FrozenLake-v1", desc=[row.replace(".", "F") for row in square(60)])
    with pytest.raises(ValueError, match="3,600 states"):
        from_gymnasium(world)


def test_a_table_is_searched_once_and_a_changed_world_anew():
    world = GridWorld(["S.G"], slip=0.2).to_mdp(gamma=0.9)
    chances, successors = world.outcomes
    assert world.outcomes is world.outcomes and world.terminal is world.terminal
    # the listed outcomes carry all of P
    assert torch.equal(torch.zeros_like(world.P).scatter_add(-1, successors, chances), world.P)
    other = GridWorld(["SG."], slip=0.2).to_mdp(gamma=0.9)
    assert not torch.equal(other.outcomes[1], successors)
    policy = TabularPolicy(world.states, world.actions)

    def drawn():
        return collect(world, policy, 500, horizon=80, generator=torch.Generator().manual_seed(1))[0]

    one, two = drawn(), drawn()
    assert torch.equal(one.actions, two.actions)
    mean = (one.rewards.double() * 0.9 ** torch.arange(one.rewards.shape[1])).sum(1)
    exact = state_values(world, torch.full((3, 4), 0.25, dtype=torch.float64))[0]
    assert abs(mean.mean() - exact) < 4 * mean.std() / 500**0.5
