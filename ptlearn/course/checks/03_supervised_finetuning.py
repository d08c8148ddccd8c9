"""Lesson 03: the chat format, the loss on responses, packed rows; a step, its rate, the loop; cues, a lab of batches.

The first expectations are plain Python on lists, from the definitions. Those of training replay it on a tiny model:
the right way, and once for each mistake.
"""

import copy
import math
import random

import torch
from torch import nn

from ptlearn.course.cases import log_softmax, lost_on_padding, softmax
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.course.lab import lab_of_runs
from ptlearn.lm.chat import Example
from ptlearn.rollout import pad_and_stack

# 3.1 The chat format -------------------------------------------------------------------------------------------------


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
        "all behind the first header is trained: later messages of the user are not the assistant's":
            [place >= mask.index(True) for place in range(len(mask))],
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
        "messages are missing: every exchange is written, not the first alone":
            joined(pieces[: 1 + [kind for kind, _ in pieces].index("end")])[0],
    }
    templates = {
        "the space is part of the header: it belongs to the word behind it, which the assistant says":
            {"header": "Assistant: ", "response": "{}"},
        "the colon is trained too: 'Assistant:' is written by the template":
            {"header": "Assistant", "response": ": {}"},
        "the space before the response is missing": {"response": "{}"},
        "two spaces stand before a response: one": {"response": "  {}"},
        "the line break behind the user's message is missing": {"user": "User: {}"},
        "the space behind 'User:' is missing": {"user": "User:{}\n"},
        "'User: ' is missing in front of the user's message": {"user": "{}\n"},
        "a line break stands between a response and its end token": {"response": " {}\n"},
        "the roles are written small: it is 'User: ' and 'Assistant:'": {"user": "user: {}\n", "header": "assistant:"},
    }
    for words in list(templates)[:2]:  # the same tokens, another mask
        masks[words] = joined(pieces_of(*given, **templates.pop(words)))[1]
    written |= {words: joined(pieces_of(*given, **texts))[0] for words, texts in templates.items()}
    mistakes = {("mask", words): found for words, found in masks.items()}
    mistakes |= {("tokens", words): found for words, found in written.items()}
    return {"tokens": tokens, "mask": mask}, mistakes


def remark_build(case, data):
    if len(data["tokens"]) != len(data["mask"]):
        return f"{len(data['tokens'])} tokens and {len(data['mask'])} entries of the mask: expected one for each token"


# 3.2 The loss --------------------------------------------------------------------------------------------------------


def response_loss(logits, tokens, mask):
    """The answer that the lesson goes on with: the masked mean, logits against the token behind them."""
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -torch.where(mask[:, 1:], logprobs, 0.0).sum() / mask[:, 1:].sum()


def loss_cases(rng):
    """Rows with unlike numbers of response tokens, a small one first: a prompt, a response, padding; also a second
    response, one that fills its row, and a row without any. At last a row whose padding the model holds impossible."""
    cases = []
    for masks, words in (
        ([[0, 1, 0]], 3),
        ([[0, 0, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0]], 5),
        ([[0, 1, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], 4),
    ):
        logits = [[[round(rng.uniform(-2, 2), 2) for _ in range(words)] for _ in row] for row in masks]
        tokens = [[rng.randrange(words) for _ in row] for row in masks]
        tokens[0][2:3] = [0]  # a response's, in the longer ones: a word like others
        cases.append({"logits": logits, "tokens": tokens, "mask": masks, "junk": False})
    logits = [[round(rng.uniform(-2, 2), 2) for _ in range(3)] for _ in range(5)]
    logits[3][2] = -math.inf  # about the padding
    cases.append({"logits": [logits], "tokens": [[1, 0, 2, 1, 2]], "mask": [[0, 1, 1, 1, 0]], "junk": True})
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
    if case["junk"]:
        return right, {}
    every, twice = chosen(shifted, late) + chosen(shifted, late, 0), range(2, length)
    zeroed = [[log_softmax(logits[i][t])[tokens[i][t + 1] * mask[i][t + 1]] for t in early] for i in range(rows)]
    dimmed = [[log_softmax([x * mask[i][t] for x in logits[i][t]])[tokens[i][t + 1]] for t in early]
              for i in range(rows)]  # fmt: skip
    over_rows = [[log_softmax([logits[j][t][v] for j in range(rows)])[i] for t, v in enumerate(row[1:])]
                 for i, row in enumerate(tokens)]  # fmt: skip
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
        "as if mask were True everywhere: all positions are averaged before it (reduction='none' keeps them apart)":
            mean(every),
        "the tokens are multiplied by the mask: then token 0 is scored beside the responses": mean(zeroed),
        "token 0 is left out: it is a word like others, and the mask says what counts":
            mean([[x for t, x in enumerate(row, 1) if tokens[i][t] and mask[i][t]] for i, row in enumerate(shifted)]),
        "shifted twice: the logits at t are about t + 1, not about t + 2":
            mean(chosen(scores(range(length - 2), twice), twice)),
        "the logits are multiplied by the mask: it says which losses count": mean(chosen(dimmed, late)),
        "softmax runs over the rows: at each position the probabilities of the vocabulary sum to 1":
            mean(chosen(over_rows, late)),
        "the most likely token is scored: score the one that is there":
            mean(chosen([[max(log_softmax(logits[i][t])) for t in early] for i in range(rows)], late)),
    }
    return right, mistakes


# 3.3 Packed rows -----------------------------------------------------------------------------------------------------


def packed_attention(segments):
    """The package's answer: the same example and not later; a position is the number of those before it."""
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
        "this is the length of the example, less 1, at each position: count the earlier ones alone":
            [case.count(segment) - 1 for segment in case],
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


# What training is checked on -----------------------------------------------------------------------------------------

WORDS, WIDTH = 7, 4  # of the tiny model


class Tiny(nn.Module):
    """A causal model of a few numbers; its dropout always drops the same, so that training mode shows."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.enter, self.leave = (
            nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))
            for shape in ((WORDS, WIDTH), (WIDTH, WORDS))
        )

    def forward(self, tokens):
        steps = torch.arange(1, tokens.shape[1] + 1)
        read = self.enter[tokens].cumsum(1) / steps[:, None]
        kept = torch.tensor([0.0, 2.0, 2.0, 0.0]) if self.training else 1.0
        return (torch.tanh(read + self.enter[tokens]) * kept) @ self.leave


def drawn_examples(rng, count):
    """Conversations of a prompt and a response, of unlike lengths, as lists."""
    lengths = [(rng.randint(1, 4), rng.randint(1, 4)) for _ in range(count)]
    return [
        [[rng.randrange(1, WORDS) for _ in range(asked + said)], [False] * asked + [True] * said]
        for asked, said in lengths
    ]


def as_examples(rows):
    return [Example(*row) for row in rows]


def numbers_of(model):
    """All parameters in one list."""
    return [number for parameter in model.parameters() for number in parameter.detach().flatten().tolist()]


def padded(batch):
    """Tokens and mask of a batch, (B, T) each."""
    tokens, _ = pad_and_stack([example.tokens for example in batch], value=0)
    mask, _ = pad_and_stack([example.mask for example in batch], value=False)
    return tokens, mask


# 3.4 The step --------------------------------------------------------------------------------------------------------


def sft_step(model, optimizer, batch, clip_norm):
    """The answer that the lesson goes on with."""
    return a_step(model, optimizer, batch, clip_norm)


def a_step(
    model, optimizer, batch, clip_norm, *, masked=lambda tokens, mask: mask, loss=response_loss, cleared=True,
    clip="before", training=True, moves=1, late=False, norm_of=torch.linalg.vector_norm,
):  # fmt: skip
    """The step, or one of the ways to go wrong; see `expect_step` for what each keyword does."""
    tokens, mask = padded(batch)
    mask = masked(tokens, mask)
    model.train(training)
    value = loss(model(tokens), tokens, mask)
    if cleared:
        optimizer.zero_grad()
    value.backward()
    parameters = list(model.parameters())
    norm = float(norm_of(torch.stack([p.grad.norm() for p in parameters])))
    if clip == "before":
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    elif clip == "entries":
        nn.utils.clip_grad_value_(parameters, clip_norm)
    elif clip == "each":
        for parameter in parameters:
            nn.utils.clip_grad_norm_(parameter, clip_norm)
    elif clip == "scaled":
        for parameter in parameters:
            parameter.grad *= clip_norm / norm
    for _ in range(moves):
        optimizer.step()
    if late:
        value = loss(model(tokens), tokens, mask)
    return float(value.detach()), norm


def row_means(logits, tokens, mask):
    rows = zip(logits.split(1), tokens.split(1), mask.split(1))
    return sum(response_loss(*row) for row in rows) / len(tokens)


def step_cases(rng):
    """Two steps each; once the norm is far too large, and once it never is."""
    return [
        {"model": rng.randrange(10**6), "batches": [drawn_examples(rng, 3) for _ in range(2)], "clip_norm": clip_norm}
        for clip_norm in (0.05, 50.0)
    ]


def drive_step(answer, case):
    """Plain gradient descent shows each gradient as it is."""
    model = Tiny(case["model"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    found = [answer(model.eval(), optimizer, as_examples(batch), case["clip_norm"]) for batch in case["batches"]]
    return {"loss": [float(loss) for loss, _ in found], "norm": [float(norm) for _, norm in found],
            "parameters": numbers_of(model)}  # fmt: skip


def expect_step(case):
    def stepped(**wrong):
        return drive_step(lambda *given: a_step(*given, **wrong), case)

    right = stepped()
    clip_norm = case["clip_norm"]
    mistakes = {
        "the gradient of the step before is still there: optimizer.zero_grad() before loss.backward()":
            stepped(cleared=False),
        "the prompts are trained too: hand response_loss the mask of the examples":
            stepped(masked=lambda tokens, mask: tokens > 0),
        "the padding is trained too: hand response_loss the mask of the examples":
            stepped(masked=lambda tokens, mask: torch.ones_like(mask)),
        "padding is told by its token: the mask comes from the examples, padded with False":
            stepped(masked=lambda tokens, mask: mask & (tokens != tokens[0, -1])),
        "a mean for each example, and then over examples: one mean over the batch": stepped(loss=row_means),
        "a sum instead of the mean over response tokens":
            stepped(loss=lambda logits, tokens, mask: response_loss(logits, tokens, mask) * mask[:, 1:].sum()),
        "trained without dropout: model.train() before the forward pass": stepped(training=False),
        "nothing moves: optimizer.step() is missing": stepped(moves=0),
        "two steps are taken: optimizer.step() once": stepped(moves=2),
        "the mask is padded with True: padding is nobody's response":
            stepped(masked=lambda tokens, mask: mask | (tokens == 0)),
        "the loss is divided by the number of examples: it is a mean over response tokens already":
            stepped(loss=lambda logits, tokens, mask: response_loss(logits, tokens, mask) / len(tokens)),
        "the loss is a sum over response tokens, divided by the examples: divide by the tokens": stepped(
            loss=lambda logits, tokens, mask: response_loss(logits, tokens, mask) * mask[:, 1:].sum() / len(tokens)
        ),
        "loss and norm are exchanged: the loss comes first": right | {"loss": right["norm"], "norm": right["loss"]},
        "norm: the norms of the tensors are added: it is the root of the sum of their squares":
            right | {"norm": stepped(norm_of=torch.sum)["norm"]},
        "the loss is that after the step: take it before": stepped(late=True),
        "uphill: the loss is what falls":
            stepped(loss=lambda *given: -response_loss(*given)),
    }
    if clip_norm < 1:
        mistakes |= {
            "the gradient is not clipped before the step": stepped(clip=None),
            "each entry is clipped: it is the norm of the whole gradient that is bounded": stepped(clip="entries"),
            "each tensor is clipped on its own: there is one norm, over all parameters": stepped(clip="each"),
            "norm: this is the norm after clipping: clip_grad_norm_ returns the one before":
                right | {"norm": [clip_norm] * 2},
        }
    else:
        mistakes["a short gradient is made longer: clipping only shortens"] = stepped(clip="scaled")
    return right, mistakes


# 3.5 The learning rate -----------------------------------------------------------------------------------------------


def learning_rate(step, steps, peak, warmup=0.1):
    """The answer that the lesson goes on with: up in a line, down in a line, never 0."""
    rising = max(1, round(warmup * steps))
    return peak * min((step + 1) / rising, (steps - step) / max(1, steps - rising))


def rate_cases(rng):
    """Every step of a run: two ordinary ones, rounded up and down, without a warmup, all warmup, and a single step."""
    peak = rng.randint(2, 9)
    ordinary = (rng.choice([16, 19, 22]), 0.3), (rng.choice([17, 18, 21]), 0.3)
    shapes = *ordinary, (rng.randrange(6, 9), 0.0), (rng.randrange(5, 8), 1.0), (1, 0.5)
    return [{"steps": steps, "peak": peak, "warmup": warmup} for steps, warmup in shapes]


def drive_rate(answer, case):
    return [answer(step, case["steps"], case["peak"], case["warmup"]) for step in range(case["steps"])]


def expect_rate(case):
    steps, peak, warmup = case["steps"], case["peak"], case["warmup"]
    rising = max(1, round(warmup * steps))
    falling = max(1, steps - rising)

    def rates(rule):
        return [peak * rule(step) for step in range(steps)]

    def right(step, rising=rising):
        return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)

    mistakes = {
        "it begins at 0: the first step would be lost": rates(
            lambda step: step / rising if step < rising else (steps - step) / falling
        ),
        "it never falls: from the peak down in a line": rates(lambda step: min(1, (step + 1) / rising)),
        "it ends at 0: the last step would be lost": rates(
            lambda step: (step + 1) / rising if step < rising else (steps - step - 1) / falling
        ),
        "there is no warmup": rates(lambda step: (steps - step) / steps),
        "it falls from the first step on, as if there were no rise: after it steps - rising are left":
            rates(lambda step: (step + 1) / rising if step < rising else (steps - step) / steps),
        "it is constant": rates(lambda step: 1),
        "warmup · steps is rounded down: round(...) takes the nearest":
            rates(lambda step: right(step, max(1, int(warmup * steps)))),
        "warmup · steps is rounded up: round(...) takes the nearest":
            rates(lambda step: right(step, max(1, math.ceil(warmup * steps)))),
        "the warmup is always 0.1: use the one that comes in":
            rates(lambda step: right(step, max(1, round(0.1 * steps)))),
        "one step rises at least: max(1, round(...))":
            rates(lambda step: right(step) if round(warmup * steps) else (steps - step) / steps),
        "it begins and ends at 0: the first and the last step would be lost": rates(
            lambda step: step / rising if step < rising else (steps - 1 - step) / max(1, steps - 1 - rising)
        ),
        "it rises and falls at once: two cases, the one or the other":
            rates(lambda step: min(1, (step + 1) / rising) * (steps - step) / falling),
        "it falls in a curve: a line": rates(
            lambda step: right(step) if step < rising
            else (1 + math.cos(math.pi * (step - rising) / falling)) / 2
        ),
        "this is a share of the peak: multiply by it": [right(step) for step in range(steps)],
    }  # fmt: skip
    return rates(right), mistakes


# 3.6 The held-out loss -----------------------------------------------------------------------------------------------


def held_out_loss(model, examples, size):
    """The answer that the lesson goes on with."""
    model.eval()
    total = count = 0
    with torch.no_grad():
        for first in range(0, len(examples), size):
            tokens, mask = padded(examples[first : first + size])
            said = int(mask[:, 1:].sum())
            total += float(response_loss(model(tokens), tokens, mask)) * said
            count += said
    return total / count


def held_out_cases(rng):
    """The last batch is not full; then one that holds everything."""
    return [{"model": rng.randrange(10**6), "examples": drawn_examples(rng, count), "size": size}
            for count, size in ((5, 2), (4, 3), (3, 8))]  # fmt: skip


def drive_held_out(answer, case):
    model = Tiny(case["model"]).train()
    before = numbers_of(model)
    loss = answer(model, as_examples(case["examples"]), case["size"])
    return {"loss": float(loss), "unchanged": numbers_of(model) == before}


def expect_held_out(case):
    examples, size = as_examples(case["examples"]), case["size"]
    model = Tiny(case["model"]).eval()

    @torch.no_grad()
    def loss(some, everything=False):
        tokens, mask = padded(some)
        return float(response_loss(model(tokens), tokens, tokens > 0 if everything else mask))

    batches = [examples[first : first + size] for first in range(0, len(examples), size)]
    losses, counts = list(map(loss, batches)), [sum(sum(e.mask) for e in batch) for batch in batches]
    right, every = loss(examples), sum(len(example.tokens) for example in examples)
    widths = [max(len(example.tokens) for example in batch) for batch in batches]
    places, shifted = ([len(batch) * (width - less) for batch, width in zip(batches, widths)] for less in (0, 1))
    model.train()
    mistakes = {
        "dropout is on: model.eval() first": loss(examples),
        "the prompts count too: the mask says which tokens do": None,
    }
    model.eval()
    mistakes["the prompts count too: the mask says which tokens do"] = loss(examples, everything=True)
    mistakes |= {
        "a mean of the batches' means: a batch counts by its response tokens": sum(losses) / len(losses),
        "a mean over examples: an example counts by its response tokens":
            sum(loss([example]) for example in examples) / len(examples),
        "this is the sum over batches: divide by the response tokens of all": sum(losses),
        "the sum is divided by something else than the response tokens of all batches":
            Alternatives(*(right * sum(counts) / by for by in (1, len(examples), len(batches), counts[-1], every))),
        "a batch counts by its response tokens, not by all its places, padding and prompts too":
            Alternatives(*(
                sum(loss * size for loss, size in zip(losses, sizes)) / sum(sizes) for sizes in (places, shifted)
            )),
        "only the last batch counts": losses[-1],
        "only the first batch counts": losses[0],
    }
    if len(examples) % size and len(batches) > 1:
        full = sum(map(math.prod, zip(losses[:-1], counts)))
        mistakes["the last batch is left out, as it is not full"] = full / sum(counts[:-1])
        mistakes["the last batch is not full: it counts by its own tokens"] = (
            sum(loss * len(batch) for loss, batch in zip(losses, batches)) / len(examples)
        )
    words = {("loss", said): value for said, value in mistakes.items()}
    return {"loss": right, "unchanged": True}, words | {
        ("unchanged", "the parameters have changed: nothing is trained on held-out examples"): False
    }


# 3.7 The loop --------------------------------------------------------------------------------------------------------


def finetune(model, plan, held_out, lr, every, patience):
    """The answer that the lesson goes on with."""
    return a_loop(model, plan, held_out, lr, every, patience)


def a_loop(
    model, plan, held_out, lr, every, patience, *, restores=True, aliased=False, decay=0.0, rate=learning_rate,
    anew=False, at_end=True, waits=0, judged="held out", better=lambda curve: curve[-1] == min(curve), also=(),
    stops="best", clip_norm=1.0, plain=False,
):  # fmt: skip
    """The loop, or one of the ways to go wrong; see `expect_loop` for what each keyword does."""

    def optimizer_of():
        if plain:
            return torch.optim.SGD(model.parameters(), lr=lr)
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)

    losses, curve, best, optimizer = [], {}, copy.deepcopy(model.state_dict()), optimizer_of()
    for step, batch in enumerate(plan):
        optimizer = optimizer_of() if anew else optimizer
        for group in optimizer.param_groups:
            group["lr"] = rate(step, len(plan), lr)
        losses.append(sft_step(model, optimizer, [*batch, *also], clip_norm)[0])
        if (step + 1) % every == 0 or (at_end and step + 1 == len(plan)):
            judge = held_out if judged == "held out" else batch
            curve[step + 1] = held_out_loss(model, judge, 32)
            values = list(curve.values())
            if better(values):
                best = model.state_dict() if aliased else copy.deepcopy(model.state_dict())
            behind = len(values) - 1 - values.index(min(values))
            rises = [later > earlier for earlier, later in zip(values, values[1:])]
            if stops == "rises":
                behind = sum(rises)
            elif stops == "row":
                behind = len(rises) - max((place for place, rise in enumerate(rises, 1) if not rise), default=0)
            elif stops == "steps":
                behind = step + 1 - min(curve, key=curve.get)
            if stops != "never" and behind >= patience + waits:
                break
    if restores:
        model.load_state_dict(best)
    return losses, curve


WAVES = (46, 216, 313, 398, 446, 537)  # seeds whose held-out losses rise and fall
ENDS = (1454, 2), (1457, 2), (1460, 3)  # with a patience: each mistake stops elsewhere
EARLY = (3, 6, 12, 20, 21, 23, 28, 31)  # the first held-out loss is the lowest


def loop_cases(rng):
    """Few examples at a high rate, so that the held-out loss soon rises; in the last one the last step is odd."""
    seed, patience = rng.choice(ENDS)
    return [
        loop_case(rng.choice(WAVES), 16, 1, 16), loop_case(seed, 13, 1, patience), loop_case(rng.choice(EARLY), 7, 3, 3)
    ]  # fmt: skip


def loop_case(seed, steps, every, patience):
    """A model, training and held-out examples and a plan, all from one seed."""
    rng = random.Random(seed)
    train, held_out = drawn_examples(rng, 4), drawn_examples(rng, 4)
    plan = [rng.sample(range(4), 2) for _ in range(steps)]
    return {"model": seed, "train": train, "plan": plan, "held_out": held_out, "lr": 0.25, "every": every,
            "patience": patience}  # fmt: skip


def drive_loop(answer, case):
    model, train = Tiny(case["model"]), as_examples(case["train"])
    plan = [[train[place] for place in batch] for batch in case["plan"]]
    losses, curve = answer(
        model, plan, as_examples(case["held_out"]), case["lr"], case["every"], case["patience"]
    )
    steps = sorted(curve)
    return {"losses": [float(loss) for loss in losses], "measured after": [int(step) for step in steps],
            "held out": [float(curve[step]) for step in steps], "parameters": numbers_of(model)}  # fmt: skip


def expect_loop(case):
    def run(**wrong):
        return drive_loop(lambda *given: a_loop(*given, **wrong), case)

    def rate_by(rule):
        return run(rate=lambda step, steps, peak: rule(step, steps, peak))

    right = run()
    mistakes = {
        "the learning rate stays at its peak: set it in optimizer.param_groups before each step":
            rate_by(lambda step, steps, peak: peak),
        "the learning rate is one step ahead: steps count from 0":
            rate_by(lambda step, steps, peak: learning_rate(min(step + 1, steps - 1), steps, peak)),
        "the learning rate is one step behind: set it before the step, not after":
            rate_by(lambda step, steps, peak: learning_rate(step - 1, steps, peak) if step else peak),
        "there is no warmup: learning_rate's own is 0.1":
            rate_by(lambda step, steps, peak: learning_rate(step, steps, peak, 0.0)),
        "this is plain gradient descent: the optimizer is AdamW": run(plain=True),
        "the optimizer is made anew in each step: it forgets its averages": run(anew=True),
        "the weights decay: AdamW has weight_decay 0.01 unless it is told 0": run(decay=0.01),
        "the gradient is not clipped at norm 1": run(clip_norm=1e9),
        "the held-out examples are trained on: they are for measuring alone": run(also=as_examples(case["held_out"])),
        "the held-out loss is that of the last batch: take it on held_out": run(judged="batch"),
    }
    done = right["measured after"]
    mistakes |= {
        ("measured after", "the keys are steps done, step + 1: the first step leaves 1 behind it"):
            [step - 1 for step in done],
        ("measured after", "the held-out loss is taken before the first step too: after steps alone"): [0, *done],
    }
    if case["every"] > 1:
        mistakes["after the last step the held-out loss is taken too"] = run(at_end=False)
        mistakes["the patience is counted in steps: it is a number of measurements"] = run(stops="steps")
    elif case["patience"] > 9:
        mistakes |= {
            "the last weights are left in the model: load the best at the end (state_dict() is no copy, deepcopy it)":
                run(restores=False),
            "the best weights are those of the last improvement on the measurement before, not of the lowest loss":
                run(better=lambda curve: len(curve) == 1 or curve[-1] < curve[-2]),
            "the weights of the highest held-out loss are kept": run(better=lambda curve: curve[-1] == max(curve)),
            "the first weights are kept": run(better=lambda curve: len(curve) == 1),
        }
    else:
        mistakes |= {
            "it never stops: end the loop after `patience` measurements without a new best": run(stops="never"),
            "it stops one measurement too late": run(waits=1),
            "it stops one measurement too early": run(waits=-1),
            "rises in a row are counted: what counts is how many measurements lie behind the best": run(stops="row"),
            "rises are counted: what counts is how many measurements lie behind the best": run(stops="rises"),
        }
    return right, mistakes


# 3.8 What gives the answer away --------------------------------------------------------------------------------------


def cue(premise, hypothesis):
    """The answer that the lesson goes on with."""
    words = set(hypothesis.split())
    if "not" in words:
        return "not"
    return "overlap" if words <= set(premise.split()) else "new word"


def cue_cases(rng):
    """Each cue, a word inside another, a not in the premise alone, and a not beside a new word."""
    a, b, c = rng.sample(["dog", "king", "nurse", "baker", "pilot"], 3)
    return [
        {"premise": f"the {a} sees the {b}", "hypothesis": f"the {b} sees the {a}"},
        {"premise": f"the {a} sees the {b}", "hypothesis": f"the {a} sees the {c}"},
        {"premise": f"the {a} sees the {b}", "hypothesis": f"the {a} does not see the {b}"},
        {"premise": f"the {a} does not see the {b}", "hypothesis": f"the {a} does see the {b}"},
        {"premise": f"the {a}s and the {b} meet", "hypothesis": f"the {a} and the {b} meet"},
        {"premise": f"the {a} ties the {b}", "hypothesis": f"the {a} ties the knot"},
        {"premise": f"the {a} does not see the {b}", "hypothesis": f"the {a} does not see the {b}"},
    ]


def expect_cue(case):
    premise, hypothesis = case["premise"], case["hypothesis"]

    def by(negated, known):
        return "not" if negated else "overlap" if known else "new word"

    words, known = hypothesis.split(), premise.split()
    inside = all(word in known for word in words)
    mistakes = {
        "a not in the premise counts too: look at the hypothesis": by("not" in known + words, inside),
        "letters are looked for, not words: split at the spaces":
            by("not" in hypothesis, all(word in premise for word in words)),
        "not is looked for among letters: knot is another word": by("not" in hypothesis, inside),
        "words are looked for among the letters of the premise: dog is no word of 'the dogs'":
            by("not" in words, all(word in premise for word in words)),
        "overlap and new word are exchanged": by("not" in words, not inside),
        "one common word is no overlap: all of the hypothesis's words have to stand in the premise":
            by("not" in words, any(word in known for word in words)),
        "premise and hypothesis are exchanged: ask for the hypothesis's words in the premise":
            by("not" in words, all(word in words for word in known)),
        "the hypothesis is looked for in one piece: its words may stand in any order":
            by("not" in words, hypothesis in premise),
        "the same words in another order are overlap too": by("not" in words, set(words) < set(known)),
        "a not in the premise changes nothing: look at the hypothesis":
            by("not" in words and "not" not in known, inside),
        "a not comes first: it is told before a new word is": by("not" in words and inside, inside),
    }
    return by("not" in words, inside), mistakes


# 3.9 A lab of batches ------------------------------------------------------------------------------------------------


def right_batch(row, end):
    """Inputs, targets, whether a target is trained, and segments, of the examples of one row."""
    tokens = torch.tensor([token for example in row for token in example.tokens])
    said = torch.tensor([bool(said) for example in row for said in example.mask])
    segments = torch.tensor([number for number, example in enumerate(row) for _ in example.tokens])
    return tokens[:-1], tokens[1:], said[1:], segments[:-1]


def end_untrained(row, end):
    inputs, targets, trained, segments = right_batch(row, end)
    return inputs, targets, trained & (targets != end), segments


def mask_late(row, end):
    inputs, targets, trained, segments = right_batch(row, end)
    return inputs, targets, trained.roll(1), segments


def neighbours_seen(row, end):
    inputs, targets, trained, segments = right_batch(row, end)
    return inputs, targets, trained, torch.zeros_like(segments)


def unshifted(row, end):
    inputs, _, trained, segments = right_batch(row, end)
    return inputs, inputs.clone(), trained, segments


def prompts_trained(row, end):
    return right_batch([Example(tokens, [False] + [True] * (len(tokens) - 1)) for tokens, _ in row], end)


def last_turn_alone(row, end):
    def last(mask):
        begins = [t for t in range(len(mask)) if mask[t] and not (t and mask[t - 1])]
        return [said and t >= begins[-1] for t, said in enumerate(mask)]

    return right_batch([Example(tokens, last(mask)) for tokens, mask in row], end)


def cut_short(row, end, longest=24):
    return right_batch([Example(tokens[:longest], mask[:longest]) for tokens, mask in row], end)


def batch_test(run):
    """The package's test: two turns in one example, a long one, ends inside, all four parts as they should be."""
    row = [
        Example([1, 5, 6, 7, 2], [False, False, False, True, True]),
        Example([1, 8, 9, 2, 5, 6, 2], [False, False, True, True, False, True, True]),
        Example([1, *range(10, 60), 2], [False] * 20 + [True] * 32),
    ]
    found = [part.tolist() for part in run(row, 2)]
    return found == [part.tolist() for part in right_batch(row, 2)]


RUNS = {
    "right": right_batch, "end": end_untrained, "late": mask_late, "neighbours": neighbours_seen,
    "unshifted": unshifted, "prompts": prompts_trained, "last turn": last_turn_alone, "cut": cut_short,
}  # fmt: skip
HINTS = {
    "unshifted": "compare each target with the token that stands behind its input",
    "late": "ask whether the first token of each response is trained",
    "end": "ask whether the end token of a response is trained",
    "prompts": "count the trained targets: as many as the assistant says tokens",
    "neighbours": "look at what keeps two examples of a row apart",
    "last turn": "try an example with two responses",
    "cut": "try a long example",
}


EXERCISES = {
    "3.1": Exercise(build_cases, drive_build, expect_build, points=2, reference=build, remark=remark_build,
        signature="build(messages: list, encode: function, begin: int, end: int) -> (list of int, list)"),
    "3.2": Exercise(loss_cases, None, expect_loss, points=2, reference=response_loss, remark=lost_on_padding,
        signature="response_loss(logits: float32[B T V], tokens: int[B T], mask: bool[B T]) -> float[] with gradient"
        " of logits"),
    "3.3": Exercise(packed_cases, drive_packed, expect_packed, points=2, reference=packed_attention,
        signature="packed_attention(segments: list) -> (bool[T T] or list, int[T] or list)"),
    "3.4": Exercise(step_cases, drive_step, expect_step, points=3, reference=sft_step,
        signature="sft_step(model: any, optimizer: any, batch: list, clip_norm: number) -> (number, number)"),
    "3.5": Exercise(rate_cases, drive_rate, expect_rate, points=1, reference=learning_rate,
        signature="learning_rate(step: int, steps: int, peak: number, warmup: number) -> number"),
    "3.6": Exercise(held_out_cases, drive_held_out, expect_held_out, points=2, reference=held_out_loss,
        signature="held_out_loss(model: any, examples: list, size: int) -> number"),
    "3.7": Exercise(loop_cases, drive_loop, expect_loop, points=4, reference=finetune,
        signature="finetune(model: any, plan: list, held_out: list, lr: number, every: int, patience: int)"
        " -> (list, dict)"),
    "3.8": Exercise(cue_cases, None, expect_cue, points=1, reference=cue,
        signature="cue(premise: str, hypothesis: str) -> str"),
    "3.9": lab_of_runs(RUNS, HINTS, batch_test, levels=(2, 4, 6, 7)),
}  # fmt: skip
