"""Typical wrong answers to the exercises of lesson 08, and right ones written differently."""

import torch
from torch.nn.functional import cross_entropy, one_hot

# 8.1 ------------------------------------------------------------------------------------------------------------------


def taken(values, actions):
    return values.gather(-1, actions[..., None])[..., 0]


def padding_counted(logits, actions, mask):
    return taken(logits.log_softmax(-1), actions).sum(1)


def mask_inverted(logits, actions, mask):
    return (taken(logits.log_softmax(-1), actions) * ~mask).sum(1)


def raw_logits(logits, actions, mask):
    return (taken(logits, actions) * mask).sum(1)


def softmax_over_time(logits, actions, mask):
    return (taken(logits.log_softmax(1), actions) * mask).sum(1)


def softmax_over_batch(logits, actions, mask):
    return (taken(logits.log_softmax(0), actions) * mask).sum(1)


def probabilities_added(logits, actions, mask):
    return (taken(logits.softmax(-1), actions) * mask).sum(1)


def the_probability(logits, actions, mask):
    return right_probability(logits, actions, mask).exp()


def averaged(logits, actions, mask):
    return right_probability(logits, actions, mask) / mask.sum(1)


def divided_by_the_longest(logits, actions, mask):
    return (taken(logits.log_softmax(-1), actions) * mask).mean(1)


def averaged_with_padding(logits, actions, mask):
    return taken(logits.log_softmax(-1), actions).mean(1)


def averaged_over_the_batch(logits, actions, mask):
    return right_probability(logits, actions, mask).mean()


def negative(logits, actions, mask):
    return -right_probability(logits, actions, mask)


def most_likely(logits, actions, mask):
    return (logits.log_softmax(-1).max(-1).values * mask).sum(1)


def per_step(logits, actions, mask):
    return taken(logits.log_softmax(-1), actions) * mask


def whole_batch(logits, actions, mask):
    return (taken(logits.log_softmax(-1), actions) * mask).sum()


def right_probability(logits, actions, mask):
    """As minus the cross-entropy, with the steps that were not acted set to 0."""
    losses = cross_entropy(logits.flatten(0, 1), actions.flatten(), reduction="none")
    return -losses.view(mask.shape).masked_fill(~mask, 0).sum(1)


def product_then_log(logits, actions, mask):
    return taken(logits.softmax(-1), actions).where(mask, torch.ones((), dtype=logits.dtype)).prod(1).log()


# 8.2 ------------------------------------------------------------------------------------------------------------------


def loop(term):
    """A score built step by step from term(pi, s, a), a row."""

    def answer(pi, states, actions):
        result = torch.zeros_like(pi)
        for s, a in zip(states, actions):
            result[s] += term(pi, s, a)
        return result

    return answer


def hot(pi, a):
    return one_hot(torch.tensor(a), pi.shape[1]).to(pi)


right_score = loop(lambda pi, s, a: hot(pi, a) - pi[s])


def repeated_indices(pi, states, actions):
    result = torch.zeros_like(pi)
    result[states, actions] += 1
    result[states] -= pi[states]
    return result


def assigned(pi, states, actions):
    result = torch.zeros_like(pi)
    for s, a in zip(states, actions):
        result[s, a] = 1
    for s in states:
        result[s] -= pi[s]
    return result


def averaged_score(pi, states, actions):
    return right_score(pi, states, actions) / len(states)


def last_step(pi, states, actions):
    return right_score(pi, states[-1:], actions[-1:])


def every_row(pi, states, actions):
    result = torch.zeros_like(pi)
    for s, a in zip(states, actions):
        result[s, a] += 1
        result -= pi
    return result


def transposed(pi, states, actions):
    return right_score(pi, states, actions).T


def by_autograd(pi, states, actions):
    logits = pi.log().requires_grad_()
    logits.log_softmax(-1)[states, actions].sum().backward()
    return logits.grad


def by_counts(pi, states, actions):
    counts = torch.zeros_like(pi).flatten()
    flat = torch.tensor(states) * pi.shape[1] + torch.tensor(actions)
    counts = counts.index_add(0, flat, torch.ones(len(flat)).to(pi)).view_as(pi)
    return counts - counts.sum(1, keepdim=True) * pi


# 8.3 ------------------------------------------------------------------------------------------------------------------


def factors(rewards, gamma):
    return gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype)


def returns_of(rewards, mask, gamma):
    return (rewards * mask * factors(rewards, gamma)).sum(1)


def to_go(rewards, mask, gamma=1.0):
    result, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = rewards[:, t] * mask[:, t] + gamma * running
        result[:, t] = running * mask[:, t]
    return result


def own_reward(rewards, mask, gamma=1.0):
    return rewards * mask


def own_discounted(rewards, mask, gamma=1.0):
    return rewards * mask * factors(rewards, gamma)


def up_to_now(rewards, mask, gamma=1.0):
    return (rewards * mask * factors(rewards, gamma)).cumsum(1) * mask


def last_reward(rewards, mask, gamma=1.0):
    return rewards.gather(1, mask.sum(1, keepdim=True) - 1) * mask


def last_step_only(rewards, mask, gamma=1.0):
    last = one_hot(mask.sum(1) - 1, mask.shape[1])
    return returns_of(rewards, mask, gamma)[:, None] * last


def padding_earns(rewards, mask, gamma=1.0):
    return (rewards * factors(rewards, gamma)).sum(1, keepdim=True) * mask


def padding_weighted(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, gamma)[:, None].expand_as(rewards)


def mean_reward(rewards, mask, gamma=1.0):
    return (returns_of(rewards, mask, gamma) / mask.sum(1))[:, None] * mask


def no_gamma(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, 1.0)[:, None] * mask


def gamma_late(rewards, mask, gamma=1.0):
    return gamma * returns_of(rewards, mask, gamma)[:, None] * mask


def batch_return(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, gamma).mean() * mask


def no_steps(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, gamma)


def column(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, gamma)[:, None]


def by_loops(rewards, mask, gamma=1.0):
    rows = []
    for row, acted in zip(rewards.tolist(), mask.tolist()):
        steps = sum(acted)
        total = sum(gamma**t * reward for t, reward in enumerate(row[:steps]))
        rows.append([total] * steps + [0.0] * (len(row) - steps))
    return torch.tensor(rows)


# 8.4 ------------------------------------------------------------------------------------------------------------------


def masked(logprobs, weights, mask):
    return logprobs * weights * mask


def plus(logprobs, weights, mask):
    return masked(logprobs, weights, mask).sum() / len(mask)


def over_steps(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).sum() / mask.sum()


def over_entries(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).mean()


def over_own_length(logprobs, weights, mask):
    return -(masked(logprobs, weights, mask).sum(1) / mask.sum(1)).mean()


def not_divided(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).sum()


def unmasked(logprobs, weights, mask):
    return -(logprobs * weights).sum() / len(mask)


def mask_turned(logprobs, weights, mask):
    return -(logprobs * weights * ~mask).sum() / len(mask)


def one_per_episode(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).sum(1)


def cut_off(logprobs, weights, mask):
    return -masked(logprobs.detach(), weights, mask).sum() / len(mask)


def number(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).sum().item() / len(mask)


def by_selection(logprobs, weights, mask):
    return (-logprobs[mask]) @ weights[mask] / mask.shape[0]


def by_einsum(logprobs, weights, mask):
    return -torch.einsum("bt,bt,bt->b", logprobs, weights, mask.to(weights)).mean()


# 8.5 ------------------------------------------------------------------------------------------------------------------


def distance(estimates, exact):
    return estimates.mean(0) - exact


def no_root(estimates, exact):
    return distance(estimates, exact) / estimates.std(0)


def by_count(estimates, exact):
    return distance(estimates, exact) / (estimates.std(0) / len(estimates))


def by_variance_of_mean(estimates, exact):
    return distance(estimates, exact) / (estimates.var(0) / len(estimates))


def by_variance(estimates, exact):
    return distance(estimates, exact) / estimates.var(0)


def biased_spread(estimates, exact):
    return distance(estimates, exact) / (estimates.std(0, correction=0) / len(estimates) ** 0.5)


def unsigned(estimates, exact):
    return right_z(estimates, exact).abs()


def reversed_sign(estimates, exact):
    return -right_z(estimates, exact)


def against_zero(estimates, exact):
    return right_z(estimates, torch.zeros_like(exact))


def pooled(estimates, exact):
    return distance(estimates, exact) / (estimates.var(0).mean() / len(estimates)).sqrt()


def relative(estimates, exact):
    return distance(estimates, exact) / exact


def each_estimate(estimates, exact):
    return (estimates - exact) / estimates.std(0)


def right_z(estimates, exact):
    """One parameter after the other, from the definition."""
    scores = []
    for column, truth in zip(estimates.T.tolist(), exact.tolist()):
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / (len(column) - 1)
        scores.append((mean - truth) / (variance / len(column)) ** 0.5)
    return torch.tensor(scores)


# 8.6 ------------------------------------------------------------------------------------------------------------------

ANSWER = {"A": "own reward", "B": "padding", "C": "reused rollouts", "D": "no log"}

WRONG = {
    "8.1": [
        (padding_counted, "as if mask were True everywhere"),
        (mask_inverted, "with mask turned round"),
        (raw_logits, "without a softmax"),
        (softmax_over_time, "softmax runs over the time steps"),
        (softmax_over_batch, "softmax runs over the episodes"),
        (probabilities_added, "with softmax in the place of log_softmax"),
        (the_probability, "under an exponential"),
        (averaged, "divided by the number of True in each row of mask"),
        (divided_by_the_longest, "divided by T"),
        (averaged_with_padding, "padding included"),
        (averaged_over_the_batch, "mean over the batch"),
        (negative, "with the sign turned"),
        (most_likely, "most likely action"),
        (per_step, "one number per step"),
        (whole_batch, "one number for the whole batch"),
    ],
    "8.2": [
        (loop(lambda pi, s, a: hot(pi, a)), "pi is not subtracted"),
        (loop(lambda pi, s, a: pi[s] - hot(pi, a)), "with the sign turned"),
        (loop(lambda pi, s, a: hot(pi, a) / pi[s]), "derivative by the probabilities"),
        (loop(lambda pi, s, a: hot(pi, a) * (1 - pi[s])), "from the taken action only"),
        (loop(lambda pi, s, a: pi[s, a] * (hot(pi, a) - pi[s])), "gradient of pi"),
        (repeated_indices, "counted once"),
        (assigned, "counted once"),
        (averaged_score, "divided by the length of states"),
        (last_step, "only the last step"),
        (every_row, "visited or not"),
        (transposed, "with rows and columns exchanged"),
    ],
    "8.3": [
        (to_go, "reward-to-go"),
        (own_reward, "own reward alone"),
        (own_discounted, "own"),
        (up_to_now, "rewards up to t"),
        (last_reward, "only the last reward"),
        (last_step_only, "only the last step"),
        (padding_earns, "rewards on padding"),
        (padding_weighted, "weights on padding"),
        (mean_reward, "divided by the number of True in each row of mask"),
        (no_gamma, "as if gamma were 1"),
        (gamma_late, "times gamma"),
        (batch_return, "mean return of the batch"),
        (no_steps, "one number per episode: repeat"),
        (column, "in a column"),
    ],
    "8.4": [
        (plus, "sign is turned"),
        (over_steps, "number of steps"),
        (over_entries, "divided by T"),
        (over_own_length, "own length"),
        (not_divided, "times B"),
        (unmasked, "as if mask were True everywhere"),
        (mask_turned, "with mask turned round"),
        (one_per_episode, "averaged over the last axis"),
        (cut_off, "no gradient"),
        (number, "only a tensor carries a gradient"),
    ],
    "8.5": [
        (no_root, "standard deviation of one estimate"),
        (by_count, "not s / K"),
        (by_variance_of_mean, "variance, not its root"),
        (by_variance, "variance of one estimate"),
        (biased_spread, "it is K - 1"),
        (unsigned, "sign is lost"),
        (reversed_sign, "estimate minus truth"),
        (against_zero, "compared with 0"),
        (pooled, "one spread for all"),
        (distance, "not divided by a standard error"),
        (relative, "relative errors"),
        (each_estimate, "one z-score per estimate"),
    ],
    "8.6": [
        (ANSWER | {"A": "reused rollouts"}, "exactly right at the first update"),
        (ANSWER | {"A": "sign"}, "cosine -1"),
        (ANSWER | {"A": "batch return"}, "weigh the same"),
        (ANSWER | {"B": "inverted mask"}, "no gradient outside the row"),
        (ANSWER | {"B": "own reward"}, "no single step is paid"),
        (ANSWER | {"C": "no log"}, "exactly a quarter"),
        (ANSWER | {"C": "per step"}, "learn well"),
        (ANSWER | {"D": "wrong axis"}, "in every state where the agent acts"),
        (ANSWER | {"D": "padding"}, "one row alone"),
        (ANSWER | {"D": "learning rate"}, "not on the list"),
        ({"A": "own reward"}, "keys A, B, C and D"),
        ("padding", "keys A, B, C and D"),
    ],
}
RIGHT = {
    "8.1": [right_probability, product_then_log],
    "8.2": [right_score, by_autograd, by_counts],
    "8.3": [by_loops],
    "8.4": [by_selection, by_einsum],
    "8.5": [right_z],
    "8.6": [{"D": "No log", "C": "reused  rollouts", "B": "padding", "A": "own reward "}],
}
