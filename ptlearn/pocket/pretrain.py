"""Pretrain a pocket language model: the recipe that made the shipped weights, read from top to bottom.

A stream of documents about the pocket world becomes one file of tokens; a Llama-shaped model learns to predict every
next token, each token seen once; the weights are exported in bfloat16 with a card, a loss table and checksums.

    python -m ptlearn.pocket.pretrain --size m --tokens 60e6 --out runs/m --export

What makes it quick on a CPU: compiled kernels, bfloat16 products, attention as plain matrix products (the windows are
short, and the fused CPU kernel is slow backwards), freed memory kept for reuse, and Muon for the hidden matrices.

Left out on purpose: several processes, gradient accumulation, dropout, learning-rate sweeps.
"""

import argparse
import ctypes
import hashlib
import math
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages; read at torch's first allocation

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from tqdm import tqdm

from ptlearn.checkpoints import load_checkpoint, read_state, save_checkpoint
from ptlearn.lm.checksums import write_checksums

if TYPE_CHECKING:  # imported where it is used: lesson 00 wants no more than the sizes
    from transformers import LlamaConfig, LlamaForCausalLM

WEIGHTS = Path(__file__).parent / "weights"
VOCABULARY, CONTEXT, END = 4000, 256, 0
HELDOUT_SEED, HELDOUT_TOKENS = 1_000_003, 200_000
CHECKPOINT = "checkpoint.safetensors"

LossOn = Callable[[np.ndarray, np.ndarray], torch.Tensor]

SIZES = {  # heads of 32 dimensions throughout
    "s": {"hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 176},
    "m": {"hidden_size": 160, "num_hidden_layers": 5, "num_attention_heads": 5, "intermediate_size": 432},
    "l": {"hidden_size": 256, "num_hidden_layers": 7, "num_attention_heads": 8, "intermediate_size": 704},
}


# ---------------------------------------------------------------- the model


def build(size: str | dict[str, int]) -> "LlamaForCausalLM":
    """A fresh model of the Llama layout, with biases (for BitFit) and tied embeddings; size, a name or a shape."""
    from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

    AttentionInterface.register("matmul", matmul_attention)
    shape = SIZES[size] if isinstance(size, str) else size
    return LlamaForCausalLM(
        LlamaConfig(
            **shape,
            num_key_value_heads=shape["num_attention_heads"],
            vocab_size=VOCABULARY,
            max_position_embeddings=CONTEXT,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
            bos_token_id=END,
            eos_token_id=END,
            pad_token_id=END,
        )
    )


def matmul_attention(module, query, key, value, attention_mask, scaling, **_):
    """Causal attention as two batched products; all arguments are (B, H, T, d). Returns (B, T, H, d)."""
    batch, heads, length, width = query.shape
    # one batch dimension and contiguous memory: otherwise the CPU falls back to a far slower product
    query, key, value = (x.to(value.dtype).reshape(batch * heads, length, width) for x in (query, key, value))
    future = torch.full((length, length), float("-inf"), device=query.device).triu(1)
    scores = torch.bmm(query, key.transpose(1, 2)).float() * scaling + future
    output = torch.bmm(scores.softmax(-1).to(value.dtype), value)
    return output.view(batch, heads, length, width).transpose(1, 2), None


def token_loss(model: "LlamaForCausalLM", embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats per token, from the embeddings of the inputs (B, T, d)."""
    hidden = model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return F.cross_entropy(model.lm_head(hidden).flatten(0, 1).float(), targets.flatten())


def training_flops(config: "LlamaConfig", tokens: int, context: int = CONTEXT) -> int:
    """Floating-point operations of training: (6 P + 12 L d (T + 1) / 2) per token.

    Every matrix weight is used once forwards and twice backwards, two operations each; P counts all parameters, the
    tied embedding once, as the output head (a look-up is free). Attention multiplies with keys and values of, on
    average, (T + 1) / 2 visible positions.
    """
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        parameters = sum(p.numel() for p in LlamaForCausalLM(config).parameters())
    attention = 6 * config.num_hidden_layers * config.hidden_size * (context + 1)
    return (6 * parameters + attention) * tokens


def optimizers(model: "LlamaForCausalLM", lr: float) -> dict[str, torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, norms and biases; one learning rate fits both."""
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"pretraining needs torch 2.9 or newer, for its Muon; this is {torch.__version__}")
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2] + [model.model.embed_tokens.weight]
    return {
        "muon": torch.optim.Muon(matrices, lr=lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        "adamw": torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    }


def learning_rate_scale(step: int, progress: float, warmup: int = 100, decay: float = 0.5) -> float:
    """Warm up, stay, then fall in a line to zero over the last part `decay` of the progress (0 to 1)."""
    return min((step + 1) / warmup, 1.0, max(1.0 - progress, 0.0) / decay)


# ---------------------------------------------------------------- the data


def prepare_tokens(path: Path, tokens: int, seed: int) -> np.ndarray:
    """The first `tokens` token ids of the corpus with that seed, kept in a uint16 file; reused when long enough."""
    if not path.exists() or path.stat().st_size < 2 * tokens:
        from ptlearn.pocket.corpus import documents

        tokenizer, stream, written = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json")), documents(seed), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        bar = tqdm(total=tokens, unit="tok", unit_scale=True, desc=path.name, disable=not sys.stderr.isatty())
        with open(temporary, "wb") as file:
            while written < tokens:
                batch = tokenizer.encode_batch_fast(list(islice(stream, 4000)), add_special_tokens=False)
                ids = np.fromiter((i for e in batch for i in (*e.ids, END)), np.uint16)[: tokens - written]
                file.write(ids.tobytes())
                written += len(ids)
                bar.update(len(ids))
        bar.close()
        os.replace(temporary, path)
    return np.memmap(path, np.uint16, mode="r")[:tokens]


def windows(tokens: np.ndarray, indices: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, each (B, T): window i is tokens i T … i T + T, and the target is the next token."""
    rows = torch.from_numpy(np.stack([tokens[i * CONTEXT : (i + 1) * CONTEXT + 1] for i in indices]).astype(np.int64))
    return rows[:, :-1].to(device), rows[:, 1:].to(device)


# ---------------------------------------------------------------- files


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_losses(path: Path, rows: list[dict]) -> None:
    header = "tokens,flops,seconds,learning_rate,train_loss,heldout_loss"
    lines = [header] + [",".join(map(str, row.values())) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


# ---------------------------------------------------------------- training


def pretrain(
    *,
    size: str,
    tokens: int,
    out: Path,
    seed: int = 0,
    lr: float = 8e-3,
    batch: int = 16,
    threads: int = 2,
    dtype: str = "auto",
    compiled: str = "auto",
    time_budget: float = math.inf,
    checkpoint_minutes: float = 5,
    data: Path | None = None,
) -> dict:
    """Train (or go on training) in the folder `out`; returns the final state, with `interrupted` after Ctrl-C.

    The learning rate follows max(tokens / total, seconds / time_budget), so a time budget ends the schedule properly.
    Without one, a killed and resumed run has the same numbers as an uninterrupted one.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = {"size": size, "seed": seed, "lr": lr, "batch": batch}
    state = {
        "settings": settings,
        "step": 0,
        "seconds": 0.0,
        "loss_sum": 0.0,
        "loss_count": 0,
        "rows": [],
        "finished": False,
        "extended": [],
    }

    per_step = batch * CONTEXT
    steps = math.ceil(tokens / per_step)
    stream, heldout = load_data(out.parent, steps * per_step + 1, seed, data)
    if min(len(stream), len(heldout)) <= per_step:
        raise ValueError(
            f"--batch {batch} needs more than {per_step} tokens to train on and as many held out, "
            f"the data has {len(stream)} and {len(heldout)}"
        )
    model = build(size).to(device)
    optimizer, random = optimizers(model, lr), {"rng": torch.default_generator}
    if (out / CHECKPOINT).exists():
        state = read_state(out / CHECKPOINT)
        if state["settings"] != settings:
            raise ValueError(f"{out} holds a run with {state['settings']}, asked for {settings}: choose another --out")
        load_checkpoint(out / CHECKPOINT, {"model": model}, optimizer, random)
        # a finished run goes on when given more tokens or time: the learning rate rises again and decays once more
        over = state["step"] >= steps or state["seconds"] >= time_budget
        if state["finished"] and not over:
            state["extended"].append(state["step"] * per_step)
        state["finished"] = over
        print(f"resuming at step {state['step']} of {steps}", flush=True)
    state |= {"tokens": tokens, "hardware": f"{hardware()}, {threads} thread(s)"}
    loss_on = loss_function(model, device, dtype, compiled)
    milestones = {round(t / per_step) for t in np.geomspace(min(250_000, tokens / 8), tokens, 24)}
    progress, last_save = Progress(f"pocket-{size}", state, steps * per_step, time_budget), time.monotonic()

    with interrupts() as interrupted:
        while not state["finished"] and not interrupted:
            done = max(state["step"] / steps, state["seconds"] / time_budget)
            # in the order of the file, whose documents are independent draws; round again where it is too short
            numbers = np.arange(state["step"] * batch, (state["step"] + 1) * batch) % ((len(stream) - 1) // CONTEXT)
            rate = lr * learning_rate_scale(state["step"], done)
            loss, norm = update(model, optimizer, rate, loss_on(stream, numbers))
            if not math.isfinite(loss + norm):
                raise ValueError(
                    f"loss or gradient is not finite at step {state['step']}; "
                    f"last good checkpoint: {out / CHECKPOINT}; try a lower --lr"
                )
            state["step"] += 1
            state["loss_sum"] += loss
            state["loss_count"] += 1
            state["finished"] = state["step"] == steps or done >= 1.0
            if state["finished"] or state["step"] in milestones:
                seen = state["step"] * per_step
                state["rows"].append(
                    {
                        "tokens": seen,
                        "flops": training_flops(model.config, seen),
                        "seconds": round(state["seconds"], 1),
                        "learning_rate": rate,
                        "train_loss": state["loss_sum"] / state["loss_count"],
                        "heldout_loss": heldout_loss(loss_on, heldout, batch),
                    }
                )
                state.update(loss_sum=0.0, loss_count=0)
            state["seconds"] = progress.report(state, state["step"] * per_step, loss)
            if time.monotonic() - last_save > 60 * checkpoint_minutes:
                save_checkpoint(out / CHECKPOINT, state, {"model": model}, optimizer, random)
                last_save = time.monotonic()
        progress.bar.close()
        save_checkpoint(out / CHECKPOINT, state, {"model": model}, optimizer, random)
    write_losses(out / "losses.csv", state["rows"])
    return state | {"interrupted": bool(interrupted)}


def load_data(folder: Path, tokens: int, seed: int, data: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """The training stream and the held-out tokens: from the corpus, or from one file whose end is held out."""
    if data is not None:
        stream = np.memmap(data, np.uint16, mode="r")
        split = len(stream) - min(HELDOUT_TOKENS, len(stream) // 10)
        return stream[:split], stream[split:]
    name = hashlib.sha256((WEIGHTS / "tokenizer.json").read_bytes()).hexdigest()[:8]  # another tokenizer, another file
    return (
        prepare_tokens(folder / f"tokens-{name}-{seed}.bin", tokens, seed),
        prepare_tokens(folder / f"heldout-{name}-{seed}.bin", HELDOUT_TOKENS, seed + HELDOUT_SEED),
    )


def loss_function(model: "LlamaForCausalLM", device: str, dtype: str, compiled: str) -> LossOn:
    """A function (tokens, window numbers) -> loss, compiled where there is a compiler."""
    model.set_attn_implementation("matmul" if device == "cpu" else "sdpa")
    mixed = dtype == "bfloat16" or dtype == "auto" and (device == "cuda" or torch.cpu._is_avx512_bf16_supported())
    inner = token_loss
    if compiled != "off" and device == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        print("no C++ compiler (g++) found: training uncompiled, at about half the speed", flush=True)
    elif compiled != "off":
        inner = torch.compile(token_loss, dynamic=False)

    def loss_on(source: np.ndarray, indices: np.ndarray) -> torch.Tensor:
        inputs, targets = windows(source, indices, device)
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            # the look-up stays outside the compiled part, whose parallel scatter would not repeat its sums bit by bit
            return inner(model, model.model.embed_tokens(inputs), targets)

    return loss_on


def update(model, optimizer: dict, lr: float, loss: torch.Tensor) -> tuple[float, float]:
    """One step of both optimizers; returns the loss and the gradient norm. A non-finite one changes no weight."""
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for one in optimizer.values():
        for group in one.param_groups:
            group["lr"] = lr
        if math.isfinite(loss.item() + norm.item()):
            one.step()
        one.zero_grad()
    return loss.item(), norm.item()


@torch.no_grad()
def heldout_loss(loss_on: LossOn, tokens: np.ndarray, batch: int) -> float:
    count = (len(tokens) - 1) // CONTEXT // batch * batch  # whole batches: one compiled shape
    return float(np.mean([loss_on(tokens, np.arange(i, i + batch)).item() for i in range(0, count, batch)]))


def keep_freed_memory() -> None:
    """Ask glibc to keep large freed blocks: fresh pages for every activation cost more than the arithmetic."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library: only slower
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**27)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
        mallopt(option, value)


@contextmanager
def interrupts() -> Iterator[list]:
    """A list that Ctrl-C fills, so that the step under way ends before the run stops."""
    pressed = []
    previous = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)


class Progress:
    """A bar on a terminal; elsewhere one line a minute. Keeps the seconds, all resumes together."""

    def __init__(self, name: str, state: dict, total: int, time_budget: float):
        self.name, self.total, self.time_budget, self.before = name, total, time_budget, state["seconds"]
        self.start = self.last_line = time.monotonic()
        self.first = None
        self.bar = tqdm(total=total, unit="tok", unit_scale=True, desc=name, disable=not sys.stderr.isatty())

    def report(self, state: dict, seen: int, loss: float) -> float:
        now = time.monotonic()
        seconds = self.before + now - self.start
        self.first = self.first or (seen, now)  # the first step compiles: no part of the speed
        speed = (seen - self.first[0]) / max(now - self.first[1], 1e-9)
        heldout = state["rows"][-1]["heldout_loss"] if state["rows"] else math.nan
        self.bar.update(seen - self.bar.n)
        self.bar.set_postfix(loss=f"{loss:.3f}", heldout=f"{heldout:.3f}", refresh=False)
        if self.bar.disable and (state["finished"] or now - self.last_line > 60):
            self.last_line = now
            left = max(0.0, min((self.total - seen) / max(speed, 1e-9), self.time_budget - seconds))
            print(
                f"{self.name}: {seen / 1e6:.2f} M tokens, loss {loss:.3f}, held-out {heldout:.3f}, "
                f"{speed:,.0f} tok/s, {left / 60:.0f} min left",
                flush=True,
            )
        return seconds


# ---------------------------------------------------------------- export


def export(run_folder: Path, folder: Path) -> None:
    """Write a run's weights in bfloat16 with configuration, loss table, card and SHA256SUMS."""
    state = read_state(run_folder / CHECKPOINT)
    model = build(state["settings"]["size"])
    load_checkpoint(run_folder / CHECKPOINT, {"model": model}, {}, {})
    model.to(torch.bfloat16).save_pretrained(folder)
    write_losses(folder / "losses.csv", state["rows"])
    write_text(folder / "card.md", card(model, state))
    write_checksums(folder)


def card(model: "LlamaForCausalLM", state: dict) -> str:
    """What the weights are, how they were made, and what they are not for."""
    settings, shape, last = state["settings"], model.config, state["rows"][-1]
    size = settings["size"]
    places = " and ".join(f"{seen:,}" for seen in state["extended"])
    extended = f" (and once more, from the peak rate, after {places} tokens)" if places else ""
    return f"""# pocket-{size}

A small base language model of the made-up documents of the pocket world (`ptlearn/pocket/corpus.py`). Licence: MIT.

| | |
|---|---|
| parameters | {sum(p.numel() for p in model.parameters()):,} (embeddings tied, counted once) |
| shape | Llama layout: width {shape.hidden_size}, {shape.num_hidden_layers} layers, \
{shape.num_attention_heads} heads, feed-forward {shape.intermediate_size}, biases, vocabulary {shape.vocab_size} |
| tokens | {last["tokens"]:,}, each seen once, in windows of {CONTEXT} |
| training FLOPs | {last["flops"]:.3e} |
| seconds | {last["seconds"]:,.0f} |
| hardware | {state.get("hardware", hardware())} |
| seed | {settings["seed"]} |
| held-out loss | {last["heldout_loss"]:.4f} nats per token (documents of another seed) |
| recipe | Muon on hidden matrices, AdamW elsewhere, learning rate {settings["lr"]}, \
{settings["batch"]} windows per step, 100 steps of warm-up, \
linear decay to 0 over the last half{extended}, gradient norm clipped at 1 |

Made with `python -m ptlearn.pocket.pretrain --size {size} --tokens {state["tokens"]} --seed {settings["seed"]} \
--lr {settings["lr"]} --batch {settings["batch"]} --out runs/{size} --export`, ended early where the tokens above are \
fewer (`--time-budget`).

**Intended use:** lessons on prompting, finetuning and reinforcement learning, on a laptop without a network.
**Limits:** it continues text and does not answer; it knows the pocket world only, and states falsehoods fluently.
"""


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return name


# ---------------------------------------------------------------- command line


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"pretrain: {message}\n")


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def whole(text: str) -> int:
    value = positive(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(value)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m ptlearn.pocket.pretrain", description="Pretrain a pocket language model.")
    add = parser.add_argument
    add("--size", choices=SIZES, default="m", help="which shape to train (default m)")
    add("--tokens", type=whole, default=60_000_000, help="tokens to train on, such as 60e6 (default)")
    add("--out", type=Path, required=True, help="folder of the run; a run found there is resumed")
    add("--seed", type=int, default=0, help="seed of the corpus, the order and the initial weights (default 0)")
    add("--lr", type=positive, default=8e-3, help="peak learning rate (default 0.008)")
    add("--batch", type=whole, default=16, help=f"windows of {CONTEXT} tokens per step (default 16)")
    add("--threads", type=whole, default=2, help="CPU threads (default 2)")
    add(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="precision of the products (auto: bfloat16 where the processor has it)",
    )
    add(
        "--compile",
        choices=("auto", "off"),
        default="auto",
        help="compile the model when there is a compiler (default)",
    )
    add(
        "--time-budget",
        type=positive,
        default=math.inf,
        metavar="SECONDS",
        help="decay the learning rate to zero and end after this many seconds, all resumes together",
    )
    add("--checkpoint-minutes", type=positive, default=5, help="minutes between checkpoints (default 5)")
    add("--data", type=Path, help="a uint16 token file to use in place of the corpus; its last tenth is held out")
    add("--export", action="store_true", help="at the end, write ptlearn/pocket/weights/pocket-SIZE")
    options = vars(parser.parse_args(arguments))
    exporting, options["compiled"] = options.pop("export"), options.pop("compile")
    try:
        state = pretrain(**options)
        if state["interrupted"]:
            print(f"interrupted: last checkpoint {options['out'] / CHECKPOINT}; the same command resumes", flush=True)
            return 130
        if exporting:
            export(options["out"], WEIGHTS / f"pocket-{options['size']}")
    except KeyboardInterrupt:
        print("interrupted before training began; the same command starts again", flush=True)
        return 130
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
