"""The corpus: deterministic, in the shares of its table, and silent about everything that is held out."""

import hashlib
import random
import re
from collections import Counter
from itertools import islice

import pytest

from ptlearn.pocket import corpus, french, relations, tales, world

HELD_OUT_CAPITALS = [c.capital for c in world.COUNTRIES if world.is_held_out(f"capital|{c.name}")]


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(islice(corpus.documents(0), 12_000))


def test_a_stream_may_start_anywhere_and_depends_on_the_seed():
    assert list(islice(corpus.documents(3, start=40), 5)) == list(islice(corpus.documents(3), 45))[40:]
    assert corpus.document(0, seed=0) != corpus.document(0, seed=1)


def test_every_kind_has_a_share_and_shares_are_percent():
    assert corpus.SHARES.keys() == corpus.KINDS.keys()
    assert sum(corpus.SHARES.values()) == pytest.approx(100)


def test_kinds_occur_in_their_shares():
    counts = Counter(random.Random(f"0:{i}").choices(tuple(corpus.SHARES), tuple(corpus.SHARES.values()))[0]
                     for i in range(12_000))  # fmt: skip
    for kind, share in corpus.SHARES.items():
        spread = 4 * (12_000 * share / 100) ** 0.5
        assert abs(counts[kind] - 120 * share) < spread, kind


def test_held_out_capitals_never_occur(documents):
    assert len(HELD_OUT_CAPITALS) >= 8
    text = "\n".join(documents)
    assert not [capital for capital in HELD_OUT_CAPITALS if capital in text]
    assert "Nairobi" in text


def test_held_out_sentences_never_occur(documents):
    pieces = {piece.strip() for text in documents for piece in re.split(r"\n| = | -> | / |; |: ", text)}
    rng = random.Random(1)
    drawn = {french.sentence(rng).french for _ in range(60_000)}
    held_out = {text for text in drawn if french.is_held_out(text)}
    assert len(held_out) > 2000
    assert not held_out & pieces
    # The search itself works: it finds sentences that may occur.
    assert (drawn - held_out) & pieces


def test_new_label_words_never_occur(documents):
    written = set(re.findall(r"\w+", " ".join(documents)))
    words = {word for seed in range(300) for word in relations.label_words(random.Random(seed), 4, True)}
    used = {word for seed in range(300) for word in relations.label_words(random.Random(seed), 4, False)}
    assert len(words) > 100
    assert not words & written and used & written


@pytest.mark.parametrize("name", relations.RELATIONS)
def test_lists_hold_training_pairs_and_episodes_ask_held_out_ones(name):
    relation = relations.RELATIONS[name]
    for seed in range(20):
        found = relations.pairs(relation, 5, random.Random(seed))
        assert relation.repeats or len({given for given, _ in found}) == len(found) == 5
        assert not any(relation.held_out(pair) for pair in found)
        demonstrations, query = relations.episode(relation, 4, random.Random(seed))
        assert relation.held_out(query)
        assert query[0] not in {given for given, _ in demonstrations}


def test_an_episode_longer_than_the_relation_says_so():
    with pytest.raises(ValueError, match=r"shots: 500 given, but 'ordinal' has \d+ different inputs"):
        relations.episode(relations.RELATIONS["ordinal"], 500, random.Random(0))


def test_hidden_rules_hold_within_an_episode():
    for seed in range(20):
        demonstrations, (query, answer) = relations.episode(relations.RELATIONS["add"], 6, random.Random(seed))
        offsets = {int(output) - int(given) for given, output in [*demonstrations, (query, answer)]}
        assert len(offsets) == 1
        demonstrations, _ = relations.episode(relations.RELATIONS["2 labels"], 8, random.Random(seed))
        category = {word: name for name, words in world.WORDS.items() for word in words}
        assert len({(category[word], label) for word, label in demonstrations}) <= 2


def test_a_question_is_never_answered_in_its_list():
    for seed in range(500):
        text = corpus.questions(random.Random(seed))
        for country in world.COUNTRIES:
            if f"What is the capital of {country.name}?" in text and country.capital not in country.name:
                assert not re.search(rf"\b{country.capital}\b", text)


def test_arithmetic_is_right():
    for seed in range(200):
        for line in corpus.arithmetic(random.Random(seed)).splitlines():
            values = {eval(side) for side in line.split(" = ")}
            assert len(values) == 1, line
        steps = re.findall(r"(\d+ [-+*] \d+) = (\d+)", tales.word_problem(random.Random(seed)))
        assert steps and all(eval(left) == int(right) for left, right in steps)


def test_the_corpus_is_the_one_the_shipped_weights_were_trained_on():
    # Any change of the corpus changes this sum, and asks for new weights.
    text = "\x00".join(islice(corpus.documents(0), 2000))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "3deb6fb88fbe0d39"
