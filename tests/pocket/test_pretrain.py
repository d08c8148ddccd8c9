"""The pretraining recipe: exact resumption, a clean Ctrl-C, the FLOPs count, the export, one-line errors."""

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ptlearn.pocket import pretrain as recipe

TINY = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def tokens(tmp_path, monkeypatch) -> Path:
    """A learnable file of 12,000 tokens (counting upwards), and a tiny size "s"."""
    monkeypatch.setitem(recipe.SIZES, "s", TINY)
    path = tmp_path / "tokens.bin"
    (np.arange(12_000) % 50).astype(np.uint16).tofile(path)
    return path


def train(out: Path, data: Path, **options) -> dict:
    defaults = {"size": "s", "tokens": 8 * 2 * recipe.CONTEXT, "batch": 2, "threads": 1, "compiled": "off"}
    return recipe.pretrain(out=out, data=data, **(defaults | options))


def test_it_learns_and_reports(tmp_path, tokens):
    state = train(tmp_path / "run", tokens, tokens=100 * recipe.CONTEXT, batch=1)
    assert state["finished"] and state["rows"][-1]["heldout_loss"] < state["rows"][0]["heldout_loss"] - 2
    with open(tmp_path / "run" / "losses.csv") as file:
        rows = list(csv.DictReader(file))
    seen = [int(row["tokens"]) for row in rows]
    assert seen == sorted(set(seen)) and seen[-1] == 100 * recipe.CONTEXT
    assert [float(row["heldout_loss"]) for row in rows] == [row["heldout_loss"] for row in state["rows"]]


def test_a_killed_run_resumes_to_the_same_bits(tmp_path, tokens, monkeypatch):
    whole = train(tmp_path / "whole", tokens)

    save = recipe.save_checkpoint

    def save_and_die(path, state, *rest):
        save(path, state, *rest)
        if state["step"] == 3:
            raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "save_checkpoint", save_and_die)
        with pytest.raises(SystemExit):
            train(tmp_path / "killed", tokens, checkpoint_minutes=1e-9)
    resumed = train(tmp_path / "killed", tokens)

    one, other = (load_file(tmp_path / name / recipe.CHECKPOINT) for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [[row["train_loss"] for row in state["rows"]] for state in (whole, resumed)]
    assert losses[0] == losses[1]


def test_a_run_with_other_settings_is_refused(tmp_path, tokens):
    train(tmp_path / "run", tokens)
    with pytest.raises(ValueError, match="choose another --out"):
        train(tmp_path / "run", tokens, lr=1e-3)


def test_a_time_budget_ends_the_schedule(tmp_path, tokens):
    state = train(tmp_path / "run", tokens, tokens=10**8, time_budget=0.5)
    assert state["finished"] and state["step"] < 10**8 / (2 * recipe.CONTEXT)
    assert recipe.learning_rate_scale(10**6, 1.0) == 0.0


def test_a_finished_run_goes_on_when_given_more_tokens(tmp_path, tokens):
    short = train(tmp_path / "run", tokens)
    longer = train(tmp_path / "run", tokens, tokens=2 * short["step"] * 2 * recipe.CONTEXT)
    seen = short["step"] * 2 * recipe.CONTEXT
    assert longer["extended"] == [seen] and longer["step"] == 2 * short["step"]
    assert longer["rows"][: len(short["rows"])] == short["rows"]
    rates = [row["learning_rate"] for row in longer["rows"]]
    assert rates[len(short["rows"])] > rates[len(short["rows"]) - 1]  # it rises again
    assert train(tmp_path / "run", tokens)["step"] == longer["step"]  # fewer tokens than it has seen: nothing to do


def test_non_finite_loss_names_the_step(tmp_path, tokens, monkeypatch):
    monkeypatch.setattr(recipe, "token_loss", lambda model, embeddings, targets: embeddings.sum() * float("nan"))
    with pytest.raises(ValueError, match=r"not finite at step 0.*checkpoint"):
        train(tmp_path / "run", tokens)


def test_windows_are_shifted_by_one_and_all_different():
    stream = np.arange(10 * recipe.CONTEXT + 1).astype(np.uint16)
    inputs, targets = recipe.windows(stream, np.array([0, 9]), "cpu")
    assert torch.equal(inputs + 1, targets) and inputs[1, 0] == 9 * recipe.CONTEXT


def test_matmul_attention_gives_the_logits_of_sdpa(monkeypatch):
    torch.manual_seed(0)
    model, ids = recipe.build("s"), torch.randint(0, recipe.VOCABULARY, (2, 40))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        model.set_attn_implementation("matmul")
        torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=0)


def test_flops_against_a_count_by_hand():
    config = recipe.build("s").config
    d, layers, heads, ff, vocabulary, length = (
        config.hidden_size,
        config.num_hidden_layers,
        2,
        config.intermediate_size,
        config.vocab_size,
        recipe.CONTEXT,
    )
    parameters = vocabulary * d + layers * (4 * (d * d + d) + 2 * (d * ff + ff) + ff * d + d + 2 * d) + d
    pairs = length * (length + 1) // 2  # query–key pairs of one head in one window
    attention = layers * heads * pairs * 2 * (2 * 32) * 3  # two products of width 32; forwards and twice backwards
    assert recipe.training_flops(config, length) == 6 * parameters * length + attention


def test_export_loads_and_its_checksums_hold(tmp_path, tokens):
    from transformers import AutoModelForCausalLM

    train(tmp_path / "run", tokens)
    folder = tmp_path / "weights"
    recipe.export(tmp_path / "run", folder)
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums.keys() >= {"model.safetensors", "config.json", "losses.csv", "card.md"}
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == value for name, value in sums.items())
    model = AutoModelForCausalLM.from_pretrained(folder)
    trained = load_file(tmp_path / "run" / recipe.CHECKPOINT)["model.model.embed_tokens.weight"]
    assert model.dtype == torch.bfloat16 and torch.equal(model.lm_head.weight, trained.bfloat16())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--out", "x", "--size", "xl"], "--size"),
        (["--out", "x", "--tokens", "-1"], "not a positive number"),
        (["--out", "x", "--threads", "1.5"], "not a whole number"),
        ([], "--out"),
        (["--out", "x", "--data", "missing.bin"], "missing.bin"),
    ],
)
def test_a_bad_argument_gets_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        recipe.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and message in error


def test_ctrl_c_saves_and_says_where(tmp_path, tokens):
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "ptlearn.pocket.pretrain",
        "--out",
        str(run),
        "--data",
        str(tokens),
        "--size",
        "s",
        "--batch",
        "1",
        "--threads",
        "1",
        "--compile",
        "off",
        "--checkpoint-minutes",
        "0.0001",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    while not (run / recipe.CHECKPOINT).exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.strip().splitlines()[-1].startswith(f"interrupted: last checkpoint {run / recipe.CHECKPOINT}")
