"""What a lesson asks of the place it runs in: its arguments, a place for figures, a progress bar.

A lesson runs as a script, in a notebook and under the builder; these three helpers are all that knows the difference.
"""

import argparse
import base64
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FIGURES = Path("figures")  # where a script leaves its figures, below the folder it was started in
DOTS_PER_INCH = 90  # 40 KB for a plot of 5 by 3 inches; a notebook may hold 300 KB


def arguments(description: str, **knobs: Any) -> SimpleNamespace:
    """The knobs of a lesson: from the command line when it runs as a script, else their defaults.

    A knob is a default, or a pair of a default and its help line. Booleans become `--name` and `--no-name`.

    >>> arguments("Baselines.", model=("pocket-m", "the language model to load"), seed=0).model
    'pocket-m'
    """
    pairs = {name: knob if isinstance(knob, tuple) else (knob, "") for name, knob in knobs.items()}
    caller = sys._getframe(1).f_globals
    if not is_program(caller):
        return SimpleNamespace(**{name: default for name, (default, _) in pairs.items()})
    parser = argparse.ArgumentParser(description=description)
    for name, (default, text) in pairs.items():
        kind = {"action": argparse.BooleanOptionalAction} if isinstance(default, bool) else {"type": kind_of(default)}
        text = f"{text} (default: {default})".strip()
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=text.replace("%", "%%"), **kind)
    return SimpleNamespace(**vars(parser.parse_args()))


def kind_of(default: Any) -> type:
    """What a knob's value is read as; a default of None stands for a text that may be missing."""
    return str if default is None else type(default)


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
    return tqdm(items, desc=description, total=total, file=sys.stdout, disable=quiet, mininterval=0.5, ncols=80)


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

        data = content if kind == "text/html" else base64.b64encode(content).decode()
        display({kind: data, "text/plain": alt}, raw=True, metadata={kind: {"alt": alt}})
    else:
        print(f"{saved(kind, content)}: {alt}")


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


def saved(kind: str, content: bytes | str) -> Path:
    """Write a picture of a script to the next free number under its name, and return where."""
    name = program().stem if program().suffix == ".py" else "figure"
    count = saved_so_far[name] = saved_so_far.get(name, 0) + 1
    path = FIGURES / f"{name}_{count}.{kind.rpartition('/')[2]}"
    FIGURES.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


saved_so_far: dict[str, int] = {}  # pictures of this run, by program
