"""Trained tokens per second of `ptlearn.finetuning.sft.fit_sft` beside bare loops and TRL's `SFTTrainer`.

Every side finetunes the same model on the same conversations for one epoch: zero to six solved lines, then a line to
complete, so lengths are mixed; same batch size, clipping, learning rate and schedule, float32. The bare loops get the
very batches of `fit_sft`, ready made: one lets transformers compute the label loss, one takes logits of responses only.
TRL runs as shipped (bfloat16 and gradient checkpointing) and tuned (neither, and batches by length). The sides take
turns, because the speed of a shared machine drifts, and every round has other conversations; the held-out loss
afterwards, its mean and standard deviation over the rounds, says whether all learned alike.

    pip install -c constraints.txt -e '.[bench]'      # TRL; without it the other rows are printed
    python benchmarks/sft.py [--model pocket-m] [--threads 2] [--rounds 5] [--examples 1024]

On busy cores trust the ratio by core time, with `--threads 1`.
"""

import argparse
import contextlib
import importlib.util
import io
import random
import tempfile
import time

import numpy as np
import torch

from ptlearn.finetuning.sft import fit_sft, sft_loss
from ptlearn.lm.chat import as_rollout, batches_by_length, render_all, response_logprobs
from ptlearn.lm.models import load_lm
from ptlearn.pocket import relations

LR, BATCH, CLIP, WARMUP = 1e-3, 32, 1.0, 0.1


def conversations(count: int, seed: int) -> list[list[dict[str, str]]]:
    rng, made = random.Random(seed), []
    names = [name for name in relations.FACTS if name != "demonym"]
    while len(made) < count:
        solved, (query, answer) = relations.episode(relations.RELATIONS[rng.choice(names)], rng.randint(0, 6), rng)
        prompt = "\n".join([f"{given} = {right}" for given, right in solved] + [f"{query} ="])
        made.append([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
    return made


def clock() -> np.ndarray:
    """Seconds by the clock, and seconds of all cores."""
    return np.array([time.perf_counter(), time.process_time()])


def with_fit_sft(lm, talks, examples) -> np.ndarray:
    start = clock()
    fit_sft(lm, examples, batch=BATCH, lr=LR, clip_norm=CLIP, warmup=WARMUP)
    return clock() - start


def bare(lm, examples, loss_of) -> np.ndarray:
    """Forward, backward, clip, AdamW on batches that are ready before the clock starts."""
    plan = batches_by_length([len(e.tokens) for e in examples], BATCH, random.Random(0))
    rollouts = [as_rollout([examples[i] for i in rows]) for rows in plan]
    optimizer = torch.optim.AdamW(lm.parameters(), lr=LR, weight_decay=0.0, fused=True)
    rising = max(1, round(WARMUP * len(plan)))
    lm.train()
    start = clock()
    for step, rollout in enumerate(rollouts):
        for group in optimizer.param_groups:
            group["lr"] = LR * min((step + 1) / rising, (len(plan) - step) / (len(plan) - rising))
        optimizer.zero_grad()
        loss_of(lm, rollout).backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), CLIP)
        optimizer.step()
    spent = clock() - start
    lm.eval()
    return spent


def label_loss(lm, rollout):
    tokens = torch.cat([rollout.observations, rollout.actions[:, -1:]], 1)
    labels = torch.cat([torch.full((len(tokens), 1), -100), rollout.actions.where(rollout.mask, torch.tensor(-100))], 1)
    return lm.model(input_ids=tokens, labels=labels, use_cache=False).loss


def response_loss(lm, rollout):
    return -response_logprobs(lm, rollout).sum() / rollout.mask.sum()


def with_trl(lm, talks, examples, *, tuned: bool) -> np.ndarray:
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    lm.tokenizer.padding_side = "right"
    end = lm.tokenizer.eos_token
    texts = [lm.tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks]
    cuts = [text.rindex("Assistant:") + len("Assistant:") for text in texts]
    rows = [{"prompt": text[:cut], "completion": text[cut:].removesuffix(end)} for text, cut in zip(texts, cuts)]
    quick = {"bf16": False, "gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = SFTConfig(
            output_dir=folder, use_cpu=True, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=LR,
            max_grad_norm=CLIP, warmup_steps=round(WARMUP * len(rows) / BATCH), lr_scheduler_type="linear",
            weight_decay=0.0, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
            completion_only_loss=True, max_length=lm.context, **(quick if tuned else {}),
        )  # fmt: skip
        trainer = SFTTrainer(lm.model, args=settings, train_dataset=Dataset.from_list(rows),
                             processing_class=lm.tokenizer)  # fmt: skip
        start = clock()
        trainer.train()
        return clock() - start


SIDES = {
    "fit_sft": with_fit_sft,
    "bare, label loss": lambda lm, talks, examples: bare(lm, examples, label_loss),
    "bare, responses only": lambda lm, talks, examples: bare(lm, examples, response_loss),
    "TRL as shipped": lambda lm, talks, examples: with_trl(lm, talks, examples, tuned=False),
    "TRL tuned": lambda lm, talks, examples: with_trl(lm, talks, examples, tuned=True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket-m", help="pocket model, folder or hub id (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved, each with data of its own (%(default)s)")
    parser.add_argument("--examples", type=int, default=1024, help="conversations of the epoch (%(default)s)")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES), help="all by default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sides = {side: SIDES[side] for side in options.sides}
    if importlib.util.find_spec("trl") is None:
        print("trl is not installed, so its two rows are missing: pip install -c constraints.txt -e '.[bench]'")
        sides = {name: run for name, run in sides.items() if not name.startswith("TRL")}
    lm = load_lm(options.model)
    held_out = render_all(lm, conversations(256, seed=options.rounds))[0]
    speeds, losses = {side: [] for side in sides}, {side: [] for side in sides}
    for seed in range(options.rounds):
        talks = conversations(options.examples, seed)
        examples = render_all(lm, talks)[0]
        tokens = sum(sum(example.mask[1:]) for example in examples)
        for side, run in sides.items():
            if not seed:
                run(load_lm(options.model), talks[:64], examples[:64])  # to warm up
            lm = load_lm(options.model)
            speeds[side].append(tokens / run(lm, talks, examples))
            losses[side].append(sft_loss(lm, held_out))
    print(f"{options.model}, {options.threads} threads, {options.rounds} rounds of {options.examples} conversations")
    print(f"{'':24}{'tokens/s':>10}{'fit_sft is':>12}{'by core time':>14}{'held-out loss':>18}")
    medians = {side: np.median(rounds, axis=0) for side, rounds in speeds.items()}
    for side, speed in medians.items():
        by_clock, by_core = medians["fit_sft"] / speed
        print(f"{side:24}{speed[0]:10.0f}{by_clock:11.2f}x{by_core:13.2f}x{mean_and_deviation(losses[side]):>18}")
        if side != "fit_sft":
            print(f"ratio: an epoch of SFT | {side} | {by_clock:.2f}")


def mean_and_deviation(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


if __name__ == "__main__":
    main()
