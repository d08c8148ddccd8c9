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

from ptlearn.rollout import take_rows

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


# 13.4 -----------------------------------------------------------------------------------------------------------------


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


# 13.7 -----------------------------------------------------------------------------------------------------------------


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


# 13.9 -----------------------------------------------------------------------------------------------------------------


def updating(change=""):
    """One update, with one thing done wrong."""

    def answer(policy, optimizer, rollout, groups, known, beta, epochs):
        mask, shares, fixed = rollout.mask, [], None
        count = mask.sum(1, keepdim=True)
        source = action_logprobs_of(policy, rollout).detach() if change == "penalty of now" else rollout.logprobs
        gap = source - known
        gap = gap * mask if change == "multiplied" else gap if change == "padded" else torch.where(mask, gap, 0)
        gap = {"k2": gap**2 / 2, "k3": torch.expm1(-gap) + gap}.get(change, gap)
        gap = gap / count if change == "mean" else gap
        charge = {"no penalty": 0.0, "added": -beta, "no beta": 1.0}.get(change, beta)
        paid = rollout.rewards.sum(1) - charge * gap.sum(1)
        same = torch.ones_like(groups[:, None] == groups) if change == "batch" else groups[:, None] == groups
        same = same.to(paid)
        size = same.sum(1)
        advantages = paid if change == "plain" else paid - same @ paid / size
        advantages = advantages * size / (size - 1) if change == "others" else advantages
        if change == "scaled":
            spread = ((same * (paid - (same @ paid / size)[:, None]) ** 2).sum(1) / (size - 1)).sqrt()
            advantages = advantages / (spread + 1e-6)
        for _ in range(1 if change == "one" else epochs):
            logprobs = action_logprobs_of(policy, rollout)
            ratios = torch.where(mask, logprobs.detach() - rollout.logprobs, 0).exp()
            ratios = torch.ones_like(ratios) if change == "fresh" else ratios
            A = advantages[:, None].expand(mask.shape)
            gone = used_up(ratios, A, 0.2, 0.2) & (change != "free")
            weights = torch.where(gone | ~mask, 0, ratios * A)
            fixed = weights if fixed is None else fixed
            weights = fixed if change == "frozen" else weights
            zero = (weights == 0) if change == "padded share" else (weights == 0)[mask]
            shares.append(float(zero.double().mean()))
            by = {"per token": mask.sum(), "summed": 1, "length": len(mask) * count}.get(change, len(mask))
            loss = -(weights * logprobs / by).sum()
            if change != "adding":
                optimizer.zero_grad()
            (-loss if change == "sign" else loss).backward()
            if change != "no step":
                optimizer.step()
        kept = [1 - share for share in shares]
        return {"nothing": None, "last": shares[-1:], "kept": kept}.get(change, shares)

    return answer


def updating_by_the_objective(policy, optimizer, rollout, groups, known, beta, epochs):
    """The published form: autograd through min and clip."""
    paid = torch.where(rollout.mask, rollout.rewards - beta * (rollout.logprobs - known), 0).sum(1)
    mean = torch.stack([paid[groups == g].mean() for g in groups])
    A, shares = (paid - mean)[:, None], []
    for _ in range(epochs):
        ratios = torch.where(rollout.mask, action_logprobs_of(policy, rollout) - rollout.logprobs, 0).exp()
        gains = torch.minimum(ratios * A, ratios.clamp(0.8, 1.2) * A)
        dead = torch.where(A > 0, ratios > 1.2, ratios < 0.8)
        shares.append(dead[rollout.mask].sum().item() / int(rollout.mask.sum()))
        optimizer.zero_grad()
        (-torch.where(rollout.mask, gains, 0).sum(1).mean()).backward()
        optimizer.step()
    return shares


# 13.11 ----------------------------------------------------------------------------------------------------------------


def tilted(score=lambda q, r, beta: q + r / beta, normalise=True):
    """exp of a score, each prompt's texts normalised."""

    def answer(log_reference, returns, groups, beta):
        parts = score(log_reference, returns, beta).exp()
        same = (groups[:, None] == groups).to(parts)
        same = torch.ones_like(same) if normalise == "all" else same
        return parts / (same @ parts) if normalise else parts

    return answer


def best_text(log_reference, returns, groups, beta):
    return torch.stack([(r == returns[groups == g].max()).double() for r, g in zip(returns, groups)])


def by_numbers(log_reference, returns, groups, beta):
    parts = [math.exp(q + r / beta) for q, r in zip(log_reference.tolist(), returns.tolist())]
    ids = groups.tolist()
    return torch.tensor([p / sum(x for x, h in zip(parts, ids) if h == g) for p, g in zip(parts, ids)])


def by_logsumexp_of_prompts(log_reference, returns, groups, beta):
    score = log_reference + returns / beta
    out = torch.where(groups[:, None] == groups, score, -torch.inf).logsumexp(1)
    return (score - out).exp()


# 13.10 ----------------------------------------------------------------------------------------------------------------


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


# 13.13 ----------------------------------------------------------------------------------------------------------------


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


# 13.2 -----------------------------------------------------------------------------------------------------------------


def used_up(ratios, advantages, low, high):
    return torch.where(advantages > 0, ratios > 1 + high, ratios < 1 - low)


def weighed(change=""):
    """The five forms, with one thing done wrong."""

    def answer(logprobs, behavior_logprobs, advantages, mask, form, low=0.2, high=0.2):
        gaps = logprobs - behavior_logprobs
        logs = gaps * mask if change == "multiplied" else torch.where(mask, gaps, 0)
        logs = -logs if change == "inverted" else logs
        count = mask.sum(1, keepdim=True)
        width = mask.shape[1] if change == "width" else count
        whole, token = logs.sum(1, keepdim=True).exp(), logs.exp()
        mean = (logs.sum(1, keepdim=True) / width).exp()
        if change == "arithmetic":
            mean = torch.where(mask, token, 0).sum(1, keepdim=True) / count
        if change == "whole as prefix":
            whole = logs.cumsum(1).exp()
        if change == "sequence is whole":
            mean = whole
        if change == "sequence is token":
            mean = token
        if change == "token is sequence":
            token = mean
        ends = (high if change == "low is high" else low), (low if change == "high is low" else high)
        if form == "token":
            found = token * advantages
            if change == "clip everything":
                found = torch.where(used_up(token, advantages, *ends), 0, found)
        elif form == "trajectory":
            found = (
                mean if change == "trajectory is mean" else token if change == "always token" else whole
            ) * advantages
        elif form == "stopped":
            held = token.clamp(1 - low, 1 + high)
            held = token.clamp(max=1 + high) if change == "upper alone" else held
            found = (token if change == "never stopped" else held) * advantages
            if change == "stopped is clip":
                found = torch.where(used_up(token, advantages, low, high), 0, token * advantages)
            if change == "no advantage":
                found = held.expand(mask.shape)
        else:
            ratio = token if form == "clip" else mean
            gone = used_up(ratio, -advantages if change == "turned" else advantages, *ends)
            if change == "both sides":
                gone = (ratio > 1 + high) | (ratio < 1 - low)
            found = ratio * advantages
            if change == "clamped":
                found = ratio.clamp(1 - low, 1 + high) * advantages
            elif change == "value":
                found = torch.minimum(found, ratio.clamp(1 - low, 1 + high) * advantages)
            elif change != "never clipped":
                found = torch.where(gone, 0, found)
            if form == "sequence" and change != "no length":
                found = found / count
            if form == "clip" and change == "clip by length":
                found = found / count
        return found.expand(mask.shape) * mask if change == "multiplied" else torch.where(mask, found, 0)

    return answer


def by_autograd_of_objective(logprobs, behavior_logprobs, advantages, mask, form, low=0.2, high=0.2):
    ours = torch.where(mask, logprobs, 0).requires_grad_()
    logs = ours - torch.where(mask, behavior_logprobs, 0)
    if form == "stopped":
        value = logs.detach().exp().clamp(1 - low, 1 + high) * advantages * ours
    elif form == "sequence":
        s = (logs.sum(1) / mask.sum(1)).exp()
        A = advantages.sum(1) / mask.sum(1)
        value = torch.minimum(s * A, s.clamp(1 - low, 1 + high) * A)
    elif form == "trajectory":
        value = logs.sum(1).exp() * advantages.sum(1) / mask.sum(1)
    else:
        value = logs.exp() * advantages
        if form == "clip":
            value = torch.minimum(value, logs.exp().clamp(1 - low, 1 + high) * advantages)
    (found,) = torch.autograd.grad(value.sum(), ours)
    return torch.where(mask, found, 0)


def token_by_token(logprobs, behavior_logprobs, advantages, mask, form, low=0.2, high=0.2):
    result = torch.zeros_like(advantages)
    for i, acted in enumerate(mask.tolist()):
        places = [t for t, m in enumerate(acted) if m]
        logs = {t: float(logprobs[i, t] - behavior_logprobs[i, t]) for t in places}
        for t in places:
            A, whole = float(advantages[i, t]), sum(logs.values())
            x = math.exp({"trajectory": whole, "sequence": whole / len(places)}.get(form, logs[t]))
            dead = form in ("clip", "sequence") and (x > 1 + high if A > 0 else x < 1 - low)
            x = min(max(x, 1 - low), 1 + high) if form == "stopped" else x
            result[i, t] = 0 if dead else x * A / (len(places) if form == "sequence" else 1)
    return result


# 13.3 -----------------------------------------------------------------------------------------------------------------


def choosing(keep=lambda r: len(r.unique()) > 1, order=lambda groups: [*dict.fromkeys(groups.tolist())],
             cut=lambda found, wanted: found[:wanted]):  # fmt: skip
    """Rows of the groups that are kept, from rules."""

    def answer(rewards, groups, wanted):
        found = cut([g for g in order(groups) if keep(rewards[groups == g])], wanted)
        stay = torch.zeros(len(groups), dtype=torch.bool)
        for g in found:
            stay = stay | (groups == g)
        return stay

    return answer


def not_refilled(rewards, groups, wanted):
    first = [*dict.fromkeys(groups.tolist())][:wanted]
    varied = [g for g in first if rewards[groups == g].max() > rewards[groups == g].min()]
    return torch.isin(groups, torch.tensor(varied))


def some_rows(rewards, groups, wanted):
    stay = choosing(cut=lambda found, n: found)(rewards, groups, wanted)
    return stay & (stay.cumsum(0) <= wanted)


def numbers_of_rows(rewards, groups, wanted):
    return choosing()(rewards, groups, wanted).nonzero()[:, 0]


def by_sets(rewards, groups, wanted):
    seen = {}
    for reward, g in zip(rewards.tolist(), groups.tolist()):
        seen.setdefault(g, set()).add(reward)
    chosen = [g for g, values in seen.items() if len(values) > 1][:wanted]
    return torch.tensor([g in chosen for g in groups.tolist()])


def by_deviation(rewards, groups, wanted):
    same = groups[:, None] == groups
    high = torch.where(same, rewards, -math.inf).max(1).values
    low = torch.where(same, rewards, math.inf).min(1).values
    first = same.to(torch.uint8).argmax(1)  # the row in which each row's group begins
    begins = (first == torch.arange(len(groups))) & (high > low)
    return (high > low) & (begins.cumsum(0)[first] <= wanted)


# 13.5 -----------------------------------------------------------------------------------------------------------------


def placed(change=None, **rules):
    """The six places, some of them by another rule (logs, mask)."""

    def answer(log_ratios, mask):
        x = log_ratios * mask if change == "multiplied" else torch.where(mask, log_ratios, 0)
        k = {"k1": x, "k2": x**2 / 2, "k3": torch.expm1(-x) + x}
        d = {"k1": torch.ones_like(x), "k2": x, "k3": -torch.expm1(-x)}
        found = {f"{n} in the rewards": k[n].sum(1, keepdim=True) * mask for n in k}
        found |= {f"{n} in the loss": d[n] * mask for n in d}
        names = {"r1": "k1 in the rewards", "r2": "k2 in the rewards", "r3": "k3 in the rewards",
                 "l1": "k1 in the loss", "l2": "k2 in the loss", "l3": "k3 in the loss"}  # fmt: skip
        return found | {names[key]: rule(x, mask) for key, rule in rules.items()}

    return answer


def along(values, mask):
    return values.sum(1, keepdim=True) * mask


def places_by_autograd(log_ratios, mask):
    x = torch.where(mask, log_ratios, 0).requires_grad_()
    k, found = {"k1": x, "k2": x**2 / 2, "k3": (-x).exp() - 1 + x}, {}
    for name, value in k.items():
        (slope,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
        found[f"{name} in the loss"] = torch.where(mask, slope, 0)
        found[f"{name} in the rewards"] = torch.where(mask, value.detach().sum(1, keepdim=True), 0)
    return found


def places_by_rows(log_ratios, mask):
    value = {"k1": lambda x: x, "k2": lambda x: x * x / 2, "k3": lambda x: math.exp(-x) - 1 + x}
    slope = {"k1": lambda x: 1.0, "k2": lambda x: x, "k3": lambda x: 1 - math.exp(-x)}
    found = {}
    for name in value:
        sums, own = [], []
        for row, acted in zip(log_ratios.tolist(), mask.tolist()):
            total = sum(value[name](x) for x, m in zip(row, acted) if m)
            sums.append([total if m else 0.0 for m in acted])
            own.append([slope[name](x) if m else 0.0 for x, m in zip(row, acted)])
        found |= {f"{name} in the rewards": torch.tensor(sums), f"{name} in the loss": torch.tensor(own)}
    return found


# 13.6 -----------------------------------------------------------------------------------------------------------------


def all_tokens(rollout):
    return torch.cat([rollout.observations[:, :1], rollout.actions], 1)


def places_of_last(mask):
    return torch.where(mask, torch.arange(1, mask.shape[1] + 1), 0).max(1).values


def read_at(place, rule=None):
    """The head at a place (mask) -> (B,) of each row's tokens."""

    def answer(trunk, head, rollout):
        states, last = trunk(all_tokens(rollout)), place(rollout.mask)
        found = head(states[torch.arange(len(last)), last])[:, 0]
        return rule(found, head) if rule else found

    return answer


def of_the_observations(trunk, head, rollout):
    last = places_of_last(rollout.mask) - 1
    return head(trunk(rollout.observations)[torch.arange(len(last)), last])[:, 0]


def of_the_actions(trunk, head, rollout):
    last = places_of_last(rollout.mask) - 1
    return head(trunk(rollout.actions)[torch.arange(len(last)), last])[:, 0]


def mean_of_completion(trunk, head, rollout):
    states = trunk(all_tokens(rollout))[:, 1:]
    return head((states * rollout.mask[..., None]).sum(1) / rollout.mask.sum(1, keepdim=True))[:, 0]


def mean_of_all(trunk, head, rollout):
    return head(trunk(all_tokens(rollout)).mean(1))[:, 0]


def sum_of_completion(trunk, head, rollout):
    return (head(trunk(all_tokens(rollout)))[:, 1:, 0] * rollout.mask).sum(1)


def trunk_without_gradient(trunk, head, rollout):
    with torch.no_grad():
        states = trunk(all_tokens(rollout))
    last = places_of_last(rollout.mask)
    return head(states[torch.arange(len(last)), last])[:, 0]


def as_column(trunk, head, rollout):
    last = places_of_last(rollout.mask)
    return head(trunk(all_tokens(rollout))[torch.arange(len(last)), last])


def row_by_row(trunk, head, rollout):
    found = []
    for seen, done, acted in zip(rollout.observations, rollout.actions, rollout.mask):
        end = int(acted.nonzero().max())
        tokens = torch.cat([seen[:1], done[: end + 1]])
        found.append(head(trunk(tokens[None])[0, -1])[0])
    return torch.stack(found)


def by_gather(trunk, head, rollout):
    values = head(trunk(all_tokens(rollout))).squeeze(-1)
    steps = torch.arange(rollout.mask.shape[1])
    last = (steps * rollout.mask).argmax(1, keepdim=True) + 1
    return values.gather(1, last)[:, 0]


# 13.8 -----------------------------------------------------------------------------------------------------------------


def fitting(change=""):
    """The training of a reward model, with one thing done wrong."""

    def answer(trunk, head, optimizer, rollout, chosen, rejected, batches):
        losses = []
        for batch in batches[:1] if change == "one" else batches:
            batch = torch.arange(len(chosen)) if change == "all" else batch
            batch = torch.arange(len(batch)) if change == "from zero" else batch
            states = trunk(all_tokens(rollout))
            states = states.detach() if change == "frozen" else states
            last = places_of_last(rollout.mask)
            rewards = head(states[torch.arange(len(last)), last])[:, 0]
            margins = rewards[chosen[batch]] - rewards[rejected[batch]]
            margins = -margins if change == "swapped" else margins
            each = (1 - margins).clamp(min=0) if change == "hinge" else softplus(-margins)
            loss = each.sum() if change == "summed" else each.sum() / len(chosen) if change == "by all" else each.mean()
            if change != "adding":
                optimizer.zero_grad()
            (-loss if change == "sign" else loss).backward()
            if change != "no step":
                optimizer.step()
            losses.append(loss.item())
        return {"nothing": None, "last": losses[-1:], "mean": sum(losses) / len(losses)}.get(change, losses)

    return answer


def fitting_by_rows(trunk, head, optimizer, rollout, chosen, rejected, batches):
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        total = 0.0
        for pair in batch.tolist():
            piece = take_rows(rollout, torch.stack([chosen[pair], rejected[pair]]))
            better, worse = row_by_row(trunk, head, piece)
            loss = softplus(worse - better) / len(batch)
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        losses.append(total)
    return losses


# 13.12 ----------------------------------------------------------------------------------------------------------------


def directing(change=""):
    """DPO's training, with one thing done wrong."""

    def answer(policy, optimizer, rollout, known, chosen, rejected, batches, beta):
        losses, mask = [], rollout.mask
        for batch in batches[:1] if change == "one" else batches:
            batch = torch.arange(len(chosen)) if change == "all" else batch
            batch = torch.arange(len(batch)) if change == "from zero" else batch
            logprobs = action_logprobs_of(policy, rollout)
            gaps = logprobs - (0 if change == "no reference" else known)
            gaps = gaps * mask if change == "multiplied" else gaps if change == "padded" else torch.where(mask, gaps, 0)
            gaps = gaps.sum(1) / (mask.sum(1) if change == "mean" else 1)
            up, down = gaps[chosen[batch]], gaps[rejected[batch]]
            down = 0 if change == "chosen alone" else down.detach() if change == "rejected fixed" else down
            margins = (1 if change == "no beta" else beta) * (down - up if change == "swapped" else up - down)
            each = softplus(-margins)
            loss = each.sum() if change == "summed" else each.sum() / len(chosen) if change == "by all" else each.mean()
            if change != "adding":
                optimizer.zero_grad()
            (-loss if change == "sign" else loss).backward()
            if change != "no step":
                optimizer.step()
            losses.append(loss.item())
        return {"nothing": None, "last": losses[-1:], "average": sum(losses) / len(losses)}.get(change, losses)

    return answer


def action_logprobs_of(policy, rollout):
    logits = policy(rollout.observations).log_softmax(-1)
    return logits.gather(-1, rollout.actions[..., None])[..., 0]


def directing_by_weights(policy, optimizer, rollout, known, chosen, rejected, batches, beta):
    losses = []
    for batch in batches:
        logprobs = action_logprobs_of(policy, rollout)
        gaps = torch.where(rollout.mask, logprobs.detach() - known, 0).sum(1)
        margins = beta * (gaps[chosen[batch]] - gaps[rejected[batch]])
        push = beta * torch.sigmoid(-margins) / len(batch)
        rows = torch.zeros_like(gaps).index_add(0, chosen[batch], push).index_add(0, rejected[batch], -push)
        optimizer.zero_grad()
        (-(rows[:, None] * logprobs * rollout.mask).sum()).backward()
        optimizer.step()
        losses.append(float(softplus(-margins).mean()))
    return losses


# 13.14 ----------------------------------------------------------------------------------------------------------------


def gradient_of(run, logprobs, known, rewards, mask):
    leaf = logprobs.clone().requires_grad_()
    run(leaf, known, rewards, mask).backward()
    return leaf.grad


def on_the_reference(run):
    logs, mask = torch.zeros(2, 3).double(), torch.ones(2, 3, dtype=torch.bool)
    return torch.allclose(gradient_of(run, logs, logs, torch.ones(2, 3).double(), mask), torch.tensor(-1.5).double())


def one_token(run):
    logs, mask = torch.tensor([[1.0], [-2.0]]).double(), torch.ones(2, 1, dtype=torch.bool)
    found = gradient_of(run, logs, 0 * logs, 0 * logs, mask)
    return torch.allclose(found, 0.2 * logs / 2)


def asks_for_to_go(run):
    logs = torch.tensor([[1.0, -2.0]]).double()
    found = gradient_of(run, logs, 0 * logs, 0 * logs, torch.ones(1, 2, dtype=torch.bool))
    return torch.allclose(found, 0.2 * torch.tensor([[-1.0, -2.0]]).double())


def calls_it_wrongly(run):
    return run(torch.zeros(1, 2)) == 0


def by_two_rows(run):
    logs = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.4, 9.0]]).double()
    known = torch.tensor([[0.4, -1.0, 0.1], [1.0, 2.0, -9.0]]).double()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    rewards = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.0, 0.0]]).double()
    due = [3.0 - 0.2 * (0.6 - 1.0 + 0.4), 0.5 - 0.2 * (-0.7 - 1.6)]
    assert torch.allclose(gradient_of(run, logs, known, rewards, mask), -torch.tensor(due).double()[:, None] * mask / 2)
    return True


def by_expectation(run):
    """Two tokens, three actions each: the mean gradient over all nine texts against that of J − β KL."""
    source = torch.Generator().manual_seed(4)
    logits, other = (torch.randn(4, 3, generator=source).double() for _ in range(2))
    logits.requires_grad_()
    texts = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    states = torch.stack([torch.full((9,), 3), texts[:, 0]], 1)  # the second token's state is the first
    prizes = torch.randn(9, 2, generator=source).double()
    ours, theirs = logits.log_softmax(1)[states, texts], other.log_softmax(1)[states, texts]
    chance, mask = ours.sum(1).exp(), torch.ones(9, 2, dtype=torch.bool)
    goal = (chance * (prizes.sum(1) - 0.2 * (ours - theirs).sum(1))).sum()
    (up,) = torch.autograd.grad(goal, logits, retain_graph=True)
    leaf = ours.detach().clone().requires_grad_()
    (down,) = torch.autograd.grad(run(leaf, theirs.detach(), prizes, mask), leaf)
    (found,) = torch.autograd.grad((-9 * chance.detach()[:, None] * down * ours).sum(), logits)
    return torch.allclose(found, up)


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
        (weighed("inverted"), "inverted"),
        (weighed("never clipped"), "clip: nothing is clipped"),
        (weighed("clamped"), "goes on pushing"),
        (weighed("both sides"), "whatever the sign of A"),
        (weighed("turned"), "clip: the sign of A is turned"),
        (weighed("high is low"), "clip: high is ignored"),
        (weighed("low is high"), "clip: low is ignored"),
        (weighed("value"), "value of the min"),
        (weighed("whole as prefix"), "the prefix's ratio"),
        (weighed("trajectory is mean"), "trajectory: the geometric mean"),
        (weighed("always token"), "trajectory: this is the token's own"),
        (weighed("no length"), "sequence: 1/|y| is missing"),
        (weighed("sequence is whole"), "sequence: the product"),
        (weighed("sequence is token"), "sequence: the ratio of each token"),
        (weighed("arithmetic"), "the arithmetic mean"),
        (weighed("width"), "over the width of the batch"),
        (weighed("stopped is clip"), "CISPO keeps its gradient"),
        (weighed("never stopped"), "stopped: nothing is clipped"),
        (weighed("upper alone"), "the upper side alone"),
        (weighed("no advantage"), "the advantage is missing"),
        (weighed("clip everything"), "token: it is clipped"),
        (weighed("clip by length"), "that is GRPO's business"),
        (weighed("multiplied"), "0 times infinity"),
    ],
    "13.3": [
        (choosing(keep=lambda r: len(r.unique()) == 1), "turned round"),
        (choosing(cut=lambda found, wanted: found), "stop at `wanted`"),
        (choosing(keep=lambda r: True), "equal ones too"),
        (not_refilled, "not refilled"),
        (choosing(order=lambda groups: groups.unique().tolist()), "lowest numbers"),
        (choosing(cut=lambda found, wanted: found[: wanted + 1]), "one group too many"),
        (choosing(cut=lambda found, wanted: found[: wanted - 1]), "one group too few"),
        (choosing(cut=lambda found, wanted: found[-wanted:]), "the last ones"),
        (choosing(keep=lambda r: r.sum() > 0), "all 1 stay"),
        (choosing(keep=lambda r: r.mean() < 1), "none is stay"),
        (some_rows, "whole groups stay together"),
        (numbers_of_rows, "bool"),
    ],
    "13.4": [
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
    "13.5": [
        (placed(r1=lambda x, m: x * m), "k1 in the rewards: each token's own k"),
        (placed(r1=lambda x, m: x.cumsum(1) * m), "summed up to the token"),
        (placed(r1=lambda x, m: x.flip(1).cumsum(1).flip(1) * m), "summed from the token on"),
        (placed(r1=lambda x, m: along(-x, m)), "the sign is turned"),
        (placed(r2=lambda x, m: along(x**2, m)), "the half is missing"),
        (placed(r2=lambda x, m: along(x, m) ** 2 / 2), "the square of the sum"),
        (placed(r2=lambda x, m: along(x, m)), "this is the slope, summed"),
        (placed(r3=lambda x, m: along(torch.expm1(x) - x, m)), "the ratio turned over"),
        (placed(r3=lambda x, m: along(torch.expm1(x) + x, m)), "exp(ℓ) in the place of exp(-ℓ)"),
        (placed(r3=lambda x, m: (torch.expm1(-x) + x).sum(1, keepdim=True).expand_as(x)), "filled on prompt"),
        (placed(l1=lambda x, m: x * m), "k1 in the loss: this is k itself"),
        (placed(l1=lambda x, m: torch.ones_like(x)), "filled on prompt and padding"),
        (placed(l1=lambda x, m: torch.zeros_like(x)), "0: that is what it does on average"),
        (placed(l2=lambda x, m: x**2 / 2), "k2 in the loss: this is k itself"),
        (placed(l2=lambda x, m: x / 2), "the half is left"),
        (placed(l2=lambda x, m: along(x, m)), "summed over the completion"),
        (placed(l3=lambda x, m: (1 + (-x).exp()) * m), "the inner slope is missing"),
        (placed(l3=lambda x, m: (1 - x.exp()) * m), "exp(ℓ) in the place of exp(-ℓ)"),
        (placed(l3=lambda x, m: -(-x).exp() * m), "the 1 is missing"),
        (placed("multiplied"), "0 times infinity"),
    ],
    "13.6": [
        (read_at(lambda m: places_of_last(m) - 1), "one token too early"),
        (of_the_observations, "one token too early"),
        (read_at(lambda m: torch.full((len(m),), m.shape[1])), "the last column"),
        (of_the_actions, "the first observation is left out"),
        (read_at(lambda m: m.sum(1)), "the number of tokens of the completion"),
        (read_at(lambda m: m.to(torch.uint8).argmax(1) + 1), "the first token of the completion"),
        (read_at(lambda m: m.to(torch.uint8).argmax(1)), "at the prompt's last token"),
        (mean_of_completion, "the mean over the completion"),
        (mean_of_all, "the mean over all tokens"),
        (sum_of_completion, "the sum over the completion"),
        (as_column, "a column"),
        (read_at(places_of_last, lambda found, head: found - head.bias[0]), "bias is missing"),
        (read_at(places_of_last, lambda found, head: found.detach()), "detached"),
        (trunk_without_gradient, "the trunk is read without gradient"),
    ],
    "13.7": [
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
    "13.8": [
        (fitting("adding"), "gradients add up"),
        (fitting("sign"), "sign of the loss"),
        (fitting("swapped"), "exchanged"),
        (fitting("one"), "one step only"),
        (fitting("no step"), "no step is made"),
        (fitting("all"), "on all pairs"),
        (fitting("from zero"), "the first pairs"),
        (fitting("summed"), "a sum over the pairs"),
        (fitting("by all"), "by that of the batch"),
        (fitting("frozen"), "the trunk does not learn"),
        (fitting("hinge"), "a hinge"),
        (fitting("nothing"), "nothing is returned"),
        (fitting("last"), "the last loss alone"),
        (fitting("mean"), "their mean"),
    ],
    "13.9": [
        (updating("no penalty"), "the penalty is missing"),
        (updating("added"), "the penalty is added"),
        (updating("no beta"), "beta is missing"),
        (updating("k3"), "the penalty is k3"),
        (updating("k2"), "the penalty is k2"),
        (updating("mean"), "a mean over tokens"),
        (updating("padded"), "counts padding"),
        (updating("penalty of now"), "of the policy as it is"),
        (updating("plain"), "no mean is subtracted"),
        (updating("batch"), "that of the batch"),
        (updating("others"), "mean of the others"),
        (updating("scaled"), "the standard deviation"),
        (updating("length"), "divided by the length"),
        (updating("frozen"), "the weights are computed once"),
        (updating("fresh"), "the ratio is always 1"),
        (updating("free"), "nothing is clipped"),
        (updating("per token"), "number of tokens"),
        (updating("summed"), "not divided"),
        (updating("adding"), "gradients add up"),
        (updating("sign"), "sign of the loss"),
        (updating("one"), "one step only"),
        (updating("no step"), "no step is made"),
        (updating("nothing"), "nothing is returned"),
        (updating("last"), "the last share alone"),
        (updating("kept"), "*not* 0"),
        (updating("padded share"), "padding is counted"),
        (updating("multiplied"), "0 times infinity"),
    ],
    "13.10": [
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
    "13.11": [
        (tilted(normalise=False), "not normalised"),
        (tilted(normalise="all"), "the texts of all prompts"),
        (tilted(lambda q, r, beta: q + r * beta), "beta multiplies"),
        (tilted(lambda q, r, beta: q + r), "beta is missing"),
        (tilted(lambda q, r, beta: r / beta), "the reference is missing"),
        (tilted(lambda q, r, beta: q), "the return is missing"),
        (tilted(lambda q, r, beta: q - r / beta), "the sign of the return"),
        (tilted(lambda q, r, beta: q.exp() + r / beta), "in the exponent"),
        (tilted(lambda q, r, beta: (q + r) / beta), "as a whole"),
        (best_text, "beta = 0"),
    ],
    "13.12": [
        (directing("adding"), "gradients add up"),
        (directing("sign"), "sign of the loss"),
        (directing("swapped"), "exchanged"),
        (directing("one"), "one step only"),
        (directing("no step"), "no step is made"),
        (directing("all"), "on all pairs"),
        (directing("from zero"), "the first pairs"),
        (directing("summed"), "a sum over the pairs"),
        (directing("by all"), "by that of the batch"),
        (directing("no beta"), "beta is missing"),
        (directing("no reference"), "the reference is missing"),
        (directing("chosen alone"), "left out of the margin"),
        (directing("rejected fixed"), "carries no gradient"),
        (directing("mean"), "the mean over the tokens"),
        (directing("padded"), "padding is summed in"),
        (directing("multiplied"), "0 times infinity"),
        (directing("nothing"), "nothing is returned"),
        (directing("last"), "the last loss alone"),
        (directing("average"), "their mean"),
    ],
    "13.13": [
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
    "13.14": [
        (lambda run: True, "a wrong run gets through"),
        (on_the_reference, "a wrong run gets through"),
        (asks_for_to_go, "refuses the right run"),
        (calls_it_wrongly, "TypeError"),
        ("detach", "not callable"),
    ],
}
RIGHT = {
    "13.1": [by_matrix, row_after_row, in_numpy, by_scatter, group_by_name],
    "13.2": [weighed(), by_autograd_of_objective, token_by_token],
    "13.3": [choosing(), by_sets, by_deviation],
    "13.4": [by_ratio, by_expm1, token_after_token],
    "13.5": [placed(), places_by_autograd, places_by_rows],
    "13.6": [read_at(places_of_last), row_by_row, by_gather],
    "13.7": [as_softplus, as_classification, with_logits, pair_after_pair, by_logsumexp],
    "13.8": [fitting(), fitting_by_rows],
    "13.9": [updating(), updating_by_the_objective],
    "13.10": [all_draws, from_counts, ranks_put_back, plain_python, in_double, by_steps],
    "13.11": [tilted(), by_numbers, by_logsumexp_of_prompts],
    "13.12": [directing(), directing_by_weights],
    "13.13": [by_autograd, by_exponential, from_the_other_side, by_tanh],
    "13.14": [by_two_rows, by_expectation],
}
