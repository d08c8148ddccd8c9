"""Typical wrong answers to the exercises of lesson 09, and right ones written differently."""

import torch

# 9.1 ------------------------------------------------------------------------------------------------------------------


def one_by_one(gradients):
    return gradients.var(0)


def mean_over_parameters(gradients):
    return gradients.var(0).mean()


def deviations(gradients):
    return gradients.std(0).sum()


def root_of_it(gradients):
    return gradients.var(0).sum().sqrt()


def not_centred(gradients):
    return (gradients**2).sum(1).mean()


def population(gradients):
    return gradients.var(0, unbiased=False).sum()


def of_the_mean(gradients):
    return gradients.var(0).sum() / len(gradients)


def all_numbers(gradients):
    return gradients.var()


def along_the_rows(gradients):
    return gradients.var(1).sum()


def centred_in_place(gradients):
    gradients -= gradients.mean(0)
    return gradients.square().sum() / (len(gradients) - 1)


def by_shifting(gradients):
    """The sum of squares less that of the means, row by row."""
    total = sum(float(row @ row) for row in gradients) - len(gradients) * float(gradients.mean(0).square().sum())
    return total / (len(gradients) - 1)


def by_the_covariance(gradients):
    return torch.cov(gradients.T).trace()


# 9.2 ------------------------------------------------------------------------------------------------------------------


def backwards(rewards, mask, gamma, start=1.0, first=1.0):
    """A right one, with a factor on the reward of the step itself (start) or on every number (first)."""
    result, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        here = rewards[:, t] * mask[:, t]
        result[:, t] = first * (start * here + gamma * running)
        running = here + gamma * running
    return result * mask


def no_mask(rewards, mask, gamma=1.0):
    return backwards(rewards, torch.ones_like(mask), gamma)


def mask_at_the_end(rewards, mask, gamma=1.0):
    return no_mask(rewards, mask, gamma) * mask


def whole_return(rewards, mask, gamma=1.0):
    return (rewards * mask * gamma ** torch.arange(rewards.shape[1])).sum(1, keepdim=True) * mask


def the_past(rewards, mask, gamma=1.0):
    return (rewards * mask).cumsum(1) * mask


def strictly_later(rewards, mask, gamma=1.0):
    return backwards(rewards, mask, gamma, start=0.0)


def from_the_start(rewards, mask, gamma=1.0):
    return no_gamma(rewards * gamma ** torch.arange(rewards.shape[1]), mask)


def no_gamma(rewards, mask, gamma=1.0):
    return (rewards * mask).flip(1).cumsum(1).flip(1) * mask


def gamma_too_soon(rewards, mask, gamma=1.0):
    return backwards(rewards, mask, gamma, first=gamma)


def without_the_last_column(rewards, mask, gamma=1.0):
    mask = mask.clone()
    mask[:, -1] = False
    return backwards(rewards, mask, gamma)


def added_in_place(rewards, mask, gamma=1.0):
    for t in reversed(range(rewards.shape[1] - 1)):
        rewards[:, t] += gamma * rewards[:, t + 1] * mask[:, t + 1]
    return rewards * mask


def one_after_another(rewards, mask, gamma=1.0):
    result, running = torch.zeros_like(rewards), 0.0
    for row in reversed(range(len(rewards))):
        for t in reversed(range(int(mask[row].sum()))):
            running = float(rewards[row, t]) + gamma * running
            result[row, t] = running
    return result


def row_by_row(rewards, mask, gamma=1.0):
    rows = []
    for row, acted in zip(rewards.tolist(), mask.sum(1).tolist()):
        rows.append([sum(gamma ** (k - t) * row[k] for k in range(t, acted)) for t in range(len(row))])
    return torch.tensor(rows)


def by_a_matrix(rewards, mask, gamma=1.0):
    steps = torch.arange(rewards.shape[1])
    ahead = steps[:, None] - steps
    return torch.where(mask, rewards, 0) @ torch.where(ahead >= 0, gamma ** ahead.clamp(min=0), 0.0).double() * mask


# 9.3 ------------------------------------------------------------------------------------------------------------------


def unweighted(pi, b):
    return b @ (torch.eye(len(pi), dtype=pi.dtype) - pi)


def without_b(pi, b):
    return pi @ (torch.eye(len(pi), dtype=pi.dtype) - pi)


def own_logit_only(pi, b):
    return pi * b


def weighted_twice(pi, b):
    return (pi * pi * b) @ (torch.eye(len(pi), dtype=pi.dtype) - pi)


def in_probabilities(pi, b):
    return pi * b / pi


def turned(pi, b):
    return pi * ((pi * b).sum() - b)


def one_number(pi, b):
    return (pi * b).sum()


def transposed(pi, b):
    return (torch.eye(len(pi), dtype=pi.dtype) - pi) @ (pi * b)


def mean_of_b_first(pi, b):
    return pi * (b - b.mean())


def of_a_softmax_twice(pi, b):
    logits = pi.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((logits.softmax(0) * b).sum(), logits)
    return gradient


def term_by_term(pi, b):
    return (pi * b)[:, None] * (torch.eye(len(pi), dtype=pi.dtype) - pi)


def centred_b(pi, b):
    b -= pi @ b
    return pi * b


def entry_by_entry(pi, b):
    actions = range(len(pi))
    return torch.stack([sum(pi[a] * b[a] * (float(a == k) - pi[k]) for a in actions) for k in actions])


def by_autograd(pi, b):
    logits = pi.log().requires_grad_()
    (gradient,) = torch.autograd.grad((logits.softmax(0) * b).sum(), logits)
    return gradient


# 9.4 ------------------------------------------------------------------------------------------------------------------

LAWFUL = ("value", "past rewards", "steps left")
UNLAWFUL = ("action value", "next value", "length", "batch average")
RIGHT_CHOICE = dict.fromkeys(LAWFUL, True) | dict.fromkeys(UNLAWFUL, False)


def choosing(**changes):
    return RIGHT_CHOICE | {name.replace("_", " "): choice for name, choice in changes.items()}


# 9.5 ------------------------------------------------------------------------------------------------------------------


def with_the_own(returns):
    return returns.mean().expand_as(returns)


def divided_by_all(returns):
    return (returns.sum() - returns) / len(returns)


def only_summed(returns):
    return returns.sum() - returns


def own_in_the_sum(returns):
    return (returns.sum() / (len(returns) - 1)).expand_as(returns)


def the_weight(returns):
    return returns - (returns.sum() - returns) / (len(returns) - 1)


def subtracts_too_late(returns):
    return returns.mean() - returns


def those_before(returns):
    return torch.stack([returns[:i].mean() if i else torch.zeros((), dtype=returns.dtype) for i in range(len(returns))])


def shifted(returns):
    return ((returns.sum() - returns) / (len(returns) - 1)).roll(1)


def equal_ones_left_out(returns):
    others = [returns[returns != own] for own in returns]
    return torch.stack([some.mean() if len(some) else own for some, own in zip(others, returns)])


def by_a_matrix_of_ones(returns):
    count = len(returns)
    return (torch.ones(count, count) - torch.eye(count)).to(returns) @ returns / (count - 1)


def by_leaving_out(returns):
    return torch.stack([torch.cat([returns[:i], returns[i + 1 :]]).mean() for i in range(len(returns))])


# 9.6 ------------------------------------------------------------------------------------------------------------------


def plain_mean(scores, returns):
    return returns.mean()


def by_length(scores, returns):
    return (scores.norm(dim=1) * returns).sum() / scores.norm(dim=1).sum()


def without_a_division(scores, returns):
    return (scores.square().sum(1) * returns).sum()


def mean_of_products(scores, returns):
    return (scores.square().sum(1) * returns).mean()


def one_each(scores, returns):
    return (scores.square() * returns[:, None]).sum(0) / scores.square().sum(0)


def square_of_the_sum(scores, returns):
    weights = scores.sum(1).square()
    return (weights * returns).sum() / weights.sum()


def squared_returns(scores, returns):
    return (scores.square().sum(1) * returns.square()).sum() / scores.square().sum()


def short_ones_count(scores, returns):
    weights = 1 / scores.square().sum(1)
    return (weights * returns).sum() / weights.sum()


def weighted_by(weigh):
    """The average of the returns with weigh(scores) as weights."""
    return lambda scores, returns: (weigh(scores) * returns).sum() / weigh(scores).sum()


def squared_in_place(scores, returns):
    weights = scores.square_().sum(1)
    return (weights * returns).sum() / weights.sum()


def in_a_loop(scores, returns):
    norms = [sum(x * x for x in row) for row in scores.tolist()]
    return sum(norm * reward for norm, reward in zip(norms, returns.tolist())) / sum(norms)


def by_least_squares(scores, returns):
    return torch.linalg.lstsq(scores.reshape(-1, 1), (scores * returns[:, None]).reshape(-1, 1)).solution.squeeze()


WRONG = {
    "9.1": [
        (one_by_one, "one by one"),
        (mean_over_parameters, "mean over the parameters"),
        (deviations, "standard deviations do not"),
        (root_of_it, "under a square root"),
        (not_centred, "not centred"),
        (population, "divide by M - 1"),
        (of_the_mean, "divided by M"),
        (all_numbers, "one mean for all numbers"),
        (along_the_rows, "go down the columns"),
        (lambda gradients: torch.cov(gradients.T).sum(), "all entries of the covariance"),
        (lambda gradients: (gradients - gradients.mean(0)).norm(dim=1).mean(), "distances"),
        (lambda gradients: (gradients**2).sum() / (len(gradients) - 1), "not centred"),
        (lambda gradients: (gradients - gradients.mean()).square().sum() / (len(gradients) - 1), "one mean for all"),
        (lambda gradients: gradients.var(0, keepdim=True).sum(1), "too many"),
        (centred_in_place, "gradients was changed in place"),
    ],
    "9.2": [
        (no_mask, "as if mask were True everywhere"),
        (mask_at_the_end, "padding leaks in"),
        (whole_return, "total return"),
        (the_past, "this is the past"),
        (strictly_later, "the reward of step t itself is missing"),
        (from_the_start, "discounted from the start"),
        (no_gamma, "gamma is ignored"),
        (gamma_too_soon, "gamma is applied to r_t too"),
        (lambda rewards, mask, gamma=1.0: rewards * mask, "these are the rewards"),
        (lambda rewards, mask, gamma=1.0: gamma * no_gamma(rewards, mask), "later rewards are discounted once"),
        (lambda rewards, mask, gamma=1.0: backwards(rewards, ~mask, gamma), "mask turned round"),
        (lambda rewards, mask, gamma=1.0: backwards(rewards, mask, gamma)[:, 0], "one number per step"),
        (lambda rewards, mask, gamma=1.0: backwards(rewards, mask, gamma).tolist(), "is a list"),
        (lambda rewards, mask, gamma: backwards(rewards, mask, gamma), "missing 1 required positional argument"),
        (without_the_last_column, "0 in the last place along steps"),
        (added_in_place, "rewards was changed in place"),
        (one_after_another, "one stream"),
    ],
    "9.3": [
        (unweighted, "pi(a) is missing"),
        (without_b, "b(a) is missing"),
        (own_logit_only, "second part is missing"),
        (weighted_twice, "pi(a) counts twice"),
        (in_probabilities, "softmax of logits"),
        (turned, "with the sign turned"),
        (one_number, "an entry per logit"),
        (transposed, "weigh the rows"),
        (mean_of_b_first, "the plain mean of b"),
        (of_a_softmax_twice, "pi under a softmax"),
        (term_by_term, "not added up"),
        (centred_b, "b was changed in place"),
        (lambda pi, b: b - pi @ b, "divided by pi"),
        (lambda pi, b: pi * b * (1 - pi), "its own logit alone"),
        (lambda pi, b: entry_by_entry(pi, b).numpy(), "is an array"),
    ],
    "9.4": [
        (choosing(value=False), "same for every action"),
        (choosing(action_value=True), "the gradient itself"),
        (choosing(next_value=True), "the state after step t"),
        (choosing(past_rewards=False), "before a_t is drawn"),
        (choosing(steps_left=False), "time passes"),
        (choosing(length=True), "how long the episode gets"),
        (choosing(batch_average=True), "the episode's own"),
        ({name: not choice for name, choice in RIGHT_CHOICE.items()}, "turned round"),
        ({"value": True}, "a dict is expected"),
        (choosing(value="yes"), "neither True nor False"),
    ],
    "9.5": [
        (with_the_own, "its own return is among them"),
        (lambda returns: returns.mean(), "one number"),
        (divided_by_all, "there are N - 1 others"),
        (only_summed, "not their sum"),
        (own_in_the_sum, "taken out of the sum too"),
        (the_weight, "return the baseline"),
        (subtracts_too_late, "before dividing"),
        (those_before, "before this one"),
        (shifted, "not the own"),
        (lambda returns: by_leaving_out(returns).tolist(), "is a list"),
        (lambda returns: returns.sum() - returns / (len(returns) - 1), "divide the difference"),
        (lambda returns: returns.sum() / (len(returns) - 1) - returns, "take it out of the sum first"),
        (lambda returns: by_leaving_out(returns) - returns, "turned round"),
        (lambda returns: returns[1:].mean().expand_as(returns), "not the own"),
        (lambda returns: by_leaving_out(returns)[:, None], "too many"),
        (equal_ones_left_out, "leave out the place"),
    ],
    "9.6": [
        (plain_mean, "the mean return"),
        (by_length, "weighted by the length"),
        (without_a_division, "not divided by the sum of the weights"),
        (mean_of_products, "divided by the number of episodes"),
        (one_each, "a baseline per parameter"),
        (lambda scores, returns: one_each(scores, returns).mean(), "mean of the baselines"),
        (square_of_the_sum, "square the entries first"),
        (squared_returns, "squared returns"),
        (short_ones_count, "long scores make the variance"),
        (weighted_by(lambda scores: scores.abs().sum(1)), "absolute entries"),
        (weighted_by(lambda scores: scores.square().sum(1) ** 2), "fourth power"),
        (weighted_by(lambda scores: (scores - scores.mean(0)).square().sum(1)), "scores less its mean over rows"),
        (lambda scores, returns: in_a_loop(scores, returns.abs()), "returns with its sign dropped"),
        (lambda scores, returns: 2 * in_a_loop(scores, returns), "twice as large"),
        (lambda scores, returns: in_a_loop(scores, returns) - returns.mean(), "the constant itself"),
        (squared_in_place, "scores was changed in place"),
    ],
}
RIGHT = {
    "9.1": [
        by_shifting,
        by_the_covariance,
        lambda gradients: ((gradients - gradients.mean(0)).norm() ** 2) / (len(gradients) - 1),
    ],
    "9.2": [row_by_row, by_a_matrix, lambda rewards, mask, gamma=1.0: backwards(rewards, mask, gamma)],
    "9.3": [entry_by_entry, by_autograd, lambda pi, b: pi * b - pi * (pi @ b)],
    "9.4": [{name: int(choice) for name, choice in RIGHT_CHOICE.items()}],
    "9.5": [by_leaving_out, by_a_matrix_of_ones],
    "9.6": [by_least_squares, in_a_loop],
}
