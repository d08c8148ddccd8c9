"""Lesson 05: bytes of a step, activations, the last blocks, an adapter and its size, and what each method saves.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.diagnosis import differences
from ptlearn.course.exercise import Exercise

# 5.1 Bytes that are counted ------------------------------------------------------------------------------------------


def finetuning_bytes(parameters, trained, bytes_per_number, moments=2):
    """The answer that the lesson goes on with: (weights, gradients, optimizer states)."""
    return tuple(count * bytes_per_number for count in (parameters, trained, moments * trained))


def counting_cases(rng):
    """Few of many numbers trained, in two precisions, with one and two moments."""
    settings = ((4, 2), (2, 2), (4, 1))
    return [{"arguments": [rng.randint(900, 1000), rng.randint(50, 99), *setting]} for setting in settings]


def drive_arguments(answer, case):
    return answer(*case["arguments"])


def verify_counting(case, data):
    parameters, trained, size, moments = case["arguments"]

    def answer(weights=parameters, gradients=trained, states=moments * trained, size=size):
        return [weights * size, gradients * size, states * size]

    mistakes = {
        "every weight gets a gradient and a state: a frozen one has neither": (
            answer(gradients=parameters, states=moments * parameters)
        ),
        "the optimizer remembers frozen numbers: it keeps moments of the trained ones alone": (
            answer(states=moments * parameters)
        ),
        "frozen numbers have gradients: a gradient is kept for the trained ones alone": answer(gradients=parameters),
        "frozen weights are left out: they have to be stored to compute with": answer(weights=trained),
        "the frozen part alone is counted as weights: the whole model is stored": answer(weights=parameters - trained),
        "one optimizer state per number: use `moments`": answer(states=trained),
        "two moments always: use `moments`": answer(states=2 * trained),
        "these are numbers, not bytes: multiply by bytes_per_number": answer(size=1),
        "4 bytes always: use bytes_per_number": answer(size=4),
        "these are bits: bytes_per_number is in bytes already": answer(size=8 * size),
        "optimizer states contain the gradients: they are counted apart": answer(states=(moments + 1) * trained),
    }
    return differences(data, answer(), mistakes)


# 5.2 Activations -----------------------------------------------------------------------------------------------------


def activation_bytes(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
    """The counts of the text: 10 vectors of the width and 4 of the inner width in a block, 3 and the words outside."""
    return tokens * bytes_per_number * (blocks * (10 * width + 4 * inner) + 3 * width + vocabulary)


def activation_cases(rng):
    def sizes():
        return rng.randint(10, 19), rng.randint(30, 49), rng.randint(100, 199)

    return [{"arguments": [rng.randint(5, 9), blocks, *sizes(), size]} for blocks, size in ((3, 4), (2, 2), (1, 4))]


def verify_activations(case, data):
    tokens, blocks, width, inner, vocabulary, size = case["arguments"]
    block, rest = 10 * width + 4 * inner, 3 * width + vocabulary

    def answer(per_token, size=size):
        return tokens * size * per_token

    mistakes = {
        "what stands outside the blocks is counted once per block: the vocabulary and 3 widths come once": (
            answer(blocks * (block + rest))
        ),
        "the numbers of one token: multiply by tokens": size * (blocks * block + rest),
        "one block alone: multiply its numbers by blocks": answer(block + rest) if blocks > 1 else None,
        "the vocabulary is missing: its logits are saved for every token": answer(blocks * block + 3 * width),
        "the 3 vectors outside the blocks are missing": answer(blocks * block + vocabulary),
        "nothing outside the blocks is counted": answer(blocks * block),
        "the MLP's inner vectors are missing": answer(blocks * 10 * width + rest),
        "the MLP's inner vectors are counted with the width": answer(blocks * 14 * width + rest),
        "10 and 4 are swapped: 10 vectors have the width, 4 the inner width": (
            answer(blocks * (4 * width + 10 * inner) + rest)
        ),
        "these are numbers, not bytes: multiply by bytes_per_number": answer(blocks * block + rest, size=1),
        "4 bytes always: use bytes_per_number": answer(blocks * block + rest, size=4),
    }
    return differences(data, answer(blocks * block + rest), mistakes)


# 5.3 The last blocks -------------------------------------------------------------------------------------------------


def last_blocks(names, k):
    """The names in the blocks from the highest number + 1 - k, and those of the last norm."""
    first = max(map(block_of, names)) + 1 - k
    return [name for name in names if block_of(name) >= first or name.startswith("model.norm.")]


def block_of(name):
    """The number of a name's block, -1 outside the blocks."""
    return int(name.split(".")[2]) if name.startswith("model.layers.") else -1


def block_cases(rng):
    """Twelve blocks, so that numbers as texts are out of order; the seed draws what each block holds."""
    parts = ["self_attn.q_proj.weight", "self_attn.q_proj.bias", "mlp.up_proj.weight", "input_layernorm.weight"]
    blocks = [f"model.layers.{number}.{part}" for number in range(12) for part in rng.sample(parts, 3)]
    names = ["model.embed_tokens.weight", *blocks, "model.norm.weight", "lm_head.weight"]
    return [{"arguments": [names, k]} for k in (1, 3, 12)]


def verify_blocks(case, data):
    names, k = case["arguments"]

    def chosen(keeps, norm=True):
        return [name for name in names if keeps(name) or (norm and name == "model.norm.weight")]

    def last(name, k=k):
        return block_of(name) >= 12 - k

    as_texts = sorted(map(str, range(12)))[-k:]
    mistakes = {
        "the norm behind the blocks, model.norm, is missing": chosen(last, norm=False),
        "these are the first k blocks, which stand next to the input": chosen(lambda name: 0 <= block_of(name) < k),
        "one block too many: the first that is trained has the highest number + 1 - k": (
            chosen(lambda name: last(name, k + 1) and block_of(name) >= 0)
        ),
        "one block too few: the first that is trained has the highest number + 1 - k": (
            chosen(lambda name: last(name, k - 1))
        ),
        "the embeddings are trained: they stay frozen": (
            chosen(lambda name: last(name) or name == "model.embed_tokens.weight")
        ),
        "the head is trained: it stays frozen": chosen(lambda name: last(name) or name == "lm_head.weight"),
        "numbers are compared as texts, where 9 comes after 10: make them integers": (
            chosen(lambda name: str(block_of(name)) in as_texts)
        ),
        "only block number 12 - k: all blocks from there on are trained": chosen(lambda name: block_of(name) == 12 - k),
        "weights alone: the biases of a block are trained too": (
            chosen(lambda name: last(name) and not name.endswith("bias"))
        ),
        "the norms of the lower blocks are trained too: their names hold 'norm', but only model.norm is meant": (
            chosen(lambda name: last(name) or "norm" in name)
        ),
        "the frozen names are returned instead of the trained ones": (
            [name for name in names if not last(name) and name != "model.norm.weight"]
        ),
    }
    return _words(data, chosen(last), mistakes)


def _words(data, expected, mistakes):
    """The mistake's words; else which name is missing or too much, which says more than two lengths."""
    if data == expected:
        return None
    for diagnosis, wrong in mistakes.items():
        if data == wrong != expected:
            return diagnosis
    if not isinstance(data, list):
        return f"the answer is a list of names, not {data!r:.60}"
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
    """Width 3, size 2; a row and a batch of rows."""

    def numbers(*shape):
        return [numbers(*shape[1:]) for _ in range(shape[0])] if shape else round(rng.uniform(-1.5, 1.5), 2)

    makers = {"D": (2, 3), "d": (2,), "U": (3, 2), "u": (3,)}
    return [{"y": numbers(*shape, 3)} | {name: numbers(*of) for name, of in makers.items()} for shape in ((2,), (4,))]


def drive_adapter(answer, case):
    import torch

    return answer(*(torch.tensor(case[name], dtype=torch.float64) for name in ("y", "D", "d", "U", "u")))


def gelu(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def relu(x):
    return max(x, 0.0)


def identity(x):
    return x


def verify_adapter(case, data):
    D, U = case["D"], case["U"]

    def product(matrix, vector):
        return [sum(m * v for m, v in zip(row, vector)) for row in matrix]

    def added(*vectors):
        return [sum(numbers) for numbers in zip(*vectors)]

    def by(bend=gelu, down=case["d"], up=case["u"], around=1, outside=identity):
        rows = []
        for y in case["y"]:
            hidden = [bend(x) for x in added(product(D, y), down)]
            inner = [outside(x) for x in added(product(U, hidden), up)]
            rows.append(added([around * x for x in y], inner))
        return rows

    mistakes = {
        "y itself is missing: it goes around the bottleneck and is added": by(around=0),
        "y is added twice": by(around=2),
        "nothing bends: without gelu the adapter is one linear map of low rank": by(bend=identity),
        "relu instead of gelu": by(bend=relu),
        "tanh instead of gelu": by(bend=math.tanh),
        "the bias d is missing": by(down=[0.0, 0.0]),
        "the bias u is missing": by(up=[0.0, 0.0, 0.0]),
        "gelu stands behind U: it bends the few dimensions in the middle": by(bend=identity, outside=gelu),
        "gelu stands twice: it bends the middle alone, what leaves U is added as it is": by(outside=gelu),
        "the sign is turned: the bottleneck is added to y": [
            [2 * y - x for y, x in zip(*rows)] for rows in zip(case["y"], by())
        ],
    }
    return differences(data, by(), mistakes, tolerance=1e-6)


# 5.5 The size of adapters --------------------------------------------------------------------------------------------


def adapter_parameters(blocks, width, size):
    """D and U, d and u, twice in each block."""
    return 2 * blocks * (2 * width * size + size + width)


def size_cases(rng):
    return [{"arguments": [rng.randint(3, 9), rng.randint(20, 29), rng.randint(4, 7)]} for _ in range(3)]


def verify_size(case, data):
    blocks, width, size = case["arguments"]
    mistakes = {
        "one adapter per block: there is one behind the attention and one behind the MLP": (
            blocks * (2 * width * size + size + width)
        ),
        "one block alone: multiply by blocks": 2 * (2 * width * size + size + width),
        "the biases are missing: d has size numbers, u has width": 2 * blocks * 2 * width * size,
        "one matrix alone: D goes down and U goes up again": 2 * blocks * (width * size + size + width),
        "both biases have the size of the bottleneck: u is as wide as the model": (
            2 * blocks * (2 * width * size + 2 * size)
        ),
        "both biases have the width of the model: d is as long as the bottleneck": (
            2 * blocks * (2 * width * size + 2 * width)
        ),
        "the bias d is missing": 2 * blocks * (2 * width * size + width),
        "the bias u is missing": 2 * blocks * (2 * width * size + size),
        "D and U are taken for square matrices of the model's width": 2 * blocks * (2 * width**2 + 2 * width),
    }
    return differences(data, adapter_parameters(blocks, width, size), mistakes)


# 5.6 What each method saves ------------------------------------------------------------------------------------------

SAVES = {
    "last 1": ["activations", "gradients", "optimizer"],
    "BitFit": ["gradients", "optimizer"],
    "adapters 8": ["gradients", "optimizer"],
    "LoRA 8": ["gradients", "optimizer"],
}
COSTS = ("weights", "gradients", "optimizer", "activations")


def saving_cases(rng):
    return [sorted(SAVES)]


def verify_savings(case, data):
    if not isinstance(data, dict) or set(data) != set(SAVES):
        found = sorted(data) if isinstance(data, dict) else data
        return f"the answer is a dict with the keys {', '.join(SAVES)}, not {found!r}"
    for name, expected in SAVES.items():
        given = {str(cost).strip().lower() for cost in data[name]}
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
    "5.1": Exercise(counting_cases, drive_arguments, verify_counting, points=1, reference=finetuning_bytes),
    "5.2": Exercise(activation_cases, drive_arguments, verify_activations, points=1, reference=activation_bytes),
    "5.3": Exercise(block_cases, drive_arguments, verify_blocks, points=2, reference=last_blocks),
    "5.4": Exercise(adapter_cases, drive_adapter, verify_adapter, points=2, reference=adapter),
    "5.5": Exercise(size_cases, drive_arguments, verify_size, points=1, reference=adapter_parameters),
    "5.6": Exercise(saving_cases, lambda answer, case: answer, verify_savings, points=1, reference=SAVES),
}
