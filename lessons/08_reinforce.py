# Lesson 08: REINFORCE. jupytext py:percent; runs as a script: python lessons/08_reinforce.py --help

# %% [markdown]
# # 08 · REINFORCE: learning from outcomes
#
# Nobody shows the agent what to do; it tries, and is told how well it went. In this lesson you prove the gradient of
# the expected return line by line, each line checked by listing every trajectory; you turn it into an estimate from
# sampled episodes, hold that against the exact gradient, and write the loop that learns with it. *(Lecture: "Policy
# gradient algorithms", from the log-derivative trick to "REINFORCE algorithm on text"; claims C25–C28.)*
# About 150 minutes, of which 119 for the exercises; runs in 70 s on two CPU cores.
#
# **You will need** lesson 07: trajectories, returns and the exact objective. **You will be able to** prove REINFORCE's
# gradient, write sampler, loss and loop yourself, show that an implementation estimates the right gradient, say what
# it has to do with supervised finetuning, and write tests that refuse bugs which raise no error.

# %% [markdown]
# ## Predict first
# Type your guesses over the dots before you run anything else; each is shown beside what you measure. An empty guess
# breaks nothing.
#
# 1. On a slippery floor the agent does not know where a move leads. **Does the gradient of its expected return need
#    the floor's probabilities: "yes" or "no"?**
# 2. One episode gives a very rough gradient. **How many times the episodes make it ten times as exact?**
# 3. The agent gets better and better. **From the first update to the last, does its loss go "up" or "down"?** And that
#    of an agent whose loss has the wrong sign?
# 4. Replace the returns by 1 where the star was reached and 0 elsewhere. **What is the algorithm called then?**
# 5. In a corridor the star moves from 8 to 13 cells away, and an episode may take 20 steps. **How many times as many
#    episodes does REINFORCE need?** And how many times, if every step in the right direction is paid?

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

from ptlearn.course.predictions import predict

guesses = predict(
    needs_the_floor=...,  # "yes" or "no"
    episodes_for_ten_times=...,  # times as many
    loss_of_the_good_agent=...,  # "up" or "down"
    loss_of_the_wrong_sign=...,  # "up" or "down"
    returns_of_0_and_1=...,  # a name
    cost_of_5_more_cells=...,  # times as many episodes, paid at the star
    cost_when_paid_along_the_way=...,  # times as many episodes
)

# %% [markdown]
# In a notebook, change a knob by changing its default in the next cell (`episodes=(64, …`), then run all cells again.

# %%
import math

import torch
from matplotlib import pyplot
from torch.autograd import grad
from torch.nn.functional import cross_entropy

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.course.lab import mystery_runs
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.policy_gradient import leave_one_out, total_return
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import Rollout, action_logprobs
from ptlearn.statistics import over_seeds

args = arguments(
    "REINFORCE: the gradient proved and tested; learning from outcomes; six silent bugs.",
    slip=(0.2, "of a move to the side, in the part on the gradient", "at least 0, at most 1"),
    episodes=(64, "per update", "at least 1"),
    updates=(100, "of each learner", "at least 4"),
    seeds=(10, "learners per curve", "at least 2"),
    lr=(0.1, "step size of Adam", "above 0"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would wait for the first


def seeded(seed=0):
    """A generator for one measurement: a cell that is run again gives the same again."""
    return torch.Generator().manual_seed(args.seed + seed)


# %% [markdown]
# ## A world small enough to list
# Six cells in two rows, `S.G` and `..X`, a slippery floor, four steps: few enough trajectories to write down every one of them, with its probability
# $p_\theta(\tau)$ and its return $r(\tau)$. The policy is a table of logits $\theta$, here random ones. Then the
# objective is a plain sum,
#
# $$J(\theta) = \mathbb E_{\tau \sim p_\theta(\tau)}[r(\tau)] = \sum_\tau p_\theta(\tau)\, r(\tau).$$

# %%
HORIZON = 4
small = GridWorld("small", slip=args.slip).to_mdp()
policy = TabularPolicy(small.states, small.actions).double()  # exact, so in float64
policy.logits.data = torch.randn(policy.logits.shape, generator=seeded()).double()
pi = mdp.probabilities(small, policy).detach()
every, final, probabilities = mdp.enumerate_trajectories(small, policy, HORIZON)
every_return = every.rewards.sum(1)
exact = mdp.exact_gradient(small, policy, HORIZON).view_as(pi)

print(f"{len(every_return):,} trajectories of probability {probabilities.sum():.12f}")
print(f"J {probabilities @ every_return:.12f}, exact {mdp.objective(small, pi, HORIZON):.12f}")

# %% [markdown]
# ## The log-derivative trick
# The agent should climb $J$. It cannot take the gradient of the sum term by term, for it cannot list trajectories; it
# can only *sample* them. So the gradient has to become an expectation. The lecture's derivation:
#
# $$\begin{aligned}
# \nabla_\theta J(\theta) &= \nabla_\theta \sum_\tau p_\theta(\tau)\, r(\tau)
#  = \sum_\tau \nabla_\theta p_\theta(\tau)\, r(\tau) && (1)\ \text{the return does not depend on } \theta\\
# &= \sum_\tau p_\theta(\tau)\, \nabla_\theta \log p_\theta(\tau)\, r(\tau)
#   && (2)\ \nabla \log p = \tfrac{\nabla p}{p}, \text{ so } \nabla p = p\, \nabla \log p\\
# &= \sum_\tau p_\theta(\tau) \Big(\sum_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)\Big) r(\tau)
#   && (3)\ \text{of } \log p, \text{ only the policy's part depends on } \theta\\
# &= \mathbb E_{\tau \sim p_\theta(\tau)}\Big[\Big(\sum_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)\Big) r(\tau)\Big]
#   && (4)\ \text{an expectation: sample it.}
# \end{aligned}$$
#
# Line (3) rests on what $p_\theta(\tau)$ is, a product of what the agent chose and what the world answered (lesson 07).
# Its logarithm is a sum,
#
# $$\log p_\theta(\tau) = \log p(s_1) + \sum_{t} \log \pi_\theta(a_t \mid s_t)
#   + \sum_{t} \log p(s_{t+1} \mid s_t, a_t).$$
#
# You will fill in each line. First the middle sum, the only one that the agent can compute: for a whole batch of
# episodes, from the logits. Episodes end at different times; behind the end stands padding, and `mask` says where the
# agent acted.

# %% ex="8.1" title="Log-probability of an episode" points=1 difficulty="easy" minutes=7
def log_probability(logits, actions, mask):
    """The policy's part of log p(tau), per episode: log pi(a_t | s_t) over the steps acted.

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

# %% [markdown]
# Its gradient is called the *score*. For a table of logits it has a closed form: with
# $\pi(b \mid s) = e^{\theta_{sb}} / \sum_c e^{\theta_{sc}}$,
#
# $$\frac{\partial \log \pi(a \mid s)}{\partial \theta_{sb}} = \mathbb 1[b = a] - \pi(b \mid s),$$
#
# and 0 in the rows of all other states. Add it up along a trajectory.

# %% ex="8.2" title="The score" points=1 difficulty="easy" minutes=8
def score(pi, states, actions):
    """The sum over t of grad log pi(a_t | s_t): each step adds one-hot(a_t) - pi(. | s_t)
    to row s_t.

    pi (S, A) float; states, actions: lists of int, one per step -> (S, A) float.
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

# %% [markdown]
# Now the proof, for one trajectory and without autograd. Let `nature` be all that the world contributed,
# $p(s_1) \prod_t p(s_{t+1} \mid s_t, a_t)$, a number that no logit can change. Then $p_\theta(\tau)$ is `nature` times
# a product of $\pi$'s, and its gradient follows from the **product rule**: at each step that step's factor changes and
# all *other* factors stay. A factor changes by
# $\partial \pi(a \mid s) / \partial \theta_{sb} = \pi(a \mid s)\,(\mathbb 1[b = a] - \pi(b \mid s))$.

# %% ex="8.3" title="The proof, line by line" points=3 difficulty="hard" minutes=18
def proof(pi, nature, states, actions):
    """For one trajectory what lines (1), (2) and (3) are made of, a dict:

    "p", p(tau), a number; "grad_p", its gradient by the logits, from the product rule, (S, A);
    "grad_log_p", that of log p(tau), from these two; "score", the same without `nature`.

    pi (S, A) float; nature, a number; states, actions: lists of int, one per step.
    """
    # BEGIN SOLUTION
    chosen = [pi[state, action] for state, action in zip(states, actions)]
    p = nature * math.prod(chosen)
    grad_p = torch.zeros_like(pi)
    for t, (state, action) in enumerate(zip(states, actions)):
        others = nature * math.prod(chosen[:t] + chosen[t + 1 :])
        change = -pi[state, action] * pi[state]
        change[action] += pi[state, action]
        grad_p[state] += others * change
    return {
        "p": p,
        "grad_p": grad_p,
        "grad_log_p": grad_p / p,
        "score": score(pi, states, actions),
    }
    # END SOLUTION

# %% ex="8.3" role="check"
proof = check("8.3", proof)

# %% [markdown] ex="8.3" role="hints"
# <details><summary>Hint 1</summary>List the factors first. At step t the other factors are <code>nature</code> and all
# chosen probabilities but the t-th; only row s_t of the gradient gets something.</details>
# <details><summary>Hint 2</summary>The factor's change is a row: <code>-pi[s, a] * pi[s]</code>, and
# <code>pi[s, a]</code> more in place a. For "grad_log_p" look at (2); "score" is 8.2.</details>

# %% [markdown]
# Each line of the proof is now a sum over all trajectories. Hold each against the exact gradient, which autograd finds
# by differentiating $J$ through the recursion of lesson 07. And then let the world answer otherwise: multiply every
# `nature` by a number of its own.

# %%
steps = [(every.observations[i, :n].tolist(), every.actions[i, :n].tolist())
         for i, n in enumerate(every.mask.sum(1).tolist())]  # fmt: skip
chosen = log_probability(policy(every.observations), every.actions, every.mask).detach()
nature = probabilities / chosen.exp()


def lines(nature):
    """The proof's parts of every trajectory, stacked: {name: tensor}."""
    parts = [proof(pi, number, *path) for number, path in zip(nature.tolist(), steps)]
    return {key: torch.stack([torch.as_tensor(x[key]) for x in parts]) for key in parts[0]}


here = lines(nature)
otherwise = torch.rand(1000, generator=seeded(1)) + 0.5
elsewhere = lines(nature[:1000] * otherwise)

# %% tags=["again"]
p = here["p"][:, None, None]
sums = {
    "(1) sum of ∇p(τ) r(τ)": here["grad_p"],
    "(2) sum of p(τ) ∇log p(τ) r(τ)": p * here["grad_log_p"],
    "(3) sum of p(τ) Σ_t ∇log π r(τ)": p * here["score"],
}
for name, terms in sums.items():
    error = (torch.einsum("nsa,n->sa", terms, every_return) - exact).norm() / exact.norm()
    print(f"{name:34s} relative error against the exact gradient {error:.0e}")
for name in ("p", "grad_p", "grad_log_p"):
    change = (elsewhere[name] - here[name][:1000]).norm() / elsewhere[name].norm()
    print(f"another world: {name:10s} changes by {change:.0e} of its length")
guesses.reveal("needs_the_floor", "yes" if change > 1e-9 else "no")

# %% [markdown]
# **What you saw.** [C26] Three lines, one gradient, to the last digits of float64. Another world changes $p_\theta(\tau)$
# and $\nabla p_\theta(\tau)$ by the same factor, and $\nabla \log p_\theta(\tau)$ not at all: `nature` cancels. So the
# agent needs no model of the world, only samples of it. What it does need is its own
# $\log \pi_\theta(a_t \mid s_t)$. One thing the trick does not say: the world still acts, by choosing *which*
# trajectories are sampled.
#
# And what does a step $\theta + \alpha\, r(\tau)\, \nabla \log p_\theta(\tau)$ do? A positive return makes what was done more
# likely, a negative one less likely, and a return of 0 teaches nothing at all. Whatever the return, the rows of a score
# sum to zero: one action can only gain what the others of that state lose.
#
# ## From all trajectories to a few
# REINFORCE (Williams, 1992) samples $N$ episodes from $\pi_\theta$ and takes the mean instead of the expectation,
#
# $$\hat g = \frac1N \sum_{i=1}^N \left(\sum_{t=1}^T \nabla_\theta \log \pi_\theta(a^i_t \mid s^i_t)\right) r(\tau^i),
#   \qquad \theta \leftarrow \theta + \alpha\, \hat g.$$
#
# (On the slide with the algorithm the lecture drops the $1/N$, on the next ones it is there. As a direction it makes no
# difference, as an estimate of $\nabla J$ a factor of $N$.) Write the three parts: sample, weigh, step. First **sample**:
# many episodes at the same time, each an entry of a vector of states. The world is given as arrays, as in lesson 07.

# %% ex="8.4" title="A batch of episodes" points=2 difficulty="medium" minutes=14
def play(world, pi, episodes, horizon, generator):
    """B = episodes trajectories of at most T = horizon steps: states, actions, rewards, mask.

    Each is (B, T). world.start (S,), world.P (S, A, S) and pi (S, A) are probabilities,
    world.R (S, A, S) rewards, and world.terminal (S,) is True where an episode is over: mask
    is True where the agent still acts. Draw with
    torch.multinomial(probabilities (B, K), 1, generator=generator), which gives (B, 1).
    """
    # BEGIN SOLUTION
    def draw(chances):
        return torch.multinomial(chances, 1, generator=generator).squeeze(1)

    state = draw(world.start.expand(episodes, -1))
    columns = []
    for _ in range(horizon):
        action = draw(pi[state])
        after = draw(world.P[state, action])
        reward = world.R[state, action, after]
        columns.append((state, action, reward, ~world.terminal[state]))
        state = after
    return tuple(torch.stack(column, 1) for column in zip(*columns))
    # END SOLUTION

# %% ex="8.4" role="check"
play = check("8.4", play)

# %% [markdown] ex="8.4" role="hints"
# <details><summary>Hint 1</summary>Three draws: the first states from <code>world.start</code>, repeated for each
# episode; then at each step the actions from <code>pi[state]</code> and the next states from
# <code>world.P[state, action]</code>.</details>
# <details><summary>Hint 2</summary>A terminal state leads to itself and pays 0, so finished episodes may play on behind
# the mask. Note the mask before the move: the step that ends an episode is still acted.</details>

# %% [markdown]
# Now **weigh**. Autograd computes gradients of *losses*, so we write a loss with gradient $-\hat g$: the
# log-probabilities of all steps, each times a weight. In REINFORCE every step of an episode gets the same weight, the
# return of the whole episode. Discounting, where it is used, belongs into the return.

# %% ex="8.5" title="The weights" points=1 difficulty="easy" minutes=6
def reinforce_weights(rewards, mask, gamma=1.0):
    """On each step the episode's whole return, the sum of gamma^t r_t, t from 0; padding: 0.

    rewards (B, T) float; mask (B, T) bool, True from an episode's first step to its last
    -> (B, T) float.
    """
    # BEGIN SOLUTION
    discounts = gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    returns = (rewards * mask * discounts).sum(1)
    return returns[:, None] * mask
    # END SOLUTION

# %% ex="8.5" role="check"
reinforce_weights = check("8.5", reinforce_weights)

# %% [markdown] ex="8.5" role="hints"
# <details><summary>Hint 1</summary>First the return of each episode, (B,), as in lesson 07; what stands on padding does
# not count. Then spread it over the steps.</details>
# <details><summary>Hint 2</summary><code>returns[:, None] * mask</code> has shape (B, T) and is 0 on padding.</details>

# %% [markdown]
# The loss. Its gradient must be $-\hat g$, because optimizers minimise. The weights are numbers: they scale the
# gradient and have none of their own.

# %% ex="8.6" title="The loss" points=2 difficulty="medium" minutes=8
def reinforce_loss(logprobs, weights, mask):
    """The scalar whose gradient is minus the estimate: mean over episodes, sums over steps.

    logprobs (B, T) float with gradient, weights (B, T) float, mask (B, T) bool -> scalar.
    Padding does not count.
    """
    # BEGIN SOLUTION
    per_episode = (weights * logprobs * mask).sum(1)
    return -per_episode.mean()
    # END SOLUTION

# %% ex="8.6" role="check"
reinforce_loss = check("8.6", reinforce_loss)

# %% [markdown] ex="8.6" role="hints"
# <details><summary>Hint 1</summary>Two sums and a sign: over the steps where <code>mask</code> is True, then over the
# episodes, divided by their number.</details>
# <details><summary>Hint 2</summary>Long episodes must not count less: divide by the number of rows, not by the number
# of steps.</details>

# %% [markdown]
# An estimate from a thousand of your own episodes, kept in the package's record of a batch, a `Rollout`:

# %%
def sampled_batch(episodes, generator):
    """Episodes of the small world, as a Rollout."""
    states, actions, rewards, mask = play(small, pi, episodes, HORIZON, generator)
    logprobs = torch.where(mask, pi[states, actions].log(), 0.0)
    return Rollout(states, actions, rewards * mask, logprobs, mask, ~mask[:, -1])


thousand = sampled_batch(1000, seeded(2))
weights = reinforce_weights(thousand.rewards, thousand.mask)
loss = reinforce_loss(action_logprobs(policy, thousand), weights, thousand.mask)
estimate = -grad(loss, policy.logits)[0]
print("start cell, exact   ", " ".join(f"{x:+.4f}" for x in exact[0]))
print("from 1,000 episodes ", " ".join(f"{x:+.4f}" for x in estimate[0]))

# %% [markdown]
# ## Is it the right gradient?
# Backpropagating once for every episode would take a while. The score's closed form gives the gradient of each at once.

# %% ex="8.7" title="A gradient for every episode" points=2 difficulty="medium" minutes=10
def episode_gradients(pi, states, actions, weights):
    """For each episode the sum over its steps of weight times score: (B, S, A).

    pi (S, A) float; states, actions (B, T) int; weights (B, T) float, 0 on padding.
    """
    # BEGIN SOLUTION
    gradients = torch.zeros(len(weights), *pi.shape, dtype=weights.dtype)
    rows = torch.arange(len(weights))
    for t in range(weights.shape[1]):
        state, action, weight = states[:, t], actions[:, t], weights[:, t]
        gradients[rows, state] -= weight[:, None] * pi[state]
        gradients[rows, state, action] += weight
    return gradients
    # END SOLUTION

# %% ex="8.7" role="check"
episode_gradients = check("8.7", episode_gradients)

# %% [markdown] ex="8.7" role="hints"
# <details><summary>Hint 1</summary>A loop over time, all episodes at once: at step t each episode changes one row of
# its own table, as in 8.2, times its weight.</details>
# <details><summary>Hint 2</summary><code>gradients[rows, state]</code> with <code>rows = torch.arange(B)</code> is (B, A):
# one row of each episode. Within a step no entry repeats, so <code>+=</code> is safe.</details>

# %% [markdown]
# Close, but is the rest chance or a mistake? A sample can be compared with the truth only if we know how far chance
# takes it. So draw $K$ independent estimates of each parameter's gradient. Their mean has the *standard error*
# $s / \sqrt K$, with $s$ the standard deviation between estimates, and
#
# $$z = \frac{\text{mean} - \text{truth}}{s / \sqrt K}$$
#
# is about standard normal if the estimator is unbiased.

# %% ex="8.8" title="z-scores" points=2 difficulty="medium" minutes=8
def z_scores(estimates, exact):
    """For each parameter, how many standard errors the mean estimate lies above the truth.

    estimates (K, P) float, K independent ones of P parameters; exact (P,) float -> (P,) float.
    """
    # BEGIN SOLUTION
    standard_error = estimates.std(dim=0) / len(estimates) ** 0.5
    return (estimates.mean(dim=0) - exact) / standard_error
    # END SOLUTION

# %% ex="8.8" role="check"
z_scores = check("8.8", z_scores)

# %% [markdown] ex="8.8" role="hints"
# <details><summary>Hint 1</summary>Mean and standard deviation over the first dimension; the mean of K numbers is
# √K times as exact as one of them.</details>
# <details><summary>Hint 2</summary><code>x.std(dim=0)</code> divides the squares by K − 1, as it should: the deviations
# are taken from the sample's own mean.</details>

# %% [markdown]
# With several parameters one of them will be far out by luck. **Bonferroni's** remedy: to be wrong in 1 % of such
# tests, ask of each of the $P$ parameters a threshold that chance passes with probability $0.01 / P$. And since a test
# that nothing fails is worthless, try it on imitations too: `no − π` takes one-hot alone for the score; `no 1/N` is the
# slide's sum; `per step` divides by the number of steps in the batch instead of episodes.

# %%
K, N = 10_000, 20
acting = ~small.terminal  # the other rows are 0, always
many = sampled_batch(K * N, seeded(3))
many_steps = many.observations, many.actions, reinforce_weights(many.rewards, many.mask)
per_episode = episode_gradients(pi, *many_steps)[:, acting].flatten(1)  # (K N, P)
one_hot = episode_gradients(torch.zeros_like(pi), *many_steps)[:, acting].flatten(1)
truths = exact[acting].flatten()

# %% tags=["again"]
reinforced = per_episode.view(K, N, -1).mean(1)
estimators = {
    "REINFORCE": reinforced,
    "no − π": one_hot.view(K, N, -1).mean(1),
    "no 1/N": reinforced * N,
    "per step": reinforced * N / many.mask.sum(1).view(K, N).sum(1, keepdim=True),
}
threshold = torch.special.ndtri(torch.tensor(1 - 0.01 / len(truths) / 2)).item()
z_of = {name: torch.as_tensor(z_scores(found, truths)) for name, found in estimators.items()}
print(f"{K:,} estimates of {N} episodes: rejected if some |z| > {threshold:.2f}")
for name, means in estimators.items():
    mean, largest = means.mean(0), z_of[name].abs().max()
    cosine = torch.cosine_similarity(mean, truths, dim=0)
    print(f"{name:10s} max. |z| {largest:6.1f} {'rejected' if largest > threshold else ' ':9s}"
          f"cosine {cosine:.4f}, length {mean.norm() / truths.norm():5.2f} of the exact")

# %%
figure, axes = pyplot.subplots(figsize=(5, 3))
for index, z in enumerate(z_of.values()):
    place = torch.linspace(-0.3, 0.3, len(z)) + index
    axes.scatter(place, z, s=18, color=figures.COLORS[index], marker=figures.MARKERS[index])
axes.axhspan(-threshold, threshold, color="gray", alpha=0.25, linewidth=0)
axes.set_yscale("symlog", linthresh=10)
axes.set_xticks(range(len(z_of)), z_of)
axes.set_title("Distance of the mean estimate from the truth")
axes.set(xlabel="estimator (a mark per parameter)", ylabel="z-score (log scale beyond ±10)")
farthest = z_of["REINFORCE"].abs().max()
show(figure, alt=f"z-scores of {len(truths)} parameters for four estimators. Gray band: "
     f"±{threshold:.1f}. REINFORCE stays inside, at most {farthest:.1f}; the others do not.")

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

# %% tags=["again"]
SIZES = [4**k for k in range(8)]  # 1 to 16,384 episodes
errors, cosines = [], []
for size in SIZES:
    drawn = per_episode[: len(per_episode) // size * size].view(-1, size, len(truths)).mean(1)
    errors.append(float((drawn - truths).pow(2).sum(1).mean().sqrt() / truths.norm()))
    cosines.append(float(torch.cosine_similarity(drawn, truths[None]).mean()))
    print(f"N = {size:6,}   relative error {errors[-1]:6.2f}   mean cosine {cosines[-1]:.3f}")
falls = math.log(errors[5] / errors[0]) / math.log(SIZES[5])  # beyond, few estimates are left
guesses.reveal("episodes_for_ten_times", round(10 ** (-1 / falls)))

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
law = [errors[0] / math.sqrt(size) for size in SIZES]
axes.plot(SIZES, law, color="gray", label="one episode's error / √N")
axes.scatter(SIZES, errors, color=figures.COLORS[0], label="measured", zorder=3)
axes.axhline(1, color="black", linestyle=":", linewidth=1)
axes.set(title="Error of the estimate", xscale="log", yscale="log")
axes.set(xlabel="episodes per estimate, N", ylabel="root mean squared error / |∇J|")
axes.legend(fontsize=8)
show(figure, alt=f"Relative error against episodes on log axes: a line from {errors[0]:.1f} "
     f"with one to {errors[-1]:.2f} with {SIZES[-1]:,}. Dotted: as large as the gradient.")

# %% [markdown]
# **What you saw.** [C26] The points lie on the line: to be ten times as exact takes a hundred times the episodes. Below
# the dotted line the error is smaller than the gradient itself, and even in this tiny world that takes more than a
# dozen episodes. A single episode tells next to nothing about the direction. Lesson 09 is about the constant in front
# of $1/\sqrt N$; it can be made far smaller at no cost.
#
# [Explore it](../docs/interactive/reinforce.html): draw batches and watch the mean go to the exact gradient;
# [climb](../docs/interactive/grid_world.html) the exact gradient step by step.
#
# ## The loop
# Now let an agent learn: **sample** a fresh batch from the policy as it is now, **weigh**, **step**, again. The estimate
# is unbiased only for episodes of the *current* policy, so no batch serves twice. The step is Adam's instead of plain
# $\alpha \hat g$: the same gradient, with a step size for each parameter.

# %% ex="8.9" title="REINFORCE, the loop" points=4 difficulty="hard" minutes=18
def reinforce(policy, sample, weigh, updates, lr, watch):
    """Train `policy` in place with Adam at step size lr; returns how many updates were made.

    policy(observations (B, T)) -> logits (B, T, A), a module with .parameters();
    sample(policy) -> a batch of its own episodes, with .observations, .actions, .rewards and
    .mask, each (B, T); weigh(rewards, mask) -> weights (B, T); watch(policy, loss), called
    after each update with the loss as a number, says by True that training is over. At most
    `updates` updates are made.
    """
    # BEGIN SOLUTION
    adam = torch.optim.Adam(policy.parameters(), lr=lr)
    for update in range(1, updates + 1):
        batch = sample(policy)
        logprobs = policy(batch.observations).log_softmax(-1)
        taken = logprobs.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        weights = weigh(batch.rewards, batch.mask)
        loss = reinforce_loss(taken, weights, batch.mask)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if watch(policy, loss.item()):
            return update
    return updates
    # END SOLUTION

# %% ex="8.9" role="check"
reinforce = check("8.9", reinforce)

# %% [markdown] ex="8.9" role="hints"
# <details><summary>Hint 1</summary>Before the loop: one optimizer, <code>torch.optim.Adam(policy.parameters(),
# lr=lr)</code>. In it, in this order: sample, log-probabilities of the taken actions (as in 8.1, but one per step),
# weigh, your loss, <code>zero_grad</code>, <code>backward</code>, <code>step</code>, watch.</details>
# <details><summary>Hint 2</summary><code>loss.item()</code> is the loss as a number. Return the number of the update
# after which <code>watch</code> says True, or <code>updates</code> at the end.</details>

# %% [markdown]
# ## Learning from outcomes
# The map of lesson 07: the star pays 1, the pit −1, nothing else pays. The floor is dry; a discount of 0.95 makes a
# star that is reached late worth less, or there would be no reason to hurry. The agent sees one number per episode, at
# its end. How good can it get? Value iteration knows the best policy; a learner's exact $J$ is given as a share of it.

# %%
GAMMA, LIMIT, EVERY = 0.95, 50, 4  # EVERY: updates between two looks at the exact J
BUDGET = args.episodes * args.updates  # episodes of each learner
arrays = GridWorld("default").to_mdp(GAMMA)
best = float(arrays.start @ mdp.value_iteration(arrays))


def share_of_best(policy):
    """The exact J of a policy, as a share of the best policy's."""
    now = mdp.probabilities(arrays, policy).detach()
    return mdp.objective(arrays, now, LIMIT).item() / best


def discounted(rewards, mask):
    """REINFORCE: the weight of a step is the discounted return of its episode."""
    return torch.as_tensor(reinforce_weights(rewards, mask, GAMMA))


def sampler(world, horizon, seed, episodes=64):
    """A function that samples a fresh batch of a policy's own episodes."""
    source = seeded(seed)
    return lambda now: collect(world, now, episodes, horizon=horizon, generator=source)[0]


def learn(weigh, seed, updates=args.updates):
    """From the uniform policy: (agent, exact J / best every few updates, the losses there)."""
    agent, shares, losses = TabularPolicy(arrays.states, arrays.actions), [], []

    def watch(now, loss):
        losses.append(loss)
        if len(losses) % EVERY == 0 or len(losses) == 1:
            shares.append(share_of_best(now))

    sample = sampler(arrays, LIMIT, seed, args.episodes)
    reinforce(agent, sample, weigh, updates, args.lr, watch)
    return agent, shares, [losses[0], *losses[EVERY - 1 :: EVERY]]


# %%
looks = [1, *range(EVERY, args.updates + 1, EVERY)]
learners = [learn(discounted, seed) for seed in progress(range(args.seeds), "learners")]
reached = [share_of_best(agent) for agent, *_ in learners]
print(f"exact J / best, {BUDGET:,} episodes: {min(reached):.3f} to {max(reached):.3f}")

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(7, 2.7), layout="constrained")
curves = [shares for _, shares, _ in learners]
figures.learning_curves(left, [args.episodes * look for look in looks], curves, "REINFORCE")
left.axhline(1, color="black", linestyle=":", label="best policy")
left.set(title=f"Learning from outcomes, {len(curves)} seeds")
left.set(xlabel="episodes", ylabel="exact J / best")
left.legend(loc="lower right", fontsize=8)
learned = mdp.probabilities(arrays, learners[0][0]).detach()
values = mdp.state_values(arrays, learned)
figures.value_map(right, GridWorld("default"), values, learned, numbers=False)
right.set_title("What the first seed has learned")
show(figure, alt=f"Left: exact J over best of {len(curves)} agents: {curves[0][0]:.2f} to "
     "the dotted line at 1. Right: the map with expected returns; arrows lead to the star.")

# %% [markdown]
# **What you saw.** [C27] From the uniform policy to nearly the best one, in every run, from nothing but the outcome of
# each episode. Nobody said which of the steps was good. Look at the map: on its path the policy is nearly certain,
# except where two ways are equally short. Off the path it may lead back to where the path begins although the star is
# near: the agent comes there too rarely to learn better. $J$ is an average over what is
# visited, and asks for no more.
#
# ## The value of the loss means nothing
# In supervised learning one looks at the loss. Look at this one: REINFORCE, and beside it the same loop with the
# weights' sign turned, which walks into the pit.

# %%
few = range(max(2, args.seeds // 2))
tracks = {"REINFORCE": learners[: len(few)],
          "wrong sign": [learn(lambda *run: -discounted(*run), seed) for seed in few]}
for guess, (name, tracked) in zip(("good_agent", "wrong_sign"), tracks.items()):
    seen = torch.tensor([losses for _, _, losses in tracked]).mean(0)
    print(f"{name:11s} loss {seen[0]:+.1f}, at most {seen.max():+.1f}, last {seen[-1]:+.1f}")
    guesses.reveal(f"loss_of_the_{guess}", "up" if seen[-1] > seen[0] else "down")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(7, 2.5), layout="constrained")
for index, (name, tracked) in enumerate(tracks.items()):
    for axes, lines_of in zip(panels, list(zip(*tracked))[1:]):
        figures.learning_curves(axes, looks, lines_of, name, index)
        axes.set_xlabel("updates")
panels[0].set(title="What counts", ylabel="exact J / best")
panels[1].set(title="The loss", ylabel="loss of the batch")
panels[0].legend(fontsize=8)
show(figure, alt="Left: REINFORCE rises to 1, the wrong sign falls below -1. Right: both rise "
     "at first; REINFORCE's ends above where it began, that of the wrong sign below.")

# %% [markdown]
# **What you saw.** While the agent improves most, its loss *rises*. From the first update to the last, the loss of the
# good agent has gone up, and that of the one that walks into the pit has gone down. The reason: the loss is
# $-\frac1N \sum_i r(\tau^i) \log \pi_\theta(\tau^i)$ on *this* batch, and each batch comes from another policy. Its
# gradient is right; its values compare nothing. Watch returns, the gradient's norm and the entropy instead.
#
# ## Supervised learning on one's own episodes
# The lecture on text: "Supervised learning on model generations weighted by return". Take that literally. Supervised
# finetuning minimises the cross-entropy of demonstrations. Let the demonstrations be the agent's own episodes, and
# weigh each by its return: the same gradient? And let the return be 1 for a success and 0 for anything else. Weighting
# by it is *filtering*: keep the successes and imitate them with the plain loss of supervised finetuning, the mean over
# their steps.

# %% tags=["again"]
middle = learn(discounted, seed=0, updates=20)[0].double()  # half-way
own, _ = collect(arrays, middle, 64, horizon=LIMIT, generator=seeded(4))
logits = middle(own.observations)
per_step = cross_entropy(logits.flatten(0, 1), own.actions.flatten(), reduction="none")
per_step = per_step.view_as(own.rewards) * own.mask
taken = action_logprobs(middle, own)
success = (own.rewards.sum(1) > 0).double()[:, None] * own.mask
pairs = {
    "weighted by return": ((discounted(own.rewards, own.mask) * per_step).sum() / 64,
                           reinforce_loss(taken, discounted(own.rewards, own.mask), own.mask)),
    "filtered": ((success * per_step).sum() / success.sum(),
                 reinforce_loss(taken, success, own.mask)),
}  # fmt: skip
for name, both in pairs.items():
    supervised, rl = (grad(x, middle.logits, retain_graph=True)[0] for x in both)
    cosine = torch.cosine_similarity(supervised.flatten(), rl.flatten(), dim=0)
    print(f"{name:18s} supervised against REINFORCE: cosine {cosine:.9f}, "
          f"ratio of lengths {rl.norm() / supervised.norm():.6f}")  # fmt: skip
guesses.reveal("returns_of_0_and_1", "filtered finetuning (rejection sampling)")

# %% [markdown]
# The gradients agree, the filtered ones up to their length: the plain loss is a mean over steps, REINFORCE's over
# episodes. With returns of 0 and 1 REINFORCE is known as filtered finetuning, rejection-sampling finetuning
# or, when sampling and training alternate, expert iteration (STaR, for text). Is it then all the same? Three learners
# that see the same number of episodes and take the same number of steps: REINFORCE; filtered finetuning that samples
# anew before each step; and filtered finetuning on successes that were all sampled *before* training, from the uniform
# policy, as one does with a fixed dataset.

# %%
def finetuned_once(seed):
    """Finetuning on the successes of the uniform policy, out of as many episodes."""
    agent = TabularPolicy(arrays.states, arrays.actions)
    data, _ = collect(arrays, agent, BUDGET, horizon=LIMIT, generator=seeded(seed))
    keep = (data.rewards.sum(1) > 0)[:, None] & data.mask
    adam = torch.optim.Adam(agent.parameters(), lr=args.lr)
    for _ in range(args.updates):
        loss = cross_entropy(agent(data.observations[keep]), data.actions[keep])
        adam.zero_grad(), loss.backward(), adam.step()
    return agent


# %%
def successes(rewards, mask):
    return (rewards.sum(1, keepdim=True) > 0) * mask.to(rewards)


anew = [learn(successes, seed) for seed in progress(few, "sampled anew")]
agents = {
    "REINFORCE": [agent for agent, *_ in learners],
    "filtered, sampled anew": [agent for agent, *_ in anew],
    "filtered, sampled once": [finetuned_once(seed) for seed in few],
}
only_star = GridWorld("default", pit_reward=0.0).to_mdp()  # its J: how likely the star is
for name, trained in agents.items():
    pis = torch.stack([mdp.probabilities(arrays, agent).detach() for agent in trained])
    star = sum(mdp.objective(only_star, now, LIMIT) for now in pis) / len(pis)
    length = sum(mdp.occupancy(only_star, now, LIMIT).sum() for now in pis) / len(pis)
    share = over_seeds([share_of_best(agent) for agent in trained])
    print(f"{name:23s} exact J / best {share}; star {star:.0%}, {length:.1f} steps")

# %% [markdown]
# **What you saw.** [C28] One gradient step of REINFORCE *is* supervised learning on own episodes weighted by return, to
# rounding. What makes it reinforcement learning is the rest. The weights say how good: they tell a quick success from a
# slow one, and a fall counts less than nothing. And the data follow the policy: whoever imitates successes that were
# sampled once learns what those show, detours included, and stays there.
#
# ## When success is rare
# All of this needs successes. A return of 0 has weight 0, so until the first one the gradient is exactly zero, and the
# agent is a random walker. In a corridor, with 20 steps per episode, count the episodes until it reaches the star with
# probability 0.95. Once the star pays 1. Once that 1 is paid along the way: each step pays the fraction of the way by
# which it came closer, and a step back takes it away. Then an episode's return is how far it got, and 1 still means the
# star. Beside them stands after how many episodes half of all agents that walk at random have a first success.

# %%
DISTANCES, PATIENCE, RUNS = (2, 5, 8, 11, 13), 20, 6


def corridor(cells):
    """A corridor with the star that many cells away, paid at the star; and paid on the way."""
    sparse = GridWorld(["S" + "." * (cells - 1) + "G"]).to_mdp()
    position = torch.arange(cells + 1) / cells
    paid = (position - position[:, None])[:, None].expand_as(sparse.P)
    return sparse, mdp.MDP(sparse.P, paid, sparse.start)


def reaches(world, agent):
    """The exact probability of the star within an episode; `world` pays at the star."""
    return mdp.objective(world, mdp.probabilities(world, agent).detach(), PATIENCE).item()


def episodes_to_solve(paying, sparse, weigh=total_return):
    """Episodes until the star is reached in 95 %, at most 128,000: geometric mean of seeds."""
    def solved(now, loss):
        return reaches(sparse, now) >= 0.95

    logs = []
    for seed in range(RUNS):
        agent, sample = TabularPolicy(sparse.states, 4), sampler(paying, PATIENCE, seed)
        logs.append(math.log(64 * reinforce(agent, sample, weigh, 2000, 0.1, solved)))
    e = over_seeds(logs)  # over logarithms: one slow seed must not hide the others
    return e._replace(mean=math.exp(e.mean), low=math.exp(e.low), high=math.exp(e.high))


# %%
needed, waits = {"paid at the star": [], "paid along the way": []}, []
print("cells  first success, by chance  " + "".join(f"{name:24s}" for name in needed))
for cells in progress(DISTANCES, "corridors"):
    sparse, dense = corridor(cells)
    chance = reaches(sparse, TabularPolicy(sparse.states, 4))
    waits.append(max(1, math.ceil(math.log(0.5) / math.log(1 - chance))))
    for solved, paying in zip(needed.values(), (sparse, dense)):
        solved.append(episodes_to_solve(paying, sparse))
    newest = [found[-1] for found in needed.values()]
    columns = [f"{f'{e.mean:,.0f} [{e.low:,.0f}, {e.high:,.0f}]':24s}" for e in newest]
    print(f"{cells:5d}  {waits[-1]:15,} episodes ", *columns)
cost = [found[-1].mean / found[len(DISTANCES) // 2].mean for found in needed.values()]
guesses.reveal("cost_of_5_more_cells", cost[0])
guesses.reveal("cost_when_paid_along_the_way", cost[1])

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.2))
for index, (name, solved) in enumerate(needed.items()):
    figures.curve(axes, DISTANCES, solved, f"solved: {name}", index)
axes.plot(DISTANCES, waits, color="gray", linestyle=":", label="first success, by chance")
axes.set(xlabel="distance to the star, cells", ylabel="episodes", yscale="log")
axes.set_title(f"Episodes (of {PATIENCE} steps) until solved")
axes.legend(fontsize=8)
first, last = ([found[place].mean for found in needed.values()] for place in (0, -1))
show(figure, alt=f"Episodes until solved against distance, {RUNS} seeds. Paid at the star: "
     f"{first[0]:,.0f} to {last[0]:,.0f}. Along the way: {first[1]:,.0f} to {last[1]:,.0f}.")

# %% [markdown]
# At 8 cells paying along the way *costs* episodes. Now no return is negative and most are positive: what was done is
# made more likely, the bad only less so than the good. If that is the reason, it must help to subtract from each return
# what the others of the batch got (lesson 09 proves that this is allowed, and measures what it saves):

# %%
def against_the_others(rewards, mask):
    """Each episode's return minus the mean return of the other episodes of its batch."""
    weights = total_return(rewards, mask)
    return (weights - leave_one_out(weights[:, 0])[:, None]) * mask


compared = episodes_to_solve(*reversed(corridor(8)), against_the_others)
print("8 cells, paid along the way, minus the others' mean:", compared, "episodes")

# %% [markdown]
# **What you saw.** [C25] As long as luck brings a first success within a batch or two, the cost grows about in
# proportion to the distance. Then the wait for the first success takes over, and each further cell multiplies it: at 13
# cells the wait by chance is as long as all of it. Paying along the way ends the wait, and there it saves most of the
# episodes; at 5 and at 8
# cells it costs some, and at 8 that cost is gone as soon as the common part of the returns is subtracted.
#
# ## Silent bug lab
# Code for reinforcement learning rarely crashes; it learns a little, and the world gets the blame. Here are seven runs
# that you can call and not read. One of them is REINFORCE, six have a bug that raises no error. Each is called as
# `run(policy, sample, updates, lr)`: it makes that many updates of a `TabularPolicy` in place, by *plain* gradient
# steps, $\theta \leftarrow \theta + $ `lr` $\hat g$, with undiscounted returns; `sample(policy)` gives a batch, as in
# 8.9. First the symptoms: the small map, 200 updates of 64 episodes, 5 seeds.

# %%
LAB = GridWorld("small").to_mdp()  # the best J is 1
for name, run in progress(mystery_runs("8.10").items(), "runs"):
    ends = []
    for seed in range(5):
        agent = TabularPolicy(LAB.states, 4)
        run(agent, sampler(LAB, 6, seed), 200, 0.5)
        ends.append(mdp.objective(LAB, mdp.probabilities(LAB, agent).detach(), 6).item())
    print(f"run {name}: exact J at the end {min(ends):.2f} to {max(ends):.2f}")

# %% [markdown]
# A curve says that something is wrong, at best. A **property test** says what: a fact that REINFORCE's update must have
# and a wrong one has not. You know many. The step is `lr` times the estimate, whose closed form you wrote in 8.2, at
# *every* policy and not only at the uniform one, where everybody tests; returns of zero move nothing; what stands on
# padding does not matter; every step of an episode is credited; each update has a batch of its own. Write one function
# that passes the right run and refuses as many wrong ones as you can: a point each for two, four and all six.

# %% ex="8.10" title="Tests for silent bugs" points=3 difficulty="hard" minutes=22
def is_reinforce(run):
    """Whether run(policy, sample, updates, lr) makes REINFORCE's gradient steps: a bool."""
    # BEGIN SOLUTION
    policy = TabularPolicy(LAB.states, 4).double()
    source = torch.Generator().manual_seed(3)
    policy.logits.data = torch.randn(LAB.states, 4, generator=source).double()
    before = policy.logits.detach().clone()
    pi, batches = before.softmax(-1), []

    def sample(now):
        batches.append(collect(LAB, now, 40, horizon=6, generator=source)[0])
        return batches[-1]

    run(policy, sample, 1, 0.5)
    moved = policy.logits.detach() - before
    first = batches[0]
    expected = torch.zeros_like(pi)
    rows = zip(first.observations, first.actions, first.rewards, first.mask)
    for states, actions, rewards, mask in rows:
        push = score(pi, states[mask].tolist(), actions[mask].tolist())
        expected += 0.5 * rewards[mask].sum() * push / len(first.mask)
    if not torch.allclose(moved, expected):
        return False
    run(policy, sample, 2, 0.5)
    return len(batches) == 3  # each update has asked for a batch of its own
    # END SOLUTION

# %% ex="8.10" role="check"
is_reinforce = check("8.10", is_reinforce)

# %% [markdown] ex="8.10" role="hints"
# <details><summary>Hint 1</summary>Make a policy whose logits are random, keep a copy of them, and a
# <code>sample</code> that keeps every batch it hands out. Call the run for one update: how far must the logits have
# moved? Then for two more: how many batches must there be?</details>
# <details><summary>Hint 2</summary>With the policy in double precision compare with <code>torch.allclose</code>. The
# expected move is <code>lr</code> times the mean over episodes of return times score; the score of an episode takes
# the states and actions where its mask is True.</details>

# %% [markdown]
# **What you saw.** Run D is REINFORCE. Three of the six wrong runs do about as well: a curve cannot tell them. Run A uses
# its first batch for ever, and on this small map its successes are enough to imitate. Run B has $\pi$ in place of
# $\log \pi$, at the uniform policy the right gradient times 1/4. Run C divides by the steps instead of the episodes: the
# direction stays. Run E credits a step with its own reward alone, so that no step before the paid one learns. Run F
# trains on padding, where the record holds state 0 and action 0, a walk into the border. Run G gives every episode the
# mean return of its batch: good and bad are pushed alike.
#
# Nobody has to find a reused batch by testing: a record keeps the log-probabilities that it was sampled with, and
# `check_behavior` recomputes them. The package's own loop, `train_policy`, does so before every update.
#
# ## Recap
# - $\nabla J = \mathbb E[\nabla \log p_\theta(\tau)\, r(\tau)]$: the log-derivative trick makes the gradient of an
#   expectation an expectation again, so that it can be sampled.
# - In $\nabla \log p_\theta(\tau)$ the dynamics drop out. The agent needs its own log-probabilities and the outcome.
# - The loop: sample from the current policy, weigh by the outcome, step; never reuse a batch.
# - The estimate is unbiased, and its error falls with $1/\sqrt N$ from a bad start. Test it against an exact gradient
#   with standard errors, at more than one policy.
# - REINFORCE learns from outcomes alone nearly up to the best policy, if outcomes differ. Where success is rare it
#   waits.
# - One step of it is supervised learning on own samples weighted by return. The value of that loss means nothing.
#
# ## Try next
# - Step size `lr` 1.0, or 8 `episodes`: which seeds still learn? What do those that do not have in common?
# - Let the floor depend on θ: make the slip a parameter. Which line of the proof breaks?
# - Add 10 to every return. The best policy stays; does REINFORCE still find it?
# - A seventh bug for the lab: sample at temperature 2 and score at 1. Does your test see it? Does `check_behavior`?
#
# ## References
# - Williams (1992), *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*:
#   REINFORCE.
# - Sutton, McAllester, Singh and Mansour (2000), *Policy Gradient Methods for Reinforcement Learning with Function
#   Approximation*: the dynamics drop out, and what follows.
# - Anthony, Tian and Barber (2017), *Thinking Fast and Slow with Deep Learning and Tree Search*: expert iteration.
#   Zelikman, Wu, Mu and Goodman (2022), *STaR: Bootstrapping Reasoning With Reasoning*: the same for text.
# - Ng, Harada and Russell (1999), *Policy Invariance Under Reward Transformations*: paying along the way.
# - Mohamed, Rosca, Figurnov and Mnih (2020), *Monte Carlo Gradient Estimation in Machine Learning*: the trick and its
#   rivals.
