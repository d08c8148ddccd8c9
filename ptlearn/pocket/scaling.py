"""Nano language models for a scaling law: six widths, each trained with several budgets; a table and its recipe.

Every pair of a width and a budget is a run of its own: as many tokens as the budget of floating-point operations pays
for, to the end of its own schedule, a tenth of the steps to warm up, then the peak, then a line to zero over the second
half. All else is the same in all runs: AdamW, 2 windows of 256 tokens per step, every token seen once, from the start
of one corpus. Runs of one budget and many widths make an isoFLOP curve (Hoffmann et al., 2022, approach 2).

    python -m ptlearn.pocket.scaling runs/scaling.csv

trains what the file lacks, about eight minutes on one CPU core; `table()` reads the file that is shipped.
"""

import csv
import functools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ptlearn.pocket import pretrain

TABLE = Path(__file__).parent / "tables" / "scaling.csv"
COLUMNS = ("width", "layers", "parameters", "budget", "tokens", "flops", "seconds", "heldout_loss")
LAYERS = {8: 2, 16: 2, 24: 2, 32: 3, 48: 3, 64: 4}  # of each width
BUDGETS = (1.2e11, 2.4e11, 4.8e11)  # floating-point operations
MOST_TOKENS = 1_200_000  # of a run: the smallest model is left out of the largest budget
BATCH = 2  # windows per step
PER_STEP = BATCH * pretrain.CONTEXT  # tokens
FEWEST = 20  # steps
HELDOUT_TOKENS = 50_000  # the first quarter of the text that the pocket models are scored on


def shape(width: int) -> dict[str, int]:
    """The shape of the nano model of that width, as `pretrain.build` takes it. Raises: ValueError for another width."""
    if width not in LAYERS:
        raise ValueError(f"width={width}: expected one of {', '.join(map(str, LAYERS))}")
    return {"hidden_size": width, "num_hidden_layers": LAYERS[width], "num_attention_heads": max(1, width // 16),
            "intermediate_size": width * 8 // 3 // 8 * 8}  # fmt: skip


@functools.cache
def folder() -> tempfile.TemporaryDirectory:
    """Where the tokens of this process lie; gone when it ends."""
    return tempfile.TemporaryDirectory()


def text(tokens: int, seed: int = 0) -> np.ndarray:
    """The first `tokens` token ids of the corpus with that seed."""
    return pretrain.prepare_tokens(Path(folder().name) / f"{seed}.bin", tokens, seed)


def tokens_for(width: int, budget: float) -> int:
    """How many tokens, in whole steps, the budget pays for at that width. Raises: ValueError for too small a budget."""
    with torch.device("meta"):
        config = pretrain.build(shape(width)).config
    steps = round(budget / pretrain.training_flops(config, PER_STEP))
    if steps < FEWEST:
        raise ValueError(f"budget={budget:.3g}: pays for {steps} steps at width {width}, expected at least {FEWEST}")
    return steps * PER_STEP


def train(width: int, budget: float, *, peak: float | None = None, seed: int = 0, follow=iter) -> dict[str, float]:
    """Train one nano model from scratch until the budget is spent.

    Args:    width, one of `LAYERS`; budget, in floating-point operations, see `training_flops`; peak, the learning
             rate (default 0.24 / width, at most 0.015: a wide layer adds up more changes at once); seed, of the initial
             weights; follow, wraps the range of steps, such as a progress bar.
    Returns: the row of the table, see `COLUMNS`: seconds of processor time, loss in nats per token on the
             first `HELDOUT_TOKENS` of the held-out text.
    Raises:  ValueError for another width, or a budget that pays for fewer than `FEWEST` steps.
    """
    tokens, started = tokens_for(width, budget), time.process_time()
    steps, peak = tokens // PER_STEP, peak or min(0.24 / width, 0.015)
    torch.manual_seed(seed)
    model = pretrain.build(shape(width))
    loss_on = pretrain.loss_function(model, "cpu", "float32", "off")
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    stream = text(tokens + 1)
    for step in follow(range(steps)):
        rate = peak * pretrain.learning_rate_scale(step, step / steps, warmup=max(1, steps // 10))
        pretrain.update(model, {"adamw": optimizer}, rate, loss_on(stream, np.arange(step * BATCH, (step + 1) * BATCH)))
    heldout = text(HELDOUT_TOKENS, pretrain.HELDOUT_SEED)
    return {
        "width": width, "layers": LAYERS[width], "parameters": model.num_parameters(), "budget": budget,
        "tokens": tokens, "flops": pretrain.training_flops(model.config, tokens),
        "seconds": round(time.process_time() - started, 1),
        "heldout_loss": pretrain.heldout_loss(loss_on, heldout, BATCH),
    }  # fmt: skip


def table(path: Path = TABLE) -> list[dict[str, float]]:
    """One row per run, see `COLUMNS`."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{column: float(value) for column, value in row.items()} for row in csv.DictReader(file)]


def main(path: Path, budgets=BUDGETS) -> None:
    """Train what the file lacks, the small budgets first, a line as soon as each run ends."""
    torch.set_num_threads(1)
    pretrain.keep_freed_memory()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    done = {(row["width"], row["budget"]) for row in table(path)}
    for budget in budgets:
        for width in LAYERS:
            if (width, budget) not in done and tokens_for(width, budget) <= MOST_TOKENS:
                row = train(width, budget)
                print(row, flush=True)
                with open(path, "a", encoding="utf-8") as file:
                    file.write(",".join(str(row[column]) for column in COLUMNS) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("scaling: expected the file for the table, such as runs/scaling.csv")
    main(Path(sys.argv[1]))
