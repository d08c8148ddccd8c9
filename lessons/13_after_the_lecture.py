# Lesson 13: after the lecture. jupytext py:percent; runs as a script: python lessons/13_after_the_lecture.py --help

# %% [markdown]
# # 13 · After the lecture: GRPO, PPO, GSPO, DAPO, reward models, DPO
#
# The lecture ends where today's recipes begin. Their names fill papers, and each is a small change of what you have
# built: another weight in the same loss, or another source of rewards. In this lesson you write what is new in each,
# hold it against an exact gradient, and see the trap of every reward that was *learned*: it can be fooled, and a policy
# that is trained against it finds out how. *(The lecture stops before all of this; its "Summary" of reinforcement
# learning is what you need of it.)* About 190 minutes in two halves, of which 144 for the exercises; runs in 100 s on two
# CPU cores.
#
# **You will need** lesson 12; ratio and clip of lesson 11, the critic of lesson 10. **You will be able to** say in one
# line what GRPO, Dr. GRPO, PPO, GSPO, CISPO, DAPO and DPO change; put a KL penalty where its gradient is right; train a
# reward model and a policy from pairs; recognise reward hacking, and hold it off; test that a penalty is what it says.

# %% [markdown]
# ## Predict first
# Type your guesses over the dots before you run anything else; each is shown beside what you measure. An empty guess
# breaks nothing.
#
# 1. A rollout is used a second time, the policy has moved a little. GRPO, GSPO and CISPO weigh it by ratios, each in its
#    own way. **Which of the three keeps most of the true gradient?**
# 2. To estimate KL(policy ‖ reference) from the policy's samples one may average $-\log r$ or $r - 1 - \log r$, with
#    $r$ = reference / policy: both are unbiased. **Can you subtract either one from the rewards: "both", "the first" or
#    "the second" alone?**
# 3. A reward model has learned from 250 pairs, a tenth of them labelled wrongly, and ranks two new pairs out of three as
#    the judge does. **You train a policy against it: what true reward does it end with?** (It begins at about 0.4; 1 is
#    the best.)
# 4. DPO raises the *difference* of log π between chosen and rejected completions. **Does log π of the chosen ones go "up"
#    or "down"?**

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

from ptlearn.course.predictions import predict

guesses = predict(
    keeps_most=...,  # "GRPO", "GSPO" or "CISPO"
    from_the_rewards=...,  # "both", "the first" or "the second"
    true_reward_in_the_end=...,  # a number
    chosen_by_DPO=...,  # "up" or "down"
)

# %% [markdown]
# In a notebook, change a knob by changing its default in the next cell (`beta=(0.5, …`), then run all cells again.

# %%
import copy
from dataclasses import replace

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
from ptlearn.rl.text_collection import attempt, collect_text, pay
from ptlearn.rl.training import fit_critic, train_policy
from ptlearn.rollout import action_logprobs, take_rows
from ptlearn.statistics import over_seeds

args = arguments(
    "After the lecture: GRPO and its relatives, KL, reward models and their hacking, DPO.",
    model=("pocket-s", "the language model: a pocket model, a folder or a hub id"),
    error_rate=(0.1, "share of the pairs that are labelled wrongly", "at least 0, below 0.5"),
    prompts=(4, "different openings per update", "at least 1"),
    group=(4, "completions per opening", "at least 2"),
    updates=(8, "where the judge pays", "at least 1"),
    lr=(6e-4, "step size of Adam where the judge pays", "above 0"),
    model_updates=(16, "where a reward model pays", "at least 1"),
    model_lr=(1e-3, "step size of Adam where a reward model pays", "above 0"),
    beta=(0.5, "what a nat of KL costs, in rewards", "above 0"),
    dpo_epochs=(2, "of DPO over its pairs", "at least 1"),
    seeds=(5, "reward models, and what learns from them; elsewhere three", "at least 2"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would wait for the first
SEEDS = range(args.seed, args.seed + args.seeds)

# %% [markdown]
# # First half: names of reinforcement learning on text
#
# ## One task
# Reviews, as the pretraining corpus has them: the model gets the first sentence, `My sister found this hotel.`, and
# goes on. It should go on with **praise**. The *judge* is a program that knows every sentence with which the corpus
# praises a film, a book, a meal or a hotel. It pays the share of such sentences in a completion, of two at least.
# Praise that is said twice is not paid at all, nor is anything else, such as a string of good words; a last sentence
# without its full stop is not looked at. In life the judge is a person, too slow and too dear to be asked a thousand
# times. Ours may be asked as often as we like, and that is how we shall see what those who cannot ask do not see.

# %% tags=["again"]
base = load_lm(args.model)
task = replace(tasks.sentiment(), max_new_tokens=20)
short = replace(task, max_new_tokens=10)  # what will be shown to those who compare
DRAWS = 32  # completions of each held-out opening: what the base model can do
pool = attempt(task, base, [x for x in task.held_out for _ in range(DRAWS)], seed=args.seed)
truths = pool.rewards.sum(1).view(len(task.held_out), DRAWS)
start, said = float(truths.mean()), completions(base, pool, task.stop)
print(f"the base model's true reward on {len(truths)} openings: {start:.2f}. Some of its words:")
for opening, (problem, paid) in enumerate(zip(task.held_out[:4], truths)):
    print(f"{paid[0]:.2f}  {problem.prompt} -> {said[opening * DRAWS]}")


# %%
def judged(lm, samples=8):
    """A policy's true reward on the held-out openings, and its KL to the base per completion."""
    problems = [problem for problem in task.held_out for _ in range(samples)]
    rollout = attempt(task, lm, problems, seed=args.seed + 1)
    before, _ = score_actions(base, rollout, None)
    kl = pg.kl_estimates(rollout.logprobs, before, rollout.mask).k1.sum(1).mean()
    return float(rollout.rewards.sum(1).mean()), float(kl)


# %% [markdown]
# ## Compared within a group
# GRPO (Shao et al., 2024) samples a group of $n$ completions for each prompt and compares them with each other: the
# advantage of a completion is its reward minus the mean of its group, **divided by the group's standard deviation**. Dr.
# GRPO (Liu et al., 2025) leaves the division out.

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


generator = torch.Generator().manual_seed(args.seed)
batch, _ = collect_text(task, base, prompts=4, group=4, generator=generator)
rewards, groups = won(batch)
found = group_advantages(rewards, groups)
rloo = rewards - pg.leave_one_out(rewards, groups=groups)  # lesson 12
assert torch.allclose(found["Dr. GRPO"], rloo * (1 - 1 / 4), atol=1e-5)
for name, each in {"rewards": rewards, "RLOO": rloo, **found}.items():
    print(f"{name:9s}", "   ".join(" ".join(f"{x:5.2f}" for x in row) for row in each.view(4, 4)))

# %% [markdown]
# **What you saw.** Four groups side by side. Signs and order within a group are the same in all three. Dr. GRPO's
# advantage *is* RLOO's times $1 - 1/n$ (the row itself in the mean costs that factor, lesson 09; the cell asserts it), so
# it needs no run of its own. GRPO makes groups alike: those whose completions hardly differ are blown up to the size of
# the others.
#
# ## Where the ratio lives
# Sampling is dear, so a rollout is used for several steps, and from the second one on the policy π is no longer the μ that
# sampled it. Lesson 11 had the ratio of a token, $\rho_t = \pi(a_t \mid s_t) / \mu(a_t \mid s_t)$, and of a whole
# trajectory. The recipes differ in where they put it, and the names below are these objectives for one completion $y$ of
# $|y|$ tokens with advantage $A$:
#
# $$\begin{aligned}
# \text{PPO, Dr. GRPO} \quad & \textstyle\sum_t \min\big(\rho_t A,\ \mathrm{clip}(\rho_t, 1 - \varepsilon_l, 1 + \varepsilon_h)\, A\big) \\
# \text{GRPO} \quad & \textstyle\frac1{|y|} \sum_t \min\big(\rho_t A,\ \mathrm{clip}(\rho_t, 1 - \varepsilon_l, 1 + \varepsilon_h)\, A\big) \\
# \text{GSPO} \quad & \min\big(s A,\ \mathrm{clip}(s, 1 - \varepsilon_l, 1 + \varepsilon_h)\, A\big), \quad
#    s = \Big(\tfrac{\pi(y)}{\mu(y)}\Big)^{1/|y|} = \Big(\textstyle\prod_t \rho_t\Big)^{1/|y|} \\
# \text{CISPO} \quad & \textstyle\sum_t \mathrm{sg}\big[\mathrm{clip}(\rho_t, 1 - \varepsilon_l, 1 + \varepsilon_h)\big]\, A\, \log \pi(a_t \mid s_t)
# \end{aligned}$$
#
# sg stops the gradient. GSPO (Zheng et al., 2025) has one ratio per sequence, the geometric mean of its tokens' ratios,
# and clips whole sequences. CISPO (MiniMax, 2025) clips the *number* and keeps the gradient of every token. Differentiate
# each of them: what stands before $\nabla \log \pi(a_t \mid s_t)$? Remember $\nabla \rho = \rho\, \nabla \log \rho$, and that
# the slope of $\log s$ by the log-probability of one token is $1/|y|$.

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
# <details><summary>Hint 1</summary>First the log-ratios of the tokens, 0 on padding; then one ratio per token, or one per row
# with <code>keepdim=True</code> (a sum of logarithms; divided by the length for the geometric mean).</details>
# <details><summary>Hint 2</summary>Where the clipped side of a min is taken it is constant: weight 0. GSPO's s depends on
# each token's log-probability with 1/|y|, so that factor stays. CISPO's clamp sets no weight to 0.</details>

# %% [markdown]
# ## How far off is each?
# In a toy world all texts can be listed, as in lesson 12, and then every expected gradient is a finite sum. Four words,
# one of them the end, at most three tokens, two prompts: 80 texts. Every "c" pays a third.

# %%
reference = toy_lm(["end", "a", "b", "c"])
every, _ = enumerate_texts(reference, ["a b", "c"], max_new_tokens=3)
every = pay(every, [text.split().count("c") / 3 for text in completions(reference, every)])
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


def ascend(weigh, steps=200, lr=1e-2, start=reference):
    """A copy of a model that followed weigh(chance, logprobs): chance of a text times weight."""
    lm = copy.deepcopy(start)
    adam = torch.optim.Adam(lm.parameters(), lr=lr)
    for _ in range(steps):
        chance, logprobs = chances(lm)
        weights = weigh(chance.detach(), logprobs.detach())
        loss = pg.policy_gradient_loss(logprobs, weights, every.mask, normalizer=1)
        adam.zero_grad(), loss.backward(), adam.step()
    return lm


# %%
def with_returns(chance, logprobs):
    """REINFORCE, in expectation."""
    return chance[:, None] * total


def moments(chance):
    """The mean and the standard deviation of the returns of each text's prompt, (80, 1)."""
    drawn = (two[:, None] == two) * chance / chance[two == 0].sum()
    mean = drawn @ returns
    return mean[:, None], (drawn @ returns**2 - mean**2).sqrt()[:, None]


sampler = ascend(with_returns, steps=3)  # μ
used = chances(sampler)[0].detach(), chances(sampler)[1].detach()
mean, deviation = moments(used[0])
A, length = (returns[:, None] - mean) * every.mask, every.mask.sum(1, keepdim=True)
RECIPES = {  # name: (advantage, form, what each row is divided by)
    "trajectory ratio": (A, "trajectory", 1), "token ratio": (A, "token", 1),
    "PPO, Dr. GRPO": (A, "clip", 1), "GRPO": (A / deviation, "clip", length),
    "GSPO": (A / deviation, "sequence", 1), "CISPO": (A / deviation, "stopped", 1),
}

# %% [markdown]
# The sampler μ is three steps of Adam up $\nabla J$. The policy π is one more step, short or long. The advantage is the
# exact one of a large group: the return minus the mean of its prompt under μ, for GRPO, GSPO and CISPO divided by the
# standard deviation, as their papers have it. ε is 0.2 on both sides. Of each expected gradient: its cosine with
# $\nabla J(\pi)$, and the length of its component along it, in units of the length of $\nabla J$ (1 would be all of it).

# %% tags=["again"]
def expected(lm, weights, chance):
    """The mean gradient over texts that come with these chances."""
    return slope(lm, (chance[:, None] * weights * chances(lm)[1]).sum())


def against(lm, true):
    """Of each recipe cosine, component along the true gradient, and the share of zero weights."""
    chance, behavior = used
    logprobs, found = chances(lm)[1].detach(), {}
    for name, (advantages, form, by) in RECIPES.items():
        weights = ratio_weights(logprobs, behavior, advantages, every.mask, form) / by
        mean = expected(lm, weights, chance)
        zero = (chance[:, None] * every.mask * (weights == 0)).sum() / (chance[:, None] * every.mask).sum()
        found[name] = float(cosine_similarity(mean, true, 0)), float(mean @ true / true @ true), float(zero)
    return found


bias = {}
for lr in (0.0, 0.002, 0.01):
    lm = ascend(with_returns, steps=1, lr=lr, start=sampler)
    chance, _ = chances(lm)
    KL = float((used[0] * (used[0] / chance.detach()).log()).sum())
    bias[lr] = against(lm, slope(lm, chance @ returns))
    print(f"\nKL(μ‖π) = {KL:.4f} nats   cosine   along   weights that are 0")
    for name, (cosine, along, zero) in bias[lr].items():
        print(f"{name:22s} {cosine:9.3f} {along:7.3f} {zero:12.0%}")
guesses.reveal("keeps_most", max(("GRPO", "GSPO", "CISPO"), key=lambda name: bias[0.01][name][0]))
