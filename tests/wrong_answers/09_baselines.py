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


def by_least_squares(scores, returns):
    return torch.linalg.lstsq(scores.reshape(-1, 1), (scores * returns[:, None]).reshape(-1, 1)).solution.squeeze()


WRONG = {
    "9.1": [
        (one_by_one, "one by one"),
        (mean_over_parameters, "mean over the parameters"),
        (deviations, "standard deviations do not"),
        (root_of_it, "root of the total"),
        (not_centred, "not centred"),
        (population, "divide by M - 1"),
        (of_the_mean, "divided by M once more"),
        (all_numbers, "one mean for all numbers"),
        (along_the_rows, "go down the columns"),
    ],
    "9.2": [
        (no_mask, "padding leaks in"),
        (mask_at_the_end, "padding leaks in"),
        (whole_return, "total return"),
        (the_past, "this is the past"),
        (strictly_later, "the reward of step t itself is missing"),
        (from_the_start, "discounted from the start"),
        (no_gamma, "gamma is ignored"),
        (gamma_too_soon, "gamma is applied to r_t too"),
        (lambda rewards, mask, gamma=1.0: rewards * mask, "these are the rewards"),
    ],
    "9.3": [
        (unweighted, "pi(a) is missing"),
        (without_b, "b(a) is missing"),
        (own_logit_only, "second part is missing"),
        (weighted_twice, "pi(a) counts twice"),
        (in_probabilities, "softmax of logits"),
        (turned, "sign is turned"),
        (one_number, "an entry per logit"),
        (transposed, "weigh the rows"),
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
    ],
}
RIGHT = {
    "9.1": [by_the_covariance, lambda gradients: ((gradients - gradients.mean(0)).norm() ** 2) / (len(gradients) - 1)],
    "9.2": [by_a_matrix, lambda rewards, mask, gamma=1.0: backwards(rewards, mask, gamma)],
    "9.3": [by_autograd, lambda pi, b: pi * b - pi * (pi @ b)],
    "9.4": [{name: int(choice) for name, choice in RIGHT_CHOICE.items()}],
    "9.5": [by_leaving_out],
    "9.6": [by_least_squares],
}
