"""nbval by itself on solutions: strict mode compares to the letter, in the builder's kernel, clocks left out."""

import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns

from ptlearn.course import build
from ptlearn.course.lesson import ROOT

SANITIZE = ROOT / "solutions" / "sanitize.cfg"
CODE = """import os, sys
print("took less than 10 ms" if "{slow}" else "took less than 1 ms")
print(os.environ["OMP_NUM_THREADS"], os.environ.get("PTLEARN_QUIET"), sys.executable == {python!r})"""


@pytest.mark.parametrize(("flag", "threads", "code"), [("--nbval", 2, 0), ("--nbval", 3, 1), ("--nbval-lax", 3, 0)])
def test_strict_compares_what_is_printed_but_for_clocks(tmp_path, flag, threads, code):
    folder = tmp_path / "solutions"
    folder.mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name in ("conftest.py", "solutions/sanitize.cfg"):
        shutil.copy(ROOT / name, tmp_path / name)
    source = CODE.format(slow="x", python=sys.executable)
    shown = nbformat.v4.new_output("stream", text=f"took less than 1 ms\n{threads} 1 True\n")
    cells = [nbformat.v4.new_code_cell(source, execution_count=1, outputs=[shown])]
    made = build.notebook(cells)
    made.metadata.kernelspec.name = "of-another-project"
    nbformat.write(made, folder / "99_toy.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", flag, str(folder)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=build.environment(str(tmp_path)))
    assert run.returncode == code, run.stdout


def test_every_pattern_leaves_out_something_that_a_solution_shows():
    patterns = dict(get_sanitize_patterns(SANITIZE.read_text()))
    texts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "solutions").glob("*.ipynb"))
    assert patterns and all(re.search(pattern, texts) for pattern in patterns)
    for pattern, replacement in patterns.items():
        assert re.sub(pattern, replacement, "accuracy 0.93 at step 10 ms") == "accuracy 0.93 at step 10 ms"
