"""Cells that measure, tagged "again", print the same when they are run again, in the reverse order.

Then nothing that a later cell changes comes into a measurement, and a student may run a cell twice. Times are no part
of what is measured. The answers stand for themselves: judging them would take longer than all the rest.
"""

import contextlib
import io
import re
import sys

import pytest
from test_blank_notebooks import SMALL, place  # noqa: F401, a fixture

from ptlearn.course.lesson import cells_of, keys, lesson_files, solved

SHORTER = {"07": [("runs=20_000", "runs=1000")]}  # further
FILES = [path for path in lesson_files() if 'tags=["again"]' in path.read_text(encoding="utf-8")]


def printed(cell, lesson, shorter):
    """What a cell prints, without times."""
    source = solved(cell.source)
    for old, new in shorter:
        source = source.replace(old, new)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(source, "lesson", "exec"), lesson)
    return re.sub(r"[\d.]+ (s|ms|seconds)\b", "", out.getvalue())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_cells_that_measure_print_the_same_again_in_reverse_order(path, place):  # noqa: F811
    knobs, *shorter = SMALL[path.stem[:2]]
    shorter += SHORTER.get(path.stem[:2], [])
    assert all(old in path.read_text(encoding="utf-8") for old, _ in shorter)
    sys.argv = [str(path), *knobs.split()]
    lesson, first = {"__name__": "__main__", "__file__": str(path)}, []
    for cell in cells_of(path):
        if cell.cell_type == "code" and keys(cell).get("role") != "check":
            text = printed(cell, lesson, shorter)
            first += [(cell, text)] if "again" in cell.metadata.get("tags", []) else []
    assert first
    for cell, text in reversed(first):
        assert printed(cell, lesson, shorter) == text, cell.source.split("\n")[0]


def test_a_cell_that_remembers_is_found_out():
    from types import SimpleNamespace

    cells = [SimpleNamespace(source=source) for source in ("count = 0", "count += 1\nprint(count)")]
    lesson = {}
    assert [printed(cell, lesson, []) for cell in cells] == ["", "1\n"]
    assert printed(cells[1], lesson, []) == "2\n"
