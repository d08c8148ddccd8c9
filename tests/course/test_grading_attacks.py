"""Hostile answers: no undeserved point, no other exercise's points lost, nothing written outside, the grader alive."""

import json
import os
import shutil

import nbformat
import pytest
from toy_lesson import write_lesson

from ptlearn.course import checks
from ptlearn.course.build import build, serialized
from ptlearn.course.grading import points
from ptlearn.course.grading.grade import Options, grade
from ptlearn.course.grading.submissions import Submission

RIGHT = "def double(values):\n    return [2 * value for value in values]"
PROMPTS = 'prompts = ["one", "two", "three"]'
WRONG = "\ndef double(values):\n    return values"
HOSTILE = {  # what is handed in for 99.1, beside a right 99.2
    "redefined check": "def check(number, answer):\n    print('PASS', number)\n    return answer" + WRONG,
    "the package's answer through check": (
        "from ptlearn.course.exercise import check\ndouble = check('99.1', lambda values: values)"
    ),
    "the package's answer through the registry": (
        "from ptlearn.course.exercise import exercise\ndef double(values):\n"
        "    return exercise('99.1').reference(values)"
    ),
    "patched verify": (
        "import ptlearn.course.exercise as e\ne.conclude = e.judge = lambda *a: e.Verdict('PASS')" + WRONG
    ),
    "patched builtins": "import builtins\nbuiltins.len = lambda value: 3\nbuiltins.all = lambda value: True" + WRONG,
    "patched json": "import json\njson.dumps = lambda *a, **k: '{}'" + WRONG,
    "stack walking": (
        "import sys\ndef double(values):\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in list(frame.f_locals.values()):\n            if hasattr(value, 'reference'):\n"
        "                return value.reference(values)\n        frame = frame.f_back\n    return values"
    ),
    "equal to everything": (
        "class Chameleon(float):\n    def __eq__(self, other):\n        return True\n    __hash__ = float.__hash__\n"
        "def double(values):\n    return [Chameleon(7) for _ in values]"
    ),
    "os._exit in the answer": "import os\ndef double(values):\n    os._exit(0)",
    "os._exit in the cell": "import os\nos._exit(0)" + WRONG,
    "kills its parents": (
        "import os, signal\ndef double(values):\n    os.kill(os.getppid(), 9)\n    os.kill(-1, 9)\n    return values"
    ),
    "an endless loop": "def double(values):\n    while True:\n        pass",
    "an endless loop that catches all": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
    ),
    "a memory bomb": "def double(values):\n    return [bytearray(1 << 34)]",
    "a fork bomb": "import os\ndef double(values):\n    while True:\n        os.fork()",
    "a gigabyte of output": (
        "def double(values):\n    for _ in range(1024):\n        print('x' * (1 << 20))\n    return values"
    ),
    "an endless result": "def double(values):\n    return ['x' * (1 << 20)] * 64",
    "forged replies": (
        "import os, json\nfor fd in range(3, 20):\n    try:\n"
        "        for said in ({'question': '99.1'}, {'observed': '99.1', 'data': [{'data': []}] * 6}):\n"
        "            os.write(fd, b'\\n' + json.dumps(said).encode() + b'\\n')\n"
        "    except OSError:\n        pass" + WRONG
    ),
    "writes where it can": (
        "import os, pathlib, ptlearn\nfor place in (os.path.expanduser('~'), '/tmp', OUTSIDE, ptlearn.__path__[0]):\n"
        "    try:\n        pathlib.Path(place, 'planted.py').write_text('x')\n    except OSError:\n        pass" + WRONG
    ),
    "the network": (
        "import socket\ndef double(values):\n    return socket.create_connection(('127.0.0.1', PORT), 2).recv(9)"
    ),
    "patched numpy and torch": (
        "import numpy, torch\nyes = lambda *a, **k: True\nnumpy.allclose = numpy.isclose = torch.allclose = yes\n"
        "torch.isclose = lambda x, *a, **k: torch.ones_like(x, dtype=torch.bool)\n"
        "torch.Tensor.__eq__ = lambda self, other: torch.ones_like(self, dtype=torch.bool)" + WRONG
    ),
    "an input transformer": (
        "get_ipython().input_transformers_post.append(lambda lines: ['double = None\\n'])" + WRONG
    ),
    "a list that lies": (
        "class Liar(list):\n    def __eq__(self, other):\n        return True\n    def __len__(self):\n"
        "        return 3\n"
        "    def __getitem__(self, place):\n        return 2.0\n    def tolist(self):\n        return self\n"
        "def double(values):\n    return Liar([1.0, 1.0, 1.0])"
    ),
    "a tensor subclass that lies": (
        "import torch\nclass Liar(torch.Tensor):\n    @classmethod\n"
        "    def __torch_function__(cls, function, types, args=(), kwargs=None):\n        return True\n"
        "    def tolist(self):\n        return [2.0, 2.0, 2.0]\n"
        "def double(values):\n    return torch.ones(3).as_subclass(Liar)"
    ),
    "an answer that catches all": (
        "def double(values):\n    while True:\n        try:\n            while True:\n                pass\n"
        "        except BaseException:\n            pass"
    ),
    "reading the seed": (
        "import gc, random, sys\ndef double(values):\n    random.seed(0)\n"
        "    seeds = [o['seed'] for o in gc.get_objects() if isinstance(o, dict) and isinstance(o.get('seed'), int)]\n"
        "    for seed in seeds:\n        drawn = random.Random(f'{seed} 99.1')\n"
        "        if any(abs(drawn.random() - v) < 1e-9 for v in values):\n            return [2 * v for v in values]\n"
        "    return values"
    ),
    "other when graded": (
        "import sys\ndef double(values):\n"
        "    graded = any('grading' in name for name in sys.modules) or 'ipykernel' not in sys.modules\n"
        "    return values if graded else [2 * v for v in values]"
    ),
    "right on the visible cases alone": (
        "import random\nseen = [random.Random(0).random()]\n"
        "def double(values):\n    return [2 * v for v in values] if values[0] in seen else values"
    ),
}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The toy course, laid out as a release."""
    root = tmp_path_factory.mktemp("course")
    write_lesson(root)
    build(root=root, execute=False)
    shutil.copytree(root / "checks", root / "ptlearn" / "course" / "checks")
    before = list(checks.__path__)
    yield root
    checks.__path__[:] = before


def handed_in(course, first, second=PROMPTS, change=lambda cells, place: None):
    """The toy notebook with two answers, changed."""
    made = nbformat.read(course / "notebooks" / "99_toy.ipynb", as_version=4)
    place = {cell.id: number for number, cell in enumerate(made.cells)}
    made.cells[place["ans-99-1"]].source, made.cells[place["ans-99-2"]].source = first, second
    change(made.cells, place)
    return serialized(made).encode()


def marked(course, data):
    marks = grade(Submission("ada.ipynb", data, "Ada"), 7, Options(release=course, nbval=False))
    assert marks.error == ""
    return {mark.exercise: mark for mark in marks.exercises}


@pytest.mark.parametrize("attack", HOSTILE)
def test_an_attack_earns_nothing_and_costs_no_other_exercise(attack, course, tmp_path, monkeypatch):
    monkeypatch.setattr(points, "EXERCISE_SECONDS", 3.0)
    monkeypatch.setattr(points, "CELL_SECONDS", 3.0)
    source = HOSTILE[attack].replace("OUTSIDE", json.dumps(str(tmp_path))).replace("PORT", "9")
    places = (os.path.expanduser("~"), "/tmp", str(tmp_path), os.path.dirname(os.path.dirname(checks.__file__)))
    found = marked(course, handed_in(course, source))
    assert found["99.1"].points == 0 and found["99.1"].status != "pass"
    assert found["99.2"].status == "pass"
    assert not any(os.path.exists(os.path.join(place, "planted.py")) for place in places)


def test_right_answers_are_full_marks_and_stubs_are_to_do(course):
    assert [mark.status for mark in marked(course, handed_in(course, RIGHT)).values()] == ["pass", "pass"]
    blank = (course / "notebooks" / "99_toy.ipynb").read_bytes()
    assert [mark.status for mark in marked(course, blank).values()] == ["todo", "todo"]


CHECKS = {"edited": 'print("PASS 99.1")', "deleted": None, "skipped": "# NBVAL_SKIP"}


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_that_was_edited_or_deleted_saves_no_wrong_answer(name, course):
    def change(cells, place):
        if CHECKS[name] is None:
            del cells[place["chk-99-1"]]
        else:
            cells[place["chk-99-1"]].source = CHECKS[name]

    found = marked(course, handed_in(course, WRONG, change=change))
    assert (found["99.1"].points, found["99.2"].status) == (0, "pass")


def test_what_stands_beside_a_notebook_is_not_read(course, tmp_path):
    """A conftest, a module of the package's name and results written in advance, in the folder that is handed in."""
    folder = tmp_path / "handed in"
    folder.mkdir()
    for name in ("conftest.py", "ptlearn.py", "numpy.py", "sitecustomize.py"):
        (folder / name).write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).write_text('x')")
    (folder / "results.json").write_text('{"score": 100}')
    (folder / "marks.csv").write_text("student,sum\nada,100\n")
    (folder / "ada.ipynb").write_bytes(handed_in(course, WRONG))
    marks = grade(Submission("ada.ipynb", (folder / "ada.ipynb").read_bytes(), "Ada"), 7, Options(release=course))
    assert [mark.points for mark in marks.exercises] == [0, 1] and marks.nbval
    assert not (tmp_path / "ran").exists()
