"""How much of a lesson's code the student writes, and how wide it is: for the lessons that hold to it."""

import ast

import pytest

from ptlearn.course.lesson import cells_of, keys, lesson_files, solution_lines, solved

LEAST = 0.25  # of the lines of code without imports and plots
WIDEST = 95  # characters of a line of code, so that it needs no scrolling in a notebook
DRAWING = {"pyplot", "figures", "axes", "axis", "figure", "show", "film"}
HELD = tuple(f"{number:02}" for number in range(14))  # the lessons that hold to the share
NARROW = tuple(f"{number:02}" for number in range(17))  # to the width, and to titles


def lessons(numbers):
    """A test per lesson."""
    return pytest.mark.parametrize("path", lesson_files(chosen=list(numbers)), ids=lambda path: path.stem)


def lines_of(source):
    """The numbers of the lines of code: no blanks, comments, docstrings, imports or statements that draw."""
    found = set()
    for node in ast.parse(source).body:
        names = {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
        if not (isinstance(node, ast.Import | ast.ImportFrom) or names & DRAWING):
            found |= set(range(node.lineno, node.end_lineno + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            found -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = source.split("\n")
    return {number for number in found if lines[number - 1].strip() and lines[number - 1].strip()[0] != "#"}


def shares(path):
    """The lines of code that a student writes, and all of them."""
    written = total = 0
    for cell in cells_of(path):
        if cell.cell_type == "code" and keys(cell).get("role") != "check":
            theirs = [line for line in solution_lines(cell.source) if line.strip() and line.strip()[0] != "#"]
            written += len(theirs)
            total += max(len(lines_of(solved(cell.source))), len(theirs))
    return written, total


@lessons(HELD)
def test_the_student_writes_a_quarter_of_the_code(path):
    written, total = shares(path)
    assert written >= LEAST * total, f"{written} of {total} lines"


@lessons(NARROW)
def test_code_needs_no_scrolling(path):
    code = [line for cell in cells_of(path) if cell.cell_type == "code" for line in solved(cell.source).split("\n")]
    assert [line for line in code if len(line) > WIDEST] == []


@lessons(NARROW)
def test_every_exercise_has_a_title(path):
    answers = [keys(cell) for cell in cells_of(path) if keys(cell).get("role") == "answer"]
    assert [answer["ex"] for answer in answers if "title" not in answer] == []


def test_lines_are_counted_without_imports_plots_and_words():
    source = 'import os\n\n# a comment\ndef f(x):\n    """Doc."""\n    return x\n\nshow(f(1))\nx = f(\n    2)'
    assert len(lines_of(source)) == 4
