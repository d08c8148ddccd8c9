"""C16 and C17: what a finetuning step holds, and how far few trained parameters get, with pocket-m.

Bytes of the lesson's own exercises against a real step; scores against full finetuning on 80 distinct questions, and
80 distinct new facts.
"""

import random
from functools import partial

import pytest
import torch

from ptlearn.course.exercise import exercises
from ptlearn.finetuning.memory import checkpoint_activations, count_parameters, memory_budget, saved_bytes
from ptlearn.finetuning.parameter_efficient import adapters, bitfit, last_k
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import complete
from ptlearn.pocket import relations

METHODS = {
    "full": (None, 1e-3),
    "last 1": (partial(last_k, k=1), 3e-3),
    "bitfit": (bitfit, 3e-2),
    "adapters": (partial(adapters, size=8), 1e-2),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def changed(name, model="pocket-m"):
    method, lm = METHODS[name][0], load_lm(model)
    return lm if method is None else method(lm)


# ---------------------------------------------------------------- C16


def loss_of(lm):
    tokens = torch.randint(1, 4000, (8, 40), generator=torch.Generator().manual_seed(0))
    return lm.model(input_ids=tokens, labels=tokens, use_cache=False).loss


@pytest.fixture(scope="module")
def weighed():
    """{method: what counting foretells and what a real step of pocket-m holds}, activations last and not counted."""
    counted, saved_tensors, storage_bytes, kept_bytes = (
        exercises(5)[number].reference for number in ("5.1", "5.2", "5.3", "5.4")
    )
    found = {}
    for name in METHODS:
        lm = changed(name)
        trained, total = count_parameters(lm)
        loss, saved = saved_tensors(partial(loss_of, lm))
        activations = storage_bytes(saved, [*lm.parameters(), *lm.buffers()])
        found[name] = counted(total, trained, 4), (*kept_bytes(lm, loss), activations)
    return found


def test_c16_counts_foretell_a_real_step(weighed):
    for foretold, found in weighed.values():
        assert found[:3] == pytest.approx(foretold, rel=0.01)


def test_a_block_saves_ten_vectors_of_the_width_and_four_of_the_inner_width(weighed):
    lm = load_lm("pocket-m")
    config, tokens = lm.model.config, 8 * 40
    block = 10 * config.hidden_size + 4 * config.intermediate_size
    outside = 3 * config.hidden_size + config.vocab_size
    found = weighed["full"][1][3]
    assert found == pytest.approx(4 * tokens * (config.num_hidden_layers * block + outside), rel=0.01)
    assert found == pytest.approx(memory_budget(lm, batch=8, length=40).activations, rel=0.001)
    checkpoint_activations(lm.train())
    assert saved_bytes(lm, partial(loss_of, lm))[1] < found / 3


def test_only_a_backward_pass_that_ends_early_halves_the_activations(weighed):
    full, last, bias, inserted = (weighed[name][1] for name in ("full", "last 1", "bitfit", "adapters"))
    for weights, gradients, states, _ in (last, bias, inserted):
        assert gradients < full[1] / 2 and states < full[2] / 2 and weights >= full[0]
    assert last[3] < full[3] / 2 < min(bias[3], inserted[3])


# ---------------------------------------------------------------- C17

FIELDS = ("capital", "region", "language", "currency")
WORDINGS = ("What is the {} of {}?", "Tell me the {} of {}.", "Name the {} of {}.", "Which {} does {} have?")


def talk(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": f"{answer}."}]


def answered(lm, talks):
    texts = complete(lm, [chat_prompt(lm, given[:1]) for given in talks], max_new_tokens=8)
    right = [text.strip() == given[1]["content"] for text, given in zip(texts, talks, strict=True)]
    return sum(right) / len(right)


@pytest.fixture(scope="module")
def scores():
    """Answers to 80 questions about countries that were not trained, in other words: base and each method."""
    rng = random.Random(0)
    facts = [(field, name, answer) for field in FIELDS for name, answer in relations.stated(field)]
    names = sorted({name for _, name, _ in facts})
    taught = set(rng.sample(names, 2 * len(names) // 3))
    known = rng.choices([fact for fact in facts if fact[1] in taught], k=240)
    others = rng.sample([fact for fact in facts if fact[1] not in taught], 80)
    trained = [talk(rng.choice(WORDINGS).format(field, name), answer) for field, name, answer in known]
    asked = [talk(f"Can you tell me the {field} of {name}?", answer) for field, name, answer in others]
    found = {"base": answered(load_lm("pocket-m"), asked)}
    for name, (_, lr) in METHODS.items():
        lm = changed(name)
        fit_sft(lm, render_all(lm, trained)[0], batch=16, lr=lr)
        found[name] = answered(lm, asked)
    return found


def test_c17_a_hundredth_of_the_parameters_comes_close_to_full_finetuning(scores):
    assert scores["base"] <= 0.05 and scores["full"] >= 0.9
    trained, total = count_parameters(changed("adapters"))
    assert trained < total / 75 and scores["adapters"] >= scores["full"] - 0.1
    trained, total = count_parameters(changed("bitfit"))
    assert trained < total / 200 and scores["bitfit"] >= scores["full"] - 0.3


def test_where_parameters_are_trained_matters_more_than_how_many(scores):
    assert count_parameters(changed("last 1"))[0] > 30 * count_parameters(changed("bitfit"))[0]
    assert scores["last 1"] <= scores["bitfit"] - 0.3


def test_full_finetuning_stores_80_new_facts_in_steps_in_which_the_smallest_methods_do_not():
    rng = random.Random(5)
    names = sorted(name for name, _ in relations.stated("capital"))[:80]
    talks = [talk(f"What is the code of {n}?", code) for n, code in zip(names, relations.label_words(rng, 80, True))]
    recalled = {}
    for name, lr in (("full", 3e-3), ("bitfit", 3e-2)):
        lm = changed(name, "pocket-s")
        fit_sft(lm, render_all(lm, talks)[0], batch=8, lr=lr, epochs=14)
        recalled[name] = answered(lm, talks)
    assert recalled["full"] >= 0.8 and recalled["bitfit"] <= 0.2
