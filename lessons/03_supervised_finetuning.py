# Lesson 03: supervised finetuning. jupytext py:percent; as a script: python lessons/03_supervised_finetuning.py --help

# %% [markdown]
# # 03 · Supervised finetuning: from a text that goes on to an assistant that answers
#
# A base model continues a question with more questions. Show it a few hundred prompts *with good responses*, raise the
# likelihood of the responses, and it answers. In this lesson you write all that it takes: the chat format, the mask of
# what is trained, the loss, packing, the step, the learning rate, the loop that stops at the best. Then you measure
# what finetuning gives, what it costs, and the lecture's warning: data that looks like a benchmark does not make an
# assistant. *(Lecture: "Supervised finetuning", "Idea 1: use existing NLP benchmarks", "distribution shift"; claims
# C08–C10.)* About 150 minutes, 125 of them for the exercises; runs in 80 s on two CPU cores.
#
# **You will need** lesson 01: a base model continues a question instead of answering it. **You will be able to** turn
# a conversation into tokens and a mask, write a finetuning loop that gives what a library's gives, read learning and
# held-out curves, say what finetuning forgets and which data helps which test, and test a batch for bugs that raise no
# error.
#
# To turn a knob in a notebook, change a default in `arguments(...)` below and run all cells again.

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

import copy
import math
import random
from collections import Counter
from functools import partial

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.course.lab import mystery_runs
from ptlearn.course.predictions import predict
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import (
    Example,
    as_packed_rollout,
    as_rollout,
    batches_by_length,
    chat_prompt,
    pack,
    render,
    render_all,
)  # fmt: skip
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import exact_match
from ptlearn.lm.text import complete, encode
from ptlearn.pocket import assistant, benchmarks, instruction, relations
from ptlearn.pocket.verifiers import mentions
from ptlearn.policy_gradient import policy_gradient_loss
from ptlearn.rollout import action_logprobs, pad_and_stack
from ptlearn.statistics import accuracy

args = arguments(
    "Supervised finetuning: format, mask, loss, packing, loop; which data makes an assistant.",
    model=("pocket-m", "the language model"),
    smaller=("pocket-s", "the model of the curves and of the lab"),
    examples=(320, "conversations that a model is finetuned on", "at least 20"),
    batch=(2, "conversations per step", "at least 1"),
    lr=(7e-4, "peak learning rate", "above 0"),
    each=(5, "held-out requests of each use case that training is stopped by", "at least 1"),
    count=(120, "test items of inference, and of HANS", "at least 2"),
    seed=(0, "of everything that is drawn here", "at least 0"),
)
torch.set_num_threads(1)  # the products are small: a second thread would mostly wait
lm = load_lm(args.model)
end = lm.tokenizer.eos_token_id
print(f"{args.model}: a base model with a context of {lm.context} tokens")

# %% [markdown]
# ## Predict first
# Type over the dots before you run anything; you will measure each of them below.
#
# 1. Lesson 01 asked the base model for 100 capitals and got next to no answers. You finetune it on 320 requests of all
#    kinds, ten to twenty of them for a capital. **How many of the 100 will it answer then?**
# 2. With **20 examples instead of 320**, read sixteen times, **what part of the score on users' requests is left?**
# 3. In each example you can train on the response alone, or on the prompt as well. **By how much does the loss on
#    held-out responses fall when the prompts are left out?** (It is about 0.7 nats per token.)
# 4. Finetuned on 320 requests, **by how many percent does the perplexity on ordinary text rise?**
# 5. One model learns from 320 benchmark items (inference, questions, sentiment). **How does it score on what users
#    ask, from 0 to 1?** Where the assistant has about one half.
# 6. The same model on a test of inference where the usual cues say nothing: **what share is right?** Guessing has 0.5.

# %%
guesses = predict(
    capitals=...,  # of a hundred
    score_left_with_20_examples=...,  # a share of the score with 320
    nats_saved_by_the_mask=...,  # nats per response token
    perplexity_rises_by_percent=...,  # percent
    benchmarks_on_what_users_ask=...,  # from 0 to 1
    inference_without_cues=...,  # a share
)

# %% [markdown]
# ## The chat format
# A model reads one sequence of tokens. So a conversation is written as a text, by a **template**:

# %%
talk = [{"role": "user", "content": "What is the capital of Kenya?"},
        {"role": "assistant", "content": "The capital of Kenya is Nairobi."}]  # fmt: skip
print(lm.tokenizer.apply_chat_template(talk, tokenize=False))

# %% [markdown]
# Nothing here is a law: chat models differ in their templates, and a model answers well in the one it was finetuned
# in. `<|endoftext|>` stands at the beginning and, more important, at the **end of each response**: it is how the model
# says that it has finished. So it is a token that the assistant says, and one that must be learned.
#
# Which tokens does the assistant say? When a user writes, the text up to and with `Assistant:` is already there. What
# the model has to produce is the rest: the space, the words, the end.

# %% ex="3.1" title="A conversation and its mask" points=2 minutes=12 difficulty="easy"
def build(messages, encode, begin, end):
    """(tokens, mask) of a conversation: lists of one length, True on what the assistant says.

    messages, dicts with the role "user" or "assistant" and the content; encode(text) -> list
    of tokens; begin and end, tokens. A user's message is written "User: ..." with a line
    break, an assistant's "Assistant: ..." and the token `end`; before all stands `begin`.
    """
    # BEGIN SOLUTION
    tokens, mask = [begin], [False]
    for message in messages:
        if message["role"] == "user":
            pieces = [(encode(f"User: {message['content']}\n"), False)]
        else:
            response = encode(f" {message['content']}") + [end]
            pieces = [(encode("Assistant:"), False), (response, True)]
        for ids, said in pieces:
            tokens += ids
            mask += [said] * len(ids)
    return tokens, mask
    # END SOLUTION

# %% ex="3.1" role="check"
build = check("3.1", build)

# %% [markdown] ex="3.1" role="hints"
# <details><summary>Hint 1</summary>Encode piece by piece, and note for each piece whether the assistant says it; then
# both lists grow together.</details>
# <details><summary>Hint 2</summary>An assistant's turn is two pieces: "Assistant:", which the template writes, and the
# space, the content and the end token, which the model does.</details>

# %% [markdown]
# Hold it against the package's `render`, which goes through the template of the tokenizer, on two exchanges in a row.

# %%
longer = [{"role": "user", "content": "Hello, I am Anna."},
          {"role": "assistant", "content": "Good morning, Anna."}, *talk]  # fmt: skip
def tokens_of(text):
    return encode(lm, [text], bos=False)[0]


tokens, mask = build(longer, tokens_of, lm.document_start, end)
alike = (tokens, mask) == tuple(render(lm, longer))
print(f"{len(tokens)} tokens, {sum(mask)} said by the assistant; as render has it: {alike}")

# %%
show(figures.token_strip([lm.tokenizer.decode([token]) for token in tokens], mask),
     alt="Two exchanges as tokens. Blue and underlined, and so trained: the two responses "
     "with the space before and the end token behind them. Grey: all the rest.")  # fmt: skip

# %% [markdown]
# **What you saw.** One sequence, and a mask of the same length. In the terms of the later lessons: at each blue token
# the model *acts*, and the grey ones are the world's.

# %% [markdown]
# ## The loss
# Finetuning makes the responses likelier, each token given everything before it:
#
# $$\mathcal L(\theta) = -\frac{1}{N} \sum_{i} \sum_{t:\, \text{token } x^i_t \text{ is said by the assistant}}
#   \log \pi_\theta(x^i_t \mid x^i_{<t})$$
#
# with $N$ the number of such tokens in the whole batch. Mind the **shift**: the logits at position $t$ are about the
# token at $t + 1$.

# %% ex="3.2" title="The loss on responses" points=2 minutes=12 difficulty="medium"
def response_loss(logits, tokens, mask):
    """Mean of -log p over the response tokens of a batch, in nats, as a scalar tensor.

    logits (B, T, V), at position t about the token at t + 1; tokens (B, T) int; mask (B, T)
    bool, True on the tokens of responses. The first token of a row has nothing before it and
    is never a response's. Beside the responses the logits may hold anything, even −inf.
    """
    # BEGIN SOLUTION
    logprobs = logits[:, :-1].log_softmax(-1)
    chosen = logprobs.gather(-1, tokens[:, 1:, None])[..., 0]
    said = mask[:, 1:]
    return -torch.where(said, chosen, 0.0).sum() / said.sum()
    # END SOLUTION

# %% ex="3.2" role="check"
response_loss = check("3.2", response_loss)

# %% [markdown] ex="3.2" role="hints"
# <details><summary>Hint 1</summary>Drop the last position of the logits and the first of tokens and mask: then what
# stands at the same place belongs together.</details>
# <details><summary>Hint 2</summary>`logprobs.gather(-1, targets[..., None])[..., 0]` picks one number per position.
# Sum over the masked ones, `torch.where(said, chosen, 0.0)`, as 0 times −inf is not a number; divide by their number
# in the batch.</details>

# %% [markdown]
# Three ways to the same number, on a batch of requests padded on the right: yours; the loss that `transformers`
# computes from **labels** (it shifts them itself, and leaves out a label of −100); and `policy_gradient_loss`, the
# one loss of this course, with **weights 1**. There the token is the action, and the mask says where the model acted.

# %%
examples = instruction.training_examples(lm, "requests", args.examples, args.seed)
few = examples[:12]
tokens, _ = pad_and_stack([example.tokens for example in few], value=end)
mask, _ = pad_and_stack([example.mask for example in few], value=False)
labels = torch.where(mask, tokens, -100)
rollout = as_rollout(few, padding=end)
with torch.no_grad():
    ours = response_loss(lm(tokens), tokens, mask)
    labelled = lm.model(input_ids=tokens, labels=labels).loss
    logprobs = action_logprobs(lm, rollout)
    ones, count = torch.ones_like(logprobs), rollout.mask.sum()
    estimator = policy_gradient_loss(logprobs, ones, rollout.mask, normalizer=count)
print(f"by hand {ours:.4f}, labels {labelled:.4f}, weights 1 {estimator:.4f} nats per token")

# %% [markdown]
# **What you saw.** Supervised finetuning is imitation: a policy gradient in which every action of somebody else counts
# as good. Lessons 08 to 12 will change nothing but the weights.
#
# One trap is in these lines already. Padding is written with a token, here the end token itself. Whoever finds padding
# by *comparing with that token* takes the true ends out of the loss, too. The mask comes from lengths.

# %% [markdown]
# ## Padding and packing
# Examples differ in length. Padded to the longest one, much of the batch is empty. **Packed**, several examples share
# a row; then they must not see each other, and each has to count its positions from 0. Who sees whom is settled in the
# attention heads (lesson 00 builds one): at each position a head mixes what stands at the positions that it may look
# at, and the **attention mask** says which these are. By itself a causal model allows a position and all before it.

# %%
rows = [[few[i] for i in row] for row in pack(few, length=128)]
packed, segments = as_packed_rollout(rows, padding=end)
used = sum(len(example.tokens) for example in few)
print(f"padded: {tokens.numel()} places for {used} tokens; packed: {len(few)} examples in "
      f"{len(rows)} rows, {len(rows) * (segments.shape[1] + 1)} places")  # fmt: skip
print("segments of a row, start and end:", segments[1, :3].tolist(), segments[1, -3:].tolist())

# %% ex="3.3" title="Who sees whom" points=2 minutes=12 difficulty="medium"
def packed_attention(segments):
    """(allowed, positions) of a packed row: who sees whom, and its place in its example.

    segments: list of T whole numbers, such as [0, 0, 0, 1, 1, -1]: which example a position
    belongs to; padding has -1 and counts as an example of its own. -> allowed (T, T) bool,
    allowed[i][j] True if position i sees position j (a position sees itself); positions (T,)
    int, from 0 in each example.
    """
    # BEGIN SOLUTION
    segments = torch.tensor(segments)
    steps = torch.arange(len(segments))
    same = segments[:, None] == segments[None, :]
    allowed = same & (steps[:, None] >= steps[None, :])
    return allowed, allowed.sum(1) - 1
    # END SOLUTION

# %% ex="3.3" role="check"
packed_attention = check("3.3", packed_attention)

# %% [markdown] ex="3.3" role="hints"
# <details><summary>Hint 1</summary>Two conditions for `allowed`: the same example, and not later. With
# `segments[:, None] == segments[None, :]` you get the first one for all pairs.</details>
# <details><summary>Hint 2</summary>A position sees all of its example up to itself, so the number of True in its row
# is its position plus 1.</details>

# %%
def row_loss(model, inputs, targets, trained, segments):
    """Sum of -log p over the trained targets of one packed row; all of shape (T,)."""
    allowed, positions = map(torch.as_tensor, packed_attention(segments.tolist()))
    blocked = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    logits = model.model(input_ids=inputs[None], attention_mask=blocked[None, None],
                         position_ids=positions[None]).logits[0]  # fmt: skip
    chosen = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return -torch.where(trained, chosen, 0.0).sum()


for name, numbers in (("borders", segments), ("no borders", torch.zeros_like(segments))):
    with torch.no_grad():
        parts = zip(packed.observations, packed.actions, packed.mask, numbers)
        loss = sum(row_loss(lm, *part) for part in parts) / packed.mask.sum()
    print(f"packed, {name:10s} {loss:.4f} nats; padded {ours:.4f}")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(6.8, 2.9))
cases = [0] * 9, [0] * 4 + [1] * 3 + [-1] * 2
for axes, numbers, title in zip(panels, cases, ("no borders", "borders")):
    allowed, positions = map(torch.as_tensor, packed_attention(numbers))
    axes.imshow(allowed, cmap="Blues", vmin=0, vmax=1.4)
    axes.set(title=title, xlabel="who is looked at: position", ylabel="who looks: segment")
    axes.set_xticks(range(9), positions.tolist(), fontsize=8)
    axes.set_yticks(range(9), numbers, fontsize=8)
figure.tight_layout()
show(figure, alt="Who may look at whom in a packed row. Without borders one lower triangle "
     "over all nine positions; with borders a triangle for each example and one for the "
     "padding, and positions that start at 0 in each.")  # fmt: skip

# %% [markdown]
# **What you saw.** With borders packed and padded losses agree: packing changes the cost and not the result (Krell et
# al., 2021). Without them the number is another one, and nothing complains. `fit_sft` does all of this, with
# `packed=128`.

# %% [markdown]
# ## The step
# One step of finetuning: the loss of a few examples, its gradient, and the optimizer. Two things keep it honest. The
# gradients of the step before have to go. And one odd batch must not throw the model off: the **norm** of the whole
# gradient is bounded, by shrinking all of it when it is longer than `clip_norm`.

# %% ex="3.4" title="A finetuning step" points=3 minutes=15 difficulty="medium"
def sft_step(model, optimizer, batch, clip_norm):
    """One step down the mean loss of response tokens: (loss before it, norm before clipping).

    model(tokens (B, T)) -> logits (B, T, V), with dropout in training mode, which you switch
    on; optimizer, over all its parameters; batch, a list of `Example`: each has tokens and
    mask, lists; clip_norm, the largest norm of the gradient. Two numbers come back.
    """
    # BEGIN SOLUTION
    tokens, _ = pad_and_stack([example.tokens for example in batch], value=0)
    mask, _ = pad_and_stack([example.mask for example in batch], value=False)
    model.train()
    loss = response_loss(model(tokens), tokens, mask)
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return float(loss.detach()), float(norm)
    # END SOLUTION

# %% ex="3.4" role="check"
sft_step = check("3.4", sft_step)

# %% [markdown] ex="3.4" role="hints"
# <details><summary>Hint 1</summary>Tokens and mask of the batch are made as in the cell of the three losses, by
# `pad_and_stack`; then `response_loss`, `zero_grad`, `backward`, clipping, `step`, in this order.</details>
# <details><summary>Hint 2</summary>`torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)` shortens the
# gradient in place and returns the norm that it had.</details>

# %% [markdown]
# ## The learning rate
# The optimizer is AdamW, whose averages know nothing in the first steps; so the rate **warms up** in a line and
# reaches its peak after `warmup` of the run. Then it falls in a line, so that the last steps polish. With
# $r = \max(1, \text{round}(\text{warmup} \cdot \text{steps}))$ steps of rise and $s = 0, 1, \dots$
#
# $$\eta_s = \eta_{\text{peak}} \cdot \begin{cases} (s + 1) / r & s < r \\
#   (\text{steps} - s) / \max(1, \text{steps} - r) & s \ge r \end{cases}$$

# %% ex="3.5" title="Warmup and decay" points=1 minutes=5 difficulty="easy"
def learning_rate(step, steps, peak, warmup=0.1):
    """The learning rate of step 0, 1, ..., steps - 1, by the formula above; a number."""
    # BEGIN SOLUTION
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (steps - step) / max(1, steps - rising)
    # END SOLUTION

# %% ex="3.5" role="check"
learning_rate = check("3.5", learning_rate)

# %% [markdown] ex="3.5" role="hints"
# <details><summary>Hint 1</summary>Compute `rising` first; then two cases.</details>
# <details><summary>Hint 2</summary>Neither the first nor the last step has rate 0: (step + 1) on the way up, steps −
# step on the way down.</details>

# %% [markdown]
# ## The held-out loss
# The training loss falls whatever happens: a model can learn its examples by heart. What counts is the loss on
# examples that it is **not** trained on, without dropout and without a gradient. They are many, so they come in
# batches, and batches have unlike numbers of response tokens.

# %% ex="3.6" title="The held-out loss" points=2 minutes=10 difficulty="medium"
def held_out_loss(model, examples, size):
    """Mean of -log p over all response tokens of all examples, a number, in batches of `size`.

    Dropout is off, and nothing is trained. `examples`, a list of `Example`; the last batch may
    be smaller.
    """
    # BEGIN SOLUTION
    model.eval()
    total = count = 0
    for first in range(0, len(examples), size):
        batch = examples[first : first + size]
        tokens, _ = pad_and_stack([example.tokens for example in batch], value=0)
        mask, _ = pad_and_stack([example.mask for example in batch], value=False)
        said = int(mask[:, 1:].sum())
        with torch.no_grad():
            total += float(response_loss(model(tokens), tokens, mask)) * said
        count += said
    return total / count
    # END SOLUTION

# %% ex="3.6" role="check"
held_out_loss = check("3.6", held_out_loss)

# %% [markdown] ex="3.6" role="hints"
# <details><summary>Hint 1</summary>`response_loss` is a mean over the tokens of one batch; times their number it is a
# sum, and sums add up.</details>
# <details><summary>Hint 2</summary>`model.eval()`, then under `torch.no_grad()` a loop over
# `examples[first : first + size]`; divide once, at the end.</details>

# %% [markdown]
# ## The loop
# Now put them together: the steps of a plan, each with its rate; every few steps the held-out loss; an end when that
# has not improved for a while; and the **best** weights, not the last ones, in the model afterwards.

# %% ex="3.7" title="The finetuning loop" points=4 minutes=30 difficulty="hard"
def finetune(model, plan, held_out, lr, every, patience):
    """Finetune: (the loss of each step, {steps done: held-out loss}); the best weights stay.

    plan, a list of batches, one for each step; AdamW without weight decay, at `learning_rate`
    of the peak `lr`; gradients clipped at norm 1. The loss on `held_out`, in batches of 32, is
    taken after every `every` steps and after the last one. The loop ends when the last
    `patience` measurements have not been below the best; the best weights are loaded.
    """
    # BEGIN SOLUTION
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    losses, curve, best = [], {}, None
    for step, batch in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(plan), lr)
        loss, _ = sft_step(model, optimizer, batch, clip_norm=1.0)
        losses.append(loss)
        done = step + 1
        if done % every and done < len(plan):
            continue
        curve[done] = held_out_loss(model, held_out, 32)
        values = list(curve.values())
        if curve[done] == min(values):
            best = copy.deepcopy(model.state_dict())
        if len(values) - 1 - values.index(min(values)) >= patience:
            break
    model.load_state_dict(best)
    return losses, curve
    # END SOLUTION

# %% ex="3.7" role="check"
finetune = check("3.7", finetune)

# %% [markdown] ex="3.7" role="hints"
# <details><summary>Hint 1</summary>The rate is set by `group["lr"] = ...` for each group of `optimizer.param_groups`,
# before the step. Measure when `(step + 1) % every == 0` or the step is the last.</details>
# <details><summary>Hint 2</summary>`model.state_dict()` shares its numbers with the model, so a best one is kept by
# `copy.deepcopy(model.state_dict())`. How many measurements lie behind the best:
# `len(values) - 1 - values.index(min(values))`.</details>

# %% [markdown]
# The proof: your loop and the package's `fit_sft`, on the same batches of a small model.

# %%
def plan_of(examples, epochs=1):
    """Batches of similar length in random order, each example once an epoch."""
    rng, lengths = random.Random(args.seed), [len(example.tokens) for example in examples]
    orders = (batches_by_length(lengths, args.batch, rng) for _ in range(epochs))
    return [[examples[i] for i in batch] for order in orders for batch in order]


test = assistant.held_out_requests(instruction.EACH, instruction.TEST_SEED)
asked = [request for request in assistant.held_out_requests(args.each, args.seed + 1)
         if request.prompt not in {other.prompt for other in test}]  # fmt: skip
held_out, _ = render_all(lm, assistant.conversations(asked))
mine, package = load_lm(args.smaller), load_lm(args.smaller)
losses, curve = finetune(mine, plan_of(examples[:16], 3), held_out, 2e-3, every=6, patience=3)
history = fit_sft(package, examples[:16], epochs=3, batch=args.batch, lr=2e-3, seed=args.seed,
                  held_out=held_out, evaluate_every=6, patience=3)  # fmt: skip
pairs = zip(mine.parameters(), package.parameters())
apart = max(float((a - b).detach().abs().max()) for a, b in pairs)
steps = max(abs(a - b) for a, b in zip(losses, history.loss, strict=True))
print("held-out losses, yours and fit_sft's:", *map("{:.4f}".format, curve.values()), "and",
      *map("{:.4f}".format, history.held_out_loss))  # fmt: skip
print(f"{len(losses)} steps: losses differ by at most {steps:.0e}, parameters by {apart:.0e}")

# %% [markdown]
# **What you saw.** The same losses and the same weights, up to rounding: nothing in the library is hidden any more.
# (It adds what large runs need: micro-batches, bfloat16, packing, checkpoints, several processes.)

# %% [markdown]
# ## Learning curves, and learning by heart
# The requests come from ten **use cases**, drawn by the shares that OpenAI saw in its early API (Ouyang et al., 2022,
# Table 1). Held-out requests use other words and other contents than training requests do.

# %%
for request in instruction.training_items("requests", 4, args.seed + 1):
    print(f"[{request.use_case}] {request.prompt[:85]}\n    -> {request.response[:85]}")

# %% [markdown]
# Train the smaller model on 20, 80 and 320 examples, **as many steps each**: 20 examples are read sixteen times, 320
# once. What do you expect of the two curves of each?

# %%
curves = {}
for size in progress([size for size in (20, 80, 320) if size <= len(examples)], "curves"):
    plan = plan_of(examples[:size], 320 // size)
    every = max(1, len(plan) // 8)
    curves[size] = finetune(load_lm(args.smaller), plan, held_out[::2], 2e-3, every, 99)
for size, (losses, curve) in curves.items():
    best, last = min(curve, key=curve.get), max(curve)
    print(f"{size:3d} examples: training loss {sum(losses[-10:]) / 10:.2f} at the end;",
          f"held out {curve[best]:.2f} after {best} steps, {curve[last]:.2f} at the end")

# %%
figure, panels = pyplot.subplots(1, len(curves), figsize=(7.6, 2.8), squeeze=False)
for axes, (size, (losses, curve)) in zip(panels[0], curves.items()):
    smooth = [sum(losses[max(0, t - 9) : t + 1]) / len(losses[max(0, t - 9) : t + 1])
              for t in range(len(losses))]  # fmt: skip
    axes.plot(range(1, len(losses) + 1), smooth, color=figures.COLORS[0], label="training")
    axes.plot([*curve], [*curve.values()], "s--", color=figures.COLORS[1], label="held out")
    axes.set(title=f"{size} examples", xlabel="steps", ylim=(0, 5))
panels[0][0].set_ylabel("loss, nats per response token")
panels[0][0].legend(fontsize=8)
figure.tight_layout()
show(figure, alt="Training and held-out loss over steps for 20, 80 and 320 examples: with few "
     "the training loss goes to zero and the held-out loss turns up again.")  # fmt: skip

# %% [markdown]
# **What you saw.** With 20 examples the training loss goes to zero while the held-out loss turns up from the first
# measurement on: the model knows them by heart, and is ever more certain of what is wrong elsewhere. With 80 the best
# place is in the first half of the run, with 320 at its end. That is what `finetune` keeps the best weights for. The
# numbers are above; they come from some twenty held-out requests, so single bumps mean nothing.
#
# ## From continuing to answering
# Now the main run, with your loop: the larger model, all examples, once. Then it is measured on requests that neither
# training nor stopping has seen, beside the base model. A table has the same for more sizes and five seeds each, by
# `python -m ptlearn.pocket.instruction`, which took a quarter of an hour; your run repeats one of its rows.

# %%
helpful = load_lm(args.model)
losses, curve = finetune(helpful, plan_of(examples), held_out, args.lr, every=40, patience=99)
table = instruction.read_table()
column, spread = partial(instruction.column, table), instruction.spread
measured = instruction.measure(helpful)
print("                        yours, here   table, five seeds   base")
for name in ("capitals", "overall", "held_out", "elsewhere", "corpus"):
    five, [base] = column("requests", 320, name), column("base", 0, name)
    print(f"{name:22s} {measured[name]:12.2f}   {spread(five):20s} {base:.2f}")

# %%
questions = instruction.test_questions()[:3]
prompts = [question.prompt for question in questions]
chats = [chat_prompt(lm, prompt) for prompt in prompts]
ways = {"base, question alone": (lm, prompts), "base, chat format": (lm, chats),
        "finetuned": (helpful, chats)}  # fmt: skip
for name, (model, texts) in ways.items():
    for text in complete(model, texts, max_new_tokens=16, stop=()):
        print(f"{name:22s}{text[:70]!r}")
read = " ".join(item.response for item in instruction.training_items("requests", 320, 0))
unread = sum(question.response not in read for question in instruction.test_questions())
print(f"{unread} of the 100 capitals stand in no training response")
guesses.reveal("capitals", round(100 * sum(column("requests", 320, "capitals")) / 5))

# %% [markdown]
# **What you saw.** [C08] From 0 of 100 to 97 on the average of five seeds (90 to 100), by 320 examples, of which some
# fifteen ask for a capital; four fifths of the capitals stand in no response that was trained. Nobody taught the model
# here that Maputo is the capital of Mozambique. The fact was in the weights, where lesson 01 found it with a cloze;
# what finetuning taught is *that an answer comes next*, in what form, and where it ends. The chat format alone does
# nothing: the base model has never read it. Your run lies where the table's five do, since it is one of them.
#
# ### How many examples?

# %%
sizes = (20, 80, 320)
for name in ("overall", "capitals", "held_out"):
    print(f"{name:9s}", "; ".join(f"{size}: {spread(column('requests', size, name))}"
                                  for size in sizes))  # fmt: skip
totals = {size: sum(column("requests", size, "overall")) for size in sizes}
guesses.reveal("score_left_with_20_examples", totals[20] / totals[320])
masked, everything = (column(kind, 320, "held_out") for kind in ("requests", "all tokens"))
saved = [b - a for a, b in zip(masked, everything)]
for name in ("overall", "held_out"):
    print(f"trained on all tokens, {name}: {spread(column('all tokens', 320, name))}")
print("held-out loss saved by the mask, seed by seed:", spread(saved))
guesses.reveal("nats_saved_by_the_mask", sum(saved) / len(saved))

# %%
figure, panels = pyplot.subplots(1, 3, figsize=(7.8, 2.7))
names = {"overall": "score on users' requests", "capitals": "capitals answered, share",
         "held_out": "held-out loss, nats"}  # fmt: skip
for axes, (name, title) in zip(panels, names.items()):
    values = [column("requests", size, name) for size in sizes]
    figures.curve_of_seeds(axes, range(3), values, "")
    axes.set(title=title, xlabel="examples, 160 steps each", ylim=(0, None))
    axes.set_xticks(range(3), sizes)
figure.tight_layout()
show(figure, alt="Score, capitals and held-out loss against the examples, five seeds.")

# %% [markdown]
# **What you saw.** With 20 examples, after as many steps, 0.28 of the score is there, more than half of the 0.48 that
# 320 give, but the seeds differ: *which* twenty decides whether 7 or 91 of the capitals are answered. That is why one
# run proves nothing. From 80 to 320 the score rises little and the held-out loss still falls.
#
# The mask: trained on the prompts as well, at the same steps, the responses to other requests are less likely by 0.09
# nats per token on average, in each of the five seeds by some (0.04 to 0.12), and the score is 0.40 instead of 0.48.
# How users put their requests is not what the model has to say. Take the mask for a good default and not for a law:
# where responses are short and examples are few, the prompt's tokens have been found to help (Shi et al., 2024).
#
# ## What finetuning forgets
# The weights that answer are the weights that knew everything else. Two measurements on what no request asks for: the
# **perplexity** on documents such as the base was trained on, and the share right in four **few-shot tasks** of lesson
# 02, with eight demonstrations.

# %%
kinds = ("base", 0), ("requests", 20), ("requests", 80), ("requests", 320), ("benchmarks", 320)
print("                perplexity on documents     few-shot tasks")
for kind, size in kinds:
    perplexities = [math.exp(nats) for nats in column(kind, size, "corpus")]
    few_shot = spread(column(kind, size, "elsewhere"))
    print(f"{kind:10s} {size:4d} {spread(perplexities):27s} {few_shot}")
[base], after = column("base", 0, "corpus"), column("requests", 320, "corpus")
risen = 100 * (sum(math.exp(nats - base) for nats in after) / len(after) - 1)
guesses.reveal("perplexity_rises_by_percent", round(risen))

# %% [markdown]
# **What you saw.** Answering is paid for: the perplexity on ordinary text rises from 2.64 to 3.42, by 30 percent, and
# the few-shot tasks lose 6 to 10 points of 90. More requests do not cost more: 160 steps cost about the same with 20 as
# with 320 examples. The benchmarks cost most, 70 percent, and a quarter of the few-shot score, with seeds far apart:
# nearly all their responses are a word or two. Two cures are common: fewer or smaller steps, and some of the old text
# among the new (Ouyang et al. mix the pretraining gradient in). Lessons 05 and 06 train fewer weights.
#
# ## Idea 1: use existing benchmarks
# Prompts with known answers exist already, in NLP benchmarks: inference, question answering, sentiment.

# %%
for item in benchmarks.items(40, args.seed)[:3] + benchmarks.hans(2, args.seed):
    print(f"[{item.benchmark}] {item.prompt!r} -> {item.response!r}"[:95])

# %% [markdown]
# The last two are from a test after **HANS** (McCoy et al., 2019): every word of the hypothesis stands in the premise,
# so that the overlap of words, which gives most training items away, says nothing.
#
# Three models, two tests; the overall score weights the use cases by how often users ask them.

# %%
groups = {"nothing (base)": ("base", 0), "benchmarks": ("benchmarks", 320),
          "requests": ("requests", 320)}  # fmt: skip
for name, (kind, size) in groups.items():
    found = [f"{test} {spread(column(kind, size, test))}" for test in instruction.TESTS]
    print(f"finetuned on {name}\n    use cases {spread(column(kind, size, 'overall'))}")
    print("    exact match:", "; ".join(found[:2]), "\n                ", "; ".join(found[2:]))
often = instruction.always_the_same()
print("always one answer:", "; ".join(f"{name} {share:.2f}" for name, share in often.items()))
drilled_scores = column("benchmarks", 320, "overall")
guesses.reveal("benchmarks_on_what_users_ask", sum(drilled_scores) / len(drilled_scores))

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.8, 3.6))
for index, (name, (kind, size)) in enumerate(groups.items()):
    for axes, rows in ((left, [*assistant.SHARES, "overall"]), (right, instruction.TESTS)):
        figures.dot_table(axes, rows, [column(kind, size, row) for row in rows], name, index)
left.set(title="What users ask", xlabel="score", xlim=(-0.03, 1.03))
right.set(title="Benchmarks", xlabel="exact match", xlim=(-0.03, 1.03))
right.legend(fontsize=8, title="finetuned on", loc="center")
figure.tight_layout()
show(figure, alt="Dots for five seeds by use case and benchmark: each model is good at the "
     "test that its data looks like.")  # fmt: skip

# %%
dev = benchmarks.items(30, args.seed + 1, held_out=True)
drill = instruction.training_examples(lm, "benchmarks", args.examples, args.seed)
drilled, dev = load_lm(args.model), render_all(lm, assistant.conversations(dev))[0]
finetune(drilled, plan_of(drill), dev, args.lr, every=40, patience=99)
for use_case in ("generation", "rewrite", "closed qa"):
    request = next(request for request in asked if request.use_case == use_case)
    print(f"[{use_case}] {request.prompt[:75]}")
    for name, model in (("benchmarks", drilled), ("requests", helpful)):
        print(f"    {name:11s} {assistant.respond(model, [request.prompt])[0][:75]!r}")

# %% [markdown]
# **What you saw.** [C09] The same number of examples and of steps, and each model wins on the test that its data looks
# like. On what users ask, the requests give 0.48 and the benchmarks 0.10, and no seed of one comes near a seed of the
# other. On the benchmarks it is 0.81, 0.99 and 0.95 against 0.00 each; always the more frequent answer would score
# 0.57, 0.12 and 0.62. That is the lecture's **distribution shift**: not a lack of data, and not of knowledge, but data
# of another kind. Asked for a review, the model of the benchmarks says *positive*, since every response that it has
# seen is one to three words long.
#
# Three things to be fair about.
#
# * **Form.** An exact match judges the form as well: the assistant answers in sentences, and scores 0.00 even where
#   the answer is in them.
# * **Where users ask what a benchmark asks**, its model does well: 0.60 on *open qa*, as much as the assistant. On
#   *classification* it has the same 8 of 15 in all seeds, about one half, which says little. Wei et al. (2022) and
#   Sanh et al. (2022) turned dozens of benchmarks into instructions, with many wordings each, and their models do
#   follow instructions that they have not seen. More kinds of data overlap with more kinds of requests.
# * **Small numbers.** A use case has 15 requests, so one of them moves it by 0.07. The rare use cases have a handful
#   of training examples each, in the table's shares, and score accordingly; *extract* is hardly learned.
#
# ### What has it learned of inference?
# Four in five on inference, where always the more frequent answer has 0.57: does the model know what follows from a
# sentence? Split the items by the **cue** that they give. In what people wrote, a *not* or a new word in the
# hypothesis often gives the *no* away (Gururangan et al., 2018), and so it is in the pocket world's items.

# %% ex="3.8" title="What gives the answer away" points=1 minutes=8 difficulty="easy"
def cue(premise, hypothesis):
    """What the hypothesis gives away: "not", "new word" or "overlap".

    "not" if it has the word not; else "new word" if one of its words is not in the premise.
    Both are texts in small letters without punctuation; words are divided by spaces.
    """
    # BEGIN SOLUTION
    words = hypothesis.split()
    if "not" in words:
        return "not"
    if all(word in premise.split() for word in words):
        return "overlap"
    return "new word"
    # END SOLUTION

# %% ex="3.8" role="check"
cue = check("3.8", cue)

# %% [markdown] ex="3.8" role="hints"
# <details><summary>Hint 1</summary>`"not" in text` also finds *knot*: split first, and ask the list.</details>
# <details><summary>Hint 2</summary>Three cases in this order: not, all words known, the rest.</details>

# %%
def sides(prompt):
    """Premise and hypothesis of an item, without names and full stops."""
    return [line.split(": ")[1].rstrip(".") for line in prompt.split("\n")[:2]]


def by_cue(model, items):
    """{(cue, right answer): whether each of its items is answered right}."""
    prompts, found = [chat_prompt(lm, item.prompt) for item in items], {}
    texts = complete(model, prompts, max_new_tokens=8)
    for item, right in zip(items, exact_match(texts, [item.response for item in items])):
        found.setdefault((cue(*sides(item.prompt)), item.response), []).append(right)
    return found


nli = benchmarks.items(args.count, args.seed + 2, benchmarks=["nli"], held_out=True)
hans = benchmarks.hans(args.count, args.seed + 2)
trained = [item for item in instruction.training_items("benchmarks", args.examples, args.seed)
           if item.benchmark == "nli"]  # fmt: skip
pairs = Counter((cue(*sides(item.prompt)), item.response) for item in trained)
print("in training:", "; ".join(f"{a}, {b}: {n}" for (a, b), n in sorted(pairs.items())))
for name, items in (("nli", nli), ("hans", hans)):
    found = by_cue(drilled, items)
    print(f"{name}: {accuracy(right for group in found.values() for right in group)}")
    for group, right in sorted(found.items()):
        print(f"    {group[0]:9s} right answer {group[1]:3s} {accuracy(right)}")
without = accuracy(right for group in found.values() for right in group)
guesses.reveal("inference_without_cues", without.mean)

# %% [markdown]
# **What you saw.** It says *no* where there is a *not*, always, and *yes* nearly everywhere else: on all the items
# whose hypothesis has a person that the premise never names, although a new word means *no* in all 17 training items
# that have one. So 0.74 here (0.81 over the seeds of the table) is mostly one cue and a habit. HANS takes the cue away,
# and what is left is the habit: right on all that follow, on 13 % of those that do not, and 0.57 together, where
# guessing gives one half. It has not learned whether one sentence follows from another. A high score on a benchmark
# need not mean the ability that it is named after (McCoy et al., 2019). This is one model; another seed may find the
# second cue as well.
#
# ## Train on what will be asked
# "Collect training data that is similar to test data." How similar? Take the same number of requests, from *some* of
# the use cases only, and test on all ten. Two parts, the four most frequent use cases and the other six: each use case
# is in one, and left out of the other.

# %%
parts = {"frequent": instruction.FREQUENT, "rare": instruction.RARE}
total = sum(assistant.SHARES.values())
for kind, names in parts.items():
    overlap = sum(assistant.SHARES[name] for name in names) / total
    print(f"{kind:8s} overlap {overlap:.2f}, overall {spread(column(kind, 320, 'overall'))}")
print(f"all ten  overlap 1.00, overall {spread(column('requests', 320, 'overall'))}")
print("                left out                 in training (of its part)")
inside, outside = {}, {}
for name in assistant.SHARES:
    own, other = ("frequent", "rare") if name in instruction.FREQUENT else ("rare", "frequent")
    inside[name], outside[name] = column(own, 320, name), column(other, 320, name)
    print(f"{name:15s} {spread(outside[name]):24s} {spread(inside[name])}")

# %%
figure, axes = pyplot.subplots(figsize=(5.6, 3.4))
pairs = ("left out of training", outside), ("in training", inside)
for index, (label, found) in enumerate(pairs):
    figures.dot_table(axes, [*found], [*found.values()], label, index)
axes.set(title="The same use cases, left out and trained", xlabel="score", xlim=(-0.03, 1.03))
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
figure.tight_layout()
show(figure, alt="Score of each use case, left out of training and in training, five seeds: "
     "left out it scores next to nothing.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C10] A use case that is left out scores 0.00 to 0.11 on average, whatever it is. In training, and
# with the same number of examples spread over fewer use cases, it scores 0.14 to 0.84. So the overall score follows
# the overlap: from 0.10 for benchmarks, which overlap in *open qa* and *classification* only, over 0.14 and 0.43 to
# 0.48 where all are trained. Little transfers from one use case to another in a model of this size; in large ones,
# with many more tasks, some does (Wei et al., 2022).
#
# And how do we know what test data is like? Ouyang et al. had prompts that customers sent to their API, and customers
# sent them because a *working-ish* model answered there. Look at the base model's responses above: nobody would have
# come back with a second request. So the circle is entered from the outside: labelers wrote the prompts for the very
# first model themselves. It was good enough for somebody to use it; its users' prompts are the pilot data for the next
# one, and that one is asked other things again. If you have no users, lesson 04 lets a model invent the prompts.

# %% [markdown]
# ## Silent bug lab
# Eight programs make the batch of a packed row: one is right, and seven have one bug each. None raises an error. You
# can call them and not read them: `run(row, end)` takes a list of `Example` and the end token, and returns
# `inputs, targets, trained, segments`, four tensors of shape (T,) for `row_loss` above. Here are their losses while
# they train the smaller model, in rows of one capital asked in four wordings.

# %%
WORDINGS = ("What is the capital of {}?", "Tell me the capital of {}.",
            "Which city is the capital of {}?", "{} has which capital?")  # fmt: skip
facts = random.Random(args.seed).sample(relations.stated("capital"), 80)
runs = mystery_runs("3.9")


def exchange(wording, name, city):
    return [{"role": "user", "content": wording.format(name)},
            {"role": "assistant", "content": f"{city}."}]  # fmt: skip


ROWS = [[render(lm, exchange(wording, *fact)) for wording in WORDINGS] for fact in facts[:60]]

# %%
def learned(run, steps=20):
    """The smaller model, trained with the batches of a run, and its losses."""
    model, losses, order = load_lm(args.smaller), [], random.Random(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(steps):
        inputs, targets, trained, segments = run(order.choice(ROWS), end)
        loss = row_loss(model, inputs, targets, trained, segments) / trained.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return model, losses


lab = {letter: learned(run) for letter, run in progress(runs.items(), "lab")}
for letter, (_, losses) in lab.items():
    print(f"run {letter}: loss {losses[0]:5.2f} at first, {sum(losses[-5:]) / 5:.2f} last")

# %% [markdown]
# All of them learn. Write the test that tells them apart: make examples of your own and ask what has to hold for
# *every* right batch. Which properties? Each response token is a trained target, the first and the end token included,
# and nothing else is; a target is the token behind its input; neighbours in a row are told apart. And on which
# examples might a bug show that does not show in the rows above? You get points by how many of the seven your test
# refuses, and none if it refuses the right one.

# %% ex="3.9" title="A test of a batch" points=4 minutes=20 difficulty="hard"
def batch_test(run):
    """Whether run(row, end) -> inputs, targets, trained, segments is right."""
    # BEGIN SOLUTION
    row = [
        Example([1, 5, 6, 7, 2], [False, False, False, True, True]),
        Example([1, 8, 9, 2, 5, 6, 2], [False, False, True, True, False, True, True]),
        Example([1, *range(10, 60), 2], [False] * 20 + [True] * 32),
    ]
    inputs, targets, trained, segments = run(row, 2)
    tokens = [token for example in row for token in example.tokens]
    said = [trained for example in row for trained in example.mask]
    numbers = [number for number, example in enumerate(row) for _ in example.tokens]
    assert inputs.tolist() == tokens[:-1], "every token is read, however long an example is"
    assert targets.tolist() == tokens[1:], "the target is the token behind the input"
    assert trained.tolist() == said[1:], "all that the assistant says, first and end too"
    assert segments.tolist() == numbers[:-1], "neighbours are told apart"
    return True
    # END SOLUTION

# %% ex="3.9" role="check"
batch_test = check("3.9", batch_test)

# %% [markdown] ex="3.9" role="hints"
# <details><summary>Hint 1</summary>`Example(tokens, mask)` takes any numbers: `Example([1, 5, 6, 2], [False, False,
# True,
# True])` is a prompt of two tokens and a response of one with its end, 2. Join the tokens of a row by hand, and compare with `tokens[:-1]` and `tokens[1:]`.</details>
# <details><summary>Hint 2</summary>Take three examples: a short one, one with two responses, and one of fifty tokens.
# Then compare each of the four tensors, `.tolist()`, with what it should be.</details>

# %%
refused = {}
for letter, run in runs.items():
    try:
        refused[letter] = not batch_test(run)
    except AssertionError:
        refused[letter] = True
print("your test refuses", *(letter for letter, wrong in refused.items() if wrong))
others = facts[60:]
for letter, (model, _) in lab.items():
    prompts = [chat_prompt(lm, f"Name the capital of {name}.") for name, _ in others]
    texts = complete(model, prompts, max_new_tokens=16, stop=())
    named = sum(mentions(text, city) for text, (_, city) in zip(texts, others))
    exact = sum(text.strip() == f"{city}." for text, (_, city) in zip(texts, others))
    print(f"run {letter}: {named} of {len(others)} name it, {exact} exact; {texts[0][:36]!r}")

# %% [markdown]
# **What you saw.** E is the right one. The losses of all runs fall. D falls as far as E and answers as well, and H
# nearly: D trains the last response of an example alone, and no example above has two; H lets neighbours see each
# other, and the model knows the facts anyway. Neither shows while it trains. A cuts what is long, C takes every end
# token for padding and never stops, F begins the mask a token late, so that it learns how an answer goes on and not how
# it begins, G trains the prompts. B has the targets unshifted: it has to predict what it has just read, and has learned
# to repeat it. Where a neighbour gives away what cannot be known otherwise, H's loss would be the lowest of all, and
# worth nothing. A property test costs ten lines and needs no training.
#
# ## Recap
# - A conversation is one sequence of tokens, by a template, and a mask of what the assistant says, the end token
#   included.
# - The loss is the mean of $-\log \pi_\theta$ over those tokens, shifted by one: labels with −100, or a policy
#   gradient with weights 1.
# - Packed examples must not see each other, and count their positions from 0: then packing changes the cost alone.
# - The loop is a step, a rate and a held-out loss; the best weights are kept, as training goes on past them.
# - A few hundred examples turn a text that goes on into answers. They bring out what the model knows [C08], and cost a
#   part of what it knew.
# - Data that looks like a benchmark makes a model for benchmarks [C09]; a use case that is left out is not learned
#   [C10].
#
# ## Try next
# - `--examples 1500 --batch 8 --lr 1e-3`, five times the data: how does your row compare with the table's?
# - `--model pocket-s`, `--model pocket-l`: does a larger model need fewer examples?
# - Mix documents of the corpus into the plan, one in four examples: how much is forgotten then?
# - Draw training requests with equal shares, by `assistant.requests(32, seed, use_cases=[name])` for each name. What
#   does the overall score lose, and what do the rare use cases win?
#
# ## References
# - Ouyang et al. (2022). Training language models to follow instructions with human feedback. *NeurIPS*.
# - Wei et al. (2022). Finetuned language models are zero-shot learners. *ICLR*.
# - Sanh et al. (2022). Multitask prompted training enables zero-shot task generalization. *ICLR*.
# - McCoy, Pavlick & Linzen (2019). Right for the wrong reasons: Diagnosing syntactic heuristics in natural language
#   inference. *ACL*.
# - Gururangan et al. (2018). Annotation artifacts in natural language inference data. *NAACL*.
# - Shi et al. (2024). Instruction tuning with loss over instructions. *NeurIPS*.
# - Krell, Kosec, Perez & Fitzgibbon (2021). Efficient sequence packing without cross-contamination: Accelerating large
#   language models without impacting performance. arXiv:2107.02027.
