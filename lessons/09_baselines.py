# Lesson 09: baselines. jupytext py:percent; runs as a script: python lessons/09_baselines.py --help

# %% [markdown]
# # 09 · Baselines: the same gradient with less noise
#
# REINFORCE points the right way on average and shakes badly around it. In this lesson you change one number per step,
# the weight in front of $\nabla_\theta \log \pi_\theta$; you prove which changes leave the average alone, each line of
# the proof checked by listing everything that can happen; and you measure, beside the exact gradient, how much noise
# each change removes and what that is worth in training. At the end stands a contest: a weight of your own.
# *(Lecture: "Challenges in policy gradient", "Reducing variance: use reward-to-go" and "subtract a baseline"; claims
# C29–C32.)* About 175 minutes, of which 144 for the exercises; runs in 60 s on two CPU cores.
#
# **You will need** lesson 08: the REINFORCE estimator and the exact gradient it is held against. **You will be able to**
# measure bias and variance of an estimator, prove in three lines which weights keep the policy gradient unbiased, and
# choose a baseline knowing what it costs and what it buys.

# %% [markdown]
# ## Predict first
# Type your guesses over the dots before you run anything else; each is shown beside what you measure. An empty guess
# breaks nothing.
#
# 1. REINFORCE multiplies all steps of an episode by the same return. You give every step only the rewards that come
#    *after* it. For an untrained policy, **how much of the variance is left** in a world where every step costs a
#    little? And in the lecture's,
#    where only the end of the episode pays?
# 2. From every return of a batch of 2 episodes you subtract the batch's average. **How much of the gradient does the
#    mean estimate still have?** 1 would be unbiased.
# 3. Of all the constants that can be subtracted from the return, **has the mean return the least variance: "yes" or
#    "no"?**
# 4. Less noise, fewer episodes. Of eight weights, from plain REINFORCE to the quietest: **how many times fewer episodes
#    does the quietest need to 95 % of the best return** than REINFORCE with a batch-average baseline?

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

from ptlearn.course.predictions import predict

guesses = predict(
    left_where_steps_cost=...,  # a share of the variance
    left_where_only_the_end_pays=...,  # a share of the variance
    gradient_left_by_the_average_of_2=...,  # a share of the gradient
    mean_return_is_the_best_constant=...,  # "yes" or "no"
    episodes_saved_by_the_quietest=...,  # times as few
)

# %% [markdown]
# In a notebook, change a knob by changing its default in the next cell (`batch=(8, …`), then run all cells again.

# %%
import math
import statistics
from dataclasses import replace
from types import SimpleNamespace

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.policy_gradient import episode_returns, total_return
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.training import train_policy
from ptlearn.statistics import over_seeds, ratio

args = arguments(
    "Variance of the policy gradient: reward-to-go, baselines, TD with exact values.",
    step_reward=(-0.04, "the reward of a step that does not end the episode"),
    horizon=(40, "the time limit, in steps", "at least 20"),
    batch=(8, "episodes in a batch", "at least 2"),
    batches=(10_000, "batches that each estimator is measured on", "at least 200"),
    updates=(90, "gradient steps of each training run", "at least 1"),
    runs=(6, "training runs of each estimator, one seed each", "at least 2"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would wait for the first


def seeded(seed=0):
    """A generator for one measurement: a cell that is run again gives the same again."""
    return torch.Generator().manual_seed(args.seed + seed)


# %% [markdown]
# ## The world, and two policies
# The default map: 5 × 5 cells, a star `G` that pays 1 and a pit `X` that pays −1. Every other step pays −0.04, so that
# time matters, and after 40 steps the episode is over. Two policies to measure at: the *untrained* one, every action
# equally likely, and one *on its way*, after fifteen steps up the **exact** gradient.

# %%
grid, horizon = GridWorld("default", step_reward=args.step_reward), args.horizon
world = grid.to_mdp()
print(*grid.map, sep="\n")


def on_its_way(steps):
    """A table policy after some steps of Adam on the exact objective: nothing is sampled."""
    policy = TabularPolicy(world.states, world.actions).double()
    adam = torch.optim.Adam(policy.parameters(), lr=0.1)
    for _ in range(steps):
        adam.zero_grad()
        (-mdp.objective(world, mdp.probabilities(world, policy), horizon)).backward()
        adam.step()
    return policy


policies = {"untrained": on_its_way(0), "on its way": on_its_way(15)}
best = float(world.start @ mdp.value_iteration(world))

# %% [markdown]
# For each policy: many episodes, and beside them what is exact. The limit of 40 steps is part of the task here: when it
# is reached nothing follows, and so a value depends on the time. $V_t(s)$ is the expected sum of the rewards from step
# $t$ to the last, as in the lecture's sum up to $T$. (In lesson 10 the limit is only where we stop *watching* a task
# that goes on. An episode that was cut off is then worth what its last state is worth, and one $V(s)$ serves all times,
# which is what a critic can learn.)

# %%
def along(values, rollout):
    """The values (horizon + 1, S) at the time and state of every step: (B, T)."""
    return values[torch.arange(rollout.mask.shape[1]), rollout.observations]


def study(policy, episodes):
    """Episodes of a policy, and its exact probabilities, values and gradient."""
    pi = mdp.probabilities(world, policy).detach()
    values = mdp.horizon_values(world, pi, horizon)
    rollout, _ = collect(world, policy, episodes, horizon=horizon, generator=seeded())
    gradient = mdp.exact_gradient(world, policy, horizon)
    return SimpleNamespace(pi=pi, values=values, rollout=rollout, gradient=gradient)


def gradients(rollout, weights, pi):
    """For each episode the sum over t of weight times grad log pi(a_t | s_t): (B, S * A)."""
    states, actions = rollout.observations, rollout.actions
    return mdp.episode_gradients(pi, states, actions, weights).flatten(1)


studies = {name: study(policy, args.batch * args.batches) for name, policy in policies.items()}

# %% tags=["again"]
print(f"the best policy's expected return is {best:.2f}")
for name, now in studies.items():
    ends = now.rollout.terminated.double().mean()
    print(f"{name:10s} expected return {world.start @ now.values[0]:+.2f}; {ends:.0%} of "
          f"{len(now.rollout.mask):,} episodes reach star or pit; an episode has "
          f"{now.rollout.mask.sum(1).double().mean():.1f} steps on average")  # fmt: skip

# %% [markdown]
# ## Right on average, wrong every time
# The lecture's estimator,
#
# $$\hat g = \frac1N \sum_{i=1}^N \Big(\sum_{t=1}^T \nabla_\theta \log \pi_\theta(a_t^i \mid s_t^i)\Big)
#   \sum_{t=1}^T r(s_t^i, a_t^i)$$
#
# is a random variable: another batch, another $\hat g$. How good is it? Three numbers. Its **variance**: for a vector the
# *trace of the covariance*, the sum of its parameters' variances, which is the mean squared distance of an estimate from
# the mean estimate. Its **share** of the gradient, $\langle \text{mean}, \nabla J \rangle / \lVert \nabla J \rVert^2$: 1 if
# nothing is lost along the true direction. And the largest $|z|$: lesson 08's distance between mean and truth in
# standard errors, of the parameter that is worst. You start from the gradient of each single episode, one per row,
# which `gradients` makes with the closed form of 8.7.

# %% ex="9.1" title="Measuring an estimator" points=3 difficulty="medium" minutes=14
def measure(gradients, size, exact):
    """What an estimator that averages `size` episodes does, on average and around it: a dict.

    "estimates", the mean gradient of each batch of `size` rows that follow each other (M, P),
    a rest that fills no batch left out; "variance", the trace of their unbiased covariance;
    "share", of `exact` that their mean has along it; "z", the largest |z| over the parameters
    whose estimates are not all the same.

    gradients (B, P) float, one episode a row; size, a whole number; exact (P,) float.
    """
    # BEGIN SOLUTION
    count = len(gradients) // size
    estimates = gradients[: count * size].reshape(count, size, -1).mean(1)
    mean = estimates.mean(0)
    variances = ((estimates - mean) ** 2).sum(0) / (count - 1)
    moving = variances > 0
    z = (mean - exact)[moving] / (variances[moving] / count).sqrt()
    return {
        "estimates": estimates,
        "variance": variances.sum(),
        "share": (mean @ exact) / (exact @ exact),
        "z": z.abs().max(),
    }
    # END SOLUTION

# %% ex="9.1" role="check"
measure = check("9.1", measure)

# %% [markdown] ex="9.1" role="hints"
# <details><summary>Hint 1</summary>Batches first: cut the rest off, <code>reshape(count, size, -1)</code>, mean over the
# middle dimension. All that follows is about these <code>count</code> estimates.</details>
# <details><summary>Hint 2</summary>Variances go down the columns and are divided by count − 1; the standard error of a
# mean is the root of variance / count. A parameter of a state where nobody acts never moves: leave it out of z, or you
# divide by 0.</details>

# %%
def distances(found):
    """Each estimate's squared distance from their mean; the mean of these is the variance."""
    deviations = found["estimates"] - found["estimates"].mean(0)
    return (deviations**2).sum(1) * len(deviations) / (len(deviations) - 1)


def threshold(exact, tests):
    """What |z| exceeds at no parameter, in at least 95 of 100 such families of tests."""
    return statistics.NormalDist().inv_cdf(1 - 0.025 / (tests * int((exact != 0).sum())))


s, SIZES = studies["untrained"], (1, 2, 4, 8, 16, 32, 64, 128)
reinforce = gradients(s.rollout, total_return(s.rollout.rewards, s.rollout.mask), s.pi)

# %% tags=["again"]
signal, noise = float(s.gradient @ s.gradient), []
for size in SIZES:
    found = measure(reinforce, size, s.gradient)
    noise.append(over_seeds(distances(found)))
    margin = size * (noise[-1].high - noise[-1].mean)
    cosine = torch.cosine_similarity(found["estimates"], s.gradient[None]).mean()
    print(f"N = {size:3d}: variance {found['variance']:8.3f}, N × variance "
          f"{size * found['variance']:.1f} ± {margin:.1f}, mean cosine with ∇J {cosine:.2f}")
print(f"‖∇J‖² = {signal:.4f}: noise and signal are equal at N = {noise[0].mean / signal:,.0f}")
found = measure(reinforce, args.batch, s.gradient)
print(f"{args.batches:,} batches of {args.batch}: share of ∇J {found['share']:.2f}, "
      f"largest |z| {found['z']:.1f}, by chance up to {threshold(s.gradient, 1):.1f}")

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
figures.curve(axes, SIZES, noise, "variance, measured")
axes.plot(SIZES, [noise[0].mean / size for size in SIZES], color="black", label="1/N law")
axes.axhline(signal, color=figures.COLORS[1], linestyle="--", label="‖∇J‖², the signal")
axes.set(xlabel="N, episodes in a batch", ylabel="trace of the covariance")
axes.set(title="REINFORCE, untrained policy", xscale="log", yscale="log")
axes.set_xticks(SIZES, SIZES)
axes.legend(fontsize=8)
show(figure, alt=f"Variance against batch size on log axes: from {noise[0].mean:.0f} at N = 1 "
     f"to {noise[-1].mean:.2f} at 128, along the 1/N law; the signal is {signal:.4f}.")

# %% [markdown]
# **What you saw.** [C29] No bias is seen, and the variance follows $1/N$. But there is a lot of it: a batch of 128
# episodes still points hardly at all in the right direction, and averaging alone would take thousands of episodes *per
# gradient step*. The other way is to change what is averaged.
#
# ## Three lines that allow it
# Multiply out the two sums of $\hat g$: there is a term $\nabla_\theta \log \pi_\theta(a_t \mid s_t)\, r(s_{t'}, a_{t'})$
# for every pair of times. Take $t' < t$, a reward from *before* the action, or anything else that is already fixed when
# $a_t$ is drawn; call it $b$. All that came before, $s_1, a_1, \dots, s_t$, is the **prefix** of step $t$. Sum over the
# prefixes, and for each one over the actions:
#
# $$\begin{aligned}
# \mathbb E\big[\nabla_\theta \log \pi_\theta(a_t \mid s_t)\, b\big]
#  &= \sum_{\text{prefixes}} p(\text{prefix}) \sum_{a} \pi_\theta(a \mid s_t)\,
#     \nabla_\theta \log \pi_\theta(a \mid s_t)\, b && (1)\ \text{first the prefix, then the action}\\
#  &= \sum_{\text{prefixes}} p(\text{prefix})\; \sum_{a} \nabla_\theta \pi_\theta(a \mid s_t)\, b
#     && (2)\ \pi\, \nabla \log \pi = \nabla \pi\\
#  &= \sum_{\text{prefixes}} p(\text{prefix})\; b\; \nabla_\theta \underbrace{\textstyle\sum_{a} \pi_\theta(a \mid s_t)}_{=\,1}
#     \;=\; 0 && (3)\ b \text{ is the same for every action.}
# \end{aligned}$$
#
# Do it, exactly, in a world of six cells, `S.G` over `..X`, where steps cost 0.25 (dear, so that the past can be seen)
# and an episode has five at most. First the prefixes.

# %% ex="9.2" title="All prefixes" points=2 difficulty="medium" minutes=13
def prefixes(world, pi, horizon):
    """Every way to come to a step: a list of tuples (t, chance, state, past), t from 0.

    chance, the probability of the prefix s_0, a_0, ..., s_t; state, its s_t, not terminal;
    past, the sum of the rewards on the way. Impossible ones, of chance 0, may be left out.

    world: .start (S,) and .P (S, A, S) probabilities, .R (S, A, S) rewards, .terminal (S,)
    bool; pi (S, A) probabilities; horizon, the number of steps.
    """
    # BEGIN SOLUTION
    found, now = [], [(float(p), s, 0.0) for s, p in enumerate(world.start)]
    for t in range(horizon):
        now = [(p, s, past) for p, s, past in now if p > 0 and not world.terminal[s]]
        found += [(t, *prefix) for prefix in now]
        longer = []
        for p, s, past in now:
            for a, after in world.P[s].nonzero().tolist():
                chance = p * float(pi[s, a] * world.P[s, a, after])
                longer.append((chance, after, past + float(world.R[s, a, after])))
        now = longer
    return found
    # END SOLUTION

# %% ex="9.2" role="check"
prefixes = check("9.2", prefixes)

# %% [markdown] ex="9.2" role="hints"
# <details><summary>Hint 1</summary>Keep a list of the prefixes of the present step. Each becomes one longer prefix for
# every action and every state that it can lead to: multiply its chance by <code>pi[s, a] * P[s, a, after]</code>, add
# <code>R[s, a, after]</code> to its past.</details>
# <details><summary>Hint 2</summary>Drop prefixes that have come to a terminal state *before* you note those of a step:
# nobody acts there. <code>world.P[s].nonzero().tolist()</code> lists the pairs [action, next state] that are
# possible.</details>

# %% [markdown]
# Now the lines, for all prefixes at once. So that you see what goes wrong where $b$ *does* depend on the action, it gets
# a number for each: row $k$ of `b` belongs to prefix $k$, and what is fixed before the action has a row of equal numbers.

# %% ex="9.3" title="The proof, line by line" points=3 difficulty="hard" minutes=16
def proof(pi, chances, states, b):
    """What lines (1) and (2) are made of, a dict; gradients are by the logits of a softmax.

    "scores" (K, A, A), at [k, a] the gradient of log pi(a | s_k) by the A logits of s_k;
    "grad_pi" (K, A, A), the same of pi(a | s_k); "inner" (K, A), for each prefix the sum
    over the actions in line (2); "mean" (S, A), the sum over the prefixes, in s_k's row.

    pi (S, A) probabilities; chances (K,) of the prefixes; states (K,) int, their last states;
    b (K, A), what is in the place of b if that action is drawn.
    """
    # BEGIN SOLUTION
    here = pi[states]
    scores = torch.eye(pi.shape[1], dtype=pi.dtype) - here[:, None, :]
    grad_pi = here[:, :, None] * scores
    inner = (b[:, :, None] * grad_pi).sum(1)
    mean = torch.zeros_like(pi)
    for chance, state, push in zip(chances, states, inner):
        mean[state] += chance * push
    return {
        "scores": scores,
        "grad_pi": grad_pi,
        "inner": inner,
        "mean": mean,
    }
    # END SOLUTION

# %% ex="9.3" role="check"
proof = check("9.3", proof)

# %% [markdown] ex="9.3" role="hints"
# <details><summary>Hint 1</summary>The score is lesson 08's: one-hot(a) minus pi(· | s), a row for every action a, so
# <code>torch.eye(A) - pi[s]</code>. The gradient of pi(a | s) is pi(a | s) times it.</details>
# <details><summary>Hint 2</summary>With <code>here = pi[states]</code>, (K, A), <code>here[:, :, None]</code> multiplies
# the rows a and <code>here[:, None, :]</code> is subtracted from each of them. Many prefixes end in the same state: add
# them up, in a loop or with <code>index_add_</code>.</details>

# %%
LIMIT = 5
small = GridWorld("small", step_reward=-0.25).to_mdp()
chooser = TabularPolicy(small.states, small.actions).double()
torch.nn.init.normal_(chooser.logits, std=0.7, generator=seeded())
small_pi = mdp.probabilities(small, chooser).detach()
truth = mdp.exact_gradient(small, chooser, LIMIT)
listed = torch.tensor(prefixes(small, small_pi, LIMIT), dtype=torch.float64)
(times, states), (chances, past) = listed[:, [0, 2]].long().T, listed[:, [1, 3]].T
V = mdp.horizon_values(small, small_pi, LIMIT)
Q = torch.stack([mdp.action_values(small, after) for after in V[1:]])

# %% tags=["again"]
print(f"{len(chances):,} prefixes")
print("b                     largest |Σ_a ∇π|   largest |inner sum|   |mean| / |∇J|")
kinds = {"a number, −1.6": torch.full_like(past, -1.6), "the rewards before t": past,
         "V_t(s_t)": V[times, states], "Q_t(s_t, a)": Q[times, states]}  # fmt: skip
for name, b in kinds.items():
    b = b if b.ndim == 2 else b[:, None].expand(-1, small.actions)
    parts = proof(small_pi, chances, states, b)
    line_3, line_2 = parts["grad_pi"].sum(1).abs().max(), parts["inner"].abs().max()
    shown = [line_3, line_2, parts["mean"].norm() / truth.norm()]
    print(f"{name:22s}" + "".join(f"{float(x) if x > 1e-12 else 0:<22.3g}" for x in shown))
print(f"with Q, mean − ∇J: {(parts['mean'].flatten() - truth).norm() / truth.norm():.0e}")

# %% [markdown]
# **What you saw.** What is the same for all actions adds nothing, and not by luck in the sum over prefixes: it is gone
# prefix by prefix, because probabilities sum to 1 whatever the logits are. A number that depends on the action stays,
# and with $Q_t(s_t, a)$ the mean is the very gradient we are after.
#
# Now look at single terms $\nabla_\theta \log \pi_\theta(a_t \mid s_t)\, r(s_{t'}, a_{t'})$. Here all trajectories are
# listed, as in lesson 08.

# %%
every, _, chance = mdp.enumerate_trajectories(small, chooser, LIMIT)


def expected_gradient(weights):
    """The exact mean of the estimator with these weights (trajectories, T)."""
    return chance @ gradients(every, weights, small_pi)


mean, size = torch.zeros(2, LIMIT, LIMIT)
for t in range(LIMIT):
    step = (torch.arange(LIMIT) == t) & every.mask
    scores = gradients(every, step.double(), small_pi)
    for j in range(LIMIT):
        term = scores * every.rewards[:, j : j + 1]
        mean[t, j] = (chance @ term).norm()
        size[t, j] = (chance @ term.square().sum(1)).sqrt()

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(6.6, 3.1), sharey=True, layout="constrained")
titles = ("length of the mean", "size (root mean square)")
for axes, numbers, title in zip(panels, (mean, size), titles):
    axes.imshow(numbers.numpy(), cmap="cividis", vmin=0)
    for place in range(LIMIT**2):
        (t, j), number = divmod(place, LIMIT), numbers.flatten()[place]
        ink = "white" if number < numbers.max() / 2 else "black"
        axes.text(j, t, f"{number:.2f}", ha="center", va="center", fontsize=8, color=ink)
    axes.set(title=title, xlabel="$t'$, time of the reward")
    axes.set_xticks(range(LIMIT), range(1, LIMIT + 1))
    axes.set_yticks(range(LIMIT), range(1, LIMIT + 1))
panels[0].set_ylabel("$t$, time of the action")
term = r"The term $\nabla_\theta \log \pi_\theta(a_t \mid s_t)\ r(s_{t'}, a_{t'})$"
figure.suptitle(term, fontsize=11)
below = float(size.tril(-1).max())
show(figure, alt="Two 5 by 5 tables over the times of action and reward. Below the diagonal, "
     f"where the reward came first, the mean is 0.00 everywhere, the size up to {below:.2f}.")

# %% [markdown]
# **What you saw.** Below the diagonal, where the reward came first, there is noise and nothing else: the mean is 0 and
# the size is not. On and above it the action has its say. (The very first step costs the same wherever it goes.)
#
# ## Reward-to-go
# So all terms with $t' < t$ can go; what stays at step $t$ is the **reward-to-go**. With a discount the same three lines
# say more. The objective is $J = \mathbb E[\sum_{t'} \gamma^{t'} r_{t'}]$, $t'$ counted from 0, so a step keeps
# $\sum_{t' \ge t} \gamma^{t'} r_{t'}$, and
#
# $$\nabla_\theta J = \mathbb E\Big[\sum_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)\; \gamma^t\, G_t\Big],
#   \qquad G_t = \sum_{t' \ge t} \gamma^{t' - t}\, r_{t'}.$$
#
# The factor $\gamma^t$ in front belongs to it: what an action does later in the episode counts less in $J$. Write $G_t$,
# **without** the factor; where it is wanted, we multiply by it.

# %% ex="9.4" title="Reward-to-go" points=2 difficulty="easy" minutes=8
def reward_to_go(rewards, mask, gamma=1.0):
    """G_t, the sum of gamma^(t' - t) r_t' over t' from t to the end of the episode.

    rewards (B, T) float, mask (B, T) bool -> (B, T) float, 0 where mask is False.
    """
    # BEGIN SOLUTION
    returns, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = torch.where(mask[:, t], rewards[:, t] + gamma * running, running)
        returns[:, t] = running * mask[:, t]
    return returns
    # END SOLUTION

# %% ex="9.4" role="check"
reward_to_go = check("9.4", reward_to_go)

# %% [markdown] ex="9.4" role="hints"
# <details><summary>Hint 1</summary>Walk backwards: the return at t is the reward at t plus gamma times the return at
# t + 1.</details>
# <details><summary>Hint 2</summary>What stands behind an episode's end is padding: it must neither earn anything nor
# pass anything on, whatever the numbers there are.</details>

# %% tags=["again"]
rewards, mask = s.rollout.rewards, s.rollout.mask
ends = rewards * (rewards.abs() == 1)
for name, paid in {"where_steps_cost": rewards, "where_only_the_end_pays": ends}.items():
    weights = total_return(paid, mask), reward_to_go(paid, mask)
    variances = [gradients(s.rollout, w, s.pi).var(0).sum() for w in weights]
    print(f"variance of one episode {variances[0]:.3f} with the total return, "
          f"{variances[1]:.3f} with the reward-to-go")  # fmt: skip
    guesses.reveal(f"left_{name}", float(variances[1] / variances[0]))
exact = expected_gradient(reward_to_go(every.rewards, every.mask))
print(f"six cells, all trajectories: mean − ∇J {(exact - truth).norm() / truth.norm():.0e}")

# %% [markdown]
# **What you saw.** [C30] The mean stays, and where each step costs the untrained policy's variance falls by more than
# half. In the lecture's own world only the end pays; reward-to-go *is* the total return there, and nothing changes. The
# same holds for a language model that is judged once, at the end of its answer (lesson 12).
#
# Does it always help where rewards come along the way? A total return is a sum, $\text{past} + \text{to go}$, and so is
# its estimate. The variances of the parts add up to that of the whole only together with twice their covariance:

# %% tags=["again"]
for name, now in studies.items():
    to_go = reward_to_go(now.rollout.rewards, now.rollout.mask)
    before = total_return(now.rollout.rewards, now.rollout.mask) - to_go
    parts = [gradients(now.rollout, weights, now.pi) for weights in (before, to_go)]
    whole, *own = (float(x.var(0).sum()) for x in (sum(parts), *parts))
    print(f"{name:10s} variance {whole:7.3f} = past {own[0]:7.3f} + to go {own[1]:7.3f} "
          f"+ twice their covariance {whole - sum(own):+8.3f}")  # fmt: skip

# %% [markdown]
# **What you saw.** The untrained policy pays for a long way: what is past and what is to come are negative, they push the
# same way, and dropping the past removes its own variance and the covariance too. For the policy on its way the covariance
# is negative, and twice of it outweighs the variance of the past: the cost of the way so far is negative, what is to come
# is mostly the positive star, and the two partly cancelled. Dropping a term of mean zero removes noise only where that
# term did not serve as a baseline by accident. With a real baseline, below, the problem is gone.
#
# And the factor $\gamma^t$? Nearly everybody drops it, this course's later lessons included. What that costs can be said
# exactly. Sum over all ways into a state, as in 9.3 over the prefixes: with $d_t(s)$ the probability that the agent acts
# in $s$ at time $t$, and $c_t$ any factor, the estimator with weights $c_t\, G_t$ has the mean
#
# $$\mathbb E[\hat g]_{s,a} = \sum_t c_t\, d_t(s)\; \pi_\theta(a \mid s)\,
#   \big(Q_t(s, a) - V_t(s)\big),$$
#
# for of line (2)'s $\sum_{a'} \nabla \pi(a' \mid s)\, Q_t(s, a')$ the entry of the logit $a$ is
# $\pi(a \mid s)\, (Q_t(s, a) - V_t(s))$.

# %% ex="9.5" title="The mean with and without γᵗ" points=2 difficulty="medium" minutes=12
def mean_estimate(world, pi, horizon, factor):
    """The exact mean of the estimator whose weight at step t, from 0, is factor^t G_t: (S, A).

    world: .start (S,) and .P (S, A, S) probabilities; pi (S, A). Row t of
    mdp.horizon_values(world, pi, horizon) has V_t(s), discounted by the world's own gamma;
    mdp.action_values(world, values) is Q(s, a) if `values` (S,) are those of what follows.
    """
    # BEGIN SOLUTION
    values = mdp.horizon_values(world, pi, horizon)
    chance, mean = world.start, torch.zeros_like(pi)
    for t in range(horizon):
        excess = mdp.action_values(world, values[t + 1]) - values[t][:, None]
        mean = mean + factor**t * chance[:, None] * pi * excess
        chance = torch.einsum("s,sa,sat->t", chance, pi, world.P)
    return mean
    # END SOLUTION

# %% ex="9.5" role="check"
mean_estimate = check("9.5", mean_estimate)

# %% [markdown] ex="9.5" role="hints"
# <details><summary>Hint 1</summary>Start with <code>world.start</code>, and after each step move the chances on:
# the new chance of s' is the sum over s and a of chance(s) π(a | s) P(s' | s, a). In a terminal state Q and V are 0, so it
# need not be left out.</details>
# <details><summary>Hint 2</summary>Q at time t is <code>mdp.action_values(world, values[t + 1])</code>;
# <code>torch.einsum("s,sa,sat->t", chance, pi, world.P)</code> moves the chances on.</details>

# %% tags=["again"]
discounted = grid.to_mdp(0.95)
for name, policy in policies.items():
    exact = mdp.exact_gradient(discounted, policy, horizon)
    for weight, factor in (("γ^t G_t", 0.95), ("G_t", 1.0)):
        found = mean_estimate(discounted, studies[name].pi, horizon, factor).flatten()
        error, length = (found - exact).norm() / exact.norm(), found.norm() / exact.norm()
        cosine = torch.cosine_similarity(found, exact, dim=0)
        print(f"{name:10s} {weight:8s} off by {error:.2f} of ∇J's length, {length:.2f} times "
              f"as long, cosine with ∇J {cosine:.3f}")  # fmt: skip

# %% [markdown]
# **What you saw.** With the factor the mean is the gradient; without it the estimate is biased: mostly too long, because
# late steps count in full, and turned a little. As a direction it is nearly the same; what it follows is no longer the
# gradient of the discounted $J$, and in general not the gradient of any objective (Nota and Thomas, 2020).
# People drop it because late states matter to them as much as early ones, and $\gamma$ is only there to calm $G_t$. In
# the rest of this lesson $\gamma = 1$, and the question does not arise.
#
# ## Subtract a baseline
# A return of −1.6 pushes every action of its episode down, though −1.6 is what this policy gets on average. The lecture
# subtracts a **baseline** $b(s_t)$, what is typical, so that the weight says *how much better than that*:
#
# $$\hat g = \frac1N \sum_{i=1}^N \sum_{t=1}^T \nabla_\theta \log \pi_\theta(a_t^i \mid s_t^i)
#   \big(r(\tau^i) - b(s_t^i)\big)$$
#
# Your three lines say which $b$ is allowed. Judge for yourself: what happens to the mean of $\hat g$ if this is
# subtracted from the reward-to-go at step $t$? Type `"stays"` or `"moves"`.

# %%
judged = predict(
    value=...,  # V_t(s_t), exact
    action_value=...,  # Q_t(s_t, a_t), exact
    next_value=...,  # V_{t+1}(s_{t+1}), exact
    past_rewards=...,  # the sum of the rewards before step t
    steps_left=...,  # the number of steps until the time limit
    length=...,  # the number of steps of this episode, known when it is over
    batch_average=...,  # the average return of a batch of 4, this episode among them
)

# %%
to_go = reward_to_go(every.rewards, every.mask)
outcomes = episode_returns(every.rewards, every.mask)
after = torch.cat([along(V, every)[:, 1:] * every.mask[:, 1:], torch.zeros(len(chance), 1)], 1)
steps = torch.arange(LIMIT)
BASELINES = {
    "value": along(V, every),
    "action_value": Q[steps, every.observations, every.actions],
    "next_value": after,
    "past_rewards": outcomes[:, None] - to_go,
    "steps_left": LIMIT - steps,
    "length": every.mask.sum(1, keepdim=True),
    # of the other three, independent of this one, only their mean matters to the expectation
    "batch_average": (outcomes[:, None] + 3 * chance @ outcomes) / 4,
}

# %% tags=["again"]
for name, b in BASELINES.items():
    found = expected_gradient((to_go - b) * every.mask)
    error = float((found - truth).norm() / truth.norm())
    judged.reveal(name, "stays" if error < 1e-10 else f"moves by {error:.0%} of ∇J's length")

# %% [markdown]
# **What you saw.** Fixed before the action is drawn: may be subtracted. Where an action leads, how long an episode gets
# and what it returns depend on the action. The batch average is off by exactly $1/N$ of the gradient, here a quarter.
# That is the lecture's "simple choice", so look closer.
#
# ## The average return, and the episode's own share in it
# $b = \frac1N \sum_i r(\tau^i)$ contains $r(\tau^i)$ itself, which depends on $a_t^i$. For any batch,
#
# $$r(\tau^i) - \frac1N \sum_{j} r(\tau^j) = \Big(1 - \frac1N\Big)
#   \Big(r(\tau^i) - \underbrace{\tfrac{1}{N-1} \textstyle\sum_{j \neq i} r(\tau^j)}_{\text{leave one out}}\Big).$$
#
# The average over the *other* episodes knows nothing of this one, so it is a lawful baseline, and the plain average gives
# the same estimate times $1 - 1/N$. Write it for many batches at a time, and for numbers per step, such as the
# reward-to-go: then only those of the others count that are still on their way at that step.

# %% ex="9.6" title="The others" points=2 difficulty="medium" minutes=10
def others(values, mask):
    """At each step the average over the other episodes of the batch that act at that step.

    values (M, N, T) float, M batches of N episodes; mask (M, N, T) bool -> (M, N, T) float,
    0 where mask is False and where no other episode acts. Padding may hold anything.
    """
    # BEGIN SOLUTION
    kept = torch.where(mask, values, 0)
    total = kept.sum(1, keepdim=True) - kept
    count = mask.sum(1, keepdim=True) - mask.long()
    average = total / count.clamp(min=1)
    return torch.where(mask & (count > 0), average, 0)
    # END SOLUTION

# %% ex="9.6" role="check"
others = check("9.6", others)

# %% [markdown] ex="9.6" role="hints"
# <details><summary>Hint 1</summary>The sum over the others is the sum over all, minus one's own. Count them in the same
# way: how many act, minus oneself.</details>
# <details><summary>Hint 2</summary><code>x.sum(1, keepdim=True)</code> sums over the episodes of each batch and can be
# subtracted from. Nothing may be divided by 0: <code>.clamp(min=1)</code>.</details>

# %%
def scores_and_returns(now):
    """The score (B, P) and the return (B,) of each episode of a study."""
    scores = gradients(now.rollout, now.rollout.mask.double(), now.pi)
    return scores, episode_returns(now.rollout.rewards, now.rollout.mask)


# %% tags=["again"]
scores, returns = scores_and_returns(s)
for size in (2, 4, 8):
    batches = returns[: len(returns) // size * size].view(-1, size, 1)
    baselines = batches.mean(1, keepdim=True), others(batches, torch.ones_like(batches) > 0)
    for name, b in zip(("average", "leave-one-out"), baselines):
        each = scores[: batches.numel()] * (batches - b).view(-1, 1)
        found = measure(each, size, s.gradient)
        share = over_seeds(found["estimates"] @ s.gradient / (s.gradient @ s.gradient))
        print(f"N = {size}, {name:13s}: share of ∇J {share.mean:.3f} "
              f"± {share.high - share.mean:.3f}")  # fmt: skip
        if (size, name) == (2, "average"):
            guesses.reveal("gradient_left_by_the_average_of_2", share.mean)

# %% [markdown]
# **What you saw.** [C31] The plain average is biased, by exactly the factor $1 - 1/N$: a smaller step in the same
# direction, and for an optimizer that rescales gradients, as Adam does, no difference at all. With $N = 4$ answers to a
# prompt, as in training a language model, it is a quarter. (All six numbers lie a little above what they should be: one
# piece of luck, seen six times, for the episodes are the same.) The 8-cell corridor of lesson 08 is where you have seen
# leave-one-out at work: it took back nearly all the episodes that paying along the way had cost.
#
# ## The best constant
# A constant $b$ keeps the mean, so it can be chosen for the variance alone. With $g = \nabla_\theta \log p_\theta(\tau)$,
# the *score* of an episode,
#
# $$N \,\mathrm{tr}\,\mathrm{Cov}\,\hat g = \mathbb E\big[\lVert g \rVert^2 (r(\tau) - b)^2\big]
#   - \lVert \nabla_\theta J \rVert^2, \qquad \text{a parabola in } b.$$
#
# Set its derivative to zero: the minimum is a weighted average of the returns. Is it the mean? In practice it has to be
# estimated, from the very batch that it is used in. Write two versions: fitted on the whole batch, one constant for all
# its episodes; and fitted, for each episode, on the *others*.

# %% ex="9.7" title="The best constant" points=3 difficulty="medium" minutes=14
def best_constants(scores, returns):
    """The constant of least variance, estimated from each batch, for its episodes: a dict.

    "batch" (M, N), from all episodes of the batch; "others" (M, N), from all but this one.

    scores (M, N, P) float, the gradient of log p(tau) of each of the N episodes of M batches;
    returns (M, N) float.
    """
    # BEGIN SOLUTION
    norms = (scores**2).sum(-1)
    products = norms * returns
    above, below = products.sum(1, keepdim=True), norms.sum(1, keepdim=True)
    return {
        "batch": (above / below).expand_as(returns),
        "others": (above - products) / (below - norms),
    }
    # END SOLUTION

# %% ex="9.7" role="check"
best_constants = check("9.7", best_constants)

# %% [markdown] ex="9.7" role="hints"
# <details><summary>Hint 1</summary>The derivative in b of E[‖g‖² (r − b)²] is −2 E[‖g‖² (r − b)]. It is 0 at
# E[‖g‖² r] / E[‖g‖²]: each return counts with the squared length of its episode's score.</details>
# <details><summary>Hint 2</summary>Numerator and denominator are sums over the episodes of the batch. For the others
# take the episode's own term out of *both*, before dividing.</details>

# %%
def constants_of(now):
    """Nothing, the mean return, and the best constant fitted on all episodes of a study."""
    scores, returns = scores_and_returns(now)
    fitted = best_constants(scores[None], returns[None])["batch"][0, 0]
    mean_return = float(world.start @ now.values[0])
    return {"no baseline": 0.0, "mean return J": mean_return, "best constant": float(fitted)}


# %% tags=["again"]
levels = {}
for name, now in studies.items():
    scores, returns = scores_and_returns(now)
    for label, b in constants_of(now).items():
        each = scores * (returns - b)[:, None]
        found = over_seeds(distances(measure(each, 1, now.gradient)))
        levels[name, label] = b, found
        print(f"{name:10s} {label:14s} b = {b:6.3f}, variance of one episode "
              f"{found.mean:6.3f} ± {found.high - found.mean:.3f}")  # fmt: skip
same = all(abs(levels[name, "mean return J"][0] - levels[name, "best constant"][0]) < 0.01
           for name in studies)  # fmt: skip
guesses.reveal("mean_return_is_the_best_constant", "yes" if same else "no")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
for axes, (name, now) in zip(panels, studies.items()):
    (scores, returns), J = scores_and_returns(now), float(world.start @ now.values[0])
    norms = (scores**2).sum(1)
    constants = torch.linspace(min(0, J) - 0.4, max(0, J) + 0.4, 60).tolist()
    parabola = [float((norms * (returns - b) ** 2).mean() - now.gradient @ now.gradient)
                for b in constants]  # fmt: skip
    axes.plot(constants, parabola, color="black", linewidth=0.8, label="the formula")
    for index, label in enumerate(constants_of(now)):
        b, found = levels[name, label]
        axes.errorbar(b, found.mean, yerr=found.high - found.mean, capsize=3, linestyle="",
                      color=figures.COLORS[index], marker=figures.MARKERS[index], label=label)
    axes.set(title=f"policy: {name}", xlabel="b, the constant subtracted", ylim=(0, None))
panels[0].set_ylabel("variance of one episode")
panels[1].legend(fontsize=8)
seen = "; ".join(f"{name}: " + ", ".join(f"{label} {levels[name, label][1].mean:.2f}"
                 for label in constants_of(now)) for name, now in studies.items())
show(figure, alt=f"The variance is a parabola in the constant. {seen}.")

# %% [markdown]
# **What you saw.** For the untrained policy a constant takes away more than nine tenths of the variance; the mean return
# and the best constant can hardly be told apart. For the policy on its way they differ: episodes with long scores weigh
# more, and these are the poorer ones, so the best constant lies below the mean return. Still the mean is a good
# choice, as the lecture says: near the bottom of a parabola it hardly matters where one stands.
#
# That constant was fitted on 80,000 episodes. Fitted on the batch that it is used in, it knows the episode it is
# subtracted from:

# %% tags=["again"]
for name, now in studies.items():
    scores, returns = scores_and_returns(now)
    for size in (2, 8, 32):
        rows = len(returns) // size * size
        grouped = scores[:rows].view(-1, size, scores.shape[1]), returns[:rows].view(-1, size)
        line = f"{name:10s} N = {size:2d}: share of ∇J (N × variance), fitted"
        for fitted, b in best_constants(*grouped).items():
            each = (grouped[0] * (grouped[1] - b)[..., None]).flatten(0, 1)
            found = measure(each, size, now.gradient)
            line += f" on the {fitted} {found['share']:.2f} ({size * found['variance']:5.2f})"
        print(line)

# %% [markdown]
# **What you saw.** Fitted on its own batch the best constant is biased: an episode with a long score pulls the constant
# towards its own return, just where the score counts. For the policy on its way it loses more than the plain average
# (whose shares are 0.50, 0.88 and 0.97 at these $N$), for the untrained one less at 2 and 8; no factor known beforehand
# repairs it. Fitted on the others it loses nothing and pays with noise: with $N = 2$ the constant comes from a single
# episode. So "the optimal baseline" may be three different estimators: fitted on the batch, on its other episodes, or
# beforehand on many.
#
# ## What V has to do with the objective
# The lecture's concept check: **what is $\mathbb E_{s_1}[V^\pi(s_1)]$?** By definition $V^\pi(s)$ is the expected return
# from $s$ on. Sort the trajectories by their first state:
#
# $$J(\theta) = \sum_\tau p_\theta(\tau)\, r(\tau)
#   = \sum_{s} p(s_1 = s) \sum_{\tau : s_1 = s} p_\theta(\tau \mid s_1 = s)\, r(\tau)
#   = \mathbb E_{s_1}\big[V^\pi(s_1)\big]$$
#
# The left side by listing all trajectories, the right side by the backward recursion, with every free cell a start:

# %% tags=["again"]
free = ~small.terminal
anywhere = replace(small, start=free.double() / free.sum())
ways, _, p = mdp.enumerate_trajectories(anywhere, chooser, LIMIT)
earned = episode_returns(ways.rewards, ways.mask)
for state in free.nonzero()[:, 0].tolist():
    here = ways.observations[:, 0] == state
    mean_return = p[here] @ earned[here] / p[here].sum()
    print(f"start {state}: mean return {mean_return:+.12f}, V = {V[0, state]:+.12f}")
print(f"J, over all {len(p):,} trajectories {p @ earned:+.12f}, "
      f"E[V(s_1)] = {anywhere.start @ V[0]:+.12f}")

# %% [markdown]
# **What you saw.** [C32] They are the same number. So the mean return is a baseline that knows $V$ at one state, the
# start. $V_t(s_t)$ knows it everywhere: it asks not "was this a good episode?" but "was this better than expected *from
# here*?".
#
# ## One step of luck instead of all
# The last weight goes beyond the lecture's baselines: it also replaces the rewards that follow $s_{t+1}$ by what is
# expected of them,
#
# $$\delta_t = r_t + \gamma V(s_{t+1}) - V(s_t),$$
#
# the **temporal difference** (TD). Given $s_t$ and $a_t$, its mean is $Q(s_t, a_t) - V(s_t)$, and your last row of 9.3
# says that this keeps the mean: with the *exact* $V$, which nobody has outside a lesson. Lesson 10 learns one.

# %% ex="9.8" title="The temporal difference" points=2 difficulty="medium" minutes=10
def temporal_difference(rewards, values, mask, gamma=1.0):
    """r_t + gamma V(s_{t+1}) - V(s_t); the V after an episode's last step is 0: it is over.

    rewards (B, T) float; values (B, T) float, V(s_t) at each step, anything on padding;
    mask (B, T) bool, True from the first step of an episode to its last -> (B, T) float,
    0 where mask is False.
    """
    # BEGIN SOLUTION
    values = torch.where(mask, values, 0)
    following = torch.zeros_like(values)
    following[:, :-1] = values[:, 1:]
    return torch.where(mask, rewards + gamma * following - values, 0)
    # END SOLUTION

# %% ex="9.8" role="check"
temporal_difference = check("9.8", temporal_difference)

# %% [markdown] ex="9.8" role="hints"
# <details><summary>Hint 1</summary>The V of the next state stands in the next column of <code>values</code>; in the last
# column, and where the next column is padding, it is 0.</details>
# <details><summary>Hint 2</summary>Set padding to 0 first, with <code>torch.where</code>, and shift then:
# <code>following[:, :-1] = values[:, 1:]</code>.</details>

# %% [markdown]
# ## All of them side by side
# Eight weights on the same episodes. Put together what you have: the whole return with each of three baselines, the
# reward-to-go with two, and the temporal difference.

# %%
KINDS = ("total return", "return − average", "return − leave-one-out",
         "return − best constant", "reward-to-go", "to-go − leave-one-out", "to-go − exact V",
         "TD, exact V")  # fmt: skip

# %% ex="9.9" title="Eight weights" points=3 difficulty="medium" minutes=15
def weights_of(kind, rewards, mask, values, scores, size):
    """The weight of that kind at every step: (B, T), 0 where mask is False.

    Rows are episodes, `size` that follow each other make a batch. "average" is that of the
    batch; "leave-one-out" and "best constant" are those of the others in it, for the
    reward-to-go step by step.

    rewards, values (B, T) float, V(s_t) at each step; mask (B, T) bool; scores (B, P) float,
    the gradient of log p(tau) of each episode. Padding may hold anything.
    """
    # BEGIN SOLUTION
    returns, to_go = total_return(rewards, mask), reward_to_go(rewards, mask)
    batches = returns[:, :1].reshape(-1, size, 1)
    baseline = torch.zeros_like(batches)
    if kind == "return − average":
        baseline = batches.mean(1, keepdim=True).expand_as(batches)
    elif kind == "return − leave-one-out":
        baseline = others(batches, torch.ones_like(batches) > 0)
    elif kind == "return − best constant":
        grouped = scores.reshape(len(batches), size, -1)
        baseline = best_constants(grouped, batches[:, :, 0])["others"]
    elif kind == "to-go − leave-one-out":
        grouped = (x.reshape(-1, size, x.shape[1]) for x in (to_go, mask))
        return to_go - others(*grouped).reshape(to_go.shape)
    elif kind == "to-go − exact V":
        return (to_go - values) * mask
    elif kind == "TD, exact V":
        return temporal_difference(rewards, values, mask)
    weights = to_go if kind == "reward-to-go" else returns
    return (weights - baseline.reshape(-1, 1)) * mask
    # END SOLUTION

# %% ex="9.9" role="check"
weights_of = check("9.9", weights_of)

# %% [markdown] ex="9.9" role="hints"
# <details><summary>Hint 1</summary>Start with <code>total_return(rewards, mask)</code>, the return at every step, and your
# <code>reward_to_go</code>; a chain of <code>if</code>s subtracts what each kind asks for, and
# <code>* mask</code> clears the padding.</details>
# <details><summary>Hint 2</summary><code>x.reshape(-1, size, x.shape[1])</code> makes batches of rows, and
# <code>.reshape(B, T)</code> undoes it. For whole returns <code>others</code> takes one column, (M, N, 1), and a mask of
# ones: the return of a finished episode is known.</details>

# %%
LADDER = [KINDS[place] for place in (0, 4, 5, 6, 7)]
measured = {}
for policy_name, now in studies.items():
    record, (scores, _) = now.rollout, scores_and_returns(now)
    given = record.rewards, record.mask, along(now.values, record), scores, args.batch
    for kind in KINDS:
        each = gradients(record, weights_of(kind, *given), now.pi)
        measured[policy_name, kind] = measure(each, args.batch, now.gradient)

# %% tags=["again"]
limit = threshold(s.gradient, len(KINDS) * len(studies))
print(f"share of ∇J, largest |z| (by chance up to {limit:.1f}), variance for N = {args.batch}")
print(" " * 23 + "".join(f"{name:33s}" for name in studies))
for kind in KINDS:
    line = f"{kind:23s}"
    for policy_name in studies:
        found = measured[policy_name, kind]
        share, z, variance = (float(found[x]) for x in ("share", "z", "variance"))
        line += f"{share:.3f} {z:5.1f} {'biased' if z > limit else '':6s} {variance:9.4f}     "
    print(line)

# %% [markdown]
# Now the steps from one weight to the next. All of them see the same batches, so a ratio of two variances is resampled
# (bootstrapped) with both on the same batches: its interval is much narrower than those of the variances themselves
# where the two weights are alike.

# %% tags=["again"]
def part_left(policy_name, before, after):
    """The variance with one weight over that with another, on the same batches."""
    both = (distances(measured[policy_name, kind]) for kind in (after, before))
    return ratio(*both, args.seed)


pairs = [*zip(LADDER, LADDER[1:]), ("to-go − exact V", "constant of 80,000")]
left = {}
for policy_name, now in studies.items():
    scores, returns = scores_and_returns(now)
    each = scores * (returns - constants_of(now)["best constant"])[:, None]
    measured[policy_name, "constant of 80,000"] = measure(each, args.batch, now.gradient)
    for before, after in pairs:
        left[policy_name, before, after] = found = part_left(policy_name, before, after)
        print(f"{policy_name:10s} {after:22s} × {found.mean:.3f} [{found.low:.3f}, "
              f"{found.high:.3f}] of {before}")  # fmt: skip

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(8.2, 2.6), sharey=True, layout="constrained")
for axes, policy_name in zip(panels, studies):
    points = [over_seeds(distances(measured[policy_name, name])) for name in LADDER]
    steps = [left[policy_name, before, after] for before, after in zip(LADDER, LADDER[1:])]
    figures.variances(axes, LADDER, points, steps)
    axes.set(title=f"policy: {policy_name}", xlabel=f"variance, batches of {args.batch}")
seen = {name: ", ".join(f"{measured[name, kind]['variance']:.2g}" for kind in LADDER)
        for name in studies}  # fmt: skip
show(figure, alt="Variances, log axis, from the total return to TD with exact V. Untrained: "
     f"{seen['untrained']}; on its way: {seen['on its way']}.")

# %% [markdown]
# **What you saw.** [C30, C31] Only the plain average shows a bias, the one with a name; that it looks quieter than
# leave-one-out is the same shrinking, $(1 - 1/8)^2$. At the untrained policy every rung of the ladder has less noise than
# the one above, with intervals far from 1. Three things are not on the lecture's slides:
#
# - **Reward-to-go alone can make it worse**, for the reason that you measured. With a baseline it is lower again.
# - **The exact $V$ is not the quietest baseline**, only the natural one: for the policy on its way a single constant, the
#   best one for the *total* return, known from 80,000 episodes, is a little quieter (last line). What counts is the weight
#   times the length of its score.
# - **A best constant has to be known.** Fitted on seven other episodes it is noisier, for the policy on its way, than
#   their plain average.
#
# The large step is the last. TD does not wait for the luck of all later steps: it asks $V$ what they are worth. It needs
# $V$ exactly to keep the mean; what to do with less than that is the subject of lesson 10.
#
# [Explore it](../docs/interactive/reinforce.html): pick a weight, and see its bias and variance beside the exact
# gradient.
#
# ## What less noise buys
# The same learner, eight times; only the weights differ, and they are yours. Batches of 32 episodes, Adam, six seeds each,
# and after every update the **exact** expected return of the policy, so that the curves show learning and not luck in
# evaluation. The 48 runs take about half a minute.

# %%
TRAINED, LR = 32, 0.12  # episodes in a batch, step size


def learn(kind, seed, world=world, lr=LR):
    """Train a fresh policy; the exact expected return before each update and at the end."""
    policy, reached = TabularPolicy(world.states, world.actions).double(), []

    def weigh(record, *_):
        pi = mdp.probabilities(world, policy).detach()
        values = mdp.horizon_values(world, pi, horizon)  # of the present policy, exactly
        reached.append(float(world.start @ values[0]))
        scores = gradients(record, record.mask.to(pi), pi)
        given = record.rewards, record.mask, along(values, record), scores
        return weights_of(kind, *given, TRAINED)

    def sample(policy, generator):
        return collect(world, policy, TRAINED, horizon=horizon, generator=generator)

    train_policy(policy, sample, weigh, updates=args.updates, lr=lr, seed=args.seed + seed)
    pi = mdp.probabilities(world, policy).detach()
    return [*reached, float(mdp.objective(world, pi, horizon))]


curves = {kind: torch.tensor([learn(kind, run) for run in range(args.runs)])
          for kind in progress(KINDS, "training")}

# %% tags=["again"]
episodes = [TRAINED * update for update in range(args.updates + 1)]
print(f"best return {best:.2f}; seeds that end above 95 % of it, {0.95 * best:.3f}:")
medians = {}
for name, runs in curves.items():
    there = runs >= 0.95 * best
    first = [episodes[int(run.int().argmax())] if run.any() else math.inf for run in there]
    medians[name] = statistics.median(first)
    middle = f"{medians[name]:,.0f}" if medians[name] < math.inf else f"over {episodes[-1]:,}"
    print(f"{name:23s} {int(there[:, -1].sum())} of {len(runs)} seeds there, median {middle} "
          f"episodes, final {runs[:, -1].mean():.3f}, worst {runs[:, -1].min():.3f}")
saved = medians["return − average"] / medians["TD, exact V"]
guesses.reveal("episodes_saved_by_the_quietest", saved)

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.3))
for index, name in enumerate(LADDER):
    figures.learning_curves(axes, episodes, best - curves[name], name, index)
axes.axhline(0.05 * best, color="black", linestyle=":", linewidth=1)
axes.text(0, 0.045 * best, "95 % of best", va="top", fontsize=8)
axes.set(title="The same learner, five weights", xlabel="episodes so far", yscale="log")
axes.set(ylabel="best return − expected return", ylim=(0.003, 4))
axes.legend(fontsize=8, loc="upper right")
middle = [float((best - curves[name][:, args.updates // 2]).mean()) for name in LADDER]
seen = ", ".join(f"{missing:.3f} ({name})" for name, missing in zip(LADDER, middle))
show(figure, alt="What is missing from the best return against episodes. Half-way through the "
     f"means are {seen}.")

# %% [markdown]
# **What you saw.** Less noise is faster learning: half-way the curves lie in the order of the untrained policy's
# variances, the two baselines alike. With any baseline all six seeds end above 95 % of the best return; with the total
# return none does, and reward-to-go alone leaves one behind. Three details:
#
# - *Average* and *leave-one-out* give the same numbers: Adam divides every gradient by its size, and a factor of
#   $1 - 1/32$ goes with it.
# - Among the baselines the learner hardly tells the difference. The best constant of the others is quieter than
#   leave-one-out at the untrained policy, and no faster.
# - TD with the exact $V$ has a twentieth of the noise at the start, under a third of it later on, and needs about half
#   of the episodes: these fall by less than the noise.
#
# And without a cost of the steps, 1 at the star, −1 in the pit and nothing on the way? The same learner with a step size
# of 0.1, a leave-one-out baseline:

# %% tags=["again"]
lecture = GridWorld("default").to_mdp()
ends = [learn("return − leave-one-out", run, lecture, 0.1)[-1] for run in range(args.runs)]
print(f"{sum(end >= 0.95 for end in ends)} of {args.runs} seeds end above 0.95 of the best "
      f"return, 1.00; the worst at {min(ends):.3f}")

# %% [markdown]
# ## A contest: a weight of your own
# Outside a lesson nobody has $V$. What you do have are episodes: those of the batch, and **earlier** ones of the same
# policy, from which anything may be computed. Whatever you make of the earlier ones alone is fixed before any action of
# the batch is drawn. Write the quietest weight you can that keeps the mean. You get
#
# - `e.observations`, the states, `e.actions`, `e.rewards`, `e.mask`, each (B, T): the episodes to weigh;
# - `e.earlier`, 500 other episodes of the same policy, with the same four, each (500, T′); T and T′ may differ, and are
#   at most `e.horizon`;
# - `e.pi` (S, A), the policy, and `e.horizon`, the time limit, which is part of the task; $\gamma = 1$.
#
# The three maps are small and hidden, one of them slippery, so all trajectories can be listed: bias and variance are
# *exact*, for the earlier episodes you were given. The weights of an episode may depend on that episode and on the
# earlier ones, and on no other row. **A biased weight earns nothing.** Otherwise the score is the variance of the best
# weight of this lesson, TD with the exact $V$, divided by yours (the geometric mean over the maps): 1 is as quiet. A
# point each at 0.2, 0.42, 0.65 and 0.85. To try yours on the six cells: `expected_gradient(own_weights(trial))` has to
# be `truth`.

# %%
def evidence(record, world, policy, horizon):
    """What `own_weights` is made of, with 500 earlier episodes."""
    earlier, _ = collect(world, policy, 500, horizon=horizon, generator=seeded(1))
    pi = mdp.probabilities(world, policy).detach()
    return SimpleNamespace(**vars(record), earlier=earlier, pi=pi, horizon=horizon)


trial = evidence(every, small, chooser, LIMIT)

# %% ex="9.10" title="A weight of your own" points=4 difficulty="hard" minutes=32
def own_weights(e):
    """Weights (B, T) for the steps of e's episodes, 0 where e.mask is False; see above."""
    # BEGIN SOLUTION
    earlier, (S, A) = e.earlier, e.pi.shape
    counts, paid = torch.zeros(S, A, S + 1), torch.zeros(S, A)  # state S: it is over
    after = torch.full_like(earlier.observations, S)
    after[:, :-1] = torch.where(earlier.mask[:, 1:], earlier.observations[:, 1:], S)
    goes_on = earlier.mask & (torch.arange(earlier.mask.shape[1]) < e.horizon - 1)
    pairs = earlier.observations[earlier.mask], earlier.actions[earlier.mask]
    times = torch.zeros(S, A).index_put(pairs, torch.tensor(1.0), accumulate=True)
    paid.index_put_(pairs, earlier.rewards[earlier.mask].float(), accumulate=True)
    moves = earlier.observations[goes_on], earlier.actions[goes_on], after[goes_on]
    counts.index_put_(moves, torch.tensor(1.0), accumulate=True)
    P, R = counts / counts.sum(-1, keepdim=True).clamp(min=1), paid / times.clamp(min=1)
    # the model's values, backwards from the time limit
    V, Q = torch.zeros(e.horizon + 1, S + 1), torch.zeros(e.horizon, S, A)
    for t in reversed(range(e.horizon)):
        Q[t] = R + P @ V[t + 1]
        V[t, :S] = (e.pi * Q[t]).sum(1)
    t = torch.arange(e.mask.shape[1])
    value = V[t, e.observations]
    luck = (Q[t, e.observations, e.actions] - value) * e.mask  # of mean 0 at every later step
    return (reward_to_go(e.rewards - luck, e.mask) + luck - value) * e.mask
    # END SOLUTION

# %% ex="9.10" role="check"
own_weights = check("9.10", own_weights)

# %% [markdown] ex="9.10" role="hints"
# <details><summary>Hint 1</summary>First two points: averages of the earlier episodes. A constant; then a table
# <code>V[t, s]</code>, the mean reward-to-go of the earlier episodes in state s at time t, and 0 where none was. Look
# at <code>trial</code> first: is <code>expected_gradient</code> of your weights the <code>truth</code>?</details>
# <details><summary>Hint 2</summary>Any table <code>Q[t, s, a]</code> made of the earlier episodes has
# <code>V = (pi * Q).sum(-1)</code>, and then <code>Q[t', s_t', a_t'] − V[t', s_t']</code>, the luck of drawing that action,
# has mean 0 whatever happened before t'. So the luck of all <i>later</i> steps may be subtracted from the weight at t. The
# better the Q, the quieter: counts of where each action led make a model, and a model makes a Q.</details>

# %% [markdown]
# How good is it on the lesson's own map, with 40 steps and 22 cells, and only 500 earlier episodes?

# %% tags=["again"]
for name, now in studies.items():
    weights = own_weights(evidence(now.rollout, world, policies[name], horizon))
    found = measure(gradients(now.rollout, weights.double(), now.pi), args.batch, now.gradient)
    print(f"{name:10s} your own weight: variance {found['variance']:.4f}, largest |z| "
          f"{found['z']:.1f}; TD, exact V: {measured[name, 'TD, exact V']['variance']:.4f}")

# %% [markdown]
# **What you saw.** The solution's weight has the noise of TD with the exact $V$, up to a few per cent, without knowing
# $V$, and no bias is seen: whatever its tables are worth, all that they add has mean 0. It has an easy world, where an
# action seen once is known for good; on a slippery floor the luck of the floor remains. And it had 500 episodes of
# *this* policy, where a learner moves on after each batch. Lesson 10 learns a $V$ on the way, and asks what its errors cost.
#
# ## Recap
# - $\hat g$ is unbiased and noisy: its variance falls as $1/N$ from a high start, thousands of times the signal here.
# - Whatever is fixed before $a_t$ is drawn can be taken from the weight at $t$ without moving the mean, prefix by prefix:
#   past rewards, a constant, other episodes, $V(s_t)$. What has a mean that depends on $a_t$ moves it.
# - Of a discounted objective the gradient has $\gamma^t$ in front of $G_t$. Nearly everybody drops it.
# - The average over the batch contains the sample itself: the factor $1 - 1/N$. A best constant fitted on its own batch
#   loses a share that nobody knows beforehand. Leave the sample out, or know what it costs.
# - Reward-to-go can save half of the variance where rewards come along the way, or cost a third; with a baseline it
#   changes little; it does nothing where only the end pays.
# - The mean return is nearly as quiet as the best constant. $V(s_t)$ knows where the episode stands; $r + V(s_{t+1}) -
#   V(s_t)$
#   also knows where it is going, and is the quietest by far.
# - $\mathbb E_{s_1}[V(s_1)]$ is the objective.
#
# ## Try next
# - `step_reward` 0: the lecture's world all through. Which rungs of the ladder become one? Why does leave-one-out buy
#   nothing for the untrained policy there?
# - `batch` 2: what does leave-one-out cost when there is one other episode? And the best constant?
# - `LR = 0.2` and `TRAINED = 16`. On some seed a baseline may stop learning for good: when every episode of a batch fails
#   alike, return minus average is 0 everywhere, and nothing moves. Plain REINFORCE, which pushes down what it did, gets
#   away.
# - Train with your own weight: earlier episodes are those of the batch before, of a slightly other policy. Is $Q - V$
#   still of mean 0?
#
# ## References
# - Williams (1992), *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*.
# - Greensmith, Bartlett and Baxter (2004), *Variance Reduction Techniques for Gradient Estimates in Reinforcement
#   Learning*: the best baselines.
# - Sutton and Barto (2018), *Reinforcement Learning: An Introduction*, sections 13.3 and 13.4.
# - Nota and Thomas (2020), *Is the Policy Gradient a Gradient?*: without $\gamma^t$ it is not.
# - Schulman et al. (2016), *High-Dimensional Continuous Control Using Generalized Advantage Estimation*.
# - Kool, van Hoof and Welling (2019), *Buy 4 REINFORCE Samples, Get a Baseline for Free!*
# - Ahmadian et al. (2024), *Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in
#   LLMs*.
# - Cheng, Yan and Boots (2020), *Trajectory-wise Control Variates for Variance Reduction in Policy Gradient Methods*: the
#   luck of later actions.
