"""Every exercise tells the usual mistakes apart, and takes a right answer that is written differently.

`tests/wrong_answers/NN_topic.py` holds, beside `ptlearn/course/checks/NN_topic.py`,

    WRONG = {"8.2": [(answer, "words of the diagnosis that names this mistake"), ...]}    at least four each
    RIGHT = {"8.2": [answer, ...]}                                                        at least one each

where an answer is a function or a value, as a student would hand it in.
"""

import importlib.util
import json
import random
from pathlib import Path

import pytest

from ptlearn.course import checks
from ptlearn.course.exercise import SEED, exercises, judge

ANSWERS = Path(__file__).parents[1] / "wrong_answers"
SEEDS = (SEED, 1, 2)  # the student's seed, and others as the grader draws them
LESSONS = sorted(path.stem for path in Path(checks.__path__[0]).glob("[0-9][0-9]_*.py"))
EXERCISES = {number: known for name in LESSONS for number, known in exercises(int(name[:2])).items()}


def answers(name):
    """The module `wrong_answers/NN_topic.py`."""
    spec = importlib.util.spec_from_file_location(f"wrong_answers_{name}", ANSWERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = [answers(name) for name in LESSONS if (ANSWERS / f"{name}.py").exists()]
WRONG = {number: found for module in MODULES for number, found in module.WRONG.items()}
RIGHT = {number: found for module in MODULES for number, found in module.RIGHT.items()}


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
def test_the_reference_passes_and_cases_are_plain_and_repeatable(number):
    known = EXERCISES[number]
    assert isinstance(known.points, int) and known.points > 0
    for seed in SEEDS:
        assert judge(known, known.reference, seed).status == "PASS"
        cases = known.cases(random.Random(seed))
        assert cases and cases == json.loads(json.dumps(cases)) == known.cases(random.Random(seed))


@pytest.mark.parametrize(("number", "wrong"), labelled(WRONG))
@pytest.mark.parametrize("seed", SEEDS)
def test_a_wrong_answer_is_told_its_mistake(number, wrong, seed):
    answer, fragment = wrong
    verdict = judge(EXERCISES[number], answer, seed)
    assert verdict.status == "FAIL"
    assert fragment in verdict.diagnosis


@pytest.mark.parametrize(("number", "answer"), labelled(RIGHT))
@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_answer_written_differently_passes(number, answer, seed):
    assert judge(EXERCISES[number], answer, seed) == ("PASS", "")


@pytest.mark.parametrize("number", EXERCISES)
def test_a_blank_answer_is_still_to_do(number):
    assert judge(EXERCISES[number], ...).status == "TODO"
