"""GridWorld against its map: every move by hand, to_mdp against counted steps, both libraries' own checks."""

import importlib
import math
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import ptlearn.grid.gridworld
from ptlearn.grid.gridworld import ACTIONS, CELL, ID, MAPS, GridWorld

UP, RIGHT, DOWN, LEFT = range(4)
ROOM = ["S.#", ".X.", "..G"]  # states: 0 1 / 2 3 4 / 5 6 7


def surprise(counts, expected):
    """How many standard deviations the chi-square statistic of counts is above its mean; inf if the impossible came."""
    possible = expected > 0
    if counts[~possible].any():
        return math.inf
    freedom = int(possible.sum()) - int((possible.any(-1)).sum())
    statistic = float(((counts - expected)[possible] ** 2 / expected[possible]).sum())
    return (statistic - freedom) / math.sqrt(2 * freedom)


def counted(world, repeats):
    """How often each action led from each state to each state: (S, A, S), by stepping; and the rewards seen."""
    states = len(world.cells)
    counts, rewards = torch.zeros(2, states, 4, states, dtype=torch.float64)
    world.reset(seed=0)
    for state in range(states):
        for action in range(4):
            for _ in range(repeats):
                world.state = state
                after, reward, *_ = world.step(action)
                counts[state, action, after] += 1
                rewards[state, action, after] = reward
    return counts, rewards


# ---------------------------------------------------------------- dynamics


@pytest.mark.parametrize(
    ("state", "action", "expected"),
    [
        (0, UP, (0, -0.1, False)),  # the border blocks
        (0, RIGHT, (1, -0.1, False)),
        (1, RIGHT, (1, -0.1, False)),  # the wall blocks
        (4, UP, (4, -0.1, False)),
        (1, DOWN, (3, -2.0, True)),
        (6, UP, (3, -2.0, True)),
        (2, LEFT, (2, -0.1, False)),
        (6, RIGHT, (7, 5.0, True)),
        (4, DOWN, (7, 5.0, True)),
        (7, UP, (7, 0.0, True)),  # terminal cells keep the agent, for nothing
        (3, LEFT, (3, 0.0, True)),
    ],
)
def test_a_move_by_hand(state, action, expected):
    world = GridWorld(ROOM, goal_reward=5, pit_reward=-2, step_reward=-0.1)
    world.reset(seed=0)
    world.state = state
    observation, reward, terminated, truncated, info = world.step(action)
    assert (observation, reward, terminated) == expected
    assert truncated is False and info == {} and type(reward) is float


def test_cells_are_numbered_row_by_row_without_walls():
    world = GridWorld(ROOM)
    assert world.cells == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert world.shape == (3, 3) and world.observation_space.n == 8 and world.action_space.n == 4
    assert ACTIONS == ("up", "right", "down", "left")


def test_the_arrays_are_what_stepping_gives():
    world = GridWorld(ROOM, slip=0.3, step_reward=-0.1)
    mdp = world.to_mdp(gamma=0.9)
    counts, rewards = counted(world, 600)
    assert surprise(counts, 600 * mdp.P) < 5
    assert torch.equal(torch.where(counts > 0, mdp.R, 0), rewards)
    assert mdp.gamma == 0.9 and mdp.start.tolist() == [1.0] + [0.0] * 7
    assert mdp.terminal.nonzero()[:, 0].tolist() == [3, 7]
    assert surprise(counts, 600 * GridWorld(ROOM, slip=0.35).to_mdp().P) > 5


def test_without_slip_the_arrays_are_exactly_what_stepping_gives():
    for name in MAPS:
        world = GridWorld(name, step_reward=-0.5)
        counts, rewards = counted(world, 1)
        mdp = world.to_mdp()
        assert torch.equal(counts, mdp.P) and torch.equal(rewards, mdp.R)


def test_slip_by_hand():
    P = GridWorld(["S..", "..G"], slip=0.2).to_mdp().P
    assert P[1, UP].tolist() == pytest.approx([0.1, 0.8, 0.1, 0, 0, 0])
    assert P[1, DOWN].tolist() == pytest.approx([0.1, 0, 0.1, 0, 0.8, 0])
    assert P[1, RIGHT].tolist() == pytest.approx([0, 0.1, 0.8, 0, 0.1, 0])
    always = GridWorld(["S..", "..G"], slip=1).to_mdp().P
    assert always[1, UP].tolist() == [0.5, 0, 0.5, 0, 0, 0]


def test_each_start_is_equally_likely():
    world = GridWorld(["S.S", "SG."])
    world.reset(seed=1)
    counts = torch.bincount(torch.tensor([world.reset()[0] for _ in range(3000)]), minlength=6).double()
    assert world.to_mdp().start.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3, 0, 0])
    assert surprise(counts[None], 3000 * world.to_mdp().start[None]) < 5
    assert surprise(counts[None], 3000 * torch.tensor([[0.36, 0, 0.32, 0.32, 0, 0]])) > 5


def test_a_seed_decides_everything():
    def walk(seed):
        world = GridWorld("four-rooms", slip=0.5)
        first, _ = world.reset(seed=seed)
        again = [world.step(action % 4)[0] for action in range(40)]
        world.reset()  # does not go back to the seed
        return first, again, [world.step(action % 4)[0] for action in range(40)]

    assert walk(3) == walk(3)
    assert walk(3) != walk(4)
    assert walk(3)[1] != walk(3)[2]


# ---------------------------------------------------------------- as an environment


def test_made_by_name_it_has_a_time_limit_and_truncates():
    for name in ("ptlearn/GridWorld-v0", "ptlearn.grid.gridworld:ptlearn/GridWorld-v0"):
        environment = gymnasium.make(name, map="corridor", slip=0.0)
        environment.reset(seed=0)
        ends = [environment.step(LEFT)[2:4] for _ in range(100)]
        assert ends == [(False, False)] * 99 + [(False, True)]
        environment.reset(seed=0)
        ends = [environment.step(RIGHT)[2:4] for _ in range(9)]
        assert ends == [(False, False)] * 8 + [(True, False)]


def test_the_world_itself_never_truncates():
    world = GridWorld("corridor")
    world.reset(seed=0)
    assert not any(world.step(LEFT)[3] for _ in range(1000))


@pytest.mark.parametrize("options", [{}, {"map": "four-rooms", "slip": 0.3, "step_reward": -1.0}])
def test_gymnasium_finds_nothing_to_say(options, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, **options).unwrapped)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [{}, {"map": "cliff", "slip": 0.3, "render_mode": "rgb_array"}])
def test_stable_baselines_finds_nothing_to_say(options):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gymnasium.make(ID, **options), skip_render_check="render_mode" not in options)
        checker.check_env(GridWorld(**options), skip_render_check="render_mode" not in options)


def test_importing_twice_registers_once():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(ptlearn.grid.gridworld)


def test_every_named_map_is_sound():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in MAPS:
            GridWorld(name)


# ---------------------------------------------------------------- pictures


def test_ansi_is_the_map_with_the_agent():
    world = GridWorld(ROOM, render_mode="ansi")
    world.reset(seed=0)
    assert world.render() == "@.#\n.X.\n..G"
    world.step(DOWN)
    assert world.render() == "S.#\n@X.\n..G"
    assert "\n".join(world.map) == "S.#\n.X.\n..G"


def test_human_prints_every_step_without_a_window(capsys):
    world = GridWorld(["SG"], render_mode="human")
    world.reset(seed=0)
    world.step(RIGHT)
    assert capsys.readouterr().out == "@G\n\nS@\n\n"
    assert world.render() is None
    world.close()


def test_without_a_render_mode_nothing_is_shown(capsys):
    world = GridWorld()
    world.reset(seed=0)
    assert world.render() is None and capsys.readouterr().out == ""


def test_the_picture_shows_the_agent_and_every_symbol_differs():
    world = GridWorld(ROOM, render_mode="rgb_array")
    world.reset(seed=0)
    before = world.render()
    assert before.shape == (3 * CELL, 3 * CELL, 3) and before.dtype == np.uint8
    world.step(DOWN)
    after = world.render()
    tiles = lambda picture: picture.reshape(3, CELL, 3, CELL, 3).swapaxes(1, 2)  # noqa: E731
    changed = (tiles(before) != tiles(after)).any((2, 3, 4))
    assert changed.tolist() == [[True, False, False], [True, False, False], [False] * 3]
    middle = CELL // 2
    assert (tiles(after)[1, 0, middle, middle] == tiles(before)[0, 0, middle, middle]).all()
    # start, floor, wall, agent, pit, goal: six pictures that can be told apart
    cells = [tiles(after)[cell].tobytes() for cell in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 2))]
    assert len(set(cells)) == 6
    # on top of a goal both are visible
    world.state = 7
    assert len(np.unique(tiles(world.render())[2, 2].reshape(-1, 3), axis=0)) == 4


# ---------------------------------------------------------------- bad input


def test_a_map_as_one_text():
    assert GridWorld("S..\n.#G").map == ["S..", ".#G"]
    assert GridWorld("S.G").map == ["S.G"]
    text = """
        S..
        .#G
    """
    assert GridWorld(text).map == ["S..", ".#G"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": ["..", ".G"]}, "map has no start: expected at least one 'S'"),
        ({"map": ["S.", ".X"]}, "map has no goal: expected at least one 'G'"),
        ({"map": []}, "map has no start: expected at least one 'S'"),
        ({"map": ["S..", "..", "..G"]}, "map row 1 has 2 cells: expected 3, as row 0 has"),
        ({"map": ["S..", ".?G"]}, "map has '?' at row 1, column 1: expected one of #.SGX"),
        ({"map": "S..\n..g"}, "map has 'g' at row 1, column 2: expected one of #.SGX"),
        (
            {"map": "defualt"},
            "map='defualt': expected one of default, small, corridor, cliff, empty-8x8, four-rooms, "
            "or rows of the symbols #.SGX",
        ),
        ({"map": 5}, "map=5: expected a name or rows, a list of strings"),
        ({"map": [1, 2]}, "map=[1, 2]: expected a name or rows, a list of strings"),
        ({"slip": 1.5}, "slip=1.5: expected a probability in [0, 1]"),
        ({"slip": float("nan")}, "slip=nan: expected a probability in [0, 1]"),
        ({"render_mode": "video"}, "render_mode='video': expected None, 'ansi', 'rgb_array' or 'human'"),
    ],
)
def test_bad_input_is_one_line(options, message):
    with pytest.raises(ValueError) as error:
        GridWorld(**options)
    assert str(error.value) == message


@pytest.mark.parametrize("action", [-1, 4, 1.5, 1.0, float("nan"), "up", None, [1], np.array([1]), np.array([1, 2])])
def test_an_unknown_action_is_refused(action):
    world = GridWorld()
    world.reset(seed=0)
    with pytest.raises(ValueError) as error:
        world.step(action)
    assert str(error.value) == f"action={action!r}: expected 0 (up), 1 (right), 2 (down) or 3 (left)"


@pytest.mark.parametrize("one", [1, True, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1)])
@pytest.mark.parametrize("slip", [0.0, 0.9])
def test_an_action_is_any_whole_number(one, slip):
    worlds = GridWorld(slip=slip), GridWorld(slip=slip)
    for world in worlds:
        world.reset(seed=3)
    assert [worlds[0].step(one) for _ in range(9)] == [worlds[1].step(1) for _ in range(9)]


def test_options_are_refused_where_there_are_none():
    world = GridWorld()
    assert world.reset(seed=0, options={}) == world.reset(seed=0, options=None) == (0, {})
    for made in (world, gymnasium.make(ID)):
        with pytest.raises(ValueError, match=r"^options=\{'start': 3\}: expected none"):
            made.reset(seed=0, options={"start": 3})


def test_goals_out_of_reach_are_named():
    with pytest.warns(UserWarning) as caught:
        GridWorld(["S.#G", "G.##", "..XG"])  # behind walls, reachable, behind a pit
    assert [str(warning.message) for warning in caught] == ["no start reaches the goal at (row, column) (0, 3), (2, 3)"]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GridWorld(["S#G", "##.", "G#S"][:1] + ["..."])
