"""Lesson 06: the path beside a matrix, the layer, its place in a model, rates, merging, switching, truncation, a lab.

What is right is said from the definitions; tensors are made in `drive` alone. Exercises on classes hand over facts of
what a layer does, and `remark` says what the first false one means.
"""

import math
import re

import torch
from torch import nn

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.course.lab import lab_of_runs
from ptlearn.finetuning.wrappers import is_transposed, layer_shape


def product(left, right):
    """The matrix product of two lists of rows."""
    return [[sum(a * b for a, b in zip(row, column)) for column in zip(*right)] for row in left]


def times(factor, matrix):
    return [[factor * entry for entry in row] for row in matrix]


def turned(matrix):
    return [list(column) for column in zip(*matrix)]


def drawn(rng, rows, columns):
    return [[round(rng.uniform(-2, 2), 2) for _ in range(columns)] for _ in range(rows)]


def first_false(facts, words):
    """The words for the first fact that is false; facts that are missing were not come to."""
    return next((said for name, said in words.items() if not facts.get(name, True)), None)


# 6.1 The path beside a matrix ----------------------------------------------------------------------------------------


def lora_path(x, A, B, alpha):
    """The answer that the lesson goes on with: alpha / r B A x for rows."""
    return alpha / len(A) * (x @ A.T) @ B.T


def path_cases(rng):
    """All sizes alike, so that any order of factors has a shape, then a square change, then all unlike."""
    cases = []
    for batch, rows, d, k, rank, alpha in ((2, 2, 2, 2, 2, 3), (1, 2, 3, 3, 2, 6.0), (2, 4, 2, 4, 3, 5.0)):
        case = {"x": [drawn(rng, rows, k) for _ in range(batch)], "A": drawn(rng, rank, k), "B": drawn(rng, d, rank)}
        cases.append(case | {"alpha": alpha})
    return cases


def expect_path(case):
    x, A, B, alpha = (case[name] for name in ("x", "A", "B", "alpha"))
    rank, d, k = len(A), len(B), len(A[0])

    def path(scale, change=None):
        return [times(scale, product(rows, turned(change or product(B, A)))) for rows in x]

    mistakes = {
        "alpha is not divided by the rank: the scale is alpha / r": path(alpha),
        "the path is not scaled: multiply it by alpha / r": path(1),
        "alpha // r drops what is left over: the scale is alpha / r": path(alpha // rank),
        "the scale is turned: alpha / r, not r / alpha": path(rank / alpha),
        "alpha is multiplied by the rank: the scale is alpha / r": path(alpha * rank),
        "divided by the root of the rank: the scale is alpha / r": path(alpha / rank**0.5),
        "the scale is applied twice": path((alpha / rank) ** 2),
        "the path has the wrong sign": path(-alpha / rank),
        "alpha is divided by the width: r is the number of rows of A": Alternatives(path(alpha / d), path(alpha / k)),
        "alpha is divided by a size of x: r is the number of rows of A":
            Alternatives(path(alpha / len(x)), path(alpha / len(x[0]))),
    }  # fmt: skip
    if d == k:
        mistakes |= {
            "A and B are swapped: A meets x first, so the change is B A, not its transpose":
                path(alpha / rank, turned(product(B, A))),
            "x is added: the path is what stands beside W x, and no more":
                [[[a + b for a, b in zip(*rows)] for rows in zip(*pair)] for pair in zip(x, path(alpha / rank))],
        }  # fmt: skip
    return path(alpha / rank), mistakes


# 6.2 Where it starts -------------------------------------------------------------------------------------------------


def start(rank, k, d):
    """The package's answer: A as a layer of torch starts, B zero."""
    return torch.empty(rank, k).uniform_(-(k**-0.5), k**-0.5), torch.zeros(d, rank)


def start_cases(rng):
    return [{"rank": rank, "k": k, "d": d} for rank, k, d in ((3, 40, 30), (4, 4, 60), (1, 5, 2), (2, 7, 3))]


def drive_start(answer, case):
    """What gradient descent meets: B A, and how many of the r rows of A and columns of B, side by side, differ."""
    A, B = (torch.as_tensor(factor).detach().double() for factor in answer(case["rank"], case["k"], case["d"]))
    facts = {"shapes": [list(A.shape), list(B.shape)], "bounded": True, "zero": True, "span": case["rank"]}
    if facts["shapes"] != shapes_of(case):
        return facts
    both = torch.cat([A, B.T], dim=1)
    if not bool(torch.isfinite(both).all()) or float(both.abs().max()) > 100:
        return facts | {"bounded": False}
    return facts | {"zero": not bool((B @ A).any()), "span": int(torch.linalg.matrix_rank(both))}


def shapes_of(case):
    return [[case["rank"], case["k"]], [case["d"], case["rank"]]]


def expect_start(case):
    A, B = shapes_of(case)
    mistakes = {
        "A and B are swapped: return A (rank, k), which meets x, and then B (d, rank)": [B, A],
        "both factors are transposed: A is (rank, k) and B is (d, rank)": [A[::-1], B[::-1]],
        "A is transposed: it is (rank, k)": [A[::-1], B],
        "B is transposed: it is (d, rank)": [A, B[::-1]],
    }
    right = {"shapes": [A, B], "bounded": True, "zero": True, "span": case["rank"]}
    return right, {("shapes", words): shapes for words, shapes in mistakes.items()}


def remark_start(case, data):
    if data["shapes"] != shapes_of(case):
        return f"A and B have shapes {data['shapes']}, expected {shapes_of(case)}"
    if not data["bounded"]:
        return "the factor that is not zero has huge or undefined numbers: draw them, of size 1 / sqrt(k) say"
    if not data["zero"]:
        return "B A is not zero: the model would start somewhere else than at the base"
    if not data["span"]:
        return "both are zero: then both gradients are zero, and nothing is ever learned"
    return "the rows of the factor that is not zero are alike: draw them at random, or the rank stays below r"


# 6.3 A LoRA layer ----------------------------------------------------------------------------------------------------


class LoRALinear(nn.Module):
    """The answer that the lesson goes on with: a frozen layer, and the path beside it."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        d, k = layer_shape(base)
        A, B = start(rank, k, d)
        self.A, self.B, self.alpha = nn.Parameter(A), nn.Parameter(B), alpha

    def forward(self, x):
        return self.base(x) + lora_path(x, self.A.to(x.dtype), self.B.to(x.dtype), self.alpha)


def layer_cases(rng):
    """Unlike sizes; with a bias and without; A and B as they are after some training."""
    return [layer_case(rng, *sizes) for sizes in ((3, 4, 2, 6.0, True), (4, 3, 2, 5.0, False))]


def layer_case(rng, d, k, rank, alpha, bias):
    numbers = {"weight": drawn(rng, d, k), "A": drawn(rng, rank, k), "B": drawn(rng, d, rank), "x": drawn(rng, 2, k)}
    return numbers | {"bias": drawn(rng, 1, d)[0] if bias else None, "alpha": alpha}


def linear(case):
    """The pretrained layer of a case."""
    weight, bias = torch.tensor(case["weight"]), case["bias"]
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


@torch.no_grad()
def trained(layer, case):
    """The layer with the factors that it has after some training."""
    layer.A.copy_(torch.tensor(case["A"]))
    layer.B.copy_(torch.tensor(case["B"]))
    return layer


def far(one, other):
    """The largest difference of two tensors, relative to the second's largest entry; infinite for other shapes."""
    if one.shape != other.shape:
        return math.inf
    return float((one - other).detach().double().abs().max() / other.detach().double().abs().max().clamp(min=1e-9))


def gradients(layer, output):
    """The gradients by A and B of a number made of the output, None where there is none."""
    if not output.requires_grad:
        return None, None
    return torch.autograd.grad(output.square().sum(), [layer.A, layer.B], allow_unused=True)


def drive_layer(answer, case):
    """Facts of a layer, from its making on to half precision."""
    base, x = linear(case), torch.tensor(case["x"])
    layer = answer(base, len(case["A"]), case["alpha"])
    lacking = [name for name in ("base", "A", "B", "alpha") if not hasattr(layer, name)]
    if lacking:
        return {"lacks": lacking}
    named = {id(parameter): name for name, parameter in layer.named_parameters()}
    facts = {
        "same base": layer.base is base,
        "parameters": {id(layer.A), id(layer.B)} <= set(named),
        "frozen": not any(parameter.requires_grad for parameter in base.parameters()),
        "trainable": bool(layer.A.requires_grad and layer.B.requires_grad),
        "shapes": [list(layer.A.shape), list(layer.B.shape)] == [list(torch.tensor(case[n]).shape) for n in "AB"],
    }
    if not all(facts.values()):
        return facts
    begin = layer(x)
    if not torch.is_tensor(begin):
        return facts | {"tensor": False}
    facts["no change"] = not bool((layer.B @ layer.A).any())
    facts["start"] = bool(torch.equal(begin, base(x)))
    facts["begins"] = any(grad is not None and bool(grad.any()) for grad in gradients(layer, begin))
    output = trained(layer, case)(x)
    for name, grad in zip("AB", gradients(layer, output), strict=True):
        facts[f"{name} learns"] = grad is not None
    facts["output"] = output.tolist()
    facts["leading axes"] = far(layer(x.view(2, 1, -1)), output[:, None]) < 1e-4
    half = answer(linear(case).bfloat16(), len(case["A"]), case["alpha"])
    facts["float32"] = half.A.dtype == half.B.dtype == torch.float32
    try:
        facts["bfloat16"] = half(x.bfloat16()).dtype == torch.bfloat16
    except RuntimeError:  # numbers of two precisions in one product
        facts["bfloat16"] = False
    return facts


LAYER = {
    "same base": "self.base is not the layer that was given: keep that one, a copy would be a second set of weights",
    "parameters": "A and B are no parameters of the layer: wrap them in nn.Parameter, or no optimizer finds them",
    "frozen": "the base is still trained: base.requires_grad_(False), its bias too",
    "trainable": "A or B is frozen: only the base is",
    "shapes": "A and B are not (rank, k) and (d, rank): start(rank, k, d), and layer_shape(base) is (d, k)",
    "no change": "before any training B A is not 0: the model would not begin as its base",
    "start": "before any training, with B A = 0, the output is not self.base(x), bias included: forward adds to that",
    "tensor": "forward returns no tensor",
    "A learns": "no gradient reaches A: `.data`, `.detach()`, `.item()` or no_grad cut it off, or it is not used",
    "B learns": "no gradient reaches B: `.data`, `.detach()`, `.item()` or no_grad cut it off, or it is not used",
    "output": "",
    "begins": "A and B are both zero at the start: then both gradients are zero, and nothing is ever learned",
    "leading axes": "x (batch, time, k) gives another result than its rows: only the last axis is that of the layer",
    "float32": "beside a base in bfloat16 A and B are in bfloat16 too: small steps would be rounded away, keep float32",
    "bfloat16": "a base in bfloat16 does not give bfloat16: use A and B in the precision of x, self.A.to(x.dtype)",
}


LATE = ("output", "start", "begins", "leading axes", "bfloat16")  # what a wrong output explains better


def outputs_of(case):
    """What is right after training, and what some mistakes give: {words: output}."""
    rank, alpha, rows = len(case["A"]), case["alpha"], case["x"]
    bias, path = case["bias"] or [0] * len(case["B"]), product(product(rows, turned(case["A"])), turned(case["B"]))
    base = product(rows, turned(case["weight"]))

    def output(scale, of_base=1, of_bias=1):
        return [[of_base * h + scale * p + of_bias * b for h, p, b in zip(*parts, bias)] for parts in zip(base, path)]

    return {
        "": output(alpha / rank),
        "the path does not follow A and B: compute it in forward, from the parameters": output(0),
        "alpha is not divided by the rank: the path is alpha / r B A x": output(alpha),
        "the path is not scaled by alpha / r": output(1),
        "the scale is applied twice: lora_path has it already": output((alpha / rank) ** 2),
        "the path is subtracted": output(-alpha / rank),
        "this is the path alone: add it to self.base(x)": output(alpha / rank, 0, 0),
        "the bias of the base is missing: call self.base(x)": output(alpha / rank, 1, 0),
        "the path is added twice": output(2 * alpha / rank),
        "alpha is divided by the rank twice: lora_path does it already": output(alpha / rank**2),
        "alpha is divided by the outputs: r is the number of rows of A": output(alpha / len(case["B"])),
        "alpha is divided by the inputs: r is the number of rows of A": output(alpha / len(case["A"][0])),
    }


def remark_layer(case, data):
    if "lacks" in data:
        return f"the layer lacks {', '.join(data['lacks'])}: the lesson reads base, A, B and alpha of it"
    if data.get("output") is not None:
        named = outputs_of(case)
        near = [words for words, wrong in named.items() if close(wrong, data["output"])]
        data = data | {"output": "" in near}
        if "" not in near:
            early = {name: said for name, said in LAYER.items() if name not in LATE}
            start = "" if data["start"] else LAYER["start"]
            named = near or [start or "after training the output is not W x + alpha / r B A x"]
            return first_false(data, early) or named[0]
    return first_false(data, LAYER)


def close(one, other, tolerance=1e-4):
    """Whether two lists of rows hold the same numbers up to rounding."""
    one, other = torch.tensor(one), torch.tensor(other)
    return one.shape == other.shape and bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance))


# 6.4 Into a model by name --------------------------------------------------------------------------------------------


def put(model, pattern, wrap):
    """The answer that the lesson goes on with: freeze all, then replace what matches."""
    model.requires_grad_(False)
    found = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name.rpartition(".")[2])]
    if not found:
        raise ValueError(f"pattern={pattern!r}: no layer is called so")
    for name in found:
        model.set_submodule(name, wrap(model.get_submodule(name)))
    return model


class Beside(nn.Module):
    """A wrapper that only remembers what it was put around."""

    def __init__(self, base):
        super().__init__()
        self.base, self.A = base, nn.Parameter(torch.zeros(1))


LAYERS = ("q_proj", "v_proj", "freq_proj", "q_proj2")  # of a block; the last two have a name that holds another's


def tree():
    """A model with layers at three depths and names that contain each other."""
    blocks = nn.ModuleList(nn.ModuleDict({name: nn.Linear(2, 2) for name in LAYERS}) for _ in range(2))
    norm = nn.ModuleDict({"norm": nn.LayerNorm(2)})
    return nn.ModuleDict({"embed": nn.Embedding(3, 2), "blocks": blocks, "last": norm, "q_proj": nn.Linear(2, 2)})


def put_cases(rng):
    return [{"pattern": pattern} for pattern in ("q_proj", "[qv]_proj", ".*_proj", "k_proj")]


def matches(pattern):
    """The layers of the tree that a pattern names."""
    names = ["q_proj", *(f"blocks.{block}.{name}" for block in range(2) for name in LAYERS)]
    return sorted(name for name in names if re.fullmatch(pattern, name.rpartition(".")[2]))


def drive_put(answer, case):
    """Facts: which layers were wrapped, in place, what is trained, what comes back."""
    model = tree()
    layers, given = dict(model.named_modules()), []

    def wrap(layer):
        given.append(layer)
        return Beside(layer)

    try:
        returned = answer(model, case["pattern"], wrap)
    except ValueError as error:
        return {"refused": True, "message": str(error)}
    except Exception as error:
        if matches(case["pattern"]):
            raise
        return {"other error": type(error).__name__}
    wrapped = {name for name in layers if isinstance(found_at(model, name), Beside)}
    anywhere = dict(model.named_modules(remove_duplicate=False))
    return {
        "refused": False,
        "returned": returned is model,
        "wrapped": sorted(wrapped),
        "astray": sorted(name for name, module in anywhere.items()
                         if isinstance(module, Beside) and found_at(model, name) is not module),
        "own": all(any(layer is own for own in layers.values()) for layer in given),
        "trained": sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad),
    }


def found_at(model, name):
    """What stands at a place in the model, or nothing."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def remark_put(case, data):
    pattern, expected = case["pattern"], matches(case["pattern"])
    if "other error" in data:
        return f"a pattern that matches nothing raises a {data['other error']}, expected a ValueError that names it"
    if data["refused"]:
        short = f"ValueError: {data['message']}"
        return None if not expected and pattern in data["message"] else (
            f"{short}, though {expected[0]!r} matches {pattern!r}" if expected else
            f"the message {data['message']!r} does not name the pattern, {pattern!r}")  # fmt: skip
    if not expected:
        return "a pattern that matches nothing raises no ValueError: a spelling mistake would train nothing, silently"
    return wrong_layers(pattern, expected, data) or wrong_training(expected, data)


def wrong_layers(pattern, expected, data):
    """What is wrong about the layers that were wrapped."""
    wrapped = data["wrapped"]
    more, fewer = sorted(set(wrapped) - set(expected)), sorted(set(expected) - set(wrapped))
    if more:
        rule = "the last part of the name has to match as a whole"
        return f"{more[0]!r} is wrapped, which {pattern!r} does not match: {rule}"
    if not wrapped and not data["astray"]:
        return "no layer of the model is replaced: put what wrap returns in its place, model.set_submodule(name, …)"
    if fewer == ["q_proj"]:
        return "'q_proj' is left out, a layer without a dot in its name"
    if fewer and not any("." in name for name in wrapped) and not data["astray"]:
        return f"{fewer[0]!r} is left out: look at model.named_modules(), which goes down to all depths"
    if fewer or data["astray"]:
        at = f", but there is one at {data['astray'][0]!r}" if data["astray"] else ""
        return f"{fewer[0] if fewer else data['astray'][0]!r} is not wrapped once, in its own place{at}"
    if not data["own"]:
        return "wrap is called on something else than the model's own layers"
    return None


def wrong_training(expected, data):
    """What is wrong about the parameters that are trained, or about what comes back."""
    paths = sorted(f"{name}.A" for name in expected)
    if not data["trained"]:
        return "nothing is trained: freeze the model first, and wrap then, or the new parameters are frozen too"
    if more := sorted(set(data["trained"]) - set(paths)):
        inside = any(name.endswith((".base.weight", ".base.bias")) for name in more)
        return f"{more[0]!r} is trained: freeze the whole model{'' if inside else ', not only the layers that match'}"
    if fewer := sorted(set(paths) - set(data["trained"])):
        return f"{fewer[0]!r} is frozen: what wrap adds has to be trained"
    return None if data["returned"] else "the model does not come back: is `return model` missing?"


# 6.5 A rate from a grid ----------------------------------------------------------------------------------------------


def best_rate(rates, losses):
    """The answer that the lesson goes on with: the lowest mean, and whether it lies inside the grid."""
    means = [sum(row) / len(row) for row in losses]
    means = [mean if math.isfinite(mean) else math.inf for mean in means]
    place = means.index(min(means))
    return rates[place], 0 < place < len(rates) - 1


def rate_cases(rng):
    """Three seeds of five rates, at some of which one diverged; drawn until the usual mistakes give other rates."""
    cases = []
    for diverged in (None, None, None, 0, 2, 4, 0, 3):
        losses = [[round(rng.uniform(0.1, 1), 3) for _ in range(3)] for _ in range(5)]
        if diverged is not None:
            losses[diverged] = [round(rng.uniform(0.05, 0.4), 3) for _ in range(3)]  # well, as far as it went
            losses[diverged][rng.randrange(3)] = math.nan
        if diverged == 3:  # far off, and yet no number at all
            losses[diverged] = [2.0, math.nan, 2.5]
        cases.append({"rates": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], "losses": text_of(losses)})
    return cases


def text_of(losses):
    """Losses as JSON-able values: a run that diverged is the word nan."""
    return [["nan" if math.isnan(value) else value for value in row] for row in losses]


def numbers_of(losses):
    return [[float(value) for value in row] for row in losses]


def drive_rate(answer, case):
    rate, inside = answer(list(case["rates"]), numbers_of(case["losses"]))
    return {"rate": float(rate), "inside": bool(inside)}


def expect_rate(case):
    rates, losses = case["rates"], numbers_of(case["losses"])
    finite = [[value if math.isfinite(value) else math.inf for value in row] for row in losses]
    means = [sum(row) / len(row) for row in finite]
    place, last = means.index(min(means)), len(rates) - 1
    kept = [[value for value in row if math.isfinite(value)] for row in losses]
    plainly = [sum(row) / len(row) for row in losses]
    diverged = [i for i, mean in enumerate(plainly) if math.isnan(mean)] or [place]

    def by(score, rows=finite, choose=min):
        scores = [score(row) for row in rows]
        return rates[scores.index(choose(scores))]

    rate = {
        "the highest loss is chosen: lower is better": by(sum, choose=max),
        "the best single run is chosen: take the mean over the seeds": by(min),
        "only the first seed is looked at": by(lambda row: row[0]),
        "only the last seed is looked at": by(lambda row: row[-1]),
        "the worst run decides: take the mean over the seeds": by(max),
        "the median decides: take the mean, in which a seed that diverged shows": by(lambda row: sorted(row)[1]),
        "a seed that diverged is left out of the mean: such a rate is not to be chosen":
            by(lambda row: sum(row) / len(row), kept),
        "a mean that is nan wins: make it infinite first, math.isfinite":
            Alternatives(rates[diverged[0]], rates[plainly.index(min(plainly))]),
        "this is the place in the list, not the rate": float(place),
        "this is the mean loss, not the rate": means[place],
    }  # fmt: skip
    insides = {
        "the last rate has no larger neighbour: it is at the edge too": place > 0,
        "the first rate has no smaller neighbour: it is at the edge too": place < last,
        "it is turned: True where both neighbours were tried": place in (0, last),
        "this is always True": True,
        "this is always False": False,
    }
    mistakes = {("rate", words): value for words, value in rate.items()}
    mistakes |= {("inside", words): value for words, value in insides.items()}
    return {"rate": rates[place], "inside": 0 < place < last}, mistakes


# 6.6 Merge and unmerge -----------------------------------------------------------------------------------------------


class MergingLoRA(LoRALinear):
    """The answer that the lesson goes on with: W0 is kept while the weight is the sum."""

    own = None

    def merge(self):
        if self.own is None:
            change = (self.alpha / len(self.A) * self.B @ self.A).detach()
            change = change.T if is_transposed(self.base) else change
            self.own = self.base.weight.detach()
            self.base.weight = nn.Parameter((self.own + change).to(self.own.dtype), requires_grad=False)

    def unmerge(self):
        if self.own is not None:
            self.base.weight, self.own = nn.Parameter(self.own, requires_grad=False), None

    def forward(self, x):
        return super().forward(x) if self.own is None else self.base(x)


class Conv1D(nn.Module):
    """A linear layer as GPT-2 stores it, weight (k, d), known by its name."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x @ self.weight


def merging_cases(rng):
    """A square weight, so that a transpose has a shape, as a Linear, as a Conv1D, and in half precision."""
    cases = []
    for kind, d, k, rank, alpha in (("Linear", 4, 4, 2, 6.0), ("Conv1D", 4, 4, 2, 5.0), ("bfloat16", 3, 5, 2, 3.0)):
        numbers = {"A": drawn(rng, rank, k), "B": drawn(rng, d, rank), "x": drawn(rng, 3, k)}
        numbers["weight"] = [[rng.uniform(-2, 2) for _ in range(k)] for _ in range(d)]
        cases.append(numbers | {"kind": kind, "alpha": alpha, "bias": None})
    return cases


def base_of(case):
    """The pretrained layer of a case, in its layout and precision."""
    if case["kind"] == "Conv1D":
        return Conv1D(torch.tensor(case["weight"]).T.contiguous())
    layer = linear(case)
    return layer.bfloat16() if case["kind"] == "bfloat16" else layer


def drive_merging(answer, case):
    """Facts of a layer that is merged, merged again and unmerged, with a second layer that shares its weight."""
    base = base_of(case)
    x = torch.tensor(case["x"], dtype=base.weight.dtype)
    own, shared = base.weight.detach().clone(), nn.Module()
    layer = trained(answer(base, len(case["A"]), case["alpha"]), case)
    shared.weight = base.weight
    apart = layer(x).detach()
    facts = {"idle unmerge": idle(layer, x, apart)}
    if not facts["idle unmerge"]:
        return facts
    try:
        layer.merge()
    except KeyError:  # torch's, of a parameter where the class has another attribute
        return facts | {"kept": False}
    once = base.weight.detach().clone()
    facts |= {"weight": once.float().tolist(), "dtype": once.dtype == own.dtype}
    if not facts["dtype"]:
        return facts
    facts["output"] = far(layer(x), apart) < tolerance_of(case)
    facts["shared"] = torch.equal(shared.weight, own)
    facts["frozen"] = not base.weight.requires_grad
    layer.merge()
    facts["merged twice"] = torch.equal(base.weight, once)
    facts["factors"] = layer.A.tolist() == torch.tensor(case["A"]).tolist() and bool((layer.B != 0).any())
    with torch.no_grad():
        kept = layer.B.clone()
        facts["one product"] = bool(torch.isfinite(layer(x)).all()) and equal_without_path(layer, x)
        layer.B.copy_(kept)
    layer.unmerge()
    facts["near W0"] = far(base.weight, own) < 0.05
    facts["restored"] = torch.equal(base.weight, own)
    facts["frozen again"] = not base.weight.requires_grad
    facts["unmerged output"] = torch.equal(layer(x), apart)
    return facts


def idle(layer, x, before):
    """Whether unmerge does nothing where nothing is merged."""
    try:
        layer.unmerge()
        return torch.equal(layer(x), before)
    except Exception:
        return False


def equal_without_path(layer, x):
    """Whether a merged layer gives the same when its factors are gone."""
    before = layer(x).clone()
    layer.B.fill_(math.nan)
    return torch.equal(layer(x), before)


def tolerance_of(case):
    return 0.03 if case["kind"] == "bfloat16" else 1e-4


def merged_weights(case):
    """What is right for the merged weight, (d, k), and what some mistakes give: {words: weight}."""
    weight, A, B = (torch.tensor(case[name]) for name in ("weight", "A", "B"))
    change, rank, alpha = B @ A, len(A), case["alpha"]
    scales = {
        "": alpha / rank,
        "merge leaves base.weight as it is": 0,
        "the scale is missing: what is added is alpha / r B A": 1,
        "alpha is not divided by the rank: what is added is alpha / r B A": alpha,
        "the scale is turned: what is added is alpha / r B A": rank / alpha,
        "the path is subtracted": -alpha / rank,
        "the change is added twice": 2 * alpha / rank,
    }
    found = {words: weight + scale * change for words, scale in scales.items()}
    if weight.shape[0] == weight.shape[1]:
        conv = case["kind"] == "Conv1D"
        turned = "a Conv1D stores its weight as (k, d): add the transpose of B A there" if conv else \
            "the transpose of B A is added: only a Conv1D stores its weight turned"  # fmt: skip
        found[turned] = weight + alpha / rank * change.T
    found["base.weight is the change alone: W0 + alpha / r B A"] = alpha / rank * change
    return found


MERGING = {
    "idle unmerge": "unmerge of a layer that is not merged changes it, or fails: it has nothing to do there",
    "kept": "self.own is a parameter, which torch would register as one of this layer: keep base.weight.detach()",
    "dtype": "the merged weight has another precision than W0: .to(weight.dtype)",
    "weight": "the merged weight is not W0 + alpha / r B A",
    "output": "the path still runs beside the merged weight, so that it counts twice: merged, forward is self.base(x)",
    "one product": "merged, forward still looks at A and B: it has to be one product, self.base(x)",
    "merged twice": "a second merge() adds the change a second time: remember that it is merged",
    "shared": "W0 was changed in place, and another layer that shares it changed too: put a new nn.Parameter there",
    "frozen": "the merged weight is trained: requires_grad=False",
    "factors": "merging changed A or B: unmerged, they are needed again",
    "near W0": "after unmerge the weight is not W0",
    "restored": "after unmerge the weight is W0 only up to rounding: keep W0 while merged and put it back",
    "frozen again": "after unmerge W0 is trained: requires_grad=False",
    "unmerged output": "after unmerge the output is not what it was before: the path has to run again",
}


def remark_merging(case, data):
    if "weight" not in data:
        return first_false(data, MERGING)
    rows = data["weight"] if case["kind"] != "Conv1D" else turned(data["weight"])
    near = [words for words, wrong in merged_weights(case).items() if close(wrong.tolist(), rows, tolerance_of(case))]
    if data["dtype"] and data["idle unmerge"] and "" not in near:
        return near[0] if near else MERGING["weight"]
    return first_false(data | {"weight": True}, MERGING)


# 6.7 Several adapters ------------------------------------------------------------------------------------------------


class SwitchingLoRA(nn.Module):
    """The answer that the lesson goes on with: paths by name around one base, and the name of the one in use."""

    def __init__(self, base):
        super().__init__()
        self.base, self.adapters, self.active = base.requires_grad_(False), nn.ModuleDict(), None

    def add(self, name, rank, alpha):
        self.switch(None)
        self.adapters[name] = MergingLoRA(self.base, rank, alpha)
        self.switch(name)

    def switch(self, name):
        if name is not None and name not in self.adapters:
            raise ValueError(f"name={name!r}: expected None or one of {', '.join(self.adapters) or '(none)'}")
        if self.active is not None:
            self.adapters[self.active].unmerge()
        self.active = name
        for other, layer in self.adapters.items():
            layer.A.requires_grad_(other == name)
            layer.B.requires_grad_(other == name)

    def forward(self, x):
        return self.base(x) if self.active is None else self.adapters[self.active](x)


def switching_cases(rng):
    """Two adapters of unlike ranks around one layer."""
    case = layer_case(rng, 3, 4, 2, 6.0, True)
    return [case | {"second": {"A": drawn(rng, 1, 4), "B": drawn(rng, 3, 1)}, "second alpha": 2.0}]


def drive_switching(answer, case):
    """Facts of a layer with two adapters: each alone, the base alone, what is trained, and after a merge."""
    base, x = linear(case), torch.tensor(case["x"])
    own = base(x).detach()
    layer = answer(base)
    facts = {"bare": torch.equal(layer(x), own)}
    wanted = {}
    for name, factors, alpha in (("one", case, case["alpha"]), ("two", case["second"], case["second alpha"])):
        layer.add(name, len(factors["A"]), alpha)
        if not hasattr(layer, "adapters") or name not in layer.adapters:
            return facts | {"named": False}
        facts["new one starts at the base"] = torch.equal(layer(x), own)
        trained(layer.adapters[name], factors)
        A, B = torch.tensor(factors["A"]), torch.tensor(factors["B"])
        wanted[name] = own + alpha / len(A) * x @ A.T @ B.T
        facts["new one is in use"] = not torch.equal(layer(x), own)
        facts["new one is right"] = far(layer(x), wanted[name]) < 1e-4
        if not all(facts.values()):
            return facts
    facts |= {"registered": isinstance(layer.adapters, nn.ModuleDict), "frozen": not base.weight.requires_grad}
    facts["one base"] = all(adapter.base is base for adapter in layer.adapters.values())
    facts |= switched(layer, x, own, wanted)
    return facts | after_merging(layer, x, own, wanted) if all(facts.values()) else facts


def switched(layer, x, own, wanted):
    """Each of the two, the base, what is trained meanwhile, and a name that nobody gave."""
    facts = {"each alone": True, "trained": True}
    for name in ("one", "two", "one"):
        layer.switch(name)
        facts["both"] = facts.get("both", True) and far(layer(x), wanted["one"] + wanted["two"] - own) > 1e-4
        facts["each alone"] &= far(layer(x), wanted[name]) < 1e-4
        training = {(other, part) for other, adapter in layer.adapters.items() for part in "AB"
                    if getattr(adapter, part).requires_grad}  # fmt: skip
        facts["trained"] &= training == {(name, "A"), (name, "B")}
    facts |= switched_to_nobody(layer, x, wanted["one"])
    if not all(facts.values()):
        return facts
    layer.switch(None)
    facts["base alone"] = torch.equal(layer(x), own)
    facts["none is trained"] = not any(parameter.requires_grad for parameter in layer.parameters())
    return facts


def switched_to_nobody(layer, x, before):
    """What a name does that was never added."""
    try:
        layer.switch("nobody")
        return {"unknown": False}
    except ValueError as error:
        said = str(error)
    except Exception:
        return {"unknown": False}
    try:
        kept = far(layer(x), before) < 1e-4
    except Exception:
        kept = False
    return {"names it": "nobody" in said, "kept": kept}


def after_merging(layer, x, own, wanted):
    """What is left of an adapter that was merged when another one is switched to, or added."""
    layer.switch("one")
    layer.adapters["one"].merge()
    facts = {"merged": far(layer(x), wanted["one"]) < 1e-4}
    layer.switch("two")
    facts["merged and switched"] = far(layer(x), wanted["two"]) < 1e-4
    layer.switch("one")
    layer.adapters["one"].merge()
    layer.switch(None)
    facts["merged and off"] = torch.equal(layer(x), own)
    layer.switch("one")
    layer.adapters["one"].merge()
    layer.add("three", 1, 1.0)
    facts["merged and added"] = torch.equal(layer(x), own)
    return facts


SWITCHING = {
    "bare": "without an adapter the output is not the base's: active is None at the start",
    "named": "layer.adapters does not hold the adapter by its name after add(name, …)",
    "new one starts at the base": "just after add the output is not the base's: the new path starts at zero, and alone",
    "new one is in use": "add does not switch to the new adapter",
    "new one is right": "the output of a new adapter is not that of its A, B, rank and alpha: hand rank and alpha on",
    "registered": "adapters is no nn.ModuleDict: what it holds is then no parameter, and not moved or saved",
    "frozen": "the base is trained: base.requires_grad_(False)",
    "one base": "an adapter has a base of its own: all of them share self.base",
    "both": "the paths of both adapters run: only the active one may",
    "each alone": "after switch(name) the output is not that of this adapter",
    "trained": "the factors in use have to be trained and those of the others frozen: requires_grad_(other == name)",
    "unknown": "switch to a name that was never added: raise a ValueError",
    "names it": "the ValueError of switch does not say which name was given",
    "kept": "switch to an unknown name raised after it had changed the layer: look at the name first",
    "base alone": "after switch(None) the output is not that of the base, bit for bit",
    "none is trained": "after switch(None) something is still trained",
    "merged": "an adapter that was merged gives another output than unmerged: forward calls the active adapter",
    "merged and switched": "a merged adapter stays in the weight after a switch to another: unmerge it first",
    "merged and off": "a merged adapter stays in the weight after switch(None): unmerge it first",
    "merged and added": "a merged adapter stays in the weight when a new one is added: unmerge it first",
}


def remark_switching(case, data):
    return first_false(data, SWITCHING)


# 6.8 An update of rank r ---------------------------------------------------------------------------------------------


def low_rank(matrix, rank):
    """The answer that the lesson goes on with: the largest singular values and their vectors."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] * S[:rank] @ Vh[:rank]


def low_rank_cases(rng):
    shapes = ((3, 3, 1), (4, 5, 2), (5, 3, 2), (4, 4, 3))
    return [{"matrix": drawn(rng, *shape), "rank": rank} for *shape, rank in shapes]


def expect_low_rank(case):
    matrix, rank = torch.tensor(case["matrix"], dtype=torch.float64), case["rank"]
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)

    def built(places, values=S):
        return ((U[:, places] * values[places]) @ Vh[places]).tolist()

    def kept(count):
        return built(slice(0, count))

    cut = torch.zeros_like(matrix)
    cut[:rank, :rank] = matrix[:rank, :rank]
    mistakes = {
        "the smallest singular values are kept: the first ones are the largest": built(slice(len(S) - rank, len(S))),
        "this is what is left over: the matrix less its part of rank r": built(slice(rank, len(S))),
        "the singular values are missing: scale the columns of U by them":
            (U[:, :rank] @ Vh[:rank]).tolist(),
        "the singular values are squared": built(slice(0, rank), S.square()),
        "one singular value too many is kept": kept(rank + 1),
        "one singular value too few is kept": kept(rank - 1),
        "nothing is cut: keep the first `rank` singular values": matrix.tolist(),
        "rows and columns of the matrix are cut, not its singular values": cut.tolist(),
    }  # fmt: skip
    if len(matrix) == len(matrix[0]):
        mistakes["Vh comes transposed already: take its rows"] = ((U[:, :rank] * S[:rank]) @ Vh[:, :rank].T).tolist()
    right = kept(rank)
    return right, {words: wrong for words, wrong in mistakes.items() if not close(wrong, right)}


# 6.9 Silent bugs -----------------------------------------------------------------------------------------------------


class Elsewhere(MergingLoRA):
    """Starts a little beside the base."""

    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.B.data.normal_(std=0.02)


class Unfrozen(MergingLoRA):
    """Trains the base too."""

    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.base.requires_grad_(True)


class Deaf(MergingLoRA):
    """No gradient reaches A."""

    def forward(self, x):
        path = lora_path(x, self.A.detach(), self.B, self.alpha)
        return self.base(x) + path if self.own is None else self.base(x)


class Unscaled(MergingLoRA):
    """Merges B A without its scale."""

    def merge(self):
        alpha, self.alpha = self.alpha, len(self.A)
        super().merge()
        self.alpha = alpha


class Twice(MergingLoRA):
    """The path runs on beside the merged weight."""

    def forward(self, x):
        return LoRALinear.forward(self, x)


class Subtracting(MergingLoRA):
    """Unmerges by taking the change off again."""

    def unmerge(self):
        if self.own is not None:
            weight, self.own = self.base.weight.detach(), None
            change = (self.alpha / len(self.A) * self.B @ self.A).detach()
            self.base.weight = nn.Parameter(weight - change, requires_grad=False)


RUNS = {
    "right": MergingLoRA,
    "alpha": lambda base, rank, alpha: MergingLoRA(base, rank, alpha * rank),
    "start": Elsewhere,
    "base": Unfrozen,
    "A": Deaf,
    "scale": Unscaled,
    "twice": Twice,
    "rounding": Subtracting,
}
HINTS = {
    "alpha": "the path should be alpha / r B A x: give A and B numbers and compare, with r above 1",
    "start": "before any training the output should be the base's, bit for bit",
    "base": "only A and B should be trained: look at requires_grad of every parameter",
    "A": "a gradient should reach A: give B numbers, call backward and look at A.grad",
    "scale": "the merged weight should be W0 + alpha / r B A: compare outputs before and after merge, B not 0",
    "twice": "merged, the output should be what it was before: compare outputs before and after merge, B not 0",
    "rounding": "unmerged, base.weight should be the old one bit for bit: compare with torch.equal",
}


def layer_test(run):
    """The package's answer: the start, the path, what is trained, and merging there and back."""
    base, x = nn.Linear(24, 16), torch.randn(8, 24)
    own, before = base.weight.detach().clone(), base(x)
    layer = run(base, 4, 6.0)
    if not torch.equal(layer(x), before):
        return False
    layer.B.data.normal_()
    apart = layer(x)
    apart.square().sum().backward()
    trained = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
    if trained != {"A", "B"} or layer.A.grad is None or layer.B.grad is None:
        return False
    right = torch.allclose(apart, before + 6.0 / 4 * x @ layer.A.T @ layer.B.T, atol=1e-3)
    layer.merge()
    merged = torch.allclose(layer(x), apart, atol=1e-3)
    layer.unmerge()
    return right and merged and torch.equal(base.weight, own)


EXERCISES = {
    "6.1": Exercise(path_cases, None, expect_path, points=1, reference=lora_path,
        signature="lora_path(x: float32[N T k], A: float32[r k], B: float32[d r], alpha: number) ->"
        " float[N T d] with gradient of x, A, B"),
    "6.2": Exercise(start_cases, drive_start, expect_start, points=2, reference=start, remark=remark_start,
        signature="start(rank: int, k: int, d: int) -> (float[rank k], float[d rank])"),
    "6.3": Exercise(layer_cases, drive_layer, None, points=3, reference=LoRALinear, remark=remark_layer),
    "6.4": Exercise(put_cases, drive_put, None, points=3, reference=put, remark=remark_put),
    "6.5": Exercise(rate_cases, drive_rate, expect_rate, points=2, reference=best_rate,
        signature="best_rate(rates: list, losses: list) -> (number, bool)"),
    "6.6": Exercise(merging_cases, drive_merging, None, points=3, reference=MergingLoRA, remark=remark_merging),
    "6.7": Exercise(switching_cases, drive_switching, None, points=3, reference=SwitchingLoRA,
        remark=remark_switching),
    "6.8": Exercise(low_rank_cases, None, expect_low_rank, points=1, reference=low_rank,
        signature="low_rank(matrix: float[d k], rank: int) -> float[d k]"),
    "6.9": lab_of_runs(RUNS, HINTS, layer_test, levels=(2, 4, 6, 7)),
}  # fmt: skip
