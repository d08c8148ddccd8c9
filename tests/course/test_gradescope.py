"""Gradescope's autograder: the zip holds the course, and its entry script leaves results.json whatever happens."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from ptlearn.course import cli
from ptlearn.course.grading import formats
from ptlearn.course.grading.gradescope import SCRIPTS, autograder
from ptlearn.course.grading.record import ExerciseMark, Marks
from ptlearn.course.lesson import ROOT, LessonError

RIGHT = Marks("Ada", "ada.ipynb", "07_grid_world", exercises=(ExerciseMark("7.1", 2, 2, "pass"),))
UNREADABLE = Marks("Ada", "ada.ipynb", error="ada.ipynb: not a notebook")


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def grader(does):
    """A Python whose `ptlearn grade` only `does` this, in a shell where $out is the folder for the marks."""
    grade = f'if [ "$3" = grade ]; then while [ $# -gt 1 ]; do shift; done; out=$1; {does}; fi'
    return f'{grade}\nPYTHONPATH={ROOT} exec {sys.executable} "$@"'


def writes(folder, *graded):
    """Shell words that leave the marks where the grader does."""
    (folder / "made.json").write_text(formats.marks_json(list(graded)))
    return f'cp {folder / "made.json"} "$out/marks.json"; exit 0'


def results(folder):
    """Run the entry script as Gradescope does, and read what it left."""
    run = subprocess.run(
        ["bash", SCRIPTS / "run_autograder"], env=os.environ | {"AUTOGRADER": str(folder)}, capture_output=True
    )
    assert run.returncode == 0
    return json.loads((folder / "results" / "results.json").read_text(encoding="utf-8"))


def test_a_graded_hand_in_is_its_results(tmp_path):
    program(tmp_path / "venv/bin/python", grader(writes(tmp_path, RIGHT)))
    assert results(tmp_path) == formats.results_json(RIGHT)


def test_a_hand_in_that_cannot_be_graded_says_why(tmp_path):
    program(tmp_path / "venv/bin/python", grader(writes(tmp_path, UNREADABLE)))
    found = results(tmp_path)
    assert (found["score"], found["output"]) == (0, "ada.ipynb: not a notebook")


@pytest.mark.parametrize("does", ["exit 1", "kill -9 $$", "echo '[{' > $out/marks.json; exit 0", "exit 0"])
def test_a_grader_that_crashes_leaves_a_score_of_0_and_a_line(tmp_path, does):
    program(tmp_path / "venv/bin/python", grader(does))
    found = results(tmp_path)
    assert found["score"] == 0 and found["output"].startswith("There is no result:")


def test_results_of_the_hand_in_before_are_not_taken_for_these(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.json").write_text('{"score": 100}')
    assert results(tmp_path)["score"] == 0  # there is no Python at all


def test_the_zip_holds_two_scripts_and_the_course_and_is_the_same_twice(tmp_path):
    path = autograder("7", tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        modes = {about.filename: about.external_attr >> 16 & 0o777 for about in archive.infolist()}
        assert archive.read("course/ptlearn/course/exercise.py") == (ROOT / "ptlearn/course/exercise.py").read_bytes()
    assert {name for name in modes if "/" not in name} == {"setup.sh", "run_autograder"}
    assert modes["run_autograder"] == modes["setup.sh"] == 0o755
    lessons = {"lessons/07_grid_world.py", "notebooks/07_grid_world.ipynb", "solutions/07_grid_world.ipynb"}
    assert {name for name in modes if "/07_" in name and "/checks/" not in name} == {
        f"course/{name}" for name in lessons
    }
    assert {"course/pyproject.toml", "course/constraints.txt", "course/ptlearn/pocket/weights/tokenizer.json"} <= set(
        modes
    )
    assert not [name for name in modes if "__pycache__" in name or ".ipynb_checkpoints" in name]
    assert autograder("07_grid_world", tmp_path / "b.zip").read_bytes() == path.read_bytes()


def test_the_command_says_where_the_zip_is(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["gradescope", "07"]) == 0
    assert capsys.readouterr().out == "autograder-07.zip\n" and (tmp_path / "autograder-07.zip").is_file()
    assert cli.main(["gradescope", "77"]) == 2
    assert capsys.readouterr().err.startswith("ptlearn: no lesson '77'")


def test_a_lesson_without_its_notebooks_is_one_line(tmp_path):
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "07_grid_world.py").write_text("")
    with pytest.raises(LessonError, match=r"^notebooks/07_grid_world.ipynb is not there: python -m ptlearn build 07$"):
        autograder("7", tmp_path / "a.zip", root=tmp_path)


@pytest.mark.parametrize(("old", "name"), [(0, "python3"), (1, "python3.11")])
def test_setup_installs_the_course_with_a_python_that_is_new_enough(tmp_path, old, name):
    tools, said = tmp_path / "tools", tmp_path / "said"
    installs = f'#!/bin/sh\\necho pip "$@" >> {said}'
    makes = f'mkdir -p "$3/bin"; printf \'{installs}\' > "$3/bin/pip"; chmod +x "$3/bin/pip"'
    program(tools / "apt-get", f'echo apt-get "$@" >> {said}')
    for python in ("python3", "python3.11"):
        program(tools / python, f'if [ "$1" = -c ]; then exit {old}; fi; echo {python} >> {said}; {makes}')
    place = {"AUTOGRADER": str(tmp_path), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "TORCH_INDEX": ""}
    run = subprocess.run(["bash", SCRIPTS / "setup.sh"], env=os.environ | place, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    course = tmp_path / "source" / "course"
    assert said.read_text().splitlines() == [
        "apt-get update",
        f"apt-get install -y --no-install-recommends {name} {name}-venv",
        name,
        f"pip install -c {course}/constraints.txt -e {course}[dev]",
    ]
