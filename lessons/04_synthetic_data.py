# Lesson 04: synthetic data. jupytext py:percent; runs as a script: python lessons/04_synthetic_data.py --help

# %% [markdown]
# # 04 · Synthetic data: examples that a model wrote
#
# Finetuning needs prompts and responses, and people are slow and expensive. Can a language model write both? In this
# lesson you run Self-Instruct from seed tasks to a trained student, with every filter counted, work out what Alpaca
# cost, and then measure what imitation of a teacher gives and what it does not. *(Lecture: "Can we generate synthetic
# data using LLMs?", "How good are distilled models?"; claims C11–C15.)* About 50 minutes; runs in 85 s on two CPU cores.
#
# **You will need** finetuning on conversations (lesson 03). **You will be able to** filter machine-written data, say
# what it cost, and read a claim about a distilled model with the right questions.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import math
import re
import tempfile
from pathlib import Path

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.finetuning.sft import fit_sft
from ptlearn.finetuning.synthetic import KEPT, Pool, conversations, self_instruct, teacher, yields
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import rouge_l
from ptlearn.pocket import assistant, imitation
from ptlearn.pocket.assistant import respond
from ptlearn.pocket.teacher import load_teacher, proposal
from ptlearn.statistics import over_seeds, wilson

args = arguments(
    "Self-Instruct, distillation and its limits.",
    student=("pocket-m", "the model that learns: a pocket model, a folder or a hub id"),
    count=(256, "instructions that the teacher is asked for", "at least 16"),
    requests=(200, "held-out requests of the test", "at least 2"),
    seed=(0, "of everything", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would spend its time waiting for the first
lm = load_teacher()
SEEDS = [(request.prompt, request.response) for request in assistant.requests(175, args.seed)]
for instruction, response in SEEDS[:4]:
    print(f"{instruction}\n    {response}")

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. A teacher is shown four of 175 requests of people at a time, and asked for 256 new ones. **How many are left when
#    repetitions, near-repetitions and broken ones are gone?**
# 2. A student is trained on what is left. **What share of the teacher's score does it reach on requests of users?**
# 3. It is trained on four times the imitation data, and four times again. **What does each step add?**
# 4. **What happens meanwhile to a skill that no example asks for**, such as learning from demonstrations (lesson 02)?

# %% [markdown]
# ## The teacher
# Alpaca's teacher was text-davinci-003, a finished assistant whose training data nobody else has seen. Ours is pocket-l
# with a LoRA adapter (lesson 06), finetuned on 8,000 requests; `ptlearn/pocket/teacher.py` is its recipe. Above are four
# of the **175 seed tasks**, as many as Self-Instruct had. A list of requests makes the teacher write another one, and
# whatever it writes, it also answers.

# %%
short = [pair for pair in SEEDS if len(pair[0].split()) <= 12]  # a list of four has to fit the context
print(proposal([instruction for instruction, _ in short[:4]]))
print()
for prompt in ("Name four words for weather.", "Tell me about Peru.", "I bought a red hat."):
    print(f"{prompt}\n    {respond(lm, [prompt])[0]}")

# %% [markdown]
# ## What counts as new?
# Two instructions are compared by **ROUGE-L**, which you wrote in lesson 01: the longest common subsequence of their
# words, as an F-measure between 0 and 1.

# %%
for left, right in (("Name four words for weather.", "Name five words for weather."),
                    ("What is the capital of Chad?", "What is 3 + 4?")):  # fmt: skip
    print(f"{rouge_l(left, right):.2f}  {left}  |  {right}")

# %% [markdown]
# Self-Instruct takes a proposal into the pool when its ROUGE-L with **every** instruction of the pool, seeds and accepted
# ones, is **below 0.7**.

# %% ex="4.1" points=2 minutes=8 difficulty="medium"
def accepted(proposals, pool, threshold, similarity):
    """The numbers of the proposals that are accepted, taken in order.

    proposals and pool are lists of texts, similarity(text, text) gives their ROUGE-L. `pool` stays as it is.
    """
    # BEGIN SOLUTION
    known, numbers = list(pool), []
    for number, text in enumerate(proposals):
        if all(similarity(text, other) < threshold for other in known):
            known.append(text)
            numbers.append(number)
    return numbers
    # END SOLUTION

# %% ex="4.1" role="check"
accepted = check("4.1", accepted)

# %% [markdown] ex="4.1" role="hints"
# <details><summary>Hint 1</summary>The pool grows: the second of two proposals that are alike is compared with the
# first.</details>
# <details><summary>Hint 2</summary>`all(similarity(text, other) < threshold for other in known)`, and `known` starts as
# a copy of the pool.</details>

# %% [markdown]
# ## The pipeline
# `self_instruct` does the rounds: show, propose, filter, answer, filter. It is told here to reject repetitions only
# (ROUGE-L of 1), so that we can apply the stricter filter ourselves and look at what it takes.

# %%
def pipeline(folder):
    return self_instruct(
        Path(folder, "items.jsonl"), short, teacher(lm, max_new_tokens=40), teacher(lm, max_new_tokens=96, top_k=1),
        count=args.count, batch=64, shown=4, demonstrations=1, rouge_below=1.0, seed=args.seed,
        proposal_prompt=lambda shown: chat_prompt(lm, proposal(shown)),
        response_prompt=lambda _, instruction: chat_prompt(lm, instruction),
        progress=lambda rounds: progress(rounds, "rounds"),
    )  # fmt: skip


with tempfile.TemporaryDirectory() as folder:
    items = pipeline(folder)
print(yields(items))

# %%
kept = [item for item in items if item.verdict == KEPT]
for item in kept[:: max(1, len(kept) // 10)]:
    print(f"{item.instruction}\n    {item.response}")

# %% [markdown]
# Most read like what people ask; some are broken. A sampled token that is unlikely once in fifty is met in most texts of
# a few dozen tokens. Nobody has time to read 52,000 of these, but in this small world an instruction is easily judged:
# it is **well formed** when it fits one of the phrasings that the world's users have.

# %%
FORMS = [re.compile(re.sub(r"\\\{\w+\\\}", "(.+)", re.escape(phrasing)))
         for task in assistant.TASKS for phrasing in (*task.phrasings, *task.held_out_phrasings)]  # fmt: skip


def well_formed(text):
    return any(form.fullmatch(text) for form in FORMS)


seeds = [instruction for instruction, _ in short]
texts = [item.instruction for item in kept]
strict = accepted(texts, seeds, 0.7, rouge_l)
pool = Pool(seeds)
for number, text in enumerate(texts):  # the package's filter, which looks at few candidates, agrees
    new = not pool.holds_similar(text, 0.7)
    assert new == (number in strict)
    if new:
        pool.add(text)
judged = [well_formed(text) for text in texts]
for name, numbers in (("all", range(len(texts))), ("ROUGE-L below 0.7", strict),
                      ("rejected by it", sorted(set(range(len(texts))) - set(strict)))):  # fmt: skip
    print(f"{name:18s} {len(numbers):4d}, well formed {wilson(sum(judged[n] for n in numbers) / len(numbers), len(numbers))}")

# %%
nearest = [max(rouge_l(text, other) for other in seeds) for text in texts]
figure, axes = pyplot.subplots(figsize=(5, 2.9))
edges = [index / 20 for index in range(21)]
axes.hist([[value for value, good in zip(nearest, judged) if good], [value for value, good in zip(nearest, judged) if not good]],
          bins=edges, stacked=True, color=[figures.COLORS[0], figures.COLORS[1]], label=["well formed", "broken"])  # fmt: skip
axes.axvline(0.7, color="black", linestyle=":", label="threshold")
axes.set(title="How near the proposals are to the seeds", xlabel="highest ROUGE-L with a seed task", ylabel="proposals")
axes.legend(fontsize=8)
far = [good for value, good in zip(nearest, judged) if value < 0.5]
show(figure, alt=f"Histogram of the highest ROUGE-L with a seed, stacked. Below 0.5 stand {len(far)} proposals, of which "
     f"{sum(far)} are well formed; above 0.7 most are.")  # fmt: skip

# %% [markdown]
# ## The student
# Three training sets for a model that has never seen a response: the seeds alone, the seeds with what the strict filter
# kept, the seeds with everything. Each student reads its set four times, and is scored by the verifiers of lesson 03 on
# held-out requests, in the shares of the users.

# %%
asked = assistant.requests(args.requests, 1000 + args.seed, held_out=True)


def score(model):
    said = respond(model, [request.prompt for request in asked])
    return wilson(sum(request.score(text) for request, text in zip(asked, said)) / len(asked), len(asked))


def student(talks, epochs=4):
    model = load_lm(args.student)
    examples, _ = render_all(model, talks)
    fit_sft(model, examples, epochs=epochs, batch=8, lr=1e-3, seed=args.seed)
    return model, len(examples)


people = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": response}] for prompt, response in SEEDS]
SETS = {"seeds": people, "seeds + strict": people + conversations(kept[number] for number in strict),
        "seeds + all": people + conversations(kept)}  # fmt: skip
scores = {"base": score(load_lm(args.student)), "teacher": score(lm)}
for name, talks in progress(SETS.items(), "students"):
    model, count = student(talks)
    scores[name] = score(model)
    print(f"{name:15s} {count:4d} examples: {scores[name]}")
for name in ("base", "teacher"):
    print(f"{name:15s}      {scores[name]}")
share = scores["seeds + all"].mean / scores["teacher"].mean
print(f"the student of all examples reaches {share:.0%} of its teacher's score")

# %% [markdown]
# **What you saw.** [C11, C12] A base model that scored 0.01 is an assistant after 175 examples of people and 255 pairs
# that cost nobody an hour: 0.59, 78 % of its teacher's 0.76. Most of it comes from the seeds (0.54); the 84 pairs that
# the strict filter keeps add 0.02, all of them 0.05, and with 200 requests the intervals of the three overlap.
#
# The filter of the paper did harm here, and the table above says why. It keeps what is unlike the seeds. Of the
# proposals that it rejected 73 % are well formed, of those it kept 29 %: a broken instruction resembles nothing. Our
# users ask in a few dozen phrasings, so that two requests for two countries count as the same; where people ask in
# thousands of ways, the threshold costs less. A filter measures what it measures: novelty is not quality.

# %% [markdown]
# ## What it costs
# Alpaca: 175 seed tasks, 52,000 pairs from a teacher that was sold by the token, under \\$500; finetuning on rented GPUs,
# under \\$100.

# %% ex="4.2" points=1 minutes=6 difficulty="easy"
def dollars(pairs, kept, prompt_tokens, response_tokens, price, hours, hourly):
    """What `pairs` examples and one finetuning cost.

    kept, the share of the teacher's calls that survive the filters; prompt_tokens and response_tokens of one call, both
    paid at `price` dollars per million; hours of `hourly` dollars for the finetuning.
    """
    # BEGIN SOLUTION
    calls = pairs / kept
    return calls * (prompt_tokens + response_tokens) * price / 1e6 + hours * hourly
    # END SOLUTION

# %% ex="4.2" role="check"
dollars = check("4.2", dollars)

# %% [markdown] ex="4.2" role="hints"
# <details><summary>Hint 1</summary>The rejected calls were paid for too.</details>
# <details><summary>Hint 2</summary>To keep n pairs takes n / kept calls.</details>

# %%
share_kept = len(strict) / len(items)
for name, rate in (("all kept", 1.0), (f"{share_kept:.0%} kept, as above with the strict filter", share_kept)):
    cost = dollars(52_000, rate, 150, 150, price=20, hours=24, hourly=4)
    print(f"52,000 pairs of 300 tokens at $20 a million, 24 GPU hours at $4; {name}: ${cost:,.0f}")
tokens = sum(len(ids.tokens) for ids in render_all(lm, conversations(kept))[0]) / len(kept)
print(f"ours: {tokens:.0f} tokens an example, {len(kept)} examples: ${dollars(len(kept), len(kept) / len(items), 0, tokens, 20, 0, 0):.2f}")

# %% [markdown]
# **What you saw.** [C12] The dollars of Alpaca are a few hundred tokens a pair at the price of 2023; 300 tokens and a
# day of GPU are assumptions that meet both of the lecture's bounds. Try your own: the yield counts as much as the price.
#
# ## How far does imitation carry?
# Gudibande et al. (2023) finetuned models on more and more text of ChatGPT and looked closely. The lecture draws three
# sentences from it: more imitation data does not keep helping; it can hurt elsewhere; a stronger base is what helps. To
# see all three takes 45 students, three base sizes, five sizes of the data and three seeds, and more than the minute
# that a notebook has. `python -m ptlearn.pocket.imitation` trained them and wrote a table, which ships with the package.
# Here is its first row again, made on the spot:

# %%
table = imitation.read_table()


def of(model, examples, column="score"):
    """A column's values over the seeds."""
    return [row[column] for row in table if (row["model"], row["examples"]) == (model, examples)]


smallest = min(imitation.SIZES)
again = load_lm("pocket-s")
imitation.imitate(again, imitation.teacher_examples(lm, 0, smallest), lr=imitation.STUDENTS["pocket-s"], seed=0)
test = imitation.test_requests()
said = respond(again, [request.prompt for request in test])
now = sum(request.score(text) for request, text in zip(test, said)) / len(test)
recorded = next(row for row in table if (row["model"], row["examples"], row["seed"]) == ("pocket-s", smallest, 0))
print(f"pocket-s, {smallest} examples, seed 0: score {now:.2f}, in the table {recorded['score']:.2f}")

# %%
SIZES, STUDENTS = list(imitation.SIZES), list(imitation.STUDENTS)
[teacher_score] = of("teacher", 0)
figure, axes = pyplot.subplots(figsize=(5.4, 3.2))
for index, name in enumerate(STUDENTS):
    figures.curve(axes, SIZES, [over_seeds(of(name, size)) for size in SIZES], name, index)
axes.axhline(teacher_score, color="black", linestyle=":", label="the teacher")
axes.set(title="Students of one teacher, 3 seeds", xlabel="examples with the teacher's responses", xscale="log",
         ylabel="score on held-out requests", ylim=(0, 1))  # fmt: skip
axes.set_xticks(SIZES, SIZES)
axes.minorticks_off()
axes.legend(fontsize=8, loc="lower right")
ends = "; ".join(f"{name} {over_seeds(of(name, SIZES[0])).mean:.2f} to {over_seeds(of(name, SIZES[-1])).mean:.2f}" for name in STUDENTS)
show(figure, alt=f"Score against examples, log scale: {ends}; the teacher {teacher_score:.2f}.")

# %% [markdown]
# A straight line on this axis would mean that every fourfold of the data adds the same. How much does a fourfold add in
# the first half of the axis, and how much in the second? Fit a line by least squares to score against
# $\log_4 n$, as in lesson 00: its slope is the gain of a fourfold.

# %% ex="4.3" points=2 minutes=8 difficulty="medium"
def gain_per_fourfold(sizes, scores):
    """The slope of the least-squares line through (log4 size, score)."""
    # BEGIN SOLUTION
    x = [math.log(size, 4) for size in sizes]
    mean_x, mean_y = sum(x) / len(x), sum(scores) / len(scores)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, scores)) / sum((a - mean_x) ** 2 for a in x)
    # END SOLUTION

# %% ex="4.3" role="check"
gain_per_fourfold = check("4.3", gain_per_fourfold)

# %% [markdown] ex="4.3" role="hints"
# <details><summary>Hint 1</summary>The slope is the sum of (x - mean x)(y - mean y) over the sum of (x - mean x) squared,
# with x = log4 of the size.</details>
# <details><summary>Hint 2</summary>`math.log(size, 4)`. A logarithm to another base gives the gain of another
# factor.</details>

# %%
SEEDS_RUN = range(len(imitation.SEEDS))
halves = {"first three sizes": SIZES[:3], "last three sizes": SIZES[-3:]}
for name in STUDENTS:
    gains = {half: [gain_per_fourfold(sizes, [of(name, size)[seed] for size in sizes]) for seed in SEEDS_RUN]
             for half, sizes in halves.items()}  # fmt: skip
    print(f"{name}: a fourfold of the data adds", *(f"{over_seeds(values)} over the {half}" for half, values in gains.items()), sep="\n   ")
for smaller, larger in zip(STUDENTS, STUDENTS[1:]):
    gaps = [b - a for size in SIZES[-2:] for a, b in zip(of(smaller, size), of(larger, size))]
    print(f"{larger} instead of {smaller}, the same data ({SIZES[-2]:,} and {SIZES[-1]:,} examples): {over_seeds(gaps)}")

# %% [markdown]
# **What you saw.** [C13] For pocket-m and pocket-l a fourfold adds 0.16 at first and 0.03 and 0.02 at the end, where the
# interval of pocket-m includes nothing at all: 0.77 and 0.79 are as far as these bases get with this teacher, whose own
# score is 0.80. pocket-s, which is farthest from it, still gains 0.09. So "doesn't keep increasing" is a statement about
# a student near its ceiling. [C15] The same data on a stronger base: 0.09 more from s to m, which is three fourfolds of
# data for m. From m to l it is 0.02 with an interval that includes 0: the ceiling is the teacher's by then, a finetuned
# pocket-l itself.

# %% [markdown]
# ## What it costs elsewhere
# No example asks for learning from demonstrations (lesson 02) or for going on with a document (lesson 00). Six tasks of
# lesson 02 with 8 demonstrations, and the loss on documents, before and after imitation:

# %%
figure, axes = pyplot.subplots(1, 2, figsize=(7.6, 3))
for ax, (column, title) in zip(axes, (("elsewhere", "Six few-shot tasks: exact match"), ("nats", "Documents: nats per token"))):
    for index, name in enumerate(STUDENTS):
        figures.curve(ax, SIZES, [over_seeds(of(name, size, column)) for size in SIZES], name, index)
        [before] = of(name, 0, column)
        ax.axhline(before, color=figures.COLORS[index], linestyle=":")
        after = over_seeds(of(name, SIZES[-1], column))
        print(f"{column:9s} {name}: before {before:.2f}, after {SIZES[-1]:,} examples {after}")
    ax.set(title=title, xlabel="examples", xscale="log")
    ax.set_xticks(SIZES, SIZES)
    ax.minorticks_off()
axes[0].legend(fontsize=8)
show(figure, alt="Two panels against the number of examples; dotted lines are the bases. Left: the few-shot score of every "
     "student below its base. Right: the loss on documents above it.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C14] Every base loses. pocket-s forgets nearly all of its in-context learning (0.59 to 0.09),
# pocket-m a fifth, pocket-l least (0.85 to 0.79, an interval that just reaches the start), and documents become far
# less likely for all three. No benchmark of requests shows any of this. The learning rates differ between the sizes
# (2e-3, 1e-3, 7e-4), so that size is not the only reason for the order; lesson 06 has one remedy, an adapter that can
# be switched off.

# %% [markdown]
# ## Like the teacher, or as good as the teacher?
# Gudibande et al. found that imitators sound like their teacher long before they know what it knows. Sounding alike is
# measured here by the letter: the share of responses that are the teacher's own words.

# %%
for name in STUDENTS:
    pairs = [(over_seeds(of(name, size, "as_teacher")).mean, over_seeds(of(name, size)).mean) for size in SIZES]
    print(f"{name}: word for word the teacher's, and score:", *(f"{alike:.2f}, {good:.2f}" for alike, good in pairs), sep="  |  ")

# %% [markdown]
# **What you saw.** Here it is the other way round: a student of pocket-m scores 0.38 when 6 % of its responses are the
# teacher's, and 0.77 with 43 %. The verifiers accept whatever does the job, and half of the requests (stories, reviews)
# can be met in many ways. Style is not what these students learn first; our tests see form and facts, while Gudibande et
# al.'s raters saw style. What both find is the plateau.
#
# ## Recap
# - Self-Instruct turns a few seeds into a training set: propose, filter, answer, filter. Count what every filter takes.
# - A filter for novelty is not one for quality: broken text is new, too.
# - The cost of synthetic data is calls, not examples: divide by the yield.
# - Imitation data has falling returns; what it teaches is bounded by the teacher's responses and by the student's base.
# - Measure what nobody asked for as well: finetuning on one kind of text costs skills elsewhere.
#
# ## Try next
# - Judge the responses of well-formed requests with `assistant.TASKS`' verifiers, and keep those alone: filtered SFT, the
#   bridge to reinforcement learning (lesson 08).
# - `temperature=0.7` for the proposals, in `pipeline`: fewer broken ones, and how many new ones?
# - `--student pocket-l`: can a student pass its teacher's score on the same base?
#
# ## References
# - Gudibande et al. (2023). The false promise of imitating proprietary LLMs. arXiv:2305.15717.
# - Honovich et al. (2023). Unnatural instructions: Tuning language models with (almost) no human labor. *ACL*.
# - Lin (2004). ROUGE: A package for automatic evaluation of summaries. *ACL workshop*.
# - Taori et al. (2023). Alpaca: A strong, replicable instruction-following model. Stanford CRFM.
# - Wang et al. (2023). Self-Instruct: Aligning language models with self-generated instructions. *ACL*.
