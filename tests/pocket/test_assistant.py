"""Requests: the table's shares, the border between training and tests, and what every verifier must give."""

import random
import re
import statistics

import pytest

from ptlearn.lm.chat import render_all
from ptlearn.lm.models import load_lm
from ptlearn.pocket import assistant, relations, world
from ptlearn.pocket.assistant import SHARES, TASKS, held_out_requests, requests, score_by_use_case

TABLE = {  # Ouyang et al. 2022, table 1, left column
    **{"generation": 45.6, "open qa": 12.4, "brainstorming": 11.2, "chat": 8.4, "rewrite": 6.6},
    **{"summarization": 4.2, "classification": 3.5, "other": 3.5, "closed qa": 2.6, "extract": 1.9},
}
TRAINING = requests(3000, 0)
TESTS = held_out_requests(30, 0)
BY_NAME = {task.name: task for task in TASKS}


def parse(prompt, phrasings):
    """What a prompt is filled with, for the first of the phrasings that it can be, or None."""
    for phrasing in phrasings:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(phrasing))
        if match := re.fullmatch(pattern, prompt):
            return match.groupdict()
    return None


# What is drawn


def test_shares_are_the_table_and_so_are_the_draws():
    assert SHARES == TABLE
    for name, percent in TABLE.items():
        p = percent / sum(TABLE.values())
        count = sum(request.use_case == name for request in TRAINING)
        assert abs(count / 3000 - p) < 4 * (p * (1 - p) / 3000) ** 0.5, name


def test_every_task_is_drawn_on_both_sides():
    for drawn in (TRAINING, TESTS):
        assert {request.task for request in drawn} == set(BY_NAME)
    assert all(BY_NAME[request.task].use_case == request.use_case for request in TRAINING + TESTS)


def test_draws_repeat_with_the_seed_and_grow_with_the_count():
    assert requests(50, 0) == TRAINING[:50]
    assert requests(50, 1) != TRAINING[:50]
    chosen = requests(60, 0, use_cases=["chat", "extract"])
    assert {request.use_case for request in chosen} == {"chat", "extract"}
    assert requests(0) == []


def test_a_test_set_asks_each_use_case_equally_often_and_nothing_twice():
    assert [request.use_case for request in TESTS] == [name for name in SHARES for _ in range(30)]
    # a world of 160 countries cannot fill 12 % of 3000 draws without any repetition
    assert len({request.prompt for request in TRAINING}) > 0.97 * len(TRAINING)
    assert len({request.prompt for request in TESTS}) == len(TESTS)


@pytest.mark.parametrize(
    ("count", "use_cases", "message"),
    [(-1, None, "count=-1"), (1, ["chats"], r"\['chats'\]: expected .*generation"), (1, [], r"use_cases=\[\]")],
)
def test_bad_arguments_are_named(count, use_cases, message):
    with pytest.raises(ValueError, match=message):
        requests(count, use_cases=use_cases)


# Held-out against training


def test_prompts_follow_the_phrasings_of_their_side_alone():
    for request in TRAINING:
        task = BY_NAME[request.task]
        assert parse(request.prompt, task.phrasings) is not None, request.prompt
        assert parse(request.prompt, task.held_out_phrasings) is None, request.prompt
    for request in TESTS:
        task = BY_NAME[request.task]
        assert parse(request.prompt, task.held_out_phrasings) is not None, request.prompt
        assert parse(request.prompt, task.phrasings) is None, request.prompt


def test_no_held_out_phrasing_of_any_task_is_a_training_prompt():
    phrasings = [phrasing for task in TASKS for phrasing in task.held_out_phrasings]
    assert not set(phrasings) & {phrasing for task in TASKS for phrasing in task.phrasings}
    assert all(len(task.held_out_phrasings) >= 2 and len(task.phrasings) >= 3 for task in TASKS)
    assert not {request.prompt for request in TESTS} & {request.prompt for request in TRAINING}


def test_contents_of_tests_never_occur_in_training():
    def contents(drawn, side):
        return {
            (request.task, *sorted(parse(request.prompt, getattr(BY_NAME[request.task], side)).items()))
            for request in drawn
            if request.use_case != "closed qa"  # there the text decides alone, whoever is asked for: see below
        }

    assert not contents(TRAINING, "phrasings") & contents(TESTS, "held_out_phrasings")


def test_questions_of_tests_share_neither_words_nor_contents_with_training():
    """One use case, of which a few hundred requests hold most of the contents."""
    training = requests(300, 0, use_cases=["open qa"])
    tests = requests(30, 0, use_cases=["open qa"], held_out=True)
    tasks = {request.task for request in training}
    found = {request: parse(request.prompt, BY_NAME[request.task].phrasings) for request in training}
    found |= {request: parse(request.prompt, BY_NAME[request.task].held_out_phrasings) for request in tests}
    assert None not in found.values()
    asked = [{(request.task, *found[request].values()) for request in side} for side in (training, tests)]
    assert len(asked[0]) > 100 and len(asked[1]) > 10 and {request.task for request in tests} == tasks
    assert not asked[0] & asked[1]


def test_texts_to_be_read_never_occur_in_training():
    def passages(drawn):
        found = (re.findall(r"\w+ (?:is at the|has a) \w+\.", r.prompt) for r in drawn if r.use_case == "closed qa")
        return {" ".join(sentences) for sentences in found}

    assert len(passages(TESTS)) == 30 and all(passage.count(".") == 3 for passage in passages(TESTS))
    assert not passages(TRAINING) & passages(TESTS)


def test_asked_facts_are_true_and_stated_in_the_corpus():
    facts = {country.name: country for country in world.COUNTRIES}
    asked = [request for request in TRAINING + TESTS if request.task in relations.FACTS]
    assert len(asked) > 200
    for request in asked:
        task = BY_NAME[request.task]
        name = parse(request.prompt, task.phrasings + task.held_out_phrasings)["name"].removesuffix("'s")
        value = getattr(facts[name], request.task)
        assert request.score(value) == 1, request.prompt
        assert value in request.response and not world.is_held_out(f"{request.task}|{name}")


def test_capital_questions_ask_for_every_stated_capital_in_held_out_words():
    facts = dict(relations.stated("capital"))
    asked = assistant.capital_questions()
    phrasings = BY_NAME["capital"].held_out_phrasings
    named = [next(found["name"] for p in phrasings if (found := parse(request.prompt, [p]))) for request in asked]
    # Mexico, Guatemala, Kuwait, Panama, Bissau and Tunis stand in their own answers, or the reverse
    assert len(asked) == len(set(named)) * len(phrasings) and 6 >= len(set(facts) - set(named)) > 0
    assert all(request.score(facts[name]) == 1 for request, name in zip(asked, named, strict=True))
    assert not {request.prompt for request in asked} & {request.prompt for request in TRAINING}


# What verifiers give


def test_gold_scores_one_and_nothing_or_an_echo_scores_zero():
    for request in TRAINING + TESTS:
        assert request.score(request.response) == 1, request
        assert request.score(f" {request.response}\n") == 1, request
        assert request.score("") == 0 and request.score("...") == 0
        assert request.score(request.prompt) <= 0.1, request.prompt


def test_off_topic_text_and_the_answers_of_others_score_low():
    rng = random.Random(0)
    texts = ["I do not know.", "The weather is fine today.", "yes", "Lorem ipsum dolor sit amet, consectetur."]
    for request in TESTS:
        assert statistics.mean(request.score(text) for text in texts) <= 0.05, request.prompt
        others = [other for other in rng.sample(TESTS, 60) if other.use_case != request.use_case]
        assert statistics.mean(request.score(other.response) for other in others) <= 0.05, request.prompt


def test_the_gold_of_another_request_of_the_same_task_scores_less():
    """A verifier that only looks at the form would pass any answer to any question of its kind."""
    for name, highest in [("capital", 0.05), ("story", 0.6), ("to english", 0.3), ("whereabouts", 0.2), ("sum", 0.1)]:
        same = [request for request in TRAINING if request.task == name][:30]
        scores = [a.score(b.response) for a in same for b in same if a.prompt != b.prompt]
        assert statistics.mean(scores) <= highest, name


def test_every_conversation_fits_the_context():
    drawn = TRAINING + TESTS
    _, too_long = render_all(load_lm("pocket-s"), assistant.conversations(drawn))
    assert too_long == []
    assert all("\n" not in request.prompt + request.response for request in drawn)


# Scores by use case


def test_scores_are_weighted_by_the_table():
    golds = [request.response for request in TESTS]
    found = score_by_use_case(TESTS, golds)
    assert list(found) == [*TABLE, "overall"]
    assert {estimate.mean for estimate in found.values()} == {1} and found["chat"].n == 30
    half = [gold if request.use_case == "generation" else "" for request, gold in zip(TESTS, golds, strict=True)]
    found = score_by_use_case(TESTS, half)
    assert found["generation"].mean == 1 and found["extract"].mean == 0
    assert found["overall"].mean == pytest.approx(45.6 / 99.9)
    # thirty of each, unequal weights: worth 30 / sum of squared shares
    assert found["overall"].n == round(30 / sum((share / 99.9) ** 2 for share in TABLE.values()))
    assert found["overall"].low < 45.6 / 99.9 < found["overall"].high


def test_scores_of_some_use_cases_are_weighted_among_them():
    asked = requests(20, 0, use_cases=["chat"]) + requests(10, 0, use_cases=["extract"])
    found = score_by_use_case(asked, [request.response for request in asked[:20]] + [""] * 10)
    assert list(found) == ["chat", "extract", "overall"]
    assert found["overall"].mean == pytest.approx(8.4 / (8.4 + 1.9))


def test_every_request_needs_its_response():
    for asked, responses in ([], []), (TESTS[:2], ["a"]):
        with pytest.raises(ValueError, match=f"responses: {len(responses)} given for {len(asked)} requests"):
            score_by_use_case(asked, responses)
