"""C25 to C28 on small worlds: REINFORCE estimates the exact gradient, learns from outcomes, is weighted imitation."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from ptlearn.course.exercise import exercises, judge
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.policy_gradient import discounts, episode_returns, policy_gradient_loss, total_return
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs, check_behavior

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


def trained(world, weigh, seed, updates=100):
    policy = TabularPolicy(world.states, world.actions)

    def sample(policy, generator):
        return collect(world, policy, 64, horizon=LIMIT, generator=generator)

    train_policy(policy, sample, weigh, updates=updates, gamma=GAMMA, seed=seed)
    return policy


def test_c27_reinforce_learns_from_outcomes_up_to_the_best_policy(world):
    assert share_of_best(world, TabularPolicy(world.states, world.actions)) < 0
    assert all(share_of_best(world, trained(world, outcomes, seed)) > 0.95 for seed in range(4))


def test_c27_crediting_only_the_step_that_is_paid_does_not(world):
    def own_reward(rollout, *_):
        return discounts(rollout.mask, gamma=GAMMA).to(rollout.rewards) * rollout.rewards

    assert share_of_best(world, trained(world, own_reward, 0)) < 0.3


def test_the_loss_rises_while_the_agent_improves(world):
    policies = [TabularPolicy(world.states, world.actions), trained(world, outcomes, 0, updates=30)]
    losses = []
    for policy in policies:
        rollout, _ = collect(world, policy, 2000, horizon=LIMIT, generator=seeded(0))
        loss = policy_gradient_loss(action_logprobs(policy, rollout), outcomes(rollout), rollout.mask)
        losses.append(loss.item())
    assert share_of_best(world, policies[1]) > share_of_best(world, policies[0]) + 0.3
    assert losses[1] > losses[0] + 2


def test_c28_reinforce_is_supervised_learning_on_own_episodes_weighted_by_return(world):
    policy = random_policy(world, 4)
    own, _ = collect(world, policy, 200, horizon=LIMIT, generator=seeded(4))
    returns = episode_returns(own.rewards, own.mask, gamma=GAMMA)
    logits = policy(own.observations)
    per_step = cross_entropy(logits.flatten(0, 1), own.actions.flatten(), reduction="none").view_as(own.mask)
    supervised = (returns[:, None] * per_step)[own.mask].sum() / len(returns)
    logprobs = action_logprobs(policy, own)
    reinforced = policy_gradient_loss(logprobs, outcomes(own), own.mask)
    assert relative_error(gradient(supervised, policy), gradient(reinforced, policy)) < 1e-12

    # returns of 0 and 1 are a filter: parallel to finetuning on the successes, by steps of successes / episodes
    success = returns > 0
    assert 5 < success.sum() < 195
    filtered = gradient(per_step[success][own.mask[success]].mean(), policy)
    weights = success[:, None] * own.mask * torch.ones_like(own.rewards)
    binary = gradient(policy_gradient_loss(logprobs, weights, own.mask), policy)
    assert relative_error(filtered * own.mask[success].sum() / len(success), binary) < 1e-12


def test_c28_filtered_finetuning_learns_and_does_not_hurry(world):
    """Weights of 0 and 1 cannot tell a quick success from a slow one."""

    def successes(rollout, *_):
        return (outcomes(rollout) > 0).to(rollout.rewards)

    share = share_of_best(world, trained(world, successes, 0))
    assert 0.3 < share < 0.9 < share_of_best(world, trained(world, outcomes, 0))


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
        for seed in range(4):
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


# ---------------------------------------------------------------- the lab


def losses_of(bug, policy, rollout):
    """One loss per episode, as the lesson's runs have them."""
    logprobs, weights = action_logprobs(policy, rollout), outcomes(rollout)
    if bug == "own reward":
        weights = discounts(rollout.mask, gamma=GAMMA) * rollout.rewards
    if bug == "padding":
        logprobs = policy(rollout.observations).log_softmax(-1).gather(-1, rollout.actions[..., None])[..., 0]
        weights = episode_returns(rollout.rewards, rollout.mask, gamma=GAMMA)[:, None].expand_as(logprobs)
    if bug == "no log":
        logprobs = logprobs.exp() * rollout.mask
    return -(weights * logprobs).sum(1)


def test_each_silent_bug_has_the_symptom_that_its_diagnosis_names():
    small = GridWorld("small").to_mdp(GAMMA)
    uniform, later = TabularPolicy(small.states, small.actions).double(), random_policy(small, 5)

    def expected(bug, now, collects):
        rollout, _, p = mdp.enumerate_trajectories(small, collects, 5)
        return -gradient((p * losses_of(bug, now, rollout)).sum(), now)

    exact = {now: mdp.exact_gradient(small, now, 5).view_as(now.logits) for now in (uniform, later)}
    for now, truth in exact.items():
        assert relative_error(expected("none", now, now), truth) < 1e-10
        own, padded = expected("own reward", now, now), expected("padding", now, now)
        assert own[0].abs().max() == own[3].abs().max() == 0 and truth[0].abs().max() > 0.01
        wrong = (padded - truth).abs().amax(1) > 1e-9
        assert wrong.nonzero().flatten().tolist() == [0]
    assert relative_error(4 * expected("no log", uniform, uniform), exact[uniform]) < 1e-10
    assert relative_error(4 * expected("no log", later, later), exact[later]) > 0.1
    assert relative_error(expected("none", later, uniform), exact[later]) > 0.1  # reused rollouts
    rollout, _ = collect(small, uniform, 100, horizon=5, generator=seeded(0))
    with pytest.raises(ValueError, match="logprobs are off"):
        check_behavior(later, rollout)


def test_every_suspect_of_the_lesson_has_a_diagnosis():
    lesson = Path(__file__).parents[1] / "lessons" / "08_reinforce.py"
    suspects = re.findall(r"^# \| `(.+?)` \|", lesson.read_text(encoding="utf-8"), re.MULTILINE)
    lab = exercises(8)["8.6"]
    assert len(suspects) == 9 and set(lab.reference.values()) < set(suspects)
    for run in lab.reference:
        for suspect in suspects:
            verdict = judge(lab, lab.reference | {run: suspect})
            right = suspect == lab.reference[run]
            assert verdict.status == ("PASS" if right else "FAIL")
            assert right or verdict.diagnosis.startswith(f"{run}: '{suspect}' would")
