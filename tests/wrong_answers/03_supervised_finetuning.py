"""Answers to lesson 03 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import torch

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


def loss_by(rule, *, logits=slice(None, -1), tokens=slice(1, None), mask=slice(1, None), score="log_softmax"):
    """An answer from log-probabilities and mask of the same shape, cut from logits, tokens and mask."""

    def answer(given, targets, said):
        values = given[:, logits] if score is None else getattr(given[:, logits], score)(-1)
        return rule(values.gather(-1, targets[:, tokens, None])[..., 0], said[:, mask].float())

    return answer


def mean(logprobs, said):
    return -(logprobs * said).sum() / said.sum()


ALL = slice(None)
EARLY = slice(None, -1)


def by_labels(logits, tokens, mask):
    labels = tokens.masked_fill(~mask, -100)[:, 1:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100)


def softmax_over_time(logits, tokens, mask):
    logprobs = logits[:, :-1].softmax(1).log().gather(-1, tokens[:, 1:, None])[..., 0]
    return mean(logprobs, mask[:, 1:])


def most_likely(logits, tokens, mask):
    return mean(logits[:, :-1].log_softmax(-1).amax(-1), mask[:, 1:])


def by_einsum(logits, tokens, mask):
    hot = torch.nn.functional.one_hot(tokens[:, 1:], logits.shape[-1]).double()
    logprobs = torch.einsum("btv,btv->bt", logits[:, :-1].double(), hot) - logits[:, :-1].logsumexp(-1)
    return -torch.einsum("bt,bt->", logprobs, mask[:, 1:].double()) / mask.sum()


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


def overall_by(rule):
    def answer(scores, shares):
        return rule(scores, shares, sum(score * shares[name] for name, score in scores.items()))

    return answer


def rare_ones_count_most(scores, shares):
    return sum(s / shares[name] for name, s in scores.items()) / sum(1 / shares[name] for name in scores)


def right_overall(scores, shares):
    return sum(scores[name] * shares[name] for name in shares if name in scores) / sum(shares[name] for name in scores)


def in_the_order_written(scores, shares):
    pairs = list(zip(scores.values(), shares.values()))
    return sum(score * share for score, share in pairs) / sum(share for _, share in pairs)


def without_zeros(scores, shares):
    return right_overall({name: score for name, score in scores.items() if score}, shares)


def overwritten(scores, shares):
    total = sum(shares[name] for name in scores)
    for name in scores:
        scores[name] *= shares[name] / total
    return sum(scores.values())


def by_tensors(scores, shares):
    weights = torch.tensor([shares[name] for name in scores], dtype=torch.float64)
    return weights / weights.sum() @ torch.tensor([*scores.values()], dtype=torch.float64)


# 3.5

BUGS = {"A": "end not trained", "B": "mask off by one", "C": "neighbours seen", "D": "labels not shifted"}

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
        (empties_the_messages, "messages was changed in place"),
        (tokens_alone, "expected 2"),
        (as_tensors, "is a tensor, expected a list"),
    ],
    "3.2": [
        (loss_by(mean, logits=ALL, tokens=ALL, mask=ALL), "not shifted"),
        (loss_by(mean, logits=slice(1, None), tokens=EARLY, mask=EARLY), "the wrong way: logits[:, :-1]"),
        (loss_by(mean, logits=slice(1, None), tokens=EARLY), "the wrong way: the logits at t"),
        (loss_by(mean, mask=EARLY), "mask is off by one"),
        (loss_by(lambda logprobs, said: -logprobs.mean()), "as if mask were True everywhere"),
        (loss_by(lambda logprobs, said: mean(logprobs, 1 - said)), "with mask turned round"),
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
        (overall_by(lambda scores, shares, total: sum(scores.values()) / len(scores)), "counts alike"),
        (overall_by(lambda scores, shares, total: total), "not divided"),
        (overall_by(lambda scores, shares, total: total / 100), "divided by 100"),
        (overall_by(lambda scores, shares, total: total / sum(shares.values())), "shares of all use cases"),
        (overall_by(lambda scores, shares, total: total / len(scores)), "number of use cases"),
        (rare_ones_count_most, "rare use cases"),
        (overall_by(lambda scores, shares, total: scores[max(scores, key=shares.get)]), "most frequent"),
        (overall_by(lambda scores, shares, total: sum(scores.values())), "sum of the scores"),
        (overall_by(lambda scores, shares, total: total / len(shares)), "number of all use cases"),
        (lambda scores, shares: round(right_overall(scores, shares), 2), "rounded to 2 digits"),
        (lambda scores, shares: 100 * right_overall(scores, shares), "times 100"),
        (lambda scores, shares: str(right_overall(scores, shares)), "is a str, expected a number"),
        (in_the_order_written, "by the name of its use case"),
        (without_zeros, "a score of 0 is left out"),
        (overwritten, "scores was changed in place"),
    ],
    "3.5": [
        (BUGS | {"A": "mask off by one"}, "not the first of a response"),
        (BUGS | {"A": "header trained"}, "more targets"),
        (BUGS | {"B": "mask inverted"}, "no token of any response"),
        (BUGS | {"C": "mean per row"}, "as it is in the right row"),
        (BUGS | {"C": "labels not shifted", "D": "neighbours seen"}, "see each target"),
        (BUGS | {"D": "prompt trained too"}, "falls by most"),
        (BUGS | {"D": "learning rate"}, "not on the list"),
        ({"A": "end not trained"}, "keys A, B, C and D"),
    ],
}
RIGHT = {
    "3.1": [whole_texts, turn_by_turn, building()],
    "3.2": [by_labels, one_by_one, by_einsum, loss_by(mean)],
    "3.3": [by_lists, step_by_step, attending(right_pairs)],
    "3.4": [by_tensors, right_overall, overall_by(lambda scores, shares, total: total / sum(map(shares.get, scores)))],
    "3.5": [{run: f" {bug.upper()}" for run, bug in BUGS.items()}],
}
