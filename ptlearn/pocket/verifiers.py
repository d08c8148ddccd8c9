"""Verifiers of the pocket world: functions that judge how well a text does what was asked, from 0 to 1.

Each function here makes one: `answers("Nairobi", capitals)` is a function from a text to its score. A right text scores
1 however it is worded within the pocket world's grammar; nothing, an echo of the prompt, or the answer to something
else scores about 0. `ptlearn.pocket.assistant` says which request is judged by which.
"""

import functools
import re
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher

from ptlearn.pocket import corpus, tales, world
from ptlearn.rl.tasks import Score, plain, typewritten

NAMES = {name for name, _ in world.NAMES}
LONGEST = 1_000  # characters: nothing that is asked here takes a third of it


def mentions(text: str, phrase: str) -> bool:
    """Whether the words of the phrase stand in the text, in a row and as whole words.

    >>> mentions("The owls of Port Moresby.", "port moresby"), mentions("The owls", "owl")
    (True, False)
    """
    return f" {plain(phrase)} " in f" {plain(text)} "


def people(text: str) -> list[str]:
    """The first names in a text, each once, in the order of their first mention.

    >>> people("Anna met Peter and Anna ran.")
    ['Anna', 'Peter']
    """
    return list(dict.fromkeys(word for word in re.findall(r"\w+", typewritten(text)) if word in NAMES))


def bounded(score: Score) -> Score:
    """The same verifier, with 0 for what cannot be an answer: no words at all, or more than LONGEST characters."""
    return lambda text: score(text) if plain(text) and len(text) <= LONGEST else 0.0


def answers(value: str, rivals: Iterable[str], asked: str = "") -> Score:
    """1 for a text of at most 30 words that gives the value and none of its rivals, else 0: who hedges, knows nothing.

    >>> score = answers("cold", ["warm", "hot", "cold"], asked="hot")
    >>> score("The opposite of hot is cold."), score("cold or warm"), score("hot")
    (1.0, 0.0, 0.0)
    """
    wanted, rivals = f" {plain(value)} ", tuple(rivals)

    @functools.cache
    def others() -> set[str]:  # once something is scored: most requests that are drawn are dropped again
        return {f" {plain(rival)} " for rival in rivals if not mentions(f"{value} {asked}", rival)}

    def score(text: str) -> float:
        said = f" {plain(text)} "
        return float(wanted in said and len(said.split()) <= 30 and not any(other in said for other in others()))

    return score


def approaches(gold: str, source: str) -> Score:
    """How far a text has come from the source to the gold, by the words that they share in the same order.

    (likeness(text) - start) / (1 - start), where start is the likeness of the source itself, or 1/2 if that is more:
    a copy earns nothing, and neither do the small words that any two sentences share.

    Raises: ValueError where the source is the gold: then there is nothing to do.

    >>> score = approaches("the cat does not see the dog", "the cat sees the dog")
    >>> score("The cat does not see the dog."), score("the cat sees the dog"), 0 < score("the cat does see the dog") < 1
    (1.0, 0.0, True)
    """
    wanted = plain(gold).split()

    def likeness(text: str) -> float:
        return SequenceMatcher(None, plain(text).split(), wanted, autojunk=False).ratio()

    start = max(0.5, likeness(source))
    if start == 1:
        raise ValueError(f"source {source!r} has the words of the gold already: expected another text")
    return lambda text: max(0.0, (likeness(text) - start) / (1 - start))


def lists(members: Collection[str], count: int) -> Score:
    """A list of items: the different members named, less the wrong items, over `count` or the number of items if more.

    Items are divided by commas, semicolons, line breaks and "and"; what stands before a colon introduces them.

    >>> score = lists(["dog", "cat", "cow"], 2)
    >>> score("Animals: cat and dog."), score("cat, cat"), score("cat"), score("apple, cow")
    (1.0, 0.5, 0.5, 0.0)
    """
    right = {plain(member) for member in members}

    def items(text: str) -> Iterable[str]:
        for piece in map(plain, re.split(r"[,;\n]", text.rpartition(":")[2])):
            # "Trinidad and Tobago" is one item
            yield from filter(None, [piece] if piece in right else piece.split(" and "))

    def score(text: str) -> float:
        named = list(items(text))
        wrong = sum(item not in right for item in named)
        return max(0, len(right.intersection(named)) - wrong) / max(count, len(named))

    return score


def replies(templates: Iterable[str], **slots: str) -> Score:
    """Share of the slots that a text fills as given, where the whole text reads like one of the templates, else 0.

    >>> score = replies(["I like your {color} {thing}."], color="red", thing="hat")
    >>> score("I like your red hat."), score("I like your red kite."), score("A red hat.")
    (1.0, 0.5, 0.0)
    """
    patterns = [_pattern(template, named=True) for template in templates]

    def score(text: str) -> float:
        found = (pattern.fullmatch(typewritten(text).strip()) for pattern in patterns)
        filled = [{slot: plain(words) for slot, words in match.groupdict().items()} for match in found if match]
        return max((_share(given.get(slot) == plain(slots[slot]) for slot in slots) for given in filled), default=0.0)

    return score


def _pattern(template: str, *, named: bool) -> re.Pattern:
    slot = r"(?P<\1>[^.,!?:;]+?)" if named else r"[^.,!?:;]+?"
    return re.compile(re.sub(r"\\{(\w+)\\}", slot, re.escape(template)), re.IGNORECASE)


def _share(truths: Iterable[bool]) -> float:
    truths = list(truths)
    return sum(truths) / len(truths) if truths else 1.0


def sentences(text: str) -> list[str]:
    """Cut a text after its full stops, exclamation and question marks; in the signs of a keyboard."""
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", typewritten(text).strip()) if sentence]


BEATS = [_pattern(beat, named=False) for beats, _ in tales.PLOTS for beat in (*beats, *tales.WEATHER)]


def tells(*words: str, least: int = 4) -> Score:
    """A story: share of the words that it mentions, times its different story sentences over all (`least` or more).

    A story sentence is one that some plot of `tales` contains; whether they make one story together is not judged.

    >>> score = tells("Anna", "fox")
    >>> score("Anna is a fox."), score("In spring Anna found a fox in the barn.")
    (0.0, 0.25)
    """

    def score(text: str) -> float:
        said = sentences(text)
        told = {sentence for sentence in said if any(beat.fullmatch(sentence) for beat in BEATS)}
        return _share(mentions(text, word) for word in words) * len(told) / max(least, len(said))

    return score


def reviews(polarity: str, about: str, aspect: str) -> Score:
    """A review: the mean of three things (aspect named, right verdict, a second opinion), times the tone.

    The tone is the share of right ones among the phrases of either polarity, and 0 where there is none.
    """
    phrases = {side: _review_phrases(side, about) for side in tales.VERDICTS}
    verdict = verdicts(polarity, about)

    def score(text: str) -> float:
        said = f" {plain(text)} "
        found = {side: sum(phrase in said for phrase in phrases[side]) for side in phrases}
        right, every = found[polarity], sum(found.values())
        judged = any(verdict(sentence) == 1 for sentence in sentences(text))
        return _share((mentions(text, aspect), judged, right >= 2)) * right / max(1, every)

    return score


def _review_phrases(polarity: str, about: str) -> set[str]:
    kinds = ("adjective", "clause", "noun_phrase")
    return {f" {plain(phrase)} " for kind in kinds for phrase in tales.PHRASES[polarity, kind, about]}


def verdicts(polarity: str, about: str) -> Score:
    """1 for one sentence that passes the right verdict on the movie, book, meal or hotel, else 0.

    >>> verdicts("positive", "book")("This book is wonderful."), verdicts("positive", "book")("This meal is good.")
    (1.0, 0.0)
    """
    templates = [f"This {{about}} {verb} {word}." for word, _ in tales.VERDICTS[polarity] for verb in ("is", "was")]
    return replies(templates, about=about)


STATEMENTS = [
    (field, _pattern(wording, named=True)) for field, wordings in corpus.WORDINGS.items() for _, wording in wordings
]


def describes(name: str, least: int = 3) -> Score:
    """Different true facts about a country, over the number of sentences, `least` or more: a false one costs its share.

    >>> describes("Kenya")("The capital of Kenya is Nairobi. The language of Kenya is French. Kenya is great.")
    0.3333333333333333
    """

    def score(text: str) -> float:
        said = sentences(text)
        true = {field for sentence in said for field in _true_fields(sentence, name)}
        return len(true) / max(least, len(said))

    return score


def _true_fields(sentence: str, name: str) -> list[str]:
    """The fields of the country whose value the sentence states."""
    found = ((field, match.groupdict()) for field, pattern in STATEMENTS if (match := pattern.fullmatch(sentence)))
    return [
        field
        for field, slots in found
        # "Its capital is ..." names nobody
        if plain(slots.get("name", name)) == plain(name)
        and plain(slots["value"]) == plain(corpus.STATED[field].get(name, ""))
    ]
