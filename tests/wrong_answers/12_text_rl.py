"""Typical wrong answers to the exercises of lesson 12, and right ones written differently."""

import math

import torch

# 12.1 -----------------------------------------------------------------------------------------------------------------


def between(steps, first, end):
    t = torch.arange(steps)
    return (t >= first[:, None]) & (t < end[:, None])


def late(p, c, steps):
    return between(steps, p, p + c)


def early(p, c, steps):
    return between(steps, p - 2, p - 2 + c)


def without_end(p, c, steps):
    return between(steps, p - 1, p - 2 + c)


def without_first(p, c, steps):
    return between(steps, p, p - 1 + c)


def one_more(p, c, steps):
    return between(steps, p - 1, p + c)


def with_prompt(p, c, steps):
    return between(steps, 0 * p, p - 1 + c)


def with_padding(p, c, steps):
    return between(steps, p - 1, 0 * p + steps)


def turned(p, c, steps):
    return ~between(steps, p - 1, p - 1 + c)


def prompt_alone(p, c, steps):
    return between(steps, 0 * p, p - 1)


def without_prompt_length(p, c, steps):
    return between(steps, 0 * p, c)


def end_of_text(p, c, steps):
    return between(steps, p - 1, c)


def as_numbers(p, c, steps):
    return between(steps, p - 1, p - 1 + c).float()


def either(p, c, steps):
    t = torch.arange(steps)
    return (t >= p[:, None] - 1) | (t < p[:, None] - 1 + c[:, None])


def swapped(p, c, steps):
    return between(steps, c - 1, c - 1 + p)


def with_changed_lengths(p, c, steps):
    p -= 1
    return between(steps, p, p + c)


def by_loop(p, c, steps):
    mask = torch.zeros(len(p), steps, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(zip(p.tolist(), c.tolist())):
        mask[row, prompt - 1 : prompt - 1 + completion] = True
    return mask


def shifted_down(p, c, steps):
    """The mask of tokens, then without its first column: the action at t is token t + 1."""
    return between(steps + 1, p, p + c)[:, 1:]


def whole_text_and_more(p, c, steps):
    return between(steps, 0 * p, p + c)


def up_to_the_end_included(p, c, steps):
    t, first = torch.arange(steps), p[:, None] - 1
    return (t >= first) & (t <= first + c[:, None])


def by_changes(p, c, steps):
    """1 where the completion begins, -1 behind its end, summed up."""
    change, row = torch.zeros(len(p), steps + 1), torch.arange(len(p))
    change[row, p - 1] += 1
    change[row, p - 1 + c] -= 1
    return change.cumsum(1)[:, :-1] > 0


# 12.2 -----------------------------------------------------------------------------------------------------------------


def gaps(logits, tokens, recorded, shift=1):
    picked = tokens[:, shift : shift + logits.shape[1], None]
    return logits.log_softmax(-1).gather(-1, picked)[..., 0] - recorded


def signed(logits, tokens, recorded, mask):
    return gaps(logits, tokens, recorded)[mask].max()


def average(logits, tokens, recorded, mask):
    return gaps(logits, tokens, recorded)[mask].abs().mean()


def average_with_padding(logits, tokens, recorded, mask):
    return (gaps(logits, tokens, recorded) * mask).abs().mean()


def summed(logits, tokens, recorded, mask):
    return gaps(logits, tokens, recorded)[mask].abs().sum()


def everywhere(logits, tokens, recorded, mask):
    return gaps(logits, tokens, recorded).abs().max()


def tokens_read(logits, tokens, recorded, mask):
    return gaps(logits, tokens, recorded, shift=0)[mask].abs().max()


def raw_logits(logits, tokens, recorded, mask):
    return (logits.gather(-1, tokens[:, 1:, None])[..., 0] - recorded)[mask].abs().max()


def probabilities(logits, tokens, recorded, mask):
    return (logits.softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0] - recorded)[mask].abs().max()


def smallest(logits, tokens, recorded, mask):
    return gaps(logits, tokens, recorded)[mask].abs().min()


def squared(logits, tokens, recorded, mask):
    return (gaps(logits, tokens, recorded)[mask] ** 2).max()


def multiplied_away(logits, tokens, recorded, mask):
    return (gaps(logits, tokens, recorded) * mask).abs().max()


def lowest(logits, tokens, recorded, mask):
    return -gaps(logits, tokens, recorded)[mask].min()


def of_axis(logits, tokens, recorded, mask, axis):
    return (logits.log_softmax(axis).gather(-1, tokens[:, 1:, None])[..., 0] - recorded)[mask].abs().max()


def over_steps(logits, tokens, recorded, mask):
    return of_axis(logits, tokens, recorded, mask, 1)


def over_texts(logits, tokens, recorded, mask):
    return of_axis(logits, tokens, recorded, mask, 0)


def of_whole_texts(logits, tokens, recorded, mask):
    return torch.where(mask, gaps(logits, tokens, recorded), 0).sum(1).abs().max()


def of_each_text(logits, tokens, recorded, mask):
    return torch.where(mask, gaps(logits, tokens, recorded), 0).abs().max(1).values


def of_each_step(logits, tokens, recorded, mask):
    return gaps(logits, tokens, recorded)[mask].abs()


def likeliest(logits, tokens, recorded, mask):
    return (logits.log_softmax(-1).max(-1).values - recorded)[mask].abs().max()


def of_probabilities(logits, tokens, recorded, mask):
    return ((gaps(logits, tokens, recorded) + recorded).exp() - recorded.exp())[mask].abs().max()


def log_of_softmax(logits, tokens, recorded, mask):
    now = logits.softmax(-1).log().gather(-1, tokens[:, 1:, None])[..., 0]
    return (now - recorded)[mask].abs().max()


def root_of_mean_square(logits, tokens, recorded, mask):
    return (gaps(logits, tokens, recorded)[mask] ** 2).mean().sqrt()


def of_the_averages(logits, tokens, recorded, mask):
    return gaps(logits, tokens, recorded)[mask].mean().abs()


def in_bits(logits, tokens, recorded, mask):
    return step_by_step(logits, tokens, recorded, mask) / math.log(2)


def as_a_norm(logits, tokens, recorded, mask):
    return torch.linalg.vector_norm(gaps(logits, tokens, recorded)[mask], ord=math.inf)


def by_cross_entropy(logits, tokens, recorded, mask):
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return (losses + recorded)[mask].abs().max().item()


def by_one_hot(logits, tokens, recorded, mask):
    chosen = torch.nn.functional.one_hot(tokens[:, 1:], logits.shape[-1]).to(logits)
    return torch.where(mask, torch.einsum("btv,btv->bt", logits.log_softmax(-1), chosen) - recorded, 0).abs().max()


def step_by_step(logits, tokens, recorded, mask):
    largest = 0.0
    for b, t in mask.nonzero().tolist():
        now = torch.distributions.Categorical(logits=logits[b, t]).log_prob(tokens[b, t + 1])
        largest = max(largest, abs(float(now - recorded[b, t])))
    return largest


# 12.3 -----------------------------------------------------------------------------------------------------------------


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


# 12.4 -----------------------------------------------------------------------------------------------------------------


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


# 12.5 -----------------------------------------------------------------------------------------------------------------


def with_putting_back(c, n, k):
    return 1 - (1 - c / n) ** k


def first_alone(c, n, k):
    return c / n


def added_up(c, n, k):
    return k * c / n


def added_up_to_one(c, n, k):
    return min(1.0, k * c / n)


def all_right(c, n, k):
    return math.comb(c, k) / math.comb(n, k)


def all_wrong(c, n, k):
    return math.comb(n - c, k) / math.comb(n, k)


def exactly_one(c, n, k):
    return c * math.comb(n - c, k - 1) / math.comb(n, k)


def any_sample(c, n, k):
    return float(c > 0)


def drawn(c, n, draws, falling=(1, 1)):
    return 1 - math.prod(max(n - c - falling[0] * d, 0) / max(n - falling[1] * d, 1) for d in draws)


def from_one(c, n, k):
    return drawn(c, n, range(1, k))


def one_draw_less(c, n, k):
    return drawn(c, n, range(k - 1))


def one_draw_more(c, n, k):
    return drawn(c, n, range(k + 1))


def wrong_ones_stay(c, n, k):
    return drawn(c, n, range(k), (0, 1))


def samples_stay(c, n, k):
    return drawn(c, n, range(k), (1, 0))


def not_all_right(c, n, k):
    return 1 - math.comb(c, k) / math.comb(n, k)


def exchanged(c, n, k):
    return 1 - (1 - k / n) ** c


def none_where_few_are_wrong(c, n, k):
    return 0.0 if n - c < k else by_combinations(c, n, k)


def in_percent(c, n, k):
    return 100 * by_combinations(c, n, k)


def first_right_or_later(c, n, k):
    """Right at the first draw, or wrong and then right at one of the others."""
    return c / n + (n - c) / n * first_right_or_later(c, n - 1, k - 1) if k else 0.0


def by_gamma(c, n, k):
    if n - c < k:
        return 1.0
    signed = ((1, n - c), (-1, n - c - k), (1, n - k), (-1, n))
    return 1 - math.exp(sum(sign * math.lgamma(x + 1) for sign, x in signed))


def by_counting(c, n, k):
    return sum(math.comb(c, i) * math.comb(n - c, k - i) for i in range(1, min(c, k) + 1)) / math.comb(n, k)


def by_combinations(c, n, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def as_a_product(c, n, k):
    """The form of the paper's appendix."""
    return 1.0 if n - c < k else 1 - math.prod(1 - k / i for i in range(n - c + 1, n + 1))


WRONG = {
    "12.1": [
        (late, "one step late"),
        (early, "one place early along steps"),
        (without_end, "for completion_lengths minus 1"),
        (without_first, "starts one step late"),
        (one_more, "for completion_lengths plus 1"),
        (with_prompt, "prompt is included"),
        (with_padding, "padding is included"),
        (turned, "subtracted from 1"),
        (prompt_alone, "True at the prompt"),
        (without_prompt_length, "length is ignored"),
        (end_of_text, "taken for the end of the text"),
        (as_numbers, "expected a tensor of bools"),
        (either, "everything is True"),
        (swapped, "prompt_lengths and completion_lengths exchanged"),
        (with_changed_lengths, "changed in place"),
        (whole_text_and_more, "the prompt is included, and one step too many"),
        (up_to_the_end_included, "for completion_lengths plus 1"),
    ],
    "12.2": [
        (signed, "sign is kept"),
        (average, "the average: one step"),
        (average_with_padding, "the average over all steps"),
        (summed, "summed"),
        (everywhere, "prompt and padding count"),
        (tokens_read, "shifted"),
        (raw_logits, "log_softmax is missing"),
        (probabilities, "take the logarithm"),
        (smallest, "smallest"),
        (squared, "squared"),
        (multiplied_away, "0 times infinity"),
        (lowest, "sign is turned, not dropped"),
        (over_steps, "softmax goes over the steps"),
        (over_texts, "softmax goes over the texts"),
        (of_whole_texts, "whole texts are compared"),
        (of_each_text, "before the largest over"),
        (of_each_step, "before the largest over the last"),
        (likeliest, "the likeliest token is scored"),
        (of_probabilities, "probabilities are subtracted"),
        (log_of_softmax, "infinite: a probability"),
        (root_of_mean_square, "the root of the squares"),
        (of_the_averages, "the difference of the averages"),
        (in_bits, "in bits"),
    ],
    "12.3": [
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
    "12.4": [
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
    "12.5": [
        (with_putting_back, "with putting back"),
        (first_alone, "pass@1"),
        (added_up, "do not add up"),
        (added_up_to_one, "do not add up"),
        (all_right, "all k are right"),
        (all_wrong, "subtracted from 1"),
        (exactly_one, "exactly one"),
        (any_sample, "pass@n"),
        (from_one, "first draw is missing"),
        (one_draw_less, "one draw too few"),
        (one_draw_more, "for k plus 1"),
        (wrong_ones_stay, "wrong ones left does not fall"),
        (samples_stay, "samples left does not fall"),
        (not_all_right, "complement of all wrong"),
        (exchanged, "1 - (1 - k/n)^c"),
        (none_where_few_are_wrong, "fewer than k are wrong"),
        (in_percent, "as a percentage"),
    ],
    "12.6": [
        ({"A": "temperature", "B": "shift", "C": "first token", "D": "discount"}, "A: 'temperature'"),
        ({"A": "stale sampler", "B": "prompt", "C": "first token", "D": "discount"}, "B: 'prompt'"),
        ({"A": "stale sampler", "B": "shift", "C": "end token", "D": "discount"}, "C: 'end token'"),
        ({"A": "stale sampler", "B": "shift", "C": "first token", "D": "normalizer"}, "D: 'normalizer'"),
        ({"A": "stale sampler", "B": "shift", "C": "first token", "D": "clip"}, "is not on the list"),
        ({"A": "stale sampler"}, "a dict with the keys"),
    ],
}
RIGHT = {
    "12.1": [by_loop, shifted_down, by_changes],
    "12.2": [step_by_step, by_cross_entropy, by_one_hot, as_a_norm],
    "12.3": [loop_rloo, rescaled_mean, by_einsum, by_sums_of_groups],
    "12.4": [row_after_row, filled_with_zeros],
    "12.5": [by_combinations, as_a_product, by_counting, first_right_or_later, by_gamma],
    "12.6": [{"D": "Discount", "C": "first token", "B": "shift", "A": "stale sampler"}],
}
