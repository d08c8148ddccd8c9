"""A learning run on one device: a pocket model finetuned on a few worked sums, then RL with a verifier, over seeds.

Each seed leaves a file in the form of lesson 16 (`ptlearn/course/recorded`), with the curve of held-out pass@1.
"""

import argparse
import time
from pathlib import Path

import torch

from ptlearn import policy_gradient as pg
from ptlearn.course.recorded import record
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import render_all
from ptlearn.lm.devices import pick_device
from ptlearn.lm.fast_sampling import FastSampler
from ptlearn.lm.models import load_lm
from ptlearn.pocket import assistant, tasks
from ptlearn.rl.text_collection import sampled_scores, text_collector
from ptlearn.rl.training import train_policy

LOGGED = ("returns", "entropy", "clip_fraction", "length", "sampler_gap", "gradient_norm")
EVALUATED = ("held_out_update", "held_out")


def dapo(rollout, values, bootstrap, logprobs):
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    advantages = pg.standardized(pg.episode_returns(rollout.rewards, rollout.mask), groups)[:, None].expand_as(logprobs)
    ratios = pg.step_ratio(logprobs, rollout.logprobs, rollout.mask)
    return torch.where(rollout.mask, pg.clipped_weights(ratios, advantages, epsilon_high=0.28), 0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket-l")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quiz", type=int, default=200)
    parser.add_argument("--largest", type=int, default=99, help="number in the sums")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.set_float32_matmul_precision("high")
    task = tasks.arithmetic(largest=options.largest, held_out=options.quiz)
    for seed in range(options.seeds):
        learn(task, device, options, seed)


def learn(task, device: torch.device, options, seed: int) -> None:
    """One seed: finetune, learn, write down."""
    lm = load_lm(options.model, device=device)
    shown = assistant.conversations(task.train[: options.examples])
    fit_sft(lm, render_all(lm, shown)[0], batch=16, lr=1e-3, seed=seed)
    lm.bf16 = device.type == "cuda"
    sampler, begun = FastSampler(), time.perf_counter()
    history = train_policy(
        lm, text_collector(task, prompts=options.prompts, group=options.group, sample=sampler), dapo,
        updates=options.updates, lr=options.lr, epochs=2, clip_norm=1.0, micro_batch=128, seed=seed,
        normalizer=lambda rollout: rollout.mask.sum(), atol=1.0 if lm.bf16 else None,
        evaluate_every=max(1, options.updates // 12),
        evaluate=lambda lm: float(sampled_scores(task, lm, samples=4, seed=1, sample=sampler).mean()),
    )  # fmt: skip
    numbers = {
        "model": options.model, "seed": seed, "seconds": time.perf_counter() - begun, "problems": len(task.held_out),
        "pass@1 before": history.held_out[0], "pass@1 after": history.held_out[-1],
    }  # fmt: skip
    curves = {name: getattr(history, name) for name in (*LOGGED, *EVALUATED)}
    record(options.out / f"16_gpu_text_rl_{seed}.json", device, numbers, curves)
    print(numbers, flush=True)


if __name__ == "__main__":
    main()
