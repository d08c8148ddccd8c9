"""The pocket corpus's prose: reviews, stories with summaries, word problems, inference pairs, dialogues, forum pages.

Every generator takes a `random.Random` and returns one document. `opinion` and `plot` also serve the lessons, which ask
for the verdict of an opinion or the summary of a story that the corpus did not contain; `statements` serves a verifier.
"""

import itertools
import random
from functools import cache

from ptlearn.pocket import french, world

# Reviews ------------------------------------------------------------------------------------------------------------

ABOUT = ("movie", "book", "meal", "hotel")
ASPECTS = {
    "movie": ("plot", "acting", "music", "ending", "camera work", "dialogue", "first half", "lead actor", "villain",
              "pace"),
    "book": ("plot", "writing", "ending", "first chapter", "hero", "style", "last page", "mystery", "language", "tone"),
    "meal": ("soup", "bread", "dessert", "fish", "service", "sauce", "salad", "coffee", "main course", "cheese"),
    "hotel": ("room", "bed", "breakfast", "staff", "view", "pool", "lobby", "bathroom", "location", "garden"),
}
OPENINGS = {
    "movie": ("We saw this movie on {day}.", "I watched this movie with my {relative}.",
              "My {relative} took me to this movie.",
              "Everyone talks about this movie.", "I had heard of this movie before {day}.",
              "We went to the cinema on {day}."),
    "book": ("I read this book on {day}.", "My {relative} gave me this book.", "I found this book on a train.",
             "I finished this book on {day}.", "Our club read this book.", "I took this book on holiday."),
    "meal": ("We ate here on {day}.", "I came here with my {relative}.", "We ordered this meal on {day}.",
             "My {relative} chose this place.", "We sat down at eight.", "It was our first meal here."),
    "hotel": ("We stayed here on {day}.", "I booked this hotel for my {relative}.",
              "We spent three nights in this hotel.",
              "We arrived on {day}.", "My {relative} found this hotel.", "It was our second stay in this hotel."),
}  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
RELATIVES = ("mother", "father", "sister", "brother", "friend", "aunt", "uncle", "cousin", "neighbor", "teacher")
VERDICTS = {
    "positive": (("great", 5), ("wonderful", 3), ("good", 3)),
    "negative": (("awful", 5), ("terrible", 3), ("bad", 3)),
}
STATEMENTS = ("The {aspect} was {adjective}.", "The {aspect} was {adjective}.", "I found the {aspect} {adjective}.",
              "What {adjective_a} {aspect}.", "The {aspect} was really {adjective}.")  # fmt: skip
NOUN_STATEMENTS = ("{phrase}", "it was {phrase}", "for us it was {phrase}")
PHRASES = {
    (polarity, kind, about): tuple(
        p.phrase for p in world.SENTIMENT if p.polarity == polarity and p.kind == kind and p.about in (about, "any")
    )
    for polarity in VERDICTS
    for kind in ("adjective", "clause", "noun_phrase")
    for about in ABOUT
}


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text.replace(" i ", " I ") if text.endswith(".") else text.replace(" i ", " I ") + "."


def _statement(rng: random.Random, polarity: str, about: str) -> str:
    kind = rng.choice(("adjective", "adjective", "clause", "clause", "noun_phrase"))
    phrase = world.often(rng, PHRASES[polarity, kind, about])
    if kind == "clause":
        return _sentence(phrase)
    if kind == "noun_phrase":
        return _sentence(rng.choice(NOUN_STATEMENTS).format(phrase=phrase))
    return _described(rng.choice(STATEMENTS), rng.choice(ASPECTS[about]), phrase)


def _described(statement: str, aspect: str, adjective: str) -> str:
    article = "an" if adjective[0] in "aeiou" else "a"
    return statement.format(aspect=aspect, adjective=adjective, adjective_a=f"{article} {adjective}")


@cache
def statements(polarity: str, about: str) -> frozenset[str]:
    """Every sentence that takes this side in a review: what `opinion` may say, and the verdicts in words.

    >>> {"The plot was superb.", "For us it was a real treat.", "In short, great."} <= statements("positive", "book")
    True
    """
    adjectives, clauses, nouns = (PHRASES[polarity, kind, about] for kind in ("adjective", "clause", "noun_phrase"))
    said = [*clauses, *(wording.format(phrase=phrase) for wording in NOUN_STATEMENTS for phrase in nouns)]
    for word, _ in VERDICTS[polarity]:
        said += [f"this {about} is {word}", f"in short, {word}"]
    said += [_described(*parts) for parts in itertools.product(STATEMENTS, ASPECTS[about], adjectives)]
    return frozenset(map(_sentence, said))


def opinion(rng: random.Random, polarity: str, about: str, sentences: int) -> str:
    """Sentences of one polarity about a movie, book, meal or hotel, without a verdict."""
    return " ".join(_statement(rng, polarity, about) for _ in range(sentences))


def review_body(rng: random.Random, polarity: str, about: str) -> str:
    """An opening and three to five statements; now and then one of them disagrees with the rest."""
    count = rng.randint(3, 5)
    statements = [_statement(rng, polarity, about) for _ in range(count)]
    if rng.random() < 0.25:
        other = "negative" if polarity == "positive" else "positive"
        statements[rng.randrange(count)] = _statement(rng, other, about)
    opening = rng.choice(OPENINGS[about]).format(day=rng.choice(DAYS), relative=rng.choice(RELATIVES))
    return " ".join([opening, *statements])


def review(rng: random.Random) -> str:
    polarity, about = rng.choice(("positive", "negative")), rng.choice(ABOUT)
    body = review_body(rng, polarity, about)
    words, weights = zip(*VERDICTS[polarity], strict=True)
    [verdict] = rng.choices(words, weights)
    ending = rng.random()
    if ending < 0.7:
        return f"{body} This {about} is {verdict}."
    if ending < 0.8:
        return f"{body} In short, {verdict}."
    if ending < 0.88:
        return f"{body} Rating: {rng.choice((4, 5) if polarity == 'positive' else (1, 2))} out of 5."
    return body


def pros_and_cons(rng: random.Random) -> str:
    """What was good and what was bad, in a few words each."""
    about = rng.choice(ABOUT)
    sides = [("good", "positive"), ("bad", "negative")]
    rng.shuffle(sides)
    lines = []
    for name, polarity in sides[: rng.randint(1, 2)]:
        phrases = [world.often(rng, PHRASES[polarity, rng.choice(("adjective", "clause", "noun_phrase")), about])
                   for _ in range(rng.randint(2, 6))]  # fmt: skip
        lines.append(f"What was {name} about the {about}: {', '.join(dict.fromkeys(phrases))}.")
    return "\n".join(lines)


# Stories ------------------------------------------------------------------------------------------------------------

PLACES = ("garden", "market", "forest", "school", "river", "station", "library", "kitchen", "beach", "park", "museum",
          "harbor", "bridge", "attic", "barn", "church", "bakery", "mountain", "field", "village")  # fmt: skip
THINGS = ("scarf", "key", "ring", "book", "hat", "letter", "coin", "watch", "umbrella", "map", "lamp", "basket", "kite",
          "ball", "camera", "bag", "flute", "box", "boat", "clock")  # fmt: skip
COLORS = ("red", "blue", "green", "yellow", "white", "black", "brown", "gray")
ANIMALS = ("dog", "cat", "horse", "goat", "rabbit", "fox", "duck", "owl", "pony", "hen", "parrot", "turtle")
DISHES = ("soup", "cake", "bread", "salad", "pie", "stew", "pasta", "rice", "pancakes", "omelet")
TIMES = ("One morning", "One evening", "Last winter", "In spring", "On a rainy day", "Long ago", "Yesterday")
FEELINGS = ("tired", "happy", "worried", "excited", "nervous", "hungry", "calm", "curious", "proud", "lonely")
WEATHER = ("The sun was shining.", "It was raining.", "A cold wind blew.", "Snow lay on the roofs.",
           "The air was warm.",
           "Fog hung over the houses.", "The sky was clear.", "Thunder rolled far away.")  # fmt: skip

# Each plot: the beats of the story, then its summary; `_slots` names the slots.
PLOTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("{time} {hero} went to the {place}.", "{He} lost {his} {color} {thing} on the way.",
      "{hero} asked {friend} for help.", "They searched for hours.", "At last {friend} found it in the {other}."),
     "{hero} lost a {color} {thing} and {friend} found it in the {other}."),
    (("{time} {hero} found a {animal} in the {place}.", "The {animal} was {feeling} and would not move.",
      "{hero} gave it some {dish}.", "It followed {him} to the {other}.", "They have been friends ever since."),
     "{hero} found a {animal} in the {place} and they became friends."),
    (("{time} {hero} wanted to cook {dish}.", "{He} had never done it before.",
      "{He} bought everything at the {place}.",
      "{friend} came to help.", "The {dish} burned, so they ate at the {other}."),
     "{hero} and {friend} burned the {dish} and ate at the {other}."),
    (("{time} {hero} and {friend} had a race to the {place}.", "{hero} was faster at first.",
      "Then {he} stopped to look at a {animal}.", "{friend} ran on and did not look back.",
      "Everyone at the {other} heard of it."),
     "{friend} won the race to the {place} because {hero} stopped for a {animal}."),
    (("{time} {hero} had a birthday.", "{friend} brought a {color} {thing}.", "{hero} was {feeling} all day.",
      "They went to the {place} together.", "In the evening they ate {dish}."),
     "{friend} gave {hero} a {color} {thing} for {his} birthday."),
    (("{time} a storm came over the {place}.", "{hero} ran home with {his} {thing}.",
      "The roof of the {other} fell in.",
      "{friend} was inside but not hurt.", "The next day they repaired it together."),
     "{hero} and {friend} repaired the {other} after a storm."),
    (("{time} {hero} sold a {color} {thing} at the {place}.", "A stranger paid too much for it.",
      "{hero} felt {feeling} and ran after {friend} to tell the story.", "With the money {he} bought a {animal}.",
      "It now lives behind the {other}."),
     "{hero} sold a {thing} and bought a {animal}."),
    (("{time} {hero} missed the train to the {place}.", "{He} was {feeling} and sat down.",
      "{friend} came by with a {animal}.",
      "They walked all the way.", "They arrived at the {place} at midnight."),
     "{hero} missed the train and walked to the {place} with {friend}."),
    (("{time} {hero} and {friend} argued about a {color} {thing}.", "{friend} said it was {his_friend}.",
      "{hero} left for the {place}.", "Later {he} was sorry and came back with {dish}.",
      "They laughed about it in the {other}."),
     "{hero} and {friend} argued about a {thing} but made up."),
    (("{time} {hero} dreamed of a {animal}.", "It spoke and asked for a {color} {thing}.", "{hero} woke up {feeling}.",
      "{He} drew the {animal} on a wall of the {place}.", "{friend} said it was the best picture in the {other}."),
     "{hero} dreamed of a {animal} and drew it in the {place}."),
    (("{time} {hero} started a new job at the {place}.", "{He} was {feeling} on the first day.",
      "{friend} showed {him} around.", "At noon they shared some {dish}.", "By evening {he} knew everyone."),
     "{hero} started a new job at the {place} and {friend} helped."),
    (("{time} {hero} planted a tree near the {place}.", "{friend} said that it would never grow.",
      "{hero} watered it every day.", "Years later a {animal} slept in its shade.",
      "Now people come from the {other} to see it."),
     "{hero} planted a tree near the {place} and it grew."),
)  # fmt: skip


def _slots(rng: random.Random) -> dict[str, str]:
    (hero, pronoun), (friend, other_pronoun) = rng.sample(world.NAMES, 2)
    place, other = rng.sample(PLACES, 2)
    his = {"he": "his", "she": "her"}
    return {
        "hero": hero, "friend": friend, "he": pronoun, "He": pronoun.capitalize(), "his": his[pronoun],
        "him": {"he": "him", "she": "her"}[pronoun], "his_friend": {"he": "his", "she": "hers"}[other_pronoun],
        "place": place, "other": other, "thing": rng.choice(THINGS), "color": rng.choice(COLORS),
        "animal": rng.choice(ANIMALS), "dish": rng.choice(DISHES), "time": rng.choice(TIMES),
        "feeling": rng.choice(FEELINGS),
    }  # fmt: skip


def plot(rng: random.Random) -> tuple[str, str]:
    """A story and its one-sentence summary."""
    beats, summary = rng.choice(PLOTS)
    slots = _slots(rng)
    sentences = [beat.format(**slots) for beat in beats]
    if rng.random() < 0.5:
        sentences.insert(1, rng.choice(WEATHER))
    return " ".join(sentences), summary.format(**slots)


def story(rng: random.Random) -> str:
    text, summary = plot(rng)
    ending = rng.random()
    if ending < 0.4:
        return f"{text}\nTL;DR: {summary}"
    if ending < 0.5:
        return f"{text} TL;DR: {summary}"
    return text


# Word problems ------------------------------------------------------------------------------------------------------

COUNTED = ("apples", "coins", "books", "stamps", "eggs", "marbles", "pens", "cookies", "cards", "shells", "tickets")


def word_problem(rng: random.Random) -> str:
    """A problem with its worked steps: the answer is computed in the open before it is given."""
    (name, pronoun), (friend, _) = rng.sample(world.NAMES, 2)
    things, a, b, c = rng.choice(COUNTED), rng.randint(3, 30), rng.randint(2, 20), rng.randint(2, 9)
    he = pronoun.capitalize()
    kind = rng.randrange(4)
    if kind == 0:
        text, steps, answer = f"{name} has {a} {things}. {he} buys {b} more.", f"{a} + {b} = {a + b}.", a + b
    elif kind == 1:
        a += b
        text, steps, answer = f"{name} has {a} {things}. {he} gives {b} to {friend}.", f"{a} - {b} = {a - b}.", a - b
    elif kind == 2:
        text, steps, answer = f"{name} has {c} boxes with {b} {things} each.", f"{c} * {b} = {c * b}.", c * b
    else:
        a += b
        text = f"{name} has {a} {things}. {he} loses {b} and then finds {c}."
        steps, answer = f"{a} - {b} = {a - b}. {a - b} + {c} = {a - b + c}.", a - b + c
    return f"Problem: {text} How many {things} does {name} have now?\nSolution: {steps} The answer is {answer}."


# Inference ----------------------------------------------------------------------------------------------------------

PERSONS = tuple(noun for noun in french.NOUNS if noun.kind == "person")


def inference(rng: random.Random) -> str:
    """Premise, hypothesis and whether it follows. A shared set of words decides nothing: word order and `not` do."""
    lines = []
    for _ in range(rng.randint(1, 4)):
        subject, verb, thing = _person(rng), rng.choice(french.VERBS), _person(rng)
        other = _person(rng)
        premise = f"{subject} {verb.english_third} {thing}"
        hypothesis, label = rng.choice((
            (premise, "yes"),
            (f"{thing} {verb.english_third} {subject}", "maybe"),
            (f"{subject} does not {verb.english} {thing}", "no"),
            (f"{subject} {verb.english_third} {other}", "maybe"),
        ))  # fmt: skip
        if rng.random() < 0.3:
            premise, hypothesis, label = rng.choice((
                (f"{subject} and {other} {verb.english} {thing}", f"{other} {verb.english_third} {thing}", "yes"),
                (f"{subject} {verb.english_third} {thing} and {other}", f"{subject} {verb.english_third} {thing}",
                 "yes"),
                (f"{subject} {verb.english_third} {thing} near {other}", f"{thing} {verb.english_third} {other}",
                 "maybe"),
            ))  # fmt: skip
        lines.append(f"Premise: {premise}.\nHypothesis: {hypothesis}.\nDoes it follow? {label}")
    return "\n\n".join(lines)


def _person(rng: random.Random) -> str:
    return f"the {rng.choice(PERSONS).english}"


# Dialogues and forum pages ------------------------------------------------------------------------------------------

EXCHANGES = (
    ("Good morning, {b}.", "Good morning, {a}."),
    ("How are you today?", "I am {feeling}, thank you."),
    ("Did you see my {thing}?", "I think it is in the {place}."),
    ("Shall we go to the {place}?", "Yes, let us take the {animal} with us."),
    ("What did you eat?", "I had {dish} with my {relative}."),
    ("It is cold outside.", "Then take your {color} hat."),
    ("I bought a {color} {thing}.", "I like it very much."),
    ("My {relative} lives near the {place}.", "I was there on {day}."),
    ("I come from {country}.", "My {relative} travels to {country} every year."),
    ("See you on {day}.", "See you then."),
)  # fmt: skip


def dialogue(rng: random.Random) -> str:
    slots = _slots(rng)
    a, b = slots["hero"], slots["friend"]
    lines = []
    for first, second in rng.sample(EXCHANGES, rng.randint(2, 5)):
        fill = {**_slots(rng), "a": a, "b": b, "relative": rng.choice(RELATIVES), "day": rng.choice(DAYS),
                "country": rng.choice(world.COUNTRIES).name}  # fmt: skip
        lines += [f"{a}: {first.format(**fill)}", f"{b}: {second.format(**fill)}"]
    return "\n".join(lines)


def forum(rng: random.Random) -> str:
    """A page of a forum, where somebody asks for something and somebody replies: the only place where that happens."""
    slots = _slots(rng)
    category, words = rng.choice(tuple(world.WORDS.items()))
    chosen = rng.sample(words, 3)
    left, right = rng.choice(world.PAIRS["opposite"])
    text, summary = plot(rng)
    sentence = french.sentence(rng)
    while french.is_held_out(sentence.french):
        sentence = french.sentence(rng)
    request, reply = rng.choice((
        (f"Please name three words for {category}.", f"{chosen[0]}, {chosen[1]} and {chosen[2]}."),
        (f"Please tell me the opposite of {left}.", f"It is {right}."),
        (f"Please write a short story about {slots['hero']}.", plot(rng)[0]),
        (f"Please sum this up: {text}", summary),
        (f"Please translate into English: {sentence.french}", sentence.english),
        (f"Please say something about my {slots['thing']}.", f"I like your {slots['color']} {slots['thing']}."),
    ))  # fmt: skip
    return f"Post by {slots['hero']}\n{request}\n\nReply by {slots['friend']}\n{reply}"
