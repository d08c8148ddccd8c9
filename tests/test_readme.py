"""Every command in the README does what the README says: each one is run here, or its own parts are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ptlearn.course.lesson import lesson_files, summary

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def run(*arguments: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_make(target: str, _: Path) -> None:
    recipe = run("make", "--dry-run", "--no-print-directory", target)  # make test runs this test inside make
    last = recipe.replace("\\\n", " ").strip().splitlines()[-1]
    expected = {"run": "-m ptlearn tour", "test": "-m pytest --nbval-lax", "lab": "jupyter lab --ServerApp.root_dir=."}
    assert expected[target] in last


def check_conda(command: str, _: Path) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert command in ("env create -f environment.yml", f"activate {environment['name']}")


def check_python(arguments: str, folder: Path) -> None:
    words = [str(ROOT / word) if word.startswith("lessons/") else word for word in arguments.split()]
    if words[-1].endswith("01_prompting.py"):  # at full size it is run as a notebook
        words += ["--model=pocket-s", "--reviews=20", "--stories=2"]
    out = run(sys.executable, *words, cwd=folder)
    assert out


def check_tool(command: str, _: Path) -> None:
    """In an environment that is active; what `make lab` runs, which is not to touch the `work/` that is there."""
    assert f"-m {command}" in run("make", "--dry-run", "lab") or f"bin/{command}" in run("make", "--dry-run", "lab")
    program, *words = command.split()
    assert run(str(Path(sys.executable).with_name(program)), *words, "--help")


CHECKS = {"make ": check_make, "conda ": check_conda, ".venv/bin/python ": check_python}
CHECKS |= {name: lambda rest, folder, name=name: check_tool(name + rest, folder) for name in ("ptlearn ", "jupyter ")}


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, tmp_path):
    [check] = [(prefix, function) for prefix, function in CHECKS.items() if command.startswith(prefix)]
    check[1](command.removeprefix(check[0]), tmp_path)


def test_jupyter_is_there():
    assert run(sys.executable, "-m", "jupyter", "lab", "--version")


def test_the_python_example_runs(tmp_path, capsys):
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "cat" in out.splitlines()[0]


def test_the_table_lists_the_lessons():
    rows = re.findall(r"^\| (\d\d) (.+?) \| .+? \| (.+?) \| (\d+) \|$", README, re.MULTILINE)
    known = [summary(path) for path in lesson_files()]
    assert [row[0] for row in rows] == [str(lesson["number"]).zfill(2) for lesson in known]
    for (_, title, claims, minutes), lesson in zip(rows, known, strict=True):
        assert lesson["title"].startswith(title) and str(lesson["minutes"]) == minutes
        assert (lesson["claims"] or "—") == claims


def test_files_that_it_names_exist():
    names = set(re.findall(r"\((docs/[\w./]+)\)|`((?:docs|ptlearn)/[\w./]+)`", README))
    assert names
    for name in (a or b for a, b in names):
        assert (ROOT / name).exists(), name
