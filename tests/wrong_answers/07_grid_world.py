"""Typical wrong answers to the exercises of lesson 07, and right ones written differently."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import torch

STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))


# 7.1 ------------------------------------------------------------------------------------------------------------------


def moved(rows, cell, action, steps=STEPS):
    row, column = cell[0] + steps[action % 4][0], cell[1] + steps[action % 4][1]
    blocked = not (0 <= row < len(rows) and 0 <= column < len(rows[0])) or rows[row][column] == "#"
    return cell if blocked else (row, column)


def through_walls(rows, cell, action):
    return moved([row.replace("#", ".") for row in rows], cell, action)


def around(rows, cell, action):
    row, column = (cell[i] + STEPS[action % 4][i] for i in range(2))
    row, column = row % len(rows), column % len(rows[0])
    return cell if rows[row][column] == "#" else (row, column)


def off_the_map(rows, cell, action):
    row, column = (cell[i] + STEPS[action % 4][i] for i in range(2))
    inside = 0 <= row < len(rows) and 0 <= column < len(rows[0])
    return cell if inside and rows[row][column] == "#" else (row, column)


def upside_down(rows, cell, action):
    return moved(rows, cell, action, steps=((1, 0), (0, 1), (-1, 0), (0, -1)))


def transposed(rows, cell, action):
    return moved(rows, cell, action, steps=((0, -1), (1, 0), (0, 1), (-1, 0)))


def spread(turns, land=moved):
    """An answer that moves by turns of the action, with chances that depend on slip."""

    def answer(rows, cell, action, slip):
        chances = Counter()
        for turn, chance in turns(slip):
            chances[land(rows, cell, action + turn)] += chance
        return chances

    return answer


def right_turns(slip):
    return (0, 1 - slip), (1, slip / 2), (-1, slip / 2)


def replaces(rows, cell, action, slip):
    return {moved(rows, cell, action + turn): chance for turn, chance in right_turns(slip)}


def stays_when_slipping(rows, cell, action, slip):
    chances = Counter({cell: slip})
    chances[moved(rows, cell, action)] += 1 - slip
    return chances


def drops_blocked(rows, cell, action, slip):
    chances = Counter()
    for turn, chance in right_turns(slip):
        if moved(rows, cell, action + turn) != cell:
            chances[moved(rows, cell, action + turn)] += chance
    return chances


def drops_and_scales(rows, cell, action, slip):
    chances = drops_blocked(rows, cell, action, slip)
    return {place: chance / sum(chances.values()) for place, chance in chances.items()}


def padded_map(rows, cell, action, slip):
    walled = ["#" * (len(rows[0]) + 2), *(f"#{row}#" for row in rows), "#" * (len(rows[0]) + 2)]
    chances = {}
    for turn in range(4):
        row, column = cell[0] + STEPS[turn][0], cell[1] + STEPS[turn][1]
        place = cell if walled[row + 1][column + 1] == "#" else (row, column)
        chance = (1 - slip) * (turn == action) + slip / 2 * ((turn - action) % 2)
        chances[place] = chances.get(place, 0) + chance
    return chances


def steps_aside(rows, cell, action, slip):
    """The slip as a second step, after the one that was meant."""
    chances, place = Counter({moved(rows, cell, action): 1 - slip}), moved(rows, cell, action)
    for turn in (1, 3):
        chances[moved(rows, place, action + turn)] += slip / 2
    return chances


def inner_cells_only(rows, cell, action, slip):
    chances = Counter()
    for turn, chance in right_turns(slip):
        row, column = (cell[i] + STEPS[(action + turn) % 4][i] for i in range(2))
        inside = 0 < row < len(rows) and 0 < column < len(rows[0]) and rows[row][column] != "#"
        chances[(row, column) if inside else cell] += chance
    return chances


def stays_when_blocked(rows, cell, action, slip):
    return {cell: 1.0} if moved(rows, cell, action) == cell else spread(right_turns)(rows, cell, action, slip)


def by_number(rows, cell, action, slip):
    chances = spread(right_turns)(rows, cell, action, slip)
    return {row * len(rows[0]) + column: chance for (row, column), chance in chances.items()}


def one_at_a_time(rows, cell, action, slip):
    places = [moved(rows, cell, action + turn) for turn in (0, 1, 3)]
    return {place: (1 - slip) * (place == places[0]) + slip / 2 * places[1:].count(place) for place in set(places)}


# 7.5 ------------------------------------------------------------------------------------------------------------------


def powers(rewards, gamma, first=0):
    return gamma ** torch.arange(first, first + rewards.shape[1]).double()


def padding_counts(rewards, mask, gamma):
    return (rewards * powers(rewards, gamma)).sum(1)


def no_gamma(rewards, mask, gamma):
    return (rewards * mask).sum(1)


def first_discounted(rewards, mask, gamma):
    return (rewards * mask * powers(rewards, gamma, 1)).sum(1)


def discounted_once(rewards, mask, gamma):
    return rewards[:, 0] + gamma * (rewards * mask)[:, 1:].sum(1)


def multiplied_once(rewards, mask, gamma):
    return gamma * (rewards * mask).sum(1)


def backwards_discount(rewards, mask, gamma):
    left = mask.sum(1, keepdim=True) - mask.cumsum(1)
    return (rewards * mask * gamma ** left.double()).sum(1)


def mean_of_rewards(rewards, mask, gamma):
    return (rewards * mask * powers(rewards, gamma)).sum(1) / mask.sum(1)


def mean_over_all(rewards, mask, gamma):
    return (rewards * mask * powers(rewards, gamma)).mean(1)


def last_reward(rewards, mask, gamma):
    return rewards.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]


def over_episodes(rewards, mask, gamma):
    return rewards.sum(0)


def from_every_step(rewards, mask, gamma):
    result, running = torch.zeros_like(rewards), torch.zeros(len(rewards)).double()
    for t in reversed(range(rewards.shape[1])):
        running = torch.where(mask[:, t], rewards[:, t] + gamma * running, running)
        result[:, t] = running * mask[:, t]
    return result


def mask_turned(rewards, mask, gamma):
    return (rewards * ~mask * powers(rewards, gamma)).sum(1)


def gamma_times_t(rewards, mask, gamma):
    return (rewards * mask * gamma * torch.arange(rewards.shape[1])).sum(1)


def forward_horner(rewards, mask, gamma):
    running = torch.zeros(len(rewards))
    for t in range(rewards.shape[1]):
        running = rewards[:, t] * mask[:, t] + gamma * running
    return running


def cleared(rewards, mask, gamma):
    rewards[~mask] = 0
    return horner(rewards, mask, gamma)


def without_the_last_column(rewards, mask, gamma):
    return (rewards * mask * powers(rewards, gamma))[:, :-1].sum(1)


def with_einsum(rewards, mask, gamma):
    return torch.einsum("bt,bt,t->b", rewards, mask.to(rewards), powers(rewards, gamma).to(rewards))


def horner(rewards, mask, gamma):
    return from_every_step(rewards, mask, gamma)[:, 0]


def lists(rewards, mask, gamma):
    rows = ((row[kept].tolist()) for row, kept in zip(rewards, mask))
    return torch.tensor([sum(gamma**t * reward for t, reward in enumerate(row)) for row in rows])


# 7.6 ------------------------------------------------------------------------------------------------------------------


def factors(start, P, pi, states, actions):
    """(p(s_1), [pi(a | s)], [p(s' | s, a)])."""
    steps = list(zip(states, actions, states[1:]))
    chosen = [float(pi[s, a]) for s, a, _ in steps]
    return float(start[states[0]]), chosen, [float(P[s, a, after]) for s, a, after in steps]


def from_factors(rule):
    return lambda *given: rule(*factors(*given))


def next_states_policy(start, P, pi, states, actions):
    chosen = math.prod(float(pi[after, a]) for a, after in zip(actions, states[1:]))
    return float(start[states[0]]) * chosen * math.prod(factors(start, P, pi, states, actions)[2])


def reads_backwards(start, P, pi, states, actions):
    back = math.prod(float(P[after, a, s]) for s, a, after in zip(states, actions, states[1:]))
    return float(start[states[0]]) * math.prod(factors(start, P, pi, states, actions)[1]) * back


def takes_states_away(start, P, pi, states, actions):
    state = states.pop(0)
    probability = start[state]
    for action in actions:
        after = states.pop(0)
        probability, state = probability * pi[state, action] * P[state, action, after], after
    return probability


def one_step_too_far(start, P, pi, states, actions):
    return math.prod(float(pi[states[t], actions[t]]) for t in range(len(states)))


def stays_in_place(start, P, pi, states, actions):
    there = math.prod(float(P[s, a, s]) for s, a in zip(states, actions))
    return float(start[states[0]]) * math.prod(factors(start, P, pi, states, actions)[1]) * there


def in_float32(start, P, pi, states, actions):
    start, P, pi = start.float(), P.float(), pi.float()
    states, taken = torch.tensor(states), torch.tensor(actions, dtype=torch.long)
    return start[states[0]] * pi[states[:-1], taken].prod() * P[states[:-1], taken, states[1:]].prod()


def through_logarithms(start, P, pi, states, actions):
    total = start[states[0]].log()
    for t, action in enumerate(actions):
        total = total + pi[states[t], action].log() + P[states[t], action, states[t + 1]].log()
    return total.exp()


# 7.8 ------------------------------------------------------------------------------------------------------------------


def with_error(rule):
    """An answer whose standard error is rule(sample standard deviation, N)."""
    return lambda returns: (returns.mean(), rule(returns.std(), len(returns)))


def centred_in_place(returns):
    mean = returns.mean()
    returns -= mean
    return mean, (returns**2).sum().div(len(returns) - 1).sqrt() / len(returns) ** 0.5


def the_interval(returns):
    mean, error = returns.mean(), returns.std() / len(returns) ** 0.5
    return mean - 1.96 * error, mean + 1.96 * error


def with_numpy(returns):
    numbers = returns.numpy()
    return numbers.mean(), numbers.std(ddof=1) / len(numbers) ** 0.5


def by_sums(returns):
    n, total, squares = len(returns), float(returns.sum()), float((returns**2).sum())
    return [total / n, math.sqrt((squares - total**2 / n) / (n * (n - 1)))]


# 7.10 ----------------------------------------------------------------------------------------------------------------


def action_values(P, R, gamma, values):
    return torch.einsum("sat,sat->sa", P, R + gamma * values)


def iterated(step, sweeps=400):
    """An answer that repeats a step on V, from 0."""

    def answer(P, R, pi, gamma):
        values = torch.zeros(len(P)).double()
        for _ in range(sweeps):
            values = step(P, R, pi, gamma, values)
        return values

    return answer


def right_step(P, R, pi, gamma, values):
    return (pi * action_values(P, R, gamma, values)).sum(1)


def transposed_solve(P, R, pi, gamma):
    transitions = torch.einsum("sa,sat->st", pi, P)
    return torch.linalg.inv(torch.eye(len(P)).double() - gamma * transitions.T) @ (pi * (P * R).sum(-1)).sum(1)


def solving(rewards, transitions):
    """An answer that solves for rewards(P, R, pi) and transitions(P, pi)."""

    def answer(P, R, pi, gamma):
        matrix = torch.eye(len(P)).double() - gamma * transitions(P, pi)
        return torch.linalg.solve(matrix, rewards(P, R, pi))

    return answer


def right_rewards(P, R, pi):
    return (pi * (P * R).sum(-1)).sum(1)


def right_transitions(P, pi):
    return (pi[..., None] * P).sum(1)


def plus_gamma(P, R, pi, gamma):
    return solving(right_rewards, right_transitions)(P, R, pi, -gamma)


def until_nothing_changes(P, R, pi, gamma, values=None):
    values = torch.zeros(len(P)).double() if values is None else values
    new = right_step(P, R, pi, gamma, values)
    return new if (new - values).abs().max() < 1e-9 else until_nothing_changes(P, R, pi, gamma, new)


def as_q(P, R, pi, gamma):
    return action_values(P, R, gamma, iterated(right_step)(P, R, pi, gamma))


# 7.11 ----------------------------------------------------------------------------------------------------------------


def hasty(P, R, gamma, values):
    best = (P * R).sum(-1).argmax(1)
    return action_values(P, R, gamma, values)[torch.arange(len(P)), best]


def lucky(P, R, gamma, values):
    return (R + gamma * values).masked_fill(P == 0, -torch.inf).amax((1, 2))


def overwrites(P, R, gamma, values):
    values = values.clone()
    for state in range(len(values)):
        values[state] = (P[state] * (R[state] + gamma * values)).sum(-1).max()
    return values


def changes_its_argument(P, R, gamma, values):
    values[:] = action_values(P, R, gamma, values).amax(1)
    return values


def starts_at_zero(P, R, gamma, values):
    best = torch.zeros(len(P)).double()
    for action in range(P.shape[1]):
        best = torch.maximum(best, action_values(P, R, gamma, values)[:, action])
    return best


def to_the_end(P, R, gamma, values):
    for _ in range(400):
        values = action_values(P, R, gamma, values).amax(1)
    return values


def by_loops(P, R, gamma, values):
    states, actions = range(P.shape[0]), range(P.shape[1])
    best = [max(float(P[s, a] @ R[s, a] + gamma * P[s, a] @ values) for a in actions) for s in states]
    return torch.tensor(best, dtype=P.dtype)


# 7.2 ------------------------------------------------------------------------------------------------------------------


def grid(
    *, pays=None, over="GX", count=1, off=0, both=False, home=True, forget=True, old=False, left=False,
    draw=lambda rng, chances: rng.choices([*chances], [*chances.values()])[0],
):  # fmt: skip
    """A class that makes one mistake, or none."""

    class Grid:
        def __init__(self, rows, slip, limit=100, seed=0):
            self.rows, self.slip, self.limit, self.random = rows, slip, limit, random.Random(seed)
            self.cell, self.steps = None, 0

        def reset(self):
            if home or self.cell is None:
                self.cell = next((r, c) for r, row in enumerate(self.rows) for c, mark in enumerate(row) if mark == "S")
            self.steps = 0 if forget else self.steps
            return self.cell

        def step(self, action):
            before, chances = self.cell, spread(right_turns)(self.rows, self.cell, action, self.slip)
            self.cell = draw(self.random, {place: chance for place, chance in chances.items() if chance > 0})
            self.steps += count
            mark = self.rows[self.cell[0]][self.cell[1]]
            paid = self.rows[before[0]][before[1]] if left else mark
            late = self.steps >= self.limit + off
            reward = (pays or {"G": 1, "X": -1}).get(paid, 0)
            return before if old else self.cell, reward, mark in over or both and late, late

    return Grid


class BySampling:
    """Draws a number and goes through the chances, and keeps the patience that is left."""

    def __init__(self, rows, slip, limit=100, seed=0):
        self.rows, self.slip, self.limit, self.random = rows, slip, limit, random.Random(seed)

    def reset(self):
        self.left = self.limit
        for row, marks in enumerate(self.rows):
            if "S" in marks:
                self.cell = (row, marks.index("S"))
        return self.cell

    def step(self, action):
        dice, self.left = self.random.random(), self.left - 1
        chances = padded_map(self.rows, self.cell, action, self.slip)
        sums = dict(zip(chances, itertools.accumulate(chances.values())))
        self.cell = next(place for place, total in sums.items() if dice < total)
        mark = self.rows[self.cell[0]][self.cell[1]]
        reward = 1.0 if mark == "G" else -1.0 if mark == "X" else 0.0
        return self.cell, reward, reward != 0, self.left <= 0


# 7.3 ------------------------------------------------------------------------------------------------------------------


def tables(*, over="GX", again=False, pit=-1.0, left=False, first=False, every=False, weighted=False, empty=False):
    """An answer that makes one mistake, or none."""

    def answer(rows, slip):
        cells = [(r, c) for r in range(len(rows)) for c in range(len(rows[0])) if rows[r][c] != "#"]
        marks = [rows[r][c] for r, c in cells]
        P, R = torch.zeros(2, len(cells), 4, len(cells), dtype=torch.float64)
        for s, a in itertools.product(range(len(cells)), range(4)):
            stays = marks[s] in over
            chances = {cells[s]: 1.0 - empty} if stays else spread(right_turns)(rows, cells[s], a, slip)
            for place, chance in chances.items():
                t = cells.index(place)
                reward = {"G": 1.0, "X": pit}.get(marks[s if left else t], 0.0) * (again or marks[s] not in "GX")
                P[s, a, t], R[s, a, t] = chance, reward * (chance if weighted else 1)
        start = torch.tensor([mark == "S" for mark in marks]).double()
        if first or every:
            start = torch.full_like(start, 1 / len(start)) if every else torch.eye(len(start)).double()[0]
        return P, R, start

    return answer


def turned_round(rows, slip):
    P, R, start = tables()(rows, slip)
    return P.transpose(0, 2), R.transpose(0, 2), start


# 7.4 ------------------------------------------------------------------------------------------------------------------


def walking(
    *, more=0, stops=True, begins=True, act=None, go=None, paid=lambda R, s, a, after: R[s, a, after], cut=slice(None),
    added=False, first_row=False,
):  # fmt: skip
    """An answer that makes one mistake, or none."""

    def answer(P, R, start, pi, terminal, horizon, generator):
        def draw(row):
            return torch.multinomial(row, 1, generator=generator).item()

        states, actions, rewards = [draw(start) if begins else 0], [], []
        for _ in range(horizon + more):
            s = states[-1]
            if stops and bool(terminal[s]):
                break
            a = (act or draw)(pi[states[0] if first_row else s])
            after = (go or draw)(P[s, a])
            rewards.append((rewards[-1] if added and rewards else 0) + float(paid(R, s, a, after)))
            states, actions = [*states, after], [*actions, a]
        return states[cut], actions, rewards

    return answer


def anything(row):
    return torch.randint(len(row), ()).item()


def likeliest(row):
    return int(row.argmax())


def by_numpy(P, R, start, pi, terminal, horizon, generator):
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    state = rng.choice(len(start), p=start.numpy())
    path, actions, rewards = [int(state)], [], []
    for _ in range(horizon):
        if terminal[state]:
            return path, actions, rewards
        action = rng.choice(pi.shape[1], p=pi[state].numpy())
        after = rng.choice(len(start), p=P[state, action].numpy())
        actions.append(int(action)), rewards.append(R[state, action, after].item()), path.append(int(after))
        state = after
    return path, actions, rewards


# 7.7 ------------------------------------------------------------------------------------------------------------------


def listing(*, more=0, stops=True, seen=lambda p, q: p * q > 0, every=False, last=True, early=True):
    """An answer that makes one mistake, or none; layer by layer instead of by calling itself."""

    def answer(P, pi, terminal, state, steps):
        layer, done = [([state], [])], []
        for _ in range(steps + more):
            grown = []
            for states, actions in layer:
                s = states[-1]
                if stops and terminal[s]:
                    done += [(states, actions)] if early else []
                    continue
                done += [(states, actions)] if every else []
                grown += [([*states, t], [*actions, a]) for a in range(pi.shape[1]) for t in range(len(P))
                          if seen(pi[s, a], P[s, a, t])]  # fmt: skip
            layer = grown
        found = done + layer
        return found if last else [(states[:-1] or states, actions) for states, actions in found]

    return answer


# 7.12 ----------------------------------------------------------------------------------------------------------------


def iterating(*, sweeps=300, mean=False, q=lambda P, R, gamma, v: action_values(P, R, gamma, v), form=None):
    """An answer that makes one mistake, or none."""

    def answer(P, R, gamma, tolerance=1e-12):
        values = torch.zeros(len(P)).double()
        for _ in range(sweeps):
            table = action_values(P, R, gamma, values)
            values = table.mean(1) if mean else table.amax(1)
        table = q(P, R, gamma, values)
        return values, form(table) if form else torch.eye(table.shape[1]).double()[table.argmax(1)]

    return answer


# 7.14 ----------------------------------------------------------------------------------------------------------------


def waiting(*, chain=lambda P, pi: torch.einsum("sa,sat->st", pi, P), sweeps=4000, add=0.0):
    """An answer that makes one mistake, or none; by repeating the equation."""

    def answer(P, pi, terminal):
        steps, onward = torch.zeros(len(P)).double(), chain(P, pi)
        for _ in range(sweeps):
            steps = torch.where(terminal, 0.0, 1 + onward @ steps)
        return steps + add * ~terminal

    return answer


def with_everything(P, pi, terminal):
    chain = torch.einsum("sa,sat->st", pi, P)
    return torch.linalg.solve(torch.eye(len(P)).double() - chain, torch.ones(len(P)).double())


def visits(P, pi, terminal):
    """By the expected number of visits."""
    inner = torch.einsum("sa,sat->st", pi, P)[~terminal][:, ~terminal]
    found = torch.zeros(len(P)).double()
    found[~terminal] = torch.linalg.inv(torch.eye(len(inner)).double() - inner).sum(1)
    return found


# 7.9 -----------------------------------------------------------------------------------------------------------------


def grouped(*, cut=None, half=lambda g, returns: 1.96 * g.std(1) / g.shape[1] ** 0.5, held=None):
    """An answer that makes one mistake, or none."""

    def answer(returns, size, truth):
        groups = cut(returns, size) if cut else torch.stack(returns.split(size)[: len(returns) // size])
        width = half(groups, returns)
        low, high = groups.mean(1) - width, groups.mean(1) + width
        share = held(low, high, truth) if held else ((low - truth) * (high - truth) <= 0).double().mean()
        return low, high, share

    return answer


def by_tuples(returns, size, truth):
    ends = []
    for begin in range(0, len(returns) - size + 1, size):
        mean, error = by_sums(returns[begin : begin + size])
        ends.append((mean - 1.96 * error, mean + 1.96 * error))
    low, high = torch.tensor(ends, dtype=torch.float64).unbind(1)
    return low, high, sum(a <= truth <= b for a, b in ends) / len(ends)


def with_the_rest(returns, size, truth):
    pairs = [(group.mean(), 1.96 * group.std() / len(group) ** 0.5) for group in returns.split(size) if len(group) > 1]
    mean, half = torch.tensor(pairs, dtype=torch.float64).T
    return mean - half, mean + half, float(((mean - truth).abs() <= half).double().mean())


# 7.13 ----------------------------------------------------------------------------------------------------------------


def trying(*, choices=lambda actions, n: itertools.product(range(actions), repeat=n), ends=True, read=None, best=False):
    """An answer that makes one mistake, or none; a policy is an index, not a table."""

    def answer(P, R, start, terminal, gamma):
        acting = [s for s in range(len(P)) if not (ends and terminal[s])]
        found = []
        for choice in choices(P.shape[1], len(acting)):
            actions = [0] * len(P)
            for s, a in zip(acting, choice):
                actions[s] = a
            chosen = P[range(len(P)), actions]
            rewards = (chosen * R[range(len(P)), actions]).sum(1)
            values = torch.linalg.inv(torch.eye(len(P)).double() - gamma * chosen) @ rewards
            found.append(float((read or (lambda start, v: start @ v))(start, values)))
        return [max(found)] if best else found

    return answer


def by_calling_itself(P, R, start, terminal, gamma, actions=()):
    if len(actions) < len(P):
        free = range(1 if terminal[len(actions)] else P.shape[1])
        return [x for a in free for x in by_calling_itself(P, R, start, terminal, gamma, (*actions, a))]
    pi = torch.eye(P.shape[1]).double()[list(actions)]
    return [(start @ iterated(right_step)(P, R, pi, gamma)).item()]


# 7.15 ----------------------------------------------------------------------------------------------------------------


def paying(gained, *, over=lambda terminal: terminal[:, None, None], keep=1):
    """An answer that pays gained(Phi(s), Phi(s')), broadcast over (S, A, S)."""

    def answer(R, terminal, potential, gamma):
        paid = keep * R + gained(potential[:, None, None], potential[None, None, :], gamma)
        return torch.where(over(terminal), torch.zeros_like(R), paid)

    return answer


def progress_by_loops(R, terminal, potential, gamma):
    paid = R.clone()
    for s in range(len(R)):
        for after in range(len(R)):
            if not terminal[s]:
                paid[s, :, after] += gamma * potential[after] - potential[s]
    return paid


WRONG = {
    "7.9": [
        (grouped(cut=lambda r, size: r[: len(r) // size * size].view(size, -1)), "number of intervals"),
        (grouped(cut=lambda r, size: r[: len(r) // size * size].view(size, -1).T), "so-and-so-many-th"),
        (grouped(cut=lambda r, size: r.unfold(0, size, 1)), "overlap"),
        (grouped(half=lambda g, r: 1.96 * g.std(1)), "spread of single returns"),
        (grouped(half=lambda g, r: 1.96 * g.std(1) / g.shape[1]), "falls with the root"),
        (grouped(half=lambda g, r: g.std(1) / g.shape[1] ** 0.5), "it takes 1.96"),
        (grouped(half=lambda g, r: 1.96 * g.std(1, correction=0) / g.shape[1] ** 0.5), "not N - 1"),
        (grouped(half=lambda g, r: 1.96 * g.std(1) / len(r) ** 0.5), "all N"),
        (grouped(half=lambda g, r: 1.96 * r.std() / g.shape[1] ** 0.5), "the same width"),
        (grouped(half=lambda g, r: -1.96 * g.std(1) / g.shape[1] ** 0.5), "exchanged"),
        (grouped(held=lambda low, high, truth: (low <= truth).double().mean()), "lower end alone"),
        (grouped(held=lambda low, high, truth: (truth <= high).double().mean()), "upper end alone"),
        (grouped(held=lambda low, high, truth: ((truth < low) | (truth > high)).double().mean()), "misses"),
        (grouped(held=lambda low, high, truth: int(((low <= truth) & (truth <= high)).sum())), "how many contain"),
        (grouped(held=lambda low, high, truth: ((low <= truth) | (truth <= high)).double().mean()), "either end"),
        (grouped(held=lambda low, high, truth: ((low <= 0) & (high >= 0)).double().mean()), "held against 0"),
        (grouped(held=lambda low, high, truth: 100 * ((low <= truth) & (truth <= high)).double().mean()), "percent"),
        (with_the_rest, "one more interval"),
        (lambda returns, size, truth: grouped()(returns, size, truth)[2], "expected a tuple"),
        (lambda returns, size, truth: grouped()(returns, size, truth)[:2], "has 2 parts"),
    ],
    "7.13": [
        (trying(choices=lambda actions, n: ((a,) * n for a in range(actions))), "the same in all states"),
        (trying(choices=lambda actions, n: itertools.combinations_with_replacement(range(actions), n)), "left out"),
        (trying(ends=False), "terminal states choose too"),
        (trying(read=lambda start, v: v[0]), "first state alone"),
        (trying(read=lambda start, v: v.mean()), "mean of V over all states"),
        (trying(read=lambda start, v: v.sum()), "added up"),
        (trying(read=lambda start, v: v.max()), "the largest V"),
        (trying(best=True), "the best alone"),
        (lambda P, R, start, terminal, gamma: trying()(P, R, start, terminal, 0.0), "reward of one step"),
        (lambda *given: max(trying()(*given)), "expected a list"),
    ],
    "7.15": [
        (paying(lambda here, there, gamma: here - gamma * there), "sign of the progress"),
        (paying(lambda here, there, gamma: there - gamma * here), "before Phi(s)"),
        (paying(lambda here, there, gamma: gamma * (there - here)), "before the difference"),
        (paying(lambda here, there, gamma: gamma * here - there), "s and s' are exchanged"),
        (paying(lambda here, there, gamma: there - here), "as if gamma were 1"),
        (paying(lambda here, there, gamma: gamma * there - here, keep=0), "R is missing"),
        (paying(lambda here, there, gamma: gamma * there), "Phi(s) is missing"),
        (paying(lambda here, there, gamma: -here), "Phi(s') is missing"),
        (paying(lambda here, there, gamma: gamma * there - here, over=lambda t: t[:, None, None] & False), "too: the"),
        (paying(lambda here, there, gamma: gamma * there - here, over=lambda t: t[None, None, :]), "pays nothing"),
        (lambda R, terminal, potential, gamma: gamma * potential - potential[:, None], "shape"),
    ],
    "7.1": [
        (replaces, "add up"),
        (spread(lambda slip: ((0, 1 - 2 * slip), (1, slip), (3, slip))), "both sides together"),
        (spread(lambda slip: ((0, 1 - slip), (1, slip), (3, slip))), "counted twice"),
        (spread(lambda slip: ((0, 1.0),)), "as if slip were 0"),
        (spread(lambda slip: ((0, 1 - slip), (2, slip))), "backwards"),
        (spread(lambda slip: ((0, 1 - slip), (1, slip / 3), (2, slip / 3), (3, slip / 3))), "three moves"),
        (spread(lambda slip: ((0, 1 - slip), *((turn, slip / 4) for turn in range(4)))), "all four moves"),
        (stays_when_slipping, "moves it sideways"),
        (spread(right_turns, through_walls), "through walls"),
        (spread(right_turns, around), "wraps around"),
        (spread(right_turns, off_the_map), "leaves the map"),
        (spread(right_turns, upside_down), "up and down are exchanged"),
        (spread(right_turns, transposed), "row and column are exchanged"),
        (drops_blocked, "blocked moves are left out:"),
        (drops_and_scales, "the rest scaled up"),
        (spread(lambda slip: ((0, slip), (1, (1 - slip) / 2), (3, (1 - slip) / 2))), "for 1 - slip"),
        (spread(lambda slip: ((0, 1 - slip), (1, slip // 2), (3, slip // 2))), "not 1"),
        (spread(lambda slip: ((2, 1 - slip), (1, slip / 2), (3, slip / 2))), "away from where it meant"),
        (spread(lambda slip: ((0, 1 - slip), (1, slip))), "to the right alone"),
        (steps_aside, "result has"),
        (inner_cells_only, "row 0 and column 0"),
        (stays_when_blocked, "stays for certain"),
        (by_number, "is not a cell (row, column)"),
        (lambda rows, cell, action, slip: list(spread(right_turns)(rows, cell, action, slip)), "expected a dict"),
    ],
    "7.5": [
        (padding_counts, "as if mask were True everywhere"),
        (no_gamma, "as if gamma were 1: it is not used"),
        (first_discounted, "times gamma"),
        (discounted_once, "each reward is discounted once"),
        (multiplied_once, "multiplied by gamma once"),
        (backwards_discount, "runs backwards"),
        (mean_of_rewards, "this is a mean:"),
        (mean_over_all, "this is a mean: a return is a sum"),
        (last_reward, "the last reward alone"),
        (over_episodes, "summed over the episodes"),
        (from_every_step, "returns from every step on"),
        (mask_turned, "the mask is turned round"),
        (gamma_times_t, "gamma * t"),
        (forward_horner, "runs backwards"),
        (cleared, "rewards was changed in place"),
        (without_the_last_column, "with 0 in the last place along steps"),
        (lambda rewards, mask, gamma: horner(rewards, mask, gamma)[:, None], "too many"),
    ],
    "7.6": [
        (from_factors(lambda first, chosen, landed: math.prod(chosen) * math.prod(landed)), "as if start were 1"),
        (from_factors(lambda first, chosen, landed: first * math.prod(landed)), "as if pi were 1"),
        (from_factors(lambda first, chosen, landed: first * math.prod(chosen)), "as if P were 1"),
        (from_factors(lambda first, chosen, landed: math.prod(chosen)), "only the policy is counted"),
        (
            from_factors(lambda first, chosen, landed: first * math.prod(chosen) * math.prod(landed[:-1])),
            "last transition is missing",
        ),
        (
            from_factors(lambda first, chosen, landed: first * math.prod(chosen[:-1]) * math.prod(landed[:-1])),
            "last step is missing",
        ),
        (next_states_policy, "the state that follows"),
        (reads_backwards, "P is read backwards"),
        (from_factors(lambda first, chosen, landed: first + sum(chosen) + sum(landed)), "these factors are added"),
        (lambda *given: math.log(through_logarithms(*given)), "logarithm"),
        (
            from_factors(lambda first, chosen, landed: first * math.prod(chosen[1:]) * math.prod(landed[1:])),
            "the first step is missing",
        ),
        (stays_in_place, "P[s, a, s]"),
        (takes_states_away, "states was changed in place"),
        (one_step_too_far, "IndexError"),
    ],
    "7.8": [
        (with_error(lambda s, n: s), "their mean shakes less"),
        (lambda returns: (returns.mean(), returns.std(unbiased=False)), "with N for N - 1"),
        (with_error(lambda s, n: s / n), "divided by N"),
        (with_error(lambda s, n: s**2 / n), "squared error"),
        (with_error(lambda s, n: s**2), "the variance of single returns"),
        (lambda returns: (returns.mean(), returns.std(unbiased=False) / len(returns) ** 0.5), "expected N - 1"),
        (with_error(lambda s, n: 1.96 * s / n**0.5), "1.96"),
        (with_error(lambda s, n: s * n**0.5), "times N"),
        (lambda returns: (returns.sum(), returns.std() / len(returns) ** 0.5), "times N"),
        (with_error(lambda s, n: s / (n - 1) ** 0.5), "divided by the root of N - 1"),
        (with_error(lambda s, n: s**2 / n**0.5), "it is the standard deviation that is"),
        (with_error(lambda s, n: s / n**2), "and all this divided by N"),
        (lambda returns: (returns.median(), returns.std() / len(returns) ** 0.5), "the lower median"),
        (lambda returns: (returns.std() / len(returns) ** 0.5, returns.mean()), "exchanged"),
        (lambda returns: returns.mean(), "expected a tuple"),
        (lambda returns: (returns.mean(), returns.std(), len(returns)), "has 3 parts"),
        (centred_in_place, "returns was changed in place"),
        (the_interval, "ends of the 95 % interval"),
    ],
    "7.10": [
        (iterated(lambda P, R, pi, gamma, v: action_values(P, R, gamma, v).amax(1)), "the best action is taken"),
        (iterated(lambda P, R, pi, gamma, v: action_values(P, R, gamma, v).mean(1)), "all actions count alike"),
        (iterated(lambda P, R, pi, gamma, v: right_step(P, R, pi, 1.0, v), 2000), "gamma is ignored"),
        (iterated(right_step, 1), "the reward of one step"),
        (iterated(right_step, 2), "this is two steps"),
        (
            iterated(lambda P, R, pi, gamma, v: (pi * (R.sum(-1) + gamma * P @ v)).sum(1)),
            "not weighted by P",
        ),
        (
            iterated(lambda P, R, pi, gamma, v: gamma * (pi * (P * (R + v)).sum(-1)).sum(1)),
            "times gamma",
        ),
        (transposed_solve, "transposed"),
        (as_q, "one per action"),
        (lambda *given: iterated(right_step)(*given).mean(), "one value per state"),
        (iterated(right_step, 10), "or a few"),
        (plus_gamma, "gamma with its sign turned"),
        (solving(lambda P, R, pi: (P * R).sum((1, 2)), right_transitions), "not weighted by pi"),
        (solving(right_rewards, lambda P, pi: P.mean(1)), "transitions are not weighted by pi"),
        (solving(lambda P, R, pi: (pi * R.mean(-1)).sum(1), right_transitions), "not weighted by P: it is paid only"),
        (solving(lambda *given: right_rewards(*given)[:, None], right_transitions), "too many"),
    ],
    "7.11": [
        (lambda P, R, gamma, v: action_values(P, R, gamma, v).mean(1), "averaged"),
        (hasty, "best reward now"),
        (lucky, "average over s'"),
        (lambda P, R, gamma, v: action_values(P, R, 1.0, v).amax(1), "as if gamma were 1"),
        (lambda P, R, gamma, v: gamma * (P * (R + v)).sum(-1).amax(1), "discounted too"),
        (lambda P, R, gamma, v: (P * R).sum(-1).amax(1), "as if gamma were 0"),
        (lambda P, R, gamma, v: (P * R).sum(-1).amax(1) + gamma * v, "old value of s"),
        (overwrites, "overwritten during the sweep"),
        (changes_its_argument, "values was changed in place"),
        (lambda P, R, gamma, v: action_values(P, R, gamma, v).argmax(1), "these are the best actions"),
        (lambda P, R, gamma, v: action_values(P, R, gamma, v), "these are Q"),
        (to_the_end, "one sweep"),
        (lambda P, R, gamma, v: action_values(P, R, gamma, v).max(1), "take .values"),
        (lambda P, R, gamma, v: action_values(P, R, gamma, v).amax(1) - v, "the new value is wanted"),
        (lambda P, R, gamma, v: (R + gamma * v).sum(-1).amax(1), "as if P were 1"),
        (lambda P, R, gamma, v: (R.sum(-1) + gamma * P @ v).amax(1), "the rewards are not weighted"),
        (lambda P, R, gamma, v: action_values(P, R, -gamma, v).amax(1), "gamma with its sign turned"),
        (lambda P, R, gamma, v: action_values(P, R, gamma, v)[:, 0], "the first alone"),
        (starts_at_zero, "cut off below 0"),
    ],
    "7.2": [
        (grid(pays={"G": 1, "X": 1}), "pays like the star"),
        (grid(pays={"G": 1}), "the pit costs nothing"),
        (grid(left=True), "looked up in the cell that is left"),
        (grid(over="G"), "the pit ends the episode too"),
        (grid(both=True), "the end of patience is called terminated"),
        (grid(off=1), "one step too late"),
        (grid(off=-1), "one step too early"),
        (grid(forget=False), "steps of earlier episodes"),
        (grid(count=0), "patience never ends"),
        (grid(home=False), "back to S"),
        (grid(old=True), "the cell that is left comes back"),
        (grid(draw=lambda rng, chances: rng.choice([*chances])), "equal chances"),
        (grid(draw=lambda rng, chances: max(chances, key=chances.get)), "likeliest cell"),
    ],
    "7.3": [
        (tables(over=""), "the agent walks out of G and X"),
        (tables(over="G"), "it walks out of X"),
        (tables(empty=True), "leads nowhere"),
        (turned_round, "the first index is where a move begins"),
        (tables(again=True), "pays again and again"),
        (tables(left=True, again=True), "the cell that is left"),
        (tables(pit=1.0), "pays like the star"),
        (tables(pit=0.0), "the pit costs nothing"),
        (tables(weighted=True), "weighed with the chance already"),
        (tables(every=True), "every state begins"),
        (tables(first=True), "the first cell begins"),
    ],
    "7.4": [
        (walking(more=1), "one step too many"),
        (walking(more=-1), "one step too few"),
        (walking(stops=False), "goes on where the episode is over"),
        (walking(begins=False), "always begins in state 0"),
        (walking(act=likeliest, go=likeliest), "the likeliest is always taken"),
        (walking(act=likeliest), "the likeliest action is always taken"),
        (walking(paid=lambda R, s, a, after: R[s, a, s]), "R[s, a, s]"),
        (walking(paid=lambda R, s, a, after: R[after, a, s]), "s comes first"),
        (walking(cut=slice(0, -1)), "the last state is missing"),
        (walking(cut=slice(1, None)), "the first state is missing"),
        (walking(added=True), "added up"),
    ],
    "7.7": [
        (listing(more=1), "one step too many"),
        (listing(stops=False), "goes on where the episode is over"),
        (listing(seen=lambda p, q: q > 0), "where pi is 0"),
        (listing(seen=lambda p, q: p > 0), "where P is 0"),
        (listing(every=True), "unfinished trajectories"),
        (listing(last=False), "one too few"),
        (listing(early=False), "those that end early"),
    ],
    "7.12": [
        (iterating(sweeps=1), "one sweep only"),
        (iterating(sweeps=5), "a few sweeps only"),
        (iterating(mean=True), "the actions are averaged"),
        (iterating(q=lambda P, R, gamma, v: (P * R).sum(-1)), "best reward now"),
        (iterating(q=lambda P, R, gamma, v: action_values(P, R, 1.0, v)), "gamma is missing"),
        (iterating(q=lambda P, R, gamma, v: -action_values(P, R, gamma, v)), "the worst action"),
        (iterating(form=lambda q: q.argmax(1)), "the numbers of the actions"),
        (iterating(form=lambda q: q), "Q(s, a)"),
        (iterating(form=lambda q: torch.full_like(q, 1 / q.shape[1])), "the same probability"),
        (lambda *given: iterating()(*given)[::-1], "exchanged"),
    ],
    "7.14": [
        (waiting(chain=lambda P, pi: P.mean(1)), "all actions count alike"),
        (waiting(add=-1.0), "one step less"),
        (waiting(add=1.0), "one step more"),
        (waiting(sweeps=10), "repeat until nothing changes"),
        (lambda *given: waiting()(*given).mean(), "one for each state"),
        (lambda P, pi, terminal: waiting()(P, pi, terminal)[~terminal], "are missing"),
        (with_everything, "leave out the states"),
    ],
}
RIGHT = {
    "7.9": [grouped(), by_tuples],
    "7.13": [trying(), by_calling_itself],
    "7.15": [paying(lambda here, there, gamma: gamma * there - here), progress_by_loops],
    "7.2": [grid(), BySampling],
    "7.3": [tables()],
    "7.4": [walking(), by_numpy],
    "7.7": [listing()],
    "7.12": [iterating()],
    "7.14": [waiting(), visits],
    "7.1": [spread(right_turns), padded_map, one_at_a_time],
    "7.5": [horner, lists, with_einsum],
    "7.6": [through_logarithms, in_float32],
    "7.8": [by_sums, with_numpy],
    "7.10": [iterated(right_step), solving(right_rewards, right_transitions), until_nothing_changes],
    "7.11": [by_loops],
}
