"""How time and memory grow: one thing at a time is made larger, and an exponent is fitted to times of the larger half.

    time = constant * size ** exponent,   least squares on the logarithms of the larger half of the sizes

Rounds go through all sizes in turns, and the median counts; memory is what the process needed at most beyond what it
held before (Linux only). The last column is the share of a limit measured in the same run, at the largest size: of the
rate of a matrix product for a training step and a linear solve; for sampling of whichever takes longer, to read all
weights at every token or to multiply with them; of the rate of drawing numbers for walks on a grid.

    python benchmarks/growth.py [--threads 2] [--rounds 5]
"""

import argparse
import copy
import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ptlearn.finetuning.sft import fit_sft
from ptlearn.finetuning.throughput import flops_per_token, matrix_rate
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import state_values, value_iteration
from ptlearn.lm.chat import Example
from ptlearn.lm.models import LanguageModel, build_model, load_lm
from ptlearn.lm.text import sample_text
from ptlearn.rl.policies import TabularPolicy

BASE = load_lm("pocket-s")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Series:
    """Something to run at several sizes; share(size, seconds) tells which part of a limit it reaches."""

    what: str
    size: str
    run: dict[int, Callable]
    share: Callable[[int, float], float]


# ---------------------------------------------------------------- what is run


def language_model(width: int = 128, vocabulary: int = 4096) -> LanguageModel:
    """A model with random weights of the pocket models' layout, four layers."""
    config = copy.deepcopy(BASE.model.config)
    config.update({"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 4,
                   "num_attention_heads": width // 32, "num_key_value_heads": width // 32, "head_dim": 32,
                   "vocab_size": vocabulary, "max_position_embeddings": 2048})  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lm = LanguageModel(build_model(config), BASE.tokenizer, "random")
    lm.end_tokens = ()  # every answer has its full length
    return lm


def sft_step(lm, rows: int, length: int) -> Callable:
    tokens = torch.randint(len(lm.tokenizer), (rows, length), generator=torch.Generator().manual_seed(0))
    examples = [Example(row, [False] + [True] * (length - 1)) for row in tokens.tolist()]
    return lambda: fit_sft(lm, examples, batch=rows, lr=1e-6)


def trained(rate: float, rows: int = 8, length: int = 128, lms: dict | None = None, of: str = "") -> Callable:
    """The share of the matrix rate that a training step reaches, whichever of its sizes is varied."""
    usual = language_model()

    def share(size: int, seconds: float) -> float:
        shape = {"rows": rows, "length": length} | ({of: size} if of else {})
        flops = flops_per_token((lms or {}).get(size, usual), shape["length"])
        return flops * shape["rows"] * shape["length"] / seconds / rate

    return share


def text_series(rate: float, bandwidth: float) -> list[Series]:
    lm = language_model()
    by_width = {sum(p.numel() for p in one.parameters()): one for one in map(language_model, (64, 128, 256, 512))}
    by_vocabulary = {size: language_model(vocabulary=size) for size in (4096, 8192, 16384, 32768)}
    weights = sum(p.numel() * p.element_size() for p in lm.parameters())

    def decoded(rows: Callable[[int], int], steps: Callable[[int], int]) -> Callable:
        multiplied = 2 * sum(p.numel() for p in lm.parameters())  # operations a token; the head is the embedding's own

        def share(size: int, seconds: float) -> float:
            return max(weights / bandwidth, multiplied * rows(size) / rate) * steps(size) / seconds

        return share

    return [
        Series("a step of SFT, 8 rows", "tokens of a row",
               {n: sft_step(lm, 8, n) for n in (64, 128, 256, 512, 1024, 2048)}, trained(rate, of="length")),
        Series("a step of SFT, 128 tokens", "rows",
               {n: sft_step(lm, n, 128) for n in (4, 8, 16, 32, 64)}, trained(rate, of="rows")),
        Series("a step of SFT, 8 rows of 128", "parameters",
               {n: sft_step(one, 8, 128) for n, one in by_width.items()}, trained(rate, lms=by_width)),
        Series("a step of SFT, 8 rows of 128", "vocabulary",
               {n: sft_step(one, 8, 128) for n, one in by_vocabulary.items()}, trained(rate, lms=by_vocabulary)),
        Series("sampling, one prompt", "new tokens",
               {n: lambda n=n: sample_text(lm, ["One"], max_new_tokens=n) for n in (32, 64, 128, 256, 512)},
               decoded(lambda size: 1, lambda size: size)),
        Series("sampling, 32 new tokens", "prompts",
               {n: lambda n=n: sample_text(lm, prompts(n), max_new_tokens=32) for n in (1, 4, 16, 64, 256)},
               decoded(lambda size: size, lambda size: 32)),
    ]  # fmt: skip


def prompts(count: int) -> list[str]:
    """So many different ones."""
    return [f"One morning number {number} came" for number in range(count)]


def open_field(side: int):
    return GridWorld(["S" + "." * (side - 1), *["." * side] * (side - 2), "." * (side - 1) + "G"]).to_mdp(gamma=0.99)


def grid_series(rate: float, draws: float) -> list[Series]:
    worlds = {side**2: open_field(side) for side in (8, 16, 24, 32, 48)}
    uniform = {states: torch.full((world.states, 4), 0.25, dtype=torch.float64) for states, world in worlds.items()}
    field = worlds[1024]
    policy = TabularPolicy(field.states, field.actions)

    def walk(episodes: int, horizon: int) -> Callable:
        return lambda: collect(field, policy, episodes, horizon=horizon, generator=torch.Generator().manual_seed(0))

    return [
        Series("exact values of a policy", "states",
               {n: lambda n=n: state_values(worlds[n], uniform[n]) for n in worlds},
               lambda size, seconds: 2 / 3 * size**3 / seconds / rate),
        Series("value iteration", "states",
               {n: lambda n=n: value_iteration(worlds[n]) for n in list(worlds)[:4]}, lambda size, seconds: math.nan),
        Series("4,096 walks on 32 × 32 cells", "horizon",
               {n: walk(4096, n) for n in (50, 100, 200, 400)}, lambda size, seconds: 4096 * size / seconds / draws),
        Series("walks of 100 steps on 32 × 32 cells", "episodes",
               {n: walk(n, 100) for n in (256, 1024, 4096, 16384)}, lambda size, seconds: 100 * size / seconds / draws),
    ]  # fmt: skip


# ---------------------------------------------------------------- how it is measured


def bandwidth_of_memory() -> float:
    """Bytes per second that a sum over 256 MB reads."""
    block = torch.ones(2**26)
    return block.numel() * 4 / middle(lambda: block.sum())


def rate_of_draws() -> float:
    """Numbers per second of numpy's generator, in blocks as large as a step of the walks."""
    generator = np.random.default_rng(0)
    return 4096 / middle(lambda: generator.random(4096))


def middle(run: Callable, times: int = 9) -> float:
    """Median seconds."""
    return statistics.median(seconds_of(run) for _ in range(times))


def seconds_of(run: Callable) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def memory_of(run: Callable) -> float:
    """Bytes that a run needs at most, beyond what the process holds before; nan where the system does not tell."""
    if not CLEAR.exists():
        return math.nan
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system, or a new block would seem free of charge
    CLEAR.write_text("5")  # the highest so far is forgotten
    before = held("VmRSS")
    run()
    return held("VmHWM") - before


def held(entry: str) -> int:
    return 1024 * int(STATUS.read_text().split(f"{entry}:")[1].split()[0])


def exponent(sizes: list[int], values: list[float]) -> float:
    """The slope of log value against log size, over the larger half of the sizes.

    >>> round(exponent([1, 2, 4, 8], [5, 5, 16 * 5, 64 * 5]), 3)
    2.0
    """
    first = len(sizes) // 2 if len(sizes) > 3 else 0
    x, y = (np.log(np.asarray(numbers[first:], dtype=float)) for numbers in (sizes, values))
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def measured(series: Series, rounds: int) -> str:
    """A row of the table."""
    sizes = list(series.run)
    for run in series.run.values():
        run()
    memory = [memory_of(run) for run in series.run.values()]
    taken = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, run in series.run.items():
            taken[size].append(seconds_of(run))
    seconds = [statistics.median(taken[size]) for size in sizes]
    share = series.share(sizes[-1], seconds[-1])
    return (f"| {series.what} | {series.size} | {sizes[0]:,} to {sizes[-1]:,} | {1e3 * seconds[0]:.3g} to "
            f"{1e3 * seconds[-1]:.3g} | {exponent(sizes, seconds):.2f} | {memory[0] / 1e6:.1f} to "
            f"{memory[-1] / 1e6:.1f} | {'' if math.isnan(share) else f'{share:.0%}'} |")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # the best of several: a limit that a busy moment has lowered is none
    single, double = (max(matrix_rate("cpu", dtype) for _ in range(5)) for dtype in (torch.float32, torch.float64))
    bandwidth, draws = bandwidth_of_memory(), rate_of_draws()
    print(f"{options.threads} threads; limits of this run: {single / 1e9:.0f} GFLOP/s in float32, "
          f"{double / 1e9:.0f} in float64, {bandwidth / 1e9:.1f} GB/s, {draws / 1e6:.0f} M numbers/s\n")  # fmt: skip
    print("| what | what grows | from, to | milliseconds | exponent | memory, MB | share of the limit |")
    print("|---|---|---|---|---|---|---|")
    for series in text_series(single, bandwidth) + grid_series(double, draws):
        print(measured(series, options.rounds), flush=True)


if __name__ == "__main__":
    main()
