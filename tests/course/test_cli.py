"""The command `ptlearn`: an error is one line and exit code 2, an interruption one line and 130."""

import os
import subprocess
import sys
import types

import pytest

import ptlearn
from ptlearn.course import build, cli, lesson


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    usage = capsys.readouterr().out
    assert all(name in usage for name in ("tour", "lessons", "copy", "build", "grade", "check", "progress"))
    assert cli.main([]) == 0 and capsys.readouterr().out == usage


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"ptlearn {ptlearn.__version__}\n"


def test_help_loads_no_model_library():
    code = (
        "import sys; from ptlearn.course.cli import parser; parser(); print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("arguments", [["paint"], ["lessons", "--colour"], ["build", "--chekc"]])
def test_a_misspelt_command_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "ptlearn: error:" in capsys.readouterr().err


def test_an_error_is_one_line_without_a_traceback(capsys):
    assert cli.main(["build", "77"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ptlearn: no lesson '77'; there are") and captured.err.count("\n") == 1
    run = subprocess.run([sys.executable, "-m", "ptlearn", "build", "77"], capture_output=True, text=True)
    assert run.returncode == 2 and "Traceback" not in run.stderr


def test_an_interruption_is_one_line(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "build", interrupted)
    assert cli.main(["build"]) == 130
    assert capsys.readouterr().err == "ptlearn: interrupted\n"


def test_a_console_that_is_not_utf_8_gets_the_whole_table():
    command = [sys.executable, "-m", "ptlearn", "lessons"]
    run = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert run.returncode == 0 and len(run.stdout.splitlines()) == 1 + len(lesson.lesson_files())


@pytest.mark.skipif(os.name != "posix", reason="a pipe that is closed early")
def test_a_reader_that_stops_is_no_error():
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([sys.executable, "-m", "ptlearn", "lessons"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (run.returncode, run.stderr) == (0, b"")


def test_without_lessons_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(lesson.lesson_files, "__defaults__", (tmp_path, None))
    assert cli.main(["lessons"]) == 2
    assert capsys.readouterr().err.startswith("ptlearn: no lessons here: this works in a copy of the repository")


def test_copy_says_what_it_did(monkeypatch, capsys):
    for lines in (["work/99_toy.ipynb: new"], []):
        monkeypatch.setattr("ptlearn.course.work.copy_notebooks", lambda names, lines=lines: lines)
        assert cli.main(["copy"]) == 0
        assert capsys.readouterr().out == (lines or ["work/ is up to date"])[0] + "\n"


def test_a_tour_that_could_not_be_written_says_so_first(tmp_path, capsys, monkeypatch):
    (tmp_path / "tour").write_text("a file")
    monkeypatch.setattr("ptlearn.lm.models.load_lm", lambda name: pytest.fail("it began to measure"))
    assert cli.main(["tour", "--out", str(tmp_path / "tour")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def test_build_check_lists_what_is_stale(monkeypatch, capsys):
    monkeypatch.setattr(
        build, "build", lambda names, **options: ["notebooks/99_toy.ipynb is not what its lesson gives"]
    )
    assert cli.main(["build", "--check"]) == 1
    assert capsys.readouterr().out == "notebooks/99_toy.ipynb is not what its lesson gives\n"
    monkeypatch.setattr(build, "build", lambda names, **options: [])
    assert cli.main(["build", "--check"]) == 0


def test_the_tour_gets_its_arguments_as_they_are(monkeypatch):
    heard = []
    module = types.SimpleNamespace(main=heard.append)
    monkeypatch.setitem(sys.modules, "ptlearn.course.tour", module)
    assert cli.main(["tour", "--model", "pocket-s", "--help"]) == 0
    assert heard == [["--model", "pocket-s", "--help"]]


def test_lessons_prints_a_row_per_lesson(capsys):
    assert cli.main(["lessons"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["title", "minutes", "exercises", "points", "claims"]
    assert [row[:2] for row in rows[1:]] == [path.stem[:2] for path in lesson.lesson_files()]
