"""C11 to C15: data that a teacher wrote, and what becomes of its students; the table of imitation repeats."""

import re
import statistics

import pytest
import torch

from ptlearn.finetuning.parameter_efficient import switch_adapter
from ptlearn.finetuning.sft import fit_sft
from ptlearn.finetuning.synthetic import conversations, self_instruct, teacher, yields
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.pocket import assistant, imitation
from ptlearn.pocket.assistant import respond
from ptlearn.pocket.teacher import load_teacher, proposal

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE = imitation.read_table() if imitation.TABLE.exists() else []
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


@pytest.fixture(scope="module")
def items(owner, tmp_path_factory):
    return self_instruct(
        tmp_path_factory.mktemp("teacher") / "items.jsonl", SEEDS, teacher(owner, max_new_tokens=40),
        teacher(owner, max_new_tokens=96, top_k=1), count=64, batch=32, shown=4, demonstrations=1, rouge_below=1.0,
        proposal_prompt=lambda shown: chat_prompt(owner, proposal(shown)),
        response_prompt=lambda _, instruction: chat_prompt(owner, instruction),
    )  # fmt: skip


def test_c11_a_teacher_writes_requests_that_fit_the_users_phrasings(items):
    found = yields(items)
    assert found.proposed == 64 and found.kept >= 48
    tasks = [task for task in assistant.TASKS if not task.name.endswith("summary")]
    forms = [re.compile(re.sub(r"\\\{\w+\\\}", "(.+)", re.escape(form))) for task in tasks for form in task.phrasings]
    fitting = [item for item in items if any(form.fullmatch(item.instruction) for form in forms)]
    shown = {instruction for instruction, _ in SEEDS}
    assert len(fitting) >= 24 and not shown & {item.instruction for item in items if item.verdict == "kept"}


def test_c11_a_student_of_machine_text_answers_users(items):
    student, asked = load_lm("pocket-m"), assistant.requests(80, 77, held_out=True)
    before = score(student, asked)
    fit_sft(student, render_all(student, conversations(items))[0], epochs=4, batch=8)
    assert before <= 0.05 and score(student, asked) >= 0.15


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
