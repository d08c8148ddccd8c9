# Lesson 10: actor and critic. jupytext py:percent; runs as a script: python lessons/10_actor_critic.py --help

# %% [markdown]
# # 10 · Actor–critic: a value function instead of luck
#
# A baseline takes away the noise of *where* the agent is; what is left is the noise of everything that happens *after*
# the action. In this lesson you replace that future by a prediction, the critic, measure what it saves and what it
# costs, and write the loop in which actor and critic teach each other: with tables, with networks, and on a world that
# this course did not make. *(Lecture: "Advantage function", "Rewrite the advantage function", "Actor-Critic methods";
# claims C33–C35.)* About 180 minutes, of which 142 for the exercises; runs in 80 s on two CPU cores.
#
# **You will need** lesson 08's estimator and lesson 09's baselines. **You will be able to** estimate an advantage in
# four ways and say what bias and variance each has, treat the end of an episode right, write the actor–critic loop,
# train networks with it, and write a test that finds the bugs in one that runs without an error.

# %% [markdown]
# ## Predict first
# Type your guesses over the dots before you run anything else; each is shown beside what you measure. An empty guess
# breaks nothing.
#
# 1. To know how good *one* action in *one* state is, you restart the world there many times. **How many times the
#    rollouts give one more decimal digit?**
# 2. A critic fitted to twenty episodes is rough. λ mixes it with real rewards: 0 believes the critic at once, 1 never.
#    **Which λ gives the best estimate of the gradient from 64 episodes?**
# 3. Every episode is cut off after ten steps, and the exact $V$ stands for the rest. **How much of the gradient
#    is left, measured along it: a share?**
# 4. Actor–critic and REINFORCE with a baseline, each with the better of two step sizes. **Actor–critic's episodes to 95
#    % of the best $J$ over REINFORCE's: what is the ratio with 4 episodes per update? And with 32?**
# 5. CartPole: balance a pole for 500 steps. **How many episodes does your loop need, from nothing?**

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

from ptlearn.course.predictions import predict

guesses = predict(
    rollouts_for_one_digit=...,  # times as many
    best_lambda=...,  # 0 to 1
    gradient_left_by_cuts=...,  # a share
    episodes_against_reinforce=...,  # a ratio, 4 episodes per update
    episodes_against_reinforce_at_32=...,  # a ratio, 32 episodes per update
    episodes_for_cartpole=...,  # a number
)

# %% [markdown]
# In a notebook, change a knob by changing its default in the next cell (`slip=(0.1, …`), then run all cells again.

# %%
import dataclasses
import statistics
from collections import namedtuple

import gymnasium
import torch
from matplotlib import pyplot
from torch import nn

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.course.lab import mystery_runs
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import ACTIONS, GridWorld
from ptlearn.policy_gradient import (
    advantage,
    discounts,
    episode_returns,
    leave_one_out,
    n_step_advantage,
    reward_to_go,
)
from ptlearn.rl.policies import TabularCritic, TabularPolicy
from ptlearn.rl.training import train_policy
from ptlearn.statistics import over_seeds

args = arguments(
    "Advantages from rollouts and from a critic; actor-critic with tables and networks.",
    map=("default", "the grid world, a name in ptlearn.grid.gridworld.MAPS"),
    slip=(0.1, "probability that a move goes astray", "at least 0, at most 1"),
    lam=(0.5, "lambda of the actor-critic on the grid", "at least 0, at most 1"),
    critics=(12, "critics per point in the figures of bias and error", "at least 2"),
    seeds=(5, "seeds of the comparison with REINFORCE", "at least 2"),
    cap=(200, "updates after which such a run is given up", "at least 1"),
    updates=(150, "at most, on CartPole", "at least 1"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would wait for the first


def seeded(seed=0):
    """A generator for one measurement: a cell that is run again gives the same again."""
    return torch.Generator().manual_seed(args.seed + seed)


# %% [markdown]
# ## The world, and a policy that errs
# The map of lesson 07 with a slippery floor: one move in ten goes astray. Each step costs 0.02, and with
# $\gamma = 0.95$ short ways are worth more. (The lecture has $\gamma = 1$; with $\gamma < 1$ the values exist without a
# time limit.)

# %%
GAMMA, HORIZON = 0.95, 200  # HORIZON: longer than nearly every episode
grid = GridWorld(args.map, slip=args.slip, step_reward=-0.02)
world = grid.to_mdp(GAMMA)
best = float(world.start @ mdp.value_iteration(world))
print(*grid.map, sep="\n")
print(f"{world.states} states; the goal pays 1, a pit -1; best expected return {best:.3f}")

# %% [markdown]
# ## The advantage, exactly
# $$A^\pi(s_t, a_t) = Q^\pi(s_t, a_t) - V^\pi(s_t)$$
#
# says how much better $a_t$ is than what the policy does on average in $s_t$. In a world that is known as arrays
# nothing has to be estimated: with $V^\pi$ given,
#
# $$Q^\pi(s, a) = \mathbb E_{s'}[\, r + \gamma V^\pi(s')\,]
#   = \sum_{s'} p(s' \mid s, a)\,\big(r(s, a, s') + \gamma V^\pi(s')\big).$$

# %% ex="10.1" title="The advantage" points=1 minutes=6 difficulty="easy"
def advantages(P, R, values, gamma):
    """A(s, a) = Q(s, a) - V(s) for all states and actions.

    P (S, A, S) probabilities of the next state, R (S, A, S) rewards on the way,
    values (S,) = V -> (S, A).
    """
    # BEGIN SOLUTION
    action_values = (P * (R + gamma * values)).sum(-1)
    return action_values - values[:, None]
    # END SOLUTION

# %% ex="10.1" role="check"
advantages = check("10.1", advantages)

# %% [markdown] ex="10.1" role="hints"
# <details><summary>Hint 1</summary>Q is a mean over next states: probability times (reward plus discounted value),
# summed over the last dimension.</details>
# <details><summary>Hint 2</summary><code>values</code> broadcasts along the last dimension, the next state. To subtract
# V of the state itself, make it a column: <code>values[:, None]</code>.</details>

# %% [markdown]
# The policy for most of this lesson is *half-trained*: exact gradient ascent, without a single sample, stopped on the
# way. It knows a little, and errs enough for every kind of advantage to occur.

# %%
policy = TabularPolicy(world.states, world.actions).double()
pi = mdp.probabilities(world, policy).detach()
while float(mdp.objective(world, pi)) < 0.3 * best:
    policy.logits.data += 2 * mdp.exact_gradient(world, policy).view_as(pi)
    pi = mdp.probabilities(world, policy).detach()
gradient = mdp.exact_gradient(world, policy).view_as(pi)
values = mdp.state_values(world, pi)
A = advantages(world.P, world.R, values, GAMMA)

# %%
visits = mdp.occupancy(world, pi)  # of each state: the sum over t of gamma^t Pr(s_t = s)
share = visits[:, None] * pi / visits.sum()  # how often each state and action is met
around = values - share.sum(1) @ values  # V around its mean
size = float((share * A**2).sum() ** 0.5)
print(f"J = {world.start @ values:.3f} of {best:.3f}")
for action, name in enumerate(ACTIONS):
    print(f"start, {name:6s} pi = {pi[0, action]:.2f}   A = {A[0, action]:+.3f}")
print(f"over what it meets, V has a standard deviation of "
      f"{(share.sum(1) @ around**2) ** 0.5:.3f}, A of {size:.3f}")  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(4.4, 3.2))
figures.value_map(axes, grid, values, pi)
axes.set_title("V of the half-trained policy")
show(figure, alt=f"Map of the grid world, goal and pit gray: V is {values[0]:.2f} at the "
     f"start and rises to {values.max():.2f} beside the goal; arrows show the policy.")

# %% [markdown]
# **What you saw.** States differ more than the actions in a state do: after one poor step from a good place the agent
# is still in a good place. The advantage is the smaller part of $Q$, and the only one that says what to do.

# %% [markdown]
# ## One rollout is a guess, K rollouts are a better one
# The reward-to-go is *one* rollout from $(s_t, a_t)$. "We can improve the estimate by sampling more rollouts from
# $(s_t, a_t)$." So restart the world there, $K$ times for every action, and average:
# $\hat A = \hat Q(s,a) - \sum_b \pi(b \mid s)\,\hat Q(s,b)$. Write the restart, for many states and actions side by side,
# and let it count the steps that the world has to make.

# %% ex="10.2" title="Restart the world" points=3 minutes=12 difficulty="medium"
def restart(world, pi, states, actions, horizon, generator):
    """One rollout from each (state, action): discounted returns (N,) and steps made (N,) int.

    states, actions (N,) int, no state terminal: the rollout begins with this action, then
    pi (S, A) goes on, until world.terminal[s] or for `horizon` steps. world has P and
    R (S, A, S) and gamma; draw with
    torch.multinomial(probabilities (N, K), 1, generator=generator), which gives (N, 1).
    """
    # BEGIN SOLUTION
    def draw(chances):
        return torch.multinomial(chances, 1, generator=generator).squeeze(1)

    returns = torch.zeros(len(states), dtype=torch.float64)
    steps = torch.zeros_like(states)
    for t in range(horizon):
        acting = ~world.terminal[states]
        if not acting.any():
            break
        after = draw(world.P[states, actions])
        returns = returns + world.gamma**t * world.R[states, actions, after] * acting
        steps = steps + acting
        states, actions = after, draw(pi[after])
    return returns, steps
    # END SOLUTION

# %% ex="10.2" role="check"
restart = check("10.2", restart)

# %% [markdown] ex="10.2" role="hints"
# <details><summary>Hint 1</summary>A loop over time, all rollouts at once. At each step: who is still acting? Draw the
# next states from <code>world.P[states, actions]</code>, add the discounted rewards, count, and draw the next actions
# from <code>pi[states]</code>, for the first ones are given.</details>
# <details><summary>Hint 2</summary>A terminal state leads to itself and pays 0, so finished rollouts may play on as long
# as they are not counted: <code>steps = steps + ~world.terminal[states]</code> before the move.</details>

# %%
POOL = 256  # rollouts from every state and action, to draw from below
going = (~world.terminal).nonzero().squeeze(1)
pairs = torch.cartesian_prod(going, torch.arange(world.actions)).repeat_interleave(POOL, 0)
found = restart(world, pi, pairs[:, 0], pairs[:, 1], HORIZON, seeded(1))
pool = torch.zeros(2, world.states, world.actions, POOL).double()  # returns, and steps made
for place, numbers in enumerate(found):
    pool[place, going] = torch.as_tensor(numbers).double().view(-1, world.actions, POOL)
print(f"{len(pairs):,} rollouts of {pool[1, going].mean():.1f} steps on average")

# %% tags=["again"]
COUNTS, errors = (1, 2, 4, 8, 16, 32, 64), []
for count in COUNTS:
    Q = pool[0].unflatten(-1, (-1, count)).mean(-1)  # of `count` rollouts each
    estimates = Q - (pi[..., None] * Q).sum(1, keepdim=True)
    squared = (share[..., None] * (estimates - A[..., None]) ** 2).sum((0, 1))
    errors.append(float(squared.mean() ** 0.5))
    print(f"K = {count:2d}: error {errors[-1]:.3f}, {errors[-1] / size:.1f} times A's size")
falls = torch.tensor(errors[-1] / errors[0]).log() / torch.tensor(COUNTS[-1]).log()
guesses.reveal("rollouts_for_one_digit", round(float(10 ** (-1 / falls))))

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
axes.plot(COUNTS, errors, "o", color=figures.COLORS[0], label="estimate from K rollouts")
axes.plot(COUNTS, [errors[0] / k**0.5 for k in COUNTS], "k:", label="1/√K")
axes.axhline(size, color=figures.COLORS[1], linestyle="--", label="size of the advantage")
axes.set(title="Error of the advantage against rollouts", xscale="log", yscale="log")
axes.set(xlabel="rollouts K from each state and action", ylabel="root mean squared error")
axes.set_xticks(COUNTS, COUNTS)
axes.legend(fontsize=8)
show(figure, alt=f"The error falls along the line 1/√K, from {errors[0]:.2f} at one rollout "
     f"to {errors[-1]:.3f} at {COUNTS[-1]}; the size of the advantages is {size:.2f}.")

# %% [markdown]
# **What you saw.** [C33] More rollouts per state and action do improve the estimate, and at the price of all averages:
# one more digit costs a hundred times the rollouts. One rollout of each action, more than REINFORCE has, is off by more
# than three times the size of what it should measure.
#
# Is it worth it? Estimate the gradient with weights from $K$ rollouts at every step that was visited, drawn from the 256
# above, minus the exact $V$. The variance of the estimate from one episode is given in units of $|\nabla J|^2$, and
# beside it stand the steps that the world made for it, counted: those of the episode, and those of all rollouts from its
# steps.

# %%
def episode_gradients(pi, states, actions, weights):
    """Lesson 08's: for each episode the sum of weight times score, (B, S, A)."""
    rows = torch.arange(len(weights))[:, None].expand_as(weights)
    taken = torch.zeros(len(weights), *pi.shape).double()
    taken.index_put_((rows, states, actions), weights.double(), accumulate=True)
    return taken - taken.sum(-1, keepdim=True) * pi


def variance(batch, weights):
    """Variance of one episode's estimate, of the half-trained policy, over |grad J|^2."""
    discounted = discounts(batch.mask, gamma=GAMMA) * weights  # gamma^t, see below
    each = episode_gradients(pi, batch.observations, batch.actions, discounted)
    return float(each.var(0).sum() / gradient.square().sum())


episodes, ends = collect(world, policy, 1000, horizon=HORIZON, generator=seeded(2))
known = values[episodes.observations], A[episodes.observations, episodes.actions]  # V and A
returns = reward_to_go(episodes.rewards, episodes.mask, gamma=GAMMA)

# %% tags=["again"]
own = episodes.mask.sum(1).double().mean()
rows = [("reward-to-go - V", variance(episodes, returns - known[0]), own)]
for count in (1, 4, 16):
    picked = torch.randint(POOL, (*episodes.mask.shape, count), generator=seeded(3))
    drawn = pool[:, episodes.observations[..., None], episodes.actions[..., None], picked]
    noise = variance(episodes, drawn[0].mean(-1) - known[0])
    made = own + (drawn[1].sum(-1) * episodes.mask).sum(1).mean()
    rows.append((f"K = {count} per step - V", noise, made))
rows.append(("exact advantage", variance(episodes, known[1]), own))
print("weights               variance/|∇J|²   world steps per episode   variance × steps")
for name, noise, made in rows:
    print(f"{name:20s} {noise:15.1f}   {made:23,.0f}   {noise * made:16,.0f}")

# %% [markdown]
# **What you saw.** More rollouts per step cut the variance towards that of the exact advantage, but the steps grow
# faster than the variance falls (last column: what a given precision costs): whoever can pay for rollouts should rather
# collect more episodes. And it needs a world that can be put back into any state, which a robot is not.
# The last row is the prize: the exact advantage, *without* a rollout. "Can we fit a function to predict $A^\pi$?"
#
# ### The factor $\gamma^t$
# With $\gamma < 1$ the gradient of $J$ is $\mathbb E[\sum_t \gamma^t\, \nabla \log \pi(a_t \mid s_t)\, A(s_t, a_t)]$
# (lesson 09 derives it): what happens late counts less in $J$, so its gradient counts less, too. The measurements above
# and below have the factor, because they are held against $\nabla J$. Training drops it, as everybody does. What does
# that cost? For the half-trained policy and the exact $A$ both means are known:

# %% tags=["again"]
def gradient_from(counts, weights):
    """Mean estimate where state s counts so often and (s, a) has this mean weight: (S, A)."""
    return counts[:, None] * pi * (weights - (pi * weights).sum(1, keepdim=True))


undiscounted = mdp.occupancy(dataclasses.replace(world, gamma=1.0), pi)
for name, counts in {"with γ^t": visits, "without": undiscounted}.items():
    mean = gradient_from(counts, A)
    cosine = torch.cosine_similarity(mean.flatten(), gradient.flatten(), dim=0)
    error, length = (x.norm() / gradient.norm() for x in (mean - gradient, mean))
    print(f"{name:8s} error / |∇J| {error:.3f}, cosine {cosine:.3f}, length {length:.2f}")

# %% [markdown]
# **What you saw.** With the factor the mean is exact. Without it the mean is longer, which a step size takes care of, and
# points a little elsewhere. In return late steps count as much as early ones. We drop it in every loop below.

# %% [markdown]
# ## Only V needs to be fitted
# The expectation in $Q^\pi$ splits after one step:
#
# $$A^\pi(s_t, a_t) = Q^\pi(s_t, a_t) - V^\pi(s_t)
#   = \mathbb E_{s_{t+1}}\!\left[\, r(s_t, a_t) + \gamma V^\pi(s_{t+1}) \,\right] - V^\pi(s_t)$$
#
# So one function of the *state* is enough, and the data brings an example of $s_{t+1}$ with every step. The lecture
# writes this without the expectation; that is an equality where the world is deterministic. Elsewhere the **TD
# residual** $\delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)$ is a one-sample estimate of $A$, and with the exact $V$ an
# unbiased one:

# %% tags=["again"]
each_way = world.R + GAMMA * values - values[:, None, None]  # (S, A, S')
state, action = 0, ACTIONS.index("right")
for chance, found in zip(world.P[state, action].tolist(), each_way[state, action].tolist()):
    if chance:
        print(f"start, right: probability {chance:.2f}, residual {found:+.3f}")
mean = (world.P * each_way).sum(-1)
print(f"mean {mean[state, action]:+.3f}, advantage {A[state, action]:+.3f}")

# %% [markdown]
# ### The end of an episode
# $V(s_{t+1})$ at the last step is where most implementations go wrong. If the episode **terminated** (goal, pit),
# nothing more comes: the next value is 0. If it was only **cut off** by a time limit, the world would have gone on: the
# next value is $V$ of the state it was left in.
#
# (In lessons 09 and 11 the limit is part of the task: $J$ there is the return of so many steps, and after the last one
# nothing follows. Here it is only the end of our patience: $J$ has no limit. Both are right, for different tasks.)

# %% ex="10.3" title="TD residuals" points=2 minutes=12 difficulty="medium"
def td_residuals(rewards, values, mask, final_values, terminated, gamma):
    """delta_t = r_t + gamma V(s_{t+1}) - V(s_t), and 0 where mask is False.

    rewards, values (B, T), values[:, t] = V(s_t), padding holds numbers too; mask (B, T) bool,
    True for the first steps of each row; final_values (B,), V of the state after each
    episode's last step; terminated (B,) bool.
    """
    # BEGIN SOLUTION
    following = torch.cat([values[:, 1:], values[:, :1]], 1)
    rows = torch.arange(len(mask))
    last = mask.sum(1) - 1
    following[rows, last] = torch.where(terminated, 0, final_values)
    return torch.where(mask, rewards + gamma * following - values, 0)
    # END SOLUTION

# %% ex="10.3" role="check"
td_residuals = check("10.3", td_residuals)

# %% [markdown] ex="10.3" role="hints"
# <details><summary>Hint 1</summary>Make a table of next values: the values one column to the left. It is right
# everywhere but at each row's last step, which is not always the last column.</details>
# <details><summary>Hint 2</summary><code>last = mask.sum(1) - 1</code> is that step;
# <code>following[rows, last] = ...</code> writes one number per row, 0 or <code>final_values</code>.</details>

# %% [markdown]
# ## Between the two: n-step and GAE(λ)
# With a critic $V_w$ that is not exact there is a choice *when* to stop believing rewards and start believing the
# critic. After one step (TD), after $n$, never (Monte Carlo, $V_w$ then is a baseline only), or all of them mixed:
#
# $$\hat A^{(n)}_t = \sum_{l=0}^{n-1} \gamma^l \delta_{t+l}, \qquad
#   \hat A^{\mathrm{GAE}(\lambda)}_t = (1-\lambda) \sum_{n \ge 1} \lambda^{n-1} \hat A^{(n)}_t
#   = \sum_{l \ge 0} (\gamma\lambda)^l \, \delta_{t+l}$$
#
# (Schulman et al., 2016). In $\hat A^{(n)}$ the values in the middle cancel: what stays is $n$ rewards,
# $+\gamma^n V_w(s_{t+n})$, and $-V_w(s_t)$.

# %% ex="10.4" title="Sums of residuals" points=2 minutes=10 difficulty="medium"
def gae(residuals, mask, gamma, lam):
    """A_t = sum over l >= 0 of (gamma lam)^l delta_{t+l}, within each episode; 0 on padding.

    residuals (B, T), with any numbers in the padding; mask (B, T) bool, True for the first
    steps of each row -> (B, T).
    """
    # BEGIN SOLUTION
    result = torch.zeros_like(residuals)
    running = torch.zeros_like(residuals[:, 0])
    for t in reversed(range(residuals.shape[1])):
        running = torch.where(mask[:, t], residuals[:, t] + gamma * lam * running, 0)
        result[:, t] = running
    return result
    # END SOLUTION

# %% ex="10.4" role="check"
gae = check("10.4", gae)

# %% [markdown] ex="10.4" role="hints"
# <details><summary>Hint 1</summary>Walk backwards: the sum at t is the residual at t plus gamma lam times the sum at
# t + 1.</details>
# <details><summary>Hint 2</summary>Carry one number per row; <code>torch.where(mask[:, t], ..., 0)</code> keeps it at zero
# until the episode's last step is reached.</details>

# %%
guess = torch.randn(world.states, generator=seeded(4)).double()  # a random critic
given = episodes.rewards, guess[episodes.observations], episodes.mask
residuals = td_residuals(*given, guess[ends], episodes.terminated, GAMMA)
over = episodes.terminated[:, None] & episodes.mask
apart = (gae(residuals, episodes.mask, GAMMA, 1.0) - returns + given[1])[over].abs().max()
print(f"λ = 1 and reward-to-go minus V differ by at most {apart:.0e}")

# %% [markdown]
# ## Fitting V
# The lecture: every visited state is a training example, its label the return that followed; fit a regression model $w$
# by minimizing
#
# $$\sum_{s \in \mathcal D} \left( V^\pi_w(s) - \hat V^\pi(s) \right)^2,
#   \qquad \hat V^\pi(s^i_t) = \sum_{t'=t}^{T} \gamma^{t'-t}\, r(s^i_{t'}, a^i_{t'})$$
#
# Our first model has one number per state. Setting the derivative to zero says what that number is.

# %% ex="10.5" title="Fitted values" points=1 minutes=6 difficulty="easy"
def fitted_values(observations, targets, mask, states):
    """The table (states,) with the least squared error to the targets; 0 where never visited.

    observations (B, T) int, targets (B, T) float, mask (B, T) bool.
    """
    # BEGIN SOLUTION
    seen = observations[mask]
    sums = torch.zeros(states, dtype=targets.dtype).index_add(0, seen, targets[mask])
    counts = torch.bincount(seen, minlength=states)
    return sums / counts.clamp(min=1)
    # END SOLUTION

# %% ex="10.5" role="check"
fitted_values = check("10.5", fitted_values)

# %% [markdown] ex="10.5" role="hints"
# <details><summary>Hint 1</summary>The number with the least squared error to several targets is their mean; leave the
# padding out.</details>
# <details><summary>Hint 2</summary><code>torch.zeros(states, dtype=targets.dtype).index_add(0, seen,
# targets[mask])</code> sums per state, <code>torch.bincount(seen, minlength=states)</code> counts.</details>

# %% [markdown]
# The label need not be the whole return. An advantage says how much better it went than $V_w$ expected, so $V_w(s_t) +
# \hat A_t$ is a label, too, for every λ. With λ = 1 it is the return (after a cut, with $V_w$ for the rest). With λ = 0
# it is $r_t + \gamma V_w(s_{t+1})$: one step of the world, and the model's own prediction of the rest. Then the labels
# move with the model, so fit, make new labels with the new $V_w$, and so on: **TD**, temporal differences.

# %% ex="10.6" title="The critic" points=3 minutes=12 difficulty="medium"
def evaluate(batch, final, states, gamma, lam, sweeps):
    """V of the policy that made this batch: a table (states,), 0 at first, after so many fits.

    Each sweep fits the table to V(s_t) + A_t, with A_t from `gae` and the table as it is.
    batch has .observations, .rewards, .mask (B, T) and .terminated (B,); final (B,) int, the
    states after the last steps. Use td_residuals, gae and fitted_values.
    """
    # BEGIN SOLUTION
    table = torch.zeros(states, dtype=batch.rewards.dtype)
    for _ in range(sweeps):
        now = table[batch.observations]
        after = table[final]
        given = batch.rewards, now, batch.mask, after, batch.terminated
        residuals = td_residuals(*given, gamma)
        targets = now + gae(residuals, batch.mask, gamma, lam)
        table = fitted_values(batch.observations, targets, batch.mask, states)
    return table
    # END SOLUTION

# %% ex="10.6" role="check"
evaluate = check("10.6", evaluate)

# %% [markdown] ex="10.6" role="hints"
# <details><summary>Hint 1</summary>A table of values becomes values of steps by looking up:
# <code>table[batch.observations]</code>. Then the residuals, their sums, the labels, and a new table.</details>
# <details><summary>Hint 2</summary>The label is the value that the advantage was measured against, plus the advantage:
# <code>now + gae(...)</code>. Each sweep starts from the table of the sweep before.</details>

# %% [markdown]
# The same episodes, the same model, two kinds of labels. Which is closer to the exact $V$? The error is weighted by how
# often states are visited.

# %%
SEEN, LABELS = (5, 20, 80), {"returns": (1.0, 1), "TD": (0.0, 60)}  # lam, sweeps


def critic_error(fitted):
    """Root mean squared error against the exact V, weighted by visits."""
    return float((visits / visits.sum() * (fitted - values) ** 2).sum() ** 0.5)


def critic_from(count, label, seed):
    """A critic fitted to so many episodes of the half-trained policy."""
    data = collect(world, policy, count, horizon=HORIZON, generator=seeded(seed))
    return evaluate(*data, world.states, GAMMA, *LABELS[label])


critic_errors = {label: [] for label in LABELS}
for count in progress(SEEN, "fitting critics"):
    for label, found in critic_errors.items():
        seeds = range(10, 10 + args.critics)
        found.append([critic_error(critic_from(count, label, seed)) for seed in seeds])
    returns_, td = (found[-1] for found in critic_errors.values())
    ratio = over_seeds([one / other for one, other in zip(td, returns_)])
    print(f"{count:3d} episodes: error {statistics.mean(returns_):.3f} on returns, "
          f"{statistics.mean(td):.3f} by TD; ratio {ratio}")  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
for index, (label, found) in enumerate(critic_errors.items()):
    figures.curve(axes, SEEN, [over_seeds(row) for row in found], f"labels: {label}", index)
axes.set(title="Error of the critic against the exact V", xscale="log", yscale="log")
axes.set(xlabel="episodes it has seen", ylabel="root mean squared error")
axes.set_xticks(SEEN, SEEN)
axes.tick_params(axis="x", which="minor", labelbottom=False)
axes.legend(fontsize=8)
show(figure, alt="Error against episodes, log axes. On returns it falls from {:.2f} to "
     "{:.3f}, by TD from {:.2f} to {:.3f}.".format(*(
         statistics.mean(found[at]) for found in critic_errors.values() for at in (0, -1))))

# %% [markdown]
# **What you saw.** Labels that are returns carry the noise of the whole future and know nothing of each other. TD uses
# that states are connected: what was learned about $s'$ in one episode serves all the others that pass there (Sutton &
# Barto, section 6.3). Already with five episodes its error is the smaller one.
#
# ## Bias and variance, exactly
# What is the mean of $\hat A_t$ with a critic that is wrong? In a known world it can be computed. The mean residual
# after $(s, a)$ is $\bar\delta(s, a) = \mathbb E_{s'}[r + \gamma V_w(s')] - V_w(s)$, which is `advantages` with $V_w$ in
# the place of $V$. The residual $l$ steps ahead is met wherever the world and the policy have led by then:
#
# $$\mathbb E[\hat A_t \mid s_t = s, a_t = a] = \bar\delta(s, a)
#   + \sum_{l \ge 1} c_l \sum_{s'} \Pr(s_{t+l} = s' \mid s, a) \sum_b \pi(b \mid s')\, \bar\delta(s', b),$$
#
# with $c_l = (\gamma\lambda)^l$ for GAE, and for $n$ steps $c_l = \gamma^l$ while $l < n$ and 0 from there on.

# %% ex="10.7" title="The mean of an advantage" points=3 minutes=14 difficulty="hard"
def mean_weights(P, pi, residuals, factors):
    """E[A_t | s, a] of a sum of residuals, the one l steps ahead times factors[l]: (S, A).

    P (S, A, S) and pi (S, A) probabilities; residuals (S, A), the mean residual after (s, a);
    factors, a list of numbers, factors[0] for the residual at t itself.
    """
    # BEGIN SOLUTION
    moves = torch.einsum("sa,sat->st", pi, P)  # the next state, by policy and world
    ahead = (pi * residuals).sum(1)
    reach = P
    total = factors[0] * residuals
    for factor in factors[1:]:
        total = total + factor * reach @ ahead
        reach = reach @ moves
    return total
    # END SOLUTION

# %% ex="10.7" role="check"
mean_weights = check("10.7", mean_weights)

# %% [markdown] ex="10.7" role="hints"
# <details><summary>Hint 1</summary>Two things stay as they are: the mean residual of each state under the policy, (S,),
# and the matrix (S, S) of moves under policy and world. One changes with l: where the agent is after l steps, (S, A, S).
# </details>
# <details><summary>Hint 2</summary>After one step that is <code>P</code>, after each further one <code>reach @ moves</code>;
# <code>reach @ ahead</code> is the mean residual there.</details>

# %% tags=["again"]
def mean_gradient(counts, fitted, factors):
    """E[g] with sums of residuals of a critic (S,), where states count so often: (S, A)."""
    fitted = torch.where(world.terminal, 0, fitted)
    delta = advantages(world.P, world.R, fitted, GAMMA)
    return gradient_from(counts, mean_weights(world.P, pi, delta, factors))


def off(mean):
    """The distance of a mean estimate from the gradient, relative to its length."""
    return float((mean - gradient).norm() / gradient.norm())


def gae_factors(lam, longest=200):
    return [(GAMMA * lam) ** ahead for ahead in range(longest)]


for name, fitted in {"exact V": values, "a random critic": guess}.items():
    for lam in (0.0, 0.5, 1.0):
        mean = mean_gradient(visits, fitted, gae_factors(lam))
        print(f"{name:16s} λ = {lam:.1f}: bias over |∇J| {off(mean):.0e}")

# %% [markdown]
# The corners: with the exact $V$ no λ is biased. With λ = 1 no critic biases (but for rounding and the end of the sum
# after 200 steps), *as long as no episode is cut off*: then $V_w$ is a baseline and nothing else. Between the corners
# lies practice. Fit critics by regression on returns, and hold the estimator with each of them against the exact
# gradient: bias exactly, variance over 1,000 episodes, both in units of $|\nabla J|^2$. An update from a batch of $N$
# episodes has the mean squared error $\text{bias}^2 + \text{variance}/N$.

# %%
def judged(fitted, factors, estimator, **options):
    """Squared bias and variance of one episode's estimate, both over |grad J|^2."""
    bias = off(mean_gradient(visits, fitted, factors)) ** 2
    bootstrap = torch.where(episodes.terminated, 0, fitted[ends])
    given = episodes.rewards, fitted[episodes.observations], episodes.mask, bootstrap
    return bias, variance(episodes, estimator(*given, gamma=GAMMA, **options))


LAMBDAS, SIZES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0), (4, 16, 64)
critics = {count: [critic_from(count, "returns", 100 + seed) for seed in range(args.critics)]
           for count in (5, 20, 320)}  # fmt: skip
table = {}  # (critics, lambdas, 2) for each number of episodes
for count, some in progress(critics.items(), "lambda"):
    table[count] = torch.tensor([[judged(fitted, gae_factors(lam), advantage, lam=lam)
                                  for lam in LAMBDAS] for fitted in some])  # fmt: skip

# %%
print("λ with the least error (and that error, against λ = 0 and λ = 1)")
print("critic has seen", *(f"{f'N = {N}':>24s}" for N in SIZES))
for count, found in table.items():
    cells = []
    for N in SIZES:
        total = (found[..., 0] + found[..., 1] / N).mean(0)
        least = LAMBDAS[int(total.argmin())]
        cells.append(f"{least:.2g} ({total.min():.2f}; {total[0]:.2f}, {total[-1]:.2f})")
    print(f"{count:4d} episodes  ", *(f"{cell:>24s}" for cell in cells))
bias, spread = table[20].unbind(-1)
total = (bias + spread / 64).mean(0)
least = int(total.argmin())
guesses.reveal("best_lambda", LAMBDAS[least])

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
parts = {"bias²": bias, "variance / 64": spread / 64, "sum": bias + spread / 64}
for index, (name, rows) in enumerate(parts.items()):
    points = len(LAMBDAS) - (name == "bias²")  # 0 at lam = 1, which a log axis cannot show
    columns = [over_seeds(column) for column in rows.T[:points]]
    figures.curve(axes, LAMBDAS[:points], columns, name, index)
axes.set(title="GAE(λ) with a critic fitted to 20 episodes", yscale="log", ylim=(0.01, None))
axes.set(xlabel="λ  (0: TD residual, 1: Monte Carlo)", ylabel="error of ĝ, N = 64, over |∇J|²")
axes.legend(fontsize=8)
show(figure, alt="Bias falls and variance rises with λ; their sum is U-shaped: "
     f"{total[0]:.2f} at λ = 0, {total.min():.2f} at λ = {LAMBDAS[least]}, "
     f"{total[-1]:.2f} at λ = 1.")

# %% tags=["again"]
print("critic of 20 episodes   bias²   variance   error at N = 64")
for n in (1, 2, 4, 8, 16, 200):
    factors = [GAMMA**ahead * (ahead < n) for ahead in range(200)]
    rows = [judged(fitted, factors, n_step_advantage, n=n) for fitted in critics[20]]
    means = "{:22.3f} {:10.1f}".format(*(statistics.mean(column) for column in zip(*rows)))
    print(f"n = {n:3d} {means}   {over_seeds([one + other / 64 for one, other in rows])}")

# %% [markdown]
# **What you saw.** [C34] Trusting the critic at once, instead of never, cuts the variance more than sixfold ($n = 1$
# against $n = 200$) and pays with bias. With the critic of 20 episodes neither end is best: the error is U-shaped in
# $\lambda$, and in $n$. With the best critic and the smallest batch λ = 0 is. Where the bottom
# lies depends on what you have: a better critic moves it to the left, a larger batch, which averages variance away and
# leaves the bias, to the right. That is why $\lambda$ and $n$ are knobs. Published code often has λ = 0.95, with batches
# of thousands of steps and critics that are networks; at our sizes it was never the best.

# %% [markdown]
# ### V after a cut repairs the critic, not the actor
# Cut every episode off after ten steps. First the critic: fit it by TD with the rule above, once treating every cut as
# an end, and on the returns of what was seen.

# %% tags=["again"]
pieces, left_in = collect(world, policy, 2000, horizon=10, generator=seeded(5))
as_ends = dataclasses.replace(pieces, terminated=torch.ones_like(pieces.terminated))
cut = 1 - pieces.terminated.double().mean()
print(f"{cut:.0%} of {len(left_in):,} episodes were cut off after 10 steps")
kinds = {"TD, V after a cut": (pieces, "TD"), "TD, a cut is an end": (as_ends, "TD"),
         "returns of what was seen": (pieces, "returns")}  # fmt: skip
for name, (data, label) in kinds.items():
    fitted = evaluate(data, left_in, world.states, GAMMA, *LABELS[label])
    print(f"  {name:25s} V(start) = {fitted[0]:+.3f}, error {critic_error(fitted):.3f}")
print(f"  {'exact':25s} V(start) = {values[0]:+.3f}")

# %% [markdown]
# Then the actor. The weights of the ten steps that were seen are now right, on average, if $V$ is. But what is done
# after the tenth step is seen no more, and its part of $\nabla J$ is lost. The mean estimate is exact again: with λ = 1
# the advantage at step $t$ has $10 - t$ residuals, and
#
# $$\mathbb E[\hat g]_{sa} = \sum_{t=0}^{9} \gamma^t\, \Pr(s_t = s)\; \pi(a \mid s)
#   \Big(w_t(s, a) - \sum_b \pi(b \mid s)\, w_t(s, b)\Big),
#   \qquad w_t(s, a) = \mathbb E[\hat A_t \mid s_t = s, a_t = a].$$

# %% ex="10.8" title="Cut off" points=3 minutes=12 difficulty="hard"
def cut_gradient(world, pi, values, horizon):
    """E[g] with lam = 1, every episode cut off after `horizon` steps, then `values`: (S, A).

    world has P, R (S, A, S), start (S,), terminal (S,) and gamma; pi (S, A); values (S,), of
    which those of terminal states do not count. Use advantages and mean_weights.
    """
    # BEGIN SOLUTION
    fitted = torch.where(world.terminal, 0, values)
    residuals = advantages(world.P, world.R, fitted, world.gamma)
    moves = torch.einsum("sa,sat->st", pi, world.P)
    reached, mean = world.start, torch.zeros_like(pi)
    for t in range(horizon):
        factors = [world.gamma**ahead for ahead in range(horizon - t)]
        weights = mean_weights(world.P, pi, residuals, factors)
        centered = weights - (pi * weights).sum(1, keepdim=True)
        mean = mean + world.gamma**t * reached[:, None] * pi * centered
        reached = reached @ moves
    return mean
    # END SOLUTION

# %% ex="10.8" role="check"
cut_gradient = check("10.8", cut_gradient)

# %% [markdown] ex="10.8" role="hints"
# <details><summary>Hint 1</summary>A loop over t with two things that change: where the agent is, (S,), and how many
# residuals are left, so how many factors gamma^l. The rest is the formula.</details>
# <details><summary>Hint 2</summary>The mean residuals are <code>advantages</code> of the values with 0 in terminal
# states; the agent moves by <code>torch.einsum("sa,sat->st", pi, P)</code>.</details>

# %% tags=["again"]
def along(mean):
    """The component of a mean estimate along the gradient, as a share of its length."""
    return float((mean * gradient).sum() / gradient.square().sum())


guessing = [torch.randn(world.states, generator=seeded(20 + k)).double() for k in range(10)]
for horizon in (10, 20, 40):
    found = [along(cut_gradient(world, pi, fitted, horizon)) for fitted in guessing]
    left = along(cut_gradient(world, pi, values, horizon))
    print(f"cut after {horizon}: with the exact V {left:.2f} of ∇J, with ten random critics "
          f"{min(found):.2f} to {max(found):.2f}")  # fmt: skip
guesses.reveal("gradient_left_by_cuts", along(cut_gradient(world, pi, values, 10)))

# %% [markdown]
# **What you saw.** With bootstrapping, ten steps at a time are enough to learn *values* whose rewards lie beyond the
# tenth step; without it the critic learns another problem, the one that ends after ten steps. The *actor* is not
# repaired: even with the exact $V$ more than a third of $\nabla J$ is missing, for the agent is never seen where it would
# be later. And with cuts λ = 1 is no protection from a wrong critic: $V_w$ after the cut stays in every sum. Both fade as
# fewer episodes are cut.

# %% [markdown]
# ## Actor and critic
# The critic evaluates the policy, the actor improves it with the critic's feedback, and each needs the other to be
# roughly up to date. The lecture's algorithm:
#
# 1. Sample a trajectory from the current policy.
# 2. Update $w$ given the estimated state values.
# 3. Evaluate $\hat A^\pi(s_t, a_t) = r(s_t, a_t) + V^\pi_w(s_{t+1}) - V^\pi_w(s_t)$.
# 4. Update the policy with $\hat g = \sum_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)\, \hat A^\pi(s_t, a_t)$.
#
# Before you write it: **is the order of 2 and 3 harmless?** If $V_w$ has just been fitted to *this* trajectory, it
# knows what happened, and so it is a baseline that depends on $a_t$. Measure it at the extreme: a table refitted to
# the returns of the batch of $N$ episodes that it then judges, against one fitted to the batch before.

# %% tags=["again"]
many, _ = collect(world, policy, 16384, horizon=HORIZON, generator=seeded(6))
uphill = (gradient - (pi * gradient).sum(1, keepdim=True)) / gradient.square().sum()
uphill = uphill[many.observations, many.actions] * discounts(many.mask, gamma=GAMMA)
to_go = reward_to_go(many.rewards, many.mask, gamma=GAMMA)
for N in (1, 4, 16, 64):
    number = torch.arange(len(to_go))[:, None] // N  # a table for each batch, side by side
    place = number * world.states + many.observations
    fitted = fitted_values(place, to_go, many.mask, len(to_go) // N * world.states)
    for name, shift in (("this batch", 0), ("the batch before", 1)):
        baseline = fitted[(place - shift * world.states) % len(fitted)]
        means = (uphill * (to_go - baseline) * many.mask).sum(1).view(-1, N).mean(1)
        print(f"N = {N:2d}, fitted to {name:16s}: ĝ along ∇J {over_seeds(means)}")

# %% [markdown]
# **What you saw.** With one trajectory, a critic that is fitted until it fits, and return minus $V_w$ as the weight, a
# third of the signal is left: where a state was visited once, $V_w(s_t)$ *is* the return and the advantage is zero.
# Fitted to other data, the same critic is only a baseline, and the mean is right. So evaluate first, then improve: it
# costs nothing.
#
# Now the loop. The model of the critic is anything with `critic(observations)` $= V_w$; it is improved by `fits` steps of
# Adam on half the mean squared error to the labels $V_w(s_t) + \hat A_t$. Labels and weights are *numbers*, computed
# before any step: no gradient passes through them.

# %% ex="10.9" title="Actor–critic, the loop" points=4 minutes=20 difficulty="hard"
def actor_critic(policy, critic, sample, updates, lr, critic_lr, gamma, lam, watch, fits=1):
    """Train both in place, each with an Adam of its own; returns the number of updates made.

    Each update: sample(policy) -> (batch, final); evaluate it all with the critic; one step of
    the actor, on the mean over episodes of the sums of -log pi times `gae`; then `fits` steps
    of the critic, on half the mean squared error over the steps acted, its labels held still;
    and watch(policy, critic) says by True that training is over. policy(observations) ->
    logits (B, T, A), critic(observations) -> (B, T). batch has .observations, .actions,
    .rewards, .mask and .terminated; final[:, None] is what was observed after the last steps,
    and critic(final[:, None]) is (B, 1).
    """
    # BEGIN SOLUTION
    actor_adam = torch.optim.Adam(policy.parameters(), lr=lr)
    critic_adam = torch.optim.Adam(critic.parameters(), lr=critic_lr)
    for update in range(1, updates + 1):
        batch, final = sample(policy)
        with torch.no_grad():
            values = critic(batch.observations)
            after = critic(final[:, None])[:, 0]
        given = batch.rewards, values, batch.mask, after, batch.terminated
        weights = gae(td_residuals(*given, gamma), batch.mask, gamma, lam)
        targets = values + weights

        logprobs = policy(batch.observations).log_softmax(-1)
        taken = logprobs.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        loss = -(weights * taken)[batch.mask].sum() / len(weights)
        actor_adam.zero_grad()
        loss.backward()
        actor_adam.step()

        for _ in range(fits):
            errors = (critic(batch.observations) - targets)[batch.mask]
            critic_loss = 0.5 * (errors**2).mean()
            critic_adam.zero_grad()
            critic_loss.backward()
            critic_adam.step()
        if watch(policy, critic):
            return update
    return updates
    # END SOLUTION

# %% ex="10.9" role="check"
actor_critic = check("10.9", actor_critic)

# %% [markdown] ex="10.9" role="hints"
# <details><summary>Hint 1</summary>The actor's half is lesson 08's loop. Before it, under <code>torch.no_grad()</code>:
# the critic's values of all steps, and of <code>final</code>; from them residuals (10.3), weights (10.4) and labels.
# Make both optimizers before the loop.</details>
# <details><summary>Hint 2</summary><code>critic(final[:, None])[:, 0]</code> is (B,). In the critic's steps only
# <code>critic(batch.observations)</code> is computed anew; index with <code>[batch.mask]</code> before the mean.
# </details>

# %%
def exact_J(now):
    return float(mdp.objective(world, mdp.probabilities(world, now).detach()))


def sampler(episodes, seed, horizon=100):
    """A function that samples a fresh batch of a policy's own episodes."""
    source = seeded(seed)
    return lambda now: collect(world, now, episodes, horizon=horizon, generator=source)


def tables():
    return TabularPolicy(world.states, world.actions), TabularCritic(world.states)


# %% [markdown]
# ## Against REINFORCE
# The rival is reward-to-go minus the average return of the *other* episodes. Same map, same batch of episodes, same
# seeds, and for each the better one of two step sizes. (The critic's step size and $\lambda = 0.5$ are not tuned here;
# they were fixed after a few tries on other seeds.) The score is the number of episodes until the *exact* $J$ of the
# policy reaches 95 % of the best; the agents never see it. A run that has not got there after 200 updates is stopped and
# counted with the episodes it used, which favours whoever fails more often.

# %%
def reinforce_weights(batch, *_):
    others = leave_one_out(episode_returns(batch.rewards, batch.mask, gamma=GAMMA))
    to_go = reward_to_go(batch.rewards, batch.mask, gamma=GAMMA)
    return (to_go - others[:, None]) * batch.mask


def until_solved(name, size, lr, seed):
    """The exact J after each update of `size` episodes, until 95 % of the best or the cap."""
    (agent, critic), curve = tables(), []
    sample = sampler(size, seed)

    def solved(now, _):
        curve.append(exact_J(now))
        return curve[-1] >= 0.95 * best

    if name == "actor-critic":
        actor_critic(agent, critic, sample, args.cap, lr, 0.1, GAMMA, args.lam, solved)
    else:
        train_policy(agent, lambda now, _: sample(now), reinforce_weights, updates=args.cap,
                     lr=lr, until=solved)  # fmt: skip
    return curve


# %%
def compare(size):
    """Of each method the curves at its best step size; and the ratio of the episodes there."""
    found = {}
    for name in ("REINFORCE", "actor-critic"):
        tried = []
        for lr in progress((0.2, 0.4), f"{name}, {size} per update"):
            curves = [until_solved(name, size, lr, 500 + seed) for seed in range(args.seeds)]
            needed = [size * len(curve) for curve in curves]
            print(f"{name:12s} {size:2d} per update, step size {lr}: episodes {needed}")
            tried.append((statistics.mean(needed), curves))
        found[name] = min(tried, key=lambda pair: pair[0])
    others, ours = (mean for mean, _ in found.values())
    return {name: curves for name, (_, curves) in found.items()}, ours / others


runs, of_4 = compare(4)
guesses.reveal("episodes_against_reinforce", of_4)
_, of_32 = compare(32)
guesses.reveal("episodes_against_reinforce_at_32", of_32)

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
for index, (name, curves) in enumerate(runs.items()):
    for place, curve in enumerate(curves):
        style = {"color": figures.COLORS[index], "linestyle": figures.DASHES[1 - index]}
        label = None if place else name
        axes.plot(range(4, 4 * len(curve) + 4, 4), curve, linewidth=1, label=label, **style)
axes.axhline(0.95 * best, color="black", linestyle=":", label="95 % of the best")
axes.set(title=f"{args.seeds} seeds each, 4 episodes per update", xscale="log")
axes.set(xlabel="episodes", ylabel="exact J of the policy")
axes.legend(fontsize=8)
mean = {name: 4 * statistics.mean(map(len, curves)) for name, curves in runs.items()}
show(figure, alt="Exact J against episodes, one line per seed, until 95 % of the best: "
     f"after {mean['actor-critic']:.0f} episodes, REINFORCE after {mean['REINFORCE']:.0f}.")

# %% [markdown]
# **What you saw.** [C35] Same world, same seeds, same step sizes to choose from: with four episodes per update
# actor–critic needs about a fifth of REINFORCE's episodes, with a critic that is kept from batch to batch, one baseline
# per state and λ = 0.5, of which REINFORCE has none. With 32 per update there is less noise to remove, and less to gain:
# about 0.6. Neither is safe from a step that is too large: with 0.4 and four episodes three of REINFORCE's runs and one
# of actor–critic's were given up.

# %% [markdown]
# ## Networks in place of tables
# A table cannot say anything about a state that it has not seen, and most worlds have too many states for one. So let a
# network read *features*: here, which row and which column a cell is in. One hidden layer, and a head that starts at 0:
# the uniform policy, and $V_w = 0$. The loop is yours, as it is. Batches of 16 episodes, $\lambda = 0.9$ and the step
# sizes below were fixed after a few tries. A third pair shares its hidden layer, "one trunk", as is often done.

# %%
class Network(nn.Module):
    """Features of the observation, hidden units, outputs; a single output is a value."""

    def __init__(self, features, inputs, outputs, trunk=None, scale=1.0):
        super().__init__()
        self.features, self.scale = features, scale
        self.trunk = trunk or nn.Sequential(nn.Linear(inputs, 32), nn.Tanh())
        self.head = nn.Linear(32, outputs)
        nn.init.zeros_(self.head.weight), nn.init.zeros_(self.head.bias)

    def forward(self, observations):
        found = self.scale * self.head(self.trunk(self.features(observations)))
        return found if found.shape[-1] > 1 else found[..., 0]


rows_and_columns = torch.tensor(grid.cells)
one_hot = [nn.functional.one_hot(numbers) for numbers in rows_and_columns.T]
CELLS = torch.cat(one_hot, 1).float()  # (S, rows + columns)


def pair_of(kind, seed):
    """An actor and a critic of a kind: tables, networks, or networks on one trunk."""
    if kind == "tables":
        return tables()
    torch.manual_seed(args.seed + seed)
    policy = Network(CELLS.__getitem__, CELLS.shape[1], world.actions)
    trunk = policy.trunk if kind == "one trunk" else None
    return policy, Network(CELLS.__getitem__, CELLS.shape[1], 1, trunk)


# %%
UPDATES = 48
RATES = {"tables": (0.2, 0.1), "networks": (0.03, 0.05), "one trunk": (0.03, 0.05)}


def learn(kind, seed):
    """The exact J after each update of 16 episodes."""
    curve, sample = [], sampler(16, 700 + seed)
    actor_critic(*pair_of(kind, seed), sample, UPDATES, *RATES[kind], GAMMA, 0.9,
                 lambda now, _: curve.append(exact_J(now)))  # fmt: skip
    return curve


learned = {}
for kind in progress(RATES, "networks"):
    learned[kind] = [learn(kind, seed) for seed in range(5)]
    for at in (UPDATES // 4, UPDATES // 2, UPDATES):
        J = over_seeds([curve[at - 1] for curve in learned[kind]])
        print(f"{kind:9s} after {16 * at} episodes: J {J}")

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
for index, (kind, curves) in enumerate(learned.items()):
    figures.learning_curves(axes, range(16, 16 * UPDATES + 16, 16), curves, kind, index)
axes.axhline(best, color="black", linestyle=":", label="best")
axes.set(title="The same loop, tables and networks")
axes.set(xlabel="episodes", ylabel="exact J of the policy")
axes.legend(fontsize=8)
show(figure, alt=f"Exact J against episodes, 5 seeds each. After {16 * UPDATES} episodes: "
     + ", ".join(f"{kind} {statistics.mean(curve[-1] for curve in curves):.2f}"
                 for kind, curves in learned.items()) + ".")

# %% [markdown]
# ### What breaks
# Three things. *The neighbours move*: a step that raises $V_w$ in one state raises it in others, also in the goal, in
# which nobody ever acts; in a table it does not. *The target moves*: the label $r + \gamma V_w(s')$ is made of the very
# weights that the step changes; a table survives it. And *the gradient leaks*, from tables too: whoever forgets that
# labels are numbers also pulls $V_w(s')$ towards $V_w(s)$. First the leak and the neighbours:
# critics fitted to 60 episodes of the half-trained policy by one-step TD, 150 steps of Adam each. Then the smallest
# target that runs away (Tsitsiklis & Van Roy, 1996): two states that share one weight.

# %%
def regress(critic, batch, final, leaking, steps=150, lr=0.01):
    """Fit by one-step TD, with labels that are numbers, or with labels that leak."""
    adam = torch.optim.Adam(critic.parameters(), lr=lr)
    for _ in range(steps):
        now, after = critic(batch.observations), critic(final[:, None])[:, 0]
        given = batch.rewards, now, batch.mask, after, batch.terminated
        labels = now + td_residuals(*given, GAMMA)
        labels = labels if leaking else labels.detach()
        adam.zero_grad()
        ((now - labels)[batch.mask] ** 2).mean().backward()
        adam.step()
    return critic(torch.arange(world.states)).detach().double()


# %%
goal = int(world.R.amax((0, 1)).argmax())  # entering it pays most
for kind in progress(("tables", "networks"), "what breaks"):
    for name, leaking in {"numbers": False, "leaking": True}.items():
        found = []
        for seed in range(5):
            batch, final = collect(world, policy, 60, horizon=60, generator=seeded(40 + seed))
            batch = dataclasses.replace(batch, rewards=batch.rewards.float())
            found.append(regress(pair_of(kind, seed)[1], batch, final, leaking))
        apart = over_seeds([critic_error(fitted) for fitted in found])
        at_goal = over_seeds([float(fitted[goal]) for fitted in found])
        print(f"{kind:8s} labels {name}: error {apart}, V(goal) {at_goal}")

# %% tags=["again"]
for name, both in {"A and B, as they are met": True, "A alone": False}.items():
    w = 1.0  # V(A) = w, V(B) = 2w; A leads to B, B ends, nothing is paid: the right w is 0
    for _ in range(100):
        residual_A, residual_B = GAMMA * 2 * w - w, 0 - 2 * w
        w += 0.1 * (residual_A * 1 + residual_B * 2 * both)  # times the features, 1 and 2
    print(f"fitted on {name}: V(A) = {w:.3g}")

# %% [markdown]
# **What you saw.** [C35] At these settings the separate networks are far ahead of the tables after 192 episodes (tables
# with smaller batches and λ = 0.5 were faster, above), and all end near the best. With one trunk the critic's steps also
# move the actor's features: on average a little behind the separate networks, with a wider spread.
#
# Labels that leak lead elsewhere in the same 150 steps: in tables the error is 0.20 in place of 0.07, in networks
# larger on average too, which five seeds do not settle. With a gradient through $V_w(s')$ the squared residual can also
# be made small by drawing neighbours together, and where the floor is slippery that is not the value (Baird, 1995). The
# networks say about 0.7 in the goal, in which nobody acts and which no label names: whoever uses that number after the
# end adds $\gamma$ times it to a reward of 1. And A and B: the label of A, $\gamma \cdot 2w$, runs ahead of $V_w(A) =
# w$ at every step. As long as B is fitted as often as it is met, it pulls $w$ back; fitted on A alone, as old data may
# have it, nothing does. A table is safe (each state has its own number), and so is a linear critic fitted to what the
# *current* policy meets. Hence the loop: fresh episodes, and labels held still during the critic's steps.

# %% [markdown]
# ## A world that this course did not make
# Gymnasium's `CartPole-v1`: a pole on a cart, two actions (push left, push right), an observation of four numbers
# (position, velocity, angle, angular velocity), a reward of 1 for every step until the pole falls or the cart leaves,
# and a time limit of 500 steps. A table would need bins; a network reads the numbers. Gymnasium steps many carts
# at once, each in an episode of its own. Write the sampler: the only part of your loop that knows the world.

# %%
Batch = namedtuple("Batch", "observations actions rewards mask terminated")

# %% ex="10.10" title="Episodes of any world" points=3 minutes=18 difficulty="hard"
def play(environments, policy, horizon, generator):
    """One episode of each of B environments, side by side: (Batch, final (B, F)).

    In the Batch observations are (B, T, F), actions, rewards and mask (B, T), terminated (B,).

    environments.reset(seed=number) -> (observations, _) and environments.step(actions) ->
    (observations, rewards, terminated, truncated, _) give and take NumPy arrays with an entry
    per environment. One that has ended begins another episode by itself: that is padding.
    terminated is True where the world ended the episode, not the time limit; final is what is
    observed after an episode's own last step. Stop when all have ended, or after `horizon`
    steps. Draw the seed with torch.randint(2**31, (), generator=generator), the actions with
    torch.multinomial.
    """
    # BEGIN SOLUTION
    seed = int(torch.randint(2**31, (), generator=generator))
    now = torch.as_tensor(environments.reset(seed=seed)[0])
    acting = torch.ones(len(now), dtype=torch.bool)
    terminated, final, columns = ~acting, now, []
    while acting.any() and len(columns) < horizon:
        with torch.no_grad():
            chances = policy(now[:, None])[:, 0].softmax(-1)
        action = torch.multinomial(chances, 1, generator=generator)[:, 0]
        moved = environments.step(action.numpy())
        after, reward, over, cut = (torch.as_tensor(part) for part in moved[:4])
        columns.append((now, action, reward, acting))
        final = torch.where(acting[:, None], after, final)
        terminated = terminated | (acting & over)
        acting = acting & ~over & ~cut
        now = after
    fields = [torch.stack(column, 1) for column in zip(*columns)]
    return Batch(*fields, terminated), final
    # END SOLUTION

# %% ex="10.10" role="check"
play = check("10.10", play)

# %% [markdown] ex="10.10" role="hints"
# <details><summary>Hint 1</summary>As in lesson 08, note (observation, action, reward, still acting) at each step and
# stack at the end. Note them <em>before</em> you update who is still acting: the step that ends an episode is acted.
# </details>
# <details><summary>Hint 2</summary>The policy takes (B, T, F): give it <code>now[:, None]</code> and take
# <code>[:, 0]</code> of what comes. <code>torch.where(acting[:, None], after, final)</code> keeps the last observation of
# those that have ended.</details>

# %% [markdown]
# Eight carts per update, $\gamma = 0.98$, $\lambda = 0.95$; ten steps of the critic for each of the actor. Both networks
# see the observation divided by its usual size, and the critic's outputs count $1/(1 - \gamma) = 50$, the most that a
# discounted return can be. Training stops when three batches in a row have
# balanced for 475 steps on average, which is where Gymnasium calls the task solved; then the policy, still sampling, is
# tested on 50 new episodes.

# %%
SIZE = torch.tensor([2.4, 2.0, 0.2, 2.0])  # of position, velocity, angle, angular velocity


def balance(seed):
    """Train on CartPole: (mean length of each batch, mean return of 50 new episodes)."""
    torch.manual_seed(args.seed + seed)
    policy = Network(lambda x: x / SIZE, 4, 2)
    critic = Network(lambda x: x / SIZE, 4, 1, scale=50)
    source, lengths = seeded(seed), []

    def sample(now, count=8):
        batch, final = play(gymnasium.make_vec("CartPole-v1", count), now, 500, source)
        lengths.append(float(batch.mask.sum(1).double().mean()))
        return batch, final

    def solved(*_):
        return len(lengths) > 2 and min(lengths[-3:]) >= 475

    actor_critic(policy, critic, sample, args.updates, 0.02, 0.03, 0.98, 0.95, solved, fits=10)
    sample(policy, 50)
    return lengths[:-1], lengths[-1]  # a step pays 1: the length is the return


# %%
carts = [balance(seed) for seed in progress(range(5), "CartPole")]
needed = [8 * len(lengths) for lengths, _ in carts]
for episodes_made, (lengths, tested) in zip(needed, carts):
    print(f"{episodes_made:5,} episodes, {8 * sum(lengths):7,.0f} steps; return {tested:.0f}")
print(f"solved, 475 of 500: {sum(tested >= 475 for _, tested in carts)} of {len(carts)} seeds")
guesses.reveal("episodes_for_cartpole", round(statistics.mean(needed)))

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
for color, count, (lengths, _) in zip(figures.COLORS, needed, carts):
    axes.plot(range(8, count + 8, 8), lengths, color=color, linewidth=1)
axes.axhline(475, color="black", linestyle=":", label="solved")
axes.set(title=f"CartPole-v1, {len(carts)} seeds")
axes.set(xlabel="episodes", ylabel="steps balanced, mean of 8")
axes.legend(fontsize=8)
show(figure, alt="Steps balanced against episodes, one line per seed: from at most "
     f"{max(lengths[0] for lengths, _ in carts):.0f} in the first batch to at least "
     f"{min(lengths[-1] for lengths, _ in carts):.0f}; at most {max(needed):,} episodes.")

# %% [markdown]
# **What you saw.** [C35] The critic, the advantages and the loop do not know which world they are in: solved on every
# seed, after 120 to 344 episodes. The way there is not straight: one of the seeds falls back from 300 steps to 130 before
# it gets there. The time limit is a cut: the pole still stands, and $V_w$ stands for what would come. Taken for an end,
# the last steps of a perfect episode would look as if nothing followed them.
#
# ## Silent bug lab
# Here are seven runs that you can call and not read. One of them is actor–critic, six have a bug that raises no error.
# Each is called as `run(policy, critic, batch, final, lr, critic_lr, gamma, lam)` and makes *one* update of a
# `TabularPolicy` and a `TabularCritic` in place, from a batch and the states after its last steps: a plain gradient step
# of `lr` on the actor's loss of 10.9, and one of `critic_lr` on the critic's. First the symptoms: the small map, 50
# updates of 8 episodes, 3 seeds.

# %%
LAB = GridWorld("small", slip=0.2, step_reward=-0.05).to_mdp(GAMMA)
lab = mystery_runs("10.11")


def symptoms(run, initial=0.0):
    """The range of the exact J after 50 updates, in words; V = `initial` at the start."""
    found = []
    for seed in range(3):
        agent = TabularPolicy(LAB.states, 4)
        critic, source = TabularCritic(LAB.states, initial=initial), seeded(900 + seed)
        for _ in range(50):
            batch = collect(LAB, agent, 8, horizon=6, generator=source)
            run(agent, critic, *batch, 0.5, 1.0, GAMMA, args.lam)
        found.append(float(mdp.objective(LAB, mdp.probabilities(LAB, agent).detach())))
    return f"{min(found):+.2f} to {max(found):+.2f}"


for name, run in progress(lab.items(), "runs"):
    print(f"run {name}: exact J at the end {symptoms(run)}")

# %% [markdown]
# A curve says that something is wrong, at best, and not always that. A **property test** says what. You know what one
# update must do to each table: the actor's moves by `lr` times the mean over episodes of weight times score
# (`episode_gradients`), the critic's by `critic_lr` times the mean over the steps of $\hat A_t$, each in the row of its
# state. Mind where a bug can hide: a critic that says 0 in the goal, as a fresh table does, cannot show that somebody
# reads it there; a batch in which every episode terminates cannot show what is done with a cut. Write one function that
# passes the right run and refuses as many wrong ones as you can: a point each for two, four and all six.

# %% ex="10.11" title="Tests for silent bugs" points=3 minutes=20 difficulty="hard"
def is_actor_critic(run):
    """Whether run(policy, critic, batch, final, lr, critic_lr, gamma, lam) updates rightly."""
    # BEGIN SOLUTION
    source = torch.Generator().manual_seed(1)
    policy = TabularPolicy(LAB.states, LAB.actions).double()
    critic = TabularCritic(LAB.states).double()
    logits = torch.randn(LAB.states, LAB.actions, generator=source).double()
    V = torch.randn(LAB.states, generator=source).double()
    policy.logits.data = logits.clone()
    critic.values.data = V.clone()
    batch, final = collect(LAB, policy, 40, horizon=5, generator=source)
    run(policy, critic, batch, final, 0.5, 0.3, 0.9, 0.7)

    states, mask = batch.observations, batch.mask
    residuals = td_residuals(batch.rewards, V[states], mask, V[final], batch.terminated, 0.9)
    weights = gae(residuals, mask, 0.9, 0.7)
    pushes = episode_gradients(logits.softmax(-1), states, batch.actions, weights)
    sums = torch.zeros_like(V).index_add(0, states[mask], weights[mask])
    actor_right = torch.allclose(policy.logits, logits + 0.5 * pushes.mean(0))
    critic_right = torch.allclose(critic.values, V + 0.3 * sums / mask.sum())
    return actor_right and critic_right
    # END SOLUTION

# %% ex="10.11" role="check"
is_actor_critic = check("10.11", is_actor_critic)

# %% [markdown] ex="10.11" role="hints"
# <details><summary>Hint 1</summary>Make policy and critic in double precision with random entries, keep copies, collect a
# batch with a short horizon, so that some episodes are cut, call the run once, and compare both tables with what you
# compute from the copies.</details>
# <details><summary>Hint 2</summary>Weights from <code>td_residuals</code> and <code>gae</code>; the actor's move from
# <code>episode_gradients(...).mean(0)</code>; the critic's by <code>index_add</code> of the weights, which are 0 on
# padding, divided by <code>batch.mask.sum()</code>.</details>

# %%
for name, run in progress(lab.items(), "runs"):
    print(f"run {name}, V = -2 at the start: exact J at the end {symptoms(run, initial=-2.0)}")

# %% [markdown]
# **What you saw.** Run A is actor–critic. When the critic starts at 0, all seven end within 0.1 of each other, one wrong
# run above the right one: no curve gives these bugs away. Run C uses what the critic says in goal and pit. A table that
# starts at 0 and is never fitted there says 0 by luck; from $V = -2$, which a network might say as well, C falls behind,
# and so does run E, which trains on padding. Run B fits the critic before it judges. Run D weighs by the labels, so that
# $V_w(s_t)$ is no baseline. Run F takes a cut for an end, which is frequent in published code (Pardo et al., 2018). Run
# G's critic is fitted to what it says already, and never learns.
#
# ## Recap
# - The advantage is what a weight should be. Averaging $K$ rollouts estimates it with an error that falls as $1/\sqrt
#   K$, and is
#   the expensive way.
# - A critic turns the rest of the episode into a prediction: the TD residual is an unbiased estimate of $A$ when $V$ is
#   exact, and biased when it is not.
# - λ (or $n$) trades that bias against variance; the best one depends on the critic and on the batch.
# - Terminated: the next value is 0. Cut off: the next value is $V$. That repairs the critic; the states behind the cut
#   stay unseen.
# - Evaluate with the critic first, improve it afterwards; labels and weights are numbers.
#
# ## Try next
# - `lam` 0 or 0.95: is the λ with the least error of $\hat g$ also the one that learns fastest?
# - `slip` 0: in a deterministic world, what is the variance of the residual with the exact $V$?
# - CartPole with training episodes of 50 steps (in `balance`, 50 for 500 where `count` is 8), the rest by bootstrapping.
#   Does it balance for 500?
#
# ## References
# - Barto, Sutton & Anderson (1983). Neuronlike adaptive elements that can solve difficult learning control problems.
#   *IEEE Transactions on Systems, Man, and Cybernetics* 13(5). Actor and critic, and the pole on the cart.
# - Sutton (1988). Learning to predict by the methods of temporal differences. *Machine Learning* 3.
# - Baird (1995). Residual algorithms: reinforcement learning with function approximation. *ICML*. The gradient that
#   leaks, done on purpose.
# - Tsitsiklis & Van Roy (1996). Feature-based methods for large scale dynamic programming. *Machine Learning* 22. A and B.
# - Sutton, McAllester, Singh & Mansour (2000). Policy gradient methods for reinforcement learning with function
#   approximation. *NeurIPS 12*.
# - Mnih et al. (2016). Asynchronous methods for deep reinforcement learning. *ICML*.
# - Schulman, Moritz, Levine, Jordan & Abbeel (2016). High-dimensional continuous control using generalized advantage
#   estimation. *ICLR*.
# - Pardo, Tavakoli, Levdik & Kormushev (2018). Time limits in reinforcement learning. *ICML*.
# - Sutton & Barto (2018). *Reinforcement Learning: An Introduction*, 2nd edition, chapters 6, 7 and 13.
