"""A lesson file as data: its cells, the keys in their headers, and the rules that both notebooks rely on.

A lesson is a jupytext py:percent script. Keys in the header of a cell, `# %% ex="9.1" title="Reward to go" points=2`,
make it part of an exercise: its answer (no role), its check (`role="check"`) or its hints (a markdown cell with
`role="hints"`).
"""

import ast
import hashlib
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CLONED = (REPOSITORY / "lessons").is_dir()  # else installed from a wheel, which brings lessons and notebooks along
ROOT = REPOSITORY if CLONED else Path(__file__).resolve().parents[1] / "material"
PLACE = ROOT if CLONED else Path.cwd()  # where a student's own files lie
KEYS = ("ex", "role", "title", "points", "minutes", "difficulty")
DIFFICULTIES = ("easy", "medium", "hard")
PREFIXES = {"answer": "ans", "check": "chk", "hints": "hint", "head": "head"}
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"


class LessonError(ValueError):
    """A lesson breaks a rule; the text names the file, the cell and what is expected."""


def lesson_files(root: Path = ROOT, chosen: list[str] | None = None) -> list[Path]:
    """The lesson files in order; `chosen` keeps some, given by number ("9", "09"), by name or by path."""
    if not Path(root, "lessons").is_dir():
        raise LessonError(f"no lessons here: this works in a copy of the repository, and {root} is none")
    files = sorted(path for path in Path(root, "lessons").glob("*.py") if re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem))
    if not chosen:
        return files
    known = {path.stem: path for path in files} | {path.stem[:2]: path for path in files}
    names = [Path(str(name)).stem.zfill(2) for name in chosen]
    for name in names:
        if name not in known:
            raise LessonError(f"no lesson {name!r}; there are {', '.join(path.stem for path in files) or 'none'}")
    return sorted({known[name] for name in names})


def require_clone(command: str) -> None:
    """Refuse what writes into the repository, or needs all of it, where the course is installed from a wheel."""
    if not CLONED:
        raise LessonError(f"{command}: works in a clone of the repository; this ptlearn was installed without it")


def cells_of(path: Path) -> list:
    """The cells of a lesson as notebook cells, keys in `metadata.ptlearn`, rules checked, ids not yet set."""
    import jupytext

    text = path.read_text(encoding="utf-8")
    first = re.search(r"^# %%", text, re.MULTILINE)
    if first is None:
        raise LessonError(f"{path.name}: no cell found; a cell starts with '# %%'")
    form = {"extension": ".py", "format_name": "percent", "comment_magics": False}
    cells = jupytext.reads(text[first.start() :], fmt=form).cells
    cells = [cell for cell in cells if cell.source.strip()]
    for cell in cells:
        require_known_keys(cell, path)
        cell.metadata = keys_of(cell)
        require_plain_python(cell, path)
    require_exercises(cells, path)
    return cells


def keys_of(cell) -> dict:
    """The metadata of a cell: its tags, and under `ptlearn` the keys of its header."""
    found = {name: cell.metadata[name] for name in KEYS if name in cell.metadata}
    if "ex" in found:
        found = {"role": "answer"} | found | {"ex": str(found["ex"])}
    tags = list(cell.metadata.get("tags", []))
    if found.get("role") == "check":
        tags.append("nbval-check-output")  # the one line of a check is compared, in lax mode too
    return {"ptlearn": found} | ({"tags": tags} if tags else {})


def keys(cell) -> dict:
    """The keys of a cell's header."""
    return cell.metadata["ptlearn"]


def remarks(cell) -> dict:
    """The keys of a cell of any notebook; none where a student added it, or a tool dropped them."""
    return cell.metadata.get("ptlearn", {})


def digest(source: str) -> str:
    """A short name for a text."""
    return hashlib.sha1(source.encode()).hexdigest()[:8]


def is_changed(cell) -> bool:
    """Whether a cell is not as it was handed out; a part of an exercise says how that was, any other one's key does."""
    given = remarks(cell).get("digest") or remarks(cell).get("key", "").partition("-")[2]
    return digest(cell.source) != given.partition("-")[0]


def require_known_keys(cell, path: Path) -> None:
    """Refuse a misspelt key, and a part of an exercise that does not say of which: its solution would be handed out."""
    unknown = {name for name in cell.metadata if not name.startswith("lines_to_")} - {*KEYS, "tags"}
    if unknown:
        raise LessonError(f"{path.name}: unknown key {sorted(unknown)[0]!r}; the keys are {', '.join(KEYS)}, tags")
    marked = any(marker in cell.source for marker in (BEGIN, END))
    if (marked or set(cell.metadata) & set(KEYS)) and "ex" not in cell.metadata:
        raise LessonError(f"{path.name}: a cell of an exercise has no key ex: {cell.source.splitlines()[0]!r}")
    if marked and "role" in cell.metadata:
        raise LessonError(f"{path.name}: a solution outside an answer cell: {cell.source.splitlines()[0]!r}")


def require_plain_python(cell, path: Path) -> None:
    """Refuse code that a script would not run: magics, shell lines, syntax errors."""
    if cell.cell_type != "code":
        return
    try:
        ast.parse(cell.source)
    except SyntaxError as error:
        raise LessonError(f"{path.name}: {error.msg} in {(error.text or '').strip()!r}") from None
    magic = re.search(r"^# ?%(?!%).*$", cell.source, re.MULTILINE)
    if magic:
        raise LessonError(f"{path.name}: {magic.group()!r} is a magic, which a script does not run")


def require_exercises(cells: list, path: Path) -> None:
    """Every exercise has one answer with its keys, one check of the same name after it, and two folded hints."""
    numbers = dict.fromkeys(keys(cell)["ex"] for cell in cells if "ex" in keys(cell))
    for number in numbers:
        where = f"{path.name}: exercise {number}"
        if not re.fullmatch(rf"{int(path.stem[:2])}\.\d+", number):
            raise LessonError(f"{where}: a number of this lesson starts with '{int(path.stem[:2])}.'")
        parts = [cell for cell in cells if keys(cell).get("ex") == number]
        roles = [keys(cell)["role"] for cell in parts]
        if sorted(roles) != ["answer", "check", "hints"] or roles.index("answer") > roles.index("check"):
            raise LessonError(f"{where}: one answer, then one check, and one cell of hints, not {roles}")
        answer, check, hints = (parts[roles.index(role)] for role in ("answer", "check", "hints"))
        require_answer(answer, where)
        require_check(answer, check, number, where)
        if hints.source.count("<details>") != 2 or hints.source.count("</details>") != 2:
            raise LessonError(f"{where}: two folded hints, each in <details>")


def require_answer(cell, where: str) -> None:
    """The answer cell has its keys, a solution region, and nothing outside that a blank one would trip over."""
    found = keys(cell)
    if not (isinstance(found.get("points"), int) and isinstance(found.get("minutes"), int)):
        raise LessonError(f"{where}: the answer cell needs whole numbers of points and minutes")
    if found.get("difficulty") not in DIFFICULTIES:
        raise LessonError(f"{where}: difficulty is one of {', '.join(DIFFICULTIES)}, not {found.get('difficulty')!r}")
    if not solution_lines(cell.source, where):
        raise LessonError(f"{where}: the answer cell has no lines between {BEGIN!r} and {END!r}")
    for node in ast.parse(blanked(cell.source, where)).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            raise LessonError(f"{where}: move {ast.unparse(node)!r} behind the check: a blank answer fails there")


def require_check(answer, check, number: str, where: str) -> None:
    """The check reads `name = check("9.1", name)`, so that a blank notebook goes on with the package's."""
    form = re.match(rf"(\w+) = check\(\"{re.escape(number)}\", (\w+)\)", check.source)
    if form is None or form[1] != form[2] or form[1] not in names_set(ast.parse(answer.source)):
        raise LessonError(f'{where}: the check reads `name = check("{number}", name)`, with a name of the answer cell')


def names_set(tree: ast.AST) -> list[str]:
    """The names that the top level of some code defines or assigns."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found += [leaf.id for target in targets if target for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
    return found


def split_regions(source: str, where: str = "cell") -> list[tuple[bool, list[str]]]:
    """The lines of a cell in order, as pairs of (inside a solution region, lines), without the markers."""
    parts: list[tuple[bool, list[str]]] = [(False, [])]
    for line in source.split("\n"):
        if line.strip() in (BEGIN, END):
            inside = line.strip() == BEGIN
            if parts[-1][0] == inside:
                raise LessonError(f"{where}: {line.strip()!r} does not pair with the marker before it")
            parts.append((inside, []))
        else:
            parts[-1][1].append(line)
    if parts[-1][0]:
        raise LessonError(f"{where}: {BEGIN!r} without {END!r}")
    return parts


def solution_lines(source: str, where: str = "cell") -> list[str]:
    """The lines inside the solution regions of a cell."""
    return [line for inside, lines in split_regions(source, where) if inside for line in lines]


def solved(source: str, where: str = "cell") -> str:
    """The cell with its solution, without markers."""
    return "\n".join(line for _, lines in split_regions(source, where) for line in lines)


def blanked(source: str, where: str = "cell") -> str:
    """The cell as handed out: every region becomes a stub."""
    lines = [line for inside, part in split_regions(source, where) for line in (stub(part, where) if inside else part)]
    blank = "\n".join(lines)
    try:
        ast.parse(blank)
    except SyntaxError:
        raise LessonError(f"{where}: put the solution region around whole statements") from None
    return blank


def stub(lines: list[str], where: str) -> list[str]:
    """What stands for a region: `name = ...` for names of the top level, else a line that says it is not done.

    >>> stub(["    total = 1", "    return total"], "")
    ['    # YOUR CODE HERE', '    raise NotImplementedError']
    >>> stub(["prompts = ['one']"], "")
    ['prompts = ...  # YOUR CODE HERE']
    """
    code = [line for line in lines if line.strip()]
    if not code:
        raise LessonError(f"{where}: an empty solution region")
    indent = code[0][: len(code[0]) - len(code[0].lstrip())]
    if indent:
        return [f"{indent}# YOUR CODE HERE", f"{indent}raise NotImplementedError"]
    try:
        names = dict.fromkeys(names_set(ast.parse("\n".join(lines))))
    except SyntaxError:
        raise LessonError(f"{where}: put the solution region around whole statements") from None
    return [f"{name} = ...  # YOUR CODE HERE" for name in names] or ["# YOUR CODE HERE"]


def summary(path: Path) -> dict:
    """Number, title, minutes, claims, exercises and points of a lesson, from its first markdown cell and its keys."""
    text = path.read_text(encoding="utf-8")
    opening = re.split(r"^# %%.*$", text, flags=re.MULTILINE)[1] if "# %%" in text else ""
    title = re.search(r"^# # (?:\d+ · )?(.+)$", opening, re.MULTILINE)
    minutes = re.search(r"[Aa]bout (\d+) minutes", opening)
    points = [int(found) for found in re.findall(r"^# %%.*\bpoints=(\d+)", text, re.MULTILINE)]
    return {
        "number": path.stem[:2],
        "title": title[1].strip() if title else path.stem,
        "minutes": int(minutes[1]) if minutes else "",
        "claims": ", ".join(dict.fromkeys(re.findall(r"\bC\d\d(?:[–-]C\d\d)?", opening))),
        "exercises": len(points),
        "points": sum(points),
    }
