"""Typical wrong answers to the exercises of lesson 11, and right ones written differently."""

import math

import torch

# 11.1 -----------------------------------------------------------------------------------------------------------------


def with_padding(logprobs, behavior_logprobs, mask):
    return (logprobs - behavior_logprobs).detach().sum(1, keepdim=True).exp() * mask


def with_padding_everywhere(logprobs, behavior_logprobs, mask):
    return (logprobs - behavior_logprobs).detach().sum(1, keepdim=True).exp().expand(mask.shape)


def inverted(logprobs, behavior_logprobs, mask):
    return ((behavior_logprobs - logprobs.detach()) * mask).sum(1, keepdim=True).exp() * mask


def step_by_step(logprobs, behavior_logprobs, mask):
    return (logprobs.detach() - behavior_logprobs).exp() * mask


def prefixes(logprobs, behavior_logprobs, mask):
    return ((logprobs.detach() - behavior_logprobs) * mask).cumsum(1).exp() * mask


def length_normalized(logprobs, behavior_logprobs, mask):
    mean = ((logprobs.detach() - behavior_logprobs) * mask).sum(1) / mask.sum(1)
    return mean.exp()[:, None] * mask


def summed_ratios(logprobs, behavior_logprobs, mask):
    return ((logprobs.detach() - behavior_logprobs).exp() * mask).sum(1, keepdim=True) * mask


def without_exp(logprobs, behavior_logprobs, mask):
    return ((logprobs.detach() - behavior_logprobs) * mask).sum(1, keepdim=True) * mask


def products(logprobs, behavior_logprobs, mask):
    above, below = (torch.where(mask, x.detach().exp(), 1).prod(1) for x in (logprobs, behavior_logprobs))
    return (above / below)[:, None] * mask


def one_number(logprobs, behavior_logprobs, mask):
    return ((logprobs.detach() - behavior_logprobs) * mask).sum(1).exp()


def column(logprobs, behavior_logprobs, mask):
    return one_number(logprobs, behavior_logprobs, mask)[:, None]


def fills_padding(logprobs, behavior_logprobs, mask):
    return column(logprobs, behavior_logprobs, mask).expand(mask.shape)


def with_gradient(logprobs, behavior_logprobs, mask):
    return torch.where(mask, logprobs - behavior_logprobs, 0).sum(1, keepdim=True).exp() * mask


def row_by_row(logprobs, behavior_logprobs, mask):
    result = torch.zeros_like(behavior_logprobs)
    for row, acted in enumerate(mask):
        difference = logprobs[row, acted].sum().item() - behavior_logprobs[row, acted].sum().item()
        result[row, acted] = torch.tensor(difference, dtype=result.dtype).exp()
    return result


def multiplied_away(logprobs, behavior_logprobs, mask):
    return ((logprobs.detach() - behavior_logprobs) * mask).sum(1, keepdim=True).exp() * mask


def averaged_over_columns(logprobs, behavior_logprobs, mask):
    return torch.where(mask, logprobs.detach() - behavior_logprobs, 0).mean(1, keepdim=True).exp() * mask


def behavior_cleared(logprobs, behavior_logprobs, mask):
    behavior_logprobs[~mask] = 0
    return without_tracking(logprobs, behavior_logprobs, mask)


def one_row_after_another(logprobs, behavior_logprobs, mask):
    result = []
    for above, below, acted in zip(logprobs.tolist(), behavior_logprobs.tolist(), mask.tolist()):
        ratio = math.exp(sum(p - q for p, q, now in zip(above, below, acted) if now))
        result.append([ratio if now else 0.0 for now in acted])
    return torch.tensor(result)


def without_tracking(logprobs, behavior_logprobs, mask):
    with torch.no_grad():
        each = (logprobs - behavior_logprobs).masked_fill(~mask, 0)
        return torch.einsum("b,bt->bt", each.sum(1).exp(), mask.to(each))


# 11.2 -----------------------------------------------------------------------------------------------------------------


def from_the_right(values):
    return values.flip(1).cumsum(1).flip(1)


def kept(step_ratios, mask):
    return torch.where(mask, step_ratios, 1)


def prefix_times_to_go(rewards, step_ratios, mask):
    return kept(step_ratios, mask).cumprod(1) * from_the_right(rewards * mask) * mask


def own_ratio_of_each_reward(rewards, step_ratios, mask):
    return from_the_right(step_ratios * rewards * mask) * mask


def lecture(rewards, step_ratios, mask):
    return step_ratios * from_the_right(rewards * mask) * mask


def starts_at_t(rewards, step_ratios, mask):
    result = torch.zeros_like(rewards)
    for t in range(mask.shape[1]):
        onward = kept(step_ratios, mask)[:, t:].cumprod(1)
        result[:, t] = (onward * (rewards * mask)[:, t:]).sum(1) * mask[:, t]
    return result


def one_ratio_short(rewards, step_ratios, mask):
    prefix = kept(step_ratios, mask).cumprod(1).roll(1, 1)
    prefix[:, 0] = 1
    return from_the_right(prefix * rewards * mask) * mask


def past_rewards(rewards, step_ratios, mask):
    return (kept(step_ratios, mask).cumprod(1) * rewards * mask).cumsum(1) * mask


def whole_episode(rewards, step_ratios, mask):
    return (kept(step_ratios, mask).cumprod(1) * rewards * mask).sum(1, keepdim=True) * mask


def whole_ratio(rewards, step_ratios, mask):
    return kept(step_ratios, mask).prod(1, keepdim=True) * from_the_right(rewards * mask) * mask


def padding_pays(rewards, step_ratios, mask):
    return from_the_right(step_ratios.cumprod(1) * rewards) * mask


def not_summed(rewards, step_ratios, mask):
    return kept(step_ratios, mask).cumprod(1) * rewards * mask


def without_ratios(rewards, step_ratios, mask):
    return from_the_right(rewards * mask) * mask


def prefix_of_sums(rewards, step_ratios, mask):
    return from_the_right(masked(masked(step_ratios, mask).cumsum(1) * rewards, mask)) * mask


def prefix_twice(rewards, step_ratios, mask):
    return kept(step_ratios, mask).cumprod(1) * by_triangle(rewards, step_ratios, mask)


def one_step_late(rewards, step_ratios, mask):
    right = by_triangle(rewards, step_ratios, mask)
    return torch.cat([right[:, 1:], torch.zeros_like(right[:, :1])], 1)


def averaged_to_go(rewards, step_ratios, mask):
    return by_triangle(rewards, step_ratios, mask) / mask.sum(1, keepdim=True)


def by_triangle(rewards, step_ratios, mask):
    weighted = masked(kept(step_ratios, mask).cumprod(1) * rewards, mask)
    return weighted @ torch.ones(2 * rewards.shape[1:]).to(rewards).tril() * mask


def backwards(rewards, step_ratios, mask):
    prefix, running = (step_ratios * mask).cumprod(1), torch.zeros(len(rewards), dtype=rewards.dtype)
    result = torch.zeros_like(rewards)
    for t in reversed(range(mask.shape[1])):
        running = running + prefix[:, t] * rewards[:, t]
        result[:, t] = running * mask[:, t]
    return result


def forwards(rewards, step_ratios, mask):
    """G_t = ρ_t (r_t + G_{t+1}), then the ratios of the past in front."""
    result, running = torch.zeros_like(rewards), torch.zeros(len(rewards), dtype=rewards.dtype)
    for t in reversed(range(mask.shape[1])):
        running = torch.where(mask[:, t], step_ratios[:, t] * (rewards[:, t] + running), 0)
        result[:, t] = running
    past = torch.cat([torch.ones_like(rewards[:, :1]), step_ratios.cumprod(1)[:, :-1]], 1)
    return past * result


# 11.3 -----------------------------------------------------------------------------------------------------------------


def masked(values, mask):
    return torch.where(mask, values, 0)


def last_ratios(ratios, mask):
    """Of each row, (B, 1)."""
    return ratios.gather(1, mask.sum(1, keepdim=True) - 1)


def carried_on(ratios, mask):
    return torch.where(mask, ratios, last_ratios(ratios, mask))


def still_acting(ratios, mask):
    return masked(ratios / (masked(ratios, mask).sum(0) / mask.sum(0).clamp(min=1)), mask)


def still_acting_by_rows(ratios, mask):
    result = torch.zeros_like(ratios)
    for t in range(mask.shape[1]):
        acted = mask[:, t]
        if acted.any():
            result[acted, t] = ratios[acted, t] / ratios[acted, t].mean()
    return result


def ended_is_zero(ratios, mask):
    return masked(ratios / masked(ratios, mask).mean(0).clamp(min=1e-300), mask)


def ended_is_one(ratios, mask):
    return masked(ratios / torch.where(mask, ratios, 1).mean(0), mask)


def padding_averaged(ratios, mask):
    return masked(ratios / ratios.mean(0), mask)


def last_column(ratios, mask):
    return masked(ratios / ratios[:, -1].mean(), mask)


def by_the_sums(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).sum(0), mask)


def by_the_sum(ratios, mask):
    return masked(ratios / last_ratios(ratios, mask).sum(), mask)


def by_the_sum_of_those_acting(ratios, mask):
    return masked(ratios / masked(ratios, mask).sum(0).clamp(min=1e-300), mask)


def along_time(ratios, mask):
    return masked(ratios / (masked(ratios, mask).sum(1) / mask.sum(1))[:, None], mask)


def row_sums(ratios, mask):
    return masked(ratios / masked(ratios, mask).sum(1, keepdim=True), mask)


def one_mean(ratios, mask):
    return masked(ratios / ratios[mask].mean(), mask)


def first_step(ratios, mask):
    return masked(ratios / ratios[:, 0].mean(), mask)


def never_masked(ratios, mask):
    return ratios / carried_on(ratios, mask).mean(0)


def never_masked_once(ratios, mask):
    return ratios / last_ratios(ratios, mask).mean()


def carried_everywhere(ratios, mask):
    return carried_on(ratios, mask) / carried_on(ratios, mask).mean(0)


def by_the_largest(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).max(0).values, mask)


def shifted(ratios, mask):
    return masked(ratios - carried_on(ratios, mask).mean(0), mask)


def by_the_others(ratios, mask):
    others = carried_on(ratios, mask)
    return masked(ratios / ((others.sum(0) - others) / (len(ratios) - 1)), mask)


def by_one_mean(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).mean(), mask)


def by_the_median(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).quantile(0.5, dim=0), mask)


def carried_by_cummax(ratios, mask):
    last = torch.where(mask, torch.arange(mask.shape[1]), 0).cummax(1).values
    return mask * ratios / ratios.gather(1, last).mean(0, keepdim=True)


def once_per_episode(ratios, mask):
    return masked(ratios / last_ratios(ratios, mask).mean(), mask)


def step_after_step(ratios, mask):
    result, now = torch.zeros_like(ratios), torch.ones_like(ratios[:, 0])
    for t in range(mask.shape[1]):
        now = torch.where(mask[:, t], ratios[:, t], now)
        result[:, t] = mask[:, t] * now / now.mean()
    return result


def divided_by_all(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).mean(0), mask)


# 11.4 -----------------------------------------------------------------------------------------------------------------


def scaled(log_weights):
    return (log_weights - log_weights.max()).exp()


def straight(log_weights):
    weights = log_weights.exp()
    return weights.sum() ** 2 / (weights**2).sum()


def less(shift):
    def answer(log_weights):
        weights = (log_weights - shift(log_weights)).exp()
        return weights.sum() ** 2 / (weights**2).sum()

    return answer


def a_logarithm(log_weights):
    return 2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)


def in_plain_numbers(log_weights):
    largest = max(log_weights.tolist())
    weights = [math.exp(x - largest) for x in log_weights.tolist()]
    return sum(weights) ** 2 / sum(x * x for x in weights)


def share(log_weights):
    return right_by_shares(log_weights) / len(log_weights)


def upside_down(log_weights):
    return 1 / right_by_shares(log_weights)


def not_squared(log_weights):
    return scaled(log_weights).sum() / (scaled(log_weights) ** 2).sum()


def squares_by_squares(log_weights):
    return (scaled(log_weights) ** 2).sum() / (scaled(log_weights) ** 2).sum()


def perplexity(log_weights):
    p = log_weights.softmax(0)
    return (-(p * p.log()).sum()).exp()


def largest_share(log_weights):
    return 1 / log_weights.softmax(0).max()


def logs_as_weights(log_weights):
    return log_weights.sum() ** 2 / (log_weights**2).sum()


def unbiased_variance(log_weights):
    weights = scaled(log_weights) / scaled(log_weights).mean()
    return len(weights) / (1 + weights.var())


def right_by_shares(log_weights):
    return 1 / (log_weights.softmax(0) ** 2).sum()


def right_by_logarithms(log_weights):
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


# 11.5 -----------------------------------------------------------------------------------------------------------------


def both_sides(ratios, advantages, epsilon=0.2):
    return torch.where((ratios - 1).abs() > epsilon, 0, ratios * advantages)


def turned(ratios, advantages, epsilon=0.2):
    return torch.where(torch.where(advantages < 0, ratios > 1 + epsilon, ratios < 1 - epsilon), 0, ratios * advantages)


def upper_side_of_good(ratios, advantages, epsilon=0.2):
    return torch.where((advantages > 0) & (ratios > 1 + epsilon), 0, ratios * advantages)


def upper_side_of_all(ratios, advantages, epsilon=0.2):
    return torch.where(ratios > 1 + epsilon, 0, ratios * advantages)


def objective(ratios, advantages, epsilon=0.2):
    return torch.minimum(ratios * advantages, ratios.clamp(1 - epsilon, 1 + epsilon) * advantages)


def still_pushes(ratios, advantages, epsilon=0.2):
    return ratios.clamp(1 - epsilon, 1 + epsilon) * advantages


def unclipped(ratios, advantages, epsilon=0.2):
    return ratios * advantages


def without_ratio(ratios, advantages, epsilon=0.2):
    return torch.where(by_autograd(ratios, advantages, epsilon) == 0, 0, advantages)


def maximum(ratios, advantages, epsilon=0.2):
    gone = torch.where(advantages > 0, ratios < 1 - epsilon, ratios > 1 + epsilon)
    return torch.where(gone, 0, ratios * advantages)


def always_a_fifth(ratios, advantages, epsilon=0.2):
    return by_autograd(ratios, advantages, 0.2)


def lower_side_alone(ratios, advantages, epsilon=0.2):
    return torch.where((advantages < 0) & (ratios < 1 - epsilon), 0, ratios * advantages)


def without_advantage(ratios, advantages, epsilon=0.2):
    return torch.where(torch.where(advantages > 0, ratios > 1 + epsilon, ratios < 1 - epsilon), 0, ratios)


def of_logarithms(ratios, advantages, epsilon=0.2):
    moved = ratios.log() * advantages.sign()
    return torch.where(moved > epsilon, 0, ratios * advantages)


def by_sign(ratios, advantages, epsilon=0.2):
    return ratios * advantages * ((ratios - 1) * advantages.sign() <= epsilon)


def around_zero(ratios, advantages, epsilon=0.2):
    gone = torch.where(advantages > 0, ratios > epsilon, ratios < -epsilon)
    return torch.where(gone, 0, ratios * advantages)


def by_autograd(ratios, advantages, epsilon=0.2):
    """The gradient of the objective in log π, asked of autograd."""
    logs = ratios.log().requires_grad_()
    moving = logs.exp()
    value = torch.minimum(moving * advantages, moving.clamp(1 - epsilon, 1 + epsilon) * advantages).sum()
    return torch.autograd.grad(value, logs)[0]


def by_comparison(ratios, advantages, epsilon=0.2):
    free = ratios * advantages
    return free * (free <= ratios.clamp(1 - epsilon, 1 + epsilon) * advantages)


WRONG = {
    "11.1": [
        (with_padding, "padding counts: sum"),
        (with_padding_everywhere, "padding counts, and is filled"),
        (inverted, "inverted"),
        (step_by_step, "each step alone"),
        (prefixes, "prefix ratio"),
        (length_normalized, "mean of the log-ratios"),
        (summed_ratios, "ratios are summed"),
        (without_exp, "exp is missing"),
        (products, "zero in floating point"),
        (one_number, "one number per episode"),
        (column, "a column (B, 1)"),
        (fills_padding, "padding is filled"),
        (with_gradient, "carries a gradient"),
        (multiplied_away, "0 times infinity"),
        (averaged_over_columns, "a mean in the place of a sum"),
        (behavior_cleared, "behavior_logprobs was changed in place"),
    ],
    "11.2": [
        (prefix_times_to_go, "prefix times reward-to-go"),
        (own_ratio_of_each_reward, "the ratio of step t' alone"),
        (lecture, "lecture's per-step form"),
        (starts_at_t, "the product starts at t"),
        (one_ratio_short, "own ratio is left out"),
        (past_rewards, "runs over the past"),
        (whole_episode, "over the whole episode at every step"),
        (whole_ratio, "each reward needs its prefix only"),
        (padding_pays, "padding pays"),
        (not_summed, "not summed"),
        (without_ratios, "as if step_ratios were 1"),
        (prefix_of_sums, "the ratios are summed up"),
        (prefix_twice, "the prefix again"),
        (one_step_late, "one place early along steps"),
        (averaged_to_go, "number of True in each row of mask"),
    ],
    "11.3": [
        (still_acting, "rows still acting: under π"),
        (still_acting_by_rows, "rows still acting: under π"),
        (ended_is_zero, "counts as 0"),
        (ended_is_one, "counts as 1"),
        (padding_averaged, "padding is averaged in"),
        (last_column, "mean of the last column"),
        (by_the_sums, "divided by B"),
        (by_the_sum, "divided by the sum"),
        (by_the_sum_of_those_acting, "divided by the sum over the rows still acting"),
        (along_time, "along time"),
        (row_sums, "each row is divided by its sum"),
        (one_mean, "one mean over all steps"),
        (first_step, "mean of the first step"),
        (never_masked, "padding is filled"),
        (never_masked_once, "padding is filled"),
        (carried_everywhere, "with the ratios carried on"),
        (by_the_largest, "divided by the largest"),
        (by_the_others, "the mean of the others"),
        (by_one_mean, "a mean for each step"),
        (by_the_median, "a median in the place of a mean"),
        (shifted, "mean is subtracted"),
        (lambda ratios, mask: masked(ratios, mask), "come back as they were"),
    ],
    "11.4": [
        (straight, "overflows"),
        (share, "divided by B"),
        (upside_down, "upside down"),
        (not_squared, "the sum above is squared"),
        (squares_by_squares, "square the sum, not the terms"),
        (perplexity, "exp of the entropy"),
        (largest_share, "the largest share"),
        (logs_as_weights, "taken for weights"),
        (unbiased_variance, "unbiased variance"),
        (less(lambda x: x.mean()), "not the mean"),
        (less(lambda x: x.min()), "not the smallest"),
        (less(lambda x: x[0]), "not the first"),
        (a_logarithm, "as a logarithm"),
    ],
    "11.5": [
        (both_sides, "sign of the advantage is ignored"),
        (turned, "sign of the advantage is turned"),
        (upper_side_of_good, "only the upper side"),
        (upper_side_of_all, "whatever the sign"),
        (objective, "value of PPO's objective"),
        (still_pushes, "still pushes"),
        (unclipped, "nothing is clipped"),
        (without_ratio, "divided by ratios"),
        (always_a_fifth, "epsilon is ignored"),
        (around_zero, "compared with ε instead"),
        (lower_side_alone, "only the lower side"),
        (without_advantage, "the advantage is missing"),
        (of_logarithms, "log-ratios are compared"),
    ],
    "11.6": [
        ({"A": "inverted", "B": "padding", "C": "sign", "D": "recomputed"}, "A: 'inverted' would"),
        ({"A": "padding", "B": "recomputed", "C": "sign", "D": "inverted"}, "B: 'recomputed' would"),
        ({"A": "padding", "B": "inverted", "C": "epsilon", "D": "recomputed"}, "C: 'epsilon' would"),
        ({"A": "padding", "B": "inverted", "C": "sign", "D": "no exp"}, "D: 'no exp' would"),
        ({"A": "padding", "B": "inverted", "C": "clip", "D": "recomputed"}, "is not on the list"),
        ({"A": "padding"}, "the keys A, B, C and D"),
        (["padding", "inverted", "sign", "recomputed"], "the answer is a dict"),
    ],
}
RIGHT = {
    "11.1": [row_by_row, one_row_after_another, without_tracking],
    "11.2": [backwards, forwards, by_triangle],
    "11.3": [once_per_episode, step_after_step, divided_by_all, carried_by_cummax],
    "11.4": [right_by_shares, right_by_logarithms, in_plain_numbers],
    "11.5": [by_autograd, by_comparison, by_sign],
    "11.6": [{"D": "Recomputed", "C": " sign", "B": "inverted", "A": "padding"}],
}
