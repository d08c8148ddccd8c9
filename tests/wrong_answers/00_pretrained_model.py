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


WRONG = {
    "0.1": [
        (not_shifted, "no shift"),
        (shifted_backwards, "shifted the wrong way"),
        (with_padding, "padding is scored"),
        (probabilities_added, "probabilities are added"),
        (likelihood, "not its logarithm"),
        (raw_logits, "raw logits"),
        (negative, "sign"),
        (mean_per_token, "mean per token"),
    ],
    "0.2": [
        (mean_of_perplexities, "mean of the texts' perplexities"),
        (mean_over_texts, "every text counts the same"),
        (padding_counted, "padding is counted"),
        (per_text, "divided by the number of texts"),
        (power_of_two, "2 to the power of nats"),
        (without_the_sign, "the sign is missing"),
        (loss, "this is the loss"),
    ],
    "0.3": [
        (greedy, "argmax"),
        (temperature_multiplied, "temperature is multiplied"),
        (temperature_ignored, "temperature is ignored"),
        (one_too_far, "off by one upwards"),
        (one_too_early, "off by one downwards"),
        (no_running_sum, "not with their running sum"),
        (first_larger_probability, "(CDF)"),
        (temperature_on_probabilities, "no longer sum to 1"),
    ],
    "0.4": [
        (two_per_parameter, "2 P D"),
        (forward_alone, "the forward pass alone: the backward"),
        (without_attention, "attention is missing: add"),
        (attention_over_all, "all T positions"),
        (attention_not_halved, "counts (T + 1) positions"),
        (one_layer, "one layer only"),
        (for_one_token, "for one token"),
        (attention_forwards, "attention is counted forwards only"),
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
    ],
}
RIGHT = {
    "0.1": [by_cross_entropy],
    "0.2": [in_bits, as_root],
    "0.3": [by_search, by_subtraction],
    "0.4": [position_by_position],
    "0.5": [base_ten, normal_equations],
}
