"""Lesson 10: the advantage, TD residuals, fitted values, sums of residuals, actor and critic, silent bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

from ptlearn.course.diagnosis import misnamed
from ptlearn.course.exercise import Exercise
from ptlearn.policy_gradient import advantage

# 10.1 The advantage --------------------------------------------------------------------------------------------------


def advantages(P, R, values, gamma):
    """The answer that the lesson goes on with: Q(s, a) - V(s)."""
    return (P * (R + gamma * values)).sum(-1) - values[:, None]


def advantage_cases(rng):
    """Three states, two actions, each leading to two states; more states than actions, so that shapes must fit."""
    cases = []
    for gamma in (0.5, 0.9):
        P, R = [], []
        for state in range(3):
            chances = [round(rng.uniform(0.2, 0.8), 2) for _ in range(2)]
            first, second = (state + 1) % 3, (state + 2) % 3
            P.append([[p if s == first else 1 - p if s == second else 0.0 for s in range(3)] for p in chances])
            R.append([[round(rng.uniform(-1, 1), 2) for _ in range(3)] for _ in range(2)])
        values = [round(rng.uniform(0.5, 2.0), 2) for _ in range(3)]
        cases.append({"P": P, "R": R, "values": values, "gamma": gamma})
    return cases


def expect_advantages(case):
    P, R, values, gamma = case["P"], case["R"], case["values"], case["gamma"]

    def by(rule):
        return [[rule(s, a) for a in range(2)] for s in range(3)]

    def q(s, a, gamma=gamma, weigh=True):
        return sum((p if weigh else 1.0) * (r + gamma * v) for p, r, v in zip(P[s][a], R[s][a], values))

    def over_actions(function):
        return by(lambda s, a: q(s, a) - function([q(s, b) for b in range(2)]))

    mistakes = {
        "this is Q: subtract V(s), the value before the action": by(q),
        "V(s') counts in full: it is one step away, so multiply it by gamma":
            by(lambda s, a: q(s, a, gamma=1.0) - values[s]),
        "gamma multiplies the reward too: r comes now, only V(s') is one step away":
            by(lambda s, a: sum(p * gamma * (r + v) for p, r, v in zip(P[s][a], R[s][a], values)) - values[s]),
        "the sign is turned: Q - V, positive where the action is better than the policy's average":
            by(lambda s, a: values[s] - q(s, a)),
        "the plain mean over actions is V of the uniform policy only: subtract the values that are given":
            over_actions(lambda row: sum(row) / len(row)),
        "the best action's Q is subtracted: V(s) is the policy's average, not its maximum": over_actions(max),
        "the reward is missing from Q":
            by(lambda s, a: sum(p * gamma * v for p, v in zip(P[s][a], values)) - values[s]),
        "V(s') is missing: this is the reward of one step alone, minus V(s)":
            by(lambda s, a: sum(p * r for p, r in zip(P[s][a], R[s][a])) - values[s]),
        "a sum over next states without their probabilities: weigh r + gamma V(s') by P":
            by(lambda s, a: q(s, a, weigh=False) - values[s]),
    }
    return by(lambda s, a: q(s, a) - values[s]), mistakes


# 10.2 TD residuals ---------------------------------------------------------------------------------------------------


def td_residuals(rewards, values, mask, final_values, terminated, gamma):
    """The package's answer: the recursion with lam = 0."""
    return advantage(rewards, values, mask, final_values.where(~terminated, 0), gamma=gamma, lam=0.0)


def residual_cases(rng):
    """Three episodes: one that terminates early, one cut off early (its padding has values too), one of full length."""
    cases = []
    for gamma in (0.5, 0.9):
        lengths, steps = (2, 3, 4), 4
        values = [[round(rng.uniform(0.5, 2.0), 2) for _ in range(steps)] for _ in lengths]
        rewards = [[round(rng.uniform(-1, 1), 2) if t < n else 0.0 for t in range(steps)] for n in lengths]
        mask = [[t < n for t in range(steps)] for n in lengths]
        final = [round(rng.uniform(0.5, 2.0), 2) for _ in lengths]
        case = {"rewards": rewards, "values": values, "mask": mask, "final_values": final, "gamma": gamma}
        cases.append(case | {"terminated": [True, False, gamma == 0.9]})
    return cases


def residuals_of(case, *, after=None, gamma=None, rule=lambda r, now, then: r + then - now, padding=0.0):
    """Rows of residuals; `after(row, t, last)` is the next value, by default what the definition says."""
    gamma = case["gamma"] if gamma is None else gamma
    after = after or next_value(case)
    table = []
    for b, acted in enumerate(case["mask"]):
        last, values, rewards = sum(acted) - 1, case["values"][b], case["rewards"][b]
        row = [rule(rewards[t], values[t], gamma * after(b, t, last)) for t in range(last + 1)]
        table.append(row + [padding if padding == 0.0 else padding * v for v in values[last + 1 :]])
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
    values, gamma = case["values"], case["gamma"]
    steps = len(values[0])

    def in_the_columns(b, t, last):
        """The end of the table taken for the end of the episode."""
        return values[b][t + 1] if t + 1 < steps else next_value(case)(b, last, last)

    def columns_without_final(b, t, last):
        return values[b][t + 1] if t + 1 < steps else 0.0

    padded = residuals_of(case, padding=-1.0)
    mistakes = {
        "a terminated episode goes on: after the goal or a pit nothing more comes, so V(s') is 0 there":
            residuals_of(case, after=next_value(case, at_termination=True)),
        "an episode that was cut off is treated as over: the world would have gone on, so use final_values":
            residuals_of(case, after=next_value(case, at_truncation=False)),
        "the flag is turned: terminated is True where V(s') is 0, and False where final_values count":
            residuals_of(case, after=next_value(case, at_termination=True, at_truncation=False)),
        "V(s') of an episode's last step is taken from its padding: the end is where the mask ends":
            residuals_of(case, after=in_the_columns),
        "V(s') of the last step comes from the padding, and final_values are not used":
            residuals_of(case, after=columns_without_final),
        "V(s') is not discounted": residuals_of(case, gamma=1.0),
        "gamma multiplies the reward too: only V(s') is one step away":
            residuals_of(case, rule=lambda r, now, then: gamma * r + then - now),
        "V(s) is added: the residual is what came, r + gamma V(s'), minus what was expected, V(s)":
            residuals_of(case, rule=lambda r, now, then: r + then + now),
        "the sign is turned: what came minus what was expected":
            residuals_of(case, rule=lambda r, now, then: now - r - then),
        "V(s) is missing: this is the target r + gamma V(s')": residuals_of(case, rule=lambda r, now, then: r + then),
        "padding has residuals: they are 0 where mask is False": padded,
    }
    return residuals_of(case), mistakes


# 10.3 Fitted values --------------------------------------------------------------------------------------------------


def fitted_values(observations, targets, mask, states):
    """The mean target of each state's visits, 0 where there was none."""
    seen = observations[mask]
    sums = targets.new_zeros(states).index_add(0, seen, targets[mask])
    return sums / seen.bincount(minlength=states).clamp(min=1)


def fitting_cases(rng):
    """Three episodes of different lengths: state 0 pads, state 1 is met twice in one, state 3 never."""
    cases = []
    for _ in range(2):
        observations = [[1, 2, 1, 0], [0, 2, 0, 0], [2, 1, 0, 4]]
        mask = [[True] * 4, [True, True, False, False], [True] * 4]
        targets = [[round(rng.uniform(0.5, 2.0), 2) for _ in row] for row in mask]
        cases.append({"observations": observations, "targets": targets, "mask": mask, "states": 5})
    return cases


def expect_fitting(case):
    rows = list(zip(case["observations"], case["targets"], case["mask"]))
    states, steps = case["states"], sum(map(sum, case["mask"]))
    visits = [(b, s, y) for b, row in enumerate(rows) for s, y, acted in zip(*row) if acted]
    padded = [(b, s, y) for b, row in enumerate(rows) for s, y, _ in zip(*row)]

    def table(rule, visits=visits, empty=0.0):
        """A number per state from its visits (episode, state, target), in the order of collection."""
        found = [[visit for visit in visits if visit[1] == state] for state in range(states)]
        return [rule(some) if some else empty for some in found]

    def mean(some):
        return sum(y for *_, y in some) / len(some)

    def first_visits(some):
        return mean([visit for i, visit in enumerate(some) if visit[0] not in [b for b, *_ in some[:i]]])

    def episode_by_episode(some):
        means = [mean([visit for visit in some if visit[0] == b]) for b in sorted({b for b, *_ in some})]
        return sum(means) / len(means)

    mistakes = {
        "padding is fitted too: it repeats state 0, which was not visited there; use the mask": table(mean, padded),
        "sums, not means: the number with the least squared error to some targets is their mean":
            table(lambda some: sum(y for *_, y in some)),
        "divided by all steps: divide by the visits of this state":
            table(lambda some: sum(y for *_, y in some) / steps),
        "divided by the number of episodes: divide by the visits of this state":
            table(lambda some: sum(y for *_, y in some) / len(rows)),
        "a state that was never visited has no mean: give it 0, not NaN": table(mean, empty=float("nan")),
        "the last visit replaces the others: average over all of them": table(lambda some: some[-1][2]),
        "the first visit of each episode alone: every visit is an example": table(first_visits),
        "averaged within each episode first: every visit weighs the same": table(episode_by_episode),
        "the largest target is kept: regression takes the mean": table(lambda some: max(y for *_, y in some)),
        "a state that was never visited gets the mean of all targets: give it 0":
            table(mean, empty=sum(y for *_, y in visits) / len(visits)),
    }
    return table(mean), mistakes


# 10.4 Generalized advantage estimation -------------------------------------------------------------------------------


def gae(residuals, mask, gamma, lam):
    """With values of 0 the package's recursion discounts what it is given by gamma, so give it gamma lam."""
    zeros = residuals.new_zeros(residuals.shape)
    return advantage(residuals, zeros, mask, zeros[:, 0], gamma=gamma * lam, lam=1.0)


def gae_cases(rng):
    """Two rows, the second shorter, with numbers in the padding that must not count; lam = 0 and 1 among the cases."""
    cases = []
    for gamma, lam in ((0.9, 0.5), (0.8, 1.0), (0.9, 0.0), (1.0, 0.7)):
        residuals = [[round(rng.uniform(0.5, 2.0), 2) for _ in range(4)] for _ in range(2)]
        mask = [[True] * 4, [True, True, False, False]]
        cases.append({"residuals": residuals, "mask": mask, "gamma": gamma, "lam": lam})
    return cases


def discounted_sums(row, mask, keep):
    """sum over l >= 0 of keep**l row[t + l], over the steps that count."""
    steps = range(len(row))
    return [sum(keep ** (k - t) * row[k] for k in steps[t:] if mask[k]) if mask[t] else 0.0 for t in steps]


def expect_gae(case):
    gamma, lam = case["gamma"], case["lam"]
    rows = list(zip(case["residuals"], case["mask"]))

    def by(keep):
        return [discounted_sums(row, mask, keep) for row, mask in rows]

    expected = by(gamma * lam)

    def masked(sums):
        return [[x if acted else 0.0 for x, acted in zip(row, mask)] for row, (_, mask) in zip(sums, rows)]

    def all_steps(row):
        return discounted_sums(row, [True] * 4, gamma * lam)

    def backwards(row, mask):
        return discounted_sums(row[::-1], mask[::-1], gamma * lam)[::-1]

    unmasked = [all_steps(row) for row, _ in rows]
    forward = masked([backwards(row, mask) for row, mask in rows])
    flat_rows, flat_mask = sum(case["residuals"], []), sum(case["mask"], [])
    kept = [i for i, acted in enumerate(flat_mask) if acted]
    stream = discounted_sums([flat_rows[i] for i in kept], [True] * len(kept), gamma * lam)
    leaked = [0.0] * len(flat_mask)
    for i, x in zip(kept, stream):
        leaked[i] = x
    mistakes = {
        "gamma is missing: a residual l steps ahead counts (gamma lam)^l": by(lam),
        "lam is missing: a residual l steps ahead counts (gamma lam)^l, not gamma^l": by(gamma),
        "gamma and lam are added: a residual l steps ahead counts (gamma lam)^l": by(gamma + lam),
        "nothing is carried: these are the residuals themselves, which is right only for lam = 0": by(0.0),
        "residuals in the padding are summed: steps after the end of an episode do not count": masked(unmasked),
        "padding has advantages, and passes them on: both stop where mask is False": unmasked,
        "summed over the past: an advantage is about what comes after the action, so walk backwards": forward,
        "scaled by 1 - lam: that is the average over n-step advantages; the sum of residuals needs no factor":
            [[(1 - lam) * x for x in row] for row in expected],
        "one stream: the first episode's sum runs on into the second episode": [leaked[:4], leaked[4:]],
    }
    return expected, mistakes


# 10.5 Actor and critic -----------------------------------------------------------------------------------------------


def learn_from(rollout, values, final_values, gamma, lam):
    """The package's answer, as `train_policy` does it: weights for the actor, and targets for the critic."""
    bootstrap = final_values.where(~rollout.terminated, 0)
    weights = advantage(rollout.rewards, values, rollout.mask, bootstrap, gamma=gamma, lam=lam)
    return weights, weights + values


def learning_cases(rng):
    """The episodes of 10.2, with a lam."""
    return [case | {"lam": 0.6} for case in residual_cases(rng)]


def drive_learning(answer, case):
    import torch

    from ptlearn.rollout import Rollout

    rewards, values, final = (torch.tensor(case[name]) for name in ("rewards", "values", "final_values"))
    mask = torch.tensor(case["mask"])
    zeros = torch.zeros_like(mask, dtype=torch.long)
    rollout = Rollout(zeros, zeros, rewards, torch.zeros_like(rewards), mask, torch.tensor(case["terminated"]))
    # neither the loss nor the critic's regression looks at padding, so the check does not either
    weights, targets = answer(rollout, values, final, case["gamma"], case["lam"])
    return {"weights": torch.where(mask, weights, 0), "targets": torch.where(mask, targets, 0)}


def expect_learning(case):
    gamma, lam, mask, values = case["gamma"], case["lam"], case["mask"], case["values"]

    def weights(lam=lam, **options):
        return [discounted_sums(row, acted, gamma * lam) for row, acted in zip(residuals_of(case, **options), mask)]

    def plus_values(rows):
        return [[(x + v) * acted for x, v, acted in zip(*row)] for row in zip(rows, values, mask)]

    def both(actor, critic):
        return {"weights": actor, "targets": critic}

    expected = both(weights(), plus_values(weights()))
    no_values = {"after": lambda b, t, last: 0.0, "rule": lambda r, now, then: r}
    returns = [discounted_sums(row, acted, gamma) for row, acted in zip(residuals_of(case, **no_values), mask)]
    through = weights(after=next_value(case, at_termination=True))
    cut = weights(after=next_value(case, at_truncation=False))
    own = [[v * acted for v, acted in zip(*row)] for row in zip(values, mask)]
    return expected, {
            "the critic's targets are the advantages: V must predict returns, so add values back":
                both(weights(), weights()),
            "actor and critic are swapped: return weights, then targets": both(expected["targets"], weights()),
            "the actor's weights are the targets: without V(s) subtracted there is no baseline":
                both(expected["targets"], expected["targets"]),
            "the critic's targets are its own values: it has nothing to learn": both(weights(), own),
            "bootstraps through the end: after a terminated episode the next value is 0":
                both(through, plus_values(through)),
            "episodes that were cut off are treated as over: bootstrap there with final_values":
                both(cut, plus_values(cut)),
            "the targets are the sampled rewards alone: an episode that was cut off earns more than that":
                both(weights(), returns),
            "lam is not used: these are Monte Carlo advantages, lam = 1":
                both(weights(lam=1.0), plus_values(weights(lam=1.0))),
            "lam is not used: these are TD residuals, lam = 0":
                both(weights(lam=0.0), plus_values(weights(lam=0.0))),
            "values are subtracted from the advantages: the target is V + A": (
                both(weights(), [[(x - v) * acted for x, v, acted in zip(*row)]
                                 for row in zip(weights(), values, mask)])
            ),
    }


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


def remark_bugs(case, data):
    return misnamed(data, BUGS, SIGNS, SEEN)


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
    "10.6": Exercise(lambda rng: [sorted(SIGNS)], None, None, points=3, reference=BUGS, remark=remark_bugs),
}  # fmt: skip
