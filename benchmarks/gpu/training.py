"""Tokens per second, MFU and peak memory of finetuning on one device: full and LoRA, beside what was foretold.

Random tokens in rows of `--length`, four examples a row that do not see each other; `fit_sft` as lesson 15 calls it,
in bfloat16 with float32 weights, its layers compiled where that works. The matrix rate is measured in the same run.
Results are written after every part, so that a run that is cut off leaves what it has.
"""

import argparse
import gc
import json
import random
import statistics
from functools import partial
from pathlib import Path

import torch
from shapes import SHAPES, shaped_lm

from ptlearn.finetuning.memory import checkpoint_activations, count_parameters, peak_bytes
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.finetuning.throughput import StepClock, compile_layers, flops_per_token, matrix_rate
from ptlearn.lm.chat import Example

LORA = partial(lora, targets="[a-z]+_proj", rank=16)
WARM = 3  # steps that compile and allocate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="qwen2.5-0.5b", help=f"{', '.join(SHAPES)} or a pocket model")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--checkpointed", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    found = {key: value for key, value in vars(options).items() if key != "out"}
    gpu = options.device.startswith("cuda")
    found |= {"card": torch.cuda.get_device_name() if gpu else "CPU", "torch": torch.__version__}
    found["matrix_rate"] = matrix_rate(options.device)
    for name, method in (("full", None), ("lora", LORA)):
        found[name] = measured(options, method, found["matrix_rate"])
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found["lora_to_full"] = found["lora"]["tokens_per_second"] / found["full"]["tokens_per_second"]
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def measured(options, method, rate: float) -> dict:
    """One kind of finetuning, compiled; where compiling fails, as it is, and the reason is kept."""
    errors = []
    for compiled in (True, False):
        try:
            return run(options, method, rate, compiled) | {"errors": errors}
        except Exception as failure:
            errors.append(f"compiled={compiled}: {type(failure).__name__}: {failure}"[:2000])
            gc.collect()
    return {"errors": errors, "tokens_per_second": float("nan")}


def run(options, method, rate: float, compiled: bool) -> dict:
    lm = shaped_lm(options.shape, dtype=torch.float32, device=options.device)
    config = lm.model.config
    switches = {"batch": options.micro_batch, "length": options.length, "bf16": True}
    foretold = peak_bytes(config, method, **switches, checkpointed=options.checkpointed)
    lm = lm if method is None else method(lm)
    if options.checkpointed:
        checkpoint_activations(lm)
    if compiled:
        compile_layers(lm)
    gpu = options.device.startswith("cuda")
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    clock = StepClock(options.device)
    settings = {"batch": 4 * options.rows, "micro_batch": options.micro_batch, "packed": options.length, "bf16": True}
    history = fit_sft(lm, examples(options, config.vocab_size), **settings, lr=1e-5, progress=clock)
    speed = options.rows * options.length / statistics.median(clock.seconds[WARM:] or clock.seconds)
    work = flops_per_token(lm, options.length // 4)
    trained, everything = count_parameters(lm)
    return {
        "compiled": compiled, "trained": trained, "parameters": everything, "tokens_per_second": speed,
        "flops_per_token": work, "mfu": speed * work / rate, "foretold_peak": foretold,
        "peak": torch.cuda.max_memory_allocated() if gpu else None, "loss": history.loss, "seconds": clock.seconds,
    }  # fmt: skip


def examples(options, words: int) -> list[Example]:
    """Random tokens, four examples to a row, every token but the first a response."""
    generator, length = random.Random(0), options.length // 4
    return [
        Example([generator.randrange(words) for _ in range(length)], [False] + [True] * (length - 1))
        for _ in range(4 * options.rows * options.steps)
    ]


if __name__ == "__main__":
    main()
