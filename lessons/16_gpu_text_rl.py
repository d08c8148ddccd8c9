# Lesson 16: RL with verifiable rewards on a GPU. jupytext py:percent; runs as a script: python lessons/16_gpu_text_rl.py --help

# %% [markdown]
# # 16 · RL with verifiable rewards, at speed
#
# Lesson 12 taught a pocket model sums from nothing but "right" and "wrong". The systems that do this with billions of
# parameters run the same update, and differ in three places: *sampling* is the largest part of a step, so the sampler is
# a program of its own; that program is *not quite the policy* that learns, which has to be corrected; and prompts that
# teach nothing are *dropped*. You write the correction, the dropping and the weights, check each against an exact
# answer, and start the real run with the same script. *(Beyond the lecture: its RL on text, lessons 12 and 13, at full
# size.)* About 75 minutes; runs in 80 s on two CPU cores, and for as long as you like on GPUs.
#
# **You will need** RLOO and GRPO from lessons 12 and 13, the ratio and the clip of lesson 11, lesson 15's run.
# **You will be able to** say how fast a device can sample at most, correct a sampler that is off, write DAPO's weights,
# and read the curves of a run: pass@1, entropy, length; with `--log` also reward, clip fraction, KL, gap.

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

import copy
import os
import time
from dataclasses import replace
from functools import partial

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import check
from ptlearn.course.recorded import record, recorded_runs
from ptlearn.finetuning.memory import checkpoint_activations, count_parameters, peak_bytes
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import render_all
from ptlearn.lm.devices import pick_device, require_memory
from ptlearn.lm.fast_sampling import FastSampler
from ptlearn.lm.hub_data import local_file
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import encode, sample_text
from ptlearn.lm.vllm_sampling import VLLMSampler
from ptlearn.optimization import score_actions, update
from ptlearn.pocket import assistant, tasks
from ptlearn.processes import rank, size, spread
from ptlearn.rl.enumeration import enumerate_texts, exact_text_gradient
from ptlearn.rl.tasks import gsm8k, pass_at_k, prompt_texts
from ptlearn.rl.text_collection import collect_text, pay, sampled_scores, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs
from ptlearn.statistics import wilson

args = arguments(
    "Reinforcement learning with verifiable rewards on one GPU or several: fast sampling, "
    "corrected; DAPO; exact resume.",
    model=("pocket-m", "a pocket model, smollm2-135m, a folder or a hub id such as "
           "Qwen/Qwen2.5-0.5B-Instruct"),
    data=("arithmetic",
          "problems: arithmetic, or GSM8K from a file or the hub, such as openai/gsm8k:main"),
    held_out=(None, "the file of held-out problems, where data is a file"),
    examples=(64, "worked answers that a pocket model is finetuned on first; 0 for a model "
              "that answers", "at least 0"),
    weights=("dapo", "of the estimator", ("rloo", "grpo", "dapo", "ppo")),
    updates=(8, "of the run", "at least 1"),
    prompts=(8, "different problems per update, over all processes", "at least 2"),
    group=(8, "answers to each", "at least 2"),
    lr=(1e-4, "step size of Adam; full finetuning of a large model wants 1e-6", "above 0"),
    beta=(0.0, "what a nat of KL to the start costs; needs LoRA, whose base is the reference",
          "at least 0"),
    lora=(0, "rank of LoRA on all linear layers; 0 trains everything", "at least 0"),
    new_tokens=(48, "room for an answer", "at least 1"),
    sampler=("auto", "what samples; auto: fast on a GPU, elsewhere text",
             ("auto", "fast", "text", "vllm")),
    micro_batch=(64, "rows per forward pass and process", "at least 1"),
    device=("auto", "cpu, cuda, or auto: a GPU where there is one"),
    bf16=(False, "the learner computes in bfloat16 too; its weights stay in float32"),
    checkpointed=(False, "keep the input of every layer alone, and compute the rest again"),
    checkpoint=(None, "a file to save the run to, and to go on from"),
    log=(None, "a folder of curves for TensorBoard"),
    record=(None, "a JSON file for the figures and curves of this run"),
    quiz=(60, "held-out problems, eight answers each", "at least 20"),
    seeds=(3, "learners in the comparison of weights", "at least 2"),
    seed=(0, "of everything that is sampled", "at least 0"),
)  # fmt: skip
# the products of a pocket model are small: a second thread would mostly wait for the first
torch.set_num_threads(1)

# %% [markdown]
# ## Predict first
# Write down your guesses; you will compute or measure each of them below.
#
# 1. A model of 0.5B parameters in bfloat16 writes 256 answers of 256 tokens at a time, on a GPU that reads 3.35 TB/s.
#    **How many tokens per second at most? And if it writes one answer at a time?**
# 2. Sampler and learner have the same weights, one rounded to bfloat16. **By how many nats do they differ per token?**
# 3. You sample at temperature 0.7 and learn as if it had been 1. **Is the gradient wrong in length, or in direction?**
# 4. Eight answers to each of eight sums. **From how many of the eight sums does a group baseline learn anything, when half
#    of the answers are right? And when nine in ten are?**
#
# ## What a token costs
# To write one token a model reads all its weights, and the keys and values of everything before it. A GPU multiplies
# hundreds of numbers in the time in which it reads one, so up to hundreds of rows reading is what counts, and a large
# batch reads the weights once for all its rows. That is the whole secret of fast samplers: large batches, nothing read
# twice, and no waiting between two steps.

# %% ex="16.1" title="The limit of sampling" points=2 difficulty="medium" minutes=10
def sampling_limit(rows, prompt, new, weight_bytes, cache_bytes, bandwidth):
    """Tokens per second that a device can sample at most, if it does nothing but read.

    Each of `new` steps reads all weights once and, for every one of `rows` texts, cache_bytes
    for each token that it has so far: `prompt` of them at the first step, one more at each
    that follows. bandwidth, bytes per second.
    """
    # BEGIN SOLUTION
    cached = sum(rows * (prompt + step) for step in range(new))
    return rows * new * bandwidth / (new * weight_bytes + cached * cache_bytes)
    # END SOLUTION

# %% ex="16.1" role="check"
sampling_limit = check("16.1", sampling_limit)

# %% [markdown] ex="16.1" role="hints"
# <details><summary>Hint 1</summary>How many bytes are read in all steps together? The weights, `new` times; and the cache
# of each row, which grows by a token at every step.</details>
# <details><summary>Hint 2</summary>Tokens over seconds; seconds are bytes over bandwidth.</details>

# %%
# Qwen2.5-0.5B: K and V of 24 layers, 2 heads of 64, bfloat16
weight_bytes, cache_bytes = 2 * 494e6, 2 * 24 * 2 * 64 * 2
for rows in (1, 16, 256, 1024):
    limit = sampling_limit(rows, 64, 256, weight_bytes, cache_bytes, 3.35e12)
    print(f"{rows:5} rows: at most {limit:9,.0f} tokens/s")

# %% [markdown]
# `FastSampler` is such a program, and small: its own copy of the weights (on a GPU in bfloat16), LoRA merged in; keys
# and values in tensors of fixed size; on a GPU, one step recorded as a CUDA graph and replayed without asking the host.
# It is called as `sample_text` is, and takes the learner's weights over at each call. `VLLMSampler` is the same call to
# another program.
#
# ## A sampler that is not the learner
# Rounding makes the two slightly different policies. Weighing each text by $\pi(\tau)/\mu(\tau)$ would repair the
# expected gradient; the ratio of each token, $\pi(a_t \mid s_t)/\mu(a_t \mid s_t)$, does so up to what the prefixes
# before it differ by, with far less variance, and a cap keeps that in bounds. (Lesson 11, where $\mu$ was another
# policy on purpose.)

# %% ex="16.2" title="Truncated weights" points=2 difficulty="easy" minutes=8
def truncated_weights(advantages, logprobs, sampled_logprobs, mask, cap=2.0):
    """Advantages, corrected for a sampler that is not quite the learner: times
    min(p_learner / p_sampler, cap).

    advantages (B, T); logprobs, of the learner, with gradient, and sampled_logprobs (B, T)
    nats; mask (B, T) bool. Returns weights (B, T) without gradient, 0 where mask is False.
    """
    # BEGIN SOLUTION
    difference = torch.where(mask, logprobs.detach() - sampled_logprobs, 0.0)
    return torch.where(mask, difference.exp().clamp(max=cap) * advantages, 0.0)
    # END SOLUTION

# %% ex="16.2" role="check"
truncated_weights = check("16.2", truncated_weights)

# %% [markdown] ex="16.2" role="hints"
# <details><summary>Hint 1</summary>The learner stands above, the sampler below: a token that the sampler drew too often
# counts less.</details>
# <details><summary>Hint 2</summary>`detach()` the log-probabilities; `clamp(max=cap)` after `exp()`.</details>

# %% [markdown]
# A toy model whose texts can all be listed gives the exact gradient, and the exact mean of your estimate under any
# sampler. Texts of one token, so that the ratio per token is that of the whole text.

# %%
toy = toy_lm(["end", "a", "b", "c", "d", "e"], seed=args.seed)
every, chance = enumerate_texts(toy, ["a b"], max_new_tokens=1)
every = pay(every, [float(index % 3 == 1) for index in range(len(chance))])
exact = exact_text_gradient(toy, every)


def mean_estimate(temperature, cap):
    """The expected gradient of a sampler at a temperature: every text, as often as that
    sampler says it.
    """
    sampled = action_logprobs(toy, every, temperature=temperature).detach()
    logprobs = action_logprobs(toy, every)
    weights = pg.episode_returns(every.rewards, every.mask)[:, None].expand_as(logprobs)
    if cap is not None:
        weights = truncated_weights(weights, logprobs, sampled, every.mask, cap)
    often = sampled.sum(1).exp()[:, None]
    (-pg.policy_gradient_loss(logprobs, often * weights, every.mask, normalizer=1)).backward()
    gradient = torch.cat([p.grad.flatten() for p in toy.parameters()])
    toy.zero_grad()
    return gradient


for temperature in (1.0, 0.7):
    for cap in (None, 1.2, float("inf")):
        found = mean_estimate(temperature, cap)
        cosine = torch.cosine_similarity(found, exact, dim=0).clamp(-1, 1)
        angle = float(torch.rad2deg(torch.acos(cosine)))
        bias = float((found - exact).norm() / exact.norm())
        name = "uncorrected" if cap is None else f"cap {cap:g}"
        print(f"sampled at {temperature}, {name:12} bias {bias:6.1%}, "
              f"{angle:4.1f} degrees off")  # fmt: skip

# %% [markdown]
# **What you saw.** Sampled colder than it learns, the gradient is wrong in length *and* in direction: the difference is
# three quarters as long as the gradient itself, and the angle 25 degrees. For texts of one token the ratio repairs it to
# the last digit. A cap of 1.2 keeps some of the bias, and bounds how much a single token can weigh; at equal
# temperatures neither has anything to do.
#
# Now the gap that nobody wants, on a real answer: weights rounded to bfloat16 in the sampler, float32 in the learner.

# %%
task = tasks.arithmetic(largest=50)
start = load_lm("pocket-m")
worked = assistant.conversations(task.train[:64])
fit_sft(start, render_all(start, worked)[0], batch=16, lr=1e-3, seed=args.seed)
precisions = {
    "float32": FastSampler(dtype=torch.float32),
    "bfloat16": FastSampler(dtype=torch.bfloat16),
}
for name, sampler in precisions.items():
    drawn = torch.Generator().manual_seed(args.seed)
    rollout, _ = collect_text(task, start, prompts=8, group=8, sample=sampler, generator=drawn)
    logprobs, _ = score_actions(start, rollout)
    gap = (logprobs - rollout.logprobs)[rollout.mask]
    print(f"sampler in {name:8}: |gap| {float(gap.abs().mean()):.4f} nats per token on "
          f"average, {float(gap.abs().max()):.3f} at most; ratio of a whole answer "
          f"{float((gap.sum() / len(rollout.mask)).exp()):.3f}")  # fmt: skip

# %% [markdown]
# Five thousandths of a nat on average, and fifty times as much for single tokens. In another model it may be more. So
# the gap is logged in every run (`sampler_gap`), and every weight below carries the ratio.
#
# ## Which prompts teach?
# In a group of equal rewards every advantage is 0. DAPO samples on until all its groups have different ones (dynamic
# sampling); here those of equal rewards are dropped, and the sum is divided by the tokens of the others.

# %% ex="16.3" title="Groups that teach" points=2 difficulty="easy" minutes=8
def teaches(rewards, groups):
    """Which rows a group baseline learns from, (B,) bool: those whose group has rewards that
    differ.

    rewards (B,) float; groups (B,) int, the number of each row's group, in any order.
    """
    # BEGIN SOLUTION
    kept = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        members = groups == group
        kept[members] = rewards[members].max() > rewards[members].min()
    return kept
    # END SOLUTION

# %% ex="16.3" role="check"
teaches = check("16.3", teaches)

# %% [markdown] ex="16.3" role="hints"
# <details><summary>Hint 1</summary>It is the group that teaches, not the row: a row that equals its group's mean
# stays.</details>
# <details><summary>Hint 2</summary>For each of `groups.unique()`: does the largest reward differ from the
# smallest?</details>

# %%
print("share of groups of 8 whose rewards differ, if each answer is right with probability p: "
      "1 - p^8 - (1 - p)^8")  # fmt: skip
for p in (0.05, 0.5, 0.9, 0.99):
    generator = torch.Generator().manual_seed(args.seed)
    drawn = torch.bernoulli(torch.full((500, 8), p), generator=generator)
    seen = teaches(drawn.flatten(), torch.arange(500).repeat_interleave(8)).float().mean()
    print(f"p = {p:4}: {1 - p**8 - (1 - p) ** 8:.2f}, drawn {float(seen):.2f}")

# %% [markdown]
# ## The weights
# DAPO in one function: advantages standardized within groups, the ratio of each token, and PPO's clip with more room above
# than below ("clip-higher", so that an unlikely token may grow). The ratio is taken to the *sampler's* log-probabilities:
# it corrects for the sampler and for the epochs at once.

# %% ex="16.4" title="DAPO's weights" points=4 difficulty="hard" minutes=15
def dapo_weights(rewards, groups, logprobs, sampled_logprobs, mask,
                 epsilon=0.2, epsilon_high=0.28):
    """Ratio times standardized group advantage, and 0 where the ratio has moved past the clip
    in its favour: (B, T).

    rewards (B,); groups (B,) int; logprobs, of the learner, and sampled_logprobs (B, T) nats;
    mask (B, T) bool. The clip is at 1 + epsilon_high where the advantage is positive, at
    1 - epsilon where it is negative. No gradient; 0 in a group of equal rewards and where mask
    is False. An advantage is (r - mean) / (std + 1e-6), with the unbiased std.
    """
    # BEGIN SOLUTION
    advantages = pg.standardized(rewards, groups)[:, None].expand_as(mask)
    ratios = pg.step_ratio(logprobs, sampled_logprobs, mask)
    weights = pg.clipped_weights(
        ratios, advantages, epsilon=epsilon, epsilon_high=epsilon_high
    )
    return torch.where(mask, weights, 0.0)
    # END SOLUTION

# %% ex="16.4" role="check"
dapo_weights = check("16.4", dapo_weights)

# %% [markdown] ex="16.4" role="hints"
# <details><summary>Hint 1</summary>Three things that the course has built: `pg.standardized`, `pg.step_ratio`,
# `pg.clipped_weights`.</details>
# <details><summary>Hint 2</summary>`clipped_weights(ratios, advantages, epsilon=..., epsilon_high=...)` wants both (B, T):
# `advantages[:, None].expand_as(mask)`.</details>

# %% [markdown]
# Four estimators as four functions for one `update`; nothing else in the loop knows which of them it is. (`ppo` has the
# advantages of `grpo` here.)

# %%
def grouped(rollout):
    """The return of each row and the number of its prompt."""
    returns = pg.episode_returns(rollout.rewards, rollout.mask)
    return returns, pg.prompt_groups(rollout.observations, rollout.mask)


def rloo(rollout, values, bootstrap, logprobs):
    returns, groups = grouped(rollout)
    advantages = returns - pg.leave_one_out(returns, groups=groups)
    advantages = advantages[:, None].expand_as(logprobs)
    return truncated_weights(advantages, logprobs, rollout.logprobs, rollout.mask)


def grpo(rollout, values, bootstrap, logprobs):
    advantages = pg.standardized(*grouped(rollout))[:, None].expand_as(logprobs)
    return truncated_weights(advantages, logprobs, rollout.logprobs, rollout.mask)


def dapo(rollout, values, bootstrap, logprobs):
    return dapo_weights(*grouped(rollout), logprobs, rollout.logprobs, rollout.mask)


def ppo(rollout, values, bootstrap, logprobs):
    return dapo_weights(*grouped(rollout), logprobs, rollout.logprobs, rollout.mask,
                        epsilon_high=0.2)  # fmt: skip


def tokens_that_teach(rollout):
    return rollout.mask[teaches(*grouped(rollout))].sum().clamp(min=1)


ESTIMATORS = {
    "rloo": (rloo, {}),
    "grpo": (grpo, {"normalizer": lambda rollout: rollout.mask.sum()}),
    "dapo": (dapo, {"normalizer": tokens_that_teach, "epochs": 2}),
    "ppo": (ppo, {"normalizer": lambda rollout: rollout.mask.sum(), "epochs": 2}),
}

# %% [markdown]
# The same start, the same budget of answers, three seeds each; `dapo` and `ppo` make two updates of each batch. What is
# reported is pass@1 on sums that nobody trained on, over their items and over the learners.

# %%
def solved(lm, about, samples=2, sample=sample_text):
    """Rewards of sampled answers to held-out problems, (problems, samples)."""
    return sampled_scores(about, lm, about.held_out[: args.quiz], samples=samples,
                          seed=args.seed + 1, sample=sample)  # fmt: skip


before = float(solved(start, task).mean())
print(f"before: pass@1 {before:.2f}")
for name, (weigh, options) in progress(ESTIMATORS.items(), "estimators"):
    scores, clipped = [], []
    for seed in range(args.seeds):
        lm = copy.deepcopy(start)
        collect = text_collector(task, prompts=8, group=4)
        seen = train_policy(lm, collect, weigh, updates=4, lr=1e-4, clip_norm=1.0, seed=seed,
                            **options)  # fmt: skip
        scores.append(float(solved(lm, task).mean()))
        clipped.append(sum(seen.clip_fraction) / len(seen.clip_fraction))
    print(f"{name:5} pass@1 {' '.join(f'{score:.2f}' for score in scores)} (one number a "
          f"seed), clipped {sum(clipped) / len(clipped):.1%} of the tokens")  # fmt: skip

# %% [markdown]
# With two epochs of each batch (`dapo`, `ppo`) every seed ends above every seed with one (`rloo`, `grpo`); within the
# pairs four updates tell nothing apart. What a clip and a dropped group are worth shows where several updates are made
# of each batch, and where most prompts are solved or hopeless.
#
# ## The run
# Where the time of a step goes decides what is worth making faster, so it is measured first.

# %%
SAMPLERS = {"fast": FastSampler, "text": lambda: sample_text, "vllm": VLLMSampler}
accelerator = None
if "RANK" in os.environ:  # started by accelerate launch or torchrun
    from accelerate import Accelerator

    accelerator = Accelerator()
device = accelerator.device if accelerator else pick_device(args.device, bf16=args.bf16)
lm = load_lm(args.model, device=device)
lm.bf16 = args.bf16
if args.data == "arithmetic":
    problems = replace(tasks.arithmetic(largest=50), max_new_tokens=args.new_tokens)
else:
    held_out_file = args.held_out or local_file(args.data, "test")
    problems = gsm8k(local_file(args.data), held_out_file, max_new_tokens=args.new_tokens)
if args.model.startswith("pocket-") and args.examples:
    shown = assistant.conversations(problems.train[: args.examples])
    fit_sft(lm, render_all(lm, shown)[0], batch=16, lr=1e-3, seed=args.seed)
method = partial(lora, targets="[a-z]+_proj", rank=args.lora) if args.lora else None
asked = encode(lm, prompt_texts(lm, problems, problems.train[:64]))
longest = max(map(len, asked)) + args.new_tokens
foretold = peak_bytes(lm.model.config, method, batch=args.micro_batch, length=longest,
                      bf16=args.bf16, checkpointed=args.checkpointed)  # fmt: skip
divided = size() if accelerator and accelerator.is_fsdp2 else 1
require_memory(foretold // divided, device,
               "--micro-batch or --new-tokens, or switch --checkpointed on")  # fmt: skip
lm = method(lm) if method else lm
if args.checkpointed:
    checkpoint_activations(lm)
lm = spread(lm, accelerator) if accelerator else lm
# what stays in float32 goes through a GPU's TF32 units
torch.set_float32_matmul_precision("high")
automatic = {"cuda": "fast"}.get(device.type, "text")
sample = SAMPLERS[automatic if args.sampler == "auto" else args.sampler]()
collect = text_collector(problems, prompts=args.prompts, group=args.group, sample=sample)
print(f"{args.model} on {device}: {count_parameters(lm)[0]:,} parameters learn, "
      f"{size()} process(es); a step on {args.micro_batch} rows of {longest} tokens "
      f"holds at most {foretold / 1e6:,.0f} MB")  # fmt: skip

# %%
# NBVAL_IGNORE_OUTPUT: every machine has its own speed
def clock():
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def step_split(lm):
    """Seconds of one step: sampling with the verifier, scoring, update.

    Changes nothing: the update has a rate of 0.
    """
    moments = [clock()]
    rollout, _ = collect(lm, torch.Generator().manual_seed(args.seed))
    moments.append(clock())
    logprobs, _ = score_actions(lm, rollout, args.micro_batch)
    moments.append(clock())
    optimizer = torch.optim.Adam([p for p in lm.parameters() if p.requires_grad], lr=0.0)
    weights = rloo(rollout, None, None, logprobs)
    update(lm, optimizer, rollout, weights, micro_batch=args.micro_batch)
    moments.append(clock())
    spent = torch.tensor(moments, dtype=torch.float64).diff().tolist()
    parts = dict(zip(("sampling", "scoring", "update"), spent))
    return parts, int(rollout.mask.sum()) / parts["sampling"]


step_split(lm)  # the first one compiles and allocates
split, sampled_per_second = step_split(lm)
whole = sum(split.values())
print(", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in split.items()),
      f"of {whole:.2f} s; {sampled_per_second:,.0f} tokens/s sampled")  # fmt: skip

# %% [markdown]
# Every update is logged; with `--log runs/one`, `tensorboard --logdir runs` draws the curves while they grow.

# %%
LOGGED = ("returns", "entropy", "clip_fraction", "length", "sampler_gap", "gradient_norm",
          "kl")  # fmt: skip


def logger(folder):
    """A function that `train_policy` asks after each update whether to stop; it writes down
    what is new, and goes on.
    """
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def until(policy, history):
        for name in LOGGED:
            if values := getattr(history, name):
                writer.add_scalar(name, values[-1], len(values))
        writer.flush()
        return False

    return until


def pass_at(rewards, k):
    """The mean over problems of pass@k, from all samples of each."""
    shares = [pass_at_k(int(row.sum()), len(row), k) for row in rewards == problems.high]
    return wilson(sum(shares) / len(shares), len(shares))


weigh, options = ESTIMATORS[args.weights]
first = solved(lm, problems, 8, sample)
history = train_policy(
    lm, collect, weigh, updates=args.updates, lr=args.lr, clip_norm=1.0, seed=args.seed,
    micro_batch=args.micro_batch,
    # a sampler in bfloat16 may be off by what rounding does, not by more
    atol=None if device.type == "cpu" else 1.0,
    reference=lm if args.lora else None, beta=args.beta,
    checkpoint=args.checkpoint, checkpoint_every=5,
    evaluate=lambda lm: float(solved(lm, problems, 1, sample).mean()),
    evaluate_every=max(1, args.updates // 4),
    # one process writes for all
    until=logger(args.log) if args.log and rank() == 0 else None, **options,
)  # fmt: skip
last = solved(lm, problems, 8, sample)
for k in (1, 4, 8):
    print(f"pass@{k}: {pass_at(first, k)} -> {pass_at(last, k)}")
print(f"entropy {history.entropy[0]:.2f} -> {history.entropy[-1]:.2f} nats a token; "
      f"length {history.length[0]:.1f} -> {history.length[-1]:.1f} tokens; "
      f"gap to the sampler {max(history.sampler_gap):.4f} nats at most")  # fmt: skip

# %% [markdown]
# pass@1 rises further than pass@8: a part of what RL does here is to say more often what the model could say already.
# Watch the entropy beside it: when it reaches 0, nothing is explored any more, and clip-higher is one remedy.
#
# ## Real runs
#
# ```
# python lessons/16_gpu_text_rl.py --model Qwen/Qwen2.5-0.5B-Instruct --data openai/gsm8k:main --examples 0 \
#     --new-tokens 256 --prompts 32 --group 8 --updates 200 --lr 1e-6 --micro-batch 16 \
#     --checkpoint run.safetensors --log runs/one
# accelerate launch --config_file lessons/accelerate/ddp.yaml --num_processes 8 lessons/16_gpu_text_rl.py ...
# ```
#
# `--lora 16 --beta 0.01 --lr 1e-4` learns LoRA and measures KL to its base; `--sampler vllm` samples with vLLM. Groups
# of one prompt stay on one process, and what a row says does not depend on how many there are: two processes take the
# steps of one, which the tests hold to 1e-5.

# %%
curves = {name: getattr(history, name) for name in (*LOGGED, "held_out_update", "held_out")}
if args.record:
    numbers = {
        "sampled_per_second": sampled_per_second, "split": split,
        "weights": args.weights, "model": args.model,
        **{f"pass@{k} {when}": pass_at(rewards, k)[0] for k in (1, 8)
           for when, rewards in (("before", first), ("after", last))},
    }  # fmt: skip
    record(args.record, device, numbers, curves)
runs = [{"title": f"this run: {args.model}, {args.weights}", "curves": curves},
        *recorded_runs("16_gpu_text_rl")]  # fmt: skip
figure, panels = pyplot.subplots(1, 3, figsize=(9, 2.8))
for index, run in enumerate(runs):
    seen, color = run["curves"], figures.COLORS[index % len(figures.COLORS)]
    panels[0].plot(seen["held_out_update"], seen["held_out"], "o-", color=color,
                   label=run["title"])  # fmt: skip
    panels[1].plot(range(1, len(seen["entropy"]) + 1), seen["entropy"], color=color)
    panels[2].plot(range(1, len(seen["length"]) + 1), seen["length"], color=color)
units = {"held-out pass@1": "share", "entropy": "nats per token", "length": "tokens"}
for axes, (title, unit) in zip(panels, units.items()):
    axes.set(title=title, xlabel="update", ylabel=unit)
panels[0].legend(fontsize=7)
figure.tight_layout()
show(figure, alt=f"Held-out pass@1 goes from {history.held_out[0]:.2f} to "
     f"{history.held_out[-1]:.2f} over the updates of this run, while the entropy goes from "
     f"{history.entropy[0]:.2f} to {history.entropy[-1]:.2f} nats; beside it the length of "
     "answers.")  # fmt: skip
for run in runs[1:]:
    print(f"{run['title']}: {run['numbers']}\n  {run['command']}")
if len(runs) == 1:
    print("Runs on a GPU: not measured yet. benchmarks/gpu/run.sh measures them in nine "
          "minutes.")  # fmt: skip

# %% [markdown]
# ## Recap
# Sampling reads weights and cache, so large batches are fast and the limit can be written down. A sampler apart from
# the learner is another policy: record what *it* thought, correct by the ratio, cut the ratio off. Groups of equal
# rewards teach nothing. RLOO, GRPO, DAPO and PPO are weights in one update. pass@k beside pass@1, and entropy beside
# reward, say whether a model learned or only made up its mind.
#
# ## Try next
# - `--weights ppo --updates 40 --lr 3e-4 --log runs/ppo`: at which clip fraction does the entropy collapse?
# - Sample at a temperature of 0.5 (`text_collector(..., temperature=0.5)`, and `atol=float("inf")` for `train_policy`,
#   which would refuse such a sampler) with and without the truncated ratio.
# - A verifier of your own: a `Task` is problems, each with a function from text to reward.
#
# ## References
# - Shao et al. 2024, *DeepSeekMath* (GRPO); Ahmadian et al. 2024, *Back to basics* (RLOO); Yu et al. 2025, *DAPO*.
# - Yao et al. 2025, *Your efficient RL framework secretly brings you off-policy RL training*; Ionides 2008, *Truncated
#   importance sampling*.
# - Kwon et al. 2023, *PagedAttention* (vLLM); Pope et al. 2022, *Efficiently scaling transformer inference*.
# - Cobbe et al. 2021, *GSM8K*; Yue et al. 2025, *Does RL really incentivize reasoning capacity beyond the base model?*
