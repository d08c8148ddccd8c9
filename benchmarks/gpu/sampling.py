"""Tokens per second of `FastSampler` beside `generate` of transformers, and how near it comes to the memory's limit.

Both sides sample at temperature 1, without end tokens, the same prompts, in bfloat16 on a GPU. The sampler encodes its
prompts, reads one that several rows share once, takes over the weights and records log-probabilities, all in its time;
`generate` gets its prompts encoded and records nothing. The limit is the time in which the weights, keys and values of
a step can be read at the rate at which this device copies 1 GB. Results are written after every part, so that a run
that is cut off leaves what it has.

    python benchmarks/gpu/sampling.py [--shape qwen2.5-0.5b] [--rows 256] [--new-tokens 256] [--prompt-tokens 128]
"""

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from shapes import SHAPES, shaped_lm

from ptlearn.lm import decode_attention
from ptlearn.lm.fast_sampling import FastSampler
from ptlearn.lm.models import LanguageModel
from ptlearn.lm.text import encode
from ptlearn.policy_gradient import truncated_ratio
from ptlearn.rollout import action_logprobs, take_rows

SCORED, AT_ONCE = 64, 8  # rows whose log-probabilities are compared, and how many of them the learner scores at a time
COPY = 2**30  # bytes


@dataclass
class Bench:
    """What every part measures."""

    lm: LanguageModel
    prompts: list[str]
    sampler: FastSampler


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="qwen2.5-0.5b", help=f"{', '.join(SHAPES)} or a pocket model")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--group", type=int, default=8, help="rows that share a prompt, as in reinforcement learning")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of the sampler; the median counts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--peer", default="default,static", help="modes of generate, a run each: default, static, none")
    options = parser.parse_args()
    dtype = torch.bfloat16 if options.device.startswith("cuda") else torch.float32
    lm = shaped_lm(options.shape, dtype=dtype, device=options.device)
    lm.end_tokens = ()
    distinct = word_prompts(lm, -(-options.rows // options.group), options.prompt_tokens)
    prompts = [prompt for prompt in distinct for _ in range(options.group)][: options.rows]
    bench = Bench(lm, prompts, FastSampler(dtype=torch.bfloat16))
    found = {key: value for key, value in vars(options).items() if key != "out"}
    found |= {"card": card(options.device), "torch": torch.__version__}
    modes = [] if options.peer == "none" else options.peer.split(",")
    parts = [bandwidth, sampling, gaps, profile, *(part for mode in modes for part in (peer(mode), summary))]
    for part in parts:
        found |= part(bench, options, found)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found, indent=1))


def word_prompts(lm, count: int, length: int) -> list[str]:
    """Prompts of random words of the pocket vocabulary, each of `length` tokens."""
    generator = random.Random(0)
    words = sorted(token[1:] for token in lm.tokenizer.get_vocab() if token[0] == "Ġ" and token[1:].isalpha())
    prompts = []
    while len(prompts) < count:
        prompt = " ".join(generator.choices(words, k=length - 1))
        prompts += [prompt] if len(encode(lm, [prompt])[0]) == length else []
    return prompts


def card(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def seconds(run, device: str) -> float:
    """The time of one run, the device waited for."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def bandwidth(bench: Bench, options, found: dict) -> dict:
    """Bytes per second that a copy reads and writes."""
    source = torch.zeros(COPY, dtype=torch.uint8, device=options.device)
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), options.device) for _ in range(12)]
    return {"bandwidth": 2 * COPY / statistics.median(times[2:])}


def sampling(bench: Bench, options, found: dict) -> dict:
    """Seconds of a whole call, and of its steps alone: those that a call of one token does not take."""
    errors = []

    def run(count: int) -> float:
        return seconds(lambda: bench.sampler(bench.lm, bench.prompts, max_new_tokens=count), options.device)

    # what can be measured without the kernel, or without compiling, is, and every failure is kept
    for kernel, compile in ((True, True), (False, True), (False, False)):
        if not kernel:
            decode_attention.usable = lambda *given: False
        bench.sampler = FastSampler(dtype=torch.bfloat16, compile=compile)
        try:
            first = run(options.new_tokens)
            break
        except Exception as failure:
            errors.append(f"kernel={kernel}, compile={compile}: {type(failure).__name__}: {failure}"[:2000])
    else:
        raise SystemExit("\n".join(errors))
    whole = statistics.median(run(options.new_tokens) for _ in range(options.rounds))
    short = statistics.median(run(1) for _ in range(options.rounds))
    steps = whole - short
    tokens = options.rows * options.new_tokens
    limit = step_bytes(bench.lm, options) / found["bandwidth"]
    per_step = steps / max(1, options.new_tokens - 1)
    return {
        "sampler": tokens / whole, "first_call_seconds": first, "call_seconds": whole, "step_ms": 1e3 * per_step,
        "prompts_and_weights_seconds": short, "limit_step_ms": 1e3 * limit,
        "share_of_limit": limit * options.new_tokens / whole, "share_of_limit_steps_alone": limit / per_step,
        "errors": errors, "compiled": compile,
        "kernel": decode_attention.usable(torch.bfloat16, bench.lm.device, head_size(bench.lm)),
    }  # fmt: skip


def step_bytes(lm, options) -> float:
    """What one step has to read, halfway: every weight once (of the embedding only where it is the head too), and the
    keys and values of all rows."""
    config, model = lm.model.config, lm.model
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    weights = sum(parameter.numel() for parameter in model.parameters())
    weights -= 0 if tied else model.get_input_embeddings().weight.numel()
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size(lm)
    columns = options.prompt_tokens + options.new_tokens / 2
    return (weights + per_token * columns * options.rows) * 2


def head_size(lm) -> int:
    config = lm.model.config
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


@torch.no_grad()
def gaps(bench: Bench, options, found: dict) -> dict:
    """|log p of the sampler - log p of the learner| in nats, and what the truncated ratio makes of a mean over 1."""
    rollout = bench.sampler(bench.lm, bench.prompts, max_new_tokens=options.new_tokens)
    rows = torch.arange(min(SCORED, len(rollout.mask)), device=rollout.mask.device).split(AT_ONCE)
    parts = [take_rows(rollout, each) for each in rows]
    learner = [action_logprobs(bench.lm, part) for part in parts]
    gap = torch.cat([(mine - part.logprobs)[part.mask] for mine, part in zip(learner, parts, strict=True)])
    ratios = [truncated_ratio(mine, part.logprobs, part.mask)[part.mask] for mine, part in zip(learner, parts)]
    ratios = torch.cat(ratios)
    return {
        "mean_gap": float(gap.abs().mean()), "largest_gap": float(gap.abs().max()), "signed_gap": float(gap.mean()),
        "mean_ratio": float(ratios.mean()), "its_standard_error": float(ratios.std() / len(ratios) ** 0.5),
        "ratios_capped": float((ratios >= 2).float().mean()),
    }  # fmt: skip


def profile(bench: Bench, options, found: dict) -> dict:
    """Where the time of a call goes: kernels by their time, waiting of the host, and how long the device idles."""
    if not options.device.startswith("cuda"):
        return {}
    steps = min(64, options.new_tokens)
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as trace:
        took = seconds(lambda: bench.sampler(bench.lm, bench.prompts, max_new_tokens=steps), options.device)
    events = trace.key_averages()
    kernels = [event for event in events if event.self_device_time_total]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    waits = sum(event.self_cpu_time_total for event in events if "Synchronize" in event.key)
    busy = sum(event.self_device_time_total for event in kernels)
    return {
        "profile_seconds": took, "profile_steps": steps, "device_idle": 1 - busy / 1e6 / took,
        "host_waits_seconds": waits / 1e6,
        "kernels_ms": [[e.key[:90], e.count, round(e.self_device_time_total / 1e3, 3)] for e in kernels[:16]],
    }  # fmt: skip


def peer(mode: str):
    """`generate` in one mode: its default, or a static cache, which it compiles itself. One run after a warm-up."""

    def run(bench: Bench, options, found: dict) -> dict:
        tokens = torch.tensor(encode(bench.lm, bench.prompts), device=options.device)
        given = {"do_sample": True, "top_k": 0, "eos_token_id": None, "pad_token_id": 0}
        given |= {"cache_implementation": "static"} if mode == "static" else {}

        def generate(count: int):
            with torch.inference_mode():
                mask = torch.ones_like(tokens)
                return bench.lm.model.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=count, **given)

        try:  # a static cache is compiled for its length; without one a few steps warm up
            warm = seconds(lambda: generate(options.new_tokens if mode == "static" else 4), options.device)
        except Exception as failure:
            return {f"generate_{mode}_error": f"{type(failure).__name__}: {failure}"[:2000]}
        took = seconds(lambda: generate(options.new_tokens), options.device)
        speed = options.rows * options.new_tokens / took
        return {f"generate_{mode}": speed, f"generate_{mode}_warm_up_seconds": warm}

    return run


def summary(bench: Bench, options, found: dict) -> dict:
    """Ratios to each mode of generate, and the line to read."""
    ratios = {mode: found["sampler"] / found[mode] for mode in found if mode in ("generate_default", "generate_static")}
    words = ", ".join(f"{ratio:.1f} times {mode}" for mode, ratio in ratios.items())
    print(f"{found['card']}, {options.shape}, {options.rows} x {options.new_tokens}: {found['sampler']:,.0f} tokens/s"
          f" ({found['share_of_limit']:.0%} of the limit), {words or 'no peer'};"
          f" gap {found['mean_gap']:.4f} nats")  # fmt: skip
    return {f"over_{mode}": ratio for mode, ratio in ratios.items()}


if __name__ == "__main__":
    main()
