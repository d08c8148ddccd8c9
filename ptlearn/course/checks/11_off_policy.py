"""Lesson 11: ratios, bias and noise, forms of weights, distances, PPO's clip and its epochs; a lab.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` and in the lab alone.
"""

import math

import torch

from ptlearn.course.cases import log_softmax, lost_on_padding, masks, rows, softmax, spread, tensors
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.course.lab import lab_of_runs
from ptlearn.grid.mdp import MDP
from ptlearn.optimization import update
from ptlearn.policy_gradient import (
    clipped_weights,
    kl_estimates,
    policy_gradient_loss,
    prefix_ratio,
    reward_to_go,
    self_normalized,
    step_ratio,
    trajectory_ratio,
)
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import Rollout, action_logprobs

NAN = math.nan


# 11.1 The ratio, three forms ------------------------------------------------------------------------------------------

FORMS = {"step": step_ratio, "prefix": prefix_ratio, "trajectory": trajectory_ratio}


def ratio(logprobs, behavior_logprobs, mask, form):
    """The package's ratio of that form."""
    return FORMS[form](logprobs, behavior_logprobs, mask)


def ratio_cases(rng):
    """Each form; padding that holds numbers, and anything; an episode whose probability is rounded to zero."""
    cases = []
    drawn = (
        ("step", [rng.randint(1, 2), 3], 3, -2.0, None), ("prefix", [rng.randint(3, 4), 5, 2], 5, -2.0, None),
        ("trajectory", [rng.randint(1, 2), 3], 3, -2.0, None), ("trajectory", [rng.randint(3, 4), 5, 2], 5, -2.0, None),
        ("trajectory", [300, 280], 300, -6.0, None), ("trajectory", [2, 4, 3], 4, -2.0, NAN),
        ("step", [3, 2], 3, -2.0, -math.inf), ("prefix", [3, 2], 3, -2.0, NAN),
    )  # fmt: skip
    for form, lengths, steps, low, junk in drawn:
        mask = masks(lengths, steps)
        pair = [rows(rng, (len(lengths), steps), low, low + 1.8) for _ in range(2)]
        if junk is not None:
            pair = [[[x if m else junk for x, m in zip(*both)] for both in zip(table, mask)] for table in pair]
        cases.append({"logprobs": pair[0], "behavior_logprobs": pair[1], "mask": mask, "form": form,
                      "junk": junk is not None})  # fmt: skip
    return cases


def expect_ratio(case):
    mask, form = case["mask"], case["form"]
    logs = [[p - q for p, q in zip(*pair)] for pair in zip(case["logprobs"], case["behavior_logprobs"])]
    acted = [[x if m else 0.0 for x, m in zip(row, kept)] for row, kept in zip(logs, mask)]
    part = {"step": lambda row, t: row[t : t + 1], "prefix": lambda row, t: row[: t + 1],
            "trajectory": lambda row, t: row}  # fmt: skip

    def each(rule, numbers=acted, everywhere=False, of=form):
        """rule(the log-ratios that belong to a step), at every acted step."""
        return [
            [rule(part[of](row, t)) if m or everywhere else 0.0 for t, m in enumerate(kept)]
            for row, kept in zip(numbers, mask)
        ]

    def product(row):
        return math.exp(sum(row))

    expected = each(product)
    if case["junk"]:
        return expected, {}
    mistakes = {
        "inverted: this is μ / π; the policy we ask about stands above": each(lambda row: math.exp(-sum(row))),
        "this is the log of the ratio: exp is missing": each(sum),
        "padding is filled: 0 where mask is False": each(product, everywhere=True),
        "without padding cut off: sum the log-ratios over the steps where mask is True": each(product, logs),
    }
    if form != "step":
        mistakes |= {
            f"{form}: this is the ratio of each step alone": each(product, of="step"),
            f"{form}: the mean of the log-ratios: they are summed, for the ratio is a product":
                each(lambda row: math.exp(sum(row) / len(row))),
            f"{form}: the ratios are summed: multiply them, or sum their logarithms":
                each(lambda row: sum(math.exp(x) for x in row)),
        }  # fmt: skip
    if form == "prefix":
        mistakes |= {
            "prefix: this is the whole episode's: take the actions up to and including the step's":
                each(product, of="trajectory"),
            "prefix: the step's own action is left out": [
                [math.exp(sum(row[:t])) if m else 0.0 for t, m in enumerate(kept)] for row, kept in zip(acted, mask)],
            "prefix: this is the ratio of the actions from the step on": [
                [math.exp(sum(row[t:])) if m else 0.0 for t, m in enumerate(kept)] for row, kept in zip(acted, mask)],
        }  # fmt: skip
    if form == "trajectory":
        mistakes |= in_whole(case, expected, each(product, of="prefix"))
    if form == "trajectory" and len(mask[0]) < 300:
        lengths = [sum(kept) for kept in mask]
        words = "trajectory: the mean of the acted steps' log-ratios: they are summed, for the ratio is a product"
        mistakes[words] = spread([math.exp(sum(row) / n) for row, n in zip(acted, lengths)], mask)
    return expected, mistakes


def in_whole(case, expected, prefixes):
    """Mistakes with the ratio of a whole episode."""
    mask = case["mask"]

    def probability(name):
        return [math.prod(math.exp(x) for x, m in zip(row, kept) if m) for row, kept in zip(case[name], mask)]

    quotients = [p / q if q else NAN for p, q in zip(probability("logprobs"), probability("behavior_logprobs"))]
    return {
        "trajectory: this is the prefix's ratio, up to each step: take the whole episode": prefixes,
        "0 / 0: the product of many probabilities is zero in floating point, so sum logarithms first": Alternatives(
            spread(quotients, mask),
            [[x if m or math.isnan(x) else 0.0 for m in kept] for x, kept in zip(quotients, mask)],
        ),
        "trajectory: a column (B, 1): write it at each step, 0 where mask is False": [[max(row)] for row in expected],
        "trajectory: one number per episode: write it at each of its steps, (B, T)": [max(row) for row in expected],
    }


# 11.2 Bias and noise --------------------------------------------------------------------------------------------------


def moments(estimates, chance, true):
    """The package's answer: distance, cosine and length of the mean, and the root of the summed variances."""
    mean, size = chance @ estimates, true.norm()
    noise = (chance @ ((estimates - mean) ** 2).sum(1)).sqrt()
    return {"bias": (mean - true).norm() / size, "cosine": torch.cosine_similarity(mean, true, dim=0),
            "length": mean.norm() / size, "noise": noise / size}  # fmt: skip


def moments_cases(rng):
    """Probabilities far from equal, and a truth whose length is not 1."""
    cases = []
    for count, parameters in ((5, 3), (4, 2), (7, 4)):
        shares = [rng.uniform(0.2, 2.0) for _ in range(count)]
        truth = [rng.choice([-1, 1]) * round(rng.uniform(1.0, 2.0), 3) for _ in range(parameters)]
        estimates = [[x * f for x, f in zip(truth, row)] for row in rows(rng, (count, parameters), 0.2, 2.5)]
        cases.append({"estimates": estimates, "chance": [x / sum(shares) for x in shares], "true": truth})
    return cases


def expect_moments(case):
    estimates, chance, true = case["estimates"], case["chance"], case["true"]
    size, columns = math.hypot(*true), range(len(true))

    def expectation(numbers, weights=chance):
        return [sum(w * row[k] for w, row in zip(weights, numbers)) for k in columns]

    def distance(one, other):
        return math.hypot(*[x - y for x, y in zip(one, other)])

    mean = expectation(estimates)
    plain = expectation(estimates, [1 / len(chance)] * len(chance))

    def spread_around(centre, weights=chance):
        return sum(w * distance(row, centre) ** 2 for w, row in zip(weights, estimates))

    dot, length = sum(x * y for x, y in zip(mean, true)), math.hypot(*mean)
    noise = math.sqrt(spread_around(mean))
    expected = {"bias": distance(mean, true) / size, "cosine": dot / length / size, "length": length / size,
                "noise": noise / size}  # fmt: skip
    mistakes = {
        ("bias", "not divided by the length of the true gradient"): distance(mean, true),
        ("bias", "every trajectory counts the same: weigh with chance"): distance(plain, true) / size,
        ("bias", "the mean distance of an estimate: take the distance of the mean"):
            sum(w * distance(row, true) for w, row in zip(chance, estimates)) / size,
        ("bias", "the difference of the two lengths: take the length of the difference"): Alternatives(
            abs(length - size) / size, (length - size) / size),
        ("bias", "divided by the length of the mean: divide by that of the true gradient"):
            distance(mean, true) / length,
        ("bias", "the squared distance: take its root"): Alternatives(
            distance(mean, true) ** 2 / size, distance(mean, true) ** 2 / size**2),
        ("cosine", "this is the dot product: divide by both lengths"): dot,
        ("cosine", "divided by one of the two lengths: divide by both"): Alternatives(
            dot / size, dot / length, dot / size**2),
        ("length", "not divided by the length of the true gradient"): length,
        ("length", "the lengths are averaged: take the length of the mean"):
            sum(w * math.hypot(*row) for w, row in zip(chance, estimates)) / size,
        ("noise", "not divided by the length of the true gradient"): noise,
        ("noise", "this is the variance: take its root"): Alternatives(noise**2 / size, noise**2 / size**2),
        ("noise", "around the true gradient: the variance is around the estimate's own mean"):
            math.sqrt(spread_around(true)) / size,
        ("noise", "every trajectory counts the same: weigh the squares with chance"): Alternatives(
            math.sqrt(spread_around(mean, [1 / len(chance)] * len(chance))) / size,
            math.sqrt(spread_around(plain, [1 / len(chance)] * len(chance))) / size,
            math.sqrt(spread_around(plain, [1 / (len(chance) - 1)] * len(chance))) / size),
        ("noise", "the mean over parameters: sum their variances"): noise / math.sqrt(len(true)) / size,
        ("noise", "the mean is not subtracted: E|g|² is not the variance"):
            math.sqrt(spread_around([0.0] * len(true))) / size,
        ("noise", "the roots are summed: sum the variances, then take the root"): sum(
            math.sqrt(sum(w * (row[k] - mean[k]) ** 2 for w, row in zip(chance, estimates))) for k in columns) / size,
    }  # fmt: skip
    return expected, mistakes


# 11.3 Each reward with its prefix -------------------------------------------------------------------------------------


def per_decision(rewards, step_ratios, mask):
    """The package's pieces put together: reward-to-go of rewards that carry the prefix ratio."""
    logs = step_ratios.log().where(mask, step_ratios.new_zeros(()))
    return reward_to_go(prefix_ratio(logs, logs.new_zeros(logs.shape), mask) * rewards, mask)


def decision_cases(rng):
    """The first is small; in the last π never takes one of the actions, so its ratio is 0."""
    cases = []
    for lengths, steps in (([3, 2], 3), ([4, 4, 4], 4), ([3, 5, 2, 1], 5), ([4, 3], 4)):
        shape = len(lengths), steps
        rewards = [[x * rng.choice([-1, 1]) for x in row] for row in rows(rng, shape, 0.5, 2.0)]
        cases.append({"rewards": rewards, "step_ratios": rows(rng, shape, 0.3, 3.0), "mask": masks(lengths, steps)})
    cases[-1]["step_ratios"][0][rng.randint(1, 2)] = 0.0
    return cases


def expect_decision(case):
    mask, steps = case["mask"], range(len(case["mask"][0]))

    def by(rule, kept=True):
        """A rule (rewards, ratios, t, length) at every step."""
        return [
            [rule(r, p, t, sum(m)) if m[t] or not kept else 0.0 for t in steps]
            for r, p, m in zip(case["rewards"], case["step_ratios"], mask)
        ]

    def product(p, start, stop):
        return math.prod(p[start:stop])

    expected = by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t, n)))
    mistakes = {
        "prefix times reward-to-go: the rewards after t lack the ratios of the actions after t, and are still μ's":
            by(lambda r, p, t, n: product(p, 0, t + 1) * sum(r[t:n])),
        "the ratio of step t' alone is put on r_t': every action from the first to t' led there":
            by(lambda r, p, t, n: sum(p[k] * r[k] for k in range(t, n))),
        "the product starts at t: it starts at the episode's first step, for the states before t are μ's too":
            by(lambda r, p, t, n: sum(product(p, t, k + 1) * r[k] for k in range(t, n))),
        "the action's own ratio is left out: r_t' carries the ratios up to t' included":
            by(lambda r, p, t, n: sum(product(p, 0, k) * r[k] for k in range(t, n))),
        "the sum runs over the past: from t on":
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t + 1))),
        "the sum runs over the whole episode at every step: from t on":
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(n))),
        "not summed: this is the weighted reward of step t alone": by(lambda r, p, t, n: product(p, 0, t + 1) * r[t]),
        "the whole episode's ratio on every reward: unbiased, but each reward needs its prefix only":
            by(lambda r, p, t, n: product(p, 0, n) * sum(r[t:n])),
        "step ratio times reward-to-go: this is the lecture's per-step form, which is biased":
            by(lambda r, p, t, n: p[t] * sum(r[t:n])),
        "padding pays: the sum ends where mask ends":
            by(lambda r, p, t, n: sum(product(p, 0, k + 1) * r[k] for k in range(t, len(r)))),
        "summed, and then the prefix again: each reward carries its own prefix once":
            by(lambda r, p, t, n: product(p, 0, t + 1) * sum(product(p, 0, k + 1) * r[k] for k in range(t, n))),
        "the prefix up to t - 1 times reward-to-go: r_t' carries the ratios up to t' included":
            by(lambda r, p, t, n: product(p, 0, t) * sum(r[t:n])),
        "the ratios are summed up: the prefix is their product":
            by(lambda r, p, t, n: sum(sum(p[: k + 1]) * r[k] for k in range(t, n))),
        "the product runs from the end, ρ_t' ... ρ_T: the ratios up to t' are asked for":
            by(lambda r, p, t, n: sum(product(p, k, n) * r[k] for k in range(t, n))),
    }  # fmt: skip
    return expected, mistakes


# 11.4 Each form as weights --------------------------------------------------------------------------------------------


def forms(step, prefix, rho, total, to_go, A_pi, A_mu, mask):
    """The package's answer: each ratio times what it is paired with."""
    found = {"no_ratio": total, "trajectory": rho * total, "trajectory_to_go": rho * to_go,
             "prefix_to_go": prefix * to_go, "prefix_A_pi": prefix * A_pi, "step": step * total,
             "step_to_go": step * to_go, "step_A_mu": step * A_mu, "step_A_pi": step * A_pi}  # fmt: skip
    found["geometric_mean"] = (rho.clamp(min=1e-300).log() / mask.sum(1, keepdim=True)).exp() * total
    return found | {f"cut_at_{most}": rho.clamp(max=most) * total for most in (1, 5)}


def forms_cases(rng):
    """Ragged episodes; ratios of an episode below 1, between 1 and 5, and above 5."""
    cases = []
    for lengths, steps in (([3, 2, 4], 5), ([4, 1, 3], 4)):
        mask = masks(lengths, steps)
        names = ("step", "prefix", "to_go", "A_pi", "A_mu")
        drawn = {name: rows(rng, (3, steps), 0.3, 3.0) for name in names}
        case = {name: [[x if m else 0.0 for x, m in zip(*pair)] for pair in zip(table, mask)]
                for name, table in drawn.items()}  # fmt: skip
        whole = [rng.uniform(0.3, 0.8), rng.uniform(2.0, 4.0), rng.uniform(6.0, 9.0)]
        case |= {"rho": spread(whole, mask), "total": spread([rng.uniform(0.5, 2.0) for _ in range(3)], mask)}
        cases.append(case | {"mask": mask})
    return cases


def drive_forms(answer, case):
    names = ("step", "prefix", "rho", "total", "to_go", "A_pi", "A_mu")
    found = answer(*tensors(case, *names), torch.tensor(case["mask"]))
    return {key: weights.detach() for key, weights in found.items()} if isinstance(found, dict) else found


def expect_forms(case):
    lengths, width = [sum(row) for row in case["mask"]], len(case["mask"][0])

    def by(rule, *names):
        """rule(the numbers of these names, the length of the episode) at every step."""
        tables = [case[name] for name in names]
        return [
            [rule(*[table[i][t] for table in tables], lengths[i]) if case["mask"][i][t] else 0.0 for t in range(width)]
            for i in range(len(lengths))
        ]

    def times(one, other):
        return by(lambda x, y, n: x * y, one, other)

    def alone(name):
        return by(lambda x, n: x, name)

    pairs = {"trajectory": ("rho", "total"), "trajectory_to_go": ("rho", "to_go"), "prefix_to_go": ("prefix", "to_go"),
             "prefix_A_pi": ("prefix", "A_pi"), "step": ("step", "total"), "step_to_go": ("step", "to_go"),
             "step_A_mu": ("step", "A_mu"), "step_A_pi": ("step", "A_pi")}  # fmt: skip
    expected = {"no_ratio": alone("total")} | {key: times(*pair) for key, pair in pairs.items()}
    expected["geometric_mean"] = by(lambda p, r, n: p ** (1 / n) * r, "rho", "total")
    expected |= {f"cut_at_{c}": by(lambda p, r, n, c=c: min(p, c) * r, "rho", "total") for c in (1, 5)}
    mistakes = {("no_ratio", "this is the reward-to-go: the return of the whole episode is asked for"): alone("to_go")}
    names = {"rho": "ρ(τ)", "prefix": "the prefix's ratio", "step": "the step's ratio", "total": "r(τ)",
             "to_go": "G_t", "A_pi": "A of π", "A_mu": "A of μ"}  # fmt: skip
    for key, (weight, paid) in pairs.items():
        mistakes |= {(key, f"{names[other]} in the place of {names[weight]}"): times(other, paid)
                     for other in ("rho", "prefix", "step") if other != weight}  # fmt: skip
        mistakes |= {(key, f"{names[other]} in the place of {names[paid]}"): times(weight, other)
                     for other in ("total", "to_go", "A_pi", "A_mu") if other != paid}  # fmt: skip
        mistakes[key, f"{names[weight]} is missing"] = alone(paid)
    mistakes |= {
        ("geometric_mean", "the root is of the number of columns: padding does not count"):
            by(lambda p, r, n: p ** (1 / width) * r, "rho", "total"),
        ("geometric_mean", "ρ(τ) is divided by the length: take the root of that degree"):
            by(lambda p, r, n: p / n * r, "rho", "total"),
        ("geometric_mean", "r(τ) is under the root too: only the ratio"):
            by(lambda p, r, n: (p * r) ** (1 / n), "rho", "total"),
        ("geometric_mean", "a power in the place of a root"): by(lambda p, r, n: p**n * r, "rho", "total"),
    }  # fmt: skip
    for c in (1, 5):
        mistakes |= {
            (f"cut_at_{c}", "a maximum in the place of the minimum"):
                by(lambda p, r, n, c=c: max(p, c) * r, "rho", "total"),
            (f"cut_at_{c}", "the product is cut: cut the ratio"):
                by(lambda p, r, n, c=c: min(p * r, c), "rho", "total"),
            (f"cut_at_{c}", "a ratio above c counts nothing: it counts c"):
                by(lambda p, r, n, c=c: p * r if p <= c else 0.0, "rho", "total"),
            (f"cut_at_{c}", "nothing is cut"): times("rho", "total"),
        }  # fmt: skip
    return expected, mistakes


# 11.5 Distance of two policies ----------------------------------------------------------------------------------------


def distance(world, pi, mu, horizon):
    """The package's answer: two backward recursions, as sums over states of what an episode still adds."""
    kl, second = torch.zeros_like(world.start), torch.ones_like(world.start)
    for _ in range(horizon):
        ahead = (pi / mu).log() + torch.einsum("sat,t->sa", world.P, kl)
        kl = torch.where(world.terminal, 0.0, (pi * ahead).sum(1))
        ahead = torch.einsum("sat,t->sa", world.P, second)
        second = torch.where(world.terminal, 1.0, (pi**2 / mu * ahead).sum(1))
    return {"kl": world.start @ kl, "second": world.start @ second}


def distance_cases(rng):
    """Two states that act, one end, reached sooner or later; two policies; one step, and several."""

    def sixteenths():
        """Three probabilities that sum to 1 without rounding."""
        first, second = rng.randint(2, 6), rng.randint(2, 6)
        return [first / 16, second / 16, (16 - first - second) / 16]

    cases = []
    for horizon in (1, 3, 5):
        draw = [[softmax(row) for row in rows(rng, (3, 2), -1.2, 1.2)] for _ in range(2)]
        moves = [[sixteenths(), sixteenths()] for _ in range(2)]
        first = rng.randint(3, 13) / 16
        cases.append({"pi": draw[0], "mu": draw[1], "P": [*moves, [[0.0, 0.0, 1.0]] * 2],
                      "start": [first, 1 - first, 0.0], "horizon": horizon})  # fmt: skip
    return cases


def drive_distance(answer, case):
    world = MDP(torch.tensor(case["P"]).double(), torch.zeros(3, 2), torch.tensor(case["start"]).double())
    return answer(world, *tensors(case, "pi", "mu"), case["horizon"])


def expect_distance(case):
    def at(horizon, *, ended=True, above="pi", below="mu", start=None):
        """KL and second moment, with a change."""
        kl, second = [0.0] * 3, [1.0] * 3
        for _ in range(horizon):
            before = kl, second
            kl, second = [0.0] * 3, [1.0] * 3
            for state in range(2 if ended else 3):
                kl[state], second[state] = 0.0, 0.0
                for p, q, after in zip(case[above][state], case[below][state], case["P"][state]):
                    ahead, further = (sum(x * y for x, y in zip(after, values)) for values in before)
                    kl[state] += p * (math.log(p / q) + ahead)
                    second[state] += p * p / q * further
        weights = start or case["start"]
        return {"kl": sum(w * x for w, x in zip(weights, kl)), "second": sum(w * x for w, x in zip(weights, second))}

    horizon, expected = case["horizon"], at(case["horizon"])
    first, swapped = at(1), at(horizon, above="mu", below="pi")
    going_on, short, longer = at(horizon, ended=False), at(horizon - 1), at(horizon + 1)
    mistakes = {
        "terminal states act on: nobody acts there, KL is 0 and the ratio 1": going_on,
        "one step too few": short,
        "one step too many": longer,
        "the first states are not weighed with world.start": at(horizon, start=[1 / 3] * 3),
        "π and μ are exchanged: this is the distance from μ to π": swapped,
        ("kl", "this is KL(μ‖π): actions and states are weighed with π"): swapped["kl"],
        ("kl", "the sign is turned: log π/μ, with π above"): -expected["kl"],
        ("second", "this is E_π[ρ²]: weigh the square with μ, or ρ with π"): third_moment(case, horizon),
        ("second", "this is E_μ[ρ], which is always 1: square the ratio"): 1.0,
        ("second", "this is exp(KL), its lower bound"): math.exp(expected["kl"]),
        ("second", "the recursion begins at 0: a product begins at 1"): from_nothing(case, horizon),
    }
    if horizon > 1:
        mistakes["one step only: go backwards `horizon` times"] = first
    return expected, mistakes


def third_moment(case, horizon):
    """E_π[ρ²] = E_μ[ρ³]."""
    values = [1.0] * 3
    for _ in range(horizon):
        values = [
            sum(p**3 / q**2 * sum(x * y for x, y in zip(after, values))
                for p, q, after in zip(case["pi"][s], case["mu"][s], case["P"][s]))
            for s in range(2)
        ] + [1.0]  # fmt: skip
    return sum(w * x for w, x in zip(case["start"], values))


def from_nothing(case, horizon):
    """The second moment's recursion begun at 0 in the states that act: trajectories that have ended alone."""
    values = [0.0, 0.0, 1.0]
    for _ in range(horizon):
        values = [
            sum(p * p / q * sum(x * y for x, y in zip(after, values))
                for p, q, after in zip(case["pi"][s], case["mu"][s], case["P"][s]))
            for s in range(2)
        ] + [1.0]  # fmt: skip
    return sum(w * x for w, x in zip(case["start"], values))


# 11.6 Self-normalised weights -----------------------------------------------------------------------------------------


def normalizing_cases(rng):
    """ρ(τ), then prefixes; ragged episodes, with numbers on padding; in some nobody acts at the last step."""
    cases = []
    for whole, lengths, steps in (
        (False, [3, 2], 3), (True, [4, 3, 2, 4], 4), (False, [2, 5, 3, 1, 5], 5), (False, [3, 2, 3, 1], 4)
    ):  # fmt: skip
        ratios, mask = rows(rng, (len(lengths), steps), 0.2, 3.0), masks(lengths, steps)
        if whole:
            ratios = [[row[0] if m else x for x, m in zip(row, kept)] for row, kept in zip(ratios, mask)]
        cases.append({"ratios": ratios, "mask": mask})
    return cases


def expect_normalizing(case):
    """Two answers are consistent: step by step with ended episodes' ratios carried on, and once for all steps."""
    ratios, mask, width, count = case["ratios"], case["mask"], len(case["mask"][0]), len(case["mask"])
    steps = range(width)
    acted = [[x for x, m in zip(row, kept) if m] for row, kept in zip(ratios, mask)]
    carried = [[row[min(t, len(row) - 1)] for t in steps] for row in acted]
    alive = [[row[t] for row in acted if t < len(row)] for t in steps]
    ends = [row[-1] for row in acted]

    def mean(values):
        return sum(values) / len(values) if values else 1.0

    def by(divisors, numbers=ratios, everywhere=False):
        return [
            [x / d if m or everywhere else 0.0 for x, m, d in zip(row, kept, divisors)]
            for row, kept in zip(numbers, mask)
        ]

    def column(t, ended=None):
        """The ratios at step t: of an episode that has ended the number `ended`, or what stands on padding."""
        return [row[t] if kept[t] or ended is None else ended for row, kept in zip(ratios, mask)]

    def within_rows(divisor):
        return [[x / divisor(own) if m else 0.0 for x, m in zip(*pair)] for *pair, own in zip(ratios, mask, acted)]

    means, once = [mean([row[t] for row in carried]) for t in steps], [mean(ends)] * width
    mistakes = {
        "divides by the mean over the rows still acting: under π others still act than under μ, so their ratios do not "
        "average to 1, however many they are; an episode that has ended keeps its last ratio":
            by([mean(row) for row in alive]),
        "an ended episode counts as 0 in the mean: it keeps the ratio of its last action":
            by([mean(column(t, 0.0)) or 1.0 for t in steps]),
        "an ended episode counts as 1 in the mean: it keeps the ratio of its last action":
            by([mean(column(t, 1.0)) for t in steps]),
        "what stands on padding is averaged in: an ended episode keeps the ratio of its last action":
            by([mean(column(t)) for t in steps]),
        "divided by the mean of the last column: what has ended before has nothing but padding there":
            by([mean(column(-1))] * width),
        "divided by the sum of the last ratios: divide by their mean, or the weights shrink with the batch":
            by([count * d for d in once]),
        "divided by the sum over the rows still acting: divide by a mean, and over all rows":
            by([sum(row) or 1.0 for row in alive]),
        "normalised along time: average over episodes, which are rows": within_rows(mean),
        "each row is divided by its sum: average over episodes, which are rows": within_rows(sum),
        "one mean over all steps of all episodes: long ones count more often in it, and each must count once":
            by([mean(sum(acted, []))] * width),
        "divided by the mean of the first step at every step: that takes out nothing of what comes later":
            by([mean(column(0))] * width),
        "padding is filled: 0 where mask is False": by(means, everywhere=True),
        "padding is filled, after the division: 0 where mask is False": by(once, everywhere=True),
        "padding is filled, with the ratios carried on: 0 where mask is False": by(means, carried, everywhere=True),
        "divided by one number, the mean over episodes and steps: a mean for each step": by([mean(means)] * width),
        "divided by the mean of the others: the episode itself counts too": [
            [x * (count - 1) / (count * d - c) if m else 0.0 for x, m, d, c in zip(row, kept, means, others)]
            for row, kept, others in zip(ratios, mask, carried)
        ],
        "divided by the largest: the mean is what must become 1": by([max(row) for row in zip(*carried)]),
        "the ratios come back as they were": by([1.0] * width),
        "the mean is subtracted: divide, so that the weights stay positive":
            [[x - d if m else 0.0 for x, m, d in zip(row, kept, means)] for row, kept in zip(ratios, mask)],
    }  # fmt: skip
    return Alternatives(by(means), by(once)), mistakes


# 11.7 What a batch of old episodes says -------------------------------------------------------------------------------


def seen_from_behind(log_ratios):
    """The package's answer, with shares by softmax."""
    shares = log_ratios.softmax(0)
    return {"ess": 1 / (shares**2).sum(), "forward": shares @ log_ratios, "backward": -log_ratios.mean()}


def seen_cases(rng):
    """Near 0, and moved far away; then far from each other."""
    moderate = [round(rng.uniform(-1.5, 1.5), 3) for _ in range(6)]
    few = [round(rng.uniform(0.2, 2.0), 3) for _ in range(3)]
    apart = [few[0] + 900.0, -1000.0, few[1] + 900.0, -950.0, few[2]], [-400.0, *(x + 400.0 for x in few)]
    return [{"log_ratios": logs} for logs in (few, moderate, [x + 1000 for x in moderate], [x - 1000 for x in moderate],
                                              *apart)]  # fmt: skip


def exponential(x):
    """exp, as a tensor has it: infinite from 710 on."""
    return math.exp(x) if x < 709 else math.inf


def expect_seen(case):
    logs = case["log_ratios"]
    count, mean = len(logs), sum(logs) / len(logs)
    scaled = [math.exp(x - max(logs)) for x in logs]
    total, squares = sum(scaled), sum(x * x for x in scaled)
    shares = [x / total for x in scaled]
    expected = {"ess": total**2 / squares, "forward": sum(w * x for w, x in zip(shares, logs)), "backward": -mean}

    def less(shift):
        """The ESS of weights exp(log_ratios - shift)."""
        above, below = (sum(exponential(power * (x - shift)) for x in logs) for power in (1, 2))
        return above**2 / below if below and math.isfinite(below) else NAN

    def forward(shift):
        """The forward KL of weights exp(log_ratios - shift)."""
        weights = [exponential(x - shift) for x in logs]
        return sum(w * x for w, x in zip(weights, logs)) / sum(weights) if 0 < sum(weights) < math.inf else NAN

    far = "exp overflows at 710 and is 0 below -745, so subtract the largest log-ratio first"
    mistakes = {
        ("ess", "Σ ρ / Σ ρ² of the scaled weights: the sum above is squared"): total / squares,
        ("ess", "1 / the largest share: another count, the ESS is (Σ ρ)² / Σ ρ²"): 1 / max(shares),
        ("ess", "Σ ρ² / Σ ρ²: square the sum, not the terms"): 1.0,
        ("ess", f"not a number: {far}"): less(0.0),
        ("ess", "not a number where log-ratios are far apart: subtract the largest, not the mean"): less(mean),
        ("ess", "not a number where log-ratios are far apart: subtract the largest, not the smallest"): less(min(logs)),
        ("ess", "the share of the batch: the ESS is a number of episodes"): total**2 / squares / count,
        ("forward", "the sign is turned: KL(π‖μ) is the mean of log π/μ"): -expected["forward"],
        ("forward", "weighed with the ratios scaled to a largest of 1, not to a sum of 1: divide by their sum"):
            sum(w * x for w, x in zip(scaled, logs)),
        ("forward", "the mean without weights: μ's episodes stand in for π's only with their ratios"): mean,
        ("forward", "the largest log-ratio is missing: only the weights may be scaled, not the log-ratio"):
            expected["forward"] - max(logs),
        ("forward", "divided by B: self-normalised weights are divided by their own sum"):
            sum(w * x for w, x in zip(scaled, logs)) / count,
        ("forward", f"not a number: {far}"): forward(0.0),
        ("backward", "the sign is turned: KL(μ‖π) is the mean of log μ/π"): mean,
        ("backward", "a weighted mean: these are μ's own episodes, a plain mean will do"): -expected["forward"],
        ("backward", "the largest log-ratio is subtracted: only the weights may be scaled"): max(logs) - mean,
        ("backward", "a sum: the mean over the episodes"): -sum(logs),
    }  # fmt: skip
    return expected, mistakes


# 11.8 Several steps on one rollout ------------------------------------------------------------------------------------


def reuse(policy, optimizer, rollout, advantages, form, epochs):
    """The package's answer: weights anew from the policy as it is, one step, again."""
    for _ in range(epochs):
        logprobs = action_logprobs(policy, rollout).detach()
        weights = advantages if form == "no" else ratio(logprobs, rollout.logprobs, rollout.mask, form) * advantages
        update(policy, optimizer, rollout, weights)


def rollout_case(rng, off):
    """Three ragged episodes of another policy: the record is off by up to `off` nats; numbers stand on padding."""
    lengths, logits = rng.sample([3, 1, 2], 3), rows(rng, (3, 3), -1.2, 1.2)
    states, actions = ([[rng.randrange(3) for _ in range(3)] for _ in lengths] for _ in range(2))
    moved = rows(rng, (3, 3), -off, off)
    recorded = [[log_softmax(logits[s])[a] - x for s, a, x in zip(*three)] for three in zip(states, actions, moved)]
    advantages = [[rng.choice([-1, 1]) * x for x in row] for row in rows(rng, (3, 3), 0.5, 2.0)]
    return {"logits": logits, "observations": states, "actions": actions, "mask": masks(lengths, 3),
            "logprobs": recorded, "advantages": advantages, "lr": 0.6}  # fmt: skip


def reuse_cases(rng):
    """Every form of the ratio, and none."""
    return [rollout_case(rng, 0.7) | {"form": form, "epochs": 3} for form in ("no", "step", "prefix", "trajectory")]


def in_tensors(case):
    """Policy, plain gradient steps, rollout and advantages of a case."""
    policy = TabularPolicy(3, 3).double()
    with torch.no_grad():
        policy.logits.copy_(torch.tensor(case["logits"]))
    fields = {name: torch.tensor(case[name]) for name in ("observations", "actions", "mask")}
    recorded, advantages = tensors(case, "logprobs", "advantages")
    rollout = Rollout(**fields, rewards=0 * recorded, logprobs=recorded, terminated=fields["mask"].all(1))
    return policy, torch.optim.SGD(policy.parameters(), lr=case["lr"]), rollout, advantages


def drive_reuse(answer, case):
    policy, optimizer, rollout, advantages = in_tensors(case)
    answer(policy, optimizer, rollout, advantages, case["form"], case["epochs"])
    return policy.logits.detach()


def expect_reuse(case):
    expected = stepped(case)["logits"]
    changes = {
        "the weights are computed once: the ratio changes with every step": {"frozen": True},
        "the ratio is inverted: the policy as it is stands above, the record below": {"inverted": True},
        "the ratio is that of each step, whatever the form": {"form": "step"},
        "the ratio is that of the whole episode, whatever the form": {"form": "trajectory"},
        "the ratio is always there: \"no\" is the advantage alone": {"form": "step" if case["form"] == "no" else None},
        "there is no ratio in front of the advantage": {"form": "no"},
        "padding is trained on: the loss needs the mask": {"padded": True},
        "divided by the number of steps: the loss is a mean over episodes": {"per_step": True},
        "not divided by the number of episodes": {"summed": True},
        "gradients add up: set them to zero before each backward pass": {"adding": True},
        "the policy gets worse: the sign of the loss is turned": {"sign": -1.0},
        "one step only: `epochs` of them": {"epochs": 1},
        "one step too few": {"epochs": case["epochs"] - 1},
        "one step too many": {"epochs": case["epochs"] + 1},
        "nothing is learned: no step is made": {"epochs": 0},
    }
    return expected, {words: stepped(case, **change)["logits"] for words, change in changes.items()}


def stepped(case, **change):
    """Where plain gradient steps go, and what PPO notes, in plain Python; `change` says what is done wrong."""
    theta, kept, log = [list(row) for row in case["logits"]], None, []
    epochs = change.get("epochs", case["epochs"])
    for _ in range(epochs):
        numbers = weighted_steps(case, theta, change)
        noted = of_acted(numbers, change)
        if noted[0] > case.get("most", math.inf) and not change.get("on") and not change.get("late"):
            break
        log.append(list(noted))
        kept = kept or numbers
        used = kept if change.get("frozen") else numbers
        gradient = descent(case, theta, used, change)
        if change.get("adding"):
            total = change.setdefault("total", [[0.0] * 3 for _ in range(3)])
            for row, more in zip(total, gradient):
                row[:] = [x + y for x, y in zip(row, more)]
            gradient = total
        theta = [[x - case["lr"] * y for x, y in zip(*pair)] for pair in zip(theta, gradient)]
        if noted[0] > case.get("most", math.inf) and change.get("late"):
            break
    return {"logits": theta, "log": log}


def weighted_steps(case, theta, change):
    """(weight, log-ratio, acted) of every step."""
    found, form = [], change.get("form") or case.get("form", "step")
    for i, acted in enumerate(case["mask"]):
        taken = zip(case["observations"][i], case["actions"][i], case["logprobs"][i])
        true = [log_softmax(theta[s])[a] - old for s, a, old in taken]
        logs = [0.0 if change.get("recomputed") else x for x in true]
        cut = [x if m else 0.0 for x, m in zip(logs, acted)]
        for t, advantage in enumerate(case["advantages"][i]):
            part = {"no": [], "step": logs[t : t + 1], "prefix": cut[: t + 1], "trajectory": cut}[form]
            rho = math.exp(-sum(part) if change.get("inverted") else sum(part))
            weight = clip(rho, advantage, case["epsilon"], change) if "epsilon" in case else rho * advantage
            weight = weight if acted[t] or form == "no" else 0.0  # a ratio is 0 on padding
            found.append((weight, true[t], acted[t]))
    return found


def clip(rho, advantage, epsilon, change):
    """PPO's weight, or a wrong one."""
    epsilon = change.get("epsilon", epsilon)
    low, high = 1 - epsilon, 1 + epsilon
    kind = change.get("clip", "right")
    gone = {"right": rho > high if advantage > 0 else rho < low, "none": False, "both": not low <= rho <= high,
            "turned": rho < low if advantage > 0 else rho > high, "clamp": False}[kind]  # fmt: skip
    return 0.0 if gone else advantage * (min(max(rho, low), high) if kind == "clamp" else rho)


def of_acted(numbers, change):
    """The KL and the share of weights that are 0, over the acted steps."""
    logs = [-x if change.get("inverted_kl") else x for _, x, m in numbers if m]
    kl = sum(-x if change.get("kl") == "k1" else math.exp(x) - 1 - x for x in logs) / len(logs)
    counted = [w == 0 for w, _, m in numbers if m or change.get("noted_padding")]
    return kl, sum(counted) / len(counted)


def descent(case, theta, numbers, change):
    """The gradient of the loss by the logits, 3 x 3."""
    gradient, episodes = [[0.0] * 3 for _ in range(3)], len(case["mask"])
    acted = sum(map(sum, case["mask"]))
    divisor = acted if change.get("per_step") else 1 if change.get("summed") else episodes
    if change.get("per_kept"):
        divisor = max(1, sum(m and w != 0 for w, _, m in numbers))
    places = [(s, a) for row in zip(case["observations"], case["actions"]) for s, a in zip(*row)]
    for (s, a), (weight, _, m) in zip(places, numbers):
        if m or change.get("padded"):
            for b, p in enumerate(softmax(theta[s])):
                gradient[s][b] -= change.get("sign", 1.0) * weight * ((a == b) - p) / divisor
    return gradient


# 11.9 PPO's clip ------------------------------------------------------------------------------------------------------


def clip_cases(rng):
    """Far out, just inside and just outside on both sides, and the middle, in any order; epsilon, or none given."""
    cases = []
    kinds = [(x, sign) for x in (2.2, -2.2, 1.04, -0.96, 0.9, -1.04, 0.05) for sign in (1, -1)]
    for width, epsilon, chosen in ((2, 0.2, kinds[:8]), (7, None, kinds), (4, 0.1, [*kinds, (2.2, 0), (-2.2, 0)]),
                                   (14, 0.4, kinds)):  # fmt: skip
        pairs = [(1 + x * (epsilon or 0.2), sign * round(rng.uniform(0.5, 2.0), 3)) for x, sign in chosen]
        rng.shuffle(pairs)
        ratios, advantages = ([list(row) for row in zip(*[iter(part)] * width)] for part in zip(*pairs))
        cases.append({"ratios": ratios, "advantages": advantages, "epsilon": epsilon})
    return cases


def drive_clip(answer, case):
    options = {} if case["epsilon"] is None else {"epsilon": case["epsilon"]}
    return answer(*tensors(case, "ratios", "advantages"), **options)


def expect_clip(case):
    epsilon = 0.2 if case["epsilon"] is None else case["epsilon"]
    low, high = 1 - epsilon, 1 + epsilon

    def by(rule):
        return [[rule(p, A) for p, A in zip(*pair)] for pair in zip(case["ratios"], case["advantages"])]

    def clip(p, low=low, high=high):
        return min(max(p, low), high)

    def unless(gone, weight=lambda p, A: p * A):
        return by(lambda p, A: 0.0 if gone(p, A) else weight(p, A))

    def used_up(p, A, low=low, high=high):
        return p > high if A > 0 else p < low

    mistakes = {
        "the sign of the advantage is ignored: a bad action that became more likely must be pushed back in full":
            unless(lambda p, A: not low <= p <= high),
        "the sign of the advantage is turned, or the maximum taken: A > 0 is used up above 1 + ε, A < 0 below 1 - ε":
            unless(lambda p, A: used_up(p, -A)),
        "only the upper side is clipped: for A < 0 the ratio is used up below 1 - ε":
            unless(lambda p, A: A > 0 and p > high),
        "only the lower side is clipped: for A > 0 the ratio is used up above 1 + ε":
            unless(lambda p, A: A < 0 and p < low),
        "clipped above whatever the sign, and never below: look at the sign of A": unless(lambda p, A: p > high),
        "the advantage is missing: the weight is ratio times advantage": unless(used_up, lambda p, A: p),
        "log-ratios are compared with ε: the ratio itself is used up at 1 ± ε":
            unless(lambda p, A: used_up(p, A, math.exp(-epsilon), math.exp(epsilon))),
        "the lower side is 1 / (1 + ε): it is 1 - ε": unless(lambda p, A: used_up(p, A, 1 / high, high)),
        "this is the value of PPO's objective: its gradient is 0 where the clipped term is the smaller":
            by(lambda p, A: min(p * A, clip(p) * A)),
        "the ratio is clipped and still pushes: where it is used up, the weight is 0": by(lambda p, A: clip(p) * A),
        "nothing is clipped: this is ratio times advantage": by(lambda p, A: p * A),
        "epsilon is ignored: it is not always 0.2": unless(lambda p, A: used_up(p, A, 0.8, 1.2)),
        "compared with ε instead of 1 ± ε: the ratio is about 1, not about 0":
            unless(lambda p, A: used_up(p, A, -epsilon, epsilon)),
    }  # fmt: skip
    return unless(used_up), mistakes


# 11.10 The distance that stops ----------------------------------------------------------------------------------------


def kl_from_rollout(logprobs, behavior_logprobs, mask):
    """The package's k3, of the policy that sampled from the one as it is, averaged over acted steps."""
    return float(kl_estimates(behavior_logprobs, logprobs, mask).k3.sum() / mask.sum())


def kl_cases(rng):
    """Ragged episodes, numbers on padding; far apart, and close."""
    cases = []
    for lengths, steps, wide in (([2, 3], 3, 1.5), ([4, 1, 3], 4, 0.4)):
        behind = rows(rng, (len(lengths), steps), -2.5, -0.5)
        moved = rows(rng, (len(lengths), steps), -wide, wide)
        ahead = [[x + y for x, y in zip(*pair)] for pair in zip(behind, moved)]
        cases.append({"logprobs": ahead, "behavior_logprobs": behind, "mask": masks(lengths, steps)})
    return cases


def expect_kl(case):
    logs = [[p - q for p, q in zip(*pair)] for pair in zip(case["logprobs"], case["behavior_logprobs"])]
    acted = [x for row, kept in zip(logs, case["mask"]) for x, m in zip(row, kept) if m]
    everywhere, rows_of = [x for row in logs for x in row], [
        [x for x, m in zip(row, kept) if m] for row, kept in zip(logs, case["mask"])]  # fmt: skip

    def mean(rule, numbers=acted):
        return sum(map(rule, numbers)) / len(numbers)

    def k3(x):
        return math.exp(x) - 1 - x

    mistakes = {
        "this is -log ρ alone: add ρ - 1, so that no term is negative": mean(lambda x: -x),
        "the sign is turned: this is the mean of log ρ": mean(lambda x: x),
        "(log ρ)² / 2: another estimate, with a bias": mean(lambda x: x * x / 2),
        "inverted: ρ is π / μ, and μ sampled": mean(lambda x: k3(-x)),
        "ρ log ρ: that is a term of KL(π‖μ), and μ sampled": mean(lambda x: math.exp(x) * x),
        "(ρ - 1) + log ρ: minus": mean(lambda x: math.exp(x) - 1 + x),
        "ρ - log ρ: 1 is missing, and the same policy is at 0": mean(lambda x: math.exp(x) - x),
        "padding is averaged in: the mean is over acted steps": mean(k3, everywhere),
        "divided by all B T places: the mean is over acted steps": sum(map(k3, acted)) / len(everywhere),
        "a sum over steps: the mean over acted steps": sum(map(k3, acted)),
        "per episode: the mean over all acted steps": sum(map(k3, acted)) / len(logs),
        "a mean of the episodes' means: each acted step counts the same":
            sum(mean(k3, row) for row in rows_of) / len(rows_of),
        "of whole episodes: the ratio of each step": mean(k3, [sum(row) for row in rows_of]),
    }  # fmt: skip
    return mean(k3), mistakes


# 11.11 PPO's epochs ---------------------------------------------------------------------------------------------------


def ppo(policy, optimizer, rollout, advantages, epochs, epsilon, most):
    """The package's answer: look, stop or weigh, note, step."""
    log = []
    for _ in range(epochs):
        logprobs = action_logprobs(policy, rollout).detach()
        kl = kl_from_rollout(logprobs, rollout.logprobs, rollout.mask)
        if kl > most:
            return log
        ratios = step_ratio(logprobs, rollout.logprobs, rollout.mask)
        weights = clipped_weights(ratios, advantages, epsilon=epsilon)
        log.append((kl, float((weights == 0)[rollout.mask].double().mean())))
        update(policy, optimizer, rollout, weights)
    return log


def ppo_cases(rng):
    """Ratios on both sides of the clip and no stop; then the policy's own record, and a stop after two steps."""
    cases = [rollout_case(rng, 0.7) | {"epochs": 3, "epsilon": epsilon, "most": 1e9} for epsilon in (0.2, 0.35)]
    while True:
        case = rollout_case(rng, 0.0) | {"epochs": 5, "epsilon": 0.3, "most": 1e9}
        kls = [kl for kl, _ in stepped(case)["log"]]
        if kls[2] > 1.5 * kls[1] > 0.001 and kls[3] > 1.1 * kls[2]:
            return [*cases, case | {"most": (kls[1] + kls[2]) / 2}]


def drive_ppo(answer, case):
    policy, optimizer, rollout, advantages = in_tensors(case)
    log = answer(policy, optimizer, rollout, advantages, case["epochs"], case["epsilon"], case["most"])
    pairs = [[float(x) for x in pair] for pair in log] if isinstance(log, list | tuple) else log
    return {"logits": policy.logits.detach(), "log": pairs}


def expect_ppo(case):
    changes = {
        "it never stops: leave the loop where the KL is above `most`": {"on": True},
        "it stops a step late: look at the KL before the step": {"late": True},
        "the weights are computed once: ratio and clip change with every step": {"frozen": True},
        "the ratio is always 1: the old log-probabilities are rollout.logprobs": {"recomputed": True},
        "the ratio is inverted: the policy as it is stands above, the record below": {"inverted": True},
        "the ratio is that of the whole episode: PPO takes the step's": {"form": "trajectory"},
        "the ratio is that of the prefix: PPO takes the step's": {"form": "prefix"},
        "nothing is clipped": {"clip": "none"},
        "the clip does not look at the sign of the advantage": {"clip": "both"},
        "the clip looks at the wrong sign of the advantage": {"clip": "turned"},
        "the ratio is clamped and still pushes: where it is used up, the weight is 0": {"clip": "clamp"},
        "epsilon is ignored: it is not always 0.2": {"epsilon": 0.2},
        "divided by the number of steps: the loss is a mean over episodes": {"per_step": True},
        "divided by the steps that are not clipped: divide by the number of episodes": {"per_kept": True},
        "not divided by the number of episodes": {"summed": True},
        "gradients add up: set them to zero before each backward pass": {"adding": True},
        "the policy gets worse: the sign of the loss is turned": {"sign": -1.0},
        "one step only: `epochs` of them, unless the KL stops it": {"epochs": 1},
        "the KL is the mean of -log ρ: use kl_from_rollout": {"kl": "k1"},
        "the KL is of the inverted ratio: kl_from_rollout(new, old, mask)": {"inverted_kl": True},
        "padding is counted in the share: of the acted steps": {"noted_padding": True},
    }
    expected, mistakes = stepped(case), {words: stepped(case, **change) for words, change in changes.items()}
    mistakes |= {
        ("log", "nothing is returned: the list of pairs is asked for"): None,
        ("log", "the number of steps: a pair (KL, share) for each of them is asked for"): len(expected["log"]),
        ("log", "the share of steps that are *not* clipped: those whose weight is 0"):
            [[kl, 1 - share] for kl, share in expected["log"]],
        ("log", "the pairs are (share, KL): the KL comes first"): [[share, kl] for kl, share in expected["log"]],
        ("log", "the KL after the step: note the numbers before it"): after_steps(case, expected),
    }  # fmt: skip
    stopped = weighted_steps(case, expected["logits"], {})
    if len(expected["log"]) < case["epochs"]:
        mistakes["log", "the look that stopped is noted too: one pair for each step taken"] = [
            *expected["log"], list(of_acted(stopped, {}))]  # fmt: skip
    return expected, mistakes


def after_steps(case, expected):
    """The log with each KL taken after its step."""
    last = of_acted(weighted_steps(case, expected["logits"], {}), {})[0]
    kls = [*[kl for kl, _ in expected["log"][1:]], last]
    return [[kl, share] for kl, (_, share) in zip(kls, expected["log"])]


# 11.12 The lab --------------------------------------------------------------------------------------------------------


def epochs_with(weigh, *, once=False):
    """A run: steps on one rollout with weigh(new log-probabilities, rollout, advantages), or those of the first."""

    def run(policy, optimizer, rollout, advantages, epochs):
        weights = None
        for _ in range(epochs):
            if weights is None or not once:
                weights = weigh(action_logprobs(policy, rollout).detach(), rollout, advantages)
            optimizer.zero_grad()
            policy_gradient_loss(action_logprobs(policy, rollout), weights, rollout.mask).backward()
            optimizer.step()

    return run


def of_steps(new, rollout):
    """The step's ratio."""
    return step_ratio(new, rollout.logprobs, rollout.mask)


def right(new, rollout, advantages):
    return clipped_weights(of_steps(new, rollout), advantages)


def both_sides(new, rollout, advantages):
    ratios = of_steps(new, rollout)
    return torch.where((ratios - 1).abs() > 0.2, 0, ratios * advantages)


RUNS = {
    "right": epochs_with(right),
    "inverted": epochs_with(lambda new, rollout, advantages: clipped_weights(
        step_ratio(rollout.logprobs, new, rollout.mask), advantages)),
    "product": epochs_with(lambda new, rollout, advantages: clipped_weights(
        trajectory_ratio(new, rollout.logprobs, rollout.mask), advantages)),
    "both sides": epochs_with(both_sides),
    "clamped": epochs_with(lambda new, rollout, advantages: of_steps(new, rollout).clamp(0.8, 1.2) * advantages),
    "recomputed": epochs_with(lambda new, rollout, advantages: clipped_weights(
        step_ratio(new, new, rollout.mask), advantages)),
    "frozen": epochs_with(right, once=True),
}  # fmt: skip
HINTS = {
    "inverted": "record another probability than the policy's own, and ask for the size of the step",
    "product": "let an episode have several steps with different ratios",
    "both sides": "let an action with a negative advantage have become more likely",
    "clamped": "let a ratio be far beyond the clip on the side that the advantage favours",
    "recomputed": "record another probability than the policy's own, and ask whether the ratio counts at all",
    "frozen": "make more than one epoch, and ask whether the second knows what the first has done",
}


def refuses_the_wrong(run):
    """The package's test: three epochs of plain gradient steps against the closed form."""
    source = torch.Generator().manual_seed(5)
    states, actions = (torch.randint(3, (12, 3), generator=source) for _ in range(2))
    mask = torch.arange(3) < torch.randint(1, 4, (12, 1), generator=source)
    drawn = torch.randn(12, 3, generator=source).double()
    policy = TabularPolicy(3, 3).double()
    with torch.no_grad():
        policy.logits.copy_(torch.randn(3, 3, generator=source))
    logits = policy.logits.detach().clone().requires_grad_()
    behavior = logits.detach().log_softmax(-1)[states, actions] + 0.4 * torch.randn(12, 3, generator=source).double()
    run(policy, torch.optim.SGD(policy.parameters(), lr=0.5), Rollout(states, actions, 0 * behavior, behavior, mask,
        mask[:, -1]), drawn * mask, 3)  # fmt: skip
    for _ in range(3):
        new = logits.log_softmax(-1)[states, actions]
        free, held = ((new - behavior).exp().clamp(*ends) * drawn for ends in ((0, math.inf), (0.8, 1.2)))
        (gradient,) = torch.autograd.grad((torch.minimum(free, held) * mask).sum() / 12, logits)
        logits = (logits + 0.5 * gradient).detach().requires_grad_()
    return torch.allclose(policy.logits, logits)


def weights_of(ratios, advantages, epsilon=0.2):
    """The package's `clipped_weights`, called as the student's."""
    return clipped_weights(ratios, advantages, epsilon=epsilon)


EXERCISES = {
    "11.1": Exercise(ratio_cases, None, expect_ratio, points=2, reference=ratio, remark=lost_on_padding,
        signature="ratio(logprobs: float[B T], behavior_logprobs: float[B T], mask: bool[B T], form: str)"
        " -> float[B T] without gradient of logprobs"),
    "11.2": Exercise(moments_cases, None, expect_moments, points=2, reference=moments,
        signature="moments(estimates: float[K P], chance: float[K], true: float[P]) -> "
        "{bias: number, cosine: number, length: number, noise: number}"),
    "11.3": Exercise(decision_cases, None, expect_decision, points=2, reference=per_decision,
        signature="per_decision(rewards: float[B T], step_ratios: float[B T], mask: bool[B T]) -> float[B T]"),
    "11.4": Exercise(forms_cases, drive_forms, expect_forms, points=2, reference=forms,
        signature="forms(step: float[B T], prefix: float[B T], rho: float[B T], total: float[B T], to_go: float[B T],"
        " A_pi: float[B T], A_mu: float[B T], mask: bool[B T]) -> dict"),
    "11.5": Exercise(distance_cases, drive_distance, expect_distance, points=2, reference=distance,
        signature="distance(world: any, pi: float[S A], mu: float[S A], horizon: int) -> {kl: number, second: number}"),
    "11.6": Exercise(normalizing_cases, None, expect_normalizing, points=2, reference=self_normalized,
        signature="self_normalized(ratios: float[B T], mask: bool[B T]) -> float[B T]"),
    "11.7": Exercise(seen_cases, None, expect_seen, points=2, reference=seen_from_behind,
        signature="seen_from_behind(log_ratios: float[B]) -> {ess: number, forward: number, backward: number}"),
    "11.8": Exercise(reuse_cases, drive_reuse, expect_reuse, points=2, reference=reuse),
    "11.9": Exercise(clip_cases, drive_clip, expect_clip, points=2, reference=weights_of,
        signature="clipped_weights(ratios: float[B T], advantages: float[B T], epsilon: number) -> float[B T]"),
    "11.10": Exercise(kl_cases, None, expect_kl, points=1, reference=kl_from_rollout,
        signature="kl_from_rollout(logprobs: float[B T], behavior_logprobs: float[B T], mask: bool[B T]) -> number"),
    "11.11": Exercise(ppo_cases, drive_ppo, expect_ppo, points=4, reference=ppo),
    "11.12": lab_of_runs(RUNS, HINTS, refuses_the_wrong, levels=(2, 4, 6)),
}  # fmt: skip
