"""Lesson 09: bias and variance of an estimator, all prefixes, the proof, reward-to-go, the average of the others, the
best constant, the temporal difference; and a contest for the quietest weight that keeps the mean.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` and in the contest alone.
"""

import functools
import json
import math
import statistics
from types import SimpleNamespace

import torch

from ptlearn import policy_gradient
from ptlearn.course.cases import masks, softmax, tensors
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.rl.policies import TabularPolicy


def normals(rng, rows, columns):
    return [[rng.gauss(0, 1) for _ in range(columns)] for _ in range(rows)]


# 9.1 Measuring an estimator ------------------------------------------------------------------------------------------


def measure(gradients, size, exact):
    """The package's answer: the mean gradient of each batch, and what these are like."""
    count = len(gradients) // size
    estimates = gradients[: count * size].unflatten(0, (count, size)).mean(1)
    mean, moving = estimates.mean(0), estimates.std(0) > 0
    z = (mean - exact)[moving] / (estimates.std(0)[moving] / count**0.5)
    share = (mean @ exact) / (exact @ exact)
    return {"estimates": estimates, "variance": estimates.var(0).sum(), "share": share, "z": z.abs().max()}


def measure_cases(rng):
    """Rows whose mean is far from 0 and whose parameters differ in spread; a rest; a parameter that never moves."""
    cases = []
    for rows, columns, size, still in ((7, 3, 2, False), (13, 2, 3, True), (4, 4, 1, False)):
        spread = [0.5 + 0.7 * column for column in range(columns)]
        noise = normals(rng, rows, columns)
        table = [[2.0 + column + spread[column] * row[column] for column in range(columns)] for row in noise]
        exact = [1.5 + column + 0.5 * rng.gauss(0, 1) for column in range(columns)]
        table, exact = ([[*row, 3.0] for row in table], [*exact, 3.0]) if still else (table, exact)
        cases.append({"gradients": table, "size": size, "exact": exact})
    return cases


def expect_measure(case):
    rows, size, exact = case["gradients"], case["size"], case["exact"]
    count = len(rows) // size

    def batches(start=0, step=1):
        """The mean of `size` rows each, `step` apart."""
        groups = [[rows[start + step * place + (size if step == 1 else 1) * batch] for place in range(size)]
                  for batch in range(count)]  # fmt: skip
        return [[statistics.mean(column) for column in zip(*group)] for group in groups]

    def share(mean):
        return sum(a * b for a, b in zip(mean, exact)) / sum(b * b for b in exact)

    estimates = batches()
    columns = list(zip(*estimates))
    mean, variances = [statistics.mean(column) for column in columns], [statistics.variance(c) for c in columns]
    total, signal = sum(variances), math.sqrt(sum(b * b for b in exact))

    def worst(error, off=lambda m, e: abs(m - e), pick=max):
        return pick(off(m, e) / error(v) for m, e, v in zip(mean, exact, variances) if v > 0)

    z = worst(lambda v: math.sqrt(v / count))
    singles = list(zip(*rows))
    flat = [x for row in estimates for x in row]
    expected = {"estimates": estimates, "variance": total, "share": share(mean), "z": z}
    mistakes = {
        ("estimates", "the rows of a batch follow each other: the first `size` rows, then the next"):
            batches(step=count),
        ("estimates", "the sums of the batches: an estimate averages its episodes"):
            [[size * x for x in row] for row in estimates],
        ("estimates", "the single rows: average `size` of them at a time"): rows,
        ("estimates", "the first rows are left out; the rest that fills no batch is at the end"):
            batches(start=len(rows) - count * size),
        ("variance", "these are the variances one by one: the trace is their sum"): variances,
        ("variance", "the mean over the parameters: the trace is the sum, a squared length"): total / len(mean),
        ("variance", "standard deviations: variances add up, standard deviations do not"):
            sum(map(math.sqrt, variances)),
        ("variance", "a root: the trace of the covariance is a sum of variances"): math.sqrt(total),
        ("variance", "not centred: subtract the mean estimate, or the signal counts as noise"): Alternatives(
            sum(x * x for x in flat) / count, sum(x * x for x in flat) / (count - 1)),
        ("variance", "around the exact gradient: that is the squared error, not the variance"): Alternatives(*(
            sum((x - e) ** 2 for row in estimates for x, e in zip(row, exact)) / by for by in (count, count - 1))),
        ("variance", "divided by the number of estimates: the mean came from the same ones, so divide by one less"):
            total * (count - 1) / count,
        ("variance", "not divided: the mean squared distance is wanted, not their sum"): total * (count - 1),
        ("variance", "of the single episodes: that of the batches' estimates is wanted"):
            sum(map(statistics.variance, singles)),
        ("variance", "of the mean over all batches: that of one estimate is wanted"): total / count,
        ("variance", "all entries of the covariance are summed: the trace is its diagonal"):
            statistics.variance(map(sum, estimates)),
        ("variance", "one mean for all numbers: every parameter has a mean of its own"): Alternatives(
            statistics.variance(flat), statistics.pvariance(flat)),
        ("share", "the cosine: divide by the squared length of the exact gradient alone"):
            share(mean) * signal / math.sqrt(sum(m * m for m in mean)),
        ("share", "divided by the length of the exact gradient, not by its square"): share(mean) * signal,
        ("share", "not divided by the squared length of the exact gradient"): share(mean) * signal**2,
        ("share", "the ratio of the lengths: only what lies along the exact gradient counts"):
            math.sqrt(sum(m * m for m in mean)) / signal,
        ("share", "turned round: the exact gradient along the mean"):
            share(mean) * signal**2 / sum(m * m for m in mean),
        ("share", "of each estimate: that of their mean is wanted"): [share(row) for row in estimates],
        ("z", "the deviation of one estimate: the mean of M has an error that is a root of M smaller"):
            worst(math.sqrt),
        ("z", "divided by the variance: its root is the standard error"): Alternatives(
            worst(lambda v: v / count), worst(lambda v: v)),
        ("z", "the error of the single episodes' number: divide by the number of batches"):
            worst(lambda v: math.sqrt(v / len(rows))),
        ("z", "the mean over the parameters: the largest is wanted"):
            worst(lambda v: math.sqrt(v / count), pick=lambda found: statistics.mean(list(found))),
        ("z", "the exact gradient is not subtracted: z is the distance from it"):
            worst(lambda v: math.sqrt(v / count), off=lambda m, e: abs(m)),
        ("z", "the largest distance without a standard error"): worst(lambda v: 1.0),
    }  # fmt: skip
    signed = worst(lambda v: math.sqrt(v / count), off=lambda m, e: m - e)
    if abs(signed - z) > 0.01:
        mistakes["z", "the largest z, not the largest |z|: a parameter may lie below the truth too"] = signed
    if size == 1 or len(rows) % size == 0:
        mistakes = {key: x for key, x in mistakes.items() if key[0] != "estimates" or size > 1}
    return expected, mistakes


def remark_measure(case, data):
    if isinstance(data, dict) and "nan" in str(data.get("z")).lower():
        return "z: not a number. A parameter that never moves has no standard error: leave it out"
    if isinstance(data, dict) and data.get("z") == math.inf:
        return "z: infinite. A parameter that never moves has no standard error: leave it out"
    return None


# 9.2 All prefixes ----------------------------------------------------------------------------------------------------


def prefixes(world, pi, horizon):
    """The package's answer: each prefix of a step becomes one for every action and every state it can lead to."""
    start, P, R, terminal = world.start.tolist(), world.P.tolist(), world.R.tolist(), world.terminal.tolist()
    choose, found = pi.tolist(), []
    now = [(chance, state, 0.0) for state, chance in enumerate(start)]
    for t in range(horizon):
        now = [prefix for prefix in now if prefix[0] > 0 and not terminal[prefix[1]]]
        found += [(t, *prefix) for prefix in now]
        now = [
            (chance * choose[s][a] * p, after, past + R[s][a][after])
            for chance, s, past in now
            for a in range(len(choose[s]))
            for after, p in enumerate(P[s][a])
        ]
    return found


def prefix_cases(rng):
    """Two cells and an end, an action that stays or not by chance; all pay differently."""
    cases = []
    for horizon, first in ((3, 1.0), (2, 0.6)):
        on = [round(rng.uniform(0.3, 0.7), 3) for _ in range(4)]
        P = [[[1 - on[0], on[0], 0.0], [0.0, 1 - on[1], on[1]]], [[on[2], 1 - on[2], 0.0], [0.0, 1 - on[3], on[3]]],
             [[0.0, 0.0, 1.0]] * 2]  # fmt: skip
        R = [[[round(rng.uniform(-1, 1), 3) for _ in range(3)] for _ in range(2)] for _ in range(2)] + [[[0.0] * 3] * 2]
        pi = [softmax([rng.uniform(-1, 1), rng.uniform(-1, 1)]) for _ in range(3)]
        cases.append({"P": P, "R": R, "start": [first, 1 - first, 0.0], "pi": pi, "horizon": horizon})
    return cases


def together(entries):
    """The chances of entries (t, chance, state, past) with the same t, state and past, in order, without those of 0."""
    found = {}
    for t, chance, state, past in entries:
        key = int(t), int(state), round(float(past), 6)
        found[key] = found.get(key, 0.0) + float(chance)
    return [[*key, chance] for key, chance in sorted(found.items()) if abs(chance) > 1e-12]


def drive_prefixes(answer, case):
    world = mdp.MDP(*(torch.tensor(case[name], dtype=torch.float64) for name in ("P", "R", "start")))
    return together(answer(world, torch.tensor(case["pi"], dtype=torch.float64), case["horizon"]))


def expect_prefixes(case):
    P, R, pi, horizon = case["P"], case["R"], case["pi"], case["horizon"]
    last = len(P) - 1

    def all_of(
        steps=horizon, step=lambda p, s, a, after: p * pi[s][a] * P[s][a][after],
        past=lambda before, s, a, after: before + R[s][a][after], ended=False, start=case["start"], shift=0,
    ):  # fmt: skip
        """Every prefix, by whatever a step does to its chance and to its past."""
        found, now = [], [(p, s, 0.0) for s, p in enumerate(start) if p > 0]
        for t in range(steps):
            now = [(p, s, x) for p, s, x in now if ended or s != last]
            found += [(t + shift, p, s, x) for p, s, x in now]
            now = [
                (step(p, s, a, after), after, past(x, s, a, after))
                for p, s, x in now for a in range(2) for after in range(last + 1) if P[s][a][after] > 0
            ]  # fmt: skip
        return found

    right = all_of()
    mistakes = {
        "prefixes that have come to a terminal state are listed: nobody acts there": all_of(ended=True),
        "one step too many: t runs from 0 to horizon - 1": all_of(horizon + 1),
        "one step too few: t runs from 0 to horizon - 1": all_of(horizon - 1),
        "t is counted from 1": all_of(shift=1),
        "the chances lack pi: the action is drawn too": all_of(step=lambda p, s, a, after: p * P[s][a][after]),
        "the chances lack world.P: where the action leads is drawn too": all_of(
            step=lambda p, s, a, after: p * pi[s][a]
        ),
        "the chance of the last move alone: multiply by that of the prefix it goes on from": all_of(
            step=lambda p, s, a, after: pi[s][a] * P[s][a][after]
        ),
        "past is the last reward alone: add up all on the way": all_of(past=lambda x, s, a, after: R[s][a][after]),
        "past stays 0: add the reward of each move": all_of(past=lambda x, s, a, after: x),
        "only the prefixes of the last step: those of every step are wanted": [x for x in right if x[0] == horizon - 1],
        "the prefixes of step 0, the first states, are missing": [x for x in right if x[0] > 0],
    }
    if case["start"][1]:
        mistakes["the chances lack world.start: every first state counts as certain"] = all_of(start=[1.0, 1.0, 0.0])
    return together(right), {words: together(wrong) for words, wrong in mistakes.items()}


# 9.3 The proof, line by line -----------------------------------------------------------------------------------------


def proof(pi, chances, states, b):
    """The package's answer: the sums over actions and over prefixes as matrix products."""
    here = pi[states]
    scores = torch.eye(pi.shape[1], dtype=pi.dtype) - here[:, None, :]
    grad_pi = here[:, :, None] * scores
    inner = here * b - here * (here * b).sum(1, keepdim=True)
    mean = torch.zeros_like(pi).index_add_(0, states, chances[:, None] * inner)
    return {"scores": scores, "grad_pi": grad_pi, "inner": inner, "mean": mean}


def proof_cases(rng):
    """Prefixes of which several end in the same state; numbers that differ by action, and one row that does not."""
    cases = []
    for count, actions, ends in ((3, 3, [2, 0, 2, 2]), (4, 4, [1, 3, 1])):
        pi = [softmax([rng.uniform(-1, 1) for _ in range(actions)]) for _ in range(count)]
        b = [[round(rng.uniform(-1, 2), 3) for _ in range(actions)] for _ in ends]
        chances = [round(rng.uniform(0.05, 0.4), 3) for _ in ends]
        cases.append({"pi": pi, "chances": chances, "states": ends, "b": [*b[:-1], [-1.6] * actions]})
    return cases


def expect_proof(case):
    pi, chances, states, b = case["pi"], case["chances"], case["states"], case["b"]
    actions, K = range(len(pi[0])), range(len(states))

    def rows(term):
        """term(k, a, c) at [k, a, c]."""
        return [[[term(k, a, c) for c in actions] for a in actions] for k in K]

    def inner_of(term):
        """The sum over a of term(k, a, c) at [k, c]."""
        return [[sum(term(k, a, c) for a in actions) for c in actions] for k in K]

    def here(k, a):
        return pi[states[k]][a]

    def score(k, a, c):
        return (a == c) - here(k, c)

    def change(k, a, c):
        return here(k, a) * score(k, a, c)

    def mean_of(inner, weight=lambda k: chances[k], which=K):
        return [[sum(weight(k) * inner[k][c] for k in which if states[k] == s) for c in actions]
                for s in range(len(pi))]  # fmt: skip

    inner = inner_of(lambda k, a, c: b[k][a] * change(k, a, c))
    last_ones = [k for k in K if k == max(other for other in K if states[other] == states[k])]
    expected = {"scores": rows(score), "grad_pi": rows(change), "inner": inner, "mean": mean_of(inner)}
    mistakes = {
        ("scores", "pi is not subtracted: one action can only gain what the others lose"): rows(
            lambda k, a, c: float(a == c)),
        ("scores", "pi(a) is subtracted along the row: the row of action a is one-hot(a) minus pi of all actions"):
            rows(lambda k, a, c: (a == c) - here(k, a)),
        ("scores", "this is the gradient by the probabilities, 1/pi: the parameters are logits"): rows(
            lambda k, a, c: (a == c) / here(k, a)),
        ("scores", "pi is subtracted on the diagonal alone: the other logits move too"): rows(
            lambda k, a, c: (a == c) * (1 - here(k, a))),
        ("scores", "this is the gradient of pi: that of log pi has no factor pi(a | s)"): rows(change),
        ("grad_pi", "this is the gradient of log pi: multiply the row of a by pi(a | s)"): rows(score),
        ("grad_pi", "the columns are multiplied: row a has the factor pi(a | s)"): rows(
            lambda k, a, c: here(k, c) * score(k, a, c)),
        ("grad_pi", "divided by pi(a | s) instead of multiplied"): rows(
            lambda k, a, c: score(k, a, c) / here(k, a)),
        ("inner", "0 for every prefix: b is missing, averaged first or multiplied along the logits, or the sum runs "
         "over the logits; b goes with the action that is drawn"): inner_of(change),
        ("inner", "pi(a | s) is missing: an expectation weighs every action by its probability"): inner_of(
            lambda k, a, c: b[k][a] * score(k, a, c)),
        ("inner", "pi(a | s) counts twice: it is in the gradient of pi"): inner_of(
            lambda k, a, c: here(k, a) * b[k][a] * change(k, a, c)),
        ("inner", "the terms are not added up: sum over the actions"): rows(
            lambda k, a, c: b[k][a] * change(k, a, c)),
        ("inner", "the chances of the prefixes come in here: they belong into the outer sum"): [
            [chances[k] * x for x in inner[k]] for k in K],
        ("inner", "only the own logit of each action: the second part of the score, minus pi, is missing"): inner_of(
            lambda k, a, c: b[k][a] * here(k, a) * (a == c)),
        ("mean", "the chances are missing: a prefix counts as often as it happens"): mean_of(inner, lambda k: 1.0),
        ("mean", "the plain mean over the prefixes: weigh them by their chances"): mean_of(
            inner, lambda k: 1 / len(K)),
        ("mean", "divided by the sum of the chances: they are probabilities already"): mean_of(
            inner, lambda k: chances[k] / sum(chances)),
        ("mean", "prefixes that end in the same state overwrite each other: add them up"): mean_of(
            inner, which=last_ones),
        ("mean", "one row: each prefix moves the logits of the state it ends in"): [
            sum(chances[k] * inner[k][c] for k in K) for c in actions],
    }  # fmt: skip
    return expected, mistakes


# 9.4 Reward-to-go ----------------------------------------------------------------------------------------------------


def go_cases(rng):
    """Numbers behind the ends of episodes must not count; gamma is small, large, 1, and left to its default."""
    cases = []
    for gamma, lengths in ((0.5, (2, 1)), (0.9, (3, 5, 1)), (1.0, (2, 4)), (0.1, (3, 2)), (None, (3, 1)), (0.8, (1,))):
        rewards = [[round(rng.uniform(-1, 1) + 0.5, 3) for _ in range(max(lengths))] for _ in lengths]
        cases.append({"rewards": rewards, "mask": masks(lengths, max(lengths)), "gamma": gamma})
    return cases


def drive_go(answer, case):
    given = tensors(case, "rewards", "mask")
    return answer(*given) if case["gamma"] is None else answer(*given, gamma=case["gamma"])


def expect_go(case):
    gamma, tables = 1.0 if case["gamma"] is None else case["gamma"], list(zip(case["rewards"], case["mask"]))

    def by(weight, *, padding=False, outside=False):
        """Every step the sum over steps j of weight(t, j) r_j; `padding` lets r_j behind the end count, `outside` gives
        steps behind the end a number too."""
        result = []
        for rewards, mask in tables:
            steps = range(len(rewards))
            row = [sum(weight(t, j) * rewards[j] for j in steps if padding or mask[j]) for t in steps]
            result.append([x if outside or mask[t] else 0.0 for t, x in enumerate(row)])
        return result

    def after(t, j, first=0):
        return gamma ** (j - t) if j >= t + first else 0.0

    expected = by(after)
    one_stream, running = [], 0.0
    for rewards, mask in tables[::-1]:
        row = [0.0] * len(rewards)
        for t in reversed(range(sum(mask))):
            row[t] = running = rewards[t] + gamma * running
        one_stream.insert(0, row)
    mistakes = {
        "padding leaks in: rewards behind an episode's end are not earned, whatever the numbers there": by(
            after, padding=True
        ),
        "every step gets the total return: sum from t on": by(lambda t, j: gamma**j),
        "every step gets the total return, undiscounted: sum from t on, and discount": by(lambda t, j: 1.0),
        "rewards up to step t: this is the past, sum from t to the end": Alternatives(
            by(lambda t, j: after(j, t)), by(lambda t, j: gamma**j if j <= t else 0.0)
        ),
        "rewards up to step t, not discounted: this is the past, sum from t to the end": by(lambda t, j: float(j <= t)),
        "the reward of step t itself is missing: an action does change what it earns at once": Alternatives(
            by(lambda t, j: after(t + 1, j)), by(lambda t, j: after(t, j, first=1)), by(lambda t, j: float(j > t))
        ),
        "gamma^t stands in front: that is the unbiased weight for the discounted J, but here G_t alone is wanted": by(
            lambda t, j: gamma**j if j >= t else 0.0
        ),
        "gamma is ignored": by(lambda t, j: float(j >= t)),
        "gamma is applied to r_t too: the first reward of the sum counts in full": by(lambda t, j: gamma * after(t, j)),
        "later rewards are discounted once: gamma to the power of the steps between": Alternatives(
            by(lambda t, j: (1.0 if j == t else gamma) * (j >= t)), by(lambda t, j: gamma * (j >= t))
        ),
        "these are the rewards: each step needs the sum of those that follow too": by(lambda t, j: float(j == t)),
        "these are the discounted rewards one by one: each step needs the sum": by(lambda t, j: gamma**t * (j == t)),
        "only the next reward is added: sum to the end of the episode": by(lambda t, j: after(t, j) * (j <= t + 1)),
        "a mean of the rewards from t on: their sum is wanted": [
            [x / (sum(mask) - t) if mask[t] else 0.0 for t, x in enumerate(row)]
            for row, (_, mask) in zip(expected, tables)
        ],
        "one stream: the sum of an episode runs on into the one before it in the batch": one_stream,
        "the sums run over the episodes, axis 0: an episode's steps lie along axis 1": Alternatives(
            *([[sum(g ** (k - i) * r[t] * m[t] for k, (r, m) in enumerate(tables) if k >= i) * mask[t]
                for t in range(len(mask))] for i, (_, mask) in enumerate(tables)] for g in (gamma, 1.0))
        ),
        "this is the return of the whole episode alone: one number per step": [row[0] for row in expected],
    }
    return expected, mistakes


# 9.5 The factor gamma^t ----------------------------------------------------------------------------------------------


def mean_estimate(world, pi, horizon, factor):
    """The package's answer: at each time the chances of the states, times pi, times the advantage."""
    values, chance = mdp.horizon_values(world, pi, horizon), world.start
    total, under = torch.zeros_like(pi), torch.einsum("sa,sat->st", pi, world.P)
    for t in range(horizon):
        inner = pi * (mdp.action_values(world, values[t + 1]) - values[t][:, None])
        total = total + factor**t * chance[:, None] * inner
        chance = chance @ under
    return total


def estimate_cases(rng):
    """Worlds of the prefixes' cases, discounted; with the factor that belongs to it, without, and another one."""
    cases = []
    for (gamma, factor), case in zip(((0.7, 0.7), (0.8, 1.0)), prefix_cases(rng)):
        cases.append(case | {"gamma": gamma, "factor": factor})
    return [*cases, cases[0] | {"gamma": 0.9, "factor": 0.6}]


def drive_estimate(answer, case):
    world = mdp.MDP(*(torch.tensor(case[name], dtype=torch.float64) for name in ("P", "R", "start")), case["gamma"])
    return answer(world, torch.tensor(case["pi"], dtype=torch.float64), case["horizon"], case["factor"])


def expect_estimate(case):
    P, R, pi, gamma, factor, horizon = (case[name] for name in ("P", "R", "pi", "gamma", "factor", "horizon"))
    S, A = range(len(P)), range(2)

    def expected(s, a, value):
        return sum(P[s][a][after] * value(after) for after in S)

    def q(after, discount=gamma):
        return [[expected(s, a, lambda x, s=s, a=a: R[s][a][x] + discount * after[x]) for a in A] for s in S]

    def v(table):
        return [sum(pi[s][a] * table[s][a] for a in A) for s in S]

    def values(discount=gamma):
        found = [[0.0 for _ in S]]
        for _ in range(horizon):
            found.insert(0, v(q(found[0], discount)))
        return found

    V = values()

    def summed(
        weight=lambda t: factor**t, times=range(horizon), table=lambda t: q(V[t + 1]), move=True,
        push=lambda s, c, Q: pi[s][c] * (Q[s][c] - v(Q)[s]), visited=1.0,
    ):  # fmt: skip
        """The sum over t of weight(t) times the chance of s at t times what its actions push on logit c."""
        total, chance = [[0.0 for _ in A] for _ in S], list(case["start"])
        for t in range(horizon):
            Q = table(t)
            if t in times:
                total = [[total[s][c] + weight(t) * chance[s] ** visited * push(s, c, Q) for c in A] for s in S]
            if move:
                chance = [sum(chance[s] * pi[s][a] * P[s][a][x] for s in S for a in A) for x in S]
        return total

    mistakes = {
        "V_t is not subtracted, and neither is pi in the score: the push on a logit is pi (Q - V)": summed(
            push=lambda s, c, Q: pi[s][c] * Q[s][c]),
        "pi is missing: an action counts as often as it is drawn": summed(push=lambda s, c, Q: Q[s][c] - v(Q)[s]),
        "the states keep the chances of the first step: move them on, with pi and world.P": summed(move=False),
        "the chances of the states are missing": summed(visited=0.0),
        "one time too late: what follows step t is V at t + 1": summed(table=lambda t: q(V[min(t + 2, horizon)])),
        "one time too early: what follows step t is V at t + 1": summed(table=lambda t: q(V[t])),
        "the value of the first step at all times: with a limit V depends on the time": summed(
            table=lambda t: q(V[0])),
        "the first step alone: sum over the times": summed(times=range(1)),
    }  # fmt: skip
    if factor not in (1.0, gamma):
        mistakes |= {
            "the factor is ignored, gamma^t is taken": summed(lambda t: gamma**t),
            "the factor is ignored: the weight is factor^t G_t": summed(lambda t: 1.0),
            "factor^(t + 1): t is counted from 0": summed(lambda t: factor ** (t + 1)),
            "the factor once: it is factor^t": summed(lambda t: factor),
            "factor in the place of gamma: G_t keeps the world's own discount": summed(
                table=lambda t: q(values(factor)[t + 1], factor)),
        }  # fmt: skip
    return summed(), mistakes


# 9.6 The others ------------------------------------------------------------------------------------------------------


def others(values, mask):
    """The package's answer: leave-one-out, batch by batch."""
    batches = torch.arange(len(values)).repeat_interleave(values.shape[1])
    return policy_gradient.leave_one_out(values.flatten(0, 1), mask.flatten(0, 1), batches).view_as(values)


def others_cases(rng):
    """Two batches; episodes that end at different times, the longest of a batch alone at its end; one step; junk."""
    cases = []
    for lengths in ([[3, 1, 4], [2, 4, 4]], [[1, 1, 1, 1]]):
        steps = max(max(row) for row in lengths)
        values = [[[round(rng.uniform(-1, 1) + 0.7, 3) for _ in range(steps)] for _ in row] for row in lengths]
        cases.append({"values": values, "mask": [masks(row, steps) for row in lengths]})
    return cases


def expect_others(case):
    values, mask = case["values"], case["mask"]
    M, N, T = range(len(values)), range(len(values[0])), range(len(values[0][0]))

    def each(value, cut=True):
        """value(m, i, t) at each step acted; elsewhere 0."""
        return [[[float(value(m, i, t)) if mask[m][i][t] or not cut else 0.0 for t in T] for i in N] for m in M]

    def average(found, otherwise=0.0):
        found = list(found)
        return sum(found) / len(found) if found else otherwise

    def acting(m, t, but=None):
        return [values[m][j][t] for j in N if mask[m][j][t] and j != but]

    def rest(m, i, t):
        return average(acting(m, t, i))

    mistakes = {
        "the average over all: its own value is among them, which is the bias 1/N": each(
            lambda m, i, t: average(acting(m, t))),
        "divided by N: there are fewer others": each(lambda m, i, t: sum(acting(m, t, i)) / len(N)),
        "divided by the number that act, oneself included: there is one other less": each(
            lambda m, i, t: sum(acting(m, t, i)) / len(acting(m, t))),
        "divided by N - 1: of the others only those count that act at this step": each(
            lambda m, i, t: sum(acting(m, t, i)) / (len(N) - 1)),
        "not divided: the average of the others, not their sum": each(lambda m, i, t: sum(acting(m, t, i))),
        "the own value must be taken out of the sum too": each(
            lambda m, i, t: sum(acting(m, t)) / max(1, len(acting(m, t)) - 1)),
        "padding is counted: an episode that is over has no value at this step": Alternatives(
            each(lambda m, i, t: average(values[m][j][t] for j in N if j != i)),
            each(lambda m, i, t: (sum(values[m][j][t] for j in N) - values[m][i][t]) / max(1, len(acting(m, t)) - 1))),
        "this is the weight, value minus baseline: return the baseline": each(
            lambda m, i, t: values[m][i][t] - rest(m, i, t)),
        "numbers on padding: 0 is wanted where mask is False": each(rest, cut=False),
        "the own value is subtracted after dividing: take it out of the sum": each(
            lambda m, i, t: average(acting(m, t)) - values[m][i][t]),
        "the average over the batches: compare the episodes of one batch": each(
            lambda m, i, t: average(values[n][i][t] for n in M if n != m and mask[n][i][t])),
        "the average over the other steps: compare other episodes at the same step": each(
            lambda m, i, t: average(values[m][i][u] for u in T if u != t and mask[m][i][u])),
        "all batches are thrown together: each has its own average": each(
            lambda m, i, t: average(
                values[n][j][t] for n in M for j in N if mask[n][j][t] and (n, j) != (m, i))),
    }  # fmt: skip
    return each(rest), mistakes


def remark_others(case, data):
    return "not a number: where nobody else acts there is nothing to divide by" if "nan" in str(data).lower() else None


# 9.7 The best constant -----------------------------------------------------------------------------------------------


def best_constants(scores, returns):
    """The package's answer: the constant of least variance, and that of all episodes but one."""
    norms = scores.square().sum(-1)
    fitted = [policy_gradient.optimal_baseline(*batch) for batch in zip(norms, returns)]
    without = 1 - torch.eye(returns.shape[1], dtype=returns.dtype)
    return {
        "batch": torch.stack(fitted)[:, None].expand_as(returns),
        "others": ((norms * returns) @ without) / (norms @ without),
    }


def constant_cases(rng):
    """Scores whose lengths go with the returns: long, poor episodes beside short, good ones."""
    cases = []
    for batches, episodes, parameters in ((1, 3, 2), (2, 4, 3), (3, 2, 1)):
        returns = [[round(rng.uniform(-1, 1), 3) for _ in range(episodes)] for _ in range(batches)]
        scores = [[[(1.5 - r) * rng.gauss(0, 1) + 0.1 for _ in range(parameters)] for r in row] for row in returns]
        cases.append({"scores": scores, "returns": returns})
    return cases


def expect_constants(case):
    scores, returns = case["scores"], case["returns"]
    M, N, P = range(len(returns)), range(len(returns[0])), range(len(scores[0][0]))
    norms = [[sum(x * x for x in row) for row in batch] for batch in scores]

    def fitted(weight, which=lambda m, i: [(m, j) for j in N], value=lambda r: r):
        """At each episode the average of value(return) with weight(m, j), over the episodes that count for it."""

        def one(m, i):
            return sum(weight(*x) * value(returns[x[0]][x[1]]) for x in which(m, i)) / sum(
                weight(*x) for x in which(m, i))  # fmt: skip

        return [[one(m, i) for i in N] for m in M]

    def norm(m, j):
        return norms[m][j]

    def rest(m, i):
        return [(m, j) for j in N if j != i]

    def table(value):
        return [[value(m, i) for i in N] for m in M]

    def products(m, i):
        return sum(norms[m][j] * returns[m][j] for j in N)

    batch, without = fitted(norm), fitted(norm, rest)
    mistakes = {}
    for entry, which in (("batch", lambda m, i: [(m, j) for j in N]), ("others", rest)):
        mistakes |= {
            (entry, "the mean return: each return counts with the squared length of its episode's score"):
                fitted(lambda m, j: 1.0, which),
            (entry, "weighted by the length: the variance has its square"): fitted(
                lambda m, j: math.sqrt(norms[m][j]), which),
            (entry, "weighted by the fourth power of the length: the variance has its square"): fitted(
                lambda m, j: norms[m][j] ** 2, which),
            (entry, "squared returns: the derivative of (r - b)^2 leaves r in the first power"): fitted(
                norm, which, lambda r: r * r),
            (entry, "divided by the number of episodes: a weighted average is divided by the sum of its weights"):
                table(lambda m, i, which=which: sum(norms[m][j] * returns[m][j] for _, j in which(m, i))
                      / len(which(m, i))),
            (entry, "not divided by the sum of the weights: a weighted average needs it"):
                table(lambda m, i, which=which: sum(norms[m][j] * returns[m][j] for _, j in which(m, i))),
        }  # fmt: skip
        if len(P) > 1:
            mistakes |= {
                (entry, "weighted by the square of a score's sum: square the entries first, then sum"): fitted(
                    lambda m, j: sum(scores[m][j]) ** 2, which),
                (entry, "weighted by the absolute entries: square them"): fitted(
                    lambda m, j: sum(map(abs, scores[m][j])), which),
            }  # fmt: skip
        if len(N) > 2:
            mistakes[entry, "weighted by 1 / the squared length: long scores make the variance, so they count more"] = (
                fitted(lambda m, j: 1 / norms[m][j], which)
            )
    mistakes["others", "fitted on the whole batch: the episode itself must be left out"] = batch
    mistakes["others", "left out of the numerator alone: take its weight out of the denominator too"] = table(
        lambda m, i: (products(m, i) - norms[m][i] * returns[m][i]) / sum(norms[m])
    )
    mistakes["others", "left out of the denominator alone: take its product out of the numerator too"] = table(
        lambda m, i: products(m, i) / (sum(norms[m]) - norms[m][i])
    )
    mistakes["others", "the own return is subtracted after dividing: take it out of both sums before"] = table(
        lambda m, i: batch[m][i] - returns[m][i]
    )
    mistakes["batch", "the episode itself is left out: here the whole batch counts"] = without
    if len(M) > 1:
        everybody = [(m, j) for m in M for j in N]
        mistakes["batch", "one constant for all batches: each has its own"] = fitted(norm, lambda m, i: everybody)
    return {"batch": batch, "others": without}, mistakes


# 9.8 The temporal difference -----------------------------------------------------------------------------------------


def temporal_difference(rewards, values, mask, gamma=1.0):
    """The package's answer: the one recursion with lam = 0, and nothing after the end."""
    kept = torch.where(mask, rewards, 0)
    return policy_gradient.advantage(kept, values, mask, rewards.new_zeros(len(rewards)), gamma=gamma, lam=0.0)


def difference_cases(rng):
    """Episodes that end before the last column and in it; numbers on padding; gamma below 1, 1, left to its default."""
    cases = []
    for gamma, lengths in ((0.5, (2, 4, 1)), (1.0, (3, 3)), (None, (1, 3)), (0.9, (2, 3))):
        tables = [[[round(rng.uniform(-1, 1) + 0.6, 3) for _ in range(max(lengths))] for _ in lengths] for _ in "rv"]
        cases.append({"rewards": tables[0], "values": tables[1], "mask": masks(lengths, max(lengths)), "gamma": gamma})
    return cases


def drive_difference(answer, case):
    given = tensors(case, "rewards", "values", "mask")
    return answer(*given) if case["gamma"] is None else answer(*given, gamma=case["gamma"])


def expect_difference(case):
    gamma, lengths = 1.0 if case["gamma"] is None else case["gamma"], [sum(row) for row in case["mask"]]
    r, v, T = case["rewards"], case["values"], range(len(case["mask"][0]))

    def each(value, cut=True):
        """value(i, t, n) at each step acted of an episode of length n; elsewhere 0."""
        return [[value(i, t, n) if t < n or not cut else 0.0 for t in T] for i, n in enumerate(lengths)]

    def following(i, t, n):
        return v[i][t + 1] if t + 1 < n else 0.0

    def raw(i, t):
        return v[i][t + 1] if t + 1 < len(T) else 0.0

    mistakes = {
        "V(s_{t+1}) is missing: this is the reward less the value": each(lambda i, t, n: r[i][t] - v[i][t]),
        "V(s_t) is missing: subtract what was expected": each(lambda i, t, n: r[i][t] + gamma * following(i, t, n)),
        "the reward is missing": each(lambda i, t, n: gamma * following(i, t, n) - v[i][t]),
        "the sign is turned: V(s_t) is what was expected, and is subtracted": each(
            lambda i, t, n: v[i][t] - r[i][t] - gamma * following(i, t, n)),
        "the values are exchanged: r + gamma V(s_{t+1}) - V(s_t)": each(
            lambda i, t, n: r[i][t] + v[i][t] - gamma * following(i, t, n)),
        "after the last step comes padding, whatever it holds: the V there is 0": each(
            lambda i, t, n: r[i][t] + gamma * raw(i, t) - v[i][t]),
        "the V after the last step is its own once more: it is 0, the episode is over": each(
            lambda i, t, n: r[i][t] + gamma * (v[i][t + 1] if t + 1 < n else v[i][t]) - v[i][t]),
        "the last column is followed by the first: behind the end V is 0": Alternatives(
            each(lambda i, t, n: r[i][t] + gamma * v[i][(t + 1) % len(T)] - v[i][t]),
            each(lambda i, t, n: r[i][t] + gamma * (v[i][0] if t + 1 == len(T) else following(i, t, n)) - v[i][t])),
        "the state before, not the one after": each(
            lambda i, t, n: r[i][t] + gamma * (v[i][t - 1] if t else 0.0) - v[i][t]),
        "gamma is ignored": each(lambda i, t, n: r[i][t] + following(i, t, n) - v[i][t]),
        "gamma multiplies V(s_t) too": each(lambda i, t, n: r[i][t] + gamma * (following(i, t, n) - v[i][t])),
        "gamma multiplies the reward too": each(
            lambda i, t, n: gamma * (r[i][t] + following(i, t, n)) - v[i][t]),
        "the rewards of all later steps: one reward, then V": each(
            lambda i, t, n: sum(gamma ** (j - t) * r[i][j] for j in range(t, n)) - v[i][t]),
        "numbers on padding: 0 is wanted where mask is False": Alternatives(
            each(lambda i, t, n: r[i][t] + gamma * raw(i, t) - v[i][t], cut=False),
            each(lambda i, t, n: r[i][t] + gamma * following(i, t, n) - v[i][t], cut=False),
            each(lambda i, t, n: r[i][t] + (gamma * following(i, t, n) - v[i][t]) * (t < n), cut=False)),
    }  # fmt: skip
    return each(lambda i, t, n: r[i][t] + gamma * following(i, t, n) - v[i][t]), mistakes


# 9.9 All weights -----------------------------------------------------------------------------------------------------

KINDS = (
    "total return", "return − average", "return − leave-one-out", "return − best constant", "reward-to-go",
    "to-go − leave-one-out", "to-go − exact V", "TD, exact V",
)  # fmt: skip


def weights_of(kind, rewards, mask, values, scores, size):
    """The package's answer: each kind from the pieces of the exercises before."""
    returns, to_go = policy_gradient.total_return(rewards, mask), policy_gradient.reward_to_go(rewards, mask)
    batches, steps = returns[:, 0].view(-1, size), (-1, size, rewards.shape[1])
    if kind == "TD, exact V":
        return temporal_difference(rewards, values, mask)
    if kind in ("total return", "reward-to-go"):
        return returns if kind == "total return" else to_go
    if kind.startswith("to-go"):
        one_out = kind == "to-go − leave-one-out"
        return (to_go - (others(to_go.view(steps), mask.view(steps)).view_as(to_go) if one_out else values)) * mask
    if kind == "return − average":
        baseline = batches.mean(1, keepdim=True).expand_as(batches)
    elif kind == "return − leave-one-out":
        baseline = others(batches[..., None], torch.ones_like(batches[..., None], dtype=torch.bool))
    else:
        baseline = best_constants(scores.view(*batches.shape, -1), batches)["others"]
    return (returns - baseline.reshape(-1, 1)) * mask


def weights_cases(rng):
    """Two batches of three episodes of different lengths, numbers on padding, all kinds."""
    lengths, steps, made = (2, 4, 1, 3, 4, 4), 4, []
    for _ in range(2):
        table = [[[round(rng.uniform(-1, 1) + 0.4, 3) for _ in range(steps)] for _ in lengths] for _ in range(2)]
        scores = normals(rng, len(lengths), 3)
        made.append({"rewards": table[0], "values": table[1], "mask": masks(lengths, steps), "scores": scores,
                     "size": 3})  # fmt: skip
    return made


def drive_weights(answer, case):
    """The weights of all kinds, by name."""
    given = tensors(case, "rewards", "mask", "values", "scores")
    return {kind: answer(kind, *(x.clone() for x in given), case["size"]) for kind in KINDS}


def expect_weights(case):
    r, v, scores, size = case["rewards"], case["values"], case["scores"], case["size"]
    lengths, T = [sum(row) for row in case["mask"]], range(len(case["mask"][0]))
    B = range(len(lengths))
    norms, returns = [sum(x * x for x in row) for row in scores], [sum(r[i][: lengths[i]]) for i in B]

    def batch(i, but=None):
        return [j for j in B if j // size == i // size and j != but]

    def go(i, t):
        return sum(r[i][t : lengths[i]])

    def each(value, cut=True):
        return [[float(value(i, t)) if t < lengths[i] or not cut else 0.0 for t in T] for i in B]

    def mean(found):
        found = list(found)
        return sum(found) / len(found) if found else 0.0

    def constant(which):
        return sum(norms[j] * returns[j] for j in which) / sum(norms[j] for j in which)

    def others_at(i, t, but):
        return mean(go(j, t) for j in batch(i, but) if t < lengths[j])

    def difference(i, t):
        return r[i][t] + (v[i][t + 1] if t + 1 < lengths[i] else 0.0) - v[i][t]

    average, alone = (lambda i: mean(returns[j] for j in batch(i))), (lambda i: mean(returns[j] for j in batch(i, i)))
    expected = {
        "total return": each(lambda i, t: returns[i]),
        "return − average": each(lambda i, t: returns[i] - average(i)),
        "return − leave-one-out": each(lambda i, t: returns[i] - alone(i)),
        "return − best constant": each(lambda i, t: returns[i] - constant(batch(i, i))),
        "reward-to-go": each(go),
        "to-go − leave-one-out": each(lambda i, t: go(i, t) - others_at(i, t, i)),
        "to-go − exact V": each(lambda i, t: go(i, t) - v[i][t]),
        "TD, exact V": each(difference),
    }
    everybody = list(B)
    mistakes = {
        ("total return", "the reward-to-go: every step gets the whole return"): expected["reward-to-go"],
        ("total return", "weights on padding are not 0: nobody acted there"): each(lambda i, t: returns[i], cut=False),
        ("return − average", "this is the baseline: the weight is the return less it"): each(lambda i, t: average(i)),
        ("return − average", "one average over all batches: each has its own"): each(
            lambda i, t: returns[i] - mean(returns)),
        ("return − average", "the average of the others: here the episode itself is among them"):
            expected["return − leave-one-out"],
        ("return − average", "the reward-to-go less the average return: the whole return is meant"): each(
            lambda i, t: go(i, t) - average(i)),
        ("return − average", "weights on padding are not 0: nobody acted there"): each(
            lambda i, t: returns[i] - average(i), cut=False),
        ("return − leave-one-out", "the average over all: the episode itself is left out here"):
            expected["return − average"],
        ("return − leave-one-out", "the others of all batches: those of the own batch are meant"): each(
            lambda i, t: returns[i] - mean(returns[j] for j in everybody if j != i)),
        ("return − leave-one-out", "the others that still act alone: a return is known of every episode"): each(
            lambda i, t: returns[i] - mean(returns[j] for j in batch(i, i) if t < lengths[j])),
        ("return − leave-one-out", "weights on padding are not 0: nobody acted there"): each(
            lambda i, t: returns[i] - alone(i), cut=False),
        ("return − best constant", "fitted on the whole batch: that one is biased, take \"others\""): each(
            lambda i, t: returns[i] - constant(batch(i))),
        ("return − best constant", "one constant for all batches: each has its own"): each(
            lambda i, t: returns[i] - constant([j for j in everybody if j != i])),
        ("return − best constant", "the average of the others: the best constant weighs them by their scores"):
            expected["return − leave-one-out"],
        ("return − best constant", "the reward-to-go less the constant: it was fitted to whole returns"): each(
            lambda i, t: go(i, t) - constant(batch(i, i))),
        ("reward-to-go", "the whole return: every step gets what follows it"): expected["total return"],
        ("to-go − leave-one-out", "the average over all that act: leave the episode itself out"): each(
            lambda i, t: go(i, t) - others_at(i, t, None)),
        ("to-go − leave-one-out", "less the average return of the others: their reward-to-go at this step is meant"):
            each(lambda i, t: go(i, t) - alone(i)),
        ("to-go − leave-one-out", "the others of all batches: those of the own batch are meant"): each(
            lambda i, t: go(i, t) - mean(go(j, t) for j in everybody if j != i and t < lengths[j])),
        ("to-go − exact V", "the whole return less V: the reward-to-go is meant"): each(
            lambda i, t: returns[i] - v[i][t]),
        ("to-go − exact V", "values on padding count: the weight there is 0"): Alternatives(
            each(lambda i, t: go(i, t) - v[i][t], cut=False)),
        ("TD, exact V", "the reward-to-go less V: one reward, then V of the next state"): expected["to-go − exact V"],
        ("TD, exact V", "V of the next state is missing"): each(lambda i, t: r[i][t] - v[i][t]),
    }  # fmt: skip
    return expected, mistakes


# 9.10 A weight of one's own: the contest ------------------------------------------------------------------------------

EARLIER = 500  # episodes that a weight may learn from
MAPS = (  # rows, slip, reward of a step, time limit; the start is S
    (["SS.", ".#.", ".SG"], 0.0, -0.2, 5),
    (["S.X", "SSG"], 0.2, -0.2, 3),
    (["XS..", "S..G"], 0.0, -0.3, 5),
)
LEVELS = (0.2, 0.42, 0.65, 0.85)


def contest_cases(rng):
    """The maps, each with a policy that prefers some actions, and a seed of the earlier episodes."""
    cases = []
    for rows, slip, step_reward, horizon in MAPS:
        states = sum(symbol != "#" for row in rows for symbol in row)
        logits = [[round(rng.gauss(0, 0.5), 3) for _ in range(4)] for _ in range(states)]
        cases.append({"rows": rows, "slip": slip, "step_reward": step_reward, "horizon": horizon, "logits": logits,
                      "seed": rng.randrange(10**6)})  # fmt: skip
    return cases


@functools.lru_cache(maxsize=64)
def problem(text):
    """What a case stands for: its world, policy, all trajectories with their chances, and earlier episodes."""
    case = json.loads(text)
    world = GridWorld(case["rows"], slip=case["slip"], step_reward=case["step_reward"]).to_mdp()
    policy = TabularPolicy(world.states, world.actions).double()
    policy.logits.data = torch.tensor(case["logits"], dtype=torch.float64)
    every, _, chances = mdp.enumerate_trajectories(world, policy, case["horizon"])
    generator = torch.Generator().manual_seed(case["seed"])
    earlier, _ = collect(world, policy, EARLIER, horizon=case["horizon"], generator=generator)
    pi = mdp.probabilities(world, policy).detach()
    return SimpleNamespace(
        world=world, policy=policy, pi=pi, every=every, chances=chances, earlier=earlier, horizon=case["horizon"],
        exact=mdp.exact_gradient(world, policy, case["horizon"]),
    )  # fmt: skip


def episodes_of(rollout, rows=slice(None)):
    """What a weight sees of episodes, a copy."""
    return {"observations": rollout.observations[rows].clone(), "actions": rollout.actions[rows].clone(),
            "rewards": rollout.rewards[rows].clone(), "mask": rollout.mask[rows].clone()}  # fmt: skip


def contest_evidence(found, rows=slice(None)):
    """What a weight is made of in the contest."""
    earlier = SimpleNamespace(**episodes_of(found.earlier))
    return SimpleNamespace(
        **episodes_of(found.every, rows), earlier=earlier, pi=found.pi.clone(), horizon=found.horizon
    )


def drive_contest(answer, case):
    """The weights of all trajectories, and of every third one, from the last to the first, alone."""
    found = problem(json.dumps(case))
    rows = torch.arange(0, len(found.chances), 3).flip(0)
    weights, alone = answer(contest_evidence(found)), answer(contest_evidence(found, rows))
    return {"weights": weights, "alone": alone, "tensor": torch.is_tensor(weights)}


def mean_and_variance(found, weights):
    """The exact mean of one episode's estimate, and the exact trace of its covariance."""
    every = found.every
    each = mdp.episode_gradients(found.pi, every.observations, every.actions, weights).flatten(1)
    mean = found.chances @ each
    return mean, float(found.chances @ each.square().sum(1) - mean @ mean)


def remark_contest(case, data):
    found = problem(json.dumps(case))
    shape = tuple(found.every.mask.shape)
    try:
        weights, alone = (torch.tensor(data[name], dtype=torch.float64) for name in ("weights", "alone"))
    except (TypeError, ValueError, RuntimeError):
        return "the weights are no table of numbers: (B, T) is expected, a number for each step"
    if not data["tensor"]:
        return "the weights are no tensor: a tensor of floats of shape (B, T) is expected"
    if tuple(weights.shape) != shape or tuple(alone.shape) != (len(range(0, shape[0], 3)), shape[1]):
        return f"the weights have the shape {tuple(weights.shape)}: (B, T) = {shape} is expected"
    if not bool(torch.isfinite(weights).all() and torch.isfinite(alone).all()):
        return "a weight is not a finite number"
    if bool((weights[~found.every.mask] != 0).any()):
        return "weights on padding are not 0: nobody acted there"
    if not torch.allclose(weights[::3].flip(0), alone, rtol=1e-6, atol=1e-8):
        return "the weights of an episode change with the other rows of e: learn from e.earlier alone"
    mean, _ = mean_and_variance(found, weights)
    error = float((mean - found.exact).norm() / found.exact.norm())
    if error > 1e-6:
        return f"biased: on {'/'.join(case['rows'])} the mean is off by {error:.1%} of the gradient's length"
    return None


def quietness(case, data):
    """The variance of TD with the exact V over that of these weights."""
    found = problem(json.dumps(case))
    values = mdp.horizon_values(found.world, found.pi, found.horizon)
    every, T = found.every, found.every.mask.shape[1]
    along = values[torch.arange(T), every.observations]
    _, best = mean_and_variance(found, temporal_difference(every.rewards, along, every.mask))
    _, own = mean_and_variance(found, torch.tensor(data["weights"], dtype=torch.float64))
    return best / max(own, 1e-12)


def score_contest(cases, data):
    found = [quietness(*pair) for pair in zip(cases, data)]
    loudest = "/".join(cases[min(range(len(found)), key=found.__getitem__)]["rows"])
    remark = f"on {loudest} the variance is {1 / min(found):.1f} times that of TD with the exact V"
    return statistics.geometric_mean(found), remark


def own_weights(e):
    """The package's answer: Q of a model of the earlier episodes, as baseline and for the luck of later actions."""
    earlier, (S, A) = e.earlier, e.pi.shape
    acted, goes_on = earlier.mask, earlier.mask[:, 1:]
    moves, paid = torch.zeros(S, A, S + 1).double(), torch.zeros(S, A).double()
    count = torch.zeros(S, A).double()
    pairs = earlier.observations[acted], earlier.actions[acted]
    paid.index_put_(pairs, earlier.rewards[acted].double(), accumulate=True)
    count.index_put_(pairs, torch.ones(len(pairs[0])).double(), accumulate=True)
    after = torch.where(goes_on, earlier.observations[:, 1:], S)  # state S: it is over
    before = acted[:, :-1]
    steps = earlier.observations[:, :-1][before], earlier.actions[:, :-1][before], after[before]
    moves.index_put_(steps, torch.ones(len(steps[0])).double(), accumulate=True)
    moves, paid = moves / moves.sum(-1, keepdim=True).clamp(min=1), paid / count.clamp(min=1)
    V, Q = torch.zeros(e.horizon + 1, S + 1).double(), torch.zeros(e.horizon, S, A).double()
    for t in reversed(range(e.horizon)):
        Q[t] = paid + moves @ V[t + 1]
        V[t, :S] = (e.pi * Q[t]).sum(1)
    t = torch.arange(e.mask.shape[1])
    value = V[t, e.observations]
    excess = (Q[t, e.observations, e.actions] - value) * e.mask  # of mean 0, whatever Q is
    return (reward_to_go(e.rewards - excess, e.mask) + excess - value) * e.mask


def reward_to_go(rewards, mask, gamma=1.0):
    """The package's, called as the student's."""
    return policy_gradient.reward_to_go(rewards, mask, gamma=gamma)


EXERCISES = {
    "9.1": Exercise(measure_cases, None, expect_measure, points=3, reference=measure, remark=remark_measure,
        signature="measure(gradients: float[B P], size: int, exact: float[P])"
        " -> {estimates: float[M P], variance: number, share: number, z: number}"),
    "9.2": Exercise(prefix_cases, drive_prefixes, expect_prefixes, points=2, reference=prefixes,
        signature="prefixes(world: any, pi: float[S A], horizon: int) -> list"),
    "9.3": Exercise(proof_cases, None, expect_proof, points=3, reference=proof,
        signature="proof(pi: float[S A], chances: float[K], states: int[K], b: float[K A])"
        " -> {scores: float[K A A], grad_pi: float[K A A], inner: float[K A], mean: float[S A]}"),
    "9.4": Exercise(go_cases, drive_go, expect_go, points=2, reference=reward_to_go,
        signature="reward_to_go(rewards: float[B T], mask: bool[B T], gamma: number) -> float[B T]"),
    "9.5": Exercise(estimate_cases, drive_estimate, expect_estimate, points=2, reference=mean_estimate,
        signature="mean_estimate(world: any, pi: float[S A], horizon: int, factor: number) -> float[S A]"),
    "9.6": Exercise(others_cases, None, expect_others, points=2, reference=others, remark=remark_others,
        signature="others(values: float[M N T], mask: bool[M N T]) -> float[M N T]"),
    "9.7": Exercise(constant_cases, None, expect_constants, points=3, reference=best_constants,
        signature="best_constants(scores: float[M N P], returns: float[M N])"
        " -> {batch: float[M N], others: float[M N]}"),
    "9.8": Exercise(difference_cases, drive_difference, expect_difference, points=2, reference=temporal_difference,
        signature="temporal_difference(rewards: float[B T], values: float[B T], mask: bool[B T], gamma: number)"
        " -> float[B T]"),
    "9.9": Exercise(weights_cases, drive_weights, expect_weights, points=3, reference=weights_of,
        signature="weights_of(kind: str, rewards: float[B T], mask: bool[B T], values: float[B T], scores: float[B P],"
        " size: int) -> float[B T]"),
    "9.10": Exercise(contest_cases, drive_contest, None, points=4, reference=own_weights, remark=remark_contest,
        score=score_contest, levels=LEVELS, ranked=True),
}  # fmt: skip
