"""Lesson 14: a calibrated choice, Cochran's Q of orders, forgetting, a brief reward, the majority's answer.

The cases are numbers and texts: no exercise needs the real model. The expectations are plain Python.
"""

import math
import statistics

import torch

from ptlearn.course.cases import log_softmax
from ptlearn.course.exercise import Exercise

# 14.1 A calibrated choice ---------------------------------------------------------------------------------------------


def calibrated_choice(logprobs, content_free):
    """The package's answer: contextual calibration, then the likeliest."""
    from ptlearn.lm.prompting import contextual_calibration

    return contextual_calibration(logprobs.softmax(-1), content_free.softmax(-1)).argmax(-1)


def choosing_cases(rng):
    """Two to four words that share little of the vocabulary's mass, and inputs without content that disagree."""
    cases = []
    for words in (2, 3, 4):
        lean = [rng.uniform(-1.5, 1.5) for _ in range(words)]
        rows = [[round(lean[c] + rng.gauss(0, 1.2) - 6, 3) for c in range(words)] for _ in range(24)]
        free = [[round(lean[c] + rng.gauss(0, 1.5) - depth, 3) for c in range(words)] for depth in (2, 9, 5)]
        cases.append({"logprobs": rows, "content_free": free})
    return cases


def drive_choosing(answer, case):
    return answer(torch.tensor(case["logprobs"]).double(), torch.tensor(case["content_free"]).double())


def expect_choosing(case):
    rows, free = case["logprobs"], case["content_free"]
    words = range(len(rows[0]))
    shares = [[math.exp(x) for x in log_softmax(row)] for row in free]

    def mean(table):
        return [statistics.mean(row[c] for row in table) for c in words]

    def choose(score, pick=max):
        return [pick(words, key=lambda c: score(row, c)) for row in rows]

    logs = [math.log(share) for share in mean(shares)]
    normal = {tuple(row): [math.exp(x) for x in log_softmax(row)] for row in rows}
    return choose(lambda row, c: row[c] - logs[c]), {
        "not calibrated: the likeliest word, whatever it leans to": choose(lambda row, c: row[c]),
        "multiplied by the bias: divide by it, or subtract its logarithm": choose(lambda row, c: row[c] + logs[c]),
        "the least likely is chosen": choose(lambda row, c: row[c] - logs[c], min),
        "the bias is subtracted from the probabilities: divide by it":
            choose(lambda row, c: normal[tuple(row)][c] - mean(shares)[c]),
        "the content-free rows are averaged before they are normalised: the likeliest input has all the say":
            choose(lambda row, c: row[c] - math.log(statistics.mean(math.exp(line[c]) for line in free))),
        "the content-free logarithms are averaged: average the probabilities":
            choose(lambda row, c: row[c] - statistics.mean(line[c] for line in free)),
        "only the first content-free input is used: take their mean": choose(lambda row, c: row[c] - free[0][c]),
        "only the last content-free input is used: take their mean": choose(lambda row, c: row[c] - free[-1][c]),
        "the bias is the mean over the inputs themselves: take the content-free ones":
            choose(lambda row, c: row[c] - math.log(mean(list(normal.values()))[c])),
    }  # fmt: skip


# 14.2 Do orders differ by more than luck? -----------------------------------------------------------------------------


def order_effect(hits):
    """The package's answer: the spread, and Cochran's Q."""
    table = hits.double()
    orders, right, easy = len(table), table.sum(1), table.sum(0)
    within = (easy * (orders - easy)).sum()
    spread = (right.max() - right.min()) / table.shape[1]
    between = orders * (orders - 1) * ((right - right.mean()) ** 2).sum()
    return {"spread": spread.item(), "q": (between / within).item() if within else 0.0}


def order_cases(rng):
    """Orders that differ, orders that do not, reviews that no order gets right; last, all orders alike."""
    cases = []
    for orders, reviews in ((3, 8), (5, 7), (4, 12)):
        skill = [rng.uniform(0.2, 0.9) for _ in range(orders)]
        hits = [[i > 0 and (i == 1 or rng.random() < skill[j]) for i in range(reviews)] for j in range(orders)]
        hits[0], hits[-1] = [i > 0 for i in range(reviews)], [i in (1, 2) for i in range(reviews)]
        cases.append({"hits": hits})
    return [*cases, {"hits": [[True, False, True]] * 4}]


def drive_order(answer, case):
    return answer(torch.tensor(case["hits"]))


def expect_order(case):
    hits = case["hits"]
    orders, reviews = len(hits), len(hits[0])
    right = [sum(row) for row in hits]
    easy = [sum(row[i] for row in hits) for i in range(reviews)]
    squares = sum((g - statistics.mean(right)) ** 2 for g in right)
    within = sum(level * (orders - level) for level in easy)
    spread = (max(right) - min(right)) / reviews
    if not within:
        return {"spread": spread, "q": 0.0}, {}
    q = orders * (orders - 1) * squares / within
    across = sum((level - statistics.mean(easy)) ** 2 for level in easy)
    crossed = sum(g * (reviews - g) for g in right)
    pooled = statistics.mean(right) * (1 - statistics.mean(right) / reviews)
    return {"spread": spread, "q": q}, {
        ("spread", "this is counted in reviews: divide by N"): spread * reviews,
        ("spread", "this is the best alone: subtract the worst"): max(right) / reviews,
        ("spread", "this is the worst alone: subtract it from the best"): min(right) / reviews,
        ("spread", "the best less the mean: less the worst"): (max(right) - statistics.mean(right)) / reviews,
        ("spread", "this is the standard deviation: the best less the worst"): statistics.stdev(right) / reviews,
        ("spread", "the rows are orders: the spread over reviews is another thing"): (max(easy) - min(easy)) / orders,
        ("q", "rows and columns are exchanged: G counts along the reviews, L along the orders"):
            reviews * (reviews - 1) * across / crossed,
        ("q", "the factor M - 1 is missing"): orders * squares / within,
        ("q", "the factor M is missing"): (orders - 1) * squares / within,
        ("q", "both factors, M and M - 1, are missing"): squares / within,
        ("q", "shares instead of counts in the numerator: G counts reviews"): q / reviews**2,
        ("q", "this is the unpaired chi-square: reviews that no order splits must not count"): squares / pooled,
        ("q", "the numerator sums G squared: subtract their mean first"):
            orders * (orders - 1) * sum(g * g for g in right) / within,
        ("q", "deviations are summed, not their squares"):
            orders * (orders - 1) * sum(abs(g - statistics.mean(right)) for g in right) / within,
    }  # fmt: skip


# 14.3 Forgetting ------------------------------------------------------------------------------------------------------


def forgetting(before, after):
    """The package's answer: the paired difference with its interval."""
    change = before - after
    margin = 1.96 * change.std() / len(change) ** 0.5
    lost = change.mean()
    return {"lost": lost.item(), "low": (lost - margin).item(), "high": (lost + margin).item()}


def forgetting_cases(rng):
    """Right and wrong, and nats: items that differ much more from each other than before from after."""
    cases = []
    for count in (9, 14):
        before = [float(i % 3 > 0) for i in range(count)]
        after = [float(i % 4 == 1 or i == 3) for i in range(count)]
        cases.append({"before": rng.sample(before, count), "after": after})
    for count in (6, 20):
        before = [round(rng.uniform(-9, -1), 3) for _ in range(count)]
        cases.append({"before": before, "after": [round(x - rng.uniform(-0.2, 1.2), 3) for x in before]})
    return cases


def drive_forgetting(answer, case):
    return answer(*(torch.tensor(case[name]).double() for name in ("before", "after")))


def interval(lost, margin):
    return {"lost": lost, "low": lost - margin, "high": lost + margin}


def expect_forgetting(case):
    before, after = case["before"], case["after"]
    n, change = len(before), [x - y for x, y in zip(case["before"], case["after"])]
    lost, s = statistics.mean(change), statistics.stdev(change)
    right = interval(lost, 1.96 * s / n**0.5)
    sizes = [abs(x) for x in change]
    return right, {
        "the sign is turned: what was lost is before minus after": interval(-lost, 1.96 * s / n**0.5),
        "not paired: the variances of before and after are added; take that of the differences":
            interval(lost, 1.96 * ((statistics.variance(before) + statistics.variance(after)) / n) ** 0.5),
        "the spread of the items, not of their mean: divide s by the root of N": interval(lost, 1.96 * s),
        "divided by N: the error of a mean is s over the root of N": interval(lost, 1.96 * s / n),
        "one standard error: the interval is 1.96 of them to each side": interval(lost, s / n**0.5),
        "the variance in place of the standard deviation": interval(lost, 1.96 * s * s / n**0.5),
        "N below the sum of squares: N - 1": interval(lost, 1.96 * statistics.pstdev(change) / n**0.5),
        "sizes of the differences: what was learned must count against what was lost":
            interval(statistics.mean(sizes), 1.96 * statistics.stdev(sizes) / n**0.5),
        "low and high are exchanged": right | {"low": right["high"], "high": right["low"]},
        "summed over the items: take their mean": interval(sum(change), 1.96 * s * n**0.5),
        "low and high are the margin alone: around what was lost":
            {"lost": lost, "low": -1.96 * s / n**0.5, "high": 1.96 * s / n**0.5},
    }  # fmt: skip


# 14.4 A brief reward --------------------------------------------------------------------------------------------------


def brief_reward(text, capital, room=8):
    """The package's answer: right, times brevity."""
    too_many = len(text.split()) - len(capital.split())
    return max(0.0, 1 - too_many / room) if capital in text else 0.0


def reward_cases(rng):
    """Bare, wordy, far too wordy, wrong, of another case, empty; a capital of two words."""
    name, other = rng.sample(["Nairobi", "Lima", "Paris", "Cairo", "Oslo", "Antananarivo"], 2)
    texts = [(name, name), (f" the city of {name}", name), (f"{name} it is", name),
             (f"{name}, " + "which is a very old town " * 2, name), (other, name),
             (f"not {other}  but {name}", name), (name.lower(), name), ("", name),
             ("New Delhi", "New Delhi"), ("now New Delhi in India", "New Delhi"), ("Delhi", "New Delhi")]  # fmt: skip
    rooms = rng.choice((4, 5)), rng.choice((7, 9))
    return [{"text": text, "capital": capital, "room": room} for text, capital in texts for room in rooms]


def expect_reward(case):
    text, capital, room = case["text"], case["capital"], case["room"]
    words, free, named = len(text.split()), len(capital.split()), capital in text

    def paid(share, right=named):
        return max(0.0, share) if right else 0.0

    linear = 1 - (words - free) / room
    return paid(linear), {
        "a wrong answer is paid for its brevity: 0 unless the capital is named": paid(linear, True),
        "brevity pays nothing: 1 whenever the capital is named": paid(1.0),
        "below 0: a long answer earns 0 at least": linear if named else 0.0,
        "the words of the capital are counted as too many: they are free": paid(1 - words / room),
        "characters are counted: words are": paid(1 - (len(text) - len(capital)) / room),
        "a share of the words: each word too many costs 1 / room": paid(free / max(words, 1)),
        "one word is free: as many as the capital has": paid(1 - (words - 1) / room),
        "only the bare capital is paid: naming it in more words earns less, not nothing":
            paid(1.0, text.strip() == capital),
        "the answer must begin with the capital here: naming it anywhere is enough":
            paid(linear, text.strip().startswith(capital)),
        "case is ignored: 'lima' is not 'Lima'": paid(linear, capital.lower() in text.lower()),
        "the room is ignored: it is not always 8": paid(1 - (words - free) / 8),
        "parted at each space: two spaces in a row part no word": paid(1 - (len(text.split(" ")) - free) / room),
    }  # fmt: skip


# 14.5 The majority's answer -------------------------------------------------------------------------------------------


def majority_right(answers, gold):
    """The package's answer: the most frequent one of each problem, ties shared."""
    total = 0.0
    for drawn, right in zip(answers, gold):
        first = tied(drawn)
        total += (right in first) / len(first)
    return total / len(gold)


def tied(drawn):
    """The answers that share first place, in the order in which they came."""
    most = max(map(drawn.count, drawn))
    return [answer for answer in dict.fromkeys(drawn) if drawn.count(answer) == most]


DRAWN = ("AABB ABBA ABCD DCBA BCBD CCBA AABC", "AAAB BBBA BCDD AAAA BBBB ABBC CABD BACA", "ABC BBA ACC CBA AAB ACB")


def majority_cases(rng):
    """Four or three answers per problem: clear majorities, ties of two and of all, with and without the right one."""
    cases = []
    for patterns in map(str.split, DRAWN):
        names = [rng.sample(["Lima", "Oslo", "Rome", "Bern", "Cairo", "Quito"], 4) for _ in patterns]
        answers = [[four["ABCD".index(letter)] for letter in word] for word, four in zip(patterns, names)]
        cases.append({"answers": answers, "gold": [four[0] for four in names]})
    return cases


def expect_majority(case):
    rows = list(zip(case["answers"], case["gold"]))

    def mean(rule):
        return statistics.mean(float(rule(drawn, right)) for drawn, right in rows)

    def last(drawn):
        return tied(drawn[::-1])[0]

    expected = mean(lambda drawn, right: (right in tied(drawn)) / len(tied(drawn)))
    return expected, {
        "this is pass@1, the share of all answers: only the most frequent one of each problem counts":
            mean(lambda drawn, right: drawn.count(right) / len(drawn)),
        "this is pass@k, whether any answer is right": mean(lambda drawn, right: right in drawn),
        "a tie goes to the answer that came first: it counts 1 / m":
            mean(lambda drawn, right: tied(drawn)[0] == right),
        "a tie goes to the answer that came last: it counts 1 / m": mean(lambda drawn, right: last(drawn) == right),
        "a tie goes to the first of the alphabet: it counts 1 / m":
            mean(lambda drawn, right: min(tied(drawn)) == right),
        "a tie goes to the last of the alphabet: it counts 1 / m":
            mean(lambda drawn, right: max(tied(drawn)) == right),
        "a tie with the right answer counts in full: 1 / m of it": mean(lambda drawn, right: right in tied(drawn)),
        "a tie counts nothing: 1 / m where the right answer is in it":
            mean(lambda drawn, right: tied(drawn) == [right]),
        "more than half is asked of the right answer: the most frequent one is enough":
            mean(lambda drawn, right: drawn.count(right) > len(drawn) / 2),
        "this is how large the majorities are, right or wrong":
            mean(lambda drawn, right: max(map(drawn.count, drawn)) / len(drawn)),
        "a number of problems: divide by how many there are": expected * len(rows),
        "all answers are asked to be right": mean(lambda drawn, right: set(drawn) == {right}),
        "only the first answer of each problem is read": mean(lambda drawn, right: drawn[0] == right),
    }  # fmt: skip


EXERCISES = {
    "14.1": Exercise(choosing_cases, drive_choosing, expect_choosing, points=2, reference=calibrated_choice,
        signature="calibrated_choice(logprobs: float[B C], content_free: float[N C]) -> int[B]"),
    "14.2": Exercise(order_cases, drive_order, expect_order, points=3, reference=order_effect,
        signature="order_effect(hits: bool[M N]) -> {spread: number, q: number}"),
    "14.3": Exercise(forgetting_cases, drive_forgetting, expect_forgetting, points=2, reference=forgetting,
        signature="forgetting(before: float[N], after: float[N]) -> {lost: number, low: number, high: number}"),
    "14.4": Exercise(reward_cases, None, expect_reward, points=1, reference=brief_reward,
        signature="brief_reward(text: str, capital: str, room: int) -> number"),
    "14.5": Exercise(majority_cases, None, expect_majority, points=2, reference=majority_right,
        signature="majority_right(answers: list, gold: list) -> number"),
}  # fmt: skip
