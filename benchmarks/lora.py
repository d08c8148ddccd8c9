"""LoRA beside `peft` and full finetuning, per training step; and merged and unmerged beside the base, per token.

A step is forward, backward and a fused AdamW on 32 x 64 tokens in float32, with r = 8 on every linear layer of the
blocks. A token is sampled by `sample_text`, 32 after each of 1 or 64 prompts; base, merged and unmerged are one model
each. The rounds of all sides are interleaved, because the speed of a shared machine drifts, and ratios are medians of
the ratios within a round.

    python benchmarks/lora.py [--model pocket-m] [--threads 2] [--rounds 9]

On busy cores set OMP_WAIT_POLICY=PASSIVE for the process (threads that spin while they wait starve each other) and
trust the ratio by core time.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import peft
import torch

from ptlearn.finetuning.parameter_efficient import freeze, lora, merge_lora, trainable_parameters
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import sample_text

warnings.filterwarnings("ignore", category=FutureWarning)  # peft asks transformers by an old name
BATCH, LENGTH, NEW = 32, 64, 32
PEERS = {"peft": "peft", "full": "full finetuning", "unmerged": "the same, not merged"}  # told as multiples of ours
RANK, ALPHA, TARGETS = 8, 16, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def with_peft(model: torch.nn.Module) -> torch.nn.Module:
    return peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS)))


def with_lora(model: torch.nn.Module) -> torch.nn.Module:
    return lora(model, targets=TARGETS, rank=RANK, alpha=ALPHA)


def frozen(model: torch.nn.Module) -> torch.nn.Module:
    """Nothing is trained, but the gradient flows down to the embeddings: what no LoRA can go below."""
    freeze(model).get_input_embeddings().register_forward_hook(lambda *call: call[-1].requires_grad_())
    return model


def training_step(model: torch.nn.Module, tokens: torch.Tensor) -> Callable[[], None]:
    trained = trainable_parameters(model)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None

    def step():
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def sampling(lm, prompts: list[str]) -> Callable[[], None]:
    lm.end_tokens = ()  # always NEW tokens
    return lambda: sample_text(lm, prompts, max_new_tokens=NEW)


def trained_lora(name: str):
    """A language model whose LoRA adds something: B is not zero."""
    lm = with_lora(load_lm(name))
    for parameter in trainable_parameters(lm):
        torch.nn.init.normal_(parameter, std=0.02)
    return lm


def compare(sides: dict[str, Callable[[], None]], rounds: int, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds by the clock and by the time of all cores, per side and round."""
    seconds = {side: [] for side in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for side, run in sides.items():
            start, busy = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                run()
            seconds[side].append(((time.perf_counter() - start) / repeats, (time.process_time() - busy) / repeats))
    return seconds


def report(what: str, seconds: dict[str, list[tuple[float, float]]], baseline: str, unit: float) -> None:
    """Median of each side in ms per unit, and its ratios to one of them: how many times as long it takes."""
    print(f"{'':14}{'ms':>9}{'/ ' + baseline:>12}{'by core time':>14}")
    for side, values in seconds.items():
        clock = statistics.median(value for value, _ in values)
        pairs = list(zip(values, seconds[baseline], strict=True))
        ratios = [statistics.median(own[i] / base[i] for own, base in pairs) for i in (0, 1)]
        print(f"{side:14}{1e3 * clock / unit:9.3f}{ratios[0]:12.3f}{ratios[1]:14.3f}", flush=True)
        if side in PEERS:
            print(f"ratio: {what} | {PEERS[side]} | {ratios[0]:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket-m", help="pocket model, folder or hub id")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokens = torch.randint(1, 1000, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    methods = {"full": lambda model: model, "frozen": frozen, "peft": with_peft, "lora": with_lora}
    print(
        f"{options.model}, {options.threads} threads, float32; a training step on {BATCH} x {LENGTH} tokens, r = {RANK}"
    )
    steps = {name: training_step(method(load_lm(options.model).model), tokens) for name, method in methods.items()}
    report("a step with LoRA", compare(steps, options.rounds, repeats=2), "lora", unit=1)
    models = {"base": load_lm(options.model), "merged": merge_lora(trained_lora(options.model))}
    models["unmerged"] = trained_lora(options.model)
    models["base again"] = load_lm(options.model)
    for prompts, repeats in ((["The capital of"], 4), (["The capital of"] * 64, 1)):
        print(f"sampling, {len(prompts)} prompts, {NEW} tokens each; ms per step of all rows")
        samplers = {name: sampling(lm, prompts) for name, lm in models.items()}
        seconds = compare(samplers, options.rounds, repeats)
        report(f"sampling with LoRA merged, {len(prompts)} at a time", seconds, "merged", unit=NEW)


if __name__ == "__main__":
    main()
