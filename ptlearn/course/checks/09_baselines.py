"""Lesson 09: total variance, reward-to-go, the expected push of a baseline, which baselines are lawful, leave one out,
the best constant.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math
import statistics

from ptlearn import policy_gradient
from ptlearn.course.cases import masks, tensors
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise


def normals(rng, rows, columns):
    return [[rng.gauss(0, 1) for _ in range(columns)] for _ in range(rows)]


# 9.1 Total variance --------------------------------------------------------------------------------------------------


def total_variance(gradients):
    """The package's answer: the trace of the unbiased covariance."""
    return gradients.var(0).sum()


def variance_cases(rng):
    """Estimates (M, P) whose mean is far from 0 and whose parameters differ in spread; one that never moves."""
    cases = []
    for rows, columns in ((2, 2), (3, 2), (5, 3), (4, 6)):
        spread = [0.5 + 0.7 * column for column in range(columns)]
        noise = normals(rng, rows, columns)
        cases.append([[2.0 + column + spread[column] * row[column] for column in range(columns)] for row in noise])
    return [{"gradients": rows} for rows in (*cases, [[*row, 3.0] for row in cases[1]])]


def expect_variance(case):
    rows, parameters = case["gradients"], list(zip(*case["gradients"]))
    count, variances = len(rows), [statistics.variance(column) for column in parameters]
    flat = [x for row in rows for x in row]
    total, squares = sum(variances), sum(x * x for x in flat)
    mean = [statistics.mean(column) for column in parameters]
    lengths = [math.dist(row, mean) for row in rows]
    mistakes = {
        "these are the variances one by one: the trace is their sum": variances,
        "the mean over the parameters: the trace is the sum, a squared length":
            Alternatives(total / len(mean), total * (count - 1) / len(flat), total * (count - 1) / (len(flat) - 1)),
        "standard deviations: variances add up, standard deviations do not": sum(map(math.sqrt, variances)),
        "not centred: subtract the mean estimate, or the signal counts as noise":
            Alternatives(squares / count, squares / (count - 1), squares),
        "divided by M: the mean was estimated from the same rows, so divide by M - 1": total * (count - 1) / count,
        "not divided: the mean squared distance is wanted, not their sum": total * (count - 1),
        "one mean for all numbers: every parameter has a mean of its own": Alternatives(
            statistics.variance(flat), statistics.pvariance(flat), sum((x - sum(flat) / len(flat)) ** 2 for x in flat)
        ),
        "distances: their squares are what is averaged": Alternatives(sum(lengths) / count, sum(lengths) / (count - 1)),
        "the spread within a row: the estimates are the rows, so go down the columns":
            sum(map(statistics.variance, rows)),
        "all entries of the covariance are summed: the trace is its diagonal": statistics.variance(map(sum, rows)),
    }
    return total, mistakes


# 9.2 Reward-to-go ----------------------------------------------------------------------------------------------------


def go_cases(rng):
    """Numbers behind the ends of episodes must not count; gamma is small, large, 1, and left to its default."""
    cases = []
    for gamma, lengths in ((0.5, (2, 1)), (0.9, (3, 5, 1)), (1.0, (2, 4)), (0.1, (3, 2)), (None, (3, 1)), (0.8, (1,))):
        rewards = [[round(rng.uniform(-1, 1) + 0.5, 3) for _ in range(max(lengths))] for _ in lengths]
        cases.append({"rewards": rewards, "mask": masks(lengths, max(lengths)), "gamma": gamma})
    return cases


def drive_go(answer, case):
    given = tensors(case, "rewards", "mask")
    return answer(*given) if case["gamma"] is None else answer(*given, gamma=case["gamma"])


def expect_go(case):
    gamma, tables = 1.0 if case["gamma"] is None else case["gamma"], list(zip(case["rewards"], case["mask"]))

    def by(weight, *, padding=False, outside=False):
        """Every step the sum over steps j of weight(t, j) r_j; `padding` lets r_j behind the end count, `outside` gives
        steps behind the end a number too."""
        result = []
        for rewards, mask in tables:
            steps = range(len(rewards))
            row = [sum(weight(t, j) * rewards[j] for j in steps if padding or mask[j]) for t in steps]
            result.append([x if outside or mask[t] else 0.0 for t, x in enumerate(row)])
        return result

    def after(t, j, first=0):
        return gamma ** (j - t) if j >= t + first else 0.0

    expected = by(after)
    one_stream, running = [], 0.0
    for rewards, mask in tables[::-1]:
        row = [0.0] * len(rewards)
        for t in reversed(range(sum(mask))):
            row[t] = running = rewards[t] + gamma * running
        one_stream.insert(0, row)
    mistakes = {
        "padding leaks in: rewards behind an episode's end are not earned, whatever the numbers there":
            by(after, padding=True),
        "every step gets the total return: sum from t on": by(lambda t, j: gamma**j),
        "every step gets the total return, undiscounted: sum from t on, and discount": by(lambda t, j: 1.0),
        "rewards up to step t: this is the past, sum from t to the end":
            Alternatives(by(lambda t, j: after(j, t)), by(lambda t, j: gamma**j if j <= t else 0.0)),
        "rewards up to step t, not discounted: this is the past, sum from t to the end": by(lambda t, j: float(j <= t)),
        "the reward of step t itself is missing: an action does change what it earns at once": Alternatives(
            by(lambda t, j: after(t + 1, j)), by(lambda t, j: after(t, j, first=1)), by(lambda t, j: float(j > t))
        ),
        "discounted from the start of the episode: at step t the reward r_t counts in full":
            by(lambda t, j: gamma**j if j >= t else 0.0),
        "gamma is ignored": by(lambda t, j: float(j >= t)),
        "gamma is applied to r_t too: the first reward of the sum counts in full": by(lambda t, j: gamma * after(t, j)),
        "later rewards are discounted once: gamma to the power of the steps between":
            Alternatives(by(lambda t, j: (1.0 if j == t else gamma) * (j >= t)), by(lambda t, j: gamma * (j >= t))),
        "these are the rewards: each step needs the sum of those that follow too": by(lambda t, j: float(j == t)),
        "these are the discounted rewards one by one: each step needs the sum": by(lambda t, j: gamma**t * (j == t)),
        "only the next reward is added: sum to the end of the episode": by(lambda t, j: after(t, j) * (j <= t + 1)),
        "a mean of the rewards from t on: their sum is wanted": [
            [x / (sum(mask) - t) if mask[t] else 0.0 for t, x in enumerate(row)]
            for row, (_, mask) in zip(expected, tables)
        ],
        "one stream: the sum of an episode runs on into the one before it in the batch": one_stream,
        "this is the return of the whole episode alone: one number per step": [row[0] for row in expected],
    }
    return expected, mistakes


# 9.3 The expected push -----------------------------------------------------------------------------------------------


def expected_push(pi, b):
    """The package's answer: pi (b - E[b]), the gradient of the expected b in the logits."""
    return pi * (b - (pi * b).sum())


def push_cases(rng):
    """Different numbers of actions; a b that is the same for all, one that is 0 but once, equal probabilities."""
    cases = []
    for actions in (2, 4, 3):
        weights = [rng.uniform(0.2, 1.0) for _ in range(actions)]
        pi = [weight / sum(weights) for weight in weights]
        cases.append({"pi": pi, "b": [rng.uniform(-1, 2) for _ in range(actions)]})
    return [
        *cases, {"pi": cases[1]["pi"], "b": [-1.6] * 4}, {"pi": cases[2]["pi"], "b": [0.0, 0.0, 1.0]},
        {"pi": [0.25] * 4, "b": cases[1]["b"]},
    ]  # fmt: skip


def expect_push(case):
    pi, b = case["pi"], case["b"]
    actions = range(len(pi))
    mean = sum(p * x for p, x in zip(pi, b))

    def summed(weight, own=1.0):
        """The sum over a of weight(a) times the derivative of log pi(a) in each logit."""
        return [sum(weight(a) * (own * (a == k) - pi[k]) for a in actions) for k in actions]

    expected = summed(lambda a: pi[a] * b[a])
    mistakes = {
        "pi(a) is missing: an expectation weighs every action by its probability": summed(lambda a: b[a]),
        "b(a) is missing or averaged first, or summed over the logits: that is 0, whatever b is": [0.0] * len(pi),
        "the gradient of log pi(a) is 1[a = k] - pi(k): the second part is missing, it moves the other logits":
            [pi[k] * b[k] for k in actions],
        "the gradient of log pi(a) is 1[a = k] - pi(k): the first part is missing, it moves the own logit":
            summed(lambda a: pi[a] * b[a], own=0.0),
        "pi(a) counts twice: the gradient of pi, weighted by pi again; use that of log pi":
            summed(lambda a: pi[a] * pi[a] * b[a]),
        "this is the gradient in pi(k), 1 / pi(k): pi is a softmax of logits": b,
        "the plain mean of b is subtracted: its expectation under pi is":
            [p * (x - sum(b) / len(b)) for p, x in zip(pi, b)],
        "each action moves its own logit alone: add what the others do to it":
            [pi[k] * b[k] * (1 - pi[k]) for k in actions],
        "one number: the gradient has an entry per logit": mean,
        "the entries are summed up: the gradient has an entry per logit": sum(expected),
        "the terms are not added up: sum over the actions":
            [[pi[a] * b[a] * ((a == k) - pi[k]) for k in actions] for a in actions],
        "the rows are the logits here: weigh the rows of eye - pi, which are the actions, not its columns":
            [sum(((a == k) - pi[k]) * pi[k] * b[k] for k in actions) for a in actions],
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
    """Batches of different sizes; one by hand: the others of 1, 2, 6 average 4, 3.5, 1.5; equal returns; zeros."""
    drawn = [[round(rng.uniform(-1, 1) + 0.7, 3) for _ in range(size)] for size in (5, 2, 4)]
    return [{"returns": row} for row in ([1.0, 2.0, 6.0], *drawn, [2.0, 2.0, 2.0], [0.0, 0.0, 2.0, -1.0, 0.0])]


def expect_others(case):
    returns = case["returns"]
    size, total = len(returns), sum(returns)
    rest = [returns[:index] + returns[index + 1 :] for index in range(size)]
    expected = [statistics.mean(others) for others in rest]
    mistakes = {
        "the average over all: its own return is among them, which is the bias 1/N": [total / size] * size,
        "one number, the average over all: every episode has a baseline of its own": total / size,
        "divided by N: there are N - 1 others": [(total - x) / size for x in returns],
        "not divided: the average of the others, not their sum": [total - x for x in returns],
        "all divided by N - 1: the own return must be taken out of the sum too": [total / (size - 1)] * size,
        "this is the weight, return minus baseline: return the baseline": [x - b for x, b in zip(returns, expected)],
        "this is the weight turned round, baseline minus return: return the baseline":
            [b - x for x, b in zip(returns, expected)],
        "the average over all minus the own return: take it out of the sum, before dividing":
            [total / size - x for x in returns],
        "total / (N - 1) minus the own return: brackets are missing, take it out of the sum first":
            [total / (size - 1) - x for x in returns],
        "total minus return / (N - 1): brackets are missing, divide the difference":
            [total - x / (size - 1) for x in returns],
        "the average of the episodes before this one: all others count":
            [statistics.mean(returns[:index]) if index else 0.0 for index in range(size)],
        "the average of the episodes after this one: all others count":
            [statistics.mean(returns[index + 1 :]) if index < size - 1 else 0.0 for index in range(size)],
        "another episode's return is left out, not the own": Alternatives(
            [expected[index - 1] for index in range(size)], expected[1:] + expected[:1],
            [expected[0]] * size, [expected[-1]] * size,
        ),
        "the median of the others: the mean is wanted": Alternatives(
            [statistics.median(others) for others in rest], [statistics.median_low(others) for others in rest]
        ),
        "the best of the others: their average is wanted": [max(others) for others in rest],
    }  # fmt: skip
    if len(set(returns)) == size or size == 5:  # where equal returns do not go together
        mistakes["episodes with the same return are left out too: leave out the place, not the value"] = [
            statistics.mean(x for x in returns if x != own) for own in returns
        ]
    return expected, mistakes


# 9.6 The best constant -----------------------------------------------------------------------------------------------


def optimal_constant(scores, returns):
    """The package's answer, from squared norms."""
    return policy_gradient.optimal_baseline(scores.square().sum(1), returns)


def constant_cases(rng):
    """Scores whose lengths go with the returns: long, poor episodes beside short, good ones; one of length 0."""
    cases = []
    for episodes, parameters in ((2, 2), (6, 3), (5, 4), (4, 1)):
        returns = [round(rng.uniform(-1, 1), 3) for _ in range(episodes)]
        scores = [[(1.5 - r) * rng.gauss(0, 1) for _ in range(parameters)] for r in returns]
        cases.append({"scores": scores, "returns": returns})
    return [*cases, {"scores": [[0.0, 0.0], [1.0, -2.0], [0.5, 1.0]], "returns": cases[1]["returns"][:3]}]


def expect_constant(case):
    scores, returns = case["scores"], case["returns"]
    norms = [sum(x * x for x in row) for row in scores]
    mean, wide = statistics.mean(returns), [abs(sum(row)) for row in scores]

    def weighted(weights, returns=returns):
        return sum(w * r for w, r in zip(weights, returns)) / sum(weights)

    numerator = sum(norm * r for norm, r in zip(norms, returns))
    per_parameter = [weighted([x * x for x in column]) for column in zip(*scores)]
    mistakes = {
        "the mean return: each return counts with the squared length of its episode's score": mean,
        "weighted by the length: the variance has its square": weighted([math.sqrt(norm) for norm in norms]),
        "weighted by the fourth power of the length: the variance has its square": weighted([x * x for x in norms]),
        "weighted by the sum of a score's entries: its length is the root of the sum of their squares":
            Alternatives(weighted(wide), weighted([sum(row) for row in scores])),
        "weighted by the absolute entries: square them": weighted([sum(map(abs, row)) for row in scores]),
        "weighted by the square of a score's sum: square the entries first, then sum": weighted([x * x for x in wide]),
        "not divided by the sum of the weights: a weighted average needs it": numerator,
        "divided by the number of episodes: a weighted average is divided by the sum of its weights":
            numerator / len(returns),
        "divided by the sum of the returns: a weighted average is divided by the sum of its weights":
            numerator / sum(returns),
        "a baseline per parameter: one constant for all of them is wanted": per_parameter,
        "the mean of the baselines of the parameters: sum numerator and denominator over them":
            statistics.mean(per_parameter),
        "divided by the squared length of the summed scores: sum the squares, episode by episode":
            numerator / sum(sum(column) ** 2 for column in zip(*scores)),
        "squared returns: the derivative of (r - b)^2 leaves r in the first power":
            weighted(norms, [r * r for r in returns]),
        "the difference from the mean return: the constant itself is wanted": weighted(norms) - mean,
        "one number per episode: the constant is the same for all":
            [norm * r / sum(norms) for norm, r in zip(norms, returns)],
    }
    if all(norms):
        mistakes["weighted by 1 / the squared length: long scores make the variance, so they count more"] = (
            weighted([1 / norm for norm in norms])
        )
    return weighted(norms), mistakes


def reward_to_go(rewards, mask, gamma=1.0):
    """The package's, called as the student's."""
    return policy_gradient.reward_to_go(rewards, mask, gamma=gamma)


def leave_one_out(returns):
    """The package's, called as the student's."""
    return policy_gradient.leave_one_out(returns)


EXERCISES = {
    "9.1": Exercise(variance_cases, None, expect_variance, points=1, reference=total_variance,
        signature="total_variance(gradients: float[M P]) -> number"),
    "9.2": Exercise(go_cases, drive_go, expect_go, points=2, reference=reward_to_go,
        signature="reward_to_go(rewards: float[B T], mask: bool[B T], gamma: number) -> float[B T]"),
    "9.3": Exercise(push_cases, None, expect_push, points=2, reference=expected_push,
        signature="expected_push(pi: float[A], b: float[A]) -> float[A]"),
    "9.4": Exercise(lambda rng: [None], None, None, points=2, reference=KEEPS_THE_MEAN, remark=remark_choice),
    "9.5": Exercise(others_cases, None, expect_others, points=2, reference=leave_one_out,
        signature="leave_one_out(returns: float[B]) -> float[B]"),
    "9.6": Exercise(constant_cases, None, expect_constant, points=3, reference=optimal_constant,
        signature="optimal_constant(scores: float[B P], returns: float[B]) -> number"),
}  # fmt: skip
