"""Lesson 03: the chat format and its mask, the loss on responses, packed rows, the overall score, silent bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.diagnosis import differences, misnamed
from ptlearn.course.exercise import Exercise

# 3.1 The chat format --------------------------------------------------------------------------------------------------

BEGIN_ID, END_ID = 1, 2


def letters(text):
    """A token for each letter, so that it does not matter where a text is cut before it is encoded."""
    return [100 + ord(letter) for letter in text]


def build(messages, encode, begin, end):
    """The answer that the lesson goes on with: piece by piece, each with who says it."""
    return joined(pieces_of(messages, encode, begin, end))


def pieces_of(messages, encode, begin, end):
    """(kind, tokens) of each piece of a conversation; kinds: begin, user, header, response, end."""
    pieces = [("begin", [begin])]
    for message in messages:
        if message["role"] == "user":
            pieces.append(("user", encode(f"User: {message['content']}\n")))
        else:
            pieces += [("header", encode("Assistant:")), ("response", encode(f" {message['content']}")), ("end", [end])]
    return pieces


def joined(pieces, said=("response", "end")):
    """Tokens and mask of some pieces, of which some kinds are said by the assistant."""
    tokens = [token for _, ids in pieces for token in ids]
    return tokens, [kind in said for kind, ids in pieces for _ in ids]


def build_cases(rng):
    """Two exchanges in a row, which tell more mistakes apart, and one."""
    words = ["Hi", "Add 2", "Who?", "Yes", "No", "Bye", "Oslo", "Good"]
    cases = []
    for exchanges in (2, 1):
        said = rng.sample(words, 2 * exchanges)
        cases.append([{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)])
    return cases


def drive_build(answer, case):
    tokens, mask = answer(case, letters, BEGIN_ID, END_ID)
    return {"tokens": list(tokens), "mask": [bool(said) for said in mask]}


def verify_build(case, data):
    pieces = pieces_of(case, letters, BEGIN_ID, END_ID)
    if len(data["tokens"]) != len(data["mask"]):
        return f"{len(data['tokens'])} tokens and {len(data['mask'])} entries of the mask: expected one for each token"

    def result(found):
        return dict(zip(("tokens", "mask"), found, strict=True))

    def without(kind):
        return result(joined([piece for piece in pieces if piece[0] != kind]))

    tokens, mask = joined(pieces)
    last = max(place for place, (kind, _) in enumerate(pieces) if kind == "header")
    earlier = [("user" if place < last else kind, ids) for place, (kind, ids) in enumerate(pieces)]
    ended = [piece for kind, ids in pieces for piece in ([(kind, ids)] + [("user", [END_ID])] * (kind == "user"))]
    spaced = [
        (kind, ids + letters(" ") if kind == "header" else ids[1:] if kind == "response" else ids)
        for kind, ids in pieces
    ]
    unspaced = [(kind, ids[1:] if kind == "response" else ids) for kind, ids in pieces]
    flat = [(kind, ids[:-1] if kind == "user" else ids) for kind, ids in pieces]
    mistakes = {
        "the mask is inverted: True is what the assistant says": result((tokens, [not said for said in mask])),
        "the mask is True everywhere: the prompt is trained too": result((tokens, [True] * len(mask))),
        "what the user says is trained too": result(joined(pieces, ("user", "response", "end"))),
        "the header is trained too: 'Assistant:' is written by the template": (
            result(joined(pieces, ("header", "response", "end")))
        ),
        "the end token is not trained: then the model never learns to stop": result(joined(pieces, ("response",))),
        "only the end token is trained": result(joined(pieces, ("end",))),
        "the end token is missing: the assistant says it behind each response": without("end"),
        "the begin token is missing": without("begin"),
        "the header 'Assistant:' is missing": without("header"),
        "only the last response is trained: all of them are the assistant's": result(joined(earlier)),
        "the end token stands behind the user's message too": result(joined(ended)),
        "the space is part of the header: it belongs to the word behind it, which the assistant says": (
            result(joined(spaced))
        ),
        "the space before the response is missing": result(joined(unspaced)),
        "the line break behind the user's message is missing": result(joined(flat)),
        "the mask is one place late": result((tokens, [False, *mask[:-1]])),
        "the mask is one place early: it is shifted with the loss, not here": result((tokens, [*mask[1:], False])),
    }
    return differences(data, result((tokens, mask)), mistakes)


# 3.2 The loss ---------------------------------------------------------------------------------------------------------


def response_loss(logits, tokens, mask):
    """The answer that the lesson goes on with: the masked mean, logits against the token behind them."""
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -(logprobs * mask[:, 1:]).sum() / mask[:, 1:].sum()


def log_softmax(row):
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


def loss_cases(rng):
    """Rows with unlike numbers of response tokens: a prompt, a response, padding; and a second response."""
    cases = []
    for masks in (
        [[0, 0, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0]],
        [[0, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]],
    ):
        logits = [[[round(rng.uniform(-2, 2), 2) for _ in range(5)] for _ in row] for row in masks]
        tokens = [[rng.randrange(5) for _ in row] for row in masks]
        cases.append({"logits": logits, "tokens": tokens, "mask": masks})
    return cases


def drive_loss(answer, case):
    import torch

    mask = torch.tensor(case["mask"], dtype=torch.bool)
    return float(answer(torch.tensor(case["logits"]), torch.tensor(case["tokens"]), mask))


def verify_loss(case, data):
    logits, tokens, mask = case["logits"], case["tokens"], case["mask"]
    rows, length = len(mask), len(mask[0])

    def scores(at, of, score=log_softmax):
        """Per row the scores of the tokens `of` by the logits `at`, two ranges."""
        return [[score(logits[row][t])[tokens[row][u]] for t, u in zip(at, of, strict=True)] for row in range(rows)]

    def chosen(values, places):
        return [[value for value, t in zip(row, places, strict=True) if mask[i][t]] for i, row in enumerate(values)]

    def mean(found):
        every = [value for row in found for value in row]
        return -sum(every) / len(every) if every else 0.0

    early, late = range(length - 1), range(1, length)
    shifted = scores(early, late)
    said = chosen(shifted, late)
    right, count = mean(said), sum(map(sum, mask))
    rest = [[value for value, t in zip(row, late, strict=True) if not mask[i][t]] for i, row in enumerate(shifted)]
    mistakes = {
        "not shifted: the logits at position t are about the token at t + 1": (
            mean(chosen(scores(range(length), range(length)), range(length)))
        ),
        "shifted the wrong way: logits[:, :-1] belong to tokens[:, 1:]": mean(chosen(scores(late, early), early)),
        "shifted the wrong way: the logits at t are about t + 1, not about t - 1": (
            mean(chosen(scores(late, early), late))
        ),
        "the mask is off by one: it belongs to the predicted tokens, mask[:, 1:]": mean(chosen(shifted, early)),
        "every position is trained: the mask is not used": mean(shifted),
        "the mask is inverted: this is the loss of all that the assistant does not say": mean(rest),
        "divided by all positions: N is the number of response tokens": right * count / (rows * (length - 1)),
        "divided by all positions, the first ones too: N is the number of response tokens": (
            right * count / (rows * length)
        ),
        "a mean for each row, and then over rows: divide once, by the response tokens of the whole batch": (
            sum(mean([row]) for row in said) / rows
        ),
        "divided by the rows: N is the number of response tokens": right * count / rows,
        "this is the sum: divide it by the number of response tokens": right * count,
        "the sign is missing: the loss is minus the log-probability": -right,
        "these are probabilities: take their logarithm": (
            mean(chosen(scores(early, late, lambda row: [math.exp(value) for value in log_softmax(row)]), late))
        ),
        "these are logits: log_softmax over the last dimension makes log-probabilities of them": (
            mean(chosen(scores(early, late, list), late))
        ),
    }
    return differences(data, right, mistakes)


# 3.3 Packed rows ------------------------------------------------------------------------------------------------------


def packed_attention(segments):
    """The package's answer: the same example and not later; a position is the number of those before it."""
    import torch

    segments = torch.tensor(segments)
    steps = torch.arange(len(segments))
    allowed = (segments[:, None] == segments) & (steps[:, None] >= steps)
    return allowed, allowed.sum(1) - 1


def packed_cases(rng):
    cases = []
    for count in (2, 3):
        lengths = [rng.randint(2, 4) for _ in range(count)]
        cases.append([i for i, length in enumerate(lengths) for _ in range(length)] + [-1, -1])
    return cases


def drive_packed(answer, case):
    import torch

    allowed, positions = answer(list(case))
    return {"allowed": torch.as_tensor(allowed).int().tolist(), "positions": torch.as_tensor(positions).tolist()}


def verify_packed(case, data):
    places = range(len(case))

    def table(rule):
        return [[int(rule(i, j)) for j in places] for i in places]

    right = table(lambda i, j: case[i] == case[j] and j <= i)
    mistakes = {
        "the borders are not respected: only positions of the same example may be seen": table(lambda i, j: j <= i),
        "everything is allowed": table(lambda i, j: True),
        "later positions are seen: allow j up to i only": table(lambda i, j: case[i] == case[j]),
        "rows and columns are swapped: allowed[i][j] says whether i sees j": (
            table(lambda i, j: case[i] == case[j] and i <= j)
        ),
        "a position does not see itself": table(lambda i, j: case[i] == case[j] and j < i),
        "inverted: True is what may be seen": table(lambda i, j: not (case[i] == case[j] and j <= i)),
        "the padding sees nothing: it counts as an example of its own": (
            table(lambda i, j: case[i] == case[j] and j <= i and case[i] >= 0)
        ),
        "earlier examples are seen too: equal segments, not smaller ones": (
            table(lambda i, j: case[j] <= case[i] and j <= i)
        ),
        "other examples are seen, and the own one is not": table(lambda i, j: case[i] != case[j] and j <= i),
    }
    said = differences(data["allowed"], right, {f"allowed: {words}": found for words, found in mistakes.items()})
    if said:
        return said
    begins = [case.index(segment) for segment in case]
    mistakes = {
        "they do not restart: each example counts from 0": list(places),
        "they count from 1: the first position of an example is 0": [i - begins[i] + 1 for i in places],
        "these are the places where the examples begin: subtract them": begins,
        "they count down: the first position of an example is 0": [
            begins[i] + case.count(case[i]) - 1 - i for i in places
        ],
        "the padding does not restart: it counts as an example of its own": (
            [i - begins[i] if case[i] >= 0 else i for i in places]
        ),
        "the padding counts as an example of its own, from 0": [i - begins[i] if case[i] >= 0 else 0 for i in places],
    }
    wanted = [i - begins[i] for i in places]
    return differences(data["positions"], wanted, {f"positions: {words}": found for words, found in mistakes.items()})


# 3.4 The overall score ------------------------------------------------------------------------------------------------


def overall(scores, shares):
    """The answer that the lesson goes on with: the mean by the shares of the use cases that were scored."""
    return sum(score * shares[name] for name, score in scores.items()) / sum(shares[name] for name in scores)


def overall_cases(rng):
    """Once some of the use cases were scored, once all."""
    cases = []
    for scored in (2, 4):
        shares = dict(zip(("generation", "chat", "rewrite", "extract"), rng.sample(range(5, 24), 4), strict=True))
        names = rng.sample(sorted(shares), scored)
        cases.append({"scores": {name: round(rng.uniform(0.1, 0.9), 2) for name in names}, "shares": shares})
    return cases


def drive_overall(answer, case):
    return float(answer(case["scores"], case["shares"]))


def verify_overall(case, data):
    scores, shares = case["scores"], case["shares"]
    weighted = sum(score * shares[name] for name, score in scores.items())
    total = sum(shares[name] for name in scores)
    inverse = sum(1 / shares[name] for name in scores)
    mistakes = {
        "every use case counts alike: weight them by their shares": sum(scores.values()) / len(scores),
        "the sum is not divided: the weights have to sum to 1": weighted,
        "divided by 100, though the shares of the scored use cases sum to less": weighted / 100,
        "divided by the shares of all use cases: one that was not scored counts as 0": weighted / sum(shares.values()),
        "divided by the number of use cases: divide by the sum of their shares": weighted / len(scores),
        "the rare use cases count most: multiply by the share, do not divide by it": (
            sum(score / shares[name] for name, score in scores.items()) / inverse
        ),
        "only the most frequent use case counts": scores[max(scores, key=shares.get)],
        "this is the sum of the scores": sum(scores.values()),
    }
    return differences(data, weighted / total, mistakes)


# 3.5 Silent bugs ------------------------------------------------------------------------------------------------------

BUGS = {"A": "end not trained", "B": "mask off by one", "C": "neighbours seen", "D": "labels not shifted"}
SIGNS = {
    "labels not shifted": "would let the model see each target at the place that predicts it",
    "mask off by one": "would train as many targets as the right one, but not the first of a response",
    "end not trained": "would train every token of a response but its last",
    "neighbours seen": "would change a score when the example before it is exchanged",
    "mask inverted": "would train no token of any response",
    "prompt trained too": "would train more targets than the responses have",
    "mean per row": "would leave every column as it is in the right row",
    "header trained": "would train more targets than the responses have",
}
SEEN = {
    "A": "run A finds the capital and does not stop; look at what is not trained",
    "B": "run B trains as many targets as the right one; look at which",
    "C": "run C trains the right targets; look at the last column",
    "D": "the loss of run D falls by most, and it has learned to repeat; look at the column seen",
}


def verify_bugs(case, data):
    return misnamed(data, BUGS, SIGNS, SEEN)


EXERCISES = {
    "3.1": Exercise(build_cases, drive_build, verify_build, points=2, reference=build),
    "3.2": Exercise(loss_cases, drive_loss, verify_loss, points=2, reference=response_loss),
    "3.3": Exercise(packed_cases, drive_packed, verify_packed, points=2, reference=packed_attention),
    "3.4": Exercise(overall_cases, drive_overall, verify_overall, points=1, reference=overall),
    "3.5": Exercise(lambda rng: [sorted(SIGNS)], lambda answer, case: answer, verify_bugs, points=3, reference=BUGS),
}
