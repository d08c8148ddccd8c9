"""Exact quantities of an MDP, each worked out a second way: by a naive loop, by brute force, or by an identity."""

import itertools
import math

import pytest
import torch
from worlds import Table, normal, random_world, refused

from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.rollout import action_logprobs

BOTH_GAMMAS = pytest.mark.parametrize("gamma", [0.9, 1.0])
HORIZONS = pytest.mark.parametrize(("gamma", "horizon"), [(0.9, None), (1.0, None), (0.9, 3), (1.0, 3)])


class Network(torch.nn.Module):
    """Several parameter tensors of different shapes."""

    def __init__(self, states, actions):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.embedding = torch.nn.Parameter(torch.randn(states, 2, generator=generator, dtype=torch.float64))
        self.layer = torch.nn.Linear(2, actions).double()
        for parameter in self.layer.parameters():
            torch.nn.init.normal_(parameter, generator=generator)

    def forward(self, observations):
        return self.layer(self.embedding[observations].tanh())


def random_policy(world, *, seed=0):
    return Table(normal(world.states, world.actions, seed=seed + 100))


def random_probabilities(world, *, seed=0):
    return mdp.probabilities(world, random_policy(world, seed=seed)).detach()


def deterministic_policies(world):
    for actions in itertools.product(range(world.actions), repeat=world.states):
        yield torch.nn.functional.one_hot(torch.tensor(actions), world.actions).double()


def naive_values(world, pi, sweeps):
    """The Bellman equation, in plain Python."""
    values = [0.0] * world.states
    for _ in range(sweeps):
        values = [
            sum(
                float(pi[s, a] * world.P[s, a, t]) * (float(world.R[s, a, t]) + world.gamma * values[t])
                for a in range(world.actions)
                for t in range(world.states)
            )
            for s in range(world.states)
        ]
    return torch.tensor(values, dtype=torch.float64)


def expected_rewards(world, pi):
    return (pi[:, :, None] * world.P * world.R).sum((1, 2))


def close(actual, expected, *, within=1e-10):
    assert float((actual - expected).norm()) <= within * max(float(expected.norm()), 1e-3), (actual, expected)


# ---------------------------------------------------------------- values


@BOTH_GAMMAS
def test_linear_solve_equals_bellman_iteration(gamma):
    world = random_world(gamma=gamma)
    pi = random_probabilities(world)
    values = mdp.state_values(world, pi)
    close(values, naive_values(world, pi, 150), within=1e-9)
    close(values, mdp.horizon_values(world, pi, 1000)[0])
    close(mdp.objective(world, pi), (values[0] + values[1]) / 2)


def test_horizon_values_count_the_steps_left():
    world = random_world(gamma=0.9)
    pi = random_probabilities(world)
    values = mdp.horizon_values(world, pi, 4)
    assert values.shape == (5, world.states) and values[4].abs().max() == 0
    for time in range(4):
        close(values[time], naive_values(world, pi, 4 - time))


@BOTH_GAMMAS
def test_action_values_average_to_the_state_values(gamma):
    world = random_world(gamma=gamma)
    pi = random_probabilities(world)
    values = mdp.state_values(world, pi)
    q = mdp.action_values(world, values)
    close((pi * q).sum(1), values)
    expected = [float(world.P[1, 2, t]) * (float(world.R[1, 2, t]) + gamma * float(values[t])) for t in range(4)]
    assert float(q[1, 2]) == pytest.approx(sum(expected), abs=1e-12)


def test_rewards_of_state_and_action_hold_wherever_one_lands():
    world = random_world()
    short = mdp.MDP(world.P, world.R[:, :, 0], world.start)
    assert torch.equal(short.R, world.R[:, :, :1].expand(-1, -1, world.states))


def test_rounding_of_single_precision_is_repaired():
    thirds = torch.full((3, 2, 3), 1 / 3)
    assert float(thirds.double().sum(-1)[0, 0]) > 1 + 1e-9
    world = mdp.MDP(thirds, torch.zeros(3, 2), thirds[0, 0])
    assert (world.P.sum(-1) - 1).abs().max() < 1e-15 and abs(float(world.start.sum()) - 1) < 1e-15
    refused("start sums to 1.00001", mdp.MDP, thirds, torch.zeros(3, 2), thirds[0, 0] * 1.00001)


def test_terminal_states_loop_without_reward():
    P = torch.zeros(4, 2, 4)
    P[0, 0, 1] = P[0, 1, 2] = P[1, :, 1] = P[2, :, 2] = P[3, 0, 3] = P[3, 1, 0] = 1
    R = torch.zeros(4, 2)
    R[1, 1] = 1  # pays for staying: not an end
    assert mdp.MDP(P, R, [1.0, 0, 0, 0]).terminal.tolist() == [False, False, True, False]


def test_start_in_a_terminal_state_is_worth_nothing():
    world = random_world()
    ended = mdp.MDP(world.P, world.R, [0.0, 0, 0, 1])
    pi = random_probabilities(world)
    assert mdp.objective(ended, pi) == 0 and mdp.occupancy(ended, pi).sum() == 0


# ---------------------------------------------------------------- optimal policies


@pytest.mark.parametrize("seed", [0, 10, 20])
@BOTH_GAMMAS
def test_value_iteration_and_brute_force_agree(gamma, seed):
    world = random_world(gamma=gamma, seed=seed)
    best = torch.stack([mdp.state_values(world, pi) for pi in deterministic_policies(world)]).max(0).values
    close(mdp.value_iteration(world), best, within=1e-8)
    close(mdp.state_values(world, mdp.greedy(world, best)), best)


def corridor(*, step_reward=0.0, gamma=1.0, goal_reward=1.0, length=3):
    """Stay, or go right; the last state is the goal."""
    P, R = torch.zeros(length + 1, 2, length + 1), torch.full((length + 1, 2, length + 1), float(step_reward))
    for state in range(length + 1):
        P[state, 0, state] = P[state, 1, min(state + 1, length)] = 1
    R[:, :, length], R[length] = goal_reward, 0
    return mdp.MDP(P, R, torch.eye(length + 1)[0], gamma)


def test_optimal_values_of_a_corridor():
    expected = [0.81, 0.9, 1.0, 0.0]
    assert mdp.value_iteration(corridor(gamma=0.9)).tolist() == pytest.approx(expected, abs=1e-9)
    assert mdp.greedy(corridor(gamma=0.9), torch.tensor(expected).double())[:3].tolist() == [[0, 1]] * 3
    assert mdp.value_iteration(corridor(step_reward=-1, goal_reward=10)).tolist() == pytest.approx([8, 9, 10, 0])


def test_endless_rewards_are_refused():
    forever = mdp.MDP([[[1.0]]], [[1.0]], [1.0])
    refused("values still change after 50 sweeps: with gamma=1.0", mdp.value_iteration, forever, limit=50)


# ---------------------------------------------------------------- visits and the objective


@HORIZONS
def test_occupancy_times_reward_is_the_objective(gamma, horizon):
    world = random_world(gamma=gamma)
    pi = random_probabilities(world)
    visits = mdp.occupancy(world, pi, horizon)
    close(visits @ expected_rewards(world, pi), mdp.objective(world, pi, horizon))
    assert visits[-1] == 0 and visits.min() >= 0


@BOTH_GAMMAS
def test_occupancy_obeys_the_flow_of_visits(gamma):
    world = random_world(gamma=gamma)
    pi = random_probabilities(world)
    visits = mdp.occupancy(world, pi)
    arrivals = torch.einsum("s,sa,sat->t", visits, pi, world.P)
    close(visits[:-1], (world.start + gamma * arrivals)[:-1])
    close(mdp.occupancy(world, pi, 1), world.start)


@BOTH_GAMMAS
def test_performance_difference(gamma):
    """J(pi') - J(pi) = sum over s of occupancy'(s) * sum over a of pi'(a | s) A(s, a)."""
    world = random_world(gamma=gamma)
    old, new = random_probabilities(world, seed=1), random_probabilities(world, seed=2)
    values = mdp.state_values(world, old)
    advantages = mdp.action_values(world, values) - values[:, None]
    gain = mdp.occupancy(world, new) @ (new * advantages).sum(1)
    close(mdp.objective(world, new) - mdp.objective(world, old), gain)
    assert abs(float(gain)) > 0.01


@HORIZONS
@pytest.mark.parametrize("make", [random_policy, lambda world: Network(world.states, world.actions)])
def test_exact_gradient_equals_finite_differences(gamma, horizon, make):
    world = random_world(gamma=gamma)
    policy = make(world)
    exact = mdp.exact_gradient(world, policy, horizon)
    parameters = list(policy.parameters())
    flat, step = torch.nn.utils.parameters_to_vector(parameters).detach().clone(), 1e-5
    assert exact.shape == flat.shape and exact.dtype == torch.float64

    def objective_at(vector):
        torch.nn.utils.vector_to_parameters(vector, parameters)
        return mdp.objective(world, mdp.probabilities(world, policy), horizon).detach()

    slopes = [(objective_at(flat + e) - objective_at(flat - e)) / (2 * step) for e in step * torch.eye(len(flat))]
    close(exact, torch.stack(slopes), within=1e-7)


@HORIZONS
def test_exact_gradient_equals_the_policy_gradient_theorem(gamma, horizon):
    """sum over t, s, a of gamma^t Pr(s_t = s) pi(a | s) grad log pi(a | s) Q_t(s, a), in closed form for a softmax."""
    world = random_world(gamma=gamma)
    policy = random_policy(world)
    pi = mdp.probabilities(world, policy).detach()

    def term(visits, values, following):
        return visits[:, None] * pi * (mdp.action_values(world, following) - values[:, None])

    if horizon is None:
        values = mdp.state_values(world, pi)
        expected = term(mdp.occupancy(world, pi), values, values)
    else:
        values = mdp.horizon_values(world, pi, horizon)
        visits = [mdp.occupancy(world, pi, t + 1) - mdp.occupancy(world, pi, t) for t in range(horizon)]
        expected = sum(term(visits[t], values[t], values[t + 1]) for t in range(horizon))
    close(mdp.exact_gradient(world, policy, horizon), expected.flatten())


def test_frozen_parameters_are_left_out():
    world, policy = random_world(), Network(4, 3)
    policy.embedding.requires_grad_(False)
    assert mdp.exact_gradient(world, policy).shape == (2 * 3 + 3,)


# ---------------------------------------------------------------- every trajectory


@BOTH_GAMMAS
@pytest.mark.parametrize("horizon", [1, 3])
def test_enumeration_gives_the_exact_expectations(gamma, horizon):
    world = random_world(gamma=gamma)
    policy = random_policy(world)
    pi = mdp.probabilities(world, policy).detach()
    rollout, final, probabilities = mdp.enumerate_trajectories(world, policy, horizon)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-12) and probabilities.min() > 0
    powers = torch.tensor([gamma**t for t in range(horizon)], dtype=torch.float64)
    close(probabilities @ (rollout.rewards * powers).sum(1), mdp.objective(world, pi, horizon))
    visits = torch.zeros(world.states, dtype=torch.float64)
    weights = (probabilities[:, None] * powers)[rollout.mask]
    close(visits.index_add(0, rollout.observations[rollout.mask], weights), mdp.occupancy(world, pi, horizon))
    assert set(zip(rollout.terminated.tolist(), (final == 3).tolist())) == {(True, True), (False, False)}


def test_enumerated_trajectories_are_consistent():
    world = random_world()
    policy = random_policy(world)
    rollout, final, probabilities = mdp.enumerate_trajectories(world, policy, 3)
    steps = rollout.mask.sum(1)
    assert torch.equal(rollout.mask, torch.arange(3) < steps[:, None])
    assert (steps[~rollout.terminated] == 3).all() and set(steps.tolist()) == {1, 2, 3}
    after = torch.cat([rollout.observations[:, 1:], final[:, None]], 1)
    after[torch.arange(len(final)), steps - 1] = final
    moves = world.P[rollout.observations, rollout.actions, after].where(rollout.mask, torch.ones(()).double())
    rewards = world.R[rollout.observations, rollout.actions, after].where(rollout.mask, torch.zeros(()).double())
    torch.testing.assert_close(rollout.rewards, rewards, atol=0, rtol=0)
    scores = action_logprobs(policy, rollout).detach()
    torch.testing.assert_close(rollout.logprobs, scores, atol=1e-12, rtol=0)
    close(probabilities, world.start[rollout.observations[:, 0]] * moves.prod(1) * scores.sum(1).exp())
    paths = torch.cat([rollout.observations, rollout.actions, rollout.mask, final[:, None]], 1)
    assert len(paths.unique(dim=0)) == len(paths)


def test_enumeration_of_a_coin():
    coin = mdp.MDP([[[0.75, 0.25]], [[0.0, 1.0]]], [[1.0], [0.0]], [0.5, 0.5])  # +1 a throw until tails
    rollout, final, probabilities = mdp.enumerate_trajectories(coin, Table(torch.zeros(2, 1)), 2)
    found = {
        (int(taken.sum()), int(state)): float(probability)
        for taken, state, probability in zip(rollout.mask, final, probabilities)
    }
    assert found == pytest.approx({(0, 1): 1 / 2, (1, 1): 1 / 8, (2, 1): 3 / 32, (2, 0): 9 / 32})
    assert rollout.rewards.sum(1).tolist() == rollout.mask.sum(1).tolist()
    assert rollout.terminated.tolist() == (final == 1).tolist()


def test_actions_of_no_probability_are_not_enumerated():
    world = random_world(actions=2)
    rollout, _, probabilities = mdp.enumerate_trajectories(world, Table(torch.tensor([[0.0, -math.inf]] * 4)), 3)
    assert rollout.actions.max() == 0 and float(probabilities.sum()) == pytest.approx(1, abs=1e-12)
    assert rollout.logprobs.abs().max() == 0


def test_sampled_trajectories_are_counted_where_they_are_listed():
    coin = mdp.MDP([[[0.5, 0.5]], [[0.0, 1.0]]], [[1.0], [0.0]], [1.0, 0.0])
    always, generator = Table(torch.zeros(2, 1)), torch.Generator().manual_seed(0)
    every, final, probabilities = mdp.enumerate_trajectories(coin, always, 3)
    sampled = collect(coin, always, 4000, horizon=3, generator=generator)
    counts = mdp.count_trajectories(*sampled, every, final)
    assert int(counts.sum()) == 4000
    assert (counts / 4000).tolist() == pytest.approx(probabilities.tolist(), abs=0.04)
    again = mdp.count_trajectories(every, final, every, final)
    assert again.tolist() == [1] * len(final)
    shorter = mdp.enumerate_trajectories(coin, always, 1)[:2]
    refused("none of the 2 listed trajectories", mdp.count_trajectories, *sampled, *shorter)


# ---------------------------------------------------------------- bad input


def changed(**changes):
    """Arguments of a two-state world, one of them wrong."""
    arguments = {"P": torch.tensor([[[0.5, 0.5], [0, 1]], [[0, 1], [0, 1]]]), "R": torch.zeros(2, 2), "start": [1.0, 0]}
    return arguments | changes


def with_row(*row):
    P = changed()["P"].clone()
    P[0, 1] = torch.tensor(row)
    return P


WRONG = {
    "flat P": (changed(P=torch.ones(2, 2)), r"P has shape \(2, 2\): expected \(S, A, S\)"),
    "P not square": (changed(P=torch.ones(2, 2, 3)), r"P has shape \(2, 2, 3\): expected \(S, A, S\)"),
    "R": (changed(R=torch.zeros(3)), r"R has shape \(3,\): expected \(2, 2, 2\)"),
    "start": (changed(start=[1.0]), r"start has shape \(1,\): expected \(2,\)"),
    "infinite R": (changed(R=torch.full((2, 2), math.inf)), "R has a reward that is not finite"),
    "sum": (changed(P=with_row(0.5, 0.4)), r"P\[0, 1\] \(state 0, action 1\) sums to 0.9 .*expected probabilities"),
    "negative": (changed(P=with_row(-0.5, 1.5)), r"P\[0, 1\] .* smallest entry -0.5: expected probabilities"),
    "NaN": (changed(P=with_row(math.nan, 1)), r"P\[0, 1\] \(state 0, action 1\) sums to nan"),
    "start sum": (changed(start=[0.5, 0]), "start sums to 0.5 with smallest entry 0: expected probabilities"),
    "start negative": (changed(start=[-0.5, 1.5]), "start sums to 1 with smallest entry -0.5: expected probabilities"),
    "start NaN": (changed(start=[math.nan, 1]), "start sums to nan with smallest entry nan: expected"),
    "gamma above": (changed(gamma=1.1), r"gamma=1.1: expected a number in \[0, 1\]"),
    "gamma below": (changed(gamma=-0.1), r"gamma=-0.1: expected a number in \[0, 1\]"),
    "gamma NaN": (changed(gamma=math.nan), r"gamma=nan: expected a number in \[0, 1\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_world_is_refused(case):
    arguments, message = WRONG[case]
    mdp.MDP(**changed())
    refused(message, mdp.MDP, **arguments)


def test_a_policy_of_the_wrong_shape_is_refused():
    world = random_world()
    refused(
        r"policy returned logits of shape \(4, 2\).*expected \(4, 3\)",
        mdp.probabilities,
        world,
        Table(torch.ones(4, 2)),
    )
    for function in (mdp.state_values, mdp.occupancy, mdp.objective):
        refused(r"pi has shape \(4, 2\): expected \(4, 3\)", function, world, torch.ones(4, 2))


def test_an_episode_that_never_ends_is_refused_without_discount_or_horizon():
    staying, leaving = torch.tensor([[0.0, 1], [1, 0], [0, 1], [0, 1]]), torch.tensor([[0.5, 0.5]] * 4)
    for function in (mdp.state_values, mdp.occupancy, mdp.objective):
        refused("gamma=1 the episode never ends from state 0", function, corridor(), staying)
        function(corridor(), leaving)
        function(corridor(gamma=0.9), staying)
    assert mdp.objective(corridor(), staying, 5) == 0
    assert mdp.occupancy(corridor(), staying, 5).tolist() == [1, 4, 0, 0]


def test_no_horizon_and_too_many_trajectories_are_refused():
    world, pi = random_world(), random_probabilities(random_world())
    refused("horizon=0: expected at least 1", mdp.horizon_values, world, pi, 0)
    refused("horizon=0: expected at least 1", mdp.enumerate_trajectories, world, random_policy(world), 0)
    refused(
        "more than 100 trajectories within horizon=3",
        mdp.enumerate_trajectories,
        world,
        random_policy(world),
        3,
        limit=100,
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_of_each_episode_is_that_of_autograd(seed):
    world, policy = random_world(seed=seed), random_policy(random_world(seed=seed), seed=seed)
    every, _, _ = mdp.enumerate_trajectories(world, policy, 3)
    weights = normal(*every.mask.shape, seed=seed) * every.mask
    found = mdp.episode_gradients(mdp.probabilities(world, policy).detach(), every.observations, every.actions, weights)
    chosen = policy(every.observations).log_softmax(-1).gather(-1, every.actions[..., None])[..., 0]
    for row in range(0, len(weights), 17):
        expected = torch.autograd.grad((weights * chosen)[row].sum(), policy.logits, retain_graph=True)[0]
        assert torch.allclose(found[row], expected, atol=1e-12)
