# Lesson 05: parameter-efficient finetuning. jupytext py:percent; runs as a script: python lessons/05_parameter_efficient.py --help

# %% [markdown]
# # 05 · Parameter-efficient finetuning: which numbers have to move?
#
# "Finetuning all weights of a large model can be expensive (in what way?)" First you answer the lecture's question in
# bytes, predicted and then measured on a real step. Then you freeze the model and train a few of its numbers, or a few
# new ones, and see which methods reach full finetuning and where each one gives up. *(Lecture: "Parameter efficient
# finetuning"; claims C16–C17.)* About 60 minutes; runs in 80 s on two CPU cores.
#
# **You will need** the chat examples and the loss of supervised finetuning: likelihood of the response tokens.
# **You will be able to** say what a finetuning step holds in memory, build last-k, BitFit and adapters by hand, and
# choose between them.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import random
from functools import partial

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.finetuning import parameter_efficient
from ptlearn.finetuning.memory import count_parameters, memory_budget, saved_bytes
from ptlearn.finetuning.sft import fit_sft, sft_loss
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import exact_match
from ptlearn.lm.text import complete
from ptlearn.pocket import relations
from ptlearn.statistics import over_seeds, wilson

args = arguments(
    "Bytes of a finetuning step, and score against trainable parameters.",
    model=("pocket-m", "the language model"),
    examples=(240, "conversations to finetune on", "at least 1"),
    count=(80, "questions per score", "at least 1"),
    seeds=(3, "seeds per method in the comparison", "at least 1"),
    epochs=(25, "epochs over the new facts in the last experiment", "at least 1"),
    seed=(0, "of everything else", "at least 0"),
)
torch.set_num_threads(1)  # the products are small: a second thread would mostly wait for the first
lm = load_lm(args.model)

from transformers import GPT2Config, LlamaConfig, logging

logging.set_verbosity_error()
print(f"{args.model}: {count_parameters(lm)[1]:,} parameters, {lm.model.config.num_hidden_layers} blocks")

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. The weights of a 7B model take 13.5 GB in bfloat16. **How much does one step of finetuning it with AdamW hold?**
# 2. Train only the bias terms, 0.4 % of the model. **Which of the costs falls by half or more: gradients, optimizer
#    states, activations?**
# 3. The last block has 40 times as many numbers as there are biases. **Which of the two learns the task better?**

# %% [markdown]
# ## Expensive in what way?
# A step holds the **weights**; a **gradient** for every number that is trained; what the **optimizer** remembers of it
# (AdamW: two moments, a mean and a mean square); and the **activations** that the backward pass will need. The first
# three are counting.

# %% ex="5.1" points=1 minutes=6 difficulty="easy"
def finetuning_bytes(parameters, trained, bytes_per_number, moments=2):
    """(weights, gradients, optimizer states) in bytes, every number stored in `bytes_per_number` bytes.

    parameters, of the whole model; trained, those that an optimizer with `moments` numbers for each one updates.
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
# Activations depend on the architecture. In a Llama block in float32 autograd saves for each token 10 vectors of the
# model's width (inputs of the norms, queries, keys, values, …) and 4 of the MLP's inner width; outside the blocks 3
# of the width, and one number per word of the vocabulary. If the gradient passes through the last few blocks only, the
# blocks below save nothing.

# %% ex="5.2" points=1 minutes=6 difficulty="easy"
def activation_bytes(tokens, blocks, width, inner, vocabulary, bytes_per_number=4):
    """Bytes that the forward pass saves for `tokens` tokens (batch times length).

    blocks, those that the gradient passes through; the counts 10, 4 and 3 stand in the text above.
    """
    # BEGIN SOLUTION
    per_token = blocks * (10 * width + 4 * inner) + 3 * width + vocabulary
    return tokens * per_token * bytes_per_number
    # END SOLUTION

# %% ex="5.2" role="check"
activation_bytes = check("5.2", activation_bytes)

# %% [markdown] ex="5.2" role="hints"
# <details><summary>Hint 1</summary>First the numbers for one token: each block has its share, and the rest comes
# once.</details>
# <details><summary>Hint 2</summary>`blocks * (10 * width + 4 * inner)`, plus what comes once; then times tokens and
# bytes.</details>

# %% [markdown]
# Three answers to one question: your formulas; `memory_budget`, which runs this architecture on shapes without numbers;
# and a real step of AdamW.

# %%
BATCH, LENGTH = 16, 64
COSTS = ("weights", "gradients", "optimizer", "activations")


def measured_bytes(lm):
    """One real step: bytes of weights, gradients, optimizer states and of what autograd saved."""
    optimizer = torch.optim.AdamW(parameter_efficient.trainable_parameters(lm), lr=0.0)
    tokens = torch.randint(lm.model.config.vocab_size, (BATCH, LENGTH))
    loss, saved = saved_bytes(lm, lambda: lm.model(input_ids=tokens, labels=tokens, use_cache=False).loss)
    loss.backward()
    optimizer.step()
    states = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    gradients = sum(p.grad.nbytes for p in lm.parameters() if p.grad is not None)
    return sum(p.nbytes for p in lm.parameters()), gradients, states, saved


def compare_bytes(name, method, blocks):
    """Print the three answers for one method; return the measured bytes."""
    model, config = load_lm(args.model), lm.model.config
    model = model if method is None else method(model)
    trained, total = count_parameters(model)
    inner = getattr(config, "intermediate_size", 4 * config.hidden_size)  # GPT-2 has no name for it
    ours = (*finetuning_bytes(total, trained, 4),
            activation_bytes(BATCH * LENGTH, blocks, config.hidden_size, inner, config.vocab_size))
    budget = memory_budget(lm, method, batch=BATCH, length=LENGTH)
    budget = (budget.weights, budget.gradients, budget.optimizer_states, budget.activations)
    found = measured_bytes(model.train())
    for row, numbers in (("formula", ours), ("budget", budget), ("measured", found)):
        print(f"{name:12s} {row:9s}", *(f"{cost} {x / 1e6:6.2f}" for cost, x in zip(COSTS, numbers)), "MB")
    return dict(zip(COSTS, zip(ours, budget, found)))


# %%
layers = lm.model.config.num_hidden_layers
last_1 = partial(parameter_efficient.last_k, k=1)
costs = {"full": compare_bytes("full", None, layers), "last 1": compare_bytes("last 1", last_1, 1)}
for cost in COSTS:
    ours, budget, found = (costs["full"][cost][i] for i in range(3))
    print(f"full, {cost}: formula off by {abs(ours / found - 1):.2%}, budget by {abs(budget / found - 1):.2%}")
    if args.model.startswith("pocket"):
        assert abs(ours / found - 1) < (0.15 if cost == "activations" else 0.01)
        assert abs(budget / found - 1) < (0.15 if cost == "activations" else 0.01)

# %% [markdown]
# The same arithmetic where nothing can be measured: one sequence of 2,048 tokens, everything in bfloat16.

# %%
LARGE = {"7B": LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                           num_attention_heads=32),
         "175B": GPT2Config(vocab_size=50257, n_embd=12288, n_layer=96, n_head=96, n_positions=2048)}  # fmt: skip
budgets = {name: memory_budget(config, batch=1, length=2048, dtype=torch.bfloat16) for name, config in LARGE.items()}
for name, budget in budgets.items():
    print(f"{name:5s} weights {budget.weights / 1e9:6.1f}  gradients {budget.gradients / 1e9:6.1f}  optimizer "
          f"{budget.optimizer_states / 1e9:6.1f}  activations {budget.activations / 1e9:6.1f}  total "
          f"{budget.total / 1e9:,.0f} GB")  # fmt: skip
    assert budget.gradients == finetuning_bytes(count_parameters(LARGE[name])[1], budget.gradients // 2, 2)[1]

# %% [markdown]
# **What you saw.** [C16] Counting predicts a step. For a large model gradients and optimizer cost three times the
# weights, even with moments in bfloat16; in float32, with a float32 copy of the weights, as is usual, it is more. A
# method that trains little saves those three quarters. Activations are another matter: for pocket-m they are most of
# the bytes, and of them `last 1` saves two thirds, because the backward pass ends early.

# %% [markdown]
# ## Select: train a part
# Freezing is one flag, `requires_grad`. **Last k layers** (Lee et al., 2019) trains the top blocks and the norm behind
# them. Head and embedding stay frozen, since here they are one matrix.

# %% ex="5.3" points=2 minutes=10 difficulty="medium"
def last_blocks(names, k):
    """The names of the parameters that last-k trains, in the given order.

    names, such as "model.layers.7.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight".
    """
    # BEGIN SOLUTION
    def number(name):
        return int(name.split(".")[2]) if name.startswith("model.layers.") else -1

    first = max(map(number, names)) + 1 - k
    return [name for name in names if number(name) >= first or name.startswith("model.norm.")]
    # END SOLUTION

# %% ex="5.3" role="check"
last_blocks = check("5.3", last_blocks)

# %% [markdown] ex="5.3" role="hints"
# <details><summary>Hint 1</summary>Split a name at its dots: the third part of a block's name is its number. Turn it into
# an integer, since as texts "9" comes after "10".</details>
# <details><summary>Hint 2</summary>The first block that is trained is the highest number + 1 - k. Every block has norms
# of its own; the one behind all blocks is called `model.norm`.</details>

# %%
def train_only(model, chosen):
    """Freeze everything but the named parameters of the causal LM."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return model


def trained_names(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


names = [name for name, _ in lm.model.named_parameters()]
llama = "model.layers.0.mlp.up_proj.weight" in names
for k in (1, 2) if llama else ():
    ours = trained_names(train_only(load_lm(args.model).model, last_blocks(names, k)))
    assert ours == trained_names(parameter_efficient.last_k(load_lm(args.model).model, k=k))
    print(f"last {k}: {len(ours)} tensors")
if not llama:
    print(f"the parameters of {args.model} have other names than Llama's: your function is not compared with the package's")

# %% [markdown]
# **BitFit** (Ben Zaken et al., 2022) trains the bias terms. Its whole code is a line. Most models of today have none, and
# are measured without it.

# %%
biases = [name for name in names if name.endswith(".bias")]
if biases:
    ours = trained_names(train_only(load_lm(args.model).model, biases))
    bitfit = parameter_efficient.bitfit(load_lm(args.model))
    assert ours == trained_names(bitfit.model)
    print(f"BitFit: {count_parameters(bitfit)[0]:,} numbers in {len(ours)} tensors")
else:
    print(f"BitFit is left out: {args.model} has no biases")

# %% [markdown]
# ## Insert: train something new
# **Adapters** (Houlsby et al., 2019) leave every number as it is and put a small MLP behind attention and behind the MLP
# of each block: down to a few dimensions, a bend, up again, and added to what came in:
#
# $$y + U\,\mathrm{gelu}(D y + d) + u,\qquad U = 0,\ u = 0 \text{ at the start}$$

# %% ex="5.4" points=2 minutes=8 difficulty="medium"
def adapter(y, D, d, U, u):
    """y (..., width), D (size, width), d (size,), U (width, size), u (width,) -> (..., width)."""
    # BEGIN SOLUTION
    hidden = torch.nn.functional.gelu(y @ D.T + d)
    return y + hidden @ U.T + u
    # END SOLUTION

# %% ex="5.4" role="check"
adapter = check("5.4", adapter)

# %% [markdown] ex="5.4" role="hints"
# <details><summary>Hint 1</summary>The vectors are rows here, so $D y$ is `y @ D.T`.</details>
# <details><summary>Hint 2</summary>gelu bends the few dimensions in the middle, nothing else; $y$ itself goes around
# everything.</details>

# %%
class HandMadeAdapter(torch.nn.Module):
    """A frozen layer with your adapter behind it, holding the numbers of one of the package's."""

    def __init__(self, made):
        super().__init__()
        self.base, self.made = made.base, made

    def forward(self, states):
        made = self.made
        return adapter(self.base(states), made.down, made.down_bias, made.up, made.up_bias)


package = parameter_efficient.adapters(load_lm(args.model), size=8)
probe = torch.randint(lm.model.config.vocab_size, (2, 12))
with torch.no_grad():
    assert torch.allclose(package(probe), lm(probe), atol=1e-5)  # U = 0: nothing has changed yet
    for parameter in parameter_efficient.trainable_parameters(package):
        parameter.normal_(std=0.1)
    expected = package(probe)
    places = [name for name, module in package.named_modules() if type(module).__name__ == "Adapter"]
    for name in places:
        package.set_submodule(name, HandMadeAdapter(package.get_submodule(name)))
    off, moved = ((package(probe) - expected).abs().max(), (expected - lm(probe)).abs().max())
    assert off < 1e-4 * expected.abs().max() and moved > 1e-3 * expected.abs().max()
print(f"{len(places)} adapters in {layers} blocks")

# %% ex="5.5" points=1 minutes=5 difficulty="easy"
def adapter_parameters(blocks, width, size):
    """How many numbers the adapters of a model have: two adapters in each block, with their biases."""
    # BEGIN SOLUTION
    return 2 * blocks * (2 * width * size + size + width)
    # END SOLUTION

# %% ex="5.5" role="check"
adapter_parameters = check("5.5", adapter_parameters)

# %% [markdown] ex="5.5" role="hints"
# <details><summary>Hint 1</summary>One adapter: D, d, U and u.</details>
# <details><summary>Hint 2</summary>D and U have width times size numbers each; d has size, u has width.</details>

# %%
for size in (1, 8, 64):
    counted = count_parameters(lm.model.config, partial(parameter_efficient.adapters, size=size))[0]
    assert counted == adapter_parameters(layers, lm.model.config.hidden_size, size)
trained = adapter_parameters(32, 4096, 64)
rows = {"full": count_parameters(LARGE["7B"])[1], "adapters 64": trained}
for name, trained in rows.items():
    total = rows["full"] + (trained if name != "full" else 0)
    print(f"7B, {name:12s}", *(f"{cost} {x / 1e9:7.3f}" for cost, x in zip(COSTS, finetuning_bytes(total, trained, 2))), "GB")

# %% [markdown]
# **LoRA** adds a product of two thin matrices beside a weight matrix. Lesson 06 builds it; here it is one point of the
# plot.

# %% [markdown]
# ## The task
# pocket-m knows facts about countries and does not answer questions about them. Finetune it on conversations of four
# kinds, about two thirds of the countries. Ask about the others, in words that no training question has: what is tested
# is answering, since the facts come from pretraining.

# %%
FIELDS = ("capital", "region", "language", "currency")
WORDINGS = ("What is the {} of {}?", "Tell me the {} of {}.", "Name the {} of {}.", "Which {} does {} have?")
DEVELOPMENT, TEST = "Please say the {} of {}.", "Can you tell me the {} of {}?"
rng = random.Random(args.seed)
countries = sorted({name for field in FIELDS for name, _ in relations.stated(field)})
rng.shuffle(countries)
taught = set(countries[: 2 * len(countries) // 3])
facts = [(field, name, answer) for field in FIELDS for name, answer in relations.stated(field)]
known = [fact for fact in facts if fact[1] in taught]
others = rng.sample([fact for fact in facts if fact[1] not in taught], args.count)


def conversation(wording, fact):
    field, name, answer = fact
    return [{"role": "user", "content": wording.format(field, name)}, {"role": "assistant", "content": f"{answer}."}]


# %%
def taught_examples(seed):
    """What one run is finetuned on."""
    draw = random.Random(seed)
    return render_all(lm, [conversation(draw.choice(WORDINGS), draw.choice(known)) for _ in range(args.examples)])[0]


def score(lm):
    """Share of the questions about other countries, in the test's words, that are answered exactly."""
    talks = [conversation(TEST, fact) for fact in others]
    texts = complete(lm, [chat_prompt(lm, talk[:1]) for talk in talks], max_new_tokens=8)
    return sum(exact_match(texts, [talk[1]["content"] for talk in talks])) / len(talks)


def estimate(scores):
    """The mean with its interval over seeds; with one seed over the questions, all that there is."""
    return over_seeds(scores) if len(scores) > 1 else wilson(scores[0], args.count)


def finetuned(method, lr, seed):
    model = load_lm(args.model)
    model = model if method is None else method(model)
    fit_sft(model, taught_examples(seed), batch=16, lr=lr, seed=seed)
    return model


base_score = score(lm)
print(*(message["content"] for message in conversation(WORDINGS[0], known[0])), sep=" -> ")
print(f"the base model answers {base_score:.0%}")

# %% [markdown]
# Each method has a learning rate of its own: the fewer and the newer the numbers, the larger the steps they need. A
# comparison at one common rate would compare nothing. Choose by the loss on development questions: a wording that is
# neither trained nor tested, about taught countries.

# %%
# all linear layers but the last of the MLP, by their names in Llama, GPT-2 and NeoX: 5 % of the parameters of pocket-m
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "c_attn", "attn.c_proj", "c_fc",
          "query_key_value", "attention.dense", "dense_h_to_4h")  # fmt: skip
targets = [end for end in LINEAR if any(name.endswith(f".{end}.weight") for name in names)]
lora_8 = partial(parameter_efficient.lora, targets=targets, rank=8)
METHODS = {
    "full": (None, (3e-4, 1e-3, 3e-3)),
    "last 1": (last_1, (3e-3, 1e-2, 3e-2)),
    "last 2": (partial(parameter_efficient.last_k, k=2), (1e-3, 3e-3, 1e-2)),
    "BitFit": (parameter_efficient.bitfit, (1e-2, 3e-2, 1e-1)),
    "adapters 8": (partial(parameter_efficient.adapters, size=8), (1e-2, 3e-2, 1e-1)),
    "LoRA 8": (lora_8, (3e-3, 1e-2, 3e-2)),
}
METHODS = {name: method for name, method in METHODS.items() if biases or name != "BitFit"}
development = render_all(lm, [conversation(DEVELOPMENT, fact) for fact in random.Random(1).sample(known, args.count)])[0]
chosen = {}
for name, (method, rates) in progress(METHODS.items(), "learning rates"):
    losses = {lr: sft_loss(finetuned(method, lr, args.seed + 100), development) for lr in rates}
    chosen[name] = min(losses, key=losses.get)
    print(f"{name:11s}", "  ".join(f"{lr:g}: {loss:.3f}" for lr, loss in losses.items()), f" -> {chosen[name]:g}")

# %%
scores, trainable = {}, {}
for name, (method, _) in progress(METHODS.items(), "comparison"):
    runs = [finetuned(method, chosen[name], args.seed + seed) for seed in range(args.seeds)]
    trainable[name] = count_parameters(runs[0])[0]
    scores[name] = [score(model) for model in runs]
    print(f"{name:11s} {trainable[name]:9,} trained ({trainable[name] / count_parameters(lm)[1]:.1%}): "
          f"score {estimate(scores[name])}")  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.1))
for index, name in enumerate(METHODS):
    e = estimate(scores[name])
    axes.errorbar(trainable[name], e.mean, yerr=[[e.mean - max(e.low, 0)], [min(e.high, 1) - e.mean]], capsize=3,
                  fmt=figures.MARKERS[index % len(figures.MARKERS)], color=figures.COLORS[index], label=name)  # fmt: skip
axes.axhline(base_score, color="black", linestyle=":", label="base model")
axes.set(title="Questions about other countries, in other words", xlabel="trained parameters", xscale="log",
         ylabel="share answered exactly", ylim=(-0.03, 1.05))  # fmt: skip
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
said = ", ".join(f"{name} {estimate(scores[name]).mean:.2f} with {trainable[name]:,}" for name in METHODS)
show(figure, alt=f"Score against trained parameters, mean of {args.seeds} seeds: {said}; base {base_score:.2f}.")

# %% [markdown]
# **What you saw.** [C17] The base model answers nothing. Adapters with about 1 % of the parameters and LoRA with 4.5 %
# reach full finetuning, and BitFit with 0.4 % comes within a sixth of it: the lecture's "yes". Last-k does not. The last block, with almost
# 40 times as many numbers as there are biases, answers about a quarter of the questions at the best of its
# learning rates, two blocks about seven tenths. *Where* numbers are trained decides, not how many. A likely reason: that
# this is a question, and about which country, has to be noticed low in the model so that the blocks above fetch the
# fact; biases and adapters can do that in every block, the last block sees only what the others fetched.
#
# Two cautions. Three seeds make wide intervals, and seeds that happen to agree make an interval of no width, while 80
# questions alone leave an uncertainty of some points. And all had the same 15 steps: on other tasks, with more
# training, last-k has done better (Lee et al., 2019: a fourth of the layers of BERT for 90 % of the quality).

# %% [markdown]
# ## What do they save?
# Back to the bytes, now for every kind of method.

# %%
for name in [name for name in METHODS if name not in ("full", "last 1", "last 2")]:
    costs[name] = compare_bytes(name, METHODS[name][0], layers)
measured = {name: [costs[name][cost][2] / costs["full"][cost][2] for cost in COSTS] for name in costs}
print("measured, as a share of full finetuning")
for name, shares in measured.items():
    print(f"{name:11s}", *(f"{cost} {share:6.1%}" for cost, share in zip(COSTS, shares)))

# %%
figure, axes = pyplot.subplots(figsize=(5, 2.9))
bottom = [0.0] * len(costs)
for index, cost in enumerate(COSTS):
    heights = [costs[name][cost][2] / 1e6 for name in costs]
    axes.bar(range(len(costs)), heights, bottom=bottom, color=figures.COLORS[index], label=cost, edgecolor="white")
    bottom = [x + y for x, y in zip(bottom, heights)]
axes.set(title=f"One step of {args.model}, {BATCH} × {LENGTH} tokens", ylabel="measured megabytes")
axes.set_xticks(range(len(costs)), costs)
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
said = ", ".join(f"{name} {total:.0f} MB" for name, total in zip(costs, bottom))
show(figure, alt=f"Stacked bars of measured bytes per step: {said}; most of each bar are activations.")

# %% ex="5.6" points=1 minutes=5 difficulty="easy"
# For each method the costs that are less than half of full finetuning's, out of
# "weights", "gradients", "optimizer", "activations": {"last 1": [...], "BitFit": [...], ...}
# BEGIN SOLUTION
saves = {
    "last 1": ["gradients", "optimizer", "activations"],
    "BitFit": ["gradients", "optimizer"],
    "adapters 8": ["gradients", "optimizer"],
    "LoRA 8": ["gradients", "optimizer"],
}
# END SOLUTION

# %% ex="5.6" role="check"
saves = check("5.6", saves)

# %% [markdown] ex="5.6" role="hints"
# <details><summary>Hint 1</summary>Is anything trained in the lowest block? Then the gradient has to come all the way
# down.</details>
# <details><summary>Hint 2</summary>Read the table above; weights that are frozen are stored all the same.</details>

# %%
for name in [name for name in saves if name in measured]:
    shrunk = [cost for cost, share in zip(COSTS, measured[name]) if share < 0.5]
    assert sorted(shrunk) == sorted(saves[name]) or not args.model.startswith("pocket")
    print(f"{name:11s} saves {', '.join(shrunk) or 'nothing'}")

# %% [markdown]
# **What you saw.** A small method saves what is kept per *trained* number. The backward pass still runs through all
# blocks, so activations go down by a fifth (LoRA) to a quarter (BitFit) only: a linear layer with a frozen weight need
# not remember its input. (Your formula does not know that and predicts too much here; `memory_budget`, which runs the
# shapes, does.)
# Only `last 1` cuts the pass short. For pocket-m activations decide the total; for the 7B model above, with one
# sequence, gradients and optimizer states are three times what the activations are.

# %% [markdown]
# ## What none of the small ones does
# The facts of the task were in the model before. Now teach it something that is nowhere: the code word of each of 24
# countries, nonsense drawn just now. The test asks for the very facts that were trained.

# %%
invented = relations.label_words(rng, 24, True)
codes = list(zip(countries[:24], invented))
code_talks = [[{"role": "user", "content": f"What is the code of {name}?"}, {"role": "assistant", "content": f"{code}."}]
              for name, code in codes]  # fmt: skip
code_examples = render_all(lm, code_talks)[0]


def recalled(method, lr):
    """How many code words come back after finetuning on them, and the loss that is left."""
    model = load_lm(args.model)
    model = model if method is None else method(model)
    fit_sft(model, code_examples, epochs=args.epochs, batch=24, lr=lr, seed=args.seed)
    texts = complete(model, [chat_prompt(model, talk[:1]) for talk in code_talks], max_new_tokens=8)
    return sum(exact_match(texts, [talk[1]["content"] for talk in code_talks])), sft_loss(model, code_examples)


print("e.g.", *(message["content"] for message in code_talks[0]))
recalls = {}
for name in progress([name for name in METHODS if name not in ("last 2", "LoRA 8")], "new facts"):
    runs = {lr: recalled(METHODS[name][0], lr) for lr in (chosen[name], 2 * chosen[name])}
    recalls[name] = max(count for count, _ in runs.values())
    print(f"{name:11s}", "  ".join(f"rate {lr:g}: {count:2d} of 24, loss {loss:.2f}" for lr, (count, loss) in runs.items()))

# %% [markdown]
# **What you saw.** In 25 steps full finetuning stores every code word. The last block gets a third of them, adapters one
# or two, BitFit none, also at twice the learning rate. On the task before, these two were almost as good as full
# finetuning. So both findings belong together: what is *elicited*, a way to answer about facts that pretraining stored,
# fits into few numbers; what is *new* has to be written somewhere, and neither method had done so in these steps. And
# the order has turned: here the block with more numbers beats the few numbers in the right places. Whether it is room
# or time that they lack, you can ask with `--epochs` below.
#
# ## Recap
# - A step holds weights, gradients, optimizer states and activations. The first three are counts, and all four can be
#   predicted from the configuration.
# - Few trained numbers save gradients and optimizer states. Activations go only when the backward pass ends early.
# - Select (last k, BitFit) or insert (adapters, LoRA): in both the rest is frozen.
# - *Where* numbers are trained matters more than how many. Each method needs a learning rate of its own.
# - Eliciting what pretraining left in the model takes few numbers; storing what was not there takes more.
#
# ## Try next
# - `--examples 60`, `--examples 1000`: does the order of the methods change with the data?
# - `--epochs 100`: which methods do store the code words, given time?
# - `adapters` with size 1 or 64: where does the score stop growing?
#
# ## References
# - Lee, Tang & Lin (2019). What would Elsa do? Freezing layers during transformer fine-tuning. arXiv:1911.03090.
# - Houlsby et al. (2019). Parameter-efficient transfer learning for NLP. *ICML*.
# - Ben Zaken, Goldberg & Ravfogel (2022). BitFit: simple parameter-efficient fine-tuning for transformer-based masked
#   language-models. *ACL*.
# - Hu et al. (2021). LoRA: low-rank adaptation of large language models. arXiv:2106.09685.
