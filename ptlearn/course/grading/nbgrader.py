"""Lessons as source notebooks of an nbgrader course: nbgrader blanks them, hands them out, runs and marks them.

An answer is a solution cell, and the check behind it a locked test cell with the exercise's points. Under nbgrader
`check` raises for whatever does not pass, which is what costs the points; see `ptlearn.course.exercise.must_raise`.
"""

from pathlib import Path

from ptlearn.course.build import cells_with_ids, notebook, serialized, write
from ptlearn.course.lesson import BEGIN, END, ROOT, keys, lesson_files, split_regions, stub

SCHEMA = 3  # of nbgrader's cell metadata


def write_sources(lessons: list[str] | None, out: Path, *, root: Path = ROOT) -> list[Path]:
    """Write DIR/NN_topic/NN_topic.ipynb for the lessons (all by default), with solutions, not executed.

    Args: lessons: numbers, names or paths; out: DIR, the `source` folder of an nbgrader course.
    """
    written = []
    for path in lesson_files(root, lessons):
        folder = Path(out, path.stem)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{path.stem}.ipynb", serialized(source_notebook(path)))
        written.append(folder / f"{path.stem}.ipynb")
    return written


def source_notebook(path: Path):
    """A lesson's notebook with nbgrader's metadata and its solution regions."""
    cells = cells_with_ids(path)
    points = {keys(cell)["ex"]: keys(cell)["points"] for cell in cells if "points" in keys(cell)}
    for cell in cells:
        role = keys(cell).get("role")
        if role in ("answer", "check"):
            cell.metadata["nbgrader"] = {
                "schema_version": SCHEMA,
                "grade_id": cell.id,
                "solution": role == "answer",
                "grade": role == "check",
                "locked": role == "check",
                "task": False,
            }
        if role == "check":
            cell.metadata["nbgrader"]["points"] = points[keys(cell)["ex"]]
        elif role == "answer":
            cell.source = with_names(cell.source)
    return notebook(cells)


def with_names(source: str) -> str:
    """An answer with its regions, and before one at the top level `name = ...`, since nbgrader's stub only raises.

    >>> print(with_names("# BEGIN SOLUTION\\nprompts = ['one']\\n# END SOLUTION"))
    prompts = ...  # YOUR CODE HERE
    # BEGIN SOLUTION
    prompts = ['one']
    # END SOLUTION
    """
    lines = []
    for inside, part in split_regions(source):
        if inside:
            stubs = stub(part, "")
            indent = stubs[0][: len(stubs[0]) - len(stubs[0].lstrip())]
            part = [*(() if indent else stubs), f"{indent}{BEGIN}", *part, f"{indent}{END}"]
        lines += part
    return "\n".join(lines)
