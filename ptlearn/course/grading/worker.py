"""The confined process that runs a student's code and says what it does: `python -m ptlearn.course.grading.worker`.

One line of JSON in, a request; lines of JSON out, what happens. A request is served by a fork of this process, which
has imported what takes long and has seen no student's code, and every question by a fork of that one. What is expected
of an answer never comes in here, so there is nothing to find, to patch or to forge: what goes out is judged elsewhere.
"""

import ast
import contextlib
import dataclasses
import dis
import importlib
import json
import os
import re
import signal
import sys
import types
from contextlib import suppress
from os import _exit, fork, kill, waitpid, write
from time import monotonic

from ptlearn.course import checks, exercise
from ptlearn.course.exercise import observe

CELL_SECONDS = 10.0  # of a cell
OWN_SECONDS = 30.0  # of all cells that a student added: their experiments are cut off there
SECRET = ("cases", "reference", "expect", "remark", "score")  # parts of an exercise not needed here
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign)
CALLS = {"arguments", "range", "int", "float", "list", "tuple", "dict", "set", "sorted", "len"}  # that take no time
MAGICS = re.compile(r"\A\s*%%(?:time|timeit|capture|prun)\b.*\n|^%(?:time|timeit)\s+", re.MULTILINE)


class Replies:
    """The way out: a line of JSON for every thing that happens."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def say(self, **what) -> None:
        """Write it whole."""
        data = json.dumps(what).encode() + b"\n"
        while data:
            data = data[write(self.descriptor, data) :]


class Quiet:
    """Stands for the notebook's shell: every magic is there, and does nothing."""

    def __getattr__(self, name):
        return lambda *arguments, **options: None


def main() -> None:
    """Serve requests until there are no more."""
    requests, replies = os.fdopen(os.dup(0), "rb"), Replies(os.dup(1))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    known = prepared(**json.loads(requests.readline()))
    replies.say(ready=True)
    for line in requests:
        child = fork()
        if child == 0:
            with suppress(BaseException):
                requests.close()
                serve(json.loads(line), known, replies)
            _exit(0)
        waitpid(child, 0)
        replies.say(ended=True)


def prepared(lesson: int, folder: str | None, given: list[str]) -> dict:
    """The exercises of a lesson without what is expected of them; and the imports of its given cells, which take long.

    Args: folder, of the release's exercises where they are not the installed ones.
    """
    if folder:
        checks.__path__.insert(0, folder)
    known = exercise.exercises(lesson)
    for number, whole in list(known.items()):
        secret = {part.name for part in dataclasses.fields(whole)} & set(SECRET)
        known[number] = dataclasses.replace(whole, **dict.fromkeys(secret))
    exercise.check = handed_back
    for source in given:
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                with suppress(Exception):
                    exec(compile(ast.Module([statement], []), "imports", "exec"), {})
    if "ptlearn.lm.models" in sys.modules:  # seconds, here once instead of in the process of every question
        importlib.import_module("transformers").LlamaForCausalLM  # noqa: B018
    return known


def handed_back(number, answer):
    """Stands for `check`, which would hand out the package's answer for a wrong one."""
    return answer


def serve(request: dict, known: dict, replies: Replies) -> None:
    """Run the cells and put every question to its answer.

    Args: request, {"cells": [{"place", "kind", "exercise", "source"}], "questions": [{"exercise", "name", "cases",
          "seed", "seconds"}]}.
    """
    answers, errors = answers_of(request["cells"], request["questions"], replies)
    for question in request["questions"]:
        number = question["exercise"]
        replies.say(question=number)
        child = fork()
        if child == 0:
            with suppress(BaseException):
                if number in answers:
                    answer, seed = answers[number], question["seed"]
                    seen = [observe(known[number], answer, case, seed) for case in question["cases"]]
                    replies.say(observed=number, data=seen)
                else:
                    replies.say(missing=number, why=errors.get(number, ""))
            _exit(0)
        if not ends_in_time(child, question["seconds"]):
            replies.say(late=number)


def ends_in_time(child: int, seconds: float) -> bool:
    """Wait for a process; whether it ends by itself, else it is killed."""
    late = []

    def ring(signal_number, frame):
        late.append(child)
        with suppress(ProcessLookupError):  # it has just ended
            kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return not late


def answers_of(cells: list, questions: list, replies: Replies) -> tuple[dict, dict]:
    """Run the cells; what then stands under an exercise's name at its check, and the errors of answer cells.

    A name counts only where a student's cell has bound it: a lesson may import the package's own under the same name.
    """
    names = {question["exercise"]: question["name"] for question in questions}
    namespace, theirs, answers, errors, left = fresh_namespace(), set(), {}, {}, OWN_SECONDS
    given = Given()
    for cell in cells:
        number, kind = cell["exercise"], cell["kind"]
        if kind == "check":
            if names.get(number) in theirs:
                answers[number] = namespace.get(names[number])
            continue
        replies.say(cell=cell["place"])
        before, began = {name: namespace.get(name) for name in names.values()}, monotonic()
        limit = max(1.0, min(CELL_SECONDS, left)) if kind == "own" else CELL_SECONDS
        error = run_cell(cell, namespace, limit, given)
        if monotonic() - began >= limit:
            replies.say(late_cell=cell["place"])
        if kind in ("answer", "own"):
            theirs |= {name for name, value in before.items() if namespace.get(name) is not value}
            left -= (monotonic() - began) * (kind == "own")
        if kind == "answer" and error:
            errors[number] = error
    return answers, errors


def fresh_namespace() -> dict:
    """The globals of a new notebook: those of `__main__`, and what a kernel adds to them."""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.get_ipython = Quiet
    module.display = lambda *objects, **options: None
    return vars(module)


class Given:
    """What given cells bind. Definitions run at once; assignments that compute, when an answer reads what they bind."""

    def __init__(self):
        self.statements = []  # (the names it binds, the names it reads, the statement)
        self.waiting = set()  # the places of those that have not run

    def add(self, statement: ast.stmt) -> None:
        """Keep a statement of a given cell."""
        if isinstance(statement, ASSIGNMENTS) and not defines(statement):
            self.waiting.add(len(self.statements))
        self.statements.append((bound(statement), read(statement), statement))

    def prepare(self, statement: ast.stmt, namespace: dict) -> None:
        """Run the assignments that wait and on which the names stand that a statement reads."""
        found, wanted = set(), read(statement)
        while new := {place for place, (binds, *_) in enumerate(self.statements) if binds & wanted} - found:
            found |= new
            wanted = wanted.union(*(self.statements[place][1] for place in new))
        for place in sorted(found & self.waiting):
            self.waiting.discard(place)
            try:
                exec(compile(ast.Module([self.statements[place][2]], []), "<given>", "exec"), namespace)
            except TimeoutError:
                raise
            except Exception:  # it may stand on an answer that is wrong
                continue


def read(statement: ast.stmt) -> set[str]:
    """The global names that a statement reads, also those of functions that it defines."""
    names, codes = set(), [compile(ast.Module([statement], []), "", "exec")]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        names |= {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_NAME", "LOAD_GLOBAL")}
    return names


def bound(statement: ast.stmt) -> set[str]:
    """The global names that a statement binds, or changes by way of an attribute or an index."""
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    changed = {leaf.id for target in targets if target for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
    steps = dis.get_instructions(compile(ast.Module([statement], []), "", "exec"))
    return changed | {step.argval for step in steps if step.opname == "STORE_NAME"}


def run_cell(cell: dict, namespace: dict, seconds: float, given: Given) -> str:
    """Run a cell, statement by statement so that one that fails costs no other; its first error in a line, or "".

    Of a given cell only the definitions run, and what they read: its experiments are not what is graded.
    """
    first, name = "", f"<ipykernel cell {cell['place']}>"
    try:
        with time_limit(seconds):
            for statement in ast.parse(python_of(cell["source"])).body:
                if cell["kind"] in ("given", "edited"):
                    given.add(statement)
                    if not defines(statement):
                        continue
                elif cell["kind"] == "answer" or isinstance(statement, DEFINITIONS):
                    given.prepare(statement, namespace)
                try:
                    exec(compile(ast.Module([statement], []), name, "exec"), namespace)
                except TimeoutError:
                    raise
                except BaseException as reason:
                    first = first or described(reason)
    except BaseException as reason:
        return first or described(reason)
    return first


def defines(statement: ast.stmt) -> bool:
    """Whether a statement defines something and does not compute it."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        calls = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
        return all(isinstance(call, ast.Name) and call.id in CALLS for call in calls)
    return isinstance(statement, DEFINITIONS)


def python_of(source: str) -> str:
    """A cell as Python: what is timed is run, other magics do nothing."""
    source = MAGICS.sub("", source)
    try:
        ast.parse(source)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        return TransformerManager().transform_cell(source)
    return source


@contextlib.contextmanager
def time_limit(seconds: float):
    """Raise TimeoutError in what takes longer; code that catches everything is ended from outside."""

    def ring(signal_number, frame):
        raise TimeoutError(f"the cell takes longer than {seconds:.0f} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def described(reason: BaseException) -> str:
    """An error in a line, whatever its own words do."""
    try:
        return f"{type(reason).__name__}: {' '.join(str(reason).split())}"[:300]
    except BaseException:
        return type(reason).__name__


if __name__ == "__main__":
    main()
