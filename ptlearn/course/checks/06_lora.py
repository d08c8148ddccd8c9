"""Lesson 06: the path beside a matrix, where it starts, what it counts, merging, silent bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise, lab


def product(left, right):
    """The matrix product of two lists of rows."""
    return [[sum(a * b for a, b in zip(row, column)) for column in zip(*right)] for row in left]


def added(left, right, factor=1.0):
    """left + factor * right, entry by entry."""
    return [[a + factor * b for a, b in zip(*rows)] for rows in zip(left, right)]


def turned(matrix):
    return [list(column) for column in zip(*matrix)]


def drawn(rng, rows, columns):
    return [[round(rng.uniform(-2, 2), 2) for _ in range(columns)] for _ in range(rows)]


# 6.1 The path beside a matrix ----------------------------------------------------------------------------------------


def lora_forward(x, W, A, B, alpha):
    """The answer that the lesson goes on with: W x + alpha / r B A x for rows."""
    return x @ W.T + alpha / len(A) * (x @ A.T) @ B.T


def forward_cases(rng):
    """All sizes alike, so that any order of factors has a shape, then a square weight, then all unlike."""
    cases = []
    for rows, d, k, rank, alpha in ((1, 2, 2, 2, 3), (2, 3, 3, 2, 6.0), (3, 2, 4, 3, 5.0)):
        shapes = {"x": (rows, k), "W": (d, k), "A": (rank, k), "B": (d, rank)}
        cases.append({name: drawn(rng, *shape) for name, shape in shapes.items()} | {"alpha": alpha})
    return cases


def expect_forward(case):
    x, W, A, B, alpha = (case[name] for name in ("x", "W", "A", "B", "alpha"))
    rank, base, path = len(A), product(x, turned(W)), product(product(x, turned(A)), turned(B))
    scale = alpha / rank
    mistakes = {
        "alpha is not divided by the rank: the scale is alpha / r": added(base, path, alpha),
        "the path is not scaled: multiply it by alpha / r": added(base, path),
        "the scale is turned: alpha / r, not r / alpha": added(base, path, rank / alpha),
        "alpha is multiplied by the rank: the scale is alpha / r": added(base, path, alpha * rank),
        "divided by the root of the rank: the scale is alpha / r": added(base, path, alpha / rank**0.5),
        "the scale is applied twice": added(base, path, scale**2),
        "the path is subtracted": added(base, path, -scale),
        "alpha / r multiplies W x too: only the path is scaled": added(added(base, base, scale - 1), path, scale),
        "alpha / r multiplies W x instead of the path": added(path, base, scale),
        "alpha is divided by the width: r is the number of rows of A":
            Alternatives(added(base, path, alpha / len(W)), added(base, path, alpha / len(W[0]))),
        "the number of rows of x divides alpha: r is the number of rows of A": added(base, path, alpha / len(x)),
    }
    if len(W) == len(W[0]):
        mistakes |= {
            "A and B are swapped: A meets x first, so the change is B A, not its transpose":
                added(base, product(x, product(B, A)), scale),
            "W is transposed: for rows of x, W x is x @ W.T": added(product(x, W), path, scale),
        }
    return added(base, path, scale), mistakes


# 6.2 Where it starts -------------------------------------------------------------------------------------------------


def start(rank, k, d):
    """The package's answer: A as a layer of torch starts, B zero."""
    import torch

    return torch.empty(rank, k).uniform_(-(k**-0.5), k**-0.5), torch.zeros(d, rank)


def start_cases(rng):
    return [{"rank": rank, "k": k, "d": d} for rank, k, d in ((3, 40, 30), (4, 4, 60), (1, 5, 2), (2, 7, 3))]


def drive_start(answer, case):
    """What gradient descent meets: B A, and how many of the r rows of A and columns of B, side by side, differ."""
    import torch

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


# 6.3 Counting --------------------------------------------------------------------------------------------------------


def lora_count(shapes, rank):
    """The numbers in A (rank, k) and B (d, rank) of every layer."""
    return sum(rank * (d + k) for d, k in shapes)


def count_cases(rng):
    """One layer; one that is smaller than its factors; then two of one shape and one of another, as in a model."""
    one = [[rng.randint(20, 30), rng.randint(6, 19)]]
    cases = [{"shapes": one, "rank": 4}, {"shapes": [[3, 4]], "rank": 5}]
    for rank in (2, 3, 5):
        wide, narrow = rng.randint(20, 40), rng.randint(6, 19)
        cases.append({"shapes": [[wide, narrow], [wide, narrow], [narrow, wide + 1]], "rank": rank})
    return cases


def drive_count(answer, case):
    return answer([tuple(shape) for shape in case["shapes"]], case["rank"])


def expect_count(case):
    shapes, rank = [tuple(shape) for shape in case["shapes"]], case["rank"]
    sums, full = sum(d + k for d, k in shapes), sum(d * k for d, k in shapes)
    mistakes = {
        "these are the numbers of A alone: B (d, r) is trained too": rank * sum(k for _, k in shapes),
        "these are the numbers of B alone: A (r, k) is trained too": rank * sum(d for d, _ in shapes),
        "this is what full finetuning trains, d k for every layer": full,
        "d k times the rank: A and B are r (d + k), not r d k": rank * full,
        "A times B: their numbers add up, r k and d r": rank * rank * full,
        "the rank multiplies one factor alone: A and B both have r":
            Alternatives(sum(rank * d + k for d, k in shapes), sum(d + rank * k for d, k in shapes)),
        "the frozen weights are counted too: only A and B are trained": rank * sums + full,
        "the trained numbers are subtracted from the frozen ones: count A and B": full - rank * sums,
        "each shape is counted once: every layer has factors of its own": rank * sum(d + k for d, k in set(shapes)),
        "r numbers between A and B are counted as well: there are only the two factors":
            rank * sums + rank * len(shapes),
        "r * r numbers between A and B are counted as well: there are only the two factors":
            rank * sums + rank * rank * len(shapes),
        "biases are counted as well: A and B have none": Alternatives(
            *(rank * sums + more for more in (sum(d for d, _ in shapes), sum(d + rank for d, _ in shapes)))
        ),
        "only the first layer is counted": rank * sum(shapes[0]),
        "only the last layer is counted": rank * sum(shapes[-1]),
        "the rank is added: A has r k numbers and B has d r": Alternatives(rank + sums, sums + rank * len(shapes)),
        "this is their mean over the layers: add them up": rank * sums / len(shapes),
        "both factors have the same length: A has r k numbers, B has d r": Alternatives(
            *(2 * rank * sum(some(shape) for shape in shapes) for some in (min, max, lambda s: s[0], lambda s: s[1]))
        ),
    }
    return rank * sums, mistakes


# 6.4 Merging ---------------------------------------------------------------------------------------------------------


def merged_weight(weight, A, B, alpha, transposed):
    """The package's answer, as `wrappers.LoRA.merge` does it."""
    change = alpha / len(A) * B @ A
    return weight + (change.T if transposed else change)


def merging_cases(rng):
    """All sizes alike and a square weight first, so that a transpose has a shape; both layouts of each."""
    cases = []
    for d, k, rank, alpha in ((2, 2, 2, 5.0), (3, 3, 2, 3), (2, 4, 3, 7.0), (3, 2, 1, 2.0)):
        A, B = drawn(rng, rank, k), drawn(rng, d, rank)
        for transposed in (False, True):
            weight = drawn(rng, *((k, d) if transposed else (d, k)))
            cases.append({"weight": weight, "A": A, "B": B, "alpha": alpha, "transposed": transposed})
    return cases


def expect_merging(case):
    weight, A, B, alpha, transposed = (case[name] for name in ("weight", "A", "B", "alpha", "transposed"))
    rank, change = len(A), product(B, A)
    scale, fitting = alpha / rank, turned(change) if transposed else change
    right = added(weight, fitting, scale)
    mistakes = {
        "the scale is missing: what is added is alpha / r B A": added(weight, fitting),
        "alpha is not divided by the rank: what is added is alpha / r B A": added(weight, fitting, alpha),
        "alpha is multiplied by the rank: what is added is alpha / r B A": added(weight, fitting, alpha * rank),
        "divided by the root of the rank: what is added is alpha / r B A": added(weight, fitting, alpha / rank**0.5),
        "the scale is applied twice": added(weight, fitting, scale**2),
        "the scale is turned: what is added is alpha / r B A, not r / alpha": added(weight, fitting, rank / alpha),
        "alpha is divided by the width: r is the number of rows of A":
            Alternatives(added(weight, fitting, alpha / len(B)), added(weight, fitting, alpha / len(A[0]))),
        "alpha / r multiplies the weight too: only B A is scaled": [[scale * x for x in row] for row in
                                                                    added(weight, fitting)],
        "the path is subtracted, which unmerges": added(weight, fitting, -scale),
        "the path is added twice": added(weight, fitting, 2 * scale),
    }  # fmt: skip
    square = len(weight) == len(weight[0])
    where = {True: "a Conv1D stores its weight as (k, d): add the transpose of B A there",
             False: "the transpose of B A is added: only a Conv1D stores its weight turned"}  # fmt: skip
    mistakes["`transposed` is taken the wrong way: it is True where weight is (k, d)"] = added(
        weight, turned(fitting), scale
    ) if square else None
    mistakes["the result has always the shape (d, k): return it in the layout it came in"] = (
        turned(right) if transposed else right
    )
    for layout, words in where.items():
        mistakes[words] = added(weight, turned(fitting), scale) if square and transposed == layout else right
    return right, {words: wrong for words, wrong in mistakes.items() if wrong is not None}


# 6.5 Silent bugs -----------------------------------------------------------------------------------------------------

BUGS = {"A": "alpha for alpha/r", "B": "base not frozen", "C": "merge without scale", "D": "A is frozen"}
SIGNS = {
    "alpha for alpha/r": "would make the path twice as large at double the rank",
    "base not frozen": "would let training move the base",
    "A is frozen": "would leave A where it started",
    "both zero": "would leave the loss and A where they started",
    "both random": "would make the output at the start another than the base's",
    "merge without scale": "would make merged and unmerged output differ, by the part of the path that is missing",
    "merged twice": "would leave the merged weight right, and only the output after it wrong",
    "merge transposed": "would not have run here: B A is 16 by 24, and its transpose does not fit",
}
SEEN = {
    "A": "look at what doubling the rank does to run A's path",
    "B": "run B learns best of all; look at what training has moved",
    "C": "run C learns like the right one; look at the last column",
    "D": "run D still learns, only worse; look at what training has not moved",
}


EXERCISES = {
    "6.1": Exercise(forward_cases, None, expect_forward, points=1, reference=lora_forward,
        signature="lora_forward(x: float32[N k], W: float32[d k], A: float32[r k], B: float32[d r], alpha: number) ->"
        " float[N d] with gradient of x, A, B"),
    "6.2": Exercise(start_cases, drive_start, expect_start, points=2, reference=start, remark=remark_start,
        signature="start(rank: int, k: int, d: int) -> (float[rank k], float[d rank])"),
    "6.3": Exercise(count_cases, drive_count, expect_count, points=1, reference=lora_count, tolerance=1e-9,
        signature="lora_count(shapes: list, rank: int) -> number"),
    "6.4": Exercise(merging_cases, None, expect_merging, points=2, reference=merged_weight,
        signature="merged_weight(weight: float32[...], A: float32[r k], B: float32[d r], alpha: number, transposed:"
        " bool) -> float[...]"),
    "6.5": lab(3, BUGS, SIGNS, SEEN),
}  # fmt: skip
