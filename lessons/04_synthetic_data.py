# Lesson 04: synthetic data. jupytext py:percent; runs as a script: python lessons/04_synthetic_data.py --help

# %% [markdown]
# # 04 · Synthetic data: examples that a model wrote
#
# Finetuning needs prompts and responses, and people are slow and expensive. Can a language model write both? You write
# Self-Instruct, the loop in which it does, let a finished assistant and then a base model turn it, work out what Alpaca
# cost, and measure what imitation of a teacher gives and what it does not. At the end stands a contest: 200 examples
# out of 2,000. *(Lecture: "Use off-the-shelf LMs to generate prompts and responses", "How good are distilled models?";
# claims C11–C15.)* About 130 minutes, 95 of them for the exercises; runs in 80 s on two CPU cores.
#
# **You will need** finetuning on conversations (lesson 03). **You will be able to** have data written, filter it, say
# what it cost, and read a claim about a distilled model with the right questions.
#
# To change a knob in a notebook, change a default in the cell with `arguments`, and run all cells again.

# %%
from ptlearn.course.session import arguments, show  # first: from here on, Ctrl-C is one line

import itertools
import math
import random
import re
from collections import Counter

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.course.predictions import predict
from ptlearn.finetuning.parameter_efficient import switch_adapter
from ptlearn.finetuning.sft import fit_sft
from ptlearn.finetuning.synthetic import task_and_output, teacher
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import rouge_l
from ptlearn.pocket import assistant, data_contest, filtering, form_and_fact, imitation
from ptlearn.pocket.assistant import respond
from ptlearn.pocket.filtering import well_formed
from ptlearn.pocket.teacher import load_teacher, proposal
from ptlearn.statistics import accuracy, over_seeds, wilson

# %%
args = arguments(
    "Self-Instruct, distillation and its limits.",
    student=("pocket-m", "the model that learns: a pocket model, a folder or a hub id"),
    count=(256, "instructions that the teacher is asked for", "at least 16"),
    requests=(200, "held-out requests of the test", "at least 2"),
    seed=(0, "of everything", "at least 0"),
)
torch.set_num_threads(1)  # small tensors: a second thread would only wait for the first
lm = load_teacher()
SEEDS = assistant.requests(175, args.seed)
for request in SEEDS[:4]:
    print(f"{request.prompt}\n    {request.response[:90]}")

# %% [markdown]
# Above are four of the **175 seed tasks** of this lesson, as many as Self-Instruct had: requests that people wrote,
# with a good response each.
#
# ## Predict first
# A teacher is shown four requests at a time and asked for another one, 256 times. A student of 175 seed tasks and of
# the teacher's pairs is tested on what users ask. Type over the dots:
#
# 1. Of a hundred requests that the teacher writes, how many read like something a user could have asked?
# 2. The paper's filter keeps the new ones, those that are unlike all others. Of a hundred of *these*, how many do?
# 3. What share of the teacher's score does the student reach?
# 4. Students (pocket-m) of four times the data: what does a fourfold add to the score (0 to 1) while the data is small,
#    and what when it is large?
# 5. Such a student has read 30 of the teacher's responses. What share of its own answers has the teacher's form, and
#    what share is right?

# %%
guesses = predict(
    well_formed_of_all=...,  # of a hundred
    well_formed_of_the_new=...,  # of a hundred
    share_of_the_teachers_score=...,  # 0 to 1
    fourfold_of_little_data=...,  # a difference of scores, 0 to 1
    fourfold_of_much_data=...,  # a difference of scores, 0 to 1
    form_after_30=...,  # 0 to 1
    right_after_30=...,  # 0 to 1
)

# %% [markdown]
# ## One loop, two kinds of teacher
# - **Self-Instruct** (Wang et al., 2023): GPT-3, a *base model*, was shown eight tasks and continued the list; it also
#   answered its own tasks, with examples in the prompt. Then it was finetuned on that text: a model that teaches
#   itself.
# - **Alpaca** (Taori et al., 2023): the same loop with text-davinci-003, a *finished assistant*, in the place of GPT-3,
#   and LLaMA 7B as the student: **distillation** of what somebody else's finetuning has made.
#
# The loop is the same, where the knowledge comes from is not. Ours has both: the assistant is pocket-l with a LoRA
# adapter (lesson 06) that was finetuned on 8,000 requests (`ptlearn/pocket/teacher.py`); with the adapter off it is the
# base. It was also taught to answer this message with a new request:

# %%
people = [r.prompt for r in SEEDS if len(r.prompt.split()) <= 12]  # four fit the context
print(proposal(people[:4]))
print()
for prompt in ("Name four words for weather.", "Tell me about Peru.", "I bought a red hat."):
    print(f"{prompt}\n    {respond(lm, [prompt])[0][:90]}")

# %% [markdown]
# ## The loop, piece by piece
# One round: show some instructions, let the teacher propose new ones, throw away what is no good or not new, let it
# answer the rest, and judge the responses. What is accepted joins the pool that the next rounds draw from. First, what
# is shown. Of the eight instructions of a prompt, Self-Instruct takes at most **two** from the machine's own: a model
# that reads its own text only drifts away from what people ask.

# %% ex="4.1" title="What the teacher is shown" points=1 minutes=8 difficulty="easy"
def demonstrations(people, machine, count, rng):
    """`count` instructions for one prompt, drawn with `rng`, a random.Random, in random order.

    people, machine: lists of instructions, which stay as they are. Two are the machine's,
    fewer where it has fewer, and at least one is people's. None is drawn twice.
    """
    # BEGIN SOLUTION
    few = rng.sample(machine, min(2, len(machine), count - 1))
    shown = few + rng.sample(people, count - len(few))
    rng.shuffle(shown)
    return shown
    # END SOLUTION

# %% ex="4.1" role="check"
demonstrations = check("4.1", demonstrations)

# %% [markdown] ex="4.1" role="hints"
# <details><summary>Hint 1</summary>How many of the machine's: <code>min(2, len(machine), count - 1)</code>. The others
# are people's.</details>
# <details><summary>Hint 2</summary><code>rng.sample(texts, k)</code> draws k without putting back and leaves the list as
# it is; <code>rng.shuffle(shown)</code> changes the order in place.</details>

# %% [markdown]
# Then what is no good, whoever reads it: a text without an end, an empty one, one that is too short or too long; and
# among responses, a refusal and a repetition of the prompt. Such rules are crude and cheap, and every pipeline has
# them.

# %%
REFUSALS = ("i am sorry", "i'm sorry", "i cannot", "i can not", "i do not know", "as an ai")

# %% ex="4.2" title="Texts that are no good" points=1 minutes=8 difficulty="easy"
def flaw(text, fewest, most, prompt=None):
    """What is wrong with a text that a model wrote, "" if nothing: the first that holds of

    "unfinished": there is no text (None), because the model came to no end;
    "empty": nothing but white space;
    "length": fewer than `fewest` or more than `most` words;
    and of a response, which has a prompt that is not None,
    "refusal": it begins with one of REFUSALS;
    "echo": it is the prompt again.
    In these two capital letters do not matter, nor does white space at the ends.
    """
    # BEGIN SOLUTION
    if text is None:
        return "unfinished"
    if not text.strip():
        return "empty"
    if not fewest <= len(text.split()) <= most:
        return "length"
    if prompt is not None:
        said = text.strip().lower()
        if said.startswith(REFUSALS):
            return "refusal"
        if said == prompt.strip().lower():
            return "echo"
    return ""
    # END SOLUTION

# %% ex="4.2" role="check"
flaw = check("4.2", flaw)

# %% [markdown] ex="4.2" role="hints"
# <details><summary>Hint 1</summary>One <code>if</code> with a <code>return</code> for each line, in this order. An
# instruction has no prompt and can neither refuse nor echo.</details>
# <details><summary>Hint 2</summary><code>text.strip().lower().startswith(REFUSALS)</code> takes a tuple of
# beginnings.</details>

# %% [markdown]
# What is new? Two instructions are compared by **ROUGE-L**: the longest common subsequence of their words, as an
# F-measure between 0 and 1 (Lin, 2004).

# %%
for left, right in (("Name four words for weather.", "Name five words for weather."),
                    ("What is the capital of Chad?", "What is 3 + 4?")):  # fmt: skip
    print(f"{rouge_l(left, right):.2f}  {left}  |  {right}")

# %% [markdown]
# Self-Instruct takes a proposal into the pool when its ROUGE-L with **every** instruction of the pool, people's and
# accepted ones, is **below 0.7**.

# %% ex="4.3" title="The novelty filter" points=2 minutes=8 difficulty="medium"
def accepted(proposals, pool, threshold, similarity):
    """The numbers of the proposals that are accepted, taken in order.

    proposals and pool are lists of texts, similarity(text, text) gives their ROUGE-L. Later
    proposals are compared with the accepted ones, too. `pool` stays as it is.
    """
    # BEGIN SOLUTION
    known, numbers = list(pool), []
    for number, text in enumerate(proposals):
        if all(similarity(text, other) < threshold for other in known):
            known.append(text)
            numbers.append(number)
    return numbers
    # END SOLUTION

# %% ex="4.3" role="check"
accepted = check("4.3", accepted)

# %% [markdown] ex="4.3" role="hints"
# <details><summary>Hint 1</summary>The pool grows: the second of two proposals that are alike is compared with the
# first.</details>
# <details><summary>Hint 2</summary><code>all(similarity(text, other) &lt; threshold for other in known)</code>, and
# <code>known</code> starts as a copy of the pool.</details>

# %% [markdown]
# Now the round. What it works with is handed in as functions, so that it can be tried without a model: `propose` and
# `answer` ask the teacher, `accept` is your filter, `flaw` your rules.

# %% ex="4.4" title="A round" points=3 minutes=18 difficulty="hard"
def one_round(prompts, pool, propose, accept, answer, flaw):
    """The teacher proposes; what is sound and new it answers; the responses are judged, too.

    propose(prompts), answer(instructions): one text each, or None. Call each once, with all.
    accept(texts, pool): the numbers, among these texts, of those that are new. Call it once.
    flaw(text), flaw(response, instruction): what is wrong, "" if nothing. What has a flaw is
    not offered to accept, and only what accept lets through is answered.
    Returns a row (instruction, response, verdict) for every proposal, in order, "" where there
    is no text. The verdict: the instruction's flaw; "similar", which accept left out;
    "response " and the response's flaw; or "kept".
    """
    # BEGIN SOLUTION
    texts = propose(prompts)
    flaws = [flaw(text) for text in texts]
    sound = [number for number, found in enumerate(flaws) if not found]
    new = [sound[place] for place in accept([texts[number] for number in sound], pool)]
    responses = dict(zip(new, answer([texts[number] for number in new])))
    rows = []
    for number, text in enumerate(texts):
        verdict, response = flaws[number] or "similar", responses.get(number)
        if number in responses:
            found = flaw(response, text)
            verdict = f"response {found}" if found else "kept"
        rows.append((text or "", response or "", verdict))
    return rows
    # END SOLUTION

# %% ex="4.4" role="check"
one_round = check("4.4", one_round)

# %% [markdown] ex="4.4" role="hints"
# <details><summary>Hint 1</summary>Keep the numbers of the proposals: a list of those without a flaw, and of these the
# ones that <code>accept</code> names. It names places in the list that you hand it.</details>
# <details><summary>Hint 2</summary><code>responses = dict(zip(new, answer([...])))</code> holds the response of each
# number that was answered; then walk over all texts and write a row for each.</details>

# %% ex="4.5" title="Rounds that feed the pool" points=2 minutes=14 difficulty="medium"
def self_instruct(people, count, batch, write, run):
    """Rounds of at most `batch` proposals until there are `count`; returns all their rows.

    write(people, machine) -> a prompt that shows some of them; called once for every proposal.
    run(prompts, pool) -> the rows of a round. The pool: people's instructions, the machine's.
    The machine's are those of earlier rounds that passed as instructions, also where their
    response failed: what has been proposed is not new. `people` stays as it is.
    """
    # BEGIN SOLUTION
    machine, rows = [], []
    while len(rows) < count:
        size = min(batch, count - len(rows))
        prompts = [write(people, machine) for _ in range(size)]
        found = run(prompts, people + machine)
        for text, _, verdict in found:
            if verdict == "kept" or verdict.startswith("response "):
                machine.append(text)
        rows += found
    return rows
    # END SOLUTION

# %% ex="4.5" role="check"
self_instruct = check("4.5", self_instruct)

# %% [markdown] ex="4.5" role="hints"
# <details><summary>Hint 1</summary>Two lists, <code>machine</code> and <code>rows</code>, and a
# <code>while len(rows) &lt; count</code>.</details>
# <details><summary>Hint 2</summary>The last round may be smaller: <code>min(batch, count - len(rows))</code>. The pool is
# <code>people + machine</code>, a new list.</details>

# %% [markdown]
# ## The loop with a teacher
# The pieces together. To see later what the filter takes, only exact repetitions are rejected now.

# %%
rng = random.Random(args.seed)


def asking(model, **options):
    """A model as a function from prompts to texts, None where it came to no end."""
    generate, calls = teacher(model, **options), itertools.count(args.seed)
    return lambda prompts: [text and text.strip() for text in generate(prompts, next(calls))]


def judge(text, prompt=None):
    return flaw(text, 3 if prompt is None else 1, 150, prompt)


def only_repetitions(texts, pool):
    return accepted(texts, pool, 1, lambda left, right: left == right)


def loop(count, proposal_prompt, response_prompt):
    propose, answer = asking(lm, max_new_tokens=40), asking(lm, max_new_tokens=96, top_k=1)
    return self_instruct(
        people, count, 64,
        write=lambda *both: proposal_prompt(demonstrations(*both, 4, rng)),
        run=lambda prompts, pool: one_round(
            prompts, pool, propose, only_repetitions,
            lambda asked: answer([response_prompt(text) for text in asked]) if asked else [],
            judge,
        ),
    )  # fmt: skip


rows = loop(
    args.count,
    proposal_prompt=lambda shown: chat_prompt(lm, proposal(shown)),
    response_prompt=lambda text: chat_prompt(lm, text),
)
print(Counter(verdict for _, _, verdict in rows))
kept = [(text, response) for text, response, verdict in rows if verdict == "kept"]
for text, response in kept[:: max(1, len(kept) // 8)]:
    print(f"{text}\n    {response[:90]}")

# %% [markdown]
# More than half read like what people ask; the others are broken: at temperature 1 tokens that are 4 % likely together
# turn up in four of ten texts of 13 tokens. Nobody has time to read 52,000 of these, but in this small world an
# instruction is easily judged: it is **well formed** when it fits one of the phrasings that the world's users have. Now
# the paper's filter, below 0.7:

# %%
texts = [text for text, _ in kept]
strict = accepted(texts, people, 0.7, rouge_l)
rejected = sorted({*range(len(texts))} - {*strict})
formed = {}
every = range(len(texts))
for name, numbers in (("all", every), ("new by ROUGE-L", strict), ("not new", rejected)):
    formed[name] = accuracy([well_formed(texts[n]) for n in numbers] or [False])
    print(f"{name:15s} {len(numbers):4d}, well formed {formed[name]}")
guesses.reveal("well_formed_of_all", 100 * formed["all"].mean)
guesses.reveal("well_formed_of_the_new", 100 * formed["new by ROUGE-L"].mean)

# %%
nearest = {good: [max(rouge_l(text, other) for other in people) for text in texts
                  if well_formed(text) == good] for good in (True, False)}  # fmt: skip
figure, axes = pyplot.subplots(figsize=(5, 2.9))
axes.hist([nearest[True], nearest[False]], bins=[n / 20 for n in range(21)], stacked=True,
          color=figures.COLORS[:2], label=["well formed", "broken"])  # fmt: skip
axes.axvline(0.7, color="black", linestyle=":", label="threshold")
axes.set(title="How near the proposals are to people's", ylabel="proposals",
         xlabel="highest ROUGE-L with a seed task")  # fmt: skip
axes.legend(fontsize=8)
far = [sum(value < 0.5 for value in nearest[good]) for good in (True, False)]
show(figure, alt=f"Histogram of the highest ROUGE-L with a seed task. Below 0.5: {far[0]} "
     f"well formed, {far[1]} broken; above 0.7 most are well formed.")  # fmt: skip

# %% [markdown]
# ## The student
# A base model that has never seen a response reads the seed tasks and what the teacher wrote, four times, and is scored
# by the verifiers of lesson 03 on held-out requests, in the shares of the users.

# %%
asked = assistant.requests(args.requests, 1000 + args.seed, held_out=True)


def score(model):
    said = respond(model, [request.prompt for request in asked])
    return wilson(sum(r.score(text) for r, text in zip(asked, said)) / len(asked), len(asked))


pairs = [(request.prompt, request.response) for request in SEEDS] + kept
student = load_lm(args.student)
scores = {"teacher": score(lm)}
talks = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
         for prompt, response in pairs]  # fmt: skip
fit_sft(student, render_all(student, talks)[0], epochs=4, batch=8, lr=1e-3, seed=args.seed)
scores["student"] = score(student)
for name, found in scores.items():
    print(f"{name:8s} {found}")
guesses.reveal("share_of_the_teachers_score", scores["student"].mean / scores["teacher"].mean)

# %% [markdown]
# Is the filter worth its name? A fair comparison takes as many pairs drawn *at random*, and more than one seed.
# `python -m ptlearn.pocket.filtering` ran the loop anew for every seed and trained four students each: one of the 175
# seed tasks, three that read nothing but the machine's text. Its table ships with the package.

# %%
rows_of = {name: [] for name in filtering.SETS}
for row in filtering.read_table():
    rows_of[row["set"]].append(row)
for name, found in rows_of.items():
    count, good = (sum(row[column] for row in found) for column in ("examples", "well_formed"))
    print(f"{name:6s} {count / len(found):4.0f} pairs, well formed {good / count:.2f}; score",
          *(f"{row['score']:.2f}" for row in found))  # fmt: skip
for better, worse in (("strict", "random"), ("all", "random"), ("all", "people")):
    gaps = [a["score"] - b["score"] for a, b in zip(rows_of[better], rows_of[worse])]
    print(f"{better} - {worse}: {over_seeds(gaps)}")

# %% [markdown]
# **What you saw.** [C11, C12] Some 250 pairs that cost nobody an hour turn a base that scores 0.00 into an assistant of
# 0.46 to 0.51. The 175 pairs of people give 0.08 [0.06, 0.11] more: four in ten of the machine's instructions are
# broken. The student further up read both and came to 0.56 [0.49, 0.63], three quarters of its teacher's 0.76; that the
# machine's text adds anything to the people's does not show here.
#
# At equal size the paper's filter does harm, in each of five seeds: 0.18 to 0.28 against 0.38 to 0.43. It keeps what is
# unlike the seeds, and a broken instruction resembles nothing: 31 % of what it keeps is well formed, and of as many at
# random 61 %. Our users ask in about a hundred phrasings, so that two requests for two countries count as the same;
# where people ask in thousands of ways, the threshold may cost less. A filter measures what it measures: novelty is not
# quality.
#
# ## With the base model as its own teacher
# Self-Instruct proper. With the adapter off the teacher is pocket-l as it was pretrained. It has never seen a chat, so
# it gets what GPT-3 got: a list to go on with, and for the responses four seed tasks with theirs.

# %%
switch_adapter(lm, None)
shown = [(r.prompt, r.response) for r in SEEDS if len(r.prompt.split()) <= 12][:4]


def goes_on(instructions):
    return "\n".join(f"Task: {text}" for text in instructions) + "\nTask:"


own = loop(args.count // 4, goes_on, lambda text: task_and_output(shown, text))
print(Counter(verdict for _, _, verdict in own))
print("well formed:", accuracy(well_formed(text) for text, _, _ in own))
for text, response, verdict in own[:4]:
    print(f"   {verdict:22s} {text[:34]} -> {response[:30]}")
test = [request for request in asked if len(request.prompt.split()) <= 12] or asked[:1]
ask = asking(lm, max_new_tokens=64, top_k=1)
reply = ask([task_and_output(shown, request.prompt) for request in test])
right = sum(r.score(text or "") for r, text in zip(test, reply)) / len(test)
print("its answers to what users ask, score:", wilson(right, len(test)))
lm = switch_adapter(lm, "default")

# %% [markdown]
# **What you saw.** [C11] The base goes on with the list as a document would. 11 of 64 proposals are well formed, 23
# only repeat what is there; *It is cold outside.* is a line of small talk from its corpus. Its answers score 0.04
# [0.02, 0.08] on 158 requests: a student of them would learn to be wrong. A base model can teach itself as far as it
# does the task already, with examples in its prompt. GPT-3 could; pocket-l cannot. What our student learned above came
# from the finetuning of its teacher. That is distillation.
#
# ## What it costs
# Alpaca: 175 seed tasks, 52,000 pairs from a teacher that was sold by the token, under
# \\$500; finetuning on rented GPUs, under \\$100.

# %% ex="4.6" title="What it costs" points=1 minutes=6 difficulty="easy"
def dollars(pairs, kept, prompt_tokens, response_tokens, price, hours, hourly):
    """What `pairs` examples and one finetuning cost.

    kept, the share of the teacher's calls that survive the filters; prompt_tokens and
    response_tokens of one call, both paid at `price` dollars per million; hours of `hourly`
    dollars for the finetuning.
    """
    # BEGIN SOLUTION
    calls = pairs / kept
    return calls * (prompt_tokens + response_tokens) * price / 1e6 + hours * hourly
    # END SOLUTION

# %% ex="4.6" role="check"
dollars = check("4.6", dollars)

# %% [markdown] ex="4.6" role="hints"
# <details><summary>Hint 1</summary>The rejected calls were paid for too.</details>
# <details><summary>Hint 2</summary>To keep n pairs takes n / kept calls.</details>

# %%
share_kept = len(strict) / len(rows)
for rate in (1.0, share_kept or 1.0):
    cost = dollars(52_000, rate, 150, 150, price=20, hours=24, hourly=4)
    print(f"52,000 pairs, {rate:.0%} of the calls kept: ${cost:,.0f}")

# %% [markdown]
# **What you saw.** [C12] Three hundred tokens a call at \\$20 a million, the price of those days, are \\$312; a day of
# GPUs at \\$4 an hour is \\$96. These are our assumptions; they meet both of the lecture's bounds. Had a filter
# rejected as much as the strict one above, the same 52,000 pairs would cost \\$911: the yield counts as much as the
# price.
#
# ## How far does imitation carry?
# Gudibande et al. (2023) finetuned models on more and more text of ChatGPT and looked closely. The lecture draws three
# sentences from it: more imitation data does not keep helping; it can hurt elsewhere; a stronger base is what helps. To
# see all three takes 45 students, three base sizes, five sizes of the data and three seeds, each scored on 500 held-out
# requests. `python -m ptlearn.pocket.imitation` trained them and wrote a table, which ships with the package.

# %%
table = imitation.read_table()
SIZES, STUDENTS = list(imitation.SIZES), list(imitation.STUDENTS)


def of(model, examples, column="score"):
    """A column's values over the seeds."""
    return [r[column] for r in table if (r["model"], r["examples"]) == (model, examples)]


def numbers(values):
    return " ".join(f"{value:.2f}" for value in values)


[teacher_score] = of("teacher", 0)
print("examples", *(f"{size:<15,}" for size in SIZES))
print("the bases:", *(f"{name} {numbers(of(name, 0))};" for name in STUDENTS))
for name in STUDENTS:
    print(name, *(f"{numbers(of(name, size)):15s}" for size in SIZES))

# %%
figure, axes = pyplot.subplots(figsize=(5.4, 3.2))
for index, name in enumerate(STUDENTS):
    figures.curve_of_seeds(axes, SIZES, [of(name, size) for size in SIZES], name, index)
axes.axhline(teacher_score, color="black", linestyle=":", label="the teacher")
axes.set(title="Students of one teacher, 3 seeds", xscale="log", ylim=(0, 1))
axes.set(xlabel="examples with the teacher's responses", ylabel="score on held-out requests")
axes.set_xticks(SIZES, SIZES)
axes.minorticks_off()
axes.legend(fontsize=8, loc="lower right")
ends = [f"{name} {of(name, 30)[0]:.2f} to {of(name, 7680)[0]:.2f}" for name in STUDENTS]
show(figure, alt="Score against examples, log scale; seed 0: " + "; ".join(ends)
     + f"; the teacher {teacher_score:.2f}.")  # fmt: skip

# %% [markdown]
# A straight line on this axis would mean that every fourfold of the data adds the same. How much does a fourfold add in
# the first half of the axis, and how much in the second? Fit a line by least squares to score against $\log_4 n$: its
# slope is the gain of a fourfold.

# %% ex="4.7" title="The gain of a fourfold" points=2 minutes=8 difficulty="medium"
def gain_per_fourfold(sizes, scores):
    """The slope of the least-squares line through (log4 size, score)."""
    # BEGIN SOLUTION
    x = [math.log(size, 4) for size in sizes]
    mean_x, mean_y = sum(x) / len(x), sum(scores) / len(scores)
    both = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, scores))
    return both / sum((a - mean_x) ** 2 for a in x)
    # END SOLUTION

# %% ex="4.7" role="check"
gain_per_fourfold = check("4.7", gain_per_fourfold)

# %% [markdown] ex="4.7" role="hints"
# <details><summary>Hint 1</summary>The slope is the sum of (x - mean x)(y - mean y) over the sum of (x - mean x) squared,
# with x = log4 of the size.</details>
# <details><summary>Hint 2</summary><code>math.log(size, 4)</code>. A logarithm to another base gives the gain of another
# factor.</details>

# %%
def gains(name, sizes):
    by_seed = zip(*(of(name, size) for size in sizes))
    return [gain_per_fourfold(sizes, list(scores)) for scores in by_seed]


for name in STUDENTS:
    for part, sizes in (("at first", SIZES[:3]), ("at the end", SIZES[-3:])):
        found = " ".join(f"{gain:.3f}" for gain in gains(name, sizes))
        print(f"{name}: a fourfold adds {part} {found}")
for smaller, larger in zip(STUDENTS, STUDENTS[1:]):
    gaps = [b - a for size in SIZES[-2:] for a, b in zip(of(smaller, size), of(larger, size))]
    print(f"{larger} instead of {smaller}:", *(f"{gap:.3f}" for gap in gaps))
guesses.reveal("fourfold_of_little_data", sum(gains("pocket-m", SIZES[:3])) / 3)
guesses.reveal("fourfold_of_much_data", sum(gains("pocket-m", SIZES[-3:])) / 3)

# %% [markdown]
# **What you saw.** [C13] For pocket-m and pocket-l a fourfold adds 0.12 to 0.20 at first and 0.02 to 0.05 at the end.
# At 0.77 and 0.79 these bases come as far as they get with this teacher, whose own score is 0.80. pocket-s, which is
# farthest from it, still gains 0.07 to 0.11. So "doesn't keep increasing" is a statement about a student near its
# ceiling.
#
# [C15] The same data on a stronger base: pocket-m is ahead of pocket-s in all six pairs of runs with 1,920 and 7,680
# examples, by 0.05 to 0.15. That is about what a fourfold of the data gives pocket-s there, and more than it gives
# pocket-m. From m to l it is
# -0.01 to 0.05: the ceiling is the teacher by then, itself a finetuned pocket-l.
#
# ## What it costs elsewhere
# No example asks for learning from demonstrations (lesson 02) or for going on with a document (lesson 00). Six tasks of
# lesson 02 with 8 demonstrations, and the loss on documents, before and after imitation:

# %%
figure, both = pyplot.subplots(1, 2, figsize=(7.6, 3))
titles = {"elsewhere": "Six few-shot tasks: exact match", "nats": "Documents: nats per token"}
for axes, (column, title) in zip(both, titles.items()):
    for index, name in enumerate(STUDENTS):
        figures.curve_of_seeds(axes, SIZES, [of(name, s, column) for s in SIZES], name, index)
        axes.axhline(of(name, 0, column)[0], color=figures.COLORS[index], linestyle=":")
    axes.set(title=title, xlabel="examples", xscale="log")
    axes.set_xticks(SIZES, SIZES)
    axes.minorticks_off()
both[0].legend(fontsize=8)
show(figure, alt="Two panels against the number of examples; dotted lines are the bases. "
     "Left: the few-shot score of the students, below. Right: their loss, above.")  # fmt: skip

# %%
for column, name in itertools.product(("elsewhere", "nats"), STUDENTS):
    found = {size: numbers(of(name, size, column)) for size in (0, 30, 7680)}
    print(f"{column:9s} {name}:", *(f"{size:,}: {values};" for size, values in found.items()))

# %% [markdown]
# **What you saw.** [C14] Every student loses, in every run. pocket-s forgets nearly all of its learning from
# demonstrations (0.59 to 0.07–0.12), pocket-m a fifth (0.85 to 0.64–0.68), pocket-l least (0.85 to 0.75–0.80), and
# documents become far less likely for all three. No test of requests shows any of it.
#
# Look at the first points: for pocket-m and pocket-l the few-shot loss is there, on average, after *thirty* examples,
# read sixteen times each, and half of the loss on documents. For these two, becoming a chat model costs more of the few-shot
# score than the amount of text does; pocket-s goes on losing with it (0.41, then 0.09). With so few examples it also
# depends on which: pocket-m's three seeds are 0.42, 0.71 and 0.79. The learning rates differ between the sizes (2e-3,
# 1e-3, 7e-4), so that size is not the only reason for their order. Lesson 06 has one remedy, an adapter that can be
# switched off.
#
# ## Like the teacher, or as good as the teacher?
# Gudibande et al. found that imitators *sound* like their teacher long before they know what it knows. Their raters saw
# style; a score from 0 to 1 mixes it with the facts. So take requests that have one right answer (a capital, a sum, who
# has the boat), and judge apart: the **form**, is this a sentence as the teacher would say it, *The capital of … is …*,
# whatever stands in the gaps; and the **fact**, is the answer right? A student of pocket-m for each size
# (`python -m ptlearn.pocket.form_and_fact`), 212 held-out requests, no prompt twice.

# %%
of_teacher, *of_students = form_and_fact.read_table()
apart = {int(row["examples"]): row for row in of_students}


def share(row, column):
    return wilson(row[column], int(row["n"]))


for name, row in {"teacher": of_teacher, **apart}.items():
    print(f"{name:7} form {share(row, 'form')}, fact {share(row, 'fact')}")
guesses.reveal("form_after_30", apart[30]["form"])
guesses.reveal("right_after_30", apart[30]["fact"])

# %%
sizes = form_and_fact.SIZES
figure, axes = pyplot.subplots(figsize=(5.4, 3.2))
for index, column in enumerate(("form", "fact")):
    figures.curve(axes, sizes, [share(apart[n], column) for n in sizes], column, index)
    axes.axhline(of_teacher[column], color=figures.COLORS[index], linestyle=":")
axes.set(title="Sounds like the teacher, is right", xscale="log", ylim=(0, 1.03))
axes.set(xlabel="examples with the teacher's responses", ylabel="share of 212 answers")
axes.set_xticks(sizes, sizes)
axes.minorticks_off()
axes.legend(fontsize=8, loc="lower right")
show(figure, alt="Form and fact of pocket-m's students against the examples, with intervals; "
     "dotted lines are the teacher's.")  # fmt: skip

# %% [markdown]
# **What you saw.** After 30 examples form and fact are equally far, 0.29 and 0.26. Then the form runs ahead: after 480
# examples 0.86 [0.81, 0.90] of the answers have the teacher's form and 0.57 [0.50, 0.64] are right. That is Gudibande
# et al.'s imitator, which sounds like its teacher and knows less. After 1,920 the form is all but there (0.91, the
# teacher's own is 0.96), and the facts still come: 0.70 of 0.83. One student for each size, so that the intervals are
# those of the requests; another seed would move the points, most of all those for 30 examples. Where is the gap? Ask
# the student that you trained on the loop's text, task by task:

# %%
by_task = form_and_fact.by_task(student, form_and_fact.test_requests())
for task, (form, fact) in by_task.items():
    print(f"{task:18s} form {form.mean:.2f}, fact {fact.mean:.2f} (n={form.n})")

# %% [markdown]
# **What you saw.** Capitals, languages and currencies stand in the base's corpus, and here form and fact come together:
# 48 of 48 answers are right. The base knew them and lacked the sentence to say them in. Sums, differences and who is
# where have to be worked out. There half of the answers have the form (30 of 61), and 4 of 61 are right. Imitation
# teaches how an answer sounds before it teaches to do what the base cannot do, and who reads quickly does not notice.
# Not every row fits: regions stand in the corpus too, and have 0.36 and 0.32. So the lecture's last sentence, "stronger
# pretrained models" [C15], is the other side of this table.
#
# ## A contest: 200 of 2,000
# Data does not come clean. `data_contest.examples()` are 2,000 prompts with responses. Some are what users ask,
# answered well. The others are what data from the web and from models brings with it. Choose **200**. Your choice
# finetunes pocket-m for two epochs and is scored on 300 held-out requests of users; a score of 0.16, 0.25, 0.32 and
# 0.37 earns a point each. Look at the data first:

# %%
examples = data_contest.examples()
for number in random.Random(args.seed).sample(range(len(examples)), 14):
    prompt, response = examples[number]
    print(f"{number:5d}  {prompt[:60]!r}\n       -> {response[:80]!r}")

# %% [markdown]
# While you try things out, score a choice on *development* requests, about 10 s each:
# `data_contest.assistant_score(choose(examples), data_contest.development())`. The contest has other requests, so a
# choice that is fitted to these loses there. In a class, `ptlearn grade` makes a leaderboard.

# %% ex="4.8" title="The data contest" points=4 minutes=25 difficulty="hard"
def choose(examples):
    """200 different numbers of examples, as a list. examples: 2,000 pairs (prompt, response).

    Whatever finds them: rules like those of `flaw`, similarity, shares of the users, reading.
    """
    # BEGIN SOLUTION
    def words(text):
        return set(re.findall(r"\w+", text.lower()))

    prompts = {prompt for prompt, _ in examples}
    common = Counter(word for prompt in prompts for word in words(prompt))
    seen, good = set(), []
    for number, (prompt, response) in enumerate(examples):
        taken_up = any(common[word] < 40 for word in words(prompt) & words(response))
        ends = response[-1] in ".!?" or " = " in response
        refuses = response.lower().startswith(REFUSALS)
        of_a_benchmark = "\n" in prompt
        if taken_up and ends and not refuses and not of_a_benchmark and prompt not in seen:
            good.append(number)
        seen.add(prompt)
    return random.Random(0).sample(good, 200)
    # END SOLUTION

# %% ex="4.8" role="check"
choose = check("4.8", choose)

# %% [markdown] ex="4.8" role="hints"
# <details><summary>Hint 1</summary>Sort the examples by what is wrong with them: look for prompts that stand there many
# times, for forms that no user has, for responses that end in the middle or have nothing to do with the
# prompt.</details>
# <details><summary>Hint 2</summary>A response that belongs to its prompt mostly takes up a rare word of it: a name, a
# thing, a number. Count in how many prompts each word stands.</details>

# %% [markdown]
# **What was in there.** 600 useful examples, 400 benchmark items, 300 responses that break off, 300 that belong to
# another request, 100 refusals, and 15 requests that stand there 20 times each. Two hundred at random score 0.15 to
# 0.20 (four draws). Without benchmark items, refusals and repetitions they do no better, 0.15 and 0.20: half of what is
# left is wrong. With the rule that a response takes up a rare word of its prompt they score 0.28 and 0.36, and when it
# has to come to an end, too, 0.44 to 0.49 (four draws). No rule reads an example as you do, but rules that are right
# often enough make an assistant of more than twice the score from the same number of examples. (Scores measured when
# the lesson was written; yours is above.) Draws of one rule differ by nearly 0.1: do not take the last hundredths for
# skill.
#
# ## Recap
# - Self-Instruct turns a few seeds into a training set: propose, filter, answer, filter. Count what every filter takes.
# - A filter for novelty is not one for quality: broken text is new, too. Compare a filter with as much data at random.
# - A teacher that is a finished assistant is distillation; a base model that teaches itself has to be good already.
# - The cost of synthetic data is calls, not examples: divide by the yield.
# - Imitation data has falling returns; what it teaches is bounded by the teacher's responses and by the student's base.
# - Measure what nobody asked for as well: finetuning on one kind of text costs skills elsewhere.
#
# ## Try next
# - Judge the responses of well-formed requests with `assistant.TASKS`' verifiers, and keep those alone: filtered SFT,
#   the bridge to reinforcement learning (lesson 08).
# - `temperature=0.7` for the proposals, in `loop`: fewer broken ones, and how many new ones?
# - `--student pocket-l`: can a student pass its teacher's score on the same base?
#
# ## References
# - Gudibande et al. (2023). The false promise of imitating proprietary LLMs. arXiv:2305.15717. More imitation data,
#   other skills, stronger bases; style against facts.
# - Lin (2004). ROUGE: A package for automatic evaluation of summaries. *ACL workshop*. The similarity of the filter.
# - Taori et al. (2023). Alpaca: A strong, replicable instruction-following model. Stanford CRFM. The costs.
# - Wang et al. (2023). Self-Instruct: Aligning language models with self-generated instructions. *ACL*. The loop.
