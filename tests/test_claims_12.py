"""C28 and C39 to C41: tokens are actions. Exact on a transformer whose texts can be listed; the pocket LM
learns sums from right and wrong alone."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy, pad

from ptlearn import policy_gradient as pg
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import render_all
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import completions
from ptlearn.pocket import assistant, tasks
from ptlearn.rl.enumeration import enumerate_texts, exact_text_gradient
from ptlearn.rl.tasks import pass_at_k
from ptlearn.rl.text_collection import attempt, collect_text, pay, sampled_scores, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs, check_behavior, distinct_rows, take_rows

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = tasks.arithmetic(largest=50)


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def cosine(a, b):
    return float(a @ b / a.norm() / b.norm())


# ---------------------------------------------------------------- C39: the exact gradient of a transformer


@cache
def listed():
    """Six words, four steps: the model, its texts with a reward for every c, their probabilities, exact grad J."""
    toy = toy_lm(["end", "a", "b", "c", "d", "e"], seed=3)
    texts, chance = enumerate_texts(toy, ["b a", "c"], max_new_tokens=4)
    texts = pay(texts, [text.split().count("c") - 0.5 * text.split().count("a") for text in completions(toy, texts)])
    return toy, texts, chance, exact_text_gradient(toy, texts)


def expected(weights, chance=None):
    """The mean, over all texts, of the estimate that these weights (B, T) give."""
    toy, texts, own, _ = listed()
    chance = own if chance is None else chance
    loss = pg.policy_gradient_loss(action_logprobs(toy, texts), chance[:, None] * weights, texts.mask, normalizer=1)
    return -flat(torch.autograd.grad(loss, list(toy.parameters())))


def returns_of(texts):
    return pg.episode_returns(texts.rewards, texts.mask)


def test_c39_the_grids_weights_have_the_exact_gradient_as_their_mean_on_text():
    _, texts, chance, exact = listed()
    total = pg.total_return(texts.rewards, texts.mask)
    J = float(chance @ returns_of(texts))
    for weights in (total, pg.reward_to_go(texts.rewards, texts.mask), total - J * texts.mask, total + 7 * texts.mask):
        assert float((expected(weights) - exact).norm() / exact.norm()) <= 1e-10
    assert float((expected(pg.reward_to_go(texts.rewards, texts.mask, gamma=0.9)) - exact).norm() / exact.norm()) > 1e-2


def test_c39_without_the_end_token_the_gradient_is_another():
    _, texts, _, exact = listed()
    steps = torch.arange(texts.mask.shape[1])
    last = torch.where(texts.mask, steps, -1).max(1).values
    weights = pg.total_return(texts.rewards, texts.mask) * (steps != last[:, None])
    assert float((expected(weights) - exact).norm() / exact.norm()) > 0.1


def test_c39_a_sampler_at_another_temperature_gives_another_gradient():
    toy, texts, _, exact = listed()
    weights = pg.total_return(texts.rewards, texts.mask)
    off = {}
    for temperature in (1.0, 0.9, 0.5):
        with torch.no_grad():
            chance = action_logprobs(toy, texts, temperature=temperature).sum(1).exp() / 2
        assert float(chance.sum()) == pytest.approx(1, abs=1e-12)
        off[temperature] = float((expected(weights, chance) - exact).norm() / exact.norm())
    assert off[1.0] <= 1e-10 < 0.05 < off[0.9] < off[0.5]


def test_dividing_each_text_by_its_own_length_turns_the_gradient_and_a_constant_does_not():
    _, texts, chance, exact = listed()
    weights = pg.total_return(texts.rewards, texts.mask) - float(chance @ returns_of(texts)) * texts.mask
    lengths = texts.mask.sum(1, keepdim=True)
    assert cosine(expected(weights / 24), exact) == pytest.approx(1, abs=1e-12)
    assert cosine(expected(weights / lengths), exact) < 0.98


# ---------------------------------------------------------------- models and samples


@cache
def base():
    return load_lm("pocket-m")


@cache
def finetuned(examples=300):
    lm = copy.deepcopy(base())
    requests = assistant.requests(examples, use_cases=["other"])
    fit_sft(lm, render_all(lm, assistant.conversations(requests))[0], lr=1e-3)
    return lm


def by_group(rollout, *_):
    returns = returns_of(rollout)
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    return (returns - pg.leave_one_out(returns, groups=groups))[:, None] * rollout.mask


def reward_alone(rollout, *_):
    return pg.total_return(rollout.rewards, rollout.mask)


@cache
def learned(weigh=by_group, start=None, seed=0, shift=0.0, updates=8, lr=1e-4, group=4):
    lm = copy.deepcopy(start or finetuned())

    def moved(problem):
        return replace(problem, score=lambda text: problem.score(text) + shift)

    task = replace(TASK, train=tuple(map(moved, TASK.train)), low=shift, high=1 + shift)
    collect = text_collector(task, prompts=8, group=group)
    return lm, train_policy(lm, collect, weigh, updates=updates, lr=lr, clip_norm=1.0, seed=seed)


@cache
def held_out(lm, *, samples=2, problems=100):
    """Rewards of so many answers to each of so many held-out sums."""
    return sampled_scores(TASK, lm, TASK.held_out[:problems], samples=samples, seed=5)


# ---------------------------------------------------------------- C28: finetuning on own text, weighted by return


def test_c28_weighted_finetuning_has_the_gradient_of_reinforce():
    """Against the cross-entropy of labels, text by text, as finetuning takes it."""
    lm = load_lm("pocket-s").double()
    rollout = attempt(TASK, lm, [problem for problem in TASK.train[:4] for _ in range(2)])
    returns = torch.tensor([0.5, 0, 1, 2, -1, 0.25, 1, 3], dtype=torch.float64)
    loss = pg.policy_gradient_loss(action_logprobs(lm, rollout), returns[:, None] * rollout.mask, rollout.mask)
    reinforce = flat(torch.autograd.grad(loss, list(lm.parameters())))
    total = 0.0
    for row in range(8):
        one = take_rows(rollout, torch.tensor([row]))
        tokens = torch.cat([one.observations[:, :1], one.actions], 1)
        labels = tokens.masked_fill(~pad(one.mask, (1, 0)), -100)
        logits = lm.model(input_ids=tokens).logits
        total = total + returns[row] * cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum") / 8
    supervised = flat(torch.autograd.grad(total, list(lm.parameters())))
    assert float((supervised - reinforce).abs().max()) <= 1e-7 < 1e-3 < float(reinforce.abs().max())


# ---------------------------------------------------------------- C39: sampler and learner


def test_c39_disagreement_between_sampler_and_learner_is_seen_at_once():
    lm, problems = finetuned(), TASK.train[:16]
    fresh = attempt(TASK, lm, problems)
    assert check_behavior(lm, fresh) < 1e-4
    wrong = [
        (lm, attempt(TASK, lm, problems, temperature=0.7)),
        (lm, attempt(TASK, lm, problems, top_k=2)),
        (lm, replace(fresh, logprobs=fresh.logprobs.roll(-1, 1))),
        (base(), fresh),
    ]
    for learner, rollout in wrong:
        with pytest.raises(ValueError, match="^logprobs are off by up to"):
            check_behavior(learner, rollout)


# ---------------------------------------------------------------- C40: sample, weigh, step


def test_c40_held_out_sums_rise_by_twenty_points_on_five_of_five_seeds():
    before = float(held_out(finetuned(), samples=8, problems=100).mean())
    rises = [float(held_out(learned(seed=seed)[0]).mean()) - before for seed in range(5)]
    assert 0.4 < before < 0.65 and min(rises) >= 0.2, rises


@cache
def scored():
    """Score of each of many answers by the model's biases, their rewards, and their prompts' numbers."""
    lm = copy.deepcopy(finetuned())
    generator = torch.Generator().manual_seed(11)
    rollout, _ = collect_text(TASK, lm, prompts=32, group=4, generator=generator)
    biases = [parameter for name, parameter in lm.named_parameters() if name.endswith("bias")]
    first, which = distinct_rows(rollout)
    rows = [take_rows(rollout, row[None]) for row in first]
    scores = torch.stack([flat(torch.autograd.grad(action_logprobs(lm, row).sum(), biases)) for row in rows])
    return scores[which], rollout


def noise(weigh, shift=0.0):
    """Trace of the covariance of one prompt's gradient: comparable where the mean is the same, as it is here."""
    scores, rollout = scored()
    weights = weigh(pay(rollout, (returns_of(rollout) + shift).tolist())).sum(1) / rollout.mask.sum(1)
    return float((weights[:, None] * scores).view(32, 4, -1).mean(1).var(0).sum())


def test_c40_wrong_answers_have_the_long_scores_so_zero_for_them_is_near_the_best_baseline():
    scores, rollout = scored()
    returns, squares = returns_of(rollout), (scores**2).sum(1)
    assert squares[returns == 0].mean() > 3 * squares[returns == 1].mean()
    assert pg.optimal_baseline(squares, returns) < returns.mean() / 2
    assert noise(reward_alone) < noise(by_group)


def test_c40_a_baseline_makes_the_noise_independent_of_the_rewards_zero():
    assert noise(by_group, -1) == pytest.approx(noise(by_group), rel=1e-3)
    assert noise(reward_alone, -1) > 1.5 * noise(by_group) and noise(reward_alone, 3) > 5 * noise(by_group)


def test_c40_with_shifted_rewards_the_baseline_pays_in_learning():
    """The baseline's weights, and with them its run, are the same wherever the rewards' zero lies."""
    _, rollout = scored()
    moved = pay(rollout, (returns_of(rollout) + 3).tolist())
    torch.testing.assert_close(by_group(moved), by_group(rollout), rtol=0, atol=1e-6)
    for seed in range(5):
        plain, shifted = (learned(seed=seed)[1], learned(reward_alone, seed=seed, shift=3.0)[1])
        assert updates_to(0.7, plain.returns) < updates_to(3.7, shifted.returns)


def updates_to(level, means):
    """How many updates until four batches in a row are at the level on average; infinity if they never are."""
    return next((n for n in range(4, len(means) + 1) if sum(means[n - 4 : n]) >= 4 * level), float("inf"))


def test_c40_too_large_a_learning_rate_destroys_the_policy_for_good():
    lm, history = learned(lr=3e-3, updates=4)
    assert float(held_out(lm, samples=1).mean()) < 0.1 and history.returns[-1] < 0.1 < 0.4 < history.returns[0]
    assert history.entropy[-1] > 5 * history.entropy[0]


# ---------------------------------------------------------------- C41: what RL starts from


def test_c41_from_the_base_model_there_is_nothing_to_reinforce():
    before = [parameter.clone() for parameter in base().parameters()]
    lm, history = learned(start=base(), updates=3, group=8)
    assert history.returns == history.gradient_norm == [0.0] * 3
    assert all(torch.equal(a, b) for a, b in zip(before, lm.parameters(), strict=True))


def test_c41_the_start_bounds_what_the_same_learning_reaches():
    results = {}
    weak, _ = learned(start=finetuned(60), group=8, updates=6)
    for name, model, problems in (
        ((60, "before"), finetuned(60), 50), ((60, "after"), weak, 50), ((300, "before"), finetuned(), 100)
    ):  # fmt: skip
        right = (held_out(model, samples=8, problems=problems) == 1).sum(1).tolist()
        for k in (1, 8):
            results[*name, k] = sum(pass_at_k(count, 8, k) for count in right) / problems
    assert results[60, "before", 1] < 0.1 and results[60, "after", 1] > results[60, "before", 1] + 0.2
    assert float(held_out(learned(seed=0)[0]).mean()) > results[60, "after", 1] + 0.1
    assert results[300, "before", 8] > 0.9  # RL makes reliable what one of several answers could do
    assert results[60, "after", 8] > results[60, "before", 8] + 0.2  # and here it did more than that
