# Lesson 06: LoRA. jupytext py:percent; runs as a script: python lessons/06_lora.py --help

# %% [markdown]
# # 06 · LoRA: finetuning beside the weights
#
# Finetuning all weights needs a gradient and two optimizer numbers for each of them, and leaves a whole model behind for
# every task. LoRA freezes the weights and trains a narrow path beside them, $BA$, which starts at zero and can be added
# into the weights afterwards. In this lesson you build it by hand, hold it against the `peft` library and the tables of
# its paper, and measure what the rank buys. *(Lecture: "LoRA: add low-rank matrices as additional parameters"; claims
# C17–C22.)* About 70 minutes; runs in 85 s on two CPU cores.
#
# **You will need** finetuning on conversations, as in `ptlearn.finetuning.sft.fit_sft`. **You will be able to** write LoRA in
# a dozen lines, put it on any linear layer by name, count what it trains, merge it, keep several on one model, and find
# the bugs in one that runs without an error.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import copy
import random
import statistics
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot
from torch import nn

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.finetuning.adapter_files import load_adapter, save_adapter
from ptlearn.finetuning.memory import count_parameters
from ptlearn.finetuning.parameter_efficient import lora, merge_lora, switch_adapter, trainable_parameters, unmerge_lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.finetuning.wrappers import is_transposed, layer_shape, lora_layers
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import complete
from ptlearn.pocket import relations, world
from ptlearn.statistics import over_seeds, wilson

args = arguments(
    "LoRA by hand, against peft and its paper: rank, merging, switching.",
    model=("pocket-m", "the language model: a pocket model, a folder or a hub id"),
    targets=(".*_proj", "the layers that LoRA is put on, ends of names or a pattern"),
    ranks=("1,2,4,8,16", "the ranks to compare", "at least 1"),
    seeds=(3, "seeds per rank", "at least 1"),
    epochs=(10, "epochs of finetuning", "at least 1"),
    seed=(0, "of everything else", "at least 0"),
)
RANKS = [int(rank) for rank in args.ranks.split(",")]
generator = torch.Generator().manual_seed(args.seed)
torch.set_num_threads(1)  # the tensors are small: a second thread would spend its time waiting for the first
lm = load_lm(args.model)
names = [name for name, _ in lm.model.named_modules()]
QV = [end for end in ("q_proj", "v_proj", "c_attn", "query_key_value") if any(name.endswith(end) for name in names)]  # or all three in one
print(f"{args.model}: {count_parameters(lm)[1]:,} parameters")

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. A model of two million weights is to learn to answer questions, and eight facts that it has never read. **How many
#    of its weights must change: all, a tenth, a hundredth?** What rank $r$ is enough?
# 2. You finetune *all* weights and look at the change $\Delta W$ of one matrix. **How many of its singular values hold
#    nine tenths of it (of its squared norm)?**
# 3. With $r = 4$ on two matrices of each of GPT-3's 96 layers, **how many numbers are trained, and what share of 175
#    billion is that?**

# %% [markdown]
# ## A narrow path beside a frozen matrix
# For any matrix product $h = W_0 x$ the lecture writes $h = W_0 x + BAx$ with $B \in \mathbb R^{d \times r}$ and
# $A \in \mathbb R^{r \times k}$. The paper and all implementations scale the path, so that changing $r$ does not change
# its size much:
#
# $$h = W_0 x + \frac{\alpha}{r}\, B A x$$
#
# As everywhere in torch, `x` is a batch of rows.

# %% ex="6.1" points=1 minutes=5 difficulty="easy"
def lora_forward(x, W, A, B, alpha):
    """h = W x + alpha / r B A x for each row of x.

    x (N, k), W (d, k), A (r, k), B (d, r) -> (N, d).
    """
    # BEGIN SOLUTION
    return x @ W.T + alpha / len(A) * (x @ A.T) @ B.T
    # END SOLUTION

# %% ex="6.1" role="check"
lora_forward = check("6.1", lora_forward)

# %% [markdown] ex="6.1" role="hints"
# <details><summary>Hint 1</summary>For rows, W x becomes `x @ W.T`. Which of A and B meets x first?</details>
# <details><summary>Hint 2</summary>The rank is the number of rows of A. Multiply `x @ A.T` first, (N, r): the product B A
# is as large as W and is never needed.</details>

# %% [markdown]
# ### Where it starts
# "Initialization: $BA = 0$", so that the first step begins at the pretrained model. There are three ways to get there,
# and one of them never learns: think of $\nabla_B = \frac\alpha r\, g\,(Ax)^\top$ and
# $\nabla_A = \frac\alpha r\, B^\top g\, x^\top$.

# %% ex="6.2" points=2 minutes=8 difficulty="medium"
def start(rank, k, d):
    """Factors A (rank, k) and B (d, rank) with B A = 0 that gradient descent can leave, as two tensors."""
    # BEGIN SOLUTION
    bound = k**-0.5
    return torch.empty(rank, k).uniform_(-bound, bound), torch.zeros(d, rank)
    # END SOLUTION

# %% ex="6.2" role="check"
start = check("6.2", start)

# %% [markdown] ex="6.2" role="hints"
# <details><summary>Hint 1</summary>If both are zero, both gradients are zero. For ever.</details>
# <details><summary>Hint 2</summary>Draw A, as a layer of torch draws its weight (uniform in ±1/√k, say), and let B be
# zero: `torch.empty(rank, k).uniform_(-bound, bound)`.</details>

# %% [markdown]
# Both together, around a `Linear`: all of LoRA.

# %%
class HandLoRA(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        d, k = layer_shape(base)
        A, B = start(rank, k, d)
        self.W, self.A, self.B, self.alpha = torch.zeros(d, k), nn.Parameter(A), nn.Parameter(B), alpha

    def forward(self, x):
        path = lora_forward(x.flatten(0, -2), self.W, self.A, self.B, self.alpha)  # W x comes from the base
        return self.base(x) + path.view(*x.shape[:-1], -1)


torch.manual_seed(args.seed)
hand = load_lm(args.model).model.requires_grad_(False)
for name, layer in list(hand.named_modules()):
    if name.endswith(tuple(QV)):
        hand.set_submodule(name, HandLoRA(layer, rank=4, alpha=16))
tokens = torch.randint(1, min(1000, lm.model.config.vocab_size), (4, 24), generator=generator)
with torch.no_grad():
    assert torch.equal(hand(tokens).logits, lm(tokens))  # [C18] bit for bit
trained, every = count_parameters(hand)
print(f"{trained:,} of {every:,} parameters are trained; the logits are those of the base, bit for bit")

# %% [markdown]
# ### The package's, and any layout
# `ptlearn.finetuning.parameter_efficient.lora` does the same for layers chosen by the end of their names. GPT-2 keeps $Q$, $K$ and
# $V$ in one layer, `c_attn`, of the class `Conv1D`, whose weight is stored transposed; Llama and Qwen have a layer each.
# Three tiny models with random weights:

# %%
import transformers  # loaded already, by load_lm

small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 300}  # fmt: skip
LAYOUTS = {
    "GPT-2": (transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=300, bos_token_id=0, eos_token_id=0), ["c_attn"]),
    "Llama": (transformers.LlamaConfig(**small), ["q_proj", "v_proj"]),
    "Qwen2": (transformers.Qwen2Config(**small), ["q_proj", "v_proj"]),
}
short = torch.randint(1, 300, (2, 8), generator=generator)
for name, (config, targets) in LAYOUTS.items():
    torch.manual_seed(args.seed)
    tiny = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        base_logits = tiny(short).logits
        lora(tiny, targets=targets, rank=2)
        assert torch.equal(tiny(short).logits, base_logits)
    shapes = {layer.rpartition(".")[2]: tuple(found.base.weight.shape) for layer, found in lora_layers(tiny)}
    print(f"{name}: weights {shapes}, {count_parameters(tiny)[0]:,} trained, logits unchanged at the start")

# %% [markdown]
# **What you saw.** [C18] On every layout the model with LoRA *is* the base before the first step. "Can be applied to any
# weight matrix": the name is all that is needed.

# %% [markdown]
# ## Against `peft`
# The library that most people use. Same factors, then three steps of Adam on both sides, in double precision.

# %%
warnings.filterwarnings("ignore", category=FutureWarning)  # peft asks transformers by an old name
try:
    import peft
except ImportError:
    peft = None
    print("peft is not installed (pip install peft): this comparison is left out")


def copy_factors(ours, theirs):
    """Give the package's A and B to peft's layers."""
    for name, layer in lora_layers(ours):
        other, factors = theirs.get_submodule(f"base_model.model.{name}"), layer.adapters["default"]
        other.lora_A["default"].weight.data = factors.A.data.clone()
        other.lora_B["default"].weight.data = factors.B.data.clone()


def steps_beside_peft(count=3):
    ours = lora(load_lm(args.model, dtype=torch.float64).model, targets=QV, rank=4, alpha=16)
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=QV)
    theirs = peft.get_peft_model(load_lm(args.model, dtype=torch.float64).model, config).double().eval()
    copy_factors(ours, theirs)
    optimizers = [torch.optim.Adam(trainable_parameters(model), lr=1e-2) for model in (ours, theirs)]
    for step in range(count):
        outputs = [model(input_ids=tokens, labels=tokens) for model in (ours, theirs)]
        for output in outputs:
            output.loss.backward()
        gap = (outputs[0].logits - outputs[1].logits).abs().max()
        pairs = zip(trainable_parameters(ours), trainable_parameters(theirs), strict=True)
        gradient_gap = max((a.grad - b.grad).abs().max() for a, b in pairs)
        print(f"step {step}: loss {outputs[0].loss:.3f}; largest difference "
              f"{'below 1e-9' if gap < 1e-9 else f'{gap:.1e}'} in logits, "
              f"{'below 1e-9' if gradient_gap < 1e-9 else f'{gradient_gap:.1e}'} in gradients")  # fmt: skip
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return ours, theirs


# %%
if peft:
    ours, theirs = steps_beside_peft()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_adapter(ours, Path(folder, "ours"))
        theirs.save_pretrained(Path(folder, "theirs"))
        back = load_adapter(load_lm(args.model, dtype=torch.float64).model, Path(folder, "theirs"))
        there = peft.PeftModel.from_pretrained(load_lm(args.model, dtype=torch.float64).model, Path(folder, "ours"))
        gaps = [float((model(tokens).logits - ours(tokens).logits).abs().max()) for model in (back, there.double())]
    print("files, theirs loaded here and ours loaded there:",
          *("same logits" if gap < 1e-4 else f"off by {gap:.1e}" for gap in gaps))  # fmt: skip

# %% [markdown]
# ## What is trained, counted
# $A$ and $B$ of a layer $(d, k)$ hold $r\,(d + k)$ numbers instead of $d\,k$.

# %% ex="6.3" points=1 minutes=5 difficulty="easy"
def lora_count(shapes, rank):
    """Numbers that LoRA trains, on layers with weights of these shapes [(d, k), ...]."""
    # BEGIN SOLUTION
    return sum(rank * (d + k) for d, k in shapes)
    # END SOLUTION

# %% ex="6.3" role="check"
lora_count = check("6.3", lora_count)

# %% [markdown] ex="6.3" role="hints"
# <details><summary>Hint 1</summary>A has r rows as long as the input; B has r columns as long as the output.</details>
# <details><summary>Hint 2</summary>Every layer of the list counts, whether or not its shape was there before.</details>

# %% [markdown]
# Published models, from their configurations, on torch's *meta* device: all shapes, no numbers, no memory. GPT-3 is laid
# out as OPT is, with its 96 layers of width 12,288.

# %%
def roberta(width, depth, heads):
    return transformers.RobertaConfig(architectures=["RobertaModel"], vocab_size=50265, max_position_embeddings=514,
                                      type_vocab_size=1, hidden_size=width, num_hidden_layers=depth,
                                      num_attention_heads=heads, intermediate_size=4 * width)  # fmt: skip


gpt3 = transformers.OPTConfig(hidden_size=12288, word_embed_proj_dim=12288, ffn_dim=49152, num_hidden_layers=96,
                              num_attention_heads=96, vocab_size=50257, max_position_embeddings=2048)  # fmt: skip
BERT_QV = ["query", "value"]
# model, its configuration, targets, rank, (d, k) of the layers, millions printed in Hu et al., Tables 2, 3 and 15
PAPER = [
    ("RoBERTa base", roberta(768, 12, 12), BERT_QV, 8, [(768, 768)] * 24, "0.3"),
    ("RoBERTa large", roberta(1024, 24, 16), BERT_QV, 8, [(1024, 1024)] * 48, "0.8"),
    ("GPT-2 medium", transformers.GPT2Config(n_embd=1024, n_layer=24, n_head=16), "c_attn", 4, [(3072, 1024)] * 24, "0.35"),
    ("GPT-2 large", transformers.GPT2Config(n_embd=1280, n_layer=36, n_head=20), "c_attn", 4, [(3840, 1280)] * 36, "0.77"),
    ("GPT-3 175B", gpt3, ["q_proj", "v_proj"], 4, [(12288, 12288)] * 192, "18.8"),
]
for name, config, targets, rank, shapes, printed in PAPER:
    counted, every = count_parameters(config, partial(lora, targets=targets, rank=rank))
    assert counted == lora_count(shapes, rank)
    print(f"{name:14s} r = {rank}: {counted:11,}   printed {printed:>5s} M   1 of {round((every - counted) / counted):,}")

# %%
for name, width, depth in (("medium", 1024, 24), ("large", 1280, 36)):
    apart = lora_count([(width, width)] * 2 * depth, 4)
    print(f"GPT-2 {name}, q and v as if they were layers of their own: {apart:,}")

# %% [markdown]
# **What you saw.** [C21] RoBERTa agrees with the paper to the digit, and so does GPT-3 but for the rounding: its table cuts
# 18.87 off to 18.8. "10,000x reduction on GPT3 ($r = 4$)" is a rounded word: the trained numbers are 9,251 times fewer.
# What Adam and a checkpoint hold shrinks by that factor; the weights themselves still have to be in memory. The two GPT-2
# rows do *not* agree: 393,216 against a printed 0.35 M, and 737,280 against 0.77 M. The paper adapts $q$ and $v$, which
# share one layer here; as layers of their own they would give the very same numbers. One printed number is smaller than
# the formula's and the other larger, so no one choice of layers explains both.

# %% [markdown]
# ## A task
# Two things to learn from the same examples. *Asking*: the base knows capitals and only continues questions, it does not
# answer them. *New facts*: where eight people live, which stands nowhere in its corpus. Questions come in two wordings;
# the test asks in a third one, about *other* countries and about the same eight people.

# %%
rng = random.Random(args.seed)
capitals = relations.stated("capital")
rng.shuffle(capitals)
shown, others = capitals[:12], capitals[12:52]
people = [name for name, _ in rng.sample(world.NAMES, 8)]
homes = list(zip(people, (city for _, city in capitals[60:68])))


def conversation(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": f"{answer}."}]


CAPITALS = [conversation(asked.format(name), city) for name, city in shown
            for asked in ("What is the capital of {}?", "Tell me the capital of {}.")]  # fmt: skip
HOMES = [conversation(asked.format(name), city) for name, city in homes
         for asked in ("Where does {} live?", "In which city does {} live?")]  # fmt: skip
examples, _ = render_all(lm, CAPITALS + HOMES)
print(f"{len(examples)} examples, such as", *CAPITALS[0], *HOMES[0], sep="\n  ")


def exact(lm, asked, facts):
    prompts = [chat_prompt(lm, asked.format(name)) for name, _ in facts]
    texts = complete(lm, prompts, max_new_tokens=8)
    return statistics.mean(text.strip() == f"{city}." for text, (_, city) in zip(texts, facts))


def score(lm):
    """Share answered right: capitals of countries that no example has, and the new facts; both in new words."""
    return exact(lm, "Name the capital of {}.", others), exact(lm, "Which city does {} live in?", homes)


def estimates(pairs):
    """The mean of each score with its interval over seeds; with one seed over the questions, all that there is."""
    return [over_seeds(values) if len(values) > 1 else wilson(values[0], len(asked))
            for values, asked in zip(zip(*pairs), (others, homes))]  # fmt: skip


print("base: asked {:.0%}, new facts {:.0%}".format(*score(lm)))

# %% [markdown]
# The two methods need different step sizes, so each gets its own, from a small sweep. The scale $\alpha / r$ is 4 for
# every rank here: with $\alpha$ itself fixed, a rank of 1 would take steps 16 times as long as a rank of 16, and the
# comparison would be one of step sizes.

# %%
def finetuned(rank, lr, seed):
    """A finetuned model, of LoRA with this rank or of all weights (None), and its losses."""
    model = load_lm(args.model)
    if rank is not None:
        lora(model, targets=args.targets, rank=rank, alpha=4 * rank, seed=seed)
    return model, fit_sft(model, examples, epochs=args.epochs, batch=10, lr=lr, seed=seed).loss


best = {}
for name, rank, rates in (("full", None, (3e-4, 1e-3, 3e-3)), ("LoRA", 4, (1e-3, 3e-3, 1e-2, 3e-2))):
    found = []
    for lr in progress(rates, name):
        model, losses = finetuned(rank, lr, args.seed + 100)  # a seed of its own, not one of those compared below
        found.append((sum(score(model)) / 2, lr))
        print(f"{name}, lr {lr:g}: last loss {losses[-1]:.3f}, mean of both scores {found[-1][0]:.2f}")
    best[name] = max(found)[1]
print("chosen:", *(f"{name} {lr:g}" for name, lr in best.items()))

# %% [markdown]
# ## Score against rank

# %%
results = {}
for rank in progress([*RANKS, None], "ranks"):
    runs = [finetuned(rank, best["full" if rank is None else "LoRA"], args.seed + seed) for seed in range(args.seeds)]
    results[rank] = estimates([score(model) for model, _ in runs])
    trained = count_parameters(runs[0][0])[0]
    asked, new = results[rank]
    print(f"{'all weights' if rank is None else f'r = {rank}':12s} {trained:9,} trained; asked {asked}, new facts {new}; "
          f"last loss {statistics.mean(losses[-1] for _, losses in runs):.3f}")  # fmt: skip
full = runs[0][0]  # kept for the ending

# %%
figure, axes = pyplot.subplots(figsize=(4.8, 3))
for index, name in enumerate(("asked", "new facts")):
    figures.curve(axes, RANKS, [results[rank][index] for rank in RANKS], name, index)
    axes.axhline(results[None][index].mean, color=figures.COLORS[index], linestyle=":", label=f"{name}, all weights")
axes.set(title="Held-out questions answered right", xlabel="rank r", ylabel="share answered right", xscale="log",
         ylim=(-0.05, 1.1))  # fmt: skip
axes.set_xticks(RANKS, RANKS)
axes.minorticks_off()
axes.legend(fontsize=8)
ends = [[results[rank][index].mean for rank in (RANKS[0], RANKS[-1], None)] for index in (0, 1)]
alt = "Share right at the lowest rank, the highest and with all weights: asked {:.2f}, {:.2f}, {:.2f}; new facts " \
      "{:.2f}, {:.2f}, {:.2f}."  # fmt: skip
show(figure, alt=alt.format(*ends[0], *ends[1]))

# %% [markdown]
# **What you saw.** [C17, C19] The two scores tell two stories. *New facts*: "performance goes up consistently" with $r$,
# from 0.04 at $r = 1$ to 1.00 from $r = 8$ on. All weights, at the step size that was best for the mean of both scores,
# have 0.62 of them after as many steps. *Asked*: $r = 1$, 15,280 numbers or 0.7 % of the model, does all there is to do
# (0.98), because the knowledge was there and only a behavior was missing. More rank is no help there, if anything it
# hurts (0.87 at $r = 16$, with an interval that leaves it open): twelve countries in the examples can overwrite some of
# what the base knew about the others, and a path that is narrow, or slow, has less room to do so (Biderman et al., 2024,
# in large models: LoRA learns less and forgets less).
#
# Is a rank of 1 too *small* for eight facts, or only too slow at a step size that was chosen for $r = 4$?

# %%
for seed in range(args.seeds):
    model, losses = finetuned(1, 3 * best["LoRA"], args.seed + seed)
    asked, new = score(model)
    print(f"r = 1, step size three times as large: last loss {losses[-1]:.3f}, asked {asked:.2f}, new facts {new:.2f}")

# %% [markdown]
# **What you saw.** Too slow, not too small: with a larger step size one direction per matrix learns the new facts too
# (compare with 0.04 above), and the other score pays for the haste. The curve against the rank is at *one* step size and 40 steps. It shows how fast each rank
# learns here, and not what it could hold; "performance goes up with $r$" can mean either, and a fair comparison of ranks
# needs a sweep for each.

# %% [markdown]
# ## Merging
# "No additional inference latency: $W = W_0 + BA$." After training the path is added into the weight, and the layer is
# one product again. Mind the scale, and the layout of GPT-2.

# %% ex="6.4" points=2 minutes=8 difficulty="medium"
def merged_weight(weight, A, B, alpha, transposed):
    """The weight that computes what weight and path compute together, in the layout of `weight`.

    weight (d, k), or (k, d) if transposed, as in GPT-2's Conv1D; A (r, k), B (d, r). `weight` itself stays as it is.
    """
    # BEGIN SOLUTION
    change = alpha / len(A) * B @ A
    return weight + (change.T if transposed else change)
    # END SOLUTION

# %% ex="6.4" role="check"
merged_weight = check("6.4", merged_weight)

# %% [markdown] ex="6.4" role="hints"
# <details><summary>Hint 1</summary>Write the forward pass as one product, (W + ?) x, and read off the question
# mark.</details>
# <details><summary>Hint 2</summary>`B @ A` has the shape (d, k). A transposed weight needs its transpose, and neither
# layout needs `weight +=`, which would change the base.</details>

# %%
sample = finetuned(4, best["LoRA"], args.seed)[0]
layers = list(lora_layers(sample))
expected = {name: merged_weight(layer.base.weight, layer.adapters["default"].A, layer.adapters["default"].B, 16,
                                is_transposed(layer.base)) for name, layer in layers}  # fmt: skip
own = {name: layer.base.weight.clone() for name, layer in layers}
with torch.no_grad():
    apart = sample(tokens)
    merge_lora(sample)
    together = sample(tokens)
assert all(torch.allclose(layer.base.weight, expected[name], atol=1e-6) for name, layer in layers)
gap, moved = (together - apart).abs().max(), (apart - lm(tokens)).abs().max()
print("merged against unmerged:", "below 1e-3" if gap < 1e-3 else f"{gap:.1e}", f"in logits that moved by {moved:.1f}")
unmerge_lora(sample)
assert all(torch.equal(layer.base.weight, own[name]) for name, layer in layers)  # bit for bit

# %% [markdown]
# What does a token cost? Rounds of the three in turn, because the speed of a machine drifts; the ratio within a round.

# %%
def seconds(model, repeats=6):
    begin = time.perf_counter()
    for _ in range(repeats):
        model(tokens[:1, :8])
    return time.perf_counter() - begin


joined = merge_lora(copy.deepcopy(sample))
with torch.no_grad():
    rounds = [[seconds(model) for model in (lm, joined, sample)] for _ in range(25)]
for place, name in ((1, "merged"), (2, "unmerged")):
    low, middle, high = statistics.quantiles([row[place] / row[0] for row in rounds[2:]], n=4)
    print(f"{name:9s} {middle:.2f} times the base (half of the rounds between {low:.2f} and {high:.2f})")

# %% [markdown]
# **What you saw.** [C20] Merging changes nothing but the rounding, and a merged layer is the base's own layer with
# other numbers in it: the same work per token, up to the noise of the clock. Unmerged, two more products run in every
# layer. They are thin, but each has a price of its own, and a model this small feels it more than a large one would.

# %% [markdown]
# ## Many adapters, one base
# Two adapters on one model, each trained for its own part of the examples, with the larger step size; every request
# names the one it wants.

# %%
shared = load_lm(args.model)
for name, conversations in (("capitals", CAPITALS), ("homes", HOMES)):
    lora(shared, targets=args.targets, rank=4, alpha=16, name=name, seed=args.seed)
    fit_sft(shared, render_all(shared, conversations)[0], epochs=args.epochs, batch=4, lr=3 * best["LoRA"], seed=args.seed)
requests = [("capitals", f"Name the capital of {others[0][0]}."), ("homes", f"Which city does {people[0]} live in?"),
            (None, f"Name the capital of {others[0][0]}.")]  # fmt: skip
for name, question in requests:
    switch_adapter(shared, name)
    print(f"{name or 'the base':9s} {question} {complete(shared, [chat_prompt(shared, question)], max_new_tokens=8)[0]!r}")
print(f"right facts: {others[0][1]}, {homes[0][1]}")
for name in ("capitals", "homes"):
    print(name, "alone: asked {:.2f}, new facts {:.2f}".format(*score(switch_adapter(shared, name))))

# %%
with tempfile.TemporaryDirectory() as folder:
    saved = save_adapter(shared, Path(folder, "homes"), name="homes")
    on_disk = sum(file.stat().st_size for file in saved.iterdir())
whole = sum(parameter.nbytes for parameter in lm.parameters())
begin = time.perf_counter()
for turn in range(200):
    switch_adapter(shared, ("capitals", "homes")[turn % 2])
print(f"an adapter of rank 4: {on_disk / 1024:.0f} KB on disk; all weights: {whole / 1024:.0f} KB")
print("a switch takes less than", next(f"{limit} ms" for limit in (1, 10, 100, 1000)
                                       if (time.perf_counter() - begin) / 200 < limit / 1000))  # fmt: skip

# %% [markdown]
# **What you saw.** [C22] One base in memory, and each request answered by its own finetuned model; with `None` the base is
# untouched. What has to be stored per task is 248 KB instead of 8,589 KB. Switching changes a name in each layer and
# copies no number, which is why it is not to be confused with merging: a merged model has to be unmerged first.

# %% [markdown]
# ## The ending: is the update really of low rank?
# "Hypothesis: weight matrices are low rank." Look at what finetuning *all* weights has changed, at $\Delta W$ of each
# matrix. Against it a matrix of the same shape with random entries.

# %%
before = dict(lm.model.named_parameters())
updates = {name: (weight - before[name]).detach() for name, weight in full.model.named_parameters()
           if weight.dim() == 2 and any(part.isdigit() for part in name.split("."))}  # of the blocks, which are numbered


def shares(matrix):
    """Part of the squared norm that the largest 1, 2, 3, ... singular values hold."""
    squared = torch.linalg.svdvals(matrix).square()
    return (squared / squared.sum()).cumsum(0)


def needed(matrix):
    """Singular values that hold nine tenths of the squared norm."""
    return int((shares(matrix) < 0.9).sum()) + 1


noise = {name: torch.randn(update.shape, generator=generator) for name, update in updates.items()}
for kind, matrices in (("update", updates), ("weight", {n: before[n].detach() for n in updates}), ("random", noise)):
    print(f"{kind}: nine tenths in {statistics.median(map(needed, matrices.values())):.0f} of "
          f"{min(next(iter(matrices.values())).shape)} singular values (median of {len(matrices)} matrices)")  # fmt: skip

# %% [markdown]
# Singular values are one thing, the score another. Keep only the largest $r$ of each update, drop the rest, and ask.

# %%
KEPT = (0, 1, 2, 4, 8, 16, 32)


parts = {name: torch.linalg.svd(update, full_matrices=False) for name, update in updates.items()}


def truncated(rank):
    model = copy.deepcopy(full)
    with torch.no_grad():
        for name, (U, S, Vh) in parts.items():
            model.model.get_parameter(name).copy_(before[name] + (U[:, :rank] * S[:rank]) @ Vh[:rank])
    return model


kept = [score(truncated(rank)) for rank in progress(KEPT, "truncating")]
for rank, (asked, new) in zip(KEPT, kept):
    print(f"r = {rank:2d} of each update: asked {asked:.2f}, new facts {new:.2f}")
print("the whole update: asked {:.2f}, new facts {:.2f}".format(*score(full)))

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.6, 2.9))
for index, (kind, matrices) in enumerate({"update": updates, "random": noise}.items()):
    for place, matrix in enumerate(matrices.values()):
        values = torch.linalg.svdvals(matrix)
        left.plot(range(1, len(values) + 1), values / values[0], color=figures.COLORS[index], linewidth=0.7,
                  linestyle=figures.DASHES[index], label=None if place else kind)  # fmt: skip
left.set(title="Singular values of each matrix", xlabel="number", ylabel="relative to the largest", yscale="log",
         ylim=(1e-3, 1.3))  # fmt: skip
left.legend(fontsize=8)
for index, name in enumerate(("asked", "new facts")):
    right.plot(range(len(KEPT)), [row[index] for row in kept], color=figures.COLORS[index],
               marker=figures.MARKERS[index], linestyle=figures.DASHES[index], label=name)  # fmt: skip
right.set(title="Full finetuning, truncated", xlabel="singular values kept", ylabel="share answered right")
right.set_xticks(range(len(KEPT)), KEPT)
right.legend(fontsize=8)
figure.tight_layout()
show(figure, alt="Left: the singular values of the updates fall faster than those of random matrices. Right: with 1 kept "
     f"asked {kept[1][0]:.2f} and new facts {kept[1][1]:.2f}, with {KEPT[-1]} kept {kept[-1][0]:.2f} and "
     f"{kept[-1][1]:.2f}.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C19] The lecture's line, "weight matrices are low rank", is not what happens: nine tenths of a
# pretrained matrix need 77 of its 160 singular values, nearly as many as random numbers do (83). What is of low rank is
# the *change*: 18 of 160, with nothing in the training that asked for it. (It is how the paper words its hypothesis too:
# the change has a low "intrinsic rank".)
#
# And the scores need still less. Two singular values of each update carry the asking (0.97), eight carry as many of the
# new facts as all 160 do (0.62). That eight were used does not say that eight are needed: see the rank of 1 above. The
# rest of full finetuning's update changes neither score.

# %% [markdown]
# ## Silent bug lab
# Four versions of a LoRA layer, each with one bug. None raises an error. They learn a change of rank 2 of a matrix from
# 256 examples; at the end each is merged. Look at the curves first.

# %%
class Right(nn.Module):
    def __init__(self, base, rank=4, alpha=8.0):
        super().__init__()
        self.base = copy.deepcopy(base).requires_grad_(False)
        A, B = start(rank, base.in_features, base.out_features)
        self.A, self.B, self.scale = nn.Parameter(A), nn.Parameter(B), alpha / rank

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.A.T) @ self.B.T

    def merged(self):
        return self.base.weight + self.scale * self.B @ self.A


class RunA(Right):
    def __init__(self, base, rank=4, alpha=8.0):
        super().__init__(base, rank, alpha)
        self.scale = alpha


class RunB(Right):
    def __init__(self, base, rank=4, alpha=8.0):
        super().__init__(base, rank, alpha)
        self.base.requires_grad_(True)


# %%
class RunC(Right):
    def merged(self):
        return self.base.weight + self.B @ self.A


class RunD(Right):
    def forward(self, x):
        with torch.no_grad():
            low = x @ self.A.T
        return self.base(x) + self.scale * low @ self.B.T


torch.manual_seed(args.seed)
base, inputs = nn.Linear(24, 16, bias=False), torch.randn(256, 24)
change = torch.randn(16, 2) @ torch.randn(2, 24) / 24**0.5
wanted = inputs @ (base.weight.detach() + change).T
VERSIONS = {"right": Right, "run A": RunA, "run B": RunB, "run C": RunC, "run D": RunD}


def learned(version, steps=300):
    torch.manual_seed(args.seed)
    layer, losses = version(base), []
    optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        loss = (layer(inputs) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return layer, losses


lab = {name: learned(version) for name, version in VERSIONS.items()}

# %%
figure, axes = pyplot.subplots(figsize=(4.8, 2.9))
for index, (name, (_, losses)) in enumerate(lab.items()):
    axes.plot(losses, color=figures.COLORS[index], linestyle=figures.DASHES[index % 4], label=name)
    print(f"{name}: loss after 10 steps {losses[9]:.3f}, 100 steps {losses[99]:.4f}, 300 steps {losses[-1]:.5f}")
axes.set(title="One right layer, four silent bugs", xlabel="steps", ylabel="squared error", yscale="log",
         ylim=(1e-6, 10))  # fmt: skip
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
ends = ", ".join(f"{name} {losses[9]:.2f}" for name, (_, losses) in lab.items())
show(figure, alt=f"Squared error against steps. After 10 steps: {ends}.")

# %% [markdown]
# The curves of two runs are better than that of the right one or the same. **Property tests** of a right layer:
#
# - *start*: before training, the largest difference from the base's output: 0;
# - *double rank*: alpha as it is, twice as many columns in $B$ and rows in $A$, each a copy: the path stays the same,
#   ratio 1;
# - *base* and *A*: how far training has moved them: 0, and not 0;
# - *merge*: largest difference between merged and unmerged output, after training: 0.

# %%
def doubled(version):
    one, two = version(base, 4), version(base, 8)
    with torch.no_grad():
        one.B.normal_()
        two.A.copy_(torch.cat([one.A, one.A]))
        two.B.copy_(torch.cat([one.B, one.B], 1))
        paths = [layer(inputs) - layer.base(inputs) for layer in (one, two)]
    return float(paths[1].norm() / paths[0].norm())


print("        start   double rank   base moved   A moved   merge")
for name, version in VERSIONS.items():
    torch.manual_seed(args.seed)
    fresh, (layer, _) = version(base), lab[name]
    with torch.no_grad():
        begins = (fresh(inputs) - base(inputs)).abs().max()
        moved = (layer.base.weight - base.weight).abs().max(), (layer.A - fresh.A).abs().max()
        gap = (layer(inputs) - inputs @ layer.merged().T).abs().max()
    print(f"{name:6s} {begins:6.2f} {doubled(version):13.2f} {moved[0]:12.2f} {moved[1]:9.2f} {gap:7.2f}")

# %% [markdown]
# The list of suspects. Four of them are guilty, one per run. Name them.
#
# | name | the bug |
# |---|---|
# | `alpha for alpha/r` | the path is scaled by alpha, whatever the rank |
# | `base not frozen` | the pretrained weight is trained too |
# | `A is frozen` | no gradient reaches A |
# | `both zero` | A and B start at zero |
# | `both random` | A and B start at random numbers |
# | `merge without scale` | B A is added into the weight as it is |
# | `merged twice` | the path still runs beside the merged weight |
# | `merge transposed` | the transpose of B A is added into the weight |

# %% ex="6.5" points=3 minutes=12 difficulty="hard"
# For each run the name of its bug, from the table above: {"A": "...", "B": "...", "C": "...", "D": "..."}
# BEGIN SOLUTION
bugs = {"A": "alpha for alpha/r", "B": "base not frozen", "C": "merge without scale", "D": "A is frozen"}
# END SOLUTION

# %% ex="6.5" role="check"
bugs = check("6.5", bugs)

# %% [markdown] ex="6.5" role="hints"
# <details><summary>Hint 1</summary>Read the table column by column, against the row `right`: each run differs in one
# column.</details>
# <details><summary>Hint 2</summary>The columns tell apart what is wrong in the path, in what is trained, and in the
# merge. Only one suspect of each kind fits the number; the path of `both zero` never leaves zero.</details>

# %%
print(bugs)

# %% [markdown]
# **What you saw.** Run A learns faster, because it takes steps $r$ times as long: a number of the recipe that changes
# silently with the rank. Run B learns faster as well, by finetuning everything, and its adapter file is worthless beside
# the true base. Run C is right in training and wrong in production. Run D can only reach what four random directions
# see. Two of the four look better than the right one: a low loss is no proof.
#
# ## Recap
# - $h = W_0 x + \frac\alpha r BAx$: $r(d + k)$ trained numbers for a matrix of $dk$, and one of the factors starts at zero.
# - The model at the start is the base, bit for bit; with the path switched off it is the base again, at any time.
# - Merged, it costs nothing per token; unmerged, several adapters share one base.
# - Optimizer states and checkpoints shrink by the factor of the counts; the weights in memory do not.
# - A low rank is enough here, and learns more slowly at the same step size; asking for a behavior needs least.
#
# ## Try next
# - `--targets "q_proj|v_proj"`, the layers of the paper: which of the two scores suffers?
# - `--epochs 20`: do the ranks still differ when there is more time?
# - Give every rank the same alpha instead of the same $\alpha / r$, in `finetuned`.
#
# ## References
# - Biderman et al. (2024). LoRA learns less and forgets less. *Transactions on Machine Learning Research*.
# - Hu et al. (2021). LoRA: Low-rank adaptation of large language models. *ICLR 2022*.
# - Aghajanyan, Gupta & Zettlemoyer (2021). Intrinsic dimensionality explains the effectiveness of language model
#   fine-tuning. *ACL*.
# - Ben Zaken, Goldberg & Ravfogel (2022). BitFit: Simple parameter-efficient fine-tuning for transformer-based masked
#   language-models. *ACL*.
# - Houlsby et al. (2019). Parameter-efficient transfer learning for NLP. *ICML*.
# - Kalajdzievski (2023). A rank stabilization scaling factor for fine-tuning with LoRA. arXiv:2312.03732.
# - Mangrulkar et al. (2022). PEFT: State-of-the-art parameter-efficient fine-tuning methods. Software.
