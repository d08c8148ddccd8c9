"""Lesson 02: the few-shot evaluation from prompt to interval; rules, heads and labels; calibration.

The expectations are plain Python on strings and lists, from the definitions; tensors are made in `drive` alone, but for
the heads: there the mistakes are hooks on a model of three layers, built for each case.
"""

import copy
import functools
import itertools
import math
import random
import statistics

import torch

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.lm.attention import output_projections
from ptlearn.lm.attention import silence as package_silence
from ptlearn.lm.models import LanguageModel, build_model, toy_lm
from ptlearn.lm.prompting import contextual_calibration, exact_match, few_shot_prompt, first_line
from ptlearn.statistics import wilson

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


# 2.3 An interval over questions --------------------------------------------------------------------------------------


def over_distinct(queries, scores):
    """The package's answer: Wilson's interval around the mean of the queries' means, n the number of queries."""
    means = [statistics.fmean(some) for some in grouped(queries, scores).values()]
    return tuple(wilson(statistics.fmean(means), len(means)))


def grouped(queries, scores):
    """{query: its scores as numbers}, in the order in which they came up."""
    found = {}
    for query, score in zip(queries, scores):
        found.setdefault(query, []).append(float(score))
    return found


def interval_cases(rng):
    """Verdicts, some queries more often than others; scores between 0 and 1; each query once; all right."""
    names = rng.sample([given for given, _ in FRENCH], 4)
    often = [names[0]] * 5 + [names[1]] * 2 + [names[2]] * 3
    verdicts = [[rng.random() < 0.4 for _ in range(4)] + [True], [False, rng.random() < 0.5],
                [True, rng.random() < 0.5, True]]  # fmt: skip
    mixed = rng.sample(list(zip(often, itertools.chain(*verdicts))), len(often))
    scores = [(name, round(rng.uniform(0.1, 0.9), 3)) for name in rng.choices(names, k=7)]
    pairs = (mixed, scores, [(name, name != names[0]) for name in names], [(name, True) for name in often])
    return [dict(zip(("queries", "scores"), map(list, zip(*some)))) for some in pairs]


def expect_interval(case):
    groups = grouped(case["queries"], case["scores"])
    scores = list(map(float, case["scores"]))
    means = [statistics.fmean(some) for some in groups.values()]
    n, p, attempts = len(means), statistics.fmean(means), len(scores)

    def around(mean=p, count=n, z=1.959964, half=2.0, inner=4.0, scale=True, n=n):
        center = mean + z**2 / (half * count)
        margin = z * math.sqrt(mean * (1 - mean) / count + z**2 / (inner * count**2))
        low, high = ((center + sign * margin) / (1 + z**2 / count if scale else 1) for sign in (-1, 1))
        return [mean, low, high, n]

    def normal(margin, n=n):
        return [p, p - margin, p + margin, n]

    mean, low, high, _ = around()
    deviation = statistics.stdev(means) if len(set(means)) > 1 else 0.0
    return around(), {
        "every attempt counts as a question: the interval is too narrow, so first average over each query's attempts":
            around(statistics.fmean(scores), attempts, n=attempts),
        "n counts the different queries, but the mean is over attempts: average each query first":
            around(statistics.fmean(scores)),
        "the mean is over queries, but n counts the attempts: count the different queries":
            around(p, attempts, n=attempts),
        "the interval is that of all attempts, although n counts the queries": around(p, attempts),
        "the last score of each query replaces the others: average them":
            around(statistics.fmean(some[-1] for some in groups.values())),
        "only the first score of each query is used: average them all":
            around(statistics.fmean(some[0] for some in groups.values())),
        "a query counts as right if any attempt is: average its attempts":
            around(statistics.fmean(max(some) for some in groups.values())),
        "a query counts as right only if every attempt is: average its attempts":
            around(statistics.fmean(min(some) for some in groups.values())),
        "the plain interval p ± 1.96 √(p(1 − p) / n) leaves [0, 1]: use Wilson's":
            normal(1.959964 * math.sqrt(mean * (1 - mean) / n)),
        "mean ± 1.96 standard errors leaves [0, 1]: use Wilson's": normal(1.959964 * deviation / math.sqrt(n)),
        "not divided by 1 + z² / n": around(scale=False),
        "the centre has z² / 2n, not z² / n": around(half=1.0),
        "under the root stands z² / 4n², not z² / 4n": around(inner=4.0 / n),
        "z = 1.96 for 95 %, not 1": around(z=1.0),
        "z = 1.96 for 95 % on both sides, not 1.645": around(z=1.644854),
        "z = 1.96 for 95 %, not 2.58": around(z=2.575829),
        "the first number is the mean p, not the middle of the interval": [(low + high) / 2, low, high, n],
        "low and high are exchanged": [mean, high, low, n],
        "these are distances from the mean: return the ends low and high": [mean, mean - low, high - mean, n],
        "n comes last: (mean, low, high, n)": [n, mean, low, high],
        "in hundredths: return shares of 1": [100 * mean, 100 * low, 100 * high, n],
    }  # fmt: skip


# 2.4 The few-shot evaluation -----------------------------------------------------------------------------------------


def curve_by(write, draw, shots, count, *, cut=lambda shown, k: shown[:k], size=lambda shots, k: max(shots),
             again=False, one_list=False, end="", judge=judged, names=list):  # fmt: skip
    """The evaluation as asked for, or with one of the usual mistakes."""
    episodes, curve = [], {}
    for k in shots:
        if again or not episodes:
            episodes = [draw(size(shots, k)) for _ in range(count)]
        shown = [cut(episodes[0][0] if one_list else demonstrations, k) for demonstrations, _ in episodes]
        queries, answers = zip(*(asked for _, asked in episodes))
        texts = write([few_shot_prompt(some, query) + end for some, query in zip(shown, queries)])
        curve[k] = over_distinct(names(queries), judge(texts, answers))
    return curve


def few_shot_curve(write, draw, shots, count):
    """The package's answer."""
    return curve_by(write, draw, shots, count)


def curve_cases(rng):
    """Numbers out of order with 0 among them, and without; a single one, none but 0; queries that come back."""
    settings = (([2, 0, 3, 1], 5), ([1, 4, 2], 6), ([3], 4), ([0], 3))
    return [{"seed": rng.randrange(10**6), "shots": shots, "count": count} for shots, count in settings]


def an_episode(case, number, shots):
    """The number-th episode of a case: demonstrations from a pool, and one of three queries."""
    rng = random.Random(f"{case['seed']}:{number}")
    query = FRENCH[rng.randrange(3)]
    return [(f"mot{place}", f"word{place}") for place in rng.sample(range(40), shots)], tuple(query)


def a_continuation(prompt):
    """Right or wrong, as the prompt decides, and the next item of the list behind it."""
    query = prompt.rsplit("\n", 1)[-1].removesuffix("=").strip()
    right = random.Random(prompt).random() < 0.6
    return f" {dict(FRENCH).get(query) if right else 'nothing'}\nmot = word"


def drive_curve(answer, case):
    """The curve; what `draw` was asked for; the prompts of all calls of `write`, and how many each had."""
    prompts, sizes, drawn = [], [], []

    def write(some):
        prompts.extend(some)
        sizes.append(len(some))
        return [a_continuation(prompt) for prompt in some]

    def draw(shots):
        drawn.append(shots)
        return an_episode(case, len(drawn), shots)

    curve = answer(write, draw, list(case["shots"]), case["count"])
    rows = sorted(([shots, found] for shots, found in curve.items()), key=lambda row: str(row[0]))
    return {"drawn": drawn, "calls": sizes, "prompts": sorted(prompts), "curve": rows}


def expect_curve(case):
    """What is right, with a call of `write` per number or one for all, and what one mistake gives."""

    def given(**mistake):
        return drive_curve(lambda *asked: curve_by(*asked, **mistake), case)

    right, count = given(), case["count"]
    every = count * len(case["shots"])
    return Alternatives(right, right | {"calls": [every]}), {
        "new episodes for every number: the numbers would answer different questions, so draw before the loop":
            given(again=True),
        "episodes with k demonstrations are drawn for every number: draw once with the largest number, and cut":
            given(again=True, size=lambda shots, k: k),
        "episodes are drawn with the last number in shots: the largest may stand elsewhere":
            given(size=lambda shots, k: shots[-1]),
        "episodes are drawn with the first number in shots: the largest may stand elsewhere":
            given(size=lambda shots, k: shots[0]),
        "the last k demonstrations are shown: show the first k": given(cut=lambda shown, k: shown[len(shown) - k :]),
        "[-k:] takes the last k, and all for k = 0: show the first k": given(cut=lambda shown, k: shown[-k:]),
        "all demonstrations are shown whatever the number: cut to the first k": given(cut=lambda shown, k: shown),
        "one demonstration too many: [:k] are the first k": given(cut=lambda shown, k: shown[: k + 1]),
        "the first demonstration is left out: [:k] are the first k": given(cut=lambda shown, k: shown[1 : k + 1]),
        "no demonstration is shown": given(cut=lambda shown, k: []),
        "only the k-th demonstration is shown": given(cut=lambda shown, k: shown[k - 1 : k]),
        "the demonstrations are shown in reverse order": given(cut=lambda shown, k: shown[:k][::-1]),
        "every query gets the demonstrations of the first episode: each has a hidden rule of its own":
            given(one_list=True),
        "the prompt ends in a space: use few_shot_prompt": given(end=" "),
        "the prompt ends in a line break: use few_shot_prompt": given(end="\n"),
        ("drawn", "one episode alone: count of them are asked for"): right["drawn"][:1],
        ("drawn", "one episode too many"): right["drawn"] + right["drawn"][:1],
        ("calls", "write is called for one prompt at a time, which is slow: hand it all prompts of a number"):
            [1] * every,
        ("curve", "attempts are counted, not questions: over_distinct(queries, verdicts)"):
            given(names=lambda queries: range(len(queries)))["curve"],
        ("curve", "nothing is right: judged(continuations, answers) compares first lines with the answers"):
            given(judge=lambda texts, answers: [False for _ in texts])["curve"],
        ("curve", "each number has its share alone: give (mean, low, high, n)"):
            [[shots, found[0]] for shots, found in right["curve"]],
    }  # fmt: skip


# 2.5 Bayes over rules ------------------------------------------------------------------------------------------------

ARITHMETIC = {"sum": lambda a, b: a + b, "difference": lambda a, b: a - b, "larger": max, "smaller": min}


def rule_of(name):
    """The rule as a function from text to text: '8 3' -> '11'."""
    return lambda text: str(ARITHMETIC[name](*map(int, text.split())))


def rule_posterior(rules, prior, demonstrations):
    """The package's answer."""
    fitting = {name for name, rule in rules.items() if all(rule(given) == wanted for given, wanted in demonstrations)}
    weights = {name: prior[name] * (name in fitting or not fitting) for name in rules}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def posterior_cases(rng):
    """One and two lines that fit two rules, a deciding one first, last, in between; none; lines that no rule fits."""
    twice, other = ([f"{2 * x} {x}", f"{x}"] for x in rng.sample(range(2, 9), 2))
    low = rng.randint(2, 8)
    high = 2 * low + rng.randint(1, 5)
    clear = [f"{high} {low}", f"{low}"]
    sums = [f"{high} {low}", f"{high + low}"]
    lines = ([twice], [twice, other], [twice, clear], [clear, other], [other, clear, twice], [], [sums, clear],
             [["9 4", "36"]])  # fmt: skip
    prior = [rng.randint(1, 9) for _ in range(4)]
    return [{"prior": dict(zip(ARITHMETIC, prior)), "demonstrations": some} for some in lines]


def drive_posterior(answer, case):
    shown = [tuple(pair) for pair in case["demonstrations"]]
    return answer({name: rule_of(name) for name in ARITHMETIC}, dict(case["prior"]), shown)


def expect_posterior(case):
    prior, shown = case["prior"], case["demonstrations"]
    fits = {name: [rule_of(name)(given) == wanted for given, wanted in shown] for name in ARITHMETIC}
    nothing = not any(all(found) for found in fits.values())

    def scaled(weights):
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    def posterior(likelihood=all, prior=prior):
        weights = {name: float(likelihood(found)) * prior[name] for name, found in fits.items()}
        return scaled(weights if any(weights.values()) else prior)

    right = posterior()
    flat = dict.fromkeys(prior, 1)
    mistakes = {
        "not normalised: divide by the sum of the weights":
            {name: float(prior[name] * (nothing or all(found))) for name, found in fits.items()},
        "these are the likelihoods, 0 or 1: multiply by the prior and normalise":
            {name: float(all(found)) for name, found in fits.items()},
        "the prior is ignored: the rules that fit are not equally probable":
            Alternatives(posterior(prior=flat), scaled(prior) if nothing else posterior(prior=flat)),
        "a rule fits if any demonstration does: it has to give all of them":
            posterior(lambda found: any(found) or not found),
        "only the last demonstration is looked at": posterior(lambda found: all(found[-1:])),
        "only the first demonstration is looked at": posterior(lambda found: all(found[:1])),
        "the share of demonstrations that fit is no likelihood: one miss rules a rule out":
            posterior(lambda found: statistics.fmean(found or [1])),
        "turned round: rules that miss a demonstration are ruled out, not those that fit":
            posterior(lambda found: not all(found)),
        "the demonstrations are ignored: this is the prior": scaled(prior),
        "all belief on one rule: share it among those that fit, by the prior":
            {name: float(name == max(right, key=right.get)) for name in right},
        "rules that are ruled out are missing: give them 0":
            {name: share for name, share in right.items() if share or nothing},
    }  # fmt: skip
    for words, wrong in (
        ("0 for all is no distribution, give the prior back", dict.fromkeys(prior, 0.0)),
        ("not all rules alike, give the prior back", scaled(flat)),
        ("the prior has to be normalised too", {name: float(x) for name, x in prior.items()}),
    ):
        mistakes[f"where no rule fits: {words}"] = wrong if nothing else right
    return right, mistakes


# 2.6 Bayes' prediction -----------------------------------------------------------------------------------------------


def predicted_outputs(rules, posterior, query):
    """The package's answer."""
    found = {}
    for name, rule in rules.items():
        found[rule(query)] = found.get(rule(query), 0.0) + posterior[name]
    return found


def prediction_cases(rng):
    """Two rules that agree on an output, in a line with others; none that do; a rule with probability 0."""
    low = rng.randint(2, 8)
    cases = []
    for query, zeros in ((f"{2 * low} {low}", 0), (f"{2 * low + 1} {low}", 1), (f"{2 * low} {low}", 2)):
        weights = [0] * zeros + [rng.randint(1, 9) for _ in range(4 - zeros)]
        shares = [x / sum(weights) for x in rng.sample(weights, 4)]
        cases.append({"posterior": dict(zip(ARITHMETIC, shares)), "query": query})
    return cases


def drive_prediction(answer, case):
    return answer({name: rule_of(name) for name in ARITHMETIC}, dict(case["posterior"]), case["query"])


def expect_prediction(case):
    posterior, query = case["posterior"], case["query"]
    shares = {}
    for name, share in posterior.items():
        shares.setdefault(rule_of(name)(query), []).append(share)
    right = {output: sum(some) for output, some in shares.items()}
    best = max(posterior, key=posterior.get)
    return right, {
        "a rule replaces another one with the same output: add their probabilities":
            {output: some[-1] for output, some in shares.items()},
        "only the first of the rules with an output counts: add their probabilities":
            {output: some[0] for output, some in shares.items()},
        "rules with the same output are averaged: add their probabilities":
            {output: statistics.fmean(some) for output, some in shares.items()},
        "the most probable of the rules with an output counts: add their probabilities":
            {output: max(some) for output, some in shares.items()},
        "the posterior is ignored: each rule weighs as much as its probability":
            {output: len(some) / len(posterior) for output, some in shares.items()},
        "rules are counted: add their probabilities": {output: len(some) for output, some in shares.items()},
        "the most probable rule alone decides: sum over all rules":
            Alternatives({rule_of(best)(query): 1.0}, {rule_of(best)(query): posterior[best]},
                         {output: float(output == rule_of(best)(query)) for output in shares}),
        "outputs of probability 0 are missing: every output that some rule gives is there":
            {output: share for output, share in right.items() if share},
        "these are the rules: {output: probability}": posterior,
        "these are the rules' outputs: {output: probability}": {name: rule_of(name)(query) for name in posterior},
        "the probabilities of an output in a list: add them": shares,
    }  # fmt: skip


# 2.7 Copying by kind -------------------------------------------------------------------------------------------------


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


# 2.8 Attention to the matching label ---------------------------------------------------------------------------------


def label_attention(weights, spans, same):
    """The package's answer: what the last position's attention sums to on labels that fit, and on the others."""
    marks = torch.zeros(2, weights.shape[-1], dtype=weights.dtype)
    for (start, stop), fits in zip(spans, same):
        marks[0 if fits else 1, start:stop] = 1
    return tuple(weights[:, :, -1] @ mark for mark in marks)


def attention_cases(rng):
    """Labels of one to three tokens: some fit, all, none."""
    cases = []
    for layers, heads, same in ((2, 3, [True, False, True, False]), (1, 2, [False, True, True]), (2, 1, [True, True]),
                                (1, 1, [False])):  # fmt: skip
        spans, place = [], 1
        for _ in same:
            start = place + rng.randint(1, 2)
            place = start + rng.randint(1, 3)
            spans.append([start, place])
        size = place + 2
        weights = [[[attending(rng, size, q) for q in range(size)] for _ in range(heads)] for _ in range(layers)]
        cases.append({"weights": weights, "spans": spans, "same": same})
    return cases


def attending(rng, size, q):
    """A row of attention: positive up to q, nothing behind it, sum 1."""
    row = [rng.random() ** 2 for _ in range(q + 1)]
    return [x / sum(row) for x in row] + [0.0] * (size - q - 1)


def expect_attention(case):
    weights, spans, same = case["weights"], case["spans"], case["same"]

    def table(of_head):
        return [[of_head(head) for head in layer] for layer in weights]

    def summed(reading=lambda head: head[-1], total=sum, fitting=None, tokens=lambda start, stop: (start, stop)):
        """The two tables, of the row that `reading` takes from a head (T, T) and the labels' tokens."""
        chosen = same if fitting is None else fitting
        groups = [[tokens(*span) for span, fits in zip(spans, chosen) if fits is wanted] for wanted in (True, False)]
        return [table(lambda head, some=some: float(sum(total(reading(head)[slice(*span)]) for span in some)))
                for some in groups]  # fmt: skip

    right = summed()
    count = [max(1, same.count(wanted)) for wanted in (True, False)]
    places = [place for place, fits in enumerate(same) if fits]
    both = summed(fitting=[True] * len(same))[0]

    def alone(place):
        """Of the labels that fit, the one at that place."""
        return summed(fitting=[None if fits and index != place else fits for index, fits in enumerate(same)])

    size = len(weights[0][0])
    return right, {
        "where the last position looks is its row, weights[:, :, -1]: not the first row, not the last column":
            summed(lambda head: head[0]),
        "the position before the last is taken: the next token is predicted at the last": summed(lambda head: head[-2]),
        "summed over all positions that look: only the last one predicts":
            summed(lambda head: [sum(column) for column in zip(*head)]),
        "averaged over all positions that look: only the last one predicts":
            summed(lambda head: [sum(column) / size for column in zip(*head)]),
        "the token behind each label is counted too: stop is not in [start, stop)":
            summed(tokens=lambda start, stop: (start, stop + 1)),
        "the token before each label is counted too: a label is [start, stop)":
            summed(tokens=lambda start, stop: (start - 1, stop)),
        "only the first token of each label: sum over [start, stop)":
            summed(tokens=lambda start, stop: (start, start + 1)),
        "only the last token of each label: sum over [start, stop)":
            summed(tokens=lambda start, stop: (stop - 1, stop)),
        "the last token of each label is missing: [start, stop) is start:stop":
            summed(tokens=lambda start, stop: (start, stop - 1)),
        "averaged over the tokens of a label: sum": summed(total=statistics.fmean),
        "the largest weight of each label: sum its tokens": summed(total=max),
        "averaged over the labels: sum": [[[x / n for x in row] for row in rows] for rows, n in zip(right, count)],
        "the two are exchanged: first the labels that fit": right[::-1],
        "the others are all that is not on a label that fits: take labels alone":
            [right[0], [[1 - x for x in row] for row in right[0]]],
        "the second is the sum over all labels: leave out those that fit": [right[0], both],
        "only the last label that fits: sum over all of them": alone(places[-1] if places else None),
        "only the first label that fits: sum over all of them": alone(places[0] if places else None),
        "`same` is ignored": [both, both],
        "the difference: return both sums": [[x - y for x, y in zip(*rows)] for rows in zip(*right)],
    }  # fmt: skip


# 2.9 Heads switched off ----------------------------------------------------------------------------------------------

LAYERS, HEADS, SIZE = 3, 4, 4


@functools.cache
def small_model(seed):
    """Three layers of four heads with four columns each, over six words, in float64."""
    toy = toy_lm(["end", "a", "b", "c", "d", "e"], width=HEADS * SIZE, layers=LAYERS)
    config = toy.model.config
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": SIZE}
    config.update(heads | {"initializer_range": 0.6})
    torch.manual_seed(seed)
    return LanguageModel(build_model(config, dtype=torch.float64).eval(), toy.tokenizer, "small")


def silence_cases(rng):
    """Two heads of one layer and one of another; one head; none."""
    one, other = rng.sample([[layer, head] for layer in range(LAYERS) for head in range(1, HEADS)], 2)
    tokens = [[rng.randrange(6) for _ in range(5)] for _ in range(2)]
    sets = ([[one[0], 0], other, one], [one], [])
    return [{"seed": rng.randrange(10**6), "heads": heads, "tokens": tokens} for heads in sets]


@torch.no_grad()
def drive_silence(answer, case):
    """What a model gives under the hooks, and when they are gone; a copy, whose weights an answer may spoil."""
    shared = small_model(case["seed"])
    lm = LanguageModel(copy.deepcopy(shared.model), shared.tokenizer, shared.name)
    silent = under(answer, lm, case["heads"], case["tokens"])
    return {"silent": silent, "back": lm(torch.tensor(case["tokens"]))}


@torch.no_grad()
def under(answer, lm, heads, tokens):
    """The logits while an answer's hooks are on."""
    handles = answer(lm, [tuple(head) for head in heads])
    logits = lm(torch.tensor(tokens))
    for handle in handles:
        handle.remove()
    return logits.tolist()


def hooked(cut, before=True):
    """An answer that calls cut(mixed, head) for each head, on a copy of what the projection reads or gives."""

    def silence(lm, heads):
        handles = []
        for layer, head in heads:

            def hook(module, inputs, output=None, head=head):
                mixed = (inputs[0] if before else output).clone()
                cut(mixed, head)
                return (mixed,) if before else mixed

            module = output_projections(lm)[layer]
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(hook))
        return handles

    return silence


def columns_of(head):
    return slice(head * SIZE, (head + 1) * SIZE)


def zero(mixed, head):
    mixed[..., columns_of(head)] = 0


def keep_alone(mixed, head):
    kept = mixed[..., columns_of(head)].clone()
    mixed.zero_()
    mixed[..., columns_of(head)] = kept


def setting(where):
    """cut(mixed, head) that sets the places zero that where(head) gives, along positions and columns."""
    return lambda mixed, head: mixed.__setitem__(where(head), 0)


def expect_silence(case):
    lm, heads = small_model(case["seed"]), case["heads"]

    def given(answer, heads=heads):
        return under(answer, lm, heads, case["tokens"])

    def cutting(place):
        return given(hooked(setting(place)))

    right, whole = given(hooked(zero)), given(hooked(zero), [])
    if not heads:
        return {"silent": whole, "back": whole}, {}
    others = [given(hooked(zero), heads[:-1]), given(hooked(zero), heads[1:])]
    turned = [[head, layer] for layer, head in heads]
    mistakes = {
        "no head is silent: the hook has to return the changed tuple, and to be registered": whole,
        "all hooks silence the last head: a function made in a loop sees the loop's variable at its last value":
            given(hooked(zero), [[layer, heads[-1][1]] for layer, _ in heads]),
        "only the last of the heads is silent": given(hooked(zero), heads[-1:]),
        "only the first of the heads is silent": given(hooked(zero), heads[:1]),
        "whole layers are silent: a head owns the columns [h s, (h + 1) s)":
            cutting(lambda head: (..., slice(None))),
        "the head is kept and the others are silent": given(hooked(keep_alone)),
        "every H-th column is set to zero: the heads stand side by side, one block each":
            cutting(lambda head: (..., slice(head, None, HEADS))),
        "one column is set to zero: a head owns s = d / H of them": cutting(lambda head: (..., head)),
        "the block starts at column h: it starts at h s":
            cutting(lambda head: (..., slice(head, head + SIZE))),
        "the blocks from 0 to the head's own are set to zero: it starts at h s":
            cutting(lambda head: (..., slice(0, (head + 1) * SIZE))),
        "all blocks from the head's on are set to zero: it ends at (h + 1) s":
            cutting(lambda head: (..., slice(head * SIZE, None))),
        "the head before is silent: heads are counted from 0": cutting(lambda head: (..., columns_of(head - 1))),
        "the head behind is silent: heads are counted from 0": cutting(lambda head: (..., columns_of(head + 1))),
        "the head is silent at the last position alone: later layers read all positions":
            cutting(lambda head: (slice(None), -1, columns_of(head))),
        "the head is silent in the first text of the batch alone": cutting(lambda head: (0, ..., columns_of(head))),
        "what the projection gives is cut, where the heads are mixed already: cut what goes in, by a pre-hook":
            given(hooked(zero, before=False)),
        "the layer before is silenced: layers are counted from 0":
            given(hooked(zero), [[(layer - 1) % LAYERS, head] for layer, head in heads]),
    }  # fmt: skip
    if all(head < LAYERS for _, head in heads):
        mistakes["layer and head are exchanged: a pair is (layer, head)"] = given(hooked(zero), turned)
    found = {("silent", words): value for words, value in mistakes.items()}
    found["back", "not all heads come back: return every handle, and change no weight"] = Alternatives(
        right, *others)  # fmt: skip
    return {"silent": right, "back": whole}, found


# 2.10 Labels turned round --------------------------------------------------------------------------------------------


def relabelled(demonstrations, how, labels, rng):
    """The package's answer."""
    labels = list(labels)
    changed = {"right": lambda label: label, "random": lambda label: rng.choice(labels),
               "wrong": lambda label: labels[1 - labels.index(label)]}  # fmt: skip
    return [(text, changed[how](label)) for text, label in demonstrations]


def relabelling_cases(rng):
    """Labels of words, of nonsense; more of one than of the other."""
    cases = []
    for labels in (["negative", "positive"], rng.sample(NONSENSE, 2)):
        given = [[f"{text} ({place})", labels[rng.random() < 0.6]] for place, (text, _) in enumerate(REVIEWS * 3)]
        cases.append({"demonstrations": given, "labels": labels, "seed": rng.randrange(10**6)})
    return cases


def drive_relabelling(answer, case):
    """All three ways, each with a generator of the same seed."""
    given = [tuple(pair) for pair in case["demonstrations"]]
    return {how: answer(list(given), how, tuple(case["labels"]), random.Random(case["seed"]))
            for how in ("right", "wrong", "random")}  # fmt: skip


def expect_relabelling(case):
    given, (one, other), seed = case["demonstrations"], case["labels"], case["seed"]
    turned = {one: other, other: one}
    texts, old = [text for text, _ in given], [label for _, label in given]

    def paired(labels):
        return [[text, label] for text, label in zip(texts, labels)]

    def drawn(pool, texts=texts):
        rng = random.Random(seed)
        return [rng.choice(pool) for _ in texts]

    right = {"right": given, "wrong": paired(turned[label] for label in old), "random": paired(drawn([one, other]))}
    one_draw = drawn([one, other])[0]
    shuffled = list(old)
    random.Random(seed).shuffle(shuffled)
    coins = random.Random(seed)
    flipped = [turned[label] if coins.random() < 0.5 else label for label in old]
    return right, {
        ("wrong", "the labels stay as they are: each becomes the other one"): given,
        ("wrong", "every label becomes the first one: each becomes the other one"): paired([one] * len(old)),
        ("wrong", "every label becomes the second one: each becomes the other one"): paired([other] * len(old)),
        ("wrong", "the order of the labels is turned, not the labels themselves"): paired(old[::-1]),
        ("random", "the labels stay as they are: draw each anew"): given,
        ("random", "every label is turned round: draw each by rng.choice(labels)"): right["wrong"],
        ("random", "one draw for all: draw each label on its own"): paired([one_draw] * len(old)),
        ("random", "the labels are shuffled, so as many of each remain: draw each by rng.choice(labels)"):
            paired(shuffled),
        ("random", "labels are drawn from those of the demonstrations: both labels are equally probable"):
            paired(drawn(old)),
        ("random", "each label is turned round with one half: draw each by rng.choice(labels), one call each"):
            paired(flipped),
        ("right", "the labels are turned round: how is 'right'"): right["wrong"],
        ("right", "the labels are drawn: how is 'right'"): right["random"],
        **{(how, "the labels alone: return pairs (text, label)"): [label for _, label in right[how]] for how in right},
        **{(how, "pairs are (text, label)"): [pair[::-1] for pair in right[how]] for how in right},
    }  # fmt: skip


def remark_relabelling(case, data):
    """Another way of drawing."""
    if not isinstance(data, dict) or not isinstance(data.get("random"), list):
        return None
    right, _ = expect_relabelling(case)
    if data["right"] == right["right"] and data["wrong"] == right["wrong"]:
        return "random: these are not the labels that rng.choice(labels) gives, called once for each demonstration"
    return None


# 2.11 The best and the worst order -----------------------------------------------------------------------------------


def order_gap(hits, chosen):
    """The package's answer: picked on some reviews, compared on the others."""
    picking, fresh = hits[:, chosen].mean(1), hits[:, ~chosen].mean(1)
    return (fresh[picking.argmax()] - fresh[picking.argmin()]).item()


def gap_cases(rng):
    """Orders whose accuracies differ on the picking half, and vary on the other; halves of several sizes."""
    cases = []
    for orders, picking, others in ((4, 6, 4), (3, 4, 8), (5, 5, 5)):
        rights = rng.sample(range(picking + 1), orders) if picking >= orders else range(orders)
        rows = [[rng.sample([1.0] * right + [0.0] * (picking - right), picking),
                 [float(rng.random() < 0.5) for _ in range(others)]] for right in rights]  # fmt: skip
        chosen = rng.sample([True] * picking + [False] * others, picking + others)
        hits = []
        for row in rows:
            left = {True: iter(row[0]), False: iter(row[1])}
            hits.append([next(left[mark]) for mark in chosen])
        cases.append({"hits": hits, "chosen": chosen})
    return cases


def expect_gap(case):
    hits, chosen = case["hits"], case["chosen"]

    def accuracies(wanted):
        return [statistics.fmean(x for x, mark in zip(row, chosen) if mark in wanted) for row in hits]

    def gap(picking, fresh, best=max, worst=min):
        return fresh[picking.index(best(picking))] - fresh[picking.index(worst(picking))]

    picking, fresh, every = accuracies([True]), accuracies([False]), accuracies([True, False])
    others = chosen.count(False)
    return gap(picking, fresh), {
        "picked and compared on the same reviews, where the best is high by chance too: compare on the others":
            gap(picking, picking),
        "picked and compared on the other reviews: pick on the chosen ones": gap(fresh, fresh),
        "the halves are exchanged: pick on the chosen reviews, compare on the others": gap(fresh, picking),
        "picked and compared on all reviews: keep the others apart": gap(every, every),
        "picked on all reviews: the others may have no say": gap(every, fresh),
        "compared on all reviews: those that were picked on count again": gap(picking, every),
        "the worst less the best: turn it round": -gap(picking, fresh),
        "the accuracy of the best order alone: subtract that of the worst": fresh[picking.index(max(picking))],
        "the accuracy of the worst order alone": fresh[picking.index(min(picking))],
        "the best order less the mean of all: less the worst":
            fresh[picking.index(max(picking))] - statistics.fmean(fresh),
        "numbers of reviews, not accuracies: take means": gap(picking, fresh) * others,
        "the first and the last order are compared: pick the best and the worst": fresh[0] - fresh[-1],
        "in points of a hundred: the difference of two accuracies": 100 * gap(picking, fresh),
    }  # fmt: skip


# 2.12 The pull of a label --------------------------------------------------------------------------------------------


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


# 2.13 Contextual calibration -----------------------------------------------------------------------------------------


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


def prompt_of(demonstrations, query, template="{input} = {output}", separator="\n"):
    """The package's `few_shot_prompt`, called as the student's."""
    return few_shot_prompt(demonstrations, query, template=template, separator=separator)


EXERCISES = {
    "2.1": Exercise(prompt_cases, drive_prompt, expect_prompt, points=1, reference=prompt_of, remark=remark_prompt,
        signature="few_shot_prompt(demonstrations: list, query: str, template: str, separator: str) -> str"),
    "2.2": Exercise(judging_cases, lambda answer, case: answer(case["continuations"], case["answers"]), expect_judging,
        points=1, reference=judged, signature="judged(continuations: list, answers: list) -> list of bool",
        remark=remark_judging),
    "2.3": Exercise(interval_cases, None, expect_interval, points=2, reference=over_distinct,
        signature="over_distinct(queries: list, scores: list) -> (number, number, number, int)"),
    "2.4": Exercise(curve_cases, drive_curve, expect_curve, points=3, reference=few_shot_curve,
        signature="few_shot_curve(write: function, draw: function, shots: list, count: int) -> dict"),
    "2.5": Exercise(posterior_cases, drive_posterior, expect_posterior, points=2, reference=rule_posterior,
        signature="rule_posterior(rules: dict, prior: dict, demonstrations: list) -> dict"),
    "2.6": Exercise(prediction_cases, drive_prediction, expect_prediction, points=1, reference=predicted_outputs,
        signature="predicted_outputs(rules: dict, posterior: dict, query: str) -> dict"),
    "2.7": Exercise(copying_cases, drive_copying, expect_copying, points=2, reference=copied_label,
        signature="copied_label(demonstrations: list, query: str, kind: dict) -> str", remark=remark_copying),
    "2.8": Exercise(attention_cases, None, expect_attention, points=2, reference=label_attention,
        signature="label_attention(weights: float[L H T T], spans: list, same: list) -> (float[L H], float[L H])"),
    "2.9": Exercise(silence_cases, drive_silence, expect_silence, points=3, reference=package_silence,
        signature="silence(lm: any, heads: list) -> list"),
    "2.10": Exercise(relabelling_cases, drive_relabelling, expect_relabelling, points=1, reference=relabelled,
        signature="relabelled(demonstrations: list, how: str, labels: any, rng: any) -> list",
        remark=remark_relabelling),
    "2.11": Exercise(gap_cases, None, expect_gap, points=2, reference=order_gap,
        signature="order_gap(hits: float[N T], chosen: bool[T]) -> number"),
    "2.12": Exercise(pull_cases, lambda answer, case: answer(case["labels"], case["shares"]), expect_pull, points=2,
        reference=label_pull, signature="label_pull(labels: list, shares: list) -> any"),
    "2.13": Exercise(calibration_cases, drive_calibration, expect_calibration, points=2,
        reference=contextual_calibration,
        signature="calibrated(probabilities: float[B C], content_free: float[N C]) -> float[B C]"),
}  # fmt: skip
