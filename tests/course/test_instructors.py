"""The instructors' guide says what is: its table, its workflow, its commands, its list of wrong answers."""

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from wrong_answers_page import PAGE, section

from ptlearn.course.cli import parser
from ptlearn.course.exercise import Exercise, exercises
from ptlearn.course.grading import formats
from ptlearn.course.grading.record import ExerciseMark, Marks
from ptlearn.course.lesson import ROOT, lesson_files, summary

GUIDE = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)[0])
STEPS = {step.get("name"): step for step in WORKFLOW["jobs"]["grade"]["steps"]}


def test_the_term_adds_up():
    known = {lesson["number"]: lesson for lesson in map(summary, lesson_files())}
    rows = re.findall(r"^\| \d \| ([\d ]+) \| (\d+) \| (\d+) \| (\d+) \|$", GUIDE, re.MULTILINE)
    weeks = [numbers.split() for numbers, *_ in rows]
    assert len(weeks) == 8 and sum(weeks, []) == [number for number in known if number <= "13"]
    for numbers, (_, *told) in zip(weeks, rows):
        sums = [sum(known[number][name] for number in numbers) for name in ("minutes", "exercises", "points")]
        assert sums == list(map(int, told)), numbers


def test_the_workflow_names_every_exercise_of_its_lesson_as_a_runner():
    numbers = list(exercises(3))
    runners = [f"e{number.replace('.', '_')}" for number in numbers]
    assert STEPS["Report"]["with"]["runners"].split(",") == runners
    expected = {f"{name.upper()}_RESULTS": f"${{{{ steps.grade.outputs.{name} }}}}" for name in runners}
    assert STEPS["Report"]["env"] == expected
    assert f'marks.json" {" ".join(numbers)} >>' in STEPS["Grade"]["run"]


@pytest.mark.parametrize("crashes", [False, True])
def test_the_workflows_grade_step_gives_a_result_per_exercise(tmp_path, crashes):
    marks = [ExerciseMark(number, known.points, known.points, "pass") for number, known in exercises(3).items()]
    graded = Marks("Ada", "03_supervised_finetuning.ipynb", "03_supervised_finetuning", exercises=tuple(marks))
    (tmp_path / "made.json").write_text(formats.marks_json([graded]))
    does = (
        "exit 1"
        if crashes
        else f"mkdir -p {tmp_path}/marks; cp {tmp_path}/made.json {tmp_path}/marks/marks.json; exit 3"
    )
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f'#!/bin/sh\nif [ "$3" = grade ]; then {does}; fi\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    place = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path)}
    place |= {"GITHUB_OUTPUT": str(tmp_path / "output")}
    subprocess.run(["bash", "-e", "-c", STEPS["Grade"]["run"]], env=os.environ | place, check=True)
    outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    results = {name: json.loads(base64.b64decode(value)) for name, value in outputs.items()}
    assert list(results) == STEPS["Report"]["with"]["runners"].split(",")
    assert {found["status"] for found in results.values()} == {"error" if crashes else "pass"}
    assert [found["max_score"] for found in results.values()] == [known.points for known in exercises(3).values()]
    earned = sum(found["tests"][0]["score"] for found in results.values())
    assert earned == (0 if crashes else sum(mark.points for mark in marks))


def test_every_command_of_the_guide_is_one():
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as usage:
        parser().parse_args(["--help"])
    known = set(re.findall(r"^    ([a-z]+)\b", usage.getvalue(), re.MULTILINE))
    named = set(re.findall(r"(?:python -m|`)\s?ptlearn ([a-z]+)", GUIDE))
    assert {"build", "gradescope", "lessons", "grade"} <= named and named <= known
    files = set(
        re.findall(r"`((?:ptlearn|tests|solutions|docs)/[\w./]+\.\w+)`", GUIDE.replace("NN_topic", "08_reinforce"))
    )
    assert len(files) >= 3 and [name for name in files if not (ROOT / name).exists()] == []


def test_the_page_of_wrong_answers_has_every_exercise():
    numbers = [number for path in lesson_files() for number in exercises_of(path)]
    assert re.findall(r"^### (\d+\.\d+) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == numbers


def exercises_of(path):
    return list(exercises(int(path.stem[:2]))) if summary(path)["exercises"] else []


def test_a_section_says_each_diagnosis_once_and_leaves_markdown_alone():
    known = Exercise(
        cases=lambda rng: [None],
        drive=lambda answer, case: answer,
        expect=None,
        points=1,
        reference=4,
        remark=lambda case, data: None if data == 4 else "2 * 2 is <4>",
    )
    assert section("8.1", known, [(3, ""), (5, "")]) == "### 8.1 · 1 point\n\n- 2 \\* 2 is \\<4>"
