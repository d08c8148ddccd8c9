"""What users ask of an assistant, in the pocket world: prompts of ten use cases, gold responses and verifiers.

The use cases and their shares are those of the prompts that InstructGPT received (Ouyang et al. 2022, table 1). A use
case has a few tasks; a task has its own phrasings and draws its content (a country, a story, two numbers). Training
and held-out requests share neither: a content belongs to one side by a hash, a phrasing by the table of tasks.

Read downwards: the record, `requests`, `score_by_use_case`, then the tasks by use case. The verifiers are in
`verifiers.py`, data in the format of benchmarks in `benchmarks.py`. Every response is one line.
"""

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ptlearn.lm.chat import chat_prompt
from ptlearn.lm.text import complete
from ptlearn.pocket import corpus, french, relations, tales, verifiers, world
from ptlearn.pocket.verifiers import Score
from ptlearn.statistics import Estimate, wilson

# Percent of the prompts, Ouyang et al. 2022, table 1; as printed, they sum to 99.9.
SHARES = {
    "generation": 45.6,
    "open qa": 12.4,
    "brainstorming": 11.2,
    "chat": 8.4,
    "rewrite": 6.6,
    "summarization": 4.2,
    "classification": 3.5,
    "other": 3.5,
    "closed qa": 2.6,
    "extract": 1.9,
}


ROOM = 96  # tokens of a response


@dataclass(frozen=True)
class Request:
    """What a user asks, one good response, and the verifier: `score(text)` in [0, 1], 1 for the response itself."""

    use_case: str
    task: str
    prompt: str
    response: str
    score: Score = field(repr=False, compare=False)


class Content(NamedTuple):
    """What a phrasing is filled with; `key` decides on which side of the split it is."""

    key: str
    slots: dict[str, str]
    response: str
    score: Score


@dataclass(frozen=True)
class Task:
    """A kind of request: how it is put in training and in tests, and a function that draws its content."""

    use_case: str
    name: str
    phrasings: tuple[str, ...]
    held_out_phrasings: tuple[str, ...]
    draw: Callable[[random.Random], Content]
    weight: float = 1.0


def requests(
    count: int, seed: int = 0, *, use_cases: Iterable[str] | None = None, held_out: bool = False
) -> list[Request]:
    """Draw requests by the shares of the use cases.

    The first n of a larger count are the n of a smaller one. Prompts differ, as far as the small world allows.

    Args:    count; seed; use_cases to draw from, all if None; held_out, whether to draw the phrasings and contents
             that are kept for tests.
    Raises:  ValueError for a negative count and for a use case that is not in SHARES.
    Source:  Ouyang et al. 2022, table 1; claims C09, C10.

    >>> [(request.prompt, request.response) for request in requests(1, 3, use_cases=["other"])]
    [('Please add 30 to 39.', '39 + 30 = 69')]
    """
    chosen = _check(count, use_cases)
    rng = random.Random(f"requests:{seed}:{held_out}")
    found: list[Request] = []
    seen: set[str] = set()
    for _ in range(count):
        [use_case] = rng.choices(chosen, [SHARES[name] for name in chosen])
        found.append(unseen(lambda use_case=use_case: _request(use_case, rng, held_out), seen))
    return found


def unseen(draw: Callable, seen: set[str]):
    """Draw until a prompt is new, at most 100 times; `seen`, the prompts so far, has it afterwards."""
    for _ in range(100):
        item = draw()
        if item.prompt not in seen:
            break
    seen.add(item.prompt)
    return item


def held_out_requests(each: int, seed: int = 0) -> list[Request]:
    """A test set: `each` held-out requests of every use case, so that the rare ones are measured as well.

    Up to 30 of each are all different; brainstorming has 39 prompts that are held out, the others more.
    """
    return [request for name in SHARES for request in requests(each, seed, use_cases=[name], held_out=True)]


def capital_questions() -> list[Request]:
    """The capital of every country that the corpus states it for, asked in the held-out phrasings (C02, C08).

    Most of these countries also occur in training requests, in other words; `held_out_requests` has the rest.
    """
    [task] = [task for task in TASKS if task.name == "capital"]
    contents = [_fact_about("capital", country) for country in stated("capital")]
    return [_put(task, phrasing, content) for phrasing in task.held_out_phrasings for content in contents]


def conversations(items: Iterable) -> list[list[dict[str, str]]]:
    """Requests or benchmark items as conversations to train on: the prompt is the user's, the response the assistant's.

    >>> conversations([Request("other", "sum", "1 + 1?", "2", len)])
    [[{'role': 'user', 'content': '1 + 1?'}, {'role': 'assistant', 'content': '2'}]]
    """
    roles = ("user", "assistant")
    return [
        [{"role": role, "content": text} for role, text in zip(roles, (item.prompt, item.response), strict=True)]
        for item in items
    ]


def respond(lm, prompts: Sequence[str]) -> list[str]:
    """The most likely response to each request, one line, without the space that follows `Assistant:`."""
    asked = [chat_prompt(lm, prompt) for prompt in prompts]
    return [text.strip() for text in complete(lm, asked, max_new_tokens=ROOM, stop=("\n",))]


def score_by_use_case(asked: Sequence[Request], responses: Sequence[str]) -> dict[str, Estimate]:
    """Mean score of each use case that was asked, and "overall": the mean of these by the table's shares.

    Intervals are Wilson's at 95 %. A score between 0 and 1 varies less than a coin with the same mean, so they are on
    the safe side. `overall` has n = 1 / sum(w**2 / n_u), the effective number of requests under the weights w.

    Raises: ValueError when there are no requests, or not one response to each.
    """
    if not asked or len(asked) != len(responses):
        raise ValueError(f"responses: {len(responses)} given for {len(asked)} requests, expected one for each")
    scores: dict[str, list[float]] = {name: [] for name in SHARES}
    for request, response in zip(asked, responses, strict=True):
        scores[request.use_case].append(request.score(response))
    found = {name: wilson(sum(values) / len(values), len(values)) for name, values in scores.items() if values}
    total = sum(SHARES[name] for name in found)
    weights = {name: SHARES[name] / total for name in found}
    mean = sum(weights[name] * found[name].mean for name in found)
    effective = 1 / sum(weights[name] ** 2 / found[name].n for name in found)
    return {**found, "overall": wilson(mean, round(effective))}


def _check(count: int, use_cases: Iterable[str] | None) -> list[str]:
    if count < 0:
        raise ValueError(f"count={count}: expected 0 or more requests")
    chosen = list(SHARES if use_cases is None else use_cases)
    unknown = [name for name in chosen if name not in SHARES]
    if unknown or not chosen:
        raise ValueError(f"use_cases={chosen}: expected some of {', '.join(SHARES)}")
    return chosen


def _request(use_case: str, rng: random.Random, held_out: bool) -> Request:
    tasks = [task for task in TASKS if task.use_case == use_case]
    [task] = rng.choices(tasks, [task.weight for task in tasks])
    while relations.is_held_out(task.name, (content := task.draw(rng)).key) != held_out:
        pass
    return _put(task, rng.choice(task.held_out_phrasings if held_out else task.phrasings), content)


def _put(task: Task, phrasing: str, content: Content) -> Request:
    prompt, score = phrasing.format(**content.slots), verifiers.bounded(content.score)
    return Request(task.use_case, task.name, prompt, content.response, score)


# Generation ---------------------------------------------------------------------------------------------------------

TOPICS = (*tales.THINGS, *tales.ANIMALS, *tales.PLACES)


def _story(rng: random.Random) -> Content:
    story, _ = tales.plot(rng)
    hero = verifiers.people(story)[0]
    topic = rng.choice([topic for topic in TOPICS if verifiers.mentions(story, topic)])
    return Content(f"{hero}|{topic}", {"hero": hero, "topic": topic}, story, verifiers.tells(hero, topic))


def _review(rng: random.Random) -> Content:
    polarity, about = rng.choice(tuple(tales.VERDICTS)), rng.choice(tales.ABOUT)
    aspect = rng.choice(tales.ASPECTS[about])
    adjective = world.often(rng, tales.PHRASES[polarity, "adjective", about])
    verdict = tales.VERDICTS[polarity][0][0]
    more = tales.opinion(rng, polarity, about, sentences=2)
    response = f"The {aspect} was {adjective}. {more} This {about} is {verdict}."
    slots = {"polarity": polarity, "about": about, "aspect": aspect}
    return Content("|".join(slots.values()), slots, response, verifiers.reviews(**slots))


def _description(rng: random.Random) -> Content:
    fields = rng.sample(("capital", "language", "currency"), 2)
    name = rng.choice([name for name in stated("region") if all(name in corpus.STATED[f] for f in fields)])
    facts = [corpus.WORDINGS[f][0][1].format(name=name, value=corpus.STATED[f][name]) for f in ("region", *fields)]
    return Content(name, {"name": name}, " ".join(facts), verifiers.describes(name))


# Open questions -----------------------------------------------------------------------------------------------------


@functools.cache
def stated(name: str) -> list[str]:
    """Countries whose field the corpus states and whose name does not give it away (Mexico City, a leone)."""
    facts = ((c, verifiers.plain(c), verifiers.plain(value)) for c, value in corpus.STATED[name].items())
    return [c for c, country, value in facts if country not in value and value not in country]


def _fact_about(name: str, country: str) -> Content:
    value = corpus.STATED[name][country]
    response = corpus.WORDINGS[name][0][1].format(name=country, value=value)
    score = verifiers.answers(value, set(corpus.STATED[name].values()), asked=country)
    return Content(country, {"name": country}, response, score)


def _fact(name: str) -> Callable[[random.Random], Content]:
    return lambda rng: _fact_about(name, rng.choice(stated(name)))


def _word_fact(relation: str) -> Callable[[random.Random], Content]:
    values = {right for _, right in world.PAIRS[relation]}

    def draw(rng: random.Random) -> Content:
        left, right = rng.choice([pair for pair in world.PAIRS[relation] if pair[0] != pair[1]])
        response = corpus.WORD_FACTS[relation].format(left=left, right=right)
        return Content(left, {"word": left}, response, verifiers.answers(right, values, asked=left))

    return draw


# Brainstorming ------------------------------------------------------------------------------------------------------

COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}


def _ideas(topic: str, opening: str, members: Sequence[str], rng: random.Random) -> Content:
    count = rng.choice(tuple(COUNTS))
    # what comes to mind first: the tables begin with the usual words, and pocket LMs find no end to a random list
    response = f"{opening}: {', '.join(members[: COUNTS[count]])}."
    score = verifiers.lists(members, COUNTS[count])
    return Content(f"{topic}|{count}", {"topic": topic, "count": count}, response, score)


def _words(rng: random.Random) -> Content:
    category, words = rng.choice(tuple(world.WORDS.items()))
    return _ideas(category, category, words, rng)


def _points(rng: random.Random) -> Content:
    side, polarity = rng.choice((("good", "positive"), ("bad", "negative")))
    about = rng.choice(tales.ABOUT)
    phrases = [phrase for kind in ("adjective", "noun_phrase") for phrase in tales.PHRASES[polarity, kind, about]]
    return _ideas(f"{side} about a {about}", f"What was {side} about the {about}", phrases, rng)


# Chat ---------------------------------------------------------------------------------------------------------------


def _chat(
    reply: str, keys: Sequence[str], also: Sequence[str] = (), **choices: Sequence[str]
) -> Callable[[random.Random], Content]:
    """Small talk: the reply has to take up the `keys` that the user named; other slots of the reply are free."""

    def draw(rng: random.Random) -> Content:
        slots = {name: rng.choice(values) for name, values in choices.items()}
        asked = {name: slots[name] for name in keys}
        score = verifiers.replies([reply, *also], **asked)
        return Content("|".join(asked.values()), slots, reply.format(**slots), score)

    return draw


# Rewriting ----------------------------------------------------------------------------------------------------------


def _rewrite(
    view: Callable[[french.Sentence], tuple[str, str]], keep: Callable[[french.Sentence], bool] = lambda s: True
) -> Callable[[random.Random], Content]:
    def draw(rng: random.Random) -> Content:
        while not keep(sentence := french.sentence(rng)):
            pass
        source, gold = view(sentence)
        return Content(source, {"text": source}, gold, verifiers.approaches(gold, source))

    return draw


def _can_be_negated(sentence: french.Sentence) -> bool:
    # French turns "a house" into "the house" under a negation, which is no way to rewrite English
    determiner = getattr(sentence.complement, "determiner", french.THE)
    return not sentence.negated and determiner is not french.A


# Summaries ----------------------------------------------------------------------------------------------------------


def _story_summary(rng: random.Random) -> Content:
    story, summary = tales.plot(rng)
    return Content(story, {"text": story}, summary, verifiers.approaches(summary, story))


def _review_summary(rng: random.Random) -> Content:
    polarity, about = rng.choice(tuple(tales.VERDICTS)), rng.choice(tales.ABOUT)
    body = tales.review_body(rng, polarity, about)
    response = f"This {about} is {tales.VERDICTS[polarity][0][0]}."
    return Content(body, {"text": body, "about": about}, response, verifiers.verdicts(polarity, about))


# Classification -----------------------------------------------------------------------------------------------------


def _sentiment(rng: random.Random) -> Content:
    polarity = rng.choice(tuple(tales.VERDICTS))
    text = tales.opinion(rng, polarity, rng.choice(tales.ABOUT), sentences=2)
    return Content(text, {"text": text}, f"It is {polarity}.", verifiers.answers(polarity, tales.VERDICTS))


def _language(rng: random.Random) -> Content:
    sentence, name = french.sentence(rng), rng.choice(("French", "English"))
    text = sentence.french if name == "French" else sentence.english
    return Content(text, {"text": text}, f"It is {name}.", verifiers.answers(name, ("French", "English")))


# Other --------------------------------------------------------------------------------------------------------------


def _sum(rng: random.Random) -> Content:
    a, b = rng.randint(1, 50), rng.randint(1, 50)
    score = verifiers.answers(str(a + b), map(str, range(101)), asked=f"{a} {b}")
    return Content(f"{a}|{b}", {"a": str(a), "b": str(b)}, f"{a} + {b} = {a + b}", score)


def _difference(rng: random.Random) -> Content:
    b, rest = rng.randint(1, 25), rng.randint(1, 25)
    if rest == b:
        return _difference(rng)
    score = verifiers.answers(str(rest), map(str, range(101)), asked=f"{b + rest} {b}")
    return Content(f"{b + rest}|{b}", {"a": str(b + rest), "b": str(b)}, f"{b + rest} - {b} = {rest}", score)


# Questions about a given text ---------------------------------------------------------------------------------------


def _three_people(rng: random.Random, sentence: str, things: Sequence[str]) -> tuple[str, dict[str, str]]:
    """A sentence about each of three people, and {name: place or thing}."""
    names = [name for name, _ in rng.sample(world.NAMES, 3)]
    pairs = dict(zip(names, rng.sample(things, 3), strict=True))
    return " ".join(sentence.format(*pair) for pair in pairs.items()), pairs


def _whereabouts(rng: random.Random) -> Content:
    text, pairs = _three_people(rng, "{} is at the {}.", tales.PLACES)
    name, place = rng.choice(list(pairs.items()))
    score = verifiers.answers(place, pairs.values())
    return Content(text, {"text": text, "name": name}, f"{name} is at the {place}.", score)


def _owner(rng: random.Random) -> Content:
    text, pairs = _three_people(rng, "{} has a {}.", tales.THINGS)
    name, thing = rng.choice(list(pairs.items()))
    score = verifiers.answers(name, pairs)
    return Content(text, {"text": text, "thing": thing}, f"{name} has the {thing}.", score)


# Extraction ---------------------------------------------------------------------------------------------------------


def _people(rng: random.Random) -> Content:
    story, _ = tales.plot(rng)
    names = verifiers.people(story)
    return Content(story, {"text": story}, f"{', '.join(names)}.", verifiers.lists(names, len(names)))


def _members(rng: random.Random) -> Content:
    category, *others = rng.sample(tuple(world.WORDS), 4)
    right = rng.sample(world.WORDS[category], 2)
    mixed = right + [rng.choice(world.WORDS[other]) for other in others]
    rng.shuffle(mixed)
    found = [word for word in mixed if word in right]
    slots = {"words": ", ".join(mixed), "category": category}
    return Content(slots["words"], slots, f"{', '.join(found)}.", verifiers.lists(found, len(found)))


# The table of tasks -------------------------------------------------------------------------------------------------

_PEOPLE = tuple(name for name, _ in world.NAMES)
_COUNTRIES = tuple(country.name for country in world.COUNTRIES)

TASKS = (
    Task("generation", "story", (
        "Write a short story about {hero} and the {topic}.", "Tell me a story about {hero} and the {topic}.",
        "Please write a story about {hero}. It should mention the {topic}.",
        "I want to read a story with {hero} and the {topic}.", "Write about what {hero} did with the {topic}.",
    ), ("Make up a story about {hero} and the {topic}.", "Please tell a story with {hero} and the {topic} in it."),
        _story, weight=2),
    Task("generation", "review", (
        "Write a {polarity} review of a {about}. Say something about the {aspect}.",
        "Please write a {polarity} review of a {about} and its {aspect}.",
        "I need a {polarity} {about} review that mentions the {aspect}.",
        "Review a {about} with a {polarity} opinion of the {aspect}.",
    ), ("Give me a {polarity} review of a {about} that talks about the {aspect}.",
        "Could you write a {about} review? It should be {polarity} and mention the {aspect}."), _review),
    Task("generation", "country", (
        "Write a few sentences about {name}.", "Tell me about {name}.", "Describe {name}.",
        "Please write something about the country {name}.", "Write an article about {name}.",
    ), ("Write a short text about {name}.", "Please describe the country {name}."), _description),
    Task("open qa", "capital", (
        "What is the capital of {name}?", "Which city is the capital of {name}?", "Name the capital of {name}.",
        "What is the capital city of {name}?", "{name} has which capital?", "I want to know the capital of {name}.",
    ), ("Tell me the capital of {name}.", "What city is the capital of {name}?", "Please name {name}'s capital."),
        _fact("capital"), weight=3),
    Task("open qa", "language", (
        "What language do people speak in {name}?", "What is the language of {name}?", "Name the language of {name}.",
        "Which language is spoken in {name}?",
    ), ("Tell me the language of {name}.", "Which language do most people speak in {name}?"), _fact("language")),
    Task("open qa", "currency", (
        "What is the currency of {name}?", "Name the currency of {name}.", "How do people pay in {name}?",
        "Which currency is used in {name}?",
    ), ("Tell me the currency of {name}.", "What do people pay with in {name}?"), _fact("currency")),
    Task("open qa", "region", (
        "Where is {name}?", "In which region is {name}?", "Where does the country {name} lie?",
        "What part of the world is {name} in?",
    ), ("Tell me where {name} is.", "In what part of the world does {name} lie?"), _fact("region")),
    Task("open qa", "opposite", (
        "What is the opposite of {word}?", "Please tell me the opposite of {word}.", "Name the opposite of {word}.",
    ), ("Tell me the opposite of {word}.", "Which word is the opposite of {word}?"), _word_fact("opposite")),
    Task("brainstorming", "words", (
        "Name {count} words for {topic}.", "Give me {count} ideas for {topic}.", "List {count} words for {topic}.",
        "I need {count} words for {topic}.", "Think of {count} words under {topic}.",
    ), ("Please give me {count} words for {topic}.", "What are {count} ideas for {topic}?",
        "Tell me {count} words for {topic}."), _words, weight=2),
    Task("brainstorming", "points", (
        "What can be {topic}? Give me {count} ideas.", "Name {count} things that can be {topic}.",
        "List {count} things that are {topic}.",
    ), ("Give me {count} ideas for what can be {topic}.", "Think of {count} things that are {topic}.",
        "Tell me {count} things that can be {topic}."), _points),
    Task("chat", "greeting", (
        "Hello, my name is {name}.", "Good morning, I am {name}.", "Hello, {name} is my name.", "Hi, I am {name}.",
    ), ("Good morning, my name is {name}.", "Hello, I am {name}."),
        _chat("Good morning, {name}. How are you today?", ["name"], ["Good morning, {name}."], name=_PEOPLE)),
    Task("chat", "purchase", (
        "I bought a {color} {thing}.", "Yesterday I bought a {color} {thing}.", "Look at my new {color} {thing}.",
        "I have a new {color} {thing}.",
    ), ("Look, I bought a {color} {thing}.", "Today I bought a new {color} {thing}."),
        _chat("I like your {color} {thing}.", ["color", "thing"], ["I like your {color} {thing} very much."],
              color=tales.COLORS, thing=tales.THINGS)),
    Task("chat", "lost", (
        "Did you see my {color} {thing}?", "I lost my {color} {thing}.", "Where is my {color} {thing}?",
        "Have you seen my {color} {thing}?",
    ), ("I can not find my {color} {thing}.", "Do you know where my {color} {thing} is?"),
        _chat("I think your {color} {thing} is in the {place}.", ["color", "thing"],
              color=tales.COLORS, thing=tales.THINGS, place=tales.PLACES)),
    Task("chat", "meeting", (
        "Shall we go to the {place} on {day}?", "Let us meet at the {place} on {day}.",
        "Will you come to the {place} on {day}?", "On {day} I want to go to the {place} with you.",
    ), ("Shall we meet at the {place} on {day}?", "Do you want to go to the {place} on {day}?"),
        _chat("Yes, see you at the {place} on {day}.", ["place", "day"], ["Yes, see you in the {place} on {day}."],
              place=tales.PLACES, day=tales.DAYS)),
    Task("chat", "origin", (
        "I come from {country}.", "My mother comes from {country}.", "I was born in {country}.",
        "My home is in {country}.", "My friend lives in {country}.",
    ), ("My father comes from {country}.", "I live in {country}."),
        _chat("My {relative} travels to {country} every year.", ["country"], ["I was in {country} last winter."],
              country=_COUNTRIES, relative=tales.RELATIVES)),
    Task("rewrite", "to english", (
        "Translate into English: {text}", "Please translate into English: {text}", "Say this in English: {text}",
        "Write this in English: {text}",
    ), ("Put this into English: {text}", "Please say this in English: {text}"),
        _rewrite(lambda s: (s.french, s.english))),
    Task("rewrite", "to french", (
        "Translate into French: {text}", "Please translate into French: {text}", "Say this in French: {text}",
        "Write this in French: {text}",
    ), ("Put this into French: {text}", "Please say this in French: {text}"),
        _rewrite(lambda s: (s.english, s.french))),
    Task("rewrite", "negation", (
        "Write this with not: {text}", "Please say that this is not so: {text}", "Make this negative: {text}",
        "Say the opposite of this: {text}",
    ), ("Say that this is not so: {text}", "Please make this negative: {text}"),
        _rewrite(lambda s: (s.english, french.negate(s).english), _can_be_negated)),
    Task("summarization", "story summary", (
        "Sum this up: {text}", "Please sum this up: {text}", "Write a summary of this story: {text}",
        "What happens in this story? {text}", "{text} Sum it up in one sentence.",
    ), ("Please write a summary: {text}", "Sum up this story: {text}"), _story_summary, weight=2),
    Task("summarization", "review summary", (
        "Sum up this review of a {about}: {text}", "Write a short verdict on this {about}: {text}",
        "{text} In short, how is this {about}?",
    ), ("Please sum up this {about} review: {text}", "What is the verdict on this {about}? {text}"), _review_summary),
    Task("classification", "sentiment", (
        "Is this review positive or negative? {text}", "Positive or negative? {text}",
        "{text} Is that positive or negative?", "Say whether this is positive or negative: {text}",
    ), ("Is this positive or negative? {text}", "Is the following review negative or positive? {text}"), _sentiment),
    Task("classification", "language of text", (
        "Is this French or English? {text}", "Which language is this, French or English? {text}",
        "Say whether this is French or English: {text}",
    ), ("French or English? {text}", "Is the following text English or French? {text}"), _language),
    Task("other", "sum", (
        "What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} + {b}?", "Please add {b} to {a}.",
    ), ("Tell me what {a} + {b} is.", "Please add {a} and {b}."), _sum),
    Task("other", "difference", (
        "What is {a} - {b}?", "Take {b} from {a}.", "How much is {a} - {b}?",
    ), ("Tell me what {a} - {b} is.", "Please take {b} from {a}."), _difference),
    Task("closed qa", "whereabouts", (
        "{text} Where is {name}?", "Read this: {text} Where is {name} now?", "{text} At which place is {name}?",
        "Where is {name}? {text}",
    ), ("{text} Tell me where {name} is.", "{text} Which place is {name} at?"), _whereabouts),
    Task("closed qa", "owner", (
        "{text} Who has the {thing}?", "Read this: {text} Who has the {thing} now?", "Who has the {thing}? {text}",
    ), ("{text} Tell me who has the {thing}.", "{text} Whose is the {thing}?"), _owner),
    Task("extract", "people", (
        "List the people in this story: {text}", "Who is in this story? {text}", "{text} Name the people.",
        "Find the names in this text: {text}",
    ), ("Name the people in this story: {text}", "List the names in this text: {text}"), _people),
    Task("extract", "members", (
        "Which of these belong to {category}? {words}", "Find the words for {category}: {words}",
        "{words}: which words belong to {category}?",
    ), ("Name the words that belong to {category}: {words}", "List the words for {category}: {words}"), _members),
)  # fmt: skip
