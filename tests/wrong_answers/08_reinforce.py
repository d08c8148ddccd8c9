"""Typical wrong answers to the exercises of lesson 08, and right ones written differently."""

import torch
from torch.nn.functional import cross_entropy, one_hot

from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import Rollout

# 8.1 ------------------------------------------------------------------------------------------------------------------


def taken(values, actions):
    return values.gather(-1, actions[..., None])[..., 0]


def padding_counted(logits, actions, mask):
    return taken(logits.log_softmax(-1), actions).sum(1)


def mask_inverted(logits, actions, mask):
    return (taken(logits.log_softmax(-1), actions) * ~mask).sum(1)


def raw_logits(logits, actions, mask):
    return (taken(logits, actions) * mask).sum(1)


def softmax_over_time(logits, actions, mask):
    return (taken(logits.log_softmax(1), actions) * mask).sum(1)


def softmax_over_batch(logits, actions, mask):
    return (taken(logits.log_softmax(0), actions) * mask).sum(1)


def probabilities_added(logits, actions, mask):
    return (taken(logits.softmax(-1), actions) * mask).sum(1)


def the_probability(logits, actions, mask):
    return right_probability(logits, actions, mask).exp()


def averaged(logits, actions, mask):
    return right_probability(logits, actions, mask) / mask.sum(1)


def divided_by_the_longest(logits, actions, mask):
    return (taken(logits.log_softmax(-1), actions) * mask).mean(1)


def averaged_with_padding(logits, actions, mask):
    return taken(logits.log_softmax(-1), actions).mean(1)


def averaged_over_the_batch(logits, actions, mask):
    return right_probability(logits, actions, mask).mean()


def negative(logits, actions, mask):
    return -right_probability(logits, actions, mask)


def most_likely(logits, actions, mask):
    return (logits.log_softmax(-1).max(-1).values * mask).sum(1)


def per_step(logits, actions, mask):
    return taken(logits.log_softmax(-1), actions) * mask


def whole_batch(logits, actions, mask):
    return (taken(logits.log_softmax(-1), actions) * mask).sum()


def right_probability(logits, actions, mask):
    """As minus the cross-entropy, with the steps that were not acted set to 0."""
    losses = cross_entropy(logits.flatten(0, 1), actions.flatten(), reduction="none")
    return -losses.view(mask.shape).masked_fill(~mask, 0).sum(1)


def product_then_log(logits, actions, mask):
    return taken(logits.softmax(-1), actions).where(mask, torch.ones((), dtype=logits.dtype)).prod(1).log()


# 8.2 ------------------------------------------------------------------------------------------------------------------


def loop(term):
    """A score built step by step from term(pi, s, a), a row."""

    def answer(pi, states, actions):
        result = torch.zeros_like(pi)
        for s, a in zip(states, actions):
            result[s] += term(pi, s, a)
        return result

    return answer


def hot(pi, a):
    return one_hot(torch.tensor(a), pi.shape[1]).to(pi)


right_score = loop(lambda pi, s, a: hot(pi, a) - pi[s])


def repeated_indices(pi, states, actions):
    result = torch.zeros_like(pi)
    result[states, actions] += 1
    result[states] -= pi[states]
    return result


def assigned(pi, states, actions):
    result = torch.zeros_like(pi)
    for s, a in zip(states, actions):
        result[s, a] = 1
    for s in states:
        result[s] -= pi[s]
    return result


def averaged_score(pi, states, actions):
    return right_score(pi, states, actions) / len(states)


def last_step(pi, states, actions):
    return right_score(pi, states[-1:], actions[-1:])


def every_row(pi, states, actions):
    result = torch.zeros_like(pi)
    for s, a in zip(states, actions):
        result[s, a] += 1
        result -= pi
    return result


def transposed(pi, states, actions):
    return right_score(pi, states, actions).T


def by_autograd(pi, states, actions):
    logits = pi.log().requires_grad_()
    logits.log_softmax(-1)[states, actions].sum().backward()
    return logits.grad


def by_counts(pi, states, actions):
    counts = torch.zeros_like(pi).flatten()
    flat = torch.tensor(states) * pi.shape[1] + torch.tensor(actions)
    counts = counts.index_add(0, flat, torch.ones(len(flat)).to(pi)).view_as(pi)
    return counts - counts.sum(1, keepdim=True) * pi


# 8.5 ------------------------------------------------------------------------------------------------------------------


def factors(rewards, gamma):
    return gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype)


def returns_of(rewards, mask, gamma):
    return (rewards * mask * factors(rewards, gamma)).sum(1)


def to_go(rewards, mask, gamma=1.0):
    result, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = rewards[:, t] * mask[:, t] + gamma * running
        result[:, t] = running * mask[:, t]
    return result


def own_reward(rewards, mask, gamma=1.0):
    return rewards * mask


def own_discounted(rewards, mask, gamma=1.0):
    return rewards * mask * factors(rewards, gamma)


def up_to_now(rewards, mask, gamma=1.0):
    return (rewards * mask * factors(rewards, gamma)).cumsum(1) * mask


def last_reward(rewards, mask, gamma=1.0):
    return rewards.gather(1, mask.sum(1, keepdim=True) - 1) * mask


def last_step_only(rewards, mask, gamma=1.0):
    last = one_hot(mask.sum(1) - 1, mask.shape[1])
    return returns_of(rewards, mask, gamma)[:, None] * last


def padding_earns(rewards, mask, gamma=1.0):
    return (rewards * factors(rewards, gamma)).sum(1, keepdim=True) * mask


def padding_weighted(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, gamma)[:, None].expand_as(rewards)


def mean_reward(rewards, mask, gamma=1.0):
    return (returns_of(rewards, mask, gamma) / mask.sum(1))[:, None] * mask


def no_gamma(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, 1.0)[:, None] * mask


def gamma_late(rewards, mask, gamma=1.0):
    return gamma * returns_of(rewards, mask, gamma)[:, None] * mask


def batch_return(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, gamma).mean() * mask


def no_steps(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, gamma)


def column(rewards, mask, gamma=1.0):
    return returns_of(rewards, mask, gamma)[:, None]


def by_loops(rewards, mask, gamma=1.0):
    rows = []
    for row, acted in zip(rewards.tolist(), mask.tolist()):
        steps = sum(acted)
        total = sum(gamma**t * reward for t, reward in enumerate(row[:steps]))
        rows.append([total] * steps + [0.0] * (len(row) - steps))
    return torch.tensor(rows)


# 8.6 ------------------------------------------------------------------------------------------------------------------


def masked(logprobs, weights, mask):
    return logprobs * weights * mask


def plus(logprobs, weights, mask):
    return masked(logprobs, weights, mask).sum() / len(mask)


def over_steps(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).sum() / mask.sum()


def over_entries(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).mean()


def over_own_length(logprobs, weights, mask):
    return -(masked(logprobs, weights, mask).sum(1) / mask.sum(1)).mean()


def not_divided(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).sum()


def unmasked(logprobs, weights, mask):
    return -(logprobs * weights).sum() / len(mask)


def mask_turned(logprobs, weights, mask):
    return -(logprobs * weights * ~mask).sum() / len(mask)


def one_per_episode(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).sum(1)


def cut_off(logprobs, weights, mask):
    return -masked(logprobs.detach(), weights, mask).sum() / len(mask)


def number(logprobs, weights, mask):
    return -masked(logprobs, weights, mask).sum().item() / len(mask)


def by_selection(logprobs, weights, mask):
    return (-logprobs[mask]) @ weights[mask] / mask.shape[0]


def by_einsum(logprobs, weights, mask):
    return -torch.einsum("bt,bt,bt->b", logprobs, weights, mask.to(weights)).mean()


# 8.8 ------------------------------------------------------------------------------------------------------------------


def distance(estimates, exact):
    return estimates.mean(0) - exact


def no_root(estimates, exact):
    return distance(estimates, exact) / estimates.std(0)


def by_count(estimates, exact):
    return distance(estimates, exact) / (estimates.std(0) / len(estimates))


def by_variance_of_mean(estimates, exact):
    return distance(estimates, exact) / (estimates.var(0) / len(estimates))


def by_variance(estimates, exact):
    return distance(estimates, exact) / estimates.var(0)


def biased_spread(estimates, exact):
    return distance(estimates, exact) / (estimates.std(0, correction=0) / len(estimates) ** 0.5)


def unsigned(estimates, exact):
    return right_z(estimates, exact).abs()


def reversed_sign(estimates, exact):
    return -right_z(estimates, exact)


def against_zero(estimates, exact):
    return right_z(estimates, torch.zeros_like(exact))


def pooled(estimates, exact):
    return distance(estimates, exact) / (estimates.var(0).mean() / len(estimates)).sqrt()


def one_deviation(estimates, exact):
    return distance(estimates, exact) * len(estimates) ** 0.5 / estimates.std()


def relative(estimates, exact):
    return distance(estimates, exact) / exact


def each_estimate(estimates, exact):
    return (estimates - exact) / estimates.std(0)


def right_z(estimates, exact):
    """One parameter after the other, from the definition."""
    scores = []
    for column, truth in zip(estimates.T.tolist(), exact.tolist()):
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / (len(column) - 1)
        scores.append((mean - truth) / (variance / len(column)) ** 0.5)
    return torch.tensor(scores)


# 8.3, 8.4, 8.7, 8.9: right answers with one thing changed -----------------------------------------------------------


def proof(change="", late=False):
    """The proof by autograd, or with one mistake."""

    def answer(pi, nature, states, actions):
        logits = pi.log().requires_grad_()
        chosen = logits.softmax(-1)[states, actions]
        p = (1.0 if change == "no nature" else nature) * chosen.prod()
        if change == "sum":
            p = nature * chosen.sum()
        if change == "log":
            p = p.log()
        (grad_p,) = torch.autograd.grad(p, logits, retain_graph=True)
        if change == "by pi":
            grad_p = torch.zeros_like(pi)
            for s, a in zip(states, actions):
                grad_p[s, a] += p.detach() / pi[s, a]
        if change == "own factor":
            grad_p = loop(lambda pi, s, a: p.detach() * pi[s, a] * (hot(pi, a) - pi[s]))(pi, states, actions)
        if change == "one step":
            grad_p = p.detach() * right_score(pi, states[-1:], actions[-1:])
        if change == "uncoupled":
            grad_p = loop(lambda pi, s, a: p.detach() * hot(pi, a))(pi, states, actions)
        result = {"p": p.detach(), "grad_p": grad_p, "grad_log_p": right_score(pi, states, actions)}
        result["score"] = result["grad_log_p"]
        if change == "not divided":
            result["grad_log_p"] = grad_p
        if change == "by the policy's part":
            result["grad_log_p"] = grad_p / chosen.prod().detach()
        if change == "p in front":
            result["score"] = p.detach() * result["score"]
        return result

    return answer


def played(change=""):
    """A sampler that loops over episodes, or with one mistake."""

    def answer(world, pi, episodes, horizon, generator):
        def draw(chances):
            if change == "one for all":
                chances = chances[:1].expand_as(chances)
            cumulative = chances.double().cumsum(1)
            number = torch.rand(len(chances), 1, generator=generator, dtype=torch.float64)
            return (number >= cumulative).sum(1).clamp(max=chances.shape[1] - 1)

        state = draw(world.start.expand(episodes, -1)) * (change != "from 0")
        columns = [[], [], [], []]
        for _ in range(horizon + (change == "longer") - (change == "shorter")):
            action = pi[state].argmax(1) if change == "greedy" else draw(pi[state])
            chances = world.P[state, action]
            after = chances.argmax(1) if change == "likeliest" else draw(chances)
            over = world.terminal[after if change == "after" else state]
            reward = world.R[state, action, after].where(~over, torch.zeros(()).double())
            if change == "unpaid":
                reward = world.R[state, action, state]
            if change == "expected":
                reward = (world.P[state, action] * world.R[state, action]).sum(-1)
            if change == "largest":
                reward = world.R[state, action].amax(-1)
            acted = torch.ones_like(over) if change == "no end" else ~over
            for column, value in zip(columns, (after if change == "moved" else state, action, reward, acted)):
                column.append(value)
            state = after
            if not change and world.terminal[state].all():
                break
        return tuple(torch.stack(column, 0 if change == "turned" else 1) for column in columns)

    return answer


def gradients(term, reduce=lambda x: x):
    """Gradients of episodes from a term (pi, s, a, w) per step."""

    def answer(pi, states, actions, weights):
        result = torch.zeros(len(weights), *pi.shape, dtype=pi.dtype)
        for i, row in enumerate(zip(states.tolist(), actions.tolist(), weights.tolist())):
            for s, a, w in zip(*row):
                result[i, s] += term(pi, s, a, w)
        return reduce(result)

    return answer


def gradients_by_autograd(pi, states, actions, weights):
    rows = []
    for s, a, w in zip(states, actions, weights):
        logits = pi.log().requires_grad_()
        rows.append(torch.autograd.grad((w * logits.log_softmax(-1)[s, a]).sum(), logits)[0])
    return torch.stack(rows)


def pairs_once(pi, states, actions, weights):
    rows = torch.arange(len(weights))[:, None]
    taken = torch.zeros(len(weights), *pi.shape, dtype=pi.dtype)
    for t in range(weights.shape[1]):
        acted = weights[:, t] != 0
        taken[rows[acted, 0], states[acted, t], actions[acted, t]] = weights[acted, t]
    return taken - taken.sum(-1, keepdim=True) * pi


def trained(change=""):
    """REINFORCE by cross-entropy, or with one mistake."""

    def answer(policy, sample, weigh, updates, lr, watch):
        made = torch.optim.SGD if change == "sgd" else torch.optim.Adam
        optimizer, batch, number = made(policy.parameters(), lr=lr), None, 0
        while number < updates:
            number += 1
            if change == "renewed":
                optimizer = made(policy.parameters(), lr=lr)
            batch = batch if change == "stale" and batch else sample(policy)
            logits = policy(batch.observations)
            logs = logits.log_softmax(1 if change == "over time" else -1)
            logs = taken(logs.exp() if change == "no log" else logs, batch.actions)
            weights = batch.rewards if change == "own" else weigh(batch.rewards, batch.mask)
            if change == "unmasked":
                weights = weights[:, :1].expand_as(weights)
            terms = weights * logs * (1 if change == "unmasked" else batch.mask)
            loss = -terms.sum() / (batch.mask.sum() if change == "per step" else len(terms))
            loss = -loss if change == "sign" else loss
            if change != "adding":
                optimizer.zero_grad()
            if change == "early" and watch(policy, loss.item()):
                break
            loss.backward()
            if change != "no step":
                optimizer.step()
            stop = change not in ("early", "unwatched") and watch(policy, loss.item())
            if stop and change != "on":
                break
        return None if change == "nothing" else number - (change == "from 0")

    return answer


# 8.10 -----------------------------------------------------------------------------------------------------------------


def setting(run, updates=1, lr=0.5, *, spread=1.0, rewards=None):
    """How far a run moves a random policy on two hand-made episodes, and how many batches it asked for."""
    policy, batches = TabularPolicy(4, 3).double(), []
    with torch.no_grad():
        policy.logits.copy_(spread * torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    before = policy.logits.detach().clone()
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = torch.tensor([[0.0, 0.0, 1.0], [-0.5, 0.0, 0.0]]) if rewards is None else rewards
    states, actions = torch.tensor([[1, 2, 3], [1, 0, 0]]), torch.tensor([[0, 1, 2], [1, 0, 0]])

    def sample(now):
        batches.append(Rollout(states, actions, rewards.double(), 0 * rewards.double(), mask, mask[:, 0]))
        return batches[-1]

    run(policy, sample, updates, lr)
    return policy.logits.detach() - before, len(batches), before.softmax(-1), batches[0]


def against_the_loss(run):
    """A step against the gradient of a loss, and two batches for two updates."""
    moved, _, pi, batch = setting(run)
    logits = pi.log().requires_grad_()
    logs = taken(logits.log_softmax(-1)[batch.observations], batch.actions)
    loss = -((batch.rewards.sum(1, keepdim=True) * logs)[batch.mask]).sum() / 2
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(moved, -0.5 * gradient)
    assert setting(run, 2)[1] == 2
    return True


def pays_every_step(run):
    """Refuses the own reward alone."""
    return bool(setting(run)[0][2].abs().max() > 0)


def fresh_batches(run):
    return setting(run, 2)[1] == 2


def asks_too_much(run):
    return bool(setting(run)[0].abs().max() > 10)


def breaks(run):
    return run(1, 2, 3)


# right answers in other styles ----------------------------------------------------------------------------------------


def proof_by_logarithms(pi, nature, states, actions):
    """From the last line back: the score, then p from a sum of logarithms, then the gradient of p."""
    score = torch.zeros_like(pi)
    for s, a in zip(states, actions):
        score[s] = score[s] + hot(pi, a) - pi[s]
    p = nature * torch.stack([pi[s, a].log() for s, a in zip(states, actions)]).sum().exp()
    return {"score": score, "p": float(p), "grad_log_p": score.clone(), "grad_p": p * score}


def one_episode_after_the_other(world, pi, episodes, horizon, generator):
    """Lists, one row at a time, padded with state 0 and action 0."""

    def draw(row):
        return int(torch.multinomial(row, 1, generator=generator))

    states, actions = torch.zeros(2, episodes, horizon, dtype=torch.long)
    rewards, mask = torch.zeros(episodes, horizon).double(), torch.zeros(episodes, horizon, dtype=torch.bool)
    for row in range(episodes):
        s = draw(world.start)
        for t in range(horizon):
            if bool(world.terminal[s]):
                break
            a = draw(pi[s])
            after = draw(world.P[s, a])
            states[row, t], actions[row, t], rewards[row, t], mask[row, t] = s, a, world.R[s, a, after], True
            s = after
    return states, actions, rewards, mask


def by_categorical(policy, sample, weigh, updates, lr, watch):
    """The steps of an episode picked by the mask, log-probabilities from torch.distributions."""
    optimizer = torch.optim.Adam([*policy.parameters()], lr)
    made, over = 0, False
    while made < updates and not over:
        data = sample(policy)
        optimizer.zero_grad()
        logs = torch.distributions.Categorical(logits=policy(data.observations)).log_prob(data.actions)
        loss = -(logs[data.mask] * weigh(data.rewards, data.mask)[data.mask]).sum() / data.mask.shape[0]
        loss.backward()
        optimizer.step()
        made, over = made + 1, bool(watch(policy, float(loss.detach())))
    return made


def step_by_step(run):
    """Facts one by one: nothing for returns of 0, the closed form for one batch, a batch for each update."""
    if setting(run, rewards=torch.zeros(2, 3))[0].abs().max() > 1e-9:
        return False
    moved, asked, pi, batch = setting(run, lr=0.25)
    wanted = torch.zeros_like(moved)
    for i, total in enumerate((batch.rewards * batch.mask).sum(1).tolist()):
        for t in range(3):
            if batch.mask[i, t]:
                s, a = int(batch.observations[i, t]), int(batch.actions[i, t])
                wanted[s] += 0.25 * total / 2 * (hot(pi, a) - pi[s])
    return asked == 1 and float((moved - wanted).abs().max()) < 1e-9 and setting(run, 3)[1] == 3


WRONG = {
    "8.1": [
        (padding_counted, "as if mask were True everywhere"),
        (mask_inverted, "with mask turned round"),
        (raw_logits, "without a softmax"),
        (softmax_over_time, "softmax runs over the time steps"),
        (softmax_over_batch, "softmax runs over the episodes"),
        (probabilities_added, "with softmax in the place of log_softmax"),
        (the_probability, "under an exponential"),
        (averaged, "divided by the number of True in each row of mask"),
        (divided_by_the_longest, "divided by T"),
        (averaged_with_padding, "padding included"),
        (averaged_over_the_batch, "mean over the batch"),
        (negative, "with the sign turned"),
        (most_likely, "most likely action"),
        (per_step, "one number per step"),
        (whole_batch, "one number for the whole batch"),
    ],
    "8.2": [
        (loop(lambda pi, s, a: hot(pi, a)), "pi is not subtracted"),
        (loop(lambda pi, s, a: pi[s] - hot(pi, a)), "with the sign turned"),
        (loop(lambda pi, s, a: hot(pi, a) / pi[s]), "derivative by the probabilities"),
        (loop(lambda pi, s, a: hot(pi, a) * (1 - pi[s])), "from the taken action only"),
        (loop(lambda pi, s, a: pi[s, a] * (hot(pi, a) - pi[s])), "gradient of pi"),
        (repeated_indices, "counted once"),
        (assigned, "counted once"),
        (averaged_score, "divided by the length of states"),
        (last_step, "only the last step"),
        (every_row, "visited or not"),
        (transposed, "with rows and columns exchanged"),
    ],
    "8.5": [
        (to_go, "reward-to-go"),
        (own_reward, "own reward alone"),
        (own_discounted, "own"),
        (up_to_now, "rewards up to t"),
        (last_reward, "only the last reward"),
        (last_step_only, "only the last step"),
        (padding_earns, "rewards on padding"),
        (padding_weighted, "weights on padding"),
        (mean_reward, "divided by the number of True in each row of mask"),
        (no_gamma, "as if gamma were 1"),
        (gamma_late, "times gamma"),
        (batch_return, "mean return of the batch"),
        (no_steps, "one number per episode: repeat"),
        (column, "in a column"),
    ],
    "8.6": [
        (plus, "sign is turned"),
        (over_steps, "number of steps"),
        (over_entries, "divided by T"),
        (over_own_length, "own length"),
        (not_divided, "times B"),
        (unmasked, "as if mask were True everywhere"),
        (mask_turned, "with mask turned round"),
        (one_per_episode, "averaged over the last axis"),
        (cut_off, "no gradient"),
        (number, "only a tensor carries a gradient"),
    ],
    "8.8": [
        (no_root, "standard deviation of one estimate"),
        (by_count, "not s / K"),
        (by_variance_of_mean, "variance, not its root"),
        (by_variance, "variance of one estimate"),
        (biased_spread, "it is K - 1"),
        (unsigned, "sign is lost"),
        (reversed_sign, "estimate minus truth"),
        (against_zero, "compared with 0"),
        (pooled, "one spread for all"),
        (one_deviation, "one spread for all"),
        (distance, "not divided by a standard error"),
        (relative, "relative errors"),
        (each_estimate, "one z-score per estimate"),
    ],
    "8.3": [
        (proof("no nature"), "what the world answered is missing"),
        (proof("sum"), "a probability of all steps is a product"),
        (proof("log"), "this is log p(tau)"),
        (proof("by pi"), "by the probabilities"),
        (proof("own factor"), "counted twice"),
        (proof("one step"), "one step alone"),
        (proof("uncoupled"), "pi is not subtracted"),
        (proof("not divided"), "this is the gradient of p"),
        (proof("by the policy's part"), "by the policy's part alone"),
        (proof("p in front"), "no p in front"),
    ],
    "8.4": [
        (played("one for all"), "in each episode anew"),
        (played("from 0"), "world.start"),
        (played("longer"), "one step too many"),
        (played("shorter"), "one step too few"),
        (played("greedy"), "the best one is not asked"),
        (played("likeliest"), "the world chooses"),
        (played("after"), "the step that ends the episode is lost"),
        (played("unpaid"), "nothing is earned"),
        (played("no end"), "goes on after its end"),
        (played("moved"), "the state after the move"),
        (played("expected"), "not that of the way that was taken"),
        (played("largest"), "not that of the way that was taken"),
        (played("turned"), "the axes are exchanged"),
    ],
    "8.7": [
        (gradients(lambda pi, s, a, w: w * hot(pi, a)), "pi is not subtracted"),
        (gradients(lambda pi, s, a, w: w * hot(pi, a) - (w != 0) * pi[s]), "without the weight"),
        (gradients(lambda pi, s, a, w: hot(pi, a) - pi[s]), "weights are missing"),
        (gradients(lambda pi, s, a, w: w * (1 - pi[s]) * hot(pi, a)), "taken action only"),
        (gradients(lambda pi, s, a, w: w * (hot(pi, a) - pi[s]), lambda x: x.sum(0)), "added up"),
        (gradients(lambda pi, s, a, w: w * (hot(pi, a) - pi[s]), lambda x: x.mean(0)), "mean over the episodes"),
        (pairs_once, "counted once"),
    ],
    "8.9": [
        (trained("sgd"), "plain gradient descent"),
        (trained("renewed"), "forgets its moments"),
        (trained("stale"), "sampled once"),
        (trained("over time"), "over the time steps"),
        (trained("no log"), "pi stands where log pi"),
        (trained("own"), "own reward"),
        (trained("unmasked"), "padding is trained on"),
        (trained("per step"), "number of steps"),
        (trained("sign"), "sign of the loss"),
        (trained("adding"), "gradients add up"),
        (trained("early"), "after the step"),
        (trained("unwatched"), "never called"),
        (trained("on"), "training goes on"),
        (trained("no step"), "no step is made"),
        (trained("nothing"), "nothing is returned"),
        (trained("from 0"), "one update too few is counted"),
    ],
    "8.10": [
        (lambda run: True, "let an episode be paid at one step alone"),
        (pays_every_step, "let episodes end at different times"),
        (asks_too_much, "refuses the right run"),
        (breaks, "missing 1 required"),
        ("padding", "not callable"),
    ],
}
RIGHT = {
    "8.1": [right_probability, product_then_log],
    "8.2": [right_score, by_autograd, by_counts],
    "8.5": [by_loops],
    "8.6": [by_selection, by_einsum],
    "8.8": [right_z],
    "8.3": [proof(), proof_by_logarithms],
    "8.4": [played(), one_episode_after_the_other],
    "8.7": [gradients(lambda pi, s, a, w: w * (hot(pi, a) - pi[s])), gradients_by_autograd],
    "8.9": [trained(), by_categorical],
    "8.10": [against_the_loss, step_by_step],
}
