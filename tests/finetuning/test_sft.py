"""`fit_sft`: the same gradient however a batch is cut, exact resumption after a real kill, errors that say where."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ptlearn.checkpoints import read_state
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import SFTHistory, fit_sft, sft_loss
from ptlearn.lm.chat import Example, as_rollout, render_all, response_logprobs
from ptlearn.lm.models import load_lm


def made(count, seed=0, low=3, high=20):
    """Examples whose response is always the same two tokens: something that any part of a model can learn."""
    rng = random.Random(seed)
    result = []
    for _ in range(count):
        prompt = [rng.randrange(1, 300) for _ in range(rng.randint(low, high) - 2)]
        result.append(Example([*prompt, 7, 0], [False] * len(prompt) + [True, True]))
    return result


@pytest.fixture
def lm(tiny_folders):
    return load_lm(tiny_folders["llama"])


def weights(lm):
    return {name: parameter.detach().clone() for name, parameter in lm.named_parameters()}


def largest_gap(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_it_is_gradient_descent_on_the_response_loss(lm):
    """One step of AdamW written out: lr times sign of the gradient where there is no clipping and no momentum yet."""
    examples = made(8)
    rollout = as_rollout(examples)
    loss = -response_logprobs(lm, rollout).sum() / rollout.mask.sum()
    gradients = dict(zip(dict(lm.named_parameters()), torch.autograd.grad(loss, list(lm.parameters())), strict=True))
    before = weights(lm)
    history = fit_sft(lm, examples, batch=8, lr=1e-3, clip_norm=1e9)
    assert history.loss[0] == pytest.approx(float(loss.detach()), rel=1e-6)
    norm = sum(float(g.square().sum()) for g in gradients.values()) ** 0.5
    assert history.gradient_norm[0] == pytest.approx(norm, rel=1e-4)
    for name, gradient in gradients.items():
        expected = before[name] - 1e-3 * gradient / (gradient.abs() + 1e-8)
        large = gradient.abs() > 1e-5  # the others hang on rounding
        assert torch.allclose(weights(lm)[name][large], expected[large], atol=1e-5)
    assert history.tokens == [16]


def test_a_step_follows_a_gradient_no_longer_than_the_clip_norm(fresh):
    for clip_norm in (0.1, 1e9):
        lm = fresh("llama")
        history = fit_sft(lm, made(8), batch=8, clip_norm=clip_norm)
        stepped = sum(float(parameter.grad.square().sum()) for parameter in lm.parameters()) ** 0.5
        assert stepped == pytest.approx(min(clip_norm, history.gradient_norm[0]), rel=1e-4)
        assert history.gradient_norm[0] > 1  # as it was before


@pytest.mark.parametrize(
    "options", [{"micro_batch": 1}, {"micro_batch": 3}, {"packed": 40}, {"packed": 40, "micro_batch": 2}]
)
def test_cutting_or_packing_a_batch_does_not_change_the_run(tiny_folders, options):
    whole, cut = load_lm(tiny_folders["llama"]), load_lm(tiny_folders["llama"])
    examples = made(24)
    one, other = fit_sft(whole, examples, batch=8, epochs=2), fit_sft(cut, examples, batch=8, epochs=2, **options)
    assert one.loss == pytest.approx(other.loss, rel=1e-4)
    assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-3)
    moved = largest_gap(weights(whole), weights(load_lm(tiny_folders["llama"])))
    assert largest_gap(weights(whole), weights(cut)) < 0.05 * moved


def test_a_cpu_reads_at_most_thirty_two_rows_at_a_time_and_similar_ones_together(lm):
    examples, shapes = made(80), []
    lm.model.get_input_embeddings().register_forward_hook(lambda _, inputs, output: shapes.append(inputs[0].shape))
    fit_sft(lm, examples, batch=80)
    longest = sorted((len(example.tokens) - 1 for example in examples), reverse=True)
    assert shapes == [(32, longest[0]), (32, longest[32]), (16, longest[64])] and longest[0] > longest[64]


def test_it_learns_and_leaves_the_frozen_alone(lm):
    head = {name for name, _ in lm.named_parameters() if ".layers.1." in name}
    for name, parameter in lm.named_parameters():
        parameter.requires_grad = name in head
    before, held_out = weights(lm), made(40, seed=1)
    start = sft_loss(lm, held_out)
    history = fit_sft(lm, made(400), epochs=3, lr=1e-2, held_out=held_out)
    assert history.held_out_loss[-1] < 0.8 * start and history.held_out_step == [13, 26, 39]
    assert history.held_out_loss[-1] == sft_loss(lm, held_out) and not lm.training
    changed = {name for name, old in before.items() if not torch.equal(old, weights(lm)[name])}
    assert changed == head


def test_the_order_is_a_function_of_the_seed(tiny_folders):
    runs = [fit_sft(load_lm(tiny_folders["llama"]), made(40), batch=8, seed=seed) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] and runs[0] != runs[2]


def test_recomputing_layers_changes_nothing_but_the_number_of_passes(fresh):
    runs, passes = [], []
    for recompute in (False, True):
        lm = fresh("llama")
        if recompute:
            lm.model.activation_checkpointing_enable()
        passes.append([])
        lm.model.model.layers[1].self_attn.register_forward_pre_hook(lambda *_: passes[-1].append(1))
        runs.append((fit_sft(lm, made(8), batch=4, micro_batch=3), weights(lm)))
    assert runs[0][0] == runs[1][0] and largest_gap(runs[0][1], runs[1][1]) == 0
    assert len(passes[0]) == 4 and len(passes[1]) == 8


def test_bfloat16_is_close_and_not_the_same(tiny_folders):
    exact, coarse = (fit_sft(load_lm(tiny_folders["llama"]), made(16), bf16=bf16) for bf16 in (False, True))
    assert exact.loss == pytest.approx(coarse.loss, rel=0.05) and exact.loss != coarse.loss


# what is learned, tokens 7 and 0, makes any other response less likely: the loss on others rises in the end
OTHERS = [Example([*example.tokens[:-2], 9, 9], example.mask) for example in made(20, seed=1)]
STOPPING = {"batch": 8, "epochs": 20, "lr": 1e-2, "held_out": OTHERS, "evaluate_every": 2, "patience": 2}


def test_it_stops_when_the_held_out_loss_no_longer_falls_and_keeps_the_best_weights(fresh):
    lm = fresh("llama")
    history = fit_sft(lm, made(64), **STOPPING)
    losses = history.held_out_loss
    best = min(range(len(losses)), key=losses.__getitem__)
    assert len(losses) == best + 3 and len(history.loss) == 2 * len(losses) < 160
    assert sft_loss(lm, OTHERS, batch=8) == losses[best] < losses[-1]


def test_the_best_weights_survive_a_kill(tiny_folders, tmp_path):
    def run(checkpoint, die_at=None):
        def steps_until(steps):
            for step in steps:
                if step == die_at:
                    raise KeyboardInterrupt
                yield step

        lm = load_lm(tiny_folders["llama"])
        history = fit_sft(lm, made(64), **STOPPING, checkpoint=checkpoint, checkpoint_every=1, progress=steps_until)
        return history, weights(lm)

    whole, best = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", die_at=len(whole.loss) - 1)  # after the best, before the stop
    assert len(read_state(tmp_path / "killed")["history"]["loss"]) == len(whole.loss) - 1
    resumed, found = run(tmp_path / "killed")
    assert resumed == whole and largest_gap(best, found) == 0
    with pytest.raises(ValueError, match="is of another run: .*patience was 2, now None$"):
        fit_sft(
            load_lm(tiny_folders["llama"]), made(64), **STOPPING | {"patience": None}, checkpoint=tmp_path / "whole"
        )


RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_sft import made
from ptlearn.lm.models import load_lm
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft

def slowly(steps):
    for step in steps:
        time.sleep(0.02)
        yield step

lm = load_lm({folder!r})
fit_sft(lm, made(200), batch=4, seed=5, checkpoint=Path({checkpoint!r}), checkpoint_every=7, progress=slowly)
"""


def test_a_killed_process_resumes_to_the_same_numbers(tiny_folders, tmp_path, one_thread):
    checkpoint = tmp_path / "run" / "sft.safetensors"
    code = RUN.format(tests=str(Path(__file__).parent), folder=str(tiny_folders["llama"]), checkpoint=str(checkpoint))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(read_state(checkpoint)["history"]["loss"])
    assert 7 <= done < 50 and done % 7 == 0
    whole, resumed = load_lm(tiny_folders["llama"]), load_lm(tiny_folders["llama"])
    options = {"batch": 4, "seed": 5}
    expected = fit_sft(whole, made(200), **options)
    found = fit_sft(resumed, made(200), **options, checkpoint=checkpoint)
    assert found == expected and len(found.loss) == 50
    assert largest_gap(weights(whole), weights(resumed)) == 0


def test_a_checkpoint_of_another_run_is_refused(lm, tmp_path):
    fit_sft(lm, made(8), batch=8, checkpoint=tmp_path / "a")
    for options, message in (
        ({"batch": 4}, "batch was 8, now 4$"),
        ({"batch": 8, "lr": 2e-3}, "lr was 0.001, now 0.002$"),
    ):
        with pytest.raises(ValueError, match=f"is of another run: {message}"):
            fit_sft(lm, made(8), checkpoint=tmp_path / "a", **options)
    with pytest.raises(ValueError, match=r"is of another run: examples was \w+, now \w+$"):  # as many, but others
        fit_sft(lm, made(8, seed=1), batch=8, checkpoint=tmp_path / "a")
    next(lm.parameters()).requires_grad = False
    with pytest.raises(ValueError, match=r"run: trained was {'lm': \d+}, now {'lm': \d+}; .*frozen weights was"):
        fit_sft(lm, made(8), batch=8, checkpoint=tmp_path / "a")


def test_lora_does_not_go_on_on_another_base_nor_in_another_precision_or_packing(tiny_folders, tmp_path):
    def run(changed=0.0, dtype=torch.float32, targets="q_proj", alpha=16, **options):
        lm = load_lm(tiny_folders["llama"], dtype=dtype)
        with torch.no_grad():
            lm.model.get_input_embeddings().weight[3, 3] += changed
        lora(lm, targets=targets, rank=2, alpha=alpha)
        return fit_sft(lm, made(8), batch=8, checkpoint=str(tmp_path / "a"), **options)

    whole = run(held_out=OTHERS)
    assert run(held_out=OTHERS) == whole  # over already: nothing is trained again
    assert run(held_out=OTHERS, alpha=16.0) == whole  # 16 it was
    for message, options in {
        "frozen weights was": {"changed": 1e-3},
        "dtype was float32, now bfloat16, float32": {"dtype": torch.bfloat16},
        "bf16 was False, now True": {"bf16": True},
        "packed was None, now 40": {"packed": 40},
        "held_out was": {"held_out": OTHERS[1:]},
        "architecture was": {"targets": "o_proj"},  # as many parameters, elsewhere
        r"architecture was \w+, now \w+$": {"alpha": 4000},
    }.items():
        with pytest.raises(ValueError, match=f"^checkpoint .* is of another run: .*{message}"):
            run(**{"held_out": OTHERS} | options)


def test_a_run_that_ran_out_of_patience_is_saved_and_stays_over(tiny_folders, tmp_path):
    whole = fit_sft(load_lm(tiny_folders["llama"]), made(64), **STOPPING, checkpoint=tmp_path / "a")
    lm = load_lm(tiny_folders["llama"])
    assert fit_sft(lm, made(64), **STOPPING, checkpoint=tmp_path / "a") == whole
    assert sft_loss(lm, OTHERS, batch=8) == min(whole.held_out_loss)


def test_arguments_of_a_checkpoint(lm, tmp_path):
    with pytest.raises(ValueError, match="^checkpoint_every=0: expected at least 1$"):
        fit_sft(lm, made(8), checkpoint=tmp_path / "a", checkpoint_every=0)
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="^checkpoint .*empty is damaged or none"):
        fit_sft(lm, made(8), checkpoint=tmp_path / "empty")


def test_a_loss_that_is_interrupted_leaves_every_mode_as_it_was(lm, monkeypatch):
    lm.train()
    monkeypatch.setattr(lm, "logits_at", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sft_loss(lm, made(4))
    assert lm.training and lm.model.training
    lm.eval()
    with pytest.raises(ZeroDivisionError):
        fit_sft(lm, made(4))
    assert not lm.training


def test_what_is_not_finite_stops_with_the_step_and_the_checkpoint(lm, tmp_path):
    examples, path = made(40), tmp_path / "run"
    fit_sft(
        lm, examples, batch=8, epochs=2, checkpoint=path, checkpoint_every=1, progress=lambda steps: list(steps)[:3]
    )
    with torch.no_grad():
        next(lm.parameters())[5] = float("nan")
    before = weights(lm)
    with pytest.raises(ValueError, match=r"^step 0: the gradient's norm is nan"):
        fit_sft(lm, examples, batch=40)
    assert all(torch.equal(before[name].nan_to_num(), new.nan_to_num()) for name, new in weights(lm).items())
    spoil = iter([0.0])

    def poison(steps):
        for step in steps:
            if step == 4:
                next(spoil)
                with torch.no_grad():
                    next(lm.parameters()).fill_(float("nan"))
            yield step

    with pytest.raises(ValueError, match=rf"^step 4: the gradient's norm is nan.*; the last checkpoint is {path}$"):
        fit_sft(lm, examples, batch=8, epochs=2, checkpoint=path, progress=poison)


def test_bad_examples_are_one_line(lm):
    long = Example([1] * 70, [False] + [True] * 69)
    for examples, message in (
        ([], "examples is empty: expected at least one"),
        ([Example([1, 2], [True, False])], r"examples\[0\] has no response token: expected at least one to train on"),
        ([*made(1), long], r"examples\[1\] has 70 tokens: expected at most the context, 64"),
        ([*made(1), [{"role": "user", "content": "a"}]], r"examples\[1\] is a list: expected an Example, as `render`"),
        ([*made(1), Example([1, 5, 7], [True] * 2)], r"examples\[1\] has 3 tokens and a mask of 2: expected as many"),
        ([*made(1), Example([1, 10**6], [False, True])], r"examples\[1\] has token 1000000: expected those of the emb"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_sft(lm, examples)
    for name in ("epochs", "batch", "micro_batch", "packed", "evaluate_every"):
        with pytest.raises(ValueError, match=f"^{name}=0: expected at least 1$"):
            fit_sft(lm, made(1), **{name: 0})
    before, longest = weights(lm), max(len(example.tokens) for example in made(40))
    for options, message in (
        ({"packed": longest - 1}, rf"examples\[\d+\] has {longest} tokens: expected at most packed={longest - 1}"),
        ({"patience": 1}, "patience=1 and no held_out: expected examples"),
        ({"seed": None}, "seed=None: expected a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_sft(lm, made(40), batch=8, **options)
    assert all(torch.equal(old, weights(lm)[name]) for name, old in before.items())  # refused before the first step
    with pytest.raises(ValueError, match="^batch=0: expected at least 1$"):
        sft_loss(lm, made(1), batch=0)
    with pytest.raises(ValueError, match="lm has no parameter that requires grad: expected some to train"):
        fit_sft(lm.requires_grad_(False), made(1))


def test_c08_a_base_model_learns_to_answer():
    """The capitals, asked in words that no training prompt has: nothing before, nearly everything after 25 steps."""
    from ptlearn.lm.chat import chat_prompt
    from ptlearn.lm.text import complete
    from ptlearn.pocket import relations

    lm, facts = load_lm("pocket-m"), relations.stated("capital")
    asked = ("What is the capital of {}?", "Tell me the capital of {}.", "Which city is the capital of {}?",
             "Name the capital of {}.", "What's {}'s capital?")  # fmt: skip
    talks = [[{"role": "user", "content": wording.format(name)}, {"role": "assistant", "content": f"{capital}."}]
             for wording in asked for name, capital in facts]  # fmt: skip

    def answered():
        prompts = [chat_prompt(lm, f"Can you tell me the capital of {name}?") for name, _ in facts]
        texts = complete(lm, prompts, max_new_tokens=12)
        return sum(text.strip() == f"{capital}." for text, (_, capital) in zip(texts, facts, strict=True)) / len(facts)

    assert answered() <= 0.05
    history = fit_sft(lm, render_all(lm, talks)[0], lr=1e-3)
    assert isinstance(history, SFTHistory) and answered() >= 0.9
