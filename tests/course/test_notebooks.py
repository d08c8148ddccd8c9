"""The notebooks that are handed out are what the lessons give: complete, small, readable, and without solutions."""

import pytest

from ptlearn.course.build import build
from ptlearn.course.exercise import exercises
from ptlearn.course.lesson import ROOT, cells_of, keys, lesson_files, solution_lines, summary
from ptlearn.course.outputs import problems_of, size_problems

LESSONS = pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)


def notebook(folder, path):
    import nbformat

    return nbformat.read(ROOT / folder / f"{path.stem}.ipynb", as_version=4)


def answer_cells(path):
    return [cell for cell in cells_of(path) if keys(cell).get("role") == "answer"]


def test_every_notebook_is_what_its_lesson_gives():
    assert build(check=True) == []


@LESSONS
def test_a_lesson_says_what_it_is_for(path):
    found = summary(path)
    assert found["title"] != path.stem and found["minutes"], "the first cell reads '# NN · Title … About 40 minutes'"
    assert f"# # {path.stem[:2]} · " in path.read_text(encoding="utf-8")


@LESSONS
def test_exercises_and_checks_belong_together(path):
    cells = answer_cells(path)
    points = {keys(cell)["ex"]: keys(cell)["points"] for cell in cells}
    assert points == (
        {number: known.points for number, known in exercises(int(path.stem[:2])).items()} if cells else {}
    )


@LESSONS
def test_every_check_in_the_solutions_passes(path):
    checks = [cell for cell in notebook("solutions", path).cells if keys(cell).get("role") == "check"]
    said = [cell.outputs[0].text.partition(": score")[0].strip() for cell in checks]  # a contest says its score too
    assert said == [f"PASS {keys(cell)['ex']}" for cell in checks]


@LESSONS
def test_no_line_of_a_solution_is_handed_out(path):
    blank = [cell.source for cell in notebook("notebooks", path).cells]
    outside = "\n".join(cell.source for cell in cells_of(path) if keys(cell).get("role") != "answer")
    lines = [line.strip() for cell in answer_cells(path) for line in solution_lines(cell.source)]
    secrets = [line for line in lines if len(line) > 20 and line not in outside]
    assert [line for line in secrets if any(line in source for source in blank)] == []


@LESSONS
def test_no_line_of_code_is_wider_than_a_cell_on_a_laptop(path):
    cells = [cell for folder in ("notebooks", "solutions") for cell in notebook(folder, path).cells]
    lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > 95] == []


@LESSONS
def test_titles_of_exercises_are_headings_as_the_outline_needs_them(path):
    heads = [cell.source for cell in notebook("notebooks", path).cells if keys(cell).get("role") == "head"]
    expected = [f"#### Exercise {keys(cell)['ex']}: {keys(cell)['title']}" for cell in answer_cells(path)]
    assert [head.splitlines()[0] for head in heads] == expected


@LESSONS
def test_the_outputs_are_fit_to_publish(path):
    cells = notebook("solutions", path).cells
    assert [problem for cell in cells for problem in problems_of(cell)] == []
    assert size_problems(notebook("solutions", path)) == []
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
