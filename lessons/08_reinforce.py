# Lesson 08: REINFORCE. jupytext py:percent; runs as a script: python lessons/08_reinforce.py --help

# %% [markdown]
# # 08 · REINFORCE: learning from outcomes
#
# Nobody shows the agent what to do; it tries, and is told how well it went. In this lesson you derive the gradient of
# the expected return, see why the laws of the world drop out of it, turn it into an estimate from sampled episodes, and
# hold that estimate against the exact gradient before you let an agent learn with it. *(Lecture: "Policy gradient
# algorithms", from the log-derivative trick to "REINFORCE algorithm on text"; claims C25–C28.)* About 80 minutes; runs
# in 40 s on two CPU cores.
#
# **You will need** lesson 07: trajectories, returns and the exact objective. **You will be able to** derive REINFORCE
# on paper, write it in ten lines, prove that an implementation estimates the right gradient, say what it has to do with
# supervised finetuning, and find bugs that raise no error.

# %% [markdown]
# ## Predict first
# Write down your guesses before you run anything; you will measure each of them below.
#
# 1. On a slippery floor the agent does not know where a move leads. **Can it still estimate the gradient of its
#    expected return? What does it have to know about the floor?**
# 2. One episode gives a very rough gradient. **How many episodes make it ten times as exact?**
# 3. The agent gets better and better. **What does the curve of its loss look like?** And that of an agent whose loss
#    has the wrong sign?
# 4. Replace the returns of the episodes by 1 where the star was reached and 0 elsewhere. **What is the algorithm called
#    then?**
# 5. In a corridor the star moves from 8 to 13 cells away, and an episode may take 20 steps. **How many times as many
#    episodes does REINFORCE need?** Would it help to pay for every step in the right direction?

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import math

import torch
from matplotlib import pyplot
from torch.nn.functional import cross_entropy

from ptlearn import figures, policy_gradient
from ptlearn.course.exercise import check
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import ACTIONS, GridWorld
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs, check_behavior
from ptlearn.statistics import over_seeds

args = arguments(
    "REINFORCE: the log-derivative trick, against the exact gradient; learning from outcomes; four silent bugs.",
    slip=(0.2, "probability that a move goes sideways, in the part on the gradient", "at least 0, at most 1"),
    episodes=(64, "per update", "at least 1"),
    updates=(100, "of each learner", "at least 4"),
    seeds=(10, "learners per curve", "at least 2"),
    lr=(0.1, "step size of Adam", "above 0"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
generator = torch.Generator().manual_seed(args.seed)
torch.set_num_threads(1)  # the tensors are small: a second thread would spend its time waiting for the first

# %% [markdown]
# ## A world small enough to list
# Six cells, a slippery floor, four steps: few enough trajectories to write down every one of them, with its probability
# $p_\theta(\tau)$ and its return $r(\tau)$. The policy is a table of logits $\theta$, here random ones. Then the
# objective is a plain sum,
#
# $$J(\theta) = \mathbb E_{\tau \sim p_\theta(\tau)}[r(\tau)] = \sum_\tau p_\theta(\tau)\, r(\tau).$$

# %%
HORIZON = 4
grid = GridWorld("small", slip=args.slip)
small = grid.to_mdp()
policy = TabularPolicy(small.states, small.actions).double()  # float64: exact answers deserve exact arithmetic
with torch.no_grad():
    policy.logits.copy_(torch.randn(policy.logits.shape, generator=generator))
every, final, probabilities = mdp.enumerate_trajectories(small, policy, HORIZON)
returns = every.rewards.sum(1)

print(*grid.map, sep="\n")
print(f"{len(returns):,} trajectories; their probabilities sum to {probabilities.sum():.12f}")
print(f"J as a sum over trajectories {probabilities @ returns:+.12f}")
print(f"J from the linear recursion  {mdp.objective(small, mdp.probabilities(small, policy), HORIZON).item():+.12f}")

# %% [markdown]
# ## The log-derivative trick
# The agent should climb $J$. It cannot take the gradient of the sum term by term, for it cannot list trajectories; it
# can only *sample* them. So the gradient has to become an expectation. The lecture's derivation:
#
# $$\begin{aligned}
# \nabla_\theta J(\theta) &= \nabla_\theta \sum_\tau p_\theta(\tau)\, r(\tau)
#  = \sum_\tau \nabla_\theta p_\theta(\tau)\, r(\tau) && \text{the return does not depend on } \theta\\
# &= \sum_\tau p_\theta(\tau)\, \nabla_\theta \log p_\theta(\tau)\, r(\tau)
#   && \nabla \log p = \tfrac{\nabla p}{p}, \text{ so } \nabla p = p\, \nabla \log p\\
# &= \mathbb E_{\tau \sim p_\theta(\tau)}\left[\nabla_\theta \log p_\theta(\tau)\, r(\tau)\right]
#   && \text{an expectation: sample it.}
# \end{aligned}$$
#
# And what is $p_\theta(\tau)$? Lesson 07 wrote it down: a product of what the agent chose and what the world answered.
# Its logarithm is a sum,
#
# $$\log p_\theta(\tau) = \log p(s_1) + \sum_{t} \log \pi_\theta(a_t \mid s_t)
#   + \sum_{t} \log p(s_{t+1} \mid s_t, a_t).$$
#
# Write the middle sum, the only one that the agent can compute: for a whole batch of episodes, from the logits.
# Episodes end at different times; behind the end stands padding, and `mask` says where the agent acted.

# %% ex="8.1" points=1 difficulty="easy" minutes=8
def log_probability(logits, actions, mask):
    """The policy's part of log p(tau), for each episode: log pi(a_t | s_t), summed over the steps that were acted.

    logits (B, T, A) float, actions (B, T) int, mask (B, T) bool -> (B,) float, in nats.
    """
    # BEGIN SOLUTION
    logprobs = logits.log_softmax(-1)
    taken = logprobs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return (taken * mask).sum(1)
    # END SOLUTION

# %% ex="8.1" role="check"
log_probability = check("8.1", log_probability)

# %% [markdown] ex="8.1" role="hints"
# <details><summary>Hint 1</summary>Three steps: logits to log-probabilities of all actions; pick the one that was
# taken; add up where <code>mask</code> is True.</details>
# <details><summary>Hint 2</summary><code>x.gather(-1, actions.unsqueeze(-1)).squeeze(-1)</code> picks, at each step,
# the entry of that step's action.</details>

# %%
by_hand = log_probability(policy(every.observations), every.actions, every.mask)
assert torch.allclose(by_hand, action_logprobs(policy, every).sum(1))  # the package's, one number per step

# %% [markdown]
# ## The dynamics drop out
# Now the other two sums, which only someone who knows the world can write. Take the gradient with and without them.

# %%
steps = every.mask.sum(1)
after = every.observations.roll(-1, dims=1)  # the next state is the next observation,
after[torch.arange(len(after)), steps - 1] = final  # and after the last step the state where the episode ended
moves = small.P[every.observations, every.actions, after].log()
dynamics = torch.where(every.mask, moves, 0.0).sum(1)
first = small.start[every.observations[:, 0]].log()
log_p = first + by_hand + dynamics
assert torch.allclose(log_p.exp(), probabilities)  # all three parts: the probability of the whole trajectory


def gradient(scalar):
    """Of a number, by the policy's logits: (S, A)."""
    return torch.autograd.grad(scalar, policy.logits, retain_graph=True)[0]


# %%
row = int(torch.where(steps == HORIZON, probabilities, 0).argmax())
print(f"the likeliest full-length trajectory: log p(tau) = {log_p[row].item():.3f}, of which the policy's part is "
      f"{by_hand[row].item():.3f}")  # fmt: skip
differences = [(gradient(log_p[i]) - gradient(by_hand[i])).abs().max().item() for i in range(0, len(log_p), 100)]
print(f"largest difference of the gradients, over {len(differences)} trajectories: {max(differences)}")

exact = mdp.exact_gradient(small, policy, HORIZON).view_as(policy.logits)
sums = {
    "gradient of the sum, sum of ∇p(τ) r(τ)": gradient((log_p.exp() * returns).sum()),
    "the trick, sum of p(τ) ∇log p(τ) r(τ)": gradient((probabilities * log_p * returns).sum()),
    "the same without the dynamics": gradient((probabilities * by_hand * returns).sum()),
}
for name, found in sums.items():
    print(f"{name:40s} relative error against the exact gradient {(found - exact).norm() / exact.norm():.0e}")
assert all((found - exact).norm() < 1e-10 * exact.norm() for found in sums.values())

# %% [markdown]
# **What you saw.** [C26] Four ways, one gradient, to the last digits of float64. The first and third term of
# $\log p_\theta(\tau)$ change its *value* and not its *gradient*, by exactly zero: they do not depend on $\theta$. So
# the agent needs no model of the world, only samples of it. What it does need is its own
# $\log \pi_\theta(a_t \mid s_t)$:
#
# $$\nabla_\theta J(\theta) = \mathbb E_{\tau \sim p_\theta(\tau)}\left[
#   \left(\sum_{t=1}^T \nabla_\theta \log \pi_\theta(a_t \mid s_t)\right)\left(\sum_{t=1}^T r(s_t, a_t)\right)\right].$$
#
# One thing the trick does not say: the third term still acts, by choosing which trajectories are sampled.
#
# ## The score, by hand
# $\nabla_\theta \log p_\theta(\tau)$ is called the *score*. For a table of logits it has a closed form. With
# $\pi(b \mid s) = e^{\theta_{sb}} / \sum_c e^{\theta_{sc}}$,
#
# $$\frac{\partial \log \pi(a \mid s)}{\partial \theta_{sb}} = \mathbb 1[b = a] - \pi(b \mid s),$$
#
# and 0 in the rows of all other states. Add it up along a trajectory.

# %% ex="8.2" points=2 difficulty="medium" minutes=10
def score(pi, states, actions):
    """The gradient of log p(tau) by the logits: in row s_t add one-hot(a_t) - pi(. | s_t), for each step.

    pi (S, A) float, probabilities; states, actions: lists of int, as long as the trajectory -> (S, A) float.
    """
    # BEGIN SOLUTION
    result = torch.zeros_like(pi)
    for state, action in zip(states, actions):
        result[state, action] += 1
        result[state] -= pi[state]
    return result
    # END SOLUTION

# %% ex="8.2" role="check"
score = check("8.2", score)

# %% [markdown] ex="8.2" role="hints"
# <details><summary>Hint 1</summary>Go step by step, in a loop. Each step changes one row: +1 for the action that was
# taken, and minus the probability for every action, the taken one included.</details>
# <details><summary>Hint 2</summary>A trajectory may come back to a state. <code>result[states, actions] += 1</code>
# with lists of indices would then add only once.</details>

# %%
pi = mdp.probabilities(small, policy).detach()
path = every.observations[row, : steps[row]].tolist(), every.actions[row, : steps[row]].tolist()
pushes = torch.as_tensor(score(pi, *path), dtype=torch.float64)
assert torch.allclose(pushes, gradient(by_hand[row]))  # autograd agrees
start = path[0][0]
print(f"one step of ascent, θ + 0.5 r(τ) ∇log p(τ), and the probabilities in the start cell: {ACTIONS}")
for outcome in (1.0, 0.0, -1.0):
    pushed = (policy.logits.detach() + 0.5 * outcome * pushes).softmax(-1)[start]
    print(f"    return {outcome:+.0f}: " + "  ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(pi[start], pushed)))
print("actions taken there:", [ACTIONS[a] for s, a in zip(*path) if s == start])

# %% [markdown]
# **What you saw.** The lecture's picture in numbers: a positive return makes what was done more likely, a negative one
# less likely, and a return of 0 teaches nothing at all. Whatever the return, the rows of a score sum to zero: one
# action can only gain what the others of that state lose.
#
# ## From all trajectories to a few
# REINFORCE (Williams, 1992) samples $N$ episodes from $\pi_\theta$ and takes the mean instead of the expectation,
#
# $$\hat g = \frac1N \sum_{i=1}^N \left(\sum_{t=1}^T \nabla_\theta \log \pi_\theta(a^i_t \mid s^i_t)\right) r(\tau^i),
#   \qquad \theta \leftarrow \theta + \alpha\, \hat g.$$
#
# (On the slide with the algorithm the lecture drops the $1/N$, on the next ones it is there. As a direction it makes no
# difference, as an estimate of $\nabla J$ a factor of $N$.) Autograd computes gradients of *losses*, so we write a loss
# with gradient $-\hat g$: the log-probabilities of all steps, each times a **weight**. In REINFORCE every step of an
# episode gets the same weight, the return of the whole episode. Discounting, where it is used, belongs into the return.

# %% ex="8.3" points=1 difficulty="easy" minutes=6
def reinforce_weights(rewards, mask, gamma=1.0):
    """On each step of an episode the episode's whole return, the sum of gamma^t r_t with t from 0; 0 on padding.

    rewards (B, T) float, mask (B, T) bool, True from the first step of an episode to its last -> (B, T) float.
    """
    # BEGIN SOLUTION
    discounts = gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    returns = (rewards * mask * discounts).sum(1)
    return returns[:, None] * mask
    # END SOLUTION

# %% ex="8.3" role="check"
reinforce_weights = check("8.3", reinforce_weights)

# %% [markdown] ex="8.3" role="hints"
# <details><summary>Hint 1</summary>First the return of each episode, (B,), as in lesson 07; what stands on padding does
# not count. Then spread it over the steps.</details>
# <details><summary>Hint 2</summary><code>returns[:, None] * mask</code> has shape (B, T) and is 0 on padding.</details>

# %% [markdown]
# Now the loss. Its gradient must be $-\hat g$, because optimizers minimise. The weights are numbers: they scale the
# gradient and have none of their own.

# %% ex="8.4" points=2 difficulty="medium" minutes=8
def reinforce_loss(logprobs, weights, mask):
    """The scalar whose gradient is minus the estimate: the mean over episodes, N of them, of sums over their steps.

    logprobs (B, T) float with gradient, weights (B, T) float, mask (B, T) bool -> scalar; padding does not count.
    """
    # BEGIN SOLUTION
    per_episode = (weights * logprobs * mask).sum(1)
    return -per_episode.mean()
    # END SOLUTION

# %% ex="8.4" role="check"
reinforce_loss = check("8.4", reinforce_loss)

# %% [markdown] ex="8.4" role="hints"
# <details><summary>Hint 1</summary>Two sums and a sign: over the steps where <code>mask</code> is True, then over the
# episodes, divided by their number.</details>
# <details><summary>Hint 2</summary>Long episodes must not count less: divide by the number of rows, not by the number
# of steps.</details>

# %%
batch, _ = collect(small, policy, 1000, horizon=HORIZON, generator=generator)
weights = torch.as_tensor(reinforce_weights(batch.rewards, batch.mask), dtype=torch.float64)
logprobs = action_logprobs(policy, batch)
loss = reinforce_loss(logprobs, weights, batch.mask)
packaged = policy_gradient.policy_gradient_loss(
    logprobs, policy_gradient.total_return(batch.rewards, batch.mask), batch.mask
)
assert torch.allclose(loss, packaged) and torch.allclose(gradient(loss), gradient(packaged))
estimate = -gradient(loss)
print("action, start cell  exact   estimate from 1,000 episodes")
for name, truth, found in zip(ACTIONS, exact[start], estimate[start]):
    print(f"{name:17s} {truth:+.4f}   {found:+.4f}")

# %% [markdown]
# ## Is it the right gradient?
# Close, but is the rest chance or a mistake? A sample can be compared with the truth only if we know how far chance
# takes it. So draw $K$ independent estimates of each parameter's gradient. Their mean has the *standard error*
# $s / \sqrt K$, with $s$ the standard deviation between estimates, and
#
# $$z = \frac{\text{mean} - \text{truth}}{s / \sqrt K}$$
#
# is about standard normal if the estimator is unbiased.

# %% ex="8.5" points=2 difficulty="medium" minutes=8
def z_scores(estimates, exact):
    """For each parameter, how many standard errors the mean of the estimates lies above the exact gradient.

    estimates (K, P) float, K independent estimates of P parameters; exact (P,) float -> (P,) float.
    """
    # BEGIN SOLUTION
    standard_error = estimates.std(dim=0) / len(estimates) ** 0.5
    return (estimates.mean(dim=0) - exact) / standard_error
    # END SOLUTION

# %% ex="8.5" role="check"
z_scores = check("8.5", z_scores)

# %% [markdown] ex="8.5" role="hints"
# <details><summary>Hint 1</summary>Mean and standard deviation over the first dimension; the mean of K numbers is
# √K times as exact as one of them.</details>
# <details><summary>Hint 2</summary><code>x.std(dim=0)</code> divides the squares by K − 1, as it should: the deviations
# are taken from the sample's own mean.</details>

# %% [markdown]
# With several parameters one of them will be far out by luck. **Bonferroni's** remedy: to be wrong in 1 % of such
# tests, ask of each of the $P$ parameters a threshold that chance passes with probability $0.01 / P$. And since a test
# that nothing fails is worthless, try it on imitations too: `no − π` takes one-hot alone for the score; `no 1/N` is the
# slide's sum; `per step` divides by the number of steps in the batch instead of episodes.
#
# Backpropagating 10,000 times would take a while. The score's closed form does it at once, for every episode.

# %%
def episode_gradients(pi, rollout, weights):
    """For each episode the sum over steps of weight times score: (B, S, A), what autograd would give one by one."""
    index = torch.arange(len(weights))[:, None].expand_as(weights)
    taken = torch.zeros(len(weights), *pi.shape, dtype=weights.dtype)
    taken.index_put_((index, rollout.observations, rollout.actions), weights, accumulate=True)
    return taken - taken.sum(-1, keepdim=True) * pi


assert torch.allclose(episode_gradients(pi, batch, weights).mean(0), estimate)
K, N = 10_000, 20
acting = [state for state in range(small.states) if not small.terminal[state]]  # the other rows are 0, always
sampled, _ = collect(small, policy, K * N, horizon=HORIZON, generator=generator)
weights = torch.as_tensor(reinforce_weights(sampled.rewards, sampled.mask), dtype=torch.float64)
per_episode = episode_gradients(pi, sampled, weights)[:, acting].flatten(1)  # (K N, P)
truth = exact[acting].flatten()

# %%
reinforce = per_episode.view(K, N, -1).mean(1)
one_hot = episode_gradients(torch.zeros_like(pi), sampled, weights)[:, acting].flatten(1)
estimators = {
    "REINFORCE": reinforce,
    "no − π": one_hot.view(K, N, -1).mean(1),
    "no 1/N": reinforce * N,
    "per step": reinforce * N / sampled.mask.sum(1).view(K, N).sum(1, keepdim=True),
}
threshold = torch.special.ndtri(torch.tensor(1 - 0.01 / len(truth) / 2)).item()
print(f"{K:,} estimates from {N} episodes each, {len(truth)} parameters: rejected when some |z| > {threshold:.2f}")
for name, estimates in estimators.items():
    mean, z = estimates.mean(0), torch.as_tensor(z_scores(estimates, truth))
    cosine, largest = torch.cosine_similarity(mean, truth, dim=0), z.abs().max()
    print(f"{name:11s} largest |z| {largest:7.2f} {'rejected' if largest > threshold else 'not rejected':13s}"
          f" mean: cosine {cosine:.4f}, length {mean.norm() / truth.norm():5.2f} times the exact one")  # fmt: skip

# %%
figure, axes = pyplot.subplots(figsize=(5, 3))
for index, estimates in enumerate(estimators.values()):
    z = torch.as_tensor(z_scores(estimates, truth))
    place = torch.linspace(-0.3, 0.3, len(z)) + index
    axes.scatter(place, z, s=18, color=figures.COLORS[index], marker=figures.MARKERS[index])
axes.axhspan(-threshold, threshold, color="gray", alpha=0.25, linewidth=0)
axes.set_yscale("symlog", linthresh=10)
axes.set_xticks(range(len(estimators)), estimators)
axes.set(title="Distance of the mean estimate from the truth", xlabel="estimator (a mark per parameter)",
         ylabel="z-score (log scale beyond ±10)")  # fmt: skip
inside = threshold, torch.as_tensor(z_scores(reinforce, truth)).abs().max()
show(figure, alt="z-scores of 16 parameters for four estimators. Gray band: within ±{:.1f}. REINFORCE stays inside, "
     "with at most {:.1f}; no − π, no 1/N and per step all have marks far outside.".format(*inside))  # fmt: skip

# %% [markdown]
# **What you saw.** [C26] Over 200,000 episodes REINFORCE's mean cannot be told from the exact gradient, and each of the
# others can. But look at *how* they are wrong. `no 1/N` and `per step` point the right way, or very nearly: an
# optimizer would hardly notice, only the step size means something else. `no − π` points elsewhere. "Biased" is the
# beginning of a diagnosis.
#
# ## How many episodes?
# Unbiased does not mean exact. The error of a mean of $N$ independent episodes falls with $1/\sqrt N$. Measure it: the
# root of the mean squared error against the exact gradient, relative to the gradient's length; and the cosine between
# one estimate and the truth, which says whether a step goes uphill.

# %%
SIZES = [4**k for k in range(8)]  # 1 to 16,384 episodes
total = float(per_episode.var(0).sum())  # trace of the covariance of one episode's gradient
errors, cosines = [], []
for size in SIZES:
    estimates = per_episode[: len(per_episode) // size * size].view(-1, size, len(truth)).mean(1)
    errors.append(float((estimates - truth).pow(2).sum(1).mean().sqrt() / truth.norm()))
    cosines.append(float(torch.cosine_similarity(estimates, truth[None]).mean()))
    print(f"N = {size:6,}   relative error {errors[-1]:6.2f}   mean cosine {cosines[-1]:.3f}   "
          f"({len(estimates):,} estimates)")  # fmt: skip
law = [math.sqrt(total / size) / truth.norm().item() for size in SIZES]
slopes = [math.log(errors[i + 1] / errors[i]) / math.log(4) for i in range(len(errors) - 1)]
print(f"slope between neighbours on log axes: {min(slopes):.2f} to {max(slopes):.2f}; 1/√N has -0.50")

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
axes.plot(SIZES, law, color="gray", label="one episode's deviation / √N")
axes.scatter(SIZES, errors, color=figures.COLORS[0], marker=figures.MARKERS[0], label="measured", zorder=3)
axes.axhline(1, color="black", linestyle=":", linewidth=1)
axes.set(title="Error of the estimate", xscale="log", yscale="log", xlabel="episodes per estimate, N",
         ylabel="root mean squared error / |∇J|")  # fmt: skip
axes.legend(fontsize=8)
show(figure, alt=f"Relative error against episodes on log axes: points on a straight line, from {errors[0]:.1f} with "
     f"one episode to {errors[-1]:.2f} with {SIZES[-1]:,}. Dotted at 1: as large as the gradient.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C26] The points lie on the line: to be ten times as exact takes a hundred times the episodes. Below
# the dotted line the error is smaller than the gradient itself, and even in this tiny world that takes more than a
# dozen episodes. A single episode tells next to nothing about the direction. Lesson 09 is about the constant in front
# of $1/\sqrt N$; it can be made far smaller at no cost.
#
# ## Learning from outcomes
# Now let an agent learn. The map of lesson 07: the star pays 1, the pit −1, nothing else pays. The floor is dry; a
# discount of 0.95 makes a star that is reached late worth less, or there would be no reason to hurry. The agent sees
# one number per episode, at its end. `train_policy` is the loop of the lecture: sample, estimate, step, again. (Its
# step is Adam's instead of plain $\alpha \hat g$: the same gradient, with a step size for each parameter.)
#
# How good can it get? Value iteration knows.

# %%
GAMMA, LIMIT = 0.95, 50
world = GridWorld("default")
arrays = world.to_mdp(GAMMA)
best = float(arrays.start @ mdp.value_iteration(arrays))


def sample(policy, generator):
    """A fresh batch of the policy's own episodes, and where they ended."""
    return collect(arrays, policy, args.episodes, horizon=LIMIT, generator=generator)


def outcomes(rollout, values, bootstrap, logprobs):
    """REINFORCE: the weight of a step is the return of its episode."""
    return torch.as_tensor(reinforce_weights(rollout.rewards, rollout.mask, gamma=GAMMA))


def share_of_best(policy):
    """The exact J of a policy, as a share of the best policy's."""
    return float(mdp.objective(arrays, mdp.probabilities(arrays, policy).detach(), LIMIT)) / best


# %%
def trained(weigh):
    """A learner per seed, from the uniform policy, and its history."""
    learners = []
    for seed in progress(range(args.seed, args.seed + args.seeds), "learners"):
        agent = TabularPolicy(arrays.states, arrays.actions)
        history = train_policy(agent, sample, weigh, updates=args.updates, lr=args.lr, gamma=GAMMA, seed=seed)
        learners.append((agent, history))
    return learners


learners = trained(outcomes)
shares = [share_of_best(agent) for agent, _ in learners]
untrained = best * share_of_best(TabularPolicy(arrays.states, arrays.actions))
print(f"exact J of the best policy {best:.3f}, of the uniform one {untrained:.3f}")
print(f"after {args.updates} updates of {args.episodes} episodes, exact J / best: {over_seeds(shares)}, "
      f"worst {min(shares):.2f}")  # fmt: skip
print(f"seeds above 0.95: {sum(share > 0.95 for share in shares)} of {len(shares)}")

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(7, 2.7), layout="constrained")
curves = torch.tensor([history.returns for _, history in learners])
curves = curves[:, args.updates % 4 :].unflatten(1, (-1, 4)).mean(2)  # four updates at a time, for quieter lines
figures.learning_curves(left, learners[0][1].episodes[args.updates % 4 + 3 :: 4], curves, "REINFORCE")
left.axhline(best, color="black", linestyle=":", label="best policy (value iteration)")
left.set(title=f"Learning from outcomes, {len(curves)} seeds", xlabel="episodes", ylabel="mean return")
left.legend(loc="lower right", fontsize=8)
learned = mdp.probabilities(arrays, learners[0][0]).detach()
figures.value_map(right, world, mdp.state_values(arrays, learned), learned, numbers=False)
right.set_title("What the first seed has learned")
show(figure, alt=f"Left: the mean return of ten agents rises from {curves[0][0]:.2f} to the dotted line at {best:.2f}. "
     "Right: the map with expected returns and arrows; along the way to the star the arrows are long and point to it.")

# %% [markdown]
# **What you saw.** [C27] From the uniform policy to nearly the best one, in every run, from nothing but the outcome of
# each episode. Nobody said which of the steps was good. Look at the map: on its path the policy is nearly certain,
# except where two ways are equally short. Off the path it may lead back to where the path begins although the star is
# near: it once worked, and now the agent comes there too rarely to learn better. $J$ is an average over what is
# visited, and asks for no more.
#
# ## The value of the loss means nothing
# In supervised learning one looks at the loss. Look at this one: REINFORCE, and beside it the same code with the sign
# turned, which walks into the pit.

# %%
EVERY = 4  # updates between two looks at the exact J


def run(episode_losses, seed, reuse=False):
    """Train on the mean of `episode_losses(policy, rollout)`: exact J / best every few updates, and the loss there.

    With `reuse` the first batch of episodes serves all updates.
    """
    agent, source = TabularPolicy(arrays.states, arrays.actions), torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(agent.parameters(), lr=args.lr)
    shares, losses = [], []
    for update in range(args.updates):
        if update == 0 or not reuse:
            rollout, _ = sample(agent, source)
        loss = episode_losses(agent, rollout).mean()
        adam.zero_grad(), loss.backward(), adam.step()
        if (update + 1) % EVERY == 0 or update == 0:
            shares.append(share_of_best(agent)), losses.append(loss.item())
    return shares, losses


# %%
def right_losses(policy, rollout):
    """REINFORCE, one loss per episode."""
    weights = policy_gradient.total_return(rollout.rewards, rollout.mask, gamma=GAMMA)
    return -(weights * action_logprobs(policy, rollout)).sum(1)


seeds = range(args.seed, args.seed + max(2, args.seeds // 2))
signs = {"REINFORCE": right_losses, "wrong sign": lambda policy, rollout: -right_losses(policy, rollout)}
tracks = {name: [run(losses, seed) for seed in progress(seeds, name)] for name, losses in signs.items()}
loss_of = {name: torch.tensor([losses for _, losses in found]).mean(0) for name, found in tracks.items()}
for name, losses in loss_of.items():
    print(f"{name:11s} mean loss: first {losses[0]:+.1f}, largest {losses.max():+.1f}, last {losses[-1]:+.1f}")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(7, 2.5), layout="constrained")
looks = [1, *range(EVERY, args.updates + 1, EVERY)]
for index, (name, found) in enumerate(tracks.items()):
    for axes, curves in zip(panels, zip(*found)):
        figures.learning_curves(axes, looks, curves, name, index)
        axes.set_xlabel("updates")
panels[0].set(title="What counts", ylabel="exact J / best")
panels[1].set(title="The loss", ylabel="loss of the batch")
panels[0].legend(fontsize=8)
alt = "Left: REINFORCE rises to 1, the wrong sign falls below -1. Right: the loss of REINFORCE starts at {:.0f}, " \
      "rises to {:.0f} and ends at {:.0f}; that of the wrong sign starts at {:.0f}, rises to {:.0f} and ends at {:.0f}."
marks = [mark for losses in loss_of.values() for mark in (losses[0], losses.max(), losses[-1])]
show(figure, alt=alt.format(*marks))

# %% [markdown]
# **What you saw.** While the agent improves most, its loss *rises*. From the first update to the last, the loss of the
# good agent has gone up, and that of the one that walks into the pit has gone down. The reason: the loss is
# $-\frac1N \sum_i r(\tau^i) \log \pi_\theta(\tau^i)$ on *this* batch, and each batch comes from another policy. Its
# gradient is right; its values compare nothing. Watch returns, the gradient's norm and the entropy instead; a `History`
# has them.
#
# ## Supervised learning on one's own episodes
# The lecture on text: "Supervised learning on model generations weighted by return". Take that literally. Supervised
# finetuning minimises the cross-entropy of demonstrations. Let the demonstrations be the agent's own episodes, and
# weigh each by its return.

# %%
middle = TabularPolicy(arrays.states, arrays.actions).double()
train_policy(middle, sample, outcomes, updates=20, lr=args.lr, gamma=GAMMA, seed=args.seed)  # half-way
own, _ = sample(middle, generator)
returns = policy_gradient.episode_returns(own.rewards, own.mask, gamma=GAMMA)
logits = middle(own.observations)
per_step = cross_entropy(logits.flatten(0, 1), own.actions.flatten(), reduction="none").view_as(own.mask)
supervised = (returns[:, None] * per_step * own.mask).sum() / len(returns)
reinforced = right_losses(middle, own).mean()


def slope(loss):
    """The gradient of a loss by the half-way policy's logits."""
    return torch.autograd.grad(loss, middle.logits, retain_graph=True)[0]


off = (slope(supervised) - slope(reinforced)).abs().max()
print(f"largest difference of the gradients {off:.0e}, of entries up to {slope(reinforced).abs().max():.2f}")
assert torch.allclose(slope(supervised), slope(reinforced), atol=1e-12)

# %% [markdown]
# Now let the return be 1 for a success and 0 for anything else. Weighting by it is *filtering*: keep the successes and
# imitate them with the plain loss of supervised finetuning, the mean over their tokens. That is known as filtered
# finetuning, rejection sampling or best of $n$.

# %%
success = returns > 0
filtered = per_step[success][own.mask[success]].mean()  # supervised finetuning on the successes, as in lesson 03
binary = -(success[:, None] * action_logprobs(middle, own)).sum() / len(success)  # REINFORCE with returns 0 and 1
cosine = torch.cosine_similarity(slope(filtered).flatten(), slope(binary).flatten(), dim=0).item()
print(f"{int(success.sum())} successes in {len(success)} episodes: cosine of the two gradients {cosine:.12f}")
print(f"ratio of lengths {(slope(binary).norm() / slope(filtered).norm()).item():.6f}; "
      f"steps of successes / episodes = {int(own.mask[success].sum())} / {len(success)} = "
      f"{(own.mask[success].sum() / len(success)).item():.6f}")  # fmt: skip

# %% [markdown]
# The gradients agree. Is it then all the same? Three learners that see the same number of episodes and take the same
# number of steps: REINFORCE; filtered finetuning that samples anew before each step; and filtered finetuning on
# successes that were all sampled *before* training, as one does with a fixed dataset.

# %%
def filtered_weights(rollout, values, bootstrap, logprobs):
    """1 on the steps of a success, 0 elsewhere."""
    return (outcomes(rollout, values, bootstrap, logprobs) > 0).to(rollout.rewards)


def finetuned_once(seed):
    """Supervised finetuning on the successes of the uniform policy, out of as many episodes as the others see."""
    agent, source = TabularPolicy(arrays.states, arrays.actions), torch.Generator().manual_seed(seed)
    dataset, _ = collect(arrays, agent, args.episodes * args.updates, horizon=LIMIT, generator=source)
    keep = (dataset.rewards.sum(1) > 0)[:, None] & dataset.mask
    states, actions = dataset.observations[keep], dataset.actions[keep]
    adam = torch.optim.Adam(agent.parameters(), lr=args.lr)
    for _ in range(args.updates):
        loss = cross_entropy(agent(states), actions)  # the mean over the successes' steps
        adam.zero_grad(), loss.backward(), adam.step()
    return agent


# %%
agents = {
    "REINFORCE": [agent for agent, _ in learners],
    "filtered, sampled anew": [agent for agent, _ in trained(filtered_weights)],
    "filtered, sampled once": [finetuned_once(seed) for seed in progress(range(args.seed, args.seed + args.seeds))],
}
only_star = GridWorld("default", pit_reward=0.0).to_mdp()  # there J is the probability of reaching the star
for name, found in agents.items():
    policies = [mdp.probabilities(arrays, agent).detach() for agent in found]
    reached = sum(mdp.objective(only_star, pi, LIMIT).item() for pi in policies) / len(found)
    length = sum(mdp.occupancy(only_star, pi, LIMIT).sum().item() for pi in policies) / len(found)
    print(f"{name:24s} exact J / best {over_seeds([share_of_best(agent) for agent in found])}; "
          f"reaches the star {reached:.0%}, {length:.1f} steps per episode")  # fmt: skip

# %% [markdown]
# **What you saw.** [C28] One gradient step of REINFORCE *is* supervised learning on own episodes weighted by return, to
# rounding. What makes it reinforcement learning is the rest. The weights say how good: they tell a quick success from a
# slow one, and a fall counts less than nothing. And the data follow the policy: whoever imitates successes that were
# sampled once becomes about as good as those were, and stays there.
#
# ## When success is rare
# All of this needs successes. A return of 0 has weight 0, so until the first one the gradient is exactly zero, and the
# agent is a random walker. In a corridor, with 20 steps per episode, count the episodes until it reaches the star with
# probability 0.95. Once the star pays 1. Once that 1 is paid along the way: each step pays the fraction of the way by
# which it came closer, and a step back takes it away. Then an episode's return is how far it got, and 1 still means the
# star.

# %%
DISTANCES, PATIENCE, RUNS = (2, 5, 8, 11, 13), 20, 6


def corridor(cells):
    """A corridor with the star that many cells away, paid at the star; and the same, paid along the way."""
    sparse = GridWorld(["S" + "." * (cells - 1) + "G"]).to_mdp()
    position = torch.arange(cells + 1) / cells
    return sparse, mdp.MDP(sparse.P, (position - position[:, None])[:, None].expand_as(sparse.P), sparse.start)


def episodes_to_solve(paying, sparse, seed):
    """How many episodes REINFORCE needs until it reaches the star in 95 % of them; at most 128,000."""
    agent = TabularPolicy(sparse.states, 4)
    history = train_policy(
        agent, lambda policy, source: collect(paying, policy, 64, horizon=PATIENCE, generator=source),
        lambda rollout, *_: policy_gradient.total_return(rollout.rewards, rollout.mask), updates=2000, seed=seed,
        until=lambda now, _: mdp.objective(sparse, mdp.probabilities(sparse, now).detach(), PATIENCE) >= 0.95,
    )  # fmt: skip
    return history.episodes[-1]


# %%
waits, needed = [], {"paid at the star": [], "paid along the way": []}
print("cells  half of random agents succeed within  " + "".join(f"solved, {name:20s}" for name in needed))
for cells in progress(DISTANCES, "corridors"):
    sparse, dense = corridor(cells)
    uniform = torch.full((sparse.states, 4), 0.25, dtype=torch.float64)
    chance = mdp.objective(sparse, uniform, PATIENCE).item()  # of a success in one episode
    waits.append(max(1, math.ceil(math.log(0.5) / math.log(1 - chance))))
    line = f"{cells:5d}  {waits[-1]:28,} episodes  "
    for found, paying in zip(needed.values(), (sparse, dense)):
        logs = [math.log(episodes_to_solve(paying, sparse, seed)) for seed in range(args.seed, args.seed + RUNS)]
        e = over_seeds(logs)  # over logarithms: one slow seed must not hide the others
        found.append(e._replace(mean=math.exp(e.mean), low=math.exp(e.low), high=math.exp(e.high)))
        line += f"{found[-1].mean:6,.0f} {f'[{found[-1].low:,.0f}, {found[-1].high:,.0f}]':21s}"
    print(line)

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.2))
for index, (name, found) in enumerate(needed.items()):
    figures.curve(axes, DISTANCES, found, f"solved: {name}", index)
axes.plot(DISTANCES, waits, color="gray", linestyle=":", label="first success, median of random agents")
axes.set(title=f"Episodes (of {PATIENCE} steps) until solved", xlabel="distance to the star, cells", ylabel="episodes",
         yscale="log")  # fmt: skip
axes.legend(fontsize=8)
ends = [needed[name][place].mean for name in needed for place in (0, -1)]
alt = "Episodes until solved against distance, log axis, {} seeds. Paid at the star: from {:,.0f} to {:,.0f}. " \
      "Along the way: from {:,.0f} to {:,.0f}, above the other at middle distances and below it at the largest."
show(figure, alt=alt.format(RUNS, *ends))

# %% [markdown]
# **What you saw.** [C25] As long as luck brings some successes into every batch, the cost grows about in proportion to
# the distance. Then the wait for the first success takes over, and each further cell multiplies it: at 13 cells nearly
# all of the time is waiting. Paying along the way ends the wait, and there it saves most of the episodes. At 8 cells it
# *costs* episodes, because now nearly every return is positive: all that was done is made more likely, the bad only a
# little less than the good. That is noise, and lesson 09 removes it by subtracting a baseline.
#
# ## Silent bug lab
# Code for reinforcement learning rarely crashes; it learns a little, and the world gets the blame. Here are four runs.
# Each differs from REINFORCE in one thing, raises no error, and learns badly. Do not hunt for the bugs in the code yet:
# look at the symptoms first.

# %%
def losses_a(policy, rollout):
    weights = policy_gradient.discounts(rollout.mask, gamma=GAMMA) * rollout.rewards
    return -(weights * action_logprobs(policy, rollout)).sum(1)


def losses_b(policy, rollout):
    logprobs = policy(rollout.observations).log_softmax(-1).gather(-1, rollout.actions[:, :, None])[:, :, 0]
    returns = policy_gradient.episode_returns(rollout.rewards, rollout.mask, gamma=GAMMA)
    return -(returns[:, None] * logprobs).sum(1)


def losses_d(policy, rollout):
    weights = policy_gradient.total_return(rollout.rewards, rollout.mask, gamma=GAMMA)
    return -(weights * action_logprobs(policy, rollout).exp()).sum(1)


RUNS_OF = {"REINFORCE": (right_losses, False), "run A": (losses_a, False), "run B": (losses_b, False),
           "run C": (right_losses, True), "run D": (losses_d, False)}  # losses, reuse  # fmt: skip

# %%
lab = {name: [run(losses, seed, reuse)[0] for seed in progress(seeds, name)]
       for name, (losses, reuse) in RUNS_OF.items() if name != "REINFORCE"}  # fmt: skip
lab = {"REINFORCE": [shares for shares, _ in tracks["REINFORCE"]]} | lab
figure, axes = pyplot.subplots(figsize=(5, 3))
for index, (name, shares) in enumerate(lab.items()):
    figures.learning_curves(axes, looks, shares, name, index)
axes.set(title="One right run, four silent bugs", xlabel="updates", ylabel="exact J / best")
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
ends = {name: over_seeds([share[-1] for share in shares]) for name, shares in lab.items()}
for name, end in ends.items():
    highest = max(map(max, lab[name]))
    print(f"{name:10s} at best {highest:4.2f}, at the end {end.mean:z5.2f} [{end.low:z.2f}, {end.high:z.2f}]")
show(figure, alt="Exact J over best against updates for five runs. At the end: "
     + ", ".join(f"{name} {end.mean:z.2f}" for name, end in ends.items()))  # fmt: skip

# %% [markdown]
# A curve says that something is wrong, a **property test** says what. In the small world all trajectories can be
# listed, so the *expected* gradient of each run is exact, and must be $\nabla J$. Test it at the policy that a run
# starts from, the uniform one, and at a later one.

# %%
listed = GridWorld("small").to_mdp(GAMMA)
uniform, later = (TabularPolicy(listed.states, 4).double() for _ in range(2))
with torch.no_grad():
    later.logits.copy_(torch.randn(later.logits.shape, generator=torch.Generator().manual_seed(5)))


def property_test(losses, reuse, now):
    """Cosine and ratio of lengths between a run's expected gradient and the exact one; wrong rows, rows without any."""
    rollout, _, chances = mdp.enumerate_trajectories(listed, uniform if reuse else now, 6)
    expected = -torch.autograd.grad((chances * losses(now, rollout)).sum(), now.logits)[0]
    exact = mdp.exact_gradient(listed, now, 6).view_as(expected)
    cosine = torch.cosine_similarity(expected.flatten(), exact.flatten(), dim=0)
    off, flat = (expected - exact).abs().amax(1) > 1e-9, (expected.abs().amax(1) < 1e-9) & ~listed.terminal
    return cosine, expected.norm() / exact.norm(), off.nonzero().flatten().tolist(), flat.nonzero().flatten().tolist()


# %%
print("state of each cell of the small map (star and pit end the episode):")
for symbols, numbers in zip(GridWorld("small").map, ("0 1 2", "3 4 5")):
    print(f"    {' '.join(symbols)}     {numbers}")
print(f"\n{'run':10s} {'policy':8s} cosine  length  {'rows that are wrong':20s} rows without gradient")
for name, (losses, reuse) in RUNS_OF.items():
    for when, now in (("uniform", uniform), ("later", later)):
        cosine, length, off, flat = property_test(losses, reuse, now)
        print(f"{name:10s} {when:8s} {cosine:6.3f} {length:7.3f}  {str(off):20s} {flat}")

# %% [markdown]
# The list of suspects. Four of them are guilty, one per run. Name them.
#
# | name | the bug |
# |---|---|
# | `sign` | the loss has the wrong sign |
# | `padding` | steps after the end of an episode are trained on (there the record holds state 0, action 0) |
# | `inverted mask` | *only* steps after the end of an episode are trained on |
# | `wrong axis` | the softmax runs over the time steps instead of the actions |
# | `no log` | π stands where log π belongs |
# | `own reward` | a step is weighted by its own reward instead of the episode's return |
# | `batch return` | every episode is weighted by the mean return of the batch |
# | `reused rollouts` | every update sees the episodes of the first policy |
# | `per step` | the sum is divided by the number of steps instead of episodes |

# %% ex="8.6" points=3 difficulty="hard" minutes=15
# For each run the name of its bug, from the table above: {"A": "...", "B": "...", "C": "...", "D": "..."}
# BEGIN SOLUTION
bugs = {"A": "own reward", "B": "padding", "C": "reused rollouts", "D": "no log"}
# END SOLUTION

# %% ex="8.6" role="check"
bugs = check("8.6", bugs)

# %% [markdown] ex="8.6" role="hints"
# <details><summary>Hint 1</summary>Which suspects would show at the uniform policy, and how? A wrong sign has cosine −1
# everywhere. Trained padding can only change the row of state 0. What has the right direction there and the wrong one
# later?</details>
# <details><summary>Hint 2</summary>At the uniform policy every probability is 1/4: look for that number. A run that is
# exactly right at its first update can only go wrong by what it does afterwards. And a state without any gradient is
# one whose actions are never credited.</details>

# %%
agent = TabularPolicy(arrays.states, arrays.actions)
episodes_of_first, _ = sample(agent, generator)
train_policy(agent, sample, outcomes, updates=1, lr=args.lr, gamma=GAMMA)
try:
    check_behavior(agent, episodes_of_first)  # what `train_policy` does with every batch
except ValueError as refusal:
    print(f"run C, at its second update: {str(refusal).split(': at row')[0]}")

# %% [markdown]
# **What you saw.** The curves say *that*, the property test says *what*. At the uniform policy, where everybody tests,
# run C passes for right, and run D has the right direction, only shorter: test at another policy as well. Run B even learns for a while. Then its returns
# turn positive, and every step of padding makes action 0 in state 0 more likely, a walk into the border. Run C's loss
# is right, its data are not: they come from another policy. For that the record keeps the log-probabilities that it was
# sampled with; `check_behavior` recomputes them, and `train_policy` does so before every update.
#
# ## Recap
# - $\nabla J = \mathbb E[\nabla \log p_\theta(\tau)\, r(\tau)]$: the log-derivative trick makes the gradient of an
#   expectation an expectation again, so that it can be sampled.
# - In $\nabla \log p_\theta(\tau)$ the dynamics drop out. The agent needs its own log-probabilities and the outcome.
# - The estimate is unbiased, and its error falls with $1/\sqrt N$ from a bad start. Test it against an exact gradient
#   with standard errors, at more than one policy.
# - REINFORCE learns from outcomes alone up to the best policy, if outcomes differ. Where success is rare it waits.
# - One step of it is supervised learning on own samples weighted by return. The value of that loss means nothing.
#
# ## Try next
# - `--lr 1.0`, or `--episodes 8`: which seeds still learn? What do those that do not have in common?
# - Let the floor depend on θ: make the slip a parameter. Which term of the derivation comes back?
# - Add 10 to every reward. The best policy stays; does REINFORCE still find it?
# - A fifth bug for the lab: sample at temperature 2 and score at 1. Does the property test see it? Does
#   `check_behavior`?
#
# ## References
# - Williams (1992), *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*.
# - Sutton, McAllester, Singh and Mansour (2000), *Policy Gradient Methods for Reinforcement Learning with Function
#   Approximation*.
# - Ng, Harada and Russell (1999), *Policy Invariance Under Reward Transformations*.
# - Mohamed, Rosca, Figurnov and Mnih (2020), *Monte Carlo Gradient Estimation in Machine Learning*.
