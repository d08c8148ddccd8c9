"""A number with its interval: over items that are right or wrong, and over seeds.

Deliberately not here: what is measured (prompting, training) and how it is drawn (figures).
Order: Estimate; accuracy, wilson; over_seeds; resampled, ratio.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}] (n={self.n})"


def accuracy(correct: Iterable[bool]) -> Estimate:
    """Report the share of correct answers with its 95 % interval.

    >>> print(accuracy([True] * 186 + [False] * 14))
    0.93 [0.89, 0.96] (n=200)
    """
    outcomes = [float(outcome) for outcome in correct]
    if not outcomes or not set(outcomes) <= {0.0, 1.0}:
        raise ValueError(f"correct must be booleans, at least one, got {outcomes[:5]}")
    return wilson(sum(outcomes) / len(outcomes), len(outcomes))


def wilson(mean: float, n: int) -> Estimate:
    """Put the 95 % Wilson interval around a share of n, which stays inside [0, 1] even at 0 and 1.

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), z = 1.96 (Wilson 1927)

    For a mean of scores between 0 and 1 it is on the safe side: they vary less than a coin of the same mean.
    """
    if not (n >= 1 and -1e-9 <= mean <= 1 + 1e-9):  # a mean of ones may be 1 and a rounding error
        raise ValueError(f"mean={mean} of n={n}: expected a share from 0 to 1 of at least 1")
    z = 1.959964
    center = mean + z**2 / (2 * n)
    margin = z * math.sqrt(mean * (1 - mean) / n + (z / (2 * n)) ** 2)
    low, high = (center - margin) / (1 + z**2 / n), (center + margin) / (1 + z**2 / n)
    # at 0 and 1 the formula ends on the mean itself: rounding must not put the mean outside its interval
    return Estimate(mean, min(mean, max(0.0, low)), max(mean, min(1.0, high)), n)


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean over seeds with its 95 % interval, mean +- t s / sqrt(n), t from Student's distribution.

    Args:   values (n,), one number per seed, at least two.
    Source: Student 1908.
    >>> print(over_seeds([0.0, 1.0, 2.0]))
    1.00 [-1.48, 3.48] (n=3)
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1:
        raise ValueError(f"values has shape {values.shape}: expected (seeds,)")
    if len(values) < 2:
        raise ValueError(f"values has {len(values)} seed: expected at least 2, for an interval")
    # with t = sqrt(n - 1) tan(angle), the density of the angle is cos(angle)^(n - 2): no tables needed
    edges = np.linspace(0, np.pi / 2, 10_001)
    mass = np.append(0, np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (len(values) - 2)))
    t = np.sqrt(len(values) - 1) * np.tan(np.interp(0.95 * mass[-1], mass, edges))
    mean, margin = values.mean(), t * values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(float(mean), float(mean - margin), float(mean + margin), len(values))


def resampled(sums: Sequence[float], counts: Sequence[float], seed: int = 0, draws: int = 2000) -> np.ndarray:
    """A ratio of totals, such as nats per token, over items drawn with replacement: the bootstrap of whole items.

    Args:    sums and counts (n,), what each item adds above and below the line; seed and number of the draws.
    Returns: (draws,); the quantiles 0.025 and 0.975 of it are the 95 % interval (Efron 1979).
    Raises:  ValueError if there is no item, or the lengths differ.
    >>> float(resampled([2.0, 4.0], [1, 2]).max())
    2.0
    """
    sums, counts = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    if sums.shape != counts.shape or sums.ndim != 1 or not len(sums):
        raise ValueError(f"sums has shape {sums.shape}, counts {counts.shape}: expected (n,) of both, n at least 1")
    chosen = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    return sums[chosen].sum(1) / counts[chosen].sum(1)


def ratio(above: Sequence[float], below: Sequence[float], seed: int = 0, draws: int = 400) -> Estimate:
    """The mean of `above` over the mean of `below`, measured on the same items, with its 95 % bootstrap interval.

    Items that raise both raise neither the ratio nor its interval: it is narrower than those of the two means.

    >>> print(ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]))
    0.50 [0.50, 0.50] (n=3)
    """
    above, below = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    low, high = np.quantile(resampled(above, below, seed, draws), [0.025, 0.975])
    return Estimate(float(above.mean() / below.mean()), float(low), float(high), len(above))
