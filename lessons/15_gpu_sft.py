# Lesson 15: finetuning on a GPU. jupytext py:percent; runs as a script: python lessons/15_gpu_sft.py --help

# %% [markdown]
# # 15 · Finetuning on a GPU: bytes, FLOPs, processes
#
# So far a step of finetuning took a second or less on a laptop. The same line of code, `fit_sft`, trains a model of
# a billion parameters on a GPU, if you can answer three questions first: does it fit, how much of the device does it
# use, and does it compute the same on eight GPUs as on one? You answer them by hand, check the answers on this machine,
# and start the real run with the same script. *(Beyond the lecture: its finetuning, lessons 03 to 06, at full size.)*
# About 60 minutes; runs in 70 s on two CPU cores, and for as long as you like on GPUs.
#
# **You will need** the loss of lesson 03, the bytes of lesson 05, LoRA from lesson 06. **You will be able to** foretell
# the memory and the speed of a run, read its MFU, keep small updates in bfloat16, split a batch over micro-batches and
# processes without changing its gradient, and stop and go on exactly.

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

import os
import random
import tempfile
from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot
from transformers import Qwen2Config

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.course.recorded import record, recorded_runs
from ptlearn.finetuning.adapter_files import export_merged, require_empty, save_adapter
from ptlearn.finetuning.memory import checkpoint_activations, count_parameters, peak_bytes
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft, sft_loss
from ptlearn.finetuning.throughput import (
    StepClock,
    compile_layers,
    flops_per_token,
    matrix_rate,
)
from ptlearn.lm.chat import (
    as_rollout,
    chat_prompt,
    read_conversations,
    render_all,
    response_logprobs,
)
from ptlearn.lm.devices import pick_device, require_memory
from ptlearn.lm.hub_data import local_file
from ptlearn.lm.models import build_model, load_lm
from ptlearn.lm.text import complete
from ptlearn.optimization import gradient_step
from ptlearn.pocket import assistant
from ptlearn.processes import gathered, rank, size, spread
from ptlearn.statistics import over_seeds

args = arguments(
    "Finetuning a language model on one GPU or several: memory, MFU, bfloat16, micro-batches, "
    "exact resume.",
    model=("pocket-m",
           "a pocket model, smollm2-135m, a folder or a hub id such as Qwen/Qwen2.5-1.5B"),
    data=("pocket", "conversations: pocket, a file of JSON objects, or a dataset of the hub "
          "such as owner/name"),
    examples=(640, "conversations to train on", "at least 40"),
    method=("full", "what is trained", ("full", "lora")),
    rank=(16, "of LoRA", "at least 1"),
    lr=(1e-3, "peak step size of AdamW; full finetuning of a large model wants 1e-5, its LoRA "
        "2e-4", "above 0"),
    epochs=(1, "passes over the examples", "at least 1"),
    batch=(32, "examples per step, over all micro-batches and processes", "at least 1"),
    micro_batch=(8, "rows per forward pass and process", "at least 1"),
    packed=(256, "tokens of a row, which examples share", "at least 32"),
    device=("auto", "cpu, cuda, or auto: a GPU where there is one"),
    bf16=(False, "forward and backward passes in bfloat16"),
    checkpointed=(False, "keep the input of every layer alone, and compute the rest again"),
    compiled=(False, "torch.compile every layer"),
    checkpoint=(None, "a file to save the run to, and to go on from"),
    out=(None, "a folder for the trained weights"),
    record=(None, "a JSON file for the figures and curves of this run"),
    seeds=(3, "orders of the data in the experiment with bfloat16", "at least 2"),
    seed=(0, "of everything else", "at least 0"),
)  # fmt: skip
# the products of a pocket model are small: a second thread would mostly wait for the first
torch.set_num_threads(1)

# %% [markdown]
# ## Predict first
# Write down your guesses; you will compute or measure each of them below.
#
# 1. A GPU multiplies matrices at 750 TFLOP/s. **How many tokens per second can it finetune a 1.5B model on, at most?**
# 2. Full finetuning of a 0.5B model with AdamW, float32 weights and bfloat16 arithmetic, 4 rows of 2,048 tokens. **How
#    many GB? And with LoRA?**
# 3. You store the weights in bfloat16 to save memory, and take steps of 1e-5. **How much of the learning is left?**
# 4. A batch is split into eight micro-batches, and you average their mean losses. **Is its gradient that of the mean
#    loss?**
#
# ## How much work is a token?
# A matrix of $m$ numbers costs each token $2m$ operations forwards, $2m$ for the gradient of its input, and $2m$ for its
# own gradient, if it is trained: 6 per parameter, 4 where it is frozen. Attention multiplies queries with keys and
# weights with values: over half of a row on average, with the backward pass $6 \cdot \text{layers} \cdot \text{width}
# \cdot T$. **MFU**, model FLOPs utilization, is the share of the device's matrix rate that these operations take up.

# %% ex="15.1" title="The share of the device" points=2 difficulty="easy" minutes=8
def utilization(tokens_per_second, trained, frozen, layers, width, length, rate):
    """MFU of a training run, between 0 and 1.

    trained and frozen, numbers in matrices that are and are not trained; length, tokens of a
    row; rate, FLOP/s.
    """
    # BEGIN SOLUTION
    per_token = 6 * trained + 4 * frozen + 6 * layers * width * length
    return tokens_per_second * per_token / rate
    # END SOLUTION

# %% ex="15.1" role="check"
utilization = check("15.1", utilization)

# %% [markdown] ex="15.1" role="hints"
# <details><summary>Hint 1</summary>First the operations of one token: the matrices and the attention.</details>
# <details><summary>Hint 2</summary>Operations per second that were useful, over those that the device can do.</details>

# %% [markdown]
# Two published shapes, on the meta device, where a model has shapes and no numbers. The last column is your formula
# turned round: what a device of 750 TFLOP/s could do at an MFU of 1.

# %%
SHAPES = {
    "Qwen2.5-0.5B": Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True,
    ),
    "Qwen2.5-1.5B": Qwen2Config(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
        num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True,
    ),
}  # fmt: skip
lora_on_all = partial(lora, targets="[a-z]+_proj", rank=16)
METHODS = {"full": None, "LoRA": lora_on_all}
print(f"{'':13} {'':5} {'trained':>13} {'GFLOP/token':>12} {'tokens/s at most':>17}")
for name, config in SHAPES.items():
    for method, apply in METHODS.items():
        with torch.device("meta"):
            model = build_model(config)
            model = model if apply is None else apply(model)
        work, (trained, _) = flops_per_token(model, length=2048), count_parameters(model)
        most = 1 / utilization(1, work / 6, 0, 0, 0, 0, 750e12)
        print(f"{name:13} {method:5} {trained:13,} {work / 1e9:12.1f} {most:17,.0f}")

# %% [markdown]
# LoRA trains 1 to 2 % of the numbers and saves three tenths of the work, not 98 %: the gradient still has to pass
# through every frozen matrix on its way to the factors below.
#
# ## Does it fit?
# `peak_bytes` runs a whole step on shapes, forward, backward and AdamW, and counts at every operation what lives. On a
# GPU, `torch.cuda.max_memory_allocated` measures what is really held, and the run below prints it beside.

# %%
SWITCHES = {
    "full, float32": {},
    "full, bf16": {"bf16": True},
    "full, bf16, checkpointed": {"bf16": True, "checkpointed": True},
    "LoRA, bf16, checkpointed": {"bf16": True, "checkpointed": True, "method": lora_on_all},
}
gigabytes = {
    name: peak_bytes(SHAPES["Qwen2.5-0.5B"], batch=4, length=2048, **switches) / 1e9
    for name, switches in progress(SWITCHES.items(), "steps on shapes")
}
figure, axes = pyplot.subplots(figsize=(7, 2.6))
axes.barh(list(gigabytes), list(gigabytes.values()), color=figures.COLORS[0])
axes.bar_label(axes.containers[0], fmt="%.0f")
axes.set(title="Peak memory of a step: Qwen2.5-0.5B, 4 rows of 2,048 tokens", xlabel="GB",
         xlim=(0, 1.15 * max(gigabytes.values())))  # fmt: skip
axes.invert_yaxis()
show(figure, alt="Bars of the peak memory of four ways to finetune; each switch lowers it, "
     f"from {gigabytes['full, float32']:.0f} to "
     f"{gigabytes['LoRA, bf16, checkpointed']:.0f} GB.")  # fmt: skip
words = 4 * 2048 * SHAPES["Qwen2.5-0.5B"].vocab_size
print(f"of which logits and their gradients, about 10 bytes for each of {words / 1e9:.1f} "
      f"billion: {10 * words / 1e9:.0f} GB")  # fmt: skip

# %% [markdown]
# With a vocabulary of 152k the logits outweigh the weights: up to `micro_batch` times `packed` tokens at a time, those
# of the responses, have them. Lower `micro_batch` first; switch checkpointing on next (a third more work); then LoRA.
#
# Several GPUs can share what a step holds: FSDP (fully sharded data parallel, ZeRO-3) leaves each of $n$ processes one
# $n$-th of the weights, gradients and optimizer states, and gathers the weights of one layer at a time when it computes.

# %% ex="15.2" title="A divided model" points=2 difficulty="medium" minutes=8
def bytes_per_gpu(parameters, trained, processes, layer=0):
    """Bytes of weights, gradients and AdamW's two moments on each GPU under FSDP, and of the
    layer gathered in bf16.

    All weights, gradients and moments are kept in float32 and shared out; the weights of one
    `layer`, a number of parameters, are gathered whole in bfloat16.
    """
    # BEGIN SOLUTION
    return (4 * parameters + 3 * 4 * trained) / processes + 2 * layer
    # END SOLUTION

# %% ex="15.2" role="check"
bytes_per_gpu = check("15.2", bytes_per_gpu)

# %% [markdown] ex="15.2" role="hints"
# <details><summary>Hint 1</summary>Which of the four exists for every number, which only for trained ones? All four are
# shared out.</details>
# <details><summary>Hint 2</summary>The gathered layer is on every GPU whole, two bytes a number.</details>

# %%
print("GB per GPU of an 8B model, activations not counted")
for method, trained in {"full": 8.03e9, "LoRA": 42e6}.items():
    held = {n: bytes_per_gpu(8.03e9, trained, n, layer=0.22e9) for n in (1, 2, 8, 64)}
    row = "  ".join(f"{n:2} GPUs {each / 1e9:6.1f}" for n, each in held.items())
    print(f"{method:5} {row}")

# %% [markdown]
# ## Small updates
# A bfloat16 has 8 significant bits: two neighbouring numbers differ by 0.4 to 0.8 %. An update smaller than half of that
# rounds to nothing, at every step anew. That is why the *arithmetic* is in bfloat16 (autocast) while the *weights* that
# the optimizer adds to stay in float32.

# %% ex="15.3" title="What bfloat16 loses" points=2 difficulty="medium" minutes=8
def lost_share(weights, updates):
    """Share of the updates that do nothing when weights are stored in bfloat16.

    weights and updates (n,) float32: each weight is rounded to bfloat16, and so is its sum
    with its update.
    """
    # BEGIN SOLUTION
    stored = weights.bfloat16()
    after = (stored.float() + updates).bfloat16()
    return (after == stored).float().mean()
    # END SOLUTION

# %% ex="15.3" role="check"
lost_share = check("15.3", lost_share)

# %% [markdown] ex="15.3" role="hints"
# <details><summary>Hint 1</summary>`.bfloat16()` rounds. Compare what is stored before and after the update.</details>
# <details><summary>Hint 2</summary>Add in float32, and round the sum.</details>

# %%
lm = load_lm("pocket-s")
everything = torch.cat([p.detach().flatten() for p in lm.parameters()])
for rate in (1e-5, 1e-4, 1e-3):  # AdamW moves a number by about its step size
    generator = torch.Generator().manual_seed(args.seed)
    signs = torch.randint(2, everything.shape, generator=generator) * 2 - 1
    lost = float(lost_share(everything, rate * signs))
    print(f"steps of {rate:g}: {lost:4.0%} of pocket-s's weights stay as they are")

# %% [markdown]
# What that does to learning: the same finetuning, with weights in float32 and with weights rounded to bfloat16 after
# every step. Nothing else differs.

# %%
examples, _ = render_all(lm, assistant.conversations(assistant.requests(160, args.seed)))
held_out, _ = render_all(
    lm, assistant.conversations(assistant.requests(40, args.seed, held_out=True))
)


def finetuned_loss(rate, rounded, seed):
    """Held-out loss after one pass over the examples in an order of its own."""
    lm = load_lm("pocket-s")
    optimizer = torch.optim.AdamW(lm.parameters(), lr=rate)
    order = random.Random(seed).sample(examples, len(examples))
    for first in range(0, len(order), 32):
        rollout = as_rollout(order[first : first + 32])
        gradient_step(optimizer, [-response_logprobs(lm, rollout).sum() / rollout.mask.sum()])
        for parameter in lm.parameters() if rounded else ():
            parameter.data.copy_(parameter.bfloat16())
    return sft_loss(lm, held_out)


start = sft_loss(lm, held_out)
print(f"held-out loss before: {start:.3f}")
rates, losses = (1e-5, 1e-3), {}
for rate in progress(rates, "finetuning"):
    for rounded in (False, True):
        ends = [finetuned_loss(rate, rounded, seed) for seed in range(args.seeds)]
        losses[rate, rounded] = over_seeds(ends)
    kept = (start - losses[rate, True].mean) / (start - losses[rate, False].mean)
    print(f"steps of {rate:g}: float32 {losses[rate, False]}, bfloat16 {losses[rate, True]}; "
          f"{kept:.0%} of the learning is left")  # fmt: skip

# %% [markdown]
# Halving the memory of the weights costs nearly all of the learning where steps are small, and steps are small wherever
# a large model is finetuned in full. At 1e-3, a step for toys, nothing is lost, and the mistake stays hidden.
#
# ## One batch, many pieces
# A batch that does not fit is computed in micro-batches whose gradients add up; several processes compute their own and
# the framework *averages* their gradients. Neither may change what is learned. The loss is a mean over the response
# tokens of the whole batch, so each piece must know how many there are in all.

# %% ex="15.4" title="Losses of pieces" points=3 difficulty="medium" minutes=12
def piece_losses(pieces, tokens, processes=1):
    """The losses of one process's micro-batches, whose gradients add up to those of the mean
    loss of the whole batch.

    pieces, a list of (logprobs (B, T) with gradient, mask (B, T) bool); tokens, the response
    tokens of the whole batch, over all micro-batches and processes; the framework averages
    over `processes`. Returns a list of scalars.
    """
    # BEGIN SOLUTION
    losses = []
    for logprobs, mask in pieces:
        taken = torch.where(mask, logprobs, 0.0)
        losses.append(-taken.sum() * processes / tokens)
    return losses
    # END SOLUTION

# %% ex="15.4" role="check"
piece_losses = check("15.4", piece_losses)

# %% [markdown] ex="15.4" role="hints"
# <details><summary>Hint 1</summary>Sum over a piece's response tokens; divide by those of the whole batch, not by those of
# the piece.</details>
# <details><summary>Hint 2</summary>An average over processes divides by their number: multiply by it before.</details>

# %% [markdown]
# Your losses on 32 conversations in 1, 4 and 8 pieces, and on two processes played one after the other. Beside them the
# mistake that stood in the most used training libraries until 2024: the mean of the micro-batches' means.

# %%
batch = sorted(examples, key=lambda example: len(example.tokens))[:: len(examples) // 32][:32]


def gradient(losses_of, count):
    """The gradient of the batch in `count` pieces, by whichever loss they are given."""
    lm.zero_grad()
    rollouts = [as_rollout(batch[first :: count]) for first in range(count)]
    tokens = sum(int(rollout.mask.sum()) for rollout in rollouts)
    pieces = [(response_logprobs(lm, rollout), rollout.mask) for rollout in rollouts]
    for loss in losses_of(pieces, tokens):
        loss.backward()
    return torch.cat([p.grad.flatten() for p in lm.parameters()])


def mean_of_means(pieces, tokens):
    return [-logprobs.sum() / mask.sum() / len(pieces) for logprobs, mask in pieces]


def on_two(pieces, tokens):
    """Two processes with half of the pieces each; the framework's average."""
    halves = pieces[::2], pieces[1::2]
    return [loss / 2 for half in halves for loss in piece_losses(half, tokens, processes=2)]


def distance(other):
    return float((other - whole).norm() / whole.norm())


whole = gradient(piece_losses, 1)
gradients = {
    "4 pieces": gradient(piece_losses, 4),
    "8 pieces": gradient(piece_losses, 8),
    "2 processes": gradient(on_two, 8),
    "mean of 8 means": gradient(mean_of_means, 8),
}
for name, found in gradients.items():
    print(f"{name:16} differs from one piece by {distance(found):.0e} of its length")

# %% [markdown]
# `fit_sft` does the same with `micro_batch=`, and with every process that `accelerate launch` starts: all of them know
# the plan of the run, which is a function of the seed, so each takes its share of a step's rows and nobody has to ask
# how many tokens the others have. The tests hold two processes to one: the same parameters up to 1e-5 after three steps,
# under DDP (distributed data parallel: every process holds the whole model) and FSDP2.

# %% [markdown]
# ## Stop and go on
# Runs of hours are killed. With `checkpoint=`, weights, optimizer and the plan's position are written under another name
# and renamed, so that a whole file is there at any moment, and a run that goes on gets the very same numbers. Here a run
# is stopped before its seventh step; the tests do it with `kill -9`, and resume what two processes wrote on one.

# %%
few = examples[:120]
orders = {"batch": 12, "lr": 1e-3, "seed": args.seed, "checkpoint_every": 2}


def stopped(steps):
    for number, step in enumerate(steps):
        if number == 6:
            raise KeyboardInterrupt
        yield step


undisturbed = fit_sft(load_lm("pocket-s"), few, **orders).loss
with tempfile.TemporaryDirectory() as folder:
    orders["checkpoint"] = Path(folder, "run.safetensors")
    try:
        fit_sft(load_lm("pocket-s"), few, **orders, progress=stopped)
    except KeyboardInterrupt:
        print(f"stopped; {orders['checkpoint'].stat().st_size / 1e6:.1f} MB are on disk")
    resumed = fit_sft(load_lm("pocket-s"), few, **orders).loss
print("losses of the run that was stopped and went on are the same to the last bit:",
      resumed == undisturbed)  # fmt: skip

# %% [markdown]
# ## The run
# One cell, on whatever this script was given. `packed` rows hold several conversations that do not see each other;
# AdamW is fused; attention runs through `scaled_dot_product_attention`.

# %%
accelerator = None
if "RANK" in os.environ:  # started by accelerate launch or torchrun
    from accelerate import Accelerator

    accelerator = Accelerator()
if args.out:
    require_empty(args.out)  # now, not after the last step
device = accelerator.device if accelerator else pick_device(args.device, bf16=args.bf16)
lm = load_lm(args.model, device=device)
if args.data == "pocket":
    training = assistant.conversations(assistant.requests(args.examples, args.seed))
    unseen = assistant.conversations(assistant.requests(60, args.seed, held_out=True))
else:
    found = read_conversations(local_file(args.data))
    random.Random(args.seed).shuffle(found)
    unseen, training = found[: len(found) // 20], found[len(found) // 20 :][: args.examples]
length = min(args.packed, lm.context)
training, too_long = render_all(lm, training, length)
unseen, _ = render_all(lm, unseen, length)
print(f"{args.model} on {device}: {len(training)} conversations, {len(too_long)} longer than "
      f"{length} tokens left out; {len(unseen)} held out")  # fmt: skip

# %% [markdown]
# What is switched on, and what it should take. A step that does not fit is refused here, before it runs, with the
# argument to lower.

# %%
apply = partial(lora, targets="[a-z]+_proj", rank=args.rank) if args.method == "lora" else None
foretold = peak_bytes(lm.model.config, apply, batch=args.micro_batch, length=length,
                      bf16=args.bf16, checkpointed=args.checkpointed)  # fmt: skip
lm = lm if apply is None else apply(lm)
if args.checkpointed:
    checkpoint_activations(lm)
if args.compiled:
    compile_layers(lm)
divided = size() if accelerator and accelerator.is_fsdp2 else 1
require_memory(foretold // divided, device,
               "--micro-batch or --packed, or switch --checkpointed on")  # fmt: skip
per_token = flops_per_token(lm, length)
trained, everything = count_parameters(lm)
lm = spread(lm, accelerator) if accelerator else lm
print(f"{trained:,} of {everything:,} parameters are trained; "
      f"{per_token / 1e6:,.0f} MFLOP a token; at most {foretold / 1e6:,.0f} MB")  # fmt: skip

# %%
def answers(count=3):
    """What the model says to a few held-out requests."""
    asked = assistant.requests(count, args.seed, held_out=True)
    prompts = [chat_prompt(lm, request.prompt) for request in asked]
    return [request.prompt for request in asked], complete(lm, prompts, max_new_tokens=24)


settings = {
    "epochs": args.epochs, "batch": args.batch, "micro_batch": args.micro_batch,
    "packed": length, "lr": args.lr, "bf16": args.bf16, "seed": args.seed,
    "held_out": unseen, "evaluate_every": 5,
    "checkpoint": args.checkpoint, "checkpoint_every": 20,
}  # fmt: skip
prompts, before = answers()
clock = StepClock(device)
history = fit_sft(lm, training, **settings,
                  progress=lambda steps: clock(progress(steps, "finetuning")))  # fmt: skip
_, after = answers()
for prompt, first, last in zip(prompts, before, after):
    print(f"{prompt!r}\n  before: {first!r}\n  after:  {last!r}")

# %% [markdown]
# How much of the device that was. The rate is measured on this device, in the precision of the run, right now; steps at
# the beginning warm up and do not count.

# %%
# NBVAL_IGNORE_OUTPUT: every machine has its own speed
tokens = args.epochs * sum(len(example.tokens) for example in training) / len(history.loss)
# nan where a checkpoint held all steps
seconds = sorted(clock.seconds[2:] or clock.seconds or [float("nan")])
speed = tokens / seconds[len(seconds) // 2]
rate = matrix_rate(device, torch.bfloat16 if args.bf16 else torch.float32) * size()
numbers = {"tokens_per_second": speed, "mfu": speed * per_token / rate, "matrix_rate": rate,
           "foretold": foretold}  # fmt: skip
print(f"{speed:,.0f} tokens/s on {size()} process(es) of {rate / 1e9:,.0f} GFLOP/s in all: "
      f"MFU {numbers['mfu']:.0%}")  # fmt: skip
if device.type == "cuda":
    numbers["peak"] = torch.cuda.max_memory_allocated(device)
    print(f"peak memory {numbers['peak'] / 1e9:.2f} GB, foretold {foretold / 1e9:.2f} GB")
else:
    print("peak memory: torch counts it on a GPU alone; there it is printed beside what was "
          "foretold")  # fmt: skip

# %% [markdown]
# ## Real runs
# The same script, at full size. One GPU, several GPUs of one machine, and the same with the model divided:
#
# ```
# python lessons/15_gpu_sft.py --model Qwen/Qwen2.5-1.5B --data chats.jsonl --examples 20000 --lr 1e-5 \
#     --packed 2048 --batch 256 --micro-batch 4 --bf16 --checkpointed --compiled --checkpoint run.safetensors --out tuned
# accelerate launch --config_file lessons/accelerate/ddp.yaml  --num_processes 8 lessons/15_gpu_sft.py ...
# accelerate launch --config_file lessons/accelerate/fsdp2.yaml --num_processes 8 lessons/15_gpu_sft.py ...
# ```
#
# `--method lora --lr 2e-4` trains LoRA. Several nodes, and where other tools take over: `docs/going_further.md`.

# %%
with gathered(lm):  # where processes have divided the weights, each of them holds all inside
    if args.out and rank() == 0 and args.method == "lora":
        save_adapter(lm, args.out)
        export_merged(lm, Path(args.out, "merged"))
    elif args.out and rank() == 0:
        lm.model.save_pretrained(args.out)
        lm.tokenizer.save_pretrained(args.out)
curves = {"loss": history.loss, "held_out_step": history.held_out_step,
          "held_out_loss": history.held_out_loss}  # fmt: skip
if args.record:
    about = {"parameters": everything, "method": args.method}
    record(args.record, device, numbers | about, curves)

# %%
runs = recorded_runs("15_gpu_sft")
figure, panels = pyplot.subplots(1, 1 + bool(runs), figsize=(5 + 4 * bool(runs), 3),
                                 squeeze=False)  # fmt: skip
drawn = [{"title": f"this run: {args.model}", "curves": curves}, *runs[:1]]
for axes, run in zip(panels[0], drawn):
    seen = run["curves"]
    axes.plot(range(1, len(seen["loss"]) + 1), seen["loss"], label="training",
              color=figures.COLORS[5])  # fmt: skip
    axes.plot(seen["held_out_step"], seen["held_out_loss"], "o-", label="held out",
              color=figures.COLORS[1])  # fmt: skip
    axes.set(title=run["title"], xlabel="step", ylabel="nats per response token")
    axes.legend()
show(figure, alt="Training and held-out loss over steps: both fall, the held-out loss from "
     f"{curves['held_out_loss'][0]:.2f} to {curves['held_out_loss'][-1]:.2f}.")
for run in runs:
    print(f"{run['title']}: {run['numbers']}\n  {run['command']}")
if not runs:
    print("Runs on a GPU: not measured yet. benchmarks/gpu/run.sh measures them in nine "
          "minutes.")  # fmt: skip

# %% [markdown]
# ## Recap
# A step of finetuning is 6 operations per parameter and token, 4 where frozen, and attention; MFU says how much of the
# device became learning. Weights, gradients, moments, activations and logits fill the memory, and each has its switch.
# Arithmetic may be in bfloat16, the weights that are added to may not. A loss knows the tokens of the whole batch, so
# the gradient does not depend on pieces or processes. A checkpoint is a whole file at any moment.
#
# ## Try next
# - `--micro-batch 1` and `16`: which one has the higher MFU on your machine, and why is neither free?
# - `--method lora --lr 1e-2`: what does it save here, in bytes and in seconds?
# - Predict the memory of `--model pocket-l --micro-batch 16` first.
#
# ## References
# - Kaplan et al. 2020, *Scaling laws for neural language models*, section 2.1: 6 operations per parameter and token.
# - Chowdhery et al. 2022, *PaLM*, appendix B: MFU.
# - Chen et al. 2016, *Training deep nets with sublinear memory cost*; Micikevicius et al. 2018, *Mixed precision
#   training*.
# - Rajbhandari et al. 2020, *ZeRO*; Zhao et al. 2023, *PyTorch FSDP*.
