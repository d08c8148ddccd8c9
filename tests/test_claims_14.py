"""C02 to C07 and C14 on a real model, where it is in the cache; the lesson's own functions on a pocket LM, everywhere.

The lesson is read as a grader reads it: imports, constants and functions, none of its measurements.
"""

import ast
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ptlearn.course.build import absent_model
from ptlearn.course.lesson import ROOT, cells_of, solved
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import score_choices
from ptlearn.lm.real_model import home
from ptlearn.pocket import relations

PATH = ROOT / "lessons" / "14_real_model.py"
CONSTANTS = {"FORMS", "SHOTS", "TABLES", "NAMINGS", "CONTENT_FREE", "QUESTIONS"}
pytestmark = pytest.mark.usefixtures("one_thread")
with_the_model = pytest.mark.skipif(not (home() / "smollm2-135m").is_dir(), reason="ptlearn get smollm2-135m")


def is_definition(node):
    if isinstance(node, ast.Assign):
        return {getattr(target, "id", None) for target in node.targets} <= CONSTANTS
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)


@pytest.fixture(scope="module")
def lesson():
    """The names of the lesson, with eight items per measurement."""
    names = {"args": SimpleNamespace(count=8, steps=2, seed=0), "facts": relations.stated("capital")[:8]}
    cells = [ast.parse(solved(cell.source)) for cell in cells_of(PATH) if cell.cell_type == "code"]
    nodes = [node for cell in cells for node in cell.body if is_definition(node)]
    exec(compile(ast.Module(nodes, []), PATH.name, "exec"), names)
    return SimpleNamespace(**names), names


def labelled_reviews(lesson, names, count=8):
    """The reviews that the lesson's functions take from its measurements."""
    pool = lesson.reviews(count + 16, "reviews")
    names["tests"], sets = pool[16:], (pool[:8], pool[8:16])
    names["sets"], names["good"] = sets, torch.tensor([good for _, good in names["tests"]])
    names["queries"] = [f" {text}\nSentiment:" for text, _ in names["tests"]]
    return sets[0]


def test_reading_the_demonstrations_once_gives_what_reading_them_with_every_query_does(lesson, pocket_s):
    lesson, names = lesson
    context = lesson.demonstrated(labelled_reviews(lesson, names)[:4], ("X", "Y"))
    once = lesson.label_logprobs(pocket_s, context, names["queries"], ("X", "Y"))
    whole = score_choices(pocket_s, [context + query for query in names["queries"]], ("X", "Y")).logprobs
    assert torch.allclose(once, whole, atol=1e-4) and not torch.allclose(once.flip(0), whole, atol=1e-2)


def test_reviews_and_episodes_are_distinct_and_balanced(lesson):
    lesson, _ = lesson
    found = lesson.reviews(40, "any")
    assert len(dict(found)) == 40 and sum(good for _, good in found) == 20
    for relation in lesson.TABLES:
        episodes = lesson.episodes_of(relation)
        assert len({query for _, (query, _) in episodes}) == 8
        assert all(pair not in shown and len(set(shown)) == max(lesson.SHOTS) for shown, pair in episodes)


def test_the_form_is_a_json_object_with_one_answer(lesson):
    lesson, _ = lesson
    texts = ('{"answer": "Oslo"}', ' {"answer": "Oslo"}', '{"answer": "Oslo"', '{"city": "Oslo"}', "Oslo", "17", "")
    assert [lesson.has_form(text) for text in texts] == [True, True, False, False, False, False, False]
    for conversation in lesson.json_conversations(8, 0):
        assert lesson.has_form(conversation[1]["content"])


def test_nothing_is_forgotten_before_the_first_step_and_a_tiny_rate_changes_little(lesson, pocket_s):
    lesson, _ = lesson
    before = lesson.known(pocket_s)
    after = lesson.known(lesson.finetuned(pocket_s, 1e-9, 0))
    assert before.shape == (4, 8) and set(before[:3].flatten().tolist()) <= {0.0, 1.0}
    assert torch.allclose(before, after, atol=1e-3)
    assert torch.equal(before[2].bool(), before[2] > 0) and (before[3] < 0).all()


def test_without_the_model_a_script_ends_on_the_command_and_a_notebook_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PTLEARN_HOME", str(tmp_path))
    ended = subprocess.run([sys.executable, PATH], env=os.environ, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == "" and len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("14_real_model.py: ") and ended.stderr.endswith("ptlearn get smollm2-135m\n")
    assert "ptlearn get smollm2-135m" in absent_model(PATH) and absent_model(PATH.with_name("01_prompting.py")) == ""
    names = {"__name__": "__main__"}  # of a notebook, which has no file
    exec(next(cell.source for cell in cells_of(PATH) if cell.cell_type == "code"), names)
    assert list(names["models"]) == ["pocket-m"] and "ptlearn get smollm2-135m" in capsys.readouterr().out


@pytest.fixture(scope="module")
def real():
    return load_lm("smollm2-135m")


@with_the_model
def test_c02_c03_a_fact_comes_out_by_cloze_and_by_chat_not_by_the_bare_question(lesson, real):
    lesson, _ = lesson
    some = relations.stated("capital")[::5]
    named = {form: lesson.share_naming(lesson.asked(real, form, some), some) for form in lesson.FORMS}
    assert named["question"].high < min(named["cloze"].low, named["chat"].low)


@with_the_model
def test_c06_c07_labels_against_the_prior_do_not_win_and_calibration_repairs(lesson, real):
    lesson, names = lesson
    labelled_reviews(lesson, names, 32)
    names["calibrated_choice"] = lesson.calibrated_choice
    _, raw, repaired = lesson.zero_shot(real, " {} Overall, it was", ("good", "bad"))
    assert raw.high < repaired.low
    swapped, right = (lesson.follows(real, lesson.NAMINGS[naming], 2) for naming in ("swapped", "right"))
    assert swapped.high < 0.5 < right.low
