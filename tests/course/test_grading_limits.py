"""What a submission may not take from the others: time, memory of the parent, the course's files, the instructor's."""

import json

import nbformat
import pytest
from test_grading_attacks import RIGHT, course, handed_in, marked  # noqa: F401

from ptlearn.course import cli
from ptlearn.course.grading import grade as grading
from ptlearn.course.grading import points, sandbox, session
from ptlearn.course.grading.formats import read_marks
from ptlearn.course.grading.grade import Options, grade_all, kept_file
from ptlearn.course.grading.submissions import Submission, collect

DEEP = "value = []\n    for _ in range({}):\n        value = [value]\n    return value"
UNREASONABLE = {  # the body of an answer, and words of the line that it earns
    "lists deeper than any answer's": (DEEP.format(400), "nested deeper|not what an answer can give"),
    "lists deeper than Python reads": (DEEP.format(100_000), ""),
    "a hundred thousand values": ("return [0] * 100_000", "more than 200,000 values"),
    "a giant integer": ("return [1 << 4000] * 3", "4001 bits|Error"),
    "a giant text": ("return ['x' * 1_000_000]", "1,000,000 characters"),
}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([[[[[[0] * 200_001]]]]], "gives more than 200,000 values"),
        ([1, -(1 << 70)], "gives an integer of 71 bits, at most 64"),
        ({"data": "x" * 100_001}, "gives a text of 100,001 characters, at most 100,000"),
        ([[0.5] * 199_000, "x" * 100_000, 1 << 64, None, True], ""),
    ],
)
def test_the_bounds_on_data(data, words):
    assert points.excess(data) == words


def test_the_bound_on_depth():
    data = 0
    for _ in range(points.DEEPEST):
        data = [data]
    assert points.excess(data) == ""
    assert points.excess([data]) == "gives lists nested deeper than 20"


@pytest.mark.parametrize("name", UNREASONABLE)
def test_data_without_measure_costs_its_exercise_alone(name, course):  # noqa: F811
    found = marked(course, handed_in(course, f"def double(values):\n    {UNREASONABLE[name][0]}"))
    assert found["99.1"].points == 0 and found["99.2"].status == "pass"
    line = found["99.1"].diagnosis
    assert "\n" not in line and (not UNREASONABLE[name][1] or any(w in line for w in UNREASONABLE[name][1].split("|")))


def test_data_that_the_verdict_cannot_take_costs_its_exercise_alone(course, monkeypatch):  # noqa: F811
    def refuse(known, cases, data, secret):
        raise OverflowError("int too large to convert to float")

    monkeypatch.setattr(points, "conclude", refuse)
    assert {mark.status for mark in marked(course, handed_in(course, RIGHT)).values()} == {"wrong"}


def test_an_answer_that_hangs_is_ended_without_a_new_process(course, monkeypatch):  # noqa: F811
    started = []
    begin = points.Worker.start
    monkeypatch.setattr(points, "EXERCISE_SECONDS", 1.0)
    monkeypatch.setattr(points, "AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(points.Worker, "start", lambda worker: (started.append(1), begin(worker)))
    found = marked(course, handed_in(course, "def double(values):\n    while True:\n        pass"))
    assert [found["99.1"].status, found["99.2"].status, len(started)] == ["timeout", "pass", 1]


def test_cells_that_took_too_long_are_run_once(course, monkeypatch):  # noqa: F811
    asked = []
    put = points.Worker.ask

    def ask(worker, request):
        asked.append([cell["source"] for cell in request["cells"]])
        return put(worker, request)

    monkeypatch.setattr(points.Worker, "ask", ask)
    hangs = "import time\ntime.sleep(60)"
    found = marked(course, handed_in(course, "def double(values):\n    return values\n" + hangs, "prompts = []"))
    assert {mark.points for mark in found.values()} == {0}
    assert [any(hangs in source for source in sources) for sources in asked] == [True, False]


def test_a_notebook_has_a_time_of_its_own(course, monkeypatch):  # noqa: F811
    monkeypatch.setattr(points, "NOTEBOOK_SECONDS", 1.0)
    found = marked(course, handed_in(course, "def double(values):\n    while True:\n        pass"))
    assert [found[number].status for number in ("99.1", "99.2")] == ["timeout", "timeout"]
    assert found["99.2"].diagnosis == "not run: the notebook has used up its 1 s"


@pytest.mark.parametrize(
    ("code", "limit", "stopped"),
    [("os._exit(1)", 120, "the kernel died"), ("time.sleep(60)", 8, "stopped after 8 s")],
)
def test_a_kernel_that_dies_or_hangs_costs_the_readable_run_alone(code, limit, stopped, course):  # noqa: F811
    def change(cells, place):
        cells[place["ans-99-2"]].metadata["tags"] = ["raises-exception", "nbval-skip"]
        own = nbformat.v4.new_code_cell(f"import os, time\nif 'JPY_PARENT_PID' in os.environ:\n    {code}")
        cells.insert(place["ans-99-1"], own)

    data = handed_in(course, RIGHT, "prompts = []", change)
    marks = grading.grade(Submission("ada.ipynb", data, "Ada"), 7, Options(release=course, limit=limit))
    assert [mark.status for mark in marks.exercises] == ["pass", "wrong"] and marks.error == ""
    assert marks.nbval["stopped"] == stopped and marks.nbval["failed"] > 0


def test_all_that_decides_marks_is_in_the_name_they_are_kept_under(course, tmp_path):  # noqa: F811
    handed = Submission("a.ipynb", handed_in(course, RIGHT), "A")
    options = [Options(release=course), Options(release=course, limit=9), Options(release=course, gpu=True)]
    assert len({kept_file(handed, each, tmp_path) for each in options}) == 3


def test_a_course_that_was_changed_gives_no_points(course, tmp_path, monkeypatch):  # noqa: F811
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1")
    monkeypatch.setattr(grading, "way", lambda: (None, False))
    monkeypatch.setattr(grading, "PACKAGE", package)
    grading.package_at_start.cache_clear()
    monkeypatch.setattr(grading, "marks_of", lambda *given: ())
    handed = [Submission("a.ipynb", handed_in(course, RIGHT), "A")]
    options = Options(release=course, nbval=False)
    assert [marks.error for marks in grade_all(handed, options, tmp_path / "one")] == [""]
    monkeypatch.setattr(grading, "marks_of", lambda *given: (package / "a.py").write_text("2") and ())
    (error,) = [marks.error for marks in grade_all(handed, options, tmp_path / "two")]
    grading.package_at_start.cache_clear()
    assert error.startswith("the course's files in") and "\n" not in error


def test_a_path_without_a_notebook_is_a_line_and_the_others_are_there(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "ada.ipynb").write_text("{}")
    found, refused = collect([str(tmp_path / name) for name in ("empty", "ada.ipynb", "nowhere")])
    assert [each.student for each in found] == ["ada"]
    assert [each.error.split(" '")[0] for each in refused] == ["no notebook in", "no file or folder"]


def test_a_class_from_the_command_line(course, tmp_path, monkeypatch, capfd):  # noqa: F811
    class_ = tmp_path / "class"
    class_.mkdir()
    (tmp_path / "empty").mkdir()
    right, wrong = handed_in(course, RIGHT), handed_in(course, "def double(values):\n    return values")
    blank = (course / "notebooks" / "99_toy.ipynb").read_bytes()
    handed = {"ada": right, "bob": wrong, "cy": blank, "di": b"[]", "ed": b"{", "fay1": right, "fay2": right}
    handed["gus"] = handed_in(course, "import os\nos._exit(1)")
    for name, data in handed.items():
        (class_ / f"{name}.ipynb").write_bytes(data)
    (tmp_path / "roster.csv").write_text("file,student\nfay1.ipynb,Fay\nfay2.ipynb,Fay\nada.ipynb,Ada L\n")
    (tmp_path / "rubric.json").write_text('{"99.1": 4}')
    marks, command = tmp_path / "marks", ["grade", str(class_), str(tmp_path / "empty"), "--release", str(course)]
    graded = [*command, "--no-nbval", "--jobs", "2", "--roster", str(tmp_path / "roster.csv"), "--out", str(marks)]
    graded += ["--rubric", str(tmp_path / "rubric.json")]
    assert cli.main(graded) == 5
    said = capfd.readouterr()
    assert "Traceback" not in said.err and said.err.count("\n") == 5 + bool(sandbox.weakness())
    records = {one.submission: one for one in read_marks((marks / "marks.json").read_text(encoding="utf-8"))}
    got = {name: records[f"{name}.ipynb"].points for name in ("ada", "bob", "cy", "gus")}
    assert got == {"ada": 5, "bob": 1, "cy": 0, "gus": 1} and records["ada.ipynb"].student == "Ada L"

    begun = []
    monkeypatch.setattr(grading, "run", lambda task: begun.append(task[0].name) or grading.grade(*task))
    (class_ / "cy.ipynb").write_bytes(right)
    assert cli.main([*graded, "--jobs", "1"]) == 5 and begun == ["cy.ipynb", "di.ipynb", "ed.ipynb"]
    assert cli.main([*command, "--merge-only", "--out", str(tmp_path / "merged")]) == 3
    assert len(list((tmp_path / "merged").glob("*.ipynb"))) == 6


def test_what_keeps_grade_from_beginning_is_125(course, tmp_path, capsys):  # noqa: F811
    (tmp_path / "rubric.json").write_text(json.dumps({"99.1": 1, "99.7": 1}))
    rubric = ["--release", str(course), "--rubric", str(tmp_path / "rubric.json")]
    for given in ([str(tmp_path)], [str(tmp_path), "--jobs", "0"], [str(tmp_path), *rubric]):
        assert cli.main(["grade", *given]) == 125
        said = capsys.readouterr().err
        assert said.startswith("ptlearn: ") and said.count("\n") == 1
    assert "rubric: 99.7" in said
    for given in ([], [str(tmp_path), "--colour"], [str(tmp_path), "--jobs", "two"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["grade", *given])
        assert end.value.code == 125
    with pytest.raises(SystemExit) as end:
        cli.main(["grade", "--help"])
    assert end.value.code == 0 and "125" in capsys.readouterr().out.split("The exit code", 1)[1]


def test_check_and_progress(course, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(session, "Options", lambda **given: Options(release=course, **given))
    (tmp_path / "99_toy.ipynb").write_bytes(handed_in(course, "def double(values):\n    return values"))
    assert cli.main(["check", str(tmp_path / "99_toy.ipynb")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("WRONG   99.1: ") and lines[1:] == ["PASS    99.2", "99_toy: 1 of 3 points"]
    assert cli.main(["progress", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "99_toy.ipynb: 0 of 2 pass (99.1 not run, 99.2 not run)\n"
    assert cli.main(["progress", str(tmp_path), "--run"]) == 0
    assert capsys.readouterr().out == "99_toy.ipynb: 1 of 2 pass (99.1 wrong)\n"
    capsys.readouterr()
    monkeypatch.setattr(session, "PLACE", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["progress"]) == 2 and "`ptlearn copy` makes it" in capsys.readouterr().err
    (tmp_path / "work").mkdir()
    (tmp_path / "work/99_toy.ipynb").write_bytes((tmp_path / "99_toy.ipynb").read_bytes())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["progress"]) == 0 and capsys.readouterr().out.startswith("99_toy.ipynb: 0 of 2 pass")
    assert cli.main(["check", "99"]) == 1 and capsys.readouterr().out.splitlines() == lines
    assert cli.main(["check", "work/99_tox.ipynb"]) == 2
    assert capsys.readouterr().err == "ptlearn: notebook: no file 'work/99_tox.ipynb'; did you mean 99_toy?\n"
    (tmp_path / "bad.ipynb").write_text("{")
    assert cli.main(["progress", str(tmp_path)]) == 1 and cli.main(["check", str(tmp_path / "bad.ipynb")]) == 2
