"""Nano language models for a scaling law: five widths, each trained on five amounts of text; a table and its recipe.

Every pair of a size and a number of tokens is a run of its own that goes to the end of its own schedule: a tenth of
the steps to warm up, then the peak, then a line to zero over the second half. The peak is 0.32 over the width (a wide
layer adds up more changes at once), all else is the same in all runs: AdamW, 2 windows of 256 tokens per step, every
token seen once, from the start of one corpus.

    python -m ptlearn.pocket.scaling runs/scaling.csv

trains what the file lacks, about an hour on one CPU core; `table()` reads the file that is shipped.
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
COLUMNS = ("width", "layers", "parameters", "tokens", "flops", "seconds", "heldout_loss")
LAYERS = {16: 2, 24: 2, 32: 3, 48: 3, 64: 4}  # of each width
TOKENS = (200_000, 400_000, 800_000, 1_600_000, 3_200_000)
BATCH = 2  # windows per step


def shape(width: int) -> dict[str, int]:
    """The shape of the nano model of that width, as `pretrain.build` takes it. Raises: ValueError for another width."""
    if width not in LAYERS:
        raise ValueError(f"width={width}: expected one of {', '.join(map(str, LAYERS))}")
    heads = width // 16
    return {"hidden_size": width, "num_hidden_layers": LAYERS[width], "num_attention_heads": heads,
            "intermediate_size": width * 8 // 3 // 8 * 8}  # fmt: skip


@functools.cache
def text(tokens: int, seed: int = 0) -> np.ndarray:
    """The first `tokens` token ids of the corpus with that seed."""
    with tempfile.TemporaryDirectory() as folder:
        return np.array(pretrain.prepare_tokens(Path(folder) / "tokens.bin", tokens, seed))


def heldout() -> np.ndarray:
    """The held-out tokens that the pocket models are scored on too."""
    return text(pretrain.HELDOUT_TOKENS, pretrain.HELDOUT_SEED)


def train(width: int, tokens: int, *, peak: float | None = None, seed: int = 0, follow=iter) -> dict[str, float]:
    """Train one nano model from scratch on `tokens` tokens.

    Args:    width, one of `LAYERS`; tokens, at least ten steps; peak, the learning rate (default 0.32 / width); seed,
             of the initial weights; follow, wraps the range of steps, such as a progress bar.
    Returns: the row of the table, see `COLUMNS`: loss in nats per token, on the whole held-out text.
    Raises:  ValueError for another width, or fewer tokens than ten steps.
    """
    per_step = BATCH * pretrain.CONTEXT
    steps, started = tokens // per_step, time.monotonic()
    if steps < 10:
        raise ValueError(f"tokens={tokens}: expected at least {10 * per_step:,}, ten steps")
    peak = 0.32 / width if peak is None else peak
    torch.manual_seed(seed)
    model = pretrain.build(shape(width))
    loss_on = pretrain.loss_function(model, "cpu", "float32", "off")
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    stream = text(max(tokens, TOKENS[0]) + 1)
    for step in follow(range(steps)):
        rate = peak * pretrain.learning_rate_scale(step, step / steps, warmup=max(1, steps // 10))
        pretrain.update(model, {"adamw": optimizer}, rate, loss_on(stream, np.arange(step * BATCH, (step + 1) * BATCH)))
    seen = steps * per_step
    return {
        "width": width, "layers": LAYERS[width], "parameters": model.num_parameters(), "tokens": seen,
        "flops": pretrain.training_flops(model.config, seen), "seconds": round(time.monotonic() - started, 1),
        "heldout_loss": pretrain.heldout_loss(loss_on, heldout(), BATCH),
    }  # fmt: skip


def table(path: Path = TABLE) -> list[dict[str, float]]:
    """One row per run, see `COLUMNS`."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{column: float(value) for column, value in row.items()} for row in csv.DictReader(file)]


def main(path: Path) -> None:
    """Train what the file lacks, the short runs first, a line as soon as each ends."""
    torch.set_num_threads(1)
    pretrain.keep_freed_memory()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    done = {(row["width"], row["tokens"]) for row in table(path)}
    per_step = BATCH * pretrain.CONTEXT
    for tokens in TOKENS:
        for width in LAYERS:
            if (width, tokens // per_step * per_step) not in done:
                row = train(width, tokens)
                print(row, flush=True)
                with open(path, "a", encoding="utf-8") as file:
                    file.write(",".join(str(row[column]) for column in COLUMNS) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("scaling: expected the file for the table, such as runs/scaling.csv")
    main(Path(sys.argv[1]))
