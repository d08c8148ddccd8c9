"""The picture of architecture.md: the rooms of the house, and who stands on whom, read from the imports.

    python docs/architecture.py
"""

import ast
from collections import Counter
from pathlib import Path

from matplotlib import pyplot
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "ptlearn"
PICTURE = HERE / "images" / "architecture.svg"
GROUND = "ground floor"
WINGS = (GROUND, "grid", "lm", "finetuning", "rl", "pocket", "course")  # from below
ENTRIES = {"__init__", "__main__"}  # the doors of a wing, no rooms


def rooms() -> dict[str, list[str]]:
    """The modules and packages of each wing, from below.

    >>> rooms()["grid"]
    ['collection', 'gridworld', 'mdp']
    """
    found = {GROUND: PACKAGE.glob("*.py")}
    for wing in WINGS[1:]:
        packages = (door.parent for door in (PACKAGE / wing).glob("*/__init__.py"))
        found[wing] = [*(PACKAGE / wing).glob("*.py"), *packages]
    return {wing: sorted({path.stem for path in paths} - ENTRIES) for wing, paths in found.items()}


def wing_of(module: str) -> str:
    """The wing of a dotted name: "ptlearn.grid.mdp" is in grid, "ptlearn.rollout" on the ground floor."""
    second = module.split(".")[1]
    return second if second in WINGS else GROUND


def stands_on() -> Counter:
    """How many imports lead from each wing to each other one: {(upper, lower): number}."""
    counted = Counter()
    for path in (path for path in PACKAGE.rglob("*.py") if path.stem not in ENTRIES):
        own = wing_of("ptlearn." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("ptlearn."):
                counted[own, wing_of(node.module)] += 1
            elif isinstance(node, ast.ImportFrom) and node.module == "ptlearn":
                for alias in node.names:
                    counted[own, wing_of(f"ptlearn.{alias.name}")] += 1
    return Counter({pair: number for pair, number in counted.items() if pair[0] != pair[1]})


def told() -> str:
    """The picture in words, which it carries as its description.

    >>> told().splitlines()[-2]
    'grid (collection, gridworld, mdp) stands on ground floor'
    """
    pairs, lines = stands_on(), []
    for wing, names in reversed(rooms().items()):
        below = [other for other in reversed(WINGS) if (wing, other) in pairs]
        lines.append(f"{wing} ({', '.join(names)}) stands on {', '.join(below) or 'nothing'}")
    return "\n".join(lines)


def draw() -> None:
    """Write the picture."""
    pyplot.rcParams["svg.hashsalt"] = "ptlearn"  # the same file from the same house
    figure, axes = pyplot.subplots(figsize=(9, 6.4), layout="constrained")
    pairs = stands_on()
    for floor, (wing, names) in enumerate(rooms().items()):
        axes.add_patch(FancyBboxPatch((0, floor), 7.4, 0.72, "round,pad=0.02", facecolor="0.94", edgecolor="0.4"))
        axes.text(0.1, floor + 0.36, wing, va="center", weight="bold", fontsize=10)
        half = (len(names) + 1) // 2 if len(names) > 7 else len(names)
        for line, part in enumerate((names[:half], names[half:])):
            height = floor + (0.5 - 0.28 * line if names[half:] else 0.36)
            axes.text(1.5, height, " · ".join(part), va="center", fontsize=6.6)
    for (upper, lower), number in pairs.items():
        top, bottom = WINGS.index(upper), WINGS.index(lower)
        arrow = FancyArrowPatch((7.46, top + 0.3), (7.46, bottom + 0.5), arrowstyle="-|>", mutation_scale=8,
                                connectionstyle=f"arc3,rad={-0.25 - 0.05 * (top - bottom)}", color="C0",
                                alpha=0.75, linewidth=0.4 + 0.06 * min(number, 30))  # fmt: skip
        axes.add_patch(arrow)
    axes.set(xlim=(-0.1, 9.2), ylim=(-0.1, len(WINGS) - 0.2))
    axes.axis("off")
    figure.savefig(PICTURE, metadata={"Date": None, "Description": told()})
    pyplot.close(figure)


if __name__ == "__main__":
    draw()
    print(told())
