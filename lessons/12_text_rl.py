# Lesson 12: reinforcement learning on text. jupytext py:percent; runs as a script: python lessons/12_text_rl.py --help

# %% [markdown]
# # 12 · RL on text: tokens are actions
#
# Everything since lesson 07 was about a robot on a grid, and everything was meant for this: a language model chooses a
# token as the robot chose a step. In this lesson the same lines of code train both. You hold the gradient on text
# against an exact one, watch a model learn to add from nothing but "right" and "wrong", and find out which of the
# improvements of lessons 09 to 11 pay here and which do not. *(Lecture: "REINFORCE algorithm on text", and its summary;
# claims C28, C39–C41.)* About 90 minutes; runs in 75 s on two CPU cores.
#
# **You will need** the estimator of lesson 08, baselines from 09, finetuning from 03. **You will be able to** write
# RL on text as sample, weigh, step; check that sampler and learner agree; measure what a baseline is worth on text;
# say what RL can and cannot add to the model that it starts from; and find four bugs that raise no error.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import copy
from dataclasses import replace

import torch
from matplotlib import pyplot
from torch.nn.functional import cosine_similarity, cross_entropy

from ptlearn import figures
from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import check
from ptlearn.finetuning.sft import fit_sft
from ptlearn.grid import gridworld
from ptlearn.grid.collection import collect
from ptlearn.lm.chat import render_all
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import completions, sample_text
from ptlearn.pocket import assistant, tasks
from ptlearn.rl.enumeration import enumerate_texts, exact_text_gradient, text_objective
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.text_collection import attempt, collect_text, pay, sampled_scores, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs, check_behavior, distinct_rows, take_rows
from ptlearn.statistics import over_seeds

args = arguments(
    "Reinforcement learning on text: the grid's code, the exact gradient, baselines, normalisation, base against SFT.",
    model=("pocket-m", "the language model: a pocket model, a folder or a hub id"),
    largest=(50, "largest number in the sums", "at least 45"),
    examples=(300, "conversations that the model is finetuned on first", "at least 60"),
    updates=(8, "of each learner", "at least 2"),
    prompts=(8, "different sums per update", "at least 2"),
    group=(4, "completions per sum", "at least 2"),
    lr=(1e-4, "step size of Adam", "above 0"),
    seeds=(5, "learners in the main result; other comparisons take three", "at least 2"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would spend its time waiting for the first

# %% [markdown]
# ## Predict first
# Write down your guesses; you will measure each of them below.
#
# 1. How many lines of lesson 08's loop have to change, so that it trains a language model instead of a robot?
# 2. A model gets half of its sums right, and is told "right" or "wrong" for 256 of its own answers. **How many does it
#    get right afterwards?**
# 3. Right pays 1, wrong pays 0. **By which factor does a baseline reduce the noise of the gradient?**
# 4. You sample at temperature 0.5, because that gives better answers, and forget to tell the learner. **What do you
#    see, and where?**
# 5. RL from the base model, without any finetuning: slower, or something else?
#
# ## A model and a task
# The task: sums, `What is 26 + 17?`. The **verifier** reads the last number of the answer and pays 1 if it is right, 0
# if not; **pass@1** is the share of sampled answers that are right. The policy starts from a base model, finetuned
# briefly on 300 conversations (lesson 03), half of which are other sums and half differences.

# %%
base = load_lm(args.model)
task = tasks.arithmetic(largest=args.largest)
QUIZ = task.held_out[:100]  # sums that nobody trains on


def finetuned(examples):
    """The base model after supervised finetuning on so many conversations."""
    lm = copy.deepcopy(base)
    requests = assistant.requests(examples, use_cases=["other"])
    fit_sft(lm, render_all(lm, assistant.conversations(requests))[0], lr=1e-3)
    return lm


sft = finetuned(args.examples)
for name, lm in (("base", base), ("SFT", sft)):
    tried = attempt(task, lm, task.held_out[:4], seed=args.seed)
    scores = sampled_scores(task, lm, QUIZ, samples=4, seed=args.seed)
    print(f"{name}: pass@1 on held-out sums {scores.mean():.2f}")
    for problem, text, paid in zip(task.held_out, completions(lm, tried, task.stop), tried.rewards.sum(1)):
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

# %%
episode = take_rows(tried, tried.rewards.sum(1).argmax()[None])  # one that was paid
words = sft.tokenizer.convert_ids_to_tokens
print("  t  reads     writes     log π   reward  chosen by the model")
for t, (read, written) in enumerate(zip(words(episode.observations[0]), words(episode.actions[0]))):
    print(f"{t:3d}  {read:9.9s} {written:9.9s} {episode.logprobs[0, t]:7.2f} {episode.rewards[0, t]:7.0f}  "
          f"{bool(episode.mask[0, t])}")  # fmt: skip

# %% [markdown]
# Read it downwards. A model that reads token $t$ writes token $t+1$, so observations are the text without its last
# token and actions the text without its first. The prompt was not chosen by the model: `mask` is False there, and
# True from the step that **reads the last prompt token**, because that one writes the first token of the answer. And
# the token that ends the answer was chosen too. Most bugs in RL on text sit in this paragraph.

# %% ex="12.1" points=2 difficulty="easy" minutes=8
def action_mask(prompt_lengths, completion_lengths, steps):
    """Where the model chose the action: step t reads token t of a text and writes token t + 1.

    prompt_lengths, completion_lengths (B,) int, in tokens, at least 1; a text is its prompt, then its completion (end
    token included), then padding; steps, the number of columns -> (B, steps) bool.
    """
    # BEGIN SOLUTION
    t = torch.arange(steps)
    first = prompt_lengths[:, None] - 1
    return (t >= first) & (t < first + completion_lengths[:, None])
    # END SOLUTION

# %% ex="12.1" role="check"
action_mask = check("12.1", action_mask)   # yours if it passes, the package's if not

# %% [markdown] ex="12.1" role="hints"
# <details><summary>Hint 1</summary>Which step writes the first token of the completion? The one that reads the last
# token of the prompt, number <code>prompt_length − 1</code> counted from 0.</details>
# <details><summary>Hint 2</summary>Compare <code>torch.arange(steps)</code> with <code>prompt_lengths[:,
# None]</code>; a completion of n tokens has n steps.</details>

# %%
prompt_lengths = tried.mask.to(torch.uint8).argmax(1) + 1
assert (action_mask(prompt_lengths, tried.mask.sum(1), tried.mask.shape[1]) == tried.mask).all()  # the sampler's own

# %% [markdown]
# ## One loop, two worlds
# Now take lesson 08 and change nothing: sample, weigh by the return, step. Only `policy` and where its episodes come
# from differ.

# %%
def reinforce(policy, sample, updates, lr, seed=0):
    """Lesson 08: the policy learns from the outcomes of its own episodes. Returns the mean return of each batch."""
    generator, adam = torch.Generator().manual_seed(seed), torch.optim.Adam(policy.parameters(), lr=lr)
    returns = []
    for _ in range(updates):
        rollout, _ = sample(policy, generator)
        weights = pg.total_return(rollout.rewards, rollout.mask)
        loss = pg.policy_gradient_loss(action_logprobs(policy, rollout), weights, rollout.mask)
        adam.zero_grad(), loss.backward(), adam.step()
        returns.append(weights.max(1).values.mean().item())
    return returns


world = gridworld.GridWorld("default", pit_reward=0.0).to_mdp()
robot, writer = TabularPolicy(world.states, world.actions), copy.deepcopy(sft)
in_the_grid = reinforce(robot, lambda policy, generator: collect(world, policy, 64, horizon=50, generator=generator),
                        updates=40, lr=0.1)  # fmt: skip
in_text = reinforce(writer, lambda policy, generator: collect_text(task, policy, prompts=8, group=4,
                    generator=generator), updates=8, lr=args.lr)  # fmt: skip
for name, found in (("robot, star reached", in_the_grid), ("language model, sum right", in_text)):
    part = max(1, len(found) // 8)
    print(f"{name:26s}", *(f"{sum(found[k:k + part]) / part:.2f}" for k in range(0, 8 * part, part)))

# %% [markdown]
# **What you saw.** [C39] Line for line the same function. `train_policy` is this loop with the checks and the history
# of lesson 08; from here on it trains the language model.
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
print(f"{len(chance)} answers, probability {chance.sum():.12f} in all; J = {J:.4f}, "
      f"{len(exact)} parameters, |∇J| = {exact.norm():.3f}")  # fmt: skip


def answer_scores(policy, rollout, parameters):
    """∇ log π of each answer by these parameters, end to end: (B, how many). Equal answers are taken once."""
    first, which = distinct_rows(rollout)
    found = []
    for row in first:
        log_pi = action_logprobs(policy, take_rows(rollout, row[None])).sum()
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(log_pi, parameters)]))
    return torch.stack(found)[which]


scores = answer_scores(toy, every, list(toy.parameters()))

# %%
squares = (scores**2).sum(1)
best_constant = float(pg.optimal_baseline(chance * squares, returns))
print("weight of an answer      error of the mean   variance / |∇J|²")
for name, weights in {
    "r": returns,
    "r − J": returns - J,
    f"r − b*, b* = {best_constant:.3f}": returns - best_constant,
}.items():
    each = weights[:, None] * scores
    mean = chance @ each
    spread = float(chance @ ((each - mean) ** 2).sum(1) / exact.norm() ** 2)
    print(f"{name:24s} {(mean - exact).norm() / exact.norm():17.0e}  {spread:17.1f}")
    assert (mean - exact).norm() < 1e-10 * exact.norm()

# %%
generator = torch.Generator().manual_seed(args.seed)
print("mean cosine of one batch's gradient with ∇J, over 400 batches")
for size in (4, 16, 64):
    drawn = torch.multinomial(chance, 400 * size, replacement=True, generator=generator).view(400, size)
    plain = returns[drawn]
    others = plain - (plain.sum(1, keepdim=True) - plain) / (size - 1)  # leave-one-out, lesson 09
    cosines = [cosine_similarity(torch.einsum("kn,knp->kp", weights, scores[drawn]), exact[None]).mean()
               for weights in (plain, others)]  # fmt: skip
    print(f"{size:4d} answers: r {cosines[0]:.2f}, r − mean of the others {cosines[1]:.2f}")

# %% [markdown]
# **What you saw.** [C39] On a transformer, too, the mean of REINFORCE's estimate is the exact gradient, to rounding,
# and a baseline leaves it where it is. In this toy world it also takes away a good part of the variance, and a
# batch points in a better direction on average. Remember that when you come to the real one.
#
# ## Supervised finetuning is a special case
# The lecture: "Supervised learning on model generations weighted by return". Take the finetuning loss, cross-entropy
# between logits and the tokens that follow, on the model's *own* answers; multiply each answer's loss by its return.

# %%
precise = copy.deepcopy(sft).double()  # float64, so that equal can be told from nearly equal
own = attempt(task, sft, [problem for problem in task.train[:8] for _ in range(4)], seed=args.seed)
won = own.rewards.sum(1)


def gradient(loss):
    found = torch.autograd.grad(loss, list(precise.parameters()))
    return torch.cat([each.flatten() for each in found])


def losses_of_tokens(lm, rollout):
    """What finetuning minimises, token by token (B, T): cross-entropy of the next token, prompt and padding left out."""
    logits = lm(rollout.observations)
    losses = cross_entropy(logits.flatten(0, 1), rollout.actions.flatten(), reduction="none")
    return losses.view_as(rollout.mask) * rollout.mask


supervised = gradient((won[:, None] * losses_of_tokens(precise, own)).sum() / len(own.mask))
weights = pg.total_return(own.rewards, own.mask)
reinforced = gradient(pg.policy_gradient_loss(action_logprobs(precise, own), weights, own.mask))
if won.any():  # without a right answer both gradients are zero
    off = (supervised - reinforced).abs().max() / reinforced.abs().max()
    assert off < 1e-7
    good = take_rows(own, won.nonzero()[:, 0])
    filtered = gradient(losses_of_tokens(precise, good).sum() / good.mask.sum())  # lesson 03's mean over response tokens
    factor = filtered.norm() * good.mask.sum() / len(won) / reinforced.norm()
    print(f"SFT weighted by return against REINFORCE: largest difference {off:.0e} of the largest entry")
    print(f"SFT on the {len(good.mask)} right ones of {len(won)} answers: cosine "
          f"{cosine_similarity(filtered, reinforced, 0):.9f}, length × tokens / answers {factor:.9f}")  # fmt: skip

# %% [markdown]
# **What you saw.** [C28] REINFORCE on text *is* finetuning on own answers weighted by return. With a reward of 0 or 1
# it is finetuning on the right answers alone, up to a factor. Only two things are new: the data come from the model
# itself, anew for every step, and weights may be something else than 0 and 1. The rest of this lesson is about these
# weights.
#
# ## Do sampler and learner agree?
# The estimate holds for samples of *the policy that is differentiated*. In practice two pieces of code are involved:
# one that samples fast, one that learns. They disagree more often than one would think: temperature, truncation,
# padding, a shift by one, old weights. So compare after every collection: the record keeps the log-probabilities of
# the sampler; recompute them with the learner.

# %% ex="12.2" points=2 difficulty="medium" minutes=10
def disagreement(logits, tokens, recorded, mask):
    """The largest difference, in nats, between the learner's and the sampler's log-probability of a chosen token.

    logits (B, T, V), the learner's, at each token but the last; tokens (B, T + 1) int, whole texts;
    recorded (B, T), the sampler's log π of the token written at each step, anything where mask is False;
    mask (B, T) bool -> a scalar, at least 0.
    """
    # BEGIN SOLUTION
    written = tokens[:, 1:, None]
    recomputed = logits.log_softmax(-1).gather(-1, written)[..., 0]
    return (recomputed - recorded)[mask].abs().max()
    # END SOLUTION

# %% ex="12.2" role="check"
disagreement = check("12.2", disagreement)

# %% [markdown] ex="12.2" role="hints"
# <details><summary>Hint 1</summary>Logits at step t say what is written at step t: token t + 1. Turn logits into
# log-probabilities before you pick.</details>
# <details><summary>Hint 2</summary><code>x[mask]</code> keeps the steps that count; the sign of a difference does
# not.</details>

# %%
def text_of(rollout):
    """All tokens of each row, (B, T + 1)."""
    return torch.cat([rollout.observations[:, :1], rollout.actions], 1)


problems = [problem for problem in task.train[:16] for _ in range(4)]
sampled = {
    "as it should be": attempt(task, sft, problems),
    "temperature 0.5": attempt(task, sft, problems, temperature=0.5),
    "the 2 likeliest tokens": attempt(task, sft, problems, top_k=2),
}
fresh = sampled["as it should be"]
sampled["shifted by one"] = replace(fresh, logprobs=fresh.logprobs.roll(-1, 1))
sampled["other weights"] = attempt(task, writer, problems)
for name, rollout in sampled.items():
    with torch.no_grad():
        off = float(disagreement(sft(rollout.observations), text_of(rollout), rollout.logprobs, rollout.mask))
    print(f"{name:23s} off by {off:8.1e} nats; mean reward {rollout.rewards.sum(1).mean():.2f}")
try:
    check_behavior(sft, sampled["temperature 0.5"])  # what train_policy calls after every collection
except ValueError as refusal:
    print(f"\ncheck_behavior: {str(refusal).split('; ')[0]}")

# %% [markdown]
# Rounding is a hundred-thousandth of a nat; everything else is larger by orders of magnitude, and `train_policy`
# stops there with that line. What if it did not? Switch the check off (`atol`) and learn from answers sampled at
# temperature 0.5.

# %%
def rloo(rollout, *_):
    """Return minus the mean of the other answers to the same prompt."""
    won = pg.episode_returns(rollout.rewards, rollout.mask)
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    return (won - pg.leave_one_out(won, groups=groups))[:, None] * rollout.mask


def held_out(lm, samples=2):
    """pass@1 at temperature 1 on sums that nobody trained on."""
    return float(sampled_scores(task, lm, QUIZ, samples=samples, seed=args.seed + 1).mean())


def learner(weigh, seed, *, start=sft, about=task, updates=args.updates, prompts=args.prompts, group=args.group,
            lr=args.lr, atol=None, **sampling):  # fmt: skip
    """A copy of `start` that has learned, and its history."""
    lm = copy.deepcopy(start)
    sample = text_collector(about, prompts=prompts, group=group, **sampling)
    return lm, train_policy(lm, sample, weigh, updates=updates, lr=lr, clip_norm=1.0, atol=atol, seed=seed)


before = held_out(sft, samples=8)
print(f"before learning: held-out pass@1 {before:.2f}")
agreeing = {}
for temperature in (1.0, 0.5):
    agreeing[temperature] = lm, history = learner(rloo, args.seed, temperature=temperature, atol=float("inf"))
    print(f"sampled at {temperature}: reward of the last four batches {sum(history.returns[-4:]) / 4:.2f}, "
          f"held-out pass@1 {held_out(lm):.2f}, entropy {history.entropy[-1]:.2f} nats per token")  # fmt: skip

# %% [markdown]
# **What you saw.** The wrong run has the *better* training curve: its batches come from a sharper policy than the one
# that learns. Asked at temperature 1, it has learned far less. No error, no warning: only the comparison of two numbers
# that should be the same tells.
#
# ## Learning to add
# Now properly, over several seeds. An answer is compared with the other answers to the *same* prompt: RLOO, the
# leave-one-out baseline of lesson 09 within groups. Write it.

# %% ex="12.3" points=2 difficulty="medium" minutes=10
def rloo_weights(returns, groups, mask):
    """Return minus the mean return of the other rows of the same group, on each chosen token of a row; 0 elsewhere.

    returns (B,) float; groups (B,) int, the number of each row's prompt, at least two rows each, in any order;
    mask (B, T) bool -> (B, T) float.
    """
    # BEGIN SOLUTION
    same = (groups[:, None] == groups).to(returns.dtype)
    others = same - torch.eye(len(returns), dtype=returns.dtype)
    baseline = others @ returns / others.sum(1)
    return (returns - baseline)[:, None] * mask
    # END SOLUTION

# %% ex="12.3" role="check"
rloo_weights = check("12.3", rloo_weights)

# %% [markdown] ex="12.3" role="hints"
# <details><summary>Hint 1</summary>A matrix says who belongs together: <code>groups[:, None] == groups</code>. Take
# yourself out of it.</details>
# <details><summary>Hint 2</summary>Sum of the others divided by their number; then one number per row has to be
# written on each token: <code>[:, None] * mask</code>.</details>

# %%
def group_weights(rollout, *_):
    won = pg.episode_returns(rollout.rewards, rollout.mask)
    return rloo_weights(won, pg.prompt_groups(rollout.observations, rollout.mask), rollout.mask)


assert torch.allclose(group_weights(own), rloo(own))
SEEDS = range(args.seed, args.seed + args.seeds)
first = agreeing[1.0]  # of the first seed, with weights that were just found to be the same
runs = {"RLOO": [first] + [learner(group_weights, seed) for seed in progress(SEEDS[1:], "RLOO")]}
after = [held_out(lm) for lm, _ in runs["RLOO"]]
print(f"held-out pass@1: {before:.2f} before, {over_seeds(after)} after {args.updates} updates "
      f"of {args.prompts} prompts × {args.group} answers")  # fmt: skip
print("rise per seed, points:", *(f"{100 * (value - before):+.0f}" for value in after))

# %%
figure, axes = pyplot.subplots(figsize=(5, 2.8))
figures.learning_curves(axes, range(args.updates), [history.returns for _, history in runs["RLOO"]], "training batches")
end = over_seeds(after)
axes.errorbar([args.updates], [end.mean], [[end.mean - end.low], [end.high - end.mean]], color=figures.COLORS[1],
              marker=figures.MARKERS[1], capsize=3, label="held out, afterwards")  # fmt: skip
axes.axhline(before, color="black", linestyle=":", label="held out, before")
axes.set(title=f"Learning to add, {args.seeds} seeds", xlabel="updates", ylabel="share of right answers", ylim=(0, 1))
axes.legend(fontsize=8, loc="lower right")
show(figure, alt=f"Share of right answers against updates: from about {before:.2f} up; held-out {end.mean:.2f} "
     "at the end, far above the dotted line of the start.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C40] Sample, weigh, step: in every seed the held-out score rises by more than 20 points, from a few
# hundred answers of its own, and nobody ever showed it a right one.
#
# ## Which variance reduction pays?
# Lesson 09 took the noise out of the gradient step by step. Do the same here; same seeds, same budget.
#
# - *reward*: the return itself, lesson 08.
# - *mean of the batch*: minus the mean of all other answers.
# - *RLOO*: minus the mean of the other answers to the same prompt.
# - *standardized*: divided by the group's standard deviation too (GRPO's advantage).
#
# Reward-to-go, the first step of lesson 09, is missing: with a reward at the end alone, the return from $t$ on *is*
# the return.

# %%
assert torch.equal(pg.reward_to_go(own.rewards, own.mask), pg.total_return(own.rewards, own.mask))


def raw(rollout, *_):
    return pg.total_return(rollout.rewards, rollout.mask)


def batch_mean(rollout, *_):
    won = pg.episode_returns(rollout.rewards, rollout.mask)
    return (won - pg.leave_one_out(won))[:, None] * rollout.mask


def standardized(rollout, *_):
    won = pg.episode_returns(rollout.rewards, rollout.mask)
    return pg.standardized(won, pg.prompt_groups(rollout.observations, rollout.mask))[:, None] * rollout.mask


THREE = list(SEEDS)[:3]
METHODS = {"reward": raw, "mean of the batch": batch_mean, "RLOO": group_weights, "standardized": standardized}
finals = {"RLOO": after[: len(THREE)]}
for name, weigh in METHODS.items():
    if name != "RLOO":
        runs[name] = [learner(weigh, seed) for seed in progress(THREE, name)]
        finals[name] = [held_out(lm) for lm, _ in runs[name]]
for name in METHODS:
    print(f"{name:18s} held-out pass@1 {over_seeds(finals[name])}   seeds {' '.join(f'{x:.2f}' for x in finals[name])}")

# %% [markdown]
# The baselines do not help; they even cost a little. Before you blame chance, measure the noise itself: the gradient
# of many batches, and how far it scatters about its mean (the trace of the covariance). One answer's gradient is its
# weight times its score $\nabla_\theta \log \pi_\theta(y \mid x)$, so take the scores once and try every weight. The
# model's biases, a small part of its parameters, stand for all of them.

# %%
generator = torch.Generator().manual_seed(args.seed)
many, _ = collect_text(task, sft, prompts=64, group=args.group, generator=generator)
biases = [parameter for name, parameter in sft.named_parameters() if name.endswith("bias")]
S, won = answer_scores(sft, many, biases), pg.episode_returns(many.rewards, many.mask)
squares = (S**2).sum(1)
print(f"{S.shape[1]:,} biases of {sum(p.numel() for p in sft.parameters()):,} parameters")
for name, which in (("right", won == 1), ("wrong", won == 0)):
    print(f"{int(which.sum())} {name} answers: mean log π {many.logprobs.sum(1)[which].mean():+.1f}, "
          f"mean squared length of the score {squares[which].mean():.0f}")  # fmt: skip
best = float(pg.optimal_baseline(squares, won))
print(f"mean reward {won.mean():.2f}; the constant baseline with the least variance, E|s|²r / E|s|² = {best:.2f}")

# %%
def scatter(weights):
    """Trace of the covariance of a batch's gradient, and the squared length of its mean, with prompts as units."""
    each = (weights[:, None] * S).view(-1, args.group, S.shape[1]).mean(1)  # one estimate per prompt
    mean, spread = each.mean(0), each.var(0).sum()
    return float(spread / args.prompts), float(mean @ mean - spread / len(each))


print("noise / signal of one batch      right 1, wrong 0   right 0, wrong −1   right 4, wrong 3")
for name, weigh in METHODS.items():
    found = []
    for shift in (0, -1, 3):
        weights = weigh(pay(many, (won + shift).tolist()))
        found.append(scatter(weights.sum(1) / many.mask.sum(1)))  # one number per answer
    signal = found[0][1]  # shifting rewards does not change what the mean is expected to be
    print(f"{name:30s}", *(f"{spread / signal if signal else float('inf'):17.1f}" for spread, _ in found))

# %% [markdown]
# **What you saw.** Look at the scores first. A wrong answer is one that the model found unlikely itself, and the
# score of something unlikely is long (lesson 08: $\mathbb 1 - \pi$). So nearly all noise comes from wrong answers,
# and a verifier that pays them **0** has silenced them: the reward itself is already near the best constant baseline.
# Subtract the mean reward, and the noisy half comes back. The textbook's promise holds for the *mean* only if scores
# are about equally long.
#
# In the other columns every reward is shifted by a constant, which changes no optimum. Baselines do not notice. The
# bare reward does: pay −1 for wrong and it learns from the noisy half alone; pay 3 and 4, and everything is pushed.
# Does learning agree?

# %%
def paid(shift):
    """The same task with a constant added to every reward."""
    def moved(problem):
        return replace(problem, score=lambda text: problem.score(text) + shift)

    return replace(task, train=tuple(map(moved, task.train)), low=task.low + shift, high=task.high + shift)


def updates_to(level, means, window=4):
    """How many updates until so many batches in a row are at the level on average; None if they never are."""
    return next((n for n in range(window, len(means) + 1) if sum(means[n - window : n]) >= window * level), None)


shifted = [learner(raw, seed, about=paid(3)) for seed in progress(SEEDS, "reward")]
off = (group_weights(pay(own, (own.rewards.sum(1) + 3).tolist())) - group_weights(own)).abs().max()
print(f"right 4, wrong 3. RLOO: its weights change by at most {off:.0e}, so its runs are those above")
for name, ends, histories, shift in (("RLOO", after, [history for _, history in runs["RLOO"]], 0),
                                     ("reward", [held_out(lm) for lm, _ in shifted], [h for _, h in shifted], 3)):  # fmt: skip
    needed = [updates_to(0.7 + shift, history.returns) or f"over {args.updates}" for history in histories]
    print(f"{name:6s} held-out pass@1 {over_seeds(ends)}; updates until four batches are 70 % right:", *needed)

# %% [markdown]
# **What you saw.** [C40] With rewards of 3 and 4 the bare reward learns far more slowly, in each of the five seeds:
# it has to see more answers for the same share of right ones. RLOO is the same run as before. That is what a baseline
# is for on text: **you need not know where the zero of your rewards lies.** A verifier's 0 and 1 are the lucky case;
# a reward model's scores (lesson 13) are not. Standardizing divides each group by its own spread: the noise relative
# to the signal stays, only the step is larger, and groups that nearly agree count as much as others.
#
# ## Long answers, short answers
# A sum over tokens has to be divided by something, and every library divides by something else:
#
# - **constant**: by a number that no sample can change, such as the answers times the room for one. The choice of Dr.
#   GRPO; up to the factor it is this course's default, the sum divided by the number of answers.
# - **per sequence**: each answer's sum by its own length, then the mean over answers. GRPO's choice.
# - **per token**: the sum over all tokens of the batch by their number. The choice of many trainers since.

# %% ex="12.4" points=2 difficulty="medium" minutes=8
def normalized(values, mask, room):
    """One batch's sum over tokens, divided in three ways.

    values (B, T) float, what each token contributes (weight times log π), anything where mask is False; mask (B, T)
    bool, True at least once a row; room, the most tokens that an answer may have
    -> a dict of three scalars: "constant", divided by B times room; "sequence", the mean over rows of each row's mean;
    "token", the mean over all tokens of the batch.
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

# %% ex="12.4" role="check"
normalized = check("12.4", normalized)

# %% [markdown] ex="12.4" role="hints"
# <details><summary>Hint 1</summary>Cut padding off once, at the beginning: <code>torch.where(mask, values, 0)</code>.
# Then all three share the sum of each row.</details>
# <details><summary>Hint 2</summary>Lengths are <code>mask.sum(1)</code>. The mean of means and the mean of everything
# differ as soon as lengths do.</details>

# %% [markdown]
# In the toy world answers have one to four tokens, and the expected gradient of each choice can be listed. (Per token
# with batches of 64, whose length is nearly constant: the division is by the mean length.)

# %%
centered = returns - J
per_length = {
    "constant": centered,
    "sequence": centered / lengths,
    "token, large batch": centered / (chance @ lengths.double()),
}
print("                                       change of log π per unit step, answers of")
print("expected gradient     cosine with ∇J   1 token    2 tokens   3 tokens   4 tokens")
for name, weights in per_length.items():
    mean = chance @ (weights[:, None] * scores)
    pushes = scores @ mean / mean.norm()
    by_length = [float(chance[lengths == n] @ pushes[lengths == n] / chance[lengths == n].sum()) for n in (1, 2, 3, 4)]
    print(f"{name:20s} {cosine_similarity(mean, exact, 0):15.4f}  ", "   ".join(f"{push:+8.2f}" for push in by_length))

# %%
lm = copy.deepcopy(sft)
log_pi, room = action_logprobs(lm, own), task.max_new_tokens
found = {}
for name, value in normalized(group_weights(own) * log_pi, own.mask, room).items():
    parts = torch.autograd.grad(value, list(lm.parameters()), retain_graph=True)
    found[name] = torch.cat([part.flatten() for part in parts])
counts = own.mask.sum(1)
print(f"sums: answers of {int(counts.min())} to {int(counts.max())} tokens, {counts.double().mean():.1f} on average")
for name, slope in found.items():
    print(f"{name:9s} cosine with constant {cosine_similarity(slope.double(), found['constant'].double(), 0):.4f}, "
          f"length relative to it {slope.norm() / found['constant'].norm():.2f}")  # fmt: skip

# %% [markdown]
# **What you saw.** Dividing each answer by its own length changes the *direction*: it is the gradient of something
# else than J. A short wrong answer is pushed down harder than a long one, so that the model would rather be wrong at
# length. Per token and constant differ by a factor, which Adam swallows. Where lengths vary little, as in our sums,
# all three nearly agree. Long reasoning is where it matters: look there before you copy a setting.
#
# ## Learning rate, batch, steps: and a collapse
# Every setting so far was chosen. How? By trying. Each learner below sees the same number of answers.

# %%
U, P = args.updates, args.prompts
SWEEP = [(U, P, lr) for lr in (1e-5, 1e-3, 3e-3)] + [(2 * U, P // 2, args.lr), (U // 2, 2 * P, args.lr)]
print("updates  prompts × answers   learning rate   held-out pass@1   last batch   entropy, nats per token")
sweep = {(U, P, args.lr): runs["RLOO"][0]}
for updates, prompts, lr in progress(SWEEP, "sweep"):
    sweep[updates, prompts, lr] = learner(group_weights, args.seed, updates=updates, prompts=prompts, lr=lr)
for (updates, prompts, lr), (lm, history) in sorted(sweep.items(), key=lambda item: (item[0][0] != U, item[0][2])):
    print(f"{updates:7d}  {prompts:7d} × {args.group:<8d} {lr:15.0e} {held_out(lm):17.2f} "
          f"{history.returns[-1]:12.2f} {history.entropy[-1]:25.2f}")  # fmt: skip
wrecked = sweep[U, P, 3e-3][0]
print("\nafter the largest rate:", completions(wrecked, attempt(task, wrecked, task.held_out[:3]), task.stop))

# %% [markdown]
# **What you saw.** The smallest rate hardly moves anything. The rate of the finetuning above, $10^{-3}$, leaves the
# model worse than it was, and three times that **destroys** it: it stops writing sums, no answer is paid any more,
# all advantages are 0, and nothing leads back. A supervised run keeps its data whatever the model does; here the
# policy makes its own. How the same answers are cut into batches matters far less, between these bounds: a few
# points, and a single seed each.
#
# ## What RL starts from
# RL reinforces what the policy already does. So what if it hardly ever does the right thing? Three starting points:
# the base model, the model after 60 conversations, and after 300. Ask not only whether the first answer is right, but
# also whether **one of $k$** is: pass@$k$. From $n$ answers to a problem, $c$ of them right, estimate it without bias
# (Chen et al., 2021): the chance that $k$ of the $n$, drawn *without* putting back, contain a right one.

# %% ex="12.5" points=2 difficulty="medium" minutes=8
def pass_at_k(successes, samples, k):
    """The probability that at least one of k answers is right, from so many successes among so many samples.

    successes, samples, k: int, 0 <= successes <= samples, 1 <= k <= samples -> float, unbiased.
    """
    # BEGIN SOLUTION
    wrong = 1.0
    for drawn in range(k):
        wrong *= max(samples - successes - drawn, 0) / (samples - drawn)
    return 1 - wrong
    # END SOLUTION

# %% ex="12.5" role="check"
pass_at_k = check("12.5", pass_at_k)

# %% [markdown] ex="12.5" role="hints"
# <details><summary>Hint 1</summary>The complement is easier: all k drawn answers are wrong. How many ways are there
# to draw k of the n, and how many of these from the n − c wrong ones?</details>
# <details><summary>Hint 2</summary><code>math.comb(n - c, k) / math.comb(n, k)</code>; comb is 0 if there are fewer
# than k wrong ones.</details>

# %%
KS, FEW = (1, 2, 4, 8, 16), task.held_out[:40]


def pass_curve(lm):
    """pass@k over the quiz, from 16 answers each."""
    right = (sampled_scores(task, lm, FEW, samples=16, seed=args.seed + 2) == 1).sum(1).tolist()
    return [sum(pass_at_k(count, 16, k) for count in right) / len(right) for k in KS]


short = finetuned(60)
starts = {"base": base, "60 conversations": short, f"{args.examples} conversations": sft}
curves, learned = {}, {f"{args.examples} conversations": runs["RLOO"][0]}
for name, start in starts.items():
    if name not in learned:
        learned[name] = learner(group_weights, args.seed, start=start, group=8)
    lm, history = learned[name]
    curves[name] = pass_curve(start), pass_curve(lm)
    print(f"{name:18s} gradient norm of the first update {history.gradient_norm[0]:5.2f}")
    for when, curve in zip(("before RL", "after RL"), curves[name]):
        print(f"    {when:10s}", *(f"pass@{k} {value:.2f}  " for k, value in zip(KS, curve)))

# %%
figure, axes = pyplot.subplots(figsize=(5, 2.9))
for index, (name, (old, new)) in enumerate(curves.items()):
    for style, curve, when in ((":", old, "before"), ("-", new, "after")):
        axes.plot(KS, curve, style, color=figures.COLORS[index], marker=figures.MARKERS[index], label=f"{name}, {when}")
axes.set(title="One of k answers is right", xlabel="answers k", ylabel="pass@k, held-out sums", xscale="log", xticks=KS,
         xticklabels=KS, ylim=(-0.03, 1.03))  # fmt: skip
axes.minorticks_off()
axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
ends = "; ".join(f"{name}: pass@1 {old[0]:.2f} to {new[0]:.2f}, pass@16 {old[-1]:.2f} to {new[-1]:.2f}"
                 for name, (old, new) in curves.items())  # fmt: skip
show(figure, alt=f"pass@k against k, before (dotted) and after RL, for three starting points. {ends}.")

# %% [markdown]
# **What you saw.** [C41] RL from the base model is not slower. It is nothing: no answer in the format, no reward, a
# gradient of exactly 0, and so the same model at the next update. Finetuning is what makes the first success possible.
#
# After 300 conversations one of 16 answers was right for every sum already, and RL moved the first answer most of the
# way up to that: it made reliable what the model could do. After 60 it did more. pass@16 rose as well: from the few
# sums that it happened to solve the model learned something that holds for others. But it ends far below the other,
# although it saw twice as many answers: the start decides how much each sample can teach. In large models on hard
# problems, Yue et al. (2025) found that the base model catches up at large $k$: there RL mostly did the first of
# these two things. So report pass@$k$ beside pass@1, before and after.
#
# ## Which token earned it?
# REINFORCE gives every token of an answer the same credit. The lecture: "We can improve the estimate by sampling more
# rollouts from $(s_t, a_t)$." On text that is easy, since the state is the prefix: go on from each prefix 64 times, and
# the mean reward is $\hat V(s_t)$. A token's advantage is how much it changed it, $\hat A_t = \hat V(s_{t+1}) -
# \hat V(s_t)$.

# %%
def token_credit(lm, problem, rollout, row, samples=64):
    """The answer's tokens, and for each the change of the expected reward, by sampling on from every prefix."""
    kept = rollout.mask[row]
    ids, tokens = text_of(rollout)[row].tolist(), rollout.actions[row][kept].tolist()
    first = int(kept.to(torch.uint8).argmax()) + 1
    decode = lm.tokenizer.decode
    said = [decode(tokens[:n]) for n in range(len(tokens))]
    prompt = decode(ids[1:first])
    values = []
    for n, begun in enumerate(said):
        rest = sample_text(lm, [prompt + begun] * samples, max_new_tokens=task.max_new_tokens, stop=task.stop, seed=n)
        values.append(sum(problem.score(begun + text) for text in completions(lm, rest, task.stop)) / samples)
    values.append(float(rollout.rewards[row].sum()))
    written = ["end" if token in lm.end_tokens else decode([token]).strip() or "end" for token in tokens]
    return written, [after - now for now, after in zip(values, values[1:])], values[0]


generator = torch.Generator().manual_seed(args.seed + 3)
shown, _ = collect_text(task, sft, prompts=12, group=1, generator=generator)
right = shown.rewards.sum(1) == 1
rows = right.nonzero()[:2, 0].tolist() + (~right).nonzero()[:2, 0].tolist()


def asked(row):
    """The problem that a row answers."""
    prompt = sft.tokenizer.decode(shown.observations[row].tolist())
    return next(problem for problem in task.train if problem.prompt in prompt)


credits = [token_credit(sft, asked(row), shown, row) for row in progress(rows, "credit")]

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(8.6, 2.2), layout="constrained")
for axes, name in zip(panels, ("one credit for all: r − V(prompt)", "each token: V after it − V before it")):
    for place, (tokens, changes, _) in enumerate(credits):
        for t, (token, change) in enumerate(zip(tokens, changes)):
            value = sum(changes) if axes is panels[0] else change
            axes.text(t, -place, token, ha="center", va="center", fontsize=8, fontfamily="monospace",
                      color="white" if abs(value) > 0.6 else "black",
                      bbox={"facecolor": pyplot.cm.PuOr(0.5 + value / 2), "edgecolor": "none", "pad": 3})  # fmt: skip
    axes.set(title=name, xlim=(-0.7, max(len(tokens) for tokens, _, _ in credits) - 0.3), ylim=(0.6 - len(credits), 0.6))
    axes.axis("off")
scale = pyplot.cm.ScalarMappable(pyplot.Normalize(-1, 1), "PuOr")
figure.colorbar(scale, ax=panels, label="credit", shrink=0.9)
show(figure, alt="Four answers as coloured tokens. Left: all tokens of an answer have one colour. Right: most are white, and "
     "one or two in each answer carry the colour: where a digit or a sign went wrong or right.")  # fmt: skip

# %%
for row, (tokens, changes, start) in zip(rows, credits):
    largest = max(range(len(tokens)), key=lambda t: abs(changes[t]))
    print(f"{asked(row).prompt:20s} V(prompt) {start:.2f}, reward {shown.rewards[row].sum():.0f}; largest change at token "
          f"{largest + 1} of {len(tokens)}, {tokens[largest]!r}: {changes[largest]:+.2f}")  # fmt: skip

# %% [markdown]
# **What you saw.** An answer is decided in one or two places; the other tokens are just carried along, and REINFORCE
# pushes them all the same. (64 samples know a probability to about ± 0.06: pale colours may be chance.) Credit by
# sampling costs 64 answers per token. A critic (lesson 10) is the attempt to get it for one forward pass.
#
# ## Lab: silent bugs
# Four runs. Each differs from the RLOO learner above in one thing, and none raises an error. Look at the symptoms
# first: the reward of the batches that it learned from, and the held-out score.

# %%
def losses_right(policy, rollout, advantages):
    """RLOO, one loss per answer; advantages (B,)."""
    return -(advantages[:, None] * action_logprobs(policy, rollout)).sum(1)


def losses_b(policy, rollout, advantages):
    logprobs = action_logprobs(policy, replace(rollout, actions=rollout.observations))
    return -(advantages[:, None] * logprobs).sum(1)


def losses_c(policy, rollout, advantages):
    begins = rollout.mask & (rollout.mask.cumsum(1) == 1)
    weights = pg.reward_to_go(advantages[:, None] * begins, rollout.mask)
    return -(weights * action_logprobs(policy, rollout)).sum(1)


def losses_d(policy, rollout, advantages):
    weights = pg.reward_to_go(pay(rollout, advantages.tolist()).rewards, rollout.mask, gamma=0.5)
    return -(weights * action_logprobs(policy, rollout)).sum(1)


LAB = {"RLOO": (losses_right, False), "run A": (losses_right, True), "run B": (losses_b, False),
       "run C": (losses_c, False), "run D": (losses_d, False)}  # losses, whether the sampler is apart  # fmt: skip

# %%
def lab_run(losses, apart):
    """Mean reward of each batch, disagreement with the sampler at the first two, held-out score."""
    lm, generator = copy.deepcopy(sft), torch.Generator().manual_seed(args.seed)
    sampler, adam = (copy.deepcopy(sft) if apart else lm), torch.optim.Adam(lm.parameters(), lr=args.lr)
    rewards, gaps = [], []
    for _ in range(args.updates):
        rollout, _ = collect_text(task, sampler, prompts=args.prompts, group=args.group, generator=generator)
        won = pg.episode_returns(rollout.rewards, rollout.mask)
        advantages = won - pg.leave_one_out(won, groups=pg.prompt_groups(rollout.observations, rollout.mask))
        if len(gaps) < 2:  # at the first two updates
            gaps.append(check_behavior(lm, rollout, atol=float("inf")))
        rewards.append(won.mean().item())
        kept = advantages.nonzero()[:, 0]  # the others have weight 0
        if not len(kept):  # all alike: nothing to learn from
            continue
        adam.zero_grad(), (losses(lm, take_rows(rollout, kept), advantages[kept]).sum() / len(advantages)).backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        adam.step()
    return rewards, gaps, held_out(lm)


lab = {name: lab_run(*LAB[name]) for name in progress(list(LAB)[1:], "lab")}
history = runs["RLOO"][0][1]
lab = {"RLOO": (history.returns, None, after[0])} | lab
half = args.updates // 2
print("          mean reward, first half   second half   held-out pass@1")
for name, (rewards, _, score) in lab.items():
    print(f"{name:10s} {sum(rewards[:half]) / half:22.2f} {sum(rewards[half:]) / (args.updates - half):13.2f} {score:17.2f}")
print(f"no learning {'':35s} {before:.2f}")

# %%
figure, axes = pyplot.subplots(figsize=(5.2, 2.7))
for index, (name, (rewards, _, score)) in enumerate(lab.items()):
    style = {"color": figures.COLORS[index], "marker": figures.MARKERS[index]}
    axes.plot(range(args.updates), rewards, figures.DASHES[index % 4], label=name, **style)
    axes.plot([args.updates + 0.5 + 0.25 * index], [score], linestyle="none", markersize=9, **style)
axes.set(title="Batches on the way; held out at the end (right)", xlabel="updates", ylabel="share of right answers", ylim=(0, 1))
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
ends = ", ".join(f"{name} {score:.2f}" for name, (_, _, score) in lab.items())
show(figure, alt=f"Rewards of the batches of five runs, and a larger mark for each one's held-out score: {ends}.")

# %% [markdown]
# Now the property tests. In the toy world, where every answer is listed, the *expected* gradient of each loss must be
# $\nabla J$. Beside it: how strongly the loss pulls at the log-probability of each of the four tokens of an answer,
# taken from the run's own loss by autograd; and how far sampler and learner are apart at the first update and at the
# second.

# %%
four = lengths == 4
print("          cosine with ∇J   length   pull on token 1, 2, 3, 4     nats apart, update 1   update 2")
for name, (losses, _) in LAB.items():
    loss = (chance * losses(toy, every, returns - J)).sum()
    mean = -torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(toy.parameters()))])
    leaf = toy(every.observations).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(losses(lambda _, leaf=leaf: leaf, every, torch.ones_like(returns)).sum(), leaf)
    pull = slopes.abs().sum(-1)[four].mean(0)[-4:]
    gaps = lab[name][1]
    apart = "" if gaps is None else f"{gaps[0]:22.0e} {gaps[1]:10.0e}"
    print(f"{name:10s} {cosine_similarity(mean, exact, 0):13.3f} {mean.norm() / exact.norm():8.2f}   "
          + " ".join(f"{value / pull.max():5.2f}" for value in pull) + f"   {apart}")  # fmt: skip

# %% [markdown]
# The suspects. Four of them are guilty, one per run.
#
# | name | the bug |
# |---|---|
# | `temperature` | sampled at another temperature than scored |
# | `stale sampler` | the sampler never gets the new weights |
# | `prompt` | the prompt's tokens are trained on too |
# | `shift` | the log-probability is that of the token that was read, not of the one that was written |
# | `first token` | the reward stands at the first token, so reward-to-go reaches no other |
# | `discount` | the reward is discounted per token, so that early tokens hardly count |
# | `end token` | the token that ends the answer is left out |
# | `normalizer` | padding counts in the number that the sum is divided by |

# %% ex="12.6" points=4 difficulty="hard" minutes=15
# For each run the name of its bug, from the table above: {"A": "...", "B": "...", "C": "...", "D": "..."}
# BEGIN SOLUTION
bugs = {"A": "stale sampler", "B": "shift", "C": "first token", "D": "discount"}
# END SOLUTION

# %% ex="12.6" role="check"
bugs = check("12.6", bugs)

# %% [markdown] ex="12.6" role="hints"
# <details><summary>Hint 1</summary>Two runs have the right direction at the first update or nearly so, and two have
# not. Which tokens does each run pull at?</details>
# <details><summary>Hint 2</summary>A run can be right at its first update and wrong from the second on: look at the
# last two columns. And a loss that pulls at all tokens alike can still pull at the wrong entry.</details>

# %% [markdown]
# **What you saw.** Run A passes every test at its first update, and its model is as good as the right one, so far:
# only its batches do not get better, because somebody else writes them. At the second update sampler and learner are
# apart, and `train_policy` would have stopped there; lesson 11 says how it goes on. Run B pulls at all tokens alike,
# but at the wrong entry: only the exact gradient tells. Run C trains one token of each answer. Run D looks nearly
# right in the toy world, with four tokens; in an answer of nine, the first gets $0.5^8$ of the last one's weight, and
# the coloured tokens above show how early a sum can go wrong.
#
# ## Recap
# - A token is an action, the prefix is the state, the language model is the policy: the loop, the loss and the
#   weights of the grid train it unchanged. On a transformer small enough to list, the estimate's mean is $\nabla J$
#   to rounding.
# - REINFORCE on text is finetuning on own answers weighted by return.
# - Sampler and learner must agree on log-probabilities. Compare after every collection.
# - With a reward of 0 and 1 the bare reward is hard to beat here: wrong answers have the long scores, and weigh
#   nothing. A baseline makes the learner independent of the rewards' zero, which is why everybody has one.
# - Dividing by each answer's own length changes the objective; a constant or the batch's tokens only the step.
# - RL needs successes to reinforce. What the start never does, no reward finds.
#
# ## Try next
# - `--examples 60 --updates 40`: does it catch up with a start from 300?
# - `--group 16 --prompts 2`: the same answers from fewer prompts. What happens to the noise?
# - Learn sums up to 99 (`--largest 99`) from the model that can do 50.
# - Train with LoRA (lesson 06) instead of all weights. Which learning rate does it want?
#
# ## References
# - Williams (1992), *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*.
# - Ranzato, Chopra, Auli and Zaremba (2016), *Sequence Level Training with Recurrent Neural Networks*.
# - Ahmadian et al. (2024), *Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback
#   in LLMs* (RLOO).
# - Shao et al. (2024), *DeepSeekMath* (GRPO); Liu et al. (2025), *Understanding R1-Zero-Like Training* (Dr. GRPO).
# - Chen et al. (2021), *Evaluating Large Language Models Trained on Code* (pass@k).
# - Yue et al. (2025), *Does Reinforcement Learning Really Incentivize Reasoning Capacity in LLMs Beyond the Base
#   Model?*
