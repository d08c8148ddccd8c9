# Lesson 12: reinforcement learning on text. jupytext py:percent; runs as a script: python lessons/12_text_rl.py --help

# %% [markdown]
# # 12 · RL on text: tokens are actions
#
# Everything since lesson 07 was about a robot on a grid, and everything was meant for this: a language model chooses a
# token as the robot chose a step. In this lesson you write one loop, sample, weigh, step, and it trains both. You hold
# its gradient on text against an exact one, watch a model that adds wrongly half of the time learn from nothing but
# "right" and "wrong", find out which improvements of lessons 09 to 11 pay here, and spend a budget of 600 answers as
# well as you can. *(Lecture: "REINFORCE algorithm on text", and its summary; claims C28, C39–C41.)* About 185 minutes,
# of which 149 for the exercises; runs in 85 s on two CPU cores.
#
# **You will need** the estimator of lesson 08, baselines from 09, ratios from 11, finetuning from 03. **You will be
# able to** write RL on text as sample, weigh, step; measure what a baseline is worth on text; correct for a sampler
# that is not the learner; say what RL can and cannot add to the model that it starts from; and write a test that
# refuses bugs which raise no error.

# %% [markdown]
# ## Predict first
# Type your guesses over the dots before you run anything else; each is shown beside what you measure.
#
# 1. A model gets half of its sums right, and is told "right" or "wrong" for 256 of its own answers. **Which share does
#    it get right afterwards?**
# 2. Right pays 1, wrong pays 0. **By which factor does the baseline of the other answers to the same prompt reduce the
#    noise of the gradient, relative to its signal** (below 1: it adds noise)?
# 3. You sample at temperature 0.5 and forget to tell the learner. **Are its batches "better" or "worse" than at
#    temperature 1? And the model that it becomes, asked at temperature 1?**
# 4. RL from the base model, without any finetuning. **Which share of held-out sums is right afterwards, if it is asked
#    in the chat format that it has never seen? And if it is asked to go on with "26 + 17 is"?**

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

from ptlearn.course.predictions import predict

guesses = predict(
    right_afterwards=...,  # a share
    factor_of_the_baseline=...,  # noise / signal of the reward, over that of RLOO
    batches_at_half_temperature=...,  # "better" or "worse"
    model_at_half_temperature=...,  # "better" or "worse"
    from_base_in_chat=...,  # a share
    from_base_going_on=...,  # a share
)

# %%
import copy
import math
from dataclasses import replace

import torch
from matplotlib import pyplot
from torch.autograd import grad
from torch.nn.functional import cosine_similarity, cross_entropy, one_hot

from ptlearn import figures
from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import check
from ptlearn.course.lab import mystery_runs
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import completions, sample_text
from ptlearn.pocket import rl_contest, tasks
from ptlearn.rl.enumeration import enumerate_texts, exact_text_gradient, text_objective
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.text_collection import attempt, collect_text, pay, prompt_texts, sampled_scores
from ptlearn.rollout import action_logprobs, distinct_rows, take_rows
from ptlearn.statistics import over_seeds

args = arguments(
    "RL on text: the grid's loop, the exact gradient, baselines, samplers, base against SFT.",
    model=("pocket-m", "the language model: a pocket model, a folder or a hub id"),
    largest=(50, "largest number in the sums", "at least 45"),
    examples=(300, "conversations that the model is finetuned on first", "at least 60"),
    updates=(8, "of each learner", "at least 2"),
    prompts=(8, "different sums per update", "at least 2"),
    group=(4, "completions per sum", "at least 2"),
    lr=(1e-4, "step size of Adam", "above 0"),
    seeds=(5, "learners in the main result; elsewhere at most three", "at least 2"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(min(2, torch.get_num_threads()))  # more would wait for these two
SEEDS = range(args.seed, args.seed + args.seeds)


# %% [markdown]
# ## A model and a task
# The task: sums, `What is 26 + 17?`. The **verifier** reads the last number of the answer and pays 1 if it is right, 0
# if not; **pass@1** is the share of sampled answers that are right. The policy starts from a base model, finetuned
# briefly on 300 conversations (lesson 03), about half of them sums, none of those held out, the others differences.

# %%
base = load_lm(args.model)
task = tasks.arithmetic(largest=args.largest)
QUIZ = task.held_out[:100]  # sums that neither finetuning nor RL trains on


def held_out(lm, samples=2):
    """pass@1 at temperature 1 on sums held out of finetuning and RL."""
    return float(sampled_scores(task, lm, QUIZ, samples=samples, seed=args.seed + 1).mean())


sft = rl_contest.finetuned(args.model, args.examples)  # lesson 03's finetuning
before = held_out(sft)

# %% tags=["again"]
tried = attempt(task, sft, task.held_out[:4], seed=args.seed)
for name, lm in (("base", base), ("SFT", sft)):
    said = attempt(task, lm, task.held_out[:4], seed=args.seed)
    print(f"{name}: pass@1 on held-out sums {held_out(lm):.2f}")
    answers = zip(task.held_out, completions(lm, said, task.stop), said.rewards.sum(1))
    for problem, text, paid in answers:
        print(f"    {problem.prompt:20s} -> {text!r:24s} reward {paid:.0f}")

# %% [markdown]
# ## Tokens as actions
# The translation is a table of three rows, and `Rollout` is the record of both worlds:
#
# | | grid world | text |
# |---|---|---|
# | state $s_t$ | the cell | the prefix: the prompt and all tokens so far |
# | action $a_t$ | a move | the next token |
# | policy $\pi_\theta(a_t \mid s_t)$ | softmax of a table's row | softmax of the language model's logits |
#
# The dynamics are as simple as can be, $s_{t+1} = (s_t, a_t)$: appending is certain. The reward is 0 until the last
# token, where the verifier pays. Here is one episode.

# %% tags=["again"]
row, words = tried.rewards.sum(1).argmax(), sft.tokenizer.convert_ids_to_tokens
columns = [words(tried.observations[row]), words(tried.actions[row]), tried.logprobs[row],
           tried.rewards[row], tried.mask[row].tolist()]  # fmt: skip
print("  t  reads     writes     log π   reward  chosen by the model")
for t, (read, written, noted, paid, chosen) in enumerate(zip(*columns)):
    print(f"{t:3d}  {read:9.9s} {written:9.9s} {noted:7.2f} {paid:7.0f}  {chosen}")

# %% [markdown]
# Read it downwards. A model that reads token $t$ writes token $t+1$, so observations are the text without its last
# token and actions the text without its first. The prompt was not chosen by the model: `mask` is False there, and
# True from the step that **reads the last prompt token**, because that one writes the first token of the answer. And
# the token that ends the answer was chosen too. Most bugs in RL on text sit in this paragraph. So write the record
# yourself, from lists of tokens, and with the log-probability of each token that was *written*.

# %% ex="12.1" title="An answer as a record" points=3 difficulty="medium" minutes=14
def as_record(prompts, answers, logits):
    """Prompts and their answers as one batch, padded with 0 on the right: a dict of

    "observations" (B, T) int, the padded table of texts without its last column: the token
    read at each step; "actions" (B, T) int, the table without its first: the one written;
    "mask" (B, T) bool, True where the model chose what was written; "logprobs" (B, T), log π
    of the token written, in nats, and 0 where mask is False.

    prompts, answers: lists of lists of tokens, none empty; the end token stands in the answer.
    T is the longest text (prompt and answer) less one. logits (B, T, V) are the model's when
    it reads the observations; where mask is False they may be anything, infinity too.
    """
    # BEGIN SOLUTION
    texts = [prompt + answer for prompt, answer in zip(prompts, answers)]
    longest = max(len(text) for text in texts)
    tokens = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros(len(texts), longest - 1, dtype=torch.bool)
    for row, (prompt, text) in enumerate(zip(prompts, texts)):
        tokens[row, : len(text)] = torch.tensor(text)
        mask[row, len(prompt) - 1 : len(text) - 1] = True
    read, written = tokens[:, :-1], tokens[:, 1:]
    chosen = logits.log_softmax(-1).gather(-1, written.unsqueeze(-1)).squeeze(-1)
    logprobs = torch.where(mask, chosen, 0)
    return {"observations": read, "actions": written, "mask": mask, "logprobs": logprobs}
    # END SOLUTION

# %% ex="12.1" role="check"
as_record = check("12.1", as_record)   # yours if it passes, the package's if not

# %% [markdown] ex="12.1" role="hints"
# <details><summary>Hint 1</summary>Lay all texts into one table of tokens first, row by row; observations and actions
# are the same table without its last and without its first column. The step that writes the first token of the answer
# reads the last token of the prompt, number <code>len(prompt) − 1</code> counted from 0.</details>
# <details><summary>Hint 2</summary><code>log_softmax(-1)</code>, then <code>gather</code> the actions. 0 times infinity
# is not a number: cut off with <code>torch.where(mask, …, 0)</code> instead of multiplying.</details>

# %% [markdown]
# The sampler must have noted the same. `action_logprobs` is the package's way to the last entry; a language model it
# asks for the logits at masked steps alone. And equal answers, of which there will be many, need be read only once:
# that is `log_pi`, which your loop will call.

# %%
def text_of(rollout):
    """All tokens of each row, (B, T + 1)."""
    return torch.cat([rollout.observations[:, :1], rollout.actions], 1)


def log_pi(policy, rollout):
    """log π of each action (B, T), with gradient; of equal rows one is read."""
    first, which = distinct_rows(rollout)
    return action_logprobs(policy, take_rows(rollout, first))[which]


# %%
begin = tried.mask.to(torch.uint8).argmax(1) + 1  # of each answer
bounds = zip(text_of(tried).tolist(), begin.tolist(), (begin + tried.mask.sum(1)).tolist())
pairs = [(text[:first], text[first:end]) for text, first, end in bounds]
noted = as_record(*map(list, zip(*pairs)), sft(tried.observations).detach())
assert torch.equal(noted["mask"], tried.mask)
for same in (tried.logprobs, log_pi(sft, tried).detach()):
    assert torch.allclose(noted["logprobs"], same, atol=1e-3)

# %% [markdown]
# ## One loop, two worlds
# Now the loop, and for both worlds at once. Sample episodes with the policy as it is; ask for a weight on each action;
# step up the gradient of
#
# $$\frac1N \sum_{i=1}^N \sum_t w^i_t \log \pi_\theta(a^i_t \mid s^i_t),
#   \qquad\text{with } w^i_t = r(\tau^i) \text{ for REINFORCE.}$$
#
# `sample` and `weigh` are functions, so that a world, a temperature or a baseline is an argument and never another
# loop. And since a loss says nothing about progress (lesson 08), note what does.

# %% ex="12.2" title="REINFORCE, for both worlds" points=4 difficulty="medium" minutes=16
def reinforce(policy, sample, weigh, updates, lr, clip_norm=math.inf):
    """Train the policy in place; returns a dict of lists with a number per update.

    sample(policy) gives a Rollout; weigh(rollout, logprobs) gives weights (B, T), where
    logprobs (B, T) are log_pi(policy, rollout) without gradient. Adam steps with this lr on
    minus the mean above (the loss), its gradient clipped with torch.nn.utils.clip_grad_norm_.

    "reward", the mean over episodes of their rewards' sum where mask is True; "length",
    their mean number of steps; "nats", the mean over all steps of -log π, on own samples an
    estimate of the entropy; "norm", the gradient's norm before it is clipped, which
    clip_grad_norm_ returns.
    """
    # BEGIN SOLUTION
    adam = torch.optim.Adam(policy.parameters(), lr=lr)
    history = {"reward": [], "length": [], "nats": [], "norm": []}
    for _ in range(updates):
        rollout = sample(policy)
        logprobs = log_pi(policy, rollout)
        weights = weigh(rollout, logprobs.detach())
        loss = -(weights * logprobs).sum() / len(weights)
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), clip_norm)
        adam.step()
        steps = rollout.mask.sum(1)
        history["reward"].append((rollout.rewards * rollout.mask).sum(1).mean().item())
        history["length"].append(steps.float().mean().item())
        history["nats"].append(-logprobs.sum().item() / steps.sum().item())
        history["norm"].append(norm.item())
    return history
    # END SOLUTION

# %% ex="12.2" role="check"
reinforce = check("12.2", reinforce)

# %% [markdown] ex="12.2" role="hints"
# <details><summary>Hint 1</summary>One optimizer, before the loop. In it, in this order: sample; log π with gradient;
# weights from log π without; loss; zero the gradients, backward, clip, step. A fresh batch for every update.</details>
# <details><summary>Hint 2</summary><code>log_pi</code> is 0 where mask is False, so
# <code>-(weights * logprobs).sum() / len(weights)</code> is the loss, and the number of steps is
# <code>rollout.mask.sum()</code>.</details>

# %%
def reward(rollout, *_):
    """REINFORCE's weights: every action gets the return of its episode."""
    return pg.total_return(rollout.rewards, rollout.mask)


def text_sampler(seed, about=task, prompts=args.prompts, group=args.group, **sampling):
    """A `sample` for the loop: some problems of a task, a group of answers to each."""
    source = torch.Generator().manual_seed(seed)

    def sample(lm):
        return collect_text(about, lm, prompts=prompts, group=group, generator=source,
                            **sampling)[0]  # fmt: skip

    return sample


def learner(weigh, seed, start=sft, updates=args.updates, lr=args.lr, **sampling):
    """A copy of `start` that has learned, and its history."""
    lm = copy.deepcopy(start)
    return lm, reinforce(lm, text_sampler(seed, **sampling), weigh, updates, lr, clip_norm=1.0)


# %%
world = GridWorld("default", pit_reward=0.0).to_mdp()
source = torch.Generator().manual_seed(args.seed)


def walks(policy):
    return collect(world, policy, 64, horizon=50, generator=source)[0]


robot = TabularPolicy(world.states, world.actions)
on_the_grid = reinforce(robot, walks, reward, updates=40, lr=0.1)
runs = {"reward": [learner(reward, seed) for seed in progress(SEEDS[:3], "reward")]}
print("robot, star reached   ", *(f"{value:.2f}" for value in on_the_grid["reward"][::5]))
print("language model, right ", *(f"{value:.2f}" for value in runs["reward"][0][1]["reward"]))

# %% [markdown]
# **What you saw.** [C39] One function, two worlds: `policy`, `sample` and Adam's step size are arguments. The
# package's `train_policy` is this loop with checks, checkpoints and micro-batches around it, and a test of the course
# holds both to the same numbers.
#
# ## Is it the right gradient?
# On the grid you had an exact answer. Here is one for text: a real transformer over **6 words**, random weights, at
# most **4 tokens** per answer. Its 781 possible answers can be listed, with their probabilities. The reward is the
# share of "c" in an answer's four places. Then $J(\theta) = \sum_y \pi_\theta(y \mid x)\, r(y)$ is a plain sum, and
# autograd differentiates it without any trick.

# %%
toy = toy_lm(["end", "a", "b", "c", "d", "e"])
every, chance = enumerate_texts(toy, ["a b"], max_new_tokens=4)
every = pay(every, [text.split().count("c") / 4 for text in completions(toy, every)])
returns, lengths = pg.episode_returns(every.rewards, every.mask), every.mask.sum(1)
J, exact = float(text_objective(toy, every).detach()), exact_text_gradient(toy, every)

print(f"{len(chance)} answers, together {chance.sum():.9f}; J = {J:.4f}; {len(exact)} weights")

# %% [markdown]
# An estimate's mean over all 781 answers, and its variance, need the score of each, $\nabla_\theta \log \pi_\theta(y
# \mid x)$: of all parameters, and for one answer at a time. Lesson 08 had a closed form. Here autograd has to do it.

# %% ex="12.3" title="The score of each answer" points=2 difficulty="medium" minutes=8
def answer_scores(policy, rollout, parameters):
    """∇ log π of each row's answer by the parameters, laid end to end: (B, P).

    parameters, a list of tensors that the policy uses, P numbers in all. An answer's log π is
    the sum over its steps of action_logprobs(policy, rollout); take_rows(rollout, rows (n,))
    is the rollout of some rows alone.
    """
    # BEGIN SOLUTION
    found = []
    for row in range(len(rollout.mask)):
        one = take_rows(rollout, torch.tensor([row]))
        total = action_logprobs(policy, one).sum()
        parts = grad(total, parameters)
        found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found)
    # END SOLUTION

# %% ex="12.3" role="check"
answer_scores = check("12.3", answer_scores)

# %% [markdown] ex="12.3" role="hints"
# <details><summary>Hint 1</summary><code>grad(total, parameters)</code> gives a tensor per parameter, of a scalar
# <code>total</code>. So go row by row.</details>
# <details><summary>Hint 2</summary>Flatten each part, <code>torch.cat</code> them, and <code>torch.stack</code> the
# rows.</details>

# %%
scores = answer_scores(toy, every, list(toy.parameters()))

# %% tags=["again"]
b = float(pg.optimal_baseline(chance * (scores**2).sum(1), returns))
tried_out = {"r": returns, "r − J": returns - J, f"r − b*, b* = {b:.3f}": returns - b}
print("weight of an answer      error of the mean   variance / |∇J|²")
for name, weights in tried_out.items():
    each = weights[:, None] * scores
    mean = chance @ each
    spread = float(chance @ ((each - mean) ** 2).sum(1) / exact.norm() ** 2)
    print(f"{name:24s} {(mean - exact).norm() / exact.norm():17.0e}  {spread:17.1f}")

# %% [markdown]
# **What you saw.** [C39] On a transformer, too, the mean of REINFORCE's estimate is the exact gradient, to rounding,
# and a baseline leaves it where it is. In this toy world it also takes away half of the variance. Remember that when you
# come to the real one.
#
# ## Supervised finetuning is a special case
# The lecture: "Supervised learning on model generations weighted by return". So take lesson 03's loss, the
# cross-entropy between logits and the tokens that follow, on the model's *own* answers, and multiply each answer's loss
# by its return. No log π, no policy: write it as somebody would who has only ever finetuned.

# %% ex="12.4" title="Finetuning, weighted by return" points=2 difficulty="medium" minutes=8
def weighted_cross_entropy(logits, tokens, mask, returns):
    """The mean over answers of return times the answer's summed cross-entropy: a scalar.

    logits (B, T, V), at each token but the last; tokens (B, T + 1) int; mask (B, T) bool,
    True where a token of the answer is predicted; returns (B,). The losses of single tokens:
    cross_entropy(logits (n, V), tokens (n,), reduction="none").
    """
    # BEGIN SOLUTION
    followed = tokens[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), followed.flatten(), reduction="none")
    per_answer = torch.where(mask, losses.view_as(mask), 0).sum(1)
    return (returns * per_answer).mean()
    # END SOLUTION

# %% ex="12.4" role="check"
weighted_cross_entropy = check("12.4", weighted_cross_entropy)

# %% [markdown] ex="12.4" role="hints"
# <details><summary>Hint 1</summary>Each logit predicts the <em>next</em> token: the labels are
# <code>tokens[:, 1:]</code>. <code>flatten(0, 1)</code> makes one long row of predictions.</details>
# <details><summary>Hint 2</summary><code>losses.view_as(mask)</code> puts the losses back into rows; cut prompt and
# padding off, sum each row, multiply by its return, take the mean.</details>

# %%
precise = copy.deepcopy(sft).double()  # float64, so that equal can be told from nearly equal
problems = [problem for problem in task.train[:16] for _ in range(4)]  # four answers to each
own = attempt(task, sft, problems[:32], seed=args.seed)
won = own.rewards.sum(1)


def slope(loss, lm):
    """The gradient of a loss by all parameters, end to end."""
    parts = grad(loss, list(lm.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


# %% tags=["again"]
logits, given = precise(own.observations), (text_of(own), own.mask)
supervised = slope(weighted_cross_entropy(logits, *given, won.double()), precise)
reinforced = slope(-(reward(own) * log_pi(precise, own)).sum() / len(won), precise)
off = (supervised - reinforced).abs().max() / reinforced.abs().max().clamp(min=1e-30)
print(f"{int(won.sum())} of {len(won)} answers are right; weighted finetuning and REINFORCE:")
print(f"largest difference of their gradients {off:.0e} of the largest entry")

# %% [markdown]
# **What you saw.** [C28] REINFORCE on text *is* finetuning on own answers weighted by return (2e-08 is rounding: the
# library's norms go through float32). With a reward of 0 or 1 the wrong ones drop out, and it is finetuning on the right
# answers alone. Only two things are new: the data come from the model itself, anew for every step, and weights may be
# something else than 0 and 1. The rest of this lesson is about these weights.
#
# ## Learning to add
# One weight has become a standard: compare an answer with the other answers to the *same* prompt. A right answer to an
# easy sum says little, one to a hard sum a lot. With $k$ answers $y_1 \dots y_k$ to a prompt, **RLOO** (REINFORCE
# leave-one-out) gives
#
# $$w_i = r(y_i) - \frac{1}{k-1} \sum_{j \ne i} r(y_j),$$
#
# the leave-one-out baseline of lesson 09 within groups: the others do not know $y_i$, so the estimate stays unbiased.

# %% ex="12.5" title="RLOO" points=2 difficulty="medium" minutes=10
def rloo_weights(returns, groups, mask):
    """Return minus the mean return of the other rows of the same group, on each chosen token
    of a row; 0 elsewhere.

    returns (B,) float; groups (B,) int, the number of each row's prompt, at least two rows
    each, in any order; mask (B, T) bool -> (B, T) float.
    """
    # BEGIN SOLUTION
    same = (groups[:, None] == groups).to(returns.dtype)
    others = same - torch.eye(len(returns), dtype=returns.dtype)
    baseline = others @ returns / others.sum(1)
    return (returns - baseline)[:, None] * mask
    # END SOLUTION

# %% ex="12.5" role="check"
rloo_weights = check("12.5", rloo_weights)

# %% [markdown] ex="12.5" role="hints"
# <details><summary>Hint 1</summary>A matrix says who belongs together: <code>groups[:, None] == groups</code>. Take
# yourself out of it.</details>
# <details><summary>Hint 2</summary>Sum of the others divided by their number; then one number per row has to be
# written on each token: <code>[:, None] * mask</code>.</details>

# %%
def rloo(rollout, *_):
    gained = pg.episode_returns(rollout.rewards, rollout.mask)
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    return rloo_weights(gained, groups, rollout.mask)


runs["RLOO"] = [learner(rloo, seed) for seed in progress(SEEDS, "RLOO")]
after = [held_out(lm) for lm, _ in runs["RLOO"]]

# %% tags=["again"]
first, history = runs["RLOO"][0]
drawn = attempt(task, first, task.train[:64], seed=args.seed + 2)
kl = (drawn.logprobs - log_pi(sft, drawn).detach()).sum(1).mean()
print(f"seed {args.seed}, update by update; at its end KL {kl:.2f} nats to the start")
for name, unit in (("reward", "right"), ("length", "tokens"), ("nats", "nats per token")):
    print(f"  {unit:15s}", *(f"{value:5.2f}" for value in history[name]))
print(f"held-out pass@1: {before:.2f} before, {over_seeds(after)} after")
print("rise per seed, points:", *(f"{100 * (value - before):+.0f}" for value in after))
guesses.reveal("right_afterwards", sum(after) / len(after))

# %%
figure, axes = pyplot.subplots(figsize=(5, 2.8))
curves = [history["reward"] for _, history in runs["RLOO"]]
figures.learning_curves(axes, range(1, args.updates + 1), curves, "training batches")
axes.plot([args.updates + 0.5] * len(after), after, color=figures.COLORS[1], linestyle="none",
          marker=figures.MARKERS[1], label="held out, afterwards")  # fmt: skip
axes.axhline(before, color="black", linestyle=":", label="held out, before")
axes.set(title=f"Learning to add, {args.seeds} seeds", xlabel="updates", ylim=(0, 1))
axes.set_ylabel("share of right answers")
axes.legend(fontsize=8, loc="lower right")
begun, ended = (sum(curve[at] for curve in curves) / len(curves) for at in (0, -1))
show(figure, alt=f"Share of right answers against updates, {args.seeds} seeds: training "
     f"batches from {begun:.2f} to {ended:.2f}; held out {before:.2f} before, "
     f"{min(after):.2f} to {max(after):.2f} afterwards.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C40] Sample, weigh, step: in every seed the held-out score rises by more than 25 points, from 256
# answers of its own, and in these updates nobody showed it a right one.
#
# ## Which variance reduction pays?
# Lesson 09 took the noise out of the gradient step by step. Do the same here, with four weights:
#
# - *reward*: the return itself, lesson 08.
# - *mean of the batch*: minus the mean of all other answers.
# - *RLOO*: minus the mean of the other answers to the same prompt.
# - *standardized*: minus the group's mean, itself included, divided by its standard deviation (GRPO, lesson 13).
#
# Reward-to-go, the first step of lesson 09, is missing: with a reward at the end alone, the return from $t$ on *is*
# the return. First two of the learners: the same seeds, the same number of answers.

# %%
def batch_mean(rollout, *_):
    won = rollout.rewards.sum(1)
    return (won - pg.leave_one_out(won))[:, None] * rollout.mask


def standardized(rollout, *_):
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    return pg.standardized(rollout.rewards.sum(1), groups)[:, None] * rollout.mask


ends = {"reward": [held_out(lm) for lm, _ in runs["reward"]], "RLOO": after[:3]}
for name, values in ends.items():
    print(f"{name:18s} held-out pass@1, seed by seed:", *(f"{x:.2f}" for x in values))

# %% [markdown]
# The baseline does not help; in each of the three seeds it even costs a few points. Before you blame chance, measure
# the noise itself: the gradient of many batches, and how far it scatters about its mean. One answer's gradient is its
# weight times its score $\nabla_\theta \log \pi_\theta(y \mid x)$, so take the scores once and try every weight. A
# prompt's answers depend on each other through the baseline; prompts do not (through the mean of the batch a little,
# neglected here). So the unit is the prompt: $K$ gradients $g_k$, one for each, which are independent. A batch averages
# $P$ of them. Its **noise** is the trace of the covariance of that average; its **signal** is $|\mathbb E[g]|^2$, and
# the squared length of the *sample* mean is too large for it, on average by the noise of an average of $K$.

# %% ex="12.6" title="Noise and signal" points=2 difficulty="medium" minutes=8
def noise_and_signal(gradients, prompts):
    """Of the mean gradient of so many prompts: the trace of its covariance, and the squared
    length of its expectation, both estimated without bias: a dict of two numbers, "noise"
    and "signal".

    gradients (K, D): of K independent prompts one each, D parameters, K at least 2; prompts,
    the P above.
    """
    # BEGIN SOLUTION
    spread = gradients.var(0).sum()  # with K - 1
    mean = gradients.mean(0)
    return {
        "noise": spread / prompts,
        "signal": (mean**2).sum() - spread / len(gradients),
    }
    # END SOLUTION

# %% ex="12.6" role="check"
noise_and_signal = check("12.6", noise_and_signal)

# %% [markdown] ex="12.6" role="hints"
# <details><summary>Hint 1</summary>The trace of a covariance is the sum of the parameters' variances (with K − 1). The
# mean of P independent gradients has a P-th of it.</details>
# <details><summary>Hint 2</summary>The squared length of the mean of K noisy gradients is the signal plus a K-th of the
# spread, on average: subtract it.</details>

# %% [markdown]
# The model's biases, a small part of its parameters, stand for all of them.

# %%
many = text_sampler(args.seed, prompts=32)(sft)
biases = [parameter for name, parameter in sft.named_parameters() if name.endswith("bias")]
S, many_won = answer_scores(sft, many, biases), many.rewards.sum(1)
long = (S**2).sum(1)
for paid in (1, 0):
    those, likely = many_won == paid, many.logprobs.sum(1)[many_won == paid].mean()
    print(f"{int(those.sum())} answers of reward {paid}: "
          f"mean log π {likely:+.1f}, mean |score|² {long[those].mean():.0f}")  # fmt: skip
best = float(pg.optimal_baseline(long, many_won))
print(f"mean reward {many_won.mean():.2f}; constant baseline of least variance {best:.2f}")

# %% tags=["again"]
METHODS = {"reward": reward, "mean of the batch": batch_mean, "RLOO": rloo,
           "standardized": standardized}  # fmt: skip
noise = {}
print("noise / signal     right 1, wrong 0   right 0, wrong −1   right 4, wrong 3")
for name, weigh in METHODS.items():
    seen = []
    for shift in (0, -1, 3):
        weights = weigh(pay(many, (many_won + shift).tolist())).sum(1) / many.mask.sum(1)
        each = (weights[:, None] * S).view(32, args.group, -1).mean(1)  # one per prompt
        seen.append(noise_and_signal(each, args.prompts))
    noise[name] = [float(one["noise"] / seen[0]["signal"]) for one in seen]
    print(f"{name:17s}", *(f"{ratio:17.1f}" for ratio in noise[name]))
guesses.reveal("factor_of_the_baseline", noise["reward"][0] / noise["RLOO"][0])

# %% [markdown]
# **What you saw.** Look at the scores first. A wrong answer is one that the model found unlikely itself, and the
# score of something unlikely is long (lesson 08: $\mathbb 1 - \pi$). So nearly all noise comes from wrong answers,
# and a verifier that pays them **0** has silenced them: no baseline at all, 0, is near the best constant one, 0.05.
# Subtract the mean reward, and the noisy half comes back. The textbook's promise holds for the *mean* where the
# length of a score has little to do with its reward. (How much it costs depends on the sample: a few very long scores
# decide it, and another seed gives another factor.)
#
# In the other columns every reward is shifted by a constant, which changes no optimum (the signal is the first
# column's). Baselines do not notice. The bare reward does: pay −1 for wrong and it learns from the noisy half alone; pay
# 3 and 4, and everything is pushed. Does learning agree? RLOO's weights stay as they are, so its runs are those from
# above.

# %%
def reward_and_3(rollout, *_):
    return reward(pay(rollout, (rollout.rewards.sum(1) + 3).tolist()))


runs["reward + 3"] = [learner(reward_and_3, seed) for seed in progress(SEEDS[:3], "+ 3")]
for name in ("RLOO", "reward + 3"):
    final = [sum(history["reward"][-4:]) / 4 for _, history in runs[name][:3]]
    print(f"{name:10s} right in a seed's last four batches:", *(f"{x:.2f}" for x in final))

# %% [markdown]
# **What you saw.** [C40] With rewards of 3 and 4 the bare reward learns less in each of the three seeds. RLOO is the
# same run as before. That is what a baseline is for on text: **you need not know where the zero of your rewards
# lies.** A verifier's 0 and 1 are the lucky case; a reward model's scores (lesson 13) are not. Standardizing divides
# each group by its own spread: the noise relative to the signal stays about the same, the gradient is longer, and groups
# that nearly agree count as much as others.
#
# ## Do sampler and learner agree?
# The estimate holds for samples of *the policy that is differentiated*. In practice two pieces of code are involved:
# one that samples fast, one that learns. They disagree more often than one would think: temperature, truncation,
# precision, padding, a shift by one, old weights. So the record keeps the log-probabilities of the sampler $\mu$;
# recompute them with the learner $\pi$, after every collection, and compare. Lesson 11 has two more things to say. Where
# they differ, each token's weight can be corrected by the ratio $\pi/\mu$, cut off at a cap so that no single token
# takes over (*truncated importance sampling*). And the ratios of whole answers, $\rho_i = \pi(y_i)/\mu(y_i)$, tell how
# many of the $B$ answers are left: the effective sample size $(\sum_i \rho_i)^2 / \sum_i \rho_i^2$, here as a share of
# $B$.

# %% ex="12.7" title="The learner against its sampler" points=3 difficulty="medium" minutes=12
def against_the_sampler(logprobs, recorded, mask, cap):
    """How far the learner is from its sampler, and what repairs it: a dict of

    "largest", the largest |log π − log μ| of a chosen token, in nats, a number;
    "weights" (B, T), π/μ of each token but at most cap, 0 where mask is False;
    "ess", the effective sample size of the answers by their whole ratios, as a share of B.

    logprobs (B, T), the learner's log π; recorded (B, T), the sampler's log μ; both may be
    anything where mask (B, T) is False; cap, a number.
    """
    # BEGIN SOLUTION
    gaps = torch.where(mask, logprobs - recorded, 0)
    ratios = gaps.sum(1).exp()
    return {
        "largest": gaps.abs().max(),
        "weights": torch.where(mask, gaps.exp().clamp(max=cap), 0),
        "ess": ratios.sum() ** 2 / (ratios**2).sum() / len(ratios),
    }
    # END SOLUTION

# %% ex="12.7" role="check"
against_the_sampler = check("12.7", against_the_sampler)

# %% [markdown] ex="12.7" role="hints"
# <details><summary>Hint 1</summary>All three are made of one table, log π − log μ with 0 where mask is False. A ratio is
# the exponential of a difference; the ratio of a whole answer that of a sum.</details>
# <details><summary>Hint 2</summary>Cut off with <code>torch.where</code> before you sum. The cap belongs to the tokens'
# ratios alone: <code>clamp(max=cap)</code>, after the exponential.</details>

# %%
half = copy.deepcopy(sft).to(torch.bfloat16)  # as one samples on a GPU
fresh = attempt(task, sft, problems)
sampled = {
    "as it should be": fresh,
    "shifted by one": replace(fresh, logprobs=fresh.logprobs.roll(-1, 1)),
    "in bfloat16": attempt(task, half, problems),
    "temperature 0.5": attempt(task, sft, problems, temperature=0.5),
    "the 2 likeliest tokens": attempt(task, sft, problems, top_k=2),
    "other weights": attempt(task, runs["RLOO"][0][0], problems),
}

# %% tags=["again"]
for name, rollout in sampled.items():
    with torch.no_grad():
        seen = against_the_sampler(log_pi(sft, rollout), rollout.logprobs, rollout.mask, 2.0)
    print(f"{name:23s} off by up to {float(seen['largest']):7.1e} nats, effective answers "
          f"{float(seen['ess']):4.0%}, reward {rollout.rewards.sum(1).mean():.2f}")

# %% [markdown]
# Rounding in float32 is a hundred-thousandth of a nat. A sampler in bfloat16 is a tenth of a nat away at its worst
# token, and yet it costs next to nothing of the effective sample size: answers of ten tokens from a small model. The
# gap adds up over tokens, and with answers of thousands it is a subject of its own. The other rows are off by more,
# most of them by whole nats. The package's `check_behavior`, a comparison that `train_policy` makes after every
# collection, stops at each row but the first: of a float32 learner it tolerates a thousandth of a nat.
#
# What does each correction do to the *mean*? In the toy world, sampled at temperature 0.5, that is a sum:

# %% tags=["again"]
with torch.no_grad():
    log_mu = torch.where(every.mask, action_logprobs(toy, every, temperature=0.5), 0)
now, drawn_colder = every.logprobs, log_mu.sum(1).exp() * (returns - J)
whole = pg.trajectory_ratio(now, log_mu, every.mask)
corrections = {"none": every.mask, "the whole answer's ratio": whole}
for name, cap in (("each token's ratio", math.inf), ("each token's ratio, at most 2", 2.0)):
    corrections[name] = against_the_sampler(now, log_mu, every.mask, cap)["weights"]
for name, correction in corrections.items():
    each = drawn_colder[:, None] * correction * action_logprobs(toy, every)
    mean = slope(each.sum(), toy)
    print(f"{name:30s} error of the mean {(mean - exact).norm() / exact.norm():7.1e}, "
          f"cosine with ∇J {cosine_similarity(mean, exact, 0):.3f}")  # fmt: skip

# %% [markdown]
# Only the whole ratio is unbiased, to rounding; a token's own ratio repairs a part, and its cap leaves a bias between
# no correction and that. In return no weight is larger than 2. Now learn from answers that were sampled at temperature
# 0.5, because those are better, with RLOO: without any correction, and with truncated ratios.

# %%
def truncated(rollout, logprobs):
    """RLOO, each token's weight times min(π/μ, 2)."""
    seen = against_the_sampler(logprobs, rollout.logprobs, rollout.mask, 2.0)
    return rloo(rollout) * seen["weights"]


for name, weigh in (("T 0.5, none", rloo), ("T 0.5, truncated", truncated)):
    runs[name] = [learner(weigh, seed, temperature=0.5) for seed in progress(SEEDS[:3], name)]
    ends[name] = [held_out(lm) for lm, _ in runs[name]]

# %% tags=["again"]
last, end = {}, {name: sum(ends[name]) / len(ends[name]) for name in ends}
print("                   last four batches   held-out pass@1 at temperature 1")
for name in ("RLOO", "T 0.5, none", "T 0.5, truncated"):
    final = [sum(history["reward"][-4:]) / 4 for _, history in runs[name][:3]]
    last[name], shares = sum(final) / len(final), " ".join(f"{x:.2f}" for x in ends[name])
    print(f"{name:17s} {last[name]:19.2f}   {shares}, mean {end[name]:.2f}")
for what, seen in (("batches", last), ("model", end)):
    side = "better" if seen["T 0.5, none"] > seen["RLOO"] else "worse"
    guesses.reveal(f"{what}_at_half_temperature", side)

# %% [markdown]
# **What you saw.** The wrong run has the *better* training curve: its batches come from a sharper policy than the one
# that learns. Asked at temperature 1, it has learned less in each of the three seeds. No error, no warning: only the
# comparison of two numbers that should be the same tells. Truncated ratios win nine and four points back in two seeds
# and nothing in the third, and stay behind the learner that samples at temperature 1: a bias is left, as above, and
# answers that a cold sampler hardly ever gives are missing from the batch. What agrees needs no repair.
#
# ## Long answers, short answers
# A sum over tokens has to be divided by something, and every library divides by something else:
#
# - **constant**: by a number that no sample can change, such as the answers times the room for one. The choice of Dr.
#   GRPO (Liu et al., 2025); up to the factor it is this course's default, the sum divided by the number of answers.
# - **per sequence**: each answer's sum by its own length, then the mean over answers. GRPO's choice.
# - **per token**: the sum over all tokens of the batch by their number. DAPO's choice (Yu et al., 2025), and that of
#   many trainers since.

# %% ex="12.8" title="Three normalizers" points=2 difficulty="medium" minutes=8
def normalized(values, mask, room):
    """One batch's sum over tokens, divided in three ways: a dict of three scalars,

    "constant", divided by B times room; "sequence", the mean over rows of each row's mean;
    "token", the mean over all tokens of the batch.

    values (B, T) float, what each token contributes (weight times log π), anything where mask
    is False; mask (B, T) bool, True at least once a row; room, the most tokens of an answer.
    """
    # BEGIN SOLUTION
    kept = torch.where(mask, values, 0)
    lengths = mask.sum(1)
    return {
        "constant": kept.sum() / (len(values) * room),
        "sequence": (kept.sum(1) / lengths).mean(),
        "token": kept.sum() / lengths.sum(),
    }
    # END SOLUTION

# %% ex="12.8" role="check"
normalized = check("12.8", normalized)

# %% [markdown] ex="12.8" role="hints"
# <details><summary>Hint 1</summary>Cut padding off once, at the beginning: <code>torch.where(mask, values, 0)</code>.
# Then all three share the sum of each row.</details>
# <details><summary>Hint 2</summary>Lengths are <code>mask.sum(1)</code>. The mean of means and the mean of everything
# differ as soon as lengths do.</details>

# %% [markdown]
# In the toy world answers have one to four tokens, and the expected gradient of each choice can be listed. (Per token
# with large batches, whose length is nearly constant: the division is by the mean length.) The table's last columns
# are the answers that are **wrong altogether**, with a reward of 0: to first order, by how much a step of length 1
# changes their log π.

# %% tags=["again"]
divisors = {"constant": 1, "sequence": lengths, "token": chance @ lengths.double()}
print("                                        log π of answers with reward 0, of")
print("expected gradient     cosine with ∇J    1 token   2 tokens   3 tokens   4 tokens")
for name, divisor in divisors.items():
    mean = chance @ (((returns - J) / divisor)[:, None] * scores)
    push, pushes = chance * (scores @ mean) / mean.norm(), ""
    for n in (1, 2, 3, 4):
        those = (returns == 0) & (lengths == n)
        pushes += f"{push[those].sum() / chance[those].sum():+11.2f}"
    print(f"{name:20s} {cosine_similarity(mean, exact, 0):15.4f}{pushes}")

# %% tags=["again"]
print(f"sums, {own.mask.sum(1).min()} to {own.mask.sum(1).max()} tokens; cosine with constant")
ways = normalized(rloo(own) * log_pi(precise, own), own.mask, task.max_new_tokens)
slopes = {name: slope(value, precise) for name, value in ways.items()}
for name, found in slopes.items():
    print(f"{name:9s} cosine {cosine_similarity(found, slopes['constant'], 0):.4f}")

# %% [markdown]
# **What you saw.** Dividing each answer by its own length changes the *direction*: it is the gradient of something
# else than J. Among answers that are equally wrong, a short one is pushed down harder than with a constant, and one of
# four tokens about half as hard: what is wrong had better be long. Per token and constant differ by a factor, which Adam
# swallows. Where lengths vary little, as in our sums, all three nearly agree. Long reasoning is where it matters: look
# there before you copy a setting.
#
# ## A learning rate too large
# Every setting so far was chosen, by trying. What happens beside it?

# %%
lm, history = learner(rloo, args.seed, lr=30 * args.lr, updates=4)
for name, unit in (("reward", "right in each batch"), ("nats", "nats per token")):
    print(f"thirty times the rate, {unit:20s}", *(f"{value:.2f}" for value in history[name]))
said = attempt(task, lm, task.held_out[:3], seed=args.seed)
print("held-out answers afterwards:", *completions(lm, said, task.stop), sep="\n  ")

# %% [markdown]
# **What you saw.** One step destroys the model: not one right answer is left, so every weight is 0, and the updates that
# follow go on with Adam's momentum alone. Nothing brings it back. A supervised run keeps its data whatever the model
# does; here the policy makes its own.
#
# ## What RL starts from
# RL reinforces what the policy already does. So what if it hardly ever does the right thing? Ask not only whether the
# first answer is right, but also whether **one of $k$** is: pass@$k$. From $n$ answers to a problem, $c$ of them right,
# estimate it without bias (Chen et al., 2021): the chance that $k$ of the $n$, drawn *without* putting back, contain a
# right one,
#
# $$\text{pass@}k = 1 - \binom{n-c}{k} \Big/ \binom{n}{k}, \qquad\text{averaged over problems.}$$

# %% ex="12.9" title="The evaluation: pass@k" points=2 difficulty="medium" minutes=10
def pass_curve(right, ks):
    """Unbiased pass@k of a quiz for each k of ks: a list of numbers.

    right (problems, n) bool: whether the n answers to each problem are right; ks, a list of
    whole numbers from 1 to n.
    """
    # BEGIN SOLUTION
    samples = right.shape[1]
    curve = []
    for k in ks:
        missed = 0.0
        for successes in right.sum(1).tolist():
            missed += math.comb(samples - successes, k) / math.comb(samples, k)
        curve.append(1 - missed / len(right))
    return curve
    # END SOLUTION

# %% ex="12.9" role="check"
pass_curve = check("12.9", pass_curve)

# %% [markdown] ex="12.9" role="hints"
# <details><summary>Hint 1</summary>The complement is easier: all k drawn answers are wrong. Each problem has a pass@k of
# its own; the mean over problems comes last.</details>
# <details><summary>Hint 2</summary><code>math.comb(n - c, k) / math.comb(n, k)</code>; comb is 0 if there are fewer
# than k wrong ones. <code>right.sum(1).tolist()</code> are the c's.</details>

# %% [markdown]
# Three starts, the same loop. The base model, asked in the chat format; the model after 300 conversations;
# and the base model once more, but now it is to *go on* with a text, `26 + 17 is`, as it has learned to go on with any.
# That is the set-up of R1-Zero (DeepSeek-AI, 2025): RL with verifiable rewards on a base model, without any finetuning.

# %%
def going_on(problem):
    return replace(problem, prompt=problem.prompt.removeprefix("What is ").rstrip("?") + " is")


sides = {side: tuple(map(going_on, getattr(task, side))) for side in ("train", "held_out")}
bare = replace(task, **sides, chat=False)  # the same sums as texts to be gone on with
starts = {"base": (base, task), "base, going on": (base, bare),
          f"{args.examples} conversations": (sft, task)}  # fmt: skip
KS, FEW = [1, 2, 4, 8], 25


def quiz(lm, about):
    """pass@k on held-out sums, from 8 answers each."""
    scores = sampled_scores(about, lm, about.held_out[:FEW], samples=8, seed=args.seed + 3)
    return pass_curve(scores == 1, KS)


# %%
for name, (start, about) in starts.items():
    seeds, updates = SEEDS[: 1 + (about is bare)], 2 if name == "base" else args.updates
    runs[name] = runs["RLOO"][:1] if start is sft else [
        learner(rloo, seed, start, updates, about=about) for seed in seeds]  # fmt: skip
results = {}
for name, (start, about) in starts.items():
    results[name] = [quiz(start, about), *(quiz(lm, about) for lm, _ in runs[name])]

# %% tags=["again"]
for name, (old, *later) in results.items():
    norm = max(max(history["norm"]) for _, history in runs[name])
    print(f"{name:18s} largest gradient norm of an update {norm:.2f}")
    for when, curve in (("before", old), *(("after", curve) for curve in later)):
        print(f"    {when:6s}", *(f"pass@{k} {value:.2f}  " for k, value in zip(KS, curve)))
guesses.reveal("from_base_in_chat", results["base"][1][0])
guesses.reveal("from_base_going_on", sum(c[0] for c in results["base, going on"][1:]) / 2)

# %%
figure, axes = pyplot.subplots(figsize=(5, 2.9))
for index, (name, (start, *later)) in enumerate(results.items()):
    style = {"color": figures.COLORS[index], "marker": figures.MARKERS[index]}
    axes.plot(KS, start, ":", label=f"{name}, before", **style)
    for number, curve in enumerate(later):
        axes.plot(KS, curve, "-", label=None if number else f"{name}, after", **style)
axes.set(title="One of k answers is right", xlabel="answers k", ylabel="pass@k, held-out sums")
axes.set(xscale="log", xticks=KS, xticklabels=KS, ylim=(-0.03, 1.03))
axes.minorticks_off()
axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
said = []
for name, (old, *later) in results.items():
    for k, at in ((1, 0), (8, -1)):
        rises = ", ".join(f"{new[at]:.2f}" for new in later)
        said.append(f"{name}: pass@{k} {old[at]:.2f} to {rises}")
show(figure, alt="pass@k against k, before (dotted) and after RL, for three starts. "
     f"{'; '.join(said)}.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C41] Asked in a format that it has never seen, the base model never adds: all rewards of a group
# are 0, so all weights are, and the gradient is 0 to the last digit. More updates would give more zeros. Asked to go on
# with a text, it is right in one answer of eight, and the same loop makes it right in half or nine tenths of them,
# depending on the seed: RL from a base works where the base sometimes succeeds. So what RL needs is a start that
# succeeds *sometimes*, finetuned or not.
#
# Does RL add something, or sharpen what is there? Look at pass@8: at each start that learns it rises too, on sums that
# neither finetuning nor RL has trained on (the base model's corpus holds none back). With more answers per question the
# curves of large models before and after have been seen to cross (Yue et al., 2025): what is right once in a thousand
# answers before may be gone afterwards.
#
# ## Which token earned it?
# REINFORCE gives every token of an answer the same credit. The lecture: "We can improve the estimate by sampling more
# rollouts from $(s_t, a_t)$." On text that is easy, since the state is the prefix: go on from each prefix 48 times, and
# the mean reward is $\hat V(s_t)$. A token's advantage is how much it changed it, $\hat A_t = \hat V(s_{t+1}) -
# \hat V(s_t)$.

# %% ex="12.10" title="Credit by sampling on" points=2 difficulty="medium" minutes=10
def token_credit(tokens, paid, go_on, samples):
    """For each token of an answer how much it changed the expected reward: a list of numbers.

    tokens, the answer's, a list; paid, its reward; go_on(begun, samples) continues the list of
    tokens `begun` so many times and returns a list with the rewards of whole answers. After
    its last token an answer is worth what it was paid.
    """
    # BEGIN SOLUTION
    values = []
    for n in range(len(tokens)):
        rewards = go_on(tokens[:n], samples)
        values.append(sum(rewards) / samples)
    values.append(paid)
    changes = []
    for earlier, later in zip(values, values[1:]):
        changes.append(later - earlier)
    return changes
    # END SOLUTION

# %% ex="12.10" role="check"
token_credit = check("12.10", token_credit)

# %% [markdown] ex="12.10" role="hints"
# <details><summary>Hint 1</summary>An answer of n tokens has n + 1 prefixes: none of its tokens, the first, … all. The
# value of all but the last is a mean of samples; that of the last is known.</details>
# <details><summary>Hint 2</summary>Token t, counted from 0, stands between the prefixes <code>tokens[:t]</code> and
# <code>tokens[: t + 1]</code>.</details>

# %%
asked = task.train[:12]
shown = attempt(task, sft, asked, seed=args.seed + 3)


def credit_of(row):
    """The tokens of a row's answer, and the credit of each."""
    (prompt,), decode = prompt_texts(sft, task, [asked[row]]), sft.tokenizer.decode

    def go_on(begun, samples):
        said = decode(begun)
        rest = sample_text(sft, [prompt + said] * samples, max_new_tokens=task.max_new_tokens,
                           stop=task.stop, seed=len(begun))  # fmt: skip
        return [asked[row].score(said + text) for text in completions(sft, rest, task.stop)]

    tokens = shown.actions[row][shown.mask[row]].tolist()
    changes = token_credit(tokens, float(shown.rewards[row].sum()), go_on, 48)
    return [decode([t], skip_special_tokens=True).strip() or "end" for t in tokens], changes


right = shown.rewards.sum(1) == 1
rows = right.nonzero()[:2, 0].tolist() + (~right).nonzero()[:2, 0].tolist()
credits = {row: credit_of(row) for row in progress(rows, "credit")}

# %% tags=["again"]
for row, (tokens, changes) in credits.items():
    value = float(shown.rewards[row].sum()) - sum(changes)
    print(f"{asked[row].prompt} V(prompt) {value:.2f}, reward {shown.rewards[row].sum():.0f}")
    print("   ", "  ".join(f"{token} {change:+.2f}" for token, change in zip(tokens, changes)))

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(8.6, 2.2), layout="constrained")
titles = ("one credit for all: r − V(prompt)", "each token: V after it − V before it")
for axes, name in zip(panels, titles):
    for place, (tokens, changes) in enumerate(credits.values()):
        for t, (token, change) in enumerate(zip(tokens, changes)):
            value = sum(changes) if axes is panels[0] else change
            box = {"facecolor": pyplot.cm.PuOr(0.5 + value / 2), "edgecolor": "none", "pad": 3}
            axes.text(t, -place, token, ha="center", va="center", fontsize=8, bbox=box,
                      color="white" if abs(value) > 0.6 else "black",
                      fontfamily="monospace")  # fmt: skip
    widest = max(len(tokens) for tokens, _ in credits.values())
    axes.set(title=name, xlim=(-0.7, widest - 0.3), ylim=(0.6 - len(credits), 0.6))
    axes.axis("off")
scale = pyplot.cm.ScalarMappable(pyplot.Normalize(-1, 1), "PuOr")
figure.colorbar(scale, ax=panels, label="credit", shrink=0.9)
moved = [f"{sum(abs(x) > 0.2 for x in changes)} of {len(changes)}"
         for _, changes in credits.values()]  # fmt: skip
show(figure, alt="Four answers as coloured tokens. Left: all tokens of an answer have one "
     f"colour. Right: tokens with a credit beyond ±0.2: {', '.join(moved)}.")  # fmt: skip

# %% [markdown]
# **What you saw.** The credits of an answer sum to its reward minus $\hat V$ of the prompt, but they are spread
# unevenly. In the first answer no token moves the expected reward by more than 0.2. In the second the "+" was in doubt.
# In each of the wrong ones a single token carries nearly all: a "-" that makes a difference of the sum, and a "5" that
# copies the question wrongly, after which the arithmetic is right. (48 samples know a probability of one half to ±
# 0.07, one standard error, and a credit is a difference of two: pale colours may be chance.) Credit by sampling costs
# 48 answers per token. A critic (lesson 10) is the attempt to get it for one forward pass.
#
# [Explore it](../docs/interactive/token_credit.html): sixteen answers, the credit of each token, and what sampler and
# learner think of it.
#
# ## Contest: 600 answers
# Sampling is what costs in RL. Here is a model, the one after 300 conversations, and a sampler that gives 600 answers
# and then no more. Make it as good at sums as you can, from these answers and their rewards: the score is its pass@1 on
# held-out sums at temperature 1, a point each from 0.60, 0.75, 0.85 and 0.92 on. Which weights, how many prompts, how
# many answers to each, which rate? How often may an answer be used, and with which ratio? To try a function of your own
# without the check, ask `held_out(with_600_answers(rl_contest.start(), rl_contest.asker(seed=1)))`.

# %% ex="12.11" title="Contest: 600 answers" points=4 difficulty="hard" minutes=25
def with_600_answers(lm, ask):
    """A better model, from at most 600 answers; `lm` itself may be changed.

    ask(policy, prompts, group) -> Rollout: policy's own answers with their rewards, to so many
    sums, `group` to each. Counted are prompts times group; beyond 600 it raises ValueError.
    """
    # BEGIN SOLUTION
    prompts, group = 16, 2

    def sample(policy):
        return ask(policy, prompts, group)

    updates = 600 // (prompts * group)
    reinforce(lm, sample, reward, updates, lr=1e-4, clip_norm=1.0)
    return lm
    # END SOLUTION

# %% ex="12.11" role="check"
with_600_answers = check("12.11", with_600_answers)

# %% [markdown] ex="12.11" role="hints"
# <details><summary>Hint 1</summary>You have the loop; all it needs is a <code>sample</code> that asks. 18 updates of 8
# sums with 4 answers each are 576 answers.</details>
# <details><summary>Hint 2</summary>Look at the table of noise: which weights had the least, with rewards of 0 and
# 1?</details>

# %% [markdown]
# The package's answer takes the weights with the least noise, the bare reward, which compares no answers of a prompt and
# so needs no groups: 16 sums with 2 answers each reach 0.965. It uses each answer once.
#
# ## Silent bug lab
# Here are eight losses that you can call and not read. One of them is RLOO's loss, seven have a bug that raises no
# error. Each is called as `run(logits, tokens, mask, advantages)`, with logits (B, T, V) of the model at each token but
# the last, whole texts (B, T + 1), the mask, and one advantage per answer (B,); it returns a scalar to be minimised.
# First the symptoms: the toy transformer learns to write "c", 15 updates of 32 answers, 2 seeds.

# %%
def toy_learns(run, seed):
    """The exact J of a toy model that has learned with a loss of the lab."""
    lm, source = copy.deepcopy(toy), torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(lm.parameters(), lr=0.01)
    for _ in range(15):
        chances = action_logprobs(lm, every).detach().sum(1).exp()
        chosen = torch.multinomial(chances, 32, replacement=True, generator=source)
        batch = take_rows(every, chosen)
        gained = returns[chosen] - pg.leave_one_out(returns[chosen])
        loss = run(lm(batch.observations), text_of(batch), batch.mask, gained)
        adam.zero_grad(), loss.backward(), adam.step()
    return float(text_objective(lm, every).detach())


for name, run in progress(mystery_runs("12.12").items(), "runs"):
    print(f"run {name}: exact J", *(f"{toy_learns(run, seed):.2f}" for seed in range(2)))

# %% [markdown]
# Some learn as well as the right one, and a curve does not say what is wrong. A **property test** does. You know the
# gradient that RLOO's loss must have by the logits, in closed form: at a step that the model chose, $-\frac{1}{B}$ times
# the answer's advantage times $\mathbb 1[\text{written}] - \pi$ (lesson 08's score), and 0 at all others. Make logits
# by hand or at random, with prompts, padding and answers of different lengths; write one function that passes the right
# loss and refuses as many wrong ones as you can: a point each for two, five and all seven.

# %% ex="12.12" title="Tests for silent bugs" points=3 difficulty="hard" minutes=20
def is_rloo_loss(run):
    """Whether run(logits, tokens, mask, advantages) is RLOO's loss: a bool."""
    # BEGIN SOLUTION
    source = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, (3, 8), generator=source)
    logits = torch.randn(3, 7, 5, generator=source, dtype=torch.float64).requires_grad_()
    steps = torch.arange(7)
    first, length = torch.tensor([[1], [2], [1]]), torch.tensor([[4], [2], [3]])
    mask = (steps >= first) & (steps < first + length)
    advantages = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    loss = run(logits, tokens, mask, advantages)
    (found,) = grad(loss, logits)
    score = one_hot(tokens[:, 1:], 5) - logits.detach().softmax(-1)
    weights = advantages[:, None] * mask
    expected = -weights[..., None] * score / 3
    return torch.allclose(found, expected)
    # END SOLUTION

# %% ex="12.12" role="check"
is_rloo_loss = check("12.12", is_rloo_loss)

# %% [markdown] ex="12.12" role="hints"
# <details><summary>Hint 1</summary><code>torch.autograd.grad(loss, logits)</code> gives the gradient of what a run
# returns; the logits need <code>requires_grad_()</code>. Which entries must be 0?</details>
# <details><summary>Hint 2</summary>The expected gradient is <code>-(advantages[:, None] * mask)[..., None] * (one_hot -
# softmax) / B</code> with the one-hot of <code>tokens[:, 1:]</code>. Advantages that do not sum to zero show what a
# group would hide.</details>

# %% [markdown]
# **What you saw.** Run H is RLOO's loss. Five of the seven wrong runs end at 0.94 or higher in both seeds, as it does:
# a curve cannot tell them. Run A takes the softmax at temperature 0.5, run B credits the prompt too, run C the first
# token alone, run D divides by the columns of the table as well, run E forgets the last token of each answer, run F
# discounts, so that early tokens get less, and run G asks the logits for the token that is read instead of the one
# written. Here even that learns: it makes "c" likelier wherever a paid answer has read one, and shared weights carry
# this to the first place.
#
# One bug no loss can show: a sampler that never gets the new weights. Each batch looks right, and from the second
# update on it is another policy's. The comparison of the log-probabilities after each collection sees it at once.
#
# ## Recap
# - A token is an action, the prefix is the state, the language model is the policy: one loop trains robot and language
#   model. On a transformer small enough to list, the estimate's mean is $\nabla J$ to rounding.
# - REINFORCE on text is finetuning on own answers weighted by return.
# - With a reward of 0 and 1 the bare reward is hard to beat here: wrong answers have the long scores, and weigh
#   nothing. A baseline makes the learner independent of the rewards' zero.
# - Sampler and learner must agree on log-probabilities. Compare after every collection; a ratio repairs what cannot be
#   avoided, the whole one without bias, a truncated one with bounded weights.
# - Dividing by each answer's own length changes the objective; a constant or the batch's tokens only the step.
# - RL needs successes to reinforce. What the start never does, no reward finds; what it does sometimes, it learns to do.
#
# ## Try next
# - `examples` 60 and `updates` 40: does it catch up with a start from 300?
# - `group` 16 and `prompts` 2: the same answers from fewer prompts. What happens to the noise?
# - Learn sums up to 99 (`largest`) from the model that can do 50.
# - Train with LoRA (lesson 06) instead of all weights. Which learning rate does it want?
# - Ratios on every token, clipped, with several steps per batch: lesson 13 has PPO, GRPO and their relatives on text.
#
# ## References
# - Williams (1992), *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*.
# - Ranzato, Chopra, Auli and Zaremba (2016), *Sequence Level Training with Recurrent Neural Networks*.
# - Ahmadian et al. (2024), *Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback
#   in LLMs* (RLOO).
# - Ionides (2008), *Truncated Importance Sampling*; Yao et al. (2025), *Your Efficient RL Framework Secretly Brings You
#   Off-Policy RL Training*: the sampler's precision.
# - Shao et al. (2024), *DeepSeekMath* (GRPO); Liu et al. (2025), *Understanding R1-Zero-Like Training* (Dr. GRPO); Yu et
#   al. (2025), *DAPO: An Open-Source LLM Reinforcement Learning System at Scale*.
# - DeepSeek-AI (2025), *DeepSeek-R1: Incentivizing Reasoning Capability in LLMs via Reinforcement Learning* (R1-Zero).
# - Chen et al. (2021), *Evaluating Large Language Models Trained on Code* (pass@k).
# - Yue et al. (2025), *Does Reinforcement Learning Really Incentivize Reasoning Capacity in LLMs Beyond the Base
#   Model?*
