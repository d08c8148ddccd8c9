"""Typical wrong answers of lesson 00, each with words of its diagnosis, and right answers written differently."""

import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy


def kept(values, mask):
    """The values where mask is True, else 0: what a right answer does with padding."""
    return torch.where(mask, values, torch.zeros_like(values))


def scored(logits, tokens):
    return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


def not_shifted(logits, tokens, mask):
    return (scored(logits, tokens) * mask).sum(1)


def shifted_backwards(logits, tokens, mask):
    return kept(scored(logits[:, 1:], tokens[:, :-1]), mask[:, 1:]).sum(1)


def with_padding(logits, tokens, mask):
    return scored(logits[:, :-1], tokens[:, 1:]).sum(1)


def probabilities_added(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]).exp(), mask[:, 1:]).sum(1)


def likelihood(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, 1:]).sum(1).exp()


def raw_logits(logits, tokens, mask):
    return kept(logits[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1), mask[:, 1:]).sum(1)


def negative(logits, tokens, mask):
    return -kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, 1:]).sum(1)


def mean_per_token(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)


def by_cross_entropy(logits, tokens, mask):
    rows = []
    for row, ids, kept in zip(logits, tokens, mask):
        length = int(kept.sum())
        rows.append(-cross_entropy(row[: length - 1], ids[1:length], reduction="sum"))
    return torch.stack(rows)


def mean_of_perplexities(logprobs, mask):
    return (-kept(logprobs, mask).sum(1) / mask.sum(1)).exp().mean()


def mean_over_texts(logprobs, mask):
    return (-kept(logprobs, mask).sum(1) / mask.sum(1)).mean().exp()


def padding_counted(logprobs, mask):
    return (-logprobs.mean()).exp()


def per_text(logprobs, mask):
    return (-kept(logprobs, mask).sum(1).mean()).exp()


def power_of_two(logprobs, mask):
    return 2 ** -logprobs[mask].mean()


def without_the_sign(logprobs, mask):
    return logprobs[mask].mean().exp()


def loss(logprobs, mask):
    return -logprobs[mask].mean()


def in_bits(logprobs, mask):
    return 2 ** (-kept(logprobs, mask).sum() / math.log(2) / mask.sum())


def as_root(logprobs, mask):
    return float(np.prod(np.exp(-logprobs[mask].numpy()) ** (1 / int(mask.sum()))))


def greedy(logits, temperature, uniform):
    return logits.argmax(-1)


def temperature_multiplied(logits, temperature, uniform):
    return ((logits * temperature).softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1)


def temperature_ignored(logits, temperature, uniform):
    return (logits.softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1)


def one_too_far(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1) + 1


def one_too_early(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) <= uniform[:, None]).sum(-1) - 1


def no_running_sum(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1) <= uniform[:, None]).sum(-1)


def first_larger_probability(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1) > uniform[:, None]).int().argmax(-1)


def temperature_on_probabilities(logits, temperature, uniform):
    return ((logits.softmax(-1) / temperature).cumsum(-1) <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def by_search(logits, temperature, uniform):
    cumulative = np.exp((logits / temperature).log_softmax(-1).numpy()).cumsum(-1)
    return torch.tensor([np.searchsorted(row, u, side="right") for row, u in zip(cumulative, uniform.numpy())])


def by_subtraction(logits, temperature, uniform):
    tokens = []
    for row, rest in zip((logits / temperature).softmax(-1).tolist(), uniform.tolist()):
        token = 0
        while rest >= row[token]:
            rest, token = rest - row[token], token + 1
        tokens.append(token)
    return torch.tensor(tokens)


def two_per_parameter(parameters, layers, width, context, tokens):
    return 2 * parameters * tokens


def forward_alone(parameters, layers, width, context, tokens):
    return (2 * parameters + 2 * layers * width * (context + 1)) * tokens


def without_attention(parameters, layers, width, context, tokens):
    return 6 * parameters * tokens


def attention_over_all(parameters, layers, width, context, tokens):
    return (6 * parameters + 12 * layers * width * context) * tokens


def attention_not_halved(parameters, layers, width, context, tokens):
    return (6 * parameters + 12 * layers * width * (context + 1)) * tokens


def one_layer(parameters, layers, width, context, tokens):
    return (6 * parameters + 6 * width * (context + 1)) * tokens


def for_one_token(parameters, layers, width, context, tokens):
    return 6 * parameters + 6 * layers * width * (context + 1)


def attention_forwards(parameters, layers, width, context, tokens):
    return (6 * parameters + 2 * layers * width * (context + 1)) * tokens


def position_by_position(parameters, layers, width, context, tokens):
    visible = sum(range(1, context + 1)) / context
    multiplications = parameters + 2 * layers * width * visible
    forward = 2 * multiplications * tokens
    return forward + 2 * forward


# written after the checks ---------------------------------------------------------------------------------------------


def mean_over_the_batch_length(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, 1:]).mean(1)


def mask_not_moved(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, :-1]).sum(1)


def summed_over_the_batch(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, 1:]).sum()


def not_summed(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, 1:])


def softmax_over_time(logits, tokens, mask):
    return kept(logits[:, :-1].log_softmax(1).gather(-1, tokens[:, 1:, None])[..., 0], mask[:, 1:]).sum(1)


def favourite(logits, tokens, mask):
    return kept(logits[:, :-1].log_softmax(-1).max(-1).values, mask[:, 1:]).sum(1)


def zero_is_padding(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]), tokens[:, 1:] != 0).sum(1)


def naive_exponentials(logits, tokens, mask):
    odds = logits.exp()
    chosen = (odds / odds.sum(-1, keepdim=True))[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return kept(chosen.log(), mask[:, 1:]).sum(1)


def product_with_padding(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]).exp(), mask[:, 1:]).prod(1).log()


def everything_turned(logits, tokens, mask):
    return -scored(logits[:, :-1], tokens[:, 1:]).sum(1)


def tokens_overwritten(logits, tokens, mask):
    tokens[~mask] = 0
    return kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, 1:]).sum(1)


def as_a_list(logits, tokens, mask):
    return kept(scored(logits[:, :-1], tokens[:, 1:]), mask[:, 1:]).sum(1).tolist()


def token_by_token(logits, tokens, mask):
    totals = torch.zeros(len(logits), dtype=logits.dtype)
    for b in range(len(logits)):
        for t in range(1, tokens.shape[1]):
            if mask[b, t]:
                totals[b] += logits[b, t - 1, tokens[b, t]] - logits[b, t - 1].logsumexp(0)
    return totals


def by_einsum(logits, tokens, mask):
    chosen = torch.nn.functional.one_hot(tokens[:, 1:], logits.shape[-1]).to(logits)
    logprobs = logits[:, :-1].nan_to_num().log_softmax(-1)
    return torch.einsum("btv,btv,bt->b", logprobs, chosen, mask[:, 1:].to(logits))


def by_distribution(logits, tokens, mask):
    found = torch.distributions.Categorical(logits=logits[:, :-1], validate_args=False).log_prob(tokens[:, 1:])
    return found.masked_fill(~mask[:, 1:], 0.0).sum(-1)


def divided_by_steps(logprobs, mask):
    return (-kept(logprobs, mask).sum() / logprobs.shape[1]).exp()


def sample_correction(logprobs, mask):
    return (-logprobs[mask].sum() / (mask.sum() - 1)).exp()


def power_of_ten(logprobs, mask):
    return 10 ** -logprobs[mask].mean()


def one_per_text(logprobs, mask):
    return (-kept(logprobs, mask).sum(1) / mask.sum(1)).exp()


def padding_and_sign(logprobs, mask):
    return logprobs.mean().exp()


def first_token_dropped(logprobs, mask):
    return (-kept(logprobs, mask)[:, 1:].sum() / mask[:, 1:].sum()).exp()


def overwritten(logprobs, mask):
    logprobs[~mask] = 0
    return (-logprobs.sum() / mask.sum()).exp()


def by_loops(logprobs, mask):
    kept = [x for row, acted in zip(logprobs.tolist(), mask.tolist()) for x, here in zip(row, acted) if here]
    return math.exp(-math.fsum(kept) / len(kept))


def by_average(logprobs, mask):
    return np.exp(-np.average(np.where(mask, logprobs, 0.0), weights=mask.numpy()))


def below_alone(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) < uniform[:, None]).sum(-1)


def above(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) > uniform[:, None]).sum(-1)


def among_sorted(logits, temperature, uniform):
    cumulative = (logits / temperature).softmax(-1).sort(-1, descending=True).values.cumsum(-1)
    return (cumulative <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def likely_first(logits, temperature, uniform):
    probabilities, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    return order.gather(-1, (probabilities.cumsum(-1) <= uniform[:, None]).sum(-1, keepdim=True))[:, 0]


def first_uniform_for_all(logits, temperature, uniform):
    return ((logits / temperature).softmax(-1).cumsum(-1) <= uniform[0]).sum(-1)


def softmax_over_rows(logits, temperature, uniform):
    borders = (logits / temperature).softmax(0).cumsum(-1)
    return (borders <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def no_softmax(logits, temperature, uniform):
    return ((logits / temperature).cumsum(-1) <= uniform[:, None]).sum(-1)


def as_floats(logits, temperature, uniform):
    return by_counting(logits, temperature, uniform).double()


def as_list(logits, temperature, uniform):
    return by_counting(logits, temperature, uniform).tolist()


def logits_divided_in_place(logits, temperature, uniform):
    logits /= temperature
    return by_counting(logits, 1.0, uniform)


def by_counting(logits, temperature, uniform):
    probabilities = (logits / temperature - (logits / temperature).logsumexp(-1, keepdim=True)).exp()
    return (probabilities.cumsum(-1) <= uniform[:, None]).long().sum(-1)


def by_searchsorted(logits, temperature, uniform):
    borders = (logits / temperature).softmax(-1).cumsum(-1)
    return torch.searchsorted(borders, uniform[:, None], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def half_positions(parameters, layers, width, context, tokens):
    return (6 * parameters + 6 * layers * width * context) * tokens


def whole_division(parameters, layers, width, context, tokens):
    return (6 * parameters + 12 * layers * width * ((context + 1) // 2)) * tokens


def width_squared(parameters, layers, width, context, tokens):
    return (6 * parameters + 6 * layers * width**2 * (context + 1)) * tokens


def tokens_once(parameters, layers, width, context, tokens):
    return 6 * parameters + 6 * layers * width * (context + 1) * tokens


def forward_over_all(parameters, layers, width, context, tokens):
    return (2 * parameters + 4 * layers * width * context) * tokens


def in_giga(parameters, layers, width, context, tokens):
    return (6 * parameters + 6 * layers * width * (context + 1)) * tokens / 1e9


def in_floats(parameters, layers, width, context, tokens):
    return np.float64(tokens) * (2.0 * parameters + 2.0 * layers * width * (context + 1)) * 3


def multiplied_away(logits, tokens, mask):
    return (scored(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).sum(1)


def infinity_times_zero(logprobs, mask):
    return (-(logprobs * mask).sum() / mask.sum()).exp()


# the nucleus ---------------------------------------------------------------------------------------------------------


def outside(logits, dropped):
    return logits.masked_fill(dropped, -torch.inf)


def scattered(order, dropped):
    return torch.zeros_like(dropped).scatter(-1, order, dropped)


def crossing_dropped(logits, top_p):
    ordered, order = logits.softmax(-1).sort(descending=True)
    return outside(logits, scattered(order, ordered.cumsum(-1) > top_p))


def crossing_dropped_but_one(logits, top_p):
    ordered, order = logits.softmax(-1).sort(descending=True)
    dropped = ordered.cumsum(-1) > top_p
    dropped[:, 0] = False
    return outside(logits, scattered(order, dropped))


def one_too_many(logits, top_p):
    ordered, order = logits.softmax(-1).sort(descending=True)
    dropped = ordered.cumsum(-1) - ordered >= top_p
    dropped = torch.cat([torch.zeros_like(dropped[:, :1]), dropped[:, :-1]], 1)
    return outside(logits, scattered(order, dropped))


def each_compared(logits, top_p):
    return outside(logits, logits.softmax(-1) < top_p)


def small_ones_first(logits, top_p):
    ordered, order = logits.softmax(-1).sort()
    return outside(logits, scattered(order, ordered.cumsum(-1) - ordered >= top_p))


def not_sorted(logits, top_p):
    probabilities = logits.softmax(-1)
    return outside(logits, probabilities.cumsum(-1) - probabilities >= top_p)


def sorted_result(logits, top_p):
    ordered, _ = logits.sort(descending=True)
    probabilities = ordered.softmax(-1)
    return outside(ordered, probabilities.cumsum(-1) - probabilities >= top_p)


def not_brought_back(logits, top_p):
    ordered, _ = logits.softmax(-1).sort(descending=True)
    return outside(logits, ordered.cumsum(-1) - ordered >= top_p)


def gathered(logits, top_p):
    ordered, order = logits.softmax(-1).sort(descending=True)
    return outside(logits, (ordered.cumsum(-1) - ordered >= top_p).gather(-1, order))


def part_of_the_largest(logits, top_p):
    probabilities = logits.softmax(-1)
    return outside(logits, probabilities < top_p * probabilities.max(-1, keepdim=True).values)


def zero_outside(logits, top_p):
    ordered, order = logits.softmax(-1).sort(descending=True)
    return logits.masked_fill(scattered(order, ordered.cumsum(-1) - ordered >= top_p), 0.0)


def probabilities_back(logits, top_p):
    return by_a_loop(logits, top_p).softmax(-1)


def share_of_tokens(logits, top_p):
    count = max(1, round(top_p * logits.shape[-1]))
    return outside(logits, logits < logits.topk(count).values[:, -1:])


def all_kept(logits, top_p):
    return logits.clone()


def by_a_loop(logits, top_p):
    found = torch.full_like(logits, -torch.inf)
    for b, row in enumerate(logits.softmax(-1).tolist()):
        mass = 0.0
        for token in sorted(range(len(row)), key=lambda v: -row[v]):
            if mass >= top_p:
                break
            found[b, token] = logits[b, token]
            mass += row[token]
    return found


def by_a_threshold(logits, top_p):
    ordered = logits.sort(descending=True).values
    count = (ordered.softmax(-1).cumsum(-1) < top_p).sum(-1, keepdim=True)
    return torch.where(logits >= ordered.gather(-1, count), logits, -torch.inf).log_softmax(-1)


# the loop ------------------------------------------------------------------------------------------------------------


def chosen(logits, uniform, temperature, top_p):
    probabilities = by_a_loop(logits / temperature, top_p).softmax(-1)
    return (probabilities.cumsum(-1) <= uniform[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def looped(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0, *, side="left", own=True, masked=True,
           new=True, stop="own", pick=chosen, column=lambda t: t):  # fmt: skip
    """A right loop, and options that make it wrong."""
    longest, rows = max(map(len, prompts)), [[] for _ in prompts]
    padding = torch.tensor([[longest - len(p)] for p in prompts])
    filled = [[end] * (longest - len(p)) + p if side == "left" else p + [end] * (longest - len(p)) for p in prompts]
    tokens = torch.tensor(filled)
    visible = torch.arange(longest) >= padding if side == "left" else torch.arange(longest) < longest - padding
    visible = visible if masked else torch.ones_like(visible)
    for step in range(uniforms.shape[1]):
        columns = torch.arange(tokens.shape[1])
        counted = columns - padding if side == "left" else visible.long().cumsum(1) - 1
        positions = counted.clamp(min=0) if own else columns.expand(len(prompts), -1)
        positions = torch.where(columns < longest, positions, columns) if own == "prompt" else positions
        positions = positions.minimum(longest - 1 - padding) if own == "still" else positions
        token = pick(next_logits(tokens, visible, positions), uniforms[:, column(step)], temperature, top_p)
        tokens = torch.cat([tokens, token[:, None]], 1)
        visible = torch.cat([visible, torch.full_like(visible[:, :1], new)], 1)
        for row, one in zip(rows, token.tolist()):
            if stop not in ("own", "at once") or end not in row:
                row.append(one)
        ended = [end in row for row in rows]
        at_once = bool((token == end).all())
        if {"own": all(ended), "first": any(ended), "at once": at_once, "never": False}[stop]:
            break
    return rows


def variant(**mistake):
    """A loop with one mistake."""

    def loop(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0):
        return looped(next_logits, prompts, uniforms, end, temperature, top_p, **mistake)

    return loop


def never_ends(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0):
    return looped(next_logits, prompts, uniforms, end, temperature, top_p, stop="never")


def end_left_out(*given):
    return [[token for token in row if token != given[3]] for row in looped(*given)]


def prompt_too(*given):
    return [prompt + row for prompt, row in zip(given[1], looped(*given))]


def asked_to_the_end(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0):
    rows = looped(next_logits, prompts, uniforms, end, temperature, top_p, stop="never")
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def row_by_row(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0):
    return [looped(next_logits, [prompt], uniforms[i : i + 1], end, temperature, top_p)[0]
            for i, prompt in enumerate(prompts)]  # fmt: skip


def end_of_the_prompt(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0):
    rows = looped(next_logits, prompts, uniforms, end, temperature, top_p)
    return [row[:1] if end in prompt else row for row, prompt in zip(rows, prompts)]


def untempered(logits, uniform, temperature, top_p):
    return chosen(logits, uniform, 1.0, top_p)


def multiplied(logits, uniform, temperature, top_p):
    return chosen(logits, uniform, 1 / temperature, top_p)


def whole_vocabulary(logits, uniform, temperature, top_p):
    return chosen(logits, uniform, temperature, 1.0)


def cut_before_tempered(logits, uniform, temperature, top_p):
    return chosen(by_a_loop(logits, top_p), uniform, temperature, 1.0)


def most_likely(logits, uniform, temperature, top_p):
    return logits.argmax(-1)


def tempered_twice(logits, uniform, temperature, top_p):
    return chosen(by_a_loop(logits / temperature, top_p), uniform, temperature, 1.0)


def first_rows_numbers(logits, uniform, temperature, top_p):
    return chosen(logits, uniform[:1].expand(len(logits)), temperature, top_p)


def with_a_mask_of_ended_rows(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0):
    longest = max(len(prompt) for prompt in prompts)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    tokens = torch.stack([torch.tensor([7 % 4] * (longest - len(p)) + p) for p in prompts])
    visible = torch.arange(longest) >= (longest - lengths)[:, None]
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    for step in range(uniforms.shape[1]):
        positions = (visible.long().cumsum(-1) - 1).clamp(min=0)
        token = chosen(next_logits(tokens, visible, positions), uniforms[:, step], temperature, top_p)
        tokens = torch.cat([tokens, torch.where(ended, end, token)[:, None]], 1)
        visible = torch.cat([visible, torch.ones(len(prompts), 1, dtype=torch.bool)], 1)
        ended |= token == end
        if ended.all():
            break
    found = [row[longest:].tolist() for row in tokens]
    return [row[: row.index(end) + 1] if end in row else row for row in found]


def leaving_ended_rows(next_logits, prompts, uniforms, end, temperature=1.0, top_p=1.0):
    rows, going = [[] for _ in prompts], list(range(len(prompts)))
    for step in range(uniforms.shape[1]):
        texts = [prompts[i] + rows[i] for i in going]
        longest = max(map(len, texts))
        tokens = torch.tensor([[end] * (longest - len(text)) + text for text in texts])
        padding = torch.tensor([[longest - len(text)] for text in texts])
        columns = torch.arange(longest)
        logits = next_logits(tokens, columns >= padding, (columns - padding).clamp(min=0))
        for i, token in zip(going, chosen(logits, uniforms[going, step], temperature, top_p).tolist()):
            rows[i].append(token)
        going = [i for i in going if rows[i][-1] != end]
        if not going:
            break
    return rows


# positions -----------------------------------------------------------------------------------------------------------


def angles_of(vectors, base):
    steps, size = vectors.shape
    return torch.arange(steps)[:, None] * base ** (-2 * torch.arange(size // 2) / size)


def put_together(left, right):
    return torch.cat([left, right], -1).double()


def backwards(vectors, base):
    a, (x, y) = angles_of(vectors, base), vectors.chunk(2, -1)
    return put_together(x * a.cos() + y * a.sin(), y * a.cos() - x * a.sin())


def from_one(vectors, base):
    return complex_numbers(torch.cat([vectors[:1], vectors]), base)[1:]


def neighbours(vectors, base):
    a, x, y = angles_of(vectors, base), vectors[:, 0::2], vectors[:, 1::2]
    return torch.stack([x * a.cos() - y * a.sin(), y * a.cos() + x * a.sin()], -1).flatten(1).double()


def not_doubled(vectors, base):
    return complex_numbers(vectors, base**0.5)


def rising(vectors, base):
    return complex_numbers(vectors, 1 / base)


def half_turned(vectors, base):
    a, (x, y) = angles_of(vectors, base), vectors.chunk(2, -1)
    return put_together(x * a.cos(), y * a.sin())


def both_subtract(vectors, base):
    a, (x, y) = angles_of(vectors, base), vectors.chunk(2, -1)
    return put_together(x * a.cos() - y * a.sin(), y * a.cos() - x * a.sin())


def one_after_the_other(vectors, base):
    a, (x, y) = angles_of(vectors, base), vectors.chunk(2, -1)
    x = x * a.cos() - y * a.sin()
    return put_together(x, y * a.cos() + x * a.sin())


def exchanged(vectors, base):
    a, (x, y) = angles_of(vectors, base), vectors.chunk(2, -1)
    return put_together(x * a.sin() - y * a.cos(), y * a.sin() + x * a.cos())


def complex_numbers(vectors, base):
    x, y = vectors.chunk(2, -1)
    a = angles_of(vectors, base).double()
    turned = torch.complex(x, y) * torch.polar(torch.ones_like(a), a)
    return torch.cat([turned.real, turned.imag], -1)


def as_the_models_do(vectors, base):
    a = angles_of(vectors, base).repeat(1, 2)
    x, y = vectors.chunk(2, -1)
    return (vectors * a.cos() + torch.cat([-y, x], -1) * a.sin()).double()


# one head ------------------------------------------------------------------------------------------------------------


def headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V, *, rotated="QK", scale=None, mask=None, biased=True, dim=-1):
    """A right head, and options that make it wrong."""
    parts = [x @ W.T + (b if biased else 0) for W, b in ((W_Q, b_Q), (W_K, b_K), (W_V, b_V))]
    q, k, v = (complex_numbers(part, 1e4) if name in rotated else part for name, part in zip("QKV", parts))
    scores = q @ k.T * (len(b_Q) ** -0.5 if scale is None else scale)
    mask = mask or (lambda scores: scores + torch.full_like(scores, -torch.inf).triu(1))
    pattern = mask(scores).softmax(dim)
    return pattern, pattern @ v


def head_with(**mistake):
    """A head with one mistake."""
    return lambda x, W_Q, b_Q, W_K, b_K, W_V, b_V: headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V, **mistake)


def masked_afterwards(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    pattern = headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V, mask=lambda scores: scores)[0].tril()
    return pattern, pattern @ (x @ W_V.T + b_V)


def by_the_width(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    return headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V, scale=x.shape[1] ** -0.5)


def by_the_size(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    return headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V, scale=1 / len(b_Q))


def queries_are_keys(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    return headed(x, W_K, b_K, W_Q, b_Q, W_V, b_V)


def pattern_turned(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    pattern, _ = headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V)
    return pattern, pattern.T @ (x @ W_V.T + b_V)


def values_alone(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    return headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V)[1]


def stream_rotated(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    pattern, _ = headed(complex_numbers(x, 1e4), W_Q, b_Q, W_K, b_K, W_V, b_V, rotated="")
    return pattern, pattern @ (x @ W_V.T + b_V)


def keys_handed_over(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    pattern, _ = headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V)
    return pattern, pattern @ complex_numbers(x @ W_K.T + b_K, 1e4)


def never_mixed(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    return headed(x, W_Q, b_Q, W_K, b_K, W_V, b_V)[0], x @ W_V.T + b_V


def token_by_token_head(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    q, k = complex_numbers(x @ W_Q.T + b_Q, 1e4), complex_numbers(x @ W_K.T + b_K, 1e4)
    v, pattern = x @ W_V.T + b_V, torch.zeros(len(x), len(x), dtype=x.dtype)
    for t in range(len(x)):
        pattern[t, : t + 1] = (k[: t + 1] @ q[t] / math.sqrt(len(b_Q))).softmax(0)
    return pattern, torch.stack([(pattern[t, :, None] * v).sum(0) for t in range(len(x))])


def by_einsum_head(x, W_Q, b_Q, W_K, b_K, W_V, b_V):
    q, k, v = (torch.nn.functional.linear(x, W, b) for W, b in ((W_Q, b_Q), (W_K, b_K), (W_V, b_V)))
    scores = torch.einsum("qd,kd->qk", as_the_models_do(q, 1e4), as_the_models_do(k, 1e4)) / q.shape[1] ** 0.5
    visible = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    odds = torch.where(visible, (scores - scores.max()).exp(), 0.0)
    pattern = odds / odds.sum(-1, keepdim=True)
    return pattern, torch.einsum("qk,kd->qd", pattern, v)


# the whole network ---------------------------------------------------------------------------------------------------


def all_heads(attention, normed):
    size, found = attention.head_dim, []
    for start in range(0, attention.q_proj.out_features, size):
        rows = slice(start, start + size)
        parts = [part for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
                 for part in (layer.weight[rows], layer.bias[rows])]  # fmt: skip
        pattern, _ = headed(normed.double(), *(part.double() for part in parts))
        found.append((pattern @ (normed.double() @ parts[4].T.double() + parts[5].double())).float())
    return torch.cat(found, -1)


def layered(model, tokens, *, attended=True, fed=True, kept=True, normed=True, last=True, parallel=False, layers=None):
    """A right network, and options that make it wrong."""
    x = model.model.embed_tokens(tokens)
    for layer in list(model.model.layers)[:layers]:
        heads = all_heads(layer.self_attn, layer.input_layernorm(x) if normed else x)
        start, x = x, (x if kept else 0) + (layer.self_attn.o_proj(heads) if attended else heads)
        reads = start if parallel else x
        if fed:
            x = (x if kept else 0) + layer.mlp(layer.post_attention_layernorm(reads) if normed else reads)
    return model.lm_head(model.model.norm(x) if last else x)


def network_with(**mistake):
    """A network with one mistake."""
    return lambda model, tokens: layered(model, tokens, **mistake)


def the_stream(model, tokens):
    return model.model(tokens[None]).last_hidden_state[0]


def as_probabilities(model, tokens):
    return layered(model, tokens).softmax(-1)


def with_hugging_face(model, tokens):
    return model(input_ids=tokens[None]).logits[0]


def by_the_module(model, tokens):
    return layered(model, tokens)


# the law and its intervals -------------------------------------------------------------------------------------------


def solved(N, D, loss, alpha, beta, relative=True):
    scale = loss if relative else np.ones_like(loss)
    table = np.column_stack([np.ones(len(N)), N**-alpha, D**-beta]) / scale[:, None]
    weights = np.linalg.lstsq(table, loss / scale, rcond=None)[0]
    return np.sum((table @ weights - loss / scale) ** 2), weights, alpha, beta


def named(found):
    return dict(zip(("E", "A", "B", "alpha", "beta"), (*found[1], *found[2:])))


def fit_with(pairs=lambda x: [(a, b) for a in x for b in x], choose=min, **option):
    """A fit with one mistake."""

    def fit(N, D, loss, exponents):
        return named(choose((solved(N, D, loss, *pair, **option) for pair in pairs(exponents)), key=lambda f: f[0]))

    return fit


def other_sign(N, D, loss, exponents):
    return fit_with()(1 / N, 1 / D, loss, exponents)


def without_a_floor(N, D, loss, exponents):
    best = (math.inf,)
    for alpha in exponents:
        for beta in exponents:
            table = np.column_stack([N**-alpha, D**-beta]) / loss[:, None]
            weights = np.linalg.lstsq(table, np.ones(len(loss)), rcond=None)[0]
            best = min(best, (((table @ weights - 1) ** 2).sum(), (0.0, *weights), alpha, beta), key=lambda f: f[0])
    return named(best)


def sizes_exchanged(N, D, loss, exponents):
    return fit_with()(D, N, loss, exponents)


def first_pair(N, D, loss, exponents):
    return named(solved(N, D, loss, exponents[0], exponents[0]))


def last_pair(N, D, loss, exponents):
    for alpha in exponents:
        for beta in exponents:
            found = solved(N, D, loss, alpha, beta)
    return named(found)


def fit_by_tensors(N, D, loss, exponents):
    N, D, loss = (torch.tensor(values, dtype=torch.float64) for values in (N, D, loss))
    best, error = None, math.inf
    for alpha in exponents:
        for beta in exponents:
            table = torch.stack([1 / loss, N ** -float(alpha) / loss, D ** -float(beta) / loss], 1)
            weights = torch.linalg.lstsq(table, torch.ones(len(loss), 1, dtype=torch.float64)).solution[:, 0]
            miss = float((table @ weights - 1).square().mean())
            if miss < error:
                best, error = {"E": weights[0], "A": weights[1], "B": weights[2], "alpha": alpha, "beta": beta}, miss
    return best


def spread_of(summary, rows=lambda rows, all: (rows, rows, rows)):
    """Intervals with one mistake."""

    def intervals(fit, N, D, loss, chosen):
        everything = np.arange(len(N))
        fits = [fit(*(v[i] for v, i in zip((N, D, loss), rows(draw, everything)))) for draw in chosen]
        return {name: summary([found[name] for found in fits]) for name in fits[0]}

    return intervals


def quantiles(values, low=0.025, high=0.975):
    return tuple(np.quantile(values, [low, high]))


def intervals_sorted(fit, N, D, loss, chosen):
    fits = [fit(N[list(rows)], D[list(rows)], loss[list(rows)]) for rows in chosen]
    return {name: (np.percentile([f[name] for f in fits], 2.5), np.percentile([f[name] for f in fits], 97.5))
            for name in ("E", "A")}  # fmt: skip


def intervals_by_array(fit, N, D, loss, chosen):
    values = np.array([list(fit(N[r], D[r], loss[r]).values()) for r in chosen])
    low, high = np.quantile(values, 0.025, axis=0), np.quantile(values, 0.975, axis=0)
    return {name: [low[i], high[i]] for i, name in enumerate(fit(N, D, loss))}


WRONG = {
    "0.1": [
        (not_shifted, "no shift"),
        (shifted_backwards, "shifted the wrong way"),
        (with_padding, "as if mask were True everywhere"),
        (probabilities_added, "with softmax in the place of log_softmax"),
        (likelihood, "under an exponential"),
        (raw_logits, "without a softmax"),
        (negative, "sign"),
        (mean_per_token, "mean per token"),
        (mean_over_the_batch_length, "divided by T - 1"),
        (mask_not_moved, "mask[:, :-1]"),
        (summed_over_the_batch, "summed over rows"),
        (not_summed, "before it is summed"),
        (softmax_over_time, "over the time steps"),
        (favourite, "favourite token"),
        (zero_is_padding, "token 0 is taken for padding"),
        (naive_exponentials, "overflow"),
        (multiplied_away, "0 times NaN"),
        (product_with_padding, "padding gets the probability 0"),
        (everything_turned, "with the sign turned"),
        (tokens_overwritten, "tokens was changed in place"),
        (as_a_list, "is a list, expected a tensor of floats"),
    ],
    "0.2": [
        (mean_of_perplexities, "mean of the texts' perplexities"),
        (mean_over_texts, "every text counts the same"),
        (padding_counted, "padding is counted"),
        (infinity_times_zero, "0 times NaN"),
        (per_text, "divided by the number of texts"),
        (power_of_two, "2 to the power of nats"),
        (without_the_sign, "turned upside down, 1 / x"),
        (loss, "this is the loss"),
        (divided_by_steps, "its logarithm is times"),
        (sample_correction, "its logarithm is times"),
        (power_of_ten, "its logarithm is times"),
        (one_per_text, "one number per text"),
        (padding_and_sign, "as if mask were True everywhere"),
        (first_token_dropped, "without the first True"),
        (overwritten, "logprobs was changed in place"),
    ],
    "0.3": [
        (greedy, "argmax"),
        (temperature_multiplied, "temperature is multiplied"),
        (temperature_ignored, "as if temperature were 1"),
        (one_too_far, "with 1 added"),
        (one_too_early, "with 1 subtracted"),
        (no_running_sum, "not with their running sum"),
        (first_larger_probability, "(CDF)"),
        (temperature_on_probabilities, "no longer sum to 1"),
        (below_alone, "a token of probability 0"),
        (above, "counts the borders above"),
        (among_sorted, "among the sorted"),
        (likely_first, "sorted by probability first"),
        (first_uniform_for_all, "uniform with the first of rows"),
        (softmax_over_rows, "softmax runs over the rows"),
        (no_softmax, "raw logits"),
        (as_floats, "a tensor of floats, expected a tensor of ints"),
        (as_list, "is a list, expected a tensor of ints"),
        (logits_divided_in_place, "logits was changed in place"),
    ],
    "0.4": [
        (crossing_dropped, "crosses top_p is dropped, and the first one too"),
        (crossing_dropped_but_one, "crosses top_p is dropped: it stays"),
        (one_too_many, "one token too many"),
        (each_compared, "each probability is compared"),
        (small_ones_first, "least likely tokens are kept"),
        (not_sorted, "in the order of the vocabulary"),
        (sorted_result, "in the order of the sorting"),
        (not_brought_back, "bring them back"),
        (gathered, "brought back by gather"),
        (part_of_the_largest, "times the largest one"),
        (zero_outside, "become 0"),
        (probabilities_back, "these are probabilities"),
        (share_of_tokens, "share of the vocabulary"),
        (all_kept, "nothing is dropped"),
    ],
    "0.5": [
        (never_ends, "nothing is written behind it"),
        (end_left_out, "the end token is missing"),
        (variant(stop="first"), "stop with the first that ends"),
        (variant(stop="at once"), "asked again although every row has ended"),
        (end_of_the_prompt, "an end token in the prompt"),
        (prompt_too, "the prompt is handed back too"),
        (variant(column=lambda t: 0), "one uniform number for all steps"),
        (variant(pick=most_likely), "most likely token"),
        (variant(pick=untempered), "temperature is not used"),
        (variant(pick=multiplied), "temperature is multiplied"),
        (variant(pick=whole_vocabulary), "top_p is not used"),
        (variant(pick=cut_before_tempered), "cut before the temperature"),
        (variant(new=False), "cannot be seen"),
        (variant(pick=tempered_twice), "temperature is used twice"),
        (variant(own="prompt"), "positions of what was sampled"),
        (variant(own="still"), "positions stand still"),
        (variant(pick=first_rows_numbers), "first row's uniform numbers"),
        (variant(side="right"), "padding stands on the right"),
        (variant(own=False), "positions begin with its padding"),
        (variant(masked=False), "padding is visible"),
        (variant(masked=False, own=False), "padding is visible and has positions"),
        (asked_to_the_end, "asked again although"),
        (row_by_row, "asked for each row alone"),
    ],
    "0.6": [
        (backwards, "the wrong way"),
        (from_one, "the first position is 0"),
        (neighbours, "neighbouring entries"),
        (not_doubled, "the exponent is i/d"),
        (rising, "frequencies rise"),
        (half_turned, "a rotation mixes both"),
        (both_subtract, "both halves subtract"),
        (one_after_the_other, "keep the old one"),
        (exchanged, "cos and sin are exchanged"),
        (lambda vectors, base: vectors.clone(), "nothing is turned"),
    ],
    "0.7": [
        (head_with(scale=1.0), "not divided by the square root"),
        (by_the_size, "by the head's size, not by its"),
        (by_the_width, "square root of the width"),
        (head_with(mask=lambda scores: scores), "no causal mask"),
        (head_with(mask=lambda scores: scores.masked_fill(torch.ones_like(scores).tril(-1) > 0, -torch.inf)),
         "hides the past"),
        (head_with(mask=lambda scores: scores.masked_fill(torch.ones_like(scores).triu() > 0, -torch.inf)),
         "hides the token itself"),
        (head_with(mask=lambda scores: scores.tril()), "become 0"),
        (masked_afterwards, "after the softmax"),
        (head_with(dim=0), "over the queries"),
        (head_with(rotated=""), "nothing is rotated"),
        (head_with(rotated="Q"), "only the queries are rotated"),
        (head_with(rotated="QKV"), "the values are rotated too"),
        (head_with(biased=False), "the biases are missing"),
        (queries_are_keys, "queries and keys are exchanged"),
        (pattern_turned, "the pattern is transposed"),
        (stream_rotated, "x is rotated"),
        (keys_handed_over, "the keys are handed over"),
        (never_mixed, "before they are mixed"),
        (values_alone, "expected a tuple"),
    ],
    "0.8": [
        (network_with(attended=False), "o_proj"),
        (network_with(fed=False), "the feed-forward part is missing"),
        (network_with(kept=False), "replaced, not added"),
        (network_with(normed=False), "the norms of the layers"),
        (network_with(last=False), "the last norm is missing"),
        (network_with(parallel=True), "from before the attention"),
        (network_with(layers=1), "one layer is missing"),
        (network_with(layers=0), "no layer is run"),
        (the_stream, "output head"),
        (as_probabilities, "these are probabilities"),
    ],
    "0.9": [
        (two_per_parameter, "2 P D"),
        (forward_alone, "the forward pass alone: the backward"),
        (without_attention, "attention is missing: add"),
        (attention_over_all, "all T positions"),
        (attention_not_halved, "counts (T + 1) positions"),
        (one_layer, "as if layers were 1"),
        (for_one_token, "as if tokens were 1"),
        (attention_forwards, "attention is counted forwards only"),
        (half_positions, "T / 2 positions"),
        (whole_division, "whole positions"),
        (width_squared, "width squared"),
        (tokens_once, "only attention is multiplied"),
        (forward_over_all, "the forward pass alone; and attention looks at all T"),
        (in_giga, "divided by 10^9"),
    ],
    "0.10": [
        (fit_with(relative=False), "the errors are absolute"),
        (fit_with(pairs=lambda x: [(a, a) for a in x]), "always the same"),
        (fit_with(choose=max), "the worst fit"),
        (first_pair, "the first pair"),
        (last_pair, "the last pair"),
        (other_sign, "the wrong sign"),
        (without_a_floor, "the floor is missing"),
        (lambda N, D, loss, exponents: fit_with(relative=False)(N, D, np.log(loss), exponents), "the logarithm"),
        (sizes_exchanged, "N and D are exchanged"),
    ],
    "0.11": [
        (spread_of(quantiles, lambda rows, all: (all, all, all)), "the runs are not drawn"),
        (spread_of(quantiles, lambda rows, all: (all, all, rows)), "only the losses are drawn"),
        (spread_of(quantiles, lambda rows, all: (rows, rows, all)), "the losses are not drawn"),
        (spread_of(lambda values: quantiles(values, 0.05, 0.95)), "90 %"),
        (spread_of(lambda values: quantiles(values, 0.25, 0.75)), "as shares"),
        (spread_of(lambda values: (min(values), max(values))), "smallest and the largest"),
        (spread_of(lambda values: (np.mean(values) - 2 * np.std(values), np.mean(values) + 2 * np.std(values))),
         "standard deviations"),
        (spread_of(lambda values: quantiles(values, 0.975, 0.025)), "low and high"),
        (spread_of(np.mean), "two ends"),
    ],
}
RIGHT = {
    "0.1": [by_cross_entropy, token_by_token, by_einsum, by_distribution],
    "0.2": [in_bits, as_root, by_loops, by_average],
    "0.3": [by_search, by_subtraction, by_counting, by_searchsorted],
    "0.4": [by_a_loop, by_a_threshold],
    "0.5": [with_a_mask_of_ended_rows, leaving_ended_rows],
    "0.6": [complex_numbers, as_the_models_do],
    "0.7": [token_by_token_head, by_einsum_head],
    "0.8": [with_hugging_face, by_the_module],
    "0.9": [position_by_position, in_floats],
    "0.10": [fit_by_tensors, fit_with()],
    "0.11": [intervals_sorted, intervals_by_array],
}
