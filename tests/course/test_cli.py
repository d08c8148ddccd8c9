"""The command `ptlearn`: an error is one line and exit code 2, an interruption one line and 130."""

import subprocess
import sys
import types

import pytest

from ptlearn.course import build, cli, lesson


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    usage = capsys.readouterr().out
    assert all(name in usage for name in ("tour", "lessons", "build"))


def test_help_loads_no_model_library():
    code = (
        "import sys; from ptlearn.course.cli import parser; parser(); print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("arguments", [[], ["paint"], ["lessons", "--colour"], ["build", "--chekc"]])
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
