"""Verifiers against texts judged by hand."""

import random
import string
import unicodedata

import pytest

from ptlearn.pocket import tales, verifiers

CAPITALS = ["Nairobi", "Port Moresby", "Paris", "Mexico City"]
STORY = (
    "One morning Anna found a fox in the garden. The fox was calm and would not move. Anna gave it some soup. "
    "It followed her to the barn. They have been friends ever since."
)


def test_answers_wants_the_value_in_whole_words_and_no_other():
    score = verifiers.answers("Port Moresby", CAPITALS, asked="Papua New Guinea")
    for right in ("Port Moresby", "The capital is PORT  MORESBY.", "Port Moresby, of course!"):
        assert score(right) == 1, right
    for wrong in ("Port", "Moresby Port", "Port Moresbys", "Paris", "Paris or Port Moresby", "Port Moresby " * 16):
        assert score(wrong) == 0, wrong


def test_answers_may_repeat_what_was_asked():
    """17 is a rival of 22, but not where the question names it."""
    score = verifiers.answers("22", map(str, range(101)), asked="17 5")
    assert score("17 + 5 = 22") == 1 and score("17 + 6 = 22") == 0 and score("17 + 5 = 23") == 0


def test_approaches_by_hand():
    score = verifiers.approaches("the cat does not see the dog", "the cat sees the dog")
    # words in common, in order: 7 of 7, 4 of 5 + 7 (two thirds, the start), 6 of 6 + 7
    assert score("The cat does not see the dog.") == 1
    assert score("the cat sees the dog") == 0
    assert score("the cat does not see dog") == pytest.approx((12 / 13 - 2 / 3) / (1 / 3))
    assert score("my bird sings a song") == 0


def test_approaches_gives_nothing_for_half_of_the_words():
    score = verifiers.approaches("le chat voit la maison", "the cat sees the house")
    assert score("le chat aime un chien") == 0  # 2 of 5
    assert score("le chat voit un chien") == pytest.approx(0.2)  # 3 of 5: (0.6 - 0.5) / 0.5
    with pytest.raises(ValueError, match="'The cat!'"):
        verifiers.approaches("the cat", "The cat!")


def test_lists_by_hand():
    score = verifiers.lists(["dog", "cat", "cow", "Trinidad and Tobago"], 3)
    for text, expected in [
        ("dog, cat, cow", 1),
        ("Some animals: dog; cat\nTrinidad and Tobago.", 1),
        ("dog, cat and cow.", 1),
        ("dog, cat", 2 / 3),
        ("dog, dog, dog, dog", 1 / 4),
        ("dog, cat, apple", 1 / 3),
        ("apple", 0),
        ("dogs and cats", 0),
    ]:
        assert score(text) == pytest.approx(expected), text


def test_replies_by_hand():
    score = verifiers.replies(["I like your {color} {thing}.", "See the {thing}."], color="red", thing="hat")
    for text, expected in [
        ("I like your red hat.", 1),
        (" i like your RED hat. ", 1),
        ("I like your red kite.", 0.5),
        ("See the hat.", 0.5),
        ("I like your blue kite.", 0),
        ("I like your red hat. I do.", 0),
        ("red hat", 0),
    ]:
        assert score(text) == expected, text


def test_tells_by_hand():
    score = verifiers.tells("Anna", "fox")
    assert score(STORY) == 1
    assert score(STORY.replace("fox", "dog")) == 0.5
    first, second, *_ = verifiers.sentences(STORY)
    assert score(first) == 0.25 and score(f"{first} {first} {second} {second}") == 0.5
    assert score(f"{STORY} The end is near. Anna loves cake.") == pytest.approx(5 / 7)
    assert score("Anna fox " * 20) == 0 and score("Anna is a fox. " * 4) == 0


def test_every_sentence_of_a_plot_is_a_story_sentence():
    rng = random.Random(0)
    for _ in range(300):
        story, summary = tales.plot(rng)
        assert verifiers.tells()(story) == 1 and verifiers.tells()(summary) == 0, story


def test_reviews_by_hand():
    score = verifiers.reviews("positive", "hotel", "room")
    good = "The room was brilliant. I slept like a baby. This hotel is great."
    assert score(good) == 1
    assert score(good.replace("room", "pool")) == pytest.approx(2 / 3)
    assert score(good.replace("great", "awful")) == pytest.approx(2 / 3)
    assert score(good.replace("hotel", "meal")) == pytest.approx(2 / 3)
    assert score(good.replace("brilliant", "horrible")) == pytest.approx(1 / 2 * 2 / 3)  # one phrase of two is right
    assert score("The room. This hotel is great.") == 0
    assert verifiers.reviews("negative", "hotel", "room")(good) == 0


def test_describes_by_hand():
    score = verifiers.describes("Kenya")
    true = ["Kenya is a country in East Africa.", "The capital of Kenya is Nairobi.", "Its currency is the shilling."]
    assert score(" ".join(true)) == 1
    assert score(" ".join(true[:2])) == pytest.approx(2 / 3)
    assert score(" ".join([*true, "The language of Kenya is French."])) == pytest.approx(3 / 4)
    assert score(" ".join(true[1:2] * 3)) == pytest.approx(1 / 3)
    assert verifiers.describes("Uganda")(" ".join(true[:2])) == 0


# every verifier that compares texts, and a right text with an apostrophe or an accent in it
SIGNED = {
    "answers": (verifiers.answers("Côte d'Ivoire", ["Mali"]), "Côte d'Ivoire"),
    "approaches": (verifiers.approaches("l'été est long", "the summer"), "l'été est long"),
    "lists": (verifiers.lists(["d'Artagnan", "Zoé"], 2), "d'Artagnan, Zoé"),
    "replies": (verifiers.replies(["It's {thing}, isn't it?"], thing="l'été"), "It's l'été, isn't it?"),
    "describes": (verifiers.describes("Grenada"), "The capital of Grenada is Saint George's."),
}


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_typographic_signs_cost_nothing(name, form):
    score, text = SIGNED[name]
    assert score(unicodedata.normalize(form, text.replace("'", "\u2019"))) == score(text) > 0
    assert score(text.replace("i", "o").replace("é", "e")) < score(text)


def test_sentences_and_names_are_read_in_the_signs_of_a_keyboard(monkeypatch):
    assert verifiers.sentences("I don\u2019t. E\u0301te\u0301!") == ["I don't.", "Été!"]
    monkeypatch.setattr(verifiers, "NAMES", {"Zoé"})
    assert verifiers.people("Zoe\u0301 met Zoe.") == ["Zoé"]


def test_people_and_sentences():
    assert verifiers.people("Peter saw Annabel and Anna. Peter left.") == ["Peter", "Anna"]
    assert verifiers.sentences(" One! Two?  Three. ") == ["One!", "Two?", "Three."]
    assert verifiers.sentences("  ") == []


def test_bounded_refuses_what_cannot_be_an_answer():
    score = verifiers.bounded(lambda text: 1.0)
    assert [score(text) for text in ("", " \n", "...", "a" * 1001, "a" * 1000)] == [0, 0, 0, 0, 1]


def noise(rng):
    alphabet = rng.choice([string.printable, ".,:;!? \n", "{}()[]*+?\\|^$", "éœ\u202e\x00漢🦉 .", "Anna fox. and, "])
    return "".join(rng.choice(alphabet) for _ in range(rng.choice([0, 1, 5, 50, 900, 3000])))


def test_no_text_breaks_a_verifier():
    rng = random.Random(0)
    scores = [
        verifiers.answers("22", map(str, range(101)), asked="17 5"),
        verifiers.approaches("the cat does not see the dog", "the cat sees the dog"),
        verifiers.lists(["dog", "cat"], 2),
        verifiers.replies(["I like your {color} {thing}."], color="red", thing="hat"),
        verifiers.tells("Anna", "fox"),
        verifiers.reviews("positive", "hotel", "room"),
        verifiers.describes("Kenya"),
        verifiers.verdicts("negative", "movie"),
    ]
    for _ in range(100):
        text = noise(rng)
        assert all(0 <= score(text) <= 1 for score in map(verifiers.bounded, scores)), text
