"""Answers to lesson 04 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import math
import statistics

# 4.1


def filtered(rule, grow):
    def answer(proposals, pool, threshold, similarity):
        known, numbers = list(pool), []
        for number, text in enumerate(proposals):
            new = rule([similarity(text, other) for other in known], threshold)
            if new:
                numbers.append(number)
            if grow(new):
                known.append(text)
        return numbers

    return answer


def changes_the_pool(proposals, pool, threshold, similarity):
    numbers = []
    for number, text in enumerate(proposals):
        if all(similarity(text, other) < threshold for other in pool):
            pool.append(text)
            numbers.append(number)
    return numbers


def only_repetitions(proposals, pool, threshold, similarity):
    return [number for number, text in enumerate(proposals) if text not in pool + proposals[:number]]


def from_one(proposals, pool, threshold, similarity):
    return [number + 1 for number in highest_below(proposals, pool, threshold, similarity)]


def behind_the_pool(proposals, pool, threshold, similarity):
    return [number + len(pool) for number in highest_below(proposals, pool, threshold, similarity)]


def the_texts(proposals, pool, threshold, similarity):
    return [proposals[number] for number in highest_below(proposals, pool, threshold, similarity)]


def flags(proposals, pool, threshold, similarity):
    numbers = highest_below(proposals, pool, threshold, similarity)
    return [number in numbers for number in range(len(proposals))]


def until_rejected(proposals, pool, threshold, similarity):
    numbers = highest_below(proposals, pool, threshold, similarity)
    return [number for place, number in enumerate(numbers) if number == place]


def one_after_the_other(proposals, pool, threshold, similarity):
    def rest(number, known):
        if number == len(proposals):
            return ()
        new = not any(similarity(other, proposals[number]) >= threshold for other in known)
        return (number,) * new + rest(number + 1, [*known, *proposals[number : number + new]])

    return rest(0, pool)


def highest_below(proposals, pool, threshold, similarity):
    numbers = []
    for number in range(len(proposals)):
        others = [*pool, *(proposals[other] for other in numbers)]
        if max(similarity(proposals[number], other) for other in others) < threshold:
            numbers.append(number)
    return numbers


def below_all(values, threshold):
    return all(value < threshold for value in values)


# 4.2


def paid(rule):
    return lambda pairs, kept, prompt_tokens, response_tokens, price, hours, hourly: rule(
        pairs / kept, pairs, prompt_tokens, response_tokens, price / 1e6, hours * hourly
    )


def step_by_step(pairs, kept, prompt_tokens, response_tokens, price, hours, hourly):
    tokens = pairs * (prompt_tokens + response_tokens)
    finetuning = hours * hourly
    return price * tokens / kept / 1_000_000 + finetuning


# 4.3


def line(transform):
    return lambda sizes, scores: statistics.linear_regression([transform(size) for size in sizes], scores).slope


def exchanged(sizes, scores):
    return statistics.linear_regression(scores, [math.log(size, 4) for size in sizes]).slope


def ends(sizes, scores):
    return (scores[-1] - scores[0]) / math.log(sizes[-1] / sizes[0], 4)


def through_zero(sizes, scores):
    return statistics.linear_regression([math.log(size, 4) for size in sizes], scores, proportional=True).slope


def log4(sizes):
    return [math.log(size, 4) for size in sizes]


def sorts_the_scores(sizes, scores):
    scores.sort()
    return statistics.linear_regression(log4(sizes), scores).slope


def by_sums(sizes, scores):
    x, count = log4(sizes), len(sizes)
    above = count * sum(a * b for a, b in zip(x, scores)) - sum(x) * sum(scores)
    return above / (count * sum(a * a for a in x) - sum(x) ** 2)


def even_steps(sizes, scores):
    return statistics.mean(b - a for a, b in zip(scores, scores[1:]))


def neighbours(sizes, scores):
    x = [math.log(size, 4) for size in sizes]
    return statistics.mean((b - a) / (d - c) for a, b, c, d in zip(scores, scores[1:], x, x[1:]))


WRONG = {
    "4.1": [
        (filtered(below_all, lambda new: False), "given pool alone"),
        (filtered(lambda values, threshold: max(values) <= threshold, lambda new: new), "equal to the threshold"),
        (filtered(lambda values, threshold: min(values) < threshold, lambda new: new), "for every one"),
        (filtered(below_all, lambda new: True), "rejected proposals join"),
        (changes_the_pool, "pool was changed in place"),
        (only_repetitions, "as if threshold were 1"),
        (from_one, "with 1 added"),
        (filtered(lambda values, threshold: min(values) > threshold, lambda new: new), "comparison is turned"),
        (filtered(lambda values, threshold: sum(values) / len(values) < threshold, lambda new: new), "mean similarity"),
        (filtered(lambda values, threshold: values[-1] < threshold, lambda new: new), "one text alone"),
        (filtered(lambda values, threshold: True, lambda new: new), "all are accepted"),
        (behind_the_pool, "pool is counted as well"),
        (the_texts, "these are the texts"),
        (flags, "is a bool, expected a whole number"),
        (until_rejected, "ends at the first rejected"),
    ],
    "4.2": [
        (paid(lambda calls, pairs, p, r, price, gpu: pairs * (p + r) * price + gpu), "as if kept were 1"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * (p + r) * price), "as if hours were 0"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * r * price + gpu), "as if prompt_tokens were 0"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * p * price + gpu), "as if response_tokens were 0"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * (p + r) * price * 1e6 + gpu), "divide by 1e6"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * (p + r) * price * 1e3 + gpu), "not per thousand"),
        (
            paid(lambda calls, pairs, p, r, price, gpu: (pairs * (p + r) * price + gpu) * calls / pairs),
            "divided by the share",
        ),
        (paid(lambda calls, pairs, p, r, price, gpu: pairs * pairs / calls * (p + r) * price + gpu), "multiplied by"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * p + r * price + gpu), "parentheses are missing"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * p * r * price + gpu), "their tokens add up"),
        (paid(lambda calls, pairs, p, r, price, gpu: (pairs * p + calls * r) * price + gpu), "kept pairs alone"),
        (paid(lambda calls, pairs, p, r, price, gpu: 100 * calls * (p + r) * price + gpu), "not a percentage"),
        (paid(lambda calls, pairs, p, r, price, gpu: round(calls * (p + r) * price + gpu)), "whole numbers"),
        (paid(lambda calls, pairs, p, r, price, gpu: (calls * (p + r) * price, gpu)), "expected a number"),
        (paid(lambda calls, pairs, p, r, price, gpu: f"${calls * (p + r) * price + gpu:.2f}"), "is a str"),
    ],
    "4.3": [
        (line(math.log), "factor e"),
        (line(math.log2), "half as large"),
        (line(math.log10), "tenfold"),
        (line(float), "no logarithm"),
        (exchanged, "exchanged"),
        (ends, "first and the last"),
        (through_zero, "through 0"),
        (even_steps, "not all alike"),
        (neighbours, "between neighbours"),
        (lambda sizes, scores: statistics.correlation(log4(sizes), scores), "correlation"),
        (lambda sizes, scores: statistics.linear_regression(log4(sizes), scores).intercept, "crosses 0"),
        (lambda sizes, scores: statistics.covariance(log4(sizes), scores), "covariance"),
        (line(lambda size: math.log(4, size)), "logarithm is turned round"),
        (line(math.sqrt), "a root in the place"),
        (lambda sizes, scores: -line(lambda size: math.log(size, 4))(sizes, scores), "sign turned"),
        (sorts_the_scores, "scores was changed in place"),
    ],
}

RIGHT = {
    "4.1": [highest_below, one_after_the_other],
    "4.2": [step_by_step],
    "4.3": [line(lambda size: math.log2(size) / 2), by_sums],
}
