"""Lesson 09: total variance, reward-to-go, the expected push of a baseline, which baselines are lawful, leave one out,
the best constant.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math
import statistics

from ptlearn import policy_gradient
from ptlearn.course.exercise import Exercise


def tensor(values, **options):
    import torch

    return torch.tensor(values, **({"dtype": torch.float64} | options))


def normals(rng, rows, columns):
    return [[rng.gauss(0, 1) for _ in range(columns)] for _ in range(rows)]


# 9.1 Total variance --------------------------------------------------------------------------------------------------


def total_variance(gradients):
    """The package's answer: the trace of the unbiased covariance."""
    return gradients.var(0).sum()


def variance_cases(rng):
    """Estimates (M, P) whose mean is far from 0 and whose parameters differ in spread."""
    cases = []
    for rows, columns in ((5, 3), (4, 6)):
        spread = [0.5 + 0.7 * column for column in range(columns)]
        noise = normals(rng, rows, columns)
        cases.append([[2.0 + column + spread[column] * row[column] for column in range(columns)] for row in noise])
    return cases


def expect_variance(case):
    rows, parameters = len(case), list(zip(*case))
    variances = [statistics.variance(column) for column in parameters]
    total = sum(variances)
    flat = [x for row in case for x in row]
    centred_rows = sum(statistics.variance(row) for row in case)
    mistakes = {
            "these are the variances one by one: the trace is their sum": variances,
            "the mean over the parameters: the trace is the sum, a squared length": total / len(parameters),
            "standard deviations: variances add up, standard deviations do not": sum(map(math.sqrt, variances)),
            "the root of the total: this is a length, the variance is its square": math.sqrt(total),
            "not centred: subtract the mean estimate, or the signal counts as noise": sum(x * x for x in flat) / rows,
            "not centred: subtract the mean estimate, or the signal counts as noise, whatever it is divided by":
                sum(x * x for x in flat) / (rows - 1),
            "divided by M: the mean was estimated from the same rows, so divide by M - 1": total * (rows - 1) / rows,
            "not divided: the mean squared distance is wanted, not their sum": total * (rows - 1),
            "divided by M once more: this is the variance of the mean of all rows": total / rows,
            "one mean for all numbers: every parameter has a mean of its own": statistics.variance(flat),
            "the spread within a row: the estimates are the rows, so go down the columns": centred_rows,
    }
    return total, mistakes


# 9.2 Reward-to-go ----------------------------------------------------------------------------------------------------


def go_cases(rng):
    """Episodes of different lengths, with numbers behind their ends that must not count; the last with gamma = 1."""
    cases = []
    for gamma, lengths in ((0.5, (4, 2)), (0.9, (3, 5, 1)), (1.0, (2, 4))):
        longest = max(lengths)
        rewards = [[round(rng.uniform(-1, 1) + 0.5, 3) for _ in range(longest)] for _ in lengths]
        mask = [[step < length for step in range(longest)] for length in lengths]
        cases.append({"rewards": rewards, "mask": mask, "gamma": gamma})
    return cases


def expect_go(case):
    gamma, masks = case["gamma"], case["mask"]

    def by(weight, *, padding=False, outside=False):
        """Every step the sum over steps j of weight(t, j) r_j; `padding` lets r_j behind the end count, `outside` gives
        steps behind the end a number too."""
        result = []
        for rewards, mask in zip(case["rewards"], masks):
            steps = range(len(rewards))
            counted = [j for j in steps if padding or mask[j]]
            row = [sum(weight(t, j) * rewards[j] for j in counted) for t in steps]
            result.append([x if outside or mask[t] else 0.0 for t, x in enumerate(row)])
        return result

    def discounted(t, j):
        return gamma ** (j - t) if j >= t else 0.0

    def until(t, j):
        return gamma ** (t - j) if j <= t else 0.0

    def from_start(t, j):
        return gamma**j if j >= t else 0.0

    mistakes = {
            "padding leaks in: rewards behind an episode's end are not earned, whatever the numbers there":
                by(discounted, padding=True),
            "padding leaks in: rewards behind an episode's end count, and steps there get a weight":
                by(discounted, padding=True, outside=True),
            "every step gets the total return: sum from t on": by(lambda t, j: gamma**j),
            "every step gets the total return, undiscounted: sum from t on, and discount": by(lambda t, j: 1.0),
            "rewards up to step t: this is the past, sum from t to the end": by(until),
            "rewards up to step t, not discounted: this is the past, sum from t to the end":
                by(lambda t, j: float(j <= t)),
            "the reward of step t itself is missing: an action does change what it earns at once":
                by(lambda t, j: gamma ** (j - t - 1) if j > t else 0.0),
            "the reward of step t itself is missing: the sum starts at t": by(
                lambda t, j: gamma ** (j - t) if j > t else 0.0
            ),
            "discounted from the start of the episode: at step t the reward r_t counts in full": by(from_start),
            "gamma is ignored": by(lambda t, j: float(j >= t)),
            "gamma is applied to r_t too: the first reward of the sum counts in full":
                by(lambda t, j: gamma ** (j - t + 1) if j >= t else 0.0),
            "these are the rewards: each step needs the sum of those that follow too": by(lambda t, j: float(j == t)),
    }
    return by(discounted), mistakes


# 9.3 The expected push -----------------------------------------------------------------------------------------------


def expected_push(pi, b):
    """The package's answer: pi (b - E[b]), the gradient of the expected b in the logits."""
    return pi * (b - (pi * b).sum())


def push_cases(rng):
    cases = []
    for actions in (4, 3):
        weights = [rng.uniform(0.2, 1.0) for _ in range(actions)]
        pi = [weight / sum(weights) for weight in weights]
        cases.append({"pi": pi, "b": [rng.uniform(-1, 2) for _ in range(actions)]})
    return [*cases, {"pi": cases[0]["pi"], "b": [-1.6] * 4}]


def expect_push(case):
    pi, b = case["pi"], case["b"]
    actions = range(len(pi))

    def score(a, k):
        """The derivative of log pi(a) in logit k."""
        return float(a == k) - pi[k]

    def summed(weight, slope=score):
        return [sum(weight(a) * slope(a, k) for a in actions) for k in actions]

    expected = summed(lambda a: pi[a] * b[a])
    mistakes = {
            "pi(a) is missing: an expectation weighs every action by its probability": summed(lambda a: b[a]),
            "the gradient of log pi(a) is 1[a = k] - pi(k): the second part is missing, it moves the other logits":
                [pi[k] * b[k] for k in actions],
            "pi(a) counts twice: the gradient of pi, weighted by pi again; use that of log pi":
                summed(lambda a: pi[a] * pi[a] * b[a]),
            "this is the gradient in pi(k), 1 / pi(k): pi is a softmax of logits": [b[k] for k in actions],
            "the sign is turned: grad log pi(a) raises the logit of a": [-x for x in expected],
            "b(a) is missing, or averaged first and the same for all actions: then the sum is 0 whatever b is":
                [0.0] * len(pi),
            "one number: the gradient has an entry per logit": sum(pi[a] * b[a] for a in actions),
            "the entries are summed up: the gradient has an entry per logit": sum(expected),
            "the rows are the logits here: weigh the rows of eye - pi, which are the actions, not its columns":
                [sum(score(a, k) * pi[k] * b[k] for k in actions) for a in actions],
    }
    return expected, mistakes


# 9.4 What may be subtracted ------------------------------------------------------------------------------------------

KEEPS_THE_MEAN = {
    "value": True,
    "action value": False,
    "next value": False,
    "past rewards": True,
    "steps left": True,
    "length": False,
    "batch average": False,
}
WHY = {
    "value": "value: V(s_t) is the same for every action in s_t, so its term averages to 0",
    "action value": "action value: Q(s_t, a_t) depends on the action, and it would take away the gradient itself",
    "next value": "next value: the state after step t depends on the action of step t",
    "past rewards": "past rewards: they are fixed before a_t is drawn, so they may go, or stay",
    "steps left": "steps left: time passes whatever the action is, so this is a lawful baseline",
    "length": "length: how long the episode gets depends on where the action leads",
    "batch average": "batch average: one of the N returns is the episode's own, and that depends on a_t: 1/N of the "
    "gradient is lost",
}


def remark_choice(case, data):
    if not isinstance(data, dict) or set(data) != set(KEEPS_THE_MEAN):
        return f"a dict is expected, with True or False for each of {', '.join(KEEPS_THE_MEAN)}"
    for name, choice in data.items():
        if choice not in (True, False):
            return f"{name}: {choice!r} is neither True nor False"
    wrong = [WHY[name] for name, right in KEEPS_THE_MEAN.items() if bool(data[name]) != right]
    if len(wrong) == len(WHY):
        return "all seven are turned round: True stands for 'keeps the mean'"
    return wrong[0] if wrong else None


# 9.5 Leave one out ---------------------------------------------------------------------------------------------------


def others_cases(rng):
    """Returns of batches of different sizes; the last a hand case: the others of 1, 2, 6 average 4, 3.5, 1.5."""
    return [[round(rng.uniform(-1, 1) + 0.7, 3) for _ in range(size)] for size in (5, 2)] + [[1.0, 2.0, 6.0]]


def expect_others(case):
    size, total = len(case), sum(case)

    def rest(index):
        return case[:index] + case[index + 1 :]

    expected = [statistics.mean(rest(index)) for index in range(size)]
    mistakes = {
            "the average over all: its own return is among them, which is the bias 1/N": [total / size] * size,
            "one number, the average over all: every episode has a baseline of its own": total / size,
            "divided by N: there are N - 1 others": [(total - x) / size for x in case],
            "not divided: the average of the others, not their sum": [total - x for x in case],
            "all divided by N - 1: the own return must be taken out of the sum too": [total / (size - 1)] * size,
            "this is the weight, return minus baseline: return the baseline": [x - b for x, b in zip(case, expected)],
            "the average over all minus the own return: take it out of the sum, before dividing":
                [total / size - x for x in case],
            "the average of the episodes before this one: all others count":
                [statistics.mean(case[:index]) if index else 0.0 for index in range(size)],
            "another episode's return is left out, not the own": [expected[index - 1] for index in range(size)],
            "the median of the others: the mean is wanted": [statistics.median(rest(index)) for index in range(size)],
    }
    return expected, mistakes


# 9.6 The best constant -----------------------------------------------------------------------------------------------


def optimal_constant(scores, returns):
    """The package's answer, from squared norms."""
    return policy_gradient.optimal_baseline(scores.square().sum(1), returns)


def constant_cases(rng):
    """Scores whose lengths go with the returns: long, poor episodes beside short, good ones."""
    cases = []
    for episodes, parameters in ((6, 3), (5, 4)):
        returns = [round(rng.uniform(-1, 1), 3) for _ in range(episodes)]
        scores = [[(1.5 - r) * rng.gauss(0, 1) for _ in range(parameters)] for r in returns]
        cases.append({"scores": scores, "returns": returns})
    return cases


def expect_constant(case):
    scores, returns = case["scores"], case["returns"]
    norms = [sum(x * x for x in row) for row in scores]
    pairs = list(zip(norms, returns))

    def weighted(weights):
        return sum(w * r for w, r in zip(weights, returns)) / sum(weights)

    total = [sum(column) for column in zip(*scores)]
    numerator = sum(norm * r for norm, r in pairs)
    per_parameter = [sum(x * x * r for x, r in zip(column, returns)) / sum(x * x for x in column)
                     for column in zip(*scores)]  # fmt: skip
    wide = [abs(sum(row)) for row in scores]
    mistakes = {
            "the mean return: each return counts with the squared length of its episode's score":
                statistics.mean(returns),
            "weighted by the length: the variance has its square": weighted([math.sqrt(norm) for norm in norms]),
            "weighted by the sum of a score's entries: its length is the root of the sum of their squares": weighted(
                wide
            ),
            "weighted by the square of a score's sum: square the entries first, then sum":
                weighted([x * x for x in wide]),
            "not divided by the sum of the weights: a weighted average needs it": numerator,
            "divided by the number of episodes: a weighted average is divided by the sum of its weights":
                numerator / len(returns),
            "a baseline per parameter: one constant for all of them is wanted": per_parameter,
            "the mean of the baselines of the parameters: sum numerator and denominator over them":
                statistics.mean(per_parameter),
            "divided by the squared length of the summed scores: sum the squares, episode by episode":
                numerator / sum(x * x for x in total),
            "squared returns: the derivative of (r - b)^2 leaves r in the first power":
                sum(norm * r * r for norm, r in pairs) / sum(norms),
            "the sign is turned": -weighted(norms),
            "one number per episode: the constant is the same for all": [norm * r / sum(norms) for norm, r in pairs],
            "weighted by 1 / the squared length: long scores make the variance, so they count more":
                weighted([1 / norm for norm in norms]),
    }
    return weighted(norms), mistakes


def reward_to_go(rewards, mask, gamma=1.0):
    """The package's, called as the student's."""
    return policy_gradient.reward_to_go(rewards, mask, gamma=gamma)


def leave_one_out(returns):
    """The package's, called as the student's."""
    return policy_gradient.leave_one_out(returns)


EXERCISES = {
    "9.1": Exercise(
        variance_cases, lambda answer, case: answer(tensor(case)), expect_variance, points=1, reference=total_variance,
        signature="total_variance(gradients: float[M P]) -> number",
    ),
    "9.2": Exercise(
        go_cases, None, expect_go, points=2, reference=reward_to_go,
        signature="reward_to_go(rewards: float[B T], mask: bool[B T], gamma: number) -> float[B T]",
    ),
    "9.3": Exercise(
        push_cases, lambda answer, case: answer(tensor(case["pi"]), tensor(case["b"])), expect_push, points=2,
        reference=expected_push, signature="expected_push(pi: float[A], b: float[A]) -> float[A]",
    ),
    "9.4": Exercise(
        lambda rng: [None], lambda answer, case: dict(answer), None, points=2, reference=KEEPS_THE_MEAN,
        remark=remark_choice,
    ),
    "9.5": Exercise(
        others_cases, lambda answer, case: answer(tensor(case)), expect_others, points=2, reference=leave_one_out,
        signature="leave_one_out(returns: float[B]) -> float[B]",
    ),
    "9.6": Exercise(
        constant_cases, None, expect_constant, points=3, reference=optimal_constant,
        signature="optimal_constant(scores: float[B P], returns: float[B]) -> number",
    ),
}  # fmt: skip
