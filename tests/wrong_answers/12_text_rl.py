"""Typical wrong answers to the exercises of lesson 12, and right ones written differently."""

import copy
import math

import torch
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils.rnn import pad_sequence

from ptlearn.course.cases import log_softmax
from ptlearn.rollout import action_logprobs, take_rows

# 12.1 -----------------------------------------------------------------------------------------------------------------


def between(steps, first, end):
    t = torch.arange(steps)
    return (t >= torch.tensor(first)[:, None]) & (t < torch.tensor(end)[:, None])


def chosen(logits, written, mask):
    return torch.where(mask, taken(logits.log_softmax(-1), written), 0)


def taken(values, tokens):
    return values.gather(-1, tokens[..., None])[..., 0]


def record(first=-1, end=-1, score=chosen, **changed):
    """A record whose mask begins and ends at other steps, or with other entries: functions of the right ones."""

    def answer(prompts, answers, logits):
        tokens = pad_sequence([torch.tensor(p + a) for p, a in zip(prompts, answers)], batch_first=True)
        p, c = ([len(part) for part in parts] for parts in (prompts, answers))
        begins = first(p, c) if callable(first) else [n + first for n in p]
        ends = end(p, c) if callable(end) else [n + m + end for n, m in zip(p, c)]
        read, written = tokens[:, :-1], tokens[:, 1:]
        mask = between(read.shape[1], begins, ends)
        right = {"observations": read, "actions": written, "mask": mask}
        right["logprobs"] = score(logits, written, mask)
        return right | {name: change(tokens, right, logits) for name, change in changed.items()}

    return answer


def with_the_last_column(prompts, answers, logits):
    found = record()(prompts, answers, logits)
    return found | {"actions": torch.cat([found["actions"], torch.zeros(len(prompts), 1, dtype=torch.long)], 1)}


def padded_on_the_left(prompts, answers, logits):
    found, texts = record()(prompts, answers, logits), [p + a for p, a in zip(prompts, answers)]
    longest = max(map(len, texts))
    tokens = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    return found | {"observations": tokens[:, :-1], "actions": tokens[:, 1:]}


def last_of_each_cut_off(prompts, answers, logits):
    texts = [torch.tensor((p + a)[:-1]) for p, a in zip(prompts, answers)]
    return record()(prompts, answers, logits) | {"observations": pad_sequence(texts, batch_first=True)}


def prompts_grow(prompts, answers, logits):
    found = record()(prompts, answers, logits)
    for prompt, answer in zip(prompts, answers):
        prompt += answer
    return found


def as_lists(prompts, answers, logits):
    return {name: value.tolist() for name, value in record()(prompts, answers, logits).items()}


def without_logprobs(prompts, answers, logits):
    found = record()(prompts, answers, logits)
    return {name: found[name] for name in ("observations", "actions", "mask")}


def record_in_lists(prompts, answers, logits):
    """Token after token, tensors at the very end."""
    steps = max(len(p) + len(a) for p, a in zip(prompts, answers)) - 1
    found = {name: [] for name in ("observations", "actions", "mask", "logprobs")}
    for prompt, answer, scores in zip(prompts, answers, logits.tolist()):
        text = prompt + answer
        text = text + [0] * (steps + 1 - len(text))
        answered = [len(prompt) - 1 <= t < len(prompt) + len(answer) - 1 for t in range(steps)]
        found["observations"].append(text[:steps])
        found["actions"].append(text[1:])
        found["mask"].append(answered)
        found["logprobs"].append([log_softmax(scores[t])[text[t + 1]] if answered[t] else 0.0 for t in range(steps)])
    return {name: torch.tensor(value) for name, value in found.items()}


def record_by_marks(prompts, answers, logits):
    """Marks of the answer's tokens, padded with the texts; a cross-entropy, filled with 0."""
    texts = pad_sequence([torch.tensor(p + a) for p, a in zip(prompts, answers)], batch_first=True)
    marks = [torch.tensor([0] * len(p) + [1] * len(a)) for p, a in zip(prompts, answers)]
    mask = pad_sequence(marks, batch_first=True)[:, 1:].bool()
    losses = cross_entropy(logits.transpose(1, 2), texts[:, 1:], reduction="none")
    return {"observations": texts[:, :-1], "actions": texts[:, 1:], "mask": mask,
            "logprobs": (-losses).masked_fill(~mask, 0.0)}  # fmt: skip


def record_at_its_steps(prompts, answers, logits):
    """Written into zeros, at the steps of the answer alone."""
    steps = logits.shape[1]
    found = {name: torch.zeros(len(prompts), steps, dtype=torch.int32) for name in ("observations", "actions")}
    found["mask"] = torch.zeros(len(prompts), steps, dtype=torch.bool)
    found["logprobs"] = torch.zeros(len(prompts), steps, dtype=logits.dtype)
    for row, (prompt, answer) in enumerate(zip(prompts, answers)):
        text = torch.tensor(prompt + answer)
        acted = slice(len(prompt) - 1, len(text) - 1)
        found["observations"][row, : min(len(text), steps)] = text[:steps]
        found["actions"][row, : len(text) - 1] = text[1:]
        found["mask"][row, acted] = True
        pi = torch.distributions.Categorical(logits=logits[row, acted])
        found["logprobs"][row, acted] = pi.log_prob(torch.tensor(answer))
    return found


# 12.2 -----------------------------------------------------------------------------------------------------------------


def length_of(policy):
    """Of the gradient, over all parameters."""
    return torch.sqrt(sum((parameter.grad**2).sum() for parameter in policy.parameters()))


def trained(change=""):
    """The loop in a style of its own, or with one mistake."""

    def answer(policy, sample, weigh, updates, lr, clip_norm=math.inf):
        made = torch.optim.SGD if change == "sgd" else torch.optim.Adam
        learner = copy.deepcopy(policy) if change == "copy" else policy
        optimizer, batch, history = made(learner.parameters(), lr=lr), None, []
        for _ in range(updates - (change == "one less")):
            if change == "renewed":
                optimizer = made(learner.parameters(), lr=lr)
            batch = batch if change == "stale" and batch else sample(policy)
            now = action_logprobs(learner, batch)
            given = {"attached": now, "recorded": batch.logprobs}.get(change, now.detach())
            terms = (weigh(batch, given) * now).sum(1)
            if change == "not weighted":
                terms = now.sum(1)
            loss = {"per step": terms.sum() / batch.mask.sum(), "not divided": terms.sum()}.get(change, terms.mean())
            loss = loss if change == "sign" else -loss
            if change != "adding":
                optimizer.zero_grad()
            loss.backward()
            norm = length_of(learner)
            if change == "entries clipped":
                torch.nn.utils.clip_grad_value_(learner.parameters(), clip_norm)
            elif change != "not clipped":
                torch.nn.utils.clip_grad_norm_(learner.parameters(), clip_norm)
            if change == "norm after":
                norm = length_of(learner)
            if change != "no step":
                optimizer.step()
            history.append(noted(change, batch, now.detach(), norm))
        if change == "sampled after":
            sample(policy)
        if change == "nothing noted":
            return {name: [] for name in ("reward", "length", "nats", "norm")}
        columns = {name: [row[name] for row in history] for name in history[0]}
        if change == "no norm":
            del columns["norm"]
        if change == "last alone":
            return {name: values[-1:] for name, values in columns.items()}
        return (policy, columns) if change == "pair" else history if change == "rows" else columns

    return answer


def noted(change, batch, now, norm):
    steps, episodes = float(batch.mask.sum()), len(batch.mask)
    kept = batch.rewards if change == "padding paid" else torch.where(batch.mask, batch.rewards, 0)
    found = {"reward": kept.sum() / episodes, "length": steps / episodes, "nats": -now.sum() / steps, "norm": norm}
    other = {
        "reward per step": {"reward": kept.sum() / steps},
        "reward summed": {"reward": kept.sum()},
        "columns counted": {"length": float(batch.mask.shape[1])},
        "all steps": {"length": steps},
        "log π": {"nats": now.sum() / steps},
        "nats per episode": {"nats": -now.sum(1).mean()},
        "nats of columns": {"nats": -now.mean()},
    }
    return found | other.get(change, {})


def maximised(policy, sample, weigh, updates, lr, clip_norm=math.inf):
    """Adam that goes up, with log π of all rows selected at the steps that were acted."""
    adam = torch.optim.Adam(policy.parameters(), lr, maximize=True)
    reward, length, nats, norms = [], [], [], []
    for _ in range(updates):
        with torch.no_grad():
            rollout = sample(policy)
        logits = policy(rollout.observations)[rollout.mask]
        logs = torch.distributions.Categorical(logits=logits).log_prob(rollout.actions[rollout.mask])
        table = torch.zeros_like(rollout.rewards).masked_scatter(rollout.mask, logs.detach().to(rollout.rewards))
        policy.zero_grad()
        ((weigh(rollout, table)[rollout.mask] @ logs) / rollout.mask.shape[0]).backward()
        norms += [torch.nn.utils.clip_grad_norm_(policy.parameters(), clip_norm)]
        adam.step()
        reward += [sum(row[acted].sum() for row, acted in zip(rollout.rewards, rollout.mask)) / len(rollout.mask)]
        length += [sum(rollout.mask.sum(1).tolist()) / len(rollout.mask)]
        nats += [-logs.mean().detach()]
    return {"reward": reward, "length": length, "nats": nats, "norm": norms}


# 12.3 -----------------------------------------------------------------------------------------------------------------


def by_rows(total, parts=lambda parts: parts):
    """Row by row the gradient of total(log π (1, T), rollout), its parts chosen."""

    def answer(policy, rollout, parameters):
        rows = []
        for row in range(len(rollout.mask)):
            one = take_rows(rollout, torch.tensor([row]))
            found = torch.autograd.grad(total(action_logprobs(policy, one), one), parameters)
            rows.append(torch.cat([part.flatten() for part in parts(found)]))
        return torch.stack(rows)

    return answer


scores_by_rows = by_rows(lambda logs, one: logs.sum())


def whole_batch(policy, rollout, parameters):
    found = torch.autograd.grad(action_logprobs(policy, rollout).sum(), parameters)
    return torch.cat([part.flatten() for part in found])


def with_padding(policy, rollout, parameters):
    logs, rows = taken(policy(rollout.observations).log_softmax(-1), rollout.actions), []
    for row in logs:
        found = torch.autograd.grad(row.sum(), parameters, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in found]))
    return torch.stack(rows)


def graph_gone(policy, rollout, parameters):
    logs = action_logprobs(policy, rollout)
    rows = [torch.autograd.grad(row.sum(), parameters) for row in logs]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def not_laid_end_to_end(policy, rollout, parameters):
    logs = action_logprobs(policy, rollout)
    return [list(torch.autograd.grad(row.sum(), parameters, retain_graph=True)) for row in logs]


def added_up(policy, rollout, parameters):
    """backward adds to what stands in .grad: each row is the sum of all before it."""
    rows = []
    for row in action_logprobs(policy, rollout):
        row.sum().backward(retain_graph=True)
        rows.append(torch.cat([p.grad.flatten() for p in parameters]))
    return torch.stack(rows)


def by_backward(policy, rollout, parameters):
    rows = []
    for row in action_logprobs(policy, rollout):
        for parameter in parameters:
            parameter.grad = None
        row.sum().backward(retain_graph=True)
        rows.append(torch.cat([p.grad.reshape(-1) for p in parameters]))
    return torch.stack(rows)


def with_a_batch_of_ones(policy, rollout, parameters):
    totals = action_logprobs(policy, rollout).sum(1)
    ones = torch.eye(len(totals), dtype=totals.dtype)
    parts = torch.autograd.grad(totals, parameters, ones, is_grads_batched=True)
    return torch.cat([part.flatten(1) for part in parts], 1)


def column_by_column(policy, rollout, parameters):
    """Parameter after parameter instead of row after row."""
    totals = [
        action_logprobs(policy, take_rows(rollout, torch.tensor([row]))).sum() for row in range(len(rollout.mask))
    ]
    columns = []
    for parameter in parameters:
        columns.append(torch.stack([torch.autograd.grad(t, parameter, retain_graph=True)[0].flatten() for t in totals]))
    return torch.hstack(columns)


# 12.4 -----------------------------------------------------------------------------------------------------------------


def losses_of(logits, tokens, shift=1):
    labels = tokens[:, shift : shift + logits.shape[1]]
    return cross_entropy(logits.transpose(1, 2), labels, reduction="none")


def finetuned(whole=lambda losses, mask, returns: (returns * losses.sum(1)).mean(), shift=1, cut=True):
    """From the losses of tokens, 0 where mask is False, to the loss of the batch."""

    def answer(logits, tokens, mask, returns):
        losses = losses_of(logits, tokens, shift)
        return whole(torch.where(mask, losses, 0) if cut else losses, mask, returns)

    return answer


def multiplied_away(logits, tokens, mask, returns):
    return (returns * (losses_of(logits, tokens) * mask).sum(1)).mean()


def cut_from_the_graph(logits, tokens, mask, returns):
    return finetuned()(logits.detach(), tokens, mask, returns)


def as_a_number(logits, tokens, mask, returns):
    return finetuned()(logits, tokens, mask, returns).item()


def reduced_by_torch(logits, tokens, mask, returns):
    labels = tokens[:, 1:].masked_fill(~mask, -100)
    return returns.mean() * cross_entropy(logits.flatten(0, 1), labels.flatten())


def finetuned_by_labels(logits, tokens, mask, returns):
    """As finetuning does it: labels of -100 where nothing is trained, answer by answer."""
    labels, total = tokens[:, 1:].masked_fill(~mask, -100), 0
    for row, worth in zip(range(len(mask)), returns):
        total = total + worth * cross_entropy(logits[row], labels[row], reduction="sum", ignore_index=-100)
    return total / len(mask)


def finetuned_by_one_hot(logits, tokens, mask, returns):
    hot = one_hot(tokens[:, 1:], logits.shape[-1]).bool()
    logs = logits.log_softmax(-1).masked_fill(~(hot & mask[..., None]), 0).sum((1, 2))
    return -(logs @ returns) / returns.shape[0]


def finetuned_at_its_steps(logits, tokens, mask, returns):
    rows, steps = mask.nonzero(as_tuple=True)
    losses = cross_entropy(logits[rows, steps], tokens[rows, steps + 1], reduction="none")
    return (losses * returns[rows]).sum() / len(returns)


# 12.5 -----------------------------------------------------------------------------------------------------------------


def sums(returns, groups):
    same = (groups[:, None] == groups).to(returns)
    return same @ returns, same.sum(1)


def with_itself(returns, groups, mask):
    total, count = sums(returns, groups)
    return (returns - total / count)[:, None] * mask


def by_group_size(returns, groups, mask):
    total, count = sums(returns, groups)
    return (returns - (total - returns) / count)[:, None] * mask


def itself_not_taken_out(returns, groups, mask):
    total, count = sums(returns, groups)
    return (returns - total / (count - 1))[:, None] * mask


def without_groups(returns, groups, mask):
    return (returns - (returns.sum() - returns) / (len(returns) - 1))[:, None] * mask


def batch_mean(returns, groups, mask):
    return (returns - returns.mean())[:, None] * mask


def turned_sign(returns, groups, mask):
    return -loop_rloo(returns, groups, mask)


def baseline_alone(returns, groups, mask):
    total, count = sums(returns, groups)
    return ((total - returns) / (count - 1))[:, None] * mask


def grpo(returns, groups, mask):
    result = torch.zeros_like(returns)
    for group in groups.unique():
        rows = groups == group
        result[rows] = (returns[rows] - returns[rows].mean()) / returns[rows].std()
    return result[:, None] * mask


def returns_alone(returns, groups, mask):
    return returns[:, None] * mask


def filled(returns, groups, mask):
    return advantages(returns, groups)[:, None].expand(mask.shape)


def advantages(returns, groups):
    total, count = sums(returns, groups)
    return returns - (total - returns) / (count - 1)


def per_row(returns, groups, mask):
    return advantages(returns, groups)


def shared_out(returns, groups, mask):
    return advantages(returns, groups)[:, None] * mask / mask.sum(1, keepdim=True)


def equals_left_out(returns, groups, mask):
    result = []
    for i, own in enumerate(returns):
        others = [x for x in returns[groups == groups[i]] if x != own]
        result.append(own - sum(others) / max(1, len(others)))
    return torch.stack(result)[:, None] * mask


def not_put_back(returns, groups, mask):
    order = groups.argsort(stable=True)
    return advantages(returns[order], groups[order])[:, None] * mask


def while_changing(returns, groups, mask):
    for i in range(len(returns)):
        others = [returns[j] for j in range(len(returns)) if j != i and groups[j] == groups[i]]
        returns[i] -= sum(others) / len(others)
    return returns[:, None] * mask


def last_token(returns, groups, mask):
    return advantages(returns, groups)[:, None] * (mask & (mask.cumsum(1) == mask.sum(1, keepdim=True)))


def outside(returns, groups, mask):
    return advantages(returns, groups)[:, None] * ~mask


def over_deviation(returns, groups, mask):
    spread = torch.stack([returns[groups == group].std() for group in groups])
    return (advantages(returns, groups) / spread)[:, None] * mask


def grpo_biased(returns, groups, mask):
    same = [returns[groups == group] for group in groups]
    rows = [(x - group.mean()) / group.std(correction=0) for x, group in zip(returns, same)]
    return torch.stack(rows)[:, None] * mask


def of_other_groups(returns, groups, mask):
    others = (groups[:, None] != groups).to(returns)
    return (returns - others @ returns / others.sum(1))[:, None] * mask


def less_the_sum(returns, groups, mask):
    total, _ = sums(returns, groups)
    return (returns - (total - returns))[:, None] * mask


def by_einsum(returns, groups, mask):
    _, inverse, counts = groups.unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(counts), dtype=returns.dtype).index_add(0, inverse, returns)
    own = returns - (total[inverse] - returns) / (counts[inverse] - 1)
    return torch.einsum("b,bt->bt", own, mask.to(returns))


def against_the_best(returns, groups, mask):
    rest = [[x for j, x in enumerate(returns) if j != i and groups[j] == groups[i]] for i in range(len(returns))]
    return torch.stack([x - max(others) for x, others in zip(returns, rest)])[:, None] * mask


def against_the_row_before(returns, groups, mask):
    return (returns - returns.roll(1))[:, None] * mask


def never_negative(returns, groups, mask):
    return loop_rloo(returns, groups, mask).clamp(min=0)


def by_sums_of_groups(returns, groups, mask):
    count = torch.bincount(groups)
    total = torch.zeros(len(count)).index_add(0, groups, returns)
    return torch.where(mask, (returns - (total[groups] - returns) / (count[groups] - 1))[:, None], 0)


def loop_rloo(returns, groups, mask):
    result = torch.zeros(mask.shape, dtype=returns.dtype)
    for i in range(len(returns)):
        others = [returns[j] for j in range(len(returns)) if j != i and groups[j] == groups[i]]
        result[i, mask[i]] = returns[i] - sum(others) / len(others)
    return result


def rescaled_mean(returns, groups, mask):
    """n / (n - 1) times the deviation from the group's own mean."""
    total, count = sums(returns, groups)
    return torch.where(mask, ((returns - total / count) * count / (count - 1))[:, None], 0)


# 12.6 -----------------------------------------------------------------------------------------------------------------


def trace(gradients, correction=1):
    return gradients.var(0, correction=correction).sum()


def pair(noise=lambda g, P: trace(g) / P, signal=lambda g, P: (g.mean(0) ** 2).sum() - trace(g) / len(g)):
    def answer(gradients, prompts):
        return {"noise": noise(gradients, prompts), "signal": signal(gradients, prompts)}

    return answer


def from_pairs(gradients, prompts):
    """No mean at all: squared distances of pairs, and inner products of different gradients."""
    count, products = len(gradients), gradients @ gradients.T
    own = products.diagonal().sum()
    signal = (products.sum() - own) / (count * (count - 1))
    distances = torch.cdist(gradients, gradients) ** 2
    return {"noise": distances.sum() / (2 * count * (count - 1)) / prompts, "signal": signal}


def column_after_column(gradients, prompts):
    spread = signal = 0.0
    for column in gradients.T.tolist():
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / (len(column) - 1)
        spread += variance
        signal += mean**2 - variance / len(column)
    return {"noise": spread / prompts, "signal": signal}


def by_covariance(gradients, prompts):
    spread = torch.cov(gradients.T).diagonal().sum()
    return {"noise": spread / prompts, "signal": gradients.mean(0).norm() ** 2 - spread / gradients.shape[0]}


# 12.7 -----------------------------------------------------------------------------------------------------------------


def against(cut=lambda gaps, mask: torch.where(mask, gaps, 0), **changed):
    """The three numbers from the gaps, or with other entries: functions of gaps, mask and cap."""

    def answer(logprobs, recorded, mask, cap):
        gaps = cut(logprobs - recorded, mask)
        ratios = gaps.sum(1).exp()
        right = {
            "largest": gaps.abs().max(),
            "weights": gaps.exp().clamp(max=cap) * mask,
            "ess": ratios.sum() ** 2 / (ratios**2).sum() / len(ratios),
        }
        return right | {name: change(gaps, mask, cap) for name, change in changed.items()}

    return answer


def share(ratios):
    return ratios.sum() ** 2 / (ratios**2).sum() / len(ratios)


def sampler_first(logprobs, recorded, mask, cap):
    return against()(recorded, logprobs, mask, cap)


def step_after_step(logprobs, recorded, mask, cap):
    """In lists; the effective sample size from shares that sum to one."""
    weights, whole, largest = torch.zeros_like(logprobs), [0.0] * len(mask), 0.0
    for row, t in mask.nonzero().tolist():
        gap = float(logprobs[row, t] - recorded[row, t])
        weights[row, t] = min(cap, math.exp(gap))
        whole[row] += gap
        largest = max(largest, abs(gap))
    ratios = [math.exp(x) for x in whole]
    shares = [x / sum(ratios) for x in ratios]
    return {"ess": 1 / sum(x * x for x in shares) / len(mask), "largest": largest, "weights": weights}


def in_probabilities(logprobs, recorded, mask, cap):
    """Ratios of probabilities, 1 where nobody acted, and their product."""
    ratios = (logprobs.exp() / recorded.exp()).where(mask, torch.ones_like(recorded))
    whole = ratios.prod(1)
    weights = torch.minimum(ratios, torch.full_like(ratios, cap)).masked_fill(~mask, 0)
    largest = (logprobs[mask] - recorded[mask]).abs().max().item()
    return {"largest": largest, "weights": weights, "ess": whole.mean() ** 2 / (whole**2).mean()}


def by_softmax(logprobs, recorded, mask, cap):
    gaps = (logprobs - recorded).masked_fill(~mask, 0)
    shares = gaps.sum(1).softmax(0)
    return {"largest": max(gaps.max(), -gaps.min()), "weights": mask * gaps.exp().clamp(max=cap),
            "ess": 1 / (shares @ shares) / len(shares)}  # fmt: skip


# 12.8 -----------------------------------------------------------------------------------------------------------------


def three(values, mask, room, **changed):
    kept = torch.where(mask, values, 0)
    right = {
        "constant": kept.sum() / len(values) / room,
        "sequence": (kept.sum(1) / mask.sum(1)).mean(),
        "token": values[mask].mean(),
    }
    return right | {name: value(kept) for name, value in changed.items()}


def by_answers(values, mask, room):
    return three(values, mask, room, constant=lambda kept: kept.sum() / len(kept))


def by_columns(values, mask, room):
    return three(values, mask, room, constant=lambda kept: kept.mean())


def padding_in_rows(values, mask, room):
    return three(values, mask, room, sequence=lambda kept: kept.mean(1).mean())


def rows_summed(values, mask, room):
    return three(values, mask, room, sequence=lambda kept: (kept.sum(1) / mask.sum(1)).sum())


def rows_as_tokens(values, mask, room):
    return three(values, mask, room, sequence=lambda kept: kept.sum() / mask.sum())


def padding_in_tokens(values, mask, room):
    return three(values, mask, room, token=lambda kept: kept.mean())


def tokens_as_rows(values, mask, room):
    return three(values, mask, room, token=lambda kept: (kept.sum(1) / mask.sum(1)).mean())


def never_masked(values, mask, room):
    return {
        "constant": values.sum() / len(values) / room,
        "sequence": (values.sum(1) / mask.sum(1)).mean(),
        "token": values.sum() / mask.sum(),
    }


def by_room_alone(values, mask, room):
    return three(values, mask, room, constant=lambda kept: kept.sum() / room)


def with_padding_times_zero(values, mask, room):
    kept = values * mask
    return {
        "constant": kept.sum() / len(values) / room,
        "sequence": (kept.sum(1) / mask.sum(1)).mean(),
        "token": kept.sum() / mask.sum(),
    }


def without_names(values, mask, room):
    return tuple(three(values, mask, room).values())


def under_another_name(values, mask, room):
    found = three(values, mask, room)
    return {"constant": found["constant"], "sequence": found["sequence"], "tokens": found["token"]}


def each_row(values, mask, room):
    return three(values, mask, room, sequence=lambda kept: kept.sum(1) / mask.sum(1))


def by_longest(values, mask, room):
    return three(values, mask, room, constant=lambda kept: kept.sum() / len(kept) / mask.sum(1).max())


def as_losses(values, mask, room):
    return {name: -value for name, value in three(values, mask, room).items()}


def tokens_by_answers(values, mask, room):
    return three(values, mask, room, token=lambda kept: kept.sum() / len(kept))


def with_changed_values(values, mask, room):
    values[~mask] = 0
    return three(values, mask, room)


def without_gradient(values, mask, room):
    return three(values, mask, room, token=lambda kept: (kept.sum() / mask.sum()).detach())


def tokens_not_divided(values, mask, room):
    return three(values, mask, room, token=torch.sum)


def by_mean_length(values, mask, room):
    return three(values, mask, room, constant=lambda kept: kept.sum() / len(kept) / mask.sum(1).double().mean())


def filled_with_zeros(values, mask, room):
    kept = values.masked_fill(~mask, 0)
    sequence = torch.einsum("bt,b->", kept, 1 / mask.sum(1).to(kept)) / len(kept)
    return {"constant": kept.sum(1).mean() / room, "sequence": sequence, "token": kept.sum() / mask.sum()}


def on_lists(values, mask, room):
    rows = [[x for x, chosen in zip(*pair) if chosen] for pair in zip(values.tolist(), mask.tolist())]
    return {
        "constant": sum(map(sum, rows)) / (len(rows) * room),
        "sequence": sum(sum(row) / len(row) for row in rows) / len(rows),
        "token": sum(map(sum, rows)) / sum(map(len, rows)),
    }


def row_after_row(values, mask, room):
    rows = [values[row, kept] for row, kept in enumerate(mask)]
    return {
        "token": torch.cat(rows).mean(),
        "sequence": sum(row.mean() for row in rows) / len(rows),
        "constant": sum(row.sum() / room for row in rows) / len(rows),
    }


# 12.9 -----------------------------------------------------------------------------------------------------------------


def curve(one):
    """For each k the mean over problems of one(c, n, k)."""

    def answer(right, ks):
        n, counts = right.shape[1], right.sum(1).tolist()
        return [sum(one(c, n, k) for c in counts) / len(counts) for k in ks]

    return answer


def by_combinations(c, n, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def drawn(c, n, draws, falling=(1, 1)):
    return 1 - math.prod(max(n - c - falling[0] * d, 0) / max(n - falling[1] * d, 1) for d in draws)


def by_counting(c, n, k):
    return sum(math.comb(c, i) * math.comb(n - c, k - i) for i in range(1, min(c, k) + 1)) / math.comb(n, k)


def as_a_product(c, n, k):
    """The form of the paper's appendix."""
    return 1.0 if n - c < k else 1 - math.prod(1 - k / i for i in range(n - c + 1, n + 1))


def first_right_or_later(c, n, k):
    """Right at the first draw, or wrong and then right at one of the others."""
    return c / n + (n - c) / n * first_right_or_later(c, n - 1, k - 1) if k else 0.0


def first_k(right, ks):
    return [float(right[:, :k].any(1).double().mean()) for k in ks]


def in_one_pot(right, ks):
    return [by_combinations(int(right.sum()), right.numel(), k) for k in ks]


def of_the_mean(right, ks):
    n, c = right.shape[1], float(right.sum(1).double().mean())
    return [1 - math.prod(max(n - c - d, 0) / (n - d) for d in range(k)) for k in ks]


def one_number(right, ks):
    found = curve(by_combinations)(right, ks)
    return sum(found) / len(found)


def of_each_problem(right, ks):
    return [[by_combinations(c, right.shape[1], k) for k in ks] for c in right.sum(1).tolist()]


def summed_over_problems(right, ks):
    return [x * len(right) for x in curve(by_combinations)(right, ks)]


def by_name(right, ks):
    return dict(zip(ks, curve(by_combinations)(right, ks)))


def by_all_draws(right, ks):
    """Every way to draw k of the n answers, counted."""
    from itertools import combinations

    found = []
    for k in ks:
        hits = [any(some) for row in right.tolist() for some in combinations(row, k)]
        found.append(sum(hits) / len(hits))
    return found


def with_tensors(right, ks):
    wrong, n = (~right).sum(1).double(), right.shape[1]
    found = []
    for k in ks:
        draws = torch.arange(k, dtype=torch.float64)
        missed = ((wrong[:, None] - draws).clamp(min=0) / (n - draws)).prod(1)
        found.append(float((1 - missed).mean()))
    return found


# 12.10 ----------------------------------------------------------------------------------------------------------------


def credited(
    of=lambda values: [b - a for a, b in zip(values, values[1:])], mean=lambda rewards: sum(rewards) / len(rewards)
):
    """From the values of all prefixes to credits."""

    def answer(tokens, paid, go_on, samples):
        return of([*(mean(go_on(tokens[:n], samples)) for n in range(len(tokens))), paid])

    return answer


def last_value_sampled(tokens, paid, go_on, samples):
    values = [sum(go_on(tokens[:n], samples)) / samples for n in range(len(tokens) + 1)]
    return [b - a for a, b in zip(values, values[1:])]


def last_token_missing(tokens, paid, go_on, samples):
    return credited()(tokens, paid, go_on, samples)[:-1]


def first_token_missing(tokens, paid, go_on, samples):
    values = [sum(go_on(tokens[:n], samples)) / samples for n in range(1, len(tokens))]
    return [b - a for a, b in zip(values, [*values[1:], paid])]


def one_sample_at_a_time(tokens, paid, go_on, samples):
    values = [sum(go_on(tokens[:n], 1)[0] for _ in range(samples)) / samples for n in range(len(tokens))]
    return [b - a for a, b in zip(values, [*values[1:], paid])]


def token_instead_of_prefix(tokens, paid, go_on, samples):
    values = [sum(go_on([token], samples)) / samples for token in tokens]
    return [b - a for a, b in zip(values, [*values[1:], paid])]


def credited_backwards(tokens, paid, go_on, samples):
    """From the end to the beginning, a token taken off at a time."""
    begun, later, found = list(tokens), paid, []
    while begun:
        begun.pop()
        rewards = torch.tensor(go_on(list(begun), samples), dtype=torch.float64)
        now = rewards.mean().item()
        found.insert(0, later - now)
        later = now
    return found


def credited_with_tensors(tokens, paid, go_on, samples):
    values = [torch.tensor(go_on(tokens[:n], samples), dtype=torch.float64).mean() for n in range(len(tokens))]
    return torch.stack([*values, torch.tensor(paid, dtype=torch.float64)]).diff().tolist()


# 12.11 ----------------------------------------------------------------------------------------------------------------


def contestant(weigh, *, updates=18, lr=1e-4, change=""):
    """The usual loop with some weights, on 8 sums with 4 answers each."""

    def answer(lm, ask):
        trained(change)(lm, lambda policy: ask(policy, 8, 4), weigh, updates, lr, 1.0)
        return lm

    return answer


def paid(rollout, *_):
    return rollout.rewards.sum(1, keepdim=True) * rollout.mask


def finetuned_on_the_right(lm, ask):
    """Lesson 03's loss on the right answers of two to each sum, and nothing else."""
    adam = torch.optim.Adam(lm.parameters(), lr=1e-4)
    for _ in range(600 // 32):
        asked = ask(lm, 16, 2)
        kept = take_rows(asked, asked.rewards.sum(1).nonzero()[:, 0])
        tokens = torch.cat([kept.observations[:, :1], kept.actions], 1)
        adam.zero_grad()
        finetuned()(lm(kept.observations), tokens, kept.mask, torch.ones(len(tokens))).backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        adam.step()
    return lm


def all_at_once(lm, ask):
    ask(lm, 100, 8)
    return lm


def own_sampler(lm, ask):
    """Trained a little, without asking once."""
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(1.001)
    return lm


def its_answers(lm, ask):
    return ask(lm, 2, 2)


def asked_in_vain(lm, ask):
    ask(lm, 2, 2)
    return lm


# 12.12 ----------------------------------------------------------------------------------------------------------------


def setting(*, lengths=(4, 2, 3), prompt=2, words=5, seed=1, precise=True):
    """Random logits, texts with prompt and padding, their mask, and advantages that do not cancel."""
    source, steps = torch.Generator().manual_seed(seed), prompt + max(lengths) + 1
    tokens = torch.randint(words, (len(lengths), steps + 1), generator=source)
    logits = torch.randn(
        len(lengths), steps, words, generator=source, dtype=torch.float64 if precise else torch.float32
    )
    mask = between(steps, [prompt - 1] * len(lengths), [prompt - 1 + n for n in lengths])
    return logits.requires_grad_(), tokens, mask, torch.tensor([1.0, -0.5, 2.0][: len(lengths)]).to(logits)


def gradient_of(run, logits, *given):
    return torch.autograd.grad(run(logits, *given), logits)[0]


def wants_the_mean_over_tokens(run):
    logits, tokens, mask, advantages = setting()
    wanted = -advantages[:, None, None] * mask[..., None] * (one_hot(tokens[:, 1:], 5) - logits.softmax(-1))
    return torch.allclose(gradient_of(run, logits, tokens, mask, advantages), wanted.detach() / mask.sum())


def looks_at_the_written(run):
    """Only the signs at the first step: likelier for a positive advantage."""
    logits, tokens, mask, advantages = setting()
    found, row = gradient_of(run, logits, tokens, mask, advantages), torch.arange(3)
    return bool(((found[row, 1, tokens[row, 2]] < 0) == (advantages > 0)).all())


def looks_at_the_sum_of_the_gradient(run):
    """Scores sum to zero over the vocabulary, whatever the loss is."""
    return bool(gradient_of(run, *setting()).sum(-1).abs().max() < 1e-9)


def of_detached_logits(run):
    logits, *given = setting()
    return torch.autograd.grad(run(logits.detach(), *given), logits)[0].norm() > 0


def called_with_a_rollout(run):
    logits, tokens, mask, advantages = setting()
    return run((logits, tokens, mask), advantages) > 0


def as_a_program(run):
    return run.name == "right"


def against_autograd(run):
    """Against the loss written anew; in single precision."""
    logits, tokens, mask, advantages = setting(precise=False)
    mine = -(advantages[:, None] * chosen(logits, tokens[:, 1:], mask)).sum() / 3
    wanted = torch.autograd.grad(mine, logits)[0]
    assert torch.allclose(gradient_of(run, logits, tokens, mask, advantages), wanted, atol=1e-6)
    return True


def token_after_token(run):
    """By finite differences of the loss, entry by entry."""
    logits, tokens, mask, advantages = setting(lengths=(3, 2), words=3)
    logits = logits.detach()
    for b, t, v in torch.cartesian_prod(*map(torch.arange, logits.shape)).tolist():
        changed = [logits.clone(), logits.clone()]
        changed[0][b, t, v] += 1e-4
        changed[1][b, t, v] -= 1e-4
        up, down = (float(run(each, tokens, mask, advantages)) for each in changed)
        pi = math.exp(log_softmax(logits[b, t].tolist())[v])
        wanted = -float(advantages[b]) / 2 * (float(tokens[b, t + 1] == v) - pi) if mask[b, t] else 0.0
        if abs((up - down) / 2e-4 - wanted) > 1e-5:
            return False
    return True


WRONG = {
    "12.1": [
        (record(observations=lambda tokens, *_: tokens), "observations: the last token is read too"),
        (record(observations=lambda tokens, *_: tokens[:, 1:], actions=lambda tokens, *_: tokens[:, :-1]), "exchanged"),
        (padded_on_the_left, "padding stands on the left"),
        (last_of_each_cut_off, "the last token of each text is cut off"),
        (record(actions=lambda tokens, *_: tokens[:, :-1]), "the action is the token that was read"),
        (with_the_last_column, "actions: the last column is there still"),
        (record(first=0, end=0), "mask: one step late"),
        (record(first=0), "mask: starts one step late"),
        (record(first=lambda p, c: [max(0, n - 2) for n in p]), "mask: one step too many at the beginning"),
        (record(end=-2), "mask: the end token is missing"),
        (record(first=lambda p, c: [0] * len(p)), "mask: the prompt is included"),
        (record(end=lambda p, c: [99] * len(p)), "mask: padding is included"),
        (record(first=lambda p, c: [0] * len(p), end=lambda p, c: [n - 1 for n in p]), "mask: True at the prompt"),
        (record(first=lambda p, c: [0] * len(p), end=lambda p, c: c), "mask: the prompt's length is ignored"),
        (record(mask=lambda tokens, right, _: torch.ones_like(right["mask"])), "mask: everything is True"),
        (record(mask=lambda tokens, right, _: right["mask"].float()), "bool"),
        (record(score=lambda x, written, mask: torch.where(mask, taken(x, written), 0)), "log_softmax is missing"),
        (record(score=lambda *x: torch.where(x[2], chosen(*x).exp(), 0)), "take the logarithm"),
        (record(score=lambda *x: -chosen(*x)), "logprobs: the sign is turned"),
        (record(logprobs=lambda _, right, x: chosen(x, right["observations"], right["mask"])), "logprobs: shifted"),
        (record(score=lambda x, written, mask: taken(x.log_softmax(-1), written) * mask), "0 times infinity"),
        (record(score=lambda x, written, mask: taken(x.log_softmax(-1), written)), "0 where mask is False"),
        (record(score=lambda x, written, mask: torch.where(mask, taken(x.log_softmax(1), written), 0)), "the steps"),
        (record(score=lambda x, written, mask: torch.where(mask, x.log_softmax(-1).max(-1).values, 0)), "likeliest"),
        (record(score=lambda x, written, mask: torch.where(mask, taken(x.softmax(-1), written).log(), 0)), "infinite"),
        (record(score=lambda *x: chosen(*x).sum(1)), "one number per text"),
        (prompts_grow, "changed in place"),
        (as_lists, "is a list"),
        (without_logprobs, "has the keys"),
    ],
    "12.2": [
        (trained("stale"), "sampled once"),
        (trained("adding"), "gradients add up"),
        (trained("renewed"), "a new Adam at every update"),
        (trained("sgd"), "plain gradient descent"),
        (trained("sign"), "the sign of the loss"),
        (trained("per step"), "divided by the number of steps"),
        (trained("not divided"), "not divided by the number of episodes"),
        (trained("no step"), "no step is made"),
        (trained("copy"), "no step is made"),
        (trained("attached"), "given: weigh gets log π with its gradient"),
        (trained("recorded"), "given: weigh gets the sampler's"),
        (trained("not clipped"), "the gradient is not clipped"),
        (trained("entries clipped"), "by its norm"),
        (trained("norm after"), "norm: the norm after clipping"),
        (trained("one less"), "one update too few"),
        (trained("sampled after"), "batches: one batch too many"),
        (trained("not weighted"), "the weights are not used"),
        (trained("reward per step"), "reward: the mean over steps"),
        (trained("padding paid"), "reward: rewards on padding"),
        (trained("reward summed"), "reward: the sum over episodes"),
        (trained("columns counted"), "length: the number of columns"),
        (trained("all steps"), "length: all steps"),
        (trained("log π"), "nats: the sign is turned"),
        (trained("nats of columns"), "nats: the mean over all T columns"),
        (trained("nats per episode"), "nats: summed over an episode's steps"),
        (trained("no norm"), "no 'norm'"),
        (trained("nothing noted"), "nothing is noted"),
        (trained("last alone"), "the last update alone"),
        (trained("pair"), "a dict of lists"),
        (trained("rows"), "a dict of lists"),
    ],
    "12.3": [
        (whole_batch, "one gradient for the whole batch"),
        (by_rows(lambda logs, one: logs.sum() / one.mask.sum()), "divided by the answer's length"),
        (by_rows(lambda logs, one: logs.sum(), lambda parts: parts[:1]), "the first parameter alone"),
        (by_rows(lambda logs, one: logs.sum(), lambda parts: parts[-1:]), "the last parameter alone"),
        (by_rows(lambda logs, one: logs.sum(), lambda parts: parts[::-1]), "in reverse order"),
        (by_rows(lambda logs, one: logs[0, 0]), "the first step alone"),
        (by_rows(lambda logs, one: logs[0, one.mask.sum() - 1]), "the last step alone"),
        (by_rows(lambda logs, one: (logs * one.rewards)[one.mask].sum()), "weighted by the rewards"),
        (by_rows(lambda logs, one: logs.sum() * one.rewards[one.mask].sum()), "weighted by the return"),
        (by_rows(lambda logs, one: -logs.sum()), "the sign is turned"),
        (by_rows(lambda logs, one: logs.sum().exp()), "the gradient of π"),
        (with_padding, "padding is differentiated too"),
        (graph_gone, "backward through the graph a second time"),
        (not_laid_end_to_end, "a list of parts"),
        (added_up, "all rows before it"),
    ],
    "12.4": [
        (finetuned(lambda losses, mask, returns: -(returns * losses.sum(1)).mean()), "the sign is turned"),
        (finetuned(shift=0), "unshifted"),
        (finetuned(cut=False), "prompt and padding are trained on"),
        (finetuned(lambda losses, mask, returns: losses.sum(1).mean()), "not weighted"),
        (finetuned(lambda losses, mask, returns: (returns * losses.sum(1) / mask.sum(1)).mean()), "each answer's mean"),
        (finetuned(lambda losses, mask, returns: (returns * losses.mean(1)).mean()), "over all T columns"),
        (
            finetuned(lambda losses, mask, returns: returns @ losses.sum(1) / mask.sum()),
            "divided by the number of tokens",
        ),
        (finetuned(lambda losses, mask, returns: returns @ losses.sum(1)), "summed over answers"),
        (finetuned(lambda losses, mask, returns: returns @ losses.sum(1) / returns.sum()), "the sum of the returns"),
        (finetuned(lambda losses, mask, returns: returns.mean() * losses.sum(1).mean()), "the mean return"),
        (finetuned(lambda losses, mask, returns: (returns.clamp(min=0) * losses.sum(1)).mean()), "are cut off"),
        (finetuned(lambda losses, mask, returns: returns * losses.sum(1)), "one number per answer"),
        (cut_from_the_graph, "gradient"),
        (as_a_number, "only a tensor carries a gradient"),
        (reduced_by_torch, "over all tokens of the batch"),
    ],
    "12.5": [
        (with_itself, "the mean includes the row itself"),
        (by_group_size, "one fewer of them"),
        (itself_not_taken_out, "own return out of the sum"),
        (without_groups, "as if groups were 0"),
        (batch_mean, "groups are ignored and"),
        (turned_sign, "the sign turned"),
        (baseline_alone, "this is the baseline"),
        (grpo, "GRPO"),
        (returns_alone, "no baseline in it"),
        (filled, "as if mask were True everywhere"),
        (per_row, "one number per row"),
        (shared_out, "divided by the number of True in each row of mask"),
        (equals_left_out, "all equal returns are left out"),
        (not_put_back, "not put back"),
        (while_changing, "changed in place"),
        (last_token, "last True of each row of mask alone"),
        (outside, "mask turned round"),
        (over_deviation, "standard deviation too"),
        (grpo_biased, "GRPO"),
        (of_other_groups, "the other groups"),
        (less_the_sum, "sum is subtracted"),
        (against_the_best, "the best of the others"),
        (against_the_row_before, "the row before"),
        (never_negative, "cut off below 0"),
    ],
    "12.6": [
        (pair(noise=lambda g, P: trace(g)), "noise: the noise of one prompt's"),
        (pair(noise=lambda g, P: trace(g) / len(g)), "noise: divided by the number of gradients K"),
        (pair(noise=lambda g, P: trace(g, 0) / P), "noise: the squared deviations are divided by K"),
        (pair(noise=lambda g, P: g.var(0).mean() / P), "noise: the mean of the variances"),
        (pair(noise=lambda g, P: g.std(0).sum() / P), "noise: standard deviations are added"),
        (pair(noise=lambda g, P: (trace(g) / P).sqrt()), "noise: the root"),
        (pair(noise=lambda g, P: trace(g) / P**0.5), "noise: divided by the root of"),
        (pair(noise=lambda g, P: g.var() / P), "noise: the variance of all entries"),
        (pair(noise=lambda g, P: (g**2).sum(1).mean() / P), "noise: the mean is not taken off"),
        (pair(signal=lambda g, P: (g.mean(0) ** 2).sum()), "signal: not corrected"),
        (pair(signal=lambda g, P: (g.mean(0) ** 2).sum() - trace(g) / P), "signal: corrected by the noise of a batch"),
        (pair(signal=lambda g, P: (g.mean(0) ** 2).sum() + trace(g) / len(g)), "signal: the noise is added"),
        (pair(signal=lambda g, P: (g**2).sum(1).mean()), "signal: the mean squared length"),
        (pair(signal=lambda g, P: (g.mean(0) ** 2).sum() - trace(g)), "signal: all of the spread"),
        (pair(signal=lambda g, P: g.mean(0).norm()), "signal: the length"),
        (pair(signal=lambda g, P: g.mean() ** 2), "signal: the mean over all entries"),
        (lambda gradients, prompts: tuple(from_pairs(gradients, prompts).values()), "is a tuple, expected a dict"),
    ],
    "12.7": [
        (against(largest=lambda gaps, mask, cap: gaps[mask].max()), "largest: the sign is kept"),
        (against(largest=lambda gaps, mask, cap: -gaps[mask].min()), "largest: the sign is turned"),
        (against(largest=lambda gaps, mask, cap: gaps[mask].abs().mean()), "largest: the mean"),
        (against(cut=lambda gaps, mask: gaps), "largest: prompt and padding count"),
        (against(largest=lambda gaps, mask, cap: gaps.sum(1).abs().max()), "largest: whole answers"),
        (against(largest=lambda gaps, mask, cap: gaps[mask].exp().max()), "largest: a ratio"),
        (against(largest=lambda gaps, mask, cap: gaps.abs().max(1).values), "largest: one number per answer"),
        (against(weights=lambda gaps, mask, cap: gaps.exp() * mask), "weights: not cut off"),
        (sampler_first, "weights: the ratio is turned round"),
        (against(weights=lambda gaps, mask, cap: gaps.exp().clamp(min=cap) * mask), "weights: raised to the cap"),
        (against(weights=lambda gaps, mask, cap: gaps.exp() * (gaps.exp() <= cap) * mask), "weights: 0 beyond the cap"),
        (against(weights=lambda gaps, mask, cap: gaps.exp().clamp(1 / cap, cap) * mask), "weights: cut off below"),
        (
            against(weights=lambda gaps, mask, cap: gaps.clamp(max=cap).exp() * mask),
            "weights: the difference is cut off",
        ),
        (against(weights=lambda gaps, mask, cap: gaps.clamp(max=cap) * mask), "weights: the difference of the"),
        (
            against(weights=lambda gaps, mask, cap: gaps.sum(1, keepdim=True).exp().clamp(max=cap) * mask),
            "each token has",
        ),
        (against(weights=lambda gaps, mask, cap: gaps.exp().clamp(max=cap)), "weights: 1 where mask is False"),
        (against(ess=lambda gaps, mask, cap: share(gaps.sum(1).exp()) * len(gaps)), "ess: a number of answers"),
        (against(ess=lambda gaps, mask, cap: share(gaps[mask].exp())), "ess: from the tokens' ratios"),
        (
            against(ess=lambda gaps, mask, cap: share(gaps.sum(1).exp().clamp(max=cap))),
            "ess: from ratios that are cut off",
        ),
        (
            against(ess=lambda gaps, mask, cap: share(gaps.exp().clamp(max=cap).prod(1))),
            "ess: from ratios that are cut off",
        ),
        (against(ess=lambda gaps, mask, cap: 1 / share(gaps.sum(1).exp()) / len(gaps) ** 2), "ess: upside down"),
        (
            against(ess=lambda gaps, mask, cap: gaps.sum(1).exp().sum() / (2 * gaps.sum(1)).exp().sum() / len(gaps)),
            "squared",
        ),
        (against(cut=lambda gaps, mask: gaps * mask), "0 times infinity"),
    ],
    "12.8": [
        (by_answers, "constant: divided by the answers alone"),
        (by_columns, "constant: divided by B times T"),
        (by_room_alone, "constant: divided by the room alone"),
        (padding_in_rows, "sequence: each row is divided by T"),
        (rows_summed, "sequence: summed over rows"),
        (rows_as_tokens, "sequence: the mean over all tokens"),
        (padding_in_tokens, "token: divided by B times T"),
        (tokens_as_rows, "token: the mean of the rows' means"),
        (never_masked, "constant: prompt and padding are summed"),
        (with_padding_times_zero, "0 times infinity"),
        (without_names, "is a tuple, expected a dict"),
        (under_another_name, "has the keys constant, sequence, tokens"),
        (each_row, "sequence: one number per row"),
        (by_longest, "constant: divided by B times the longest"),
        (as_losses, "the sign turned"),
        (tokens_by_answers, "token: divided by the number of answers"),
        (with_changed_values, "in-place operation"),
        (on_lists, "only a tensor carries a gradient"),
        (without_gradient, "its gradient by values is not"),
        (tokens_not_divided, "token: not divided"),
        (by_mean_length, "constant: divided by the number of tokens"),
    ],
    "12.9": [
        (curve(lambda c, n, k: 1 - (1 - c / n) ** k), "with putting back"),
        (curve(lambda c, n, k: c / n), "pass@1"),
        (curve(lambda c, n, k: k * c / n), "do not add up"),
        (curve(lambda c, n, k: min(1.0, k * c / n)), "cut at 1"),
        (curve(lambda c, n, k: math.comb(c, k) / math.comb(n, k)), "all k are right"),
        (curve(lambda c, n, k: math.comb(n - c, k) / math.comb(n, k)), "all k are wrong"),
        (curve(lambda c, n, k: (1 - c / n) ** k), "(1 - c/n)^k"),
        (curve(lambda c, n, k: c * math.comb(n - c, k - 1) / math.comb(n, k)), "exactly one"),
        (curve(lambda c, n, k: float(c > 0)), "pass@n"),
        (first_k, "the first k answers"),
        (curve(lambda c, n, k: 1 - math.comb(c, k) / math.comb(n, k)), "complement of all wrong"),
        (curve(lambda c, n, k: drawn(c, n, range(k - 1))), "one draw too few"),
        (curve(lambda c, n, k: drawn(c, n, range(k + 1))), "one draw too many"),
        (curve(lambda c, n, k: 0.0 if n - c < k else by_combinations(c, n, k)), "fewer than k are wrong"),
        (curve(lambda c, n, k: drawn(c, n, range(k), (0, 1))), "wrong ones left does not fall"),
        (curve(lambda c, n, k: drawn(c, n, range(k), (1, 0))), "answers left does not fall"),
        (curve(lambda c, n, k: 1 - (1 - k / n) ** c), "1 - (1 - k/n)^c"),
        (in_one_pot, "in one pot"),
        (of_the_mean, "from the mean number"),
        (summed_over_problems, "summed over problems"),
        (one_number, "one number for all k"),
        (of_each_problem, "a row per problem"),
        (by_name, "is a dict"),
        (curve(lambda c, n, k: 100 * by_combinations(c, n, k)), "percent"),
    ],
    "12.10": [
        (credited(lambda values: [values[-1] - values[0]] * (len(values) - 1)), "the same credit for all"),
        (credited(lambda values: [a - b for a, b in zip(values, values[1:])]), "the sign is turned"),
        (credited(lambda values: values[1:]), "the values after each token"),
        (credited(lambda values: values[:-1]), "the values before each token"),
        (credited(lambda values: [values[-1] - x for x in values[:-1]]), "the reward less the value before"),
        (credited(lambda values: [values[-1] - x for x in values[1:]]), "the reward less the value after"),
        (credited(mean=sum), "rewards are summed"),
        (credited(mean=lambda rewards: rewards[0]), "the first sample alone"),
        (credited(mean=max), "the best sample"),
        (credited(lambda values: [x - values[0] for x in values[1:]]), "compared with the value of the prompt"),
        (credited(lambda values: [b / a - 1 for a, b in zip(values, values[1:])]), "relative changes"),
        (credited(lambda values: [abs(b - a) for a, b in zip(values, values[1:])]), "the sizes alone"),
        (credited(lambda values: values), "one more than tokens"),
        (last_value_sampled, "the last value is sampled"),
        (last_token_missing, "the last token is missing"),
        (first_token_missing, "the first token is missing"),
        (one_sample_at_a_time, "samples are asked for"),
        (token_instead_of_prefix, "the first tokens of the answer are expected"),
    ],
    "12.11": [
        (asked_in_vain, "nothing was learned"),
        (its_answers, "no language model but a Rollout"),
        (all_at_once, "the budget of 600 answers"),
        (own_sampler, "not one answer was asked for"),
        (
            lambda lm, ask: trained()(lm, lambda policy: ask(policy, 2, 2), paid, 1, 1e-4),
            "no language model but a dict",
        ),
        (contestant(paid, updates=1, change="sign", lr=3e-4), "worse than it was handed over"),
    ],
    "12.12": [
        (lambda run: True, "which entry of the logits"),
        (looks_at_the_sum_of_the_gradient, "which entry of the logits"),
        (looks_at_the_written, "for the size of the gradient"),
        (wants_the_mean_over_tokens, "refuses the right run"),
        (lambda run: None, "refuses the right run"),
        (of_detached_logits, "does not require grad"),
        (called_with_a_rollout, "missing 2 required"),
        (0.5, "not callable"),
    ],
}
RIGHT = {
    "12.1": [record(), record_in_lists, record_by_marks, record_at_its_steps],
    "12.2": [trained(), maximised],
    "12.3": [scores_by_rows, by_backward, with_a_batch_of_ones, column_by_column],
    "12.4": [finetuned(), multiplied_away, finetuned_by_labels, finetuned_by_one_hot, finetuned_at_its_steps],
    "12.5": [loop_rloo, rescaled_mean, by_einsum, by_sums_of_groups],
    "12.6": [pair(), from_pairs, column_after_column, by_covariance],
    "12.7": [against(), step_after_step, in_probabilities, by_softmax],
    "12.8": [row_after_row, filled_with_zeros],
    "12.9": [curve(by_combinations), curve(as_a_product), curve(by_counting), curve(first_right_or_later), by_all_draws,
             with_tensors],
    "12.10": [credited(), credited_backwards, credited_with_tensors],
    "12.11": [contestant(paid), finetuned_on_the_right],
    "12.12": [against_autograd, token_after_token],
}  # fmt: skip
