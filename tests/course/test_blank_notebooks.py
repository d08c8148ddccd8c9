"""Every lesson runs to its end with nothing answered and with every answer wrong; references take their stubs' calls.

Cells that measure, tagged "again", then print the same once more, in the reverse order: nothing that a later cell
changes comes into a measurement, and a student may run a cell twice.

Small knobs and shorter constants make a lesson cheap; `make blanks` does the same with the notebooks, at full size.
"""

import ast
import inspect
import math
import sys

import pytest
from blanks import run_small, wrong

from ptlearn.course import session
from ptlearn.course.exercise import exercise
from ptlearn.course.lesson import blanked, cells_of, keys, lesson_files

# per lesson: knobs, and what is shortened in its text
SMALL = {
    "00": [
        "--model=pocket-s --documents=2 --budget=5e10",
        ("round(1), 200", "round(1), 3"),
        ('[""] * 16, 30, t', '[""] * 2, 5, t'),
    ],
    "01": ["--model=pocket-s --reviews=20 --stories=2", ("share_right(text, facts", "share_right(text, facts[:9]")],
    "02": ["--model=pocket-s --sizes=pocket-s --count=4"],
    "03": [
        "--model=pocket-s --examples=20 --each=1 --count=2",
        ("320 // size", "20 // size"),
        ("steps=20)", "steps=2)"),
    ],
    "04": ["--student=pocket-s --count=16 --requests=2", ("epochs=4", "epochs=1")],
    "05": [
        "--model=pocket-s --examples=1 --count=1 --seeds=2 --epochs=1",
        ("num_hidden_layers=32", "num_hidden_layers=2"),
        ("n_layer=96", "n_layer=2"),
    ],
    "06": ["--model=pocket-s --ranks=1 --seeds=2 --epochs=1"],
    "07": ["--side=4", ("runs=20_000", "runs=1000")],
    "08": [
        "--episodes=1 --updates=4 --seeds=2",
        ("(2, 5, 8, 11, 13), 20, 6", "(2, 3), 20, 2"),
        ("seed), 200, 0.5)", "seed), 2, 0.5)"),
    ],
    "09": ["--horizon=20 --batch=2 --batches=200 --updates=1 --runs=2"],
    "10": [
        "--critics=2 --seeds=2 --cap=1 --updates=1",
        ("POOL = 256", "POOL = 64"),
        ("UPDATES = 48", "UPDATES = 4"),
        ("steps=150", "steps=3"),
        ("range(50)", "range(2)"),
    ],
    "11": ["--runs=2 --rollouts=1 --batches=1"],
    "12": [
        "--model=pocket-s --largest=45 --examples=60 --updates=2 --prompts=2 --group=2 --seeds=2",
        ("held_out[:100]", "held_out[:10]"),
        ("prompts=32", "prompts=4"),
        ("view(32,", "view(4,"),
        ("KS, FEW = [1, 2, 4, 8], 25", "KS, FEW = [1, 2, 4, 8], 2"),
        ("task.train[:64]", "task.train[:4]"),
        ("task.train[:16]", "task.train[:4]"),
        ("go_on, 48)", "go_on, 2)"),
        ("range(15)", "range(2)"),
        ("updates=40, lr=0.1", "updates=2, lr=0.1"),
    ],
    "13": [
        "--prompts=1 --group=2 --updates=1 --model-updates=1 --seeds=2",
        ("DRAWS = 16", "DRAWS = 1"),
        ("samples=6):", "samples=1):"),
        ("chance, 1000, 4", "chance, 20, 4"),
        ("epochs=4, updates=8)", "epochs=1, updates=4)"),
        ("steps=150", "steps=3"),
        ("steps=300", "steps=3"),
        ("steps=60", "steps=3"),
        ("for batch in order.split(size)]", "for batch in order.split(size)][:1]"),
    ],  # fmt: skip
    "14": [
        "--model=pocket-s --pocket=pocket-s --count=4 --steps=1 --updates=1",
        ("(shown))[::2]", "(shown))[::12]"),
        ("set_num_threads(2)", "set_num_threads(1)"),  # two are for the real model: pocket-s waits for the second one
    ],
    "15": [
        "--model=pocket-s --examples=40 --batch=16 --seeds=2",
        ("num_hidden_layers=24", "num_hidden_layers=1"),
        ("num_hidden_layers=28", "num_hidden_layers=1"),
        ("requests(160,", "requests(32,"),
        ("rates, losses = (1e-5, 1e-3)", "rates, losses = (1e-3,)"),
        ("requests(40, args.seed", "requests(9, args.seed"),
    ],
    "16": [
        "--model=pocket-s --examples=8 --updates=1 --prompts=2 --group=2 --new-tokens=4 --quiz=20 --seeds=2",
        ('start = load_lm("pocket-m")', 'start = load_lm("pocket-s")'),
        ("updates=4, lr", "updates=1, lr"),
        ("tasks.arithmetic(largest=50)", "replace(tasks.arithmetic(largest=50), max_new_tokens=4)"),
    ],
}
LESSONS = pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A folder of its own, and whatever a lesson sets for a whole process put back afterwards."""
    import matplotlib
    import torch

    before = torch.is_grad_enabled(), torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(session, "rendered", undrawn)
    torch.set_num_threads(1)
    with matplotlib.rc_context({"backend": "agg"}):
        yield tmp_path
    torch.set_grad_enabled(before[0])
    torch.set_num_threads(before[1])


def undrawn(picture, alt):
    """A picture's place: drawing takes longer than all the rest, and needs no answer."""
    from matplotlib import pyplot

    pyplot.close("all")
    return "text/html", ""


@LESSONS
def test_a_lesson_runs_to_its_end_blank_and_wrong_and_measures_the_same_again(path, place):
    knobs, *shorter = SMALL[path.stem[:2]]
    said, again = run_small(path, knobs.split(), shorter)
    numbers = [keys(cell)["ex"] for cell in cells_of(path) if keys(cell).get("role") == "check"]
    expected = [f"{status} {number}" for number in numbers for status in ("TODO", "FAIL")]
    assert [line.partition(":")[0].partition(" (")[0].strip() for line in said] == expected
    assert bool(again) == ('tags=["again"]' in path.read_text(encoding="utf-8"))
    for cell, first, second in again:
        assert first == second, cell


def stubs(path):
    """The functions that a lesson asks for: (number, arguments as the blank notebook has them)."""
    cells = cells_of(path)
    checked = {keys(cell)["ex"]: cell.source.split(" ")[0] for cell in cells if keys(cell).get("role") == "check"}
    for cell in cells:
        number = keys(cell).get("ex")
        for node in ast.parse(blanked(cell.source)).body if keys(cell).get("role") == "answer" else []:
            if isinstance(node, ast.FunctionDef) and node.name == checked[number]:
                yield number, node.args


@LESSONS
def test_every_reference_takes_the_call_of_its_stub(path):
    for number, asked in stubs(path):
        stub = inspect.signature(eval(f"lambda {ast.unparse(asked)}: None", {"math": math}))
        parameters = list(inspect.signature(exercise(number).reference).parameters.values())
        wanted = list(stub.parameters.values())
        form = [(each.name, each.kind, each.default) for each in parameters]
        assert form[: len(wanted)] == [(each.name, each.kind, each.default) for each in wanted], number
        assert all(each.default is not each.empty for each in parameters[len(wanted) :]), number


def test_a_wrong_answer_hands_back_its_first_argument_or_0():
    stub = "def f(x, y):\n    # YOUR CODE HERE\n    raise NotImplementedError"
    assert wrong(stub) == "def f(x, y):\n    # YOUR CODE HERE\n    return x"
    assert wrong("a = ...  # YOUR CODE HERE\nb = ...  # YOUR CODE HERE") == "a = 0\nb = 0"


def test_a_cell_that_remembers_is_found_out(place):
    lesson = place / "lesson.py"
    lesson.write_text('# %%\ncount = 0\n\n# %% tags=["again"]\ncount += 1\nprint(count, "after 0.3 s")\n')
    assert run_small(lesson, []) == ([], [("count += 1", "1 after \n", "2 after \n")])
