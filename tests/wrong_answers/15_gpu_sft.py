"""Answers to lesson 15 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import torch

# 15.1 ----------------------------------------------------------------------------------------------------------------


def used(trained=6, frozen=4, attention=6, of=lambda speed, work, rate: speed * work / rate):
    """The right formula, but for its factors."""

    def answer(tokens_per_second, trained_, frozen_, layers, width, length, rate):
        work = trained * trained_ + frozen * frozen_ + attention * layers * width * length
        return of(tokens_per_second, work, rate)

    return answer


def without_length(tokens_per_second, trained, frozen, layers, width, length, rate):
    return tokens_per_second * (6 * trained + 4 * frozen + 6 * layers * width) / rate


def per_row(tokens_per_second, trained, frozen, layers, width, length, rate):
    return used()(tokens_per_second, trained, frozen, layers, width, length, rate) * length


def in_passes(tokens_per_second, trained, frozen, layers, width, length, rate):
    forward = 2 * (trained + frozen) + 2 * layers * width * length
    through = 2 * (trained + frozen) + 4 * layers * width * length
    return (forward + through + 2 * trained) / (rate / tokens_per_second)


# 15.2 ----------------------------------------------------------------------------------------------------------------


def divided(weights=4, states=12, gathered=2):
    """The right formula, but for its bytes."""

    def answer(parameters, trained, processes, layer=0):
        return (weights * parameters + states * trained) / processes + gathered * layer

    return answer


def as_zero_2(parameters, trained, processes, layer=0):
    return 4 * parameters + 12 * trained / processes + 2 * layer


def as_ddp(parameters, trained, processes, layer=0):
    return 4 * parameters + 12 * trained + 2 * layer


def layer_divided(parameters, trained, processes, layer=0):
    return (4 * parameters + 12 * trained + 2 * layer) / processes


def all_trained(parameters, trained, processes, layer=0):
    return 16 * parameters / processes + 2 * layer


def times_processes(parameters, trained, processes, layer=0):
    return (4 * parameters + 12 * trained) * processes + 2 * layer


def one_by_one(parameters, trained, processes, layer=0):
    total = 0.0
    for count, kinds in ((parameters, 1), (trained, 3)):
        total += kinds * count * 4 / processes
    return total + layer + layer


# 15.3 ----------------------------------------------------------------------------------------------------------------


def surviving(weights, updates):
    stored = weights.bfloat16()
    return ((stored.float() + updates).bfloat16() != stored).float().mean()


def counted(weights, updates):
    stored = weights.bfloat16()
    return ((stored.float() + updates).bfloat16() == stored).sum()


def not_rounded_after(weights, updates):
    stored = weights.bfloat16().float()
    return (stored + updates == stored).float().mean()


def never_rounded(weights, updates):
    return (weights + updates == weights).float().mean()


def weight_not_rounded(weights, updates):
    return ((weights + updates).bfloat16() == weights.bfloat16()).float().mean()


def update_rounded(weights, updates):
    stored = weights.bfloat16()
    return (stored + updates.bfloat16() == stored).float().mean()


def subtracted(weights, updates):
    stored = weights.bfloat16()
    return ((stored.float() - updates).bfloat16() == stored).float().mean()


def by_size(weights, updates):
    return (updates.abs() < weights.abs() * 2**-8).float().mean()


def against_the_weight(weights, updates):
    return ((weights.bfloat16().float() + updates).bfloat16().float() == weights).float().mean()


def in_float16(weights, updates):
    return ((weights.half().float() + updates).half() == weights.half()).float().mean()


def with_a_loop(weights, updates):
    lost = 0
    for weight, update in zip(weights, updates):
        before = weight.to(torch.bfloat16)
        lost += int((before.to(torch.float32) + update).to(torch.bfloat16) == before)
    return lost / len(weights)


def by_difference(weights, updates):
    stored = weights.to(torch.bfloat16)
    moved = (stored.float() + updates).to(torch.bfloat16) - stored
    return 1 - torch.count_nonzero(moved) / moved.numel()


# 15.4 ----------------------------------------------------------------------------------------------------------------


def losses(of):
    """A list of whatever is made of the sum of the response log-probabilities, their count, and the rest."""

    def answer(pieces, tokens, processes=1):
        return [
            of(torch.where(mask, logprobs, 0.0).sum(), mask.sum().clamp(min=1), len(pieces), tokens, processes)
            for logprobs, mask in pieces
        ]

    return answer


def own_tokens(pieces, tokens, processes=1):
    return losses(lambda total, *_: -total / sum(int(mask.sum()) for _, mask in pieces))(pieces, tokens)


def mask_ignored(pieces, tokens, processes=1):
    return [-logprobs.sum() * processes / tokens for logprobs, mask in pieces]


def multiplied_away(pieces, tokens, processes=1):
    return [-(logprobs * mask).sum() * processes / tokens for logprobs, mask in pieces]


def chosen(pieces, tokens, processes=1):
    return [-logprobs[mask].sum() / (tokens / processes) for logprobs, mask in pieces]


def by_weights(pieces, tokens, processes=1):
    found = []
    for logprobs, mask in pieces:
        filled = logprobs.masked_fill(~mask, 0)
        found.append(torch.einsum("bt,bt->", filled, -mask.float() * (processes / tokens)))
    return found


WRONG = {
    "15.1": [
        (used(frozen=6), "frozen matrices count 6"),
        (used(frozen=2), "frozen matrices count 2"),
        (used(frozen=0), "frozen matrices count nothing"),
        (used(trained=4), "trained matrices count 4"),
        (used(attention=0), "attention is missing"),
        (used(attention=12), "half of it"),
        (used(attention=2), "forward pass of the attention alone"),
        (used(of=lambda speed, work, rate: rate / (speed * work)), "upside down"),
        (used(of=lambda speed, work, rate: 100 * speed * work / rate), "percent"),
        (without_length, "attention without the length"),
        (per_row, "multiplied by the length"),
    ],
    "15.2": [
        (as_zero_2, "ZeRO-2"),
        (as_ddp, "DDP"),
        (layer_divided, "gathered layer is shared out too"),
        (all_trained, "frozen numbers have gradients"),
        (divided(states=8), "8 bytes for a trained number"),
        (times_processes, "times the processes"),
        (divided(states=4), "moments are missing"),
        (divided(gathered=4), "gathered layer in float32"),
        (divided(gathered=0), "gathered layer is missing"),
        (divided(weights=2), "weights in bfloat16"),
    ],
    "15.3": [
        (surviving, "share that survives"),
        (counted, "a number, not a share"),
        (not_rounded_after, "sum is not rounded"),
        (never_rounded, "sum is not rounded"),
        (weight_not_rounded, "the weight is not rounded"),
        (update_rounded, "the update is rounded"),
        (subtracted, "subtracted"),
        (by_size, "a share of the weight"),
        (against_the_weight, "compare with what was stored"),
        (in_float16, "float16"),
    ],
    "15.4": [
        (losses(lambda total, count, n, tokens, k: -total * k / count), "mean of each piece"),
        (losses(lambda total, count, n, tokens, k: -total / count / n), "mean of the pieces' means"),
        (losses(lambda total, count, n, tokens, k: -total * k / tokens / n), "number of pieces as well"),
        (losses(lambda total, count, n, tokens, k: -total / tokens), "`processes` is missing"),
        (losses(lambda total, count, n, tokens, k: -total / k / tokens), "divided by `processes`"),
        (losses(lambda total, count, n, tokens, k: total * k / tokens), "sign"),
        (losses(lambda total, count, n, tokens, k: -total.detach() * k / tokens), "no gradient"),
        (own_tokens, "of this process's pieces"),
        (mask_ignored, "mask is ignored"),
        (multiplied_away, "not a number"),
    ],
}
RIGHT = {
    "15.1": [in_passes],
    "15.2": [one_by_one],
    "15.3": [with_a_loop, by_difference],
    "15.4": [chosen, by_weights],
}
