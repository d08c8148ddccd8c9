"""Lesson 13: GRPO and Dr. GRPO, three estimates of a KL, Bradley-Terry, best of n, DPO as weights; a lab.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.cases import lost_on_padding, rows
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise, lab

# 13.1 Groups ---------------------------------------------------------------------------------------------------------


def group_advantages(rewards, groups):
    """The package's two: deviations from the group's mean, and the same in standard deviations."""
    from ptlearn.policy_gradient import mean_baseline, standardized

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


# 13.2 Three estimates of a KL ----------------------------------------------------------------------------------------


def kl_estimates(logprobs, reference_logprobs, mask):
    """The package's three, by name."""
    from ptlearn.policy_gradient import kl_estimates

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


# 13.3 Bradley-Terry --------------------------------------------------------------------------------------------------


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


def softplus(x):
    """log(1 + exp x), for any x."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


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


# 13.4 Best of n ------------------------------------------------------------------------------------------------------


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


# 13.5 DPO as weights -------------------------------------------------------------------------------------------------


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


# 13.6 The lab --------------------------------------------------------------------------------------------------------

BUGS = {"A": "in the loss", "B": "own token", "C": "moving reference", "D": "k3"}
SIGNS = {
    "sign": "climbs away from the reference, and with it nearly along the gradient of J: cosine 0.99",
    "last token": "holds the policy back at one token alone, and would end at a KL of 3.3",
    "own token": "reports the KL, and holds the policy back, but not enough",
    "in the loss": "reports the KL, while its gradient is that of J alone",
    "moving reference": "reports a KL of 0, and its gradient is that of J alone",
    "k3": "reports the KL exactly, and pulls away from the reference",
    "twice": "stays too near to the reference, and would end at a KL of 0.24",
    "group std": "ends where the right one ends: each prompt's gradient has another length, cosine 0.98",
}
SEEN = {
    "A": "run A reports 2.44, the KL, and its cosine with the gradient of J is 1",
    "B": "run B reports 2.44, the KL; its cosine is 0.87, and it ends at a KL of 1.65 where 1.20 is best",
    "C": "run C reports 0 at a KL of 2.44, and its cosine with the gradient of J is 1",
    "D": "run D reports 2.44, the KL; its cosines are -0.48, and 0.79 with that of J, and it ends at a KL of 4.8",
}


EXERCISES = {
    "13.1": Exercise(group_cases, None, expect_groups, points=2, reference=group_advantages,
        signature="group_advantages(rewards: float32[B], groups: int[B]) -> {Dr. GRPO: float[B], GRPO: float[B]}"),
    "13.2": Exercise(kl_cases, None, expect_kl, points=2, reference=kl_estimates, remark=lost_on_padding,
        signature="kl_estimates(logprobs: float[B T], reference_logprobs: float[B T], mask: bool[B T]) -> {k1:"
        " float[B T], k2: float[B T], k3: float[B T]}"),
    "13.3": Exercise(pair_cases, None, expect_pairs, points=2, reference=pair_loss, remark=remark_pairs,
        signature="preference_loss(rewards: float[B], chosen: int[pairs], rejected: int[pairs]) -> float[] with"
        " gradient of rewards"),
    "13.4": Exercise(best_cases, None, expect_best, points=2, reference=best_of,
        signature="best_of(scores: float32[N], truths: float32[N], n: int) -> number"),
    "13.5": Exercise(push_cases, None, expect_push, points=2, reference=dpo_push,
        signature="dpo_push(chosen: float[pairs], rejected: float[pairs], beta: number) -> float[pairs] without"
        " gradient of chosen, rejected"),
    "13.6": lab(4, BUGS, SIGNS, SEEN),
}  # fmt: skip
