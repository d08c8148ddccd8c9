"""Typical wrong answers to the exercises of lesson 13, and right ones written differently."""

import math
from itertools import product

import torch
from torch.nn.functional import cross_entropy, logsigmoid, softplus

# 13.1 -----------------------------------------------------------------------------------------------------------------


def mean_and_deviation(rewards, groups, denominator_less=1):
    same = (groups[:, None] == groups).to(rewards)
    count = same.sum(1)
    mean = same @ rewards / count
    squares = (same * (rewards - mean[:, None]) ** 2).sum(1)
    return mean, (squares / (count - denominator_less)).sqrt(), count


def both(centred, scaled):
    return {"Dr. GRPO": centred, "GRPO": scaled}


def of_the_others(rewards, groups):
    mean, deviation, n = mean_and_deviation(rewards, groups)
    centred = (rewards - mean) * n / (n - 1)
    return both(centred, centred / (deviation + 1e-6))


def others_when_scaled(rewards, groups):
    mean, deviation, n = mean_and_deviation(rewards, groups)
    centred = rewards - mean
    return both(centred, centred * n / (n - 1) / (deviation + 1e-6))


def one_group(rewards, groups):
    centred = rewards - rewards.mean()
    return both(centred, centred / (rewards.std() + 1e-6))


def one_group_when_scaled(rewards, groups):
    mean, _, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (rewards - rewards.mean()) / (rewards.std() + 1e-6))


def scaled_twice(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    scaled = (rewards - mean) / (deviation + 1e-6)
    return both(scaled, scaled)


def never_scaled(rewards, groups):
    mean, _, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, rewards - mean)


def mean_minus_reward(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(mean - rewards, (mean - rewards) / (deviation + 1e-6))


def mean_minus_reward_when_scaled(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (mean - rewards) / (deviation + 1e-6))


def mean_alone(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(mean, (rewards - mean) / (deviation + 1e-6))


def population_deviation(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups, 0)
    return both(rewards - mean, (rewards - mean) / (deviation + 1e-6))


def by_variance(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (rewards - mean) / (deviation**2 + 1e-6))


def deviation_of_the_batch(rewards, groups):
    mean, _, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (rewards - mean) / (rewards.std() + 1e-6))


def not_centred(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, rewards / (deviation + 1e-6))


def zero_by_zero(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (rewards - mean) / deviation)


def one_of_two(rewards, groups):
    return {"Dr. GRPO": never_scaled(rewards, groups)["Dr. GRPO"]}


def by_matrix(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (rewards - mean) / (deviation + 1e-6))


def row_after_row(rewards, groups):
    centred, scaled = [], []
    for reward, group in zip(rewards, groups):
        mates = rewards[groups == group]
        centred.append(reward - mates.mean())
        scaled.append(centred[-1] / (mates.var().sqrt() + 1e-6))
    return {"GRPO": torch.stack(scaled), "Dr. GRPO": torch.stack(centred)}


# 13.2 -----------------------------------------------------------------------------------------------------------------


def estimates(logprobs, reference, mask, everywhere=False, **changed):
    """The three, some of them changed: functions of d = log reference - log policy."""
    rules = {"k1": lambda d: -d, "k2": lambda d: d**2 / 2, "k3": lambda d: d.exp() - 1 - d} | changed
    d = reference - logprobs
    return {name: rule(d) if everywhere else torch.where(mask, rule(d), 0) for name, rule in rules.items()}


def changed(**rules):
    return lambda p, q, mask: estimates(p, q, mask, **rules)


def filled(p, q, mask):
    return estimates(p, q, mask, everywhere=True)


def averaged(p, q, mask):
    return {name: table.sum() / mask.sum() for name, table in estimates(p, q, mask).items()}


def per_row(p, q, mask):
    return {name: table.sum(1) for name, table in estimates(p, q, mask).items()}


def by_ratio(p, q, mask):
    r = torch.where(mask, (q - p).exp(), 1)
    return {"k1": -r.log(), "k2": r.log() ** 2 / 2, "k3": r - 1 - r.log()}


def by_expm1(p, q, mask):
    d = (q - p) * mask
    return {"k3": d.expm1() - d, "k2": 0.5 * d * d, "k1": -d}


# 13.3 -----------------------------------------------------------------------------------------------------------------


def margins(rewards, chosen, rejected):
    return rewards[chosen] - rewards[rejected]


def turned_round(*given):
    return -logsigmoid(-margins(*given)).mean()


def summed(*given):
    return -logsigmoid(margins(*given)).sum()


def likelihood(*given):
    return logsigmoid(margins(*given)).mean()


def probability(*given):
    return margins(*given).sigmoid().mean()


def one_minus(*given):
    return (1 - margins(*given).sigmoid()).mean()


def margin_alone(*given):
    return -margins(*given).mean()


def hinge(*given):
    return (1 - margins(*given)).clamp(min=0).mean()


def sigma_each(rewards, chosen, rejected):
    return -(logsigmoid(rewards[chosen]) - logsigmoid(rewards[rejected])).mean()


def chosen_alone(rewards, chosen, rejected):
    return -logsigmoid(rewards[chosen]).mean()


def squares(*given):
    return ((1 - margins(*given)) ** 2).mean()


def log_of_sigmoid(*given):
    return -margins(*given).sigmoid().log().mean()


def as_softplus(*given):
    return softplus(-margins(*given)).mean()


def as_classification(rewards, chosen, rejected):
    """Of the two, which was chosen: the first."""
    return cross_entropy(torch.stack([rewards[chosen], rewards[rejected]], 1), torch.zeros_like(chosen))


# 13.4 -----------------------------------------------------------------------------------------------------------------


def chances(count, n, first=1):
    rank = torch.arange(first, count + first, dtype=torch.float64)
    return (rank.clamp(min=0) / count) ** n - ((rank - 1).clamp(min=0) / count) ** n


def by_truth(scores, truths, n):
    return chances(len(scores), n) @ truths.sort().values


def score_of_the_best(scores, truths, n):
    return chances(len(scores), n) @ scores.sort().values


def without_putting_back(scores, truths, n):
    count = len(scores)
    weights = [math.comb(i, n - 1) / math.comb(count, n) if n <= count else 0.0 for i in range(count)]
    return torch.tensor(weights, dtype=truths.dtype) @ truths[scores.argsort()]


def not_subtracted(scores, truths, n):
    rank = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    return (rank / len(scores)) ** n @ truths[scores.argsort()]


def ranks_from_zero(scores, truths, n):
    return chances(len(scores), n, first=0) @ truths[scores.argsort()]


def lowest(scores, truths, n):
    return chances(len(scores), n) @ truths[scores.argsort(descending=True)]


def mean_truth(scores, truths, n):
    return truths.mean()


def best_of_all(scores, truths, n):
    return truths[scores.argmax()]


def unsorted(scores, truths, n):
    return chances(len(scores), n) @ truths


def first_n(scores, truths, n):
    return truths[scores[:n].argmax()]


def all_draws(scores, truths, n):
    """Every draw of n of the samples, one after the other, as long as there are not too many."""
    if len(scores) ** n > 50_000:
        return from_counts(scores, truths, n)
    best = [max(drawn, key=lambda i: float(scores[i])) for drawn in product(range(len(scores)), repeat=n)]
    return truths[best].mean()


def from_counts(scores, truths, n):
    lower = (scores[None] < scores[:, None]).sum(1).double()
    return (((lower + 1) ** n - lower**n) * truths).sum() / len(scores) ** n


# 13.5 -----------------------------------------------------------------------------------------------------------------


def margin(chosen, rejected):
    return (chosen - rejected).detach()


def pushed_when_settled(c, r, beta):
    return beta * (beta * margin(c, r)).sigmoid()


def without_factor(c, r, beta):
    return (-beta * margin(c, r)).sigmoid()


def without_beta_inside(c, r, beta):
    return beta * (-margin(c, r)).sigmoid()


def without_beta(c, r, beta):
    return (-margin(c, r)).sigmoid()


def divided_by_beta(c, r, beta):
    return beta * (-margin(c, r) / beta).sigmoid()


def pushed_down(c, r, beta):
    return -beta * (-beta * margin(c, r)).sigmoid()


def loss_itself(c, r, beta):
    return -logsigmoid(beta * margin(c, r))


def slope_of_sigma(c, r, beta):
    sigma = (beta * margin(c, r)).sigmoid()
    return beta * sigma * (1 - sigma)


def margin_itself(c, r, beta):
    return beta * margin(c, r)


def constant(c, r, beta):
    return torch.full_like(margin(c, r), beta)


def first_step(c, r, beta):
    return torch.full_like(margin(c, r), beta / 2)


def divided_by_pairs(c, r, beta):
    return beta * (-beta * margin(c, r)).sigmoid() / len(c)


def with_gradient(c, r, beta):
    return beta * torch.sigmoid(-beta * (c - r))


def by_autograd(c, r, beta):
    """The slope of the loss, from the loss."""
    c = c.detach().requires_grad_()
    (slope,) = torch.autograd.grad(-logsigmoid(beta * (c - r.detach())).sum(), c)
    return -slope


def by_exponential(c, r, beta):
    return (beta / (1 + (beta * (c - r)).exp())).detach()


WRONG = {
    "13.1": [
        (of_the_others, "Dr. GRPO: the mean of the others"),
        (one_group, "Dr. GRPO: groups are ignored"),
        (scaled_twice, "Dr. GRPO: divided by the standard deviation"),
        (mean_minus_reward, "Dr. GRPO: the sign is turned"),
        (mean_alone, "Dr. GRPO: this is the mean"),
        (population_deviation, "GRPO: the standard deviation has n in the denominator"),
        (by_variance, "GRPO: divided by the variance"),
        (deviation_of_the_batch, "that of the batch"),
        (one_group_when_scaled, "GRPO: groups are ignored"),
        (others_when_scaled, "GRPO: the mean of the others"),
        (not_centred, "GRPO: the mean is not subtracted"),
        (never_scaled, "division by the standard deviation is missing"),
        (mean_minus_reward_when_scaled, "GRPO: the sign is turned"),
        (zero_by_zero, "0 / 0"),
        (one_of_two, "GRPO"),
        (lambda rewards, groups: rewards, "expected a dict"),
    ],
    "13.2": [
        (changed(k1=lambda d: d), "k1: the sign is turned"),
        (changed(k1=torch.exp), "k1: this is the ratio: "),
        (changed(k1=lambda d: (-d).exp()), "k1: this is the ratio turned over"),
        (changed(k1=torch.abs), "k1: the absolute value"),
        (changed(k2=lambda d: d**2), "k2: the half is missing"),
        (changed(k2=lambda d: -d / 2), "k2: the square is missing"),
        (changed(k2=lambda d: d.exp() ** 2 / 2), "k2: the ratio is squared"),
        (changed(k3=lambda d: (-d).exp() - 1 + d), "k3: the ratio is turned over"),
        (changed(k3=lambda d: d.exp() - 1 + d), "k3: the sign of log r"),
        (changed(k3=lambda d: d.exp() - d), "k3: the 1 is missing"),
        (changed(k3=lambda d: d.exp() - 1), "k3: log r is missing"),
        (changed(k3=lambda d: d + 1 - d.exp()), "k3: the sign of the whole"),
        (filled, "k1: filled on prompt and padding"),
        (averaged, "k1: the mean of the batch"),
        (per_row, "k1: the sum of each row"),
    ],
    "13.3": [
        (turned_round, "turned round"),
        (summed, "summed"),
        (likelihood, "sign is missing"),
        (probability, "logarithm is missing"),
        (one_minus, "1 - sigma"),
        (margin_alone, "the margin itself"),
        (hinge, "the sigma is missing: a hinge"),
        (sigma_each, "each reward has its own sigma"),
        (chosen_alone, "the rejected one is left out"),
        (squares, "squared error"),
        (log_of_sigmoid, "logsigmoid takes both at once"),
    ],
    "13.4": [
        (by_truth, "the highest truth"),
        (score_of_the_best, "the score of the best"),
        (without_putting_back, "without putting back"),
        (not_subtracted, "next lower i"),
        (ranks_from_zero, "ranks begin at 0"),
        (lowest, "lowest score"),
        (mean_truth, "n is ignored"),
        (best_of_all, "best of all samples"),
        (unsorted, "sort by score"),
        (first_n, "the first n alone"),
    ],
    "13.5": [
        (pushed_when_settled, "turned round"),
        (without_factor, "in front of the sigma"),
        (without_beta_inside, "beta is missing in the margin"),
        (without_beta, "beta is missing: in front"),
        (divided_by_beta, "beta divides"),
        (pushed_down, "sign is turned"),
        (loss_itself, "the loss of the pair"),
        (slope_of_sigma, "slope of sigma"),
        (margin_itself, "the margin itself"),
        (constant, "a constant"),
        (first_step, "half of beta"),
        (divided_by_pairs, "number of pairs"),
        (with_gradient, "detach"),
    ],
    "13.6": [
        ({"A": "moving reference", "B": "own token", "C": "in the loss", "D": "k3"}, "A: 'moving reference'"),
        ({"A": "in the loss", "B": "last token", "C": "moving reference", "D": "k3"}, "B: 'last token'"),
        ({"A": "in the loss", "B": "own token", "C": "twice", "D": "k3"}, "C: 'twice'"),
        ({"A": "in the loss", "B": "own token", "C": "moving reference", "D": "sign"}, "D: 'sign'"),
        ({"A": "in the loss", "B": "own token", "C": "moving reference", "D": "k2"}, "is not on the list"),
        ({"A": "in the loss"}, "a dict with the keys"),
    ],
}
RIGHT = {
    "13.1": [by_matrix, row_after_row],
    "13.2": [by_ratio, by_expm1],
    "13.3": [as_softplus, as_classification],
    "13.4": [all_draws, from_counts],
    "13.5": [by_autograd, by_exponential],
    "13.6": [{"D": "K3", "C": "moving reference", "B": "own token", "A": "in the loss"}],
}
