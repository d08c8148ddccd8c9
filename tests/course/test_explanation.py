"""A mistake that nobody listed is named by what it does to the right answer, where it explains every case.

The toy exercise has an answer whose value can be written down; each wrong answer is another formula, and the words are
those of the change that makes it.
"""

import math

import pytest
import torch

from ptlearn.course.exercise import Exercise, cases_of, exercise, judge
from ptlearn.course.verdict import Unnamed, unseparated


def scaled_sums(values, mask, gamma):
    """gamma times the sum of each row, where mask is True."""
    return gamma * (values * mask).sum(1)


def cases(rng):
    shapes = ((3, 4, [4, 2, 3], 0.5), (2, 5, [1, 4], 0.75), (4, 3, [3, 1, 2, 3], 0.9))
    return [
        {
            "values": [[rng.uniform(0.5, 2.0) for _ in range(steps)] for _ in range(rows)],
            "mask": [[t < length for t in range(steps)] for length in lengths],
            "gamma": gamma,
        }
        for rows, steps, lengths, gamma in shapes
    ]


def expect(case):
    rows = [[x for x, m in zip(row, flags) if m] for row, flags in zip(case["values"], case["mask"])]
    return [case["gamma"] * sum(row) for row in rows], {
        "the ends alone": [case["gamma"] * (row[0] + row[-1]) for row in rows]
    }


def drive(answer, case):
    return answer(torch.tensor(case["values"]), torch.tensor(case["mask"]), case["gamma"])


SUMS = Exercise(
    cases, drive, expect, points=1, reference=scaled_sums,
    signature="scaled_sums(values: float[B T], mask: bool[B T], gamma: number) -> float[B]",
)  # fmt: skip


def masked(values, mask):
    return (values * mask).sum(1)


def ends(values, mask):
    return torch.stack([row[m][0] + row[m][-1] for row, m in zip(values, mask)])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda v, m, g: scaled_sums(v, m, g) / math.log(2), "in bits"),
        (lambda v, m, g: -scaled_sums(v, m, g), "with the sign turned"),
        (lambda v, m, g: -100 * scaled_sums(v, m, g), "with the sign turned, times 100"),
        (lambda v, m, g: masked(v, m), "as if gamma were 1"),
        (lambda v, m, g: scaled_sums(v, m, 1 - g), "for 1 - gamma"),
        (lambda v, m, g: g * v.sum(1), "as if mask were True everywhere"),
        (lambda v, m, g: scaled_sums(v, ~m, g), "with mask turned round"),
        (lambda v, m, g: scaled_sums(v, m, g) / m.sum(1), "divided by the number of True in each row of mask"),
        (lambda v, m, g: scaled_sums(v, m, g) / m.sum(), "divided by the number of True in mask"),
        (lambda v, m, g: scaled_sums(v, m, g) / v.shape[1], "divided by T"),
        (lambda v, m, g: scaled_sums(v, m, g) * v.shape[0] / (v.shape[0] - 1), "B / (B - 1)"),
        (lambda v, m, g: scaled_sums(v, m, g).flip(0), "in reverse order along rows"),
        (lambda v, m, g: scaled_sums(v, m, g).cumsum(0), "summed up from the start along rows"),
        (lambda v, m, g: scaled_sums(v, m, g).roll(1, 0), "turned by one place along rows"),
        (lambda v, m, g: scaled_sums(v, m, g).softmax(0), "under a softmax over rows"),
        (lambda v, m, g: scaled_sums(v, m, g)[:1].expand(len(v)), "with the first of rows used for all"),
        (lambda v, m, g: scaled_sums(v, m, g).log(), "as a logarithm"),
        (lambda v, m, g: scaled_sums(v, m, g).round(decimals=2), "rounded to 2 digits"),
        (lambda v, m, g: scaled_sums(v.exp(), m, g), "for values under an exponential"),
        (lambda v, m, g: scaled_sums(v, m.roll(1, 1), g), "for mask turned by one place"),
        (lambda v, m, g: g * (v * m).mean(1), "divided by T"),
        (lambda v, m, g: g * (v * m).prod(1), "with a product in the place of a sum"),
        (lambda v, m, g: g * (v + m).sum(1), "with + in the place of *"),
        (lambda v, m, g: g * (v * m), "before it is summed over the last axis"),
        (lambda v, m, g: scaled_sums(v, m, g).sum(), "summed over rows"),
        (lambda v, m, g: scaled_sums(v, m, g)[:-1], "without the last of rows"),
        (lambda v, m, g: scaled_sums(v, m, g)[:, None], "with an axis of size 1 too many"),
        (lambda v, m, g: scaled_sums(v.log(), m, g) / math.log(2), "for values in bits"),
        (lambda v, m, g: -g * v.sum(1), "as if mask were True everywhere: it is not used, with the sign turned"),
        (lambda v, m, g: (g * v.sum(1)).exp(), "it is not used, under an exponential"),
        (lambda v, m, g: scaled_sums(v, m, g) + g, "plus gamma"),
        (lambda v, m, g: -100 * g * ends(v, m), "the ends alone; and all this with the sign turned, times 100"),
    ],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_what_was_done_to_the_right_answer_is_named(answer, words, seed):
    status, diagnosis = judge(SUMS, answer, seed)[:2]
    assert status == "FAIL" and words in diagnosis and not isinstance(diagnosis, Unnamed)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda v, m, g: scaled_sums(v, m, g) + torch.rand(len(v)), "every wrong number is too large"),
        (lambda v, m, g: scaled_sums(v, m, g) * (1 + 0.001 * torch.arange(1, len(v) + 1)), "nearly right"),
        (lambda v, m, g: scaled_sums(v, m, g) + 2 * (torch.arange(len(v)) == 0), "only the first place"),
        (lambda v, m, g: scaled_sums(v, m, g) / 0 * 0, "not a number"),
        (lambda v, m, g: scaled_sums(v, m, g) * (3 if len(v) == 2 else 1), "wrong only where values has 2 rows"),
        (lambda v, m, g: torch.full((len(v),), float(v[0, 0])), "the same number in every entry"),
    ],
)
def test_what_is_not_explained_is_told_by_a_property_and_a_small_call(answer, words):
    status, diagnosis = judge(SUMS, answer)[:2]
    assert status == "FAIL" and words in diagnosis and isinstance(diagnosis, Unnamed)
    assert "try scaled_sums(torch.tensor([[" in diagnosis and "expected [" in diagnosis


def test_a_property_that_the_cases_share_by_chance_is_not_told():
    """A running sum without the discount is wrong for every row of two steps; only one case has a padded one."""
    undiscounted = lambda rewards, mask, gamma=1.0: torch.flip(torch.cumsum(rewards, 1), [1])  # noqa: E731
    diagnosis = judge(exercise("9.4"), undiscounted).diagnosis
    assert "right in " in diagnosis and "wrong only where" not in diagnosis
    assert "wrong only where" not in judge(exercise("9.4"), undiscounted, secret=True).diagnosis


def test_strings_that_differ_in_their_spaces_are_shown_as_they_are():
    right = exercise("1.3").reference
    spaced = lambda *given: {"misses": [text.replace(" ", "  ", 1) for text in right(*given)["misses"]],  # noqa: E731
                             "rights": right(*given)["rights"]}  # fmt: skip
    came, _, expected = judge(exercise("1.3"), spaced).diagnosis.partition("misses[0] is ")[2].partition(", expected ")
    assert came != expected and came.replace("  ", " ") == expected


def test_the_call_that_is_shown_can_be_pasted_and_is_small():
    def broken(values, mask, gamma):
        return scaled_sums(values, mask, gamma) + values[:, 0] ** 3

    diagnosis = judge(SUMS, broken).diagnosis
    call = diagnosis.partition("; try ")[2].partition(" gives ")[0]
    came = eval(call, {"scaled_sums": broken, "torch": torch})  # as a student would
    right = eval(call, {"scaled_sums": scaled_sums, "torch": torch})
    assert came.numel() == 1 and not torch.allclose(came, right)


def test_a_secret_case_is_not_shown():
    for answer in (lambda v, m, g: scaled_sums(v, m, g) + torch.rand(len(v)), lambda v, m, g: {}[float(v[0, 0])]):
        shown, hidden = (judge(SUMS, answer, 3, secret=secret).diagnosis for secret in (False, True))
        assert any(letter.isdigit() for letter in shown) and not any(letter.isdigit() for letter in hidden)


def test_few_whole_numbers_are_explained_by_no_two_changes():
    """Among thousands of pairs of changes one gives any two small whole numbers."""
    count = Exercise(
        lambda rng: [{"n": 3}, {"n": 4}], lambda answer, case: answer(case["n"]), lambda case: (case["n"], {}),
        points=1, reference=lambda n: n, signature="count(n: int) -> int",
    )  # fmt: skip
    assert isinstance(judge(count, lambda n: {3: 17, 4: 5}[n]).diagnosis, Unnamed)
    assert "with 1 added" in judge(count, lambda n: n + 1).diagnosis


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda text: text.strip().upper(), "without white space at its ends"),
        (lambda text: text.lower(), "in small letters"),
        (lambda text: " " + text.upper(), "with a space in front"),
        (lambda text: text.upper()[::-1], "backwards"),
        (lambda text: text.upper() if "two" in text else "ONE!", "result is"),
    ],
)
def test_strings(answer, words):
    shout = Exercise(
        lambda rng: [{"text": " two  words "}, {"text": "one"}], lambda answer, case: answer(case["text"]),
        lambda case: (case["text"].upper(), {}), points=1, reference=str.upper, signature="shout(text: str) -> str",
    )  # fmt: skip
    assert words in judge(shout, answer).diagnosis


def test_cases_are_drawn_until_they_tell_all_mistakes_apart():
    def squares(case):
        return case[0] ** 2, {"doubled": 2 * case[0], "kept": case[0]}

    exercise = Exercise(
        lambda rng: [[rng.randint(0, 2)], [rng.randint(0, 2)]], lambda answer, case: answer(case[0]), squares,
        points=1, reference=lambda x: x**2,
    )  # fmt: skip
    assert unseparated(exercise, [[2]]) == [("doubled", "right")]
    assert unseparated(exercise, [[0]]) == [("doubled", "right"), ("kept", "right"), ("doubled", "kept")]
    assert {str(sorted(cases_of(exercise, seed))) for seed in range(20)} == {"[[1], [2]]"}
    assert {judge(exercise, lambda x: 2 * x, seed).diagnosis for seed in range(20)} == {"doubled"}


def halved(values):
    while values.abs().max() > 0.1:
        values = values / 2
    return values


def test_a_change_that_takes_a_loops_end_away_is_given_up():
    """Halved, once doubled: such a change of the right answer would run for ever."""

    def smaller(case):
        size = max(map(abs, case))
        while size > 0.1:
            case, size = [x / 2 for x in case], size / 2
        return case

    loop = Exercise(lambda rng: [[rng.uniform(1, 9) for _ in range(6)] for _ in range(2)],
                    lambda answer, case: answer(torch.tensor(case)), lambda case: (smaller(case), {}), points=1,
                    reference=halved, signature="halved(values: float[N]) -> float[N]")  # fmt: skip
    assert judge(loop, halved).status == "PASS"
    assert judge(loop, lambda values: halved(values) + torch.arange(6) % 4).status == "FAIL"
