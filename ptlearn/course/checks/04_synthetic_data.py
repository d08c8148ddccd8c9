"""Lesson 04: the novelty filter, the cost of a data set, the gain of more data.

The expectations are plain Python on lists, from the definitions.
"""

import math

from ptlearn.course.diagnosis import differences
from ptlearn.course.exercise import Exercise

# 4.1 The novelty filter ----------------------------------------------------------------------------------------------


def accepted(proposals, pool, threshold, similarity):
    """The answer that the lesson goes on with: a pool that grows."""
    return _filtered(proposals, pool, threshold, similarity, grows=True)


def _filtered(proposals, pool, threshold, similarity, *, grows, strict=True, against=all, reject=False):
    known, numbers = list(pool), []
    for number, text in enumerate(proposals):
        values = [similarity(text, other) for other in known]
        new = against((value < threshold if strict else value <= threshold) for value in values)
        if new != reject:
            numbers.append(number)
        if new and grows:
            known.append(text)
    return numbers


def agreement(left, right):
    """A similarity that a case can hold: the share of places at which two words have the same letter."""
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


def filter_cases(rng):
    """Four-letter words; the last case has one pair exactly at the threshold."""
    cases = []
    for _ in range(3):
        proposals = ["".join(rng.choices("abc", k=4)) for _ in range(14)]
        cases.append({"proposals": proposals, "pool": ["aaaa", "bbbb"], "threshold": 0.6})
    cases.append({"proposals": ["abcd", "abce", "abff", "wxyz", "wxyz"], "pool": ["qqqq"], "threshold": 0.5})
    return cases


def drive_filter(answer, case):
    pool = list(case["pool"])
    numbers = [int(number) for number in answer(list(case["proposals"]), pool, case["threshold"], agreement)]
    return {"numbers": numbers, "pool": pool}


def verify_filter(case, data):
    given = (case["proposals"], case["pool"], case["threshold"], agreement)
    if data["pool"] != case["pool"]:
        return "the pool that was given is changed: copy it first, list(pool)"
    expected = accepted(*given)
    proposals, pool, threshold, similarity = given
    mistakes = {
        "proposals are compared with the given pool alone: an accepted one joins it": _filtered(*given, grows=False),
        "a similarity equal to the threshold is accepted: it has to be below": (
            _filtered(*given, grows=True, strict=False)
        ),
        "one dissimilar text of the pool is enough here: it has to be below for every one": (
            _filtered(*given, grows=True, against=any)
        ),
        "these are the rejected ones": _filtered(*given, grows=True, reject=True),
        "rejected proposals join the pool too: only accepted ones do": [
            number for number, text in enumerate(proposals)
            if all(similarity(text, other) < threshold for other in [*pool, *proposals[:number]])
        ],
        "numbers count from 1: the first proposal is number 0": [number + 1 for number in expected],
        "exact repetitions alone are rejected: compare with similarity": [
            number for number, text in enumerate(proposals) if text not in [*pool, *proposals[:number]]
        ],
        "the seeds are left out: proposals are compared with the pool as well": (
            _filtered(proposals, [], threshold, similarity, grows=True)
        ),
    }  # fmt: skip
    return differences(data["numbers"], expected, mistakes)


# 4.2 The cost --------------------------------------------------------------------------------------------------------


def dollars(pairs, kept, prompt_tokens, response_tokens, price, hours, hourly):
    """The answer that the lesson goes on with."""
    return pairs / kept * (prompt_tokens + response_tokens) * price / 1e6 + hours * hourly


def dollars_cases(rng):
    return [
        {
            "pairs": rng.randint(10, 60) * 1000, "kept": rng.choice((0.4, 0.5, 0.8)),
            "prompt_tokens": rng.randint(50, 200), "response_tokens": rng.randint(201, 400),
            "price": rng.choice((2.0, 20.0)), "hours": rng.randint(2, 30), "hourly": rng.choice((1.5, 4.0)),
        }
        for _ in range(3)
    ]  # fmt: skip


def drive_dollars(answer, case):
    return float(answer(**case))


def verify_dollars(case, data):
    pairs, kept, prompt, response, price, hours, hourly = case.values()
    gpu, tokens = hours * hourly, prompt + response
    mistakes = {
        "the rejected calls are not paid for: to keep n pairs takes n / kept calls": pairs * tokens * price / 1e6 + gpu,
        "multiplied by the share kept: to keep n pairs takes n / kept calls": pairs * kept * tokens * price / 1e6 + gpu,
        "the finetuning is missing: add hours times hourly": pairs / kept * tokens * price / 1e6,
        "this is the finetuning alone: the teacher's tokens cost as well": gpu,
        "the tokens of the prompt are paid too": pairs / kept * response * price / 1e6 + gpu,
        "the tokens of the response are paid too": pairs / kept * prompt * price / 1e6 + gpu,
        "the price is per million tokens: divide by 1e6": pairs / kept * tokens * price + gpu,
        "the price is per million tokens, not per thousand": pairs / kept * tokens * price / 1e3 + gpu,
        "the finetuning is divided by the share kept as well": (pairs * tokens * price / 1e6 + gpu) / kept,
    }
    return differences(data, pairs / kept * tokens * price / 1e6 + gpu, mistakes)


# 4.3 The gain of a fourfold ------------------------------------------------------------------------------------------


def gain_per_fourfold(sizes, scores):
    """The answer that the lesson goes on with: the least-squares slope of score against log4 n."""
    return slope([math.log(size, 4) for size in sizes], scores)


def slope(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def gain_cases(rng):
    """Sizes that are no even steps on the axis, and scores that are no line."""
    return [
        {"sizes": [10, 30, 200, 900], "scores": [round(rng.uniform(0, 1), 2) for _ in range(4)]},
        {"sizes": [5, 60, 100], "scores": [round(rng.uniform(0, 1), 2) for _ in range(3)]},
    ]


def drive_gain(answer, case):
    return float(answer(list(case["sizes"]), list(case["scores"])))


def verify_gain(case, data):
    sizes, scores = case["sizes"], case["scores"]
    x = [math.log(size, 4) for size in sizes]
    steps = [(b - a) / (d - c) for a, b, c, d in zip(scores, scores[1:], x, x[1:])]
    mistakes = {
        "natural logarithm: this is the gain of a factor e, take log4": slope([*map(math.log, sizes)], scores),
        "logarithm to base 2: this is the gain of a doubling, take log4": slope([*map(math.log2, sizes)], scores),
        "logarithm to base 10: this is the gain of a tenfold, take log4": slope([*map(math.log10, sizes)], scores),
        "no logarithm: fit against log4 of the size": slope(sizes, scores),
        "x and y are exchanged: the score is fitted against log4 of the size": slope(scores, x),
        "this joins the first and the last point: fit a line through all by least squares": (
            (scores[-1] - scores[0]) / (x[-1] - x[0])
        ),
        "this is the mean of the slopes between neighbours: fit one line to all points": sum(steps) / len(steps),
        "the line is forced through 0: subtract the means": (
            sum(a * b for a, b in zip(x, scores)) / sum(a * a for a in x)
        ),
        "the mean difference of neighbours: the steps on the axis are not all alike": (
            (scores[-1] - scores[0]) / (len(scores) - 1)
        ),
    }  # fmt: skip
    return differences(data, slope(x, scores), mistakes)


EXERCISES = {
    "4.1": Exercise(filter_cases, drive_filter, verify_filter, 2, accepted),
    "4.2": Exercise(dollars_cases, drive_dollars, verify_dollars, 1, dollars),
    "4.3": Exercise(gain_cases, drive_gain, verify_gain, 2, gain_per_fourfold),
}
