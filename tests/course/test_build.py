"""From a lesson to its notebooks: same bytes, stable ids, no solution handed out, nothing unfit to publish."""

import json
import re
import subprocess
import sys

import nbformat
import pytest
from toy_lesson import write_lesson

from ptlearn.course import build as building
from ptlearn.course.build import build
from ptlearn.course.lesson import LessonError, blanked, cells_of, is_changed, summary


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The toy course, built."""
    root = tmp_path_factory.mktemp("course")
    write_lesson(root, FIGURE)
    build(root=root)
    return root


FIGURE = """import matplotlib.pyplot as plt
from ptlearn.course.session import show
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([1, 2])
show(figure, alt="A line that rises from 1 to 2.")"""


def read(root, folder):
    return json.loads((root / folder / "99_toy.ipynb").read_text())


def test_two_builds_give_the_same_bytes(course):
    path = course / "notebooks" / "99_toy.ipynb"
    before = path.read_bytes()
    build(root=course, execute=False)
    assert path.read_bytes() == before
    made = json.loads(before)
    assert before.decode() == json.dumps(made, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    nbformat.validate(nbformat.from_dict(made))


def test_no_line_of_a_solution_is_handed_out(course):
    blank = (course / "notebooks" / "99_toy.ipynb").read_text()
    assert "secret" not in blank and "SOLUTION" not in blank
    assert blank.count("# YOUR CODE HERE") == 2
    full = (course / "solutions" / "99_toy.ipynb").read_text()
    assert "secret_of_the_solution" in full and "SOLUTION" not in full


def test_ids_are_stable_unique_and_repeated_in_the_metadata(course):
    blank, full = read(course, "notebooks"), read(course, "solutions")
    ids = [cell["id"] for cell in blank["cells"]]
    assert (
        ids == [cell["id"] for cell in full["cells"]] == [cell["metadata"]["ptlearn"]["key"] for cell in blank["cells"]]
    )
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if "-99-" in name] == [
        f"{kind}-99-{number}" for number in (1, 2) for kind in ("head", "ans", "chk", "hint")
    ]


def test_a_student_sees_difficulty_minutes_and_points(course):
    sources = ["".join(cell["source"]) for cell in read(course, "notebooks")["cells"]]
    assert "**Exercise 99.1** · easy · about 5 minutes · 2 points" in sources
    assert "**Exercise 99.2** · hard · about 1 minute · 1 point" in sources


def test_the_solution_shows_its_outputs_and_the_blank_one_none(course):
    blank, full = read(course, "notebooks"), read(course, "solutions")
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in blank["cells"])
    outputs = {cell["id"]: cell.get("outputs", []) for cell in full["cells"]}
    assert outputs["chk-99-1"][0]["text"] == ["PASS 99.1\n"]
    (figure,) = outputs[full["cells"][-1]["id"]]
    alt = "A line that rises from 1 to 2."
    assert "".join(figure["data"]["text/html"]).startswith(f'<img alt="{alt}" src="data:image/png;base64,')
    assert figure["data"]["text/plain"] == [alt] and "image/png" not in figure["data"]
    assert not any("execution" in cell["metadata"] for cell in full["cells"])


def test_the_cell_for_colab_stands_hidden_below_the_title_and_keeps_its_torch(course):
    title, cell = read(course, "notebooks")["cells"][:2]
    source = "".join(cell["source"])
    assert "".join(title["source"]).startswith("# 99 · A toy") and source.startswith("#@title ")
    assert cell["metadata"]["jupyter"] == {"source_hidden": True} and cell["metadata"]["cellView"] == "form"
    assert '"google.colab" in sys.modules and importlib.util.find_spec("ptlearn") is None' in source
    assert '("torch", "numpy")' in source and '"-c"' in source
    assert source not in (course / "lessons" / "99_toy.py").read_text()


@pytest.mark.parametrize("address", ["", "git+https://example.org/course"])
def test_on_colab_it_installs_from_the_address_or_asks_for_it(address, monkeypatch, tmp_path, capsys):
    ran = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: ran.append(command))
    exec(building.COLAB.format(address=address), {})
    said = capsys.readouterr().out
    if address:
        assert ran[0][-1] == address and "torch==" in (tmp_path / "kept.txt").read_text() and said == ""
    else:
        assert ran == [] and said.startswith("Write git+ and the address") and said.count("\n") == 1


def test_a_key_in_the_metadata_tells_what_was_handed_out(course):
    for cell in nbformat.read(course / "notebooks" / "99_toy.ipynb", as_version=4).cells:
        assert not is_changed(cell)
        cell.source += " "
        assert is_changed(cell)


def test_check_finds_every_edit(course):
    assert build(check=True, root=course) == []
    for folder, old, new in [("notebooks", "Hint 1", "Clue 1"), ("solutions", "secret_of_the", "secret_in_the")]:
        path = course / folder / "99_toy.ipynb"
        kept = path.read_text()
        path.write_text(kept.replace(old, new))
        assert build(check=True, root=course) == [f"{folder}/99_toy.ipynb is not what its lesson gives"]
        path.unlink()
        assert build(check=True, root=course) == [f"{folder}/99_toy.ipynb is not what its lesson gives"]
        path.write_text(kept)
    orphan = course / "notebooks" / "98_gone.ipynb"
    orphan.write_text("{}")
    assert build(check=True, root=course) == ["notebooks/98_gone.ipynb has no lesson"]
    orphan.unlink()


def test_outputs_may_differ_between_machines(course):
    path = course / "solutions" / "99_toy.ipynb"
    kept = path.read_text()
    path.write_text(kept.replace("[2, 4] 3", "[2, 5] 3"))
    assert path.read_text() != kept
    assert build(check=True, root=course) == []
    path.write_text(kept)


def test_a_blank_notebook_runs_through_with_a_line_per_exercise(course):
    from nbclient import NotebookClient

    blank = nbformat.read(course / "notebooks" / "99_toy.ipynb", as_version=4)
    NotebookClient(blank).execute(env=building.environment(str(course)))
    outputs = {cell.id: "".join(output.get("text", "") for output in cell.get("outputs", [])) for cell in blank.cells}
    assert outputs["chk-99-1"] == "TODO 99.1 (going on with the package's)\n"
    assert outputs["chk-99-2"] == "TODO 99.2 (going on with the package's)\n"
    assert "[2, 4] 3\n" in outputs.values()


UNFIT = {  # cells that a solution may not show, and why
    "import sys; print('careful', file=sys.stderr)": "stderr: careful",
    "import warnings; warnings.warn('mind the step')": "stderr: .*mind the step",
    "print('read from /some/folder/file.txt')": "absolute path, '/some/folder/file.txt'",
    "print(repr(object()))": "address of an object",
    "import matplotlib.pyplot as plt\nfigure = plt.figure()\nplt.plot([1]);": "without alt text",
    "from IPython.display import display\n"
    "display({'application/vnd.jupyter.widget-view+json': {}}, raw=True)": "widget",
    "import numpy as np, matplotlib.pyplot as plt\nfrom ptlearn.course.session import show\n"
    "figure = plt.figure(figsize=(9, 9))\nplt.imshow(np.random.default_rng(0).random((800, 800)))\n"
    "show(figure, alt='noise')": "at most 300,000",
}


@pytest.fixture(scope="module")
def refusal(tmp_path_factory):
    """What is said of a lesson with all unfit cells: each is looked at by itself, and a kernel takes long to start."""
    root = tmp_path_factory.mktemp("unfit")
    write_lesson(root, "\n\n# %%\n".join(UNFIT))
    with pytest.raises(LessonError) as refused:
        build(root=root)
    assert not (root / "solutions" / "99_toy.ipynb").exists()
    return str(refused.value)


@pytest.mark.parametrize("reason", UNFIT.values())
def test_a_solution_that_shows_what_it_should_not_is_refused(refusal, reason):
    assert re.search(f"99_toy.py: .*{reason}", refusal, re.DOTALL)


def test_a_solution_that_fails_is_refused(tmp_path):
    write_lesson(tmp_path, "print(len(prompts) / 0)")
    with pytest.raises(LessonError, match="99_toy.py: .*ZeroDivisionError"):
        build(root=tmp_path)
    assert not (tmp_path / "solutions" / "99_toy.ipynb").exists()


def test_a_solution_that_fails_its_own_check_is_refused(tmp_path):
    path = write_lesson(tmp_path)
    path.write_text(path.read_text().replace("[value + value for value in values]", "values"))
    with pytest.raises(LessonError, match="does not pass its check: FAIL 99.1: the values come back unchanged"):
        build(root=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("    # END SOLUTION\n", "", "without '# END SOLUTION'"),
        ("    # BEGIN SOLUTION\n", "", "does not pair"),
        ('points=2 minutes=5 difficulty="easy"', 'minutes=5 difficulty="easy"', "points and minutes"),
        ('difficulty="hard"', 'difficulty="nasty"', "easy, medium, hard"),
        ('ex="99.2" role="check"', 'ex="98.2" role="check"', "starts with '99.'|one answer"),
        ("<details><summary>Hint 2</summary>Multiply.</details>", "", "two folded hints"),
        ('double = check("99.1", double)', 'check("99.1", double)', "the check reads"),
        ("print(len(prompts))", "%matplotlib inline", "invalid syntax"),
        ("print(len(prompts))", "# %matplotlib inline", "is a magic"),
        ("    # END SOLUTION\n", "    # END SOLUTION\nprint(double([1]))\n", "behind the check"),
        ('ex="99.1" points=2', "points=2", "no key ex"),
        ("points=2", "point=2", "unknown key 'point'"),
        ('# %% ex="99.2" points=1 minutes=1 difficulty="hard"', "# %%", "no key ex"),
        (
            'double = check("99.1", double)',
            'double = check("99.1", double)\n# BEGIN SOLUTION',
            "outside an answer cell",
        ),
        ('prompts = ["first', 'prompts = [  # BEGIN\n# BEGIN SOLUTION\n"first', "does not pair"),
    ],
)
def test_a_lesson_that_breaks_a_rule_is_refused(tmp_path, old, new, reason):
    path = write_lesson(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(LessonError, match=reason):
        build(root=tmp_path, execute=False)


def test_an_unknown_lesson_is_named(tmp_path):
    write_lesson(tmp_path)
    assert build(["99"], root=tmp_path, execute=False) == ["notebooks/99_toy.ipynb"]
    with pytest.raises(LessonError, match="no lesson '07'; there are 99_toy"):
        build(["7"], root=tmp_path)


def test_a_region_around_half_a_statement_is_refused():
    with pytest.raises(LessonError, match="whole statements"):
        blanked("prompts = [\n    # BEGIN SOLUTION\n    1,\n    # END SOLUTION\n]")


def test_keys_and_check_tags_are_read(tmp_path):
    cells = cells_of(write_lesson(tmp_path))
    answer = next(cell for cell in cells if cell.metadata["ptlearn"].get("role") == "answer")
    assert answer.metadata["ptlearn"] == {
        "ex": "99.1",
        "role": "answer",
        "points": 2,
        "minutes": 5,
        "difficulty": "easy",
    }
    check = next(cell for cell in cells if cell.metadata["ptlearn"].get("role") == "check")
    assert check.metadata["tags"] == ["nbval-check-output"]
    assert not any("lines_to_next_cell" in cell.metadata for cell in cells)


def test_the_table_of_lessons_reads_the_first_cell(tmp_path):
    assert summary(write_lesson(tmp_path)) == {
        "number": "99",
        "title": "A toy: doubling",
        "minutes": 7,
        "claims": "C01–C02",
        "exercises": 2,
        "points": 3,
    }


def test_a_lesson_runs_as_a_script_with_its_knobs(tmp_path):
    path = write_lesson(tmp_path, FIGURE)
    run = subprocess.run(
        [sys.executable, str(path), "--model", "pocket-s"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == [
        "pocket-s",
        "PASS 99.1",
        "PASS 99.2",
        "[2, 4] 3",
        "figures/99_toy_1.png: A line that rises from 1 to 2.",
    ]
    assert (tmp_path / "figures" / "99_toy_1.png").read_bytes().startswith(b"\x89PNG")
    usage = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=True).stdout
    assert "the model (default: pocket-m)" in usage
