"""Lesson 06: the path beside a matrix, where it starts, what it counts, merging, silent bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

from ptlearn.course.diagnosis import differences, misnamed
from ptlearn.course.exercise import Exercise


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
    """A square weight, so that a swapped product has a shape, and one that is not; ranks 2 and 3."""
    cases = []
    for d, k, rank, alpha in ((3, 3, 2, 6.0), (2, 4, 3, 5.0)):
        shapes = {"x": (2, k), "W": (d, k), "A": (rank, k), "B": (d, rank)}
        cases.append({name: drawn(rng, *shape) for name, shape in shapes.items()} | {"alpha": alpha})
    return cases


def drive_forward(answer, case):
    import torch

    return answer(*(torch.tensor(case[name]) for name in "xWAB"), case["alpha"])


def verify_forward(case, data):
    x, W, A, B, alpha = (case[name] for name in ("x", "W", "A", "B", "alpha"))
    rank, base, path = len(A), product(x, turned(W)), product(product(x, turned(A)), turned(B))
    mistakes = {
        "alpha is not divided by the rank: the scale is alpha / r": added(base, path, alpha),
        "divided by the rank, and alpha is missing: the scale is alpha / r": added(base, path, 1 / rank),
        "the path is not scaled: multiply it by alpha / r": added(base, path),
        "the scale is turned: alpha / r, not r / alpha": added(base, path, rank / alpha),
        "W x is missing: the path runs beside the matrix, not in its place": added(path, path, alpha / rank - 1),
        "the path is missing: this is W x alone": base,
        "the path is subtracted": added(base, path, -alpha / rank),
        "alpha / r multiplies W x too: only the path is scaled": (
            added(added(base, base, alpha / rank - 1), path, alpha / rank)
        ),
    }
    if len(W) == len(W[0]):
        mistakes |= {
            "A and B are swapped: A meets x first, so the change is B A, not its transpose": (
                added(base, product(x, product(B, A)), alpha / rank)
            ),
            "W is transposed: for rows of x, W x is x @ W.T": added(product(x, W), path, alpha / rank),
            "alpha is divided by the width: r is the number of rows of A": added(base, path, alpha / len(W)),
        }
    return differences(data, added(base, path, alpha / rank), mistakes)


# 6.2 Where it starts -------------------------------------------------------------------------------------------------


def start(rank, k, d):
    """The package's answer: A as a layer of torch starts, B zero."""
    import torch

    return torch.empty(rank, k).uniform_(-(k**-0.5), k**-0.5), torch.zeros(d, rank)


def start_cases(rng):
    return [{"rank": rank, "k": k, "d": d} for rank, k, d in ((3, 40, 30), (4, 4, 60))]


def drive_start(answer, case):
    import torch

    A, B = answer(case["rank"], case["k"], case["d"])
    largest = [float(factor.detach().abs().max()) for factor in (A, B)]
    span = [int(torch.linalg.matrix_rank(factor.detach().float())) for factor in (A, B)]
    return {"shapes": [list(A.shape), list(B.shape)], "largest": largest, "span": span}


def verify_start(case, data):
    rank, k, d = case["rank"], case["k"], case["d"]
    if data["shapes"] == [[d, rank], [rank, k]]:
        return "A and B are swapped: return A (rank, k), which meets x, and then B (d, rank)"
    if data["shapes"] == [[k, rank], [rank, d]]:
        return "both factors are transposed: A is (rank, k) and B is (d, rank)"
    wanted = [[rank, k], [d, rank]]
    if data["shapes"] != wanted:
        return f"A and B have shapes {data['shapes']}, expected {wanted}"
    zero, (A, B) = [value == 0 for value in data["largest"]], data["largest"]
    if all(zero):
        return "both are zero: then both gradients are zero, and nothing is ever learned"
    if not any(zero):
        return "B A is not zero: the model would start somewhere else than at the base"
    if max(A, B) != max(A, B) or max(A, B) > 100:
        return "the factor that is not zero has huge or undefined numbers: draw them, of size 1 / sqrt(k) say"
    if max(data["span"]) < rank:
        return "the rows of the factor that is not zero are alike: draw them at random, or the rank stays below r"
    return None


# 6.3 Counting --------------------------------------------------------------------------------------------------------


def lora_count(shapes, rank):
    """The numbers in A (rank, k) and B (d, rank) of every layer."""
    return sum(rank * (d + k) for d, k in shapes)


def count_cases(rng):
    """Two layers of one shape and one of another, as in a model."""
    cases = []
    for rank in (2, 3, 5):
        wide, narrow = rng.randint(20, 40), rng.randint(6, 19)
        cases.append({"shapes": [[wide, narrow], [wide, narrow], [narrow, wide + 1]], "rank": rank})
    return cases


def drive_count(answer, case):
    return answer([tuple(shape) for shape in case["shapes"]], case["rank"])


def verify_count(case, data):
    shapes, rank = [tuple(shape) for shape in case["shapes"]], case["rank"]
    sums = sum(d + k for d, k in shapes)
    mistakes = {
        "these are the numbers of A alone: B (d, r) is trained too": rank * sum(k for _, k in shapes),
        "these are the numbers of B alone: A (r, k) is trained too": rank * sum(d for d, _ in shapes),
        "this is what full finetuning trains, d k for every layer": sum(d * k for d, k in shapes),
        "d k times the rank: A and B are r (d + k), not r d k": rank * sum(d * k for d, k in shapes),
        "the frozen weights are counted too: only A and B are trained": rank * sums + sum(d * k for d, k in shapes),
        "the rank is missing: this is right for r = 1": sums,
        "each shape is counted once: every layer has factors of its own": lora_count(set(shapes), rank),
        "r numbers between A and B are counted as well: there are only the two factors": (
            rank * sums + rank * len(shapes)
        ),
        "r * r numbers between A and B are counted as well: there are only the two factors": (
            rank * sums + rank * rank * len(shapes)
        ),
        "only the first layer is counted": lora_count(shapes[:1], rank),
    }
    return differences(data, lora_count(shapes, rank), mistakes, tolerance=1e-9)


# 6.4 Merging ---------------------------------------------------------------------------------------------------------


def merged_weight(weight, A, B, alpha, transposed):
    """The package's answer, as `wrappers.LoRA.merge` does it."""
    change = alpha / len(A) * B @ A
    return weight + (change.T if transposed else change)


def merging_cases(rng):
    """Square weights first, so that a transpose has a shape; both layouts."""
    cases = []
    for d, k, transposed in ((3, 3, False), (3, 3, True), (2, 4, True), (4, 2, False)):
        case = {"weight": drawn(rng, *((k, d) if transposed else (d, k))), "A": drawn(rng, 3, k), "B": drawn(rng, d, 3)}
        cases.append(case | {"alpha": 5.0, "transposed": transposed})
    return cases


def drive_merging(answer, case):
    import torch

    weight, A, B = (torch.tensor(case[name]) for name in ("weight", "A", "B"))
    merged = answer(weight, A, B, case["alpha"], case["transposed"])
    return {"merged": merged, "weight": weight}


def verify_merging(case, data):
    weight, A, B, alpha, transposed = (case[name] for name in ("weight", "A", "B", "alpha", "transposed"))
    rank = len(A)
    change = product(B, A)
    fitting, other = (turned(change), change) if transposed else (change, turned(change))

    def result(merged, after=weight):
        return {"merged": merged, "weight": after}

    right = added(weight, fitting, alpha / rank)
    mistakes = {
        "the base's own weight was changed: return a new tensor, or unmerging has nothing to go back to": (
            result(right, right)
        ),
        "the scale is missing: what is added is alpha / r B A": result(added(weight, fitting)),
        "alpha is not divided by the rank: what is added is alpha / r B A": result(added(weight, fitting, alpha)),
        "this is the change alone: add it to the weight": result(added(fitting, fitting, alpha / rank - 1)),
        "the path is subtracted, which unmerges": result(added(weight, fitting, -alpha / rank)),
        "the path is added twice": result(added(weight, fitting, 2 * alpha / rank)),
        "nothing is merged: this is the weight as it was": result(weight),
    }
    if len(weight) == len(weight[0]):
        where = "a Conv1D stores its weight as (k, d): add the transpose of B A there" if transposed else (
            "the transpose of B A is added: only a Conv1D stores its weight turned"
        )  # fmt: skip
        mistakes[where] = result(added(weight, other, alpha / rank))
        mistakes["the merged weight is turned: return it in the layout it came in"] = result(turned(right))
    return differences(data, result(right), mistakes)


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


def verify_bugs(case, data):
    return misnamed(data, BUGS, SIGNS, SEEN)


EXERCISES = {
    "6.1": Exercise(forward_cases, drive_forward, verify_forward, points=1, reference=lora_forward),
    "6.2": Exercise(start_cases, drive_start, verify_start, points=2, reference=start),
    "6.3": Exercise(count_cases, drive_count, verify_count, points=1, reference=lora_count),
    "6.4": Exercise(merging_cases, drive_merging, verify_merging, points=2, reference=merged_weight),
    "6.5": Exercise(lambda rng: [sorted(SIGNS)], lambda answer, case: answer, verify_bugs, points=3, reference=BUGS),
}
