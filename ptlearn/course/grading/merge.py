"""A submission on the cells of its release: what is graded, and what `--merge-only` writes.

Given cells, check cells, their order and their stored outputs are the release's. A student's code enters through answer
cells, through cells of their own, and through statements that they added to a given cell, each where it stood.
"""

import ast
import copy
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

from ptlearn.course.lesson import ROOT, digest, remarks
from ptlearn.course.work import matched

LARGEST = 64 << 20  # bytes of a notebook
OBEYED = ("NBVAL", "PYTEST_VALIDATE")  # how the comments begin that make nbval skip a cell or ignore its output
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
UNUSUAL = re.compile(
    r"\b(?:ptlearn\.course\.(?:checks|exercise|grading)(?! import check$)|EXERCISES|_getframe|currentframe|f_back"
    r"|f_locals|gc|ctypes|inspect|subprocess|socket|os\._exit|os\.fork|os\.kill|input_transformers?_\w+|__class__|builtins)\b",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Release:
    """A lesson as it was handed out.

    Args: stem, "09_baselines"; blank and full, its notebooks, where full has the stored outputs; checks, the folder
          with its exercises, None for the installed one; digest, of all that decides marks.
    """

    stem: str
    blank: dict
    full: dict
    checks: Path | None
    digest: str

    @property
    def lesson(self) -> int:
        """Its number."""
        return int(self.stem[:2])


@dataclass(frozen=True)
class Merged:
    """A submission on its release.

    Args: notebook, to run and to read; cells, its code for the points: kind ("given", "answer", "check", "own" or
          "edited"), exercise and source; answers, {exercise: the student's source}, without those that are missing;
          untouched, the exercises whose stub is as it was; flags, what an instructor may want to look at.
    """

    notebook: dict
    cells: tuple[dict, ...]
    answers: dict[str, str]
    untouched: frozenset[str]
    flags: tuple[str, ...]


@functools.lru_cache
def load_release(lesson: int, folder: Path = ROOT) -> Release:
    """The release of a lesson in a copy of the repository.

    Raises: FileNotFoundError where it has no such lesson.
    """
    found = sorted(Path(folder, "notebooks").glob(f"{lesson:02d}_*.ipynb"))
    if not found:
        raise FileNotFoundError(f"release: no notebook of lesson {lesson:02d} in {Path(folder, 'notebooks')}")
    blank = read_notebook(found[0].read_bytes())
    executed = Path(folder, "solutions", found[0].name)
    full = read_notebook(executed.read_bytes()) if executed.exists() else blank
    checks = Path(folder, "ptlearn", "course", "checks")
    sources = sorted(Path(__file__).parents[1].glob("*.py")) + sorted(checks.glob(f"{lesson:02d}_*.py"))
    text = found[0].read_text(encoding="utf-8") + "".join(path.read_text(encoding="utf-8") for path in sources)
    own = checks if checks.is_dir() and folder != ROOT else None
    return Release(found[0].stem, blank, full, own, digest(text))


def read_notebook(data: bytes):
    """A notebook of format 4 from its bytes, whatever tool has written it.

    Raises: ValueError, one line, where it is none.
    """
    if len(data) > LARGEST:
        raise ValueError(f"not graded: {len(data):,} bytes, at most {LARGEST:,}")
    try:
        made = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a notebook: {' '.join(str(error).split())[:80]}") from None
    if not isinstance(made, dict) or not isinstance(made.get("cells"), list):
        old = isinstance(made, dict) and "worksheets" in made
        raise ValueError("of notebook format 3: save it in today's Jupyter" if old else "not a notebook: no cells")
    cells = [plain_cell(cell) for cell in made["cells"]]
    return nbformat.from_dict({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def plain_cell(cell) -> dict:
    """What counts of a cell: its type, its id, its source with line feeds, the course's remarks, and its outputs."""
    source = cell.get("source", "") if isinstance(cell, dict) else None
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        raise ValueError("not a notebook: a cell without a type or a source")
    metadata = cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
    kept = {"ptlearn": metadata["ptlearn"]} if isinstance(metadata.get("ptlearn"), dict) else {}
    if isinstance(metadata.get("tags"), list):
        kept["tags"] = metadata["tags"]
    made = {"cell_type": cell["cell_type"], "metadata": kept, "source": source.replace("\r\n", "\n")}
    made |= {"id": cell["id"]} if isinstance(cell.get("id"), str) else {}
    if made["cell_type"] == "code":
        outputs = cell["outputs"] if isinstance(cell.get("outputs"), list) else []
        made |= {"outputs": outputs, "execution_count": cell.get("execution_count")}
    return made


def lesson_of(own) -> int:
    """The number of the lesson that a notebook belongs to: the exercise that most of its cells name.

    Raises: ValueError where no cell names any.
    """
    named = []
    for cell in own.cells:
        number = remarks(cell).get("ex") or re.sub(r"^(?:ans|chk)-(\d+)-(\d+)$", r"\1.\2", cell.get("id", ""))
        named += re.findall(r"^(\d\d?)\.\d+$", str(number)) or re.findall(r'check\("(\d\d?)\.\d+"', cell.source)
    if not named:
        raise ValueError("not a notebook of this course: no cell belongs to an exercise")
    return int(max(named, key=named.count))


def require_same_release(release: Release, own) -> None:
    """Refuse a submission whose exercises were handed out otherwise than the release has them.

    Raises: ValueError naming the first such exercise, and both versions of it.
    """
    answers = {remarks(cell)["ex"]: cell for cell in release.blank.cells if remarks(cell).get("role") == "answer"}
    for cell in own.cells:
        about = remarks(cell)
        number, theirs = about.get("ex"), about.get("digest")
        if about.get("role") == "answer" and theirs:
            ours = remarks(answers[number])["digest"] if number in answers else "no such exercise"
            if ours != theirs:
                raise ValueError(
                    f"another release of {release.stem}: exercise {number} was handed out as {theirs}, "
                    f"here it is {ours}; name its release with --release"
                )


def merge(release: Release, own) -> Merged:
    """Put a submission on the cells of its release."""
    mine, added = matched(release.blank, own)
    stubs = {cell.id: cell for cell in release.blank.cells}
    made, answers, untouched, flags = [students(cell, "own") for cell in added[None]], {}, set(), []
    for given in release.full.cells:
        about, cell = remarks(given), mine.get(given.id)
        number, role = about.get("ex"), about.get("role")
        changed = cell is not None and cell.source.strip() != stubs[given.id].source.strip()
        if role == "answer":
            made.append(answered(given, (stubs[given.id] if cell is None else cell).source))
            answers |= {} if cell is None else {number: made[-1].source}
            untouched |= set() if changed else {number}
            flags += [f"answer {number} is a {cell.cell_type} cell"] if changed and cell.cell_type != "code" else []
        else:
            made += [copy.deepcopy(given), *(changes(given, cell) if changed else [])]
        if role == "check" and (cell is None or changed):
            flags.append(f"check {number} was {'deleted' if cell is None else 'edited'}")
        made += [students(extra, "own") for extra in added.get(given.id, [])]
    for place, cell in enumerate(made):
        if remarks(cell).get("role") in ("own", "edited"):
            cell.id = f"own-{place}"
    notebook = nbformat.from_dict({"cells": made, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5})
    return Merged(notebook, code_of(made), answers, frozenset(untouched), (*flags, *suspicions(made)))


def answered(given, source: str):
    """An answer cell of the release with another source, not yet run."""
    cell = copy.deepcopy(given)
    cell.source, cell.outputs, cell.execution_count = neutral(source), [], None
    return cell


def students(cell, role: str, source: str | None = None):
    """A cell that the release does not have: its text, and nothing else of it."""
    text = neutral(cell.source if source is None else source)
    return getattr(nbformat.v4, f"new_{cell.cell_type}_cell")(text, metadata={"ptlearn": {"role": role}})


def changes(given, cell) -> list:
    """What a student made of a given cell, as a cell below it: new statements of its code, or else its text."""
    if given.cell_type != "code" or cell.cell_type != "code":
        return [students(cell, "edited")] if cell.source.strip() else []
    try:
        known = {ast.dump(statement) for statement in ast.parse(given.source).body}
        new = [statement for statement in ast.parse(cell.source).body if ast.dump(statement) not in known]
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a magic, or no Python at all
        return [students(cell, "edited")]
    text = "\n".join(ast.get_source_segment(cell.source, statement) for statement in new)
    return [students(cell, "edited", text)] if text else []


def neutral(source: str) -> str:
    """A student's text without the comments that nbval obeys; it looks for them in lines as `splitlines` cuts them.

    >>> neutral("x = 1\\n# NBVAL_SKIP")
    'x = 1\\n# off: NBVAL_SKIP'
    """

    def obeyed(line):
        return line.strip().startswith("#") and line.strip().lstrip("#").strip().startswith(OBEYED)

    return "".join(
        line.replace("#", "# off:", 1) if obeyed(line) else line for line in source.splitlines(keepends=True)
    )


def code_of(cells: list) -> tuple[dict, ...]:
    """The code of a merged notebook, cell by cell, as the process that makes the points needs it."""
    found = []
    for cell in cells:
        about = remarks(cell)
        if cell.cell_type == "code" and about.get("role") != "colab":
            found.append({"kind": about.get("role", "given"), "exercise": about.get("ex"), "source": cell.source})
    return tuple(found)


def suspicions(cells: list) -> list[str]:
    """Where a student's code has words that no answer needs; a person has to look at it."""
    found = []
    for cell in cells:
        about = remarks(cell)
        words = sorted(set(UNUSUAL.findall(cell.source))) if about.get("role") in ("answer", "own", "edited") else []
        if words and cell.cell_type == "code":
            place = f"answer {about['ex']}" if "ex" in about else "a cell of their own"
            found.append(f"{place} uses {', '.join(words)}")
    return list(dict.fromkeys(found))
