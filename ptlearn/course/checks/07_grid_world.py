"""Lesson 07: the grid world as an environment and as arrays, its episodes and trajectories, values, the best policy.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import itertools
import math
import random
import statistics

import torch

from ptlearn.course.cases import masks, tensors
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.policy_gradient import episode_returns

# 7.1 A slippery move -------------------------------------------------------------------------------------------------

STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # (down, right) of the moves up, right, down, left
UPSIDE_DOWN, SIDEWAYS = ((1, 0), (0, 1), (-1, 0), (0, -1)), ((0, -1), (1, 0), (0, 1), (-1, 0))
MAP = ["S..#", ".#..", "...G"]
CORNERS = [([0, 0], 0), ([0, 0], 1), ([2, 0], 2), ([2, 3], 1), ([1, 0], 1), ([1, 2], 3), ([0, 2], 1), ([1, 3], 2)]


def landing(rows, cell, action, steps=STEPS, blocking="#", border="stay"):
    """The cell that a move leads to, with the mistakes that can be made about what blocks."""
    row, column = cell[0] + steps[action % 4][0], cell[1] + steps[action % 4][1]
    low = int(border == "first")
    inside = low <= row < len(rows) and low <= column < len(rows[0])
    if not inside and border == "wrap":
        row, column, inside = row % len(rows), column % len(rows[0]), True
    if not inside and border == "leave":
        return row, column
    return tuple(cell) if not inside or rows[row][column] in blocking else (row, column)


def next_cells(rows, cell, action, slip):
    """The package's answer, which `GridWorld.to_mdp` turns into an array: chances that end in the same cell add up."""
    chances = {}
    for turn, chance in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
        place = landing(rows, cell, action + turn)
        chances[place] = chances.get(place, 0.0) + chance
    return chances


def slip_cases(rng):
    """Every border, wall and corner of a map, a free cell for each action, a cell without a way out, a corridor."""
    places = [*((["..."] * 3, [1, 1], a) for a in range(4)), (["S#"], [0, 0], 1), (["..."], [0, 1], rng.randrange(4))]
    places += [(MAP, cell, action) for cell, action in CORNERS]
    keys, slips = ("rows", "cell", "action", "slip"), (0.1, 0.2, 0.3, 0.4)
    return [dict(zip(keys, (*place, rng.choice(slips)))) for place in places]


def drive_slip(answer, case):
    return chances_of(answer(case["rows"], tuple(case["cell"]), case["action"], case["slip"]))


def chances_of(found):
    """{"(row, column)": probability} for JSON, without what has none; anything but a dict as it is."""
    if not isinstance(found, dict):
        return found
    places = {str(tuple(map(int, key)) if isinstance(key, tuple) else key): found[key] for key in found}
    return {place: float(chance) for place, chance in places.items() if abs(chance) > 1e-9}


def outcome(case, turns, **mistake):
    """The chances over turns of the action; None stands for staying."""
    cell, action, chances = tuple(case["cell"]), case["action"], {}
    for turn, chance in turns:
        place = cell if turn is None else landing(case["rows"], cell, action + turn, **mistake)
        chances[place] = chances.get(place, 0.0) + chance
    return chances_of(chances)


def expect_slip(case):
    slip, cell = case["slip"], str(tuple(case["cell"]))
    right = ((0, 1 - slip), (1, slip / 2), (3, slip / 2))
    expected = outcome(case, right)
    free = {place: chance for place, chance in expected.items() if place != cell}
    (meant,) = outcome(case, ((0, 1.0),))
    turned = {
        "slip is the probability of both sides together: half of it each, and 1 - slip for the move that was meant":
            ((0, 1 - 2 * slip), (1, slip), (3, slip)),
        "slip is counted twice: each side has half of it": ((0, 1 - slip), (1, slip), (3, slip)),
        "the slip goes backwards: it goes to the two moves perpendicular to the one that was meant":
            ((0, 1 - slip), (2, slip)),
        "the agent moves away from where it meant to go": ((2, 1 - slip), (1, slip / 2), (3, slip / 2)),
        "the slip goes to the right alone: half of it to each side": ((0, 1 - slip), (1, slip)),
        "the slip goes to the left alone: half of it to each side": ((0, 1 - slip), (3, slip)),
        "the slip goes to three moves: one step backwards is not among them":
            ((0, 1 - slip), (1, slip / 3), (2, slip / 3), (3, slip / 3)),
        "the slip goes to all four moves: only to the two perpendicular ones":
            ((0, 1 - slip * 3 / 4), (1, slip / 4), (2, slip / 4), (3, slip / 4)),
        "a slip leaves the agent where it is: it moves it sideways": ((0, 1 - slip), (None, slip)),
    }
    moved = {
        "up and down are exchanged: rows are counted from the top, so up is row - 1": {"steps": UPSIDE_DOWN},
        "row and column are exchanged: up and down change the row": {"steps": SIDEWAYS},
        "the agent walks through walls: a '#' blocks like the border": {"blocking": ""},
        "only '.' is taken for free: the agent can enter 'S' and 'G' too": {"blocking": "#SG"},
        "the border wraps around: index -1 is the last row in Python, so test for it": {"border": "wrap"},
        "the agent leaves the map: at the border it stays where it is": {"border": "leave"},
        "row 0 and column 0 are taken for the border: they are on the map": {"border": "first"},
    }
    mistakes = {words: outcome(case, turns) for words, turns in turned.items()}
    mistakes |= {words: outcome(case, right, **mistake) for words, mistake in moved.items()}
    mistakes["blocked moves are left out: a blocked agent stays in its cell, with that probability"] = free
    mistakes["where the way is blocked the agent stays for certain: it may still slip"] = (
        expected if meant != cell else {cell: 1.0}
    )
    if free:
        mistakes["blocked moves are left out and the rest scaled up: a blocked agent stays in its cell"] = {
            place: chance / sum(free.values()) for place, chance in free.items()
        }
    return expected, mistakes


def remark_slip(case, data):
    """What cannot be true of any such move."""
    if not isinstance(data, dict):
        return None
    rows, total = case["rows"], sum(data.values())
    cells = {str((row, column)): mark for row, marks in enumerate(rows) for column, mark in enumerate(marks)}
    for place in data:
        if place not in cells:
            return f"{place} is not a cell (row, column) of the map"
        if cells[place] == "#":
            return f"the agent ends in {place}, a wall: a '#' blocks like the border"
    if total < 1 - 1e-6 and len(expect_slip(case)[0]) < 3:
        return f"the probabilities sum to {total:.3g}: where two moves end in the same cell, theirs add up"
    return f"the probabilities sum to {total:.3g}, not 1" if abs(total - 1) > 1e-6 else None


# 7.2 The environment's step ------------------------------------------------------------------------------------------

SIDES = {"meant": 0, "right of it": 1, "back": 2, "left of it": 3}
DRAWS = 2000  # moves whose shares are measured: a standard error of 0.011 at most


class SlipperyGrid:
    """The package's answer: `GridWorld` with a time limit, its cells as (row, column)."""

    def __init__(self, rows, slip, limit=100, seed=0):
        self.rows, self.slip, self.limit, self.random = rows, slip, limit, random.Random(seed)

    def reset(self):
        [self.cell] = [(r, row.index("S")) for r, row in enumerate(self.rows) if "S" in row]
        self.steps = 0
        return self.cell

    def step(self, action):
        chances = next_cells(self.rows, self.cell, action, self.slip)
        [self.cell] = self.random.choices([*chances], weights=[*chances.values()])
        self.steps += 1
        symbol = self.rows[self.cell[0]][self.cell[1]]
        return self.cell, {"G": 1.0, "X": -1.0}.get(symbol, 0.0), symbol in "GX", self.steps >= self.limit


def grid_cases(rng):
    """On a dry floor into the star, into the pit, and until patience ends, twice; then one slippery move, often."""
    bump = [rng.choice((0, 3)) for _ in range(rng.randint(1, 2))]  # from the corner nowhere
    maps = (["S.G", "#.X"], ["S.G", "#.X"], ["S..", ".#."])
    plans = (bump + [1, 1], bump + [2, 1, 2, 1], [rng.randrange(4) for _ in range(9)])
    limits = (50, 50, rng.choice((3, 4)))
    dry = [{"rows": m, "slip": 0.0, "limit": n, "seed": 1, "actions": a} for m, a, n in zip(maps, plans, limits)]
    rows, action = rng.choice(((["S."], 1), (["S", "."], 2)))  # both sides are blocked
    wet = {"rows": rows, "slip": rng.choice((0.2, 0.4)), "limit": 50, "seed": rng.randrange(99)}
    return [*dry, wet | {"actions": [], "often": action}]


def drive_grid(answer, case):
    world = answer(case["rows"], case["slip"], case["limit"], case["seed"])
    said = script(world.reset, world.step, case["actions"])
    counts = dict.fromkeys([*SIDES, "stayed"], 0)
    for _ in range(DRAWS if "often" in case else 0):
        row, column = (int(after) - int(before) for before, after in zip(world.reset(), world.step(case["often"])[0]))
        turns = [name for name, turn in SIDES.items() if STEPS[(case["often"] + turn) % 4] == (row, column)]
        counts[turns[0] if turns else "stayed"] += 1
    return said | {"slip": rounded({name: count / DRAWS for name, count in counts.items()})}


def script(reset, step, actions):
    """What an environment says while these actions are taken; it is reset whenever an episode is over."""
    said = {"reset": [list(map(int, reset()))], "cell": [], "reward": [], "terminated": [], "truncated": []}
    for action in actions:
        cell, reward, terminated, truncated = step(action)
        parts = list(map(int, cell)), float(reward), bool(terminated), bool(truncated)
        for name, part in zip(("cell", "reward", "terminated", "truncated"), parts):
            said[name].append(part)
        if terminated or truncated:
            said["reset"].append(list(map(int, reset())))
    return said


def imitated(case, *, pays=(1.0, -1.0), leaving=False, ends="GX", limit=0, both=False, kept="", old=False):
    """The script's answers in a dry world with a mistake."""
    rows, cell, steps = case["rows"], None, 0
    [home] = [(r, row.index("S")) for r, row in enumerate(rows) if "S" in row]

    def reset():
        nonlocal cell, steps
        cell = cell if kept == "cell" and cell else home
        steps = steps if kept == "steps" else 0
        return cell

    def step(action):
        nonlocal cell, steps
        before, cell, steps = cell, landing(rows, cell, action), steps + 1
        paid = before if leaving else cell
        reward = {"G": pays[0], "X": pays[1]}.get(rows[paid[0]][paid[1]], 0.0)
        over, late = rows[cell[0]][cell[1]] in ends, steps >= case["limit"] + limit
        return (before if old else cell), reward, over or both and late, late

    return script(reset, step, case["actions"])


def expect_grid(case):
    mistakes = {
        "the pit pays like the star: it costs 1": {"pays": (1.0, 1.0)},
        "the pit costs nothing: its reward is -1": {"pays": (1.0, 0.0)},
        "the reward is looked up in the cell that is left: entering pays": {"leaving": True},
        "the pit ends the episode too": {"ends": "G"},
        "the end of patience is called terminated: it is truncated": {"both": True},
        "one step too late: step number `limit` truncates": {"limit": 1},
        "one step too early: step number `limit` truncates": {"limit": -1},
        "steps of earlier episodes are still counted: reset begins at 0": {"kept": "steps"},
        "patience never ends: count the steps": {"limit": 10**6},
        "reset leaves the agent where it is: back to S": {"kept": "cell"},
        "the cell that is left comes back: return the one that is entered": {"old": True},
    }
    slip, none = case["slip"], dict.fromkeys([*SIDES, "stayed"], 0.0)
    moved = none | {"meant": 1 - slip, "stayed": slip} if slip else none
    expected = imitated(case) | {"slip": rounded(moved)}
    wrong = {words: imitated(case, **mistake) | {"slip": expected["slip"]} for words, mistake in mistakes.items()}
    draws = {
        "the cells are drawn with equal chances: weigh them with what next_cells says": {"meant": 0.5, "stayed": 0.5},
        "the likeliest cell is always taken: draw one": {"meant": 1.0},
    }
    drawn = {words: expected | {"slip": none | (given if slip else {})} for words, given in draws.items()}
    return expected, wrong | drawn


# 7.3 The world as arrays ---------------------------------------------------------------------------------------------


def world_arrays(rows, slip):
    """The package's answer, as `GridWorld.to_mdp` makes them."""
    cells = [(r, c) for r, row in enumerate(rows) for c, symbol in enumerate(row) if symbol != "#"]
    number = {cell: state for state, cell in enumerate(cells)}
    P, R = torch.zeros(2, len(cells), 4, len(cells), dtype=torch.float64)
    for state, cell in enumerate(cells):
        for action in range(4):
            over = rows[cell[0]][cell[1]] in "GX"
            for place, chance in ({cell: 1.0} if over else next_cells(rows, cell, action, slip)).items():
                P[state, action, number[place]] = chance
                R[state, action, number[place]] = 0.0 if over else paid_in(rows, place)
    return P, R, torch.tensor([float(rows[r][c] == "S") for r, c in cells], dtype=torch.float64)


def paid_in(rows, cell):
    return {"G": 1.0, "X": -1.0}.get(rows[cell[0]][cell[1]], 0.0)


def arrays_cases(rng):
    """A wall, both ends and a start that is not the first cell."""
    slips = [rng.choice((0.1, 0.2, 0.3)) for _ in range(3)]
    return [{"rows": rows, "slip": slip} for rows, slip in zip((["SG"], [".S", "XG"], ["S#.", "..X", ".G."]), slips)]


def drive_arrays(answer, case):
    P, R, start = answer(case["rows"], case["slip"])
    same = P.shape == R.shape  # R counts where P is above 0
    return {"P": P, "P * R": P * R if same else R, "start": start}


def expect_arrays(case):
    rows, slip = case["rows"], case["slip"]
    cells = [(r, c) for r, row in enumerate(rows) for c, symbol in enumerate(row) if symbol != "#"]

    def made(over="GX", reads=next_cells, value=lambda cell, place, chance: chance):
        """A table [s][a][s'] of value(s, s', chance), 1 where an episode that is over stays."""
        table = []
        for cell in cells:
            ended = rows[cell[0]][cell[1]] in over
            moves = [{cell: 1.0} if ended else reads(rows, cell, action, slip) for action in range(4)]
            table.append([[value(cell, place, row.get(place, 0.0)) for place in cells] for row in moves])
        return table

    def over(cell):
        return rows[cell[0]][cell[1]] in "GX"

    def paid(entered=True, again=False, pit=-1.0, weighted=1):
        def value(cell, place, chance):
            reward = paid_in(rows, place if entered else cell)
            return chance**weighted * (pit if reward < 0 else reward) * (again or not over(cell))

        return made(value=value)

    start = [float(rows[r][c] == "S") for r, c in cells]
    P, open_end = made(), made(over="")
    expected = {"P": P, "P * R": paid(), "start": start}
    mistakes = {
        ("P", "the agent walks out of G and X: the episode is over there, every action stays"): open_end,
        ("P", "it walks out of X: the pit ends the episode too"): made(over="G"),
        ("P", "it leads nowhere from G and X, its rows are 0: every action stays there for certain"): made(
            value=lambda cell, place, chance: 0.0 if over(cell) else chance),
        ("P", "it stands at P[s', a, s]: the first index is where a move begins"): transposed(P),
        ("P * R", "the end pays again and again: in G and X nothing is paid"): paid(again=True),
        ("P * R", "the reward is that of the cell that is left: entering pays"): paid(entered=False, again=True),
        ("P * R", "the pit pays like the star: it costs 1"): paid(pit=1.0),
        ("P * R", "the pit costs nothing: it costs 1"): paid(pit=0.0),
        ("P * R", "R is weighed with the chance already: it is what is paid where s' is reached"): paid(weighted=2),
        ("start", "every state begins: only S does"): [1 / len(cells)] * len(cells),
        ("start", "the first cell begins: look for S"): [1.0] + [0.0] * (len(cells) - 1),
    }  # fmt: skip
    return expected, mistakes


def transposed(table):
    """A table [s][a][s'] with s and s' exchanged."""
    size = range(len(table))
    return [[[table[after][action][state] for after in size] for action in range(len(table[0]))] for state in size]


# 7.4 An episode ------------------------------------------------------------------------------------------------------


def sample_episode(P, R, start, pi, terminal, horizon, generator):
    """The package's answer, one row of `collect`."""

    def draw(row):
        return int(torch.multinomial(row, 1, generator=generator))

    states, actions, rewards = [draw(start)], [], []
    while len(actions) < horizon and not terminal[states[-1]]:
        actions.append(draw(pi[states[-1]]))
        states.append(draw(P[states[-1], actions[-1]]))
        rewards.append(float(R[states[-2], actions[-1], states[-1]]))
    return states, actions, rewards


def episode_cases(rng):
    """Worlds without chance: cut off, ended, over at once. Then a long episode of a world with chance."""
    ring = [[2, 1], [0, 2], [1, 0]]  # state s, action a leads to ring[s][a]
    chosen = [rng.randrange(2) for _ in range(3)]
    R = [[[float(rng.randint(-9, 9)) for _ in range(3)] for _ in range(2)] for _ in range(3)]
    sure = {
        "P": [[one_hot(after, 3) for after in row] for row in ring], "R": R,
        "pi": [one_hot(action, 2) for action in chosen], "start": one_hot(0, 3), "horizon": 4,
        "terminal": [False] * 3,
    }  # fmt: skip
    ends = one_hot(ring[0][chosen[0]], 3)
    share = {
        "P": [[[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]]] * 3, "R": R, "pi": [[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]],
        "start": one_hot(0, 3), "horizon": 3500, "terminal": [False] * 3, "seed": rng.randrange(99),
    }  # fmt: skip
    over = {"start": ends, "terminal": [end > 0 for end in ends]}
    return [sure, sure | {"terminal": [end > 0 for end in ends]}, sure | over, share]


def one_hot(place, size):
    return [float(index == place) for index in range(size)]


def drive_episode(answer, case):
    P, R, start, pi = tensors(case, "P", "R", "start", "pi")
    generator = torch.Generator().manual_seed(case.get("seed", 0))
    given = (P, R, start, pi, torch.tensor(case["terminal"]), case["horizon"], generator)
    if "seed" not in case:
        return dict(zip(("states", "actions", "rewards"), answer(*given))) | {"shares": {}}
    states, actions, _ = answer(*given)
    moves = list(zip(map(int, states), map(int, actions), map(int, states[1:])))
    shares = {f"action 0 in state {state}": [a == 0 for s, a, _ in moves if s == state] for state in (0, 1)}
    for action in (0, 1):
        shares[f"state 0 after action {action}"] = [after == 0 for _, a, after in moves if a == action]
    shares = {name: sum(drawn) / max(1, len(drawn)) for name, drawn in shares.items()}
    return {"states": [], "actions": [], "rewards": [], "shares": rounded(shares)}


def expect_episode(case):
    P, R, start, pi = (case[name] for name in ("P", "R", "start", "pi"))
    if "seed" in case:
        names = ("action 0 in state 0", "action 0 in state 1", "state 0 after action 0", "state 0 after action 1")
        shares = dict(zip(names, (pi[0][0], pi[1][0], P[0][0][0], P[0][1][0])))
        wrong = {
            "the likeliest is always taken: draw it": dict(zip(names, (1.0, 0.0, 1.0, 0.0))),
            "the likeliest action is always taken: draw it from pi":
                shares | dict(zip(names, (1.0, 0.0))),
        }  # fmt: skip
        nothing = {"states": [], "actions": [], "rewards": []}
        found = {("shares", words): rounded(given) for words, given in wrong.items()}
        return nothing | {"shares": rounded(shares)}, found

    def run(horizon=case["horizon"], stops=True, paid=lambda s, a, after: R[s][a][after], first=None):
        states, actions, rewards = [start.index(1.0) if first is None else first], [], []
        while len(actions) < horizon and not (stops and case["terminal"][states[-1]]):
            actions.append(pi[states[-1]].index(1.0))
            states.append(P[states[-1]][actions[-1]].index(1.0))
            rewards.append(paid(*states[-2:-1], actions[-1], states[-1]))
        return dict(zip(("states", "actions", "rewards"), (states, actions, rewards))) | {"shares": {}}

    expected, paid = run(), run()["rewards"]
    return expected, {
        "one step too many: T is at most the horizon": run(horizon=case["horizon"] + 1),
        "one step too few: T may be the horizon": run(horizon=case["horizon"] - 1),
        "it goes on where the episode is over: look at terminal first": run(stops=False),
        "it always begins in state 0: draw from start": run(first=0),
        ("states", "the last state is missing: T actions lead through T + 1 states"): expected["states"][:-1],
        ("states", "the first state is missing: T actions lead through T + 1 states"): expected["states"][1:],
        ("rewards", "they are read at R[s, a, s]: s' is the state that follows"):
            run(paid=lambda s, a, after: R[s][a][s])["rewards"],
        ("rewards", "they are read at R[s', a, s]: s comes first"):
            run(paid=lambda s, a, after: R[after][a][s])["rewards"],
        ("rewards", "they are added up: one for each step"): [sum(paid[: t + 1]) for t in range(len(paid))],
    }  # fmt: skip


def rounded(shares):
    """Shares in tenths: the right ones are tenths, and noise does not reach half of one."""
    return {name: round(10 * share) / 10 for name, share in shares.items()}


# 7.5 The return of an episode ----------------------------------------------------------------------------------------


def return_cases(rng):
    """Padding holds numbers that must not count; gamma is 0, 1 and between; a single step, and a single episode."""
    cases = []
    for gamma, lengths in ((0.5, [3, 1]), (1.0, [2, 4]), (0.0, [2, 3]), (0.8, [6, 2, 4]), (0.9, [1])):
        steps = max(lengths)
        rewards = [[rng.randint(1, 9) * rng.choice((-0.5, 0.5)) for _ in range(steps)] for _ in lengths]
        cases.append({"rewards": rewards, "mask": masks(lengths, steps), "gamma": gamma})
    return cases


def drive_returns(answer, case):
    kind = torch.float32 if len(case["mask"]) > 2 else torch.float64  # the lesson has both
    return answer(torch.tensor(case["rewards"], dtype=kind), torch.tensor(case["mask"]), gamma=case["gamma"])


def expect_returns(case):
    gamma, full = case["gamma"], case["rewards"]
    rows = [row[: sum(acted)] for row, acted in zip(full, case["mask"])]

    def by(factor, rows=rows):
        """For each row the sum of factor(t, its length) times reward."""
        return [sum(factor(t, len(row)) * reward for t, reward in enumerate(row)) for row in rows]

    def discounted(t, n):
        return gamma**t

    expected = by(discounted)
    to_go = [[*by(discounted, [row[t:] for t in range(len(row))]), *[0.0] * (len(full[0]) - len(row))] for row in rows]
    mistakes = {
        "gamma is ignored, and so is mask": by(lambda t, n: 1, full),
        "the mask is turned round": [whole - part for whole, part in zip(by(discounted, full), expected)],
        "the discount runs backwards: the last reward is the one that is discounted most":
            Alternatives(by(lambda t, n: gamma ** (n - 1 - t)), by(lambda t, n: gamma ** (len(full[0]) - 1 - t))),
        "each reward is discounted once: the factor is gamma^t at step t": by(lambda t, n: gamma if t else 1),
        "the sum is multiplied by gamma once: the factor is gamma^t at step t": by(lambda t, n: gamma),
        "the whole sum is discounted by the length: the factor is gamma^t at step t": by(lambda t, n: gamma**n),
        "the factor is gamma * t: it is gamma to the power of t": by(lambda t, n: gamma * t),
        "this is a mean: a return is a sum":
            Alternatives(by(lambda t, n: gamma**t / n), by(lambda t, n: gamma**t / len(full[0]))),
        "this is the last reward alone": by(lambda t, n: t == n - 1),
        "this is summed over the episodes: one return per row": [sum(column) for column in zip(*full)],
        "these are the returns from every step on: the episode's return is the first of them": to_go,
    }
    return expected, mistakes


# 7.6 The probability of a trajectory ---------------------------------------------------------------------------------


def trajectory_probability(start, P, pi, states, actions):
    """The package's answer; `enumerate_trajectories` multiplies the same factors along its paths."""
    probability = float(start[states[0]])
    for state, action, after in zip(states[:-1], actions, states[1:], strict=True):
        probability *= float(pi[state, action] * P[state, action, after])
    return probability


def some_probabilities(rng, count):
    parts = [rng.randint(2, 9) for _ in range(count)]
    return [part / sum(parts) for part in parts]


def trajectory_cases(rng):
    """No step, one in a world that can be pasted, several; a state that follows itself, a start that cannot be."""
    cases = []
    for count, actions, states in ((2, 2, [0, 1]), (3, 2, [2, 0, 0, 1]), (4, 3, [1, 3, 0]), (3, 2, [1])):
        P = [[some_probabilities(rng, count) for _ in range(actions)] for _ in range(count)]
        pi = [some_probabilities(rng, actions) for _ in range(count)]
        taken = [rng.randrange(actions) for _ in states[1:]]
        cases.append({"start": some_probabilities(rng, count), "P": P, "pi": pi, "states": states, "actions": taken})
    cases[0]["pi"] = [[0.3, 0.7], [0.8, 0.2]]
    return [*cases, cases[0] | {"start": [0.0, 1.0]}]


def expect_trajectory(case):
    start, P, pi, states, actions = (case[name] for name in ("start", "P", "pi", "states", "actions"))
    steps = list(zip(states, actions, states[1:]))
    first = start[states[0]]
    chosen = [pi[s][a] for s, a, _ in steps]
    moved = [P[s][a][after] for s, a, after in steps]

    def product(first=first, chosen=chosen, moved=moved):
        return first * math.prod(chosen) * math.prod(moved)

    expected = product()
    mistakes = {
        "only the policy is counted: p(s_1) and p(s_{t+1} | s_t, a_t) are factors too": product(first=1, moved=[]),
        "only the dynamics are counted: p(s_1) and pi(a_t | s_t) are factors too": product(first=1, chosen=[]),
        "the last transition is missing: T actions make T transitions, into T + 1 states": product(moved=moved[:-1]),
        "the last step is missing: states has one entry more than actions": product(first, chosen[:-1], moved[:-1]),
        "the first step is missing: it is taken in the first state": product(first, chosen[1:], moved[1:]),
        "the action is looked up in the state that follows: pi(a_t | s_t), in the state it is chosen in":
            product(chosen=[pi[after][a] for _, a, after in steps]),
        "P is read backwards: P[s, a, s'] is the way from s to s'": product(moved=[P[t][a][s] for s, a, t in steps]),
        "P is read at P[s, a, s]: s' is the state that follows": product(moved=[P[s][a][s] for s, a, _ in steps]),
        "p(s_1) is a factor of every step: of the whole trajectory it is one factor": product(first ** len(steps)),
        "every state has a factor from start: the first one alone": product(math.prod(start[s] for s in states)),
        "these factors are added: the probability of all of them together is their product":
            first + sum(chosen) + sum(moved),
        "the factors of the steps are added: the probability of all of them together is their product":
            first + sum(c * m for c, m in zip(chosen, moved)),
        "this is the logarithm of the probability": math.log(expected) if expected else -math.inf,
    }
    return expected, mistakes


# 7.7 Every trajectory ------------------------------------------------------------------------------------------------


def trajectories(P, pi, terminal, state, steps):
    """The package's answer, one row of `mdp.enumerate_trajectories` each."""
    if steps == 0 or terminal[state]:
        return [([state], [])]
    return [
        ([state, *states], [action, *actions])
        for action, after in (pi[state][:, None] * P[state] > 0).nonzero().tolist()
        for states, actions in trajectories(P, pi, terminal, after, steps - 1)
    ]


def listing_cases(rng):
    """Entries of 0 in P and in pi, an end on the way and one at the start, no step at all."""
    P = [[[0.0, 0.5, 0.5], [0.3, 0.0, 0.7]], [[0.2, 0.0, 0.8], [1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]] * 2]
    pi = [[0.4, 0.6], rng.choice(([1.0, 0.0], [0.0, 1.0])), [0.5, 0.5]]
    world = {"P": P, "pi": pi, "terminal": [False, False, True]}
    return [world | {"state": state, "steps": steps} for state, steps in ((0, 1), (0, 3), (1, 2), (2, 2), (0, 0))]


def drive_listing(answer, case):
    P, pi = tensors(case, "P", "pi")
    found = answer(P, pi, torch.tensor(case["terminal"]), case["state"], case["steps"])
    return in_words((list(map(int, states)), list(map(int, actions))) for states, actions in found)


def in_words(found):
    """Trajectories in an order of their own: "0 -1> 2" goes from state 0 by action 1 to state 2."""
    words = []
    for states, actions in found:
        moves = [f" -{action}> {after}" for action, after in zip(actions, states[1:])]
        words.append(f"{''.join([*map(str, states[:1]), *moves])} ({len(states)} states, {len(actions)} actions)")
    return {"how many": len(words), "trajectories": sorted(words)}


def expect_listing(case):
    P, pi, terminal = (case[name] for name in ("P", "pi", "terminal"))

    def all_of(state, steps, stops=True, seen=lambda s, a, after: pi[s][a] * P[s][a][after] > 0, every=False):
        over = steps == 0 or stops and terminal[state]
        found = [([state], [])] if over or every else []
        for a in range(2) if not over else ():
            for after in range(3):
                if seen(state, a, after):
                    rest = all_of(after, steps - 1, stops, seen, every)
                    found += [([state, *states], [a, *actions]) for states, actions in rest]
        return found

    def listed(steps=case["steps"], **mistake):
        return in_words(all_of(case["state"], steps, **mistake))

    right = all_of(case["state"], case["steps"])
    mistakes = {
        "one step too many": listed(steps=case["steps"] + 1),
        "it goes on where the episode is over: look at terminal": listed(stops=False),
        "what the policy never does is listed: where pi is 0": listed(seen=lambda s, a, after: P[s][a][after] > 0),
        "what the world never does is listed: where P is 0": listed(seen=lambda s, a, after: pi[s][a] > 0),
        "unfinished trajectories are listed too: only whole ones, which take all steps or end": listed(every=True),
        "the states are one too few: the last one is where the trajectory ended": in_words(
            (states[:-1] or states, actions) for states, actions in right),
        "those that end early are left out": in_words(
            (states, actions) for states, actions in right if len(actions) == case["steps"]),
    }  # fmt: skip
    return listed(), mistakes


# 7.8 A mean and its error --------------------------------------------------------------------------------------------


def mean_and_error(returns):
    """The package's answer: the sample mean, and s / sqrt(N)."""
    return returns.mean(), returns.std() / len(returns) ** 0.5


def error_cases(rng):
    """Two returns, a few, many with the same few values, and equal ones."""
    few = [[round(rng.uniform(-2, 3), 2) for _ in range(count)] for count in (2, 5, 8)]
    return [*few, [float(rng.randint(-1, 1)) for _ in range(20)] + [1.0, -1.0, 0.0], [2.0, 2.0, 2.0]]


def drive_error(answer, case):
    found = answer(torch.tensor(case, dtype=torch.float64))
    names = ("mean", "standard error")
    return dict(zip(names, found)) if isinstance(found, tuple | list) and len(found) == 2 else found


def expect_error(case):
    n, mean = len(case), sum(case) / len(case)
    squares = sum((x - mean) ** 2 for x in case)
    spread = math.sqrt(squares / (n - 1))
    errors = {
        "this is the spread of single returns: their mean shakes less, divide by the root of N": spread,
        "this is the spread of single returns, and with N for N - 1: divide by the root of N": math.sqrt(squares / n),
        "divided by N: variances add up, so the error of a mean falls with the root of N": spread / n,
        "this is the squared error: take the root of s^2 / N": spread**2 / n,
        "this is the squared error, and with N for N - 1: take the root of s^2 / N": squares / n**2,
        "this is the variance of single returns: take the root, and divide by the root of N": spread**2,
        "the variance is divided by the root of N: it is the standard deviation that is": spread**2 / math.sqrt(n),
        "the variance is divided by N, expected N - 1: the mean was estimated from the same returns":
            math.sqrt(squares) / n,
        "divided by the root of N - 1: N - 1 is for the variance, the mean is of N returns": spread / math.sqrt(n - 1),
        "multiplied by 1.96: that is half of the 95 % interval, not the standard error": 1.96 * spread / math.sqrt(n),
        "the mean square is taken around 0: deviations are from the mean":
            math.sqrt(sum(x * x for x in case) / (n - 1) / n),
        "this is the mean deviation: square the deviations": sum(abs(x - mean) for x in case) / n,
    }
    expected = {"mean": mean, "standard error": spread / math.sqrt(n)}
    mistakes = {("standard error", words): wrong for words, wrong in errors.items()}
    mistakes["mean", "the mean is divided by N - 1: that is for the variance, a mean has N"] = mean * n / (n - 1)
    mistakes["the two are exchanged: the mean first"] = {"mean": expected["standard error"], "standard error": mean}
    low, high = (mean + sign * 1.96 * expected["standard error"] for sign in (-1, 1))
    mistakes["these are the ends of the 95 % interval"] = {"mean": low, "standard error": high}
    return expected, mistakes


# 7.9 Do intervals keep their word? -----------------------------------------------------------------------------------


def intervals(returns, size, truth):
    """The package's answer: mean ± 1.96 standard errors of each group, and how many contain the truth."""
    groups = returns[: len(returns) // size * size].view(-1, size)
    half = 1.96 * groups.std(1) / size**0.5
    low, high = groups.mean(1) - half, groups.mean(1) + half
    return low, high, float(((low <= truth) & (truth <= high)).double().mean())


def intervals_cases(rng):
    """With a rest, of two returns or of one, and without; the groups lie around numbers of their own."""
    cases = []
    for count, size in ((22, 4), (16, 3), (20, 10)):
        around = [rng.choice((-1.5, 0.0, 1.5)) for _ in range(count)]
        returns = [round(around[place // size] + rng.gauss(0, 1), 3) for place in range(count)]
        cases.append({"returns": returns, "size": size, "truth": 0.25})
    return cases


def drive_intervals(answer, case):
    found = answer(*tensors(case, "returns"), case["size"], case["truth"])
    return dict(zip(("low", "high", "share"), found)) if isinstance(found, tuple | list) and len(found) == 3 else found


def expect_intervals(case):
    returns, size, truth = case["returns"], case["size"], case["truth"]
    count = len(returns) // size
    groups = [returns[k * size : (k + 1) * size] for k in range(count)]
    rest = returns[count * size :]

    def made(groups=groups, half=lambda group: 1.96 * statistics.stdev(group) / math.sqrt(len(group))):
        middles, halves = [sum(group) / len(group) for group in groups], [half(group) for group in groups]
        low, high = ([m + sign * h for m, h in zip(middles, halves)] for sign in (-1, 1))
        inside = [a <= truth <= b for a, b in zip(low, high)]
        return {"low": low, "high": high, "share": sum(inside) / len(inside)}

    expected = made()
    low, high, share = expected.values()
    above, below = (sum(found) / count for found in ([a <= truth for a in low], [truth <= b for b in high]))
    mean = sum(returns) / len(returns)
    mistakes = {
        "size is taken for the number of intervals: it is the number of returns in each":
            made([returns[k * count : (k + 1) * count] for k in range(size)]) if count > 1 else expected,
        "every so-and-so-many-th return is taken: the first `size` of them make the first interval":
            made([returns[k : count * size : count] for k in range(count)]),
        "the intervals overlap: each takes returns of its own":
            made([returns[k : k + size] for k in range(len(returns) - size + 1)]),
        "this is the spread of single returns: divide by the root of size":
            made(half=lambda group: 1.96 * statistics.stdev(group)),
        "divided by size: the error of a mean falls with the root of it":
            made(half=lambda group: 1.96 * statistics.stdev(group) / size),
        "one standard error to each side: for 95 % it takes 1.96": made(
            half=lambda group: statistics.stdev(group) / math.sqrt(size)),
        "the variances have N, not N - 1: the means are of the same returns":
            made(half=lambda group: 1.96 * statistics.pstdev(group) / math.sqrt(size)),
        "divided by the root of all N: an interval is made of `size` returns":
            made(half=lambda group: 1.96 * statistics.stdev(group) / math.sqrt(len(returns))),
        "all intervals have the same width: each estimates its own error":
            made(half=lambda group: 1.96 * statistics.stdev(returns) / math.sqrt(size)),
        "the ends are exchanged: low first": expected | {"low": high, "high": low},
        ("share", "it is asked of the lower end alone: the truth lies between the two"): above,
        ("share", "it is asked of the upper end alone: the truth lies between the two"): below,
        ("share", "this is the share that misses the truth"): 1 - share,
        ("share", "this is how many contain the truth: divide by the number of intervals"): share * count,
        ("share", "divided by the number of returns: divide by the number of intervals"): share * count / len(returns),
        ("share", "either end is enough: the truth lies above the lower and below the upper one"):
            sum(a <= truth or truth <= b for a, b in zip(low, high)) / count,
        ("share", "they are held against 0: the truth is given"): sum(a <= 0 <= b for a, b in zip(low, high)) / count,
        ("share", "this is in percent: a share is at most 1"): 100 * share,
        ("share", "they are held against the mean of the sample: the truth is given"):
            sum(a <= mean <= b for a, b in zip(low, high)) / count,
    }  # fmt: skip
    if len(rest) > 1:
        mistakes["the rest makes one more interval: it is too short, leave it out"] = made([*groups, rest])
    return expected, mistakes


# 7.10 The values of a policy -----------------------------------------------------------------------------------------


def policy_values(P, R, pi, gamma):
    """The package's answer, as `mdp.state_values` finds it: V = r + gamma P V, solved."""
    rewards = (pi[:, :, None] * P * R).sum((1, 2))
    transitions = (pi[:, :, None] * P).sum(1)
    return torch.linalg.solve(torch.eye(len(P), dtype=P.dtype) - gamma * transitions, rewards)


def world_case(rng, gamma, states=4, actions=3):
    """Any state may follow any other, but the last, which loops to itself and pays nothing."""
    P = [[some_probabilities(rng, states) for _ in range(actions)] for _ in range(states - 1)]
    R = [[[float(rng.randint(-4, 6)) for _ in range(states)] for _ in range(actions)] for _ in range(states - 1)]
    return {
        "P": [*P, [[0.0] * (states - 1) + [1.0]] * actions],
        "R": [*R, [[0.0] * states] * actions],
        "pi": [some_probabilities(rng, actions) for _ in range(states)],
        "gamma": gamma,
    }


def values_cases(rng):
    return [world_case(rng, *sizes) for sizes in ((0.4, 2, 2), (0.8, 4, 3), (0.0, 3, 2), (0.9, 3, 4))]


def drive_values(answer, case):
    try:
        return answer(*tensors(case, "P", "R", "pi"), case["gamma"])
    except torch.linalg.LinAlgError as error:
        raise ValueError("I - P_pi cannot be inverted: gamma is missing in front of P_pi") from error


def expected_rewards(case, weighted=True):
    """r(s, a) = sum over s' of p(s' | s, a) r(s, a, s')."""
    P, R = case["P"], case["R"]
    return [[sum((p if weighted else 1) * r for p, r in zip(*rows)) for rows in zip(P[s], R[s])] for s in range(len(P))]


def solved(rewards, transitions, gamma, sweeps=300):
    """V = r + gamma P V for lists, by repeating it."""
    values = [0.0] * len(rewards)
    for _ in range(sweeps):
        values = [r + gamma * sum(p * v for p, v in zip(row, values)) for r, row in zip(rewards, transitions)]
    return values


def under(case, pi=None):
    """(expected reward, transition matrix) of a policy, as lists."""
    pi, P, r = pi or case["pi"], case["P"], expected_rewards(case)
    rewards = [sum(c * x for c, x in zip(pi[s], r[s])) for s in range(len(P))]
    return rewards, [
        [sum(c * row[after] for c, row in zip(pi[s], P[s])) for after in range(len(P))] for s in range(len(P))
    ]


def expect_values(case):
    P, pi, gamma = case["P"], case["pi"], case["gamma"]
    rewards, transitions = under(case)

    def solution(rewards=rewards, transitions=transitions, gamma=gamma, sweeps=300):
        return solved(rewards, transitions, gamma, sweeps)

    expected = solution()
    r, q, unweighted = expected_rewards(case), backed_up(case, expected, gamma), expected_rewards(case, weighted=False)
    best = [0.0] * len(P)
    for _ in range(300):
        best = swept(case, best)
    even = under(case, [[1 / len(row)] * len(row) for row in pi])
    likeliest = under(case, [[float(p == max(row)) for p in row] for row in pi])
    mistakes = {
        "the best action is taken: these are the values of the best policy, not of pi": best,
        "the likeliest action is taken: average over pi": solution(*likeliest),
        "all actions count alike: weigh them with pi": solution(*even),
        "gamma is ignored": solution(gamma=1.0),
        "this is the reward of one step: what follows is missing": rewards,
        "this is two steps, or a few: repeat until nothing changes":
            Alternatives(*(solution(sweeps=sweeps) for sweeps in (2, 3, 5, 10))),
        "the reward is not weighted by P: it is paid only where s' is reached":
            solution([sum(c * x for c, x in zip(*rows)) for rows in zip(pi, unweighted)]),
        "the reward is not weighted by pi: it is paid where the action is taken": solution([sum(row) for row in r]),
        "the transitions are not weighted by pi: P_pi is an average over pi": solution(transitions=even[1]),
        "the transition matrix is transposed: row s holds where s leads to": solution(rewards, list(zip(*transitions))),
        "these are Q(s, a), one per action: average over pi": q,
        "these are the largest Q(s, a): average over pi": [max(row) for row in q],
        "this is one number: one value per state": sum(expected) / len(expected),
    }
    return expected, mistakes


# 7.11 A sweep of value iteration -------------------------------------------------------------------------------------


def sweep(P, R, gamma, values):
    """The package's answer, the step that `mdp.value_iteration` repeats."""
    return (P * (R + gamma * values)).sum(-1).max(1).values


def swept(case, values, gamma=None):
    """One sweep for lists."""
    gamma = case["gamma"] if gamma is None else gamma
    return [max(row) for row in backed_up(case, values, gamma)]


def backed_up(case, values, gamma):
    """E[r + gamma V(s')] of each state and action, for lists."""
    r = expected_rewards(case)
    return [
        [reward + gamma * sum(p * v for p, v in zip(chances, values)) for reward, chances in zip(row, rows)]
        for row, rows in zip(r, case["P"])
    ]


def sweep_cases(rng):
    """The old values are mixed, all 0, or all so low that no action is worth more than 0."""
    cases = [world_case(rng, *sizes) for sizes in ((0.5, 2, 2), (0.9, 5, 3), (0.8, 3, 4), (0.0, 3, 2), (1.0, 4, 3))]
    spreads = ((-9, 12), (-9, 12), (-30, -20), (0, 0), (-9, 12))
    return [
        case | {"values": [float(rng.randint(*spread)) for _ in case["P"][1:]] + [0.0]}
        for case, spread in zip(cases, spreads)
    ]


def drive_sweep(answer, case):
    P, R, values = tensors(case, "P", "R", "values")
    return answer(P, R, case["gamma"], values)


def in_place(case, order=1):
    """The sweep that sees its own new values, in the order of the states or against it."""
    values = list(case["values"])
    for state in range(len(values))[::order]:
        values[state] = swept(case, values)[state]
    return values


def expect_sweep(case):
    P, R, gamma, values = (case[name] for name in ("P", "R", "gamma", "values"))
    q, r = backed_up(case, values, gamma), expected_rewards(case)
    states, actions = range(len(P)), range(len(P[0]))

    def best(number):
        """In each state the largest number(s, a)."""
        return [max(number(s, a) for a in actions) for s in states]

    expected = best(lambda s, a: q[s][a])
    places = [row.index(max(row)) for row in q]
    mistakes = {
        "the actions are averaged: take the best one": [sum(row) / len(row) for row in q],
        "the actions are summed: take the best one": [sum(row) for row in q],
        "the action with the best reward now is taken: maximise the reward plus gamma V(s')":
            [q[s][r[s].index(max(r[s]))] for s in states],
        "the best successor is taken too: the agent chooses a, the world chooses s', so average over s'":
            best(lambda s, a: max(x + gamma * v for p, x, v in zip(P[s][a], R[s][a], values) if p)),
        "the rewards are not weighted by P: they are paid only where s' is reached":
            best(lambda s, a: sum(R[s][a]) + q[s][a] - r[s][a]),
        "the reward is discounted too: r + gamma V(s')": [gamma * x for x in swept(case, values, 1.0)],
        "the rewards are missing: r + gamma V(s')": best(lambda s, a: q[s][a] - r[s][a]),
        "the old value of s stands where the value of s' belongs": best(lambda s, a: r[s][a] + gamma * values[s]),
        "the old value is subtracted: the new value is wanted": [x - v for x, v in zip(expected, values)],
        "the new value is added to the old one: it takes its place": [x + v for x, v in zip(expected, values)],
        "the old value is kept where it is larger: the new one takes its place": list(map(max, expected, values)),
        "values are overwritten during the sweep: later states must still see the old ones":
            Alternatives(in_place(case), in_place(case, -1)),
        "these are the best actions: expected their values": places,
        "a pair came back: max(1) returns values and places, take .values": [expected, places],
        "these are Q(s, a): take the best action of each state": q,
        "the worst action is taken": [min(row) for row in q],
        "these are two sweeps: expected one": swept(case, expected),
    }
    if gamma < 1:
        limit = expected
        for _ in range(300):
            limit = swept(case, limit)
        mistakes["this is where value iteration ends: expected one sweep"] = limit
    return expected, mistakes


# 7.12 Value iteration ------------------------------------------------------------------------------------------------


def value_iteration(P, R, gamma, tolerance=1e-12):
    """The package's answer, as `mdp.value_iteration` and `mdp.greedy` find them."""
    values, change = torch.zeros(len(P), dtype=P.dtype), math.inf
    while change > tolerance:
        new = sweep(P, R, gamma, values)
        values, change = new, float((new - values).abs().max())
    places = (P * (R + gamma * values)).sum(-1).argmax(1)
    return values, torch.nn.functional.one_hot(places, P.shape[1]).to(P.dtype)


def iteration_cases(rng):
    sizes = ((0.5, 2, 2), *((0.7, 3, 3),) * 6)
    return [{name: part for name, part in world_case(rng, *size).items() if name != "pi"} for size in sizes]


def drive_iteration(answer, case):
    found = answer(*tensors(case, "P", "R"), case["gamma"])
    pair = isinstance(found, tuple | list) and len(found) == 2
    return dict(zip(("values", "greedy"), found)) if pair else found


def expect_iteration(case):
    actions, gamma, R = len(case["P"][0]), case["gamma"], expected_rewards(case)

    def limit(step, sweeps=120):
        values = [0.0] * len(case["P"])
        for _ in range(sweeps):
            values = step(values)
        return values

    def table(q):
        return [one_hot(row.index(max(row)), actions) for row in q]

    best = limit(lambda values: swept(case, values))
    q, blind = backed_up(case, best, gamma), backed_up(case, best, 1.0)
    even = limit(lambda values: [sum(row) / actions for row in backed_up(case, values, gamma)])
    expected = {"values": best, "greedy": table(q)}
    return expected, {
        ("values", "one sweep only: repeat until nothing changes"): swept(case, [0.0] * len(best)),
        ("values", "a few sweeps only: repeat until nothing changes"):
            Alternatives(*(limit(lambda values: swept(case, values), n) for n in (2, 5))),
        ("values", "the actions are averaged: these are the values of the uniform policy"): even,
        ("greedy", "the action with the best reward now is taken: add gamma V(s')"): table(R),
        ("greedy", "gamma is missing in front of V(s')"): table(blind),
        ("greedy", "the worst action is taken"): table([[-x for x in row] for row in q]),
        ("greedy", "these are the numbers of the actions: a policy has a row of probabilities for each state"):
            [row.index(max(row)) for row in q],
        ("greedy", "these are Q(s, a): a policy has a row of probabilities for each state"): q,
        ("greedy", "all actions have the same probability"): [[1 / actions] * actions for _ in q],
        "the two are exchanged: the values first": {"values": expected["greedy"], "greedy": expected["values"]},
    }  # fmt: skip


# 7.13 Every policy ---------------------------------------------------------------------------------------------------


def every_objective(P, R, start, terminal, gamma):
    """The package's answer: each choice of an action for the states where the episode goes on, evaluated."""
    acting, found = (~terminal).nonzero()[:, 0], []
    for choice in itertools.product(range(P.shape[1]), repeat=len(acting)):
        actions = torch.zeros(len(P), dtype=torch.long).index_put((acting,), torch.tensor(choice))
        policy = torch.nn.functional.one_hot(actions, P.shape[1]).to(P.dtype)
        found.append(float(start @ policy_values(P, R, policy, gamma)))
    return found


def policies_cases(rng):
    """The last state is terminal, or a state in the middle too; several states may be the first."""
    cases = []
    for gamma, states, actions, over in ((0.6, 3, 3, (2,)), (0.8, 4, 2, (1, 3)), (0.5, 3, 2, (2,))):
        case = world_case(rng, gamma, states, actions)
        for state in over:
            case["P"][state], case["R"][state] = [one_hot(state, states)] * actions, [[0.0] * states] * actions
        weights = [0 if state in over else rng.randint(1, 9) for state in range(states)]
        case |= {"start": [w / sum(weights) for w in weights], "terminal": [s in over for s in range(states)]}
        cases.append({name: part for name, part in case.items() if name != "pi"})
    return cases


def drive_policies(answer, case):
    try:
        found = answer(*tensors(case, "P", "R", "start"), torch.tensor(case["terminal"]), case["gamma"])
    except torch.linalg.LinAlgError as error:
        raise ValueError("I - P_pi cannot be inverted: gamma is missing in front of P_pi") from error
    return {"how many": len(found), "sorted": sorted(map(float, found))}


def expect_policies(case):
    P, start, gamma, terminal = case["P"], case["start"], case["gamma"], case["terminal"]
    states, actions = range(len(P)), len(P[0])
    acting = [s for s in states if not terminal[s]]

    def worth(choices, reads=lambda values: sum(w * v for w, v in zip(start, values)), sweeps=120):
        found = []
        for choice in choices:
            table = [one_hot(choice[s], actions) for s in states]
            found.append(reads(solved(*under(case, table), gamma, sweeps)))
        return {"how many": len(found), "sorted": sorted(found)}

    def chosen(tuples):
        """For each tuple the action in every state, 0 where the episode is over."""
        return [dict.fromkeys(states, 0) | dict(zip(acting, actions_there)) for actions_there in tuples]

    every = chosen(itertools.product(range(actions), repeat=len(acting)))
    combined = chosen(itertools.combinations_with_replacement(range(actions), len(acting)))
    expected = worth(every)
    return expected, {
        "each does the same in all states: a policy chooses an action for each state":
            worth(chosen([(a,) * len(acting) for a in range(actions)])),
        "choices are left out: in each state every action, whatever is done in the others": worth(combined),
        "terminal states choose too, so every policy comes several times":
            worth(list(itertools.product(range(actions), repeat=len(P)))),
        "V of the first state alone: J is the mean over first states, with `start`": worth(every, lambda v: v[0]),
        "the mean of V over all states: weigh them with `start`": worth(every, lambda v: sum(v) / len(v)),
        "V is added up over all states: weigh them with `start`": worth(every, sum),
        "the largest V: weigh the states with `start`": worth(every, max),
        "the reward of one step: J is the expected return": worth(every, sweeps=1),
        "the best alone: all of them are asked for": {"how many": 1, "sorted": [max(expected["sorted"])]},
    }


# 7.14 Steps until the end --------------------------------------------------------------------------------------------


def expected_steps(P, pi, terminal):
    """The package's answer: h = 1 + P_pi h where the episode goes on."""
    inner = (pi[:, :, None] * P).sum(1)[~terminal][:, ~terminal]
    identity, steps = torch.eye(len(inner), dtype=P.dtype), torch.zeros(len(P), dtype=P.dtype)
    steps[~terminal] = torch.linalg.solve(identity - inner, identity.sum(1))
    return steps


def steps_cases(rng):
    worlds = [world_case(rng, 1.0, *size) for size in ((2, 2), (4, 3), (3, 2))]
    return [
        {"P": world["P"], "pi": world["pi"], "terminal": [False] * (len(world["P"]) - 1) + [True]} for world in worlds
    ]


def drive_steps(answer, case):
    P, pi = tensors(case, "P", "pi")
    try:
        return answer(P, pi, torch.tensor(case["terminal"]))
    except torch.linalg.LinAlgError as error:
        raise ValueError("I - P_pi cannot be inverted: leave out the states where the episode is over") from error


def expect_steps(case):
    P, pi, terminal = case["P"], case["pi"], case["terminal"]
    size, actions = range(len(P)), range(len(P[0]))

    def chain(pi):
        return [[sum(pi[s][a] * P[s][a][after] for a in actions) for after in size] for s in size]

    def solution(transitions, sweeps=3000, ones=1.0, offset=0.0):
        steps = [0.0] * len(P)
        for _ in range(sweeps):
            steps = [0.0 if terminal[s] else ones + sum(p * h for p, h in zip(transitions[s], steps)) for s in size]
        return [h + offset * (not over) for h, over in zip(steps, terminal)]

    transitions = chain(pi)
    back = [[0.0 if terminal[s] or terminal[after] else transitions[after][s] for after in size] for s in size]
    expected = solution(transitions)
    return expected, {
        "the transition matrix is transposed: row s holds where s leads to": solution(back),
        "all actions count alike: weigh them with pi": solution(chain([[1 / len(actions)] * len(actions)] * len(P))),
        "one step less: the step that ends the episode counts": solution(transitions, offset=-1.0),
        "one step more: the state in which it is over counts for nothing": solution(transitions, offset=1.0),
        "repeat until nothing changes: these are the steps of episodes that are cut off":
            Alternatives(*(solution(transitions, sweeps=n) for n in (1, 2, 10))),
        "this is one number: one for each state": sum(expected) / len(expected),
        "the states that are over are missing: they have 0": [h for h, over in zip(expected, terminal) if not over],
    }  # fmt: skip


# 7.15 Paying for progress --------------------------------------------------------------------------------------------


def with_progress(R, terminal, potential, gamma):
    """The package's answer: R + gamma Phi(s') - Phi(s) where the episode goes on."""
    shaped = R + gamma * potential - potential[:, None, None]
    return shaped.masked_fill(terminal[:, None, None], 0)


def progress_cases(rng):
    """One terminal state, the last or the first; nothing is paid there."""
    cases = []
    for gamma, states, actions, over in ((0.9, 3, 2, 2), (0.5, 4, 3, 0)):
        R = [[[float(rng.randint(-4, 6)) for _ in range(states)] for _ in range(actions)] for _ in range(states)]
        R[over] = [[0.0] * states] * actions
        potential = [rng.randint(1, 9) * rng.choice((-0.5, 0.5)) for _ in range(states)]
        cases.append({"R": R, "terminal": [s == over for s in range(states)], "potential": potential, "gamma": gamma})
    return cases


def expect_progress(case):
    R, terminal, phi, gamma = (case[name] for name in ("R", "terminal", "potential", "gamma"))
    states, actions = range(len(R)), range(len(R[0]))

    def made(gained, over=lambda s, after: terminal[s], keeps=1):
        return [[[0.0 if over(s, t) else keeps * R[s][a][t] + gained(phi[s], phi[t]) for t in states]
                 for a in actions] for s in states]  # fmt: skip

    def right(here, there):
        return gamma * there - here

    return made(right), {
        "the sign of the progress is turned: gamma Phi(s') - Phi(s)": made(lambda here, there: here - gamma * there),
        "gamma stands before Phi(s): it belongs to Phi(s'), which comes a step later":
            made(lambda here, there: there - gamma * here),
        "gamma stands before the difference: it belongs to Phi(s') alone":
            made(lambda here, there: gamma * (there - here)),
        "s and s' are exchanged: Phi(s') varies along the last axis": made(lambda here, there: gamma * here - there),
        "R is missing: the progress comes on top of it": made(right, keeps=0),
        "Phi(s) is missing": made(lambda here, there: gamma * there),
        "Phi(s') is missing": made(lambda here, there: -here),
        "it is paid where the episode is over too: the rows of terminal states are 0":
            made(right, over=lambda s, after: False),
        "the step into the end pays nothing: terminal tells of s, not of s'":
            made(right, over=lambda s, after: terminal[after]),
        "neither the steps from the end nor those into it are paid: terminal tells of s alone":
            made(right, over=lambda s, after: terminal[s] or terminal[after]),
    }


def returns_of(rewards, mask, gamma):
    """The package's `episode_returns`, called as the student's."""
    return episode_returns(rewards, mask, gamma=gamma)


EXERCISES = {
    "7.1": Exercise(slip_cases, drive_slip, expect_slip, points=2, reference=next_cells, remark=remark_slip,
        signature="next_cells(rows: list, cell: any, action: int, slip: number) -> dict"),
    "7.2": Exercise(grid_cases, drive_grid, expect_grid, points=3, reference=SlipperyGrid,
        signature="SlipperyGrid(rows: list, slip: number, limit: int, seed: int) -> any"),
    "7.3": Exercise(arrays_cases, drive_arrays, expect_arrays, points=2, reference=world_arrays,
        signature="world_arrays(rows: list, slip: number) -> (float[S A S], float[S A S], float[S])"),
    "7.4": Exercise(episode_cases, drive_episode, expect_episode, points=2, reference=sample_episode,
        signature="sample_episode(P: float[S A S], R: float[S A S], start: float[S], pi: float[S A],"
        " terminal: bool[S], horizon: int, generator: any) -> (list, list, list)"),
    "7.5": Exercise(return_cases, drive_returns, expect_returns, points=1, reference=returns_of,
        signature="episode_returns(rewards: float[B T], mask: bool[B T], gamma: number) -> float[B]"),
    "7.6": Exercise(trajectory_cases, None, expect_trajectory, points=1, reference=trajectory_probability,
        signature="trajectory_probability(start: float[S], P: float[S A S], pi: float[S A], states: list, actions:"
        " list) -> number", tolerance=1e-6),
    "7.7": Exercise(listing_cases, drive_listing, expect_listing, points=2, reference=trajectories,
        signature="trajectories(P: float[S A S], pi: float[S A], terminal: bool[S], state: int, steps: int) -> list"),
    "7.8": Exercise(error_cases, drive_error, expect_error, points=1, reference=mean_and_error, tolerance=1e-5,
        signature="mean_and_error(returns: float[N]) -> (number, number)"),
    "7.9": Exercise(intervals_cases, drive_intervals, expect_intervals, points=2, reference=intervals,
        signature="intervals(returns: float[N], size: int, truth: number) -> (float[K], float[K], number)"),
    "7.10": Exercise(values_cases, drive_values, expect_values, points=2, reference=policy_values,
        signature="policy_values(P: float[S A S], R: float[S A S], pi: float[S A], gamma: number) -> float[S]"),
    "7.11": Exercise(sweep_cases, drive_sweep, expect_sweep, points=1, reference=sweep,
        signature="sweep(P: float[S A S], R: float[S A S], gamma: number, values: float[S]) -> float[S]"),
    "7.12": Exercise(iteration_cases, drive_iteration, expect_iteration, points=2, reference=value_iteration,
        signature="value_iteration(P: float[S A S], R: float[S A S], gamma: number, tolerance: number) ->"
        " (float[S], float[S A])"),
    "7.13": Exercise(policies_cases, drive_policies, expect_policies, points=2, reference=every_objective,
        signature="every_objective(P: float[S A S], R: float[S A S], start: float[S], terminal: bool[S],"
        " gamma: number) -> list"),
    "7.14": Exercise(steps_cases, drive_steps, expect_steps, points=1, reference=expected_steps,
        signature="expected_steps(P: float[S A S], pi: float[S A], terminal: bool[S]) -> float[S]"),
    "7.15": Exercise(progress_cases, None, expect_progress, points=1, reference=with_progress,
        signature="with_progress(R: float[S A S], terminal: bool[S], potential: float[S], gamma: number)"
        " -> float[S A S]"),
}  # fmt: skip
