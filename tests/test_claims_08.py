"""C25 to C28 on small worlds: REINFORCE estimates the exact gradient, learns from outcomes, is weighted imitation."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from ptlearn.course.exercise import exercises
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.policy_gradient import discounts, episode_returns, leave_one_out, policy_gradient_loss, total_return
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs

GAMMA, LIMIT = 0.95, 50


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_policy(world, seed):
    policy = TabularPolicy(world.states, world.actions).double()
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=seeded(seed)))
    return policy


def outcomes(rollout, *_, gamma=GAMMA):
    return total_return(rollout.rewards, rollout.mask, gamma=gamma)


def gradient(loss, policy):
    return torch.autograd.grad(loss, policy.logits, retain_graph=True)[0]


def relative_error(found, exact):
    return float((found - exact).norm() / exact.norm())


# ---------------------------------------------------------------- C26


@pytest.mark.parametrize(("gamma", "seed"), [(1.0, 0), (0.9, 1)])
def test_c26_the_expected_gradient_of_the_loss_is_the_exact_one(gamma, seed):
    world = GridWorld("small", slip=0.2).to_mdp(gamma)
    policy = random_policy(world, seed)
    every, _, p = mdp.enumerate_trajectories(world, policy, 4)
    exact = mdp.exact_gradient(world, policy, 4).view_as(policy.logits)
    logprobs, weights = action_logprobs(policy, every), p[:, None] * outcomes(every, gamma=gamma)
    found = -gradient(policy_gradient_loss(logprobs, weights, every.mask, normalizer=1), policy)
    assert relative_error(found, exact) < 1e-10
    # and a test that nothing fails would show nothing
    own = p[:, None] * every.rewards
    assert relative_error(-gradient(policy_gradient_loss(logprobs, own, every.mask, normalizer=1), policy), exact) > 0.1
    assert relative_error(gradient((p * (logprobs.exp() * weights).sum(1)).sum(), policy), exact) > 0.1


def test_c26_the_dynamics_drop_out_of_the_gradient_and_not_of_the_probability():
    world = GridWorld("small", slip=0.2).to_mdp()
    policy = random_policy(world, 2)
    every, final, p = mdp.enumerate_trajectories(world, policy, 3)
    after = torch.cat([every.observations[:, 1:], final[:, None]], 1)
    after[torch.arange(len(after)), every.mask.sum(1) - 1] = final
    moves = world.P[every.observations, every.actions, after].log().where(every.mask, torch.zeros(()).double())
    chosen = action_logprobs(policy, every).sum(1)
    whole = world.start[every.observations[:, 0]].log() + chosen + moves.sum(1)
    assert torch.allclose(whole.exp(), p, atol=1e-14)
    assert float((whole - chosen).detach().abs().max()) > 1
    for row in range(0, len(p), 50):
        assert torch.equal(gradient(whole[row], policy), gradient(chosen[row], policy))


@pytest.fixture(scope="module")
def sampled():
    """Gradients of 100,000 single episodes by the closed form of the score, and the exact one: (100000, P), (P,)."""
    world = GridWorld("small", slip=0.2).to_mdp()
    policy = random_policy(world, 3)
    rollout, _ = collect(world, policy, 100_000, horizon=5, generator=seeded(3))
    weights = outcomes(rollout, gamma=1.0)
    taken = torch.zeros(len(weights), world.states, world.actions, dtype=torch.float64)
    rows = torch.arange(len(weights))[:, None].expand_as(weights)
    taken.index_put_((rows, rollout.observations, rollout.actions), weights, accumulate=True)
    scores = taken - taken.sum(-1, keepdim=True) * mdp.probabilities(world, policy).detach()
    loss = policy_gradient_loss(action_logprobs(policy, rollout), weights, rollout.mask)
    assert torch.allclose(-gradient(loss, policy), scores.mean(0), atol=1e-12)
    acting = ~world.terminal
    exact = mdp.exact_gradient(world, policy, 5).view_as(policy.logits)
    return scores[:, acting].flatten(1), exact[acting].flatten(), rollout.mask.sum(1).double()


def largest_z(estimates, exact):
    return float(((estimates.mean(0) - exact) / (estimates.std(0) / math.sqrt(len(estimates)))).abs().max())


def test_c26_by_sampling_the_mean_is_the_exact_gradient(sampled):
    episodes, exact, steps = sampled
    estimates = episodes.view(10_000, 10, -1).mean(1)
    threshold = float(torch.special.ndtri(torch.tensor(1 - 0.01 / len(exact) / 2)))
    assert largest_z(estimates, exact) < threshold
    assert float(torch.cosine_similarity(estimates.mean(0), exact, dim=0)) > 0.995
    per_step = estimates * 10 / steps.view(10_000, 10).sum(1, keepdim=True)
    assert largest_z(per_step, exact) > 2 * threshold  # another normalizer is another length
    assert largest_z(10 * estimates, exact) > 2 * threshold


def test_c26_the_error_falls_with_the_root_of_the_number_of_episodes(sampled):
    episodes, exact, _ = sampled
    sizes, errors = (4, 16, 64, 256), []
    for size in sizes:
        means = episodes[: len(episodes) // size * size].view(-1, size, len(exact)).mean(1)
        errors.append(float((means - exact).pow(2).sum(1).mean().sqrt()))
    slopes = [math.log(b / a) / math.log(4) for a, b in zip(errors, errors[1:])]
    assert all(-0.55 < slope < -0.45 for slope in slopes)


# ---------------------------------------------------------------- C27, C28


@pytest.fixture(scope="module")
def world():
    return GridWorld("default").to_mdp(GAMMA)


def share_of_best(world, policy):
    best = world.start @ mdp.value_iteration(world)
    return float(mdp.objective(world, mdp.probabilities(world, policy).detach(), LIMIT) / best)


def trained(world, weigh, seed):
    """A policy after 100 updates of the lesson's loop, and its losses."""
    policy, source, losses = TabularPolicy(world.states, world.actions), seeded(seed), []

    def sample(now):
        return collect(world, now, 64, horizon=LIMIT, generator=source)[0]

    exercises(8)["8.9"].reference(policy, sample, weigh, 100, 0.1, lambda _, loss: losses.append(loss))
    return policy, losses


def returns(rewards, mask):
    return total_return(rewards, mask, gamma=GAMMA)


@pytest.fixture(scope="module")
def learners(world):
    return [trained(world, returns, seed) for seed in range(5)]


def test_c27_reinforce_learns_from_outcomes_up_to_the_best_policy(world, learners):
    assert share_of_best(world, TabularPolicy(world.states, world.actions)) < 0
    assert all(share_of_best(world, policy) > 0.95 for policy, _ in learners)


def test_c27_crediting_only_the_step_that_is_paid_does_not(world):
    def own_reward(rewards, mask):
        return discounts(mask, gamma=GAMMA).to(rewards) * rewards

    assert share_of_best(world, trained(world, own_reward, 0)[0]) < 0.3


def test_the_loss_rises_while_the_agent_improves(learners):
    for _, losses in learners:
        assert sum(losses[10:40]) / 30 > losses[0] + 2  # while it improves most
        assert sum(losses[-20:]) / 20 > losses[0] + 1


def test_c28_reinforce_is_supervised_learning_on_own_episodes_weighted_by_return(world):
    policy = random_policy(world, 4)
    own, _ = collect(world, policy, 200, horizon=LIMIT, generator=seeded(4))
    outcome = episode_returns(own.rewards, own.mask, gamma=GAMMA)
    logits = policy(own.observations)
    per_step = cross_entropy(logits.flatten(0, 1), own.actions.flatten(), reduction="none").view_as(own.mask)
    supervised = (outcome[:, None] * per_step)[own.mask].sum() / len(outcome)
    logprobs = action_logprobs(policy, own)
    reinforced = policy_gradient_loss(logprobs, outcomes(own), own.mask)
    assert relative_error(gradient(supervised, policy), gradient(reinforced, policy)) < 1e-12

    # returns of 0 and 1 are a filter: parallel to finetuning on the successes, by steps of successes / episodes
    success = outcome > 0
    assert 5 < success.sum() < 195
    filtered = gradient(per_step[success][own.mask[success]].mean(), policy)
    weights = success[:, None] * own.mask * torch.ones_like(own.rewards)
    binary = gradient(policy_gradient_loss(logprobs, weights, own.mask), policy)
    assert relative_error(filtered * own.mask[success].sum() / len(success), binary) < 1e-12


def test_c28_filtered_finetuning_learns_and_does_not_hurry(world):
    """Weights of 0 and 1 cannot tell a quick success from a slow one."""

    def successes(rewards, mask):
        return (rewards.sum(1, keepdim=True) > 0) * mask.to(rewards)

    assert all(0.3 < share_of_best(world, trained(world, successes, seed)[0]) < 0.9 for seed in range(5))


# ---------------------------------------------------------------- C25


def corridor(cells):
    return GridWorld(["S" + "." * (cells - 1) + "G"]).to_mdp()


def test_c25_without_a_success_there_is_no_gradient():
    world = corridor(10)
    policy = TabularPolicy(world.states, world.actions)
    rollout, _ = collect(world, policy, 64, horizon=9, generator=seeded(0))  # too short to arrive
    loss = policy_gradient_loss(action_logprobs(policy, rollout), outcomes(rollout), rollout.mask)
    assert torch.equal(gradient(loss, policy), torch.zeros_like(policy.logits))


def test_c25_distance_multiplies_the_episodes_that_are_needed():
    needed, waits = {}, {}
    for cells in (4, 8, 11):
        world = corridor(cells)
        uniform = torch.full((world.states, 4), 0.25, dtype=torch.float64)
        waits[cells] = 1 / float(mdp.objective(world, uniform, 20))
        found = []
        for seed in range(5):
            history = train_policy(
                TabularPolicy(world.states, 4),
                lambda policy, generator, world=world: collect(world, policy, 64, horizon=20, generator=generator),
                lambda rollout, *_: outcomes(rollout, gamma=1.0),
                updates=1000,
                seed=seed,
                until=lambda policy, _, world=world: (
                    mdp.objective(world, mdp.probabilities(world, policy).detach(), 20) >= 0.95
                ),
            )
            found.append(history.episodes[-1])
        needed[cells] = math.exp(sum(map(math.log, found)) / len(found))
    assert needed[8] < 3 * needed[4]  # with successes in every batch, about in proportion
    assert needed[11] > 1.8 * needed[8] and needed[11] / needed[8] > needed[8] / needed[4]
    assert waits[8] > 15 * waits[4] and waits[11] > 25 * waits[8]


def test_c25_subtracting_what_the_others_got_takes_the_noise_of_paying_along_the_way():
    """At 8 cells, from 5 seeds: paid along the way needs more episodes than at the star, without the mean fewer."""
    sparse = corridor(8)
    place = torch.arange(9) / 8
    dense = mdp.MDP(sparse.P, (place - place[:, None])[:, None].expand_as(sparse.P), sparse.start)

    def against_the_others(rewards, mask):
        weights = total_return(rewards, mask)
        return (weights - leave_one_out(weights[:, 0])[:, None]) * mask

    def solved(now, _):
        return mdp.objective(sparse, mdp.probabilities(sparse, now).detach(), 20) >= 0.95

    def needed(paying, weigh, seed):
        policy, source = TabularPolicy(sparse.states, 4), seeded(seed)

        def sample(now):
            return collect(paying, now, 64, horizon=20, generator=source)[0]

        return exercises(8)["8.9"].reference(policy, sample, weigh, 200, 0.1, solved)

    for seed in range(5):
        along = needed(dense, total_return, seed)
        assert along > 1.2 * needed(sparse, total_return, seed)
        assert along > 1.2 * needed(dense, against_the_others, seed)
