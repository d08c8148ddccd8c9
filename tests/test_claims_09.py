"""C29 to C32: which weights keep the policy gradient's mean, how much noise each has, and what that buys in training.

Means are held against the exact gradient: on a small world by listing every trajectory, or every batch of them. The
order of the variances is that of the lesson's world, the default map with a cost of 0.04 per step and 40 steps.
"""

import importlib
import itertools
import json
import random
from types import SimpleNamespace

import pytest
import torch

from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import exercises
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.training import train_policy
from ptlearn.statistics import ratio

HORIZON, SIZE, BATCHES = 40, 8, 700  # of the lesson's world: the time limit, and the episodes in a batch
SEEDS = pytest.mark.parametrize("seed", range(5))
checks = importlib.import_module("ptlearn.course.checks.09_baselines")
answers = {number: known.reference for number, known in exercises(9).items()}

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def along(values, rollout):
    return values[torch.arange(rollout.mask.shape[1]), rollout.observations]


def gradients(rollout, weights, pi):
    return mdp.episode_gradients(pi, rollout.observations, rollout.actions, weights * rollout.mask).flatten(1)


def listed(seed, horizon=4, gamma=1.0):
    """A world of six cells, a policy with preferences, all trajectories, and the exact gradient."""
    world = GridWorld("small", step_reward=-0.25).to_mdp(gamma)
    policy = TabularPolicy(world.states, world.actions).double()
    torch.nn.init.normal_(policy.logits, std=0.7, generator=seeded(seed))
    rollout, _, chance = mdp.enumerate_trajectories(world, policy, horizon)
    pi = mdp.probabilities(world, policy).detach()
    return SimpleNamespace(
        world=world, policy=policy, rollout=rollout, chance=chance, pi=pi, rewards=rollout.rewards, mask=rollout.mask,
        values=mdp.horizon_values(world, pi, horizon), gradient=mdp.exact_gradient(world, policy, horizon),
        returns=pg.episode_returns(rollout.rewards, rollout.mask), horizon=horizon,
    )  # fmt: skip


def mean_and_variance(p, weights):
    """The exact mean of one episode's estimate and the exact trace of its covariance."""
    found = gradients(p.rollout, weights, p.pi)
    mean = p.chance @ found
    return mean, float(p.chance @ found.square().sum(1) - mean @ mean)


def relative(found, exact):
    return float((found - exact).norm() / exact.norm())


def off_by(p, weights):
    """How far the mean is from the exact gradient, relative to its length."""
    return relative(mean_and_variance(p, weights)[0], p.gradient)


def all_batches(p, size):
    """Every batch of so many trajectories, as rows (M, size), and how likely each is."""
    rows = torch.tensor(list(itertools.product(range(len(p.chance)), repeat=size)))
    return rows, p.chance[rows].prod(1)


def mean_of_batches(p, rows, chances, constants):
    """The exact mean estimate of batches whose episodes have the returns less these constants (M, size) as weights."""
    scores = gradients(p.rollout, torch.ones_like(p.rewards), p.pi)
    estimates = torch.einsum("mn,mnp->mp", p.returns[rows] - constants, scores[rows]) / rows.shape[1]
    mean = chances @ estimates
    return mean, float(chances @ estimates.square().sum(1) - mean @ mean)


# ---------------------------------------------------------------- the lesson's world


@pytest.fixture(scope="module")
def world():
    return GridWorld(step_reward=-0.04).to_mdp()


@pytest.fixture(scope="module")
def policies(world):
    """The untrained policy, and one on its way."""
    found = {}
    for name, steps in (("untrained", 0), ("on its way", 15)):
        policy = TabularPolicy(world.states, world.actions).double()
        optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            (-mdp.objective(world, mdp.probabilities(world, policy), HORIZON)).backward()
            optimizer.step()
        found[name] = policy
    return found


@pytest.fixture(scope="module")
def studies(world, policies):
    """For each policy and seed the estimates of many batches with each weight: {name: [{kind: (M, P)}, ...]}."""
    return {name: [study(world, policy, seed) for seed in range(5)] for name, policy in policies.items()}


def study(world, policy, seed):
    pi = mdp.probabilities(world, policy).detach()
    rollout, _ = collect(world, policy, BATCHES * SIZE, horizon=HORIZON, generator=seeded(seed))
    values = along(mdp.horizon_values(world, pi, HORIZON), rollout)
    scores = gradients(rollout, torch.ones_like(rollout.rewards), pi)
    found = {}
    for kind in checks.KINDS:
        weights = answers["9.9"](kind, rollout.rewards, rollout.mask, values, scores, SIZE)
        found[kind] = gradients(rollout, weights, pi).unflatten(0, (-1, SIZE)).mean(1)
    to_go = pg.reward_to_go(rollout.rewards, rollout.mask)
    before = pg.total_return(rollout.rewards, rollout.mask) - to_go
    return found | {"past": gradients(rollout, before, pi).unflatten(0, (-1, SIZE)).mean(1)}


def left(found, after, before):
    """The ratio of two variances over common batches, with its interval."""
    both = [(found[kind] - found[kind].mean(0)).square().sum(1) for kind in (after, before)]
    return ratio(*both)


# ---------------------------------------------------------------- C29


@SEEDS
def test_c29_unbiased_with_a_variance_that_falls_as_one_over_n(seed):
    p = listed(seed, 3)
    weights = pg.total_return(p.rewards, p.mask)
    mean, variance = mean_and_variance(p, weights)
    assert torch.allclose(mean, p.gradient, atol=1e-12)
    assert off_by(p, weights / p.mask.sum(1, keepdim=True)) > 0.1  # a mean over steps is not
    rows, chances = all_batches(p, 2)
    of_two, half = mean_of_batches(p, rows, chances, 0.0)
    assert torch.allclose(of_two, p.gradient, atol=1e-12) and half == pytest.approx(variance / 2, rel=1e-9)


@SEEDS
def test_c29_the_noise_of_a_batch_is_hundreds_of_times_the_signal(world, policies, studies, seed):
    estimates = studies["untrained"][seed]["total return"]
    exact = mdp.exact_gradient(world, policies["untrained"], HORIZON)
    assert 500 < estimates.var(0).sum() / exact.square().sum() < 650
    assert 0.02 < torch.cosine_similarity(estimates, exact[None]).mean() < 0.07


@SEEDS
def test_the_measure_of_an_estimator_tells_a_biased_one(seed):
    p = listed(seed, 3)
    drawn = torch.multinomial(p.chance, 20_000, replacement=True, generator=seeded(seed))
    each = gradients(p.rollout, p.returns[:, None], p.pi)[drawn]
    found = answers["9.1"](each, 4, p.gradient)
    error = float((found["estimates"] @ p.gradient).std() / p.gradient.square().sum() / 5000**0.5)
    assert found["z"] < 4.5 and float(found["share"]) == pytest.approx(1, abs=4 * error)
    assert float(found["variance"]) == pytest.approx(mean_and_variance(p, p.returns[:, None])[1] / 4, rel=0.06)
    assert answers["9.1"](0.5 * each, 4, p.gradient)["z"] > 6


# ---------------------------------------------------------------- the proof


@SEEDS
def test_what_is_fixed_before_the_action_is_gone_prefix_by_prefix(seed):
    p = listed(seed, 5)
    columns = torch.tensor(answers["9.2"](p.world, p.pi, 5), dtype=torch.float64).T
    times, chances, states, past = columns[0].long(), columns[1], columns[2].long(), columns[3]
    assert float(chances[times == 0].sum()) == pytest.approx(1, abs=1e-12)
    for t in range(5):  # as often as the trajectories act at t
        assert float(chances[times == t].sum()) == pytest.approx(float(p.chance @ p.mask[:, t].double()), abs=1e-12)
    Q = torch.stack([mdp.action_values(p.world, after) for after in p.values[1:]])[times, states]
    fixed = (past, p.values[times, states], torch.full_like(past, -1.6))
    for b in fixed:
        parts = answers["9.3"](p.pi, chances, states, b[:, None].expand(-1, 4))
        assert parts["inner"].abs().max() < 1e-15 and parts["grad_pi"].sum(1).abs().max() < 1e-15
    parts = answers["9.3"](p.pi, chances, states, Q)
    assert parts["inner"].abs().max() > 0.05
    assert relative(parts["mean"].flatten(), p.gradient) < 1e-12


# ---------------------------------------------------------------- C30


@SEEDS
def test_c30_past_rewards_have_zero_mean_and_are_noise(seed):
    p = listed(seed)
    to_go = pg.reward_to_go(p.rewards, p.mask)
    past, noise = mean_and_variance(p, pg.total_return(p.rewards, p.mask) - to_go)
    assert past.abs().max() < 1e-12 and noise > 0.05
    assert off_by(p, to_go) < 1e-10
    assert off_by(p, to_go - p.rewards) > 0.1  # the reward of the step itself is the action's doing


@SEEDS
def test_c30_reward_to_go_halves_the_variance_or_raises_it(studies, seed):
    for name, low, high in (("untrained", 0.41, 0.45), ("on its way", 1.25, 1.4)):
        found = left(studies[name][seed], "reward-to-go", "total return")
        assert low < found.mean < high and not found.low <= 1 <= found.high


@SEEDS
def test_c30_where_it_raises_it_past_and_future_partly_cancelled(studies, seed):
    for name, sign in (("untrained", 1), ("on its way", -1)):
        found = studies[name][seed]
        whole, to_go, past = (float(found[kind].var(0).sum()) for kind in ("total return", "reward-to-go", "past"))
        covariance = sign * (whole - to_go - past)
        assert covariance > 2 * past if sign < 0 else covariance > past


@SEEDS
def test_c30_reward_to_go_changes_nothing_where_only_the_end_pays(world, policies, seed):
    rollout, _ = collect(world, policies["untrained"], 200, horizon=HORIZON, generator=seeded(seed))
    rewards = torch.where(rollout.rewards.abs() == 1, rollout.rewards, 0)
    assert rewards.abs().sum() > 0
    assert torch.equal(pg.reward_to_go(rewards, rollout.mask), pg.total_return(rewards, rollout.mask))


@SEEDS
def test_c30_the_gradient_of_a_discounted_objective_has_gamma_to_the_t(seed):
    p = listed(seed, gamma=0.8)
    to_go = pg.reward_to_go(p.rewards, p.mask, gamma=0.8)
    assert off_by(p, pg.discounts(p.mask, gamma=0.8) * to_go) < 1e-12
    dropped = mean_and_variance(p, to_go)[0]
    assert relative(dropped, p.gradient) > 0.03
    for factor, mean in ((0.8, p.gradient), (1.0, dropped)):
        assert relative(answers["9.5"](p.world, p.pi, 4, factor).flatten(), mean) < 1e-12


@pytest.mark.parametrize(("name", "error", "length"), [("untrained", 2.26, 3.25), ("on its way", 0.54, 1.53)])
def test_c30_what_dropping_it_costs_in_the_lessons_world(policies, name, error, length):
    world = GridWorld(step_reward=-0.04).to_mdp(0.95)
    exact = mdp.exact_gradient(world, policies[name], HORIZON)
    pi = mdp.probabilities(world, policies[name]).detach()
    assert relative(answers["9.5"](world, pi, HORIZON, 0.95).flatten(), exact) < 1e-10
    found = answers["9.5"](world, pi, HORIZON, 1.0).flatten()
    assert relative(found, exact) == pytest.approx(error, abs=0.006)
    assert float(found.norm() / exact.norm()) == pytest.approx(length, abs=0.006)
    assert 0.99 < float(torch.cosine_similarity(found, exact, dim=0)) < 0.998


# ---------------------------------------------------------------- C31


@SEEDS
def test_c31_what_is_fixed_before_the_action_is_drawn_keeps_the_mean(seed):
    p = listed(seed)
    to_go, values = pg.reward_to_go(p.rewards, p.mask), along(p.values, p.rollout)
    length, steps = p.mask.sum(1, keepdim=True).double(), torch.arange(4)
    for baseline in (torch.tensor(-3.0), values, steps.double(), pg.total_return(p.rewards, p.mask) - to_go):
        assert off_by(p, to_go - baseline) < 1e-10
    q = torch.stack([mdp.action_values(p.world, after) for after in p.values[1:]])
    q = q[steps, p.rollout.observations, p.rollout.actions]
    assert off_by(p, to_go - q) == pytest.approx(1)  # nothing is left of the gradient
    following = torch.cat([(values * p.mask)[:, 1:], torch.zeros(len(values), 1)], 1)
    assert off_by(p, to_go - length) > 0.1 and off_by(p, to_go - following) > 0.1
    others = (p.returns[:, None] + 3 * p.chance @ p.returns) / 4
    assert off_by(p, to_go - others) == pytest.approx(0.25, abs=1e-10)
    assert off_by(p, answers["9.8"](p.rewards, values, p.mask)) < 1e-10
    assert off_by(p, answers["9.8"](p.rewards, 1.1 * values, p.mask)) > 1e-3  # exact V, or biased


@SEEDS
def test_c31_the_average_loses_one_nth_and_the_others_average_nothing(seed):
    for size, horizon in ((2, 3), (3, 2)):
        p = listed(seed, horizon)
        rows, chances = all_batches(p, size)
        returns = p.returns[rows]
        average = returns.mean(1, keepdim=True)
        alone = answers["9.6"](returns[..., None], torch.ones(*returns.shape, 1, dtype=torch.bool))[..., 0]
        for constants, part in ((average, 1 - 1 / size), (alone, 1.0)):
            mean, _ = mean_of_batches(p, rows, chances, constants)
            assert torch.allclose(mean, part * p.gradient, rtol=0, atol=1e-12)


@SEEDS
def test_c31_the_best_constant_fitted_on_its_own_batch_is_biased_and_on_the_others_is_not(seed):
    p = listed(seed, 3)
    rows, chances = all_batches(p, 2)
    scores = gradients(p.rollout, torch.ones_like(p.rewards), p.pi)
    fitted = answers["9.7"](scores[rows], p.returns[rows])
    (mean, quiet), (unbiased, loud) = (mean_of_batches(p, rows, chances, fitted[name]) for name in ("batch", "others"))
    assert relative(unbiased, p.gradient) < 1e-12
    assert relative(mean, p.gradient) > 0.3 and loud > quiet


@SEEDS
def test_c31_the_best_constant_is_the_bottom_of_the_parabola(seed):
    p = listed(seed)
    scores = gradients(p.rollout, torch.ones_like(p.rewards), p.pi)
    below, at_zero, above = (mean_and_variance(p, (p.returns - b)[:, None])[1] for b in (-1.0, 0.0, 1.0))
    bottom = (below - above) / (2 * (below + above - 2 * at_zero))  # of the parabola through three points
    best = float(pg.optimal_baseline(p.chance * scores.square().sum(1), p.returns))
    assert best == pytest.approx(bottom, abs=1e-9)
    mean_return = float(p.chance @ p.returns)
    assert abs(best - mean_return) > 1e-3
    at_best, at_mean = (mean_and_variance(p, (p.returns - b)[:, None])[1] for b in (best, mean_return))
    assert at_best < at_mean < at_zero


@SEEDS
def test_c31_the_order_of_the_variances(studies, seed):
    steps = {
        "untrained": [(0.41, 0.45), (0.175, 0.215), (0.80, 0.86), (0.038, 0.05)],
        "on its way": [(1.25, 1.4), (0.48, 0.64), (0.84, 0.94), (0.26, 0.34)],
    }
    ladder = [checks.KINDS[place] for place in (0, 4, 5, 6, 7)]
    for name, ranges in steps.items():
        for (before, after), (low, high) in zip(itertools.pairwise(ladder), ranges):
            found = left(studies[name][seed], after, before)
            assert low < found.mean < high and not found.low <= 1 <= found.high, (name, after)


@SEEDS
def test_c31_only_the_batch_average_is_seen_to_be_biased(world, policies, studies, seed):
    for name, policy in policies.items():
        exact = mdp.exact_gradient(world, policy, HORIZON)
        for kind in checks.KINDS:
            found = answers["9.1"](studies[name][seed][kind], 1, exact)
            part = found["estimates"] @ exact / exact.square().sum()
            error = 4 * float(part.std()) / len(part) ** 0.5
            assert found["z"] < 5
            assert float(part.mean()) == pytest.approx(7 / 8 if kind == "return − average" else 1, abs=error), kind


# ---------------------------------------------------------------- C32


@SEEDS
def test_c32_the_expected_value_of_the_start_is_the_objective(seed):
    p = listed(seed)
    start = torch.tensor([0.4, 0.3, 0.0, 0.2, 0.1, 0.0], dtype=torch.float64)
    anywhere = mdp.MDP(p.world.P, p.world.R, start)
    rollout, _, chance = mdp.enumerate_trajectories(anywhere, p.policy, 4)
    returns = pg.episode_returns(rollout.rewards, rollout.mask)
    assert float(start @ p.values[0]) == pytest.approx(float(chance @ returns), abs=1e-12)
    for state in start.nonzero()[:, 0]:
        here = rollout.observations[:, 0] == state
        assert float(chance[here] @ returns[here] / start[state]) == pytest.approx(float(p.values[0, state]), abs=1e-12)


# ---------------------------------------------------------------- a weight of one's own


@SEEDS
def test_a_weight_learned_from_earlier_episodes_keeps_the_mean_and_is_nearly_as_quiet_as_the_exact_v(seed):
    for case in checks.contest_cases(random.Random(seed)):
        found = checks.problem(json.dumps(case))
        e = checks.contest_evidence(found)
        weights = answers["9.10"](e)
        mean, variance = checks.mean_and_variance(found, weights)
        assert relative(mean, found.exact) < 1e-10
        assert checks.quietness(case, {"weights": weights}) > 0.7
        values = along(mdp.horizon_values(found.world, found.pi, found.horizon), found.every)
        plain = pg.reward_to_go(e.rewards, e.mask) - values * e.mask  # with the exact V, which nobody has
        assert variance < 0.9 * checks.mean_and_variance(found, plain)[1]


# ---------------------------------------------------------------- training


def reach(world, kind, seed, lr=0.12, updates=90, goal=float("inf")):
    """The exact expected return before each update and at the end, which is an update after it reached the goal."""
    policy, reached = TabularPolicy(world.states, world.actions).double(), []

    def sample(policy, generator):
        return collect(world, policy, 32, horizon=HORIZON, generator=generator)

    def weigh(rollout, *_):
        pi = mdp.probabilities(world, policy).detach()
        values = mdp.horizon_values(world, pi, HORIZON)
        reached.append(float(world.start @ values[0]))
        scores = gradients(rollout, torch.ones_like(rollout.rewards), pi)
        return answers["9.9"](kind, rollout.rewards, rollout.mask, along(values, rollout), scores, 32)

    train_policy(policy, sample, weigh, updates=updates, lr=lr, seed=seed, until=lambda *_: reached[-1] >= goal)
    return [*reached, float(mdp.objective(world, mdp.probabilities(world, policy).detach(), HORIZON))]


@SEEDS
def test_less_noise_is_faster_learning(world, seed):
    goal = 0.95 * float(world.start @ mdp.value_iteration(world))
    quiet, usual, plain = (
        reach(world, kind, seed, updates=updates, goal=goal)
        for kind, updates in (("TD, exact V", 90), ("return − average", 90), ("total return", 30))
    )
    assert len(quiet) < 0.75 * len(usual) and len(usual) < 80
    assert plain[30] + 0.01 < usual[30] < 0.98 * quiet[min(30, len(quiet) - 1)]


def test_for_adam_the_average_and_the_others_average_are_the_same(world):
    average, alone = (reach(world, f"return − {name}", 0, updates=20) for name in ("average", "leave-one-out"))
    assert average == pytest.approx(alone, abs=1e-4)


@SEEDS
def test_a_baseline_is_enough_for_the_lectures_own_rewards(seed):
    assert reach(GridWorld().to_mdp(), "return − leave-one-out", seed, lr=0.1, goal=0.96)[-1] >= 0.95
