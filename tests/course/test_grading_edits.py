"""What is done to a notebook without meaning harm costs nothing; what is no submission is told in one line."""

import io
import json
import zipfile

import nbformat
import pytest
from test_grading_attacks import PROMPTS, RIGHT, course, handed_in, marked  # noqa: F401

from ptlearn.course.grading.grade import Options, grade, grade_all
from ptlearn.course.grading.merge import load_release, merge, read_notebook
from ptlearn.course.grading.submissions import Submission, collect, read_roster, read_rubric

HELPER = "from math import fsum as total\ndef twice(value):\n    return total([value, value])"
USES_HELPER = "def double(values):\n    return [twice(value) for value in values]"


def code(text, **metadata):
    return nbformat.v4.new_code_cell(text, metadata=metadata)



def split(cells, place):
    first = "def helper(value):\n    return 2 * value"
    second = "def double(values):\n    return list(map(helper, values))"
    cells[place["ans-99-1"]].source = first
    cells.insert(place["ans-99-1"] + 1, code(second, **cells[place["ans-99-1"]].metadata))


def moved(cells, place):
    cells.append(cells.pop(place["ans-99-1"]))


def duplicated(cells, place):
    cells.insert(place["ans-99-1"] + 1, cells[place["ans-99-1"]].copy())


def helper_below(cells, place):
    cells[place["ans-99-1"]].source = USES_HELPER
    cells.append(code(HELPER))


def helper_in_a_given_cell(cells, place):
    cells[place["ans-99-1"]].source = USES_HELPER
    cells[place["chk-99-1"] - 3].source += "\n" + HELPER


def computed_in_a_given_cell(cells, place):
    cells[place["ans-99-1"]].source = "def double(values):\n    return [twice([value]) for value in values]"
    made = "box = dict(by=0)\nbox['by'] = sum([1, 1])\nfactor = min(box.values())\nimpossible = 1 / int('x')"
    twice = "def twice(numbers):\n    return factor * numbers[0]"
    cells[place["chk-99-1"] - 3].source += f"\n{made}\n{twice}"


def own_experiments(cells, place):
    cells.insert(1, code("print(no_such_name)\nundone = 1 / 0"))
    cells.insert(1, code("%matplotlib inline\n!ls\nimport this"))
    cells.insert(1, code("not python at all"))


def timed(cells, place):
    cells[place["ans-99-1"]].source = "%%time\n" + RIGHT


def as_markdown(cells, place):
    cells[place["ans-99-1"]] = nbformat.v4.new_markdown_cell(RIGHT, metadata=cells[place["ans-99-1"]].metadata)


def crlf(cells, place):
    for cell in cells:
        cell.source = cell.source.replace("\n", "\r\n")


def rewritten_in_a_new_cell(cells, place):
    cells[place["ans-99-1"]] = code(RIGHT)


def check_deleted(cells, place):
    del cells[place["chk-99-1"]]


def skipped(cells, place):
    cells[place["ans-99-1"]].source = "# NBVAL_SKIP\n" + RIGHT
    cells[place["chk-99-1"]].metadata["tags"] = ["nbval-skip"]


EDITS = [split, moved, duplicated, helper_below, helper_in_a_given_cell, computed_in_a_given_cell, own_experiments,
         timed, as_markdown, crlf, rewritten_in_a_new_cell, check_deleted, skipped]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_a_harmless_edit_costs_nothing(edit, course):  # noqa: F811
    found = marked(course, handed_in(course, RIGHT, PROMPTS, edit))
    assert {mark.status for mark in found.values()} == {"pass"}


def test_a_notebook_without_ids_and_without_remarks(course):  # noqa: F811
    made = json.loads(handed_in(course, RIGHT))
    for cell in made["cells"]:
        del cell["id"]
        cell["metadata"] = {"id": "colab", "vscode": {"languageId": "python"}}
    made |= {"nbformat_minor": 4, "metadata": {"kernelspec": {"name": "other"}, "widgets": {"state": {}}, "colab": {}}}
    assert {mark.status for mark in marked(course, json.dumps(made).encode()).values()} == {"pass"}


def test_the_merged_notebook_is_the_releases_but_for_the_answers(course):  # noqa: F811
    def damage(cells, place):
        cells[place["chk-99-2"]].source = "print('PASS 99.2')"
        skipped(cells, place)

    merged = merge(load_release(99, course), read_notebook(handed_in(course, RIGHT, PROMPTS, damage)))
    cells = {cell.id: cell for cell in merged.notebook.cells}
    assert cells["chk-99-2"].source == 'prompts = check("99.2", prompts)' and "check 99.2 was edited" in merged.flags
    assert cells["ans-99-1"].source == "# off: NBVAL_SKIP\n" + RIGHT
    assert cells["chk-99-1"].metadata["tags"] == ["nbval-check-output"]
    nbformat.validate(merged.notebook)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "not a notebook"),
        (b"[]", "no cells"),
        (b"[" * 100_000, "not a notebook"),
        (b'{"cells": [3]}', "without a type"),
        (b'{"cells": [], "worksheets": []}', "no cell belongs to an exercise"),
        (b'{"worksheets": []}', "format 3"),
        (b"\xff\xfe", "not a notebook"),
    ],
)
def test_what_is_no_submission_is_told_in_a_line(data, words, course):  # noqa: F811
    error = grade(Submission("a.ipynb", data, "A"), 1, Options(release=course)).error
    assert words in error and "\n" not in error


def test_another_lesson_and_another_release_are_refused(course):  # noqa: F811
    data = handed_in(course, RIGHT)
    assert "lesson 99, expected 08" in grade(Submission("a", data, "A"), 1, Options(release=course, lesson=8)).error
    made = json.loads(data)
    answer = next(cell for cell in made["cells"] if cell["id"] == "ans-99-1")
    ours, answer["metadata"]["ptlearn"]["digest"] = answer["metadata"]["ptlearn"]["digest"], "0badcafe"
    error = grade(Submission("a", json.dumps(made).encode(), "A"), 1, Options(release=course)).error
    assert "0badcafe" in error and ours in error


def test_two_of_one_student_are_refused_and_a_second_run_grades_nothing_again(course, tmp_path, monkeypatch):  # noqa: F811
    class_ = [Submission(f"{n}.ipynb", handed_in(course, RIGHT), s) for n, s in enumerate(["Ada", "Bob", "Bob"])]
    options = Options(release=course, nbval=False, seed=3)
    first = list(grade_all(class_, options, tmp_path))
    assert [(m.student, bool(m.error)) for m in first] == [("Bob", True), ("Bob", True), ("Ada", False)]
    monkeypatch.setattr("ptlearn.course.grading.grade.marks_of", lambda *a: pytest.fail("graded again"))
    assert sorted(map(str, grade_all(class_, options, tmp_path))) == sorted(map(str, first))


def test_a_zip_is_read_and_never_unpacked(tmp_path):
    link = zipfile.ZipInfo("link.ipynb")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../out.ipynb", "{}")
        archive.writestr("/root.ipynb", "{}")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bomb.ipynb", b"0" * (65 << 20))
        archive.writestr("Ada L_12_assignsubmission_file/99_toy.ipynb", "{}")
    (tmp_path / "all.zip").write_bytes(buffer.getvalue())
    found, refused = collect([str(tmp_path / "all.zip")])
    assert [each.student for each in found] == ["Ada L"]
    words = {each.submission: each.error for each in refused}
    assert "path" in words["../out.ipynb"] and "path" in words["/root.ipynb"] and "link" in words["link.ipynb"]
    assert "bytes" in words["bomb.ipynb"] and [path.name for path in tmp_path.iterdir()] == ["all.zip"]


def test_tables_that_say_nothing_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no notebook in"):
        collect([str(tmp_path / "empty")])
    (tmp_path / "roster.csv").write_text("colour\nred\n")
    with pytest.raises(ValueError, match="roster: .*colour.*expected one of file"):
        read_roster(tmp_path / "roster.csv")
    (tmp_path / "rubric.json").write_text('{"8.1": 3, "8.2": 0}')
    assert read_rubric(tmp_path / "rubric.json") == {"8.1": 3, "8.2": 0}
    (tmp_path / "rubric.json").write_text('{"8.1": "many"}')
    with pytest.raises(ValueError, match="rubric"):
        read_rubric(tmp_path / "rubric.json")
