"""From what an answer did to one line about it: its contract, the exercise's own mistakes, then the universal table."""

import copy
import functools
import itertools
import math
from typing import Any

import torch

from ptlearn.course.contract import Call, parse, violation, watched
from ptlearn.course.diagnosis import Alternatives, first_difference, plain
from ptlearn.course.explanation import Evidence, explained, property_of

FORMS = ("has shape", "is a list", "is a tuple", "is an array")  # of the contract: they have deeper reasons sometimes


def diagnose(chosen, cases: list, observations: list[dict], secret: bool = False) -> str | None:
    """What is wrong, in a line; nothing when all is right.

    A listed mistake that explains everything comes first, then the contract, then the universal table, then the
    first difference with the input that shows it.
    """
    try:
        return diagnosis_of(chosen, cases, observations, secret)
    except ALIEN as reason:
        return f"the result does not have the expected form ({type(reason).__name__}: {reason})"


ALIEN = (TypeError, KeyError, IndexError, AttributeError, ValueError, OverflowError)


def diagnosis_of(chosen, cases, observations, secret):
    errors = [(case, seen["error"]) for case, seen in zip(cases, observations) if "error" in seen]
    if chosen.expect is None:
        remarks = (chosen.remark(case, seen["data"]) for case, seen in zip(cases, observations) if "data" in seen)
        return (errors and errors[0][1]) or next((remark for remark in remarks if remark), None)
    kept = [(case, seen) for case, seen in zip(cases, observations) if "data" in seen]
    expectations = [chosen.expect(case) for case, _ in kept]
    expected = [plain(right) for right, _ in expectations]
    listed = listed_mistakes(expectations)
    data = [seen["data"] for _, seen in kept]
    right = [same(now, then, chosen.tolerance) for now, then in zip(data, expected)]
    calls = [right_calls(chosen, case) for case, _ in kept]
    if all(right):
        broken = broken_contract(chosen, [seen for _, seen in kept], calls)
        return broken or (error_line(chosen, *errors[0], secret) if errors else None)
    named = named_mistake(data, expected, listed, chosen.tolerance)
    if named:
        return named
    if errors:
        return error_line(chosen, *errors[0], secret)
    remarks = [
        chosen.remark(case, now) for (case, _), now, good in zip(kept, data, right) if not good and chosen.remark
    ]
    if remarks and all(remarks):
        return remarks[0]
    return unlisted(chosen, kept, data, expected, listed, calls, secret)


def unlisted(chosen, kept, data, expected, listed, calls, secret):
    """A mistake that is not on the exercise's list."""
    broken = broken_form(chosen, [seen for _, seen in kept], calls)
    if broken and not any(form in broken for form in FORMS):
        return broken
    entry, parts = first_wrong_entry(data, expected, chosen.tolerance)
    evidence = Evidence(
        parts[1], parts[0], calls, parse(chosen.signature) if chosen.signature else None,
        rerunning(chosen, [case for case, _ in kept], calls, entry), chosen.tolerance,
    )  # fmt: skip
    whole = {
        words: [given.value for given in wrong]
        for (name, words, _), wrong in listed.items()
        if name == entry and all(given is not None for given in wrong)
    }
    found = explained(evidence, whole)
    prefix = f"{entry}: " if entry is not None else ""
    if found:
        return prefix + found + (f" ({broken})" if broken else "")
    if broken:
        return broken
    fact = property_of(evidence)
    if secret:
        return prefix + (fact or "another result than the right one")
    return "; ".join(filter(None, [prefix + fact if fact else None, *smallest(chosen, kept, data, expected, calls)]))


# ---------------------------------------------------------------- the exercise's own mistakes


def listed_mistakes(expectations: list) -> dict[tuple[str | None, str, int], list]:
    """{(entry or None, words, number): what the mistake gives in each case, None where a case cannot show it}."""
    found: dict[tuple[str | None, str, int], list] = {}
    for place, (_, mistakes) in enumerate(expectations):
        for key, wrong in mistakes.items():
            entry, words = key if isinstance(key, tuple) else (None, key)
            for number, value in enumerate(wrong if isinstance(wrong, Alternatives) else [wrong]):
                found.setdefault((entry, words, number), [None] * len(expectations))[place] = Given(plain(value))
    return found


class Given:
    """What a mistake gives, which may be None itself."""

    def __init__(self, value):
        self.value = value


def named_mistake(data, expected, listed, tolerance) -> str | None:
    """The listed mistake that gives what came in every case; for a dict of results, in its first wrong entry."""
    for (entry, words, _), wrong in listed.items():
        if entry is None and gives(wrong, data, expected, tolerance):
            return words
    if not all(isinstance(value, dict) for value in expected + data):
        return None
    entry, (now, then) = first_wrong_entry(data, expected, tolerance)
    if entry is None:
        return None
    for (name, words, _), wrong in listed.items():
        part = [None if given is None else part_of(given, entry, name) for given in wrong]
        if name in (None, entry) and gives(part, now, then, tolerance):
            return words if words.startswith(f"{entry}: ") or name is None else f"{entry}: {words}"
    return None


def part_of(given: Given, entry: str, name: str | None) -> Given | None:
    """One entry of what a mistake gives, if it is about the whole."""
    if name is not None:
        return given
    return Given(given.value[entry]) if isinstance(given.value, dict) and entry in given.value else None


def gives(wrong: list[Given | None], data: list, expected: list, tolerance: float) -> bool:
    """Whether a mistake gives what came wherever a case can show it, and something else than what is right in one."""
    shown = [(given.value, now, then) for given, now, then in zip(wrong, data, expected) if given is not None]
    if not all(same(value, now, tolerance) for value, now, _ in shown):
        return False
    return any(not same(value, then, tolerance) for value, _, then in shown)


def same(one: Any, other: Any, tolerance: float) -> bool:
    """Equal up to rounding."""
    return first_difference(one, other, tolerance) is None


def first_wrong_entry(data, expected, tolerance):
    """The first entry of a dict that is wrong in a case, with its values in all cases; (None, all) otherwise."""
    alike = all(isinstance(value, dict) for value in [*expected, *data])
    if alike and all(value.keys() == expected[0].keys() for value in expected):
        for entry in expected[0]:
            if all(entry in now for now in data):
                parts = [now[entry] for now in data], [then[entry] for then in expected]
                if any(not same(now, then, tolerance) for now, then in zip(*parts)):
                    return entry, parts
    return None, (data, expected)


def unseparated(chosen, cases: list) -> list[tuple[str, str]]:
    """Pairs of mistakes, or a mistake and "right", that no case tells apart by more than ten times the tolerance."""
    if chosen.expect is None:
        return []
    expectations = [chosen.expect(case) for case in cases]
    expected = [plain(right) for right, _ in expectations]
    listed = listed_mistakes(expectations)
    apart = 10 * chosen.tolerance
    found = []
    for (entry, words, _), wrong in listed.items():
        right = [then if entry is None else then[entry] for then in expected]
        if not any(given is not None and not same(given.value, then, apart) for given, then in zip(wrong, right)):
            found.append((words, "right"))
    for (one, first), (other, second) in itertools.combinations(listed.items(), 2):
        if one[0] == other[0] and one[1] != other[1] and not told_apart(first, second, apart):
            found.append((one[1], other[1]))
    return found


def told_apart(first: list, second: list, apart: float) -> bool:
    """Whether two mistakes differ in a case, or no case can show both."""
    pairs = [(one.value, other.value) for one, other in zip(first, second) if one is not None and other is not None]
    return not pairs or any(not same(one, other, apart) for one, other in pairs)


# ---------------------------------------------------------------- the package's own calls


def right_calls(chosen, case) -> list[Call]:
    """The calls that `drive` makes for a case, with the package's answer."""
    calls: list[Call] = []
    if callable(chosen.reference):
        signature = parse(chosen.signature) if chosen.signature else None
        chosen.drive(watched(chosen.reference, signature, [], calls), copy.deepcopy(case))
    return calls


def rerunning(chosen, cases, calls, entry):
    """rerun(change, case) of `Evidence`; None where there is no reference to run."""
    if not chosen.signature or not callable(chosen.reference):
        return None

    def rerun(change, place):
        def changed(*values, **options):
            names = [name for name, _ in parse(chosen.signature).takes]
            given = change(dict(zip(names, values)) | options)
            return chosen.reference(
                *[given[name] for name in names[: len(values)]], **{name: given[name] for name in options}
            )

        data = plain(chosen.drive(functools.wraps(chosen.reference)(changed), copy.deepcopy(cases[place])))
        return data if entry is None else data[entry]

    return rerun


def broken_form(chosen, observations, calls) -> str | None:
    """The first breach of the signature, gradients' numbers aside."""
    if not chosen.signature:
        return None
    pairs = [pair for seen, known in zip(observations, calls) for pair in zip(seen.get("calls", []), known)]
    found = (violation(parse(chosen.signature), note, call) for note, call in pairs)
    return next((words for words in found if words), None)


def broken_contract(chosen, observations, calls) -> str | None:
    """The first breach of the signature, or a gradient that is not the right one."""
    found = broken_form(chosen, observations, calls)
    if found or not chosen.signature:
        return found
    return wrong_gradient(chosen, parse(chosen.signature), observations, calls)


def wrong_gradient(chosen, signature, observations, calls) -> str | None:
    """The right value, but another gradient."""
    from ptlearn.course.contract import gradients

    for name in signature.gradient:
        came, wanted = [], []
        for seen, known in zip(observations, calls):
            for note, call in zip(seen.get("calls", []), known):
                arguments = {key: value.requires_grad_() if key in signature.gradient else value
                             for key, value in call.arguments.items()}  # fmt: skip
                options = {key: arguments[key] for key in call.options}
                places = [value for key, value in arguments.items() if key not in options]
                right = gradients(chosen.reference(*places, **options), {name: arguments[name]})[name]
                came.append(note["gradient"].get(name)), wanted.append(right)
        pairs = list(zip(came, wanted))
        if all(same(now, then, chosen.tolerance) for now, then in pairs):
            continue
        evidence = Evidence(wanted, came, [[] for _ in came], None, None, chosen.tolerance)
        found = explained(evidence, {})
        words = found.replace("right result", "right one") if found else property_of(evidence)
        words = words or first_difference(*pairs[0], chosen.tolerance)
        return f"the value is right, its gradient by {name} is not: {words}"
    return None


# ---------------------------------------------------------------- the case that shows it


def error_line(chosen, case, error: str, secret: bool) -> str:
    """An error of the student's code, with the input that caused it."""
    if secret:
        return error.partition(":")[0]
    calls = right_calls(chosen, case)
    shown = call_text(chosen, calls[0]) if len(calls) == 1 else ""
    return f"{error}{' in ' if shown else ''}{shown}"


def smallest(chosen, kept, data, expected, calls) -> tuple[str, ...]:
    """The smallest failing case: where it differs first, and the call that shows it."""
    bad = [place for place, (now, then) in enumerate(zip(data, expected)) if not same(now, then, chosen.tolerance)]
    place = min(bad, key=lambda place: len(str(kept[place][0])))
    difference = first_difference(data[place], expected[place], chosen.tolerance)
    shown = call_text(chosen, calls[place][0]) if len(calls[place]) == 1 else ""
    return (difference, f"try {shown}") if shown else (difference,)


def call_text(chosen, call: Call, longest: int = 200) -> str:
    """A call that can be pasted into a cell, or nothing where it would be long or cannot be written."""
    parts = []
    for name, value in call.arguments.items():
        if callable(value) or not (
            torch.is_tensor(value) or isinstance(value, int | float | str | list | dict | tuple)
        ):
            return ""
        text = tensor_text(value) if torch.is_tensor(value) else repr(value)
        parts.append(f"{name}={text}" if name in call.options else text)
    text = f"{parse(chosen.signature).name}({', '.join(parts)})"
    return text if len(text) <= longest else ""


def tensor_text(value: torch.Tensor) -> str:
    """A tensor as it is written in code, its numbers with four digits."""
    return f"torch.tensor({brief(value.detach().tolist())})"


def brief(value: Any) -> str:
    """A plain value as text, numbers with up to six digits.

    >>> brief([0.1234567, 2.0, True])
    '[0.123457, 2.0, True]'
    """
    if isinstance(value, float):
        text = f"{value:.6g}"
        return text if not math.isfinite(value) or "." in text or "e" in text else f"{text}.0"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(brief, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {brief(part)}" for key, part in value.items()) + "}"
    return repr(value)
