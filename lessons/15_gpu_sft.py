# Lesson 15: finetuning on a GPU. jupytext py:percent; runs as a script: python lessons/15_gpu_sft.py --help

# %% [markdown]
# # 15 · Finetuning on a GPU: bytes, FLOPs, processes
#
# So far a step of finetuning took a tenth of a second on a laptop. The same line of code, `fit_sft`, trains a model of
# a billion parameters on a GPU, if you can answer three questions first: does it fit, how much of the device does it
# use, and does it compute the same on eight GPUs as on one? You answer them by hand, check the answers on this machine,
# and start the real run with the same script. *(Beyond the lecture: its finetuning, lessons 03 to 06, at full size.)*
# About 60 minutes; runs in 70 s on two CPU cores, and for as long as you like on GPUs.
#
# **You will need** the loss of lesson 03, the bytes of lesson 05, LoRA from lesson 06. **You will be able to** foretell
# the memory and the speed of a run, read its MFU, keep small updates in bfloat16, split a batch over micro-batches and
# processes without changing its gradient, and stop and go on exactly.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import random
from functools import partial

import torch
from matplotlib import pyplot
from transformers import Qwen2Config

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.finetuning.memory import count_parameters, peak_bytes
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import sft_loss
from ptlearn.finetuning.throughput import flops_per_token
from ptlearn.lm.chat import as_rollout, render_all, response_logprobs
from ptlearn.lm.models import build_model, load_lm
from ptlearn.optimization import gradient_step
from ptlearn.pocket import assistant
from ptlearn.statistics import over_seeds

args = arguments(
    "Finetuning a language model on one GPU or several: memory, MFU, bfloat16, micro-batches, exact resume.",
    model=("pocket-m", "a pocket model, smollm2-135m, a folder or a hub id such as Qwen/Qwen2.5-1.5B"),
    data=("pocket", "conversations: pocket, a file of JSON objects, or a dataset of the hub such as owner/name"),
    examples=(800, "conversations to train on", "at least 40"),
    method=("full", "what is trained", ("full", "lora")),
    rank=(16, "of LoRA", "at least 1"),
    lr=(1e-3, "peak step size of AdamW; full finetuning of a large model wants 1e-5, its LoRA 2e-4", "above 0"),
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
    seeds=(3, "orders of the data in the experiment with bfloat16", "at least 2"),
    seed=(0, "of everything else", "at least 0"),
)
torch.set_num_threads(1)  # the products of a pocket model are small: a second thread would mostly wait for the first

# %% [markdown]
# ## Predict first
# Write down your guesses; you will measure each of them below.
#
# 1. A GPU multiplies matrices at 750 TFLOP/s. **How many tokens per second can it finetune a 1.5B model on, at most?**
# 2. Full finetuning of that model with AdamW, float32 weights and bfloat16 arithmetic, 4 rows of 2,048 tokens. **How many
#    GB? And with LoRA?**
# 3. You store the weights in bfloat16 to save memory, and take steps of 1e-5. **How much of the learning is left?**
# 4. A batch is split into four micro-batches, and you average their four mean losses. **Is that the mean loss?**
#
# ## How much work is a token?
# A matrix of $m$ numbers costs each token $2m$ operations forwards, $2m$ for the gradient of its input, and $2m$ for its
# own gradient, if it is trained: 6 per parameter, 4 where it is frozen. Attention multiplies queries with keys and
# weights with values: over half of a row on average, with the backward pass
# $6 \cdot \text{layers} \cdot \text{width} \cdot T$. **MFU**, model FLOPs utilization, is the share of the device's
# matrix rate that these operations take up.

# %% ex="15.1" points=2 difficulty="easy" minutes=8
def utilization(tokens_per_second, trained, frozen, layers, width, length, rate):
    """MFU of a training run, between 0 and 1.

    trained and frozen, numbers in matrices that are and are not trained; length, tokens of a row; rate, FLOP/s.
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
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        vocab_size=151936, tie_word_embeddings=True,
    ),
    "Qwen2.5-1.5B": Qwen2Config(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
        vocab_size=151936, tie_word_embeddings=True,
    ),
}  # fmt: skip
lora_on_all = partial(lora, targets="[a-z]+_proj", rank=16)
METHODS = {"full": None, "LoRA": lora_on_all}
print(f"{'':13} {'':5} {'trained':>13} {'GFLOP/token':>12} {'tokens/s at most':>17}")
for name, config in SHAPES.items():
    for method, apply in METHODS.items():
        with torch.device("meta"):
            model = build_model(config)
            work = flops_per_token(model if apply is None else apply(model), length=2048)
        trained, _ = count_parameters(config, apply)
        print(f"{name:13} {method:5} {trained:13,} {work / 1e9:12.1f} {1 / utilization(1, work / 6, 0, 0, 0, 0, 750e12):17,.0f}")

# %% [markdown]
# LoRA trains 1 % of the numbers and saves a third of the work, not 99 %: the gradient still has to pass through every
# frozen matrix on its way to the factors below.
#
# ## Does it fit?
# `peak_bytes` runs a whole step on shapes, forward, backward and AdamW, and counts at every operation what lives. On a
# GPU, `torch.cuda.max_memory_allocated` measures the same; the run below prints both.

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
axes.set(title="Peak memory of a step: Qwen2.5-0.5B, 4 rows of 2,048 tokens", xlabel="GB", xlim=(0, 1.15 * max(gigabytes.values())))
axes.invert_yaxis()
show(figure, alt="Bars of the peak memory of four ways to finetune; each switch lowers it, from "
     f"{gigabytes['full, float32']:.0f} to {gigabytes['LoRA, bf16, checkpointed']:.0f} GB.")
words = 4 * 2048 * SHAPES["Qwen2.5-0.5B"].vocab_size
print(f"of which logits and their gradients, about 10 bytes for each of {words / 1e9:.1f} billion: {10 * words / 1e9:.0f} GB")

# %% [markdown]
# With a vocabulary of 152k the largest thing in memory is no weight but the logits: `micro_batch` times `packed` tokens
# at a time have them. Lower `micro_batch` first; switch checkpointing on next (a third more work); then LoRA.
#
# Several GPUs can share what a step holds: FSDP (fully sharded data parallel, ZeRO-3) leaves each of $n$ processes one
# $n$-th of the weights, gradients and optimizer states, and gathers the weights of one layer at a time when it computes.

# %% ex="15.2" points=2 difficulty="medium" minutes=8
def bytes_per_gpu(parameters, trained, processes, layer=0):
    """Bytes of weights, gradients and AdamW's two moments on each GPU under FSDP, and of the layer gathered in bf16.

    All weights, gradients and moments are kept in float32 and shared out; the weights of one `layer`, a number of
    parameters, are gathered whole in bfloat16.
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
    row = "  ".join(f"{n:2} GPUs {bytes_per_gpu(8.03e9, trained, n, layer=0.22e9) / 1e9:6.1f}" for n in (1, 2, 8, 64))
    print(f"{method:5} {row}")

# %% [markdown]
# ## Small updates
# A bfloat16 has 8 significant bits: two neighbouring numbers differ by 0.4 to 0.8 %. An update smaller than half of that
# rounds to nothing, at every step anew. That is why the *arithmetic* is in bfloat16 (autocast) while the *weights* that
# the optimizer adds to stay in float32.

# %% ex="15.3" points=2 difficulty="medium" minutes=8
def lost_share(weights, updates):
    """Share of the updates that do nothing when weights are stored in bfloat16.

    weights and updates (n,) float32: each weight is rounded to bfloat16, and so is its sum with its update.
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
    signs = torch.randint(2, everything.shape, generator=torch.Generator().manual_seed(args.seed)) * 2 - 1
    print(f"steps of {rate:g}: {float(lost_share(everything, rate * signs)):4.0%} of pocket-s's weights stay as they are")

# %% [markdown]
# What that does to learning: the same finetuning, with weights in float32 and with weights rounded to bfloat16 after
# every step. Nothing else differs.

# %%
examples, _ = render_all(lm, assistant.conversations(assistant.requests(240, args.seed)))
held_out, _ = render_all(lm, assistant.conversations(assistant.requests(60, args.seed, held_out=True)))


def finetuned_loss(rate, rounded, seed):
    """Held-out loss after one pass over the examples in an order of its own."""
    lm = load_lm("pocket-s")
    optimizer, order = torch.optim.AdamW(lm.parameters(), lr=rate), random.Random(seed).sample(examples, len(examples))
    for first in range(0, len(order), 32):
        rollout = as_rollout(order[first : first + 32])
        gradient_step(optimizer, [-response_logprobs(lm, rollout).sum() / rollout.mask.sum()])
        for parameter in lm.parameters() if rounded else ():
            parameter.data.copy_(parameter.bfloat16())
    return sft_loss(lm, held_out)


start = sft_loss(lm, held_out)
print(f"held-out loss before: {start:.3f}")
rates, losses = (1e-5, 1e-4, 1e-3), {}
for rate in progress(rates, "finetuning"):
    for rounded in (False, True):
        losses[rate, rounded] = over_seeds([finetuned_loss(rate, rounded, seed) for seed in range(args.seeds)])
    kept = (start - losses[rate, True].mean) / (start - losses[rate, False].mean)
    print(f"steps of {rate:g}: float32 {losses[rate, False]}, bfloat16 {losses[rate, True]}; {kept:.0%} of the learning is left")
