"""Lesson 08: log p(tau), the score of a softmax policy, REINFORCE's weights and loss, z-scores, four silent bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math
import statistics

import torch

from ptlearn.course.cases import log_softmax, masks, softmax
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise, lab
from ptlearn.policy_gradient import policy_gradient_loss, total_return


def table(rng, *shape, low=-1.5, high=1.5):
    """Nested lists of numbers, none close to 0 when low and high have different signs."""
    if len(shape) > 1:
        return [table(rng, *shape[1:], low=low, high=high) for _ in range(shape[0])]
    return [round(rng.uniform(low, high), 4) + 0.00005 for _ in range(shape[0])]


# 8.1 The probability of a trajectory --------------------------------------------------------------------------------


def log_probability(logits, actions, mask):
    """The package's answer: log pi of the taken actions, summed over the steps that were acted."""
    logprobs = logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return logprobs.where(mask, logprobs.new_zeros(())).sum(1)


def probability_cases(rng):
    """Two sizes, and logits whose exponentials are too large for a float."""
    cases = []
    for batch, steps, actions, lengths, around in ((3, 4, 5, [4, 2, 3], 0), (2, 5, 3, [1, 5], 0), (1, 2, 2, [2], 900)):
        taken = [[rng.randrange(actions) for _ in range(steps)] for _ in range(batch)]
        logits = table(rng, batch, steps, actions, low=around - 1.5, high=around + 1.5)
        cases.append({"logits": logits, "actions": taken, "mask": masks(lengths, steps)})
    return cases


def expect_probability(case):
    logits, actions, mask = case["logits"], case["actions"], case["mask"]
    episodes, steps = range(len(mask)), range(len(mask[0]))

    def total(value, counts=lambda b, t: mask[b][t]):
        """For each episode the sum of value(b, t) over the steps that count."""
        return [sum(value(b, t) for t in steps if counts(b, t)) for b in episodes]

    def logp(b, t):
        return log_softmax(logits[b][t])[actions[b][t]]

    def over_time(b, t):
        return log_softmax([logits[b][other][actions[b][t]] for other in steps])[t]

    def over_batch(b, t):
        return log_softmax([logits[other][t][actions[b][t]] for other in episodes])[b]

    expected = total(logp)
    mistakes = {
        "softmax runs over the time steps: at each step the probabilities of the actions sum to 1": total(over_time),
        "softmax runs over the episodes: at each step the probabilities of the actions sum to 1": total(over_batch),
        "a mean over all T steps, padding included: the logarithm of a product is a sum, where mask is True":
            [x / len(steps) for x in total(logp, lambda b, t: True)],
        "the most likely action is scored: score the one that was taken":
            total(lambda b, t: max(log_softmax(logits[b][t]))),
        "one number per step: add them up over time":
            [[logp(b, t) if mask[b][t] else 0.0 for t in steps] for b in episodes],
        "one number for the whole batch: each episode has its own": sum(expected),
        "the mean over the batch: each episode has a number of its own": sum(expected) / len(expected),
    }
    return expected, mistakes


# 8.2 The score of a softmax policy ----------------------------------------------------------------------------------


def score(pi, states, actions):
    """The package's answer: the sum over steps of one-hot(a_t) - pi(. | s_t), in the row of s_t."""
    states, actions = torch.as_tensor(states), torch.as_tensor(actions)
    result = torch.zeros_like(pi).index_put((states, actions), torch.ones_like(pi[0, 0]), accumulate=True)
    return result - result.sum(1, keepdim=True) * pi


def score_cases(rng):
    """Two paths: a pair (s, a) twice, a state with two different actions, and one state never."""
    cases = []
    for count, actions in ((4, 3), (5, 4)):
        pi = [softmax(row) for row in table(rng, count, actions)]
        first, second, third, *_ = rng.sample(range(count), count)
        a, b, c = rng.sample(range(actions), 3)
        path = [(first, a), (second, b), (first, a), (first, c), (third, rng.randrange(actions)), (second, c)]
        states, taken = zip(*path)
        cases.append({"pi": pi, "states": list(states), "actions": list(taken)})
    return cases


def expect_score(case):
    pi, path = case["pi"], list(zip(case["states"], case["actions"]))
    rows, columns = range(len(pi)), range(len(pi[0]))

    def summed(term, steps=path):
        """sum over steps of term(b, s, a) in the row of s."""
        return [[sum(term(b, s, a) for s, a in steps if s == row) for b in columns] for row in rows]

    def residual(b, s, a):
        return (a == b) - pi[s][b]

    def less_pi(counts, visited):
        return [[counts[s][b] - visited(s) * pi[s][b] for b in columns] for s in rows]

    expected = summed(residual)
    counts = summed(lambda b, s, a: float(a == b))
    pairs_once = [[float((s, b) in path) for b in columns] for s in rows]
    visits = [sum(state == row for state, _ in path) for row in rows]
    once = "a step that repeats is counted once: with repeated indices, `x[i] += 1` adds only once, so add step by step"
    mistakes = {
        "pi is not subtracted: pushing one action up pulls the others of that state down, one-hot minus pi": counts,
        "this is the derivative by the probabilities, 1/pi: the parameters are logits":
            summed(lambda b, s, a: (a == b) / pi[s][b]),
        "pi is subtracted from the taken action only: the softmax takes from all actions of the state":
            summed(lambda b, s, a: (a == b) * (1 - pi[s][b])),
        "this is the gradient of pi: that of log pi has no factor pi(a|s) in front":
            summed(lambda b, s, a: pi[s][a] * residual(b, s, a)),
        "only the last step counts: add up all steps of the trajectory": summed(residual, path[-1:]),
        "pi is subtracted in every state, visited or not: only the row of s_t changes at step t":
            less_pi(counts, lambda s: len(path)),
    }
    mistakes[once] = Alternatives(
        less_pi(pairs_once, lambda s: min(visits[s], 1)),
        less_pi(pairs_once, lambda s: visits[s]),
        less_pi(counts, lambda s: min(visits[s], 1)),
        less_pi(pairs_once, lambda s: sum(pairs_once[s])),
    )
    return expected, mistakes


# 8.3 The weights of REINFORCE ---------------------------------------------------------------------------------------


def weights_cases(rng):
    """Rewards on padding are not 0, so that counting them shows; the first case has no discount."""
    cases = []
    for gamma, steps, lengths in ((1.0, 4, [4, 2, 3]), (0.5, 5, [2, 5])):
        rewards = table(rng, len(lengths), steps, low=0.2, high=2.0)
        cases.append({"rewards": rewards, "mask": masks(lengths, steps), "gamma": gamma})
    return cases


def expect_weights(case):
    rewards, mask, gamma = case["rewards"], case["mask"], case["gamma"]
    steps, lengths = range(len(mask[0])), [sum(row) for row in case["mask"]]

    def spread(value):
        """value(row of rewards, t, its length) on every acted step, 0 on padding."""
        return [[value(row, t, n) if t < n else 0.0 for t in steps] for row, n in zip(rewards, lengths)]

    def discounted(row, n, start=0, power=0):
        return sum(gamma ** (t - start + power) * row[t] for t in range(start, n))

    expected = spread(lambda row, t, n: discounted(row, n))
    returns = [discounted(row, n) for row, n in zip(rewards, lengths)]
    mistakes = {
        "this is the reward-to-go: a better weight, but of lesson 09; here every step gets r(tau) whole":
            spread(lambda row, t, n: discounted(row, n, start=t)),
        "each step gets its own reward alone: a step that leads to the star three steps later earns nothing":
            spread(lambda row, t, n: row[t]),
        "each step gets its own discounted reward alone: every step gets the return of the whole episode":
            spread(lambda row, t, n: gamma**t * row[t]),
        "the rewards up to t: every step gets the return of the whole episode":
            spread(lambda row, t, n: discounted(row, t + 1)),
        "only the last reward counts: the return is the sum over all steps": spread(lambda row, t, n: row[n - 1]),
        "only the last step gets the return: all actions of the episode share it":
            spread(lambda row, t, n: discounted(row, n) if t == n - 1 else 0.0),
        "rewards on padding are counted: nothing is earned after the end":
            spread(lambda row, t, n: discounted(row, len(row))),
        "weights on padding are not 0: nobody acted there": [[x for _ in steps] for x in returns],
        "every episode gets the mean return of the batch: each is weighted by its own":
            spread(lambda row, t, n: statistics.mean(returns)),
        "one number per episode: repeat it on each of its steps, 0 on padding": returns,
        "one number per episode, in a column: repeat it on each of its steps, 0 on padding": [[x] for x in returns],
    }
    return expected, mistakes


# 8.4 The loss -------------------------------------------------------------------------------------------------------


def loss_cases(rng):
    """Log-probabilities and weights on padding are not 0, so that counting them shows."""
    return [
        {
            "logprobs": table(rng, len(lengths), steps, low=-2.0, high=-0.2),
            "weights": table(rng, len(lengths), steps, low=-2.0, high=2.0),
            "mask": masks(lengths, steps),
        }
        for steps, lengths in ((5, [5, 2, 4]), (3, [1, 3]))
    ]


def expect_loss(case):
    logprobs, weights, mask = case["logprobs"], case["weights"], case["mask"]
    episodes, steps, lengths = len(mask), len(mask[0]), list(map(sum, mask))

    def outcome(factor):
        """-sum factor(b, t) * weight * logprob."""
        return -sum(factor(b, t) * weights[b][t] * logprobs[b][t] for t in range(steps) for b in range(episodes))

    expected = outcome(lambda b, t: mask[b][t] / episodes)
    mistakes = {
        "the sign is turned: losses are minimised, so this would make good episodes less likely":
            outcome(lambda b, t: -mask[b][t] / episodes),
        "divided by the number of steps: 1/N is over episodes, or long ones count less":
            outcome(lambda b, t: mask[b][t] / sum(lengths)),
        "each episode is divided by its own length: the gradient of log p(tau) is a sum over steps":
            outcome(lambda b, t: mask[b][t] / (episodes * lengths[b])),
    }
    return expected, mistakes


# 8.5 z-scores -------------------------------------------------------------------------------------------------------


def z_scores(estimates, exact):
    """The package's answer: the distance of the mean from the truth in standard errors of the mean."""
    error = estimates.std(dim=0) / len(estimates) ** 0.5
    return (estimates.mean(dim=0) - exact) / error


def z_cases(rng):
    """Few estimates, of parameters with different spreads, so that every shortcut shows."""
    cases = []
    for count, parameters in ((6, 3), (5, 4)):
        exact = table(rng, parameters)
        spreads = [0.2 + 0.4 * k for k in range(parameters)]
        shifts = [3.0 * (-1) ** k for k in range(parameters)]  # far out on either side, so that the sign shows
        estimates = [[e + s * rng.gauss(x, 1) for e, s, x in zip(exact, spreads, shifts)] for _ in range(count)]
        cases.append({"estimates": estimates, "exact": exact})
    return cases


def expect_z(case):
    columns, exact = list(zip(*case["estimates"])), case["exact"]
    count = len(case["estimates"])
    means = [statistics.mean(column) for column in columns]
    spreads = [statistics.stdev(column) for column in columns]
    pooled = math.sqrt(statistics.mean(s**2 for s in spreads))
    away = [m - e for m, e in zip(means, exact)]
    expected = [a * math.sqrt(count) / s for a, s in zip(away, spreads)]
    mistakes = {
        "divided by the standard deviation of one estimate: the mean of K is sqrt(K) times as exact":
            [a / s for a, s in zip(away, spreads)],
        "the standard error is s / sqrt(K), not s / K": [a * count / s for a, s in zip(away, spreads)],
        "this is the variance, not its root: the standard error is s / sqrt(K)":
            [a * count / s**2 for a, s in zip(away, spreads)],
        "divided by the variance of one estimate: the standard error is s / sqrt(K)":
            [a / s**2 for a, s in zip(away, spreads)],
        "the squared deviations are divided by K: from the sample's own mean it is K - 1":
            [x * math.sqrt(count / (count - 1)) for x in expected],
        "the sign is lost: a z-score says in which direction the mean is off": [abs(x) for x in expected],
        "the sign is turned: estimate minus truth": [-x for x in expected],
        "compared with 0: the question is the distance from the exact gradient":
            [m * math.sqrt(count) / s for m, s in zip(means, spreads)],
        "one spread for all parameters: each has a standard error of its own":
            [a * math.sqrt(count) / pooled for a in away],
        "not divided by a standard error: is this distance small or large?": away,
        "relative errors: they do not say what chance alone would do": [a / e for a, e in zip(away, exact)],
        "one z-score per estimate: average over the estimates first":
            [[(x - e) / s for x, e, s in zip(row, exact, spreads)] for row in case["estimates"]],
    }
    return expected, mistakes


# 8.6 Silent bugs ----------------------------------------------------------------------------------------------------

BUGS = {"A": "own reward", "B": "padding", "C": "reused rollouts", "D": "no log"}
SIGNS = {
    "sign": "would give minus the exact gradient, cosine -1, and drive the agent into the pit",
    "padding": "would be wrong in one row alone, that of the state that padding names",
    "inverted mask": "would have no gradient outside the row of the state that padding names",
    "wrong axis": "would give a wrong direction at the uniform policy already, in every state where the agent acts",
    "no log": "would scale a step by its probability: exactly a quarter at the uniform policy, another way later",
    "own reward": "would have no gradient in states from which no single step is paid",
    "batch return": "would have, in expectation, next to no gradient: all episodes of a batch weigh the same",
    "reused rollouts": "would be exactly right at the first update and wrong from the second on",
    "per step": "would point the right way all along and learn well; only the length of a step differs",
}
SEEN = {
    "A": "look at which states have no gradient at all in run A",
    "B": "look at which rows are wrong in run B, and at what the record holds after an episode's end",
    "C": "compare run C's first update with a later one",
    "D": "look at run D's length at the uniform policy, where all probabilities are 1/4",
}


def weights_of(rewards, mask, gamma=1.0):
    """The package's `total_return`, called as the student's."""
    return total_return(rewards, mask, gamma=gamma)


EXERCISES = {
    "8.1": Exercise(probability_cases, None, expect_probability, points=1, reference=log_probability,
        signature="log_probability(logits: float[B T A], actions: int[B T], mask: bool[B T]) -> float[B]"),
    "8.2": Exercise(score_cases, None, expect_score, points=2, reference=score,
        signature="score(pi: float[S A], states: list, actions: list) -> float[S A]"),
    "8.3": Exercise(weights_cases, None, expect_weights, points=1, reference=weights_of,
        signature="reinforce_weights(rewards: float[B T], mask: bool[B T], gamma: number) -> float[B T]"),
    "8.4": Exercise(loss_cases, None, expect_loss, points=2, reference=policy_gradient_loss,
        signature="reinforce_loss(logprobs: float[B T], weights: float[B T], mask: bool[B T]) -> float[] with"
        " gradient of logprobs"),
    "8.5": Exercise(z_cases, None, expect_z, points=2, reference=z_scores,
        signature="z_scores(estimates: float[K P], exact: float[P]) -> float[P]"),
    "8.6": lab(3, BUGS, SIGNS, SEEN),
}  # fmt: skip
