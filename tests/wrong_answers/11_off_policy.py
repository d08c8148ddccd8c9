"""Typical wrong answers to the exercises of lesson 11, and right ones written differently."""

import math

import torch
from torch.nn.functional import cross_entropy

from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import Rollout

# 11.1 -----------------------------------------------------------------------------------------------------------------


def by_form(whole, prefix=None, step=None, kept=True):
    """A ratio from rules that take masked log-ratios (B, T); the right ones where none is given."""
    right_rules = {"step": lambda logs: logs.exp(), "prefix": lambda logs: logs.cumsum(1).exp(),
                   "trajectory": lambda logs: logs.sum(1, keepdim=True).exp()}  # fmt: skip
    rules = {"step": step, "prefix": prefix, "trajectory": whole}

    def answer(logprobs, behavior_logprobs, mask, form):
        logs = torch.where(mask, logprobs.detach() - behavior_logprobs, 0)
        result = (rules[form] or right_rules[form])(logs)
        return torch.where(mask, result, 0) if kept else result.expand(mask.shape)

    return answer


def with_padding(logprobs, behavior_logprobs, mask, form):
    logs = logprobs.detach() - behavior_logprobs
    logs = {"step": logs, "prefix": logs.cumsum(1), "trajectory": logs.sum(1, keepdim=True)}[form]
    return logs.exp() * mask


def inverted(logprobs, behavior_logprobs, mask, form):
    return by_form(None)(behavior_logprobs, logprobs.detach(), mask, form)


def step_by_step(logprobs, behavior_logprobs, mask, form):
    return by_form(None)(logprobs, behavior_logprobs, mask, "step")


def without_exp(logprobs, behavior_logprobs, mask, form):
    return torch.where(mask, by_form(None)(logprobs, behavior_logprobs, mask, form).log(), 0)


def products(logprobs, behavior_logprobs, mask, form):
    if form != "trajectory":
        return by_form(None)(logprobs, behavior_logprobs, mask, form)
    above, below = (torch.where(mask, x.detach().exp(), 1).prod(1) for x in (logprobs, behavior_logprobs))
    return (above / below)[:, None] * mask


def column(logprobs, behavior_logprobs, mask, form):
    if form != "trajectory":
        return by_form(None)(logprobs, behavior_logprobs, mask, form)
    return torch.where(mask, logprobs.detach() - behavior_logprobs, 0).sum(1, keepdim=True).exp()


def with_gradient(logprobs, behavior_logprobs, mask, form):
    logs = torch.where(mask, logprobs - behavior_logprobs, 0)
    logs = {"step": logs, "prefix": logs.cumsum(1), "trajectory": logs.sum(1, keepdim=True)}[form]
    return torch.where(mask, logs.exp(), 0)


def multiplied_away(logprobs, behavior_logprobs, mask, form):
    logs = (logprobs.detach() - behavior_logprobs) * mask
    logs = {"step": logs, "prefix": logs.cumsum(1), "trajectory": logs.sum(1, keepdim=True)}[form]
    return logs.exp() * mask


def one_row_after_another(logprobs, behavior_logprobs, mask, form):
    result = []
    for above, below, acted in zip(logprobs.tolist(), behavior_logprobs.tolist(), mask.tolist()):
        logs = [p - q if now else 0.0 for p, q, now in zip(above, below, acted)]
        parts = {"step": lambda t, x=logs: x[t], "prefix": lambda t, x=logs: sum(x[: t + 1]),
                 "trajectory": lambda t, x=logs: sum(x)}  # fmt: skip
        result.append([math.exp(parts[form](t)) if now else 0.0 for t, now in enumerate(acted)])
    return torch.tensor(result)


def without_tracking(logprobs, behavior_logprobs, mask, form):
    with torch.no_grad():
        each = (logprobs - behavior_logprobs).masked_fill(~mask, 0)
        reach = {"step": torch.eye(mask.shape[1]), "prefix": torch.ones(2 * mask.shape[1:]).triu(),
                 "trajectory": torch.ones(2 * mask.shape[1:])}[form]  # fmt: skip
        return (each @ reach.to(each)).exp().masked_fill(~mask, 0)


# 11.2 -----------------------------------------------------------------------------------------------------------------


def measured(change="", **entries):
    """Right moments, with one entry replaced by a rule(mean, size, estimates, chance, true)."""

    def answer(estimates, chance, true):
        weights = torch.full_like(chance, 1 / len(chance)) if change == "plain" else chance
        mean, size = weights @ estimates, 1 if change == "no size" else true.norm()
        spread = (weights[:, None] * (estimates - mean) ** 2).sum()
        found = {"bias": (mean - true).norm() / size, "cosine": torch.cosine_similarity(mean, true, dim=0),
                 "length": mean.norm() / size, "noise": spread.sqrt() / size}  # fmt: skip
        return found | {name: rule(mean, size, estimates, chance, true) for name, rule in entries.items()}

    return answer


def moments_by_loops(estimates, chance, true):
    mean = [sum(c * x for c, x in zip(chance.tolist(), column)) for column in estimates.T.tolist()]
    size = math.hypot(*true.tolist())
    square = sum(c * math.dist(row, mean) ** 2 for c, row in zip(chance.tolist(), estimates.tolist()))
    dot = sum(x * y for x, y in zip(mean, true.tolist()))
    return {"bias": math.dist(mean, true.tolist()) / size, "cosine": dot / size / math.hypot(*mean),
            "length": math.hypot(*mean) / size, "noise": math.sqrt(square) / size}  # fmt: skip


def moments_by_squares(estimates, chance, true):
    mean, size = (chance[:, None] * estimates).sum(0), (true**2).sum().sqrt()
    variance = (chance @ estimates**2 - mean**2).sum()
    return {"bias": ((mean - true) ** 2).sum().sqrt() / size, "cosine": (mean / mean.norm()) @ (true / size),
            "length": mean.norm() / size, "noise": variance**0.5 / size}  # fmt: skip


# 11.3 -----------------------------------------------------------------------------------------------------------------


def from_the_right(values):
    return values.flip(1).cumsum(1).flip(1)


def kept(step_ratios, mask):
    return torch.where(mask, step_ratios, 1)


def prefix_times_to_go(rewards, step_ratios, mask):
    return kept(step_ratios, mask).cumprod(1) * from_the_right(rewards * mask) * mask


def own_ratio_of_each_reward(rewards, step_ratios, mask):
    return from_the_right(step_ratios * rewards * mask) * mask


def lecture(rewards, step_ratios, mask):
    return step_ratios * from_the_right(rewards * mask) * mask


def starts_at_t(rewards, step_ratios, mask):
    result = torch.zeros_like(rewards)
    for t in range(mask.shape[1]):
        onward = kept(step_ratios, mask)[:, t:].cumprod(1)
        result[:, t] = (onward * (rewards * mask)[:, t:]).sum(1) * mask[:, t]
    return result


def one_ratio_short(rewards, step_ratios, mask):
    prefix = kept(step_ratios, mask).cumprod(1).roll(1, 1)
    prefix[:, 0] = 1
    return from_the_right(prefix * rewards * mask) * mask


def past_rewards(rewards, step_ratios, mask):
    return (kept(step_ratios, mask).cumprod(1) * rewards * mask).cumsum(1) * mask


def whole_episode(rewards, step_ratios, mask):
    return (kept(step_ratios, mask).cumprod(1) * rewards * mask).sum(1, keepdim=True) * mask


def whole_ratio(rewards, step_ratios, mask):
    return kept(step_ratios, mask).prod(1, keepdim=True) * from_the_right(rewards * mask) * mask


def padding_pays(rewards, step_ratios, mask):
    return from_the_right(step_ratios.cumprod(1) * rewards) * mask


def not_summed(rewards, step_ratios, mask):
    return kept(step_ratios, mask).cumprod(1) * rewards * mask


def without_ratios(rewards, step_ratios, mask):
    return from_the_right(rewards * mask) * mask


def prefix_of_sums(rewards, step_ratios, mask):
    return from_the_right(masked(masked(step_ratios, mask).cumsum(1) * rewards, mask)) * mask


def prefix_twice(rewards, step_ratios, mask):
    return kept(step_ratios, mask).cumprod(1) * by_triangle(rewards, step_ratios, mask)


def one_step_late(rewards, step_ratios, mask):
    right = by_triangle(rewards, step_ratios, mask)
    return torch.cat([right[:, 1:], torch.zeros_like(right[:, :1])], 1)


def averaged_to_go(rewards, step_ratios, mask):
    return by_triangle(rewards, step_ratios, mask) / mask.sum(1, keepdim=True)


def by_triangle(rewards, step_ratios, mask):
    weighted = masked(kept(step_ratios, mask).cumprod(1) * rewards, mask)
    return weighted @ torch.ones(2 * rewards.shape[1:]).to(rewards).tril() * mask


def backwards(rewards, step_ratios, mask):
    prefix, running = (step_ratios * mask).cumprod(1), torch.zeros(len(rewards), dtype=rewards.dtype)
    result = torch.zeros_like(rewards)
    for t in reversed(range(mask.shape[1])):
        running = running + prefix[:, t] * rewards[:, t]
        result[:, t] = running * mask[:, t]
    return result


def forwards(rewards, step_ratios, mask):
    """G_t = ρ_t (r_t + G_{t+1}), then the ratios of the past in front."""
    result, running = torch.zeros_like(rewards), torch.zeros(len(rewards), dtype=rewards.dtype)
    for t in reversed(range(mask.shape[1])):
        running = torch.where(mask[:, t], step_ratios[:, t] * (rewards[:, t] + running), 0)
        result[:, t] = running
    past = torch.cat([torch.ones_like(rewards[:, :1]), step_ratios.cumprod(1)[:, :-1]], 1)
    return past * result


# 11.4 -----------------------------------------------------------------------------------------------------------------


def with_entries(**entries):
    """The right forms, with some replaced by a rule of the arguments, by name."""

    def answer(step, prefix, rho, total, to_go, A_pi, A_mu, mask):
        given = {"step": step, "prefix": prefix, "rho": rho, "total": total, "to_go": to_go, "A_pi": A_pi,
                 "A_mu": A_mu, "mask": mask}  # fmt: skip
        length = mask.double().sum(1)[:, None]
        found = {
            "no_ratio": total, "trajectory": total * rho, "trajectory_to_go": to_go * rho,
            "prefix_to_go": to_go * prefix, "prefix_A_pi": A_pi * prefix, "step": total * step,
            "step_to_go": to_go * step, "step_A_mu": A_mu * step, "step_A_pi": A_pi * step,
            "geometric_mean": rho.pow(length.reciprocal()) * total,
            "cut_at_1": torch.minimum(rho, torch.ones_like(rho)) * total,
            "cut_at_5": torch.where(rho > 5, 5, rho) * total,
        }  # fmt: skip
        return found | {name: rule(**given) for name, rule in entries.items()}

    return answer


# 11.5 -----------------------------------------------------------------------------------------------------------------


def apart(change=""):
    """The distance by what is visited, forwards; or with one mistake."""

    def answer(world, pi, mu, horizon):
        above, below = (mu, pi) if change == "exchanged" else (pi, mu)
        steps = horizon + {"short": -1, "long": 1}.get(change, 0)
        kl, second = torch.zeros(()).double(), torch.zeros(()).double()
        visits = torch.full_like(world.start, 1 / len(world.start)) if change == "start" else world.start
        weighted, per_state = visits, (above * (above / below).log()).sum(1)
        going = torch.ones_like(world.start) if change == "on" else (~world.terminal).double()
        for _ in range(steps):
            visits, weighted, second = visits * going, weighted * going, second + (weighted * (1 - going)).sum()
            kl = kl + visits @ per_state
            visits = torch.einsum("s,sa,sat->t", visits, mu if change == "wrong visits" else above, world.P)
            weighted = torch.einsum("s,sa,sat->t", weighted, above**2 / below, world.P)
        second = second + weighted.sum()
        if change == "exp":
            second = kl.exp()
        if change == "one":
            second = torch.ones(()).double()
        return {"kl": -kl if change == "sign" else kl, "second": second}

    return answer


# 11.6 -----------------------------------------------------------------------------------------------------------------


def masked(values, mask):
    return torch.where(mask, values, 0)


def last_ratios(ratios, mask):
    """Of each row, (B, 1)."""
    return ratios.gather(1, mask.sum(1, keepdim=True) - 1)


def carried_on(ratios, mask):
    return torch.where(mask, ratios, last_ratios(ratios, mask))


def still_acting(ratios, mask):
    return masked(ratios / (masked(ratios, mask).sum(0) / mask.sum(0).clamp(min=1)), mask)


def still_acting_by_rows(ratios, mask):
    result = torch.zeros_like(ratios)
    for t in range(mask.shape[1]):
        acted = mask[:, t]
        if acted.any():
            result[acted, t] = ratios[acted, t] / ratios[acted, t].mean()
    return result


def ended_is_zero(ratios, mask):
    return masked(ratios / masked(ratios, mask).mean(0).clamp(min=1e-300), mask)


def ended_is_one(ratios, mask):
    return masked(ratios / torch.where(mask, ratios, 1).mean(0), mask)


def padding_averaged(ratios, mask):
    return masked(ratios / ratios.mean(0), mask)


def last_column(ratios, mask):
    return masked(ratios / ratios[:, -1].mean(), mask)


def by_the_sums(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).sum(0), mask)


def by_the_sum(ratios, mask):
    return masked(ratios / last_ratios(ratios, mask).sum(), mask)


def by_the_sum_of_those_acting(ratios, mask):
    return masked(ratios / masked(ratios, mask).sum(0).clamp(min=1e-300), mask)


def along_time(ratios, mask):
    return masked(ratios / (masked(ratios, mask).sum(1) / mask.sum(1))[:, None], mask)


def row_sums(ratios, mask):
    return masked(ratios / masked(ratios, mask).sum(1, keepdim=True), mask)


def one_mean(ratios, mask):
    return masked(ratios / ratios[mask].mean(), mask)


def first_step(ratios, mask):
    return masked(ratios / ratios[:, 0].mean(), mask)


def never_masked(ratios, mask):
    return ratios / carried_on(ratios, mask).mean(0)


def never_masked_once(ratios, mask):
    return ratios / last_ratios(ratios, mask).mean()


def carried_everywhere(ratios, mask):
    return carried_on(ratios, mask) / carried_on(ratios, mask).mean(0)


def by_the_largest(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).max(0).values, mask)


def shifted(ratios, mask):
    return masked(ratios - carried_on(ratios, mask).mean(0), mask)


def by_the_others(ratios, mask):
    others = carried_on(ratios, mask)
    return masked(ratios / ((others.sum(0) - others) / (len(ratios) - 1)), mask)


def by_one_mean(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).mean(), mask)


def by_the_median(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).quantile(0.5, dim=0), mask)


def carried_by_cummax(ratios, mask):
    last = torch.where(mask, torch.arange(mask.shape[1]), 0).cummax(1).values
    return mask * ratios / ratios.gather(1, last).mean(0, keepdim=True)


def once_per_episode(ratios, mask):
    return masked(ratios / last_ratios(ratios, mask).mean(), mask)


def step_after_step(ratios, mask):
    result, now = torch.zeros_like(ratios), torch.ones_like(ratios[:, 0])
    for t in range(mask.shape[1]):
        now = torch.where(mask[:, t], ratios[:, t], now)
        result[:, t] = mask[:, t] * now / now.mean()
    return result


def divided_by_all(ratios, mask):
    return masked(ratios / carried_on(ratios, mask).mean(0), mask)


# 11.7 -----------------------------------------------------------------------------------------------------------------


def seen(**entries):
    """The right numbers, with some replaced by a rule of the log-ratios."""

    def answer(log_ratios):
        weights = (log_ratios - log_ratios.logsumexp(0)).exp()
        found = {"ess": (weights**2).sum().reciprocal(), "forward": weights @ log_ratios,
                 "backward": -log_ratios.sum() / len(log_ratios)}  # fmt: skip
        return found | {name: rule(log_ratios) for name, rule in entries.items()}

    return answer


def scaled(log_ratios):
    return (log_ratios - log_ratios.max()).exp()


def size_of(weights):
    return weights.sum() ** 2 / (weights**2).sum()


def seen_in_plain_numbers(log_ratios):
    logs = log_ratios.tolist()
    weights = [math.exp(x - max(logs)) for x in logs]
    return {"ess": sum(weights) ** 2 / sum(w * w for w in weights),
            "forward": sum(w * x for w, x in zip(weights, logs)) / sum(weights),
            "backward": -sum(logs) / len(logs)}  # fmt: skip


# 11.8 and 11.11: right answers with one thing changed -----------------------------------------------------------------


def taken(logits, actions):
    return -cross_entropy(logits.flatten(0, 1), actions.flatten(), reduction="none").view(actions.shape)


def loss_of(logs, weights, mask, change):
    terms = -(weights * logs * (1 if change == "unmasked" else mask)).sum()
    if change == "sign":
        terms = -terms
    kept = ((weights != 0) & mask).sum()
    return terms / {"per step": mask.sum(), "summed": 1, "per kept": kept}.get(change, len(mask))


def stepping(optimizer, loss, change):
    if change != "adding":
        optimizer.zero_grad()
    loss.backward()
    if change != "no step":
        optimizer.step()


def reused(change=""):
    def answer(policy, optimizer, rollout, advantages, form, epochs):
        frozen, mask = None, rollout.mask
        count = {"one": 1, "fewer": epochs - 1, "more": epochs + 1}.get(change, epochs)
        for _ in range(count):
            logs = taken(policy(rollout.observations), rollout.actions)
            ahead = (logs.detach() - rollout.logprobs) * mask
            if change == "inverted":
                ahead = -ahead
            if change == "recomputed":
                ahead = 0 * ahead
            name = {"always step": "step", "always whole": "trajectory", "never": "no"}.get(change, form)
            if change == "always there" and form == "no":
                name = "step"
            weights = {"no": torch.ones_like(ahead), "step": ahead.exp(), "prefix": ahead.cumsum(1).exp(),
                       "trajectory": ahead.sum(1, keepdim=True).exp()}[name] * advantages  # fmt: skip
            frozen = weights if frozen is None else frozen
            stepping(optimizer, loss_of(logs, frozen if change == "frozen" else weights, mask, change), change)

    return answer


def proximal(change=""):
    def answer(policy, optimizer, rollout, advantages, epochs, epsilon, most):
        frozen, log, mask = None, [], rollout.mask
        epsilon = 0.2 if change == "epsilon" else epsilon
        for _ in range(1 if change == "one" else epochs):
            logs = taken(policy(rollout.observations), rollout.actions)
            ahead = logs.detach() - rollout.logprobs
            kl = float((ahead.exp() - 1 - ahead)[mask].mean())
            if change == "k1":
                kl = float(-ahead[mask].mean())
            if change == "kl inverted":
                kl = float(((-ahead).exp() - 1 + ahead)[mask].mean())
            if kl > most and change == "noted":
                log.append((kl, float(clipped(rho_of(ahead, mask, change), advantages, epsilon, change)[mask].eq(0)
                            .double().mean())))  # fmt: skip
            if kl > most and change not in ("on", "late"):
                break
            weights = clipped(rho_of(ahead, mask, change), advantages, epsilon, change)
            frozen = weights if frozen is None else frozen
            used = frozen if change == "frozen" else weights
            share = float((weights == 0)[mask].double().mean())
            if change == "padded share":
                share = float((weights * mask == 0).double().mean())
            stepping(optimizer, loss_of(logs, used, mask, change), change)
            if change == "after":
                ahead = taken(policy(rollout.observations), rollout.actions).detach() - rollout.logprobs
                kl = float((ahead.exp() - 1 - ahead)[mask].mean())
            log.append({"swapped": (share, kl), "unclipped": (kl, 1 - share)}.get(change, (kl, share)))
            if kl > most and change == "late":
                break
        return {"nothing": None, "count": len(log)}.get(change, log)

    return answer


def rho_of(ahead, mask, change):
    if change == "inverted":
        ahead = -ahead
    if change == "recomputed":
        ahead = 0 * ahead
    if change == "whole":
        ahead = (ahead * mask).sum(1, keepdim=True).expand(mask.shape)
    if change == "prefix":
        ahead = (ahead * mask).cumsum(1)
    return ahead.exp()


def clipped(rho, advantages, epsilon, change):
    low, high = 1 - epsilon, 1 + epsilon
    if change == "clamp":
        return rho.clamp(low, high) * advantages
    good, bad = rho > high, rho < low
    gone = torch.where(advantages > 0, good, bad)
    if change == "both":
        gone = good | bad
    if change == "turned":
        gone = torch.where(advantages > 0, bad, good)
    return rho * advantages * (~gone if change != "free" else 1)


# 11.9 -----------------------------------------------------------------------------------------------------------------


def both_sides(ratios, advantages, epsilon=0.2):
    return torch.where((ratios - 1).abs() > epsilon, 0, ratios * advantages)


def turned(ratios, advantages, epsilon=0.2):
    return torch.where(torch.where(advantages < 0, ratios > 1 + epsilon, ratios < 1 - epsilon), 0, ratios * advantages)


def upper_side_of_good(ratios, advantages, epsilon=0.2):
    return torch.where((advantages > 0) & (ratios > 1 + epsilon), 0, ratios * advantages)


def upper_side_of_all(ratios, advantages, epsilon=0.2):
    return torch.where(ratios > 1 + epsilon, 0, ratios * advantages)


def objective(ratios, advantages, epsilon=0.2):
    return torch.minimum(ratios * advantages, ratios.clamp(1 - epsilon, 1 + epsilon) * advantages)


def still_pushes(ratios, advantages, epsilon=0.2):
    return ratios.clamp(1 - epsilon, 1 + epsilon) * advantages


def unclipped(ratios, advantages, epsilon=0.2):
    return ratios * advantages


def without_ratio(ratios, advantages, epsilon=0.2):
    return torch.where(by_autograd(ratios, advantages, epsilon) == 0, 0, advantages)


def maximum(ratios, advantages, epsilon=0.2):
    gone = torch.where(advantages > 0, ratios < 1 - epsilon, ratios > 1 + epsilon)
    return torch.where(gone, 0, ratios * advantages)


def always_a_fifth(ratios, advantages, epsilon=0.2):
    return by_autograd(ratios, advantages, 0.2)


def lower_side_alone(ratios, advantages, epsilon=0.2):
    return torch.where((advantages < 0) & (ratios < 1 - epsilon), 0, ratios * advantages)


def without_advantage(ratios, advantages, epsilon=0.2):
    return torch.where(torch.where(advantages > 0, ratios > 1 + epsilon, ratios < 1 - epsilon), 0, ratios)


def of_logarithms(ratios, advantages, epsilon=0.2):
    moved = ratios.log() * advantages.sign()
    return torch.where(moved > epsilon, 0, ratios * advantages)


def by_sign(ratios, advantages, epsilon=0.2):
    return ratios * advantages * ((ratios - 1) * advantages.sign() <= epsilon)


def around_zero(ratios, advantages, epsilon=0.2):
    gone = torch.where(advantages > 0, ratios > epsilon, ratios < -epsilon)
    return torch.where(gone, 0, ratios * advantages)


def by_autograd(ratios, advantages, epsilon=0.2):
    """The gradient of the objective in log π, asked of autograd."""
    logs = ratios.log().requires_grad_()
    moving = logs.exp()
    value = torch.minimum(moving * advantages, moving.clamp(1 - epsilon, 1 + epsilon) * advantages).sum()
    return torch.autograd.grad(value, logs)[0]


def by_comparison(ratios, advantages, epsilon=0.2):
    free = ratios * advantages
    return free * (free <= ratios.clamp(1 - epsilon, 1 + epsilon) * advantages)


# 11.10 ----------------------------------------------------------------------------------------------------------------


def average(rule, where=lambda mask: mask):
    """The mean over acted steps of rule(log ρ)."""

    def answer(logprobs, behavior_logprobs, mask):
        return rule(logprobs - behavior_logprobs)[where(mask)].mean().item()

    return answer


def k3(logs):
    return logs.exp() - 1 - logs


def over_rows(logprobs, behavior_logprobs, mask):
    return (k3(logprobs - behavior_logprobs) * mask).sum().item() / len(mask)


def of_episodes(logprobs, behavior_logprobs, mask):
    return k3(((logprobs - behavior_logprobs) * mask).sum(1)).mean().item()


def row_means(logprobs, behavior_logprobs, mask):
    return ((k3(logprobs - behavior_logprobs) * mask).sum(1) / mask.sum(1)).mean().item()


def not_averaged(logprobs, behavior_logprobs, mask):
    return (k3(logprobs - behavior_logprobs) * mask).sum().item()


def over_all_places(logprobs, behavior_logprobs, mask):
    return (k3(logprobs - behavior_logprobs) * mask).mean().item()


def kl_by_loops(logprobs, behavior_logprobs, mask):
    terms = []
    for above, below, acted in zip(logprobs.tolist(), behavior_logprobs.tolist(), mask.tolist()):
        terms += [math.exp(p - q) - 1 - (p - q) for p, q, now in zip(above, below, acted) if now]
    return sum(terms) / len(terms)


# 11.12 ----------------------------------------------------------------------------------------------------------------


def setting(run, ratios, advantages, epochs=1):
    """How far a run moves a uniform policy on episodes of two steps in different states."""
    policy = TabularPolicy(2 * len(ratios), 2).double()
    states, acted = torch.arange(2 * len(ratios)).view(-1, 2), torch.ones(len(ratios), 2).bool()
    behavior = math.log(0.5) - torch.tensor(ratios).double().log()
    rollout = Rollout(states, 0 * states, 0 * behavior, behavior, acted, acted[:, 0])
    run(policy, torch.optim.SGD(policy.parameters(), lr=1.0), rollout, torch.tensor(advantages).double(), epochs)
    return policy.logits.detach()[:, 0].view(-1, 2) * 2 * len(ratios)


def by_hand(run):
    """The weights of single steps by hand, and a second epoch in which one of them is used up."""
    ratios = [[1.0, 1.1], [1.5, 1.5], [0.5, 0.5]]
    advantages = [[-1.0, 1.0], [1.0, -1.0], [1.0, -1.0]]
    expected = torch.tensor([[-1.0, 1.1], [0.0, -1.5], [0.5, 0.0]]).double()
    once, twice = (setting(run, ratios, advantages, epochs) for epochs in (1, 2))
    return torch.allclose(once, expected, atol=1e-6) and torch.allclose(twice[0, 1], once[0, 1])


def on_fresh_data(run):
    """Refuses nothing but what is wrong where every ratio is 1."""
    return torch.allclose(setting(run, [[1.0, 1.0]], [[1.0, -1.0]]), torch.tensor([[1.0, -1.0]]).double())


def fresh_and_more(run):
    once = setting(run, [[1.1, 1.0], [1.5, 1.0]], [[1.0, 1.0], [1.0, 1.0]])
    return bool(abs(once[0, 0] - 1.1) < 1e-6 and once[1, 0] == 0)


def asks_too_much(run):
    return bool(setting(run, [[1.0, 1.0]], [[1.0, -1.0]]).abs().max() > 10)


def breaks(run):
    return run(1, 2, 3)


WRONG = {
    "11.1": [
        (with_padding, "padding cut off"),
        (inverted, "inverted"),
        (step_by_step, "each step alone"),
        (by_form(lambda logs: logs.cumsum(1).exp()), "prefix's ratio"),
        (by_form(lambda logs: logs.mean(1, keepdim=True).exp()), "mean of the log-ratios"),
        (by_form(lambda logs: logs.exp().sum(1, keepdim=True)), "ratios are summed"),
        (by_form(None, lambda logs: logs.sum(1, keepdim=True).exp()), "this is the whole episode's"),
        (by_form(None, lambda logs: (logs.cumsum(1) - logs).exp()), "own action is left out"),
        (by_form(None, lambda logs: logs.flip(1).cumsum(1).flip(1).exp()), "from the step on"),
        (by_form(None, kept=False), "padding is filled"),
        (without_exp, "exp is missing"),
        (products, "zero in floating point"),
        (column, "a column (B, 1)"),
        (with_gradient, "carries a gradient"),
        (multiplied_away, "0 times infinity"),
    ],
    "11.2": [
        (measured("no size"), "not divided by the length of the true gradient"),
        (measured("plain"), "every trajectory counts the same"),
        (measured(bias=lambda m, n, x, c, t: m.norm() / n - 1), "difference of the two lengths"),
        (measured(bias=lambda m, n, x, c, t: c @ (x - t).norm(dim=1) / n), "the distance of the mean"),
        (measured(bias=lambda m, n, x, c, t: (m - t).norm() / m.norm()), "divided by the length of the mean"),
        (measured(cosine=lambda m, n, x, c, t: m @ t), "dot product"),
        (measured(cosine=lambda m, n, x, c, t: m @ t / n), "one of the two lengths"),
        (measured(length=lambda m, n, x, c, t: c @ x.norm(dim=1) / n), "lengths are averaged"),
        (measured(noise=lambda m, n, x, c, t: (c @ ((x - m) ** 2).sum(1)) / n), "this is the variance"),
        (measured(noise=lambda m, n, x, c, t: (c @ ((x - t) ** 2).sum(1)).sqrt() / n), "around the true gradient"),
        (measured(noise=lambda m, n, x, c, t: (c @ (x**2).sum(1)).sqrt() / n), "mean is not subtracted"),
        (measured(noise=lambda m, n, x, c, t: x.var(0).sum().sqrt() / n), "every trajectory counts the same"),
        (measured(noise=lambda m, n, x, c, t: (c @ (x - m) ** 2).sqrt().sum() / n), "the roots are summed"),
    ],
    "11.3": [
        (prefix_times_to_go, "prefix times reward-to-go"),
        (own_ratio_of_each_reward, "the ratio of step t' alone"),
        (lecture, "lecture's per-step form"),
        (starts_at_t, "the product starts at t"),
        (one_ratio_short, "own ratio is left out"),
        (past_rewards, "runs over the past"),
        (whole_episode, "over the whole episode at every step"),
        (whole_ratio, "each reward needs its prefix only"),
        (padding_pays, "padding pays"),
        (not_summed, "not summed"),
        (without_ratios, "as if step_ratios were 1"),
        (prefix_of_sums, "the ratios are summed up"),
        (prefix_twice, "the prefix again"),
        (one_step_late, "one place early along steps"),
        (averaged_to_go, "number of True in each row of mask"),
    ],
    "11.4": [
        (with_entries(step_A_mu=lambda step, A_pi, **_: step * A_pi), "A of π in the place of A of μ"),
        (with_entries(prefix_to_go=lambda step, to_go, **_: step * to_go), "step's ratio in the place of the prefix"),
        (with_entries(trajectory=lambda rho, to_go, **_: rho * to_go), "G_t in the place of r(τ)"),
        (with_entries(step=lambda total, **_: total), "the step's ratio is missing"),
        (with_entries(no_ratio=lambda to_go, **_: to_go), "this is the reward-to-go"),
        (with_entries(geometric_mean=lambda rho, total, **_: rho ** (1 / rho.shape[1]) * total), "number of columns"),
        (with_entries(geometric_mean=lambda rho, total, mask, **_: rho / mask.sum(1, keepdim=True) * total),
         "divided by the length"),
        (with_entries(cut_at_5=lambda rho, total, **_: rho.clamp(min=5) * total), "a maximum"),
        (with_entries(cut_at_5=lambda rho, total, **_: (rho * total).clamp(max=5)), "the product is cut"),
        (with_entries(cut_at_1=lambda rho, total, **_: rho * (rho <= 1) * total), "counts nothing"),
    ],
    "11.5": [
        (apart("exchanged"), "exchanged"),
        (apart("short"), "one step too few"),
        (apart("long"), "one step too many"),
        (apart("on"), "terminal states act on"),
        (apart("start"), "world.start"),
        (apart("sign"), "the sign is turned"),
        (apart("exp"), "its lower bound"),
        (apart("one"), "which is always 1"),
    ],
    "11.6": [
        (still_acting, "rows still acting: under π"),
        (still_acting_by_rows, "rows still acting: under π"),
        (ended_is_zero, "counts as 0"),
        (ended_is_one, "counts as 1"),
        (padding_averaged, "padding is averaged in"),
        (last_column, "mean of the last column"),
        (by_the_sums, "divided by B"),
        (by_the_sum, "divided by the sum"),
        (by_the_sum_of_those_acting, "divided by the sum over the rows still acting"),
        (along_time, "along time"),
        (row_sums, "each row is divided by its sum"),
        (one_mean, "one mean over all steps"),
        (first_step, "mean of the first step"),
        (never_masked, "padding is filled"),
        (never_masked_once, "padding is filled"),
        (carried_everywhere, "with the ratios carried on"),
        (by_the_largest, "divided by the largest"),
        (by_the_others, "the mean of the others"),
        (by_one_mean, "a mean for each step"),
        (by_the_median, "a median in the place of a mean"),
        (shifted, "mean is subtracted"),
        (lambda ratios, mask: masked(ratios, mask), "come back as they were"),
    ],
    "11.7": [
        (seen(ess=lambda x: size_of(x.exp())), "overflows"),
        (seen(ess=lambda x: size_of(scaled(x)) / len(x)), "a number of episodes"),
        (seen(ess=lambda x: scaled(x).sum() / (scaled(x) ** 2).sum()), "the sum above is squared"),
        (seen(ess=lambda x: 1 / x.softmax(0).max()), "the largest share"),
        (seen(ess=lambda x: size_of((x - x.mean()).exp())), "not the mean"),
        (seen(forward=lambda x: -(x.softmax(0) @ x)), "the sign is turned"),
        (seen(forward=lambda x: scaled(x) @ x), "not to a sum of 1"),
        (seen(forward=lambda x: scaled(x) @ x / len(x)), "divided by B"),
        (seen(forward=lambda x: x.mean()), "the mean without weights"),
        (seen(forward=lambda x: x.softmax(0) @ (x - x.max())), "largest log-ratio is missing"),
        (seen(backward=lambda x: x.mean()), "the sign is turned"),
        (seen(backward=lambda x: -(x.softmax(0) @ x)), "a weighted mean"),
        (seen(backward=lambda x: -x.sum()), "a sum"),
    ],
    "11.8": [
        (reused("frozen"), "the weights are computed once"),
        (reused("inverted"), "the ratio is inverted"),
        (reused("recomputed"), "no ratio in front"),
        (reused("always step"), "that of each step"),
        (reused("always whole"), "that of the whole episode"),
        (reused("always there"), "is the advantage alone"),
        (reused("never"), "no ratio in front"),
        (reused("per step"), "number of steps"),
        (reused("summed"), "not divided"),
        (reused("adding"), "gradients add up"),
        (reused("sign"), "sign of the loss"),
        (reused("one"), "one step only"),
        (reused("fewer"), "one step too few"),
        (reused("more"), "one step too many"),
        (reused("no step"), "no step is made"),
    ],
    "11.9": [
        (both_sides, "sign of the advantage is ignored"),
        (turned, "sign of the advantage is turned"),
        (upper_side_of_good, "only the upper side"),
        (upper_side_of_all, "whatever the sign"),
        (objective, "value of PPO's objective"),
        (still_pushes, "still pushes"),
        (unclipped, "nothing is clipped"),
        (without_ratio, "divided by ratios"),
        (always_a_fifth, "epsilon is ignored"),
        (around_zero, "compared with ε instead"),
        (lower_side_alone, "only the lower side"),
        (without_advantage, "the advantage is missing"),
        (of_logarithms, "log-ratios are compared"),
    ],
    "11.10": [
        (average(lambda x: -x), "-log ρ alone"),
        (average(lambda x: x), "sign is turned"),
        (average(lambda x: x**2 / 2), "with a bias"),
        (average(lambda x: k3(-x)), "inverted"),
        (average(lambda x: x.exp() * x), "ρ log ρ"),
        (average(lambda x: x.exp() - 1 + x), "minus"),
        (average(lambda x: x.exp() - x), "1 is missing"),
        (average(k3, torch.ones_like), "padding is averaged in"),
        (over_all_places, "all B T places"),
        (not_averaged, "a sum over steps"),
        (over_rows, "per episode"),
        (row_means, "episodes' means"),
        (of_episodes, "of whole episodes"),
    ],
    "11.11": [
        (proximal("on"), "never stops"),
        (proximal("late"), "a step late"),
        (proximal("frozen"), "the weights are computed once"),
        (proximal("recomputed"), "the ratio is always 1"),
        (proximal("inverted"), "the ratio is inverted"),
        (proximal("whole"), "that of the whole episode"),
        (proximal("prefix"), "that of the prefix"),
        (proximal("free"), "nothing is clipped"),
        (proximal("both"), "does not look at the sign"),
        (proximal("turned"), "wrong sign"),
        (proximal("clamp"), "still pushes"),
        (proximal("epsilon"), "epsilon is ignored"),
        (proximal("per step"), "number of steps"),
        (proximal("per kept"), "steps that are not clipped"),
        (proximal("summed"), "not divided"),
        (proximal("adding"), "gradients add up"),
        (proximal("sign"), "sign of the loss"),
        (proximal("one"), "one step only"),
        (proximal("k1"), "mean of -log ρ"),
        (proximal("kl inverted"), "inverted ratio"),
        (proximal("noted"), "the look that stopped"),
        (proximal("after"), "after the step"),
        (proximal("padded share"), "padding is counted"),
        (proximal("swapped"), "the KL comes first"),
        (proximal("unclipped"), "*not* clipped"),
        (proximal("nothing"), "nothing is returned"),
        (proximal("count"), "the number of steps"),
    ],
    "11.12": [
        (lambda run: True, "record another probability"),
        (on_fresh_data, "record another probability"),
        (asks_too_much, "refuses the right run"),
        (breaks, "missing"),
        ("padding", "not callable"),
    ],
}
RIGHT = {
    "11.1": [one_row_after_another, without_tracking],
    "11.2": [measured(), moments_by_loops, moments_by_squares],
    "11.3": [backwards, forwards, by_triangle],
    "11.4": [with_entries()],
    "11.5": [apart()],
    "11.6": [once_per_episode, step_after_step, divided_by_all, carried_by_cummax],
    "11.7": [seen(), seen_in_plain_numbers],
    "11.8": [reused()],
    "11.9": [by_autograd, by_comparison, by_sign],
    "11.10": [average(k3), kl_by_loops],
    "11.11": [proximal()],
    "11.12": [by_hand],
}
