"""Lesson 00: likelihood of a text, perplexity, sampling by inverting the CDF, training FLOPs, the power law.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import itertools
import math

import torch

from ptlearn.course.cases import log_softmax, log_sum, masks, softmax
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise


def reals(rng, *shape, low=-2.0, high=2.0):
    """Nested lists of numbers between low and high."""
    if not shape:
        return round(rng.uniform(low, high), 3)
    return [reals(rng, *shape[1:], low=low, high=high) for _ in range(shape[0])]


# 0.1 The log-likelihood of texts -------------------------------------------------------------------------------------


def log_likelihood(logits, tokens, mask):
    """The package's answer, on tensors: sum over t of log p(x_t given x_<t), tokens with mask False left out."""
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return logprobs.where(mask[:, 1:], logprobs.new_zeros(())).sum(1)


def likelihood_cases(rng):
    """A small one; a text of one token; logits far below 0, as some models have them, in float32. Padding is junk."""
    cases = []
    for vocabulary, lengths, single, around in ((2, [3, 2], False, 0.0), (6, [6, 1, 4], False, 0.0),
                                                (5, [3, 5], True, -120.0)):  # fmt: skip
        batch, length = len(lengths), max(lengths)
        logits = [[reals(rng, vocabulary, low=around - 2, high=around + 2) if t < n
                   else reals(rng, vocabulary, low=-30, high=30) for t in range(length)] for n in lengths]  # fmt: skip
        tokens = [[rng.randrange(vocabulary) for _ in range(length)] for _ in range(batch)]
        cases.append({"logits": logits, "tokens": tokens, "lengths": lengths, "single": single})
    return cases


def drive_likelihood(answer, case):
    logits = torch.tensor(case["logits"], dtype=torch.float32 if case["single"] else torch.float64)
    return answer(logits, torch.tensor(case["tokens"]), torch.tensor(masks(case["lengths"], logits.shape[1])))


def expect_likelihood(case):
    logits, tokens, lengths = case["logits"], case["tokens"], case["lengths"]
    texts, steps = range(len(tokens)), len(tokens[0])

    def totals(value, first=1, last=0, padding=False):
        """For each text the sum of value(b, t) over its tokens t, from the second on."""
        return [sum(value(b, t) for t in range(first, min(steps, (steps if padding else n) + last)))
                for b, n in enumerate(lengths)]  # fmt: skip

    def scored(shift):
        return lambda b, t: log_softmax(logits[b][t - shift])[tokens[b][t]]

    def across(others):
        """Normalised over other places (text, step) than the vocabulary."""
        return totals(lambda b, t: logits[b][t - 1][tokens[b][t]] - log_sum(
            [logits[c][s][tokens[b][t]] for c, s in others(b, t - 1)]))  # fmt: skip

    expected = totals(scored(1))
    means = [x / (n - 1) if n > 1 else math.nan for x, n in zip(expected, lengths)]
    mistakes = {
        "no shift: the logits at t speak about token t + 1, for the model has already read token t":
            Alternatives(totals(scored(0), first=0), totals(scored(0)), totals(scored(0), first=0, last=-1)),
        "shifted the wrong way: the logits at t are matched with token t - 1, which lies in the past":
            Alternatives(totals(scored(-1), first=0, last=-1), totals(lambda b, t: scored(-1)(b, t - 1))),
        "padding is scored and nothing is shifted":
            Alternatives(totals(scored(0), first=0, padding=True), totals(scored(0), padding=True)),
        "this is the mean per token: the log-likelihood of a text is the sum":
            Alternatives([0.0 if math.isnan(x) else x for x in means], means),
        "the mask is not shifted: the first predicted token (the text's second) got lost": totals(scored(1), first=2),
        "the mask goes with the targets: with mask[:, :-1] the first padding is scored": totals(scored(1), last=1),
        "the softmax runs over the time steps: dim=-1 is the vocabulary":
            Alternatives(*(across(lambda b, t, n=n: [(b, s) for s in range(n)]) for n in (steps - 1, steps))),
        "the softmax runs over the texts: dim=-1 is the vocabulary": across(lambda b, t: [(c, t) for c in texts]),
        "this scores the model's favourite token: gather the one that came":
            totals(lambda b, t: max(log_softmax(logits[b][t - 1]))),
        "token 0 is taken for padding: only mask says what is no token":
            totals(lambda b, t: scored(1)(b, t) * (tokens[b][t] != 0), padding=True),
        "exponentials of raw logits under- or overflow: log_softmax subtracts the largest first":
            [math.nan if case["single"] and n > 1 else x for x, n in zip(expected, lengths)],
        "padding gets the probability 0, and the product with it is 0: its factor is 1":
            [x if n == steps else -math.inf for x, n in zip(expected, lengths)],
    }  # fmt: skip
    return expected, mistakes


# 0.2 Perplexity ------------------------------------------------------------------------------------------------------


def perplexity(logprobs, mask):
    """The package's answer, on tensors: exp of the mean negative log-likelihood over all tokens of all texts."""
    return logprobs[mask].mean().neg().exp()


def perplexity_cases(rng):
    """A small one by hand, random ones of very different lengths, a certain model. Padding is junk."""
    cases = [([[-math.log(4)] * 2, [-math.log(2)] * 3], False)]
    for lengths, single in (([6, rng.randint(1, 2), 6, 4], False), ([4, 2, 4], True)):
        # short texts are the hard ones here, as they are in life: there is little to condition on
        cases.append(([reals(rng, n, low=-4.0 / n - 1.0, high=-0.1) for n in lengths], single))
    cases.append(([[0.0, 0.0], [0.0]], False))
    longest = [max(map(len, texts)) for texts, _ in cases]
    return [{"logprobs": [row + reals(rng, steps - len(row), low=-9.0, high=-5.0) for row in texts],
             "lengths": list(map(len, texts)), "single": single}
            for (texts, single), steps in zip(cases, longest)]  # fmt: skip


def drive_perplexity(answer, case):
    logprobs = torch.tensor(case["logprobs"], dtype=torch.float32 if case["single"] else torch.float64)
    return answer(logprobs, torch.tensor(masks(case["lengths"], logprobs.shape[1])))


def expect_perplexity(case):
    rows, lengths = case["logprobs"], case["lengths"]
    texts, tokens, entries = len(rows), sum(lengths), len(rows) * len(rows[0])
    sums = [sum(row[:n]) for row, n in zip(rows, lengths)]
    total, everything = sum(sums), sum(map(sum, rows))
    means = [x / n for x, n in zip(sums, lengths)]
    losses = {
        "": -total / tokens,
        "every text counts the same, long or short: divide by the number of tokens": -sum(means) / texts,
        "padding is counted in the mean: add up the tokens, divide by their number":
            Alternatives(-total / entries, -everything / entries, -everything / tokens),
        "divided by the number of texts: perplexity is per token": -total / texts,
    }  # fmt: skip
    last_steps = {
        "": math.exp,
        "2 to the power of nats: log-probabilities in nats go with exp, those in bits with 2": lambda x: 2.0**x,
        "this is the loss in nats per token: perplexity is its exponential": lambda x: x,
    }
    mistakes = {
        "mean of the texts' perplexities: average the log-probabilities first, exp comes last":
            sum(math.exp(-mean) for mean in means) / texts,
        "this is the mean probability of a token: the average belongs inside the exponential":
            sum(math.exp(x) for row, n in zip(rows, lengths) for x in row[:n]) / tokens,
        "the mean of 1 / p: average the logarithms, the exponential comes last":
            sum(math.exp(-x) for row, n in zip(rows, lengths) for x in row[:n]) / tokens,
        "one number per text: the mean runs over all tokens of all texts": [math.exp(-mean) for mean in means],
    }  # fmt: skip
    for (words, loss), (more, last) in itertools.product(losses.items(), last_steps.items()):
        if words or more:
            values = loss if isinstance(loss, Alternatives) else [loss]
            mistakes["; and ".join(filter(None, [words, more]))] = Alternatives(*map(last, values))
    return math.exp(losses[""]), mistakes


# 0.3 Sampling by inverting the CDF -----------------------------------------------------------------------------------


def draw(logits, temperature, uniform):
    """The package's answer, on tensors: the first token whose cumulative probability exceeds the uniform number."""
    cumulative = (logits / temperature).softmax(-1).cumsum(-1)
    return (cumulative <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def running(row):
    return list(itertools.accumulate(row))


def inverse(cumulative, uniform):
    """The first token whose border exceeds the uniform number, the last one if none does."""
    return next((v for v, border in enumerate(cumulative) if border > uniform), len(cumulative) - 1)


def draw_cases(rng):
    """A small one; random ones; a first token that cannot come, with a uniform number of 0."""
    quarters = [math.log(0.25), math.log(0.5), math.log(0.25)]
    cases = [{"logits": [quarters] * 3, "temperature": 1.0, "uniform": [0.1, 0.6, 0.9]}]
    for temperature, vocabulary, count in ((0.5, 6, 24), (2.0, 4, 24), (1.0, 5, 16)):
        rows = []
        while len(rows) < count:
            row, uniform = reals(rng, vocabulary), round(rng.random(), 4)
            if min(abs(border - uniform) for border in running(softmax(row, temperature))) > 1e-3:
                rows.append((row, uniform))  # no quarrel about rounding
        cases.append({"logits": [r for r, _ in rows], "temperature": temperature, "uniform": [u for _, u in rows]})
    return [*cases, {"logits": [[-9000.0, 0.5, -0.5]], "temperature": 1.0, "uniform": [0.0]}]


def expect_draw(case):
    temperature, rows, uniforms = case["temperature"], case["logits"], case["uniform"]
    tempered = [softmax(row, temperature) for row in rows]
    size = len(rows[0])

    def each(rule, probabilities=tempered, uniforms=uniforms):
        """rule(probabilities of a row, its uniform number), row by row."""
        return [rule(row, uniform) for row, uniform in zip(probabilities, uniforms)]

    def by_cdf(probabilities, uniforms=uniforms):
        return each(lambda row, u: inverse(running(row), u), probabilities, uniforms)

    def below(borders):
        """How many borders of each row lie at or below its uniform number."""
        return each(lambda row, u: sum(border <= u for border in row), borders)

    def in_order(sign, undone):
        """Drawn after sorting by probability, as a place in the sorted row or, undone, as a token."""
        places = [sorted(range(size), key=lambda v: sign * row[v]) for row in tempered]
        drawn = by_cdf([[row[v] for v in place] for row, place in zip(tempered, places)])
        return [place[token] if undone else token for place, token in zip(places, drawn)]

    expected = by_cdf(tempered)
    scaled = [[p / temperature for p in softmax(row)] for row in rows]
    no_sum = "compared with probabilities, not with their running sum: cumsum makes the CDF of them"
    mistakes = {
        "this is the argmax: the uniform number is not used": each(lambda row, u: row.index(max(row))),
        "temperature is multiplied: logits are divided by it, so that a low temperature sharpens":
            by_cdf([softmax(row, 1 / temperature) for row in rows]),
        "off by one downwards, with the first token kept: its border must exceed u": [max(x - 1, 0) for x in expected],
        "a token of probability 0 is drawn for a uniform number of 0: the border must exceed it, so count with <=":
            each(lambda row, u: sum(border < u for border in running(row))),
        no_sum: below(tempered),
        no_sum + " (CDF)": Alternatives(
            *(each(lambda row, u, n=n: next((v for v, p in enumerate(row) if p > u), n)) for n in (0, size - 1))
        ),
        "probabilities are divided by the temperature and no longer sum to 1: divide the logits":
            Alternatives(by_cdf(scaled), below(map(running, scaled))),
        "this counts the borders above the uniform number: count those at or below it": [size - x for x in expected],
        "the running sum is of raw logits: a softmax makes probabilities of them":
            below([running([x / temperature for x in row]) for row in rows]),
        "the softmax runs over the rows: dim=-1 is the vocabulary":
            by_cdf(list(zip(*(softmax(column, temperature) for column in zip(*rows))))),
        "the running sum runs over the rows: dim=-1 is the vocabulary": below(zip(*map(running, zip(*tempered)))),
        "this is a place among the sorted probabilities: return the token that stands there":
            Alternatives(in_order(-1, False), in_order(1, False)),
        "the tokens are sorted by probability first: the borders follow the order of the vocabulary":
            Alternatives(in_order(-1, True), in_order(1, True)),
        "argmax finds the first True: ask where the border exceeds u, not where it does not": [0] * len(rows),
        "these are probabilities: return which token is drawn": [row[x] for row, x in zip(tempered, expected)],
    }  # fmt: skip
    if min(uniforms) > 0:  # 1 lies on the last border, up to rounding
        mistakes["read from the wrong end: the border must lie above u"] = by_cdf(tempered, [1 - u for u in uniforms])
    return expected, mistakes


# 0.4 Training compute ------------------------------------------------------------------------------------------------


def training_flops(parameters, layers, width, context, tokens):
    """The package's answer: 6 operations per parameter and token, and attention over (T + 1) / 2 positions."""
    return (6 * parameters + 6 * layers * width * (context + 1)) * tokens


def flops_cases(rng):
    names = ("parameters", "layers", "width", "context", "tokens")
    drawn = [(rng.randint(300_000, 9_000_000), rng.randint(3, 12), 32 * rng.randint(2, 12), 128 * rng.randint(1, 8),
              rng.randint(10**6, 10**8)) for _ in range(2)]  # fmt: skip
    return [dict(zip(names, values)) for values in ((1000, 2, 8, 15, 10), (57, 1, 3, 1, 2), *drawn)]


BOTH_PARTS = {
    (2, 4): "the forward pass alone: the backward pass costs twice as much again",
    (3, 6): "3 operations per weight: multiplying and adding are two each time",
    (2, 0): "2 P D: this is the weights' forward pass alone, and attention is missing",
}
OF_WEIGHTS = {
    6: "", 2: "the weights are counted forwards only", 4: "the weights are counted backwards only",
    3: "the weights are counted with 3 operations", 0: "the parameters are missing",
}  # fmt: skip
OF_ATTENTION = {
    12: "", 4: "attention is counted forwards only: it has a backward pass too, 12 L d in all",
    6: "one of attention's two matrix products is missing, or multiplying and adding are one",
    0: "attention is missing: add its 12 L d per token and visible position",
}  # fmt: skip


def expect_flops(case):
    P, L, d, T, D = case.values()

    def total(weights=6, attention=12, positions=(T + 1) / 2, layers=L):
        """Operations per weight, and per layer, unit of width and visible position."""
        return (weights * P + attention * layers * d * positions) * D

    seen = {
        "attention looks at all T positions: under the causal mask it is (T + 1) / 2 on average": T,
        "attention counts (T + 1) positions: under the causal mask it is half of that on average": T + 1,
        "attention counts T / 2 positions: a token also looks at itself, so it is (T + 1) / 2": T / 2,
        "attention counts (T - 1) / 2 positions: a token also looks at itself, so it is (T + 1) / 2": (T - 1) / 2,
        "attention counts whole positions alone: // rounds (T + 1) / 2 down": (T + 1) // 2,
        "attention counts the positions of a whole window: per token it is (T + 1) / 2": T * (T + 1) / 2,
    }
    mistakes = {
        "the backward pass alone: add the forward pass, half as much": total(4, 8),
        "only the weights are multiplied by the number of tokens": 6 * P * D + total(0) / D,
        "only attention is multiplied by the number of tokens": 6 * P + total(0),
        "the parameters are multiplied by the number of layers: they are those of all layers": total(6 * L),
    }
    for (w, words), (a, more) in itertools.product(OF_WEIGHTS.items(), OF_ATTENTION.items()):
        if (w, a) not in ((6, 12), (0, 0)):
            mistakes[BOTH_PARTS.get((w, a)) or "; and ".join(filter(None, [words, more]))] = total(w, a)
    for words, positions in seen.items():
        mistakes[words] = total(positions=positions)
        mistakes[f"the forward pass alone; and {words}"] = total(2, 4, positions)
        mistakes[f"the attention's forward pass alone; and {words}"] = total(6, 4, positions)
    return total(), mistakes


# 0.5 The power law ---------------------------------------------------------------------------------------------------


def power_law(compute, loss):
    """The package's answer: (a, b) of L = a C^-b, by least squares between ln C and ln L."""
    slope, intercept = line([math.log(c) for c in compute], [math.log(x) for x in loss])
    return math.exp(intercept), -slope


def line(x, y):
    """Slope and intercept of the least-squares line."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)
    return slope, mean_y - slope * mean_x


def law_cases(rng):
    """Three points that can be pasted, two, eight that lie exactly on a law, eight that do not; in any order."""
    cases = []
    for count, noise in ((3, 0.2), (2, 0.0), (8, 0.0), (8, 0.05)):
        a, b = rng.uniform(3, 20), rng.uniform(0.1, 0.4)
        compute = [round(10 ** (4 * (k + rng.uniform(0.2, 0.8)) / count), 2) for k in rng.sample(range(count), count)]
        loss = [a * c**-b * math.exp(rng.gauss(0, noise)) for c in compute]
        cases.append({"compute": compute, "loss": [round(x, 3) for x in loss] if noise else loss})
    return cases


def drive_law(answer, case):
    """Tuples, as the lesson hands them."""
    found = answer(tuple(case["compute"]), tuple(case["loss"]))
    return dict(zip("ab", found)) if hasattr(found, "__len__") and not isinstance(found, dict | str) else found


def expect_law(case):
    a, b = power_law(case["compute"], case["loss"])
    log_compute, log_loss = ([math.log(x) for x in case[name]] for name in ("compute", "loss"))
    slope, intercept = line(case["compute"], case["loss"])
    swapped, crossing = line(log_loss, log_compute)
    half, level = line(log_compute, case["loss"])
    other_half, other_level = line(case["compute"], log_loss)
    base, spread = math.log(10), log_compute[-1] - log_compute[0]
    by_ends = (log_loss[0] - log_loss[-1]) / spread

    def both(*pairs):
        return Alternatives(*({"a": x, "b": y} for x, y in pairs))

    mistakes = {
        "a and b come in the wrong order: return (a, b)": both((b, a), (-b, a)),
        "these are slope and intercept as polyfit gives them: a = exp(intercept), b = -slope": both((-b, math.log(a))),
        "slope and intercept are exchanged: polyfit returns the slope first": both((math.exp(-b), -math.log(a))),
        "drawn through the first and the last point: least squares uses all of them":
            both((math.exp(log_loss[0] + by_ends * log_compute[0]), by_ends)),
        "a is a logarithm, and the exponent has the wrong sign": both((math.log(a), -b)),
        "fitted on linear axes: a power law is a line between log C and log L": both((intercept, -slope)),
        "fitted on linear axes, and the slope keeps its sign": both((intercept, slope)),
        "the axes are swapped: L is to be predicted from C, so regress log L on log C":
            both((math.exp(crossing), -swapped), (crossing, -swapped)),
        "the axes are swapped, and a solves C = a L^-b": both((math.exp(crossing), swapped)),
        "the axes are swapped and the line is solved for L: least squares in C is another line":
            both((math.exp(-crossing / swapped), -1 / swapped)),
        "only C is logarithmic: take the logarithm of L too": both((level, -half), (level, half)),
        "only C is logarithmic, and a is exponentiated all the same: take the logarithm of L too":
            both((math.exp(level), -half), (math.exp(level), half)),
        "only L is logarithmic: take the logarithm of C too":
            both(*((x, y) for x in (math.exp(other_level), other_level) for y in (-other_half, other_half))),
        "the natural logarithm of C with log10 of L: use the same base on both axes":
            both((math.exp(math.log10(a)), b / base), (math.log10(a), b / base)),
        ("b", "the exponent has the wrong sign: L = a C^-b falls for a positive b"): -b,
        ("a", "a is still a logarithm: the intercept is ln a, so a = exp(intercept)"): math.log(a),
        ("a", "a is still a logarithm with base 10: a = 10 ** intercept"): math.log10(a),
        ("a", "logarithms are mixed: an intercept from log10 goes with 10 **, one from ln with exp"): a ** (1 / base),
        ("a", "logarithms are mixed: an intercept from ln goes with exp, one from log10 with 10 **"): a**base,
        ("a", "logarithms are mixed: an intercept from log2 goes with 2 **"): a ** (1 / math.log(2)),
        ("a", "the line is made to go through L = 1 at C = 1: it has an intercept, ln a"): 1.0,
        ("b", "log10 of C with the natural logarithm of L: use the same base on both axes"): b * base,
        ("b", "the natural logarithm of C with log10 of L: use the same base on both axes"): b / base,
        ("a", "this is the mean loss: a is what the line gives at C = 1"):
            Alternatives(sum(case["loss"]) / len(log_loss), math.exp(sum(log_loss) / len(log_loss))),
    }  # fmt: skip
    return {"a": a, "b": b}, mistakes


EXERCISES = {
    "0.1": Exercise(likelihood_cases, drive_likelihood, expect_likelihood, points=2, reference=log_likelihood,
        signature="log_likelihood(logits: float[B T V], tokens: int[B T], mask: bool[B T]) -> float[B]"),
    "0.2": Exercise(perplexity_cases, drive_perplexity, expect_perplexity, points=2, reference=perplexity,
        tolerance=1e-5, signature="perplexity(logprobs: float[B T], mask: bool[B T]) -> number"),
    "0.3": Exercise(draw_cases, None, expect_draw, points=3, reference=draw,
        signature="draw(logits: float[B V], temperature: number, uniform: float[B]) -> int[B]"),
    "0.4": Exercise(flops_cases, lambda answer, case: answer(*case.values()), expect_flops, points=2,
        reference=training_flops,
        signature="training_flops(parameters: int, layers: int, width: int, context: int, tokens: int) -> number",
        tolerance=1e-6),
    "0.5": Exercise(law_cases, drive_law, expect_law, points=2, reference=power_law,
        signature="power_law(compute: list, loss: list) -> (number, number)"),
}  # fmt: skip
