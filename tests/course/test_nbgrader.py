"""Source notebooks for nbgrader: its metadata as its schema has it, and a check that costs points when it fails."""

import json
import os
import re
import shutil
import subprocess

import nbformat
import pytest
from nbclient import NotebookClient
from toy_lesson import write_lesson

from ptlearn.course import build, cli
from ptlearn.course.grading.nbgrader import write_sources
from ptlearn.course.lesson import ROOT, summary

FIELDS = {"schema_version": int, "grade": bool, "solution": bool, "locked": bool, "task": bool, "grade_id": str}


@pytest.fixture
def source(tmp_path):
    """The toy lesson as nbgrader gets it."""
    write_lesson(tmp_path)
    (path,) = write_sources(None, tmp_path / "source", root=tmp_path)
    assert path == tmp_path / "source" / "99_toy" / "99_toy.ipynb"
    return path


def marked(path, role):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.metadata.get("nbgrader", {}).get(role)]


def released(path):
    """What nbgrader's ClearSolutions makes of it: each region one stub, at the region's indent."""
    made = nbformat.read(path, as_version=4)
    for cell in made.cells:
        stub = r"\1# YOUR CODE HERE\n\1raise NotImplementedError()"
        cell.source = re.sub(r"(?ms)^( *)# BEGIN SOLUTION$.*?# END SOLUTION$", stub, cell.source)
    return made


def run(made, folder, **place):
    """Run a notebook to its end as nbgrader does, errors and all; the outputs of its check cells."""
    NotebookClient(made, allow_errors=True).execute(env=build.environment(str(folder)) | place)
    checks = [cell for cell in made.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    return [[(out.output_type, out.get("text") or out.get("evalue")) for out in cell.outputs] for cell in checks]


def test_the_metadata_is_what_nbgraders_schema_asks_for(source):
    solutions, tests = marked(source, "solution"), marked(source, "grade")
    for cell in solutions + tests:
        about = dict(cell.metadata["nbgrader"])
        assert about.pop("points", None) in ({"chk-99-1": 2, "chk-99-2": 1}.get(cell.id), None)
        assert {name: type(value) for name, value in about.items()} == FIELDS
        assert about["schema_version"] == 3 and not about["task"] and re.fullmatch(r"[a-zA-Z0-9_-]+", about["grade_id"])
    assert [(cell.metadata.nbgrader.grade_id, cell.metadata.nbgrader.locked) for cell in solutions] == [
        *(("ans-99-1", False), ("ans-99-2", False))
    ]
    assert [(cell.metadata.nbgrader.grade_id, cell.metadata.nbgrader.points) for cell in tests] == [
        *(("chk-99-1", 2), ("chk-99-2", 1))
    ]
    assert all(cell.metadata.nbgrader.locked and not cell.metadata.nbgrader.solution for cell in tests)
    assert marked(source, "locked") == tests


def test_regions_stand_in_solution_cells_alone_and_leave_no_solution(source):
    cells = nbformat.read(source, as_version=4).cells
    assert {cell.id for cell in cells if "BEGIN SOLUTION" in cell.source} == {"ans-99-1", "ans-99-2"}
    blank = json.dumps(released(source))
    assert "secret" not in blank and "SOLUTION" not in blank and blank.count("raise NotImplementedError()") == 2


def test_right_answers_pass_and_blank_ones_raise_and_the_lesson_goes_on(source, tmp_path):
    full = nbformat.read(source, as_version=4)
    for mode in ("autograde", "validate"):
        assert run(full, tmp_path, NBGRADER_EXECUTION=mode) == [
            *([("stream", "PASS 99.1\n")], [("stream", "PASS 99.2\n")])
        ]
    blank = released(source)
    said = run(blank, tmp_path, NBGRADER_EXECUTION="autograde")
    assert [[kind for kind, _ in outputs] for outputs in said] == [["stream", "error"]] * 2
    assert [outputs[1][1] for outputs in said] == ["TODO 99.1", "TODO 99.2"]
    assert blank.cells[-2].outputs[0].text == "[2, 4] 3\n"  # the package's answers


def test_a_wrong_answer_raises_its_diagnosis_under_nbgrader_only(source, tmp_path):
    made = nbformat.read(source, as_version=4)
    for cell in made.cells:
        if cell.id == "ans-99-1":
            cell.source = "def double(values):\n    return values\nmine = double"
    made.cells.append(nbformat.v4.new_code_cell("print(mine is double, mine([1]))"))
    said = run(made, tmp_path, NBGRADER_EXECUTION="autograde")
    assert said[0][1] == ("error", "FAIL 99.1: the values come back unchanged") and said[1] == [
        ("stream", "PASS 99.2\n")
    ]
    assert made.cells[-1].outputs[0].text == "False [1]\n"  # only the name in the check's cell is bound anew
    said = run(made, tmp_path, NBGRADER_EXECUTION="")
    assert said[0] == [("stream", "FAIL 99.1: the values come back unchanged (going on with the package's)\n")]


def test_the_command(tmp_path, capsys):
    assert cli.main(["build", "--flavor", "nbgrader", "-o", str(tmp_path / "source"), "7"]) == 0
    path = tmp_path / "source" / "07_grid_world" / "07_grid_world.ipynb"
    assert capsys.readouterr().out == f"{path}\n"
    points = sum(cell.metadata.nbgrader.points for cell in marked(path, "grade"))
    assert points == summary(ROOT / "lessons" / "07_grid_world.py")["points"]
    for arguments in (["--flavor", "nbgrader"], ["-o", "x"], ["--flavor", "nbgrader", "-o", "x", "--check"]):
        assert cli.main(["build", *arguments]) == 2
        assert capsys.readouterr().err == "ptlearn: --flavor nbgrader and -o DIR go together, and without --check\n"


@pytest.mark.skipif(
    not shutil.which("nbgrader"), reason="nbgrader is not there; docs/instructors.md says how to try it"
)
def test_nbgrader_itself_gives_full_marks_and_none(source, tmp_path):
    def nbgrader(*arguments):
        subprocess.run(["nbgrader", *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)

    nbgrader("generate_assignment", "99_toy")
    blank = (tmp_path / "release" / "99_toy" / "99_toy.ipynb").read_text(encoding="utf-8")
    solutions = {cell.id: cell.source for cell in marked(source, "solution")}
    made = nbformat.reads(blank, as_version=4)
    for cell in made.cells:
        cell.source = solutions.get(cell.id, cell.source)
    for student, text in (("right", nbformat.writes(made)), ("blank", blank)):
        (tmp_path / "submitted" / student / "99_toy").mkdir(parents=True)
        (tmp_path / "submitted" / student / "99_toy" / "99_toy.ipynb").write_text(text, encoding="utf-8")
    nbgrader("autograde", "99_toy")
    nbgrader("generate_feedback", "99_toy")
    nbgrader("export")
    rows = [line.split(",") for line in (tmp_path / "grades.csv").read_text().splitlines()]
    scores = {row[rows[0].index("student_id")]: float(row[rows[0].index("score")]) for row in rows[1:]}
    assert scores == {"right": 3, "blank": 0}
    assert (tmp_path / "feedback" / "right" / "99_toy" / "99_toy.html").is_file()
