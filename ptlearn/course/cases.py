"""What the cases of several lessons are made of: plain lists of rows; for `drive`, tensors that must not be changed."""

import json
import math


def masks(lengths, steps):
    """Rows of True for the first `length` of `steps`.

    >>> masks([1, 2], 2)
    [[True, False], [True, True]]
    """
    return [[t < length for t in range(steps)] for length in lengths]


def rows(rng, shape, low, high):
    """A table of random numbers with three digits."""
    return [[round(rng.uniform(low, high), 3) for _ in range(shape[1])] for _ in range(shape[0])]


def spread(values, mask):
    """A value per row, at each of its steps.

    >>> spread([2.0], [[True, False]])
    [[2.0, 0.0]]
    """
    return [[value if acted else 0.0 for acted in row] for value, row in zip(values, mask)]


def lost_on_padding(case, data):
    """A remark on a case with "junk" on padding: what came of it where it was multiplied away."""
    if case["junk"] and "NaN" in json.dumps(data):
        return "not a number: 0 times infinity. Padding may hold anything, so cut it off with torch.where"
    return None


def tensors(case, *names):
    """The named lists of a case as float64 tensors, a mask as bool."""
    import torch

    return [torch.tensor(case[name], dtype=None if name == "mask" else torch.float64) for name in names]


def log_sum(row):
    """The logarithm of a sum of exponentials."""
    return max(row) + math.log(sum(math.exp(x - max(row)) for x in row))


def log_softmax(row, temperature=1.0):
    """Logits as log-probabilities.

    >>> [round(math.exp(x), 6) for x in log_softmax([0.0, math.log(3)])]
    [0.25, 0.75]
    """
    scaled = [x / temperature for x in row]
    total = log_sum(scaled)
    return [x - total for x in scaled]


def softmax(row, temperature=1.0):
    """Logits as probabilities."""
    return [math.exp(x) for x in log_softmax(row, temperature)]
