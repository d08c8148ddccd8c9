"""Which mistake explains all that an answer did: one of the exercise's own, else one of the universal table.

A mistake is named only where it gives what the answer gave in every case, those that came out right included. Where
nothing does, `property_of` says what the wrong numbers have in common.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ptlearn.course.contract import Call, Signature, sizes_of
from ptlearn.course.diagnosis import first_difference
from ptlearn.course.transformations import (
    FACTORS,
    SWAPS,
    Counted,
    Swapped,
    entrywise,
    inputs,
    lists,
    results,
    texts,
    unreduced,
)

RICH = 2  # different numbers that are no whole ones: fewer could agree by accident with one of thousands of changes


@dataclass(frozen=True)
class Evidence:
    """What is known of all cases: what was expected, what came, the right calls, and how to make right results anew.

    Args: rerun(change, case) -> the plain result of the right answer for changed arguments in case number `case`,
          None where an answer is more than one call; memory, which keeps what does not depend on what came.
    """

    expected: list
    data: list
    calls: list[list[Call]]
    signature: Signature | None
    rerun: Any
    tolerance: float
    memory: dict = dataclasses.field(default_factory=dict)

    def agrees(self, wrong: list) -> bool:
        """Whether this is what came, everywhere, and somewhere not what was expected."""
        return all(close(now, then, self.tolerance) for now, then in zip(self.data, wrong)) and not all(
            close(now, then, self.tolerance) for now, then in zip(self.expected, wrong)
        )


def close(one: Any, other: Any, tolerance: float) -> bool:
    """Equal up to rounding, not-a-number included; nothing is close to None."""
    if one is None or other is None:
        return one is other
    if torch.is_tensor(one) and torch.is_tensor(other):
        same = one.shape == other.shape
        return same and bool(torch.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True).all())
    if torch.is_tensor(one) or torch.is_tensor(other):
        return False
    return first_difference(one, other, tolerance) is None


def as_tensor(value: Any) -> torch.Tensor | None:
    """Numbers in lists of equal length as a tensor; None for anything else."""
    if isinstance(value, str | dict) or value is None:
        return None
    try:
        return torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def explained(evidence: Evidence, listed: list[tuple[str, list]]) -> str | None:
    """Words for a change of the right answer that gives what came in every case; None where none is known.

    Args: listed, [(words of a mistake, what it gives in each case)]: combined with changes of the result, too.
    """
    expected, data = ([as_tensor(value) for value in values] for values in (evidence.expected, evidence.data))
    if any(value is None for value in expected + data):
        return explained_otherwise(evidence)
    evidence = dataclasses.replace(evidence, expected=expected, data=data)
    rich = richness(expected) >= RICH and richness(data) >= RICH
    found = plain_factor(evidence, expected, rich) or unfinished(evidence)
    if found:
        return f"this is the right result {found}"
    if "table" not in evidence.memory:
        evidence.memory["table"] = Table(evidence)
    table = evidence.memory["table"]
    early, late = table.singles(evidence)
    for words, run in early:
        if fits(evidence, run):
            return f"this is the right result {words}"
    found = given_factor(evidence, expected, rich) or next((words for words, run in late if fits(evidence, run)), None)
    if found or not rich:
        return found and f"this is the right result {found}"
    bases = [(f"this is the right result {words},", value, run) for words, value, run in table.bases(evidence)]
    for words, wrong in listed:
        tensors = [as_tensor(value) for value in wrong]
        if all(value is not None for value in tensors):
            bases.append((f"{words}; and all this", tensors[table.pivot], tensors.__getitem__))
    return combined(evidence, bases, table.pivot) or in_logarithms(evidence)


class Table:
    """What every change of the right answer gives in one case, the pivot, stacked by shape to be compared at once.

    It knows nothing of what came, and serves all answers to the same cases.
    """

    def __init__(self, evidence: Evidence):
        rooms = [richness([value]) * (value.numel() < 200) for value in evidence.expected]
        self.pivot = rooms.index(max(rooms))
        self.entries: list[tuple[str, Any, bool]] = []
        self.values: dict[tuple, list[tuple[int, torch.Tensor]]] = {}
        self.seconds: dict[tuple, list[tuple[int, torch.Tensor]]] = {}
        seen = {fingerprint(evidence.expected[self.pivot])}
        for words, run, early in candidates(evidence):
            run = functools.cache(functools.partial(attempted, run))
            value = run(self.pivot)
            if value is None:
                continue
            place = len(self.entries)
            self.entries.append((words, run, early))
            self.values.setdefault(tuple(value.shape), []).append((place, value.flatten()))
            if fingerprint(value) not in seen:  # a change that makes no difference, or another's, is no basis
                seen.add(fingerprint(value))
                changed = [changed_by(change, value) for _, change in entrywise()]
                rows = [value, *(other for other in changed if other is not None and other.shape == value.shape)]
                stacked = torch.stack([row.flatten() for row in rows])
                self.seconds.setdefault(tuple(value.shape), []).append((place, stacked))
        self.stacked = {shape: torch.stack([value for _, value in found]) for shape, found in self.values.items()}

    def singles(self, evidence: Evidence) -> tuple[list, list]:
        """The changes that give what came in the pivot case: those that are told early, and the others."""
        came = evidence.data[self.pivot]
        shape = tuple(came.shape)
        if shape not in self.stacked:
            return [], []
        good = near(self.stacked[shape], came, evidence.tolerance).tolist()
        found = [self.entries[place] for (place, _), hit in zip(self.values[shape], good) if hit]
        return [(w, run) for w, run, early in found if early], [(w, run) for w, run, early in found if not early]

    def bases(self, evidence: Evidence) -> Iterator[tuple[str, torch.Tensor, Any]]:
        """The changes that need one more, a factor or a change of each number, to give what came in the pivot case."""
        came = evidence.data[self.pivot]
        for place, rows in self.seconds.get(tuple(came.shape), []):
            value = rows[0].view(came.shape)
            if (
                bool(near(rows[1:], came, evidence.tolerance).any())
                or ratio(came, value, evidence.tolerance) is not None
            ):
                yield self.entries[place][0], value, self.entries[place][1]


def near(rows: torch.Tensor, came: torch.Tensor, tolerance: float) -> torch.Tensor:
    """Which rows are the flattened result."""
    return torch.isclose(rows, came.flatten(), rtol=tolerance, atol=tolerance, equal_nan=True).all(1)


def in_logarithms(evidence: Evidence) -> str | None:
    """A factor in the exponent of positive results."""
    if not all(bool((value > 0).all()) for value in evidence.expected + evidence.data):
        return None
    expected, data = ([value.log() for value in values] for values in (evidence.expected, evidence.data))
    found = factor(dataclasses.replace(evidence, expected=expected, data=data), expected, True)
    return f"this is the right result, but its logarithm is {found}" if found else None


def candidates(evidence: Evidence) -> Iterator[tuple[str, Any, bool]]:
    """Every change of the right answer: words, a function from the number of a case to what comes out there, and
    whether it is told before a factor that gives the same."""
    late = []
    if evidence.rerun is not None:
        for words, name, change in argument_changes(evidence):
            early = words.startswith(("as if", "for 1 -")) or is_mask(evidence, name)
            run = lambda place, change=change: as_tensor(evidence.rerun(change, place))  # noqa: E731
            if early:
                yield words, run, True
            else:
                late.append((words, run, False))
    biggest = max(evidence.expected, key=lambda value: value.numel())
    axes = evidence.signature.returns.axes if evidence.signature else None
    for words, change in results(biggest, axes):
        yield words, lambda place, change=change: change(evidence.expected[place]), False
    yield from late
    if evidence.rerun is not None:
        for words, run in with_arguments(evidence):
            yield words, run, False
        unchanged = functools.cache(functools.partial(operations, evidence.rerun))
        for (words, swap), turn in itertools.product(SWAPS.items(), (None, 0, 1, 2)):
            yield (
                words,
                lambda place, swap=swap, turn=turn: as_tensor(swapped(evidence.rerun, swap, turn, place, unchanged)),
                False,
            )


def is_mask(evidence: Evidence, name: str) -> bool:
    """Whether an argument is a mask; changes of other arguments are better told as changes of the result."""
    given = [calls[0].arguments.get(name) for calls in evidence.calls if calls]
    return any(torch.is_tensor(value) and value.dtype == torch.bool for value in given)


OPERATIONS = {
    "times {}": torch.mul,
    "divided by {}": torch.div,
    "plus {}": torch.add,
    "less {}": torch.sub,
    "subtracted from {}": lambda x, y: y - x,
}


def with_arguments(evidence: Evidence) -> Iterator[tuple[str, Any]]:
    """The right result and one of the arguments, in an operation too many."""
    if any(len(calls) != 1 for calls in evidence.calls):
        return
    for name in evidence.calls[0][0].arguments:
        for words, operation in OPERATIONS.items():
            yield (
                words.format(name),
                lambda place, name=name, operation=operation: operation(
                    evidence.expected[place],
                    broadcast(evidence.calls[place][0].arguments[name], evidence.expected[place]),
                ),
            )


def broadcast(value: Any, like: torch.Tensor) -> torch.Tensor:
    """An argument as a tensor that goes with a result."""
    value = torch.as_tensor(value).double()
    if value.ndim < like.ndim and value.ndim == 1 and value.shape[0] == like.shape[0] != like.shape[-1]:
        value = value.view(-1, *[1] * (like.ndim - 1))
    return value.expand_as(like)


def argument_changes(evidence: Evidence) -> Iterator[tuple[str, str, Any]]:
    """Changes of the arguments of the first call of any case: words, the argument, and the change."""
    axes = {name: kind.axes for name, kind in evidence.signature.takes}
    seen = set()
    for calls in evidence.calls:
        for words, name, change in inputs(calls[0].arguments, axes) if calls else ():
            if words not in seen:
                seen.add(words)
                yield words, name, change


def operations(rerun: Any, place: int) -> Counter:
    """How often the right answer calls each operation in a case."""
    with Counted() as counted:
        rerun(lambda arguments: arguments, place)
    return counted.named


def swapped(rerun: Any, swap: tuple, turn: int | None, place: int, unchanged: Any) -> Any:
    """What the right answer gives when one operation is another, always or at one turn; None where it has none."""
    names, other = swap
    if sum(unchanged(place)[name] for name in names) <= (turn or 0):  # most answers have few of the operations
        return None
    with Swapped(names, other, turn):
        return rerun(lambda arguments: arguments, place)


def attempted(run: Any, place: int) -> torch.Tensor | None:
    """What a candidate gives in a case; None where it cannot be run there."""
    try:
        return run(place)
    except Exception:  # a change that the right answer cannot take explains nothing
        return None


def fits(evidence: Evidence, run: Any) -> bool:
    """Whether a candidate gives what came in every case."""
    wrong = []
    for place, came in enumerate(evidence.data):  # most fail in the first case, and running the others takes long
        wrong.append(attempted(run, place))
        if wrong[-1] is None or not close(came, wrong[-1], evidence.tolerance):
            return False
    return evidence.agrees(wrong)


def fingerprint(value: torch.Tensor) -> tuple:
    """The same for results that are equal up to rounding, mostly."""
    return tuple(value.shape), tuple(f"{x:.6g}" for x in value.flatten().tolist())


def combined(evidence: Evidence, bases: list, pivot: int) -> str | None:
    """Two changes at once: one of the bases, and then a factor or a change of each number."""
    for words, value, run in bases:
        came = evidence.data[pivot]
        if came.shape != value.shape:
            continue
        second = [
            (more, change) for more, change in entrywise() if close(changed_by(change, value), came, evidence.tolerance)
        ]
        if not second and ratio(came, value, evidence.tolerance) is None:
            continue
        wrong = [attempted(run, place) for place in range(len(evidence.data))]
        if any(x is None for x in wrong):
            continue
        found = factor(evidence, wrong, True)
        for more, change in second:
            found = found or (evidence.agrees([changed_by(change, x) for x in wrong]) and more)
        if found:
            return f"{words} {found}"
    return None


def changed_by(change: Any, value: torch.Tensor) -> torch.Tensor | None:
    """A changed value; None where the change is none for it."""
    return attempted(lambda _: change(value), 0)


def unfinished(evidence: Evidence) -> str | None:
    """What is still to be done to the results, to make them the right ones."""
    if not all(now.ndim > then.ndim for now, then in zip(evidence.data, evidence.expected)):
        return None
    turned = dataclasses.replace(evidence, expected=evidence.data, data=evidence.expected)
    for words, change in unreduced(max(value.ndim for value in evidence.data)):
        if fits(turned, lambda place, change=change: change(evidence.data[place])):
            return words
    return None


def richness(values: list[torch.Tensor]) -> int:
    """How many different numbers there are that are neither infinite nor small and whole."""
    every = torch.cat([value.flatten() for value in values])
    finite = (float(x) for x in every if math.isfinite(x))
    return len({round(x, 6) for x in finite if abs(x) > 100 or abs(x - round(x)) > 1e-6})


# ---------------------------------------------------------------- factors


def factor(evidence: Evidence, basis: list, rich: bool) -> str | None:
    """A factor between a basis and what came."""
    return plain_factor(evidence, basis, rich) or given_factor(evidence, basis, rich)


def ratios_of(evidence: Evidence, basis: list) -> list[tuple[float, int]]:
    """The one factor of each case, with the number of the case; none where there is no such factor."""
    if any(now.shape != then.shape for now, then in zip(evidence.data, basis)):
        return []
    ratios = [ratio(came, value, evidence.tolerance) for came, value in zip(evidence.data, basis)]
    told = [(found, place) for place, found in enumerate(ratios) if found is not None and not math.isnan(found)]
    return [] if None in ratios or all(alike(found, 1) for found, _ in told) else told


def plain_factor(evidence: Evidence, basis: list, rich: bool) -> str | None:
    """A factor that is the same in every case: the sign, bits, percent."""
    told = ratios_of(evidence, basis)
    if told and all(found == 0 for found, _ in told):
        return "times 0"
    for value, words in ({-1.0: "with the sign turned"} | (FACTORS if rich else {})).items():
        if told and all(alike(found, value) for found, _ in told):
            return words
        if rich and value != -1 and told and all(alike(found, -value) for found, _ in told):
            return f"with the sign turned, {words}"
    return None


def given_factor(evidence: Evidence, basis: list, rich: bool) -> str | None:
    """A factor in terms of what the answer was given: sizes, counts, numbers."""
    if not rich:
        return None
    told = ratios_of(evidence, basis)
    for words, values in quantities(evidence) if told else ():
        if all(alike(found, values[place]) for found, place in told):
            return words
        if all(alike(found, -values[place]) for found, place in told):
            return f"with the sign turned, {words}"
    if len(told) > 1 and all(alike(found, told[0][0]) for found, _ in told):
        return f"times {told[0][0]:.5g} in every case"
    return by_row_and_step(evidence, basis) if basis is evidence.expected and not told else None


def alike(one: float, other: float) -> bool:
    """Equal up to rounding, relatively."""
    return math.isclose(one, other, rel_tol=1e-4)


def ratio(came: torch.Tensor, expected: torch.Tensor, tolerance: float) -> float | None:
    """The one number that came / expected is everywhere; NaN where both are 0 throughout, None where there is none."""
    told = ~(came.isnan() & expected.isnan())
    came, expected = came[told], expected[told]
    if not bool(torch.isfinite(torch.stack([came, expected])).all()):
        return None
    if not bool((expected.abs() > tolerance).any()):
        return math.nan if bool((came.abs() <= tolerance).all()) else None
    largest = expected.abs().argmax()  # the entry with the least rounding
    found = float(came.flatten()[largest] / expected.flatten()[largest])
    return found if bool(torch.isclose(came, found * expected, rtol=1e-4, atol=tolerance / 10).all()) else None


def quantities(evidence: Evidence) -> Iterator[tuple[str, list[float]]]:
    """What a factor may be made of, in words, with its value in each case."""
    plain: dict[str, list[float]] = {}
    for calls in evidence.calls:
        for name, value in known_numbers(evidence.signature, calls).items():
            plain.setdefault(name, []).append(value)
    plain = {name: values for name, values in plain.items() if len(values) == len(evidence.data)}
    for name, values in plain.items():
        yield f"times {name}", values
        yield f"divided by {name}", [divided(1, value) for value in values]
        yield f"times the root of {name}", [abs(value) ** 0.5 for value in values]
        yield f"divided by the root of {name}", [divided(1, abs(value) ** 0.5) for value in values]
        yield f"times {name} squared", [value * value for value in values]
        yield f"times {name} - 1", [value - 1 for value in values]
        yield f"times 1 - {name}", [1 - value for value in values]
        yield f"divided by {name} - 1", [divided(1, value - 1) for value in values]
        yield f"times {name} / ({name} - 1)", [divided(value, value - 1) for value in values]
        yield f"times ({name} - 1) / {name}", [divided(value - 1, value) for value in values]
        yield f"times the root of {name} / ({name} - 1)", [abs(divided(value, value - 1)) ** 0.5 for value in values]
        yield f"times the root of ({name} - 1) / {name}", [abs(divided(value - 1, value)) ** 0.5 for value in values]
    for (one, first), (other, second) in itertools.permutations(plain.items(), 2):
        yield f"times {one} / {other}", [divided(x, y) for x, y in zip(first, second)]
        if one < other:
            yield f"times {one} times {other}", [x * y for x, y in zip(first, second)]
            yield f"divided by {one} times {other}", [divided(1, x * y) for x, y in zip(first, second)]


def divided(one: float, other: float) -> float:
    """A ratio, not a number where there is none."""
    return one / other if other else math.nan


def known_numbers(signature: Signature | None, calls: list[Call]) -> dict[str, float]:
    """Sizes, numbers and counts that a single call shows."""
    if not signature or len(calls) != 1:
        return {}
    found = {name: float(size) for name, size in sizes_of(signature, calls[0]).items()}
    for name, value in calls[0].arguments.items():
        if torch.is_tensor(value) and value.dtype == torch.bool:
            found[f"the number of True in {name}"] = float(value.sum())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
        elif isinstance(value, list | tuple | str):
            found[f"the length of {name}"] = float(len(value))
    return found


def by_row_and_step(evidence: Evidence, basis: list) -> str | None:
    """A factor of its own for each row, or for each step a power of a number that was given."""
    if (
        not all(value.ndim >= 1 for value in basis)
        or not evidence.signature
        or any(len(c) != 1 for c in evidence.calls)
    ):
        return None
    for name, kind in evidence.signature.takes:
        given = [calls[0].arguments.get(name) for calls in evidence.calls]
        if kind.kind == "bool" and all(torch.is_tensor(mask) and mask.ndim == 2 for mask in given):
            for words, power in (("divided by", -1), ("times", 1)):
                scaled = [per_row(x, m.sum(1).double().clamp(min=1) ** power) for x, m in zip(basis, given)]
                if evidence.agrees(scaled):
                    return f"{words} the number of True in each row of {name}"
        if kind.kind in ("number", "float") and all(isinstance(x, int | float) and x for x in given):
            for words, powers in POWERS.items():
                scaled = [x * float(g) ** powers(torch.arange(x.shape[-1])).double() for x, g in zip(basis, given)]
                if evidence.agrees(scaled):
                    return f"times {name} to the power of {words}"
    return None


POWERS = {
    "t: discounted from the start": lambda t: t,
    "t + 1": lambda t: t + 1,
    "-t": lambda t: -t,
    "the steps that are left": lambda t: len(t) - 1 - t,
    "1": torch.ones_like,
    "-1": lambda t: -torch.ones_like(t),
}


def per_row(value: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Rows times factors; unchanged where there are not as many."""
    if len(value) != len(factors):
        return value
    return value * factors.view(-1, *[1] * (value.ndim - 1))


# ---------------------------------------------------------------- strings and lists


def explained_otherwise(evidence: Evidence) -> str | None:
    """The same for strings and for lists of anything."""
    if all(isinstance(value, str) for value in evidence.expected):
        table = texts()
    elif all(isinstance(value, list) for value in evidence.expected):
        table = lists()
    elif all(isinstance(value, dict) for value in evidence.expected):
        table = ()
    else:
        return None
    for words, change in table:
        if fits(evidence, lambda place, change=change: change(evidence.expected[place])):
            return f"this is the right result {words}"
    if evidence.rerun is None or not any(evidence.data):
        return None
    for words, _, change in argument_changes(evidence):
        if fits(evidence, lambda place, change=change: evidence.rerun(change, place)):
            return f"this is the right result {words}"
    return None


# ---------------------------------------------------------------- what the wrong numbers have in common


def property_of(evidence: Evidence, smallest: Callable | None = None) -> str | None:
    """A fact about what is wrong, the most telling one first. `smallest()` gives a small call that is wrong, or None.
    """
    expected, data = ([as_tensor(value) for value in values] for values in (evidence.expected, evidence.data))
    if any(value is None for value in expected + data):
        return in_some_cases(evidence, smallest)
    if any(now.shape != then.shape for now, then in zip(data, expected)):
        return in_some_cases(evidence, smallest)
    wrong = [
        ~torch.isclose(now, then, rtol=evidence.tolerance, atol=evidence.tolerance, equal_nan=True)
        for now, then in zip(data, expected)
    ]
    some = [
        (now, then, bad, calls) for now, then, bad, calls in zip(data, expected, wrong, evidence.calls) if bad.any()
    ]
    if not some:
        return None
    several = evidence.signature and evidence.signature.returns.kind == "pair"  # results, stacked along the first axis
    found = not_numbers(some) or where_masked(some) or where_placed(some, (-1,) if several else (-1, 0))
    found = found or where_given(evidence, smallest)
    return found or as_a_whole(some) or in_some_cases(evidence, smallest)


def not_numbers(some: list) -> str | None:
    """Infinite or undefined numbers where finite ones are expected."""
    if any(bool((~torch.isfinite(now) & torch.isfinite(then)).any()) for now, then, *_ in some):
        return "not a number, or infinite, where a number is expected"
    return None


def where_masked(some: list) -> str | None:
    """Wrong entries on padding alone, or off it alone."""
    names = {name for *_, calls in some for call in calls[:1] for name, value in call.arguments.items()
             if torch.is_tensor(value) and value.dtype == torch.bool}  # fmt: skip
    for name in sorted(names):
        masks = [calls[0].arguments.get(name) for *_, calls in some if calls]
        pairs = [(mask, bad) for mask, (_, _, bad, _) in zip(masks, some)]
        alike = len(masks) == len(some) and all(mask.shape == bad.shape for mask, bad in pairs)
        if alike and not any(bool((bad & mask).any()) for mask, bad in pairs):
            return f"only entries where {name} is False are wrong"
    return None


def where_placed(some: list, axes: tuple[int, ...]) -> str | None:
    """Wrong entries at one end of an axis, the last or the first one."""
    for axis in axes:
        if not all(bad.ndim > (axis == 0) and bad.shape[axis] > 1 for *_, bad, _ in some):
            continue
        name = "the last axis" if axis == -1 and some[0][2].ndim > 1 else "rows" if axis == 0 else "entries"
        places = [
            bad.any(dim=[d for d in range(bad.ndim) if d != axis % bad.ndim]) if bad.ndim > 1 else bad
            for *_, bad, _ in some
        ]
        if all(bool(place[0]) and int(place.sum()) == 1 for place in places):
            return f"only the first place along {name} is wrong"
        if all(bool(place[-1]) and int(place.sum()) == 1 for place in places):
            return f"only the last place along {name} is wrong"
        if all(not bool(place[0]) and bool(place[1:].all()) for place in places):
            return f"the first place along {name} is right, all others are wrong"
        if all(not bool(place[-1]) and bool(place[:-1].all()) for place in places):
            return f"the last place along {name} is right, all others are wrong"
    return None


def as_a_whole(some: list) -> str | None:
    """Order, signs, size."""
    if all(now.numel() > 1 and torch.allclose(now.flatten().sort()[0], then.flatten().sort()[0], rtol=1e-4, atol=1e-6)
           for now, then, *_ in some):  # fmt: skip
        return "the right numbers, in another order"
    if all(torch.allclose(now.abs(), then.abs(), rtol=1e-4, atol=1e-6) for now, then, *_ in some):
        return "the right sizes, some signs are turned"
    if all(len(now.unique()) == 1 and len(then.unique()) > 1 for now, then, *_ in some):
        return "the same number in every entry"
    if all(bool(((now - then).abs() <= 0.01 * then.abs() + 1e-6).all()) for now, then, *_ in some):
        return "nearly right, off by less than 1 %: rounding, or a small term too many"
    signs = {float(torch.sign((now - then)[bad]).unique().sum()) for now, then, bad, _ in some}
    if signs == {1.0}:
        return "every wrong number is too large"
    if signs == {-1.0}:
        return "every wrong number is too small"
    return None


def failing(evidence: Evidence) -> list[bool]:
    """Which cases are wrong; none where all are, or where an answer is more than one call."""
    bad = [not close(now, then, evidence.tolerance) for now, then in zip(evidence.data, evidence.expected)]
    return [] if all(bad) or not any(bad) or any(len(calls) != 1 for calls in evidence.calls) else bad


def where_given(evidence: Evidence, smallest: Callable | None) -> str | None:
    """A property of one argument that tells the failing cases from the others.

    Among few cases that happens by chance: it is said where a small call that is wrong has the property, too, and
    where there is none only of what few cases have, such as an empty list.
    """
    bad = failing(evidence)
    for name in evidence.calls[0][0].arguments if bad else ():
        values = [calls[0].arguments.get(name) for calls in evidence.calls]
        for words, test in FACTS.items():
            if [holds(test, value) for value in values] == bad:
                call = smallest() if smallest else None
                if holds(test, call.arguments.get(name)) if call else words in RARE:
                    return f"wrong only where {name} {words}"
    return None


def holds(test: Any, value: Any) -> bool:
    """Whether a fact is true of an argument; False where it makes no sense."""
    try:
        return bool(test(value))
    except (TypeError, RuntimeError, ValueError, AttributeError):
        return False


def in_some_cases(evidence: Evidence, smallest: Callable | None) -> str | None:
    """How many cases are right, where some are."""
    bad = failing(evidence)
    return where_given(evidence, smallest) or f"right in {bad.count(False)} of {len(bad)} cases" if bad else None


FACTS = {
    "is empty": lambda x: len(x) == 0,
    "has one item": lambda x: len(x) == 1,
    "has 2 rows": lambda x: x.ndim > 0 and len(x) == 2,
    "is 0": lambda x: not torch.is_tensor(x) and x == 0,
    "is 1": lambda x: not torch.is_tensor(x) and x == 1,
    "is not 0": lambda x: not torch.is_tensor(x) and isinstance(x, int | float) and x != 0,
    "is not 1": lambda x: not torch.is_tensor(x) and isinstance(x, int | float) and x != 1,
    "is True": lambda x: x is True,
    "is False": lambda x: x is False,
    "has a 0": lambda x: bool((x == 0).any()),
    "has negative numbers": lambda x: bool((x < 0).any()),
    "has infinite numbers": lambda x: bool(torch.isinf(x).any()),
    "is False somewhere": lambda x: x.dtype == torch.bool and not bool(x.all()),
    "has repetitions": lambda x: len(set(x if isinstance(x, list) else x.flatten().tolist())) < len(x),
}
RARE = ("is empty", "has one item", "has infinite numbers")
