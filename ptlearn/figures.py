"""The course's figures: colours that everyone can tell apart, and marks that never come without their interval.

Each function draws on the axes it is given, so that a lesson's cell keeps the figure, its title and its labels.
Here: estimates and learning curves, variances, effective sample size; maps of attention; maps of a grid world (values,
policy, one episode) and a player of episodes. Deliberately not here: what is drawn, and pixels as an agent sees them
(gridworld).

A `grid` is anything with `cells`, (row, column) of each state; `shape`, (rows, columns); and `map`, its rows as
strings of '#' wall, 'S' start, 'G' goal, 'X' pit and floor.
"""

import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.patches import Rectangle
from torch import Tensor

from ptlearn.statistics import Estimate, over_seeds

# Okabe and Ito's palette: distinct for colour-blind readers; markers and dashes differ too, for print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # (x, y) of up, right, down, left; y grows downwards, as rows do
BADGES = {"S": COLORS[0], "G": COLORS[2], "X": COLORS[1]}
ARROWS = {  # in cells, not in inches
    "angles": "xy", "scale_units": "xy", "units": "xy", "scale": 1, "minlength": 0, "headwidth": 4, "headlength": 4,
}  # fmt: skip


def curve(axes, x: Sequence[float], estimates: Sequence[Estimate], label: str, index: int = 0) -> None:
    """A line of estimates over `x` with their 95 % intervals as a band; `index` chooses colour, marker and dash."""
    color = COLORS[index % len(COLORS)]
    axes.plot(x, [e.mean for e in estimates], color=color, marker=MARKERS[index % len(MARKERS)],
              linestyle=DASHES[index % len(DASHES)], label=label, markevery=max(1, len(x) // 10))  # fmt: skip
    axes.fill_between(x, [e.low for e in estimates], [e.high for e in estimates], color=color, alpha=0.15, linewidth=0)


def curve_of_seeds(axes, x: Sequence[float], runs: Sequence[Sequence[float]], label: str, index: int = 0) -> None:
    """A line through the means over `x`, and each seed as a point: with few seeds they say more than a band.

    Args: runs (points, seeds), as many seeds as there are at each point; label, index as of `curve`.
    """
    style = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
    axes.plot(x, [sum(values) / len(values) for values in runs], linestyle=DASHES[index % len(DASHES)],
              label=label, **style)  # fmt: skip
    pairs = [(place, value) for place, values in zip(x, runs, strict=True) for value in values]
    axes.plot(*zip(*pairs, strict=True), linestyle="", markersize=3, alpha=0.5, **style)


def bars(axes, names: Sequence[str], estimates: Sequence[Estimate], index: int = 0, *, groups: int = 1) -> None:
    """Bars with their 95 % intervals as whiskers; with several `groups`, group `index` stands beside the others."""
    width = 0.8 / groups
    x = [i + (index - (groups - 1) / 2) * width for i in range(len(names))]
    below = [e.mean - e.low for e in estimates]
    above = [e.high - e.mean for e in estimates]
    axes.bar(x, [e.mean for e in estimates], width, yerr=[below, above], capsize=3, color=COLORS[index % len(COLORS)])
    axes.set_xticks(range(len(names)), names)


def seeds(axes, x: float, values: Sequence[float], label: str, index: int = 0) -> None:
    """Every seed of one setting as a point at `x`, and their mean as a larger hollow mark: few seeds, all of them."""
    style = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)], "linestyle": ""}
    axes.plot([x] * len(values), values, markersize=4, alpha=0.6, **style)
    axes.plot([x], [sum(values) / len(values)], markersize=9, fillstyle="none", label=label, **style)


def dot_table(axes, names: Sequence[str], runs: Sequence[Sequence[float]], label: str, index: int = 0) -> None:
    """A line per name from the top: each seed a small point, their mean a larger hollow mark.

    Args: runs (names, seeds); label, for the legend; index, chooses colour and marker, and a place within the line.
    """
    for row, values in enumerate(runs):
        style = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)], "linestyle": ""}
        place = row + 0.22 * (index - 1)
        axes.plot(values, [place] * len(values), markersize=3, alpha=0.6, **style)
        axes.plot([sum(values) / len(values)], [place], markersize=8, fillstyle="none", **style,
                  label=label if row == 0 else "_")  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def token_strip(words: Sequence[str], marked: Sequence[bool]) -> str:
    """Tokens side by side as HTML; the marked ones are blue and underlined, a line break is shown as an arrow."""
    looks = ("background:#e8e8e8;color:#111", "background:#0072B2;color:#fff;text-decoration:underline")
    spans = [
        f'<span style="{looks[bool(mark)]};display:inline-block;padding:0 3px;margin:1px;white-space:pre">'
        f"{html.escape(word).replace(chr(10), '↵')}</span>"
        for word, mark in zip(words, marked, strict=True)
    ]
    return f'<div style="font:13px monospace;line-height:2;background:#fff;padding:6px">{"".join(spans)}</div>'


def stacked_bars(axes, names: Sequence[str], parts: dict[str, Sequence[float]]) -> None:
    """A bar per name, made of parts above each other, {part: its size in each bar}."""
    bottom = np.zeros(len(names))
    for index, (part, heights) in enumerate(parts.items()):
        axes.bar(range(len(names)), heights, bottom=bottom, color=COLORS[index], label=part, edgecolor="white")
        bottom += np.asarray(heights, dtype=float)
    axes.set_xticks(range(len(names)), names)


def learning_curves(axes, x: Sequence[float], runs, label: str, index: int = 0) -> None:
    """The mean over seeds with its 95 % band, and every seed as a thin line: one lucky seed cannot hide.

    Args:   x (points,), episodes or steps so far; runs (seeds, points), at least two seeds; label, for the legend;
            index, chooses colour, marker and dash.
    Raises: ValueError if runs does not have one column per point, or has a number that is not finite.
    """
    runs = _array("runs", runs, ("seeds", len(x)))
    axes.plot(x, runs.T, color=COLORS[index % len(COLORS)], linewidth=0.6, alpha=0.35)
    curve(axes, x, [over_seeds(point) for point in runs.T], label, index)


def variances(
    axes, names: Sequence[str], estimates: Sequence[Estimate], ratios: Sequence[Estimate] | None = None, index: int = 0
) -> None:
    """A point per estimator on a log axis, with its 95 % interval, and how much of the one above is left.

    Args:   names, estimates, one per line, from the top; ratios, the n - 1 steps from each line to the next with their
            intervals (default: the ratio of the two, without an interval).
    Raises: ValueError if the lengths differ, or the interval of a variance does not lie above 0 and around it.
    """
    means, low, high = _array("estimates", [e[:3] for e in estimates], (len(names), 3)).T
    for name, at, below, above in zip(names, means, low, high):
        if not 0 < below <= at <= above:
            raise ValueError(
                f"variance of {name!r}: {at:.3g} [{below:.3g}, {above:.3g}]; expected 0 < low <= mean <= high"
            )
    texts = [f"× {ratio:.2g}" for ratio in means[1:] / means[:-1]]
    if ratios is not None:
        ratios = _array("ratios", [e[:3] for e in ratios], (len(names) - 1, 3))
        texts = [f"× {ratio:.2g} [{below:.2g}, {above:.2g}]" for ratio, below, above in ratios]
    axes.errorbar(means, range(len(names)), xerr=[means - low, high - means], capsize=3, linestyle="",
                  color=COLORS[index % len(COLORS)], marker=MARKERS[index % len(MARKERS)])  # fmt: skip
    for row, text in enumerate(texts, start=1):
        axes.annotate(text, (high[row], row), (8, 0), textcoords="offset points", va="center", fontsize=8)
    left, right, room = low.min() / 1.5, high.max() * 1.5, 0.15 if ratios is None else 0.4
    axes.set(xscale="log", xlim=(left, right * (right / left) ** room), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="x", alpha=0.3)


def scatter_ess(axes, divergence, fraction, label: str, index: int = 0) -> None:
    """How many of the episodes a reweighted batch is worth, against how far the behavior policy is from the target.

    Args:   divergence (n,), KL(pi || mu) in nats; fraction (n,), effective sample size / B, in (0, 1]; label, index.
    Raises: ValueError if the lengths differ or a fraction lies outside (0, 1].
    Source: Claim C38; `policy_gradient.effective_sample_size`.
    """
    fraction = _array("fraction", fraction, ("n",))
    divergence = _array("divergence", divergence, fraction.shape)
    if len(fraction) and not (fraction.min() > 0 and fraction.max() <= 1 + 1e-6):
        raise ValueError(f"fraction spans [{fraction.min():.3g}, {fraction.max():.3g}]: expected ESS / B in (0, 1]")
    style = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
    axes.scatter(divergence, fraction, s=16, alpha=0.6, linewidth=0, label=label, **style)
    axes.set_yscale("log")
    axes.set(xlabel="KL(π‖μ), nats", ylabel="effective sample size / B")


# ---------------------------------------------------------------- attention


def attention_map(axes, weights, tokens: Sequence[str]) -> None:
    """Where each token of a short text looks: a row per looking token, darker where it looks more.

    Args:   weights (T, T), rows that sum to 1; tokens, T words for the ticks.
    Raises: ValueError if weights has another shape, or a number that is not finite.
    """
    weights = _array("weights", weights, (len(tokens), len(tokens)))
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=7)
    axes.set_yticks(range(len(tokens)), tokens, fontsize=7)


def head_map(axes, scores) -> None:
    """A number per head, layers from the bottom up: scores (layers, heads), between -1 and 1."""
    scores = _array("scores", scores, ("layers", "heads"))
    axes.imshow(scores, cmap="RdBu", vmin=-1, vmax=1, origin="lower", aspect="auto")
    for (layer, head), score in np.ndenumerate(scores):
        ink = "white" if abs(score) > 0.6 else "black"
        axes.text(head, layer, f"{score:.2f}", color=ink, fontsize=8, ha="center", va="center")
    axes.set_xticks(range(scores.shape[1]))
    axes.set_yticks(range(scores.shape[0]))


def shaded_tokens(pieces: Sequence[str], shades: Sequence[float]) -> str:
    """Pieces of a text as HTML, each on the second colour of the palette: 0 is white, 1 and above the full colour.

    >>> shaded_tokens(["a", "<b"], [0.5, 0]).count("span style")
    2
    """
    red, green, blue = (int(COLORS[1][i : i + 2], 16) for i in (1, 3, 5))
    spans = []
    for piece, shade in zip(pieces, shades, strict=True):
        style = f"background:rgba({red},{green},{blue},{min(max(float(shade), 0), 1):.2f});color:#000"
        spans.append(f'<span style="{style}">{html.escape(piece).replace(chr(10), "↵<br>")}</span>')
    return f'<p style="font-family:monospace;white-space:pre-wrap;background:#fff">{"".join(spans)}</p>'


# ---------------------------------------------------------------- maps of a grid world


def draw_map(axes, grid) -> None:
    """Walls, cell borders and the badges S, G, X. Floor stays as it is, so a map can go over values."""
    walls = np.full((*grid.shape, 4), [0.25, 0.25, 0.25, 1.0])
    walls[tuple(np.array(grid.cells).T)] = 0  # transparent
    axes.imshow(walls, zorder=1)
    for row, column, symbol in _badges(grid):
        shift = 0.3 if symbol == "S" else 0  # a start cell has arrows in its middle
        box = {"boxstyle": "circle,pad=0.15", "facecolor": BADGES[symbol], "edgecolor": "white", "linewidth": 0.6}
        axes.text(column - shift, row - shift, symbol, color="white", fontsize=_font_size(grid), weight="bold",
                  bbox=box, ha="center", va="center", zorder=5)  # fmt: skip
    for axis, cells in ((axes.yaxis, grid.shape[0]), (axes.xaxis, grid.shape[1])):
        axis.set_ticks(range(0, cells, 1 + cells // 12))
        axis.set_ticks(np.arange(cells + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#909090", linewidth=0.4)
    axes.tick_params(which="both", length=0, labelsize=8)
    axes.set(xlabel="column", ylabel="row")


def value_map(axes, grid, values, policy=None, trajectory=None, *, numbers: bool | None = None, limits=None) -> None:
    """V as a heat map over the cells, with what the policy does there as arrows.

    Args:   values (S,), expected return; policy (S, 4), probabilities of up, right, down, left: an arrow is as long as
            its action is likely; trajectory, the states of one episode in order; numbers, write V into the cells
            (default: on maps of up to 5 rows and columns); limits (low, high) of the colours, to compare two maps.
    Raises: ValueError on a wrong shape, a number that is not finite, or rows of policy that are not probabilities.
    """
    values = _array("values", values, (len(grid.cells),))
    rows, columns = np.array(grid.cells).T
    picture = np.ma.masked_all(grid.shape)
    picture[rows, columns] = values
    low, high = limits or (values.min(), values.max())
    image = axes.imshow(picture, cmap="cividis", vmin=low, vmax=high, zorder=0)
    for row, column, symbol in _badges(grid):
        if symbol in "GX":  # where an episode has ended, V = 0 is no value to compare
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#b0b0b0", zorder=0.5))
    # inside the map's own axes: as tall as the map, whatever its shape
    axes.figure.colorbar(image, cax=axes.inset_axes([1.04, 0, 0.05, 1]), label="expected return")
    draw_map(axes, grid)
    numbers = max(grid.shape) <= 5 if numbers is None else numbers
    ink = np.where(values < (low + high) / 2, "white", "black")
    for state in range(len(values)) if numbers else ():
        axes.text(columns[state], rows[state] + 0.36, f"{values[state]:.2f}", color=ink[state],
                  fontsize=_font_size(grid), ha="center", va="center")  # fmt: skip
    if policy is not None:
        # above the number and too short to reach it, where there is one
        _draw_policy(axes, grid, policy, ink, rise=0.12 if numbers else 0, reach=0.34 if numbers else 0.48)
    if trajectory is not None:
        draw_trajectory(axes, grid, trajectory[:-1], trajectory[-1])


def _draw_policy(axes, grid, policy, ink, *, rise: float, reach: float) -> None:
    """An arrow per action from the middle of each cell, none where the episode is over."""
    policy = _array("policy", policy, (len(grid.cells), len(MOVES)))
    wrong = ((policy < -1e-6).any(1) | (abs(policy.sum(1) - 1) > 1e-4)).nonzero()[0]
    if len(wrong):
        raise ValueError(f"policy[{wrong[0]}] is {policy[wrong[0]].tolist()}: expected probabilities that sum to 1")
    going = np.array([grid.map[row][column] not in "GX" for row, column in grid.cells])
    state, action = np.nonzero((policy > 0) & going[:, None])
    y, x = np.array(grid.cells)[state].T
    u, v = np.array(MOVES)[action].T * reach * policy[state, action]
    axes.quiver(x, y - rise, u, v, color=ink[state], width=0.05, zorder=3, **ARROWS)


def draw_trajectory(axes, grid, observations: Sequence[int], final_state: int, index: int = 0) -> None:
    """One episode as a chain of arrows, from a disc to a square. A cell's later visits are drawn beside its first.

    Args:   observations (T,), the states acted in, without padding; final_state, where the last action led.
    Raises: ValueError if a state is not one of the grid's.
    """
    states = _states("observations", [*observations, final_state], grid)
    (y, x), color = np.array(grid.cells, dtype=float)[states].T, COLORS[(index + 1) % len(COLORS)]
    visit = np.array([states[:t].count(state) for t, state in enumerate(states)])
    # a sunflower: neighbouring visits far apart, the first in the middle, none outside its cell
    reach, angle = 0.35 * np.sqrt(visit / (visit.max() + 1)), 2.4 * visit
    x, y = x + reach * np.cos(angle), y + reach * np.sin(angle)
    draw_map(axes, grid)
    axes.quiver(x[:-1], y[:-1], np.diff(x), np.diff(y), color=color, width=0.03, zorder=6, **ARROWS)
    for marker, place in (("o", 0), ("s", -1)):
        axes.plot(x[place], y[place], marker, color=color, markeredgecolor="white", markersize=6, zorder=7)


def _font_size(grid) -> float:
    return min(9, max(5, 48 / max(grid.shape)))


def _badges(grid) -> list[tuple[int, int, str]]:
    """(row, column, symbol) of the cells that are marked."""
    return [(row, column, grid.map[row][column]) for row, column in grid.cells if grid.map[row][column] in BADGES]


def _states(name: str, states: Sequence[int], grid) -> list[int]:
    """States as plain numbers, each one of the grid's."""
    states = [int(state) for state in states]
    for t, state in enumerate(states):
        if not 0 <= state < len(grid.cells):
            raise ValueError(f"{name} has state {state} at step {t}: expected 0..{len(grid.cells) - 1}")
    return states


def _array(name: str, given, expected: tuple) -> np.ndarray:
    """`given` as finite numbers of the expected shape; a word in it stands for any length."""
    shape = f"({', '.join(map(str, expected))}{',' * (len(expected) == 1)})"
    try:
        array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not a table of numbers: expected shape {shape}") from None
    if array.ndim != len(expected) or any(n != want for n, want in zip(array.shape, expected) if want != str(want)):
        raise ValueError(f"{name} has shape {array.shape}: expected {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has a number that is not finite: expected finite numbers of shape {shape}")
    return array


# ---------------------------------------------------------------- a player of episodes

# a $name is filled in, $$ is a dollar sign
_PLAYER = Template(Path(__file__).with_name("player.html").read_text(encoding="utf-8").strip())


def animation(grid, episodes: dict[str, Sequence[Sequence[int]]], *, milliseconds: int = 250) -> str:
    """Episodes as a film in HTML: one panel per label, side by side and in step, with a button that plays and pauses.

    It needs no network and no codec, works in a notebook and in a page, and shows the first paths where scripts do not
    run. It waits for the button where the reader's system asks for reduced motion.

    Args:   episodes {label: [states of an episode, the final one included]}, such as "before training" and "after
            training"; milliseconds per step.
    Raises: ValueError if a label has no episode, an episode no state, a state is unknown, or the film passes 40 kB.
    """
    if not episodes:
        raise ValueError("episodes is empty: expected at least one label with its episodes")
    paths = []
    for label, runs in episodes.items():
        paths.append([_states(f"episodes[{label!r}][{i}]", states, grid) for i, states in enumerate(runs)])
        if not paths[-1] or not all(paths[-1]):
            raise ValueError(f"episodes[{label!r}] lacks states: expected at least one episode, each with a state")
    data = {"points": [(column, row) for row, column in grid.cells], "paths": paths}
    data = json.dumps(data, separators=(",", ":"))
    panels = "".join(_panel(grid, label, runs) for label, runs in zip(episodes, paths))
    name = "grid-" + hashlib.sha1(f"{data}{panels}{milliseconds}".encode()).hexdigest()[:12]
    text = _PLAYER.substitute(id=name, panels=panels, data=data, milliseconds=milliseconds)
    if len(text) > 40_000:
        raise ValueError(f"episodes make {len(text):,} characters: expected at most 40,000; show fewer or shorter ones")
    return text


def _panel(grid, label: str, paths: Sequence[Sequence[int]]) -> str:
    """One map as SVG, a unit per cell, with the first episode's path and the agent at its end."""
    (rows, columns), steps = grid.shape, [len(states) - 1 for states in paths]
    floor = "".join(f"M{x - 0.5} {y - 0.5}h1v1h-1z" for y, x in grid.cells)
    badges = "".join(
        f'<circle cx="{x}" cy="{y}" r=".34" fill="{BADGES[symbol]}"/>'
        f'<text x="{x}" y="{y + 0.16}" font-size=".45" fill="#fff" text-anchor="middle">{symbol}</text>'
        for y, x, symbol in _badges(grid)
    )
    path = [f"{grid.cells[state][1]},{grid.cells[state][0]}" for state in paths[0]]
    y, x = grid.cells[paths[0][-1]]
    label = html.escape(label).encode("ascii", "xmlcharrefreplace").decode()
    about = f"map of {rows} rows and {columns} columns; {len(paths)} episodes of {min(steps)} to {max(steps)} steps"
    return f"""<figure style="margin:0;flex:0 1 280px">
<svg viewBox="-.5 -.5 {columns} {rows}" style="width:100%" role="img" aria-label="{label}: {about}">
<rect x="-.5" y="-.5" width="{columns}" height="{rows}" fill="#404040"/>
<path d="{floor}" fill="#f6f6f6" stroke="#bbb" stroke-width=".03"/>{badges}
<polyline class="trail" points="{" ".join(path)}" fill="none" stroke="#000" stroke-width=".08"/>
<circle class="agent" cx="{x}" cy="{y}" r=".26" fill="#E69F00" stroke="#000" stroke-width=".06"/></svg><figcaption>
<b>{label}</b><br><span class="count">episode 1 of {len(paths)}, step {steps[0]} of {steps[0]}</span></figcaption>
</figure>"""
