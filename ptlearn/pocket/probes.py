"""What a pocket LM can do, measured: every figure of the model cards and of `docs/pocket.md` comes from here.

Each probe asks about held-out items, answers come from the network alone, and every share has a 95 % interval.
`python -m ptlearn.pocket.probes pocket-m` prints the table; lessons 01 and 02 build the same measurements by hand.
"""

import random
import re
import sys

import torch

from ptlearn.lm.prompting import contextual_calibration, few_shot_prompt, score_choices, verbalizer_probabilities
from ptlearn.lm.text import complete
from ptlearn.pocket import french, relations, tales
from ptlearn.statistics import Estimate, accuracy


def capital_questions(lm) -> Estimate:
    """Share of "What is the capital of X?" whose continuation names the capital anywhere in 24 tokens (C02)."""
    facts = relations.stated("capital")
    prompts = [f"What is the capital of {name}?{end}" for end in ("", "\n") for name, _ in facts]
    continuations = complete(lm, prompts, max_new_tokens=24, stop=())
    return accuracy([capital in text for (_, capital), text in zip(facts * 2, continuations, strict=True)])


def capital_cloze(lm, wordings: tuple[str, ...] = ("The capital of {} is", "The capital city of {} is")) -> Estimate:
    """Share of stated capitals that complete the sentence (C03)."""
    facts = relations.stated("capital") * len(wordings)
    prompts = [wording.format(name) for wording in wordings for name, _ in relations.stated("capital")]
    continuations = complete(lm, prompts, max_new_tokens=8, stop=(".",))
    return accuracy([text.strip() == capital for (_, capital), text in zip(facts, continuations, strict=True)])


def reviews(count: int, seed: int = 10**6) -> list[tuple[str, str, str]]:
    """(body, about, polarity) of `count` generated reviews, half of them positive."""
    rng = random.Random(seed)
    result = []
    for index in range(count):
        polarity, about = ("positive", "negative")[index % 2], rng.choice(tales.ABOUT)
        result.append((tales.review_body(rng, polarity, about), about, polarity))
    return result


def sentiment(lm, count: int = 400, words: tuple[str, str] = ("great", "awful")) -> Estimate:
    """Accuracy of "[review] This movie is [great/awful]" (C03)."""
    items = reviews(count)
    probabilities = verbalizer_probabilities(lm, [f"{body} This {about} is" for body, about, _ in items], words)
    positive = (probabilities[:, 0] > probabilities[:, 1]).tolist()
    gold = [polarity == "positive" for _, _, polarity in items]
    return accuracy(guess == truth for guess, truth in zip(positive, gold, strict=True))


def french_nouns(*, held_out: bool | None = None) -> list[tuple[str, str]]:
    """English nouns and what they are in French, those that are spelled alike left out: a half of them, or all.

    >>> french_nouns(held_out=True)[:2], len(french_nouns())
    ([('woman', 'femme'), ('girl', 'fille')], 236)
    """
    pairs = [(noun.english, noun.french) for noun in french.NOUNS if noun.english != noun.french]
    return pairs if held_out is None else pairs[int(held_out) :: 2]


def noun_translation(lm, template: str, *, held_out: bool) -> Estimate:
    """Share of a half of the nouns whose French is the first word that follows the prompt (C04)."""
    pairs = french_nouns(held_out=held_out)
    texts = complete(lm, [template.replace("{input}", given) for given, _ in pairs], max_new_tokens=6)
    return accuracy(re.findall(r"[^\W_]+", text)[:1] == [wanted] for text, (_, wanted) in zip(texts, pairs))


def few_shot(lm, relation: str, shots: int, count: int = 200, seed: int = 0) -> Estimate:
    """Exact match on a relation's held-out queries after `shots` demonstrations in `input = output` form (C05, C06)."""
    return accuracy(few_shot_results(lm, relation, shots, count, seed))


def few_shot_results(lm, relation: str, shots: int, count: int, seed: int = 0) -> list[bool]:
    """Right or wrong for each of `count` episodes, the same ones for every model: so two models can be paired."""
    rng = random.Random(f"{relation}:{shots}:{seed}")
    episodes = [relations.episode(relations.RELATIONS[relation], shots, rng) for _ in range(count)]
    prompts = [few_shot_prompt(demonstrations, query) for demonstrations, (query, _) in episodes]
    answers = complete(lm, prompts, max_new_tokens=20, stop=("\n",))
    return [text.strip() == answer for (_, (_, answer)), text in zip(episodes, answers, strict=True)]


def label_choice(lm, relation: str, shots: int, count: int = 200, seed: int = 0) -> Estimate:
    """Accuracy of choosing among the labels that the demonstrations show, on the episodes of `few_shot` (C06).

    Few-shot classification as in Brown et al. (2020): chance is one over the number of labels, and a label that is
    miscopied does not count against knowing which one it should have been.
    """
    rng = random.Random(f"{relation}:{shots}:{seed}")
    right = []
    for _ in range(count):
        demonstrations, (query, answer) = relations.episode(relations.RELATIONS[relation], shots, rng)
        labels = sorted({label for _, label in demonstrations})
        scores = score_choices(lm, [few_shot_prompt(demonstrations, query)], labels)
        right.append(labels[int(scores.logprobs[0].argmax())] == answer)
    return accuracy(right)


SENTIMENT_TEMPLATE = "Review: {input}\nSentiment: {output}"
CONTENT_FREE = ("N/A", "", "...")


def order_spread(
    lm,
    labels: tuple[str, str] = ("poke", "fiti"),
    *,
    shots: int = 4,
    choices: int = 24,
    count: int = 100,
    seed: int = 0,
) -> tuple[list[float], list[float]]:
    """Accuracy of few-shot sentiment for each of `choices` demonstration sets, before and after calibration (C07).

    The sets are drawn as they come, one-sided ones included. The labels are nonsense words: with "positive" and
    "negative" the pocket models need no demonstrations at all.
    """
    rng = random.Random(f"order:{seed}")
    names = dict(zip(("positive", "negative"), labels, strict=True))
    items = [(_opinion(rng, polarity), polarity) for polarity in names for _ in range(count // 2)]
    gold = torch.tensor([polarity == "negative" for _, polarity in items])
    raw, calibrated = [], []
    for _ in range(choices):
        demonstrations = [(_opinion(rng, p), names[p]) for p in rng.choices(tuple(names), k=shots)]
        texts = [text for text, _ in items] + list(CONTENT_FREE)
        prompts = [few_shot_prompt(demonstrations, text, template=SENTIMENT_TEMPLATE) for text in texts]
        probabilities = score_choices(lm, prompts, labels).logprobs.softmax(-1)
        probabilities, neutral = probabilities[: len(items)], probabilities[len(items) :]
        for results, values in ((raw, probabilities), (calibrated, contextual_calibration(probabilities, neutral))):
            results.append((values.argmax(1) == gold).float().mean().item())
    return raw, calibrated


def _opinion(rng: random.Random, polarity: str) -> str:
    return tales.opinion(rng, polarity, rng.choice(tales.ABOUT), sentences=2)


SHOTS = (0, 1, 2, 4, 8, 16)


def all_relations(lm, shots: int = 8, count: int = 60) -> Estimate:
    """Mean few-shot accuracy over all relations; the same episodes for every model (C06)."""
    correct: list[bool] = []
    for name, relation in relations.RELATIONS.items():
        correct += few_shot_results(lm, name, min(shots, relation.longest), count)
    return accuracy(correct)


def report(lm, count: int = 200) -> str:
    """Everything above as Markdown: a table of targets and a table of relations by number of demonstrations."""
    raw, calibrated = order_spread(lm)
    lines = [f"### {lm.name}", "", "| measured | result |", "|---|---|"]
    lines += [
        f"| {name} | {value} |"
        for name, value in (
            ("capital questions answered", capital_questions(lm)),
            ("the same facts as cloze", capital_cloze(lm)),
            ("sentiment, [great/awful]", sentiment(lm)),
            ("two arbitrary labels, 12 demonstrations: chosen", label_choice(lm, "2 labels", 12, count)),
            ("four arbitrary labels, 16 demonstrations: chosen", label_choice(lm, "4 labels", 16, count)),
            ("two arbitrary labels, 12 demonstrations: written", few_shot(lm, "2 labels", 12, count)),
            ("four arbitrary labels, 16 demonstrations: written", few_shot(lm, "4 labels", 16, count)),
            ("all relations, 8 demonstrations", all_relations(lm)),
            ("4-shot sentiment over 24 sets of demonstrations", _range(raw)),
            ("the same, calibrated", _range(calibrated)),
        )
    ]
    lines += ["", "| relation | " + " | ".join(map(str, SHOTS)) + " |", "|---" * (len(SHOTS) + 1) + "|"]
    for name, relation in relations.RELATIONS.items():
        cells = [f"{few_shot(lm, name, k, count).mean:.2f}" if k <= relation.longest else "" for k in SHOTS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}, mean {sum(values) / len(values):.2f}"


if __name__ == "__main__":
    from ptlearn.lm.models import load_lm

    for model in sys.argv[1:] or ["pocket-m"]:
        print(report(load_lm(model)), flush=True)
