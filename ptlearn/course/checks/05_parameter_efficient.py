"""Lesson 05: bytes of a step, activations, the last blocks, an adapter and its size, and what each method saves.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import itertools
import math

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise

# 5.1 Bytes that are counted ------------------------------------------------------------------------------------------


def finetuning_bytes(parameters, trained, bytes_per_number, moments=2):
    """The answer that the lesson goes on with: (weights, gradients, optimizer states)."""
    return tuple(count * bytes_per_number for count in (parameters, trained, moments * trained))


def counting_cases(rng):
    """Few of many numbers trained, in three precisions, with two, one and no moments; once `moments` is not given."""
    settings = ((8, 2), (2, 2), (4, 1), (4, 0), (2,))
    return [{"arguments": [rng.randint(900, 1000), rng.randint(50, 99), *setting]} for setting in settings]


def drive_arguments(answer, case):
    return answer(*case["arguments"])


def expect_counting(case):
    parameters, trained, size, moments = [*case["arguments"], 2][:4]

    def answer(weights=parameters, gradients=trained, states=moments * trained, size=size):
        return [weights * size, gradients * size, states * size]

    mistakes = {
        "the optimizer remembers frozen numbers: it keeps moments of the trained ones alone":
            answer(states=moments * parameters),
        "frozen numbers have gradients: a gradient is kept for the trained ones alone": answer(gradients=parameters),
        "the frozen part alone is counted as weights: the whole model is stored": answer(weights=parameters - trained),
        "trained weights are counted twice: they are among the parameters": answer(weights=parameters + trained),
        "one optimizer state per number: use `moments`": answer(states=trained),
        "two moments always: use `moments`": answer(states=2 * trained),
        "these are numbers, not bytes: multiply by bytes_per_number": answer(size=1),
        "4 bytes always: use bytes_per_number": answer(size=4),
        "these are bits: bytes_per_number is in bytes already": answer(size=8 * size),
        "divided by bytes_per_number: multiply by it": answer(size=1 / size),
        "optimizer states contain the gradients: they are counted apart": answer(states=(moments + 1) * trained),
        "the moments are numbers, not bytes: multiply by bytes_per_number": answer(states=moments * trained / size),
        "the bytes are multiplied into the states twice": answer(states=moments * trained * size),
        "these are gigabytes or megabytes: return bytes":
            Alternatives(*([x / unit for x in answer()] for unit in (1e9, 1e6, 2**30, 2**20))),
        "the gradients are 0: one is kept for each trained number": answer(gradients=0),
        "the order is another: weights, gradients, optimizer states":
            Alternatives(*list(itertools.permutations(answer()))[1:]),
    }
    return answer(), mistakes


# 5.2 Activations -----------------------------------------------------------------------------------------------------


def activation_bytes(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
    """The counts of the text: 10 vectors of the width and 4 of the inner width in a block, 3 and the words outside."""
    return tokens * bytes_per_number * (blocks * (10 * width + 4 * inner) + 3 * width + vocabulary)


def activation_cases(rng):
    def sizes():
        return rng.randint(10, 19), rng.randint(30, 49), rng.randint(100, 199)

    settings = ((3, 8), (2, 2), (1,), (0, 8))
    return [{"arguments": [rng.randint(5, 9), blocks, *sizes(), *size]} for blocks, *size in settings]


def expect_activations(case):
    tokens, blocks, width, inner, vocabulary, size = [*case["arguments"], 4][:6]
    block, rest = 10 * width + 4 * inner, 3 * width + vocabulary

    def answer(per_token, size=size, tokens=tokens):
        return tokens * size * per_token

    mistakes = {
        "what stands outside the blocks is counted once per block: the vocabulary and 3 widths come once":
            answer(blocks * (block + rest)),
        "the 3 vectors outside the blocks are counted once per block":
            answer(blocks * (block + 3 * width) + vocabulary),
        "the vocabulary is counted once per block: it comes once": answer(blocks * (block + vocabulary) + 3 * width),
        "what stands outside the blocks is counted for one token: each has its own":
            Alternatives(answer(blocks * block) + size * rest, answer(blocks * block) + rest),
        "the 3 vectors outside the blocks are missing": answer(blocks * block + vocabulary),
        "nothing outside the blocks is counted": answer(blocks * block),
        "one vector of the width outside the blocks: there are 3": answer(blocks * block + width + vocabulary),
        "these are gigabytes or megabytes: return bytes":
            Alternatives(*(answer(blocks * block + rest) / unit for unit in (1e9, 1e6, 2**30, 2**20))),
        "the MLP's inner vectors are counted with the width": answer(blocks * 14 * width + rest),
        "10 and 4 are swapped: 10 vectors have the width, 4 the inner width":
            answer(blocks * (4 * width + 10 * inner) + rest),
        "blocks multiplies the 10 vectors alone: the 4 inner ones are in each block too":
            answer(blocks * 10 * width + 4 * inner + rest),
        "3 vectors of the vocabulary: 3 have the width, and the vocabulary comes once":
            answer(blocks * block + 3 * (width + vocabulary)),
        "these are numbers, not bytes: multiply by bytes_per_number": answer(blocks * block + rest, size=1),
        "4 bytes always: use bytes_per_number": answer(blocks * block + rest, size=4),
    }
    return answer(blocks * block + rest), mistakes


# 5.3 The last blocks -------------------------------------------------------------------------------------------------


def last_blocks(names, k):
    """The names in the blocks from the highest number + 1 - k, and those of the last norm."""
    first = max(map(block_of, names)) + 1 - k
    return [name for name in names if block_of(name) >= first or name.startswith("model.norm.")]


def block_of(name):
    """The number of a name's block, -1 outside the blocks."""
    return int(name.split(".")[2]) if name.startswith("model.layers.") else -1


def block_cases(rng):
    """Two, four and twelve blocks, so that numbers as texts are out of order; the seed draws what each block holds."""
    parts = ["self_attn.q_proj.weight", "self_attn.q_proj.bias", "mlp.up_proj.weight", "input_layernorm.weight"]
    cases = []
    for blocks, k, count in ((2, 1, 2), (12, 1, 3), (12, 3, 3), (4, 4, 3)):
        inside = [f"model.layers.{number}.{part}" for number in range(blocks) for part in rng.sample(parts, count)]
        names = ["model.embed_tokens.weight", *inside, "model.norm.weight", "lm_head.weight"]
        cases.append({"arguments": [names, k]})
    return cases


def expect_blocks(case):
    names, k = case["arguments"]
    count = 1 + max(map(block_of, names))

    def chosen(keeps, norm=True):
        return [name for name in names if keeps(name) or (norm and name == "model.norm.weight")]

    def last(name, k=k):
        return block_of(name) >= count - k

    as_texts = sorted(map(str, range(count)))[-k:]
    mistakes = {
        "the norm behind the blocks, model.norm, is missing": chosen(last, norm=False),
        "these are the first k blocks, which stand next to the input": chosen(lambda name: 0 <= block_of(name) < k),
        "one block too many: the first that is trained has the highest number + 1 - k": Alternatives(
            chosen(lambda name: last(name, k + 1) and block_of(name) >= 0), chosen(lambda name: last(name, k + 1))
        ),
        "one block too few: the first that is trained has the highest number + 1 - k":
            chosen(lambda name: last(name, k - 1)),
        "only the last block: k of them are trained": chosen(lambda name: last(name, 1)),
        "the embeddings are trained: they stay frozen":
            chosen(lambda name: last(name) or name == "model.embed_tokens.weight"),
        "the head is trained: it stays frozen": chosen(lambda name: last(name) or name == "lm_head.weight"),
        "embeddings and head are trained: they stay frozen": chosen(lambda name: last(name) or block_of(name) < 0),
        "numbers are compared as texts, where 9 comes after 10: make them integers": Alternatives(
            chosen(lambda name: str(block_of(name)) in as_texts),
            chosen(lambda name: block_of(name) >= 0 and str(block_of(name)) >= str(count - k)),
        ),
        "only block number n - k of n: all blocks from there on are trained":
            chosen(lambda name: block_of(name) == count - k),
        "weights alone: the biases of a block are trained too":
            chosen(lambda name: last(name) and not name.endswith("bias")),
        "the norms of these blocks are missing: everything in them is trained":
            chosen(lambda name: last(name) and "norm" not in name),
        "the norms of the lower blocks are trained too: their names hold 'norm', but only model.norm is meant":
            chosen(lambda name: last(name) or "norm" in name),
        "the frozen names are returned instead of the trained ones":
            [name for name in names if not last(name) and name != "model.norm.weight"],
        "the given order is lost: model.norm stands behind the blocks":
            ["model.norm.weight", *chosen(last, norm=False)],
        "k is taken for a number of names: it counts blocks": names[-k:],
    }
    return chosen(last), mistakes


def remark_blocks(case, data):
    """Which name is missing or too much says more than two lengths."""
    expected = expect_blocks(case)[0]
    missing, extra = [x for x in expected if x not in data], [x for x in data if x not in expected]
    if missing or extra:
        return f"{missing[0]!r} is missing" if missing else f"{extra[0]!r} is not to be trained"
    return "the names are right, their order or number is not: keep the given order, each name once"


# 5.4 An adapter ------------------------------------------------------------------------------------------------------


def adapter(y, D, d, U, u):
    """y + U gelu(D y + d) + u, on rows."""
    import torch

    linear = torch.nn.functional.linear
    return y + linear(torch.nn.functional.gelu(linear(y, D, d)), U, u)


def adapter_cases(rng):
    """One vector, rows, and a batch of rows; all widths alike, so that a turned matrix has a shape, and unlike."""

    def numbers(*shape):
        return [numbers(*shape[1:]) for _ in range(shape[0])] if shape else round(rng.uniform(-1.5, 1.5), 2)

    cases = []
    for leading, width, size in (((), 2, 1), ((2,), 2, 2), ((3, 2), 3, 2)):
        shapes = {"y": (*leading, width), "D": (size, width), "d": (size,), "U": (width, size), "u": (width,)}
        cases.append({name: numbers(*shape) for name, shape in shapes.items()})
    return cases


def gelu(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def identity(x):
    return x


BENDS = {
    "nothing bends: without gelu the adapter is one linear map of low rank": identity,
    "relu instead of gelu": lambda x: max(x, 0.0),
    "tanh instead of gelu": math.tanh,
    "silu instead of gelu": lambda x: x / (1 + math.exp(-x)),
    "sigmoid instead of gelu": lambda x: 1 / (1 + math.exp(-x)),
    "gelu bends twice": lambda x: gelu(gelu(x)),
    "this gelu is its approximation by tanh: take the exact one, torch's default":
        lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
}


def expect_adapter(case):
    D, d, U, u = (case[name] for name in ("D", "d", "U", "u"))

    def product(matrix, vector):
        return [sum(m * v for m, v in zip(row, vector)) for row in matrix]

    def added(*vectors):
        return [sum(numbers) for numbers in zip(*vectors)]

    def by(bend=gelu, down=d, up=u, around=1, outside=identity, sign=1, D=D, U=U, y=case["y"]):
        if isinstance(y[0], list):
            return [by(bend, down, up, around, outside, sign, D, U, row) for row in y]
        inner = added(product(U, [bend(x) for x in added(product(D, y), down)]), up)
        return added([around * x for x in y], [sign * outside(x) for x in inner])

    mistakes = {words: by(bend) for words, bend in BENDS.items()} | {
        "y itself is missing: it goes around the bottleneck and is added": by(around=0),
        "y is added twice": by(around=2),
        "both biases are missing": by(down=[0.0 for _ in d], up=[0.0 for _ in u]),
        "gelu stands behind U: it bends the few dimensions in the middle": by(bend=identity, outside=gelu),
        "gelu stands twice: it bends the middle alone, what leaves U is added as it is": by(outside=gelu),
        "the sign is turned: the bottleneck is added to y": by(sign=-1),
        "d is added behind gelu: it is bent with D y": by(down=[0.0 for _ in d], up=added(u, product(U, d))),
    }
    if len(d) == len(u):
        turned = [[list(column) for column in zip(*matrix)] for matrix in (D, U)]
        mistakes["D and U are turned: for rows, D y is y @ D.T"] = by(D=turned[0], U=turned[1])
    return by(), mistakes


# 5.5 The size of adapters --------------------------------------------------------------------------------------------


def adapter_parameters(blocks, width, size):
    """D and U, d and u, twice in each block."""
    return 2 * blocks * (2 * width * size + size + width)


def size_cases(rng):
    return [{"arguments": [rng.randint(3, 9), rng.randint(20, 29), rng.randint(4, 7)]} for _ in range(3)]


def expect_size(case):
    blocks, width, size = case["arguments"]

    def counted(matrices=2 * width * size, biases=size + width, adapters=2 * blocks):
        return adapters * (matrices + biases)

    mistakes = {
        "one adapter per block: there is one behind the attention and one behind the MLP": counted(adapters=blocks),
        "the biases are missing: d has size numbers, u has width": counted(biases=0),
        "one matrix alone, and no biases: an adapter has D, d, U and u": counted(width * size, 0),
        "these are bytes: count numbers": Alternatives(4 * counted(), 2 * counted()),
        "one matrix alone: D goes down and U goes up again": counted(width * size),
        "both biases have the size of the bottleneck: u is as wide as the model": counted(biases=2 * size),
        "both biases have the width of the model: d is as long as the bottleneck": counted(biases=2 * width),
        "the bias d is missing": counted(biases=width),
        "the bias u is missing": counted(biases=size),
        "each bias is one number: d has size numbers, u has width": counted(biases=2),
        "each bias is counted twice: d has size numbers, u has width": counted(biases=2 * (size + width)),
        "the biases are multiplied: d has size numbers, u has width": counted(biases=size * width),
        "the biases are not counted for both adapters of all blocks: each has its own":
            Alternatives(*(counted(biases=0) + times * (size + width) for times in (1, 2, blocks))),
        "D and U are taken for square matrices of the model's width": counted(2 * width**2, 2 * width),
    }
    return counted(), mistakes


# 5.6 What each method saves ------------------------------------------------------------------------------------------

SAVES = {
    "last 1": ["activations", "gradients", "optimizer"],
    "BitFit": ["gradients", "optimizer"],
    "adapters 8": ["gradients", "optimizer"],
    "LoRA 8": ["gradients", "optimizer"],
}
COSTS = ("weights", "gradients", "optimizer", "activations")


def remark_savings(case, data):
    if not isinstance(data, dict) or set(data) != set(SAVES):
        found = sorted(data) if isinstance(data, dict) else data
        return f"the answer is a dict with the keys {', '.join(SAVES)}, not {found!r}"
    for name, expected in SAVES.items():
        if not isinstance(data[name], list):
            return f"{name}: a list of costs is expected, such as ['weights'], not {data[name]!r}"
        given = {" ".join(str(cost).lower().split()) for cost in data[name]}
        if unknown := sorted(given - set(COSTS)):
            return f"{name}: {unknown[0]!r} is not one of {', '.join(COSTS)}"
        if "weights" in given:
            return f"{name}: frozen weights are stored like all others, so the weights do not shrink"
        if "activations" in given and "activations" not in expected:
            return f"{name}: it trains numbers in the lowest block, so the backward pass runs through all activations"
        if "activations" in expected and "activations" not in given:
            return f"{name}: below the last block nothing is trained, so nothing is saved there for a backward pass"
        if missing := sorted(set(expected) - given):
            return f"{name}: {missing[0]} are kept for trained numbers alone, and it trains few"
    return None


EXERCISES = {
    "5.1": Exercise(counting_cases, drive_arguments, expect_counting, points=1, reference=finetuning_bytes,
        tolerance=1e-9,
        signature="finetuning_bytes(parameters: int, trained: int, bytes_per_number: int, moments: int) -> (number,"
        " number, number)"),
    "5.2": Exercise(activation_cases, drive_arguments, expect_activations, points=1, reference=activation_bytes,
        tolerance=1e-9,
        signature="activation_bytes(tokens: int, blocks: int, width: int, inner: int, vocabulary: int,"
        " bytes_per_number: int) -> number"),
    "5.3": Exercise(block_cases, drive_arguments, expect_blocks, points=2, reference=last_blocks, remark=remark_blocks,
        signature="last_blocks(names: list, k: int) -> list of str"),
    "5.4": Exercise(adapter_cases, None, expect_adapter, points=2, reference=adapter, tolerance=1e-5,
        signature="adapter(y: float32[...], D: float32[S W], d: float32[S], U: float32[W S], u: float32[W]) ->"
        " float[...] with gradient of y, D, d, U, u"),
    "5.5": Exercise(size_cases, drive_arguments, expect_size, points=1, reference=adapter_parameters, tolerance=1e-9,
        signature="adapter_parameters(blocks: int, width: int, size: int) -> number"),
    "5.6": Exercise(lambda rng: [sorted(SAVES)], None, None, points=1, reference=SAVES, remark=remark_savings),
}  # fmt: skip
