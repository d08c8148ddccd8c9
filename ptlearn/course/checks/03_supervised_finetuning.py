"""Lesson 03: the chat format and its mask, the loss on responses, packed rows, the overall score, silent bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.cases import log_softmax, softmax
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise, lab

# 3.1 The chat format --------------------------------------------------------------------------------------------------


def letters(text):
    """A token for each letter, so that it does not matter where a text is cut before it is encoded."""
    return [100 + ord(letter) for letter in text]


def build(messages, encode, begin, end):
    """The answer that the lesson goes on with: piece by piece, each with who says it."""
    return joined(pieces_of(messages, encode, begin, end))


def pieces_of(messages, encode, begin, end, user="User: {}\n", header="Assistant:", response=" {}"):
    """(kind, tokens) of each piece of a conversation; kinds: begin, user, header, response, end."""
    pieces = [("begin", [begin])]
    for message in messages:
        if message["role"] == "user":
            pieces.append(("user", encode(user.format(message["content"]))))
        else:
            pieces += [("header", encode(header)), ("response", encode(response.format(message["content"])))]
            pieces.append(("end", [end]))
    return pieces


def joined(pieces, said=("response", "end")):
    """Tokens and mask of some pieces, of which some kinds are said by the assistant."""
    tokens = [token for _, ids in pieces for token in ids]
    return tokens, [kind in said for kind, ids in pieces for _ in ids]


def build_cases(rng):
    """Two exchanges in a row, which tell more mistakes apart, one, and turns that do not alternate; a token is 0."""
    cases = []
    for roles, begin, end in (("uaua", 1, 2), ("ua", 0, 2), ("auuaa", 3, 0)):
        said = rng.sample(["Hi", "Add 2", "Who?", "Yes", "No", "Bye", "Oslo", "Good"], len(roles))
        names = {"u": "user", "a": "assistant"}
        messages = [{"role": names[role], "content": text} for role, text in zip(roles, said)]
        cases.append({"messages": messages, "begin": begin, "end": end})
    return cases


def drive_build(answer, case):
    tokens, mask = answer(case["messages"], letters, case["begin"], case["end"])
    return {"tokens": tokens, "mask": mask}


def expect_build(case):
    given = case["messages"], letters, case["begin"], case["end"]
    pieces = pieces_of(*given)
    tokens, mask = joined(pieces)

    def saying(*kinds):
        return joined(pieces, kinds)[1]

    def without(kind):
        return joined([piece for piece in pieces if piece[0] != kind])[0]

    def behind(kind, more):
        return joined([piece for known in pieces for piece in [known, ("", more)][: 1 + (known[0] == kind)]])[0]

    headers = [place for place, (kind, _) in enumerate(pieces) if kind == "header"]
    last_alone = [("user" if place < headers[-1] else kind, ids) for place, (kind, ids) in enumerate(pieces)]
    first_alone = [("user" if place > headers[0] + 2 else kind, ids) for place, (kind, ids) in enumerate(pieces)]
    masks = {
        "the mask is True everywhere: the prompt is trained too": [True] * len(mask),
        "what the user says is trained too": saying("user", "response", "end"),
        "the header is trained too: 'Assistant:' is written by the template": saying("header", "response", "end"),
        "the end token is not trained: then the model never learns to stop": saying("response"),
        "only the end token is trained": saying("end"),
        "the begin token is trained: nobody says it": saying("begin", "response", "end"),
        "only the last response is trained: all of them are the assistant's": joined(last_alone)[1],
        "only the first response is trained: all of them are the assistant's": joined(first_alone)[1],
        "the mask is one place early: it is shifted with the loss, not here": [*mask[1:], False],
    }
    written = {
        "the end token is missing: the assistant says it behind each response": without("end"),
        "the begin token is missing": without("begin"),
        "the header 'Assistant:' is missing": without("header"),
        "the end token stands behind the user's message too": behind("user", [case["end"]]),
        "the begin token stands before every message":
            [token for message in case["messages"] for token in joined(pieces_of([message], *given[1:]))[0]],
        "the end token stands behind the last response alone": without("end") + [case["end"]],
        "a line break stands behind the assistant's message: the user's has one": behind("end", letters("\n")),
    }
    templates = {
        "the space is part of the header: it belongs to the word behind it, which the assistant says":
            {"header": "Assistant: ", "response": "{}"},
        "the space before the response is missing": {"response": "{}"},
        "the line break behind the user's message is missing": {"user": "User: {}"},
        "the space behind 'User:' is missing": {"user": "User:{}\n"},
        "'User: ' is missing in front of the user's message": {"user": "{}\n"},
        "a line break stands between a response and its end token": {"response": " {}\n"},
        "the roles are written small: it is 'User: ' and 'Assistant:'": {"user": "user: {}\n", "header": "assistant:"},
    }
    space = next(iter(templates))  # the same tokens, another mask
    masks[space] = joined(pieces_of(*given, **templates.pop(space)))[1]
    written |= {words: joined(pieces_of(*given, **texts))[0] for words, texts in templates.items()}
    mistakes = {("mask", words): found for words, found in masks.items()}
    mistakes |= {("tokens", words): found for words, found in written.items()}
    return {"tokens": tokens, "mask": mask}, mistakes


def remark_build(case, data):
    if len(data["tokens"]) != len(data["mask"]):
        return f"{len(data['tokens'])} tokens and {len(data['mask'])} entries of the mask: expected one for each token"


# 3.2 The loss ---------------------------------------------------------------------------------------------------------


def response_loss(logits, tokens, mask):
    """The answer that the lesson goes on with: the masked mean, logits against the token behind them."""
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -(logprobs * mask[:, 1:]).sum() / mask[:, 1:].sum()


def loss_cases(rng):
    """Rows with unlike numbers of response tokens, a small one first: a prompt, a response, padding; also a second
    response, one that fills its row, and a row without any."""
    cases = []
    for masks, words in (
        ([[0, 1, 0]], 3),
        ([[0, 0, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0]], 5),
        ([[0, 1, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], 4),
    ):
        logits = [[[round(rng.uniform(-2, 2), 2) for _ in range(words)] for _ in row] for row in masks]
        tokens = [[rng.randrange(words) for _ in row] for row in masks]
        cases.append({"logits": logits, "tokens": tokens, "mask": masks})
    return cases


def expect_loss(case):
    logits, tokens, mask = case["logits"], case["tokens"], case["mask"]
    rows, length = len(mask), len(mask[0])

    def scores(at, of, score=log_softmax):
        """Per row the scores of the tokens `of` by the logits `at`, two ranges."""
        return [[score(logits[row][t])[tokens[row][u]] for t, u in zip(at, of, strict=True)] for row in range(rows)]

    def chosen(values, places, wanted=1):
        return [[x for x, t in zip(row, places, strict=True) if mask[i][t] == wanted] for i, row in enumerate(values)]

    def mean(found):
        every = [value for row in found for value in row]
        return -sum(every) / len(every) if every else math.nan

    early, late = range(length - 1), range(1, length)
    shifted = scores(early, late)
    said = chosen(shifted, late)
    right, count = mean(said), sum(map(sum, mask))
    over_time = [[softmax([logits[i][u][v] for u in early])[t] for t, v in enumerate(row[1:])]
                 for i, row in enumerate(tokens)]  # fmt: skip
    mistakes = {
        "not shifted: the logits at position t are about the token at t + 1":
            mean(chosen(scores(range(length), range(length)), range(length))),
        "shifted the wrong way: logits[:, :-1] belong to tokens[:, 1:]": mean(chosen(scores(late, early), early)),
        "shifted the wrong way: the logits at t are about t + 1, not about t - 1":
            mean(chosen(scores(late, early), late)),
        "the mask is off by one: it belongs to the predicted tokens, mask[:, 1:]":
            Alternatives(mean(chosen(shifted, early)), -sum(map(sum, chosen(shifted, early))) / count),
        "divided by all positions: N is the number of response tokens": right * count / (rows * (length - 1)),
        "divided by all positions, the first ones too: N is the number of response tokens":
            right * count / (rows * length),
        "a mean for each row, and then over rows: divide once, by the response tokens of the whole batch":
            Alternatives(*(sum(mean([row]) if row else empty for row in said) / rows for empty in (math.nan, 0.0))),
        "divided by the rows: N is the number of response tokens": right * count / rows,
        "the mean probability, and then its logarithm: take logarithms first":
            -math.log(-mean(chosen(scores(early, late, softmax), late))),
        "softmax runs over the positions: at each position the probabilities of the vocabulary sum to 1":
            mean(chosen([[math.log(p) for p in row] for row in over_time], late)),
        "the most likely token is scored: score the one that is there":
            mean(chosen([[max(log_softmax(logits[i][t])) for t in early] for i in range(rows)], late)),
    }
    return right, mistakes


# 3.3 Packed rows ------------------------------------------------------------------------------------------------------


def packed_attention(segments):
    """The package's answer: the same example and not later; a position is the number of those before it."""
    import torch

    segments = torch.tensor(segments)
    steps = torch.arange(len(segments))
    allowed = (segments[:, None] == segments) & (steps[:, None] >= steps)
    return allowed, allowed.sum(1) - 1


def packed_cases(rng):
    """Rows with much padding, little and none, an example of one token, and numbers that are not in order."""
    cases = []
    for names, padding in (([0, 1], 1), ([0, 1, 2], 2), ([3, 0, 5], 0), ([0], 3)):
        lengths = [rng.randint(1, 3) + (padding == 1) for _ in names]
        cases.append([name for name, length in zip(names, lengths) for _ in range(length)] + [-1] * padding)
    return cases


def drive_packed(answer, case):
    allowed, positions = answer(case)
    return {"allowed": allowed, "positions": positions}


def expect_packed(case):
    places = range(len(case))
    begins = [case.index(segment) for segment in case]

    def table(rule):
        return [[bool(rule(i, j)) for j in places] for i in places]

    def sees(i, j):
        return case[i] == case[j] and j <= i

    rules = {
        "the borders are not respected: only positions of the same example may be seen": lambda i, j: j <= i,
        "everything is allowed": lambda i, j: True,
        "later positions are seen: allow j up to i only": lambda i, j: case[i] == case[j],
        "a position does not see itself": lambda i, j: sees(i, j) and i != j,
        "inverted: True is what may be seen": lambda i, j: not sees(i, j),
        "the padding sees nothing: it counts as an example of its own": lambda i, j: sees(i, j) and case[i] >= 0,
        "earlier examples are seen too: equal segments, not smaller ones": lambda i, j: case[j] <= case[i] and j <= i,
        "other examples are seen, and the own one is not": lambda i, j: case[i] != case[j] and j <= i,
        "the padding sees itself alone: it counts as one example, with all its positions":
            lambda i, j: sees(i, j) and (case[i] >= 0 or i == j),
        "a position sees itself alone": lambda i, j: i == j,
        "only the position before is seen: all earlier ones of the example are": lambda i, j: sees(i, j) and i - j < 2,
        "the padding is seen by all: it counts as an example of its own": lambda i, j: sees(i, j) or case[j] < 0,
    }
    counted = {
        "they do not restart: each example counts from 0": list(places),
        "these are the places where the examples begin: subtract them": begins,
        "they count down: the first position of an example is 0":
            [begins[i] + case.count(case[i]) - 1 - i for i in places],
        "the padding does not restart: it counts as an example of its own":
            [i - begins[i] if case[i] >= 0 else i for i in places],
        "the padding counts as an example of its own, from 0":
            Alternatives(*([i - begins[i] if case[i] >= 0 else other for i in places] for other in (0, -1))),
    }
    mistakes = {("allowed", words): table(rule) for words, rule in rules.items()}
    mistakes |= {("positions", words): found for words, found in counted.items()}
    return {"allowed": table(sees), "positions": [i - begins[i] for i in places]}, mistakes


# 3.4 The overall score ------------------------------------------------------------------------------------------------


def overall(scores, shares):
    """The answer that the lesson goes on with: the mean by the shares of the use cases that were scored."""
    return sum(score * shares[name] for name, score in scores.items()) / sum(shares[name] for name in scores)


def overall_cases(rng):
    """One, some and all use cases scored, in another order than the shares; once a score of 0."""
    cases = []
    for scored in (2, 4, 1):
        shares = dict(zip(("generation", "chat", "rewrite", "extract"), rng.sample(range(5, 24), 4), strict=True))
        names = rng.sample(sorted(shares), scored)
        scores = {name: rng.randrange(101, 900, 10) / 1000 for name in names}
        cases.append({"scores": scores | {names[0]: 0.0} if scored == 4 else scores, "shares": shares})
    return cases


def expect_overall(case):
    scores, shares = case["scores"], case["shares"]
    weighted = sum(score * shares[name] for name, score in scores.items())
    total, best = sum(shares[name] for name in scores), max(scores, key=shares.get)
    in_order = list(zip(scores.values(), shares.values()))
    mistakes = {
        "every use case counts alike: weight them by their shares": sum(scores.values()) / len(scores),
        "the sum is not divided: the weights have to sum to 1": weighted,
        "divided by 100, though the shares of the scored use cases sum to less": weighted / 100,
        "divided by the shares of all use cases: one that was not scored counts as 0": weighted / sum(shares.values()),
        "divided by the number of use cases: divide by the sum of their shares": weighted / len(scores),
        "divided by the number of all use cases: divide by the shares of the scored ones": weighted / len(shares),
        "the rare use cases count most: multiply by the share, do not divide by it":
            sum(score / shares[name] for name, score in scores.items()) / sum(1 / shares[name] for name in scores),
        "only the most frequent use case counts": scores[best],
        "this is the sum of the scores": sum(scores.values()),
        "the shares are taken in the order they are written: look each up by the name of its use case":
            sum(score * share for score, share in in_order) / sum(share for _, share in in_order),
        "a score of 0 is left out: it counts like any other":
            weighted / sum(shares[name] for name, score in scores.items() if score),
    }
    return weighted / total, mistakes


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


EXERCISES = {
    "3.1": Exercise(build_cases, drive_build, expect_build, points=2, reference=build, remark=remark_build,
        signature="build(messages: list, encode: function, begin: int, end: int) -> (list of int, list)"),
    "3.2": Exercise(loss_cases, None, expect_loss, points=2, reference=response_loss,
        signature="response_loss(logits: float32[B T V], tokens: int[B T], mask: bool[B T]) -> float[] with gradient"
        " of logits"),
    "3.3": Exercise(packed_cases, drive_packed, expect_packed, points=2, reference=packed_attention,
        signature="packed_attention(segments: list) -> (bool[T T] or list, int[T] or list)"),
    "3.4": Exercise(overall_cases, None, expect_overall, points=1, reference=overall,
        signature="overall(scores: dict, shares: dict) -> number"),
    "3.5": lab(3, BUGS, SIGNS, SEEN),
}  # fmt: skip
