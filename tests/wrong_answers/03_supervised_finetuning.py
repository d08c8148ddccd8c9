"""Answers to lesson 03 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import copy
import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ptlearn.lm.chat import Example
from ptlearn.rollout import pad_and_stack

# 3.1


def building(
    user="User: {}\n", header="Assistant:", response=" {}", *, first=True, ended=True, user_ended=False,
    said=("response", "end"),
):  # fmt: skip
    """An answer that writes the turns in its own way, and lets the assistant say some kinds of pieces."""

    def answer(messages, encode, begin, end):
        pieces = [("begin", [begin])] * first
        for message in messages:
            if message["role"] == "user":
                pieces += [("user", encode(user.format(message["content"])))] + [("user", [end])] * user_ended
            else:
                pieces += [("header", encode(header)), ("response", encode(response.format(message["content"])))]
                pieces += [("end", [end])] * ended
        tokens = [token for _, ids in pieces for token in ids]
        return tokens, [kind in said for kind, ids in pieces for _ in ids]

    return answer


def last_response_only(messages, encode, begin, end):
    tokens, mask = building()(messages, encode, begin, end)
    last = len(encode(f" {messages[-1]['content']}")) + 1
    return tokens, [False] * (len(tokens) - last) + [True] * last


def masked_by(rule):
    def answer(messages, encode, begin, end):
        tokens, mask = building()(messages, encode, begin, end)
        return tokens, rule(mask)

    return answer


def whole_texts(messages, encode, begin, end):
    """Encodes everything before a response at once."""
    tokens, mask, prompt = [begin], [False], ""
    for message in messages:
        if message["role"] == "user":
            prompt += "User: " + message["content"] + "\n"
            continue
        before, after = encode(prompt + "Assistant:"), [*encode(" " + message["content"]), end]
        tokens, mask, prompt = tokens + before + after, mask + [0] * len(before) + [1] * len(after), ""
    return tokens, mask


def begins_each_message(messages, encode, begin, end):
    pairs = [building()([message], encode, begin, end) for message in messages]
    return [token for tokens, _ in pairs for token in tokens], [said for _, mask in pairs for said in mask]


def first_response_only(messages, encode, begin, end):
    tokens, mask = building()(messages, encode, begin, end)
    start = mask.index(True)
    stop = start + mask[start:].index(False) if False in mask[start:] else len(mask)
    return tokens, [start <= place < stop for place in range(len(mask))]


def first_exchange_alone(messages, encode, begin, end):
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    return building()(messages[: answers[0] + 1], encode, begin, end)


def empties_the_messages(messages, encode, begin, end):
    result = building()(messages, encode, begin, end)
    messages.clear()
    return result


def tokens_alone(messages, encode, begin, end):
    return building()(messages, encode, begin, end)[0]


def as_tensors(messages, encode, begin, end):
    return tuple(map(torch.tensor, building()(messages, encode, begin, end)))


def turn_by_turn(messages, encode, begin, end):
    if not messages:
        return (begin,), (0,)
    tokens, mask = turn_by_turn(messages[:-1], encode, begin, end)
    new, said = building()(messages[-1:], encode, begin, end)
    return (*tokens, *new[1:]), (*mask, *map(int, said[1:]))


# 3.2


def loss_by(
    rule, *, logits=slice(None, -1), tokens=slice(1, None), mask=slice(1, None), score="log_softmax", safe=True
):
    """An answer from log-probabilities and mask of the same shape, cut from logits, tokens and mask."""

    def answer(given, targets, said):
        values = given[:, logits] if score is None else getattr(given[:, logits], score)(-1)
        chosen = values.gather(-1, targets[:, tokens, None])[..., 0]
        return rule(chosen.masked_fill(chosen.isinf(), 0.0) if safe else chosen, said[:, mask].float())

    return answer


def mean(logprobs, said):
    return -(logprobs * said).sum() / said.sum()


def safe_mean(logprobs, said):
    return -torch.where(said > 0, logprobs, 0.0).sum() / said.sum()


ALL = slice(None)
EARLY = slice(None, -1)


def by_labels(logits, tokens, mask):
    labels = tokens.masked_fill(~mask, -100)[:, 1:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100)


def softmax_over_time(logits, tokens, mask):
    logprobs = logits[:, :-1].softmax(1).log().gather(-1, tokens[:, 1:, None])[..., 0]
    return mean(logprobs, mask[:, 1:])


def softmax_over_rows(logits, tokens, mask):
    logprobs = logits[:, :-1].log_softmax(0).gather(-1, tokens[:, 1:, None])[..., 0]
    return safe_mean(logprobs, mask[:, 1:])


def mask_behind_the_mean(logits, tokens, mask):
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    return (loss * mask[:, 1:]).sum() / mask[:, 1:].sum()


def tokens_times_mask(logits, tokens, mask):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), (tokens * mask)[:, 1:].flatten())


def without_token_0(logits, tokens, mask):
    targets = (tokens * mask)[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets, ignore_index=0)


def most_likely(logits, tokens, mask):
    return mean(logits[:, :-1].log_softmax(-1).amax(-1), mask[:, 1:])


def by_indexing(logits, tokens, mask):
    said = mask[:, 1:]
    chosen = logits[:, :-1][said].double()
    return (chosen.logsumexp(-1) - chosen.gather(-1, tokens[:, 1:][said][:, None])[:, 0]).mean()


def one_by_one(logits, tokens, mask):
    found = [torch.log_softmax(logits[i, t - 1], 0)[tokens[i, t]] for i, t in mask.nonzero().tolist()]
    return -torch.stack(found).mean()


# 3.3


def attending(allow, position=lambda segments, i: i - segments.index(segments[i])):
    """An answer from a rule for pairs of positions, and one for the positions."""

    def answer(segments):
        places = range(len(segments))
        allowed = [[bool(allow(segments, i, j)) for j in places] for i in places]
        return torch.tensor(allowed), torch.tensor([position(segments, i) for i in places])

    return answer


def right_pairs(segments, i, j):
    return segments[i] == segments[j] and j <= i


def by_lists(segments):
    allowed = [[one == two and j <= i for j, two in enumerate(segments)] for i, one in enumerate(segments)]
    return allowed, [segments[:i].count(one) for i, one in enumerate(segments)]


def in_numbers(segments):
    allowed, positions = attending(right_pairs)(segments)
    return allowed.float(), positions


def allowed_alone(segments):
    return attending(right_pairs)(segments)[0]


def turns_the_segments(segments):
    segments.reverse()
    return attending(right_pairs)(segments)


def step_by_step(segments):
    positions = []
    for place, segment in enumerate(segments):
        positions.append(positions[-1] + 1 if place and segments[place - 1] == segment else 0)
    allowed = torch.zeros(len(segments), len(segments), dtype=torch.bool)
    for place, position in enumerate(positions):
        allowed[place, place - position : place + 1] = True
    return allowed, torch.tensor(positions)


# 3.4


def padded(batch):
    tokens, _ = pad_and_stack([example.tokens for example in batch], value=0)
    mask, _ = pad_and_stack([example.mask for example in batch], value=False)
    return tokens, mask


def step_with(
    *, loss=by_labels, zero=True, clip=nn.utils.clip_grad_norm_, after=False, train=True, moves=True, mask_of=None,
    gives=lambda loss, norm, clipped: (loss.item(), norm.item()),
):  # fmt: skip
    """An answer that takes a step in its own way."""

    def answer(model, optimizer, batch, clip_norm):
        tokens, mask = padded(batch)
        model.train(train)
        value = loss(model(tokens), tokens, mask if mask_of is None else mask_of(tokens, mask))
        if zero:
            optimizer.zero_grad(set_to_none=False)
        value.backward()
        if moves and after:
            optimizer.step()
        norm = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
        if clip:
            clip(list(model.parameters()), clip_norm)
        if moves and not after:
            optimizer.step()
        return gives(value, norm, min(norm, torch.tensor(clip_norm)))

    return answer


def clears_behind(model, optimizer, batch, clip_norm):
    """Leaves no gradient behind, and clips by hand."""
    model.train()
    optimizer.zero_grad()
    tokens, mask = padded(batch)
    loss = by_labels(model(tokens), tokens, mask)
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    for parameter in model.parameters():
        parameter.grad.mul_(min(1.0, clip_norm / (float(norm) + 1e-6)))
    optimizer.step()
    optimizer.zero_grad()
    return loss.item(), norm.item()


def one_example_after_the_other(model, optimizer, batch, clip_norm):
    """The gradients of single examples add up to that of the batch."""
    model.train()
    optimizer.zero_grad()
    count, total = sum(sum(example.mask) for example in batch), 0.0
    for example in batch:
        tokens, mask = padded([example])
        loss = one_by_one(model(tokens), tokens, mask) * sum(example.mask) / count
        loss.backward()
        total += float(loss)
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return total, float(norm)


def trains_behind_the_forward_pass(model, optimizer, batch, clip_norm):
    tokens, mask = padded(batch)
    loss = by_labels(model(tokens), tokens, mask)
    model.train()
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item(), norm.item()


def norms_added(model, optimizer, batch, clip_norm):
    loss, _ = step_with(moves=False, clip=None)(model, optimizer, batch, clip_norm)
    norm = sum(p.grad.norm() for p in model.parameters())
    step_with()(model, optimizer, batch, clip_norm)
    return loss, norm.item()


def two_steps(model, optimizer, batch, clip_norm):
    found = step_with()(model, optimizer, batch, clip_norm)
    optimizer.step()
    return found


def clears_before_the_step(model, optimizer, batch, clip_norm):
    tokens, mask = padded(batch)
    model.train()
    loss = one_by_one(model(tokens), tokens, mask)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.zero_grad()
    optimizer.step()
    return float(loss), float(norm)


def loss_afterwards(model, optimizer, batch, clip_norm):
    _, norm = step_with()(model, optimizer, batch, clip_norm)
    tokens, mask = padded(batch)
    return float(one_by_one(model(tokens), tokens, mask)), norm


def each_row(logits, tokens, mask):
    rows = zip(logits.split(1), tokens.split(1), mask.split(1))
    return torch.stack([one_by_one(*row) for row in rows]).mean()


def each_tensor(parameters, clip_norm):
    for parameter in parameters:
        nn.utils.clip_grad_norm_([parameter], clip_norm)


def to_length(parameters, clip_norm):
    norm = torch.cat([p.grad.flatten() for p in parameters]).norm()
    for parameter in parameters:
        parameter.grad *= clip_norm / norm


# 3.5


def rates(rise, fall):
    """An answer from the shares of the peak on the way up and down, of step, steps and rising."""

    def answer(step, steps, peak, warmup=0.1):
        rising = max(1, round(warmup * steps))
        return peak * (rise(step, rising) if step < rising else fall(step, steps, rising))

    return answer


def up(step, rising):
    return (step + 1) / rising


def down(step, steps, rising):
    return (steps - step) / max(1, steps - rising)


def rising_for(rounded):
    """An answer that takes its number of rising steps from warmup times steps."""

    def answer(step, steps, peak, warmup=0.1):
        rising = rounded(warmup * steps)
        return peak * (up(step, rising) if step < rising else down(step, steps, rising))

    return answer


def last_at_0(step, steps, rising):
    return (steps - 1 - step) / max(1, steps - 1 - rising)


def up_times_down(step, steps, peak, warmup=0.1):
    rising = max(1, round(warmup * steps))
    return peak * min(1, up(step, rising)) * down(step, steps, rising)


def one_line_rate(step, steps, peak, warmup=0.1):
    rising = max(round(warmup * steps), 1)
    return peak * min((step + 1) / rising, (steps - step) / max(steps - rising, 1))


def interpolated(step, steps, peak, warmup=0.1):
    rising = max(1, round(warmup * steps))
    return float(np.interp(step, [-1, rising - 1, rising, steps], [0, peak, peak, 0]))


# 3.6


def held_out_by(rule, *, train=False, mask_of=lambda tokens, mask: mask):
    """An answer from the rows (sum of the batch, its tokens, its examples)."""

    def answer(model, examples, size):
        model.train(train)
        found = []
        for first in range(0, len(examples), size):
            batch = examples[first : first + size]
            tokens, mask = padded(batch)
            mask = mask_of(tokens, mask)
            with torch.inference_mode():
                loss = by_labels(model(tokens), tokens, mask)
            found.append((float(loss) * int(mask[:, 1:].sum()), int(mask[:, 1:].sum()), len(batch)))
        return rule(found)

    return answer


def in_all(found):
    return sum(total for total, _, _ in found) / sum(count for _, count, _ in found)


in_batches = held_out_by(in_all)


def without_batches(model, examples, size):
    model.eval()
    tokens, mask = padded(examples)
    return by_labels(model(tokens), tokens, mask).item()


def one_at_a_time(model, examples, size):
    return held_out_by(in_all)(model, examples, 1)


def full_batches_alone(model, examples, size):
    return held_out_by(in_all)(model, examples[: max(1, len(examples) // size) * size], size)


def weighted_by_places(model, examples, size):
    batches = [examples[first : first + size] for first in range(0, len(examples), size)]
    places = [padded(batch)[0].numel() for batch in batches]
    losses = [without_batches(model, batch, size) for batch in batches]
    return sum(loss * count for loss, count in zip(losses, places)) / sum(places)


def trains_on_them(model, examples, size):
    loss = held_out_by(in_all)(model, examples, size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step_with()(model, optimizer, examples, 1.0)
    return loss


def example_by_example(model, examples, size):
    return sum(one_at_a_time(model, [example], 1) for example in examples) / len(examples)


# 3.7


def loop_with(
    *, rate=one_line_rate, copies=True, loads=True, decay=0.0, anew=False, clip_norm=1.0, extra=False, last=True,
    enough=lambda values, patience: len(values) - 1 - values.index(min(values)) >= patience,
    new=lambda values: values[-1] <= min(values), judge=in_batches, measured=None, descent=torch.optim.AdamW,
):  # fmt: skip
    """An answer that runs the loop in its own way."""

    def answer(model, plan, held_out, lr, every, patience):
        optimizer = descent(model.parameters(), lr=lr, weight_decay=decay)
        losses, curve, kept = [], {}, copy.deepcopy(model.state_dict())
        for step in range(len(plan)):
            if anew:
                optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
            optimizer.param_groups[0]["lr"] = rate(step, len(plan), lr)
            batch = list(plan[step]) + list(held_out if extra else [])
            losses.append(step_with()(model, optimizer, batch, clip_norm)[0])
            if (step + 1) % every and not (last and step + 1 == len(plan)):
                continue
            curve[step + 1] = judge(model, held_out if measured is None else measured(plan, step), 32)
            values = list(curve.values())
            if new(values):
                kept = copy.deepcopy(model.state_dict()) if copies else model.state_dict()
            if enough(values, patience):
                break
        if loads:
            model.load_state_dict(kept)
        return losses, curve

    return answer


def by_parameters(model, plan, held_out, lr, every, patience):
    """Keeps the weights in a list, counts down, and lets a scheduler set the rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0)
    steps = len(plan)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_line_rate(min(step, steps - 1), steps, 1))
    losses, curve, best, left = [], {}, float("inf"), patience
    for done, batch in enumerate(plan, 1):
        losses.append(clears_behind(model, optimizer, batch, 1.0)[0])
        scheduler.step()
        if done % every == 0 or done == steps:
            curve[done] = without_batches(model, held_out, 32)
            if curve[done] < best:
                best, left, kept = curve[done], patience, [p.detach().clone() for p in model.parameters()]
            else:
                left -= 1
        if left == 0:
            break
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), kept):
            parameter.copy_(value)
    return losses, curve


def rate_ahead(step, steps, peak):
    return one_line_rate(min(step + 1, steps - 1), steps, peak)


def rate_behind(step, steps, peak):
    return one_line_rate(step - 1, steps, peak) if step else peak


def relabelled(rule):
    """A right answer whose curve is changed at the end."""

    def answer(*given):
        losses, curve = loop_with()(*given)
        return losses, rule(curve)

    return answer


def rising_on(values, patience):
    last = values[-patience - 1 :]
    return len(last) > patience and all(later > earlier for earlier, later in pairwise(last))


def patience_in_steps(model, plan, held_out, lr, every, patience):
    loop = loop_with(enough=lambda values, patience: every * (len(values) - 1 - values.index(min(values))) >= patience)
    return loop(model, plan, held_out, lr, every, patience)


def never(values, patience):
    return False


# 3.8


def cue_by_sets(premise, hypothesis):
    new = set(hypothesis.split()) - set(premise.split())
    return "not" if "not" in hypothesis.split() else "new word" if new else "overlap"


def cue_with(negated, known):
    def answer(premise, hypothesis):
        return "not" if negated(premise, hypothesis) else "overlap" if known(premise, hypothesis) else "new word"

    return answer


def has_not(premise, hypothesis):
    return "not" in hypothesis.split()


def all_known(premise, hypothesis):
    return all(word in premise.split() for word in hypothesis.split())


def letters_known(premise, hypothesis):
    return all(word in premise for word in hypothesis.split())


# 3.9

SHORT = Example([1, 5, 6, 7, 2], [False, False, False, True, True])
LONG = Example([1, *range(10, 60), 2], [False] * 20 + [True] * 32)
TWICE = Example([1, 8, 9, 2, 5, 6, 2], [False, False, True, True, False, True, True])


def expected(row):
    tokens = [token for example in row for token in example.tokens]
    said = [said for example in row for said in example.mask]
    numbers = [number for number, example in enumerate(row) for _ in example.tokens]
    return tokens[:-1], tokens[1:], said[1:], numbers[:-1]


def testing(row, parts=(0, 1, 2, 3)):
    """A test of some of the four tensors on one row."""

    def answer(run):
        return all(run(row, 2)[part].tolist() == expected(row)[part] for part in parts)

    return answer


def by_properties(run):
    """Counts and places instead of whole tensors; any numbers of segments will do."""
    row = [TWICE, LONG, SHORT]
    inputs, targets, trained, segments = run(row, 2)
    tokens, _, said, numbers = expected(row)
    assert len(inputs) == len(tokens)
    assert torch.equal(targets[:-1], inputs[1:]) and trained.sum() == sum(said)
    assert all(trained[t] for t, wanted in enumerate(said) if wanted)
    apart = [(a != b) == (c != d) for (a, b), (c, d) in zip(pairwise(segments.tolist()), pairwise(numbers))]
    return all(apart)


def wants_all_trained(run):
    return bool(run([SHORT, TWICE], 2)[2].all())


WRONG = {
    "3.1": [
        (building(said=("response", "end", "header")), "header is trained too"),
        (building(said=("response",)), "end token is not trained"),
        (building(said=("end",)), "only the end token"),
        (building(said=("user", "response", "end")), "what the user says"),
        (building(said=("begin", "user", "header", "response", "end")), "True everywhere"),
        (building(said=("begin", "user", "header")), "subtracted from 1"),
        (building(ended=False), "end token is missing"),
        (building(first=False), "begin token is missing"),
        (building(header=""), "header 'Assistant:' is missing"),
        (building(user_ended=True), "behind the user's message too"),
        (building(header="Assistant: ", response="{}"), "space is part of the header"),
        (building(response="{}"), "space before the response is missing"),
        (building(user="User: {}"), "line break"),
        (last_response_only, "only the last response"),
        (masked_by(lambda mask: mask[1:] + [False]), "one place early"),
        (masked_by(lambda mask: [False] + mask[:-1]), "one place late"),
        (masked_by(lambda mask: mask[1:]), "one for each token"),
        (building(said=("begin", "response", "end")), "begin token is trained"),
        (building(user="user: {}\n", header="assistant:"), "roles are written small"),
        (building(response=" {}\n"), "between a response and its end token"),
        (begins_each_message, "before every message"),
        (first_response_only, "only the first response"),
        (masked_by(lambda mask: [any(mask[: place + 1]) for place in range(len(mask))]), "all behind the first header"),
        (building(header="Assistant", response=": {}"), "colon is trained"),
        (building(response="  {}"), "two spaces"),
        (first_exchange_alone, "messages are missing"),
        (empties_the_messages, "messages was changed in place"),
        (tokens_alone, "expected 2"),
        (as_tensors, "is a tensor, expected a list"),
    ],
    "3.2": [
        (loss_by(mean, logits=ALL, tokens=ALL, mask=ALL), "not shifted"),
        (loss_by(mean, logits=slice(1, None), tokens=EARLY, mask=EARLY), "the wrong way: logits[:, :-1]"),
        (loss_by(mean, logits=slice(1, None), tokens=EARLY), "the wrong way: the logits at t"),
        (loss_by(mean, mask=EARLY), "mask is off by one"),
        (loss_by(lambda logprobs, said: -logprobs.mean(), safe=False), "as if mask were True everywhere"),
        (loss_by(lambda logprobs, said: safe_mean(logprobs, 1 - said), safe=False), "with mask turned round"),
        (loss_by(lambda logprobs, said: -(logprobs * said).mean()), "divided by all positions:"),
        (loss_by(lambda logprobs, said: -(logprobs * said).sum() / (said.numel() + len(said))), "the first ones too"),
        (loss_by(lambda logprobs, said: -((logprobs * said).sum(1) / said.sum(1)).mean()), "a mean for each row"),
        (loss_by(lambda logprobs, said: -(logprobs * said).sum() / len(said)), "divided by the rows"),
        (loss_by(lambda logprobs, said: -(logprobs * said).sum()), "times the number of True in mask"),
        (loss_by(lambda logprobs, said: -mean(logprobs, said)), "with the sign turned"),
        (loss_by(mean, score="softmax"), "with softmax in the place of log_softmax"),
        (loss_by(mean, score=None), "without a softmax"),
        (loss_by(lambda logprobs, said: mean(logprobs, said) / 0.6931472), "in bits"),
        (loss_by(lambda logprobs, said: mean(logprobs, said).exp()), "under an exponential"),
        (loss_by(lambda logprobs, said: mean(logprobs, said).item()), "only a tensor carries a gradient"),
        (loss_by(lambda logprobs, said: mean(logprobs, said).detach()), "no gradient reaches logits"),
        (loss_by(lambda logprobs, said: -logprobs * said), "without axes, one number"),
        (
            loss_by(lambda logprobs, said: -((logprobs * said).sum(1) / said.sum(1).clamp(min=1)).mean()),
            "a mean for each row",
        ),
        (loss_by(lambda logprobs, said: -((logprobs.exp() * said).sum() / said.sum()).log()), "the mean probability"),
        (softmax_over_time, "softmax runs over the positions"),
        (most_likely, "most likely token"),
        (mask_behind_the_mean, "all positions are averaged before it"),
        (tokens_times_mask, "multiplied by the mask: then token 0"),
        (without_token_0, "token 0 is left out"),
        (loss_by(safe_mean, logits=slice(None, -2), tokens=slice(2, None), mask=slice(2, None)), "shifted twice"),
        (lambda logits, tokens, mask: by_indexing(logits * mask[..., None], tokens, mask), "logits are multiplied"),
        (softmax_over_rows, "softmax runs over the rows"),
        (loss_by(mean, safe=False), "cut it off with torch.where"),
    ],
    "3.3": [
        (attending(lambda s, i, j: j <= i), "borders are not respected"),
        (attending(lambda s, i, j: True), "everything is allowed"),
        (attending(lambda s, i, j: s[i] == s[j]), "later positions are seen"),
        (attending(lambda s, i, j: s[i] == s[j] and i <= j), "with rows and columns exchanged"),
        (attending(lambda s, i, j: s[i] == s[j] and j < i), "does not see itself"),
        (attending(lambda s, i, j: not right_pairs(s, i, j)), "inverted"),
        (attending(lambda s, i, j: right_pairs(s, i, j) and s[i] >= 0), "padding sees nothing"),
        (attending(lambda s, i, j: s[j] <= s[i] and j <= i), "earlier examples are seen too"),
        (attending(lambda s, i, j: s[i] != s[j] and j <= i), "the own one is not"),
        (attending(right_pairs, lambda s, i: i), "do not restart"),
        (attending(right_pairs, lambda s, i: i - s.index(s[i]) + 1), "with 1 added"),
        (attending(right_pairs, lambda s, i: s.index(s[i])), "subtract them"),
        (attending(right_pairs, lambda s, i: s[i:].count(s[i]) - 1), "count down"),
        (attending(right_pairs, lambda s, i: s.count(s[i]) - 1), "length of the example"),
        (attending(right_pairs, lambda s, i: s[:i].count(s[i]) if s[i] >= 0 else i), "padding does not restart"),
        (attending(right_pairs, lambda s, i: s[:i].count(s[i]) if s[i] >= 0 else 0), "from 0"),
        (attending(right_pairs, lambda s, i: s[:i].count(s[i]) if s[i] >= 0 else -1), "from 0"),
        (attending(lambda s, i, j: right_pairs(s, i, j) and i - j < 2), "only the position before"),
        (attending(lambda s, i, j: i == j), "sees itself alone"),
        (attending(lambda s, i, j: right_pairs(s, i, j) and (s[i] >= 0 or i == j)), "padding sees itself alone"),
        (attending(lambda s, i, j: right_pairs(s, i, j) or s[j] < 0), "padding is seen by all"),
        (in_numbers, "expected a tensor of bools"),
        (turns_the_segments, "segments was changed in place"),
        (allowed_alone, "expected a tuple"),
    ],
    "3.4": [
        (step_with(zero=False), "still there"),
        (clears_before_the_step, "nothing moves"),
        (step_with(moves=False), "nothing moves"),
        (step_with(clip=None), "not clipped before"),
        (step_with(after=True), "not clipped before"),
        (step_with(clip=nn.utils.clip_grad_value_), "each entry is clipped"),
        (step_with(clip=each_tensor), "each tensor is clipped"),
        (step_with(clip=to_length), "only shortens"),
        (step_with(gives=lambda loss, norm, clipped: (loss.item(), float(clipped))), "norm after clipping"),
        (step_with(mask_of=lambda tokens, mask: tokens > 0), "prompts are trained"),
        (step_with(mask_of=lambda tokens, mask: torch.ones_like(mask)), "padding is trained"),
        (step_with(loss=each_row), "a mean for each example"),
        (step_with(loss=lambda *given: one_by_one(*given) * given[2].sum()), "a sum instead"),
        (step_with(train=False), "without dropout"),
        (trains_behind_the_forward_pass, "without dropout"),
        (step_with(mask_of=lambda tokens, mask: mask | (tokens == 0)), "padded with True"),
        (step_with(loss=lambda *given: one_by_one(*given) / len(given[1])), "divided by the number of examples"),
        (step_with(loss=lambda *given: one_by_one(*given) * given[2].sum() / len(given[1])), "divided by the examples"),
        (step_with(gives=lambda loss, norm, clipped: (norm.item(), loss.item())), "exchanged"),
        (norms_added, "norms of the tensors are added"),
        (two_steps, "two steps are taken"),
        (step_with(loss=lambda *given: -one_by_one(*given)), "uphill"),
        (loss_afterwards, "after the step"),
        (step_with(gives=lambda loss, norm, clipped: loss.item()), "expected"),
    ],
    "3.5": [
        (rising_for(lambda share: max(1, int(share))), "rounded down"),
        (rising_for(lambda share: max(1, math.ceil(share))), "rounded up"),
        (rising_for(round), "at least"),
        (lambda step, steps, peak, warmup: one_line_rate(step, steps, peak), "always 0.1"),
        (rates(lambda step, rising: step / rising, last_at_0), "begins and ends at 0"),
        (up_times_down, "rises and falls at once"),
        (rates(lambda step, rising: step / rising, down), "begins at 0"),
        (rates(up, lambda step, steps, rising: (steps - step - 1) / max(1, steps - rising)), "ends at 0"),
        (rates(up, lambda step, steps, rising: 1), "never falls"),
        (rates(up, lambda step, steps, rising: (steps - step) / steps), "as if there were no rise"),
        (lambda step, steps, peak, warmup: peak * (steps - step) / steps, "no warmup"),
        (lambda step, steps, peak, warmup: peak, "constant"),
        (lambda step, steps, peak, warmup: one_line_rate(step, steps, 1, warmup), "share of the peak"),
        (
            rates(up, lambda step, steps, rising: 0.5 + 0.5 * np.cos(np.pi * (step - rising) / max(1, steps - rising))),
            "in a curve",
        ),
    ],
    "3.6": [
        (held_out_by(in_all, train=True), "dropout is on"),
        (held_out_by(in_all, mask_of=lambda tokens, mask: tokens > 0), "prompts count too"),
        (held_out_by(lambda found: sum(t / c for t, c, _ in found) / len(found)), "a mean of the batches' means"),
        (held_out_by(lambda found: sum(t / c for t, c, _ in found)), "sum over batches"),
        (held_out_by(lambda found: found[-1][0] / found[-1][1]), "only the last batch"),
        (held_out_by(lambda found: found[0][0] / found[0][1]), "only the first batch"),
        (held_out_by(lambda found: sum(t / c * n for t, c, n in found) / sum(n for _, _, n in found)), "by its own"),
        (held_out_by(lambda found: sum(t for t, _, _ in found)), "something else"),
        (held_out_by(lambda found: sum(t for t, _, _ in found) / sum(n for _, _, n in found)), "something else"),
        (held_out_by(lambda found: sum(t for t, _, _ in found) / len(found)), "something else"),
        (held_out_by(lambda found: sum(t for t, _, _ in found) / found[-1][1]), "something else"),
        (weighted_by_places, "by all its places"),
        (example_by_example, "mean over examples"),
        (full_batches_alone, "left out"),
        (trains_on_them, "nothing is trained"),
    ],
    "3.7": [
        (loop_with(loads=False), "last weights are left"),
        (loop_with(copies=False), "last weights are left"),
        (loop_with(rate=lambda step, steps, peak: peak), "stays at its peak"),
        (loop_with(rate=rate_ahead), "one step ahead"),
        (loop_with(rate=rate_behind), "one step behind"),
        (loop_with(rate=lambda step, steps, peak: one_line_rate(step, steps, peak, 0.0)), "no warmup"),
        (loop_with(descent=torch.optim.SGD), "plain gradient descent"),
        (relabelled(lambda curve: {step - 1: loss for step, loss in curve.items()}), "keys are steps done"),
        (relabelled(lambda curve: {0: 3.0} | curve), "before the first step too"),
        (loop_with(decay=0.01), "weights decay"),
        (loop_with(anew=True), "made anew"),
        (loop_with(clip_norm=1e9), "not clipped"),
        (loop_with(extra=True), "held-out examples are trained"),
        (loop_with(measured=lambda plan, step: plan[step]), "last batch"),
        (loop_with(last=False), "after the last step"),
        (loop_with(enough=never), "never stops"),
        (loop_with(enough=lambda v, patience: len(v) - 1 - v.index(min(v)) > patience), "too late"),
        (loop_with(enough=lambda v, patience: len(v) - v.index(min(v)) >= patience), "too early"),
        (loop_with(enough=lambda v, patience: sum(b > a for a, b in pairwise(v)) >= patience), "rises are counted"),
        (loop_with(enough=rising_on), "rises in a row"),
        (patience_in_steps, "counted in steps"),
        (loop_with(new=lambda values: len(values) < 2 or values[-1] < values[-2]), "measurement before"),
        (loop_with(new=lambda values: len(values) < 2), "first weights"),
        (loop_with(new=lambda values: values[-1] == max(values)), "highest"),
    ],
    "3.8": [
        (cue_with(lambda p, h: "not" in (p + " " + h).split(), all_known), "in the premise counts"),
        (cue_with(lambda p, h: "not" in h, all_known), "knot"),
        (cue_with(lambda p, h: "not" in h, letters_known), "letters are looked for"),
        (cue_with(has_not, letters_known), "letters of the premise"),
        (cue_with(has_not, lambda p, h: not all_known(p, h)), "exchanged"),
        (cue_with(has_not, lambda p, h: any(word in p.split() for word in h.split())), "one common word"),
        (cue_with(has_not, lambda p, h: all_known(h, p)), "premise and hypothesis"),
        (cue_with(has_not, lambda p, h: h in p), "in one piece"),
        (cue_with(has_not, lambda p, h: set(h.split()) < set(p.split())), "in another order"),
        (cue_with(lambda p, h: has_not(p, h) and not has_not(h, p), all_known), "changes nothing"),
        (cue_with(lambda p, h: has_not(p, h) and all_known(p, h), all_known), "a not comes first"),
    ],
    "3.9": [
        (lambda run: True, "0 of 4 points"),
        (wants_all_trained, "refuses the right run"),
        (testing([SHORT], (1,)), "the first token of each response"),
        (lambda run: len(run([SHORT], 2)) == 4, "compare each target"),
        (testing([LONG], (0,)), "not 1; a wrong run gets through"),
    ],
}
RIGHT = {
    "3.1": [whole_texts, turn_by_turn, building()],
    "3.2": [by_labels, one_by_one, by_indexing, loss_by(safe_mean)],
    "3.3": [by_lists, step_by_step, attending(right_pairs)],
    "3.4": [step_with(), clears_behind, one_example_after_the_other],
    "3.5": [one_line_rate, interpolated, rates(up, down)],
    "3.6": [held_out_by(in_all), without_batches, one_at_a_time],
    "3.7": [loop_with(), by_parameters],
    "3.8": [cue_by_sets, cue_with(has_not, all_known)],
    "3.9": [testing([SHORT, TWICE, LONG]), by_properties],
}
