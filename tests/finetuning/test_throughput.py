"""FLOPs by hand, and clocks that count what passes through them."""

from functools import partial

import pytest
import torch
import transformers

from ptlearn.finetuning.memory import build_model
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.finetuning.throughput import StepClock, compile_layers, flops_per_token, matrix_rate
from ptlearn.lm.chat import render_all
from ptlearn.lm.models import load_lm
from ptlearn.pocket.assistant import conversations, requests

WIDTH, WIDE, LAYERS, HEADS, KEYS, WORDS = 32, 48, 3, 4, 2, 100
LAYER = 2 * WIDTH**2 + 2 * WIDTH * WIDTH * KEYS // HEADS + 3 * WIDTH * WIDE


def tiny(kind="Llama", **options):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=WIDE, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KEYS, max_position_embeddings=64, **options,
    )  # fmt: skip
    return build_model(config)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
def test_flops_are_six_a_weight_and_attention_over_half_a_row(kind, tied):
    model = tiny(kind, tie_word_embeddings=tied)
    matrices = LAYERS * LAYER + WORDS * WIDTH  # one table of words is multiplied, tied or not
    for length in (1, 64):
        assert flops_per_token(model, length) == 6 * matrices + 6 * LAYERS * WIDTH * length


def test_frozen_weights_need_no_gradient_of_their_own():
    rank = 2
    model = lora(tiny(tie_word_embeddings=True), targets="[a-z]+_proj", rank=rank)
    matrices = LAYERS * LAYER + WORDS * WIDTH
    key = WIDTH * KEYS // HEADS
    added = LAYERS * rank * (2 * 2 * WIDTH + 2 * (WIDTH + key) + 3 * (WIDTH + WIDE))
    assert flops_per_token(model, 1) == 4 * matrices + 6 * added + 6 * LAYERS * WIDTH


def test_gpt2_s_transposed_matrices_count_and_its_positions_do_not():
    config = transformers.GPT2Config(vocab_size=WORDS, n_positions=64, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS)
    assert flops_per_token(build_model(config), 1) == 6 * (LAYERS * 12 * WIDTH**2 + WORDS * WIDTH + LAYERS * WIDTH)


def test_a_length_that_is_none_is_refused():
    with pytest.raises(ValueError, match="length=0: expected at least 1"):
        flops_per_token(tiny(), 0)


def test_the_matrix_rate_is_operations_over_seconds(monkeypatch):
    moments = iter(range(100))
    monkeypatch.setattr("ptlearn.finetuning.throughput._now", lambda _: next(moments))
    assert matrix_rate("cpu", torch.float32, size=8) == 2 * 8**3


@pytest.mark.parametrize("method", [None, partial(lora, targets=["q_proj", "v_proj"], rank=2)])
def test_compiled_and_checkpointed_layers_learn_the_same(method, monkeypatch):
    from ptlearn.finetuning.memory import checkpoint_activations

    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    losses = {}
    for way in (lambda lm: None, checkpoint_activations):
        lm = load_lm("pocket-s")
        compile_layers(lm)
        lm = lm if method is None else method(lm)
        way(lm)
        clock = StepClock()
        examples, _ = render_all(lm, conversations(requests(8, seed=0)))
        losses[way] = fit_sft(lm, examples, batch=4, progress=clock).loss
        assert len(clock.seconds) == 2 and min(clock.seconds) > 0
    one, other = losses.values()
    assert one == pytest.approx(other, abs=1e-5) and one[0] != one[1]
    assert compiled == ["LlamaDecoderLayer"] * 10  # five layers, twice
