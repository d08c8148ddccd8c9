"""Figures by what they say, not by their pixels: the numbers a reader takes from them are the numbers that went in."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ptlearn import figures
from ptlearn.grid.gridworld import ACTIONS, GridWorld
from ptlearn.statistics import Estimate

MAP = ["S.#", "X.G"]
CELLS = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]  # of MAP, by hand
GRID = SimpleNamespace(map=MAP, shape=(2, 3), cells=CELLS)


@pytest.fixture
def axes():
    return Figure(figsize=(5, 3)).add_subplot()


def quiver_of(axes):
    return next(found for found in axes.collections if hasattr(found, "U"))


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def band_of(axes):
    """{x: (low, high)} of the only band."""
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    return {x: (corners[corners[:, 0] == x, 1].min(), corners[corners[:, 0] == x, 1].max()) for x in set(corners[:, 0])}


# ---------------------------------------------------------------- estimates


def test_learning_curve_is_the_mean_between_its_seeds_and_inside_its_band(axes):
    runs = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 4.0], [4.0, 1.0, 6.0]], requires_grad=True)
    figures.learning_curves(axes, [10, 20, 30], runs, "REINFORCE", 1)
    *seeds, mean = axes.lines
    assert [list(line.get_ydata()) for line in seeds] == [[0, 1, 2], [2, 1, 4], [4, 1, 6]]
    assert list(mean.get_xdata()) == [10, 20, 30] and list(mean.get_ydata()) == [2, 1, 4]
    assert axes.get_legend_handles_labels()[1] == ["REINFORCE"]
    margin = 4.3027 * 2 / np.sqrt(3)
    expected = {10: (2 - margin, 2 + margin), 20: (1, 1), 30: (4 - margin, 4 + margin)}
    assert {x: pytest.approx(ends, abs=1e-3) for x, ends in expected.items()} == band_of(axes)


def test_a_curve_of_seeds_goes_through_the_means_and_shows_every_seed(axes):
    figures.curve_of_seeds(axes, [1, 2], [[0.5, 1.0], [0.0, 1.0]], "asked", 1)
    mean, seeds = axes.lines
    assert list(mean.get_ydata()) == [0.75, 0.5] and axes.get_legend_handles_labels()[1] == ["asked"]
    assert list(zip(seeds.get_xdata(), seeds.get_ydata())) == [(1, 0.5), (1, 1.0), (2, 0.0), (2, 1.0)]


def test_a_dot_table_has_a_line_per_name_with_every_seed_and_their_mean(axes):
    figures.dot_table(axes, ["chat", "extract"], [[0.5, 1.0], [0.0, 0.5]], "asked", 1)
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.5, 1.0], [0.75], [0.0, 0.5], [0.25]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["chat", "extract"]
    assert axes.get_legend_handles_labels()[1] == ["asked"]


def test_a_token_strip_marks_and_escapes():
    strip = figures.token_strip(["<b>", " Oslo\n"], [False, True])
    assert "&lt;b&gt;" in strip and " Oslo↵" in strip and strip.count("underline") == 1
    with pytest.raises(ValueError):
        figures.token_strip(["a"], [])


def test_band_shrinks_with_the_root_of_the_seeds():
    runs = np.random.default_rng(0).normal(size=(100, 1))
    widths = []
    for copies in (1, 4):
        axes = Figure().add_subplot()
        figures.learning_curves(axes, [0], np.tile(runs, (copies, 1)), "")
        widths.append(np.ptp(band_of(axes)[0]))
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.02)


def test_every_series_has_its_own_colour_marker_and_dash(axes):
    for index in range(4):
        figures.learning_curves(axes, [0, 1], [[0, 1], [1, 2]], str(index), index)
    means = [line for line in axes.lines if line.get_marker() != "None"]
    for style in ("get_color", "get_marker", "get_linestyle"):
        assert len({getattr(line, style)() for line in means}) == 4


def test_seeds_are_points_around_their_mean(axes):
    figures.seeds(axes, 3.0, [0.2, 0.4, 0.9], "BitFit", index=1)
    points, mean = axes.lines
    assert list(points.get_xdata()) == [3.0] * 3 and list(points.get_ydata()) == [0.2, 0.4, 0.9]
    assert mean.get_ydata() == pytest.approx([0.5]) and mean.get_label() == "BitFit"


def test_parts_of_a_bar_stand_on_each_other(axes):
    figures.stacked_bars(axes, ["full", "LoRA"], {"weights": [2, 2], "gradients": [3, 0.5]})
    assert [bar.get_y() for bar in axes.patches] == [0, 0, 2, 2]
    assert [bar.get_height() for bar in axes.patches] == [2, 2, 3, 0.5]


def test_variances_and_ratios(axes):
    estimates = [Estimate(8.0, 6.0, 11.0, 9), Estimate(2.0, 1.5, 2.5, 9), Estimate(0.5, 0.4, 0.6, 9)]
    figures.variances(axes, ["total return", "reward-to-go", "baseline"], estimates)
    points, *_ = axes.lines
    assert list(points.get_xdata()) == [8.0, 2.0, 0.5] and list(points.get_ydata()) == [0, 1, 2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["total return", "reward-to-go", "baseline"]
    assert axes.get_xscale() == "log" and axes.yaxis_inverted()
    assert texts_of(axes) == ["× 0.25", "× 0.25"]
    (whiskers,) = axes.collections
    assert np.allclose([segment[:, 0] for segment in whiskers.get_segments()], [e[1:3] for e in estimates])
    low, high = axes.get_xlim()
    assert low < 0.4 and high > 11


def test_variances_write_the_intervals_of_ratios(axes):
    estimates, ratios = [Estimate(8.0, 6.0, 11.0, 9), Estimate(2.0, 1.5, 2.5, 9)], [Estimate(0.26, 0.2, 0.31, 9)]
    figures.variances(axes, ["a", "b"], estimates, ratios)
    assert texts_of(axes) == ["× 0.26 [0.2, 0.31]"]


def test_effective_sample_size_against_divergence(axes):
    figures.scatter_ess(axes, [0.0, 1.0, 2.0], torch.tensor([1.0, 0.5, 0.01]), "per episode", 2)
    (points,) = axes.collections
    assert np.allclose(points.get_offsets(), [[0, 1], [1, 0.5], [2, 0.01]])
    assert axes.get_yscale() == "log" and "nats" in axes.get_xlabel() and "/ B" in axes.get_ylabel()


# ---------------------------------------------------------------- attention


def test_maps_of_attention_hold_the_numbers_and_the_words(axes):
    weights = [[1.0, 0.0], [0.25, 0.75]]
    figures.attention_map(axes, weights, ["the", "cat"])
    assert axes.images[0].get_array().tolist() == weights
    assert [label.get_text() for label in axes.get_yticklabels()] == ["the", "cat"]
    with pytest.raises(ValueError, match="weights has shape"):
        figures.attention_map(axes, weights, ["the"])


def test_map_of_heads_writes_each_score_in_its_cell(axes):
    figures.head_map(axes, torch.tensor([[0.1, -0.2, 0.3], [0.4, 0.5, 0.66]]))
    assert {(text.get_position(), text.get_text()) for text in axes.texts} >= {((2, 1), "0.66"), ((1, 0), "-0.20")}


# ---------------------------------------------------------------- maps


def test_the_grid_world_has_what_a_map_needs():
    world = GridWorld(MAP)
    assert (list(world.map), tuple(world.shape), [tuple(cell) for cell in world.cells]) == (MAP, (2, 3), CELLS)


def test_value_map_puts_each_value_at_its_cell_and_masks_walls(axes):
    values = torch.tensor([1.0, 2.0, 3.0, -4.0, 5.0], dtype=torch.float64)
    figures.value_map(axes, GridWorld(MAP), values)
    values_shown, walls = (image.get_array() for image in axes.images)
    assert values_shown.tolist() == [[1, 2, None], [3, -4, 5]]  # a masked entry is None
    assert (walls[..., 3] == [[0, 0, 1], [0, 0, 0]]).all()
    written = {(t.get_text(), round(t.get_position()[0]), int(t.get_position()[1])) for t in axes.texts}
    assert {("1.00", 0, 0), ("2.00", 1, 0), ("3.00", 0, 1), ("-4.00", 1, 1), ("5.00", 2, 1)} <= written
    assert axes.images[0].get_clim() == (-4, 5) and axes.yaxis_inverted()
    assert axes.child_axes[0].get_ylabel() == "expected return"


def test_badges_stand_on_their_cells_and_numbers_stay_off_large_maps(axes):
    world = GridWorld("four-rooms")
    figures.value_map(axes, world, np.zeros(len(world.cells)))
    assert sorted(texts_of(axes)) == ["G", "S"]
    goal = next(text for text in axes.texts if text.get_text() == "G")
    assert goal.get_position() == (10, 10)


def test_two_maps_can_share_their_colours(axes):
    figures.value_map(axes, GRID, range(5), numbers=False, limits=(-1, 7))
    assert axes.images[0].get_clim() == (-1, 7) and sorted(texts_of(axes)) == ["G", "S", "X"]


@pytest.mark.parametrize("action", range(4))
def test_an_arrow_points_where_the_action_leads(axes, action):
    world = GridWorld(["...", ".S.", "..G"])
    middle = world.cells.index((1, 1))
    world.reset(seed=0)
    row, column = world.cells[world.step(action)[0]]  # where the environment itself goes
    policy = np.eye(4)[[action] * len(world.cells)]
    figures.value_map(axes, world, np.zeros(len(world.cells)), policy, numbers=False)
    arrows = quiver_of(axes)
    (index,) = np.flatnonzero((arrows.XY == (1, 1)).all(1))
    direction = np.array([arrows.U[index], arrows.V[index]])
    assert np.allclose(direction / np.linalg.norm(direction), [column - 1, row - 1]), ACTIONS[action]
    assert axes.yaxis_inverted() and arrows.angles == "xy" and world.cells[middle] == (1, 1)


def test_arrows_are_as_long_as_actions_are_likely_and_absent_where_the_episode_is_over(axes):
    policy = np.tile([0.1, 0.6, 0.3, 0.0], (5, 1))
    figures.value_map(axes, GRID, np.zeros(5), torch.tensor(policy), numbers=False)
    arrows = quiver_of(axes)
    lengths = np.hypot(arrows.U, arrows.V).reshape(-1, 3)
    assert np.allclose(lengths / lengths[:, :1], [1, 6, 3])
    assert lengths.max() <= 0.5  # in its own cell
    assert {tuple(place) for place in arrows.XY.tolist()} == {(0, 0), (1, 0), (1, 1)}  # neither pit nor goal


def test_trajectory_visits_the_cells_of_its_states_in_order(axes):
    states = [0, 0, 1, 0, 2, 2, 3]
    figures.draw_trajectory(axes, GRID, torch.tensor(states[:-1]), torch.tensor(states[-1]))
    arrows = quiver_of(axes)
    heads = arrows.XY + np.stack([arrows.U, arrows.V], 1)
    drawn = np.vstack([arrows.XY[:1], heads])
    assert np.allclose(drawn[:-1], arrows.XY)  # a chain
    assert [tuple(place) for place in np.rint(drawn[:, ::-1]).astype(int).tolist()] == [
        CELLS[state] for state in states
    ]
    assert len({tuple(place) for place in drawn.round(3).tolist()}) == len(states)  # repeats lie apart
    first, last = axes.lines
    assert np.allclose([first.get_xdata()[0], first.get_ydata()[0]], [0, 0]) and first.get_marker() == "o"
    assert np.allclose([last.get_xdata()[0], last.get_ydata()[0]], drawn[-1]) and last.get_marker() == "s"


def test_value_map_can_carry_a_trajectory(axes):
    figures.value_map(axes, GRID, np.zeros(5), trajectory=[0, 1, 3])
    assert np.allclose(quiver_of(axes).XY, [[0, 0], [1, 0]])


# ---------------------------------------------------------------- the player

EPISODES = {"before <training> & é": [[0, 0, 1, 1, 3], [0, 2]], "after": [[0, 2, 3, 4]]}


class Reader(HTMLParser):
    """Tags in order, texts outside scripts, and the script; complains about a tag that is not closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.script = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open += [] if tag == "br" else [tag]

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script += data
        elif data.strip():
            self.texts.append(data.strip())

    def all(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]


def test_player_holds_the_states_it_was_given():
    text = figures.animation(GRID, EPISODES)
    data = json.loads(re.search(r"const data = (.*);\n", Reader(text).script)[1])
    assert data["paths"] == list(EPISODES.values())
    assert [(row, column) for column, row in data["points"]] == CELLS
    tensors = {label: [torch.tensor(states) for states in runs] for label, runs in EPISODES.items()}
    assert figures.animation(GridWorld(MAP), tensors) == text


def test_player_is_whole_html_with_escaped_labels_and_words_for_the_eye():
    text = figures.animation(GRID, EPISODES)
    page = Reader(text)
    assert text.isascii() and "<training>" not in text and page.texts.count("before <training> & é") == 1
    assert [panel["aria-label"].split(":")[0] for panel in page.all("svg")] == list(EPISODES)
    assert all(panel["role"] == "img" and "2 rows and 3 columns" in panel["aria-label"] for panel in page.all("svg"))
    assert page.texts[-1] == "Play" and len(page.all("button")) == 1
    assert not re.search(r"https?:|src=|import\b|document\.write|window\.", text)


def test_player_without_scripts_shows_the_first_path_and_its_end():
    page = Reader(figures.animation(GRID, EPISODES))
    assert [path["points"] for path in page.all("polyline")] == ["0,0 0,0 1,0 1,0 1,1", "0,0 0,1 1,1 2,1"]
    agents = [circle for circle in page.all("circle") if circle.get("class") == "agent"]
    assert [(agent["cx"], agent["cy"]) for agent in agents] == [("1", "1"), ("2", "1")]
    assert [text for text in page.texts if text.startswith("episode")] == [
        "episode 1 of 2, step 4 of 4",
        "episode 1 of 1, step 3 of 3",
    ]


def test_player_is_named_after_its_content():
    name = [
        Reader(figures.animation(GRID, episodes)).all("div")[0]["id"] for episodes in (EPISODES, EPISODES, {"b": [[0]]})
    ]
    assert name[0] == name[1] != name[2] and all(re.fullmatch("grid-[0-9a-f]{12}", found) for found in name)


PAGE = """
const panel = () => {
  const parts = {".trail": {}, ".agent": {}, ".count": {}};
  for (const part of Object.values(parts)) part.setAttribute = (key, value) => { part[key] = value; };
  return {parts, querySelector: (name) => parts[name]};
};
const panels = [panel(), panel()], button = {};
const root = {dataset: {}, isConnected: true, querySelectorAll: () => panels, querySelector: () => button};
let tick = null, asked = "", clocks = 0;
globalThis.setInterval = (f) => { tick = f; clocks += 1; return 1; };
globalThis.clearInterval = () => { tick = null; };
globalThis.matchMedia = () => ({matches: false});
globalThis.document = {querySelectorAll: (selector) => { asked = selector; return [root]; }};
const names = Object.keys(globalThis).length;
const run = () => { SCRIPT };
const seen = [], look = () => seen.push(panels.map(({parts}) =>
  [parts[".agent"].cx, parts[".agent"].cy, parts[".trail"].points, parts[".count"].textContent]));
run(); run(); look();
const labels = [button.textContent, clocks];
for (let i = 0; i < 9; i++) { tick(); look(); }
button.onclick(); labels.push(button.textContent, tick === null);
button.onclick(); labels.push(button.textContent, tick !== null);
root.isConnected = false; tick(); labels.push(button.textContent, tick === null);
console.log(JSON.stringify({seen, labels, asked, leaked: Object.keys(globalThis).length - names}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the player's script")
def test_player_plays_pauses_and_goes_on_to_the_next_episode():
    text = figures.animation(GRID, EPISODES)
    program = PAGE.replace("SCRIPT", Reader(text).script)
    played = json.loads(subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True).stdout)
    agents = [[(place[1], place[0]) for place in now] for now in played["seen"]]  # (row, column) of both
    long, short = EPISODES["before <training> & é"][0], EPISODES["after"][0]
    for step in range(9):  # five states, the last one kept in sight for four steps more
        assert agents[step] == [CELLS[long[min(step, 4)]], CELLS[short[min(step, 3)]]]
    assert agents[9] == [CELLS[0], CELLS[0]]  # the second episode begins; the panel with one repeats it
    assert [now[3] for now in played["seen"][4]] == ["episode 1 of 2, step 4 of 4", "episode 1 of 1, step 3 of 3"]
    assert [now[3] for now in played["seen"][9]] == ["episode 2 of 2, step 0 of 1", "episode 1 of 1, step 0 of 3"]
    assert [now[2] for now in played["seen"][2]] == ["0,0 0,0 1,0", "0,0 0,1 1,1"]
    # ran twice, started once; paused, played again, and stopped when it left the page
    assert played["labels"] == ["Pause", 1, "Play", True, "Pause", True, "Play", True]
    assert played["asked"] == "#" + Reader(text).all("div")[0]["id"] and played["leaked"] == 0


# ---------------------------------------------------------------- what does not fit

ONE, LOW_0 = Estimate(1.0, 0.5, 1.5, 3), Estimate(1.0, 0.0, 2.0, 3)
ZEROS, UNIFORM = np.zeros(5), np.full((5, 4), 0.25)
BAD = [  # what the one line says, the function, and what it is given after the axes
    ("values has 1 seed: expected at least 2", "learning_curves", ([0, 1], [[1, 2]], "")),
    ("runs has shape (2, 3): expected (seeds, 2)", "learning_curves", ([0, 1], np.zeros((2, 3)), "")),
    ("runs is not a table of numbers: expected shape (seeds, 2)", "learning_curves", ([0, 1], [[1, 2], [1]], "")),
    ("runs has a number that is not finite", "learning_curves", ([0], [[1], [np.nan]], "")),
    ("values has shape (6,): expected (5,)", "value_map", (GRID, np.zeros(6))),
    ("policy has shape (5, 3): expected (5, 4)", "value_map", (GRID, ZEROS, np.zeros((5, 3)))),
    ("policy[0] is [2.0, 2.0, 2.0, 2.0]: expected probabilities", "value_map", (GRID, ZEROS, 8 * UNIFORM)),
    ("observations has state 5 at step 1: expected 0..4", "draw_trajectory", (GRID, [0, 5], 1)),
    ("estimates has shape (1, 3): expected (2, 3)", "variances", ("ab", [ONE])),
    ("ratios has shape (2, 3): expected (1, 3)", "variances", ("ab", [ONE, ONE], [ONE, ONE])),
    ("variance of 'b': 1 [0, 2]; expected 0 < low", "variances", ("ab", [ONE, LOW_0])),
    ("divergence has shape (3,): expected (2,)", "scatter_ess", ([0, 1, 2], [1, 1], "")),
    ("fraction spans [1, 64]: expected ESS / B in (0, 1]", "scatter_ess", ([0, 1], [1, 64], "")),
    ("episodes is empty", "animation", (GRID, {})),
    ("episodes['after'] lacks states", "animation", (GRID, {"after": [[0], []]})),
    ("episodes['after'][0] has state -1 at step 0: expected 0..4", "animation", (GRID, {"after": [[-1]]})),
    ("expected at most 40,000", "animation", (GRID, {"after": [[0, 1] * 9000]})),
]


@pytest.mark.parametrize("message, name, given", BAD)
def test_bad_input_is_one_clear_line(axes, message, name, given):
    given = given if name == "animation" else (axes, *given)
    with pytest.raises(ValueError) as error:
        getattr(figures, name)(*given)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_tokens_are_as_dark_as_they_are_shaded():
    page = figures.shaded_tokens(["a<", "\n", "b"], [0.25, -1, 7])
    assert [part[:4] for part in page.split("94,0,")[1:]] == ["0.25", "0.00", "1.00"]
    assert "a&lt;" in page and "↵<br>" in page
    with pytest.raises(ValueError):
        figures.shaded_tokens(["a"], [])
