"""Lesson 07: a slippery move, an episode's return, a trajectory's probability, a mean and its error, values, a sweep.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

import torch

from ptlearn.course.diagnosis import differences
from ptlearn.course.exercise import Exercise
from ptlearn.policy_gradient import episode_returns

# 7.1 A slippery move -------------------------------------------------------------------------------------------------

STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # (down, right) of the moves up, right, down, left
MAP = ["S..#", ".#..", "...G"]


def landing(rows, cell, action, steps=STEPS, walls=True, border="stay"):
    """The cell that a move leads to, with the mistakes that can be made about what blocks."""
    row, column = cell[0] + steps[action % 4][0], cell[1] + steps[action % 4][1]
    inside = 0 <= row < len(rows) and 0 <= column < len(rows[0])
    if not inside and border == "wrap":
        row, column, inside = row % len(rows), column % len(rows[0]), True
    if not inside and border == "leave":
        return row, column
    return tuple(cell) if not inside or (walls and rows[row][column] == "#") else (row, column)


def next_cells(rows, cell, action, slip):
    """The package's answer, which `GridWorld.to_mdp` turns into an array: chances that end in the same cell add up."""
    chances = {}
    for turn, chance in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
        place = landing(rows, cell, action + turn)
        chances[place] = chances.get(place, 0.0) + chance
    return chances


def slip_cases(rng):
    slip = rng.choice((0.1, 0.2, 0.3))
    moves = [[0, 1, 0], [0, 0, 0], [1, 2, 0], [2, 2, 1], [1, 0, 1], [2, 1, 2], [0, 2, 1]]
    rng.shuffle(moves)
    # the first is a free move: it tells one mistake about the chances from another
    found = [[[0, 1], 0], *([[row, column], action] for row, column, action in moves)]
    return [{"rows": ["...", "...", "..."], "cell": [1, 1], "action": rng.randrange(4), "slip": slip}] + [
        {"rows": MAP, "cell": cell, "action": action, "slip": slip} for cell, action in found
    ]


def drive_slip(answer, case):
    found = answer(case["rows"], tuple(case["cell"]), case["action"], case["slip"])
    pairs = sorted((tuple(int(x) for x in place), float(chance)) for place, chance in dict(found).items())
    return [[*place, chance] for place, chance in pairs if abs(chance) > 1e-9]


def outcome(case, turns, **mistake):
    """What `drive_slip` gives for chances over turns of the action; None stands for staying."""
    chances = {}
    for turn, chance in turns:
        moved = turn is not None
        place = landing(case["rows"], case["cell"], case["action"] + turn, **mistake) if moved else tuple(case["cell"])
        chances[place] = chances.get(place, 0.0) + chance
    return [[*place, chance] for place, chance in sorted(chances.items()) if chance > 1e-9]


def verify_slip(case, data):
    slip = case["slip"]
    turns = ((0, 1 - slip), (1, slip / 2), (3, slip / 2))
    expected = outcome(case, turns)
    mirrored = tuple((-down, right) for down, right in STEPS)
    swapped = tuple((right, down) for down, right in STEPS)
    free = [[*place, chance] for place, chance in sorted(
        (landing(case["rows"], case["cell"], case["action"] + turn), chance) for turn, chance in turns
    ) if list(place) != case["cell"]]  # fmt: skip
    total = sum(chance for *_, chance in free)
    mistakes = {
        "up and down are exchanged: rows are counted from the top, so up is row - 1": (
            outcome(case, turns, steps=mirrored)
        ),
        "row and column are exchanged: up and down change the row": outcome(case, turns, steps=swapped),
        "slip is the probability of both sides together: half of it each, and 1 - slip for the move that was meant": (
            outcome(case, ((0, 1 - 2 * slip), (1, slip), (3, slip)))
        ),
        "slip is counted twice: each side has half of it": outcome(case, ((0, 1 - slip), (1, slip), (3, slip))),
        "slip is ignored: the move succeeds with probability 1 - slip only": outcome(case, ((0, 1.0),)),
        "the slip goes backwards: it goes to the two moves perpendicular to the one that was meant": (
            outcome(case, ((0, 1 - slip), (2, slip)))
        ),
        "the slip goes to three moves: one step backwards is not among them": (
            outcome(case, ((0, 1 - slip), (1, slip / 3), (2, slip / 3), (3, slip / 3)))
        ),
        "the slip goes to all four moves: only to the two perpendicular ones": (
            outcome(case, ((0, 1 - slip * 3 / 4), (1, slip / 4), (2, slip / 4), (3, slip / 4)))
        ),
        "a slip leaves the agent where it is: it moves it sideways": outcome(case, ((0, 1 - slip), (None, slip))),
        "the agent walks through walls: a '#' blocks like the border": outcome(case, turns, walls=False),
        "the border wraps around: index -1 is the last row in Python, so test for it": (
            outcome(case, turns, border="wrap")
        ),
        "the agent leaves the map: at the border it stays where it is": outcome(case, turns, border="leave"),
        "blocked moves are left out: a blocked agent stays in its cell, with that probability": free,
        "blocked moves are left out and the rest scaled up: a blocked agent stays in its cell": (
            [[*place, chance / total] for *place, chance in free]
        ),
    }
    wrong = differences(data, expected, mistakes)
    total = sum(chance for *_, chance in data)
    if wrong and wrong not in mistakes and total < 1 - 1e-6:
        return f"the probabilities sum to {total:.3g}: where two moves end in the same cell, theirs add up"
    return wrong


# 7.2 The return of an episode ----------------------------------------------------------------------------------------


def return_cases(rng):
    def episodes(lengths, steps):
        rewards = [[float(rng.randint(-3, 5)) or 2.0 for _ in range(steps)] for _ in lengths]
        return {"rewards": rewards, "lengths": lengths}

    return [
        {**episodes([4, 4], 4), "gamma": 1.0},
        {**episodes([5, 5, 5], 5), "gamma": rng.choice((0.5, 0.8))},
        {**episodes([6, 2, 4], 6), "gamma": rng.choice((0.6, 0.9))},
    ]


def drive_returns(answer, case):
    rewards = torch.tensor(case["rewards"], dtype=torch.float64)
    mask = torch.arange(rewards.shape[1]) < torch.tensor(case["lengths"])[:, None]
    return answer(rewards, mask, gamma=case["gamma"])


def verify_returns(case, data):
    gamma = case["gamma"]
    rows = [row[:length] for row, length in zip(case["rewards"], case["lengths"])]

    def discounted(rows, first=0):
        return [sum(gamma ** (t + first) * reward for t, reward in enumerate(row)) for row in rows]

    expected = discounted(rows)
    to_go = [[sum(gamma ** (k - t) * row[k] for k in range(t, len(row))) for t in range(len(row))] for row in rows]
    columns = list(zip(*case["rewards"]))
    return differences(
        data,
        expected,
        {
            "rewards where mask is False are counted: padding is not part of the episode": discounted(case["rewards"]),
            "gamma is ignored": [sum(row) for row in rows],
            "gamma is ignored, and so is mask": [sum(row) for row in case["rewards"]],
            "the first reward is discounted: its factor is gamma^0 = 1": discounted(rows, 1),
            "the discount runs backwards: the last reward is the one that is discounted most": (
                [sum(gamma ** (len(row) - 1 - t) * reward for t, reward in enumerate(row)) for row in rows]
            ),
            "each reward is discounted once: the factor is gamma^t at step t": (
                [row[0] + gamma * sum(row[1:]) for row in rows]
            ),
            "the sum is multiplied by gamma once: the factor is gamma^t at step t": [gamma * sum(row) for row in rows],
            "this is a mean: a return is a sum": [value / len(row) for value, row in zip(expected, rows)],
            "this is a mean, over padding too: a return is a sum": (
                [value / len(row) for value, row in zip(expected, case["rewards"])]
            ),
            "this is the last reward alone": [row[-1] for row in rows],
            "this is summed over the episodes: one return per row": [sum(column) for column in columns],
            "these are the returns from every step on: the episode's return is the first of them": (
                [row + [0.0] * (len(case["rewards"][0]) - len(row)) for row in to_go]
            ),
        },
    )


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
    cases = []
    for steps in (4, 1, 0):
        P = [[some_probabilities(rng, 4) for _ in range(3)] for _ in range(4)]
        pi = [some_probabilities(rng, 3) for _ in range(4)]
        states = [rng.randrange(4)]
        while len(states) <= steps:
            states.append(rng.choice([state for state in range(4) if state != states[-1]]))
        actions = [rng.randrange(3) for _ in range(steps)]
        cases.append({"start": some_probabilities(rng, 4), "P": P, "pi": pi, "states": states, "actions": actions})
    return cases


def drive_trajectory(answer, case):
    arrays = [torch.tensor(case[name], dtype=torch.float64) for name in ("start", "P", "pi")]
    return float(answer(*arrays, case["states"], case["actions"]))


def verify_trajectory(case, data):
    start, P, pi, states, actions = (case[name] for name in ("start", "P", "pi", "states", "actions"))
    steps = list(zip(states, actions, states[1:]))
    first = start[states[0]]
    chosen = [pi[s][a] for s, a, _ in steps]
    moved = [P[s][a][after] for s, a, after in steps]
    expected = first * math.prod(chosen) * math.prod(moved)
    return differences(
        data,
        expected,
        {
            "the first state is taken for certain: p(s_1) is a factor too": math.prod(chosen) * math.prod(moved),
            "the policy is missing: each step has the factor pi(a_t | s_t)": first * math.prod(moved),
            "the dynamics are missing: each step has the factor p(s_{t+1} | s_t, a_t)": first * math.prod(chosen),
            "only the policy is counted: p(s_1) and p(s_{t+1} | s_t, a_t) are factors too": math.prod(chosen),
            "the last transition is missing: T actions make T transitions, into T + 1 states": (
                first * math.prod(chosen) * math.prod(moved[:-1])
            ),
            "the last step is missing: states has one entry more than actions": (
                first * math.prod(chosen[:-1]) * math.prod(moved[:-1])
            ),
            "the action is looked up in the state that follows: pi(a_t | s_t), in the state it is chosen in": (
                first * math.prod(pi[after][a] for _, a, after in steps) * math.prod(moved)
            ),
            "P is read backwards: P[s, a, s'] is the way from s to s'": (
                first * math.prod(chosen) * math.prod(P[after][a][s] for s, a, after in steps)
            ),
            "these factors are added: the probability of all of them together is their product": (
                first + sum(chosen) + sum(moved)
            ),
            "the factors of the steps are added: the probability of all of them together is their product": (
                first + sum(c * m for c, m in zip(chosen, moved))
            ),
            "this is the logarithm of the probability": math.log(expected),
        },
        tolerance=1e-9,
    )


# 7.4 A mean and its error --------------------------------------------------------------------------------------------


def mean_and_error(returns):
    """The package's answer: the sample mean, and s / sqrt(N)."""
    return returns.mean(), returns.std() / len(returns) ** 0.5


def error_cases(rng):
    cases = [[round(rng.uniform(-2, 3), 2) for _ in range(count)] for count in (4, 9)]
    return [*cases, [float(rng.randint(-1, 1)) for _ in range(20)] + [1.0, -1.0, 0.0]]


def drive_error(answer, case):
    mean, error = answer(torch.tensor(case, dtype=torch.float64))
    return {"mean": float(mean), "standard error": float(error)}


def verify_error(case, data):
    n, mean = len(case), sum(case) / len(case)
    squares = sum((x - mean) ** 2 for x in case)
    spread = math.sqrt(squares / (n - 1))

    def result(error, mean=mean):
        return {"mean": mean, "standard error": error}

    expected = result(spread / math.sqrt(n))
    mistakes = {
        "this is the spread of single returns: their mean shakes less, divide by the root of N": result(spread),
        "this is the spread of single returns, and with N for N - 1: divide by the root of N": (
            result(math.sqrt(squares / n))
        ),
        "divided by N: variances add up, so the error of a mean falls with the root of N": result(spread / n),
        "this is the squared error: take the root of s^2 / N": result(spread**2 / n),
        "this is the variance of single returns: take the root, and divide by the root of N": result(spread**2),
        "the variance is divided by N, expected N - 1: the mean was estimated from the same returns": (
            result(math.sqrt(squares) / n)
        ),
        "multiplied by 1.96: that is half of the 95 % interval, not the standard error": (
            result(1.96 * spread / math.sqrt(n))
        ),
        "multiplied by the root of N: more returns make the mean safer, not shakier": result(spread * math.sqrt(n)),
        "the mean square is taken around 0: deviations are from the mean": (
            result(math.sqrt(sum(x * x for x in case) / (n - 1) / n))
        ),
        "the mean is a sum: divide by N": result(spread / math.sqrt(n), mean=mean * n),
    }
    return differences(data, expected, mistakes, tolerance=1e-7)


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
    return [world_case(rng, gamma) for gamma in (0.5, 0.8, 0.9)]


def drive_values(answer, case):
    arrays = (torch.tensor(case[name], dtype=torch.float64) for name in ("P", "R", "pi"))
    try:
        return answer(*arrays, case["gamma"])
    except torch.linalg.LinAlgError as error:
        raise ValueError("I - P_pi cannot be inverted: gamma is missing in front of P_pi") from error


def expected_rewards(case, weighted=True):
    """r(s, a) = sum over s' of p(s' | s, a) r(s, a, s')."""
    P, R = case["P"], case["R"]
    return [[sum((p if weighted else 1) * r for p, r in zip(*rows)) for rows in zip(P[s], R[s])] for s in range(len(P))]


def solved(rewards, transitions, gamma, sweeps=600):
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


def verify_values(case, data):
    P, pi, gamma = case["P"], case["pi"], case["gamma"]
    states = range(len(P))
    rewards, transitions = under(case)
    expected = solved(rewards, transitions, gamma)
    r = expected_rewards(case)
    q = [[r[s][a] + gamma * sum(p * v for p, v in zip(P[s][a], expected)) for a in range(len(r[s]))] for s in states]
    best = [0.0] * len(P)
    for _ in range(600):
        best = swept(case, best)
    even = [[1 / len(row)] * len(row) for row in pi]
    unweighted = expected_rewards(case, weighted=False)
    mistakes = {
        "the best action is taken: these are the values of the best policy, not of pi": best,
        "all actions count alike: weigh them with pi": solved(*under(case, even), gamma),
        "gamma is ignored": solved(rewards, transitions, 1.0),
        "this is the reward of one step: what follows is missing": rewards,
        "this is two steps: repeat until nothing changes": solved(rewards, transitions, gamma, 2),
        "the reward is not weighted by P: it is paid only where s' is reached": (
            solved([sum(c * x for c, x in zip(pi[s], unweighted[s])) for s in states], transitions, gamma)
        ),
        "the reward is discounted too: V = r + gamma P V": (solved([gamma * x for x in rewards], transitions, gamma)),
        "the transition matrix is transposed: row s holds where s leads to": (
            solved(rewards, [list(column) for column in zip(*transitions)], gamma)
        ),
        "these are Q(s, a), one per action: average over pi": q,
        "this is one number: one value per state": sum(expected) / len(expected),
    }
    return differences(data, expected, mistakes)


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
    cases = [world_case(rng, gamma, states=5) for gamma in (0.5, 0.9, 0.8)]
    return [{**case, "values": [float(rng.randint(-9, 12)) for _ in range(4)] + [0.0]} for case in cases]


def drive_sweep(answer, case):
    P, R, values = (torch.tensor(case[name], dtype=torch.float64) for name in ("P", "R", "values"))
    given = values.clone()
    result = answer(P, R, case["gamma"], values)
    if isinstance(result, tuple):  # of max(1)
        raise ValueError("a pair came back: max(1) returns values and places, take .values")
    result = torch.as_tensor(result)
    return {"result": result, "values": values, "given": given}


def in_place(case):
    values = list(case["values"])
    for state in range(len(values)):
        values[state] = swept(case, values)[state]
    return values


def verify_sweep(case, data):
    P, R, gamma, values = (case[name] for name in ("P", "R", "gamma", "values"))
    q, r = backed_up(case, values, gamma), expected_rewards(case)
    states, actions = range(len(P)), range(len(P[0]))
    expected = [max(row) for row in q]
    hasty = [q[s][r[s].index(max(r[s]))] for s in states]
    lucky = [
        max(R[s][a][after] + gamma * values[after] for a in actions for after in states if P[s][a][after] > 0)
        for s in states
    ]
    limit = expected
    for _ in range(600):
        limit = swept(case, limit)
    mistakes = {
        "the actions are averaged: take the best one": [sum(row) / len(row) for row in q],
        "the action with the best reward now is taken: maximise the reward plus gamma V(s')": hasty,
        "the best successor is taken too: the agent chooses a, the world chooses s', so average over s'": lucky,
        "gamma is ignored": swept(case, values, 1.0),
        "the reward is discounted too: r + gamma V(s')": (
            [max(gamma * (x + (y - x) / gamma) for x, y in zip(r[s], q[s])) for s in states]
        ),
        "the values of the states that follow are missing": [max(row) for row in r],
        "the old value of s stands where the value of s' belongs": (
            [max(x + gamma * values[s] for x in r[s]) for s in states]
        ),
        "values are overwritten during the sweep: later states must still see the old ones": in_place(case),
        "these are the best actions: expected their values": [row.index(max(row)) for row in q],
        "these are Q(s, a): take the best action of each state": q,
        "the worst action is taken": [min(row) for row in q],
        "this is where value iteration ends: expected one sweep": limit,
    }
    wrong = differences(data["result"], expected, mistakes)
    if wrong is None and data["values"] != data["given"]:
        return "the tensor that was handed in has changed: return a new one"
    return wrong


def returns_of(rewards, mask, gamma):
    """The package's `episode_returns`, called as the student's."""
    return episode_returns(rewards, mask, gamma=gamma)


EXERCISES = {
    "7.1": Exercise(slip_cases, drive_slip, verify_slip, points=2, reference=next_cells),
    "7.2": Exercise(return_cases, drive_returns, verify_returns, points=1, reference=returns_of),
    "7.3": Exercise(trajectory_cases, drive_trajectory, verify_trajectory, points=1, reference=trajectory_probability),
    "7.4": Exercise(error_cases, drive_error, verify_error, points=1, reference=mean_and_error),
    "7.5": Exercise(values_cases, drive_values, verify_values, points=2, reference=policy_values),
    "7.6": Exercise(sweep_cases, drive_sweep, verify_sweep, points=2, reference=sweep),
}
