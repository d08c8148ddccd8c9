"""Lessons 05 and 06 as scripts on models that are not the pocket's: without biases, in GPT-2's layout, on one seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


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
def test_a_lesson_goes_through_on_another_model_and_one_seed(tmp_path, lesson, layout, knobs, said):
    save_untrained(tmp_path / layout, layout)
    command = [sys.executable, ROOT / "lessons" / f"{lesson}.py", "--model", layout, "--seeds", "1", "--epochs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run([*command, *knobs], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert said in done.stdout and "FAIL" not in done.stdout
