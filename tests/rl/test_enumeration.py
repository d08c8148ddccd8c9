"""Every estimator on text against the exact gradient of a real language model, by listing all of its texts.

6 tokens, two prompts and up to 4 steps. What is unbiased must equal the gradient of the sum over all texts to rounding;
what is biased must be seen to differ. Nothing but the policy distinguishes this from `test_policy_gradient`.
"""

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch

from ptlearn import policy_gradient as pg
from ptlearn.lm.models import toy_lm
from ptlearn.lm.text import sample_text
from ptlearn.rl.enumeration import enumerate_texts, exact_text_gradient, text_objective, text_values
from ptlearn.rl.text_collection import pay
from ptlearn.rollout import action_logprobs, take_rows

WORDS = ("end", "a", "b", "c", "d", "e")
PROMPTS = ("", "a b")


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def model(seed=0, words=WORDS):
    return toy_lm(words, seed=seed)


@cache
def texts(sampler=0, prompts=PROMPTS, steps=4, words=WORDS):
    """(rollout, probabilities) of all texts of a model, with an arbitrary reward for each text."""
    rollout, probabilities = enumerate_texts(model(sampler, words), prompts, max_new_tokens=steps)
    # the reward is a function of the text, in whatever order texts are listed
    tokens = torch.where(rollout.mask, rollout.actions + 1, 0).double()
    rewards = (tokens * torch.arange(1, tokens.shape[1] + 1)).sum(1).mul(1.7).sin() * 2 + 0.8
    return pay(rollout, rewards), probabilities


@cache
def exact():
    return exact_text_gradient(model(), texts()[0])


def mean_gradient(weights, rollout, share, lm=None):
    """The expectation of the estimate: each row counts as much as it is likely."""
    lm = lm or model()
    loss = pg.policy_gradient_loss(action_logprobs(lm, rollout), weights * share[:, None], rollout.mask, normalizer=1)
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(-loss, list(lm.parameters()))])


def off_by(found, expected):
    return float((found - expected).norm() / expected.norm())


def to_go(rollout):
    return pg.reward_to_go(rollout.rewards, rollout.mask)


def returns(rollout):
    return pg.episode_returns(rollout.rewards, rollout.mask)


def generalized(rollout, values, lam):
    return pg.advantage(rollout.rewards, values, rollout.mask, torch.zeros(len(values)).double(), lam=lam)


def guesses(rollout):
    """A critic that is wrong, but knows the state alone: the text so far, through its last two tokens."""
    before = torch.cat([torch.zeros_like(rollout.observations[:, :1]), rollout.observations[:, :-1]], 1)
    return normal(6, 6, seed=3)[before, rollout.observations] * rollout.mask


# ---------------------------------------------------------------- the list of all texts


def test_all_texts_are_there_once_and_their_probabilities_sum_to_one():
    rollout, probabilities = texts()
    assert len(probabilities) == 2 * (1 + 5 + 25 + 125 + 625)
    written = [tuple(row[kept].tolist()) for row, kept in zip(rollout.actions, rollout.mask, strict=True)]
    expected = {
        text for n in range(1, 5) for text in itertools.product(range(6), repeat=n)
        if 0 not in text[:-1] and (text[-1] == 0 or n == 4)
    }  # fmt: skip
    assert sorted(written) == sorted([*expected] * 2)
    starts = pg.prompt_groups(rollout.observations, rollout.mask)
    for group in (0, 1):
        assert abs(float(probabilities[starts == group].sum()) - 0.5) <= 1e-12
    assert abs(float((rollout.logprobs.sum(1).exp() / 2 - probabilities).abs().max())) <= 1e-15
    assert probabilities.dtype == rollout.rewards.dtype == torch.float64 and rollout.terminated.all()


def test_texts_occur_as_often_as_their_probability_says():
    """Through the sampler of the course: chi-squared over the texts of one prompt, 4,000 draws."""
    rollout, probabilities = texts(prompts=("a",), steps=2)
    drawn = sample_text(model(), ["a"] * 4000, max_new_tokens=2, seed=1)
    counts = torch.zeros(len(probabilities), dtype=torch.float64)
    known = {tuple(row[kept].tolist()): i for i, (row, kept) in enumerate(zip(rollout.actions, rollout.mask))}
    for row, kept in zip(drawn.actions, drawn.mask, strict=True):
        counts[known[tuple(row[kept].tolist())]] += 1
    chi_squared = float(((counts - 4000 * probabilities) ** 2 / (4000 * probabilities)).sum())
    freedom = len(probabilities) - 1
    assert abs(chi_squared - freedom) < 4 * (2 * freedom) ** 0.5


def test_the_objective_is_the_mean_reward_and_its_gradient_that_of_finite_differences():
    rollout, probabilities = texts()
    objective = text_objective(model(), rollout)
    assert abs(float(objective.detach() - probabilities @ returns(rollout))) <= 1e-12
    parameter = model().model.lm_head.weight
    index = sum(p.numel() for p in itertools.takewhile(lambda p: p is not parameter, model().parameters()))
    with torch.no_grad():
        parameter[2, 3] += 1e-5
        above = text_objective(model(), rollout)
        parameter[2, 3] -= 2e-5
        below = text_objective(model(), rollout)
        parameter[2, 3] += 1e-5
    assert abs(float((above - below) / 2e-5 - exact()[index + 2 * 8 + 3])) <= 1e-8


def test_values_are_expected_rewards_of_what_may_follow():
    rollout, probabilities = texts()
    values = text_values(rollout, probabilities)
    starts = pg.prompt_groups(rollout.observations, rollout.mask)
    for group in (0, 1):
        rows = starts == group
        first = int(rollout.mask[rows].to(torch.uint8).argmax(1)[0])
        expected = 2 * probabilities[rows] @ returns(rollout)[rows]
        assert float((values[rows][:, first] - expected).abs().max()) <= 1e-12
    # at the last step the value is a mean over the six tokens that may come
    whole = rollout.mask.sum(1) == 4
    last = rollout.mask[whole].long().cumsum(1).argmax(1)
    pick = torch.arange(len(last))
    state = rollout.observations[whole][pick, last]
    logits = model()(rollout.observations[whole])[pick, last].detach()
    row = int((state == 2).nonzero()[0])
    same = (rollout.observations[whole][:, : last[row] + 1] == rollout.observations[whole][row, : last[row] + 1]).all(1)
    same &= last == last[row]
    assert int(same.sum()) == 6
    p = logits[row].softmax(0)[rollout.actions[whole][same, last[row]]]
    expected = p @ returns(rollout)[whole][same]
    assert abs(float(values[whole][row, last[row]] - expected)) <= 1e-12


def test_too_many_texts_are_refused():
    with pytest.raises(ValueError, match="^2 prompts, max_new_tokens=9: expected at most limit=100000 texts over 6 t"):
        enumerate_texts(model(), PROMPTS, max_new_tokens=9)


# ---------------------------------------------------------------- on-policy estimators

UNBIASED = {
    "total return": lambda r, v: pg.total_return(r.rewards, r.mask),
    "reward to go": lambda r, v: to_go(r),
    "constant baseline": lambda r, v: to_go(r) - 3.7,
    "exact V": lambda r, v: to_go(r) - v,
    "any critic": lambda r, v: to_go(r) - guesses(r),
    "TD, exact V": lambda r, v: generalized(r, v, 0.0),
    "GAE lam=0.7, exact V": lambda r, v: generalized(r, v, 0.7),
    "GAE lam=1, any critic": lambda r, v: generalized(r, guesses(r), 1.0),
}
BIASED = {
    "TD, wrong critic": lambda r, v: generalized(r, guesses(r), 0.0),
    "GAE lam=0.7, wrong critic": lambda r, v: generalized(r, guesses(r), 0.7),
    "mean over tokens": lambda r, v: pg.total_return(r.rewards, r.mask) / r.mask.sum(1, keepdim=True),
    "first token alone": lambda r, v: to_go(r) * (r.mask.cumsum(1) == 1),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_weights_give_the_exact_gradient(name):
    rollout, probabilities = texts()
    weights = UNBIASED[name](rollout, text_values(rollout, probabilities))
    assert off_by(mean_gradient(weights, rollout, probabilities), exact()) <= 1e-10


@pytest.mark.parametrize("name", BIASED)
def test_biased_weights_miss_it(name):
    rollout, probabilities = texts()
    weights = BIASED[name](rollout, text_values(rollout, probabilities))
    assert off_by(mean_gradient(weights, rollout, probabilities), exact()) > 1e-2


@cache
def pairs():
    """Every pair of completions of a prompt, one after the other; a row counts half of its pair."""
    words = WORDS[:3]
    rollout, probabilities = texts(prompts=PROMPTS, steps=3, words=words)
    starts = pg.prompt_groups(rollout.observations, rollout.mask)
    rows = [(i, j) for i in range(len(starts)) for j in range(len(starts)) if starts[i] == starts[j]]
    rows = torch.tensor(rows)
    share = probabilities[rows].prod(1) * 2  # each probability holds 1/2 for the prompt, which is drawn once
    gradient = exact_text_gradient(model(0, words), rollout)
    return take_rows(rollout, rows.flatten()), (share / 2).repeat_interleave(2), len(rows), gradient


def of_pairs(advantages):
    rollout, share, count, expected = pairs()
    groups = torch.arange(count).repeat_interleave(2)
    weights = advantages(returns(rollout), groups)[:, None] * rollout.mask
    return mean_gradient(weights, rollout, share, model(0, WORDS[:3])), expected


def test_leave_one_out_over_pairs_gives_the_exact_gradient():
    assert abs(float(pairs()[1].sum()) - 1) <= 1e-12
    found, expected = of_pairs(lambda r, groups: r - pg.leave_one_out(r, groups=groups))
    assert off_by(found, expected) <= 1e-10


def test_the_mean_of_a_pair_halves_it():
    found, expected = of_pairs(lambda r, groups: r - pg.mean_baseline(r, groups=groups))
    assert off_by(2 * found, expected) <= 1e-10


def test_standardized_pairs_point_elsewhere():
    found, expected = of_pairs(pg.standardized)
    best = found @ expected / (found @ found)  # whatever the step size
    assert off_by(best * found, expected) > 1e-2


# ---------------------------------------------------------------- texts of another model


def ratio(kind, rollout):
    return kind(action_logprobs(model(), rollout).detach(), rollout.logprobs, rollout.mask)


OFF_POLICY = {
    "trajectory ratio, total return": (lambda r, v: ratio(pg.trajectory_ratio, r) * to_go(r), True),
    "trajectory ratio, any critic": (lambda r, v: ratio(pg.trajectory_ratio, r) * (to_go(r) - guesses(r)), True),
    "prefix ratio, TD, exact V": (lambda r, v: ratio(pg.prefix_ratio, r) * generalized(r, v, 0.0), True),
    "no ratio": (lambda r, v: to_go(r), False),
    "step ratio": (lambda r, v: ratio(pg.step_ratio, r) * (to_go(r) - v), False),
    "clipped": (lambda r, v: pg.clipped_weights(ratio(pg.step_ratio, r), to_go(r) - v), False),
}


@pytest.mark.parametrize("name", OFF_POLICY)
def test_texts_of_another_model_with_importance_weights(name):
    weigh, unbiased = OFF_POLICY[name]
    rollout, share = texts(sampler=1)
    own = action_logprobs(model(), rollout).detach().sum(1).exp() / len(PROMPTS)
    assert float((own - share).abs().max()) > 1e-3  # another model indeed
    found = mean_gradient(weigh(rollout, text_values(rollout, own)), rollout, share)
    assert off_by(found, exact()) <= 1e-10 if unbiased else off_by(found, exact()) > 1e-2


# ---------------------------------------------------------------- KL in the rewards


def test_kl_in_the_rewards_gives_the_gradient_of_the_penalised_objective():
    rollout, share = texts()
    lm, beta = model(), 0.3
    reference = action_logprobs(model(2), rollout).detach()
    penalised = rollout.rewards - beta * pg.kl_estimates(rollout.logprobs, reference, rollout.mask).k1
    found = mean_gradient(pg.reward_to_go(penalised, rollout.mask), rollout, share)
    logprobs = action_logprobs(lm, rollout).sum(1)
    divergence = (logprobs.exp() / len(PROMPTS)) @ (logprobs - reference.sum(1))
    gradients = torch.autograd.grad(text_objective(lm, rollout) - beta * divergence, list(lm.parameters()))
    expected = torch.cat([gradient.flatten() for gradient in gradients])
    assert off_by(found, expected) <= 1e-10 and off_by(exact(), expected) > 1e-2


def test_kl_of_whole_texts_is_the_mean_sum_of_k1_and_k3_and_of_exact_steps():
    rollout, share = texts()
    reference = action_logprobs(model(2), rollout).detach()
    exactly = float(share @ (rollout.logprobs.sum(1) - reference.sum(1)))
    k1, k2, k3 = (float(share @ k.sum(1)) for k in pg.kl_estimates(rollout.logprobs, reference, rollout.mask))
    with torch.no_grad():
        steps = pg.kl_divergence(model()(rollout.observations), model(2)(rollout.observations))
    over_the_vocabulary = float(share @ torch.where(rollout.mask, steps, 0).sum(1))
    for found in (k1, k3, over_the_vocabulary):
        assert abs(found - exactly) <= 1e-12
    assert abs(k2 - exactly) > 1e-2


# ---------------------------------------------------------------- C28: supervised learning on own texts


def test_c28_supervised_finetuning_weighted_by_return_is_reinforce():
    """The label loss of `transformers` on each sampled text, times its return, against the loss of the course."""
    lm = model()
    rollout = sample_text(lm, ["a b"] * 12, max_new_tokens=4, seed=5)
    rollout = pay(replace(rollout, rewards=rollout.rewards.double()), normal(12, seed=6))
    supervised = 0
    for row in range(12):
        kept, worth = rollout.mask[row], returns(rollout)[row]
        tokens = torch.cat([rollout.observations[row, :1], rollout.actions[row]])
        labels = torch.cat([torch.tensor([-100]), torch.where(kept, rollout.actions[row], -100)])
        mean = lm.model(input_ids=tokens[None], labels=labels[None]).loss
        supervised = supervised + worth * mean * kept.sum() / 12
    expected = torch.autograd.grad(supervised, list(lm.parameters()))
    weights = pg.total_return(rollout.rewards, rollout.mask)
    reinforce = pg.policy_gradient_loss(action_logprobs(lm, rollout), weights, rollout.mask)
    found = torch.autograd.grad(reinforce, list(lm.parameters()))
    flat = [torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (found, expected)]
    assert off_by(*flat) <= 1e-7


def test_clipped_weights_have_the_gradient_of_the_clipped_objective():
    rollout, share = texts(sampler=1)
    advantages = to_go(rollout) - text_values(rollout, share)
    ratios = ratio(pg.step_ratio, rollout)
    assert ((ratios > 1.2) & (advantages > 0)).any() and ((ratios < 0.8) & (advantages < 0) & rollout.mask).any()
    found = mean_gradient(pg.clipped_weights(ratios, advantages), rollout, share)
    moving = (action_logprobs(model(), rollout) - rollout.logprobs).exp()
    objective = torch.minimum(moving * advantages, moving.clamp(0.8, 1.2) * advantages)
    total = (torch.where(rollout.mask, objective, 0) * share[:, None]).sum()
    gradients = torch.autograd.grad(total, list(model().parameters()))
    assert off_by(found, torch.cat([gradient.flatten() for gradient in gradients])) <= 1e-7
