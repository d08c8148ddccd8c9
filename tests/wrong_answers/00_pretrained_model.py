"""Typical wrong answers of lesson 00, each with words of its diagnosis, and right answers written differently."""

import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy


def scored(logits, tokens):
    return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


def not_shifted(logits, tokens, mask):
    return (scored(logits, tokens) * mask).sum(1)


def shifted_backwards(logits, tokens, mask):
    return (scored(logits[:, 1:], tokens[:, :-1]) * mask[:, 1:]).sum(1)


def with_padding(logits, tokens, mask):
    return scored(logits[:, :-1], tokens[:, 1:]).sum(1)


def probabilities_added(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]).exp() * mask[:, 1:]).sum(1)


def likelihood(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).sum(1).exp()


def raw_logits(logits, tokens, mask):
    return (logits[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1) * mask[:, 1:]).sum(1)


def negative(logits, tokens, mask):
    return -(scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).sum(1)


def mean_per_token(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)


def by_cross_entropy(logits, tokens, mask):
    rows = []
    for row, ids, kept in zip(logits, tokens, mask):
        length = int(kept.sum())
        rows.append(-cross_entropy(row[: length - 1], ids[1:length], reduction="sum"))
    return torch.stack(rows)


def mean_of_perplexities(logprobs, mask):
    return (-(logprobs * mask).sum(1) / mask.sum(1)).exp().mean()


def mean_over_texts(logprobs, mask):
    return (-(logprobs * mask).sum(1) / mask.sum(1)).mean().exp()


def padding_counted(logprobs, mask):
    return (-logprobs.mean()).exp()


def per_text(logprobs, mask):
    return (-(logprobs * mask).sum(1).mean()).exp()


def power_of_two(logprobs, mask):
    return 2 ** -logprobs[mask].mean()


def without_the_sign(logprobs, mask):
    return logprobs[mask].mean().exp()


def loss(logprobs, mask):
    return -logprobs[mask].mean()


def in_bits(logprobs, mask):
    return 2 ** (-(logprobs * mask).sum() / math.log(2) / mask.sum())


def as_root(logprobs, mask):
    return float(np.prod(np.exp(-logprobs[mask].numpy()) ** (1 / int(mask.sum()))))


def greedy(logits, temperature, uniform):
    return logits.argmax(-1)


def temperature_multiplied(logits, temperature, uniform):
    return ((logits * temperature).softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1)


def temperature_ignored(logits, temperature, uniform):
    return (logits.softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1)


def one_too_far(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1) + 1


def one_too_early(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1) - 1


def no_running_sum(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1) <= uniform[:, None]).sum(-1)


def first_larger_probability(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1) > uniform[:, None]).int().argmax(-1)


def temperature_on_probabilities(logits, temperature, uniform):
    return ((logits.softmax(-1) / temperature).cumsum(-1) <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def by_search(logits, temperature, uniform):
    cumulative = np.exp((logits / temperature).log_softmax(-1).numpy()).cumsum(-1)
    return torch.tensor([np.searchsorted(row, u, side="right") for row, u in zip(cumulative, uniform.numpy())])


def by_subtraction(logits, temperature, uniform):
    tokens = []
    for row, rest in zip((logits / temperature).softmax(-1).tolist(), uniform.tolist()):
        token = 0
        while rest >= row[token]:
            rest, token = rest - row[token], token + 1
        tokens.append(token)
    return torch.tensor(tokens)


def two_per_parameter(parameters, layers, width, context, tokens):
    return 2 * parameters * tokens


def forward_alone(parameters, layers, width, context, tokens):
    return (2 * parameters + 2 * layers * width * (context + 1)) * tokens


def without_attention(parameters, layers, width, context, tokens):
    return 6 * parameters * tokens


def attention_over_all(parameters, layers, width, context, tokens):
    return (6 * parameters + 12 * layers * width * context) * tokens


def attention_not_halved(parameters, layers, width, context, tokens):
    return (6 * parameters + 12 * layers * width * (context + 1)) * tokens


def one_layer(parameters, layers, width, context, tokens):
    return (6 * parameters + 6 * width * (context + 1)) * tokens


def for_one_token(parameters, layers, width, context, tokens):
    return 6 * parameters + 6 * layers * width * (context + 1)


def attention_forwards(parameters, layers, width, context, tokens):
    return (6 * parameters + 2 * layers * width * (context + 1)) * tokens


def position_by_position(parameters, layers, width, context, tokens):
    visible = sum(range(1, context + 1)) / context
    multiplications = parameters + 2 * layers * width * visible
    forward = 2 * multiplications * tokens
    return forward + 2 * forward


def fit(x, y):
    slope, intercept = np.polyfit(x, y, 1)
    return slope, intercept


def positive_exponent(compute, loss):
    slope, intercept = fit(np.log(compute), np.log(loss))
    return np.exp(intercept), slope


def a_is_a_logarithm(compute, loss):
    slope, intercept = fit(np.log(compute), np.log(loss))
    return intercept, -slope


def a_is_log10(compute, loss):
    slope, intercept = fit(np.log10(compute), np.log10(loss))
    return intercept, -slope


def mixed_logarithms(compute, loss):
    slope, intercept = fit(np.log10(compute), np.log10(loss))
    return np.exp(intercept), -slope


def mixed_the_other_way(compute, loss):
    slope, intercept = fit(np.log(compute), np.log(loss))
    return 10**intercept, -slope


def linear_axes(compute, loss):
    slope, intercept = fit(np.array(compute), np.array(loss))
    return intercept, -slope


def swapped_axes(compute, loss):
    slope, intercept = fit(np.log(loss), np.log(compute))
    return np.exp(intercept), -slope


def half_logarithmic(compute, loss):
    slope, intercept = fit(np.log(compute), np.array(loss))
    return intercept, -slope


def swapped_results(compute, loss):
    slope, intercept = fit(np.log(compute), np.log(loss))
    return -slope, np.exp(intercept)


def two_bases(compute, loss):
    slope, intercept = fit(np.log10(compute), np.log(loss))
    return np.exp(intercept), -slope


def base_ten(compute, loss):
    slope, intercept = fit(np.log10(compute), np.log10(loss))
    return 10**intercept, -slope


def normal_equations(compute, loss):
    x = torch.tensor(compute, dtype=torch.float64).log2()
    design = torch.stack([torch.ones_like(x), x], 1)
    solution = torch.linalg.lstsq(design, torch.tensor(loss, dtype=torch.float64).log2()[:, None]).solution
    return 2 ** float(solution[0]), -float(solution[1])


# written after the checks ---------------------------------------------------------------------------------------------


def mean_over_the_batch_length(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).mean(1)


def mask_not_moved(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]) * mask[:, :-1]).sum(1)


def summed_over_the_batch(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).sum()


def not_summed(logits, tokens, mask):
    return scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]


def softmax_over_time(logits, tokens, mask):
    return (logits[:, :-1].log_softmax(1).gather(-1, tokens[:, 1:, None])[..., 0] * mask[:, 1:]).sum(1)


def favourite(logits, tokens, mask):
    return (logits[:, :-1].log_softmax(-1).max(-1).values * mask[:, 1:]).sum(1)


def zero_is_padding(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]) * (tokens[:, 1:] != 0)).sum(1)


def naive_exponentials(logits, tokens, mask):
    odds = logits.exp()
    chosen = (odds / odds.sum(-1, keepdim=True))[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return (chosen.log() * mask[:, 1:]).sum(1)


def product_with_padding(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]).exp() * mask[:, 1:]).prod(1).log()


def everything_turned(logits, tokens, mask):
    return -scored(logits[:, :-1], tokens[:, 1:]).sum(1)


def tokens_overwritten(logits, tokens, mask):
    tokens[~mask] = 0
    return (scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).sum(1)


def as_a_list(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).sum(1).tolist()


def token_by_token(logits, tokens, mask):
    totals = torch.zeros(len(logits), dtype=logits.dtype)
    for b in range(len(logits)):
        for t in range(1, tokens.shape[1]):
            if mask[b, t]:
                totals[b] += logits[b, t - 1, tokens[b, t]] - logits[b, t - 1].logsumexp(0)
    return totals


def by_einsum(logits, tokens, mask):
    chosen = torch.nn.functional.one_hot(tokens[:, 1:], logits.shape[-1]).to(logits)
    return torch.einsum("btv,btv,bt->b", logits[:, :-1].log_softmax(-1), chosen, mask[:, 1:].to(logits))


def by_distribution(logits, tokens, mask):
    return (torch.distributions.Categorical(logits=logits[:, :-1]).log_prob(tokens[:, 1:]) * mask[:, 1:]).sum(-1)


def divided_by_steps(logprobs, mask):
    return (-(logprobs * mask).sum() / logprobs.shape[1]).exp()


def sample_correction(logprobs, mask):
    return (-logprobs[mask].sum() / (mask.sum() - 1)).exp()


def power_of_ten(logprobs, mask):
    return 10 ** -logprobs[mask].mean()


def one_per_text(logprobs, mask):
    return (-(logprobs * mask).sum(1) / mask.sum(1)).exp()


def padding_and_sign(logprobs, mask):
    return logprobs.mean().exp()


def first_token_dropped(logprobs, mask):
    return (-(logprobs * mask)[:, 1:].sum() / mask[:, 1:].sum()).exp()


def overwritten(logprobs, mask):
    logprobs[~mask] = 0
    return (-logprobs.sum() / mask.sum()).exp()


def by_loops(logprobs, mask):
    kept = [x for row, acted in zip(logprobs.tolist(), mask.tolist()) for x, here in zip(row, acted) if here]
    return math.exp(-math.fsum(kept) / len(kept))


def by_average(logprobs, mask):
    return np.exp(-np.average(logprobs.numpy(), weights=mask.numpy()))


def below_alone(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) < uniform[:, None]).sum(-1)


def above(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) > uniform[:, None]).sum(-1)


def among_sorted(logits, temperature, uniform):
    cumulative = (logits / temperature).softmax(-1).sort(-1, descending=True).values.cumsum(-1)
    return (cumulative <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def likely_first(logits, temperature, uniform):
    probabilities, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    return order.gather(-1, (probabilities.cumsum(-1) <= uniform[:, None]).sum(-1, keepdim=True))[:, 0]


def first_uniform_for_all(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) <= uniform[0]).sum(-1)


def softmax_over_rows(logits, temperature, uniform):
    borders = (logits / temperature).softmax(0).cumsum(-1)
    return (borders <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def no_softmax(logits, temperature, uniform):
    return ((logits / temperature).cumsum(-1) <= uniform[:, None]).sum(-1)


def as_floats(logits, temperature, uniform):
    return by_counting(logits, temperature, uniform).double()


def as_list(logits, temperature, uniform):
    return by_counting(logits, temperature, uniform).tolist()


def logits_divided_in_place(logits, temperature, uniform):
    logits /= temperature
    return by_counting(logits, 1.0, uniform)


def by_counting(logits, temperature, uniform):
    probabilities = (logits / temperature - (logits / temperature).logsumexp(-1, keepdim=True)).exp()
    return (probabilities.cumsum(-1) <= uniform[:, None]).long().sum(-1)


def by_searchsorted(logits, temperature, uniform):
    borders = (logits / temperature).softmax(-1).cumsum(-1)
    return torch.searchsorted(borders, uniform[:, None], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def half_positions(parameters, layers, width, context, tokens):
    return (6 * parameters + 6 * layers * width * context) * tokens


def whole_division(parameters, layers, width, context, tokens):
    return (6 * parameters + 12 * layers * width * ((context + 1) // 2)) * tokens


def width_squared(parameters, layers, width, context, tokens):
    return (6 * parameters + 6 * layers * width**2 * (context + 1)) * tokens


def tokens_once(parameters, layers, width, context, tokens):
    return 6 * parameters + 6 * layers * width * (context + 1) * tokens


def forward_over_all(parameters, layers, width, context, tokens):
    return (2 * parameters + 4 * layers * width * context) * tokens


def in_giga(parameters, layers, width, context, tokens):
    return (6 * parameters + 6 * layers * width * (context + 1)) * tokens / 1e9


def in_floats(parameters, layers, width, context, tokens):
    return np.float64(tokens) * (2.0 * parameters + 2.0 * layers * width * (context + 1)) * 3


def results_of_polyfit_exchanged(compute, loss):
    intercept, slope = fit(np.log(compute), np.log(loss))
    return np.exp(intercept), -slope


def from_the_ends(compute, loss):
    b = math.log(loss[0] / loss[-1]) / math.log(compute[-1] / compute[0])
    return loss[0] * compute[0] ** b, b


def intercept_turned(compute, loss):
    slope, intercept = fit(np.log(compute), np.log(loss))
    return np.exp(-intercept), -slope


def mixed_with_log2(compute, loss):
    slope, intercept = fit(np.log2(compute), np.log2(loss))
    return np.exp(intercept), -slope


def through_the_origin(compute, loss):
    x, y = np.log(compute), np.log(loss)
    return 1.0, -(x * y).sum() / (x * x).sum()


def exponent_alone(compute, loss):
    return -fit(np.log(compute), np.log(loss))[0]


def rounded(compute, loss):
    slope, intercept = fit(np.log(compute), np.log(loss))
    return round(math.exp(intercept), 2), round(-slope, 2)


def as_an_array(compute, loss):
    slope, intercept = fit(np.log(compute), np.log(loss))
    return np.array([np.exp(intercept), -slope])


WRONG = {
    "0.1": [
        (not_shifted, "no shift"),
        (shifted_backwards, "shifted the wrong way"),
        (with_padding, "as if mask were True everywhere"),
        (probabilities_added, "with softmax in the place of log_softmax"),
        (likelihood, "under an exponential"),
        (raw_logits, "without a softmax"),
        (negative, "sign"),
        (mean_per_token, "mean per token"),
        (mean_over_the_batch_length, "divided by T - 1"),
        (mask_not_moved, "mask[:, :-1]"),
        (summed_over_the_batch, "summed over rows"),
        (not_summed, "before it is summed"),
        (softmax_over_time, "over the time steps"),
        (favourite, "favourite token"),
        (zero_is_padding, "token 0 is taken for padding"),
        (naive_exponentials, "overflow"),
        (product_with_padding, "padding gets the probability 0"),
        (everything_turned, "with the sign turned"),
        (tokens_overwritten, "tokens was changed in place"),
        (as_a_list, "is a list, expected a tensor of floats"),
    ],
    "0.2": [
        (mean_of_perplexities, "mean of the texts' perplexities"),
        (mean_over_texts, "every text counts the same"),
        (padding_counted, "padding is counted"),
        (per_text, "divided by the number of texts"),
        (power_of_two, "2 to the power of nats"),
        (without_the_sign, "turned upside down, 1 / x"),
        (loss, "this is the loss"),
        (divided_by_steps, "its logarithm is times"),
        (sample_correction, "its logarithm is times"),
        (power_of_ten, "its logarithm is times"),
        (one_per_text, "one number per text"),
        (padding_and_sign, "as if mask were True everywhere"),
        (first_token_dropped, "without the first True"),
        (overwritten, "logprobs was changed in place"),
    ],
    "0.3": [
        (greedy, "argmax"),
        (temperature_multiplied, "temperature is multiplied"),
        (temperature_ignored, "as if temperature were 1"),
        (one_too_far, "with 1 added"),
        (one_too_early, "with 1 subtracted"),
        (no_running_sum, "not with their running sum"),
        (first_larger_probability, "(CDF)"),
        (temperature_on_probabilities, "no longer sum to 1"),
        (below_alone, "a token of probability 0"),
        (above, "counts the borders above"),
        (among_sorted, "among the sorted"),
        (likely_first, "sorted by probability first"),
        (first_uniform_for_all, "uniform with the first of rows"),
        (softmax_over_rows, "softmax runs over the rows"),
        (no_softmax, "raw logits"),
        (as_floats, "a tensor of floats, expected a tensor of ints"),
        (as_list, "is a list, expected a tensor of ints"),
        (logits_divided_in_place, "logits was changed in place"),
    ],
    "0.4": [
        (two_per_parameter, "2 P D"),
        (forward_alone, "the forward pass alone: the backward"),
        (without_attention, "attention is missing: add"),
        (attention_over_all, "all T positions"),
        (attention_not_halved, "counts (T + 1) positions"),
        (one_layer, "as if layers were 1"),
        (for_one_token, "as if tokens were 1"),
        (attention_forwards, "attention is counted forwards only"),
        (half_positions, "T / 2 positions"),
        (whole_division, "whole positions"),
        (width_squared, "width squared"),
        (tokens_once, "only attention is multiplied"),
        (forward_over_all, "the forward pass alone; and attention looks at all T"),
        (in_giga, "divided by 10^9"),
    ],
    "0.5": [
        (positive_exponent, "wrong sign"),
        (a_is_a_logarithm, "a is still a logarithm: "),
        (a_is_log10, "base 10"),
        (mixed_logarithms, "an intercept from log10 goes with"),
        (mixed_the_other_way, "an intercept from ln goes with"),
        (linear_axes, "linear axes"),
        (swapped_axes, "the axes are swapped"),
        (half_logarithmic, "only C is logarithmic"),
        (swapped_results, "wrong order"),
        (two_bases, "same base"),
        (results_of_polyfit_exchanged, "slope and intercept are exchanged"),
        (from_the_ends, "first and the last point"),
        (intercept_turned, "turned upside down, 1 / x"),
        (mixed_with_log2, "from log2 goes with"),
        (through_the_origin, "it has an intercept"),
        (exponent_alone, "expected a tuple"),
        (rounded, "rounded to 2 digits"),
    ],
}
RIGHT = {
    "0.1": [by_cross_entropy, token_by_token, by_einsum, by_distribution],
    "0.2": [in_bits, as_root, by_loops, by_average],
    "0.3": [by_search, by_subtraction, by_counting, by_searchsorted],
    "0.4": [position_by_position, in_floats],
    "0.5": [base_ten, normal_equations, as_an_array],
}
