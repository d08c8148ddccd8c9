"""Lesson 13: what came after the lecture, each as a weight of the one loss. Exact where all texts can be listed; on the
pocket LM a learned reward is fooled, and a KL penalty holds that off."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn.functional import cosine_similarity, logsigmoid

from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import exercise
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import completions
from ptlearn.optimization import score_actions, update
from ptlearn.pocket import tasks
from ptlearn.rl.enumeration import enumerate_texts
from ptlearn.rl.preferences import (
    RewardModel,
    best_of_n,
    best_of_n_kl,
    best_policy,
    fit_dpo,
    fit_reward_model,
    label_pairs,
    model_rewards,
)
from ptlearn.rl.tasks import Problem, Task
from ptlearn.rl.text_collection import attempt, collect_text, pay, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs
from ptlearn.statistics import over_seeds

pytestmark = pytest.mark.usefixtures("one_thread")
BETA = 0.2


# ---------------------------------------------------------------- a world of 80 texts


@cache
def listed(seed=0):
    """The reference, its texts (1 for each with a "c"), their log-probabilities, returns and prompts."""
    lm = toy_lm(["end", "a", "b", "c"], seed=seed)
    texts, _ = enumerate_texts(lm, ["a b", "c"], max_new_tokens=3)
    texts = pay(texts, [float("c" in text.split()) for text in completions(lm, texts)])
    groups = pg.prompt_groups(texts.observations, texts.mask)
    return lm, texts, texts.logprobs, pg.episode_returns(texts.rewards, texts.mask), groups


def chances(lm):
    logprobs = action_logprobs(lm, listed()[1])
    return logprobs.sum(1).exp() / 2, logprobs


def total():
    _, texts, *_ = listed()
    return pg.total_return(texts.rewards, texts.mask)


def with_returns(chance, _):
    return chance[:, None] * total()


def ascend(weigh, steps, lr=1e-2, begin=None):
    """Where the expected gradient of these weights leads, from the reference."""
    lm, mask = copy.deepcopy(begin or listed()[0]), listed()[1].mask
    adam = torch.optim.Adam(lm.parameters(), lr=lr)
    for _ in range(steps):
        chance, logprobs = chances(lm)
        weights = weigh(chance.detach(), logprobs.detach())
        adam.zero_grad()
        pg.policy_gradient_loss(logprobs, weights, mask, normalizer=1).backward()
        adam.step()
    return lm


@cache
def moved():
    """A policy on its way, its chances and log-probabilities with gradient, and the gradient of its KL by autograd."""
    _, _, known, _, _ = listed()
    lm = ascend(with_returns, steps=6)
    chance, logprobs = chances(lm)
    kl = (chance * (chance.log() - (known.sum(1).exp() / 2).log())).sum()
    return lm, chance, logprobs, kl, slope(lm, kl)


def slope(lm, value):
    parts = torch.autograd.grad(value, list(lm.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def expected(weights):
    """The mean gradient that weights (80, T) have at the moved policy."""
    lm, chance, logprobs, _, _ = moved()
    return slope(lm, (chance.detach()[:, None] * weights * logprobs).sum())


def estimates():
    _, texts, known, _, _ = listed()
    return pg.kl_estimates(moved()[2], known, texts.mask)


# ---------------------------------------------------------------- group names


def test_dr_grpo_is_rloo_but_for_a_factor_and_grpo_forgets_the_scale_of_a_group():
    rewards = torch.tensor([1.0, 3.0, 8.0, 0.1, 0.3, 0.8], dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    rloo = rewards - pg.leave_one_out(rewards, groups=groups)
    assert torch.allclose(rewards - pg.mean_baseline(rewards, groups=groups), rloo * 2 / 3, atol=1e-12)
    scaled = pg.standardized(rewards, groups)
    assert torch.allclose(scaled[:3], scaled[3:], atol=1e-5) and not torch.allclose(rloo[:3], rloo[3:], atol=1.0)


def test_ppo_begins_as_its_advantages_and_is_the_min_clip_form_afterwards():
    lm, _, logprobs, _, _ = moved()
    _, texts, known, returns, groups = listed()
    advantages = (returns - pg.leave_one_out(returns, groups=groups))[:, None] * texts.mask
    first = pg.clipped_weights(pg.step_ratio(known, known, texts.mask), advantages)
    assert torch.allclose(first, advantages, atol=1e-12)
    weights = pg.clipped_weights(pg.step_ratio(logprobs, known, texts.mask), advantages)
    loss = pg.policy_gradient_loss(logprobs, weights, texts.mask)
    ratio = torch.where(texts.mask, logprobs - known, 0).exp()
    least = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    gap = (slope(lm, loss) - slope(lm, -least.sum() / len(least))).abs().max()
    assert gap <= 1e-7 < 1e-3 < slope(lm, loss).abs().max()
    assert ((weights == 0) & (advantages != 0)).any()


# ---------------------------------------------------------------- where the ratio lives


@cache
def recipes(seed, lr):
    """Of each name the cosine with grad J and the component along it, one step of that size from the sampler."""
    first, texts, _, returns, two = listed(seed)
    mask, lengths = texts.mask, texts.mask.sum(1, keepdim=True)

    def told(lm):
        logprobs = action_logprobs(lm, texts)
        return logprobs.sum(1).exp() / 2, logprobs

    def climbed(lm, steps, lr):
        lm = copy.deepcopy(lm)
        adam = torch.optim.Adam(lm.parameters(), lr=lr)
        for _ in range(steps):
            chance, _ = told(lm)
            adam.zero_grad()
            (-chance @ returns).backward()
            adam.step()
        return lm

    sampler = climbed(first, 2, 1e-2)
    lm = climbed(sampler, 1, lr) if lr else sampler
    (mu, before), (chance, logprobs) = (tuple(x.detach() for x in told(sampler)), told(lm))
    within = 2 * (two[:, None] == two) * mu
    mean = within @ returns
    spread = (within @ returns**2 - mean**2).sqrt()[:, None]
    A = (returns - mean)[:, None] * mask
    rho, whole = pg.step_ratio(logprobs, before, mask), pg.trajectory_ratio(logprobs, before, mask)
    s = torch.where(mask, whole ** (1 / lengths), 0)
    weights = {
        "trajectory": whole * A, "token": rho * A, "PPO": pg.clipped_weights(rho, A),
        "GRPO": pg.clipped_weights(rho, A / spread) / lengths, "GSPO": pg.clipped_weights(s, A / spread) / lengths,
        "CISPO": rho.clamp(0.8, 1.2) * A / spread,
    }  # fmt: skip
    true = slope(lm, chance @ returns)
    found = {name: slope(lm, (mu[:, None] * w * logprobs).sum()) for name, w in weights.items()}
    return {name: (float(cosine_similarity(g, true, 0)), float(g @ true / (true @ true))) for name, g in found.items()}


@pytest.mark.parametrize("seed", range(10))
def test_at_the_first_step_the_place_of_the_ratio_does_not_matter_and_the_divisors_do(seed):
    fresh, far = recipes(seed, 0.0), recipes(seed, 1e-2)
    for name in ("trajectory", "token", "PPO"):
        assert fresh[name] == pytest.approx((1, 1), abs=1e-9)
    assert fresh["GRPO"] == pytest.approx(fresh["GSPO"], abs=1e-9) and fresh["GRPO"][0] < 0.995  # lengths turn it
    assert fresh["CISPO"][0] >= fresh["GRPO"][0] and fresh["CISPO"][1] > 1.5  # the deviation makes it longer
    assert far["trajectory"] == pytest.approx((1, 1), abs=1e-9)  # unbiased wherever
    assert 0.8 < far["token"][0] < 1 - 1e-6


def test_a_clip_takes_most_of_the_direction_away_and_a_stopped_gradient_keeps_it():
    """On average over ten worlds: in one of them it is the other way round."""
    far = [recipes(seed, 1e-2) for seed in range(10)]
    cosines = {name: [world[name][0] for world in far] for name in far[0]}
    means = {name: sum(each) / len(each) for name, each in cosines.items()}
    assert max(means[name] for name in ("PPO", "GRPO", "GSPO")) < 0.3 < 0.85 < means["CISPO"] < means["token"], means
    for name in ("PPO", "GRPO", "GSPO"):
        assert sum(x < y for x, y in zip(cosines[name], cosines["CISPO"], strict=True)) >= 9
        assert min(cosines[name]) < 0  # what is left may even point back


def test_to_drop_equal_groups_and_refill_divides_the_gradient_by_the_share_of_the_others():
    """All groups of two completions of a prompt, exactly: their mean gradient, and that of those that are not equal."""
    for steps in (0, 4, 8):
        lm = ascend(with_returns, steps)
        _, texts, _, returns, two = listed()
        chance, logprobs = chances(lm)
        pairs = 2 * (two[:, None] == two) * (chance[:, None] * chance).detach()  # sums to 1
        unequal = returns[:, None] != returns
        A = (returns[:, None] - returns) / 2  # of the first one, minus the mean of both

        def mean(often):
            return slope(lm, ((often * A).sum(1)[:, None] * logprobs * texts.mask).sum())  # noqa: B023

        share = float((pairs * unequal).sum())
        kept = mean(pairs * unequal / share)
        assert 0 < share < 0.6
        assert torch.allclose(kept, mean(pairs) / share, atol=1e-12)
        assert torch.allclose(2 * mean(pairs), slope(lm, chance @ returns), atol=1e-9)


def toy_learned(seed, high):
    """The entropy after eight rollouts with four epochs each, and the exact J."""
    lm = copy.deepcopy(listed()[0])
    problems = tuple(Problem(prompt, lambda text: float("c" in text.split())) for prompt in ("a b", "c"))
    toy = Task("toy", problems, (), max_new_tokens=3, stop=(), chat=False)

    def weigh(rollout, _, __, logprobs):
        won, groups = (
            pg.episode_returns(rollout.rewards, rollout.mask),
            pg.prompt_groups(rollout.observations, rollout.mask),
        )
        A = (won - pg.mean_baseline(won, groups=groups))[:, None] * rollout.mask
        return pg.clipped_weights(pg.step_ratio(logprobs, rollout.logprobs, rollout.mask), A, epsilon_high=high)

    history = train_policy(lm, text_collector(toy, prompts=2, group=8), weigh, updates=8, lr=1e-2, epochs=4,
                           clip_norm=1.0, seed=seed)  # fmt: skip
    return history.entropy[-1], float(chances(lm)[0].detach() @ listed()[3])


def test_clip_higher_makes_no_difference_to_entropy_that_five_seeds_could_show_here():
    runs = [[toy_learned(seed, high) for seed in range(5)] for high in (0.2, 0.28)]
    entropy = [[e for e, _ in each] for each in runs]
    gap = over_seeds([high - low for low, high in zip(*entropy, strict=True)])
    assert gap.low < 0 < gap.high or abs(gap.mean) < 0.1
    assert max(e for each in entropy for e in each) < 1.0  # from 1.05: it falls with both
    assert min(J for each in runs for _, J in each) > 0.9


# ---------------------------------------------------------------- the penalty and its place


def test_k1_and_k3_have_the_kl_as_their_mean_and_k2_has_not():
    _, chance, _, kl, _ = moved()
    means = {name: float(chance.detach() @ each.sum(1)) for name, each in estimates()._asdict().items()}
    assert means["k1"] == pytest.approx(float(kl.detach()), abs=1e-9)
    assert means["k3"] == pytest.approx(float(kl.detach()), abs=1e-9)
    assert means["k2"] - float(kl.detach()) > 0.1
    assert float(estimates().k3.min()) >= 0


def test_only_k1_in_the_rewards_has_the_gradient_of_the_kl_and_k3_needs_both_places():
    _, texts, known, _, _ = listed()
    _, _, logprobs, _, exact = moved()
    k, mask = estimates(), texts.mask
    for weights in (pg.total_return(k.k1, mask), pg.reward_to_go(k.k1, mask)):
        assert float((expected(weights) - exact).norm() / exact.norm()) <= 1e-9
    assert float(expected(1.0 * mask).norm() / exact.norm()) <= 1e-12  # k1 in the loss
    in_the_rewards, slope_of_k3 = pg.total_return(k.k3, mask), (1 - (known - logprobs.detach()).exp()) * mask
    assert float(cosine_similarity(expected(in_the_rewards), exact, 0)) < 0
    assert float((expected(in_the_rewards + slope_of_k3) - exact).norm() / exact.norm()) <= 1e-9
    assert float(cosine_similarity(expected(pg.total_return(k.k2, mask)), exact, 0)) < 0.6
    for in_the_loss in (k.k1, slope_of_k3):  # k2, k3
        assert 0.8 < float(cosine_similarity(expected(in_the_loss), exact, 0)) < 0.999


def test_the_lab_runs_do_what_their_hints_say():
    """The mean gradient of each run's loss over all texts, against that of J - beta KL."""
    _, texts, known, returns, _ = listed()
    lm, chance, logprobs, _, grad_kl = moved()
    goal = slope(lm, (chance * returns).sum()) - BETA * grad_kl
    off = {}
    for name, run in exercise("13.14").runs.items():
        leaf = logprobs.detach().clone().requires_grad_()
        (down,) = torch.autograd.grad(run(leaf, known, texts.rewards, texts.mask), leaf)
        off[name] = float((expected(-len(chance) * down) - goal).norm() / goal.norm())
    assert off.pop("right") <= 1e-9
    assert min(off.values()) > 0.01, off


# ---------------------------------------------------------------- the best policy, and two ways to it


def account(lm):
    """J and KL of a policy, exactly."""
    _, _, known, returns, _ = listed()
    with torch.no_grad():
        chance, logprobs = chances(lm)
    return float(chance @ returns), float(chance @ (logprobs - known).sum(1))


@cache
def closed_form():
    _, _, known, returns, groups = listed()
    drawn, best = known.sum(1).exp(), torch.empty_like(returns)
    for prompt in (0, 1):
        rows = groups == prompt
        best[rows] = best_policy(drawn[rows], returns[rows], beta=BETA) / 2
    return best


def highest():
    """The most that J - beta KL can be: beta times the log of the mean of exp(r / beta), over the reference."""
    _, _, known, returns, groups = listed()
    drawn = known.sum(1).exp()
    return sum(BETA * float((drawn * (returns / BETA).exp())[groups == x].sum().log()) / 2 for x in (0, 1))


def distance(lm):
    return float((chances(lm)[0].detach() - closed_form()).abs().sum() / 2)


def test_rl_with_the_penalty_goes_to_the_closed_form_and_without_it_past():
    _, texts, known, _, _ = listed()

    def penalized(chance, logprobs):
        k1 = pg.kl_estimates(logprobs, known, texts.mask).k1
        return chance[:, None] * pg.total_return(texts.rewards - BETA * k1, texts.mask)

    J, kl = account(lm := ascend(penalized, 200))
    assert highest() - 0.015 < J - BETA * kl < highest() and distance(lm) < 0.1 < 0.5 < distance(listed()[0])
    J, kl = account(ascend(lambda chance, _: chance[:, None] * pg.total_return(texts.rewards, texts.mask), 60))
    assert J > 0.99 and J - BETA * kl < highest() - 0.2


def test_dpo_on_all_pairs_goes_to_the_closed_form():
    _, texts, known, returns, groups = listed()
    first, second = (groups[:, None] == groups).nonzero().T
    often = known.sum(1).exp()[first] * known.sum(1).exp()[second] * torch.sigmoid(returns[first] - returns[second])
    often = often / often.sum()

    lm = copy.deepcopy(listed()[0])
    adam = torch.optim.Adam(lm.parameters(), lr=1e-2)
    for _ in range(300):
        ratios = (chances(lm)[1] - known).sum(1)
        adam.zero_grad()
        (-often * logsigmoid(BETA * (ratios[first] - ratios[second]))).sum().backward()
        adam.step()
    J, kl = account(lm)
    assert highest() - 0.015 < J - BETA * kl < highest() and distance(lm) < 0.1


def test_the_best_of_n_pays_less_kl_than_its_bound_and_no_point_lies_above_the_frontier():
    _, _, known, returns, groups = listed()
    drawn = known.sum(1).exp()
    for n in (2, 4, 8, 16):
        J = kl = 0.0
        for prompt in (0, 1):
            p, r = drawn[groups == prompt], returns[groups == prompt]
            q = best_of_n(p, r, n)
            J += float(q @ r) / 2
            kl += float((q * (q / p).log())[q > 0].sum()) / 2
        assert 0 < kl < best_of_n_kl(n)
        for beta in (0.05, 0.1, 0.2, 0.5, 1.0):  # what no distribution surpasses
            top = sum(beta * float((drawn * (returns / beta).exp())[groups == x].sum().log()) / 2 for x in (0, 1))
            assert J - beta * kl <= top + 1e-9


# ---------------------------------------------------------------- the pocket LM: praise, judged and learned

TASK = replace(tasks.sentiment(), max_new_tokens=20)
SHORT = replace(TASK, max_new_tokens=10)
SEEDS = range(5)


@cache
def base():
    return load_lm("pocket-s")


def judged(lm, samples=4):
    """The true reward on the held-out openings."""
    rollout = attempt(TASK, lm, [problem for problem in TASK.held_out for _ in range(samples)], seed=5)
    return float(rollout.rewards.sum(1).mean())


@cache
def start():
    return judged(base(), samples=16)


@cache
def reward_model(seed):
    """A model of praise from pairs of short completions, a tenth of them labelled wrongly; and the pairs."""
    generator = torch.Generator().manual_seed(1000 + seed)
    shown, _ = collect_text(SHORT, base(), prompts=24, group=6, generator=generator)
    pairs = label_pairs(shown, error_rate=0.1, seed=seed)
    model = RewardModel(copy.deepcopy(base()))
    fit_reward_model(model, pairs, epochs=3, lr=2e-3, seed=seed)
    return model, pairs


@cache
def learned(seed, beta):
    """What a policy was paid in the first and the last three updates, and what it is worth."""
    lm, generator = copy.deepcopy(base()), torch.Generator().manual_seed(seed)
    adam, paid = torch.optim.Adam(lm.parameters(), lr=1e-3 if beta else 1.5e-3), []
    for _ in range(10):
        rollout, _ = collect_text(TASK, lm, prompts=4, group=4, generator=generator)
        rollout = pay(rollout, model_rewards(reward_model(seed)[0], rollout))
        won, groups = rollout.rewards.sum(1), torch.arange(4).repeat_interleave(4)
        paid.append(float(won.mean()))
        if beta:
            known, _ = score_actions(base(), rollout)
            won = won - beta * pg.kl_estimates(rollout.logprobs, known, rollout.mask).k1.sum(1)
        weights = (won - pg.mean_baseline(won, groups=groups))[:, None] * rollout.mask
        update(lm, adam, rollout, weights)
    return sum(paid[:3]) / 3, sum(paid[-3:]) / 3, judged(lm)


def test_against_a_reward_model_the_true_reward_falls_while_the_models_rises():
    runs = [learned(seed, 0.0) for seed in SEEDS]
    assert all(last > first for first, last, _ in runs), runs
    assert all(worth < start() - 0.03 for *_, worth in runs), runs
    assert sum(worth for *_, worth in runs) / len(runs) < 0.6 * start(), runs


def test_a_kl_penalty_holds_that_off():
    ends = [learned(seed, 0.5)[2] for seed in SEEDS]
    assert all(end > learned(seed, 0.0)[2] + 0.05 for seed, end in zip(SEEDS, ends, strict=True)), ends
    assert over_seeds(ends).mean > start() + 0.05, ends


@cache
def preferred(seed):
    """DPO on the same pairs: the true reward after two epochs, and by how much log pi of the chosen and of the rejected
    completions has changed then, and after one more with larger steps."""
    lm, pairs, seen = copy.deepcopy(base()), reward_model(seed)[1], []
    before, _ = score_actions(base(), pairs.rollout)
    for epochs, lr in ((2, 1e-4), (1, 5e-4)):
        fit_dpo(lm, pairs, reference=base(), beta=0.1, epochs=epochs, lr=lr, seed=seed)
        seen += [] if seen else [judged(lm)]
        change = (score_actions(lm, pairs.rollout)[0] - before).sum(1)
        seen.append([float(change[rows].mean()) for rows in (pairs.chosen, pairs.rejected)])
    return seen


def test_dpo_learns_from_the_same_pairs_and_lowers_the_rejected_more_than_it_raises_the_chosen():
    ends = [preferred(seed)[0] for seed in SEEDS]
    assert min(ends) > start() and over_seeds(ends).mean > start() + 0.1, ends
    for up, down in (preferred(seed)[1] for seed in SEEDS):
        assert down < -1 and up - down > 1 and abs(up) < -down, (up, down)


def test_dpo_for_long_lowers_the_chosen_ones_too():
    for up, down in (preferred(seed)[2] for seed in SEEDS):
        assert down < up - 5 and up < -0.2, (up, down)


def test_the_best_of_n_by_a_reward_model_rises_and_does_not_fall():
    pool = attempt(TASK, base(), [problem for problem in TASK.held_out for _ in range(16)], seed=6)
    truths = pool.rewards.sum(1).view(-1, 16)
    even, curves = torch.full((16,), 1 / 16), []
    for seed in SEEDS:
        scores = model_rewards(reward_model(seed)[0], pool).view(-1, 16)
        curves.append([sum(float(best_of_n(even, s, n) @ t) for s, t in zip(scores, truths, strict=True)) / len(truths)
                       for n in (1, 4, 16)])  # fmt: skip
    one, four, sixteen = (over_seeds(column) for column in zip(*curves, strict=True))
    assert one.mean + 0.05 < four.mean < sixteen.mean + 0.05
