"""An exercise, defined once and judged the same way in a notebook, in the tests and by the grader.

`cases` makes inputs, `observe` calls the student's answer and returns plain data, `conclude` reads that data and says
what is wrong. Only `observe` meets the student's code, so that it can run in a process of its own.
"""

import contextlib
import copy
import functools
import importlib
import io
import os
import pkgutil
import random
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ptlearn.course.contract import call_with, mismatch, parse, watched
from ptlearn.course.diagnosis import plain

SEED = 0  # of the check a student sees: fixed, so that a failure can be debugged; the grader draws fresh ones
LONGEST = 500  # characters of a diagnosis, which is one line
DRAWS = 40  # of cases, until they tell all mistakes apart
NOTHING = ("None", "ellipsis")


@dataclass(frozen=True, eq=False)  # each is itself alone, so that what is known of its cases can be kept
class Exercise:
    """One exercise: what it asks with, what is right, what its own mistakes give, its points, the package's answer.

    cases(rng) -> list of JSON-able inputs, from a `random.Random`; see `cases_of`.
    drive(answer, case) -> what the answer gives: numbers, strings, lists or dicts of them, tensors; None calls a
        function with the entries of the case that its signature names. None of its own code corrects or checks the
        answer: that is the contract's and the engine's.
    expect(case) -> what is right, from the definition, and {diagnosis: what that mistake gives}; for a dict of results
        the key of a mistake may be (entry, diagnosis), and its value that entry. A case that cannot show a mistake
        leaves it out. Where several results are right, what is right is their `Alternatives`.
    signature: what the answer takes and returns, see `contract`; "" for an answer that is a value.
    remark(case, data) -> a fact about data that is wrong (data that is not right, where `expect` is None), or nothing.
    reference: the package's answer, a function or a small value, which the lesson goes on with.
    score(cases, data) -> (how good the answer is, what would make it better), where no single answer is right and
        `expect` is None; `remark` refuses what is no answer at all. `levels` are the scores that earn a point each.
    ranked: whether grading lists the scores of a class.
    seconds: that grading waits for an answer to all its cases; for most exercises the usual ones are plenty.
    """

    cases: Callable[[random.Random], list]
    drive: Callable[[Any, Any], Any] | None
    expect: Callable[[Any], tuple[Any, dict]] | None
    points: int
    reference: Any
    signature: str = ""
    remark: Callable[[Any, Any], str | None] | None = None
    tolerance: float = 1e-4
    score: Callable[[list, list], tuple[float, str]] | None = None
    levels: tuple[float, ...] = ()
    ranked: bool = False
    seconds: float | None = None

    def driven(self, answer: Any, case: Any) -> Any:
        """What the answer gives for a case, or the answer itself where it is a value."""
        if self.drive:
            return self.drive(answer, case)
        return call_with(parse(self.signature), answer, case) if self.signature else answer


class Verdict(NamedTuple):
    """PASS, PART, FAIL or TODO, what is wrong (possibly nothing to say), the share of the points, and a score."""

    status: str
    diagnosis: str = ""
    share: float = 0.0
    score: float | None = None


class Unanswered(Exception):
    """The answer is still the stub that the notebook was handed out with."""


class WrongAnswer(Exception):
    """The answer raised; the text is the diagnosis."""


class NotPassed(AssertionError):
    """What `check` raises under nbgrader, shown as one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def exercises(lesson: int) -> dict[str, Exercise]:
    """The exercises of a lesson, by number: the `EXERCISES` of `checks/NN_topic.py`."""
    checks = importlib.import_module("ptlearn.course.checks")
    names = [module.name for module in pkgutil.iter_modules(checks.__path__)]
    for name in names:
        if name.startswith(f"{lesson:02d}_"):
            return importlib.import_module(f"{checks.__name__}.{name}").EXERCISES
    raise ValueError(f"lesson: no checks for lesson {lesson:02d}; there are {', '.join(sorted(names)) or 'none'}")


def exercise(number: str) -> Exercise:
    """The exercise called, for example, "8.2": the second one of lesson 08."""
    lesson, dot, _ = str(number).partition(".")
    if not (isinstance(number, str) and dot and lesson.isdigit()):
        raise ValueError(f"number: an exercise is called like '8.2', not {number!r}")
    known = exercises(int(lesson))
    if number not in known:
        raise ValueError(f"number: lesson {int(lesson):02d} has no exercise {number!r}; it has {', '.join(known)}")
    return known[number]


def check(number: str, answer: Any) -> Any:
    """Judge an answer, print one line, and hand back what the lesson goes on with.

    That is the student's answer when it passes and the package's when it does not, so nobody is ever stuck.
    """
    chosen = exercise(number)
    status, diagnosis, share, score = judge(chosen, answer)
    if status == "PASS" and chosen.ranked:
        diagnosis = f"score {score:.3g}"
    line = f"{status} {number}{': ' if diagnosis else ''}{diagnosis}"
    if share:
        print(line)
        return answer
    print(f"{line} (going on with the package's)")
    if must_raise():
        rebind(sys._getframe(1), answer, chosen.reference)
        raise NotPassed(f"{status} {number}{': ' if diagnosis else ''}{diagnosis}")
    return chosen.reference


def must_raise() -> bool:
    """Whether nbgrader runs the notebook: it takes points for a cell that raises, whatever the cell prints."""
    return os.environ.get("NBGRADER_EXECUTION") in ("autograde", "validate")


def rebind(caller: types.FrameType, answer: Any, reference: Any) -> None:
    """Give the name in `name = check("8.2", name)` the package's answer, though the assignment never happens."""
    for name in caller.f_code.co_names:
        if caller.f_globals.get(name) is answer:
            caller.f_globals[name] = reference


def judge(chosen: Exercise, answer: Any, seed: int = SEED, *, secret: bool = False) -> Verdict:
    """The verdict on an answer over the cases of one seed; a secret one shows nothing of the cases."""
    from ptlearn.course.verdict import Unnamed, shown, smallest_call

    cases = cases_of(chosen, seed)
    observed = [observe(chosen, answer, case, seed) for case in cases]
    if secret:
        return conclude(chosen, cases, observed, secret=True)

    @functools.cache
    def smallest():
        with undisturbed(seed):
            return smallest_call(chosen, answer, cases)

    verdict = conclude(chosen, cases, observed, smallest=smallest)
    if not isinstance(verdict.diagnosis, Unnamed) or smallest() is None:
        return verdict
    with undisturbed(seed):
        call = shown(chosen, answer, smallest())
    return Verdict("FAIL", Unnamed(one_line(f"{verdict.diagnosis}; try {call}")))


@functools.lru_cache(maxsize=256)
def cases_of(chosen: Exercise, seed: int) -> list:
    """The inputs of one seed, plain data.

    Drawn until they tell every listed mistake from the right answer and from each other, as far as any draw does.
    """
    from ptlearn.course.verdict import unseparated

    rng, best = random.Random(seed), None
    for _ in range(DRAWS):
        cases = chosen.cases(rng)
        left = len(unseparated(chosen, cases))
        if best is None or left < best[0]:
            best = left, cases
        if not left:
            break
    return best[1]


def observe(chosen: Exercise, answer: Any, case: Any, seed: int = SEED) -> dict:
    """What an answer does with one case, as plain data. The only step that runs the student's code.

    Returns: {"data": ..., "calls": notes of `contract.watched`}, or {"todo": reason} for a stub, or
             {"error": the student's own error in a line, "calls": ...}.
    """
    notes: list[dict] = []
    with undisturbed(seed):
        try:
            return {"data": attempt(chosen, answer, case, notes), "calls": notes}
        except Unanswered as reason:
            return {"todo": str(reason)}
        except WrongAnswer as reason:
            return {"error": str(reason), "calls": notes}


def conclude(
    chosen: Exercise, cases: list, observations: list[dict], *, secret: bool = False, smallest: Callable | None = None
) -> Verdict:
    """The verdict on what was observed; runs none of the student's code, unless `smallest()` looks for a small call
    that shows what is wrong."""
    from ptlearn.course.verdict import diagnose

    for seen in observations:
        if "todo" in seen:
            return Verdict("TODO", one_line(seen["todo"]))
    with undisturbed(SEED):
        diagnosis = diagnose(chosen, cases, observations, secret, smallest)
        if not diagnosis and chosen.score:
            return graded(chosen, cases, [seen["data"] for seen in observations])
    return Verdict("FAIL", type(diagnosis)(one_line(diagnosis))) if diagnosis else Verdict("PASS", share=1.0)


def graded(chosen: Exercise, cases: list, data: list) -> Verdict:
    """The verdict by the levels that the score reaches."""
    score, remark = chosen.score(cases, data)
    reached = sum(score >= level for level in chosen.levels)
    if reached == len(chosen.levels):
        return Verdict("PASS", "", 1.0, score)
    line = f"{reached} of {chosen.points} points, the next one at {chosen.levels[reached]:g}"
    line = one_line(f"{line}, not {score:.3g}{'; ' if remark else ''}{remark}")
    return Verdict("PART" if reached else "FAIL", line, reached / chosen.points, score)


def attempt(chosen: Exercise, answer: Any, case: Any, notes: list[dict]) -> Any:
    """The plain data that an answer gives for one case.

    Raises `Unanswered` for a stub, and `WrongAnswer` with the student's own error otherwise.
    """
    if answer is None or answer is ...:
        raise Unanswered
    signature = parse(chosen.signature) if chosen.signature else None
    watching = watched(answer, signature, notes) if callable(answer) else answer
    try:
        data = plain(chosen.driven(watching, copy.deepcopy(case)))
    except NotImplementedError as reason:
        raise Unanswered from reason
    except (Exception, SystemExit) as reason:
        if notes and all(note["returned"]["type"] in NOTHING for note in notes):
            raise Unanswered("the function returns nothing, is a return missing?") from reason
        broken = signature and notes and mismatch(signature.returns, notes[-1]["returned"], {})
        raise WrongAnswer(broken or described(reason, answer)) from reason
    if data is None:
        raise Unanswered("the function returns nothing, is a return missing?")
    return data


def described(reason: BaseException, answer: Any) -> str:
    """The student's error in a line: its type, where in the answer it happened, and its message."""
    code = getattr(answer, "__code__", None)
    place, trace = "", reason.__traceback__
    while trace is not None:
        if code is not None and trace.tb_frame.f_code.co_filename == code.co_filename:
            place = f" in line {trace.tb_lineno} of the cell" if "ipykernel" in code.co_filename else ""
        trace = trace.tb_next
    return f"{type(reason).__name__}{place}: {reason}"


@contextlib.contextmanager
def undisturbed(seed: int):
    """Run a check silently, with every generator seeded, and leave the lesson's own random numbers as they were."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    states = random.getstate(), numpy and numpy.random.get_state(), torch and torch.get_rng_state()
    random.seed(seed)
    if numpy:
        numpy.random.seed(seed)
    if torch:
        torch.random.default_generator.manual_seed(seed)  # the CPU's alone: a check needs no device
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])
        if torch:
            torch.set_rng_state(states[2])


def one_line(text: str) -> str:
    """The text on one line, cut where it gets long."""
    text = " ".join(line.strip() for line in text.splitlines())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
