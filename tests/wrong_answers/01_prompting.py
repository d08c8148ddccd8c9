"""Typical wrong answers to the exercises of lesson 01, and right ones written differently."""

import difflib
import math
import re

import torch

# 1.1 ------------------------------------------------------------------------------------------------------------------


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


# 1.2 ------------------------------------------------------------------------------------------------------------------


def with_tensors(logprobs, prompt_length):
    return torch.tensor(logprobs)[prompt_length:].mean()


def by_a_loop(logprobs, prompt_length):
    total = count = 0
    for place, value in enumerate(logprobs):
        if place >= prompt_length:
            total, count = total + value, count + 1
    return total / count


# 1.3 ------------------------------------------------------------------------------------------------------------------


def column_ids(encode, words, space=" "):
    return [encode(space + word)[0] for word in words]


def divides_by_the_sum(logits, encode, words):
    chosen = logits.softmax(-1)[:, column_ids(encode, words)]
    return chosen / chosen.sum(-1, keepdim=True)


def one_word_at_a_time(logits, encode, words):
    scores = {word: logits[:, encode(f" {word}")[0]].exp() for word in words}
    total = sum(scores.values())
    return torch.stack([scores[word] / total for word in words], dim=1)


# 1.4 ------------------------------------------------------------------------------------------------------------------


def subsequence(left, right):
    if not left or not right:
        return 0
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left, 1):
        for j, b in enumerate(right, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def harmonic(common, prediction, reference):
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def set_overlap(prediction, reference):
    return harmonic(len(set(prediction) & set(reference)), set(prediction), set(reference))


def bag_overlap(prediction, reference):
    rest, common = list(reference), 0
    for word in prediction:
        if word in rest:
            rest.remove(word)
            common += 1
    return harmonic(common, prediction, reference)


def longest_substring(prediction, reference):
    match = difflib.SequenceMatcher(None, prediction, reference, autojunk=False).find_longest_match()
    return harmonic(match.size, prediction, reference)


def by_characters(prediction, reference):
    texts = " ".join(prediction), " ".join(reference)
    return harmonic(subsequence(*texts), *texts)


def memoised(prediction, reference):
    known = {}

    def common(i, j):
        if i == len(prediction) or j == len(reference):
            return 0
        if (i, j) not in known:
            skip = max(common(i + 1, j), common(i, j + 1))
            known[i, j] = max(skip, 1 + common(i + 1, j + 1)) if prediction[i] == reference[j] else skip
        return known[i, j]

    return harmonic(common(0, 0), prediction, reference)


# written after the checks ---------------------------------------------------------------------------------------------


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


def negative_sum(logprobs, start):
    return -sum(logprobs[start:])


def likelihood_of_the_choice(logprobs, start):
    return math.exp(sum(logprobs[start:]))


def late_sum(logprobs, start):
    return sum(logprobs[start + 1 :]) / len(logprobs[start:])


def the_prompt(logprobs, start):
    return sum(logprobs[:start]) / start


def one_too_many(logprobs, start):
    return sum(logprobs[start:]) / (len(logprobs) - start + 1)


def in_bits(logprobs, start):
    return sum(logprobs[start:]) / len(logprobs[start:]) / math.log(2)


def prompt_removed(logprobs, start):
    del logprobs[:start]
    return sum(logprobs) / len(logprobs)


def by_difference(logprobs, start):
    return (sum(logprobs) - sum(logprobs[:start])) / (len(logprobs) - start)


def most_likely_word(logits, encode, words):
    return logits[:, column_ids(encode, words)].argmax(-1)


def everything_at_once(logits, encode, words):
    chosen = logits[:, column_ids(encode, words)]
    return chosen.flatten().softmax(0).view_as(chosen)


def sigmoid_of_each(logits, encode, words):
    return logits[:, column_ids(encode, words)].sigmoid()


def turned_over(logits, encode, words):
    return logits[:, column_ids(encode, words)].softmax(-1).T


def shifted_in_place(logits, encode, words):
    logits -= logits.max(-1, keepdim=True).values
    return logits[:, column_ids(encode, words)].softmax(-1)


def the_others_masked(logits, encode, words):
    ids = column_ids(encode, words)
    mask = torch.full_like(logits, -math.inf)
    mask[:, ids] = 0
    return (logits + mask).softmax(-1)[:, ids]


def by_table(rule):
    def answer(prediction, reference):
        table = [[0] * (len(reference) + 1) for _ in range(len(prediction) + 1)]
        for i, a in enumerate(prediction):
            for j, b in enumerate(reference):
                table[i + 1][j + 1] = rule(a == b, table[i][j], table[i][j + 1], table[i + 1][j])
        return 2 * table[-1][-1] / (len(prediction) + len(reference))

    return answer


def first_matches(prediction, reference):
    place = found = 0
    for word in prediction:
        if word in reference[place:]:
            place, found = reference.index(word, place) + 1, found + 1
    return harmonic(found, prediction, reference)


def jaccard(prediction, reference):
    common = subsequence(prediction, reference)
    return common / (len(prediction) + len(reference) - common)


def in_percent(prediction, reference):
    return 100 * harmonic(subsequence(prediction, reference), prediction, reference)


def never_zero(prediction, reference):
    common = subsequence(prediction, reference)
    precision, recall = common / len(prediction), common / len(reference)
    return 2 * precision * recall / (precision + recall)


WRONG = {
    "1.1": [
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
    "1.2": [
        (lambda logprobs, start: sum(logprobs[start:]), "the sum over the choice"),
        (lambda logprobs, start: sum(logprobs) / len(logprobs), "prompt's tokens are counted"),
        (lambda logprobs, start: sum(logprobs[start:]) / len(logprobs), "prompt and choice together"),
        (lambda logprobs, start: torch.tensor(logprobs)[start:].exp().mean(), "the mean of probabilities"),
        (lambda logprobs, start: torch.tensor(logprobs)[start:].exp().mean().log(), "log of the mean probability"),
        (lambda logprobs, start: torch.tensor(logprobs)[start + 1 :].mean(), "one token late"),
        (lambda logprobs, start: torch.tensor(logprobs)[start - 1 :].mean(), "for prompt_length minus 1"),
        (lambda logprobs, start: -torch.tensor(logprobs)[start:].mean(), "sign"),
        (lambda logprobs, start: math.exp(-sum(logprobs[start:]) / len(logprobs[start:])), "perplexity"),
        (lambda logprobs, start: math.exp(sum(logprobs[start:]) / len(logprobs[start:])), "under an exponential"),
        (
            negative_sum,
            "else long choices lose; and all this with the sign",
        ),
        (likelihood_of_the_choice, "and all this under an exponential"),
        (late_sum, "one token late"),
        (the_prompt, "this scores the prompt"),
        (one_too_many, "one token too many"),
        (in_bits, "in bits"),
        (prompt_removed, "logprobs was changed in place"),
    ],
    "1.3": [
        (lambda logits, encode, words: logits.softmax(-1)[:, column_ids(encode, words)], "not renormalised"),
        (lambda logits, encode, words: logits[:, column_ids(encode, words, "")].softmax(-1), "without the space"),
        (lambda logits, encode, words: logits[:, column_ids(encode, sorted(words))].softmax(-1), "another order"),
        (lambda logits, encode, words: logits[:, sorted(column_ids(encode, words))].softmax(-1), "another order"),
        (lambda logits, encode, words: logits[:, column_ids(encode, words)].softmax(0), "over the prompts"),
        (lambda logits, encode, words: logits[:, column_ids(encode, words)].log_softmax(-1), "log-probabilities"),
        (
            lambda logits, encode, words: logits.softmax(-1)[:, column_ids(encode, words)].softmax(-1),
            "a softmax of probabilities",
        ),
        (lambda logits, encode, words: logits[:, column_ids(encode, words)], "without a softmax"),
        (most_likely_word, "the most likely word"),
        (everything_at_once, "over prompts and words together"),
        (sigmoid_of_each, "a sigmoid of each"),
        (turned_over, "rows and columns exchanged"),
        (shifted_in_place, "logits was changed in place"),
    ],
    "1.4": [
        (set_overlap, "overlap of word sets"),
        (bag_overlap, "whatever their order"),
        (lambda prediction, reference: subsequence(prediction, reference) / len(prediction), "precision alone"),
        (lambda prediction, reference: subsequence(prediction, reference) / len(reference), "recall alone"),
        (longest_substring, "without gaps"),
        (by_characters, "compares characters"),
        (subsequence, "turn it into an F-measure"),
        (by_table(lambda same, both, up, back: both + 1 if same else 0), "common ending"),
        (by_table(lambda same, both, up, back: both + same), "goes on from (i - 1, j - 1)"),
        (by_table(lambda same, both, up, back: both + 1 if same else up), "keeps entry (i - 1, j)"),
        (by_table(lambda same, both, up, back: max(up, back) + same), "prolong a neighbour"),
        (first_matches, "first match of each word"),
        (jaccard, "Jaccard"),
        (in_percent, "as a percentage"),
        (never_zero, "ZeroDivisionError"),
    ],
}

RIGHT = {
    "1.1": [with_a_format, lambda statement, name: trailing_space(statement, name).strip(), character_by_character],
    "1.2": [with_tensors, by_a_loop, by_difference],
    "1.3": [divides_by_the_sum, one_word_at_a_time, the_others_masked],
    "1.4": [memoised, by_table(lambda same, both, up, back: both + 1 if same else max(up, back))],
}
