"""Lesson 05: bytes counted and weighed, parameters chosen by name, an adapter written, put in place and tested.

The bytes are expected from sizes, in plain Python; what an adapter gives, from the definition on lists.
"""

import copy
import fnmatch
import itertools
import math

import torch
import torch._dynamo  # the first optimizer imports it, which takes seconds: before any answer is timed
from torch import nn

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.course.lab import lab_of_runs

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


# 5.2 What autograd saves ---------------------------------------------------------------------------------------------


def saved_tensors(forward):
    """Collect in the hook that is called as a tensor is saved, and hand the tensor back as it is."""
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    return loss, saved


class Halves(nn.Module):
    """A small network that saves its hidden layer twice, once whole and once as a view of its second half."""

    def __init__(self, width, inner, seed):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.second, self.third = (
                nn.Linear(*sizes) for sizes in ((width, inner), (inner, width), (inner // 2, width))
            )

    def forward(self, states):
        hidden = torch.tanh(self.first(states))
        return (self.second(hidden) + self.third(hidden[:, hidden.shape[1] // 2 :])).square().mean()


def saving_cases(rng):
    return [{"rows": rng.randint(2, 5), "width": rng.randint(3, 6), "inner": 2 * rng.randint(4, 7),
             "seed": rng.randint(0, 999)} for _ in range(2)]  # fmt: skip


def drive_saved(answer, case):
    """How often the forward pass ran, its loss, what was collected by then, and how the backward pass goes."""
    model, calls = Halves(case["width"], case["inner"], case["seed"]), []

    def forward():
        calls.append(1)
        return model(torch.linspace(-1, 1, case["rows"] * case["width"]).view(case["rows"], -1))

    loss, saved = answer(forward)
    if not torch.is_tensor(loss):
        raise TypeError(f"the loss is of type {type(loss).__name__}, expected the tensor that forward() gives")
    tensors = list(saved)
    if odd := [type(one).__name__ for one in tensors if not torch.is_tensor(one)]:
        raise TypeError(f"the list holds a {odd[0]}, expected the tensors that were saved")
    data = {"calls": len(calls), "loss": float(loss.detach()), "saved": [list(tensor.shape) for tensor in tensors],
            "storages": len({tensor.untyped_storage().data_ptr() for tensor in tensors})}  # fmt: skip
    backward = backward_of(loss, model)
    later = backward == "works" and len(saved) > len(data["saved"])
    return data | {"backward": "collects" if later else backward}


def backward_of(loss, model):
    """What happens in the backward pass, in a word."""
    if not loss.requires_grad:
        return "no graph"
    try:
        loss.backward()
    except (RuntimeError, TypeError) as reason:
        return "freed" if "second time" in str(reason) else "broken"
    # another forward pass, which no hook should see, gives the gradient to compare with
    return "works" if all(parameter.grad is not None for parameter in model.parameters()) else "partial"


def expect_saved(case):
    right = drive_saved(saved_tensors, case)
    mistakes = {
        ("calls", "forward() ran twice: call it once, inside the `with`"): 2,
        ("calls", "forward() was not called: the hooks see what a forward pass saves"): 0,
        ("saved", "nothing was collected while forward() ran: append in `pack`, which is called as a tensor is saved,"
         " and run forward() inside the `with`"): [],
        ("storages", "copies were collected: keep the saved tensor itself, a copy has a storage of its own"):
            len(right["saved"]),
        ("backward", "the backward pass fails: `pack` has to return the tensor, and `unpack` what it is given"):
            "broken",
        ("backward", "backward() was called: that frees what was saved, return the loss before it"): "freed",
        ("backward", "the loss has no graph: run forward() with gradients on"): "no graph",
    }
    return right, mistakes


def remark_saved(case, data):
    """How many are missing, which says more than two shapes."""
    count, expected = len(data["saved"]), len(drive_saved(saved_tensors, case)["saved"])
    if data["saved"] != drive_saved(saved_tensors, case)["saved"]:
        return f"{count} tensors were collected where {expected} are saved: list every one, weights and views too"


# 5.3 Bytes of storages -----------------------------------------------------------------------------------------------

VIEWS = {
    "whole": lambda x: x,
    "turned": lambda x: x.T,
    "flat": lambda x: x.view(-1),
    "bottom": lambda x: x[1:],
    "column": lambda x: x[:, :1],
    "again": lambda x: x.detach(),
}
SIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "bool": 1}


def storage_bytes(tensors, own=()):
    """Sizes by the address of the storage, so that each counts once."""
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    storages = [tensor.untyped_storage() for tensor in tensors]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for address, size in sizes.items() if address not in known)


def storage_cases(rng):
    """Apart; twice the same; several views; views of own; all of it; own as it is, and own that is not saved."""
    lists = (
        ([[0, "whole"], [1, "whole"], [4, "whole"]], None),
        ([[0, "whole"], [1, "again"], [0, "again"], [1, "turned"]], None),
        ([[0, "flat"], [0, "bottom"], [0, "column"], [1, "whole"]], []),
        ([[0, "turned"], [1, "whole"], [2, "bottom"]], [[0, "whole"], [2, "whole"]]),
        ([[2, "bottom"], [0, "column"], [0, "turned"], [1, "flat"], [2, "whole"], [3, "whole"]], [[1, "whole"]]),
        ([[3, "column"], [1, "whole"]], [[0, "whole"], [1, "whole"]]),
    )
    bases = [[rng.randint(3, 9), rng.randint(10, 19), kind] for kind in SIZES]
    bases.append(bases[1])  # another storage of one size
    return [{"bases": bases, "tensors": tensors} | ({} if own is None else {"own": own}) for tensors, own in lists]


def drive_storage(answer, case):
    bases = [torch.ones(rows, columns).to(getattr(torch, kind)) for rows, columns, kind in case["bases"]]
    made = [[VIEWS[view](bases[place]) for place, view in case[name]] for name in ("tensors", "own") if name in case]
    return answer(*made)


def expect_storage(case):
    tensors, own = case["tensors"], case.get("own", [])
    known = {place for place, _ in own}

    def numbers(place, view="whole"):
        rows, columns, _ = case["bases"][place]
        return {"bottom": (rows - 1) * columns, "column": rows}.get(view, rows * columns)

    def seen(place, view):
        return numbers(place, view) * SIZES[case["bases"][place][2]]

    def whole(place):
        return seen(place, "whole")

    def once(pairs, size=lambda place, view: whole(place)):
        return sum({place: size(place, view) for place, view in pairs}.values())

    others = [pair for pair in tensors if pair[0] not in known]
    begins = {(place, view == "bottom") for place, view in own}
    apart = {(place, view == "bottom"): whole(place) for place, view in tensors}
    mistakes = {
        "each tensor is counted: tensors that share a storage count once":
            Alternatives(sum(whole(place) for place, _ in others), sum(seen(*pair) for pair in others)),
        "each tensor is counted, those of own too: a storage counts once, and not at all where it is one of own's":
            Alternatives(sum(whole(place) for place, _ in tensors), sum(seen(*pair) for pair in tensors)),
        "own is ignored: its storages do not count": once(tensors),
        "the bytes of a view: it keeps its whole storage alive, `untyped_storage().nbytes()`":
            Alternatives(once(others, seen), once(others[::-1], seen)),
        "these are numbers, not bytes": once(others, lambda place, view: numbers(place)),
        "4 bytes always: a number of another precision takes more or less":
            once(others, lambda place, view: 4 * numbers(place)),
        "views are told apart by where they begin: `tensor.data_ptr()` is not its storage's":
            sum(size for begin, size in apart.items() if begin not in begins),
        "a view of own is counted: compare storages, not tensors":
            Alternatives(
                once([pair for pair in tensors if pair not in own]),
                once([pair for pair in tensors if (pair[0], pair[1] == "bottom") not in begins]),
            ),
        "only what is saved twice is counted":
            once([pair for pair in others if [place for place, _ in others].count(pair[0]) > 1]),
        "own is counted instead of the rest": once([pair for pair in tensors if pair[0] in known]),
        "own is subtracted, whether it was saved or not: leave out what is saved of it": once(tensors) - once(own),
        "this is the number of storages: add up their bytes": len({place for place, _ in others}),
        "tensors of one size are taken for one: tell storages apart by their address":
            Alternatives(sum({seen(*pair) for pair in others}), sum({whole(place) for place, _ in others})),
    }
    return once(others), mistakes


# 5.4 A step, weighed -------------------------------------------------------------------------------------------------


def kept_bytes(model, loss):
    """Backward, a step of AdamW, and then what is there."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    loss.backward()
    optimizer.step()
    states = [value.nbytes for state in optimizer.state.values() for value in state.values()]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return weights, sum(parameter.grad.nbytes for parameter in trained), sum(states)


class Tied(nn.Module):
    """Embedding and head are one matrix; a layer with biases and a buffer stand between."""

    def __init__(self, words, width, inner, kind):
        super().__init__()
        self.embed, self.head = nn.Embedding(words, width), nn.Linear(width, words, bias=False)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(width))
        self.to(getattr(torch, kind))

    def forward(self, tokens):
        return self.head(self.scale * self.down(torch.tanh(self.up(self.embed(tokens)))))


def step_cases(rng):
    settings = (("float32", ["up.*", "down.*"]), ("float64", ["*.bias"]), ("float32", ["*"]), ("float64", ["down.*"]))
    return [{"words": rng.randint(50, 69), "width": rng.randint(5, 9), "inner": rng.randint(10, 19), "kind": kind,
             "trained": trained} for kind, trained in settings]  # fmt: skip


def drive_step(answer, case):
    model = Tied(case["words"], case["width"], case["inner"], case["kind"])
    train_only(model, case["trained"])
    return answer(model, torch.nn.functional.cross_entropy(model(torch.arange(4)), torch.arange(4) + 1))


def expect_step(case):
    words, width, inner, size = case["words"], case["width"], case["inner"], SIZES[case["kind"]]
    counts = {"embed.weight": words * width, "up.weight": inner * width, "up.bias": inner,
              "down.weight": inner * width, "down.bias": width}  # fmt: skip
    names = [name for name in counts if any(fnmatch.fnmatchcase(name, pattern) for pattern in case["trained"])]
    total, trained = sum(counts.values()), sum(counts[name] for name in names)
    steps = 4 * len(names)  # AdamW counts its steps in a tensor for each parameter

    def answer(weights=total, gradients=trained, states=2 * trained, size=size, steps=steps):
        return Alternatives(*([weights * size, gradients * size, states * size + more] for more in (steps, 0)))

    mistakes = {
        "weights: the trained ones alone are counted, all are stored": answer(weights=trained),
        "weights: the frozen ones alone are counted, all are stored": answer(weights=total - trained),
        "weights: the tied matrix is counted twice: model.parameters() gives it once":
            answer(weights=total + counts["embed.weight"]),
        "weights: this is the state_dict, with the tied matrix twice and the buffer: count model.parameters()":
            answer(weights=total + counts["embed.weight"] + width),
        "weights: buffers are counted, which are no parameters": answer(weights=total + width),
        "gradients of frozen parameters are counted: they have none": answer(gradients=total),
        "no gradients: count them after loss.backward(), before anything clears them": answer(gradients=0),
        "no optimizer states: they are made in the first optimizer.step()": answer(states=0, steps=0),
        "states of frozen parameters are counted: the optimizer keeps none": answer(states=2 * total),
        "one moment of two: AdamW keeps exp_avg and exp_avg_sq": answer(states=trained),
        "this optimizer keeps one moment more: take torch.optim.AdamW as it is": answer(states=3 * trained),
        "states of one parameter alone: go through all of optimizer.state": Alternatives(
            *([total * size, trained * size, 2 * counts[names[place]] * size + more]
              for place in (0, -1) for more in (4, 0))
        ),
        "these are numbers, not bytes": Alternatives(
            [total, trained, 2 * trained], [total, trained, 2 * trained + len(names)]
        ),
        "4 bytes always: ask the tensors, `tensor.nbytes`": answer(size=4),
        "the order is another: weights, gradients, optimizer states":
            Alternatives(*(list(order) for one in answer() for order in list(itertools.permutations(one))[1:])),
    }
    return answer(), mistakes


# 5.5 Train by name ---------------------------------------------------------------------------------------------------


def train_only(model, patterns):
    """The flag of each parameter from its name, whatever it was before."""
    named = dict(model.named_parameters())
    for pattern in patterns:
        if not fnmatch.filter(named, pattern):
            raise ValueError(f"patterns: {pattern!r} matches no parameter: expected one of {', '.join(named)}")
    for name, parameter in named.items():
        parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
    return model


PARTS = ("self_attn.q_proj.weight", "self_attn.q_proj.bias", "mlp.up_proj.weight", "input_layernorm.weight")


def names_of(blocks, parts=PARTS):
    inside = [f"model.layers.{number}.{part}" for number in range(blocks) for part in parts]
    return ["model.embed_tokens.weight", *inside, "model.norm.weight", "lm_head.weight"]


def model_of(names, sizes=None):
    """A module whose parameters have these names, and nothing to compute."""
    whole = nn.Module()
    for name in names:
        module = whole
        *path, last = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_parameter(last, nn.Parameter(torch.zeros(2)))
    return whole


def pattern_cases(rng):
    """Biases; a block beside others of its first digit; two patterns, apart and overlapping; a name; `*` inside."""
    number = rng.randint(2, 7)
    lists = (["*.bias"], ["model.layers.1.*"], [f"model.layers.{number}.*", "model.norm.*"],
             ["*.up_proj.*", f"model.layers.{number}.*"], ["lm_head.weight"], ["model.layers.*.mlp.*"])  # fmt: skip
    before = ["*.bias", f"model.layers.{number}.mlp.*", "model.norm.*", "lm_head.*"]
    return [{"patterns": patterns, "frozen": before, "typo": "*.biases"} for patterns in lists]


def drive_patterns(answer, case):
    """What is trained afterwards, where some was frozen before; whether the model comes back; and a name mistyped."""
    model = model_of(names_of(12))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not matches(name, case["frozen"]))
    try:
        returned = answer(model, list(case["patterns"]))
    except ValueError:
        return {"call": "refused", "trained": [], "returned": "the model", "typo": "named"}
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    kind = "the model" if returned is model else type(returned).__name__
    data = {"call": "runs", "trained": trained, "returned": kind}
    try:
        answer(model_of(names_of(12)), [*case["patterns"], case["typo"]])
    except ValueError as refusal:
        return data | {"typo": "named" if case["typo"] in str(refusal) else "refused"}
    except (TypeError, IndexError, KeyError, AssertionError) as reason:
        return data | {"typo": type(reason).__name__}
    return data | {"typo": "passes"}


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def expect_patterns(case):
    names, patterns, frozen = names_of(12), case["patterns"], case["frozen"]

    def where(keeps):
        return [name for name in names if keeps(name)]

    def begins(name):
        return any(name.startswith(pattern.rstrip("*").rstrip(".")) for pattern in patterns if pattern[0] != "*")

    mistakes = {
        "nothing was frozen: a parameter that no pattern matches has requires_grad False":
            where(lambda name: matches(name, patterns) or not matches(name, frozen)),
        "what was frozen before stays frozen: a parameter that matches has requires_grad True":
            where(lambda name: matches(name, patterns) and not matches(name, frozen)),
        "no flag has changed: `requires_grad` is a parameter's, `parameter.requires_grad_(...)` sets it":
            where(lambda name: not matches(name, frozen)),
        "the other way round: what matches is trained": where(lambda name: not matches(name, patterns)),
        "nothing is trained": [],
        "everything is trained": names,
        "the last pattern alone decides: it is enough that one of them matches":
            where(lambda name: matches(name, patterns[-1:])),
        "the first pattern alone decides: it is enough that one of them matches":
            where(lambda name: matches(name, patterns[:1])),
        "every pattern has to match: it is enough that one of them does":
            where(lambda name: all(matches(name, [pattern]) for pattern in patterns)),
        "a `*` stands for anything inside a name too: match with fnmatch":
            where(lambda name: any(pattern.strip("*") in name for pattern in patterns)),
        "1 is found in 10 and 11 too: a pattern is matched against the whole name, use fnmatch":
            where(lambda name: matches(name, patterns) or begins(name)),
    }
    chosen = where(lambda name: matches(name, patterns))
    right = {"call": "runs", "trained": chosen, "returned": "the model", "typo": "named"}
    return right, {("trained", words): wrong for words, wrong in mistakes.items()} | {
        ("call", "patterns that match are refused: a slip is one that matches no parameter at all"): "refused",
        ("returned", "return the model, so that a method can be called like load(...)"): "NoneType",
        ("typo", "raise a ValueError, as is usual for an argument: an assertion can be switched off"): "AssertionError",
        ("typo", "a pattern that matches nothing is let pass: a slip in it would train nothing, without a word"):
            "passes",
        ("typo", "the ValueError does not say which pattern matches nothing"): "refused",
    }


def remark_patterns(case, data):
    """The first flag that is wrong."""
    for name in names_of(12):
        asked = matches(name, case["patterns"])
        if asked != (name in data["trained"]):
            return f"{name!r} is {'frozen' if asked else 'trained'}, though {'a' if asked else 'no'} pattern matches it"


# 5.6 The last blocks -------------------------------------------------------------------------------------------------


def last_blocks(names, k):
    """Patterns for the blocks from the highest number + 1 - k, and for the norm behind them."""
    count = 1 + max(map(block_of, names))
    return [f"model.layers.{number}.*" for number in range(count - k, count)] + ["model.norm.*"]


def block_of(name):
    """The number of a name's block, -1 outside the blocks."""
    return int(name.split(".")[2]) if name.startswith("model.layers.") else -1


def block_cases(rng):
    """Two, four, twelve and thirteen blocks, so that numbers as texts are out of order; the seed draws their parts."""
    shapes = ((2, 1, 2), (12, 1, 3), (12, 3, 3), (4, 4, 3), (13, 12, 2))
    return [{"arguments": [names_of(blocks, rng.sample(PARTS, count)), k]} for blocks, k, count in shapes]


def drive_blocks(answer, case):
    """The parameters that the patterns choose, in the model's order, and the patterns that choose none."""
    names, k = case["arguments"]
    patterns = answer(list(names), k)
    if isinstance(patterns, str):  # its letters would be patterns, and a * among them matches every name
        raise TypeError("the patterns are one string, expected a list of them")
    patterns = [str(pattern) for pattern in patterns]
    return {"chosen": [name for name in names if matches(name, patterns)],
            "idle": [pattern for pattern in patterns if not fnmatch.filter(names, pattern)]}  # fmt: skip


def expect_blocks(case):
    names, k = case["arguments"]
    count = 1 + max(map(block_of, names))

    def chosen(keeps, norm=True):
        return [name for name in names if keeps(name) or (norm and name == "model.norm.weight")]

    def last(name, k=k):
        return block_of(name) >= count - k

    as_texts = sorted(map(str, range(count)))[-k:]
    highest = int(max(map(str, range(count))))
    mistakes = {
        "the norm behind the blocks, model.norm, is missing": chosen(last, norm=False),
        "these are the first k blocks, which stand next to the input": chosen(lambda name: 0 <= block_of(name) < k),
        "one block too many: the first that is trained has the highest number + 1 - k":
            chosen(lambda name: last(name, k + 1) and block_of(name) >= 0),
        "one block too few: the first that is trained has the highest number + 1 - k":
            chosen(lambda name: last(name, k - 1)),
        "the last block is missing: the highest number is among the blocks":
            chosen(lambda name: last(name) and block_of(name) != count - 1),
        "one block too early: the numbers run from the highest + 1 - k to the highest":
            chosen(lambda name: last(name, k + 1) and 0 <= block_of(name) < count - 1),
        "only the last block: k of them are trained": chosen(lambda name: last(name, 1)),
        "the embeddings are trained: they stay frozen":
            chosen(lambda name: last(name) or name == "model.embed_tokens.weight"),
        "the head is trained: it stays frozen": chosen(lambda name: last(name) or name == "lm_head.weight"),
        "embeddings and head are trained: they stay frozen": chosen(lambda name: last(name) or block_of(name) < 0),
        "numbers are compared as texts, where 9 comes after 10: make them integers": Alternatives(
            chosen(lambda name: str(block_of(name)) in as_texts),
            chosen(lambda name: block_of(name) >= 0 and str(block_of(name)) >= str(count - k)),
            chosen(lambda name: highest - k < block_of(name) <= highest and block_of(name) >= 0),
        ),
        "only block number n - k of n: all blocks from there on are trained":
            chosen(lambda name: block_of(name) == count - k),
        "weights alone: the biases of a block are trained too":
            chosen(lambda name: last(name) and not name.endswith("bias")),
        "biases alone: everything in a block is trained": chosen(lambda name: last(name) and name.endswith("bias")),
        "the norms of these blocks are missing: everything in them is trained":
            chosen(lambda name: last(name) and "norm" not in name),
        "the norms of the lower blocks are trained too: their names hold 'norm', but only model.norm is meant":
            chosen(lambda name: last(name) or "norm" in name),
        "these patterns choose nothing: a name starts with `model.layers.` and the block's number, and `*` stands for"
        " the rest": chosen(lambda name: False, norm=False),
        "the blocks' patterns choose nothing: `*` stands for the rest of a name": chosen(lambda name: False),
        "the frozen names are returned instead of the trained ones":
            [name for name in names if not last(name) and name != "model.norm.weight"],
        "k is taken for a number of names: it counts blocks": names[-k:],
    }
    wrong = {("chosen", words): value for words, value in mistakes.items()}
    return {"chosen": chosen(last), "idle": []}, wrong


def remark_blocks(case, data):
    """Which name is missing or too much says more than two lengths."""
    if data["chosen"] == expect_blocks(case)[0]["chosen"]:
        return f"the pattern {data['idle'][0]!r} matches no name: `train_only` would refuse it"
    expected = expect_blocks(case)[0]["chosen"]
    missing, extra = [x for x in expected if x not in data["chosen"]], [x for x in data["chosen"] if x not in expected]
    return f"{missing[0]!r} is not matched" if missing else f"{extra[0]!r} is not to be trained"


# 5.7 An adapter ------------------------------------------------------------------------------------------------------


class Adapter(nn.Module):
    """y + U gelu(D y + d) + u with y = base(x); U and u are zero at the start."""

    def __init__(self, base, width, size):
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(width, size), nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states):
        y = self.base(states)
        return y + self.up(nn.functional.gelu(self.down(y)))


def adapter_cases(rng):
    """Bottlenecks behind a layer that is square, one that narrows and one that widens."""

    def numbers(*shape):
        return [numbers(*shape[1:]) for _ in range(shape[0])] if shape else round(rng.uniform(-1.5, 1.5), 2)

    cases = []
    for rows, into, width, size in ((2, 4, 4, 3), (3, 5, 3, 2), (2, 3, 5, 1)):
        shapes = {"x": (rows, into), "W": (width, into), "b": (width,),
                  "D": (size, width), "d": (size,), "U": (width, size), "u": (width,)}  # fmt: skip
        cases.append({name: numbers(*shape) for name, shape in shapes.items()})
    return cases


def drive_adapter(answer, case):
    """Whether it holds the layer, its own parameters, where it starts, and what it gives with all numbers set."""
    x, W, b = (torch.tensor(case[name]) for name in "xWb")
    base = nn.Linear(*W.T.shape)
    base.load_state_dict({"weight": W, "bias": b})
    made = answer(base, len(W), len(case["D"]))
    inside = {id(parameter) for parameter in base.parameters()}
    own = [parameter for parameter in made.parameters() if id(parameter) not in inside]
    data = {"base": any(module is base for module in made.modules()), "own": sorted(list(p.shape) for p in own),
            "start": "the layer", "drawn": True, "output": [], "learns": True}  # fmt: skip
    if data["own"] != own_shapes(case) or not data["base"]:
        return data
    zero = not any(bool(parameter.any()) for parameter in own if len(parameter) == len(W))
    alike = bool(torch.allclose(made(x), base(x), atol=1e-6))
    data["start"] = "the layer" if alike else "not y" if zero else "elsewhere"
    data["drawn"] = any(bool(parameter.any()) for parameter in own if parameter.dim() > 1)
    by_shape = {tuple(torch.tensor(case[name]).shape): torch.tensor(case[name]) for name in "DdUu"}
    with torch.no_grad():
        for parameter in own:
            parameter.copy_(by_shape[tuple(parameter.shape)])
    output = made(x)
    if output.requires_grad:
        output.sum().backward()
    return data | {"output": output.tolist(), "learns": all(parameter.grad is not None for parameter in own)}


def own_shapes(case):
    width, size = len(case["W"]), len(case["D"])
    return sorted([[size, width], [size], [width, size], [width]])


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
    W, b, D, d, U, u = (case[name] for name in "WbDdUu")

    def affine(matrix, bias, vector):
        return [sum(m * v for m, v in zip(row, vector)) + more for row, more in zip(matrix, bias)]

    ys = [affine(W, b, x) for x in case["x"]]

    def path(y, bend=gelu):
        return affine(U, u, [bend(z) for z in affine(D, d, y)])

    def by(bend=gelu, around=1, outside=identity, sign=1):
        return [[around * z + sign * outside(more) for z, more in zip(y, path(y, bend))] for y in ys]

    width, size = len(W), len(D)
    before = [[z + more for z, more in zip(y, path([gelu(z) for z in y], identity))] for y in ys]
    mistakes = {("output", words): by(bend) for words, bend in BENDS.items()} | {
        ("output", "y itself is missing: it goes around the bottleneck and is added"): by(around=0),
        ("output", "y is added twice"): by(around=2),
        ("output", "gelu stands behind U: it bends the few dimensions in the middle"): by(bend=identity, outside=gelu),
        ("output", "gelu stands twice: it bends the middle alone, what leaves U is added as it is"): by(outside=gelu),
        ("output", "the sign is turned: the bottleneck is added to y"): by(sign=-1),
        ("start", "it does not start as the layer it wraps: set U and u to zero"): "elsewhere",
        ("start", "with U and u at zero it does not give y, what the layer gives: y goes around and is added once"):
            "not y",
        ("output", "gelu stands before D: it bends the few dimensions in the middle"): before,
        ("drawn", "D and U are both zero: then neither gets a gradient, and nothing is learned"): False,
        ("learns", "no gradient reaches some of D, d, U, u: `.detach()`, `.data` or no_grad cut it off"): False,
        ("base", "the wrapped layer is not among the modules: keep it as `self.base`, not a copy and not in a list"):
            False,
        ("own", "the biases are missing: d has `size` numbers, u has `width`"): sorted([[size, width], [width, size]]),
        ("own", "the bias d is missing"): sorted([[size, width], [width, size], [width]]),
        ("own", "the bias u is missing"): sorted([[size, width], [size], [width, size]]),
        ("own", "no parameters of its own: D, d, U and u are made in __init__ and kept on self"): [],
        ("own", "one linear layer alone: one goes down to `size`, one comes up again"): sorted([[size, width], [size]]),
    }
    if len(case["x"][0]) == width:
        beside = [[z + more for z, more in zip(affine(W, b, x), path(x))] for x in case["x"]]
        mistakes["output", "the bottleneck takes the layer's input: it takes y, what the layer gives"] = beside
    right = {"base": True, "own": own_shapes(case), "start": "the layer", "drawn": True, "output": by(), "learns": True}
    return right, mistakes


def remark_adapter(case, data):
    """Shapes say more than their number."""
    if data["own"] != own_shapes(case):
        return f"its own parameters have shapes {data['own']}, expected those of D, d, U, u: {own_shapes(case)}"


# 5.8 Put in place ----------------------------------------------------------------------------------------------------


def insert_layers(model, places, make):
    """Freeze first: what is made afterwards is trained."""
    model.requires_grad_(False)
    for name in places:
        model.set_submodule(name, make(model.get_submodule(name)))
    return model


class Block(nn.Module):
    """Two layers that write to the stream, and one that does not."""

    def __init__(self):
        super().__init__()
        self.attn = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "o_proj": nn.Linear(2, 2)})
        self.mlp = nn.ModuleDict({"up_proj": nn.Linear(2, 3), "down_proj": nn.Linear(3, 2)})


class Stack(nn.Module):
    """Twelve blocks, so that the name of one begins with that of another."""

    def __init__(self):
        super().__init__()
        self.embed, self.layers = nn.Embedding(3, 2), nn.ModuleList(Block() for _ in range(12))


def place_cases(rng):
    """Both layers of some blocks; all of one kind; a single one."""
    some = sorted(rng.sample(range(2, 12), 3))
    ends = ("attn.o_proj", "mlp.down_proj")
    lists = ([f"layers.{number}.{end}" for number in [1, *some] for end in ends],
             [f"layers.{number}.attn.o_proj" for number in range(12)], ["layers.1.mlp.down_proj"])  # fmt: skip
    return [{"places": places} for places in lists]


def drive_places(answer, case):
    """Where adapters stand and around what, and which parameters are trained."""
    model = Stack()
    before, made = dict(model.named_modules()), []

    def make(layer):
        made.append(Adapter(layer, 2, 1))
        return made[-1]

    returned = answer(model, list(case["places"]), make)
    found = {name: module for name, module in model.named_modules(remove_duplicate=False)
             if isinstance(module, Adapter)}  # fmt: skip
    trained = {kind_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    if any(kind_of(name) == "adapters" and not parameter.requires_grad for name, parameter in model.named_parameters()):
        trained = {kind.replace("adapters", "some adapters") for kind in trained}
    return {
        "returned": "the model" if returned is model else type(returned).__name__,
        "places": list(found),
        "wraps": [module.base is before.get(name) for name, module in found.items()],
        "trained": sorted(trained),
    }


def kind_of(name):
    """Which part of the model a parameter belongs to."""
    inside = ".down." in name or ".up." in name
    return "adapters" if inside else "wrapped layers" if ".base." in name else "the rest"


def expect_places(case):
    places = case["places"]
    order = [name for name, _ in Stack().named_modules() if name in places]
    right = {"returned": "the model", "places": order, "wraps": [True] * len(order), "trained": ["adapters"]}
    mistakes = {
        ("returned", "return the model, so that a method can be called like load(...)"): "NoneType",
        ("returned", "change the model itself and return it, not a copy"): "Stack",
        ("places", "no layer was replaced: `model.set_submodule(name, make(layer))` puts the new one in its place"):
            [],
        ("places", "the first place alone: is the return inside the loop?"): order[:1],
        ("wraps", "each adapter wraps the layer of its own place: make one anew from `model.get_submodule(name)`"):
            [True] + [False] * (len(order) - 1),
        ("wraps", "the adapters wrap something else than the layer that stood there"): [False] * len(order),
        ("trained", "nothing is trained: freeze first, the new parameters come afterwards"): [],
        ("trained", "not all adapters are trained: freeze once, before the first is made"):
            ["some adapters"] if len(places) > 1 else ["adapters"],
        ("trained", "nothing was frozen: the model's own parameters do not change"):
            ["adapters", "the rest", "wrapped layers"],
        ("trained", "the wrapped layers alone are frozen: freeze the whole model"): ["adapters", "the rest"],
        ("trained", "the wrapped layers are still trained: freeze the whole model"): ["adapters", "wrapped layers"],
    }  # fmt: skip
    return right, {key: wrong for key, wrong in mistakes.items() if wrong != right[key[0]]}


def remark_places(case, data):
    """Which place is empty, or filled though nobody asked."""
    found, places = data["places"], case["places"]
    if missing := [name for name in places if name not in found]:
        return f"no adapter stands at {missing[0]!r}: `model.set_submodule(name, make(layer))` puts it there"
    extra = [name for name in found if name not in places]
    return f"an adapter stands at {extra[0]!r}, which is not among the places" if extra else None


# 5.9 Runs to test ----------------------------------------------------------------------------------------------------


class Drifting(Adapter):
    """Its layer fades a little at every call, whatever requires a gradient."""

    def forward(self, states):
        with torch.no_grad():
            self.base.weight.mul_(0.999)
        return super().forward(states)


class Cut(Adapter):
    """What comes in is detached, so that nothing below it learns."""

    def forward(self, states):
        return super().forward(states.detach())


Drifting.__name__ = Cut.__name__ = "Adapter"  # so that a printed network does not tell


def run_of(kind=Adapter, change=lambda adapted: None):
    """A run: a small network, a copy of it with adapters behind both layers, and inputs."""

    def run():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            base = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6))
            adapted = copy.deepcopy(base)
            insert_layers(adapted, ["0", "2"], lambda layer: kind(layer, layer.out_features, 2))
            change(adapted)
            return base, adapted, torch.randn(8, 6)

    return run


def drawn_anew(adapted):
    nn.init.normal_(adapted[2].up.weight)


def all_zero(adapted):
    for place in (0, 2):
        nn.init.zeros_(adapted[place].down.weight)
        nn.init.zeros_(adapted[place].down.bias)


RUNS = {
    "right": run_of(),
    "random": run_of(change=drawn_anew),
    "zero": run_of(change=all_zero),
    "thawed": run_of(change=lambda adapted: adapted.requires_grad_(True)),
    "leaking": run_of(change=lambda adapted: adapted[0].base.bias.requires_grad_(True)),
    "frozen": run_of(change=lambda adapted: adapted.requires_grad_(False)),
    "drifting": run_of(Drifting),
    "cut": run_of(Cut),
}
HINTS = {
    "random": "compare the two networks before anything is trained",
    "zero": "does every trained tensor move within a few steps, D and U too?",
    "thawed": "how much of the adapted network is frozen, against how much the base has?",
    "leaking": "is each tensor of the base frozen in the adapted network?",
    "frozen": "is anything trained at all?",
    "drifting": "compare the frozen tensors with the base's after some steps",
    "cut": "does every trained tensor get a gradient, in the lower layer too?",
}


def is_adapter(run):
    """The package's test: the same at the start, all of the base frozen, and after two steps all else has moved."""
    base, adapted, inputs = run()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    kept = list(base.parameters())
    if not trained or len(frozen) != len(kept) or not torch.allclose(adapted(inputs), base(inputs)):
        return False
    before = [parameter.detach().clone() for parameter in trained]
    optimizer = torch.optim.AdamW(trained)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(inputs).square().mean().backward()
        optimizer.step()
    moved = not any(torch.equal(*pair) for pair in zip(before, trained))
    return moved and all(torch.equal(*pair) for pair in zip(frozen, kept))


EXERCISES = {
    "5.1": Exercise(counting_cases, drive_arguments, expect_counting, points=1, reference=finetuning_bytes,
        tolerance=1e-9,
        signature="finetuning_bytes(parameters: int, trained: int, bytes_per_number: int, moments: int) -> (number,"
        " number, number)"),
    "5.2": Exercise(saving_cases, drive_saved, expect_saved, points=2, reference=saved_tensors, remark=remark_saved,
        signature="saved_tensors(forward: function) -> (float[], list)"),
    "5.3": Exercise(storage_cases, drive_storage, expect_storage, points=2, reference=storage_bytes, tolerance=1e-9,
        signature="storage_bytes(tensors: list, own: list) -> int"),
    "5.4": Exercise(step_cases, drive_step, expect_step, points=2, reference=kept_bytes, tolerance=1e-9,
        signature="kept_bytes(model: any, loss: any) -> (int, int, int)"),
    "5.5": Exercise(pattern_cases, drive_patterns, expect_patterns, points=2, reference=train_only,
        remark=remark_patterns,
        signature="train_only(model: any, patterns: list) -> any"),
    "5.6": Exercise(block_cases, drive_blocks, expect_blocks, points=2, reference=last_blocks, remark=remark_blocks,
        signature="last_blocks(names: list, k: int) -> list of str"),
    "5.7": Exercise(adapter_cases, drive_adapter, expect_adapter, points=3, reference=Adapter, tolerance=1e-5,
        remark=remark_adapter),
    "5.8": Exercise(place_cases, drive_places, expect_places, points=2, reference=insert_layers, remark=remark_places,
        signature="insert_layers(model: any, places: list, make: function) -> any"),
    "5.9": lab_of_runs(RUNS, HINTS, is_adapter, levels=(3, 5, 7)),
}  # fmt: skip
