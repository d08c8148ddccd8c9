"""Checks of lesson 01, on tiny inputs and without a model: a cloze prompt, a score per token, a verbalizer, ROUGE-L."""

import math

import torch

from ptlearn.course.diagnosis import differences
from ptlearn.course.exercise import Exercise
from ptlearn.pocket import corpus, relations

# 1.1: from a statement to a prompt -----------------------------------------------------------------------------------


def cloze(statement, name):
    return statement.partition("{value}")[0].rstrip(" ").replace("{name}", name)


def cloze_cases(rng):
    """Statements in which the country stands before the answer, each with a country and its answer."""
    result = []
    for field in ("capital", "language", "currency"):
        usable = [wording for _, wording in corpus.WORDINGS[field] if "{name}" in wording.partition("{value}")[0]]
        for statement in rng.sample(usable, 2):
            name, value = rng.choice([pair for pair in relations.stated(field) if pair[1] not in pair[0]])
            result.append({"statement": statement, "name": name, "value": value})
    # the answer in mid-sentence, whatever was drawn
    return [{"statement": "Who visits {name} sees {value} first.", "name": "Peru", "value": "Lima"}, *result]


def cloze_verdict(case, data):
    expected = cloze(case["statement"], case["name"])
    if data == expected:
        return None
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
    return next((words for found, words in findings if found), None) or differences(data, expected)


# 1.2: a choice, scored per token -------------------------------------------------------------------------------------


def score_per_token(logprobs, prompt_length):
    choice = logprobs[prompt_length:]
    return sum(choice) / len(choice)


def score_cases(rng):
    """One case in which every mistake gives another number, then random ones."""
    lengths = [(rng.randint(4, 8), 1), (rng.randint(2, 6), rng.randint(3, 6))]
    return [{"logprobs": [0.0, -1.2, -0.4, -3.1, -0.2], "prompt_length": 3}] + [
        {"logprobs": [0.0, *(-rng.uniform(0.1, 6.0) for _ in range(prompt + choice - 1))], "prompt_length": prompt}
        for prompt, choice in lengths
    ]


def score_verdict(case, data):
    logprobs, start = case["logprobs"], case["prompt_length"]
    choice = logprobs[start:]
    mean = math.fsum(choice) / len(choice)
    mistakes = {
        "the sum over the choice: divide by its number of tokens, else long choices lose": math.fsum(choice),
        "the prompt's tokens are counted too: only those of the choice": math.fsum(logprobs) / len(logprobs),
        "divided by the length of prompt and choice together": math.fsum(choice) / len(logprobs),
        "the mean of probabilities: average log-probabilities": math.fsum(map(math.exp, choice)) / len(choice),
        "the log of the mean probability: average log-probabilities": math.log(
            math.fsum(map(math.exp, choice)) / len(choice)
        ),
        "starts one token late: logprobs[t] is of token t itself, so the choice starts at prompt_length": (
            math.fsum(choice[1:]) / max(1, len(choice) - 1)
        ),
        "starts one token early: the prompt's last token is counted": math.fsum(logprobs[start - 1 :])
        / (len(choice) + 1),
        "the sign is turned: a score is larger for a likelier choice": -mean,
        "a probability: stay with log-probabilities, in nats": math.exp(mean),
        "a perplexity: stay with log-probabilities, in nats": math.exp(-mean),
    }
    return differences(data, mean, mistakes)


# 1.3: a verbalizer ---------------------------------------------------------------------------------------------------


def label_probabilities(logits, encode, words):
    ids = [encode(" " + word)[0] for word in words]
    return logits[:, ids].softmax(-1)


def verbalizer_cases(rng):
    """Logits (B, V) over a vocabulary that has every word with and without the space before it."""
    result = []
    for words in (["great", "awful"], ["zesty", "mild", "bland"]):
        pieces = [*words, *(" " + word for word in words), ",", "."]
        places = rng.sample(range(12), len(pieces))
        # the first word comes later in the alphabet and has the larger id, so a sorted order shows
        first, second = pieces.index(" " + words[0]), pieces.index(" " + words[1])
        places[first], places[second] = sorted((places[first], places[second]), reverse=True)
        vocabulary = dict(zip(pieces, places))
        logits = [[round(rng.uniform(-2.0, 2.0), 3) for _ in range(12)] for _ in range(3)]
        result.append({"logits": logits, "vocabulary": vocabulary, "words": words})
    return result


def drive_verbalizer(answer, case):
    def encode(text):
        if text not in case["vocabulary"]:
            raise ValueError(f"encode: {text!r} is not one token of this vocabulary")
        return [case["vocabulary"][text]]

    return answer(torch.tensor(case["logits"]), encode, case["words"])


def verbalizer_verdict(case, data):
    logits, vocabulary, words = torch.tensor(case["logits"]), case["vocabulary"], case["words"]
    ids = [vocabulary[" " + word] for word in words]
    odds = [[math.exp(row[i]) for i in ids] for row in case["logits"]]
    expected = [[odd / sum(row) for odd in row] for row in odds]
    bare, everything = logits[:, [vocabulary[word] for word in words]], logits.softmax(-1)
    mistakes = {
        "not renormalised: the rows do not sum to 1 over the label words": everything[:, ids],
        "the tokens without the space before the word: in running text it is ' great', another token": bare.softmax(-1),
        "also without the space, and not renormalised": everything[:, [vocabulary[word] for word in words]],
        "the columns are in another order than the words": logits[:, sorted(ids)].softmax(-1),
        "normalised over the prompts instead of the words": logits[:, ids].softmax(0),
        "log-probabilities, expected probabilities": logits[:, ids].log_softmax(-1),
        "a softmax of probabilities: divide them by their sum, or take the softmax of the logits": everything[
            :, ids
        ].softmax(-1),
        "the logits themselves, expected probabilities": logits[:, ids],
        "logits divided by their sum: they need an exponential first": logits[:, ids] / logits[:, ids].sum(-1, True),
        "a hard choice (0 or 1), expected probabilities": torch.eye(len(words))[logits[:, ids].argmax(-1)],
    }
    return differences(data, expected, mistakes)


# 1.4: ROUGE-L --------------------------------------------------------------------------------------------------------


def common_subsequence(left, right):
    """Length of the longest common subsequence: equal ends prolong it, else one side gives up its last item."""
    previous = [0] * (len(right) + 1)
    for item in left:
        current = [0]
        for column, other in enumerate(right):
            current.append(previous[column] + 1 if item == other else max(previous[column + 1], current[column]))
        previous = current
    return previous[-1]


def rouge_l(prediction, reference):
    common = common_subsequence(prediction, reference)
    return 2 * common / (len(prediction) + len(reference)) if common else 0.0


WORDS = ["anna", "found", "a", "red", "key", "in", "the", "old", "garden"]


def rouge_cases(rng):
    """Two texts in which every mistake gives another number, shuffled ones, nothing in common, nothing at all."""
    prediction = ["in", "the", "garden", "anna", "found", "a", "a", "red", "key"]
    result = [{"prediction": prediction, "reference": WORDS}]
    for _ in range(2):
        result.append({
            "prediction": rng.sample(WORDS, 5) + ["gold", "and", "silver"][: rng.randint(1, 3)],
            "reference": rng.sample(WORDS, 8),
        })  # fmt: skip
    return [*result, *({"prediction": words, "reference": WORDS} for words in (["nothing", "here"], []))]


def f_measure(common, prediction, reference):
    return 2 * common / (len(prediction) + len(reference)) if common else 0.0


def longest_run(left, right):
    """Length of the longest common run of neighbours."""
    return max(
        (size for size in range(1, len(left) + 1) for i in range(len(left) - size + 1)
         for j in range(len(right) - size + 1) if left[i : i + size] == right[j : j + size]), default=0
    )  # fmt: skip


def longest_by_trying(left, right):
    """The same length as `common_subsequence`, straight from the definition: the largest part of one in the other."""
    for mask in sorted(range(2 ** len(left)), key=lambda mask: -bin(mask).count("1")):
        rest = iter(right)
        if all(word in rest for i, word in enumerate(left) if mask >> i & 1):
            return bin(mask).count("1")


def rouge_verdict(case, data):
    prediction, reference = case["prediction"], case["reference"]
    common = longest_by_trying(prediction, reference)
    expected = f_measure(common, prediction, reference)
    shared, letters = set(prediction) & set(reference), (" ".join(prediction), " ".join(reference))
    bag = sum(min(prediction.count(word), reference.count(word)) for word in shared)
    mistakes = {
        "precision alone: common words over the prediction's length; a one-word summary would score 1": common
        / max(1, len(prediction)),
        "recall alone: common words over the reference's length; copying the whole story would score 1": common
        / len(reference),
        "the overlap of word sets: order counts, so take the longest common subsequence": f_measure(
            len(shared), set(prediction), set(reference)
        ),
        "words in common whatever their order: take the longest common subsequence": f_measure(
            bag, prediction, reference
        ),
        "the longest run without gaps: a subsequence may skip words": f_measure(
            longest_run(prediction, reference), prediction, reference
        ),
        "compares characters: the unit is the word": f_measure(common_subsequence(*letters), *letters),
        "the length of the subsequence: turn it into an F-measure": common,
        "half of the F-measure: it is 2 P R / (P + R)": expected / 2,
        "the mean of precision and recall: the F-measure is the harmonic mean": (
            common / max(1, len(prediction)) + common / len(reference)
        )
        / 2,
    }
    return differences(data, expected, mistakes, tolerance=1e-6)


EXERCISES = {
    "1.1": Exercise(
        cases=cloze_cases,
        drive=lambda answer, case: answer(case["statement"], case["name"]),
        verify=cloze_verdict,
        points=1,
        reference=cloze,
    ),
    "1.2": Exercise(
        cases=score_cases,
        drive=lambda answer, case: answer(case["logprobs"], case["prompt_length"]),
        verify=score_verdict,
        points=2,
        reference=score_per_token,
    ),
    "1.3": Exercise(
        cases=verbalizer_cases,
        drive=drive_verbalizer,
        verify=verbalizer_verdict,
        points=2,
        reference=label_probabilities,
    ),
    "1.4": Exercise(
        cases=rouge_cases,
        drive=lambda answer, case: answer(case["prediction"], case["reference"]),
        verify=rouge_verdict,
        points=3,
        reference=rouge_l,
    ),
}
