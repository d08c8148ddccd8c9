# Lesson 09: baselines. jupytext py:percent; runs as a script: python lessons/09_baselines.py --help

# %% [markdown]
# # 09 · Baselines: the same gradient with less noise
#
# REINFORCE points the right way on average and shakes badly around it. In this lesson you change one number per step,
# the weight in front of $\nabla_\theta \log \pi_\theta$, prove on paper which changes leave the average alone, and
# measure on a grid world, beside the exact gradient, how much noise each of them removes and what that is worth in
# training. *(Lecture: "Challenges in policy gradient", "Reducing variance: use reward-to-go" and "subtract a baseline";
# claims C29–C32.)* About 60 minutes; runs in 35 s on two CPU cores.
#
# **You will need** lesson 08: the REINFORCE estimator and the exact gradient it is held against. **You will be able to**
# say of a weight whether it keeps the policy gradient unbiased, prove it in three lines, and choose a baseline knowing
# what it costs and what it buys.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import math
import statistics
from dataclasses import replace
from types import SimpleNamespace

import torch
from matplotlib import pyplot

from ptlearn import figures, policy_gradient
from ptlearn.course.exercise import check
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import (
    action_values,
    enumerate_trajectories,
    exact_gradient,
    horizon_values,
    objective,
    probabilities,
    value_iteration,
)  # fmt: skip
from ptlearn.policy_gradient import advantage, episode_returns, policy_gradient_loss, total_return
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs
from ptlearn.statistics import Estimate

torch.set_num_threads(1)  # the tensors are small: a second thread would spend its time waiting for the first
args = arguments(
    "Variance of the policy gradient: reward-to-go, baselines, TD with exact values; and what they buy in training.",
    step_reward=(-0.04, "the reward of a step that does not end the episode"),
    horizon=(40, "the time limit, in steps", "at least 20"),
    batch=(8, "episodes in a batch", "at least 2"),
    batches=(10_000, "batches that each bias and variance is measured on", "at least 200"),
    updates=(90, "gradient steps of each training run", "at least 1"),
    runs=(10, "training runs of each estimator, one seed each", "at least 2"),
    seed=(0, "of everything that is sampled", "at least 0"),
)

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. In the lecture's grid world only the star pays: 1 at the end of the episode, 0 on the way. REINFORCE multiplies all
#    steps of an episode by the same return. You give every step only the rewards that come *after* it. **By what factor
#    does the variance fall?** And where every step also costs a little?
# 2. From every return of a batch of $N$ episodes you subtract the batch's average. **Is the estimate still unbiased?**
# 3. Of all the constants that can be subtracted from the return, **is its mean the one with the least variance?**

# %% [markdown]
# ## The world, and two policies
# The default map: 5 × 5 cells, a goal that pays 1 and a pit that pays −1. Every other step pays −0.04, so that time
# matters, and after 40 steps the episode is cut off. Two policies to measure at: the *untrained* one, every action
# equally likely, and one *on its way*, after fifteen steps up the **exact** gradient.

# %%
world = GridWorld("default", step_reward=args.step_reward)
mdp, horizon = world.to_mdp(), args.horizon
print(*world.map, sep="\n")


def on_its_way(steps):
    """A table policy after some steps of Adam on the exact objective: nothing is sampled."""
    policy = TabularPolicy(mdp.states, mdp.actions).double()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (-objective(mdp, probabilities(mdp, policy), horizon)).backward()
        optimizer.step()
    return policy


policies = {"untrained": on_its_way(0), "on its way": on_its_way(15)}
best = float(mdp.start @ value_iteration(mdp))
for name, policy in policies.items():
    print(f"{name:10s} expected return {objective(mdp, probabilities(mdp, policy), horizon):5.2f} (best: {best:.2f})")

# %% [markdown]
# For each policy: many episodes, and beside them what is exact. Because of the time limit a value depends on the time:
# $V_t(s)$ is the expected sum of the rewards from step $t$ to the end, as in the lecture's sum up to $T$.

# %%
def along(values, rollout):
    """The values (horizon + 1, S) at the state and time of every step: (B, T)."""
    return values[torch.arange(rollout.mask.shape[1]), rollout.observations]


def study(policy):
    """Episodes of a policy, with its exact probabilities, values, objective and gradient."""
    pi = probabilities(mdp, policy).detach()
    values = horizon_values(mdp, pi, horizon)
    generator = torch.Generator().manual_seed(args.seed)
    rollout, _ = collect(mdp, policy, args.batch * args.batches, horizon=horizon, generator=generator)
    return SimpleNamespace(rollout=rollout, pi=pi, values=along(values, rollout), J=float(mdp.start @ values[0]),
                           gradient=exact_gradient(mdp, policy, horizon))  # fmt: skip


studies = {name: study(policy) for name, policy in policies.items()}
groups = torch.arange(args.batch * args.batches) // args.batch  # the batch that each episode belongs to
for name, s in studies.items():
    lengths = s.rollout.mask.sum(1).double()
    print(f"{name:10s} {len(lengths):,} episodes of {lengths.mean():.1f} steps on average, "
          f"{s.rollout.terminated.double().mean():.0%} reach goal or pit")  # fmt: skip

# %% [markdown]
# ## Right on average, wrong every time
# The lecture's estimator,
#
# $$\hat g = \frac1N \sum_{i=1}^N \Big(\sum_{t=1}^T \nabla_\theta \log \pi_\theta(a_t^i \mid s_t^i)\Big)
#   \sum_{t=1}^T r(s_t^i, a_t^i)$$
#
# is a random variable: another batch, another $\hat g$. To see its spread we need the gradient of every single episode.
# For a table of logits it has a closed form: $\partial \log \pi_\theta(a \mid s) / \partial \theta_{s,b} =
# \mathbb 1[a = b] - \pi_\theta(b \mid s)$, and 0 for every other state.

# %%
def episode_gradients(rollout, weights, pi):
    """The sum over t of weights (B, T) times grad log pi(a_t | s_t), for every episode: (B, S * A)."""
    (episodes, _), (states, actions) = weights.shape, pi.shape
    taken = torch.zeros(episodes, states * actions, dtype=pi.dtype)
    taken.scatter_add_(1, rollout.observations * actions + rollout.actions, weights)
    taken = taken.unflatten(1, (states, actions))
    return (taken - taken.sum(-1, keepdim=True) * pi).flatten(1)


s, policy = studies["untrained"], policies["untrained"]
weights = total_return(s.rollout.rewards, s.rollout.mask)
loss = policy_gradient_loss(action_logprobs(policy, s.rollout), weights, s.rollout.mask)
(by_autograd,) = torch.autograd.grad(-loss, policy.parameters())
reinforce = episode_gradients(s.rollout, weights, s.pi)
assert torch.allclose(reinforce.mean(0), by_autograd.flatten())  # the package's loss gives the same mean
print(f"{len(reinforce):,} episodes, {reinforce.shape[1]} parameters")

# %% [markdown]
# One number for the spread of a vector: the **trace of its covariance**, the sum of the variances of its parameters. It
# is the mean squared distance of an estimate from its own mean.

# %% ex="9.1" points=1 minutes=5 difficulty="easy"
def total_variance(gradients):
    """The trace of the covariance: per parameter the unbiased variance over the estimates, then the sum.

    gradients (M, P) float, one estimate per row -> scalar.
    """
    # BEGIN SOLUTION
    return ((gradients - gradients.mean(0)) ** 2).sum() / (len(gradients) - 1)
    # END SOLUTION

# %% ex="9.1" role="check"
total_variance = check("9.1", total_variance)

# %% [markdown] ex="9.1" role="hints"
# <details><summary>Hint 1</summary>Centre first: what an estimate does on average is not its noise.</details>
# <details><summary>Hint 2</summary>Divide by the number of estimates minus one; sum over the parameters, so that the
# result is a squared length.</details>

# %% [markdown]
# Average $N$ independent episodes and the variance must fall like $1/N$. Group the episodes into batches of 1, 2, 4 …
# and measure. Beside it stands the length of what is being estimated, $\lVert \nabla_\theta J \rVert^2$, and the cosine
# between estimate and truth: 1 would be the right direction, 0 a random one.

# %%
def in_batches(gradients, size):
    """The mean gradient of every batch of `size` episodes: (B // size, P)."""
    batches = len(gradients) // size
    return gradients[: batches * size].unflatten(0, (batches, size)).mean(1)


def with_interval(numbers):
    """The mean of independent numbers, with its 95 % interval."""
    margin = 1.96 * float(numbers.std()) / len(numbers) ** 0.5
    return Estimate(float(numbers.mean()), float(numbers.mean()) - margin, float(numbers.mean()) + margin, len(numbers))


def squared_distances(gradients):
    """Each estimate's squared distance from their mean; their mean is the total variance."""
    return ((gradients - gradients.mean(0)) ** 2).sum(1) * len(gradients) / (len(gradients) - 1)


# %%
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
noise, signal = [], float(s.gradient @ s.gradient)
for size in SIZES:
    estimates = in_batches(reinforce, size)
    noise.append(with_interval(squared_distances(estimates)))
    assert math.isclose(noise[-1].mean, total_variance(estimates))
    cosine = torch.cosine_similarity(estimates, s.gradient[None]).mean()
    print(f"N = {size:3d}: total variance {noise[-1].mean:8.3f}   N × variance {size * noise[-1].mean:6.1f} "
          f"± {size * (noise[-1].mean - noise[-1].low):4.1f}   mean cosine {cosine:.2f}")  # fmt: skip
print(f"‖∇J‖² = {signal:.4f}: the noise is as large as the signal at N = {noise[0].mean / signal:,.0f} episodes")

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
figures.curve(axes, SIZES, noise, "total variance, measured")
axes.plot(SIZES, [noise[0].mean / size for size in SIZES], color="black", linewidth=0.8, label="1/N law")
axes.axhline(signal, color=figures.COLORS[1], linestyle="--", label="‖∇J‖²: the signal, squared")
axes.set(title="REINFORCE, untrained policy", xlabel="N, episodes in a batch", xscale="log", yscale="log",
         ylabel="trace of the covariance")  # fmt: skip
axes.set_xticks(SIZES, SIZES)
axes.legend(fontsize=8)
slope = (math.log(noise[-1].mean) - math.log(noise[0].mean)) / math.log(SIZES[-1])
show(figure, alt=f"Variance against batch size on log axes: a straight line of slope {slope:.2f}, far above the squared "
     "length of the exact gradient even at the largest batch.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C29] The variance follows $1/N$: ten times the episodes for a tenth of it. But there is a lot of
# it. A batch of 128 episodes still points hardly at all in the right direction, and averaging alone would take
# thousands of episodes *per gradient step*. Is it at least unbiased? Every parameter has a $z$-score, the distance of
# its mean from the exact gradient in standard errors. Among so many parameters a few exceed 2 by chance, so the bar is
# raised to what the largest of them would exceed in one case of twenty (Bonferroni).

# %%
def bias_test(gradients, exact, tests=1):
    """(largest |z| over the parameters that can move, the threshold at 5 % over all parameters and tests)."""
    moving = gradients.std(0) > 0
    errors = gradients.std(0)[moving] / len(gradients) ** 0.5
    z = (gradients.mean(0) - exact)[moving] / errors
    return float(z.abs().max()), statistics.NormalDist().inv_cdf(1 - 0.025 / (tests * int(moving.sum())))


largest, threshold = bias_test(in_batches(reinforce, args.batch), s.gradient)
print(f"{args.batches:,} batches of {args.batch}: largest |z| {largest:.1f}, threshold {threshold:.1f}: "
      f"{'no bias seen' if largest < threshold else 'biased'}")  # fmt: skip

# %% [markdown]
# ## Reward-to-go: the past is not the action's doing
# Multiply out the two sums of $\hat g$: there is a term $\nabla_\theta \log \pi_\theta(a_t \mid s_t)\, r(s_{t'}, a_{t'})$
# for every pair of times. Take $t' < t$, a reward from *before* the action. Given $s_t$ and all that came before, that
# reward is a fixed number, and only $a_t$ is still random:
#
# $$\mathbb E\big[\nabla_\theta \log \pi_\theta(a_t \mid s_t)\, r(s_{t'}, a_{t'})\big]
#   = \mathbb E\Big[r(s_{t'}, a_{t'})\;
#   \mathbb E_{a_t \sim \pi_\theta(\cdot \mid s_t)}\big[\nabla_\theta \log \pi_\theta(a_t \mid s_t)\big]\Big] = 0,$$
#
# $$\text{since}\quad \sum_{a} \pi_\theta(a \mid s)\, \nabla_\theta \log \pi_\theta(a \mid s)
#   = \sum_a \nabla_\theta \pi_\theta(a \mid s) = \nabla_\theta 1 = 0.$$
#
# All terms with $t' < t$ can go; what stays is the **reward-to-go** $\sum_{t'=t}^{T} r(s_{t'}, a_{t'})$. First look at the
# terms. A map of six cells and a limit of five steps has few enough trajectories to list, so expectations are finite
# sums and 0 is 0.

# %%
small = GridWorld("small", step_reward=-0.25).to_mdp()  # dearer steps, so that the past can be seen
chooser = TabularPolicy(small.states, small.actions).double()
torch.nn.init.normal_(chooser.logits, std=0.7, generator=torch.Generator().manual_seed(args.seed))
every, _, chance = enumerate_trajectories(small, chooser, 5)
small_pi, T = probabilities(small, chooser).detach(), every.mask.shape[1]
print(f"{len(chance):,} trajectories, probabilities sum to {chance.sum():.12f}")


def expected_gradient(weights):
    """The exact mean of the estimator with these weights (trajectories, T): a sum over all trajectories."""
    return chance @ episode_gradients(every, weights, small_pi)


truth = exact_gradient(small, chooser, 5)
assert torch.allclose(expected_gradient(total_return(every.rewards, every.mask)), truth, atol=1e-12)

# %%
mean, size = torch.zeros(T, T), torch.zeros(T, T)
for t in range(T):
    step = (torch.arange(T) == t) & every.mask
    score = episode_gradients(every, step.double(), small_pi)  # grad log pi(a_t | s_t), alone
    for j in range(T):
        term = score * every.rewards[:, j : j + 1]
        mean[t, j] = (chance @ term).norm()
        size[t, j] = (chance @ term.square().sum(1)).sqrt()
print(f"rewards before the action: largest mean {mean.tril(-1).max():.0e}, largest size {size.tril(-1).max():.2f}")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(6.6, 2.9), sharey=True)
for axes, numbers, title in zip(panels, (mean, size), ("length of its mean", "its size (root mean square)")):
    picture = axes.imshow(numbers, cmap="cividis", vmin=0)
    for (t, j), number in zip(torch.cartesian_prod(*[torch.arange(T)] * 2).tolist(), numbers.flatten().tolist()):
        axes.text(j, t, f"{number:.2f}", ha="center", va="center", fontsize=8,
                  color="white" if number < numbers.max() / 2 else "black")  # fmt: skip
    axes.set(title=title, xlabel="j, time of the reward", xticks=range(T), yticks=range(T))
    axes.set_xticklabels(range(1, T + 1)), axes.set_yticklabels(range(1, T + 1))
panels[0].set_ylabel("t, time of the action")
figure.suptitle("The term ∇ log π(a_t|s_t) · r(s_j, a_j)", y=1.06)
show(figure, alt="Two 5 by 5 tables over the time of the action and of the reward. Below the diagonal, where the reward "
     "came before the action, the mean is 0.00 everywhere, and the size is not.")  # fmt: skip

# %% [markdown]
# **What you saw.** Below the diagonal, where the reward came first, there is noise and nothing else: the mean is 0 to
# rounding. On and above it the action has its say, and less of it the later the reward. (The very first step costs the
# same wherever it goes.) Now write the weight that leaves the past out.

# %% ex="9.2" points=2 minutes=10 difficulty="easy"
def reward_to_go(rewards, mask, gamma=1.0):
    """The discounted sum of the rewards from each step to the end of its episode.

    rewards (B, T) float, mask (B, T) bool -> (B, T) float, 0 where mask is False.
    """
    # BEGIN SOLUTION
    returns, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = torch.where(mask[:, t], rewards[:, t] + gamma * running, running)
        returns[:, t] = running * mask[:, t]
    return returns
    # END SOLUTION

# %% ex="9.2" role="check"
reward_to_go = check("9.2", reward_to_go)

# %% [markdown] ex="9.2" role="hints"
# <details><summary>Hint 1</summary>Walk backwards: the return at t is the reward at t plus gamma times the return at
# t + 1.</details>
# <details><summary>Hint 2</summary>What stands behind an episode's end is padding: it must neither earn anything nor
# pass anything on, whatever the numbers there are.</details>

# %%
assert torch.allclose(reward_to_go(s.rollout.rewards, s.rollout.mask),
                      policy_gradient.reward_to_go(s.rollout.rewards, s.rollout.mask), atol=1e-4)  # fmt: skip
assert torch.allclose(expected_gradient(reward_to_go(every.rewards, every.mask)), truth, atol=1e-5)
for title, rewards in (("steps cost a little", s.rollout.rewards),
                       ("only goal and pit pay", s.rollout.rewards * (s.rollout.rewards.abs() == 1))):  # fmt: skip
    used = [total_return(rewards, s.rollout.mask), reward_to_go(rewards, s.rollout.mask)]
    variances = [total_variance(episode_gradients(s.rollout, weights, s.pi)) for weights in used]
    print(f"{title:22s} total variance of one episode: {variances[0]:7.3f} with the total return, "
          f"{variances[1]:7.3f} with the reward-to-go: × {variances[1] / variances[0]:.2f}")  # fmt: skip

# %% [markdown]
# **What you saw.** [C30] With a cost per step the mean stays where it is and the variance falls by more than half. In
# the lecture's own world, where only the end pays, reward-to-go *is* the total return, step by step, and nothing
# changes: there are no past rewards to drop. The same holds for a language model that is judged once, at the end of its
# answer (lesson 12). The next idea works there too.

# %% [markdown]
# ## Subtract a baseline
# A return of −1.6 pushes every action of its episode down, though −1.6 may be the best that could be had. The lecture
# subtracts a **baseline** $b(s_t)$, what is typical, so that the weight says *how much better than that*:
#
# $$\hat g = \frac1N \sum_{i=1}^N \sum_{t=1}^T \nabla_\theta \log \pi_\theta(a_t^i \mid s_t^i)
#   \big(r(\tau^i) - b(s_t^i)\big)$$
#
# Does this change the objective? The same three lines, now with $b$ in the place of the past reward:
#
# $$\mathbb E\big[\nabla_\theta \log \pi_\theta(a_t \mid s_t)\, b(s_t)\big]
#   = \mathbb E_{s_t}\Big[b(s_t)\, \mathbb E_{a_t \sim \pi_\theta(\cdot \mid s_t)}
#   \big[\nabla_\theta \log \pi_\theta(a_t \mid s_t)\big]\Big] = 0$$
#
# $b$ comes out of the inner expectation **because it is the same for every action**. Do the inner sum yourself, exactly,
# for a number per action, so that you see what happens if it is not.

# %% ex="9.3" points=2 minutes=10 difficulty="medium"
def expected_push(pi, b):
    """The sum over the actions a of pi(a) b(a) grad log pi(a), the gradient taken in the logits of pi = softmax.

    pi (A,) probabilities, b (A,) one number per action -> (A,), one entry per logit.
    """
    # BEGIN SOLUTION
    scores = torch.eye(len(pi), dtype=pi.dtype) - pi  # row a: grad log pi(a)
    return (pi * b) @ scores
    # END SOLUTION

# %% ex="9.3" role="check"
expected_push = check("9.3", expected_push)

# %% [markdown] ex="9.3" role="hints"
# <details><summary>Hint 1</summary>The gradient of log pi(a) in logit k is 1 − pi(k) for k = a, and −pi(k) for the
# others.</details>
# <details><summary>Hint 2</summary>`torch.eye(A) - pi` has the gradient of log pi(a) in row a. Weigh the rows by
# pi(a) b(a) and add them up.</details>

# %%
state = world.cells.index((4, 3))  # the goal to the right, the pit above
pi = studies["untrained"].pi[state]
Q = action_values(mdp, horizon_values(mdp, studies["untrained"].pi, horizon)[1])[state]  # in the first step
V = pi @ Q
for name, b in (("a constant, −1.6", torch.full_like(Q, -1.6)), ("V(s)", V.expand_as(Q)), ("Q(s, a)", Q),
                ("A(s, a) = Q(s, a) − V(s)", Q - V)):  # fmt: skip
    push = expected_push(pi, b)
    print(f"b(a) = {name:26s} expected push on (up, right, down, left):",
          *(f"{number + 0.0:+.3f}" for number in push.round(decimals=9).tolist()))  # fmt: skip

# %% [markdown]
# **What you saw.** What is the same for all actions adds nothing. A number that depends on the action does: with
# $Q(s, a)$ it is the very gradient we are after, which a "baseline" $Q(s, a)$ would subtract, all of it. And $V(s)$ can
# be taken out of $Q(s, a)$ without changing a digit: what counts is the *advantage*.
#
# Now judge for yourself. Which of these may be subtracted from the reward-to-go at step $t$ without moving the mean of
# $\hat g$? Answer `True` or `False` for each; below, all of them are put to the test.
#
# | name | what is subtracted at step $t$ |
# |---|---|
# | `"value"` | $V_t(s_t)$, exact |
# | `"action value"` | $Q_t(s_t, a_t)$, exact |
# | `"next value"` | $V_{t+1}(s_{t+1})$, exact |
# | `"past rewards"` | the sum of the rewards before step $t$ |
# | `"steps left"` | the number of steps until the time limit |
# | `"length"` | the number of steps of this episode, known when it is over |
# | `"batch average"` | the average return of the batch of $N$ episodes, this one among them |

# %% ex="9.4" points=2 minutes=8 difficulty="medium"
# BEGIN SOLUTION
keeps_the_mean = {
    "value": True,
    "action value": False,
    "next value": False,
    "past rewards": True,
    "steps left": True,
    "length": False,
    "batch average": False,
}
# END SOLUTION

# %% ex="9.4" role="check"
keeps_the_mean = check("9.4", keeps_the_mean)

# %% [markdown] ex="9.4" role="hints"
# <details><summary>Hint 1</summary>`keeps_the_mean = {"value": ..., "action value": ..., ...}` with all seven names. Ask
# of each: at the moment before $a_t$ is drawn, is this number already fixed?</details>
# <details><summary>Hint 2</summary>Where an action leads, how long an episode gets and what it returns all depend on
# the action. In an average over the batch, one of the $N$ returns is the episode's own.</details>

# %%
V = horizon_values(small, small_pi, 5)
Q = torch.stack([action_values(small, after) for after in V[1:]])
past = total_return(every.rewards, every.mask) - reward_to_go(every.rewards, every.mask)
J = float(chance @ episode_returns(every.rewards, every.mask))
time, N = torch.arange(T), 4
next_value = torch.cat([along(V, every)[:, 1:], torch.zeros(len(chance), 1)], 1) * torch.cat(
    [every.mask[:, 1:], torch.zeros(len(chance), 1, dtype=torch.bool)], 1)  # 0 once the episode is over  # fmt: skip
baselines = {
    "value": along(V, every),
    "action value": Q[time, every.observations, every.actions],
    "next value": next_value,
    "past rewards": past,
    "steps left": (5.0 - time).double().expand_as(past),
    "length": every.mask.sum(1, keepdim=True).double().expand_as(past),
    # the other N - 1 episodes are independent of this one: only their mean, J, matters to the expectation
    "batch average": (episode_returns(every.rewards, every.mask)[:, None] + (N - 1) * J).expand_as(past) / N,
}

# %%
for name, b in baselines.items():
    found = expected_gradient((reward_to_go(every.rewards, every.mask) - b) * every.mask)
    error = float((found - truth).norm() / truth.norm())
    assert keeps_the_mean[name] == (error < 1e-10)
    print(f"{name:14s} the mean is off by {'0' if error < 1e-10 else f'{error:.0%} of the gradient'}")

# %% [markdown]
# **What you saw.** Fixed before the action is drawn: may be subtracted. The batch average is off by exactly $1/N$ of
# the gradient, here a quarter. That is the lecture's "simple choice", so look closer.
#
# ## The average return, and the episode's own share in it
# $b = \frac1N \sum_i r(\tau^i)$ contains $r(\tau^i)$ itself, which depends on $a_t^i$. For any batch,
#
# $$r(\tau^i) - \frac1N \sum_{j} r(\tau^j) = \Big(1 - \frac1N\Big)
#   \Big(r(\tau^i) - \underbrace{\tfrac{1}{N-1} \textstyle\sum_{j \neq i} r(\tau^j)}_{\text{leave one out}}\Big)$$
#
# The average over the *other* episodes knows nothing of this one, so it is a lawful baseline. The plain average gives the
# same estimate times $1 - 1/N$: the right direction, too short by a known factor.

# %% ex="9.5" points=2 minutes=8 difficulty="easy"
def leave_one_out(returns):
    """For each episode the average return of the others: a baseline that does not know its own sample.

    returns (B,) float, B at least 2 -> (B,) float.
    """
    # BEGIN SOLUTION
    return (returns.sum() - returns) / (len(returns) - 1)
    # END SOLUTION

# %% ex="9.5" role="check"
leave_one_out = check("9.5", leave_one_out)

# %% [markdown] ex="9.5" role="hints"
# <details><summary>Hint 1</summary>The sum over the others is the sum over all, minus one's own.</details>
# <details><summary>Hint 2</summary>How many others are there? Not `len(returns)`.</details>

# %%
returns = episode_returns(s.rollout.rewards, s.rollout.mask)
assert torch.allclose(leave_one_out(returns), policy_gradient.leave_one_out(returns))
share = {"average return": [], "leave-one-out": []}  # of the exact gradient that the mean estimate has
FEW = (2, 4, 8, 16)
for size in FEW:
    batch = torch.arange(len(returns)) // size
    for name, baseline in zip(share, (policy_gradient.mean_baseline, policy_gradient.leave_one_out)):
        weights = (returns - baseline(returns, groups=batch))[:, None] * s.rollout.mask
        estimates = in_batches(episode_gradients(s.rollout, weights, s.pi), size)
        share[name].append(with_interval(estimates @ s.gradient / signal))
    print(f"N = {size:2d}: 1 − 1/N = {1 - 1 / size:.3f}",
          *(f"{name} {e[-1].mean:.3f} ± {e[-1].mean - e[-1].low:.3f}" for name, e in share.items()), sep="   ")  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
for index, (name, found) in enumerate(share.items()):
    figures.curve(axes, FEW, found, name, index)
axes.plot(FEW, [1 - 1 / size for size in FEW], color="black", linewidth=0.8, label="1 − 1/N")
axes.axhline(1, color="gray", linestyle=":", linewidth=1)
axes.set(title="How much of ∇J the mean estimate has", xlabel="N, episodes in a batch", xscale="log",
         ylabel="component along ∇J / ‖∇J‖")  # fmt: skip
axes.set_xticks(FEW, FEW)
axes.minorticks_off()
axes.legend(fontsize=8)
ends = [found[place].mean for found in share.values() for place in (0, -1)]
show(figure, alt="Against the batch size: with the average return the estimate has {:.2f} of the gradient at N = 2 and "
     "{:.2f} at N = 16, on the curve 1 - 1/N; with leave-one-out {:.2f} and {:.2f}.".format(*ends))  # fmt: skip

# %% [markdown]
# **What you saw.** [C31] The plain average is biased, by exactly the factor $1 - 1/N$. (That all points lie a little
# high is one piece of luck, seen four times: the episodes are the same.) It is a harmless bias, and good to know by
# name: a smaller step in the same direction, and for an optimizer that rescales gradients, as Adam does, no difference
# at all. With $N = 4$ answers to a prompt, as in training a language model, it is a quarter.
#
# ## The best constant
# A constant $b$ keeps the mean, so it can be chosen for the variance alone. With $g = \nabla_\theta \log p_\theta(\tau)$,
# the *score* of an episode,
#
# $$N \,\mathrm{tr}\,\mathrm{Cov}\,\hat g = \mathbb E\big[\lVert g \rVert^2 (r(\tau) - b)^2\big]
#   - \lVert \nabla_\theta J \rVert^2, \qquad \text{a parabola in } b.$$
#
# Set its derivative to zero. Is the minimum at the mean return?

# %% ex="9.6" points=3 minutes=12 difficulty="medium"
def optimal_constant(scores, returns):
    """The constant baseline with the least total variance, estimated from episodes.

    scores (B, P) float, the gradient of log p(tau) of each episode; returns (B,) float -> scalar.
    """
    # BEGIN SOLUTION
    squared_norms = (scores**2).sum(1)
    return (squared_norms * returns).sum() / squared_norms.sum()
    # END SOLUTION

# %% ex="9.6" role="check"
optimal_constant = check("9.6", optimal_constant)

# %% [markdown] ex="9.6" role="hints"
# <details><summary>Hint 1</summary>The derivative in b of E[‖g‖² (r − b)²] is −2 E[‖g‖² (r − b)]. Where is it 0?</details>
# <details><summary>Hint 2</summary>A weighted average of the returns: each episode counts with the squared length of its
# score.</details>

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(7, 2.8))
for axes, (name, now) in zip(panels, studies.items()):
    returns = episode_returns(now.rollout.rewards, now.rollout.mask)
    scores = episode_gradients(now.rollout, now.rollout.mask.double(), now.pi)
    norms = (scores**2).sum(1)
    best_b = float(optimal_constant(scores, returns))
    assert math.isclose(best_b, policy_gradient.optimal_baseline(norms, returns))
    reach = max(abs(now.J), abs(best_b)) * 1.25
    grid = torch.linspace(min(0, now.J) - 0.15 * reach, max(0, now.J) + 0.35 * reach, 60)
    parabola = [float((norms * (returns - b) ** 2).mean() - now.gradient @ now.gradient) for b in grid]
    axes.plot(grid, parabola, color="black", linewidth=0.8, label="the formula")
    for index, (label, b) in enumerate({"no baseline": 0.0, "mean return J": now.J, "best constant": best_b}.items()):
        found = with_interval(squared_distances((returns - b)[:, None] * scores))
        axes.errorbar(b, found.mean, yerr=found.mean - found.low, color=figures.COLORS[index], capsize=3,
                      marker=figures.MARKERS[index], linestyle="", label=label)  # fmt: skip
        print(f"{name:10s} {label:14s} b = {b:6.3f}: total variance {found.mean:6.3f} ± {found.mean - found.low:.3f}")
    axes.set(title=f"policy: {name}", xlabel="b, the constant subtracted (return)", ylim=(0, None))
panels[0].set_ylabel("total variance of one episode")
panels[1].legend(fontsize=8)
show(figure, alt="For each policy the variance is a parabola in the constant; without a baseline it is high, at the "
     "mean return it is close to the minimum, which the best constant reaches.")  # fmt: skip

# %% [markdown]
# **What you saw.** For the untrained policy a constant takes away more than nine tenths of the variance; the mean return
# and the best constant can hardly be told apart. For the policy on its way they differ: episodes with long scores weigh
# more, and these are the long, poor ones, so the best constant lies below the mean return. Still the mean is a good
# choice, as the lecture says: near the bottom of a parabola it hardly matters where one stands.

# %% [markdown]
# ## What V has to do with the objective
# The lecture's concept check: **what is $\mathbb E_{s_1}[V^\pi(s_1)]$?** By definition $V^\pi(s)$ is the expected return
# from $s$ on. Sort the trajectories by their first state:
#
# $$J(\theta) = \sum_\tau p_\theta(\tau)\, r(\tau)
#   = \sum_{s} p(s_1 = s) \sum_{\tau : s_1 = s} p_\theta(\tau \mid s_1 = s)\, r(\tau)
#   = \mathbb E_{s_1}\big[V^\pi(s_1)\big]$$
#
# The left side by listing all trajectories, the right side by the backward recursion, with every free cell a start:

# %%
free = ~small.terminal
anywhere = replace(small, start=free.double() / free.sum())
from_anywhere, _, p = enumerate_trajectories(anywhere, chooser, 5)
returns = episode_returns(from_anywhere.rewards, from_anywhere.mask)
starts = from_anywhere.observations[:, 0]
values = horizon_values(anywhere, small_pi, 5)[0]
for state in free.nonzero()[:, 0].tolist():
    here = starts == state
    mean_return = float(p[here] @ returns[here] / p[here].sum())
    print(f"start {state}: mean return of its {int(here.sum())} trajectories {mean_return:+.12f}, "
          f"V = {values[state]:+.12f}")  # fmt: skip
print(f"J, over all {len(p):,} trajectories {p @ returns:+.12f}, E[V(s_1)] = {anywhere.start @ values:+.12f}")
assert abs(float(p @ returns - anywhere.start @ values)) < 1e-12

# %% [markdown]
# **What you saw.** [C32] They are the same number. So the mean return is a baseline that knows $V$ at one state, the
# start. $V_t(s_t)$ knows it everywhere: it asks not "was this a good episode?" but "was this better than expected *from
# here*?".
#
# ## All of them side by side
# Eight weights, each a line of arithmetic on the same episodes. The last one goes beyond the lecture's baselines: it
# also replaces the rewards that follow $s_{t+1}$ by what is expected of them: $r(s_t, a_t) + V(s_{t+1}) - V(s_t)$, the
# temporal difference (TD). With the *exact* $V$, which nobody has outside a lesson, this keeps the mean too; lesson 10
# learns $V$ instead.

# %%
def evidence(rollout, pi, values, groups):
    """What weights are made of: episodes, the policy's probabilities, exact values along the way, batches."""
    return SimpleNamespace(rollout=rollout, rewards=rollout.rewards, mask=rollout.mask, pi=pi, values=values,
                           groups=groups)  # fmt: skip


def less(baseline):
    """The episode's return minus a baseline, at every step."""

    def weights(e):
        returns = episode_returns(e.rewards, e.mask)
        return (returns - baseline(e, returns))[:, None] * e.mask

    return weights


def to_go_less(baseline):
    """The reward-to-go minus a baseline of that step."""

    def weights(e):
        to_go = reward_to_go(e.rewards, e.mask)
        return (to_go - baseline(e, to_go)) * e.mask

    return weights


def temporal_difference(e):
    """r + V(s') - V(s). At the goal, in the pit and at the time limit nothing follows: the V after the end is 0."""
    return advantage(e.rewards, e.values, e.mask, e.rewards.new_zeros(len(e.mask)), lam=0.0)


# %%
def nothing(e, returns):
    return 0.0


def average(e, returns):
    return policy_gradient.mean_baseline(returns, groups=e.groups)


def others(e, returns):
    """The average over the other episodes of the batch; step by step, over those that are still on their way."""
    return policy_gradient.leave_one_out(returns, e.mask if returns.dim() == 2 else None, e.groups)


def constant(e, returns):
    return optimal_constant(episode_gradients(e.rollout, e.mask.to(e.pi.dtype), e.pi), returns)


def value(e, returns):
    return e.values


ESTIMATORS = {
    "total return": less(nothing), "return − average": less(average), "return − leave-one-out": less(others),
    "return − best constant": less(constant), "reward-to-go": to_go_less(nothing),
    "to-go − leave-one-out": to_go_less(others), "to-go − exact V": to_go_less(value),
    "TD, exact V": temporal_difference,
}  # fmt: skip

# %% [markdown]
# For each weight: the gradients of all batches; the bias test, its bar raised once more for eight weights; and the part
# of $\nabla_\theta J$ that the mean estimate has.

# %%
estimates = {name: {} for name in studies}
for policy_name, now in studies.items():
    e = evidence(now.rollout, now.pi, now.values, groups)
    for name, weigh in ESTIMATORS.items():
        estimates[policy_name][name] = in_batches(episode_gradients(now.rollout, weigh(e), now.pi), args.batch)
found, exact = estimates["untrained"], studies["untrained"].gradient
for name, gradients in found.items():
    largest, threshold = bias_test(gradients, exact, tests=len(found))
    along_exact = with_interval(gradients @ exact / (exact @ exact))
    print(f"{name:23s} part of ∇J {along_exact.mean:.3f} ± {along_exact.mean - along_exact.low:.3f}   largest |z| "
          f"{largest:4.1f}  {'biased' if largest > threshold else 'no bias seen'} (threshold {threshold:.1f})")  # fmt: skip
short = (1 - 1 / args.batch) * found["return − leave-one-out"]
assert torch.allclose(found["return − average"], short)  # the factor 1 - 1/N, batch by batch

# %% [markdown]
# Now the noise. All weights see the same batches, so a ratio of two variances is resampled (bootstrapped) with both of
# them on the same batches; its interval is much narrower than those of the variances themselves.

# %%
def bootstrapped(numerator, denominator, draws=400):
    """The ratio of two means over the same batches, with its 95 % bootstrap interval."""
    generator = torch.Generator().manual_seed(args.seed)
    rows = torch.randint(len(numerator), (draws, len(numerator)), generator=generator)
    low, high = (numerator[rows].mean(1) / denominator[rows].mean(1)).quantile(torch.tensor([0.025, 0.975]).double())
    return Estimate(float(numerator.mean() / denominator.mean()), float(low), float(high), len(numerator))


spread = {policy_name: {name: squared_distances(gradients) for name, gradients in of_policy.items()}
          for policy_name, of_policy in estimates.items()}  # fmt: skip
print(f"{'total variance, batches of ' + str(args.batch):31s}", *(f"{name:28s}" for name in spread))
for name in ESTIMATORS:
    cells = [f"{float(of_policy[name].mean()):7.4f} × {bootstrapped(of_policy[name], of_policy['total return']).mean:<5.3f}"
             for of_policy in spread.values()]  # fmt: skip
    print(f"{name:31s}", *(f"{cell:28s}" for cell in cells))

# %%
LADDER = ("total return", "reward-to-go", "to-go − leave-one-out", "to-go − exact V", "TD, exact V")
figure, panels = pyplot.subplots(1, 2, figsize=(8.2, 2.6), sharey=True)
for axes, (policy_name, of_policy) in zip(panels, spread.items()):
    steps = [bootstrapped(of_policy[after], of_policy[before]) for before, after in zip(LADDER, LADDER[1:])]
    figures.variance_bars(axes, LADDER, [with_interval(of_policy[name]) for name in LADDER], steps)
    axes.set(title=f"policy: {policy_name}", xlabel=f"total variance, batches of {args.batch}", xlim=(0.01, 500))
    for name, step in zip(LADDER[1:], steps):
        print(f"{policy_name:10s} {name:22s} × {step.mean:.3f} [{step.low:.3f}, {step.high:.3f}] of the one above")
    pair = bootstrapped(of_policy["to-go − exact V"], of_policy["return − best constant"])
    print(f"{policy_name:10s} {'to-go − exact V':22s} × {pair.mean:.3f} [{pair.low:.3f}, {pair.high:.3f}] "
          "of return − best constant")  # fmt: skip
figure.tight_layout()
listed = {policy_name: ", ".join(f"{float(of_policy[name].mean()):.2g}" for name in LADDER)
          for policy_name, of_policy in spread.items()}  # fmt: skip
show(figure, alt="Bars of total variance on a log axis, from the total return down to TD with exact V. Untrained policy: "
     f"{listed['untrained']}. Policy on its way: {listed['on its way']}.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C30, C31] Only the plain average shows a bias, the one with a name; that it looks quieter than
# leave-one-out is the same shrinking, $(1 - 1/8)^2$. At the untrained policy every rung of the ladder has less noise than
# the one above, with intervals far from 1. Two things are not on the lecture's slides:
#
# - **Reward-to-go alone can make it worse.** For the policy on its way it has *more* variance than the total return. What
#   was dropped, the cost of the way so far, is negative, and what is left, the goal, is positive: the two partly
#   cancelled, and without the past the late steps carry weights near 1. Dropping a zero-mean term removes noise only
#   where that term did not work as a baseline by accident. With a real baseline the problem is gone.
# - **The exact $V$ is not the quietest baseline**, only the natural one. What counts is the weight times the length of
#   its score, and for the policy on its way a single well-chosen constant, taken from the total return, is a little
#   quieter (last line).
#
# The large step is the last. TD does not wait for the luck of all later steps: it asks $V$ what they are worth. It needs
# $V$ exactly to keep the mean, and to have less than that is the subject of lesson 10.

# %% [markdown]
# ## What less noise buys
# The same learner, eight times; only the weights differ. Batches of 32 episodes, Adam, ten seeds each, and after every
# update the **exact** expected return of the policy, so that the curves show learning and not luck in evaluation. The
# eighty runs take about twenty seconds.

# %%
LEARNING_BATCH, LR = 32, 0.12
one_group = torch.zeros(LEARNING_BATCH, dtype=torch.long)


def learn(weigh, seed, mdp=mdp, lr=LR):
    """Train a fresh policy; the exact expected return before each update and at the end."""
    policy, reached = TabularPolicy(mdp.states, mdp.actions).double(), []

    def weights(rollout, *_):
        pi = probabilities(mdp, policy).detach()
        values = horizon_values(mdp, pi, horizon)  # of the present policy, exactly
        reached.append(float(mdp.start @ values[0]))
        return weigh(evidence(rollout, pi, along(values, rollout), one_group))

    def sample(policy, generator):
        return collect(mdp, policy, LEARNING_BATCH, horizon=horizon, generator=generator)

    train_policy(policy, sample, weights, updates=args.updates, lr=lr, seed=seed)
    return [*reached, float(objective(mdp, probabilities(mdp, policy).detach(), horizon))]


curves = {}
for name, weigh in progress(ESTIMATORS.items(), "training"):
    curves[name] = torch.tensor([learn(weigh, args.seed + run) for run in range(args.runs)])

# %%
episodes = [LEARNING_BATCH * update for update in range(args.updates + 1)]
print(f"best return {best:.2f}; 95 % of it: {0.95 * best:.3f}")
for name, runs in curves.items():
    there = runs >= 0.95 * best
    first = sorted(episodes[int(run.int().argmax())] if run.any() else math.inf for run in there)
    middle = statistics.median(first)
    print(f"{name:23s} {int(there[:, -1].sum()):2d} of {len(runs)} seeds end there; median "
          f"{f'{middle:5.0f}' if middle < math.inf else '>' + str(episodes[-1])} episodes; "
          f"final return {runs[:, -1].mean():.3f}, worst seed {runs[:, -1].min():.3f}")  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.3))
for index, name in enumerate(LADDER):
    figures.learning_curves(axes, episodes, best - curves[name], name, index)
axes.axhline(0.05 * best, color="black", linestyle=":", linewidth=1)
axes.text(0, 0.045 * best, "95 % of best", va="top", fontsize=8)
axes.set(title="The same learner, five weights", xlabel="episodes so far", yscale="log",
         ylabel="best return − expected return", ylim=(0.003, 4))  # fmt: skip
axes.legend(fontsize=8, loc="upper right")
middle = [float((best - curves[name][:, args.updates // 2]).mean()) for name in LADDER]
show(figure, alt="What is missing from the best return against episodes, ten seeds each. Half-way through the means are "
     f"{', '.join(f'{missing:.3f} ({name})' for name, missing in zip(LADDER, middle))}.")  # fmt: skip

# %% [markdown]
# **What you saw.** Less noise is faster learning: the curves come in the order of the bars, the two baselines alike. With
# any baseline all seeds end above 95 % of the best return; the total return and the reward-to-go alone leave seeds
# behind. Three details:
#
# - *Average* and *leave-one-out* give the same numbers: Adam divides every gradient by its size, and a factor of
#   $1 - 1/32$ goes with it.
# - Among the baselines the learner hardly tells the difference. The least variance at one policy is not the fastest way
#   through all of them.
# - TD with the exact $V$ has a twentieth of the noise at the start, under a third of it later on, and needs about half
#   of the episodes: when the noise is gone, the step size limits the pace. An actor–critic tries to keep as much of this as a learned $V$ allows.
#
# And the lecture's own rewards, 1 at the star, −1 in the pit and nothing on the way? The same learner, a leave-one-out
# baseline:

# %%
lecture = GridWorld("default").to_mdp()
runs = torch.tensor([learn(ESTIMATORS["return − leave-one-out"], args.seed + run, lecture, 0.1)
                     for run in range(args.runs)])  # fmt: skip
print(f"best return 1.00; {int((runs[:, -1] >= 0.95).sum())} of {args.runs} seeds end above 0.95, "
      f"the worst at {runs[:, -1].min():.3f}")  # fmt: skip

# %% [markdown]
# ## Recap
# - $\hat g$ is unbiased and noisy: its variance falls as $1/N$ from a high start, thousands of times the signal here.
# - Whatever is fixed before $a_t$ is drawn can be taken from the weight at $t$ without moving the mean: past rewards, a
#   constant, other episodes, $V(s_t)$. What depends on $a_t$ moves it.
# - The average over the batch contains the sample itself: the factor $1 - 1/N$. Leave it out, or know it.
# - Reward-to-go helps where rewards come along the way, together with a baseline; it does nothing where only the end pays.
# - The mean return is close to the best constant. $V(s_t)$ knows where the episode stands; $r + V(s_{t+1}) - V(s_t)$
#   also knows where it is going, and is the quietest by far.
# - $\mathbb E_{s_1}[V(s_1)]$ is the objective.
#
# ## Try next
# - `--step-reward 0`: the lecture's world all through. Which rungs of the ladder become one? Why does leave-one-out buy
#   nothing for the untrained policy there?
# - `--batch 2`: what does leave-one-out cost when there is one other episode? Compare *return − best constant*.
# - In `learn`, set `lr=0.2` and `LEARNING_BATCH = 16`. On some seed a baseline may stop learning for good: when every
#   episode of a batch fails alike, return minus average is 0 everywhere, and nothing moves. Plain REINFORCE, which
#   pushes down what it did, gets away.
#
# ## References
# - Williams (1992), *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*.
# - Greensmith, Bartlett & Baxter (2004), *Variance Reduction Techniques for Gradient Estimates in Reinforcement Learning*.
# - Sutton & Barto (2018), *Reinforcement Learning: An Introduction*, sections 13.3–13.4.
# - Schulman et al. (2016), *High-Dimensional Continuous Control Using Generalized Advantage Estimation*.
# - Kool, van Hoof & Welling (2019), *Buy 4 REINFORCE Samples, Get a Baseline for Free!*
# - Ahmadian et al. (2024), *Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in
#   LLMs*.
