# Lesson 10: actor and critic. jupytext py:percent; runs as a script: python lessons/10_actor_critic.py --help

# %% [markdown]
# # 10 · Actor–critic: a value function instead of luck
#
# A baseline takes away the noise of *where* the agent is; what is left is the noise of everything that happens *after*
# the action. In this lesson you replace that future by a prediction, the critic, see what it saves and what it costs
# (the estimate is no longer unbiased), and let actor and critic teach each other. *(Lecture: "Advantage function",
# "Rewrite the advantage function", "Actor-Critic methods"; claims C33–C35.)* About 80 minutes; runs in 45 s on two CPU
# cores.
#
# **You will need** lesson 08's estimator and lesson 09's baselines. **You will be able to** estimate an advantage in
# four ways and say what bias and variance each has, treat the end of an episode right, write the actor–critic loop, and
# find the bugs in one that runs without an error.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import dataclasses
import math
import statistics

import gymnasium
import torch
from matplotlib import pyplot

from ptlearn import figures, optimization, policy_gradient
from ptlearn.course.exercise import check
from ptlearn.grid import mdp as exact
from ptlearn.grid.collection import collect, collect_from, from_gymnasium
from ptlearn.grid.gridworld import ACTIONS, GridWorld
from ptlearn.policy_gradient import advantage, discounts, episode_returns, leave_one_out, reward_to_go
from ptlearn.rl import training
from ptlearn.rl.policies import TabularCritic, TabularPolicy
from ptlearn.rollout import action_logprobs
from ptlearn.statistics import Estimate, over_seeds

args = arguments(
    "Advantages from rollouts and from a critic, their bias and variance, and actor-critic against REINFORCE.",
    map=("default", "the grid world, a name in ptlearn.grid.gridworld.MAPS"),
    slip=(0.1, "probability that a move goes astray", "at least 0, at most 1"),
    gamma=(0.95, "discount per step", "above 0, below 1"),
    lam=(0.5, "lambda of the actor-critic", "at least 0, at most 1"),
    batch=(4, "episodes per update of the actor-critic and of REINFORCE", "at least 1"),
    critics=(30, "critics per point in the figures of bias and error", "at least 2"),
    seeds=(10, "seeds of the comparison with REINFORCE", "at least 2"),
    cap=(800, "episodes after which a run of the comparison is given up", "at least 1"),
    seed=(0, "of everything else", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would spend its time waiting for the first
generator = torch.Generator().manual_seed(args.seed)
world = GridWorld(args.map, slip=args.slip, step_reward=-0.02)
mdp = world.to_mdp(gamma=args.gamma)
best = float(mdp.start @ exact.value_iteration(mdp))
print(*world.map, sep="\n")
print(f"{mdp.states} states; 1 at the goal, -1 at a pit, -0.02 per other step; best expected return {best:.3f}")

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. To know how good *one* action in *one* state is, you restart the world there many times. **How many rollouts do you
#    need for one more decimal digit?**
# 2. The critic has seen twenty episodes; its values are rough. Use them in place of the rest of an episode. **Does the
#    estimate of the gradient get better or worse? Is there a best mixture of critic and real rewards?**
# 3. Actor–critic and REINFORCE with a baseline, the same map, the same seeds, each with its best step size. **What is
#    the ratio of the episodes they need?**

# %% [markdown]
# ## The advantage, exactly
# $$A^\pi(s_t, a_t) = Q^\pi(s_t, a_t) - V^\pi(s_t)$$
#
# says how much better $a_t$ is than what the policy does on average in $s_t$. In a world that is known as arrays
# nothing has to be estimated: with $V^\pi$ given, $Q^\pi(s,a) = \mathbb E_{s'}[\,r + \gamma V^\pi(s')\,]$. (The lecture
# has $\gamma = 1$; here short ways should be worth more, and $V$ should exist without a time limit.)

# %% ex="10.1" points=1 minutes=6 difficulty="easy"
def advantages(P, R, values, gamma):
    """A(s, a) = Q(s, a) - V(s) for all states and actions.

    P (S, A, S) probabilities of the next state, R (S, A, S) rewards on the way, values (S,) = V -> (S, A).
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
# <details><summary>Hint 2</summary>`values` broadcasts along the last dimension, the next state. To subtract V of the
# state itself, make it a column: `values[:, None]`.</details>

# %% [markdown]
# The policy for most of this lesson is *half-trained*: exact gradient ascent, without a single sample, stopped on the
# way. It knows a little, and errs enough for every kind of advantage to occur.

# %%
policy = TabularPolicy(mdp.states, mdp.actions).double()
while float(exact.objective(mdp, pi := exact.probabilities(mdp, policy).detach())) < 0.3 * best:
    gradient = exact.exact_gradient(mdp, policy)
    policy.logits.data += 2 * gradient.view_as(policy.logits)

# %%
gradient = exact.exact_gradient(mdp, policy)
values = exact.state_values(mdp, pi)
action_values = exact.action_values(mdp, values)
A = advantages(mdp.P, mdp.R, values, mdp.gamma)
assert torch.allclose(A, action_values - values[:, None])
assert (pi * A).sum(1).abs().max() < 1e-9  # on average over the policy's own actions: nothing
print(f"J = {float(mdp.start @ values):.3f} of {best:.3f}; in the start cell V = {values[0]:.3f}")
for action, name in enumerate(ACTIONS):
    print(f"  {name:6s} pi = {pi[0, action]:.2f}   Q = {action_values[0, action]:+.3f}   A = {A[0, action]:+.3f}")
visits = exact.occupancy(mdp, pi)
share = (visits / visits.sum())[:, None] * pi  # how often each state and action is met
spread = float((share * (values[:, None] - (share.sum(1) * values).sum()) ** 2).sum() ** 0.5)
size = float((share * A**2).sum() ** 0.5)
print(f"over the cells it visits, V has a standard deviation of {spread:.3f}, A of {size:.3f}")

# %%
figure, axes = pyplot.subplots(figsize=(4.4, 3.2))
figures.value_map(axes, world, values, pi)
axes.set_title("V of the half-trained policy")
alt = "Map of the grid world: V is {:.2f} at the start and rises to {:.2f} beside the goal."
show(figure, alt=alt.format(values[0], values.max()))

# %% [markdown]
# **What you saw.** States differ more than the actions in a state do: after one poor step from a good place the agent
# is still in a good place. The advantage is the smaller part of $Q$, and the only one that says what to do.

# %% [markdown]
# ## One rollout is a guess, K rollouts are a better one
# The reward-to-go is *one* rollout from $(s_t, a_t)$. "We can improve the estimate by sampling more rollouts from
# $(s_t, a_t)$." So restart the world there, $K$ times for every action, and average:
# $\hat A = \hat Q(s,a) - \sum_b \pi(b \mid s)\,\hat Q(s,b)$. The mean of $K$ independent numbers has an error of order
# $1/\sqrt K$.

# %%
HORIZON, POOL = 200, 1024


def rollouts_from(state, action, count):
    """Returns of `count` episodes that begin with this action in this state: (count,)."""
    after = dataclasses.replace(mdp, start=mdp.P[state, action])  # the world answers the action, then pi goes on
    rollout, final_states = collect(after, policy, count, horizon=HORIZON, generator=generator)
    first = torch.where(rollout.mask.any(1), rollout.observations[:, :1].sum(1), final_states)
    return mdp.R[state, action, first] + mdp.gamma * episode_returns(rollout.rewards, rollout.mask, gamma=mdp.gamma)


going = (~mdp.terminal).nonzero()[:, 0].tolist()
pool = torch.zeros(mdp.states, mdp.actions, POOL).double()
for state in progress(going, "restarting"):
    for action in range(mdp.actions):
        pool[state, action] = rollouts_from(state, action, POOL)

# %%
COUNTS, errors = (1, 2, 4, 8, 16, 32, 64, 128), []
for count in COUNTS:
    estimate = pool.unflatten(-1, (-1, count)).mean(-1)  # Q from `count` rollouts, POOL / count times
    estimate = estimate - (pi[..., None] * estimate).sum(1, keepdim=True)
    squared = (share[..., None] * (estimate - A[..., None]) ** 2).sum((0, 1))
    errors.append(Estimate(*(max(x, 0.0) ** 0.5 for x in over_seeds(squared)[:3]), len(squared)))
    print(f"K = {count:3d}: root mean squared error {errors[-1].mean:.3f} [{errors[-1].low:.3f}, {errors[-1].high:.3f}]")
slope = torch.linalg.lstsq(torch.tensor([[math.log(k), 1] for k in COUNTS]).double(),
                           torch.tensor([[math.log(e.mean)] for e in errors]).double()).solution[0].item()
print(f"slope on log axes {slope:.2f}; the advantages themselves are {size:.3f} in size")

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
figures.curve(axes, COUNTS, errors, "estimate from K rollouts")
axes.plot(COUNTS, [errors[0].mean / k**0.5 for k in COUNTS], color="black", linestyle=":", label="1/√K")
axes.axhline(size, color=figures.COLORS[1], linestyle="--", label="size of the advantage")
axes.set(title="Error of the advantage against rollouts", xlabel="rollouts K from each state and action",
         ylabel="root mean squared error (return)", xscale="log", yscale="log")  # fmt: skip
axes.set_xticks(COUNTS, COUNTS)
axes.legend(fontsize=8)
alt = "The error falls along the line 1/√K, from {:.2f} at one rollout to {:.3f} at {}; the advantages' size is {:.2f}."
show(figure, alt=alt.format(errors[0].mean, errors[-1].mean, COUNTS[-1], size))

# %% [markdown]
# **What you saw.** [C33] More rollouts per state and action do improve the estimate, and at the price of all averages:
# one more digit costs a hundred times the rollouts. A single rollout, which is what REINFORCE has, is off by more
# than three times the size of what it should measure.
#
# Is it worth it? Take the gradient estimate $\hat g$ with weights from $K$ fresh rollouts at every visited step, minus
# the exact $V$, and count the steps that the world had to make.

# %%
def episode_gradients(rollout, weights):
    """The gradient estimate of each episode of a tabular policy: (B, S * A). Their mean is the estimate."""
    taken = rollout.observations * mdp.actions + rollout.actions
    table = torch.zeros(len(weights), mdp.states * mdp.actions).double()
    table = table.scatter_add(1, taken, torch.where(rollout.mask, weights, 0)).unflatten(1, (-1, mdp.actions))
    return (table - pi * table.sum(-1, keepdim=True)).flatten(1)  # grad log pi is 1 at the action taken, minus pi


rollout, final_states = collect(mdp, policy, 1000, horizon=HORIZON, generator=generator)
discount = discounts(rollout.mask, gamma=mdp.gamma)
returns = reward_to_go(rollout.rewards, rollout.mask, gamma=mdp.gamma)
ours = episode_gradients(rollout, discount * returns).mean(0)
loss = policy_gradient.policy_gradient_loss(action_logprobs(policy, rollout), discount * returns, rollout.mask)
assert torch.allclose(ours, -torch.autograd.grad(loss, policy.logits)[0].flatten())  # lesson 08's estimator


def variance(weights):
    """Variance of the estimate from one episode, in units of |grad J|^2."""
    return float(episode_gradients(rollout, discount * weights).var(0).sum() / gradient.square().sum())


# %%
length = float(rollout.mask.sum(1).double().mean())
plain, known = values[rollout.observations], A[rollout.observations, rollout.actions]
rows = [("reward-to-go - V", variance(returns - plain), length)]
for count in (1, 4, 16):
    steps = rollout.mask.nonzero()
    picked = torch.randint(POOL, (len(steps), count), generator=generator)
    drawn = pool[rollout.observations[rollout.mask], rollout.actions[rollout.mask]].gather(1, picked).mean(1)
    estimate = torch.zeros_like(returns).masked_scatter(rollout.mask, drawn)
    rows.append((f"K = {count} rollouts/step - V", variance(estimate - plain), length * (1 + count * length)))
rows.append(("exact advantage", variance(known), length))
print(f"{'weights':26s} variance/|∇J|²   world steps per episode   variance × steps")
for name, spread, steps in rows:
    print(f"{name:26s} {spread:13.1f}   {steps:23,.0f}   {spread * steps:16,.0f}")

# %% [markdown]
# **What you saw.** More rollouts per step cut the variance towards that of the exact advantage, but the steps grow
# faster than the variance falls (last column: what a given precision costs): whoever can pay for rollouts should rather
# collect more episodes. And it needs a world that can be put back into any state, which neither a robot nor a chat is.
# The last row is the prize: the exact advantage, *without* a rollout. "Can we fit a function to predict $A^\pi$?"

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

# %%
residual = mdp.R + mdp.gamma * values - values[:, None, None]  # (S, A, S'), one number for each way it can go
assert torch.allclose((mdp.P * residual).sum(-1), A)
state, action = 0, ACTIONS.index("right")
for after in mdp.P[state, action].nonzero()[:, 0].tolist():
    print(f"start, right, to cell {world.cells[after]}: probability {mdp.P[state, action, after]:.2f}, "
          f"residual {residual[state, action, after]:+.3f}")  # fmt: skip
print(f"mean {(mdp.P * residual).sum(-1)[state, action]:+.3f}, advantage {A[state, action]:+.3f}")

# %% [markdown]
# ### The end of an episode
# $V(s_{t+1})$ at the last step is where most implementations go wrong. If the episode **terminated** (goal, pit),
# nothing more comes: the next value is 0. If it was only **cut off** by a time limit, the world would have gone on: the
# next value is $V$ of the state it was left in.

# %% ex="10.2" points=2 minutes=12 difficulty="medium"
def td_residuals(rewards, values, mask, final_values, terminated, gamma):
    """delta_t = r_t + gamma V(s_{t+1}) - V(s_t), and 0 where mask is False.

    rewards, values (B, T), values[:, t] = V(s_t), padding holds numbers too; mask (B, T) bool, True for the first steps
    of each row; final_values (B,), V of the state after each episode's last step; terminated (B,) bool.
    """
    # BEGIN SOLUTION
    following = torch.cat([values[:, 1:], values[:, :1]], 1)
    rows, last = torch.arange(len(mask)), mask.sum(1) - 1
    following[rows, last] = torch.where(terminated, 0, final_values)
    return torch.where(mask, rewards + gamma * following - values, 0)
    # END SOLUTION

# %% ex="10.2" role="check"
td_residuals = check("10.2", td_residuals)

# %% [markdown] ex="10.2" role="hints"
# <details><summary>Hint 1</summary>Make a table of next values: the values one column to the left. It is right
# everywhere but at each row's last step, which is not always the last column.</details>
# <details><summary>Hint 2</summary>`last = mask.sum(1) - 1` is that step; `following[rows, last] = ...` writes one
# number per row, 0 or `final_values`.</details>

# %%
guess = torch.randn(mdp.states, generator=generator).double()  # any values will do to compare
given = (rollout.rewards, guess[rollout.observations], rollout.mask)
bootstrap = torch.where(rollout.terminated, 0, guess[final_states])
built = td_residuals(*given, guess[final_states], rollout.terminated, mdp.gamma)
assert torch.allclose(built, advantage(*given, bootstrap, gamma=mdp.gamma, lam=0.0))  # the package's
print(f"{int(rollout.mask.sum()):,} residuals; {int(rollout.terminated.sum())} of {len(final_states)} terminated")

# %% [markdown]
# ## Fitting V
# The lecture: every visited state is a training example, its label the return that followed; fit a regression model $w$
# by minimizing
#
# $$\sum_{s \in \mathcal D} \left( V^\pi_w(s) - \hat V^\pi(s) \right)^2,
#   \qquad \hat V^\pi(s^i_t) = \sum_{t'=t}^{T} \gamma^{t'-t}\, r(s^i_{t'}, a^i_{t'})$$
#
# Our model has one number per state. Setting the derivative to zero says what that number is.

# %% ex="10.3" points=1 minutes=6 difficulty="easy"
def fitted_values(observations, targets, mask, states):
    """The table of values (states,) with the least squared error to the targets; 0 for a state never visited.

    observations (B, T) int, targets (B, T) float, mask (B, T) bool.
    """
    # BEGIN SOLUTION
    seen = observations[mask]
    sums = torch.zeros(states, dtype=targets.dtype).index_add(0, seen, targets[mask])
    return sums / torch.bincount(seen, minlength=states).clamp(min=1)
    # END SOLUTION

# %% ex="10.3" role="check"
fitted_values = check("10.3", fitted_values)

# %% [markdown] ex="10.3" role="hints"
# <details><summary>Hint 1</summary>The number with the least squared error to several targets is their mean; leave the
# padding out.</details>
# <details><summary>Hint 2</summary>`torch.zeros(states, dtype=targets.dtype).index_add(0, seen, targets[mask])` sums per
# state, `torch.bincount(seen, minlength=states)` counts.</details>

# %% [markdown]
# The label need not be the whole return. Replace it by $r_t + \gamma V_w(s_{t+1})$, fit, replace again with the new
# $V_w$, and so on until nothing changes: the same regression, with targets from one step of the world and the model's
# own prediction. This is **TD**, temporal differences. Which is closer to the exact $V$?

# %%
def monte_carlo_values(rollout, final_states):
    returns = reward_to_go(rollout.rewards, rollout.mask, gamma=mdp.gamma)
    return fitted_values(rollout.observations, returns, rollout.mask, mdp.states)


def td_values(rollout, final_states, sweeps=100):
    fitted = torch.zeros(mdp.states).double()
    for _ in range(sweeps):
        now = fitted[rollout.observations]
        residuals = td_residuals(rollout.rewards, now, rollout.mask, fitted[final_states], rollout.terminated, mdp.gamma)
        fitted = fitted_values(rollout.observations, now + residuals, rollout.mask, mdp.states)
    return fitted


def critic_error(fitted):
    """Root mean squared error against the exact V, weighted by how often states are visited."""
    return float(((visits / visits.sum()) * (fitted - values) ** 2).sum() ** 0.5)


# %%
EPISODES, METHODS = (5, 20, 80, 320), {"returns": monte_carlo_values, "TD": td_values}
found = {name: [[] for _ in EPISODES] for name in METHODS}
for place, count in enumerate(progress(EPISODES, "fitting critics")):
    for _ in range(args.critics):
        data = collect(mdp, policy, count, horizon=HORIZON, generator=generator)
        for name, fit in METHODS.items():
            found[name][place].append(critic_error(fit(*data)))
for place, count in enumerate(EPISODES):
    ratio = over_seeds([td / mc for td, mc in zip(found["TD"][place], found["returns"][place])])
    print(f"{count:3d} episodes: error {statistics.mean(found['returns'][place]):.3f} by regression on returns, "
          f"{statistics.mean(found['TD'][place]):.3f} by TD; ratio {ratio}")  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
for index, (name, rows) in enumerate(found.items()):
    figures.curve(axes, EPISODES, [over_seeds(row) for row in rows], f"targets: {name}", index)
axes.set(title="Error of the critic against the exact V", xlabel="episodes it has seen",
         ylabel="root mean squared error (return)", xscale="log", yscale="log")  # fmt: skip
axes.set_xticks(EPISODES, EPISODES)
axes.legend(fontsize=8)
ends = [statistics.mean(found[name][place]) for name in METHODS for place in (0, -1)]
alt = "Error against episodes, log axes. On returns it falls from {:.2f} to {:.3f}, by TD from {:.2f} to {:.3f}."
show(figure, alt=alt.format(*ends))

# %% [markdown]
# **What you saw.** The same episodes, the same model, different labels. Monte Carlo labels carry the noise of the whole
# future and know nothing of each other. TD uses that states are connected: what was learned about $s'$ in one episode
# serves all the others that pass there (Sutton & Barto, section 6.3).
#
# And the end of an episode? Cut every episode off after ten steps, and fit once by the rule above, once treating every
# end as a real one, and once on the returns of what was seen.

# %%
pieces, left_in = collect(mdp, policy, 2000, horizon=10, generator=generator)
all_over = dataclasses.replace(pieces, terminated=torch.ones_like(pieces.terminated))
print(f"{int((~pieces.terminated).sum())} of {len(left_in)} episodes were cut off after 10 steps")
for name, fitted in {"TD, bootstrapped where cut off": td_values(pieces, left_in),
                     "TD, every end a real one": td_values(all_over, left_in),
                     "regression on the returns seen": monte_carlo_values(pieces, left_in)}.items():  # fmt: skip
    print(f"  {name:32s} V(start) = {fitted[0]:+.3f} (exact {values[0]:+.3f}), error {critic_error(fitted):.3f}")

# %% [markdown]
# **What you saw.** With bootstrapping, ten steps at a time are enough to learn values whose rewards lie far beyond the
# tenth step. Without it the critic learns another problem, the one that ends after ten steps.

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

# %% ex="10.4" points=2 minutes=10 difficulty="medium"
def gae(residuals, mask, gamma, lam):
    """A_t = sum over l >= 0 of (gamma lam)^l delta_{t+l}, within each episode; 0 where mask is False.

    residuals (B, T), with any numbers in the padding; mask (B, T) bool, True for the first steps of each row -> (B, T).
    """
    # BEGIN SOLUTION
    result, running = torch.zeros_like(residuals), torch.zeros_like(residuals[:, 0])
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
# <details><summary>Hint 2</summary>Carry one number per row; `torch.where(mask[:, t], ..., 0)` keeps it at zero until
# the episode's last step is reached.</details>

# %%
for lam in (0.0, 0.7, 1.0):
    expected = advantage(*given, bootstrap, gamma=mdp.gamma, lam=lam)
    assert torch.allclose(gae(built, rollout.mask, mdp.gamma, lam), expected)
whole = reward_to_go(rollout.rewards, rollout.mask, gamma=mdp.gamma)
over = rollout.terminated[:, None] & rollout.mask  # where nothing was cut off, lam = 1 is the return minus V
assert torch.allclose(gae(built, rollout.mask, mdp.gamma, 1.0)[over], (whole - given[1])[over])
print("GAE agrees with the package's recursion; with lam = 1 it is reward-to-go minus V")

# %% [markdown]
# ### Its bias, exactly
# The expectation of $\hat A$ given $(s, a)$ can be computed like everything else in a known world: one residual from
# $(s,a)$, then the mean residuals of the states that follow, weighted by $(\gamma\lambda)^l$, or by $\gamma^l$ as far
# as $l < n$. Put it in the place of $A$ in the exact gradient, and the difference is the bias of $\hat g$.

# %%
def expected_gradient(fitted, keep):
    """E[g] with weights from residuals of `fitted`, the one l steps ahead times keep(l) gamma^l: (S * A,)."""
    fitted = torch.where(mdp.terminal, 0, fitted)
    residuals = torch.where(mdp.terminal[:, None], 0, exact.action_values(mdp, fitted) - fitted[:, None])
    expected, reach = residuals.clone(), mdp.P
    transitions = torch.einsum("sa,sat->st", pi, mdp.P)
    for steps in range(1, 200):
        expected = expected + keep(steps) * mdp.gamma**steps * reach @ (pi * residuals).sum(1)
        reach = reach @ transitions
    centered = expected - (pi * expected).sum(1, keepdim=True)  # what grad log pi does to a function of s and a
    return (visits[:, None] * pi * centered).flatten()


assert torch.allclose(expected_gradient(values, lambda ahead: 0.0), gradient)  # the exact V: no bias, whatever lam
assert torch.allclose(expected_gradient(guess, lambda ahead: 1.0), gradient, atol=1e-4)  # lam = 1: none, whatever V
off = (expected_gradient(guess, lambda ahead: 0.0) - gradient).norm() / gradient.norm()
print(f"exact V, or lam = 1: unbiased. A random critic with lam = 0: off by {off:.1f} times the gradient")

# %% [markdown]
# The two unbiased corners are proven; between them lies practice. Fit critics by regression on the returns of 20
# episodes, and hold the estimator with each of them against the exact gradient: bias exactly, variance over 1,000
# episodes, both in units of $|\nabla J|^2$. An update from a batch of $N$ episodes has the mean squared error
# $\text{bias}^2 + \text{variance}/N$.

# %%
def bias_and_variance(fitted, keep, weights):
    """Squared bias, and variance of one episode's estimate, both over |grad J|^2."""
    bias = (expected_gradient(fitted, keep) - gradient).square().sum() / gradient.square().sum()
    return float(bias), variance(weights)


def with_critic(fitted, lam):
    fitted_bootstrap = torch.where(rollout.terminated, 0, fitted[final_states])
    weights = advantage(rollout.rewards, fitted[rollout.observations], rollout.mask, fitted_bootstrap,
                        gamma=mdp.gamma, lam=lam)  # fmt: skip
    return bias_and_variance(fitted, lambda ahead: lam**ahead, weights)


LAMBDAS, SEEN, N = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0), (5, 20, 320), (4, 16, 64)
critics = {count: [monte_carlo_values(*collect(mdp, policy, count, horizon=HORIZON, generator=generator))
                   for _ in range(args.critics)] for count in SEEN}  # fmt: skip
table = {count: torch.tensor([[with_critic(fitted, lam) for lam in LAMBDAS] for fitted in critics[count]])
         for count in progress(SEEN, "lambda")}  # (critics, lambdas, 2)  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
bias, spread = table[20].unbind(-1)
for index, (name, rows) in enumerate({"bias²": bias, "variance / 64": spread / 64, "sum": bias + spread / 64}.items()):
    points = len(LAMBDAS) - (name == "bias²")  # at lam = 1 it is 0, which a log axis cannot show
    figures.curve(axes, LAMBDAS[:points], [over_seeds(column) for column in rows.T[:points]], name, index)
axes.set(title="GAE(λ) with a critic fitted to 20 episodes", xlabel="λ  (0: TD residual, 1: Monte Carlo)",
         ylabel="error of ĝ, N = 64, over |∇J|²", yscale="log", ylim=(0.01, None))  # fmt: skip
axes.legend(fontsize=8)
error = bias + spread / 64
total = error.mean(0)
for end, name in ((0, "0"), (-1, "1")):
    more = over_seeds(error[:, end] - error[:, total.argmin()])  # the same critics
    print(f"λ = {name}: error larger than at λ = {LAMBDAS[int(total.argmin())]} by {more}")
alt = "Bias falls and variance rises with λ; their sum is U-shaped: {:.2f} at λ = 0, {:.2f} at λ = {}, {:.2f} at λ = 1."
show(figure, alt=alt.format(total[0], total.min(), LAMBDAS[int(total.argmin())], total[-1]))

# %%
print("λ with the least error (and that error, against λ = 0 and λ = 1)")
print("critic has seen", *(f"{f'N = {batch}':>24s}" for batch in N))
for count in SEEN:
    cells = []
    for batch in N:
        total = (table[count][..., 0] + table[count][..., 1] / batch).mean(0)
        cells.append(f"{LAMBDAS[int(total.argmin())]:.2g} ({total.min():.2f}; {total[0]:.2f}, {total[-1]:.2f})")
    print(f"{count:4d} episodes  ", *(f"{cell:>24s}" for cell in cells))

# %%
print(f"{'n-step, critic of 20':22s}   bias²   variance   error at N = 64")
for n in (1, 2, 4, 8, 16, 200):
    rows = []
    for fitted in critics[20]:
        fitted_bootstrap = torch.where(rollout.terminated, 0, fitted[final_states])
        weights = policy_gradient.n_step_advantage(rollout.rewards, fitted[rollout.observations], rollout.mask,
                                                   fitted_bootstrap, n=n, gamma=mdp.gamma)  # fmt: skip
        rows.append(bias_and_variance(fitted, lambda ahead, n=n: float(ahead < n), weights))
    bias, spread = (statistics.mean(column) for column in zip(*rows))
    print(f"n = {n:3d} {'':15s} {bias:6.3f}   {spread:8.1f}   {over_seeds([b + v / 64 for b, v in rows])}")

# %% [markdown]
# **What you saw.** [C34] Trusting the critic at once, instead of never, cuts the variance sevenfold ($n = 1$ against
# $n = 200$) and pays with bias. Neither end is best: the error is U-shaped in $\lambda$, and in $n$. Where the bottom
# lies depends on what you have: a better critic moves it to the left, a larger batch, which averages variance away and
# leaves the bias, to the right. That is why $\lambda$ and $n$ are knobs, and why λ = 0.95 is a common default where
# batches are large.

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

# %%
many, _ = collect(mdp, policy, 16384, horizon=HORIZON, generator=generator)
direction = gradient.view(mdp.states, mdp.actions)
along = (direction - (pi * direction).sum(1, keepdim=True)) / gradient.square().sum()  # grad log pi . grad J / |grad J|²
along = along[many.observations, many.actions] * discounts(many.mask, gamma=mdp.gamma)
returns = reward_to_go(many.rewards, many.mask, gamma=mdp.gamma)
for batch in (1, 4, 16, 64):
    number = torch.arange(len(returns))[:, None] // batch  # a table of values for each batch, side by side
    batches = int(number.max()) + 1
    fitted = fitted_values(number * mdp.states + many.observations, returns, many.mask, batches * mdp.states)
    for when, shift in (("this batch", 0), ("the batch before", 1)):
        baseline = fitted[(number - shift) % batches * mdp.states + many.observations]
        lengths = (along * (returns - baseline) * many.mask).sum(1).view(batches, batch).mean(1)
        print(f"N = {batch:2d}, critic fitted to {when:16s}: mean of ĝ along ∇J is {over_seeds(lengths)} of |∇J|")

# %% [markdown]
# **What you saw.** Taken literally, with one trajectory and a critic that is fitted until it fits, the sketch learns
# from a small part of the signal: where a state was visited once, $V_w(s_t)$ *is* the return and the advantage is zero.
# Fitted to other data, the same critic is only a baseline, and the mean is right. With one small step on $w$, as usual,
# the difference is small; it still costs nothing to evaluate $\hat A$ first and update $w$ afterwards, as the package
# does.

# %% ex="10.5" points=2 minutes=10 difficulty="medium"
def learn_from(rollout, values, final_values, gamma, lam):
    """What one rollout teaches: weights for the actor (GAE advantages), and targets for the critic, V + A.

    rollout with rewards (B, T), mask (B, T), terminated (B,); values (B, T) and final_values (B,) from the critic.
    Returns (weights (B, T), targets (B, T)). `advantage(rewards, values, mask, bootstrap, gamma=, lam=)` is at hand.
    """
    # BEGIN SOLUTION
    bootstrap = torch.where(rollout.terminated, 0, final_values)
    weights = advantage(rollout.rewards, values, rollout.mask, bootstrap, gamma=gamma, lam=lam)
    return weights, values + weights
    # END SOLUTION

# %% ex="10.5" role="check"
learn_from = check("10.5", learn_from)

# %% [markdown] ex="10.5" role="hints"
# <details><summary>Hint 1</summary>Only one decision is left to you: what V is after the last step of each episode.
# </details>
# <details><summary>Hint 2</summary>`torch.where(rollout.terminated, 0, final_values)`. The critic should predict what
# the advantage was measured against plus what was found: `values + weights`.</details>

# %%
def actor_critic(learn_from, updates, seed, lr=0.2, critic_lr=0.1):
    """The loop; returns the policy, the critic and the exact J before each update."""
    policy, critic, found = TabularPolicy(mdp.states, mdp.actions), TabularCritic(mdp.states), []
    actor_step = torch.optim.Adam(policy.parameters(), lr=lr)
    critic_step = torch.optim.Adam(critic.parameters(), lr=critic_lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        found.append(float(exact.objective(mdp, exact.probabilities(mdp, policy).detach())))
        rollout, final_states = collect(mdp, policy, args.batch, horizon=100, generator=generator)  # sample
        with torch.no_grad():
            values, final_values = critic(rollout.observations), critic(final_states[:, None])[:, 0]
        weights, targets = learn_from(rollout, values, final_values, mdp.gamma, args.lam)  # evaluate
        optimization.update(policy, actor_step, rollout, weights)  # improve the actor
        training.fit_critic(critic, critic_step, rollout, targets)  # improve the critic
    return policy, critic, found


# %%
def gae_weights(rollout, values, bootstrap, logprobs):
    return advantage(rollout.rewards, values, rollout.mask, bootstrap, gamma=mdp.gamma, lam=args.lam)


def collect_batch(policy, generator):
    return collect(mdp, policy, args.batch, horizon=100, generator=generator)


built_policy, built_critic, _ = actor_critic(learn_from, 10, seed=3)
policy_of_package, critic_of_package = TabularPolicy(mdp.states, mdp.actions), TabularCritic(mdp.states)
training.train_policy(policy_of_package, collect_batch, gae_weights, updates=10, lr=0.2, critic=critic_of_package,
                      gamma=mdp.gamma, lam=args.lam, seed=3)  # fmt: skip
assert torch.allclose(built_policy.logits, policy_of_package.logits, atol=1e-4)
assert torch.allclose(built_critic.values, critic_of_package.values, atol=1e-4)
print("the loop above and training.train_policy arrive at the same policy and the same critic")

# %% [markdown]
# ## Against REINFORCE
# The rival is reward-to-go minus the average return of the *other* episodes. Same map, same batch of episodes, same
# seeds. Each gets its best step size out of the same small grid, chosen on five seeds that are not used again. (The
# critic's step size and $\lambda = 0.5$ are not tuned here; they were fixed after a few tries on other seeds.) The score
# is the number of episodes until the *exact* $J$ of the policy reaches 95 % of the best (the agents never see it). A run
# that has not got there is stopped and counted with the episodes it used, which favours whoever fails more often.

# %%
def reinforce_weights(rollout, values, bootstrap, logprobs):
    returns = reward_to_go(rollout.rewards, rollout.mask, gamma=mdp.gamma)
    return (returns - leave_one_out(episode_returns(rollout.rewards, rollout.mask, gamma=mdp.gamma))[:, None]) * rollout.mask


def episodes_to_solve(name, lr, seed):
    """Episodes until the exact J is 95 % of the best, or args.cap where it never is; and J after each update."""
    policy, curve = TabularPolicy(mdp.states, mdp.actions), []

    def solved(policy, history):
        curve.append(float(exact.objective(mdp, exact.probabilities(mdp, policy).detach())))
        return curve[-1] >= 0.95 * best

    weigh, critic = (gae_weights, TabularCritic(mdp.states)) if name == "actor-critic" else (reinforce_weights, None)
    training.train_policy(policy, collect_batch, weigh, updates=args.cap // args.batch, lr=lr, critic=critic,
                          gamma=mdp.gamma, lam=args.lam, seed=seed, until=solved)  # fmt: skip
    return (len(curve) * args.batch if curve[-1] >= 0.95 * best else args.cap), curve


# %%
METHODS, STEP_SIZES = ("REINFORCE", "actor-critic"), (0.1, 0.2, 0.4)
chosen = {}
for name in METHODS:
    tried = {lr: [episodes_to_solve(name, lr, 1000 + seed)[0] for seed in range(5)]
             for lr in progress(STEP_SIZES, f"step size of {name}")}  # fmt: skip
    chosen[name] = min(tried, key=lambda lr: statistics.mean(tried[lr]))
    print(f"{name:12s} episodes by step size:", "; ".join(f"{lr}: {row}" for lr, row in tried.items()),
          f"-> {chosen[name]}")  # fmt: skip

# %%
fresh = range(args.seed + 500, args.seed + 500 + args.seeds)
runs = {name: [episodes_to_solve(name, chosen[name], seed) for seed in progress(fresh, name)] for name in METHODS}
needed = {name: torch.tensor([count for count, _ in runs[name]]).double() for name in METHODS}
for name in METHODS:
    print(f"{name:12s} episodes to 95 %: {[int(count) for count in needed[name]]}, mean {needed[name].mean():.0f}; "
          f"{int((needed[name] < args.cap).sum())} of {args.seeds} runs got there")  # fmt: skip
again = torch.randint(args.seeds, (10_000, args.seeds), generator=generator)  # pairs of the same seed, drawn again
ratios = needed["actor-critic"][again].sum(1) / needed["REINFORCE"][again].sum(1)
low, high = ratios.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
ratio = float(needed["actor-critic"].sum() / needed["REINFORCE"].sum())
print(f"actor-critic needs {ratio:.2f} of the episodes [95 % interval over seeds {low:.2f}, {high:.2f}]")

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
for index, name in enumerate(METHODS):
    for place, (_, curve) in enumerate(runs[name]):
        axes.plot([args.batch * (k + 1) for k in range(len(curve))], curve, color=figures.COLORS[index], linewidth=1,
                  linestyle=figures.DASHES[1 - index], label=None if place else name)  # fmt: skip
axes.axhline(0.95 * best, color="black", linestyle=":", label="95 % of the best")
axes.set(title=f"{args.seeds} seeds each, until 95 %", xlabel="episodes", ylabel="exact J of the policy",
         xscale="log")  # fmt: skip
axes.legend(fontsize=8)
alt = "Exact J against episodes, one line per seed: actor-critic reaches 95 % of the best after {:.0f} episodes on " \
      "average, REINFORCE after {:.0f} or more."  # fmt: skip
show(figure, alt=alt.format(*(needed[name].mean() for name in METHODS[::-1])))

# %% [markdown]
# **What you saw.** [C35] Same world, same seeds, same grid of step sizes: the critic remembers across batches what
# REINFORCE forgets after each. The curves show a danger too: a large step on a noisy estimate makes the policy
# deterministic before it is good, and a policy that tries nothing learns nothing. REINFORCE, whose estimates are the
# noisier ones, has to choose between a step size at which it is slow and one at which some seeds get stuck.

# %% [markdown]
# ## A world that this course did not make
# Gymnasium's slippery `FrozenLake-v1`: 4 × 4 cells, two of three moves go astray, a reward of 1 at the goal only, cut
# off after 100 steps. The agent steps the environment itself; its arrays are read only to score the policy. Same code,
# same $\lambda$, $\gamma = 0.99$.

# %%
lake = gymnasium.make("FrozenLake-v1", is_slippery=True)
arrays = from_gymnasium(lake, gamma=0.99)
best_on_lake = float(arrays.start @ exact.value_iteration(arrays))


def gae_on_lake(rollout, values, bootstrap, logprobs):
    return advantage(rollout.rewards, values, rollout.mask, bootstrap, gamma=0.99, lam=args.lam)


def learn_the_lake(seed, updates=500):
    """Share of the best value reached, and the steps and episodes it took."""
    policy, critic, reached = TabularPolicy(arrays.states, arrays.actions), TabularCritic(arrays.states), []

    def solved(policy, history):
        reached.append(float(exact.objective(arrays, exact.probabilities(arrays, policy).detach())) / best_on_lake)
        return reached[-1] >= 0.95

    history = training.train_policy(policy, lambda policy, generator: collect_from(lake, policy, 8, generator=generator),
                                    gae_on_lake, updates=updates, lr=0.1, critic=critic, gamma=0.99, lam=args.lam,
                                    seed=seed, until=solved)  # fmt: skip
    return reached[-1], history.steps[-1], history.episodes[-1]


# %%
results = [learn_the_lake(args.seed + seed) for seed in progress(range(5), "FrozenLake")]
for seed, (reached, steps, episodes) in enumerate(results):
    print(f"seed {seed}: {reached:.0%} of the best value {best_on_lake:.3f} after {episodes:,} episodes, {steps:,} steps")
solved = sum(reached >= 0.95 for reached, *_ in results)
print(f"solved on {solved} of {len(results)} seeds; median {statistics.median(s for _, s, _ in results):,} steps")

# %% [markdown]
# **What you saw.** The critic, the advantages and the loop do not know which world they are in. Most episodes end in a
# hole with nothing earned, so it takes many before the first rewards spread backwards through the values.

# %% [markdown]
# ## Silent bug lab
# Four versions of `learn_from`, each with one bug. None raises an error. Look at their curves first.

# %%
def run_a(rollout, values, final_values, gamma, lam):
    weights, running = torch.zeros_like(values), torch.zeros_like(final_values)
    following = torch.where(rollout.terminated, 0, final_values)
    for t in reversed(range(values.shape[1])):
        acted, now = rollout.mask[:, t], values[:, t]
        running = torch.where(acted, rollout.rewards[:, t] + gamma * following + now + gamma * lam * running, 0)
        following = torch.where(acted, now, following)
        weights[:, t] = running
    return weights, values + weights


def run_b(rollout, values, final_values, gamma, lam):
    bootstrap = torch.where(rollout.terminated, 0, final_values)
    weights = advantage(rollout.rewards, values, rollout.mask, bootstrap, gamma=gamma, lam=lam)
    return weights, values


# %%
def run_c(rollout, values, final_values, gamma, lam):
    weights = advantage(rollout.rewards, values, rollout.mask, final_values, gamma=gamma, lam=lam)
    return weights, values + weights


def run_d(rollout, values, final_values, gamma, lam):
    bootstrap = torch.where(rollout.terminated, 0, final_values)
    everywhere = torch.ones_like(rollout.mask)
    weights = advantage(rollout.rewards, values, everywhere, bootstrap, gamma=gamma, lam=lam)
    return weights, values + weights


VERSIONS = {"right": learn_from, "run A": run_a, "run B": run_b, "run C": run_c, "run D": run_d}
UPDATES = 60
lab = {name: [actor_critic(version, UPDATES, seed=args.seed + seed)[2] for seed in range(5)]
       for name, version in progress(VERSIONS.items(), "silent bugs")}  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.9))
for index, (name, rows) in enumerate(lab.items()):
    looks = range(0, UPDATES, 4)
    figures.curve(axes, [args.batch * k for k in looks], [over_seeds([row[k] for row in rows]) for k in looks], name, index)
    end = over_seeds([row[-1] for row in rows])
    print(f"{name}: J after {args.batch * UPDATES} episodes {end.mean:+.2f} [{end.low:+.2f}, {end.high:+.2f}]")
axes.axhline(best, color="black", linestyle=":", label="best")
axes.set(title="One right run, four silent bugs", xlabel="episodes", ylabel="exact J of the policy", ylim=(-0.8, 0.6))
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
ends = ", ".join(f"{name} {statistics.mean(row[-1] for row in rows):.2f}" for name, rows in lab.items())
show(figure, alt=f"Exact J against episodes, mean of 5 seeds. After {args.batch * UPDATES} episodes: {ends}.")

# %% [markdown]
# One of the four can hardly be told from the right one, and still is wrong. Curves say that something is the matter,
# and not always that; **property tests** say what. Five properties of a right `learn_from`:
#
# - *actor*: given the exact $V$, the mean of $\hat g$ points along $\nabla J$ (cosine 1);
# - *critic*: fitted again and again for a policy that stays, it arrives at the exact $V$ (error near 0);
# - what the critic says about the state after a *termination* changes no weight; after a *cut* it does; and what it says
#   about *padding* changes no weight either.

# %%
def actor_test(version):
    weights, _ = version(rollout, values[rollout.observations], values[final_states], mdp.gamma, args.lam)
    estimate = episode_gradients(rollout, discount * weights).mean(0)
    return float(torch.cosine_similarity(estimate, gradient, dim=0))


def critic_test(version, sweeps=40):
    data, last = collect(mdp, policy, 400, horizon=HORIZON, generator=torch.Generator().manual_seed(args.seed))
    fitted = torch.zeros(mdp.states).double()
    for _ in range(sweeps):
        _, targets = version(data, fitted[data.observations], fitted[last], mdp.gamma, args.lam)
        fitted = fitted_values(data.observations, targets, data.mask, mdp.states)
    return critic_error(fitted)


# %%
cut_early, left_in = collect(mdp, policy, 100, horizon=20, generator=generator)


def changes(version):
    """Largest change of a weight when V is 1 higher after terminations, after cuts, in the padding."""
    over = cut_early.terminated
    now, last = values[cut_early.observations], values[left_in]
    before, _ = version(cut_early, now, last, mdp.gamma, args.lam)
    for changed in ((now, last + over), (now, last + ~over), (now + ~cut_early.mask, last)):
        after, _ = version(cut_early, *changed, mdp.gamma, args.lam)
        yield float((after - before)[cut_early.mask].abs().max())


print("       actor: cosine   critic: error   V after: termination     cut   padding")
for name, version in VERSIONS.items():
    print(f"{name} {actor_test(version):13.3f} {critic_test(version):15.3g} {'':12s}",
          *(f"{change:9.2f}" for change in changes(version)))  # fmt: skip

# %% [markdown]
# The list of suspects. Four of them are guilty, one per run. Name them.
#
# | name | the bug |
# |---|---|
# | `sign of V` | V(s) is added instead of subtracted |
# | `sign of the loss` | the actor descends where it should ascend |
# | `misplaced gamma` | γ stands at V(s) instead of V(s′) |
# | `frozen critic` | the critic is fitted to what it predicts already |
# | `through the end` | V of the final state counts although the episode terminated |
# | `cut is over` | an episode that was cut off is treated as terminated |
# | `padding` | steps after an episode's end count as steps |
# | `neighbors` | an episode's advantages run on into the next episode of the batch |

# %% ex="10.6" points=3 minutes=15 difficulty="hard"
# For each run the name of its bug, from the table above: {"A": "...", "B": "...", "C": "...", "D": "..."}
# BEGIN SOLUTION
bugs = {"A": "sign of V", "B": "frozen critic", "C": "through the end", "D": "padding"}
# END SOLUTION

# %% ex="10.6" role="check"
bugs = check("10.6", bugs)

# %% [markdown] ex="10.6" role="hints"
# <details><summary>Hint 1</summary>Read the table column by column, against the row `right`. A critic can be off in two
# ways: it does not move, or it runs away.</details>
# <details><summary>Hint 2</summary>A weight that changes although it must not says directly which number is used that
# should not be. For a run that learns well in spite of it: what is V of a goal, in a table that starts at 0 and is only
# fitted where the agent acts?</details>

# %%
print(bugs)
optimistic = exact.state_values(mdp, pi) + mdp.terminal  # a critic that says 1 in the goal and in the pit
weights, _ = run_c(rollout, optimistic[rollout.observations], optimistic[final_states], mdp.gamma, args.lam)
estimate = episode_gradients(rollout, discount * weights).mean(0)
print(f"run C with V = 1 at the ends: cosine {torch.cosine_similarity(estimate, gradient, dim=0):.3f}")

# %% [markdown]
# **What you saw.** Run A's critic doubles what it should correct, and leaves for infinity. Run B is REINFORCE without a
# baseline and with short sight: a reward $l$ steps ahead counts $(\gamma\lambda)^l$, so the goal hardly reaches the first
# steps. Run D believes that after the goal comes state 0, which is what padding holds: it learns, from a wrong $V$. And
# run C shows that a curve proves nothing. A table that starts at 0 and is never fitted at the goal says 0 there by luck;
# a network, or any other start, would not, as the last line shows. Its mirror image, *cut is over*, is frequent in
# published code (Pardo et al., 2018).
#
# ## Recap
# - The advantage is what a weight should be. Averaging $K$ rollouts estimates it with an error of $1/\sqrt K$, and is
#   the expensive way.
# - A critic turns the rest of the episode into a prediction: the TD residual is an unbiased estimate of $A$ when $V$ is
#   exact, and biased when it is not.
# - λ (or $n$) trades that bias against variance; the best one depends on the critic and on the batch.
# - Terminated: the next value is 0. Cut off: the next value is $V$.
# - Evaluate with the critic first, update it afterwards.
#
# ## Try next
# - `--lam 0`, `--lam 0.95`: is the λ with the least error of $\hat g$ also the one that learns fastest?
# - `--slip 0`: in a deterministic world, what is the variance of the residual with the exact $V$?
# - Replace `TabularCritic` by `FeatureCritic` on the cells' rows and columns. Is run C still as good as the right one?
#
# ## References
# - Barto, Sutton & Anderson (1983). Neuronlike adaptive elements that can solve difficult learning control problems.
#   *IEEE Transactions on Systems, Man, and Cybernetics* 13(5).
# - Sutton (1988). Learning to predict by the methods of temporal differences. *Machine Learning* 3.
# - Sutton, McAllester, Singh & Mansour (2000). Policy gradient methods for reinforcement learning with function
#   approximation. *NeurIPS 12*.
# - Mnih et al. (2016). Asynchronous methods for deep reinforcement learning. *ICML*.
# - Schulman, Moritz, Levine, Jordan & Abbeel (2016). High-dimensional continuous control using generalized advantage
#   estimation. *ICLR*.
# - Pardo, Tavakoli, Levdik & Kormushev (2018). Time limits in reinforcement learning. *ICML*.
# - Sutton & Barto (2018). *Reinforcement Learning: An Introduction*, 2nd edition, chapters 6, 7 and 13.
