# Lesson 05: parameter-efficient finetuning. jupytext py:percent; runs as a script: python lessons/05_parameter_efficient.py --help

# %% [markdown]
# # 05 · Parameter-efficient finetuning: which numbers have to move?
#
# "Finetuning all weights of a large model can be expensive (in what way?)" First you answer the lecture's question in
# bytes: counted, foretold, and weighed on a real step with hooks that you write. Then you freeze the model and train a
# few of its numbers, or a few new ones in an adapter that you build, and see which methods reach full finetuning and
# where each one gives up. *(Lecture: "Parameter efficient finetuning"; claims C16–C17.)* About 125 minutes, 90 of them
# for the exercises; runs in 85 s on two CPU cores.
#
# **You will need** lesson 03: chat examples, and the loss of supervised finetuning, the likelihood of the response
# tokens. **You will be able to** say what a finetuning step holds in memory, build last-k, BitFit and adapters by hand,
# and choose between them.
#
# **To change a knob** of the next cell, such as the number of seeds, change its default there and run all cells again.

# %%
from ptlearn.course.session import arguments, progress, show  # first: Ctrl-C is one line

import fnmatch
import random
from collections import Counter
from functools import partial

import torch
from matplotlib import pyplot
from torch import nn

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.course.lab import mystery_runs
from ptlearn.course.predictions import predict
from ptlearn.finetuning import memory, parameter_efficient
from ptlearn.finetuning.memory import count_parameters, memory_budget
from ptlearn.finetuning.sft import fit_sft, sft_loss
from ptlearn.finetuning.wrappers import matching_layers
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import exact_match
from ptlearn.lm.text import complete
from ptlearn.pocket import relations
from ptlearn.statistics import wilson
from transformers import GPT2Config, LlamaConfig, logging

args = arguments(
    "Bytes of a finetuning step, and score against trainable parameters.",
    model=("pocket-m", "the language model"),
    examples=(240, "conversations to finetune on", "at least 1"),
    count=(80, "questions per score", "at least 1"),
    seeds=(3, "seeds per method in the comparison", "at least 1"),
    codes=(80, "new facts in the last experiment", "at least 1"),
    epochs=(14, "epochs over the new facts", "at least 1"),
    seed=(0, "of everything else", "at least 0"),
)
torch.set_num_threads(1)  # the products are small: a second thread would mostly wait
logging.set_verbosity_error()
lm = load_lm(args.model)
config = lm.model.config
names = [name for name, _ in lm.model.named_parameters()]
parameters = count_parameters(lm)[1]
print(f"{args.model}: {parameters:,} parameters")

# %% [markdown]
# ## Predict first
# Type your guesses over the dots before you go on; each is shown beside what you measure below.
#
# 1. The weights of a 7B model take 13.5 GB in bfloat16. How many GB does a step of finetuning it hold, with AdamW and
#    one sequence of 2,048 tokens?
# 2. Train only the bias terms, 0.4 % of the model. Which of the costs falls by half or more?
# 3. The last block has almost 40 times as many numbers as there are biases. How many of a hundred questions does the
#    model answer after training the one, or the other?
# 4. Full finetuning learns nonsense words for 80 countries by heart. How many of the 80 do adapters with 1 % of the
#    parameters learn, in the same steps?

# %%
guesses = predict(
    step_of_7B=...,  # GB
    biases_halve=...,  # which of "gradients", "optimizer", "activations"
    last_block=...,  # of a hundred questions
    biases=...,  # of a hundred questions
    code_words=...,  # of 80, with adapters
)

# %% [markdown]
# ## Expensive in what way?
# A step holds the **weights**; a **gradient** for every number that is trained; what the **optimizer** remembers of it
# (AdamW: two moments, a mean and a mean square); and the **activations** that the backward pass will need. The first
# three are counting.

# %% ex="5.1" title="Bytes that are counted" points=1 minutes=5 difficulty="easy"
def finetuning_bytes(parameters, trained, bytes_per_number, moments=2):
    """Bytes of (weights, gradients, optimizer states), each number in `bytes_per_number`.

    parameters, of the whole model; trained, those that an optimizer with `moments` numbers for
    each one updates.
    """
    # BEGIN SOLUTION
    gradients = trained * bytes_per_number
    return parameters * bytes_per_number, gradients, moments * gradients
    # END SOLUTION

# %% ex="5.1" role="check"
finetuning_bytes = check("5.1", finetuning_bytes)

# %% [markdown] ex="5.1" role="hints"
# <details><summary>Hint 1</summary>A frozen number is stored too, but it has no gradient.</details>
# <details><summary>Hint 2</summary>The optimizer keeps `moments` numbers for every number that has a gradient, and for
# no other.</details>

# %% [markdown]
# Activations cannot be read off the configuration: which tensors a forward pass keeps is decided by the backward
# formula of every operation. A product $W x$ keeps $x$ for the gradient of $W$ and $W$ for the gradient of $x$; a sum
# keeps nothing. But autograd can be watched. Inside
#
# ```python
# with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
#     loss = forward()
# ```
#
# it calls `pack(tensor)` for each tensor that it wants to keep and stores what `pack` returns; in the backward pass it
# calls `unpack` with that, and expects the tensor back.

# %% ex="5.2" title="Watch autograd save" points=2 minutes=10 difficulty="medium"
def saved_tensors(forward):
    """Run forward() once; return (its loss, all tensors saved for the backward pass, a list).

    The backward pass of the loss must still work.
    """
    # BEGIN SOLUTION
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    return loss, saved
    # END SOLUTION

# %% ex="5.2" role="check"
saved_tensors = check("5.2", saved_tensors)

# %% [markdown] ex="5.2" role="hints"
# <details><summary>Hint 1</summary>`pack` appends the tensor to your list and returns it; `unpack` returns what it is
# given.</details>
# <details><summary>Hint 2</summary>Only `forward()` has to run inside the `with`; the list is full as soon as it is
# done.</details>

# %% [markdown]
# The list holds more than memory does. A tensor is a view of a **storage**, the bytes themselves, and several tensors
# may share one: a matrix and its transpose, a vector that two operations need. As long as one view lives, the whole
# storage does. And weights are on the list, which are stored anyway.
#
# `tensor.untyped_storage()` gives the storage, `.data_ptr()` of it an address to tell it by, `.nbytes()` its size.

# %% ex="5.3" title="Count each storage once" points=2 minutes=10 difficulty="medium"
def storage_bytes(tensors, own=()):
    """Bytes of the storages behind `tensors`, each counted once and whole.

    The storages of the tensors in `own` do not count.
    """
    # BEGIN SOLUTION
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    sizes = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())
    # END SOLUTION

# %% ex="5.3" role="check"
storage_bytes = check("5.3", storage_bytes)

# %% [markdown] ex="5.3" role="hints"
# <details><summary>Hint 1</summary>A dict from the address of a storage to its size counts each one once.</details>
# <details><summary>Hint 2</summary>Collect the addresses of `own` in a set first. `tensor.data_ptr()` will not do: a
# view may begin in the middle of its storage.</details>

# %% [markdown]
# With both you can look at what one forward pass of the model keeps, in numbers per token.

# %%
BATCH, LENGTH = 16, 64
torch.manual_seed(args.seed)
tokens = torch.randint(config.vocab_size, (BATCH, LENGTH))


def loss_on_tokens(model):
    return model(input_ids=tokens, labels=tokens, use_cache=False).loss


_, saved = saved_tensors(partial(loss_on_tokens, lm.model.train()))
own = [*lm.model.parameters(), *lm.model.buffers()]
by_storage = {tensor.untyped_storage().data_ptr(): tensor for tensor in saved}
per_token = [storage_bytes([one], own) // (4 * BATCH * LENGTH) for one in by_storage.values()]
sizes = Counter(per_token)
print(f"{len(saved)} tensors, {len(by_storage)} storages, {storage_bytes(saved, own):,} bytes")
for size in sorted(size for size in sizes if size >= 32):
    print(f"{sizes[size]:3d} with {size} numbers per token")

# %% [markdown]
# pocket-m has 5 blocks of width 160 with an MLP of inner width 432. Per token that is in each block 10 vectors of the
# width (inputs of the norms and of the products, queries, keys, values, …) and 4 of the inner width (gate, its bend,
# up, their product); outside the blocks 3 of the width, and one number for each of the 4,000 words: the logits weigh
# more than a block. The other costs are there after a step.

# %% ex="5.4" title="Weigh a step" points=2 minutes=10 difficulty="medium"
def kept_bytes(model, loss):
    """Take a step of torch.optim.AdamW; bytes of (weights, gradients, optimizer states).

    Weights are all parameters of the model, trained are those that require a gradient. What
    the optimizer keeps for a parameter p stands in `optimizer.state[p]`, a dict of tensors.
    """
    # BEGIN SOLUTION
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    loss.backward()
    optimizer.step()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    gradients = sum(parameter.grad.nbytes for parameter in trained)
    states = [tensor for state in optimizer.state.values() for tensor in state.values()]
    return weights, gradients, sum(tensor.nbytes for tensor in states)
    # END SOLUTION

# %% ex="5.4" role="check"
kept_bytes = check("5.4", kept_bytes)

# %% [markdown] ex="5.4" role="hints"
# <details><summary>Hint 1</summary>Before `loss.backward()` there are no gradients, before `optimizer.step()` no
# states. Every tensor knows its size, `tensor.nbytes`.</details>
# <details><summary>Hint 2</summary>`for state in optimizer.state.values() for tensor in state.values()` goes through all
# that the optimizer keeps.</details>

# %% [markdown]
# Now three answers to one question: your formula; `memory_budget` of the package, which runs an architecture on shapes
# without numbers and so foretells activations too; and your own scales on a real step.

# %%
COSTS = ("weights", "gradients", "optimizer", "activations")


def weighed(method):
    """{cost: bytes} of one real step on the model that a method makes of a fresh one."""
    model = method(load_lm(args.model).model).train()
    loss, saved = saved_tensors(partial(loss_on_tokens, model))
    activations = storage_bytes(saved, [*model.parameters(), *model.buffers()])
    return dict(zip(COSTS, (*kept_bytes(model, loss), activations)))


def full(model):
    return model


found = weighed(full)
counted = (*finetuning_bytes(parameters, parameters, 4), None)
foretold = vars(memory_budget(lm, batch=BATCH, length=LENGTH)).values()
for cost, ours, budget in zip(COSTS, counted, foretold):
    ours = f"counted {ours / 1e6:5.2f} MB" if ours else ""
    print(f"{cost:11s} {ours:16s}  foretold {budget / 1e6:5.2f} MB  "
          f"measured {found[cost] / 1e6:5.2f} MB, off by {abs(budget / found[cost] - 1):.2%}")

# %% [markdown]
# The same where nothing can be measured: one sequence of 2,048 tokens, everything in bfloat16.

# %%
LARGE = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
GPT3 = GPT2Config(vocab_size=50257, n_embd=12288, n_layer=96, n_head=96, n_positions=2048)
sequence = {"batch": 1, "length": 2048, "dtype": torch.bfloat16}


def print_gigabytes(name, sizes):
    parts = " ".join(f"{cost} {size / 1e9:5.1f}" for cost, size in zip(COSTS, sizes))
    print(f"{name:18s} {parts}  sum {sum(sizes) / 1e9:7,.1f} GB")


large = tuple(vars(memory_budget(LARGE, **sequence)).values())
print_gigabytes("7B", large)
numbers = count_parameters(GPT3)[1]
print_gigabytes("175B, first three", finetuning_bytes(numbers, numbers, 2))
guesses.reveal("step_of_7B", f"{sum(large) / 1e9:.1f} GB")

# %% [markdown]
# **What you saw.** [C16] Counting foretells a step, and running the architecture on shapes foretells it to the byte.
# For a large model gradients and optimizer cost three times the weights, even with moments in bfloat16; in float32,
# with a float32 copy of the weights, as is usual, it is more. A method that trains little saves nearly all of that.
# Activations are another matter: they grow with the tokens of a step. For pocket-m they are most of the bytes.

# %% [markdown]
# ## Select: train a part
# Freezing is one flag, `requires_grad`, and parameters are chosen by name. Here by patterns as for files: `*` stands
# for anything, so `*.bias` matches every name that ends so (`fnmatch.fnmatchcase(name, pattern)`).

# %%
print(*names[1:11], "…", *names[-2:], sep="\n")

# %% ex="5.5" title="Train by name" points=2 minutes=8 difficulty="easy"
def train_only(model, patterns):
    """Train the parameters whose name matches one of the patterns, freeze all others.

    Returns the model. Raises a ValueError that names the pattern if one matches no parameter.
    """
    # BEGIN SOLUTION
    named = dict(model.named_parameters())
    for pattern in patterns:
        if not fnmatch.filter(named, pattern):
            raise ValueError(f"patterns: {pattern!r} matches no parameter")
    for name, parameter in named.items():
        matched = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
        parameter.requires_grad_(bool(matched))
    return model
    # END SOLUTION

# %% ex="5.5" role="check"
train_only = check("5.5", train_only)

# %% [markdown] ex="5.5" role="hints"
# <details><summary>Hint 1</summary>Set the flag of every parameter, to True or to False: some may have been frozen
# before.</details>
# <details><summary>Hint 2</summary>`fnmatch.filter(names, pattern)` lists the names that match. A slip in a pattern
# would otherwise train nothing, without a word.</details>

# %% [markdown]
# **BitFit** (Ben Zaken et al., 2022) trains the bias terms: with your function it is one pattern. Most models of today
# have few biases or none. Llama has none; the pocket models were given one in every linear layer so that BitFit can be
# tried at all.
#
# **Last k layers** (Lee et al., 2019) trains the top blocks and the norm behind them. Head and embedding stay frozen,
# since here they are one matrix: training the head would change the model's input.

# %% ex="5.6" title="The last blocks" points=2 minutes=10 difficulty="medium"
def last_blocks(names, k):
    """Patterns for `train_only` that choose the last k blocks and the norm behind all blocks.

    names, such as "model.layers.7.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight".
    """
    # BEGIN SOLUTION
    numbers = {int(name.split(".")[2]) for name in names if name.startswith("model.layers.")}
    last = sorted(numbers)[-k:]
    return [f"model.layers.{number}.*" for number in last] + ["model.norm.*"]
    # END SOLUTION

# %% ex="5.6" role="check"
last_blocks = check("5.6", last_blocks)

# %% [markdown] ex="5.6" role="hints"
# <details><summary>Hint 1</summary>Split a name at its dots: the third part of a block's name is its number. Turn it into
# an integer, since as texts "9" comes after "10".</details>
# <details><summary>Hint 2</summary>`model.layers.7.*` matches all of block 7. Every block has norms of its own; the one
# behind all blocks is called `model.norm`.</details>

# %%
def bitfit(model):
    return train_only(model, ["*.bias"])


def last(model, k):
    return train_only(model, last_blocks(names, k))


SELECT = {"last 1": partial(last, k=1), "last 2": partial(last, k=2), "BitFit": bitfit}
if not names[1].startswith("model.layers."):
    print(f"the last blocks are left out: {args.model} has other names than Llama")
    SELECT = {"BitFit": bitfit}
if not any(name.endswith(".bias") for name in names):
    print(f"BitFit is left out: {args.model} has no biases")
    del SELECT["BitFit"]
for name, method in SELECT.items():
    trained, total = count_parameters(method(load_lm(args.model).model))
    print(f"{name}: {trained:,} of {total:,} numbers are trained, {trained / total:.1%}")

# %% [markdown]
# ## Insert: train something new
# **Adapters** (Houlsby et al., 2019) leave every number as it is and put a small MLP behind attention and behind the
# MLP of each block: down to a few dimensions, a bend, up again, and added to what came in. With $y$ the output of the
# layer that it stands behind:
#
# $$y + U\,\mathrm{gelu}(D y + d) + u,\qquad U = 0,\ u = 0 \text{ at the start}$$
#
# so that training starts at the base model. $D$ and $d$ start at random, as `nn.Linear` does: were both zero too,
# neither matrix would get a gradient.

# %% ex="5.7" title="An adapter" points=3 minutes=15 difficulty="hard"
class Adapter(nn.Module):
    """A layer and a bottleneck behind it: y + U gelu(D y + d) + u with y = base(states).

    base, the layer, kept as a submodule; width, the length of y; size, of the bottleneck.
    Its own parameters are those of two nn.Linear, D and d from `width` to `size`, U and u back
    again; U and u start at zero.
    """

    def __init__(self, base, width, size):
        # BEGIN SOLUTION
        super().__init__()
        self.base = base
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        # END SOLUTION

    def forward(self, states):
        # BEGIN SOLUTION
        y = self.base(states)
        hidden = nn.functional.gelu(self.down(y))
        return y + self.up(hidden)
        # END SOLUTION

# %% ex="5.7" role="check"
Adapter = check("5.7", Adapter)

# %% [markdown] ex="5.7" role="hints"
# <details><summary>Hint 1</summary>`__init__` begins with `super().__init__()` and keeps three modules on `self`: the
# base and two linear layers. `nn.init.zeros_(tensor)` fills one with zeros.</details>
# <details><summary>Hint 2</summary>gelu bends the few dimensions in the middle, nothing else; $y$ itself goes around
# everything.</details>

# %% [markdown]
# An adapter takes the place of the layer that it wraps: `model.get_submodule(name)` finds a layer by its dotted name,
# `model.set_submodule(name, layer)` puts another one there.

# %% ex="5.8" title="Put in place" points=2 minutes=8 difficulty="medium"
def insert_layers(model, places, make):
    """Freeze the model and replace each layer named in `places` by make(layer).

    What `make` adds is trained. Returns the model.
    """
    # BEGIN SOLUTION
    model.requires_grad_(False)
    for name in places:
        layer = model.get_submodule(name)
        model.set_submodule(name, make(layer))
    return model
    # END SOLUTION

# %% ex="5.8" role="check"
insert_layers = check("5.8", insert_layers)

# %% [markdown] ex="5.8" role="hints"
# <details><summary>Hint 1</summary>`model.requires_grad_(False)` freezes all that is there. What is made afterwards is
# trained.</details>
# <details><summary>Hint 2</summary>For each name: find the layer, wrap it, put the wrapper under the same
# name.</details>

# %%
places = list(matching_layers(lm, parameter_efficient.SUBLAYERS))  # behind attention and MLP


def adapters(model, size=8):
    return insert_layers(model, places, lambda layer: Adapter(layer, config.hidden_size, size))


trained, total = count_parameters(adapters(load_lm(args.model).model))
print(f"{len(places)} adapters: {trained:,} of {total:,} numbers are trained")

# %% [markdown]
# Three properties make it an adapter: it starts as the base, it trains only itself, and a step leaves the base
# untouched, to the bit. Does yours? Write the test before you look. It is tried on eight runs that you can call and
# not read: one inserts adapters as it should, the seven others have a bug each. There are three points, for refusing
# three, five and all seven of them, and none for a test that refuses the right run.

# %%
runs = mystery_runs("5.9")
print(*runs["A"]()[:2], sep="\n")

# %% ex="5.9" title="Test an adapter" points=3 minutes=15 difficulty="hard"
def is_adapter(run):
    """Whether a run inserts adapters as it should.

    run() -> (base, adapted, inputs): a network, a copy of it with adapters inside, and inputs
    to call both with. Both may be trained, on any loss. Returns True or False for any run.
    """
    # BEGIN SOLUTION
    base, adapted, inputs = run()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    kept = list(base.parameters())
    if not trained or len(frozen) != len(kept):
        return False
    if not torch.allclose(adapted(inputs), base(inputs)):
        return False
    before = [parameter.detach().clone() for parameter in trained]
    optimizer = torch.optim.AdamW(trained)
    for _ in range(2):  # U is zero, so that D moves in the second step
        optimizer.zero_grad()
        adapted(inputs).square().mean().backward()
        optimizer.step()
    untouched = all(torch.equal(*pair) for pair in zip(frozen, kept))
    return untouched and not any(torch.equal(*pair) for pair in zip(before, trained))
    # END SOLUTION

# %% ex="5.9" role="check"
is_adapter = check("5.9", is_adapter)

# %% [markdown] ex="5.9" role="hints"
# <details><summary>Hint 1</summary>Compare the outputs first; then count what is frozen against what the base has; then
# take a few steps on the trained parameters and see which tensors have moved.</details>
# <details><summary>Hint 2</summary>An optimizer refuses an empty list, so return False before. At the start only U and u
# get a gradient that is not zero: D moves from the second step on.</details>

# %%
adapted = load_lm(args.model)
adapters(adapted.model)
print(f"your own in {args.model}, passed: {is_adapter(lambda: (lm, adapted, tokens))}")

# %% [markdown]
# The seven bugs: U drawn at random instead of zero; D and d zero as well as U; everything thawed after the insertion;
# one bias of the base left trainable; everything frozen after it; a forward pass that changes the base's weight, though
# it requires no gradient; and an input that is detached, which starves the adapters below. None of them raises an error
# when it is inserted, and all but one train on: they cost memory, or quality, or the promise that one base serves many
# tasks.

# %% [markdown]
# **LoRA** adds a product of two thin matrices beside a weight matrix. Lesson 06 builds it; here it is one point of the
# plot.

# %% [markdown]
# ## The task
# pocket-m knows facts about countries and does not answer questions about them. Finetune it on conversations of four
# kinds, about two thirds of the countries. Ask about the others, in a wording that no training question has: what is
# tested is answering, since the facts come from pretraining.

# %%
FIELDS = ("capital", "region", "language", "currency")
WORDINGS = ("What is the {} of {}?", "Tell me the {} of {}.", "Name the {} of {}.",
            "Which {} does {} have?")
DEVELOPMENT, TEST = "Please say the {} of {}.", "Can you tell me the {} of {}?"
rng = random.Random(args.seed)
facts = [(field, name, answer) for field in FIELDS for name, answer in relations.stated(field)]
countries = sorted({name for _, name, _ in facts})
rng.shuffle(countries)
taught = set(countries[: 2 * len(countries) // 3])
known = [fact for fact in facts if fact[1] in taught]
others = rng.sample([fact for fact in facts if fact[1] not in taught], args.count)


def talk(question, answer):
    asked = {"role": "user", "content": question}
    return [asked, {"role": "assistant", "content": f"{answer}."}]


def talks(facts, wordings, seed=0):
    draw = random.Random(seed)
    return [talk(draw.choice(wordings).format(*about), answer) for *about, answer in facts]


def score(lm, talks):
    """Share of the questions that are answered exactly."""
    texts = complete(lm, [chat_prompt(lm, given[:1]) for given in talks], max_new_tokens=8)
    return sum(exact_match(texts, [given[1]["content"] for given in talks])) / len(talks)


questions = talks(others, [TEST])
base_score = score(lm, questions)
print("a test question:", *(message["content"] for message in questions[0]), sep=" -> ")
print(f"the base model answers {base_score:.0%}")

# %% [markdown]
# Each method has a learning rate of its own: the fewer the numbers, the larger the steps they need, as a rule. A
# comparison at one common rate would compare nothing. Choose by the loss on development questions: a wording that is
# neither trained nor tested, about taught countries.

# %%
# all linear layers but the last of the MLP, by their names in Llama, GPT-2 and NeoX
LINEAR = (r"(q|k|v|o|gate|up)_proj|c_attn|attn\.c_proj|c_fc"
          r"|query_key_value|attention\.dense|dense_h_to_4h")
lora = partial(parameter_efficient.lora, targets=LINEAR, rank=8)
METHODS = {"full": full, **SELECT, "adapters 8": adapters, "LoRA 8": lora}


def finetuned(name, lr, talks, seed=args.seed, **options):
    """A fresh model, changed by a method and trained on conversations."""
    torch.manual_seed(seed)
    lm = load_lm(args.model)
    METHODS[name](lm.model)
    fit_sft(lm, render_all(lm, talks)[0], lr=lr, seed=seed, **options)
    return lm


def taught_by(name, lr, seed):
    drawn = random.Random(seed).choices(known, k=args.examples)
    return finetuned(name, lr, talks(drawn, WORDINGS, seed), seed, batch=16)

# %%
MIDDLE = {"full": 1e-3, "last 1": 3e-3, "last 2": 3e-3, "BitFit": 3e-2}  # of three rates
asked = random.Random(1).sample(known, args.count)
development = render_all(lm, talks(asked, [DEVELOPMENT]))[0]
chosen = {}
for name in progress(METHODS, "learning rates"):
    losses = {}
    for lr in (MIDDLE.get(name, 1e-2) * times for times in (1 / 3, 1, 3)):
        losses[lr] = sft_loss(taught_by(name, lr, args.seed + 100), development)
    chosen[name] = min(losses, key=losses.get)
    print(f"{name:11s}", *(f"{lr:.1g}: {loss:.3f} " for lr, loss in losses.items()))

# %%
scores, trainable = {}, {}
for name in progress(METHODS, "comparison"):
    runs = [taught_by(name, chosen[name], args.seed + seed) for seed in range(args.seeds)]
    trainable[name] = count_parameters(runs[0])[0]
    scores[name] = [score(run, questions) for run in runs]
    mean = wilson(sum(scores[name]) / len(runs), args.count)
    print(f"{name:11s} {trainable[name]:9,} trained, {trainable[name] / parameters:5.1%}:",
          *(f"{share:.2f}" for share in scores[name]), f" mean {mean}")
hundred = {name: round(100 * sum(runs) / len(runs)) for name, runs in scores.items()}
guesses.reveal("last_block", hundred.get("last 1", "left out"))
guesses.reveal("biases", hundred.get("BitFit", "left out"))

# %% [markdown]
# The points are single seeds. The interval behind a mean is one over the questions, which are the same for all: n is
# the number of distinct ones.

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.1))
for index, name in enumerate(METHODS):
    figures.seeds(axes, trainable[name], scores[name], name, index)
axes.axhline(base_score, color="black", linestyle=":", label="base model")
axes.set(title="Questions about other countries, in other words", xlabel="trained parameters",
         xscale="log", ylabel="share answered exactly", ylim=(-0.03, 1.05))
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
said = ", ".join(f"{name} {hundred[name]} % with {trainable[name]:,}" for name in METHODS)
show(figure, alt=f"Score against trained parameters: {said}; base model {base_score:.0%}.")

# %% [markdown]
# **What you saw.** [C17] The base model answers nothing. Adapters with 1.2 % of the parameters and LoRA with 4.5 %
# reach full finetuning, and BitFit with 0.4 % answers nine of ten: the lecture's "yes". Last-k does not get there. The
# last block, with almost 40 times as many numbers as there are biases, answers about a quarter of the questions at the
# best of its learning rates, two blocks two thirds. *Where* numbers are trained decides, not how many. A likely reason:
# that this is a question, and about which country, has to be noticed low in the model so that the blocks above fetch
# the fact; biases and adapters can do that in every block, the last block sees only what the others fetched.
#
# Two cautions. The seeds differ by 0 to 12 points, and 80 questions alone leave an uncertainty of 3 to 10. And all had
# the same 15 steps: on other tasks, with more training, last-k has done better (Lee et al., 2019: a fourth of the
# layers of BERT for 90 % of the quality).

# %% [markdown]
# ## What do they save?
# Back to the scales, now for every kind of method.

# %%
costs = {name: weighed(METHODS[name]) for name in METHODS if name != "last 2"}
halved = {}
for name, bytes_of in costs.items():
    shares = {cost: bytes_of[cost] / found[cost] for cost in COSTS}
    halved[name] = ", ".join(cost for cost in COSTS if shares[cost] <= 0.5) or "nothing"
    print(f"{name:11s}", *(f"{cost} {share:6.1%}" for cost, share in shares.items()))
guesses.reveal("biases_halve", halved.get("BitFit", "left out"))

# %%
figure, axes = pyplot.subplots(figsize=(5, 2.9))
figures.stacked_bars(axes, list(costs), {
    cost: [bytes_of[cost] / 1e6 for bytes_of in costs.values()] for cost in COSTS})
axes.set(title=f"One step of {args.model}, {BATCH} × {LENGTH} tokens", ylabel="megabytes")
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
said = ", ".join(f"{name} {sum(costs[name].values()) / 1e6:.0f} MB" for name in costs)
show(figure, alt=f"Bytes of a step: {said}; activations are the largest part of each.")

# %% [markdown]
# **What you saw.** A small method saves what is kept per *trained* number. The backward pass still runs through all
# blocks, so activations go down by a fifth (LoRA) to 28 % (BitFit) only: a linear layer whose weight is frozen need not
# remember its input. Only `last 1` cuts the pass short: the blocks below it save nothing.
#
# ## What remains: activations and the weights themselves
# Two remedies go with all of these methods. **Gradient checkpointing** (Chen et al., 2016) keeps only the input of
# every block and computes the rest of a block again when the backward pass comes to it: one more forward pass, about a
# third more computing, and the same gradient. **QLoRA** (Dettmers et al., 2023) stores the frozen matrices in four
# bits, in groups of 64 numbers with a scale of eight bits each, and 32 bits more for every 256 scales, which makes
# 4.127 bits a number, and turns one matrix at a time back into bfloat16 to multiply with it. What is trained, LoRA's
# factors, stays in full precision.

# %%
def checkpointed(method):
    """The method, and from then on only the input of every block is kept."""

    def change(model):
        memory.checkpoint_activations(method(model))
        return model

    return change


for name, method in (("full", full), ("adapters 8", adapters)):
    kept = weighed(checkpointed(method))["activations"]
    print(f"{args.model}, {name}: activations {costs[name]['activations'] / 1e6:.1f} MB, "
          f"checkpointed {kept / 1e6:.1f} MB")

lora_7B = partial(parameter_efficient.lora, targets=".*_proj", rank=8)
print_gigabytes("7B, full", large)
for name, method in (("LoRA", lora_7B), ("LoRA, checkpointed", checkpointed(lora_7B))):
    weights, *others = vars(memory_budget(LARGE, method, **sequence)).values()
    print_gigabytes(name, (weights, *others))
linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)  # numbers in the matrices of its blocks
print_gigabytes("and in 4 bits", (weights - 2 * linear + linear * 4.127 / 8, *others))

# %% [markdown]
# The bytes of pocket-m are weighed, by your hooks; those of the 7B model are counted on shapes, and its four bits by
# the rule above: nothing here runs in four bits. LoRA takes 66 GB to 25, since gradients and optimizer states are gone;
# checkpointing takes them to 15, since 93 % of the activations are; four bits take them to 5, which fits a card for
# games. Two things that the scales do not see: while a checkpointed block is computed again, its own activations are
# there for a moment, and in QLoRA so is one matrix in bfloat16.
#
# ## What the smallest ones do not do
# The facts of the task were in the model before. Now teach it something that is nowhere: the code words of 80
# countries, nonsense drawn just now. The test asks for the very facts that were trained. Full finetuning and the two
# methods with the fewest numbers, each at its own rate; LoRA and its rank are asked the same in lesson 06.

# %%
codes = zip(countries[: args.codes], relations.label_words(rng, args.codes, True))
code_talks = [talk(f"What is the code of {name}?", code) for name, code in codes]
print("e.g.", *(message["content"] for message in code_talks[0]))
recalled = {}
few = [name for name in ("full", "adapters 8", "BitFit") if name in METHODS]
for name in progress(few, "new facts"):
    run = finetuned(name, chosen[name], code_talks, epochs=args.epochs, batch=8)
    recalled[name] = score(run, code_talks)
    left = sft_loss(run, render_all(run, code_talks)[0])
    print(f"{name:11s} {recalled[name] * args.codes:3.0f} of {args.codes} code words, "
          f"loss {left:.2f}, share {wilson(recalled[name], args.codes)}")
guesses.reveal("code_words", round(recalled["adapters 8"] * args.codes))

# %% [markdown]
# **What you saw.** In 140 steps full finetuning stores every code word. Adapters and BitFit bring back one each, though
# on the task before they were as good or almost. So both findings belong together: what is *elicited*, a way to answer
# about facts that pretraining stored, fits into few numbers in the right places; what is *new* has to be written
# somewhere, and neither method had done so in these steps. Whether it is room or time that they lack, you can ask with
# the knob `epochs`.
#
# ## Recap
# - A step holds weights, gradients, optimizer states and activations. The first three are counts; the last is what
#   autograd saves, each storage once. All four can be foretold from the configuration.
# - Few trained numbers save gradients and optimizer states. Activations go when the backward pass ends early, or when
#   they are computed again (checkpointing); weights go when they are stored in fewer bits (QLoRA).
# - Select (last k, BitFit) or insert (adapters, LoRA): in both the rest is frozen.
# - *Where* numbers are trained matters more than how many. Each method needs a learning rate of its own.
# - Eliciting what pretraining left in the model takes few numbers; storing what was not there takes more, or longer.
#
# ## Try next
# - `--examples 60`, `--examples 1000`: does the order of the methods change with the data?
# - `--epochs 50`: which methods do store the code words, given time?
# - `adapters` with size 1 or 64: where does the score stop growing, and how many code words come back?
#
# ## References
# - Lee, Tang & Lin (2019). What would Elsa do? Freezing layers during transformer fine-tuning. arXiv:1911.03090: the
#   last k layers.
# - Houlsby et al. (2019). Parameter-efficient transfer learning for NLP. *ICML*: adapters.
# - Ben Zaken, Goldberg & Ravfogel (2022). BitFit: simple parameter-efficient fine-tuning for transformer-based masked
#   language-models. *ACL*: the biases.
# - Hu et al. (2021). LoRA: low-rank adaptation of large language models. arXiv:2106.09685: the next lesson.
# - Chen et al. (2016). Training deep nets with sublinear memory cost. arXiv:1604.06174: checkpointing.
# - Dettmers et al. (2023). QLoRA: efficient finetuning of quantized LLMs. *NeurIPS*: four bits.
