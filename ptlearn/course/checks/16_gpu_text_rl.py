"""Lesson 16: the limit of sampling, truncated weights, groups that teach, the weights of DAPO.

The expectations are plain Python on lists, from the definitions; tensors are made by the contract alone.
"""

import math
import statistics

from ptlearn.course.cases import lost_on_padding, masks, rows
from ptlearn.course.exercise import Exercise
from ptlearn.policy_gradient import clipped_weights, standardized, step_ratio, truncated_ratio

NAN = math.nan


# 16.1 The limit of sampling ------------------------------------------------------------------------------------------


def sampling_limit(rows, prompt, new, weight_bytes, cache_bytes, bandwidth):
    """Tokens over the seconds in which everything is read."""
    cached = rows * cache_bytes * (new * prompt + new * (new - 1) / 2)
    return rows * new * bandwidth / (new * weight_bytes + cached)


def drive_arguments(answer, case):
    return answer(*case["arguments"])


def limit_cases(rng):
    """The cache outweighs the weights, and the reverse; one row; one token."""
    cases = []
    for rows_, new, weight, cache in ((40, 9, 3e5, 900), (3, 6, 9e5, 50), (1, 12, 2e5, 4000), (25, 1, 4e5, 700)):
        cases.append({"arguments": [rows_, rng.randint(3, 9), new, weight, cache + rng.randint(1, 20), 8e7]})
    return cases


def expect_limit(case):
    rows_, prompt, new, weight, cache, bandwidth = case["arguments"]

    def answer(seen, read=new * weight, tokens=rows_ * new):
        return tokens * bandwidth / (read + rows_ * cache * seen)

    grown = new * prompt + new * (new - 1) / 2
    mistakes = {
        "the weights are read once in all: each of the `new` steps reads them": answer(grown, read=weight),
        "the weights are read for every row: a step reads them once for all": answer(grown, read=rows_ * new * weight),
        "the cache of one row alone: every row has its own": rows_ * new * bandwidth / (new * weight + cache * grown),
        "the cache is missing": answer(0),
        "the prompt is missing from the cache: its keys and values are read too": answer(new * (new - 1) / 2),
        "the prompt is read once in all: each step reads it again": answer(prompt + new * (new - 1) / 2),
        "twice the growth: 0 + 1 + ... + (new - 1) is new * (new - 1) / 2": answer(new * prompt + new * (new - 1)),
        "one step's cache alone: each of the `new` steps reads its own": answer(prompt + (new - 1) / 2),
        "a token too many of each row: `new` steps write `new` tokens": answer(grown, tokens=rows_ * (new + 1)),
        "the cache does not grow: each step reads a token more than the one before": answer(new * prompt),
        "the cache is full from the first step on: it grows by a token a step": answer(new * (prompt + new)),
        "one token too many: the first step sees the prompt alone": answer(grown + new),
        "half of the new tokens on average is (new - 1) / 2: the first step sees none": answer(grown + new / 2),
        "the tokens of one row: all `rows` write one at each step": answer(grown, tokens=new),
        "one step's tokens over the time of all steps": answer(grown, tokens=rows_),
        "these are seconds: divide the tokens by them": (new * weight + rows_ * cache * grown) / bandwidth,
        "upside down: these are seconds per token": 1 / answer(grown),
        "bandwidth is missing": answer(grown) / bandwidth,
    }  # fmt: skip
    return answer(grown), mistakes


# 16.2 Truncated weights ----------------------------------------------------------------------------------------------


def truncated_weights(advantages, logprobs, sampled_logprobs, mask, cap=2.0):
    """The package's truncated ratio times the advantage."""
    ratios = truncated_ratio(logprobs, sampled_logprobs, mask, cap=cap)
    return ratios * advantages.where(mask, advantages.new_zeros(()))


def truncated_cases(rng):
    """Ratios on both sides of the cap and of its inverse, advantages of both signs, three caps, junk on padding."""
    cases = []
    for lengths, steps, cap, junk in (([3, 2], 3, 2.0, None), ([4, 2, 3], 4, 1.5, None), ([2, 5], 5, 4.0, None),
                                      ([1, 3], 3, 2.0, NAN)):  # fmt: skip
        mask, size = masks(lengths, steps), (len(lengths), steps)
        advantages = [[x * rng.choice([-1, 1]) for x in row] for row in rows(rng, size, 0.5, 2.0)]
        sampled = rows(rng, size, -2.0, -1.0)
        shifts = [[rng.choice([-2.1, -0.3, 0.2, 0.9, 2.0]) + rng.uniform(-0.1, 0.1) for _ in row] for row in sampled]
        shifts[0][0], shifts[-1][0] = 2.0, -2.1
        logprobs = [[q + d for q, d in zip(*both)] for both in zip(sampled, shifts)]
        tables = [advantages, logprobs, sampled]
        if junk is not None:
            tables = [[[x if m else junk for x, m in zip(*both)] for both in zip(table, mask)] for table in tables]
        names = ("advantages", "logprobs", "sampled_logprobs")
        cases.append({**dict(zip(names, tables)), "mask": mask, "cap": cap, "junk": junk is not None})
    return cases


def expect_truncated(case):
    cap, mask = case["cap"], case["mask"]

    def by(rule, kept=True):
        """A rule (advantage, log-ratio, all log-ratios of the row) at every step."""
        table = []
        for advantages, p, q, acted in zip(case["advantages"], case["logprobs"], case["sampled_logprobs"], mask):
            logs = [x - y for x, y, m in zip(p, q, acted) if m]
            differences = [x - y for x, y in zip(p, q)]
            steps = zip(advantages, differences, acted)
            table.append([rule(a, d, logs) if m or not kept else 0.0 for a, d, m in steps])
        return table

    expected = by(lambda a, d, logs: min(math.exp(d), cap) * a)
    if case["junk"]:
        return expected, {}
    mistakes = {
        "inverted: this is sampler over learner; the learner stands above":
            by(lambda a, d, _: min(math.exp(-d), cap) * a),
        "the ratio is not truncated": by(lambda a, d, _: math.exp(d) * a),
        "cut off below as well: a small ratio is no danger, and raising it is a bias":
            by(lambda a, d, _: max(min(math.exp(d), cap), 1 / cap) * a),
        "cut off around 1, as PPO's clip: only what is above the cap is cut":
            by(lambda a, d, _: max(min(math.exp(d), cap), 2 - cap) * a),
        "0 above the cap: the ratio is cut there, and the token still counts":
            by(lambda a, d, _: math.exp(d) * a * (math.exp(d) <= cap)),
        "the cap is on the logarithm: take exp first": by(lambda a, d, _: math.exp(min(d, cap)) * a),
        "the cap is on ratio times advantage: cut the ratio alone": by(lambda a, d, _: min(math.exp(d) * a, cap)),
        "the ratio of the whole text: each token has its own": by(lambda a, d, logs: min(math.exp(sum(logs)), cap) * a),
        "the mean log-ratio of the text: each token has its own":
            by(lambda a, d, logs: min(math.exp(sum(logs) / len(logs)), cap) * a),
        "never below 1: a small ratio is left as it is": by(lambda a, d, _: max(min(math.exp(d), cap), 1) * a),
        "the larger of ratio and cap: the smaller is asked for": by(lambda a, d, _: max(math.exp(d), cap) * a),
        "cut off below alone: it is the large ratios that are cut": by(lambda a, d, _: max(math.exp(d), 1 / cap) * a),
        "cut as PPO's objective, by the sign of the advantage: truncation looks at the ratio alone":
            by(lambda a, d, _: min(math.exp(d) * a, min(math.exp(d), cap) * a)),
        "0 above the cap where the advantage is good: the ratio is cut there, whatever the advantage":
            by(lambda a, d, _: 0.0 if a > 0 and math.exp(d) > cap else math.exp(d) * a),
        "ratio times advantage is kept within the cap: cut the ratio alone":
            by(lambda a, d, _: max(min(math.exp(d) * a, cap), -cap)),
        "a cap of 2 always: use `cap`": by(lambda a, d, _: min(math.exp(d), 2.0) * a),
        "this is the log-ratio: exp is missing": by(lambda a, d, _: min(d, cap) * a),
        "the advantage is missing: these are ratios": by(lambda a, d, _: min(math.exp(d), cap)),
        "the ratio is missing: these are the advantages": by(lambda a, d, _: a),
        "padding is filled: 0 where mask is False": by(lambda a, d, _: min(math.exp(d), cap) * a, kept=False),
    }
    return expected, mistakes


# 16.3 Groups that teach ----------------------------------------------------------------------------------------------


def teaches(rewards, groups):
    """A standardized advantage is 0 in a group of equal rewards; but so is that of a row at its group's mean."""
    same = groups[:, None] == groups
    return (same & (rewards[:, None] != rewards)).any(1)


def teaching_cases(rng):
    """Groups in any order under any numbers: all wrong, all right, mixed, graded with a row at the mean, one alone."""
    cases = []
    for kinds in (([0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]), ([0.0, 0.5, 1.0], [0.5, 0.5, 0.5], [0, 0, 0]),
                  ([1, 1], [0, 1], [1, 0], [0, 0]), ([0.3, 0.3, 0.3], [0.0, 0.25, 0.5], [1, 1, 1])):  # fmt: skip
        numbers = rng.sample([2, 5, 7, 11, 30], len(kinds))
        pairs = [(float(reward), number) for rewards, number in zip(kinds, numbers) for reward in rewards]
        rng.shuffle(pairs)
        cases.append({"rewards": [reward for reward, _ in pairs], "groups": [number for _, number in pairs]})
    alone, mixed, right = rng.sample([2, 5, 7, 11, 30], 3)
    pairs = [(0.0, mixed), (0.0, mixed), (1.0, right), (1.0, mixed), (1.0, alone), (1.0, right), (0.0, mixed),
             (1.0, right), (0.0, mixed)]  # fmt: skip
    return [*cases, dict(zip(("rewards", "groups"), map(list, zip(*pairs))))]


def expect_teaching(case):
    rewards, groups = case["rewards"], case["groups"]
    members = {number: [r for r, g in zip(rewards, groups) if g == number] for number in groups}

    def by(rule):
        return [bool(rule(r, members[g])) for r, g in zip(rewards, groups)]

    size = len(rewards) // len(members)
    blocks = [rewards[first - first % size : first - first % size + size] for first in range(len(rewards))]
    mistakes = {
        "inverted: True where the group teaches": by(lambda r, group: len(set(group)) == 1),
        "groups that are all right are kept: nothing is better than its group there":
            by(lambda r, group: max(group) > 0),
        "groups that are all wrong are kept: nothing is better than its group there":
            by(lambda r, group: min(group) < 1),
        "a row at its group's mean is dropped: its advantage is 0, but the group teaches, and the row counts":
            by(lambda r, group: len(set(group)) > 1 and abs(r - sum(group) / len(group)) > 1e-9),
        "a group of one is kept: there is nothing to compare it with, and its standard deviation is not a number":
            by(lambda r, group: len(group) == 1 or len(set(group)) > 1),
        "the first and the last of a group are compared: any two may differ":
            by(lambda r, group: group[0] != group[-1]),
        "compared with the first of the group: a group teaches as a whole": by(lambda r, group: r != group[0]),
        "neighbours are compared: any two may differ":
            by(lambda r, group: len(group) > 1 and all(x != y for x, y in zip(group, group[1:]))),
        "all rewards must differ: two different ones are enough":
            by(lambda r, group: len(group) > 1 and len(set(group)) == len(group)),
        "the best alone: the others of a mixed group teach as well":
            by(lambda r, group: r == max(group) != min(group)),
        "between all wrong and all right: a group of equal rewards in between does not teach either":
            by(lambda r, group: 0 < sum(group) < len(group)),
        "only rows with a reward: the wrong ones of a mixed group teach as well":
            by(lambda r, group: len(set(group)) > 1 and r > 0),
        "rows with a reward, whatever their group": by(lambda r, group: r > 0),
        "rows are taken for groups one after the other: `groups` has them in any order":
            [len(set(block)) > 1 for block in blocks],
        "all rows are one group: compare within each": by(lambda r, group: len(set(rewards)) > 1),
    }  # fmt: skip
    return by(lambda r, group: len(set(group)) > 1), mistakes


# 16.4 DAPO -----------------------------------------------------------------------------------------------------------


def dapo_weights(rewards, groups, logprobs, sampled_logprobs, mask, epsilon=0.2, epsilon_high=0.28):
    """Three pieces of the package."""
    advantages = standardized(rewards, groups)[:, None].expand(mask.shape)
    ratios = step_ratio(logprobs, sampled_logprobs, mask)
    weights = clipped_weights(ratios, advantages, epsilon=epsilon, epsilon_high=epsilon_high)
    return weights.where(mask, weights.new_zeros(()))


SHIFTS = (-0.4, -0.21, -0.1, 0.1, 0.22, 0.265, 0.6)  # log-ratios: far out and near the ends, where exp matters


def dapo_cases(rng):
    """Groups of three in any order, one of them of equal rewards; two pairs of clips; a group of 0 and 1; junk."""
    cases = []
    for graded, clip, junk in (([0.0, 0.3, 1.0], [], None), ([0.0, 1.0, 1.0], [0.1, 0.4], None),
                               ([1.0, 2.0, 6.0], [], None), ([0.0, 0.0, 1.0], [], NAN)):  # fmt: skip
        pairs = [*((r, 3) for r in graded), *((0.5, 8) for _ in range(3)), *((r, 1) for r in (0.0, 1.0, 0.0))]
        rng.shuffle(pairs)
        mask = masks([rng.randint(4, 7) for _ in pairs], 7)
        sampled = rows(rng, (len(pairs), 7), -2.0, -0.8)
        orders = [rng.sample(SHIFTS, 7) for _ in pairs]
        logprobs = [[q + d for q, d in zip(*both)] for both in zip(sampled, orders)]
        if junk is not None:
            logprobs, sampled = ([[x if m else junk for x, m in zip(*both)] for both in zip(table, mask)]
                                 for table in (logprobs, sampled))  # fmt: skip
        case = {"rewards": [r for r, _ in pairs], "groups": [g for _, g in pairs], "logprobs": logprobs,
                "sampled_logprobs": sampled, "mask": mask, "junk": junk is not None}  # fmt: skip
        cases.append({**case, **dict(zip(("epsilon", "epsilon_high"), clip or (0.2, 0.28)))})
    return cases


def expect_dapo(case):
    low, high = case["epsilon"], case["epsilon_high"]

    def advantages(values=None, unbiased=1, divided=True, among=None):
        found = []
        for own, group in zip(case["rewards"], case["groups"]):
            others = among or [r for r, g in zip(case["rewards"], case["groups"]) if g == group]
            mean = sum(others) / len(others)
            std = math.sqrt(sum((r - mean) ** 2 for r in others) / (len(others) - unbiased))
            found.append((own - mean) / (std + 1e-6) if divided else own - mean)
        return found

    def clipped(a, ratio, low=low, high=high):
        gone = ratio > 1 + high if a > 0 else ratio < 1 - low
        return 0.0 if gone else ratio * a

    def by(rule=clipped, worth=None, kept=True):
        return [
            [rule(a, math.exp(p - q)) if m or not kept else 0.0 for p, q, m in zip(*row)]
            for a, *row in zip(worth or advantages(), case["logprobs"], case["sampled_logprobs"], case["mask"])
        ]

    if case["junk"]:
        return by(), {}

    def by_text(whole):
        """The same ratio at every step of a row."""
        table = []
        for a, p, q, acted in zip(advantages(), case["logprobs"], case["sampled_logprobs"], case["mask"]):
            ratio = math.exp(whole([x - y for x, y, m in zip(p, q, acted) if m]))
            table.append([clipped(a, ratio) if m else 0.0 for m in acted])
        return table

    deviation = statistics.stdev(case["rewards"]) + 1e-6
    mistakes = {
        "the clip is symmetric: above 1 there is room up to 1 + epsilon_high": by(lambda a, x: clipped(a, x, high=low)),
        "epsilon_high on both sides: below 1 it is epsilon": by(lambda a, x: clipped(a, x, low=high)),
        "epsilon and epsilon_high are swapped": by(lambda a, x: clipped(a, x, high, low)),
        "nothing is clipped": by(lambda a, x: x * a),
        "the value of PPO's objective: where it is clipped its gradient is 0, and so is the weight":
            by(lambda a, x: min(x * a, min(max(x, 1 - low), 1 + high) * a)),
        "the ratio is cut off, and still pushes: past the clip the weight is 0":
            by(lambda a, x: min(max(x, 1 - low), 1 + high) * a),
        "clipped on both sides whatever the sign: a good action that became rarer may still be pushed up":
            by(lambda a, x: x * a if 1 - low <= x <= 1 + high else 0.0),
        "the sign of the advantage is turned: good actions are clipped above, bad ones below":
            by(lambda a, x: 0.0 if (x < 1 - low if a > 0 else x > 1 + high) else x * a),
        "inverted: this is sampler over learner": by(lambda a, x: clipped(a, 1 / x)),
        "log-ratios are compared with epsilon: the ratio itself is used up, at 1 - epsilon and 1 + epsilon_high":
            by(lambda a, x: 0.0 if (math.log(x) > high if a > 0 else math.log(x) < -low) else x * a),
        "the lower end is 1 / (1 + epsilon): it is 1 - epsilon": by(lambda a, x: clipped(a, x, low=1 - 1 / (1 + low))),
        "clipped above whatever the sign: a bad action that became likelier must be pushed back":
            by(lambda a, x: 0.0 if x > 1 + high else x * a),
        "the larger of the two terms: PPO takes the smaller, and the weight is its gradient":
            by(lambda a, x: max(x * a, min(max(x, 1 - low), 1 + high) * a)),
        "0.2 and 0.28 always: use epsilon and epsilon_high": by(lambda a, x: clipped(a, x, 0.2, 0.28)),
        "the advantage is missing: these are ratios": by(lambda a, x: x if clipped(a, x) else 0.0),
        "the ratio of the whole text: DAPO's is each token's own": by_text(sum),
        "the mean log-ratio of the text, as GSPO: DAPO's ratio is each token's own":
            by_text(lambda logs: sum(logs) / len(logs)),
        "the group's mean, but the standard deviation of all rows: both are the group's":
            by(worth=[a / deviation for a in advantages(divided=False)]),
        "not divided by the standard deviation, and the row is left out of its mean: that is RLOO":
            by(worth=[a * 3 / 2 for a in advantages(divided=False)]),
        "the ratio is missing: where it is not clipped the weight is ratio times advantage":
            by(lambda a, x: a if clipped(a, x) else 0.0),
        "not divided by the standard deviation": by(worth=advantages(divided=False)),
        "the biased standard deviation: divide by n - 1": by(worth=advantages(unbiased=0)),
        "all rows are one group: standardize within each": by(worth=advantages(among=case["rewards"])),
        "the rewards themselves: subtract the group's mean and divide by its deviation": by(worth=case["rewards"]),
        "padding is filled: 0 where mask is False": by(kept=False),
    }
    return by(), mistakes


EXERCISES = {
    "16.1": Exercise(limit_cases, drive_arguments, expect_limit, points=2, reference=sampling_limit, tolerance=1e-9,
        signature="sampling_limit(rows: int, prompt: int, new: int, weight_bytes: number, cache_bytes: number,"
        " bandwidth: number) -> number"),
    "16.2": Exercise(truncated_cases, None, expect_truncated, points=2, reference=truncated_weights,
        remark=lost_on_padding,
        signature="truncated_weights(advantages: float[B T], logprobs: float[B T], sampled_logprobs: float[B T],"
        " mask: bool[B T], cap: number) -> float[B T] without gradient of logprobs"),
    "16.3": Exercise(teaching_cases, None, expect_teaching, points=2, reference=teaches,
        signature="teaches(rewards: float[B], groups: int[B]) -> bool[B]"),
    "16.4": Exercise(dapo_cases, None, expect_dapo, points=4, reference=dapo_weights, remark=lost_on_padding,
        signature="dapo_weights(rewards: float[B], groups: int[B], logprobs: float[B T], sampled_logprobs: float[B T],"
        " mask: bool[B T], epsilon: number, epsilon_high: number) -> float[B T] without gradient of logprobs"),
}  # fmt: skip
