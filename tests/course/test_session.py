"""What a lesson asks of its surroundings: knobs, pictures and bars, as a script and in a notebook."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from matplotlib import animation
from matplotlib.figure import Figure
from PIL import Image

from ptlearn.course import session
from ptlearn.course.lesson import lesson_files
from ptlearn.course.session import arguments, progress, show


def lesson(monkeypatch, call, *given):
    """The knobs of a lesson with this call, started with the given arguments."""
    monkeypatch.setattr(sys, "argv", ["lessons/09_toy.py", *given])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return eval(call, {"__name__": "__main__", "__file__": "lessons/09_toy.py", "arguments": arguments})


def knobs(monkeypatch, *given):
    call = "arguments('A toy.', model=('pocket-m', 'its name'), seed=0, rate=0.1, fast=False, folder=None)"
    return vars(lesson(monkeypatch, call, *given))


DEFAULTS = {"model": "pocket-m", "seed": 0, "rate": 0.1, "fast": False, "folder": None}


def test_a_script_reads_its_command_line(monkeypatch):
    assert knobs(monkeypatch) == DEFAULTS
    given = knobs(monkeypatch, "--model", "pocket-s", "--seed=3", "--rate", "1", "--fast", "--folder", "runs")
    assert given == {"model": "pocket-s", "seed": 3, "rate": 1.0, "fast": True, "folder": "runs"}


def test_a_misspelt_knob_exits_2(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        knobs(monkeypatch, "--sede", "3")
    assert end.value.code == 2 and "--sede" in capsys.readouterr().err


def test_a_value_out_of_its_range_is_one_line_and_2(monkeypatch, capsys):
    knob = "gamma=(0.9, 'discount', 'at least 0, below 1')"
    ranks, kind = "ranks=('1,2', 'the ranks', 'at least 1')", "kind=('a', 'which', ('a', 'b'))"
    for bad in (["--gamma", "1"], ["--gamma=-0.1"], ["--gamma", "nan"], ["--gamma", "x"], ["--ranks", "1,0"],
                ["--ranks", "1,x"], ["--kind", "c"], ["--rate", "inf"]):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            lesson(monkeypatch, f"arguments('A toy.', rate=0.1, {knob}, {ranks}, {kind})", *bad)
        said = capsys.readouterr().err
        assert end.value.code == 2 and said.count("\n") == 1 and bad[0].partition("=")[0] in said, said
    good = lesson(monkeypatch, f"arguments('A toy.', {knob}, {ranks}, {kind})", "--gamma=0", "--ranks=4", "--kind=b")
    assert vars(good) == {"gamma": 0.0, "ranks": "4", "kind": "b"}


@pytest.mark.parametrize(
    ("words", "inside", "outside"),
    [("at least 1", (1, 2), (0, -3)), ("above 0", (0.1,), (0.0,)), ("at most 1", (1,), (2,)), ("below 1", (0.9,), (1,)),
     ("above 0, at most 1", (1,), (0, 2)), ("", (1e9,), (float("nan"), float("inf")))],
)  # fmt: skip
def test_a_range_in_words_means_what_it_says(words, inside, outside):
    for value in inside:
        session.require_allowed("knob", value, words)
    for value in outside:
        with pytest.raises(ValueError, match=f"^--knob {value}: expected"):
            session.require_allowed("knob", value, words)


def test_help_shows_the_range(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        lesson(monkeypatch, "arguments('A toy.', lr=(0.1, 'step size', 'above 0'))", "--help")
    assert end.value.code == 0 and "step size; above 0 (default: 0.1)" in capsys.readouterr().out


def test_in_a_notebook_a_bad_value_is_an_exception(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py"])
    with pytest.raises(ValueError, match=r"^--seed -1: expected at least 0$"):
        arguments("A toy.", seed=(-1, "of all", "at least 0"))


SCRIPT = """import sys
from ptlearn.course.session import arguments
arguments("A toy.", model="pocket-m")
{line}
"""


def ended(tmp_path, line, *given, **environment):
    """A script with this line behind its knobs, run; its exit code and what it said."""
    path = tmp_path / "toy.py"
    path.write_text(SCRIPT.format(line=line), encoding="utf-8")
    command = [sys.executable, str(path), *given]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, env=os.environ | environment)
    return run.returncode, run.stdout.decode("ascii", "replace"), run.stderr.decode()


def test_another_model_is_told_whose_tasks_these_are(monkeypatch, capsys):
    knobs(monkeypatch, "--model", "pocket-s")
    assert capsys.readouterr().out == ""
    knobs(monkeypatch, "--model", "owner/name")
    said = capsys.readouterr().out
    assert said.startswith("--model owner/name: the tasks here are the pocket world's") and said.count("\n") == 1


MISTAKEN = "from ptlearn.course.session import require_allowed as check; check('a', 1, 'at least x')"  # in float()
REFUSED = "import ptlearn.course.lesson as lesson; lesson.lesson_files(chosen=['77'])"


def test_what_was_typed_wrongly_is_one_line_and_a_mistake_of_the_course_a_trace(tmp_path):
    code, _, said = ended(tmp_path, REFUSED, "--model", "nope")
    assert code == 2 and said.startswith("toy.py: no lesson '77'") and said.count("\n") == 1
    for line, given in ((REFUSED, []), ("int('x')", ["--model", "nope"]), ("1 / 0", ["--model", "nope"]),
                        (MISTAKEN, ["--model", "nope"])):
        code, _, said = ended(tmp_path, line, *given)
        assert code == 1 and "Traceback" in said


def test_ctrl_c_is_one_line_and_130(tmp_path):
    assert ended(tmp_path, "raise KeyboardInterrupt")[::2] == (130, "toy.py: interrupted\n")


@pytest.mark.parametrize("lesson", lesson_files(), ids=lambda path: path.stem)
def test_ctrl_c_is_one_line_while_a_lesson_imports(tmp_path, lesson):
    """The first import is the one that knows, before those that take seconds."""
    imported = [line for line in lesson.read_text(encoding="utf-8").splitlines() if line.startswith(("import", "from"))]
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / lesson.name).write_text(f"{imported[0]}\nraise KeyboardInterrupt\n")
    run = subprocess.run([sys.executable, str(tmp_path / "lessons" / lesson.name)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (130, f"{lesson.name}: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="a pipe that is closed early")
def test_a_reader_that_stops_is_no_error(tmp_path):
    (tmp_path / "toy.py").write_text(SCRIPT.format(line="print('many words ' * 10_000)"))
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([sys.executable, str(tmp_path / "toy.py")], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (run.returncode, run.stderr) == (0, b"")


def test_a_console_without_a_character_shows_a_question_mark(tmp_path):
    assert ended(tmp_path, "print('J → ∇')", PYTHONIOENCODING="ascii")[:2] == (0, "J ? ?\n")


def test_a_folder_that_cannot_be_written_costs_the_pictures_alone(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lessons/09_toy.py"])
    monkeypatch.setattr(session, "saved_so_far", {})
    (tmp_path / "figures").write_text("a file of that name")
    show("<b>bold</b>", alt="A bold word.")
    assert capsys.readouterr().out == "figures/09_toy_1.html not saved (File exists): A bold word.\n"


def test_a_kernel_keeps_its_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "connection.json"])
    notebook = {"__name__": "__main__", "arguments": arguments}
    exec("options = arguments('A toy.', seed=0)", notebook)
    assert notebook["options"].seed == 0


def test_a_script_saves_its_pictures_in_order(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lessons/09_toy.py"])
    monkeypatch.setattr(session, "saved_so_far", {})
    show(Figure(figsize=(1, 1)), alt="Nothing at all.")
    show("<b>bold</b>", alt="A bold word.")
    first, second = capsys.readouterr().out.splitlines()
    assert first == "figures/09_toy_1.png: Nothing at all." and second == "figures/09_toy_2.html: A bold word."
    with Image.open(tmp_path / "figures" / "09_toy_1.png") as image:
        assert image.info["Description"] == "Nothing at all." and "Software" not in image.info
        assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_an_animation_becomes_a_gif():
    figure = Figure(figsize=(1, 1))
    (line,) = figure.subplots().plot([0, 1])
    film = animation.FuncAnimation(figure, lambda frame: line.set_data([0, 1], [0, frame]), frames=3, interval=100)
    kind, content = session.rendered(film, "A line that turns.")
    with Image.open(io.BytesIO(content)) as image:
        assert kind == "image/gif" and image.n_frames == 3 and image.info["duration"] == 100


def test_a_picture_needs_words():
    with pytest.raises(ValueError, match="alt"):
        show(Figure(), alt=" ")
    with pytest.raises(ValueError, match="not int"):
        show(3, alt="Three.")


def test_a_bar_is_silent_in_a_log(capsys):
    assert list(progress(range(3), "counting")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_bar_in_a_notebook_has_an_output_of_its_own(monkeypatch, capsys):
    from IPython import display

    shown = []

    def show_first(data, **options):
        assert options == {"raw": True, "display_id": True}
        shown.append(data["text/plain"])
        return SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))

    monkeypatch.setattr(session, "in_notebook", lambda: True)
    monkeypatch.setattr(display, "display", show_first)
    monkeypatch.delenv("PTLEARN_QUIET", raising=False)
    for number in progress(range(3), "counting"):
        print("line", number)
    assert shown[0].startswith("counting:   0%") and shown[-1].startswith("counting: 100%")
    assert not any("\r" in line for line in shown)
    assert capsys.readouterr().out == "line 0\nline 1\nline 2\n"


def test_a_figure_in_a_notebook_is_shown_with_its_words(monkeypatch):
    from IPython import display

    shown = []
    monkeypatch.setattr(session, "in_notebook", lambda: True)
    monkeypatch.setattr(display, "display", lambda data, **options: shown.append(data))
    show(Figure(figsize=(1, 1)), alt='A "line" < 2.')
    (data,) = shown
    assert data["text/html"].startswith('<img alt="A &quot;line&quot; &lt; 2." src="data:image/png;base64,iVBOR')
    assert data["text/plain"] == 'A "line" < 2.' and set(data) == {"text/html", "text/plain"}
