"""Lesson 15: utilization, bytes of a divided model, updates lost in bfloat16, losses of the pieces of a batch.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import struct

from ptlearn.course.cases import masks, rows
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise

# 15.1 Utilization ----------------------------------------------------------------------------------------------------


def utilization(tokens_per_second, trained, frozen, layers, width, length, rate):
    """Useful operations per second over those that the device can do."""
    return tokens_per_second * (6 * trained + 4 * frozen + 6 * layers * width * length) / rate


def drive_arguments(answer, case):
    return answer(*case["arguments"])


def utilization_cases(rng):
    """All trained, hardly any, and attention that outweighs the matrices."""
    cases = []
    for trained, frozen, length in ((9e5, 0, 64), (2e4, 9e5, 64), (3e5, 4e5, 4000), (5e5, 5e5, 1)):
        layers, width = rng.randint(3, 9), rng.randint(50, 90)
        speed, rate = rng.randint(2000, 9000), rng.randint(60, 90) * 1e9
        cases.append({"arguments": [speed, int(trained), int(frozen), layers, width, length, rate]})
    return cases


def expect_utilization(case):
    speed, trained, frozen, layers, width, length, rate = case["arguments"]
    attention = 6 * layers * width * length

    def answer(per_token):
        return speed * per_token / rate

    work = 6 * trained + 4 * frozen + attention
    mistakes = {
        "frozen matrices count 6: they need no gradient of their own, so 4": answer(work + 2 * frozen),
        "frozen matrices count 2: the gradient of their input has to pass through them, so 4":
            answer(work - 2 * frozen),
        "frozen matrices count nothing: they compute forwards and pass gradients back, so 4":
            answer(work - 4 * frozen),
        "trained matrices count 4: their own gradient is the third product, so 6": answer(work - 2 * trained),
        "trained matrices count 2: that is the forward pass alone": answer(work - 4 * trained),
        "the attention is missing": answer(work - attention),
        "attention over the whole row: on average a token sees half of it, so 6 and not 12": answer(work + attention),
        "the forward pass of the attention alone: 6 with the backward pass": answer(work - attention * 2 / 3),
        "half of the attention: 6 counts already that a token sees half of the row": answer(work - attention / 2),
        "6 for every number, and no attention: frozen matrices count 4, and attention 6 · layers · width · length":
            answer(6 * (trained + frozen)),
        "the forward pass is counted twice: MFU counts useful work, not what checkpointing repeats":
            answer(work + 2 * (trained + frozen) + attention / 3),
        "attention of one layer: there are `layers` of them": answer(work - attention + 6 * width * length),
        "attention without the length: each token looks at those before it":
            answer(work - attention + 6 * layers * width),
        "multiplied by the length: tokens per second count every token already": answer(work * length),
        "upside down: what was done stands above, what the device can do below": rate / (speed * work),
        "in percent: a share is between 0 and 1": 100 * answer(work),
        "tokens_per_second is missing": work / rate,
        "rate is missing: these are operations per second": speed * work,
    }  # fmt: skip
    return answer(work), mistakes


# 15.2 A divided model ------------------------------------------------------------------------------------------------


def bytes_per_gpu(parameters, trained, processes, layer=0):
    """Float32 weights, gradients and moments, shared out; one layer whole in bfloat16."""
    return (4 * parameters + 12 * trained) / processes + 2 * layer


def divided_cases(rng):
    """LoRA and full, on one and many; once no layer is given."""
    cases = []
    for share, processes, given in ((0.01, 8, True), (1, 3, True), (0.2, 1, True), (0.3, 5, False)):
        parameters = rng.randint(500, 900) * 1000
        layer = [rng.randint(10, 40) * 1000] if given else []
        cases.append({"arguments": [parameters, int(share * parameters), processes, *layer]})
    return cases


def expect_divided(case):
    parameters, trained, n, layer = [*case["arguments"], 0][:4]
    gathered = 2 * layer
    mistakes = {
        "the gathered layer is shared out too: while it computes, it is whole on every GPU":
            (4 * parameters + 12 * trained + gathered) / n,
        "the gathered layer is missing": (4 * parameters + 12 * trained) / n,
        "the gathered layer in float32: it is gathered in bfloat16, 2 bytes a number":
            (4 * parameters + 12 * trained) / n + 4 * layer,
        "weights are not shared out: that is ZeRO-2; FSDP divides them as well":
            4 * parameters + 12 * trained / n + gathered,
        "weights and gradients are not shared out: that is ZeRO-1; FSDP divides all four":
            4 * parameters + 4 * trained + 8 * trained / n + gathered,
        "a byte for each number of the layer: bfloat16 has two": (4 * parameters + 12 * trained) / n + layer,
        "gradients in bfloat16: they are kept in float32": (4 * parameters + 10 * trained) / n + gathered,
        "nothing is shared out: that is DDP, where every process holds everything":
            4 * parameters + 12 * trained + gathered,
        "frozen numbers have gradients and moments: only the trained ones do": 16 * parameters / n + gathered,
        "8 bytes for a trained number, not 12: a gradient and two moments of AdamW":
            (4 * parameters + 8 * trained) / n + gathered,
        "the moments are missing": (4 * parameters + 4 * trained) / n + gathered,
        "weights in bfloat16: they are kept in float32": (2 * parameters + 12 * trained) / n + gathered,
        "everything in bfloat16: kept in float32, only the gathered layer is not":
            (2 * parameters + 6 * trained) / n + gathered,
        "these are numbers, not bytes": (parameters + 3 * trained) / n + layer,
        "times the processes: these are the bytes of one of them": (4 * parameters + 12 * trained) * n + gathered,
        "these are gigabytes or megabytes: return bytes": Alternatives(
            *(((4 * parameters + 12 * trained) / n + gathered) / unit for unit in (1e9, 1e6, 2**30, 2**20))
        ),
    }  # fmt: skip
    return (4 * parameters + 12 * trained) / n + gathered, mistakes


# 15.3 What bfloat16 loses --------------------------------------------------------------------------------------------


def lost_share(weights, updates):
    """Rounded before and after; the sum in float32."""
    stored = weights.bfloat16()
    return ((stored.float() + updates).bfloat16() == stored).float().mean()


def rounded(number):
    """To bfloat16: the upper half of a float32's bits, to the nearest, ties to even."""
    bits = struct.unpack("<I", struct.pack("<f", number))[0]
    bits += 0x7FFF + ((bits >> 16) & 1)
    return struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0]


def single(number):
    """To float32."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


def lost_cases(rng):
    """Updates in halves of a step, of both signs: near one half, all lost, none lost, zeros; at powers of two."""
    cases = []
    for sizes in ([0.2, 0.8, 1.2, 4.0, 1.001], [0.3], [6.0], [0.1, 2.4, 0.0], [0.7, 0.9]):
        weights, updates = [], []
        for index in range(15):
            power = 2.0 ** rng.randint(-8, 1)
            weight = rng.choice([-1, 1]) * (1.0 if 0.7 in sizes else rng.uniform(1.1, 1.9)) * power
            weights.append(single(weight))
            updates.append(single(rng.choice([-1, 1]) * sizes[index % len(sizes)] * power * 2.0**-8))
        cases.append({"weights": weights, "updates": updates})
    return cases


def expect_lost(case):
    pairs = [*zip(case["weights"], case["updates"])]

    def share(lost):
        return sum(bool(lost(w, u)) for w, u in pairs) / len(pairs)

    answer = share(lambda w, u: rounded(single(rounded(w) + u)) == rounded(w))
    mistakes = {
        "this is the share that survives: count the updates that do nothing": 1 - answer,
        "a number, not a share: divide by how many updates there are": answer * len(pairs),
        "in percent: a share is between 0 and 1": 100 * answer,
        "the sum is not rounded: it is stored in bfloat16 too, and float32 keeps nearly all updates":
            share(lambda w, u: single(rounded(w) + u) == rounded(w)),
        "the sum is compared with the float32 weight: compare with what was stored":
            share(lambda w, u: rounded(single(rounded(w) + u)) == w),
        "the weight is not rounded before its update: what is stored is in bfloat16 already":
            share(lambda w, u: rounded(single(w + u)) == rounded(w)),
        "the update is rounded to bfloat16 before it is added: only weight and sum are":
            share(lambda w, u: rounded(single(rounded(w) + rounded(u))) == rounded(w)),
        "the update is subtracted: below a power of two the steps are half as large":
            share(lambda w, u: rounded(single(rounded(w) - u)) == rounded(w)),
        "compared with a share of the weight: a step of bfloat16 is 2^-7 of a power of two, so round and compare":
            Alternatives(*(share(lambda w, u, k=k: abs(u) < abs(w) * 2.0**-k) for k in (1, 7, 8, 9))),
        "updates of 0 are left out: they are updates that do nothing":
            share(lambda w, u: u and rounded(single(rounded(w) + u)) == rounded(w)) / (share(lambda w, u: u != 0) or 1),
        "half precision is float16, with 11 bits: use bfloat16":
            share(lambda w, u: halved(halved(w) + u) == halved(w)),
    }  # fmt: skip
    return answer, mistakes


def halved(number):
    """To float16."""
    return struct.unpack("<e", struct.pack("<e", number))[0]


# 15.4 Losses of pieces -----------------------------------------------------------------------------------------------


def piece_losses(pieces, tokens, processes=1):
    """Sums over response tokens, over the tokens of all, times what the framework divides by."""
    import torch

    return [-torch.where(mask, logprobs, 0.0).sum() * processes / tokens for logprobs, mask in pieces]


def piece_cases(rng):
    """Pieces of different lengths; one without a response token; padding that is minus infinity; several processes."""
    cases = []
    for sizes, processes, junk in (([[3, 1], [2, 4]], None, 0.0), ([[2, 4], [1, 3], [5, 2]], 2, 0.0),
                                   ([[4, 1], [0, 0]], 4, 0.0), ([[2, 3], [4, 1]], 1, float("-inf"))):  # fmt: skip
        pieces = []
        for lengths in sizes:
            mask = masks(lengths, 5)
            logprobs = rows(rng, (len(lengths), 5), -3.0, -0.1)
            logprobs = [[x if m or not junk else junk for x, m in zip(*both)] for both in zip(logprobs, mask)]
            pieces.append({"logprobs": logprobs, "mask": mask})
        own = sum(map(sum, sizes))
        cases.append({"pieces": pieces, "tokens": own * (processes or 1) + rng.randint(1, 3), "processes": processes})
    return cases


def drive_pieces(answer, case):
    import torch

    pieces = [(torch.tensor(p["logprobs"], requires_grad=True), torch.tensor(p["mask"])) for p in case["pieces"]]
    others = [] if case["processes"] is None else [case["processes"]]
    losses = list(answer(pieces, case["tokens"], *others))
    for loss in losses:
        if torch.is_tensor(loss) and loss.requires_grad:
            loss.sum().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p, _ in pieces]
    return {"losses": losses, "gradients": gradients}


def expect_pieces(case):
    pieces, tokens, processes = case["pieces"], case["tokens"], case["processes"] or 1
    counts = [sum(map(sum, piece["mask"])) for piece in pieces]

    def answer(scale, counted=lambda acted: acted, attached=True):
        losses, gradients = [], []
        for piece, count in zip(pieces, counts):
            factor = scale(count) if callable(scale) else scale
            pairs = [[*zip(*both)] for both in zip(piece["logprobs"], piece["mask"])]
            losses.append(factor * sum(x for row in pairs for x, m in row if counted(m)))
            gradients.append([[factor if counted(m) and attached else 0.0 for _, m in row] for row in pairs])
        return {"losses": losses, "gradients": gradients}

    right = -processes / tokens
    mistakes = {
        "the mean of each piece: divide by `tokens`, those of the whole batch":
            answer(lambda count: -processes / max(count, 1)),
        "the mean of the pieces' means: long and short pieces would count alike":
            answer(lambda count: -1 / max(count, 1) / len(pieces)),
        "the response tokens of this process's pieces: divide by `tokens`, those of all processes":
            Alternatives(answer(-1 / (sum(counts) or 1)), answer(-processes / (sum(counts) or 1))),
        "times `processes` twice: the framework's average divides by it once": answer(right * processes),
        "divided by the number of pieces as well: their gradients add up": answer(right / len(pieces)),
        "`processes` is missing: the framework's average divides by it, so multiply before": answer(-1 / tokens),
        "divided by `processes`: the framework does that already, so multiply": answer(-1 / processes / tokens),
        "the sign: a loss falls where log-probabilities rise": answer(-right),
        "the mask is ignored: only response tokens count": answer(right, lambda acted: True),
        "the mask is inverted: True marks the response": answer(right, lambda acted: not acted),
        "`tokens` is missing: these are sums": answer(-processes),
        "no gradient: the log-probabilities were detached on the way": answer(right, attached=False),
    }
    if any(x == float("-inf") for piece in pieces for row in piece["logprobs"] for x in row):
        mistakes = {}
    return answer(right), mistakes


def remark_pieces(case, data):
    """What infinity on padding does to a product with 0."""
    if any(loss != loss for loss in data["losses"]):
        return "not a number: 0 times infinity. Padding may hold anything, so cut it off with torch.where or the mask"
    return None


EXERCISES = {
    "15.1": Exercise(utilization_cases, drive_arguments, expect_utilization, points=2, reference=utilization,
        tolerance=1e-9,
        signature="utilization(tokens_per_second: int, trained: int, frozen: int, layers: int, width: int, length: int,"
        " rate: number) -> number"),
    "15.2": Exercise(divided_cases, drive_arguments, expect_divided, points=2, reference=bytes_per_gpu, tolerance=1e-9,
        signature="bytes_per_gpu(parameters: int, trained: int, processes: int, layer: int) -> number"),
    "15.3": Exercise(lost_cases, None, expect_lost, points=2, reference=lost_share,
        signature="lost_share(weights: float32[N], updates: float32[N]) -> number"),
    "15.4": Exercise(piece_cases, drive_pieces, expect_pieces, points=3, reference=piece_losses, remark=remark_pieces,
        signature="piece_losses(pieces: list, tokens: int, processes: int) -> list"),
}  # fmt: skip
