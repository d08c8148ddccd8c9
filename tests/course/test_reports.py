"""Marks as others import them: complete, read back by the readers of each form, harmless whatever students wrote."""

import base64
import csv
import html.parser
import io
import json
import re
from xml.etree import ElementTree

import pytest

from ptlearn.course.grading import formats
from ptlearn.course.grading.formats import classroom_json, one_submission, read_marks, results_json
from ptlearn.course.grading.record import ExerciseMark, Marks
from ptlearn.course.grading.reports import write_reports

SEED = 987654321


def marks(student="Ada Lovelace", submission="ada.ipynb", statuses=("pass", "wrong", "todo"), **about):
    """Three exercises of 1, 2 and 3 points, the last one called 8.10."""
    exercises = tuple(
        ExerciseMark(name, maximum * (status == "pass"), maximum, status, "" if status == "pass" else "mask 2 off", 0.5)
        for name, maximum, status in zip(("8.1", "8.2", "8.10"), (1, 2, 3), statuses)
    )
    return Marks(student, submission, "08_reinforce", exercises=exercises, seed=SEED, seconds=4.4, **about)


CLASS = [
    marks(),
    marks("Blaise Pascal", "blaise.ipynb", ("pass",) * 3, flags=("check 8.2 was edited",)),
    marks("Emmy Noether", "emmy.ipynb", ("crashed", "wrong", "pass"), nbval={"passed": 20, "failed": 1, "seconds": 9}),
    Marks("Kurt Gödel", "kurt.ipynb", error="kurt.ipynb: not a notebook"),
]
GRADEBOOK = [
    {"Student": "    Points Possible", "ID": "", "SIS Login ID": "", "08 REINFORCE (4711)": "6.00"},
    {"Student": "Lovelace, Ada", "ID": "11", "SIS Login ID": "ada lovelace", "08 REINFORCE (4711)": ""},
    {"Student": "Gödel, Kurt", "ID": "12", "SIS Login ID": "kurt gödel", "08 REINFORCE (4711)": "4"},
    {"Student": "Blaise Pascal", "ID": "13", "SIS Login ID": "bp", "08 REINFORCE (4711)": ""},
]
HOSTILE = '=HYPERLINK("http://example.org/?x","<script>alert(1)</script>")'


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marks") / "new"
    return folder, write_reports(CLASS, folder, roster=GRADEBOOK)


def test_every_file_is_there_and_named(written):
    folder, paths = written
    assert all(path.is_file() for path in paths)
    assert {path.name for path in folder.iterdir()} == {
        *("marks.csv", "marks.json", "canvas.csv", "moodle.csv", "junit.xml", "index.html", "students")
    }
    assert sorted(path.name for path in (folder / "students").iterdir()) == [
        *("Ada-Lovelace-08_reinforce.html", "Blaise-Pascal-08_reinforce.html"),
        *("Emmy-Noether-08_reinforce.html", "Kurt-Gödel.html"),
    ]


def test_a_row_per_student_and_a_column_per_exercise(written):
    assert table(written[0] / "marks.csv") == [
        ["student", "8.1", "8.2", "8.10", "sum", "maximum", "lesson", "flags", "error", "submission"],
        ["Ada Lovelace", "1", "0", "0", "1", "6", "08_reinforce", "", "", "ada.ipynb"],
        ["Blaise Pascal", "1", "2", "3", "6", "6", "08_reinforce", "check 8.2 was edited", "", "blaise.ipynb"],
        ["Emmy Noether", "0", "0", "3", "3", "6", "08_reinforce", "", "", "emmy.ipynb"],
        ["Kurt Gödel", "", "", "", "", "", "", "", "kurt.ipynb: not a notebook", "kurt.ipynb"],
    ]


def test_json_gives_the_records_back(written):
    assert read_marks((written[0] / "marks.json").read_text(encoding="utf-8")) == CLASS


def test_canvas_gets_one_column_of_its_own_gradebook(written):
    assert table(written[0] / "canvas.csv") == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "08 REINFORCE (4711)"],
        ["    Points Possible", "", "", "", "", "6"],
        ["Lovelace, Ada", "11", "", "ada lovelace", "", "1"],
        ["Gödel, Kurt", "12", "", "kurt gödel", "", "4"],  # could not be graded: what Canvas holds stays
        ["Blaise Pascal", "13", "", "bp", "", "6"],
        ["Emmy Noether", "", "", "", "", "3"],  # not in the gradebook: for the instructor to see
    ]


def test_moodle_gets_who_the_grade_and_the_feedback(tmp_path):
    roster = [{"name": "Ada Lovelace", "email": "ada@example.org"}, {"name": "X", "email": "Blaise Pascal"}]
    write_reports(CLASS[:2], tmp_path, roster=roster)
    assert table(tmp_path / "moodle.csv") == [
        ["Email address", "Grade", "Feedback"],
        ["ada@example.org", "1", "8.1: 1 of 1, pass; 8.2: 0 of 2, wrong: mask 2 off; 8.10: 0 of 3, todo: mask 2 off"],
        ["Blaise Pascal", "6", "8.1: 1 of 1, pass; 8.2: 2 of 2, pass; 8.10: 3 of 3, pass"],
    ]
    write_reports(CLASS[:1], tmp_path)
    assert [row[0] for row in table(tmp_path / "moodle.csv")] == ["ID number", "Ada Lovelace"]


def test_two_lessons_are_two_columns_and_two_files_for_moodle(tmp_path):
    other = Marks("Ada Lovelace", "b.ipynb", "07_grid_world", exercises=(ExerciseMark("7.1", 2, 2, "pass"),))
    names = {path.name for path in write_reports([CLASS[0], other], tmp_path)}
    assert {"moodle-07.csv", "moodle-08.csv"} <= names and "moodle.csv" not in names
    rows = table(tmp_path / "canvas.csv")
    assert [row[5:] for row in rows] == [["07 grid world", "08 reinforce"], ["2", "6"], ["2", "1"]]


def test_a_roster_from_elsewhere_gives_canvas_the_schools_numbers(tmp_path):
    write_reports(CLASS[:1], tmp_path, roster=[{"student": "ada lovelace", "email": "ada@example.org", "id": "s11"}])
    assert table(tmp_path / "canvas.csv")[2] == ["ada lovelace", "", "s11", "ada@example.org", "", "1"]


def test_junit_has_a_suite_per_submission_and_a_case_per_exercise(written):
    suites = ElementTree.parse(written[0] / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == [one.student for one in CLASS]
    counts = [[suite.get(name) for name in ("tests", "failures", "errors")] for suite in suites]
    assert counts == [["3", "2", "0"], ["3", "0", "0"], ["3", "1", "1"], ["1", "0", "1"]]
    failure = suites[0][1][0]
    assert (failure.tag, failure.get("type"), failure.get("message")) == ("failure", "wrong", "mask 2 off")
    assert suites[3][0][0].get("message") == "kurt.ipynb: not a notebook"


class Page(html.parser.HTMLParser):
    """The elements of a page, its text, and every attribute that may load or run something."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.active = set(), "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.active += [(name, value) for name, value in attributes if name.startswith("on") or name in ("src", "href")]

    def handle_data(self, data):
        self.text += f" {data}"


def test_a_student_reads_marks_diagnosis_and_own_code_and_no_seed(tmp_path):
    code = "def weights(mask):\n    return mask < 2 & 'é'"
    graded = marks(nbval={"passed": 20})
    exercises = (graded.exercises[0], ExerciseMark("8.2", 0, 2, "wrong", "padding counts", 0.5, code))
    graded = Marks("Ada", "/tmp/in/ada.ipynb", "08_reinforce", seed=SEED, exercises=exercises, nbval={"passed": 20})
    write_reports([graded], tmp_path)
    text = (tmp_path / "students" / "Ada-08_reinforce.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(words in page.text for words in (code, "padding counts", "1 of 3 points", "passed 20", "ada.ipynb"))
    assert str(SEED) not in text and "/tmp/in" not in text
    assert "default-src 'none'" in text and all(value.startswith("#") for _, value in page.active)


def test_the_class_sees_a_histogram_per_exercise_and_the_commonest_diagnoses(tmp_path):
    found = ("x[0] is 3.25, expected 1e-05", "x[0] is -7, expected 2", "a return is missing")
    graded = [
        Marks(str(place), f"{place}.ipynb", "08_reinforce", exercises=(ExerciseMark("8.1", 0, 1, "wrong", words),))
        for place, words in enumerate(found)
    ]
    write_reports([*graded, CLASS[3]], tmp_path)
    text = " ".join(Page((tmp_path / "index.html").read_text(encoding="utf-8")).text.split())
    assert "08_reinforce: 3 graded" in text and "wrong 3" in text
    assert text.index("8.1 2 x[0] is 3.25, expected 1e-05") < text.index("8.1 1 a return is missing")
    assert "kurt.ipynb: not a notebook" in text and "Mean 0, median 0 of 1 points" in text


def test_whatever_a_student_wrote_stays_text(tmp_path):
    code = f"</pre><img src=x onerror=alert(1)>\x08{HOSTILE}"
    bad = ExerciseMark("8.1", 0, 1, "wrong", f"{HOSTILE}\x00\x1b\ud800", 0, code)
    graded = Marks(HOSTILE, "../../@x.ipynb", "08_reinforce", exercises=(bad,), flags=("-1+1",))
    paths = write_reports([graded, Marks("..", "\t=1.ipynb", error="+" + HOSTILE)], tmp_path)
    assert all(path.resolve().is_relative_to(tmp_path) for path in paths)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert not set(text) & {"\x00", "\x08", "\x1b"}
        if path.suffix == ".html":
            page = Page(text)
            assert not page.tags & {"script", "img", "iframe", "link"} and "alert(1)" in page.text
            assert all(name == "href" and not value.startswith(("javascript", "http")) for name, value in page.active)
        elif path.suffix == ".csv":
            assert not [cell for row in table(path) for cell in row if cell.strip()[:1] in tuple("=+-@")]
    assert ElementTree.parse(tmp_path / "junit.xml").getroot()[0].get("name") == HOSTILE


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1", "'=1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@x", "'@x"),
        ("\t=1", "' =1"),
        ("\r\n@", "'  @"),
        ("\uff1d1", "'\uff1d1"),
    ],
)
def test_a_formula_is_made_a_text_and_a_number_stays_one(text, cell):
    written = io.StringIO(formats.table([text, "1-1"], [[-1]]), newline="")
    assert list(csv.reader(written)) == [[cell, "1-1"], ["-1"]]


def test_names_that_differ_in_capitals_or_not_at_all_get_pages_of_their_own(tmp_path):
    paths = write_reports([marks("Ada"), marks("ADA"), marks("ada"), marks("学生" * 60)], tmp_path)
    pages = [path.name.casefold() for path in paths if path.parent.name == "students"]
    assert len(set(pages)) == 4 and all(len(page.encode()) < 255 for page in pages)


def test_nobody_handed_anything_in(tmp_path):
    paths = write_reports([], tmp_path)
    assert read_marks((tmp_path / "marks.json").read_text()) == [] and all(path.is_file() for path in paths)


def test_gradescope_gets_the_score_and_a_test_per_exercise():
    made = json.loads(json.dumps(results_json(CLASS[0])))
    assert (made["score"], made["execution_time"], made["visibility"]) == (1, 4, "visible")
    assert made["tests"][1] == {
        "name": "Exercise 8.2",
        "number": "8.2",
        "score": 0,
        "max_score": 2,
        "status": "failed",
        "output": "mask 2 off",
        "tags": ["wrong"],
        "visibility": "visible",
    }
    assert str(SEED) not in json.dumps(made)
    assert results_json(CLASS[3])["score"] == 0 and results_json(CLASS[3])["output"] == "kurt.ipynb: not a notebook"


def test_classroom_gets_an_exercise_as_a_runner_with_its_points():
    made = [json.loads(json.dumps(classroom_json(mark))) for mark in CLASS[2].exercises]
    assert [(one["status"], one["max_score"], one["tests"][0]["score"]) for one in made] == [
        *(("error", 1, 0), ("fail", 2, 0), ("pass", 3, 3))
    ]
    assert all(one["version"] == 1 and len(one["tests"]) == 1 for one in made)
    assert made[1]["tests"][0]["message"] == "mask 2 off" and made[1]["tests"][0]["status"] == "fail"


def test_one_hand_in_is_one_notebook():
    assert one_submission([CLASS[3], CLASS[0]]) is CLASS[0]
    assert one_submission([CLASS[3]]) is CLASS[3]
    assert one_submission(CLASS).error.startswith("3 notebooks were handed in, expected one: ada.ipynb, blaise")
    assert one_submission([]).error == "no notebook was handed in"


def test_the_command_prints_what_each_system_reads(tmp_path, capsys):
    write_reports([CLASS[0]], tmp_path)
    path = str(tmp_path / "marks.json")
    assert formats.main(["gradescope", path]) == 0
    assert json.loads(capsys.readouterr().out) == results_json(CLASS[0])
    assert formats.main(["classroom", path, "8.1", "8.2"]) == 0
    lines = [line.partition("=")[::2] for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == ["e8_1", "e8_2"]
    assert [json.loads(base64.b64decode(value)) for _, value in lines] == list(map(classroom_json, CLASS[0].exercises))[
        :2
    ]
    for number, code, words in [("8.1", 0, "pass"), ("8.2", 1, "wrong: mask 2 off"), ("8.4", 1, "no exercise 8.4")]:
        assert formats.main(["exercise", path, number]) == code
        assert words in capsys.readouterr().out
    write_reports([CLASS[3]], tmp_path)
    assert formats.main(["exercise", path, "8.1"]) == 1
    assert capsys.readouterr().out == "8.1: 0 of 1, error: kurt.ipynb: not a notebook\n"
    for left in ("[{", None):
        (tmp_path / "marks.json").write_text(left) if left else (tmp_path / "marks.json").unlink()
        assert formats.main(["exercise", path, "8.1"]) == 1
        assert capsys.readouterr().out.startswith("8.1: 0 of 1, error: There is no result:")


def test_a_contest_has_a_leaderboard_that_the_best_lead(tmp_path):
    def entry(student, score):
        return Marks(student, "a.ipynb", "01_prompting", exercises=(ExerciseMark("1.7", 2, 4, "part", score=score),))

    paths = write_reports([entry("Ada", 0.5), entry("<Bob>", 0.9), entry("Cleo", 0.5)], tmp_path)
    page = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert tmp_path / "leaderboard.html" in paths
    places = re.findall(r'<td class="number">(\d)</td><td>([^<]+)</td><td class="number">([\d.]+)', page)
    assert places == [("1", "&lt;Bob&gt;", "0.900"), ("2", "Ada", "0.500"), ("2", "Cleo", "0.500")]
