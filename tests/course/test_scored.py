"""Labs and contests: points by what an answer reaches, the same line from `check` and from the grader; predictions."""

import dataclasses
from types import SimpleNamespace

import pytest

from ptlearn.course import checks
from ptlearn.course.exercise import Exercise, check, judge
from ptlearn.course.grading.points import EXERCISE_SECONDS, SEEDS, Seen, judged, question
from ptlearn.course.lab import lab_of_runs, mystery_runs
from ptlearn.course.predictions import predict

RUNS = {"right": lambda x: x * x, "cubes": lambda x: x**3, "abs": abs, "zero": lambda x: 0}
HINTS = {"cubes": "a negative number", "abs": "a number other than 0 and 1", "zero": "anything but 0"}
LAB = lab_of_runs(RUNS, HINTS, lambda run: run(-3) == 9)
CONTEST = Exercise(lambda rng: ["items"], None, None, 3, 0.9, ranked=True, levels=(0.2, 0.5, 0.8),
    remark=lambda case, data: None if isinstance(data, float) else "a number is expected",
    score=lambda cases, data: (sum(data) / len(data), "try a larger one"))  # fmt: skip


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "98_toy.py").write_text("EXERCISES = {}")
    monkeypatch.setattr(checks, "__path__", [str(tmp_path)])
    from ptlearn.course import exercise

    monkeypatch.setattr(exercise, "exercises", lambda lesson: {"98.1": LAB, "98.2": CONTEST})


@pytest.mark.parametrize(
    ("test", "status", "share", "words"),
    [
        (lambda run: run(-2) == 4, "PASS", 1, ""),
        (lambda run: run(1) == 1, "PART", 1 / 3, "1 of 3 points, the next one at 2, not 1; a wrong run gets"),
        (lambda run: run(2) == 4, "PASS", 1, ""),
        (lambda run: run(-1) == 1, "PART", 2 / 3, "other than 0 and 1"),
        (lambda run: True, "FAIL", 0, "0 of 3 points"),
        (lambda run: False, "FAIL", 0, "refuses the right run"),
        (lambda run: 1 / 0, "FAIL", 0, "ZeroDivisionError"),
        (lambda run: None, "FAIL", 0, "refuses the right run"),
        (..., "TODO", 0, ""),
    ],
)  # fmt: skip
def test_a_lab_counts_the_wrong_runs_that_are_refused(test, status, share, words):
    for seed in range(5):
        verdict = judge(LAB, test, seed)
        assert (verdict.status, verdict.share) == (status, pytest.approx(share))
        assert words in verdict.diagnosis


def test_an_assertion_refuses_a_run():
    def test(run):
        assert run(-2) == 4
        return True

    assert judge(LAB, test).status == "PASS"


def test_the_runs_of_a_lab_come_by_letter_without_names(toy):
    runs = mystery_runs("98.1")
    assert sorted(runs) == ["A", "B", "C", "D"]
    assert sorted(run(-3) for run in runs.values()) == [-27, 0, 3, 9]
    assert [repr(run) for run in runs.values()] == [f"run {letter}" for letter in "ABCD"]


def test_a_lab_needs_a_hint_for_each_wrong_run():
    with pytest.raises(ValueError, match="hints: expected one for each run but 'right'"):
        lab_of_runs(RUNS, {"cubes": "a negative number"}, len)


@pytest.mark.parametrize(
    ("answer", "status", "points", "score"),
    [(0.8, "PASS", 3, 0.8), (0.79, "PART", 2, 0.79), (0.1, "FAIL", 0, 0.1), ("high", "FAIL", 0, None)],
)
def test_a_contest_gives_points_by_levels(answer, status, points, score):
    verdict = judge(CONTEST, answer)
    assert (verdict.status, verdict.share * 3, verdict.score) == (status, pytest.approx(points), score)


def test_a_part_of_the_points_keeps_the_answer_and_none_does_not(toy, capsys):
    assert check("98.2", 0.6) == 0.6
    assert check("98.2", 0.1) == 0.9
    assert check("98.2", 0.85) == 0.85
    assert capsys.readouterr().out == (
        "PART 98.2: 2 of 3 points, the next one at 0.8, not 0.6; try a larger one\n"
        "FAIL 98.2: 0 of 3 points, the next one at 0.2, not 0.1; try a larger one (going on with the package's)\n"
        "PASS 98.2: score 0.85\n"
    )


@pytest.mark.parametrize(("answer", "status", "share"), [(0.9, "pass", 1.0), (0.6, "part", 2 / 3), (0.0, "wrong", 0.0)])
def test_the_grader_gives_the_same_share(answer, status, share):
    put = {"cases": ["items"] * 3, "parts": [1, 1, 1]}
    verdict = judged(CONTEST, put, Seen([{"data": answer, "calls": []}] * 3))
    assert (verdict.status, verdict.share, verdict.score) == (status, pytest.approx(share), pytest.approx(answer))


def test_a_score_of_the_grader_is_that_of_all_cases():
    put = {"cases": ["items"] * 2, "parts": [1, 1]}
    verdict = judged(CONTEST, put, Seen([{"data": value, "calls": []} for value in (0.1, 0.5)]))
    assert (verdict.status, verdict.score) == ("part", pytest.approx(0.3))


def test_a_contest_is_asked_once_and_may_take_its_time(toy):
    marks = [{"ptlearn": {"role": "check", "ex": number}} for number in ("98.1", "98.2")]
    cells = [SimpleNamespace(source="x = check(…)", metadata=mark) for mark in marks]
    release = SimpleNamespace(blank=SimpleNamespace(cells=cells))
    asked = question(release, LAB, "98.1", 5)
    assert (asked["parts"], asked["seconds"]) == ([len(RUNS)] * SEEDS, EXERCISE_SECONDS)
    asked = question(release, dataclasses.replace(CONTEST, seconds=60.0), "98.2", 5)
    assert (asked["cases"], asked["parts"], asked["seconds"]) == (["items"], [1], 60.0)


@pytest.mark.parametrize(
    ("guess", "line"),
    [
        (..., "share right: measured 0.93 (no guess typed)"),
        (None, "share right: measured 0.93 (no guess typed)"),
        (0.5, "share right: measured 0.93, your guess 0.50"),
        ("most\nof them", "share right: measured 0.93, your guess most of them"),
    ],
)
def test_a_guess_stands_beside_what_was_measured(guess, line, capsys):
    predict(share_right=guess).reveal("share_right", 0.93)
    assert capsys.readouterr().out == line + "\n"


def test_a_guess_whose_line_was_deleted_breaks_nothing(capsys):
    predict().reveal("share_right", "two of three")
    assert capsys.readouterr().out == "share right: measured two of three (no guess typed)\n"
