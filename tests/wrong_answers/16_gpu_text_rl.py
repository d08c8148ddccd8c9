"""Answers to lesson 16 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import torch

from ptlearn import policy_gradient as pg

# 16.1 ----------------------------------------------------------------------------------------------------------------


def limit(cached=lambda prompt, new: sum(prompt + step for step in range(new)), reads=lambda rows, new: new,
          rows_cached=lambda rows: rows, tokens=lambda rows, new: rows * new):  # fmt: skip
    """The right formula, but for one of its parts."""

    def answer(rows, prompt, new, weight_bytes, cache_bytes, bandwidth):
        read = reads(rows, new) * weight_bytes + rows_cached(rows) * cache_bytes * cached(prompt, new)
        return tokens(rows, new) / (read / bandwidth)

    return answer


def seconds(rows, prompt, new, weight_bytes, cache_bytes, bandwidth):
    return (new * weight_bytes + rows * cache_bytes * sum(prompt + t for t in range(new))) / bandwidth


def step_by_step(rows, prompt, new, weight_bytes, cache_bytes, bandwidth):
    total = 0.0
    for step in range(new):
        total += (weight_bytes + rows * (prompt + step) * cache_bytes) / bandwidth
    return rows * new / total


# 16.2 ----------------------------------------------------------------------------------------------------------------


def corrected(of):
    """Whatever is made of ratio, advantage and cap; 0 on padding."""

    def answer(advantages, logprobs, sampled_logprobs, mask, cap=2.0):
        log_ratios = torch.where(mask, logprobs.detach() - sampled_logprobs, 0.0)
        return torch.where(mask, of(log_ratios, torch.where(mask, advantages, 0.0), cap), 0.0)

    return answer


def with_gradient(advantages, logprobs, sampled_logprobs, mask, cap=2.0):
    ratios = torch.where(mask, logprobs - sampled_logprobs, 0.0).exp().clamp(max=cap)
    return torch.where(mask, ratios * advantages, 0.0)


def multiplied_away(advantages, logprobs, sampled_logprobs, mask, cap=2.0):
    return (logprobs.detach() - sampled_logprobs).exp().clamp(max=cap) * advantages * mask


def by_minimum(advantages, logprobs, sampled_logprobs, mask, cap=2.0):
    with torch.no_grad():
        ratios = torch.exp(logprobs - sampled_logprobs)
        weights = torch.minimum(ratios, torch.full_like(ratios, cap)) * advantages
        return weights.masked_fill(~mask, 0)


def by_logarithm(advantages, logprobs, sampled_logprobs, mask, cap=2.0):
    weights = torch.zeros_like(advantages)
    logs = (logprobs.detach() - sampled_logprobs)[mask]
    weights[mask] = logs.minimum(torch.tensor(cap).log().to(logs)).exp() * advantages[mask]
    return weights


# 16.3 ----------------------------------------------------------------------------------------------------------------


def kept(rule):
    """Whatever a rule says of a row's reward and the rewards of its group."""

    def answer(rewards, groups):
        return torch.tensor([bool(rule(r, rewards[groups == g], rewards)) for r, g in zip(rewards, groups)])

    return answer


def consecutive(rewards, groups):
    size = len(rewards) // len(groups.unique())
    blocks = rewards.view(-1, size)
    return (blocks.amax(1) > blocks.amin(1)).repeat_interleave(size)


def by_advantage(rewards, groups):
    return pg.standardized(rewards, groups) != 0


def by_scatter(rewards, groups):
    number = groups.unique(return_inverse=True)[1]
    count = int(number.max()) + 1
    low = rewards.new_full((count,), float("inf")).scatter_reduce(0, number, rewards, "amin")
    high = rewards.new_full((count,), -float("inf")).scatter_reduce(0, number, rewards, "amax")
    return (high > low)[number]


def by_dictionary(rewards, groups):
    seen = {}
    for reward, group in zip(rewards.tolist(), groups.tolist()):
        seen.setdefault(group, set()).add(reward)
    return torch.tensor([len(seen[group]) > 1 for group in groups.tolist()])


# 16.4 ----------------------------------------------------------------------------------------------------------------


def dapo(worth=pg.standardized, clip=lambda x, a, low, high: pg.clipped_weights(x, a, epsilon=low, epsilon_high=high),
         ratio=lambda p, q, mask: pg.step_ratio(p, q, mask)):  # fmt: skip
    """The right weights, but for one of their parts."""

    def answer(rewards, groups, logprobs, sampled_logprobs, mask, epsilon=0.2, epsilon_high=0.28):
        advantages = worth(rewards, groups)[:, None].expand(mask.shape)
        ratios = ratio(logprobs.detach(), sampled_logprobs, mask)
        return torch.where(mask, clip(ratios, advantages, epsilon, epsilon_high), 0.0)

    return answer


def centered(rewards, groups):
    return rewards - pg.mean_baseline(rewards, groups=groups)


def biased(rewards, groups):
    found = torch.zeros_like(rewards)
    for group in groups.unique():
        own = groups == group
        found[own] = (rewards[own] - rewards[own].mean()) / (rewards[own].std(unbiased=False) + 1e-6)
    return found


def over_all(rewards, groups):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-6)


def cut(x, a, low, high):
    return x.clamp(1 - low, 1 + high) * a


def by_log_ratio(x, a, low, high):
    return torch.where(torch.where(a > 0, x.log() > high, x.log() < -low), 0.0, x * a)


def inverse_below(x, a, low, high):
    return pg.clipped_weights(x, a, epsilon=1 - 1 / (1 + low), epsilon_high=high)


def whole_text(logprobs, sampled_logprobs, mask):
    logs = torch.where(mask, logprobs - sampled_logprobs, 0.0)
    return logs.sum(1, keepdim=True).exp().expand(mask.shape)


def both_sides(x, a, low, high):
    return torch.where((x >= 1 - low) & (x <= 1 + high), x * a, 0.0)


def objective(x, a, low, high):
    return torch.minimum(x * a, x.clamp(1 - low, 1 + high) * a)


def turned(x, a, low, high):
    return torch.where(torch.where(a > 0, x < 1 - low, x > 1 + high), 0.0, x * a)


def by_hand(rewards, groups, logprobs, sampled_logprobs, mask, epsilon=0.2, epsilon_high=0.28):
    weights = torch.zeros_like(logprobs)
    for row in range(len(rewards)):
        own = rewards[groups == groups[row]]
        advantage = float((rewards[row] - own.mean()) / (own.std() + 1e-6))
        for step in range(int(mask[row].sum())):
            ratio = float((logprobs[row, step] - sampled_logprobs[row, step]).exp())
            past = ratio > 1 + epsilon_high if advantage > 0 else ratio < 1 - epsilon
            weights[row, step] = 0.0 if past else ratio * advantage
    return weights.detach()


def by_autograd(rewards, groups, logprobs, sampled_logprobs, mask, epsilon=0.2, epsilon_high=0.28):
    leaf = torch.where(mask, logprobs.detach(), 0.0).requires_grad_()
    ratios = (leaf - torch.where(mask, sampled_logprobs, 0.0)).exp()
    advantages = standardized_by_hand(rewards, groups)[:, None]
    surrogate = torch.minimum(ratios * advantages, ratios.clamp(1 - epsilon, 1 + epsilon_high) * advantages)
    surrogate[mask].sum().backward()
    return leaf.grad


def standardized_by_hand(rewards, groups):
    """Standardized with the unbiased deviation, group by group."""
    found = torch.empty_like(rewards)
    for group in groups.unique().tolist():
        own = rewards[groups == group]
        found[groups == group] = (own - own.mean()) / (own.std() + 1e-6)
    return found


WRONG = {
    "16.1": [
        (limit(reads=lambda rows, new: 1), "read once in all"),
        (limit(reads=lambda rows, new: rows * new), "read for every row"),
        (limit(rows_cached=lambda rows: 1), "cache of one row alone"),
        (limit(rows_cached=lambda rows: 0), "cache is missing"),
        (limit(cached=lambda prompt, new: new * prompt), "does not grow"),
        (limit(cached=lambda prompt, new: new * (prompt + new)), "full from the first step"),
        (limit(cached=lambda prompt, new: sum(prompt + step + 1 for step in range(new))), "one token too many"),
        (limit(tokens=lambda rows, new: new), "tokens of one row"),
        (seconds, "these are seconds"),
    ],
    "16.2": [
        (corrected(lambda d, a, cap: (-d).exp().clamp(max=cap) * a), "inverted"),
        (corrected(lambda d, a, cap: d.exp() * a), "not truncated"),
        (corrected(lambda d, a, cap: d.exp().clamp(1 / cap, cap) * a), "cut off below as well"),
        (corrected(lambda d, a, cap: d.clamp(max=cap).exp() * a), "cap is on the logarithm"),
        (corrected(lambda d, a, cap: (d.exp() * a).clamp(max=cap)), "cap is on ratio times advantage"),
        (corrected(lambda d, a, cap: d.sum(1, keepdim=True).exp().clamp(max=cap) * a), "ratio of the whole text"),
        (corrected(lambda d, a, cap: d.exp().clamp(max=2.0) * a), "a cap of 2 always"),
        (corrected(lambda d, a, cap: d.exp().clamp(max=cap)), "advantage is missing"),
        (corrected(lambda d, a, cap: torch.where(d.exp() > cap, 0.0, d.exp()) * a), "0 above the cap"),
        (with_gradient, "gradient"),
        (multiplied_away, "not a number"),
    ],
    "16.3": [
        (kept(lambda r, own, all: own.max() == own.min()), "inverted"),
        (kept(lambda r, own, all: own.max() > 0), "all right are kept"),
        (kept(lambda r, own, all: own.min() < 1), "all wrong are kept"),
        (kept(lambda r, own, all: r > 0), "rows with a reward"),
        (kept(lambda r, own, all: own.max() > own.min() and r > 0), "only rows with a reward"),
        (kept(lambda r, own, all: all.max() > all.min()), "all rows are one group"),
        (kept(lambda r, own, all: own.std() != 0), "a group of one"),
        (kept(lambda r, own, all: own[0] != own[-1]), "first and the last"),
        (consecutive, "in any order"),
        (by_advantage, "at its group's mean"),
    ],
    "16.4": [
        (dapo(clip=lambda x, a, low, high: pg.clipped_weights(x, a, epsilon=low)), "clip is symmetric"),
        (dapo(clip=lambda x, a, low, high: pg.clipped_weights(x, a, epsilon=high)), "both sides"),
        (dapo(clip=lambda x, a, low, high: pg.clipped_weights(x, a, epsilon=high, epsilon_high=low)), "swapped"),
        (dapo(clip=lambda x, a, low, high: x * a), "nothing is clipped"),
        (dapo(clip=cut), "still pushes"),
        (dapo(clip=objective), "value of PPO's objective"),
        (dapo(clip=by_log_ratio), "log-ratios are compared"),
        (dapo(clip=inverse_below), "lower end"),
        (dapo(ratio=whole_text), "ratio of the whole text"),
        (dapo(clip=both_sides), "whatever the sign"),
        (dapo(clip=turned), "sign of the advantage is turned"),
        (dapo(ratio=lambda p, q, mask: pg.step_ratio(q, p, mask)), "inverted"),
        (dapo(worth=centered), "not divided"),
        (dapo(worth=biased), "biased standard deviation"),
        (dapo(worth=over_all), "one group"),
        (dapo(worth=lambda rewards, groups: rewards), "rewards themselves"),
    ],
}
RIGHT = {
    "16.1": [step_by_step, limit()],
    "16.2": [by_minimum, by_logarithm],
    "16.3": [by_scatter, by_dictionary],
    "16.4": [by_hand, by_autograd],
}
