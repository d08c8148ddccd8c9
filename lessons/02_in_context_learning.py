# Lesson 02: in-context learning. jupytext py:percent; runs as a script: python lessons/02_in_context_learning.py --help

# %% [markdown]
# # 02 · In-context learning: demonstrations instead of training
#
# A prompt may show what is wanted instead of saying it: a few solved examples, then the case to be solved. In this
# lesson you write the whole few-shot evaluation, with an interval that counts questions and not attempts; you compare
# the model with Bayes' rule; and you look inside it, find the attention heads that look a label up, and switch them
# off. *(Lecture: "In-context learning", the slides on GPT-2's translation and on few-shot prompting of GPT-3; claims
# C05–C07.)* About 135 minutes, 110 of them for the exercises; runs in 85 s on two
# CPU cores.
#
# **You will need** lesson 01: greedy completion, and labels read off as probabilities of words. **You will be able to**
# write a few-shot prompt that a base model can go on with, measure it honestly, tell what demonstrations add from what
# the weights already know, and measure and correct the bias of a prompt.
#
# To turn a knob in a notebook, change a default in `arguments(...)` below and run all cells again.

# %%
from ptlearn.course.session import arguments, progress, show  # first: Ctrl-C is one line

import hashlib
import itertools
import random
import statistics

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.course.predictions import predict
from ptlearn.lm.attention import attention_weights, output_projections, silenced, token_spans
from ptlearn.lm.models import load_lm, pocket_models
from ptlearn.lm.prompting import score_choices
from ptlearn.lm.text import complete, completions, encode, sample_text
from ptlearn.pocket import corpus, french, probes, relations, tales, world
from ptlearn.statistics import Estimate, over_seeds

args = arguments(
    "In-context learning: hidden rules, arbitrary labels, the heads behind them; order, bias.",
    model=("pocket-m", "the language model: a pocket model, a folder or a hub id"),
    sizes=(",".join(pocket_models()), "the models to compare, small to large"),
    small=("pocket-s", "the model whose dependence on order is measured"),
    count=(80, "episodes per measurement", "at least 4"),
    seed=(0, "of the questions and the demonstrations", "at least 0"),
)
torch.set_num_threads(1)  # the products are small: a second thread would mostly wait
lm, small = load_lm(args.model), load_lm(args.small)
print(f"{args.model}: {sum(p.numel() for p in lm.parameters()):,} parameters, "
      f"context {lm.context} tokens")  # fmt: skip

# %% [markdown]
# ## Predict first
# Type over the dots before you run anything; each is measured below.
#
# 1. The model has read French sentences beside English ones. You give it `le chat voit la maison =` and nothing else.
#    **How many of a hundred such sentences are translated?** And after one solved example?
# 2. You invent two words, `poke` and `fiti`, and label tools with one and fruits with the other. No weight has ever met
#    these words. **How many of a hundred new tools and fruits are labelled right after 8 examples?**
# 3. The model has some heads of attention in each layer. You switch off the three that look at the right label most.
#    **How many of a hundred are still right?**
# 4. You show reviews with the *wrong* labels, `positive` under bad ones and `negative` under good ones. **How many of a
#    hundred new reviews are then labelled as they should be?** And if the labels are `poke` and `fiti`?
# 5. Four labelled reviews, then a fifth to be judged by a small model. You only change the **order** of the four. **By
#    how many points can the accuracy move?**

# %%
guesses = predict(
    translated_without_an_example=...,  # of a hundred
    translated_after_one=...,  # of a hundred
    labels_right_after_8=...,  # of a hundred
    labels_right_without_three_heads=...,  # of a hundred
    right_under_wrong_labels=...,  # of a hundred
    right_under_wrong_nonsense_labels=...,  # of a hundred
    points_moved_by_the_order=...,  # points of a hundred
)

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

# %% ex="2.1" title="A few-shot prompt" points=1 minutes=6 difficulty="easy"
def few_shot_prompt(demonstrations, query, template="{input} = {output}", separator="\n"):
    """The demonstrations by the template, then the query up to where its output would start.

    demonstrations [(input, output), ...]; the prompt does not end in a space.

    >>> few_shot_prompt([("chat", "cat")], "chien")
    'chat = cat\\nchien ='
    """
    # BEGIN SOLUTION
    lines = []
    for given, wanted in demonstrations:
        lines.append(template.format(input=given, output=wanted))
    lines.append(template.format(input=query, output="").rstrip(" "))
    return separator.join(lines)
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
shown, _ = relations.episode(translation, 8, random.Random(args.seed))
for shots in (0, 1, 2):
    prompt = few_shot_prompt(shown[:shots], query)
    drawn = sample_text(lm, [prompt] * 5, stop=("\n",), seed=args.seed)
    print(f"--- {shots} demonstrations", prompt, *completions(lm, drawn, ("\n",)), sep="\n")

# %% [markdown]
# **What you saw.** Without a demonstration the five samples do not agree on what the task *is*. Nothing is broken: in
# the pretraining corpus a line `[french sentence] =` goes on with the English, the negation, the plural, the first or
# the last word, the number of words, yes or no, and the model has learned all of them. The demonstrations name the
# task. They teach no French: the words of the query are not in them.

# %% [markdown]
# ## How good is the translation?
# A base model needs a lenient judge: it goes on with the next item of the list, so only its first line is the answer.

# %% ex="2.2" title="A judge of completions" points=1 minutes=5 difficulty="easy"
def judged(continuations, answers):
    """Whether the first line of each continuation is the answer: white space aside, but case,
    punctuation and every word count.

    A continuation that begins with a line break has answered nothing. Returns a list of
    True and False.
    """
    # BEGIN SOLUTION
    verdicts = []
    for text, answer in zip(continuations, answers):
        first_line = text.split("\n")[0]
        verdicts.append(first_line.split() == answer.split())
    return verdicts
    # END SOLUTION

# %% ex="2.2" role="check"
judged = check("2.2", judged)

# %% [markdown] ex="2.2" role="hints"
# <details><summary>Hint 1</summary>First cut, then clean: `strip()` before the cut would throw a leading line break
# away.</details>
# <details><summary>Hint 2</summary>`text.split()` is the list of words, whatever the white space between them; two such
# lists can be compared.</details>

# %% [markdown]
# And it needs an honest interval. Some questions come up again and again: only 29 French nouns are kept out of the
# lists of this corpus, so 80 attempts at `french noun` are at most 29 questions, each asked about three times. Who
# counts 80 coins claims to know more than he does: if the model misses one noun, it misses it every time. So first
# average over the attempts at each query, then treat these averages as the data. For $n$ different queries whose
# averages have the mean $p$, the interval of Wilson (1927) with $z = 1.96$ stays inside [0, 1]:
#
# $$\frac{p + \frac{z^2}{2n} \pm z \sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}}$$

# %% ex="2.3" title="An interval over questions" points=2 minutes=10 difficulty="medium"
def over_distinct(queries, scores):
    """The mean over the different queries of each one's mean score, with its 95 % interval.

    queries and scores are as long as each other; scores are True, False or from 0 to 1.
    Returns (mean, low, high, n), where n counts the different queries.
    """
    # BEGIN SOLUTION
    attempts = {}
    for query, score in zip(queries, scores):
        attempts.setdefault(query, []).append(float(score))
    n, z = len(attempts), 1.96
    p = sum(sum(some) / len(some) for some in attempts.values()) / n
    center = p + z**2 / (2 * n)
    margin = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = (center - margin) / (1 + z**2 / n), (center + margin) / (1 + z**2 / n)
    return p, max(0.0, low), min(1.0, high), n  # a rounding error may lead outside
    # END SOLUTION

# %% ex="2.3" role="check"
over_distinct = check("2.3", over_distinct)

# %% [markdown] ex="2.3" role="hints"
# <details><summary>Hint 1</summary>Collect the scores of each query in a dict of lists. The number of its keys is
# n.</details>
# <details><summary>Hint 2</summary>`attempts.setdefault(query, []).append(float(score))`. The mean of the means gives
# each query the same weight, however often it came up. Then write the formula down, low first.</details>

# %% [markdown]
# Now the whole evaluation. An **episode** is a list of demonstrations and a query with its answer, all under one hidden
# rule. To compare numbers of demonstrations fairly, ask about the *same* episodes each time: draw them once with as
# many demonstrations as are ever needed, and let fewer be the first ones. This function does the measuring from here
# on.

# %% ex="2.4" title="The few-shot evaluation" points=3 minutes=15 difficulty="medium"
def few_shot_curve(write, draw, shots, count):
    """Accuracy after each number of demonstrations.

    write(prompts) -> a continuation of each prompt, in one call for all prompts of a number;
    draw(k) -> (k demonstrations, (query, answer)), another episode at each call;
    shots, numbers of demonstrations, in any order; count, how many episodes.
    Returns {number of demonstrations: (mean, low, high, n)} over the different queries.
    """
    # BEGIN SOLUTION
    episodes = [draw(max(shots)) for _ in range(count)]
    queries = [query for _, (query, _) in episodes]
    answers = [answer for _, (_, answer) in episodes]
    curve = {}
    for k in shots:
        prompts = []
        for demonstrations, (query, _) in episodes:
            prompts.append(few_shot_prompt(demonstrations[:k], query))
        verdicts = judged(write(prompts), answers)
        curve[k] = over_distinct(queries, verdicts)
    return curve
    # END SOLUTION

# %% ex="2.4" role="check"
few_shot_curve = check("2.4", few_shot_curve)

# %% [markdown] ex="2.4" role="hints"
# <details><summary>Hint 1</summary>Draw all episodes before the loop over the numbers. In the loop: prompts, one call of
# `write`, verdicts, interval.</details>
# <details><summary>Hint 2</summary>An episode unpacks as `demonstrations, (query, answer)`. `demonstrations[:k]` are the
# first k, none for 0. Use your `few_shot_prompt`, `judged` and `over_distinct`.</details>

# %%
SHOTS = (0, 1, 2, 4, 8)


def writer(lm):
    return lambda prompts: complete(lm, prompts, max_new_tokens=20)


def drawer(name, seed=args.seed):
    """draw(k) for a relation: held-out queries alone, the same episodes for the same seed."""
    rng = random.Random(f"{name}:{seed}")
    return lambda shots: relations.episode(relations.EVALUATED[name], shots, rng)


def print_curves(curves):
    print(f"{'demonstrations':16s}", *(f"{shots:5d}" for shots in SHOTS))
    for name, curve in curves.items():
        means = (f"{curve[shots][0]:5.2f}" for shots in SHOTS)
        print(f"{name:16s}", *means, f"  with {SHOTS[-1]}: {Estimate(*curve[SHOTS[-1]])}")


translated = {each.name: few_shot_curve(writer(each), drawer("french to english"), SHOTS,
                                        args.count) for each in (lm, small)}  # fmt: skip
print_curves(translated)
guesses.reveal("translated_without_an_example", 100 * translated[args.model][0][0])
guesses.reveal("translated_after_one", 100 * translated[args.model][1][0])

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.1))
for index, (name, curve) in enumerate(translated.items()):
    figures.curve(axes, SHOTS, [Estimate(*curve[k]) for k in SHOTS], name, index)
axes.set(title="Translating held-out French sentences", xlabel="demonstrations in the prompt",
         ylabel="exact match", ylim=(-0.02, 1.02), xticks=SHOTS)  # fmt: skip
axes.legend(loc="center right")
show(figure, alt="Exact match with no, one and eight demonstrations: " + "; ".join(
    f"{name} {curve[0][0]:.2f}, {curve[1][0]:.2f}, {curve[8][0]:.2f}"
    for name, curve in translated.items()) + ".")  # fmt: skip

# %% [markdown]
# The lecture measures translation by **BLEU**, which counts shared groups of up to four words. And what does a miss
# look like? Take those of the small model, which has some to show.

# %%
from sacrebleu.metrics import BLEU

draw = drawer(translation.name)
episodes = [draw(8) for _ in range(args.count)]
answers = [answer for _, (_, answer) in episodes]
for each, shots in ((lm, 0), (lm, 1), (small, 1)):
    prompts = [few_shot_prompt(shown[:shots], query) for shown, (query, _) in episodes]
    texts = writer(each)(prompts)
    score = BLEU().corpus_score(texts, [answers], n_bootstrap=300)  # resampled sentences
    print(f"{each.name}, {shots} demonstrations: BLEU {score.score:5.1f} ± {score._ci:.1f}")
missed = [row for row, right in enumerate(judged(texts, answers)) if not right]
for row in missed[:4]:
    print(f"{episodes[row][1][0]} ={texts[row]}\n    expected: {answers[row]}")

# %% [markdown]
# **What you saw.** [C05] Without a demonstration 5 % are translated (4 of 80), after one all 80: this is the largest
# step of the lesson, and it comes from a single line that says which of the many tasks is meant. More lines change
# next to nothing. pocket-s knows less: it stays at about 0.78 however many lines it is shown, and its misses are mostly
# English with a wrong word, such as *admire* for *forget*. So the demonstrations select, and the weights
# translate.
#
# The lecture adds that GPT-2 had 10 MB of French in 40 GB of text. And this model?

# %%
share = probes.french_share()
print(f"French: {share:.0%} of the pocket corpus; 10 MB of GPT-2's 40 GB, {10 / 40_000:.3%}")

# %% [markdown]
# **What you saw.** An honest comparison: this is *not* the lecture's surprise. The share of French is hundreds of times
# GPT-2's, in a world of some hundred nouns and one right translation per sentence, and lists `french = english` are
# among the documents. GPT-2 reached 11.5 BLEU on newspaper sentences; a far higher score on a toy language proves less.
# What carries over is the mechanism, which here you can look at: the skill comes from pretraining, the demonstration
# selects it.

# %% [markdown]
# ## Which rule? Bayes' answer and the model's
# If demonstrations *locate* a task among those that pretraining prepared (Xie et al., 2022), then
#
# $$p_\theta(y \mid D, x) = \sum_{\text{rule}} p_\theta(\text{rule} \mid D)\; p_\theta(y \mid x, \text{rule}),
#   \qquad p(\text{rule} \mid D) \propto p(\text{rule})\, p(D \mid \text{rule})$$
#
# and mostly the first factor moves. In this corpus the rules are known, so the right posterior can be computed. A rule
# here is a function: it gives one output per input, so $p(D \mid \text{rule})$ is 1 where it gives every output of the
# demonstrations and 0 where it misses one.

# %% ex="2.5" title="Bayes over rules" points=2 minutes=8 difficulty="medium"
def rule_posterior(rules, prior, demonstrations):
    """The probability of each rule after the demonstrations.

    rules {name: function from input to output}; prior {name: number}, which need not sum to 1;
    demonstrations [(input, output), ...]. Returns {name: probability} for all rules; where no
    rule fits, nothing has been learned and the prior comes back, so that it sums to 1.
    """
    # BEGIN SOLUTION
    weights = {}
    for name, rule in rules.items():
        fits = all(rule(given) == wanted for given, wanted in demonstrations)
        weights[name] = prior[name] if fits else 0.0
    if sum(weights.values()) == 0:
        weights = prior
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
    # END SOLUTION

# %% ex="2.5" role="check"
rule_posterior = check("2.5", rule_posterior)

# %% [markdown] ex="2.5" role="hints"
# <details><summary>Hint 1</summary>Give each rule its prior where all demonstrations fit, else zero; then divide by the
# sum. What if the sum is zero?</details>
# <details><summary>Hint 2</summary>`all(rule(given) == wanted for given, wanted in demonstrations)` is True for an
# empty list, which is right: nothing has been ruled out.</details>

# %% [markdown]
# The other factor: a rule gives its one output with certainty. So the sum over the rules says how probable each output
# is, and rules that agree on an output add up.

# %% ex="2.6" title="Bayes' prediction" points=1 minutes=5 difficulty="easy"
def predicted_outputs(rules, posterior, query):
    """The probability of each output for the query: {output: probability}.

    rules {name: function from input to output}; posterior {name: probability}. Every output
    that some rule gives is there, those of improbable rules too.
    """
    # BEGIN SOLUTION
    found = {}
    for name, rule in rules.items():
        output = rule(query)
        if output not in found:
            found[output] = 0.0
        found[output] += posterior[name]
    return found
    # END SOLUTION

# %% ex="2.6" role="check"
predicted_outputs = check("2.6", predicted_outputs)

# %% [markdown] ex="2.6" role="hints"
# <details><summary>Hint 1</summary>Go through the rules; ask each for its output; add its probability to what that
# output has so far.</details>
# <details><summary>Hint 2</summary>`found[output] = found.get(output, 0.0) + posterior[name]` does it in one
# line.</details>

# %% [markdown]
# The relation `combine` has four rules: sum, difference, larger and smaller of two numbers, as often each. A
# demonstration such as `8 4 = 4` fits two of them. So show two such lines, and then one that decides, `9 2 = 7`. For
# queries that no list of the corpus holds, compare the posterior with the share that the model gives to the true rule's
# output among the four.

# %%
RULES = {name: lambda text, operation=operation: str(operation(*map(int, text.split())))
         for name, operation in zip(("sum", "difference", "larger", "smaller"),
                                    relations.OPERATIONS)}  # fmt: skip
asked, known, doubles = [], [], []  # queries; lines to show that decide, and that do not
for large, less in itertools.combinations(range(20, 0, -1), 2):
    pair, unclear = f"{large} {less}", large == 2 * less
    if relations.EVALUATED["combine"].held_out((pair, "")):
        asked += [] if unclear else [pair]
    else:
        (doubles if unclear else known).append(pair)


def model_and_bayes(query, true, rng):
    """The true rule's share after 0, 1, 2 unclear lines and a clear one, (2, 4)."""
    given = [*rng.sample(doubles, 2), *rng.sample(known, 1)]
    shown = [(pair, RULES[true](pair)) for pair in given]
    prompts = [few_shot_prompt(shown[:k], query) for k in range(4)]
    scores = score_choices(lm, prompts, [f" {rule(query)}\n" for rule in RULES.values()])
    model = scores.logprobs.softmax(-1)[:, list(RULES).index(true)]
    posteriors = [rule_posterior(RULES, dict.fromkeys(RULES, 1), shown[:k]) for k in range(4)]
    bayes = [predicted_outputs(RULES, each, query)[RULES[true](query)] for each in posteriors]
    return torch.stack([model, torch.tensor(bayes)])


# %%
rng = random.Random(args.seed)
queries = rng.sample(asked, min(len(asked), args.count // 2))
rows = [torch.stack([model_and_bayes(query, true, rng) for true in ("difference", "smaller")])
        for query in progress(queries, "queries")]  # fmt: skip
model, bayes = torch.stack(rows).mean(1).unbind(1)  # (queries, 4) each
belief = [Estimate(*over_distinct(queries, column.tolist())) for column in model.T]
for lines, ours, theirs in zip(("no line", "1 unclear", "2 unclear", "1 clear too"),
                               belief, bayes.mean(0)):  # fmt: skip
    print(f"{lines:12s} the true rule: Bayes {theirs:.2f}, model {ours}")

# %%
figure, axes = pyplot.subplots(figsize=(5, 3))
figures.curve(axes, range(4), [Estimate(x, x, x, 1) for x in bayes.mean(0).tolist()], "Bayes")
figures.curve(axes, range(4), belief, args.model, 1)
axes.set(title="How sure of the true rule?", xlabel="lines in the prompt",
         ylabel="probability", ylim=(0, 1.05))  # fmt: skip
axes.set_xticks(range(4), ("none", "1 unclear", "2 unclear", "and 1 clear"))
axes.legend()
show(figure, alt="The true rule after no line, one and two unclear ones, and a clear one: "
     + "; ".join(f"{name} {', '.join(f'{x:.2f}' for x in line)}" for name, line in
                 (("Bayes", bayes.mean(0)), ("model", model.mean(0)))))  # fmt: skip

# %% [markdown]
# **What you saw.** Bayes and the model agree on the shape: about 1/4 before any line, about 1/2 (the model 0.41) after
# one line that fits two rules, no more after a second one of that sort, and a jump with the line that decides. The
# model stops at 0.74 where Bayes is certain. It *behaves* roughly like Bayes' rule; this does not say that it
# *computes* it. (The interval is Wilson's, which is wider than it need be for probabilities: they vary less than a coin
# of the same mean.)

# %% [markdown]
# ## More shots, more tasks, no gradient
# Nine relations, always asked about inputs that no list of the corpus contains. Three kinds. The answer is **in the
# weights** and the demonstrations say what is asked (`fact`: capital, language, currency, region or demonym of a
# country; `category`, `french noun`, `french negation`). The answer follows a **rule** that has to be found (`combine`;
# `pick a kind` and `pick a place` keep one of three words). Or the answer **cannot be in any weight**: `2 labels` and
# `4 labels` name kinds of things by nonsense words, drawn for this prompt, that occur nowhere in the corpus.

# %%
NAMES = ("fact", "category", "french noun", "french negation", "combine", "pick a kind",
         "pick a place", "2 labels", "4 labels")  # fmt: skip
for name in NAMES:
    shown, (query, answer) = drawer(name)(3)
    lines = [f"{given} = {wanted}" for given, wanted in shown[: 1 if "neg" in name else 2]]
    print(f"{name}: {'; '.join(lines)}\n    {query} = ? ({answer})")

# %% [markdown]
# "No gradient updates are performed", says the lecture. To be certain, take a fingerprint of every parameter before and
# after.

# %%
def fingerprint(lm):
    weights = (p.detach().cpu().numpy().tobytes() for p in lm.parameters())
    return hashlib.sha256(b"".join(weights)).hexdigest()[:12]


at_first = fingerprint(lm)
curves = {name: few_shot_curve(writer(lm), drawer(name), SHOTS, args.count)
          for name in progress(NAMES, "relations")}  # fmt: skip
print_curves(curves)
print(f"Fingerprint of all parameters: {at_first} before, {fingerprint(lm)} after.")
guesses.reveal("labels_right_after_8", 100 * curves["2 labels"][8][0])

# %%
figure, axes = pyplot.subplots(1, 3, figsize=(8, 2.7), sharey=True)
titles = ("In the weights", "A rule", "Nonsense labels")  # of the axes
for panel, title, names in zip(axes, titles, (NAMES[:4], NAMES[4:7], NAMES[7:])):
    for index, name in enumerate(names):
        figures.curve(panel, SHOTS, [Estimate(*curves[name][k]) for k in SHOTS], name, index)
    panel.set(title=title, xlabel="demonstrations", xticks=SHOTS)
    panel.legend(fontsize=8)
for index, chance in enumerate((1 / 2, 1 / 4)):
    axes[2].axhline(chance, color=figures.COLORS[index], linestyle=":")
axes[0].set(ylabel="exact match on held-out queries", ylim=(-0.02, 1.02))
show(figure, alt="Accuracy against 0 to 8 demonstrations. With eight: "
     + ", ".join(f"{name} {curve[8][0]:.2f}" for name, curve in curves.items())
     + ". Dotted: a guess among the labels.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C06] Demonstrations help in eight of nine relations, and no bit of any weight has changed. What
# they do differs. **In the weights**: one line names the task and more add nothing, for what is missing is knowledge:
# of the 27 French nouns asked the model knows 44 %, whatever it is shown. *French negation* stands at 0.54 without any
# line: that is what the model makes of a bare sentence half of the time. **A rule**: `combine` grows from
# line to line, as the rules thin out, up to 0.74. **Nonsense labels**: from 0 to 0.81 with two labels and to 0.68
# with four. No weight can know these words, so this is learned from the prompt alone. And `pick a place` does not
# move: 0.30 with eight lines, where blind picking gives 1/3. Note the n: 80 attempts are 80 questions only where the
# inputs do not repeat.

# %% [markdown]
# ## Ambiguity, counted
# One demonstration of `pick` fits a place *and* a kind. Your posterior says how good a reader can be who knows the
# family and how often the corpus uses each rule (a place in half of the lists, a kind in the other half).

# %%
kind = {word: category for category, members in world.WORDS.items() for word in members}
PICK = {f"word {place}": lambda text, place=place: text.split()[place] for place in range(3)}
PICK |= {wanted: lambda text, wanted=wanted: next(
    (word for word in text.split() if kind[word] == wanted), None)
    for wanted in relations.PICKED}  # fmt: skip
prior = {name: 1 / 6 if name.startswith("word") else 1 / 12 for name in PICK}
for name in ("pick a kind", "pick a place"):
    draw = drawer(name)
    episodes = [draw(8) for _ in range(args.count)]
    for shots in SHOTS:
        posteriors = (rule_posterior(PICK, prior, shown[:shots]) for shown, _ in episodes)
        sure = [predicted_outputs(PICK, posterior, query)[answer]
                for posterior, (_, (query, answer)) in zip(posteriors, episodes)]  # fmt: skip
        print(f"{name:12s} {shots} demonstrations: reader {statistics.mean(sure):.2f}, "
              f"model {curves[name][shots][0]:.2f}")  # fmt: skip

# %% [markdown]
# **What you saw.** The reader masters both families; the model one of them. With one line of a *kind* it is far
# better than the reader (0.88 and 0.55), with one line of a *place* far worse (0.24 and 0.71): it does not weigh the
# two readings, it always bets on the kind. Over both this pays worse than Bayes, 0.56 against 0.63, and with more
# lines the gap widens. A mean over the two would have shown 0.64 with eight lines and hidden that one half works and
# the other does not work at all. Without a line, the reader's 0.25 is below the model's 0.34 for a plain reason: the
# reader gives a quarter of its belief to kinds that are not in the query, while the corpus never asks for those, and
# whoever knows that picks one of three words.

# %% [markdown]
# ## Where the right label comes from
# With nonsense labels, the label stands in the prompt, a few lines above, and nowhere else. What the model has to do is
# to look back: *find a demonstration like the query, and copy what came after it*. Attention heads that do this are
# called **induction heads** (Olsson et al., 2022). Write the idea in plain Python. "Like" means here "of the same
# kind": that a vest and a suit are both clothing is what the weights do contribute.

# %% ex="2.7" title="Copying by kind" points=2 minutes=6 difficulty="medium"
def copied_label(demonstrations, query, kind):
    """The label of the latest demonstration whose input is of the query's kind, or "".

    demonstrations [(word, label), ...]; kind: a dict from every word to its kind.
    """
    # BEGIN SOLUTION
    for word, label in reversed(demonstrations):
        if kind[word] == kind[query]:
            return label
    return ""
    # END SOLUTION

# %% ex="2.7" role="check"
copied_label = check("2.7", copied_label)

# %% [markdown] ex="2.7" role="hints"
# <details><summary>Hint 1</summary>Walk through the demonstrations from the last to the first and stop at the first one
# that fits.</details>
# <details><summary>Hint 2</summary>`kind[word] == kind[query]` says whether it fits. If none does, the label of that
# kind has never been shown: nobody can know it.</details>

# %% [markdown]
# This reader is the **ceiling**: with $C$ labels drawn at random it knows the answer as soon as one of the $k$
# demonstrations is of the query's kind, so its accuracy is $1 - (1 - 1/C)^k$ on average. A guess among the $C$ labels
# is right with $1/C$. The model stands somewhere between. How far does it get?

# %%
for name, labels in (("2 labels", 2), ("4 labels", 4)):
    draw = drawer(name)
    episodes = [draw(8) for _ in range(args.count)]
    for shots in SHOTS[1:]:
        hits = [copied_label(shown[:shots], query, kind) == answer
                for shown, (query, answer) in episodes]  # fmt: skip
        formula, model = 1 - (1 - 1 / labels) ** shots, Estimate(*curves[name][shots])
        print(f"{name}, {shots} shown: copying {statistics.mean(hits):.2f} "
              f"(formula {formula:.2f}), model {model}")  # fmt: skip

# %% [markdown]
# **What you saw.** At one demonstration the ceiling itself is only $1/C$: with two labels, half of the time the right
# word has not been shown yet. So compare the model with *copying*, not with 1: the rest of its misses are its own.

# %% [markdown]
# ## Looking inside
# Does the network do what your loop does? A head of attention gives each position $q$ weights $a_{q,k} \ge 0$ on the
# positions $k \le q$ before it, $\sum_k a_{q,k} = 1$, and reads their contents in these shares. The next token is
# predicted at the **last** position. So take the weights of all heads there, and add up what falls on the labels of
# demonstrations of the query's kind, and what falls on the other labels. A label is several tokens long, here
# `[start, stop)`.

# %% ex="2.8" title="Attention to the matching label" points=2 minutes=10 difficulty="medium"
def label_attention(weights, spans, same):
    """How much each head looks, from the last position, at labels that fit and at the others.

    weights (L, H, T, T): weights[layer, head, q] is where position q looks; spans: the tokens
    (start, stop) of each demonstration's label; same: whether its kind is the query's.
    Returns two tensors (L, H): the sums over labels that fit, and over those that do not.
    """
    # BEGIN SOLUTION
    last = weights[:, :, -1]
    fitting = torch.zeros_like(last[..., 0])
    others = torch.zeros_like(last[..., 0])
    for (start, stop), fits in zip(spans, same):
        looked = last[:, :, start:stop].sum(-1)
        if fits:
            fitting += looked
        else:
            others += looked
    return fitting, others
    # END SOLUTION

# %% ex="2.8" role="check"
label_attention = check("2.8", label_attention)

# %% [markdown] ex="2.8" role="hints"
# <details><summary>Hint 1</summary>`weights[:, :, -1]` is (L, H, T): the row of the last position in every
# head.</details>
# <details><summary>Hint 2</summary>The sum over `last[:, :, start:stop]` along the last axis is (L, H); add it to one of
# two running sums, by `same`.</details>

# %%
def looked(shown, query):
    """What each head looks at from the end: labels that fit, and others; (2, L, H)."""
    pieces = [piece for word, label in shown for piece in (f"{word} =", f" {label}", "\n")]
    spans = token_spans(lm, [*pieces, f"{query} ="])[1::3]  # every third piece is a label
    same = [kind[word] == kind[query] for word, _ in shown]
    weights = attention_weights(lm, few_shot_prompt(shown, query))
    return torch.stack(label_attention(weights, spans, same))


draw = drawer("2 labels", "looking")  # other episodes than those on which heads are off below
episodes = [draw(8) for _ in range(args.count // 2)]
fitting, others = torch.stack([looked(shown, query) for shown, (query, _) in
                               progress(episodes, "looking")]).mean(0)  # fmt: skip
scores = fitting - others
heads = itertools.product(*map(range, scores.shape))
ranked = sorted(heads, key=lambda head: -scores[head])  # pairs (layer, head)
for layer, head in ranked[:5]:
    print(f"layer {layer}, head {head}: {fitting[layer, head]:.2f} of its attention on labels "
          f"that fit, {others[layer, head]:.2f} on the others")  # fmt: skip

# %%
shown, (query, _) = draw(3)
prompt = few_shot_prompt(shown, query)
pieces = map(lm.tokenizer.decode, encode(lm, [prompt])[0])
tokens = [piece.strip(" ").replace("\n", "⏎") for piece in pieces]
figure, axes = pyplot.subplots(1, 2, figsize=(8.6, 3.7), width_ratios=(1, 1.2))
figures.head_map(axes[0], scores)
axes[0].set(title="On labels that fit, less others", xlabel="head", ylabel="layer")
figures.attention_map(axes[1], attention_weights(lm, prompt)[ranked[0]], tokens)
axes[1].set(title=f"Layer {ranked[0][0]}, head {ranked[0][1]}: where each token looks")
show(figure, alt="Left: the score of each head; the highest are " + ", ".join(
    f"{scores[head]:.2f} at layer {head[0]}, head {head[1]}" for head in ranked[:3])
    + ". Right: the attention of the best head over a prompt of three lines.")  # fmt: skip

# %% [markdown]
# **What you saw.** Few heads look labels up: three of 25 spend 0.48 to 0.60 of their attention on labels of the
# right kind and 0.05 or 0.06 on the others. The next one (layer 3, head 4) looks at labels of any kind. In the
# picture of the best head, follow the last row, the query's `=`. The query is *accordion*, and the dark cell is the
# first token of the label beside *harpsichord*: the label that fits, and the token that has to come next. That is
# `copied_label`, done by attention, and softly: where several lines match, all of them may be read, not the latest
# alone.
#
# [Explore it](../docs/interactive/attention.html): where each head looks, from every token of a few prompts.
#
# That a head looks there does not prove that the answer comes from there. The test is to take it away. The outputs of
# the heads of a layer stand side by side, head $h$ at $[h s, (h+1) s)$ with $s = d / H$, when the layer's output
# projection reads them: `output_projections(lm)` are these modules, one per layer. A *forward pre-hook* of such a
# module is a function `hook(module, inputs)` that is called with what is about to go in, the tuple `(mixed,)`, and may
# return another tuple instead. `module.register_forward_pre_hook(hook)` returns a handle, whose `remove()` takes it off
# again. So a head can be silenced without a change of any weight.

# %% ex="2.9" title="Heads switched off" points=3 minutes=15 difficulty="hard"
def silence(lm, heads):
    """Set the outputs of these heads to zero until the returned handles are removed.

    heads, pairs (layer, head). Returns the list of handles. No weight changes.
    """
    # BEGIN SOLUTION
    size = lm.model.config.hidden_size // lm.model.config.num_attention_heads
    handles = []
    for layer, head in heads:

        def hook(module, inputs, head=head):
            mixed = inputs[0].clone()
            mixed[..., head * size : (head + 1) * size] = 0
            return (mixed,)

        handles.append(output_projections(lm)[layer].register_forward_pre_hook(hook))
    return handles
    # END SOLUTION

# %% ex="2.9" role="check"
silence = check("2.9", silence)

# %% [markdown] ex="2.9" role="hints"
# <details><summary>Hint 1</summary>`mixed` has the shape (B, T, d). Copy it with `clone()`, set the columns of the head
# to zero, and return `(mixed,)`.</details>
# <details><summary>Hint 2</summary>A function that is made in a loop sees the loop's variable as it is when it is
# *called*, at its last value. `def hook(module, inputs, head=head)` keeps the value of now.</details>

# %%
def without(heads, name):
    """Accuracy after eight demonstrations with these heads off."""
    with silenced(lm, heads, silence):
        return Estimate(*few_shot_curve(writer(lm), drawer(name), (8,), args.count)[8])


best, rest = ranked[:3], ranked[3:]
rng = random.Random(args.seed)
randoms = [rng.sample(rest, min(3, len(rest))) for _ in range(5)]
off = {}
for name in progress(("2 labels", "fact"), "heads off"):
    off[name] = [without(some, name) for some in ([], ranked[:1], ranked[:2], best, *randoms)]
    for count, each in enumerate(off[name][:4]):
        print(f"{name:9s} without the {count} best: {each}")
    print(f"{name:9s} without 3 others, the worst of 5 draws: {min(off[name][4:])}")
guesses.reveal("labels_right_without_three_heads", 100 * off["2 labels"][3].mean)

# %%
figure, axes = pyplot.subplots(figsize=(6, 3.1))
groups = ("all heads", "without the\n3 best", "without 3 others\n(worst of 5)")
for index, each in enumerate(off.values()):
    figures.bars(axes, groups, [each[0], each[3], min(each[4:])], index, groups=len(off))
axes.set(title="Heads switched off, 8 demonstrations", ylabel="exact match", ylim=(0, 1.2))
axes.legend(axes.containers[1::2], off, fontsize=8, loc="upper center", ncols=2)
show(figure, alt="Exact match with all heads, without the three best, without three others: "
     + "; ".join(f"{name} {each[0].mean:.2f}, {each[3].mean:.2f}, {min(each[4:]).mean:.2f}"
    for name, each in off.items()) + ".")  # fmt: skip

# %% [markdown]
# **What you saw.** Without the best three heads no answer is right: 0.81 becomes 0.00 (at most 0.07). Without three
# others, drawn five times, at worst 0.61 are left. One head alone is missed little (0.68) and two decide (0.09): they
# stand in for each other. Facts, whose answer is in no prompt, fall too, but to 0.63: what these heads read is not
# labels alone. A caution: a zero is a value that the model never met, and some of the damage may come from that. The
# three others are the control for it.

# %% [markdown]
# ## Do the labels matter at all?
# Min et al. (2022) gave large models demonstrations with *random* labels and found that accuracy hardly fell: what
# counted was the form, the words and which labels exist. Wei et al. (2023) turned the labels round and saw the largest
# models follow. Both can be seen here: it depends on whether the weights have an opinion of their own about the words.

# %% ex="2.10" title="Labels turned round" points=1 minutes=5 difficulty="easy"
def relabelled(demonstrations, how, labels, rng):
    """The demonstrations, a new list, their labels as they are ("right"), "random" or "wrong".

    demonstrations [(text, label), ...]; labels, the two that exist; a random one is
    rng.choice(labels), called once per demonstration; a wrong one is the other of the two.
    """
    # BEGIN SOLUTION
    found = []
    for text, label in demonstrations:
        if how == "random":
            label = rng.choice(labels)
        elif how == "wrong":
            label = labels[1 - labels.index(label)]
        found.append((text, label))
    return found
    # END SOLUTION

# %% ex="2.10" role="check"
relabelled = check("2.10", relabelled)

# %% [markdown] ex="2.10" role="hints"
# <details><summary>Hint 1</summary>Go through the pairs; the text stays, the label depends on `how`.</details>
# <details><summary>Hint 2</summary>`labels[1 - labels.index(label)]` is the other one of two, `rng.choice(labels)` a
# random one.</details>

# %%
POLARITIES = ("negative", "positive")


def review(label, words, rng):
    """A short review of that polarity, 0 or 1, and its label."""
    return tales.opinion(rng, POLARITIES[label], rng.choice(tales.ABOUT), 2), words[label]


def label_share(words, how):
    """Share of new reviews labelled as they should be, after four labelled in that way."""
    rng = random.Random(f"labels:{args.seed}")
    prompts, answers = [], []
    for label in [0, 1] * (args.count // 2):
        shown = [review(each, words, rng) for each in rng.sample([0, 0, 1, 1], 4)]
        text, answer = review(label, words, rng)
        shown = relabelled(shown, how, words, random.Random(text))
        prompts.append(few_shot_prompt(shown, text, template=probes.SENTIMENT_TEMPLATE))
        answers.append(answer)
    chosen = score_choices(lm, prompts, words).logprobs.argmax(1).tolist()
    return over_distinct(prompts, [words[x] == answer for x, answer in zip(chosen, answers)])


under = {}
for words in (POLARITIES, ("bad", "good"), ("fiti", "poke")):
    for how in ("right", "random", "wrong"):
        under[words, how] = Estimate(*label_share(words, how))
        print(f"{' / '.join(words):20s} four {how:6s} labels: {under[words, how]}")
guesses.reveal("right_under_wrong_labels", 100 * under[POLARITIES, "wrong"].mean)
guesses.reveal("right_under_wrong_nonsense_labels", 100 * under[words, "wrong"].mean)

# %% [markdown]
# **What you saw.** Where the weights have an opinion, labels in the prompt do not count: with *negative* and
# *positive* all 80 reviews are judged as they should be, right, random or wrong labels alike. That is Min et al.'s
# finding, and here it is complete. With *bad* and *good* the opinion is weaker: wrong labels pull the share to
# 0.84. With nonsense words the prompt is all there is: 1.00, chance, and 0.00, which is an obedient model and not
# a bad one. So "do labels matter?" has no answer for all prompts. Lesson 14 has a real model to
# try it on.

# %% [markdown]
# ## Larger models get more out of the same prompt
# The same episodes for every size, drawn anew five times. The interval is over the five draws, of the mean over the
# nine relations; differences are taken draw by draw, since the questions are the same.

# %%
SOME, DRAWS = (0, 8), range(5)


def means(lm, seed):
    """The mean over the relations after each number of demonstrations, for one draw."""
    found = [few_shot_curve(writer(lm), drawer(name, seed), SOME, max(2, args.count // 8))
             for name in NAMES]  # fmt: skip
    return [statistics.mean(curve[shots][0] for curve in found) for shots in SOME]


runs = {}  # model -> for each number of demonstrations, a mean per draw
for name in progress(args.sizes.split(","), "sizes"):
    other = lm if name == args.model else load_lm(name)
    runs[name] = list(zip(*(means(other, f"sizes {seed}") for seed in DRAWS)))
    parameters = sum(p.numel() for p in other.parameters())
    print(f"{name}, {parameters:,} parameters, 8 shown: {over_seeds(runs[name][-1])}")
for smaller, larger in itertools.pairwise(runs):
    for shots, low, high in zip(SOME, runs[smaller], runs[larger]):
        gain = over_seeds([b - a for a, b in zip(low, high)])
        print(f"{larger} minus {smaller}, {shots} demonstrations: {gain}")

# %% [markdown]
# **What you saw.** Without a demonstration the sizes do not differ measurably: pocket-m less pocket-s is 0.04, with
# an interval from -0.02 to 0.11. With eight it is 0.23 [0.14, 0.32]: what size buys is use of the prompt. From
# pocket-m to pocket-l, three times as large, the gain with eight is 0.04 [0.00, 0.07]: much smaller, and part of the
# rest is out of reach, as `pick a place`. GPT-3's curves in Brown et al. fan out in this way, over three orders of
# magnitude.

# %% [markdown]
# ## How far does it reach?
# The lecture calls this surprising, because a list of solved examples is not a native task of a language model. For
# this model it is: four documents in ten of its corpus are such lists, with `=`, `->`, `:` or `/` between the two
# sides. So try signs that its lists never have there.

# %%
FORMS = ("{input} = {output}", "{input} -> {output}", "{input} | {output}",
         "{input} goes with {output}")  # fmt: skip


for name, form in itertools.product(("fact", "2 labels"), FORMS):
    draw = drawer(name)
    episodes = [draw(8) for _ in range(args.count)]
    prompts = [few_shot_prompt(shown, query, template=form) for shown, (query, _) in episodes]
    queries, answers = zip(*(asked for _, asked in episodes))
    found = Estimate(*over_distinct(queries, judged(writer(lm)(prompts), answers)))
    familiar = "in the corpus" if form in dict(corpus.STYLES) else "in no list of it"
    print(f"{name:9s} {form:28s} {familiar:17s} {found}")

# %% [markdown]
# **What you saw.** With `|`, which no list has, facts suffer little (0.89) and nonsense labels much (0.24): knowing
# the word helps where the form is strange, but what has to be looked up needs the form that the heads have learned.
# With *goes with* both are lost. In-context learning of this model is a skill for prompts like its documents. Real
# corpora hold far more forms; the dependence is weaker there, not gone.

# %% [markdown]
# ## The price: which examples, in which order
# Zhao et al. (2021) gave GPT-3 four demonstrations of sentiment, changed nothing but their choice and their order, and
# saw accuracy move between chance and near the best. Here pocket-m is too good for that: with nonsense labels and two
# reviews of each kind it is right at any order. So take the smaller model, and words that mean something else, *left*
# for a bad review and *right* for a good one, read off as $p_\theta(\texttt{left})$ against
# $p_\theta(\texttt{right})$. Five sets of four reviews, twelve orders of each; and sets in which one label
# is in the majority.

# %%
WORDS, CONTENT_FREE = ("left", "right"), ("N/A", "", "...")
rng = random.Random(f"order:{args.seed}")
tests = [review(label, WORDS, rng) for label in [0, 1] * max(2, args.count // 4)]
gold = torch.tensor([WORDS.index(word) for _, word in tests])
ORDERS = [order for order in itertools.permutations(range(4))  # each pattern of labels twice
          if (order.index(0) < order.index(1)) == (order.index(2) < order.index(3))]
sets = [[review(label, WORDS, rng) for label in (0, 0, 1, 1)] for _ in range(5)]
contexts = [[chosen[place] for place in order] for chosen in sets for order in ORDERS]  # 60
for ones in (0, 1, 3, 4) * 5:  # and 20 one-sided sets
    shuffled = rng.sample([1] * ones + [0] * (4 - ones), 4)
    contexts.append([review(label, WORDS, rng) for label in shuffled])


def read(demonstrations):
    """The labels' probabilities, for the tests (N, 2) and for content-free inputs (3, 2)."""
    inputs = [text for text, _ in tests] + list(CONTENT_FREE)
    prompts = [few_shot_prompt(demonstrations, text, template=probes.SENTIMENT_TEMPLATE)
               for text in inputs]  # fmt: skip
    probabilities = score_choices(small, prompts, WORDS).logprobs.softmax(-1)
    return probabilities.split((len(tests), len(CONTENT_FREE)))


readings = [read(demonstrations) for demonstrations in progress(contexts, "contexts")]

# %% [markdown]
# With so few test reviews, some spread is luck: the best of twelve numbers is high by chance too. So choose the best
# and the worst order on some of the reviews, and compare these two on the *others*, which had no say in the choice.

# %% ex="2.11" title="The best and the worst order" points=2 minutes=8 difficulty="medium"
def order_gap(hits, chosen):
    """How much the best order beats the worst, on reviews that had no say in which these are.

    hits (N, T), 1.0 where order n judges review t rightly, else 0.0; chosen (T,) bool, the
    reviews on which the best and the worst order are picked. Returns the difference of the
    accuracies of these two orders on the other reviews, a number.
    """
    # BEGIN SOLUTION
    picking = hits[:, chosen].mean(1)
    best = picking.argmax()
    worst = picking.argmin()
    fresh = hits[:, ~chosen].mean(1)
    return (fresh[best] - fresh[worst]).item()
    # END SOLUTION

# %% ex="2.11" role="check"
order_gap = check("2.11", order_gap)

# %% [markdown] ex="2.11" role="hints"
# <details><summary>Hint 1</summary>`hits[:, chosen]` are the columns where `chosen` is true, `hits[:, ~chosen]` the
# others. Each order has an accuracy on both.</details>
# <details><summary>Hint 2</summary>`argmax()` and `argmin()` of the first give two rows; subtract the second's
# accuracies of these rows.</details>

# %%
def hits_of(found):
    return torch.stack([(probabilities.argmax(1) == gold).float() for probabilities in found])


def gaps_of(hits):
    """The gap of each set of twelve orders, in points of a hundred."""
    half = torch.arange(len(tests)) % 4 < 2  # every second pair: one review of each label
    return over_seeds([100 * order_gap(some, half) for some in hits.split(12)])


before = [probabilities for probabilities, _ in readings]
raw = hits_of(before[:60])
for index, each in enumerate(raw.mean(1).split(12)):
    print(f"set {index}, twelve orders: accuracy {each.min():.2f} to {each.max():.2f}")
print(f"best less worst, on fresh reviews, over the sets: {gaps_of(raw)} points")
guesses.reveal("points_moved_by_the_order", gaps_of(raw).mean)

# %% [markdown]
# ## What the bias is made of
# Two suspects: **majority-label bias**, towards the label shown more often, and **recency bias**, towards the label
# shown last. In a balanced set the majority says nothing, so the places show recency alone: how does the share of
# predictions *right* (0.5 would be right) move when the label at one place turns from *left* to *right*?

# %% ex="2.12" title="The pull of a label" points=2 minutes=8 difficulty="medium"
def label_pull(labels, shares):
    """For each place: the mean share where the label there is 1, minus that where it is 0.

    labels: one list per context, of 1 or 0 at each place; shares: one number per context.
    Returns one number per place, the first demonstration's first.
    """
    # BEGIN SOLUTION
    pulls = []
    for place in range(len(labels[0])):
        ones = [share for row, share in zip(labels, shares) if row[place] == 1]
        zeros = [share for row, share in zip(labels, shares) if row[place] == 0]
        pulls.append(sum(ones) / len(ones) - sum(zeros) / len(zeros))
    return pulls
    # END SOLUTION

# %% ex="2.12" role="check"
label_pull = check("2.12", label_pull)

# %% [markdown] ex="2.12" role="hints"
# <details><summary>Hint 1</summary>One place at a time: split the contexts into two groups by the label at that place,
# and compare the groups' means.</details>
# <details><summary>Hint 2</summary>The groups may differ in size, so take two means, not one sum.</details>

# %%
labels = [[WORDS.index(word) for _, word in context] for context in contexts]


def leaning(found):
    """The share of tests for which the second label is predicted, for each context."""
    return [(probabilities.argmax(1) == 1).float().mean().item() for probabilities in found]


def pulls_of(shares):
    """The pull of each place over the balanced sets, with an interval over the five sets."""
    each = [label_pull(labels[start : start + 12], shares[start : start + 12])
            for start in range(0, 60, 12)]  # fmt: skip
    return [over_seeds(values) for values in zip(*each)]


shares = leaning(before)
for place, pull in enumerate(pulls_of(shares), 1):
    print(f"place {place}: pull of its label {pull}")
for ones in range(5):
    some = [share for row, share in zip(labels, shares) if sum(row) == ones]
    print(f"{ones} of 4 are {WORDS[1]!r}: predicted {statistics.mean(some):.2f} of the time")

# %% [markdown]
# **What you saw.** [C07] Nothing but the order of four reviews moves pocket-s between chance and 0.93: 33 points
# between the best and the worst order, on reviews that did not choose them. **Recency**: a label shown last gains
# 0.31 of the predictions, one shown first loses 0.23. (In a balanced set the four pulls sum to zero by design: they
# compare places with each other.) **Majority**: with no *right* among four it is never predicted, with four in 0.69
# of the cases. Only 20 sets are one-sided, so take these shares as a direction. A larger model need not do this,
# pocket-m does not; lesson 14 tests a real one.

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

# %% ex="2.13" title="Contextual calibration" points=2 minutes=8 difficulty="medium"
def calibrated(probabilities, content_free):
    """Divide by the mean content-free probabilities, then let every row sum to 1 again.

    probabilities (B, C) tensor, content_free (N, C) tensor -> (B, C) tensor.
    """
    # BEGIN SOLUTION
    bias = content_free.mean(0)
    weighted = probabilities / bias
    return weighted / weighted.sum(1, keepdim=True)
    # END SOLUTION

# %% ex="2.13" role="check"
calibrated = check("2.13", calibrated)

# %% [markdown] ex="2.13" role="hints"
# <details><summary>Hint 1</summary>Three steps: average the rows of `content_free`; divide every row of `probabilities`
# by that; normalise each row.</details>
# <details><summary>Hint 2</summary>`x.mean(0)` averages over rows, `x.sum(1, keepdim=True)` sums within a row and keeps
# the shape for the division.</details>

# %%
after = [calibrated(*reading) for reading in readings]
PARTS = {"60 orders, balanced": slice(60), "20 one-sided sets": slice(60, None)}
for (name, part), step in itertools.product(PARTS.items(), ("before", "after")):
    each = hits_of((after if step == "after" else before)[part]).mean(1)
    print(f"{name} {step:6s} accuracy {each.mean():.2f}, from {each.min():.2f} to "
          f"{each.max():.2f}, standard deviation {100 * each.std():.0f} points")  # fmt: skip
print(f"best less worst order, after calibration: {gaps_of(hits_of(after[:60]))} points")

# %%
figure, axes = pyplot.subplots(1, 3, figsize=(8, 2.8), layout="constrained")
for panel, (title, part) in zip(axes, PARTS.items()):
    panel.plot((0, 1), [hits_of(found[part]).mean(1) for found in (before, after)], "-o",
               color="gray", alpha=0.5, linewidth=0.8, markersize=3)  # fmt: skip
    panel.axhline(0.5, color="black", linestyle=":", linewidth=1)
    panel.set(title=title, xlabel="calibration", ylim=(0.38, 1.02), xlim=(-0.3, 1.3))
    panel.set_xticks((0, 1), ("before", "after"))
axes[0].set(ylabel="accuracy, 4 demonstrations")
figures.bars(axes[2], ["1", "2", "3", "4"], pulls_of(shares), 0, groups=2)
figures.bars(axes[2], ["1", "2", "3", "4"], pulls_of(leaning(after)), 1, groups=2)
axes[2].axhline(0, color="black", linewidth=0.8)
axes[2].set(title="Recency: pull of a label", xlabel="place (4 = last)")
axes[2].legend(axes[2].containers[1::2], ("before", "after"), fontsize=8)
show(figure, alt="Left and middle: accuracy of each order and of each one-sided set before "
     "and after calibration; dotted: chance. Right: the pull of the label at each place, "
     + ", ".join(f"{x.mean:+.2f}" for x in pulls_of(shares)) + "; after calibration "
     + ", ".join(f"{x.mean:+.2f}" for x in pulls_of(leaning(after))))  # fmt: skip

# %% [markdown]
# **What you saw.** [C07] Calibration helps on average, by three points over the orders and by five over the one-sided
# sets, and takes a third off the pull of the last label. It does not repair the order: the spread stays (14 points
# before and after, over the orders), and the best order still beats the worst by 39 points, for the good orders gain at
# least as much as the bad ones. Zhao et al. found more on GPT-3. It does shrink the spread where one lean is shared by
# all inputs, as for pocket-m with nonsense labels: `probes.order_spread(lm)` gives the accuracy of 24 sets before and
# after.
#
# ## Recap
# - A few-shot prompt is a list that the model goes on with. It says **which** task is meant; no weight changes.
# - Where the bare form is ambiguous, demonstrations move the probability to the rules that fit, as Bayes' rule would.
# - They can also carry what no weight holds: labels invented for this prompt. A few heads look them up, and without
#   these heads they are lost. That takes more examples, and a model that is large and trained enough.
# - Whether wrong labels are followed depends on whether the weights have an opinion of their own.
# - Accuracy may depend on the choice and the order of the examples. Measure over several; report the spread.
# - An interval counts questions, not attempts.
#
# ## Try next
# - `--model pocket-l` and `--model pocket-s`: which curves move, which heads look, and which stay?
# - `add` (`relations.EVALUATED["add"]`) asks about numbers up to 60, where the lists of the corpus end at 40. What does
#   the model do behind the end?
# - Zero is an output that the model never saw. Put the head's mean over a hundred prompts there instead of zero.
# - Lesson 14 asks a real model of 135 million weights: there the order of sentiment examples matters as well.
#
# ## References
# - Radford et al. (2019), *Language Models are Unsupervised Multitask Learners* (translation by demonstration).
# - Brown et al. (2020), *Language Models are Few-Shot Learners* (more shots, larger models).
# - Zhao et al. (2021), *Calibrate Before Use* (order, recency, majority label, contextual calibration).
# - Xie et al. (2022), *An Explanation of In-context Learning as Implicit Bayesian Inference* (the posterior over
#   tasks).
# - Olsson et al. (2022), *In-context Learning and Induction Heads* (heads that copy what came after a match).
# - Chan et al. (2022), *Data Distributional Properties Drive Emergent In-Context Learning in Transformers* (which
#   training data lead to it: bursts and many rare classes).
# - Min et al. (2022), *Rethinking the Role of Demonstrations* (random labels). Wei et al. (2023), *Larger Language
#   Models Do In-Context Learning Differently* (labels turned round).
# - Wilson (1927), *Probable Inference, the Law of Succession, and Statistical Inference* (the interval).
