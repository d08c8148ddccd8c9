"""An exercise, defined once and judged the same way in a notebook, in the tests and by the grader.

`cases` makes inputs, `drive` calls the student's answer and returns plain data, `verify` reads that data and says what
is wrong. Only `drive` meets the student's code, so that it can run in a process of its own. `diagnosis` has
the words that most `verify` functions need.
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

from ptlearn.course.diagnosis import plain

SEED = 0  # of the check a student sees: fixed, so that a failure can be debugged; the grader draws fresh ones
LONGEST = 300  # characters of a diagnosis, which is one line


@dataclass(frozen=True)
class Exercise:
    """One exercise in three parts, its points and the package's own answer.

    cases(rng) -> list of JSON-able inputs, from a `random.Random`.
    drive(answer, case) -> numbers, strings, lists or dicts of them; tensors and arrays are turned into lists.
    verify(case, data) -> nothing when the data is right, else one line that says what is wrong.
    reference: the package's answer, a function or a small value, which the lesson goes on with.
    """

    cases: Callable[[random.Random], list]
    drive: Callable[[Any, Any], Any]
    verify: Callable[[Any, Any], str | None]
    points: int
    reference: Any


class Verdict(NamedTuple):
    """PASS, FAIL or TODO, and for the last two what is wrong (possibly nothing to say)."""

    status: str
    diagnosis: str = ""


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
    if not (dot and lesson.isdigit()):
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
    status, diagnosis = judge(chosen, answer)
    if status == "PASS":
        print(f"PASS {number}")
        return answer
    print(f"{status} {number}{': ' if diagnosis else ''}{diagnosis} (going on with the package's)")
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


def judge(chosen: Exercise, answer: Any, seed: int = SEED) -> Verdict:
    """The verdict on an answer over the cases of one seed."""
    cases = cases_of(chosen, seed)
    return conclude(chosen, cases, [observe(chosen, answer, case, seed) for case in cases])


def cases_of(chosen: Exercise, seed: int) -> list:
    """The inputs of one seed, plain data."""
    return chosen.cases(random.Random(seed))


def observe(chosen: Exercise, answer: Any, case: Any, seed: int = SEED) -> dict:
    """What an answer does with one case, as plain data. The only step that runs the student's code.

    Returns: {"data": ...}, or {"todo": reason} for a stub, or {"error": the student's own error in a line}.
    """
    with undisturbed(seed):
        try:
            return {"data": attempt(chosen, answer, case)}
        except Unanswered as reason:
            return {"todo": str(reason)}
        except WrongAnswer as reason:
            return {"error": str(reason)}


def conclude(chosen: Exercise, cases: list, observations: list[dict]) -> Verdict:
    """The verdict on what was observed; runs none of the student's code. The first case that fails speaks."""
    for case, seen in zip(cases, observations, strict=True):
        if "todo" in seen:
            return Verdict("TODO", one_line(seen["todo"]))
        diagnosis = seen.get("error") or verdict_on(chosen, case, seen["data"])
        if diagnosis:
            return Verdict("FAIL", one_line(diagnosis))
    return Verdict("PASS")


def attempt(chosen: Exercise, answer: Any, case: Any) -> Any:
    """The plain data that an answer gives for one case. The only step that runs the student's code.

    Raises `Unanswered` for a stub, and `WrongAnswer` with the student's own error otherwise.
    """
    if answer is None or answer is ...:
        raise Unanswered
    returned: list[bool] = []
    try:
        data = plain(chosen.drive(recorded(answer, returned), copy.deepcopy(case)))
    except NotImplementedError as reason:
        raise Unanswered from reason
    except (Exception, SystemExit) as reason:
        if returned and not any(returned):
            raise Unanswered("the function returns nothing, is a return missing?") from reason
        raise WrongAnswer(described(reason, answer)) from reason
    if data is None:
        raise Unanswered("the function returns nothing, is a return missing?")
    return data


def verdict_on(chosen: Exercise, case: Any, data: Any) -> str | None:
    """What `verify` says; data of a form that it cannot read is a wrong answer too."""
    try:
        return chosen.verify(case, data)
    except Exception as reason:
        return f"the result does not have the expected form ({type(reason).__name__}: {reason})"


def recorded(answer: Any, returned: list[bool]) -> Any:
    """The function itself, noting at each call whether it returned something; other answers unchanged."""
    if not isinstance(answer, types.FunctionType):
        return answer

    @functools.wraps(answer)
    def noted(*arguments, **options):
        result = answer(*arguments, **options)
        returned.append(result is not None and result is not ...)
        return result

    return noted


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
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
