"""Lesson 11: trajectory ratio, per-decision weights, self-normalised weights, effective sample size, PPO's clip; a lab.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.cases import lost_on_padding, masks, rows, spread, tensors
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise, lab
from ptlearn.policy_gradient import clipped_weights, prefix_ratio, reward_to_go, self_normalized, trajectory_ratio

NAN = math.nan


# 11.1 The trajectory ratio -------------------------------------------------------------------------------------------


def trajectory_cases(rng):
    """Padding that holds numbers; an episode whose probability is rounded to zero; padding that holds anything."""
    cases = []
    for lengths, steps, low, junk in (([rng.randint(1, 2), 3], 3, -2.0, None),
                                      ([rng.randint(3, 4), 5, 2], 5, -2.0, None), ([300, 280], 300, -6.0, None),
                                      ([2, 4, 3], 4, -2.0, NAN), ([3, 2], 3, -2.0, -math.inf)):  # fmt: skip
        mask = masks(lengths, steps)
        pair = [rows(rng, (len(lengths), steps), low, low + 1.8) for _ in range(2)]
        if junk is not None:
            pair = [[[x if m else junk for x, m in zip(*both)] for both in zip(table, mask)] for table in pair]
        cases.append({"logprobs": pair[0], "behavior_logprobs": pair[1], "mask": mask, "junk": junk is not None})
    return cases


def expect_trajectory(case):
    mask = case["mask"]
    logs = [[p - q for p, q in zip(*pair)] for pair in zip(case["logprobs"], case["behavior_logprobs"])]
    acted = [[x for x, m in zip(row, kept) if m] for row, kept in zip(logs, mask)]
    expected = spread([math.exp(sum(row)) for row in acted], mask)

    def each(rule):
        return [[rule(row, t) if m else 0.0 for t, m in enumerate(kept)] for row, kept in zip(logs, mask)]

    def probability(name):
        return [math.prod(math.exp(x) for x, m in zip(row, kept) if m) for row, kept in zip(case[name], mask)]

    if case["junk"]:
        return expected, {}
    quotients = [p / q if q else NAN for p, q in zip(probability("logprobs"), probability("behavior_logprobs"))]
    everything = [math.exp(sum(row)) for row in logs]
    mistakes = {
        "padding counts: sum the log-ratios over the steps where mask is True": spread(everything, mask),
        "padding counts, and is filled too: 0 where mask is False": [[x] * len(mask[0]) for x in everything],
        "inverted: this is μ(τ) / π(τ); the policy we ask about stands above":
            spread([math.exp(-sum(row)) for row in acted], mask),
        "this is the ratio of each step alone: the episode's is their product": each(lambda row, t: math.exp(row[t])),
        "this is the prefix ratio, up to each step: take the whole episode":
            each(lambda row, t: math.exp(sum(row[: t + 1]))),
        "the mean of the log-ratios: they are summed, for the ratio is a product":
            spread([math.exp(sum(row) / len(row)) for row in acted], mask),
        "the ratios are summed: multiply them, or sum their logarithms":
            spread([sum(math.exp(x) for x in row) for row in acted], mask),
        "this is the log of the ratio: exp is missing": spread([sum(row) for row in acted], mask),
        "0 / 0: the product of many probabilities is zero in floating point, so sum logarithms first": Alternatives(
            spread(quotients, mask),
            [[x if m or math.isnan(x) else 0.0 for m in kept] for x, kept in zip(quotients, mask)],
        ),
        "padding is filled: 0 where mask is False": [[x] * len(row) for x, row in zip(map(max, expected), mask)],
        "one number per episode: write it at each of its steps, (B, T)": [max(row) for row in expected],
        "a column (B, 1): write it at each step, 0 where mask is False": [[max(row)] for row in expected],
    }  # fmt: skip
    return expected, mistakes


# 11.2 Each reward with its prefix -------------------------------------------------------------------------------------


def per_decision(rewards, step_ratios, mask):
    """The package's pieces put together: reward-to-go of rewards that carry the prefix ratio."""
    logs = step_ratios.log().where(mask, step_ratios.new_zeros(()))
    return reward_to_go(prefix_ratio(logs, logs.new_zeros(logs.shape), mask) * rewards, mask)


def decision_cases(rng):
    """The first is small; in the last π never takes one of the actions, so its ratio is 0."""
    cases = []
    for lengths, steps in (([3, 2], 3), ([4, 4, 4], 4), ([3, 5, 2, 1], 5), ([4, 3], 4)):
        shape = len(lengths), steps
        rewards = [[x * rng.choice([-1, 1]) for x in row] for row in rows(rng, shape, 0.5, 2.0)]
        cases.append({"rewards": rewards, "step_ratios": rows(rng, shape, 0.3, 3.0), "mask": masks(lengths, steps)})
    cases[-1]["step_ratios"][0][rng.randint(1, 2)] = 0.0
    return cases


def expect_decision(case):
    mask, steps = case["mask"], range(len(case["mask"][0]))

    def by(rule, kept=True):
        """A rule (rewards, ratios, t, length) at every step."""
        return [
            [rule(r, p, t, sum(m)) if m[t] or not kept else 0.0 for t in steps]
            for r, p, m in zip(case["rewards"], case["step_ratios"], mask)
        ]

    def product(p, start, stop):
        return math.prod(p[start:stop])

    expected = by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t, n)))
    mistakes = {
        "prefix times reward-to-go: the rewards after t lack the ratios of the actions after t, and are still μ's":
            by(lambda r, p, t, n: product(p, 0, t + 1) * sum(r[t:n])),
        "the ratio of step t' alone is put on r_t': every action from the first to t' led there":
            by(lambda r, p, t, n: sum(p[k] * r[k] for k in range(t, n))),
        "the product starts at t: it starts at the episode's first step, for the states before t are μ's too":
            by(lambda r, p, t, n: sum(product(p, t, k + 1) * r[k] for k in range(t, n))),
        "the action's own ratio is left out: r_t' carries the ratios up to t' included":
            by(lambda r, p, t, n: sum(product(p, 0, k) * r[k] for k in range(t, n))),
        "the sum runs over the past: from t on":
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t + 1))),
        "the sum runs over the whole episode at every step: from t on":
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(n))),
        "not summed: this is the weighted reward of step t alone": by(lambda r, p, t, n: product(p, 0, t + 1) * r[t]),
        "the whole episode's ratio on every reward: unbiased, but each reward needs its prefix only":
            by(lambda r, p, t, n: product(p, 0, n) * sum(r[t:n])),
        "step ratio times reward-to-go: this is the lecture's per-step form, which is biased":
            by(lambda r, p, t, n: p[t] * sum(r[t:n])),
        "padding pays: the sum ends where mask ends":
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t, len(r)))),
        "summed, and then the prefix again: each reward carries its own prefix once":
            by(lambda r, p, t, n: product(p, 0, t + 1) * sum(product(p, 0, k + 1) * r[k] for k in range(t, n))),
        "the prefix up to t - 1 times reward-to-go: r_t' carries the ratios up to t' included":
            by(lambda r, p, t, n: product(p, 0, t) * sum(r[t:n])),
        "the ratios are summed up: the prefix is their product":
            by(lambda r, p, t, n: sum(sum(p[: k + 1]) * r[k] for k in range(t, n))),
        "the product runs from the end, ρ_t' ... ρ_T: the ratios up to t' are asked for":
            by(lambda r, p, t, n: sum(product(p, k, n) * r[k] for k in range(t, n))),
    }  # fmt: skip
    return expected, mistakes


# 11.3 Self-normalised weights -----------------------------------------------------------------------------------------


def normalizing_cases(rng):
    """ρ(τ), then prefixes; ragged episodes, with numbers on padding; in some nobody acts at the last step."""
    cases = []
    for whole, lengths, steps in (
        (False, [3, 2], 3), (True, [4, 3, 2, 4], 4), (False, [2, 5, 3, 1, 5], 5), (False, [3, 2, 3, 1], 4)
    ):  # fmt: skip
        ratios, mask = rows(rng, (len(lengths), steps), 0.2, 3.0), masks(lengths, steps)
        if whole:
            ratios = [[row[0] if m else x for x, m in zip(row, kept)] for row, kept in zip(ratios, mask)]
        cases.append({"ratios": ratios, "mask": mask})
    return cases


def expect_normalizing(case):
    """Two answers are consistent: step by step with ended episodes' ratios carried on, and once for all steps."""
    ratios, mask, width, count = case["ratios"], case["mask"], len(case["mask"][0]), len(case["mask"])
    steps = range(width)
    acted = [[x for x, m in zip(row, kept) if m] for row, kept in zip(ratios, mask)]
    carried = [[row[min(t, len(row) - 1)] for t in steps] for row in acted]
    alive = [[row[t] for row in acted if t < len(row)] for t in steps]
    ends = [row[-1] for row in acted]

    def mean(values):
        return sum(values) / len(values) if values else 1.0

    def by(divisors, numbers=ratios, everywhere=False):
        return [
            [x / d if m or everywhere else 0.0 for x, m, d in zip(row, kept, divisors)]
            for row, kept in zip(numbers, mask)
        ]

    def column(t, ended=None):
        """The ratios at step t: of an episode that has ended the number `ended`, or what stands on padding."""
        return [row[t] if kept[t] or ended is None else ended for row, kept in zip(ratios, mask)]

    def within_rows(divisor):
        return [[x / divisor(own) if m else 0.0 for x, m in zip(*pair)] for *pair, own in zip(ratios, mask, acted)]

    means, once = [mean([row[t] for row in carried]) for t in steps], [mean(ends)] * width
    mistakes = {
        "divides by the mean over the rows still acting: under π others still act than under μ, so their ratios do not "
        "average to 1, however many they are; an episode that has ended keeps its last ratio":
            by([mean(row) for row in alive]),
        "an ended episode counts as 0 in the mean: it keeps the ratio of its last action":
            by([mean(column(t, 0.0)) or 1.0 for t in steps]),
        "an ended episode counts as 1 in the mean: it keeps the ratio of its last action":
            by([mean(column(t, 1.0)) for t in steps]),
        "what stands on padding is averaged in: an ended episode keeps the ratio of its last action":
            by([mean(column(t)) for t in steps]),
        "divided by the mean of the last column: what has ended before has nothing but padding there":
            by([mean(column(-1))] * width),
        "divided by the sum of the last ratios: divide by their mean, or the weights shrink with the batch":
            by([count * d for d in once]),
        "divided by the sum over the rows still acting: divide by a mean, and over all rows":
            by([sum(row) or 1.0 for row in alive]),
        "normalised along time: average over episodes, which are rows": within_rows(mean),
        "each row is divided by its sum: average over episodes, which are rows": within_rows(sum),
        "one mean over all steps of all episodes: long ones count more often in it, and each must count once":
            by([mean(sum(acted, []))] * width),
        "divided by the mean of the first step at every step: that takes out nothing of what comes later":
            by([mean(column(0))] * width),
        "padding is filled: 0 where mask is False": by(means, everywhere=True),
        "padding is filled, after the division: 0 where mask is False": by(once, everywhere=True),
        "padding is filled, with the ratios carried on: 0 where mask is False": by(means, carried, everywhere=True),
        "divided by one number, the mean over episodes and steps: a mean for each step": by([mean(means)] * width),
        "divided by the mean of the others: the episode itself counts too": [
            [x * (count - 1) / (count * d - c) if m else 0.0 for x, m, d, c in zip(row, kept, means, others)]
            for row, kept, others in zip(ratios, mask, carried)
        ],
        "divided by the largest: the mean is what must become 1": by([max(row) for row in zip(*carried)]),
        "the ratios come back as they were": by([1.0] * width),
        "the mean is subtracted: divide, so that the weights stay positive":
            [[x - d if m else 0.0 for x, m, d in zip(row, kept, means)] for row, kept in zip(ratios, mask)],
    }  # fmt: skip
    return Alternatives(by(means), by(once)), mistakes


# 11.4 The effective sample size ---------------------------------------------------------------------------------------


def effective_sample_size(log_weights):
    """The package's, on weights scaled so that the largest is 1."""
    from ptlearn import policy_gradient

    return policy_gradient.effective_sample_size((log_weights - log_weights.max()).exp())


def worth_cases(rng):
    """Near 0, and moved far away; then far from each other, all equal, and a single one."""
    moderate = [round(rng.uniform(-1.5, 1.5), 3) for _ in range(6)]
    few = [round(rng.uniform(0.2, 2.0), 3) for _ in range(3)]
    apart = [few[0] + 900.0, -1000.0, few[1] + 900.0, -950.0, few[2]], [-400.0, *(x + 400.0 for x in few)]
    return [
        {"log_weights": logs}
        for logs in (few, moderate, [x + 1000.0 for x in moderate], [x - 1000.0 for x in moderate], *apart,
                     [few[0]] * 4, [few[0] - 800.0])
    ]  # fmt: skip


def exponential(x):
    """exp, as a tensor has it: infinite from 710 on."""
    return math.exp(x) if x < 709 else math.inf


def expect_worth(case):
    logs = case["log_weights"]
    count, mean_log = len(logs), sum(logs) / len(logs)
    scaled = [math.exp(x - max(logs)) for x in logs]
    total, squares = sum(scaled), sum(x * x for x in scaled)
    expected, mean = total**2 / squares, total / count
    deviations = sum((x - mean) ** 2 for x in scaled)
    shares = [x / total for x in scaled]

    def less(shift):
        """What comes of weights exp(log_weights - shift)."""
        above, below = (sum(exponential(power * (x - shift)) for x in logs) for power in (1, 2))
        return above**2 / below if below and math.isfinite(below) else NAN

    mistakes = {
        "Σ w / Σ w² of the scaled weights: the sum above is squared": total / squares,
        "Σ w² / Σ w²: square the sum, not the terms": 1.0,
        "1 / the largest share: another count, the ESS is (Σ w)² / Σ w²": 1 / max(shares),
        "the log-weights are taken for weights: exp is missing": sum(logs) ** 2 / sum(x * x for x in logs),
        "B / (1 + variance) with weights that do not average to 1: divide them by their mean first":
            Alternatives(count / (1 + deviations / max(count - 1, 1)), count / (1 + deviations / count)),
        "not a number: exp overflows at 710 and is 0 below -745, so subtract the largest log-weight first": less(0.0),
        "not a number where log-weights are far apart: subtract the largest, not the mean": less(mean_log),
        "not a number where log-weights are far apart: subtract the largest, not the smallest": less(min(logs)),
        "not a number where log-weights are far apart: subtract the largest, not the first": less(logs[0]),
    }  # fmt: skip
    if all(shares):
        mistakes["exp of the entropy of the weights: another count, the ESS is (Σ w)² / Σ w²"] = (
            math.exp(-sum(p * math.log(p) for p in shares))
        )
    if count > 1:
        mistakes["B / (1 + variance) with the unbiased variance: Kong's is the mean square, divided by B"] = (
            count / (1 + deviations / (count - 1) / mean**2)
        )
    return expected, mistakes


# 11.5 PPO's clip ------------------------------------------------------------------------------------------------------


def clip_cases(rng):
    """Far out, just inside and just outside on both sides, and the middle, in any order; epsilon, or none given."""
    cases = []
    kinds = [(x, sign) for x in (2.2, -2.2, 1.04, -0.96, 0.9, -1.04, 0.05) for sign in (1, -1)]
    for width, epsilon, chosen in ((2, 0.2, kinds[:8]), (7, None, kinds), (4, 0.1, [*kinds, (2.2, 0), (-2.2, 0)]),
                                   (14, 0.4, kinds)):  # fmt: skip
        pairs = [(1 + x * (epsilon or 0.2), sign * round(rng.uniform(0.5, 2.0), 3)) for x, sign in chosen]
        rng.shuffle(pairs)
        ratios, advantages = ([list(row) for row in zip(*[iter(part)] * width)] for part in zip(*pairs))
        cases.append({"ratios": ratios, "advantages": advantages, "epsilon": epsilon})
    return cases


def drive_clip(answer, case):
    options = {} if case["epsilon"] is None else {"epsilon": case["epsilon"]}
    return answer(*tensors(case, "ratios", "advantages"), **options)


def expect_clip(case):
    epsilon = 0.2 if case["epsilon"] is None else case["epsilon"]
    low, high = 1 - epsilon, 1 + epsilon

    def by(rule):
        return [[rule(p, A) for p, A in zip(*pair)] for pair in zip(case["ratios"], case["advantages"])]

    def clip(p, low=low, high=high):
        return min(max(p, low), high)

    def unless(gone, weight=lambda p, A: p * A):
        return by(lambda p, A: 0.0 if gone(p, A) else weight(p, A))

    def used_up(p, A, low=low, high=high):
        return p > high if A > 0 else p < low

    mistakes = {
        "the sign of the advantage is ignored: a bad action that became more likely must be pushed back in full":
            unless(lambda p, A: not low <= p <= high),
        "the sign of the advantage is turned, or the maximum taken: A > 0 is used up above 1 + ε, A < 0 below 1 - ε":
            unless(lambda p, A: used_up(p, -A)),
        "only the upper side is clipped: for A < 0 the ratio is used up below 1 - ε":
            unless(lambda p, A: A > 0 and p > high),
        "only the lower side is clipped: for A > 0 the ratio is used up above 1 + ε":
            unless(lambda p, A: A < 0 and p < low),
        "clipped above whatever the sign, and never below: look at the sign of A": unless(lambda p, A: p > high),
        "the advantage is missing: the weight is ratio times advantage": unless(used_up, lambda p, A: p),
        "log-ratios are compared with ε: the ratio itself is used up at 1 ± ε":
            unless(lambda p, A: used_up(p, A, math.exp(-epsilon), math.exp(epsilon))),
        "the lower side is 1 / (1 + ε): it is 1 - ε": unless(lambda p, A: used_up(p, A, 1 / high, high)),
        "this is the value of PPO's objective: its gradient is 0 where the clipped term is the smaller":
            by(lambda p, A: min(p * A, clip(p) * A)),
        "the ratio is clipped and still pushes: where it is used up, the weight is 0": by(lambda p, A: clip(p) * A),
        "nothing is clipped: this is ratio times advantage": by(lambda p, A: p * A),
        "epsilon is ignored: it is not always 0.2": unless(lambda p, A: used_up(p, A, 0.8, 1.2)),
        "compared with ε instead of 1 ± ε: the ratio is about 1, not about 0":
            unless(lambda p, A: used_up(p, A, -epsilon, epsilon)),
    }  # fmt: skip
    return unless(used_up), mistakes


# 11.6 The lab ---------------------------------------------------------------------------------------------------------

BUGS = {"A": "padding", "B": "inverted", "C": "sign", "D": "recomputed"}
SIGNS = {  # what one would see if it had that bug
    "inverted": "would turn 1.1 into 0.91 and leave 1 as it is",
    "recomputed": "would be a ratio that is always 1: the advantage itself, never 0",
    "padding": "would change the ratio even on fresh data, as these steps have two padded ones each",
    "sign": "would give 0 for ratio 1.5 with A = -1, and be right for ratio 1.1",
    "no exp": "would be 0 on fresh data, where a log-ratio is 0",
    "epsilon": "would give 1.5 for ratio 1.5 with A = +1, for its range is too wide, and be right for A = -1",
}
SEEN = {  # what the property test shows of a run
    "A": "on fresh data (ratio 1) run A's weight is 0.25, and a fourth of the right one wherever it is not clipped",
    "B": "on fresh data run B is right, and a true ratio of 1.1 gives 0.91",
    "C": "run C is right except where a bad action became more likely (ratio 1.5, A = -1): 0 instead of -1.5",
    "D": "run D's weights are the advantages themselves, whatever the true ratio, and none is ever 0",
}


def weights_of(ratios, advantages, epsilon=0.2):
    """The package's `clipped_weights`, called as the student's."""
    return clipped_weights(ratios, advantages, epsilon=epsilon)


EXERCISES = {
    "11.1": Exercise(trajectory_cases, None, expect_trajectory, points=2, reference=trajectory_ratio,
        remark=lost_on_padding,
        signature="trajectory_ratio(logprobs: float[B T], behavior_logprobs: float[B T], mask: bool[B T]) -> float[B"
        " T] without gradient of logprobs"),
    "11.2": Exercise(decision_cases, None, expect_decision, points=2, reference=per_decision,
        signature="per_decision(rewards: float[B T], step_ratios: float[B T], mask: bool[B T]) -> float[B T]"),
    "11.3": Exercise(normalizing_cases, None, expect_normalizing, points=2, reference=self_normalized,
        signature="self_normalized(ratios: float[B T], mask: bool[B T]) -> float[B T]"),
    "11.4": Exercise(worth_cases, None, expect_worth, points=2, reference=effective_sample_size,
        signature="effective_sample_size(log_weights: float[B]) -> number"),
    "11.5": Exercise(clip_cases, drive_clip, expect_clip, points=3, reference=weights_of,
        signature="clipped_weights(ratios: float[B T], advantages: float[B T], epsilon: number) -> float[B T]"),
    "11.6": lab(4, BUGS, SIGNS, SEEN),
}  # fmt: skip
