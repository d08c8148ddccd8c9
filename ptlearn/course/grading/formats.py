"""Marks as the files that other systems import: a spreadsheet, Canvas, Moodle, JUnit, Gradescope, GitHub Classroom.

Names, diagnoses and code come from students. No cell starts a formula, no text holds a character that XML forbids.
`python -m ptlearn.course.grading.formats gradescope|classroom|exercise marks.json` prints what the last two read.
"""

import argparse
import base64
import csv
import dataclasses
import io
import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

from ptlearn.course.exercise import exercise
from ptlearn.course.grading.record import ExerciseMark, Marks, from_json

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # by XML 1.0; also half of a pair
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # what a spreadsheet computes; the wide forms too
IDENTITY = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")  # of Canvas's gradebook, in its order
OTHERWISE = {"Student": ("student", "name"), "SIS User ID": ("id",), "SIS Login ID": ("email",)}
POSSIBLE = "    Points Possible"  # with its spaces, the row of Canvas's gradebook that holds what full marks are
NAMES = ("student", "name", "email", "email address", "id", "id number", "sis login id", "sis user id", "file")
STOPPED = "There is no result: no notebook was handed in, or the grader stopped. Please tell your instructor."
FAILURES = ("part", "wrong", "todo", "missing")  # of the student; but for "pass", others are errors of the run


def cleaned(marks: Marks) -> Marks:
    """The same marks without characters that a file cannot hold, and diagnoses, names and flags on one line.

    >>> cleaned(Marks("Ada\\x00\\nL", "a.ipynb")).student
    'Ada� L'
    """
    exercises = tuple(
        dataclasses.replace(mark, diagnosis=line(mark.diagnosis), code=FORBIDDEN.sub("\ufffd", mark.code))
        for mark in marks.exercises
    )
    texts = {name: line(getattr(marks, name)) for name in ("student", "submission", "lesson", "error")}
    return dataclasses.replace(marks, exercises=exercises, flags=tuple(map(line, marks.flags)), **texts)


def line(text: str) -> str:
    """A text on one line, unprintable characters replaced."""
    return " ".join(FORBIDDEN.sub("\ufffd", text).split())


def table(header: list[str], rows: list[list]) -> str:
    """A CSV file whose texts are texts to a spreadsheet.

    >>> table(["name", "sum"], [["=1+1", -2]])
    "name,sum\\n'=1+1,-2\\n"
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([as_text(cell) if isinstance(cell, str) else cell for cell in row] for row in [header, *rows])
    return file.getvalue()


def as_text(cell: str) -> str:
    """A cell on one line, with an apostrophe before what would be computed."""
    cell = re.sub(r"[\t\r\n]", " ", cell)
    return f"'{cell}" if FORMULA.match(cell) else cell


def number(points: float) -> float | int:
    """Points without a needless '.0'."""
    return int(points) if points == int(points) else round(points, 4)


def exercises_of(graded: list[Marks]) -> list[str]:
    """The numbers of all exercises, 8.2 before 8.10."""
    found = {mark.exercise for marks in graded for mark in marks.exercises}
    return sorted(found, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def marks_csv(graded: list[Marks]) -> str:
    """A row per submission: who, the points of each exercise, their sum, and what there is to look at."""
    exercises = exercises_of(graded)
    rows = []
    for marks in graded:
        points = {mark.exercise: number(mark.points) for mark in marks.exercises}
        sums = [number(marks.points), number(marks.maximum)] if not marks.error else ["", ""]
        about = [marks.lesson, "; ".join(marks.flags), marks.error, marks.submission]
        rows.append([marks.student, *(points.get(name, "") for name in exercises), *sums, *about])
    return table(["student", *exercises, "sum", "maximum", "lesson", "flags", "error", "submission"], rows)


def marks_json(graded: list[Marks]) -> str:
    """All that is known, also the seeds: for the instructor."""
    return json.dumps([dataclasses.asdict(marks) for marks in graded], indent=1, sort_keys=True) + "\n"


def read_marks(text: str) -> list[Marks]:
    """What `marks_json` wrote."""
    return [from_json(json.dumps(fields)) for fields in json.loads(text)]


def by_lesson(graded: list[Marks]) -> dict[str, list[Marks]]:
    """{lesson: its marks}, lessons in order, without what could not be graded."""
    found: dict[str, list[Marks]] = {}
    for marks in sorted(graded, key=lambda marks: marks.lesson):
        if not marks.error:
            found.setdefault(marks.lesson, []).append(marks)
    return found


def row_of(marks: Marks, roster: list[dict]) -> int | None:
    """The place in the roster of who handed this in, by the first of NAMES in which one row alone holds the name."""
    wanted = {marks.student.casefold(), Path(marks.submission).name.casefold()}
    for column in NAMES:
        found = [
            place
            for place, row in enumerate(roster)
            for name, value in row.items()
            if str(name).strip().casefold() == column and str(value or "").strip().casefold() in wanted
        ]
        if len(found) == 1:
            return found[0]
    return None


def canvas_csv(graded: list[Marks], roster: list[dict] | None = None) -> str:
    """Canvas's gradebook with one column filled per lesson; no mark leaves the cell empty, which changes nothing there.

    A roster that was exported from Canvas gives the students, their columns and the name of the assignment's column
    ("08 REINFORCE (4711)", found by the lesson's number); without one, the names are those of the submissions.
    """
    lessons = by_lesson(graded)
    rows = [dict(row) for row in roster or [] if str(row.get("Student") or "").strip() != POSSIBLE.strip()]
    columns = {lesson: column_of(lesson, roster or []) for lesson in lessons}
    for marks in itertools.chain(*lessons.values()):
        place = row_of(marks, rows)
        if place is None:
            rows.append({"Student": marks.student})
            place = -1
        rows[place][columns[marks.lesson]] = number(marks.points)
    for row in rows:  # a roster from elsewhere has a school's numbers, never Canvas's own IDs
        for column, names in OTHERWISE.items():
            row.setdefault(column, next((row[name] for name in names if row.get(name)), ""))
    maxima = [number(those[0].maximum) for those in lessons.values()]
    body = [[row.get(name, "") for name in (*IDENTITY, *columns.values())] for row in rows]
    return table([*IDENTITY, *columns.values()], [[POSSIBLE, "", "", "", "", *maxima], *body])


def column_of(lesson: str, roster: list[dict]) -> str:
    """The assignment's column: the roster's own that starts with the lesson's number, else its name in words.

    >>> column_of("08_reinforce", []), column_of("08_reinforce", [{"08 REINFORCE (4711)": ""}])
    ('08 reinforce', '08 REINFORCE (4711)')
    """
    known = [str(name) for name in (roster[0] if roster else ()) if str(name).startswith(f"{lesson[:2]} ")]
    return known[0] if known else lesson.replace("_", " ")


def moodle_csv(graded: list[Marks], roster: list[dict] | None = None) -> str:
    """Moodle's import for one lesson: an address or an ID number, the grade, the feedback, and no further column.

    Without a roster, the student's name in the marks is taken for the ID number.
    """
    rows = [{str(name).strip().casefold(): value for name, value in row.items()} for row in roster or []]
    mailed = any(name in row for row in rows for name in ("email", "email address"))
    names = ("email", "email address") if mailed else ("id number", "id", "sis user id")
    body = []
    for marks in graded:
        place = row_of(marks, rows)
        row = rows[place] if place is not None else {}
        identity = next((str(row[name]) for name in names if row.get(name)), marks.student)
        body.append([identity, number(marks.points), "; ".join(map(sentence, marks.exercises))])
    return table(["Email address" if mailed else "ID number", "Grade", "Feedback"], body)


def sentence(mark: ExerciseMark) -> str:
    """An exercise in a few words.

    >>> sentence(ExerciseMark("8.1", 0, 2, "wrong", "padding counts"))
    '8.1: 0 of 2, wrong: padding counts'
    """
    said = f"{mark.exercise}: {number(mark.points)} of {number(mark.maximum)}, {mark.status}"
    return f"{said}: {mark.diagnosis}" if mark.diagnosis else said


def junit_xml(graded: list[Marks]) -> str:
    """A suite per submission and a case per exercise."""
    root = ElementTree.Element("testsuites")
    for marks in graded:
        counts = {kind: sum(child_of(mark) == kind for mark in marks.exercises) for kind in ("failure", "error")}
        total = {"tests": len(marks.exercises) + bool(marks.error), "failures": counts["failure"]}
        total |= {"errors": counts["error"] + bool(marks.error), "time": f"{marks.seconds:.3f}"}
        suite = ElementTree.SubElement(root, "testsuite", name=marks.student, **{k: str(v) for k, v in total.items()})
        if marks.error:
            case = ElementTree.SubElement(suite, "testcase", classname=marks.submission, name="submission")
            ElementTree.SubElement(case, "error", message=marks.error, type="submission")
        for mark in marks.exercises:
            about = {"classname": marks.lesson, "name": mark.exercise, "time": f"{mark.seconds:.3f}"}
            case = ElementTree.SubElement(suite, "testcase", about)
            if child_of(mark):
                ElementTree.SubElement(case, child_of(mark), message=mark.diagnosis, type=mark.status)
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def child_of(mark: ExerciseMark) -> str:
    """What JUnit calls a status: nothing for a pass, a failure of the student's, an error of the run."""
    return "" if mark.status == "pass" else "failure" if mark.status in FAILURES else "error"


def results_json(marks: Marks) -> dict:
    """Gradescope's results.json: the score, and what a student sees per exercise. The seeds are not in it."""
    marks = cleaned(marks)
    tests = [
        {
            "name": f"Exercise {mark.exercise}",
            "number": mark.exercise,
            "score": mark.points,
            "max_score": mark.maximum,
            "status": "passed" if mark.status == "pass" else "failed",
            "output": mark.diagnosis or mark.status,
            "tags": [mark.status],
            "visibility": "visible",
        }
        for mark in marks.exercises
    ]
    return {
        "score": marks.points,
        "execution_time": round(marks.seconds),
        "output": marks.error or f"{marks.lesson}: {number(marks.points)} of {number(marks.maximum)} points",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "extra_data": {"lesson": marks.lesson, "release": marks.release, "notebook": marks.notebook},
        "tests": tests,
    }


def classroom_json(mark: ExerciseMark) -> dict:
    """What GitHub Classroom's reporter reads, as base64, from `<RUNNER>_RESULTS`.

    An exercise is a runner of its own, since the reporter shares out a runner's points evenly among its tests.
    """
    status = "pass" if mark.status == "pass" else "fail" if mark.status in FAILURES else "error"
    test = {
        "name": f"Exercise {mark.exercise}",
        "status": status,
        "message": mark.diagnosis or mark.status,
        "score": mark.points,
        "execution_time": f"{mark.seconds:.1f}s",
    }
    return {"version": 1, "status": status, "max_score": mark.maximum, "tests": [test]}


def one_submission(graded: list[Marks]) -> Marks:
    """The marks of one hand-in: of the one notebook in it that could be graded, else why there are none."""
    found = [marks for marks in graded if not marks.error]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(Path(marks.submission).name for marks in found)
        return Marks(found[0].student, "", error=f"{len(found)} notebooks were handed in, expected one: {names}")
    return graded[0] if graded else Marks("", "", error="no notebook was handed in")


def mark_of(marks: Marks, number: str) -> ExerciseMark:
    """The mark of an exercise; one that was not graded has the status "error" and says why."""
    for mark in cleaned(marks).exercises:
        if mark.exercise == number:
            return mark
    reason = marks.error or f"there is no exercise {number} in {marks.lesson}"
    return ExerciseMark(number, 0, exercise(number).points, "error", line(reason))


def main(arguments: list[str] | None = None) -> int:
    """Print the marks of one hand-in for another system.

    gradescope: results.json. classroom: "e8_1=..." for each exercise named, for $GITHUB_OUTPUT. exercise: the line of
    one exercise, and the exit code is 1 if it did not pass.
    """
    parser = argparse.ArgumentParser(prog="python -m ptlearn.course.grading.formats", description=main.__doc__)
    parser.add_argument("form", choices=("gradescope", "classroom", "exercise"))
    parser.add_argument("marks", type=Path, help="the marks.json of `ptlearn grade`")
    parser.add_argument("exercise", nargs="*", help="such as 8.1")
    options = parser.parse_args(arguments)
    try:
        marks = one_submission(read_marks(options.marks.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        marks = Marks("", "", error=STOPPED)
    if options.form == "gradescope":
        print(json.dumps(results_json(marks)))
        return 0
    found = [mark_of(marks, number) for number in options.exercise]
    for mark in found:
        encoded = base64.b64encode(json.dumps(classroom_json(mark)).encode()).decode()
        name = f"e{mark.exercise.replace('.', '_')}"
        print(sentence(mark) if options.form == "exercise" else f"{name}={encoded}")
    return int(options.form == "exercise" and any(mark.status != "pass" for mark in found))


if __name__ == "__main__":
    raise SystemExit(main())
