"""Lesson 11: trajectory ratio, per-decision weights, self-normalised weights, effective sample size, PPO's clip; a lab.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.cases import masks, rows, spread, tensors
from ptlearn.course.diagnosis import differences
from ptlearn.course.exercise import Exercise
from ptlearn.policy_gradient import clipped_weights, prefix_ratio, reward_to_go, self_normalized, trajectory_ratio

NAN = math.nan


# 11.1 The trajectory ratio -------------------------------------------------------------------------------------------


def trajectory_cases(rng):
    """Padding that holds numbers; then an episode so long that its probability is zero in floating point."""
    short = {
        "logprobs": rows(rng, (3, 5), -2.0, -0.2),
        "behavior_logprobs": rows(rng, (3, 5), -2.0, -0.2),
        "mask": masks([rng.randint(3, 4), 5, 2], 5),
    }
    long = {
        "logprobs": rows(rng, (2, 300), -6.0, -5.0),
        "behavior_logprobs": rows(rng, (2, 300), -6.0, -5.0),
        "mask": masks([300, 280], 300),
    }
    return [short, long]


def drive_trajectory(answer, case):
    logprobs, behavior, mask = tensors(case, "logprobs", "behavior_logprobs", "mask")
    result = answer(logprobs.requires_grad_(), behavior, mask)
    return {"ratio": result.detach(), "carries a gradient": bool(result.requires_grad)}


def verify_trajectory(case, data):
    mask = case["mask"]
    logs = [[p - q for p, q in zip(*pair)] for pair in zip(case["logprobs"], case["behavior_logprobs"])]
    acted = [[x for x, m in zip(row, kept) if m] for row, kept in zip(logs, mask)]
    expected = spread([math.exp(sum(row)) for row in acted], mask)

    def said(ratio, carries=False):
        return {"ratio": ratio, "carries a gradient": carries}

    def each(rule):
        return [[rule(row, t) if m else 0.0 for t, m in enumerate(kept)] for row, kept in zip(logs, mask)]

    def probability(name):
        return [math.prod(math.exp(x) for x, m in zip(row, kept) if m) for row, kept in zip(case[name], mask)]

    quotients = [p / q if q else NAN for p, q in zip(probability("logprobs"), probability("behavior_logprobs"))]
    everything = [math.exp(sum(row)) for row in logs]
    wrong = {
        "padding counts: sum the log-ratios over the steps where mask is True": spread(everything, mask),
        "padding counts, and is filled too: 0 where mask is False": [[x] * len(mask[0]) for x in everything],
        "inverted: this is μ(τ) / π(τ); the policy we ask about stands above": (
            spread([math.exp(-sum(row)) for row in acted], mask)
        ),
        "this is the ratio of each step alone: the episode's is their product": each(lambda row, t: math.exp(row[t])),
        "this is the prefix ratio, up to each step: take the whole episode": (
            each(lambda row, t: math.exp(sum(row[: t + 1])))
        ),
        "the mean of the log-ratios: they are summed, for the ratio is a product": (
            spread([math.exp(sum(row) / len(row)) for row in acted], mask)
        ),
        "the ratios are summed: multiply them, or sum their logarithms": (
            spread([sum(math.exp(x) for x in row) for row in acted], mask)
        ),
        "this is the log of the ratio: exp is missing": spread([sum(row) for row in acted], mask),
        "0 / 0: the product of many probabilities is zero in floating point, so sum logarithms first": (
            spread(quotients, mask)
        ),
        "0 / 0, on padding too: the product of many probabilities is zero in floating point, so sum logarithms first": (
            [[x if m or math.isnan(x) else 0.0 for m in kept] for x, kept in zip(quotients, mask)]
        ),
        "padding is filled: 0 where mask is False": [[x] * len(row) for x, row in zip(map(max, expected), mask)],
        "one number per episode: write it at each of its steps, (B, T)": [max(row) for row in expected],
        "a column (B, 1): write it at each step, 0 where mask is False": [[max(row)] for row in expected],
    }
    mistakes = {text: said(ratio) for text, ratio in wrong.items()}
    gradient = "the ratio carries a gradient: a weight scales the gradient, so detach the log-probabilities"
    # the number first: it is the more telling when both are wrong
    found = differences({**data, "carries a gradient": False}, said(expected), mistakes)
    return found or (gradient if data["carries a gradient"] else None)


# 11.2 Each reward with its prefix -------------------------------------------------------------------------------------


def per_decision(rewards, step_ratios, mask):
    """The package's pieces put together: reward-to-go of rewards that carry the prefix ratio."""
    logs = step_ratios.log().where(mask, step_ratios.new_zeros(()))
    return reward_to_go(prefix_ratio(logs, logs.new_zeros(logs.shape), mask) * rewards, mask)


def decision_cases(rng):
    return [
        {
            "rewards": [[round(rng.choice([-1, 1]) * rng.uniform(0.5, 2.0), 3) for _ in range(4)] for _ in range(3)],
            "step_ratios": rows(rng, (3, 4), 0.3, 3.0),
            "mask": masks(lengths, 4),
        }
        for lengths in ([4, 4, 4], [3, 4, 2])
    ]


def drive_decision(answer, case):
    return answer(*tensors(case, "rewards", "step_ratios", "mask"))


def verify_decision(case, data):
    mask, steps = case["mask"], range(4)

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
        "prefix times reward-to-go: the rewards after t lack the ratios of the actions after t, and are still μ's": (
            by(lambda r, p, t, n: product(p, 0, t + 1) * sum(r[t:n]))
        ),
        "the ratio of step t' alone is put on r_t': every action from the first to t' led there": (
            by(lambda r, p, t, n: sum(p[k] * r[k] for k in range(t, n)))
        ),
        "the product starts at t: it starts at the episode's first step, for the states before t are μ's too": (
            by(lambda r, p, t, n: sum(product(p, t, k + 1) * r[k] for k in range(t, n)))
        ),
        "the action's own ratio is left out: r_t' carries the ratios up to t' included": (
            by(lambda r, p, t, n: sum(product(p, 0, k) * r[k] for k in range(t, n)))
        ),
        "the sum runs over the past: from t on": (
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t + 1)))
        ),
        "the sum runs over the whole episode at every step: from t on": (
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(n)))
        ),
        "step t itself is left out: from t on, t included": (
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t + 1, n)))
        ),
        "not summed: this is the weighted reward of step t alone": by(lambda r, p, t, n: product(p, 0, t + 1) * r[t]),
        "the whole episode's ratio on every reward: unbiased, but each reward needs its prefix only": (
            by(lambda r, p, t, n: product(p, 0, n) * sum(r[t:n]))
        ),
        "step ratio times reward-to-go: this is the lecture's per-step form, which is biased": (
            by(lambda r, p, t, n: p[t] * sum(r[t:n]))
        ),
        "padding pays: the sum ends where mask ends": (
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t, 4)))
        ),
        "padding pays and is filled: the sum ends where mask ends, and 0 where mask is False": (
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t, 4)), kept=False)
        ),
        "no ratio in it: this is plain reward-to-go": by(lambda r, p, t, n: sum(r[t:n])),
    }
    return differences(data, expected, mistakes)


# 11.3 Self-normalised weights -----------------------------------------------------------------------------------------


def normalizing_cases(rng):
    """ρ(τ), then prefixes; ragged episodes, with numbers on padding; in the last case nobody acts at the last step."""
    cases = []
    for whole, lengths in ((True, [4, 3, 2, 4]), (False, [2, 4, 3, 1]), (False, [3, 2, 3, 1])):
        ratios, mask = rows(rng, (4, 4), 0.2, 3.0), masks(lengths, 4)
        if whole:
            ratios = [[row[0] if m else x for x, m in zip(row, kept)] for row, kept in zip(ratios, mask)]
        cases.append({"ratios": ratios, "mask": mask})
    return cases


def drive_normalizing(answer, case):
    return answer(*tensors(case, "ratios", "mask"))


def verify_normalizing(case, data):
    """Two answers are consistent: step by step with ended episodes' ratios carried on, and once for all steps."""
    ratios, mask, steps = case["ratios"], case["mask"], range(4)
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

    means, once = [mean([row[t] for row in carried]) for t in steps], [mean(ends)] * 4
    mistakes = {
        "divides by the mean over the rows still acting: under π others still act than under μ, so their ratios do not "
        "average to 1, however many they are; an episode that has ended keeps its last ratio": (
            by([mean(row) for row in alive])
        ),
        "an ended episode counts as 0 in the mean: it keeps the ratio of its last action": (
            by([mean(column(t, 0.0)) or 1.0 for t in steps])
        ),
        "an ended episode counts as 1 in the mean: it keeps the ratio of its last action": (
            by([mean(column(t, 1.0)) for t in steps])
        ),
        "what stands on padding is averaged in: an ended episode keeps the ratio of its last action": (
            by([mean(column(t)) for t in steps])
        ),
        "divided by the mean of the last column: what has ended before has nothing but padding there": (
            by([mean(column(3))] * 4)
        ),
        "divided by the sum: they then sum to 1 instead of averaging to 1, and shrink with the batch": (
            by([4 * d for d in means])
        ),
        "divided by the sum of the last ratios: divide by their mean, or the weights shrink with the batch": (
            by([4 * d for d in once])
        ),
        "divided by the sum over the rows still acting: divide by a mean, and over all rows": (
            by([sum(row) or 1.0 for row in alive])
        ),
        "normalised along time: average over episodes, which are rows": within_rows(mean),
        "each row is divided by its sum: average over episodes, which are rows": within_rows(sum),
        "one mean over all steps of all episodes: long ones count more often in it, and each must count once": (
            by([mean(sum(acted, []))] * 4)
        ),
        "divided by the mean of the first step at every step: that takes out nothing of what comes later": (
            by([mean(column(0))] * 4)
        ),
        "padding is filled: 0 where mask is False": by(means, everywhere=True),
        "padding is filled, after the division: 0 where mask is False": by(once, everywhere=True),
        "padding is filled, with the ratios carried on: 0 where mask is False": by(means, carried, everywhere=True),
        "divided by the largest: the mean is what must become 1": by([max(row) for row in zip(*carried)]),
        "the ratios come back as they were": by([1.0] * 4),
        "the mean is subtracted: divide, so that the weights stay positive": (
            [[x - d if m else 0.0 for x, m, d in zip(row, kept, means)] for row, kept in zip(ratios, mask)]
        ),
    }
    return differences(data, by(once)) and differences(data, by(means), mistakes)


# 11.4 The effective sample size ---------------------------------------------------------------------------------------


def effective_sample_size(log_weights):
    """The package's, on weights scaled so that the largest is 1."""
    from ptlearn import policy_gradient

    return policy_gradient.effective_sample_size((log_weights - log_weights.max()).exp())


def worth_cases(rng):
    moderate = [round(rng.uniform(-1.5, 1.5), 3) for _ in range(6)]
    return [
        {"log_weights": moderate},
        {"log_weights": [x + 1000.0 for x in moderate]},
        {"log_weights": [x - 1000.0 for x in moderate]},
    ]


def drive_worth(answer, case):
    return float(answer(*tensors(case, "log_weights")))


def verify_worth(case, data):
    logs = case["log_weights"]
    scaled = [math.exp(x - max(logs)) for x in logs]
    total, squares, count = sum(scaled), sum(x * x for x in scaled), len(scaled)
    expected = total**2 / squares
    mean = total / count
    variance = sum((x - mean) ** 2 for x in scaled) / (count - 1)
    shares = [x / total for x in scaled]
    return differences(
        data,
        expected,
        {
            "a share of the batch: the ESS counts episodes, so do not divide by B": expected / count,
            "upside down: the square of the sum stands above": 1 / expected,
            "Σ w / Σ w² of the scaled weights: the sum above is squared": total / squares,
            "Σ w² / Σ w²: square the sum, not the terms": 1.0,
            "exp of the entropy of the weights: another count, the ESS is (Σ w)² / Σ w²": (
                math.exp(-sum(p * math.log(p) for p in shares))
            ),
            "1 / the largest share: another count, the ESS is (Σ w)² / Σ w²": 1 / max(shares),
            "the log-weights are taken for weights: exp is missing": sum(logs) ** 2 / sum(x * x for x in logs),
            "B / (1 + variance) with the unbiased variance: Kong's is the mean square, divided by B": (
                count / (1 + variance / mean**2)
            ),
            "B / (1 + variance) with weights that do not average to 1: divide them by their mean first": (
                count / (1 + variance)
            ),
            "not a number: exp overflows at 710 and is 0 below -745, so subtract the largest log-weight first": NAN,
        },
    )


# 11.5 PPO's clip ------------------------------------------------------------------------------------------------------


def clip_cases(rng):
    """All four corners and the middle, both signs, two epsilons."""
    cases = []
    for epsilon in (0.2, 0.1):
        ratios = [[round(x * rng.uniform(0.97, 1.03), 3) for x in (1.6, 0.5, 1.0, 1.15, 0.85)] for _ in range(2)]
        sizes = rows(rng, (2, 5), 0.5, 2.0)
        cases.append({"ratios": ratios, "advantages": [sizes[0], [-x for x in sizes[1]]], "epsilon": epsilon})
    return cases


def drive_clip(answer, case):
    return answer(*tensors(case, "ratios", "advantages"), epsilon=case["epsilon"])


def verify_clip(case, data):
    low, high = 1 - case["epsilon"], 1 + case["epsilon"]

    def by(rule):
        return [[rule(p, A) for p, A in zip(*pair)] for pair in zip(case["ratios"], case["advantages"])]

    def clip(p, low=low, high=high):
        return min(max(p, low), high)

    def unless(gone, weight=lambda p, A: p * A):
        return by(lambda p, A: 0.0 if gone(p, A) else weight(p, A))

    def used_up(p, A, low=low, high=high):
        return p > high if A > 0 else p < low

    mistakes = {
        "the sign of the advantage is ignored: a bad action that became more likely must be pushed back in full": (
            unless(lambda p, A: not low <= p <= high)
        ),
        "the sign of the advantage is turned: for A > 0 the ratio is used up above 1 + ε, for A < 0 below 1 - ε": (
            unless(lambda p, A: used_up(p, -A))
        ),
        "only the upper side is clipped: for A < 0 the ratio is used up below 1 - ε": (
            unless(lambda p, A: A > 0 and p > high)
        ),
        "clipped above whatever the sign, and never below: look at the sign of A": unless(lambda p, A: p > high),
        "this is the value of PPO's objective: its gradient is 0 where the clipped term is the smaller": (
            by(lambda p, A: min(p * A, clip(p) * A))
        ),
        "the ratio is clipped and still pushes: where it is used up, the weight is 0": by(lambda p, A: clip(p) * A),
        "nothing is clipped: this is ratio times advantage": by(lambda p, A: p * A),
        "the ratio is missing where nothing is clipped: the weight there is ratio times advantage": (
            unless(used_up, lambda p, A: A)
        ),
        "the maximum instead of the minimum: 0 stands where the step should count": (
            unless(lambda p, A: p < low if A > 0 else p > high)
        ),
        "epsilon is ignored: it is not always 0.2": unless(lambda p, A: used_up(p, A, 0.8, 1.2)),
        "compared with ε instead of 1 ± ε: the ratio is about 1, not about 0": (
            unless(lambda p, A: used_up(p, A, -case["epsilon"], case["epsilon"]))
        ),
    }
    return differences(data, unless(used_up), mistakes)


# 11.6 The lab ---------------------------------------------------------------------------------------------------------

BUGS = {"A": "padding", "B": "inverted", "C": "sign", "D": "recomputed"}
SHOWS = {  # what the property test shows of a run
    "A": "on fresh data (ratio 1) its weight is 0.25 already, and a fourth of the right one wherever it is not clipped",
    "B": "on fresh data it is right, and a true ratio of 1.1 gives 0.91",
    "C": "it is right except where a bad action became more likely (ratio 1.5, A = -1): 0 instead of -1.5",
    "D": "every weight is the advantage itself, whatever the true ratio, and none is ever 0",
}
EXPECTS = {  # what one would see if it had that bug
    "inverted": "an inverted ratio turns 1.1 into 0.91 and leaves 1 as it is",
    "recomputed": "a ratio that is always 1 gives the advantage itself, never 0",
    "padding": "padding changes the ratio even on fresh data, as these steps have two padded ones each",
    "sign": "a clip without regard of the sign gives 0 for ratio 1.5 with A = -1, and is right for ratio 1.1",
    "no exp": "a log-ratio is 0 on fresh data, and so would be the weight",
    "epsilon": "too wide a range gives 1.5 for ratio 1.5 with A = +1 and is right for A = -1",
}


def verify_lab(case, data):
    if not isinstance(data, dict):
        return f"expected a dict from run to bug, such as {{'A': 'no exp', ...}}, not {type(data).__name__}"
    if set(data) != set(BUGS):
        return f"the runs are {', '.join(BUGS)}: the dict has {', '.join(map(str, data)) or 'nothing'}"
    for run, bug in data.items():
        if bug not in EXPECTS:
            return f"run {run}: {bug!r} is not one of the keys of BUGS: {', '.join(EXPECTS)}"
    for run, bug in data.items():
        if bug != BUGS[run]:
            return f"run {run} is not {bug!r}: {EXPECTS[bug]}; but {SHOWS[run]}"
    return None


def weights_of(ratios, advantages, epsilon=0.2):
    """The package's `clipped_weights`, called as the student's."""
    return clipped_weights(ratios, advantages, epsilon=epsilon)


EXERCISES = {
    "11.1": Exercise(trajectory_cases, drive_trajectory, verify_trajectory, points=2, reference=trajectory_ratio),
    "11.2": Exercise(decision_cases, drive_decision, verify_decision, points=2, reference=per_decision),
    "11.3": Exercise(normalizing_cases, drive_normalizing, verify_normalizing, points=2, reference=self_normalized),
    "11.4": Exercise(worth_cases, drive_worth, verify_worth, points=2, reference=effective_sample_size),
    "11.5": Exercise(clip_cases, drive_clip, verify_clip, points=3, reference=weights_of),
    "11.6": Exercise(
        lambda rng: [{"runs": list(BUGS)}], lambda answer, case: answer, verify_lab, points=4, reference=dict(BUGS)
    ),
}
