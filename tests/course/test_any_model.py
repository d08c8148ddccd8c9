"""Lessons 05 and 06 as scripts on models that are not the pocket's: without biases, in GPT-2's layout, on one seed."""

import sys

import pytest
import torch
from test_blank_notebooks import place  # noqa: F401, a fixture

from ptlearn.course.lesson import ROOT


def save_untrained(folder, layout):
    """A tiny model with the tokenizer and the chat template of the pocket models."""
    import transformers

    from ptlearn.lm.models import load_lm

    lm = load_lm("pocket-s")
    ids = {"vocab_size": lm.model.config.vocab_size, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if layout == "llama":
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.LlamaConfig(**ids, **sizes, max_position_embeddings=lm.context)
    else:
        config = transformers.GPT2Config(**ids, n_embd=32, n_layer=2, n_head=2, n_positions=lm.context)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("lesson", "layout", "knobs", "said"),
    [
        ("05_parameter_efficient", "llama", ("--examples", "8", "--count", "2"), "BitFit is left out"),
        ("06_lora", "gpt2", ("--ranks", "1"), "GPT2LMHeadModel"),
    ],
)
def test_a_lesson_goes_through_on_another_model_and_one_seed(
    place, monkeypatch, capsys, lesson, layout, knobs, said,  # noqa: F811
):  # fmt: skip
    save_untrained(place / layout, layout)
    path = ROOT / "lessons" / f"{lesson}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--model", layout, "--seeds", "1", "--epochs", "1", *knobs])
    # the published shapes beside the model are the same in every run: two layers of them will do
    text = path.read_text(encoding="utf-8").replace("num_hidden_layers=32", "num_hidden_layers=2")
    exec(compile(text, path.name, "exec"), {"__name__": "__main__", "__file__": str(path)})
    out = capsys.readouterr().out
    assert said in out and "FAIL" not in out
