"""C33 to C35: advantages from rollouts and critics, their bias and variance, actor-critic, against exact answers."""

import dataclasses

import gymnasium
import pytest
import torch

from ptlearn.grid.collection import collect, collect_from, from_gymnasium
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import (
    MDP,
    action_values,
    enumerate_trajectories,
    exact_gradient,
    objective,
    occupancy,
    probabilities,
    state_values,
    value_iteration,
)
from ptlearn.policy_gradient import (
    advantage,
    discounts,
    episode_returns,
    leave_one_out,
    n_step_advantage,
    reward_to_go,
)
from ptlearn.rl.policies import TabularCritic, TabularPolicy
from ptlearn.rl.training import train_policy

GAMMA = 0.9


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def layered():
    """Three layers of two states, then the end: all 4**3 * 2**2 trajectories have three steps, so sums are exact."""
    P = torch.zeros(7, 2, 7, dtype=torch.float64)
    for state in range(6):
        after = [2 * (state // 2) + 2, 2 * (state // 2) + 3] if state < 4 else [6, 6]
        chances = torch.rand(2, generator=torch.Generator().manual_seed(state), dtype=torch.float64)
        for action, chance in enumerate(chances):
            P[state, action, after[0]] += chance
            P[state, action, after[1]] += 1 - chance
    P[6, :, 6] = 1
    R = normal(7, 2, 7, seed=1)
    R[6] = 0
    mdp = MDP(P, R, [0.5, 0.5, 0, 0, 0, 0, 0], GAMMA)
    policy = TabularPolicy(7, 2).double()
    policy.logits.data = normal(7, 2, seed=2)
    return mdp, policy


def moments(mdp, policy, weights_of):
    """Mean of the gradient estimate, and its variance summed over parameters: by enumeration, so both are exact."""
    rollout, final, chances = enumerate_trajectories(mdp, policy, 3)
    weights = discounts(rollout.mask, gamma=mdp.gamma) * weights_of(rollout, final)
    pi = probabilities(mdp, policy).detach()
    scores = torch.nn.functional.one_hot(rollout.actions, mdp.actions) - pi[rollout.observations]
    table = torch.zeros(len(chances), mdp.states, mdp.actions, dtype=torch.float64)
    for t in range(rollout.mask.shape[1]):
        table[torch.arange(len(chances)), rollout.observations[:, t]] += weights[:, t, None] * scores[:, t]
    mean = torch.einsum("n,nsa->sa", chances, table)
    return mean.flatten(), float((chances * ((table - mean) ** 2).sum((1, 2))).sum())


def with_critic(critic, estimator):
    def weights_of(rollout, final):
        bootstrap = torch.where(rollout.terminated, 0, critic[final])
        return estimator(rollout.rewards, critic[rollout.observations], rollout.mask, bootstrap)

    return weights_of


def gae(lam):
    return lambda *args: advantage(*args, gamma=GAMMA, lam=lam)


def n_step(n):
    return lambda *args: n_step_advantage(*args, n=n, gamma=GAMMA)


def test_c33_the_exact_advantage_is_an_unbiased_weight_with_the_least_variance(layered):
    mdp, policy = layered
    values = state_values(mdp, probabilities(mdp, policy).detach())
    A = action_values(mdp, values) - values[:, None]
    mean, variance = moments(mdp, policy, lambda rollout, _: A[rollout.observations, rollout.actions])
    assert (mean - exact_gradient(mdp, policy)).norm() <= 1e-10 * mean.norm()
    _, of_residuals = moments(mdp, policy, with_critic(values, gae(0.0)))
    _, of_returns = moments(mdp, policy, with_critic(values, gae(1.0)))
    assert variance < of_residuals < of_returns


def test_c33_the_error_of_k_rollouts_falls_with_the_root_of_k():
    mdp = GridWorld("small", slip=0.2).to_mdp(GAMMA)
    policy, generator = TabularPolicy(mdp.states, mdp.actions), torch.Generator().manual_seed(3)
    values = state_values(mdp, probabilities(mdp, policy).detach())
    after = dataclasses.replace(mdp, start=mdp.P[0, 1])  # right, in the start cell
    rollout, final = collect(after, policy, 64_000, horizon=150, generator=generator)
    first = torch.where(rollout.mask[:, 0], rollout.observations[:, 0], final)
    found = mdp.R[0, 1, first] + GAMMA * episode_returns(rollout.rewards, rollout.mask, gamma=GAMMA)
    errors = [(found.view(-1, K).mean(1) - action_values(mdp, values)[0, 1]).square().mean() for K in (1, 4, 16, 64)]
    for K, error in zip((4, 16, 64), errors[1:]):
        assert errors[0] / error == pytest.approx(K, rel=0.2)


def test_c34_the_residual_is_the_advantage_on_average_and_always_where_nothing_is_random():
    for slip in (0.0, 0.2):
        mdp = GridWorld("default", slip=slip, step_reward=-0.02).to_mdp(GAMMA)
        values = state_values(mdp, torch.full((mdp.states, mdp.actions), 0.25, dtype=torch.float64))
        A = action_values(mdp, values) - values[:, None]
        residuals = mdp.R + mdp.gamma * values - values[:, None, None]
        assert torch.allclose((mdp.P * residuals).sum(-1), A)
        off = ((residuals - A[..., None]).abs() * (mdp.P > 0)).max()
        assert off < 1e-12 if slip == 0 else off > 0.1


@pytest.mark.parametrize("estimator", [gae(0.0), gae(0.5), gae(1.0), n_step(1), n_step(2)])
def test_c34_with_the_exact_values_no_estimator_is_biased(layered, estimator):
    mdp, policy = layered
    values = state_values(mdp, probabilities(mdp, policy).detach())
    exact = exact_gradient(mdp, policy)
    mean, _ = moments(mdp, policy, with_critic(values, estimator))
    assert (mean - exact).norm() <= 1e-10 * exact.norm()


def test_c34_with_a_wrong_critic_bias_falls_as_lam_or_n_grows_and_ends_at_zero(layered):
    mdp, policy = layered
    critic = state_values(mdp, probabilities(mdp, policy).detach()) + normal(7, seed=4)
    exact = exact_gradient(mdp, policy)
    for estimators in ([gae(lam) for lam in (0.0, 0.3, 0.6, 0.9, 1.0)], [n_step(n) for n in (1, 2, 3)]):
        bias = [(moments(mdp, policy, with_critic(critic, e))[0] - exact).norm() / exact.norm() for e in estimators]
        assert bias[0] > 0.2 and bias == sorted(bias, reverse=True)
        assert bias[-2] > 0.01 and bias[-1] <= 1e-10


def test_c34_a_critic_that_has_seen_the_very_episode_leaves_nothing_to_learn(layered):
    mdp, policy = layered
    rollout, _, _ = enumerate_trajectories(mdp, policy, 3)
    returns = reward_to_go(rollout.rewards, rollout.mask, gamma=GAMMA)  # V(s) where a state is visited once
    assert advantage(rollout.rewards, returns, rollout.mask, torch.zeros(len(returns)), gamma=GAMMA).abs().max() < 1e-12


# ---------------------------------------------------------------- on the lesson's map


@pytest.fixture(scope="module")
def halfway():
    """The lesson's world, and a policy on the way to the best one."""
    mdp = GridWorld("default", slip=0.1, step_reward=-0.02).to_mdp(0.95)
    policy, best = TabularPolicy(mdp.states, mdp.actions).double(), float(mdp.start @ value_iteration(mdp))
    while float(objective(mdp, probabilities(mdp, policy).detach())) < 0.3 * best:
        policy.logits.data += 2 * exact_gradient(mdp, policy).view_as(policy.logits)
    return mdp, policy, probabilities(mdp, policy).detach()


def table(mdp, rollout, targets):
    seen = rollout.observations[rollout.mask]
    sums = torch.zeros(mdp.states, dtype=torch.float64).index_add(0, seen, targets[rollout.mask])
    return sums / seen.bincount(minlength=mdp.states).clamp(min=1)


def monte_carlo(mdp, rollout):
    return table(mdp, rollout, reward_to_go(rollout.rewards, rollout.mask, gamma=mdp.gamma))


def temporal_difference(mdp, rollout, final, over):
    fitted = torch.zeros(mdp.states, dtype=torch.float64)
    for _ in range(80):
        now, bootstrap = fitted[rollout.observations], torch.where(over, 0, fitted[final])
        residuals = advantage(rollout.rewards, now, rollout.mask, bootstrap, gamma=mdp.gamma, lam=0.0)
        fitted = table(mdp, rollout, now + residuals)
    return fitted


def test_c34_td_makes_more_of_the_same_episodes_than_regression_on_returns(halfway):
    mdp, policy, pi = halfway
    values, visits, generator = state_values(mdp, pi), occupancy(mdp, pi), torch.Generator().manual_seed(5)
    squared = []
    for _ in range(10):
        rollout, final = collect(mdp, policy, 80, horizon=200, generator=generator)
        fits = monte_carlo(mdp, rollout), temporal_difference(mdp, rollout, final, rollout.terminated)
        squared.append([float((visits * (fit - values) ** 2).sum()) for fit in fits])
    on_returns, by_td = torch.tensor(squared).mean(0)
    assert by_td < 0.8 * on_returns


def test_c34_a_cut_episode_needs_the_value_of_the_state_it_was_left_in(halfway):
    mdp, policy, pi = halfway
    rollout, final = collect(mdp, policy, 4000, horizon=10, generator=torch.Generator().manual_seed(6))
    exact = float(mdp.start @ state_values(mdp, pi))
    right, wrong = (
        float(mdp.start @ temporal_difference(mdp, rollout, final, over))
        for over in (rollout.terminated, torch.ones_like(rollout.terminated))
    )
    assert abs(right - exact) < 0.1 and wrong < exact - 0.15


def expected_gradient(mdp, pi, critic, lam):
    """The mean estimate with GAE of a critic, by a linear solve for the expected advantages."""
    critic = torch.where(mdp.terminal, 0, critic)
    residuals = torch.where(mdp.terminal[:, None], 0, action_values(mdp, critic) - critic[:, None])
    going = torch.einsum("sa,sat->st", pi, mdp.P) * ~mdp.terminal[:, None]
    keep = mdp.gamma * lam
    ahead = torch.linalg.solve(torch.eye(mdp.states, dtype=torch.float64) - keep * going, (pi * residuals).sum(1))
    A = residuals + keep * (mdp.P @ ahead)
    return (occupancy(mdp, pi)[:, None] * pi * (A - (pi * A).sum(1, keepdim=True))).flatten()


def test_c34_between_td_and_monte_carlo_the_error_is_least(halfway):
    """bias^2 + variance / 64 with critics of 20 episodes: a U over lambda, whose sides are bias and variance."""
    mdp, policy, pi = halfway
    gradient, generator = exact_gradient(mdp, policy), torch.Generator().manual_seed(7)
    rollout, final = collect(mdp, policy, 1500, horizon=200, generator=generator)
    taken = rollout.observations * mdp.actions + rollout.actions
    discount = discounts(rollout.mask, gamma=mdp.gamma)
    found = []
    for _ in range(12):
        critic = monte_carlo(mdp, collect(mdp, policy, 20, horizon=200, generator=generator)[0])
        for lam in (0.0, 0.8, 1.0):
            bias = (expected_gradient(mdp, pi, critic, lam) - gradient).square().sum()
            bootstrap = torch.where(rollout.terminated, 0, critic[final])
            weights = discount * advantage(
                rollout.rewards, critic[rollout.observations], rollout.mask, bootstrap, gamma=mdp.gamma, lam=lam
            )
            sums = torch.zeros(len(weights), mdp.states * mdp.actions, dtype=torch.float64)
            sums = sums.scatter_add(1, taken, weights).unflatten(1, (-1, mdp.actions))
            variance = (sums - pi * sums.sum(-1, keepdim=True)).flatten(1).var(0).sum()
            found.append([float(x / gradient.square().sum()) for x in (bias, variance)])
    (bias_td, bias_between, bias_mc), (noise_td, noise_between, noise_mc) = (
        torch.tensor(found).view(-1, 3, 2).mean(0).unbind(-1)
    )
    assert bias_td > 3 * bias_between and bias_mc < 1e-9
    assert noise_mc > 2 * noise_between and noise_between > 1.2 * noise_td
    between = bias_between + noise_between / 64
    assert between < 0.8 * (bias_td + noise_td / 64) and between < 0.6 * (bias_mc + noise_mc / 64)


def episodes_to_solve(mdp, weigh, critic, lr, seed, cap=800):
    best, found = float(mdp.start @ value_iteration(mdp)), []

    def solved(policy, history):
        found.append(float(objective(mdp, probabilities(mdp, policy).detach())))
        return found[-1] >= 0.95 * best

    train_policy(
        TabularPolicy(mdp.states, mdp.actions),
        lambda policy, generator: collect(mdp, policy, 4, horizon=100, generator=generator),
        weigh,
        updates=cap // 4,
        lr=lr,
        critic=critic,
        gamma=mdp.gamma,
        lam=0.5,
        seed=seed,
        until=solved,
    )
    return 4 * len(found) if found[-1] >= 0.95 * best else cap


def test_c35_actor_critic_needs_fewer_episodes_than_reinforce(halfway):
    """Each at the step size that the lesson's grid chooses for it."""
    mdp, _, _ = halfway

    def reinforce(rollout, values, bootstrap, logprobs):
        baseline = leave_one_out(episode_returns(rollout.rewards, rollout.mask, gamma=mdp.gamma))[:, None]
        return (reward_to_go(rollout.rewards, rollout.mask, gamma=mdp.gamma) - baseline) * rollout.mask

    def actor_critic(rollout, values, bootstrap, logprobs):
        return advantage(rollout.rewards, values, rollout.mask, bootstrap, gamma=mdp.gamma, lam=0.5)

    without = [episodes_to_solve(mdp, reinforce, None, 0.4, seed) for seed in range(6)]
    with_critic = [episodes_to_solve(mdp, actor_critic, TabularCritic(mdp.states), 0.2, seed) for seed in range(6)]
    assert max(with_critic) < 800
    assert sum(with_critic) < 0.6 * sum(without)


def test_c35_the_same_loop_solves_a_world_that_the_project_did_not_write():
    lake = gymnasium.make("FrozenLake-v1", is_slippery=True)
    mdp = from_gymnasium(lake, gamma=0.99)
    best, reached = float(mdp.start @ value_iteration(mdp)), []

    def solved(policy, history):
        reached.append(float(objective(mdp, probabilities(mdp, policy).detach())))
        return reached[-1] >= 0.95 * best

    train_policy(
        TabularPolicy(mdp.states, mdp.actions),
        lambda policy, generator: collect_from(lake, policy, 8, generator=generator),
        lambda rollout, values, bootstrap, logprobs: advantage(
            rollout.rewards, values, rollout.mask, bootstrap, gamma=0.99, lam=0.5
        ),
        updates=500,
        lr=0.1,
        critic=TabularCritic(mdp.states),
        gamma=0.99,
        lam=0.5,
        seed=2,
        until=solved,
    )
    assert reached[-1] >= 0.95 * best
