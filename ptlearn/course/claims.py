"""What the lecture claims, and what the lessons measured of it: `docs/claims.md`, made from what they printed.

The list is `claims.toml`; a number is never written there, only where it stands.
Order: claims, measured, report, linked.
"""

import operator
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ptlearn.course.lesson import ROOT, LessonError
from ptlearn.course.outputs import outputs

REAL = "14"  # the lesson whose last table is about a real model
PAGE = "docs/claims.md"
NUMBER = r"[-+−]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?"
MENTION = re.compile(r"\bC\d\d\b")
VERDICTS = ("holds", "holds with a caveat", "does not hold here")


class Measured(NamedTuple):
    """One number or several, as they were printed, and the cell that printed them."""

    value: str
    what: str
    over: str
    lesson: str
    section: str
    holds: bool


@cache
def claims() -> dict[str, dict]:
    """Each claim by its number: what it says, the verdict, a caveat if any, rows to read, lines of the real model.

    >>> claims()["C32"]["says"]
    'The mean of V over start states is the objective.'
    """
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- what the lessons printed


def printed(path: Path) -> list[tuple[str, str]]:
    """The section and the text of each cell of an executed notebook that printed something."""
    import nbformat

    found, section = [], ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            section = ([section] + re.findall(r"^#{1,3} (.+)$", cell.source, re.MULTILINE))[-1]
        text = "".join(output.get("text", "") for output in outputs(cell))
        found += [(section, text)] if text else []
    return found


def measured(row: dict, cells: list[tuple[str, str]]) -> Measured:
    """What a row of the list finds in a lesson's cells.

    Raises: LessonError if no cell has printed such a thing.
    """
    for section, text in cells:
        if found := re.search(row["find"], text):
            value, n = re.fullmatch(r"(.*?)(?: *\((n=[\d,]+)\))?", joined(found.groups())).groups()
            over = row.get("over") or n or ""
            if not over:
                raise LessonError(
                    f"claims.toml, {row['what']!r}: over how many it was measured is neither said nor printed"
                )
            return Measured(value, row["what"], over, row["lesson"], section, meets(numbers(value), row["needs"]))
    raise LessonError(f"claims.toml, {row['what']!r}: lesson {row['lesson']} printed nothing like {row['find']!r}")


def joined(parts: tuple[str, ...]) -> str:
    """Several numbers in a row, an interval beside its number.

    >>> joined(("0.4", "[0.3, 0.5]")), joined(("1", "2"))
    ('0.4 [0.3, 0.5]', '1, 2')
    """
    return ", ".join(parts).replace(", [", " [")


def real_lines(labels: list[str], cells: list[tuple[str, str]]) -> list[str]:
    """The lines of lesson 14's last table about the real model, by what they compare."""
    table = cells[-1][1].split("\n")
    found = []
    for label in labels:
        place = next((n for n, line in enumerate(table) if re.sub(r"^C\d\d", "", line).strip() == label), None)
        if place is None:
            raise LessonError(f"claims.toml: lesson {REAL}'s last table has no line {label!r}")
        _, this, against, holds = re.split(r"  +|(?<=\)) ", table[place + 2].strip(), maxsplit=3)
        found.append(f"{label}: {this} against {against}: {holds}")
    return found


def numbers(text: str) -> list[float]:
    """All numbers of a text; x ± e stands for x, x − e and x + e.

    >>> numbers("0.43 [0.40, 0.46]"), numbers("1.5 ± 0.5"), numbers("−3e-10, 1,234")
    ([0.43, 0.4, 0.46], [1.0, 2.0, 1.5], [-3e-10, 1234.0])
    """
    spreads = [(float(x), float(e)) for x, e in re.findall(rf"({NUMBER}) ± ({NUMBER})", text)]
    rest = re.sub(rf" ± {NUMBER}", "", text)
    ends = [end for x, e in spreads for end in (x - e, x + e)]
    return ends + [float(x.replace(",", "").replace("−", "-")) for x in re.findall(NUMBER, rest)]


def meets(found: list[float], needs: str) -> bool:
    """Whether the numbers are what a row needs: "above x", "below x", "between x and y", "rising", "falling", "equal".

    >>> meets([0.43, 0.40, 0.46], "below 1"), meets([1, 2, 2], "rising"), meets([], "above 0")
    (True, False, False)
    """
    word, *bounds = needs.replace(" and ", " ").split()
    pairs = {"rising": operator.lt, "falling": operator.gt, "equal": operator.eq}
    if word in pairs:
        return len(found) > 1 and all(map(pairs[word], found, found[1:]))
    low, high = {"above": (*bounds, "inf"), "below": ("-inf", *bounds), "between": bounds}[word]
    return bool(found) and all(float(low) < x < float(high) for x in found)


# ---------------------------------------------------------------- the page


def report(root: Path = ROOT) -> str:
    """The page of all claims, from the executed notebooks in `solutions/`.

    Raises: LessonError if a row finds nothing, or a number is not what the verdict rests on.
    """
    from ptlearn.course.lesson import lesson_files

    names = {path.stem[:2]: path.stem for path in lesson_files(root)}
    cells = {number: printed(Path(root, "solutions", f"{name}.ipynb")) for number, name in names.items()}
    table, sections = [], []
    for number, claim in claims().items():
        found = [measured(row, cells[row["lesson"]]) for row in claim["rows"]]
        for row in found:
            if not row.holds:
                raise LessonError(f"{number}: {row.what}: {row.value} does not bear the verdict {claim['verdict']!r}")
        real = real_lines(claim.get("real", []), cells[REAL])
        table.append(f"| [{number}](#{number.lower()}) | {claim['says']} | {claim['verdict']} | {found[0].value} | "
                     f"{'; '.join(dict.fromkeys(line.split(': ')[-1] for line in real))} |")  # fmt: skip
        sections.append(section(number, claim, found, real, names))
    return PREAMBLE.format(table="\n".join(table), real=f"../solutions/{names[REAL]}.ipynb") + "\n".join(sections)


def section(number: str, claim: dict, found: list[Measured], real: list[str], names: dict[str, str]) -> str:
    """A claim with everything that was measured of it."""
    lines = [
        f"## {number}\n",
        f"{claim['says']} **{claim['verdict'].capitalize()}.** {claim.get('caveat', '')}".strip(),
    ]
    lines += ["\n| measured | value | over | lesson |", "|---|---|---|---|"]
    for row in found:
        lesson = f"[{row.lesson}](../solutions/{names[row.lesson]}.ipynb), {row.section}"
        lines.append(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in (row.what, row.value, row.over, lesson)) + " |"
        )
    lines += ["\nOn a real model: " + "; ".join(real) + "."] if real else []
    return "\n".join(lines) + "\n"


PREAMBLE = """\
# The lecture's claims, and what was measured of them

Made by `ptlearn claims` from what the lessons printed when they ran (`solutions/`); a claim whose numbers do not bear
its verdict stops it. What a number counts stands below, under its claim; [a, b] is an interval of 95 %, x ± e the same
by its half-width, (a to b) the lowest and the highest seed; several numbers without any of these are seeds, or what the
row names. The last column is the verdict on a [real model]({real}) of 135 million parameters, where it
was asked too.

| claim | the lecture says | verdict | the first number | real model |
|---|---|---|---|---|
{table}

"""


# ---------------------------------------------------------------- links from the lessons


def linked(text: str) -> str:
    """A lesson's text with each claim's number linked to its place on the page.

    >>> linked("Unbiased [C29], it says.")
    'Unbiased [[C29](../docs/claims.md#c29)], it says.'
    """
    return MENTION.sub(
        lambda found: f"[{found[0]}](../{PAGE}#{found[0].lower()})" if found[0] in claims() else found[0], text
    )
