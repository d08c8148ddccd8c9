# Lesson 14: the lecture again on a real model. Runs as a script: python lessons/14_real_model.py --help

# %% [markdown]
# # 14 · A real model: the lecture again, on weights that nobody made for this course
#
# Everything so far happened in a pocket world, where the course wrote the corpus and could therefore explain every
# result. Now take SmolLM2-135M-Instruct, trained by strangers on two trillion tokens of the web, and measure the
# lecture's effects again, each beside the pocket model's and by the same function. *(Lecture: from "How do we tell the
# LM what we want to do?" to reinforcement learning on text; claims C02–C07, C14.)* About 75 minutes; runs in about
# five minutes on two CPU cores, without a GPU.
#
# **You will need** lessons 01 to 03, 06 and 12. **You will be able to** say which effects carry over to a real model and
# which do not, put an interval to each, calibrate a biased prompt, measure what finetuning forgets, and see
# what reinforcement learning takes away while it adds.

# %%
from ptlearn.course.session import arguments, end_script, progress, show  # first: from here on, Ctrl-C is one line

import copy
import itertools
import json
import random
import statistics

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm, pocket_models
from ptlearn.lm.prompting import contextual_calibration, few_shot_prompt, first_line, rouge_l, verbalizer_ids
from ptlearn.lm.real_model import REAL_MODELS
from ptlearn.lm.text import complete, encode
from ptlearn.pocket import french, relations, tales, world
from ptlearn.rollout import pad_and_stack
from ptlearn.statistics import Estimate, accuracy, wilson

args = arguments(
    "The lecture's effects on a real model, each beside a pocket model's.",
    model=("smollm2-135m", "the real model: smollm2-135m, a folder or a hub id"),
    pocket=("pocket-m", "the model beside it", pocket_models()),
    count=(40, "different items per measurement", "at least 4, at most 60"),
    steps=(12, "of finetuning", "at least 1"),
    updates=(8, "of reinforcement learning", "at least 1"),
    seed=(0, "of the items, the order of training and all sampling", "at least 0"),
)
torch.set_num_threads(2)  # matrices of 576 columns: large enough for two, and the same sums on every machine
models = {args.pocket: load_lm(args.pocket)}
try:
    models[args.model] = load_lm(args.model)
except FileNotFoundError as missing:
    end_script(missing)  # a script ends here; in a notebook the cells below measure the pocket model alone
for name, lm in models.items():
    what = REAL_MODELS[name].what if name in REAL_MODELS else "a base model of the pocket world"
    print(f"{name}: {what}, {sum(p.numel() for p in lm.parameters()) / 1e6:.1f} million parameters")

# %% [markdown]
# ## What this model is
# Not quite what you might wish for, so be clear about it. It is an **instruct** model: after pretraining it was finetuned
# on conversations and on preferences, so nothing here compares "base" with "finetuned". And its weights were rounded
# to **4 bits** for the road and are unpacked to ordinary numbers here, so its mistakes are not all its makers'. It
# computes in float32; bfloat16 would halve the memory, and is faster only on processors that have instructions for it.
#
# ## Predict first
# Write your guesses down; each is measured below.
#
# 1. *What is the capital of X?* as plain text, *The capital of X is*, and the question as a chat message. **Which of the
#    three does an instruct model answer, and how often?**
# 2. The pocket model went from nothing to nearly all with one demonstration. **Does the real one?**
# 3. Demonstrations call good reviews *negative* and bad ones *positive*. **Does it follow them?**
# 4. A dozen steps of LoRA teach it to answer in JSON. **How many capitals does it forget?**
# 5. Eight steps of RL reward right, short answers. **What falls while the reward rises?**
#
# ## Question, cloze, chat
# The same facts in three forms, greedily, and a lenient judge: naming the capital anywhere counts.

# %%
facts = random.Random(f"countries:{args.seed}").sample(relations.stated("capital"), args.count)
FORMS = {
    "question": lambda lm, country: f"What is the capital of {country}?",
    "cloze": lambda lm, country: f"The capital of {country} is",
    "chat": lambda lm, country: chat_prompt(lm, f"What is the capital of {country}?"),
}


def asked(lm, form, pairs=facts):
    """What the model writes about each country, up to 14 tokens of it."""
    return complete(lm, [FORMS[form](lm, country) for country, _ in pairs], max_new_tokens=14, stop=())


def share_naming(texts, pairs=facts):
    return accuracy(capital in text for text, (_, capital) in zip(texts, pairs, strict=True))


said = {name: {form: asked(lm, form) for form in FORMS} for name, lm in models.items()}
naming = {name: {form: share_naming(texts) for form, texts in of.items()} for name, of in said.items()}
for form in FORMS:
    print(form)
    for name in models:
        print(f"    {name:13s} {naming[name][form]}   {facts[0][0]}: {' / '.join(said[name][form][0].split(chr(10)))}")

# %%
def compare(axes, places, results):
    """Bars of every model beside each other: results {model: estimates}."""
    for index, (name, estimates) in enumerate(results.items()):
        figures.bars(axes, places, estimates, index, groups=len(results))
        axes.patches[-1].set_label(name)
    axes.legend(fontsize=8)


figure, axes = pyplot.subplots(figsize=(5, 3))
compare(axes, list(FORMS), {name: list(of.values()) for name, of in naming.items()})
axes.set(title="One fact in three forms", ylabel="share naming the capital", ylim=(0, 1.05))
show(figure, alt="Share of capitals named: " + "; ".join(
    f"{name} " + ", ".join(f"{form} {e.mean:.2f}" for form, e in of.items()) for name, of in naming.items()))  # fmt: skip

# %% [markdown]
# **What you saw.** TEXT1

# %% [markdown]
# ## Demonstrations: a slope instead of a step
# Three relations in the form of lesson 02, each query with eight demonstrations of its own, of which the first $k$ are
# shown. The pocket model's corpus has lists of all three, with these very items: it knows the *form* by heart. Nobody
# knows what lists the real one has read.

# %%
SHOTS = (0, 1, 2, 4, 8)
TABLES = {"capital": relations.stated("capital"), "opposite": list(world.PAIRS["opposite"]),
          "french noun": [(noun.french, noun.english) for noun in french.NOUNS]}  # fmt: skip


def episodes_of(relation):
    """For each of `count` different queries, eight demonstrations and the pair that is asked for."""
    rng = random.Random(f"{relation}:{args.seed}")
    queries = rng.sample(TABLES[relation], args.count)
    return [(rng.sample([pair for pair in TABLES[relation] if pair != query], max(SHOTS)), query) for query in queries]


def few_shot(lm, relation, shots):
    """Share of queries whose answer, the first line, is right word for word."""
    episodes = episodes_of(relation)
    prompts = [few_shot_prompt(shown[:shots], query) for shown, (query, _) in episodes]
    texts = complete(lm, prompts, max_new_tokens=7)
    return accuracy(first_line(text) == answer for text, (_, (_, answer)) in zip(texts, episodes))


curves = {name: {relation: [few_shot(lm, relation, shots) for shots in progress(SHOTS, relation)] for relation in TABLES}
          for name, lm in models.items()}  # fmt: skip
print(f"{'demonstrations':28s}", *(f"{shots:18d}" for shots in SHOTS))
for name, of in curves.items():
    for relation, row in of.items():
        print(f"{name:13s} {relation:14s}", *(f"{str(e).split(' (')[0]:>18s}" for e in row))

# %%
figure, panels = pyplot.subplots(1, len(TABLES), figsize=(9, 3), sharey=True)
for axes, relation in zip(panels, TABLES):
    for index, name in enumerate(models):
        figures.curve(axes, SHOTS, curves[name][relation], name, index)
    axes.set(title=relation, xlabel="demonstrations", xticks=SHOTS, ylim=(-0.02, 1.02))
panels[0].set(ylabel="exact match")
panels[0].legend(fontsize=8)
show(figure, alt="Exact match against demonstrations, 0 to 8, for three relations. " + "; ".join(
    f"{name}, {relation}: {row[0].mean:.2f}, with one {row[1].mean:.2f}, with eight {row[-1].mean:.2f}"
    for name, of in curves.items() for relation, row in of.items()))  # fmt: skip

# %% [markdown]
# **What you saw.** TEXT2

# %% [markdown]
# ## Labels: right, arbitrary, swapped
# Lesson 02 labelled things with nonsense words, and the pocket model followed. What if the labels *mean* something, and
# the demonstrations use them against their meaning? Short reviews, three namings of the same two classes:
#
# | naming | a good review is called | a bad one |
# |---|---|---|
# | right | positive | negative |
# | arbitrary | X | Y |
# | swapped | negative | positive |
#
# *Right* is what the demonstrations say. A reader without opinions would score the same under all three. Scoring takes
# the next-token probabilities of the two words. Reading is what costs time on a CPU, and all queries share their
# demonstrations: so read those once, keep their keys and values, and continue from there with every query.

# %%
@torch.no_grad()
def label_logprobs(lm, context, queries, words):
    """log p(word | context + query) for words of one token each, (queries, words) in nats; the context is read once."""
    start, *whole = encode(lm, [context, *(context + query for query in queries)])
    assert all(tokens[: len(start)] == start for tokens in whole)  # no token lies across the border
    rest, mask = pad_and_stack([tokens[len(start) :] for tokens in whole])
    cache = lm.model(torch.tensor([start]), use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(len(rest))
    last = torch.arange(rest.shape[1]) == mask.sum(1, keepdim=True) - 1
    return lm.logits_at(rest, last, past_key_values=cache).log_softmax(-1)[:, verbalizer_ids(lm, words)]


# %%
def reviews(count, name):
    """Different reviews of one sentence, (text, whether it is good), in turns."""
    rng, found = random.Random(f"{name}:{args.seed}"), {}
    while len(found) < count:
        good = len(found) % 2 == 0
        found.setdefault(tales.opinion(rng, "positive" if good else "negative", "movie", 1), good)
    return list(found.items())


def demonstrated(shown, words):
    """Demonstrations as text, up to where a new review would start; words = (for good, for bad)."""
    return "".join(f"Review: {text}\nSentiment: {words[not good]}\n\n" for text, good in shown) + "Review:"


NAMINGS = {"right": ("positive", "negative"), "arbitrary": ("X", "Y"), "swapped": ("negative", "positive")}
FEW = (0, 2, 8)
pool = reviews(args.count + 16, "reviews")
tests, sets = pool[16:], (pool[:8], pool[8:16])
good = torch.tensor([label for _, label in tests])
queries = [f" {text}\nSentiment:" for text, _ in tests]
print(demonstrated(sets[0][:2], NAMINGS["swapped"]) + queries[0], "(negative)" if tests[0][1] else "(positive)")

# %%
def calls_good(logprobs):
    return logprobs[:, 0] > logprobs[:, 1]


def follows(lm, words, shots):
    """Share of reviews that are called what the demonstrations would call them, over both sets of demonstrations."""
    right = [calls_good(label_logprobs(lm, demonstrated(shown[:shots], words), queries, words)) == good
             for shown in (sets if shots else sets[:1])]  # fmt: skip
    return wilson(torch.stack(right).double().mean().item(), len(tests))  # n counts reviews, not readings of them


labelled = {name: {naming: [follows(lm, words, shots) for shots in FEW] for naming, words in NAMINGS.items()}
            for name, lm in models.items()}  # fmt: skip
print(f"{'demonstrations':26s}", *(f"{shots:18d}" for shots in FEW))
for name, of in labelled.items():
    for label, row in of.items():
        print(f"{name:13s} {label:12s}", *(f"{str(e).split(' (')[0]:>18s}" for e in row))

# %%
figure, panels = pyplot.subplots(1, len(models), figsize=(4.2 * len(models), 3), sharey=True, squeeze=False)
for axes, (name, of) in zip(panels[0], labelled.items()):
    for index, (label, row) in enumerate(of.items()):
        figures.curve(axes, FEW, row, label, index)
    axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axes.set(title=name, xlabel="demonstrations", xticks=FEW, ylim=(-0.02, 1.02))
panels[0, 0].set(ylabel="called as demonstrated")
panels[0, -1].legend(fontsize=8)
show(figure, alt="Share of reviews called as the demonstrations would. " + "; ".join(
    f"{name}, {label}: " + ", ".join(f"{e.mean:.2f}" for e in row) for name, of in labelled.items()
    for label, row in of.items()) + f" with {', '.join(map(str, FEW))} demonstrations.")  # fmt: skip

# %% [markdown]
# **What you saw.** TEXT3

# %% [markdown]
# ## Calibration, where there is a bias to repair
# Four ways to ask for a verdict without a demonstration. Before you look: a pair of words is biased when one of them is
# likelier *whatever the review says*. Lesson 02 asked about nothing (`N/A`) and divided by the answer,
# $q \propto p / p_\mathrm{cf}$. Here it decides, so write the decision.

# %% ex="14.1" points=2 minutes=10 difficulty="medium"
def calibrated_choice(logprobs, content_free):
    """The number of the label that a calibrated reader chooses for each input.

    logprobs (B, C): log p(word | input) over the whole vocabulary, so rows do not sum to 1; content_free (N, C), the
    same for N inputs without content. Both are first normalised over the C words; the bias is the mean of the
    content-free *probabilities*. Returns (B,) int.
    """
    # BEGIN SOLUTION
    bias = content_free.softmax(-1).mean(0)
    return (logprobs.log_softmax(-1) - bias.log()).argmax(-1)
    # END SOLUTION

# %% ex="14.1" role="check"
calibrated_choice = check("14.1", calibrated_choice)

# %% [markdown] ex="14.1" role="hints"
# <details><summary>Hint 1</summary>`softmax(-1)` of log-probabilities normalises them over the words that are there.
# Average the content-free rows after that, not before.</details>
# <details><summary>Hint 2</summary>The largest p / bias is the largest log p − log bias: `argmax(-1)` of a
# difference.</details>

# %%
VERBALIZERS = {" {} This movie is": ("great", "awful"), " {} Overall, it was": ("good", "bad"),
               " {}\nMy label:": ("positive", "negative"), " {}\nSentiment:": ("positive", "negative")}  # fmt: skip
CONTENT_FREE = ("N/A", "...", "[MASK]")


def zero_shot(lm, form, words):
    """(share called good, accuracy, calibrated accuracy) of one form."""
    texts = [*CONTENT_FREE, *(text for text, _ in tests)]
    nothing, logprobs = label_logprobs(lm, "Review:", [form.format(text) for text in texts], words).split(
        (len(CONTENT_FREE), len(tests)))  # fmt: skip
    raw, repaired = calls_good(logprobs), calibrated_choice(logprobs, nothing) == 0
    gap = (logprobs.softmax(-1), nothing.softmax(-1))
    assert torch.equal(repaired, contextual_calibration(*gap).argmax(-1) == 0)
    return [accuracy(some.tolist()) for some in (raw, raw == good, repaired == good)]


verdicts = {name: {form: zero_shot(lm, form, words) for form, words in VERBALIZERS.items()} for name, lm in models.items()}
for name, of in verdicts.items():
    print(f"{name:42s} called good       accuracy          calibrated")
    for form, row in of.items():
        label = form.strip().replace("\n", " ") + f" {'/'.join(VERBALIZERS[form])}"
        print(f"    {label:36s}", *(f"{str(e).split(' (')[0]:17s}" for e in row))

# %% [markdown]
# **What you saw.** TEXT4

# %% [markdown]
# ## Order
# Four demonstrations, two good, two bad; nothing changes but their order.

# %%
four = sorted(sets[0][:4], key=lambda pair: pair[1])
orders = list(itertools.permutations(four))[:: max(1, 24 // 12)]
words = NAMINGS["right"]
hits = {name: torch.stack([calls_good(label_logprobs(lm, demonstrated(order, words), queries, words)) == good
                           for order in progress(orders, "orders")]) for name, lm in models.items()}  # fmt: skip
for name, table in hits.items():
    shares = table.double().mean(1)
    print(f"{name:13s} {len(orders)} orders: {shares.min():.2f} to {shares.max():.2f}, mean {shares.mean():.2f}")
