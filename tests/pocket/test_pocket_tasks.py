"""The tasks of the pocket world: right answers earn all, echoes nothing, and the split holds."""

import random
import re

import pytest

from ptlearn.pocket import french, tales, tasks
from ptlearn.rl.tasks import bleu, score

MAKERS = (tasks.arithmetic, tasks.translation, tasks.sentiment, tasks.listing, tasks.sorting, tasks.copying)
EVERY_TASK = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


# ---------------------------------------------------------------- the tasks


@EVERY_TASK
def test_right_answers_earn_all_and_none_earns_nothing(make):
    task = make()
    for problems in (task.train, task.held_out):
        if make is not tasks.sentiment:
            assert set(score(task, problems, [problem.response for problem in problems])) == {1.0}
        assert set(score(task, problems, [""] * len(problems))) == {0.0}
        assert max(score(task, problems, [problem.prompt for problem in problems])) < 1  # an echo


@EVERY_TASK
def test_no_prompt_is_on_both_sides_and_the_seed_decides(make):
    one, again, other = make(), make(), make(seed=1)
    train, held_out = ({problem.prompt for problem in side} for side in (one.train, one.held_out))
    assert not train & held_out and len(train) == len(one.train) and len(held_out) == len(one.held_out)
    assert one.train == again.train and one.train != other.train
    # nor do the sides of different seeds mix
    assert not train & {problem.prompt for problem in other.held_out}


def test_arithmetic_is_in_the_corpus_own_steps_and_counts_the_result_alone():
    task = tasks.arithmetic()
    for problem in task.train[:50]:
        a, b = map(int, re.findall(r"\d+", problem.prompt))
        parts = [eval(part) for part in problem.response.split(" = ")]
        assert parts == [a + b] * 4
        assert problem.score(f"It is {a + b}.") == 1 and problem.score(f"{a + b} or {a + b + 1}") == 0


def test_translations_by_exact_words_or_by_bleu():
    exact, graded = tasks.translation(), tasks.translation(judge=bleu)
    assert [p.prompt for p in exact.train] == [p.prompt for p in graded.train]
    lower = 0
    for one, other in zip(exact.train[:40], graded.train[:40], strict=True):
        assert one.score(one.response.upper() + ".") == 1
        half = one.response.rsplit(" ", 1)[0]
        assert one.score(half) == 0
        lower += 0 < other.score(half) < 1
    assert lower == 40
    words = {word for noun in french.NOUNS for word in noun.french.split()}
    assert any(words & set(problem.response.split()) for problem in exact.train)


def test_sentiment_is_the_share_of_sentences_that_praise():
    score_of = tasks.praises("meal")
    good, other, bad = "It was worth every penny. ", "The soup was superb. ", "It was a waste of money. "
    cut = "For us it was"
    cases = {good: 1 / 2, good + other: 1, bad: 0, good + bad: 1 / 2, good + other + bad: 2 / 3, good + other + cut: 1,
             cut: 0, "We ate. " + good + other: 2 / 3}  # fmt: skip
    assert {text: score_of(text) for text in cases} == pytest.approx(cases)
    assert tasks.praises("meal", least=4)(good + other) == 1 / 2


def test_praise_is_not_paid_again_nor_in_pieces():
    """What a policy finds that only looks for good words: the same sentence over and over, words without a sentence."""
    score_of = tasks.praises("meal")
    good, other = "It was worth every penny. ", "The soup was superb. "
    assert [score_of(good * times) for times in (1, 2, 5)] == [1 / 2, 0, 0]
    assert score_of(good * 2 + other) == 1 / 3 and score_of(good + "It was worth every") == 1 / 2
    for pieces in ("superb " * 9, "Superb. " * 9, "Soup superb superb. ", "worth every penny", good.strip(". ")):
        assert score_of(pieces) == 0
    assert score_of(good + "The villain was superb. ") == 1 / 2  # a meal has none


@pytest.mark.parametrize("about", tales.ABOUT)
def test_whole_opinions_of_the_corpus_are_praise_or_not(about):
    rng = random.Random(0)
    for _ in range(300):
        good, bad = (tales.opinion(rng, polarity, about, sentences=1) for polarity in ("positive", "negative"))
        assert [tasks.praises(about, least=1)(text) for text in (good, bad, f"{bad} {good}")] == [1, 0, 1 / 2]


def test_lists_are_judged_by_their_form():
    score_of = tasks.is_a_list_of(3)
    cases = {"a, b, c.": 1, "a, b, c": 2 / 3, "a, a, b.": 2 / 3, "a, b.": 2 / 3, "abc.": 1 / 3, "a, b, c. d": 2 / 3}
    assert {text: score_of(text) for text in cases} == pytest.approx(cases)


def test_more_problems_than_there_are_is_one_line():
    with pytest.raises(ValueError, match=r"^held_out=500: expected at most \d+, as many different problems were found"):
        tasks.listing(held_out=500)
