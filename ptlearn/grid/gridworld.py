"""The grid world of the lecture: an agent walks over a map to a goal, as a Gymnasium environment.

Here: maps, the environment, its pictures, and the same world as arrays (`to_mdp`), for which everything is exact.
Deliberately not here: collecting episodes (collection), solving the world (mdp), figures of values (figures).
Order: MAPS, GridWorld (its step, then to_mdp), reading a map, pictures.

    import gymnasium, ptlearn.grid.gridworld
    environment = gymnasium.make("ptlearn/GridWorld-v0", map="cliff", step_reward=-1.0)
"""

import operator
import warnings
from collections.abc import Sequence

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete

from ptlearn.grid.mdp import MDP, check_table

ID = "ptlearn/GridWorld-v0"
ACTIONS = ("up", "right", "down", "left")  # neighbours in this tuple are perpendicular moves
SYMBOLS = "#.SGX"  # wall, floor, start, goal, pit
MAPS = {
    "default": ["S....", ".##..", ".....", ".#.X.", "....G"],
    "small": ["S.G", "..X"],  # few enough trajectories to enumerate
    "corridor": ["S........G"],
    "cliff": ["............"] * 3 + ["SXXXXXXXXXXG"],  # Sutton & Barto 2018, example 6.6; a fall ends the episode
    "empty-8x8": ["S......."] + ["........"] * 6 + [".......G"],
    "four-rooms": [  # Sutton, Precup & Singh 1999
        "S....#.....",
        ".....#.....",
        "...........",
        ".....#.....",
        ".....#.....",
        "#.####.....",
        ".....###.##",
        ".....#.....",
        ".....#.....",
        "...........",
        ".....#....G",
    ],
}
_OFFSETS = ((-1, 0), (0, 1), (1, 0), (0, -1))


class GridWorld(gymnasium.Env):
    """Walk up, right, down or left; walls and the border block; a goal or a pit ends the episode.

    The reward depends on the cell that is entered: goal_reward, pit_reward, or step_reward for any other (also for
    staying where a wall blocks). With the defaults that is the lecture's: 1 if s_{t+1} is the star, and 0 otherwise.

    Args:   map, a name in MAPS, or the rows of one ('#' wall, '.' floor, 'S' start, 'G' goal, 'X' pit); with several
            starts each is equally likely; slip, the probability that one of the two perpendicular moves happens
            instead, half each; render_mode 'ansi' (text), 'rgb_array' (picture), 'human' (prints every step).
    Raises: ValueError for a map without start or goal, rows of different lengths, an unknown symbol or name, or slip
            outside [0, 1]. Warns when a goal cannot be reached.
    Source: claim C23.
    >>> world = GridWorld(["S.", "#G"], render_mode="ansi")
    >>> world.reset(seed=0), world.step(1), world.step(2)
    ((0, {}), (1, 0.0, False, False, {}), (2, 1.0, True, False, {}))
    >>> print(world.render())
    S.
    #@
    """

    metadata = {"render_modes": ["ansi", "rgb_array", "human"], "render_fps": 4}

    def __init__(
        self,
        map: str | Sequence[str] = "default",
        *,
        goal_reward: float = 1.0,
        pit_reward: float = -1.0,
        step_reward: float = 0.0,
        slip: float = 0.0,
        render_mode: str | None = None,
    ):
        if not 0 <= slip <= 1:
            raise ValueError(f"slip={slip}: expected a probability in [0, 1]")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode={render_mode!r}: expected None, 'ansi', 'rgb_array' or 'human'")
        self.map, self.slip, self.render_mode = _read(map), slip, render_mode
        self.shape = (len(self.map), len(self.map[0]))
        self.cells = [(r, c) for r, row in enumerate(self.map) for c, symbol in enumerate(row) if symbol != "#"]
        symbols = [self.map[row][column] for row, column in self.cells]
        self.starts = [state for state, symbol in enumerate(symbols) if symbol == "S"]
        rewards = {"G": float(goal_reward), "X": float(pit_reward)}
        # what each move leads to: (state, reward, terminated)
        self._moves = [
            [
                (state, 0.0, True)
                if symbols[state] in "GX"
                else (after, rewards.get(symbols[after], float(step_reward)), symbols[after] in "GX")
                for after in row
            ]
            for state, row in enumerate(_neighbours(self.cells))
        ]
        self.observation_space, self.action_space = Discrete(len(self.cells)), Discrete(len(ACTIONS))
        self.state = self.starts[0]
        self._warn_of_unreachable_goals(symbols)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        """Back to a start cell, drawn from the environment's generator, which a seed renews.

        Raises: ValueError for options: this world has none.
        """
        if options:
            raise ValueError(f"options={options!r:.60}: expected none, a GridWorld is set up when it is made")
        super().reset(seed=seed)
        self.state = self.starts[int(self.np_random.integers(len(self.starts)))]
        self._show()
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        """(observation, reward, terminated, truncated, info); never truncated: `gymnasium.make` adds the time limit.

        Raises: ValueError for an action that is not one of the four.
        """
        try:
            legal = 0 <= operator.index(action) < len(ACTIONS)
        except TypeError:  # 1.5, "up"
            legal = False
        if not legal:
            raise ValueError(f"action={action!r:.60}: expected 0 (up), 1 (right), 2 (down) or 3 (left)")
        if self.slip and (chance := self.np_random.random()) < self.slip:
            action = (action + (1 if chance < self.slip / 2 else 3)) % len(ACTIONS)
        self.state, reward, terminated = self._moves[self.state][action]
        self._show()
        return self.state, reward, terminated, False, {}

    def to_mdp(self, gamma: float = 1.0) -> MDP:
        """The same world as arrays. Goals and pits loop to themselves without reward; there is no time limit.

        Raises: ValueError, before it is made, where the table would not fit: beyond 50 x 50 free cells.
        >>> mdp = GridWorld(["SG"], slip=0.2).to_mdp()
        >>> mdp.P[0, ACTIONS.index("right")], mdp.P[0, ACTIONS.index("up")]
        (tensor([0.2000, 0.8000], dtype=torch.float64), tensor([0.9000, 0.1000], dtype=torch.float64))
        """
        states, actions = len(self.cells), len(ACTIONS)
        check_table(states, actions)
        P, R = torch.zeros(2, states, actions, states, dtype=torch.float64)
        for state, moves in enumerate(self._moves):
            for action in range(actions):
                for turn, chance in ((0, 1 - self.slip), (1, self.slip / 2), (3, self.slip / 2)):
                    after, reward, _ = moves[(action + turn) % actions]
                    P[state, action, after] += chance
                    R[state, action, after] = reward
        start = torch.zeros(states, dtype=torch.float64)
        start[self.starts] = 1 / len(self.starts)
        return MDP(P, torch.where(P > 0, R, 0), start, gamma)

    def render(self) -> str | np.ndarray | None:
        """The map with the agent: as text with '@', or as a picture (H, W, 3) uint8; 'human' prints the text."""
        if self.render_mode == "rgb_array":
            return _picture(self.map, self.cells[self.state])
        row, column = self.cells[self.state]
        rows = list(self.map)
        rows[row] = rows[row][:column] + "@" + rows[row][column + 1 :]
        if self.render_mode == "human":
            print(*rows, sep="\n", end="\n\n", flush=True)
        return "\n".join(rows) if self.render_mode == "ansi" else None

    def _show(self) -> None:
        if self.render_mode == "human":
            self.render()

    def _warn_of_unreachable_goals(self, symbols: list[str]) -> None:
        reached, frontier = set(self.starts), list(self.starts)
        while frontier:
            new = {after for after, _, _ in self._moves[frontier.pop()]} - reached
            reached |= new
            frontier += new
        lost = [self.cells[state] for state, symbol in enumerate(symbols) if symbol == "G" and state not in reached]
        if lost:
            # stacklevel 3: the line that made the world
            warnings.warn(f"no start reaches the goal at (row, column) {', '.join(map(str, lost))}", stacklevel=3)


def _read(given: str | Sequence[str]) -> list[str]:
    """The rows of a map, checked."""
    if isinstance(given, str) and given not in MAPS and "\n" not in given and not set(given) <= set(SYMBOLS):
        raise ValueError(f"map={given!r}: expected one of {', '.join(MAPS)}, or rows of the symbols {SYMBOLS}")
    if isinstance(given, str):
        given = MAPS.get(given) or [line.strip() for line in given.strip().splitlines()]
    if not isinstance(given, Sequence) or not all(isinstance(row, str) for row in given):
        raise ValueError(f"map={given!r}: expected a name or rows, a list of strings")
    rows = list(given)
    for r, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"map row {r} has {len(row)} cells: expected {len(rows[0])}, as row 0 has")
        for column, symbol in enumerate(row):
            if symbol not in SYMBOLS:
                raise ValueError(f"map has {symbol!r} at row {r}, column {column}: expected one of {SYMBOLS}")
    for symbol, name in (("S", "start"), ("G", "goal")):
        if not any(symbol in row for row in rows):
            raise ValueError(f"map has no {name}: expected at least one {symbol!r}")
    return rows


def _neighbours(cells: list[tuple[int, int]]) -> list[list[int]]:
    """For each state, the state each move leads to: the state itself where a wall or the border blocks."""
    number = {cell: state for state, cell in enumerate(cells)}
    return [
        [number.get((row + down, column + right), state) for down, right in _OFFSETS]
        for state, (row, column) in enumerate(cells)
    ]


# ---------------------------------------------------------------- pictures

CELL = 32  # pixels
# Okabe and Ito's palette, and a shape each, for readers who tell few colours apart
_WHITE, _GRAY, _BLACK = (255, 255, 255), (200, 200, 200), (40, 40, 40)
_BLUE, _SKY, _GREEN, _VERMILLION = (0, 114, 178), (86, 180, 233), (0, 158, 115), (213, 94, 0)


def _picture(rows: list[str], agent: tuple[int, int]) -> np.ndarray:
    """Walls black, start a frame, goal a diamond, pit a cross, the agent a disc on top: (H, W, 3) uint8."""
    y, x = np.abs(np.mgrid[:CELL, :CELL] / (CELL - 1) * 2 - 1)  # distance from the cell's middle, 0..1
    edge = np.maximum(x, y)
    shapes = {
        "#": (edge <= 1, _BLACK),
        ".": (edge < 0, _WHITE),
        "S": ((edge > 0.6) & (edge < 0.8), _SKY),
        "G": (x + y < 0.9, _GREEN),
        "X": ((np.abs(x - y) < 0.25) & (edge < 0.8), _VERMILLION),
    }
    picture = np.full((len(rows), len(rows[0]), CELL, CELL, 3), _WHITE, dtype=np.uint8)
    picture[..., edge > 0.95, :] = _GRAY
    for row, line in enumerate(rows):
        for column, symbol in enumerate(line):
            inside, color = shapes[symbol]
            picture[row, column, inside] = color
    picture[*agent, x**2 + y**2 < 0.25] = _BLUE
    return picture.swapaxes(1, 2).reshape(len(rows) * CELL, len(rows[0]) * CELL, 3)


# a second registration, as after a reload, would warn
if ID not in gymnasium.registry:
    gymnasium.register(id=ID, entry_point="ptlearn.grid.gridworld:GridWorld", max_episode_steps=100)
