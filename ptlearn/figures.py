"""The course's figures: colours that everyone can tell apart, and marks that never come without their interval.

Each function draws on the axes it is given, so that a lesson's cell keeps the figure, its title and its labels.
"""

from collections.abc import Sequence

from ptlearn.prompting import Estimate

# Okabe and Ito's palette: distinct for colour-blind readers; markers and dashes differ too, for print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")


def curve(axes, x: Sequence[float], estimates: Sequence[Estimate], label: str, index: int = 0) -> None:
    """A line of estimates over `x` with their 95 % intervals as a band; `index` chooses colour, marker and dash."""
    color = COLORS[index % len(COLORS)]
    axes.plot(x, [e.mean for e in estimates], color=color, marker=MARKERS[index % len(MARKERS)],
              linestyle=DASHES[index % len(DASHES)], label=label)  # fmt: skip
    axes.fill_between(x, [e.low for e in estimates], [e.high for e in estimates], color=color, alpha=0.15, linewidth=0)


def bars(axes, names: Sequence[str], estimates: Sequence[Estimate], index: int = 0, *, groups: int = 1) -> None:
    """Bars with their 95 % intervals as whiskers; with several `groups`, group `index` stands beside the others."""
    width = 0.8 / groups
    x = [i + (index - (groups - 1) / 2) * width for i in range(len(names))]
    below = [e.mean - e.low for e in estimates]
    above = [e.high - e.mean for e in estimates]
    axes.bar(x, [e.mean for e in estimates], width, yerr=[below, above], capsize=3, color=COLORS[index % len(COLORS)])
    axes.set_xticks(range(len(names)), names)
