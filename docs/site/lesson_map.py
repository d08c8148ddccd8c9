"""The map of the lessons: what needs what, how long it takes, drawn from what the lessons say at their heads.

Order: what a lesson says; who stands above whom; the picture; the table; the page.
"""

import html
import re
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from ptlearn.course.lesson import lesson_files, summary

BOX = (122, 56)  # width and height of a lesson on the map
BEND = 4  # width of a line that passes a row
GAP = (16, 44)


class Lesson(NamedTuple):
    """What the head of a lesson says."""

    name: str
    number: str
    title: str
    minutes: int
    runs: str
    needs: list[str]
    wants: str
    claims: str
    exercises: int
    points: int

    @property
    def short(self) -> str:
        """The title up to its colon."""
        return self.title.partition(":")[0]


def lessons() -> list[Lesson]:
    """Every lesson, from its head."""
    return [read(path) for path in lesson_files()]


def read(path: Path) -> Lesson:
    """One lesson, from its head."""
    text = " ".join(re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).split())
    known = summary(path)
    wants = re.search(r"\*\*You will need\*\* (.+?)\.? \*\*You will be able", text)[1]
    runs = re.search(r"runs in (?:about )?(\w+ \w+)", text)[1]
    kept = {name: known[name] for name in ("number", "title", "minutes", "claims", "exercises", "points")}
    return Lesson(name=path.stem, runs=runs, needs=numbers(wants), wants=wants, **kept)


def numbers(text: str) -> list[str]:
    """The lessons that a text names.

    >>> numbers("lessons 01 to 03, 06 and 12")
    ['01', '02', '03', '06', '12']
    """
    found = []
    for first, last in re.findall(r"\b(\d\d)\b(?: to (\d\d)\b)?", text):
        found += [f"{number:02d}" for number in range(int(first), int(last or first) + 1)]
    return found


# ---------------------------------------------------------------- the picture


def direct(needs: dict[str, list[str]]) -> dict[str, list[str]]:
    """The needs of each lesson without those that another of its needs has already.

    >>> direct({"00": [], "01": ["00"], "02": ["00", "01"]})
    {'00': [], '01': ['00'], '02': ['01']}
    """

    def behind(number: str) -> set[str]:
        return {number}.union(*(behind(other) for other in needs[number]))

    return {
        number: [one for one in wanted if not any(one in behind(other) for other in wanted if other != one)]
        for number, wanted in needs.items()
    }


def rows(needs: dict[str, list[str]]) -> list[list[str]]:
    """The lessons in rows, each below everything that it needs.

    >>> rows({"00": [], "01": ["00"], "07": []})
    [['00', '07'], ['01']]
    """

    def depth(number: str) -> int:
        return 1 + max((depth(other) for other in needs[number]), default=-1)

    depths = {number: depth(number) for number in needs}
    return [[number for number in needs if depths[number] == row] for row in range(max(depths.values()) + 1)]


def bent(needs: dict[str, list[str]]) -> dict[str, list[str]]:
    """The needs with a bend, "from-to-row", in every row that a line passes: it has a place there, and crosses no box.

    >>> bent({"00": [], "01": ["00"], "02": ["01", "00"]})
    {'00': [], '01': ['00'], '02': ['01', '00-02-1'], '00-02-1': ['00']}
    """
    depth = {number: index for index, row in enumerate(rows(needs)) for number in row}
    found = {number: list(wanted) for number, wanted in needs.items()}
    for number, wanted in needs.items():
        for place, last in enumerate(wanted):
            for row in range(depth[last] + 1, depth[number]):
                bend = f"{wanted[place]}-{number}-{row}"
                found[bend], last = [last], bend
            found[number][place] = last
    return found


def width(name: str) -> int:
    """The width of a lesson, or of a bend."""
    return BEND if "-" in name else BOX[0]


def places(needs: dict[str, list[str]]) -> dict[str, tuple[float, float]]:
    """The middle of the upper edge of each lesson and bend: every row in the middle, each below what it needs."""
    found: dict[str, tuple[float, float]] = {}

    def above(name: str) -> float:
        return mean(found[other][0] for other in needs[name]) if needs[name] else 0

    laid = rows(needs)
    totals = [sum(map(width, row)) + GAP[0] * len(row) for row in laid]
    for index, row in enumerate(laid):
        x = (max(totals) - totals[index] + GAP[0]) / 2
        for name in sorted(row, key=above):
            found[name] = (x + width(name) / 2, index * (BOX[1] + GAP[1]) + 4)
            x += width(name) + GAP[0]
    return found


def picture(known: list[Lesson]) -> str:
    """The map as SVG: a box per lesson, which leads to it, and a line from each lesson to what needs it."""
    needs = bent(direct({lesson.number: lesson.needs for lesson in known}))
    place = places(needs)
    right = max(x + width(name) / 2 for name, (x, _) in place.items()) + GAP[0] / 2
    height = max(y for _, y in place.values()) + BOX[1] + 4
    lines = [line(place[other], place[name]) for name, wanted in needs.items() for other in wanted]
    lines += [f'<path d="M{x:g} {y:g} v{BOX[1]}"/>' for name, (x, y) in place.items() if "-" in name]
    boxes = [box(lesson, *place[lesson.number]) for lesson in known]
    return (
        f'<div class="map-frame"><svg class="lesson-map" viewBox="0 0 {right:g} {height:g}" role="group" '
        'aria-label="Map of the lessons; the table below says the same">\n'
        + "\n".join(lines + boxes)
        + "\n</svg></div>"
    )


def line(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve from the lower edge of one place to the upper edge of another."""
    x, y, to_x, to_y = start[0], start[1] + BOX[1], *end
    return f'<path d="M{x:g} {y:g} C{x:g} {y + 28:g} {to_x:g} {to_y - 28:g} {to_x:g} {to_y:g}"/>'


def box(lesson: Lesson, x: float, y: float) -> str:
    """A lesson on the map: number, short title in at most two lines, minutes."""
    words = wrapped(lesson.short, 19)
    texts = [(f"{lesson.number} · {lesson.minutes} min", "number"), *((text, "title") for text in words[:2])]
    shown = "".join(
        f'<text x="{x:g}" y="{y + 17 + 15 * index:g}" class="{kind}">{html.escape(text)}</text>'
        for index, (text, kind) in enumerate(texts)
    )
    rectangle = f'<rect x="{x - BOX[0] / 2:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
    return f'<a href="solutions/{lesson.name}.html">{rectangle}{shown}</a>'


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most so many characters, broken between words.

    >>> wrapped("Parameter-efficient finetuning", 19)
    ['Parameter-efficient', 'finetuning']
    """
    found = [""]
    for word in text.split():
        if found[-1] and len(found[-1]) + 1 + len(word) > width:
            found.append("")
        found[-1] = f"{found[-1]} {word}".strip()
    return found


# ---------------------------------------------------------------- the page


def table(known: list[Lesson]) -> str:
    """One row per lesson."""
    titles = ("lesson", "you will need", "study, minutes", "runs in", "exercises, points", "claims")
    head = f"| {' | '.join(titles)} |\n|---|---|---:|---:|---:|---|"
    found = [
        f"| [{one.number} {one.short}](solutions/{one.name}.ipynb) | {one.wants} | {one.minutes} | {one.runs} "
        f"| {one.exercises}, {one.points} | {linked(one.claims)} |"
        for one in known
    ]
    return "\n".join([head, *found])


def linked(claims: str) -> str:
    """Claims with links to what was measured of them.

    >>> linked("C01")
    '[C01](claims.md#c01)'
    """
    return re.sub(r"\bC\d\d\b", lambda found: f"[{found[0]}](claims.md#{found[0].lower()})", claims)


def page() -> str:
    """The map with its table, as Markdown."""
    known = lessons()
    study = sum(lesson.minutes for lesson in known)
    return f"""# Map of the lessons

A line leads from a lesson to those that need it; whatever stands higher comes first. Study minutes are for reading,
running and answering, {study // 60} hours in all; the notebook itself runs in the time that the table gives, on two CPU
cores.

{picture(known)}

{table(known)}
"""
