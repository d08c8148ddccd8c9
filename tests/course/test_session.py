"""What a lesson asks of its surroundings: knobs, pictures and bars, as a script and in a notebook."""

import io
import sys

import pytest
from matplotlib import animation
from matplotlib.figure import Figure
from PIL import Image

from ptlearn.course import arguments, progress, session, show


def knobs(monkeypatch, *given):
    """The knobs of a lesson that was started with the given arguments."""
    monkeypatch.setattr(sys, "argv", ["lessons/09_toy.py", *given])
    lesson = {"__name__": "__main__", "__file__": "lessons/09_toy.py", "arguments": arguments}
    call = "options = arguments('A toy.', model=('pocket-m', 'its name'), seed=0, rate=0.1, fast=False, folder=None)"
    exec(call, lesson)
    return vars(lesson["options"])


DEFAULTS = {"model": "pocket-m", "seed": 0, "rate": 0.1, "fast": False, "folder": None}


def test_a_script_reads_its_command_line(monkeypatch):
    assert knobs(monkeypatch) == DEFAULTS
    given = knobs(monkeypatch, "--model", "pocket-s", "--seed=3", "--rate", "1", "--fast", "--folder", "runs")
    assert given == {"model": "pocket-s", "seed": 3, "rate": 1.0, "fast": True, "folder": "runs"}


def test_a_misspelt_knob_exits_2(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        knobs(monkeypatch, "--sede", "3")
    assert end.value.code == 2 and "--sede" in capsys.readouterr().err


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
