"""A student's own copies of the blank notebooks: made in `work/`, and brought up to date without losing a word.

The release decides which given cells there are, in which order, and what a check says. The student's are the answers,
the given cells that they wrote into, and the cells that they added: these are kept.
"""

import copy
import itertools
import re
from pathlib import Path

from ptlearn.course.build import serialized, write
from ptlearn.course.lesson import PLACE, ROOT, digest, is_changed, lesson_files, remarks

FIXED = ("check", "head", "hints")  # parts of an exercise that come from the release alone


def copy_notebooks(lessons: list[str] | None = None, *, root: Path = ROOT) -> list[str]:
    """Copy the blank notebooks of the lessons (all by default) into `work/`, or merge them into the copies there.

    Args:    root: where the release is, and `work/` beside it; one that is installed makes it where you are, and puts
             the pages that notebooks link to into `docs/` beside it.
    Returns: a line per notebook that was written or cannot be read, and per answer whose exercise has changed. A copy
             that cannot be read stays as it is.
    """
    import nbformat

    place = PLACE if Path(root) == ROOT else Path(root)
    lines = copy_pages(Path(root, "docs"), Path(place, "docs")) if place != Path(root) else []
    for lesson in lesson_files(Path(root), lessons):
        name = f"work/{lesson.stem}.ipynb"
        released, path = nbformat.read(Path(root, "notebooks", f"{lesson.stem}.ipynb"), as_version=4), Path(place, name)
        if not path.exists():
            write(path, serialized(released))
            lines.append(f"{name}: new")
            continue
        try:
            own = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
            before = serialized(own)
            merged, notes = merge(released, own)
        except Exception as error:  # whatever stands in the file, it is the student's
            lines.append(f"{name}: left as it is, not a notebook ({' '.join(str(error).split())[:60]})")
            continue
        if serialized(merged) != before:
            write(path, serialized(merged))
            lines.append(f"{name}: brought up to date; what you wrote is kept")
        lines += [f"{name}: {note}" for note in notes]
    return lines


def copy_pages(released: Path, place: Path) -> list[str]:
    """Put the pages that notebooks link to beside `work/`, and return a line if one was new or has changed, and one for
    each file of the same name that is not ours, known by its first line: it stays as it is.

    A wheel has no solutions: where a page leads to one, it leads to the copy in `work/`.
    """
    new, lines = False, []
    for page in sorted(released.rglob("*.*")):
        text = page.read_text(encoding="utf-8").replace("](../solutions/", "](../work/")
        path = Path(place, page.relative_to(released))
        there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
        if there is not None and there.splitlines()[:1] != text.splitlines()[:1]:
            lines.append(f"docs/{page.relative_to(released)}: left as it is, not a page of the course")
        elif there != text:
            write(path, text)
            new = True
    return ["docs/: the pages that the notebooks link to"] * new + lines


def merge(released, own) -> tuple:
    """The student's notebook on the cells of a release, and a line per answer whose exercise has changed.

    What the student added stays behind the given cell that it stood behind.
    """
    mine, added = matched(released, own)
    used = {cell.id for cell in released.cells}
    cells, notes = [as_own(cell, used) for cell in added[None]], []
    for given in released.cells:
        now, below, note = joined(given, mine.get(given.id))
        cells += [now, *(as_own(cell, used) for cell in below + added.get(given.id, []))]
        notes += note
    merged = copy.deepcopy(own)
    merged.cells, merged.nbformat_minor = cells, 5  # 4.5 is the oldest form that has ids
    return merged, notes


def matched(released, own) -> tuple[dict, dict]:
    """Which of the student's cells is which given one, {id: cell}; and the others by the id they stand behind, or None.

    Of the others, those that an earlier release handed out and nobody changed are left out.
    """
    mine, added, place = {}, {None: []}, None
    for cell, name in zip(own.cells, identities(released, own)):
        if name is not None:
            mine[name], place = cell, name
        elif is_changed(cell):  # one of the student's own, or the second part of an answer that was split
            added.setdefault(place, []).append(cell)
    return mine, added


def identities(released, own) -> list[str | None]:
    """The given cell that each cell of the student's is, or None.

    It is found by its id, by the key in its metadata where a tool has dropped the ids, by its text where both are gone,
    and an answer by the name that it defines. The first that fits is the one.
    """
    known, ids = {cell.id for cell in released.cells}, {cell.get("id") for cell in own.cells}
    defined = definitions(released)

    def by_id(cell):
        return [cell.get("id")]

    def by_key(cell):
        return [key for key in [remarks(cell).get("key")] if key not in ids]

    def by_text(cell):
        return [given.id for given in released.cells if given.source.strip() == cell.source.strip()]

    def by_name(cell):
        return [key for key, form in defined.items() if cell.cell_type == "code" and form.search(cell.source)]

    found: list[str | None] = [None] * len(own.cells)
    for candidates in (by_id, by_key, by_text, by_name):
        for place, cell in enumerate(own.cells):
            if found[place] is None:
                found[place] = next((key for key in candidates(cell) if key in known and key not in found), None)
    return found


def definitions(released) -> dict[str, re.Pattern]:
    """{id of an answer cell: what the definition of the name that its check asks for looks like}."""
    answers = {remarks(cell)["ex"]: cell.id for cell in released.cells if remarks(cell).get("role") == "answer"}
    return {
        answers[remarks(cell)["ex"]]: re.compile(
            rf"^(?:(?:def|class)\s+{name}\b|{name}\s*=(?!=|\s*check\())", re.MULTILINE
        )
        for cell in released.cells
        if remarks(cell).get("role") == "check"
        for name in [checked_name(cell.source)]
    }


def checked_name(source: str) -> str:
    """The name that a check cell judges.

    >>> checked_name('double = check("99.1", double)')
    'double'
    """
    return source.partition(" =")[0].strip()


def joined(given, cell) -> tuple:
    """A given cell with what the student made of it: the cell, what is kept below it, and what there is to say."""
    if cell is None or not cell.source.strip():
        return given, [], []
    changed, about = is_changed(cell), remarks(given)
    if about.get("role") in FIXED and cell.source != given.source:
        return given, [cell] if changed else [], []
    if cell.source != given.source and not changed:
        return given, [], []
    kept = copy.deepcopy(cell)
    kept.id = given.id
    kept.metadata.update(given.metadata)
    if cell.source == given.source or remarks(cell).get("digest") == about.get("digest"):
        return kept, [], []
    return kept, [], [f"exercise {about['ex']} has changed: your answer is kept, the new text is in notebooks/"]


def as_own(cell, used: set[str]):
    """A cell that is the student's alone: without keys of the course, and with an id that no other cell has."""
    cell = copy.deepcopy(cell)
    cell.metadata.pop("ptlearn", None)
    names = itertools.chain([cell.get("id")], (f"own-{digest(cell.source)}-r{count}" for count in itertools.count(1)))
    cell.id = next(name for name in names if name and name not in used)
    used.add(cell.id)
    return cell
