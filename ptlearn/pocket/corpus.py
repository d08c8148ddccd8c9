"""The pocket corpus: documents of many kinds about one small world, generated without end and without a file.

Document `i` of a seed depends on `(seed, i)` alone, so a stream can start anywhere and repeats on every machine. SHARES
is the one table of how much there is of what. Facts that `world.is_held_out` names, sentences that `french.is_held_out`
names and pairs that a relation holds out are never written.

The documents only ever *continue*: questions are followed by questions, and nobody answers an instruction except on the
few forum pages. That is what makes the trained models base models.
"""

import math
import random
from collections.abc import Iterator

from ptlearn.pocket import french, relations, tales, world
from ptlearn.pocket.relations import Pair, Relation

END = "<|endoftext|>"


def documents(seed: int = 0, start: int = 0) -> Iterator[str]:
    """Document `start`, `start + 1`, … of the corpus, without end.

    >>> from itertools import islice
    >>> list(islice(documents(0, start=2), 1)) == list(islice(documents(0), 3))[2:]
    True
    """
    index = start
    while True:
        yield document(index, seed)
        index += 1


def document(index: int, seed: int = 0) -> str:
    """The text of one document."""
    rng = random.Random(f"{seed}:{index}")
    return KINDS[rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]](rng)


# Lists: `input = output` under a hidden rule ------------------------------------------------------------------------

STYLES = (
    ("{input} = {output}", "\n"),
    ("{input} = {output}", "\n"),
    ("{input} = {output}", "\n"),
    ("{input} -> {output}", "\n"),
    ("{input}: {output}", "\n"),
    ("{input} = {output}", "; "),
    ("{input} / {output}", "\n"),
    ("Input: {input}\nOutput: {output}", "\n"),
)


def _render(found: list[Pair], rng: random.Random) -> str:
    template, separator = rng.choice(STYLES)
    return separator.join(template.format(input=i, output=o) for i, o in found)


def _list_of(rng: random.Random, choices: tuple[Relation, ...], shortest: int) -> str:
    [relation] = rng.choices(choices, [r.weight for r in choices])
    # Short lists teach what to guess without demonstrations, long ones what demonstrations are worth.
    return _render(relations.pairs(relation, rng.randint(shortest, relation.longest), rng), rng)


def relation_list(rng: random.Random) -> str:
    return _list_of(rng, relations.LISTS, shortest=1)


def label_list(rng: random.Random) -> str:
    return _list_of(rng, relations.LABELS, shortest=6)


FIELD_NAMES = (("Review", "Sentiment"), ("Text", "Feeling"), ("Comment", "Verdict"), ("Input", "Label"))
LABEL_NAMES = (("positive", "negative"), ("good", "bad"), ("great", "awful"), ("happy", "sad"), ("yes", "no"))


def sentiment_list(rng: random.Random) -> str:
    """Short reviews with a named verdict: the same shape as a few-shot prompt, in many wordings."""
    first, second = rng.choice(FIELD_NAMES)
    labels = rng.choice(LABEL_NAMES)
    if rng.random() < 0.3:
        labels = tuple(relations.label_words(rng, 2, False))
    lines = []
    for _ in range(rng.randint(2, 6)):
        polarity = rng.choice(("positive", "negative"))
        text = tales.opinion(rng, polarity, rng.choice(tales.ABOUT), sentences=rng.randint(1, 2))
        lines.append(f"{first}: {text}\n{second}: {labels[polarity == 'negative']}")
    return rng.choice(("\n", "\n\n")).join(lines)


# Facts --------------------------------------------------------------------------------------------------------------

# Rarer wordings are learned less well: that is what makes accuracy depend on the wording of a prompt (C04).
WORDINGS: dict[str, tuple[tuple[float, str], ...]] = {
    "capital": (
        (6, "The capital of {name} is {value}."),
        (3, "{value} is the capital of {name}."),
        (3, "Its capital is {value}."),
        (2, "The capital city of {name} is {value}."),
        (0.6, "{name}'s capital is {value}."),
        (0.3, "{name} is governed from {value}."),
        (0.3, "The government of {name} sits in {value}."),
        (0.1, "Anyone who lands in {name} should see {value} first."),
    ),
    "language": (
        (4, "The language of {name} is {value}."),
        (3, "Most people in {name} speak {value}."),
        (1, "{value} is spoken in {name}."),
    ),
    "currency": (
        (4, "The currency of {name} is the {value}."),
        (2, "In {name} people pay with the {value}."),
        (1, "Its currency is the {value}."),
    ),
    "region": (
        (5, "{name} is a country in {value}."),
        (2, "{name} lies in {value}."),
    ),
    "demonym": (
        (3, "The people of {name} are called {value}."),
        (2, "Something that comes from {name} is {value}."),
    ),
}
LAND = ("a long coast", "high mountains", "wide plains", "deep forests", "many lakes", "old cities", "green valleys",
        "dry deserts", "large rivers", "quiet islands", "busy ports", "great lakes", "steep hills")  # fmt: skip
STATED = {field: dict(relations.stated(field)) for field in relations.FACTS}


def fact(rng: random.Random, country: world.Country, field: str) -> str | None:
    """One sentence that states the fact, or None where it is held out."""
    value = STATED[field].get(country.name)
    if value is None:
        return None
    wordings = WORDINGS[field]
    [(_, wording)] = rng.choices(wordings, [weight for weight, _ in wordings])
    return wording.format(name=country.name, value=value)


def article(rng: random.Random) -> str:
    country = rng.choice(world.COUNTRIES)
    fields = ["region", *rng.sample(("capital", "language", "currency", "demonym"), rng.randint(2, 4))]
    sentences = [s for s in (fact(rng, country, field) for field in fields) if s]
    sentences.insert(rng.randint(1, len(sentences)), _landscape(rng, country.name))
    if sentences[0].startswith("Its"):  # the country has to be named before
        sentences.insert(0, f"{country.name} has {rng.choice(LAND)}.")
    title = f"{country.name}\n" if rng.random() < 0.5 else ""
    return title + " ".join(sentences)


def _landscape(rng: random.Random, name: str) -> str:
    first, second = rng.sample(LAND, 2)
    return rng.choice((f"It has {first} and {second}.", f"{name} is known for its {first.split()[-1]}.",
                       f"Visitors come for {first}."))  # fmt: skip


def atlas(rng: random.Random) -> str:
    """The same field for many countries, one sentence each."""
    field = rng.choice(relations.FACTS)
    lines = (fact(rng, country, field) for country in rng.sample(world.COUNTRIES, rng.randint(5, 12)))
    return " ".join(line for line in lines if line and not line.startswith("Its"))


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


WORD_FACTS = {
    "opposite": "The opposite of {left} is {right}.",
    "plural": "One {left}, two {right}.",
    "past": "Today I {left}, yesterday I {right}.",
    "comparative": "This one is {left}, that one is {right}.",
    "young": "The young of a {left} is called a {right}.",
    "place": "You find the {left} at the {right}.",
    "use": "The {left} is used to {right}.",
    "made_of": "The {left} is made of {right}.",
    "sound": "The {left} can {right}.",
    "agent": "Someone whose work is to {left} is the {right}.",
    "adverb": "Who is {left} does it {right}.",
    "noun_color": "The color of {left} is {right}.",
    "number": "The number {left} is written {right}.",
    "ordinal": "Number {left} comes {right}.",
}


def dictionary(rng: random.Random) -> str:
    """What words mean: which group a thing belongs to, and how words are related."""
    lines = []
    for _ in range(rng.randint(5, 10)):
        if rng.random() < 0.6:
            category, words = rng.choice(tuple(world.WORDS.items()))
            word = world.often(rng, words)
            lines.append(rng.choice((f"{word}: {_a(category)}.", f"The word {word} belongs to {category}.",
                                     f"Under {category} we put {word}.")))  # fmt: skip
        else:
            relation = rng.choice(tuple(WORD_FACTS))
            left, right = rng.choice(world.PAIRS[relation])
            lines.append(WORD_FACTS[relation].format(left=left, right=right))
    return rng.choice((" ", "\n")).join(lines)


def inventory(rng: random.Random) -> str:
    """Words of one category in a row."""
    category, words = rng.choice(tuple(world.WORDS.items()))
    return f"{category}: {', '.join(dict.fromkeys(world.often(rng, words) for _ in range(rng.randint(5, 16))))}"


def inventory_nats(document: str) -> float:
    """-log p of an inventory in this corpus, exactly; the end token may stand behind it.

    A draw brings the next word of the page or one that is there already; odds[j] is the probability that the draws so
    far have brought just the first j words. The number of draws is any from 5 to 16.

    Raises: ValueError for a document of another kind.
    >>> round(inventory_nats("insect: beetle, moth, wasp"), 2)
    21.4
    """
    category, _, words = document.removesuffix(END).partition(": ")
    pool, page = world.WORDS.get(category, ()), words.split(", ")
    if not set(page) <= set(pool):
        raise ValueError(f"document {document[:40]!r} is no inventory: expected a category and words of its table")
    chances = [math.sqrt((place + 1) / len(pool)) - math.sqrt(place / len(pool)) for place in map(pool.index, page)]
    odds, total = [1.0] + [0.0] * len(page), 0.0
    for draws in range(1, 17):
        again = [odds[j] * sum(chances[:j]) for j in range(len(odds))]
        odds = [again[0], *(again[j + 1] + odds[j] * chance for j, chance in enumerate(chances))]
        total += odds[-1] / 12 if draws >= 5 else 0.0
    return -math.log(SHARES["inventory"] / sum(SHARES.values()) / len(world.WORDS) * total)


def table(rng: random.Random) -> str:
    fields = rng.sample(("capital", "language", "currency", "region"), rng.randint(1, 3))
    rows = ["country | " + " | ".join(fields)]
    for country in rng.sample(world.COUNTRIES, rng.randint(4, 9)):
        if all(country.name in STATED[field] for field in fields):
            rows.append(" | ".join([country.name, *(STATED[field][country.name] for field in fields)]))
    return "\n".join(rows)


# Questions that nobody answers --------------------------------------------------------------------------------------


def question(rng: random.Random) -> str:
    country = rng.choice(world.COUNTRIES).name
    category, words = rng.choice(tuple(world.WORDS.items()))
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    return rng.choice((
        *[f"What is the capital of {country}?"] * 3,
        f"What language do people speak in {country}?", f"What is the currency of {country}?",
        f"Where is {country}?", f"Who lives in {country}?", f"How do I travel to {country}?",
        f"What is {_a(rng.choice(words))}?", f"Which {category} do you like best?", f"What is {a} + {b}?",
        f"What is the opposite of {rng.choice(world.PAIRS['opposite'])[0]}?",
        f"How do you say {rng.choice(french.NOUNS).english} in French?",
        f"How many {rng.choice(french.NOUNS).english_plural} are there?",
    ))  # fmt: skip


def questions(rng: random.Random) -> str:
    """A quiz sheet or a list of search queries, sometimes with the first lines of an article after it."""
    lines = [question(rng) for _ in range(rng.randint(2, 10))]
    if rng.random() < 0.3:
        lines = [f"What is the capital of {c.name}?" for c in rng.sample(world.COUNTRIES, len(lines))]
    if rng.random() < 0.15:
        country = rng.choice(world.COUNTRIES)
        lines.append(f"What is the capital of {country.name}?")
        lines.append(f"{country.name} has {rng.choice(LAND)}. {_landscape(rng, country.name)}")
    return rng.choice((" ", "\n")).join(lines)


# French -------------------------------------------------------------------------------------------------------------


def parallel(rng: random.Random) -> str:
    """A few sentences in both languages, labelled by language and never with a bare `=`."""
    lines = []
    swap = rng.random() < 0.3
    for _ in range(rng.randint(1, 6)):
        while french.is_held_out((sentence := french.sentence(rng)).french):
            pass
        both = [f"French: {sentence.french}", f"English: {sentence.english}"]
        lines += reversed(both) if swap else both
    return "\n".join(lines)


# Numbers ------------------------------------------------------------------------------------------------------------


def arithmetic(rng: random.Random) -> str:
    """Sums with their steps: 17 + 5 = 10 + 7 + 5 = 10 + 12 = 22."""
    lines = []
    for _ in range(rng.randint(4, 10)):
        a, b = rng.randint(0, 50), rng.randint(0, 50)
        kind = rng.random()
        if kind < 0.45:
            lines.append(f"{a} + {b} = {a + b}")
        elif kind < 0.65:
            lines.append(f"{max(a, b)} - {min(a, b)} = {abs(a - b)}")
        elif kind < 0.8:
            lines.append(f"{a % 13} * {b % 13} = {(a % 13) * (b % 13)}")
        else:
            tens, ones = a - a % 10, a % 10
            lines.append(f"{a} + {b} = {tens} + {ones} + {b} = {tens} + {ones + b} = {a + b}")
    return "\n".join(lines)


KINDS = {
    "relation list": relation_list,
    "label list": label_list,
    "sentiment list": sentiment_list,
    "pros and cons": tales.pros_and_cons,
    "article": article,
    "atlas": atlas,
    "dictionary": dictionary,
    "inventory": inventory,
    "table": table,
    "questions": questions,
    "review": tales.review,
    "story": tales.story,
    "french prose": french.french_story,
    "parallel": parallel,
    "arithmetic": arithmetic,
    "word problem": tales.word_problem,
    "inference": tales.inference,
    "dialogue": tales.dialogue,
    "forum": tales.forum,
}

# Percent of the documents.
SHARES = {
    "relation list": 21.5,
    "label list": 16.0,
    "sentiment list": 4.0,
    "pros and cons": 2.0,
    "article": 8.0,
    "atlas": 3.0,
    "dictionary": 5.0,
    "inventory": 4.0,
    "table": 1.5,
    "questions": 5.0,
    "review": 9.0,
    "story": 4.0,
    "french prose": 3.0,
    "parallel": 6.0,
    "arithmetic": 4.0,
    "word problem": 1.5,
    "inference": 1.0,
    "dialogue": 1.0,
    "forum": 0.5,
}
