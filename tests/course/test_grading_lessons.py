"""Solutions earn full marks and blank notebooks none: one lesson here, all of them with `make classroom`."""

import os

import pytest

from ptlearn.course.exercise import exercises
from ptlearn.course.grading.grade import Options, grade
from ptlearn.course.grading.submissions import Submission
from ptlearn.course.lesson import ROOT, lesson_files

LESSONS = [path.stem for path in lesson_files()]
GRADED = LESSONS if os.environ.get("PTLEARN_CLASSROOM") else [stem for stem in LESSONS if stem.startswith("08")]


@pytest.mark.parametrize("stem", GRADED)
@pytest.mark.parametrize(("folder", "status"), [("solutions", "pass"), ("notebooks", "todo")])
def test_a_solution_has_full_marks_and_a_blank_notebook_is_to_do(folder, status, stem):
    handed = Submission(f"{stem}.ipynb", (ROOT / folder / f"{stem}.ipynb").read_bytes(), "Ada")
    marks = grade(handed, 5, Options(nbval=False))
    assert marks.error == "" and marks.flags == ()
    known = exercises(int(stem[:2]))
    assert {mark.exercise: mark.status for mark in marks.exercises} == dict.fromkeys(known, status)
    assert marks.points == (sum(each.points for each in known.values()) if status == "pass" else 0)
