"""Typical wrong answers to the exercises of lesson 13, and right ones written differently."""

import math
from collections import namedtuple
from itertools import product

import torch
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    logsigmoid,
    softplus,
)

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


def deviation_of_the_others(rewards, groups):
    mean, _, _ = mean_and_deviation(rewards, groups)
    others = (groups[:, None] == groups) & ~torch.eye(len(groups), dtype=torch.bool)
    return both(rewards - mean, (rewards - mean) / (torch.stack([rewards[row].std() for row in others]) + 1e-6))


def by_range(rewards, groups):
    mean, _, _ = mean_and_deviation(rewards, groups)
    wide = torch.stack([rewards[groups == group].max() - rewards[groups == group].min() for group in groups])
    return both(rewards - mean, (rewards - mean) / (wide + 1e-6))


def absolute(rewards, groups):
    right = by_matrix(rewards, groups)
    return right | {"GRPO": right["GRPO"].abs()}


def group_after_group(rewards, groups):
    """The groups one after the other, end to end."""
    apart = [rewards[groups == group] for group in groups.unique()]
    return both(torch.cat([x - x.mean() for x in apart]), torch.cat([(x - x.mean()) / (x.std() + 1e-6) for x in apart]))


def in_place(rewards, groups):
    for group in groups.unique():
        rewards[groups == group] -= rewards[groups == group].mean()
    return both(rewards, rewards)


def renumbered_in_place(rewards, groups):
    groups -= groups.min() - 1
    return by_matrix(rewards, groups)


def equal_groups(rewards, groups):
    """As if every group had as many rows, one after the other."""
    table = rewards.view(len(groups.unique()), -1)
    centred = table - table.mean(1, keepdim=True)
    return both(centred.flatten(), (centred / (table.std(1, keepdim=True) + 1e-6)).flatten())


def much_added(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (rewards - mean) / (deviation + 1e-2))


def added_to_the_variance(rewards, groups):
    mean, deviation, _ = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (rewards - mean) / (deviation**2 + 1e-6).sqrt())


def by_standard_error(rewards, groups):
    mean, deviation, n = mean_and_deviation(rewards, groups)
    return both(rewards - mean, (rewards - mean) / (deviation / n.sqrt() + 1e-6))


def group_by_name(rewards, groups):
    centred, scaled = torch.empty_like(rewards), torch.empty_like(rewards)
    for name in set(groups.tolist()):
        rows = [row for row, group in enumerate(groups.tolist()) if group == name]
        centred[rows] = rewards[rows] - sum(rewards[rows]) / len(rows)
        scaled[rows] = centred[rows] / (rewards[rows].var().sqrt() + 1e-6)
    return both(centred, scaled)


def as_columns(rewards, groups):
    return {name: values[:, None] for name, values in by_matrix(rewards, groups).items()}


def as_pair(rewards, groups):
    return tuple(by_matrix(rewards, groups).values())


def misspelt(rewards, groups):
    right = by_matrix(rewards, groups)
    return {"dr_grpo": right["Dr. GRPO"], "grpo": right["GRPO"]}


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


def in_numpy(rewards, groups):
    x, g = rewards.numpy(), groups.numpy()
    mean = [x[g == group].mean() for group in g]
    scaled = (x - mean) / ([x[g == group].std(ddof=1) + 1e-6 for group in g])
    return both(torch.tensor(x - mean), torch.tensor(scaled))


def in_lists(rewards, groups):
    return {name: values.tolist() for name, values in by_matrix(rewards, groups).items()}


def by_scatter(rewards, groups):
    _, place = groups.unique(return_inverse=True)
    count = torch.bincount(place).to(rewards)
    centred = rewards - (torch.zeros_like(count).scatter_add(0, place, rewards) / count)[place]
    variance = torch.zeros_like(count).scatter_add(0, place, centred**2) / (count - 1)
    return both(centred, centred / (variance.sqrt() + 1e-6)[place])


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
    d = (q - p).masked_fill(~mask, 0)
    return {"k3": d.expm1() - d, "k2": 0.5 * d * d, "k1": -d}


def difference_times_mask(p, q, mask):
    d = (q - p) * mask
    return {"k1": -d, "k2": d**2 / 2, "k3": d.exp() - 1 - d}


def estimate_times_mask(p, q, mask):
    return {name: table * mask for name, table in filled(p, q, mask).items()}


def masked_in_place(p, q, mask):
    p[~mask] = q[~mask] = 0
    return filled(p, q, mask)


def chosen_ones(p, q, mask):
    """The tokens that count, end to end."""
    return {name: table[mask] for name, table in estimates(p, q, mask).items()}


def k3_alone(p, q, mask):
    return estimates(p, q, mask)["k3"]


def in_capitals(p, q, mask):
    return {name.upper(): table for name, table in estimates(p, q, mask).items()}


def mask_turned_round(p, q, mask):
    return estimates(p, q, ~mask)


def named_tuple(p, q, mask):
    return namedtuple("KL", "k1 k2 k3")(**estimates(p, q, mask))


def token_after_token(p, q, mask):
    found = {name: torch.zeros_like(p) for name in ("k1", "k2", "k3")}
    for b, t in mask.nonzero().tolist():
        r = math.exp(float(q[b, t]) - float(p[b, t]))
        found["k1"][b, t], found["k2"][b, t], found["k3"][b, t] = (
            -math.log(r),
            math.log(r) ** 2 / 2,
            r - 1 - math.log(r),
        )
    return found


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


def not_averaged(*given):
    return -logsigmoid(margins(*given))


def per_completion(rewards, chosen, rejected):
    return -logsigmoid(margins(rewards, chosen, rejected)).sum() / len(rewards)


def log_of_the_mean(*given):
    return -margins(*given).sigmoid().mean().log()


def two_questions(rewards, chosen, rejected):
    return -(logsigmoid(rewards[chosen]) + logsigmoid(-rewards[rejected])).mean()


def rows_as_rewards(rewards, chosen, rejected):
    return -logsigmoid((chosen - rejected).float()).mean() + 0 * rewards.sum()


def all_against_all(rewards, chosen, rejected):
    return -logsigmoid(rewards[chosen][:, None] - rewards[rejected]).mean()


def with_an_epsilon(*given):
    return -(margins(*given).sigmoid() + 1e-8).log().mean()


def clamped(*given):
    return -margins(*given).sigmoid().clamp(min=1e-12).log().mean()


def cut_off_by_torch(*given):
    """torch cuts the logarithm off at -100 here."""
    sigma = margins(*given).sigmoid()
    return binary_cross_entropy(sigma, torch.ones_like(sigma))


def log_of_one_plus(*given):
    return (1 + (-margins(*given)).exp()).log().mean()


def detached(*given):
    return as_softplus(*given).detach()


def number(*given):
    return as_softplus(*given).item()


def rejected_fixed(rewards, chosen, rejected):
    return softplus(rewards[rejected].detach() - rewards[chosen]).mean()


def both_orders(*given):
    return as_softplus(*given) + softplus(margins(*given)).mean()


def how_often(*given):
    return (margins(*given) > 0).double().mean()


def of_shares(rewards, chosen, rejected):
    winner, loser = rewards[chosen].exp(), rewards[rejected].exp()
    return -(winner / (winner + loser)).log().mean()


def shifted_in_place(rewards, chosen, rejected):
    with torch.no_grad():
        rewards -= rewards.mean()
    return as_softplus(rewards, chosen, rejected)


def with_logits(*given):
    return binary_cross_entropy_with_logits(margins(*given), torch.ones_like(margins(*given)))


def pair_after_pair(rewards, chosen, rejected):
    losses = [softplus(rewards[j] - rewards[i]) for i, j in zip(chosen.tolist(), rejected.tolist())]
    return sum(losses) / len(losses)


def by_logsumexp(rewards, chosen, rejected):
    both = torch.stack([rewards[chosen], rewards[rejected]])
    return (both.logsumexp(0) - rewards[chosen]).mean(dim=0, keepdim=False)


def as_softplus(*given):
    return softplus(-margins(*given)).mean()


def as_classification(rewards, chosen, rejected):
    """Of the two, which was chosen: the first."""
    return cross_entropy(torch.stack([rewards[chosen], rewards[rejected]], 1), torch.zeros_like(chosen))


# 13.4 -----------------------------------------------------------------------------------------------------------------


def chances(count, n, first=1):
    rank = torch.arange(first, count + first)
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
    rank = torch.arange(1, len(scores) + 1)
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


def argsort_as_rank(scores, truths, n):
    return chances(len(scores), n)[scores.argsort()] @ truths


def not_summed(scores, truths, n):
    return chances(len(scores), n) * truths[scores.argsort()]


def chances_alone(scores, truths, n):
    return chances(len(scores), n)


def divided_again(scores, truths, n):
    return (chances(len(scores), n) * truths[scores.argsort()]).mean()


def sorted_in_place(scores, truths, n):
    truths[:] = truths[scores.argsort()]
    return chances(len(scores), n) @ truths


def scaled_in_place(scores, truths, n):
    scores -= scores.min()
    return from_counts(scores, truths, n)


def some_draws(scores, truths, n):
    drawn = torch.randint(len(scores), (1000, n))
    return truths[drawn.gather(1, scores[drawn].argmax(1, keepdim=True))].mean()


def one_too_many(scores, truths, n):
    return chances(len(scores), n + 1) @ truths[scores.argsort()]


def mean_of_the_highest(scores, truths, n):
    return truths[scores.topk(min(n, len(scores))).indices].mean()


def powers_shared_out(scores, truths, n):
    weights = torch.arange(1.0, len(scores) + 1) ** n
    return weights / weights.sum() @ truths[scores.argsort()]


def density(scores, truths, n):
    rank = torch.arange(1.0, len(scores) + 1) / len(scores)
    return (n * rank ** (n - 1) / len(scores)) @ truths[scores.argsort()]


def by_steps(scores, truths, n):
    """The highest truth, less each step between neighbours where all n are below it."""
    ranked, below = truths[scores.argsort()], torch.arange(1.0, len(scores)) / len(scores)
    return ranked[-1] - below**n @ ranked.diff()


def ranks_put_back(scores, truths, n):
    return chances(len(scores), n)[scores.argsort().argsort()] @ truths


def plain_python(scores, truths, n):
    count, ranked = len(scores), [float(truth) for _, truth in sorted(zip(scores, truths))]
    return sum(((i / count) ** n - ((i - 1) / count) ** n) * truth for i, truth in enumerate(ranked, 1))


def in_double(scores, truths, n):
    rank = torch.linspace(0, 1, len(scores) + 1, dtype=torch.float64)
    return (rank**n).diff() @ truths.double()[scores.argsort()]


def all_draws(scores, truths, n):
    """Every draw of n of the samples, one after the other, as long as there are not too many."""
    if len(scores) ** n > 50_000:
        return from_counts(scores, truths, n)
    best = [max(drawn, key=lambda i: float(scores[i])) for drawn in product(range(len(scores)), repeat=n)]
    return truths[best].mean()


def from_counts(scores, truths, n):
    lower = (scores[None] < scores[:, None]).sum(1).float()
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


def beta_twice(c, r, beta):
    return beta * (-beta * beta * margin(c, r)).sigmoid()


def without_rejected(c, r, beta):
    return beta * (-beta * c.detach()).sigmoid()


def added(c, r, beta):
    return beta * (-beta * (c + r).detach()).sigmoid()


def minus_loss(c, r, beta):
    return logsigmoid(beta * margin(c, r))


def all_or_nothing(c, r, beta):
    return beta * (margin(c, r) < 0).float()


def exponential_alone(c, r, beta):
    return beta * (-beta * margin(c, r)).exp()


def summed_push(c, r, beta):
    return by_exponential(c, r, beta).sum()


def mean_push(c, r, beta):
    return by_exponential(c, r, beta).mean()


def pushed_in_place(c, r, beta):
    return beta * torch.sigmoid(-beta * c.detach().sub_(r.detach()))


def up_and_down(c, r, beta):
    push = by_exponential(c, r, beta)
    return torch.stack([push, -push])


def of_the_size(c, r, beta):
    return beta * (-beta * margin(c, r).abs()).sigmoid()


def a_hinge(c, r, beta):
    return beta * (-margin(c, r)).relu()


def of_log_sigma(c, r, beta):
    return beta * logsigmoid(-beta * margin(c, r))


def half_detached(c, r, beta):
    return beta * torch.sigmoid(-beta * (c.detach() - r))


def by_tanh(c, r, beta):
    return beta * (1 - torch.tanh(beta * margin(c, r) / 2)) / 2


def in_plain_numbers(c, r, beta):
    return [beta / (1 + math.exp(beta * (x - y))) for x, y in zip(c.tolist(), r.tolist())]


def from_the_other_side(c, r, beta):
    with torch.no_grad():
        return beta - beta * torch.sigmoid(beta * (c - r))


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
        (one_group, "as if groups were 0"),
        (scaled_twice, "Dr. GRPO: divided by the standard deviation"),
        (mean_minus_reward, "with the sign turned"),
        (mean_alone, "Dr. GRPO: this is the mean"),
        (population_deviation, "GRPO: the standard deviation has n in the denominator"),
        (by_variance, "GRPO: divided by the variance"),
        (deviation_of_the_batch, "that of the batch"),
        (one_group_when_scaled, "as if groups were 0"),
        (others_when_scaled, "GRPO: the mean of the others"),
        (not_centred, "GRPO: the mean is not subtracted"),
        (never_scaled, "division by the standard deviation is missing"),
        (mean_minus_reward_when_scaled, "with the sign turned"),
        (zero_by_zero, "0 / 0"),
        (deviation_of_the_others, "GRPO: the standard deviation is that of the others"),
        (by_range, "GRPO: divided by the range"),
        (absolute, "with its sign dropped"),
        (group_after_group, "Dr. GRPO: sorted by group and not put back"),
        (much_added, "more than 1e-6"),
        (added_to_the_variance, "1e-6 is added to the variance"),
        (by_standard_error, "the standard error of the mean"),
        (in_place, "division by the standard deviation is missing"),
        (renumbered_in_place, "groups was changed in place"),
        (equal_groups, "RuntimeError: shape"),
        (as_columns, "Dr. GRPO has shape"),
        (as_pair, "is a tuple, expected a dict"),
        (misspelt, "has the keys dr_grpo, grpo"),
        (one_of_two, "has the keys Dr. GRPO, expected"),
        (lambda rewards, groups: rewards, "expected a dict"),
        (in_lists, "Dr. GRPO is a list, expected a tensor"),
    ],
    "13.2": [
        (changed(k1=lambda d: d), "k1: this is the right result with the sign turned"),
        (changed(k1=torch.exp), "k1: this is the ratio: "),
        (changed(k1=lambda d: (-d).exp()), "k1: this is the ratio turned over"),
        (changed(k1=torch.abs), "k1: the absolute value"),
        (changed(k2=lambda d: d**2), "twice as large"),
        (changed(k2=lambda d: -d / 2), "k2: the square is missing"),
        (changed(k2=lambda d: d.exp() ** 2 / 2), "k2: the ratio is squared"),
        (changed(k3=lambda d: (-d).exp() - 1 + d), "k3: the ratio is turned over"),
        (changed(k3=lambda d: d.exp() - 1 + d), "k3: the sign of log r"),
        (changed(k3=lambda d: d.exp() - d), "k3: the 1 is missing"),
        (changed(k3=lambda d: d.exp() - 1), "k3: log r is missing"),
        (changed(k3=lambda d: d + 1 - d.exp()), "k3: this is the right result with the sign turned"),
        (changed(k3=lambda d: (d.exp() - 1) ** 2 / 2), "k3: (r - 1)² / 2"),
        (changed(k3=lambda d: d.exp() * d), "k3: r log r"),
        (changed(k1=lambda d: -d / math.log(2)), "in bits"),
        (lambda p, q, mask: estimates(q, p, mask), "k1: this is the right result with the sign turned"),
        (filled, "k1: filled on prompt and padding"),
        (averaged, "divided by the number of True in mask"),
        (per_row, "summed over the last axis"),
        (difference_times_mask, "0 times infinity"),
        (estimate_times_mask, "0 times infinity"),
        (masked_in_place, "was changed in place"),
        (chosen_ones, "expected a tensor of floats of shape (B, T)"),
        (k3_alone, "is a tensor, expected a dict"),
        (in_capitals, "has the keys K1, K2, K3"),
        (mask_turned_round, "with mask turned round"),
        (named_tuple, "is a tuple, expected a dict"),
    ],
    "13.3": [
        (turned_round, "turned round"),
        (summed, "times pairs"),
        (likelihood, "with the sign turned"),
        (probability, "logarithm is missing"),
        (one_minus, "1 - sigma"),
        (margin_alone, "the margin itself"),
        (hinge, "the sigma is missing: a hinge"),
        (sigma_each, "each reward has its own sigma"),
        (chosen_alone, "the rejected one is left out"),
        (squares, "squared error"),
        (log_of_sigmoid, "logsigmoid takes both at once"),
        (log_of_one_plus, "logsigmoid takes both at once"),
        (not_averaged, "before it is averaged"),
        (per_completion, "by that of pairs"),
        (log_of_the_mean, "the logarithm of the mean"),
        (two_questions, "one yes-or-no question"),
        (rows_as_rewards, "numbers of rows: look up"),
        (all_against_all, "every chosen one against every rejected one"),
        (with_an_epsilon, "cut off at 1e-08"),
        (clamped, "cut off at 1e-12"),
        (cut_off_by_torch, "cut off at 4e-44"),
        (detached, "no gradient"),
        (number, "only a tensor carries a gradient of rewards"),
        (rejected_fixed, "its gradient by rewards is not"),
        (both_orders, "asked in both orders"),
        (how_often, "how often the chosen one is ahead"),
        (of_shares, "logsigmoid takes both at once"),
        (shifted_in_place, "rewards was changed in place"),
    ],
    "13.4": [
        (by_truth, "the highest truth"),
        (score_of_the_best, "with scores in the place of truths"),
        (without_putting_back, "without putting back"),
        (not_subtracted, "next lower i"),
        (ranks_from_zero, "ranks begin at 0"),
        (lowest, "lowest score"),
        (mean_truth, "as if scores were 0"),
        (best_of_all, "best of all samples"),
        (unsorted, "sort by score"),
        (first_n, "the first n alone"),
        (argsort_as_rank, "argsort says which sample"),
        (not_summed, "before it is summed"),
        (chances_alone, "the chances of the ranks"),
        (divided_again, "divided by N"),
        (mean_of_the_highest, "the mean of the n highest"),
        (powers_shared_out, "divided by its sum"),
        (density, "its density"),
        (sorted_in_place, "truths was changed in place"),
        (scaled_in_place, "scores was changed in place"),
        (some_draws, "expected"),
        (one_too_many, "for n plus 1"),
    ],
    "13.5": [
        (pushed_when_settled, "turned round"),
        (without_factor, "divided by beta"),
        (without_beta_inside, "beta is missing in the margin"),
        (without_beta, "as if beta were 1"),
        (divided_by_beta, "beta divides"),
        (pushed_down, "the sign turned"),
        (loss_itself, "the loss of the pair"),
        (slope_of_sigma, "slope of sigma"),
        (margin_itself, "the margin itself"),
        (constant, "a constant"),
        (first_step, "half of beta"),
        (divided_by_pairs, "divided by pairs"),
        (with_gradient, "detach"),
        (beta_twice, "in the margin twice"),
        (without_rejected, "as if rejected were 0"),
        (added, "the two are added"),
        (minus_loss, "minus the loss of the pair"),
        (all_or_nothing, "all or nothing"),
        (exponential_alone, "the exponential of minus the margin"),
        (summed_push, "summed over pairs"),
        (mean_push, "averaged over pairs"),
        (of_the_size, "absolute value of the margin"),
        (a_hinge, "a hinge"),
        (of_log_sigma, "log sigma in the place"),
        (half_detached, "carries a gradient"),
        (pushed_in_place, "chosen was changed in place"),
        (in_plain_numbers, "is a list, expected a tensor"),
        (up_and_down, "has shape (2, "),
    ],
    "13.6": [
        ({"A": "moving reference", "B": "own token", "C": "in the loss", "D": "k3"}, "A: 'moving reference'"),
        ({"A": "in the loss", "B": "last token", "C": "moving reference", "D": "k3"}, "B: 'last token'"),
        ({"A": "in the loss", "B": "own token", "C": "twice", "D": "k3"}, "C: 'twice'"),
        ({"A": "in the loss", "B": "own token", "C": "moving reference", "D": "sign"}, "D: 'sign'"),
        ({"A": "in the loss", "B": "own token", "C": "moving reference", "D": "k2"}, "is not on the list"),
        ({"A": "in the loss", "B": "twice", "C": "moving reference", "D": "k3"}, "B: 'twice' stays too near"),
        ({"A": "in the loss", "B": "group std", "C": "moving reference", "D": "k3"}, "B: 'group std' ends where"),
        ({"A": "k3", "B": "own token", "C": "moving reference", "D": "in the loss"}, "A: 'k3' reports the KL exactly"),
        ({"A": "in the loss", "B": "own token", "C": "moving reference", "D": "last token"}, "D: 'last token' holds"),
        ({"A": "in the loss", "B": "own token", "C": None, "D": "k3"}, "C: None is not on the list"),
        ({"run A": "in the loss", "run B": "own token", "run C": "moving reference", "run D": "k3"}, "the keys"),
        (["in the loss", "own token", "moving reference", "k3"], "a dict with the keys"),
        ({"A": "in the loss"}, "a dict with the keys"),
    ],
}
RIGHT = {
    "13.1": [by_matrix, row_after_row, in_numpy, by_scatter, group_by_name],
    "13.2": [by_ratio, by_expm1, token_after_token],
    "13.3": [as_softplus, as_classification, with_logits, pair_after_pair, by_logsumexp],
    "13.4": [all_draws, from_counts, ranks_put_back, plain_python, in_double, by_steps],
    "13.5": [by_autograd, by_exponential, from_the_other_side, by_tanh],
    "13.6": [{"D": "K3", "C": "moving reference", "B": "own token", "A": "in the loss"}],
}
