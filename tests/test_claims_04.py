"""C11 to C15: data that a teacher wrote, and what becomes of its students; rows of the tables repeat."""

import statistics

import pytest
import torch

from ptlearn.finetuning.parameter_efficient import switch_adapter
from ptlearn.finetuning.synthetic import self_instruct, task_and_output, teacher, yields
from ptlearn.lm.chat import chat_prompt
from ptlearn.lm.models import load_lm
from ptlearn.pocket import assistant, filtering, form_and_fact, imitation
from ptlearn.pocket.assistant import respond
from ptlearn.pocket.teacher import load_teacher, proposal

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE = imitation.read_table()
FILTERED = {name: [row for row in filtering.read_table() if row["set"] == name] for name in filtering.SETS}
APART = form_and_fact.read_table()
STUDENTS, SIZES = tuple(imitation.STUDENTS), imitation.SIZES
ASKED = [request for request in assistant.requests(60, 5) if len(request.prompt.split()) <= 12]
SEEDS = [(request.prompt, request.response) for request in ASKED]


def mean(model, examples, column="score"):
    return statistics.mean(row[column] for row in TABLE if (row["model"], row["examples"]) == (model, examples))


@pytest.fixture(scope="module")
def owner():
    return load_teacher()


def score(lm, asked):
    said = respond(lm, [request.prompt for request in asked])
    return statistics.mean(request.score(text) for request, text in zip(asked, said, strict=True))


def total(name, column):
    return sum(row[column] for row in FILTERED[name])


def apart(size, column):
    return statistics.mean(row[column] for row in APART if (row["model"], row["examples"]) == ("pocket-m", size))


def test_c11_the_loop_runs_with_a_pocket_teacher(owner, tmp_path):
    items = self_instruct(
        tmp_path / "items.jsonl", SEEDS, teacher(owner, max_new_tokens=40),
        teacher(owner, max_new_tokens=96, top_k=1), count=32, batch=32, shown=4, demonstrations=1, rouge_below=1.0,
        proposal_prompt=lambda shown: chat_prompt(owner, proposal(shown)),
        response_prompt=lambda _, instruction: chat_prompt(owner, instruction),
    )  # fmt: skip
    shown, kept = {prompt for prompt, _ in SEEDS}, [item.instruction for item in items if item.verdict == "kept"]
    assert yields(items).proposed == 32 and len(kept) >= 24 and not shown & {*kept}
    assert sum(map(filtering.well_formed, kept)) >= 12


def test_c11_a_teacher_writes_requests_that_fit_the_users_phrasings():
    assert total("all", "examples") >= 0.9 * filtering.PROPOSED * len(FILTERED["all"])
    assert 0.45 < total("all", "well_formed") / total("all", "examples") < 0.75


def test_c11_novelty_is_not_quality():
    strict, drawn = (total(name, "well_formed") / total(name, "examples") for name in ("strict", "random"))
    assert strict < drawn - 0.15
    assert [row["examples"] for row in FILTERED["strict"]] == [row["examples"] for row in FILTERED["random"]]
    for kept, chance in zip(FILTERED["strict"], FILTERED["random"], strict=True):
        assert kept["score"] < chance["score"] - 0.05


def test_c11_a_base_model_is_no_teacher_of_itself(owner):
    asked = [request for request in assistant.requests(130, 9, held_out=True) if len(request.prompt.split()) <= 12][:80]
    prompts = [task_and_output(SEEDS[:4], request.prompt) for request in asked]
    said = teacher(load_lm("pocket-l"), max_new_tokens=32, top_k=1)(prompts, 0)
    assert len(said) == 80
    assert statistics.mean(request.score(text or "") for request, text in zip(asked, said, strict=True)) < 0.15


def test_c12_a_student_of_machine_text_answers_users():
    for row in FILTERED["all"]:
        assert row["score"] >= mean("pocket-m", 0) + 0.15


def test_a_student_sounds_like_its_teacher_before_it_is_as_often_right():
    [teacher_row] = [row for row in APART if row["model"] == "teacher"]
    form, fact = (apart(480, column) / teacher_row[column] for column in ("form", "fact"))
    assert apart(0, "form") <= 0.05 and teacher_row["n"] > 200
    assert form > 0.8 and fact < form - 0.1
    assert apart(30, "form") < 0.5 * teacher_row["form"]


def test_the_teachers_form_and_fact_come_out_again(owner):
    form, fact = form_and_fact.form_and_fact(owner, form_and_fact.test_requests()[:50])
    assert form.low < APART[0]["form"] < form.high and fact.low < APART[0]["fact"] < fact.high


def test_the_teachers_base_is_pocket_l(owner):
    tokens = torch.arange(1, 40)[None]
    with torch.no_grad():
        switch_adapter(owner, None)
        same = torch.equal(owner(tokens), load_lm("pocket-l")(tokens))
        switch_adapter(owner, "default")
        assert same and not torch.equal(owner(tokens), load_lm("pocket-l")(tokens))


def test_the_table_is_whole():
    runs = [(row["model"], row["examples"], row["seed"]) for row in TABLE]
    students = [(name, size, seed) for name in STUDENTS for size in SIZES for seed in imitation.SEEDS]
    assert sorted(runs) == sorted([(name, 0, 0) for name in ("teacher", *STUDENTS)] + students)
    assert len(SIZES) >= 5 and len(STUDENTS) == 3 and len(imitation.SEEDS) >= 3


def test_a_row_of_the_table_comes_out_again(owner):
    student = load_lm("pocket-s")
    examples = imitation.teacher_examples(owner, 0, SIZES[0])
    imitation.imitate(student, examples, lr=imitation.STUDENTS["pocket-s"], seed=0)
    again = score(student, imitation.test_requests())
    [recorded] = [row for row in TABLE if (row["model"], row["examples"], row["seed"]) == ("pocket-s", SIZES[0], 0)]
    assert abs(again - recorded["score"]) < 0.05
    assert min(abs(recorded["score"] - mean("pocket-s", size)) for size in SIZES[2:]) > 0.1  # others are farther off


def test_c12_a_student_comes_near_its_teacher():
    assert mean("pocket-m", 0) <= 0.05
    assert mean("pocket-m", SIZES[-1]) >= 0.85 * mean("teacher", 0)


def test_c13_more_of_the_same_data_adds_less_and_less():
    for name in STUDENTS[1:]:
        first, last = mean(name, SIZES[2]) - mean(name, SIZES[0]), mean(name, SIZES[4]) - mean(name, SIZES[2])
        assert last < 0.6 * first


def test_c14_imitation_costs_what_no_example_asks_for():
    for name in STUDENTS:
        assert mean(name, SIZES[-1], "elsewhere") < mean(name, 0, "elsewhere") - 0.05
        assert mean(name, SIZES[-1], "nats") > mean(name, 0, "nats") + 0.2


def test_c15_a_stronger_base_makes_a_better_student_of_the_same_data():
    for size in SIZES[2:]:
        assert mean("pocket-s", size) < mean("pocket-m", size)
    assert mean("pocket-l", SIZES[-1]) > mean("pocket-s", SIZES[-1]) + 0.05
