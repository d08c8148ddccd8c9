"""Every exercise tells the usual mistakes apart at any seed, and takes a right answer that is written differently.

`tests/wrong_answers/NN_topic.py` holds, beside `ptlearn/course/checks/NN_topic.py`,

    WRONG = {"8.2": [(answer, "words of the diagnosis that names this mistake"), ...]}    at least four each
    RIGHT = {"8.2": [answer, ...]}                                                        at least one each

where an answer is a function or a value, as a student would hand it in.
"""

import json
import os
from pathlib import Path

import pytest

from conftest import module_of
from ptlearn.course import checks
from ptlearn.course.exercise import SEED, cases_of, exercises, judge
from ptlearn.course.verdict import unseparated

ANSWERS = Path(__file__).parents[1] / "wrong_answers"
SEEDS = range(SEED, SEED + int(os.environ.get("PTLEARN_SEEDS", "2")))  # the student's and another; `make seeds`: 30
LESSONS = sorted(path.stem for path in Path(checks.__path__[0]).glob("[0-9][0-9]_*.py"))
EXERCISES = {number: known for name in LESSONS for number, known in exercises(int(name[:2])).items()}
MODULES = [module_of(ANSWERS / f"{name}.py") for name in LESSONS if (ANSWERS / f"{name}.py").exists()]
WRONG = {number: found for module in MODULES for number, found in module.WRONG.items()}
RIGHT = {number: found for module in MODULES for number, found in module.RIGHT.items()}


def seeds_of(number):
    """The seeds with cases of their own: an exercise whose cases are always the same, a contest, is judged once."""
    return {json.dumps(cases_of(EXERCISES[number], seed)): seed for seed in reversed(SEEDS)}.values()


def labelled(answers):
    """A test per answer, named by its exercise and its place."""
    return [
        pytest.param(number, answer, id=f"{number}-{place}")
        for number, found in answers.items()
        for place, answer in enumerate(found)
    ]


def test_every_lesson_with_checks_has_its_answers():
    assert [name for name in LESSONS if not (ANSWERS / f"{name}.py").exists()] == []
    assert set(WRONG) | set(RIGHT) <= set(EXERCISES)


@pytest.mark.parametrize("number", EXERCISES)
def test_four_wrong_answers_with_a_diagnosis_each_and_a_right_one(number):
    fragments = {fragment for _, fragment in WRONG.get(number, [])}
    assert len(fragments) >= 4, "four mistakes, each with words of its own"
    assert len(RIGHT.get(number, [])) >= 1
    assert all(answer is not EXERCISES[number].reference for answer in RIGHT[number])


@pytest.mark.parametrize("number", EXERCISES)
def test_the_reference_passes_on_plain_cases_that_tell_all_mistakes_apart(number):
    known = EXERCISES[number]
    assert isinstance(known.points, int) and known.points > 0
    for seed in seeds_of(number):
        cases = cases_of(known, seed)
        assert cases and json.dumps(cases) == json.dumps(cases_of.__wrapped__(known, seed))  # as text: NaN is not NaN
        assert json.dumps(json.loads(json.dumps(cases))) == json.dumps(cases)
        assert unseparated(known, cases) == []
        assert judge(known, known.reference, seed).status == "PASS"


@pytest.mark.parametrize(("number", "wrong"), labelled(WRONG))
def test_a_wrong_answer_is_told_its_mistake_whatever_the_seed(number, wrong):
    answer, fragment = wrong
    verdicts = {seed: judge(EXERCISES[number], answer, seed) for seed in seeds_of(number)}
    assert {seed: said for seed, said in verdicts.items() if said[0] != "FAIL" or fragment not in said[1]} == {}


@pytest.mark.parametrize(("number", "answer"), labelled(RIGHT))
def test_a_right_answer_written_differently_passes_whatever_the_seed(number, answer):
    verdicts = {seed: judge(EXERCISES[number], answer, seed) for seed in seeds_of(number)}
    assert {seed: said for seed, said in verdicts.items() if said[:2] != ("PASS", "")} == {}


@pytest.mark.parametrize("number", EXERCISES)
def test_a_blank_answer_is_still_to_do(number):
    assert judge(EXERCISES[number], ...).status == "TODO"
