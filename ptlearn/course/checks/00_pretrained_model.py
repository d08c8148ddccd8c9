"""Lesson 00: likelihood of a text, perplexity, sampling by inverting the CDF, training FLOPs, the power law.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.diagnosis import differences
from ptlearn.course.exercise import Exercise


def reals(rng, *shape, low=-2.0, high=2.0):
    """Nested lists of numbers between low and high."""
    if not shape:
        return round(rng.uniform(low, high), 3)
    return [reals(rng, *shape[1:], low=low, high=high) for _ in range(shape[0])]


def log_softmax(logits):
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


# 0.1 The log-likelihood of texts -------------------------------------------------------------------------------------


def log_likelihood(logits, tokens, mask):
    """The package's answer, on tensors: sum over t of log p(x_t given x_<t), tokens with mask False left out."""
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return logprobs.where(mask[:, 1:], 0.0 * logprobs).sum(1)


def likelihood_cases(rng):
    cases = []
    for _ in range(3):
        batch, length, vocabulary = 3, rng.randint(5, 7), 6
        lengths = [length, rng.randint(3, length - 1), rng.randint(3, length - 1)]
        tokens = [[rng.randrange(1, vocabulary) for _ in range(n)] + [0] * (length - n) for n in lengths]
        cases.append({"logits": reals(rng, batch, length, vocabulary), "tokens": tokens, "lengths": lengths})
    return cases


def drive_likelihood(answer, case):
    import torch

    tokens = torch.tensor(case["tokens"])
    mask = torch.arange(tokens.shape[1]) < torch.tensor(case["lengths"])[:, None]
    return answer(torch.tensor(case["logits"], dtype=torch.float64), tokens, mask)


def verify_likelihood(case, data):
    def totals(shift=1, padding=False, score=log_softmax):
        """Sum over the texts of score(logits at t - shift)[token at t]."""
        results = []
        for logits, tokens, length in zip(case["logits"], case["tokens"], case["lengths"]):
            steps = range(max(shift, 0), (len(tokens) if padding else length) + min(shift, 0))
            results.append(sum(score(logits[t - shift])[tokens[t]] for t in steps))
        return results

    expected = totals()
    likelihoods = [math.exp(x) for x in expected]
    probabilities = totals(score=lambda row: [math.exp(x) for x in log_softmax(row)])
    mean = [x / (n - 1) for x, n in zip(expected, case["lengths"])]
    first_dropped = [
        total - log_softmax(logits[0])[tokens[1]]
        for total, logits, tokens in zip(expected, case["logits"], case["tokens"])
    ]
    return differences(
        data,
        expected,
        {
            "no shift: the logits at t score token t, but the model has already read it; they predict token t + 1": (
                totals(shift=0)
            ),
            "shifted the wrong way: the logits at t are matched with token t - 1, which lies in the past": (
                totals(shift=-1)
            ),
            "padding is scored as if it were text: leave out what mask says is no token": totals(padding=True),
            "padding is scored and nothing is shifted": totals(shift=0, padding=True),
            "probabilities are added: a likelihood is a product of probabilities, so add their logarithms": (
                probabilities
            ),
            "this is the likelihood, not its logarithm: a long text would underflow to 0": likelihoods,
            "raw logits are added: normalise them over the vocabulary first (log_softmax)": (
                totals(score=lambda row: row)
            ),
            "the sign is turned: this is the negative log-likelihood": [-x for x in expected],
            "this is the mean per token: the log-likelihood of a text is the sum": mean,
            "the mask is not shifted: the first predicted token (the second of the text) got lost": first_dropped,
        },
    )


# 0.2 Perplexity ------------------------------------------------------------------------------------------------------


def perplexity(logprobs, mask):
    """The package's answer, on tensors: exp of the mean negative log-likelihood over all tokens of all texts."""
    return logprobs[mask].mean().neg().exp()


def perplexity_cases(rng):
    cases = [{"logprobs": [[-math.log(4)] * 2 + [0.0], [-math.log(2)] * 3], "lengths": [2, 3]}]
    for _ in range(2):
        lengths = [7, rng.randint(1, 2), rng.randint(3, 4)]
        # short texts are the hard ones here, as they are in life: there is little to condition on
        rows = [reals(rng, n, low=-4.0 / n - 1.0, high=-0.1) + [0.0] * (7 - n) for n in lengths]
        cases.append({"logprobs": rows, "lengths": lengths})
    return cases


def drive_perplexity(answer, case):
    import torch

    logprobs = torch.tensor(case["logprobs"], dtype=torch.float64)
    mask = torch.arange(logprobs.shape[1]) < torch.tensor(case["lengths"])[:, None]
    return float(answer(logprobs, mask))


def verify_perplexity(case, data):
    sums, lengths = [sum(row) for row in case["logprobs"]], case["lengths"]
    texts, tokens = len(lengths), sum(lengths)
    loss = -sum(sums) / tokens
    means = [-total / n for total, n in zip(sums, lengths)]
    return differences(
        data,
        math.exp(loss),
        {
            "mean of the texts' perplexities: average the log-probabilities first, exp comes last": (
                sum(math.exp(mean) for mean in means) / texts
            ),
            "every text counts the same, long or short: divide by the number of tokens, not text by text": (
                math.exp(sum(means) / texts)
            ),
            "padding is counted in the mean, which makes the model look better than it is": (
                math.exp(-sum(sums) / (texts * len(case["logprobs"][0])))
            ),
            "divided by the number of texts: perplexity is per token": math.exp(-sum(sums) / texts),
            "2 to the power of nats: log-probabilities in nats go with exp, those in bits with 2": 2**loss,
            "the sign is missing: a perplexity below 1 would mean probabilities above 1": math.exp(-loss),
            "this is the loss in nats per token: perplexity is its exponential": loss,
            "this is the mean probability of a token: the average belongs inside the exponential": (
                sum(math.exp(x) for row, n in zip(case["logprobs"], lengths) for x in row[:n]) / tokens
            ),
        },
        tolerance=1e-5,
    )


# 0.3 Sampling by inverting the CDF -----------------------------------------------------------------------------------


def draw(logits, temperature, uniform):
    """The package's answer, on tensors: the first token whose cumulative probability exceeds the uniform number."""
    cumulative = (logits / temperature).softmax(-1).cumsum(-1)
    return (cumulative <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def inverse_cdf(logits, temperature, uniform):
    """The same from the definition, on lists: (token, distance of the uniform number from the nearest border)."""
    total, cumulative = 0.0, []
    for logprob in log_softmax([x / temperature for x in logits]):
        total += math.exp(logprob)
        cumulative.append(total)
    token = next((v for v, border in enumerate(cumulative) if border > uniform), len(logits) - 1)
    return token, min(abs(border - uniform) for border in cumulative)


def draw_cases(rng):
    quarters = [math.log(0.25), math.log(0.5), math.log(0.25)]
    cases = [{"logits": [quarters] * 4, "temperature": 1.0, "uniform": [0.1, 0.6, 0.9, 0.45]}]
    for temperature in (0.5, 2.0, 1.0):
        rows = []
        while len(rows) < 60:
            row, uniform = reals(rng, 6), round(rng.random(), 4)
            if inverse_cdf(row, temperature, uniform)[1] > 1e-3:  # no quarrel about rounding
                rows.append((row, uniform))
        cases.append({"logits": [r for r, _ in rows], "temperature": temperature, "uniform": [u for _, u in rows]})
    return cases


def drive_draw(answer, case):
    import torch

    logits = torch.tensor(case["logits"], dtype=torch.float64)
    return answer(logits, case["temperature"], torch.tensor(case["uniform"], dtype=torch.float64))


def verify_draw(case, data):
    temperature, pairs = case["temperature"], list(zip(case["logits"], case["uniform"]))
    expected = [inverse_cdf(row, temperature, uniform)[0] for row, uniform in pairs]
    tempered = [[math.exp(x) for x in log_softmax([x / temperature for x in row])] for row, _ in pairs]
    last = len(case["logits"][0]) - 1
    no_sum = "compared with probabilities, not with their running sum: cumsum makes the CDF of them"
    late = []  # the temperature divides probabilities, which then sum to something else
    for row, uniform in pairs:
        scaled = [math.exp(x) / temperature for x in log_softmax(row)]
        late.append(next((v for v in range(last) if sum(scaled[: v + 1]) > uniform), last))
    return differences(
        data,
        expected,
        {
            "this is the argmax: the uniform number is not used, so every sample is the same": [
                max(range(last + 1), key=row.__getitem__) for row, _ in pairs
            ],
            "temperature is multiplied: logits are divided by it, so that a low temperature sharpens": [
                inverse_cdf(row, 1 / temperature, uniform)[0] for row, uniform in pairs
            ],
            "temperature is ignored": [inverse_cdf(row, 1.0, uniform)[0] for row, uniform in pairs],
            "off by one upwards: the answer is how many borders lie at or below the uniform number": [
                token + 1 for token in expected
            ],
            "off by one downwards: the answer is the first token whose border lies above the uniform number": [
                token - 1 for token in expected
            ],
            "off by one downwards, with the first token kept: its border must lie above the uniform number": [
                max(token - 1, 0) for token in expected
            ],
            no_sum: [sum(p <= uniform for p in row) for row, (_, uniform) in zip(tempered, pairs)],
            no_sum + " (CDF)": [
                next((v for v, p in enumerate(row) if p > uniform), 0) for row, (_, uniform) in zip(tempered, pairs)
            ],
            "probabilities are divided by the temperature and no longer sum to 1: divide the logits": late,
            "read from the wrong end: the border must lie above the uniform number, not below": [
                inverse_cdf(row, temperature, 1 - uniform)[0] for row, uniform in pairs
            ],
            "these are probabilities: return which token is drawn": [
                row[token] for row, token in zip(tempered, expected)
            ],
        },
    )


# 0.4 Training compute ------------------------------------------------------------------------------------------------


def training_flops(parameters, layers, width, context, tokens):
    """The package's answer: 6 operations per parameter and token, and attention over (T + 1) / 2 positions."""
    return (6 * parameters + 6 * layers * width * (context + 1)) * tokens


def flops_cases(rng):
    cases = [{"parameters": 1000, "layers": 2, "width": 8, "context": 15, "tokens": 10}]
    for _ in range(2):
        cases.append(
            {
                "parameters": rng.randint(300_000, 9_000_000),
                "layers": rng.randint(3, 12),
                "width": 32 * rng.randint(2, 12),
                "context": 128 * rng.randint(1, 8),
                "tokens": rng.randint(10**6, 10**8),
            }
        )
    return cases


def verify_flops(case, data):
    P, L, d, T, D = (case[name] for name in ("parameters", "layers", "width", "context", "tokens"))
    seen = (T + 1) / 2  # positions a token looks at, on average
    weights, attention = 6 * P * D, 12 * L * d * seen * D
    return differences(
        data,
        weights + attention,
        {
            "the forward pass alone: the backward pass costs twice as much again": (weights + attention) / 3,
            "2 P D: two operations per parameter and token are the forward pass alone, and attention is missing": (
                weights / 3
            ),
            "4 P D: this is the backward pass alone, and attention is missing": weights * 2 / 3,
            "the backward pass alone: add the forward pass, half as much": (weights + attention) * 2 / 3,
            "attention is missing: add its 12 L d per token and visible position": weights,
            "the parameters are missing: this is attention alone": attention,
            "3 operations per parameter: a weight is multiplied and added, which is two each time": weights / 2,
            "3 operations per weight: multiplying and adding are two each time": (weights + attention) / 2,
            "attention looks at all T positions: under the causal mask it is (T + 1) / 2 on average": (
                weights + 12 * L * d * T * D
            ),
            "attention counts (T + 1) positions: under the causal mask it is half of that on average": (
                weights + 12 * L * d * (T + 1) * D
            ),
            "attention counts T / 2 positions: a token also looks at itself, so it is (T + 1) / 2": (
                weights + 12 * L * d * T / 2 * D
            ),
            "attention of one layer only": weights + 12 * d * seen * D,
            "attention is counted forwards only: it has a backward pass too, 12 L d in all": weights + attention / 3,
            "this is for one token: multiply by the number of tokens": 6 * P + 12 * L * d * seen,
        },
        tolerance=1e-6,
    )


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
    cases = []
    for noise in (0.0, 0.02, 0.05):
        a, b = rng.uniform(3, 20), rng.uniform(0.1, 0.4)
        compute = [10 ** rng.uniform(0.2, 4) for _ in range(8)]
        cases.append({"compute": compute, "loss": [a * c**-b * math.exp(rng.gauss(0, noise)) for c in compute]})
    return cases


def drive_law(answer, case):
    a, b = answer(case["compute"], case["loss"])
    return [float(a), float(b)]


def verify_law(case, data):
    a, b = power_law(case["compute"], case["loss"])
    log_compute, log_loss = ([math.log(x) for x in case[name]] for name in ("compute", "loss"))
    slope, intercept = line(case["compute"], case["loss"])
    swapped, crossing = line(log_loss, log_compute)
    half, level = line(log_compute, case["loss"])
    return differences(
        data,
        [a, b],
        {
            "the exponent has the wrong sign: L = a C^-b falls for a positive b": [a, -b],
            "a is still a logarithm: the intercept is ln a, so a = exp(intercept)": [math.log(a), b],
            "a is still a logarithm with base 10: a = 10 ** intercept": [math.log10(a), b],
            "logarithms are mixed: an intercept from log10 goes with 10 **, one from ln with exp": [
                math.exp(math.log10(a)), b
            ],
            "logarithms are mixed: an intercept from ln goes with exp, one from log10 with 10 **": [
                a ** math.log(10), b
            ],
            "a and b come in the wrong order: return (a, b)": [b, a],
            "a is a logarithm, and the exponent has the wrong sign": [math.log(a), -b],
            "fitted on linear axes: a power law is a line between log C and log L": [intercept, -slope],
            "fitted on linear axes, and the slope keeps its sign": [intercept, slope],
            "the axes are swapped: L is to be predicted from C, so regress log L on log C": [
                math.exp(crossing), -swapped
            ],
            "the axes are swapped, and a solves C = a L^-b": [math.exp(crossing), swapped],
            "only C is logarithmic: take the logarithm of L too": [level, -half],
            "only C is logarithmic, and a is exponentiated all the same: take the logarithm of L too": [
                math.exp(level), -half
            ],
            "log10 of C with the natural logarithm of L: use the same base on both axes": [a, b * math.log(10)],
            "the natural logarithm of C with log10 of L: use the same base on both axes": [
                math.exp(math.log10(a)), b / math.log(10)
            ],
        },
    )  # fmt: skip


EXERCISES = {
    "0.1": Exercise(likelihood_cases, drive_likelihood, verify_likelihood, points=2, reference=log_likelihood),
    "0.2": Exercise(perplexity_cases, drive_perplexity, verify_perplexity, points=2, reference=perplexity),
    "0.3": Exercise(draw_cases, drive_draw, verify_draw, points=3, reference=draw),
    "0.4": Exercise(
        flops_cases, lambda answer, case: float(answer(**case)), verify_flops, points=2, reference=training_flops
    ),
    "0.5": Exercise(law_cases, drive_law, verify_law, points=2, reference=power_law),
}
