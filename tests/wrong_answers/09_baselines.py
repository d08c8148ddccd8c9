"""Typical wrong answers to the exercises of lesson 09, and right ones written differently."""

import torch

from ptlearn.grid import mdp

# 9.1 ------------------------------------------------------------------------------------------------------------------


def measured(gradients, size, exact, **changes):
    """A right answer, with some entries changed by functions of the estimates and the exact gradient."""
    count = len(gradients) // size
    estimates = torch.stack([gradients[i * size : (i + 1) * size].mean(0) for i in range(count)])
    mean, deviation = estimates.mean(0), estimates.std(0)
    moving = deviation > 0
    right = {
        "estimates": estimates,
        "variance": deviation.square().sum(),
        "share": mean.dot(exact) / exact.norm() ** 2,
        "z": ((mean - exact)[moving] / deviation[moving]).abs().max() * count**0.5,
    }
    return right | {name: change(estimates, exact) for name, change in changes.items()}


def measuring(**changes):
    return lambda gradients, size, exact: measured(gradients, size, exact, **changes)


def interleaved(gradients, size, exact):
    count = len(gradients) // size
    other = gradients[: count * size].view(size, count, -1).mean(0)
    return measured(gradients, size, exact) | {"estimates": other}


def summed(gradients, size, exact):
    right = measured(gradients, size, exact)
    return right | {"estimates": size * right["estimates"]}


def of_single_episodes(gradients, size, exact):
    return measured(gradients, size, exact) | {"variance": gradients.var(0).sum()}


def single_rows(gradients, size, exact):
    return measured(gradients, size, exact) | {"estimates": gradients}


def error_of_one(estimates, exact):
    z = (estimates.mean(0) - exact) / estimates.std(0).clamp(min=1e-9)
    return z.abs().max()


def not_left_out(estimates, exact):
    return ((estimates.mean(0) - exact) / (estimates.std(0) / len(estimates) ** 0.5)).abs().max()


def z_of(estimates, exact, pick):
    moving = estimates.std(0) > 0
    z = (estimates.mean(0) - exact)[moving] / (estimates.std(0)[moving] / len(estimates) ** 0.5)
    return pick(z)


def centred_in_place(gradients, size, exact):
    right = measured(gradients, size, exact)
    gradients -= gradients.mean(0)
    return right


def by_loops(gradients, size, exact):
    """Python's own arithmetic, parameter by parameter."""
    rows = gradients.tolist()
    batches = [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
    estimates = [[sum(column) / size for column in zip(*batch)] for batch in batches]
    variance, largest, means = 0.0, 0.0, []
    for column, truth in zip(zip(*estimates), exact.tolist()):
        mean = sum(column) / len(column)
        own = sum((x - mean) ** 2 for x in column) / (len(column) - 1)
        variance, means = variance + own, [*means, mean]
        if own > 0:
            largest = max(largest, abs(mean - truth) / (own / len(column)) ** 0.5)
    share = sum(m * e for m, e in zip(means, exact.tolist())) / sum(e * e for e in exact.tolist())
    return {"estimates": torch.tensor(estimates), "variance": variance, "share": share, "z": largest}


def by_the_covariance(gradients, size, exact):
    """Chunks, the trace of torch.cov, and 0 in the place of 0 / 0."""
    chunks = [chunk for chunk in gradients.split(size) if len(chunk) == size]
    estimates = torch.stack([chunk.mean(0) for chunk in chunks])
    errors = torch.cov(estimates.T).diagonal() / len(estimates)
    z = torch.nan_to_num((estimates.mean(0) - exact).abs() / errors.sqrt())
    return {
        "estimates": estimates,
        "variance": torch.cov(estimates.T).trace(),
        "share": (estimates @ exact).mean() / exact.square().sum(),
        "z": z.max(),
    }


# 9.2 ------------------------------------------------------------------------------------------------------------------


def prefixes(
    world, pi, horizon, *, first=0, chance=lambda p, choose, move: p * choose * move, drop=True,
    past=lambda before, reward: before + reward, start=lambda p: p,
):  # fmt: skip
    """A right one; each option changes a part of it."""
    found, now = [], [(start(p), s, 0.0) for s, p in enumerate(world.start.tolist()) if p > 0]
    for t in range(horizon):
        now = [x for x in now if not (drop and world.terminal[x[1]])]
        found += [(t + first, *x) for x in now]
        now = [
            (chance(p, pi[s, a].item(), world.P[s, a, n].item()), n, past(before, world.R[s, a, n].item()))
            for p, s, before in now
            for a in range(world.actions)
            for n in range(world.states)
            if world.P[s, a, n] > 0
        ]
    return found


def changed(**options):
    return lambda world, pi, horizon: prefixes(world, pi, horizon, **options)


def by_recursion(world, pi, horizon):
    """Each prefix and, by a call, all that go on from it."""

    def after(t, p, s, past):
        if t == horizon or world.terminal[s] or p == 0:
            return []
        longer = [(t, p, s, past)]
        for a in range(pi.shape[1]):
            for n in range(len(pi)):
                longer += after(t + 1, p * pi[s, a] * world.P[s, a, n], n, past + world.R[s, a, n])
        return longer

    return [one for s in range(len(pi)) for one in after(0, world.start[s], s, 0.0)]


def merged(world, pi, horizon):
    """Prefixes with the same time, state and past as one, in a dict."""
    found, now = {}, {(s, 0.0): p for s, p in enumerate(world.start.tolist())}
    for t in range(horizon):
        longer = {}
        for (s, past), p in now.items():
            if p == 0 or world.terminal[s]:
                continue
            found[t, s, past] = p
            for a in range(world.actions):
                for n in world.P[s, a].nonzero()[:, 0].tolist():
                    key = n, past + world.R[s, a, n].item()
                    longer[key] = longer.get(key, 0.0) + p * (pi[s, a] * world.P[s, a, n]).item()
        now = longer
    return [(t, p, s, past) for (t, s, past), p in found.items()]


# 9.3 ------------------------------------------------------------------------------------------------------------------


def proven(pi, chances, states, b, **changes):
    """A right answer in loops, with some entries changed by functions of (pi, chances, states, b, right)."""
    scores, mean = [], torch.zeros_like(pi)
    for state in states.tolist():
        row = pi[state]
        scores.append(torch.stack([torch.eye(len(row), dtype=pi.dtype)[a] - row for a in range(len(row))]))
    scores = torch.stack(scores)
    grad_pi = torch.stack([pi[s][:, None] * score for s, score in zip(states, scores)])
    inner = torch.einsum("ka,kac->kc", b, grad_pi)
    for k, state in enumerate(states.tolist()):
        mean[state] += chances[k] * inner[k]
    right = {"scores": scores, "grad_pi": grad_pi, "inner": inner, "mean": mean}
    return right | {name: change(pi, chances, states, b, right) for name, change in changes.items()}


def proving(**changes):
    return lambda pi, chances, states, b: proven(pi, chances, states, b, **changes)


def overwritten(pi, chances, states, b, right):
    mean = torch.zeros_like(pi)
    mean[states] = chances[:, None] * right["inner"]
    return mean


def lost_by_indices(pi, chances, states, b, right):
    mean = torch.zeros_like(pi)
    mean[states] += chances[:, None] * right["inner"]
    return mean


def by_autograd(pi, chances, states, b):
    """Every gradient from autograd, of a softmax of the logarithms."""
    logits = pi.log()
    parts = {"scores": [], "grad_pi": [], "inner": []}
    for state, numbers in zip(states, b):
        row = logits[state]
        jacobian = torch.autograd.functional.jacobian(lambda x: x.log_softmax(0), row)
        change = torch.autograd.functional.jacobian(lambda x: x.softmax(0), row)
        parts["scores"].append(jacobian), parts["grad_pi"].append(change), parts["inner"].append(numbers @ change)
    parts = {name: torch.stack(found) for name, found in parts.items()}
    visits = torch.nn.functional.one_hot(states, len(pi)).to(pi) * chances[:, None]
    return parts | {"mean": visits.T @ parts["inner"]}


# 9.4 ------------------------------------------------------------------------------------------------------------------


def backwards(rewards, mask, gamma, start=1.0, first=1.0):
    """A right one, with a factor on the reward of the step itself (start) or on every number (first)."""
    result, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        here = rewards[:, t] * mask[:, t]
        result[:, t] = first * (start * here + gamma * running)
        running = here + gamma * running
    return result * mask


def no_mask(rewards, mask, gamma=1.0):
    return backwards(rewards, torch.ones_like(mask), gamma)


def mask_at_the_end(rewards, mask, gamma=1.0):
    return no_mask(rewards, mask, gamma) * mask


def whole_return(rewards, mask, gamma=1.0):
    return (rewards * mask * gamma ** torch.arange(rewards.shape[1])).sum(1, keepdim=True) * mask


def the_past(rewards, mask, gamma=1.0):
    return (rewards * mask).cumsum(1) * mask


def strictly_later(rewards, mask, gamma=1.0):
    return backwards(rewards, mask, gamma, start=0.0)


def from_the_start(rewards, mask, gamma=1.0):
    return no_gamma(rewards * gamma ** torch.arange(rewards.shape[1]), mask)


def no_gamma(rewards, mask, gamma=1.0):
    return (rewards * mask).flip(1).cumsum(1).flip(1) * mask


def gamma_too_soon(rewards, mask, gamma=1.0):
    return backwards(rewards, mask, gamma, first=gamma)


def without_the_last_column(rewards, mask, gamma=1.0):
    mask = mask.clone()
    mask[:, -1] = False
    return backwards(rewards, mask, gamma)


def added_in_place(rewards, mask, gamma=1.0):
    for t in reversed(range(rewards.shape[1] - 1)):
        rewards[:, t] += gamma * rewards[:, t + 1] * mask[:, t + 1]
    return rewards * mask


def one_after_another(rewards, mask, gamma=1.0):
    result, running = torch.zeros_like(rewards), 0.0
    for row in reversed(range(len(rewards))):
        for t in reversed(range(int(mask[row].sum()))):
            running = float(rewards[row, t]) + gamma * running
            result[row, t] = running
    return result


def row_by_row(rewards, mask, gamma=1.0):
    rows = []
    for row, acted in zip(rewards.tolist(), mask.sum(1).tolist()):
        rows.append([sum(gamma ** (k - t) * row[k] for k in range(t, acted)) for t in range(len(row))])
    return torch.tensor(rows)


def by_a_matrix(rewards, mask, gamma=1.0):
    steps = torch.arange(rewards.shape[1])
    ahead = steps[:, None] - steps
    return torch.where(mask, rewards, 0) @ torch.where(ahead >= 0, gamma ** ahead.clamp(min=0), 0.0).double() * mask


# 9.5 ------------------------------------------------------------------------------------------------------------------


def estimated(
    world, pi, horizon, factor, *, weight=lambda t, factor: factor**t, move=True, ahead=1, less_v=True, choose=True,
    times=None,
):  # fmt: skip
    """A right one; each option changes a part of it."""
    V, chance, total = mdp.horizon_values(world, pi, horizon), world.start.clone(), torch.zeros_like(pi)
    for t in range(horizon if times is None else times):
        Q = mdp.action_values(world, V[min(t + ahead, horizon)])
        excess = Q - (pi * Q).sum(1, keepdim=True) if less_v else Q
        total += weight(t, factor) * chance[:, None] * (pi if choose else 1.0) * excess
        if move:
            chance = (chance[:, None, None] * pi[:, :, None] * world.P).sum((0, 1))
    return total


def estimating(**options):
    return lambda world, pi, horizon, factor: estimated(world, pi, horizon, factor, **options)


def by_an_autograd_surrogate(world, pi, horizon, factor):
    """The gradient of the sum over t and s of factor^t d_t(s) times what the logits of step t alone change."""
    logits = pi.log().requires_grad_()
    V, chance, total = mdp.horizon_values(world, pi, horizon), world.start, 0
    for t in range(horizon):
        Q = mdp.action_values(world, V[t + 1])
        total = total + factor**t * (chance[:, None] * logits.softmax(-1) * Q).sum()
        chance = chance @ (pi[:, :, None] * world.P).sum(1)
    return torch.autograd.grad(total, logits)[0]


def state_by_state(world, pi, horizon, factor):
    V, chance = mdp.horizon_values(world, pi, horizon).tolist(), world.start.tolist()
    result, states, actions = torch.zeros_like(pi), range(world.states), range(world.actions)
    for t in range(horizon):
        new = [0.0] * world.states
        for s in states:
            Q = mdp.action_values(world, torch.tensor(V[t + 1], dtype=torch.float64))[s]
            for a in actions:
                result[s, a] += factor**t * chance[s] * pi[s, a] * (Q[a] - V[t][s])
                for n in states:
                    new[n] += chance[s] * float(pi[s, a] * world.P[s, a, n])
        chance = new
    return result


# 9.6 ------------------------------------------------------------------------------------------------------------------


def averaged(values, mask, *, own=False, count=None, padding=False):
    """A right one in loops; each option changes a part of it."""
    result = torch.zeros_like(values)
    for m, i, t in mask.nonzero().tolist():
        some = [values[m, j, t] for j in range(mask.shape[1]) if (padding or mask[m, j, t]) and (own or j != i)]
        if some:
            result[m, i, t] = sum(some) / (count or len)(some)
    return result


def averaging(**options):
    return lambda values, mask: averaged(values, mask, **options)


def whole_batch_first(values, mask):
    kept = values.where(mask, torch.zeros_like(values))
    return torch.where(mask, kept.sum(1, keepdim=True) / (mask.sum(1, keepdim=True) - 1).clamp(min=1), 0)


def divided_by_zero(values, mask):
    kept = torch.where(mask, values, 0)
    return torch.where(mask, (kept.sum(1, keepdim=True) - kept) / (mask.sum(1, keepdim=True) - 1), 0)


def along_time(values, mask):
    kept = torch.where(mask, values, 0)
    count = (mask.sum(2, keepdim=True) - 1).clamp(min=1)
    return torch.where(mask, (kept.sum(2, keepdim=True) - kept) / count, 0)


def over_batches(values, mask):
    return averaged(values.transpose(0, 1), mask.transpose(0, 1)).transpose(0, 1)


def by_a_matrix_of_ones(values, mask):
    others = 1 - torch.eye(values.shape[1], dtype=values.dtype)
    total, count = (torch.einsum("ij,mjt->mit", others, x) for x in (torch.where(mask, values, 0), mask.to(values)))
    return torch.where(mask & (count > 0), total / count.clamp(min=1), 0)


# 9.7 ------------------------------------------------------------------------------------------------------------------


def constants(scores, returns, *, weigh=lambda scores: scores.square().sum(-1), power=1, divide=None):
    """A right one; each option changes a part of it."""
    weights = weigh(scores)
    result = {"batch": torch.zeros_like(returns), "others": torch.zeros_like(returns)}
    for m in range(len(returns)):
        for i in range(returns.shape[1]):
            for name, some in (
                ("batch", list(range(returns.shape[1]))),
                ("others", [j for j in range(returns.shape[1]) if j != i]),
            ):
                below = divide(some) if divide else weights[m, some].sum()
                result[name][m, i] = (weights[m, some] * returns[m, some] ** power).sum() / below
    return result


def fitting(**options):
    return lambda scores, returns: constants(scores, returns, **options)


def both_the_batch(scores, returns):
    return {name: constants(scores, returns)["batch"] for name in ("batch", "others")}


def both_the_others(scores, returns):
    return {name: constants(scores, returns)["others"] for name in ("batch", "others")}


def out_of_the_numerator(scores, returns):
    norms = scores.square().sum(-1)
    products = norms * returns
    others = (products.sum(1, keepdim=True) - products) / norms.sum(1, keepdim=True)
    return constants(scores, returns) | {"others": others}


def out_of_the_denominator(scores, returns):
    norms = scores.square().sum(-1)
    others = (norms * returns).sum(1, keepdim=True) / (norms.sum(1, keepdim=True) - norms)
    return constants(scores, returns) | {"others": others}


def subtracted_too_late(scores, returns):
    right = constants(scores, returns)
    return right | {"others": right["batch"] - returns}


def one_for_all(scores, returns):
    norms = scores.square().sum(-1)
    return constants(scores, returns) | {"batch": ((norms * returns).sum() / norms.sum()).expand_as(returns)}


def squared_in_place(scores, returns):
    right = constants(scores, returns)
    scores.square_()
    return right


def by_least_squares(scores, returns):
    """The b that makes |g|^2 (r - b)^2 least is a regression of |g| r on |g|."""
    lengths = scores.norm(dim=-1)

    def fitted(m, some):
        x, y = lengths[m, some], (lengths * returns)[m, some]
        return torch.linalg.lstsq(x[:, None], y[:, None]).solution[0, 0]

    N = range(returns.shape[1])
    rows = [[(fitted(m, list(N)), fitted(m, [j for j in N if j != i])) for i in N] for m in range(len(returns))]
    return {name: torch.stack([torch.stack([pair[place] for pair in row]) for row in rows])
            for place, name in enumerate(("batch", "others"))}  # fmt: skip


# 9.8 ------------------------------------------------------------------------------------------------------------------


def difference(
    rewards, values, mask, gamma, *, next_one=None, own=1.0, reward=1.0, cut=True, first=1.0,
):  # fmt: skip
    """A right one; each option changes a part of it."""
    kept = torch.where(mask, values, 0)
    following = (
        torch.cat([kept[:, 1:], torch.zeros_like(kept[:, :1])], 1) if next_one is None else next_one(values, mask)
    )
    found = reward * rewards + first * gamma * following - own * values
    return torch.where(mask, found, 0) if cut else found


def differing(**options):
    return lambda rewards, values, mask, gamma=1.0: difference(rewards, values, mask, gamma, **options)


def raw_next(values, mask):
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)


def itself_at_the_end(values, mask):
    goes_on = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return torch.where(goes_on, raw_next(values, mask), values)


def before(values, mask):
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)


def step_by_step(rewards, values, mask, gamma=1.0):
    result = torch.zeros_like(rewards)
    for i, length in enumerate(mask.sum(1).tolist()):
        for t in range(length):
            following = values[i, t + 1] if t + 1 < length else 0.0
            result[i, t] = rewards[i, t] + gamma * following - values[i, t]
    return result


def from_the_end(rewards, values, mask, gamma=1.0):
    following, columns = torch.zeros_like(rewards[:, 0]), []
    for t in reversed(range(rewards.shape[1])):
        columns.append(
            (rewards[:, t] + gamma * following - values[:, t]).where(mask[:, t], torch.zeros_like(following))
        )
        following = torch.where(mask[:, t], values[:, t], 0.0)
    return torch.stack(columns[::-1], 1)


# 9.9 ------------------------------------------------------------------------------------------------------------------


def weighed(kind, rewards, mask, values, scores, size, other=None):
    """A right one with a dict of baselines, row by row; `other` says what else a kind gives."""
    if other and kind in other:
        kind = other[kind]
    rewards, values = rewards.where(mask, rewards * 0), values.where(mask, values * 0)
    go = no_gamma(rewards, mask)
    total, rows = go[:, 0], []
    for i in range(len(mask)):
        batch = list(range(i // size * size, i // size * size + size))
        rest, norms = [j for j in batch if j != i], scores.square().sum(1)
        mine = {
            "total return": total[i],
            "return − average": total[i] - total[batch].mean(),
            "return − leave-one-out": total[i] - total[rest].mean(),
            "return − best constant": total[i] - (norms * total)[rest].sum() / norms[rest].sum(),
            "fitted on the batch": total[i] - (norms * total)[batch].sum() / norms[batch].sum(),
            "less all": total[i] - total.mean(),
            "the baseline": total[batch].mean(),
            "reward-to-go": go[i],
            "to-go − leave-one-out": go[i] - go[rest].sum(0) / mask[rest].sum(0).clamp(min=1),
            "to-go − average": go[i] - go[batch].sum(0) / mask[batch].sum(0).clamp(min=1),
            "to-go − return of the others": go[i] - total[rest].mean(),
            "to-go − exact V": go[i] - values[i],
            "return − exact V": total[i] - values[i],
            "TD, exact V": step_by_step(rewards[i : i + 1], values[i : i + 1], mask[i : i + 1])[0],
            "r − V": rewards[i] - values[i],
        }
        rows.append(mine[kind] * mask[i])
    return torch.stack(rows)


def weighing(**other):
    names = {"average": "return − average", "one_out": "return − leave-one-out", "best": "return − best constant",
             "total": "total return", "go": "reward-to-go", "go_one_out": "to-go − leave-one-out",
             "go_value": "to-go − exact V", "td": "TD, exact V"}  # fmt: skip
    swaps = {names[name]: kind for name, kind in other.items()}
    return lambda kind, rewards, mask, values, scores, size: weighed(kind, rewards, mask, values, scores, size, swaps)


def padding_kept(kind, rewards, mask, values, scores, size):
    found = weighed(kind, rewards, mask, values, scores, size)
    return found if kind != "total return" else total_everywhere(rewards, mask)


def total_everywhere(rewards, mask):
    return (rewards * mask).sum(1, keepdim=True).expand_as(rewards).clone()


def by_matrices(kind, rewards, mask, values, scores, size):
    """Averages as products with one matrix of the batches."""
    count = len(mask)
    same = (torch.arange(count)[:, None] // size == torch.arange(count) // size).to(rewards)
    rest, go = same - torch.eye(count, dtype=rewards.dtype), no_gamma(rewards, mask)
    total, norms, acting = go[:, :1], scores.square().sum(1, keepdim=True), mask.to(rewards)
    if kind == "TD, exact V":
        return from_the_end(rewards, values, mask)
    weights = go if "go" in kind else total
    baseline = {
        "return − average": lambda: same @ total / size,
        "return − leave-one-out": lambda: rest @ total / (size - 1),
        "return − best constant": lambda: rest @ (norms * total) / (rest @ norms),
        "to-go − leave-one-out": lambda: rest @ go / (rest @ acting).clamp(min=1),
        "to-go − exact V": lambda: values,
    }.get(kind, lambda: 0.0)()
    return (weights - baseline) * mask


# 9.10 -----------------------------------------------------------------------------------------------------------------


def table_of(e, weight):
    """The mean of weight (500, T) in each time, state and action of the earlier episodes: (horizon, S, A)."""
    earlier, (S, A) = e.earlier, e.pi.shape
    place = torch.arange(earlier.mask.shape[1]).expand_as(earlier.mask), earlier.observations, earlier.actions
    index, shape = tuple(x[earlier.mask] for x in place), (e.horizon, S, A)
    total = torch.zeros(shape, dtype=torch.float64).index_put(index, weight[earlier.mask].double(), accumulate=True)
    count = torch.zeros(shape, dtype=torch.float64).index_put(index, torch.tensor(1.0).double(), accumulate=True)
    return total, count


def learned(e):
    """V and Q from the earlier episodes' rewards-to-go."""
    total, count = table_of(e, no_gamma(e.earlier.rewards, e.earlier.mask))
    V = total.sum(-1) / count.sum(-1).clamp(min=1)
    return V, total / count.clamp(min=1)


def here(e, table):
    return table[torch.arange(e.mask.shape[1]), e.observations]


def whole_returns(e):
    return no_gamma(e.rewards, e.mask)[:, :1] * e.mask


def less_own_batch(e):
    returns = no_gamma(e.rewards, e.mask)[:, :1]
    return (returns - returns.mean()) * e.mask


def td_learned(e):
    return step_by_step(e.rewards, here(e, learned(e)[0]), e.mask)


def advantages(e):
    V, Q = learned(e)
    values = here(e, Q).gather(-1, e.actions[..., None])[..., 0]
    return (values - here(e, V)) * e.mask


def less_q(e):
    values = here(e, learned(e)[1]).gather(-1, e.actions[..., None])[..., 0]
    return (no_gamma(e.rewards, e.mask) - values) * e.mask


def shrunk(e):
    return 0.5 * (no_gamma(e.rewards, e.mask) - here(e, learned(e)[0])) * e.mask


def modelled(e):
    """The model's Q state by state, and the luck of later actions summed up from the end."""
    S, A = e.pi.shape
    moves, gains = {}, {}
    seen = e.earlier
    rows = zip(seen.observations.tolist(), seen.actions.tolist(), seen.rewards.tolist(), seen.mask.sum(1))
    for states, actions, rewards, length in rows:
        for t in range(int(length)):
            gains.setdefault((states[t], actions[t]), []).append(rewards[t])
            if t + 1 < e.horizon:
                after = states[t + 1] if t + 1 < length else None
                moves.setdefault((states[t], actions[t]), []).append(after)
    Q, V = torch.zeros(e.horizon, S, A).double(), torch.zeros(e.horizon + 1, S).double()
    for t in reversed(range(e.horizon)):
        for pair, found in gains.items():
            later = [0.0 if s is None else float(V[t + 1, s]) for s in moves.get(pair, [])]
            Q[t][pair] = sum(found) / len(found) + (sum(later) / len(later) if later else 0.0)
        V[t] = (e.pi * Q[t]).sum(1)
    weights, running = torch.zeros_like(e.rewards), torch.zeros(len(e.mask)).double()
    for t in reversed(range(e.mask.shape[1])):
        state = e.observations[:, t]
        value, luck = V[t, state], Q[t, state, e.actions[:, t]] - V[t, state]
        weights[:, t] = torch.where(e.mask[:, t], e.rewards[:, t] + running - value, 0.0)
        running = torch.where(e.mask[:, t], running + e.rewards[:, t] - luck, running)
    return weights


WRONG = {
    "9.1": [
        (interleaved, "the first `size` rows, then the next"),
        (summed, "an estimate averages its episodes"),
        (single_rows, "the single rows"),
        (measuring(variance=lambda x, exact: x.var(0)), "one by one"),
        (measuring(variance=lambda x, exact: x.var(0).mean()), "the mean over the parameters"),
        (measuring(variance=lambda x, exact: x.std(0).sum()), "standard deviations do not"),
        (measuring(variance=lambda x, exact: x.var(0).sum().sqrt()), "a root"),
        (measuring(variance=lambda x, exact: x.square().sum(1).mean()), "not centred"),
        (measuring(variance=lambda x, exact: (x - exact).square().sum(1).mean()), "around the exact gradient"),
        (measuring(variance=lambda x, exact: x.var(0, unbiased=False).sum()), "divide by one less"),
        (of_single_episodes, "of the single episodes"),
        (measuring(variance=lambda x, exact: torch.cov(x.T).sum()), "all entries of the covariance"),
        (measuring(share=lambda x, exact: torch.cosine_similarity(x.mean(0), exact, dim=0)), "the cosine"),
        (measuring(share=lambda x, exact: x.mean(0) @ exact), "not divided by the squared length"),
        (measuring(share=lambda x, exact: x.mean(0).norm() / exact.norm()), "the ratio of the lengths"),
        (measuring(z=error_of_one), "the deviation of one estimate"),
        (measuring(z=not_left_out), "leave it out"),
        (measuring(z=lambda x, exact: z_of(x, exact, lambda z: z.abs().mean())), "the largest is wanted"),
        (measuring(z=lambda x, exact: (x.mean(0) - exact).abs().max()), "without a standard error"),
        (centred_in_place, "gradients was changed in place"),
    ],
    "9.2": [
        (changed(drop=False), "nobody acts there"),
        (lambda world, pi, horizon: prefixes(world, pi, horizon + 1), "one step too many"),
        (lambda world, pi, horizon: prefixes(world, pi, horizon - 1), "one step too few"),
        (changed(first=1), "counted from 1"),
        (changed(chance=lambda p, choose, move: p * move), "lack pi"),
        (changed(chance=lambda p, choose, move: p * choose), "lack world.P"),
        (changed(chance=lambda p, choose, move: choose * move), "the last move alone"),
        (changed(past=lambda before, reward: reward), "the last reward alone"),
        (changed(past=lambda before, reward: before), "past stays 0"),
        (changed(start=lambda p: 1.0), "lack world.start"),
        (lambda *x: [one for one in prefixes(*x) if one[0] == x[2] - 1], "the last step"),
        (lambda *x: [one for one in prefixes(*x) if one[0]], "the first states"),
    ],
    "9.3": [
        (
            proving(scores=lambda pi, c, s, b, right: torch.eye(pi.shape[1]).to(pi).expand_as(right["scores"])),
            "pi is not subtracted",
        ),
        (proving(scores=lambda pi, c, s, b, right: torch.eye(pi.shape[1]).to(pi) - pi[s][:, :, None]), "along the row"),
        (proving(scores=lambda pi, c, s, b, right: torch.diag_embed(1 / pi[s])), "1/pi"),
        (proving(scores=lambda pi, c, s, b, right: torch.diag_embed(1 - pi[s])), "on the diagonal alone"),
        (proving(scores=lambda pi, c, s, b, right: right["grad_pi"]), "no factor pi"),
        (proving(grad_pi=lambda pi, c, s, b, right: right["scores"]), "multiply the row"),
        (proving(grad_pi=lambda pi, c, s, b, right: pi[s][:, None, :] * right["scores"]), "the columns are multiplied"),
        (proving(inner=lambda pi, c, s, b, right: right["grad_pi"].sum(1)), "0 for every prefix"),
        (
            proving(inner=lambda pi, c, s, b, right: torch.einsum("ka,kac->kc", b, right["scores"])),
            "pi(a | s) is missing",
        ),
        (
            proving(inner=lambda pi, c, s, b, right: torch.einsum("ka,kac->kc", pi[s] * b, right["grad_pi"])),
            "counts twice",
        ),
        (proving(inner=lambda pi, c, s, b, right: b[:, :, None] * right["grad_pi"]), "not added up"),
        (proving(inner=lambda pi, c, s, b, right: pi[s] * b), "only the own logit"),
        (proving(inner=lambda pi, c, s, b, right: c[:, None] * right["inner"]), "belong into the outer sum"),
        (
            proving(mean=lambda pi, c, s, b, right: torch.zeros_like(pi).index_add_(0, s, right["inner"])),
            "the chances are missing",
        ),
        (proving(mean=overwritten), "overwrite each other"),
        (proving(mean=lost_by_indices), "overwrite each other"),
        (proving(mean=lambda pi, c, s, b, right: c @ right["inner"]), "one row"),
    ],
    "9.4": [
        (no_mask, "as if mask were True everywhere"),
        (mask_at_the_end, "padding leaks in"),
        (whole_return, "total return"),
        (the_past, "this is the past"),
        (strictly_later, "the reward of step t itself is missing"),
        (from_the_start, "gamma^t stands in front"),
        (no_gamma, "gamma is ignored"),
        (gamma_too_soon, "gamma is applied to r_t too"),
        (lambda rewards, mask, gamma=1.0: rewards * mask, "these are the rewards"),
        (lambda rewards, mask, gamma=1.0: gamma * no_gamma(rewards, mask), "later rewards are discounted once"),
        (lambda rewards, mask, gamma=1.0: backwards(rewards, ~mask, gamma), "mask turned round"),
        (lambda rewards, mask, gamma=1.0: backwards(rewards, mask, gamma)[:, 0], "one number per step"),
        (lambda rewards, mask, gamma=1.0: backwards(rewards, mask, gamma).tolist(), "is a list"),
        (lambda rewards, mask, gamma: backwards(rewards, mask, gamma), "missing 1 required positional argument"),
        (without_the_last_column, "0 in the last place along steps"),
        (added_in_place, "rewards was changed in place"),
        (one_after_another, "one stream"),
        (lambda rewards, mask, gamma=1.0: (rewards * mask).flip(0).cumsum(0).flip(0) * mask, "axis 0"),
        (lambda rewards, mask, gamma=1.0: backwards(rewards.T, mask.T, gamma).T * mask, "axis 0"),
    ],
    "9.5": [
        (estimating(less_v=False), "V_t is not subtracted"),
        (estimating(choose=False), "pi is missing"),
        (estimating(move=False), "keep the chances of the first step"),
        (estimating(ahead=0), "too early"),
        (estimating(ahead=2), "too late"),
        (estimating(weight=lambda t, factor: 1.0), "the weight is factor^t"),
        (estimating(weight=lambda t, factor: factor ** (t + 1)), "counted from 0"),
        (estimating(weight=lambda t, factor: factor), "the factor once"),
        (estimating(times=1), "the first step alone"),
        (lambda world, *x: estimated(world, *x[:2], world.gamma), "gamma^t is taken"),
        (lambda *x: -estimated(*x), "sign turned"),
    ],
    "9.6": [
        (averaging(own=True), "its own value is among them"),
        (averaging(count=lambda some: len(some) + 1), "one other less"),
        (averaging(count=lambda some: 1), "not their sum"),
        (averaging(padding=True), "padding is counted"),
        (whole_batch_first, "taken out of the sum too"),
        (divided_by_zero, "not a number"),
        (along_time, "the same step"),
        (over_batches, "the episodes of one batch"),
        (lambda values, mask: (values - averaged(values, mask)) * mask, "return the baseline"),
        (lambda values, mask: averaged(values, mask).tolist(), "is a list"),
        (lambda values, mask: averaged(values, mask).mean(1), "averaged over items"),
    ],
    "9.7": [
        (fitting(weigh=lambda scores: torch.ones_like(scores[..., 0])), "the mean return"),
        (fitting(weigh=lambda scores: scores.norm(dim=-1)), "weighted by the length"),
        (fitting(weigh=lambda scores: scores.norm(dim=-1) ** 4), "fourth power"),
        (fitting(power=2), "squared returns"),
        (fitting(divide=len), "divided by the number of episodes"),
        (fitting(divide=lambda some: 1.0), "not divided by the sum"),
        (fitting(weigh=lambda scores: scores.sum(-1) ** 2), "square the entries first"),
        (both_the_batch, "the episode itself must be left out"),
        (both_the_others, "here the whole batch counts"),
        (out_of_the_numerator, "out of the denominator too"),
        (out_of_the_denominator, "out of the numerator too"),
        (subtracted_too_late, "before"),
        (one_for_all, "one constant for all batches"),
        (squared_in_place, "scores was changed in place"),
    ],
    "9.8": [
        (differing(next_one=raw_next), "padding, whatever it holds"),
        (differing(next_one=itself_at_the_end), "its own once more"),
        (differing(next_one=lambda values, mask: values.roll(-1, 1)), "followed by the first"),
        (differing(next_one=lambda values, mask: (values * mask).roll(-1, 1)), "followed by the first"),
        (differing(next_one=before), "the state before"),
        (differing(own=0.0), "V(s_t) is missing"),
        (differing(first=0.0), "V(s_{t+1}) is missing"),
        (differing(reward=0.0), "the reward is missing"),
        (lambda r, v, mask, gamma=1.0: -step_by_step(r, v, mask, gamma), "the sign is turned"),
        (lambda r, v, mask, gamma=1.0: step_by_step(r, v, mask), "gamma is ignored"),
        (lambda r, v, mask, gamma=1.0: difference(r, v, mask, gamma, own=gamma), "gamma multiplies V(s_t) too"),
        (lambda r, v, mask, gamma=1.0: difference(r, v, mask, gamma, reward=gamma), "gamma multiplies the reward too"),
        (lambda r, v, mask, gamma=1.0: (backwards(r, mask, gamma) - v) * mask, "all later steps"),
        (differing(cut=False), "numbers on padding"),
    ],
    "9.9": [
        (weighing(total="reward-to-go"), "every step gets the whole return"),
        (padding_kept, "weights on padding are not 0"),
        (weighing(average="the baseline"), "this is the baseline"),
        (weighing(average="less all"), "one average over all batches"),
        (weighing(average="return − leave-one-out"), "here the episode itself"),
        (weighing(one_out="return − average"), "left out here"),
        (weighing(best="fitted on the batch"), "that one is biased"),
        (weighing(best="return − leave-one-out"), "weighs them by their scores"),
        (weighing(go="total return"), "what follows it"),
        (weighing(go_one_out="to-go − average"), "leave the episode itself out"),
        (weighing(go_one_out="to-go − return of the others"), "their reward-to-go at this step"),
        (weighing(go_value="return − exact V"), "the reward-to-go is meant"),
        (weighing(td="to-go − exact V"), "one reward, then V"),
        (weighing(td="r − V"), "next state is missing"),
    ],
    "9.10": [
        (whole_returns, "0 of 4 points"),
        (lambda e: no_gamma(e.rewards, e.mask), "0 of 4 points"),
        (less_own_batch, "change with the other rows"),
        (td_learned, "biased"),
        (advantages, "biased"),
        (less_q, "biased"),
        (shrunk, "off by 50.0%"),
        (lambda e: no_gamma(e.rewards, e.mask) - here(e, learned(e)[0]), "weights on padding"),
        (lambda e: no_gamma(e.rewards, e.mask)[:, 0], "(B, T)"),
        (lambda e: whole_returns(e) / 0, "not a finite number"),
        (lambda e: e.values, "values"),
    ],
}
RIGHT = {
    "9.1": [by_loops, by_the_covariance, measured],
    "9.2": [by_recursion, merged],
    "9.3": [by_autograd, proven],
    "9.4": [row_by_row, by_a_matrix, lambda rewards, mask, gamma=1.0: backwards(rewards, mask, gamma)],
    "9.5": [estimated, by_an_autograd_surrogate, state_by_state],
    "9.6": [averaged, by_a_matrix_of_ones],
    "9.7": [constants, by_least_squares],
    "9.8": [step_by_step, from_the_end],
    "9.9": [weighed, by_matrices],
    "9.10": [modelled],
}
