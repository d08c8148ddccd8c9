# Lesson 14: the lecture again on a real model. Runs as a script: python lessons/14_real_model.py --help

# %% [markdown]
# # 14 · A real model: the lecture again, on weights that nobody made for this course
#
# Everything so far happened in a pocket world, where the course wrote the corpus and could therefore explain every
# result. Now take SmolLM2-135M-Instruct, trained by strangers on two trillion tokens of the web, and measure the
# lecture's effects again, each beside the pocket model's and by the same function. *(Lecture: from "How do we tell the
# LM what we want to do?" to reinforcement learning on text; claims C02–C08, C14, C18, C21, C28, C40, C41.)*
# About 75 minutes; runs in about five minutes on two CPU cores, without a GPU.
#
# **You will need** lessons 01 to 03, 06 and 12. **You will be able to** say which effects carry over to a real model and
# which do not, put an interval to each, calibrate a biased prompt, measure what finetuning forgets, and see
# what reinforcement learning takes away while it adds.

# %%
# first: then Ctrl-C is one line
from ptlearn.course.session import arguments, end_script, progress, show

import copy
import itertools
import json
import math
import random
from functools import partial

import torch
from matplotlib import pyplot
from torch.nn.functional import cosine_similarity, cross_entropy

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm, pocket_models
from ptlearn.lm.prompting import (
    contextual_calibration,
    few_shot_prompt,
    first_line,
    rouge_l,
    verbalizer_ids,
)
from ptlearn.lm.real_model import REAL_MODELS
from ptlearn.lm.text import complete, completions, encode, token_logprobs
from ptlearn.pocket import french, relations, tales, world
from ptlearn.policy_gradient import episode_returns, leave_one_out, prompt_groups
from ptlearn.rl.tasks import Problem, Task
from ptlearn.rl.text_collection import attempt, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs, pad_and_stack
from ptlearn.statistics import Estimate, accuracy, over_seeds, wilson

args = arguments(
    "The lecture's effects on a real model, each beside a pocket model's.",
    model=("smollm2-135m", "the real model: smollm2-135m, a folder or a hub id"),
    pocket=("pocket-m", "the model beside it", pocket_models()),
    count=(40, "different items per measurement", "at least 4, at most 60"),
    steps=(12, "of finetuning", "at least 1"),
    seeds=(1, "of finetuning at each rate", "at least 1"),
    updates=(8, "of reinforcement learning", "at least 1"),
    seed=(0, "of the items, the order of training and all sampling", "at least 0"),
)
# matrices of 576 columns: large enough for two, and the same sums on every machine
torch.set_num_threads(2)
models = {args.pocket: load_lm(args.pocket)}
try:
    models[args.model] = load_lm(args.model)
except FileNotFoundError as missing:
    # a script ends here; in a notebook the cells below measure the pocket model alone
    end_script(missing)
for name, lm in models.items():
    what = (REAL_MODELS[name].what if name in REAL_MODELS
            else "a base model of the pocket world")  # fmt: skip
    millions = sum(p.numel() for p in lm.parameters()) / 1e6
    print(f"{name}: {what}, {millions:.1f} million parameters")

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
# 2. One demonstration gave the pocket model nearly all that eight give. **Does it the real one?**
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
    prompts = [FORMS[form](lm, country) for country, _ in pairs]
    return complete(lm, prompts, max_new_tokens=14, stop=())


def share_naming(texts, pairs=facts):
    return accuracy(capital in text for text, (_, capital) in zip(texts, pairs, strict=True))


said = {name: {form: asked(lm, form) for form in FORMS} for name, lm in models.items()}
naming = {name: {form: share_naming(texts) for form, texts in of.items()}
          for name, of in said.items()}  # fmt: skip
for form in FORMS:
    print(form)
    for name in models:
        answer = " / ".join(said[name][form][0].split("\n"))
        print(f"    {name:13s} {naming[name][form]}   {facts[0][0]}: {answer}")

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
    f"{name} " + ", ".join(f"{form} {e.mean:.2f}" for form, e in of.items())
    for name, of in naming.items()))  # fmt: skip

# %% [markdown]
# **What you saw.** [C02, C03] The plain question is hardly ever answered, by either model: an instruct model, too, goes
# on with a *document* when it is handed one, the pocket model with the next question of a quiz, the real one, for Gabon,
# with an empty `A:`. The cloze brings the fact out of both, in chat form only the one that was finetuned on chats. The
# real model knows about half of these capitals, and cloze and chat agree about that: what finetuning changed, only its
# base model could tell. Its wrong answers look like right ones (*Koula*, *Kouilou*). The pocket model knows all, because
# its corpus says each of them again and again.

# %% [markdown]
# ## Demonstrations: a slope instead of a step
# Three relations in the form of lesson 02, each query with eight demonstrations of its own, of which the first $k$ are
# shown. The pocket model's corpus has lists of all three, with nine in ten of these items: it knows the *form* by heart.
# Nobody knows what lists the real one has read.

# %%
SHOTS = (0, 1, 2, 4, 8)
TABLES = {"capital": relations.stated("capital"), "opposite": list(world.PAIRS["opposite"]),
          "french noun": [(noun.french, noun.english) for noun in french.NOUNS]}  # fmt: skip


def episodes_of(relation):
    """For each of `count` different queries, eight demonstrations and the pair asked for."""
    rng, table = random.Random(f"{relation}:{args.seed}"), TABLES[relation]
    queries = rng.sample(table, args.count)
    return [(rng.sample([pair for pair in table if pair != query], max(SHOTS)), query)
            for query in queries]  # fmt: skip


def few_shot(lm, relation, shots):
    """Share of queries whose answer, the first line, is right word for word."""
    episodes = episodes_of(relation)
    prompts = [few_shot_prompt(shown[:shots], query) for shown, (query, _) in episodes]
    texts = complete(lm, prompts, max_new_tokens=7)
    return accuracy(first_line(text) == answer
                    for text, (_, (_, answer)) in zip(texts, episodes))  # fmt: skip


curves = {name: {relation: [few_shot(lm, relation, shots)
                            for shots in progress(SHOTS, relation)] for relation in TABLES}
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
show(figure, alt="Exact match against demonstrations, 0 to 8, for three relations. "
     + "; ".join(f"{name}, {relation}: {row[0].mean:.2f}, with one {row[1].mean:.2f}, "
                 f"with eight {row[-1].mean:.2f}"
                 for name, of in curves.items() for relation, row in of.items()))  # fmt: skip

# %% [markdown]
# **What you saw.** [C05, C06] In the pocket world the first demonstration brings nearly all that eight bring: a step. The
# real model climbs a slope: nothing without demonstrations, next to nothing with one, and all three are highest with
# eight. Both know the capitals, or many of them (compare the cloze above). What differs is how much of its training had
# this form. A pocket corpus is four tenths such lists, so the first line says which list it is; on the web `hot = cold`
# is rare, and each further line is evidence that this is what the text is about. Larger models climb faster (Brown et
# al., 2020).

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
# An answer counts where it is the one that the naming asks for. A reader without opinions would score the same under all
# three. Scoring takes the next-token probabilities of the two words. Reading is what costs time on a CPU, and all
# queries share their demonstrations: so read those once, keep their keys and values, and continue from there with every
# query.

# %%
@torch.no_grad()
def label_logprobs(lm, context, queries, words):
    """log p(word | context + query), words of one token each: (queries, words), in nats.

    The context is read once.
    """
    start, *whole = encode(lm, [context, *(context + query for query in queries)])
    # no token lies across the border
    assert all(tokens[: len(start)] == start for tokens in whole)
    rest, mask = pad_and_stack([tokens[len(start) :] for tokens in whole])
    cache = lm.model(torch.tensor([start]), use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(len(rest))
    last = torch.arange(rest.shape[1]) == mask.sum(1, keepdim=True) - 1
    logits = lm.logits_at(rest, last, past_key_values=cache)
    return logits.log_softmax(-1)[:, verbalizer_ids(lm, words)]


# %%
def reviews(count, name):
    """Different reviews of one sentence, (text, whether it is good), in turns."""
    rng, found = random.Random(f"{name}:{args.seed}"), {}
    while len(found) < count:
        good = len(found) % 2 == 0
        kind = "positive" if good else "negative"
        found.setdefault(tales.opinion(rng, kind, "movie", 1), good)
    return list(found.items())


def demonstrated(shown, words):
    """Demonstrations, up to where a new review would start; words = (for good, for bad)."""
    parts = [f"Review: {text}\nSentiment: {words[not good]}\n\n" for text, good in shown]
    return "".join(parts) + "Review:"


NAMINGS = {"right": ("positive", "negative"), "arbitrary": ("X", "Y"),
           "swapped": ("negative", "positive")}  # fmt: skip
FEW = (0, 2, 8)
pool = reviews(args.count + 16, "reviews")
tests, sets = pool[16:], (pool[:8], pool[8:16])
good = torch.tensor([label for _, label in tests])
queries = [f" {text}\nSentiment:" for text, _ in tests]
print(demonstrated(sets[0][:2], NAMINGS["swapped"]) + queries[0],
      "(negative)" if tests[0][1] else "(positive)")  # fmt: skip

# %%
def calls_good(logprobs):
    return logprobs[:, 0] > logprobs[:, 1]


def follows(lm, words, shots):
    """Share of reviews that are called what the demonstrations would call them.

    Over both sets of demonstrations; n counts reviews, not readings of them.
    """
    contexts = [demonstrated(shown[:shots], words) for shown in (sets if shots else sets[:1])]
    right = [calls_good(label_logprobs(lm, context, queries, words)) == good
             for context in contexts]  # fmt: skip
    return wilson(torch.stack(right).double().mean().item(), len(tests))


labelled = {name: {naming: [follows(lm, words, shots) for shots in FEW]
                   for naming, words in NAMINGS.items()}
            for name, lm in models.items()}  # fmt: skip
print(f"{'demonstrations':26s}", *(f"{shots:18d}" for shots in FEW))
for name, of in labelled.items():
    for label, row in of.items():
        print(f"{name:13s} {label:12s}", *(f"{str(e).split(' (')[0]:>18s}" for e in row))

# %%
figure, panels = pyplot.subplots(1, len(models), figsize=(4.2 * len(models), 3),
                                 sharey=True, squeeze=False)  # fmt: skip
for axes, (name, of) in zip(panels[0], labelled.items()):
    for index, (label, row) in enumerate(of.items()):
        figures.curve(axes, FEW, row, label, index)
    axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axes.set(title=name, xlabel="demonstrations", xticks=FEW, ylim=(-0.02, 1.02))
panels[0, 0].set(ylabel="called as demonstrated")
panels[0, -1].legend(fontsize=8)
show(figure, alt="Share of reviews called as the demonstrations would. " + "; ".join(
    f"{name}, {label}: " + ", ".join(f"{e.mean:.2f}" for e in row)
    for name, of in labelled.items() for label, row in of.items())
    + f" with {', '.join(map(str, FEW))} demonstrations.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C06 has a limit] Under their right names the labels need no demonstration. Swapped, they are never
# followed above chance: with two demonstrations the real model calls nine reviews in ten by their *usual* name, with
# eight it wavers, and wavering is not following. The pocket model does not even waver. **The prior is never beaten.**
# And meaningless labels, which the pocket model learns from two examples because its corpus is full of such lists, stay
# at a guess in the real one. Learning arbitrary or turned labels in context is a matter of scale: Wei et al. (2023) find
# it in models a thousand times as large, and not in small ones. So what demonstrations do depends on the model: the real
# one here is reminded of a task and hardly taught one.

# %% [markdown]
# ## Calibration, where there is a bias to repair
# Four ways to ask for a verdict without a demonstration. Before you look: a pair of words is biased when one of them is
# likelier *whatever the review says*. Lesson 02 asked about nothing (`N/A`) and divided by the answer,
# $q \propto p / p_\mathrm{cf}$. Here it decides, so write the decision.

# %% ex="14.1" title="A calibrated choice" points=2 minutes=10 difficulty="medium"
def calibrated_choice(logprobs, content_free):
    """The number of the label that a calibrated reader chooses for each input.

    logprobs (B, C): log p(word | input) over the whole vocabulary, so rows do not sum to 1;
    content_free (N, C), the same for N inputs without content. Both are first normalised over
    the C words; the bias is the mean of the content-free *probabilities*. Returns (B,) int.
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
VERBALIZERS = {
    " {} This movie is": ("great", "awful"),
    " {} Overall, it was": ("good", "bad"),
    " {}\nMy label:": ("positive", "negative"),
    " {}\nSentiment:": ("positive", "negative"),
}
CONTENT_FREE = ("N/A", "...", "[MASK]")


def zero_shot(lm, form, words):
    """(share called good, accuracy, calibrated accuracy) of one form."""
    texts = [*CONTENT_FREE, *(text for text, _ in tests)]
    both = label_logprobs(lm, "Review:", [form.format(text) for text in texts], words)
    nothing, logprobs = both.split((len(CONTENT_FREE), len(tests)))
    raw, repaired = calls_good(logprobs), calibrated_choice(logprobs, nothing) == 0
    gap = (logprobs.softmax(-1), nothing.softmax(-1))
    assert torch.equal(repaired, contextual_calibration(*gap).argmax(-1) == 0)
    return [accuracy(some.tolist()) for some in (raw, raw == good, repaired == good)]


verdicts = {name: {form: zero_shot(lm, form, words) for form, words in VERBALIZERS.items()}
            for name, lm in models.items()}  # fmt: skip
for name, of in verdicts.items():
    print(f"{name:42s} called good       accuracy          calibrated")
    for form, row in of.items():
        label = form.strip().replace("\n", " ") + f" {'/'.join(VERBALIZERS[form])}"
        print(f"    {label:36s}", *(f"{str(e).split(' (')[0]:17s}" for e in row))

# %% [markdown]
# **What you saw.** [C07] *This movie is* and *Overall, it was* make the real model call nearly everything good: accuracy
# at chance, from a model that reads sentiment nearly perfectly by the last form. Three content-free inputs, no label
# among them, bring most of it back: the knowledge was there, under a bias. Where there was no bias, calibration changes
# nothing, or costs a review. The pocket model shows the same in two forms, but leans to the bad side. Zhao et al. (2021)
# report it for GPT-3. Which of the four you would have tried first is luck; calibration makes that luck matter less.

# %% [markdown]
# ## Does order matter, or is it luck?
# Four demonstrations, two good, two bad; nothing changes but their order. Twelve orders read the same reviews, and the
# best is above the worst in any case. How much above, if order meant nothing? Cochran (1950) has the test for such tables
# of right and wrong, $M$ orders by $N$ reviews. With $G_j$ the number right under order $j$, $\bar G$ its mean, and
# $L_i$ the number of orders that get review $i$ right,
#
# $$Q = \frac{M (M - 1) \sum_j (G_j - \bar G)^2}{M \sum_i L_i - \sum_i L_i^2}$$
#
# is near $M - 1$ if orders are exchangeable ($\chi^2$ with $M - 1$ degrees of freedom). A review that comes out the same
# under all orders adds nothing to the denominator: it says nothing about order.

# %% ex="14.2" title="More than luck" points=3 minutes=12 difficulty="medium"
def order_effect(hits):
    """How far the orders lie apart, and Cochran's Q, which says whether that is luck.

    hits (M, N) bool: whether order j gets review i right. Returns {"spread": accuracy of the
    best order minus that of the worst, "q": Cochran's Q}; q is 0 where every review comes out
    the same under all orders.
    """
    # BEGIN SOLUTION
    table = hits.double()
    orders, right, easy = len(table), table.sum(1), table.sum(0)
    within = (orders * easy - easy**2).sum()
    between = orders * (orders - 1) * ((right - right.mean()) ** 2).sum()
    spread = (right.max() - right.min()) / table.shape[1]
    return {"spread": spread.item(), "q": (between / within).item() if within else 0.0}
    # END SOLUTION

# %% ex="14.2" role="check"
order_effect = check("14.2", order_effect)

# %% [markdown] ex="14.2" role="hints"
# <details><summary>Hint 1</summary>G is `hits.double().sum(1)`, one number per order; L is the sum over the other axis,
# one number per review.</details>
# <details><summary>Hint 2</summary>The denominator sums L (M − L) over the reviews; it is 0 exactly when every L is 0 or
# M.</details>

# %%
shown = sorted(sets[0][:4], key=lambda pair: pair[1])
orders, words = list(itertools.permutations(shown))[::2], NAMINGS["right"]
contexts = [demonstrated(order, words) for order in orders]
hits = {name: torch.stack([calls_good(label_logprobs(lm, context, queries, words)) == good
                           for context in progress(contexts, "orders")])
        for name, lm in models.items()}  # fmt: skip
effects = {name: order_effect(table) for name, table in hits.items()}
half = torch.tensor((len(orders) - 1) / 2)  # of the degrees of freedom
luck = {name: torch.special.gammaincc(half, torch.tensor(effect["q"] / 2)).item()
        for name, effect in effects.items()}  # fmt: skip
for name, shares in ((name, table.double().mean(1)) for name, table in hits.items()):
    print(f"{name:13s} {len(orders)} orders: {shares.min():.2f} to {shares.max():.2f}, "
          f"mean {shares.mean():.2f}; Q {effects[name]['q']:.1f}, by luck {len(orders) - 1}; "
          f"p = {luck[name]:.1g}")  # fmt: skip

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), sharey=True)
compare(left, ["great/\nawful", "good/\nbad", "My label", "Sentiment"],
        {f"{name}, {step}": [row[place] for row in of.values()]
         for name, of in verdicts.items() if name == [*models][-1]
         for step, place in (("raw", 1), ("calibrated", 2))})  # fmt: skip
for index, (name, table) in enumerate(hits.items()):
    right.plot(range(1, len(orders) + 1), sorted(table.double().mean(1).tolist()), label=name,
               color=figures.COLORS[index], marker=figures.MARKERS[index])  # fmt: skip
for axes in (left, right):
    axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
left.set(title="No demonstrations", ylabel="accuracy", ylim=(0, 1.35))
right.set(title="One set of four demonstrations",
          xlabel="its orders, from the worst to the best")  # fmt: skip
left.legend(fontsize=8, loc="upper left"), right.legend(fontsize=8, loc="lower right")
show(figure, alt="Left: accuracy of four verbalizers before and after calibration. Right: "
     "accuracy of twelve orders of four demonstrations. " + "; ".join(
         f"{name}: {table.double().mean(1).min():.2f} to {table.double().mean(1).max():.2f}"
         for name, table in hits.items()))  # fmt: skip

# %% [markdown]
# **What you saw.** [C07] Between chance and nearly perfect, with the same four reviews: this is the picture of Lu et al.
# (2022), which the pocket model, always right here, could not show you. The $p$ says that it is no luck of forty reviews.
# It says nothing about *which* order is good for other demonstrations: the best of twelve on a test set is
# a choice made on the test set.

# %% [markdown]
# ## TL;DR
# Six short stories, written for this lesson, each with a summary by the same hand. ROUGE-L against that summary, for what
# the model writes after `TL;DR:`, after a line break alone, and for a baseline that reads nothing but the first sentence
# (lead-1).

# %%
STORIES = (
    ("Maria left her umbrella on the morning bus. It was a gift from her grandmother, so she "
     "called the bus company at once. Nobody had handed it in. Two days later the driver saw "
     "Maria at the stop and waved. He had kept the umbrella under his seat for her.",
     "A bus driver kept the umbrella that Maria had lost and gave it back to her."),
    ("The village school had no heating in January. The parents met in the church and talked "
     "for three hours. In the end a farmer offered his old stove, and the baker offered "
     "wood. By Monday the children sat in a warm room.",
     "A farmer and a baker gave a stove and wood so that the village school was warm again."),
    ("Ben wanted to win the chess tournament. He practised every evening and even dreamed of "
     "knights and rooks. In the final he met a girl of nine who hardly looked at the board. "
     "She beat him in twenty moves and asked whether he would like to learn how.",
     "Ben practised hard for the chess tournament but lost the final to a girl of nine."),
    ("Our old dog stopped eating in spring. The vet found nothing wrong with him. My brother "
     "noticed that the dog's bowl had been moved next to the new washing machine. We put it "
     "back in the corner, and that evening he ate everything.",
     "The old dog ate again when his bowl was moved away from the washing machine."),
    ("A storm took the roof off the library on Tuesday night. Hundreds of books got wet. On "
     "Wednesday people came with towels and hair dryers and worked until dark. Most of the "
     "books were saved, and the roof will be repaired next week.",
     "People saved most of the library's books after a storm took off its roof."),
    ("Lena baked a cake for her father's birthday. She read salt where the recipe said "
     "sugar. Her father took one bite, smiled, and ate the whole piece. Only when she tasted "
     "it herself did she understand how much he loved her.",
     "Lena put salt in her father's birthday cake, and he ate it anyway because he loves "
     "her."),
)  # fmt: skip


def mean_rouge(texts):
    """Mean ROUGE-L over the stories with its 95 % interval over them."""
    return over_seeds([rouge_l(text, summary) for text, (_, summary) in zip(texts, STORIES)])


CUES = {"TL;DR": "\nTL;DR:", "no cue": "\n"}
summaries = {name: {cue: complete(lm, [story + written for story, _ in STORIES],
                                  max_new_tokens=28) for cue, written in CUES.items()}
             for name, lm in models.items()}  # fmt: skip
rouge = {name: {cue: mean_rouge(texts) for cue, texts in of.items()}
         for name, of in summaries.items()}  # fmt: skip
lead = mean_rouge([story.partition(". ")[0] for story, _ in STORIES])
print("lead-1       ", lead)
for name, of in rouge.items():
    print(f"{name:13s}", "; ".join(f"{cue} {estimate}" for cue, estimate in of.items()))
    print(f"    TL;DR:{summaries[name]['TL;DR'][0]}")

# %% [markdown]
# **What you saw.** [C03, C04] The cue does something: without it the real model writes nothing before the line ends,
# with it comes a text about the story. But no better than the first sentence, by this measure, and often false: read the
# summaries (`summaries`). The pocket model tells of stories from its own world, whatever it was given, and shared little
# words pay it nearly as much, which says more about ROUGE than about the model. And six stories are six: an effect the
# size of that of lesson 01 would show, a small one could not. GPT-2, ten times this size, stayed far below the first
# three sentences of news articles, and hardly above three random ones (Radford et al., 2019).

# %% [markdown]
# ## A format in twelve steps, and what it costs
# LoRA (lesson 06, rank 8 on every projection) on 48 questions about words, such as *What is the opposite of hot?*, each
# answered as `{"answer": "cold"}`. No country among them. Then three questions on the forty capitals, the same ones as
# above. Does a chat answer have the **form**? Is the capital in it (**chat**)? And does the model still **know** it: is it
# named after the cloze, and how likely is it there, $\log p(\text{capital} \mid \text{cloze})$?
#
# Forgetting is a difference *on the same items*, so pair them: an item that is hard before and after says nothing about
# the change, and its variance cancels.

# %% ex="14.3" title="Forgetting" points=2 minutes=8 difficulty="easy"
def forgetting(before, after):
    """What was lost, on average over the same items, with its 95 % interval.

    before, after (N,) float: a score of each item before and after finetuning, 1 or 0 for
    right and wrong, or a log-probability. Returns {"lost": the mean of before - after,
    "low": ..., "high": ...}: mean -+ 1.96 s / sqrt(N), where s is the standard deviation of
    the N differences (N - 1 below the sum).
    """
    # BEGIN SOLUTION
    change = before - after
    lost, margin = change.mean(), 1.96 * change.std() / len(change) ** 0.5
    return {"lost": lost.item(), "low": (lost - margin).item(), "high": (lost + margin).item()}
    # END SOLUTION

# %% ex="14.3" role="check"
forgetting = check("14.3", forgetting)

# %% [markdown] ex="14.3" role="hints"
# <details><summary>Hint 1</summary>Subtract item by item first; everything else is the mean and the standard deviation of
# that one list.</details>
# <details><summary>Hint 2</summary>`tensor.std()` divides by N − 1 already; the error of a *mean* is s over the root of
# N.</details>

# %%
QUESTIONS = {
    "opposite": "What is the opposite of {}?",
    "young": "What is a young {} called?",
    "past": "What is the past tense of {}?",
    "plural": "What is the plural of {}?",
}
RATES = (2e-4, 1e-3, 8e-3)


def json_conversations(count, seed):
    pairs = [(QUESTIONS[kind].format(word), answer)
             for kind in QUESTIONS for word, answer in world.PAIRS[kind]]  # fmt: skip
    chosen = random.Random(f"json:{seed}").sample(pairs, count)
    return [[{"role": "user", "content": question},
             {"role": "assistant", "content": json.dumps({"answer": answer})}]
            for question, answer in chosen]  # fmt: skip


def finetuned(lm, rate, seed):
    """A copy of the model after `steps` steps of four conversations each."""
    learner = lora(copy.deepcopy(lm), targets=".*_proj", rank=8, seed=seed)
    examples, _ = render_all(learner, json_conversations(4 * args.steps, seed))
    fit_sft(learner, examples, batch=4, lr=rate, seed=seed)
    return learner


def has_form(text):
    try:
        return list(json.loads(text)) == ["answer"]
    except (ValueError, TypeError):
        return False


# %%
def known(lm, texts=None):
    """For each capital: (form, chat, cloze), 1 or 0, and log p(capital | cloze) in nats, as
    rows of a tensor.
    """
    chat, cloze = (texts[form] if texts else asked(lm, form) for form in ("chat", "cloze"))
    names = [f" {capital}" for _, capital in facts]
    sizes = [len(tokens) for tokens in encode(lm, names, bos=False)]
    sentences = [f"The capital of {country} is {capital}" for country, capital in facts]
    logprobs = token_logprobs(lm, sentences)
    return torch.tensor([
        [has_form(text) for text in chat],
        [capital in text for text, (_, capital) in zip(chat, facts)],
        [capital in text for text, (_, capital) in zip(cloze, facts)],
        [scores[-size:].sum() for scores, size in zip(logprobs, sizes)],
    ])  # fmt: skip


before = {name: known(lm, said[name]) for name, lm in models.items()}
seeds = range(args.seed, args.seed + args.seeds)
after = {name: {rate: torch.stack([known(finetuned(lm, rate, seed)) for seed in seeds]).mean(0)
                for rate in progress(RATES, "rates")}
         for name, lm in models.items()}  # fmt: skip
print(f"{'':13s} {'rate':>6s}   form   chat  cloze   "
      "lost by the cloze (share)   lost by the cloze (nats)")  # fmt: skip
for name in models:
    print(f"{name:13s} before", *(f"{share:6.2f}" for share in before[name][:3].mean(1)))
    for rate, scores in after[name].items():
        lost = [forgetting(before[name][row], scores[row]) for row in (2, 3)]
        print(f"{name:13s} {rate:6g}", *(f"{share:6.2f}" for share in scores[:3].mean(1)),
              *(f"{x['lost']:+10.2f} [{x['low']:+.2f}, {x['high']:+.2f}]"
                for x in lost))  # fmt: skip

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
STEPS = ["before", *(f"{rate:g}" for rate in RATES)]
newest = [*models][-1]
labels = ("has the form", "capital, in chat", "capital, after the cloze")
for index, label in enumerate(labels):
    shares = [wilson(scores[index].mean().item(), args.count)
              for scores in (before[newest], *after[newest].values())]  # fmt: skip
    figures.bars(panels[0], STEPS, shares, index, groups=3)
    panels[0].patches[-1].set_label(label)
lost = [forgetting(before[newest][3], scores[3]) for scores in after[newest].values()]
paired = [Estimate(x["lost"], x["low"], x["high"], args.count) for x in lost]
figures.bars(panels[1], STEPS[1:], paired)
panels[0].set(title=f"{newest}: form and facts", xlabel="learning rate",
              ylabel="share of capitals", ylim=(0, 1.4))  # fmt: skip
panels[1].set(title="What the cloze lost", xlabel="learning rate",
              ylabel="nats per capital, paired")  # fmt: skip
panels[1].axhline(0, color="black", linewidth=0.8)
panels[0].legend(fontsize=7, loc="upper left")
show(figure, alt=f"{newest}: share of answers in the form "
     + ", ".join(f"{scores[0].mean():.2f}" for scores in after[newest].values())
     + " at the three rates; nats lost by the cloze "
     + ", ".join(f"{x['lost']:+.2f}" for x in lost))  # fmt: skip

# %% [markdown]
# **What you saw.** [C08, C14] A dozen steps at the middle rate teach the **form**, for countries too, of which there was
# none in training. At that rate no loss of **facts** is seen: after the cloze they come as before, and
# the interval of what was lost holds zero. Yet the chat answers got *worse*, 0.52 to 0.15: in the new form the
# model does not reach what it knows. So look twice before you say "forgotten": ask in the old form. At the high rate it
# *is* forgotten: the cloze itself loses capitals and nats. At the low one there is no form yet, nothing is forgotten, and
# the chat answers suffer all the same. The pocket model does not learn the form at any of these rates in twelve steps,
# and forgets a hundredth of a nat.
#
# One seed is one seed. Three seeds of finetuning, averaged for each capital, recorded from
# `python lessons/14_real_model.py --seeds 3` (intervals over the 40 capitals):
#
# | rate | form | capital in chat | after the cloze | lost by the cloze, share | lost by the cloze, nats |
# |---|---|---|---|---|---|
# | before | 0.00 | 0.52 | 0.55 | | |
# | 2e-4 | 0.00 | 0.28 | 0.52 | +0.03 [−0.02, 0.07] | −0.01 [−0.05, 0.03] |
# | 1e-3 | 0.96 | 0.12 | 0.54 | +0.01 [−0.08, 0.09] | −0.02 [−0.18, 0.14] |
# | 8e-3 | 0.98 | 0.03 | 0.20 | +0.35 [0.21, 0.49] | +3.99 [2.87, 5.11] |

# %% [markdown]
# ## Eight steps that sharpen
# REINFORCE with leave-one-out (lesson 12) on the cloze, answers of at most eight tokens, the forty capitals held out.
# The reward is a program: right, times brevity.

# %% ex="14.4" title="A brief reward" points=1 minutes=6 difficulty="easy"
def brief_reward(text, capital, room=8):
    """What an answer earns: 0 unless it names the capital; else 1, less 1 / room for each word
    too many, at least 0.

    Words are what white space parts; as many as the capital has are free. "Nairobi" earns 1,
    "the city of Nairobi" with room 8 earns 1 - 3/8.
    """
    # BEGIN SOLUTION
    too_many = len(text.split()) - len(capital.split())
    return max(0.0, 1 - too_many / room) if capital in text else 0.0
    # END SOLUTION

# %% ex="14.4" role="check"
brief_reward = check("14.4", brief_reward)

# %% [markdown] ex="14.4" role="hints"
# <details><summary>Hint 1</summary>`text.split()` is the list of words, and `capital in text` asks for the
# name.</details>
# <details><summary>Hint 2</summary>Count the words beyond those of the capital: "New Delhi" has two free
# ones.</details>

# %%
def problems(pairs):
    return tuple(Problem(f"The capital of {country} is",
                         partial(brief_reward, capital=capital), capital)
                 for country, capital in pairs)  # fmt: skip


others = [pair for pair in relations.stated("capital") if pair not in facts]
task = Task("capitals", problems(others), problems(facts), max_new_tokens=8,
            stop=("\n", "."), chat=False)  # fmt: skip
SAMPLES = 4


def rloo(rollout, *_):
    """Return minus the mean of the other answers to the same prompt."""
    won = episode_returns(rollout.rewards, rollout.mask)
    groups = prompt_groups(rollout.observations, rollout.mask)
    return (won - leave_one_out(won, groups=groups))[:, None] * rollout.mask


def sampled(lm):
    """Four answers to each held-out problem at temperature 1, in rows of four:
    (texts, rewards, -log p per token).
    """
    repeated = [problem for problem in task.held_out for _ in range(SAMPLES)]
    rollout = attempt(task, lm, repeated, seed=args.seed + 1)
    texts = [text.strip() for text in completions(lm, rollout, task.stop)]
    surprise = -(rollout.logprobs * rollout.mask).sum(1) / rollout.mask.sum(1)
    rows = [texts[first : first + SAMPLES] for first in range(0, len(texts), SAMPLES)]
    return rows, rollout.rewards.sum(1).view(-1, SAMPLES), surprise.view(-1, SAMPLES)


# %%
collector = text_collector(task, prompts=6, group=6)
histories, drawn = {}, {}
for name, lm in models.items():
    learner = lora(copy.deepcopy(lm), targets=("q_proj", "v_proj", "o_proj"), rank=8,
                   seed=args.seed)  # fmt: skip
    histories[name] = train_policy(learner, collector, rloo, updates=args.updates, lr=1e-3,
                                   clip_norm=1.0, seed=args.seed)  # fmt: skip
    drawn[name] = sampled(lm), sampled(learner)
    for when, (rows, rewards, surprise) in zip(("before", "after"), drawn[name]):
        print(f"{name:13s} {when:6s} reward {over_seeds(rewards.mean(1))}, "
              f"nats per token {over_seeds(surprise.mean(1))}; "
              f"{facts[0][0]}: {' / '.join(rows[0])}")  # fmt: skip

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(9, 3))
for index, (name, history) in enumerate(histories.items()):
    style = {"color": figures.COLORS[index], "marker": figures.MARKERS[index], "label": name}
    panels[0].plot(range(args.updates), history.returns, **style)
    panels[1].plot(range(args.updates), history.entropy, **style)
panels[0].set(title="Reward of the batch, 36 answers", xlabel="updates so far",
              ylabel="right × brevity", ylim=(0, 1.35))  # fmt: skip
panels[1].set(title="Entropy of the policy", xlabel="updates so far",
              ylabel="nats per token", ylim=(0, None))  # fmt: skip
panels[0].legend(fontsize=8, loc="upper left")
show(figure, alt="Reward and entropy of each batch. " + "; ".join(
    f"{name}: reward {history.returns[0]:.2f} to {history.returns[-1]:.2f}, "
    f"entropy {history.entropy[0]:.2f} to {history.entropy[-1]:.2f}"
    for name, history in histories.items()))  # fmt: skip

# %% [markdown]
# ### Sharper, or wiser?
# Three readings of four answers per problem. **pass@1**: the share that is right. **pass@4**: is any of them right? And
# **maj@4**, self-consistency (Wang et al., 2023): is the most frequent one right? If learning only sharpens what the
# model believed already, then pass@1 rises towards the maj@4 that it had *before*, and pass@4 falls towards it.

# %% ex="14.5" title="The majority's answer" points=2 minutes=10 difficulty="medium"
def majority_right(answers, gold):
    """Share of problems whose most frequent answer is the right one.

    answers: for each problem a list of sampled answers, strings; gold: the right answer of
    each. Where m answers share first place and the right one is among them, the problem counts
    1 / m: one of them is drawn.
    """
    # BEGIN SOLUTION
    total = 0.0
    for sampled_answers, right in zip(answers, gold):
        most = max(map(sampled_answers.count, sampled_answers))
        first = {answer for answer in sampled_answers if sampled_answers.count(answer) == most}
        total += (right in first) / len(first)
    return total / len(gold)
    # END SOLUTION

# %% ex="14.5" role="check"
majority_right = check("14.5", majority_right)

# %% [markdown] ex="14.5" role="hints"
# <details><summary>Hint 1</summary>`answers.count(x)` says how often x was drawn; the largest of these counts decides who
# shares first place.</details>
# <details><summary>Hint 2</summary>Four different answers share first place four ways: the right one among them earns a
# quarter, which is what one draw is worth.</details>

# %%
capitals = [capital for _, capital in facts]


def right_answers(rows):
    """Whether each answer names the capital, 1 or 0: (problems, SAMPLES)."""
    return torch.tensor([[capital in text for text in texts]
                         for texts, capital in zip(rows, capitals)]).double()  # fmt: skip


def three_ways(rows):
    """(pass@1, maj@4, pass@4), n counting problems."""
    named = [[capital if capital in text else text for text in texts]
             for texts, capital in zip(rows, capitals)]  # fmt: skip
    right = right_answers(rows)
    shares = right.mean().item(), majority_right(named, capitals), right.amax(1).mean().item()
    return [wilson(share, len(capitals)) for share in shares]


def by_luck_before(name):
    """Right answers after RL: to problems of which any answer was right before, and to those
    of which none was.
    """
    earlier, later = (right_answers(rows) for rows, _, _ in drawn[name])
    lucky = earlier.amax(1) > 0
    return [wilson(later[group].mean().item(), int(group.sum())) if group.any()
            else Estimate(math.nan, 0, 1, 0) for group in (lucky, ~lucky)]  # fmt: skip


ways = {name: [three_ways(rows) for rows, _, _ in both] for name, both in drawn.items()}
for name, both in ways.items():
    for when, row in zip(("before", "after"), both):
        print(f"{name:13s} {when:6s}", "  ".join(
            f"{way} {e}" for way, e in zip(("pass@1", "maj@4", "pass@4"), row)))  # fmt: skip
    print(f"{name:13s} after, where right once in four before, and where never:",
          *by_luck_before(name))  # fmt: skip

# %% [markdown]
# **What you saw.** [C40, C41] Eight updates, 288 answers, and on capitals that it was not trained on the reward more
# than doubles, while the policy loses half of its nats per token: the price that the prediction asked for. Batches of
# six problems are a noisy witness of that (left); the forty held-out ones, paired, leave no doubt. Much of the gain is
# sharpening: right answers are shorter, and pass@1 rises towards the maj@4 of before, 0.31. Some may be more: it went
# on to 0.42, and pass@4 did not fall; forty problems settle neither. What it could do before bounds what it became:
# where one of its four answers had been right, 0.77 of the new ones are, and elsewhere 0.19. For large k it usually
# falls below that of the model before (Yue et al., 2025), for an answer that is never drawn again cannot be right. The
# pocket model, sure of its answers from the start, has nothing to sharpen: its learning was lesson 12's.

# %% [markdown]
# ## Three things that no size changes
# Effects depend on the model; identities do not. A fresh LoRA changes nothing (lesson 06): no log-probability of the
# forty sentences may move. It trains one number for so many of the model's. And finetuning on own answers, weighted by
# their rewards, has REINFORCE's gradient (lesson 12): here for 32 answers, by the numbers that LoRA trains.

# %%
def identities(lm):
    """Largest change of log p in nats, weights for each number trained, cosine of the two
    gradients.
    """
    learner = lora(copy.deepcopy(lm), targets=".*_proj", rank=8, seed=args.seed)
    sentences = [f"The capital of {country} is {capital}" for country, capital in facts]
    pairs = zip(token_logprobs(lm, sentences), token_logprobs(learner, sentences))
    moved = max(float((old - new).abs().max()) for old, new in pairs)
    trained = [weight for weight in learner.parameters() if weight.requires_grad]
    weights = sum(w.numel() for w in lm.parameters()) / sum(w.numel() for w in trained)

    drawn = attempt(task, learner, [p for p in task.train[:8] for _ in range(4)],
                    seed=args.seed)  # fmt: skip
    paid = drawn.rewards.sum(1)
    losses = cross_entropy(learner(drawn.observations).mT, drawn.actions, reduction="none")
    supervised = (paid * (losses * drawn.mask).sum(1)).mean()
    reinforced = -(paid[:, None] * action_logprobs(learner, drawn)).sum() / len(paid)
    ours, theirs = (torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained)])
                    for loss in (reinforced, supervised))  # fmt: skip
    return moved, weights, float(cosine_similarity(ours.double(), theirs.double(), 0))


exact = {name: identities(lm) for name, lm in models.items()}
for name, (moved, weights, cosine) in exact.items():
    print(f"{name:13s} log p moved by {moved:g} nats; {weights:.0f} weights for each one "
          f"trained; cosine of the gradients {cosine:.6f}")  # fmt: skip

# %% [markdown]
# ## Everything in one table
# An effect *holds* where the interval of what should be larger lies wholly above the other's. Else it *does not hold
# here* where not even the mean is larger, and is *not settled* at this n where that is, or where there was nothing to
# compare.

# %%
def verdict(larger, smaller):
    if larger.low > smaller.high:
        return "holds"
    return "does not hold here" if larger.mean <= smaller.mean else "not settled"


def nothing_but(value):
    return Estimate(value, value, value, args.count)


def gained(earlier, later):
    """What each item has more afterwards, paired, with its interval."""
    return Estimate(*forgetting(later, earlier).values(), len(earlier))


def rows_of(name):
    """(effect, what should be larger, what it is compared with) for one model."""
    few, labels = curves[name]["opposite"], labelled[name]
    pairs = ((row[1], row[2]) for row in verdicts[name].values())
    raw, repaired = min(pairs, key=lambda pair: pair[0].mean)
    _, gentle, harsh = after[name].values()
    (_, paid, nats), (_, paid_later, nats_later) = drawn[name]
    return [
        ("C03 cloze above question", naming[name]["cloze"], naming[name]["question"]),
        ("    chat above question", naming[name]["chat"], naming[name]["question"]),
        ("C05 opposites: eight shots above none", few[-1], few[0]),
        ("    slowly: eight shots above one", few[-1], few[1]),
        ("C06 arbitrary labels above chance", labels["arbitrary"][-1], nothing_but(0.5)),
        ("    swapped labels above chance", labels["swapped"][-1], nothing_but(0.5)),
        ("C07 worst prompt: calibrated above raw", repaired, raw),
        ("C03 ROUGE-L: TL;DR above no cue", rouge[name]["TL;DR"], rouge[name]["no cue"]),
        ("    ROUGE-L: TL;DR above lead-1", rouge[name]["TL;DR"], lead),
        (f"C08 form, rate {RATES[1]:g}, above before",
         *(wilson(some[0].mean().item(), args.count) for some in (gentle, before[name]))),
        (f"C14 nats forgotten, rate {RATES[1]:g}, above a tenth",
         gained(gentle[3], before[name][3]), nothing_but(0.1)),
        (f"C14 nats forgotten, rate {RATES[2]:g}, above a tenth",
         gained(harsh[3], before[name][3]), nothing_but(0.1)),
        ("C40 reward gained by RL", gained(paid.mean(1), paid_later.mean(1)), nothing_but(0)),
        ("    nats per token lost by RL", gained(nats_later.mean(1), nats.mean(1)),
         nothing_but(0)),
        ("C41 right after RL: where right once before, above never", *by_luck_before(name)),
    ]  # fmt: skip


def line(name, *parts):
    print(f"    {name:13s} {parts[0]:26s} {parts[1]:26s} {parts[2]}")


line("", "this", "against", "holds?")
for rows in zip(*map(rows_of, models)):
    print(rows[0][0])
    for name, (_, larger, smaller) in zip(models, rows):
        line(name, str(larger), str(smaller), verdict(larger, smaller))
print("C07 the order of four demonstrations matters")
for name, (spread, q) in ((name, effect.values()) for name, effect in effects.items()):
    line(name, f"spread {spread:.2f}, Q {q:.1f}",
         f"by luck Q {len(orders) - 1}, p = {luck[name]:.1g}",
         "holds" if luck[name] < 0.05 else "does not hold here")  # fmt: skip
EXACT = (
    ("C18 log p changed by a fresh LoRA, nats", 0, "0", lambda moved: moved == 0),
    ("C21 weights for each one trained", 1, "more than 1", lambda weights: weights > 1),
    ("C28 cosine of weighted finetuning and REINFORCE", 2, "1 but for rounding",
     lambda cosine: cosine > 0.9999),
)  # fmt: skip
for label, which, expected, holds in EXACT:
    print(label)
    for name, value in ((name, values[which]) for name, values in exact.items()):
        verdict_here = "holds" if holds(value) else "does not hold here"
        line(name, f"{value:.6g}", expected, verdict_here)

# %% [markdown]
# ## Recap
# * Of the lecture's prompting effects most carry over: the question that is not answered, the cloze, demonstrations,
#   the bias of a prompt and its repair, the order of examples. Some are *stronger* here than in the pocket world.
# * Some are not there at this size: arbitrary labels stay at a guess, turned ones do not beat the prior,
#   and a summary after `TL;DR:` does not beat the first sentence. A claim about "language models" is one about sizes.
# * Finetuning on a form teaches the form. What it costs in facts depends on the rate, and is measured by asking in the
#   *old* form, paired over the same items.
# * RL made right, short answers likelier and the policy narrower. Look at pass@k before you call it knowledge.
# * Forty items give intervals of up to ±0.15. The four calibrated prompts differ by less than that.
#
# ## Try next
# * `--count 60 --seed 1`: other items. Which verdicts in the table change? Which never do?
# * Another real model, with the network once: `--model HuggingFaceTB/SmolLM2-135M` is the *base* model of this one, not
#   rounded. Which of the three forms answers now?
# * `--updates 24`: how far does pass@4 follow pass@1?
# * Put five capitals into `json_conversations`. Does the form now reach the others?
#
# ## References
# * Allal et al. (2025). *SmolLM2: When Smol Goes Big.* (the model)
# * Brown et al. (2020). *Language models are few-shot learners.* NeurIPS.
# * Zhao, Wallace, Feng, Klein, Singh (2021). *Calibrate before use.* ICML.
# * Lu, Bartolo, Moore, Riedel, Stenetorp (2022). *Fantastically ordered prompts and where to find them.* ACL.
# * Min et al. (2022). *Rethinking the role of demonstrations: what makes in-context learning work?* EMNLP.
# * Wei et al. (2023). *Larger language models do in-context learning differently.*
# * Hu et al. (2021). *LoRA.* Biderman et al. (2024). *LoRA learns less and forgets less.* TMLR.
# * Wang et al. (2023). *Self-consistency improves chain of thought reasoning in language models.* ICLR.
# * Yue et al. (2025). *Does reinforcement learning really incentivize reasoning capacity in LLMs beyond the base model?*
# * Cochran (1950). *The comparison of percentages in matched samples.* Biometrika 37.
