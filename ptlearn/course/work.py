"""A student's own copies of the blank notebooks: made in `work/`, and brought up to date without losing a word.

The release decides which given cells there are, in which order, and what a check says. The student's are the answers,
the given cells that they wrote into, and the cells that they added: these are kept.
"""

import copy
import itertools
from pathlib import Path

from ptlearn.course.build import serialized, write
from ptlearn.course.lesson import ROOT, digest, is_changed, lesson_files, remarks

FIXED = ("check", "head", "hints")  # parts of an exercise that come from the release alone


def copy_notebooks(lessons: list[str] | None = None, *, root: Path = ROOT) -> list[str]:
    """Copy the blank notebooks of the lessons (all by default) into `work/`, or merge them into the copies there.

    Returns: a line per notebook that was written or cannot be read, and per answer whose exercise has changed. A copy
             that cannot be read stays as it is.
    """
    import nbformat

    lines = []
    for lesson in lesson_files(Path(root), lessons):
        name = f"work/{lesson.stem}.ipynb"
        released, path = nbformat.read(Path(root, "notebooks", f"{lesson.stem}.ipynb"), as_version=4), Path(root, name)
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


def merge(released, own) -> tuple:
    """The student's notebook on the cells of a release, and a line per answer whose exercise has changed.

    A given cell is found by its id, or by the key in its metadata where a tool has dropped the ids. What the student
    added stays behind the given cell that it stood behind.
    """
    known, ids = {cell.id for cell in released.cells}, {cell.get("id") for cell in own.cells}
    mine, added, place = {}, {None: []}, None
    for cell in own.cells:
        name = cell.get("id")
        key = name if name in known else remarks(cell).get("key")
        if key in known and key not in mine and (key == name or key not in ids):
            mine[key], place = cell, key
        elif is_changed(cell):  # one of the student's own, or the second part of an answer that was split
            added.setdefault(place, []).append(cell)
    used = set(known)
    cells, notes = [as_own(cell, used) for cell in added[None]], []
    for given in released.cells:
        now, below, note = joined(given, mine.get(given.id))
        cells += [now, *(as_own(cell, used) for cell in below + added.get(given.id, []))]
        notes += note
    merged = copy.deepcopy(own)
    merged.cells, merged.nbformat_minor = cells, 5  # 4.5 is the oldest form that has ids
    return merged, notes


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
