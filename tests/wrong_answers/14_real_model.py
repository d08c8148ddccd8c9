"""Typical wrong answers to the exercises of lesson 14, and right ones written differently."""

import collections
import math

import torch

# 14.1 -----------------------------------------------------------------------------------------------------------------


def uncalibrated(logprobs, content_free):
    return logprobs.argmax(-1)


def multiplied(logprobs, content_free):
    return (logprobs.softmax(-1) * content_free.softmax(-1).mean(0)).argmax(-1)


def subtracted(logprobs, content_free):
    return (logprobs.softmax(-1) - content_free.softmax(-1).mean(0)).argmax(-1)


def not_normalised(logprobs, content_free):
    return (logprobs.softmax(-1) / content_free.exp().mean(0)).argmax(-1)


def of_logarithms(logprobs, content_free):
    return (logprobs - content_free.mean(0)).argmax(-1)


def of_normalised_logarithms(logprobs, content_free):
    return (logprobs - content_free.log_softmax(-1).mean(0)).argmax(-1)


def first_only(logprobs, content_free):
    return (logprobs - content_free[0]).argmax(-1)


def last_only(logprobs, content_free):
    return (logprobs - content_free[-1]).argmax(-1)


def by_the_inputs(logprobs, content_free):
    return (logprobs - logprobs.softmax(-1).mean(0).log()).argmax(-1)


def least_likely(logprobs, content_free):
    return (logprobs - content_free.softmax(-1).mean(0).log()).argmin(-1)


def divided(logprobs, content_free):
    return (logprobs.softmax(-1) / content_free.softmax(-1).mean(0)).argmax(-1)


def with_exp(logprobs, content_free):
    shares = content_free.exp() / content_free.exp().sum(1, keepdim=True)
    return torch.stack([(row.exp() / shares.mean(0)).argmax() for row in logprobs])


# 14.2 -----------------------------------------------------------------------------------------------------------------


def parts(hits):
    table = hits.double()
    return table, len(table), table.sum(1), table.sum(0)


def cochran(hits, factor=None, squares=None, within=None, spread=None):
    """The right result, but for the parts that are given."""
    table, orders, right, easy = parts(hits)
    factor = orders * (orders - 1) if factor is None else factor
    squares = ((right - right.mean()) ** 2).sum() if squares is None else squares
    within = (orders * easy - easy**2).sum() if within is None else within
    spread = (right.max() - right.min()) / table.shape[1] if spread is None else spread
    return {"spread": float(spread), "q": float(factor * squares / within) if within > 0 else 0.0}


def transposed(hits):
    return cochran(hits.T) | {"spread": cochran(hits)["spread"]}


def without_less_one(hits):
    return cochran(hits, factor=len(hits))


def without_count(hits):
    return cochran(hits, factor=len(hits) - 1)


def without_both(hits):
    return cochran(hits, factor=1)


def unpaired(hits):
    table, orders, right, _ = parts(hits)
    share = table.mean()
    return cochran(hits, factor=1, within=hits.shape[1] * share * (1 - share))


def of_shares(hits):
    return cochran(hits, squares=((hits.double().mean(1) - hits.double().mean()) ** 2).sum())


def not_centred(hits):
    return cochran(hits, squares=(hits.double().sum(1) ** 2).sum())


def in_reviews(hits):
    return cochran(hits, spread=hits.sum(1).max() - hits.sum(1).min())


def the_best(hits):
    return cochran(hits, spread=hits.double().mean(1).max())


def best_less_mean(hits):
    return cochran(hits, spread=hits.double().mean(1).max() - hits.double().mean())


def deviation(hits):
    return cochran(hits, spread=hits.double().mean(1).std())


def over_reviews(hits):
    return cochran(hits, spread=hits.double().mean(0).max() - hits.double().mean(0).min())


def by_shares(hits):
    """With shares: the same numerator and denominator over N squared and over M squared."""
    orders, reviews = hits.shape
    share, level = hits.float().mean(1), hits.float().mean(0)
    between = (orders - 1) * reviews**2 * ((share - share.mean()) ** 2).sum()
    within = orders * (level * (1 - level)).sum()
    return {"spread": (share.max() - share.min()).item(), "q": (between / within).item() if within > 1e-6 else 0.0}


def by_loops(hits):
    rows = hits.tolist()
    right, easy = [sum(row) for row in rows], [sum(column) for column in zip(*rows)]
    middle, orders = sum(right) / len(right), len(rows)
    within = orders * sum(easy) - sum(level**2 for level in easy)
    q = orders * (orders - 1) * sum((g - middle) ** 2 for g in right) / within if within else 0
    return {"spread": (max(right) - min(right)) / len(easy), "q": float(q)}


# 14.3 -----------------------------------------------------------------------------------------------------------------


def around(lost, margin):
    return {"lost": float(lost), "low": float(lost - margin), "high": float(lost + margin)}


def error(values):
    return 1.96 * values.std() / len(values) ** 0.5


def turned(before, after):
    return around((after - before).mean(), error(after - before))


def not_paired(before, after):
    return around(before.mean() - after.mean(), 1.96 * ((before.var() + after.var()) / len(before)) ** 0.5)


def of_items(before, after):
    return around((before - after).mean(), 1.96 * (before - after).std())


def by_count(before, after):
    return around((before - after).mean(), 1.96 * (before - after).std() / len(before))


def one_error(before, after):
    return around((before - after).mean(), error(before - after) / 1.96)


def of_population(before, after):
    return around((before - after).mean(), 1.96 * (before - after).std(correction=0) / len(before) ** 0.5)


def of_sizes(before, after):
    return around((before - after).abs().mean(), error((before - after).abs()))


def exchanged(before, after):
    found = around((before - after).mean(), error(before - after))
    return {"lost": found["lost"], "low": found["high"], "high": found["low"]}


def with_variance(before, after):
    return around((before - after).mean(), 1.96 * (before - after).var() / len(before) ** 0.5)


def margin_alone(before, after):
    return {"lost": (before - after).mean(), "low": -error(before - after), "high": error(before - after)}


def by_hand(before, after):
    change = [x - y for x, y in zip(before.tolist(), after.tolist())]
    n, mean = len(change), sum(change) / len(change)
    return around(mean, 1.96 * math.sqrt(sum((x - mean) ** 2 for x in change) / (n - 1) / n))


def by_covariance(before, after):
    """The variance of a difference is the sum of the variances less twice the covariance."""
    both = torch.cov(torch.stack([before, after]))
    variance = both[0, 0] + both[1, 1] - 2 * both[0, 1]
    return around(before.mean() - after.mean(), 1.96 * (variance / len(before)).sqrt())


# 14.4 -----------------------------------------------------------------------------------------------------------------


def brevity_alone(text, capital, room=8):
    return max(0.0, 1 - (len(text.split()) - len(capital.split())) / room)


def right_alone(text, capital, room=8):
    return float(capital in text)


def below_zero(text, capital, room=8):
    return 1 - (len(text.split()) - len(capital.split())) / room if capital in text else 0.0


def all_words(text, capital, room=8):
    return max(0.0, 1 - len(text.split()) / room) if capital in text else 0.0


def characters(text, capital, room=8):
    return max(0.0, 1 - (len(text) - len(capital)) / room) if capital in text else 0.0


def a_share(text, capital, room=8):
    return len(capital.split()) / len(text.split()) if capital in text else 0.0


def one_free(text, capital, room=8):
    return max(0.0, 1 - (len(text.split()) - 1) / room) if capital in text else 0.0


def any_case(text, capital, room=8):
    return brevity_alone(text, capital, room) if capital.lower() in text.lower() else 0.0


def beginning(text, capital, room=8):
    return brevity_alone(text, capital, room) if text.strip().startswith(capital) else 0.0


def always_eight(text, capital, room=8):
    return brevity_alone(text, capital) if capital in text else 0.0


def exactly(text, capital, room=8):
    return float(text.strip() == capital)


def by_steps(text, capital, room=8):
    if text.find(capital) < 0:
        return 0
    reward = 1.0
    for _ in text.split()[len(capital.split()) :]:
        reward -= 1 / room
    return max(reward, 0)


# 14.5 -----------------------------------------------------------------------------------------------------------------


def mean_of(rule):
    return lambda answers, gold: sum(float(rule(drawn, right)) for drawn, right in zip(answers, gold)) / len(gold)


def leaders(drawn):
    counts = collections.Counter(drawn)
    return [answer for answer in counts if counts[answer] == max(counts.values())]


def counted(answers, gold):
    return by_counter(answers, gold) * len(gold)


def by_counter(answers, gold):
    shares = []
    for drawn, right in zip(answers, gold):
        counts = collections.Counter(drawn)
        first = [answer for answer, count in counts.items() if count == max(counts.values())]
        shares.append(first.count(right) / len(first))
    return sum(shares) / len(shares)


def by_beating(answers, gold):
    """Right if no other answer is more frequent, shared with those that are as frequent."""
    total = torch.tensor(0.0, dtype=torch.float64)
    for drawn, right in zip(answers, gold):
        rivals = [drawn.count(other) for other in set(drawn) - {right}]
        own = drawn.count(right)
        if own and all(own >= rival for rival in rivals):
            total += 1 / (1 + rivals.count(own))
    return total / len(answers)


WRONG = {
    "14.1": [
        (uncalibrated, "not calibrated"),
        (multiplied, "multiplied by the bias"),
        (subtracted, "subtracted from the probabilities"),
        (not_normalised, "averaged before they are normalised"),
        (of_logarithms, "average the probabilities"),
        (of_normalised_logarithms, "average the probabilities"),
        (first_only, "only the first content-free input"),
        (last_only, "only the last content-free input"),
        (by_the_inputs, "mean over the inputs themselves"),
        (least_likely, "the least likely is chosen"),
    ],
    "14.2": [
        (transposed, "rows and columns are exchanged"),
        (without_less_one, "M - 1 is missing"),
        (without_count, "the factor M is missing"),
        (without_both, "both factors"),
        (unpaired, "unpaired"),
        (of_shares, "shares instead of counts"),
        (not_centred, "subtract their mean first"),
        (in_reviews, "divide by N"),
        (the_best, "the best alone"),
        (best_less_mean, "the best less the mean"),
        (deviation, "standard deviation"),
        (over_reviews, "the rows are orders"),
    ],
    "14.3": [
        (turned, "before minus after"),
        (not_paired, "not paired"),
        (of_items, "divide s by the root of N"),
        (by_count, "divided by N"),
        (one_error, "one standard error"),
        (of_population, "N - 1"),
        (of_sizes, "sizes of the differences"),
        (exchanged, "exchanged"),
        (with_variance, "the variance in place"),
        (margin_alone, "the margin alone"),
    ],
    "14.4": [
        (brevity_alone, "a wrong answer is paid"),
        (right_alone, "brevity pays nothing"),
        (below_zero, "below 0"),
        (all_words, "they are free"),
        (characters, "characters are counted"),
        (a_share, "a share of the words"),
        (one_free, "one word is free"),
        (any_case, "case is ignored"),
        (beginning, "must begin with the capital"),
        (always_eight, "the room is ignored"),
        (exactly, "only the bare capital"),
    ],
    "14.5": [
        (mean_of(lambda drawn, right: drawn.count(right) / len(drawn)), "pass@1"),
        (mean_of(lambda drawn, right: right in drawn), "pass@k"),
        (mean_of(lambda drawn, right: leaders(drawn)[0] == right), "the answer that came first"),
        (mean_of(lambda drawn, right: right in leaders(drawn)), "counts in full"),
        (mean_of(lambda drawn, right: leaders(drawn) == [right]), "a tie counts nothing"),
        (mean_of(lambda drawn, right: drawn.count(right) > len(drawn) / 2), "more than half"),
        (mean_of(lambda drawn, right: drawn[0] == right), "only the first answer"),
        (mean_of(lambda drawn, right: sorted(leaders(drawn))[0] == right), "alphabet"),
        (counted, "a number of problems"),
    ],
}
RIGHT = {
    "14.1": [divided, with_exp],
    "14.2": [by_shares, by_loops],
    "14.3": [by_hand, by_covariance],
    "14.4": [by_steps],
    "14.5": [by_counter, by_beating],
}
