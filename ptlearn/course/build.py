"""From a lesson to its two notebooks: `notebooks/` with blank exercises, `solutions/` executed.

The same lesson gives the same bytes for the blank notebook, always. The executed one is refused when it holds
something that a reader cannot use (a warning, a widget, a figure without words) or that belongs to one machine (a path,
an address).
"""

import copy
import json
import os
import re
import tempfile
from pathlib import Path

from ptlearn.course.claims import linked
from ptlearn.course.lesson import (
    PREFIXES,
    ROOT,
    LessonError,
    blanked,
    cells_of,
    digest,
    is_changed,
    keys,
    lesson_files,
    remarks,
    solved,
)
from ptlearn.course.outputs import outputs, problems_of, size_problems, tidy
from ptlearn.course.session import progress

THREADS = 2  # fixed, since sums depend on how they are split
CELL_SECONDS = 900  # a lesson takes 90 s; this stops a cell that hangs

COLAB = """\
#@title On Colab this installs the course, beside Colab's torch and numpy; elsewhere nothing.
import importlib.util
import pathlib
import subprocess
import sys
from importlib.metadata import version

course = {address!r}  #@param {{type:"string"}}
if "google.colab" in sys.modules and importlib.util.find_spec("ptlearn") is None:
    if course:
        kept = pathlib.Path("kept.txt")
        kept.write_text("".join(f"{{name}}=={{version(name)}}\\n" for name in ("torch", "numpy")))
        install = [sys.executable, "-m", "pip", "install", "-q", "-c", str(kept)]
        subprocess.run([*install, course], check=True)
    else:
        print("Write git+ and the address of the course's repository above, and run it again.")"""


def build(
    lessons: list[str] | None = None,
    *,
    check: bool = False,
    execute: bool = True,
    force: bool = False,
    root: Path = ROOT,
) -> list[str]:
    """Make the notebooks of the lessons (all by default), or with `check` say what is not up to date.

    Args:    lessons: numbers, names or paths; check: write nothing; execute: also run the solutions; force: overwrite
             blank notebooks that hold answers.
    Returns: the notebooks written, and a line for a solution whose model is not here; or with `check` one line per
             notebook that is not what its lesson gives.
    Raises:  LessonError naming the lesson and what is wrong with it or with what it shows, or the answers in the way.
    """
    root = Path(root)
    found = []
    paths = lesson_files(root, lessons)
    if not (check or force):
        require_no_answers(root, [path.stem for path in paths])
    for path in progress(paths, "lessons"):
        blank, full = notebooks_of(path)
        blank_path, full_path = (root / folder / f"{path.stem}.ipynb" for folder in ("notebooks", "solutions"))
        if check:
            found += differing(blank, blank_path, full, full_path, root)
            continue
        write(blank_path, serialized(blank))
        found.append(str(blank_path.relative_to(root)))
        if execute and (absent := absent_model(path)):
            found.append(f"{full_path.relative_to(root)} stays as it is: {absent}")
        elif execute:
            write(full_path, serialized(executed(full, path.name)))
            found.append(str(full_path.relative_to(root)))
    return found + (orphans(root) if check and not lessons else [])


def absent_model(path: Path) -> str:
    """How to get the model that a lesson is about, where it is a real one and not on this machine; else ""."""
    from ptlearn.lm.real_model import REAL_MODELS, real_folder

    named = re.search(r'\bmodel=\("([^"]+)"', path.read_text(encoding="utf-8"))
    try:
        if named and named[1] in REAL_MODELS:
            real_folder(named[1])
    except FileNotFoundError as missing:
        return str(missing)
    return ""


def require_no_answers(root: Path, names: list[str]) -> None:
    """Refuse to overwrite a blank notebook that somebody has written into, be it an answer or a cell of their own."""
    import nbformat

    for name in names:
        path = root / "notebooks" / f"{name}.ipynb"
        cells = nbformat.read(path, as_version=4).cells if path.exists() else []
        changed = [str(remarks(cell).get("ex", f"cell {cell.get('id')}")) for cell in cells if is_changed(cell)]
        if changed:
            raise LessonError(
                f"notebooks/{name}.ipynb has been written into ({', '.join(changed)}): move it to work/{name}.ipynb, "
                "or overwrite it with --force"
            )


def notebooks_of(path: Path) -> tuple:
    """The blank and the full notebook of a lesson, neither executed, with the same ids."""
    cells = cells_with_ids(path)
    return tuple(notebook([changed(cell, change, path) for cell in cells]) for change in (blanked, solved))


def cells_with_ids(path: Path) -> list:
    """The cells of a lesson's notebooks in order, claims linked, answers still with their solution regions."""
    import nbformat

    cells = []
    for cell in cells_of(path):
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source)
        if keys(cell).get("role") == "answer":
            cells.append(header(cell))
        cells.append(cell)
    hidden = {"ptlearn": {"role": "colab"}, "cellView": "form", "jupyter": {"source_hidden": True}}
    cells.insert(1, nbformat.v4.new_code_cell(COLAB.format(address=course_address()), metadata=hidden))
    identify(cells)
    return cells


def course_address() -> str:
    """Where Colab installs the course from: the Repository of [project.urls] in pyproject.toml, if it is set."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project.get("urls", {}).get("Repository", "")
    return repository and f"git+{repository}"


def header(answer):
    """The line of an exercise that a student sees above the answer cell."""
    import nbformat

    found = keys(answer)
    minutes, points = (f"{found[name]} {name if found[name] != 1 else name[:-1]}" for name in ("minutes", "points"))
    title = f"#### Exercise {found['ex']}: {found['title']}\n" if "title" in found else f"**Exercise {found['ex']}** · "
    line = f"{title}{found['difficulty']} · about {minutes} · {points}"
    return nbformat.v4.new_markdown_cell(line, metadata={"ptlearn": {"ex": found["ex"], "role": "head"}})


def identify(cells: list) -> None:
    """Give every cell an id that only its own content decides, and repeat it in the metadata."""
    seen: dict[str, int] = {}
    for cell in cells:
        found = keys(cell)
        if "ex" in found:
            key = f"{PREFIXES[found['role']]}-{found['ex'].replace('.', '-')}"
            found["digest"] = digest(blanked(cell.source) if found["role"] == "answer" else cell.source)
        else:
            key = f"{'md' if cell.cell_type == 'markdown' else cell.cell_type}-{digest(cell.source)}"
        seen[key] = seen.get(key, 0) + 1
        cell.id = key if seen[key] == 1 else f"{key}-r{seen[key]}"
        found["key"] = cell.id


def changed(cell, change, path: Path):
    """A copy of a cell, its solution regions changed."""
    cell = copy.deepcopy(cell)
    if keys(cell).get("role") == "answer":
        cell.source = change(cell.source, f"{path.name}: exercise {keys(cell)['ex']}")
    return cell


def notebook(cells: list):
    """A notebook of the oldest format that has ids, with as little metadata as tools accept."""
    import nbformat

    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    made = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    made.nbformat_minor = 5
    nbformat.validate(made)
    return made


def serialized(made) -> str:
    """The bytes of a notebook, as text: keys sorted, sources as lists of lines."""
    from nbformat.v4.rwbase import split_lines

    return json.dumps(split_lines(copy.deepcopy(made)), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def executed(full, name: str):
    """Run a notebook in an empty folder and return it with outputs fit to publish."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        client = NotebookClient(full, timeout=CELL_SECONDS, record_timing=False, coalesce_streams=True, resources=place)
        client.extra_arguments = ["--IPKernelApp.log_level=40"]  # errors only: it warns of its own way to connect
        try:
            client.execute(env=environment(folder))
        except CellExecutionError as error:
            cell = next(cell for cell in full.cells if any(output.output_type == "error" for output in outputs(cell)))
            raise LessonError(f"{name}: cell {cell.id} fails: {error.ename}: {error.evalue}") from None
        except (CellTimeoutError, DeadKernelError) as error:
            raise LessonError(f"{name}: {str(error).strip().splitlines()[0]}") from None
    full.metadata.language_info = {"name": "python"}
    full.metadata.pop("widgets", None)
    for cell in full.cells:
        tidy(cell)
    problems = [problem for cell in full.cells for problem in problems_of(cell)] + size_problems(full)
    if problems:
        raise LessonError(f"{name}: {'; '.join(problems)}")
    return full


def environment(folder: str) -> dict[str, str]:
    """The environment of the kernel: fixed hashes and threads, no network for models, no bars, no personal start-up."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(THREADS),
        "MKL_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "PTLEARN_QUIET": "1",
        "IPYTHONDIR": folder,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }


def differing(blank, blank_path: Path, full, full_path: Path, root: Path) -> list[str]:
    """Which of a lesson's notebooks are missing or not what the lesson gives; outputs are not compared."""
    found = []
    if not blank_path.exists() or blank_path.read_text(encoding="utf-8") != serialized(blank):
        found.append(f"{blank_path.relative_to(root)} is not what its lesson gives")
    if not full_path.exists() or contents(json.loads(full_path.read_text(encoding="utf-8"))) != contents(full):
        found.append(f"{full_path.relative_to(root)} is not what its lesson gives")
    return found


def contents(made: dict) -> list[tuple]:
    """The cells of a notebook without outputs."""
    return [(cell["cell_type"], cell["id"], "".join(cell["source"]), dict(cell["metadata"])) for cell in made["cells"]]


def orphans(root: Path) -> list[str]:
    """Notebooks whose lesson is gone."""
    known = {path.stem for path in lesson_files(root)}
    paths = [path for folder in ("notebooks", "solutions") for path in sorted(Path(root, folder).glob("*.ipynb"))]
    return [f"{path.relative_to(root)} has no lesson" for path in paths if path.stem not in known]
