"""What a lesson asks of the place it runs in: its arguments, a place for figures, a progress bar.

A lesson runs as a script, in a notebook and under the builder; these three helpers are all that knows the difference.
"""

import argparse
import base64
import html
import io
import linecache
import operator
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
FIGURES = Path("figures")  # where a script leaves its figures, below the folder it was started in
DOTS_PER_INCH = 90  # 40 KB for a plot of 5 by 3 inches; a notebook may hold 300 KB


def arguments(description: str, **knobs: Any) -> SimpleNamespace:
    """The knobs of a lesson: from the command line when it runs as a script, else their defaults.

    A knob is a default, or a tuple of a default, its help line and, where not every value makes sense, its range: the
    values to choose from, or words such as "at least 1" or "above 0, at most 1". A text with a range in words is a list
    of whole numbers, "1,2,4". Booleans become `--name` and `--no-name`. In a script a bad value is one line and exit
    code 2, and so is what the package refuses later on; Ctrl-C is one line and 130.

    Raises: ValueError in a notebook, for a value out of its range.
    >>> arguments("Baselines.", model=("pocket-m", "the model to load"), gamma=(0.9, "discount", "below 1")).model
    'pocket-m'
    """
    knobs = {name: (*knob, "", "")[:3] if isinstance(knob, tuple) else (knob, "", "") for name, knob in knobs.items()}
    values = {name: default for name, (default, _, _) in knobs.items()}
    for name, (default, _, allowed) in knobs.items():
        require_allowed(name, default, allowed)
    if not is_program(sys._getframe(1).f_globals):
        return SimpleNamespace(**values)
    print_anything()
    parser = knob_parser(description, knobs)
    values = vars(parser.parse_args())
    try:
        for name, (_, _, allowed) in knobs.items():
            require_allowed(name, values[name], allowed)
    except ValueError as error:
        parser.error(str(error))
    sys.excepthook = one_line_for_input
    for name, (default, _, _) in knobs.items():
        if str(default).startswith("pocket-") and ("/" in values[name] or os.path.exists(values[name])):
            given = f"{option(name)} {values[name]}"
            print(f"{given}: the tasks here are the pocket world's, and the numbers in the text are {default}'s")
    return SimpleNamespace(**values)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose error is one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists the knobs)\n")


def knob_parser(description: str, knobs: dict[str, tuple]) -> argparse.ArgumentParser:
    """The command line of a lesson."""
    parser = OneLineParser(description=description)
    for name, (default, text, allowed) in knobs.items():
        kind = {"action": argparse.BooleanOptionalAction} if isinstance(default, bool) else {"type": kind_of(default)}
        allowed = allowed if isinstance(allowed, str) else f"one of {', '.join(allowed)}"
        text = "; ".join(filter(None, (text, allowed))) + f" (default: {default})"
        parser.add_argument(option(name), default=default, help=text.strip().replace("%", "%%"), **kind)
    return parser


def option(name: str) -> str:
    """How a knob is called on the command line."""
    return f"--{name.replace('_', '-')}"


def kind_of(default: Any) -> type:
    """What a knob's value is read as; a default of None stands for a text that may be missing."""
    return str if default is None else type(default)


BOUNDS = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}
BOUND = rf"({'|'.join(BOUNDS)}) ([^\s,]+)"


def require_allowed(name: str, value: Any, allowed: Any) -> None:
    """Refuse a value out of its range, and a number that is none.

    >>> require_allowed("gamma", 1.0, "at least 0, below 1")
    Traceback (most recent call last):
    ValueError: --gamma 1.0: expected at least 0, below 1
    """
    given = f"{option(name)} {value}"
    if not isinstance(allowed, str):
        if value not in allowed:
            raise ValueError(f"{given}: expected one of {', '.join(allowed)}")
        return
    bounds = [(BOUNDS[word], float(bound)) for word, bound in re.findall(BOUND, allowed)]
    numbers = [value] if isinstance(value, float | int) else []
    if isinstance(value, str) and bounds:
        try:
            numbers = [int(part) for part in value.split(",")]
        except ValueError:
            raise ValueError(f"{given}: expected whole numbers with commas between, {allowed}") from None
    if not all(abs(number) < 2**63 and all(holds(number, bound) for holds, bound in bounds) for number in numbers):
        raise ValueError(f"{given}: expected {allowed or 'a finite number'}")


def print_anything() -> None:
    """Let a console that lacks a character print a question mark in its place instead of stopping the program.

    Of several processes that `accelerate launch` or `torchrun` has started, the first one alone prints.
    """
    if int(os.environ.get("RANK", "0")):
        read_enough()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def read_enough() -> None:
    """Send the rest nowhere, as where the reader of a pipe has gone, and Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line_for_input(kind: type, error: BaseException, trace) -> None:
    """What a script prints at its end: a line for Ctrl-C and for what was typed, the whole trace for everything else.

    What was typed is at fault when a line of the package raises (ValueError, OSError) and the lesson runs with other
    knobs than its own. With its own, or raised anywhere else, an error is a mistake in the course, and shows its trace.
    """
    if issubclass(kind, BrokenPipeError):
        read_enough()
        raise SystemExit(0)
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    file, line = (last.tb_frame.f_code.co_filename, last.tb_lineno) if last is not None else ("", 0)
    refused = Path(file).is_relative_to(PACKAGE) and linecache.getline(file, line).strip().startswith("raise")
    if issubclass(kind, KeyboardInterrupt):
        print(f"{program().name}: interrupted", file=sys.stderr)
        raise SystemExit(130)
    if issubclass(kind, ValueError | OSError) and refused and len(sys.argv) > 1:
        print(f"{program().name}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2)
    sys.__excepthook__(kind, error, trace)


def end_script(reason: Exception | str) -> None:
    """Say in a line what a lesson lacks. A script ends there, with exit code 2; a notebook goes on."""
    line = " ".join(str(reason).split())
    if is_program(sys._getframe(1).f_globals):
        print(f"{program().name}: {line}", file=sys.stderr)
        raise SystemExit(2)
    print(line)


def is_program(namespace: dict) -> bool:
    """Whether these globals belong to the file that was started: a kernel's arguments are not the lesson's."""
    own = namespace.get("__file__")
    return namespace.get("__name__") == "__main__" and own is not None and Path(own).resolve() == program()


def program() -> Path:
    """The file that Python was started with."""
    return Path(sys.argv[0]).resolve()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, so that what is displayed appears below the cell."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


def progress(items, description: str = "", total: int | None = None):
    """The items again, with a plain bar on a terminal or in a notebook; silent in logs and under the builder."""
    from tqdm import tqdm

    quiet = bool(os.environ.get("PTLEARN_QUIET")) or not (in_notebook() or sys.stdout.isatty())
    file = Shown() if in_notebook() else sys.stdout
    return tqdm(items, desc=description, total=total, file=file, disable=quiet, mininterval=0.5, ncols=80)


class Shown:
    """A line below the cell that is written over and over, apart from what is printed."""

    encoding = "utf-8"  # so that the bar is drawn with blocks

    def __init__(self):
        self.handle = None

    def write(self, text: str) -> None:
        """Show a line instead of the one before; white space alone, which wipes a terminal's line, changes nothing."""
        from IPython.display import display

        line = {"text/plain": text.strip()}
        if not line["text/plain"]:
            return
        if self.handle:
            self.handle.update(line, raw=True)
        else:
            self.handle = display(line, raw=True, display_id=True)

    def flush(self) -> None:
        """Nothing waits."""


def show(picture: Any, alt: str) -> None:
    """Show a figure, an animation or a piece of HTML, with the text that says what there is to see.

    Args:   picture: a Matplotlib figure, a Matplotlib animation, or a string of HTML;
            alt: what a reader who cannot see it needs to know, one or two sentences.
    In a notebook it appears below the cell; a script saves it as `figures/NN_topic_k` and prints the path.
    Raises: ValueError if alt is empty or the object is none of these.
    """
    if not alt.strip():
        raise ValueError("alt: a figure needs a sentence that says what it shows")
    kind, content = rendered(picture, alt)
    if in_notebook():
        from IPython.display import display

        shown = content if kind == "text/html" else picture_tag(kind, content, alt)
        display({"text/html": shown, "text/plain": alt}, raw=True, metadata={"text/html": {"alt": alt}})
    else:
        print(f"{saved(kind, content)}: {alt}")


def picture_tag(kind: str, content: bytes, alt: str) -> str:
    """A picture as HTML: as a picture alone, JupyterLab would show it without its alt text."""
    return f'<img alt="{html.escape(alt)}" src="data:{kind};base64,{base64.b64encode(content).decode()}">'


def rendered(picture: Any, alt: str) -> tuple[str, bytes | str]:
    """The MIME type and the content of a picture. A figure is closed, so that no backend shows it again."""
    if isinstance(picture, str):
        return "text/html", picture
    from matplotlib import animation, figure, pyplot

    if isinstance(picture, figure.Figure):
        buffer = io.BytesIO()
        about = {"Software": None, "Description": alt}  # no version in the file: the same figure, the same bytes
        picture.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", facecolor="white", metadata=about)
        pyplot.close(picture)
        return "image/png", buffer.getvalue()
    if isinstance(picture, animation.Animation):
        return "image/gif", animated(picture)
    raise ValueError(f"picture: a figure, an animation or a string of HTML, not {type(picture).__name__}")


def animated(film) -> bytes:
    """An animation as a GIF, at its own speed."""
    import tempfile

    from matplotlib import animation, pyplot

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.gif")
        rate = 1000 / getattr(film, "_interval", 200)
        film.save(path, writer=animation.PillowWriter(fps=rate), dpi=DOTS_PER_INCH * 0.7)
        pyplot.close(film._fig)
        return path.read_bytes()


def saved(kind: str, content: bytes | str) -> str:
    """Write a picture of a script to the next free number under its name; where, or why it could not be written."""
    name = program().stem if program().suffix == ".py" else "figure"
    count = saved_so_far[name] = saved_so_far.get(name, 0) + 1
    path = FIGURES / f"{name}_{count}.{kind.rpartition('/')[2]}"
    try:
        FIGURES.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:  # a lesson in a folder that cannot be written goes on without its pictures
        return f"{path.as_posix()} not saved ({error.strerror})"
    return path.as_posix()


saved_so_far: dict[str, int] = {}  # pictures of this run, by program


if program().parent.name == "lessons":  # a lesson imports this first, and then libraries that take seconds
    sys.excepthook = one_line_for_input
