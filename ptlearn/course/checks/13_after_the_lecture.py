"""Lesson 13: groups, the ratio's place, dropped groups, KL and its places, a reward model, best of n, DPO; a lab.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` and in the lab alone.
"""

import math

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from ptlearn.course.cases import log_softmax, lost_on_padding, masks, rows, softmax
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.course.lab import lab_of_runs
from ptlearn.policy_gradient import (
    clipped_weights,
    kl_estimates,
    mean_baseline,
    policy_gradient_loss,
    step_ratio,
    total_return,
    trajectory_ratio,
)
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import Rollout, action_logprobs

NAN = math.nan


def softplus(x):
    """log(1 + exp x), for any x."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigma(x):
    """The sigmoid."""
    return math.exp(-softplus(-x))


# 13.1 Groups ---------------------------------------------------------------------------------------------------------


def group_advantages(rewards, groups):
    """The package's two: deviations from the group's mean, and the same in standard deviations."""
    from ptlearn.policy_gradient import standardized

    return {"Dr. GRPO": rewards - mean_baseline(rewards, groups=groups), "GRPO": standardized(rewards, groups)}


def group_cases(rng):
    """Groups of 2 to 4, in order and mixed, apart and spread unequally; one of equal rewards, one of nearly equal."""
    cases = []
    for groups in ([1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1, 1], [4, 2, 4, 2, 2, 4, 2]):
        rewards = [round(rng.uniform(0, 1) * (6 if group in (1, 4) else 1) + group, 3) for group in groups]
        cases.append({"rewards": rewards, "groups": groups})
    return [*cases, {"rewards": [0.75, 0.0, 0.75, 0.02], "groups": [3, 7, 3, 7]}]


def expect_groups(case):
    rewards, groups = case["rewards"], case["groups"]
    everyone = range(len(rewards))

    def mates(i):
        return [rewards[j] for j in everyone if groups[j] == groups[i]]

    def mean(values):
        return sum(values) / len(values)

    def deviation(values, less=1):
        return math.sqrt(sum((x - mean(values)) ** 2 for x in values) / (len(values) - less))

    def others(i):
        return (sum(mates(i)) - rewards[i]) / (len(mates(i)) - 1)

    def by(rule):
        return [rule(i) for i in everyone]

    def grpo(center=lambda i: mean(mates(i)), scale=lambda i: deviation(mates(i))):
        return by(lambda i: (rewards[i] - center(i)) / (scale(i) + 1e-6))

    def spread_of_others(i):
        kept = [rewards[j] for j in everyone if groups[j] == groups[i] and j != i]
        return deviation(kept) if len(kept) > 1 else math.nan

    right = {"Dr. GRPO": by(lambda i: rewards[i] - mean(mates(i))), "GRPO": grpo()}
    order = sorted(everyone, key=groups.__getitem__)
    mistakes = {
        ("Dr. GRPO", "the mean of the others: the row itself counts too, and that is how it differs from RLOO"):
            by(lambda i: rewards[i] - others(i)),
        ("Dr. GRPO", "divided by the standard deviation: it is GRPO without that division"): right["GRPO"],
        ("Dr. GRPO", "this is the mean of the group: subtract it from the reward"): by(lambda i: mean(mates(i))),
        ("GRPO", "the standard deviation has n in the denominator: n - 1"):
            grpo(scale=lambda i: deviation(mates(i), less=0)),
        ("GRPO", "divided by the variance: take the root"): Alternatives(
            grpo(scale=lambda i: deviation(mates(i)) ** 2),
            by(lambda i: right["GRPO"][i] / (deviation(mates(i)) + 1e-6)),
        ),
        ("GRPO", "the standard deviation is that of the batch: each group has its own"):
            grpo(scale=lambda i: deviation(rewards)),
        ("GRPO", "the standard deviation is that of the others: the row itself counts too"): grpo(
            scale=spread_of_others
        ),
        ("GRPO", "divided by the range of the group: by its standard deviation"):
            grpo(scale=lambda i: max(mates(i)) - min(mates(i))),
        ("GRPO", "the mean of the others: the row itself counts too"): grpo(others),
        ("GRPO", "the mean is that of the batch: each group has its own"): grpo(lambda i: mean(rewards)),
        ("GRPO", "multiplied with the standard deviation: divide by it"):
            by(lambda i: (rewards[i] - mean(mates(i))) * deviation(mates(i))),
        ("GRPO", "divided by the standard error of the mean: by the standard deviation"):
            grpo(scale=lambda i: deviation(mates(i)) / math.sqrt(len(mates(i)))),
        ("GRPO", "divided by the size of the group too: by the standard deviation alone"):
            by(lambda i: right["GRPO"][i] / len(mates(i))),
        ("GRPO", "1e-6 is added to the variance: to the standard deviation, its root"):
            grpo(scale=lambda i: math.sqrt(deviation(mates(i)) ** 2 + 1e-6)),
        ("GRPO", "more than 1e-6 is added to the standard deviation: it hides small differences"): Alternatives(
            *(grpo(scale=lambda i, more=more: deviation(mates(i)) + more) for more in (1e-4, 1e-3, 0.01, 0.1, 1.0)),
        ),
        ("GRPO", "the mean is not subtracted"): grpo(lambda i: 0.0),
        ("GRPO", "the division by the standard deviation is missing"): right["Dr. GRPO"],
        ("GRPO", "0 / 0 where all rewards of a group are equal: add 1e-6 to the standard deviation"):
            by(lambda i: (rewards[i] - mean(mates(i))) / deviation(mates(i)) if deviation(mates(i)) else math.nan),
    }  # fmt: skip
    for name, values in right.items():
        mistakes[name, "sorted by group and not put back: advantages belong to other rows"] = [values[i] for i in order]
    return right, mistakes


# 13.2 Where the ratio lives -------------------------------------------------------------------------------------------

FORMS = ("token", "trajectory", "clip", "sequence", "stopped")


def ratio_weights(logprobs, behavior_logprobs, advantages, mask, form, low=0.2, high=0.2):
    """The package's pieces: its ratios, its clip, and for a sequence the geometric mean."""
    lengths = mask.sum(1, keepdim=True)
    whole = trajectory_ratio(logprobs, behavior_logprobs, mask)
    if form == "trajectory":
        return whole * advantages
    ratios = step_ratio(logprobs, behavior_logprobs, mask)
    if form == "sequence":
        ratios = torch.where(mask, whole ** (1 / lengths), 0)
        advantages = advantages / lengths
    if form in ("clip", "sequence"):
        return torch.where(mask, clipped_weights(ratios, advantages, epsilon=low, epsilon_high=high), 0)
    if form == "stopped":
        ratios = ratios.clamp(1 - low, 1 + high)
    return torch.where(mask, ratios * advantages, 0)


def ratio_cases(rng):
    """Each form: ratios inside the clip and far out on both sides, both signs of A, uneven clips, junk on padding."""
    cases = []
    for form in FORMS:
        for lengths, steps, junk in (([2, 3], 3, None), ([3, 1, 2, 4], 5, None), ([2, 3], 4, NAN)):
            mask = masks(lengths, steps)
            behavior = rows(rng, (len(lengths), steps), -2.5, -1.2)
            drifts = [rng.choice((-1, 1)) * rng.uniform(0.1, 0.7) for _ in lengths]
            drifts[:2] = [0.5, -0.5]
            logprobs = [[q + rng.uniform(-0.35, 0.35) + d for q in row] for row, d in zip(behavior, drifts)]
            size = [round(rng.uniform(0.5, 2.0) * rng.choice((-1, 1)), 3) for _ in lengths]
            size[:2] = [abs(size[0]), abs(size[1])] if len(cases) % 2 else [-abs(size[0]), -abs(size[1])]
            low, high = rng.choice(((0.2, 0.28), (0.3, 0.45), (0.15, 0.35)))
            pair = [logprobs, behavior]
            if junk is not None:
                pair = [[[x if m else junk for x, m in zip(*both)] for both in zip(each, mask)] for each in pair]
            cases.append({"logprobs": pair[0], "behavior_logprobs": pair[1], "mask": mask, "form": form,
                          "advantages": [[a if m else 0.0 for m in row] for a, row in zip(size, mask)],
                          "low": low, "high": high, "junk": junk is not None})  # fmt: skip
    return cases


def expect_ratio(case):
    mask, form, low, high = case["mask"], case["form"], 1 - case["low"], 1 + case["high"]
    logs = [[p - q if m else 0.0 for p, q, m in zip(*three)]
            for three in zip(case["logprobs"], case["behavior_logprobs"], mask)]  # fmt: skip

    def by(rule, everywhere=False):
        """A rule (log-ratios of the row, step, advantage, length) at every acted step."""
        return [
            [rule(row, t, max(a, key=abs), sum(kept)) if m or everywhere else 0.0 for t, m in enumerate(kept)]
            for row, a, kept in zip(logs, case["advantages"], mask)
        ]

    def token(row, t, n):
        return math.exp(row[t])

    def whole(row, t, n):
        return math.exp(sum(row))

    def geometric(row, t, n):
        return math.exp(sum(row) / n)

    def gone(x, a, least=low, most=high):
        return x > most if a > 0 else x < least

    def free(ratio, by_length=False):
        return by(lambda row, t, a, n: ratio(row, t, n) * a / (n if by_length else 1))

    def clipped(ratio, by_length=False, dead=gone, value=lambda x: x):
        return by(lambda row, t, a, n: 0.0 if dead(ratio(row, t, n), a) else
                  value(ratio(row, t, n)) * a / (n if by_length else 1))  # fmt: skip

    def held(x):
        return min(max(x, low), high)

    right = {
        "token": free(token), "trajectory": free(whole), "clip": clipped(token),
        "sequence": clipped(geometric, by_length=True),
        "stopped": by(lambda row, t, a, n: held(token(row, t, n)) * a),
    }[form]  # fmt: skip
    if case["junk"]:
        return right, {}
    words = {
        "token": {
            "token: it is clipped: ρ A, wherever ρ is": clipped(token),
            "token: this is the ratio of the whole completion": free(whole),
            "token: divided by the length: that is the recipe's business": free(token, by_length=True),
            "token: the advantage alone, without a ratio": free(lambda *_: 1.0),
            "token: inverted, μ / π": free(lambda row, t, n: math.exp(-row[t])),
            "token: this is the log-ratio: exp is missing": free(lambda row, t, n: row[t]),
        },
        "trajectory": {
            "trajectory: this is the token's own ratio: multiply all of the completion": free(token),
            "trajectory: the geometric mean: the product itself": free(geometric),
            "trajectory: this is the prefix's ratio: multiply all of the completion":
                free(lambda row, t, n: math.exp(sum(row[: t + 1]))),
            "trajectory: the ratios are summed: multiply them": by(
                lambda row, t, a, n: a * sum(math.exp(x) for x in row[:n])),
            "trajectory: it is clipped: it has none": clipped(whole),
            "trajectory: inverted, μ / π": free(lambda row, t, n: math.exp(-sum(row))),
        },
        "clip": {
            "clip: nothing is clipped": free(token),
            "clip: the clamped ratio goes on pushing: where ρ is used up, the weight is 0":
                by(lambda row, t, a, n: held(token(row, t, n)) * a),
            "clip: both sides whatever the sign of A: a bad token that got likelier is pushed back in full":
                clipped(token, dead=lambda x, a: not low <= x <= high),
            "clip: the sign of A is turned": clipped(token, dead=lambda x, a: gone(x, -a)),
            "clip: high is ignored: low has taken its place":
                clipped(token, dead=lambda x, a: gone(x, a, low, 2 - low)),
            "clip: low is ignored: high has taken its place":
                clipped(token, dead=lambda x, a: gone(x, a, 2 - high, high)),
            "clip: the ratio of the whole completion: each token has its own": clipped(whole),
            "clip: the ratio of the sequence: each token has its own": clipped(geometric),
            "clip: this is the value of the min, not the weight of its gradient": by(
                lambda row, t, a, n: min(token(row, t, n) * a, held(token(row, t, n)) * a)),
            "clip: the ratio in front is missing": clipped(token, value=lambda x: 1.0),
            "clip: divided by the length: that is GRPO's business, not the form's": clipped(token, by_length=True),
        },
        "sequence": {
            "sequence: 1/|y| is missing: the slope of log s by one token's log-probability": clipped(geometric),
            "sequence: nothing is clipped: s has the rule of the clip": free(geometric, by_length=True),
            "sequence: the product of the ratios: s is their geometric mean": clipped(whole, by_length=True),
            "sequence: the ratio of each token: s is one number per row": clipped(token, by_length=True),
            "sequence: the arithmetic mean of the ratios: s is the geometric one": by(
                lambda row, t, a, n: (lambda s: 0.0 if gone(s, a) else s * a / n)(
                    sum(math.exp(x) for x in row[:n]) / n)),
            "sequence: the clamped s goes on pushing: where it is used up, the weight is 0":
                by(lambda row, t, a, n: held(geometric(row, t, n)) * a / n),
            "sequence: both sides whatever the sign of A":
                clipped(geometric, by_length=True, dead=lambda x, a: not low <= x <= high),
            "sequence: divided by the width of the batch: by the row's own length": by(
                lambda row, t, a, n: (lambda s: 0.0 if gone(s, a) else s * a / len(row))(geometric(row, t, n))),
            "sequence: the mean over the width of the batch: over the row's own tokens": by(
                lambda row, t, a, n: (lambda s: 0.0 if gone(s, a) else s * a / n)(math.exp(sum(row) / len(row)))),
        },
        "stopped": {
            "stopped: a used-up token has weight 0: CISPO keeps its gradient": clipped(token),
            "stopped: nothing is clipped: the number is": free(token),
            "stopped: clamped on the upper side alone": by(lambda row, t, a, n: min(token(row, t, n), high) * a),
            "stopped: clamped on the lower side alone": by(lambda row, t, a, n: max(token(row, t, n), low) * a),
            "stopped: the ratio of the sequence: each token has its own":
                by(lambda row, t, a, n: held(geometric(row, t, n)) * a),
            "stopped: the advantage is missing": by(lambda row, t, a, n: held(token(row, t, n))),
            "stopped: this is the value of the min, not CISPO": by(
                lambda row, t, a, n: min(token(row, t, n) * a, held(token(row, t, n)) * a)),
        },
    }[form]  # fmt: skip
    return right, words


# 13.3 Drop and refill -------------------------------------------------------------------------------------------------


def kept(rewards, groups, wanted):
    """The package's way: each group by its number, in order of its first row."""
    found = [g for g in dict.fromkeys(groups.tolist()) if len(rewards[groups == g].unique()) > 1][:wanted]
    return torch.isin(groups, torch.tensor(found, dtype=groups.dtype))


def kept_cases(rng):
    """Numbers of groups out of order and mixed; equal groups first, between and last; too few, and enough."""
    cases = []
    for order, equal, wanted in (([3, 1, 3, 1, 0, 0], (1,), 2), ([5, 5, 2, 2, 4, 4, 2, 1, 1, 0, 0, 3, 3], (2, 0), 2),
                                 ([2, 0, 1, 2, 0, 1, 0], (0,), 1), ([4, 4, 0, 0, 3, 3], (0, 3), 3),
                                 ([6, 1, 6, 1, 2, 2, 7, 7], (6,), 2)):  # fmt: skip
        level = {g: rng.choice((0.0, 1.0, 0.5)) for g in order}
        count, rewards = dict.fromkeys(order, 0), []
        for g in order:
            rewards.append(level[g] if g in equal else (0.0, 1.0, 0.5)[count[g] % 3])
            count[g] += 1
        cases.append({"rewards": rewards, "groups": order, "wanted": wanted})
    return cases


def expect_kept(case):
    rewards, groups, wanted = case["rewards"], case["groups"], case["wanted"]
    found = list(dict.fromkeys(groups))

    def of(group):
        return [r for r, g in zip(rewards, groups) if g == group]

    varied = [g for g in found if max(of(g)) > min(of(g))]

    def rows_of(chosen):
        return [g in chosen for g in groups]

    sums = [g for g in found if sum(of(g)) > 0]
    mistakes = {
        "the equal groups stay and the others go: turned round": rows_of([g for g in found if g not in varied]),
        "all groups with differences: stop at `wanted`": rows_of(varied),
        "the first `wanted` groups, equal ones too": rows_of(found[:wanted]),
        "the equal ones among the first `wanted` are dropped, and not refilled from those behind":
            rows_of([g for g in found[:wanted] if g in varied]),
        "the groups with the lowest numbers: first is by their first row": rows_of(sorted(varied)[:wanted]),
        "one group too many": rows_of(varied[: wanted + 1]),
        "one group too few": rows_of(varied[: wanted - 1]),
        "the last ones: the first `wanted` are asked for": rows_of(varied[-wanted:]),
        "groups whose rewards are all 0 are dropped, those that are all 1 stay: they teach as little":
            rows_of(sums[:wanted]),
        "groups in which all are right are dropped, those in which none is stay: they teach as little":
            rows_of([g for g in found if sum(of(g)) < len(of(g))][:wanted]),
        "everything stays": [True] * len(groups),
        "the first `wanted` rows that belong to such groups: whole groups stay together":
            [g in varied and sum(h in varied for h in groups[:i]) < wanted for i, g in enumerate(groups)],
    }  # fmt: skip
    return rows_of(varied[:wanted]), mistakes


# 13.4 Three estimates of a KL ----------------------------------------------------------------------------------------


def three_estimates(logprobs, reference_logprobs, mask):
    """The package's three, by name."""
    return kl_estimates(logprobs, reference_logprobs, mask)._asdict()


def kl_cases(rng):
    """Tokens that the reference likes more, less, and as much; at last prompt and padding hold anything."""
    cases = []
    for lengths, steps, junk in (([2, 1], 3, None), ([4, 2], 5, None), ([1, 3, 2], 4, None), ([3, 3], 5, -math.inf),
                                 ([2, 1], 4, math.nan)):  # fmt: skip
        mask = [[1 <= t <= length for t in range(steps)] for length in lengths]
        logprobs = rows(rng, (len(lengths), steps), -3.0, -1.6)
        reference = [[p + rng.choice((-1, 1)) * round(rng.uniform(0.1, 1.5), 3) for p in row] for row in logprobs]
        logprobs[0][1], reference[0][1] = -2.0, -1.2  # a ratio above 1
        logprobs[1][1] = reference[1][1]
        if junk is not None:
            logprobs, reference = (
                [[x if m else junk for x, m in zip(*pair)] for pair in zip(table, mask)]
                for table in (logprobs, reference)
            )
        cases.append({"logprobs": logprobs, "reference_logprobs": reference, "mask": mask, "junk": junk is not None})
    return cases


def expect_kl(case):
    mask = case["mask"]

    def by(rule, everywhere=False):  # of d = log r = log reference - log policy
        return [
            [rule(q - p) if acted or everywhere else 0.0 for p, q, acted in zip(*row)]
            for row in zip(case["logprobs"], case["reference_logprobs"], mask)
        ]

    rules = {"k1": lambda d: -d, "k2": lambda d: d**2 / 2, "k3": lambda d: math.exp(d) - 1 - d}
    right = {name: by(rule) for name, rule in rules.items()}
    if case["junk"]:
        return right, {}
    mistakes = {
        ("k1", "this is the ratio: take its logarithm, the difference of the log-probabilities"): by(math.exp),
        ("k1", "this is the ratio turned over: take its logarithm"): by(lambda d: math.exp(-d)),
        ("k1", "the absolute value: the mean of that is not the KL"): by(abs),
        ("k2", "the square is missing"):
            Alternatives(by(lambda d: -d / 2), by(lambda d: d / 2), by(lambda d: abs(d) / 2)),
        ("k2", "the ratio is squared: square its logarithm"):
            Alternatives(*map(by, (lambda d: math.exp(d) ** 2 / 2, lambda d: (math.exp(d) - 1) ** 2 / 2))),
        ("k3", "the ratio is turned over: r is reference / policy, since the policy sampled"):
            by(lambda d: math.exp(-d) - 1 + d),
        ("k3", "the sign of log r is turned: r - 1 - log r"): by(lambda d: math.exp(d) - 1 + d),
        ("k3", "the 1 is missing: where both agree it should be 0"): by(lambda d: math.exp(d) - d),
        ("k3", "(r - 1)² / 2: the two are alike near r = 1 alone"): by(lambda d: (math.exp(d) - 1) ** 2 / 2),
        ("k3", "r log r in the place of r - 1 - log r"): by(lambda d: math.exp(d) * d),
        ("k3", "log r is missing: r - 1 has mean 0, whatever the distance"): by(lambda d: math.exp(d) - 1),
    }  # fmt: skip
    for name, rule in rules.items():
        mistakes[name, "filled on prompt and padding: there it is 0"] = by(rule, everywhere=True)
    return right, mistakes


# 13.5 Places as weights -----------------------------------------------------------------------------------------------

VALUES = {"k1": lambda x: x, "k2": lambda x: x * x / 2, "k3": lambda x: math.exp(-x) - 1 + x}
SLOPES = {"k1": lambda x: 1.0, "k2": lambda x: x, "k3": lambda x: 1 - math.exp(-x)}


def placements(log_ratios, mask):
    """The package's estimates, summed along the row, and their slopes."""
    k = kl_estimates(log_ratios, torch.zeros_like(log_ratios), mask)
    slopes = {"k1": torch.ones_like(k.k1), "k2": k.k1, "k3": 1 - (-k.k1).exp()}
    return {f"{name} in the rewards": total_return(value, mask) for name, value in k._asdict().items()} | {
        f"{name} in the loss": torch.where(mask, slopes[name], 0) for name in slopes}  # fmt: skip


def place_cases(rng):
    """Log-ratios of both signs, some far; prompts before and padding behind, at last holding anything."""
    cases = []
    for lengths, steps, junk in (([2, 1], 3, None), ([4, 2], 5, None), ([1, 3, 2], 4, None), ([3, 2], 5, NAN)):
        mask = [[1 <= t <= length for t in range(steps)] for length in lengths]
        logs = [[rng.choice((-1, 1)) * x for x in row] for row in rows(rng, (len(lengths), steps), 0.2, 1.6)]
        if junk is not None:
            logs = [[x if m else junk for x, m in zip(*pair)] for pair in zip(logs, mask)]
        cases.append({"log_ratios": logs, "mask": mask, "junk": junk is not None})
    return cases


def expect_places(case):
    mask = case["mask"]
    logs = [[x if m else 0.0 for x, m in zip(*pair)] for pair in zip(case["log_ratios"], mask)]

    def each(rule):
        return [[rule(x) if m else 0.0 for x, m in zip(*pair)] for pair in zip(logs, mask)]

    def summed(rule, part=lambda row, t: row):
        values = each(rule)
        return [[sum(part(row, t)) if m else 0.0 for t, m in enumerate(kept)] for row, kept in zip(values, mask)]

    right = {f"{name} in the rewards": summed(rule) for name, rule in VALUES.items()}
    right |= {f"{name} in the loss": each(rule) for name, rule in SLOPES.items()}
    if case["junk"]:
        return right, {}
    mistakes = {}
    for name, rule in VALUES.items():
        key = f"{name} in the rewards"
        mistakes |= {
            (key, "each token's own k: a reward of the completion reaches all of its tokens"): each(rule),
            (key, "summed up to the token: over the whole completion"): summed(rule, lambda row, t: row[: t + 1]),
            (key, "summed from the token on: unbiased too, but the whole completion is asked for"):
                summed(rule, lambda row, t: row[t:]),
            (key, "this is the slope, summed: in the rewards k itself counts"): summed(SLOPES[name]),
            (key, "the mean over the tokens: their sum"):
                summed(lambda x, rule=rule: rule(x), lambda row, t: [sum(row) / max(1, len([x for x in row if x]))]),
        }  # fmt: skip
        filled = [[sum(row)] * len(row) for row in each(rule)]
        mistakes[key, "filled on prompt and padding: there it is 0"] = filled
    for name, rule in SLOPES.items():
        key = f"{name} in the loss"
        mistakes |= {
            (key, "this is k itself: in the loss its slope by log π counts"): each(VALUES[name]),
            (key, "summed over the completion: the sample is kept, so each token has its own slope"): summed(rule),
        }
    mistakes |= {
        ("k1 in the loss", "filled on prompt and padding: there it is 0"): [[1.0] * len(row) for row in logs],
        ("k1 in the loss", "0: that is what it does on average, not the weight of a token"): each(lambda x: 0.0),
        ("k2 in the loss", "the half is left: the slope of ℓ²/2 is ℓ"): each(lambda x: x / 2),
        ("k2 in the loss", "twice too much: the slope of ℓ²/2 is ℓ"): each(lambda x: 2 * x),
        ("k3 in the loss", "the sign of the inner slope is missing: that of exp(-ℓ) is -exp(-ℓ)"):
            each(lambda x: 1 + math.exp(-x)),
        ("k3 in the loss", "exp(ℓ) in the place of exp(-ℓ)"): each(lambda x: 1 - math.exp(x)),
        ("k3 in the loss", "the 1 is missing, the slope of ℓ"): each(lambda x: -math.exp(-x)),
        ("k2 in the rewards", "the half is missing"): summed(lambda x: x * x),
        ("k2 in the rewards", "the square of the sum: the sum of the squares"):
            [[sum(row) ** 2 / 2 if m else 0.0 for m in kept] for row, kept in zip(logs, mask)],
        ("k3 in the rewards", "exp(ℓ) in the place of exp(-ℓ)"): summed(lambda x: math.exp(x) - 1 + x),
        ("k3 in the rewards", "the ratio turned over: exp(ℓ) - 1 - ℓ"): summed(lambda x: math.exp(x) - 1 - x),
        ("k3 in the rewards", "of the whole completion's ratio: k3 of each token, summed"):
            [[math.exp(-sum(row)) - 1 + sum(row) if m else 0.0 for m in kept] for row, kept in zip(logs, mask)],
        ("k1 in the rewards", "the sign is turned: ℓ is log π − log π_ref"): summed(lambda x: -x),
    }  # fmt: skip
    return right, mistakes


# 13.6 A head on the last token ----------------------------------------------------------------------------------------


class Reader(nn.Module):
    """A trunk: what it holds at a token is the sum of the embeddings up to there."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table, dtype=torch.float64))

    def forward(self, tokens):
        return self.table[tokens].cumsum(1)


def completion_rewards(trunk, head, rollout):
    """The package's reward model on another trunk."""
    tokens = torch.cat([rollout.observations[:, :1], rollout.actions], 1)
    last = rollout.mask.shape[1] - rollout.mask.flip(1).to(torch.uint8).argmax(1)
    return head(trunk(tokens)[torch.arange(len(last)), last])[:, 0]


def reading_case(rng, shape):
    """Rows of a prompt, a completion and padding, over seven tokens of which 0 pads."""
    observations, actions, mask = [], [], []
    width = max(sum(pair) for pair in shape) + 1
    for prompt, length in shape:
        tokens = [rng.randint(1, 6) for _ in range(prompt + length)] + [0] * (width - prompt - length)
        observations.append(tokens[:-1])
        actions.append(tokens[1:])
        mask.append([prompt - 1 <= t < prompt + length - 1 for t in range(width - 1)])
    table = [[rng.choice((-1, 1)) * x for x in row] for row in rows(rng, (7, 2), 0.2, 1.0)]
    return {
        "observations": observations,
        "actions": actions,
        "mask": mask,
        "table": table,
        "weight": [round(rng.uniform(0.5, 1.5), 3) for _ in range(2)],
        "bias": round(rng.uniform(0.2, 0.8), 3),
    }


def reading_cases(rng):
    """Prompts and completions of different lengths."""
    return [
        reading_case(rng, shape) for shape in (((1, 2), (2, 1)), ((3, 2), (2, 4), (1, 3)), ((2, 3), (4, 1), (1, 1)))
    ]


def in_tensors(case):
    """Trunk, head and rollout of a case."""
    head = nn.Linear(2, 1).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([case["weight"]])), head.bias.fill_(case["bias"])
    fields = {name: torch.tensor(case[name]) for name in ("observations", "actions", "mask")}
    zeros = torch.zeros(fields["mask"].shape, dtype=torch.float64)
    return (
        Reader(case["table"]),
        head,
        Rollout(**fields, rewards=zeros, logprobs=zeros, terminated=fields["mask"].any(1)),
    )


def drive_reading(answer, case):
    """Rewards, and whether they carry the trunk's and the head's gradient."""
    trunk, head, rollout = in_tensors(case)
    found = answer(trunk, head, rollout)
    if not torch.is_tensor(found) or not found.is_floating_point() or found.dim() == 0:
        return {"rewards": found, "gradient": ""}
    learns = []
    if found.requires_grad:
        found.sum().backward()
        learns = [name for name, part in (("trunk", trunk.table), ("head", head.weight)) if part.grad is not None]
    return {"rewards": found.detach(), "gradient": " and ".join(learns)}


def tokens_of(case):
    return [[seen[0], *done] for seen, done in zip(case["observations"], case["actions"])]


def states_of(table, tokens):
    """What the trunk holds at each token of a row."""
    found, total = [], [0.0, 0.0]
    for token in tokens:
        total = [x + y for x, y in zip(total, table[token])]
        found.append(total)
    return found


def last_of(acted):
    """The place among all tokens of a row's last action."""
    return max(t + 1 for t, m in enumerate(acted) if m)


def expect_reading(case):
    held = [states_of(case["table"], row) for row in tokens_of(case)]
    ends = [last_of(acted) for acted in case["mask"]]
    lengths = [sum(acted) for acted in case["mask"]]

    def read(state):
        return sum(w * x for w, x in zip(case["weight"], state)) + case["bias"]

    def at(places):
        return [read(row[place]) for row, place in zip(held, places)]

    def mean(row, places):
        return read([sum(row[p][k] for p in places) / len(places) for k in range(2)])

    def actions_alone():
        return [states_of(case["table"], row) for row in case["actions"]]

    spans = [range(end - n + 1, end + 1) for end, n in zip(ends, lengths)]
    right = {"rewards": at(ends), "gradient": "trunk and head"}
    mistakes = {
        ("rewards", "one token too early: the last action is in no observation"): at([end - 1 for end in ends]),
        ("rewards", "the last column, which may be padding: each row has its own last token"): at([-1] * len(ends)),
        ("rewards", "the first observation is left out: all tokens are that and the actions"):
            [read(row[end - 1]) for row, end in zip(actions_alone(), ends)],
        ("rewards", "the number of tokens of the completion is taken for the place of the last: a prompt comes before"):
            at(lengths),
        ("rewards", "the first token of the completion: it has read nothing of the rest"):
            at([span[0] for span in spans]),
        ("rewards", "the mean over the completion: the state of its last token"):
            [mean(row, span) for row, span in zip(held, spans)],
        ("rewards", "the mean over all tokens: the state of the last one"):
            [mean(row, range(len(row))) for row in held],
        ("rewards", "the sum over the completion: the state of its last token"):
            [sum(read(row[p]) for p in span) for row, span in zip(held, spans)],
        ("rewards", "before the completion: at the prompt's last token"): at([span[0] - 1 for span in spans]),
        ("rewards", "a column (B, 1): one number per row, (B,)"): [[x] for x in at(ends)],
        ("rewards", "the head's bias is missing: call the head"): [x - case["bias"] for x in at(ends)],
        ("rewards", "the last row's place for all: each row has its own last token"): at([ends[-1]] * len(ends)),
        ("gradient", "detached: both the trunk and the head learn from it"): "",
        ("gradient", "the trunk is read without gradient: it learns too"): "head",
    }  # fmt: skip
    return right, mistakes


# 13.7 Bradley-Terry --------------------------------------------------------------------------------------------------


def pair_loss(rewards, chosen, rejected):
    from ptlearn.rl.preferences import preference_loss

    return preference_loss(rewards, chosen, rejected)


def pair_cases(rng):
    """A row that is chosen in one pair and rejected in another; then margins for which exp alone is too large."""
    cases = []
    for scale, chosen, rejected in ((1.0, [0, 1], [2, 0]), (1.0, [0, 2, 3, 1], [1, 0, 4, 3]),
                                    (3.0, [4, 1, 0], [2, 4, 3]), (1500.0, [0, 2, 3, 1], [1, 0, 4, 3])):  # fmt: skip
        signs = (1, -1, 2, -2, 1)[: 1 + max(chosen + rejected)]
        rewards = [round(rng.uniform(0.2, 1.0) * scale * sign, 3) for sign in signs]
        cases.append({"rewards": rewards, "chosen": chosen, "rejected": rejected})
    return cases


def expect_pairs(case):
    rewards, numbers = case["rewards"], list(zip(case["chosen"], case["rejected"]))
    pairs = [(rewards[i], rewards[j]) for i, j in numbers]
    margins = [high - low for high, low in pairs]

    def mean(rule, values=margins):
        return sum(map(rule, values)) / len(values)

    def sigmoid(x):
        return math.exp(-softplus(-x))

    right = mean(lambda m: softplus(-m))
    mistakes = {
        "turned round: the chosen one should have the higher reward": mean(softplus),
        "divided by the number of completions: by that of pairs": right * len(margins) / len(rewards),
        "the logarithm is missing: -log of the probability, not the probability": mean(sigmoid),
        "1 - sigma: take -log of the probability": mean(lambda m: sigmoid(-m)),
        "the logarithm of the mean: each pair has its own logarithm": -math.log(max(mean(sigmoid), 1e-300)),
        "the margin itself: it goes through sigma and log": mean(lambda m: -m),
        "the sigma is missing: a hinge stops at 0, and Bradley-Terry never does": mean(lambda m: max(0.0, 1 - m)),
        "each reward has its own sigma: the sigma is that of the difference":
            mean(lambda pair: softplus(-pair[0]) - softplus(-pair[1]), pairs),
        "one yes-or-no question per completion: the sigma is that of the difference of the two":
            mean(lambda pair: softplus(-pair[0]) + softplus(pair[1]), pairs),
        "the rejected one is left out: the sigma is that of the difference":
            mean(lambda pair: softplus(-pair[0]), pairs),
        "squared error: the labels are choices, and their likelihood is asked for": mean(lambda m: (1 - m) ** 2),
        "this is how often the chosen one is ahead: it has no gradient, take -log of the probability":
            mean(lambda m: float(m > 0)),
        "each pair is asked in both orders: the chosen one is the better": mean(lambda m: softplus(m) + softplus(-m)),
        "the largest loss of a pair: take the mean": max(softplus(-m) for m in margins),
        "chosen and rejected are numbers of rows: look up their rewards":
            mean(lambda ij: softplus(ij[1] - ij[0]), numbers),
        "every chosen one against every rejected one: each pair is on its own":
            mean(lambda m: softplus(-m), [high - low for high, _ in pairs for _, low in pairs]),
    }  # fmt: skip
    for least in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-20, math.exp(-100)):
        words = f"cut off at {least:.1g} under the logarithm: margins in the thousands cost as many nats; logsigmoid"
        mistakes[f"{words} says so"] = mean(lambda m, least=least: -math.log(sigmoid(m) + least))
    return right, mistakes


def remark_pairs(case, data):
    if isinstance(data, float) and not math.isfinite(data):
        return ("not a number, or infinite: with margins in the thousands exp and sigma are rounded to 0 or infinity "
                "before the logarithm is taken; logsigmoid takes both at once")  # fmt: skip
    return None


# 13.8 Train the reward model ------------------------------------------------------------------------------------------


def fit_rewards(trunk, head, optimizer, rollout, chosen, rejected, batches):
    """The package's answer: all rows are read, and the pairs of the batch count."""
    losses = []
    for batch in batches:
        rewards = completion_rewards(trunk, head, rollout)
        loss = -logsigmoid(rewards[chosen[batch]] - rewards[rejected[batch]]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def pairs_of_rows(rng, count, pairs):
    """Different rows of each pair; the first two pairs are not each other's turn."""
    drawn = [rng.sample(range(count), 2) for _ in range(pairs)]
    return {"chosen": [i for i, _ in drawn], "rejected": [j for _, j in drawn], "lr": 0.5}


def fit_cases(rng):
    """Batches of one, two and three pairs; a pair that comes back in a second epoch."""
    cases = []
    for batches in ([[0, 1], [2]], [[2], [0, 1, 3], [1, 2]], [[0, 1, 2], [3, 0]]):
        case = reading_case(rng, ((1, 2), (3, 1), (2, 3), (1, 4)))
        cases.append(case | pairs_of_rows(rng, 4, 4) | {"batches": batches})
    return cases


def drive_fit(answer, case):
    """The trunk's and the head's numbers after it, and what is returned."""
    trunk, head, rollout = in_tensors(case)
    sgd = torch.optim.SGD([*trunk.parameters(), *head.parameters()], lr=case["lr"])
    chosen, rejected = (torch.tensor(case[name]) for name in ("chosen", "rejected"))
    noted = answer(trunk, head, sgd, rollout, chosen, rejected, [torch.tensor(batch) for batch in case["batches"]])
    return {
        "table": trunk.table.detach(),
        "head": [*head.weight.detach()[0].tolist(), head.bias.item()],
        "losses": noted if noted is None or not isinstance(noted, list | tuple) else [float(x) for x in noted],
    }


def fitted(case, **change):
    """Where plain gradient steps go and what is noted, in plain Python; `change` says what is done wrong."""
    table, weight, bias = [list(row) for row in case["table"]], list(case["weight"]), case["bias"]
    ends, tokens = [last_of(acted) for acted in case["mask"]], tokens_of(case)
    kept, losses = [[0.0, 0.0] for _ in table] + [[0.0, 0.0]], []
    batches = case["batches"][:1] if change.get("one") else case["batches"]
    if change.get("all pairs"):
        batches = [range(len(case["chosen"]))] * len(batches)
    if change.get("from zero"):
        batches = [range(len(batch)) for batch in batches]
    for batch in batches:
        states = [states_of(table, row)[end] for row, end in zip(tokens, ends)]
        slopes = kept if change.get("adding") else [[0.0, 0.0] for _ in kept]
        loss, divisor = 0.0, 1 if change.get("summed") else len(case["chosen"]) if change.get("by all") else len(batch)
        for pair in batch:
            up, down = case["chosen"][pair], case["rejected"][pair]
            if change.get("swapped"):
                up, down = down, up
            margin = sum(w * (x - y) for w, x, y in zip(weight, states[up], states[down]))
            loss += softplus(-margin) / divisor
            push = -sigma(-margin) / divisor
            if change.get("hinge"):
                push = -1.0 / divisor if margin < 1 else 0.0
            for row, sign in ((up, push), (down, -push)):
                for k in range(2):
                    slopes[-1][k] += sign * states[row][k]
                    for token in tokens[row][: ends[row] + 1]:
                        slopes[token][k] += sign * weight[k]
        rate = 0.0 if change.get("no step") else -case["lr"] if change.get("sign") else case["lr"]
        weight = [w - rate * g for w, g in zip(weight, slopes[-1])]
        if not change.get("head alone"):
            table = [[x - rate * g for x, g in zip(*pair)] for pair in zip(table, slopes)]
        losses.append(loss)
    return {"table": table, "head": [*weight, bias], "losses": losses}


def expect_fit(case):
    changes = {
        "gradients add up: set them to zero before each backward pass": "adding",
        "the chosen ones are made worse: the sign of the loss is turned": "sign",
        "chosen and rejected are exchanged": "swapped",
        "one step only: one for each batch": "one",
        "no step is made: optimizer.step()": "no step",
        "every step is on all pairs: on those of its batch": "all pairs",
        "the first pairs at every step: batch holds the numbers of its pairs": "from zero",
        "a sum over the pairs: the loss is their mean": "summed",
        "divided by the number of all pairs: by that of the batch": "by all",
        "the trunk does not learn: its states carry a gradient": "head alone",
        "a hinge: the loss is -log sigma of the margin": "hinge",
    }
    expected = fitted(case)
    mistakes = {words: fitted(case, **{change: True}) for words, change in changes.items()}
    losses = expected["losses"]
    mistakes |= {
        ("losses", "nothing is returned: the list of losses is asked for"): None,
        ("losses", "the last loss alone: one for each batch"): losses[-1:],
        ("losses", "their mean: one for each batch"): sum(losses) / len(losses),
        ("losses", "summed over pairs: the loss is their mean"):
            [loss * len(batch) for loss, batch in zip(losses, case["batches"])],
    }  # fmt: skip
    return expected, mistakes


# 13.9 One update, whole -----------------------------------------------------------------------------------------------


def improve(policy, optimizer, rollout, groups, known, beta, epochs):
    """The package's pieces put together."""
    mask, shares = rollout.mask, []
    paid = rollout.rewards - beta * kl_estimates(rollout.logprobs, known, mask).k1
    total = torch.where(mask, paid, 0).sum(1)
    advantages = (total - mean_baseline(total, groups=groups))[:, None] * mask
    for _ in range(epochs):
        logprobs = action_logprobs(policy, rollout)
        weights = clipped_weights(step_ratio(logprobs, rollout.logprobs, mask), advantages)
        shares.append(float((weights == 0)[mask].double().mean()))
        optimizer.zero_grad()
        policy_gradient_loss(logprobs, weights, mask).backward()
        optimizer.step()
    return shares


def update_cases(rng):
    """Two groups, mixed, of a policy that moved since, both sides of the clip; padding that holds anything."""
    cases = []
    for beta, epochs, junk in ((0.5, 3, None), (1.0, 2, None), (0.3, 2, NAN)):
        lengths = rng.sample([3, 1, 2, 3, 2], 5)
        logits = rows(rng, (3, 3), -1.2, 1.2)
        states, actions = ([[rng.randrange(3) for _ in range(4)] for _ in lengths] for _ in range(2))
        mask = masks(lengths, 4)
        old, far = rows(rng, (5, 4), -0.4, 0.4), rows(rng, (5, 4), -0.9, 0.9)
        sampled = [[log_softmax(logits[s])[a] - x for s, a, x in zip(*three)] for three in zip(states, actions, old)]
        known = [[q - x for q, x in zip(*pair)] for pair in zip(sampled, far)]
        if junk is not None:
            known = [[x if m else junk for x, m in zip(*pair)] for pair in zip(known, mask)]
        rewards = [[x if m else 0.0 for x, m in zip(*pair)] for pair in zip(rows(rng, (5, 4), -1.0, 2.0), mask)]
        cases.append({"logits": logits, "observations": states, "actions": actions, "mask": mask, "known": known,
                      "logprobs": sampled, "rewards": rewards, "groups": rng.sample([0, 0, 1, 1, 1], 5), "lr": 0.6,
                      "beta": beta, "epochs": epochs, "junk": junk is not None})  # fmt: skip
    return cases


def policy_and_fields(case):
    """A policy with the logits of a case, and the fields of its record that need no numbers."""
    policy = TabularPolicy(3, 3).double()
    with torch.no_grad():
        policy.logits.copy_(torch.tensor(case["logits"]))
    return policy, {name: torch.tensor(case[name]) for name in ("observations", "actions", "mask")}


def drive_update(answer, case):
    policy, fields = policy_and_fields(case)
    rewards, logprobs, known = (torch.tensor(case[x]).double() for x in ("rewards", "logprobs", "known"))
    rollout = Rollout(**fields, rewards=rewards, logprobs=logprobs, terminated=fields["mask"].any(1))
    sgd = torch.optim.SGD(policy.parameters(), lr=case["lr"])
    noted = answer(policy, sgd, rollout, torch.tensor(case["groups"]), known, case["beta"], case["epochs"])
    return {
        "logits": policy.logits.detach(),
        "shares": noted if noted is None or not isinstance(noted, list | tuple) else [float(x) for x in noted],
    }


def penalty_of(case, i, theta, change):
    """What a completion is charged, before beta."""
    found = []
    for s, a, p, q, m in zip(*(case[x][i] for x in ("observations", "actions", "logprobs", "known", "mask"))):
        if m or change.get("padded penalty"):
            log_ratio = (log_softmax(theta[s])[a] if change.get("penalty of now") else p) - q
            kinds = {"k3": math.exp(-log_ratio) - 1 + log_ratio, "k2": log_ratio**2 / 2}
            found.append(kinds.get(change.get("k"), log_ratio))
    return sum(found) / (len(found) if change.get("mean penalty") else 1)


def improved(case, **change):
    """Where plain gradient steps go and what is noted, in plain Python; `change` says what is done wrong."""
    theta, shares, everyone = [list(row) for row in case["logits"]], [], range(len(case["mask"]))
    charge = {"free": 0.0, "added": -1.0}.get(change.get("charge"), 1.0) * (
        1.0 if change.get("no beta") else case["beta"]
    )
    won = [sum(case["rewards"][i]) - charge * penalty_of(case, i, theta, change) for i in everyone]
    mates = [[won[j] for j in everyone if case["groups"][j] == case["groups"][i]] for i in everyone]
    if change.get("batch"):
        mates = [won] * len(won)
    advantages = [x - sum(m) / len(m) for x, m in zip(won, mates)]
    if change.get("plain"):
        advantages = won
    if change.get("others"):
        advantages = [a * len(m) / (len(m) - 1) for a, m in zip(advantages, mates)]
    if change.get("scaled"):
        spreads = [math.sqrt(sum((x - sum(m) / len(m)) ** 2 for x in m) / (len(m) - 1)) for m in mates]
        advantages = [a / (spread + 1e-6) for a, spread in zip(advantages, spreads)]
    kept, added = None, [[0.0] * 3 for _ in range(3)]
    for _ in range(1 if change.get("one") else case["epochs"]):
        weights = {}
        for i, A in enumerate(advantages):
            for t, (s, a, p, m) in enumerate(
                zip(*(case[x][i] for x in ("observations", "actions", "logprobs", "mask")))
            ):
                if m:
                    rho = 1.0 if change.get("fresh") else math.exp(log_softmax(theta[s])[a] - p)
                    gone = (rho > 1.2 if A > 0 else rho < 0.8) and not change.get("free ratio")
                    weights[i, t] = 0.0 if gone else rho * A
        kept = kept or weights
        weights = kept if change.get("frozen") else weights
        shares.append(sum(w == 0 for w in weights.values()) / len(weights))
        slopes = added if change.get("adding") else [[0.0] * 3 for _ in range(3)]
        divisor = len(weights) if change.get("per token") else 1 if change.get("summed") else len(won)
        for (i, t), weight in weights.items():
            s, a = case["observations"][i][t], case["actions"][i][t]
            for b, p in enumerate(softmax(theta[s])):
                slopes[s][b] -= (
                    weight * ((a == b) - p) / divisor / (sum(case["mask"][i]) if change.get("length") else 1)
                )
        rate = 0.0 if change.get("no step") else -case["lr"] if change.get("sign") else case["lr"]
        theta = [[x - rate * g for x, g in zip(*pair)] for pair in zip(theta, slopes)]
    return {"logits": theta, "shares": shares}


def expect_update(case):
    expected = improved(case)
    if case["junk"]:
        return expected, {}
    changes = {
        "the penalty is missing": {"charge": "free"},
        "the penalty is added: it lowers the rewards": {"charge": "added"},
        "beta is missing": {"no beta": True},
        "the penalty is k3: k1 belongs into the rewards": {"k": "k3"},
        "the penalty is k2: k1 belongs into the rewards": {"k": "k2"},
        "the penalty is a mean over tokens: their sum": {"mean penalty": True},
        "the penalty counts padding: only where mask is True": {"padded penalty": True},
        "the penalty is of the policy as it is: that of the sampler, rollout.logprobs": {"penalty of now": True},
        "no mean is subtracted: advantages within the group": {"plain": True},
        "the mean is that of the batch: of the group": {"batch": True},
        "the mean of the others: Dr. GRPO has the row itself in it": {"others": True},
        "divided by the standard deviation: Dr. GRPO leaves that out": {"scaled": True},
        "divided by the length: Dr. GRPO leaves that out": {"length": True},
        "the weights are computed once: ratio and clip change with every step": {"frozen": True},
        "the ratio is always 1: the old log-probabilities are rollout.logprobs": {"fresh": True},
        "nothing is clipped": {"free ratio": True},
        "divided by the number of tokens: the loss is a mean over completions": {"per token": True},
        "not divided by the number of completions": {"summed": True},
        "gradients add up: set them to zero before each backward pass": {"adding": True},
        "the policy gets worse: the sign of the loss is turned": {"sign": True},
        "one step only: `epochs` of them": {"one": True},
        "no step is made: optimizer.step()": {"no step": True},
    }
    mistakes = {words: improved(case, **change) for words, change in changes.items()}
    shares, acted = expected["shares"], sum(map(sum, case["mask"]))
    mistakes |= {
        ("shares", "nothing is returned: the list of shares is asked for"): None,
        ("shares", "the last share alone: one for each step"): shares[-1:],
        ("shares", "the share of weights that are *not* 0"): [1 - share for share in shares],
        ("shares", "padding is counted: of the acted tokens"):
            [(share * acted + 4 * len(case["mask"]) - acted) / (4 * len(case["mask"])) for share in shares],
    }  # fmt: skip
    return expected, mistakes


# 13.10 Best of n ------------------------------------------------------------------------------------------------------


def best_of(scores, truths, n):
    """The package's probabilities of being the best, times the truths."""
    from ptlearn.rl.preferences import best_of_n

    return float(best_of_n(truths.new_full(truths.shape, 1 / len(truths)), scores, n) @ truths)


def best_cases(rng):
    """Scores that mislead at the top, in an order unlike its inverse; n = 1, and more than there are samples."""
    cases = []
    for count, n in ((4, 2), (6, 3), (6, 1), (5, 9)):
        scores = [round(x + rng.uniform(0, 0.5), 3) for x in range(count)]
        truths = [round(rng.uniform(0, 1) + (x if x < count - 2 else -x), 3) for x in range(count)]
        order = list(range(count))
        while all(order[order[i]] == i for i in order):
            order = rng.sample(range(count - 1), count - 1)
            order.insert(rng.randint(count // 2, count - 1), count - 1)  # the best is not among the first n
        cases.append({"scores": [scores[i] for i in order], "truths": [truths[i] for i in order], "n": n})
    return cases


def expect_best(case):
    n, count = case["n"], len(case["scores"])
    ranked = [truth for _, truth in sorted(zip(case["scores"], case["truths"]))]
    by_truth, order = sorted(case["truths"]), sorted(range(count), key=case["scores"].__getitem__)

    def expected(chances, values=ranked):
        return sum(chance * value for chance, value in zip(chances, values))

    best = [((i + 1) / count) ** n - (i / count) ** n for i in range(count)]
    without = [math.comb(i, n - 1) / math.comb(count, n) if n <= count else 0.0 for i in range(count)]
    mistakes = {
        "the highest truth among n is paid: the choice is made by the score": expected(best, by_truth),
        "drawn without putting back: each of the n draws is from all samples": expected(without),
        "(i/N)^n is the chance that all n are among the i lowest; subtract that of the next lower i":
            expected([((i + 1) / count) ** n for i in range(count)]),
        "ranks begin at 0: the lowest of N is the best with probability (1/N)^n, not 0":
            expected([(i / count) ** n - max((i - 1) / count, 0) ** n for i in range(count)]),
        "the lowest score is taken: the best of n has the highest": expected(best[::-1]),
        "the best of all samples, whatever n": ranked[-1],
        "the order of the samples is taken for that of their scores: sort by score": expected(best, case["truths"]),
        "argsort says which sample has a rank, not which rank a sample has: sort the truths with it":
            sum(best[place] * truth for place, truth in zip(order, case["truths"])),
        "these are the chances of the ranks: sum chance times truth": best,
        "the mean of the n highest: one is taken, the best of those n that were drawn":
            sum(ranked[-n:]) / min(n, count),
        "(i/(N+1))^n: with putting back every draw is one of N":
            expected([((i + 1) ** n - i**n) / (count + 1) ** n for i in range(count)]),
        "(i/N)^n divided by its sum: the chance of rank i is (i/N)^n less that of i - 1":
            expected([(i + 1) ** n / sum(j**n for j in range(1, count + 1)) for i in range(count)]),
        "n (i/N)^(n-1) / N is its density: take the difference of (i/N)^n to the next lower i":
            expected([n * ((i + 1) / count) ** (n - 1) / count for i in range(count)]),
        "the best of the first n alone: average over all ways to draw n":
            max(list(zip(case["scores"], case["truths"]))[:n])[1],
    }  # fmt: skip
    return expected(best), mistakes


# 13.11 The best policy ------------------------------------------------------------------------------------------------


def best_policy(log_reference, returns, groups, beta):
    """The package's closed form, prompt by prompt."""
    from ptlearn.rl.preferences import best_policy

    best = torch.zeros_like(log_reference)
    for group in groups.unique():
        rows = groups == group
        best[rows] = best_policy(log_reference[rows].exp(), returns[rows], beta=beta)
    return best


def closed_cases(rng):
    """Prompts with two and three texts, mixed; returns of both signs; beta on both sides of 1."""
    cases = []
    for groups, beta in (([0, 1, 0, 1, 1], 0.5), ([4, 2, 2, 4, 2], 2.0), ([1, 1, 0, 0], 0.3)):
        weights = [rng.uniform(0.2, 1.0) for _ in groups]
        sums = {g: sum(w for w, h in zip(weights, groups) if h == g) for g in groups}
        cases.append({"log_reference": [math.log(w / sums[g]) for w, g in zip(weights, groups)],
                      "returns": [round(rng.uniform(0.2, 1.2) * rng.choice((-1, 1)), 3) for _ in groups],
                      "groups": groups, "beta": beta})  # fmt: skip
    return cases


def expect_closed(case):
    logs, returns, groups, beta = (case[x] for x in ("log_reference", "returns", "groups", "beta"))

    def normalised(scores, alike=lambda g, h: g == h):
        parts = [math.exp(x) for x in scores]
        return [x / sum(y for y, h in zip(parts, groups) if alike(g, h)) for x, g in zip(parts, groups)]

    def tilted(rule):
        return [rule(q, r) for q, r in zip(logs, returns)]

    scores = tilted(lambda q, r: q + r / beta)
    mistakes = {
        "not normalised: each prompt's texts sum to 1": [math.exp(x) for x in scores],
        "normalised over the texts of all prompts: each prompt's sum to 1": normalised(scores, lambda g, h: True),
        "beta multiplies the return: it divides it": normalised(tilted(lambda q, r: q + r * beta)),
        "beta is missing": normalised(tilted(lambda q, r: q + r)),
        "the reference is missing: it is what is tilted": normalised(tilted(lambda q, r: r / beta)),
        "the return is missing: this is the reference itself": normalised(logs),
        "the sign of the return is turned": normalised(tilted(lambda q, r: q - r / beta)),
        "the reference's probability in the exponent: its logarithm": normalised(
            tilted(lambda q, r: math.exp(q) + r / beta)),
        "the logarithm of the policy: its probabilities are asked for": [math.log(x) for x in normalised(scores)],
        "divided by beta as a whole: the return alone is": normalised(tilted(lambda q, r: (q + r) / beta)),
        "all on the best text: that is beta = 0": [
            float(r == max(x for x, h in zip(returns, groups) if h == g)) for r, g in zip(returns, groups)],
    }  # fmt: skip
    return normalised(scores), mistakes


# 13.12 DPO, whole -----------------------------------------------------------------------------------------------------


def fit_dpo(policy, optimizer, rollout, known, chosen, rejected, batches, beta):
    """The package's answer: all rows are read, and the pairs of the batch count."""
    losses = []
    for batch in batches:
        gaps = torch.where(rollout.mask, action_logprobs(policy, rollout) - known, 0).sum(1)
        loss = -logsigmoid(beta * (gaps[chosen[batch]] - gaps[rejected[batch]])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def dpo_cases(rng):
    """Ragged rows of a policy that has moved; padding of the reference holds numbers, at last anything."""
    cases = []
    drawn = ((1.0, [[0, 1], [2]], None), (0.5, [[2], [0, 1, 3], [1, 2]], None), (2.0, [[0, 1, 2], [3, 0]], NAN))
    for beta, batches, junk in drawn:
        lengths = rng.sample([3, 1, 2, 3], 4)
        logits = rows(rng, (3, 3), -1.2, 1.2)
        states, actions = ([[rng.randrange(3) for _ in range(4)] for _ in lengths] for _ in range(2))
        mask = masks(lengths, 4)
        moved = rows(rng, (4, 4), -0.8, 0.8)
        known = [[log_softmax(logits[s])[a] - x for s, a, x in zip(*three)] for three in zip(states, actions, moved)]
        if junk is not None:
            known = [[x if m else junk for x, m in zip(*pair)] for pair in zip(known, mask)]
        cases.append({"logits": logits, "observations": states, "actions": actions, "mask": mask, "known": known,
                      "beta": beta, "batches": batches, "junk": junk is not None,
                      } | pairs_of_rows(rng, 4, 4))  # fmt: skip
    return cases


def drive_dpo(answer, case):
    policy, fields = policy_and_fields(case)
    zeros = torch.zeros(fields["mask"].shape, dtype=torch.float64)
    rollout = Rollout(**fields, rewards=zeros, logprobs=zeros, terminated=fields["mask"].any(1))
    known = torch.tensor(case["known"], dtype=torch.float64)
    chosen, rejected = (torch.tensor(case[name]) for name in ("chosen", "rejected"))
    batches = [torch.tensor(batch) for batch in case["batches"]]
    sgd = torch.optim.SGD(policy.parameters(), lr=case["lr"])
    noted = answer(policy, sgd, rollout, known, chosen, rejected, batches, case["beta"])
    return {
        "logits": policy.logits.detach(),
        "losses": noted if noted is None or not isinstance(noted, list | tuple) else [float(x) for x in noted],
    }


def directed(case, **change):
    """Where plain gradient steps on DPO's loss go and what is noted, in plain Python."""
    theta, beta = [list(row) for row in case["logits"]], case["beta"]
    kept, losses = [[0.0] * 3 for _ in range(3)], []
    batches = case["batches"][:1] if change.get("one") else case["batches"]
    if change.get("all pairs"):
        batches = [range(len(case["chosen"]))] * len(batches)
    if change.get("from zero"):
        batches = [range(len(batch)) for batch in batches]
    steps = [
        [(s, a, q) for s, a, q, m in zip(*row) if m or change.get("padded")]
        for row in zip(case["observations"], case["actions"], case["known"], case["mask"])
    ]
    for batch in batches:
        gap = []
        for row in steps:
            parts = [log_softmax(theta[s])[a] - (0.0 if change.get("no reference") else q) for s, a, q in row]
            gap.append(sum(parts) / (len(parts) if change.get("mean") else 1))
        slopes = kept if change.get("adding") else [[0.0] * 3 for _ in range(3)]
        loss, divisor = 0.0, 1 if change.get("summed") else len(case["chosen"]) if change.get("by all") else len(batch)
        for pair in batch:
            up, down = case["chosen"][pair], case["rejected"][pair]
            if change.get("swapped"):
                up, down = down, up
            scale = 1.0 if change.get("no beta") else beta
            margin = scale * (gap[up] - (0.0 if change.get("chosen alone") else gap[down]))
            loss += softplus(-margin) / divisor
            push = scale * sigma(-margin) / divisor
            sides = [(up, push)] if change.get("chosen alone") else [(up, push), (down, -push)]
            if change.get("rejected fixed"):
                sides = [(up, push)]
            for row, force in sides:
                for s, a, _ in steps[row]:
                    share = force / (len(steps[row]) if change.get("mean") else 1)
                    for b, p in enumerate(softmax(theta[s])):
                        slopes[s][b] -= share * ((a == b) - p)
        rate = 0.0 if change.get("no step") else -case["lr"] if change.get("sign") else case["lr"]
        theta = [[x - rate * g for x, g in zip(*pair)] for pair in zip(theta, slopes)]
        losses.append(loss)
    return {"logits": theta, "losses": losses}


def expect_dpo(case):
    expected = directed(case)
    if case["junk"]:
        return expected, {}
    changes = {
        "gradients add up: set them to zero before each backward pass": "adding",
        "the chosen ones are pushed down: the sign of the loss is turned": "sign",
        "chosen and rejected are exchanged": "swapped",
        "one step only: one for each batch": "one",
        "no step is made: optimizer.step()": "no step",
        "every step is on all pairs: on those of its batch": "all pairs",
        "the first pairs at every step: batch holds the numbers of its pairs": "from zero",
        "a sum over the pairs: the loss is their mean": "summed",
        "divided by the number of all pairs: by that of the batch": "by all",
        "beta is missing: the margin is beta times the difference": "no beta",
        "the reference is missing: the reward is beta times (log π − log π_ref)": "no reference",
        "the rejected one is left out of the margin": "chosen alone",
        "the rejected one carries no gradient: it is pushed down as well": "rejected fixed",
        "the mean over the tokens: the log-ratio of a completion is their sum": "mean",
        "padding is summed in: where mask is False a token counts for nothing": "padded",
    }
    mistakes = {words: directed(case, **{change: True}) for words, change in changes.items()}
    losses = expected["losses"]
    mistakes |= {
        ("losses", "nothing is returned: the list of losses is asked for"): None,
        ("losses", "the last loss alone: one for each batch"): losses[-1:],
        ("losses", "their mean: one for each batch"): sum(losses) / len(losses),
    }
    return expected, mistakes


# 13.13 DPO as a weight ------------------------------------------------------------------------------------------------


def dpo_push(chosen, rejected, beta):
    """The package's weights of P pairs with completions of one token each."""
    import torch

    from ptlearn.rl.preferences import dpo_weights

    log_ratios, count = torch.cat([chosen, rejected])[:, None], len(chosen)
    acted, first = torch.ones_like(log_ratios, dtype=torch.bool), torch.arange(count)
    return dpo_weights(log_ratios, torch.zeros_like(log_ratios), acted, first, first + count, beta=beta)[:count, 0]


def push_cases(rng):
    """Settled pairs, unsettled ones, some of them far, and a pair where nothing has moved yet, in any order."""
    cases = []
    many = ((0.5, (1, -1, 0)), (2.0, (-1, 1, 0, 1)), (0.1, (20, -20)), (1.0, (2000, -2000)), (1.0, (-1, 1, 0, -1, 1)))
    for beta, sizes in many:
        sizes = rng.sample(sizes, len(sizes))
        chosen = [round(size * rng.uniform(0.2, 1.0), 3) for size in sizes]
        rejected = [round(-size * rng.uniform(0.2, 1.0), 3) for size in sizes]
        cases.append({"chosen": chosen, "rejected": rejected, "beta": beta})
    return cases


def expect_push(case):
    beta, pairs = case["beta"], list(zip(case["chosen"], case["rejected"]))

    def by(rule):
        return [rule(c, r) for c, r in pairs]

    def sigmoid(x):
        return math.exp(-softplus(-x))

    right = by(lambda c, r: beta * sigmoid(-beta * (c - r)))
    mistakes = {
        "turned round: an unsettled pair is pushed more, so sigma of minus the margin":
            by(lambda c, r: beta * sigmoid(beta * (c - r))),
        "beta is missing in the margin: rewards are beta times the log-ratio": by(lambda c, r: beta * sigmoid(r - c)),
        "beta divides the margin: rewards are beta times the log-ratio":
            by(lambda c, r: beta * sigmoid((r - c) / beta)),
        "beta is in the margin twice: the log-ratios are multiplied with it once":
            by(lambda c, r: beta * sigmoid(-beta * beta * (c - r))),
        "the two are added: the margin is their difference": by(lambda c, r: beta * sigmoid(-beta * (c + r))),
        "minus the loss of the pair, log sigma: its slope is asked for": by(lambda c, r: -softplus(beta * (r - c))),
        "the absolute value of the margin: an unsettled pair has a negative one":
            by(lambda c, r: beta * sigmoid(-beta * abs(c - r))),
        "a hinge, r - c where it is positive: the push is a sigma": by(lambda c, r: beta * max(r - c, 0.0)),
        "log sigma in the place of sigma": by(lambda c, r: -beta * softplus(beta * (c - r))),
        "all or nothing: a pair that is settled is pushed less and less, not suddenly no more":
            by(lambda c, r: beta * (c < r)),
        "the exponential of minus the margin: sigma is that over 1 plus that":
            by(lambda c, r: beta * math.exp(-beta * (c - r)) if beta * (r - c) < 700 else math.inf),
        "this is the loss of the pair: its slope is asked for": by(lambda c, r: softplus(beta * (r - c))),
        "the slope of sigma, s (1 - s): the loss is -log sigma":
            by(lambda c, r: beta * sigmoid(beta * (c - r)) * sigmoid(beta * (r - c))),
        "the margin itself: it goes through the sigma": by(lambda c, r: beta * (c - r)),
        "a constant: how much a pair is pushed depends on its margin": by(lambda c, r: beta),
        "half of beta for every pair: that is the first step alone, where no margin has opened":
            by(lambda c, r: beta / 2),
    }  # fmt: skip
    return right, mistakes


# 13.14 The lab --------------------------------------------------------------------------------------------------------

BETA = 0.2


def trainer(weigh, *, filled=False):
    """A run: the loss whose weights are weigh(rewards, log-ratios, mask), the log-ratio as it stands, with gradient."""

    def run(logprobs, reference_logprobs, rewards, mask):
        acted = torch.ones_like(mask) if filled else mask
        log_ratios = torch.where(acted, logprobs - reference_logprobs, 0)
        weights = weigh(rewards, log_ratios, acted)
        return -(weights * torch.where(acted, logprobs, 0)).sum() / len(mask)

    return run


def along(values, mask):
    """The sum of a row, at each of its acted steps."""
    return torch.where(mask, values, 0).sum(1, keepdim=True) * mask


def paid(rewards, penalty, mask):
    """The weights of rewards from which a penalty is taken, both without gradient."""
    return along(rewards - BETA * penalty.detach(), mask)


def in_the_loss(logprobs, reference_logprobs, rewards, mask):
    """The penalty is added to the loss as the mean log-ratio."""
    log_ratios = torch.where(mask, logprobs - reference_logprobs, 0)
    return -(along(rewards, mask) * torch.where(mask, logprobs, 0) - BETA * log_ratios).sum() / len(mask)


def last_alone(rewards, log_ratios, mask):
    """Only the last token is charged."""
    steps = torch.arange(mask.shape[1])
    last = torch.where(mask, steps, -1).max(1, keepdim=True).values
    return paid(rewards, torch.where(steps == last, log_ratios, 0), mask)


RUNS = {
    "right": trainer(lambda rewards, logs, mask: paid(rewards, logs, mask)),
    "in the loss": in_the_loss,
    "own token": trainer(lambda rewards, logs, mask: along(rewards, mask) - BETA * logs.detach() * mask),
    "moving reference": trainer(lambda rewards, logs, mask: paid(rewards, 0 * logs, mask)),
    "k3": trainer(lambda rewards, logs, mask: paid(rewards, (-logs).exp() - 1 + logs, mask)),
    "twice": trainer(lambda rewards, logs, mask: paid(rewards, 2 * logs, mask)),
    "last token": trainer(last_alone),
    "attached": trainer(lambda rewards, logs, mask: along(rewards - BETA * logs, mask)),
}
HINTS = {
    "in the loss": "let the log-ratio be large, and ask whether its size counts at all: a constant is what is left",
    "own token": "let a row have several tokens with different log-ratios, and ask that each is charged for all",
    "moving reference": "let policy and reference differ, and ask whether that counts at all",
    "k3": "let log-ratios of both signs be far from 0, and ask that the penalty is the log-ratio itself",
    "twice": "ask for the size of the penalty, not for its sign alone",
    "last token": "let the log-ratios of a row differ, and ask that all of them are charged",
    "attached": "compare the whole gradient: a penalty that is not detached has a second part",
}


def refuses_the_wrong(run):
    """The package's test: the gradient by log π against the closed form."""
    source = torch.Generator().manual_seed(7)
    ours, theirs, rewards = (torch.randn(3, 4, generator=source).double() for _ in range(3))
    mask = torch.arange(4) < torch.tensor([[4], [2], [3]])
    ours.requires_grad_()
    run(ours, theirs, rewards, mask).backward()
    due = total_return(rewards - BETA * kl_estimates(ours, theirs, mask).k1, mask)
    return torch.allclose(ours.grad, -due / 3)


EXERCISES = {
    "13.1": Exercise(group_cases, None, expect_groups, points=2, reference=group_advantages,
        signature="group_advantages(rewards: float32[B], groups: int[B]) -> {Dr. GRPO: float[B], GRPO: float[B]}"),
    "13.2": Exercise(ratio_cases, None, expect_ratio, points=4, reference=ratio_weights, remark=lost_on_padding,
        signature="ratio_weights(logprobs: float[B T], behavior_logprobs: float[B T], advantages: float[B T],"
        " mask: bool[B T], form: str, low: number, high: number) -> float[B T]"),
    "13.3": Exercise(kept_cases, None, expect_kept, points=2, reference=kept,
        signature="kept(rewards: float[B], groups: int[B], wanted: int) -> bool[B]"),
    "13.4": Exercise(kl_cases, None, expect_kl, points=1, reference=three_estimates, remark=lost_on_padding,
        signature="kl_estimates(logprobs: float[B T], reference_logprobs: float[B T], mask: bool[B T]) -> {k1:"
        " float[B T], k2: float[B T], k3: float[B T]}"),
    "13.5": Exercise(place_cases, None, expect_places, points=3, reference=placements, remark=lost_on_padding,
        signature="placements(log_ratios: float[B T], mask: bool[B T]) -> {k1 in the rewards: float[B T],"
        " k2 in the rewards: float[B T], k3 in the rewards: float[B T], k1 in the loss: float[B T],"
        " k2 in the loss: float[B T], k3 in the loss: float[B T]}"),
    "13.6": Exercise(reading_cases, drive_reading, expect_reading, points=2, reference=completion_rewards),
    "13.7": Exercise(pair_cases, None, expect_pairs, points=1, reference=pair_loss, remark=remark_pairs,
        signature="preference_loss(rewards: float[B], chosen: int[pairs], rejected: int[pairs]) -> float[] with"
        " gradient of rewards"),
    "13.8": Exercise(fit_cases, drive_fit, expect_fit, points=3, reference=fit_rewards),
    "13.9": Exercise(update_cases, drive_update, expect_update, points=4, reference=improve, remark=lost_on_padding),
    "13.10": Exercise(best_cases, None, expect_best, points=2, reference=best_of,
        signature="best_of(scores: float32[N], truths: float32[N], n: int) -> number"),
    "13.11": Exercise(closed_cases, None, expect_closed, points=2, reference=best_policy,
        signature="best_policy(log_reference: float[N], returns: float[N], groups: int[N], beta: number) -> float[N]"),
    "13.12": Exercise(dpo_cases, drive_dpo, expect_dpo, points=4, reference=fit_dpo, remark=lost_on_padding),
    "13.13": Exercise(push_cases, None, expect_push, points=2, reference=dpo_push,
        signature="dpo_push(chosen: float[pairs], rejected: float[pairs], beta: number) -> float[pairs] without"
        " gradient of chosen, rejected"),
    "13.14": lab_of_runs(RUNS, HINTS, refuses_the_wrong, levels=(2, 4, 6, 7)),
}  # fmt: skip
