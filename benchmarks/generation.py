"""Tokens per second of `ptlearn.lm.text.sample_text` beside `generate` of transformers, log-probabilities included.

Both sides get the same prompts and sample at temperature 1; the rounds of the two are interleaved, because the speed
of a shared machine drifts. `generate` gets its prompts encoded beforehand; `sample_text` encodes them itself. The last
column is the bound, in float32 and for different prompts: how far ahead of `generate` a sampler would be that reads the
prompts, multiplies every new token with the weights, and does nothing else.

    python benchmarks/generation.py [--model pocket-m] [--threads 2 1] [--rounds 7]

On busy cores set OMP_WAIT_POLICY=PASSIVE for the process (threads that spin while they wait starve each other) and
trust the ratio by core time.
"""

import argparse
import random
import statistics
import time

import torch

from ptlearn.lm import decoding
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import encode, sample_text

LENGTH, NEW = 16, 32  # tokens


def word_prompts(lm, count: int, seed: int = 0) -> list[str]:
    """Prompts of random words, each of LENGTH tokens with the beginning-of-text token."""
    generator = random.Random(seed)
    words = [token[1:] for token in lm.tokenizer.get_vocab() if token[0] == "Ġ" and token[1:].isalpha()]
    prompts = []
    while len(prompts) < count:
        prompt = " ".join(generator.choices(sorted(words), k=LENGTH - 1))
        prompts += [prompt] if len(encode(lm, [prompt])[0]) == LENGTH else []
    return prompts


def with_sample_text(lm, prompts: list[str]) -> int:
    return int(sample_text(lm, prompts, max_new_tokens=NEW).mask.sum())


def with_generate(lm, prompts: list[str], tokens: torch.Tensor, end: list[int] | None) -> int:
    options = {"do_sample": True, "top_k": 0, "temperature": 1.0, "eos_token_id": end, "pad_token_id": 0}
    with torch.inference_mode():
        result = lm.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=NEW,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
        new = result.sequences[:, tokens.shape[1] :]
        steps = zip(result.logits, new.T, strict=True)
        torch.stack([logits.float().log_softmax(-1).gather(1, token[:, None])[:, 0] for logits, token in steps], 1)
    if end is None:
        return new.numel()
    ends = torch.isin(new, torch.tensor(end)).cumsum(1)
    return int((ends.cumsum(1) <= 1).sum())  # up to the first end token


def with_products_alone(lm, tokens: list[list[int]]) -> int:
    """What no sampler can leave out: the prompts are read, and each new token meets every weight."""
    layers = [layer for layer in lm.model.modules() if isinstance(layer, torch.nn.Linear)]
    inputs = {width: torch.randn(len(tokens), width, dtype=lm.model.dtype) for width in {x.in_features for x in layers}}
    with torch.inference_mode():
        decoding.start(lm.model, tokens, max_new_tokens=NEW)
        for _ in range(NEW - 1):
            for layer in layers:
                layer(inputs[layer.in_features])
    return len(tokens) * NEW


def compare(lm, prompts: list[str], end: list[int] | None, rounds: int) -> dict[str, tuple[float, float]]:
    """Median tokens per second of each side, by the clock and by the time of all cores."""
    tokens = encode(lm, prompts)
    lm.end_tokens = tuple(end or ())  # the same on both sides; none at all for a fixed length
    sides = {
        "sample_text": lambda: with_sample_text(lm, prompts),
        "generate": lambda: with_generate(lm, prompts, torch.tensor(tokens), end),
    }
    if lm.model.dtype == torch.float32 and len(set(prompts)) == len(prompts):  # equal rows need fewer products
        sides["products alone"] = lambda: with_products_alone(lm, tokens)
    speeds = {side: [] for side in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for side, run in sides.items():
            start, busy = time.perf_counter(), time.process_time()
            sampled = run()
            speeds[side].append((sampled / (time.perf_counter() - start), sampled / (time.process_time() - busy)))
    return {side: tuple(map(statistics.median, zip(*values, strict=True))) for side, values in speeds.items()}


def report(lm, name: str, threads: int, rounds: int):
    """The rows of one model in one precision, with so many threads."""
    torch.set_num_threads(threads)
    dtype, count = str(lm.model.dtype).removeprefix("torch."), f"{threads} thread{'s' * (threads > 1)}"
    several = [prompt for prompt in word_prompts(lm, 32) for _ in range(8)]
    end = list(lm.end_tokens)
    cases = {
        "64 prompts": (word_prompts(lm, 64), None),
        "256 prompts": (word_prompts(lm, 256), None),
        "32 prompts x 8": (several, None),
        "32 prompts x 8, ended early": (several, end),
    }
    print(f"{name}, {dtype}, {count}")
    print(f"{'case':30}{'generate':>10}{'sample_text':>13}{'ratio':>7}{'by core time':>14}{'bound':>7}")
    for case, (prompts, end_tokens) in cases.items():
        speed = compare(lm, prompts, end_tokens, rounds)
        (peer, peer_busy), (own, own_busy) = speed["generate"], speed["sample_text"]
        bound = f"{speed['products alone'][0] / peer:.2f}" if "products alone" in speed else ""
        print(f"{case:30}{peer:10.0f}{own:13.0f}{own / peer:7.2f}{own_busy / peer_busy:14.2f}{bound:>7}")
        print(f"ratio: sampling, {case}, {dtype}, {count} | generate of transformers | {own / peer:.2f}", flush=True)
    lm.end_tokens = tuple(end)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket-m", help="pocket model, folder or hub id")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], help="threads of torch, one run for each")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; the median counts")
    options = parser.parse_args()
    print(f"prompts of {LENGTH} tokens, {NEW} new; tokens per second")
    for dtype in (torch.float32, torch.bfloat16):
        lm = load_lm(options.model, dtype=dtype)
        for threads in options.threads:
            report(lm, options.model, threads, options.rounds)


if __name__ == "__main__":
    main()
