"""Typical wrong answers to the exercises of lesson 01, and right ones written differently."""

import math
import re

import torch

# 1.1 ------------------------------------------------------------------------------------------------------------------


def kinds(names):
    """An answer of 1.1 whose rule for the name is given."""

    def kind_of(text, capital):
        if names(text, capital):
            return "names the capital"
        if "?" in text or "What is" in text:
            return "asks on"
        return "goes on" if text.strip() else "ends"

    return kind_of


def question_first(text, capital):
    if "?" in text or "What is" in text:
        return "asks on"
    return kinds(whole)(text, capital)


def whole(text, capital):
    return bool(re.search(rf"(?<![\w-]){re.escape(capital)}(?![\w-])", text))


def by_characters(text, capital):
    def inside(place):
        return 0 <= place < len(text) and (text[place].isalnum() or text[place] in "_-")

    places = [place for place in range(len(text)) if text.startswith(capital, place)]
    return any(not inside(place - 1) and not inside(place + len(capital)) for place in places)


def forgets_cut_questions(text, capital):
    if whole(text, capital):
        return "names the capital"
    return "asks on" if "?" in text else "goes on" if text.strip() else "ends"


def empty_alone_ends(text, capital):
    if whole(text, capital):
        return "names the capital"
    return "asks on" if "?" in text or "What is" in text else "goes on" if text else "ends"


# 1.2 ------------------------------------------------------------------------------------------------------------------


def trailing_space(statement, name):
    return statement.split("{value}")[0].replace("{name}", name)


def keeps_the_end(statement, name):
    return statement.replace(" {value}", "").replace("{name}", name)


def asks(statement, name):
    return f"What is the capital of {name}?"


def leaves_a_blank(statement, name):
    return statement.format(name=name, value="___")


def forgets_the_country(statement, name):
    return statement.split(" {value}")[0].replace("{name}", "this country")


def leaves_the_placeholder(statement, name):
    return statement.split(" {value}")[0]


def with_a_format(statement, name):
    return re.split(r"\s*\{value\}", statement.format(name=name, value="{value}"))[0]


def filled_in_once(statement, name):
    return statement.replace("{name}", name, 1).split("{value}")[0].rstrip()


def one_character_less(statement, name):
    return statement.split("{value}")[0].replace("{name}", name)[:-1]


def spaces_alone(statement, name):
    return statement.split("{value}")[0].replace("{name}", name).rstrip(" ")


def what_follows(statement, name):
    return statement.replace("{name}", name).split("{value}")[1]


def cut_too_late(statement, name):
    return statement.replace("{name}", name)[: statement.index("{value}")].rstrip()


def character_by_character(statement, name):
    text = statement.replace("{name}", name)
    text = text[: text.index("{value}")]
    while text[-1].isspace():
        text = text[:-1]
    return text


# 1.3 ------------------------------------------------------------------------------------------------------------------


def words(text):
    return re.findall("[^\\W_]+", text)


def loop(rule, show=lambda prompt, text: prompt + text, kept=False):
    """An answer of 1.3 whose rule of what is right is given, and what its misses show."""

    def evaluate(generate, prompts, answers):
        texts = generate(prompts)
        rights = [bool(rule(text, answer)) for text, answer in zip(texts, answers)]
        misses = [show(prompt, text) for prompt, text, right in zip(prompts, texts, rights) if right == kept]
        return {"rights": rights, "misses": misses}

    return evaluate


def starts(text, answer):
    return words(text)[: len(words(answer))] == words(answer)


def one_at_a_time(generate, prompts, answers):
    texts = [generate([prompt])[0] for prompt in prompts]
    rights = [" ".join(words(text) + [""]).startswith(" ".join(words(a) + [""])) for text, a in zip(texts, answers)]
    return {"rights": rights, "misses": [p + t for p, t, ok in zip(prompts, texts, rights) if not ok]}


# 1.4 ------------------------------------------------------------------------------------------------------------------


def lagged(scores):
    """An answer of 1.4 that shifts rightly, from some scores of the logits."""

    def token_logprobs(logits, tokens):
        each = scores(logits)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
        return torch.cat([each.new_zeros(len(each), 1), each], 1)

    return token_logprobs


def not_shifted(logits, tokens):
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def too_early(logits, tokens):
    each = logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return torch.cat([each, each.new_zeros(len(each), 1)], 1)


def without_the_first(logits, tokens):
    return lagged(lambda x: x.log_softmax(-1))(logits, tokens)[:, 1:]


def by_two_loops(logits, tokens):
    result = torch.zeros(tokens.shape, dtype=logits.dtype)
    for b in range(len(tokens)):
        for t in range(1, tokens.shape[1]):
            result[b, t] = logits[b, t - 1, tokens[b, t]] - logits[b, t - 1].logsumexp(0)
    return result


def by_cross_entropy(logits, tokens):
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    return torch.nn.functional.pad(-losses, (1, 0))


# 1.5 ------------------------------------------------------------------------------------------------------------------


def filled(rule):
    """An answer of 1.5 with the right tokens and a mask by rule(place, start, end, token)."""

    def rows_of(prompt, choices):
        length = len(prompt) + max(map(len, choices))
        joint = [prompt + choice for choice in choices]
        tokens = [row + [0] * (length - len(row)) for row in joint]
        mask = [[bool(rule(t, len(prompt), len(row), padded[t])) for t in range(length)]
                for row, padded in zip(joint, tokens)]  # fmt: skip
        return torch.tensor(tokens), torch.tensor(mask)

    return rows_of


def padded_left(prompt, choices):
    length = len(prompt) + max(map(len, choices))
    tokens = [[0] * (length - len(prompt + choice)) + prompt + choice for choice in choices]
    mask = [[t >= length - len(choice) for t in range(length)] for choice in choices]
    return torch.tensor(tokens), torch.tensor(mask)


def with_pad_sequence(prompt, choices):
    pad = torch.nn.utils.rnn.pad_sequence
    tokens = pad([torch.tensor(prompt + choice) for choice in choices], batch_first=True)
    mask = [torch.tensor([False] * len(prompt) + [True] * len(choice)) for choice in choices]
    return tokens, pad(mask, batch_first=True)


# 1.6 ------------------------------------------------------------------------------------------------------------------


def scored(read, divide=lambda start, choice, longest, word: len(choice), space=" "):
    """An answer of 1.6: read(log-probabilities (T,), start, end) -> a sum; how it is divided; what stands before."""

    def choice_scores(network, encode, prompts, choices):
        sums, means = [], []
        longest = max(len(encode(space + word)) for word in choices)
        for prompt in prompts:
            start = encode(prompt)
            for word in choices:
                choice = encode(space + word)
                tokens = torch.tensor([start + choice + [0] * (longest - len(choice))])
                logits = network(tokens)
                sums.append(read(logits[0], tokens[0], len(start), len(start) + len(choice)))
                means.append(sums[-1] / divide(start, choice, longest, word))
        shape = len(prompts), len(choices)
        return {"sum": torch.stack(sums).view(shape), "mean": torch.stack(means).view(shape)}

    return choice_scores


def each_token(logits, tokens):
    return torch.cat([logits.new_zeros(1), logits[:-1].log_softmax(-1)[range(len(tokens) - 1), tokens[1:]]])


def right_sum(logits, tokens, start, end):
    return each_token(logits, tokens)[start:end].sum()


def exchanged(network, encode, prompts, choices):
    found = scored(right_sum)(network, encode, prompts, choices)
    return {"sum": found["mean"], "mean": found["sum"]}


def softmaxed(network, encode, prompts, choices):
    return {name: v.log_softmax(1) for name, v in scored(right_sum)(network, encode, prompts, choices).items()}


def turned(network, encode, prompts, choices):
    return {name: v.T for name, v in scored(right_sum)(network, encode, prompts, choices).items()}


def without_padding(network, encode, prompts, choices):
    rows = []
    for prompt in prompts:
        for choice in choices:
            start, ending = encode(prompt), encode(" " + choice)
            logprobs = network(torch.tensor([start + ending]))[0].log_softmax(-1)
            rows.append(sum(logprobs[len(start) - 1 + i, token] for i, token in enumerate(ending)))
    total = torch.stack(rows).view(len(prompts), len(choices))
    return {"sum": total, "mean": total / torch.tensor([[len(encode(" " + choice)) for choice in choices]])}


# 1.8 ------------------------------------------------------------------------------------------------------------------


def grouped(values, join, space=" "):
    """An answer of 1.8: values(logits), the columns of each label's words joined."""

    def label_probabilities(logits, encode, verbalizer):
        table = values(logits)
        columns = [[encode(space + word)[0] for word in group] for group in verbalizer]
        return torch.stack([join(table[:, some]) for some in columns], 1)

    return label_probabilities


def then(change, answer):
    return lambda *given: change(answer(*given))


def normalised(table):
    return table / table.sum(1, keepdim=True)


def odds(logits):
    return (logits - logits.amax(1, keepdim=True)).exp()


def add(group):
    return group.sum(1)


def overflows(logits, encode, verbalizer):
    return normalised(grouped(torch.exp, add)(logits, encode, verbalizer))


WRONG = {
    "1.1": [
        (kinds(lambda text, capital: capital in text), "inside a longer one"),
        (kinds(lambda text, capital: re.search(rf"\b{re.escape(capital)}\b", text)), "a hyphen belongs"),
        (kinds(lambda text, capital: whole(text.lower(), capital.lower())), "capital letters count"),
        (kinds(lambda text, capital: text.strip().startswith(capital) and whole(text, capital)), "it counts anywhere"),
        (question_first, "look for the name first"),
        (forgets_cut_questions, "cut off"),
        (empty_alone_ends, "white space alone"),
        (lambda text, capital: whole(text, capital), "none of the four kinds"),
    ],
    "1.2": [
        (trailing_space, "ends in white space"),
        (keeps_the_end, "behind the answer"),
        (asks, "question"),
        (leaves_a_blank, "a blank"),
        (forgets_the_country, "country is not in the prompt"),
        (leaves_the_placeholder, "placeholder is left"),
        (lambda statement, name: statement.replace("{name}", name).replace("{value}", "Lima"), "the answer stands"),
        (lambda statement, name: trailing_space(statement, name).strip() + "\n", "ends in white space"),
        (filled_in_once, "filled in once"),
        (one_character_less, "last character is cut off"),
        (spaces_alone, "a line break is white space too"),
        (what_follows, "stands behind the answer"),
        (cut_too_late, "cut first"),
    ],
    "1.3": [
        (loop(lambda text, answer: answer in text), "anywhere in the text"),
        (loop(lambda text, answer: text.strip().startswith(answer)), "compare whole words"),
        (loop(lambda text, answer: text.startswith(answer)), "white space in front"),
        (loop(lambda text, answer: text.strip() == answer), "whole text has to be the answer"),
        (loop(lambda text, answer: words(text)[:1] == words(answer)[:1]), "only the first word"),
        (loop(lambda text, answer: starts(text.lower(), answer.lower())), "capital letters are ignored"),
        (loop(lambda text, answer: text.split()[: len(answer.split())] == answer.split()), "split at white space"),
        (loop(lambda text, answer: set(words(answer)) <= set(words(text))), "anywhere, in any order"),
        (loop(lambda text, answer: words(answer)[: len(words(text))] == words(text)), "shorter than the answer"),
        (loop(starts, lambda prompt, text: text), "lack their prompts"),
        (loop(starts, lambda prompt, text: prompt), "lack their texts"),
        (loop(starts, kept=True), "those that were right"),
    ],
    "1.4": [
        (not_shifted, "not shifted"),
        (too_early, "one place too early"),
        (lagged(lambda logits: logits), "logits, not log-probabilities"),
        (lagged(lambda logits: logits.softmax(-1)), "probabilities: take their logarithm"),
        (lagged(lambda logits: logits.log_softmax(1)), "over the places"),
        (lagged(lambda logits: logits.log_softmax(0)), "over the batch"),
        (without_the_first, "expected"),
    ],
    "1.5": [
        (filled(lambda t, start, end, token: t < end), "includes the prompt"),
        (filled(lambda t, start, end, token: t >= start), "includes the padding"),
        (filled(lambda t, start, end, token: start < t < end), "starts one token late"),
        (filled(lambda t, start, end, token: start <= t < end - 1), "ends one token early"),
        (filled(lambda t, start, end, token: t >= start and token != 0), "padding's number"),
        (filled(lambda t, start, end, token: t < start), "True on the prompt"),
        (padded_left, "padded on the left"),
    ],
    "1.6": [
        (scored(right_sum, space=""), "without the space"),
        (scored(lambda logits, tokens, start, end: each_token(logits, tokens)[1:end].sum()), "prompt's tokens"),
        (scored(lambda logits, tokens, start, end: each_token(logits, tokens)[start:].sum()), "padding is counted"),
        (scored(lambda logits, tokens, start, end: logits.log_softmax(-1)[range(start, end), tokens[start:end]].sum()),
         "not shifted"),
        (scored(lambda logits, tokens, start, end: logits[range(start - 1, end - 1), tokens[start:end]].sum()),
         "logits are added up"),
        (scored(lambda logits, tokens, start, end: each_token(logits, tokens)[start:end].exp().sum()),
         "probabilities are added up"),
        (scored(lambda logits, tokens, start, end: each_token(logits, tokens)[start + 1 : end].sum()),
         "first token of the choice is missing"),
        (scored(right_sum, lambda start, choice, longest, word: len(start) + len(choice)), "prompt and choice"),
        (scored(right_sum, lambda start, choice, longest, word: longest), "longest choice"),
        (scored(right_sum, lambda start, choice, longest, word: len(word)), "by letters"),
        (exchanged, "this is the mean"),
        (scored(right_sum, lambda start, choice, longest, word: 1), "this is the sum"),
        (softmaxed, "normalised among each other"),
        (turned, "rows and columns exchanged"),
    ],
    "1.7": [
        (lambda logprobs: logprobs - logprobs.mean(0), "mean of log-probabilities"),
        (lambda logprobs: logprobs.log_softmax(0), "log of a sum"),
        (lambda logprobs: logprobs.log_softmax(1), "over the choices"),
        (lambda logprobs: logprobs - logprobs.exp().mean(0).log(), "not finite"),
        (lambda logprobs: logprobs - logprobs.exp().sum(0).log(), "log of a sum: divide by the number of prompts"),
        (lambda logprobs: logprobs + logprobs.exp().mean(0).log(), "is added: take it out; and elsewhere not finite"),
        (lambda logprobs: logprobs + logprobs.logsumexp(0) - math.log(len(logprobs)), "is added"),
        (lambda logprobs: logprobs - logprobs.logsumexp(1, keepdim=True) + math.log(logprobs.shape[1]),
         "over the choices"),
    ],
    "1.8": [
        (grouped(lambda logits: logits.softmax(-1), add), "not renormalised"),
        (then(normalised, grouped(odds, add, "")), "without the space"),
        (then(normalised, grouped(odds, lambda group: group[:, 0])), "only the first word"),
        (then(normalised, grouped(odds, lambda group: group.amax(1))), "likeliest word"),
        (then(normalised, grouped(odds, lambda group: group.mean(1))), "mean over a label's words"),
        (then(lambda table: table.softmax(1), grouped(lambda logits: logits, add)), "logits are added up"),
        (then(lambda table: table.softmax(0), grouped(lambda logits: logits, lambda group: group.logsumexp(1))),
         "over the prompts instead of the labels"),
        (then(lambda table: normalised(table).log(), grouped(odds, add)), "log-probabilities"),
        (then(lambda table: table.argmax(1), grouped(odds, add)), "most likely label"),
        (overflows, "exp(900)"),
    ],
    "1.9": [
        ("What is this in French?", "{input} is missing"),
        ("English: {input}\nFrench: ", "ends in a space"),
        ("dog = chien\n{input} =", "a demonstration, chien"),
        ("Please " * 20 + "{input}", "at most 120"),
        (7, "is a string"),
        ("What is {input} in French?", "0 of 4 points"),
    ],
}

RIGHT = {
    "1.1": [kinds(by_characters), kinds(whole)],
    "1.2": [with_a_format, lambda statement, name: trailing_space(statement, name).strip(), character_by_character],
    "1.3": [loop(starts), one_at_a_time],
    "1.4": [by_two_loops, by_cross_entropy],
    "1.5": [with_pad_sequence, filled(lambda t, start, end, token: start <= t < end)],
    "1.6": [scored(right_sum), without_padding],
    "1.7": [
        lambda logprobs: logprobs.log_softmax(0) + math.log(len(logprobs)),
        lambda logprobs: torch.stack([row - (torch.logsumexp(logprobs, 0) - math.log(len(logprobs)))
                                      for row in logprobs]),
    ],
    "1.8": [
        lambda logits, encode, groups: normalised(grouped(lambda x: x.softmax(-1), add)(logits, encode, groups)),
        then(lambda table: table.softmax(1), grouped(lambda logits: logits, lambda group: group.logsumexp(1))),
    ],
    "1.9": ["English: he sees the {input}\nFrench: il voit le", "English: his {input} is small\nFrench: son"],
}  # fmt: skip
