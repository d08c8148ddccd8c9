"""What an instructor and the students read: tables for other systems, a page per student, a page for the class.

A page is one file that asks nothing of a network, and escapes whatever a student wrote. It tells neither the seeds nor
the cases; `marks.json`, which holds the seeds, is for the instructor.
"""

import itertools
import re
import statistics
from collections import Counter
from pathlib import Path

from ptlearn.course.build import write
from ptlearn.course.grading import formats
from ptlearn.course.grading.formats import number
from ptlearn.course.grading.record import STATUSES, Marks

PAGES = Path(__file__).with_name("pages")
WIDEST = 20  # rem, of a bar
COMMONEST = 12  # diagnoses of a lesson
LONGEST = 60  # characters of a file's name


def write_reports(marks: list[Marks], out: Path, *, roster: list[dict] | None = None) -> list[Path]:
    """Write everything that is made from the marks into a folder, and return the files.

    marks.csv, marks.json, canvas.csv, moodle.csv (one per lesson, moodle-NN.csv, where there are several), junit.xml,
    index.html for the class, students/NAME.html, and leaderboard.html where an exercise is a contest.

    Args:   out: a folder, made where it is missing; roster: rows of the instructor's table of students, by column.
    Raises: OSError where it cannot be written.
    """
    graded = [formats.cleaned(one) for one in marks]
    pages = page_names(graded)
    texts = {
        "marks.csv": formats.marks_csv(graded),
        "marks.json": formats.marks_json(graded),
        "canvas.csv": formats.canvas_csv(graded, roster),
        **moodle_files(graded, roster),
        "junit.xml": formats.junit_xml(graded),
        "index.html": class_page(graded, pages),
        **({"leaderboard.html": rendered("leaderboard.html", boards=boards)} if (boards := contests(graded)) else {}),
        **{page: student_page(one) for one, page in zip(graded, pages)},
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write(out / name, text)
    return [out / name for name in texts]


def moodle_files(graded: list[Marks], roster: list[dict] | None) -> dict[str, str]:
    """{name: text}, a file per lesson, since Moodle imports one grade at a time."""
    lessons = formats.by_lesson(graded)
    if len(lessons) < 2:
        return {"moodle.csv": formats.moodle_csv([*itertools.chain(*lessons.values())], roster)}
    return {f"moodle-{lesson[:2]}.csv": formats.moodle_csv(those, roster) for lesson, those in lessons.items()}


def page_names(graded: list[Marks]) -> list[str]:
    """A file per submission, named by the student, whatever the name holds; no two alike, in capitals neither.

    >>> page_names([Marks("../Ada", "a"), Marks("ada", "b", "08_reinforce"), Marks("?", "c")])
    ['students/Ada.html', 'students/ada-08_reinforce.html', 'students/student.html']
    """
    names, used = [], Counter()
    for marks in graded:
        name = re.sub(r"\W+", "-", f"{marks.student} {marks.lesson}").strip("-")[:LONGEST] or "student"
        used[name.casefold()] += 1
        repeated = f"-r{used[name.casefold()]}" if used[name.casefold()] > 1 else ""
        names.append(f"students/{name}{repeated}.html")
    return names


def rendered(page: str, **content) -> str:
    """A page of PAGES, everything in it escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=FileSystemLoader(PAGES), **options).get_template(page).render(content)


def student_page(marks: Marks) -> str:
    """What one student gets back: the marks, what was found in each exercise, and the code that it was found in."""
    return rendered("student.html", marks=marks, name=Path(marks.submission).name, number=number)


def class_page(graded: list[Marks], pages: list[str]) -> str:
    """The class on one page: a histogram per exercise, the commonest diagnoses, a row per submission."""
    exercises = formats.exercises_of(graded)
    rows = []
    for marks, page in zip(graded, pages):
        points = {mark.exercise: number(mark.points) for mark in marks.exercises}
        row = {"student": marks.student, "page": page, "lesson": marks.lesson, "noted": "; ".join(marks.flags)}
        row |= {"points": [points.get(name, "") for name in exercises], "sum": number(marks.points)}
        rows.append(row | ({"sum": "", "noted": marks.error} if marks.error else {}))
    lessons = map(lesson_summary, formats.by_lesson(graded).values())
    return rendered("index.html", rows=rows, exercises=exercises, lessons=lessons)


def contests(graded: list[Marks]) -> dict[str, list[tuple]]:
    """{exercise: (place, student, score, points), the best first} of the exercises whose scores are compared."""
    boards = {}
    for name in formats.exercises_of(graded):
        entries = [(mark.score, marks.student, number(mark.points)) for marks in graded for mark in marks.exercises
                   if mark.exercise == name and mark.score is not None]  # fmt: skip
        ranked = sorted(entries, key=lambda entry: (-entry[0], entry[1]))
        places = [1 + sum(other[0] > score for other in entries) for score, _, _ in ranked]
        if ranked:
            boards[name] = [(place, who, f"{score:.3f}", points) for place, (score, who, points) in zip(places, ranked)]
    return boards


def lesson_summary(graded: list[Marks]) -> dict:
    """What the class page says of one lesson."""
    points = [marks.points for marks in graded]
    return {
        "name": graded[0].lesson,
        "graded": len(graded),
        "mean": round(statistics.mean(points), 2),
        "median": number(statistics.median(points)),
        "maximum": number(graded[0].maximum),
        "exercises": [{"name": name, "counts": histogram(graded, name)} for name in formats.exercises_of(graded)],
        "diagnoses": commonest(graded),
    }


def histogram(graded: list[Marks], exercise: str) -> list[tuple[str, int, float]]:
    """(status, how many submissions, width of its bar) of one exercise, without statuses that nobody has."""
    counts = Counter(mark.status for marks in graded for mark in marks.exercises if mark.exercise == exercise)
    return [(status, counts[status], WIDEST * counts[status] / len(graded)) for status in STATUSES if counts[status]]


def commonest(graded: list[Marks]) -> list[tuple[str, int, str]]:
    """(exercise, how many submissions, an example) of the diagnoses met most often; numbers in them do not count."""
    examples, counts = {}, Counter()
    for marks in graded:
        for mark in marks.exercises:
            if mark.diagnosis:
                kind = mark.exercise, re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "#", mark.diagnosis)
                examples.setdefault(kind, mark.diagnosis)
                counts[kind] += 1
    return [(kind[0], count, examples[kind]) for kind, count in counts.most_common(COMMONEST)]
