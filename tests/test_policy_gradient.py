"""Every weight against the exact gradient: by full enumeration, by sampling, and through identities.

A problem lists all trajectories of a small world with their probabilities, so that the mean gradient of a weight is a
finite sum. What is unbiased must equal the exact gradient to rounding; what is biased must be seen to differ.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import cache, cached_property

import pytest
import torch
from worlds import Table, normal, random_world, refused

from ptlearn import policy_gradient as pg
from ptlearn.grid import mdp
from ptlearn.rollout import Rollout, action_logprobs

GAMMAS = (1.0, 0.9)
DRAWS = 20_000  # batches of each z-test


# ---------------------------------------------------------------- problems


@dataclass(frozen=True)
class Problem:
    """Rows of trajectories, how much each counts, and the exact gradient that weights should reproduce."""

    world: mdp.MDP
    policy: torch.nn.Module
    horizon: int
    rollout: Rollout
    final: torch.Tensor  # (B,) the state after the last step
    share: torch.Tensor  # (B,) sums to 1: the probability of a row
    size: int = 1  # rows in a batch; consecutive rows belong together

    @property
    def gamma(self):
        return self.world.gamma

    @property
    def groups(self):
        return torch.arange(len(self.share)) // self.size

    @cached_property
    def pi(self):
        return mdp.probabilities(self.world, self.policy).detach()

    @cached_property
    def gradient(self):
        return mdp.exact_gradient(self.world, self.policy, self.horizon)

    @cached_property
    def logprobs(self):
        return action_logprobs(self.policy, self.rollout).detach()

    @cached_property
    def times(self):
        return torch.arange(self.rollout.mask.shape[1]).expand_as(self.rollout.mask)

    @cached_property
    def values(self):
        """The exact V of each step, which knows how much time is left: (B, T)."""
        return mdp.horizon_values(self.world, self.pi, self.horizon)[self.times, self.rollout.observations]

    @cached_property
    def q(self):
        """The exact Q of each step: (B, T)."""
        following = mdp.horizon_values(self.world, self.pi, self.horizon)[1:]
        q = torch.stack([mdp.action_values(self.world, values) for values in following])
        return q[self.times, self.rollout.observations, self.rollout.actions]

    @cached_property
    def scores(self):
        """grad log pi(a_t | s_t) in the logits of a table, in closed form: (B, T, P)."""
        state = torch.nn.functional.one_hot(self.rollout.observations, self.world.states).double()
        action = torch.nn.functional.one_hot(self.rollout.actions, self.world.actions).double()
        scores = state[..., None] * (action - self.pi[self.rollout.observations])[..., None, :]
        return scores.flatten(2) * self.rollout.mask[..., None]


@cache
def problem(gamma, *, off_policy=False, tiny=False, horizon=None):
    """All trajectories: of four states, three actions and four steps, or (tiny) of three, two and two."""
    world = random_world(gamma=gamma, states=3 if tiny else 4, actions=2 if tiny else 3)
    policy, other = (Table(normal(world.states, world.actions, seed=seed) * 0.7) for seed in (40, 41))
    horizon = horizon or (2 if tiny else 4)
    return Problem(world, policy, horizon, *mdp.enumerate_trajectories(world, other if off_policy else policy, horizon))


def select(p, rows, share, size):
    fields = {name: getattr(p.rollout, name)[rows] for name in p.rollout.__dataclass_fields__}
    return replace(p, rollout=Rollout(**fields), final=p.final[rows], share=share, size=size)


def all_batches(p, size):
    """Every batch of `size` independent episodes, one after another; a row counts 1/size of its batch."""
    rows = torch.tensor(list(itertools.product(range(len(p.share)), repeat=size)))
    share = p.share[rows].prod(1) / size
    return select(p, rows.flatten(), share.repeat_interleave(size), size)


@cache
def sampled(gamma, *, off_policy=False, size=4):
    """DRAWS batches of episodes drawn with their probabilities."""
    p = problem(gamma, off_policy=off_policy)
    generator = torch.Generator().manual_seed(7)
    rows = torch.multinomial(p.share, DRAWS * size, replacement=True, generator=generator)
    return select(p, rows, torch.full((DRAWS * size,), 1 / (DRAWS * size), dtype=torch.float64), size)


def mean_gradient(p, weights):
    """The expectation of the estimate, by autograd through the loss: each row counts as much as its share."""
    logprobs = action_logprobs(p.policy, p.rollout)
    loss = pg.policy_gradient_loss(logprobs, weights * p.share[:, None], p.rollout.mask, normalizer=1)
    (gradient,) = torch.autograd.grad(-loss, list(p.policy.parameters()))
    return gradient.flatten()


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def gradients_of_batches(p, weights):
    """(batches, P), the estimate of each batch."""
    return (p.scores * weights[..., None]).sum(1).unflatten(0, (-1, p.size)).mean(1)


def largest_z(p, weights):
    """How many standard errors the mean over batches is off, at worst over the parameters that can move."""
    gradients = gradients_of_batches(p, weights)
    spread = gradients.std(0) / math.sqrt(len(gradients))
    still = spread == 0
    assert gradients[0, still].abs().max() == 0 and p.gradient[still].abs().max() == 0
    return float(((gradients.mean(0) - p.gradient)[~still] / spread[~still]).abs().max())


def spread_of(p, weights):
    """Trace of the covariance of one episode's estimate, exactly."""
    gradients = gradients_of_batches(p, weights)
    return float(p.share @ gradients.square().sum(1) - (p.share @ gradients).square().sum())


# ---------------------------------------------------------------- the weights under test


def record_of(p):
    return p.rollout.rewards, p.rollout.mask


def from_the_start(p):
    return pg.discounts(p.rollout.mask, gamma=p.gamma)


def returns_of(p):
    return pg.total_return(*record_of(p), gamma=p.gamma)


def returns_to_go(p):
    return pg.reward_to_go(*record_of(p), gamma=p.gamma)


def nothing_after(p):
    """The time limit is part of the exact objective: nothing comes after the last step."""
    return torch.zeros(len(p.share), dtype=torch.float64)


def generalized(p, values, lam):
    rewards, mask = record_of(p)
    return from_the_start(p) * pg.advantage(rewards, values, mask, nothing_after(p), gamma=p.gamma, lam=lam)


def n_step(p, values, n):
    rewards, mask = record_of(p)
    return from_the_start(p) * pg.n_step_advantage(rewards, values, mask, nothing_after(p), n=n, gamma=p.gamma)


def state_noise(p):
    """A critic that is wrong, but knows nothing of the action."""
    return normal(p.world.states, seed=50)[p.rollout.observations] * 2


def time_noise(p):
    return normal(p.horizon, p.world.states, seed=51)[p.times, p.rollout.observations] * 2


def best_constant(p):
    everything = problem(p.gamma)
    norms = everything.scores.sum(1).square().sum(1)
    returns = pg.episode_returns(*record_of(everything), gamma=p.gamma)
    return pg.optimal_baseline(everything.share * norms, returns)


UNBIASED = {
    "total return": returns_of,
    "total return, constant baseline": lambda p: returns_of(p) - 3.7,
    "total return, optimal constant": lambda p: returns_of(p) - best_constant(p),
    "reward to go": lambda p: from_the_start(p) * returns_to_go(p),
    "reward to go, constant baseline": lambda p: from_the_start(p) * (returns_to_go(p) + 1.3),
    "reward to go, exact V": lambda p: from_the_start(p) * (returns_to_go(p) - p.values),
    "reward to go, any V of the state": lambda p: from_the_start(p) * (returns_to_go(p) - state_noise(p)),
    "reward to go, any V of state and time": lambda p: from_the_start(p) * (returns_to_go(p) - time_noise(p)),
    "exact Q": lambda p: from_the_start(p) * p.q,
    "exact advantage": lambda p: from_the_start(p) * (p.q - p.values),
    "GAE lam=1, any V": lambda p: generalized(p, state_noise(p), 1.0),
    "TD, exact V": lambda p: generalized(p, p.values, 0.0),
    "GAE lam=0.3, exact V": lambda p: generalized(p, p.values, 0.3),
    "GAE lam=0.95, exact V": lambda p: generalized(p, p.values, 0.95),
    "1 step, exact V": lambda p: n_step(p, p.values, 1),
    "2 steps, exact V": lambda p: n_step(p, p.values, 2),
    "3 steps, exact V": lambda p: n_step(p, p.values, 3),
    "9 steps, any V": lambda p: n_step(p, state_noise(p), 9),
}


def ratio_of(p, ratio):
    return ratio(p.logprobs, p.rollout.logprobs, p.rollout.mask)


def per_decision(p):
    """Each reward with the ratio of the actions that led to it: the sum from t on of gamma^k rho_0..k r_k.

    Composed from what there is: reward-to-go, without further discount, of rewards weighted beforehand.
    """
    weighted = ratio_of(p, pg.prefix_ratio) * from_the_start(p) * p.rollout.rewards
    return pg.reward_to_go(weighted, p.rollout.mask)


OFF_POLICY_UNBIASED = {
    "trajectory ratio, total return": lambda p: ratio_of(p, pg.trajectory_ratio) * returns_of(p),
    "trajectory ratio, reward to go": lambda p: (
        ratio_of(p, pg.trajectory_ratio) * from_the_start(p) * (returns_to_go(p) - state_noise(p))
    ),
    "trajectory ratio, exact TD": lambda p: ratio_of(p, pg.trajectory_ratio) * generalized(p, p.values, 0.0),
    "prefix ratio, exact TD": lambda p: ratio_of(p, pg.prefix_ratio) * generalized(p, p.values, 0.0),
    "prefix ratio, exact advantage": lambda p: ratio_of(p, pg.prefix_ratio) * from_the_start(p) * (p.q - p.values),
    "prefix ratio of each reward": per_decision,
}

BIASED = {
    "discount only from the state on": returns_to_go,
    "TD, wrong V": lambda p: generalized(p, state_noise(p), 0.0),
    "GAE lam=0.6, wrong V": lambda p: generalized(p, state_noise(p), 0.6),
    "2 steps, wrong V": lambda p: n_step(p, state_noise(p), 2),
}

OFF_POLICY_BIASED = {
    "no ratio": returns_of,
    "no ratio, exact advantage": lambda p: from_the_start(p) * (p.q - p.values),
    "step ratio, total return": lambda p: ratio_of(p, pg.step_ratio) * returns_of(p),
    "step ratio, exact advantage": lambda p: ratio_of(p, pg.step_ratio) * from_the_start(p) * (p.q - p.values),
    "prefix ratio, reward to go": lambda p: ratio_of(p, pg.prefix_ratio) * from_the_start(p) * returns_to_go(p),
    "prefix ratio, TD, wrong V": lambda p: ratio_of(p, pg.prefix_ratio) * generalized(p, state_noise(p), 0.0),
    "trajectory ratio cut at 1": lambda p: ratio_of(p, pg.trajectory_ratio).clamp(max=1) * returns_of(p),
    "clipped weights": lambda p: pg.clipped_weights(
        ratio_of(p, pg.step_ratio), from_the_start(p) * (p.q - p.values), epsilon=0.2
    ),
}


def other_episodes(p):
    returns = pg.episode_returns(*record_of(p), gamma=p.gamma)
    return (returns - pg.leave_one_out(returns, groups=p.groups))[:, None] * p.rollout.mask


def other_episodes_at_each_step(p):
    returns = returns_to_go(p)
    return from_the_start(p) * (returns - pg.leave_one_out(returns, p.rollout.mask, p.groups))


def whole_batch(p):
    returns = pg.episode_returns(*record_of(p), gamma=p.gamma)
    return (returns - pg.mean_baseline(returns, groups=p.groups))[:, None] * p.rollout.mask


def normalized_ratios(p):
    """`self_normalized` batch by batch: it averages over rows, so batches stand side by side as columns.

    Every episode acts at its first step, so nothing is carried on from one batch into the next.
    """

    def columns(tensor):
        return tensor.unflatten(0, (-1, p.size)).transpose(0, 1).flatten(1)

    steps = p.rollout.mask.shape[1]
    found = pg.self_normalized(columns(ratio_of(p, pg.trajectory_ratio)), columns(p.rollout.mask))
    return found.unflatten(1, (-1, steps)).transpose(0, 1).flatten(0, 1) * returns_of(p)


# ---------------------------------------------------------------- the mean, by full enumeration


def test_scores_in_closed_form_are_those_of_autograd():
    p = problem(0.9)
    log_probability = action_logprobs(p.policy, p.rollout)[17].sum()
    (expected,) = torch.autograd.grad(log_probability, list(p.policy.parameters()))
    torch.testing.assert_close(p.scores[17].sum(0), expected.flatten(), atol=1e-14, rtol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_weights_give_the_exact_gradient(name, gamma):
    p = problem(gamma)
    assert relative_error(mean_gradient(p, UNBIASED[name](p)), p.gradient) <= 1e-10


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", OFF_POLICY_UNBIASED)
def test_unbiased_ratios_give_the_exact_gradient(name, gamma):
    p = problem(gamma, off_policy=True)
    assert relative_error(mean_gradient(p, OFF_POLICY_UNBIASED[name](p)), p.gradient) <= 1e-10


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("weights", [other_episodes, other_episodes_at_each_step])
def test_leave_one_out_gives_the_exact_gradient(weights, size, gamma):
    p = all_batches(problem(gamma, tiny=True), size)
    assert relative_error(mean_gradient(p, weights(p)), p.gradient) <= 1e-10


@pytest.mark.parametrize("size", [2, 3])
def test_mean_baseline_shrinks_the_gradient_by_one_in_n(size):
    p = all_batches(problem(0.9, tiny=True), size)
    assert relative_error(mean_gradient(p, whole_batch(p)), (1 - 1 / size) * p.gradient) <= 1e-10


@pytest.mark.parametrize("name", BIASED)
def test_biased_weights_miss_the_exact_gradient(name):
    p = problem(0.9)
    assert relative_error(mean_gradient(p, BIASED[name](p)), p.gradient) > 1e-3


@pytest.mark.parametrize("name", OFF_POLICY_BIASED)
def test_biased_ratios_miss_the_exact_gradient(name):
    p = problem(0.9, off_policy=True)
    assert relative_error(mean_gradient(p, OFF_POLICY_BIASED[name](p)), p.gradient) > 1e-3


def test_self_normalized_ratios_are_biased_and_less_so_in_larger_batches():
    p = problem(0.9, tiny=True, off_policy=True)
    biases = []
    for size in (2, 3, 4):
        batches = all_batches(p, size)
        biases.append(relative_error(mean_gradient(batches, normalized_ratios(batches)), p.gradient))
    assert biases[0] > biases[1] > biases[2] > 1e-3


def test_discounting_is_not_needed_without_a_discount():
    """The first biased form is unbiased for gamma = 1: the bias is the missing gamma^t."""
    p = problem(1.0)
    assert relative_error(mean_gradient(p, returns_to_go(p)), p.gradient) <= 1e-10


def test_one_step_ratios_are_unbiased_in_one_step():
    p = problem(0.9, off_policy=True, horizon=1)
    for ratio in (pg.trajectory_ratio, pg.prefix_ratio, pg.step_ratio):
        assert relative_error(mean_gradient(p, ratio_of(p, ratio) * returns_of(p)), p.gradient) <= 1e-10


def gradient_with_terminal_values(p, terminal):
    """grad E[sum of gamma^t r_t + gamma^H terminal(s_H)], by a recursion of its own."""
    pi = mdp.probabilities(p.world, p.policy)
    values = terminal
    for _ in range(p.horizon):
        values = (pi * (p.world.P * (p.world.R + p.gamma * values)).sum(-1)).sum(1)
    return torch.autograd.grad(p.world.start @ values, list(p.policy.parameters()))[0].flatten()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_truncation_bootstraps_and_termination_does_not(lam, gamma):
    p = problem(gamma)
    terminal = normal(p.world.states, seed=52) * p.world.terminal.logical_not()
    values = [terminal]
    for _ in range(p.horizon):
        values.append((p.pi * mdp.action_values(p.world, values[-1])).sum(1))
    exact = torch.stack(values[:0:-1])[p.times, p.rollout.observations]
    bootstrap = torch.where(p.rollout.terminated, 0, terminal[p.final])
    assert bootstrap.abs().max() > 0.1
    rewards, mask = record_of(p)
    weights = from_the_start(p) * pg.advantage(rewards, exact, mask, bootstrap, gamma=gamma, lam=lam)
    expected = gradient_with_terminal_values(p, terminal)
    assert relative_error(mean_gradient(p, weights), expected) <= 1e-10
    assert relative_error(p.gradient, expected) > 1e-3


# ---------------------------------------------------------------- the mean, by sampling


UNBIASED_IN_BATCHES = {
    "leave one out": other_episodes,
    "leave one out at each step": other_episodes_at_each_step,
}
Z_TESTS = (
    len(GAMMAS) * (len(UNBIASED) + len(UNBIASED_IN_BATCHES) + len(OFF_POLICY_UNBIASED))
    + (len(BIASED) + 1)
    + (len(OFF_POLICY_BIASED) + 1)
)


def critical_z():
    """Bonferroni: 1 % for all z-tests of this file together, two-sided, each on nine parameters that can move."""
    return float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - 0.01 / 2 / (9 * Z_TESTS)).double()))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", UNBIASED | UNBIASED_IN_BATCHES)
def test_sampling_does_not_reject_unbiased_weights(name, gamma):
    p = sampled(gamma)
    assert largest_z(p, (UNBIASED | UNBIASED_IN_BATCHES)[name](p)) < critical_z()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", OFF_POLICY_UNBIASED)
def test_sampling_does_not_reject_unbiased_ratios(name, gamma):
    p = sampled(gamma, off_policy=True)
    assert largest_z(p, OFF_POLICY_UNBIASED[name](p)) < critical_z()


@pytest.mark.parametrize("name", [*BIASED, "mean baseline"])
def test_sampling_rejects_biased_weights(name):
    p = sampled(0.9)
    assert largest_z(p, (BIASED | {"mean baseline": whole_batch})[name](p)) > critical_z()


@pytest.mark.parametrize("name", [*OFF_POLICY_BIASED, "self-normalized"])
def test_sampling_rejects_biased_ratios(name):
    p = sampled(0.9, off_policy=True)
    assert largest_z(p, (OFF_POLICY_BIASED | {"self-normalized": normalized_ratios})[name](p)) > critical_z()


# ---------------------------------------------------------------- the variance, by full enumeration


def walk(gamma, *, length=4, slip=0.1, policy=None, behavior=None):
    """Left or right at the price of 1 a step, and free into the goal at the right end."""
    P = torch.zeros(length, 2, length)
    for state, (action, move) in itertools.product(range(length - 1), enumerate((-1, 1))):
        P[state, action, max(state + move, 0)] += 1 - slip
        P[state, action, max(state - move, 0)] += slip
    P[-1, :, -1] = 1
    R = -torch.ones(length, 2, length)
    R[:, :, -1] = 0
    world = mdp.MDP(P, R, [1 / (length - 1)] * (length - 1) + [0.0], gamma)
    policy = policy or Table(normal(length, 2, seed=40) * 0.7)
    return Problem(world, policy, 5, *mdp.enumerate_trajectories(world, behavior or policy, 5))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_each_step_cuts_the_variance(gamma):
    p = walk(gamma)
    order = ("total return", "reward to go", "reward to go, exact V", "TD, exact V")
    spreads = [spread_of(p, UNBIASED[name](p)) for name in order]
    assert all(before > 1.3 * after for before, after in itertools.pairwise(spreads)), spreads
    for name in order:
        assert relative_error(mean_gradient(p, UNBIASED[name](p)), p.gradient) <= 1e-10


@pytest.mark.parametrize("gamma", GAMMAS)
def test_optimal_baseline_has_the_least_variance(gamma):
    """Away from the best constant b*, the variance grows by exactly (b - b*)^2 E|score|^2."""
    p = problem(gamma)
    norms = p.share @ p.scores.sum(1).square().sum(1)
    best = best_constant(p)
    least = spread_of(p, returns_of(p) - best)
    for distance in (-1.0, -0.01, 0.01, 1.0):
        grown = spread_of(p, returns_of(p) - best - distance) - least
        assert grown == pytest.approx(float(norms) * distance**2, rel=1e-6)


# ---------------------------------------------------------------- ratios


def test_ratios_average_to_one_under_the_behavior_policy():
    p = problem(1.0, off_policy=True)
    ratios = ratio_of(p, pg.trajectory_ratio)
    assert float(p.share @ ratios[:, 0]) == pytest.approx(1, abs=1e-12)
    behavior_by_hand, here = p.rollout.logprobs.exp(), p.rollout.mask
    policy_by_hand = p.pi[p.rollout.observations, p.rollout.actions]
    step = torch.where(here, policy_by_hand / behavior_by_hand, 1)
    torch.testing.assert_close(ratio_of(p, pg.step_ratio), step * here, atol=1e-12, rtol=0)
    torch.testing.assert_close(ratio_of(p, pg.prefix_ratio), step.cumprod(1) * here, atol=1e-12, rtol=0)
    torch.testing.assert_close(ratios, step.prod(1, keepdim=True) * here, atol=1e-12, rtol=0)


def test_ratios_carry_no_gradient():
    logprobs = torch.zeros(1, 2, requires_grad=True)
    for ratio in (pg.trajectory_ratio, pg.prefix_ratio, pg.step_ratio):
        assert not ratio(logprobs, torch.zeros(1, 2), torch.ones(1, 2).bool()).requires_grad


def test_a_ratio_beyond_the_largest_number_stays_within_the_mask():
    logprobs, mask = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[True, True, False]])
    for ratio in (pg.trajectory_ratio, pg.prefix_ratio, pg.step_ratio):
        assert ratio(logprobs, logprobs - 500, mask).tolist() == [[math.inf, math.inf, 0.0]]


def test_self_normalized_ratios_are_divided_by_the_mean_over_all_rows_the_ended_ones_too():
    ratios, mask = normal(7, 6, seed=73).exp(), holey_record()[2]
    mask[:, 2] = False
    expected, latest = torch.zeros_like(ratios), [1.0] * 7
    for step in range(6):
        latest = [float(ratios[row, step]) if mask[row, step] else latest[row] for row in range(7)]
        expected[:, step] = torch.tensor([r * 7 / sum(latest) for r in latest]).where(mask[:, step], 0)
    torch.testing.assert_close(pg.self_normalized(ratios, mask), expected, atol=1e-6, rtol=0)
    assert latest[-1] == 1 and not mask[:, 0].all()  # a row that never acts, and rows that begin later


def only_those_still_acting(ratios, mask):
    return torch.where(mask, ratios / pg.mean_baseline(ratios, mask), 0)


def all_tosses(layout):
    """Log-probabilities under pi and mu, and the mask, of every sequence of four tosses of a fair coin: each is as
    likely as any other, tails ends an episode, and pi's coin changes from toss to toss."""
    tosses = torch.tensor(list(itertools.product((0, 1), repeat=4)))
    mask, tails = tosses.cumsum(1) - tosses == 0, torch.tensor([0.2, 0.7, 0.4, 0.9], dtype=torch.float64)
    logprobs = torch.where(tosses == 1, tails, 1 - tails).log()
    if layout == "holes":
        mask = torch.stack([mask, torch.zeros_like(mask)], 2).flatten(1)
        logprobs = logprobs.repeat_interleave(2, 1)
    if layout == "prompts of two lengths":
        blank = torch.zeros(16, 2)
        mask = torch.cat([torch.cat([mask, blank.bool()], 1), torch.cat([blank.bool(), mask], 1)])
        logprobs = torch.cat([torch.cat([logprobs, blank], 1), torch.cat([blank, logprobs], 1)])
    return logprobs, torch.full_like(logprobs, math.log(0.5)), mask


@pytest.mark.parametrize("layout", ["padded", "holes", "prompts of two lengths"])
@pytest.mark.parametrize("name", ["trajectory_ratio", "prefix_ratio"])
def test_self_normalizing_all_episodes_there_are_changes_nothing(name, layout):
    """Where the sample is the population, ratios average to 1 already: this is the limit of many episodes."""
    tosses = all_tosses(layout)
    ratios, mask = getattr(pg, name)(*tosses), tosses[-1]
    torch.testing.assert_close(pg.self_normalized(ratios, mask), ratios, atol=1e-12, rtol=0)
    assert float((only_those_still_acting(ratios, mask) - ratios).abs().max()) > 0.3
    # for the ratio of a step it is the other way round
    step = pg.step_ratio(*tosses)
    torch.testing.assert_close(only_those_still_acting(step, mask), step, atol=1e-12, rtol=0)
    assert float((pg.self_normalized(step, mask) - step).abs().max()) > 0.1


CONSISTENT = {
    "trajectory_ratio": returns_of,
    "prefix_ratio": lambda p: generalized(p, p.values, 0.0),
}


@pytest.mark.parametrize("name", CONSISTENT)
def test_self_normalized_estimates_approach_the_exact_gradient(name):
    """With episodes of one to five steps, up to 400,000 of them; the error falls as one over the root of N."""
    to_the_right = Table(torch.tensor([[0.0, 1.5]] * 4, dtype=torch.float64))
    p, sizes = walk(0.9, policy=to_the_right, behavior=Table(torch.zeros(4, 2).double())), (4_000, 40_000, 400_000)
    generator = torch.Generator().manual_seed(12)
    assert set(p.rollout.mask.sum(1).tolist()) == {1, 2, 3, 4, 5}
    ratios, weights = ratio_of(p, getattr(pg, name)), CONSISTENT[name](p)

    def error(normalize, rows):
        counted = torch.zeros_like(weights).index_add(0, rows, normalize(ratios[rows], p.rollout.mask[rows]))
        return relative_error((p.scores * (counted * weights)[..., None]).sum((0, 1)) / len(rows), p.gradient)

    draws = [torch.multinomial(p.share, size, replacement=True, generator=generator) for size in sizes]
    errors = [error(pg.self_normalized, rows) for rows in draws]
    assert errors[-1] < 0.02 and errors[0] > 3 * errors[-1], errors
    assert error(only_those_still_acting, draws[-1]) > 0.1


def clipped_objective(logprobs, behavior_logprobs, advantages, mask, epsilon):
    """PPO as published: min(ratio A, clip(ratio) A), whose gradient flows through the ratio."""
    ratios = (logprobs - behavior_logprobs).exp()
    surrogate = torch.min(ratios * advantages, ratios.clamp(1 - epsilon, 1 + epsilon) * advantages)
    return (surrogate * mask).sum() / len(mask)


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.5])
def test_clipped_weights_have_the_gradient_of_the_clipped_objective(epsilon):
    table, old = (normal(6, 4, seed=seed) for seed in (60, 61))
    policy, generator = Table(old + 0.7 * (table - old)), torch.Generator().manual_seed(62)
    states, actions = (torch.randint(most, (80, 3), generator=generator) for most in (6, 4))
    advantages, mask = normal(80, 3, seed=63), normal(80, 3, seed=64) > -1
    behavior = old.log_softmax(-1)[states, actions]
    logprobs = policy(states).log_softmax(-1).gather(-1, actions[..., None])[..., 0]
    ratios = pg.step_ratio(logprobs, behavior, mask)
    for cut in ((ratios > 1 + epsilon) & mask, (ratios < 1 - epsilon) & mask):
        assert (advantages[cut] > 0).any() and (advantages[cut] < 0).any()
    objective = clipped_objective(logprobs, behavior, advantages, mask, epsilon)
    (expected,) = torch.autograd.grad(objective, policy.logits, retain_graph=True)
    weights = pg.clipped_weights(ratios, advantages, epsilon=epsilon)
    (found,) = torch.autograd.grad(-pg.policy_gradient_loss(logprobs, weights, mask), policy.logits)
    assert relative_error(found, expected) <= 1e-12


@pytest.mark.parametrize("normalizer", [None, 7.0])
@pytest.mark.parametrize("epsilon_high", [None, 0.6])
def test_the_clipped_surrogate_has_the_gradient_of_the_clipped_weights(epsilon_high, normalizer):
    logprobs, behavior = (-normal(40, 5, seed=seed).abs() for seed in (66, 67))
    advantages, mask = normal(40, 5, seed=68), normal(40, 5, seed=69) > -1
    logprobs.requires_grad_()
    clip = {"epsilon": 0.2, "epsilon_high": epsilon_high}
    value = pg.clipped_surrogate(logprobs, behavior, advantages, mask, **clip, normalizer=normalizer)
    weights = pg.clipped_weights(pg.step_ratio(logprobs, behavior, mask), advantages, **clip)
    loss = pg.policy_gradient_loss(logprobs, weights, mask, normalizer)
    (found,), (expected,) = (torch.autograd.grad(each, logprobs) for each in (value, loss))
    assert float((found - expected).abs().max()) <= 1e-12 < 1e-3 < float(expected.abs().max())
    by_hand = 0.0
    for row, step in mask.nonzero().tolist():
        ratio, gain = math.exp(logprobs[row, step].detach() - behavior[row, step]), float(advantages[row, step])
        by_hand += min(ratio * gain, min(max(ratio, 0.8), 1 + (epsilon_high or 0.2)) * gain)
    assert float(value.detach()) == pytest.approx(-by_hand / (normalizer or 40), abs=1e-12)


def test_the_clipped_surrogate_leaves_the_critic_alone():
    logprobs, behavior, advantages = (-normal(4, 5, seed=seed).abs() for seed in (66, 67, 68))
    advantages.requires_grad_()
    value = pg.clipped_surrogate(logprobs.requires_grad_(), behavior, advantages, torch.ones(4, 5).bool())
    assert torch.autograd.grad(value, (logprobs, advantages), allow_unused=True)[1] is None


def test_clip_higher_leaves_the_lower_side_as_it_is():
    ratios, advantages = (
        torch.tensor([1.25, 1.35, 1.25, 0.75, 0.75, 0.5]),
        torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, -1.0]),
    )
    found = pg.clipped_weights(ratios, advantages, epsilon=0.2, epsilon_high=0.3)
    assert found.tolist() == [1.25, 0.0, -1.25, 0.0, 0.75, 0.0]
    assert pg.clipped_weights(ratios, advantages, epsilon=0.2).tolist() == [0.0, 0.0, -1.25, 0.0, 0.75, 0.0]


def test_clipped_weights_of_fresh_data_are_the_advantages():
    advantages = normal(4, 5, seed=65)
    assert torch.equal(pg.clipped_weights(torch.ones(4, 5).double(), advantages), advantages)
    assert not pg.clipped_weights(torch.ones(4, 5), advantages.clone().requires_grad_()).requires_grad


# ---------------------------------------------------------------- the backward recursion, against plain sums


def holey_record(seed=0):
    """Rewards, values, mask with holes, bootstrap; the last row never acts."""
    mask = torch.rand(7, 6, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[-1] = False
    return normal(7, 6, seed=seed + 1), normal(7, 6, seed=seed + 2), mask, normal(7, seed=seed + 3)


def by_rows(function, record):
    """A naive function of (rewards, values with the bootstrap at the end) lists, put back where the mask is True."""
    rewards, values, mask, bootstrap = record
    result = torch.zeros_like(rewards)
    for row, acted in enumerate(mask):
        found = function(rewards[row][acted].tolist(), [*values[row][acted].tolist(), float(bootstrap[row])])
        result[row, acted] = torch.tensor(found, dtype=torch.float64)
    return result


def naive_return(rewards, gamma):
    return sum(gamma**k * reward for k, reward in enumerate(rewards))


def naive_n_step(rewards, values, n, gamma):
    """n rewards, or all there are, then the value of where one has come to."""
    steps = len(rewards)
    ends = [min(t + n, steps) for t in range(steps)]
    return [
        naive_return(rewards[t:end], gamma) + gamma ** (end - t) * values[end] - values[t] for t, end in enumerate(ends)
    ]


def naive_generalized(rewards, values, gamma, lam):
    """The average of the n-step advantages with shares (1 - lam) lam^(n-1), the last of which takes what is left."""
    steps = len(rewards)
    by_n = [naive_n_step(rewards, values, n, gamma) for n in range(1, steps + 1)]
    result = []
    for t in range(steps):
        left = steps - t
        shares = [(1 - lam) * lam ** (n - 1) for n in range(1, left)] + [lam ** (left - 1)]
        result.append(sum(share * by_n[n][t] for n, share in enumerate(shares)))
    return result


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_advantage_averages_the_n_step_advantages(lam, gamma):
    record = holey_record()
    expected = by_rows(lambda rewards, values: naive_generalized(rewards, values, gamma, lam), record)
    same(pg.advantage(*record, gamma=gamma, lam=lam), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_n_step_advantage(n, gamma):
    record = holey_record()
    expected = by_rows(lambda rewards, values: naive_n_step(rewards, values, n, gamma), record)
    same(pg.n_step_advantage(*record, n=n, gamma=gamma), expected)


def test_ends_of_the_recursion():
    _, values, mask, _ = record = holey_record(10)
    same(pg.n_step_advantage(*record, n=1, gamma=0.8), pg.advantage(*record, gamma=0.8, lam=0.0))
    same(pg.n_step_advantage(*record, n=6, gamma=0.8), pg.advantage(*record, gamma=0.8, lam=1.0))
    with_bootstrap = by_rows(
        lambda rewards, values: [naive_return([*rewards[t:], values[-1]], 0.8) for t in range(len(rewards))], record
    )
    same(pg.advantage(*record, gamma=0.8, lam=1.0) + values * mask, with_bootstrap)


@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])
def test_returns_against_plain_sums(gamma):
    rewards, _, mask, _ = record = holey_record()
    to_go = by_rows(lambda r, _: [naive_return(r[t:], gamma) for t in range(len(r))], record)
    same(pg.reward_to_go(rewards, mask, gamma=gamma), to_go)
    total = by_rows(lambda r, _: [naive_return(r, gamma)] * len(r), record)
    same(pg.total_return(rewards, mask, gamma=gamma), total)
    episodes = [naive_return(row[acted].tolist(), gamma) for row, acted in zip(rewards, mask)]
    same(pg.episode_returns(rewards, mask, gamma=gamma), torch.tensor(episodes, dtype=torch.float64))
    powers = by_rows(lambda r, _: [gamma**t for t in range(len(r))], record)
    same(pg.discounts(mask, gamma=gamma), powers)


def test_nothing_leaks_from_one_episode_to_another():
    record = holey_record()
    whole = [pg.advantage(*record, gamma=0.9, lam=0.5), pg.n_step_advantage(*record, n=2, gamma=0.9)]
    for row in range(len(record[0])):
        alone = [tensor[row : row + 1] for tensor in record]
        same(pg.advantage(*alone, gamma=0.9, lam=0.5), whole[0][row : row + 1])
        same(pg.n_step_advantage(*alone, n=2, gamma=0.9), whole[1][row : row + 1])


def test_a_critic_gets_no_gradient_through_advantages():
    rewards, values, mask, bootstrap = holey_record()
    values.requires_grad_()
    bootstrap.requires_grad_()
    assert not pg.advantage(rewards, values, mask, bootstrap).requires_grad
    assert not pg.n_step_advantage(rewards, values, mask, bootstrap, n=2).requires_grad


# ---------------------------------------------------------------- several episodes in a row


def buffer(seed=100):
    """Three rows of nine steps: several episodes, one that ends with the buffer, and none that ends."""
    done = torch.zeros(3, 9).bool()
    done[0, [0, 3, 4]] = done[1, [5, 8]] = True
    return normal(3, 9, seed=seed), normal(3, 9, seed=seed + 1), done, normal(3, seed=seed + 2)


def generalized_by_cleanrl(rewards, values, dones, next_value, next_done, gamma, lam):
    """The loop of CleanRL's ppo.py over a buffer (T, N), where a flag stands at the first step of an episode."""
    advantages, last = torch.zeros_like(rewards), 0
    for t in reversed(range(len(rewards))):
        going_on = 1.0 - (next_done if t == len(rewards) - 1 else dones[t + 1]).double()
        following = next_value if t == len(rewards) - 1 else values[t + 1]
        delta = rewards[t] + gamma * following * going_on - values[t]
        advantages[t] = last = delta + gamma * lam * going_on * last
    return advantages


@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("transposed", [False, True])
def test_split_episodes_have_the_advantages_of_the_loop_over_the_buffer(transposed, lam):
    rewards, values, done, bootstrap = buffer()
    if transposed:  # a buffer (T, N), turned around: rows do not lie side by side in memory
        rewards, values, done = (each.T.contiguous().T for each in (rewards, values, done))
    begins = torch.cat([torch.zeros(3, 1).bool(), done[:, :-1]], 1)
    expected = generalized_by_cleanrl(rewards.T, values.T, begins.T, bootstrap, done[:, -1], 0.9, lam).T
    episodes = pg.split_episodes(rewards, values, done, bootstrap)
    found = pg.advantage(*episodes, gamma=0.9, lam=lam)[episodes.mask].view_as(rewards)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_split_episodes_stand_in_the_order_of_the_buffer():
    rewards, values, done, bootstrap = buffer()
    found = pg.split_episodes(rewards, values, done, bootstrap)
    pieces = [(0, 0, 1), (0, 1, 4), (0, 4, 5), (0, 5, 9), (1, 0, 6), (1, 6, 9), (2, 0, 9)]
    assert found.mask.sum(1).tolist() == [stop - start for _, start, stop in pieces] and found.mask.shape[1] == 9
    for name, whole in (("rewards", rewards), ("values", values)):
        rows = getattr(found, name)
        for row, (n, start, stop) in enumerate(pieces):
            assert torch.equal(rows[row, : stop - start], whole[n, start:stop]) and not rows[row, stop - start :].any()
        assert torch.equal(rows[found.mask].view_as(whole), whole)
    assert found.bootstrap.tolist() == [0, 0, 0, float(bootstrap[0]), 0, 0, float(bootstrap[2])]
    assert torch.equal(done, buffer()[2])


def test_a_time_limit_inside_a_buffer_is_bootstrapped_by_the_last_reward():
    rewards, values, done, bootstrap = buffer()
    expected = pg.split_episodes(rewards, values, done, bootstrap)
    after = expected.bootstrap.clone()
    after[1] = 3.0  # V where the time limit cut off the second episode of the first row
    paid = rewards.clone()
    paid[0, 3] += 0.9 * 3.0
    found = pg.advantage(*pg.split_episodes(paid, values, done, bootstrap), gamma=0.9, lam=0.7)
    same(found, pg.advantage(*expected._replace(bootstrap=after), gamma=0.9, lam=0.7))
    assert float((found - pg.advantage(*expected, gamma=0.9, lam=0.7)).abs().max()) > 1


# ---------------------------------------------------------------- baselines


def naive_baseline(values, mask, groups, itself):
    """Averages in plain Python: over the rows of the group that count, with or without the row itself."""
    result = torch.zeros_like(values)
    for row, step in mask.nonzero().tolist():
        rows = [other for other in range(len(values)) if groups[other] == groups[row] and mask[other, step]]
        others = [float(values[other, step]) for other in rows if itself or other != row]
        result[row, step] = sum(others) / len(others) if others else 0
    return result


@pytest.mark.parametrize(("name", "itself"), [("mean_baseline", True), ("leave_one_out", False)])
def test_baselines_of_scattered_groups(name, itself):
    baseline = getattr(pg, name)
    values, mask, groups = normal(7, 6, seed=70), holey_record(71)[2], torch.tensor([5, -2, 5, 9, -2, 5, 9])
    same(baseline(values, mask, groups), naive_baseline(values, mask, groups, itself))
    same(baseline(values, mask), naive_baseline(values, mask, torch.zeros(7), itself))
    whole = torch.ones(7, 1).bool()
    same(baseline(values[:, 0], groups=groups), naive_baseline(values[:, :1], whole, groups, itself)[:, 0])


def test_leaving_one_out_stretches_the_distance_from_the_mean():
    returns = normal(8, seed=72)
    same(returns - pg.leave_one_out(returns), 8 / 7 * (returns - pg.mean_baseline(returns)))


def test_a_lonely_row_has_no_leave_one_out_baseline():
    groups = torch.tensor([0, 1, 0])
    assert pg.leave_one_out(torch.tensor([1.0, 2.0, 3.0]), groups=groups).tolist() == [3, 0, 1]


def test_groups_of_one_row_each_are_refused():
    message = "^groups are 3 of one row each: expected rows that share one"
    for function in (pg.mean_baseline, pg.leave_one_out, pg.standardized):
        refused(message, function, torch.rand(3), groups=SCATTERED[:3])


SCATTERED = torch.tensor([5, -2, 9, 5, -2, 9, 5])


def test_standardized_groups_have_mean_zero_and_the_unbiased_standard_deviation():
    values = 3 + normal(7, seed=73)
    found = pg.standardized(values, SCATTERED)
    for group in (5, -2, 9):
        rows = group == SCATTERED
        expected = (values[rows] - values[rows].mean()) / (values[rows].std() + 1e-6)
        same(found[rows], expected)
        assert abs(float(found[rows].sum())) <= 1e-12
        assert float(found[rows].std()) == pytest.approx(1, abs=1e-5)
    same(pg.standardized(values), (values - values.mean()) / (values.std() + 1e-6))
    same(pg.standardized(values, eps=0.5), (values - values.mean()) / (values.std() + 0.5))


FLOAT = torch.float32


@pytest.mark.parametrize("dtype", [FLOAT, torch.float64])
def test_a_group_of_equal_values_is_exactly_zero(dtype):
    for value in (0.0, 0.1, 1 / 3, 1e8 / 3, -7.3):
        values = torch.full((7,), value, dtype=dtype)
        assert torch.equal(pg.standardized(values, SCATTERED), torch.zeros(7, dtype=dtype))
    mixed = torch.where(SCATTERED == 5, torch.arange(7, dtype=dtype) ** 2, torch.full((7,), 0.1, dtype=dtype))
    assert torch.equal(pg.standardized(mixed, SCATTERED) == 0, SCATTERED != 5)
    lonely = pg.standardized(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]))
    assert lonely[1] == 0 and torch.isfinite(lonely).all()


def test_prompt_groups_go_by_what_was_seen_before_the_first_action():
    observations = torch.tensor([[3, 4, 9, 0], [3, 4, 8, 0], [3, 5, 9, 0], [3, 4, 9, 0], [3, 4, 1, 2]])
    mask = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 1]]).bool()
    groups = pg.prompt_groups(observations, mask)
    together = groups[:, None] == groups
    expected = torch.eye(5, dtype=torch.bool)
    for one, other in ((0, 1), (0, 3), (1, 3)):
        expected[one, other] = expected[other, one] = True
    assert torch.equal(together, expected)  # the last row has a longer prompt that begins alike


# ---------------------------------------------------------------- the loss


def some_logprobs():
    """A table, log-probabilities of a holey record under it, and weights."""
    policy = Table(normal(5, 3, seed=80))
    states = torch.randint(5, (7, 6), generator=torch.Generator().manual_seed(81))
    logprobs = policy(states).log_softmax(-1)[..., 1]
    return policy, logprobs, normal(7, 6, seed=82), holey_record()[2]


def test_loss_is_a_sum_over_steps_divided_by_episodes():
    _, logprobs, weights, mask = some_logprobs()
    logprobs = logprobs.detach()
    total = sum(float(logprobs[row, t] * weights[row, t]) for row, t in mask.nonzero().tolist())
    assert float(pg.policy_gradient_loss(logprobs, weights, mask)) == pytest.approx(-total / 7, abs=1e-12)
    assert float(pg.policy_gradient_loss(logprobs, weights, mask, normalizer=20)) == pytest.approx(-total / 20)


def test_weights_of_one_are_supervised_finetuning():
    logits, mask = normal(7, 6, 4, seed=83), holey_record()[2]
    labels = torch.randint(4, (7, 6), generator=torch.Generator().manual_seed(84))
    logprobs = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    loss = pg.policy_gradient_loss(logprobs, torch.ones_like(logprobs), mask, normalizer=mask.sum())
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[mask], labels[mask]))


def test_splitting_a_batch_leaves_the_gradient_as_it_is():
    policy, logprobs, weights, mask = some_logprobs()
    whole = pg.policy_gradient_loss(logprobs, weights, mask)
    parts = [
        pg.policy_gradient_loss(logprobs[rows], weights[rows], mask[rows], normalizer=7)
        for rows in (slice(0, 2), slice(2, 3), slice(3, 7))
    ]
    (expected,) = torch.autograd.grad(whole, policy.logits, retain_graph=True)
    (found,) = torch.autograd.grad(sum(parts), policy.logits)
    assert relative_error(found, expected) <= 1e-14


def test_a_row_that_never_acts_adds_nothing():
    rewards, values, mask, bootstrap = holey_record()
    silent = torch.zeros(1, 4).bool()
    for weights in (
        pg.total_return(rewards[:1, :4], silent),
        pg.advantage(rewards[:1, :4], values[:1, :4], silent, bootstrap[:1]),
        pg.n_step_advantage(rewards[:1, :4], values[:1, :4], silent, bootstrap[:1], n=2),
        pg.trajectory_ratio(values[:1, :4], rewards[:1, :4], silent),
        pg.leave_one_out(rewards[:1, :4], silent),
    ):
        assert weights.tolist() == [[0.0] * 4]
    assert pg.policy_gradient_loss(rewards[:1, :4], values[:1, :4], silent) == 0
    assert pg.entropy(normal(1, 4, 3, seed=0), silent) == 0


GARBAGE = {
    "total_return": lambda junk, mask: pg.total_return(junk, mask, gamma=0.9),
    "episode_returns": lambda junk, mask: pg.episode_returns(junk, mask, gamma=0.9),
    "reward_to_go": lambda junk, mask: pg.reward_to_go(junk, mask, gamma=0.9),
    "advantage": lambda junk, mask: pg.advantage(junk, 2 * junk, mask, torch.ones(7).double(), gamma=0.9, lam=0.5),
    "n_step_advantage": lambda junk, mask: pg.n_step_advantage(junk, junk, mask, torch.ones(7).double(), n=2),
    "mean_baseline": lambda junk, mask: pg.mean_baseline(junk, mask),
    "leave_one_out": lambda junk, mask: pg.leave_one_out(junk, mask),
    "trajectory_ratio": lambda junk, mask: pg.trajectory_ratio(junk, 3 * junk, mask),
    "prefix_ratio": lambda junk, mask: pg.prefix_ratio(junk, 3 * junk, mask),
    "step_ratio": lambda junk, mask: pg.step_ratio(junk, 3 * junk, mask),
    "self_normalized": lambda junk, mask: pg.self_normalized(junk, mask),
    "policy_gradient_loss": lambda junk, mask: pg.policy_gradient_loss(junk, 2 * junk, mask),
    "clipped_surrogate": lambda junk, mask: pg.clipped_surrogate(junk, 3 * junk, junk, mask),
    "entropy": lambda junk, mask: pg.entropy(torch.stack([junk, junk * junk], -1), mask),
}


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", GARBAGE)
def test_what_stands_off_the_mask_never_counts(name, garbage):
    rewards, _, mask, _ = holey_record()
    clean = GARBAGE[name](rewards.where(mask, 0), mask)
    found = GARBAGE[name](rewards.where(mask, garbage), mask)
    assert torch.equal(found, clean)
    if found.dim() == 2:
        assert found[~mask].abs().max() == 0 and found[mask].abs().max() > 0


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_garbage_off_the_mask_does_not_reach_the_gradient(garbage):
    _, logprobs, weights, mask = some_logprobs()
    leaf = logprobs.detach().where(mask, garbage).requires_grad_()
    pg.policy_gradient_loss(leaf, weights.where(mask, garbage), mask).backward()
    same(leaf.grad, -weights.where(mask, 0) / 7)
    leaf.grad = None
    pg.clipped_surrogate(leaf, leaf.detach(), weights.where(mask, garbage), mask).backward()
    same(leaf.grad, -weights.where(mask, 0) / 7)


# ---------------------------------------------------------------- what to look at


def test_k1_and_k3_average_to_the_kl_and_k2_does_not():
    """Over all actions, with their probabilities, for many pairs of distributions."""
    logits, reference = normal(20, 1, 6, seed=91), normal(20, 1, 6, seed=92)
    logprobs, others = logits.log_softmax(-1), reference.log_softmax(-1)
    exactly = pg.kl_divergence(logits, reference)[:, 0]
    by_torch = torch.nn.functional.kl_div(others, logprobs, log_target=True, reduction="none").sum(-1)[:, 0]
    same(exactly, by_torch)
    k1, k2, k3 = pg.kl_estimates(logprobs[:, 0], others[:, 0], torch.ones(20, 6).bool())
    p = logprobs[:, 0].exp()
    assert float(((p * k1).sum(1) - exactly).abs().max()) <= 1e-12
    assert float(((p * k3).sum(1) - exactly).abs().max()) <= 1e-12
    assert float(((p * k2).sum(1) - exactly).abs().min()) > 1e-3
    assert (k1 < 0).any() and (k2 >= 0).all() and (k3 >= 0).all()
    # near the policy k2 is nearly right, and k3 varies less than k1
    near = (logprobs + 0.05 * normal(20, 1, 6, seed=93)).log_softmax(-1)[:, 0]
    k1, k2, k3 = pg.kl_estimates(logprobs[:, 0], near, torch.ones(20, 6).bool())
    exactly = pg.kl_divergence(logprobs[:, 0], near)
    assert float(((p * k2).sum(1) / exactly - 1).abs().max()) < 0.1
    spread = [((p * k**2).sum(1) - (p * k).sum(1) ** 2).mean() for k in (k1, k3)]
    assert spread[1] < 0.01 * spread[0]


def test_kl_leaves_padding_alone_and_has_no_gradient():
    mask = torch.tensor([[True, False]])
    logprobs = torch.tensor([[-1.0, math.nan]], requires_grad=True)
    for estimate in pg.kl_estimates(logprobs, torch.tensor([[-2.0, -math.inf]]), mask):
        assert estimate[0, 1] == 0 and estimate[0, 0] > 0 and not estimate.requires_grad
    impossible = torch.tensor([0.0, -math.inf])
    assert float(pg.kl_divergence(impossible, torch.zeros(2))) == pytest.approx(math.log(2))
    assert float(pg.kl_divergence(impossible, impossible)) == 0
    assert float(pg.kl_divergence(torch.zeros(2), impossible)) == math.inf


def test_entropy_of_known_distributions():
    mask = torch.tensor([[True, True, False]])
    assert float(pg.entropy(torch.zeros(1, 3, 5), mask)) == pytest.approx(math.log(5))
    certain = torch.tensor([0.0, -math.inf, -math.inf]).expand(1, 3, 3)
    assert float(pg.entropy(certain, mask)) == 0
    half = torch.tensor([0.0, 0.0, -math.inf])
    quarter = torch.tensor([math.log(0.25), math.log(0.75), -math.inf])
    logits = torch.stack([half, quarter, half])[None]
    by_hand = (math.log(2) - 0.25 * math.log(0.25) - 0.75 * math.log(0.75)) / 2
    assert float(pg.entropy(logits, mask)) == pytest.approx(by_hand)


def test_entropy_has_a_gradient_beside_impossible_actions():
    logits = torch.tensor([[[0.3, -0.2, -math.inf]]], dtype=torch.float64, requires_grad=True)
    pg.entropy(logits, torch.tensor([[True]])).backward()
    p = logits.detach().softmax(-1)
    entropy = -(p[..., :2] * p[..., :2].log()).sum()
    same(logits.grad[..., :2], -p[..., :2] * (p[..., :2].log() + entropy))
    assert logits.grad[0, 0, 2] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    """What is given is coarse; nothing that follows from it is."""
    logits, reference = (normal(3, 4, 4000, seed=seed).to(dtype) for seed in (94, 95))
    for function in (pg.entropies, lambda x: pg.kl_divergence(x, reference), lambda x: pg.kl_divergence(reference, x)):
        found = function(logits)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), function(logits.double()), atol=1e-5, rtol=0)
    assert float(pg.kl_divergence(logits, logits.float()).abs().max()) <= 1e-6
    logprobs, old = (-normal(300, 5, seed=seed).abs().to(dtype) for seed in (96, 97))
    mask = torch.ones(300, 5).bool()
    for ratio in (pg.trajectory_ratio, pg.prefix_ratio, lambda *given: pg.kl_estimates(*given).k3):
        found, exactly = ratio(logprobs, old, mask), ratio(logprobs.double(), old.double(), mask)
        torch.testing.assert_close(found.double(), exactly, atol=1e-6, rtol=1e-5)
    mean = pg.mean_baseline(logprobs[:, 0])  # over more rows than bfloat16 can count
    torch.testing.assert_close(mean.double(), logprobs[:, 0].double().mean().expand(300), atol=1e-6, rtol=1e-5)


def test_effective_sample_size_lies_between_one_and_all():
    ratios = normal(20, seed=90).exp()
    size = float(pg.effective_sample_size(ratios))
    assert 1 < size < 20
    assert size == pytest.approx(20 / (1 + float((ratios / ratios.mean()).var(correction=0))))
    assert float(pg.effective_sample_size(5 * ratios)) == pytest.approx(size)
    assert float(pg.effective_sample_size(torch.full((20,), 0.3))) == pytest.approx(20)
    assert float(pg.effective_sample_size(torch.eye(20)[3])) == 1


# ---------------------------------------------------------------- bad input

B_T, YES = torch.zeros(2, 3), torch.ones(2, 3).bool()

WRONG = {
    "weights with gradient": (
        lambda: pg.policy_gradient_loss(B_T, torch.zeros(2, 3, requires_grad=True), YES),
        "weights require grad: expected them detached",
    ),
    "weights of other shape": (
        lambda: pg.policy_gradient_loss(B_T, torch.zeros(2, 1), YES),
        r"weights has shape \(2, 1\): expected \(2, 3\), as logprobs has",
    ),
    "flat logprobs": (
        lambda: pg.policy_gradient_loss(torch.zeros(2), torch.zeros(2), torch.ones(2).bool()),
        r"logprobs has shape \(2,\): expected \(B, T\)",
    ),
    "float mask": (lambda: pg.policy_gradient_loss(B_T, B_T, B_T), "mask has dtype torch.float32: expected bool"),
    "mask of other shape": (lambda: pg.total_return(B_T, YES[:, :2]), r"mask has shape \(2, 2\): expected \(2, 3\)"),
    "values of other shape": (
        lambda: pg.advantage(B_T, torch.zeros(2, 4), YES, torch.zeros(2)),
        r"values has shape \(2, 4\): expected \(2, 3\), as rewards has",
    ),
    "bootstrap": (
        lambda: pg.advantage(B_T, B_T, YES, torch.zeros(2, 3)),
        r"bootstrap has shape \(2, 3\): expected \(2,\)",
    ),
    "gamma": (lambda: pg.reward_to_go(B_T, YES, gamma=1.5), r"gamma=1.5: expected a number in \[0, 1\]"),
    "lam": (
        lambda: pg.advantage(B_T, B_T, YES, torch.zeros(2), lam=-0.1),
        r"lam=-0.1: expected a number in \[0, 1\]",
    ),
    "NaN gamma": (
        lambda: pg.n_step_advantage(B_T, B_T, YES, torch.zeros(2), n=2, gamma=math.nan),
        r"gamma=nan: expected a number in \[0, 1\]",
    ),
    "n": (lambda: pg.n_step_advantage(B_T, B_T, YES, torch.zeros(2), n=0), "n=0: expected at least 1"),
    "baseline mask": (
        lambda: pg.mean_baseline(B_T, YES[:, 0]),
        r"mask has shape \(2,\): expected \(2, 3\), as values has",
    ),
    "groups": (
        lambda: pg.leave_one_out(B_T, YES, torch.zeros(3).long()),
        r"groups has shape \(3,\): expected \(2,\)",
    ),
    "groups of a standard deviation": (
        lambda: pg.standardized(B_T[:, 0], torch.zeros(3).long()),
        r"groups has shape \(3,\): expected \(2,\)",
    ),
    "behavior_logprobs": (
        lambda: pg.step_ratio(B_T, torch.zeros(2), YES),
        r"behavior_logprobs has shape \(2,\): expected \(2, 3\), as logprobs has",
    ),
    "epsilon": (lambda: pg.clipped_weights(B_T, B_T, epsilon=0.0), "epsilon=0.0: expected a number above 0"),
    "epsilon_high": (
        lambda: pg.clipped_surrogate(B_T, B_T, B_T, YES, epsilon_high=-0.1),
        "epsilon_high=-0.1: expected a number above 0",
    ),
    "eps": (lambda: pg.standardized(torch.rand(3), eps=0.0), "eps=0.0: expected a number above 0"),
    "ratios of other shape": (
        lambda: pg.self_normalized(torch.zeros(2, 1), YES),
        r"mask has shape \(2, 3\): expected \(2, 1\), as ratios has",
    ),
    "float done": (
        lambda: pg.split_episodes(B_T, B_T, B_T, torch.zeros(2)),
        "done has dtype torch.float32: expected bool",
    ),
    "bootstrap of a buffer": (
        lambda: pg.split_episodes(B_T, B_T, YES, B_T),
        r"bootstrap has shape \(2, 3\): expected \(2,\)",
    ),
    "NaN epsilon": (lambda: pg.clipped_weights(B_T, B_T, epsilon=math.nan), "epsilon=nan: expected a number above 0"),
}


NONE = torch.zeros(2)
INTEGERS = {
    "rewards": (
        lambda whole: pg.reward_to_go(whole, YES, gamma=0.9),
        lambda whole: pg.total_return(whole, YES),
        lambda whole: pg.episode_returns(whole, YES, gamma=0.9),
        lambda whole: pg.advantage(whole, B_T, YES, NONE),
        lambda whole: pg.n_step_advantage(whole, B_T, YES, NONE, n=2),
        lambda whole: pg.split_episodes(whole, B_T, YES, NONE),
    ),
    "values": (
        lambda whole: pg.advantage(B_T, whole, YES, NONE),
        lambda whole: pg.n_step_advantage(B_T, whole, YES, NONE, n=2),
        lambda whole: pg.split_episodes(B_T, whole, YES, NONE),
    ),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_refused_and_not_truncated(name):
    for function in INTEGERS[name]:
        for dtype in (torch.int64, torch.uint8, torch.bool):
            refused(f"{name} has dtype {dtype}: expected float", function, torch.ones(2, 3).to(dtype))


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_named(case):
    function, message = WRONG[case]
    refused(message, function)


@pytest.mark.parametrize("size", [0.01, 1.0])
def test_sums_in_half_precision_do_not_stop_growing(size):
    """1,000 equal rewards: in bfloat16 a running sum would stay at 4, or at 256."""
    rewards, mask = torch.full((1, 1000), size, dtype=torch.bfloat16), torch.ones(1, 1000, dtype=torch.bool)
    exact = 1000 * float(rewards[0, 0])
    zeros = torch.zeros_like(rewards)
    for found in (
        pg.reward_to_go(rewards, mask),
        pg.n_step_advantage(rewards, zeros, mask, zeros[:, 0], n=1000),
        pg.total_return(rewards, mask),
    ):
        assert found.dtype == torch.bfloat16 and abs(float(found[0, 0]) - exact) < 0.01 * exact


def test_what_is_no_tensor_is_named():
    values, mask = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    for name, call in {
        "logprobs": lambda: pg.policy_gradient_loss(values.numpy(), values, mask),
        "mask": lambda: pg.reward_to_go(values, mask.tolist()),
        "groups": lambda: pg.standardized(values[:, 0], [0, 0]),
        "values": lambda: pg.leave_one_out(values[:, 0].numpy()),
    }.items():
        refused(f"^{name} is a .*: expected a tensor$", call)


def test_no_rows_are_no_episodes():
    none = torch.zeros(0, 3)
    episodes = pg.split_episodes(none, none, none.bool(), none[:, 0])
    assert [len(part) for part in episodes] == [0, 0, 0, 0]
