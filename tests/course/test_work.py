"""A student's copies: made once, brought up to date by cells, and never the poorer for it."""

import json

import nbformat
import pytest
from toy_lesson import write_lesson

from ptlearn.course import build as building
from ptlearn.course.build import build
from ptlearn.course.lesson import LessonError
from ptlearn.course.work import copy_notebooks, copy_pages

ANSWER = 'def double(values):\n    """Twice each value."""\n    return [2 * value for value in values]'


@pytest.fixture
def course(tmp_path):
    """The toy course with its copy in `work/`."""
    write_lesson(tmp_path)
    build(root=tmp_path, execute=False)
    assert copy_notebooks(root=tmp_path) == ["work/99_toy.ipynb: new"]
    return tmp_path


def copied(course):
    return course / "work" / "99_toy.ipynb"


def read(course):
    return nbformat.read(copied(course), as_version=4)


def edit(course, change):
    """Let `change` work on the cells of the copy, as a student would."""
    notebook = read(course)
    change(notebook.cells, {cell.id: place for place, cell in enumerate(notebook.cells)})
    copied(course).write_text(building.serialized(notebook), encoding="utf-8")


def release(course, old, new):
    """A new release, in which the lesson reads otherwise."""
    path = course / "lessons" / "99_toy.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    build(root=course, execute=False)


def answered(cells, place):
    cells[place["ans-99-1"]].source = ANSWER
    cells[place["ans-99-1"]].execution_count = 3
    cells[place["ans-99-1"]].outputs = [nbformat.v4.new_output("stream", text="done\n")]


def sources(course):
    return [cell.source for cell in read(course).cells]


def test_a_copy_is_the_blank_notebook_and_a_second_call_changes_nothing(course):
    assert copied(course).read_bytes() == (course / "notebooks" / "99_toy.ipynb").read_bytes()
    edit(course, answered)
    before = copied(course).read_bytes()
    assert copy_notebooks(root=course) == []
    assert copied(course).read_bytes() == before


def test_a_release_brings_its_text_and_keeps_answers_with_their_outputs(course):
    edit(course, answered)
    release(course, "nothing is learned", "little is learned")
    assert copy_notebooks(root=course) == ["work/99_toy.ipynb: brought up to date; what you wrote is kept"]
    cells = {cell.id: cell for cell in read(course).cells}
    assert cells["ans-99-1"].source == ANSWER and cells["ans-99-1"].outputs[0].text == "done\n"
    text = "\n".join(sources(course))
    assert "little is learned" in text and "nothing is learned" not in text


def test_cells_of_the_students_own_stay_where_they_stand(course):
    def scribble(cells, place):
        cells.insert(place["chk-99-1"] + 1, nbformat.v4.new_code_cell("print('mine, in the middle')"))
        cells.insert(0, nbformat.v4.new_markdown_cell("Mine, on top"))
        cells.append(nbformat.v4.new_code_cell("'mine, at the end'"))

    edit(course, scribble)
    before = sources(course)
    release(course, "nothing is learned", "little is learned")
    copy_notebooks(root=course)
    assert sources(course) == [source.replace("nothing is", "little is") for source in before]


def test_what_a_student_wrote_into_a_given_cell_is_kept(course):
    edit(course, lambda cells, place: cells[0].update(source="# My predictions\n1. no"))
    assert copy_notebooks(root=course) == []
    release(course, "nothing is learned", "little is learned")  # the cell that was written into has a new text
    copy_notebooks(root=course)
    assert sources(course)[0] == "# My predictions\n1. no" and "little is learned" in sources(course)[1]


def test_a_deleted_check_comes_back_and_a_changed_one_is_kept_below(course):
    def damage(cells, place):
        cells[place["chk-99-2"]].source = "print('PASS 99.2')"
        del cells[place["chk-99-1"]]

    edit(course, damage)
    copy_notebooks(root=course)
    cells = read(course).cells
    ids = [cell.id for cell in cells]
    assert cells[ids.index("chk-99-1")].source == 'double = check("99.1", double)'
    assert cells[ids.index("chk-99-2")].source == 'prompts = check("99.2", prompts)'
    own = cells[ids.index("chk-99-2") + 1]
    assert own.source == "print('PASS 99.2')" and "ptlearn" not in own.metadata and len(set(ids)) == len(ids)


def test_cells_out_of_order_and_an_answer_in_two_cells(course):
    def shuffle(cells, place):
        answered(cells, place)
        cells.insert(place["ans-99-1"] + 1, nbformat.v4.new_code_cell("more = double", metadata=cells[4].metadata))
        cells.reverse()

    edit(course, shuffle)
    copy_notebooks(root=course)
    released = [cell.id for cell in nbformat.read(course / "notebooks" / "99_toy.ipynb", as_version=4).cells]
    cells = read(course).cells
    assert [cell.id for cell in cells if cell.id in released] == released
    assert ANSWER in sources(course) and "more = double" in sources(course)


def test_a_copy_without_ids_is_found_by_its_keys(course):
    edit(course, answered)
    made = json.loads(copied(course).read_text())
    made["nbformat_minor"] = 4
    for cell in made["cells"]:
        del cell["id"]
    copied(course).write_text(json.dumps(made))
    release(course, "nothing is learned", "little is learned")
    copy_notebooks(root=course)
    cells = {cell.id: cell for cell in read(course).cells}
    assert cells["ans-99-1"].source == ANSWER and len(cells) == len(made["cells"])


def test_a_new_signature_keeps_the_answer_and_says_so_once(course):
    edit(course, answered)
    release(course, "def double(values):", "def double(values, factor=2):")
    words = "exercise 99.1 has changed: your answer is kept, the new text is in notebooks/"
    assert f"work/99_toy.ipynb: {words}" in copy_notebooks(root=course)
    assert ANSWER in sources(course)
    assert copy_notebooks(root=course) == []


def test_a_blank_answer_follows_the_release(course):
    release(course, "def double(values):", "def double(values, factor=2):")
    copy_notebooks(root=course)
    assert copied(course).read_bytes() == (course / "notebooks" / "99_toy.ipynb").read_bytes()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nbformat": 4}', '{"cells": [{}], "nbformat": 4}', "<<<<<<< HEAD"])
def test_a_file_that_is_no_notebook_is_left_alone_in_one_line(course, text):
    (course / "lessons" / "98_other.py").write_text("# %% [markdown]\n# # 98 · Other\n# About 1 minutes.\n")
    build(["98"], root=course, execute=False)
    copied(course).write_text(text)
    other, broken = copy_notebooks(root=course)
    assert other == "work/98_other.ipynb: new"
    assert broken.startswith("work/99_toy.ipynb: left as it is, not a notebook") and "\n" not in broken
    assert copied(course).read_text() == text


def test_an_interrupted_copy_leaves_the_old_file(course, monkeypatch):
    edit(course, answered)
    release(course, "nothing is learned", "little is learned")
    before = copied(course).read_bytes()

    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy_notebooks(root=course)
    assert copied(course).read_bytes() == before


def test_build_refuses_to_overwrite_answers(course):
    path = course / "notebooks" / "99_toy.ipynb"
    edit(course, answered)
    path.write_bytes(copied(course).read_bytes())
    with pytest.raises(LessonError, match=r"written into \(99.1\): move it to work/99_toy.ipynb, or .* --force"):
        build(root=course, execute=False)
    assert path.read_bytes() == copied(course).read_bytes()
    build(root=course, execute=False, force=True)
    assert ANSWER not in [cell.source for cell in nbformat.read(path, as_version=4).cells]


def test_check_does_not_look_into_work(course):
    edit(course, answered)
    assert not any("work" in line for line in build(check=True, root=course))


def test_pages_are_kept_up_to_date_and_a_file_of_the_students_own_is_not_touched(tmp_path):
    released, place = tmp_path / "released", tmp_path / "place"
    building.write(released / "claims.md", "# Claims\nsee [3](../solutions/03.ipynb)\n")
    pages = "docs/: the pages that the notebooks link to"
    assert copy_pages(released, place) == [pages] and copy_pages(released, place) == []
    assert (place / "claims.md").read_text() == "# Claims\nsee [3](../work/03.ipynb)\n"
    building.write(released / "claims.md", "# Claims\nmeasured anew\n")
    assert copy_pages(released, place) == [pages]
    (place / "claims.md").write_text("# My notes\n")
    assert copy_pages(released, place) == ["docs/claims.md: left as it is, not a page of the course"]
    assert (place / "claims.md").read_text() == "# My notes\n"
