"""Answers to lesson 06 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import torch

# 6.1


def forward_by(rule):
    """An answer from W x, B A x, alpha and the rank."""

    def answer(x, W, A, B, alpha):
        return rule(x @ W.T, x @ A.T @ B.T, alpha, len(A))

    return answer


def swapped_factors(x, W, A, B, alpha):
    return x @ W.T + alpha / len(A) * x @ B @ A


def transposed_weight(x, W, A, B, alpha):
    return x @ W + alpha / len(A) * x @ A.T @ B.T


def by_the_width(x, W, A, B, alpha):
    return x @ W.T + alpha / len(W) * x @ A.T @ B.T


def changes_the_weight(x, W, A, B, alpha):
    return x @ W.add_(alpha / len(A) * B @ A).T


def one_product(x, W, A, B, alpha):
    return torch.nn.functional.linear(x, W + (alpha / B.shape[1]) * (B @ A))


def column_by_column(x, W, A, B, alpha):
    return torch.stack([W @ row + B @ (A @ row) * alpha / A.size(0) for row in x])


# 6.2


def start_by(draw_A, draw_B):
    def answer(rank, k, d):
        return draw_A(rank, k), draw_B(d, rank)

    return answer


def start_swapped(rank, k, d):
    return torch.zeros(d, rank), torch.randn(rank, k)


def start_turned(rank, k, d):
    return torch.randn(k, rank), torch.zeros(rank, d)


def start_square(rank, k, d):
    return torch.randn(rank, rank), torch.zeros(d, rank)


def half_each(rank, k, d):
    """B A is zero though neither factor is, and each of the r ranks has something to start from."""
    first = (torch.arange(rank) < rank / 2).float()
    return torch.randn(rank, k) * first[:, None], torch.randn(d, rank) * (1 - first)


def as_linear_layers(rank, k, d):
    down, up = torch.nn.Linear(k, rank, bias=False), torch.nn.Linear(rank, d, bias=False)
    torch.nn.init.zeros_(up.weight)
    return down.weight, up.weight


# 6.3


def count_by(rule):
    def answer(shapes, rank):
        return sum(rule(d, k, rank) for d, k in shapes)

    return answer


def each_shape_once(shapes, rank):
    return sum(rank * (d + k) for d, k in set(shapes))


def first_layer(shapes, rank):
    return rank * sum(shapes[0])


def by_building(shapes, rank):
    factors = [torch.empty(shape) for d, k in shapes for shape in ((rank, k), (d, rank))]
    return sum(factor.numel() for factor in factors)


# 6.4


def merging(change_of, *, turn=lambda change, transposed: change.T if transposed else change):
    """An answer from the change of the weight."""

    def answer(weight, A, B, alpha, transposed):
        return weight + turn(change_of(A, B, alpha), transposed)

    return answer


def scaled(A, B, alpha):
    return alpha / len(A) * B @ A


def in_place(weight, A, B, alpha, transposed):
    weight += scaled(A, B, alpha).T if transposed else scaled(A, B, alpha)
    return weight


def change_alone(weight, A, B, alpha, transposed):
    return scaled(A, B, alpha).T if transposed else scaled(A, B, alpha)


def nothing(weight, A, B, alpha, transposed):
    return weight.clone()


def always_d_k(weight, A, B, alpha, transposed):
    return (weight.T if transposed else weight) + scaled(A, B, alpha)


def turned_out(weight, A, B, alpha, transposed):
    return merging(scaled)(weight, A, B, alpha, transposed).T


def by_the_identity(weight, A, B, alpha, transposed):
    """Reads the weight off the outputs for unit vectors."""
    eye = torch.eye(A.shape[1])
    columns = eye @ (weight if transposed else weight.T) + (eye @ A.T) @ B.T * alpha / B.shape[1]
    return columns if transposed else columns.T


# 6.5

BUGS = {"A": "alpha for alpha/r", "B": "base not frozen", "C": "merge without scale", "D": "A is frozen"}

WRONG = {
    "6.1": [
        (forward_by(lambda base, path, alpha, r: base + alpha * path), "alpha is not divided"),
        (forward_by(lambda base, path, alpha, r: base + path / r), "as if alpha were 1"),
        (forward_by(lambda base, path, alpha, r: base + path), "is not scaled"),
        (forward_by(lambda base, path, alpha, r: base + r / alpha * path), "scale is turned"),
        (forward_by(lambda base, path, alpha, r: alpha / r * path), "as if W were 0"),
        (forward_by(lambda base, path, alpha, r: base), "no gradient reaches A"),
        (forward_by(lambda base, path, alpha, r: base - alpha / r * path), "is subtracted"),
        (forward_by(lambda base, path, alpha, r: alpha / r * (base + path)), "multiplies W x too"),
        (swapped_factors, "A and B are swapped"),
        (transposed_weight, "W is transposed"),
        (by_the_width, "divided by the width"),
        (forward_by(lambda base, path, alpha, r: base + alpha * r * path), "multiplied by the rank"),
        (forward_by(lambda base, path, alpha, r: base + alpha / r**0.5 * path), "root of the rank"),
        (forward_by(lambda base, path, alpha, r: base + (alpha / r) ** 2 * path), "applied twice"),
        (forward_by(lambda base, path, alpha, r: alpha / r * base + path), "instead of the path"),
        (forward_by(lambda base, path, alpha, r: base + (alpha / r * path).detach()), "no gradient reaches A"),
        (forward_by(lambda base, path, alpha, r: (base + alpha / r * path).tolist()), "only a tensor carries"),
        (changes_the_weight, "W was changed in place"),
    ],
    "6.2": [
        (start_by(torch.zeros, torch.zeros), "both are zero"),
        (start_by(torch.randn, torch.randn), "B A is not zero"),
        (start_swapped, "A and B are swapped"),
        (start_turned, "both factors are transposed"),
        (start_square, "A and B have shapes"),
        (start_by(torch.ones, torch.zeros), "are alike"),
        (start_by(lambda *shape: 1e6 * torch.randn(*shape), torch.zeros), "huge or undefined"),
        (start_by(lambda *shape: torch.full(shape, torch.nan), torch.zeros), "huge or undefined"),
        (start_by(torch.randn, lambda *shape: 1e-6 * torch.randn(*shape)), "B A is not zero"),
        (start_by(lambda r, k: torch.randn(k, r), torch.zeros), "A is transposed"),
        (start_by(torch.randn, lambda d, r: torch.zeros(r, d)), "B is transposed"),
        (lambda rank, k, d: torch.randn(rank, k), "expected a tuple"),
        (lambda rank, k, d: {"A": torch.randn(rank, k), "B": torch.zeros(d, rank)}, "is a dict"),
        (start_by(lambda *shape: torch.randn(*shape).tolist(), torch.zeros), "is a list"),
    ],
    "6.3": [
        (count_by(lambda d, k, r: r * k), "A alone"),
        (count_by(lambda d, k, r: r * d), "B alone"),
        (count_by(lambda d, k, r: d * k), "full finetuning"),
        (count_by(lambda d, k, r: r * d * k), "times the rank"),
        (count_by(lambda d, k, r: d * k + r * (d + k)), "frozen weights"),
        (count_by(lambda d, k, r: d + k), "as if rank were 1"),
        (each_shape_once, "counted once"),
        (count_by(lambda d, k, r: r * (d + k) + r), "r numbers between"),
        (count_by(lambda d, k, r: r * (d + k + r)), "r * r numbers"),
        (first_layer, "only the first layer"),
        (count_by(lambda d, k, r: r * d + k), "one factor alone"),
        (count_by(lambda d, k, r: d * k - r * (d + k)), "subtracted from the frozen"),
        (count_by(lambda d, k, r: r * d * r * k), "A times B"),
        (count_by(lambda d, k, r: 2 * r * max(d, k)), "the same length"),
        (count_by(lambda d, k, r: r + d + k), "rank is added"),
        (lambda shapes, rank: [rank * (d + k) for d, k in shapes], "before it is summed"),
    ],
    "6.4": [
        (in_place, "weight was changed in place"),
        (merging(lambda A, B, alpha: B @ A), "scale is missing"),
        (merging(lambda A, B, alpha: alpha * B @ A), "alpha is not divided"),
        (change_alone, "as if weight were 0"),
        (merging(lambda A, B, alpha: -scaled(A, B, alpha)), "subtracted"),
        (merging(lambda A, B, alpha: 2 * scaled(A, B, alpha)), "added twice"),
        (nothing, "as if A were 0"),
        (merging(scaled, turn=lambda change, transposed: change), "a Conv1D stores"),
        (merging(scaled, turn=lambda change, transposed: change.T), "only a Conv1D"),
        (turned_out, "with rows and columns exchanged"),
        (merging(lambda A, B, alpha: alpha * len(A) * B @ A), "multiplied by the rank"),
        (merging(lambda A, B, alpha: alpha / len(A) ** 0.5 * B @ A), "root of the rank"),
        (merging(lambda A, B, alpha: alpha / len(B) * B @ A), "divided by the width"),
        (merging(scaled, turn=lambda change, transposed: change if transposed else change.T), "taken the wrong way"),
        (always_d_k, "always the shape (d, k)"),
    ],
    "6.5": [
        (BUGS | {"A": "both random"}, "another than the base's"),
        (BUGS | {"A": "merge without scale", "C": "alpha for alpha/r"}, "doubling the rank"),
        (BUGS | {"B": "A is frozen", "D": "base not frozen"}, "learns best of all"),
        (BUGS | {"C": "merged twice"}, "merged weight right"),
        (BUGS | {"C": "merge transposed"}, "would not have run"),
        (BUGS | {"D": "both zero"}, "loss and A where they started"),
        (BUGS | {"D": "rank"}, "not on the list"),
        ({"A": "A is frozen"}, "keys A, B, C and D"),
    ],
}
RIGHT = {
    "6.1": [one_product, column_by_column],
    "6.2": [as_linear_layers, half_each, start_by(torch.zeros, torch.randn), start_by(torch.randn, torch.zeros)],
    "6.3": [by_building, count_by(lambda d, k, r: d * r + r * k)],
    "6.4": [by_the_identity, merging(scaled)],
    "6.5": [{run: f" {bug.upper()}" for run, bug in BUGS.items()}],
}
