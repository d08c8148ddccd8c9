"""Lesson 00: likelihood, perplexity, sampling, the loop, attention and the network, FLOPs, the law and its intervals.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone, but for the whole
network and the fit, whose mistakes are the right answer with something left out.
"""

import functools
import itertools
import math

import numpy as np
import torch

from ptlearn.course.cases import log_softmax, log_sum, masks, softmax
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.pocket import pretrain


def reals(rng, *shape, low=-2.0, high=2.0):
    """Nested lists of numbers between low and high."""
    if not shape:
        return round(rng.uniform(low, high), 3)
    return [reals(rng, *shape[1:], low=low, high=high) for _ in range(shape[0])]


OFF = "padding is multiplied by 0, and 0 times NaN or infinity is NaN: cut it off with torch.where or an index"


# 0.1 The log-likelihood of texts -------------------------------------------------------------------------------------


def log_likelihood(logits, tokens, mask):
    """The package's answer, on tensors: sum over t of log p(x_t given x_<t), tokens with mask False left out."""
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return logprobs.where(mask[:, 1:], logprobs.new_zeros(())).sum(1)


def likelihood_cases(rng):
    """A small one; a text of one token; logits far below 0, as some models have them; padding without numbers."""
    cases = []
    for vocabulary, lengths, single, around in ((2, [3, 2], False, 0.0), (6, [6, 1, 4], False, 0.0),
                                                (5, [3, 5], True, -120.0)):  # fmt: skip
        batch, length = len(lengths), max(lengths)
        logits = [[reals(rng, vocabulary, low=around - 2, high=around + 2) if t < n
                   else reals(rng, vocabulary, low=-30, high=30) for t in range(length)] for n in lengths]  # fmt: skip
        tokens = [[rng.randrange(vocabulary) for _ in range(length)] for _ in range(batch)]
        cases.append({"logits": logits, "tokens": tokens, "lengths": lengths, "single": single})
    logits = [[reals(rng, 3) if t < n else [math.nan] * 3 for t in range(4)] for n in (2, 4)]
    tokens = [[rng.randrange(3) for _ in range(4)] for _ in range(2)]
    return [*cases, {"logits": logits, "tokens": tokens, "lengths": [2, 4], "single": False}]


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
            totals(lambda b, t: scored(1)(b, t) if tokens[b][t] else 0.0, padding=True),
        "exponentials of raw logits under- or overflow: log_softmax subtracts the largest first":
            [math.nan if case["single"] and n > 1 else x for x, n in zip(expected, lengths)],
        "padding gets the probability 0, and the product with it is 0: its factor is 1":
            [x if n == steps else -math.inf for x, n in zip(expected, lengths)],
    }  # fmt: skip
    padding = math.isnan(logits[0][-1][0])

    def multiplied(row):
        """What becomes of sums where padding is multiplied by the mask."""
        return [math.nan if padding and n < steps else x for x, n in zip(row, lengths)]

    both = {}  # each mistake alone, and with this one besides
    for words, values in mistakes.items():
        values = values if isinstance(values, Alternatives) else [values]
        both[words] = Alternatives(*values, *map(multiplied, values))
    return expected, both | {OFF: multiplied(expected)}


# 0.2 Perplexity ------------------------------------------------------------------------------------------------------


def perplexity(logprobs, mask):
    """The package's answer, on tensors: exp of the mean negative log-likelihood over all tokens of all texts."""
    return logprobs[mask].mean().neg().exp()


def perplexity_cases(rng):
    """A small one by hand, random ones of very different lengths, a certain model; padding may be infinite."""
    cases = [([[-math.log(4)] * 2, [-math.log(2)] * 3], False)]
    for lengths, single in (([6, rng.randint(1, 2), 6, 4], False), ([4, 2, 4], True)):
        # short texts are the hard ones here, as they are in life: there is little to condition on
        cases.append(([reals(rng, n, low=-4.0 / n - 1.0, high=-0.1) for n in lengths], single))
    cases.append(([[0.0, 0.0], [0.0]], False))
    longest = [max(map(len, texts)) for texts, _ in cases]
    cases = [{"logprobs": [row + reals(rng, steps - len(row), low=-9.0, high=-5.0) for row in texts],
              "lengths": list(map(len, texts)), "single": single}
             for (texts, single), steps in zip(cases, longest)]  # fmt: skip
    return [*cases, {"logprobs": [[-1.0, -math.inf], [-0.5, -2.0]], "lengths": [1, 2], "single": False}]


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
    mistakes[OFF] = math.nan if everything == -math.inf else math.exp(losses[""])
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


# 0.4 The nucleus -----------------------------------------------------------------------------------------------------


def nucleus(logits, top_p):
    """The package's answer, on tensors: a token goes if those that are more likely hold top_p already."""
    ordered, order = logits.softmax(-1).sort(descending=True)
    dropped = ordered.cumsum(-1) - ordered >= top_p
    return logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)


def nucleus_cases(rng):
    """One token alone is the nucleus; random rows; the mass falls between two tokens, never close to one."""
    quarters = [[math.log(p) for p in row] for row in ((0.1, 0.7, 0.2), (0.3, 0.25, 0.45))]
    cases = [{"logits": quarters, "top_p": 0.6}]
    for top_p, vocabulary, count in ((0.75, 6, 4), (0.5, 5, 5)):
        rows = []
        while len(rows) < count:
            row = reals(rng, vocabulary)
            if min(abs(border - top_p) for border in running(sorted(softmax(row), reverse=True))) > 1e-2:
                rows.append(row)
        cases.append({"logits": rows, "top_p": top_p})
    return cases


def drive_nucleus(answer, case):
    """The distribution that is left, so that it does not matter how its logits are normalised."""
    return answer(torch.tensor(case["logits"], dtype=torch.float64), case["top_p"]).softmax(-1)


def normalised(row):
    return [x / sum(row) for x in row] if sum(row) else [math.nan] * len(row)


def nucleus_of(probabilities, top_p):
    """The probabilities inside the nucleus, as many as before, divided by their sum."""
    mass, kept = 0.0, set()
    for token in sorted(range(len(probabilities)), key=lambda v: -probabilities[v]):
        if mass >= top_p:
            break
        mass += probabilities[token]
        kept.add(token)
    return normalised([p if v in kept else 0.0 for v, p in enumerate(probabilities)])


def expect_nucleus(case):
    rows, top_p = [softmax(row) for row in case["logits"]], case["top_p"]
    size, expected = len(rows[0]), [nucleus_of(row, top_p) for row in rows]

    def before(row, sign=-1):
        """For each token the mass of those that come before it, the most likely first (or last)."""
        return [sum(q for q in row if sign * q < sign * p) for p in row]

    def keeping(rule):
        return [normalised([p if kept else 0.0 for p, kept in zip(row, rule(row))]) for row in rows]

    def instead(value):
        """The logits outside the nucleus set to a number."""
        return [softmax([x if p else value for x, p in zip(logits, kept)])
                for logits, kept in zip(case["logits"], expected)]  # fmt: skip

    def in_place_order(row):
        return [sum(row[:v]) for v in range(size)]

    orders = [sorted(range(size), key=lambda v: -row[v]) for row in rows]
    counted = [sorted(row, reverse=True)[max(1, round(top_p * size)) - 1] for row in rows]
    mistakes = {
        "the token that crosses top_p is dropped, and the first one too where it holds top_p alone: it stays":
            keeping(lambda row: [b + p <= top_p for b, p in zip(before(row), row)]),
        "the token that crosses top_p is dropped: it stays, so that the nucleus holds at least top_p": [
            normalised([p if b + p <= top_p or b == 0 else 0.0 for b, p in zip(before(row), row)]) for row in rows],
        "one token too many: a token goes if those before it hold top_p already": [
            normalised([p if b - min([q for q in row if q > p], default=0) < top_p else 0.0
                        for b, p in zip(before(row), row)]) for row in rows],
        "each probability is compared with top_p: the sum of the most likely ones must reach it": Alternatives(
            keeping(lambda row: [p >= top_p for p in row]), keeping(lambda row: [p <= top_p for p in row]),
            keeping(lambda row: [p >= 1 - top_p for p in row])),
        "the least likely tokens are kept: sort in descending order":
            keeping(lambda row: [b < top_p for b in before(row, 1)]),
        "the running sum goes in the order of the vocabulary: sort by probability first":
            keeping(lambda row: [b < top_p for b in in_place_order(row)]),
        "the result stands in the order of the sorting: bring each token back to its place (scatter)":
            [sorted(row, reverse=True) for row in expected],
        "the places of the sorted row are dropped in the row that is not sorted: bring them back (scatter)": [
            normalised([p if v < sum(x > 0 for x in kept) else 0.0 for v, p in enumerate(row)])
            for row, kept in zip(rows, expected)],
        "the decisions are brought back by gather: token order[i] has place i, so it is scatter": [
            normalised([p if place < sum(x > 0 for x in kept) else 0.0 for p, place in zip(row, order)])
            for row, kept, order in zip(rows, expected, orders)],
        "each probability is compared with top_p times the largest one: it is the sum of the most likely that counts":
            keeping(lambda row: [p >= top_p * max(row) for p in row]),
        "the logits outside become 0, and exp(0) = 1 is likely: they become -inf": instead(0.0),
        "these are probabilities: logits are expected, with -inf outside the nucleus":
            Alternatives([softmax(row) for row in expected],
                         [softmax([p if q else 0.0 for p, q in zip(*pair)]) for pair in zip(rows, expected)]),
        "top_p is taken for a share of the vocabulary: it is a share of the probability":
            keeping(lambda row: [p >= counted[rows.index(row)] for p in row]),
        "nothing is dropped": rows,
        "what is inside is dropped, and what is outside kept":
            [normalised([0.0 if q else p for p, q in zip(*pair)]) for pair in zip(rows, expected)],
    }  # fmt: skip
    return expected, mistakes


# 0.5 The loop --------------------------------------------------------------------------------------------------------


def generate(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0):
    """The package's answer: one sampled token per row and step, until every row has its end token."""
    longest = max(map(len, prompts))
    padding = torch.tensor([[longest - len(prompt)] for prompt in prompts])
    tokens = torch.tensor([[end] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    rows = [[] for _ in prompts]
    for step in range(uniforms.shape[1]):
        columns = torch.arange(tokens.shape[1])
        logits = next_logits(tokens, columns >= padding, (columns - padding).clamp(min=0))
        chosen = draw(nucleus(logits / temperature, top_p), 1.0, uniforms[:, step])
        tokens = torch.cat([tokens, chosen[:, None]], 1)
        for row, token in zip(rows, chosen.tolist()):
            if end not in row:
                row.append(token)
        if all(end in row for row in rows):
            break
    return rows


def generate_cases(rng):
    """A language of a few tokens: what follows depends on the newest token, and on the place of every earlier one.

    One row; rows that all end, at different steps and before the last one; rows of which one does not end.
    """
    settings = (([2], 1.0, 1.0, 4, lambda ends: True),
                ([1, 4, 2, 4], 0.6, 0.8, 6, lambda ends: all(ends) and len(set(ends)) > 1 and max(ends) < 8),
                ([3, 1, 5], 1.6, 0.7, 5, lambda ends: any(ends) and not all(ends)))  # fmt: skip
    return [generate_case(rng, *setting) for setting in settings]


def generate_case(rng, lengths, temperature, top_p, vocabulary, wanted):
    """A case whose rows end as wanted: `ends` are the steps at which they do, 0 for a row that does not."""
    while True:
        prompts = [[0] + [rng.randrange(1, vocabulary) for _ in range(n - 1)] for n in lengths]
        case = {"prompts": prompts, "uniforms": [[round(rng.random(), 4) for _ in range(8)] for _ in prompts],
                "temperature": temperature, "top_p": top_p,
                "newest": reals(rng, vocabulary, vocabulary),
                "earlier": reals(rng, vocabulary, vocabulary)}  # fmt: skip
        rows = [row_of(case, index) for index in range(len(prompts))]
        if wanted([len(row) if row[-1] == 0 else 0 for row in rows]):
            return case


def logits_of(case, tokens, visible, positions):
    """The logits of the next token after one row of that language."""
    size = len(case["newest"])
    return [
        case["newest"][tokens[-1]][v]
        + sum(case["earlier"][token][(v + t) % size] for token, seen, t in zip(tokens, visible, positions) if seen)
        for v in range(size)
    ]


def drive_generate(answer, case):
    """What each row got, and how often the model was asked."""
    calls = []

    def next_logits(tokens, visible, positions):
        calls.append(tokens.shape)
        rows = zip(tokens.tolist(), visible.tolist(), positions.expand(tokens.shape).tolist())
        return torch.tensor([logits_of(case, *row) for row in rows], dtype=torch.float64)

    uniforms = torch.tensor(case["uniforms"], dtype=torch.float64)
    rows = answer(next_logits, case["prompts"], uniforms, 0, case["temperature"], case["top_p"])
    return {"rows": rows, "calls": len(calls)}


def chosen_token(logits, uniform, temperature, top_p, tempered="logits", best=False):
    """The token that a step draws; `tempered` says what the temperature does, `best` takes the likeliest."""
    if tempered in ("after", "twice"):
        probabilities = nucleus_of(softmax(logits, temperature if tempered == "twice" else 1.0), top_p)
        probabilities = normalised([p ** (1 / temperature) for p in probabilities])
    else:
        probabilities = nucleus_of(softmax(logits, {"logits": temperature, "times": 1 / temperature}[tempered]), top_p)
    return probabilities.index(max(probabilities)) if best else inverse(running(probabilities), uniform)


def row_of(case, index, uniforms=None, *, side="left", own=True, masked=True, new=True, going_on=False, **choice):
    """The tokens that a row gets, or would get by a mistake of the loop."""
    prompt, longest = case["prompts"][index], max(map(len, case["prompts"]))
    shift = longest - len(prompt)
    tokens = [0] * shift + prompt if side == "left" else prompt + [0] * shift
    given = {"temperature": case["temperature"], "top_p": case["top_p"]} | choice
    found = []
    for uniform in uniforms or case["uniforms"][index]:
        columns = range(len(tokens))
        if side == "left":
            visible = [(c >= shift or not masked) and (new or c < longest) for c in columns]
        else:
            visible = [c < len(prompt) or c >= longest or not masked for c in columns]
        starts = 0 if side == "left" else len(prompt)  # where the padding begins
        plain = [c < starts or not own or own == "prompt" and c >= longest for c in columns]
        positions = [c if kept else max(c - shift, starts - 1, 0) for c, kept in zip(columns, plain)]
        positions = [min(t, len(prompt) - 1) for t in positions] if own == "still" else positions
        found.append(chosen_token(logits_of(case, tokens, visible, positions), uniform, **given))
        tokens.append(found[-1])
        if found[-1] == 0 and not going_on:
            break
    return found


def expect_generate(case):
    everyone, uniforms = range(len(case["prompts"])), case["uniforms"]
    padded = len(set(map(len, case["prompts"]))) > 1

    def rows(**mistake):
        return [row_of(case, index, **mistake) for index in everyone]

    right = rows()
    steps, first = max(map(len, right)), min(map(len, right))
    mistakes = {
        "the end token does not end its row: nothing is written behind it": Alternatives(
            rows(going_on=True), [row + [0] * (steps - len(row)) for row in right],
            [row + [0] * (len(uniforms[0]) - len(row)) for row in right],
            [row[:steps] for row in rows(going_on=True)]),
        "the end token is missing: it is sampled like any other and belongs to the row":
            [row[:-1] if row[-1] == 0 else row for row in right],
        "all rows stop with the first that ends: go on until every row has its end token":
            [row[:first] for row in right],
        "an end token in the prompt ends the row: only one that was sampled does":
            Alternatives([[] for _ in right], [row[:1] for row in right]),
        "the prompt is handed back too: return the sampled tokens alone":
            [prompt + row for prompt, row in zip(case["prompts"], right)],
        "one uniform number for all steps: column t belongs to step t":
            [row_of(case, i, [uniforms[i][0]] * len(uniforms[0])) for i in everyone],
        "this takes the most likely token at every step: the uniform numbers are not used": rows(best=True),
        "temperature is not used": rows(temperature=1.0),
        "temperature is multiplied: logits are divided by it": rows(tempered="times"),
        "top_p is not used": rows(top_p=1.0),
        "the nucleus is cut before the temperature: temper first, then cut": rows(tempered="after"),
        "the temperature is used twice: the tempered logits are drawn from at temperature 1": rows(tempered="twice"),
        "what was sampled cannot be seen: `visible` has to grow with the row": rows(new=False),
        "one step too few: there is one for each column of uniforms":
            [row[: len(uniforms[0]) - 1] for row in right],
    }  # fmt: skip
    if len(right) > 1:
        mistakes["the first row's uniform numbers serve all rows: each has its own"] = [
            row_of(case, i, uniforms[0]) for i in everyone]  # fmt: skip
    if padded:
        mistakes |= {
            "padding stands on the right: the last column is then no token of the row; fill up on the left":
                Alternatives(*(rows(side="right", masked=masked, own=own)
                               for masked in (True, False) for own in (True, False))),
            "a short row's positions begin with its padding: they start at 0 at its own first token": rows(own=False),
            "the positions of what was sampled are columns: a short row goes on counting from its own prompt":
                rows(own="prompt"),
            "the positions stand still: every token that was sampled has the next one": rows(own="still"),
            "padding is visible: a row's result depends on its neighbours' length": rows(masked=False),
            "padding is visible and has positions: a row's result depends on its neighbours' length":
                rows(masked=False, own=False),
        }  # fmt: skip
    told = {("rows", words): value for words, value in mistakes.items()}
    if steps < len(uniforms[0]):
        together = [t + 1 for t, column in enumerate(zip(*rows(going_on=True))) if not any(column)]
        told["calls", "the model is asked again although every row has ended"] = Alternatives(
            len(uniforms[0]), min(together, default=len(uniforms[0])))  # fmt: skip
    told["calls", "the model is asked for each row alone: one batch of all rows, once per step"] = sum(map(len, right))
    if len(right) == 1:
        del told["calls", "the model is asked for each row alone: one batch of all rows, once per step"]
    return {"rows": right, "calls": steps}, told


# 0.6 Positions -------------------------------------------------------------------------------------------------------


def rotate(vectors, base=10_000.0):
    """The package's answer, on tensors: entry i and entry i + d/2 of the vector at t turn by t base^(-2i/d)."""
    steps, size = vectors.shape
    angles = torch.arange(steps)[:, None] * base ** (-torch.arange(0, size, 2) / size)
    left, right = vectors.chunk(2, -1)
    turned = (left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin())
    return torch.cat(turned, -1).to(vectors)


def rotate_cases(rng):
    return [{"vectors": reals(rng, steps, size), "base": base} for steps, size, base in ((3, 2, 7.0), (5, 6, 100.0))]


def turned_rows(rows, base, *, start=0, sign=1, doubled=2, rising=-1, factor=1.0, by_row=True):
    """Rows of a table, each turned by its position; the options are what can be mistaken."""
    half = len(rows[0]) // 2
    found = []
    for t, row in enumerate(rows):
        place = t + start if by_row else 0
        angles = [factor * sign * place * base ** (rising * doubled * i / len(row)) for i in range(half)]
        left, right = row[:half], row[half:]
        found.append([x * math.cos(a) - y * math.sin(a) for x, y, a in zip(left, right, angles)]
                     + [y * math.cos(a) + x * math.sin(a) for x, y, a in zip(left, right, angles)])  # fmt: skip
    return found


def interleaved(rows, base):
    """Neighbouring entries paired."""
    mixed = [row[0::2] + row[1::2] for row in rows]
    back = [turned_rows(mixed, base)[t] for t in range(len(rows))]
    half = len(rows[0]) // 2
    return [[row[i // 2 + half * (i % 2)] for i in range(len(row))] for row in back]


def expect_rotate(case):
    rows, base = case["vectors"], case["base"]
    half, size = len(rows[0]) // 2, len(rows[0])

    def mixed(rule):
        """rule(x, y, angle) -> the new pair."""
        found = []
        for t, row in enumerate(rows):
            pairs = [rule(row[i], row[i + half], t * base ** (-2 * i / size)) for i in range(half)]
            found.append([x for x, _ in pairs] + [y for _, y in pairs])
        return found

    cos, sin = math.cos, math.sin
    mistakes = {
        "turned the wrong way: x cos - y sin, and y cos + x sin": turned_rows(rows, base, sign=-1),
        "the first position is 0, not 1": turned_rows(rows, base, start=1),
        "both halves subtract: the second one is y cos + x sin":
            mixed(lambda x, y, a: (x * cos(a) - y * sin(a), y * cos(a) - x * sin(a))),
        "both halves add: the first one is x cos - y sin":
            mixed(lambda x, y, a: (x * cos(a) + y * sin(a), y * cos(a) + x * sin(a))),
        "cos and sin are exchanged": mixed(lambda x, y, a: (x * sin(a) - y * cos(a), y * sin(a) + x * cos(a))),
        "the second half is made of the new first half: keep the old one":
            mixed(lambda x, y, a: (x * cos(a) - y * sin(a), y * cos(a) + (x * cos(a) - y * sin(a)) * sin(a))),
        "each half is turned by its own cos and sin alone: a rotation mixes both":
            mixed(lambda x, y, a: (x * cos(a), y * sin(a))),
        "nothing is turned: the angle is the position times the frequency": rows,
    }  # fmt: skip
    if size > 2:
        mistakes |= {
            "neighbouring entries are paired: here entry i goes with entry i + d/2": interleaved(rows, base),
            "the exponent is i/d: it is 2i/d, so that the last frequency is close to 1/base":
                turned_rows(rows, base, doubled=1),
            "frequencies rise with i: the exponent is negative": turned_rows(rows, base, rising=1),
            "all pairs turn at the same frequency: it falls with i":
                turned_rows(rows, 1.0),
        }  # fmt: skip
    return turned_rows(rows, base), mistakes


# 0.7 One head --------------------------------------------------------------------------------------------------------


def attention_head(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    """The package's answer, on tensors: the pattern and the mixed values of one causal head."""
    query, key, value = x @ W_Q.T + b_Q, x @ W_K.T + b_K, x @ W_V.T + b_V
    scores = rotate(query) @ rotate(key).T / query.shape[-1] ** 0.5
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    pattern = scores.masked_fill(future, -torch.inf).softmax(-1)
    return pattern, pattern @ value


MATRICES, BIASES = ("W_Q", "W_K", "W_V"), ("b_Q", "b_K", "b_V")


def head_cases(rng):
    """One where the width is the head's size, so that any product has a shape, and one like the models'."""
    cases = []
    for steps, width, size in ((4, 4, 4), (5, 6, 2)):
        case = {"x": reals(rng, steps, width)}
        for matrix, bias in zip(MATRICES, BIASES):
            case |= {matrix: reals(rng, size, width), bias: reals(rng, size)}
        cases.append(case)
    return cases


def drive_head(answer, case):
    names = ["x", *itertools.chain(*zip(MATRICES, BIASES))]
    found = answer(*(torch.tensor(case[name], dtype=torch.float64) for name in names))
    return dict(zip(("pattern", "values"), found)) if isinstance(found, tuple | list) and len(found) == 2 else found


def projected(rows, matrix, bias, turned=False):
    columns = list(zip(*matrix)) if turned else matrix
    return [[sum(a * b for a, b in zip(row, weights)) + c for weights, c in zip(columns, bias)] for row in rows]


def head_of(case, *, rotated="QK", scale=None, mask="causal", axis="keys", biased=True, turned=False, swap=False):
    """Pattern and values of a head; the options are what can be mistaken."""
    zeros = [0.0] * len(case["b_Q"])
    made = {name: projected(case["x"], case["W_" + name], case["b_" + name] if biased else zeros, turned)
            for name in "QKV"}  # fmt: skip
    for name in rotated:
        made[name] = turned_rows(made[name], 10_000.0)
    if swap:
        made["Q"], made["K"] = made["K"], made["Q"]
    size = len(zeros)
    scores = [[sum(a * b for a, b in zip(q, k)) * (scale or size**-0.5) for k in made["K"]] for q in made["Q"]]
    hidden = {"causal": lambda t, s: s > t, "none": lambda t, s: False, "past": lambda t, s: s < t,
              "zero": lambda t, s: s > t, "after": lambda t, s: s > t, "self": lambda t, s: s >= t}[mask]  # fmt: skip
    gone = 0.0 if mask == "zero" else -math.inf
    kept = [[x if mask == "after" or not hidden(t, s) else gone for s, x in enumerate(row)]
            for t, row in enumerate(scores)]  # fmt: skip

    def shares(row):
        total = sum(math.exp(x) for x in row)
        return [math.exp(x) / total if total else math.nan for x in row]

    pattern = list(zip(*map(shares, zip(*kept)))) if axis == "queries" else [shares(row) for row in kept]
    if mask == "after":
        pattern = [[0.0 if hidden(t, s) else p for s, p in enumerate(row)] for t, row in enumerate(pattern)]
    values = [[sum(p * v for p, v in zip(row, column)) for column in zip(*made["V"])] for row in pattern]
    return {"pattern": [list(row) for row in pattern], "values": values}


def expect_head(case):
    width, size = len(case["x"][0]), len(case["b_Q"])
    right = head_of(case)
    mistakes = {
        "the scores are not divided by the square root of the head's size": head_of(case, scale=1.0),
        "the scores are divided by the head's size, not by its square root": head_of(case, scale=1 / size),
        "no causal mask: a token must not look at those behind it": head_of(case, mask="none"),
        "the mask hides the past: hide the keys behind the query (triu(1))": head_of(case, mask="past"),
        "the mask hides the token itself: triu(1) begins above the diagonal": head_of(case, mask="self"),
        "the future's scores become 0, and exp(0) = 1 is seen: they become -inf": head_of(case, mask="zero"),
        "the mask comes after the softmax: the rows no longer sum to 1": head_of(case, mask="after"),
        "the softmax runs over the queries: dim=-1 are the keys": head_of(case, axis="queries"),
        "nothing is rotated: without positions the head sees a set of words": head_of(case, rotated=""),
        "only the queries are rotated: the keys need their positions too": head_of(case, rotated="Q"),
        "only the keys are rotated: the queries need their positions too": head_of(case, rotated="K"),
        "the values are rotated too: only queries and keys are": head_of(case, rotated="QKV"),
        "x is rotated: project it first, then rotate queries and keys":
            head_of(case | {"x": turned_rows(case["x"], 10_000.0)}, rotated=""),
        "queries and keys are exchanged: rows of the pattern are queries": head_of(case, swap=True),
        "the biases are missing": head_of(case, biased=False),
    }  # fmt: skip
    if width != size:
        mistakes["the scores are divided by the square root of the width: it is the head's size"] = head_of(
            case, scale=width**-0.5)  # fmt: skip
    else:
        mistakes["the weights are not transposed: torch stores them as (out, in), so x @ W.T"] = head_of(
            case, turned=True)  # fmt: skip
    named = {("pattern", words): value["pattern"] for words, value in mistakes.items() if "values are" not in words}
    words = "the values are rotated too: only queries and keys are"
    named["values", words] = mistakes[words]["values"]
    raw = [[sum(p * x for p, x in zip(row, column)) for column in zip(*projected(case["x"], case["W_V"], [0.0] * size))]
           for row in right["pattern"]]  # fmt: skip
    named["values", "the bias of the values is missing"] = raw
    named["values", "the keys are handed over: the values have a matrix of their own"] = [
        [sum(p * x for p, x in zip(row, column)) for column in zip(*keys)]
        for keys in [turned_rows(projected(case["x"], case["W_K"], case["b_K"]), 10_000.0)] for row in right["pattern"]]
    named["values", "the pattern is transposed: row t mixes the values for token t"] = [
        [sum(p * v for p, v in zip(row, column)) for column in zip(*projected(case["x"], case["W_V"], case["b_V"]))]
        for row in zip(*right["pattern"])]  # fmt: skip
    named["values", "these are the values before they are mixed: pattern @ value"] = projected(
        case["x"], case["W_V"], case["b_V"])  # fmt: skip
    return right, named


# 0.8 The whole network -----------------------------------------------------------------------------------------------


def heads_of(layer):
    """W_Q, b_Q, W_K, b_K, W_V, b_V of each head of a layer of the Llama layout, as a list of tuples of tensors."""
    attention = layer.self_attn
    parts = []
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        parts += [projection.weight.split(attention.head_dim), projection.bias.split(attention.head_dim)]
    return list(zip(*parts))


def network(model, tokens):
    """The package's answer: embed, add what each layer's heads and feed-forward part say, read out."""
    return run_network(model, tokens, depth=None)


def run_network(model, tokens, *, attended=True, fed=True, normed=True, last=True, reads="sum", kept=True, depth=2):
    """The logits (T, V) of a model with two layers; the options are what can be forgotten."""
    body = model.model
    stream = body.embed_tokens(tokens)
    for layer in list(body.layers)[:depth]:
        seen = layer.input_layernorm(stream) if normed else stream
        mixed = torch.cat([attention_head(seen, *weights)[1] for weights in heads_of(layer)], -1)
        said = layer.self_attn.o_proj(mixed) if attended else mixed
        before, stream = stream, stream + said if kept else said
        entering = before if reads == "before" else stream
        norm = layer.input_layernorm if reads == "first norm" else layer.post_attention_layernorm
        more = layer.mlp(norm(entering) if normed else entering)
        stream = (stream + more if kept else more) if fed else stream
    return model.lm_head(body.norm(stream) if last else stream)


@functools.cache
def tiny_model(seed):
    """A model of the pocket models' layout, eight numbers wide, none of its weights 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    model = pretrain.build(shape).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.5 if parameter.ndim > 1 else 0.3))
            if "norm" in name:
                parameter += 1.0
    return model


def network_cases(rng):
    return [{"seed": rng.randrange(1000), "tokens": [rng.randrange(4000) for _ in range(n)]} for n in (1, 5)]


def some(logits):
    """A few of the 4,000 columns."""
    return logits[..., ::500]


def drive_network(answer, case):
    with torch.no_grad():
        return some(answer(tiny_model(case["seed"]), torch.tensor(case["tokens"])))


def expect_network(case):
    model, tokens = tiny_model(case["seed"]), torch.tensor(case["tokens"])
    forgotten = {
        "the heads are not projected back: o_proj comes before they are added to the stream": {"attended": False},
        "the feed-forward part is missing": {"fed": False},
        "the norms of the layers are missing: each part reads a normed stream": {"normed": False},
        "the last norm is missing: the stream is normed once more before the output head": {"last": False},
        "the feed-forward part reads the stream from before the attention": {"reads": "before"},
        "the feed-forward part reads through the first norm: post_attention_layernorm is its own":
            {"reads": "first norm"},
        "the stream is replaced, not added to: x + attention, then x + mlp": {"kept": False},
        "one layer is missing": {"depth": 1},
    }
    with torch.no_grad():
        assert torch.allclose(model(tokens[None]).logits[0], run_network(model, tokens), atol=1e-4)
        body, stream = model.model, model.model.norm(run_body(model, tokens))
        mistakes = {words: some(run_network(model, tokens, **option)) for words, option in forgotten.items()}
        mistakes["this is the stream: the output head makes logits of it"] = Alternatives(
            some(stream), stream, run_body(model, tokens))  # fmt: skip
        mistakes["these are probabilities: logits are expected"] = Alternatives(
            some(run_network(model, tokens).softmax(-1)), some(run_network(model, tokens).log_softmax(-1)))  # fmt: skip
        mistakes["no layer is run: loop over model.model.layers"] = Alternatives(
            some(model.lm_head(body.norm(body.embed_tokens(tokens)))), some(model.lm_head(body.embed_tokens(tokens))))
        return some(run_network(model, tokens)), mistakes


def run_body(model, tokens):
    """The stream behind the last layer."""
    found = []
    handle = model.model.norm.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    run_network(model, tokens)
    handle.remove()
    return found[0]


# 0.9 Training compute ------------------------------------------------------------------------------------------------


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


# 0.10 The law of parameters and tokens -------------------------------------------------------------------------------

NAMES = ("E", "A", "B", "alpha", "beta")


def fit_law(N, D, loss, exponents):
    """The package's answer, on arrays: for each pair of exponents E, A and B by least squares on relative errors."""
    return fitted(N, D, loss, itertools.product(exponents, repeat=2))


def fitted(N, D, loss, pairs, *, relative=True, floor=True, worst=False):
    """The best fit over pairs of exponents, as a dict; the options are what can be mistaken."""
    N, D, loss = (np.asarray(values, dtype=float) for values in (N, D, loss))
    scale = loss if relative else np.ones(len(loss))
    fits = []
    for alpha, beta in pairs:
        columns = np.stack([np.full(len(N), float(floor)), N**-alpha, D**-beta], 1) / scale[:, None]
        weights = np.linalg.lstsq(columns, loss / scale, rcond=None)[0]
        fits.append((float(((columns @ weights - loss / scale) ** 2).sum()), *weights.tolist(), alpha, beta))
    chosen = (max if worst else min)(fits, key=lambda fit: fit[0])
    return dict(zip(NAMES, map(float, chosen[1:])))


def fit_cases(rng):
    """Losses around a law, with noise that is relative and large, so that ways of weighing it differ."""
    cases = []
    for sizes, amounts in ((3, 3), (4, 3)):
        N = sorted(rng.sample([0.05, 0.1, 0.2, 0.4, 0.8], sizes))
        D = sorted(rng.sample([0.25, 0.5, 1.0, 2.0, 4.0], amounts))
        alpha, beta = rng.sample([0.25, 0.5, 0.75, 1.0], 2)
        points = [(n, d, 1.0 + rng.uniform(0.2, 0.4) * n**-alpha + rng.uniform(0.4, 0.6) * d**-beta)
                  for n in N for d in D]  # fmt: skip
        loss = [round(x * math.exp(rng.gauss(0, 0.1)), 4) for _, _, x in points]
        cases.append({"N": [p[0] for p in points], "D": [p[1] for p in points], "loss": loss,
                      "exponents": [0.1, 0.25, 0.5, 0.75, 1.0, 1.25]})  # fmt: skip
    return cases


def drive_fit(answer, case):
    return answer(*(np.array(case[name]) for name in ("N", "D", "loss", "exponents")))


def expect_fit(case):
    N, D, loss, exponents = (case[name] for name in ("N", "D", "loss", "exponents"))
    both = list(itertools.product(exponents, repeat=2))
    right = fitted(N, D, loss, both)
    negative = fitted(N, D, loss, [(-a, -b) for a, b in both])
    mistakes = {
        "the errors are absolute: divide both sides by the loss, so that 1 % counts the same everywhere":
            fitted(N, D, loss, both, relative=False),
        "the logarithm of the loss is fitted: it is the loss itself that is a sum of three terms":
            fitted(N, D, np.log(loss), both, relative=False),
        "alpha and beta are always the same: try every pair": fitted(N, D, loss, [(x, x) for x in exponents]),
        "the last pair is returned: keep the one with the smallest error": fitted(N, D, loss, both[-1:]),
        "the first pair is returned: keep the one with the smallest error": fitted(N, D, loss, both[:1]),
        "this is the worst fit of all: keep the smallest error": fitted(N, D, loss, both, worst=True),
        "the floor is missing: a column of ones belongs to E": fitted(N, D, loss, both, floor=False),
        "the exponents have the wrong sign: the loss falls with N and D": Alternatives(
            negative, negative | {name: -negative[name] for name in ("alpha", "beta")}),
        "N and D are exchanged": Alternatives(
            dict(zip(("E", "B", "A", "beta", "alpha"), right.values())), fitted(D, N, loss, both)),
    }  # fmt: skip
    return right, mistakes


# 0.11 Its interval ---------------------------------------------------------------------------------------------------


def intervals(fit, N, D, loss, chosen):
    """The package's answer, on arrays: the middle 95 % of what the fit gives on runs drawn with replacement."""
    fits = [fit(N[rows], D[rows], loss[rows]) for rows in chosen]
    return {name: np.quantile([found[name] for found in fits], [0.025, 0.975]).tolist() for name in fits[0]}


def interval_cases(rng):
    cases = []
    for count, draws in ((4, 5), (6, 21)):
        case = {name: reals(rng, count, low=0.5, high=3.0) for name in ("N", "D", "loss")}
        cases.append(case | {"chosen": [[rng.randrange(count) for _ in range(count)] for _ in range(draws)]})
    return cases


def toy_fit(N, D, loss):
    """Something that depends on all three and on how they belong together."""
    return {"E": float((N * loss).mean()), "A": float((D * loss).max() - N.min())}


def drive_intervals(answer, case):
    calls = []

    def fit(N, D, loss):
        calls.append(len(loss))
        return toy_fit(*map(np.asarray, (N, D, loss)))

    return answer(fit, *(np.array(case[name]) for name in ("N", "D", "loss", "chosen")))


def expect_intervals(case):
    N, D, loss, chosen = (np.array(case[name]) for name in ("N", "D", "loss", "chosen"))

    def made(rows_of=lambda rows: (rows, rows, rows), summary=None):
        fits = [toy_fit(*(values[rows] for values, rows in zip((N, D, loss), rows_of(rows)))) for rows in chosen]
        columns = {name: np.array([found[name] for found in fits]) for name in fits[0]}
        summary = summary or (lambda values: np.quantile(values, [0.025, 0.975]))
        return {name: np.asarray(summary(values)).tolist() for name, values in columns.items()}

    everything = np.arange(len(N))
    mistakes = {
        "the runs are not drawn: fit N[rows], D[rows] and loss[rows]": made(lambda rows: (everything,) * 3),
        "only the losses are drawn: N, D and loss of a run belong together":
            made(lambda rows: (everything, everything, rows)),
        "the losses are not drawn: N, D and loss of a run belong together":
            made(lambda rows: (rows, rows, everything)),
        "this is an interval of 90 %: 2.5 % lie outside on each side":
            made(summary=lambda values: np.quantile(values, [0.05, 0.95])),
        "the quantiles are 2.5 and 97.5 %: as shares 0.025 and 0.975":
            Alternatives(made(summary=lambda values: np.quantile(values, [0.25, 0.75])),
                         made(summary=lambda values: np.percentile(values, [0.025, 0.975]))),
        "these are the smallest and the largest value: 2.5 % lie outside on each side":
            made(summary=lambda values: [values.min(), values.max()]),
        "mean and two standard deviations: take the quantiles, the values need not be symmetric": Alternatives(
            *(made(summary=lambda values, f=f, n=n: [values.mean() - f * values.std(ddof=n),
                                                     values.mean() + f * values.std(ddof=n)])
              for f in (1.96, 2) for n in (0, 1))),
        "low and high are exchanged": made(summary=lambda values: np.quantile(values, [0.975, 0.025])),
        "this is the mean over the draws: an interval has two ends": made(summary=np.mean),
    }  # fmt: skip
    return made(), mistakes


EXERCISES = {
    "0.1": Exercise(likelihood_cases, drive_likelihood, expect_likelihood, points=2, reference=log_likelihood,
        signature="log_likelihood(logits: float[B T V], tokens: int[B T], mask: bool[B T]) -> float[B]"),
    "0.2": Exercise(perplexity_cases, drive_perplexity, expect_perplexity, points=1, reference=perplexity,
        tolerance=1e-5, signature="perplexity(logprobs: float[B T], mask: bool[B T]) -> number"),
    "0.3": Exercise(draw_cases, None, expect_draw, points=2, reference=draw,
        signature="draw(logits: float[B V], temperature: number, uniform: float[B]) -> int[B]"),
    "0.4": Exercise(nucleus_cases, drive_nucleus, expect_nucleus, points=2, reference=nucleus,
        signature="nucleus(logits: float[B V], top_p: number) -> float[B V]"),
    "0.5": Exercise(generate_cases, drive_generate, expect_generate, points=5, reference=generate,
        signature="generate(next_logits: function, prompts: list, uniforms: float[B S], end: int, "
                  "temperature: number, top_p: number) -> list of list"),
    "0.6": Exercise(rotate_cases, None, expect_rotate, points=2, reference=rotate,
        signature="rotate(vectors: float[T d], base: number) -> float[T d]"),
    "0.7": Exercise(head_cases, drive_head, expect_head, points=3, reference=attention_head,
        signature="attention_head(x: float[T w], W_Q: float[d w], b_Q: float[d], W_K: float[d w], b_K: float[d], "
                  "W_V: float[d w], b_V: float[d]) -> (float[T T], float[T d])"),
    "0.8": Exercise(network_cases, drive_network, expect_network, points=3, reference=network,
        signature="network(model: any, tokens: int[T]) -> float[T V]"),
    "0.9": Exercise(flops_cases, lambda answer, case: answer(*case.values()), expect_flops, points=2,
        reference=training_flops,
        signature="training_flops(parameters: int, layers: int, width: int, context: int, tokens: int) -> number",
        tolerance=1e-6),
    "0.10": Exercise(fit_cases, drive_fit, expect_fit, points=3, reference=fit_law,
        signature="fit_law(N: any, D: any, loss: any, exponents: any) -> "
                  "{E: number, A: number, B: number, alpha: number, beta: number}"),
    "0.11": Exercise(interval_cases, drive_intervals, expect_intervals, points=2, reference=intervals,
        signature="intervals(fit: function, N: any, D: any, loss: any, chosen: any) -> dict"),
}  # fmt: skip
