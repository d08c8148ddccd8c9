"""Lesson 02: the few-shot prompt, judging a completion, copying by kind, contextual calibration, the pull of a label.

The expectations are plain Python on strings and lists, from the definitions; tensors are made in `drive` alone.
"""

import math
import statistics

import torch

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.lm.prompting import contextual_calibration, exact_match, few_shot_prompt, first_line

# 2.1 The few-shot prompt ---------------------------------------------------------------------------------------------

FRENCH = [["chat", "cat"], ["chien", "dog"], ["maison", "house"], ["arbre", "tree"], ["pont", "bridge"]]
REVIEWS = [["The soup was cold.", "negative"], ["What a wonderful view.", "positive"], ["I slept well.", "positive"]]
USUAL = {"template": "{input} = {output}", "separator": "\n"}


def prompt_cases(rng):
    """Three demonstrations, two lines each, another separator, one, none; the last two without template, separator."""
    a, b, c, last = sorted(rng.sample(FRENCH, 4))
    first, second = [b, c, a, last], rng.sample(FRENCH, 3)  # not in the order of the alphabet, nor backwards
    reviews = rng.sample(REVIEWS, 3)
    return [
        {"demonstrations": first[:3], "query": first[3][0], "options": USUAL},
        {"demonstrations": reviews[:2], "query": reviews[2][0],
         "options": {"template": "Review: {input}\nSentiment: {output}", "separator": "\n\n"}},
        {"demonstrations": second[:2], "query": second[2][0],
         "options": {"template": "{input} -> {output}", "separator": "; "}},
        {"demonstrations": first[:1], "query": first[1][0], "options": {}},
        {"demonstrations": [], "query": first[0][0], "options": {}},
    ]  # fmt: skip


def drive_prompt(answer, case):
    """A tuple of demonstrations where the options are given, a list where they are not: the lesson hands either."""
    demonstrations = [tuple(pair) for pair in case["demonstrations"]]
    kind = tuple if case["options"] else list
    return answer(kind(demonstrations), case["query"], **case["options"])


def expect_prompt(case):
    query, pairs = case["query"], case["demonstrations"]
    template, separator = (USUAL | case["options"]).values()

    def line(given, wanted, template=template):
        return template.replace("{input}", given).replace("{output}", wanted)

    def joined(*lines):
        return separator.join(lines)

    shown, plain = [line(*pair) for pair in pairs], [line(*pair, USUAL["template"]) for pair in pairs]
    last, plain_last = line(query, "").rstrip(" "), line(query, "", USUAL["template"]).rstrip(" ")
    return joined(*shown, last), {
        "the prompt ends in a space: the answer's first token brings its own, so the model never saw this end":
            joined(*shown, last + " "),
        "the query stands bare: write it by the template too, up to where its output would start":
            joined(*shown, query),
        "the placeholder {output} is still in the prompt": joined(*shown, line(query, "{output}")),
        "the separator is missing between the last demonstration and the query": separator.join(shown) + last,
        "the separator is missing: the demonstrations run into each other": "".join([*shown, last]),
        "a separator after the query: the model would start a new line, not complete this one":
            Alternatives(joined(*shown, last, ""), joined(*shown, last + " ", "")),
        "a separator before the first demonstration": joined("", *shown, last),
        "the query comes first: demonstrations stand before it, and the prompt ends where its output starts":
            joined(last, *shown),
        "the outputs of the demonstrations are left out: only they say what the task is":
            joined(*(line(given, "").rstrip(" ") for given, _ in pairs), last),
        "the inputs of the demonstrations are left out": joined(*(wanted for _, wanted in pairs), last),
        "inputs and outputs are exchanged": joined(*(line(wanted, given) for given, wanted in pairs), last),
        "the template is ignored: not every list is written 'input = output'": joined(*plain, plain_last),
        "the template is ignored for the query": joined(*shown, plain_last),
        "the separator is ignored: it is not always a line break": "\n".join([*shown, last]),
        "not joined by the separator": Alternatives(*(mark.join([*shown, last]) for mark in (" ", ", ", " \n"))),
        "template and separator are ignored": "\n".join([*plain, plain_last]),
        "the demonstrations are missing: this is the zero-shot prompt": last,
        "the first demonstration is missing": joined(*shown[1:], last),
        "the last demonstration is missing": joined(*shown[:-1], last),
        "the query is missing": joined(*shown),
        "the query is shown twice": joined(*shown, last, last),
    }  # fmt: skip


def remark_prompt(case, data):
    """What is missing in a prompt with several mistakes."""
    if not isinstance(data, str):
        return None
    findings = (
        ("{" in data, "a placeholder is left in the prompt: fill in {input}, and {output} of the demonstrations"),
        (case["query"] not in data, "the query is not in the prompt"),
        (not all(x in data and y in data for x, y in case["demonstrations"]), "not all demonstrations are shown"),
        (data != data.rstrip(), "the prompt ends in white space: the answer's first token brings its own space"),
    )
    return next((words for found, words in findings if found), None)


# 2.2 Judging a completion --------------------------------------------------------------------------------------------


def judged(continuations, answers):
    """The package's answer: the first line alone, white space aside; case counts."""
    return exact_match([first_line(text) for text in continuations], answers)


def first(text):
    return text.split("\n")[0]


RULES = {  # in words, and as they are programmed; the narrow ones first
    "an empty completion counts as right": (lambda text, answer: not text or first(text).split() == answer.split(),),
    "punctuation counts: 'Nairobi.' is another word than 'Nairobi'": (
        lambda text, answer: first(text).strip(" .,").split() == answer.strip(" .,").split(),),
    "all spaces are removed, but 'at all' is not 'atall'": (
        lambda text, answer: first(text).replace(" ", "") == answer.replace(" ", ""),),
    "the order of words is ignored: 'the house sees the cat' says something else": (
        lambda text, answer: set(first(text).split()) == set(answer.split()),
        lambda text, answer: sorted(first(text).split()) == sorted(answer.split())),
    "case is ignored, but 'new delhi' is not 'New Delhi'": (
        lambda text, answer: first(text).lower().split() == answer.lower().split(),
        lambda text, answer: first(text).lower().strip() == answer.lower(),
        lambda text, answer: text.strip().lower() == answer.lower()),
    "starting with the answer is not matching: 42 starts with 4": (
        lambda text, answer: text.strip().startswith(answer),
        lambda text, answer: first(text).strip().startswith(answer)),
    "ending in the answer is not matching: 'not Nairobi' ends in Nairobi": (
        lambda text, answer: first(text).strip().endswith(answer), lambda text, answer: text.strip().endswith(answer)),
    "containing is not matching: 'not Nairobi' contains Nairobi and does not answer with it": (
        lambda text, answer: answer in text, lambda text, answer: answer in first(text),
        lambda text, answer: set(answer.split()) <= set(first(text).split())),
    "a part of the answer is not the answer": (
        lambda text, answer: first(text).strip() in answer, lambda text, answer: text.strip() in answer),
    "the last line is compared: the answer is the first": (
        lambda text, answer: text.split("\n")[-1].split() == answer.split(),),
    "any line may be the answer: it is the first": (
        lambda text, answer: any(line.split() == answer.split() for line in text.split("\n")),),
    "white space is stripped before the cut: a completion that begins with a line break answered nothing": (
        lambda text, answer: first(text.strip()).split() == answer.split(),
        lambda text, answer: first(text.strip()) == answer),
    "inner spaces count: compare words, white space aside": (
        lambda text, answer: first(text).strip() == answer, lambda text, answer: first(text)[1:] == answer),
    "what stands behind the first line counts too: a base model goes on with the next item, so cut there": (
        lambda text, answer: text.strip() == answer, lambda text, answer: text.split() == answer.split()),
    "outer spaces count: a completion starts with one, since it belongs to the first token": (
        lambda text, answer: text == answer, lambda text, answer: first(text) == answer),
    "only the first word is compared": (lambda text, answer: first(text).split()[:1] == answer.split()[:1],
                                        lambda text, answer: text.split()[:1] == answer.split()[:1]),
    "only the length is compared": (lambda text, answer: len(first(text).split()) == len(answer.split()),
                                    lambda text, answer: len(text.split()) == len(answer.split())),
    "every completion counts as right": (lambda text, answer: True,),
    "no completion counts as right": (lambda text, answer: False,),
}  # fmt: skip


def judging_cases(rng):
    """Pairs that a wrong rule accepts, or rejects; all of them, and some."""
    a, b = rng.sample(range(2, 9), 2)
    pairs = [(" the cat sees the house", "the cat sees the house"), ("the cat sleeps", "the cat sleeps"),
             (" le chien\nle chat = the cat", "le chien"), (f" {a}\n{b} = {b + 1}", f"{a}"),
             ("  New  Delhi ", "New Delhi"), (f" {a}{b}", f"{a}"), (" Peru is near", "Peru"),
             (" not Nairobi", "Nairobi"), (" new delhi", "New Delhi"), (" Nairobi.", "Nairobi"), (f" {b}\n{a}", f"{a}"),
             ("\nNairobi", "Nairobi"), (" the house sees the cat", "the cat sees the house"),
             (" the cat the", "the the cat"), (" the the cat", "the cat"), (" at all", "atall"),
             (" the red", "the red house"), ("", "Nairobi")]  # fmt: skip
    names = ("continuations", "answers")
    return [dict(zip(names, map(list, zip(*some)))) for some in (rng.sample(pairs, 18), rng.sample(pairs[:9], 6))]


def expect_judging(case):
    pairs = list(zip(case["continuations"], case["answers"]))
    mistakes = {words: Alternatives(*([rule(*pair) for pair in pairs] for rule in rules))
                for words, rules in RULES.items()}  # fmt: skip
    expected = [text.partition("\n")[0].split() == answer.split() for text, answer in pairs]
    return expected, mistakes | {
        "right is what answers any of the questions: compare each with its own answer":
            [any(first(text).split() == answer.split() for _, answer in pairs) for text, _ in pairs],
        "the first answer is used for all": [first(text).split() == pairs[0][1].split() for text, _ in pairs],
        "one verdict for all: return one for each": Alternatives(all(expected), any(expected)),
        "this is a share or a number of right ones: return a verdict for each":
            Alternatives(sum(expected), sum(expected) / len(expected)),
    }  # fmt: skip


def remark_judging(case, data):
    """The narrowest rule that accepts all that is wrongly accepted, or else rejects all that is wrongly rejected."""
    expected, _ = expect_judging(case)
    if not isinstance(data, list) or list(map(type, data)) != list(map(type, expected)):
        return None
    rows = list(zip(case["continuations"], case["answers"], data, expected))
    for verdict in (True, False):
        wrong = [(text, answer) for text, answer, given, right in rows if given != right and given == verdict]
        for words, rules in RULES.items() if wrong else ():
            if any(all(rule(*pair) == verdict for pair in wrong) for rule in rules):
                return words
    return None


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
    """Labels swapped half-way, a plain one, a kind that is never shown, a long one, the match first, last, none."""
    kinds = {word: name for name, words in KINDS.items() for word in words}
    cases = []
    for pattern in ("x1 y2 x2 y1 z3", "y2 x1 z3 y2 y2", "y2 z3 y2", "x1 y2 x2 z3 y2 x2 x3 z1", "x2 y1", "y2 x3", ""):
        names, labels = rng.sample(sorted(KINDS), 3), rng.sample(NONSENSE, 3)
        words = {letter: iter(rng.sample(KINDS[name], 6)) for letter, name in zip("xyz", names)}
        shown = [[next(words[x]), labels[int(number) - 1]] for x, number in pattern.split()]
        query = next(words["x"])
        known = {word: kinds[word] for word in [query, *(word for word, _ in shown)]}
        cases.append({"demonstrations": shown, "query": query, "kind": known})
    return cases


def drive_copying(answer, case):
    return [answer([tuple(pair) for pair in case["demonstrations"]], case["query"], dict(case["kind"]))]


def expect_copying(case):
    kind, shown = case["kind"], case["demonstrations"]
    wanted = kind[case["query"]]
    labels = [label for _, label in shown]
    same = [place for place, (word, _) in enumerate(shown) if kind[word] == wanted]
    known = [labels[place] for place in same]
    others = [label for word, label in shown if kind[word] != wanted]
    latest = same[-1] if same else None

    def if_known(value):
        """What value() gives where the kind was shown."""
        return value() if same else ""

    expected = if_known(lambda: known[-1])
    mistakes = {
        "only the very same word matches, and the query is never among the demonstrations: compare kinds": [""],
        "this is the kind: return the label that stands for it": [wanted],
        "this is the query: return a label": [case["query"]],
        "this is the word that matched: return its label": [if_known(lambda: shown[latest][0])],
        "the whole pair comes back: return its label": [if_known(lambda: shown[latest])],
        "this is the place of the match: return its label": [if_known(lambda: latest)],
        "the first demonstration of the kind decides: the latest one does, for the rule may have changed":
            [if_known(lambda: known[0])],
        "the most frequent label of the kind: the latest decides": [if_known(lambda: statistics.mode(known))],
        "off by one: this is the label of the demonstration after the match":
            [if_known(lambda: [*labels, ""][latest + 1])],
        "off by one: this is the label of the demonstration before the match":
            Alternatives(*([if_known(lambda end=end: [end, *labels][latest])] for end in ("", *labels[-1:]))),
        "only the last demonstration is looked at: the search goes on to those before it":
            [if_known(lambda: labels[latest] if latest == len(labels) - 1 else "")],
        "None where no demonstration is of the query's kind: return ''": [expected or None],
        "all labels of the kind: return the latest": Alternatives([known], *([x.join(known)] for x in ("", " ", ", "))),
    }  # fmt: skip
    if shown:
        mode = statistics.mode(labels)
        mistakes |= {
            "the label of the last demonstration, whatever its kind: this is recency bias, as a rule": [labels[-1]],
            "the label of the first demonstration, whatever its kind": [labels[0]],
            "the most frequent label, whatever the kind: this is majority-label bias, as a rule": [mode],
            "where no demonstration is of the query's kind, nothing can be known: return ''":
                Alternatives(*([expected or guess] for guess in (labels[-1], labels[0], mode))),
            "the latest demonstration of another kind decides: compare with ==": [others[-1] if others else ""],
        }  # fmt: skip
    return [expected], mistakes


def remark_copying(case, data):
    [expected], _ = expect_copying(case)
    return None if expected else "where no demonstration is of the query's kind, nothing can be known: return ''"


# 2.4 Contextual calibration ------------------------------------------------------------------------------------------


def calibration_cases(rng):
    """A small one; more labels and another number of inputs; one content-free input, one input, in float32."""
    cases = []
    for inputs, free, classes in ((2, 2, 2), (4, 3, 3), (1, 1, 4)):
        rows = [normalized([rng.uniform(0.1, 1.0) for _ in range(classes)]) for _ in range(inputs)]
        empty = [normalized([x * rng.uniform(0.4, 2.0) for x in (4.0, *[1.0] * (classes - 1))]) for _ in range(free)]
        cases.append({"probabilities": rows, "content_free": empty, "single": free == 1})
    return cases


def normalized(row):
    return [x / sum(row) for x in row]


def drive_calibration(answer, case):
    kind = torch.float32 if case["single"] else torch.float64
    return answer(*(torch.tensor(case[name], dtype=kind) for name in ("probabilities", "content_free")))


def expect_calibration(case):
    rows, empty = case["probabilities"], case["content_free"]

    def weighted(bias, operation=lambda p, b: p / b):
        return [[operation(p, b) for p, b in zip(row, bias)] for row in rows]

    def each(table):
        return [normalized(row) for row in table]

    def product(p, b):
        return p * b

    bias = [statistics.mean(column) for column in zip(*empty)]
    one_by_one = [each([p / b for p, b in zip(row, single)] for single in empty) for row in rows]
    averaged = [[statistics.mean(column) for column in zip(*results)] for results in one_by_one]
    inverse = [statistics.mean(1 / x for x in column) for column in zip(*empty)]
    test_mean = [statistics.mean(column) for column in zip(*rows)]
    unnormalized = weighted(bias)
    columns, expected = [sum(column) for column in zip(*unnormalized)], each(unnormalized)
    difference = weighted(bias, lambda p, b: p - b)
    return expected, {
        "not normalised again: after the division a row no longer sums to 1": unnormalized,
        "the bias is subtracted: W is diagonal with 1 / p_cf, so divide": difference,
        "the bias is subtracted and the rest shifted to sum to 1: W is diagonal with 1 / p_cf, so divide":
            [[x + 1 / len(row) for x in row] for row in difference],
        "the bias is subtracted and what is negative cut off: W is diagonal with 1 / p_cf, so divide":
            Alternatives([[max(x, 0) for x in row] for row in difference],
                         each([max(x, 0) + 1e-9 for x in row] for row in difference)),
        "multiplied by p_cf, which doubles the bias: W is diagonal with 1 / p_cf": each(weighted(bias, product)),
        "multiplied by p_cf, and not normalised: W is diagonal with 1 / p_cf": weighted(bias, product),
        "each content-free input calibrates on its own and the results are averaged: average p_cf first": averaged,
        "the average of 1 / p_cf: average the probabilities of the content-free inputs, then invert":
            each(weighted(inverse, product)),
        "divided by the mean prediction on the test inputs: the bias is what content-free inputs get":
            each(weighted(test_mean)),
        "only the first content-free input is used: average over all of them": each(weighted(empty[0])),
        "only the last content-free input is used: average over all of them": each(weighted(empty[-1])),
        "normalised over the inputs: the probabilities of one input, over its labels, sum to 1":
            [[x / total for x, total in zip(row, columns)] for row in unnormalized],
        "normalised over everything: every row sums to 1": [[x / sum(columns) for x in row] for row in unnormalized],
        "softmax on probabilities: they are no logits, so divide by their sum":
            each([math.exp(x) for x in row] for row in unnormalized),
        "these are labels: return the calibrated probabilities": [row.index(max(row)) for row in expected],
    }  # fmt: skip


# 2.5 The pull of a label ---------------------------------------------------------------------------------------------


def label_pull(labels, shares):
    """The package's answer: for each place, mean share where its label is positive minus where it is negative."""
    return [
        statistics.mean(share for row, share in zip(labels, shares) if row[place])
        - statistics.mean(share for row, share in zip(labels, shares) if not row[place])
        for place in range(len(labels[0]))
    ]


def pull_cases(rng):
    """A place that pulls the other way; groups that differ in size; last a hand case: the pulls are 0.1 and 0.4."""
    every = [[first, second] for first in (0, 1) for second in (0, 1)]
    cases = [{"labels": [[1], [0], [0]], "shares": [round(x + rng.random() / 3, 3) for x in (0, 0.4, 0.6)]}]
    for _ in range(2):
        labels = [[0, 0, 0], [1, 1, 1], [1, 0, 1], *([rng.randrange(2) for _ in range(3)] for _ in range(6))]
        shares = [round(0.3 - 0.15 * a + 0.15 * b + 0.4 * c + rng.uniform(0, 0.1), 6) for a, b, c in labels]
        cases.append({"labels": labels, "shares": shares})
    return [*cases, {"labels": every, "shares": [round(0.3 + 0.1 * a + 0.4 * b, 6) for a, b in every]}]


def expect_pull(case):
    labels, shares = case["labels"], case["shares"]
    places = range(len(labels[0]))

    def group(positive):
        """The shares of each place's group."""
        return [[share for row, share in zip(labels, shares) if row[place] == positive] for place in places]

    def less(first, second):
        return [a - b for a, b in zip(first, second)]

    positive, negative = ([statistics.mean(some) for some in group(label)] for label in (1, 0))
    overall, expected = statistics.mean(shares), less(positive, negative)
    sums = less(map(sum, group(1)), map(sum, group(0)))
    return expected, {
        "only contexts with a positive label are used: subtract the mean of those with a negative one": positive,
        "only the contexts with a negative label are used": negative,
        "compared with the mean over all contexts: compare with those whose label there is negative":
            less(positive, [overall] * len(places)),
        "the mean over all contexts, less that of those with a negative label: compare with the positive ones":
            less([overall] * len(places), negative),
        "sums, not means: the two groups may differ in size": sums,
        "divided by all contexts: each group has a mean of its own": [x / len(shares) for x in sums],
        "medians, not means": less(*([statistics.median(some) for some in group(label)] for label in (1, 0))),
        "the ratio of the two means: take their difference": [p / n for p, n in zip(positive, negative)],
        "the two means are added: take their difference": less(positive, [-x for x in negative]),
        "this is the effect of how many positive labels there are: take the places one by one":
            [statistics.mean(expected)] * len(expected),
        "only the last place is returned: one number per place": expected[-1],
        "only the last place is returned, in a list: one number per place": expected[-1:],
        "only the first place is returned: one number per place": Alternatives(expected[0], expected[:1]),
    }  # fmt: skip


def prompt_of(demonstrations, query, template="{input} = {output}", separator="\n"):
    """The package's `few_shot_prompt`, called as the student's."""
    return few_shot_prompt(demonstrations, query, template=template, separator=separator)


EXERCISES = {
    "2.1": Exercise(prompt_cases, drive_prompt, expect_prompt, points=1, reference=prompt_of, remark=remark_prompt,
        signature="few_shot_prompt(demonstrations: list, query: str, template: str, separator: str) -> str"),
    "2.2": Exercise(judging_cases, lambda answer, case: answer(case["continuations"], case["answers"]), expect_judging,
        points=1, reference=judged, signature="judged(continuations: list, answers: list) -> list of bool",
        remark=remark_judging),
    "2.3": Exercise(copying_cases, drive_copying, expect_copying, points=2, reference=copied_label,
        signature="copied_label(demonstrations: list, query: str, kind: dict) -> str", remark=remark_copying),
    "2.4": Exercise(calibration_cases, drive_calibration, expect_calibration, points=2,
        reference=contextual_calibration,
        signature="calibrated(probabilities: float[B C], content_free: float[N C]) -> float[B C]"),
    "2.5": Exercise(pull_cases, lambda answer, case: answer(case["labels"], case["shares"]), expect_pull, points=2,
        reference=label_pull, signature="label_pull(labels: list, shares: list) -> any"),
}  # fmt: skip
