# Lesson 11: off-policy data. jupytext py:percent; runs as a script: python lessons/11_off_policy.py --help

# %% [markdown]
# # 11 · Off-policy: learning from the data of another policy
#
# Every update changes the policy, so the episodes it learned from are out of date at once. In this lesson you repair
# old episodes with importance weights, hold each form of them against the exact gradient, watch the weights blow up,
# and end at the remedy that most of today's training of language models uses: PPO's clip. *(Lecture: "On-Policy vs.
# Off-Policy", "Importance Sampling: A Quick Review", "Off-Policy Policy Gradient"; claims C36–C38.)* About 90 minutes;
# runs in 35 s on two CPU cores.
#
# **You will need** the estimator of lesson 08, reward-to-go and baselines from 09, advantages from 10. **You will be
# able to** say which importance weights keep the gradient unbiased and prove it, predict how many old episodes are still
# worth something, and reuse a rollout several times without wrecking the policy.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

from dataclasses import replace

import torch
from matplotlib import pyplot
from torch.nn.functional import one_hot

from ptlearn import figures
from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import check
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import (
    MDP,
    action_values,
    enumerate_trajectories,
    exact_gradient,
    horizon_values,
    objective,
    occupancy,
    probabilities,
)  # fmt: skip
from ptlearn.optimization import update
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import Rollout, action_logprobs

args = arguments(
    "Off-policy policy gradients: importance weights, their bias and their blow-up, and PPO's clip.",
    seed=(0, "of episodes and of random policies", "at least 0"),
    runs=(20, "learning runs per method", "at least 2"),
    rollouts=(20, "rollouts per learning run", "at least 1"),
    batches=(40_000, "batches per measurement of self-normalised weights", "at least 1"),
)

torch.set_num_threads(1)  # the tensors are small: a second thread would spend its time waiting for the first

# %% [markdown]
# ## Predict first
# Write down your guesses; you will measure each of them below.
#
# 1. You have many episodes of yesterday's policy μ and put them, as they are, into the policy gradient formula of
#    today's policy π. **Is the result only noisier, or wrong on average? Wrong in direction, or in length?**
# 2. π and μ disagree a little everywhere: at each step the ratio π/μ is off from 1 by about a sixth. You have 1,000
#    episodes of 64 steps from μ. **How many episodes of π are they worth?**
# 3. You take 16 gradient steps on each rollout instead of one. **Do you need 16 times fewer rollouts?**

# %% [markdown]
# ## Two policies
# A grid small enough to list everything that can happen: two rows, a goal (+1), a pit (−1), −0.1 for any other step,
# four steps at most, and one move in ten slips sideways. The **behavior policy** μ is uniform: "yesterday". The
# **target policy** π is μ after ten steps up the exact gradient of J: "today".

# %%
grid = GridWorld("small", step_reward=-0.1, slip=0.1)
world, HORIZON = grid.to_mdp(), 4


def improved(steps):
    """The uniform policy after some steps up the exact gradient."""
    policy = TabularPolicy(world.states, world.actions).double()
    for _ in range(steps):
        gradient = exact_gradient(world, policy, HORIZON)
        with torch.no_grad():
            policy.logits += gradient.view_as(policy.logits)
    return policy


def table(policy, mdp=world):
    return probabilities(mdp, policy).detach()


mu, pi = improved(0), improved(10)
J_mu, J_pi = (float(objective(world, table(policy), HORIZON)) for policy in (mu, pi))
print(f"J(μ) = {J_mu:+.3f}   J(π) = {J_pi:+.3f}   (exact)")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(6.4, 2.0), layout="constrained")
for axes, policy, name in zip(panels, (mu, pi), ("μ, yesterday", "π, today")):
    values = horizon_values(world, table(policy), HORIZON)[0]
    figures.value_map(axes, grid, values, table(policy), limits=(-1, 1))
    axes.set(title=name)
show(figure, alt="Two maps of the same 2 by 3 world with a policy each. Under μ all four arrows are equally long and "
     "most cells have negative value; under π the arrows along the upper row point to the goal.")  # fmt: skip

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
#   = \prod_{t=1}^T \frac{\pi_\theta(a_t \mid s_t)}{\mu(a_t \mid s_t)}.$$
#
# Build it from log-probabilities: a product of hundreds of small numbers is zero in floating point, the sum of their
# logarithms is not. And it is a *weight*, so it must not carry a gradient.

# %% ex="11.1" points=2 minutes=8 difficulty="easy"
def trajectory_ratio(logprobs, behavior_logprobs, mask):
    """π(τ) / μ(τ) of each episode, written at each of its steps.

    logprobs (B, T) under π, behavior_logprobs (B, T) under μ, nats, both with anything at all on padding;
    mask (B, T) bool -> (B, T), 0 where mask is False, without gradient.
    """
    # BEGIN SOLUTION
    log_ratios = torch.where(mask, logprobs.detach() - behavior_logprobs, 0)
    return log_ratios.sum(1, keepdim=True).exp() * mask
    # END SOLUTION

# %% ex="11.1" role="check"
trajectory_ratio = check("11.1", trajectory_ratio)   # yours if it passes, the package's if not

# %% [markdown] ex="11.1" role="hints"
# <details><summary>Hint 1</summary>Three steps: the log-ratio of each step, 0 where nothing was done; their sum over an
# episode; the exponential.</details>
# <details><summary>Hint 2</summary>`torch.where(mask, x, 0)` cuts padding off, `.sum(1, keepdim=True)` keeps a column
# that a product with `mask` spreads over the steps, `.detach()` stops the gradient.</details>

# %%
def log_pi_and_ratio(rollout):
    logprobs = action_logprobs(pi, rollout).detach()
    ratio = trajectory_ratio(logprobs, rollout.logprobs, rollout.mask)
    assert torch.allclose(ratio, pg.trajectory_ratio(logprobs, rollout.logprobs, rollout.mask))
    return logprobs, ratio


generator = torch.Generator().manual_seed(args.seed)
rollout, _ = collect(world, mu, 1000, horizon=HORIZON, generator=generator)
returns = pg.episode_returns(rollout.rewards, rollout.mask)
rho = log_pi_and_ratio(rollout)[1][:, 0]
for name, terms in (("plain average", returns), ("with ratios", rho * returns)):
    print(f"{name:14s} {terms.mean():+.3f} ± {1.96 * terms.std() / len(terms) ** 0.5:.3f}")
print(f"exact: J(μ) = {J_mu:+.3f}, J(π) = {J_pi:+.3f}; ratios from {rho.min():.3f} to {rho.max():.1f}")

# %% [markdown]
# **What you saw.** The plain average is a fine estimate of J(μ), which nobody asked for. The ratios turn the same
# episodes into an estimate of J(π), at a price: its interval is wider.
#
# ## Forget the weights
# Now the gradient. Nothing here needs sampling: list **all** trajectories of μ with their probabilities, and the mean
# and the variance of any estimate are finite sums. For a table of logits, $\nabla_\theta \log \pi_\theta(a \mid s)$ is one-hot
# minus $\pi$ (lesson 08).

# %%
episodes, _, chance = enumerate_trajectories(world, mu, HORIZON)
logprobs, rho = log_pi_and_ratio(episodes)
mask, true = episodes.mask, exact_gradient(world, pi, HORIZON)
print(f"{len(chance):,} trajectories, probability {chance.sum():.12f} in all; E_μ[ρ] = {chance @ rho[:, 0]:.12f}")


def gradients(rollout, weights):
    """Each episode's estimate, the sum over its steps of weight times ∇ log π(a|s): (B, S * A)."""
    scores = one_hot(rollout.actions, world.actions) - table(pi)[rollout.observations]
    scores = one_hot(rollout.observations, world.states)[..., None] * scores[..., None, :]
    return ((weights * rollout.mask)[..., None] * scores.flatten(2)).sum(1)


naive = chance @ gradients(episodes, pg.total_return(episodes.rewards, mask))
loss = pg.policy_gradient_loss(action_logprobs(pi, episodes),
                               chance[:, None] * pg.total_return(episodes.rewards, mask), mask, normalizer=1)  # fmt: skip
assert torch.allclose(naive, -torch.autograd.grad(loss, pi.logits)[0].flatten(), atol=1e-12)  # the same by autograd

# %%
def compare(mean):
    """Relative error, cosine and relative length of a mean gradient against the exact one."""
    return float((mean - true).norm() / true.norm()), float(mean @ true / mean.norm() / true.norm()), \
        float(mean.norm() / true.norm())  # fmt: skip


weighted = chance @ gradients(episodes, rho * pg.total_return(episodes.rewards, mask))
print("E_μ[ ... ] against ∇J(π)          relative error   cosine   length")
for name, mean in (("∇ log π(τ) r(τ)", naive), ("ρ(τ) ∇ log π(τ) r(τ)", weighted)):
    print(f"{name:35s} {compare(mean)[0]:10.1e} {compare(mean)[1]:10.3f} {compare(mean)[2]:8.2f}")
assert compare(weighted)[0] < 1e-10 < 0.1 < compare(naive)[0]

# %% [markdown]
# **What you saw.** [C36] The lecture's
# $\nabla_\theta J(\theta) \neq \mathbb{E}_{\tau \sim \mu}[\nabla_\theta \log \pi_\theta(\tau)\, r(\tau)]$ is not a
# matter of noise: this is the mean over infinitely many episodes. Here the direction is roughly right and the **length**
# is not. Bad moves that π hardly makes any more are still common in μ's data, and each of them pushes again. Remember
# this when a rollout is used for the second, the third, the sixteenth time: the gradient does not learn that its work
# is done. With $\rho(\tau)$ the mean is exact to rounding.
#
# ## What no weight can repair
# The condition $q > 0$ is not a formality. Suppose μ never moves right in the start cell: a demonstrator who always
# takes the lower road.

# %%
demonstrator = improved(0)
with torch.no_grad():
    demonstrator.logits[grid.starts[0], 1] = -torch.inf  # action 1 is "right"
shown, _, share = enumerate_trajectories(world, demonstrator, HORIZON)
_, ratio = log_pi_and_ratio(shown)
mean = share @ gradients(shown, ratio * pg.total_return(shown.rewards, shown.mask))
print(f"E_μ[ρ] = {share @ ratio[:, 0]:.3f} instead of 1; relative error {compare(mean)[0]:.2f}")

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
#   \underbrace{\rho_{t+1:T}}_{\text{what happens afterwards}}, \qquad
#   \rho_t = \frac{\pi_\theta(a_t \mid s_t)}{\mu(a_t \mid s_t)}.$$
#
# Ratios have mean 1 given what came before them, $\mathbb{E}_{a \sim \mu(\cdot \mid s)}[\pi_\theta(a \mid s) / \mu(a \mid s)] = 1$. So
# whatever a term does not depend on may drop its part:
#
# - The reward $r_{t'}$ does not know the actions after $t'$. It needs $\rho_{1:t'}$ and no more ("per decision", Precup
#   et al., 2000).
# - A weight that already is $A^\pi(s_t, a_t)$ on average, such as the TD residual with the exact $V^\pi$, needs no future:
#   $\rho_{1:t}$ will do.
#
# Turn the first one into weights: at step $t$, the sum over $t' \ge t$ of $\rho_{1:t'}\, r_{t'}$.

# %% ex="11.2" points=2 minutes=10 difficulty="medium"
def per_decision(rewards, step_ratios, mask):
    """Reward-to-go in which each reward carries the ratio of all actions that led to it.

    rewards, step_ratios (B, T): r_t and π(a_t|s_t) / μ(a_t|s_t); mask (B, T) bool, padding on the right
    -> (B, T): the sum over t' >= t of ρ_1 ... ρ_t' r_t', 0 where mask is False.
    """
    # BEGIN SOLUTION
    prefix = torch.where(mask, step_ratios, 1).cumprod(1)
    weighted = torch.where(mask, prefix * rewards, 0)
    return weighted.flip(1).cumsum(1).flip(1) * mask
    # END SOLUTION

# %% ex="11.2" role="check"
per_decision = check("11.2", per_decision)

# %% [markdown] ex="11.2" role="hints"
# <details><summary>Hint 1</summary>First each reward times the product of all ratios up to its own step, from the
# episode's first. Then sum from t on.</details>
# <details><summary>Hint 2</summary>`x.cumprod(1)` multiplies from the left. `x.flip(1).cumsum(1).flip(1)` sums from the
# right. Padding must neither multiply nor pay.</details>

# %% [markdown]
# ## Which forms are unbiased?
# The lecture's slide goes on: "usually we re-weight per step",
#
# $$\hat g = \frac{1}{N} \sum_{i=1}^N \left( \sum_{t=1}^T \frac{\pi_\theta(a_t^i \mid s_t^i)}{\mu(a_t^i \mid s_t^i)}
#   \nabla_\theta \log \pi_\theta(a_t^i \mid s_t^i) \right) \sum_{t=1}^T r(s_t^i, a_t^i).$$
#
# This keeps the present and drops past and future. Collect everything a weight may contain: three ratios; the return;
# the exact $V$, $Q$ and $A$ of π and of μ (which know how much time is left).

# %%
def exact_values(policy):
    """V_t(s_t) and Q_t(s_t, a_t) of a policy at every enumerated step."""
    V = horizon_values(world, table(policy), HORIZON)
    Q = torch.stack([action_values(world, after) for after in V[1:]])
    t = torch.arange(mask.shape[1]).expand_as(mask)
    return V[t, episodes.observations] * mask, Q[t, episodes.observations, episodes.actions] * mask


(V_pi, Q_pi), (V_mu, Q_mu) = exact_values(pi), exact_values(mu)
step, prefix = (ratio(logprobs, episodes.logprobs, mask) for ratio in (pg.step_ratio, pg.prefix_ratio))
total, to_go = (weight(episodes.rewards, mask) for weight in (pg.total_return, pg.reward_to_go))
# no bootstrap: the time limit is part of this world, nothing comes after it
residual = pg.advantage(episodes.rewards, V_pi, mask, torch.zeros_like(chance), lam=0.0)
assert torch.allclose(per_decision(episodes.rewards, step, mask), pg.reward_to_go(prefix * episodes.rewards, mask))

# %%
FORMS = {
    "no ratio × return": total,
    "trajectory × return": rho * total,
    "trajectory × reward-to-go": rho * to_go,
    "each reward its prefix": per_decision(episodes.rewards, step, mask),
    "prefix × TD residual, V of π": prefix * residual,
    "prefix × A of π": prefix * (Q_pi - V_pi),
    "prefix × reward-to-go": prefix * to_go,
    "step × return (lecture)": step * total,
    "step × reward-to-go": step * to_go,
    "step × A of μ": step * (Q_mu - V_mu),
    "step × A of π": step * (Q_pi - V_pi),
    "trajectory cut at 1 × return": rho.clamp(max=1) * total,
    "trajectory cut at 5 × return": rho.clamp(max=5) * total,
}

# %% [markdown]
# For each: relative bias of the mean, its cosine with the true gradient, and the noise of **one** episode (the root of
# the trace of the covariance, relative to the gradient's length). From these follows the error of an average of $N$
# episodes, $\sqrt{\text{bias}^2 + \text{noise}^2 / N}$. The first row is the yardstick, fresh episodes
# of π: in the list of all trajectories, π's probability of one is μ's times ρ.

# %%
def moments(weights, chance=chance):
    """Relative bias, cosine and relative noise of one episode's estimate: exact, by enumeration."""
    each = gradients(episodes, weights)
    mean = chance @ each
    noise = (chance @ ((each - mean) ** 2).sum(1)).sqrt() / true.norm()
    return *compare(mean)[:2], float(noise)


rows = {"fresh episodes of π × return": moments(total, chance=chance * rho[:, 0])}
rows |= {name: moments(weights) for name, weights in FORMS.items()}
print(f"{'':30s} bias     cosine   noise  error: N=10  N=1,000")
for name, (bias, cosine, noise) in rows.items():
    errors = [(bias**2 + noise**2 / N) ** 0.5 for N in (10, 1000)]
    print(f"{name:30s} {bias:7.1e} {cosine:7.3f} {noise:7.2f} {errors[0]:11.2f} {errors[1]:8.2f}")

# %% [markdown]
# **What you saw.** [C37] Five forms are exact to rounding: the whole ratio with any Monte Carlo return, each reward
# with its prefix, and the prefix with the TD residual or the advantage of the exact $V^\pi$. The lecture's per-step form
# is biased. So is the prefix with reward-to-go, which looks so reasonable: the states and the action are repaired, but
# the rewards that follow were earned by μ.
#
# Three rows agree in their bias to every digit: *step × return*, *step × reward-to-go*, *step × A of μ*. Why?
#
# $$\mathbb{E}_\mu\Big[\sum_t \rho_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)\, r(\tau)\Big]
#   = \sum_t \sum_s \Pr\nolimits_\mu(s_t = s) \sum_a \nabla_\theta \pi_\theta(a \mid s)\; Q^\mu_t(s, a).$$
#
# Past rewards and baselines vanish as they did in lesson 09, because $\rho_t$ makes the action π's own. What remains is
# μ's states and μ's future: the gradient of a **surrogate**, which touches J at $\pi = \mu$ and bends away from it. So
# use this form with $A^\mu$, which has the same mean as the others and by far the least noise. PPO does.
#
# With one step per episode there is no past and no future. Then the per-step form must be exact. (From the start cell
# one step earns −0.1 whatever it is, so let this one-step episode start anywhere.)

# %%
anywhere = replace(world, start=(~world.terminal).double() / (~world.terminal).sum())
once, _, once_chance = enumerate_trajectories(anywhere, mu, 1)
ratio = pg.step_ratio(action_logprobs(pi, once), once.logprobs, once.mask)
mean = once_chance @ gradients(once, ratio * pg.total_return(once.rewards, once.mask))
one_step = exact_gradient(anywhere, pi, 1)
print(f"T = 1: relative error of the per-step form {float((mean - one_step).norm() / one_step.norm()):.1e}")
assert (mean - one_step).norm() < 1e-10 * one_step.norm()

# %% [markdown]
# ### How far is far?
# The distance between two policies, as their trajectories see it, is $\mathrm{KL}(\pi \| \mu) = \mathbb{E}_\pi[\log \rho(\tau)]$. The
# dynamics have dropped out of $\rho$, so it is a sum over states, each as often as **π** visits it:
# $\sum_s d^\pi(s)\, \mathrm{KL}\big(\pi(\cdot \mid s) \,\|\, \mu(\cdot \mid s)\big)$.

# %%
def trajectory_kl(mdp, pi, mu, horizon):
    """KL(π‖μ) of whole trajectories, nats, exact. pi, mu: (S, A) probabilities."""
    at_each_state = (pi * (pi / mu).log()).nan_to_num().sum(1)
    return float(occupancy(mdp, pi, horizon) @ at_each_state)


kl = trajectory_kl(world, table(pi), table(mu), HORIZON)
listed = float((chance * rho[:, 0]) @ rho[:, 0].log())
assert abs(kl - listed) < 1e-10
print(f"KL(π‖μ) = {kl:.3f} nats per episode; by listing every trajectory: {listed:.3f}")

# %%
CHOSEN = ["no ratio × return", "step × return (lecture)", "step × A of μ", "trajectory cut at 5 × return",
          "trajectory × return", "prefix × TD residual, V of π"]  # fmt: skip
path = []  # (KL, {form: (bias, noise)}) for π ever further from μ; noise relative to that of fresh episodes
for steps in (1, 2, 3, 4, 6, 8, 10, 12, 14):
    pi = improved(steps)
    true = exact_gradient(world, pi, HORIZON)
    logprobs, rho = log_pi_and_ratio(episodes)
    step, prefix = (ratio(logprobs, episodes.logprobs, mask) for ratio in (pg.step_ratio, pg.prefix_ratio))
    residual = pg.advantage(episodes.rewards, exact_values(pi)[0], mask, torch.zeros_like(chance), lam=0.0)
    weights = (total, step * total, step * (Q_mu - V_mu), rho.clamp(max=5) * total, rho * total, prefix * residual)
    yardstick = moments(total, chance=chance * rho[:, 0])[2]
    found = {name: moments(each) for name, each in zip(CHOSEN, weights)}
    found = {name: (bias, noise / yardstick) for name, (bias, _, noise) in found.items()}
    path.append((trajectory_kl(world, table(pi), table(mu), HORIZON), found))

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.8, 2.5), layout="constrained")
for index, name in enumerate(CHOSEN):
    style = {"color": figures.COLORS[index], "marker": figures.MARKERS[index], "markersize": 4,
             "linestyle": figures.DASHES[index % 4]}  # fmt: skip
    right.plot([x for x, _ in path], [found[name][1] for _, found in path], label=name, **style)
    if max(found[name][0] for _, found in path) > 1e-9:
        left.plot([x for x, _ in path], [found[name][0] for _, found in path], **style)
left.set(title="Bias (two forms have none)", xlabel="KL(π‖μ), nats per episode",
         ylabel="bias / length of ∇J", yscale="log", ylim=(1e-3, None))  # fmt: skip
right.set(title="Noise of one episode", xlabel="KL(π‖μ), nats per episode", ylabel="noise / that of a fresh one")
figure.legend(loc="outside right center", frameon=False, fontsize=8)
alt = "Left: bias against KL. Without a ratio it grows from {:.2f} to {:.1f}; per step it stays between {:.2f} and {:.2f}. " \
      "Right: noise relative to fresh episodes of π; at the largest KL {:.1f} for the trajectory ratio with the return, " \
      "{:.1f} for the prefix with TD residuals, {:.1f} per step with A of μ."  # fmt: skip
biases = [[found[name][0] for _, found in path] for name in CHOSEN]
ends = [path[-1][1][name][1] for name in ("trajectory × return", "prefix × TD residual, V of π", "step × A of μ")]
show(figure, alt=alt.format(biases[0][0], biases[0][-1], min(biases[1]), max(biases[1]), *ends))

# %% [markdown]
# **What you saw.** Close to μ everything is nearly right, weighted or not; there a per-step ratio hardly improves on no
# ratio at all. Further away the unweighted gradient becomes many times too long, per-step stays within bounds, and
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
# step $t$ depends on the policy, and the ratios of these average to
# $\Pr_\pi(\text{still acting at } t) \,/\, \Pr_\mu(\text{still acting at } t)$. To divide by that is to take back a part of
# the correction, and no $N$ repairs it.
#
# There are two ways to count everybody: step by step, where ended episodes keep their ratio; or once, dividing
# everything by the mean of the ratios with which the episodes end. For $\rho(\tau)$, the same at every step, they are one.

# %% ex="11.3" points=2 minutes=10 difficulty="medium"
def self_normalized(ratios, mask):
    """Ratios divided by their mean over all episodes, step by step or once: both pass.

    ratios (B, T), ρ(τ) or the prefix's ratio at each step, with anything finite on padding; mask (B, T) bool, True for
    the first steps of a row, one at least -> (B, T), 0 where mask is False.
    """
    # BEGIN SOLUTION
    last = mask.sum(1, keepdim=True) - 1  # of each episode, (B, 1)
    steps = torch.arange(mask.shape[1]).expand_as(mask)
    carried = ratios.gather(1, torch.minimum(steps, last))  # an episode that has ended stays at its last action
    return torch.where(mask, ratios / carried.mean(0), 0)
    # END SOLUTION

# %% ex="11.3" role="check"
self_normalized = check("11.3", self_normalized)

# %% [markdown] ex="11.3" role="hints"
# <details><summary>Hint 1</summary>Episodes are rows: the mean runs over dimension 0, and over all of them. What stands
# on padding is no ratio: put there the last one of the row.</details>
# <details><summary>Hint 2</summary>`last = mask.sum(1, keepdim=True) - 1` is the step of a row's last action, and
# `ratios.gather(1, last)` its ratio; `torch.minimum(steps, last)` in the place of `last` goes along with the row and
# then stays. Either of them has a mean over rows.</details>

# %% [markdown]
# Does it approach the exact gradient? "Today's" π again, $\rho(\tau)$ times return, up to 400,000 episodes of two to four
# steps; beside it the plain ratio, and the mean over the episodes that are still acting.

# %%
def over_those_acting(ratios, mask):
    return torch.where(mask, ratios / pg.mean_baseline(ratios, mask), 0)


def estimate(normalize, drawn):
    """The gradient from a sample of trajectories, by number; equal ones are added up before."""
    weights = torch.zeros_like(rho).index_add(0, drawn, normalize(rho[drawn], mask[drawn]))
    return gradients(episodes, weights / len(drawn) * total).sum(0)


pi = improved(10)
true, (logprobs, rho) = exact_gradient(world, pi, HORIZON), log_pi_and_ratio(episodes)
assert torch.allclose(self_normalized(rho, mask), pg.self_normalized(rho, mask))

# %%
generator = torch.Generator().manual_seed(args.seed)
samples = [torch.multinomial(chance, N, replacement=True, generator=generator) for N in (400, 4_000, 40_000, 400_000)]
DIVIDED = {"nothing": lambda ratios, mask: ratios, "the mean over all": self_normalized,
           "the mean over those acting": over_those_acting}  # fmt: skip
print("relative error, ratios divided by", *(f"{len(drawn):9,d}" for drawn in samples), "episodes")
errors = {name: [compare(estimate(by, drawn))[0] for drawn in samples] for name, by in DIVIDED.items()}
for name, found in errors.items():
    print(f"{name:33s}", *(f"{error:9.3f}" for error in found))
alive = (chance * rho[:, 0]) @ mask.double() / (chance @ mask.double())
print("still acting at each step, π against μ:", *(f"{float(share):.2f}" for share in alive))
assert errors["the mean over all"][-1] < 0.02 < 0.1 < errors["the mean over those acting"][-1]

# %% [markdown]
# **What you saw.** Divided by the mean over all, the error falls with $1/\sqrt N$ as the plain one does, and for few
# episodes it is the smaller. Over those still acting it stops at about a third: π ends its episodes sooner than μ, so
# later steps were divided by about a half. Lengths differ in every batch of responses; watch for this mean.

# %% [markdown]
# What is left is the $O(1/N)$. $N$ episodes at a time, many times: measure how much of the true
# gradient's length arrives on average, $\mathbb{E}[\hat g] \cdot \nabla J / |\nabla J|^2$, and what is missing to 1. Take a π
# that is nearer to μ, six steps up. To first order in $1/N$ theory expects a bias of
# $-\frac1N \mathbb{E}_\mu[\rho^2 (f - 1)]$, with $f$ an episode's unweighted share of the gradient.

# %%
pi = improved(6)
true, (logprobs, rho) = exact_gradient(world, pi, HORIZON), log_pi_and_ratio(episodes)
share = gradients(episodes, total) @ true / true.norm() ** 2  # f: (trajectories,)
generator = torch.Generator().manual_seed(args.seed)
print("   N   plain: bias          spread   self-normalised: bias     spread   N × bias")
for N in (4, 8, 16, 32):
    drawn = torch.multinomial(chance, args.batches * N, replacement=True, generator=generator).view(N, -1)
    weights = rho[drawn, 0]  # a row per episode, a column per batch
    normalized = weights / weights.mean(0)  # ρ(τ) is the same at every step: one mean per batch will do
    found = [(each * share[drawn]).mean(0) for each in (weights, normalized)]
    cells = [(float(x.mean() - 1), float(1.96 * x.std() / len(x) ** 0.5), float(x.std())) for x in found]
    print(f"{N:4d}" + "".join(f"   {bias:+.3f} ± {error:.3f} {spread:10.2f}    " for bias, error, spread in cells)
          + f"{N * cells[1][0]:+9.2f} ± {N * cells[1][1]:.2f}")  # fmt: skip
print(f"expected of N × bias for large N: {-float(chance @ (rho[:, 0] ** 2 * (share - 1))):+.2f}")

# %% [markdown]
# **What you saw.** The plain form shows no bias. Self-normalised weights are biased, here towards too little, and $N$
# times the bias settles where theory says: $O(1/N)$. In exchange the spread is smaller, most of all for small $N$: an
# average whose weights sum to one never leaves the range of what was sampled; a plain one can.

# %% [markdown]
# ## When will the ratio blow up?
# The lecture asks it and answers "$\pi_\theta$ and μ cannot be too different". Put numbers to it. How many episodes
# of π are $N$ weighted ones worth? Kong's **effective sample size**:
#
# $$\mathrm{ESS} = \frac{(\sum_i \rho_i)^2}{\sum_i \rho_i^2}, \qquad
#   \frac{\mathrm{ESS}}{N} \;\to\; \frac{1}{\mathbb{E}_\mu[\rho^2]} \;\le\; e^{-\mathrm{KL}(\pi \| \mu)}.$$
#
# The bound is one line: $\mathbb{E}_\mu[\rho^2] = \mathbb{E}_\pi[\rho] = \mathbb{E}_\pi[e^{\log \rho}] \ge
# e^{\mathbb{E}_\pi[\log \rho]} = e^{\mathrm{KL}}$ (Jensen). And KL is a sum over steps. **The worth of old data falls
# exponentially in the length of an episode.** Write the ESS so that it survives log-weights of ±1,000, which a language
# model's response does reach.

# %% ex="11.4" points=2 minutes=8 difficulty="medium"
def effective_sample_size(log_weights):
    """(Σ w)² / Σ w² for w = exp(log_weights), without ever overflowing. log_weights (B,) -> a number in [1, B]."""
    # BEGIN SOLUTION
    weights = (log_weights - log_weights.max()).exp()
    return weights.sum() ** 2 / (weights**2).sum()
    # END SOLUTION

# %% ex="11.4" role="check"
effective_sample_size = check("11.4", effective_sample_size)

# %% [markdown] ex="11.4" role="hints"
# <details><summary>Hint 1</summary>Multiply every weight by the same constant: what happens to the ESS? Choose the
# constant so that the largest weight is 1.</details>
# <details><summary>Hint 2</summary>Subtract `log_weights.max()` before `exp()`.</details>

# %% [markdown]
# The exact value needs no sampling either: $\mathbb{E}_\mu[\rho^2]$ obeys a backward recursion like a value function,
# with $\sum_a \pi(a \mid s)^2 / \mu(a \mid s)\; p(s' \mid s, a)$ in the place of the transition matrix.

# %%
def second_moment(mdp, pi, mu, horizon):
    """E_μ[ρ²] of trajectories of at most `horizon` steps, exact. pi, mu: (S, A) probabilities."""
    squared = torch.einsum("sa,sat->st", pi**2 / mu, mdp.P)
    moment = torch.ones(mdp.states, dtype=torch.float64)
    for _ in range(horizon):
        moment = torch.where(mdp.terminal, 1.0, squared @ moment)
    return float(mdp.start @ moment)


kl = trajectory_kl(world, table(pi), table(mu), HORIZON)
exact, listed = second_moment(world, table(pi), table(mu), HORIZON), float(chance @ rho[:, 0] ** 2)
assert abs(exact - listed) < 1e-10
assert abs(float(effective_sample_size(rho[:, 0].log()) - pg.effective_sample_size(rho[:, 0]))) < 1e-6 * len(rho)
print(f"E_μ[ρ²] = {exact:.3f} by recursion, {listed:.3f} by listing")
print(f"in the small world an old episode is worth {1 / exact:.3f} new ones; exp(−KL) = {torch.tensor(-kl).exp():.3f}")

# %% [markdown]
# Now a larger world, 8 × 8 and empty, and long episodes. μ is uniform; π adds Gaussian noise of size $\varepsilon$ to
# μ's logits: the two disagree everywhere, a little and without purpose. For small $\varepsilon$ the ratio of a step is
# off from 1 by about $0.87\,\varepsilon$ (noise that a state's four actions share cancels).

# %%
wide = GridWorld("empty-8x8").to_mdp()
TIMES = (1, 2, 4, 8, 16, 32, 64)


def jittered(epsilon):
    policy = TabularPolicy(wide.states, wide.actions).double()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(args.seed)
        policy.logits += epsilon * torch.randn(policy.logits.shape, generator=generator).double()
    return policy


generator = torch.Generator().manual_seed(args.seed + 1)
walks, _ = collect(wide, jittered(0), 1000, horizon=max(TIMES), generator=generator)
log_weights = {}  # epsilon -> (episodes, T) log-ratio of the first t steps
for epsilon in (0.1, 0.2, 0.4, 0.8):
    log_ratios = action_logprobs(jittered(epsilon), walks).detach() - walks.logprobs
    log_weights[epsilon] = (log_ratios * walks.mask).cumsum(1)

# %%
worth = {}  # epsilon -> one (KL, exact ESS / N, sampled ESS / N) for each number of steps
uniform = table(jittered(0), wide)
print("                                                          worth of 1,000 episodes")
print("  ε  steps   KL, nats   spread of log ρ   largest ρ    exact ESS   sampled ESS   bound")
for epsilon, sums in log_weights.items():
    target = table(jittered(epsilon), wide)
    for T in TIMES:
        kl_T, log_rho = trajectory_kl(wide, target, uniform, T), sums[:, T - 1]
        share = 1 / second_moment(wide, target, uniform, T), float(effective_sample_size(log_rho)) / len(log_rho)
        worth.setdefault(epsilon, []).append((kl_T, *share))
        if T in (1, 16, 64):
            print(f"{epsilon:3.1f} {T:6d} {kl_T:10.3f} {log_rho.std():17.2f} {log_rho.max().exp():11.1f} "
                  f"{1000 * share[0]:12.1f} {1000 * share[1]:13.1f} {1000 * torch.tensor(-kl_T).exp():7.1f}")  # fmt: skip

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(6.8, 2.5), layout="constrained")
T = torch.arange(1, max(TIMES) + 1)
for index, (epsilon, sums) in enumerate(log_weights.items()):
    style = {"color": figures.COLORS[index], "linestyle": figures.DASHES[index]}
    left.plot(T, sums.std(0), label=f"ε = {epsilon}", **style)
    left.plot(T, 3**0.5 / 2 * epsilon * T**0.5, color="gray", linestyle=":", linewidth=1,
              label="0.87 ε √steps" if index == 3 else None)  # fmt: skip
    KL, exact_share, sampled_share = (torch.tensor(column) for column in zip(*worth[epsilon]))
    figures.scatter_ess(right, KL, sampled_share, f"ε = {epsilon}", index)
    right.plot(KL, exact_share, linewidth=1, **style)
bound = torch.linspace(0, 14, 50)
right.plot(bound, (-bound).exp(), color="black", linestyle=":", label="exp(−KL)")
left.set(title="Spread of the log-ratio", xlabel="steps of the episode", ylabel="std of log ρ, nats",
         xscale="log", yscale="log", ylim=(0.01, 8))  # fmt: skip
left.set_xticks(TIMES, TIMES)
left.legend(fontsize=6, loc="lower right", ncols=2)
right.set(title="Dots: sampled; lines: exact", ylim=(3e-4, 1.5), xlim=(-0.3, 10.5))
right.legend(fontsize=7, loc="upper right")
show(figure, alt="Left: the standard deviation of the log-ratio grows with the square root of the steps, the more the "
     "larger ε. Right: effective sample size against KL lies below exp(−KL) for every ε; far out most of the sampled "
     "dots lie above the exact lines.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C38] The logarithm of the ratio is a sum of small terms, a random walk: its spread grows with
# $\sqrt T$ and with $\varepsilon$ (after one step only the start's four logits count, small ones here). The *weights* are its exponential, and soon one episode outweighs all others. Your
# guess of question 2: ε = 0.2, 64 steps.
#
# Look where the dots leave the lines. When the blow-up is bad, the sampled ESS is **too optimistic**: the trajectories
# that would carry almost all the weight are so rare under μ that none of the 1,000 is one. A small ESS is a reliable
# alarm; a large one is no all-clear. The exact KL averages over π's states and has no such blind spot, nor has an
# average over samples of π; estimated from the same weighted episodes of μ, it has the same one.
#
# For a language model a step is a token. Suppose π and μ differ by KL = 0.01 nats per token:

# %%
for tokens in (10, 100, 1000):
    print(f"{tokens:5d} tokens: of 10,000 responses at most {10_000 * torch.tensor(-0.01 * tokens).exp():,.1f} count")

# %% [markdown]
# This is why hardly anybody multiplies ratios over a long response (GSPO, which weights whole responses, takes their
# geometric mean), and why the usual form is the per-step one, bias and all: its weights stay near 1 as long as π stays
# near μ *at each step*.
#
# ## The temptation: reuse
# Collecting is expensive, gradient steps are cheap. So take several steps per rollout. From the second on, the rollout's
# policy is μ and the current one is π: reuse **is** off-policy learning. The world is the default map with slips,
# return 1 at the star, −1 in the pit; 64 episodes per rollout, Adam, and as advantage the return minus the mean of the
# other episodes (lesson 09).
#
# One run says little, so twenty learn at once, in twenty separate copies of the map: copy $k$ numbers its states
# $kS, \dots, kS + S - 1$, and one table holds all twenty policies. No gradient crosses from one copy to another.

# %%
maze, LIMIT, EPISODES = GridWorld("default", slip=0.1).to_mdp(), 30, 64


def side_by_side(mdp, copies):
    """One MDP made of separate copies; an episode starts in any of them with the same probability."""
    P, R = (torch.einsum("ij,sat->isajt", torch.eye(copies).double(), each).flatten(0, 1).flatten(2)
            for each in (mdp.P, mdp.R))  # fmt: skip
    return MDP(P, R, mdp.start.repeat(copies) / copies, mdp.gamma)


mazes = side_by_side(maze, args.runs)
values = torch.zeros(maze.states, dtype=torch.float64)
for _ in range(LIMIT):
    values = action_values(maze, values).max(1).values
print(f"the best return within {LIMIT} steps: {maze.start @ values:.3f}; a uniform policy's: "
      f"{objective(maze, table(TabularPolicy(maze.states, maze.actions), maze), LIMIT):.3f}")  # fmt: skip

# %%
def exact_J(policy):
    """J of every copy's policy: (runs,)."""
    return horizon_values(mazes, table(policy, mazes), LIMIT)[0].view(args.runs, -1) @ maze.start


def moved(after, before):
    """KL of every copy's policy from before to after, nats per episode: (runs,)."""
    at_each_state = (after * (after / before).log()).nan_to_num().sum(1)
    return args.runs * (occupancy(mazes, after, LIMIT) * at_each_state).view(args.runs, -1).sum(1)


# %%
def learn(weigh, epochs, lr=0.2):
    """J before and after each rollout, (runs, rollouts + 1), and how far each rollout moved the policy, nats."""
    policy, generator = TabularPolicy(mazes.states, mazes.actions).double(), torch.Generator().manual_seed(args.seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    curve, moves = [exact_J(policy)], []
    for _ in range(args.rollouts):
        before = table(policy, mazes)
        rollout, _ = collect(mazes, policy, EPISODES * args.runs, horizon=LIMIT, generator=generator)
        returns, copy = pg.total_return(rollout.rewards, rollout.mask), rollout.observations[:, 0] // maze.states
        advantages = returns - pg.leave_one_out(returns[:, 0], groups=copy)[:, None]
        for _ in range(epochs):
            with torch.no_grad():
                weights = weigh(policy, rollout, advantages)
            update(policy, optimizer, rollout, weights, normalizer=EPISODES)
        curve.append(exact_J(policy))
        moves.append(moved(table(policy, mazes), before))
    return torch.stack(curve, 1), torch.stack(moves, 1)


# %%
def ratios(policy, rollout, kind=pg.step_ratio):
    return kind(action_logprobs(policy, rollout), rollout.logprobs, rollout.mask)


METHODS = {  # weigh(policy, rollout, advantages) -> weights
    "no ratio": lambda policy, rollout, advantages: advantages,
    "trajectory ratio": lambda policy, rollout, advantages: ratios(policy, rollout, pg.trajectory_ratio) * advantages,
    "step ratio": lambda policy, rollout, advantages: ratios(policy, rollout) * advantages,
}
curves, longest = {}, {}  # (method, epochs) -> (runs, rollouts + 1); nats, median over runs


def study(name, weigh, epochs):
    curves[name, epochs], moves = learn(weigh, epochs)
    final, longest[name, epochs] = curves[name, epochs][:, -1], float(moves.max(1).values.median())
    mean = figures.over_seeds(final)
    print(f"{name:17s} {epochs:5d}    {mean.mean:5.2f} [{mean.low:5.2f}, {mean.high:5.2f}] {final.min():8.2f} "
          f"{int((final < 0.1).sum()):6d} of {args.runs} {longest[name, epochs]:12.2f}")  # fmt: skip


HEADER = "weights          epochs   final J, 95 % interval   worst   below 0.1   longest move, nats"
print(HEADER)
study("no ratio", METHODS["no ratio"], 1)
for epochs in progress((4, 16), "epochs"):
    for name, weigh in METHODS.items():
        study(name, weigh, epochs)

# %% [markdown]
# **What you saw.** One epoch per rollout learns slowly; after twenty rollouts some runs have not got anywhere yet. Four
# epochs are faster for a while (there is a figure below), and then part of the runs, with the step ratio half of them,
# end at a return near 0: the policy became certain of a walk that meets neither star nor pit, and a policy that is
# certain collects no more news. With sixteen epochs all three are worse than with one. Why?
#
# - *No ratio*: the gradient goes on pushing what it has pushed already, as the first table said it would.
# - *Step ratio*: worse still, for where $A > 0$ every push makes the ratio larger, and so the next push.
# - *Trajectory ratio*: it does discount what is out of date, and with four epochs it loses fewer runs; with sixteen a
#   few of the episodes have all the weight.
#
# Look at the last column. A single rollout carried these policies many nats away. By the bound above next to nothing of
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

# %% ex="11.5" points=3 minutes=12 difficulty="hard"
def clipped_weights(ratios, advantages, epsilon=0.2):
    """The weight of ∇ log π in the gradient of PPO's objective: ratio times advantage, or 0.

    ratios, advantages (B, T) without gradient; epsilon > 0 -> (B, T).
    """
    # BEGIN SOLUTION
    used_up = torch.where(advantages > 0, ratios > 1 + epsilon, ratios < 1 - epsilon)
    return torch.where(used_up, 0, ratios * advantages)
    # END SOLUTION

# %% ex="11.5" role="check"
clipped_weights = check("11.5", clipped_weights)

# %% [markdown] ex="11.5" role="hints"
# <details><summary>Hint 1</summary>Go through four cases: A positive or negative, ratio above 1 + ε or below 1 − ε. In
# which two is the minimum the clipped term?</details>
# <details><summary>Hint 2</summary>An action that became *more* likely though A &lt; 0 (its ratio is above 1 + ε) must be
# pushed back with full force: there the minimum is the unclipped term.</details>

# %%
generator = torch.Generator().manual_seed(args.seed)
log_pi = torch.randn(4, 6, generator=generator).double().requires_grad_()
log_mu, A = (torch.randn(4, 6, generator=generator).double() for _ in range(2))
acted, epsilon = torch.arange(6) < torch.tensor([6, 5, 3, 1])[:, None], 0.2
ratio = (log_pi - log_mu).exp()
L = (torch.minimum(ratio * A, ratio.clamp(1 - epsilon, 1 + epsilon) * A) * acted).sum() / 4
(by_objective,) = torch.autograd.grad(L, log_pi)
weights = clipped_weights(pg.step_ratio(log_pi, log_mu, acted), A, epsilon=epsilon)
assert torch.allclose(weights, pg.clipped_weights(pg.step_ratio(log_pi, log_mu, acted), A, epsilon=epsilon))
(by_weights,) = torch.autograd.grad(-pg.policy_gradient_loss(log_pi, weights, acted), log_pi)
print(f"largest difference of the two gradients: {(by_objective - by_weights).abs().max():.1e}; "
      f"{(weights[acted] == 0).float().mean():.0%} of the steps are clipped")  # fmt: skip
assert torch.allclose(by_objective, by_weights, atol=1e-12)

# %%
METHODS["clipped"] = lambda policy, rollout, advantages: clipped_weights(ratios(policy, rollout), advantages)
print(HEADER)
for epochs in progress((4, 16), "epochs"):
    study("clipped", METHODS["clipped"], epochs)
    for name in ("no ratio", "trajectory ratio", "step ratio"):
        better = figures.over_seeds(curves["clipped", epochs][:, -1] - curves[name, epochs][:, -1])
        print(f"    minus {name:17s} {better.mean:+.2f} [{better.low:+.2f}, {better.high:+.2f}]")

# %%
def learning(axes, name, epochs, index):
    """The mean over runs with its 95 % band, and where each run ends as a dot: a mean can hide two kinds of runs."""
    found = curves[name, epochs]
    figures.curve(axes, range(args.rollouts + 1), [figures.over_seeds(each) for each in found.T], name, index)
    axes.scatter([args.rollouts + 1 + index] * len(found), found[:, -1], s=5, color=figures.COLORS[index])


figure, panels = pyplot.subplots(1, 2, figsize=(7.8, 2.6), sharey=True, layout="constrained")
for axes, epochs in zip(panels, (4, 16)):
    axes.plot(curves["no ratio", 1].mean(0), color="black", linestyle=":", label="1 epoch, mean")
    for index, name in enumerate(METHODS):
        learning(axes, name, epochs, index)
    axes.set(title=f"{epochs} epochs per rollout", xlabel=f"rollouts of {EPISODES} episodes", ylim=(-0.3, 1),
             xticks=range(0, args.rollouts + 1, 5))  # fmt: skip
panels[0].set(ylabel="exact J, expected return")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
finals = {epochs: ", ".join(f"{name} {curves[name, epochs][:, -1].mean():.2f}" for name in METHODS) for epochs in (4, 16)}
show(figure, alt=f"Expected return against rollouts, mean and band; dots: where each run ends. Means at the end: with 4 epochs "
     f"{finals[4]}; with 16 epochs {finals[16]}; one epoch {curves['no ratio', 1][:, -1].mean():.2f}.")  # fmt: skip

# %%
def rollouts_to(level, found):
    """The first rollout after which the mean over runs has reached the level, or None."""
    reached = (found.mean(0) >= level).nonzero()
    return int(reached[0]) if len(reached) else None


for level in (0.4, 0.8):
    for key, found in curves.items():
        if key in (("no ratio", 1), ("clipped", 4), ("clipped", 16)):
            print(f"mean J reaches {level}: {key[0]:9s} {key[1]:3d} epochs: {rollouts_to(level, found)} rollouts")

# %% [markdown]
# **What you saw.** With the clip, no run is lost, with four epochs or with sixteen (the dots beside the curves are where
# the single runs end), and reuse pays: a fraction of the rollouts that one epoch takes. Not 16 times fewer, though:
# most of what a rollout has to say is said after a few steps.
#
# But is it the clip, or would a smaller learning rate do? Ask; and let one epoch have a larger one.

# %%
RATES = (0.0125, 0.2, 0.8)
print("mean final J (runs below 0.1)   learning rate:", *(f"{lr:11g}" for lr in RATES))
for name, epochs in progress((("no ratio", 1), ("no ratio", 16), ("clipped", 16)), "learning rates"):
    cells, distances = [], []
    for lr in RATES:
        found, distance = curves[name, epochs], longest[name, epochs]
        if lr != 0.2:  # those are known already
            found, moves = learn(METHODS[name], epochs, lr)
            distance = float(moves.max(1).values.median())
        cells.append(f"{found[:, -1].mean():6.2f} ({int((found[:, -1] < 0.1).sum()):2d})")
        distances.append(f"{distance:6.2f} nats")
    print(f"{name:9s} {epochs:3d} epochs {'':26s}", *(f"{cell:>11s}" for cell in cells))
    print(f"{'longest move of a rollout':47s}", *(f"{distance:>11s}" for distance in distances))

# %% [markdown]
# **What you saw.** A rate sixteen times smaller rescues most of the naive runs: it keeps the policy near its data by
# doing little with it. One epoch finds no better rate among these. The clip is best at every one of them: what it buys
# is a distance that grows far more slowly than the step size: from the smallest rate to the largest, a factor of 64, its
# longest move grows about sixfold, the naive one's nearly fiftyfold.
#
# Nothing about the clip is unbiased. It is a **brake**, not an estimator: where a rollout is used up, its gradient is
# meant to be 0. Nor is it a wall: other episodes and Adam's momentum go on moving a clipped action, so one rollout can
# still carry a policy further than ε suggests (last column), and sixteen epochs do not end better than four. In practice
# one watches KL as well and stops the epochs early.
#
# ## Lab: silent bugs
# Four versions of the clipped weights above, sixteen epochs per rollout. Each runs without an error. Read the code, look at
# the curves, then at a property test that costs nothing, and name the bug of each. One mistake you will not find
# here: a weight that still carries its gradient. `policy_gradient_loss` refuses it.

# %%
def run_a(policy, rollout, advantages):
    logprobs = policy(rollout.observations).log_softmax(-1).gather(-1, rollout.actions[..., None])[..., 0]
    ratio = (logprobs - rollout.logprobs).sum(1, keepdim=True).exp()
    return pg.clipped_weights(ratio * rollout.mask, advantages)


def run_b(policy, rollout, advantages):
    ratio = pg.step_ratio(rollout.logprobs, action_logprobs(policy, rollout), rollout.mask)
    return pg.clipped_weights(ratio, advantages)

# %%
def run_c(policy, rollout, advantages):
    ratio = pg.step_ratio(action_logprobs(policy, rollout), rollout.logprobs, rollout.mask)
    return torch.where((ratio - 1).abs() > 0.2, 0, ratio * advantages)


def run_d(policy, rollout, advantages):
    new, old = action_logprobs(policy, rollout), action_logprobs(policy, rollout).detach()
    return pg.clipped_weights(pg.step_ratio(new, old, rollout.mask), advantages)


LAB = {"A": run_a, "B": run_b, "C": run_c, "D": run_d}

# %%
print(HEADER)
for name, weigh in progress(LAB.items(), "lab"):
    study(f"run {name}", weigh, 16)

# %%
figure, axes = pyplot.subplots(figsize=(5.4, 2.7))
for index, name in zip((3, 0, 1, 2, 4), ["clipped", *(f"run {name}" for name in LAB)]):
    learning(axes, name, 16, index)
axes.set(title="Four silent bugs beside the right weights", xlabel=f"rollouts of {EPISODES} episodes",
         ylabel="exact J, expected return", ylim=(-0.3, 1), xticks=range(0, args.rollouts + 1, 5))  # fmt: skip
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
finals = ", ".join(f"{name} {curves[f'run {name}', 16][:, -1].mean():.2f}" for name in LAB)
show(figure, alt=f"Learning curves of four runs with a bug each below the right one, which ends at "
     f"{curves['clipped', 16][:, -1].mean():.2f}. Means at the end: {finals}.")  # fmt: skip

# %% [markdown]
# The curves say *that* something is wrong. All four look alike, and lucky runs learn in spite of it. A property test
# says *what*. Six episodes of **one** step, padded to three, in a world with one state and two equally likely actions;
# the recorded probability is chosen so that the true ratio is in the first row. The weight can be worked out by hand.

# %%
TRUE_RATIOS, SIGNS = torch.tensor([1.0, 1.1, 1.5, 1.5, 0.5, 0.5]), torch.tensor([1.0, 1, 1, -1, 1, -1])


def property_test(weigh):
    """The weights of six hand-made steps with known ratio and advantage."""
    padded = torch.zeros(6, 3)
    recorded = torch.cat([(0.5 / TRUE_RATIOS).log()[:, None], padded[:, 1:]], 1)
    states, acted = padded.long(), torch.tensor([[True, False, False]]).expand(6, 3)
    steps = Rollout(states, states, padded, recorded, acted, torch.ones(6).bool())
    with torch.no_grad():
        return weigh(TabularPolicy(1, 2), steps, SIGNS[:, None].expand(6, 3))[:, 0]


print("true ratio   ", *(f"{x:6.2f}" for x in TRUE_RATIOS), "\nadvantage    ", *(f"{x:+6.0f}" for x in SIGNS))
for name, weigh in {"right": METHODS["clipped"], **LAB}.items():
    print(f"{name:13s}", *(f"{x + 0.0:6.2f}" for x in property_test(weigh)))

# %%
BUGS = {
    "inverted": "the ratio is μ/π instead of π/μ",
    "recomputed": "the old log-probabilities come from the new policy, so the ratio is always 1",
    "padding": "the ratio is multiplied up over all steps, padding included",
    "sign": "the clip does not look at the sign of the advantage",
    "no exp": "the log-ratio is taken for the ratio",
    "epsilon": "the range of the clip is far too wide",
}
for name, text in BUGS.items():
    print(f"{name:11s} {text}")

# %% ex="11.6" points=4 minutes=12 difficulty="medium"
# for each run, the name of its bug: one of the keys of BUGS
# BEGIN SOLUTION
diagnosis = {"A": "padding", "B": "inverted", "C": "sign", "D": "recomputed"}
# END SOLUTION

# %% ex="11.6" role="check"
diagnosis = check("11.6", diagnosis)

# %% [markdown] ex="11.6" role="hints"
# <details><summary>Hint 1</summary>Take the column with true ratio 1 first: fresh data must be weighted with the
# advantage itself. Which run fails already there, and what does it have that a one-step episode has not?</details>
# <details><summary>Hint 2</summary>Then compare true ratio 1.1 with the weight that each run gives: above 1, below 1 or
# exactly 1? What is left differs only where an action went the wrong way.</details>

# %%
for name, bug in diagnosis.items():
    print(f"run {name}: {BUGS[bug]}")

# %% [markdown]
# **What you saw.** A bug in a ratio is at its most harmless exactly where one looks first, on fresh data, where π = μ:
# three of the four runs pass there. (One of the four curves you had seen before, to the last digit. Which, and why?) So
# test weights on data whose ratio you chose, with both signs of the advantage, and with padding.
#
# ## Recap
# - Episodes of μ in π's formula give the wrong gradient, however many they are. Far from μ it is mostly too long.
# - Unbiased: $\rho(\tau)$ with Monte Carlo returns; each reward with its prefix; the prefix with TD residuals of the exact V.
#   The per-step form is the gradient of a surrogate with μ's states and μ's future: exact for one step, or at π = μ.
# - Self-normalised over all episodes: bias $O(1/N)$, less spread. Over those still acting: bias for good. Cut off: bias
#   for less noise.
# - Old data is worth at most $e^{-\mathrm{KL}}$ of new, and KL adds up over steps. A sampled ESS can miss it.
# - Reuse pays if the policy is kept close. PPO's clip does that step by step, as a weight in the same loss.
#
# ## Try next
# - `--rollouts 60`: do the runs that ended near 0 recover? Does one epoch catch up?
# - A smaller learning rate in `learn`: how much of the collapse at four epochs goes away, and at what price?
# - Stop the epochs of a rollout once KL passes 0.1 nats, without any clip. Does it do as well?
# - In "How far is far?", replace the exact V of the TD residual by one that is off by 10 %: which forms stay unbiased?
#
# ## References
# - Precup, Sutton & Singh (2000), *Eligibility Traces for Off-Policy Policy Evaluation* (per-decision weights).
# - Kong (1992), *A Note on Importance Sampling Using Standardized Weights* (effective sample size).
# - Kakade & Langford (2002), *Approximately Optimal Approximate Reinforcement Learning* (the surrogate).
# - Degris, White & Sutton (2012), *Off-Policy Actor-Critic* (the per-step form, and what it is the gradient of).
# - Schulman et al. (2015), *Trust Region Policy Optimization*; Schulman et al. (2017), *Proximal Policy Optimization
#   Algorithms*.
# - Zheng et al. (2025), *Group Sequence Policy Optimization* (GSPO).
