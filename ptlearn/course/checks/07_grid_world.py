"""Lesson 07: a slippery move, an episode's return, a trajectory's probability, a mean and its error, values, a sweep.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

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


# 7.2 The return of an episode ----------------------------------------------------------------------------------------


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


# 7.3 The probability of a trajectory ---------------------------------------------------------------------------------


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


# 7.4 A mean and its error --------------------------------------------------------------------------------------------


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


# 7.5 The values of a policy ------------------------------------------------------------------------------------------


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


# 7.6 A sweep of value iteration --------------------------------------------------------------------------------------


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


def returns_of(rewards, mask, gamma):
    """The package's `episode_returns`, called as the student's."""
    return episode_returns(rewards, mask, gamma=gamma)


EXERCISES = {
    "7.1": Exercise(slip_cases, drive_slip, expect_slip, points=2, reference=next_cells, remark=remark_slip,
        signature="next_cells(rows: list, cell: any, action: int, slip: number) -> dict"),
    "7.2": Exercise(return_cases, drive_returns, expect_returns, points=1, reference=returns_of,
        signature="episode_returns(rewards: float[B T], mask: bool[B T], gamma: number) -> float[B]"),
    "7.3": Exercise(trajectory_cases, None, expect_trajectory, points=1, reference=trajectory_probability,
        signature="trajectory_probability(start: float[S], P: float[S A S], pi: float[S A], states: list, actions:"
        " list) -> number", tolerance=1e-6),
    "7.4": Exercise(error_cases, drive_error, expect_error, points=1, reference=mean_and_error, tolerance=1e-5,
        signature="mean_and_error(returns: float[N]) -> (number, number)"),
    "7.5": Exercise(values_cases, drive_values, expect_values, points=2, reference=policy_values,
        signature="policy_values(P: float[S A S], R: float[S A S], pi: float[S A], gamma: number) -> float[S]"),
    "7.6": Exercise(sweep_cases, drive_sweep, expect_sweep, points=2, reference=sweep,
        signature="sweep(P: float[S A S], R: float[S A S], gamma: number, values: float[S]) -> float[S]"),
}  # fmt: skip
