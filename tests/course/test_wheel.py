"""A wheel brings the lessons and the blank notebooks along, and the command works from them, where no repository is."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from ptlearn.course.lesson import ROOT, cells_of, keys, lesson_files, summary

LIGHT = shutil.ignore_patterns("*.safetensors", "__pycache__", "*.egg-info", ".git", ".venv")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the package as a wheel would install it, without the weights of the pocket models."""
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("ptlearn", "lessons", "notebooks", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=LIGHT)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    made = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(source / made.stdout.split()[-1]) as wheel:
        wheel.extractall(place)
    return place


def ptlearn(installed, folder, *arguments):
    """What the command says and its exit code, run from a folder of somebody's own."""
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "PTLEARN_QUIET": "1"}
    command = [sys.executable, "-m", "ptlearn", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def linked_folders(place):
    """The folders that the copies and the page of claims link to; each link leads to a file, each anchor to a claim."""
    seen, claims = set(), (place / "docs/claims.md").read_text(encoding="utf-8")
    for path in [*place.glob("work/*.ipynb"), place / "docs/claims.md"]:
        for target, anchor in re.findall(r"\]\((\.\./[^)#]+)(?:#(\w+))?\)", path.read_text(encoding="utf-8")):
            page = Path(os.path.normpath(path.parent / target))
            assert page.is_file() and (not anchor or f"## {anchor.upper()}\n" in claims), f"{path.name}: {target}"
            seen.add(page.parent.relative_to(place).as_posix())
    return seen


def test_lessons_are_listed_copied_and_run_without_a_repository(installed, tmp_path):
    code, said = ptlearn(installed, tmp_path, "lessons")
    assert code == 0 and len(said.splitlines()) == 1 + len(list(ROOT.glob("lessons/*.py")))
    code, said = ptlearn(installed, tmp_path, "copy")
    new = [f"work/{path.stem}.ipynb: new" for path in lesson_files()]
    assert code == 0 and said.splitlines() == ["docs/: the pages that the notebooks link to", *new]
    assert (tmp_path / "work" / "07_grid_world.ipynb").read_bytes() == (
        ROOT / "notebooks/07_grid_world.ipynb"
    ).read_bytes()
    assert linked_folders(tmp_path) == {"docs", "docs/interactive", "work"}
    code, said = ptlearn(installed, tmp_path, "lesson", "07", "--help")
    assert code == 0 and said.startswith("usage: 07_grid_world.py")


def test_a_copy_is_graded_without_a_repository(installed, tmp_path):
    ptlearn(installed, tmp_path, "copy", "08")
    path = tmp_path / "work" / "08_reinforce.ipynb"
    full = nbformat.read(ROOT / "solutions/08_reinforce.ipynb", as_version=4)
    answers = {cell.id: cell.source for cell in full.cells}
    own = nbformat.read(path, as_version=4)
    for cell in own.cells:  # one right answer, one wrong one, the others left blank
        if cell.id == "ans-8-1":
            cell.source = answers["ans-8-1"]
        elif cell.id == "ans-8-2":
            cell.source = cell.source.partition("\n")[0] + "\n    return 0"
    nbformat.write(own, path)
    code, said = ptlearn(installed, tmp_path, "grade", "work/08_reinforce.ipynb", "--no-nbval")
    (lesson,) = lesson_files(chosen=["08"])
    points = next(keys(cell)["points"] for cell in cells_of(lesson) if keys(cell).get("ex") == "8.1")
    assert code == 0 and f" {points} of {summary(lesson)['points']} (8.2 " in said
    assert "8.2 todo" not in said and "8.3 todo" in said


@pytest.mark.parametrize("command", ["build", "claims", "gradescope 07"])
def test_what_needs_the_repository_says_so_in_one_line(installed, tmp_path, command):
    code, said = ptlearn(installed, tmp_path, *command.split())
    assert code == 2 and "works in a clone of the repository" in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())
