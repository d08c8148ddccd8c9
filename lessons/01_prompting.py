# Lesson 01: what a base model does with a question, and how to get an answer out of it without training it.

# %% [markdown]
# # 01 · Prompting: continuing is not answering
#
# A pretrained language model has read that Nairobi is the capital of Kenya, and still does not say so when you ask.
# In this lesson you see why, and you get the same knowledge out by writing the beginning of a text whose continuation
# *is* the answer. You write the two tools of the trade yourself, an evaluation loop and the scores of choices from raw
# logits, measure how far a result hangs on the words you happened to choose, and enter a prompt of your own in a
# contest.
# *(Lecture: "How do we tell the LM what we want to do?" and "adapt the task to a native language modeling task";
# claims C02–C04.)* About 110 minutes, 85 of them for the exercises; runs in 60 s on two CPU cores.
#
# **You will need** lesson 00: a language model is a next-token distribution $p_\theta(x_t \mid x_{<t})$.
# **You will be able to** write a cloze prompt and a verbalizer, score answers by their log-probability, choose a prompt
# honestly, and say how far a result depends on the wording.
#
# To change a knob in a notebook, change a default in the cell with `arguments`, and run all cells again.

# %%
from ptlearn.course.session import arguments, show  # first: from here on, Ctrl-C is one line

import math
import random
import re

import matplotlib.pyplot as plt
import torch

from ptlearn.course.exercise import check
from ptlearn.course.predictions import predict
from ptlearn.figures import COLORS, bars
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import rouge_l, score_choices
from ptlearn.lm.text import complete, completions, encode, sample_text
from ptlearn.pocket import corpus, relations, tales, world
from ptlearn.pocket.probes import french_nouns
from ptlearn.statistics import accuracy, wilson  # fmt: skip

# %%
args = arguments(
    "Prompting a base language model: questions, cloze prompts, scores of choices, wordings.",
    model=("pocket-m", "pocket-s, pocket-m, pocket-l, a folder or hub id: Qwen/Qwen2.5-0.5B"),
    reviews=(200, "reviews to classify, half of them positive", "at least 20"),
    stories=(80, "stories to sum up", "at least 2"),
    seed=(0, "of the reviews, the stories and all sampling", "at least 0"),
)
torch.set_grad_enabled(False)  # nothing is trained in this lesson
lm = load_lm(args.model)
facts = relations.stated("capital")  # (country, capital): all that the pocket corpus states
print(f"{args.model}; {len(facts)} capitals, such as {dict(facts)['Kenya']!r} for Kenya")

# %% [markdown]
# ## Predict first
#
# The model was trained on text that states these capitals again and again, in sentences like *The capital of Kenya is
# Nairobi.* No weight changes in this lesson; only the prompt does. Type over the dots:
#
# 1. Of a hundred prompts *What is the capital of X?*, how many are continued by text that names the capital?
# 2. Of a hundred prompts *The capital of X is*, how many?
# 3. Say *The capital of X is* in a dozen other ways that a person finds just as clear. How far apart are the shares
#    right of the best and the worst?

# %%
guesses = predict(
    question_names_it=...,  # of a hundred
    cloze_names_it=...,  # of a hundred
    best_minus_worst=...,  # a difference of shares, 0 to 1
)

# %% [markdown]
# ## Ask
#
# First the lecture's example: greedy decoding, then three samples. Then put **your own question** in its place.

# %%
def ask(prompt):
    """The greedy continuation of a prompt and three samples, 24 tokens each."""
    print(prompt)
    rollout = sample_text(lm, [prompt] * 3, max_new_tokens=24, seed=args.seed)
    greedy = complete(lm, [prompt], max_new_tokens=24, stop=())
    for text in (*greedy, *completions(lm, rollout)):
        print("   ...", " / ".join(text.strip().splitlines())[:85])


ask("What is the capital of Kenya?")

# %%
my_question = "Where is the nearest beach?"  # type your own, run the cell again and again
ask(my_question)

# %% [markdown]
# It goes on as the *document* would go on. A text that starts with a question is, in its corpus, a quiz sheet or a
# list of search queries. Nobody answers there, so $p_\theta$ has no reason to. The lecture's LLaMA-2 70B does the same:
# it repeats the question and turns to an article about Kenya.
#
# One example proves little. Ask about every country, and judge the continuations. A judge is code, and code has
# mistakes: an earlier version of this lesson counted *Guinea-Bissau* as naming *Bissau*.

# %% ex="1.1" title="Judging a continuation" points=1 difficulty="easy" minutes=8
def kind_of(text, capital):
    """What a continuation does; the first that holds of

    "names the capital": the capital stands anywhere in it, as whole words with these capital
                         letters. Letters, digits, _ and the hyphen make words: neither
                         "Tunisia" nor "Guinea-Bissau" names Tunis or Bissau;
    "asks on": it contains a question mark, or "What is" of a question that is cut off;
    "ends": nothing but white space;
    "goes on": anything else.
    """
    # BEGIN SOLUTION
    if re.search(rf"(?<![\w-]){re.escape(capital)}(?![\w-])", text):
        return "names the capital"
    if "?" in text or "What is" in text:
        return "asks on"
    if not text.strip():
        return "ends"
    return "goes on"
    # END SOLUTION

# %% ex="1.1" role="check"
kind_of = check("1.1", kind_of)

# %% [markdown] ex="1.1" role="hints"
# <details><summary>Hint 1</summary>In a regular expression <code>(?&lt;!x)</code> says that no x stands before, and
# <code>(?!x)</code> that none follows; <code>re.escape</code> takes a name literally.</details>
# <details><summary>Hint 2</summary>Surround the escaped name with <code>(?&lt;![\w-])</code> and
# <code>(?![\w-])</code>; the other kinds need only <code>in</code> and <code>strip</code>.</details>

# %%
named_by_question = {}
for name, ending in (("a space follows", ""), ("a line break follows", "\n")):
    asked = [f"What is the capital of {country}?{ending}" for country, _ in facts]
    greedy = complete(lm, asked, max_new_tokens=24, stop=())
    sampled = completions(lm, sample_text(lm, asked, max_new_tokens=24, seed=args.seed))
    for way, texts in (("greedy", greedy), ("sampled", sampled)):
        kinds = [kind_of(text, capital) for text, (_, capital) in zip(texts, facts)]
        named_by_question[way] = accuracy(kind == "names the capital" for kind in kinds)
        print(f"{name:21s} {way:8s}", {kind: kinds.count(kind) for kind in sorted(set(kinds))},
              "names it:", named_by_question[way])  # fmt: skip
guesses.reveal("question_names_it", 100 * named_by_question["sampled"].mean)

# %% [markdown]
# **What you saw.** 157 distinct countries, four ways to ask, and no answer [C02]: the continuations are more questions.
# The interval (in brackets) is Wilson's: even a count of zero leaves room for two percent.
#
# Two things to be fair about. The pocket corpus was *written* so that questions go unanswered; the web has pages of
# questions with their answers, and a model of the web answers a few (7 % of such prompts in lesson 14). And a
# continuation that names no capital is no proof of ignorance, which is the next point.
#
# ## The same facts in the model's own tongue
#
# The lecture's way out is to *adapt the task to a native language modeling task*. The corpus contains statements, so
# turn the question into a statement and cut it off where the answer would stand: a **cloze** prompt
# (Petroni et al., 2019, asked BERT for facts that way).
#
# Two traps. A left-to-right model sees only $x_{<t}$, so the answer has to come *last*: *"\_\_\_ is the capital of
# Kenya"* is no use. And the space belongs to the word that follows it (lesson 00), so a prompt must not spend it:

# %%
for text in ("The capital of Kenya is", "The capital of Kenya is "):
    continued = complete(lm, [text], max_new_tokens=8, stop=("\n", "."))
    print(lm.tokenizer.tokenize(text), continued)

# %% ex="1.2" title="A cloze prompt" points=1 difficulty="easy" minutes=4
def cloze(statement, name):
    """The prompt that a statement makes: with the country, cut off where the answer starts.

    statement: {name} somewhere before {value}, such as "The capital of {name} is {value}."
    name: the country -> "The capital of Kenya is", without white space at its end.
    """
    # BEGIN SOLUTION
    before_the_answer = statement.partition("{value}")[0]
    return before_the_answer.replace("{name}", name).rstrip()
    # END SOLUTION

# %% ex="1.2" role="check"
cloze = check("1.2", cloze)

# %% [markdown] ex="1.2" role="hints"
# <details><summary>Hint 1</summary>Everything from <code>{value}</code> on goes, also what stands behind it;
# <code>str.partition</code> or <code>str.split</code> cuts a text at a given piece.</details>
# <details><summary>Hint 2</summary>Cut first, then fill in the name, then remove the white space at the end with
# <code>rstrip</code>.</details>

# %% [markdown]
# Now the loop that every measurement of prompts needs: write the prompts, let the model continue all of them at once,
# compare, and *keep the misses*, because reading them is how prompts get better.

# %% ex="1.3" title="The evaluation loop" points=2 difficulty="medium" minutes=10
def evaluate(generate, prompts, answers):
    """Which prompts the model continues with their answer, and what it wrote for the others.

    generate(prompts) -> the continuations, a list of texts; call it once, with all prompts.
    A continuation is right when its first words are the words of the answer, capital letters
    included. A word is what re.findall("[^\\W_]+", text) finds: letters and digits, so white
    space, hyphens and full stops do not count.
    Returns {"rights": a list of bool, "misses": prompt + continuation of each that was wrong}.
    """
    # BEGIN SOLUTION
    word = "[^\\W_]+"
    rights, misses = [], []
    for prompt, text, answer in zip(prompts, generate(prompts), answers):
        wanted = re.findall(word, answer)
        right = re.findall(word, text)[: len(wanted)] == wanted
        rights.append(right)
        if not right:
            misses.append(prompt + text)
    return {"rights": rights, "misses": misses}
    # END SOLUTION

# %% ex="1.3" role="check"
evaluate = check("1.3", evaluate)

# %% [markdown] ex="1.3" role="hints"
# <details><summary>Hint 1</summary>Compare lists of words: as many words of the continuation as the answer
# has.</details>
# <details><summary>Hint 2</summary>Walk over <code>zip(prompts, generate(prompts), answers)</code>.</details>

# %%
def share_right(statement, pairs, lm=lm):
    """Share of (country, answer) pairs that the cloze of a statement gets right."""
    prompts = [cloze(statement, name) for name, _ in pairs]
    found = evaluate(
        lambda texts: complete(lm, texts, max_new_tokens=10),
        prompts,
        [answer for _, answer in pairs],
    )
    return accuracy(found["rights"]), found["misses"]


held_out = [(country.name, country.capital) for country in world.COUNTRIES
            if world.is_held_out(f"capital|{country.name}")]  # fmt: skip
cloze_share, _ = share_right("The capital of {name} is {value}.", facts)
unknown_share, misses = share_right("The capital of {name} is {value}.", held_out)
print("cloze:", cloze_share)
print("facts never stated:", unknown_share, *misses[:5], sep="\n   ")
guesses.reveal("cloze_names_it", 100 * cloze_share.mean)

# %%
figure, axes = plt.subplots(figsize=(5, 3))
names = ["question,\ngreedy", "question,\nsampled", "cloze", "cloze, fact\nnever stated"]
bars(axes, names, [*named_by_question.values(), cloze_share, unknown_share])
axes.set(title="The same weights, asked and completed", ylabel="share right", ylim=(0, 1.05))
show(figure, alt=f"Share right: question {named_by_question['greedy'].mean:.0%}, cloze "
     f"{cloze_share.mean:.0%}, facts never stated {unknown_share.mean:.0%}.")  # fmt: skip

# %% [markdown]
# **What you saw.** The same weights, the same facts, and from none to all [C03]. The corpus never states the
# capital of a few countries, by design, and there the same prompt fails: the model names *some* word in the same fluent
# sentence. **A prompt elicits, it does not teach.** The last bar stands on few countries, so its interval is wide. The
# false capitals are the first hallucinations of this course: nothing in the text marks them as guesses.
#
# ## Scores of choices, from raw logits
#
# The model gives a probability to any answer $y$ after any prompt $x$, also to answers it would not write:
# $$\log p_\theta(y \mid x) = \sum_i \log p_\theta(y_i \mid x, y_{<i}).$$
# With it a base model can do multiple choice: score every choice, take the best. You build it in three steps.

# %% ex="1.4" title="Log-probabilities of tokens" points=2 difficulty="medium" minutes=8
def token_logprobs(logits, tokens):
    """log p(x_t | x_<t) of every token: (B, T), with 0 for the first, which nothing predicts.

    logits (B, T, V): those at place t are about the token at place t + 1. tokens (B, T).
    """
    # BEGIN SOLUTION
    logprobs = logits[:, :-1].log_softmax(-1)
    following = tokens[:, 1:, None]
    each = logprobs.gather(-1, following)[..., 0]
    first = each.new_zeros(len(each), 1)
    return torch.cat([first, each], dim=1)
    # END SOLUTION

# %% ex="1.4" role="check"
token_logprobs = check("1.4", token_logprobs)

# %% [markdown] ex="1.4" role="hints"
# <details><summary>Hint 1</summary>Drop the last place of the logits and the first token: then they are
# aligned.</details>
# <details><summary>Hint 2</summary><code>table.gather(-1, index[..., None])[..., 0]</code> takes one entry of each
# row; put a column of zeros in front with <code>torch.cat</code>.</details>

# %%
for prompt in ("What is the capital of Kenya?", "The capital of Kenya is"):
    tokens = torch.tensor(encode(lm, [prompt + " Nairobi"]))
    last = token_logprobs(lm(tokens), tokens)[0, -4:].tolist()
    pieces = lm.tokenizer.tokenize(" Nairobi")
    print(f"{prompt:30s}", {piece: round(value, 2) for piece, value in zip(pieces, last)})

# %% [markdown]
# **What you saw.** The difference sits at the *start* of the name: after the question a capital is not what comes next.
# Once the name is under way, the rest follows almost by itself, under either prompt.

# %% ex="1.5" title="A row for each choice" points=2 difficulty="medium" minutes=10
def rows_of(prompt, choices):
    """One row of tokens a choice: the prompt, the choice, then zeros up to the longest row.

    prompt: a list of token ids. choices: lists of token ids.
    Returns tokens (C, T), and a mask (C, T) that is True where a token of the choice stands.
    """
    # BEGIN SOLUTION
    length = len(prompt) + max(len(choice) for choice in choices)
    tokens = torch.zeros(len(choices), length, dtype=torch.long)
    mask = torch.zeros(len(choices), length, dtype=torch.bool)
    for row, choice in enumerate(choices):
        end = len(prompt) + len(choice)
        tokens[row, :end] = torch.tensor(prompt + choice)
        mask[row, len(prompt) : end] = True
    return tokens, mask
    # END SOLUTION

# %% ex="1.5" role="check"
rows_of = check("1.5", rows_of)

# %% [markdown] ex="1.5" role="hints"
# <details><summary>Hint 1</summary>Padding on the right is harmless in a causal model: no token sees what comes after
# it. But 0 is also the number of a token, so the mask must go by lengths.</details>
# <details><summary>Hint 2</summary>Start from <code>torch.zeros</code> of both kinds and fill each row by
# slices.</details>

# %% ex="1.6" title="Scores of choices" points=3 difficulty="hard" minutes=15
def choice_scores(network, encode, prompts, choices):
    """log p(choice | prompt) of every choice after every prompt, in nats.

    network(tokens (R, T)) -> logits (R, T, V). encode(text) -> a list of token ids. A space
    joins prompt and choice; it belongs to the choice's first token.
    Returns {"sum": (B, C), over the choice's tokens; "mean": (B, C), divided by their number}.
    """
    # BEGIN SOLUTION
    endings = [encode(" " + choice) for choice in choices]
    sums = []
    for prompt in prompts:
        tokens, mask = rows_of(encode(prompt), endings)
        logprobs = token_logprobs(network(tokens), tokens)
        sums.append(torch.where(mask, logprobs, 0).sum(1))
    lengths = torch.tensor([len(ending) for ending in endings])
    total = torch.stack(sums)
    return {"sum": total, "mean": total / lengths}
    # END SOLUTION

# %% ex="1.6" role="check"
choice_scores = check("1.6", choice_scores)

# %% [markdown] ex="1.6" role="hints"
# <details><summary>Hint 1</summary>For each prompt: rows, one call of the network, log-probabilities of the tokens,
# those under the mask added up.</details>
# <details><summary>Hint 2</summary>Collect one vector of sums for each prompt and <code>torch.stack</code> them. The
# mean divides by the choice's own number of tokens, not by the length of the row.</details>

# %%
def ids(text):
    return encode(lm, [text], bos=False)[0]


def network(tokens):
    """Logits (B, T, V) of rows read after the begin-of-text token, if there is one."""
    begin = torch.tensor(encode(lm, ["a"])[0][: -len(ids("a"))], dtype=torch.long)
    return lm(torch.cat([begin.expand(len(tokens), -1), tokens], 1))[:, len(begin) :]


quiz = random.Random(args.seed).sample(facts, 80)
questions = [f"What is the capital of {name}?" for name, _ in quiz]
capitals = [capital for _, capital in quiz]
scores = choice_scores(network, ids, questions, capitals)
package = score_choices(lm, questions[:8], capitals).logprobs
difference = (scores["sum"][:8] - package).abs().max()
print(f"largest difference to the package's: {difference:.0e} nats")

# %% [markdown]
# ### What does the length do to the choice?
#
# Above are eighty countries, and their capitals as choices after the plain *question*, the prompt that got no answers.
# The sum puts long names at a disadvantage, since each further token adds a negative number; the **mean per token** is
# the common repair. A third score is the sum minus the log of the **prior**,
# $\bar p(y) = \frac{1}{n} \sum_j p_\theta(y \mid x_j)$, over all $n$ questions: how likely is the name whichever
# country is meant? The difference is a pointwise mutual information (Holtzman et al., 2021). It needs a batch of
# questions, but none of their answers.

# %% ex="1.7" title="The prior taken out" points=1 difficulty="easy" minutes=5
def without_prior(logprobs):
    """log p(y | x) minus the log of p(y | x) averaged over the prompts: (B, C) -> (B, C)."""
    # BEGIN SOLUTION
    prior = logprobs.logsumexp(0) - math.log(len(logprobs))
    return logprobs - prior
    # END SOLUTION

# %% ex="1.7" role="check"
without_prior = check("1.7", without_prior)

# %% [markdown] ex="1.7" role="hints"
# <details><summary>Hint 1</summary>The prompts are the rows, axis 0; average probabilities, not logarithms.</details>
# <details><summary>Hint 2</summary><code>logsumexp(0)</code> is the log of the sum; dividing by n subtracts
# log n.</details>

# %%
scores["prior out"] = without_prior(scores["sum"])
lengths = torch.tensor([len(ids(" " + capital)) for capital in capitals])
picks = {"truth": torch.arange(80)} | {name: table.argmax(1) for name, table in scores.items()}
for name, pick in picks.items():
    right = accuracy((pick == picks["truth"]).tolist())
    print(f"{name:10s} right {right}, tokens per pick {lengths[pick].float().mean():.1f}")

# %%
figure, axes = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
axes.set(xlabel="length of the capital (tokens)", ylabel="share of the picks", ylim=(0, 1.05))
for index, (name, pick) in enumerate(picks.items()):
    groups = [lengths[pick] <= 2, lengths[pick] == 3, lengths[pick] == 4, lengths[pick] >= 5]
    shares = [accuracy(group.tolist()) for group in groups]
    bars(axes, ["1–2", "3", "4", "5 or more"], shares, index, groups=4)
    axes.patches[-1].set_label(name)
figure.legend(loc="outside upper center", ncols=4, fontsize=8)
show(figure, alt="Share of picks by length of the name, for the truth and three scores: the "
     "mean per token picks almost only names of five tokens or more.")  # fmt: skip

# %% [markdown]
# **What you saw.** The sum hardly favours short names here. The mean per token, meant to help the long ones, picks
# almost nothing else: once a long name has begun, its later pieces are nearly certain, and those cheap tokens lift the
# mean. The sum goes wrong by choosing the few names that are likely after *any* question. With this prior taken out
# most answers are right, from the very prompt that got none: even there the knowledge is in $p_\theta$. (No score is
# best everywhere. Here each answer belongs to exactly one question, which suits the prior.)
#
# ## Sentiment by verbalizer
#
# The lecture's second example: *[movie review] This movie is [great/awful].* A **verbalizer** maps words to labels
# (Schick and Schütze, 2021): read the next-token distribution at the gap, look at the label words alone, and
# renormalise. Several words may speak for a label; then their probabilities add up.

# %% ex="1.8" title="A verbalizer" points=2 difficulty="medium" minutes=8
def label_probabilities(logits, encode, verbalizer):
    """p(label | prompt), normalised over the labels: (B, L), each row sums to 1.

    logits (B, V): the next-token logits after B prompts, of any size. encode(text) -> ids.
    verbalizer: for each label a list of words, such as [["great", "good"], ["awful"]]; each
    word, as in running text, is one token.
    """
    # BEGIN SOLUTION
    groups = []
    for words in verbalizer:
        columns = [encode(" " + word)[0] for word in words]
        groups.append(logits[:, columns].logsumexp(1))
    return torch.stack(groups, dim=1).softmax(1)
    # END SOLUTION

# %% ex="1.8" role="check"
label_probabilities = check("1.8", label_probabilities)

# %% [markdown] ex="1.8" role="hints"
# <details><summary>Hint 1</summary>The prompt ends in "is", so what follows is not "great" but " great": another
# token.</details>
# <details><summary>Hint 2</summary>The log of a sum of exponentials of a label's logits is the label's own logit;
# a softmax over the labels does the rest.</details>

# %% [markdown]
# The reviews have five statements, of which none, one or two disagree with the others; the majority decides. Read them
# in the native form and after the question, through eight pairs of label words: verdicts that reviews use; labels that
# the corpus uses elsewhere; **mixed** pairs, of words from different pairs; and *red/blue*.

# %%
def review(rng, positive, against):
    """(text, what it is about): five statements, `against` of them of the other polarity."""
    about, sides = rng.choice(tales.ABOUT), ["negative", "positive"]
    kinds = [sides[positive]] * (5 - against) + [sides[not positive]] * against
    rng.shuffle(kinds)
    return " ".join(tales.opinion(rng, kind, about, 1) for kind in kinds), about


rng = random.Random(f"reviews:{args.seed}")
positive = torch.arange(args.reviews) % 2 == 0
reviews = {k: [review(rng, label, k) for label in positive.tolist()] for k in (0, 1, 2)}
FRAMES = {"native": " This {} is", "asked": " Is this review positive or negative? It is"}


def next_logits(frame, items):
    """Next-token logits (B, V) after each review."""
    prompts = [text + FRAMES[frame].format(about) for text, about in items]
    return torch.stack([lm(torch.tensor([tokens]))[0, -1] for tokens in encode(lm, prompts)])


def share_positive_right(table):
    return accuracy(((table[:, 0] > table[:, 1]) == positive).tolist())


# %%
logits = {(frame, k): next_logits(frame, reviews[k]) for frame, k in
          (("native", 0), ("native", 1), ("native", 2), ("asked", 0))}  # fmt: skip
for (frame, against), table in logits.items():
    share = share_positive_right(label_probabilities(table, ids, [["great"], ["awful"]]))
    print(f"{frame}, {against} of 5 statements disagree: {share}")

# %%
PAIRS = ("great awful", "good bad", "positive negative", "yes no",
         "great negative", "yes bad", "happy awful", "red blue")  # fmt: skip
by_words = {frame: {} for frame in FRAMES}
print(f"{'':26s}raw                        prior taken out")
for frame in FRAMES:
    for pair in PAIRS:
        verbalizer = [[word] for word in pair.split()]
        table = label_probabilities(logits[frame, 0], ids, verbalizer).log()
        raw, fair = share_positive_right(table), share_positive_right(without_prior(table))
        by_words[frame][pair] = raw, fair
        print(f"{frame:7s} {pair:18s}{raw} {fair}")

# %%
figure, rows = plt.subplots(2, figsize=(5.6, 4.8), sharex=True, layout="constrained")
for axes, frame in zip(rows, FRAMES):
    for index, name in enumerate(("raw", "prior taken out")):
        names = [pair.replace(" ", "/\n") for pair in PAIRS]
        bars(axes, names, [both[index] for both in by_words[frame].values()], index, groups=2)
        axes.patches[-1].set_label(name if axes is rows[0] else None)
    axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axes.set(title=f"[review]{FRAMES[frame].format('movie')} ...", ylim=(0, 1.05))
    axes.set_ylabel("accuracy")
    axes.tick_params(axis="x", labelsize=7)
figure.legend(loc="outside lower center", ncols=2, fontsize=8)
show(figure, alt="Accuracy of sentiment by label words, in two frames, raw and corrected.")

# %% [markdown]
# **What you saw.** In its native form the model reads the sentiment of clear reviews without a mistake, even with a
# statement that disagrees; at three against two it is right on three of four [C03]. Asked with the very same words it
# is at chance. The words matter, too [C04]:
#
# * **The prior of the words.** After the question raw accuracy is often 0.50: one and the same label for every review.
#   Taking out the prior, which needs a batch of reviews with about as many good as bad ones but no labels (Zhou et al.,
#   2024), lifts it to 0.8 and more. The same repairs *great/negative*, a pair of words that compete unequally. The
#   knowledge was there; the raw comparison hid it.
# * **Surface-form competition** (Holtzman et al., 2021). One source of such priors: *great*, *wonderful* and
#   *good* share one probability mass, so a word can be a right answer and still have little of it.
# * **No meaning.** Nothing says which of *red* and *blue* is the good one. In the native form the pair is wrong on all
#   200 reviews, so it is a *perfect* classifier with its labels exchanged: the model separates the reviews, and only
#   the names of the two sides are an accident. One labelled review would tell; no correction without labels can.
#
# Would you have known beforehand which frame and which pair to trust? That is the limit: the choice of a prompt is made
# on labelled data, and so it is (a little) training.
#
# ## Summaries after `TL;DR:`
#
# GPT-2's authors found that `TL;DR:` after an article makes the model sum it up, because that is what stands behind
# these letters on the web (Radford et al., 2019). In the pocket corpus some stories end so, too. **ROUGE-L** (Lin,
# 2004) judges: the longest common subsequence of words as an F-measure, 0 to 1. A score without a baseline says
# nothing; ours are the story's first sentence and the summary of another story.

# %%
rng = random.Random(f"stories:{args.seed}")
stories, summaries = zip(*(tales.plot(rng) for _ in range(args.stories)))
texts = {cue: complete(lm, [f"{story}\n{cue}" for story in stories], max_new_tokens=30)
         for cue in ("TL;DR:", "Please sum up this story:")}  # fmt: skip
texts["first sentence"] = [story.partition(". ")[0] for story in stories]
texts["another summary"] = [*summaries[1:], summaries[0]]
rouge = {name: wilson(sum(map(rouge_l, found, summaries)) / len(stories), len(stories))
         for name, found in texts.items()}  # fmt: skip
for name, found in texts.items():
    print(f"{name:26s}{rouge[name]}  {found[0].strip()[:40]}")

# %% [markdown]
# **What you saw.** `TL;DR:` beats the first sentence [C03]; the request, which means the same to you, falls to the
# level of a wrong story's summary: what is left there is shared names of places and shared grammar. It is the
# *string* that carries the task. These stories follow a dozen plots, which is why a small model sums them up without
# a mistake; do not expect it of the news. And ROUGE-L rewards shared words, not truth: with the two names of a
# summary exchanged it still gives about 0.8.
#
# ## Limits: which words?
#
# The lecture asks: *what are potential limitations?* Here is one: nobody tells you which words. The corpus states
# capitals in several wordings of known frequency, so we can ask in each of them, and in some that it lacks.

# %%
total = sum(weight for weight, _ in corpus.WORDINGS["capital"])
wordings = {text: weight / total for weight, text in corpus.WORDINGS["capital"]
            if "{name}" in text.partition("{value}")[0]}  # fmt: skip
wordings |= dict.fromkeys((
    "Everyone knows that the capital of {name} is {value}", "the capital of {name} is {value}",
    "In {name} the capital is {value}", "{name} has its capital in {value}",
    "The main city of {name} is {value}", "Country: {name}\nCapital: {value}",
    "Q: What is the capital of {name}?\nA: {value}"), 0.0)  # fmt: skip
smaller = load_lm("pocket-s")
by_wording = {text: share_right(text, facts)[0] for text in wordings}
by_smaller = {text: share_right(text, facts, smaller)[0] for text in wordings}
for text in sorted(wordings, key=lambda text: -by_wording[text].mean):
    print(f"{cloze(text, 'X')!r:41s}{wordings[text]:6.1%} {by_wording[text]}",
          f"pocket-s {by_smaller[text].mean:.2f}")  # fmt: skip
means = [estimate.mean for estimate in by_wording.values()]
guesses.reveal("best_minus_worst", max(means) - min(means))

# %%
figure, axes = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
ordered = sorted(wordings, key=lambda text: by_wording[text].mean)
for place, text in enumerate(ordered):
    mean, low, high, _ = by_wording[text]
    axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", capsize=2,
                  color=COLORS[0 if wordings[text] else 1])  # fmt: skip
axes.plot([by_smaller[text].mean for text in ordered], range(len(ordered)), "kD", markersize=4)
labels = [cloze(text, "X").replace("\n", " / ") for text in ordered]
axes.set_yticks(range(len(ordered)), labels, fontsize=7)
axes.set(title="One question in many wordings\n(orange: not in corpus; diamonds: pocket-s)",
         xlabel="share of capitals right", xlim=(-0.03, 1.05))  # fmt: skip
show(figure, alt="Share of capitals right by wording of one question, from all to none.")

# %% [markdown]
# **What you saw.** The same facts, the same weights, and anything from all to nothing [C04]. Wordings that the corpus
# has work, down to one that makes up less than 1 % of its sentences; among those that it lacks some do as well and some
# fail outright, and reading them does not tell you which. Size helps with some that the smaller model fails, but it is
# no cure: formats from elsewhere (*Country: … Capital:*, *Q: … A:*), clear as they are to you, fail in both. (To be
# fair: the *main city* of a country need not be its capital.)
#
# ## The contest
#
# Your turn. The model has read 236 English nouns beside their French. Its corpus now and then asks *How do you say
# dog in French?*, and nobody answers. Write a prompt with `{input}` for the English word, at most 120 characters, so
# that the **first word** of the continuation is the French noun. The obvious ones get from 0.00 to about 0.4; far
# better ones exist. No demonstrations (no French noun of the list in the prompt): they are the next lesson. Parallel
# texts look like this:

# %%
print(corpus.parallel(random.Random(5)))
development = french_nouns(held_out=False)  # every second noun; the others decide


def development_score(template):
    """Share of the development half that a prompt gets right; prints it with a few misses."""
    prompts = [template.replace("{input}", english) for english, _ in development]
    answers = [french for _, french in development]
    found = evaluate(lambda texts: complete(lm, texts, max_new_tokens=6), prompts, answers)
    share = accuracy(found["rights"])
    misses = [repr(text[-40:]) for text in found["misses"][:2]]
    print(f"{share} {template!r}", *misses, sep="\n    ")
    return share.mean


for template in ("What is {input} in French?", "{input} =", "English: {input}\nFrench:"):
    development_score(template)

# %% [markdown]
# Choose on the development half, as often as you like; read the misses. Then run the check **once**: it scores your
# prompt with pocket-m on the other half, and the grader does the same. Points at 0.25, 0.5, 0.75 and 0.9.

# %% ex="1.9" title="The prompt contest" points=4 difficulty="hard" minutes=15
# my_prompt: a text with {input} in it; development_score(my_prompt) says how good it is
# BEGIN SOLUTION
print("best:", max([
    "the {input} =",  # an article says that it is a noun
    "English: the {input}\nFrench: le",  # the format of parallel texts, the article spent
    "English: the {input} is small\nFrench: le",  # a whole sentence, as they all are there
    "English: i see the {input}\nFrench: je vois le",
    "English: he sees the {input}\nFrench: il voit le",  # the noun comes last in both
    "English: {input} is\nFrench: le",
], key=development_score))  # fmt: skip
my_prompt = "English: the {input} is small\nFrench: le"  # the first of the best ones
# END SOLUTION

# %% ex="1.9" role="check"
my_prompt = check("1.9", my_prompt)

# %% [markdown] ex="1.9" role="hints"
# <details><summary>Hint 1</summary>What stands between the two languages in the parallel text above? And what could
# you write of the French line yourself, so that only the noun is left?</details>
# <details><summary>Hint 2</summary>The corpus has whole sentences, not single words. Put the word into a short
# sentence, and start its translation up to the article.</details>

# %% [markdown]
# The search in the solution went from the outside in: the format of the corpus, the article spent in the prompt, a
# whole sentence. Its last four prompts differ by less than their intervals on 118 nouns, so the winner's lead is partly
# luck, and the other half of the nouns is there to say what it is worth. That is all there is to prompt engineering
# done honestly: candidates from an idea of the training text, a development set, and one look at the test.
#
# ## Recap
#
# * A base model continues documents. A question is the start of a document, not a request [C02].
# * Write the start of a document whose continuation is the answer: a cloze for facts, a verbalizer for labels,
#   `TL;DR:` for summaries. A prompt elicits and cannot teach what was never read [C03].
# * Scores of choices carry the length and the prior of the words. Say which score you used.
# * The result is a property of model *and* wording, so report the spread [C04]. And choosing the best of twenty prompts
#   on the test set is training on the test set.
#
# Prompts that show *examples* are the next lesson; changing the weights so that a question is answered is lesson 03,
# which starts from the prompts you asked here.
#
# ## Try next
#
# * Other sizes: `python lessons/01_prompting.py --model pocket-s`. Does a larger model need the right words less?
# * Put `corpus.WORDINGS["language"]` and `relations.stated("language")` in place of the capitals.
# * A base model from the web: `--model Qwen/Qwen2.5-0.5B` (it needs the network once). Which of the bars change most?
#
# ## References
#
# * Radford, Wu, Child, Luan, Amodei, Sutskever (2019). *Language models are unsupervised multitask learners.*
#   (`TL;DR:`)
# * Petroni et al. (2019). *Language models as knowledge bases?* EMNLP. (facts by cloze)
# * Schick, Schütze (2021). *Exploiting cloze questions for few-shot text classification and natural language
#   inference.* EACL. (verbalizers)
# * Brown et al. (2020). *Language models are few-shot learners.* NeurIPS. (scoring choices by log-likelihood, section
#   2.4)
# * Holtzman, West, Shwartz, Choi, Zettlemoyer (2021). *Surface form competition: why the highest probability answer
#   isn't always right.* EMNLP.
# * Zhao, Wallace, Feng, Klein, Singh (2021). *Calibrate before use: improving few-shot performance of language models.*
#   ICML.
# * Zhou, Wan, Proleev, Mincu, Chen, Heller, Roy (2024). *Batch calibration: rethinking calibration for in-context
#   learning and prompt engineering.* ICLR.
# * Jiang, Xu, Araki, Neubig (2020). *How can we know what language models know?* TACL. (wordings found automatically)
# * Sclar, Choi, Tsvetkov, Suhr (2024). *Quantifying language models' sensitivity to spurious features in prompt
#   design.* ICLR.
# * Lin (2004). *ROUGE: a package for automatic evaluation of summaries.* ACL workshop.
# * Wilson (1927). *Probable inference, the law of succession, and statistical inference.* JASA 22. (the interval of a
#   share)
