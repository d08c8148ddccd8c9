"""Lesson 04: the novelty filter, the cost of a data set, the gain of more data.

The expectations are plain Python on lists, from the definitions.
"""

import math

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise

# 4.1 The novelty filter ----------------------------------------------------------------------------------------------


def accepted(proposals, pool, threshold, similarity):
    """The answer that the lesson goes on with: a pool that grows."""
    known, numbers = list(pool), []
    for number, text in enumerate(proposals):
        if all(similarity(text, other) < threshold for other in known):
            known.append(text)
            numbers.append(number)
    return numbers


def below(similarities, threshold):
    return max(similarities) < threshold


def _filtered(proposals, pool, threshold, similarity, *, grows=True, new=below):
    """What a rule for similarities and threshold accepts."""
    known, numbers = list(pool), []
    for number, text in enumerate(proposals):
        if new([similarity(text, other) for other in known] or [-1], threshold):
            numbers.append(number)
            known += [text] * grows
    return numbers


def agreement(left, right):
    """A similarity that a case can hold: the share of places at which two words have the same letter."""
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


def filter_cases(rng):
    """Four-letter words; a pair exactly at the threshold, a pool of texts that are alike, no proposals."""
    cases = []
    for count, threshold in ((6, 0.6), (14, 0.6), (14, 0.4)):
        proposals = ["".join(rng.choices("abcd", k=4)) for _ in range(count)]
        cases.append({"proposals": proposals, "pool": ["aaaa", "bbbb"], "threshold": threshold})
    cases.append({"proposals": ["abcd", "abce", "abff", "wxyz", "wxyz"], "pool": ["qqqq"], "threshold": 0.5})
    cases.append({"proposals": ["aaac", "aabb", "aacc", "bbbb", "bbbb"], "pool": ["aaaa", "aaab"], "threshold": 0.6})
    cases.append({"proposals": [], "pool": ["abcd"], "threshold": 0.7})
    return cases


def drive_filter(answer, case):
    return answer(case["proposals"], case["pool"], case["threshold"], agreement)


def expect_filter(case):
    given = proposals, pool, threshold, similarity = (case["proposals"], case["pool"], case["threshold"], agreement)
    right = _filtered(*given)

    def by(new):
        return _filtered(*given, new=new)

    def compared(others):
        return [i for i, text in enumerate(proposals) if all(similarity(text, x) < threshold for x in others(i))]

    mistakes = {
        "proposals are compared with the given pool alone: an accepted one joins it": _filtered(*given, grows=False),
        "a similarity equal to the threshold is accepted: it has to be below": by(lambda found, low: max(found) <= low),
        "one dissimilar text of the pool is enough here: it has to be below for every one":
            by(lambda found, low: min(found) < low),
        "the comparison is turned: accepted is what is below the threshold": by(lambda found, low: min(found) > low),
        "the mean similarity is compared: it has to be below for every one":
            by(lambda found, low: sum(found) / len(found) < low),
        "all are accepted": list(range(len(proposals))),
        "these are the rejected ones": [number for number in range(len(proposals)) if number not in right],
        "rejected proposals join the pool too: only accepted ones do": compared(lambda i: [*pool, *proposals[:i]]),
        "a proposal is compared with later ones, too: take them in order":
            compared(lambda i: [*pool, *proposals[:i], *proposals[i + 1 :]]),
        "a proposal is compared with one text alone: all of the pool count":
            Alternatives(by(lambda found, low: found[-1] < low), by(lambda found, low: found[0] < low)),
        "the pool is counted as well: the first proposal is number 0": [number + len(pool) for number in right],
        "these are the texts: return their numbers": [proposals[number] for number in right],
        "the seeds are left out: proposals are compared with the pool as well":
            _filtered(proposals, [], threshold, similarity),
        "it ends at the first rejected one: go on with the next":
            right[: next((place for place, number in enumerate(right) if place != number), len(right))],
    }
    return right, mistakes


# 4.2 The cost --------------------------------------------------------------------------------------------------------


def dollars(pairs, kept, prompt_tokens, response_tokens, price, hours, hourly):
    """The answer that the lesson goes on with."""
    return pairs / kept * (prompt_tokens + response_tokens) * price / 1e6 + hours * hourly


def dollars_cases(rng):
    """Twice any numbers, and once all calls kept and no finetuning."""
    return [
        {
            "pairs": rng.randint(10_000, 60_000), "kept": kept,
            "prompt_tokens": rng.randint(50, 200), "response_tokens": rng.randint(201, 400),
            "price": rng.choice((2.35, 19.9)), "hours": hours, "hourly": rng.choice((1.45, 3.95)),
        }
        for kept, hours in zip((*rng.sample((0.3, 0.4, 0.7, 0.8), 2), 1.0), (*rng.sample(range(2, 30), 2), 0))
    ]  # fmt: skip


def expect_dollars(case):
    pairs, kept, prompt, response, price, hours, hourly = case.values()
    gpu, tokens = hours * hourly, prompt + response
    calls = pairs / kept
    mistakes = {
        "multiplied by the share kept: to keep n pairs takes n / kept calls": pairs * kept * tokens * price / 1e6 + gpu,
        "kept is added: to keep n pairs takes n / kept calls": pairs * (1 + kept) * tokens * price / 1e6 + gpu,
        "kept is a share, not a percentage": 100 * calls * tokens * price / 1e6 + gpu,
        "1 - kept of n calls are added: it takes n / kept calls": pairs * (2 - kept) * tokens * price / 1e6 + gpu,
        "hours and hourly are added: multiply them": calls * tokens * price / 1e6 + hours + hourly,
        "prompt and response are multiplied: their tokens add up": calls * prompt * response * price / 1e6 + gpu,
        "parentheses are missing around the tokens of a call": calls * prompt + response * price / 1e6 + gpu,
        "prompt or response is paid for kept pairs alone: each call has both": Alternatives(
            *(calls * (a + b * kept) * price / 1e6 + gpu for a, b in ((prompt, response), (response, prompt)))
        ),
        "the price is per million tokens: divide by 1e6": calls * tokens * price + gpu,
        "the price is per million tokens, not per thousand": calls * tokens * price / 1e3 + gpu,
        "the finetuning is divided by the share kept as well": (pairs * tokens * price / 1e6 + gpu) / kept,
    }
    if kept < 1:
        words = "divided by the share rejected: to keep n pairs takes n / kept calls"
        mistakes[words] = pairs / (1 - kept) * tokens * price / 1e6 + gpu
    return calls * tokens * price / 1e6 + gpu, mistakes


# 4.3 The gain of a fourfold ------------------------------------------------------------------------------------------


def gain_per_fourfold(sizes, scores):
    """The answer that the lesson goes on with: the least-squares slope of score against log4 n."""
    return slope([math.log(size, 4) for size in sizes], scores)


def slope(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def gain_cases(rng):
    """Sizes that are no even steps on the axis, once out of order, once two; scores that are no line."""
    sizes = [5, 60, 100], [900, 10, 200, 30], [16, 48]
    return [{"sizes": some, "scores": [n / 100 for n in rng.sample(range(100), len(some))]} for some in sizes]


def expect_gain(case):
    sizes, scores = case["sizes"], case["scores"]
    x = [math.log(size, 4) for size in sizes]
    steps = [(b - a) / (d - c) for a, b, c, d in zip(scores, scores[1:], x, x[1:])]
    right, back = slope(x, scores), slope(scores, x)
    mean_x, mean_y = sum(x) / len(x), sum(scores) / len(scores)
    spread = sum((a - mean_x) ** 2 for a in x)
    mistakes = {
        "natural logarithm: this is the gain of a factor e, take log4": slope([*map(math.log, sizes)], scores),
        "logarithm to base 10: this is the gain of a tenfold, take log4": slope([*map(math.log10, sizes)], scores),
        "no logarithm: fit against log4 of the size": slope(sizes, scores),
        "x and y are exchanged: the score is fitted against log4 of the size": back,
        "this joins the first and the last point: fit a line through all by least squares":
            (scores[-1] - scores[0]) / (x[-1] - x[0]),
        "this is the mean of the slopes between neighbours: fit one line to all points": sum(steps) / len(steps),
        "the line is forced through 0: subtract the means":
            sum(a * b for a, b in zip(x, scores)) / sum(a * a for a in x),
        "the mean difference of neighbours: the steps on the axis are not all alike":
            (scores[-1] - scores[0]) / (len(scores) - 1),
        "this is the correlation, not the slope": math.copysign(math.sqrt(right * back), right),
        "this is where the line crosses 0, not its slope": mean_y - right * mean_x,
        "this is the covariance: divide by the sum of (x - mean x) squared":
            Alternatives(*(right * spread / count for count in (1, len(x), len(x) - 1))),
        "below stands a root too many": right * spread**0.5,
        "the means are missing below: it is the sum of (x - mean x) squared": right * spread / sum(a * a for a in x),
        "the means are missing above: it is the sum of (x - mean x)(y - mean y)":
            sum(a * b for a, b in zip(x, scores)) / spread,
        "the logarithm is turned round: log4 n is math.log(n, 4)": slope([1 / a for a in x], scores),
        "a root in the place of log4": slope([size**0.5 for size in sizes], scores),
    }
    return right, mistakes


EXERCISES = {
    "4.1": Exercise(filter_cases, drive_filter, expect_filter, 2, accepted,
        signature="accepted(proposals: list, pool: list, threshold: number, similarity: function) -> list of int"),
    "4.2": Exercise(dollars_cases, None, expect_dollars, 1, dollars,
        signature="dollars(pairs: number, kept: number, prompt_tokens: number, response_tokens: number, price:"
        " number, hours: number, hourly: number) -> number"),
    "4.3": Exercise(gain_cases, None, expect_gain, 2, gain_per_fourfold,
        signature="gain_per_fourfold(sizes: list, scores: list) -> number"),
}  # fmt: skip
