# Lesson 11: off-policy data. jupytext py:percent; runs as a script: python lessons/11_off_policy.py --help

# %% [markdown]
# # 11 · Off-policy: learning from the data of another policy
#
# Every update changes the policy, so the episodes it learned from are out of date at once. In this lesson you repair
# old episodes with importance weights, hold each form of them against the exact gradient, watch the weights blow up,
# and write the remedy that most of today's training of language models uses: PPO, its epochs, its clip and its stop.
# *(Lecture: "On-Policy vs. Off-Policy", "Importance Sampling: A Quick Review", "Off-Policy Policy Gradient"; claims
# C36–C38.)* About 175 minutes, of which 136 for the exercises; runs in 70 s on two CPU cores.
#
# **You will need** the estimator of lesson 08, reward-to-go and baselines from 09, advantages from 10. **You will be
# able to** say which importance weights keep the gradient unbiased and prove it, predict how many old episodes are still
# worth something, write PPO, and test that it is PPO.

# %% [markdown]
# ## Predict first
# Type your guesses over the dots before you run anything else; each is shown beside what you measure. An empty guess
# breaks nothing.
#
# 1. You have many episodes of yesterday's policy μ and put them, as they are, into the policy gradient formula of
#    today's policy π. **Is the result only "noisier", or "wrong" on average? If wrong, most in "direction" or "length"?**
# 2. π and μ disagree a little everywhere: at each step the ratio π/μ is off from 1 by about a sixth. You have 1,000
#    episodes of 64 steps from μ. **How many episodes of π are they worth?**
# 3. You take 16 gradient steps on each rollout instead of one, with PPO. **How many times fewer rollouts do you need to
#    get half-way?**

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

from ptlearn.course.predictions import predict

guesses = predict(
    without_weights=...,  # "noisier" or "wrong"
    what_is_wrong_most=...,  # "direction" or "length"
    worth_of_1000_episodes=...,  # episodes of π
    times_fewer_rollouts=...,  # a number
)

# %% [markdown]
# In a notebook, change a knob by changing its default in the next cell (`runs=(6, …`), then run all cells again.

# %%
import math
from dataclasses import replace

import torch
from matplotlib import pyplot

from ptlearn import figures
from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import check
from ptlearn.course.lab import mystery_runs
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import Rollout, action_logprobs
from ptlearn.statistics import over_seeds

args = arguments(
    "Off-policy policy gradients: importance weights, their bias and their blow-up, and PPO.",
    seed=(0, "of episodes and of random policies", "at least 0"),
    runs=(6, "learning runs per method", "at least 2"),
    rollouts=(20, "rollouts per learning run", "at least 1"),
    batches=(40_000, "batches per measurement of self-normalised weights", "at least 1"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would wait for the first


def seeded(seed=0):
    """A generator for one measurement: a cell that is run again gives the same again."""
    return torch.Generator().manual_seed(args.seed + seed)


# %% [markdown]
# ## Two policies
# A grid small enough to list everything that can happen: two rows, a goal (+1), a pit (−1), −0.1 for any other step,
# and one move in ten slips sideways. An episode has four steps at most: here the time limit is part of the task, as in
# lesson 09, and nothing comes after it, so nothing is bootstrapped (lesson 10 cut episodes that would have gone on).
# Returns are not discounted: the γᵗ of lesson 09 is 1. The **behavior policy** μ is uniform: "yesterday". The **target
# policy** π is μ after ten steps up the exact gradient of J: "today".

# %%
HORIZON = 4
grid = GridWorld("small", step_reward=-0.1, slip=0.1)
small = grid.to_mdp()


def improved(steps):
    """The uniform policy after some steps of size 1 up the exact gradient."""
    policy = TabularPolicy(small.states, small.actions).double()
    for _ in range(steps):
        gradient = mdp.exact_gradient(small, policy, HORIZON)
        policy.logits.data += gradient.view_as(policy.logits)
    return policy


def table(policy, world=small):
    """A policy as probabilities, (S, A)."""
    return mdp.probabilities(world, policy).detach()


mu, pi = improved(0), improved(10)
J_mu, J_pi = (float(mdp.objective(small, table(each), HORIZON)) for each in (mu, pi))
print(f"J(μ) = {J_mu:+.3f}   J(π) = {J_pi:+.3f}   (exact)")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(6.4, 2.0), layout="constrained")
for axes, policy, name in zip(panels, (mu, pi), ("μ, yesterday", "π, today")):
    values = mdp.horizon_values(small, table(policy), HORIZON)[0]
    figures.value_map(axes, grid, values, table(policy), limits=(-1, 1))
    axes.set(title=name)
show(figure, alt="Two maps of the same 2 by 3 world with a policy each. Under μ all four "
     "arrows are equally long and most cells have negative value; under π the arrows along "
     "the upper row point to the goal.")

# %% [markdown]
# ## Old data, new question
# The simplest thing to ask of μ's episodes: what return does **π** earn? Their plain average answers another question.
# Importance sampling, in the lecture's words, "uses a correction ratio":
#
# $$\mathbb{E}_{x \sim p}[f(x)] = \sum_x p(x) f(x) = \sum_x q(x)\,\frac{p(x)}{q(x)} f(x)
#   = \mathbb{E}_{x \sim q}\!\left[f(x)\,\frac{p(x)}{q(x)}\right].$$
#
# One line, one condition: $q(x) > 0$ wherever $p(x) f(x) \neq 0$. Here $x$ is a trajectory, $p$ is π and $q$ is μ. The
# ratio needs no model of the world, since the same dynamics stand above and below:
#
# $$\rho(\tau) = \frac{\pi_\theta(\tau)}{\mu(\tau)}
#   = \frac{p(s_1) \prod_t \pi_\theta(a_t \mid s_t) \prod_t p(s_{t+1} \mid s_t, a_t)}
#          {p(s_1) \prod_t \mu(a_t \mid s_t) \prod_t p(s_{t+1} \mid s_t, a_t)}
#   = \prod_{t=1}^T \rho_t, \qquad \rho_t = \frac{\pi_\theta(a_t \mid s_t)}{\mu(a_t \mid s_t)}.$$
#
# This is the ratio of the whole **trajectory**. You will need two shorter products as well: the **prefix**
# $\rho_{1:t} = \rho_1 \cdots \rho_t$, up to and including step $t$, and the **step**'s own $\rho_t$. Build all three
# from log-probabilities: a product of hundreds of small numbers is zero in floating point, the sum of their logarithms
# is not. And they are *weights*, so they must not carry a gradient.

# %% ex="11.1" title="The ratio, three forms" points=2 minutes=9 difficulty="easy"
def ratio(logprobs, behavior_logprobs, mask, form):
    """π / μ at each step: of its own action ("step"), of all up to and including it
    ("prefix"), or of the whole episode ("trajectory").

    logprobs (B, T) under π, behavior_logprobs (B, T) under μ, nats, both with anything at all
    on padding; mask (B, T) bool -> (B, T), 0 where mask is False, without gradient.
    """
    # BEGIN SOLUTION
    log_ratios = torch.where(mask, logprobs.detach() - behavior_logprobs, 0)
    if form == "prefix":
        log_ratios = log_ratios.cumsum(1)
    if form == "trajectory":
        log_ratios = log_ratios.sum(1, keepdim=True)
    return torch.where(mask, log_ratios.exp(), 0)
    # END SOLUTION

# %% ex="11.1" role="check"
ratio = check("11.1", ratio)   # yours if it passes, the package's if not

# %% [markdown] ex="11.1" role="hints"
# <details><summary>Hint 1</summary>Three steps: the log-ratio of each step, 0 where nothing was done; nothing, a running
# sum or the sum over an episode; the exponential.</details>
# <details><summary>Hint 2</summary><code>torch.where(mask, x, 0)</code> cuts padding off whatever it holds,
# <code>.cumsum(1)</code> sums up to each step, <code>.sum(1, keepdim=True)</code> keeps a column that spreads over the
# steps, <code>.detach()</code> stops the gradient.</details>

# %% tags=["again"]
def ratio_of(target, rollout, form):
    """The ratio of a policy to the one that sampled a rollout, (B, T)."""
    return ratio(action_logprobs(target, rollout), rollout.logprobs, rollout.mask, form)


sampled, _ = collect(small, mu, 1000, horizon=HORIZON, generator=seeded())
returns = pg.episode_returns(sampled.rewards, sampled.mask)
weights = ratio_of(pi, sampled, "trajectory")[:, 0]
for name, terms in (("plain average", returns), ("with ratios", weights * returns)):
    print(f"{name:14s} {terms.mean():+.3f} ± {1.96 * terms.std() / len(terms) ** 0.5:.3f}")
print(f"exact: J(μ) = {J_mu:+.3f}, J(π) = {J_pi:+.3f}; "
      f"ratios from {weights.min():.3f} to {weights.max():.1f}")

# %% [markdown]
# **What you saw.** The plain average is a fine estimate of J(μ), which nobody asked for. The ratios turn the same
# episodes into an estimate of J(π), at a price: its interval is wider.
#
# ## Bias and noise without sampling
# Now the gradient. Nothing here needs sampling: list **all** trajectories of μ with their probabilities, and the mean
# and the variance of any estimate are finite sums. If $\hat g(\tau)$ is what one episode contributes, then
#
# $$\text{bias} = \frac{|\mathbb E[\hat g] - \nabla J|}{|\nabla J|}, \qquad
#   \text{noise} = \frac{\sqrt{\mathbb E\,|\hat g - \mathbb E[\hat g]|^2}}{|\nabla J|},
#   \qquad \text{error of a mean of } N = \sqrt{\text{bias}^2 + \text{noise}^2 / N}.$$
#
# Write it once; every form of weights below goes through it.

# %% ex="11.2" title="Bias and noise, exactly" points=2 minutes=9 difficulty="medium"
def moments(estimates, chance, true):
    """How good an estimate of a gradient is, a dict of numbers:

    "bias", the distance of its mean from `true`; "cosine" of the two; "length" of the mean;
    "noise", the root of the sum of the variances of all parameters, of one estimate. Bias,
    length and noise are in units of the length of `true`.

    estimates (K, P), of each trajectory; chance (K,), their probabilities; true (P,).
    """
    # BEGIN SOLUTION
    mean = chance @ estimates
    variances = chance @ (estimates - mean) ** 2
    return {
        "bias": (mean - true).norm() / true.norm(),
        "cosine": mean @ true / (mean.norm() * true.norm()),
        "length": mean.norm() / true.norm(),
        "noise": variances.sum().sqrt() / true.norm(),
    }
    # END SOLUTION

# %% ex="11.2" role="check"
moments = check("11.2", moments)

# %% [markdown] ex="11.2" role="hints"
# <details><summary>Hint 1</summary>An expectation is a sum with probabilities as weights:
# <code>chance @ estimates</code> is a mean over trajectories for each parameter, (P,).</details>
# <details><summary>Hint 2</summary>The variance of a parameter is the expectation of its squared distance from its own
# mean: <code>chance @ (estimates - mean) ** 2</code>. <code>x.norm()</code> is the length of a vector.</details>

# %%
def episode_gradients(pi, states, actions, weights):
    """As in lesson 08: of each episode the sum of weight times score, (B, S, A)."""
    places = torch.arange(len(weights))[:, None].expand_as(weights), states, actions
    taken = torch.zeros(len(weights), *pi.shape).to(weights)
    taken.index_put_(places, weights, accumulate=True)
    return taken - taken.sum(-1, keepdim=True) * pi


def measured(target, weights, rollout, chance, world=small, horizon=HORIZON):
    """The moments of weights on listed episodes, as an estimate of the target's gradient."""
    true = mdp.exact_gradient(world, target, horizon)
    steps = rollout.observations, rollout.actions, weights * rollout.mask
    each = episode_gradients(table(target, world), *steps).flatten(1)
    return {name: float(value) for name, value in moments(each, chance, true).items()}


listed, _, chance = mdp.enumerate_trajectories(small, mu, HORIZON)
print(f"{len(chance):,} trajectories, probability {chance.sum():.12f} in all")

# %% tags=["again"]
rho, total = ratio_of(pi, listed, "trajectory"), pg.total_return(listed.rewards, listed.mask)
naive, weighted = (measured(pi, each, listed, chance) for each in (total, rho * total))
print(f"E_μ[ρ] = {chance @ rho[:, 0]:.12f}")
for name, found in (("∇ log π(τ) r(τ)", naive), ("ρ(τ) ∇ log π(τ) r(τ)", weighted)):
    shown = (f"  {key} {found[key]:.3g}" for key in ("bias", "cosine", "length"))
    print(f"{name:22s}", *shown)
guesses.reveal("without_weights", "wrong" if naive["bias"] > 1e-9 else "noisier")
longer = abs(naive["length"] - 1) > 1 - naive["cosine"]
guesses.reveal("what_is_wrong_most", "length" if longer else "direction")

# %% [markdown]
# **What you saw.** [C36] The lecture's $\nabla_\theta J(\theta) \neq \mathbb{E}_{\tau \sim \mu}[\nabla_\theta \log
# \pi_\theta(\tau)\, r(\tau)]$ is not a matter of noise: this is the mean over infinitely many episodes. Here the
# direction is roughly right and the **length** is not. Bad moves that π hardly makes any more are still common in μ's
# data, and each of them pushes again. Remember this when a rollout is used for the second, the third, the sixteenth
# time: the gradient does not learn that its work is done. With $\rho(\tau)$ the mean is exact to rounding.
#
# ## What no weight can repair
# The condition $q > 0$ is not a formality. Suppose μ never moves right in the start cell: a demonstrator who always
# takes the lower road.

# %% tags=["again"]
demonstrator = improved(0)
demonstrator.logits.data[grid.starts[0], 1] = -torch.inf  # action 1 is "right"
demos, _, share = mdp.enumerate_trajectories(small, demonstrator, HORIZON)
covering = ratio_of(pi, demos, "trajectory")
found = measured(pi, covering * pg.total_return(demos.rewards, demos.mask), demos, share)
print(f"E_μ[ρ] = {share @ covering[:, 0]:.3f} instead of 1; bias {found['bias']:.2f}")

# %% [markdown]
# **What you saw.** The mean of the ratio tells how much of π's probability lies on trajectories that μ can produce at
# all. The rest is missing, and no weight brings it back. So "learning from demonstrations", on the lecture's list of
# advantages, holds as far as the demonstrators also do what π would like to try.
#
# ## One ratio, three parts
# At step $t$ the ratio of an episode has a past, a present and a future, and each part has one task:
#
# $$\rho(\tau) = \underbrace{\rho_{1:t-1}}_{\text{which states we are in}} \cdot
#   \underbrace{\rho_t}_{\text{which action is taken}} \cdot
#   \underbrace{\rho_{t+1:T}}_{\text{what happens afterwards}}.$$
#
# Ratios have mean 1 given what came before them, $\mathbb{E}_{a \sim \mu(\cdot \mid s)}[\pi_\theta(a \mid s) / \mu(a
# \mid s)] = 1$. So whatever a term does not depend on may drop its part:
#
# - The reward $r_{t'}$ does not know the actions after $t'$. It needs $\rho_{1:t'}$ and no more ("per decision", Precup
#   et al., 2000).
# - A weight that already is $A^\pi(s_t, a_t)$ on average, such as the TD residual with the exact $V^\pi$, needs no future:
#   $\rho_{1:t}$ will do.
#
# Turn the first one into weights: at step $t$, the sum over $t' \ge t$ of $\rho_{1:t'}\, r_{t'}$.

# %% ex="11.3" title="Each reward its prefix" points=2 minutes=10 difficulty="medium"
def per_decision(rewards, step_ratios, mask):
    """Reward-to-go in which each reward carries the ratio of all actions that led to it.

    rewards, step_ratios (B, T): r_t and π(a_t|s_t) / μ(a_t|s_t); mask (B, T) bool, padding on
    the right -> (B, T): the sum over t' >= t of ρ_1 ... ρ_t' r_t', 0 where mask is False.
    """
    # BEGIN SOLUTION
    prefix = torch.where(mask, step_ratios, 1).cumprod(1)
    weighted = torch.where(mask, prefix * rewards, 0)
    return weighted.flip(1).cumsum(1).flip(1) * mask
    # END SOLUTION

# %% ex="11.3" role="check"
per_decision = check("11.3", per_decision)

# %% [markdown] ex="11.3" role="hints"
# <details><summary>Hint 1</summary>First each reward times the product of all ratios up to its own step, from the
# episode's first. Then sum from t on.</details>
# <details><summary>Hint 2</summary><code>x.cumprod(1)</code> multiplies from the left.
# <code>x.flip(1).cumsum(1).flip(1)</code> sums from the right. Padding must neither multiply nor pay.</details>

# %% [markdown]
# ## Which forms are unbiased?
# The lecture's slide goes on: "usually we re-weight per step",
#
# $$\hat g = \frac{1}{N} \sum_{i=1}^N \left( \sum_{t=1}^T \frac{\pi_\theta(a_t^i \mid s_t^i)}{\mu(a_t^i \mid s_t^i)}
#   \nabla_\theta \log \pi_\theta(a_t^i \mid s_t^i) \right) \sum_{t=1}^T r(s_t^i, a_t^i).$$
#
# This keeps the present and drops past and future. Try the combinations, each as weights $w_t$ of the one estimator
# $\sum_t w_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)$. $G_t$ is the reward-to-go, $T_\tau$ the number of steps that an
# episode acts; $A^\pi = Q^\pi - V^\pi$ and $A^\mu$ are exact and know how much time is left.
#
# | key | weight at step $t$ | | key | weight at step $t$ |
# |---|---|---|---|---|
# | `no_ratio` | $r(\tau)$ | | `step` (the lecture's) | $\rho_t\, r(\tau)$ |
# | `trajectory` | $\rho(\tau)\, r(\tau)$ | | `step_to_go` | $\rho_t\, G_t$ |
# | `trajectory_to_go` | $\rho(\tau)\, G_t$ | | `step_A_mu` | $\rho_t\, A^\mu(s_t, a_t)$ |
# | `prefix_to_go` | $\rho_{1:t}\, G_t$ | | `step_A_pi` | $\rho_t\, A^\pi(s_t, a_t)$ |
# | `prefix_A_pi` | $\rho_{1:t}\, A^\pi(s_t, a_t)$ | | `geometric_mean` (GSPO's) | $\rho(\tau)^{1 / T_\tau}\, r(\tau)$ |
# | `cut_at_1`, `cut_at_5` | $\min(\rho(\tau), c)\, r(\tau)$, $c = 1, 5$ | | `step_clipped` (PPO's) | $\rho_t\, A^\mu$, or 0: written below |

# %% ex="11.4" title="Each form as weights" points=2 minutes=9 difficulty="easy"
def forms(step, prefix, rho, total, to_go, A_pi, A_mu, mask):
    """The weights of every form but the clipped one: {key: (B, T)}, 0 where mask is False.

    step, prefix, rho, the ratio's three forms; total, r(τ) at each step; to_go, G_t; A_pi;
    A_mu: all (B, T) and 0 where mask is False; mask (B, T) bool.
    """
    # BEGIN SOLUTION
    lengths = mask.sum(1, keepdim=True)
    return {
        "no_ratio": total,
        "trajectory": rho * total,
        "trajectory_to_go": rho * to_go,
        "prefix_to_go": prefix * to_go,
        "prefix_A_pi": prefix * A_pi,
        "step": step * total,
        "step_to_go": step * to_go,
        "step_A_mu": step * A_mu,
        "step_A_pi": step * A_pi,
        "geometric_mean": rho ** (1 / lengths) * total,
        "cut_at_1": rho.clamp(max=1) * total,
        "cut_at_5": rho.clamp(max=5) * total,
    }
    # END SOLUTION

# %% ex="11.4" role="check"
forms = check("11.4", forms)

# %% [markdown] ex="11.4" role="hints"
# <details><summary>Hint 1</summary>A dict with twelve entries, most of them a product of two of the arguments. What is 0
# on padding stays 0 in a product.</details>
# <details><summary>Hint 2</summary><code>rho.clamp(max=5)</code> is min(ρ, 5). The steps that an episode acts:
# <code>mask.sum(1, keepdim=True)</code>; padding does not count.</details>

# %%
def listed_values(policy):
    """V_t(s_t) and A_t(s_t, a_t) of a policy at every listed step."""
    V = mdp.horizon_values(small, table(policy), HORIZON)
    A = torch.stack([mdp.action_values(small, after) for after in V[1:]]) - V[:-1, :, None]
    t = torch.arange(HORIZON).expand_as(listed.mask)
    here = V[t, listed.observations] * listed.mask
    return here, A[t, listed.observations, listed.actions] * listed.mask


def weights_of(target):
    """The weights of every form on the listed episodes, for a target policy, by name."""
    rewards, mask = listed.rewards, listed.mask
    kinds = ("step", "prefix", "trajectory")
    step, prefix, rho = (ratio_of(target, listed, kind) for kind in kinds)
    (V, A_pi), (_, A_mu) = listed_values(target), listed_values(mu)
    to_go = pg.reward_to_go(rewards, mask)
    residual = pg.advantage(rewards, V, mask, torch.zeros_like(chance), lam=0.0)
    return {
        **forms(step, prefix, rho, total, to_go, A_pi, A_mu, mask),
        "each_reward_its_prefix": per_decision(rewards, step, mask),
        "prefix_residual_of_V_pi": prefix * residual,
        "step_clipped": pg.clipped_weights(step, A_mu),
    }


# %% [markdown]
# For each: bias, cosine with the true gradient, the noise of **one** episode, and the error of an average of $N$ that
# follows. The first row is the yardstick, fresh episodes of π: in the list of all trajectories, π's probability of one
# is μ's times ρ.

# %% tags=["again"]
rows = {"fresh episodes of π": measured(pi, total, listed, chance * rho[:, 0])}
rows |= {name: measured(pi, each, listed, chance) for name, each in weights_of(pi).items()}
print(f"{'':24s}  bias     cosine   noise  error: N=10  N=1,000")
for name, found in rows.items():
    errors = [(found["bias"] ** 2 + found["noise"] ** 2 / N) ** 0.5 for N in (10, 1000)]
    print(f"{name:24s}  {found['bias']:7.1e} {found['cosine']:7.3f} {found['noise']:7.2f} "
          f"{errors[0]:11.2f} {errors[1]:8.2f}")

# %% [markdown]
# **What you saw.** [C37] Five forms are exact to rounding: the whole ratio with any Monte Carlo return, each reward
# with its prefix, and the prefix with the TD residual or the advantage of the exact $V^\pi$. The lecture's per-step form
# is biased. So is the prefix with reward-to-go, which looks so reasonable: the states and the action are repaired, but
# the rewards that follow were earned by μ. And so are GSPO's ratio of a whole response, the geometric mean of its steps'
# ratios (lesson 13), and PPO's clip, most of all that have a ratio: this far from μ a bias of 1 and a cosine of 0.09 say
# that next to nothing of the gradient is left. That is no accident; see below.
#
# Three rows agree in their bias to every digit: `step`, `step_to_go`, `step_A_mu`. Why?
#
# $$\mathbb{E}_\mu\Big[\sum_t \rho_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)\, r(\tau)\Big]
#   = \sum_t \sum_s \Pr\nolimits_\mu(s_t = s) \sum_a \nabla_\theta \pi_\theta(a \mid s)\; Q^\mu_t(s, a).$$
#
# Past rewards and baselines vanish as they did in lesson 09, because $\rho_t$ makes the action π's own. What remains is
# μ's states and μ's future: the gradient of a **surrogate**, which touches J at $\pi = \mu$ and bends away from it. So
# use this form with $A^\mu$, which has the same mean as the others and by far the least noise of the three. PPO does.
#
# With one step per episode there is no past and no future. Then the per-step form must be exact. (From the start cell
# one step earns −0.1 whatever it is, so let this one-step episode start anywhere.)

# %% tags=["again"]
anywhere = replace(small, start=(~small.terminal).double() / (~small.terminal).sum())
once, _, share = mdp.enumerate_trajectories(anywhere, mu, 1)
weights = ratio_of(pi, once, "step") * pg.total_return(once.rewards, once.mask)
found = measured(pi, weights, once, share, world=anywhere, horizon=1)
print(f"T = 1: bias of the per-step form {found['bias']:.1e}")

# %% [markdown]
# ### How far is far?
# The distance between two policies, as their trajectories see it, is $\mathrm{KL}(\pi \| \mu) = \mathbb{E}_\pi[\log
# \rho(\tau)]$. The dynamics have dropped out of $\rho$, and the logarithm makes a sum of the product: KL obeys a
# recursion like a value function, with $\log \rho_t$ for the reward. So does $\mathbb{E}_\mu[\rho^2]$, which will tell
# how much the weights vary, as a product: a step multiplies by $\rho_t^2$. With $h$ steps left,
#
# $$\mathrm{KL}_h(s) = \sum_a \pi(a \mid s) \Big[\log \frac{\pi(a \mid s)}{\mu(a \mid s)}
#   + \sum_{s'} p(s' \mid s, a)\, \mathrm{KL}_{h-1}(s')\Big], \qquad
#   M_h(s) = \sum_a \mu(a \mid s) \Big(\frac{\pi(a \mid s)}{\mu(a \mid s)}\Big)^2 \sum_{s'} p(s' \mid s, a)\, M_{h-1}(s').$$
#
# Where an episode has ended nobody acts any more: what are KL and $M$ there, and with no steps left?

# %% ex="11.5" title="Distance of two policies" points=2 minutes=12 difficulty="medium"
def distance(world, pi, mu, horizon):
    """{"kl": KL(π‖μ) of whole trajectories, nats; "second": E_μ[ρ²]}, exact, numbers.

    pi, mu (S, A), probabilities above 0; world.P (S, A, S), world.start (S,) probabilities,
    world.terminal (S,) True where an episode is over; at most `horizon` steps.
    """
    # BEGIN SOLUTION
    kl, second = torch.zeros_like(world.start), torch.ones_like(world.start)
    for _ in range(horizon):
        here = (pi * ((pi / mu).log() + world.P @ kl)).sum(1)
        kl = torch.where(world.terminal, 0.0, here)
        here = (pi**2 / mu * (world.P @ second)).sum(1)
        second = torch.where(world.terminal, 1.0, here)
    return {"kl": world.start @ kl, "second": world.start @ second}
    # END SOLUTION

# %% ex="11.5" role="check"
distance = check("11.5", distance)

# %% [markdown] ex="11.5" role="hints"
# <details><summary>Hint 1</summary>Start with no steps left, a KL of 0 and a ratio of 1 in every state, and apply the
# recursion <code>horizon</code> times; then put a terminal state back to 0 and 1 each time. At the end take the
# expectation over first states.</details>
# <details><summary>Hint 2</summary><code>world.P @ x</code> is the expectation of x (S,) over next states, (S, A). The
# mean of ρ² under μ is a sum of π² / μ.</details>

# %% tags=["again"]
exact = distance(small, table(pi), table(mu), HORIZON)
by_listing = chance @ (rho[:, 0] * rho[:, 0].log())
print(f"KL(π‖μ) = {exact['kl']:.3f} nats per episode; by listing: {by_listing:.3f}")
print(f"E_μ[ρ²] = {exact['second']:.3f}; by listing: {chance @ rho[:, 0] ** 2:.3f}")

# %%
CHOSEN = ["no_ratio", "step", "step_A_mu", "cut_at_5", "trajectory", "prefix_residual_of_V_pi"]
path, relative = [], {name: [] for name in CHOSEN}  # KL; (bias, noise / that of a fresh one)
for steps in progress((1, 2, 3, 4, 6, 8, 10, 12, 14), "targets"):
    target = improved(steps)
    path.append(float(distance(small, table(target), table(mu), HORIZON)["kl"]))
    fresh = chance * ratio_of(target, listed, "trajectory")[:, 0]
    yardstick, every = measured(target, total, listed, fresh)["noise"], weights_of(target)
    for name in CHOSEN:
        found = measured(target, every[name], listed, chance)
        relative[name].append((found["bias"], found["noise"] / yardstick))

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.8, 2.5), layout="constrained")
for index, (name, pairs) in enumerate(relative.items()):
    style = {"color": figures.COLORS[index], "marker": figures.MARKERS[index], "markersize": 4,
             "linestyle": figures.DASHES[index % 4]}
    biases, noises = zip(*pairs)
    right.plot(path, noises, label=name, **style)
    if max(biases) > 1e-9:
        left.plot(path, biases, **style)
left.set(title="Bias (two forms have none)", xlabel="KL(π‖μ), nats per episode",
         ylabel="bias / length of ∇J", yscale="log", ylim=(1e-3, None))
right.set(title="Noise of one episode", xlabel="KL(π‖μ), nats per episode",
          ylabel="noise / that of a fresh one")
figure.legend(loc="outside right center", frameon=False, fontsize=8)
ends = [f"{name}: {pairs[-1][0]:.2f}, {pairs[-1][1]:.1f}" for name, pairs in relative.items()]
show(figure, alt=f"Bias and noise of six forms against KL. At the largest {'; '.join(ends)}.")

# %% [markdown]
# **What you saw.** Close to μ everything is nearly right, weighted or not; there a per-step ratio hardly improves on no
# ratio at all. Further away the unweighted gradient becomes several times too long, per-step stays within bounds, and
# cutting the ratio trades some noise for bias. The unbiased forms pay with noise: against fresh episodes of π, the
# trajectory ratio does so ever more. The prefix with an exact critic pays too, and stays below them all the same; with
# a critic that is only fitted (lesson 10) it would have a bias of its own.

# %% [markdown]
# ## Self-normalised weights
# Sampled ratios do not average to 1, though they should. Dividing by their own average takes that fluctuation out:
# $\bar\rho_i = \rho_i \,/\, \frac{1}{N} \sum_j \rho_j$. Now the sample stands above and below the fraction bar, so the
# estimate is biased, by $O(1/N)$.
#
# Which $j$, at a step that some episodes do not reach? **All $N$.** Ratios average to 1 over the episodes of μ, all of
# them; one that has ended decides nothing more and keeps the ratio of its last action. Which ones are still acting at
# step $t$ depends on the policy, and the ratios of these average to $\Pr_\pi(\text{still acting at } t) \,/\,
# \Pr_\mu(\text{still acting at } t)$. To divide by that is to take back a part of the correction, and no $N$ repairs it.
#
# There are two ways to count everybody: step by step, where ended episodes keep their ratio; or once, dividing
# everything by the mean of the ratios with which the episodes end. For $\rho(\tau)$, the same at every step, they are one.

# %% ex="11.6" title="Self-normalised ratios" points=2 minutes=10 difficulty="medium"
def self_normalized(ratios, mask):
    """Ratios divided by their mean over all episodes, step by step or once: both pass.

    ratios (B, T), ρ(τ) or the prefix's ratio at each step, with anything finite on padding;
    mask (B, T) bool, True for the first steps of a row, one at least -> (B, T), 0 where False.
    """
    # BEGIN SOLUTION
    last = mask.sum(1, keepdim=True) - 1  # of each episode, (B, 1)
    steps = torch.arange(mask.shape[1]).expand_as(mask)
    carried = ratios.gather(1, torch.minimum(steps, last))  # ended ones stay at their last
    return torch.where(mask, ratios / carried.mean(0), 0)
    # END SOLUTION

# %% ex="11.6" role="check"
self_normalized = check("11.6", self_normalized)

# %% [markdown] ex="11.6" role="hints"
# <details><summary>Hint 1</summary>Episodes are rows: the mean runs over dimension 0, and over all of them. What stands
# on padding is no ratio: put there the last one of the row.</details>
# <details><summary>Hint 2</summary><code>last = mask.sum(1, keepdim=True) - 1</code> is the step of a row's last action,
# and <code>ratios.gather(1, last)</code> its ratio; <code>torch.minimum(steps, last)</code> in the place of
# <code>last</code> goes along with the row and then stays. Either of them has a mean over rows.</details>

# %% [markdown]
# Does it approach the exact gradient? π again, $\rho(\tau)$ times return, up to 400,000 episodes of two to four steps;
# beside it the plain ratio, and the mean over the episodes that are still acting.

# %%
def over_those_acting(ratios, mask):
    """The tempting one."""
    return torch.where(mask, ratios / pg.mean_baseline(ratios, mask), 0)


def estimated(normalize, drawn):
    """The error of one estimate from a sample of trajectories, by their numbers."""
    weights = normalize(rho[drawn], listed.mask[drawn]) / len(drawn)
    counted = torch.zeros_like(rho).index_add(0, drawn, weights)  # equal ones added up
    everything = torch.ones(len(chance)).double()
    return measured(pi, counted * total, listed, everything)["bias"]


DIVIDED = {"nothing": lambda ratios, mask: ratios, "the mean over all": self_normalized,
           "the mean over those acting": over_those_acting}

# %% tags=["again"]
source, sizes = seeded(), (400, 4_000, 40_000, 400_000)
samples = [torch.multinomial(chance, N, replacement=True, generator=source) for N in sizes]
print("relative error, ratios divided by", *(f"{N:9,d}" for N in sizes), "episodes")
for name, normalize in DIVIDED.items():
    print(f"{name:33s}", *(f"{estimated(normalize, drawn):9.3f}" for drawn in samples))
acting = listed.mask.double()
alive = (chance * rho[:, 0]) @ acting / (chance @ acting)
print("still acting at each step, π against μ:", *(f"{share:.2f}" for share in alive.tolist()))

# %% [markdown]
# **What you saw.** Divided by the mean over all, the error falls with $1/\sqrt N$ as the plain one does, and with 400
# episodes, in this one sample, it is the smaller. Over those still acting it stops at about a third: π ends its episodes
# sooner than μ, so later steps were divided by about a half. Lengths differ in every batch of responses; watch for this
# mean.
#
# What is left is the $O(1/N)$. $N$ episodes at a time, many times: measure how much of the true
# gradient's length arrives on average, $\mathbb{E}[\hat g] \cdot \nabla J / |\nabla J|^2$, and what is missing to 1. Take a
# target that is nearer to μ, six steps up. To first order in $1/N$ theory expects a bias of
# $-\frac1N \mathbb{E}_\mu[\rho^2 (f - 1)]$, with $f$ an episode's unweighted share of the gradient.

# %% tags=["again"]
nearer = improved(6)
true = mdp.exact_gradient(small, nearer, HORIZON)
ratios = ratio_of(nearer, listed, "trajectory")
each = episode_gradients(table(nearer), listed.observations, listed.actions, total).flatten(1)
part, source = each @ true / true.norm() ** 2, seeded()  # f: (trajectories,)
print("   N   plain: bias          spread   self-normalised: bias     spread   N × bias")
for N in (4, 8, 16, 32):
    drawn = torch.multinomial(chance, args.batches * N, replacement=True, generator=source)
    plain = ratios[drawn.view(N, -1), 0]  # a row per episode, a column per batch
    pair = [(x * part[drawn.view(N, -1)]).mean(0) - 1 for x in (plain, plain / plain.mean(0))]
    (low, e, s), (bias, error, spread) = [
        (float(x.mean()), float(1.96 * x.std() / len(x) ** 0.5), float(x.std())) for x in pair]
    print(f"{N:4d}   {low:+.3f} ± {e:.3f} {s:10.2f}       {bias:+.3f} ± {error:.3f} "
          f"{spread:10.2f}    {N * bias:+9.2f} ± {N * error:.2f}")
expected = -float(chance @ (ratios[:, 0] ** 2 * (part - 1)))
print(f"expected of N × bias for large N: {expected:+.2f}")

# %% [markdown]
# **What you saw.** The plain form shows no bias. Self-normalised weights are biased, here towards too little, and $N$
# times the bias settles where theory says: $O(1/N)$. In exchange the spread is smaller, most of all for small $N$: an
# average whose weights sum to one never leaves the range of what was sampled; a plain one can.
#
# ## When will the ratio blow up?
# The lecture asks it and answers "$\pi_\theta$ and μ cannot be too different". Put numbers to it. How many episodes
# of π are $N$ weighted ones worth? Kong's **effective sample size**:
#
# $$\mathrm{ESS} = \frac{(\sum_i \rho_i)^2}{\sum_i \rho_i^2}, \qquad
#   \frac{\mathrm{ESS}}{N} \;\to\; \frac{1}{\mathbb{E}_\mu[\rho^2]} \;\le\; e^{-\mathrm{KL}(\pi \| \mu)}.$$
#
# The bound is one line: $\mathbb{E}_\mu[\rho^2] = \mathbb{E}_\pi[\rho] = \mathbb{E}_\pi[e^{\log \rho}] \ge
# e^{\mathbb{E}_\pi[\log \rho]} = e^{\mathrm{KL}}$ (Jensen). And KL is a sum over steps. **The worth of old data falls
# at least exponentially in KL, and KL grows with the length of an episode.**
#
# In practice there is no recursion, only a batch of μ's episodes. Write what can be computed from their log-ratios
# $\ell_i = \log \rho_i$, so that it survives log-weights of ±1,000, whose exponential is infinite or 0: the ESS;
# $\mathrm{KL}(\pi \| \mu) = \mathbb E_\mu[\rho \log \rho]$, self-normalised; and the KL the other way round,
# $\mathrm{KL}(\mu \| \pi) = \mathbb E_\mu[-\log \rho]$, which needs no weights.

# %% ex="11.7" title="What a batch of old episodes says" points=2 minutes=10 difficulty="medium"
def seen_from_behind(log_ratios):
    """From log ρ(τ) of episodes of μ alone, (B,), of any size: a dict of numbers,

    "ess", (Σ ρ)² / Σ ρ², in [1, B]; "forward", the self-normalised estimate of KL(π‖μ),
    Σ ρ log ρ / Σ ρ; "backward", the estimate of KL(μ‖π), the mean of -log ρ.
    """
    # BEGIN SOLUTION
    weights = (log_ratios - log_ratios.max()).exp()
    shares = weights / weights.sum()
    return {
        "ess": 1 / (shares**2).sum(),
        "forward": (shares * log_ratios).sum(),
        "backward": -log_ratios.mean(),
    }
    # END SOLUTION

# %% ex="11.7" role="check"
seen_from_behind = check("11.7", seen_from_behind)

# %% [markdown] ex="11.7" role="hints"
# <details><summary>Hint 1</summary>Multiply every ρ by the same constant: what happens to the ESS, and to a
# self-normalised mean? Choose the constant so that the largest weight is 1.</details>
# <details><summary>Hint 2</summary>Subtract <code>log_ratios.max()</code> before <code>exp()</code>. Divide the weights
# by their sum: then the ESS is 1 / Σ share², and the mean is Σ share · log ρ, with the log-ratio as it was.</details>

# %% [markdown]
# Now a larger world, 8 × 8 and empty, and long episodes. μ is uniform; π adds Gaussian noise of size $\varepsilon$ to
# μ's logits: the two disagree everywhere, a little and without purpose. For small $\varepsilon$ the ratio of a step is
# off from 1 by about $0.87\,\varepsilon$ (noise that a state's four actions share cancels).

# %%
wide, TIMES, EPSILONS = GridWorld("empty-8x8").to_mdp(), (1, 4, 16, 64), (0.1, 0.2, 0.4, 0.8)


def jittered(epsilon):
    """The uniform policy with noise on its logits."""
    policy = TabularPolicy(wide.states, wide.actions).double()
    noise = torch.randn(policy.logits.shape, generator=seeded()).double()
    policy.logits.data += epsilon * noise
    return policy


uniform, targets = table(jittered(0), wide), {e: jittered(e) for e in EPSILONS}
walks, _ = collect(wide, jittered(0), 1000, horizon=64, generator=seeded(1))
logs = {}  # of each ε, log ρ of the first t steps, (episodes, T); one that has ended stays
for epsilon, target in targets.items():
    log_ratios = action_logprobs(target, walks).detach() - walks.logprobs
    logs[epsilon] = torch.where(walks.mask, log_ratios, 0).cumsum(1)

# %% tags=["again"]
worth = {e: [] for e in EPSILONS}  # of each number of steps (KL, exact share, sampled share)
print("            spread       worth of 1,000 episodes      KL(π‖μ)            KL(μ‖π)")
print("  ε  steps  of log ρ   exact  sampled  exp(-KL)     exact  sampled     exact  sampled")
for epsilon, target in targets.items():
    for T in TIMES:
        there, back = (distance(wide, *pair, T) for pair in (
            (table(target, wide), uniform), (uniform, table(target, wide))))
        log_rho, kl = logs[epsilon][:, T - 1], float(there["kl"])
        found, fraction = seen_from_behind(log_rho), 1 / float(there["second"])
        worth[epsilon].append((kl, fraction, float(found["ess"]) / len(log_rho)))
        print(f"{epsilon:3.1f} {T:6d} {log_rho.std():9.2f} {1000 * fraction:7.1f} "
              f"{found['ess']:8.1f} {1000 * math.exp(-kl):9.1f} {kl:9.3f} "
              f"{found['forward']:8.3f} {back['kl']:9.3f} {found['backward']:8.3f}")
guesses.reveal("worth_of_1000_episodes", round(1000 * worth[0.2][-1][1]))

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.2, 3.0), layout="constrained")
T = torch.arange(1, 65)
for index, (epsilon, sums) in enumerate(logs.items()):
    style = {"color": figures.COLORS[index], "linestyle": figures.DASHES[index]}
    left.plot(T, sums.std(0), label=f"ε = {epsilon}", **style)
    left.plot(T, 3**0.5 / 2 * epsilon * T**0.5, color="gray", linestyle=":", linewidth=1)
    KL, exact_share, sampled_share = zip(*worth[epsilon])
    figures.scatter_ess(right, KL, sampled_share, f"ε = {epsilon}", index)
    right.plot(KL, exact_share, linewidth=1, **style)
bound = torch.linspace(0, 14, 50)
right.plot(bound, (-bound).exp(), color="black", linestyle=":", label="exp(−KL)")
left.set(title="Spread of log ρ (gray: 0.87 ε √steps)", xlabel="steps of the episode",
         ylabel="std of log ρ, nats", xscale="log", yscale="log", ylim=(0.01, 20))
left.set_xticks(TIMES, TIMES)
left.legend(fontsize=8, loc="upper left", ncols=2)
right.set(title="Dots: sampled; lines: exact", ylim=(3e-4, 1.5), xlim=(-0.3, 10.5))
right.legend(fontsize=8, loc="upper right")
show(figure, alt="Left: the standard deviation of the log-ratio grows with the square root of "
     "the steps, the more the larger ε. Right: effective sample size against KL lies below "
     "exp(−KL) for every ε; far out most of the sampled dots lie above the exact lines.")

# %% [markdown]
# **What you saw.** [C38] The logarithm of the ratio is a sum of small terms, a random walk: its spread grows with
# $\sqrt T$ and with $\varepsilon$ (after one step only the start's four logits count, small ones here). The *weights*
# are its exponential, and soon a few episodes outweigh all others.
#
# Look where the dots leave the lines. When the blow-up is bad, the sampled ESS is **too optimistic**: the trajectories
# that would carry almost all the weight are so rare under μ that none of the 1,000 is one. A small ESS is a reliable
# alarm, but does not say how bad it is: 6.6 where it is 0.0. The weighted estimate of KL(π‖μ) is blind in the same way:
# 2.3 nats instead of 10 in the last row. The exact KL is not blind, nor is a mean over episodes of *π*. And KL(μ‖π), a
# plain mean over the episodes at hand, is right in every row, up to the noise of 1,000 episodes. That is the distance to
# watch when all you have is old data.
#
# For a language model a step is a token. Suppose that π is *at least* 0.01 nats per token away from μ, in KL(π‖μ):

# %%
for tokens in (10, 100, 1000):
    most = 10_000 * math.exp(-0.01 * tokens)
    print(f"{tokens:5d} tokens: of 10,000 responses at most {most:,.1f} count")

# %% [markdown]
# ("At most 0.01 nats" would promise nothing: a KL bounded from above leaves $\mathbb E_\mu[\rho^2]$ free to be as large as
# it likes.) So a product of ratios over a whole long response is hardly ever used. GSPO, which gives a whole response one
# ratio, takes the geometric mean of its steps, near 1 by construction. The usual form is the per-step one, bias and all:
# its weights stay near 1 as long as π stays near μ *at each step*.
#
# [Explore it](../docs/interactive/token_credit.html): ratios per token, per prefix and of the whole answer, a cap, a
# clip, and the effective sample size.
#
# ## The temptation: reuse
# Collecting is expensive, gradient steps are cheap. So take several steps per rollout. From the second on, the rollout's
# policy is μ and the current one is π: reuse **is** off-policy learning. Write the loop: the one loss of the course,
# $-\frac1N \sum_i \sum_t w_t \log \pi_\theta(a_t \mid s_t)$, again and again on the same episodes, with weights that know
# how far the policy has come.

# %% ex="11.8" title="Several steps on one rollout" points=2 minutes=12 difficulty="medium"
def reuse(policy, optimizer, rollout, advantages, form, epochs):
    """Take `epochs` steps of the optimizer on one rollout, each with weights of its own.

    policy(observations (B, T)) -> logits (B, T, A), with gradient; rollout has .observations,
    .actions, .mask and, of the policy that sampled it, .logprobs, each (B, T). The weights are
    `advantages` (B, T), times the ratio of that form, of the policy before the step, to the
    one that sampled; "no": without a ratio.
    """
    # BEGIN SOLUTION
    for _ in range(epochs):
        logits = policy(rollout.observations).log_softmax(-1)
        logprobs = logits.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
        weights = advantages
        if form != "no":
            weights = advantages * ratio(logprobs, rollout.logprobs, rollout.mask, form)
        loss = -(weights * logprobs * rollout.mask).sum() / len(rollout.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # END SOLUTION

# %% ex="11.8" role="check"
reuse = check("11.8", reuse)

# %% [markdown] ex="11.8" role="hints"
# <details><summary>Hint 1</summary>The loop of lesson 08 without sampling: log-probabilities, weights, loss,
# <code>zero_grad</code>, <code>backward</code>, <code>step</code>, and all of it anew in every epoch.</details>
# <details><summary>Hint 2</summary><code>logits.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)</code> picks the
# taken actions. Divide by the number of episodes, and let padding not count.</details>

# %% [markdown]
# The world is the default map with slips, return 1 at the star, −1 in the pit; 64 episodes of at most 30 steps (the time
# limit is part of the task) per rollout, Adam, and as advantage the return minus the mean of the other episodes (lesson
# 09). After each rollout the exact $J$, and how far the rollout has moved the policy, $\mathrm{KL}(\pi \| \mu)$ of whole
# episodes.

# %%
maze, LIMIT, EPISODES = GridWorld("default", slip=0.1).to_mdp(), 30, 64


def maze_rollout(policy, source):
    """A rollout and its advantages, each return minus the mean of the other episodes'."""
    rollout, _ = collect(maze, policy, EPISODES, horizon=LIMIT, generator=source)
    returns = pg.total_return(rollout.rewards, rollout.mask)
    return rollout, (returns - pg.leave_one_out(returns[:, 0])[:, None]) * rollout.mask


def learn(improve, seed, lr=0.2, rollouts=args.rollouts):
    """From the uniform policy: J before and after each rollout, and how far each moved it."""
    policy, source = TabularPolicy(maze.states, maze.actions).double(), seeded(seed)
    adam, pis = torch.optim.Adam(policy.parameters(), lr=lr), [table(policy, maze)]
    for _ in range(rollouts):
        improve(policy, adam, *maze_rollout(policy, source))
        pis.append(table(policy, maze))
    moves = [float(distance(maze, new, old, LIMIT)["kl"]) for old, new in zip(pis, pis[1:])]
    return [float(mdp.objective(maze, each, LIMIT)) for each in pis], moves


# %%
HEADER = " " * 25 + "final J, 95 % interval  worst  below 0.1   longest move, nats"


def study(name, improve, lr=0.2):
    """Learn with several seeds and print how it ended: the curves (runs, rollouts + 1)."""
    both = [learn(improve, seed, lr) for seed in progress(range(args.runs), name)]
    curves, moves = (torch.tensor(each) for each in zip(*both))
    final, longest = curves[:, -1], moves.max(1).values.median()
    e = over_seeds(final.tolist())
    print(f"{name:24s} {e.mean:5.2f} [{e.low:5.2f}, {e.high:5.2f}] {final.min():8.2f} "
          f"{(final < 0.1).sum():6d} of {len(final)} {longest:12.2f}")
    return curves


def reusing(*form_and_epochs):
    """What `learn` calls for a form of the ratio and a number of epochs."""
    return lambda *given: reuse(*given, *form_and_epochs)


print(HEADER)
curves = {("no", 1): study("no ratio, 1 epoch", reusing("no", 1))}
for epochs in (4, 16):
    for form in ("no", "trajectory", "step"):
        name = f"{form} ratio, {epochs} epochs"
        curves[form, epochs] = study(name, reusing(form, epochs))

# %% [markdown]
# **What you saw.** One epoch per rollout learns slowly; after twenty rollouts some runs have not got anywhere yet. With
# more epochs part of the runs end at a return near 0: where neither star nor pit is met all returns are equal, and the
# gradient is 0. With sixteen epochs all three have a lower mean than with one, and with the step's ratio every run is
# lost. Why?
#
# - *No ratio*: the gradient goes on pushing what it has pushed already, as the first table said it would.
# - *Step ratio*: worse still, for where $A > 0$ every push makes the ratio larger, and so the next push.
# - *Trajectory ratio*: it does discount what is out of date, and with four epochs it loses no run; with sixteen the
#   longest move is 15 nats, at which by the bound above not one of 64 episodes counts.
#
# Look at the last column, the longest move of a run (the median over runs). A single rollout carried these policies many nats away. By the bound above next to nothing of
# its 64 episodes still counted, and every further step was taken on their word.
#
# ## PPO's clip
# The way out is not a better weight for far-away data. It is **not to go far away**. For an action with $A > 0$ the
# policy gains by raising $\rho_t$: let it, up to $1 + \varepsilon$. For $A < 0$, down to $1 - \varepsilon$. Past that, this
# episode has had its say. Schulman et al. (2017) write it as an objective,
#
# $$L(\theta) = \mathbb{E}_\mu\Big[\min\big(\rho_t A_t,\; \mathrm{clip}(\rho_t, 1 - \varepsilon, 1 + \varepsilon)\, A_t\big)\Big],$$
#
# and since $\nabla_\theta \rho_t = \rho_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)$, its gradient is the one loss of this course with
# the weight $\rho_t A_t$ where the min takes the unclipped side, and 0 where it takes the clipped one, which is constant.

# %% ex="11.9" title="PPO's clip as weights" points=2 minutes=12 difficulty="hard"
def clipped_weights(ratios, advantages, epsilon=0.2):
    """The weight of ∇ log π in the gradient of PPO's objective: ratio times advantage, or 0.

    ratios, advantages (B, T) without gradient; epsilon > 0 -> (B, T).
    """
    # BEGIN SOLUTION
    used_up = torch.where(advantages > 0, ratios > 1 + epsilon, ratios < 1 - epsilon)
    return torch.where(used_up, 0, ratios * advantages)
    # END SOLUTION

# %% ex="11.9" role="check"
clipped_weights = check("11.9", clipped_weights)

# %% [markdown] ex="11.9" role="hints"
# <details><summary>Hint 1</summary>Go through four cases: A positive or negative, ratio above 1 + ε or below 1 − ε. In
# which two is the minimum the clipped term?</details>
# <details><summary>Hint 2</summary>An action that became *more* likely though A &lt; 0 (its ratio is above 1 + ε) must be
# pushed back with full force: there the minimum is the unclipped term.</details>

# %% [markdown]
# ## A stop
# The clip is no wall: other episodes and Adam's momentum go on moving a clipped action. So in practice one watches the
# distance as well, and stops the epochs of a rollout where it gets too large. Which distance, from μ's own actions? KL(μ‖π), per step: the mean of
# $-\log \rho_t$, as in 11.7. For small distances that is a mean of terms of both signs, noisy and sometimes negative. Since
# $\mathbb E_\mu[\rho_t - 1] = 0$, one may add $\rho_t - 1$ without changing the mean:
#
# $$\widehat{\mathrm{KL}} = \text{mean over acted steps of } \; (\rho_t - 1) - \log \rho_t \;\ge\; 0,$$
#
# no term of which is negative (Schulman's "k3"; lesson 13 compares it with its rivals).

# %% ex="11.10" title="The distance that stops" points=1 minutes=7 difficulty="easy"
def kl_from_rollout(logprobs, behavior_logprobs, mask):
    """The mean over all acted steps of (ρ_t - 1) - log ρ_t, ρ_t = π / μ: nats, a number.

    logprobs (B, T) under π, maybe with gradient; behavior_logprobs (B, T) under μ;
    mask (B, T) bool.
    """
    # BEGIN SOLUTION
    log_ratios = (logprobs.detach() - behavior_logprobs)[mask]
    return (log_ratios.exp() - 1 - log_ratios).mean().item()
    # END SOLUTION

# %% ex="11.10" role="check"
kl_from_rollout = check("11.10", kl_from_rollout)

# %% [markdown] ex="11.10" role="hints"
# <details><summary>Hint 1</summary><code>x[mask]</code> takes the acted steps of all episodes, in one row.</details>
# <details><summary>Hint 2</summary>log ρ is the difference of the log-probabilities, π's minus μ's, and ρ its
# exponential; μ sampled, so it stands below.</details>

# %% [markdown]
# ## PPO, whole
# Now put it together: the epochs of 11.8, the step's ratio, the clip, and a look at the distance *before* each step. Keep
# a log, as everybody who runs PPO does: the distance, and the share of steps that are clipped.

# %% ex="11.11" title="PPO's epochs" points=4 minutes=16 difficulty="hard"
def ppo(policy, optimizer, rollout, advantages, epochs, epsilon, most):
    """PPO on one rollout: at most `epochs` steps, and none from a KL above `most` on.

    policy, optimizer, rollout as in 11.8; advantages (B, T), 0 on padding; epsilon > 0;
    most, nats per step, the largest `kl_from_rollout` with which a step is still taken.
    Returns a list with one pair for each step taken, of the numbers before it: (KL, share of
    the acted steps whose weight is 0).
    """
    # BEGIN SOLUTION
    log = []
    for _ in range(epochs):
        logits = policy(rollout.observations).log_softmax(-1)
        logprobs = logits.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
        kl = kl_from_rollout(logprobs, rollout.logprobs, rollout.mask)
        if kl > most:
            break
        ratios = ratio(logprobs, rollout.logprobs, rollout.mask, "step")
        weights = clipped_weights(ratios, advantages, epsilon)
        log.append((kl, (weights == 0)[rollout.mask].double().mean().item()))
        loss = -(weights * logprobs * rollout.mask).sum() / len(rollout.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return log
    # END SOLUTION

# %% ex="11.11" role="check"
ppo = check("11.11", ppo)

# %% [markdown] ex="11.11" role="hints"
# <details><summary>Hint 1</summary>Start from 11.8, with <code>ratio(…, "step")</code> and <code>clipped_weights</code>
# for the weights. The KL comes first in each epoch: if it is too large, leave the loop, and note nothing.</details>
# <details><summary>Hint 2</summary><code>(weights == 0)[rollout.mask].double().mean().item()</code> is a share of acted
# steps. The loss is over all episodes, whatever was clipped: divide by their number.</details>

# %% tags=["again"]
policy = TabularPolicy(maze.states, maze.actions).double()
adam = torch.optim.Adam(policy.parameters(), lr=0.2)
log = ppo(policy, adam, *maze_rollout(policy, seeded()), epochs=16, epsilon=0.2, most=math.inf)
print("before step  KL, nats per step  clipped")
for step in (1, 2, 3, 4, 8, 16):
    print(f"{step:11d} {log[step - 1][0]:18.4f} {log[step - 1][1]:8.0%}")

# %% [markdown]
# One rollout, sixteen steps, from the uniform policy. Before the first step every ratio is 1, the distance 0, and
# nothing can be clipped. Two steps later more than a third of the rollout is used up, and the distance is 0.045 nats per
# step; then it hardly goes further, though thirteen more steps are taken.
#
# And now learning: the clip alone, the stop alone (ε = 10⁹ clips nothing), and both.

# %%
NEVER = 1e9
SETTINGS = {"clip": (0.2, NEVER), "stop": (NEVER, 0.05), "clip and stop": (0.2, 0.05)}


def with_ppo(name, epochs):
    """What `learn` calls for a setting."""
    return lambda *given: ppo(*given, epochs, *SETTINGS[name])


print(HEADER)
for epochs in (4, 16):
    curves["clip", epochs] = study(f"clip, {epochs} epochs", with_ppo("clip", epochs))
for name in ("stop", "clip and stop"):
    curves[name, 16] = study(f"{name}, 16 epochs", with_ppo(name, 16))
print("16 epochs, final J of clip and stop minus that of")
for name in ("no", "trajectory", "step", "stop", "clip"):
    better = over_seeds((curves["clip and stop", 16] - curves[name, 16])[:, -1].tolist())
    print(f"    {name:17s} {better}")

# %%
def learning(axes, key, name, index):
    """The mean with its 95 % band; where each run ends as a dot: a mean can hide two kinds."""
    found = curves[key]
    means = [over_seeds(each.tolist()) for each in found.T]
    figures.curve(axes, range(args.rollouts + 1), means, name, index)
    axes.scatter([args.rollouts + 1 + index] * len(found), found[:, -1], s=5,
                 color=figures.COLORS[index])


figure, panels = pyplot.subplots(1, 2, figsize=(7.8, 2.8), sharey=True, layout="constrained")
for axes, epochs in zip(panels, (4, 16)):
    one = curves["no", 1].mean(0)
    axes.plot(one, color="black", linestyle=":", label="1 epoch, mean")
    shown_names = [name for name in ("no", "trajectory", "step", "clip", "clip and stop")
                   if (name, epochs) in curves]
    for index, name in enumerate(shown_names):
        label = f"{name} ratio" if index < 3 else name
        learning(axes, (name, epochs), label, index)
    axes.set(title=f"{epochs} epochs per rollout", xlabel=f"rollouts of {EPISODES} episodes",
             ylim=(-0.3, 1), xticks=range(0, args.rollouts + 1, 5))
panels[0].set(ylabel="exact J, expected return")
figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right center",
              frameon=False, fontsize=8)
ends = ", ".join(f"{name} {found[:, -1].mean():.2f} ({epochs} epochs)"
                 for (name, epochs), found in curves.items())
show(figure, alt="Expected return against rollouts, mean and band; dots: where each run ends. "
     f"Means at the end: {ends}.")

# %% tags=["again"]
def rollouts_to(level, found):
    """The first rollout after which the mean over runs has reached the level, or None."""
    reached = (found.mean(0) >= level).nonzero()
    return int(reached[0]) if len(reached) else None


for level in (0.4, 0.8):
    for key in (("no", 1), ("clip", 4), ("clip", 16), ("clip and stop", 16)):
        print(f"mean J reaches {level}: {key[0]:13s} {key[1]:3d} epochs: "
              f"{rollouts_to(level, curves[key])} rollouts")
slow, fast = (rollouts_to(0.4, curves[key]) for key in (("no", 1), ("clip", 16)))
guesses.reveal("times_fewer_rollouts", slow / fast if slow and fast else "not reached")

# %% [markdown]
# **What you saw.** With the clip sixteen epochs lose no run of six, and four lose one; one epoch, too, leaves some behind
# (the dots beside the curves are where the single runs end). And reuse pays: a fraction of the rollouts that one epoch
# takes. Not 16 times fewer, though: most of what a rollout has to say is said after a few steps.
#
# The clip did the work. Here the stop adds nothing to it that six runs could show, and learning is slower. Alone it
# cannot take back a step that went too far, and its worst run ends near 0.1; under the clip the distance went back as
# well, from 0.047 to 0.033 nats in the rollout above. What a stop saves for certain is the epochs that are not taken.
#
# But is it PPO, or would a smaller learning rate do? Ask; and let one epoch have a larger one.

# %%
print(HEADER)
for lr in (0.0125, 0.8):
    study(f"no ratio, 1, rate {lr}", reusing("no", 1), lr)
    study(f"no ratio, 16, rate {lr}", reusing("no", 16), lr)
    study(f"clip, 16, rate {lr}", with_ppo("clip", 16), lr)

# %% [markdown]
# **What you saw.** An honest answer: a rate sixteen times smaller rescues the naive runs, all of them, and they end as well
# as PPO. It keeps the policy near its data by doing less with it (last column). What the clip buys is that the rate hardly
# matters: from the smallest to the largest, a factor of 64, it ends equally well, for its longest move grows about
# ninefold, the naive one's nearly fiftyfold. One epoch finds no better rate among these.
#
# Nothing about the clip is unbiased (the table above has it). It is a **brake**, not an estimator: where a rollout is
# used up, its gradient is meant to be 0.
#
# ## Silent bug lab
# Here are seven runs that you can call and not read. One of them is PPO with ε = 0.2 and no stop, six have a bug that
# raises no error. Each is called as `run(policy, optimizer, rollout, advantages, epochs)`, as your `ppo`. First the
# symptoms, ten rollouts with sixteen epochs each, three seeds.

# %%
for name, run in progress(mystery_runs("11.12").items(), "runs"):
    def improve(*given, run=run):
        run(*given, 16)

    ends = [learn(improve, seed, rollouts=10)[0][-1] for seed in range(3)]
    print(f"run {name}: final J", *(f"{J:+.2f}" for J in ends))

# %% [markdown]
# Lucky runs learn in spite of a bug, and a curve does not say *what* is wrong. A **property test** does. You know what
# PPO's steps must be: with plain gradient steps (`torch.optim.SGD`) each one is the learning rate times the mean over
# episodes of `episode_gradients`, with clipped weights of ratios that you can choose yourself, through the recorded
# `logprobs`. Make a small rollout by hand or at random, with episodes of different lengths, ratios on both sides of the
# clip, advantages of both signs, and take more than one epoch. Write one function that passes the right run and refuses
# as many wrong ones as you can: a point each for two, four and all six.

# %% ex="11.12" title="Tests for silent bugs" points=3 difficulty="hard" minutes=20
def is_ppo(run):
    """Whether run(policy, optimizer, rollout, advantages, epochs) takes PPO's steps."""
    # BEGIN SOLUTION
    source = torch.Generator().manual_seed(3)
    states = torch.randint(4, (20, 3), generator=source)
    actions = torch.randint(3, (20, 3), generator=source)
    mask = torch.arange(3) < torch.randint(1, 4, (20, 1), generator=source)
    advantages = torch.randn(20, 3, generator=source).double() * mask
    policy = TabularPolicy(4, 3).double()
    policy.logits.data = torch.randn(4, 3, generator=source).double()
    expected = policy.logits.detach().clone()
    chosen = expected.log_softmax(-1)[states, actions]
    behavior = chosen + 0.4 * torch.randn(20, 3, generator=source).double()
    rollout = Rollout(states, actions, 0 * chosen, behavior, mask, mask[:, -1])
    for _ in range(3):
        pi = expected.softmax(-1)
        ratios = (pi[states, actions].log() - behavior).exp()
        weights = clipped_weights(ratios, advantages, 0.2) * mask
        expected += 0.5 * episode_gradients(pi, states, actions, weights).mean(0)
    run(policy, torch.optim.SGD(policy.parameters(), lr=0.5), rollout, advantages, 3)
    return torch.allclose(policy.logits, expected)
    # END SOLUTION

# %% ex="11.12" role="check"
is_ppo = check("11.12", is_ppo)

# %% [markdown] ex="11.12" role="hints"
# <details><summary>Hint 1</summary>Choose states, actions, mask and advantages; the recorded log-probability of a step is
# log π minus the log of the ratio that you want. Where must the logits be after one step of
# <code>torch.optim.SGD(policy.parameters(), lr=0.5)</code>?</details>
# <details><summary>Hint 2</summary>The step is lr · <code>episode_gradients(pi, states, actions, weights).mean(0)</code>
# with <code>weights = clipped_weights(ratios, advantages, 0.2) * mask</code>. The next step has a new π, and so new
# ratios against the same record. Compare with <code>torch.allclose</code>.</details>

# %% [markdown]
# **What you saw.** Run D is PPO. Run A computes its weights once, before the first step, and never again. Run B takes the
# new log-probabilities for the old ones, so that its ratio is always 1. Run C clamps the ratio and goes on pushing. Run E
# has μ/π in the place of π/μ. Run F does not look at the sign of the advantage. Run G multiplies the ratio up over the
# whole episode, and on these three seeds it ends as well as PPO. Runs A and B agree to the last digit, for on a fresh
# rollout the first ratios are 1 everywhere: data that a policy has just sampled cannot tell them apart, yours can.
#
# A bug in a ratio is at its most harmless exactly where one looks first, on fresh data, where π = μ. So test weights on
# data whose ratio you chose, with both signs of the advantage, with padding, and over more than one step.
#
# ## Recap
# - Episodes of μ in π's formula give the wrong gradient, however many they are. Far from μ it is mostly too long.
# - Unbiased: $\rho(\tau)$ with Monte Carlo returns; each reward with its prefix; the prefix with TD residuals of the exact V.
#   The per-step form is the gradient of a surrogate with μ's states and μ's future: exact for one step, or at π = μ.
# - Self-normalised over all episodes: bias $O(1/N)$, less spread. Over those still acting: bias for good. Cut off: bias
#   for less noise.
# - Old data is worth at most $e^{-\mathrm{KL}(\pi \| \mu)}$ of new, and KL adds up over steps. From μ's episodes alone
#   neither the ESS nor a weighted KL(π‖μ) sees the worst; KL(μ‖π) is a plain mean.
# - Reuse pays if the policy is kept close. PPO's clip does that step by step, as a weight in the same loss; a stop by KL
#   does it for the rollout.
#
# ## Try next
# - `rollouts` 60: do the runs that ended near 0 recover? Does one epoch catch up?
# - A stop at 0.005 or at 0.1 nats per step, without any clip: where does it begin to fail?
# - In `weights_of`, replace the exact V of the TD residual by one that is off by 10 %: does that form stay unbiased?
# - A seventh bug for the lab: advantages that are normalised anew in every epoch. Does your test see it?
#
# ## References
# - Precup, Sutton & Singh (2000), *Eligibility Traces for Off-Policy Policy Evaluation*: per-decision weights, and
#   self-normalised ones.
# - Kong (1992), *A Note on Importance Sampling Using Standardized Weights*: the effective sample size.
# - Kakade & Langford (2002), *Approximately Optimal Approximate Reinforcement Learning*: the surrogate with μ's states.
# - Degris, White & Sutton (2012), *Off-Policy Actor-Critic*: the per-step form, and what it is the gradient of.
# - Schulman et al. (2015), *Trust Region Policy Optimization*: stay close, in KL. Schulman et al. (2017), *Proximal
#   Policy Optimization Algorithms*: the clip, and several epochs.
# - Schulman (2020), *Approximating KL Divergence*: (ρ − 1) − log ρ.
# - Zheng et al. (2025), *Group Sequence Policy Optimization* (GSPO): one ratio per response, a geometric mean.
