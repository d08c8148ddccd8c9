"""Seconds and memory of one RL step on text: `ptlearn.rl.training.train_policy` beside TRL's `GRPOTrainer`.

A step draws 16 sums, samples 8 answers to each (at most 16 tokens, temperature 1), asks the verifier and makes one
update. All sides start from the same model, finetuned briefly on requests, and follow the same loss: GRPO's
advantages, the mean over the tokens of the batch. Same Adam, learning rate, clipping and number of samples, no
reference model. TRL runs as shipped (bfloat16, gradient checkpointing, 128 rows at once) and tuned: no checkpointing,
16 rows at a time, which is faster for it on a CPU than 32 or 64, in float32 and in bfloat16. We take all 128 at once,
as shipped: the eight answers to a sum are one tree of tokens.

The sides take turns, seed by seed, because the speed of a shared machine drifts; those that compute in bfloat16, which
few CPUs do well, take part in the first two seeds alone. A step lasts from the end of one
update to the end of the next, so the first one, which also sets up, does not count. After equal samples all are asked
the same held-out sums, 4 answers each, in float32; mean and standard deviation over seeds.

Memory: how far the high-water mark of the resident memory rises over three steps, in a fresh process for each side
whose model, data and trainer are loaded before. The kernel keeps that mark (VmHWM, Linux only), and it counts all that
a step needs, whoever allocates it: tensors, cache, gradients, the optimizer's state.

    pip install -c constraints.txt -e '.[bench]'      # TRL; without it our row is printed
    python benchmarks/text_rl.py [--model pocket-m] [--threads 2] [--seeds 5] [--updates 6] [--lr 1e-4]

TRL's continuous batching makes a step five times slower on a CPU, so it is off. On busy cores trust the ratio by core
time, with `--threads 1`.
"""

import argparse
import concurrent.futures
import contextlib
import copy
import importlib.util
import io
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ptlearn import policy_gradient as pg
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import render_all
from ptlearn.lm.models import load_lm
from ptlearn.pocket import assistant, tasks
from ptlearn.rl.tasks import prompt_texts, score
from ptlearn.rl.text_collection import sampled_scores, text_collector
from ptlearn.rl.training import train_policy

warnings.filterwarnings("ignore", category=FutureWarning)  # TRL asks transformers by old names
PROMPTS, GROUP, ROWS, CLIP = 16, 8, 16, 1.0  # ROWS: of TRL's forward pass with gradient, where it is tuned
SLOW, FEW = ("TRL as shipped", "TRL tuned, bfloat16"), 2  # sides that take part in a few seeds alone
TASK = replace(tasks.arithmetic(), max_new_tokens=16)
Look = Callable[[], object]  # what is read off before the first step and after each


def finetuned(name: str):
    """A model that answers in the form of the requests, and gets about half of the sums right."""
    lm = load_lm(name)
    requests = assistant.requests(300, use_cases=["other"])
    fit_sft(lm, render_all(lm, assistant.conversations(requests))[0], lr=1e-3)
    return lm


def clock() -> np.ndarray:
    """Seconds by the clock, and seconds of all cores."""
    return np.array([time.perf_counter(), time.process_time()])


def high_water() -> float:
    """The most resident memory that this process has had, in MB."""
    status = Path("/proc/self/status")
    marks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(marks[0]) / 1024


def grpo(rollout, *_) -> torch.Tensor:
    """TRL's default loss as weights: advantages in units of the group's deviation, the mean over all tokens."""
    returns = pg.episode_returns(rollout.rewards, rollout.mask)
    advantages = pg.standardized(returns, pg.prompt_groups(rollout.observations, rollout.mask))
    episodes_per_token = len(rollout.mask) / rollout.mask.sum()
    return advantages[:, None] * rollout.mask * episodes_per_token


def with_train_policy(lm, look: Look, *, updates: int, lr: float, seed: int) -> tuple[list, list[float]]:
    looks = [look()]
    history = train_policy(
        lm, text_collector(TASK, prompts=PROMPTS, group=GROUP), grpo, updates=updates, lr=lr, clip_norm=CLIP,
        seed=seed, until=lambda *_: looks.append(look()),
    )  # fmt: skip
    return looks, history.returns


def with_trl(lm, look: Look, *, updates: int, lr: float, seed: int, **options) -> tuple[list, list[float]]:
    from datasets import Dataset, disable_progress_bars
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Watch(TrainerCallback):
        def on_train_begin(self, *_, **__):
            looks.append(look())

        on_step_end = on_train_begin

    def reward(completions, problem, **_):
        texts = [text.split(TASK.stop[0])[0] for text in completions]
        rewards.append(score(TASK, [TASK.train[index] for index in problem], texts))
        return rewards[-1]

    disable_progress_bars()
    looks, rewards = [], []
    tokens = lm.tokenizer.batch_decode([[token] for token in range(len(lm.tokenizer))])
    stops = [token for token, text in enumerate(tokens) if TASK.stop[0] in text]
    lm.model.generation_config.eos_token_id = [*lm.end_tokens, *stops]
    begin = lm.tokenizer.bos_token  # which TRL leaves to the prompt
    texts = prompt_texts(lm, TASK, TASK.train)
    rows = Dataset.from_list([{"prompt": begin + text, "problem": index} for index, text in enumerate(texts)])
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = GRPOConfig(
            output_dir=folder, use_cpu=True, max_steps=updates, generation_batch_size=PROMPTS * GROUP,
            num_generations=GROUP, max_completion_length=TASK.max_new_tokens, learning_rate=lr,
            lr_scheduler_type="constant", max_grad_norm=CLIP, weight_decay=0.0, seed=seed, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, **options,
        )  # fmt: skip
        GRPOTrainer(lm.model, reward, settings, rows, processing_class=lm.tokenizer, callbacks=[Watch()]).train()
    return looks, [sum(batch) / len(batch) for batch in rewards]


# of TRL's names these count completions, not prompts
WHOLE = {"per_device_train_batch_size": PROMPTS * GROUP}
PARTS = {"per_device_train_batch_size": ROWS, "gradient_accumulation_steps": PROMPTS * GROUP // ROWS}
SIDES = {
    "train_policy": (with_train_policy, {}),
    "TRL as shipped": (with_trl, WHOLE),
    "TRL tuned": (with_trl, PARTS | {"gradient_checkpointing": False, "bf16": False}),
    "TRL tuned, bfloat16": (with_trl, PARTS | {"gradient_checkpointing": False}),
}


def rise_of_memory(side: str, name: str, weights: dict, threads: int) -> float:
    """MB that three steps need on top of what was loaded before; to be called in a process of its own."""
    torch.set_num_threads(threads)
    lm = load_lm(name)
    lm.load_state_dict(weights)
    run, options = SIDES[side]
    marks, _ = run(lm, high_water, updates=3, lr=1e-4, seed=0, **options)
    return marks[-1] - marks[0]


def in_fresh_process(function, *arguments):
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def held_out(lm) -> float:
    """pass@1 on sums that nobody trained on."""
    return float(sampled_scores(TASK, lm, samples=4).mean())


def mean_and_deviation(values) -> str:
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket-m", help="pocket model, folder or hub id (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="interleaved rounds (%(default)s)")
    parser.add_argument("--updates", type=int, default=6, help="steps of each round, at least 2 (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-4, help="of all sides (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sides = dict(SIDES)
    if importlib.util.find_spec("trl") is None:
        print("trl is not installed, so its rows are missing: pip install -c constraints.txt -e '.[bench]'")
        del sides["TRL as shipped"], sides["TRL tuned"], sides["TRL tuned, bfloat16"]
    sft = finetuned(options.model)
    memory = {side: in_fresh_process(rise_of_memory, side, options.model, sft.state_dict(), options.threads)
              for side in sides}  # fmt: skip
    seconds, after = ({side: [] for side in sides} for _ in range(2))
    for seed in range(options.seeds):
        for side, (run, settings) in sides.items():
            if side in SLOW and seed >= FEW:
                continue
            lm, judge = copy.deepcopy(sft), copy.deepcopy(sft)
            ends, _ = run(lm, clock, updates=options.updates, lr=options.lr, seed=seed, **settings)
            seconds[side] += list(np.diff(ends[1:], axis=0))
            judge.load_state_dict(lm.state_dict())  # as it was loaded, whatever a trainer put around the model
            after[side].append(held_out(judge))
    print(f"{options.model}, {options.threads} threads, {options.seeds} seeds (in bfloat16 {FEW}) of {options.updates} "
          f"steps at {options.lr:g}; held-out pass@1 before {held_out(sft):.2f}")  # fmt: skip
    print(f"{'':20}{'s / step':>9}{'train_policy is':>17}{'by core time':>14}{'memory':>9}{'held-out pass@1':>18}")
    medians = {side: np.median(times, axis=0) for side, times in seconds.items()}
    for side, spent in medians.items():
        by_clock, by_core = spent / medians["train_policy"]
        print(f"{side:20}{spent[0]:9.3f}{by_clock:16.2f}x{by_core:13.2f}x{memory[side]:6.0f} MB"
              f"{mean_and_deviation(after[side]):>18}")  # fmt: skip
        if side != "train_policy":
            print(f"ratio: a step of RL on text | {side} | {by_clock:.2f}")


if __name__ == "__main__":
    main()
