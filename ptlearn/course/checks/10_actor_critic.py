"""Lesson 10: advantages, from rollouts and from residuals; the critic; bias and cuts; the loop; a sampler; six bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` and in the lab alone.
"""

import math
import statistics
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import torch

from ptlearn.course.cases import masks, softmax
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.course.lab import lab_of_runs
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import MDP
from ptlearn.policy_gradient import advantage, policy_gradient_loss
from ptlearn.rl.policies import TabularCritic, TabularPolicy
from ptlearn.rollout import Rollout, action_logprobs


def drawn(rng, *shape, low=-2.0, high=2.0):
    """Nested lists of numbers with two digits."""
    if len(shape) > 1:
        return [drawn(rng, *shape[1:], low=low, high=high) for _ in range(shape[0])]
    return [round(rng.uniform(low, high), 2) for _ in range(shape[0])]


# 10.1 The advantage --------------------------------------------------------------------------------------------------


def advantages(P, R, values, gamma):
    """The answer that the lesson goes on with: Q(s, a) - V(s)."""
    return (P * (R + gamma * values)).sum(-1) - values[:, None]


def advantage_cases(rng):
    """Fewer, more and as many states as actions, each leading to two states (or one); gamma 0, 1 and between."""
    cases = []
    for gamma, states, actions in ((0.5, 2, 1), (0.9, 3, 2), (1.0, 2, 3), (0.0, 3, 3)):
        P = []
        for state in range(states):
            chances, first = drawn(rng, actions, low=0.2, high=0.8), (state + 1) % states
            P.append([[p if s == first else 1 - p if s == state else 0.0 for s in range(states)] for p in chances])
        R, values = drawn(rng, states, actions, states), drawn(rng, states)
        cases.append({"P": P, "R": R, "values": values, "gamma": gamma})
    return cases


def expect_advantages(case):
    P, R, values, gamma = case["P"], case["R"], case["values"], case["gamma"]
    states, actions = range(len(P)), range(len(P[0]))

    def by(rule):
        """rule(s, a, the expected reward, the expected V(s')) for all states and actions."""
        return [[rule(s, a, expected(s, a, R[s][a]), expected(s, a, values)) for a in actions] for s in states]

    def expected(s, a, numbers):
        return sum(p * x for p, x in zip(P[s][a], numbers))

    q = by(lambda s, a, r, v: r + gamma * v)
    mistakes = {
        "this is Q: subtract V(s), the value before the action": q,
        "gamma multiplies the reward too: r comes now, only V(s') is one step away":
            by(lambda s, a, r, v: gamma * (r + v) - values[s]),
        "V(s) is discounted too: it is the value now, only V(s') is one step away":
            by(lambda s, a, r, v: r + gamma * v - gamma * values[s]),
        "V(s) is added: the advantage is what Q has more than V": by(lambda s, a, r, v: r + gamma * v + values[s]),
        "the sign is turned: Q - V, positive where the action is better than the policy's average":
            by(lambda s, a, r, v: values[s] - r - gamma * v),
        "the plain mean over actions is V of the uniform policy only: subtract the values that are given":
            by(lambda s, a, r, v: q[s][a] - sum(q[s]) / len(q[s])),
        "the best action's Q is subtracted: V(s) is the policy's average, not its maximum":
            by(lambda s, a, r, v: q[s][a] - max(q[s])),
        "V(s) stands in the place of V(s'): values go along the last axis, the next state":
            by(lambda s, a, r, v: r + gamma * values[s] - values[s]),
        "a sum over next states without their probabilities: weigh r + gamma V(s') by P": Alternatives(
            by(lambda s, a, r, v: sum(R[s][a]) + gamma * sum(values) - values[s]),
            by(lambda s, a, r, v: sum(R[s][a]) + gamma * sum(values) - len(P) * values[s]),
        ),
        "rewards are added up without their probabilities: weigh them by P, too": Alternatives(
            by(lambda s, a, r, v: sum(R[s][a]) + gamma * v - values[s]),
            by(lambda s, a, r, v: sum(R[s][a]) / len(P) + gamma * v - values[s]),
        ),
        "V(s) is subtracted for every next state: once is enough, after the sum":
            by(lambda s, a, r, v: r + gamma * v - len(P) * values[s]),
    }  # fmt: skip
    if len(P) == len(P[0]):
        mistakes["V is subtracted along the actions: make it a column, values[:, None]"] = by(
            lambda s, a, r, v: r + gamma * v - values[a]
        )
    return by(lambda s, a, r, v: r + gamma * v - values[s]), mistakes


# 10.2 Restart the world ----------------------------------------------------------------------------------------------


def restart(world, pi, states, actions, horizon, generator):
    """The package's answer: all rollouts side by side; those that have ended play on where nothing pays."""

    def draw(chances):
        return torch.multinomial(chances, 1, generator=generator)[:, 0]

    returns, steps = torch.zeros(len(states), dtype=torch.float64), torch.zeros_like(states)
    for t in range(horizon):
        after = draw(world.P[states, actions])
        returns = returns + world.gamma**t * world.R[states, actions, after]
        steps = steps + ~world.terminal[states]
        states, actions = after, draw(pi[after])
    return returns, steps


NOTHING_RESTARTED = dict.fromkeys(("returns", "steps", "moves", "actions"))  # of the other kind of case


def restart_cases(rng):
    """A walk without chance, that ends before the horizon or not; and chances of both kinds, to be counted."""
    walk = {"kind": "walk", "pays": [drawn(rng, 4, low=0.3), drawn(rng, 4, low=0.3)]}
    cases = [walk | {"gamma": gamma, "horizon": horizon} for gamma, horizon in ((0.5, 9), (0.8, 3), (1.0, 9))]
    shares = {name: round(rng.uniform(0.2, 0.35), 3) for name in ("slip", "left")}
    return [*cases, {"kind": "chance"} | shares]


STARTS = ((0, 1), (2, 0), (3, 1), (1, 0), (3, 0))  # states and actions from which the walk is restarted


def world_of(*arrays):
    """An MDP's fields, as they are: a copy of an MDP would divide its probabilities by their sum again."""
    names = "P", "R", "start", "gamma", "terminal", "states", "actions"
    return SimpleNamespace(**{name: getattr(MDP(*arrays), name) for name in names})


def walk_of(case):
    """Cells 0 to 4, the end; action 1 goes on, action 0 goes back; each pays something of its own."""
    P, R = torch.zeros(5, 2, 5), torch.zeros(5, 2, 5)
    for cell in range(5):
        P[cell, 1, min(cell + 1, 4)] = P[cell, 0, 4 if cell == 4 else max(cell - 1, 0)] = 1
        if cell < 4:
            for action in (0, 1):
                R[cell, action] = case["pays"][action][cell]
    return world_of(P, R, [1, 0, 0, 0, 0], case["gamma"])


def drive_restart(answer, case):
    """Returns and steps of the walk, which goes on with action 1; for chances whether their shares are right."""
    generator = torch.Generator().manual_seed(1)
    if case["kind"] == "walk":
        world, pi = walk_of(case), torch.tensor([[0.0, 1.0]] * 5, dtype=torch.float64)
        states, actions = torch.tensor(STARTS).T
        returns, steps = answer(world, pi, states, actions, case["horizon"], generator)
        found = {"returns": returns, "steps": [int(x) for x in steps]}
        return NOTHING_RESTARTED | found
    slip, left, P, R = case["slip"], case["left"], torch.zeros(4, 2, 4), torch.zeros(4, 2)
    P[0, 0, 1], P[0, 0, 2], P[0, 1, 2] = 1 - slip, slip, 1
    P[1:, :, 3] = 1
    R[2, :], R[1, 1] = 10.0, 1.0  # 10 after a slip, else 1 where the second action is 1
    pi = torch.tensor([[left, 1 - left]] * 4, dtype=torch.float64)
    zeros = torch.zeros(2000, dtype=torch.long)
    returns, _ = answer(world_of(P, R, [1, 0, 0, 0]), pi, zeros, zeros, 5, generator)
    slipped, first = (returns == 10).double().mean(), (returns == 0).double().mean()
    return NOTHING_RESTARTED | {
        "moves": abs(float(slipped) - slip) < 0.05,
        "actions": abs(float(first) - (1 - slip) * left) < 0.05,
    }


def expect_restart(case):
    if case["kind"] == "chance":
        wrong = {
            ("moves", "the next states do not come from world.P[s, a]: the world chooses, in each rollout anew"): False,
            ("actions", "the actions after the first do not come from pi: sample them, in each rollout anew"): False,
        }
        return NOTHING_RESTARTED | {"moves": True, "actions": True}, wrong
    gamma, horizon, pays = case["gamma"], case["horizon"], case["pays"]

    def path(cell, action, given=True):
        """[(reward)] of a rollout; without the given action it goes on at once."""
        rewards, action = [], action if given else 1
        while cell < 4:
            rewards.append(pays[action][cell])
            cell, action = max(cell - 1, 0) if action == 0 else cell + 1, 1
        return rewards

    def by(horizon=horizon, gamma=gamma, first=0, given=True, kept=False):
        """Discounted sums and numbers of steps."""
        rows = []
        for cell, action in STARTS:
            rewards = path(cell, action, given)
            if kept:  # the first action again and again: those who go back never end
                rewards = rewards if action else [pays[0][max(cell - t, 0)] for t in range(horizon)]
            rows.append(rewards[:horizon])
        sums = [sum(gamma ** (t + first) * r for t, r in enumerate(row)) for row in rows]
        return {"returns": sums, "steps": [len(row) for row in rows]}

    expected = NOTHING_RESTARTED | by()
    lengths = expected["steps"]
    mistakes = {
        "the action that is given is not taken: the rollout begins with it, then pi goes on":
            expected | by(given=False),
        "the action that is given is taken at every step: from the second on the actions come from pi":
            expected | by(kept=True),
        "one step too many: `horizon` of them at most": expected | by(horizon + 1),
        "one step too few: `horizon` of them": expected | by(horizon - 1),
        ("returns", "nothing is discounted: step t counts gamma^t"): by(gamma=1.0)["returns"],
        ("returns", "discounted from the first step on: it counts in full"): by(first=1)["returns"],
        ("returns", "the last reward alone: sum over the steps"):
            [gamma ** (n - 1) * path(*start)[n - 1] for start, n in zip(STARTS, lengths)],
        ("returns", "the first reward alone: sum over the steps"): [path(*start)[0] for start in STARTS],
        ("steps", "steps after the end are counted: count those that still act"): [horizon] * len(STARTS),
        ("steps", "the longest rollout's steps for all: each has its own"): [max(lengths)] * len(STARTS),
        ("steps", "the first step is not counted: the world has to make it, too"): [n - 1 for n in lengths],
        ("steps", "the last step is not counted: look who acts before the move"):
            [n - (len(path(*start)) <= horizon) for start, n in zip(STARTS, lengths)],
        ("steps", "one step too many is counted"): [n + 1 for n in lengths],
    }  # fmt: skip
    return expected, mistakes


# 10.3 TD residuals ---------------------------------------------------------------------------------------------------


def td_residuals(rewards, values, mask, final_values, terminated, gamma):
    """The package's answer: the recursion with lam = 0."""
    return advantage(rewards, values, mask, final_values.where(~terminated, 0), gamma=gamma, lam=0.0)


def residual_cases(rng):
    """Episodes that terminate or are cut off, early or in the last column; numbers everywhere in the padding."""
    cases = []
    kinds = ((0.5, [1, 2]), (0.9, [2, 3, 4, 4]), (1.0, [3, 1, 2]), (0.0, [3, 2]))
    for number, (gamma, lengths) in enumerate(kinds):
        shape = len(lengths), max(lengths)
        case = {"rewards": drawn(rng, *shape), "values": drawn(rng, *shape, low=0.5), "mask": masks(lengths, shape[1])}
        ends = [(row + number) % 2 == 0 for row in range(len(lengths))]
        cases.append(case | {"final_values": drawn(rng, len(lengths), low=0.5), "terminated": ends, "gamma": gamma})
    return cases


def residuals_of(case, *, after=None, gamma=None, rule=lambda r, now, then: r + then - now):
    """Rows of residuals; `after(row, t, last)` is the next value, by default what the definition says."""
    gamma = case["gamma"] if gamma is None else gamma
    after = after or next_value(case)
    table = []
    for b, acted in enumerate(case["mask"]):
        last, values, rewards = sum(acted) - 1, case["values"][b], case["rewards"][b]
        row = [rule(rewards[t], values[t], gamma * after(b, t, last)) for t in range(last + 1)]
        table.append(row + [0.0] * (len(values) - last - 1))
    return table


def next_value(case, at_termination=False, at_truncation=True):
    """V(s') of a step: after the last one the final state's value where the flag for that kind of end says so."""

    def after(b, t, last):
        if t < last:
            return case["values"][b][t + 1]
        used = at_termination if case["terminated"][b] else at_truncation
        return case["final_values"][b] * used

    return after


def expect_residuals(case):
    values, gamma, right = case["values"], case["gamma"], next_value(case)
    steps = len(values[0])

    def by(after=None, rule=None, gamma=gamma):
        return residuals_of(case, after=after, gamma=gamma, **({"rule": rule} if rule else {}))

    def columns(then):
        """V(s') one column to the right, and then(b, last) in the last one: the end of the table for the episode's."""
        return lambda b, t, last: values[b][t + 1] if t + 1 < steps else then(b, last)

    def padded(padding):
        """The right residuals, and padding(b, t) where mask is False."""
        rows = enumerate(zip(by(), case["mask"]))
        return [[x if mask[t] else padding(b, t) for t, x in enumerate(row)] for b, (row, mask) in rows]

    def then_of_padding(b, t):
        return columns(last_alone)(b, t, steps)

    rewards, final, last_alone = case["rewards"], case["final_values"], lambda b, last: right(b, last, last)
    mistakes = {
        "a terminated episode goes on: after the goal or a pit nothing more comes, so V(s') is 0 there":
            by(next_value(case, at_termination=True)),
        "V(s') of an episode's last step is taken from its padding: the end is where the mask ends":
            by(columns(last_alone)),
        "V(s') of the last step is taken from the padding, and terminated is not used":
            by(columns(lambda b, last: final[b])),
        "V(s') of the last step comes from the padding, and final_values are not used": Alternatives(
            by(columns(lambda b, last: 0.0)), by(columns(lambda b, last: values[b][0])),
            by(columns(lambda b, last: values[b][-1])),
        ),
        "final_values are used at every step: they follow the last one alone":
            by(lambda b, t, last: right(b, last, last)),
        "a terminated episode has no next value at any step: only after its last one it has none":
            by(lambda b, t, last: 0.0 if case["terminated"][b] else right(b, t, last)),
        "V(s) stands in the place of V(s')": by(lambda b, t, last: values[b][t] if t < last else right(b, t, last)),
        "the value before stands in the place of the one that follows": Alternatives(
            by(lambda b, t, last: (values[b][t - 1] if t else 0.0) if t < last else right(b, t, last)),
            by(lambda b, t, last: values[b][t - 1] if t < last else right(b, t, last)),
        ),
        "final_values are not discounted: they follow one step after the last, too":
            by(lambda b, t, last: right(b, t, last) * (gamma if t < last else 1.0), gamma=1.0),
        "gamma multiplies the reward too: only V(s') is one step away":
            by(rule=lambda r, now, then: gamma * r + then - now),
        "gamma multiplies V(s), not V(s')": by(gamma=1.0, rule=lambda r, now, then: r + then - gamma * now),
        "V(s) is added: the residual is what came, r + gamma V(s'), minus what was expected, V(s)":
            by(rule=lambda r, now, then: r + then + now),
        "the values are exchanged: V(s') is what comes, V(s) what was expected":
            by(gamma=1.0, rule=lambda r, now, then: r + gamma * now - then),
        "these are sums of residuals: the residuals one by one are wanted":
            [discounted_sums(row, mask, gamma) for row, mask in zip(by(), case["mask"])],
        "the sign is turned: what came minus what was expected": by(rule=lambda r, now, then: now - r - then),
        "V(s) is missing: this is the target r + gamma V(s')": by(rule=lambda r, now, then: r + then),
        "padding has residuals: they are 0 where mask is False": Alternatives(
            *(padded(lambda b, t, then=then: rewards[b][t] + gamma * then(b, t) - values[b][t]) for then in (
                lambda b, t: 0.0, then_of_padding, lambda b, t: values[b][(t + 1) % steps],
            )), padded(lambda b, t: -values[b][t]),
        ),
    }  # fmt: skip
    return by(), mistakes


# 10.4 Generalized advantage estimation -------------------------------------------------------------------------------


def gae(residuals, mask, gamma, lam):
    """With values of 0 the package's recursion discounts what it is given by gamma, so give it gamma lam."""
    zeros = residuals.new_zeros(residuals.shape)
    return advantage(residuals, zeros, mask, zeros[:, 0], gamma=gamma * lam, lam=1.0)


def gae_cases(rng):
    """Rows of different lengths, with numbers in the padding that must not count; gamma and lam 0, 1 and between."""
    cases = []
    kinds = ((0.9, 0.5), (0.8, 1.0), (0.9, 0.0), (1.0, 0.7), (0.7, 0.9), (1.0, 1.0))
    for (gamma, lam), lengths in zip(kinds, ([2, 1], [4, 2], [3, 3], [2, 5, 3], [4], [3, 2])):
        mask = masks(lengths, max(lengths))
        residuals = drawn(rng, len(mask), len(mask[0]))
        cases.append({"residuals": residuals, "mask": mask, "gamma": gamma, "lam": lam})
    return cases


def weighted_sums(row, mask, weight):
    """sum over j of weight(t, j) row[j] over the steps that count, for each step t that counts; 0 for the others."""
    steps = [t for t, acted in enumerate(mask) if acted]
    return [sum(weight(t, j) * row[j] for j in steps) if mask[t] else 0.0 for t in range(len(row))]


def discounted_sums(row, mask, keep):
    """sum over l >= 0 of keep**l row[t + l], over the steps that count."""
    return weighted_sums(row, mask, lambda t, j: keep ** (j - t) if j >= t else 0.0)


def expect_gae(case):
    gamma, lam = case["gamma"], case["lam"]
    keep, rows = gamma * lam, list(zip(case["residuals"], case["mask"]))

    def by(weight):
        return [weighted_sums(row, mask, lambda t, j: weight(t, j) if j >= t else 0.0) for row, mask in rows]

    def ahead(keep):
        return by(lambda t, j: keep ** (j - t))

    expected = ahead(keep)
    unmasked = [discounted_sums(row, [True] * len(row), keep) for row, _ in rows]
    leaked = [[x * acted for x, acted in zip(row, mask)] for row, (_, mask) in zip(unmasked, rows)]
    one_stream, running = [], 0.0
    for row, mask in rows[::-1]:
        sums = [0.0] * len(row)
        for t in reversed(range(sum(mask))):
            sums[t] = running = row[t] + keep * running
        one_stream.insert(0, sums)
    mistakes = {
        "gamma is missing: a residual l steps ahead counts (gamma lam)^l": ahead(lam),
        "lam is missing: a residual l steps ahead counts (gamma lam)^l, not gamma^l": ahead(gamma),
        "gamma and lam are added: a residual l steps ahead counts (gamma lam)^l": ahead(gamma + lam),
        "gamma and lam are missing: a residual l steps ahead counts (gamma lam)^l": ahead(1.0),
        "nothing is carried: these are the residuals themselves, which is right only for lam = 0": ahead(0.0),
        "residuals ahead count gamma lam once: l steps ahead it is (gamma lam)^l":
            by(lambda t, j: keep if j > t else 1.0),
        "the own residual is missing: the sum begins at l = 0": by(lambda t, j: keep ** (j - t) * (j > t)),
        "only the next residual is carried: sum to the end of the episode":
            by(lambda t, j: keep ** (j - t) * (j <= t + 1)),
        "discounted from the start of the episode: count l from t on": by(lambda t, j: keep**j),
        "residuals in the padding are summed: steps after the end of an episode do not count": leaked,
        "summed over the past: an advantage is about what comes after the action, so walk backwards":
            [weighted_sums(row, mask, lambda t, j: keep ** (t - j) if j <= t else 0.0) for row, mask in rows],
        "scaled by 1 - lam: that is the average over n-step advantages; the sum of residuals needs no factor":
            [[(1 - lam) * x for x in row] for row in expected],
        "the residuals ahead are averaged with 1 - lam: their sum needs no such factor":
            by(lambda t, j: (1 - lam) * keep ** (j - t) if j > t else 1.0),
        "one stream: the first episode's sum runs on into the second episode": one_stream,
    }  # fmt: skip
    return expected, mistakes


# 10.5 Fitted values --------------------------------------------------------------------------------------------------


def fitted_values(observations, targets, mask, states):
    """The mean target of each state's visits, 0 where there was none."""
    seen = observations[mask]
    sums = targets.new_zeros(states).index_add(0, seen, targets[mask])
    return sums / seen.bincount(minlength=states).clamp(min=1)


def fitting_cases(rng):
    """States that are met twice in an episode, in several, never in the middle or at the end; 0 pads, or is met too."""
    cases = []
    for states, observations, lengths in (
        (3, [[1, 1], [1, 0]], [2, 1]),
        (6, [[1, 2, 1, 0], [0, 2, 0, 0], [2, 1, 0, 4]], [4, 2, 4]),
        (5, [[1, 2, 1, 3], [2, 2, 4, 4], [1, 0, 0, 0]], [3, 2, 1]),
        (4, [[0, 0, 2]], [3]),
    ):
        mask = masks(lengths, len(observations[0]))
        targets = drawn(rng, len(mask), len(mask[0]))
        cases.append({"observations": observations, "targets": targets, "mask": mask, "states": states})
    return cases


def expect_fitting(case):
    rows, states = list(zip(case["observations"], case["targets"], case["mask"])), case["states"]
    padded = [(b, s, y, acted) for b, row in enumerate(rows) for s, y, acted in zip(*row)]
    visits = [visit for visit in padded if visit[-1]]

    def table(rule, visits=visits, empty=0.0):
        """A number per state from its visits (episode, state, target, acted), in the order of collection."""
        found = [[visit for visit in visits if visit[1] == state] for state in range(states)]
        return [rule(some) if some else empty for some in found]

    def total(some):
        return sum(y for _, _, y, _ in some)

    def mean(some):
        return total(some) / len(some)

    def first_visits(some):
        return mean([visit for i, visit in enumerate(some) if visit[0] not in [b for b, *_ in some[:i]]])

    def episode_by_episode(some):
        means = [mean([visit for visit in some if visit[0] == b]) for b in sorted({b for b, *_ in some})]
        return sum(means) / len(means)

    mistakes = {
        "visits on padding are counted, their targets are not: leave them out of both":
            table(lambda some: total([visit for visit in some if visit[-1]]) / len(some), padded),
        "sums, not means: the number with the least squared error to some targets is their mean": table(total),
        "counts: how often a state was visited": table(len),
        "divided by all steps: divide by the visits of this state": table(lambda some: total(some) / len(visits)),
        "divided by all entries, padding too: divide by the visits of this state":
            table(lambda some: total(some) / len(padded)),
        "divided by the number of episodes: divide by the visits of this state":
            table(lambda some: total(some) / len(rows)),
        "divided by the number of states: divide by the visits of this state": table(lambda some: total(some) / states),
        "divided by one visit too many: divide by the visits of this state":
            table(lambda some: total(some) / (len(some) + 1)),
        "a state that was never visited has no mean: give it 0, not NaN": table(mean, empty=float("nan")),
        "a state that was never visited gets the mean of all targets: give it 0": table(mean, empty=mean(visits)),
        "the last visit replaces the others: average over all of them": table(lambda some: some[-1][2]),
        "`x[i] += y` with repeated indices adds the last y alone: use index_add":
            table(lambda some: some[-1][2] / len(some)),
        "the first visit alone: average over all of them": table(lambda some: some[0][2]),
        "the first visit of each episode alone: every visit is an example": table(first_visits),
        "averaged within each episode first: every visit weighs the same": table(episode_by_episode),
        "a running average (old + new) / 2: every visit weighs the same": Alternatives(
            table(lambda some: halved([y for _, _, y, _ in some], 0.0)),
            table(lambda some: halved([y for _, _, y, _ in some[1:]], some[0][2])),
        ),
        "the largest target is kept: regression takes the mean": table(lambda some: max(y for _, _, y, _ in some)),
        "the median of the targets: the least squared error takes the mean": Alternatives(
            table(lambda some: statistics.median(y for _, _, y, _ in some)),
            table(lambda some: statistics.median_low(y for _, _, y, _ in some)),
        ),
    }  # fmt: skip
    return table(mean), mistakes


def halved(numbers, start):
    """A number that goes half of the way to each of the others."""
    for number in numbers:
        start = (start + number) / 2
    return start


# 10.6 The critic -----------------------------------------------------------------------------------------------------


def evaluate(batch, final, states, gamma, lam, sweeps):
    """The package's recursion and the means of 10.5, from a table of zeros."""
    table = torch.zeros(states, dtype=batch.rewards.dtype)
    for _ in range(sweeps):
        now, bootstrap = table[batch.observations], torch.where(batch.terminated, 0, table[final])
        found = advantage(batch.rewards, now, batch.mask, bootstrap, gamma=gamma, lam=lam)
        table = fitted_values(batch.observations, now + found, batch.mask, states)
    return table


def evaluation_cases(rng):
    """Episodes that terminate or are cut off, in states that come back; the padding holds states, too."""
    cases = []
    for gamma, lam, sweeps, lengths in (
        (0.9, 0.0, 3, [1, 3, 2]),
        (0.8, 0.6, 2, [3, 4, 2]),
        (1.0, 0.7, 4, [2, 3, 3, 1]),
    ):
        states, steps = 4, max(lengths)
        case = {"observations": [[rng.randrange(3) for _ in range(steps)] for _ in lengths],
                "rewards": drawn(rng, len(lengths), steps, low=0.2), "mask": masks(lengths, steps)}  # fmt: skip
        case["observations"][0][0] = 2
        case |= {"terminated": [b % 2 == 0 for b in range(len(lengths))], "final": [rng.randrange(3) for _ in lengths]}
        cases.append(case | {"states": states, "gamma": gamma, "lam": lam, "sweeps": sweeps})
    return cases


def drive_evaluation(answer, case):
    observations, mask, terminated = (torch.tensor(case[name]) for name in ("observations", "mask", "terminated"))
    rewards = torch.tensor(case["rewards"], dtype=torch.float64)
    batch = Rollout(observations, 0 * observations, rewards, 0 * rewards, mask, terminated)
    return answer(batch, torch.tensor(case["final"]), case["states"], case["gamma"], case["lam"], case["sweeps"])


def expect_evaluation(case):
    expected = swept(case)
    mistakes = {
        "lam is not used: the labels are V plus one residual": swept(case, lam=0.0),
        "lam is not used: the labels are returns, as with lam = 1": swept(case, lam=1.0),
        "one sweep: the labels move with the table, so fit again, `sweeps` times": swept(case, sweeps=1),
        "one sweep too few": swept(case, sweeps=case["sweeps"] - 1),
        "one sweep too many": swept(case, sweeps=case["sweeps"] + 1),
        "fitted to the advantages: the label is V(s_t) plus the advantage": swept(case, plus=False),
        "V after a terminated episode counts: nothing comes there, the next value is 0":
            swept(case, at_termination=True),
        "episodes that were cut off are treated as over: V of `final` stands for what would come":
            swept(case, at_truncation=False),
        "the flag is turned: bootstrap where the episode did not terminate":
            swept(case, at_termination=True, at_truncation=False),
        "padding is fitted: leave it out": swept(case, padded=True),
        "the table is added to itself: each sweep fits a new one": swept(case, added=True),
        "gamma is not used": swept(case | {"gamma": 1.0}),
    }  # fmt: skip
    if case["gamma"] == 1.0:
        del mistakes["gamma is not used"]
    return expected, mistakes


def swept(case, *, lam=None, sweeps=None, plus=True, padded=False, added=False, **ends):
    """The table after sweeps of plain Python."""
    lam = case["lam"] if lam is None else lam
    table, mask = [0.0] * case["states"], case["mask"]
    for _ in range(case["sweeps"] if sweeps is None else sweeps):
        values = [[table[s] for s in row] for row in case["observations"]]
        filled = case | {"values": values, "final_values": [table[s] for s in case["final"]]}
        residuals = residuals_of(filled, after=next_value(filled, **ends))
        sums = [discounted_sums(row, acted, case["gamma"] * lam) for row, acted in zip(residuals, mask)]
        labels = [[x + plus * v for x, v in zip(*pair)] for pair in zip(sums, values)]
        found = []
        for state in range(case["states"]):
            seen = [y for row in zip(case["observations"], labels, mask) for s, y, acted in zip(*row)
                    if s == state and (acted or padded)]  # fmt: skip
            found.append(sum(seen) / len(seen) if seen else 0.0)
        table = [x + y for x, y in zip(table, found)] if added else found
    return table


# 10.7 The mean of an advantage ---------------------------------------------------------------------------------------


def mean_weights(P, pi, residuals, factors):
    """The package's answer: mean residuals, moved backwards once for each step ahead."""
    moves, total = torch.einsum("sa,sat->st", pi, P), factors[0] * residuals
    ahead = (pi * residuals).sum(1)
    for factor in factors[1:]:
        total = total + factor * (P @ ahead)
        ahead = moves @ ahead
    return total


def mean_cases(rng):
    """Worlds in which every state leads to two others, policies far from uniform, factors of GAE and of n steps."""
    cases = []
    for states, actions, factors in ((3, 2, [1.0, 0.7, 0.4]), (4, 3, [1.0, 0.9, 0.81, 0.0]), (3, 3, [0.8, 0.5])):
        P = []
        for state in range(states):
            row = []
            for action in range(actions):
                chance, one = round(rng.uniform(0.2, 0.8), 2), (state + action + 1) % states
                two = (one + 1) % states
                row.append([chance if s == one else 1 - chance if s == two else 0.0 for s in range(states)])
            P.append(row)
        pi = [softmax(rng.sample((-1.5, -0.4, 0.7, 1.6), actions)) for _ in range(states)]  # without ties
        cases.append({"P": P, "pi": pi, "residuals": drawn(rng, states, actions), "factors": factors})
    return cases


def expect_mean(case):
    P, pi, delta, factors = case["P"], case["pi"], case["residuals"], case["factors"]
    states, actions = range(len(P)), range(len(P[0]))
    uniform = [[1 / len(actions)] * len(actions) for _ in states]

    def total(factors=factors, pi=pi, chosen=None, own=True, still=False, first=True):
        """sum over l of factors[l] times the mean residual l steps ahead."""
        chosen = chosen or pi
        ahead = [sum(chosen[s][b] * delta[s][b] for b in actions) for s in states]
        table = [[factors[0] * delta[s][a] * own for a in actions] for s in states]
        for factor in factors[1:]:
            for s in states:
                for a in actions:
                    where = P[s][a] if first else [sum(pi[s][b] * P[s][b][t] for b in actions) for t in states]
                    table[s][a] += factor * sum(where[t] * ahead[t] for t in states)
            if not still:
                ahead = [sum(pi[s][b] * P[s][b][t] * ahead[t] for b in actions for t in states) for s in states]
        return table

    best = [[float(b == max(actions, key=lambda b, s=s: pi[s][b])) for b in actions] for s in states]
    mistakes = {
        "the residual at t itself is missing": total(own=False),
        "the residual at t is not multiplied by factors[0]": total([1.0, *factors[1:]]),
        "the residual at t alone: add those of the steps ahead": total(factors[:1]),
        "only the next step is looked at: go on to the last factor": total(factors[:2]),
        "the agent does not move on: after each step multiply by the moves under policy and world": total(still=True),
        "the factors are one place off: factors[l] goes with the residual l steps ahead":
            Alternatives(total([factors[0], *factors[:-1]]), total([factors[0], *factors[2:]])),
        "the mean over actions is a plain one: the policy chooses, so weigh by pi": Alternatives(
            total(pi=uniform), total(chosen=uniform)),
        "the residuals ahead are summed over actions without pi":
            total(chosen=[[1.0] * len(actions) for _ in states]),
        "the most likely action alone: average with pi": total(pi=best),
        "the first action is forgotten: the step from (s, a) is P[s, a], pi chooses from the next state on":
            total(first=False),
        "the factors are not used": total([1.0] * len(factors)),
    }  # fmt: skip
    if factors[0] == 1.0:
        del mistakes["the residual at t is not multiplied by factors[0]"]
    return total(), mistakes


# 10.8 Cut off --------------------------------------------------------------------------------------------------------


def cut_gradient(world, pi, values, horizon):
    """The package's answer: at each time, how likely the states are times the centred n-step advantage."""
    fitted = torch.where(world.terminal, 0, values)
    residuals, moves = advantages(world.P, world.R, fitted, world.gamma), torch.einsum("sa,sat->st", pi, world.P)
    reached, mean = world.start, torch.zeros_like(pi)
    for t in range(horizon):
        weights = mean_weights(world.P, pi, residuals, [world.gamma**ahead for ahead in range(horizon - t)])
        mean = mean + world.gamma**t * reached[:, None] * pi * (weights - (pi * weights).sum(1, keepdim=True))
        reached = reached @ moves
    return mean


def cut_cases(rng):
    """Three states and an end; the critic says something in the end, too."""
    cases = []
    for gamma, horizon in ((0.9, 3), (0.7, 4), (1.0, 2)):
        P = [[[0.0] * 4 for _ in range(2)] for _ in range(4)]
        for state in range(3):
            for action in range(2):
                moves, ends = round(rng.uniform(0.2, 0.5), 2), (0.15, 0.4)[action]
                P[state][action][(state + action + 1) % 3] += moves
                P[state][action][state] += 1 - moves - ends
                P[state][action][3] += ends
        P[3] = [[0.0, 0.0, 0.0, 1.0]] * 2
        R = [drawn(rng, 2, 4) for _ in range(3)] + [[[0.0] * 4] * 2]
        start = round(rng.uniform(0.3, 0.7), 2)
        cases.append({"P": P, "R": R, "start": [start, 1 - start, 0.0, 0.0], "gamma": gamma, "horizon": horizon,
                      "pi": [softmax(row) for row in drawn(rng, 4, 2)], "values": drawn(rng, 4, low=0.5)})  # fmt: skip
    return cases


def drive_cut(answer, case):
    world = world_of(*(torch.tensor(case[name], dtype=torch.float64) for name in ("P", "R", "start")), case["gamma"])
    pi, values = (torch.tensor(case[name], dtype=torch.float64) for name in ("pi", "values"))
    return answer(world, pi, values, case["horizon"])


def expect_cut(case):
    P, R, pi, gamma, horizon = (case[name] for name in ("P", "R", "pi", "gamma", "horizon"))
    states, actions = range(4), range(2)

    def mean(steps=horizon, left=lambda t: horizon - t, discount=True, centered=True, weigh=True, end=0.0, factor=gamma,
             moving=True):  # fmt: skip
        values = [*case["values"][:3], end]
        delta = [[sum(P[s][a][t] * (R[s][a][t] + gamma * values[t]) for t in states) - values[s] for a in actions]
                 for s in states]  # fmt: skip
        delta[3] = [gamma * end - end] * 2
        reached, table = case["start"], [[0.0] * 2 for _ in states]
        for t in range(steps):
            weights = summed(delta, left(t), factor)
            for s in states:
                average = sum(pi[s][b] * weights[s][b] for b in actions) if centered else 0.0
                for a in actions:
                    push = (pi[s][a] if weigh else 1.0) * (weights[s][a] - average)
                    table[s][a] += (gamma**t if discount else 1.0) * reached[s] * push
            if moving:
                reached = [sum(reached[s] * pi[s][a] * P[s][a][after] for s in states for a in actions)
                           for after in states]  # fmt: skip
        return table

    def summed(delta, count, factor):
        """Of `count` residuals, the one l steps ahead times factor^l."""
        table, ahead = [row[:] for row in delta], [sum(pi[s][b] * delta[s][b] for b in actions) for s in states]
        for step in range(1, count):
            table = [[table[s][a] + factor**step * sum(P[s][a][t] * ahead[t] for t in states) for a in actions]
                     for s in states]  # fmt: skip
            ahead = [sum(pi[s][b] * P[s][b][t] * ahead[t] for b in actions for t in states) for s in states]
        return table

    mistakes = {
        "the values of terminal states count: nothing comes after the end, so put 0 there": mean(end=case["values"][3]),
        "every step has `horizon` residuals: at step t there are horizon - t left": mean(left=lambda t: horizon),
        "one residual at every step: with lam = 1 there are horizon - t": mean(left=lambda t: 1),
        "the number of residuals grows: at step t there are horizon - t left": mean(left=lambda t: t + 1),
        "one residual too many at every step": mean(left=lambda t: horizon - t + 1),
        "gamma^t is missing: states count as often as they are visited, discounted": mean(discount=False),
        "the factors are 1: the residual l steps ahead counts gamma^l": mean(factor=1.0),
        "the mean under the policy is not subtracted: grad log pi takes from all actions of the state":
            mean(centered=False),
        "pi(a|s) is missing: an action counts as often as it is taken": mean(weigh=False),
        "the agent never moves: after each step it is where pi and P have led": mean(moving=False),
        "one step too many: t runs from 0 to horizon - 1": mean(horizon + 1, lambda t: max(horizon - t, 1)),
        "the first step alone: sum over t": mean(1),
    }  # fmt: skip
    if gamma == 1.0:
        for words in [words for words in mistakes if words.startswith(("gamma^t", "the factors are 1"))]:
            del mistakes[words]
    return mean(), mistakes


# 10.9 The loop -------------------------------------------------------------------------------------------------------


def actor_critic(policy, critic, sample, updates, lr, critic_lr, gamma, lam, watch, fits=1):
    """The package's answer: evaluate, one step of the actor, `fits` steps of the critic."""
    actor_adam, critic_adam = (
        torch.optim.Adam(model.parameters(), lr=rate) for model, rate in ((policy, lr), (critic, critic_lr))
    )
    for update in range(1, updates + 1):
        batch, final = sample(policy)
        with torch.no_grad():
            values, after = critic(batch.observations), critic(final[:, None])[:, 0]
        bootstrap = torch.where(batch.terminated, 0, after)
        weights = advantage(batch.rewards, values, batch.mask, bootstrap, gamma=gamma, lam=lam)
        logits = policy(batch.observations).log_softmax(-1)
        taken = logits.gather(-1, batch.actions[..., None])[..., 0]
        stepped(actor_adam, policy_gradient_loss(taken, weights.to(taken.dtype), batch.mask))
        for _ in range(fits):
            errors = (critic(batch.observations) - values - weights)[batch.mask]
            stepped(critic_adam, 0.5 * (errors**2).mean())
        if watch(policy, critic):
            return update
    return updates


def stepped(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def loop_cases(rng):
    """Scripted batches, another at each update, with junk on padding; one, three and two steps of the critic."""
    script = {"logits": drawn(rng, 3, 3), "values": drawn(rng, 3, low=0.5), "updates": 4, "lr": 0.3, "critic_lr": 0.2,
              "gamma": 0.9, "lam": 0.6}  # fmt: skip
    batches = []
    for number in range(6):
        lengths = [[3, 1, 2], [1, 3, 3]][number % 2]
        states, actions = ([[rng.randrange(3) for _ in range(3)] for _ in lengths] for _ in range(2))
        states[0][0] = 0
        ends = [(row + number) % 2 == 0 for row in range(3)]
        batches.append({"observations": states, "actions": actions, "rewards": drawn(rng, 3, 3, low=-1),
                        "mask": masks(lengths, 3), "terminated": ends,
                        "final": [rng.randrange(3) for _ in lengths]})  # fmt: skip
    script |= {"batches": batches, "stop": None}
    return [script | {"fits": 1}, script | {"fits": 3}, script | {"stop": 2, "fits": 2}]


def drive_loop(answer, case):
    """Where policy and critic end, what they were when watched, and how many batches were asked for."""
    policy, critic = TabularPolicy(3, 3).double(), TabularCritic(3).double()
    with torch.no_grad():
        policy.logits.copy_(torch.tensor(case["logits"]))
        critic.values.copy_(torch.tensor(case["values"]))
    asked, seen = [], []

    def sample(now):
        asked.append(now is policy)
        batch = case["batches"][(len(asked) - 1) % len(case["batches"])]
        fields = {name: torch.tensor(batch[name]) for name in ("observations", "actions", "mask", "terminated")}
        rewards = torch.tensor(batch["rewards"], dtype=torch.float64)
        return Rollout(**fields, rewards=rewards, logprobs=0 * rewards), torch.tensor(batch["final"])

    def watch(now, values):
        seen.append([now.logits.detach()[0, 0].item(), values.values.detach()[0].item()])
        return len(seen) == case["stop"]

    sizes = [case[name] for name in ("updates", "lr", "critic_lr", "gamma", "lam")]
    options = {} if case["fits"] == 1 else {"fits": case["fits"]}
    made = answer(policy, critic, sample, *sizes, watch, **options)
    return {"logits": policy.logits.detach(), "values": critic.values.detach(), "batches": len(asked), "watched": seen,
            "returned": made}  # fmt: skip


def expect_loop(case):
    updates = min(case["updates"], case["stop"] or case["updates"])
    expected, on = simulated(case, updates), simulated(case, case["updates"])
    changes = {
        "the critic is fitted before it judges: evaluate the batch first, improve the critic afterwards":
            {"early_fit": True},
        "the critic never learns: fit it, to values + weights and not to its own values": {"fits": 0},
        "the critic is fitted to the advantages: V must predict returns, so add values back": {"labels": "weights"},
        "the critic is fitted to the rewards: the label is values + weights": {"labels": "rewards"},
        "the labels move during the steps of the critic: compute them once, before the first": {"moving": True},
        "the labels carry a gradient: compute values and labels under torch.no_grad()": {"leak": True},
        "the actor's weights are the critic's labels: without V(s) subtracted there is no baseline":
            {"actor": "labels"},
        "the actor's weights are the rewards: weigh by gae of the residuals": {"actor": "rewards"},
        "bootstraps through the end: after a terminated episode the next value is 0": {"at_termination": True},
        "episodes that were cut off are treated as over: bootstrap there with critic(final)":
            {"at_truncation": False},
        "lam is not used, or 1": {"lam": 1.0},
        "lam is not used, or 0": {"lam": 0.0},
        "gamma is not used": {"gamma": 1.0},
        "sampled once: after the first step these are another policy's episodes; sample at every update":
            {"fresh": False},
        "gradients add up: set them to zero before each backward pass": {"adding": True},
        "a new Adam at every update forgets its moments: make both once, before the loop": {"renew": True},
        "the steps are plain gradient descent: use torch.optim.Adam": {"sgd": True},
        "the actor gets worse: the sign of its loss is turned": {"sign": -1.0},
        "the actor's loss is divided by the number of steps: it is a mean over episodes": {"per_step": True},
        "padding is trained on: the actor's loss needs the mask": {"actor_padding": True},
        "the critic is fitted on padding: its loss is a mean over the steps of the mask": {"critic_padding": True},
        "the critic's step size is that of the actor: it has its own, critic_lr": {"critic_lr": case["lr"]},
        "`fits` steps of the critic, not one": {"fits": 1},
        "one step of the actor, `fits` of the critic": {"actor_steps": case["fits"]},
    }  # fmt: skip
    if case["fits"] > 1:  # where labels with a gradient raise
        changes = {key: change for key, change in changes.items() if "leak" not in change}
    if case["fits"] == 1:
        for words in ("the labels move", "`fits` steps", "one step of the actor, `fits`"):
            changes = {key: change for key, change in changes.items() if not key.startswith(words)}
    mistakes = {words: simulated(case, updates, **change) for words, change in changes.items()}
    mistakes["sampled once: after the first step these are another policy's episodes; sample at every update"][
        "batches"
    ] = 1
    mistakes |= {
        ("returned", "nothing is returned: the number of updates that were made is asked for"): None,
        ("returned", "one update too few is counted: the first is number 1"): updates - 1,
        "watch is never called: call watch(policy, critic) after every update": on | {"watched": []},
    }
    if case["stop"]:
        mistakes["training goes on: stop when watch(policy, critic) is true"] = on
    return expected, mistakes


def simulated(case, updates, *, fresh=True, **change):
    """Where the loop with a change goes on the scripted batches, in plain Python: Adam on 9 logits and 3 values."""
    theta, values, seen = [x for row in case["logits"] for x in row], list(case["values"]), []
    fits, rates = change.get("fits", case["fits"]), (case["lr"], change.get("critic_lr", case["critic_lr"]))
    actor, critic = (Adam(rate, change) for rate in rates)
    for number in range(updates):
        batch = case["batches"][number if fresh else 0]
        if change.get("renew"):
            actor, critic = (Adam(rate, change) for rate in rates)

        def fitted(values, batch=batch, critic=critic):
            judged = judgement(case, batch, values, change)
            for _ in range(fits):
                judged = judgement(case, batch, values, change) if change.get("moving") else judged
                values = critic.step(values, critic_slope(case, batch, values, judged["labels"], change))
            return values

        before, values = values, fitted(values)
        judged = judgement(case, batch, values if change.get("early_fit") else before, change)
        for _ in range(change.get("actor_steps", 1)):
            theta = actor.step(theta, actor_slope(batch, theta, judged, change))
        seen.append([theta[0], values[0]])
    return {"logits": [theta[i : i + 3] for i in (0, 3, 6)], "values": values, "batches": updates, "watched": seen,
            "returned": updates}  # fmt: skip


class Adam:
    """Adam in plain Python, or with a change: plain gradient descent, gradients that add up."""

    def __init__(self, rate, change):
        self.rate, self.change, self.clock, self.moments, self.summed = rate, change, 0, None, None

    def step(self, numbers, slopes):
        if self.change.get("adding"):
            self.summed = slopes = [x + y for x, y in zip(slopes, self.summed or [0.0] * len(slopes))]
        if self.change.get("sgd"):
            return [x - self.rate * y for x, y in zip(numbers, slopes)]
        self.clock += 1
        first, second = self.moments or ([0.0] * len(slopes), [0.0] * len(slopes))
        first = [0.9 * m + 0.1 * g for m, g in zip(first, slopes)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, slopes)]
        self.moments, a, b = (first, second), 1 - 0.9**self.clock, 1 - 0.999**self.clock
        return [x - self.rate * m / a / (math.sqrt(v / b) + 1e-8) for x, m, v in zip(numbers, first, second)]


def judgement(case, batch, values, change):
    """What the critic says of a batch: {weights, labels}, (B, T), or with a change."""
    lam, gamma = change.get("lam", case["lam"]), change.get("gamma", case["gamma"])
    table = [[values[s] for s in row] for row in batch["observations"]]
    filled = batch | {"values": table, "final_values": [values[s] for s in batch["final"]], "gamma": gamma}
    ends = {name: change[name] for name in ("at_termination", "at_truncation") if name in change}
    residuals = residuals_of(filled, after=next_value(filled, **ends))
    weights = [discounted_sums(row, acted, gamma * lam) for row, acted in zip(residuals, batch["mask"])]
    labels = [[x + v for x, v in zip(*pair)] for pair in zip(weights, table)]
    found = {"weights": weights, "labels": labels, "rewards": batch["rewards"]}
    return {"weights": found[change.get("actor", "weights")], "labels": found[change.get("labels", "labels")]}


def steps_of(batch, padded):
    """(row, step) of the steps acted, or of all."""
    return [(b, t) for b, row in enumerate(batch["mask"]) for t, acted in enumerate(row) if acted or padded]


def actor_slope(batch, theta, judged, change):
    """The gradient of the actor's loss by the 9 logits."""
    slope, divisor = [0.0] * 9, len(batch["mask"])
    if change.get("per_step"):
        divisor = sum(map(sum, batch["mask"]))
    for b, t in steps_of(batch, change.get("actor_padding")):
        s, a, weight = batch["observations"][b][t], batch["actions"][b][t], judged["weights"][b][t]
        if change.get("actor_padding") and not batch["mask"][b][t]:
            weight = judged["weights"][b][0]
        for k, p in enumerate(softmax(theta[3 * s : 3 * s + 3])):
            slope[3 * s + k] -= change.get("sign", 1.0) * weight * ((a == k) - p) / divisor
    return slope


def critic_slope(case, batch, values, labels, change):
    """The gradient of half the mean squared error by the 3 values; through the labels, too, where they leak."""
    slope, steps = [0.0] * 3, steps_of(batch, change.get("critic_padding"))
    for b, t in steps:
        s = batch["observations"][b][t]
        error = values[s] - labels[b][t]
        if not change.get("leak"):
            slope[s] += error / len(steps)
            continue
        # the error is minus the sum of residuals, each with a slope of -1 at V(s) and of gamma at V(s')
        last = sum(batch["mask"][b]) - 1
        for j in range(t, last + 1):
            kept = (case["gamma"] * case["lam"]) ** (j - t) * error / len(steps)
            slope[batch["observations"][b][j]] += kept
            if j < last or not batch["terminated"][b]:
                after = batch["observations"][b][j + 1] if j < last else batch["final"][b]
                slope[after] -= case["gamma"] * kept
    return slope


# 10.10 A sampler -----------------------------------------------------------------------------------------------------

Batch = namedtuple("Batch", "observations actions rewards mask terminated")


def play(environments, policy, horizon, generator):
    """The package's answer: note everything until all have ended, then cut it by their lengths."""
    seed = int(torch.randint(2**31, (), generator=generator))
    now = torch.as_tensor(environments.reset(seed=seed)[0])
    acting, columns = torch.ones(len(now), dtype=torch.bool), []
    terminated, final = torch.zeros_like(acting), now
    for _ in range(horizon):
        with torch.no_grad():
            chances = policy(now[:, None])[:, 0].softmax(-1)
        actions = torch.multinomial(chances, 1, generator=generator)[:, 0]
        after, rewards, over, cut, _ = environments.step(actions.numpy())
        after, rewards, over, cut = map(torch.as_tensor, (after, rewards, over, cut))
        columns.append((now, actions, rewards, acting))
        final, terminated = torch.where(acting[:, None], after, final), terminated | (acting & over)
        acting, now = acting & ~over & ~cut, after
        if not acting.any():
            break
    return Batch(*(torch.stack(column, 1) for column in zip(*columns)), terminated), final


class Scripted:
    """B environments side by side that say which episode and step they are in; rewards tell actions apart.

    One that has ended begins the next episode one step later, as Gymnasium's do, and that step pays nothing.
    """

    def __init__(self, case):
        self.case, self.asked, self.seeds = case, 0, []

    def observed(self):
        rows = [[10.0 * b + episode, float(t)] for b, (episode, t, _) in enumerate(self.places)]
        return np.array(rows, dtype=np.float32)

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.places = [(0, 0, False) for _ in self.case["lengths"]]  # episode, step, whether it has just ended
        return self.observed(), {}

    def step(self, actions):
        self.asked += 1
        rewards, over, cut, places = [], [], [], []
        for b, (episode, t, ended) in enumerate(self.places):
            length = self.case["lengths"][b] + episode  # the next episode is longer
            if ended:
                found, places = (0.0, False, False), [*places, (episode + 1, 0, False)]
            else:
                done = t + 1 == length
                limit = done and self.case["limits"][b] == (episode == 0)
                found = self.case["pays"][b] + t + 0.5 * int(actions[b]), done and not limit, limit
                places = [*places, (episode, t + 1, done)]
            rewards.append(found[0]), over.append(found[1]), cut.append(found[2])
        self.places = places
        return self.observed(), np.array(rewards, dtype=np.float32), np.array(over), np.array(cut), {}


def chosen(b, t):
    """The action that the policy of the script is certain of."""
    return (b + t) % 2


def decided(observations):
    """A policy (B, T, 2) -> logits (B, T, 2) that is certain, in episode 0 and later."""
    wanted = ((observations[..., 0] / 10).floor() + observations[..., 1]) % 2
    return 40 * torch.stack([1 - wanted, wanted], -1)


NOTHING_PLAYED = dict.fromkeys(("steps", "terminated", "final", "asked", "seeded", "mixed"))  # of the other kind


def play_cases(rng):
    """Episodes that end by the world or a limit, at different times, within the horizon or not; and a coin."""
    cases = []
    for lengths, horizon in (([2, 4, 1], 9), ([5, 2, 3, 1], 3), ([1, 3], 3)):
        limits = [(b + len(lengths)) % 2 == 0 for b in range(len(lengths))]
        pays = drawn(rng, len(lengths), low=1.0)
        cases.append({"lengths": lengths, "limits": limits, "pays": pays, "horizon": horizon})
    return [*cases, {"lengths": [2] * 200, "limits": [False] * 200, "pays": [1.0] * 200, "horizon": 2, "coin": True}]


def drive_play(answer, case):
    """The steps [observation, step, action, reward] under the mask, how each ended and where, the calls made."""
    environments, source = Scripted(case), torch.Generator().manual_seed(2)
    if case.get("coin"):
        batch, _ = answer(environments, lambda x: torch.zeros(*x.shape[:-1], 2), 2, source)
        shares = batch.actions.double().mean(0)
        alike = (batch.actions[:, 0] == batch.actions[:, 1]).double().mean()
        return NOTHING_PLAYED | {"mixed": bool((shares - 0.5).abs().max() < 0.15) and abs(float(alike) - 0.5) < 0.15}
    batch, final = answer(environments, decided, case["horizon"], source)
    fields = [batch.observations.double(), *(x[..., None].double() for x in (batch.actions, batch.rewards))]
    rows = [torch.cat(row, -1)[acted].tolist() for *row, acted in zip(*fields, batch.mask)]
    terminated = [bool(x) for x in batch.terminated]
    seeded = len(environments.seeds) == 1 and isinstance(environments.seeds[0], int)
    return NOTHING_PLAYED | {"steps": rows, "terminated": terminated, "final": final, "asked": environments.asked,
                             "seeded": seeded}  # fmt: skip


def expect_play(case):
    if case.get("coin"):
        wrong = ("mixed", "the actions are not drawn from the policy: sample them, in each environment anew")
        return NOTHING_PLAYED | {"mixed": True}, {wrong: False}
    lengths, limits, pays, horizon = (case[name] for name in ("lengths", "limits", "pays", "horizon"))
    rows, longest = range(len(lengths)), max(lengths)
    made = [min(n, horizon) for n in lengths]
    asked = min(longest, horizon)

    def walk(b, steps):
        """What environment b says after so many steps, (episode, step); and [observation, step, action, reward]."""
        episode, t, found, ended = 0, 0, [], False
        for _ in range(steps):
            action = (b + episode // 10 + t) % 2
            paid = 0.0 if ended else pays[b] + t + 0.5 * action
            found.append([10.0 * b + episode, float(t), float(action), paid])
            if ended:
                episode, t, ended = episode + 1, 0, False
            else:
                t += 1
                ended = t == lengths[b] + episode
        return found, [10.0 * b + episode, float(t)]

    def steps(count):
        return [walk(b, count(b))[0] for b in rows]

    def after_moves(b):
        found = walk(b, made[b] + 1)[0]
        return [[*later[:2], *now[2:]] for now, later in zip(found, found[1:])]

    ended = [made[b] == lengths[b] for b in rows]
    right = {"steps": steps(lambda b: made[b]), "terminated": [ended[b] and not limits[b] for b in rows],
             "final": [walk(b, made[b])[1] for b in rows], "asked": asked, "seeded": True}  # fmt: skip
    expected = NOTHING_PLAYED | right
    short = [[10.0 * b, float(made[b] - 1)] for b in rows]
    mistakes = {
        ("steps", "an episode goes on after its end: what follows is another one's, so it is padding"):
            steps(lambda b: asked),
        ("steps", "the step that ends an episode is lost: note who is acting before the step"):
            Alternatives(steps(lambda b: made[b] - ended[b]), steps(lambda b: made[b] - 1)),
        ("steps", "one step too many is noted: who has ended acts no more"):
            steps(lambda b: min(made[b] + 1, asked)),
        ("steps", "the observation after the step stands where the one before it belongs"):
            [after_moves(b) for b in rows],
        ("terminated", "an episode that a time limit ended has not terminated"): ended,
        ("terminated", "the flags are turned: True where the world ended the episode"): Alternatives(
            [ended[b] and limits[b] for b in rows], [not x for x in right["terminated"]]),
        ("terminated", "the flags of the last step are kept: remember that an episode has terminated"):
            [lengths[b] == asked and not limits[b] for b in rows],
        ("terminated", "nothing is ever terminated"): [False] * len(lengths),
        ("terminated", "flags of the episodes that follow are counted, too"): [True] * len(lengths),
        ("final", "final is what was observed at the very end, in another episode: keep it when an episode ends"):
            [walk(b, asked)[1] for b in rows],
        ("final", "final is the last observation that was acted on: it is the one after the last step"): short,
        ("final", "final is the first observation of the next episode"): [[10.0 * b + 1, 0.0] for b in rows],
        ("final", "final is where the episodes began"): [[10.0 * b, 0.0] for b in rows],
        ("asked", "the environments go on although all episodes have ended: stop then"): horizon,
        ("asked", "more steps than `horizon` are made"): Alternatives(longest, horizon + 1),
        ("seeded", "reset is called once, with a seed drawn from the generator: reset(seed=...)"): False,
    }  # fmt: skip
    return expected, mistakes


# 10.11 Silent bugs ---------------------------------------------------------------------------------------------------


def one_update(*, ends=lambda batch: batch.terminated, mask=lambda batch: batch.mask, weigh=lambda w, v: w,
               label=lambda w, v: v + w, first=False):  # fmt: skip
    """A run: one plain gradient step of each, with something that is done wrong."""

    def run(policy, critic, batch, final, lr, critic_lr, gamma, lam):
        def judged():
            with torch.no_grad():
                values, after = critic(batch.observations), critic(final[:, None])[:, 0]
                bootstrap, rewards = torch.where(ends(batch), 0, after), batch.rewards.to(values)
                weights = advantage(rewards, values, mask(batch), bootstrap, gamma=gamma, lam=lam)
                return weigh(weights, values), label(weights, values)

        def fit(labels):
            errors = (critic(batch.observations) - labels)[mask(batch)]
            descended(critic.values, 0.5 * (errors**2).mean(), critic_lr)

        if first:
            fit(judged()[1])
        weights, labels = judged()
        logits = policy(batch.observations).log_softmax(-1)
        taken = logits.gather(-1, batch.actions[..., None])[..., 0]
        descended(policy.logits, policy_gradient_loss(taken, weights.to(taken.dtype), mask(batch)), lr)
        if not first:
            fit(labels)

    return run


def descended(parameter, loss, rate):
    """One plain gradient step."""
    (slope,) = torch.autograd.grad(loss, parameter)
    with torch.no_grad():
        parameter -= rate * slope


RUNS = {
    "right": one_update(),
    "through the end": one_update(ends=lambda batch: torch.zeros_like(batch.terminated)),
    "cut is over": one_update(ends=lambda batch: torch.ones_like(batch.terminated)),
    "padding": one_update(mask=lambda batch: torch.ones_like(batch.mask)),
    "frozen critic": one_update(label=lambda w, v: v),
    "fitted first": one_update(first=True),
    "no baseline": one_update(weigh=lambda w, v: w + v),
}
HINTS = {
    "through the end": "let the critic say something in the goal and in the pit, where it must not count",
    "cut is over": "let some episodes be cut off, and let the critic say something where they were left",
    "padding": "let episodes end at different times, and ask what happens to what stands behind their end",
    "frozen critic": "ask how far the critic moves, too",
    "fitted first": "ask whether the actor learns from what the critic said before its step",
    "no baseline": "let the critic say something that is not 0, and ask for the actor's move",
}


def refuses_the_wrong(run):
    """The package's test: both tables after one update, from the definition, by autograd."""
    world, source = GridWorld("small", slip=0.2).to_mdp(), torch.Generator().manual_seed(2)
    policy, critic = TabularPolicy(world.states, 4).double(), TabularCritic(world.states).double()
    with torch.no_grad():
        for table in (policy.logits, critic.values):
            table.copy_(torch.randn(table.shape, generator=source))
    batch, final = collect(world, policy, 50, horizon=5, generator=source)
    V = critic.values.detach().clone().requires_grad_()
    bootstrap = torch.where(batch.terminated, 0, V[final])
    weights = advantage(batch.rewards, V[batch.observations], batch.mask, bootstrap, gamma=0.9, lam=0.6)
    errors = (V[batch.observations] - (V[batch.observations] + weights).detach())[batch.mask]
    loss = policy_gradient_loss(action_logprobs(policy, batch), weights, batch.mask)
    wanted = (policy.logits - 0.7 * torch.autograd.grad(loss, policy.logits)[0]).detach()
    valued = (V - 0.4 * torch.autograd.grad(0.5 * (errors**2).mean(), V)[0]).detach()
    run(policy, critic, batch, final, 0.7, 0.4, 0.9, 0.6)
    return torch.allclose(policy.logits, wanted) and torch.allclose(critic.values, valued)


EXERCISES = {
    "10.1": Exercise(advantage_cases, None, expect_advantages, points=1, reference=advantages,
        signature="advantages(P: float[S A S], R: float[S A S], values: float[S], gamma: number) -> float[S A]"),
    "10.2": Exercise(restart_cases, drive_restart, expect_restart, points=3, reference=restart,
        signature="restart(world: any, pi: float[S A], states: int[N], actions: int[N], horizon: int, generator: any)"
        " -> (float[N], int[N])"),
    "10.3": Exercise(residual_cases, None, expect_residuals, points=2, reference=td_residuals,
        signature="td_residuals(rewards: float32[B T], values: float32[B T], mask: bool[B T], final_values:"
        " float32[B], terminated: bool[B], gamma: number) -> float[B T]"),
    "10.4": Exercise(gae_cases, None, expect_gae, points=2, reference=gae,
        signature="gae(residuals: float32[B T], mask: bool[B T], gamma: number, lam: number) -> float[B T]"),
    "10.5": Exercise(fitting_cases, None, expect_fitting, points=1, reference=fitted_values,
        signature="fitted_values(observations: int[B T], targets: float[B T], mask: bool[B T], states: int) ->"
        " float[states]"),
    "10.6": Exercise(evaluation_cases, drive_evaluation, expect_evaluation, points=3, reference=evaluate,
        signature="evaluate(batch: any, final: int[B], states: int, gamma: number, lam: number, sweeps: int)"
        " -> float[states]"),
    "10.7": Exercise(mean_cases, None, expect_mean, points=3, reference=mean_weights,
        signature="mean_weights(P: float[S A S], pi: float[S A], residuals: float[S A], factors: list) -> float[S A]"),
    "10.8": Exercise(cut_cases, drive_cut, expect_cut, points=3, reference=cut_gradient,
        signature="cut_gradient(world: any, pi: float[S A], values: float[S], horizon: int) -> float[S A]"),
    "10.9": Exercise(loop_cases, drive_loop, expect_loop, points=4, reference=actor_critic),
    "10.10": Exercise(play_cases, drive_play, expect_play, points=3, reference=play),
    "10.11": lab_of_runs(RUNS, HINTS, refuses_the_wrong, levels=(2, 4, 6)),
}  # fmt: skip
