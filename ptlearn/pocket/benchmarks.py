"""Data in the format of NLP benchmarks, in the pocket world: inference, short questions, sentiment; exact match.

Each benchmark has one fixed form and answers of a word or two, as SNLI and MNLI, TriviaQA or SST-2 have. Training and
held-out items share no content. `hans` is a test alone, after McCoy et al. (2019): every word of the hypothesis stands
in the premise, and for half of the items it does not follow.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ptlearn.pocket import assistant, corpus, french, relations, tales

ENTAILMENT, OTHERWISE = "yes", "no"


@dataclass(frozen=True)
class Item:
    """A prompt and the one answer that counts."""

    benchmark: str
    prompt: str
    response: str


def items(count: int, seed: int = 0, *, benchmarks: Iterable[str] | None = None, held_out: bool = False) -> list[Item]:
    """Draw items, all benchmarks alike; the first n of a larger count are the n of a smaller one.

    Prompts differ, until a benchmark has no more: there are some 550 questions to train on and 60 held out.

    Raises: ValueError for a negative count and for an unknown benchmark.
    Source: claim C09.

    >>> sorted({item.benchmark for item in items(50)})
    ['nli', 'qa', 'sentiment']
    """
    chosen = list(BENCHMARKS if benchmarks is None else benchmarks)
    if count < 0 or not chosen or not set(chosen) <= set(BENCHMARKS):
        raise ValueError(f"count={count}, benchmarks={chosen}: expected 0 or more of {', '.join(BENCHMARKS)}")
    rng = random.Random(f"benchmarks:{seed}:{held_out}")
    found: list[Item] = []
    seen: set[str] = set()
    for _ in range(count):
        name = rng.choice(chosen)
        found.append(assistant.unseen(lambda name=name: _item(name, rng, held_out), seen))
    return found


def _item(name: str, rng: random.Random, held_out: bool) -> Item:
    prompt, response = BENCHMARKS[name](rng)
    while relations.is_held_out(name, prompt) != held_out:
        prompt, response = BENCHMARKS[name](rng)
    return Item(name, prompt, response)


def hans(count: int, seed: int = 0) -> list[Item]:
    """A test of inference where the overlap of words says nothing: no word of a hypothesis is new."""
    rng = random.Random(f"hans:{seed}")
    found: dict[str, Item] = {}
    while len(found) < count:
        answer = (ENTAILMENT, OTHERWISE)[len(found) % 2]
        prompt = _inference(*rng.choice(_overlapping(rng, rng.choice(french.VERBS))[answer]))
        if relations.is_held_out("nli", prompt):
            found.setdefault(prompt, Item("hans", prompt, answer))
    return list(found.values())


def _inference(premise: str, hypothesis: str) -> str:
    return f"Premise: {premise}.\nHypothesis: {hypothesis}.\nDoes it follow?"


def _overlapping(rng: random.Random, verb: french.Verb) -> dict[str, list[tuple[str, str]]]:
    """Pairs of premise and hypothesis by their answer; every word of the hypothesis is in the premise."""
    a, b, c = (f"the {noun.english}" for noun in rng.sample(tales.PERSONS, 3))
    sees, see = verb.english_third, verb.english
    return {
        ENTAILMENT: [
            (f"{a} {sees} {b} and {c}", f"{a} {sees} {b}"),
            (f"{a} {sees} {b} near {c}", f"{a} {sees} {b}"),
            (f"{a} near {b} {sees} {c}", f"{a} {sees} {c}"),
        ],
        OTHERWISE: [
            (f"{a} {sees} {b}", f"{b} {sees} {a}"),
            (f"{a} {sees} {b} near {c}", f"{b} {sees} {c}"),
            (f"{a} near {b} {sees} {c}", f"{b} {sees} {c}"),
            (f"{a} and {b} {see} {c}", f"{c} and {b} {see} {a}"),
        ],
    }


def _nli(rng: random.Random) -> tuple[str, str]:
    """Half entailment. As in the data that people wrote, a `not` or a new word gives most of the others away."""
    verb, stranger = rng.choice(french.VERBS), f"the {rng.choice(tales.PERSONS).english}"
    overlapping = _overlapping(rng, verb)
    if rng.random() < 0.5:
        return _inference(*rng.choice(overlapping[ENTAILMENT])), ENTAILMENT
    if rng.random() < 0.2:
        return _inference(*rng.choice(overlapping[OTHERWISE])), OTHERWISE
    premise, hypothesis = rng.choice(overlapping[ENTAILMENT])
    if stranger in premise or rng.random() < 0.5:
        return _inference(premise, hypothesis.replace(verb.english_third, f"does not {verb.english}")), OTHERWISE
    subject, _, rest = hypothesis.partition(f" {verb.english_third} ")
    return _inference(premise, f"{stranger} {verb.english_third} {rest}"), OTHERWISE


QUESTIONS = {
    "capital": "What is the capital of {name}?",
    "language": "What is the language of {name}?",
    "currency": "What is the currency of {name}?",
    "region": "In which region is {name}?",
}


def _qa(rng: random.Random) -> tuple[str, str]:
    field = rng.choice(tuple(QUESTIONS))
    name = rng.choice(assistant.stated(field))
    return f"Question: {QUESTIONS[field].format(name=name)}\nAnswer:", corpus.STATED[field][name]


def _sentiment(rng: random.Random) -> tuple[str, str]:
    polarity = rng.choice(tuple(tales.VERDICTS))
    return f"Review: {tales.review_body(rng, polarity, rng.choice(tales.ABOUT))}\nSentiment:", polarity


BENCHMARKS: dict[str, Callable[[random.Random], tuple[str, str]]] = {"nli": _nli, "qa": _qa, "sentiment": _sentiment}
