"""Checks of lesson 01, on tiny inputs and without a model: a cloze prompt, a score per token, a verbalizer, ROUGE-L."""

import itertools
import math

import torch

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.pocket import corpus, relations

# 1.1: from a statement to a prompt -----------------------------------------------------------------------------------


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


# 1.2: a choice, scored per token -------------------------------------------------------------------------------------


def score_per_token(logprobs, prompt_length):
    choice = logprobs[prompt_length:]
    return sum(choice) / len(choice)


def score_cases(rng):
    """A small one in which every mistake gives another number, then random ones; a choice and a prompt of one token."""
    sizes = [(rng.randint(4, 8), 1), (rng.randint(2, 6), rng.randint(3, 6)), (1, 2)]
    drawn = [([0.0, *(round(-rng.uniform(0.1, 6.0), 3) for _ in range(x + y - 1))], x) for x, y in sizes]
    cases = [([0.0, -1.2, -0.4, -3.1, -0.2], 3), *drawn]
    return [{"logprobs": logprobs, "prompt_length": start} for logprobs, start in cases]


def expect_score(case):
    logprobs, start = case["logprobs"], case["prompt_length"]
    prompt, choice = logprobs[:start], logprobs[start:]
    mean = math.fsum(choice) / len(choice)
    terms = {
        "": choice,
        "starts one token late: logprobs[t] is of token t itself, so the choice starts at prompt_length": choice[1:],
        "the prompt's tokens are counted too: only those of the choice": logprobs,
        "the last token of the choice is missing": choice[:-1],
        "this scores the prompt: the choice starts at prompt_length": prompt,
    }
    lengths = {  # of which list a sum is divided by
        "": None,
        "the sum over the choice: divide by its number of tokens, else long choices lose": choice[:1],
        "divided by the length of prompt and choice together": logprobs,
        "divided by prompt_length: the choice has the rest of the tokens": prompt,
        "divided by the number of the choice's tokens": choice,
    }
    probability = math.fsum(map(math.exp, choice)) / len(choice)
    mistakes = {
        "the mean of probabilities: average log-probabilities": probability,
        "the log of the mean probability: average log-probabilities": math.log(probability),
        "divided by one token too many": math.fsum(choice) / (len(choice) + 1),
        "only the first token of the choice": choice[0],
        "only the last token of the choice": choice[-1],
        "only the likeliest token of the choice": max(choice),
        "only the unlikeliest token of the choice": min(choice),
        "a perplexity: stay with log-probabilities, in nats": math.exp(-mean),
    }
    for (words, some), (more, divisor) in itertools.product(terms.items(), lengths.items()):
        if (words or more) and divisor is not some:
            count = len(some if divisor is None else divisor)
            mistakes["; and ".join(filter(None, [words, more]))] = math.fsum(some) / count if count else math.nan
    return mean, mistakes


# 1.3: a verbalizer ---------------------------------------------------------------------------------------------------


def label_probabilities(logits, encode, words):
    ids = [encode(" " + word)[0] for word in words]
    return logits[:, ids].softmax(-1)


def verbalizer_cases(rng):
    """Logits (B, V) over a vocabulary that has every word with and without the space before it; large ones at last."""
    result = []
    for words, batch, around in (["great", "awful"], 1, 0), (["zesty", "mild", "bland"], 3, 0), (["no", "yes"], 2, 30):
        pieces = [*words, *(" " + word for word in words), ",", "."]
        places = rng.sample(range(12), len(pieces))
        # the first word comes later in the alphabet, or has the larger id, so a sorted order shows
        first, second = pieces.index(" " + words[0]), pieces.index(" " + words[1])
        places[first], places[second] = sorted((places[first], places[second]), reverse=True)
        logits = [[round(around + rng.uniform(-2.0, 2.0), 3) for _ in range(12)] for _ in range(batch)]
        result.append({"logits": logits, "vocabulary": dict(zip(pieces, places)), "words": words})
    return result


def drive_verbalizer(answer, case):
    def encode(text):
        if text not in case["vocabulary"]:
            raise ValueError(f"encode: {text!r} is not one token of this vocabulary")
        return [case["vocabulary"][text]]

    return answer(torch.tensor(case["logits"]), encode, case["words"])


def expect_verbalizer(case):
    logits, words = torch.tensor(case["logits"], dtype=torch.float64), case["words"]
    spaced, bare, in_alphabet = ([case["vocabulary"][piece] for piece in pieces] for pieces in (
        [" " + word for word in words], words, [" " + word for word in sorted(words)]))  # fmt: skip
    odds = [[math.exp(row[i]) for i in spaced] for row in case["logits"]]
    everything, chosen = logits.softmax(-1), logits[:, spaced]
    return [[odd / sum(row) for odd in row] for row in odds], {
        "not renormalised: the rows do not sum to 1 over the label words": everything[:, spaced],
        "the tokens without the space before the word: in running text it is ' great', another token":
            logits[:, bare].softmax(-1),
        "also without the space, and not renormalised": everything[:, bare],
        "the columns are in another order than the words":
            Alternatives(logits[:, sorted(spaced)].softmax(-1), logits[:, in_alphabet].softmax(-1)),
        "normalised over the prompts instead of the words":
            Alternatives(chosen.softmax(0), everything[:, spaced] / everything[:, spaced].sum(0)),
        "normalised over prompts and words together": chosen.flatten().softmax(0).view_as(chosen),
        "log-probabilities, expected probabilities": Alternatives(chosen.log_softmax(-1), everything[:, spaced].log()),
        "a softmax of probabilities: divide them by their sum, or take the softmax of the logits":
            Alternatives(everything[:, spaced].softmax(-1), chosen.softmax(-1).softmax(-1)),
        "logits divided by their sum: they need an exponential first": chosen / chosen.sum(-1, True),
        "exponentials that are not divided by their sum": chosen.exp(),
        "a sigmoid of each: normalise over the words, with a softmax": chosen.sigmoid(),
        "a hard choice (0 or 1), expected probabilities": torch.eye(len(words))[chosen.argmax(-1)],
        "the most likely word: return the probabilities of all": chosen.argmax(-1),
    }  # fmt: skip


# 1.4: ROUGE-L --------------------------------------------------------------------------------------------------------


def filled(left, right, rule):
    """The table whose entry (i, j) is rule(whether the items are equal, entries (i-1, j-1), (i-1, j) and (i, j-1))."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, item in enumerate(left):
        for j, other in enumerate(right):
            table[i + 1][j + 1] = rule(item == other, table[i][j], table[i][j + 1], table[i + 1][j])
    return table


def common_subsequence(left, right):
    """Length of the longest common subsequence: equal ends prolong it, else one side gives up its last item."""
    return filled(left, right, lambda same, both, up, back: both + 1 if same else max(up, back))[-1][-1]


def rouge_l(prediction, reference):
    common = common_subsequence(prediction, reference)
    return 2 * common / (len(prediction) + len(reference)) if common else 0.0


STORY = ["anna", "found", "a", "red", "key", "in", "the", "old", "garden"]


def rouge_cases(rng):
    """Two texts in which every mistake gives another number, small ones, drawn ones, nothing in common, nothing."""
    fixed = ["in the garden anna found a a red key", "garden anna found the key key", "key", "nothing here", "",
             "red old an old garden"]  # fmt: skip
    pairs = [(text.split(), STORY) for text in fixed]
    pairs += [(["a", "b", "c", "a"], ["b", "c", "b"]), (["b", "a", "a"], ["a", "a", "b"]),
              (["a", "b", "c"], ["a", "a", "c"]), (STORY, STORY)]  # fmt: skip
    for _ in range(2):
        novel = ["gold", "and", "silver"][: rng.randint(1, 3)]
        pairs.append((rng.sample(STORY, 5) + novel, rng.sample(STORY, 8)))
    return [{"prediction": prediction, "reference": reference} for prediction, reference in pairs]


def longest_by_trying(left, right):
    """The same length as `common_subsequence`, straight from the definition: the largest part of one in the other."""
    for mask in sorted(range(2 ** len(left)), key=lambda mask: -bin(mask).count("1")):
        rest = iter(right)
        if all(word in rest for i, word in enumerate(left) if mask >> i & 1):
            return bin(mask).count("1")


def greedy(left, right):
    """Each word of one list at its first place behind the last one found in the other."""
    place = found = 0
    for word in left:
        if word in right[place:]:
            place, found = right.index(word, place) + 1, found + 1
    return found


TABLE_RULES = {
    "the unequal case keeps entry (i - 1, j): it takes the larger of that and (i, j - 1)":
        lambda same, both, up, back: both + 1 if same else up,
    "the unequal case keeps entry (i, j - 1): it takes the larger of that and (i - 1, j)":
        lambda same, both, up, back: both + 1 if same else back,
    "the unequal case goes on from (i - 1, j - 1): it takes the larger of (i - 1, j) and (i, j - 1)":
        lambda same, both, up, back: both + same,
    "equal words prolong a neighbour: they prolong the entry (i - 1, j - 1)":
        lambda same, both, up, back: max(up, back) + same,
}  # fmt: skip
MEASURES = {
    "": lambda c, n, m: 2 * c / (n + m) if c else 0.0,
    "precision alone: common words over the prediction's length; a one-word summary would score 1":
        lambda c, n, m: c / n if n else 0.0,
    "recall alone: common words over the reference's length; copying the whole story would score 1":
        lambda c, n, m: c / m,
    "the length of the subsequence: turn it into an F-measure": lambda c, n, m: c,
    "the mean of precision and recall: the F-measure is the harmonic mean":
        lambda c, n, m: (c / n + c / m) / 2 if n else 0.0,
    "the geometric mean of precision and recall: the F-measure is the harmonic mean":
        lambda c, n, m: c / (n * m) ** 0.5 if n else 0.0,
    "the product of precision and recall": lambda c, n, m: c * c / (n * m) if n else 0.0,
    "twice the product of precision and recall: it is divided by their sum":
        lambda c, n, m: 2 * c * c / (n * m) if n else 0.0,
    "shared over all that occurs (Jaccard): the F-measure is 2 P R / (P + R)": lambda c, n, m: c / (n + m - c),
    "divided by the longer of the two: the F-measure is 2 P R / (P + R)": lambda c, n, m: c / max(n, m),
    "divided by the shorter of the two: the F-measure is 2 P R / (P + R)": lambda c, n, m: c / (min(n, m) or 1),
}  # fmt: skip


def expect_rouge(case):
    prediction, reference = case["prediction"], case["reference"]
    n, m, common = len(prediction), len(reference), longest_by_trying(prediction, reference)
    shared, letters = set(prediction) & set(reference), (" ".join(prediction), " ".join(reference))
    bag = sum(min(prediction.count(word), reference.count(word)) for word in shared)
    runs = filled(prediction, reference, lambda same, both, up, back: both + 1 if same else 0)
    overlaps = {
        "": (common, n, m),
        "the overlap of word sets: order counts, so take the longest common subsequence":
            (len(shared), len(set(prediction)), len(set(reference))),
        "distinct words in common whatever their order: take the longest common subsequence": (len(shared), n, m),
        "words in common whatever their order: take the longest common subsequence": (bag, n, m),
        "the longest run without gaps: a subsequence may skip words": (max(map(max, runs)), n, m),
        "the common ending: where words differ, the table takes the larger neighbour": (runs[-1][-1], n, m),
        "the first match of each word is taken, which may skip better ones": (greedy(prediction, reference), n, m),
        "equal words at equal places: a subsequence may skip words":
            (sum(x == y for x, y in zip(prediction, reference)), n, m),
        "compares characters: the unit is the word": (common_subsequence(*letters), *map(len, letters)),
    }  # fmt: skip
    pairs = itertools.product(overlaps.items(), itertools.islice(MEASURES.items(), 3))
    mistakes = {"; and ".join(filter(None, [words, more])): measure(*sizes)
                for (words, sizes), (more, measure) in pairs}  # fmt: skip
    mistakes |= {words: measure(common, n, m) for words, measure in MEASURES.items()}
    for words, rule in TABLE_RULES.items():
        mistakes[words] = MEASURES[""](filled(prediction, reference, rule)[-1][-1], n, m)
    return mistakes.pop(""), mistakes


EXERCISES = {
    "1.1": Exercise(cloze_cases, lambda answer, case: answer(case["statement"], case["name"]), expect_cloze, points=1,
        reference=cloze, signature="cloze(statement: str, name: str) -> str", remark=remark_cloze),
    "1.2": Exercise(score_cases, lambda answer, case: answer(case["logprobs"], case["prompt_length"]), expect_score,
        points=2, reference=score_per_token,
        signature="score_per_token(logprobs: list, prompt_length: int) -> number"),
    "1.3": Exercise(verbalizer_cases, drive_verbalizer, expect_verbalizer, points=2, reference=label_probabilities,
        signature="label_probabilities(logits: float[B V], encode: function, words: list) -> float[B C]"),
    "1.4": Exercise(rouge_cases, lambda answer, case: answer(case["prediction"], case["reference"]), expect_rouge,
        points=3, reference=rouge_l, signature="rouge_l_words(prediction: list, reference: list) -> number",
        tolerance=1e-6),
}  # fmt: skip
