"""Answers to lesson 10 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

from collections import namedtuple

import torch

from ptlearn.policy_gradient import advantage, n_step_advantage, policy_gradient_loss
from ptlearn.rl.policies import TabularCritic, TabularPolicy
from ptlearn.rollout import Rollout, action_logprobs

# 10.1


def q_alone(P, R, values, gamma):
    return (P * (R + gamma * values)).sum(-1)


def no_discount(P, R, values, gamma):
    return (P * (R + values)).sum(-1) - values[:, None]


def discounts_the_reward(P, R, values, gamma):
    return (gamma * P * (R + values)).sum(-1) - values[:, None]


def turned(P, R, values, gamma):
    return values[:, None] - q_alone(P, R, values, gamma)


def uniform_mean(P, R, values, gamma):
    q = q_alone(P, R, values, gamma)
    return q - q.mean(1, keepdim=True)


def minus_the_best(P, R, values, gamma):
    q = q_alone(P, R, values, gamma)
    return q - q.max(1, keepdim=True).values


def no_reward(P, R, values, gamma):
    return gamma * P @ values - values[:, None]


def myopic(P, R, values, gamma):
    return (P * R).sum(-1) - values[:, None]


def unweighted(P, R, values, gamma):
    return (R + gamma * values).sum(-1) - values[:, None]


def along_the_actions(P, R, values, gamma):
    return q_alone(P, R, values, gamma) - values[: P.shape[1]]


def v_inside_the_sum(P, R, values, gamma):
    return (P * (R + gamma * values) - values[:, None, None]).sum(-1)


def changes_the_rewards(P, R, values, gamma):
    R += gamma * values
    return (P * R).sum(-1) - values[:, None]


def mean_of_residuals(P, R, values, gamma):
    return torch.stack([(P[s] * (R[s] + gamma * values - values[s])).sum(-1) for s in range(len(P))])


def with_einsum(P, R, values, gamma):
    return torch.einsum("sat,sat->sa", P, R) + gamma * torch.einsum("sat,t->sa", P, values) - values.unsqueeze(1)


# 10.3


def following_values(values, mask, last_values):
    following = torch.cat([values[:, 1:], values[:, :1]], 1)
    following[torch.arange(len(mask)), mask.sum(1) - 1] = last_values
    return following


def residuals_with(last):
    """The right residuals, but for the value after the last step."""

    def answer(rewards, values, mask, final_values, terminated, gamma):
        following = following_values(values, mask, last(final_values, terminated))
        return torch.where(mask, rewards + gamma * following - values, 0)

    return answer


def residuals_by(rule):
    """The right next values, but another formula."""

    def answer(rewards, values, mask, final_values, terminated, gamma):
        following = following_values(values, mask, torch.where(terminated, 0, final_values))
        return torch.where(mask, rule(rewards, values, following, gamma), 0)

    return answer


def end_of_the_table(rewards, values, mask, final_values, terminated, gamma):
    last = torch.where(terminated, 0, final_values)
    following = torch.cat([values[:, 1:], last[:, None]], 1)
    return torch.where(mask, rewards + gamma * following - values, 0)


def end_of_the_table_with_zero(rewards, values, mask, final_values, terminated, gamma):
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    return torch.where(mask, rewards + gamma * following - values, 0)


def unmasked(rewards, values, mask, final_values, terminated, gamma):
    following = following_values(values, mask, torch.where(terminated, 0, final_values))
    return rewards + gamma * following * mask - values


def end_of_the_table_as_it_is(rewards, values, mask, final_values, terminated, gamma):
    following = torch.cat([values[:, 1:], final_values[:, None]], 1)
    return torch.where(mask, rewards + gamma * following - values, 0)


def clears_final_values(rewards, values, mask, final_values, terminated, gamma):
    final_values[terminated] = 0
    return torch.where(mask, rewards + gamma * following_values(values, mask, final_values) - values, 0)


def ends_at_every_step(rewards, values, mask, final_values, terminated, gamma):
    following = following_values(values, mask, final_values) * ~terminated[:, None]
    return torch.where(mask, rewards + gamma * following - values, 0)


def final_value_in_full(rewards, values, mask, final_values, terminated, gamma):
    following = following_values(gamma * values, mask, torch.where(terminated, 0, final_values))
    return torch.where(mask, rewards + following - values, 0)


def step_by_step(rewards, values, mask, final_values, terminated, gamma):
    result = torch.zeros_like(rewards)
    for row, length in enumerate(mask.sum(1).tolist()):
        for t in range(length):
            end = 0 if terminated[row] else final_values[row]
            after = values[row, t + 1] if t + 1 < length else end
            result[row, t] = rewards[row, t] + gamma * after - values[row, t]
    return result


def residuals_backwards(rewards, values, mask, final_values, terminated, gamma):
    following, columns = final_values * ~terminated, []
    for reward, value, acted in zip(rewards.T.flip(0), values.T.flip(0), mask.T.flip(0)):
        columns.append((reward + gamma * following - value) * acted)
        following = torch.where(acted, value, following)
    return torch.stack(columns[::-1], 1)


def as_one_step(rewards, values, mask, final_values, terminated, gamma):
    return n_step_advantage(rewards, values, mask, final_values * ~terminated, n=1, gamma=gamma)


# 10.5


def sums_and_counts(observations, targets, mask, states):
    seen = observations[mask]
    sums = torch.zeros(states, dtype=targets.dtype).index_add(0, seen, targets[mask])
    return sums, torch.bincount(seen, minlength=states)


def fits_padding(observations, targets, mask, states):
    sums, counts = sums_and_counts(observations, targets, torch.ones_like(mask), states)
    return sums / counts.clamp(min=1)


def sums_alone(observations, targets, mask, states):
    return sums_and_counts(observations, targets, mask, states)[0]


def over_all_steps(observations, targets, mask, states):
    return sums_alone(observations, targets, mask, states) / mask.sum()


def over_episodes(observations, targets, mask, states):
    return sums_alone(observations, targets, mask, states) / len(mask)


def not_a_number(observations, targets, mask, states):
    sums, counts = sums_and_counts(observations, targets, mask, states)
    return sums / counts


def last_visit(observations, targets, mask, states):
    table = torch.zeros(states, dtype=targets.dtype)
    for state, target in zip(observations[mask].tolist(), targets[mask]):
        table[state] = target
    return table


def first_visits(observations, targets, mask, states):
    first = mask.clone()
    for row in range(len(mask)):
        for t in range(mask.shape[1]):
            first[row, t] &= bool((observations[row, :t] != observations[row, t]).all())
    return right_by_a_loop(observations, targets, first, states)


def largest(observations, targets, mask, states):
    table = torch.zeros(states, dtype=targets.dtype)
    return table.index_reduce(0, observations[mask], targets[mask], "amax", include_self=False)


def mean_of_all(observations, targets, mask, states):
    sums, counts = sums_and_counts(observations, targets, mask, states)
    return torch.where(counts > 0, sums / counts, targets[mask].mean())


def size_from_the_data(observations, targets, mask, states):
    return fits_padding(observations, targets, mask, int(observations.max()) + 1)


def counts_padding(observations, targets, mask, states):
    counts = torch.bincount(observations.flatten(), minlength=states)
    return sums_alone(observations, targets, mask, states) / counts.clamp(min=1)


def repeated_indices(observations, targets, mask, states):
    table = torch.zeros(states, dtype=targets.dtype)
    table[observations[mask]] += targets[mask]
    return table / torch.bincount(observations[mask], minlength=states).clamp(min=1)


def halfway(observations, targets, mask, states):
    table = torch.zeros(states, dtype=targets.dtype)
    for state, target in zip(observations[mask].tolist(), targets[mask]):
        table[state] = (table[state] + target) / 2
    return table


def clears_targets(observations, targets, mask, states):
    targets[~mask] = 0
    return right_by_a_loop(observations, targets, mask, states)


def with_one_hot(observations, targets, mask, states):
    visits = torch.nn.functional.one_hot(observations, states).to(targets) * mask[..., None]
    return torch.einsum("bts,bt->s", visits, targets) / visits.sum((0, 1)).clamp(min=1)


def right_by_a_loop(observations, targets, mask, states):
    found = [targets[mask & (observations == state)] for state in range(states)]
    return torch.stack([some.mean() if len(some) else torch.tensor(0.0) for some in found])


def by_least_squares(observations, targets, mask, states):
    examples = torch.nn.functional.one_hot(observations[mask], states).to(targets.dtype)
    return torch.linalg.pinv(examples) @ targets[mask]


# 10.4


def recursion(keep, carried=lambda residual, running, factor: residual + factor * running, padding=True):
    """A backward recursion with `keep(gamma, lam)` as its factor."""

    def answer(residuals, mask, gamma, lam):
        result, running = torch.zeros_like(residuals), torch.zeros_like(residuals[:, 0])
        for t in reversed(range(residuals.shape[1])):
            running = carried(residuals[:, t], running, keep(gamma, lam))
            running = running * mask[:, t] if padding else running
            result[:, t] = running
        return result

    return answer


right_recursion = recursion(lambda gamma, lam: gamma * lam)
never_masked = recursion(lambda gamma, lam: gamma * lam, padding=False)


def masked_late(residuals, mask, gamma, lam):
    return never_masked(residuals, mask, gamma, lam) * mask


def nothing_carried(residuals, mask, gamma, lam):
    return residuals * mask


def over_the_past(residuals, mask, gamma, lam):
    return right_recursion(residuals.flip(1), mask.flip(1), gamma, lam).flip(1)


def mixture_weight(residuals, mask, gamma, lam):
    return (1 - lam) * right_recursion(residuals, mask, gamma, lam)


def in_one_stream(residuals, mask, gamma, lam):
    result, running = torch.zeros_like(residuals), 0.0
    for row in reversed(range(len(mask))):
        for t in reversed(range(mask.shape[1])):
            if mask[row, t]:
                running = residuals[row, t] + gamma * lam * running
                result[row, t] = running
    return result


def carried_once(residuals, mask, gamma, lam):
    kept = residuals * mask
    later = kept.flip(1).cumsum(1).flip(1) - kept
    return (kept + gamma * lam * later) * mask


def next_one_only(residuals, mask, gamma, lam):
    kept = residuals * mask
    return (kept + gamma * lam * torch.cat([kept[:, 1:], torch.zeros_like(kept[:, :1])], 1)) * mask


def added_in_place(residuals, mask, gamma, lam):
    for t in reversed(range(residuals.shape[1] - 1)):
        residuals[:, t] += gamma * lam * residuals[:, t + 1] * mask[:, t + 1]
    return residuals * mask


def by_recursion(residuals, mask, gamma, lam, t=0):
    if t == residuals.shape[1]:
        return torch.zeros(len(mask), 0)
    rest = by_recursion(residuals, mask, gamma, lam, t + 1)
    carried = rest[:, 0] if rest.shape[1] else torch.zeros(len(mask))
    return torch.cat([torch.where(mask[:, t], residuals[:, t] + gamma * lam * carried, 0)[:, None], rest], 1)


def with_a_matrix(residuals, mask, gamma, lam):
    steps = torch.arange(residuals.shape[1])
    ahead = steps[None] - steps[:, None]
    powers = torch.where(ahead >= 0, torch.tensor(gamma * lam) ** ahead.clamp(min=0), 0)
    return (residuals * mask) @ powers.T * mask


# 10.2


def restarted(change=""):
    """Restart rollouts one after the other, or with one mistake."""

    def answer(world, pi, states, actions, horizon, generator):
        def draw(chances):
            return int(torch.multinomial(chances, 1, generator=generator))

        returns, steps = torch.zeros(len(states)).double(), torch.zeros(len(states), dtype=torch.long)
        limit = horizon + (change == "longer") - (change == "shorter")
        for row, (s, a) in enumerate(zip(states.tolist(), actions.tolist())):
            a, first, t = draw(pi[s]) if change == "own action" else a, a, 0
            while t < limit and not world.terminal[s]:
                after = int(world.P[s, a].argmax()) if change == "likeliest" else draw(world.P[s, a])
                factor = {"no gamma": 1.0, "late": world.gamma ** (t + 1)}.get(change, world.gamma**t)
                reward = factor * world.R[s, a, after]
                returns[row] = reward if change == "last" else returns[row] + reward
                s, t = after, t + 1
                a = first if change == "kept" else int(pi[s].argmax()) if change == "greedy" else draw(pi[s])
            steps[row] = {"from 0": t - 1, "horizon": horizon}.get(change, t)
        return returns, steps.max().expand(len(steps)) if change == "longest" else steps

    return answer


def restart_in_place(world, pi, states, actions, horizon, generator):
    found = restarted()(world, pi, states, actions, horizon, generator)
    states[:] = 4
    return found


def restart_among_the_acting(world, pi, states, actions, horizon, generator):
    """Only those that still act are moved."""
    states, actions = states.clone(), actions.clone()
    returns, steps = torch.zeros(len(states)).double(), torch.zeros(len(states), dtype=torch.long)
    rows = torch.arange(len(states))
    for t in range(horizon):
        after = torch.multinomial(world.P[states[rows], actions[rows]], 1, generator=generator)[:, 0]
        returns[rows] += world.gamma**t * world.R[states[rows], actions[rows], after]
        steps[rows] += 1
        states[rows] = after
        rows = rows[~world.terminal[after]]
        if not len(rows):
            break
        actions[rows] = torch.multinomial(pi[states[rows]], 1, generator=generator)[:, 0]
    return returns, steps


# 10.6


def evaluated(change=""):
    """Sweeps in lists, or with one mistake."""

    def answer(batch, final, states, gamma, lam, sweeps):
        table = torch.zeros(states).double()
        sweeps = {"once": 1, "shorter": sweeps - 1, "longer": sweeps + 1}.get(change, sweeps)
        lam = {"td": 0.0, "returns": 1.0}.get(change, lam)
        for _ in range(sweeps):
            now = table[batch.observations]
            ends = {"through": torch.zeros_like, "all over": torch.ones_like, "turned": torch.logical_not}
            over = ends.get(change, lambda x: x)(batch.terminated)
            bootstrap = torch.where(over, 0, table[final])
            found = advantage(batch.rewards, now, batch.mask, bootstrap, gamma=gamma, lam=lam)
            labels = found if change == "advantages" else found + now
            kept = torch.ones_like(batch.mask) if change == "padding" else batch.mask
            fresh = torch.zeros_like(table)
            for state in range(states):
                seen = labels[kept & (batch.observations == state)]
                fresh[state] = seen.mean() if len(seen) else 0.0
            table = table + fresh if change == "added" else fresh
        return table

    return answer


def evaluated_step_by_step(batch, final, states, gamma, lam, sweeps):
    """Plain Python: labels from the last step of each episode backwards."""
    table = [0.0] * states
    for _ in range(sweeps):
        seen = {}
        for b in range(len(batch.mask)):
            after = 0.0 if batch.terminated[b] else table[int(final[b])]
            carried = 0.0
            for t in reversed(range(int(batch.mask[b].sum()))):
                s = int(batch.observations[b, t])
                carried = float(batch.rewards[b, t]) + gamma * after - table[s] + gamma * lam * carried
                seen.setdefault(s, []).append(table[s] + carried)
                after = table[s]
        table = [sum(seen[s]) / len(seen[s]) if s in seen else 0.0 for s in range(states)]
    return torch.tensor(table).double()


# 10.7


def weighted_ahead(change=""):
    """The sum over steps ahead from the last one back, or with one mistake."""

    def answer(P, pi, residuals, factors):
        chooses = torch.full_like(pi, 1 / pi.shape[1]) if change == "uniform" else pi
        if change == "greedy":
            chooses = (pi == pi.max(1, keepdim=True).values).double()
        moves = (chooses[..., None] * P).sum(1)
        ahead = residuals.sum(1) if change == "sum" else (chooses * residuals).sum(1)
        total = torch.zeros_like(residuals) if change == "own" else factors[0] * residuals
        factors = [1.0] * len(factors) if change == "no factors" else factors
        total = residuals.clone() if change == "no factors" else total
        later = factors[:-1] if change == "late" else factors[1:2] if change == "next" else factors[1:]
        for factor in [] if change == "alone" else later:
            there = (pi[..., None] * P).sum(1)[:, None] if change == "forgotten" else P
            total = total + factor * there @ ahead
            ahead = ahead if change == "still" else moves @ ahead
        return total

    return answer


def by_matrix_powers(P, pi, residuals, factors):
    moves, average = torch.einsum("sa,sat->st", pi, P), torch.einsum("sa,sa->s", pi, residuals)
    powers = [torch.matrix_power(moves, step) for step in range(len(factors))]
    later = sum((factor * powers[k] @ average for k, factor in enumerate(factors[1:])), torch.zeros_like(average))
    return factors[0] * residuals + torch.einsum("sat,t->sa", P, later)


# 10.8


def cut(change=""):
    """The mean estimate by n-step values from the end, or with one mistake."""

    def answer(world, pi, values, horizon):
        fitted = values.clone() if change == "end" else torch.where(world.terminal, 0, values)
        delta = (world.P * (world.R + world.gamma * fitted)).sum(-1) - fitted[:, None]
        moves, reached = torch.einsum("sa,sat->st", pi, world.P), world.start
        mean = torch.zeros_like(pi)
        for t in range(1 if change == "first" else horizon):
            left = {"all": horizon, "one": 1, "grows": t + 1, "more": horizon - t + 1}.get(change, horizon - t)
            factor = 1.0 if change == "factors" else world.gamma
            weights = weighted_ahead()(world.P, pi, delta, [factor**k for k in range(left)])
            if change != "centre":
                weights = weights - (pi * weights).sum(1, keepdim=True)
            often = reached * (1.0 if change == "discount" else world.gamma**t)
            mean = mean + often[:, None] * weights * (1.0 if change == "pi" else pi)
            reached = reached if change == "still" else reached @ moves
        return mean

    return answer


def cut_by_autograd(world, pi, values, horizon):
    """n-step action values backwards, then the gradient of what is collected, by the logits."""
    after = torch.where(world.terminal, 0, values)
    stages = []
    for _ in range(horizon):
        q = (world.P * (world.R + world.gamma * after)).sum(-1)
        stages.insert(0, q)
        after = (pi * q).sum(1)
    logits = pi.log().requires_grad_()
    reached, total = world.start, 0.0
    for t, q in enumerate(stages):
        total = total + world.gamma**t * (reached[:, None] * logits.softmax(-1) * q).sum()
        reached = torch.einsum("s,sa,sat->t", reached, pi, world.P)
    return torch.autograd.grad(total, logits)[0]


# 10.9


def learned(change=""):
    """The loop with torch's own pieces, or with one mistake."""

    def answer(policy, critic, sample, updates, lr, critic_lr, gamma, lam, watch, fits=1):
        made = torch.optim.SGD if change == "sgd" else torch.optim.Adam
        rates = lr, lr if change == "one rate" else critic_lr
        rates = dict(zip((policy, critic), rates))
        optimizers = {model: made(model.parameters(), lr=rate) for model, rate in rates.items()}

        def step(model, loss):
            if change != "adding":
                optimizers[model].zero_grad()
            loss.backward()
            optimizers[model].step()

        def judge(batch, final):
            over = {"through": torch.zeros_like, "all over": torch.ones_like}.get(change, lambda x: x)
            values, after = critic(batch.observations), critic(final[:, None])[:, 0]
            following = torch.where(over(batch.terminated), 0, after)
            weights, running = torch.zeros_like(values), torch.zeros_like(after)
            factor = {"lam 1": 1.0, "lam 0": 0.0}.get(change, lam)
            discount = 1.0 if change == "no gamma" else gamma
            columns = []
            for t in reversed(range(values.shape[1])):
                acted = batch.mask[:, t]
                residual = batch.rewards[:, t] + discount * following - values[:, t]
                running = torch.where(acted, residual + discount * factor * running, running)
                following = torch.where(acted, values[:, t], following)
                columns.insert(0, torch.where(acted, running, 0))
            weights = torch.stack(columns, 1)
            return weights, {"values": values, "weights": weights}.get(change, values + weights)

        def fit(batch, final, labels):
            for _ in range(1 if change == "one fit" else fits):
                if change == "moving":
                    labels = judge(batch, final)[1].detach()
                kept = torch.ones_like(batch.mask) if change == "critic padding" else batch.mask
                errors = critic(batch.observations)[kept] - labels[kept]
                step(critic, 0.5 * (errors**2).mean())

        batch, final, update = None, None, 0
        while update < updates:
            update += 1
            if change == "renewed":
                optimizers = {model: made(model.parameters(), lr=rate) for model, rate in rates.items()}
            batch, final = (batch, final) if change == "stale" and batch else sample(policy)
            if change == "early":
                fit(batch, final, judge(batch, final)[1].detach())
            weights, labels = judge(batch, final)
            labels = batch.rewards if change == "rewards" else labels if change == "leak" else labels.detach()
            weights = weights.detach()
            if change == "no baseline":
                weights = labels
            if change == "own rewards":
                weights = batch.rewards
            logs = torch.distributions.Categorical(logits=policy(batch.observations)).log_prob(batch.actions)
            terms = (weights * logs)[batch.mask]
            loss = -terms.sum() / (len(terms) if change == "per step" else len(weights))
            step(policy, -loss if change == "sign" else loss)
            if change not in ("early", "unfitted"):
                fit(batch, final, labels)
            if change != "unwatched" and watch(policy, critic) and change != "on":
                break
        return None if change == "nothing" else update - (change == "from 0")

    return answer


def everything_attached(policy, critic, sample, updates, lr, critic_lr, gamma, lam, watch, fits=1):
    adams = [torch.optim.Adam(model.parameters(), lr=rate) for model, rate in ((policy, lr), (critic, critic_lr))]
    for update in range(1, updates + 1):
        batch, final = sample(policy)
        values = critic(batch.observations)
        after = torch.where(batch.terminated, 0, critic(final[:, None])[:, 0])
        following = torch.cat([values[:, 1:], after[:, None]], 1)
        following[torch.arange(len(values)), batch.mask.sum(1) - 1] = after
        weights = batch.rewards + gamma * following - values
        logs = policy(batch.observations).log_softmax(-1).gather(-1, batch.actions[..., None])[..., 0]
        losses = -(weights * logs)[batch.mask].sum() / len(values), (weights[batch.mask] ** 2).mean()
        for adam, loss in zip(adams, losses):
            adam.zero_grad()
            loss.backward()
            adam.step()
        if watch(policy, critic):
            return update
    return updates


def with_the_package(policy, critic, sample, updates, lr, critic_lr, gamma, lam, watch, fits=1):
    """One list of what was evaluated; the losses in one line each."""
    actor, judge = torch.optim.Adam(policy.parameters(), lr), torch.optim.Adam(critic.parameters(), critic_lr)
    done = 0
    for _ in range(updates):
        batch, final = sample(policy)
        now = critic(batch.observations).detach()
        last = critic(final[:, None]).detach().squeeze(1) * ~batch.terminated
        weights = advantage(batch.rewards, now, batch.mask, last, gamma=gamma, lam=lam)
        loss = policy_gradient_loss(action_logprobs(policy, batch), weights, batch.mask)
        actor.zero_grad(), loss.backward(), actor.step()
        for _ in range(fits):
            loss = torch.nn.functional.mse_loss(critic(batch.observations)[batch.mask], (now + weights)[batch.mask]) / 2
            judge.zero_grad(), loss.backward(), judge.step()
        done += 1
        if watch(policy, critic):
            break
    return done


# 10.10

Batch = namedtuple("Batch", "observations actions rewards mask terminated")


def played(change=""):
    """A list of steps for each environment, padded at the end; or with one mistake."""

    def answer(environments, policy, horizon, generator):
        seed = None if change == "unseeded" else int(torch.randint(2**31, (), generator=generator))
        first = torch.as_tensor(environments.reset(seed=seed)[0])
        now, rows = first, [[] for _ in first]
        acting, terminated, final = [True] * len(now), [False] * len(now), list(now)
        steps, acted = 0, list(acting)
        limit = horizon + (change == "longer")
        while steps < limit and (any(acting) or change == "to the horizon"):
            chances = policy(now[:, None])[:, 0].softmax(-1).detach()
            actions = torch.multinomial(chances, 1, generator=generator)[:, 0]
            if change == "greedy":
                actions = chances.argmax(-1)
            after, rewards, over, cut, _ = environments.step(actions.numpy())
            after, steps = torch.as_tensor(after), steps + 1
            late, acted = acted, list(acting)
            for b in range(len(now)):
                seen = after[b] if change == "after" else now[b]
                ended = bool(over[b] or cut[b])
                if change == "lost":
                    acting[b] = acting[b] and not ended
                if acting[b] or change == "on" or (change == "one more" and late[b]):
                    rows[b].append((seen, actions[b], float(rewards[b])))
                if acting[b] or change == "final at the end":
                    final[b] = now[b] if change == "final before" else after[b]
                if change == "flags kept":
                    terminated[b] = bool(over[b])
                elif acting[b] or change == "lost":
                    flag = ended if change == "limit" else cut[b] if change == "turned" else over[b]
                    terminated[b] = bool(flag) or (change == "lost" and terminated[b])
                acting[b] = acting[b] and not ended
            now = after
        longest = max(map(len, rows))
        mask = torch.tensor([[t < len(row) for t in range(longest)] for row in rows])
        blank = (torch.zeros_like(first[0]), torch.tensor(0), 0.0)
        columns = zip(*([*row, *[blank] * (longest - len(row))] for row in rows))
        fields = [[list(part) for part in zip(*column)] for column in columns]
        observations = torch.stack([torch.stack(column[0]) for column in fields], 1)
        actions = torch.stack([torch.stack(column[1]) for column in fields], 1)
        rewards = torch.tensor([column[2] for column in fields]).T
        final = first if change == "final at the start" else torch.stack(final)
        return Batch(observations, actions, rewards, mask, torch.tensor(terminated)), final

    return answer


def played_and_cut(environments, policy, horizon, generator):
    """Everything is noted, and the lengths are found afterwards."""
    seed = torch.randint(2**31, (), generator=generator).item()
    seen, done = [torch.as_tensor(environments.reset(seed=seed)[0])], []
    taken, paid, ended = [], [], torch.zeros(len(seen[0]), dtype=torch.bool)
    while len(done) < horizon and not ended.all():
        with torch.no_grad():
            logits = policy(seen[-1].unsqueeze(1)).squeeze(1)
        taken.append(torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1))
        after, rewards, over, cut, _ = environments.step(taken[-1].numpy())
        seen.append(torch.as_tensor(after))
        paid.append(torch.as_tensor(rewards))
        done.append((torch.as_tensor(over), torch.as_tensor(cut)))
        ended = ended | done[-1][0] | done[-1][1]
    over, cut = (torch.stack(column, 1) for column in zip(*done))
    before = (over | cut).long().cumsum(1) - (over | cut).long()
    mask = before == 0
    rows, lengths = torch.arange(len(mask)), mask.sum(1)
    batch = Batch(torch.stack(seen[:-1], 1), torch.stack(taken, 1), torch.stack(paid, 1), mask, over[rows, lengths - 1])
    return batch, torch.stack(seen, 1)[rows, lengths]


# 10.11


def setting(run, mask=True):
    """What one update does to random tables, and what it may read."""
    policy, critic, source = TabularPolicy(5, 3).double(), TabularCritic(5).double(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(5, 3, generator=source))
        critic.values.copy_(torch.randn(5, generator=source))
    V, pi = critic.values.detach().clone(), policy.logits.detach().softmax(-1)
    before = policy.logits.detach().clone()
    states, actions = torch.tensor([[0, 1, 2], [1, 0, 0], [2, 3, 1]]), torch.tensor([[0, 1, 2], [1, 0, 0], [2, 2, 0]])
    acted = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    rewards = torch.tensor([[0.0, 0.5, 1.0], [-1.0, 0.0, 0.0], [0.2, 0.1, 0.0]]).double() * acted
    ends, final = torch.tensor([True, True, False]), torch.tensor([4, 4, 0])
    batch = Rollout(states, actions, rewards, 0 * rewards, acted, ends)
    run(policy, critic, batch, final, 0.5, 0.25, 0.9, 0.8)
    return policy.logits.detach() - before, critic.values.detach() - V, V, pi, batch, final


def row_by_row(run):
    """Both tables, in plain loops."""
    moved, learned_, V, pi, batch, final = setting(run)
    actor, critic, count = torch.zeros_like(pi), torch.zeros_like(V), int(batch.mask.sum())
    for b in range(3):
        running, after = 0.0, 0.0 if batch.terminated[b] else V[final[b]]
        for t in reversed(range(int(batch.mask[b].sum()))):
            s, a = int(batch.observations[b, t]), int(batch.actions[b, t])
            running = batch.rewards[b, t] + 0.9 * after - V[s] + 0.9 * 0.8 * running
            after = V[s]
            actor[s] -= 0.5 * running * pi[s] / 3
            actor[s, a] += 0.5 * running / 3
            critic[s] += 0.25 * running / count
    assert torch.allclose(moved, actor)
    return torch.allclose(learned_, critic)


def fact_by_fact(run):
    """Facts that a right run has, one for each bug: compared with the definition by the package's recursion."""
    moved, learned_, V, pi, batch, final = setting(run)
    last = torch.where(batch.terminated, 0, V[final])
    weights = advantage(batch.rewards, V[batch.observations], batch.mask, last, gamma=0.9, lam=0.8)
    counted = torch.zeros_like(V).index_add(0, batch.observations[batch.mask], weights[batch.mask])
    taken = torch.zeros_like(pi)
    for s, a, w in zip(batch.observations[batch.mask], batch.actions[batch.mask], weights[batch.mask]):
        taken[s, a] += w
    return bool(
        (learned_ - 0.25 * counted / 6).abs().max() < 1e-9
        and (moved - 0.5 * (taken - taken.sum(1, keepdim=True) * pi) / 3).abs().max() < 1e-9
    )


def critic_moves(run):
    """Refuses the frozen critic alone."""
    return bool(setting(run)[1].abs().max() > 0)


def asks_too_much(run):
    return bool(setting(run)[0].abs().max() > 10)


def breaks(run):
    return run(1, 2, 3)


WRONG = {
    "10.1": [
        (q_alone, "this is Q"),
        (no_discount, "as if gamma were 1"),
        (discounts_the_reward, "multiplies the reward too"),
        (turned, "sign is turned"),
        (uniform_mean, "uniform policy"),
        (minus_the_best, "best action's Q"),
        (no_reward, "as if R were 0"),
        (myopic, "as if gamma were 0"),
        (unweighted, "without their probabilities"),
        (along_the_actions, "along the actions"),
        (v_inside_the_sum, "for every next state"),
        (changes_the_rewards, "R was changed in place"),
        (lambda P, R, values, gamma: q_alone(P, R, values, gamma) + values[:, None], "V(s) is added"),
        (lambda P, R, values, gamma: q_alone(P, R, values, gamma) - gamma * values[:, None], "discounted too"),
        (lambda P, R, values, gamma: R.sum(-1) + gamma * P @ values - values[:, None], "rewards are added up without"),
        (lambda P, R, values, gamma: with_einsum(P, R, values, gamma**2), "gamma squared"),
    ],
    "10.2": [
        (restarted("own action"), "the action that is given is not taken"),
        (restarted("kept"), "taken at every step"),
        (restarted("longer"), "one step too many: `horizon`"),
        (restarted("shorter"), "one step too few: `horizon`"),
        (restarted("no gamma"), "nothing is discounted"),
        (restarted("late"), "from the first step on"),
        (restarted("last"), "the last reward alone"),
        (restarted("from 0"), "the first step is not counted"),
        (restarted("horizon"), "steps after the end are counted"),
        (restarted("longest"), "the longest rollout's steps"),
        (restarted("likeliest"), "the world chooses"),
        (restarted("greedy"), "do not come from pi"),
        (restart_in_place, "changed in place"),
    ],
    "10.3": [
        (residuals_with(lambda final, terminated: final), "a terminated episode goes on"),
        (residuals_with(lambda final, terminated: torch.zeros_like(final)), "as if final_values were 0"),
        (residuals_with(lambda final, terminated: torch.where(terminated, final, 0)), "with terminated turned round"),
        (end_of_the_table, "taken from its padding"),
        (end_of_the_table_with_zero, "final_values are not used"),
        (residuals_by(lambda r, now, then, gamma: r + then - now), "as if gamma were 1"),
        (residuals_by(lambda r, now, then, gamma: gamma * (r + then) - now), "multiplies the reward too"),
        (residuals_by(lambda r, now, then, gamma: r + gamma * then + now), "V(s) is added"),
        (residuals_by(lambda r, now, then, gamma: now - r - gamma * then), "sign is turned"),
        (residuals_by(lambda r, now, then, gamma: r + gamma * then), "V(s) is missing"),
        (unmasked, "padding has residuals"),
        (end_of_the_table_as_it_is, "terminated is not used"),
        (clears_final_values, "final_values was changed in place"),
        (ends_at_every_step, "no next value at any step"),
        (final_value_in_full, "final_values are not discounted"),
        (residuals_by(lambda r, now, then, gamma: r + gamma * now - then), "the values are exchanged"),
        (residuals_by(lambda r, now, then, gamma: gamma * then - now), "as if rewards were 0"),
        (lambda *given: as_one_step(*given).tolist(), "is a list"),
    ],
    "10.4": [
        (recursion(lambda gamma, lam: lam), "gamma is missing"),
        (recursion(lambda gamma, lam: gamma), "lam is missing"),
        (recursion(lambda gamma, lam: gamma + lam), "are added"),
        (nothing_carried, "nothing is carried"),
        (masked_late, "residuals in the padding"),
        (never_masked, "as if mask were True everywhere"),
        (over_the_past, "over the past"),
        (mixture_weight, "1 - lam"),
        (in_one_stream, "one stream"),
        (carried_once, "count gamma lam once"),
        (next_one_only, "only the next residual"),
        (added_in_place, "residuals was changed in place"),
        (lambda rows, mask, gamma, lam: gamma * lam * right_recursion(rows, mask, gamma, lam), "times gamma times lam"),
        (lambda residuals, mask, gamma, lam: right_recursion(residuals, mask, gamma, 1 - lam), "for 1 - lam"),
        (lambda residuals, mask, gamma, lam: right_recursion(residuals, ~mask, gamma, lam), "mask turned round"),
        (lambda residuals, mask, gamma, lam: right_recursion(residuals, mask, gamma, lam)[:, 0], "first of steps"),
    ],
    "10.5": [
        (fits_padding, "as if mask were True everywhere"),
        (sums_alone, "sums, not means"),
        (over_all_steps, "divided by all steps"),
        (over_episodes, "number of episodes"),
        (not_a_number, "not NaN"),
        (last_visit, "last visit"),
        (first_visits, "first visit"),
        (largest, "largest target"),
        (mean_of_all, "mean of all targets"),
        (size_from_the_data, "expected a tensor of floats of shape (states,)"),
        (counts_padding, "visits on padding are counted"),
        (repeated_indices, "use index_add"),
        (halfway, "running average"),
        (clears_targets, "targets was changed in place"),
        (lambda o, y, mask, states: right_by_a_loop(o, y, mask & (o != 0), states), "in the first place along states"),
        (lambda o, y, mask, states: right_by_a_loop(o, y, ~mask, states), "with mask turned round"),
    ],
    "10.6": [
        (evaluated("td"), "the labels are V plus one residual"),
        (evaluated("returns"), "the labels are returns"),
        (evaluated("once"), "one sweep: the labels move"),
        (evaluated("shorter"), "one sweep too few"),
        (evaluated("longer"), "one sweep too many"),
        (evaluated("advantages"), "fitted to the advantages"),
        (evaluated("through"), "V after a terminated episode counts"),
        (evaluated("all over"), "cut off are treated as over"),
        (evaluated("turned"), "the flag is turned"),
        (evaluated("padding"), "padding is fitted"),
        (evaluated("added"), "added to itself"),
    ],
    "10.7": [
        (weighted_ahead("own"), "the residual at t itself is missing"),
        (weighted_ahead("alone"), "the residual at t alone"),
        (weighted_ahead("next"), "only the next step"),
        (weighted_ahead("still"), "does not move on"),
        (weighted_ahead("late"), "one place off"),
        (weighted_ahead("uniform"), "a plain one"),
        (weighted_ahead("sum"), "summed over actions without pi"),
        (weighted_ahead("greedy"), "the most likely action alone"),
        (weighted_ahead("forgotten"), "the first action is forgotten"),
        (weighted_ahead("no factors"), "the factors are not used"),
    ],
    "10.8": [
        (cut("end"), "the values of terminal states count"),
        (cut("all"), "every step has `horizon` residuals"),
        (cut("one"), "one residual at every step"),
        (cut("grows"), "the number of residuals grows"),
        (cut("more"), "one residual too many"),
        (cut("discount"), "gamma^t is missing"),
        (cut("factors"), "the factors are 1"),
        (cut("centre"), "not subtracted"),
        (cut("pi"), "pi(a|s) is missing"),
        (cut("still"), "the agent never moves"),
        (cut("first"), "the first step alone"),
    ],
    "10.9": [
        (learned("early"), "fitted before it judges"),
        (learned("unfitted"), "the critic never learns"),
        (learned("values"), "the critic never learns"),
        (learned("weights"), "fitted to the advantages"),
        (learned("rewards"), "fitted to the rewards"),
        (learned("moving"), "the labels move"),
        (learned("leak"), "the labels carry a gradient"),
        (learned("no baseline"), "the actor's weights are the critic's labels"),
        (learned("own rewards"), "the actor's weights are the rewards"),
        (learned("through"), "bootstraps through the end"),
        (learned("all over"), "cut off are treated as over"),
        (learned("lam 1"), "lam is not used, or 1"),
        (learned("lam 0"), "lam is not used, or 0"),
        (learned("no gamma"), "gamma is not used"),
        (learned("stale"), "sampled once"),
        (learned("adding"), "gradients add up"),
        (learned("renewed"), "forgets its moments"),
        (learned("sgd"), "plain gradient descent"),
        (learned("sign"), "sign of its loss"),
        (learned("per step"), "divided by the number of steps"),
        (learned("critic padding"), "fitted on padding"),
        (learned("one rate"), "critic_lr"),
        (learned("one fit"), "`fits` steps of the critic"),
        (learned("unwatched"), "never called"),
        (learned("on"), "training goes on"),
        (learned("nothing"), "nothing is returned"),
        (learned("from 0"), "one update too few is counted"),
        (everything_attached, "a second time"),
    ],
    "10.10": [
        (played("on"), "goes on after its end"),
        (played("lost"), "the step that ends an episode is lost"),
        (played("one more"), "one step too many is noted"),
        (played("after"), "the observation after the step"),
        (played("limit"), "a time limit ended"),
        (played("turned"), "the flags are turned"),
        (played("flags kept"), "the flags of the last step"),
        (played("final at the end"), "at the very end"),
        (played("final before"), "the last observation that was acted on"),
        (played("final at the start"), "where the episodes began"),
        (played("to the horizon"), "go on although all episodes have ended"),
        (played("unseeded"), "with a seed drawn"),
        (played("greedy"), "not drawn from the policy"),
    ],
    "10.11": [
        (lambda run: True, "let the critic say something in the goal"),
        (critic_moves, "let the critic say something in the goal"),
        (lambda run: False, "refuses the right run"),
        (asks_too_much, "refuses the right run"),
        (breaks, "missing 5 required"),
        ("padding", "not callable"),
    ],
}  # fmt: skip
RIGHT = {
    "10.1": [with_einsum, mean_of_residuals],
    "10.2": [restarted(), restart_among_the_acting],
    "10.3": [step_by_step, residuals_backwards, as_one_step],
    "10.4": [by_recursion, with_a_matrix, right_recursion],
    "10.5": [with_one_hot, right_by_a_loop, by_least_squares],
    "10.6": [evaluated(), evaluated_step_by_step],
    "10.7": [weighted_ahead(), by_matrix_powers],
    "10.8": [cut(), cut_by_autograd],
    "10.9": [learned(), with_the_package],
    "10.10": [played(), played_and_cut],
    "10.11": [row_by_row, fact_by_fact],
}
