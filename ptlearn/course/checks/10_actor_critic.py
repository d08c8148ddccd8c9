"""Lesson 10: the advantage, TD residuals, fitted values, sums of residuals, actor and critic, silent bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import statistics

import torch

from ptlearn.course.cases import masks
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise, lab
from ptlearn.policy_gradient import advantage
from ptlearn.rollout import Rollout


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
        mistakes["V is subtracted along the actions: make it a column, values[:, None]"] = (
            by(lambda s, a, r, v: r + gamma * v - values[a])
        )
    return by(lambda s, a, r, v: r + gamma * v - values[s]), mistakes


# 10.2 TD residuals ---------------------------------------------------------------------------------------------------


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


# 10.3 Fitted values --------------------------------------------------------------------------------------------------


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


# 10.5 Actor and critic -----------------------------------------------------------------------------------------------


def learn_from(rollout, values, final_values, gamma, lam):
    """The package's answer, as `train_policy` does it: weights for the actor, and targets for the critic."""
    bootstrap = final_values.where(~rollout.terminated, 0)
    weights = advantage(rollout.rewards, values, rollout.mask, bootstrap, gamma=gamma, lam=lam)
    return weights, weights + values


def learning_cases(rng):
    """The episodes of 10.2, with a lam: between, 0 and 1."""
    return [case | {"lam": lam} for case, lam in zip(residual_cases(rng), (0.6, 0.7, 0.0, 1.0))]


def drive_learning(answer, case):
    names = ("rewards", "values", "mask", "final_values", "terminated")
    rewards, values, mask, final, terminated = (torch.tensor(case[name]) for name in names)
    zeros = torch.zeros_like(mask, dtype=torch.long)
    rollout = Rollout(zeros, zeros, rewards, torch.zeros_like(rewards), mask, terminated)
    found = answer(rollout, values, final, case["gamma"], case["lam"])

    def acted(rows):
        """Neither the loss nor the critic's regression looks at padding, so the check does not either."""
        return torch.where(mask, rows, 0) if torch.is_tensor(rows) and rows.shape == mask.shape else rows

    if isinstance(found, tuple | list) and len(found) == 2:
        return {"weights": acted(found[0]), "targets": acted(found[1])}
    return acted(found)


def expect_learning(case):
    gamma, lam, mask, values = case["gamma"], case["lam"], case["mask"], case["values"]

    def weights(lam=lam, gamma=gamma, **options):
        residuals = residuals_of(case, gamma=gamma, **options)
        return [discounted_sums(row, acted, gamma * lam) for row, acted in zip(residuals, mask)]

    def plus_values(rows, sign=1):
        return [[(x + sign * v) * acted for x, v, acted in zip(*row)] for row in zip(rows, values, mask)]

    def both(actor, critic=None):
        return {"weights": actor, "targets": plus_values(actor) if critic is None else critic}

    right = weights()
    targets, own = plus_values(right), [[v * acted for v, acted in zip(*row)] for row in zip(values, mask)]
    rewards = weights(lam=1.0, after=lambda b, t, last: 0.0, rule=lambda r, now, then: r)
    mistakes = {
        "one tensor is returned, the weights: return both, weights, targets": right,
        "one tensor is returned, the targets: return both, weights, targets": targets,
        "the critic's targets are the advantages: V must predict returns, so add values back": both(right, right),
        "actor and critic are swapped: return weights, then targets": both(targets, right),
        "the actor's weights are the targets: without V(s) subtracted there is no baseline": both(targets, targets),
        "the critic's targets are its own values: it has nothing to learn": both(right, own),
        "bootstraps through the end: after a terminated episode the next value is 0":
            both(weights(after=next_value(case, at_termination=True))),
        "episodes that were cut off are treated as over: bootstrap there with final_values":
            both(weights(after=next_value(case, at_truncation=False))),
        "the flag is turned: bootstrap where the episode did not terminate":
            both(weights(after=next_value(case, at_termination=True, at_truncation=False))),
        "the targets are the sampled rewards alone: an episode that was cut off earns more than that":
            both(right, rewards),
        "these are returns alone, without a critic: weights are advantages": both(rewards, rewards),
        "these are returns less V, and returns: lam and final_values go unused":
            both(plus_values(rewards, -1), rewards),
        "gamma and lam are not handed on: both are 1 by default": both(weights(lam=1.0, gamma=1.0)),
        "the targets are of lam = 1: V + A is wanted, with the lam of the weights":
            both(right, plus_values(weights(lam=1.0))),
        "the targets are r + gamma V(s'), one step: V + A is wanted": both(right, plus_values(weights(lam=0.0))),
        "values are subtracted from the advantages: the target is V + A": both(right, plus_values(right, -1)),
        "values are subtracted from the weights once more: an advantage has V(s) subtracted already":
            both(plus_values(right, -1), targets),
    }  # fmt: skip
    return both(right), mistakes


# 10.6 Silent bugs ----------------------------------------------------------------------------------------------------

BUGS = {"A": "sign of V", "B": "frozen critic", "C": "through the end", "D": "padding"}
SIGNS = {
    "sign of V": "would send the critic off without limit, for every fit adds to V what it should take away",
    "sign of the loss": "would make the actor's cosine -1",
    "misplaced gamma": "would let the critic settle, somewhat too high, and count nothing that must not count",
    "frozen critic": "would leave the critic where it started, at 0, while the actor is right",
    "through the end": "would let V after a termination change a weight",
    "cut is over": "would let V after a cut change nothing",
    "padding": "would let what the critic says about padding change a weight",
    "neighbors": "would join the end of one episode to the start of another, so V after a termination or a cut is lost",
}
SEEN = {
    "A": "look at how far run A's critic is off, when it is fitted again and again",
    "B": "run B's actor is right when V is exact; look at what its critic has learned",
    "C": "run C learns like the right one; look at the columns in which a right version has 0",
    "D": "look at which V changes run D's weights and should not",
}


EXERCISES = {
    "10.1": Exercise(advantage_cases, None, expect_advantages, points=1, reference=advantages,
        signature="advantages(P: float[S A S], R: float[S A S], values: float[S], gamma: number) -> float[S A]"),
    "10.2": Exercise(residual_cases, None, expect_residuals, points=2, reference=td_residuals,
        signature="td_residuals(rewards: float32[B T], values: float32[B T], mask: bool[B T], final_values:"
        " float32[B], terminated: bool[B], gamma: number) -> float[B T]"),
    "10.3": Exercise(fitting_cases, None, expect_fitting, points=1, reference=fitted_values,
        signature="fitted_values(observations: int[B T], targets: float[B T], mask: bool[B T], states: int) ->"
        " float[states]"),
    "10.4": Exercise(gae_cases, None, expect_gae, points=2, reference=gae,
        signature="gae(residuals: float32[B T], mask: bool[B T], gamma: number, lam: number) -> float[B T]"),
    "10.5": Exercise(learning_cases, drive_learning, expect_learning, points=2, reference=learn_from,
        signature="learn_from(rollout: any, values: float[B T], final_values: float[B], gamma: number, lam: number)"
        " -> (float[B T], float[B T])"),
    "10.6": lab(3, BUGS, SIGNS, SEEN),
}  # fmt: skip
