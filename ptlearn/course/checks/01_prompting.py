"""Checks of lesson 01, mostly without a model: judging and scoring on tiny inputs; the contest asks pocket-m."""

import functools
import math
import re
import zlib

import torch

from ptlearn.course.cases import log_softmax, log_sum, rows
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.pocket import corpus, probes, relations

# 1.1: what a continuation does ---------------------------------------------------------------------------------------

KINDS = ("names the capital", "asks on", "ends", "goes on")


def kind_of(text, capital, pattern=r"(?<![\w-]){}(?![\w-])"):
    if re.search(pattern.format(re.escape(capital)), text):
        return KINDS[0]
    if "?" in text or "What is" in text:
        return KINDS[1]
    return KINDS[3] if text.strip() else KINDS[2]


def kind_cases(rng):
    """Names inside longer names, questions that name the capital or are cut off, white space; then drawn ones."""
    fixed = (
        (" What is the capital of Guinea-Bissau? What is", "Bissau"),
        (" Guinea-Bissau has a long coast.", "Bissau"),
        (" The people of Tunisia are called Tunisian.", "Tunis"),
        (" What is Tunisia known for? It has old cities", "Tunis"),
        (" It is Lima", "Lima"),
        (" Is it Lima? What is", "Lima"),
        ("\nSaint George's.", "Saint George's"),
        ("\nPort-au-Prince\n", "Port-au-Prince"),
        (" the stadium is in rome", "Rome"),
        (" What is the capital of", "Suva"),
        (" Who lives there?", "Suva"),
        (" \n", "Suva"),
        ("", "Suva"),
        (" It has high mountains and many lakes.", "Suva"),
    )
    drawn = ((rng.choice((" It is {}.", " Is it {}?", "\n{}, of course")).format(capital), capital)
             for _, capital in rng.sample(relations.stated("capital"), 2))  # fmt: skip
    return [{"text": text, "capital": capital} for text, capital in (*fixed, *drawn)]


def expect_kind(case):
    text, capital = case["text"], case["capital"]
    right, inside = kind_of(text, capital), kind_of(text, capital, "{}")
    mistakes = {
        "a name inside a longer one is no answer: neither Tunisia nor Guinea-Bissau names Tunis or Bissau": inside,
        "a hyphen belongs to the word: Guinea-Bissau does not name Bissau": kind_of(text, capital, r"\b{}\b"),
        "a question that names the capital counts as naming it: look for the name first":
            "asks on" if "?" in text or "What is" in text else right,
        "a question that is cut off before its question mark asks on, too: look for 'What is'":
            "goes on" if right == "asks on" and "?" not in text else right,
        "white space alone is no text: it ends the document": "goes on" if right == "ends" and text else right,
        "capital letters count: 'rome' is not Rome": kind_of(text.lower(), capital.lower())
            if capital.lower() in text.lower() else right,
        "only a text that starts with the name names the capital: it counts anywhere":
            right if text.strip().startswith(capital) or right != KINDS[0] else kind_of(text, "\0"),
    }  # fmt: skip
    return right, mistakes


def remark_kind(case, data):
    return None if data in KINDS else f"{data!r} is none of the four kinds: {', '.join(map(repr, KINDS))}"


# 1.2: from a statement to a prompt -----------------------------------------------------------------------------------


def cloze(statement, name):
    return statement.partition("{value}")[0].rstrip().replace("{name}", name)


def cloze_cases(rng):
    """The answer in mid-sentence, the name twice, a line break and nothing before the answer; then drawn ones."""
    cases = [
        ("Who visits {name} sees {value} first.", "Peru", "Lima"),
        ("{name} is a country, and the capital of {name} is {value}.", "Burkina Faso", "Ouagadougou"),
        ("Country: {name}\nCapital:\n{value}\nLanguage:", "Fiji", "Suva"),
        ("capital({name})={value}; {name} has no other", "Togo", "Lome"),
    ]
    for field in ("capital", "language", "currency"):
        usable = [wording for _, wording in corpus.WORDINGS[field] if "{name}" in wording.partition("{value}")[0]]
        cases.append((rng.choice(usable), *rng.choice([x for x in relations.stated(field) if x[1] not in x[0]])))
    return [dict(zip(("statement", "name", "value"), case)) for case in cases]


def expect_cloze(case):
    before, _, behind = case["statement"].replace("{name}", case["name"]).partition("{value}")
    only_first = case["statement"].replace("{name}", case["name"], 1).partition("{value}")[0]
    return before.rstrip(), {
        "{name} is filled in once: it may stand there more than once": only_first.rstrip(),
        "the last character is cut off, whatever it is: only white space goes": before[:-1],
        "only spaces are taken off the end: a line break is white space too": before.rstrip(" "),
        "keeps text from behind the answer: the prompt ends where the answer starts":
            Alternatives(before + behind, before.rstrip() + behind),
        "this stands behind the answer: the prompt is what stands before it": Alternatives(behind, behind.strip()),
        "cut at the place that {value} has before {name} is filled in: cut first":
            (before + "{value}" + behind)[: case["statement"].index("{value}")].rstrip(),
    }  # fmt: skip


def remark_cloze(case, data):
    expected, _ = expect_cloze(case)
    if not isinstance(data, str):
        return f"the result is {data!r}, expected a string"
    findings = (
        ("{" in data, "a placeholder is left: fill in {name} and cut before {value}"),
        (case["name"] not in data, "the country is not in the prompt"),
        ("?" in data, "that is a question: a prompt in cloze form is the statement itself, cut off"),
        (case["value"] in data, "the answer stands in the prompt: the model is to write it"),
        ("_" in data, "a blank for the answer: a left-to-right model fills no blanks, it writes what comes next"),
        (data.rstrip() == expected, "ends in white space: BPE keeps the space in the answer's first token (' Lima')"),
        (data.startswith(expected), "keeps text from behind the answer: the prompt ends where the answer starts"),
    )
    return next((words for found, words in findings if found), None)


# 1.3: the evaluation loop --------------------------------------------------------------------------------------------

WORD = r"[^\W_]+"


def evaluate(generate, prompts, answers):
    rights, misses = [], []
    for prompt, text, answer in zip(prompts, generate(prompts), answers):
        wanted = re.findall(WORD, answer)
        rights.append(re.findall(WORD, text)[: len(wanted)] == wanted)
        misses += [] if rights[-1] else [prompt + text]
    return {"rights": rights, "misses": misses}


def evaluate_cases(rng):
    """Texts that start with the answer, contain it later, hold it in a longer word, and whose answers share a word."""
    fixed = (
        (" Lima.", "Lima"),
        (" Lima, the largest city", "Lima"),
        (" the city of Suva", "Suva"),
        (" Nigeria. It", "Niger"),
        (" Kuwait City.", "Kuwait City"),
        (" Kuwait. It", "Kuwait City"),
        (" City Kuwait", "Kuwait City"),
        ("\n Port-au-Prince.", "Port-au-Prince"),
        (" chaise", "chat"),
        (" chat est petit", "chat"),
        (" rome", "Rome"),
        ("", "Togo"),
        (" Bern", "Bern"),
        (" It is Bern", "Oslo"),
    )
    texts, answers = zip(*rng.sample(fixed, len(fixed)))
    case = {"prompts": [f"{place}: The capital of X is" for place in range(len(fixed))]}
    case |= {"texts": list(texts), "answers": list(answers)}
    return [case, {"prompts": ["2 + 3 ="], "texts": [" 5 and"], "answers": ["5"]}]


def drive_evaluate(answer, case):
    texts = dict(zip(case["prompts"], case["texts"]))

    def generate(prompts):
        if isinstance(prompts, str) or not all(prompt in texts for prompt in prompts):
            raise ValueError("generate: a list of the prompts is expected, as they are")
        return [texts[prompt] for prompt in prompts]

    return answer(generate, case["prompts"], case["answers"])


def expect_evaluate(case):
    items = list(zip(case["prompts"], case["texts"], case["answers"]))

    def judged(rule):
        return [bool(rule(text, answer)) for _, text, answer in items]

    def found(rights, show=lambda prompt, text: prompt + text, wanted=False):
        return {"rights": rights, "misses": [show(p, t) for (p, t, _), ok in zip(items, rights) if ok == wanted]}

    right = evaluate(lambda prompts: case["texts"], case["prompts"], case["answers"])
    rights = right["rights"]
    first = judged(lambda text, answer: re.findall(WORD, text)[:1] == re.findall(WORD, answer)[:1])
    lines = judged(lambda text, answer: re.findall(WORD, text.lower())[: len(re.findall(WORD, answer))]
                   == re.findall(WORD, answer.lower()))  # fmt: skip
    return right, {
        "the answer anywhere in the text counts as right: it has to come first": found(judged(lambda t, a: a in t)),
        "the start of a longer word counts as the answer ('Nigeria' for Niger): compare whole words":
            found(judged(lambda t, a: t.strip().startswith(a))),
        "the white space in front of the text is not taken off, so nothing is right":
            found(judged(lambda t, a: t.startswith(a))),
        "the whole text has to be the answer: what follows it does not count":
            Alternatives(found(judged(lambda t, a: t.strip() == a)), found(judged(lambda t, a: t.strip(" \n.") == a))),
        "only the first word is compared: an answer may have several": found(first),
        "split at white space, so that full stops and hyphens stay on the words: use the words of findall":
            found(judged(lambda t, a: t.split()[: len(a.split())] == a.split())),
        "the words of the answer anywhere, in any order, count as right: they have to come first":
            found(judged(lambda t, a: set(re.findall(WORD, a)) <= set(re.findall(WORD, t)))),
        "a text that is shorter than the answer counts as right: all words of the answer have to come":
            found(judged(lambda t, a: re.findall(WORD, a)[: len(re.findall(WORD, t))] == re.findall(WORD, t))),
        "the words in any order count as right": found(judged(lambda t, a: sorted(re.findall(WORD, a))
            == sorted(re.findall(WORD, t)[: len(re.findall(WORD, a))]))),
        "capital letters are ignored: 'rome' is not 'Rome'": found(lines),
        "the misses lack their prompts: prompt and text together": found(rights, lambda prompt, text: text),
        "the misses lack their texts: prompt and text together": found(rights, lambda prompt, text: prompt),
        "the misses are those that were right": found(rights, wanted=True),
        "the misses hold every text: only those that were wrong":
            {"rights": rights, "misses": [p + t for p, t, _ in items]},
        "right and wrong are exchanged": found([not ok for ok in rights]),
    }  # fmt: skip


# 1.4: log-probabilities of a text's tokens ---------------------------------------------------------------------------


def token_logprobs(logits, tokens):
    each = logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return torch.cat([each.new_zeros(len(each), 1), each], dim=1)


def token_cases(rng):
    sizes = (1, 3, 4), (2, 5, 6), (3, 4, 5)
    return [{"logits": [[[round(rng.uniform(-2, 2), 3) for _ in range(v)] for _ in range(t)] for _ in range(b)],
             "tokens": [[rng.randrange(v) for _ in range(t)] for _ in range(b)]} for b, t, v in sizes]  # fmt: skip


def expect_tokens(case):
    logits, tokens = torch.tensor(case["logits"], dtype=torch.float64), torch.tensor(case["tokens"])
    table = [[log_softmax(row) for row in rows] for rows in case["logits"]]
    steps = range(1, tokens.shape[1])
    right = [[0.0, *(table[b][t - 1][row[t]] for t in steps)] for b, row in enumerate(case["tokens"])]

    def by(scores):
        return token_logprobs_of(scores, tokens)

    same = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    back = logits.log_softmax(-1)[:, 1:].gather(-1, tokens[:, :-1, None])[..., 0]
    zero = torch.zeros_like(same[:, :1])
    ahead = torch.tensor(right)[:, 1:]
    return right, {
        "not shifted: the logits at place t are about the token at t + 1": Alternatives(
            same, torch.cat([zero, same[:, 1:]], 1), torch.cat([zero, same[:, :-1]], 1)),
        "shifted the wrong way: the token at t is predicted by the logits at t - 1":
            Alternatives(torch.cat([back, zero], 1), torch.cat([zero, back], 1)),
        "one place too early: the entry at t is about the token at t, and the first entry is 0":
            torch.cat([ahead, zero.float()], 1),
        "logits, not log-probabilities: a log_softmax over the vocabulary is missing": by(logits),
        "probabilities: take their logarithm": by(logits.softmax(-1)),
        "the softmax runs over the places: it belongs over the vocabulary, the last axis": by(logits.log_softmax(1)),
        "the softmax runs over the batch: it belongs over the vocabulary, the last axis": by(logits.log_softmax(0)),
        "the most likely token's log-probability: gather that of the token that stands there":
            torch.cat([zero, logits.log_softmax(-1).amax(-1)[:, :-1]], 1),
        "summed up along the text: one number for each token": torch.tensor(right).cumsum(1),
    }  # fmt: skip


def token_logprobs_of(scores, tokens):
    """Zero, then at each place the score of its token by the row before."""
    each = scores[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return torch.cat([each.new_zeros(len(each), 1), each], dim=1)


# 1.5: rows of a prompt and its choices -------------------------------------------------------------------------------


def rows_of(prompt, choices, padding=0):
    length = len(prompt) + max(map(len, choices))
    joint = [prompt + choice for choice in choices]
    tokens = torch.tensor([row + [padding] * (length - len(row)) for row in joint])
    mask = torch.tensor([[len(prompt) <= t < len(row) for t in range(length)] for row in joint])
    return tokens, mask


def rows_cases(rng):
    """The padding's number occurs as a token, too, in a prompt and at the end of a choice."""
    def draw(count):
        return [rng.randint(1, 40) for _ in range(count)]

    return [
        {"prompt": [7, 0, 5], "choices": [[3, 8, 0], [4], [0, 6]]},
        {"prompt": draw(1), "choices": [draw(4), draw(2)]},
        {"prompt": draw(4), "choices": [[*draw(2), 0], draw(5), draw(1), draw(2)]},
    ]


def expect_rows(case):
    prompt, choices = case["prompt"], case["choices"]
    tokens, mask = (part.tolist() for part in rows_of(prompt, choices))
    start, length = len(prompt), len(tokens[0])

    def where(rule):
        return [tokens, [[bool(rule(t, start + len(choice), tokens[i][t])) for t in range(length)]
                         for i, choice in enumerate(choices)]]  # fmt: skip

    left = [[0] * (length - start - len(choice)) + prompt + choice for choice in choices]
    between = [prompt + [0] * (length - start - len(choice)) + choice for choice in choices]
    ends = [[t >= length - len(choice) for t in range(length)] for choice in choices]
    return [tokens, mask], {
        "the mask includes the prompt: True only where a token of the choice stands": where(lambda t, end, _: t < end),
        "the mask includes the padding: a choice ends where its tokens end": where(lambda t, end, _: t >= start),
        "the mask is turned round: True where a token of the choice stands":
            where(lambda t, end, _: not start <= t < end),
        "the mask is True on the prompt": where(lambda t, end, _: t < start),
        "the mask starts one token late: the choice's first token counts": where(lambda t, end, _: start < t < end),
        "the mask ends one token early: the choice's last token counts": where(lambda t, end, _: start <= t < end - 1),
        "the mask starts one token early: it is about the token at its own place":
            where(lambda t, end, _: start - 1 <= t < end - 1),
        "the mask looks for the padding's number, which is a token like others: go by the lengths": Alternatives(
            where(lambda t, end, token: t >= start and token != 0), where(lambda t, end, token: token != 0)),
        "padded on the left: the prompt comes first in every row, padding last":
            Alternatives([left, ends], [left, mask]),
        "padded between prompt and choice: padding comes last": Alternatives([between, ends], [between, mask]),
    }  # fmt: skip


# 1.6: scores of choices ----------------------------------------------------------------------------------------------

VOCABULARY = 11


def choice_scores(network, encode, prompts, choices):
    endings = [encode(f" {choice}") for choice in choices]
    sums = []
    for prompt in prompts:
        tokens, mask = rows_of(encode(prompt), endings)
        sums.append(torch.where(mask, token_logprobs(network(tokens), tokens), 0).sum(1))
    lengths = torch.tensor([len(ending) for ending in endings])
    return {"sum": torch.stack(sums), "mean": torch.stack(sums) / lengths}


def toy_encode(text):
    """Pieces of up to two letters, with the space before them, as tokens; a space of its own is one, too."""
    return [zlib.crc32(piece.encode()) % VOCABULARY for piece in re.findall(r" ?\w{1,2}|\W", text)]


def toy_logits(tokens, seed):
    """Logits at each place of a row, from the tokens up to there: what a causal network gives."""
    state, found = seed, []
    for place, token in enumerate(tokens):
        state = (31 * state + 7 * token + place + 3) % 1009
        found.append([((state * (j + 2) + 5 * j * j) % 97) / 24 for j in range(VOCABULARY)])
    return found


def choice_cases(rng):
    prompts = ["ask me", "the sea is", "a word and more of", "no"]
    choices = ["blue", "a", "far away", "reddish", "wet"]
    return [{"prompts": rng.sample(prompts, count), "choices": rng.sample(choices, size), "seed": rng.randint(1, 999)}
            for count, size in ((1, 2), (2, 3), (3, 4))]  # fmt: skip


def drive_choices(answer, case):
    def network(tokens):
        if getattr(tokens, "ndim", 0) != 2:
            raise ValueError("network: tokens are expected as a tensor (B, T)")
        return torch.tensor([toy_logits(row, case["seed"]) for row in tokens.tolist()], dtype=torch.float64)

    return answer(network, toy_encode, case["prompts"], case["choices"])


def expect_choices(case):
    prompts, choices = case["prompts"], case["choices"]

    def table(terms):
        """terms(prompt, choice) -> the numbers that are added up, and what their sum is divided by."""
        found = [[terms(prompt, choice) for choice in choices] for prompt in prompts]
        return {"sum": [[math.fsum(some) for some, _ in row] for row in found],
                "mean": [[math.fsum(some) / (length or 1) for some, length in row] for row in found]}  # fmt: skip

    def logprobs(tokens, shift=1, score=log_softmax):
        scores = [score(row) for row in toy_logits(tokens, case["seed"])]
        return [0.0] * shift + [scores[t - shift][tokens[t]] for t in range(shift, len(tokens))]

    def read(prompt, choice, space=" ", **how):
        start, ending = toy_encode(prompt), toy_encode(space + choice)
        return logprobs(start + ending, **how)[len(start) :], len(ending)

    def whole(prompt, choice):
        start, ending = toy_encode(prompt), toy_encode(" " + choice)
        return logprobs(start + ending), len(ending)

    longest = max(len(toy_encode(" " + choice)) for choice in choices)

    def padded(prompt, choice):
        start, ending = toy_encode(prompt), toy_encode(" " + choice)
        return logprobs(start + ending + [0] * (longest - len(ending)))[len(start) :], len(ending)

    right = table(read)
    total, mean = right["sum"], right["mean"]
    chosen = {name: torch.tensor(right[name], dtype=torch.float64).log_softmax(-1).tolist() for name in right}
    probability = {name: torch.tensor(right[name], dtype=torch.float64).exp().tolist() for name in right}
    starts = [len(toy_encode(prompt)) for prompt in prompts]
    lengths = [len(toy_encode(" " + choice)) for choice in choices]

    def divided(by):
        mean = [[value / by(b, c) for c, value in enumerate(row)] for b, row in enumerate(total)]
        return {"sum": total, "mean": mean}

    def divided_by(rows_of_values, counts):
        return [[value / count for value, count in zip(row, counts)] for row in rows_of_values]

    def over_places(prompt, choice):
        start, ending = toy_encode(prompt), toy_encode(" " + choice)
        tokens = start + ending + [0] * (longest - len(ending))
        scores = torch.tensor(toy_logits(tokens, case["seed"]), dtype=torch.float64).log_softmax(0)
        return [scores[len(start) - 1 + i, token].item() for i, token in enumerate(ending)], len(ending)

    mistakes = {
        "the choice is encoded without the space before it": table(lambda p, c: read(p, c, "")),
        "the prompt's tokens are counted, too: only those of the choice": table(whole),
        "padding is counted: a choice ends where its tokens end": table(padded),
        "not shifted: the logits at place t are about the token at t + 1": table(lambda p, c: read(p, c, shift=0)),
        "logits are added up: take the log_softmax first": table(lambda p, c: read(p, c, score=lambda row: row)),
        "probabilities are added up: a product of them is a sum of log-probabilities":
            table(lambda p, c: ([math.exp(x) for x in read(p, c)[0]], read(p, c)[1])),
        "the first token of the choice is missing": table(lambda p, c: (read(p, c)[0][1:], read(p, c)[1])),
        "only the first token of the choice is counted": table(lambda p, c: (read(p, c)[0][:1], read(p, c)[1])),
        "the choices are normalised among each other: log-probabilities as they are": chosen,
        "a probability: stay with its logarithm": probability,
        "the sign: log-probabilities are negative": {
            name: [[-value for value in row] for row in table] for name, table in right.items()},
        ("mean", "this is the sum: divide it by the choice's number of tokens"): total,
        ("sum", "this is the mean: the sum is not divided"): mean,
        ("mean", "a probability: stay with logarithms, divided by the number of tokens"): Alternatives(
            probability["mean"], chosen["sum"], torch.tensor(chosen["sum"]).exp().tolist(),
            divided_by(probability["sum"], lengths)),
        ("mean", "divided by the average length of the choices: by that of each"):
            divided(lambda b, c: sum(lengths) / len(lengths))["mean"],
        "only the last token of the choice is counted": table(lambda p, c: (read(p, c)[0][-1:], read(p, c)[1])),
        "the softmax runs over the places of the row: it belongs over the vocabulary": table(over_places),
        "the mean is divided by the tokens of prompt and choice: by those of the choice":
            divided(lambda b, c: starts[b] + lengths[c]),
        "the mean is divided by the longest choice's number of tokens: by that of each": divided(lambda b, c: longest),
        "the mean is divided by the whole row's length, padding included":
            divided(lambda b, c: starts[b] + longest),
        "the mean is divided by letters: by tokens": Alternatives(
            divided(lambda b, c: len(choices[c])), divided(lambda b, c: len(choices[c]) + 1)),
        "the mean is divided by the number of choices: by the choice's number of tokens":
            divided(lambda b, c: len(choices)),
        "the mean is divided by words: by tokens": divided(lambda b, c: len(choices[c].split())),
        "each prompt is scored alone and the prompt forgotten: the choice is read after nothing":
            table(lambda p, c: (logprobs(toy_encode(" " + c)), lengths[choices.index(c)])),
    }  # fmt: skip
    if len(prompts) > 1:
        mistakes["every prompt gets the first one's scores"] = {
            name: [table[0]] * len(table) for name, table in right.items()}
    return right, mistakes


# 1.7: the prior taken out --------------------------------------------------------------------------------------------


def without_prior(logprobs):
    return logprobs - (logprobs.logsumexp(0) - math.log(len(logprobs)))


def prior_cases(rng):
    """Tables of several sizes; at last one of log-probabilities whose exponentials are 0."""
    tables = [rows(rng, size, -5.0, -0.1) for size in ((2, 3), (4, 2), (3, 4))]
    return [{"logprobs": table} for table in (*tables, [[-900.0, -905.0], [-901.0, -900.5], [-903.0, -902.0]])]


def expect_prior(case):
    table = torch.tensor(case["logprobs"], dtype=torch.float64)
    count, size = table.shape
    prior = torch.tensor([log_sum(column) - math.log(count) for column in table.T.tolist()], dtype=torch.float64)
    return table - prior, {
        "the average over the choices: the prior of a choice is its average over the prompts":
            table - table.logsumexp(1, keepdim=True) + math.log(size),
        "normalised over the choices: the prior of a choice is its average over the prompts": table.log_softmax(1),
        "the mean of log-probabilities: the prior is the log of the mean probability": table - table.mean(0),
        "the log of a sum: divide by the number of prompts, so that it is an average": table.log_softmax(0),
        "divided: in logarithms one subtracts": table / prior,
        "the prior is added: take it out": table + prior,
        "the largest over the prompts: the prior is an average": table - table.amax(0),
        "one prior for all: it is an average for each choice":
            table - table.flatten().logsumexp(0) + math.log(table.numel()),
        "the prior itself: subtract it from every row": prior.expand(count, size),
        "probabilities: stay with logarithms": (table - prior).exp(),
    }  # fmt: skip


def remark_prior(case, data):
    if "NaN" in repr(data) or "nan" in repr(data) or "inf" in repr(data).lower():
        return "not finite: exp(-900) is 0 and has no logarithm; torch.logsumexp adds probabilities as logarithms"
    return None


# 1.8: a verbalizer with several words a label ------------------------------------------------------------------------


def label_probabilities(logits, encode, verbalizer):
    groups = [logits[:, [encode(" " + word)[0] for word in words]].logsumexp(-1) for words in verbalizer]
    return torch.stack(groups, dim=1).softmax(-1)


def verbalizer_cases(rng):
    """Logits (B, V) over a vocabulary that has every word with and without the space before it; large ones at last."""
    result = []
    for verbalizer, batch, around in (
        ([["great"], ["awful"]], 1, 0),
        ([["zesty", "good", "kind"], ["mild"], ["bland", "dull"]], 3, 0),
        ([["no", "never", "not"], ["yes", "sure"]], 2, 900),
    ):
        words = [word for group in verbalizer for word in group]
        pieces = [*words, *(" " + word for word in words), ",", "."]
        places = rng.sample(range(18), len(pieces))
        # the first label has the larger ids, so a sorted order shows
        first, last = pieces.index(" " + words[0]), pieces.index(" " + words[-1])
        places[first], places[last] = sorted((places[first], places[last]), reverse=True)
        logits = [[round(around + rng.uniform(-2.0, 2.0), 3) for _ in range(18)] for _ in range(batch)]
        result.append({"logits": logits, "vocabulary": dict(zip(pieces, places)), "verbalizer": verbalizer})
    return result


def drive_verbalizer(answer, case):
    def encode(text):
        if text not in case["vocabulary"]:
            raise ValueError(f"encode: {text!r} is not one token of this vocabulary")
        return [case["vocabulary"][text]]

    return answer(torch.tensor(case["logits"], dtype=torch.float64), encode, case["verbalizer"])


def expect_verbalizer(case):
    logits, verbalizer = torch.tensor(case["logits"], dtype=torch.float64), case["verbalizer"]
    highest = logits.max(-1, keepdim=True).values
    everything, odds = logits.softmax(-1), (logits - highest).exp()

    def columns(values, space=" ", join=lambda group: group.sum(-1)):
        return torch.stack([join(values[:, [case["vocabulary"][space + word] for word in words]])
                            for words in verbalizer], 1)  # fmt: skip

    def normalised(values, axis=-1):
        return values / values.sum(axis, keepdim=True)

    chosen = columns(odds)
    return normalised(chosen), {
        "not renormalised: the rows do not sum to 1 over the labels": columns(everything),
        "the tokens without the space before the word: in running text it is ' great', another token":
            normalised(columns(odds, "")),
        "also without the space, and not renormalised": columns(everything, ""),
        "normalised over the prompts instead of the labels":
            Alternatives(normalised(columns(everything), 0), normalised(columns((logits - logits.max()).exp()), 0)),
        "only the first word of each label: the probabilities of its words add up":
            normalised(columns(odds, join=lambda group: group[:, 0])),
        "the likeliest word of each label alone: the probabilities of its words add up":
            normalised(columns(odds, join=lambda group: group.max(-1).values)),
        "the mean over a label's words: their probabilities add up":
            normalised(columns(odds, join=lambda group: group.mean(-1))),
        "logits are added up: probabilities add up, logits do not": columns(logits).softmax(-1),
        "the mean of the logits: probabilities add up, logits do not":
            columns(logits, join=lambda group: group.mean(-1)).softmax(-1),
        "the product of the words' probabilities: they add up, one word is written":
            normalised(columns(everything, join=lambda group: group.prod(-1))),
        "log-probabilities, expected probabilities": normalised(chosen).log(),
        "a softmax of probabilities: divide them by their sum":
            Alternatives(columns(everything).softmax(-1), normalised(chosen).softmax(-1)),
        "a hard choice (0 or 1), expected probabilities":
            torch.eye(len(verbalizer), dtype=torch.float64)[chosen.argmax(-1)],
        "the most likely label: return the probabilities of all": chosen.argmax(-1),
    }  # fmt: skip


def remark_verbalizer(case, data):
    return "not a number: exp(900) is infinite; take a softmax or a logsumexp" if "nan" in repr(data).lower() else None


# 1.9: the prompt contest ---------------------------------------------------------------------------------------------

MOST = 120  # characters of a prompt
LEVELS = (0.25, 0.5, 0.75, 0.9)
BEST = "English: the {input} is small\nFrench: le"


def remark_prompt(case, data):
    if not isinstance(data, str):
        return f"the prompt is a string with {{input}}, not {data!r:.60}"
    shown = set(re.findall(WORD, data.lower())) & {french for english, french in probes.french_nouns()}
    findings = (
        (data.count("{input}") < 1, "{input} is missing: it is where the English word stands"),
        (len(data) > MOST, f"{len(data)} characters: at most {MOST}"),
        (data != data.rstrip(" "), "ends in a space: the space belongs to the word that follows"),
        (bool(shown), f"a demonstration, {', '.join(sorted(shown))}: prompts that show examples are lesson 02"),
    )
    return next((words for found, words in findings if found), None)


@functools.lru_cache(maxsize=64)
def contest_score(template):
    """The share of the held-out nouns that pocket-m translates after this prompt."""
    from ptlearn.lm.models import load_lm

    return probes.noun_translation(load_lm("pocket-m"), template, held_out=True).mean


def score_prompt(cases, data):
    share = sum(map(contest_score, data)) / len(data)
    return share, "look at what the model writes instead, on the development half"


EXERCISES = {
    "1.1": Exercise(kind_cases, None, expect_kind, points=1, reference=kind_of, remark=remark_kind,
        signature="kind_of(text: str, capital: str) -> str"),
    "1.2": Exercise(cloze_cases, lambda answer, case: answer(case["statement"], case["name"]), expect_cloze, points=1,
        reference=cloze, signature="cloze(statement: str, name: str) -> str", remark=remark_cloze),
    "1.3": Exercise(evaluate_cases, drive_evaluate, expect_evaluate, points=2, reference=evaluate,
        signature="evaluate(generate: function, prompts: list, answers: list) -> {rights: list, misses: list of str}"),
    "1.4": Exercise(token_cases, None, expect_tokens, points=2, reference=token_logprobs,
        signature="token_logprobs(logits: float[B T V], tokens: int[B T]) -> float[B T]"),
    "1.5": Exercise(rows_cases, None, expect_rows, points=2, reference=rows_of,
        signature="rows_of(prompt: list, choices: list) -> (int[C T], bool[C T])"),
    "1.6": Exercise(choice_cases, drive_choices, expect_choices, points=3, reference=choice_scores,
        signature="choice_scores(network: function, encode: function, prompts: list, choices: list)"
        " -> {sum: float[B C], mean: float[B C]}"),
    "1.7": Exercise(prior_cases, None, expect_prior, points=1, reference=without_prior, remark=remark_prior,
        signature="without_prior(logprobs: float[B C]) -> float[B C]"),
    "1.8": Exercise(verbalizer_cases, drive_verbalizer, expect_verbalizer, points=2, reference=label_probabilities,
        remark=remark_verbalizer,
        signature="label_probabilities(logits: float[B V], encode: function, verbalizer: list) -> float[B L]"),
    "1.9": Exercise(lambda rng: ["the held-out nouns"], None, None, points=4, reference=BEST, remark=remark_prompt,
        score=score_prompt, levels=LEVELS, ranked=True),
}  # fmt: skip
