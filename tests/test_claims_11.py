"""C36 to C38 without sampling where it can be done without: unweighted data mislead, which ratios repair them, how they
blow up with KL and length, and what PPO's clip and stop do about reuse."""

import math
from functools import cache

import pytest
import torch
from torch.nn.functional import one_hot

from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import exercise
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import (
    action_values,
    enumerate_trajectories,
    exact_gradient,
    horizon_values,
    objective,
    occupancy,
    probabilities,
)
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import action_logprobs

WORLD = GridWorld("small", step_reward=-0.1, slip=0.1).to_mdp()
HORIZON = 4


def improved(steps, world=WORLD, horizon=HORIZON):
    """Uniform, then some steps up the exact gradient."""
    policy = TabularPolicy(world.states, world.actions).double()
    for _ in range(steps):
        policy.logits.data += exact_gradient(world, policy, horizon).view_as(policy.logits)
    return policy


@cache
def all_trajectories(world, horizon):
    return enumerate_trajectories(world, improved(0, world, horizon), horizon)


class Problem:
    """All trajectories of the uniform policy mu, and a better policy pi."""

    def __init__(self, steps=10, world=WORLD, horizon=HORIZON):
        self.world, self.horizon = world, horizon
        self.mu, self.pi = improved(0, world, horizon), improved(steps, world, horizon)
        self.episodes, _, self.chance = all_trajectories(world, horizon)
        self.mask = self.episodes.mask
        self.logprobs = action_logprobs(self.pi, self.episodes).detach()
        self.true = exact_gradient(world, self.pi, horizon)
        self.total = pg.total_return(self.episodes.rewards, self.mask)
        self.to_go = pg.reward_to_go(self.episodes.rewards, self.mask)
        self.rho, self.prefix, self.step = map(self.ratio, (pg.trajectory_ratio, pg.prefix_ratio, pg.step_ratio))

    def ratio(self, kind):
        return kind(self.logprobs, self.episodes.logprobs, self.mask)

    def table(self, policy):
        return probabilities(self.world, policy).detach()

    def exact_values(self, policy):
        """V and Q, which know the time left, at every step."""
        V = horizon_values(self.world, self.table(policy), self.horizon)
        Q = torch.stack([action_values(self.world, after) for after in V[1:]])
        time = torch.arange(self.mask.shape[1]).expand_as(self.mask)
        return V[time, self.episodes.observations], Q[time, self.episodes.observations, self.episodes.actions]

    def gradients(self, weights):
        scores = one_hot(self.episodes.actions, self.world.actions) - self.table(self.pi)[self.episodes.observations]
        scores = one_hot(self.episodes.observations, self.world.states)[..., None] * scores[..., None, :]
        return ((weights * self.mask)[..., None] * scores.flatten(2)).sum(1)

    def mean(self, weights):
        return self.chance @ self.gradients(weights)

    def bias(self, weights):
        return float((self.mean(weights) - self.true).norm() / self.true.norm())

    def noise(self, weights):
        each = self.gradients(weights)
        return float((self.chance @ ((each - self.chance @ each) ** 2).sum(1)).sqrt() / self.true.norm())

    @property
    def kl(self):
        pi, mu = self.table(self.pi), self.table(self.mu)
        return float(occupancy(self.world, pi, self.horizon) @ (pi * (pi / mu).log()).sum(1))


@pytest.fixture(scope="module")
def problem():
    return Problem()


# ---------------------------------------------------------------- C36: unweighted is biased, weighted is not


def test_c36_without_weights_the_gradient_is_wrong_on_average_mostly_in_length(problem):
    naive = problem.mean(problem.total)
    assert problem.bias(problem.total) > 0.5
    assert naive.norm() > 1.5 * problem.true.norm()
    assert naive @ problem.true > 0.8 * naive.norm() * problem.true.norm()


def test_c36_the_trajectory_ratio_repairs_it_exactly(problem):
    assert float(problem.chance @ problem.rho[:, 0]) == pytest.approx(1, abs=1e-12)
    assert problem.bias(problem.rho * problem.total) <= 1e-10
    assert problem.bias(problem.rho * problem.to_go) <= 1e-10
    returns = problem.total[:, 0]
    assert float(problem.chance @ (problem.rho[:, 0] * returns)) == pytest.approx(
        float(objective(WORLD, problem.table(problem.pi), HORIZON)), abs=1e-12
    )


def test_c36_what_the_behavior_policy_never_does_no_weight_repairs(problem):
    blind = improved(0)
    with torch.no_grad():
        blind.logits[0, 1] = -torch.inf
    episodes, _, chance = enumerate_trajectories(WORLD, blind, HORIZON)
    logprobs = action_logprobs(problem.pi, episodes).detach()
    covered = float(chance @ pg.trajectory_ratio(logprobs, episodes.logprobs, episodes.mask)[:, 0])
    # the probability that pi never moves right in the start cell, counted from mu's list
    avoids = ~((problem.episodes.observations == 0) & (problem.episodes.actions == 1) & problem.mask).any(1)
    assert covered == pytest.approx(float((problem.chance * problem.rho[:, 0])[avoids].sum()), abs=1e-12)
    assert covered < 0.5


def laplace_mean(problem, share, N):
    """E of the self-normalised mean of N draws, exact: 1 / x is the integral of exp(-u x)."""
    log_u = torch.linspace(-16, 8, 1201, dtype=torch.float64)
    u, rho = log_u.exp(), problem.rho[:, 0]
    decay = (-u[:, None] * rho).exp()
    above, below = decay @ (problem.chance * rho * share), decay @ problem.chance
    return float((N * above * below ** (N - 1) * u).sum() * (log_u[1] - log_u[0]))


def test_c36_self_normalised_weights_are_biased_by_one_over_n():
    p = Problem(steps=6)
    share = p.gradients(p.total) @ p.true / p.true.norm() ** 2
    bias = {N: laplace_mean(p, share, N) - 1 for N in (4, 8, 16, 32, 64)}
    limit = -float(p.chance @ (p.rho[:, 0] ** 2 * (share - 1)))
    assert limit < -0.5
    assert 64 * bias[64] == pytest.approx(limit, rel=0.05)
    assert all(abs(bias[2 * N]) < 0.8 * abs(bias[N]) for N in (4, 8, 16, 32))
    # and the package's function has that bias: batches of 8 ragged episodes stand side by side as columns
    draws = torch.multinomial(p.chance, 8 * 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    draws = draws.view(8, -1)
    weights = pg.self_normalized(p.rho[draws].flatten(1), p.mask[draws].flatten(1)).view(8, -1, HORIZON)
    steps = torch.arange(HORIZON)
    of_steps = torch.stack([p.gradients(p.total * (steps == t)) @ p.true / p.true.norm() ** 2 for t in steps], 1)
    torch.testing.assert_close(of_steps.sum(1), share)
    found = (weights * of_steps[draws]).sum(2).mean(0)
    plain = (p.rho[draws, 0] * share[draws]).mean(0)
    error = float(found.std()) / len(found) ** 0.5
    assert abs(float(found.mean()) - 1 - bias[8]) < 4 * error < abs(bias[8]) / 2
    assert found.std() < 0.75 * plain.std()


def test_c36_self_normalised_over_all_episodes_it_approaches_the_gradient_and_over_those_acting_it_does_not(problem):
    p, generator = problem, torch.Generator().manual_seed(3)
    assert set(p.mask.sum(1).tolist()) == {2, 3, 4}
    # the mean over those still acting tends to the quotient of the chances to be still acting
    on_policy, off_policy = ((each @ p.mask.double()) for each in (p.chance * p.rho[:, 0], p.chance))
    limit = (p.chance @ (p.rho * p.mask)) / off_policy
    torch.testing.assert_close(limit, on_policy / off_policy, atol=1e-12, rtol=0)
    assert limit[:2].sub(1).abs().max() < 1e-12 and 0.55 < limit[2] < 0.65 and limit[3] < 0.45

    def error(weights, drawn):
        counted = torch.zeros_like(p.rho).index_add(0, drawn, weights / len(drawn))
        return float((p.gradients(counted * p.total).sum(0) - p.true).norm() / p.true.norm())

    errors = []
    for N in (4_000, 40_000, 400_000):
        drawn = torch.multinomial(p.chance, N, replacement=True, generator=generator)
        ratios, mask = p.rho[drawn], p.mask[drawn]
        over_those_acting = torch.where(mask, ratios / pg.mean_baseline(ratios, mask), 0)
        errors.append([error(each, drawn) for each in (ratios, pg.self_normalized(ratios, mask), over_those_acting)])
    assert errors[2][0] < 0.02 and errors[2][1] < 0.02 and errors[0][1] > 3 * errors[2][1]
    assert errors[2][2] > 0.25 and p.bias(p.rho / limit * p.total) == pytest.approx(errors[2][2], rel=0.1)


def test_c36_cutting_the_ratio_trades_noise_for_bias(problem):
    cuts = [problem.rho.clamp(max=c) * problem.total for c in (1, 5, 20, 1000)]
    bias, noise = [problem.bias(w) for w in cuts], [problem.noise(w) for w in cuts]
    assert bias == sorted(bias, reverse=True) and bias[0] > 0.3 and bias[-1] < 1e-10
    assert noise == sorted(noise) and noise[0] < noise[-1] / 2


# ---------------------------------------------------------------- C37: the per-step form


def test_c37_the_per_step_form_is_biased_and_blind_to_past_rewards_and_baselines(problem):
    V, Q = problem.exact_values(problem.mu)
    forms = [problem.step * weights for weights in (problem.total, problem.to_go, Q - V)]
    means = [problem.mean(weights) for weights in forms]
    assert problem.bias(forms[0]) > 0.1
    for mean in means[1:]:
        torch.testing.assert_close(mean, means[0], atol=1e-12, rtol=0)
    assert problem.noise(forms[2]) < problem.noise(forms[1]) < problem.noise(forms[0])


def test_c37_it_is_the_gradient_of_a_surrogate_with_the_states_and_the_future_of_mu(problem):
    pi, mu = probabilities(WORLD, problem.pi), problem.table(problem.mu)
    V, now, surrogate = horizon_values(WORLD, mu, HORIZON), WORLD.start, 0.0
    for t in range(HORIZON):
        surrogate = surrogate + now @ (pi * action_values(WORLD, V[t + 1])).sum(1)
        now = torch.einsum("s,sa,sat->t", now * ~WORLD.terminal, mu, WORLD.P)
    (expected,) = torch.autograd.grad(surrogate, problem.pi.logits)
    torch.testing.assert_close(problem.mean(problem.step * problem.total), expected.flatten(), atol=1e-12, rtol=0)


def test_c37_which_other_forms_are_unbiased(problem):
    V, Q = problem.exact_values(problem.pi)
    nothing = torch.zeros_like(problem.chance)
    residual = pg.advantage(problem.episodes.rewards, V * problem.mask, problem.mask, nothing, lam=0.0)
    per_decision = pg.reward_to_go(problem.prefix * problem.episodes.rewards, problem.mask)
    for weights in (per_decision, problem.prefix * residual, problem.prefix * (Q - V)):
        assert problem.bias(weights) <= 1e-10
    V_mu, Q_mu = problem.exact_values(problem.mu)
    geometric = problem.rho ** (1 / problem.mask.sum(1, keepdim=True))  # GSPO's ratio
    clipped = pg.clipped_weights(problem.step, (Q_mu - V_mu) * problem.mask)  # PPO's weights
    for weights in (problem.prefix * problem.to_go, problem.step * (Q - V), problem.step * residual,
                    geometric * problem.total, clipped):  # fmt: skip
        assert problem.bias(weights) > 0.1


def test_c37_with_one_step_it_is_exact():
    start = (~WORLD.terminal).double() / (~WORLD.terminal).sum()
    p = Problem(world=type(WORLD)(WORLD.P, WORLD.R, start), horizon=1)
    assert p.bias(p.step * p.total) <= 1e-10 < 0.1 < p.bias(p.total)


def test_c37_near_mu_the_bias_goes_away_and_far_off_it_stays_smaller_than_without_a_ratio():
    near, far = Problem(steps=1), Problem(steps=14)
    assert near.kl < 0.05 < 1 < far.kl
    assert near.bias(near.step * near.total) < 0.15
    assert far.bias(far.step * far.total) < 0.4 < 2 < far.bias(far.total)


# ---------------------------------------------------------------- C38: the weights blow up


def test_c38_kl_of_trajectories_is_a_sum_over_visited_states(problem):
    listed = float((problem.chance * problem.rho[:, 0]) @ problem.rho[:, 0].log())
    assert problem.kl == pytest.approx(listed, abs=1e-10)
    assert listed > 0.5
    recursion = exercise("11.5").reference(WORLD, problem.table(problem.pi), problem.table(problem.mu), HORIZON)
    assert float(recursion["kl"]) == pytest.approx(listed, abs=1e-10)
    assert float(recursion["second"]) == pytest.approx(float(problem.chance @ problem.rho[:, 0] ** 2), abs=1e-10)


def test_c38_the_worth_of_old_data_is_bounded_by_exp_of_minus_kl_and_falls_with_it():
    worth = []
    for steps in (1, 4, 7, 10, 14):
        p = Problem(steps)
        worth.append(1 / float(p.chance @ p.rho[:, 0] ** 2))
        assert worth[-1] < math.exp(-p.kl)
    assert worth == sorted(worth, reverse=True) and worth[-1] < 0.2 < 0.9 < worth[0]


def test_c38_log_weights_spread_with_the_root_of_the_horizon_and_the_sample_size_collapses():
    world = GridWorld("empty-8x8").to_mdp()
    mu = TabularPolicy(world.states, world.actions).double()
    walks, _ = collect(world, mu, 1000, horizon=64, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(mu.logits.shape, generator=torch.Generator().manual_seed(0)).double()
    shares = {}
    for epsilon in (0.1, 0.4):
        pi = TabularPolicy(world.states, world.actions).double()
        with torch.no_grad():
            pi.logits += epsilon * noise
        logs = (action_logprobs(pi, walks).detach() - walks.logprobs).cumsum(1)
        # a step's log-ratio has variance 3/4 epsilon^2: the noise that all four actions share cancels
        assert float(logs[:, 63].std()) == pytest.approx(0.75**0.5 * epsilon * 8, rel=0.25)
        assert float(logs[:, 63].std() / logs[:, 15].std()) == pytest.approx(2, rel=0.25)
        shares[epsilon] = [float(pg.effective_sample_size(logs[:, T - 1].exp())) / 1000 for T in (1, 16, 64)]
    for row in shares.values():
        assert row[0] > row[1] > row[2]
    assert shares[0.1][2] > 0.5 and shares[0.4][2] < 0.05


def test_c38_the_noise_of_the_trajectory_ratio_grows_fastest(problem):
    V, _ = problem.exact_values(problem.pi)
    nothing = torch.zeros_like(problem.chance)
    residual = pg.advantage(problem.episodes.rewards, V * problem.mask, problem.mask, nothing, lam=0.0)
    fresh = problem.gradients(problem.total)
    on_policy = problem.chance * problem.rho[:, 0]
    yardstick = float((on_policy @ ((fresh - on_policy @ fresh) ** 2).sum(1)).sqrt() / problem.true.norm())
    assert problem.noise(problem.rho * problem.total) > 1.5 * yardstick
    assert problem.noise(problem.prefix * residual) < 0.5 * problem.noise(problem.rho * problem.total)


# ---------------------------------------------------------------- the answer: PPO's clip


def test_c38_clipped_weights_have_the_gradient_of_the_clipped_objective():
    generator = torch.Generator().manual_seed(0)
    log_pi, log_mu, advantages = (torch.randn(5, 7, generator=generator).double() for _ in range(3))
    mask, log_pi = torch.arange(7) < torch.tensor([7, 6, 4, 2, 1])[:, None], log_pi.requires_grad_()
    ratio = (log_pi - log_mu).exp()
    value = (torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages) * mask).sum() / 5
    weights = pg.clipped_weights(pg.step_ratio(log_pi, log_mu, mask), advantages, epsilon=0.2)
    loss = pg.policy_gradient_loss(log_pi, weights, mask)
    expected, found = (torch.autograd.grad(x, log_pi)[0] for x in (value, -loss))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert 0.2 < float((weights[mask] == 0).double().mean()) < 0.8


def test_c38_old_episodes_do_not_show_how_far_the_new_policy_is_but_how_far_it_is_from_them():
    world = GridWorld("empty-8x8").to_mdp()
    mu, pi = (TabularPolicy(world.states, world.actions).double() for _ in range(2))
    with torch.no_grad():
        pi.logits += 0.8 * torch.randn(pi.logits.shape, generator=torch.Generator().manual_seed(0)).double()
    tables = [probabilities(world, policy).detach() for policy in (pi, mu)]
    there, back = (exercise("11.5").reference(world, *pair, 64) for pair in (tables, tables[::-1]))
    for seed in range(5):
        walks, _ = collect(world, mu, 1000, horizon=64, generator=torch.Generator().manual_seed(seed))
        log_ratios = torch.where(walks.mask, action_logprobs(pi, walks).detach() - walks.logprobs, 0).sum(1)
        seen = exercise("11.7").reference(log_ratios)
        assert seen["ess"] > 10 * 1000 / there["second"] and seen["ess"] > 1
        assert seen["forward"] < 0.6 * there["kl"]
        assert float(seen["backward"]) == pytest.approx(float(back["kl"]), rel=0.06)


def final_returns(improve, runs=5, rollouts=8, episodes=64, limit=30):
    """Exact J at the end of independent runs that take several steps per rollout."""
    maze, found = GridWorld("default", slip=0.1).to_mdp(), []
    for seed in range(runs):
        policy, generator = TabularPolicy(maze.states, maze.actions).double(), torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(policy.parameters(), lr=0.2)
        for _ in range(rollouts):
            rollout, _ = collect(maze, policy, episodes, horizon=limit, generator=generator)
            returns = pg.total_return(rollout.rewards, rollout.mask)
            advantages = (returns - pg.leave_one_out(returns[:, 0])[:, None]) * rollout.mask
            improve(policy, optimizer, rollout, advantages)
        found.append(float(objective(maze, probabilities(maze, policy).detach(), limit)))
    return torch.tensor(found)


def test_c38_reuse_breaks_without_a_ratio_and_with_one_and_the_clip_saves_it():
    reuse, ppo = (exercise(number).reference for number in ("11.8", "11.11"))
    naive, weighted = (final_returns(lambda *given, form=form: reuse(*given, form, 16)) for form in ("no", "step"))
    clipped = final_returns(lambda *given: ppo(*given, 16, 0.2, math.inf))
    assert clipped.min() > 0.5 and clipped.mean() > 0.7
    assert naive.mean() < clipped.mean() - 0.2 and (naive < 0.5).sum() >= 2
    assert weighted.mean() < clipped.mean() - 0.4 and (weighted < 0.1).sum() >= 3
