"""A lesson as it is handed out, run to its end with nothing answered and with every answer wrong.

    python tests/course/blanks.py [NN ...]     the notebooks themselves, at full size, each twice in a fresh folder
"""

import ast
import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

from ptlearn.course.build import environment, notebooks_of
from ptlearn.course.lesson import blanked, cells_of, keys, lesson_files


def wrong(source: str) -> str:
    """A blank answer, answered wrongly: functions hand back their first argument, values are 0.

    >>> print(wrong("def double(values):\\n    raise NotImplementedError"))
    def double(values):
        return values
    >>> wrong("prompts = ...  # YOUR CODE HERE")
    'prompts = 0'
    """
    lines = source.split("\n")
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            given = [argument.arg for argument in function.args.args if argument.arg != "self"] or ["0"]
            for stub in ast.walk(function):
                if isinstance(stub, ast.Raise) and ast.unparse(stub) == "raise NotImplementedError":
                    answer = "pass" if function.name == "__init__" else f"return {given[0]}"
                    lines[stub.lineno - 1] = f"{' ' * stub.col_offset}{answer}"
    return re.sub(r"= \.\.\.  # YOUR CODE HERE$", "= 0", "\n".join(lines), flags=re.MULTILINE)


def run_small(path: Path, knobs: list[str], shorter: list[tuple[str, str]] = ()) -> tuple[list[str], list[tuple]]:
    """Run the cells of a lesson, as a script with these knobs, every exercise blank and then wrong; then those tagged
    "again" once more, the last first.

    `shorter` are pairs of a text in the lesson, such as a count that is no knob, and what stands in its place.
    Returns what the checks say, a blank answer's line before a wrong one's; and for each cell that ran again its first
    line, what it printed, and what it printed again, times left out. Whatever the lesson raises comes through.
    """
    sys.argv = [str(path), *knobs]
    assert all(old in path.read_text(encoding="utf-8") for old, _ in shorter), shorter
    lesson, said, measured = {"__name__": "__main__", "__file__": str(path)}, [], []

    def run(source: str) -> str:
        for old, new in shorter:
            source = source.replace(old, new)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(source, path.stem, "exec"), lesson)
        return printed.getvalue()

    for cell in cells_of(path):
        role = keys(cell).get("role")
        if role == "answer":
            blank = blanked(cell.source)
            run(blank)
        elif role == "check":
            said.append(run(cell.source))
            run(wrong(blank))
            said.append(run(cell.source))
        elif cell.cell_type == "code":
            text = run(cell.source)
            measured += [(cell.source, text)] if "again" in cell.metadata.get("tags", []) else []
    again = [(source.split("\n")[0], untimed(text), untimed(run(source))) for source, text in reversed(measured)]
    return said, again


def untimed(text: str) -> str:
    """What was printed, without times.

    >>> untimed("3 rounds of 1.5 s each")
    '3 rounds of  each'
    """
    return re.sub(r"[\d.]+ (s|ms|seconds)\b", "", text)


def run_notebook(path: Path, answer) -> list[str]:
    """Run a blank notebook in a kernel and a fresh folder, its answers changed; returns what the checks say."""
    from nbclient import NotebookClient

    blank, _ = notebooks_of(path)
    for cell in blank.cells:
        if keys(cell).get("role") == "answer":
            cell.source = answer(cell.source)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(blank, timeout=1800, resources={"metadata": {"path": folder}}).execute(env=environment(folder))
    checks = [cell for cell in blank.cells if keys(cell).get("role") == "check"]
    return ["".join(output.get("text", "") for output in cell.outputs).strip() for cell in checks]


def main(chosen: list[str]) -> int:
    """Print a line per notebook and way to answer; the exit code is 1 where one stopped or a check spoke otherwise."""
    stopped = 0
    for path in lesson_files(chosen=chosen):
        for name, answer, status in (("blank", str, "TODO "), ("wrong", wrong, "FAIL ")):
            try:
                said = run_notebook(path, answer)
                odd = [line for line in said if not line.startswith(status)]
                found = f"{len(said)} checks; otherwise: {odd}" if odd else f"to its end, {len(said)} checks"
            except Exception as error:
                odd, found = [error], f"stopped: {(str(error).strip() or repr(error)).splitlines()[-1]}"
            stopped += bool(odd)
            print(f"{path.stem}, all {name}: {found}", flush=True)
    return min(stopped, 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
