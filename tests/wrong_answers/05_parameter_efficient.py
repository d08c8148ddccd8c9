"""Answers to lesson 05 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import torch
from torch.nn import functional

# 5.1 and 5.2, 5.5: one formula each ----------------------------------------------------------------------------------


def everything_trained(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, parameters * bytes_per_number, moments * parameters * bytes_per_number


def states_for_all(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, trained * bytes_per_number, moments * parameters * bytes_per_number


def gradients_for_all(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, parameters * bytes_per_number, moments * trained * bytes_per_number


def trained_weights_alone(parameters, trained, bytes_per_number, moments=2):
    return trained * bytes_per_number, trained * bytes_per_number, moments * trained * bytes_per_number


def one_moment(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, trained * bytes_per_number, trained * bytes_per_number


def two_moments(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, trained * bytes_per_number, 2 * trained * bytes_per_number


def numbers_alone(parameters, trained, bytes_per_number, moments=2):
    return parameters, trained, moments * trained


def four_bytes(parameters, trained, bytes_per_number, moments=2):
    return 4 * parameters, 4 * trained, 4 * moments * trained


def right_bytes(parameters, trained, bytes_per_number, moments=2):
    return [bytes_per_number * count for count in (parameters, trained, trained * moments)]


def counted_in_a_list(parameters, trained, bytes_per_number, moments=2):
    counts = [parameters, trained] + [0]
    for _ in range(moments):
        counts[2] += trained
    return [count * bytes_per_number for count in counts]


def activations(block=lambda width, inner: 10 * width + 4 * inner, rest=lambda width, words: 3 * width + words):
    """The right formula, but for what a block or the outside saves."""

    def answer(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
        return tokens * (blocks * block(width, inner) + rest(width, vocabulary)) * bytes_per_number

    return answer


def outside_per_block(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
    return tokens * blocks * (13 * width + 4 * inner + vocabulary) * bytes_per_number


def one_token(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
    return activations()(1, blocks, width, inner, vocabulary, bytes_per_number)


def activation_numbers(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
    return activations()(tokens, blocks, width, inner, vocabulary, 1)


def activations_of_four_bytes(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
    return activations()(tokens, blocks, width, inner, vocabulary)


def summed_up(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
    vectors = [width] * 3 + [vocabulary] + ([width] * 10 + [inner] * 4) * blocks
    return sum(tokens * bytes_per_number * length for length in vectors)


# 5.3 -----------------------------------------------------------------------------------------------------------------


def number(name):
    return int(name.split(".")[2]) if "layers" in name else -1


def blocks_where(keeps, norm=True):
    """The names that `keeps(name, first, k)` keeps, where first is the right first block."""

    def answer(names, k):
        first = max(number(name) for name in names) + 1 - k
        return [name for name in names if keeps(name, first, k) or (norm and name.startswith("model.norm"))]

    return answer


def compared_as_texts(names, k):
    numbers = sorted({name.split(".")[2] for name in names if "layers" in name})[-k:]
    return [name for name in names if str(number(name)) in numbers or name.startswith("model.norm")]


def by_position(names, k):
    inside = list(dict.fromkeys(".".join(name.split(".")[:3]) + "." for name in names if "layers" in name))[-k:]
    return [name for name in names if name.startswith((*inside, "model.norm."))]


# 5.4 -----------------------------------------------------------------------------------------------------------------


def bottleneck(bend=functional.gelu, outside=lambda x: x, around=1.0, down=1.0, up=1.0, sign=1.0):
    """The right adapter, but for one part."""

    def answer(y, D, d, U, u):
        return around * y + sign * outside(bend(y @ D.T + down * d) @ U.T + up * u)

    return answer


def with_linear(y, D, d, U, u):
    return functional.linear(functional.gelu(functional.linear(y, D, d)), U, u).add(y)


def with_einsum(y, D, d, U, u):
    hidden = torch.einsum("...w,sw->...s", y, D) + d
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return y + u + torch.einsum("...s,ws->...w", hidden, U)


# 5.6 -----------------------------------------------------------------------------------------------------------------

FEW = ["gradients", "optimizer"]
SAVES = {"last 1": [*FEW, "activations"], "BitFit": FEW, "adapters 8": FEW, "LoRA 8": FEW}

WRONG = {
    "5.1": [
        (everything_trained, "with parameters in the place of trained"),
        (states_for_all, "remembers frozen numbers"),
        (gradients_for_all, "frozen numbers have gradients"),
        (trained_weights_alone, "with trained in the place of parameters"),
        (one_moment, "one optimizer state per number"),
        (two_moments, "two moments always"),
        (numbers_alone, "not bytes"),
        (four_bytes, "4 bytes always"),
        (lambda *given: right_bytes(*given)[::-1], "order is another"),
        (lambda *given: sum(right_bytes(*given)), "expected a tuple"),
        (lambda *given: [size / 1e9 for size in right_bytes(*given)], "gigabytes"),
        (lambda *given: [8 * size for size in right_bytes(*given)], "these are bits"),
        (lambda *given: right_bytes(*given)[:2], "2 parts, expected 3"),
    ],
    "5.2": [
        (outside_per_block, "once per block"),
        (one_token, "as if tokens were 1"),
        (activations(rest=lambda width, words: 3 * width), "as if vocabulary were 0"),
        (activations(rest=lambda width, words: words), "3 vectors outside"),
        (activations(rest=lambda width, words: 0), "nothing outside"),
        (activations(block=lambda width, inner: 10 * width), "as if inner were 0"),
        (activations(block=lambda width, inner: 14 * width), "counted with the width"),
        (activations(block=lambda width, inner: 4 * width + 10 * inner), "swapped"),
        (activation_numbers, "not bytes"),
        (activations_of_four_bytes, "4 bytes always"),
        (activations(rest=lambda width, words: 3 * (width + words)), "3 vectors of the vocabulary"),
        (activations(rest=lambda width, words: width + words), "one vector of the width"),
        (lambda *given: activations()(*given) / 1e6, "megabytes"),
        (lambda tokens, *given: tokens * activations()(tokens, *given), "tokens"),
    ],
    "5.3": [
        (blocks_where(lambda name, first, k: number(name) >= first, norm=False), "model.norm, is missing"),
        (blocks_where(lambda name, first, k: 0 <= number(name) < k), "first k blocks"),
        (blocks_where(lambda name, first, k: number(name) >= max(first - 1, 0)), "one block too many"),
        (blocks_where(lambda name, first, k: number(name) > first), "one block too few"),
        (blocks_where(lambda name, first, k: number(name) >= first or "embed" in name), "embeddings are trained"),
        (blocks_where(lambda name, first, k: number(name) >= first or "lm_head" in name), "head is trained"),
        (blocks_where(lambda name, first, k: number(name) == first), "only block number"),
        (blocks_where(lambda name, first, k: number(name) >= first or "norm" in name), "lower blocks"),
        (compared_as_texts, "compared as texts"),
        (blocks_where(lambda name, first, k: number(name) >= first or number(name) < 0), "embeddings and head"),
        (blocks_where(lambda name, first, k: number(name) == first + k - 1), "only the last block"),
        (blocks_where(lambda name, first, k: number(name) >= first and "norm" not in name), "norms of these blocks"),
        (lambda names, k: names[-k:], "number of names"),
        (lambda names, k: set(by_position(names, k)), "order or number is not"),
    ],
    "5.4": [
        (bottleneck(around=0.0), "y itself is missing"),
        (bottleneck(around=2.0), "added twice"),
        (bottleneck(bend=lambda x: x), "nothing bends"),
        (bottleneck(bend=torch.relu), "relu instead"),
        (bottleneck(bend=torch.tanh), "tanh instead"),
        (bottleneck(down=0.0), "as if d were 0"),
        (bottleneck(up=0.0), "as if u were 0"),
        (bottleneck(bend=lambda x: x, outside=functional.gelu), "behind U"),
        (bottleneck(outside=functional.gelu), "gelu stands twice"),
        (bottleneck(sign=-1.0), "sign is turned"),
        (bottleneck(bend=functional.silu), "silu instead"),
        (bottleneck(bend=lambda x: functional.gelu(x, approximate="tanh")), "approximation by tanh"),
        (bottleneck(down=-1.0), "d with its sign turned"),
        (lambda y, D, d, U, u: bottleneck()(y.detach(), D, d, U, u) + 0 * y, "its gradient by y is not"),
        (lambda *given: bottleneck()(*given).tolist(), "only a tensor carries a gradient"),
        (lambda y, D, d, U, u: bottleneck()(y, D.detach(), d, U, u), "no gradient reaches D"),
    ],
    "5.5": [
        (lambda blocks, width, size: blocks * (2 * width * size + size + width), "one adapter per block"),
        (lambda blocks, width, size: 2 * (2 * width * size + size + width), "as if blocks were 1"),
        (lambda blocks, width, size: 4 * blocks * width * size, "biases are missing"),
        (lambda blocks, width, size: 2 * blocks * (width * size + size + width), "one matrix alone"),
        (lambda blocks, width, size: 4 * blocks * (width * size + size), "size of the bottleneck"),
        (lambda blocks, width, size: 4 * blocks * (width * size + width), "width of the model"),
        (lambda blocks, width, size: 2 * blocks * width * size, "and no biases"),
        (lambda blocks, width, size: 2 * blocks * (2 * width * size + 2), "each bias is one number"),
        (lambda blocks, width, size: 4 * blocks * width * size + size + width, "for both adapters"),
        (lambda blocks, width, size: 8 * blocks * (2 * width * size + size + width), "these are bytes"),
    ],
    "5.6": [
        (SAVES | {"BitFit": [*FEW, "activations"]}, "runs through all activations"),
        (SAVES | {"last 1": FEW}, "nothing is saved there"),
        (SAVES | {"LoRA 8": ["gradients"]}, "optimizer are kept for trained"),
        (SAVES | {"adapters 8": ["weights", *FEW]}, "frozen weights are stored"),
        (SAVES | {"BitFit": ["time"]}, "is not one of"),
        ({"BitFit": FEW}, "a dict with the keys"),
        (SAVES | {"BitFit": "gradients"}, "a list of costs"),
    ],
}  # fmt: skip
RIGHT = {
    "5.1": [counted_in_a_list],
    "5.2": [summed_up],
    "5.3": [by_position, lambda names, k: tuple(by_position(names, k))],
    "5.4": [with_linear, with_einsum],
    "5.5": [lambda blocks, width, size: 2 * blocks * (size * (width + 1) + width * (size + 1))],
    "5.6": [
        {name: tuple(f" {cost} " for cost in costs) for name, costs in SAVES.items()},
        {name: [cost.title() for cost in reversed(costs)] for name, costs in SAVES.items()},
    ],
}
