"""`check` says one line, tells what is wrong, never stops the lesson and leaves its random numbers alone."""

import random
import re
import warnings

import pytest
import torch
from toy_lesson import write_lesson

from ptlearn.course import checks
from ptlearn.course.diagnosis import first_difference, plain
from ptlearn.course.exercise import Exercise, check, exercise, judge


@pytest.fixture(autouse=True)
def toy_checks(tmp_path, monkeypatch):
    write_lesson(tmp_path)
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path / "checks")])


def said(capsys):
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.count("\n") == 1
    return captured.out.rstrip("\n")


def noisy_but_right(values):
    print("looking at", values)
    warnings.warn("careful", stacklevel=2)
    return [value + value for value in values]


def test_a_right_answer_passes_and_comes_back(capsys):
    assert check("99.1", noisy_but_right) is noisy_but_right
    assert said(capsys) == "PASS 99.1"


def test_a_wrong_answer_is_told_what_is_wrong_and_replaced(capsys):
    returned = check("99.1", lambda values: values)
    assert said(capsys) == "FAIL 99.1: the values come back unchanged (going on with the package's)"
    assert returned([1]) == [2]


def test_an_answer_that_raises_fails_with_its_error(capsys):
    def raises(values):
        raise IndexError("no such\nstep")

    check("99.1", raises)
    assert re.fullmatch(
        r"FAIL 99.1: IndexError: no such step in double\(\[0\.\d+, 0\.\d+, 0\.\d+\]\) \(going on with the package's\)",
        said(capsys),
    )


def test_an_answer_that_exits_or_recurses_fails(capsys):
    def leaves(values):
        raise SystemExit(3)

    def endless(values):
        return endless(values)

    assert judge(exercise("99.1"), leaves).status == judge(exercise("99.1"), endless).status == "FAIL"


@pytest.mark.parametrize("stub", [..., None])
def test_a_blank_value_is_still_to_do(capsys, stub):
    assert check("99.2", stub) == ["one", "two", "three"]
    assert said(capsys) == "TODO 99.2 (going on with the package's)"


def test_a_blank_function_is_still_to_do(capsys):
    def stub(values):
        raise NotImplementedError

    check("99.1", stub)
    assert said(capsys) == "TODO 99.1 (going on with the package's)"
    check("99.1", lambda values: ...)
    assert said(capsys) == "TODO 99.1: the function returns nothing, is a return missing? (going on with the package's)"
    check("99.1", lambda values: None)
    assert said(capsys) == "TODO 99.1: the function returns nothing, is a return missing? (going on with the package's)"


def test_a_function_that_changes_its_argument_need_not_return():
    fill = Exercise(
        cases=lambda rng: [[0, 0]],
        drive=lambda answer, case: answer(case) or case,
        expect=lambda case: ([1, 1], {"the case came back as it was": case}),
        points=1,
        reference=None,
    )

    def ones(values):
        values[:] = [1, 1]

    def nothing(values):
        values[:] = values

    assert judge(fill, ones).status == "PASS"
    assert judge(fill, nothing)[:2] == ("FAIL", "the case came back as it was")


def test_a_value_may_be_the_answer(capsys):
    assert check("99.2", ["a", "b", "c"]) == ["a", "b", "c"]
    assert said(capsys) == "PASS 99.2"
    check("99.2", ["a", "b"])
    assert said(capsys) == "FAIL 99.2: two prompts, not three (going on with the package's)"


def test_data_of_another_form_fails_and_does_not_stop_the_lesson():
    assert judge(exercise("99.2"), 3).status == "FAIL"
    assert "is an object, expected a number" in judge(exercise("99.1"), lambda values: [object()]).diagnosis
    assert judge(exercise("99.1"), lambda values: "text").status == "FAIL"


def test_numbers_that_lie_about_equality_do_not_pass():
    class Chameleon(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    assert judge(exercise("99.1"), lambda values: [Chameleon(7) for _ in values]).status == "FAIL"


def test_the_random_numbers_of_the_lesson_stay_as_they_were():
    def draws(values):
        random.random(), torch.rand(3)
        return [2 * value for value in values]

    torch.manual_seed(5), random.seed(5)
    expected = torch.rand(2), random.random()
    torch.manual_seed(5), random.seed(5)
    assert judge(exercise("99.1"), draws).status == "PASS"
    assert torch.equal(torch.rand(2), expected[0]) and random.random() == expected[1]


def test_an_unknown_exercise_is_a_mistake_of_the_lesson():
    for number, reason in [("99.7", "no exercise '99.7'; it has 99.1, 99.2"), ("97.1", "lesson 97"), ("first", "8.2")]:
        with pytest.raises(ValueError, match=reason):
            check(number, None)


@pytest.mark.parametrize(
    ("data", "expected", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.00001], None),
        ([1.0, 2.0], [1.0, 2.1], "result[1] is 2, expected 2.1"),
        ([1.0], [[1.0]], "result has shape (1,), expected (1, 1)"),
        (1.0, [1.0], "result has shape (), expected (1,)"),
        (float("nan"), float("nan"), None),
        (float("nan"), 1.0, "result is nan, expected 1"),
        ({"loss": 1.0}, {"loss": 2.0}, "loss is 1, expected 2"),
        ({"loss": 1.0}, {"los": 1.0}, "result has ['loss'], expected ['los']"),
        ("b", "a", "result is 'b', expected 'a'"),
        (torch.ones(2), torch.ones(2), None),
        (True, 1, None),
        ("1", 1, "result is '1', expected 1"),
        ([[1], [2, 3]], [[1], [2]], "result[1] has shape (2,), expected (1,)"),
    ],
)
def test_differences_say_where(data, expected, difference):
    assert first_difference(plain(data), plain(expected), 1e-4) == difference


def test_a_mistake_is_named_only_where_it_explains_every_case():
    def judged(answer):
        twice = Exercise(
            cases=lambda rng: [[0.0], [3.5, 4.25]],
            drive=lambda answer, case: answer(case),
            expect=lambda case: (
                [2 * x for x in case],
                {"squared": [x * x for x in case], "unchanged": case, "the last alone": [2 * case[-1]]},
            ),
            points=1,
            reference=lambda values: [2 * x for x in values],
            signature="twice(values: list) -> list of number",
        )
        return judge(twice, answer).diagnosis

    assert judged(lambda values: list(values)) == "unchanged"
    assert judged(lambda values: [x * x for x in values]) == "squared"
    assert judged(lambda values: [2 * values[-1]]) == "the last alone"
    half_listed = judged(lambda values: list(values) if len(values) > 1 else [1.0])
    assert "unchanged" not in half_listed
    assert judged(lambda values: [2 * x + 1 for x in values]) == "this is the right result with 1 added"


def test_plain_turns_tensors_into_lists():
    assert plain({"a": torch.tensor([1.0, 2.0]), "b": (torch.tensor(True), {2, 1})}) == {
        "a": [1.0, 2.0],
        "b": [True, [1, 2]],
    }
