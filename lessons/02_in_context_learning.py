# Lesson 02: in-context learning. jupytext py:percent; runs as a script: python lessons/02_in_context_learning.py --help

# %% [markdown]
# # 02 · In-context learning: demonstrations instead of training
#
# A prompt may show what is wanted instead of saying it: a few solved examples, then the case to be solved. In this
# lesson you build such prompts, measure what each further example buys, on tasks from translation to labels that are
# nonsense words, and find out how much depends on which examples stand where. *(Lecture: "In-context learning", the
# slides on GPT-2's translation and on few-shot prompting of GPT-3; claims C05–C07.)* About 60 minutes; runs in 60 s on
# two CPU cores.
#
# **You will need** lesson 01: greedy completion, and labels read off as probabilities of words. **You will be able to**
# write a few-shot prompt that a base model can go on with, tell what demonstrations add from what the weights already
# know, and measure and correct the bias of a prompt.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import hashlib
import itertools
import random
import statistics

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.lm import prompting
from ptlearn.lm.models import load_lm, pocket_models
from ptlearn.lm.prompting import corpus_bleu, score_choices
from ptlearn.lm.text import complete, completions, sample_text
from ptlearn.pocket import corpus, french, probes, relations, tales, world
from ptlearn.pocket.cards import loss_table
from ptlearn.statistics import Estimate, accuracy

args = arguments(
    "In-context learning: translation, hidden rules, arbitrary labels; order, bias and calibration.",
    model=("pocket-m", "the language model: a pocket model, a folder or a hub id"),
    sizes=(",".join(pocket_models()), "the models to compare, small to large"),
    count=(80, "test questions per measurement", "at least 4"),
    seed=(0, "of the questions and the demonstrations", "at least 0"),
)
lm = load_lm(args.model)
print(f"{args.model}: {sum(p.numel() for p in lm.parameters()):,} parameters, context {lm.context} tokens")

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. The model has read French sentences beside English ones. You give it `le chat voit la maison =` and nothing else.
#    **What comes out?** And after one solved example?
# 2. You invent two words, `poke` and `fiti`, and label tools with one and fruits with the other. No weight has ever met
#    these words. **How many of a hundred new tools and fruits are labelled right after 1, 2, 4, 8 examples?**
# 3. Four labelled reviews, then a fifth to be judged. You only change the **order** of the four. **By how many points
#    can the accuracy move?**

# %% [markdown]
# ## A task said by showing it
# GPT-2 was asked to translate like this (the lecture's formula):
#
# $$\text{translation} \sim
#   p_\theta(\,\cdot \mid \texttt{[french sentence] = [english sentence]; [french sentence] =}\,)$$
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
query = "le chat voit la maison"
assert french.is_held_out(query)  # this sentence occurs nowhere in the pretraining corpus
translation = relations.RELATIONS["french to english"]
demonstrations, _ = relations.episode(translation, 8, random.Random(args.seed))
for shots in (0, 1, 2):
    prompt = few_shot_prompt(demonstrations[:shots], query)
    assert prompt == prompting.few_shot_prompt(demonstrations[:shots], query)  # the package builds the same
    drawn = completions(lm, sample_text(lm, [prompt] * 5, stop=("\n",), seed=args.seed), ("\n",))
    print(f"--- {shots} demonstrations\n{prompt}", *(f"  {text}" for text in drawn), sep="\n")

# %% [markdown]
# **What you saw.** Without a demonstration the five samples do not agree on what the task *is*. Nothing is broken: in
# the pretraining corpus a line `[french sentence] =` goes on in seven ways, and the model has learned all of them. The
# recipe of the corpus says how often each comes, so we know what an ideal reader should expect.

# %%
RULES = {"translation": "french to english", "negation": "french negation", "plural": "french plural",
         "first word": "first word", "last word": "last word", "word count": "word count",
         "yes / no": "negated or not"}  # fmt: skip


def outputs(sentence):
    """What each of the seven rules makes of a sentence, in the order of RULES."""
    parts = sentence.french.split()
    negated, plural = french.negate(sentence).french, french.pluralize(sentence).french
    return [sentence.english, negated, plural, parts[0], parts[-1], str(len(parts)), "yes"]


# %%
rng = random.Random(args.seed)
drawn = [french.sentence(rng) for _ in range(4000)]
open_to_all = [s for s in drawn if s.has_plural and not s.negated]  # sentences to which all seven rules apply
unseen = [s for s in open_to_all if french.is_held_out(s.french)]
# a rule that applies to half of the sentences meets each of those twice as often
applies = {"negation": statistics.mean(not s.negated for s in drawn),
           "plural": statistics.mean(s.has_plural for s in drawn)}  # fmt: skip
weights = [relations.RELATIONS[name].weight / applies.get(rule, 1.0) for rule, name in RULES.items()]
corpus_share = [weight / sum(weights) for weight in weights]
print(f"{unseen[0].french} =")
for rule, share, output in zip(RULES, corpus_share, outputs(unseen[0])):
    print(f"    {share:4.0%} {rule:12s} {output}")

# %% [markdown]
# Now ask the model. For held-out sentences, the probability of each rule's output (and the line break after it), after
# 0, 1, 2 and 4 demonstrations of *translation*. If demonstrations work by saying **which** rule is meant, then
#
# $$p_\theta(y \mid D, x) = \sum_{\text{rule}} p_\theta(\text{rule} \mid D)\; p_\theta(y \mid x, \text{rule})$$
#
# and mostly the first factor moves: a posterior over rules, sharper with every demonstration (Xie et al., 2022).

# %%
FEW = (0, 1, 2, 4)
mass = torch.zeros(len(FEW), len(RULES))
for sentence in progress(unseen[: args.count // 4], "reading rules"):
    shown, _ = relations.episode(translation, max(FEW), rng)
    prompts = [few_shot_prompt(shown[:shots], sentence.french) for shots in FEW]
    mass += score_choices(lm, prompts, [f" {output}\n" for output in outputs(sentence)]).logprobs.exp()
posterior = mass / mass.sum(1, keepdim=True)
for shots, row in zip(FEW, posterior):
    print(f"{shots} demonstrations: translation has {row[0]:.0%} of the probability of the seven outputs")

# %%
columns = torch.cat([torch.tensor([corpus_share]), posterior])
figure, axes = pyplot.subplots(figsize=(5.4, 3.2))
bottom = torch.zeros(len(columns))
for index, rule in enumerate(RULES):
    axes.bar(range(5), columns[:, index], bottom=bottom, color=figures.COLORS[index], label=rule, edgecolor="white")
    bottom += columns[:, index]
axes.set(title="Which rule the model reads into the prompt", xlabel="demonstrations of translation in the prompt",
         ylabel="share of probability")  # fmt: skip
axes.set_xticks(range(5), ["corpus", *FEW])
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
alt = "Stacked bars: without demonstrations seven rules share the probability; translation has {:.0%}, then {:.0%} " \
      "with one demonstration and {:.0%} with four."  # fmt: skip
show(figure, alt=alt.format(*posterior[[0, 1, 3], 0].tolist()))

# %% [markdown]
# **What you saw.** Zero-shot, the model spreads its probability over the rules about as the corpus does: the best that
# can be done about a question that does not say what it asks. Demonstrations name the rule. They teach no French: the
# words of the query are not in them. They *locate* a task among those that pretraining prepared.

# %% [markdown]
# ## How good is the translation?
# Two measures: **exact match**, with its 95 % interval, and **BLEU**, the lecture's, which counts shared groups of up
# to four words. A base model needs a lenient judge: it goes on with the next item of the list, so only its first line
# is the answer.

# %% ex="2.2" points=1 minutes=6 difficulty="easy"
def judged(continuations, answers):
    """Whether the first line of each continuation is the answer: white space aside, but case, punctuation
    and every word count.

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
# <details><summary>Hint 2</summary>`text.split()` is the list of words, whatever the white space between them; two such
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
    return complete(lm, prompts, max_new_tokens=20)


def answers_of(episodes):
    return [answer for _, (_, answer) in episodes]


# %%
sentences = episodes_of("french to english")
references = answers_of(sentences)
translated = {shots: continued(lm, sentences, shots) for shots in progress(SHOTS, "translating")}
verdicts = judged(translated[8], references)
assert verdicts == prompting.exact_match(translated[8], references)
for wanted in (True, False):
    print("right:" if wanted else "wrong:")
    shown = [item for item, verdict in zip(zip(sentences, translated[8]), verdicts) if verdict == wanted]
    for (_, (query, answer)), text in shown[:4]:
        print(f"  {query} ={text}" + ("" if wanted else f"   (expected: {answer})"))

# %%
from sacrebleu.metrics import BLEU

exact = [accuracy(judged(translated[shots], references)) for shots in SHOTS]
bleu = []
for shots, share in zip(SHOTS, exact):
    score = BLEU().corpus_score(translated[shots], [references], n_bootstrap=300)  # resampled sentences: an interval
    assert abs(score.score - corpus_bleu(translated[shots], references)) < 1e-9
    bleu.append(Estimate(*(x / 100 for x in (score.score, score._mean - score._ci, score._mean + score._ci)), 300))
    print(f"{shots} demonstrations: exact match {share}, BLEU {score.score:5.1f} ± {score._ci:.1f}")

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.1))
figures.curve(axes, SHOTS, exact, "exact match")
figures.curve(axes, SHOTS, bleu, "BLEU / 100", 1)
axes.set(title="Translating held-out French sentences", xlabel="demonstrations in the prompt",
         ylabel="score (0 to 1)", ylim=(-0.02, 1.02), xticks=SHOTS)  # fmt: skip
axes.legend(loc="lower right")
alt = "Exact match goes from {:.2f} without demonstrations to {:.2f} with one and {:.2f} with eight; BLEU / 100 " \
      "from {:.2f} to {:.2f} and {:.2f}."  # fmt: skip
show(figure, alt=alt.format(*(line[shots].mean for line in (exact, bleu) for shots in (0, 1, 4))))

# %% [markdown]
# **What you saw.** [C05] `french = english` induces translation: the step is from zero to one demonstration. Further
# ones add little, since the rule is settled; what is wrong after eight is French that the weights do not know well.
# BLEU forgives more than exact match does: one wrong noun in six words leaves most word groups in place.
#
# The lecture adds that GPT-2 had 10 MB of French in 40 GB of text. And this model? Take documents of its corpus, cut
# them into pieces at line breaks, `=` and the like, and call a piece French when most of its words belong to the French
# prose and to no English kind of document.

# %%
def words(text):
    return [word.strip(".,:;?!").lower() for word in text.split()]


def vocabulary(kind, count):
    return {word for index in range(count) for word in words(corpus.KINDS[kind](random.Random(index)))}


english = set().union(*(vocabulary(kind, 1000) for kind in ("story", "review", "article", "dictionary", "dialogue")))
only_french = vocabulary("french prose", 2500) - english
size = french_size = 0  # in bytes
texts = [corpus.document(index) for index in range(4000)]
for piece in "\n".join(texts).replace(" = ", "\n").replace(" -> ", "\n").replace(": ", "\n").split("\n"):
    size += len(piece.encode())
    if 2 * sum(word in only_french for word in words(piece)) > len(words(piece)):
        french_size += len(piece.encode())
print(f"French: {french_size / size:.0%} of the pocket corpus; of GPT-2's, 10 MB of 40 GB, {10 / 40_000:.3%}")

# %%
if args.model in pocket_models():
    tokens = loss_table(args.model)[-1]["tokens"]
    bytes_per_token = sum(len(text.encode()) for text in texts) / sum(map(len, lm.tokenizer(texts)["input_ids"]))
    seen = tokens * bytes_per_token / 1e6
    print(f"{args.model} was trained on {tokens / 1e6:.0f} million tokens, {seen:.0f} MB: "
          f"about {seen * french_size / size:.0f} MB of French")  # fmt: skip

# %% [markdown]
# **What you saw.** An honest comparison: this is *not* the lecture's surprise. In bytes this model has seen about twice
# the French, and hundreds of times the share, in a world of some hundred nouns and one right translation per sentence,
# and lists `french = english` are among the documents. GPT-2 reached 11.5 BLEU on newspaper sentences; a far
# higher score on a toy language proves less. What carries over is the mechanism, which here you can look at: the skill
# comes from pretraining, the demonstration selects it.

# %% [markdown]
# ## More shots, more tasks, no gradient
# Eight relations, always asked about inputs that no list of the corpus contains. Three kinds. The answer is **in the
# weights** and the demonstrations say what is asked (`capital`, `french noun`, `french negation`). The answer follows a
# **rule** that has to be found (`combine`, `add`, `pick`). Or the answer **cannot be in any weight**: `2 labels` and `4
# labels` name kinds of things by nonsense words, drawn for this prompt, that occur nowhere in the corpus.

# %%
NAMES = ("capital", "french noun", "french negation", "combine", "add", "pick", "2 labels", "4 labels")
episodes = {name: episodes_of(name) for name in NAMES}
for name in NAMES:
    shown, (query, answer) = episodes[name][0]
    print(f"{name}:", "; ".join(f"{given} = {wanted}" for given, wanted in shown[:3]), f"; {query} = ? ({answer})")

# %% [markdown]
# "No gradient updates are performed", says the lecture. To be certain, take a fingerprint of every parameter before and
# after.

# %%
def fingerprint(lm):
    return hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in lm.parameters())).hexdigest()


at_first = fingerprint(lm)
correct = {name: [judged(continued(lm, episodes[name], shots), answers_of(episodes[name])) for shots in SHOTS]
           for name in progress(NAMES, "relations")}  # fmt: skip
assert fingerprint(lm) == at_first and all(p.grad is None for p in lm.parameters())
print(f"{'demonstrations':16s}", *(f"{shots:17d}" for shots in SHOTS))
for name in NAMES:
    print(f"{name:16s}", *(f"{str(accuracy(row)).split(' (')[0]:>17s}" for row in correct[name]))
print(f"n = {args.count}. Fingerprint of all parameters: {at_first[:12]} before, {fingerprint(lm)[:12]} after.")

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.3), sharey=True)
for index, name in enumerate(NAMES[:6]):
    figures.curve(left, SHOTS, [accuracy(row) for row in correct[name]], name, index)
for index, (name, chance) in enumerate((("2 labels", 1 / 2), ("4 labels", 1 / 4))):
    figures.curve(right, SHOTS, [accuracy(row) for row in correct[name]], name, index)
    right.axhline(chance, color=figures.COLORS[index], linestyle=":", label=f"guess one of {1 / chance:.0f}")
left.set(title="Known to the weights, or a rule", xlabel="demonstrations in the prompt",
         ylabel="exact match on held-out queries", ylim=(-0.02, 1.02), xticks=SHOTS)  # fmt: skip
right.set(title="Nonsense labels, new in every prompt", xlabel="demonstrations in the prompt", xticks=SHOTS)
left.legend(fontsize=8, ncols=2), right.legend(fontsize=8)
at_eight = ", ".join(f"{name} {statistics.mean(correct[name][-1]):.2f}" for name in NAMES)
show(figure, alt=f"Accuracy against 0, 1, 2, 4, 8 demonstrations. With eight: {at_eight}. Dotted: guessing a label.")

# %% [markdown]
# **What you saw.** [C06] Few-shot beats zero-shot, and not a single bit of the model changed. The nonsense labels are
# the clean case: zero-shot they are right never, as it must be, and with demonstrations they rise above a guess among
# the labels shown. Where does a right label come from, if not from the weights?

# %% [markdown]
# ## Where the right label comes from
# The label stands in the prompt, a few lines above. What the model has to do is to look back: *find a demonstration
# like the query, and copy what came after it*. Attention heads that do this are called **induction heads** (Olsson et
# al., 2022). Write the idea in plain Python. "Like" means here "of the same kind": that a vest and a suit are both
# clothing is what the weights do contribute.

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
# <details><summary>Hint 2</summary>`kind[word] == kind[query]` says whether it fits. If none does, the label of that
# kind has never been shown: nobody can know it.</details>

# %% [markdown]
# This reader is the **ceiling**: with $C$ labels drawn at random it knows the answer as soon as one of the $k$
# demonstrations is of the query's kind, so its accuracy is $1 - (1 - 1/C)^k$ on average. A guess among the $C$ labels
# is right with $1/C$. The model stands somewhere between. How far does it get?

# %%
kind = {word: category for category, members in world.WORDS.items() for word in members}
print(f"{'':8s} demonstrations  guess  copying (formula)  model")
for name, labels in (("2 labels", 2), ("4 labels", 4)):
    for place, shots in enumerate(SHOTS[1:], 1):
        copied = statistics.mean(copied_label(shown[:shots], query, kind) == answer
                                 for shown, (query, answer) in episodes[name])  # fmt: skip
        formula, share = 1 - (1 - 1 / labels) ** shots, accuracy(correct[name][place])
        print(f"{name} {shots:14d}   {1 / labels:.2f}     {copied:.2f}   ({formula:.2f})     {share}")

# %% [markdown]
# **What you saw.** At one demonstration the ceiling itself is only $1/C$: with two labels, half of the time the right
# word has not been shown yet. So compare the model with *copying*, not with 1: the rest of its misses are its own.

# %% [markdown]
# ## Why more than one demonstration? Ambiguity, counted
# `pick` keeps one of three words, by its place or by its kind; `add` adds a number (or is it `multiply`?). Both
# families are small enough to list every rule. How many rules fit the demonstrations so far? And how often is a reader
# right who knows the family and takes any rule that fits?

# %%
PICK = [lambda text, place=place: text.split()[place] for place in range(3)]
PICK += [lambda text, wanted=wanted: next((word for word in text.split() if kind[word] == wanted), None)
         for wanted in relations.PICKED]  # fmt: skip
ADD = [lambda text, offset=offset: str(int(text) + offset) for offset in relations.OFFSETS]
ADD += [lambda text, factor=factor: str(int(text) * factor) for factor in (2, 3, 4, 5, 10)]


def fitting(rules, demonstrations):
    return [rule for rule in rules if all(rule(given) == wanted for given, wanted in demonstrations)]


for name, rules in (("pick", PICK), ("add", ADD)):
    for place, shots in enumerate(SHOTS):
        found = [fitting(rules, shown[:shots]) for shown, _ in episodes[name]]
        lucky = [statistics.mean(rule(query) == answer for rule in some)
                 for some, (_, (query, answer)) in zip(found, episodes[name])]  # fmt: skip
        print(f"{name:5s}{shots} demonstrations: {statistics.mean(map(len, found)):5.2f} rules fit; "
              f"reader {statistics.mean(lucky):.2f}, model {statistics.mean(correct[name][place]):.2f}")  # fmt: skip

# %% [markdown]
# **What you saw.** One demonstration of `pick` always fits at least two rules, a place and a kind, so nobody can be
# sure; the second settles it most of the time, and accuracy can climb. With `add`, one demonstration nearly settles the
# rule. Where the model stays below this reader, ambiguity is not the reason: it has to find the rule by itself, among
# all others it has met, and then carry it out.

# %% [markdown]
# ## Larger models get more out of the same prompt
# The same episodes for every size. The mean over the eight relations comes with an interval that takes the relations as
# given and the questions as drawn at random.

# %%
def mean_over_relations(rows):
    """The mean of the rows' means, with a 95 % interval: the questions are random, the relations are these eight."""
    center = statistics.mean(map(statistics.mean, rows))
    error = 1.96 * sum(statistics.variance(row) / len(row) for row in rows) ** 0.5 / len(rows)
    return Estimate(center, center - error, center + error, sum(map(len, rows)))


def scored(lm, shots, count=args.count // 2):
    """For each relation, a 1 or 0 for each of its first episodes."""
    some = [episodes[name][:count] for name in NAMES]
    return [[int(right) for right in judged(continued(lm, found, shots), answers_of(found))] for found in some]


SOME = (0, 1, 4, 8)
scores, parameters = {}, {}  # model -> one table of relations and episodes for each number of demonstrations
for name in progress(args.sizes.split(","), "sizes"):
    other = lm if name == args.model else load_lm(name)
    scores[name] = [scored(other, shots) for shots in SOME]
    parameters[name] = sum(p.numel() for p in other.parameters())
    print(f"{name}, {parameters[name]:,} parameters, 8 demonstrations: {mean_over_relations(scores[name][-1])}")

# %%
for smaller, larger in itertools.pairwise(scores):
    for shots, low, high in zip(SOME, scores[smaller], scores[larger]):
        gain = mean_over_relations([[b - a for a, b in zip(*rows)] for rows in zip(low, high)])  # the same prompts
        print(f"{larger} minus {smaller}, {shots} demonstrations: {gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]")

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.1))
for index, (name, tables) in enumerate(scores.items()):
    figures.curve(axes, SOME, list(map(mean_over_relations, tables)), f"{name}, {parameters[name] / 1e6:.1f} M", index)
axes.set(title="In-context learning against model size", xlabel="demonstrations in the prompt",
         ylabel="mean exact match, 8 relations", ylim=(-0.02, 1.02), xticks=SOME)  # fmt: skip
axes.legend(fontsize=8)
ends = ", ".join(f"{name} {mean_over_relations(tables[-1]).mean:.2f}" for name, tables in scores.items())
show(figure, alt=f"Mean exact match over eight relations against demonstrations. With eight demonstrations: {ends}.")

# %% [markdown]
# **What you saw.** Zero-shot the sizes hardly differ, for the prompt does not say what is asked; with demonstrations the
# smallest stays far behind. What grows with size is the use that is made of the prompt, as in figure 1.2 of the GPT-3
# paper. But parameters are not all: where an interval of *pocket-l minus pocket-m* includes zero, the two cannot be told
# apart. Their cards say why they may be: the larger one has read fewer tokens, and compute is parameters *times* tokens.

# %% [markdown]
# ## How far does it reach?
# The lecture calls this surprising, because a list of solved examples is not a native task of a language model. For
# this model it is: four documents in ten of its corpus are such lists, with `=`, `->`, `:` or `/` between the two
# sides. So try signs that its lists never have there.

# %%
FORMS = ("{input} = {output}", "{input} -> {output}", "{input} | {output}", "{input} goes with {output}")
print(f"{'eight demonstrations':38s} {'capital':24s} 2 labels")
for form in FORMS:
    familiar = "in the corpus" if form in dict(corpus.STYLES) else "in no list of it"
    rows = [accuracy(judged(continued(lm, episodes[name], 8, form), answers_of(episodes[name])))
            for name in ("capital", "2 labels")]  # fmt: skip
    print(f"{form.format(input='input', output='output'):21s} {familiar:16s} {str(rows[0]):24s} {rows[1]}")

# %% [markdown]
# **What you saw.** This is the measure of how general the skill is. In large models nobody planted lists; that
# repetition in ordinary text is enough is the finding of Chan et al. (2022).

# %% [markdown]
# ## The price: which examples, in which order
# Zhao et al. (2021) gave GPT-3 four demonstrations of sentiment, changed nothing but their choice and their order, and
# saw accuracy move between chance and near the best. The same here: reviews of two sentences and four demonstrations.
# One thing differs. With the words *positive* and *negative* the pocket models need no demonstrations: their corpus has
# such lists, so the words alone say what is meant. To make the demonstrations matter, the labels are nonsense words,
# *poke* for a good review and *fiti* for a bad one, read off as $p_\theta(\texttt{poke})$ against
# $p_\theta(\texttt{fiti})$.

# %%
POLARITIES, LABELS = ("negative", "positive"), ("fiti", "poke")
CONTENT_FREE = ("N/A", "", "...")
rng = random.Random(f"order:{args.seed}")


def reviewed(label):
    """A short review of that sentiment, with its label."""
    return tales.opinion(rng, POLARITIES[LABELS.index(label)], rng.choice(tales.ABOUT), 2), label


tests = [reviewed(label) for _ in range(args.count // 4) for label in LABELS]
gold = torch.tensor([LABELS.index(label) for _, label in tests])
orders = list(itertools.permutations([reviewed(label) for label in LABELS * 2]))  # 24 orders of one balanced set
patterns = [labels for labels in itertools.product(LABELS, repeat=4) for _ in range(2)]
sets = [[reviewed(label) for label in labels] for labels in patterns]  # 32 sets: every pattern of labels, twice
print(few_shot_prompt(orders[0], tests[0][0], template=probes.SENTIMENT_TEMPLATE))

# %%
def read(demonstrations):
    """p(label | demonstrations, input) for the test reviews (N, 2), and for the content-free inputs (3, 2)."""
    inputs = [text for text, _ in tests] + list(CONTENT_FREE)
    prompts = [few_shot_prompt(demonstrations, text, template=probes.SENTIMENT_TEMPLATE) for text in inputs]
    probabilities = score_choices(lm, prompts, LABELS).logprobs.softmax(-1)  # the words are several tokens long
    return probabilities.split((len(tests), len(CONTENT_FREE)))


def share_right(probabilities):
    return (probabilities.argmax(1) == gold).float().mean().item()


PARTS = {"24 orders of one set": slice(0, 24), "32 sets": slice(24, None)}
readings = [read(demonstrations) for demonstrations in progress([*orders, *sets], "contexts")]
raw = [share_right(probabilities) for probabilities, _ in readings]
for name, part in PARTS.items():
    print(f"{name:21s} accuracy {min(raw[part]):.2f} to {max(raw[part]):.2f}, mean {statistics.mean(raw[part]):.2f}: "
          f"spread {100 * (max(raw[part]) - min(raw[part])):.0f} points")  # fmt: skip

# %% [markdown]
# A caution before you believe it: with so few test reviews some spread is luck. So choose the best and the worst
# context on every second pair of reviews, and compare these two on the *other* reviews, which had no say in the choice.

# %%
for name, part in PARTS.items():
    hits = torch.stack([(probabilities.argmax(1) == gold).float() for probabilities, _ in readings[part]])
    choosing = torch.arange(len(tests)) % 4 < 2  # the reviews alternate in label, so pairs are balanced
    chosen, fresh = hits[:, choosing].mean(1), hits[:, ~choosing].mean(1)
    gap = 100 * (fresh[chosen.argmax()] - fresh[chosen.argmin()])
    print(f"{name:21s} on fresh reviews the best is {gap:.0f} points above the worst")

# %% [markdown]
# ## Calibrate with nothing
# If the prompt itself leans to one side, ask it about *nothing*: `Review: N/A`. Whatever it prefers there is bias. Zhao
# et al. divide it out,
#
# $$q = \mathbf W p, \qquad \mathbf W = \mathrm{diag}(p_\mathrm{cf})^{-1},
#   \qquad q \leftarrow q \,/\, \textstyle\sum_c q_c$$
#
# where $p_\mathrm{cf}$ is the mean of the label probabilities over a few content-free inputs. It takes no labelled
# example.

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
assert torch.allclose(calibrated(*readings[0]), prompting.contextual_calibration(*readings[0]))
after = [share_right(calibrated(*reading)) for reading in readings]
for name, part in PARTS.items():
    for step, found in (("before", raw[part]), ("after", after[part])):
        print(f"{name:21s} {step:7s} {min(found):.2f} to {max(found):.2f}, mean {statistics.mean(found):.2f}, "
              f"spread {100 * (max(found) - min(found)):.0f} points, standard deviation "
              f"{100 * statistics.stdev(found):.1f}")  # fmt: skip

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for axes, (name, part) in zip(panels, PARTS.items()):
    axes.plot((0, 1), (raw[part], after[part]), color="gray", alpha=0.5, linewidth=0.8)
    for place, found in enumerate((raw[part], after[part])):
        axes.scatter([place] * len(found), found, color=figures.COLORS[place], marker=figures.MARKERS[place], zorder=3)
    axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axes.set(title=name, xlabel="contextual calibration", xlim=(-0.4, 1.4))
    axes.set_xticks((0, 1), ("before", "after"))
panels[0].set(ylabel="accuracy, 4-shot sentiment", ylim=(0.38, 1.02))
spreads = [100 * (max(found[part]) - min(found[part])) for part in PARTS.values() for found in (raw, after)]
alt = "Accuracy of each context before and after calibration. The spread goes from {:.0f} to {:.0f} points over the " \
      "orders, from {:.0f} to {:.0f} over the sets. Dotted: chance."  # fmt: skip
show(figure, alt=alt.format(*spreads))

# %% [markdown]
# **What you saw.** [C07] Which four reviews stand in the prompt can decide between chance and near perfection. The order
# alone, for a balanced set, does little or nothing in this model: there the measurement does not follow the lecture, and
# the printed spreads say so. Sets drawn as they come move it a lot. Calibration lifts the worst contexts, so the spread
# shrinks: those contexts *could* tell good from bad and only leaned to one label. It is not magic: where a context
# leaves the model unsure about the reviews themselves, dividing by a bias cannot help (try `("up", "down")`).

# %% [markdown]
# ## What the bias is made of
# Two suspects: **majority-label bias**, towards the label shown more often, and **recency bias**, towards the label
# shown last. The 32 sets hold every pattern of four labels equally often, so they show both: how does the share of
# positive predictions (0.5 would be right) move when the label at one place turns from negative to positive?

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
found = {"before": [probabilities for probabilities, _ in readings[24:]],
         "after": [calibrated(*reading) for reading in readings[24:]]}  # fmt: skip
leaning = {step: [(each.argmax(1) == 1).float().mean().item() for each in each_set] for step, each_set in found.items()}
for positive in range(5):
    rows = [place for place, row in enumerate(labels) if sum(row) == positive]
    means = [statistics.mean(shares[row] for row in rows) for shares in leaning.values()]
    print(f"{positive} positive, {4 - positive} negative: predicts positive {means[0]:.2f}, calibrated {means[1]:.2f}"
          f"   ({len(rows)} sets; right: 0.50)")  # fmt: skip

# %%
def pulls_with_intervals(shares):
    """The pull of each place with its 95 % interval, from how much two sets with the same pattern differ."""
    variance = statistics.mean(statistics.variance(shares[row : row + 2]) for row in range(0, len(shares), 2))
    error = 1.96 * (variance * 4 / len(shares)) ** 0.5  # a difference of two means, each over half of the sets
    return [Estimate(pull, pull - error, pull + error, len(shares)) for pull in label_pull(labels, shares)]


pulls = {step: pulls_with_intervals(shares) for step, shares in leaning.items()}
for step, found in pulls.items():
    print(f"pull {step:7s}", "  ".join(f"place {place}: {x.mean:+.2f} ± {x.mean - x.low:.2f}"
                                       for place, x in enumerate(found, 1)))  # fmt: skip

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2))
counts = [sum(row) for row in labels]
for index, (step, shares) in enumerate(leaning.items()):
    means = [statistics.mean(share for share, count in zip(shares, counts) if count == x) for x in range(5)]
    style = {"color": figures.COLORS[index], "marker": figures.MARKERS[index]}
    left.scatter([count + 0.16 * index - 0.08 for count in counts], shares, s=14, alpha=0.5, **style)
    left.plot(range(5), means, linestyle=figures.DASHES[index], label=f"{step} calibration", **style)
    figures.bars(right, ["1", "2", "3", "4"], pulls[step], index, groups=2)
left.axhline(0.5, color="black", linestyle=":", linewidth=1), right.axhline(0, color="black", linewidth=0.8)
left.set(title="Majority label", xlabel="positive labels among the four", ylabel="share predicted positive",
         ylim=(-0.02, 1.02), xticks=range(5))  # fmt: skip
right.set(title="Recency", xlabel="place of the demonstration (4 = last)", ylabel="pull of its label")
left.legend(fontsize=8)
before = ", ".join(f"{x.mean:+.2f}" for x in pulls["before"])
show(figure, alt="Left: the share of positive predictions against the number of positive labels. Right: how much the "
     f"label at each place pulls predictions to its side, {before} before calibration.")  # fmt: skip

# %% [markdown]
# **What you saw.** A context that shows one label alone predicts that label, for good and bad reviews alike: majority bias
# in its purest form, and most of the spread above. As soon as both labels are shown, this model is hardly biased. The
# four places pull about alike: no recency bias here, though Zhao et al. found one in GPT-3. Calibration removes the pull.
#
# ## Recap
# - A few-shot prompt is a list that the model goes on with. It says **which** task is meant; no weight changes.
# - Where the bare form is ambiguous, demonstrations move the probability from the other readings to the right one.
# - They can also carry what no weight holds: labels invented for this prompt. That takes more examples, and a model
#   that is large and trained enough.
# - Accuracy depends on the choice and the order of the examples. Measure over several; report the spread.
# - Contextual calibration removes a one-sided lean without labelled data, and nothing else.
#
# ## Try next
# - `--model pocket-l` and `--model pocket-s`: which curves move, and which stay?
# - Other label words for the reviews: real words that mean something else, such as `("up", "down")`.
# - Eight demonstrations instead of four in the last part: does the spread shrink by itself?
#
# ## References
# - Radford et al. (2019), *Language Models are Unsupervised Multitask Learners* (translation by demonstration).
# - Brown et al. (2020), *Language Models are Few-Shot Learners*.
# - Zhao et al. (2021), *Calibrate Before Use: Improving Few-Shot Performance of Language Models*.
# - Xie et al. (2022), *An Explanation of In-context Learning as Implicit Bayesian Inference*.
# - Chan et al. (2022), *Data Distributional Properties Drive Emergent In-Context Learning in Transformers*.
