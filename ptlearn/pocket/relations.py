"""Hidden rules behind the pocket world's `input = output` lists.

A list shows pairs that follow one rule and never names it, so whoever continues the list has to find the rule in the
pairs. Some rules recall a fact (country -> capital), some transform a sentence (French -> English), and some cannot be
in any weight, because the rule is drawn afresh for every list (arbitrary labels, an unknown number to add).

Training lists hold training pairs only. `episode` asks about an input that no list of that relation ever contained; for
label lists the label words themselves occur nowhere in the corpus either. RELATIONS are those of the corpus; EVALUATED
has more to ask about where a tenth of the inputs is too few.
"""

import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ptlearn.pocket import french, world

Pair = tuple[str, str]
Draw = Callable[[], Pair]


@dataclass(frozen=True)
class Relation:
    """A rule: `begin(rng, new)` fixes what is hidden and returns a function that draws one pair.

    `new` asks for label words that no training list uses. `held_out(pair)` says which pairs are kept for tests,
    `longest` is the largest number of pairs in a training list (it has to fit the context), `weight` the relation's
    share among the lists of its kind of document, `repeats` whether an input may come back in a training list.
    """

    name: str
    begin: Callable[[random.Random, bool], Draw]
    held_out: Callable[[Pair], bool]
    longest: int = 20
    weight: float = 1.0
    repeats: bool = False


def pairs(relation: Relation, count: int, rng: random.Random) -> list[Pair]:
    """Up to `count` training pairs, all under one draw of what is hidden; inputs differ unless the relation repeats."""
    draw = relation.begin(rng, False)
    if not relation.repeats:
        return _distinct(relation, draw, count, held_out=False, seen=set())
    return [pair for pair in (draw() for _ in range(count)) if not relation.held_out(pair)]


def episode(relation: Relation, shots: int, rng: random.Random, *, held_out: bool = True) -> tuple[list[Pair], Pair]:
    """Demonstrations and one further pair to be predicted, under one draw of what is hidden.

    Args:
        held_out: ask about a held-out input, with new label words where there are any; else about a training input.
    Returns:
        (demonstrations, (query, answer)): the query differs from every demonstration's input.
    Raises:
        ValueError: the relation has fewer than `shots` different training inputs.
    """
    for _ in range(50):  # two small regions, say, may have too few countries between them: hide something else
        draw = relation.begin(rng, held_out)
        query = _distinct(relation, draw, 1, held_out=held_out, seen=set())
        demonstrations = _distinct(relation, draw, shots, held_out=False, seen={given for given, _ in query})
        if query and len(demonstrations) == shots:
            return demonstrations, query[0]
    raise ValueError(f"shots: {shots} given, but {relation.name!r} has {len(demonstrations)} different inputs")


def _distinct(relation: Relation, draw: Draw, count: int, *, held_out: bool, seen: set[str]) -> list[Pair]:
    found: list[Pair] = []
    for _ in range(40 * count + 400 * held_out):
        if len(found) == count:
            break
        pair = draw()
        if pair[0] not in seen and relation.held_out(pair) == held_out:
            seen.add(pair[0])
            found.append(pair)
    return found


def is_held_out(relation: str, text: str) -> bool:
    """True for a tenth of all inputs, by a hash that is the same on every machine.

    >>> is_held_out("capital", "Kenya")
    False
    """
    return zlib.crc32(f"{relation}|{text}".encode()) % 10 == 0


def _by_input(name: str) -> Callable[[Pair], bool]:
    return lambda pair: is_held_out(name, pair[0])


# Facts and words: the answer is in the weights, the demonstrations say which one is asked for -----------------------

FACTS = ("capital", "language", "currency", "region", "demonym")


def stated(field: str) -> list[Pair]:
    """(country, value) of every country whose `field` the corpus states; the others occur nowhere."""
    return [(c.name, getattr(c, field)) for c in world.COUNTRIES if not world.is_held_out(f"{field}|{c.name}")]


def _recall(name: str, table: list[Pair] | tuple[Pair, ...], weight: float = 1.0, longest: int = 20) -> Relation:
    table = tuple(dict(table).items())
    return Relation(name, lambda rng, new: lambda: rng.choice(table), _by_input(name), longest, weight)


def _recall_relations() -> list[Relation]:
    nouns = [(noun.french, noun.english) for noun in french.NOUNS]
    categories = [(word, category) for category, words in world.WORDS.items() for word in words]
    return (
        [_recall(field, stated(field), weight=1.5) for field in FACTS]
        + [_recall(name, table) for name, table in world.PAIRS.items() if len(table) >= 20]
        + [
            _recall("category", categories, weight=1.5),
            _recall("french noun", nouns, weight=2.0),
            _recall("english noun", [(e, f) for f, e in nouns], weight=1.5),
            _recall("first letter", [(word, word[0]) for word, _ in categories], weight=0.7),
            _recall("last letter", [(word, word[-1]) for word, _ in categories], weight=0.7),
            _recall("length", [(word, str(len(word))) for word, _ in categories], weight=0.7),
        ]
    )


# Sentences ----------------------------------------------------------------------------------------------------------


def _is_held_out_sentence(*texts: str) -> bool:
    return any(french.is_held_out(text) for text in texts)


def _sentences(name: str, view: Callable[[french.Sentence], Pair], longest: int, weight: float, *, french_in=(0,),
               keep: Callable[[french.Sentence], bool] = lambda s: True) -> Relation:  # fmt: skip
    """Pairs made from one sentence; `french_in` are the sides of the pair that hold a French sentence."""

    def begin(rng: random.Random, new: bool) -> Draw:
        def draw() -> Pair:
            while not keep(sentence := french.sentence(rng)):
                pass
            return view(sentence)

        return draw

    return Relation(name, begin, lambda pair: any(french.is_held_out(pair[i]) for i in french_in), longest, weight)


def _sentence_relations() -> list[Relation]:
    return [
        _sentences("french to english", lambda s: (s.french, s.english), 10, 1.2),
        _sentences("english to french", lambda s: (s.english, s.french), 10, 1.6, french_in=(1,)),
        _sentences("french negation", lambda s: (s.french, french.negate(s).french), 9, 1.5, french_in=(0, 1),
                   keep=lambda s: not s.negated),
        _sentences("french plural", lambda s: (s.french, french.pluralize(s).french), 9, 1.2, french_in=(0, 1),
                   keep=lambda s: s.has_plural),
        _sentences("first word", lambda s: (s.french, s.french.split()[0]), 12, 1.6),
        _sentences("last word", lambda s: (s.french, s.french.split()[-1]), 12, 0.8),
        _sentences("word count", lambda s: (s.french, str(len(s.french.split()))), 12, 0.8),
        _sentences("negated or not", lambda s: (s.french, "no" if s.negated else "yes"), 12, 0.5),
    ]  # fmt: skip


# Numbers: one demonstration fits several rules, so only more of them settle it --------------------------------------

OFFSETS = (-5, -3, -2, -1, 1, 2, 3, 4, 5, 10)
OPERATIONS = (
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a,
    lambda a, b: b,
)


def _add(rng: random.Random, new: bool, largest: int = 40) -> Draw:
    offset = rng.choice(OFFSETS)

    def draw() -> Pair:
        number = rng.randint(max(0, -offset), largest)
        return str(number), str(number + offset)

    return draw


def _multiply(rng: random.Random, new: bool) -> Draw:
    factor = rng.choice((1, 2, 3, 5, 10))

    def draw() -> Pair:
        number = rng.randint(1, 20)
        return str(number), str(number * factor)

    return draw


def _combine(rng: random.Random, new: bool, largest: int = 15) -> Draw:
    """Two numbers, the larger first; the operation (sum, difference, larger, smaller) is hidden."""
    operation = rng.choice(OPERATIONS)

    def draw() -> Pair:
        small, large = sorted((rng.randint(1, largest), rng.randint(1, largest)))
        return f"{large} {small}", str(operation(large, small))

    return draw


# Picking: by position or by meaning ---------------------------------------------------------------------------------

PICKED = ("animal", "fruit", "vehicle", "clothing", "profession", "color")


def _pick(rng: random.Random, new: bool) -> Draw:
    """Three words of three categories; the rule keeps one of them, by its place or by its category."""
    place = rng.choice((0, 1, 2, None, None, None))
    return _picker(rng, place, rng.choice(PICKED))


def _picker(rng: random.Random, place: int | None, wanted: str) -> Draw:
    """Keep the word at `place`, or where that is None the one of the category `wanted`."""

    def draw() -> Pair:
        categories = rng.sample(PICKED, 3)
        if place is None and wanted not in categories:
            categories[rng.randrange(3)] = wanted
        words = [world.often(rng, world.WORDS[category]) for category in categories]
        return " ".join(words), words[categories.index(wanted) if place is None else place]

    return draw


# Arbitrary labels: which label means what is drawn for every list, so no weight can know it -------------------------

SYLLABLES = [c + v for c in "bdfgjklmnprstvwz" for v in "aeiou"]
TABLES_TEXT = " ".join(path.read_text(encoding="utf-8") for path in sorted(world.TABLES.glob("*.csv")))
REAL_WORDS = set(re.findall(r"\w+", TABLES_TEXT))


def label_words(rng: random.Random, count: int, new: bool) -> list[str]:
    """`count` different label words; `new` ones are nonsense words that occur nowhere in the corpus."""
    style = 0 if new else rng.random()
    if style > 0.8:
        return rng.sample("ABCDEFGHXYZ", count)
    if style > 0.65:
        return rng.sample("123456789", count)
    if style > 0.4:
        return rng.sample(world.WORDS[rng.choice(PICKED)], count)
    found: list[str] = []
    while len(found) < count:
        word = "".join(rng.sample(SYLLABLES, 2))
        if is_held_out("label", word) == new and word not in found and word not in REAL_WORDS:
            found.append(word)
    return found


def _labelled(
    name: str, groups: Callable[[], list[Sequence[str]]], classes: int, weight: float, longest: int, key: str = ""
) -> Relation:
    """Labels for the members of `classes` of the groups; each list draws its groups and their labels afresh.

    Half of the training lists draw from a handful of members, so that members come back: whoever learns to look up
    the same word has most of what it takes to look up a word of the same kind.
    """

    def begin(rng: random.Random, new: bool) -> Draw:
        chosen = rng.sample(groups(), classes)
        labels = label_words(rng, classes, new)
        if not new and rng.random() < 0.5:
            chosen = [rng.sample(members, min(len(members), rng.randint(2, 5))) for members in chosen]

        def draw() -> Pair:
            group = rng.randrange(classes)
            return world.often(rng, chosen[group]), labels[group]

        return draw

    return Relation(name, begin, _by_input(key or name), longest, weight, repeats=True)


def _categories() -> list[Sequence[str]]:
    return list(world.WORDS.values())


def _genders() -> list[Sequence[str]]:
    return [[noun.french for noun in french.NOUNS if noun.gender == gender] for gender in "mf"]


def _polarities() -> list[Sequence[str]]:
    return [[p.phrase for p in world.SENTIMENT if p.polarity == polarity] for polarity in ("positive", "negative")]


def _regions() -> list[Sequence[str]]:
    groups: dict[str, list[str]] = {}
    for name, region in stated("region"):
        groups.setdefault(region, []).append(name)
    return [group for group in groups.values() if len(group) >= 8]


def _sizes() -> list[Sequence[str]]:
    return [[str(n) for n in range(0, 50)], [str(n) for n in range(50, 100)]]


def _parities() -> list[Sequence[str]]:
    return [[str(n) for n in range(first, 100, 2)] for first in (0, 1)]


LISTS: tuple[Relation, ...] = (
    *_recall_relations(),
    *_sentence_relations(),
    Relation("add", _add, _by_input("add"), weight=4.0),
    Relation("multiply", _multiply, _by_input("multiply"), longest=14, weight=2.0),
    Relation("combine", _combine, _by_input("combine"), weight=3.0),
    Relation("pick", _pick, _by_input("pick"), longest=18, weight=5.0),
)

LABELS: tuple[Relation, ...] = (
    _labelled("2 labels", _categories, 2, weight=4.0, longest=20, key="label"),
    _labelled("3 labels", _categories, 3, weight=3.0, longest=20, key="label"),
    _labelled("4 labels", _categories, 4, weight=3.0, longest=24, key="label"),
    _labelled("gender labels", _genders, 2, weight=1.5, longest=20),
    _labelled("sentiment labels", _polarities, 2, weight=2.0, longest=14),
    _labelled("region labels", _regions, 2, weight=1.5, longest=20),
    _labelled("size labels", _sizes, 2, weight=0.7, longest=20),
    _labelled("parity labels", _parities, 2, weight=0.7, longest=20),
)

RELATIONS: dict[str, Relation] = {relation.name: relation for relation in LISTS + LABELS}


# To measure with: the inputs that no list of the corpus holds, and more of them -------------------------------------

STATED = {field: set(stated(field)) for field in FACTS}


def _fact(rng: random.Random, new: bool) -> Draw:
    """Countries and one field of them: capital, language, currency, region or demonym."""
    table = sorted(STATED[rng.choice(FACTS)])
    return lambda: rng.choice(table)


def _is_held_out_fact(pair: Pair) -> bool:
    """Some pairs belong to two fields, as (Estonia, Estonian): both must hold them out."""
    return all(is_held_out(field, pair[0]) for field in FACTS if pair in STATED[field])


def _outside(name: str, largest: int) -> Callable[[Pair], bool]:
    """Held out are a tenth of the inputs, and those with a number that no training list reaches."""
    return lambda pair: is_held_out(name, pair[0]) or int(pair[0].split()[0]) > largest


EVALUATED: dict[str, Relation] = RELATIONS | {
    relation.name: relation
    for relation in (
        Relation("fact", _fact, _is_held_out_fact),
        Relation("add", partial(_add, largest=60), _outside("add", 40)),
        Relation("combine", partial(_combine, largest=20), _outside("combine", 15)),
        Relation("pick a kind", lambda rng, new: _picker(rng, None, rng.choice(PICKED)), _by_input("pick")),
        Relation("pick a place", lambda rng, new: _picker(rng, rng.randrange(3), rng.choice(PICKED)),
                 _by_input("pick")),
    )
}  # fmt: skip
