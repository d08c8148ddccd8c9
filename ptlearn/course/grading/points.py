"""Points: what the answers of a submission do on fresh secret cases, judged here and observed in a confined process.

The cases go out as plain data and what the answers did comes back as plain data, of a size that is bounded. It is read
as JSON, and judged by code that has never been near the submission.
"""

import json
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

from ptlearn.course import checks, exercise
from ptlearn.course.exercise import Verdict, cases_of, conclude, one_line
from ptlearn.course.grading.merge import Merged, Release
from ptlearn.course.grading.record import ExerciseMark
from ptlearn.course.grading.sandbox import Confined, Limits
from ptlearn.course.grading.talk import Lost, Talk
from ptlearn.course.lesson import remarks
from ptlearn.course.work import checked_name

SEEDS = 3  # of cases per exercise, none of which is the student's own
CELL_SECONDS = 14.0  # after which a cell is ended from outside; the process itself tries at 10
EXERCISE_SECONDS = 10.0  # of one exercise on all its cases; the process itself ends what takes longer
AGAIN_SECONDS = 3.0  # of a second try of what took too long beside the other answers
GRACE = 4.0  # seconds after which an exercise is ended from outside
NOTEBOOK_SECONDS = 90.0  # of all cells and answers together, once the imports are there
START_SECONDS = 120.0  # of imports, on a busy machine
BROKEN = ("timeout", "crashed", "missing")
DEEPEST = 20  # lists in lists that an answer may give
MOST_VALUES = 200_000  # in what an answer gives on all cases
LARGEST_INTEGER = 1 << 64
LONGEST_TEXT = 100_000
NO_ANSWER = "what comes back is not what an answer can give"
KILLERS = 3  # cells that had to be ended before a student's other own cells are left out


@dataclass(frozen=True)
class Seen:
    """What came of an exercise: `data` per case, or why there is none (a status and a line).

    Args: killer, whether it is the answer's own cell that cannot be run.
    """

    data: Any = None
    status: str = ""
    why: str = ""
    seconds: float = 0.0
    killer: bool = False


class Worker:
    """A confined process that answers one request after another; started anew where it was lost.

    `killers` holds the cells that ended it, {place: how it was lost}, and `late` those that took too long; `until` is
    the time when the notebook's is up.
    """

    def __init__(self, release: Release, given: list[str], limits: Limits):
        folder = str(release.checks) if release.checks else None
        self.setup = {"lesson": release.lesson, "folder": folder, "given": given}
        self.limits, self.talk, self.ready = limits, None, False
        self.killers: dict[int, Lost] = {}
        self.late: set[int] = set()
        self.until = float("inf")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.end()

    def start(self) -> None:
        """A fresh process, which imports meanwhile."""
        command = [sys.executable, "-m", "ptlearn.course.grading.worker"]
        self.talk, self.ready = Talk(Confined(command, self.limits, {})), False
        self.talk.send(self.setup)

    def end(self) -> None:
        """Kill it, if it is there."""
        if self.talk is not None:
            self.talk.end()
            self.talk, self.ready = None, False

    def ask(self, request: dict) -> Talk:
        """Send a request, to a process that is there and ready, and hand back what will talk of it."""
        if self.talk is None:
            self.start()
        if not self.ready:
            self.talk.hear(time.monotonic() + START_SECONDS)
            self.ready = True
            self.until = min(self.until, time.monotonic() + NOTEBOOK_SECONDS)
        self.talk.send(request)
        return self.talk


def marks_of(release: Release, merged: Merged, seed: int, rubric: dict[str, float], gpu: bool = False) -> list:
    """A mark per exercise, on cases that the seed decides; the rubric's points for the exercises that it names."""
    cells = [cell | {"place": place} for place, cell in enumerate(merged.cells)]
    given = [cell["source"] for cell in cells if cell["kind"] == "given"]
    with Worker(release, given, Limits(gpu=gpu)) as worker:  # it imports while this process does the same
        known = exercises_of(release)
        points = {number: rubric.get(number, each.points) for number, each in known.items()}
        questions = [question(release, each, number, seed) for number, each in known.items() if points[number] > 0]
        first = observed(worker, cells, questions)
        marks = []
        for put in questions:
            number, seen = put["exercise"], first[put["exercise"]]
            found = judged(known[number], put, seen)
            if found.status != "pass" and number not in merged.untouched and not seen.killer:
                found = tried_again(worker, cells, known[number], put, found)
            if found.status in ("missing", "todo") and number not in merged.answers:
                found = Verdict("missing", "the answer cell is not in the notebook")
            score = found.score if known[number].ranked else None
            told = (points[number] * found.share, points[number], found.status, found.diagnosis, round(seen.seconds, 2))
            marks.append(ExerciseMark(number, *told, merged.answers.get(number, ""), score))
    return marks


def tried_again(worker: Worker, cells: list, known, put: dict, first: Verdict) -> Verdict:
    """The verdict on an answer without the others: nobody loses points to a neighbouring cell.

    Cells that took too long are left out; an answer whose own cell is one of them is not tried again.
    """
    alone = [cell for cell in cells if cell["kind"] != "answer" or cell["exercise"] == put["exercise"]]
    if any(cell["kind"] == "answer" and cell["place"] in worker.late for cell in alone):
        return first
    alone = [cell for cell in alone if cell["place"] not in worker.late]
    if time.monotonic() > worker.until:
        return first
    seconds = AGAIN_SECONDS if first.status == "timeout" else put["seconds"]
    second = judged(known, put, observed(worker, alone, [put | {"seconds": seconds}])[put["exercise"]])
    return second if second.share > first.share or first.status in BROKEN else first


def exercises_of(release: Release) -> dict:
    """The exercises that a release was made with."""
    if release.checks and str(release.checks) not in checks.__path__:
        checks.__path__.insert(0, str(release.checks))
    return exercise.exercises(release.lesson)


def question(release: Release, known, number: str, seed: int) -> dict:
    """An exercise with fresh cases; the worker's seed is for its generators and has nothing to do with the cases."""
    draw = random.Random(f"{seed} {number}")
    drawn = [cases_of(known, draw.randrange(1, 2**31)) for _ in range(SEEDS)]
    parts = list({json.dumps(part): part for part in drawn}.values())  # once what is the same at any seed, a contest
    check = next(cell for cell in release.blank.cells if remarks(cell).items() >= {("role", "check"), ("ex", number)})
    return {
        "exercise": number,
        "name": checked_name(check.source),
        "cases": [case for part in parts for case in part],
        "parts": [len(part) for part in parts],
        "seed": draw.randrange(1, 2**31),
        "seconds": known.seconds or EXERCISE_SECONDS,
    }


def observed(worker: Worker, cells: list, questions: list) -> dict[str, Seen]:
    """What is seen of each exercise asked for.

    A cell or an answer that ends the process, or has to be ended, is noted and left out, and the others go on.
    """
    seen, killers = {}, worker.killers
    while left := [put for put in questions if put["exercise"] not in seen]:
        if time.monotonic() > worker.until:
            over = Seen(None, "timeout", f"not run: the notebook has used up its {NOTEBOOK_SECONDS:.0f} s")
            return {put["exercise"]: over for put in left} | seen
        spared = [cell for cell in cells if cell["place"] not in killers]
        if len(killers) >= KILLERS:
            spared = [cell for cell in spared if cell["kind"] != "own"]
        before, asked, used = len(seen) + len(killers), Asked(left), worker.ready
        try:
            talk = worker.ask({"cells": spared, "questions": left})
            asked.follow(talk, worker.until)
        except Lost as lost:
            worker.end()
            if asked.cell is None and used:  # what an earlier answer left behind keeps it from working
                continue
            if asked.cell is None:
                raise OSError(f"the process that runs submissions {lost.args[1]} before it has begun") from None
            if asked.question is None and not asked.seen:
                killers[asked.cell] = lost
            elif asked.question is not None:
                asked.note(status=lost.args[0], why=lost.args[1])
        worker.late |= asked.late
        seen |= asked.seen
        if any(each.status == "crashed" for each in asked.seen.values()):
            worker.end()
        if len(seen) + len(killers) == before:
            seen[left[0]["exercise"]] = Seen(None, "crashed", "ends the process that runs it")
    for cell in cells:
        if cell["kind"] == "answer" and cell["place"] in killers and cell["exercise"] in seen:
            seen[cell["exercise"]] = Seen(None, *killers[cell["place"]].args, killer=True)
    return seen


class Asked:
    """How far a request has come: the cell that runs, the question that is put, and what was seen."""

    def __init__(self, questions: list):
        self.open = [put["exercise"] for put in questions]
        self.seconds = {put["exercise"]: put["seconds"] for put in questions}
        self.cell, self.question, self.seen, self.late = None, None, {}, set()
        self.began = self.until = time.monotonic()

    def follow(self, talk: Talk, until: float) -> None:
        """Listen until the request is served, or time is up. Only what goes on as it has to counts, or buys time."""
        self.limit(CELL_SECONDS)
        while True:
            said = talk.hear(min(self.until, until))
            if "ended" in said:
                self.end_question()
                if self.cell is not None and self.open and not self.seen:
                    raise Lost("crashed", "ends the process that runs it")
                return
            if type(said.get("cell")) is int and self.question is None and said["cell"] > (self.cell or -1):
                self.cell = said["cell"]
                self.limit(CELL_SECONDS)
            elif self.open and said.get("question") == self.open[0]:
                self.end_question()
                self.question = self.open.pop(0)
                self.limit(self.seconds[self.question] + GRACE)
            elif self.cell is not None and said.get("late_cell") == self.cell and self.question is None:
                self.late.add(self.cell)
            elif self.question is not None and said.get("late") == self.question:
                self.note(status="timeout", why="takes too long")
            elif self.question is not None and said.get("observed") == self.question:
                self.note(data=said.get("data"))
            elif self.question is not None and said.get("missing") == self.question:
                why = str(said.get("why") or "")
                self.note(status="error" if why else "missing", why=why)

    def limit(self, seconds: float) -> None:
        """Something has begun that may take so long."""
        self.began = time.monotonic()
        self.until = self.began + seconds

    def note(self, **found) -> None:
        """The question is answered, or lost."""
        self.seen[self.question] = Seen(seconds=time.monotonic() - self.began, **found)
        self.question = None

    def end_question(self) -> None:
        """Whatever was asked has come to its end without an answer."""
        if self.question is not None:
            self.note(status="crashed", why="ends the process that runs it")


def judged(known, put: dict, seen: Seen) -> Verdict:
    """The verdict on what was seen, with the status of a mark; a score is that of all cases together."""
    if seen.status == "missing":
        return Verdict("missing", f"no cell of the notebook defines {put['name']!r}")
    if seen.status:
        return Verdict(seen.status, one_line(seen.why))
    if not well_formed(seen.data, len(put["cases"])):
        return Verdict("wrong", NO_ANSWER)
    if why := excess(seen.data):
        return Verdict("wrong", why)
    start, verdict = 0, None
    for size in [sum(put["parts"])] if known.score else put["parts"]:
        cases, data = put["cases"][start : start + size], seen.data[start : start + size]
        try:
            verdict = conclude(known, cases, data, secret=True)
        except Exception:  # data comes from a submission, and costs no other exercise
            return Verdict("wrong", NO_ANSWER)
        if verdict.status == "FAIL":
            return verdict._replace(status="error" if any("error" in each for each in data) else "wrong")
        if verdict.status != "PASS":
            break
        start += size
    return verdict._replace(status=verdict.status.lower())


def well_formed(data: Any, count: int) -> bool:
    """Whether data that came from a submission is a list of `count` observations."""
    return isinstance(data, list) and len(data) == count and all(map(is_observation, data))


def is_observation(each: Any) -> bool:
    """Whether it has the form of what `observe` returns: data, an error or a stub, and notes of calls."""
    if not isinstance(each, dict) or not isinstance(each.get("calls", []), list):
        return False
    kinds = set(each) - {"calls"}
    return kinds == {"data"} or len(kinds) == 1 and kinds <= {"todo", "error"} and isinstance(each[kinds.pop()], str)


def excess(data: Any) -> str:
    """Why data is more than an answer gives, in a line; "" where it is not.

    >>> excess([1 << 100])
    'gives an integer of 101 bits, at most 64'
    """
    level, depth, count = [data], 0, 0
    while level:
        count += len(level)
        if depth > DEEPEST:
            return f"gives lists nested deeper than {DEEPEST}"
        if count > MOST_VALUES:
            return f"gives more than {MOST_VALUES:,} values"
        for value in level:
            if type(value) is int and abs(value) > LARGEST_INTEGER:
                return f"gives an integer of {value.bit_length()} bits, at most 64"
            if isinstance(value, str) and len(value) > LONGEST_TEXT:
                return f"gives a text of {len(value):,} characters, at most {LONGEST_TEXT:,}"
        inside = [list(each.values()) if isinstance(each, dict) else each for each in level]
        level, depth = [value for each in inside if isinstance(each, list) for value in each], depth + 1
    return ""
