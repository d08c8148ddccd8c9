"""C29 to C32: which weights keep the policy gradient's mean, how much noise each has, and what that buys in training.

Means are held against the exact gradient: on a small world by listing every trajectory, or every batch of them. The
order of the variances is that of the lesson's world, the default map with a cost of 0.04 per step and 40 steps.
"""

import itertools
from types import SimpleNamespace

import pytest
import torch

from ptlearn import policy_gradient as pg
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.training import train_policy

HORIZON, SIZE = 40, 8  # of the lesson's world: the time limit, and the episodes in a batch


pytestmark = pytest.mark.usefixtures("one_thread")


def gradients(rollout, weights, pi):
    """Each episode's gradient in the logits of a table, in closed form: (B, S * A)."""
    taken = torch.zeros(len(weights), pi.numel(), dtype=torch.float64)
    place = rollout.observations * pi.shape[1] + rollout.actions
    taken = taken.scatter_add_(1, place, torch.where(rollout.mask, weights, 0.0)).unflatten(1, pi.shape)
    return (taken - taken.sum(-1, keepdim=True) * pi).flatten(1)


def along(values, rollout):
    return values[torch.arange(rollout.mask.shape[1]), rollout.observations]


def listed(horizon):
    """A world of six cells, a policy with preferences, all trajectories, and the exact gradient."""
    world = GridWorld("small", step_reward=-0.25).to_mdp()
    policy = TabularPolicy(world.states, world.actions).double()
    torch.nn.init.normal_(policy.logits, std=0.7, generator=torch.Generator().manual_seed(3))
    rollout, _, chance = mdp.enumerate_trajectories(world, policy, horizon)
    pi = mdp.probabilities(world, policy).detach()
    return SimpleNamespace(
        world=world, policy=policy, rollout=rollout, chance=chance, pi=pi, rewards=rollout.rewards, mask=rollout.mask,
        values=mdp.horizon_values(world, pi, horizon), gradient=mdp.exact_gradient(world, policy, horizon),
        returns=pg.episode_returns(rollout.rewards, rollout.mask),
    )  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return listed(5)


def mean_and_variance(p, weights):
    """The exact mean of one episode's estimate and the exact trace of its covariance."""
    found = gradients(p.rollout, weights, p.pi)
    mean = p.chance @ found
    return mean, float(p.chance @ found.square().sum(1) - mean @ mean)


def off_by(p, weights):
    """How far the mean is from the exact gradient, relative to its length."""
    return float((mean_and_variance(p, weights)[0] - p.gradient).norm() / p.gradient.norm())


@pytest.fixture(scope="module")
def studies():
    """Batches of the untrained policy and of one on its way, in the lesson's world."""
    world, found = GridWorld(step_reward=-0.04).to_mdp(), {}
    policy = TabularPolicy(world.states, world.actions).double()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    for name, steps in (("untrained", 0), ("on its way", 15)):
        for _ in range(steps):
            optimizer.zero_grad()
            (-mdp.objective(world, mdp.probabilities(world, policy), HORIZON)).backward()
            optimizer.step()
        pi = mdp.probabilities(world, policy).detach()
        generator = torch.Generator().manual_seed(1)
        rollout, _ = collect(world, policy, 2000 * SIZE, horizon=HORIZON, generator=generator)
        values = along(mdp.horizon_values(world, pi, HORIZON), rollout)
        found[name] = SimpleNamespace(
            gradient=mdp.exact_gradient(world, policy, HORIZON), rollout=rollout, batches=batches(rollout, values, pi)
        )
    return found


def batches(rollout, values, pi):
    """The estimates of 2,000 batches with each weight: name -> (2000, P)."""
    rewards, mask = rollout.rewards, rollout.mask
    groups, to_go = torch.arange(len(mask)) // SIZE, pg.reward_to_go(rewards, mask)
    returns = pg.episode_returns(rewards, mask)
    weights = {
        "total return": pg.total_return(rewards, mask),
        "average": (returns - pg.mean_baseline(returns, groups=groups))[:, None] * mask,
        "reward-to-go": to_go,
        "leave-one-out": to_go - pg.leave_one_out(to_go, mask, groups),
        "value": to_go - values,
        "TD": pg.advantage(rewards, values, mask, rewards.new_zeros(len(mask)), lam=0.0),
    }
    return {name: gradients(rollout, given, pi).unflatten(0, (-1, SIZE)).mean(1) for name, given in weights.items()}


def ratio(above, below):
    """(low, high) of below's total variance over above's: the 95 % bootstrap interval over common batches."""
    above, below = ((estimates - estimates.mean(0)).square().sum(1) for estimates in (above, below))
    rows = torch.randint(len(above), (300, len(above)), generator=torch.Generator().manual_seed(2))
    return (below[rows].mean(1) / above[rows].mean(1)).quantile(torch.tensor([0.025, 0.975]).double()).tolist()


# ---------------------------------------------------------------- C29


def test_c29_unbiased_with_a_variance_that_falls_as_one_over_n(small):
    weights = pg.total_return(small.rewards, small.mask)
    mean, variance = mean_and_variance(small, weights)
    assert torch.allclose(mean, small.gradient, atol=1e-12)
    single, generator = gradients(small.rollout, weights, small.pi), torch.Generator().manual_seed(0)
    for size in (1, 4, 16):
        rows = torch.multinomial(small.chance, 4000 * size, replacement=True, generator=generator)
        estimates = single[rows].unflatten(0, (-1, size)).mean(1)
        assert float(estimates.var(0).sum()) * size == pytest.approx(variance, rel=0.06)


def test_c29_the_noise_of_a_batch_is_hundreds_of_times_the_signal(studies):
    found = studies["untrained"]
    noise = found.batches["total return"].var(0).sum()
    assert noise > 200 * found.gradient.square().sum()


# ---------------------------------------------------------------- C30


def test_c30_past_rewards_have_zero_mean_and_are_noise(small):
    to_go = pg.reward_to_go(small.rewards, small.mask)
    past, noise = mean_and_variance(small, pg.total_return(small.rewards, small.mask) - to_go)
    assert past.abs().max() < 1e-12 and noise > 0.1
    assert off_by(small, to_go) < 1e-10


def test_c30_reward_to_go_halves_the_variance_where_steps_cost(studies):
    low, high = ratio(*(studies["untrained"].batches[name] for name in ("total return", "reward-to-go")))
    assert 0.40 < low < high < 0.46


def test_c30_reward_to_go_alone_can_also_raise_it(studies):
    low, high = ratio(*(studies["on its way"].batches[name] for name in ("total return", "reward-to-go")))
    assert 1.2 < low < high < 1.5


def test_c30_reward_to_go_changes_nothing_where_only_the_end_pays(studies):
    rollout = studies["untrained"].rollout
    rewards = torch.where(rollout.rewards.abs() == 1, rollout.rewards, 0)
    assert rewards.abs().sum() > 0
    assert torch.equal(pg.reward_to_go(rewards, rollout.mask), pg.total_return(rewards, rollout.mask))


# ---------------------------------------------------------------- C31


def test_c31_what_is_fixed_before_the_action_is_drawn_keeps_the_mean(small):
    to_go, values = pg.reward_to_go(small.rewards, small.mask), along(small.values, small.rollout)
    length = small.mask.sum(1, keepdim=True).double()
    for baseline in (torch.tensor(-3.0), values, torch.arange(5.0).double()):
        assert off_by(small, to_go - baseline) < 1e-10
    q = torch.stack([mdp.action_values(small.world, after) for after in small.values[1:]])
    q = q[torch.arange(5), small.rollout.observations, small.rollout.actions]
    assert off_by(small, to_go - q) == pytest.approx(1)  # nothing is left of the gradient
    assert off_by(small, to_go - length) > 0.3


@pytest.mark.parametrize(("size", "horizon"), [(2, 3), (3, 2)])
def test_c31_the_batch_average_loses_one_nth_and_leave_one_out_nothing(size, horizon):
    p = listed(horizon)
    rows = torch.tensor(list(itertools.product(range(len(p.chance)), repeat=size)))
    groups = torch.arange(len(rows)).repeat_interleave(size)
    returns, mask = p.returns[rows.flatten()], p.mask[rows.flatten()]
    rollout = SimpleNamespace(
        observations=p.rollout.observations[rows.flatten()], actions=p.rollout.actions[rows.flatten()], mask=mask
    )
    share = p.chance[rows].prod(1).repeat_interleave(size) / size
    for baseline, part in ((pg.mean_baseline, 1 - 1 / size), (pg.leave_one_out, 1.0)):
        weights = (returns - baseline(returns, groups=groups))[:, None] * mask
        mean = share @ gradients(rollout, weights, p.pi)
        assert torch.allclose(mean, part * p.gradient, rtol=0, atol=1e-12)


def test_c31_the_best_constant_is_the_bottom_of_the_parabola(small):
    scores = gradients(small.rollout, small.mask.double(), small.pi)
    norms = scores.square().sum(1)
    below, at_zero, above = (mean_and_variance(small, (small.returns - b)[:, None])[1] for b in (-1.0, 0.0, 1.0))
    bottom = (below - above) / (2 * (below + above - 2 * at_zero))  # of the parabola through three points
    best = float(pg.optimal_baseline(small.chance * norms, small.returns))
    assert best == pytest.approx(bottom, abs=1e-9)
    mean_return = float(small.chance @ small.returns)
    assert abs(best - mean_return) > 0.01
    at_best, at_mean = (mean_and_variance(small, (small.returns - b)[:, None])[1] for b in (best, mean_return))
    assert at_best < at_mean < 0.5 * at_zero


def test_c31_the_order_of_the_variances(studies):
    names = ("total return", "reward-to-go", "leave-one-out", "value", "TD")
    steps = {"reward-to-go": (0.40, 0.46), "leave-one-out": (0.17, 0.22), "value": (0.8, 0.86), "TD": (0.03, 0.06)}
    found = studies["untrained"].batches
    for above, below in itertools.pairwise(names):
        low, high = ratio(found[above], found[below])
        assert steps[below][0] < low < high < steps[below][1], below
    assert ratio(studies["on its way"].batches["value"], studies["on its way"].batches["TD"])[1] < 0.4


def test_c31_only_the_batch_average_is_seen_to_be_biased(studies):
    found = studies["untrained"]
    for name, estimates in found.batches.items():
        spread = estimates.std(0) / len(estimates) ** 0.5
        z = ((estimates.mean(0) - found.gradient)[spread > 0] / spread[spread > 0]).abs().max()
        part = estimates @ found.gradient / found.gradient.square().sum()
        error = float(part.std()) / len(part) ** 0.5
        if name == "average":
            assert (
                float(part.mean()) == pytest.approx(1 - 1 / SIZE, abs=4 * error) and float(part.mean()) < 1 - 3 * error
            )
        else:
            assert z < 4.3 and float(part.mean()) == pytest.approx(1, abs=4 * error), name


# ---------------------------------------------------------------- C32


def test_c32_the_expected_value_of_the_start_is_the_objective():
    p = listed(4)
    start = torch.tensor([0.4, 0.3, 0.0, 0.2, 0.1, 0.0], dtype=torch.float64)
    anywhere = mdp.MDP(p.world.P, p.world.R, start)
    rollout, _, chance = mdp.enumerate_trajectories(anywhere, p.policy, 4)
    returns = pg.episode_returns(rollout.rewards, rollout.mask)
    assert float(start @ p.values[0]) == pytest.approx(float(chance @ returns), abs=1e-12)
    for state in start.nonzero()[:, 0]:
        here = rollout.observations[:, 0] == state
        assert float(chance[here] @ returns[here] / start[state]) == pytest.approx(float(p.values[0, state]), abs=1e-12)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(("step_reward", "lr"), [(-0.04, 0.12), (0.0, 0.1)])
def test_reinforce_with_a_baseline_reaches_95_percent_of_the_best_return_on_every_seed(step_reward, lr):
    world = GridWorld(step_reward=step_reward).to_mdp()
    goal = 0.95 * float(world.start @ mdp.value_iteration(world))

    def sample(policy, generator):
        return collect(world, policy, 32, horizon=HORIZON, generator=generator)

    def weigh(rollout, *_):
        returns = pg.episode_returns(rollout.rewards, rollout.mask)
        return (returns - pg.leave_one_out(returns))[:, None] * rollout.mask

    @torch.no_grad()
    def there(policy, history):
        return bool(mdp.objective(world, mdp.probabilities(world, policy), HORIZON) >= goal)

    for seed in range(10):
        policy = TabularPolicy(world.states, world.actions).double()
        train_policy(policy, sample, weigh, updates=90, lr=lr, seed=seed, until=there)
        assert there(policy, None), f"seed {seed}"
