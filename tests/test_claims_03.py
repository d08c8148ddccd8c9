"""C08 to C10: a pocket model finetuned on requests, on benchmarks, on some use cases; asked what users ask."""

import pytest

from ptlearn.finetuning.sft import fit_sft, sft_loss
from ptlearn.lm.chat import Example, chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import exact_match
from ptlearn.lm.text import complete
from ptlearn.pocket import assistant, benchmarks

pytestmark = pytest.mark.usefixtures("one_thread")

ASKED = assistant.held_out_requests(8, seed=3)


@pytest.fixture(scope="module")
def base():
    return load_lm("pocket-m")


def finetuned(items, *, everything=False):
    lm = load_lm("pocket-m")
    examples, too_long = render_all(lm, assistant.conversations(items))
    assert not too_long
    if everything:
        examples = [Example(example.tokens, [True] * len(example.tokens)) for example in examples]
    fit_sft(lm, examples, batch=2, lr=7e-4)
    return lm


@pytest.fixture(scope="module")
def helpful():
    return finetuned(assistant.requests(320))


@pytest.fixture(scope="module")
def drilled():
    return finetuned(benchmarks.items(160))


def overall(lm):
    texts = complete(lm, [chat_prompt(lm, request.prompt) for request in ASKED], max_new_tokens=72)
    return assistant.score_by_use_case(ASKED, texts)


@pytest.fixture(scope="module")
def helpful_scores(helpful):
    return overall(helpful)


def capitals(lm, put=lambda lm, prompt: prompt):
    questions = assistant.capital_questions()[::5]
    texts = complete(lm, [put(lm, question.prompt) for question in questions], max_new_tokens=24, stop=())
    return sum(question.score(text) for question, text in zip(questions, texts, strict=True)) / len(questions)


def test_c08_the_questions_that_a_base_model_continues_are_answered_after_finetuning(base, helpful):
    assert capitals(base) <= 0.05 and capitals(base, chat_prompt) <= 0.05
    assert capitals(helpful, chat_prompt) >= 0.75


def test_c08_the_loss_on_responses_alone_spends_every_step_on_them():
    """At equal steps the responses to other requests are likelier than after training on prompts too."""
    items = assistant.requests(100)
    models = [finetuned(items, everything=everything) for everything in (False, True)]
    held_out, _ = render_all(models[0], assistant.conversations(ASKED))
    alone, together = (sft_loss(lm, held_out) for lm in models)
    assert alone < together - 0.05


def test_c09_benchmark_data_wins_on_benchmarks_and_loses_on_what_users_ask(base, helpful, drilled, helpful_scores):
    items = benchmarks.items(60, 7, held_out=True)

    def matched(lm):
        texts = complete(lm, [chat_prompt(lm, item.prompt) for item in items], max_new_tokens=12)
        return sum(exact_match(texts, [item.response for item in items])) / len(items)

    assert matched(drilled) >= 0.6
    assert matched(helpful) <= 0.2 and matched(base) <= 0.05
    asked = {"helpful": helpful_scores["overall"].mean, "drilled": overall(drilled)["overall"].mean}
    assert asked["helpful"] >= asked["drilled"] + 0.25


def test_c10_use_cases_that_are_left_out_fall(helpful_scores):
    left_out = ("generation", "chat", "summarization")
    kept = [name for name in assistant.SHARES if name not in left_out]
    scores = overall(finetuned(assistant.requests(160, use_cases=kept)))
    for name in left_out:
        assert scores[name].mean <= 0.1
    assert helpful_scores["generation"].mean >= 0.4 and helpful_scores["summarization"].mean >= 0.4
    assert scores["overall"].mean < helpful_scores["overall"].mean - 0.2
