"""The tasks of the pocket world: sums, translation, praise, lists, sorting, copying; training and held-out problems.

Deliberately not here: what a task is and the general verifiers (rl.tasks), the use cases of an assistant (assistant).
Order: two verifiers of this world; how problems are split; the tasks.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ptlearn.pocket import french, relations, tales, verifiers, world
from ptlearn.pocket.assistant import COUNTS
from ptlearn.rl.tasks import Problem, Score, Task, ends_on, in_place, matches, typewritten


def praises(about: str, least: int = 2) -> Score:
    """Share of the sentences that praise and are said once only, where `least` or more are expected.

    Only whole sentences of a pocket review count: who says the same again, or strings good words together, is not paid.

    >>> score = praises("book")
    >>> score("It was a real treat. The plot was dreadful."), score("A real treat. " * 2), score("Treat superb treat.")
    (0.5, 0.0, 0.0)
    """
    praise = tales.statements("positive", about)

    def score(text: str) -> float:
        said = [sentence for sentence in verifiers.sentences(text) if sentence.endswith(".")]  # the last may be cut off
        return sum(said.count(sentence) == 1 for sentence in said if sentence in praise) / max(least, len(said))

    return score


def is_a_list_of(count: int) -> Score:
    """The form of a list, not its content: a third each for the number of items, no item twice, a full stop.

    >>> is_a_list_of(3)("dog, cat, cow."), is_a_list_of(3)("dog, cat, dog")
    (1.0, 0.3333333333333333)
    """

    def score(text: str) -> float:
        listed, stop, rest = typewritten(text).strip().partition(".")
        items = [item.strip() for item in listed.split(",")]
        return (bool(listed) * (len(items) == count) + (len(set(items)) == len(items) > 1) + (stop + rest == ".")) / 3

    return score


# ---------------------------------------------------------------- the tasks

Draw = Callable[[random.Random], tuple[str, Problem]]  # a key that decides on the side of the split, and a problem


def _split(name: str, draw: Draw, train: int, held_out: int, seed: int) -> tuple[tuple[Problem, ...], ...]:
    """So many different problems to train on, and so many held out: the key of a problem decides."""
    return tuple(_side(name, draw, seed, **side) for side in ({"train": train}, {"held_out": held_out}))


def _side(name: str, draw: Draw, seed: int, **wanted: int) -> tuple[Problem, ...]:
    [(side, count)] = wanted.items()
    rng, found = random.Random(f"{name}:{seed}:{side}"), {}
    for _ in range(100 * max(count, 100)):
        if len(found) == count:
            return tuple(found.values())
        key, problem = draw(rng)
        if relations.is_held_out(name, key) == (side == "held_out"):
            found.setdefault(problem.prompt, problem)
    raise ValueError(f"{side}={count}: expected at most {len(found)}, as many different problems were found")


def arithmetic(*, train: int = 400, held_out: int = 200, largest: int = 50, seed: int = 0) -> Task:
    """Sums of two numbers up to `largest`; the answer is the last number, so that steps may stand before it.

    The response takes the steps of the pocket corpus, and the held-out sums are those of the assistant's requests.

    >>> arithmetic(train=1).train[0].prompt, arithmetic(train=1).train[0].response
    ('What is 26 + 26?', '26 + 26 = 20 + 6 + 26 = 20 + 32 = 52')
    """

    def draw(rng: random.Random) -> tuple[str, Problem]:
        a, b = rng.randint(1, largest), rng.randint(1, largest)
        tens, ones = a - a % 10, a % 10
        steps = f"{a} + {b} = {tens} + {ones} + {b} = {tens} + {ones + b} = {a + b}"
        return f"{a}|{b}", Problem(f"What is {a} + {b}?", ends_on(a + b), steps)

    return Task("arithmetic", *_split("sum", draw, train, held_out, seed), max_new_tokens=24)


def translation(
    *, train: int = 400, held_out: int = 200, judge: Callable[[str], Score] = matches, seed: int = 0
) -> Task:
    """English sentences to be put into French; judge, `matches` or `bleu`, makes the verifier from the gold."""

    def draw(rng: random.Random) -> tuple[str, Problem]:
        sentence = french.sentence(rng)
        prompt = f"Translate into French: {sentence.english}"
        return sentence.english, Problem(prompt, judge(sentence.french), sentence.french)

    return Task("translation", *_split("to french", draw, train, held_out, seed), max_new_tokens=24)


def sentiment(*, train: int = 100, held_out: int = 16, seed: int = 0) -> Task:
    """Reviews to be gone on with, and rewarded for praise: no answer is right, and the prompts are not questions."""

    def draw(rng: random.Random) -> tuple[str, Problem]:
        about = rng.choice(tales.ABOUT)
        opening = rng.choice(tales.OPENINGS[about])
        text = opening.format(day=rng.choice(tales.DAYS), relative=rng.choice(tales.RELATIVES))
        return text, Problem(text, praises(about))

    return Task("sentiment", *_split("opening", draw, train, held_out, seed), max_new_tokens=32, chat=False)


def listing(*, train: int = 60, held_out: int = 10, seed: int = 0) -> Task:
    """Lists in a given form: so many different items, divided by commas, with a full stop at the end."""

    def draw(rng: random.Random) -> tuple[str, Problem]:
        category, words = rng.choice(tuple(world.WORDS.items()))
        count = rng.choice(tuple(COUNTS))
        response = f"{', '.join(rng.sample(words, COUNTS[count]))}."
        prompt = f"List {count} words for {category}."
        return f"{category}|{count}", Problem(prompt, is_a_list_of(COUNTS[count]), response)

    return Task("listing", *_split("listing", draw, train, held_out, seed), max_new_tokens=24)


def sorting(*, train: int = 400, held_out: int = 100, length: int = 3, largest: int = 50, seed: int = 0) -> Task:
    """Numbers to be put in ascending order, rewarded place by place."""

    def draw(rng: random.Random) -> tuple[str, Problem]:
        numbers = rng.sample(range(1, largest + 1), length)
        given, ordered = (" ".join(map(str, row)) for row in (numbers, sorted(numbers)))
        return given, Problem(f"Sort these numbers: {given}", in_place(ordered), ordered)

    return Task("sorting", *_split("sorting", draw, train, held_out, seed), max_new_tokens=8 * length)


def copying(*, train: int = 100, held_out: int = 50, length: int = 3, seed: int = 0) -> Task:
    """Words to be repeated, rewarded place by place: a task that only proves that the loop learns."""
    words = sorted(word for words in world.WORDS.values() for word in words if " " not in word)

    def draw(rng: random.Random) -> tuple[str, Problem]:
        text = " ".join(rng.sample(words, length))
        return text, Problem(f"Repeat these words: {text}", in_place(text), text)

    return Task("copying", *_split("copying", draw, train, held_out, seed), max_new_tokens=6 * length)
