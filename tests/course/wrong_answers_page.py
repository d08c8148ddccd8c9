"""docs/wrong_answers.md: the mistakes that the tests know, and what a student who makes one is told.

python tests/course/wrong_answers_page.py     writes the page anew
"""

import importlib.util
import re
from pathlib import Path

from ptlearn.course.exercise import Exercise, exercises, judge
from ptlearn.course.lesson import ROOT, lesson_files, summary

PAGE = ROOT / "docs" / "wrong_answers.md"
OPENING = """# Common wrong answers, and what the check says

Made by `make wrong-answers` from the wrong answers under `tests/`, judged as a student's notebook judges them. Each
line is one mistake; its numbers belong to the case that the notebook shows.
"""


def wrong_answers(path: Path) -> dict[str, list]:
    """{exercise: [(answer, words)]} of a lesson, from `tests/wrong_answers/NN_topic.py`."""
    place = ROOT / "tests" / "wrong_answers" / path.name
    if not place.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"wrong_answers_{path.stem}", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WRONG


def section(number: str, known: Exercise, answers: list) -> str:
    """The lines of one exercise: what the check says to each wrong answer, once."""
    said = dict.fromkeys(judge(known, answer).diagnosis for answer, _ in answers)
    points = f"{known.points} point{'s' if known.points != 1 else ''}"
    return "\n".join([f"### {number} · {points}", "", *(f"- {escaped(words)}" for words in said)])


def escaped(words: str) -> str:
    """A text that Markdown leaves as it is."""
    return re.sub(r"([*<`])", r"\\\1", words)


def page() -> str:
    """The whole page."""
    parts = [OPENING.rstrip()]
    for path in lesson_files():
        wrong = wrong_answers(path)
        known = exercises(int(path.stem[:2])) if wrong else {}
        parts += [f"## {path.stem[:2]} {summary(path)['title']}"] if wrong else []
        parts += [section(number, exercise, wrong[number]) for number, exercise in known.items() if number in wrong]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
