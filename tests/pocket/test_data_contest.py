"""The examples of the data contest, what is a choice of them, and what tells form from fact."""

from collections import Counter

import pytest

from ptlearn.pocket import data_contest, form_and_fact


def test_the_examples_are_always_the_same_and_as_many_of_each_kind_as_the_table_says():
    assert data_contest.examples() == data_contest.examples()
    assert Counter(data_contest.kinds()) == data_contest.COUNTS
    assert len(data_contest.examples()) == sum(data_contest.COUNTS.values()) == 2000


def test_the_repeated_ones_stand_there_many_times_and_no_useful_one_does():
    pairs = Counter(zip(data_contest.kinds(), data_contest.examples(), strict=True))
    times = {kind: {n for (other, _), n in pairs.items() if other == kind} for kind in data_contest.COUNTS}
    assert times["repeated"] == {data_contest.TIMES} and times["useful"] == {1}


def test_the_contests_requests_are_not_those_to_try_a_choice_on():
    tried, scored = ({r.prompt for r in some} for some in (data_contest.development(), data_contest.test()))
    given = {prompt for prompt, _ in data_contest.examples()}
    assert not scored & given and not scored & tried
    assert len(scored) == data_contest.ASKED and len(tried) > 0.9 * data_contest.ASKED


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (list(range(199)), "199 numbers: expected 200"),
        ([*range(199), 0], "1 numbers stand there twice"),
        ([*range(199), 2000], "2000 is no number of an example: expected 0 to 1999"),
        ([*range(199), -1], "-1 is no number"),
        ("200", "expected a list of whole numbers"),
        ([True] * 200, "expected a list of whole numbers"),
    ],
)
def test_what_is_no_choice_is_refused_in_a_line(chosen, words):
    assert words in data_contest.refused(chosen)
    with pytest.raises(ValueError, match="chosen: "):
        data_contest.assistant_score(chosen, [])


def test_a_choice_of_200_numbers_is_not_refused():
    assert data_contest.refused(list(range(1800, 2000))) == ""


def test_a_good_response_has_form_and_fact_and_another_requests_has_the_form_alone():
    asked = form_and_fact.test_requests()
    assert len({request.prompt for request in asked}) == len(asked) > 200
    assert {request.task for request in asked} <= set(form_and_fact.FORMS)
    for request in asked:
        assert form_and_fact.has_form(request, request.response) and request.score(request.response) == 1
    capitals = [request for request in asked if request.task == "capital"][:4]
    others = [(a, b) for a in capitals for b in capitals if a.response != b.response]
    assert all(form_and_fact.has_form(a, b.response) and a.score(b.response) < 1 for a, b in others)
