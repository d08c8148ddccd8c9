"""From what an answer did to one line about it: its contract, the exercise's own mistakes, then the universal table."""

import copy
import functools
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ptlearn.course.contract import Call, as_leaf, gradients, parse, snapshot, violation, watched
from ptlearn.course.diagnosis import Alternatives, first_difference, plain
from ptlearn.course.explanation import Evidence, as_tensor, explained, property_of
from ptlearn.course.transformations import Counted

FORMS = ("has shape", "is a list", "is a tuple", "is an array")  # of the contract: they have deeper reasons sometimes
LONGEST_CALL = 200  # characters
ALIEN = (TypeError, KeyError, IndexError, AttributeError, ValueError, OverflowError, RecursionError)  # data of any form


class Unnamed(str):
    """A diagnosis that says where a result is wrong and names no mistake."""


@dataclass(frozen=True)
class Known:
    """What an exercise knows of some cases: what is right, what the listed mistakes give, the package's own calls.

    `rights` has one result for each case, or several where several are right; `expected` are the first ones.
    """

    cases: list
    rights: list[list]
    listed: dict[tuple[str | None, str, int], list]
    calls: list[list[Call]]
    memory: dict = field(default_factory=dict)

    @property
    def expected(self) -> list:
        """What is right in each case."""
        return [rights[0] for rights in self.rights]

    def of(self, places: list[int]) -> "Known":
        """The same of some of the cases."""
        if len(places) == len(self.cases):
            return self
        some = [[values[place] for place in places] for values in (self.cases, self.rights, self.calls)]
        listed = {key: [wrong[place] for place in places] for key, wrong in self.listed.items()}
        return Known(some[0], some[1], listed, some[2])


def known(chosen, cases: list) -> Known:
    """What the exercise knows of these cases."""
    return known_of(chosen, json.dumps(cases))


@functools.lru_cache(maxsize=256)
def known_of(chosen, text: str) -> Known:
    """`known`, from the text of the cases."""
    cases = json.loads(text)
    expectations = [chosen.expect(case) for case in cases]
    rights = [
        [plain(one) for one in (right if isinstance(right, Alternatives) else [right])] for right, _ in expectations
    ]
    return Known(cases, rights, listed_mistakes(expectations), [right_calls(chosen, case) for case in cases])


def diagnose(
    chosen, cases: list, observations: list[dict], secret: bool = False, smallest: Callable | None = None
) -> str | None:
    """What is wrong, in a line; nothing when all is right. `smallest()` gives a small call that shows it, or None.

    A listed mistake that explains everything comes first, then the contract, then the universal table, then the
    first difference with the input that shows it.
    """
    errors = [(case, seen["error"]) for case, seen in zip(cases, observations) if "error" in seen]
    try:
        if chosen.expect is None:
            remark = chosen.remark or (lambda case, data: None)
            remarks = (remark(case, seen["data"]) for case, seen in zip(cases, observations) if "data" in seen)
            return errors[0][1] if errors else next((remark for remark in remarks if remark), None)
        places = [place for place, seen in enumerate(observations) if "data" in seen]
        seen = [observations[place] for place in places]
        return diagnosis_of(chosen, known(chosen, cases).of(places), seen, errors, secret, smallest)
    except ALIEN as reason:
        return f"the result does not have the expected form ({type(reason).__name__}: {reason})"


def diagnosis_of(chosen, facts: Known, seen: list[dict], errors: list, secret: bool, smallest) -> str | None:
    """The diagnosis where there is something to compare; `seen` has data for every case of the facts."""
    data = [observation["data"] for observation in seen]
    facts = nearest(facts, data, chosen.tolerance)
    wrong = [not same(now, then, chosen.tolerance) for now, then in zip(data, facts.expected)]
    if not any(wrong):
        broken = broken_contract(chosen, seen, facts.calls)
        return broken or (error_line(chosen, *errors[0], secret) if errors else None)
    named = named_mistake(data, facts.expected, facts.listed, chosen.tolerance)
    if named or errors:
        return named or error_line(chosen, *errors[0], secret)
    if chosen.remark:
        remarks = [chosen.remark(case, now) for case, now, bad in zip(facts.cases, data, wrong) if bad]
        if all(remarks):
            return remarks[0]
    found = unlisted(chosen, facts, data, broken_form(chosen, seen, facts.calls), secret, smallest)
    finite = [place for place, pair in enumerate(zip(data, facts.expected)) if not undefined(*pair)]
    if not isinstance(found, Unnamed) or not 0 < len(finite) < len(data):
        return found
    # what else is wrong shows where the numbers are numbers
    named = diagnosis_of(chosen, facts.of(finite), [seen[place] for place in finite], [], secret, smallest)
    rest = next(place for place in range(len(data)) if place not in finite)
    told = chosen.remark(facts.cases[rest], data[rest]) if chosen.remark else None
    return type(named)(f"{named}; and elsewhere {told or 'not a number, or infinite'}") if named else told or found


def unlisted(chosen, facts: Known, data: list, broken: str | None, secret: bool, smallest: Callable | None) -> str:
    """A mistake that is not on the exercise's list."""
    if broken and not any(form in broken for form in FORMS):
        return broken
    entry, (came, expected) = first_wrong_entry(data, facts.expected, chosen.tolerance)
    signature = parse(chosen.signature) if chosen.signature else None
    memory = facts.memory.setdefault(entry, {})
    if "rerun" not in memory:
        memory["rerun"] = rerunning(chosen, facts.cases, entry)
    rerun = memory["rerun"]
    evidence = Evidence(expected, came, facts.calls, signature, rerun, chosen.tolerance, memory)
    whole = [
        (words, [given.value for given in wrong])
        for (name, words, _), wrong in facts.listed.items()
        if name == entry and all(given is not None for given in wrong)
    ]
    found = explained(evidence, whole)
    prefix = f"{entry}: " if entry is not None else ""
    if found or broken:
        return f"{prefix}{found} ({broken})" if found and broken else prefix + found if found else broken
    fact = property_of(evidence, smallest)
    if secret:
        return Unnamed(prefix + (fact or "another result than the right one"))
    differences = (first_difference(*pair, chosen.tolerance) for pair in zip(data, facts.expected))
    difference = next(difference for difference in differences if difference)
    return Unnamed(f"{prefix}{fact}; {difference}" if fact else difference)


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
    for (name, words, _), wrong in sorted(listed.items(), key=lambda item: item[0][0] is None):
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


def undefined(came: Any, expected: Any) -> bool:
    """Whether numbers came that are infinite or none where finite ones are expected."""
    came, expected = as_tensor(came), as_tensor(expected)
    alike = came is not None and expected is not None and came.shape == expected.shape
    return alike and bool((~torch.isfinite(came) & torch.isfinite(expected)).any())


def nearest(facts: Known, data: list, tolerance: float) -> Known:
    """The facts with one right result for each case: of several the one that came, or else the first."""
    pairs = zip(facts.rights, data, strict=True)
    chosen = [[next((one for one in rights if same(now, one, tolerance)), rights[0])] for rights, now in pairs]
    return replace(
        facts, rights=chosen, memory=facts.memory if chosen == [rights[:1] for rights in facts.rights] else {}
    )


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
    facts, apart, found = known(chosen, cases), 10 * chosen.tolerance, []
    for (entry, words, _), wrong in facts.listed.items():
        right = [then if entry is None else then[entry] for then in facts.expected]
        if not any(given is not None and not same(given.value, then, apart) for given, then in zip(wrong, right)):
            found.append((words, "right"))
    for (one, first), (other, second) in itertools.combinations(facts.listed.items(), 2):
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
        chosen.driven(watched(chosen.reference, signature, [], calls), copy.deepcopy(case))
    return calls


def rerunning(chosen, cases, entry):
    """rerun(change, case) of `Evidence`; None where there is no reference to run.

    A change may take a loop's end away: a run with ten times the operations of the unchanged one is given up.
    """
    if not chosen.signature or not callable(chosen.reference):
        return None

    @functools.cache
    def most(place):
        with Counted() as unchanged:
            chosen.driven(chosen.reference, copy.deepcopy(cases[place]))
        return 10 * unchanged.calls + 1000

    def rerun(change, place):
        def changed(*values, **options):
            names = [name for name, _ in parse(chosen.signature).takes]
            given = change(dict(zip(names, values)) | options)
            return chosen.reference(
                *[given[name] for name in names[: len(values)]], **{name: given[name] for name in options}
            )

        with Counted(most(place)):
            data = plain(chosen.driven(functools.wraps(chosen.reference)(changed), copy.deepcopy(cases[place])))
        return data if entry is None else data[entry]

    return rerun


def broken_form(chosen, observations, calls) -> str | None:
    """The first breach of the signature, gradients' numbers aside."""
    if not chosen.signature:
        return None
    pairs = [pair for seen, right in zip(observations, calls) for pair in zip(seen.get("calls", []), right)]
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
    for name in signature.gradient:
        came, wanted = [], []
        for seen, right in zip(observations, calls):
            for note, call in zip(seen.get("calls", []), right):
                came.append(note["gradient"].get(name)), wanted.append(right_gradient(chosen, call, name))
        pairs = list(zip(came, wanted))
        if all(same(now, then, chosen.tolerance) for now, then in pairs):
            continue
        evidence = Evidence(wanted, came, [[] for _ in came], None, None, chosen.tolerance)
        found = explained(evidence, [])
        words = found.replace("right result", "right one") if found else property_of(evidence)
        words = words or first_difference(*pairs[0], chosen.tolerance)
        return f"the value is right, its gradient by {name} is not: {words}"
    return None


def right_gradient(chosen, call: Call, name: str) -> Any:
    """The gradient by one argument of a call of the package's answer."""
    arguments = call.arguments | {name: as_leaf(call.arguments[name])}
    places = [value for key, value in arguments.items() if key not in call.options]
    result = chosen.reference(*places, **{key: arguments[key] for key in call.options})
    return gradients(result, {name: arguments[name]})[name]


# ---------------------------------------------------------------- the case that shows it


def error_line(chosen, case, error: str, secret: bool) -> str:
    """An error of the student's code, with the input that caused it."""
    if secret:
        return error.partition(":")[0]
    calls = right_calls(chosen, case)
    text = call_text(chosen, calls[0]) if len(calls) == 1 else ""
    shown = text if len(text) <= LONGEST_CALL else ""
    return f"{error}{' in ' if shown else ''}{shown}"


def smallest_call(chosen, answer, cases: list) -> Call | None:
    """A call that can be pasted into a cell, on as small an input as still shows that the answer is wrong."""
    if not chosen.signature or chosen.expect is None:
        return None
    single = [calls[0] for calls in known(chosen, cases).calls if len(calls) == 1]
    written = [(len(text), place) for place, call in enumerate(single) if (text := call_text(chosen, call))]
    for call in (single[place] for _, place in sorted(written)):
        if differs(chosen, answer, call):
            call = shrunk(chosen, answer, call)
            if len(call_text(chosen, call)) <= LONGEST_CALL:
                return call
    return None


def shown(chosen, answer, call: Call) -> str:
    """The call as code, what it gives and what it should give."""
    came, right = (called(function, call) for function in (answer, chosen.reference))
    return f"{call_text(chosen, call)} gives {brief(came)}, expected {brief(right)}"


def shrunk(chosen, answer, call: Call) -> Call:
    """The call with its axes cut as far as the answer stays wrong."""
    axes = {name: kind.axes or () for name, kind in parse(chosen.signature).takes if "..." not in (kind.axes or ())}
    for letter in dict.fromkeys(letter for names in axes.values() for letter in names):
        places = {
            name: names.index(letter) for name, names in axes.items() if letter in names and name in call.arguments
        }
        for size in (1, 2):
            cut = {name: call.arguments[name].narrow(place, 0, size) for name, place in places.items()
                   if call.arguments[name].shape[place] > size}  # fmt: skip
            smaller = Call(call.arguments | cut, call.options, None)
            if cut and differs(chosen, answer, smaller):
                call = smaller
                break
    return call


def differs(chosen, answer, call: Call) -> bool:
    """Whether an answer gives something else than the package's; False where either cannot be called."""
    try:
        came, right = called(answer, call), called(chosen.reference, call)
    except Exception:  # not a call that shows the difference
        return False
    return "nan" not in brief(right) and not same(came, right, chosen.tolerance)


def called(function, call: Call) -> Any:
    """The plain result of a function for a call's arguments."""
    given = {name: snapshot(value) for name, value in call.arguments.items()}
    places = [value for name, value in given.items() if name not in call.options]
    result = function(*places, **{name: given[name] for name in call.options})
    return plain(result.detach() if torch.is_tensor(result) else result)


def call_text(chosen, call: Call) -> str:
    """A call as it is written in code, or nothing where an argument cannot be written."""
    parts = []
    for name, value in call.arguments.items():
        if not (torch.is_tensor(value) or isinstance(value, int | float | str | list | dict | tuple)):
            return ""
        text = f"torch.tensor({brief(value.tolist())})" if torch.is_tensor(value) else brief(value)
        parts.append(f"{name}={text}" if name in call.options else text)
    return f"{parse(chosen.signature).name}({', '.join(parts)})"


def brief(value: Any) -> str:
    """A plain value as it is written in code, its numbers with up to six digits.

    >>> brief([0.1234567, 2.0, True, ("a", 1e-9)])
    "[0.123457, 2.0, True, ('a', 1e-09)]"
    """
    if isinstance(value, float):
        text = f"{value:.6g}"
        return text if not math.isfinite(value) or "." in text or "e" in text else f"{text}.0"
    if isinstance(value, list):
        return "[" + ", ".join(map(brief, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(brief, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {brief(part)}" for key, part in value.items()) + "}"
    return repr(value)
