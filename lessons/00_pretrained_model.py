# Lesson 00. Edit this file only; `python -m ptlearn build 00` makes the notebooks.

# %% [markdown]
# # 00 · A pretrained language model
#
# Everything in this course starts from a language model that has read a lot of text and can do one thing: say how
# likely each next token is. In this lesson you take that sentence apart until nothing is hidden: tokens,
# probabilities, likelihood, perplexity, sampling. Then you measure the lecture's first claim about it, that **more
# pretraining compute (data + parameters) predictably lowers held-out perplexity**: you fit a law on small runs and
# let it predict a larger one. *(Lecture: "Motivation", first slide; claim C01.)* About 60 minutes; runs in 30 s on
# two CPU cores.
#
# **You will need** Python, a little PyTorch, and logarithms. **You will be able to** score a text with a language
# model without the usual off-by-one mistake, read a perplexity, draw a sample with one random number, count training
# FLOPs, and say how far a scaling law can be trusted.

# %% [markdown]
# ## Predict first
#
# Write your guesses down; the lesson measures each.
#
# 1. A model reads new documents of kinds that it knows: articles on countries, sums, French stories, lists of words
#    of one category. **Which kind has the highest perplexity? Would a larger model get rid of it?**
# 2. The vocabulary has 4,000 tokens, so a model that knows nothing has perplexity 4,000. **What does a model reach
#    that was trained for about two hours on a CPU: 400, 40, 4?**
# 3. Two small models were trained, and a third, larger one. **From the losses of the small ones alone, how closely
#    can you predict the loss of the large one: within 1 %, 5 %, 50 %?**

# %%
from ptlearn.course.session import arguments, show  # first: from here on, Ctrl-C is one line

import math
import random

import matplotlib.pyplot as plt
import numpy as np
import torch

from ptlearn.course.exercise import check
from ptlearn.figures import COLORS, DASHES, MARKERS
from ptlearn.lm.models import load_lm, pocket_models
from ptlearn.lm.text import complete, completions, encode, invert_cdf, sample_text, token_logprobs
from ptlearn.lm.text import perplexity as package_perplexity
from ptlearn.pocket import corpus, pretrain, world
from ptlearn.pocket.cards import loss_table
from ptlearn.statistics import Estimate

args = arguments(
    "What a pretrained language model is, and how compute lowers its perplexity.",
    model=("pocket-m", "the language model: pocket-s|m|l, a folder, or a hub id"),
    documents=(40, "held-out documents of each kind to score", "at least 2"),
    seed=(0, "seed of documents, samples and bootstraps", "at least 0"),
)
lm = load_lm(args.model)
print(f"{lm.name}: {lm.model.num_parameters():,} parameters, {len(lm.tokenizer):,} tokens in the vocabulary")

# %% [markdown]
# ## Tokens
#
# A language model reads tokens: numbers that stand for pieces of text. The pieces come from **byte-pair encoding**
# (BPE): start from single bytes and merge the most frequent neighbours, again and again, until the vocabulary is
# full. So frequent words end up as one token and rare ones fall into pieces. `Ġ` stands for a space: it belongs to
# the word *after* it.

# %%
for text in ("The capital of Kenya is Nairobi.", "Kenya", " Kenya", " kenya", "un croissant", " 1234 + 5"):
    print(f"{text!r:36}", " ".join(lm.tokenizer.tokenize(text)))

# %% [markdown]
# Three traps that will return in later lessons:
#
# - **A space is part of the next token.** `"Kenya"` and `" Kenya"` are different tokens with different numbers. A
#   prompt that ends in a space has already spent it, and the model must go on with a token without one, which it
#   hardly ever saw. *End prompts without a space.*
# - **One word may be several tokens.** "Nairobi" is, so "the probability of the answer" is a product of several
#   factors.
# - **In the pocket tokenizer digits stand alone**, so that 1234 has the digits that arithmetic needs. Other
#   tokenizers merge them.
#
# ## The next token
#
# A language model is a distribution over the next token given all tokens before it, $p_\theta(x_t \mid x_{<t})$. The
# network returns one number per token of the vocabulary, a **logit**; softmax turns logits into probabilities. It
# starts from a special token (`<|endoftext|>` here, put before every document in training), so that the first word
# also has something before it.

# %%
prompt = "The capital of Kenya is"
with torch.no_grad():
    logits = lm(torch.tensor(encode(lm, [prompt])))  # (1, T, V): one row of logits per position
probabilities = logits[0, -1].softmax(-1)  # only the last position speaks about the next token
top = probabilities.topk(8)
names = [repr(lm.tokenizer.decode([token])) for token in top.indices.tolist()]

figure, axes = plt.subplots(figsize=(5, 2.8))
axes.bar(names, top.values, color=COLORS[0])
axes.set(title=f"{prompt} …", xlabel="next token (the eight most likely)",
         ylabel="probability (log scale)", yscale="log")
show(figure, alt=f"Bars on a log axis: the probabilities of the eight most likely tokens after '{prompt}'. The first, "
     f"{names[0]}, has nearly all of it; the others are smaller by factors of hundreds and more.")
print(f"{names[0]} has probability {top.values[0]:.2f}; the {len(probabilities) - 8:,} tokens that are not shown "
      f"have {1 - top.values.sum():.1e} together")
print("most likely continuation, token after token:", complete(lm, [prompt], max_new_tokens=8, stop=("\n",))[0])

# %% [markdown]
# **What you saw.** One token has nearly all the probability, and it is not a city but the first piece of one; the
# pieces that follow depend on it. The axis is logarithmic: on it you see that several runners-up are first pieces of
# *other* capitals. A probability is not a truth value. The model says what text is *likely to follow*; in this corpus,
# which states the capital of Kenya many times, the likely and the true coincide. Lesson 01 shows what happens when
# they part.
#
# ## The likelihood of a text
#
# The probability of a whole text is a product, by the chain rule, and its logarithm a sum:
#
# $$\log p_\theta(x) = \sum_{t=1}^{T} \log p_\theta(x_t \mid x_{<t}).$$
#
# One forward pass gives all factors at once, because the network answers at every position. The catch: the logits
# **at** position $t$ are made after reading token $t$, so they speak about token $t + 1$. Scores and targets are
# *shifted by one*.

# %%
text = "The capital of Kenya is Nairobi."
ids = torch.tensor(encode(lm, [text]))
with torch.no_grad():
    logprobs = lm(ids).log_softmax(-1)
predictions, targets = logprobs[0, :-1], ids[0, 1:]  # the last prediction has no target, the first token no prediction
by_hand = predictions[torch.arange(len(targets)), targets]
for token, value in zip(targets.tolist(), by_hand.tolist()):
    print(f"{lm.tokenizer.decode([token])!r:12} log p = {value:7.3f}   p = {math.exp(value):.3f}")
print(f"the text: log p = {by_hand.sum():.2f}, p = {by_hand.sum().exp():.1e}")

with torch.no_grad():
    label_loss = lm.model(input_ids=ids, labels=ids).loss  # Hugging Face shifts inside, and takes the mean
assert torch.allclose(by_hand, token_logprobs(lm, [text])[0], atol=1e-4)
assert torch.allclose(-by_hand.mean(), label_loss, atol=1e-4)

# %% [markdown]
# The sum you built, the package's `token_logprobs` and the loss that Hugging Face models return for `labels` agree.
# Note that `labels` are *not* shifted by the caller: doing it as well is one of the most frequent silent bugs in the
# field.
#
# Now for a batch. Texts of different length are filled up with padding on the right, and a mask says what is a token.
# Write it so that padding can never leak in.

# %% ex="0.1" points=2 difficulty="easy" minutes=8
def log_likelihood(logits, tokens, mask):
    """Log-likelihood of each text: the sum of log p(token | tokens before it), in nats.

    logits (B, T, V) float; tokens (B, T) int; mask (B, T) bool, False on padding -> (B,) float.
    The first token of a text has nothing before it and is not scored.
    """
    # BEGIN SOLUTION
    logprobs = logits[:, :-1].log_softmax(-1)
    of_targets = logprobs.gather(-1, tokens[:, 1:, None])[..., 0]
    return (of_targets * mask[:, 1:]).sum(1)
    # END SOLUTION

# %% ex="0.1" role="check"
log_likelihood = check("0.1", log_likelihood)

# %% [markdown] ex="0.1" role="hints"
# <details><summary>Hint 1</summary>Drop the last row of logits and the first token: then row t of one belongs to row
# t of the other. Which slice of the mask goes with them?</details>
# <details><summary>Hint 2</summary><code>logprobs.gather(-1, targets[..., None])[..., 0]</code> picks from each row
# the entry of its target.</details>

# %% [markdown]
# ## Where the loss sits
#
# $-\log p_\theta(x_t \mid x_{<t})$ is the **surprisal** of a token, in nats. Coloured onto a text it shows what the
# model had to be told and what it knew already. Predict before you look: where in `18 + 7 = 25` is the surprise?

# %%
def coloured(text):
    """The text as HTML; the darker a token, the more it surprised the model (white 0, full colour 6 nats)."""
    ids, [scores] = encode(lm, [text])[0], token_logprobs(lm, [text])
    spans = []
    for token, score in zip(ids[-len(scores) :], scores.tolist()):
        piece = lm.tokenizer.decode([token]).replace("\n", "↵<br>")
        spans.append(f'<span style="background:rgba(213,94,0,{min(-score / 6, 1):.2f});color:#000">{piece}</span>')
    return f'<p style="font-family:monospace;white-space:pre-wrap;background:#fff">{"".join(spans)}</p>'


examples = (
    "18 + 7 = 25\n31 + 12 = 43",
    "insect: beetle, moth, wasp, cricket, ladybug",
    "Kenya\nKenya is a country in East Africa. The currency of Kenya is the shilling.",
)
show("".join(map(coloured, examples)), alt="Three texts, tokens coloured by surprisal: operands, listed words and the "
     "choice of a topic are dark; what follows from them, such as the rest of a word, is light.")
insects = token_logprobs(lm, [examples[1]])[0]
print(f"'{examples[1]}': {-insects.mean():.2f} nats per token")

# %% [markdown]
# **What you saw.** Dark: the operands, the words of the list, which country and which of its facts comes next. Light:
# the rest of a word once it has begun, punctuation, fixed phrases, and more and more of the results of sums as the
# model gets better. The dark part is of two kinds: what this model does not *know* (training can remove it), and what
# nobody can know, because the writer was free to choose. The next section measures the second.
#
# ## Perplexity
#
# Perplexity is the exponential of the mean negative log-likelihood **per token**, over $K$ held-out texts with $T_k$
# tokens each:
#
# $$\mathrm{PPL} = \exp\Big(-\frac{1}{\sum_k T_k}
# \sum_{k=1}^{K}\sum_{t=1}^{T_k} \log p_\theta(x_{k,t} \mid x_{k,<t})\Big).$$
#
# Read it as "on average the model hesitates between so many equally likely tokens". A uniform guess has perplexity
# $|V|$, certainty has 1.

# %% ex="0.2" points=2 difficulty="easy" minutes=6
def perplexity(logprobs, mask):
    """Perplexity over all tokens of all texts.

    logprobs (B, T) float in nats, any number on padding; mask (B, T) bool, False on padding -> a number.
    """
    # BEGIN SOLUTION
    nats = -(logprobs * mask).sum() / mask.sum()
    return nats.exp()
    # END SOLUTION

# %% ex="0.2" role="check"
perplexity = check("0.2", perplexity)

# %% [markdown] ex="0.2" role="hints"
# <details><summary>Hint 1</summary>One sum over every token of every text, one division, one exponential, in this
# order.</details>
# <details><summary>Hint 2</summary>How many tokens are there? Not <code>logprobs.numel()</code>: that counts
# padding.</details>

# %% [markdown]
# The documents to score come from the generator that wrote the training corpus, with a seed that training did not
# use: the same kinds, new texts. We also score the end token of each, since knowing when to stop is part of the job.
# A perplexity from 40 documents is an estimate, so it gets an interval: draw 40 of them with replacement, recompute,
# and look how far the result moves (the **bootstrap**). Whole documents are drawn, not tokens: tokens of one document
# go up and down together.

# %%
def held_out(kind, count=args.documents):
    """Documents of one kind, from a seed that training did not use, with the end token."""
    rng = random.Random(f"lesson 00, {kind}, {args.seed}")
    return [corpus.KINDS[kind](rng) + lm.tokenizer.eos_token for _ in range(count)]


def resampled(nats, lengths, draws=2000):
    """Loss in nats per token for `draws` bootstrap samples of the documents: nats (K,), lengths (K,) -> (draws,)."""
    chosen = np.random.default_rng(args.seed).integers(len(nats), size=(draws, len(nats)))
    return nats[chosen].sum(1) / lengths[chosen].sum(1)


def with_interval(nats, lengths):
    """Perplexity and its 95 % bootstrap interval."""
    low, high = np.exp(np.quantile(resampled(nats, lengths), [0.025, 0.975]))
    return Estimate(float(np.exp(nats.sum() / lengths.sum())), float(low), float(high), len(nats))


def scored(texts, model=lm):
    """(nats, tokens) of each text, as two arrays."""
    scores = token_logprobs(model, texts)
    return np.array([-float(values.sum()) for values in scores]), np.array([len(values) for values in scores])


results = {kind: with_interval(*scored(held_out(kind))) for kind in corpus.KINDS}
results = dict(sorted(results.items(), key=lambda item: item[1].mean))
assert math.isclose(results["article"].mean, package_perplexity(lm, held_out("article")), rel_tol=1e-3)
for kind in (*list(results)[:3], *list(results)[-3:]):
    print(f"{kind:15} perplexity {results[kind]}")

# %% [markdown]
# ### The part that no model can remove
#
# An `inventory` document is written like this: choose one of the categories, choose a number $M$ from 5 to 16, draw
# $M$ words of the category (the early ones of its table more often), and write each one down the first time it comes
# up. Since we know the process, we know the true probability of every such document. With $w_1 \dots w_k$ the words
# on the page and $q(w)$ the chance of a single draw, walk through the draws: each brings the next word of the page, or
# one that is there already.
#
# $$f_{m+1}(j) = f_m(j - 1)\, q(w_j) + f_m(j) \sum_{i \le j} q(w_i), \qquad
# p(x) = \underbrace{s}_{\text{share of inventories}} \cdot \tfrac{1}{\text{categories}} \cdot
# \tfrac{1}{12} \sum_{M=5}^{16} f_M(k).$$
#
# No model has a lower expected loss than $\mathbb{E}[-\log p(x)]$, the **entropy** of the source. The distance between
# a model's loss and that floor is the Kullback–Leibler divergence of the model from the source, and only that part
# can be learned.

# %%
def true_nats(document):
    """-log p of an inventory document under the process that writes it."""
    category, words = document.split(": ")
    pool, found = world.WORDS[category], words.split(", ")
    q = [math.sqrt((i + 1) / len(pool)) - math.sqrt(i / len(pool)) for i in map(pool.index, found)]
    f, total = np.zeros(len(found) + 1), 0.0
    f[0] = 1.0  # no draw yet, no word on the page
    for draws in range(1, 17):
        f = f * np.cumsum([0.0, *q]) + np.concatenate([[0.0], f[:-1] * q])
        total += f[-1] / 12 if draws >= 5 else 0.0
    share = corpus.SHARES["inventory"] / sum(corpus.SHARES.values())
    return -math.log(share / len(world.WORDS) * total)


# %%
inventories = held_out("inventory")
nats, lengths = scored(inventories)
floor = np.array([true_nats(document.removesuffix(lm.tokenizer.eos_token)) for document in inventories])
gap = resampled(nats - floor, lengths)
print(f"inventory: model {nats.sum() / lengths.sum():.2f} nats per token, floor {floor.sum() / lengths.sum():.2f}")
low, high = np.quantile(gap, [0.025, 0.975])
print(f"what is left to learn: {gap.mean():.2f} nats per token, 95 % interval [{low:.2f}, {high:.2f}]")
print(f"share of the loss that nobody can remove: {100 * floor.sum() / nats.sum():.0f} %")

# %%
figure, axes = plt.subplots(figsize=(5, 4.2))
estimates, places = list(results.values()), range(len(results))
errors = [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
axes.barh(places, [e.mean for e in estimates], xerr=errors, capsize=2, color=COLORS[0])
best = math.exp(floor.sum() / lengths.sum())
axes.plot(best, list(results).index("inventory"), "D", color=COLORS[1], label="floor of inventory, exact")
axes.set_yticks(places, list(results))
axes.set(title=f"Held-out perplexity of {lm.name}", xlabel="perplexity (95 % interval)", xlim=(1, None))
axes.legend(loc="lower right")
show(figure, alt="Horizontal bars: held-out perplexity of each kind of document with 95 % intervals, sorted; a diamond "
     "marks the exact floor for lists of random words, inside their bar.")

# %% [markdown]
# **What you saw.** The same model is nearly certain about some kinds of text and hesitates over others, and the order
# is not the order of what *we* find hard. At the hard end nearly every word is a free choice: French stories that put
# random nouns into sentences, lists of words. For the inventories we know the part that is free, and it is most of
# their loss: a hundred times the compute would not remove it. At the easy end, word problems, dialogues and stories,
# a few free names and nouns stand in much fixed wording.
#
# Two consequences for everything that follows. A perplexity means something only **against another model on the same
# text**, with the same tokenizer. And a loss curve flattens not only because learning gets harder, but because it
# approaches a floor that is not zero.
#
# ## Sampling
#
# To write, the model draws $x_t \sim p_\theta(\cdot \mid x_{<t})$, appends it and goes on. A draw needs one uniform
# number $u \in [0, 1)$: line the tokens up on the unit interval, each as wide as it is likely, and see on which one
# $u$ falls. In other words, invert the cumulative distribution. **Temperature** $\tau$ divides the logits first:
# $\tau \to 0$ is the argmax (greedy), $\tau = 1$ the model itself, a large $\tau$ uniform noise.

# %% ex="0.3" points=3 difficulty="medium" minutes=10
def draw(logits, temperature, uniform):
    """Draw one token per row: the first whose cumulative probability exceeds the row's uniform number.

    logits (B, V) float; temperature > 0; uniform (B,) float in [0, 1) -> (B,) int.
    """
    # BEGIN SOLUTION
    cumulative = torch.softmax(logits / temperature, -1).cumsum(-1)
    at_or_below = cumulative <= uniform[:, None]
    return at_or_below.sum(-1).clamp(max=logits.shape[1] - 1)  # rounding may leave the last sum below 1
    # END SOLUTION

# %% ex="0.3" role="check"
draw = check("0.3", draw)

# %% [markdown] ex="0.3" role="hints"
# <details><summary>Hint 1</summary>With probabilities 0.5, 0.25, 0.25 the borders are 0.5, 0.75, 1. For u = 0.6 one
# border lies at or below u, and the token is number 1.</details>
# <details><summary>Hint 2</summary><code>softmax</code>, <code>cumsum</code>, then count comparisons. Divide the
# logits by the temperature, not the probabilities.</details>

# %%
opening = "Visitors come for"
with torch.no_grad():
    last = lm(torch.tensor(encode(lm, [opening])))[:, -1].double()  # (1, V)
uniforms = torch.rand(4000, generator=torch.Generator().manual_seed(args.seed))
tokens = draw(last.expand(4000, -1), 1.0, uniforms)
assert torch.equal(tokens, invert_cdf(last.log_softmax(-1).expand(4000, -1), uniforms))
likely = last[0].softmax(-1).topk(12)
for token, probability in zip(likely.indices[:4], likely.values):
    share = (tokens == token).float().mean()
    print(f"{lm.tokenizer.decode([token])!r:10} probability {probability:.3f}, share of 4,000 draws {share:.3f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3))
for index, temperature in enumerate((0.3, 1.0, 2.0)):
    cumulative = (last[0] / temperature).softmax(-1)[likely.indices].cumsum(0)
    axes.step(range(13), [0, *cumulative], where="post", color=COLORS[index], linestyle=DASHES[index],
              label=f"temperature {temperature}")
axes.axhline(0.6, color=COLORS[6], linewidth=0.8, label="a uniform number, 0.6")
axes.set_xticks(range(1, 13), [lm.tokenizer.decode([token]).strip() for token in likely.indices], rotation=60)
axes.set(title=f"A draw after '{opening}'", xlabel="tokens, the most likely first", ylabel="cumulative probability")
axes.legend(fontsize=8, loc="lower right")
show(figure, alt="Stairs of cumulative probability over the most likely tokens at three temperatures; a token's "
     "step is as high as it is likely. A horizontal line at the uniform number meets each stair at the token drawn.")

# %% [markdown]
# **What you saw.** The drawn shares agree with the probabilities. Go right along the line until it meets a stair:
# that step's token is drawn. A low temperature makes the first steps taller, a high one flattens them all.
#
# What does a base model write when nobody asks for anything? Give it the start token alone.

# %%
rollout = sample_text(lm, [""] * 3, max_new_tokens=70, seed=args.seed)
for number, document in enumerate(completions(lm, rollout), 1):
    print(f"[{number}]", document, end="\n\n")

# %%
start = "The capital of Kenya is"
print("greedy, twice:", *(repr(text) for text in complete(lm, [start] * 2, max_new_tokens=14)), sep="\n   ")
for temperature in (0.5, 1.0, 2.0):
    rollout = sample_text(lm, [start] * 3, max_new_tokens=14, temperature=temperature, stop=("\n",), seed=args.seed)
    print(f"temperature {temperature}:", *(repr(text) for text in completions(lm, rollout, "\n")), sep="\n   ")

# %% [markdown]
# **What you saw.** Unasked, it writes a document of the kind it was trained on: it has no purpose besides continuing.
# Greedy decoding says the same thing every time. At temperature 0.5 the samples resemble each other, at 1 they are as
# varied as the corpus, at 2 words fall apart, because the many unlikely tokens, each of them nearly impossible,
# together get a large share.
#
# Why not always greedy? The *most likely* text is not a *typical* text: a coin that shows heads 60 % of the time has
# all heads as its most likely sequence, which almost never comes. From lesson 08 on, samples at temperature 1 are
# what the mathematics asks for.

# %% [markdown]
# ## What the weights cost
#
# Now to the lecture's claim. Compute is parameters times data, so first count both. The pocket models have the Llama
# layout: $V \times d$ embeddings (used again as the output head) and $L$ layers with four $d \times d$ matrices for
# attention, three $d \times f$ for the feed-forward part, their biases, and two norms.

# %%
names = pocket_models()
models = {name: load_lm(name) for name in names}
sizes = {name: model.model.num_parameters() for name, model in models.items()}
for name, model in models.items():
    c = model.model.config
    d, f, L, V = c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.vocab_size
    layer = (4 * d * d + 4 * d) + (3 * d * f + 2 * f + d) + 2 * d  # attention, feed-forward, norms
    assert V * d + L * layer + d == sizes[name]
    print(f"{name}: width {d}, {L} layers, {sizes[name] / 1e6:.2f} M parameters, {V * d / 1e6:.2f} M in embeddings")

# %% [markdown]
# A weight is used once per token: one multiplication, one addition, so **2** operations forwards. Backwards it takes
# twice as many: one product for the gradient of the input, one for the gradient of the weight. That makes the
# well-known $C \approx 6 N D$ for $N$ parameters and $D$ tokens. Attention comes on top: in every layer a token
# compares its query with, on average, $(T + 1)/2$ keys of width $d$ (itself and what is before it in a window of $T$)
# and adds up as many values: two products, so $2 \cdot 2 \cdot d \cdot (T + 1)/2$ operations forwards, and twice that
# again backwards.

# %% ex="0.4" points=2 difficulty="medium" minutes=8
def training_flops(parameters, layers, width, context, tokens):
    """Floating-point operations of training on `tokens` tokens in windows of `context`, attention included."""
    # BEGIN SOLUTION
    weights = 6 * parameters
    attention = 3 * layers * (2 * 2 * width * (context + 1) / 2)
    return (weights + attention) * tokens
    # END SOLUTION

# %% ex="0.4" role="check"
training_flops = check("0.4", training_flops)

# %% [markdown] ex="0.4" role="hints"
# <details><summary>Hint 1</summary>Count one token, forwards; training is three times the forward pass.</details>
# <details><summary>Hint 2</summary>Attention forwards, one token, one layer: 2 d (T + 1), from the sentence
# above.</details>

# %%
runs = {name: loss_table(name) for name in names}  # one row per checkpoint on the way
for name, rows in runs.items():
    c, end = models[name].model.config, rows[-1]
    flops = training_flops(sizes[name], c.num_hidden_layers, c.hidden_size, pretrain.CONTEXT, end["tokens"])
    assert math.isclose(flops, end["flops"], rel_tol=1e-6)
    loss = end["heldout_loss"]
    print(f"{name}: {end['tokens'] / 1e6:5.1f} M tokens, {end['tokens'] / sizes[name]:4.1f} per parameter, "
          f"{flops:.1e} FLOPs, {end['seconds'] / 60:.0f} min, loss {loss:.3f}, perplexity {math.exp(loss):.2f}")

# %% [markdown]
# Each run kept its held-out loss at about two dozen points. That is the material of a **scaling law**: a curve fitted
# to what was cheap, in order to know the result of what is expensive before paying for it. The simplest says that
# loss is a power of compute, $L(C) = a\,C^{-b}$, which is a straight line on log–log axes.

# %% ex="0.5" points=2 difficulty="medium" minutes=8
def power_law(compute, loss):
    """The (a, b) of L = a C^-b by least squares between the logarithms; lists or tuples -> two numbers."""
    # BEGIN SOLUTION
    slope, intercept = np.polyfit(np.log(compute), np.log(loss), 1)
    return math.exp(intercept), -slope
    # END SOLUTION

# %% ex="0.5" role="check"
power_law = check("0.5", power_law)

# %% [markdown] ex="0.5" role="hints"
# <details><summary>Hint 1</summary>log L = log a − b log C is a line: <code>np.polyfit(x, y, 1)</code> gives slope
# and intercept.</details>
# <details><summary>Hint 2</summary>The same base on both axes, and undo the logarithm of a with that base.</details>

# %% [markdown]
# ## A law fitted on the small runs
#
# At a given compute only the best model counts: a large one that has hardly begun is a waste. So the law is fitted to
# the **lower envelope** of the smaller runs: the points that no other point beats with less compute. The first steps
# are left out: up to about 1.5 M tokens a model still learns which words exist at all, and its loss falls along
# another curve.

# %%
*smaller, largest = names
FIRST = 1.5e6  # tokens before which no law is fitted
points = [(row["flops"], row["heldout_loss"]) for name in smaller for row in runs[name] if row["tokens"] > FIRST]
envelope = [(c, loss) for c, loss in sorted(points) if loss <= min(other for c2, other in points if c2 <= c)]
a, b = power_law(*zip(*envelope))
final = runs[largest][-1]
by_compute = a * final["flops"] ** -b
print(f"L(C) = {a:.1f} C^-{b:.3f} from {len(envelope)} points of {' and '.join(smaller)}: ten times the compute, "
      f"{100 * (1 - 10**-b):.0f} % less loss")
off = 100 * (by_compute / final["heldout_loss"] - 1)
print(f"{largest} at {final['flops']:.1e} FLOPs: predicted {by_compute:.3f}, measured {final['heldout_loss']:.3f} nats "
      f"per token ({off:+.1f} %)")
for fewer, more in zip(names, names[1:]):
    end, losses = runs[fewer][-1], [[math.log(row["flops"]), row["heldout_loss"]] for row in runs[more]]
    there = np.interp(math.log(end["flops"]), *zip(*losses))
    print(f"at {end['flops']:.1e} FLOPs: {fewer} {end['heldout_loss']:.2f} nats, {more} {there:.2f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3.6))
for index, (name, rows) in enumerate(runs.items()):
    axes.plot([row["flops"] for row in rows], [row["heldout_loss"] for row in rows], color=COLORS[index],
              marker=MARKERS[index], markersize=3, linewidth=1)
    axes.text(rows[1]["flops"] * 1.1, rows[0]["heldout_loss"], f"{name}\n{sizes[name] / 1e6:.1f} M", color=COLORS[index],
              fontsize=8, verticalalignment="center")
span = np.geomspace(envelope[0][0], final["flops"] * 1.5, 50)
axes.plot(span, a * span**-b, color=COLORS[6], linestyle=":", label=f"power law, fitted on {' and '.join(smaller)}")
axes.set(title="Held-out perplexity falls with compute", xlabel="training compute (FLOPs, log scale)",
         ylabel="loss (nats per token, log scale)", xscale="log", yscale="log")
axes.set_yticks([1, 1.5, 2, 3, 4, 5], ["1", "1.5", "2", "3", "4", "5"])
axes.minorticks_off()
axes.legend(fontsize=8, loc="lower left")
right = axes.twinx()  # the same axis once more, labelled with the perplexity that a loss means
right.set(yscale="log", ylim=axes.get_ylim(), ylabel="perplexity")
marks = (2.5, 3, 4, 5, 7, 10, 20, 50, 100)
right.set_yticks(np.log(marks), marks)
right.minorticks_off()
show(figure, alt="Held-out loss, and at the right the perplexity it means, against training FLOPs on log axes, one "
     "curve per model size: each falls steeply, then flattens. Dotted: the power law of the smaller runs.")

# %% [markdown]
# **What you saw.** Every curve falls with compute, over more than two orders of magnitude. Between the curves it is
# less simple: where two of them overlap, the *smaller* model is ahead at equal compute. It has read more tokens by
# then, and with a few tokens per parameter it is tokens that these runs lack. The largest run got more compute than
# the middle one and spent it on parameters, so it does not lie on the envelope, and the straight line overrates it.
#
# Two bends say that even a single run is no straight line. Each curve flattens: a pure power law falls to zero loss, but
# language has entropy that no compute removes. And each steepens where the learning rate falls in a line to zero and
# the weights settle. That happened twice here: the runs had ended, and were then extended from the peak learning rate
# to a second end. At the peak rate the loss jumps back up, and the jump is the price of going on.
#
# So use a law that knows both, with a floor $E$ (Hoffmann et al., 2022, equation 2):
#
# $$L(N, D) = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}} - G\,h .$$
#
# The last term belongs to our runs: the falling learning rate lowers the loss by some $G$, and $h$ is the share of that
# fall that a checkpoint has behind it (0 to 1). And two sizes cannot tell $A$, $\alpha$ and $E$ apart, so we *assume*
# $\alpha = \beta$. For a given exponent the rest is linear least squares; the exponent is found on a grid.

# %%
def features(name, exponent, ratio=1.0):
    """The columns 1, N^-alpha, D^-beta, -h for every checkpoint of a run: beta = exponent, alpha = ratio * beta."""
    rows = runs[name]
    tokens = np.array([row["tokens"] for row in rows]) / 1e6
    rates = np.array([row["learning_rate"] for row in rows])
    h = 1 - rates / rates.max()
    ones = np.ones(len(rows))
    return np.stack([ones, ones * (sizes[name] / 1e6) ** (-ratio * exponent), tokens**-exponent, -h], 1)


def relative_fit(columns, loss):
    """Least squares on relative errors: (root mean square of the relative error, weights)."""
    weights = np.linalg.lstsq(columns / loss[:, None], np.ones(len(loss)), rcond=None)[0]
    return float(np.mean((columns @ weights / loss - 1) ** 2)) ** 0.5, weights


# %%
measured = {name: np.array([row["heldout_loss"] for row in rows]) for name, rows in runs.items()}


def fit_law(known, ratio=1.0, first=FIRST):
    """(error, exponent, weights E A B G) of the best fit to the runs `known`; the exponent comes from a grid."""
    late = {name: np.array([row["tokens"] > first for row in runs[name]]) for name in known}
    loss = np.concatenate([measured[name][late[name]] for name in known])
    fits = []
    for exponent in np.linspace(0.1, 1.5, 141):
        columns = np.concatenate([features(name, exponent, ratio)[late[name]] for name in known])
        error, weights = relative_fit(columns, loss)
        fits.append((error, exponent, weights))
    return min(fits, key=lambda fit: fit[0])


error, exponent, weights = fit_law(smaller)
E, A, B, G = weights
print(f"L(N, D) = {E:.2f} + {A:.2f} / N^{exponent:.2f} + {B:.2f} / D^{exponent:.2f} - {G:.2f} h   (N, D in millions)")
print(f"typical miss on the {len(smaller)} runs it was fitted to: {100 * error:.1f} %")

# %% [markdown]
# The law has not seen a single number of the largest run. Which way do you expect it to err?

# %%
predicted = features(largest, exponent) @ weights
target = measured[largest][-1]
print(f"{largest}, final loss: predicted {predicted[-1]:.3f}, measured {target:.3f} nats per token "
      f"({100 * (predicted[-1] / target - 1):+.1f} %)")
print(f"as perplexity: predicted {math.exp(predicted[-1]):.2f}, measured {math.exp(target):.2f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3.4))
for index, name in enumerate(names):
    tokens = np.array([row["tokens"] for row in runs[name]]) / 1e6
    word, dash = ("predicted", "--") if name == largest else ("fitted", "-")
    law, late = features(name, exponent) @ weights, tokens > FIRST / 1e6
    axes.plot(tokens, measured[name], MARKERS[index], color=COLORS[index], markersize=4, label=f"{name}, measured")
    axes.plot(tokens[late], law[late], dash, color=COLORS[index], label=f"{name}, {word}")
axes.set(title="The law in parameters and tokens", xlabel="training tokens (millions, log scale)",
         ylabel="held-out loss (nats per token)", xscale="log", xlim=(1, None), ylim=(target - 0.15, 2.4))
axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
axes.legend(fontsize=8)
show(figure, alt="Held-out loss against training tokens for every model size, points measured and lines from the law: "
     "solid for the runs it was fitted on, dashed for the largest run, which it predicts.")

# %% [markdown]
# One prediction made in one way says little. The same runs, other honest choices: laws in compute alone (with and
# without a floor, or through the last points of the runs only), other ratios of the exponents, other first points.

# %%
compute, envelope_loss = (np.array(column) for column in zip(*envelope))
floored = []
for power in np.linspace(0.02, 1.5, 149):
    miss, (E_C, a_C) = relative_fit(np.stack([np.ones(len(compute)), (compute / 1e12) ** -power], 1), envelope_loss)
    floored.append((miss, E_C + a_C * (final["flops"] / 1e12) ** -power))
ways = {"a C^-b, envelope": by_compute, "E + a C^-b, envelope": min(floored)[1]}
if len(smaller) > 1:
    a_end, b_end = power_law([runs[name][-1]["flops"] for name in smaller], [measured[name][-1] for name in smaller])
    ways["a C^-b, last points only"] = a_end * final["flops"] ** -b_end
for ratio, first in ((1, FIRST), (0.5, FIRST), (2, FIRST), (1, 1e6), (1, 3e6)):
    _, other, other_weights = fit_law(smaller, ratio, first)
    value = (features(largest, other, ratio) @ other_weights)[-1]
    ways[f"E + A/N^alpha + B/D^beta - G h, alpha = {ratio:g} beta, from {first / 1e6:g} M tokens"] = value
for name, value in ways.items():
    print(f"{value:.3f} nats ({100 * (value / target - 1):+5.1f} %)  {name}")

# %% [markdown]
# **What you saw.** At equal tokens the larger model has the lower loss, and more tokens lower it for every size: both
# parts of the claim, data and parameters, in a pocket. A law in $N$ and $D$ fitted on the two smaller runs lands
# within about 5 % of the largest run, the straight line in $C$ about three times as far away. How much is that worth?
#
# - **Nearly all predictions are too low**: the laws expect a better large model than the one we got. It stopped at
#   far fewer tokens per parameter than the runs behind the fit; Hoffmann et al. recommend about 20. The peak learning
#   rates differ between the runs too (see the model cards), and a law cannot know what its data do not vary.
# - **The error bar is the spread of the list, not the miss on the fitted points.** With two sizes there is one
#   difference in $N$, and any $\alpha$ goes through it: $\alpha = \beta$ is an assumption, and it moves the prediction
#   by several percent. One of these laws looks best *now*. Choosing it after the fact would be cheating; the law in
#   the cell above was fixed before the largest run had finished.
# - **Five percent of the loss is not little**: about 0.05 nats, more than a third of all that lies between the small and
#   the middle model.
# - **The jump is short**, three times the parameters. Published laws cross orders of magnitude with dozens of runs, and
#   speak of the average over all text: *which* ability comes next they do not say (lesson 02 measures some).
#
# ## Once more, on the same documents
#
# The tables come from the training program. Trust, but measure again: fresh documents in their natural shares, the
# same ones for every model. Because the documents are the same, the *difference* of two models is known far better
# than either perplexity: what makes a document hard, it does to both.

# %%
indices = range(5 * args.documents)
fresh = [corpus.document(index, seed=7_000_000 + args.seed) + lm.tokenizer.eos_token for index in indices]
losses = {name: scored(fresh, model) for name, model in models.items()}
for name, (nats, lengths) in losses.items():
    print(f"{name}: perplexity {with_interval(nats, lengths)}")
for before, after in zip(names, names[1:]):
    (one, lengths), (other, _) = losses[before], losses[after]
    low, high = np.quantile(resampled(one - other, lengths), [0.025, 0.975])
    print(f"{before} minus {after}: {(one - other).sum() / lengths.sum():+.3f} nats per token "
          f"[{low:+.3f}, {high:+.3f}]; {after} is better on {100 * np.mean(other < one):.0f} % of the documents")

# %% [markdown]
# **What you saw.** From the small to the middle model the gain is large and beyond doubt, on nearly every document.
# From the middle to the large one the compute doubled, and the gain is about half a hundredth of a nat. The perplexities,
# whose intervals overlap almost entirely, could not even say its sign; the paired difference can, just. So the
# lecture's sentence needs its brackets: *compute (data **and** parameters)*. Three times the parameters with fewer
# tokens bought next to nothing here; what the law predicts is loss from $N$ and $D$, and whoever has a budget $C$ must
# split it well. Remember it when a later lesson compares the three sizes.
#
# ## Recap
#
# - A language model is $p_\theta(x_t \mid x_{<t})$ over tokens. Its output at position $t$ speaks about the token after.
# - The log-likelihood of a text is a sum over its tokens; perplexity is the exponential of the mean negative
#   log-likelihood per token, and it is comparable only on the same text with the same tokenizer.
# - A sample costs one uniform number and one cumulative sum; temperature divides logits.
# - Loss has a floor, the entropy of the text. What compute lowers is the distance to it, predictably to about 5 %
#   here, if both $N$ and $D$ are known.
#
# Nothing here answers a question yet. Lesson 01 asks one.
#
# ## Things to try
#
# - Run `python lessons/00_pretrained_model.py --model pocket-s`. Which kinds of document lose most from the smaller
#   model? Which hardly change, and why could you have known?
# - Compute the floor of `arithmetic` documents. Where is a sum certain, where is it free? Which token carries the
#   surprise that is left?
# - Compare with `--model Qwen/Qwen2.5-0.5B` (needs the network once). Its tokens are others, so divide nats by the
#   number of *characters*. A model with two hundred times the parameters may be worse here: why?
# - Pretend that pocket-m is the largest, and predict it from pocket-s alone. What breaks in the law?
#
# ## References
#
# - Shannon (1951), *Prediction and entropy of printed English*: perplexity's origin, with people as the language
#   model.
# - Sennrich, Haddow, Birch (2016), *Neural machine translation of rare words with subword units*: byte-pair encoding.
# - Kaplan et al. (2020), *Scaling laws for neural language models*: the power laws, and $C \approx 6ND$.
# - Hoffmann et al. (2022), *Training compute-optimal large language models*: the law $L(N, D)$ and the split between
#   both.
# - Holtzman et al. (2020), *The curious case of neural text degeneration*: why the most likely text is not what
#   people write.
