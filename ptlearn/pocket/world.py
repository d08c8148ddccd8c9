"""The pocket world: real facts and plain words, read from the CSV tables beside this file.

>>> next(c.capital for c in COUNTRIES if c.name == "Kenya")
'Nairobi'
>>> "violin" in WORDS["instrument"]
True
>>> dict(PAIRS["past"])["go"]
'went'
"""

from __future__ import annotations

import csv
import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

TABLES = Path(__file__).parent / "tables"

T = TypeVar("T")


@dataclass(frozen=True)
class Country:
    """A real country, with one main language and the one-word name of its currency."""

    name: str
    capital: str
    region: str
    language: str
    currency: str
    demonym: str


@dataclass(frozen=True)
class Phrase:
    """A piece of a review.

    `polarity` is 'positive' or 'negative'; `kind` is 'adjective', 'noun_phrase' or 'clause';
    `about` is 'movie', 'book', 'meal', 'hotel' or 'any'.
    """

    polarity: str
    kind: str
    about: str
    phrase: str


def _rows(table: str) -> list[dict[str, str]]:
    with open(TABLES / f"{table}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _group(items: Iterable[tuple[str, T]]) -> dict[str, tuple[T, ...]]:
    groups: dict[str, list[T]] = {}
    for key, value in items:
        groups.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in groups.items()}


def is_held_out(key: str) -> bool:
    """Whether the fact named by `key` is kept out of the training corpus: a stable 5 % of all keys.

    Python's own `hash` differs from one process to the next, so a checksum decides.

    >>> is_held_out("capital:Kenya")
    False
    >>> 40 < sum(is_held_out(str(n)) for n in range(1000)) < 60
    True
    """
    return zlib.crc32(key.encode()) % 20 == 0


def often(rng: random.Random, items: Sequence[T]) -> T:
    """Draw an item, early ones more often: the first quarter of the items gets half of the draws.

    Language is like that, and it matters: what is frequent is learned first, and what is rare leans on it.
    """
    return items[int(len(items) * rng.random() ** 2)]


COUNTRIES: tuple[Country, ...] = tuple(Country(**row) for row in _rows("countries"))
"""Sorted by name; no two share a capital."""

WORDS: dict[str, tuple[str, ...]] = _group((row["category"], row["word"]) for row in _rows("words"))
"""Category to its words; no word is in two categories."""

PAIRS: dict[str, tuple[tuple[str, str], ...]] = _group(
    (row["relation"], (row["left"], row["right"])) for row in _rows("pairs")
)
"""Relation to its (left, right) pairs; within a relation each left has one right."""

NAMES: tuple[tuple[str, str], ...] = tuple((row["name"], row["pronoun"]) for row in _rows("names"))
"""(first name, 'he' or 'she')."""

SENTIMENT: tuple[Phrase, ...] = tuple(Phrase(**row) for row in _rows("sentiment"))
"""Review phrases; the words of a verdict (great, awful, good, bad, terrible, wonderful) are in none of them."""
