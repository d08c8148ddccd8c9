"""Requests of ten use cases: the table's shares, verifiers that any text can meet, two sides that share nothing."""

import math
import random

import pytest

from ptlearn.pocket import benchmarks
from ptlearn.pocket.assistant import (
    SHARES,
    TASKS,
    conversations,
    held_out_requests,
    requests,
    score_by_use_case,
)

TRAINING, HELD_OUT = requests(2000, 1), held_out_requests(30)


def test_the_shares_are_those_of_the_table():
    """Ouyang et al. 2022, table 1, as printed; counts within four standard deviations of them."""
    assert list(SHARES.values()) == [45.6, 12.4, 11.2, 8.4, 6.6, 4.2, 3.5, 3.5, 2.6, 1.9]
    drawn = [request.use_case for request in requests(4000, 3)]
    for name, share in SHARES.items():
        p = share / 99.9
        assert abs(drawn.count(name) - 4000 * p) < 4 * math.sqrt(4000 * p * (1 - p)), name
    assert {task.use_case for task in TASKS} == set(SHARES)


def test_gold_responses_are_perfect_and_others_are_not():
    rng = random.Random(0)
    for request in [*TRAINING, *HELD_OUT]:
        assert request.score(request.response) == 1, request
        assert request.score("") == 0 and request.score("zzz qqq") <= 0.1, request
        assert request.score(request.prompt) <= 0.3, request  # the prompt echoed
        other = rng.choice([r for r in TRAINING if r.use_case != request.use_case][:400])
        assert 0 <= request.score(other.response) <= 1
    strangers = [request.score(rng.choice(TRAINING).response) for request in HELD_OUT]
    assert sum(strangers) / len(strangers) < 0.15


def test_any_string_gets_a_number_between_zero_and_one():
    texts = [
        "\n",
        "?" * 500,
        "é\x00😀",
        "1e999",
        "(((",
        "%s {name}",
        " ".join(request.response for request in HELD_OUT),
    ]
    for request in HELD_OUT:
        for text in texts:
            assert 0 <= request.score(text) <= 1


def test_the_two_sides_share_no_prompt_and_no_phrasing():
    assert not {request.prompt for request in TRAINING} & {request.prompt for request in HELD_OUT}
    for task in TASKS:
        assert not set(task.phrasings) & set(task.held_out_phrasings) and len(task.phrasings) >= 3
    asked = {request.task for request in HELD_OUT}
    assert asked == {task.name for task in TASKS}


def test_draws_are_a_function_of_the_seed_and_grow():
    short, long, other = (requests(*given) for given in ((50, 5), (80, 5), (50, 6)))
    assert short == long[:50] and short != other
    assert {request.use_case for request in requests(40, 0, use_cases=["chat", "extract"])} == {"chat", "extract"}


def test_the_overall_score_is_the_mean_by_the_shares():
    perfect = score_by_use_case(HELD_OUT, [request.response for request in HELD_OUT])
    assert all(estimate.mean == pytest.approx(1) for estimate in perfect.values())
    only = score_by_use_case(HELD_OUT, [r.response if r.use_case == "generation" else "" for r in HELD_OUT])
    assert only["generation"].mean == 1 and only["chat"].mean == 0
    assert only["overall"].mean == pytest.approx(45.6 / 99.9)
    with pytest.raises(ValueError, match="responses: 1 given for 300 requests, expected one for each"):
        score_by_use_case(HELD_OUT, ["x"])


def test_benchmark_items_have_one_form_and_two_sides():
    training, held_out = benchmarks.items(1500, 1), benchmarks.items(300, 2, held_out=True)
    assert not {item.prompt for item in training} & {item.prompt for item in held_out}
    assert {item.response for item in training if item.benchmark == "nli"} == {"yes", "no"}
    assert {item.response for item in training if item.benchmark == "sentiment"} == {"positive", "negative"}
    forms = {"nli": "Premise: ", "qa": "Question: ", "sentiment": "Review: "}
    assert all(item.prompt.startswith(forms[item.benchmark]) for item in training)
    assert conversations(training[:1])[0][1] == {"role": "assistant", "content": training[0].response}


def test_overlap_says_nothing_in_the_hans_items_and_much_in_the_training_data():
    def new_words(item):
        premise, hypothesis = (line.partition(": ")[2].strip(".").split() for line in item.prompt.split("\n")[:2])
        return set(hypothesis) - set(premise)

    test = benchmarks.hans(200)
    assert not any(new_words(item) for item in test)
    assert sum(item.response == "yes" for item in test) == 100
    training = benchmarks.items(1500, 1, benchmarks=["nli"])
    entailed = [item.response == "yes" for item in training if not new_words(item)]
    assert sum(entailed) / len(entailed) > 0.7  # the heuristic pays
    assert not any(item.response == "yes" for item in training if new_words(item))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: requests(-1), "count=-1: expected 0 or more requests"),
        (lambda: requests(1, use_cases=["poetry"]), "use_cases=.'poetry'.: expected some of generation"),
        (lambda: benchmarks.items(1, benchmarks=["glue"]), "benchmarks=.'glue'.: expected 0 or more of nli, qa"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
