"""Lesson 02: the few-shot prompt, judging a completion, copying by kind, contextual calibration, the pull of a label.

The expectations are plain Python on strings and lists, from the definitions; tensors are made in `drive` alone.
"""

import math
import statistics

from ptlearn.course.diagnosis import differences
from ptlearn.course.exercise import Exercise
from ptlearn.lm.prompting import contextual_calibration, exact_match, few_shot_prompt, first_line

# 2.1 The few-shot prompt ---------------------------------------------------------------------------------------------

FRENCH = [["chat", "cat"], ["chien", "dog"], ["maison", "house"], ["arbre", "tree"], ["pont", "bridge"]]
REVIEWS = [["The soup was cold.", "negative"], ["What a wonderful view.", "positive"], ["I slept well.", "positive"]]


def prompt_cases(rng):
    first, second = rng.sample(FRENCH, 4), rng.sample(FRENCH, 3)
    reviews = rng.sample(REVIEWS, 3)
    return [
        {"demonstrations": first[:3], "query": first[3][0], "template": "{input} = {output}", "separator": "\n"},
        {"demonstrations": reviews[:2], "query": reviews[2][0],
         "template": "Review: {input}\nSentiment: {output}", "separator": "\n\n"},
        {"demonstrations": second[:2], "query": second[2][0], "template": "{input} -> {output}", "separator": "; "},
        {"demonstrations": [], "query": first[0][0], "template": "{input} = {output}", "separator": "\n"},
    ]  # fmt: skip


def drive_prompt(answer, case):
    demonstrations = [tuple(pair) for pair in case["demonstrations"]]
    return answer(demonstrations, case["query"], template=case["template"], separator=case["separator"])


def verify_prompt(case, data):
    template, separator, query = case["template"], case["separator"], case["query"]

    def line(given, wanted, template=template):
        return template.replace("{input}", given).replace("{output}", wanted)

    shown = [line(given, wanted) for given, wanted in case["demonstrations"]]
    last = line(query, "").rstrip(" ")
    plain = [line(given, wanted, "{input} = {output}") for given, wanted in case["demonstrations"]]
    inputs = [line(given, "").rstrip(" ") for given, _ in case["demonstrations"]]
    expected = separator.join([*shown, last])
    return differences(
        data,
        expected,
        {
            "the prompt ends in a space: the answer's first token brings its own, so the model never saw this end": (
                separator.join([*shown, last + " "])
            ),
            "the query stands bare: write it by the template too, up to where its output would start": (
                separator.join([*shown, query])
            ),
            "the placeholder {output} is still in the prompt": separator.join([*shown, line(query, "{output}")]),
            "the separator is missing between the last demonstration and the query": separator.join(shown) + last,
            "the separator is missing: the demonstrations run into each other": "".join([*shown, last]),
            "a separator after the query: the model would start a new line, not complete this one": (
                separator.join([*shown, last, ""])
            ),
            "the query comes first: demonstrations stand before it, and the prompt ends where its output starts": (
                separator.join([last, *shown])
            ),
            "the demonstrations come in reverse order": separator.join([*shown[::-1], last]),
            "the outputs of the demonstrations are left out: only they say what the task is": (
                separator.join([*inputs, last])
            ),
            "the template is ignored: not every list is written 'input = output'": (
                separator.join([*plain, line(query, "", "{input} = {output}").rstrip(" ")])
            ),
            "the separator is ignored: it is not always a line break": "\n".join([*shown, last]),
            "the demonstrations are missing: this is the zero-shot prompt": last,
            "the query is shown twice": separator.join([*shown, last, last]),
        },
    )


# 2.2 Judging a completion --------------------------------------------------------------------------------------------


def judged(continuations, answers):
    """The package's answer: the first line alone, white space aside; case counts."""
    return exact_match([first_line(text) for text in continuations], answers)


CONTAINS = "containing is not matching: 'not Nairobi' contains Nairobi and does not answer with it"
PREFIX = "starting with the answer is not matching: 42 starts with 4"
CASE = "case is ignored, but 'new delhi' is not 'New Delhi'"
ORDER = "the order of words is ignored: 'the house sees the cat' says something else"
LAST = "the last line is compared: the answer is the first"
OUTER = "outer spaces count: a completion starts with one, since it belongs to the first token"
BEHIND = "what stands behind the first line counts too: a base model goes on with the next item, so cut there"
BREAK = "white space is stripped before the cut: a completion that begins with a line break answered nothing"
INNER = "inner spaces count: compare words, white space aside"
EMPTY = "an empty completion counts as right"
SAID = (CONTAINS, PREFIX, CASE, ORDER, LAST, OUTER, BEHIND, BREAK, INNER, EMPTY)  # the most telling one first


def judging_cases(rng):
    """Rows of continuation, answer, whether it is right, and what is wrong with a rule that says otherwise."""
    a, b = rng.sample(range(2, 9), 2)
    rows = [
        (" the cat sees the house", "the cat sees the house", True, OUTER),
        (" the cat sees the house\nle chien = the dog", "the cat sees the house", True, BEHIND),
        (f" {a}\n{b} = {b + 1}", f"{a}", True, BEHIND),
        ("  New  Delhi ", "New Delhi", True, INNER),
        (f" {a}{b}", f"{a}", False, PREFIX),
        (" not Nairobi", "Nairobi", False, CONTAINS),
        (" new delhi", "New Delhi", False, CASE),
        (f" {b}\n{a}", f"{a}", False, LAST),
        ("\nNairobi", "Nairobi", False, BREAK),
        (" the house sees the cat", "the cat sees the house", False, ORDER),
        ("", "Nairobi", False, EMPTY),
    ]
    return [[list(row) for row in rng.sample(rows, len(rows))]]


def drive_judging(answer, case):
    return list(answer([text for text, *_ in case], [wanted for _, wanted, *_ in case]))


def verify_judging(case, data):
    expected = [right for *_, right, _ in case]
    if differences(data, expected) and len(data) == len(expected):
        wrong = {said for (*_, right, said), given in zip(case, data) if given != right}
        return next(said for said in SAID if said in wrong)
    return differences(data, expected)


# 2.3 Copying by kind -------------------------------------------------------------------------------------------------


def copied_label(demonstrations, query, kind):
    """The label of the latest demonstration of the query's kind, or "" where there is none."""
    labels = {kind[word]: label for word, label in demonstrations}  # a later one replaces an earlier one
    return labels.get(kind[query], "")


KINDS = {
    "fruit": ["apple", "pear", "plum", "fig", "melon", "cherry"],
    "tool": ["saw", "drill", "rake", "chisel", "pliers", "spade"],
    "animal": ["fox", "owl", "goat", "hen", "pony", "duck"],
}
NONSENSE = ["poke", "fiti", "rubo", "gani", "pewa", "dilu", "zamo", "kevi"]


def copying_cases(rng):
    """Four episodes: a plain one, one whose labels are swapped half-way, one that shows a kind never, a long one."""
    kind = {word: name for name, words in KINDS.items() for word in words}
    episodes = []
    for index in range(4):
        first, second, third = rng.sample(sorted(KINDS), 3)
        a, b, c = rng.sample(NONSENSE, 3)
        one, two, three = (rng.sample(KINDS[name], 6) for name in (first, second, third))
        shown = {
            0: [(two[1], b), (one[0], a), (three[0], c), (two[0], b), (two[2], b)],
            1: [(one[0], a), (two[0], b), (one[1], b), (two[1], a), (three[0], c)],
            2: [(two[0], b), (three[0], c), (two[1], b)],
            3: [(one[0], a), (one[1], c), (two[0], b), (three[0], b), (two[1], b), (one[2], a), (three[1], c)],
        }[index]
        episodes.append({"demonstrations": [list(pair) for pair in shown], "query": one[5]})
    return [{"episodes": episodes, "kind": kind}]


def drive_copying(answer, case):
    return [
        answer([tuple(pair) for pair in episode["demonstrations"]], episode["query"], dict(case["kind"]))
        for episode in case["episodes"]
    ]


def verify_copying(case, data):
    kind = case["kind"]

    def by(rule):
        """What a rule (demonstrations, query, indices of the same kind) makes of every episode."""
        results = []
        for episode in case["episodes"]:
            shown, query = episode["demonstrations"], episode["query"]
            same = [i for i, (word, _) in enumerate(shown) if kind[word] == kind[query]]
            results.append(rule(shown, query, same))
        return results

    def last(shown, query, same):
        return shown[same[-1]][1] if same else ""

    def following(shown, query, same):
        place = same[-1] + 1 if same else len(shown)
        return shown[place][1] if place < len(shown) else ""

    mistakes = {
        "the label of the last demonstration, whatever its kind: this is recency bias, as a rule": (
            by(lambda shown, query, same: shown[-1][1])
        ),
        "the most frequent label, whatever the kind: this is majority-label bias, as a rule": (
            by(lambda shown, query, same: statistics.mode(label for _, label in shown))
        ),
        "the first demonstration of the kind decides: the latest one does, for the rule may have changed": (
            by(lambda shown, query, same: shown[same[0]][1] if same else "")
        ),
        "off by one: this is the label of the demonstration after the match": by(following),
        "where no demonstration is of the query's kind, nothing can be known: return ''": (
            by(lambda shown, query, same: shown[same[-1]][1] if same else shown[-1][1])
        ),
        "None where no demonstration is of the query's kind: return ''": (
            by(lambda shown, query, same: shown[same[-1]][1] if same else None)
        ),
        "this is the word that matched: return its label": (
            by(lambda shown, query, same: shown[same[-1]][0] if same else "")
        ),
        "this is the kind: return the label that stands for it": by(lambda shown, query, same: kind[query]),
        "only the very same word matches, and the query is never among the demonstrations: compare kinds": (
            by(lambda shown, query, same: "")
        ),
        "the whole pair comes back: return its label": by(lambda shown, query, same: shown[same[-1]] if same else ""),
    }
    return differences(data, by(last), mistakes)


# 2.4 Contextual calibration ------------------------------------------------------------------------------------------


def calibration_cases(rng):
    cases = []
    for classes in (2, 3):
        rows = [normalized([rng.uniform(0.1, 1.0) for _ in range(classes)]) for _ in range(4)]
        biased = [4.0, *[1.0] * (classes - 1)]
        empty = [normalized([x * rng.uniform(0.4, 2.0) for x in biased]) for _ in range(3)]
        cases.append({"probabilities": rows, "content_free": empty})
    return cases


def normalized(row):
    return [x / sum(row) for x in row]


def drive_calibration(answer, case):
    import torch

    tensors = (torch.tensor(case[name], dtype=torch.float64) for name in ("probabilities", "content_free"))
    return answer(*tensors)


def verify_calibration(case, data):
    rows, empty = case["probabilities"], case["content_free"]

    def weighted(bias, operation=lambda p, b: p / b):
        return [[operation(p, b) for p, b in zip(row, bias)] for row in rows]

    bias = [statistics.mean(column) for column in zip(*empty)]
    expected = [normalized(row) for row in weighted(bias)]
    one_by_one = [[normalized([p / b for p, b in zip(row, single)]) for single in empty] for row in rows]
    averaged = [[statistics.mean(column) for column in zip(*results)] for results in one_by_one]
    inverse = [statistics.mean(1 / x for x in column) for column in zip(*empty)]
    test_mean = [statistics.mean(column) for column in zip(*rows)]
    unnormalized = weighted(bias)
    columns = [sum(column) for column in zip(*unnormalized)]
    difference = weighted(bias, lambda p, b: p - b)
    return differences(
        data,
        expected,
        {
            "not normalised again: after the division a row no longer sums to 1": unnormalized,
            "the bias is subtracted: W is diagonal with 1 / p_cf, so divide": difference,
            "the bias is subtracted and the rest shifted to sum to 1: W is diagonal with 1 / p_cf, so divide": (
                [[x + 1 / len(row) for x in row] for row in difference]
            ),
            "multiplied by p_cf, which doubles the bias: W is diagonal with 1 / p_cf": (
                [normalized(row) for row in weighted(bias, lambda p, b: p * b)]
            ),
            "each content-free input calibrates on its own and the results are averaged: average p_cf first": averaged,
            "the average of 1 / p_cf: average the probabilities of the content-free inputs, then invert": (
                [normalized(row) for row in weighted(inverse, lambda p, b: p * b)]
            ),
            "divided by the mean prediction on the test inputs: the bias is what content-free inputs get": (
                [normalized(row) for row in weighted(test_mean)]
            ),
            "only the first content-free input is used: average over all of them": (
                [normalized(row) for row in weighted(empty[0])]
            ),
            "normalised over the inputs: the probabilities of one input, over its labels, sum to 1": (
                [[x / total for x, total in zip(row, columns)] for row in unnormalized]
            ),
            "softmax on probabilities: they are no logits, so divide by their sum": (
                [normalized([math.exp(x) for x in row]) for row in unnormalized]
            ),
            "the probabilities come back as they were": rows,
            "these are labels: return the calibrated probabilities": [row.index(max(row)) for row in expected],
        },
    )


# 2.5 The pull of a label ---------------------------------------------------------------------------------------------


def label_pull(labels, shares):
    """The package's answer: for each place, mean share where its label is positive minus where it is negative."""
    return [
        statistics.mean(share for row, share in zip(labels, shares) if row[place])
        - statistics.mean(share for row, share in zip(labels, shares) if not row[place])
        for place in range(len(labels[0]))
    ]


def pull_cases(rng):
    """Contexts whose groups differ in size, so no full factorial; last a hand case: the pulls are 0.1 and 0.4."""
    every = [[first, second] for first in (0, 1) for second in (0, 1)]
    cases = []
    for _ in range(2):
        labels = [[0, 0, 0], [1, 1, 1], [1, 0, 1], *([rng.randrange(2) for _ in range(3)] for _ in range(6))]
        shares = [round(0.2 + 0.05 * a + 0.15 * b + 0.4 * c + rng.uniform(0, 0.1), 6) for a, b, c in labels]
        cases.append({"labels": labels, "shares": shares})
    return [*cases, {"labels": every, "shares": [round(0.3 + 0.1 * a + 0.4 * b, 6) for a, b in every]}]


def verify_pull(case, data):
    labels, shares = case["labels"], case["shares"]
    places = range(len(labels[0]))

    def group(place, positive):
        return [share for row, share in zip(labels, shares) if bool(row[place]) == positive]

    positive = [statistics.mean(group(place, True)) for place in places]
    negative = [statistics.mean(group(place, False)) for place in places]
    overall = statistics.mean(shares)
    expected = [p - n for p, n in zip(positive, negative)]
    sums = [sum(group(place, True)) - sum(group(place, False)) for place in places]
    return differences(
        data,
        expected,
        {
            "the places come in reverse: the last number belongs to the demonstration before the query": expected[::-1],
            "the sign is turned: positive means that a positive label pulls predictions to positive": (
                [-x for x in expected]
            ),
            "only contexts with a positive label are used: subtract the mean of those with a negative one": positive,
            "only the contexts with a negative label are used": negative,
            "compared with the mean over all contexts: compare with those whose label there is negative": (
                [p - overall for p in positive]
            ),
            "sums, not means: the two groups may differ in size": sums,
            "divided by all contexts: each group has a mean of its own": [x / len(shares) for x in sums],
            "this is the effect of how many positive labels there are: take the places one by one": (
                [statistics.mean(expected)] * len(expected)
            ),
            "only the last place is returned: one number per place": expected[-1],
            "only the last place is returned, in a list: one number per place": expected[-1:],
        },
    )


def prompt_of(demonstrations, query, template="{input} = {output}", separator="\n"):
    """The package's `few_shot_prompt`, called as the student's."""
    return few_shot_prompt(demonstrations, query, template=template, separator=separator)


EXERCISES = {
    "2.1": Exercise(prompt_cases, drive_prompt, verify_prompt, points=1, reference=prompt_of),
    "2.2": Exercise(judging_cases, drive_judging, verify_judging, points=1, reference=judged),
    "2.3": Exercise(copying_cases, drive_copying, verify_copying, points=2, reference=copied_label),
    "2.4": Exercise(
        calibration_cases, drive_calibration, verify_calibration, points=2, reference=contextual_calibration
    ),
    "2.5": Exercise(
        pull_cases,
        lambda answer, case: answer(case["labels"], case["shares"]),
        verify_pull,
        points=2,
        reference=label_pull,
    ),
}
