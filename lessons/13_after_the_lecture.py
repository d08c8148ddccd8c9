# Lesson 13: after the lecture. jupytext py:percent; runs as a script: python lessons/13_after_the_lecture.py --help

# %% [markdown]
# # 13 · After the lecture: GRPO, PPO, GSPO, DAPO, reward models, DPO
#
# The lecture ends where today's recipes begin. Their names fill papers, and each is a small change of what you have
# built: another weight in the same loss, or another source of rewards. In this lesson you write what is new in each,
# hold it against an exact gradient, and see the trap of every reward that was *learned*: it can be fooled, and a
# policy that is trained against it finds out how. *(The lecture stops before all of this; its "Summary" of
# reinforcement learning is what you need of it.)* About 223 minutes in two halves, of which 168 for the exercises;
# runs in 100 s on two CPU cores.
#
# **You will need** lesson 12; ratio and clip of lesson 11, the critic of lesson 10. **You will be able to** say in one
# line what GRPO, Dr. GRPO, PPO, GSPO, CISPO, DAPO and DPO change; put a KL penalty where its gradient is right; train a
# reward model and a policy from pairs; recognise reward hacking, and hold it off; test that a penalty is what it says.

# %% [markdown]
# ## Predict first
# Type your guesses over the dots before you run anything else; each is shown beside what you measure. An empty guess
# breaks nothing.
#
# 1. A rollout is used again, after the policy has moved. GRPO lets go of tokens whose probability has moved too far,
#    GSPO of whole completions; CISPO lets go of none, and caps their weight. **Which of the three keeps the direction
#    of the true gradient best?**
# 2. To estimate KL(policy ‖ reference) from the policy's samples one may average $-\log r$ or $r - 1 - \log r$, with
#    $r$ = reference / policy: both are unbiased. **Can you subtract either one from the rewards: "both", or only "the
#    first" or "the second"?**
# 3. A reward model has learned from about 190 pairs, a tenth of them labelled wrongly, and ranks three new pairs out of
#    four as the judge does. **You train a policy against it: what true reward does it end with?** (It begins at about
#    0.4; 1 is the best.)
# 4. DPO raises the *difference* of log π between chosen and rejected completions. **After eight epochs over the same
#    pairs, is log π of the chosen ones "higher" or "lower" than before?**

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

from ptlearn.course.predictions import predict

guesses = predict(
    keeps_most=...,  # "GRPO", "GSPO" or "CISPO"
    from_the_rewards=...,  # "both", "the first" or "the second"
    true_reward_in_the_end=...,  # a number
    chosen_after_long_DPO=...,  # "higher" or "lower"
)

# %% [markdown]
# In a notebook, change a knob by changing its default in the next cell (`beta=(0.5, …`), then run all cells again.

# %%
import copy
import math
from dataclasses import replace
from functools import partial

import torch
from matplotlib import pyplot
from torch.autograd import grad
from torch.nn.functional import cosine_similarity, logsigmoid

from ptlearn import figures
from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import check
from ptlearn.course.lab import mystery_runs
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import completions
from ptlearn.optimization import score_actions
from ptlearn.pocket import tasks
from ptlearn.rl import preferences
from ptlearn.rl.enumeration import enumerate_texts
from ptlearn.rl.policies import TextCritic, hidden_states, scalar_head
from ptlearn.rl.tasks import Problem, Task
from ptlearn.rl.text_collection import attempt, collect_text, pay, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs, take_rows
from ptlearn.statistics import over_seeds

args = arguments(
    "After the lecture: GRPO and its relatives, KL, reward models and their hacking, DPO.",
    model=("pocket-s", "the language model: a pocket model, a folder or a hub id"),
    error_rate=(0.1, "share of the pairs that are labelled wrongly", "at least 0, below 0.5"),
    prompts=(4, "different openings per update", "at least 1"),
    group=(4, "completions per opening", "at least 2"),
    updates=(6, "where the judge pays", "at least 1"),
    model_updates=(16, "where a reward model pays", "at least 1"),
    beta=(0.5, "what a nat of KL costs, in rewards", "above 0"),
    seeds=(5, "reward models, and what learns from them; elsewhere three", "at least 2"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would wait for the first
SEEDS = range(args.seed, args.seed + args.seeds)


def seeded(seed=0):
    """A generator for one measurement: a cell that is run again gives the same again."""
    return torch.Generator().manual_seed(args.seed + seed)


# %% [markdown]
# # First half: names of reinforcement learning on text
#
# ## One task
# Reviews, as the pretraining corpus has them: the model gets the first sentence, `My sister found this hotel.`, and
# goes on. It should go on with **praise**. The *judge* is a program that knows every sentence with which the corpus
# praises what the review is about: a film, a book, a meal or a hotel. It pays the share of such sentences among those
# of the completion, which count as two if there are fewer. Praise that is said twice is not paid at all, nor is
# anything else, such as a string of good words; a last sentence without its full stop is not looked at. In life the
# judge is a person, too slow and too dear to be asked a thousand times. Ours may be asked as often as we like, and that
# is how we shall see what those who cannot ask do not see.

# %% tags=["again"]
base = load_lm(args.model)
task = replace(tasks.sentiment(), max_new_tokens=20)
short = replace(task, max_new_tokens=10)  # what will be shown to those who compare
DRAWS = 16  # completions of each held-out opening: what the base model can do
pool = attempt(task, base, [x for x in task.held_out for _ in range(DRAWS)], seed=args.seed)
truths = pool.rewards.sum(1).view(len(task.held_out), DRAWS)
start, said = float(truths.mean()), completions(base, pool, task.stop)
print(f"the base model's true reward on {len(truths)} openings: {start:.2f}. It writes:")
for opening, (problem, paid) in enumerate(zip(task.held_out[:4], truths)):
    print(f"{paid[0]:.2f}  {problem.prompt} -> {said[opening * DRAWS]}")


# %%
def judged(lm, samples=6):
    """A policy's true reward on held-out openings, and its KL to the base per completion."""
    problems = [problem for problem in task.held_out for _ in range(samples)]
    rollout = attempt(task, lm, problems, seed=args.seed + 1)
    before, _ = score_actions(base, rollout, None)
    kl = pg.kl_estimates(rollout.logprobs, before, rollout.mask).k1.sum(1).mean()
    return float(rollout.rewards.sum(1).mean()), float(kl)


# %% [markdown]
# ## Compared within a group
# GRPO (Shao et al., 2024) samples a group of $n$ completions for each prompt and compares them with each other: the
# advantage of a completion is its reward minus the mean of its group, **divided by the group's standard deviation**.
# Dr. GRPO (Liu et al., 2025) leaves the division out.

# %% ex="13.1" title="Advantages within a group" points=2 difficulty="easy" minutes=8
def group_advantages(rewards, groups):
    """The advantage of each completion, by two names.

    rewards (B,) float; groups (B,) int, the number of each row's prompt, at least two rows
    each, in any order -> a dict of two (B,): "Dr. GRPO", the reward minus the mean of its
    group, the row itself included; "GRPO", the same divided by (the group's standard
    deviation, with n − 1 in its denominator, plus 1e-6).
    """
    # BEGIN SOLUTION
    centred, scaled = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for group in groups.unique():
        rows = groups == group
        centred[rows] = rewards[rows] - rewards[rows].mean()
        scaled[rows] = centred[rows] / (rewards[rows].std() + 1e-6)
    return {"Dr. GRPO": centred, "GRPO": scaled}
    # END SOLUTION

# %% ex="13.1" role="check"
group_advantages = check("13.1", group_advantages)

# %% [markdown] ex="13.1" role="hints"
# <details><summary>Hint 1</summary>A loop over <code>groups.unique()</code> is fine: pick the rows of one group, and
# write their advantages into a result of zeros.</details>
# <details><summary>Hint 2</summary>The <code>std()</code> of torch has n − 1 in its denominator already. Where all
# rewards of a group are equal it is 0, and then 1e-6 keeps 0 / 0 away.</details>

# %% tags=["again"]
def won(rollout):
    """Each completion's reward, and the number of its prompt."""
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    return pg.episode_returns(rollout.rewards, rollout.mask), groups


batch, _ = collect_text(task, base, prompts=4, group=4, generator=seeded())
rewards, groups = won(batch)
found = group_advantages(rewards, groups)
rloo = rewards - pg.leave_one_out(rewards, groups=groups)  # lesson 12
assert torch.allclose(found["Dr. GRPO"], rloo * (1 - 1 / 4), atol=1e-5)
for name, each in {"rewards": rewards, "RLOO": rloo, **found}.items():
    print(f"{name:9s}", *(f"{x:5.2f}" + "  " * (i % 4 == 3) for i, x in enumerate(each)))

# %% [markdown]
# **What you saw.** Four groups side by side. Signs and order within a group are the same in all three. Dr. GRPO's
# advantage *is* RLOO's times $1 - 1/n$ (the row itself in the mean costs that factor, lesson 09; the cell asserts it),
# so RLOO needs no run of its own below. GRPO makes groups alike: those whose completions hardly differ are blown up to
# the size of the others.
#
# ## Where the ratio lives
# Sampling is dear, so a rollout is used for several steps, and from the second one on the policy π is no longer the μ
# that sampled it. Lesson 11 had the ratio of a token, $\rho_t = \pi(a_t \mid s_t) / \mu(a_t \mid s_t)$, and of a whole
# trajectory. The recipes differ in where they put it, and the names below are these objectives for one completion $y$
# of $|y|$ tokens with advantage $A$ (PPO's critic gives each token one of its own), the $\varepsilon$ small numbers
# such as 0.2:
#
# $$\begin{aligned}
# \text{PPO, Dr. GRPO} \quad & \textstyle\sum_t
#    \min\big(\rho_t A,\ \mathrm{clip}(\rho_t, 1 - \varepsilon_l, 1 + \varepsilon_h)\, A\big) \\
# \text{GRPO} \quad & \textstyle\frac1{|y|} \sum_t
#    \min\big(\rho_t A,\ \mathrm{clip}(\rho_t, 1 - \varepsilon_l, 1 + \varepsilon_h)\, A\big) \\
# \text{GSPO} \quad & \min\big(s A,\ \mathrm{clip}(s, 1 - \varepsilon_l, 1 + \varepsilon_h)\, A\big), \quad
#    s = \Big(\tfrac{\pi(y)}{\mu(y)}\Big)^{1/|y|} = \Big(\textstyle\prod_t \rho_t\Big)^{1/|y|} \\
# \text{CISPO} \quad & \textstyle\sum_t
#    \mathrm{sg}\big[\mathrm{clip}(\rho_t, 1 - \varepsilon_l, 1 + \varepsilon_h)\big]\, A\, \log \pi(a_t \mid s_t)
# \end{aligned}$$
#
# sg stops the gradient. GSPO (Zheng et al., 2025) has one ratio per sequence, the geometric mean of its tokens'
# ratios, and clips whole sequences. CISPO (MiniMax, 2025) clips the *number* and keeps the gradient of every token.
# Differentiate each of them: what stands before $\nabla \log \pi(a_t \mid s_t)$? Remember $\nabla \rho = \rho\, \nabla
# \log \rho$, and that the slope of $\log s$ by the log-probability of one token is $1/|y|$.

# %% ex="13.2" title="Where the ratio lives" points=4 difficulty="hard" minutes=20
def ratio_weights(logprobs, behavior_logprobs, advantages, mask, form, low=0.2, high=0.2):
    """The weight of ∇ log π(a_t|s_t) in the gradient of one completion's objective.

    form: "token", ρ_t A without a clip; "trajectory", the product of all ρ times A; "clip", of
    PPO's objective: ρ_t A, or 0 where ρ_t is used up (A > 0 and ρ_t > 1 + high, A < 0 and
    ρ_t < 1 - low); "sequence", of GSPO's, with the same rule for s; "stopped", of CISPO's.
    logprobs, behavior_logprobs (B, T) without gradient, anything on padding; advantages
    (B, T), equal within a row for "sequence"; mask (B, T) bool -> (B, T), 0 on padding.
    """
    # BEGIN SOLUTION
    logs = torch.where(mask, logprobs - behavior_logprobs, 0)
    lengths = mask.sum(1, keepdim=True)
    if form == "trajectory":
        ratios = logs.sum(1, keepdim=True).exp()
    elif form == "sequence":
        ratios = (logs.sum(1, keepdim=True) / lengths).exp()
    else:
        ratios = logs.exp()
    weights = ratios * advantages
    if form == "stopped":
        weights = ratios.clamp(1 - low, 1 + high) * advantages
    if form in ("clip", "sequence"):
        used_up = torch.where(advantages > 0, ratios > 1 + high, ratios < 1 - low)
        weights = torch.where(used_up, 0, weights)
    if form == "sequence":
        weights = weights / lengths
    return torch.where(mask, weights, 0)
    # END SOLUTION

# %% ex="13.2" role="check"
ratio_weights = check("13.2", ratio_weights)

# %% [markdown] ex="13.2" role="hints"
# <details><summary>Hint 1</summary>First the log-ratios of the tokens, 0 on padding; then one ratio per token, or one
# per row with <code>keepdim=True</code> (a sum of logarithms; divided by the length for the geometric mean).</details>
# <details><summary>Hint 2</summary>Where the clipped side of a min is taken it is constant: weight 0. GSPO's s depends
# on each token's log-probability with 1/|y|, so that factor stays. CISPO's clamp sets no weight to 0.</details>

# %% [markdown]
# ## How far off is each?
# In a toy world all texts can be listed, as in lesson 12, and then every expected gradient is a finite sum. Four words,
# one of them the end, at most three tokens, two prompts: 80 completions, *texts* for short. A verifier pays 1 for every
# text with a "c" in it.

# %%
def says_c(text):
    """The toy world's verifier."""
    return float("c" in text.split())


reference = toy_lm(["end", "a", "b", "c"])
every, _ = enumerate_texts(reference, ["a b", "c"], max_new_tokens=3)
every = pay(every, [says_c(text) for text in completions(reference, every)])
returns, two = won(every)
total = pg.total_return(every.rewards, every.mask)


def chances(lm):
    """The probability of each text, with gradient, and the log-probability of each token."""
    logprobs = action_logprobs(lm, every)
    return logprobs.sum(1).exp() / 2, logprobs


def slope(lm, value):
    """The gradient of a number in all parameters, as one vector."""
    parts = grad(value, list(lm.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


# %%
def ascend(weigh, steps=150, lr=1e-2, begin=reference):
    """A model after steps of Adam; weigh(chance, logprobs) -> each text's chance by weight."""
    lm = copy.deepcopy(begin)
    adam = torch.optim.Adam(lm.parameters(), lr=lr)
    for _ in range(steps):
        chance, logprobs = chances(lm)
        weights = weigh(chance.detach(), logprobs.detach())
        loss = pg.policy_gradient_loss(logprobs, weights, every.mask, normalizer=1)
        adam.zero_grad(), loss.backward(), adam.step()
    return lm


def with_returns(chance, logprobs):
    """REINFORCE, in expectation."""
    return chance[:, None] * total


def moments(chance):
    """Mean and standard deviation of the returns of each text's prompt, (80, 1) each."""
    within = 2 * (two[:, None] == two) * chance  # of a prompt's texts, a row sums to 1
    mean = within @ returns
    return mean[:, None], (within @ returns**2 - mean**2).sqrt()[:, None]


# %%
sampler = ascend(with_returns, steps=2)  # μ
mu, behavior = (each.detach() for each in chances(sampler))
mean, deviation = moments(mu)
A, length = (returns[:, None] - mean) * every.mask, every.mask.sum(1, keepdim=True)
RECIPES = {  # name: (advantage, form, what each row is divided by)
    "trajectory ratio": (A, "trajectory", 1), "token ratio": (A, "token", 1),
    "PPO, Dr. GRPO": (A, "clip", 1), "GRPO": (A / deviation, "clip", length),
    "GSPO": (A / deviation, "sequence", 1), "CISPO": (A / deviation, "stopped", 1),
}

# %% [markdown]
# The sampler μ is two steps of Adam up $\nabla J$. The policy π is one more step, of three sizes, the first of them 0.
# The advantage is the exact one of a large group: the return minus the mean of its prompt under μ; for GRPO, GSPO and
# CISPO divided by the standard deviation, as their papers have it. ε is 0.2 on both sides. Of each expected gradient:
# its cosine with $\nabla J(\pi)$, and its component along it in units of the length of $\nabla J$, where 1 is all of
# it.

# %%
def expected(lm, weights, chance):
    """The mean gradient over texts that come with these chances."""
    return slope(lm, (chance[:, None] * weights * chances(lm)[1]).sum())


def against(lm, true):
    """Of each recipe: cosine, component along the true gradient, share of the weights at 0."""
    logprobs, found, often = chances(lm)[1].detach(), {}, mu[:, None] * every.mask
    for name, (advantages, form, by) in RECIPES.items():
        weights = ratio_weights(logprobs, behavior, advantages, every.mask, form) / by
        each = expected(lm, weights, mu)
        along, zero = each @ true / (true @ true), (often * (weights == 0)).sum() / often.sum()
        found[name] = float(cosine_similarity(each, true, 0)), float(along), float(zero)
    return found


# %% tags=["again"]
bias = {}
for lr in (0.0, 0.002, 0.01):
    lm = ascend(with_returns, steps=1, lr=lr, begin=sampler)
    chance, _ = chances(lm)
    bias[lr] = against(lm, slope(lm, chance @ returns))
    apart = float((mu * (mu / chance.detach()).log()).sum())
    print(f"KL(μ‖π) = {apart:.4f} nats   cosine   along   weights at 0")
    for name, (cosine, along, zero) in bias[lr].items():
        print(f"    {name:20s} {cosine:9.3f} {along:7.3f} {zero:12.0%}")
guesses.reveal("keeps_most", max(list(RECIPES)[3:], key=lambda name: bias[0.01][name][0]))

# %% [markdown]
# **What you saw.** At the first step, π = μ, every ratio is 1 and its place does not matter. What remains is what a
# recipe divides by: the standard deviation alone (CISPO's row) makes the gradient twice as long here; the length also
# turns it, since each token of a long text counts for less (GRPO and, through its geometric mean, GSPO). Dr. GRPO
# leaves both divisions out. At 0.005 nats nothing is clipped yet. At 0.1 nats the token's ratio is still off by little;
# the three with a clip have a fifth of their weights at 0, and the cosine falls to about a half: what is clipped is
# what had moved *with* the gradient, so what is left points elsewhere. CISPO lets it push on and nearly keeps the
# direction. Of these only the trajectory's ratio is exact everywhere, and lesson 11 showed its price. A clip is a
# brake, not an estimator.
#
# This is one world, and a mild one. `tests/test_claims_13.py` asks ten of them: there the three with a clip keep a
# cosine below 0.3 on average, below 0 in the worst, CISPO above 0.85 on average, and in at most one world it is the
# other way round. (Texts of three tokens are short. Over a thousand tokens a geometric mean hardly moves, and GSPO's
# paper clips it at a few times 10⁻⁴.)
#
# ## The two ideas of DAPO
# DAPO (Yu et al., 2025) adds to GRPO, besides a mean over all tokens and a penalty for overlong answers, two things
# that you can weigh here. **Clip-higher**: $\varepsilon_h = 0.28 > \varepsilon_l = 0.2$. With $\varepsilon_h = 0.2$ a
# token with probability 0.01 may grow to 0.012 on one rollout and no further, one with 0.9 may grow as it likes; so
# the upper clip holds down what is *unlikely*, and entropy is said to collapse. **Dynamic sampling**: groups in which
# all rewards are equal teach nothing, since all their advantages are 0; they are dropped, and others are sampled
# until the batch is full.

# %% ex="13.3" title="Drop and refill" points=2 difficulty="medium" minutes=10
def kept(rewards, groups, wanted):
    """Which rows stay: those of the first `wanted` groups whose rewards are not all equal.

    rewards (B,) float; groups (B,) int, rows of a group anywhere; "first" by the group's first
    row; if there are fewer such groups, all of them -> (B,) bool.
    """
    # BEGIN SOLUTION
    keep, found = torch.zeros_like(rewards, dtype=torch.bool), 0
    for group in dict.fromkeys(groups.tolist()):
        rows = groups == group
        if found < wanted and rewards[rows].max() > rewards[rows].min():
            keep |= rows
            found += 1
    return keep
    # END SOLUTION

# %% ex="13.3" role="check"
kept = check("13.3", kept)

# %% [markdown] ex="13.3" role="hints"
# <details><summary>Hint 1</summary>Go through the groups in the order in which they appear, count those that you keep,
# and stop keeping when you have enough.</details>
# <details><summary>Hint 2</summary><code>dict.fromkeys(groups.tolist())</code> has each number once, in order (sorted
# numbers would be another order). Rewards are not all equal if their largest is above their smallest.</details>

# %% [markdown]
# What does that do to the gradient? Sample from the toy's policies at four places along the way up, 1,000 groups of
# four (each of one prompt, drawn at random), with Dr. GRPO's advantages. Take the mean gradient of all, and that of the
# kept ones, which stand for a batch refilled with their like; and compute the share of equal groups exactly, for each
# prompt $x$ the sum over rewards, $\sum_r P(r \mid x)^4$.

# %%
def drawn_groups(chance, count, n, source):
    """Texts of groups of one prompt each, (count n,), and the number of each one's group."""
    prompts = torch.randint(2, (count, 1), generator=source)
    texts = torch.multinomial(chance * (two == prompts), n, True, generator=source)
    return texts.flatten(), torch.arange(count).repeat_interleave(n)


def mean_gradient(lm, texts, groups):
    """The mean over completions of Dr. GRPO's gradient."""
    weights = torch.zeros(len(returns)).double()
    weights.index_add_(0, texts, group_advantages(returns[texts], groups)["Dr. GRPO"])
    return slope(lm, ((weights / len(texts))[:, None] * chances(lm)[1]).sum())


# %% tags=["again"]
print("steps     J    equal   length, refilled/all   1 / share of unequal    cosine")
for steps in (0, 2, 4, 8):
    lm = ascend(with_returns, steps=steps)
    chance, right = chances(lm)[0].detach(), moments(chances(lm)[0].detach())[0]
    equal = float((right**4 + (1 - right) ** 4).mean())
    texts, groups = drawn_groups(chance, 1000, 4, seeded())
    stay = kept(returns[texts], groups, 1000)
    full, rest = mean_gradient(lm, texts, groups), mean_gradient(lm, texts[stay], groups[stay])
    print(f"{steps:5d} {chance @ returns:6.3f} {equal:9.0%} {rest.norm() / full.norm():18.2f}"
          f"{1 / (1 - equal):24.2f} {cosine_similarity(full, rest, 0):12.3f}")

# %% [markdown]
# **What you saw.** The direction stays, and the length grows by one over the share of unequal groups, in the sample
# nearly by the exact one. It has to: equal groups add 0, and a prompt stays in the batch as often as
# its groups are unequal, so to drop and refill only divides by fewer. Adam and a clipped norm take such a factor out
# again; what remains is less noise per update, for that factor more samples. It is no small one: late in learning,
# with three groups in four equal, nearly four completions are sampled for one that teaches.
#
# ## All of them, learning
# Now each name as a run, with what its paper says: advantages within groups, or from a **critic** as PPO has them (a
# value head on the policy's last hidden state, lesson 10, with GAE); the clip, ε = 0.2 for all but one row (GSPO's
# paper has a far smaller one, CISPO's no lower bound); GRPO's division by the length; four epochs per rollout of two
# groups of eight. The KL in GRPO's loss is left out; the next section is about it. Adam divides a common factor out, so
# Dr. GRPO here is RLOO with PPO's clip. Every run keeps the same log; its "clipped" is, of the weights that were not 0
# at the first epoch, the share that is 0 at the last, here its mean over updates and seeds.

# %%
def recipe(rollout, values, bootstrap, logprobs, form, name="GRPO", high=0.2, by_length=False):
    """Weights as `train_policy` asks for them; name: of the advantages, "critic" for GAE."""
    if name == "critic":
        found = pg.advantage(rollout.rewards, values, rollout.mask, bootstrap, lam=0.95)
    else:
        found = group_advantages(*won(rollout))[name][:, None] * rollout.mask
    weights = ratio_weights(logprobs, rollout.logprobs, found, rollout.mask, form, high=high)
    return weights / rollout.mask.sum(1, keepdim=True) if by_length else weights


# %%
NAMES = {"Dr. GRPO": {"form": "clip", "name": "Dr. GRPO"},
         "  with clip-higher": {"form": "clip", "name": "Dr. GRPO", "high": 0.28},
         "GRPO": {"form": "clip", "by_length": True}, "GSPO": {"form": "sequence"},
         "CISPO": {"form": "stopped"}, "PPO, critic": {"form": "clip", "name": "critic"}}
toy_problems = tuple(Problem(prompt, says_c) for prompt in ("a b", "c"))
toy_task = Task("toy", toy_problems, (), max_new_tokens=3, stop=(), chat=False)


def toy_run(settings, seed, epochs=4, updates=8):
    """The log of a run in the toy world, and the exact J at its end."""
    lm = copy.deepcopy(reference)
    history = train_policy(
        lm, text_collector(toy_task, prompts=2, group=8), partial(recipe, **settings),
        updates=updates, lr=1e-2, epochs=epochs, critic=TextCritic(lm), lam=0.95, seed=seed,
        clip_norm=1.0, reference=reference)
    return history, float(chances(lm)[0].detach() @ returns)

# %% tags=["again"]
print("after 8 rollouts     exact J, each seed  entropy, update 4→8, each clipped length   KL")
for name, settings in NAMES.items():
    runs = [toy_run(settings, seed) for seed in progress(SEEDS[:3], name)]
    ends = " ".join(f"{J:.3f}" for _, J in runs)
    entropy = " ".join(f"{h.entropy[3]:.2f}→{h.entropy[-1]:.2f}" for h, _ in runs)
    clipped = torch.tensor([h.clip_fraction for h, _ in runs]).mean()
    long, kl = (sum(getattr(h, k)[-1] for h, _ in runs) / len(runs) for k in ("length", "kl"))
    print(f"{name:20s} {ends}   {entropy} {clipped:7.0%} {long:6.2f} {kl:4.2f}")

# %% [markdown]
# **What you saw.** All of them go from 0.26 to above 0.95 within eight rollouts, and in $J$ no two differ by more than
# their seeds do. They differ in the way there. CISPO, which sets no weight to 0, goes furthest from the reference, and
# by the fourth update it has less entropy left than GRPO or Dr. GRPO, with each seed. With the upper clip at 0.28 fewer
# weights are clipped, 23 % instead of 26 %, and the entropies are those of the lower clip but for a few hundredths, one
# seed's at the end excepted: a difference that three seeds cannot show. DAPO saw the collapse, and the remedy, over
# thousands of updates on long answers; eight rollouts of three tokens neither confirm nor refute it.
#
# So what is in a name? Near μ, all are the same step but for the divisors and PPO's critic; further away each brakes in
# its own way, as the table of biases shows; and in a task as easy as this one all of them learn about the same.
#
# ## How far from where it began?
# The last column estimates, from the last rollout, the KL divergence of the policy from the model it started from, the
# *reference*,
# $$\mathrm{KL}(\pi_\theta \,\|\, \pi_\mathrm{ref}) =
# \mathbb{E}_{\tau \sim \pi_\theta}\Big[\log\frac{\pi_\theta(\tau)}{\pi_\mathrm{ref}(\tau)}\Big].$$
# Where the reward was **learned**, recipes hold it down: they maximise $J(\theta) - \beta\,\mathrm{KL}$, and the second
# half shows why. Where a **verifier** pays, many do without ($\beta = 0$ in DAPO and Dr. GRPO). From samples the KL is
# estimated token by token, in three habits (Schulman, 2020). With $r = \pi_\mathrm{ref}(a_t \mid s_t) / \pi_\theta(a_t
# \mid s_t)$:
# $$k_1 = -\log r, \qquad k_2 = \tfrac12 (\log r)^2, \qquad k_3 = r - 1 - \log r.$$

# %% ex="13.4" title="Three estimates" points=1 difficulty="easy" minutes=6
def kl_estimates(logprobs, reference_logprobs, mask):
    """Three estimates of KL(policy || reference), for each token that the policy sampled.

    logprobs, reference_logprobs (B, T) nats, of the same tokens, anything where mask is
    False; mask (B, T) bool -> a dict of three (B, T), "k1", "k2" and "k3", 0 there.
    """
    # BEGIN SOLUTION
    log_r = torch.where(mask, reference_logprobs - logprobs, 0)
    return {"k1": -log_r, "k2": log_r**2 / 2, "k3": log_r.exp() - 1 - log_r}
    # END SOLUTION

# %% ex="13.4" role="check"
kl_estimates = check("13.4", kl_estimates)

# %% [markdown] ex="13.4" role="hints"
# <details><summary>Hint 1</summary>log r is a difference of two log-probabilities: the reference's minus the
# policy's. All three follow from it.</details>
# <details><summary>Hint 2</summary>If log r is 0 where mask is False, so are all three: cut it off once, at the
# beginning.</details>

# %% tags=["again"]
known = chances(reference)[1].detach()
moved = ascend(with_returns, steps=6)
likely, logs = chances(moved)
KL = (likely * (logs - known).sum(1)).sum()
print(f"KL of a policy six steps from the reference: {KL.detach():.4f} nats; over all texts")
for name, values in kl_estimates(logs.detach(), known, every.mask).items():
    print(f"{name}: mean {likely.detach() @ values.sum(1):.4f}, lowest {values.min():.2f}")

# %% [markdown]
# **What you saw.** $k_1$ and $k_3$ have the KL as their mean to the last digit, $k_2$ has not. $k_1$ is negative for
# some tokens; $k_3$ is for none.
#
# ## Where does the penalty go?
# Some subtract it from the rewards, others add it to the loss and differentiate it there. Either way it ends as a
# weight on $\nabla \log \pi$, and these weights are yours to derive. Let $\ell_t = \log \pi(a_t \mid s_t) - \log
# \pi_\mathrm{ref}(a_t \mid s_t)$; of it alone does $k$ depend.
#
# - **In the rewards**: a number like any reward. Each token's $\nabla \log \pi$ gets the sum of $k$ over the whole
#   completion (as lesson 08's REINFORCE).
# - **In the loss**: the mean of $\sum_t k(\ell_t)$ over samples that are kept as they are, differentiated. The chain
#   rule gives $\nabla k(\ell_t) = k'(\ell_t)\, \nabla \log \pi(a_t \mid s_t)$.

# %% ex="13.5" title="Places as weights" points=3 difficulty="medium" minutes=14
def placements(log_ratios, mask):
    """The weight that each place of a KL estimate puts on ∇ log π of each token.

    log_ratios (B, T), log π − log π_ref, anything on padding; mask (B, T) bool -> a dict of
    six (B, T), 0 on padding: "k1 in the rewards", …, "k3 in the rewards", "k1 in the loss", …,
    "k3 in the loss", where k1 = ℓ, k2 = ℓ² / 2, k3 = exp(−ℓ) − 1 + ℓ.
    """
    # BEGIN SOLUTION
    logs = torch.where(mask, log_ratios, 0)
    values = {"k1": logs, "k2": logs**2 / 2, "k3": (-logs).exp() - 1 + logs}
    slopes = {"k1": torch.ones_like(logs), "k2": logs, "k3": 1 - (-logs).exp()}
    places = {}
    for name in values:
        places[f"{name} in the rewards"] = values[name].sum(1, keepdim=True) * mask
        places[f"{name} in the loss"] = slopes[name] * mask
    return places
    # END SOLUTION

# %% ex="13.5" role="check"
placements = check("13.5", placements)

# %% [markdown] ex="13.5" role="hints"
# <details><summary>Hint 1</summary>In the rewards: the value of k at every token, 0 on padding, summed along the row,
# and written at each token of the row.</details>
# <details><summary>Hint 2</summary>In the loss: the derivative of k. That of ℓ is 1, that of ℓ²/2 is ℓ. Mask at the
# end once more: the slope of k1 is 1 even where ℓ was set to 0.</details>

# %% [markdown]
# Autograd is the judge of derivations: on random numbers, differentiate each estimator as it stands in a loss.

# %% tags=["again"]
random, other = torch.randn(2, 3, 5, generator=seeded()).double()  # log π, log π_ref
gap = random.requires_grad_() - other
values = {"k1": gap, "k2": gap**2 / 2, "k3": (-gap).exp() - 1 + gap}
for name, weights in placements(gap.detach(), gap < math.inf).items():
    summed = values[name[:2]].sum(1)
    if "rewards" in name:  # a number times log π of the completion
        summed = summed.detach() * random.sum(1)
    (by_autograd,) = grad(summed.sum(), random, retain_graph=True)
    print(f"{name:18s} off by at most {(weights - by_autograd).abs().max():.0e}")

# %% [markdown]
# Derived rightly. But is it the gradient of the KL? The exact one is at hand.

# %% tags=["again"]
grad_KL, found = slope(moved, KL), {}
print("expected gradient    cosine with ∇KL   length relative to it")
places = placements((logs - known).detach(), every.mask)
places["k3 in both"] = places["k3 in the rewards"] + places["k3 in the loss"]
for name, weights in places.items():
    each = expected(moved, weights, likely.detach())
    relative = float(each.norm() / grad_KL.norm())
    found[name] = float(cosine_similarity(each, grad_KL, 0)) if relative > 1e-9 else 0.0
    print(f"{name:18s} {found[name]:17.4f} {relative:23.4f}")
also_k3 = found["k3 in the rewards"] > 0.9999
guesses.reveal("from_the_rewards", "both" if also_k3 else "the first")

# %% [markdown]
# **What you saw.** The gradient of a mean over the policy's own samples has two parts: other samples come, which a
# penalty in the rewards sees; and the same sample is charged otherwise, which a penalty in the loss sees. For $k_1$ the
# second part is **nothing**, the mean of $\nabla \log \pi$ (lesson 08). So $k_1$ in the rewards has exactly the
# gradient of the KL, and in the loss it does nothing. $k_3$, just as unbiased, needs both parts, as the last row shows.
# In the rewards alone it points **away** from where it should; in the loss alone, GRPO's choice, its direction is
# roughly right and its length is not. $k_2$ in the rewards is far off; in the loss, each token charged with its own
# $\ell_t$ but not for where it leads, it comes close here without being right. An unbiased estimate of a value need not
# have an unbiased gradient.
#
# So this course subtracts $\beta k_1$ from the rewards, as Ouyang et al. (2022) did, and then it is any other reward:
# groups, critics and clips apply. Tang and Munos (2025) go through the places as you did, and found wrong ones in
# published code.
#
# **A good place to stop.** The second half needs the advantages of 13.1, the weights of 13.2, the penalty of 13.4 and
# 13.5, and the toy world. (Its $r$ is a reward again, no ratio.)
#
# # Second half: rewards from pairs
# People find it hard to put a number on a text, but they can say which of two they like better. Bradley and Terry's
# model makes numbers of it: $P(y \succ y') = \sigma(r(y) - r(y'))$. A **reward model** is a language model with one
# number as output, fitted by the likelihood of the choices,
# $$L = -\frac1P \sum_{(y, y')} \log \sigma\big(r(y) - r(y')\big), \quad y \text{ chosen}, \; y' \text{ rejected}.$$
# The number is linear in what the model holds at the **last token** of the completion: there it has read all of it.

# %% ex="13.6" title="A head on the last token" points=2 difficulty="medium" minutes=12
def completion_rewards(trunk, head, rollout):
    """The reward of each completion, (B,), with gradient.

    trunk(tokens (B, T + 1)) -> what the model holds at each token, (B, T + 1, width); head, a
    linear layer, (…, width) -> (…, 1); rollout: observations, actions (B, T), where an action
    is the next token, so that its last one is in no observation; mask (B, T), True for the
    completion, somewhere in the row, with a prompt before it and padding behind.
    """
    # BEGIN SOLUTION
    tokens = torch.cat([rollout.observations[:, :1], rollout.actions], 1)
    steps = torch.arange(1, tokens.shape[1])
    last = torch.where(rollout.mask, steps, 0).max(1).values
    states = trunk(tokens)
    return head(states[torch.arange(len(last)), last]).squeeze(-1)
    # END SOLUTION

# %% ex="13.6" role="check"
completion_rewards = check("13.6", completion_rewards)

# %% [markdown] ex="13.6" role="hints"
# <details><summary>Hint 1</summary>All tokens of a row are its first observation, then all actions. Action t is token
# t + 1 of them.</details>
# <details><summary>Hint 2</summary>The last True of each row: <code>torch.where(mask, steps, 0).max(1).values</code>,
# with the place of each action among the tokens as <code>steps</code>. Then <code>states[torch.arange(B),
# last]</code>.</details>

# %% ex="13.7" title="Bradley and Terry's loss" points=1 difficulty="easy" minutes=6
def preference_loss(rewards, chosen, rejected):
    """How surprising the choices are, nats per pair: the loss of a reward model.

    rewards (B,) float, one per completion, which may be thousands apart; chosen, rejected (P,)
    int, the numbers of the two completions of each pair -> a scalar with gradient of rewards.
    """
    # BEGIN SOLUTION
    return -logsigmoid(rewards[chosen] - rewards[rejected]).mean()
    # END SOLUTION

# %% ex="13.7" role="check"
preference_loss = check("13.7", preference_loss)

# %% [markdown] ex="13.7" role="hints"
# <details><summary>Hint 1</summary><code>rewards[chosen]</code> has one reward for each pair. The sigma is taken of a
# difference of two of them.</details>
# <details><summary>Hint 2</summary>The sigmoid of −1000 is 0, and the logarithm of 0 is −∞. torch has both steps in
# one function.</details>

# %% ex="13.8" title="Train the reward model" points=3 difficulty="medium" minutes=14
def fit_rewards(trunk, head, optimizer, rollout, chosen, rejected, batches):
    """One step of the optimizer for each batch; returns the losses, each before its step.

    trunk, head, rollout as in 13.6; chosen, rejected (P,) int, the rows of each pair; batches,
    a list of (n,) int, numbers of pairs. A step is on the pairs of its batch alone. To read
    the rows that a batch needs is enough: take_rows(rollout, rows), a rollout of these rows.
    """
    # BEGIN SOLUTION
    losses = []
    for batch in batches:
        rows = torch.cat([chosen[batch], rejected[batch]])
        rewards = completion_rewards(trunk, head, take_rows(rollout, rows))
        first = torch.arange(len(batch))
        loss = preference_loss(rewards, first, first + len(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
    # END SOLUTION

# %% ex="13.8" role="check"
fit_rewards = check("13.8", fit_rewards)

# %% [markdown] ex="13.8" role="hints"
# <details><summary>Hint 1</summary>For each batch: rewards with 13.6, the loss with 13.7, then <code>zero_grad</code>,
# <code>backward</code>, <code>step</code>; <code>loss.item()</code> is the number to note.</details>
# <details><summary>Hint 2</summary>Simple and right: rewards of all rows, then <code>preference_loss(rewards,
# chosen[batch], rejected[batch])</code>. Faster: the rows of the batch, chosen ones first; then pair i is rows i and i
# + n.</details>

# %% [markdown]
# Those who compare see **short** completions of the base model, ten tokens, six for each of 24 openings, and label all
# pairs of one opening whose rewards differ, each label wrongly with a probability of a tenth. Three epochs over each
# model's pairs.

# %%
def shuffled(count, epochs, seed, size=32):
    """The batches of several epochs: each has every pair once, in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(count, generator=generator) for _ in range(epochs)]
    return [batch for order in orders for batch in order.split(size)]


def reward_model(seed):
    """A reward model from pairs of short completions, and its pairs."""
    source = torch.Generator().manual_seed(1000 + seed)
    seen, _ = collect_text(short, base, prompts=24, group=6, generator=source)
    pairs = preferences.label_pairs(seen, error_rate=args.error_rate, seed=seed)
    lm = copy.deepcopy(base)
    head, batches = scalar_head(lm), shuffled(len(pairs.chosen), 3, seed)
    adam = torch.optim.Adam([*lm.parameters(), *head.parameters()], lr=2e-3)
    model = (lambda tokens: hidden_states(lm, tokens)), head
    fit_rewards(*model, adam, seen, pairs.chosen, pairs.rejected, batches)
    return model, pairs


@torch.no_grad()
def believed(model, rollout):
    """What a reward model thinks of completions."""
    return completion_rewards(*model, rollout)


# %% tags=["again"]
models = [reward_model(seed) for seed in progress(SEEDS, "reward models")]
print("pairs to learn from:", *(len(pairs.chosen) for _, pairs in models))
for words, about in (("short, as those it learned from", short), ("whole completions", task)):
    seen, _ = collect_text(about, base, prompts=16, group=8, generator=seeded(3))
    new = preferences.label_pairs(seen)
    beliefs = [believed(model, seen) for model, _ in models]
    ranked = [preferences.accuracy(belief, new.chosen, new.rejected) for belief in beliefs]
    print(f"new pairs, {words}: ranked as the judge does", *(f"{x:.2f}" for x in ranked))

# %% [markdown]
# **What you saw.** They rank about three new pairs in four as the judge does, and whole completions, twice as long as
# what they have seen, worse, each of the five: labels are few, and one in ten was wrong. Would you let one of them
# teach?
#
# ## One update, whole
# Now the reward model shall pay a policy, and you write what happens with a rollout: the penalty of the first half, the
# advantages of 13.1, the clip of 13.2, a step, and again.

# %% ex="13.9" title="One update, whole" points=4 difficulty="hard" minutes=16
def improve(policy, optimizer, rollout, groups, known, beta, epochs):
    """`epochs` steps of Dr. GRPO on one rollout whose rewards are lowered by β k1.

    rollout: rewards, logprobs (of the sampler μ), mask, each (B, T); groups (B,) int; known
    (B, T), log π_ref, anything on padding. The penalty is that of μ, so it and the advantages
    are computed once; ratio, weights ("clip", ε = 0.2) and loss anew for each step; the loss
    is a mean over completions of sums over tokens. action_logprobs(policy, rollout) is log π,
    with gradient. Returns a list: before each step, the share of acted tokens with weight 0.
    """
    # BEGIN SOLUTION
    mask, shares = rollout.mask, []
    penalty = kl_estimates(rollout.logprobs, known, mask)["k1"]
    paid = torch.where(mask, rollout.rewards - beta * penalty, 0).sum(1)
    advantages = group_advantages(paid, groups)["Dr. GRPO"][:, None] * mask
    for _ in range(epochs):
        logprobs = action_logprobs(policy, rollout)
        sampled = logprobs.detach(), rollout.logprobs
        weights = ratio_weights(*sampled, advantages, mask, "clip")
        shares.append((weights == 0)[mask].double().mean().item())
        loss = -torch.where(mask, weights * logprobs, 0).sum() / len(mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return shares
    # END SOLUTION

# %% ex="13.9" role="check"
improve = check("13.9", improve)

# %% [markdown] ex="13.9" role="hints"
# <details><summary>Hint 1</summary>Before the loop: each completion's reward, minus β times the sum of its k1 (13.4,
# of <code>rollout.logprobs</code> and <code>known</code>); then 13.1 on these numbers, written at each acted
# token.</details>
# <details><summary>Hint 2</summary>In the loop: <code>logprobs</code>, then <code>ratio_weights(logprobs.detach(),
# rollout.logprobs, advantages, mask, "clip")</code>, then minus the sum of weights times logprobs over the number of
# completions, and the three calls of every step.</details>

# %% [markdown]
# ## You get what you pay for
# The reward model pays, and the judge only watches. Five seeds, each with its own pairs, reward model and learner;
# first without a penalty, then with $\beta$ = 0.5 per nat. Beside them three shorter runs that the judge itself pays,
# with two epochs per rollout and smaller steps. Each update is logged, and below the seeds' mean at the last one is
# shown: what was paid (before the penalty), what it was worth, KL, length, the share of weights at 0 (clipped, or in a
# group of equals), and the entropy of a choice, estimated by the mean of −log π over what was sampled. True reward and
# KL of each seed are measured after it, on new openings.

# %%
def learner(seed, model=None, beta=0.0):
    """A policy that learned, and its log, a dict for each update."""
    lm, log, generator = copy.deepcopy(base), [], torch.Generator().manual_seed(seed)
    updates, lr, epochs = (args.model_updates, 1e-3, 1) if model else (args.updates, 6e-4, 2)
    adam = torch.optim.Adam(lm.parameters(), lr=lr)
    for _ in range(updates):
        rollout, _ = collect_text(
            task, lm, prompts=args.prompts, group=args.group, generator=generator)
        worth, groups = won(rollout)
        rollout = pay(rollout, believed(model, rollout)) if model else rollout
        known, mask = score_actions(base, rollout)[0], rollout.mask
        kl = kl_estimates(rollout.logprobs, known, mask)["k1"].sum(1)
        zero = improve(lm, adam, rollout, groups, known, beta, epochs)[-1]
        noted = {"paid": won(rollout)[0], "worth": worth, "KL": kl, "length": mask.sum(1),
                 "at 0": torch.tensor(zero), "entropy": -rollout.logprobs[mask]}
        log.append({key: float(values.double().mean()) for key, values in noted.items()})
    return lm, log


# %%
def report(name, runs):
    """How runs ended: each seed's true reward and KL; the mean log of the last update."""
    ends = [judged(lm) for lm, _ in runs]
    print(f"{name:20s} true reward", *(f"{truth:.2f}" for truth, _ in ends),
          "  KL", *(f"{kl:5.1f}" for _, kl in ends))
    for key in runs[0][1][-1] if runs[0][1] else ():
        print(f"    {key} {sum(log[-1][key] for _, log in runs) / len(runs):.2f}",
              end="" if key != "entropy" else "\n")
    return ends


# %% tags=["again"]
chased, table = {}, {}
report("paid by the judge", [learner(seed) for seed in progress(SEEDS[:3], "judge")])
for beta in (0.0, args.beta):
    chased[beta] = [learner(seed, model, beta) for seed, (model, _) in zip(SEEDS, models)]
    table[beta] = report(f"by a model, β = {beta}", chased[beta])
guesses.reveal("true_reward_in_the_end", over_seeds([truth for truth, _ in table[0.0]]).mean)

# %%
figure, panels = pyplot.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
for index, (beta, runs) in enumerate(chased.items()):
    for axes, key in zip(panels, ("paid", "worth", "KL")):
        curves = [[noted[key] for noted in log] for _, log in runs]
        figures.learning_curves(axes, range(args.model_updates), curves, f"β = {beta}", index)
panels[1].axhline(start, color="black", linestyle=":", label="before")
for axes, (title, label) in zip(panels, (
        ("What it is paid", "the model's reward"), ("What it is worth", "true reward"),
        ("How far it went", "KL to the base, nats"))):
    axes.set(title=title, xlabel="updates", ylabel=label)
panels[1].set(ylim=(-0.05, 1.05)), panels[1].legend(fontsize=8), panels[0].legend(fontsize=8)
ends = {beta: [sum(x) / len(x) for x in zip(*table[beta])] for beta in chased}
outcome = "; ".join(f"with β = {beta} it ends at {truth:.2f}, {kl:.0f} nats away"
                    for beta, (truth, kl) in ends.items())
show(figure, alt="Three panels against updates, with and without penalty: the model's reward, "
     f"the true reward, and the KL. The true reward begins near {start:.2f}; "
     f"on new openings, {outcome}.")

# %% tags=["again"]
for beta, runs in chased.items():
    seen = attempt(task, runs[0][0], task.held_out[:3], seed=args.seed + 4)
    print(f"β = {beta}")
    rows = task.held_out, won(seen)[0], believed(models[0][0], seen), completions(base, seen)
    for problem, truth, belief, text in zip(*rows):
        print(f"    judge {truth:.2f}, model {belief:+.1f}: {problem.prompt} -> {text}")

# %% [markdown]
# **What you saw.** Without the penalty what the policy is paid rises; what it is worth rises for a few updates, turns,
# and ends below its start in all five runs, far below in four. Read the samples: it is praise, or pieces of it, "just
# right", said again and again, which earns little with the judge. Such words are a good sign in what the base model
# writes, and the pairs, which were the base model's, taught no more than that. The policy has left the region that its
# reward model knows. This is **reward hacking**, or overoptimisation (Gao et al., 2023), and an instance of Goodhart's
# law: a measure that becomes the target stops being a good measure.
#
# With the penalty the policy ends within eight nats of the base, where the reward model can be trusted somewhat, and is
# worth more than at the start on average. It is no wall: the samples hold words that no review says. The first panel
# shows the trap: the policy that is worth less is paid as much, or more. In life there is no middle panel, and the
# reward cannot tell you which of the two you have. The right one you do have: watch the KL, and read what your policy
# writes.
#
# And the judge's own runs? No penalty, a few updates, and nothing can be hacked: what is paid is what it is worth. Hence
# the rule of thumb: **learned reward, hold the policy near; verifier, often not needed** (as far as it checks what you
# want).
#
# ## Choose instead of learn: best of n
# The simplest use of a reward model trains nothing: sample $n$ completions and take the one it likes best. From $N$
# samples with scores and truths the expected truth of the best of $n$ (drawn with putting back) can be computed without
# drawing: the completion at rank $i$ of $N$, counted from the lowest score, is the best of $n$ with probability
# $(i/N)^n - ((i-1)/N)^n$. And whatever the scores, its KL to the base is at most $\log n - (n-1)/n$ nats (Beirami et
# al., 2024).

# %% ex="13.10" title="Best of n without drawing" points=2 difficulty="medium" minutes=10
def best_of(scores, truths, n):
    """The mean truth of the completion with the highest score among n that are drawn from N.

    Drawn with putting back. scores, truths (N,) float, no two scores equal; n, at least 1
    -> a number.
    """
    # BEGIN SOLUTION
    count = len(scores)
    rank = torch.arange(1, count + 1, dtype=torch.float64)
    chance = (rank / count) ** n - ((rank - 1) / count) ** n
    return float(chance @ truths[scores.argsort()].double())
    # END SOLUTION

# %% ex="13.10" role="check"
best_of = check("13.10", best_of)

# %% [markdown] ex="13.10" role="hints"
# <details><summary>Hint 1</summary>Sort the truths by their scores: <code>truths[scores.argsort()]</code>. Then the
# entry at place i belongs to rank i + 1.</details>
# <details><summary>Hint 2</summary>All n draws have rank i or lower with probability (i/N)<sup>n</sup>; the best has
# rank i exactly if they have, and not all of them i − 1 or lower.</details>

# %% tags=["again"]
NS = (1, 2, 4, 8, 16)


def best_curve(scores):
    """The mean truth for each n, over the openings; scores as truths."""
    return [sum(best_of(s, t, n) for s, t in zip(scores, truths)) / len(truths) for n in NS]


judge_picks = best_curve(truths)
model_picks = [best_curve(believed(model, pool).view_as(truths)) for model, _ in models]
bounds = [preferences.best_of_n_kl(n) for n in NS]
for n, kl, top, *picked in zip(NS, bounds, judge_picks, *model_picks):
    print(f"best of {n:2d}: KL at most {kl:.2f} nats; picked by the judge {top:.2f},",
          "by a reward model", *(f"{x:.2f}" for x in picked))

# %%
figure, axes = pyplot.subplots(figsize=(5.6, 3.2))
figures.curve_of_seeds(axes, bounds, list(zip(*model_picks)), "best of n, by a model", 2)
for index, (beta, runs) in enumerate(chased.items()):
    far, value = (torch.tensor([[noted[key] for noted in log] for _, log in runs]).mean(0)
                  for key in ("KL", "worth"))
    axes.plot(far, value, figures.MARKERS[index], markersize=3.5, color=figures.COLORS[index],
              label=f"RL, β = {beta}: each update")
axes.axhline(start, color="black", linestyle=":", label="base")
axes.set(title="What a nat buys", xlabel="KL to the base, nats per completion",
         ylabel="true reward", xscale="symlog", xlim=(-0.05, 200), ylim=(0, 1.02))
axes.legend(fontsize=8, loc="lower left")
last = sum(curve[-1] for curve in model_picks) / len(model_picks)
show(figure, alt=f"True reward by KL: best of n ends at {last:.2f}, {bounds[-1]:.1f} nats. "
     f"RL, a point for each update; on new openings, {outcome}.")

# %% [markdown]
# **What you saw.** Picked by the judge, one of 16 is nearly always fine. Picked by the reward models, the mean curve
# rises and flattens: the best of 16 is still something that the base model writes, and there a reward model knows its
# way, mostly. One of the five turns after $n = 4$: with enough to choose from it can be fooled in this way too (Gao
# et al., 2023). In nats it costs far less than RL against these models did, and on average for no less reward. But it
# costs $n$ samples for every answer, for ever, while learning pays once.
#
# ## The best policy, and how to reach it without a reward model
# What does $J - \beta\,\mathrm{KL}$ want? The answer has a closed form: of all distributions over texts the best is
# $$\pi^*(y \mid x) \propto \pi_\mathrm{ref}(y \mid x)\, \exp\big(r(x, y) / \beta\big).$$
# First find it where all texts are listed.

# %% ex="13.11" title="The best policy" points=2 difficulty="medium" minutes=8
def best_policy(log_reference, returns, groups, beta):
    """The distribution over each prompt's texts with the highest E[r] − β KL to the reference.

    log_reference (N,), log π_ref of all texts of all prompts; returns (N,), their r; groups
    (N,) int, the number of each text's prompt; beta > 0 -> (N,), sums to 1 for each prompt.
    """
    # BEGIN SOLUTION
    best = torch.zeros_like(log_reference)
    for group in groups.unique():
        rows = groups == group
        best[rows] = (log_reference[rows] + returns[rows] / beta).softmax(0)
    return best
    # END SOLUTION

# %% ex="13.11" role="check"
best_policy = check("13.11", best_policy)

# %% [markdown] ex="13.11" role="hints"
# <details><summary>Hint 1</summary>π* is proportional to exp(log π_ref + r / β): what does <code>softmax</code>
# do?</details>
# <details><summary>Hint 2</summary>Each prompt is normalised on its own: a loop over <code>groups.unique()</code>, and
# <code>.softmax(0)</code> of its rows.</details>

# %% [markdown]
# Turn it over: any policy is the best one for *some* reward, $r(x, y) = \beta \log \frac{\pi(y \mid
# x)}{\pi_\mathrm{ref}(y \mid x)}$, up to a number for each prompt, which cancels in a pair. **DPO** (Rafailov et al.,
# 2023) puts this *implicit reward* into the loss of a reward model and trains the policy directly:
# $$L_\mathrm{DPO} = -\frac1P \sum_{(y, y')} \log \sigma(m), \qquad m = \beta \Big(\log
# \frac{\pi(y)}{\pi_\mathrm{ref}(y)} - \log \frac{\pi(y')}{\pi_\mathrm{ref}(y')}\Big).$$
# No completion is sampled, no reward model is needed.

# %% ex="13.12" title="DPO, whole" points=4 difficulty="hard" minutes=18
def fit_dpo(policy, optimizer, rollout, known, chosen, rejected, batches, beta):
    """One step down DPO's loss for each batch; returns the losses, each before its step.

    rollout (B rows), chosen, rejected, batches as in 13.8; known (B, T), log π_ref of each
    action, anything on padding. action_logprobs(policy, rollout) is log π of each action of a
    rollout (B, T), with gradient; take_rows(rollout, rows) drops columns behind the longest.
    """
    # BEGIN SOLUTION
    losses = []
    for batch in batches:
        log_ratios = []
        for rows in (chosen[batch], rejected[batch]):
            piece = take_rows(rollout, rows)
            gaps = action_logprobs(policy, piece) - known[rows, : piece.mask.shape[1]]
            log_ratios.append(torch.where(piece.mask, gaps, 0).sum(1))
        loss = -logsigmoid(beta * (log_ratios[0] - log_ratios[1])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
    # END SOLUTION

# %% ex="13.12" role="check"
fit_dpo = check("13.12", fit_dpo)

# %% [markdown] ex="13.12" role="hints"
# <details><summary>Hint 1</summary>The loop is that of 13.8. What is new is the reward of a row: the sum over its
# tokens of log π minus log π_ref, times β; the loss is Bradley and Terry's of these.</details>
# <details><summary>Hint 2</summary>For rows <code>rows</code>: <code>piece = take_rows(rollout, rows)</code>, and of
# the reference <code>known[rows, : piece.mask.shape[1]]</code>. Cut padding off with <code>torch.where(piece.mask, …,
# 0)</code> before you sum.</details>

# %% [markdown]
# Its gradient is, once more, the one loss of this course. Which weight does each pair's $-\log \sigma(m)$, before
# the mean over pairs, put on its chosen completion, and with a minus on its rejected one?

# %% ex="13.13" title="DPO as a weight" points=2 difficulty="medium" minutes=8
def dpo_push(chosen, rejected, beta):
    """How hard each pair pushes its chosen completion up: minus the slope of -log σ(m).

    chosen, rejected (P,) float, log π − log π_ref of the two completions of each pair, with
    gradient; beta, a number -> (P,) without gradient.
    """
    # BEGIN SOLUTION
    margin = beta * (chosen - rejected).detach()
    return beta * torch.sigmoid(-margin)
    # END SOLUTION

# %% ex="13.13" role="check"
dpo_push = check("13.13", dpo_push)

# %% [markdown] ex="13.13" role="hints"
# <details><summary>Hint 1</summary>The slope of −log σ(m) is −σ(−m): a pair that is settled, with a large m, hardly
# pushes any more.</details>
# <details><summary>Hint 2</summary>m has a β in it, so the chain rule puts another one in front. Weights carry no
# gradient: <code>detach()</code>.</details>

# %% [markdown]
# First in the toy world, where both roads can be walked to the end without noise: RL on $J - \beta\,\mathrm{KL}$,
# with the penalty in the rewards, and DPO on all pairs of texts, labelled as Bradley and Terry say. Both start from
# the reference.

# %%
TOY_BETA = 0.2
drawn = known.sum(1).exp() / 2  # the reference's probability of each text
best = best_policy(known.sum(1), returns, two, TOY_BETA) / 2  # two prompts, equally likely
together = (two[:, None] == two) * drawn[:, None] * drawn  # pairs of a prompt
together = together / together.sum() * torch.sigmoid(returns[:, None] - returns)  # first wins


def penalized(chance, logprobs):
    penalty = placements(logprobs - known, every.mask)["k1 in the rewards"]
    return chance[:, None] * (total - TOY_BETA * penalty)


def direct(_, logprobs):
    ratios = (logprobs - known).sum(1)
    sides = (side.flatten() for side in torch.broadcast_tensors(ratios[:, None], ratios))
    push = together * dpo_push(*sides, TOY_BETA).view_as(together)
    return (push.sum(1) - push.sum(0))[:, None] * every.mask  # as chosen one, as rejected one


def account(chance):
    """J, KL and J − β KL of a distribution over the 80 texts."""
    J, KL = float(chance @ returns), float((chance * (chance.log() - drawn.log())).sum())
    return f"J {J:.3f}   KL {KL:.3f}   J − β KL {J - TOY_BETA * KL:.4f}"


# %% tags=["again"]
print(f"{'the reference':20s} {account(drawn)}\n{'closed form':20s} {account(best)}")
for name, weigh in (("RL with the penalty", penalized), ("DPO on pairs", direct)):
    reached = chances(ascend(weigh, steps=300))[0].detach()
    print(f"{name:20s} {account(reached)}   off by {(reached - best).abs().sum() / 2:.3f}")

# %% [markdown]
# **What you saw.** Two roads, nearly one place: the closed form, which neither was told (the last column is half the
# sum of the absolute differences of probabilities). Now DPO on the reviews, from exactly the pairs that the reward
# models learned from, and what it does to each side of its pairs.

# %%
def direct_learner(pairs, seed, epochs=2):
    """A policy after DPO; mean log π of chosen and rejected completions, before and after."""
    lm = copy.deepcopy(base)
    known, _ = score_actions(base, pairs.rollout)
    batches = shuffled(len(pairs.chosen), epochs, seed)
    adam = torch.optim.Adam(lm.parameters(), lr=1e-4)
    fit_dpo(lm, adam, pairs.rollout, known, pairs.chosen, pairs.rejected, batches, 0.1)
    now, _ = score_actions(lm, pairs.rollout)
    sides = [[float(each.sum(1)[rows].mean()) for rows in (pairs.chosen, pairs.rejected)]
             for each in (known, now)]
    return lm, sides


# %% tags=["again"]
direct_runs = [direct_learner(pairs, seed) for seed, (_, pairs) in zip(SEEDS[:3], models)]
report("DPO, 2 epochs", [(lm, []) for lm, _ in direct_runs])
long_run = direct_learner(models[0][1], SEEDS[0], epochs=8)
report("DPO, 8 epochs", [(long_run[0], [])])
for name, runs in (("short", direct_runs), ("long", [long_run])):
    for seed, (_, (before, after)) in enumerate(runs):
        print(f"{name} run {seed}: log π of the chosen {before[0]:.1f} → {after[0]:.1f}, "
              f"of the rejected {before[1]:.1f} → {after[1]:.1f}")
before, after = long_run[1]
guesses.reveal("chosen_after_long_DPO", "lower" if after[0] < before[0] else "higher")

# %% [markdown]
# **What you saw.** Two epochs on the pairs take the true reward from about 0.4 to 0.6 or 0.7, less than a nat from
# the base; in true reward, RL against a reward model with a penalty, best of 16 and these two epochs end alike, as
# far as so few seeds can tell, and of the three RL is the furthest from the base. And what did the loss raise? The
# chosen completions have gained half a nat or less, and the rejected ones have lost two or more: the difference grows
# mostly from below. After eight epochs, in the one run, the chosen ones are *less* likely than before all training,
# and the rejected ones far less. The loss knows the difference alone, and is content. This is **likelihood
# displacement** (Razin et al., 2024): the loss is content if both sides fall, and what they lose may go to texts that
# stand in no pair, which nobody has judged. In this run what the policy writes is praise as often as before, for the
# true reward is no lower; but the KL has grown from 0.4 to 9 nats, and nothing in the loss would say so. Log both
# likelihoods, not the margin alone.
#
# ## Silent bug lab
# Eight trainers maximise $J - \beta\,\mathrm{KL}$ with $\beta = 0.2$ and the penalty in the rewards; you can call them
# and not read them. Seven have a bug that raises no error. Each is called as `run(logprobs, reference_logprobs,
# rewards, mask)`, (B, T) each, `logprobs` with gradient, and returns the loss of the batch, a mean over its B
# completions. First the symptoms: each one for 60 steps in the toy world, where the mean over all texts can be taken
# exactly.

# %% tags=["again"]
def with_run(run, chance, logprobs):
    """Weights for `ascend` that make its step that of a run's loss, in expectation."""
    leaf = logprobs.clone().requires_grad_()
    (down,) = grad(run(leaf, known, every.rewards, every.mask), leaf)
    return -chance[:, None] * len(chance) * down


print(f"{'the best there is':18s}{account(best)}")
for name, run in progress(mystery_runs("13.14").items(), "lab"):
    lm = ascend(partial(with_run, run), steps=60)
    print(f"run {name:14s}{account(chances(lm)[0].detach())}")

# %% [markdown]
# Which one is right? A curve does not say what is wrong with the others; a **property test** does. The loss itself
# means nothing, its gradient by `logprobs` does: by 13.5 you know what it must be, for numbers that you choose. Write
# one function that passes the right run and refuses as many wrong ones as you can: a point each for two, four, six and
# all seven. (The right one has no baseline: each token gets the whole completion's reward minus β times its whole
# log-ratio.)

# %% ex="13.14" title="Test a penalty" points=4 difficulty="hard" minutes=18
def is_penalized(run):
    """Whether run(logprobs, reference_logprobs, rewards, mask) has the right gradient."""
    # BEGIN SOLUTION
    source = torch.Generator().manual_seed(1)
    logprobs, known, rewards = (torch.randn(4, 5, generator=source).double() for _ in range(3))
    mask = torch.arange(5) < torch.tensor([[5], [3], [2], [4]])
    mask[0, 0] = False  # a prompt
    logprobs.requires_grad_()
    run(logprobs, known, rewards * mask, mask).backward()
    log_ratios = (logprobs - known).detach()
    penalty = placements(log_ratios, mask)["k1 in the rewards"]
    total = (rewards * mask).sum(1, keepdim=True) * mask
    return torch.allclose(logprobs.grad, -(total - 0.2 * penalty) / 4)
    # END SOLUTION

# %% ex="13.14" role="check"
is_penalized = check("13.14", is_penalized)

# %% [markdown] ex="13.14" role="hints"
# <details><summary>Hint 1</summary>Choose log-probabilities of both models at random, rewards at more than one token,
# rows of different lengths; call the run, <code>.backward()</code>, and look at <code>logprobs.grad</code>.</details>
# <details><summary>Hint 2</summary>The loss is minus the mean over rows of Σ weight · log π, so the gradient must be
# −weight / B, with weight = (sum of the row's rewards) − 0.2 · <code>placements(…)["k1 in the rewards"]</code>, and 0
# on padding.</details>

# %% [markdown]
# **What you saw.** Run A is right. In B the reference is the policy itself, so that the penalty is 0 whatever happens;
# in F the mean log-ratio is added to the loss, whose gradient is 0 on average, and both end alike, with no penalty at
# all. C charges each token with its own log-ratio alone, the gradient of "k2 in the loss". D subtracts twice, and its
# $J - \beta\, \mathrm{KL}$ is so near to the right one's that a curve of it would not give it away. E has $k_3$ in the
# rewards, which drives it away from the reference. G forgot to detach, so that the gradient has a second part. H
# charges the last token's log-ratio alone. All but B, which would say 0, could report a KL that is estimated rightly: a
# *number* may be right while its gradient is another. Test the gradient, on numbers of your own, with several tokens to
# a row.
#
# ## Recap
# - GRPO, Dr. GRPO, RLOO: rewards compared within the group of a prompt; GRPO divides by its spread, and by lengths.
# - PPO and GRPO clip the ratio of a token, GSPO that of a sequence, CISPO clips the number and keeps the gradient. All
#   of them are weights in the loss of lesson 08. Away from μ each of these is biased; the trajectory's ratio is not
#   (lesson 11 has the prefix's too). A clip is a brake.
# - Groups of equal rewards have weight 0. To drop and refill them changes the length of the mean gradient, not where it
#   points.
# - A KL penalty belongs in the rewards as $k_1$; $k_3$ in both places has the same gradient. The others have
#   another, or none. Learned reward: hold the policy near. Verifier: often not needed.
# - A reward model turns choices into rewards, and is right only near what it was trained on. Optimise against it, and
#   the policy goes where it is wrong. A KL penalty, few steps, or best of $n$ keep it near; reading samples tells.
# - The best policy under a KL penalty is the reference times $\exp(r / \beta)$. DPO uses that to learn from pairs
#   directly; it is a weight in the same loss too, and what it raises is a difference.
#
# ## More names, a sentence each
# **SimPO** (Meng et al., 2024) is DPO with log π per token, no reference, and a margin to be won by. **KTO**
# (Ethayarajh et al., 2024) learns from single completions marked good or bad instead of pairs. **ORPO** (Hong et al.,
# 2024) adds a term on the odds of chosen against rejected to supervised finetuning, again without a reference.
# **Process rewards** (Lightman et al., 2023) judge each step of a solution instead of its end: in this course's terms,
# rewards at more than one token.
#
# ## Try next
# - `beta` 0.1 and 2: which penalty is too small to hold it, and which too large to learn?
# - Show whole completions to those who compare (`short = task`): do the reward models get better? Are they hacked
#   later?
# - `error_rate` 0.4: which of the three roads from pairs suffers most: RL, best of $n$, or DPO?
# - Train a second reward model on completions of a hacked policy, labelled by the judge, and go on. This is how it is
#   done in practice: rounds.
# - Other toy worlds, `toy_lm(…, seed=1)` and on: in some the clipped ones even point backwards at the longest step.
# - Add SimPO to the toy world: which distribution does it go to?
#
# ## References
# - Bradley and Terry (1952), *Rank Analysis of Incomplete Block Designs: I. The Method of Paired Comparisons*.
# - Schulman et al. (2017), *Proximal Policy Optimization Algorithms* (PPO).
# - Schulman (2020), *Approximating KL Divergence* (the three estimates). Tang and Munos (2025), *On a Few Pitfalls in
#   KL Divergence Gradient Estimation for RL*.
# - Stiennon et al. (2020), *Learning to Summarize from Human Feedback*; Ouyang et al. (2022), *Training Language
#   Models to Follow Instructions with Human Feedback*.
# - Gao, Schulman and Hilton (2023), *Scaling Laws for Reward Model Overoptimization*.
# - Rafailov et al. (2023), *Direct Preference Optimization* (DPO); Razin et al. (2024), *Unintentional Unalignment:
#   Likelihood Displacement in Direct Preference Optimization*.
# - Ahmadian et al. (2024), *Back to Basics* (RLOO); Shao et al. (2024), *DeepSeekMath* (GRPO); Liu et al. (2025),
#   *Understanding R1-Zero-Like Training* (Dr. GRPO).
# - Yu et al. (2025), *DAPO*; Zheng et al. (2025), *Group Sequence Policy Optimization* (GSPO); MiniMax (2025),
#   *MiniMax-M1* (CISPO).
# - Meng et al. (2024), *SimPO*; Ethayarajh et al. (2024), *KTO*; Hong et al. (2024), *ORPO*; Lightman et al. (2023),
#   *Let's Verify Step by Step*.
# - Beirami et al. (2024), *Theoretical Guarantees on the Best-of-n Alignment Policy*.
