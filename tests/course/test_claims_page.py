"""The page of claims: all 41 are there, each with numbers that bear its verdict, read from what the lessons printed."""

import re

import pytest

from ptlearn.course import claims as page
from ptlearn.course.lesson import LessonError, lesson_files

ALL = [f"C{number:02}" for number in range(1, 42)]
LESSONS = {path.stem[:2]: path for path in lesson_files()}
CELLS = [("A section", "cloze: 0.50 [0.40, 0.60] (n=80)\n"), ("Another", "a 1.0 b 2.0")]
ROW = {"lesson": "01", "what": "a share", "find": "cloze: (.*)", "needs": "above 0.3"}


def test_every_claim_of_the_lecture_has_rows_and_a_verdict():
    assert list(page.claims()) == ALL
    for claim in page.claims().values():
        assert claim["rows"] and claim["verdict"] in page.VERDICTS
        assert ("caveat" in claim) == (claim["verdict"] != "holds")


def test_the_page_is_what_the_solutions_give():
    text = (page.ROOT / page.PAGE).read_text(encoding="utf-8")
    assert text == page.report(), "make it anew: ptlearn claims"
    assert re.findall(r"^## (C\d\d)$", text, re.MULTILINE) == ALL


@pytest.mark.parametrize("number", ALL)
def test_a_claim_is_marked_where_it_is_measured_and_asserted_in_a_test(number):
    tests = (page.ROOT / "tests").glob("test_claims_*.py")
    assert any(f"test_{number.lower()}_" in path.read_text(encoding="utf-8") for path in tests)
    for row in page.claims()[number]["rows"]:
        assert re.search(rf"\[[^\]]*{number}[^\]]*\]", LESSONS[row["lesson"]].read_text(encoding="utf-8")), row["what"]


def test_a_row_says_what_was_printed_over_how_many_and_where():
    found = page.measured(ROW, CELLS)
    assert found == ("0.50 [0.40, 0.60]", "a share", "n=80", "01", "A section", True)
    assert page.measured(ROW | {"find": "a (.*) b (.*)", "over": "two"}, CELLS).value == "1.0, 2.0"


@pytest.mark.parametrize("needs", ["above 0.45", "below 0.55", "between 0.45 and 0.7", "rising", "equal"])
def test_an_interval_must_lie_beyond_the_bound_with_both_ends(needs):
    assert not page.measured(ROW | {"needs": needs}, CELLS).holds


def test_what_was_not_printed_is_refused_by_name():
    with pytest.raises(LessonError, match="a share.*printed nothing like"):
        page.measured(ROW | {"find": "no such (.*)"}, CELLS)
    with pytest.raises(LessonError, match="over how many"):
        page.measured(ROW | {"find": "a (.*) b"}, CELLS)


def test_a_number_that_does_not_bear_the_verdict_stops_the_page(monkeypatch):
    wrong = {number: claim | {"rows": [row | {"needs": "above 1e9"} for row in claim["rows"]]}
             for number, claim in page.claims().items()}  # fmt: skip
    monkeypatch.setattr(page, "claims", lambda: wrong)
    with pytest.raises(LessonError, match="C01: .* does not bear the verdict"):
        page.report()


def test_a_number_that_is_no_claim_is_not_linked():
    assert page.linked("C99 and [C41]") == "C99 and [[C41](../docs/claims.md#c41)]"


def test_the_real_models_lines_are_found_by_what_they_compare():
    model = "    {}      0.50 (n=4)   0.50 (n=4)   {}\n"
    table = "C02 this above that\n" + model.format("pocket-m", "holds") + model.format("real", "not settled")
    found = page.real_lines(["this above that"], [("s", table)])
    assert found == ["this above that: 0.50 (n=4) against 0.50 (n=4): not settled"]
    with pytest.raises(LessonError, match="no line 'that'"):
        page.real_lines(["that"], [("s", table)])
