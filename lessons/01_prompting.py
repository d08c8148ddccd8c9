# Lesson 01: what a base model does with a question, and how to get an answer out of it without training it.

# %% [markdown]
# # 01 · Prompting: continuing is not answering
#
# A pretrained language model has read that Nairobi is the capital of Kenya, and still does not say so when you ask.
# In this lesson you see why, and you get the same knowledge out by writing the beginning of a text whose continuation
# *is* the answer. Then you measure what that trick costs: the result hangs on the words you happened to choose.
# *(Lecture: "How do we tell the LM what we want to do?" and "adapt the task to a native language modeling task";
# claims C02–C04.)* About 55 minutes; runs in 20 s on two CPU cores.
#
# **You will need** lesson 00: a language model is a next-token distribution $p_\theta(x_t \mid x_{<t})$.
# **You will be able to** write a cloze prompt and a verbalizer, score answers by their log-probability, judge a summary
# with ROUGE-L, and say how far a result depends on the wording.

# %%
from ptlearn.course.session import arguments, show  # first: from here on, Ctrl-C is one line

import math
import random
import re

import matplotlib.pyplot as plt
import torch

from ptlearn.course.exercise import check
from ptlearn.figures import COLORS, bars
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import per_token, rouge_l, score_choices, verbalizer_ids, verbalizer_probabilities
from ptlearn.lm.text import complete, completions, encode, sample_text
from ptlearn.pocket import corpus, relations, tales, world
from ptlearn.statistics import Estimate, accuracy  # fmt: skip

# %%
args = arguments(
    "Prompting a base language model: questions, cloze prompts, verbalizers, TL;DR, and how much wording matters.",
    model=("pocket-m", "pocket-s, pocket-m, pocket-l, a folder, or a hub id such as Qwen/Qwen2.5-0.5B"),
    reviews=(300, "reviews to classify, half of them positive", "at least 20"),
    stories=(100, "stories to sum up", "at least 2"),
    seed=(0, "of the reviews, the stories and all sampling", "at least 0"),
)
torch.set_grad_enabled(False)  # nothing is trained in this lesson
lm = load_lm(args.model)
facts = relations.stated("capital")  # (country, capital): all that the pocket models' corpus states
print(f"{args.model}; {len(facts)} capitals, such as {facts[0]} and {dict(facts)['Kenya']!r} for Kenya")

# %% [markdown]
# ## Predict first
#
# The model was trained on millions of tokens of text that state these capitals again and again, in sentences
# like *The capital of Kenya is Nairobi.* No weight changes in this lesson; only the prompt does. Write down three
# numbers:
#
# 1. Of the prompts *What is the capital of X?*, what share is continued by text that names the capital?
# 2. Of the prompts *The capital of X is*, what share?
# 3. Say *The capital of X is* in a dozen other ways that a person finds just as clear. How far apart are the
#    best and the worst?
#
# ## Ask
#
# First the lecture's example. Greedy decoding takes the most likely next token, appends it, and starts over.

# %%
QUESTION = "What is the capital of Kenya?"


def continue_greedily(lm, prompt, max_new_tokens):
    """Append argmax p(x_t | x_<t), again and again, until the end token or the limit."""
    tokens = torch.tensor(encode(lm, [prompt]))  # (1, T): where the tokenizer has one, the begin-of-text token is first
    start = tokens.shape[1]
    for _ in range(max_new_tokens):
        most_likely = lm(tokens)[:, -1].argmax(-1, keepdim=True)
        if most_likely.item() in lm.end_tokens:
            break
        tokens = torch.cat([tokens, most_likely], dim=1)
    return lm.tokenizer.decode(tokens[0, start:])


print(QUESTION + continue_greedily(lm, QUESTION, 24))
assert continue_greedily(lm, QUESTION, 24) == complete(lm, [QUESTION], max_new_tokens=24, stop=())[0]

# %% [markdown]
# The package's `complete` does the same for many prompts at once. Greedy is one path; samples show the distribution.

# %%
rollout = sample_text(lm, [QUESTION] * 5, max_new_tokens=24, seed=args.seed)
for text in completions(lm, rollout):
    print("...", " / ".join(text.strip().splitlines()))

# %% [markdown]
# It goes on as the *document* would go on. A text that starts with a question is, in its corpus, a quiz sheet or a
# list of search queries, sometimes with the first lines of an article below. Nobody answers there, so $p_\theta$ has no
# reason to. The lecture's LLaMA-2 70B does the same with the same prompt: it repeats the question and turns to
# an article about Kenya.
#
# One example proves little. Ask about every country, with and without a line break behind the question, greedily
# and with a sample, and count the continuations that name the capital *anywhere* in 24 tokens, a lenient rule.

# %%
def kind_of(text, capital):
    """What a continuation does, judged leniently: naming the capital anywhere counts."""
    if capital in text:
        return "names the capital"
    if "?" in text or "What is" in text:
        return "asks on"
    return "goes on as an article" if text.strip() else "ends the document"


asked = [(f"What is the capital of {name}?{end}", capital) for end in ("", "\n") for name, capital in facts]
prompts = [prompt for prompt, _ in asked]
greedy = complete(lm, prompts, max_new_tokens=24, stop=())
sampled = completions(lm, sample_text(lm, prompts, max_new_tokens=24, seed=args.seed))
for way, texts in (("greedy", greedy), ("sampled", sampled)):
    kinds = [kind_of(text, capital) for text, (_, capital) in zip(texts, asked)]
    print(f"{way:8s}", {kind: f"{kinds.count(kind) / len(kinds):.1%}" for kind in sorted(set(kinds))})

# %%
def share_naming(texts, answers):
    """Share of texts that contain their answer, with its 95 % Wilson interval."""
    return accuracy(answer in text for text, answer in zip(texts, answers))


answers = [capital for _, capital in asked]
question_greedy, question_sampled = share_naming(greedy, answers), share_naming(sampled, answers)
print("question, greedy: ", question_greedy)
print("question, sampled:", question_sampled)

# %% [markdown]
# **What you saw.** Hundreds of questions and next to no answers [C02]: the continuations are more questions, rarely the
# first lines of an article. Compare with your first number.
# The interval (in brackets) is Wilson's: even a count of zero leaves room for a percent or so. It treats the prompts as
# independent, though each country appears twice here, so read it as slightly too narrow.
#
# Two things to be fair about. The pocket corpus was *written* so that questions go unanswered; the web is kinder, and
# recent base models, which have read many question–answer pages, answer such prompts far more often (try `--model`
# with one). And a continuation that names no capital is no proof of ignorance, which is the next point.
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
for text in ("The capital of Kenya is", "The capital of Kenya is ", "The capital of Kenya is Nairobi"):
    print(repr(text), lm.tokenizer.tokenize(text))
print(complete(lm, ["The capital of Kenya is", "The capital of Kenya is "], max_new_tokens=8, stop=("\n", ".")))

# %% [markdown]
# (`Ġ` is how the tokenizer prints a space.) A prompt that ends in a space ends in a token that hardly ever stood there
# in training, so anything may follow: the answer's own first token wants to begin with that space.

# %% ex="1.1" points=1 difficulty="easy" minutes=6
def cloze(statement, name):
    """The prompt that a statement makes: filled in with the country, and cut off where the answer starts.

    statement: a text with {name} somewhere before {value}, such as "The capital of {name} is {value}."
    name: the country -> "The capital of Kenya is", without white space at its end.
    """
    # BEGIN SOLUTION
    before_the_answer = statement.partition("{value}")[0]
    return before_the_answer.replace("{name}", name).rstrip()
    # END SOLUTION

# %% ex="1.1" role="check"
cloze = check("1.1", cloze)

# %% [markdown] ex="1.1" role="hints"
# <details><summary>Hint 1</summary>Everything from <code>{value}</code> on goes, also what stands behind it;
# <code>str.partition</code> or <code>str.split</code> cuts a text at a given piece.</details>
# <details><summary>Hint 2</summary>Cut first, then fill in the name, then remove the white space at the end with
# <code>rstrip</code>.</details>

# %%
STATEMENTS = ("The capital of {name} is {value}.", "The capital city of {name} is {value}.")


def named(statement, pairs, lm=lm):
    """For each (country, answer), whether the greedy continuation of the cloze starts with the answer."""
    texts = complete(lm, [cloze(statement, name) for name, _ in pairs], max_new_tokens=10, stop=("\n", "."))
    return [text.strip().startswith(answer) for text, (_, answer) in zip(texts, pairs)]


cloze_share = accuracy(right for statement in STATEMENTS for right in named(statement, facts))
print("cloze:", cloze_share)

# %% [markdown]
# **What you saw.** The same weights, the same facts, and from almost none to nearly all [C03]. Nothing was learned in
# between: the knowledge was there, and the prompt decided whether it came out.
#
# Does a good prompt *teach*? The corpus never states the capital of a few countries, by design
# (`world.is_held_out`). If the prompt only elicits, it must fail on those.

# %%
never_stated = [(c.name, c.capital) for c in world.COUNTRIES if world.is_held_out(f"capital|{c.name}")]
unknown_share = accuracy(right for statement in STATEMENTS for right in named(statement, never_stated))
print("cloze, facts never stated:", unknown_share)

written = complete(lm, [f"The capital of {name} is" for name, _ in never_stated], max_new_tokens=10, stop=("\n", "."))
for (name, capital), text in zip(never_stated, written):
    print(f"The capital of {name} is{text}.   (in truth {capital})")

# %%
figure, axes = plt.subplots(figsize=(5, 3))
names = ["question,\ngreedy", "question,\nsampled", "cloze", "cloze, fact\nnever stated"]
bars(axes, names, [question_greedy, question_sampled, cloze_share, unknown_share])
axes.set(title="The same weights, asked and completed", ylabel="share naming the capital", ylim=(0, 1.05))
show(figure, alt=f"Share of prompts that name the capital: question {question_greedy.mean:.0%} greedy and "
     f"{question_sampled.mean:.0%} sampled, cloze {cloze_share.mean:.0%}, cloze for facts that the corpus never states "
     f"{unknown_share.mean:.0%}.")  # fmt: skip

# %% [markdown]
# **What you saw.** Questions get (almost) no answers, cloze prompts nearly all of them, and for facts that were never
# stated the model names *some* city (or other word) in the same fluent sentence: **a prompt elicits, it does not
# teach**. The last bar stands on few countries, so its interval is wide; the direction is not in doubt. The false
# capitals are also the first hallucinations of this course: nothing in the text marks them as guesses.
#
# ## Look inside: one answer, token by token
#
# The model gives a probability to any answer $y$ after any prompt $x$, also to answers it would not write:
# $$\log p_\theta(y \mid x) = \sum_i \log p_\theta(y_i \mid x, y_{<i}).$$

# %%
def joint_logprobs(lm, prompt, choice):
    """log p(x_t | x_<t) of every token of prompt + choice (0 for the first), and the number of prompt tokens."""
    prompt_tokens, tokens = encode(lm, [prompt, f"{prompt} {choice}"])
    logprobs = lm(torch.tensor([tokens]))[0].log_softmax(-1)  # row t is about token t + 1
    return [0.0] + [logprobs[t, token].item() for t, token in enumerate(tokens[1:])], len(prompt_tokens)


for prompt in (QUESTION, "The capital of Kenya is"):
    logprobs, start = joint_logprobs(lm, prompt, "Nairobi")
    pieces = lm.tokenizer.tokenize(" Nairobi")
    print(f"{prompt:32s}", {piece: f"{logprob:.2f}" for piece, logprob in zip(pieces, logprobs[start:])}, "nats")

# %% [markdown]
# **What you saw.** The difference sits at the *start* of the name: after the question a capital is not what comes next.
# Once the name is well under way, the rest follows almost by itself, under either prompt.
#
# That also shows how to put a multiple-choice question to a base model: score every choice and take the best. But
# names differ in length, and every further token adds a negative number, so the sum favours short names. A common
# repair is the **mean per token**.

# %% ex="1.2" points=2 difficulty="medium" minutes=8
def score_per_token(logprobs, prompt_length):
    """Mean log-probability per token of a choice, in nats: (1/|y|) * sum_i log p(y_i | x, y_<i).

    logprobs: a list, log p(x_t | x_<t) for every token of prompt and choice (the first entry, 0.0, is about no token).
    prompt_length: how many of the tokens are the prompt's.
    """
    # BEGIN SOLUTION
    choice = logprobs[prompt_length:]
    return sum(choice) / len(choice)
    # END SOLUTION

# %% ex="1.2" role="check"
score_per_token = check("1.2", score_per_token)

# %% [markdown] ex="1.2" role="hints"
# <details><summary>Hint 1</summary>The entry at place t is about token t itself, so the choice's first token has the
# entry at place <code>prompt_length</code>.</details>
# <details><summary>Hint 2</summary>Leave the prompt out of the sum <em>and</em> out of the length, and average the
# logarithms, not the probabilities.</details>

# %%
choices = ["Nairobi", "Antananarivo", "Lima"]
by_hand = [score_per_token(*joint_logprobs(lm, QUESTION, choice)) for choice in choices]
scores = score_choices(lm, [QUESTION], choices)
print({choice: f"{score:.2f}" for choice, score in zip(choices, by_hand)}, "nats per token")
assert torch.allclose(torch.tensor(by_hand).float(), per_token(scores)[0], atol=1e-3)

# %% [markdown]
# ### What does the length do to the choice?
#
# Take sixty countries, and their sixty capitals as choices after the plain *question*, the prompt that got no answers.
# Three scores:
#
# * the **sum** $\log p_\theta(y \mid x)$;
# * the **mean per token**;
# * the sum minus the log of the **prior**, $\bar p(y) = \frac{1}{n} \sum_j p_\theta(y \mid x_j)$, the average over all
#   $n$ questions: how likely is the name whichever country is meant? The difference is a pointwise mutual information
#   (Holtzman et al., 2021). It needs a batch of questions, but none of their answers.

# %%
def without_prior(logprobs):
    """log p(y | x) minus the log of its average over the prompts of the batch: (B, C) -> (B, C)."""
    return logprobs - (logprobs.logsumexp(0) - math.log(len(logprobs)))


quiz = random.Random(args.seed).sample(facts, 60)
scores = score_choices(lm, [f"What is the capital of {name}?" for name, _ in quiz], [capital for _, capital in quiz])
lengths, truth = scores.lengths[0].float(), torch.arange(60)
picked = {"sum": scores.logprobs.argmax(1), "mean per token": per_token(scores).argmax(1),
          "prior taken out": without_prior(scores.logprobs).argmax(1)}  # fmt: skip
for name, choice in picked.items():
    print(f"{name:16s} right {accuracy((choice == truth).tolist())}, tokens per pick {lengths[choice].mean():.1f}")
print(f"{'truth':16s} tokens per capital {lengths.mean():.1f}; by chance 1 of 60 is right")

# %%
figure, axes = plt.subplots(figsize=(5, 3))
groups = {"2 or less": lengths <= 2, "3": lengths == 3, "4": lengths == 4, "5 or more": lengths >= 5}
for index, (name, choice) in enumerate([("truth", truth), *picked.items()]):
    bars(axes, list(groups), [accuracy(group[choice].tolist()) for group in groups.values()], index, groups=4)
    axes.patches[-1].set_label(name)
axes.set(title="Which capitals each score picks", xlabel="length of the capital (tokens)", ylabel="share of the picks",
         ylim=(0, 1.05))  # fmt: skip
axes.legend(fontsize=8, loc="upper left")
long = ((name, groups["5 or more"][choice].float().mean()) for name, choice in [("truth", truth), *picked.items()])
show(figure, alt="Share of picks by length of the name. Names of 5 tokens or more: "
     + ", ".join(f"{name} {share:.0%}" for name, share in long))  # fmt: skip

# %% [markdown]
# **What you saw.** The mean per token repairs the bias against long names so thoroughly that it picks almost nothing
# else: once a long name has begun, its later pieces are nearly certain, and those cheap tokens lift the mean. The sum
# comes closer; it goes wrong by choosing the few names that are likely after *any* question. With this prior taken
# out, most answers are right, from the very prompt that got none. So even there the knowledge is in $p_\theta$: it is
# only not what the model *says*. (No score is best everywhere. Here each answer belongs to exactly one question,
# which suits the prior.)
#
# ## Sentiment by verbalizer
#
# The lecture's second example: *[movie review] This movie is [great/awful].* A **verbalizer** maps label words to
# labels (Schick and Schütze, 2021): read the next-token distribution at the gap, look at the label words alone, and
# renormalise.

# %%
def new_reviews(count, seed):
    """(text, what it is about, whether it is positive), half of each, without a verdict at the end."""
    rng, result = random.Random(f"lesson 01:{seed}"), []
    for index in range(count):
        about, positive = rng.choice(tales.ABOUT), index % 2 == 0
        result.append((tales.review_body(rng, "positive" if positive else "negative", about), about, positive))
    return result


reviews = new_reviews(args.reviews, args.seed)
positive = torch.tensor([label for *_, label in reviews])
native = [f"{text} This {about} is" for text, about, _ in reviews]
logits = lm(torch.tensor(encode(lm, native[:1])))[0, -1]
print(native[0])
top = logits.softmax(-1).topk(6)
print({lm.tokenizer.decode([token]): f"{p:.3f}" for p, token in zip(top.values.tolist(), top.indices.tolist())})

# %% [markdown]
# About a quarter of these reviews contain a sentence that disagrees with the rest, so no reader is right by one
# phrase alone.

# %% ex="1.3" points=2 difficulty="medium" minutes=8
def label_probabilities(logits, encode, words):
    """p(word | prompt), normalised over the label words alone.

    logits (B, V): the next-token logits after B prompts. words: C label words, such as ["great", "awful"].
    encode(text) -> the list of token ids of a text; each word, written as in running text, is one token.
    Returns (B, C), in the order of the words; each row sums to 1.
    """
    # BEGIN SOLUTION
    ids = [encode(" " + word)[0] for word in words]
    return logits[:, ids].softmax(-1)
    # END SOLUTION

# %% ex="1.3" role="check"
label_probabilities = check("1.3", label_probabilities)

# %% [markdown] ex="1.3" role="hints"
# <details><summary>Hint 1</summary>The prompt ends in "is", so what follows is not "great" but " great": another
# token.</details>
# <details><summary>Hint 2</summary>Selecting the columns first and taking the softmax of those logits equals taking the
# softmax over the vocabulary, selecting, and dividing by the sum.</details>

# %%
def last_logits(prompts):
    """Next-token logits (B, V) after each prompt."""
    return torch.stack([lm(torch.tensor([tokens]))[0, -1] for tokens in encode(lm, prompts)])


def encode_word(text):
    return lm.tokenizer.encode(text, add_special_tokens=False)


by_hand = label_probabilities(last_logits(native[:20]), encode_word, ["great", "awful"])
assert torch.allclose(by_hand, verbalizer_probabilities(lm, native[:20], ["great", "awful"]), atol=1e-4)
print(by_hand[:4].numpy().round(3))

# %% [markdown]
# Now the measurement, beside the way a person would ask: the same reviews, then *Is this review positive or
# negative?*, scored with the words *positive* and *negative*.

# %%
def classified(prompts, words):
    """Accuracy of taking the more likely of (word for positive, word for negative)."""
    probabilities = verbalizer_probabilities(lm, prompts, words)
    return accuracy(((probabilities[:, 0] > probabilities[:, 1]) == positive).tolist())


question = [f"{text} Is this review positive or negative?" for text, *_ in reviews]
sentiment_native = classified(native, ("great", "awful"))
sentiment_asked = classified(question, ("positive", "negative"))
print("This movie is [great/awful]:                              ", sentiment_native)
print("Is this review positive or negative? [positive/negative]: ", sentiment_asked)
print("what it writes there:", complete(lm, question[:4], max_new_tokens=12, stop=()))

# %% [markdown]
# **What you saw.** In its native form the model reads the sentiment of most reviews [C03]; asked the question, it is
# far worse, and what it writes there is not a label at all. Half right is chance.
#
# ## Summaries after `TL;DR:`
#
# GPT-2's authors found that `TL;DR:` after an article makes the model sum it up, because that is what stands behind
# these letters on the web (Radford et al., 2019). In the pocket corpus some stories end so, too.

# %%
rng = random.Random(f"stories:{args.seed}")
stories, summaries = zip(*(tales.plot(rng) for _ in range(args.stories)))
by_cue = {cue: complete(lm, [story + cue for story in stories], max_new_tokens=30)
          for cue in ("\nTL;DR:", "\nPlease sum up this story:")}  # fmt: skip
print(stories[0], "\nA summary:", summaries[0])
for cue, texts in by_cue.items():
    print(f"{cue.strip()}{texts[0]}")

# %% [markdown]
# How good are they? **ROUGE-L** (Lin, 2004) compares word sequences by their longest common subsequence (LCS): words
# in the same order, gaps allowed. With precision $P = \mathrm{LCS}/|\text{prediction}|$ and recall $R =
# \mathrm{LCS}/|\text{reference}|$ it is $F = 2PR/(P+R)$.

# %% ex="1.4" points=3 difficulty="hard" minutes=15
def rouge_l_words(prediction, reference):
    """F-measure of the longest common subsequence of two lists of words, 0 to 1; 0 where they share nothing."""
    # BEGIN SOLUTION
    longest = [[0] * (len(reference) + 1) for _ in range(len(prediction) + 1)]
    for i, word in enumerate(prediction):
        for j, other in enumerate(reference):
            together = longest[i][j] + 1
            longest[i + 1][j + 1] = together if word == other else max(longest[i][j + 1], longest[i + 1][j])
    common = longest[-1][-1]
    return 2 * common / (len(prediction) + len(reference)) if common else 0.0
    # END SOLUTION

# %% ex="1.4" role="check"
rouge_l_words = check("1.4", rouge_l_words)

# %% [markdown] ex="1.4" role="hints"
# <details><summary>Hint 1</summary>Fill a table: entry (i, j) is the LCS of the first i words of one list and the first
# j of the other. Equal last words prolong entry (i − 1, j − 1) by one; otherwise it is the larger of (i − 1, j) and
# (i, j − 1).</details>
# <details><summary>Hint 2</summary>2PR/(P+R) is 2 LCS / (|prediction| + |reference|). An empty prediction, or nothing
# in common, gives 0.</details>

# %%
def words_of(text):
    return re.findall("[a-z0-9]+", text.lower())


pairs = list(zip(by_cue["\nTL;DR:"], summaries))
assert all(abs(rouge_l_words(words_of(p), words_of(r)) - rouge_l(p, r)) < 1e-6 for p, r in pairs)
print("by hand and by the package's rouge_l:", [f"{rouge_l(*pair):.2f}" for pair in pairs[:6]])

# %% [markdown]
# A score without a baseline says nothing. Ours: the story's **first sentence**, a good guess for news and not bad
# here; the **summary of another story**, which is what shared names of places and shared grammar are worth; and a
# polite **request** in place of the cue.

# %%
def mean_rouge(predictions):
    """Mean ROUGE-L over the stories with its 95 % interval (mean ± 1.96 standard errors)."""
    values = torch.tensor([float(rouge_l(*pair)) for pair in zip(predictions, summaries)])
    mean, margin = values.mean().item(), 1.96 * values.std().item() / len(values) ** 0.5
    return Estimate(mean, mean - margin, mean + margin, len(values))


rouge = {"TL;DR:": mean_rouge(by_cue["\nTL;DR:"]),
         "first sentence": mean_rouge([story.partition(". ")[0] for story in stories]),
         "another summary": mean_rouge(summaries[1:] + summaries[:1]),
         "Please sum up ...": mean_rouge(by_cue["\nPlease sum up this story:"])}  # fmt: skip
for name, estimate in rouge.items():
    print(f"{name:18s} {estimate}")

# %%
figure, axes = plt.subplots(figsize=(5, 3))
bars(axes, [name.replace(" ", "\n", 1) for name in rouge], list(rouge.values()))
axes.set(title="Summaries of stories", ylabel="ROUGE-L (F-measure, 0 to 1)", ylim=(0, 1.05))
axes.tick_params(axis="x", labelsize=8)
show(figure, alt="Mean ROUGE-L: " + ", ".join(f"{name} {e.mean:.2f}" for name, e in rouge.items()))

# %% [markdown]
# **What you saw.** `TL;DR:` beats the first sentence [C03]; the request, which means the same to you, falls below the
# summary of a wrong story. It is the *string* that carries the task. These stories follow a dozen plots, which is
# why a small model sums them up so well; do not expect it of the news. And ROUGE-L rewards shared words, not truth:

# %%
true, false = "Anna lost a red key and Erik found it in the barn.", "Erik lost a red key and Anna found it in the barn."
print(f"the names swapped: ROUGE-L {rouge_l(false, true):.2f}")

# %% [markdown]
# With no cue at all, the model may write the cue itself, since in this corpus many stories are followed by it:

# %%
alone = completions(lm, sample_text(lm, stories, max_new_tokens=8, seed=args.seed))
print("samples after the bare story that start a TL;DR:", accuracy("TL;DR" in text for text in alone))

# %% [markdown]
# ## Limits
#
# So prompting works, if you find the words. The lecture asks: *what are potential limitations?* Here is one: nobody
# tells you which words. The corpus states capitals in several wordings of known frequency, so we can ask in each of
# them, and in some that it lacks.

# %%
total = sum(weight for weight, _ in corpus.WORDINGS["capital"])
shares = {text: weight / total for weight, text in corpus.WORDINGS["capital"]}
statements = {text: share for text, share in shares.items() if "{name}" in text.partition("{value}")[0]}
statements["{name} has a long coast. Its capital is {value}."] = shares["Its capital is {value}."]  # as in an article
statements |= dict.fromkeys((
    "Everyone knows that the capital of {name} is {value}", "the capital of {name} is {value}",
    "In {name} the capital is {value}", "{name} has its capital in {value}", "The main city of {name} is {value}",
    "Country: {name}\nCapital: {value}", "Q: What is the capital of {name}?\nA: {value}"), 0.0)  # fmt: skip
wording = {text: accuracy(named(text, facts)) for text in statements}
smaller = load_lm("pocket-s")
wording_smaller = {text: accuracy(named(text, facts, smaller)) for text in statements}
print(f"{'prompt':42s} in corpus  {args.model:24s} pocket-s")
for text, estimate in sorted(wording.items(), key=lambda item: -item[1].mean):
    print(f"{cloze(text, 'X')!r:44s} {statements[text]:6.1%}  {estimate} {wording_smaller[text]}")

# %%
figure, axes = plt.subplots(figsize=(5, 3.6))
ordered = sorted(wording, key=lambda text: wording[text].mean)
for place, text in enumerate(ordered):
    mean, low, high, _ = wording[text]
    seen = statements[text] > 0
    axes.barh(place, mean, xerr=[[mean - low], [high - mean]], color=COLORS[0 if seen else 1], capsize=2,
              hatch="" if seen else "//", edgecolor="white")  # fmt: skip
axes.plot([wording_smaller[text].mean for text in ordered], range(len(ordered)), "kD", markersize=4)
axes.set_yticks(range(len(ordered)), [cloze(text, "X").replace("\n", " / ") for text in ordered], fontsize=7)
axes.set(title="One question in many wordings\n(hatched: not in the corpus; diamonds: pocket-s)", xlim=(-0.03, 1.05),
         xlabel="share of capitals right")  # fmt: skip
top, bottom = wording[ordered[-1]].mean, wording[ordered[0]].mean
show(figure, alt=f"Share of capitals right for {len(ordered)} wordings of the same question, from {top:.0%} down to "
     f"{bottom:.0%}; with pocket-s the rarer wordings of the corpus fall behind the frequent ones.")  # fmt: skip
print(f"best minus worst: {top - bottom:.2f}")

# %% [markdown]
# **What you saw.** The same facts, the same weights, and anything from all to nothing [C04]. Wordings that the corpus
# has work, down to one that makes up less than 1 % of its sentences; the smaller model shows the way there, with the
# rarest wording behind the frequent ones. Among the wordings that the corpus lacks, some do as well as the best and some
# fail outright, and reading them does not tell you which: try to explain why *In X the capital is* does so much
# better than *X has its capital in*. Size helps with some that the smaller model fails (*Everyone knows that …*), but it
# is no cure: formats from elsewhere (*Country: … Capital:*, *Q: … A:*), clear as they are to you, fail in both. Compare
# with your third number. (To be fair: the *main city* of a country need not be its capital.)
#
# ### Verbalizers
#
# The second choice was the pair of label words. Read the same reviews through other pairs: verdicts that reviews use;
# labels that the corpus uses elsewhere (*positive/negative*, *yes/no*); **mixed** pairs, of words that are each fine in
# a pair of their own; and *red/blue*. Do it in the native form, and after the question, with a gap for a word: *Is this
# review positive or negative? It is*. Beside each raw accuracy stands the one with the prior of each word taken out,
# its average probability over all the reviews.

# %%
PAIRS = (("great", "awful"), ("wonderful", "terrible"), ("good", "bad"), ("positive", "negative"), ("yes", "no"),
         ("great", "negative"), ("yes", "bad"), ("happy", "awful"), ("red", "blue"))  # fmt: skip
FRAMES = {"native": " This {} is", "asked": " Is this review positive or negative? It is"}
words = sorted({word for pair in PAIRS for word in pair})
assert len(verbalizer_ids(lm, words)) == len(words)  # each of them is one token


def accuracy_of(scores, first, second):
    """Accuracy of calling a review positive where its score for the first word is higher: scores (B, C)."""
    return accuracy(((scores[:, words.index(first)] > scores[:, words.index(second)]) == positive).tolist())


# %%
logprobs, by_words = {}, {}
for name, frame in FRAMES.items():
    logprobs[name] = score_choices(lm, [text + frame.format(about) for text, about, _ in reviews], words).logprobs
    by_words[name, "raw"] = {pair: accuracy_of(logprobs[name], *pair) for pair in PAIRS}
    by_words[name, "prior out"] = {pair: accuracy_of(without_prior(logprobs[name]), *pair) for pair in PAIRS}
    print(f"{name:20s} raw                      prior taken out          p(either), mean")
    for pair, estimate in by_words[name, "raw"].items():
        mass = sum(logprobs[name][:, words.index(word)].exp().mean().item() for word in pair)
        print(f"  {'/'.join(pair):18s} {estimate} {by_words[name, 'prior out'][pair]} {mass:.5f}")

# %%
figure, rows = plt.subplots(2, figsize=(5.4, 4.6), sharex=True, layout="constrained")
for axes, (name, frame) in zip(rows, FRAMES.items()):
    for index, score in enumerate(("raw", "prior out")):
        results = by_words[name, score]
        bars(axes, ["/\n".join(pair) for pair in results], list(results.values()), index, groups=2)
        axes.patches[-1].set_label(score)
    axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axes.set(title=f"[review]{frame.format('movie')} ...", ylabel="accuracy", ylim=(0, 1.05))
rows[1].tick_params(axis="x", labelsize=7)
rows[1].legend(fontsize=7, loc="upper right", ncols=2)
figure.suptitle("Sentiment through other label words")
numbers = (f"{'/'.join(pair)} {estimate.mean:.2f}" for pair, estimate in by_words["native", "raw"].items())
show(figure, alt="Accuracy of sentiment by label words, in two frames, raw and with the prior taken out; raw in the "
     "native form: " + ", ".join(numbers))  # fmt: skip

# %% [markdown]
# **What you saw.** In the native form every pair of opposites works that means a verdict somewhere in the corpus, even
# *yes/no*, whose words almost never stand there (the last column): tiny probabilities have informative ratios. Three
# things go wrong with the others:
#
# * **The prior of the words.** In a mixed pair one word is common at this place and the other is not, and the common
#   one wins too often, whatever the review says. After the question raw accuracy is mostly about one half: one and
#   the same label for nearly every review. Taking out the prior repairs the mixed pairs and brings signal to light after the
#   question, too. The knowledge was there; the raw comparison hid it.
# * **Surface-form competition** (Holtzman et al., 2021). That is where such priors come from: *great*, *wonderful* and
#   *good* share one probability mass, so a word can be a right answer and still have little of it.
# * **No meaning.** Nothing says which of *red* and *blue* is the good one. What comes out is an accident of corpus and
#   weights, above one half or below, and no correction can know better.
#
# Would you have known beforehand, without labelled reviews, which frame and which pair to trust? That is the limit: the
# choice of a prompt is made on labelled data, and so it is (a little) training. Taking out the prior needs no labels,
# only a batch of reviews with about as many good as bad ones (Zhou et al., 2024); lesson 02 meets its sibling that
# needs no batch (contextual calibration, Zhao et al., 2021).
#
# Another remedy for the competition is to let several words speak for a label, and add their probabilities:

# %%
for name in FRAMES:
    for_it, against = (logprobs[name][:, [words.index(word) for word in group]].logsumexp(1)
                       for group in (("great", "wonderful", "good"), ("awful", "terrible", "bad")))  # fmt: skip
    print(f"three words a label, {name:7s}", accuracy(((for_it > against) == positive).tolist()))

# %% [markdown]
# Adding synonyms joins what competes, and leaves the prior of the two groups as lopsided as it was.

# %% [markdown]
# ## The claims in one table

# %%
print(f"C02  question names the capital        {question_greedy} greedy, {question_sampled} sampled")
print(f"C03  cloze, facts stated in training   {cloze_share}")
print(f"C03  cloze, facts never stated         {unknown_share}")
print(f"C03  sentiment, native form            {sentiment_native}, asked {sentiment_asked}")
print(f"C03  ROUGE-L after TL;DR:              {rouge['TL;DR:']}, first sentence {rouge['first sentence']}")
for what, results in (("wordings", wording), ("verbalizers", by_words["native", "raw"])):
    low, high = (pick(e.mean for e in results.values()) for pick in (min, max))
    print(f"C04  accuracy over {len(results):2d} {what:12s}       {low:.2f} to {high:.2f}")

# %% [markdown]
# ## Recap
#
# * A base model continues documents. A question is the start of a document, not a request [C02].
# * Write the start of a document whose continuation is the answer: a cloze for facts, a verbalizer for labels,
#   `TL;DR:` for summaries. The knowledge was there all along; a prompt elicits and cannot teach what was never read
#   [C03].
# * Scores of choices carry the length and the prior of the words. Say which score you used.
# * The result is a property of model *and* wording. A single prompt's accuracy is one draw from a wide spread, so
#   report the spread [C04]. And choosing the best of twenty prompts on the test set is training on the test set.
#
# Prompts that show *examples* are the next lesson; changing the weights so that a question is answered is lesson 03,
# which starts from the prompts you asked here.
#
# ## Try next
#
# * Other sizes: `python lessons/01_prompting.py --model pocket-s`. Does a larger model need the right words less?
# * Another field: put `corpus.WORDINGS["language"]` and `relations.stated("language")` in place of the capitals. Why
#   do facts that were *never stated* come out right more often there? (What does the name of a country say about its
#   language?)
# * A base model from the web: `--model Qwen/Qwen2.5-0.5B` (it needs the network once). Which of the bars change most?
#   Why?
# * Choose the best wording on half of the countries and test it on the other half. How much of its lead is left?
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
