"""Typical wrong answers to the exercises of lesson 02, and right ones written differently."""

from collections import Counter
from itertools import takewhile

import torch

EQUALS, LINE = "{input} = {output}", "\n"


def filled(template, given, wanted):
    return template.replace("{input}", given).replace("{output}", wanted)


# 2.1 ------------------------------------------------------------------------------------------------------------------


def trailing_space(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, *pair) for pair in [*demonstrations, (query, "")])


def bare_query(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join([*(filled(template, *pair) for pair in demonstrations), query])


def placeholder(demonstrations, query, template=EQUALS, separator=LINE):
    shown = [filled(template, *pair) for pair in demonstrations]
    return separator.join([*shown, template.replace("{input}", query)])


def no_separator_at_the_end(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, *pair) for pair in demonstrations) + filled(template, query, "").rstrip()


def line_break_at_the_end(demonstrations, query, template=EQUALS, separator=LINE):
    return "".join(filled(template, *pair).rstrip(" ") + separator for pair in [*demonstrations, (query, "")])


def query_first(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join([filled(template, query, "").rstrip(), *(filled(template, *pair) for pair in demonstrations)])


def reversed_order(demonstrations, query, template=EQUALS, separator=LINE):
    shown = [filled(template, *pair) for pair in reversed(demonstrations)]
    return separator.join([*shown, filled(template, query, "").rstrip()])


def always_equals(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join([*(f"{given} = {wanted}" for given, wanted in demonstrations), f"{query} ="])


def always_a_line_break(demonstrations, query, template=EQUALS, separator=LINE):
    return "\n".join([*(filled(template, *pair) for pair in demonstrations), filled(template, query, "").rstrip()])


def inputs_alone(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, given, "").rstrip() for given in [*(d[0] for d in demonstrations), query])


def grown_line_by_line(demonstrations, query, template=EQUALS, separator=LINE):
    prompt = ""
    for given, wanted in demonstrations:
        prompt += template.format(input=given, output=wanted) + separator
    return prompt + template.split("{output}")[0].format(input=query).strip()


# 2.2 ------------------------------------------------------------------------------------------------------------------


def pairwise(rule):
    return lambda continuations, answers: [rule(text, answer) for text, answer in zip(continuations, answers)]


def by_index(continuations, answers):
    verdicts = [False] * len(answers)
    for place, text in enumerate(continuations):
        verdicts[place] = text.split("\n", 1)[0].split() == answers[place].split()
    return verdicts


def with_numbers(continuations, answers):
    return [int(right) for right in by_index(continuations, answers)]


# 2.3 ------------------------------------------------------------------------------------------------------------------


def last_label(demonstrations, query, kind):
    return demonstrations[-1][1]


def majority(demonstrations, query, kind):
    return Counter(label for _, label in demonstrations).most_common(1)[0][0]


def first_match(demonstrations, query, kind):
    return next((label for word, label in demonstrations if kind[word] == kind[query]), "")


def next_label(demonstrations, query, kind):
    found = ""
    for (word, _), (_, label) in zip(demonstrations, demonstrations[1:]):
        if kind[word] == kind[query]:
            found = label
    same = [place for place, (word, _) in enumerate(demonstrations) if kind[word] == kind[query]]
    return "" if same and same[-1] == len(demonstrations) - 1 else found


def guess_when_unknown(demonstrations, query, kind):
    return next((label for word, label in demonstrations[::-1] if kind[word] == kind[query]), demonstrations[-1][1])


def none_when_unknown(demonstrations, query, kind):
    return next((label for word, label in demonstrations[::-1] if kind[word] == kind[query]), None)


def the_word(demonstrations, query, kind):
    return next((word for word, _ in demonstrations[::-1] if kind[word] == kind[query]), "")


def the_kind(demonstrations, query, kind):
    return kind[query]


def the_same_word(demonstrations, query, kind):
    return next((label for word, label in demonstrations[::-1] if word == query), "")


def backwards(demonstrations, query, kind):
    for word, label in reversed(demonstrations):
        if kind[word] == kind[query]:
            return label
    return ""


# 2.4 ------------------------------------------------------------------------------------------------------------------


def subtracts(probabilities, content_free):
    return probabilities - content_free.mean(0)


def no_new_sum(probabilities, content_free):
    return probabilities / content_free.mean(0)


def multiplies(probabilities, content_free):
    weighted = probabilities * content_free.mean(0)
    return weighted / weighted.sum(1, keepdim=True)


def averages_late(probabilities, content_free):
    weighted = probabilities[:, None] / content_free
    return (weighted / weighted.sum(-1, keepdim=True)).mean(1)


def averages_the_inverse(probabilities, content_free):
    weighted = probabilities * (1 / content_free).mean(0)
    return weighted / weighted.sum(1, keepdim=True)


def uses_the_test_set(probabilities, content_free):
    weighted = probabilities / probabilities.mean(0)
    return weighted / weighted.sum(1, keepdim=True)


def uses_the_first(probabilities, content_free):
    weighted = probabilities / content_free[0]
    return weighted / weighted.sum(1, keepdim=True)


def normalizes_the_inputs(probabilities, content_free):
    weighted = probabilities / content_free.mean(0)
    return weighted / weighted.sum(0, keepdim=True)


def takes_a_softmax(probabilities, content_free):
    return (probabilities / content_free.mean(0)).softmax(-1)


def labels_alone(probabilities, content_free):
    return (probabilities / content_free.mean(0)).argmax(-1)


def unchanged(probabilities, content_free):
    return probabilities


def in_logarithms(probabilities, content_free):
    return (probabilities.log() - content_free.mean(0).log()).softmax(-1)


# 2.5 ------------------------------------------------------------------------------------------------------------------


def columns(labels, shares):
    """(labels (contexts, places) bool, shares (contexts, 1)) as tensors."""
    return torch.tensor(labels).bool(), torch.tensor(shares, dtype=torch.float64)[:, None]


def group_means(labels, shares):
    where, values = columns(labels, shares)
    return (values * where).sum(0) / where.sum(0), (values * ~where).sum(0) / (~where).sum(0)


def right_with_tensors(labels, shares):
    positive, negative = group_means(labels, shares)
    return positive - negative


def by_a_loop(labels, shares):
    pulls = []
    for place in range(len(labels[0])):
        groups = {True: [], False: []}
        for row, share in zip(labels, shares):
            groups[bool(row[place])].append(share)
        pulls.append(sum(groups[True]) / len(groups[True]) - sum(groups[False]) / len(groups[False]))
    return pulls


def from_the_query_backwards(labels, shares):
    return right_with_tensors(labels, shares).flip(0)


def turned(labels, shares):
    return -right_with_tensors(labels, shares)


def positive_alone(labels, shares):
    return group_means(labels, shares)[0]


def against_all(labels, shares):
    return group_means(labels, shares)[0] - sum(shares) / len(shares)


def sums(labels, shares):
    where, values = columns(labels, shares)
    return (values * where).sum(0) - (values * ~where).sum(0)


def divided_by_all(labels, shares):
    return sums(labels, shares) / len(shares)


def last_place(labels, shares):
    return right_with_tensors(labels, shares)[-1]


# written after the checks ---------------------------------------------------------------------------------------------


def exchanged(demonstrations, query, template=EQUALS, separator=LINE):
    shown = [filled(template, *pair[::-1]) for pair in demonstrations]
    return separator.join([*shown, filled(template, query, "").rstrip()])


def one_missing(demonstrations, query, template=EQUALS, separator=LINE):
    return grown_line_by_line(demonstrations[1:], query, template, separator)


def no_query(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, *pair) for pair in demonstrations)


def plain_query(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join([*(filled(template, *pair) for pair in demonstrations), f"{query} ="])


def with_commas(demonstrations, query, template=EQUALS, separator=LINE):
    return ", ".join([*(filled(template, *pair) for pair in demonstrations), filled(template, query, "").rstrip()])


def in_a_list(demonstrations, query, template=EQUALS, separator=LINE):
    return [*(filled(template, *pair) for pair in demonstrations), filled(template, query, "").rstrip()]


def in_alphabet(demonstrations, query, template=EQUALS, separator=LINE):
    return grown_line_by_line(sorted(demonstrations), query, template, separator)


def always_a_separator(demonstrations, query, template=EQUALS, separator=LINE):
    shown = separator.join(filled(template, *pair) for pair in demonstrations)
    return shown + separator + filled(template, query, "").rstrip()


def by_one_join(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, *pair) for pair in [*demonstrations, (query, "")]).rstrip(" ")


def answers_anything(continuations, answers):
    return [text.split("\n")[0].split() in [answer.split() for answer in answers] for text in continuations]


def the_first_answer(continuations, answers):
    return by_index(continuations, answers[:1] * len(answers))


def all_of_them(continuations, answers):
    return all(by_index(continuations, answers))


def how_many(continuations, answers):
    return sum(by_index(continuations, answers))


def other_kind(demonstrations, query, kind):
    return next((label for word, label in demonstrations[::-1] if kind[word] != kind[query]), "")


def gives_up_early(demonstrations, query, kind):
    for word, label in reversed(demonstrations):
        return label if kind[word] == kind[query] else ""
    return ""


def label_before(demonstrations, query, kind):
    same = [place for place, (word, _) in enumerate(demonstrations) if kind[word] == kind[query]]
    return demonstrations[same[-1] - 1][1] if same else ""


def all_labels(demonstrations, query, kind):
    return [label for word, label in demonstrations if kind[word] == kind[query]]


def says_unknown(demonstrations, query, kind):
    return {kind[word]: label for word, label in demonstrations}.get(kind[query], "unknown")


def emptied(demonstrations, query, kind):
    while demonstrations:
        word, label = demonstrations.pop()
        if kind[word] == kind[query]:
            return label
    return ""


def recursive(demonstrations, query, kind):
    if not demonstrations:
        return ""
    *rest, (word, label) = demonstrations
    return label if kind[word] == kind[query] else recursive(rest, query, kind)


def sums_to_one_over_all(probabilities, content_free):
    weighted = probabilities / content_free.mean(0)
    return weighted / weighted.sum()


def largest_of_each(probabilities, content_free):
    weighted = probabilities / content_free.mean(0)
    return weighted / weighted.max(1, keepdim=True).values


def uses_the_median(probabilities, content_free):
    weighted = probabilities / content_free.median(0).values
    return weighted / weighted.sum(1, keepdim=True)


def logarithms(probabilities, content_free):
    return in_logarithms(probabilities, content_free).log()


def divided_in_place(probabilities, content_free):
    probabilities /= content_free.mean(0)
    return probabilities / probabilities.sum(1, keepdim=True)


def by_matrix(probabilities, content_free):
    weighted = probabilities @ torch.diag(1 / content_free.sum(0))
    return torch.nn.functional.normalize(weighted, p=1, dim=1)


def ratio(labels, shares):
    positive, negative = group_means(labels, shares)
    return positive / negative


def added(labels, shares):
    return sum(group_means(labels, shares))


def size_alone(labels, shares):
    return right_with_tensors(labels, shares).abs()


def against_all_turned(labels, shares):
    return sum(shares) / len(shares) - group_means(labels, shares)[1]


def without_the_first(labels, shares):
    return right_with_tensors(labels, shares)[1:]


def labels_sorted(labels, shares):
    labels.sort(reverse=True)
    return right_with_tensors(labels, shares)


def by_covariance(labels, shares):
    where, values = columns(labels, shares)
    where = where.double()
    centred = where - where.mean(0)
    return (centred * values).sum(0) / (centred * centred).sum(0)


WRONG = {
    "2.1": [
        (trailing_space, "ends in a space"),
        (bare_query, "query stands bare"),
        (placeholder, "placeholder"),
        (no_separator_at_the_end, "missing between the last demonstration and the query"),
        (line_break_at_the_end, "a separator after the query"),
        (query_first, "query comes first"),
        (reversed_order, "reverse order"),
        (always_equals, "template is ignored"),
        (always_a_line_break, "separator is ignored"),
        (inputs_alone, "outputs of the demonstrations are left out"),
        (exchanged, "inputs and outputs are exchanged"),
        (one_missing, "first demonstration is missing"),
        (no_query, "query is missing"),
        (plain_query, "ignored for the query"),
        (with_commas, "not joined by the separator"),
        (in_a_list, "expected a string"),
        (in_alphabet, "demonstrations sorted"),
        (always_a_separator, "demonstrations is empty"),
    ],
    "2.2": [
        (pairwise(lambda text, answer: text == answer), "outer spaces count"),
        (pairwise(lambda text, answer: text.strip() == answer), "goes on with the next item"),
        (pairwise(lambda text, answer: " ".join(text.split()) == answer), "goes on with the next item"),
        (pairwise(lambda text, answer: text.split("\n")[0] == answer), "outer spaces count"),
        (pairwise(lambda text, answer: text.split("\n")[0].strip() == answer), "inner spaces count"),
        (pairwise(lambda text, answer: answer in text), "containing is not matching"),
        (pairwise(lambda text, answer: answer in text.split("\n")[0]), "containing is not matching"),
        (pairwise(lambda text, answer: text.strip().startswith(answer)), "starting with the answer"),
        (pairwise(lambda text, answer: text.split("\n")[0].lower().split() == answer.lower().split()), "case"),
        (pairwise(lambda text, answer: text.strip().split("\n")[0].split() == answer.split()), "before the cut"),
        (pairwise(lambda text, answer: text.split("\n")[-1].split() == answer.split()), "the last line"),
        (pairwise(lambda text, answer: set(text.split("\n")[0].split()) == set(answer.split())), "order of words"),
        (with_numbers, "expected True or False"),
        (answers_anything, "any of the questions"),
        (the_first_answer, "first answer is used for all"),
        (all_of_them, "one verdict for all"),
        (how_many, "a number of right ones"),
        (pairwise(lambda text, answer: True), "every completion counts"),
        (pairwise(lambda text, answer: text.split()[:1] == answer.split()[:1]), "first word"),
        (pairwise(lambda text, answer: text.split("\\n")[0].strip().endswith(answer)), "ending in the answer"),
        (pairwise(lambda text, answer: text.strip().lower() == answer.lower()), "case is ignored"),
    ],
    "2.3": [
        (last_label, "recency bias"),
        (majority, "majority-label bias"),
        (first_match, "the latest one does"),
        (next_label, "off by one"),
        (guess_when_unknown, "nothing can be known"),
        (none_when_unknown, "None where"),
        (the_word, "word that matched"),
        (the_kind, "this is the kind"),
        (the_same_word, "very same word"),
        (other_kind, "of another kind"),
        (gives_up_early, "search goes on"),
        (label_before, "before the match"),
        (all_labels, "all labels of the kind"),
        (says_unknown, "nothing can be known"),
        (emptied, "changed in place"),
    ],
    "2.4": [
        (subtracts, "subtracted"),
        (no_new_sum, "not normalised again"),
        (multiplies, "multiplied"),
        (averages_late, "average p_cf first"),
        (averages_the_inverse, "average of 1 / p_cf"),
        (uses_the_test_set, "mean prediction on the test inputs"),
        (uses_the_first, "only the first content-free input"),
        (normalizes_the_inputs, "normalised over the inputs"),
        (takes_a_softmax, "softmax on probabilities"),
        (labels_alone, "these are labels"),
        (unchanged, "as if content_free were 1"),
        (sums_to_one_over_all, "normalised over everything"),
        (largest_of_each, "divided by its largest"),
        (uses_the_median, "lower median"),
        (logarithms, "as a logarithm"),
        (divided_in_place, "probabilities was changed in place"),
    ],
    "2.5": [
        (from_the_query_backwards, "in reverse"),
        (turned, "with the sign turned"),
        (positive_alone, "subtract the mean of those"),
        (against_all, "mean over all contexts"),
        (sums, "sums, not means"),
        (divided_by_all, "divided by all contexts"),
        (last_place, "one number per place"),
        (ratio, "ratio of the two means"),
        (added, "are added"),
        (size_alone, "sign dropped"),
        (against_all_turned, "less that of those with a negative label"),
        (without_the_first, "without the first"),
        (labels_sorted, "labels was changed in place"),
    ],
}
RIGHT = {
    "2.1": [grown_line_by_line, by_one_join],
    "2.2": [
        by_index,
        pairwise(lambda text, answer: "".join(takewhile("\n".__ne__, text)).split() == answer.split()),
    ],
    "2.3": [backwards, recursive],
    "2.4": [in_logarithms, by_matrix],
    "2.5": [right_with_tensors, by_a_loop, by_covariance],
}
