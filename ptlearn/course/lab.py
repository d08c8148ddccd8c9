"""A lab: runs that can be called and not read, of which one is right, and the exercise to test them by what they do."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ptlearn.course.exercise import Exercise, exercise

RIGHT = "right"  # the name of the right run
LETTERS = "ABCDEFGH"


class Run:
    """Something to call, and nothing to read."""

    __slots__ = ("__call", "name")

    def __init__(self, name: str, call: Callable):
        self.name, self.__call = name, call

    def __call__(self, *values: Any, **options: Any) -> Any:
        return self.__call(*values, **options)

    def __repr__(self) -> str:
        return f"run {self.name}"


@dataclass(frozen=True, eq=False)
class Lab(Exercise):
    """An exercise whose answer is a function of a run; `runs` holds them by name, with what is called."""

    runs: dict[str, Callable] = field(default_factory=dict)


def lab_of_runs(
    runs: dict[str, Callable], hints: dict[str, str], reference: Callable, levels: tuple[int, ...] = ()
) -> Lab:
    """The exercise to write a test that refuses every wrong run and lets the right one pass.

    The answer is a function test(run) that returns whether a run behaves as it should; an AssertionError counts as
    False. The score is the number of wrong runs that it refuses, or 0 where it refuses the right one.

    Args:   runs, {name: what is called}, the right one under "right"; hints, {name of a wrong run: what it breaks};
            levels, the numbers that earn a point each: 1, 2, ... up to all by default.
    Raises: ValueError unless every wrong run has a hint.
    """
    if set(runs) != {RIGHT, *hints}:
        raise ValueError(f"hints: expected one for each run but {RIGHT!r}, of {', '.join(runs)}")

    def cases(rng: random.Random) -> list:
        return rng.sample([*runs], len(runs))

    def drive(answer: Callable, case: str) -> bool:
        try:
            return bool(answer(Run("?", runs[case])))
        except AssertionError:
            return False

    def score(cases: list, data: list) -> tuple[float, str]:
        pairs = list(zip(cases, data, strict=True))
        if not all(passed for case, passed in pairs if case == RIGHT):
            return 0.0, "the test refuses the right run: it asks for something that need not hold"
        missed = [name for name in hints if (name, True) in pairs]
        return float(len(hints) - len(missed)), f"a wrong run gets through: {hints[missed[0]]}" if missed else ""

    levels = levels or tuple(range(1, len(hints) + 1))
    return Lab(cases, drive, None, len(levels), reference, score=score, levels=levels, runs=runs)


def mystery_runs(number: str) -> dict[str, Run]:
    """The runs of a lab by letter, the right one among them, in an order that their names do not tell."""
    runs = exercise(number).runs
    names = random.Random(number).sample([*runs], len(runs))
    return {letter: Run(letter, runs[name]) for letter, name in zip(LETTERS, names)}
