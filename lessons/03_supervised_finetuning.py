# Lesson 03: supervised finetuning. jupytext py:percent; runs as a script: python lessons/03_supervised_finetuning.py --help

# %% [markdown]
# # 03 · Supervised finetuning: from a text that goes on to an assistant that answers
#
# A base model continues a question with more questions. Show it a few hundred prompts *with good responses*, raise the
# likelihood of the responses, and it answers. In this lesson you build what that takes by hand: the chat format, the
# mask of what is trained, the loss, and packing. Then you measure the lecture's warning, that data which looks like a
# benchmark does not make an assistant. *(Lecture: "Supervised finetuning", "Idea 1: use existing NLP benchmarks",
# "distribution shift"; claims C08–C10.)* About 75 minutes; runs in 85 s on two CPU cores.
#
# **You will need** lesson 01: a base model continues a question instead of answering it. **You will be able to** turn a
# conversation into tokens and a mask, write the loss and show that it is the one that libraries compute, pack examples
# without letting them see each other, say which data helps which test, and find bugs that raise no error.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import html
import random

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.finetuning.sft import fit_sft, sft_loss
from ptlearn.lm.chat import (
    Example,
    as_packed_rollout,
    as_rollout,
    chat_prompt,
    pack,
    render,
    render_all,
    response_logprobs,
)  # fmt: skip
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import exact_match
from ptlearn.lm.text import complete
from ptlearn.pocket import assistant, benchmarks, relations
from ptlearn.pocket.verifiers import mentions
from ptlearn.policy_gradient import policy_gradient_loss
from ptlearn.rollout import Rollout, action_logprobs, pad_and_stack
from ptlearn.statistics import accuracy, over_seeds, wilson

args = arguments(
    "Supervised finetuning: chat format, response mask, loss, packing; and which data makes an assistant.",
    model=("pocket-m", "the language model"),
    smaller=("pocket-s", "the model that is trained on responses, and on all tokens"),
    examples=(320, "conversations that each model is finetuned on", "at least 20"),
    batch=(2, "conversations per step", "at least 1"),
    lr=(7e-4, "peak learning rate", "above 0"),
    seeds=(3, "finetuned models of each kind", "at least 2"),
    each=(10, "test requests of each use case", "at least 1"),
    count=(40, "test items of each benchmark", "at least 2"),
    seed=(0, "of everything else", "at least 0"),
)
torch.set_num_threads(1)  # the products are small: a second thread would mostly wait for the first
lm = load_lm(args.model)
print(f"{args.model}: a base model with a context of {lm.context} tokens")

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. Lesson 01 asked the base model for capitals and got next to no answers. You finetune it on 320 requests of all
#    kinds, some fifteen of them for a capital. **What share of the questions will it answer then?**
# 2. In each example you can train on the response alone, or on the prompt as well. **Which gives the better assistant,
#    or does it not matter?**
# 3. One model learns from 320 benchmark items (inference, questions, sentiment), the other from 320 requests such as
#    users make. **How does each do on the other's test, from 0 to 1?**

# %% [markdown]
# ## The chat format
# A model reads one sequence of tokens. So a conversation is written as a text, by a **template**:

# %%
talk = [{"role": "user", "content": "What is the capital of Kenya?"},
        {"role": "assistant", "content": "The capital of Kenya is Nairobi."}]  # fmt: skip
print(lm.tokenizer.apply_chat_template(talk, tokenize=False))

# %% [markdown]
# Nothing here is a law: chat models differ in their templates, and a model answers well in the one it was finetuned in.
# `<|endoftext|>` stands at the beginning and, more important, at the **end of each response**: it is how the model says
# that it has finished. So it is a token that the assistant says, and one that must be learned.
#
# Which tokens does the assistant say? When a user writes, the text up to and with `Assistant:` is already there. What
# the model has to produce is the rest: the space, the words, the end.

# %% ex="3.1" points=2 minutes=12 difficulty="easy"
def build(messages, encode, begin, end):
    """(tokens, mask) of a conversation: lists of the same length, mask True on what the assistant says.

    messages, dicts with the role "user" or "assistant" and the content; encode(text) -> list of tokens; begin and end,
    tokens. A user's message is written "User: ..." with a line break, an assistant's "Assistant: ..." and then the token
    `end`; before everything stands the token `begin`.
    """
    # BEGIN SOLUTION
    tokens, mask = [begin], [False]
    for message in messages:
        if message["role"] == "user":
            pieces = [(encode(f"User: {message['content']}\n"), False)]
        else:
            pieces = [(encode("Assistant:"), False), (encode(f" {message['content']}") + [end], True)]
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
# Hold it against the package's `render`, and against the template machinery of `transformers`, on one exchange and on
# two in a row.

# %%
longer = [{"role": "user", "content": "Hello, I am Anna."}, {"role": "assistant", "content": "Good morning, Anna."}, *talk]
end = lm.tokenizer.eos_token_id


def encode(text):
    return lm.tokenizer.encode(text, add_special_tokens=False)


for conversation in (talk, longer) if args.model.startswith("pocket") else ():
    tokens, mask = build(conversation, encode, lm.document_start, end)
    assert (tokens, mask) == tuple(render(lm, conversation))
    theirs = lm.tokenizer.apply_chat_template(conversation, return_dict=True, return_assistant_tokens_mask=True)
    assert list(theirs["input_ids"]) == tokens and [bool(said) for said in theirs["assistant_masks"]] == mask
    print(f"{len(tokens)} tokens, {sum(mask)} of them said by the assistant: the same three times")

# %%
def coloured(example):
    """The tokens of an example as HTML; what the assistant says is blue and underlined."""
    said = "background:#0072B2;color:#fff;text-decoration:underline"
    spans = []
    for token, trained in zip(*example):
        text = html.escape(lm.tokenizer.decode([token])).replace("\n", "↵")
        style = said if trained else "background:#e8e8e8;color:#111"
        spans.append(f'<span style="{style};display:inline-block;padding:0 3px;margin:1px;white-space:pre">{text}</span>')
    return f'<div style="font:13px monospace;line-height:2;background:#fff;padding:6px">{"".join(spans)}</div>'


show(coloured(render(lm, longer)), alt="Two exchanges as tokens. Blue and underlined, and so trained: the two responses "
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

# %% ex="3.2" points=2 minutes=12 difficulty="medium"
def response_loss(logits, tokens, mask):
    """Mean of -log p over the response tokens of a batch, in nats, as a scalar tensor.

    logits (B, T, V), at position t about the token at t + 1; tokens (B, T) int; mask (B, T) bool, True on the tokens of
    responses. The first token of a row has nothing before it and is never a response's.
    """
    # BEGIN SOLUTION
    logprobs = logits[:, :-1].log_softmax(-1)
    chosen = logprobs.gather(-1, tokens[:, 1:, None])[..., 0]
    said = mask[:, 1:]
    return -(chosen * said).sum() / said.sum()
    # END SOLUTION

# %% ex="3.2" role="check"
response_loss = check("3.2", response_loss)

# %% [markdown] ex="3.2" role="hints"
# <details><summary>Hint 1</summary>Drop the last position of the logits and the first of tokens and mask: then what
# stands at the same place belongs together.</details>
# <details><summary>Hint 2</summary>`logprobs.gather(-1, targets[..., None])[..., 0]` picks one number per position. Sum
# over the masked ones, and divide by their number in the whole batch.</details>

# %% [markdown]
# Three ways to the same number, on a batch of requests padded on the right: yours; the loss that `transformers`
# computes from **labels** (it shifts them itself, and leaves out a label of −100); and `policy_gradient_loss`, the
# one loss of this course, with **weights 1**. There the token is the action, and the mask says where the model acted.

# %%
requests = assistant.requests(args.examples, args.seed)
examples, _ = render_all(lm, assistant.conversations(requests))
few = examples[:12]
tokens, _ = pad_and_stack([example.tokens for example in few], value=end)
mask, _ = pad_and_stack([example.mask for example in few], value=False)
labels = torch.where(mask, tokens, -100)
rollout = as_rollout(few, padding=end)
with torch.no_grad():
    ours = response_loss(lm(tokens), tokens, mask)
    labelled = lm.model(input_ids=tokens, labels=labels).loss
    logprobs = action_logprobs(lm, rollout)
    estimator = policy_gradient_loss(logprobs, torch.ones_like(logprobs), rollout.mask, normalizer=rollout.mask.sum())
for name, loss in (("by hand", ours), ("labels", labelled), ("weights 1", estimator)):
    gap = abs(loss / labelled - 1)
    print(f"{name:10s} {loss:.6f} nats per response token; off by {'less than 1e-6' if gap <= 1e-6 else f'{gap:.1e}'}")

# %% [markdown]
# **What you saw.** Supervised finetuning is imitation: a policy gradient in which every action of somebody else counts
# as good. Lessons 08 to 12 will change nothing but the weights.
#
# One trap is in these lines already. Padding is written with a token, here the end token itself. Whoever finds padding
# by *comparing with that token* takes the true ends out of the loss, too. The mask comes from lengths.

# %% [markdown]
# ## Padding and packing
# Examples differ in length. Padded to the longest one, much of the batch is empty. **Packed**, several examples share a
# row; then they must not see each other, and each has to count its positions from 0.

# %%
rows = [[few[i] for i in row] for row in pack(few, length=128)]
_, segments = as_packed_rollout(rows, padding=end)
used = sum(len(example.tokens) for example in few)
print(f"padded: {tokens.numel()} places for {used} tokens; packed: {sum(len(row) for row in rows)} examples in "
      f"{len(rows)} rows, {len(rows) * (segments.shape[1] + 1)} places")  # fmt: skip
print("segments of the first row, start and end:", segments[0, :3].tolist(), segments[0, -3:].tolist())

# %% ex="3.3" points=2 minutes=12 difficulty="medium"
def packed_attention(segments):
    """(allowed, positions) of a packed row: who may look at whom, and where each position stands in its example.

    segments: list of T whole numbers, such as [0, 0, 0, 1, 1, -1]: which example a position belongs to; padding has -1
    and counts as an example of its own. -> allowed (T, T) bool, allowed[i][j] True if position i sees position j (a
    position sees itself); positions (T,) int, from 0 in each example.
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
# <details><summary>Hint 2</summary>A position sees all of its example up to itself, so the number of True in its row is
# its position plus 1.</details>

# %%
def packed_loss(borders):
    """The loss of the packed rows; without borders the examples of a row see each other."""
    rollout, segments = as_packed_rollout(rows, padding=end)
    segments = segments if borders else torch.zeros_like(segments)
    seen = [packed_attention(row) for row in segments.tolist()]
    allowed, positions = (torch.stack([torch.as_tensor(found) for found in part]) for part in zip(*seen))
    blocked = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    logits = lm.model(input_ids=rollout.observations, attention_mask=blocked[:, None], position_ids=positions).logits
    chosen = logits.log_softmax(-1).gather(-1, rollout.actions[..., None])[..., 0]
    return -chosen[rollout.mask].mean()


with torch.no_grad():
    for name, loss in (("padded", ours), ("packed", packed_loss(True)), ("packed, no borders", packed_loss(False))):
        gap = abs(loss / ours - 1)
        print(f"{name:19s} {loss:.4f} nats; off by {'less than 1e-5' if gap <= 1e-5 else f'{gap:.1%}'}")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(6.8, 2.9))
for axes, example_segments, title in zip(panels, ([0] * 9, [0] * 4 + [1] * 3 + [-1] * 2), ("no borders", "borders")):
    allowed, positions = packed_attention(example_segments)
    axes.imshow(torch.as_tensor(allowed), cmap="Blues", vmin=0, vmax=1.4)
    axes.set(title=title, xlabel="who is looked at, by position", ylabel="who looks, by segment")
    axes.set_xticks(range(9), [int(position) for position in positions], fontsize=8)
    axes.set_yticks(range(9), [str(segment) for segment in example_segments], fontsize=8)
figure.tight_layout()
show(figure, alt="Who may look at whom in a packed row. Without borders one lower triangle over all nine positions; with "
     "borders a triangle for each example and one for the padding, and positions that start at 0 in each.")  # fmt: skip

# %% [markdown]
# **What you saw.** With borders packed and padded losses agree to rounding: packing changes the cost and not the
# result. Without them the number is another one, and nothing complains. `fit_sft` does all of this, with
# `packed=128`.

# %% [markdown]
# ## From continuing to answering
# Now the training. The requests come from ten **use cases**, drawn by the shares that OpenAI saw in its early API
# (Ouyang et al., 2022, Table 1). Test requests use other words and other contents than training requests do.

# %%
for request in assistant.requests(6, args.seed + 1):
    print(f"[{request.use_case}] {request.prompt}\n    -> {request.response}")
print(*(f"{name} {share} %" for name, share in assistant.SHARES.items()), sep=", ")

# %%
def finetuned(conversations, seed):
    """A model finetuned on the responses of conversations."""
    model = load_lm(args.model)
    fit_sft(model, render_all(model, conversations)[0], batch=args.batch, lr=args.lr, seed=seed)
    return model


SEEDS = [args.seed + seed for seed in range(args.seeds)]
ASKED = {seed: assistant.conversations(assistant.requests(args.examples, seed)) for seed in SEEDS}
assistants = [finetuned(ASKED[seed], seed) for seed in progress(SEEDS, "assistants")]

# %% [markdown]
# Lesson 01 asked for capitals, and the base model gave no answers. Ask again, in wordings that no training request has.
# Every model gets 24 tokens and has to stop by itself: naming a second capital on the way counts as wrong.

# %%
questions = random.Random(args.seed).sample(assistant.capital_questions(), 100)


def answered(model, prompts=None):
    """Share of the capital questions that are answered, and the texts."""
    prompts = [chat_prompt(model, question.prompt) for question in questions] if prompts is None else prompts
    texts = complete(model, prompts, max_new_tokens=24, stop=())
    return accuracy(question.score(text) == 1 for question, text in zip(questions, texts)), texts


plain, plain_texts = answered(lm, [question.prompt for question in questions])
before, before_texts = answered(lm)
after = [answered(model) for model in assistants]
for question, *texts in list(zip(questions, plain_texts, before_texts, after[0][1]))[:3]:
    print(question.prompt)
    for name, text in zip(("base, question alone", "base, chat format", "finetuned"), texts):
        print(f"    {name:22s}{text!r}")

# %%
print("base, the question alone:", plain)
print("base, in the chat format:", before)
for seed, (estimate, texts) in zip(SEEDS, after):
    taught = assistant.requests(args.examples, seed)
    read = " ".join(request.response for request in taught)
    new = [question.score(text) == 1 for question, text in zip(questions, texts) if question.response not in read]
    print(f"finetuned, seed {seed}: {estimate}; answers that stand in no example: {accuracy(new)}; "
          f"{sum(request.task == 'capital' for request in taught)} of {args.examples} examples ask for a capital")  # fmt: skip

# %% [markdown]
# **What you saw.** [C08] From 0 of 100 to 95, 99 and 99, by 320 examples, of which 10 to 20 ask for a capital. Some
# three quarters of the answers stand in none of the examples, and come just as well: nobody taught the model here
# that Stockholm is the capital of Sweden. The fact was in the weights, where lesson 01 found it with a cloze; what
# finetuning taught is *that an answer comes next*, in what form, and where it ends. The chat format alone does
# nothing: the base model has never read it.

# %% [markdown]
# ### On what shall it be trained?
# The same examples, the same order, the same number of steps; the loss on the responses alone, or on the prompts as
# well. A smaller model, so that there is time for six of them.

# %%
asked = assistant.held_out_requests(args.each, args.seed)


def trained_on(everything, seed):
    """Held-out loss per response token, and share of the capital questions, of the smaller model."""
    model = load_lm(args.smaller)
    examples, held_out = (render_all(model, found)[0] for found in (ASKED[seed], assistant.conversations(asked)))
    if everything:
        examples = [Example(example.tokens, [True] * len(example.tokens)) for example in examples]
    fit_sft(model, examples, batch=4, lr=2e-3, seed=seed)
    return sft_loss(model, held_out), answered(model)[0].mean


kinds = {name: [trained_on(everything, seed) for seed in progress(SEEDS, name)]
         for name, everything in (("responses", False), ("all tokens", True))}  # fmt: skip
for place, measure in enumerate(("held-out loss, nats per response token", "capital questions answered")):
    one, other = ([run[place] for run in kinds[name]] for name in kinds)
    print(f"{measure}\n    responses {over_seeds(one)}, all tokens {over_seeds(other)}")
    print(f"    difference, seed by seed: {over_seeds([a - b for a, b in zip(one, other)])}")
tokens_said = sum(sum(example.mask) for example in examples) / sum(len(example.tokens) for example in examples)
print(f"of all tokens {tokens_said:.0%} are responses")

# %% [markdown]
# **What you saw.** Trained on the responses alone, the model finds the responses to other requests likelier, by 0.20
# nats per token, with an interval that excludes zero. More than half of all tokens are prompts, and how users put
# their requests is not what the model has to say; with the mask each step is about responses alone. The capital
# questions do not tell the two apart: three small models differ so much among themselves that the interval goes from
# −0.78 to 0.60. Take the mask for a good default and not for a law: where responses are short and examples are few,
# the prompt's tokens have been found to help (Shi et al., 2024).

# %% [markdown]
# ## Idea 1: use existing benchmarks
# Prompts with known answers exist already, in NLP benchmarks: inference, question answering, sentiment.

# %%
for item in benchmarks.items(40, args.seed)[:3] + benchmarks.hans(2, args.seed):
    print(f"[{item.benchmark}] {item.prompt!r} -> {item.response!r}")

# %% [markdown]
# The last two are from a test after **HANS** (McCoy et al., 2019): every word of the hypothesis stands in the
# premise, so that the overlap of words, which gives most training items away, says nothing.
#
# Three models, two tests. The score on use cases is a mean of very different numbers. By which weights? By how often
# users ask, the shares of the table.

# %% ex="3.4" points=1 minutes=6 difficulty="easy"
def overall(scores, shares):
    """The mean of the scores, weighted by how often their use cases are asked.

    scores {use case: number}, of some use cases; shares {use case: percent}, of all of them, perhaps more.
    """
    # BEGIN SOLUTION
    total = sum(shares[name] for name in scores)
    return sum(score * shares[name] for name, score in scores.items()) / total
    # END SOLUTION

# %% ex="3.4" role="check"
overall = check("3.4", overall)

# %% [markdown] ex="3.4" role="hints"
# <details><summary>Hint 1</summary>A use case that was not scored must not pull the mean down: the weights that are used
# have to sum to 1.</details>
# <details><summary>Hint 2</summary>Divide the sum of score times share by the sum of the shares of the scored use
# cases.</details>

# %%
def use_cases(model):
    """The score of every use case, by its verifiers, and "overall", by the table's shares; and the responses."""
    texts = complete(model, [chat_prompt(model, request.prompt) for request in asked], max_new_tokens=72)
    return assistant.score_by_use_case(asked, texts), texts


scored = {"assistant": [use_cases(model) for model in progress(assistants, "use cases")]}
checked = {name: e.mean for name, e in scored["assistant"][0][0].items() if name != "overall"}
assert abs(overall(checked, assistant.SHARES) - scored["assistant"][0][0]["overall"].mean) < 1e-9
tests = {name: benchmarks.items(args.count, args.seed + 5, benchmarks=[name], held_out=True)
         for name in benchmarks.BENCHMARKS} | {"hans": benchmarks.hans(args.count, args.seed + 5)}  # fmt: skip


def benchmark_scores(model):
    """{benchmark: (share matched exactly, share that mentions the answer)}."""
    found = {}
    for name, items in tests.items():
        texts = complete(model, [chat_prompt(model, item.prompt) for item in items], max_new_tokens=16)
        exact = exact_match(texts, [item.response for item in items])
        mentioned = [mentions(text, item.response) for text, item in zip(texts, items)]
        found[name] = sum(exact) / len(items), sum(mentioned) / len(items)
    return found


BENCHMARKED = {seed: assistant.conversations(benchmarks.items(args.examples, seed)) for seed in SEEDS}
models = {"base": [lm], "benchmarks": [finetuned(BENCHMARKED[seed], seed) for seed in progress(SEEDS, "benchmarks")],
          "assistant": assistants}  # fmt: skip
scored |= {name: [use_cases(model) for model in progress(models[name], "use cases")] for name in ("base", "benchmarks")}
on_benchmarks = {name: [benchmark_scores(model) for model in found] for name, found in models.items()}

# %%
def spread(values):
    """The mean over seeds with its interval; the base model is one model and has none."""
    return over_seeds(values) if len(values) > 1 else f"{values[0]:.2f}"


overalls = {name: [scores["overall"].mean for scores, _ in runs] for name, runs in scored.items()}
print("finetuned on   use cases, overall")
for name in models:
    print(f"{name:14s} {spread(overalls[name])}")
lead = [one - other for one, other in zip(overalls["assistant"], overalls["benchmarks"])]
print("assistant minus benchmarks, seed by seed:", over_seeds(lead))
for place, kind in enumerate(("exact match", "answer mentioned")):
    print(f"benchmarks, {kind}")
    for name, runs in on_benchmarks.items():
        print(f"{name:14s}", "; ".join(f"{test} {spread([run[test][place] for run in runs])}" for test in tests))

# %%
figure, axes = pyplot.subplots(figsize=(7.8, 3))
names = [*assistant.SHARES, "overall"]
for index, name in enumerate(models):
    means = {use_case: sum(scores[use_case].mean for scores, _ in scored[name]) / len(scored[name]) for use_case in names}
    # the models of all seeds answer the same requests, so they are no more requests
    estimates = [wilson(means[use_case], scored[name][0][0][use_case].n) for use_case in names]
    print(f"{name:10s}", ", ".join(f"{use_case} {means[use_case]:.2f}" for use_case in names[:-1]))
    figures.bars(axes, names, estimates, index, groups=3)
    axes.containers[-1].set_label("nothing (base)" if name == "base" else name)
axes.set(title="What users ask: score by use case", ylabel="score, 0 to 1", ylim=(0, 1.05))
pyplot.setp(axes.get_xticklabels(), fontsize=8, rotation=30, ha="right")
axes.legend(fontsize=8, title="finetuned on", title_fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
figure.tight_layout()
shown = ", ".join(f"{name} {sum(overalls[name]) / len(overalls[name]):.2f}" for name in models)
show(figure, alt=f"Scores by use case, three bars each. Overall, by finetuning data: {shown}.")

# %%
figure, axes = pyplot.subplots(figsize=(5.4, 2.9))
for index, (name, runs) in enumerate(on_benchmarks.items()):
    estimates = [wilson(sum(run[test][0] for run in runs) / len(runs), args.count) for test in tests]
    figures.bars(axes, [*tests], estimates, index, groups=3)
    axes.containers[-1].set_label("nothing (base)" if name == "base" else name)
axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
axes.set(title="Benchmarks (dotted: chance where two answers exist)", ylabel="exact match", ylim=(0, 1.05))
axes.legend(fontsize=8, title="finetuned on", title_fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
means = ", ".join(f"{test} {sum(run[test][0] for run in on_benchmarks['benchmarks']) / args.seeds:.2f}" for test in tests)
show(figure, alt=f"Exact match on four benchmarks: the model finetuned on benchmarks has {means}, "
     "the others next to nothing.")  # fmt: skip

# %%
for use_case in ("generation", "brainstorming", "rewrite", "closed qa"):
    place = next(i for i, request in enumerate(asked) if request.use_case == use_case)
    print(f"[{use_case}] {asked[place].prompt}")
    for name in models:
        print(f"    {name:11s} {scored[name][0][1][place].strip()!r}")

# %% [markdown]
# **What you saw.** [C09] The same number of examples and of steps, and each model wins on the test that its data
# looks like. On what users ask the assistant has 0.57 and the model of the benchmarks 0.09; between them lie 48
# points, with an interval from 34 to 62. On the benchmarks it is 0.80, 1.00 and 0.94 against 0.00 each. That is the
# lecture's **distribution shift**: not a lack of data, and not of knowledge, but data of another kind. Asked for a
# story, the model of the benchmarks says *positive*, since every response that it has seen is one or two words long.
#
# Four things to be fair about.
#
# * **Form.** An exact match judges the form as well. The assistant answers in sentences, so it scores 0.00 even where
#   it is right: 0.73 of its answers to the benchmark's questions mention the answer. But it never says *yes* or *no*
#   to an inference, nor *positive* or *negative* to a review in the benchmark's form, however leniently one looks.
# * **What the benchmark taught.** 0.80 on inference and 0.58 on HANS, where guessing gives one half: the model has
#   learned that a new word or a *not* means *no*, and hardly whether one sentence follows from another. A high score
#   on a benchmark need not mean the ability that it is named after (McCoy et al., 2019).
# * **Where users ask what a benchmark asks**, its model does well: 0.47 on *open qa*, and 0.80 on *classification*,
#   where the assistant has 0.27. Wei et al. (2022) and Sanh et al. (2022) turned dozens of benchmarks into
#   instructions, with many wordings each, and their models do follow instructions that they have not seen. More kinds
#   of data overlap with more kinds of requests.
# * **Small numbers.** Ten requests per use case leave whiskers of half the axis. In *classification* the base scores
#   0.40: after four of the reviews it goes on with *positive*, and they happen to be. The rare use cases have a
#   handful of examples each, in the table's shares, and score accordingly; *extract* is not learned at all.

# %% [markdown]
# ## Train on what will be asked
# "Collect training data that is similar to test data." How similar? Take the same number of requests, from *some* of
# the use cases only, and test on all ten. Their **overlap** with the test is the share of what users ask that belongs
# to a use case in training. Two parts, the four most frequent use cases and the other six: each use case is in one.

# %%
PARTS = [tuple(assistant.SHARES)[:4], tuple(assistant.SHARES)[4:]]
by_part = {}
for part in progress(PARTS, "parts"):
    drawn = assistant.requests(args.examples, args.seed, use_cases=part)
    by_part[part], _ = use_cases(finetuned(assistant.conversations(drawn), args.seed))
overlaps = {part: sum(assistant.SHARES[name] for name in part) / sum(assistant.SHARES.values()) for part in PARTS}
for part in sorted(PARTS, key=overlaps.get):
    print(f"overlap {overlaps[part]:.2f}, overall {by_part[part]['overall'].mean:.2f}: {', '.join(part)}")
print("use case        left out  trained")
outside, inside = ({name: by_part[part][name] for part in PARTS for name in assistant.SHARES if (name in part) == kept}
                   for kept in (False, True))  # fmt: skip
for name in assistant.SHARES:
    print(f"{name:15s} {outside[name].mean:8.2f} {inside[name].mean:8.2f}")

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.1), width_ratios=(1.7, 1))
for index, (label, values) in enumerate((("left out of training", outside), ("in training", inside))):
    figures.bars(left, [*assistant.SHARES], [values[name] for name in assistant.SHARES], index, groups=2)
    left.containers[-1].set_label(label)
left.set(title="The same use cases, left out and trained", ylabel="score, 0 to 1", ylim=(0, 1.35))
left.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
pyplot.setp(left.get_xticklabels(), fontsize=8, rotation=30, ha="right")
left.legend(fontsize=8, ncols=2, loc="upper center")
points = [(overlaps[part], by_part[part]["overall"].mean) for part in PARTS]
right.plot(*zip(*points), "o", color=figures.COLORS[0], label="some use cases")
right.plot([0.0] * args.seeds, overalls["benchmarks"], "s", color=figures.COLORS[1], label="benchmarks")
right.plot([1.0] * args.seeds, overalls["assistant"], "^", color=figures.COLORS[2], label="all ten")
right.set(title="Score against overlap", xlabel="share of requests of a trained use case", ylabel="overall score",
          ylim=(0, 1.05))  # fmt: skip
right.legend(fontsize=8)
figure.tight_layout()
said = ", ".join(f"{x:.2f}: {y:.2f}" for x, y in sorted(points))
show(figure, alt=f"Left: every use case scores less when it is left out. Right: overall score by overlap, {said}.")

# %% [markdown]
# **What you saw.** [C10] A use case that is left out scores 0.00 to 0.10, whatever it is. In training, and with the
# same number of examples spread over fewer use cases, it scores up to 1.00. So the overall score follows the overlap,
# from 0.09 at none over 0.13 and 0.48 to 0.57 where all are trained. Little transfers from one use case to another in
# a model of this size; in large ones, with many more tasks, some does (Wei et al., 2022). The two points in the
# middle are one model each.
#
# And how do we know what test data is like? Ouyang et al. had prompts that customers sent to their API, and customers
# sent them because a *working-ish* model answered there. Look at the base model's responses above: nobody would have
# come back with a second request. So the circle is entered from the outside: labelers wrote the prompts for the very
# first model themselves. It was good enough for somebody to use it; its users' prompts are the pilot data for the next
# one, and that one is asked other things again. If you have no users, lesson 04 lets a model invent the prompts.

# %% [markdown]
# ## Silent bug lab
# Five ways to make a batch of packed rows: the right one, and four with one bug each. None raises an error. Each row
# holds one country's capital, asked in four wordings; the test asks about other countries, in a fifth one.

# %%
WORDINGS = ("What is the capital of {}?", "Tell me the capital of {}.", "Which city is the capital of {}?",
            "{} has which capital?")  # fmt: skip
rng = random.Random(args.seed)
facts = relations.stated("capital")
rng.shuffle(facts)
taught, others = facts[:60], facts[60:110]


def exchange(wording, name, city):
    return [{"role": "user", "content": wording.format(name)}, {"role": "assistant", "content": f"{city}."}]


ROWS = [[render(lm, exchange(wording, *fact)) for wording in WORDINGS] for fact in taught]


def right_row(row):
    """Inputs, targets, whether a target is trained, and segments, of one packed row."""
    tokens = torch.tensor([token for example in row for token in example.tokens])
    said = torch.tensor([said for example in row for said in example.mask])
    segments = torch.tensor([number for number, example in enumerate(row) for _ in example.tokens])
    return tokens[:-1], tokens[1:], said[1:], segments[:-1]


# %%
def run_a(row):
    inputs, targets, trained, segments = right_row(row)
    return inputs, targets, trained & (targets != lm.tokenizer.pad_token_id), segments


def run_b(row):
    inputs, targets, trained, segments = right_row(row)
    return inputs, targets, trained.roll(1), segments


def run_c(row):
    inputs, targets, trained, segments = right_row(row)
    return inputs, targets, trained, torch.zeros_like(segments)


def run_d(row):
    inputs, targets, trained, segments = right_row(row)
    return inputs, inputs.clone(), trained, segments


VERSIONS = {"right": right_row, "run A": run_a, "run B": run_b, "run C": run_c, "run D": run_d}

# %%
def batch_of(version, rows):
    """The rows as a rollout and its segments, padded on the right."""
    parts = zip(zip(*map(version, rows)), (end, end, False, -1))
    inputs, targets, trained, segments = (pad_and_stack(part, value=filler)[0] for part, filler in parts)
    zeros = torch.zeros(inputs.shape)
    return Rollout(inputs, targets, zeros, zeros, trained, torch.ones(len(rows), dtype=torch.bool)), segments


def loss_of(model, version, rows):
    rollout, segments = batch_of(version, rows)
    logprobs = response_logprobs(model, rollout, segments)
    return policy_gradient_loss(logprobs, torch.ones_like(logprobs), rollout.mask, normalizer=rollout.mask.sum())


def learned(version, steps=20):
    model, losses, order = load_lm(args.model), [], random.Random(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(steps):
        loss = loss_of(model, version, order.sample(ROWS, 2))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return model, losses


lab = {name: learned(version) for name, version in progress(VERSIONS.items(), "lab")}

# %%
figure, axes = pyplot.subplots(figsize=(5, 2.9))
for index, (name, (model, losses)) in enumerate(lab.items()):
    axes.plot(range(1, len(losses) + 1), losses, color=figures.COLORS[index], linestyle=figures.DASHES[index % 4],
              marker=figures.MARKERS[index], markevery=4, markersize=4, label=name)  # fmt: skip
    texts = complete(model, [chat_prompt(model, f"Name the capital of {name}.") for name, _ in others],
                     max_new_tokens=16, stop=())  # fmt: skip
    begun = sum(mentions(text, city) for text, (_, city) in zip(texts, others))
    exact = sum(text.strip() == f"{city}." for text, (_, city) in zip(texts, others))
    print(f"{name:6s} loss {losses[0]:6.3f} -> mean of the last five {sum(losses[-5:]) / 5:.3f}; of {len(others)} answers "
          f"{begun} name the capital, {exact} are exact; {others[0][0]}: {texts[0][:40]!r}")  # fmt: skip
axes.set(title="One right batch, four silent bugs", xlabel="steps", ylabel="loss, nats per trained token", yscale="log",
         ylim=(3e-4, 30))  # fmt: skip
axes.set_xticks(range(0, 21, 5))
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
finals = ", ".join(f"{name} {sum(losses[-5:]) / 5:.3f}" for name, (_, losses) in lab.items())
show(figure, alt=f"Training loss over 20 steps for the right batch and four runs. Mean of the last five: {finals}.")

# %% [markdown]
# All the losses fall. **Property tests** of a right batch, on one packed row:
#
# - *trained*: trained targets for each token of a response: 1;
# - *first* and *end*: share of responses whose first token, and whose end token, is trained: 1;
# - *seen*: share of trained targets that the model sees at the very position that predicts them: 0;
# - *neighbour*: how far the log-probability of a response changes when another example stands before it in its row: 0.

# %%
def neighbour(version, row, other):
    """Change of the log-probability of a row's last two trained targets when another example stands before them."""
    scores = []
    for pair in ([row[0], row[-1]], [other[0], row[-1]]):
        rollout, segments = batch_of(version, [pair])
        with torch.no_grad():
            logprobs = response_logprobs(lm, rollout, segments)
        scores.append(logprobs[rollout.mask][-2:].sum())
    return float((scores[0] - scores[1]).abs())


print("       trained  first    end   seen  neighbour")
for name, version in VERSIONS.items():
    inputs, targets, trained, _ = version(ROWS[0])
    _, truth, said, _ = right_row(ROWS[0])
    starts = said & ~said.roll(1)
    ends = said & (truth == end)
    columns = (trained.sum() / said.sum(), trained[starts].float().mean(), trained[ends].float().mean(),
               (targets == inputs)[trained].float().mean(), neighbour(version, ROWS[0], ROWS[1]))  # fmt: skip
    print(f"{name:6s} {columns[0]:7.2f} {columns[1]:6.2f} {columns[2]:6.2f} {columns[3]:6.2f} {columns[4]:10.2f}")

# %% [markdown]
# The list of suspects. Four of them are guilty, one per run. Name them.
#
# | name | the bug |
# |---|---|
# | `labels not shifted` | the target of a position is the token that stands there |
# | `mask off by one` | the mask is one place late against the targets |
# | `end not trained` | what equals the padding token is taken out of the mask |
# | `neighbours seen` | examples of a row attend to each other |
# | `mask inverted` | prompts are trained and responses are not |
# | `prompt trained too` | the mask is True everywhere |
# | `mean per row` | the loss is the mean over rows of each row's mean |
# | `header trained` | the word that opens the assistant's turn is trained too |

# %% ex="3.5" points=3 minutes=12 difficulty="hard"
# For each run the name of its bug, from the table above: {"A": "...", "B": "...", "C": "...", "D": "..."}
# BEGIN SOLUTION
bugs = {"A": "end not trained", "B": "mask off by one", "C": "neighbours seen", "D": "labels not shifted"}
# END SOLUTION

# %% ex="3.5" role="check"
bugs = check("3.5", bugs)

# %% [markdown] ex="3.5" role="hints"
# <details><summary>Hint 1</summary>Read the table column by column, against the row `right`. Then look at what each run
# says about the first country.</details>
# <details><summary>Hint 2</summary>Two runs train as many targets as the right one, at the right places. In one of them
# the target is known before it is predicted.</details>

# %%
print(bugs)

# %% [markdown]
# **What you saw.** The losses of all runs fall, and three of the four bugs do harm. Run A names 44 of 50 capitals and
# ends after 4 of them: its ends were taken for padding. Run B has learned how an answer goes on and not how it
# begins. Run D has to predict what it has just read, the easiest task of all, and has learned to repeat. Run C
# answers like the right one *here*, since the model knows the facts anyway; only a property test finds it. (The 0.15
# of run B under *seen* are the places behind an end, where the next example begins with the same token.) Where a
# neighbour gives away what cannot be known otherwise, its loss would be the lowest of all, and worth nothing.
#
# ## Recap
# - A conversation is one sequence of tokens, by a template, and a mask of what the assistant says, the end token
#   included.
# - The loss is the mean of $-\log \pi_\theta$ over those tokens, shifted by one: labels with −100, or a policy gradient
#   with weights 1.
# - Packed examples must not see each other, and count their positions from 0: then packing changes the cost alone.
# - A few hundred examples turn a text that goes on into answers. They bring out what the model knows [C08].
# - Data that looks like a benchmark makes a model for benchmarks [C09]; a use case that is left out is not learned
#   [C10].
#
# ## Try next
# - `--examples 1500 --batch 8 --lr 1e-3`, five times the data: which use cases catch up, and which do not?
# - `--model pocket-s`, `--model pocket-l`: does a larger model need fewer examples?
# - Draw training requests with equal shares, by `assistant.requests(32, seed, use_cases=[name])` for each name. What
#   does the overall score lose, and what do the rare use cases win?
# - Let run C's rows hold facts that the model does *not* know, such as invented homes of people. Is it still harmless?
#
# ## References
# - Ouyang et al. (2022). Training language models to follow instructions with human feedback. *NeurIPS*.
# - Wei et al. (2022). Finetuned language models are zero-shot learners. *ICLR*.
# - Sanh et al. (2022). Multitask prompted training enables zero-shot task generalization. *ICLR*.
# - Wang et al. (2022). Super-NaturalInstructions: Generalization via declarative instructions on 1600+ NLP tasks.
#   *EMNLP*.
# - Wang et al. (2023). Self-Instruct: Aligning language models with self-generated instructions. *ACL*.
# - McCoy, Pavlick & Linzen (2019). Right for the wrong reasons: Diagnosing syntactic heuristics in natural language
#   inference. *ACL*.
# - Shi et al. (2024). Instruction tuning with loss over instructions. *NeurIPS*.
# - Krell, Kosec, Perez & Fitzgibbon (2021). Efficient sequence packing without cross-contamination: Accelerating large
#   language models without impacting performance. arXiv:2107.02027.
