# Lesson 02: in-context learning. jupytext py:percent; runs as a script: python lessons/02_in_context_learning.py --help

# %% [markdown]
# # 02 · In-context learning: demonstrations instead of training
#
# A prompt may show what is wanted instead of saying it: a few solved examples, then the case to be solved. In this
# lesson you build such prompts, measure what each further example buys, on tasks from translation to labels that are
# nonsense words, and find out how much depends on which examples stand where. *(Lecture: "In-context learning", the two
# slides on GPT-2's translation and on few-shot prompting with GPT-3; claims C05–C07.)* About 60 minutes; runs in 60 s
# on two CPU cores.
#
# **You will need** lesson 01: `complete`, and labels read off as probabilities of words. **You will be able to** write a
# few-shot prompt that a base model can go on with, tell what demonstrations add from what the weights already know, and
# measure and correct the bias of a prompt.

# %%
import hashlib
import itertools
import random
import statistics

import torch
from matplotlib import pyplot

from ptlearn import figures, prompting
from ptlearn.course import arguments, check, progress, show
from ptlearn.models import load_lm, loss_table, pocket_models
from ptlearn.pocket import corpus, french, probes, relations, tales, world
from ptlearn.prompting import Estimate, accuracy, corpus_bleu, score_choices, verbalizer_probabilities
from ptlearn.text import complete, completions, sample_text

args = arguments(
    "In-context learning: translation, hidden rules, arbitrary labels; order, bias and calibration.",
    model=("pocket-m", "the language model: a pocket model, a folder or a hub id"),
    sizes=("pocket-s,pocket-m,pocket-l", "the models to compare, small to large"),
    count=(80, "test questions per measurement"),
    seed=(0, "of the questions and the demonstrations"),
)
lm = load_lm(args.model)
print(f"{args.model}: {sum(p.numel() for p in lm.parameters()):,} parameters, context {lm.context} tokens")

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. The model has read French sentences beside English ones. You give it `le chat voit la maison =` and nothing else.
#    **What comes out?** And after one solved example?
# 2. You invent two words, `poke` and `fiti`, and label fruits with one and tools with the other. The weights have never
#    seen these words. **How many of a hundred new words does it label right after 1, 2, 4, 8 examples?**
# 3. Four labelled reviews, then a fifth to be judged. You only change the **order** of the four. **By how many points
#    can the accuracy move?**

# %% [markdown]
# ## A task said by showing it
# GPT-2 was asked to translate like this (the lecture's formula; $x_{<t}$ is all that stands in the prompt):
#
# $$\text{translation} \sim p_\theta(\,\cdot \mid \texttt{[french sentence] = [english sentence]; [french sentence] =}\,)$$
#
# The prompt is a list of *demonstrations* and a *query* written by the same template, cut off where its output would
# start. Build it. One trap: a token of this vocabulary carries the space before it, so `" the"` is one token. A prompt
# that ends in a space leaves the model at a point where it has never been.

# %% ex="2.1" points=1 minutes=6 difficulty="easy"
def few_shot_prompt(demonstrations, query, template="{input} = {output}", separator="\n"):
    """The demonstrations [(input, output), ...] by the template, then the query up to where its output would start.

    >>> few_shot_prompt([("chat", "cat")], "chien")
    'chat = cat\\nchien ='
    """
    # BEGIN SOLUTION
    shown = [template.format(input=given, output=wanted) for given, wanted in demonstrations]
    return separator.join([*shown, template.format(input=query, output="").rstrip(" ")])
    # END SOLUTION

# %% ex="2.1" role="check"
few_shot_prompt = check("2.1", few_shot_prompt)

# %% [markdown] ex="2.1" role="hints"
# <details><summary>Hint 1</summary>Write the query as a demonstration whose output is empty; what is too much at the
# end of the prompt then?</details>
# <details><summary>Hint 2</summary>`separator.join([...])` puts the separator between the lines and nowhere else;
# `.rstrip(" ")` takes away spaces and leaves line breaks.</details>

# %%
query, answer = "le chat voit la maison", "the cat sees the house"
assert french.is_held_out(query)  # this sentence occurs nowhere in the pretraining corpus
translation = relations.RELATIONS["french to english"]
demonstrations, _ = relations.episode(translation, 8, random.Random(args.seed))
prompts = {shots: few_shot_prompt(demonstrations[:shots], query) for shots in (0, 1, 2)}
assert prompts[2] == prompting.few_shot_prompt(demonstrations[:2], query)  # the package builds the same
for shots, prompt in prompts.items():
    drawn = completions(lm, sample_text(lm, [prompt] * 5, stop=("\n",), seed=args.seed), ("\n",))
    print(f"--- {shots} demonstrations\n{prompt}")
    print(*(f"    {text}" for text in drawn), sep="\n")

# %% [markdown]
# **What you saw.** Without a demonstration the five samples do not even agree on what the task is. Nothing is broken: in
# the pretraining corpus a line `[french sentence] =` goes on in seven ways, and the model has learned all of them. The
# recipe of the corpus says how often each comes, so we can say exactly what an ideal reader should expect.

# %%
RULES = {"translation": "french to english", "negation": "french negation", "plural": "french plural",
         "first word": "first word", "last word": "last word", "word count": "word count",
         "yes / no": "negated or not"}  # fmt: skip


def outputs(sentence):
    """What each of the seven rules makes of a French sentence, in the order of RULES."""
    words = sentence.french.split()
    same, plural = french.negate(sentence).french, french.pluralize(sentence).french
    return [sentence.english, same, plural, words[0], words[-1], str(len(words)), "yes"]


rng = random.Random(args.seed)
drawn = [french.sentence(rng) for _ in range(5000)]
singular = [s for s in drawn if s.has_plural and not s.negated]  # sentences to which all seven rules apply
applies = {"negation": 1 - statistics.mean(s.negated for s in drawn), "plural": statistics.mean(s.has_plural for s in drawn)}
weights = [relations.RELATIONS[name].weight / applies.get(rule, 1.0) for rule, name in RULES.items()]
corpus_share = [weight / sum(weights) for weight in weights]
for rule, share, output in zip(RULES, corpus_share, outputs(next(s for s in singular if french.is_held_out(s.french)))):
    print(f"{rule:12s} {share:4.0%}   for example {output!r}")

# %% [markdown]
# Now ask the model. For held-out sentences, the probability of each rule's output (and the line break after it), after
# 0, 1, 2 and 4 demonstrations of *translation*. If demonstrations work by saying **which** rule is meant, then
#
# $$p_\theta(y \mid D, x) = \sum_{\text{rule}} p_\theta(\text{rule} \mid D)\; p_\theta(y \mid x, \text{rule})$$
#
# and only the first factor moves: a posterior over rules that sharpens with every demonstration (Xie et al., 2022).

# %%
FEW = (0, 1, 2, 4)
sentences = [s for s in singular if french.is_held_out(s.french)][: args.count // 4]
mass = torch.zeros(len(FEW), len(RULES))
for sentence in progress(sentences, "reading rules"):
    shown, _ = relations.episode(translation, max(FEW), rng)
    prompts = [few_shot_prompt(shown[:shots], sentence.french) for shots in FEW]
    mass += score_choices(lm, prompts, [f" {output}\n" for output in outputs(sentence)]).logprobs.exp()
posterior = mass / mass.sum(1, keepdim=True)
for shots, row, total in zip(FEW, posterior, mass.sum(1) / len(sentences)):
    print(f"{shots} shots: translation {row[0]:.0%} of the mass on the seven outputs ({total:.0%} of all probability)")

# %%
columns = torch.cat([torch.tensor([corpus_share]), posterior])
figure, axes = pyplot.subplots(figsize=(5.4, 3.2))
bottom = torch.zeros(len(columns))
for index, rule in enumerate(RULES):
    axes.bar(range(len(columns)), columns[:, index], bottom=bottom, color=figures.COLORS[index], label=rule,
             edgecolor="white")  # fmt: skip
    bottom += columns[:, index]
axes.set(title="Which rule the model reads into the prompt", xlabel="demonstrations of translation in the prompt",
         ylabel="share of probability")  # fmt: skip
axes.set_xticks(range(len(columns)), ["corpus", *FEW])
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
show(figure, alt="Stacked bars. Without demonstrations the seven rules share the probability about as in the corpus; "
     f"with one demonstration translation has {posterior[1, 0]:.0%}, with four {posterior[3, 0]:.0%}.")  # fmt: skip

# %% [markdown]
# **What you saw.** Zero-shot, the model spreads its probability over the rules roughly as the corpus does, which is the
# best that can be done about a question that does not say what it asks. One demonstration names the rule. It teaches
# no French: the words of the query are not in it. Demonstrations *locate* a task among those that pretraining
# prepared.

# %% [markdown]
# ## How good is the translation?
# Two measures: **exact match**, with its 95 % interval, and **BLEU**, the lecture's, which counts shared word groups up
# to four words. A completion of a base model needs a judge with manners: the model goes on with the next item of
# its list, so only the first line is the answer.

# %% ex="2.2" points=1 minutes=6 difficulty="easy"
def judged(continuations, answers):
    """Whether the first line of each continuation is the answer: white space aside, but case and every word count.

    A continuation that begins with a line break has answered nothing. Returns a list of booleans.
    """
    # BEGIN SOLUTION
    first_lines = [text.split("\n")[0] for text in continuations]
    return [line.split() == answer.split() for line, answer in zip(first_lines, answers)]
    # END SOLUTION

# %% ex="2.2" role="check"
judged = check("2.2", judged)

# %% [markdown] ex="2.2" role="hints"
# <details><summary>Hint 1</summary>First cut, then clean: `strip()` before the cut would throw a leading line break
# away.</details>
# <details><summary>Hint 2</summary>`text.split()` is the list of words whatever the white space between them; two such
# lists can be compared.</details>

# %%
SHOTS = (0, 1, 2, 4, 8)


def episodes_of(name, count=args.count):
    """Eight demonstrations and a held-out query each. Fewer shots use the first of the eight, so shots are paired."""
    rng = random.Random(f"{name}:{args.seed}")
    return [relations.episode(relations.RELATIONS[name], max(SHOTS), rng) for _ in range(count)]


def continued(lm, episodes, shots, template="{input} = {output}"):
    """What the model writes after `shots` demonstrations and the query of each episode."""
    prompts = [few_shot_prompt(shown[:shots], query, template=template) for shown, (query, _) in episodes]
    return complete(lm, prompts, max_new_tokens=24)


sentences = episodes_of("french to english")
references = [answer for _, (_, answer) in sentences]
translated = {shots: continued(lm, sentences, shots) for shots in progress(SHOTS, "translating")}
for (_, (query, answer)), text in list(zip(sentences, translated[8]))[:6]:
    print(f"{query} ={text}{'' if judged([text], [answer])[0] else f'      (right: {answer})'}")

# %%
from sacrebleu.metrics import BLEU

exact = [accuracy(judged(translated[shots], references)) for shots in SHOTS]
assert judged(translated[8], references) == prompting.exact_match(translated[8], references)
bleu = []
for shots, share in zip(SHOTS, exact):
    score = BLEU().corpus_score(translated[shots], [references], n_bootstrap=300)  # resampled sentences: an interval
    assert abs(score.score - corpus_bleu(translated[shots], references)) < 1e-9
    bleu.append(Estimate(score.score / 100, (score._mean - score._ci) / 100, (score._mean + score._ci) / 100, 300))
    print(f"{shots} shots: exact match {share}, BLEU {score.score:5.1f} ± {score._ci:.1f}")

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.1))
figures.curve(axes, SHOTS, exact, "exact match")
figures.curve(axes, SHOTS, bleu, "BLEU / 100", 1)
axes.set(title="Translating held-out French sentences", xlabel="demonstrations in the prompt",
         ylabel="score (0 to 1)", ylim=(-0.02, 1.02), xticks=SHOTS)  # fmt: skip
axes.legend(loc="lower right")
show(figure, alt=f"Exact match rises from {exact[0].mean:.2f} without demonstrations to {exact[1].mean:.2f} with one and "
     f"{exact[-1].mean:.2f} with eight; BLEU rises with it from {bleu[0].mean * 100:.0f} to {bleu[-1].mean * 100:.0f}.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C05] `french = english` induces translation: the step is from zero to one demonstration, and further
# ones add little, since the rule is settled; what is still wrong after eight is French the model does not know (look
# at the samples: a confused noun or adjective, rarely the grammar).
#
# The lecture adds that GPT-2 saw only 10 MB of French in 40 GB of text. How much French has *this* model seen? Take the
# first documents of its corpus, cut them into pieces at line breaks, `=` and the like, and call a piece French when most
# of its words are words of the French prose that no English kind of document uses.

# %%
def words(text):
    return [word.strip(".,:;?!\"").lower() for word in text.split()]


def of_kind(kind, count=1500):
    return [corpus.KINDS[kind](random.Random(f"{kind}:{index}")) for index in range(count)]


english = {word for kind in ("story", "review", "article", "dictionary", "dialogue") for text in of_kind(kind) for word in words(text)}
only_french = {word for text in of_kind("french prose", 4000) for word in words(text)} - english
pieces = []  # (bytes, French or not)
for index in range(6000):
    text = corpus.document(index, seed=0)
    for mark in (" = ", " -> ", " / ", "; ", ": ", ". "):
        text = text.replace(mark, "\n")
    for piece in text.split("\n"):
        french_words = sum(word in only_french for word in words(piece))
        pieces.append((len(piece.encode()), 2 * french_words > len(piece.split())))
share = sum(size for size, is_french in pieces if is_french) / sum(size for size, _ in pieces)
print(f"French: {share:.0%} of the bytes of the pocket corpus; for GPT-2, 10 MB of 40 GB: {10 / 40_000:.3%}")
if args.model in pocket_models():
    tokens = loss_table(args.model)[-1]["tokens"]
    sample = [corpus.document(index) for index in range(300)]
    size = sum(len(text.encode()) for text in sample) / sum(len(lm.tokenizer(text)["input_ids"]) + 1 for text in sample)
    print(f"{args.model} read {tokens / 1e6:.0f} million tokens of {size:.1f} bytes: {tokens * size * share / 1e6:.0f} MB of French")

# %% [markdown]
# **What you saw.** Honestly: this is *not* the lecture's surprise. The share of French is hundreds of times GPT-2's, the
# pocket world has a few hundred nouns and one right translation per sentence, and lists of the form `french = english`
# are in the corpus. GPT-2 reached 11.5 BLEU on newspaper sentences from 0.025 % of its text; a score near 100 on a toy
# language proves less. What carries over is the mechanism, which here you can watch: the skill comes from pretraining,
# the demonstration selects it.

# %% [markdown]
# ## More shots, more tasks, no gradient
# Eight relations, all asked about inputs that no list of the corpus contains. Three kinds: the answer is **in the
# weights** and the prompt says what is asked (`capital`, `french noun`, `french negation`); the answer follows a **rule** that one
# demonstration does not settle (`combine`, `add`, `pick`); the answer **cannot be in any weight**: `2 labels` and
# `4 labels` name kinds of things by nonsense words that were drawn for this prompt and occur nowhere in the corpus.

# %%
NAMES = ("capital", "french noun", "french negation", "combine", "add", "pick", "2 labels", "4 labels")
for name in NAMES:
    shown, (query, answer) = episodes_of(name, 1)[0]
    print(f"{name:16s}", " | ".join(f"{given} = {wanted}" for given, wanted in shown[:3]), f"| {query} = ? ({answer})")

# %% [markdown]
# "No gradient updates are performed", says the lecture. To be certain, take a fingerprint of every parameter before and
# after.

# %%
def fingerprint(lm):
    return hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in lm.parameters())).hexdigest()


before = fingerprint(lm)
episodes = {name: episodes_of(name) for name in NAMES}
right = {name: [judged(continued(lm, episodes[name], shots), [answer for _, (_, answer) in episodes[name]])
                for shots in SHOTS] for name in progress(NAMES, "relations")}  # fmt: skip
assert fingerprint(lm) == before and all(p.grad is None for p in lm.parameters())
print(f"{'shots':16s}", *(f"{shots:>17d}" for shots in SHOTS))
for name in NAMES:
    print(f"{name:16s}", *(f"{str(accuracy(row)).split(' (')[0]:>17s}" for row in right[name]))
print(f"fingerprint before and after: {before[:12]} = {fingerprint(lm)[:12]}; no parameter has a gradient")

# %%
figure, (left, middle) = pyplot.subplots(1, 2, figsize=(9, 3.3), sharey=True)
for index, name in enumerate(NAMES[:6]):
    figures.curve(left, SHOTS, [accuracy(row) for row in right[name]], name, index)
for index, (name, classes) in enumerate((("2 labels", 2), ("4 labels", 4))):
    figures.curve(middle, SHOTS, [accuracy(row) for row in right[name]], name, index)
    middle.axhline(1 / classes, color=figures.COLORS[index], linestyle=":", linewidth=1)
    middle.text(8, 1 / classes + 0.015, f"guess one of {classes}", ha="right", fontsize=8, color=figures.COLORS[index])
left.set(title="What the weights know, or a rule", xlabel="demonstrations in the prompt",
         ylabel="exact match on held-out queries", ylim=(-0.02, 1.02), xticks=SHOTS)  # fmt: skip
middle.set(title="Nonsense labels, new in every prompt", xlabel="demonstrations in the prompt", xticks=SHOTS)
left.legend(fontsize=8), middle.legend(loc="upper left", fontsize=8)
last = {name: statistics.mean(right[name][-1]) for name in NAMES}
show(figure, alt="Accuracy against 0, 1, 2, 4 and 8 demonstrations. With eight: "
     + ", ".join(f"{name} {share:.2f}" for name, share in last.items()) + ". Dotted: guessing among the labels.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C06] Demonstrations beat zero-shot on every relation, and not a single bit of the model changed. The
# nonsense labels are the clean case: zero-shot they are at exactly 0, as they must be, and with demonstrations they rise
# above what guessing among the labels shown gives. Where can a right label come from, if not from the weights?

# %% [markdown]
# ## Where the right label comes from
# The label is in the prompt, a few lines above. What the model must do is look back: *find a demonstration like
# the query, and copy what came after it*. Attention heads that do this are called **induction heads** (Olsson et al., 2022).
# Write the idea in plain Python. Here "like" means "of the same kind", which is what the weights do contribute: that
# `vest` and `suit` are both clothes.

# %% ex="2.3" points=2 minutes=8 difficulty="medium"
def copied_label(demonstrations, query, kind):
    """The label of the latest demonstration whose input is of the same kind as the query, or "" if there is none.

    demonstrations [(word, label), ...]; kind: a dict from every word to its kind.
    """
    # BEGIN SOLUTION
    for word, label in reversed(demonstrations):
        if kind[word] == kind[query]:
            return label
    return ""
    # END SOLUTION

# %% ex="2.3" role="check"
copied_label = check("2.3", copied_label)

# %% [markdown] ex="2.3" role="hints"
# <details><summary>Hint 1</summary>Walk through the demonstrations from the last to the first and stop at the first one
# that fits.</details>
# <details><summary>Hint 2</summary>`kind[word] == kind[query]` says whether it fits. If none does, the label of that kind
# has never been shown: nobody can know it.</details>

# %% [markdown]
# This reader is the **ceiling**: with $C$ labels drawn at random it knows the answer as soon as one of the $k$
# demonstrations is of the query's kind, so its accuracy is $1 - (1 - 1/C)^k$ on average. Guessing among the labels gives
# $1/C$. The model lies somewhere between: how far does it get?

# %%
kind = {word: category for category, members in world.WORDS.items() for word in members}
print(f"{'':9s} shots   guess  model               copying   ceiling by formula")
for name, classes in (("2 labels", 2), ("4 labels", 4)):
    for place, shots in enumerate(SHOTS[1:], 1):
        copied = [copied_label(shown[:shots], query, kind) == answer for shown, (query, answer) in episodes[name]]
        ceiling = 1 - (1 - 1 / classes) ** shots
        print(f"{name:9s} {shots:5d}    {1 / classes:.2f}  {str(accuracy(right[name][place])).split(' (')[0]:18s}"
              f"  {statistics.mean(copied):.2f}      {ceiling:.2f}")  # fmt: skip

# %% [markdown]
# **What you saw.** At one demonstration the ceiling itself is only $1/C$: half of the time (with two labels) the right
# word has not been shown. Compare the model with *copying*, not with 1: part of its misses are nobody's fault, the rest
# are its own.
#
# ## Why more than one demonstration? Ambiguity, counted
# `pick` keeps one of three words, by its place or by its kind; `combine` does one of five things to two numbers. Both families are
# small enough to list every rule. How many of them fit the demonstrations so far, and how often would a reader be right
# who knows the family and takes one of the fitting rules at random?

# %%
PICK = {f"word {place + 1}": lambda text, place=place: text.split()[place] for place in range(3)}
PICK |= {f"the {category}": lambda text, category=category: next((w for w in text.split() if kind[w] == category), None)
         for category in relations.PICKED}  # fmt: skip
COMBINE = {name: lambda text, operation=operation: str(operation(*map(int, text.split())))
           for name, operation in zip(("sum", "difference", "product", "larger", "smaller"), relations.OPERATIONS)}  # fmt: skip

shown, (query, _) = episodes["pick"][0]
print("\n".join(f"{given} = {wanted}" for given, wanted in shown[:1]))
print("fits:", [name for name, rule in PICK.items() if all(rule(given) == wanted for given, wanted in shown[:1])])
for name, rules in (("pick", PICK), ("combine", COMBINE)):
    for place, shots in enumerate(SHOTS):
        fitting = [[rule for rule in rules.values() if all(rule(given) == wanted for given, wanted in shown[:shots])]
                   for shown, _ in episodes[name]]  # fmt: skip
        lucky = [statistics.mean(rule(query) == answer for rule in found) for found, (_, (query, answer)) in zip(fitting, episodes[name])]
        print(f"{name:8s} {shots} shots: {statistics.mean(map(len, fitting)):5.2f} rules fit; "
              f"a reader of rules {statistics.mean(lucky):.2f}, the model {statistics.mean(right[name][place]):.2f}")  # fmt: skip

# %% [markdown]
# **What you saw.** One demonstration of `pick` always fits at least two rules (a place and a kind), so no reader can be sure;
# with each further one the number of rules that fit falls towards 1 and accuracy can climb. The model is below the
# reader of rules: knowing *which* rules exist is already a skill, and applying one (adding, say) another.

# %% [markdown]
# ## Larger models learn more from the same prompt
# The same episodes for three models that differ in size (and in how long they were trained: their cards say so). The mean over the
# eight relations, with an interval that holds the relations fixed and resamples the questions.

# %%
def mean_over_relations(rows):
    """The mean of the rows' means with a 95 % interval: only the questions are random, the relations are these."""
    center = statistics.mean(map(statistics.mean, rows))
    error = 1.96 * (sum(statistics.variance(row) / len(row) for row in rows)) ** 0.5 / len(rows)
    return Estimate(center, center - error, center + error, sum(map(len, rows)))


SOME, HALF = (0, 1, 4, 8), args.count // 2
scores = {}  # model -> shots -> relation -> a 0 or 1 for each episode
for name in progress(args.sizes.split(","), "sizes"):
    other = lm if name == args.model else load_lm(name)
    scores[name] = [[[float(x) for x in judged(continued(other, episodes[relation][:HALF], shots),
                                               [answer for _, (_, answer) in episodes[relation][:HALF]])]
                     for relation in NAMES] for shots in SOME]  # fmt: skip
    size = sum(p.numel() for p in other.parameters())
    print(f"{name} ({size:,}):", "  ".join(f"{shots}: {mean_over_relations(rows).mean:.2f}" for shots, rows in zip(SOME, scores[name])))

# %%
def gained(larger, smaller, shots):
    """How much better one model is than another on the same prompts: the mean of paired differences."""
    place = SOME.index(shots)
    return mean_over_relations([[a - b for a, b in zip(*rows)] for rows in zip(scores[larger][place], scores[smaller][place])])


for smaller, larger in itertools.pairwise(scores):
    for shots in (0, 8):
        change = gained(larger, smaller, shots)
        print(f"{larger} over {smaller}, {shots} shots: {change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}] (n={change.n} pairs)")

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.1))
for index, (name, by_shots) in enumerate(scores.items()):
    figures.curve(axes, SOME, [mean_over_relations(rows) for rows in by_shots], name, index)
axes.set(title="Few-shot learning against model size", xlabel="demonstrations in the prompt",
         ylabel="mean over eight relations", ylim=(-0.02, 1.02), xticks=SOME)  # fmt: skip
axes.legend(loc="lower right")
show(figure, alt="Mean exact match over eight relations against demonstrations. With eight demonstrations: "
     + ", ".join(f"{name} {mean_over_relations(by_shots[-1]).mean:.2f}" for name, by_shots in scores.items()) + ".")  # fmt: skip

# %% [markdown]
# **What you saw.** Zero-shot the models hardly differ, since the prompt does not say what is asked; with demonstrations the
# larger ones are ahead. The gap *widens* with shots: what grows with size is the use made of the prompt, as in figure 1.2 of the
# GPT-3 paper.
#
# ## How far does it reach?
# The lecture calls in-context learning surprising because lists of solved examples are not a native task of a language model. For
# this model they are: four documents in ten of its corpus are such lists, with ` = `, ` -> `, `:` or ` / ` between the two sides. So try signs
# that the corpus never uses between them.

# %%
FORMS = ("{input} = {output}", "{input} -> {output}", "{input} ~ {output}", "{input} goes with {output}")
for form in FORMS:
    rows = [judged(continued(lm, episodes[name], 8, form), [answer for _, (_, answer) in episodes[name]])
            for name in ("capital", "french noun", "2 labels")]  # fmt: skip
    seen = "in the corpus" if form in {template for template, _ in corpus.STYLES} else "never seen"
    print(f"{form:28s} {seen:14s}", "  ".join(str(accuracy(row)) for row in rows))

# %% [markdown]
# **What you saw.** Left to right `capital`, `french noun`, `2 labels`, eight shots. What happens with forms that the corpus does not have is the honest
# measure of how general this skill is: the looking back survives a new sign in part, and a small model trained on lists is better at lists. In large models
# nobody planted the lists; that repetitive structure in ordinary text is enough is the finding of Chan et al. (2022).

# %% [markdown]
# ## The price: which examples, in which order
# Zhao et al. (2021) took few-shot sentiment with GPT-3, changed nothing but the choice and order of four demonstrations, and saw accuracy move between chance and near the best.
# Measure it here: reviews of two sentences, four demonstrations, the label read off as $p_\theta(\texttt{positive})$ against $p_\theta(\texttt{negative})$.

# %%
LABELS = ("negative", "positive")
CONTENT_FREE = ("N/A", "", "...")
rng = random.Random(f"order:{args.seed}")


def reviewed(label):
    """A short review of that sentiment, with its label."""
    return tales.opinion(rng, label, rng.choice(tales.ABOUT), 2), label


tests = [reviewed(label) for label in LABELS for _ in range(args.count // 4)]
gold = torch.tensor([LABELS.index(label) for _, label in tests])
one_set = [reviewed(label) for label in ("positive", "negative", "positive", "negative")]
orders = list(itertools.permutations(one_set))  # the 24 orders of one balanced set
patterns = [labels for labels in itertools.product(LABELS, repeat=4) for _ in range(2)]
sets = [[reviewed(label) for label in labels] for labels in patterns]  # 32 sets: every pattern of labels, twice
print(few_shot_prompt(orders[0], tests[0][0], template=probes.SENTIMENT_TEMPLATE))

# %%
def read(demonstrations):
    """p(label | demonstrations, review) of every test review (N, 2), and of the content-free inputs (3, 2)."""
    inputs = [text for text, _ in tests] + list(CONTENT_FREE)
    prompts = [few_shot_prompt(demonstrations, text, template=probes.SENTIMENT_TEMPLATE) for text in inputs]
    probabilities = verbalizer_probabilities(lm, prompts, LABELS)
    return probabilities[: len(tests)], probabilities[len(tests) :]


def share_right(probabilities):
    return (probabilities.argmax(1) == gold).float().mean().item()


readings = [read(demonstrations) for demonstrations in progress([*orders, *sets], "contexts")]
raw = [share_right(probabilities) for probabilities, _ in readings]
for name, found in (("24 orders of one set", raw[:24]), ("32 sets", raw[24:])):
    print(f"{name:21s} accuracy {min(found):.2f} to {max(found):.2f}, mean {statistics.mean(found):.2f}: "
          f"spread {100 * (max(found) - min(found)):.0f} points")  # fmt: skip

# %% [markdown]
# A caution before you believe it: with so few test reviews some spread is luck. So choose the best and the worst context on the reviews with
# even number, and compare the two on the *others*, which had no say in the choice.

# %%
def gap_on_fresh(found):
    """Points between the best and the worst context, chosen on every second review, measured on the rest."""
    correct = torch.stack([(probabilities.argmax(1) == gold).float() for probabilities, _ in found])
    chosen, fresh = correct[:, ::2].mean(1), correct[:, 1::2].mean(1)
    return 100 * (fresh[chosen.argmax()] - fresh[chosen.argmin()]).item()


print(f"orders: {gap_on_fresh(readings[:24]):.0f} points on fresh reviews; sets: {gap_on_fresh(readings[24:]):.0f} points")

# %% [markdown]
# ## Calibrate with nothing
# If the prompt itself leans, ask it about *nothing*: `Review: N/A`. Whatever it prefers there is bias. Zhao et al. divide it out:
#
# $$q = \mathbf W p, \qquad \mathbf W = \mathrm{diag}(p_\mathrm{cf})^{-1}, \qquad q \leftarrow q \big/ \textstyle\sum_c q_c$$
#
# where $p_\mathrm{cf}$ is the mean of the label probabilities over the content-free inputs. No label and no test review is used.

# %% ex="2.4" points=2 minutes=10 difficulty="medium"
def calibrated(probabilities, content_free):
    """Contextual calibration: divide by the mean content-free probabilities, then let every row sum to 1 again.

    probabilities (B, C) tensor, content_free (N, C) tensor -> (B, C) tensor.
    """
    # BEGIN SOLUTION
    weighted = probabilities / content_free.mean(0)
    return weighted / weighted.sum(1, keepdim=True)
    # END SOLUTION

# %% ex="2.4" role="check"
calibrated = check("2.4", calibrated)

# %% [markdown] ex="2.4" role="hints"
# <details><summary>Hint 1</summary>Three steps: average the rows of `content_free`; divide every row of `probabilities`
# by that; normalise each row.</details>
# <details><summary>Hint 2</summary>`x.mean(0)` averages over rows, `x.sum(1, keepdim=True)` sums within a row and keeps
# the shape for the division.</details>

# %%
after = [share_right(calibrated(*reading)) for reading in readings]
assert torch.allclose(calibrated(*readings[0]), prompting.contextual_calibration(*readings[0]))
for name, part in (("24 orders of one set", slice(0, 24)), ("32 sets", slice(24, None))):
    for step, found in (("before", raw[part]), ("after", after[part])):
        print(f"{name:21s} {step:7s} {min(found):.2f} to {max(found):.2f}, mean {statistics.mean(found):.2f}, "
              f"standard deviation {100 * statistics.stdev(found):.1f} points, spread {100 * (max(found) - min(found)):.0f} points")  # fmt: skip

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for axes, title, part in zip(panels, ("24 orders of one set", "32 sets of demonstrations"), (slice(0, 24), slice(24, None))):
    for first, second in zip(raw[part], after[part]):
        axes.plot((0, 1), (first, second), color="gray", alpha=0.5, linewidth=0.8)
    for place, found in enumerate((raw[part], after[part])):
        axes.scatter([place] * len(found), found, color=figures.COLORS[place], marker=figures.MARKERS[place], zorder=3)
    axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axes.set(title=title, xlabel="contextual calibration", xlim=(-0.4, 1.4))
    axes.set_xticks((0, 1), ("before", "after"))
panels[0].set(ylabel="accuracy, 4-shot sentiment", ylim=(0.35, 1.02))
spreads = [100 * (max(found[part]) - min(found[part])) for part in (slice(0, 24), slice(24, None)) for found in (raw, after)]
show(figure, alt="Accuracy of each context before and after calibration. The spread goes from {:.0f} to {:.0f} points over "
     "the orders and from {:.0f} to {:.0f} over the sets; the dotted line is chance.".format(*spreads))  # fmt: skip

# %% [markdown]
# **What you saw.** [C07] The same four reviews in another order give another accuracy, and other reviews still another. Calibration lifts the worst contexts most, so the spread shrinks.
# It cannot repair everything: a context that leaves the model unsure about the review is bad before and after.

# %% [markdown]
# ## What the bias is made of
# Two suspects: **majority-label bias** (the model predicts the label it has seen more often) and **recency bias** (the label it has seen last). The 32 sets hold every
# pattern of four labels equally often, so both can be read from one table: how does the share of positive predictions (0.5 would be right) move when the label at a place turns from negative to positive?

# %% ex="2.5" points=2 minutes=10 difficulty="medium"
def label_pull(labels, shares):
    """For each place: the mean share where the label there is positive, minus the mean share where it is negative.

    labels: one list per context, of 1 (positive) or 0 (negative) at each place; shares: one number per context.
    Returns one number per place, the first demonstration's first.
    """
    # BEGIN SOLUTION
    pulls = []
    for place in range(len(labels[0])):
        positive = [share for row, share in zip(labels, shares) if row[place] == 1]
        negative = [share for row, share in zip(labels, shares) if row[place] == 0]
        pulls.append(sum(positive) / len(positive) - sum(negative) / len(negative))
    return pulls
    # END SOLUTION

# %% ex="2.5" role="check"
label_pull = check("2.5", label_pull)

# %% [markdown] ex="2.5" role="hints"
# <details><summary>Hint 1</summary>One place at a time: split the contexts into two groups by the label at that place,
# and compare the groups' means.</details>
# <details><summary>Hint 2</summary>The groups may differ in size, so take two means, not one sum.</details>

# %%
labels = [[LABELS.index(label) for label in pattern] for pattern in patterns]
leaning = {"before": [(probabilities.argmax(1) == 1).float().mean().item() for probabilities, _ in readings[24:]],
           "after": [(calibrated(*reading).argmax(1) == 1).float().mean().item() for reading in readings[24:]]}  # fmt: skip
for positive in range(5):
    rows = [place for place, row in enumerate(labels) if sum(row) == positive]
    means = [statistics.mean(shares[row] for row in rows) for shares in leaning.values()]
    print(f"{positive} positive, {4 - positive} negative: predicts positive {means[0]:.2f}, calibrated {means[1]:.2f}"
          f"   (right: 0.50; {len(rows)} sets)")  # fmt: skip

# %%
def pulls_with_intervals(shares):
    """The pull of each place with its 95 % interval, from how much two sets with the same pattern differ."""
    variance = statistics.mean(statistics.variance(shares[row : row + 2]) for row in range(0, len(shares), 2))
    error = 1.96 * (variance * 4 / len(shares)) ** 0.5  # a difference of two means over half of the sets each
    return [Estimate(pull, pull - error, pull + error, len(shares)) for pull in label_pull(labels, shares)]


pulls = {step: pulls_with_intervals(shares) for step, shares in leaning.items()}
for step, found in pulls.items():
    print(f"{step:7s}", "  ".join(f"place {place}: {x.mean:+.2f} ± {x.mean - x.low:.2f}" for place, x in enumerate(found, 1)))

# %%
figure, (left, middle) = pyplot.subplots(1, 2, figsize=(8, 3.2))
for index, (step, shares) in enumerate(leaning.items()):
    counts = [sum(row) for row in labels]
    means = [statistics.mean(share for share, count in zip(shares, counts) if count == x) for x in range(5)]
    left.scatter([count + 0.12 * index - 0.06 for count in counts], shares, s=14, color=figures.COLORS[index], alpha=0.5,
                 marker=figures.MARKERS[index])  # fmt: skip
    left.plot(range(5), means, color=figures.COLORS[index], linestyle=figures.DASHES[index], label=f"{step} calibration")
    figures.bars(middle, ["1", "2", "3", "4"], pulls[step], index, groups=2)
left.axhline(0.5, color="black", linestyle=":", linewidth=1), middle.axhline(0, color="black", linewidth=0.8)
left.set(title="Majority label", xlabel="positive labels among the four", ylabel="share predicted positive", ylim=(0, 1))
middle.set(title="Recency", xlabel="place of the demonstration (4 = last)", ylabel="pull of its label")
left.legend(fontsize=8)
show(figure, alt="Left: the share of positive predictions against the number of positive labels. Right: the pull of the "
     "label at each place before calibration, " + ", ".join(f"{x.mean:+.2f}" for x in pulls["before"]) + ".")  # fmt: skip

# %% [markdown]
# **What you saw.** TODO
#
# ## Recap
# - Without demonstrations
#
# ## Try next
# - `python lessons/02_in_context_learning.py --model Qwen/Qwen2.5-0.5B --count 40` (with a network)
#
# ## References
# - Brown et al. (2020), *Language models are few-shot learners*. The lecture's figure, and the form of all prompts here.
