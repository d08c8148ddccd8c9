"""Answers to lesson 10 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import torch

from ptlearn.policy_gradient import advantage, n_step_advantage, reward_to_go

# 10.1


def q_alone(P, R, values, gamma):
    return (P * (R + gamma * values)).sum(-1)


def no_discount(P, R, values, gamma):
    return (P * (R + values)).sum(-1) - values[:, None]


def discounts_the_reward(P, R, values, gamma):
    return (gamma * P * (R + values)).sum(-1) - values[:, None]


def turned(P, R, values, gamma):
    return values[:, None] - q_alone(P, R, values, gamma)


def uniform_mean(P, R, values, gamma):
    q = q_alone(P, R, values, gamma)
    return q - q.mean(1, keepdim=True)


def minus_the_best(P, R, values, gamma):
    q = q_alone(P, R, values, gamma)
    return q - q.max(1, keepdim=True).values


def no_reward(P, R, values, gamma):
    return gamma * P @ values - values[:, None]


def myopic(P, R, values, gamma):
    return (P * R).sum(-1) - values[:, None]


def unweighted(P, R, values, gamma):
    return (R + gamma * values).sum(-1) - values[:, None]


def along_the_actions(P, R, values, gamma):
    return q_alone(P, R, values, gamma) - values[: P.shape[1]]


def v_inside_the_sum(P, R, values, gamma):
    return (P * (R + gamma * values) - values[:, None, None]).sum(-1)


def changes_the_rewards(P, R, values, gamma):
    R += gamma * values
    return (P * R).sum(-1) - values[:, None]


def mean_of_residuals(P, R, values, gamma):
    return torch.stack([(P[s] * (R[s] + gamma * values - values[s])).sum(-1) for s in range(len(P))])


def with_einsum(P, R, values, gamma):
    return torch.einsum("sat,sat->sa", P, R) + gamma * torch.einsum("sat,t->sa", P, values) - values.unsqueeze(1)


# 10.2


def following_values(values, mask, last_values):
    following = torch.cat([values[:, 1:], values[:, :1]], 1)
    following[torch.arange(len(mask)), mask.sum(1) - 1] = last_values
    return following


def residuals_with(last):
    """The right residuals, but for the value after the last step."""

    def answer(rewards, values, mask, final_values, terminated, gamma):
        following = following_values(values, mask, last(final_values, terminated))
        return torch.where(mask, rewards + gamma * following - values, 0)

    return answer


def residuals_by(rule):
    """The right next values, but another formula."""

    def answer(rewards, values, mask, final_values, terminated, gamma):
        following = following_values(values, mask, torch.where(terminated, 0, final_values))
        return torch.where(mask, rule(rewards, values, following, gamma), 0)

    return answer


def end_of_the_table(rewards, values, mask, final_values, terminated, gamma):
    last = torch.where(terminated, 0, final_values)
    following = torch.cat([values[:, 1:], last[:, None]], 1)
    return torch.where(mask, rewards + gamma * following - values, 0)


def end_of_the_table_with_zero(rewards, values, mask, final_values, terminated, gamma):
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    return torch.where(mask, rewards + gamma * following - values, 0)


def unmasked(rewards, values, mask, final_values, terminated, gamma):
    following = following_values(values, mask, torch.where(terminated, 0, final_values))
    return rewards + gamma * following * mask - values


def end_of_the_table_as_it_is(rewards, values, mask, final_values, terminated, gamma):
    following = torch.cat([values[:, 1:], final_values[:, None]], 1)
    return torch.where(mask, rewards + gamma * following - values, 0)


def clears_final_values(rewards, values, mask, final_values, terminated, gamma):
    final_values[terminated] = 0
    return torch.where(mask, rewards + gamma * following_values(values, mask, final_values) - values, 0)


def ends_at_every_step(rewards, values, mask, final_values, terminated, gamma):
    following = following_values(values, mask, final_values) * ~terminated[:, None]
    return torch.where(mask, rewards + gamma * following - values, 0)


def final_value_in_full(rewards, values, mask, final_values, terminated, gamma):
    following = following_values(gamma * values, mask, torch.where(terminated, 0, final_values))
    return torch.where(mask, rewards + following - values, 0)


def step_by_step(rewards, values, mask, final_values, terminated, gamma):
    result = torch.zeros_like(rewards)
    for row, length in enumerate(mask.sum(1).tolist()):
        for t in range(length):
            end = 0 if terminated[row] else final_values[row]
            after = values[row, t + 1] if t + 1 < length else end
            result[row, t] = rewards[row, t] + gamma * after - values[row, t]
    return result


def residuals_backwards(rewards, values, mask, final_values, terminated, gamma):
    following, columns = final_values * ~terminated, []
    for reward, value, acted in zip(rewards.T.flip(0), values.T.flip(0), mask.T.flip(0)):
        columns.append((reward + gamma * following - value) * acted)
        following = torch.where(acted, value, following)
    return torch.stack(columns[::-1], 1)


def as_one_step(rewards, values, mask, final_values, terminated, gamma):
    return n_step_advantage(rewards, values, mask, final_values * ~terminated, n=1, gamma=gamma)


# 10.3


def sums_and_counts(observations, targets, mask, states):
    seen = observations[mask]
    sums = torch.zeros(states, dtype=targets.dtype).index_add(0, seen, targets[mask])
    return sums, torch.bincount(seen, minlength=states)


def fits_padding(observations, targets, mask, states):
    sums, counts = sums_and_counts(observations, targets, torch.ones_like(mask), states)
    return sums / counts.clamp(min=1)


def sums_alone(observations, targets, mask, states):
    return sums_and_counts(observations, targets, mask, states)[0]


def over_all_steps(observations, targets, mask, states):
    return sums_alone(observations, targets, mask, states) / mask.sum()


def over_episodes(observations, targets, mask, states):
    return sums_alone(observations, targets, mask, states) / len(mask)


def not_a_number(observations, targets, mask, states):
    sums, counts = sums_and_counts(observations, targets, mask, states)
    return sums / counts


def last_visit(observations, targets, mask, states):
    table = torch.zeros(states, dtype=targets.dtype)
    for state, target in zip(observations[mask].tolist(), targets[mask]):
        table[state] = target
    return table


def first_visits(observations, targets, mask, states):
    first = mask.clone()
    for row in range(len(mask)):
        for t in range(mask.shape[1]):
            first[row, t] &= bool((observations[row, :t] != observations[row, t]).all())
    return right_by_a_loop(observations, targets, first, states)


def largest(observations, targets, mask, states):
    table = torch.zeros(states, dtype=targets.dtype)
    return table.index_reduce(0, observations[mask], targets[mask], "amax", include_self=False)


def mean_of_all(observations, targets, mask, states):
    sums, counts = sums_and_counts(observations, targets, mask, states)
    return torch.where(counts > 0, sums / counts, targets[mask].mean())


def size_from_the_data(observations, targets, mask, states):
    return fits_padding(observations, targets, mask, int(observations.max()) + 1)


def counts_padding(observations, targets, mask, states):
    counts = torch.bincount(observations.flatten(), minlength=states)
    return sums_alone(observations, targets, mask, states) / counts.clamp(min=1)


def repeated_indices(observations, targets, mask, states):
    table = torch.zeros(states, dtype=targets.dtype)
    table[observations[mask]] += targets[mask]
    return table / torch.bincount(observations[mask], minlength=states).clamp(min=1)


def halfway(observations, targets, mask, states):
    table = torch.zeros(states, dtype=targets.dtype)
    for state, target in zip(observations[mask].tolist(), targets[mask]):
        table[state] = (table[state] + target) / 2
    return table


def clears_targets(observations, targets, mask, states):
    targets[~mask] = 0
    return right_by_a_loop(observations, targets, mask, states)


def with_one_hot(observations, targets, mask, states):
    visits = torch.nn.functional.one_hot(observations, states).to(targets) * mask[..., None]
    return torch.einsum("bts,bt->s", visits, targets) / visits.sum((0, 1)).clamp(min=1)


def right_by_a_loop(observations, targets, mask, states):
    found = [targets[mask & (observations == state)] for state in range(states)]
    return torch.stack([some.mean() if len(some) else torch.tensor(0.0) for some in found])


def by_least_squares(observations, targets, mask, states):
    examples = torch.nn.functional.one_hot(observations[mask], states).to(targets.dtype)
    return torch.linalg.pinv(examples) @ targets[mask]


# 10.4


def recursion(keep, carried=lambda residual, running, factor: residual + factor * running, padding=True):
    """A backward recursion with `keep(gamma, lam)` as its factor."""

    def answer(residuals, mask, gamma, lam):
        result, running = torch.zeros_like(residuals), torch.zeros_like(residuals[:, 0])
        for t in reversed(range(residuals.shape[1])):
            running = carried(residuals[:, t], running, keep(gamma, lam))
            running = running * mask[:, t] if padding else running
            result[:, t] = running
        return result

    return answer


right_recursion = recursion(lambda gamma, lam: gamma * lam)
never_masked = recursion(lambda gamma, lam: gamma * lam, padding=False)


def masked_late(residuals, mask, gamma, lam):
    return never_masked(residuals, mask, gamma, lam) * mask


def nothing_carried(residuals, mask, gamma, lam):
    return residuals * mask


def over_the_past(residuals, mask, gamma, lam):
    return right_recursion(residuals.flip(1), mask.flip(1), gamma, lam).flip(1)


def mixture_weight(residuals, mask, gamma, lam):
    return (1 - lam) * right_recursion(residuals, mask, gamma, lam)


def in_one_stream(residuals, mask, gamma, lam):
    result, running = torch.zeros_like(residuals), 0.0
    for row in reversed(range(len(mask))):
        for t in reversed(range(mask.shape[1])):
            if mask[row, t]:
                running = residuals[row, t] + gamma * lam * running
                result[row, t] = running
    return result


def carried_once(residuals, mask, gamma, lam):
    kept = residuals * mask
    later = kept.flip(1).cumsum(1).flip(1) - kept
    return (kept + gamma * lam * later) * mask


def next_one_only(residuals, mask, gamma, lam):
    kept = residuals * mask
    return (kept + gamma * lam * torch.cat([kept[:, 1:], torch.zeros_like(kept[:, :1])], 1)) * mask


def added_in_place(residuals, mask, gamma, lam):
    for t in reversed(range(residuals.shape[1] - 1)):
        residuals[:, t] += gamma * lam * residuals[:, t + 1] * mask[:, t + 1]
    return residuals * mask


def by_recursion(residuals, mask, gamma, lam, t=0):
    if t == residuals.shape[1]:
        return torch.zeros(len(mask), 0)
    rest = by_recursion(residuals, mask, gamma, lam, t + 1)
    carried = rest[:, 0] if rest.shape[1] else torch.zeros(len(mask))
    return torch.cat([torch.where(mask[:, t], residuals[:, t] + gamma * lam * carried, 0)[:, None], rest], 1)


def with_a_matrix(residuals, mask, gamma, lam):
    steps = torch.arange(residuals.shape[1])
    ahead = steps[None] - steps[:, None]
    powers = torch.where(ahead >= 0, torch.tensor(gamma * lam) ** ahead.clamp(min=0), 0)
    return (residuals * mask) @ powers.T * mask


# 10.5


def learning(
    bootstrap=lambda r, final: torch.where(r.terminated, 0, final), returned=lambda r, v, w: (w, v + w), lam=None
):
    """The right answer, but for the value after the last step, what is returned, or lam."""

    def answer(rollout, values, final_values, gamma, lam_given):
        last = bootstrap(rollout, final_values)
        used = lam_given if lam is None else lam
        weights = advantage(rollout.rewards, values, rollout.mask, last, gamma=gamma, lam=used)
        return returned(rollout, values, weights)

    return answer


def rewards_alone(rollout, values, final_values, gamma, lam):
    weights, _ = learning()(rollout, values, final_values, gamma, lam)
    return weights, reward_to_go(rollout.rewards, rollout.mask, gamma=gamma)


def clears_rewards(rollout, values, final_values, gamma, lam):
    rollout.rewards[~rollout.mask] = 0
    return learning()(rollout, values, final_values, gamma, lam)


def fits_everywhere(rollout, values, final_values, gamma, lam):
    last = torch.where(rollout.terminated, 0, final_values)
    weights = advantage(rollout.rewards, values, torch.ones_like(rollout.mask), last, gamma=gamma, lam=lam)
    return weights, values + weights


def defaults(rollout, values, final_values, gamma, lam):
    last = torch.where(rollout.terminated, 0, final_values)
    weights = advantage(rollout.rewards, values, rollout.mask, last)
    return weights, values + weights


def from_residuals(rollout, values, final_values, gamma, lam):
    residuals = residuals_backwards(rollout.rewards, values, rollout.mask, final_values, rollout.terminated, gamma)
    weights = right_recursion(residuals, rollout.mask, gamma, lam)
    return weights, weights + values * rollout.mask


# 10.6

BUGS = {"A": "sign of V", "B": "frozen critic", "C": "through the end", "D": "padding"}

WRONG = {
    "10.1": [
        (q_alone, "this is Q"),
        (no_discount, "as if gamma were 1"),
        (discounts_the_reward, "multiplies the reward too"),
        (turned, "sign is turned"),
        (uniform_mean, "uniform policy"),
        (minus_the_best, "best action's Q"),
        (no_reward, "as if R were 0"),
        (myopic, "as if gamma were 0"),
        (unweighted, "without their probabilities"),
        (along_the_actions, "along the actions"),
        (v_inside_the_sum, "for every next state"),
        (changes_the_rewards, "R was changed in place"),
        (lambda P, R, values, gamma: q_alone(P, R, values, gamma) + values[:, None], "V(s) is added"),
        (lambda P, R, values, gamma: q_alone(P, R, values, gamma) - gamma * values[:, None], "discounted too"),
        (lambda P, R, values, gamma: R.sum(-1) + gamma * P @ values - values[:, None], "rewards are added up without"),
        (lambda P, R, values, gamma: with_einsum(P, R, values, gamma**2), "gamma squared"),
    ],
    "10.2": [
        (residuals_with(lambda final, terminated: final), "a terminated episode goes on"),
        (residuals_with(lambda final, terminated: torch.zeros_like(final)), "as if final_values were 0"),
        (residuals_with(lambda final, terminated: torch.where(terminated, final, 0)), "with terminated turned round"),
        (end_of_the_table, "taken from its padding"),
        (end_of_the_table_with_zero, "final_values are not used"),
        (residuals_by(lambda r, now, then, gamma: r + then - now), "as if gamma were 1"),
        (residuals_by(lambda r, now, then, gamma: gamma * (r + then) - now), "multiplies the reward too"),
        (residuals_by(lambda r, now, then, gamma: r + gamma * then + now), "V(s) is added"),
        (residuals_by(lambda r, now, then, gamma: now - r - gamma * then), "sign is turned"),
        (residuals_by(lambda r, now, then, gamma: r + gamma * then), "V(s) is missing"),
        (unmasked, "padding has residuals"),
        (end_of_the_table_as_it_is, "terminated is not used"),
        (clears_final_values, "final_values was changed in place"),
        (ends_at_every_step, "no next value at any step"),
        (final_value_in_full, "final_values are not discounted"),
        (residuals_by(lambda r, now, then, gamma: r + gamma * now - then), "the values are exchanged"),
        (residuals_by(lambda r, now, then, gamma: gamma * then - now), "as if rewards were 0"),
        (lambda *given: as_one_step(*given).tolist(), "is a list"),
    ],
    "10.3": [
        (fits_padding, "as if mask were True everywhere"),
        (sums_alone, "sums, not means"),
        (over_all_steps, "divided by all steps"),
        (over_episodes, "number of episodes"),
        (not_a_number, "not NaN"),
        (last_visit, "last visit"),
        (first_visits, "first visit"),
        (largest, "largest target"),
        (mean_of_all, "mean of all targets"),
        (size_from_the_data, "expected a tensor of floats of shape (states,)"),
        (counts_padding, "visits on padding are counted"),
        (repeated_indices, "use index_add"),
        (halfway, "running average"),
        (clears_targets, "targets was changed in place"),
        (lambda o, y, mask, states: right_by_a_loop(o, y, mask & (o != 0), states), "in the first place along states"),
        (lambda o, y, mask, states: right_by_a_loop(o, y, ~mask, states), "with mask turned round"),
    ],
    "10.4": [
        (recursion(lambda gamma, lam: lam), "gamma is missing"),
        (recursion(lambda gamma, lam: gamma), "lam is missing"),
        (recursion(lambda gamma, lam: gamma + lam), "are added"),
        (nothing_carried, "nothing is carried"),
        (masked_late, "residuals in the padding"),
        (never_masked, "as if mask were True everywhere"),
        (over_the_past, "over the past"),
        (mixture_weight, "1 - lam"),
        (in_one_stream, "one stream"),
        (carried_once, "count gamma lam once"),
        (next_one_only, "only the next residual"),
        (added_in_place, "residuals was changed in place"),
        (lambda rows, mask, gamma, lam: gamma * lam * right_recursion(rows, mask, gamma, lam), "times gamma times lam"),
        (lambda residuals, mask, gamma, lam: right_recursion(residuals, mask, gamma, 1 - lam), "for 1 - lam"),
        (lambda residuals, mask, gamma, lam: right_recursion(residuals, ~mask, gamma, lam), "mask turned round"),
        (lambda residuals, mask, gamma, lam: right_recursion(residuals, mask, gamma, lam)[:, 0], "first of steps"),
    ],
    "10.5": [
        (learning(returned=lambda r, v, w: (w, w)), "targets are the advantages"),
        (learning(returned=lambda r, v, w: (v + w, w)), "swapped"),
        (learning(returned=lambda r, v, w: ((v + w) * r.mask, v + w)), "no baseline"),
        (learning(returned=lambda r, v, w: (w, v)), "nothing to learn"),
        (learning(returned=lambda r, v, w: w), "one tensor is returned, the weights: return both"),
        (learning(returned=lambda r, v, w: v + w), "one tensor is returned, the targets: return both"),
        (learning(returned=lambda r, v, w: v), "is a tensor, expected a tuple"),
        (learning(returned=lambda r, v, w: (w, w - v)), "the target is V + A"),
        (learning(bootstrap=lambda r, final: final), "bootstraps through the end"),
        (learning(bootstrap=lambda r, final: torch.zeros_like(final)), "cut off are treated as over"),
        (rewards_alone, "sampled rewards alone"),
        (learning(lam=1.0), "as if lam were 1"),
        (learning(lam=0.0), "as if lam were 0"),
        (learning(bootstrap=lambda r, final: torch.where(r.terminated, final, 0)), "the flag is turned"),
        (learning(returned=lambda r, v, w: (w - v, v + w)), "once more"),
        (learning(returned=lambda r, v, w: (-w, v + w)), "weights: this is the right result with the sign turned"),
        (learning(returned=lambda r, v, w: (w, v + w, v)), "has 3 parts"),
        (learning(returned=lambda r, v, w: {"weights": w, "targets": v + w}), "is a dict"),
        (lambda r, v, final, gamma, lam: learning()(r, v, final, lam, gamma), "gamma and lam exchanged"),
        (lambda r, v, final, gamma, lam: learning()(r, torch.zeros_like(v), final, gamma, lam), "values were 0"),
        (clears_rewards, "rollout was changed in place"),
        (fits_everywhere, "rollout.mask were True everywhere"),
        (defaults, "not handed on"),
    ],
    "10.6": [
        (BUGS | {"A": "misplaced gamma"}, "somewhat too high"),
        (BUGS | {"A": "sign of the loss"}, "cosine -1"),
        (BUGS | {"A": "frozen critic", "B": "sign of V"}, "where it started"),
        (BUGS | {"B": "sign of V"}, "without limit"),
        (BUGS | {"C": "cut is over"}, "V after a cut"),
        (BUGS | {"C": "padding", "D": "through the end"}, "says about padding"),
        (BUGS | {"D": "through the end"}, "V after a termination"),
        (BUGS | {"D": "neighbors"}, "start of another"),
        (BUGS | {"D": "gamma"}, "not on the list"),
        ({"A": "sign of V"}, "keys A, B, C and D"),
    ],
}  # fmt: skip
RIGHT = {
    "10.1": [with_einsum, mean_of_residuals],
    "10.2": [step_by_step, residuals_backwards, as_one_step],
    "10.3": [with_one_hot, right_by_a_loop, by_least_squares],
    "10.4": [by_recursion, with_a_matrix, right_recursion],
    "10.5": [from_residuals, learning()],
    "10.6": [{run: f" {bug.upper()}" for run, bug in BUGS.items()}],
}
