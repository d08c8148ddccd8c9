# Lesson 07: the grid world. jupytext py:percent; runs as a script: python lessons/07_grid_world.py --help

# %% [markdown]
# # 07 · The grid world: a policy, its trajectories, and what they are worth
#
# Reinforcement learning starts here, in a world so small that nothing in it has to be guessed: every transition, every
# trajectory and the objective itself can be computed. In this lesson you build that world as arrays, turn a policy into
# a distribution over trajectories, and get the expected return in three ways that must agree; then you find the best
# policy, and measure why rewards that come rarely make learning hard. *(Lecture: "Reinforcement learning", from the
# goal of learning from experience to the sketch of RL algorithms and its challenges; claims C23–C25.)*
# About 180 minutes, of which 158 for the exercises; runs in 30 s on two CPU cores. A good place for a break is before
# "Values".
#
# **You will need** PyTorch tensors, and expectations as sums. **You will be able to** write a problem as a Markov
# decision process, compute the value of a policy exactly and estimate it with an honest interval, find the best policy
# by value iteration, and say how many episodes pass before a random agent sees its first reward.

# %% [markdown]
# ## Predict first
# Type your guesses over the dots in the cell below, before you run anything; each of them is measured further down.
#
# 1. An agent that moves at random on a slippery floor: one move in five goes sideways. **Is its expected return lower
#    than on a dry floor?**
# 2. You estimate an expected return from 1,000 episodes. **How many do you need for an interval half as wide?**
# 3. The reward is 1 at the star, −1 in the pit and 0 elsewhere, without discounting. **Does the value of the best policy
#    tell the agent which way to go?**
# 4. A random agent on an empty square map, the star in the far corner. The side of the map doubles from 8 to 16 cells.
#    **How many times as many steps until it first finds the star? And if episodes are cut off after 100 steps, how many
#    times as many episodes?**
# 5. To help it, you pay a little in every step, the more the closer it is to the star. **What will the best policy be?**

# %%
from ptlearn.course.session import arguments, progress, show  # first: then Ctrl-C is one line

from ptlearn.course.predictions import predict

guesses = predict(
    slippery_minus_dry=...,  # 1: below 0, 0 or above
    episodes_for_half_the_width=...,  # 2: how many, instead of 1,000
    values_give_a_direction=...,  # 3: True or False
    times_as_many_steps=...,  # 4
    times_as_many_episodes=...,  # 4
    best_policy_when_close_is_paid=...,  # 5: what it does, in a word or two
)

# %% [markdown]
# In a notebook, change a knob by changing its default in the next cell (`slip=(0.2, …`), then run all cells again.

# %%
import random
from itertools import product

import torch
from gymnasium.utils.env_checker import check_env
from matplotlib import pyplot
from torch.nn.functional import one_hot

from ptlearn import figures
from ptlearn.course.exercise import check
from ptlearn.grid import mdp
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import ACTIONS, GridWorld
from ptlearn.rl.policies import TabularPolicy
from ptlearn.statistics import Estimate, accuracy, wilson

args = arguments(
    "The grid world: trajectories, the objective computed exactly; values; sparse rewards.",
    slip=(0.2, "probability that a move goes sideways", "above 0, at most 0.9"),
    gamma=(0.9, "discount factor", "above 0, below 1"),
    side=(16, "of the largest empty map", "at least 4"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would wait for the first


def seeded(number=0):
    """A generator for one measurement: a cell that is run again gives the same again."""
    return torch.Generator().manual_seed(args.seed + number)


# %% [markdown]
# ## A world
# At each time step $t$ the agent is in a state $s_t \in \mathcal S$, here a cell of the map. It takes an action
# $a_t \in \mathcal A$, one of up, right, down, left, moves on to $s_{t+1} \sim p(\cdot \mid s_t, a_t)$, and obtains a
# reward. `S` is where it starts, `#` a wall, `G` the lecture's star: entering it pays 1 and ends the episode. Two
# things are added to the lecture's picture: a pit `X`, which costs 1 and ends the episode too, and a slippery floor.
#
# Below is the map. The world's rules come in two parts, and you write both.

# %%
world = GridWorld("default", slip=args.slip)
print(*world.map, sep="\n")

# %% [markdown]
# First the floor. With probability 1 − slip the agent moves as it meant to; otherwise to one of the two sides, half each.
# A wall or the border keeps it where it is.

# %% ex="7.1" title="A slippery move" points=2 minutes=12 difficulty="medium"
def next_cells(rows, cell, action, slip):
    """Where a move leads, {(row, column): probability}.

    rows: the map, a list of strings, '#' is a wall; cell: (row, column), row 0 is on top;
    action: 0 up, 1 right, 2 down, 3 left. The probabilities sum to 1, also where several moves
    end in the same cell.
    """
    # BEGIN SOLUTION
    chances = {}
    for turn, chance in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
        down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[(action + turn) % 4]
        row, column = cell[0] + down, cell[1] + right
        inside = 0 <= row < len(rows) and 0 <= column < len(rows[0])
        place = (row, column) if inside and rows[row][column] != "#" else cell
        chances[place] = chances.get(place, 0.0) + chance
    return chances
    # END SOLUTION

# %% ex="7.1" role="check"
next_cells = check("7.1", next_cells)

# %% [markdown] ex="7.1" role="hints"
# <details><summary>Hint 1</summary>Actions that stand next to each other in (up, right, down, left) are perpendicular, so
# the sides of <code>action</code> are <code>(action + 1) % 4</code> and <code>(action + 3) % 4</code>.</details>
# <details><summary>Hint 2</summary>In a corner two of the three moves end where they began. Add their probabilities:
# <code>chances[place] = chances.get(place, 0) + chance</code>. And <code>rows[-1]</code> is no error in Python: test
# whether the cell is on the map.</details>

# %% [markdown]
# Then time. Many worlds are written to one interface, that of Gymnasium: `reset` begins an episode, `step` takes an action
# and returns what is seen next, the reward and two ways to end. **Terminated** means the world says it is over.
# **Truncated** means somebody's patience ran out, here after `limit` steps, and the agent could have gone on.

# %% ex="7.2" title="The environment's step" points=3 minutes=20 difficulty="hard"
class SlipperyGrid:
    """A map as an environment: reset() begins an episode, step(action) goes on with it.

    rows: the map, with one S; slip; limit: the steps until patience runs out; seed: of its
    random numbers.
    """

    def __init__(self, rows, slip, limit=100, seed=0):
        self.rows, self.slip, self.limit = rows, slip, limit
        self.random = random.Random(seed)

    def reset(self):
        """Back to S, with all the patience there is; returns the cell, (row, column)."""
        # BEGIN SOLUTION
        [self.cell] = [(r, row.index("S")) for r, row in enumerate(self.rows) if "S" in row]
        self.steps = 0
        return self.cell
        # END SOLUTION

    def step(self, action):
        """(cell, reward, terminated, truncated) of one move, drawn by `next_cells`.

        Entering G pays 1, entering X pays -1, both terminate. Step number `limit` truncates.
        """
        # BEGIN SOLUTION
        chances = next_cells(self.rows, self.cell, action, self.slip)
        [self.cell] = self.random.choices([*chances], weights=[*chances.values()])
        self.steps += 1
        symbol = self.rows[self.cell[0]][self.cell[1]]
        reward = {"G": 1.0, "X": -1.0}.get(symbol, 0.0)
        terminated = symbol in "GX"
        truncated = self.steps >= self.limit
        return self.cell, reward, terminated, truncated
        # END SOLUTION

# %% ex="7.2" role="check"
SlipperyGrid = check("7.2", SlipperyGrid)

# %% [markdown] ex="7.2" role="hints"
# <details><summary>Hint 1</summary>What an episode knows of itself are two things: the cell, and how many steps it has
# taken. `reset` sets both, `step` changes both.</details>
# <details><summary>Hint 2</summary><code>self.random.choices(cells, weights=...)</code> draws, and returns a list with one
# entry. Rewards and ends depend on the symbol of the cell that is *entered*.</details>

# %% tags=["again"]
episode, dice = SlipperyGrid(world.map, args.slip, seed=args.seed), random.Random(args.seed)
visited, over = [episode.reset()], False
while not over:
    move = dice.randrange(4)
    cell, paid, terminated, truncated = episode.step(move)
    over = terminated or truncated
    if len(visited) <= 6 or over:
        print(f"t = {len(visited):2d}   {ACTIONS[move]:5s}   {visited[-1]} -> {cell}   "
              f"reward {paid:+.0f}   terminated {terminated}, truncated {truncated}")
    visited.append(cell)

# %%
figure, axes = pyplot.subplots(figsize=(4, 3.4))
path = [world.cells.index(place) for place in visited]
figures.draw_trajectory(axes, world, path[:-1], path[-1])
axes.set_title(f"A random agent, {len(visited) - 1} steps")
show(figure, alt="A map of five by five cells with walls and a pit at row 3, column 3. Arrows "
     f"wander from the upper left corner; after {len(visited) - 1} steps they end in {cell}.")

# %% [markdown]
# **What you saw.** [C23] States, actions, transitions and rewards are all there is. A move does not always go where the
# agent wanted. In the seven lines above it does, or the border is in the way; of all moves one in five slips. The
# package's `GridWorld` is the same world as a Gymnasium environment (`gymnasium.make(
# "ptlearn/GridWorld-v0", map="default", slip=0.2)`), with cells numbered row by row, walls left out.
#
# ## The same world as numbers
# A Markov decision process is $p(s' \mid s, a)$, the rewards, and a distribution $p(s_1)$ of the first state. *Markov*:
# what happens next depends on the state and the action, on nothing before. So three arrays hold the whole world: `P[s, a,
# s']`, `R[s, a, s']` and `start[s]`. States are the cells that are no walls, counted row by row. Where the episode is over,
# nothing moves and nothing pays.

# %% ex="7.3" title="The world as arrays" points=2 minutes=15 difficulty="medium"
def world_arrays(rows, slip):
    """(P (S, 4, S), R (S, 4, S), start (S,)) of a map with one S, float64 tensors.

    In G and X every action stays there for certain, and pays nothing.
    """
    # BEGIN SOLUTION
    cells = [(r, c) for r, row in enumerate(rows) for c in range(len(row)) if row[c] != "#"]
    number = {cell: state for state, cell in enumerate(cells)}
    P, R = torch.zeros(2, len(cells), 4, len(cells), dtype=torch.float64)
    start = torch.tensor([float(rows[r][c] == "S") for r, c in cells], dtype=torch.float64)
    for state, cell in enumerate(cells):
        for action in range(4):
            if rows[cell[0]][cell[1]] in "GX":
                P[state, action, state] = 1.0
                continue
            for (r, c), chance in next_cells(rows, cell, action, slip).items():
                P[state, action, number[r, c]] = chance
                R[state, action, number[r, c]] = {"G": 1.0, "X": -1.0}.get(rows[r][c], 0.0)
    return P, R, start
    # END SOLUTION

# %% ex="7.3" role="check"
world_arrays = check("7.3", world_arrays)

# %% [markdown] ex="7.3" role="hints"
# <details><summary>Hint 1</summary>Number the cells in a dictionary, {(row, column): state}. Then one loop over states and
# actions, and <code>next_cells</code> says which entries of that row of P are above 0.</details>
# <details><summary>Hint 2</summary>R is paid for the cell that is entered, so it is looked up at s', except from G and X:
# there R stays 0, and P[s, a, s] = 1.</details>

# %%
P, R, start = world_arrays(world.map, args.slip)
arrays = world.to_mdp(gamma=args.gamma)  # the package's, with gamma beside them
assert torch.allclose(P, arrays.P) and torch.allclose(P * R, arrays.P * arrays.R)
going = (~arrays.terminal).nonzero()[:, 0].tolist()  # the states where an episode goes on
print(f"{len(P)} states, 4 actions; P has {P.numel():,} entries, {(P > 0).sum()} above 0")

# %% [markdown]
# The lecture writes the reward as $r(s_t, a_t)$ and defines it as "1 if $s_{t+1}$ is the star". On a slippery floor
# $s_{t+1}$ is random, so `R` holds $r(s, a, s')$, and the lecture's is its mean, $r(s, a) = \sum_{s'} p(s' \mid s, a)\,
# r(s, a, s')$.
#
# Arrays are a claim about the world. Test it: take every action 1,000 times in every state, count where it led, and ask
# how often chance alone would put the counts this far from what `P` says (Pearson's χ² test). A test that nothing fails
# is worthless, so run it also against a world that slips a tenth more often.

# %%
check_env(world, skip_render_check=True)  # Gymnasium's own test: raises when a rule is broken
world.reset(seed=args.seed)
counts = torch.zeros_like(P)
for state, action in progress(list(product(going, range(4))), "sampling transitions"):
    for _ in range(1000):
        world.state = state
        after, reward, *_ = world.step(action)
        assert reward == arrays.R[state, action, after]
        counts[state, action, after] += 1

# %% tags=["again"]
def chi_square(counts, expected):
    """How often chance alone puts counts (..., K) at least this far from the expected ones."""
    assert (counts[expected == 0] == 0).all()  # what cannot happen did not
    terms = torch.where(expected > 0, (counts - expected) ** 2 / expected, 0.0)
    freedom = ((expected > 0).sum(-1) - 1).sum()  # the counts of a row sum to what was drawn
    return float(torch.special.gammaincc(freedom / 2, terms.sum() / 2))


for slip in (args.slip, 1.1 * args.slip):
    claimed = GridWorld("default", slip=slip).to_mdp().P[going]
    chance = chi_square(counts[going], 1000 * claimed)
    print(f"80,000 moves against P of a floor with slip {slip:.2f}: p = {chance:.2g}")

# %% [markdown]
# **What you saw.** [C23] The counts agree with `P`, and would not with a floor only a tenth more slippery. The reward
# was the one in `R` in every single move. From here on the arrays *are* the world, and what can be read off them needs
# no sampling.
#
# ## Trajectories and returns
# A **policy** decides what to do: deterministic, $\pi(s) = a$, or, our focus, stochastic, $\pi_\theta(a \mid s)$. Here
# $\theta$ is a table with one number, a *logit*, per state and action, and $\pi_\theta$ its softmax. All zeros is the
# uniform policy. Acting is drawing, in turn from $\pi$ and from $P$. Write it for one episode.

# %% ex="7.4" title="An episode" points=2 minutes=12 difficulty="medium"
def sample_episode(P, R, start, pi, terminal, horizon, generator):
    """One episode: (T + 1 states, T actions, T rewards), lists, T at most the horizon.

    P, R (S, A, S), start (S,), pi (S, A) tensors; terminal (S,) bool, states where an episode
    is over; generator of torch.
    """
    # BEGIN SOLUTION
    state = int(torch.multinomial(start, 1, generator=generator))
    states, actions, rewards = [state], [], []
    while len(actions) < horizon and not terminal[state]:
        action = int(torch.multinomial(pi[state], 1, generator=generator))
        after = int(torch.multinomial(P[state, action], 1, generator=generator))
        states.append(after)
        actions.append(action)
        rewards.append(float(R[state, action, after]))
        state = after
    return states, actions, rewards
    # END SOLUTION

# %% ex="7.4" role="check"
sample_episode = check("7.4", sample_episode)

# %% [markdown] ex="7.4" role="hints"
# <details><summary>Hint 1</summary>Three draws: a first state, and in every step an action and the state that follows. What
# is looked at before each step?</details>
# <details><summary>Hint 2</summary><code>int(torch.multinomial(row, 1, generator=generator))</code> draws a place of a row of
# probabilities. The reward is <code>R[s, a, s']</code>.</details>

# %% [markdown]
# `collect` does this for thousands of episodes at once, and returns the record that every later lesson works on, for text
# too: one row per episode, one column per step, and a `mask` that is True where the agent acted.

# %% tags=["again"]
uniform = TabularPolicy(len(P), 4)
pi = mdp.probabilities(arrays, uniform).detach()  # (S, A)
source = seeded()
singles = [sample_episode(P, R, start, pi, arrays.terminal, 100, source) for _ in range(300)]
lengths = torch.tensor([len(actions) for _, actions, _ in singles]).double()
record, _ = collect(arrays, uniform, 1000, horizon=100, generator=seeded(1))
print(f"mean length one by one {lengths.mean():.1f} ± {1.96 * lengths.std() / 300**0.5:.1f}, "
      f"at once {record.mask.sum(1).double().mean():.1f}")  # fmt: skip
shortest = int(record.mask.sum(1).argmin())
print(f"its fields are {tuple(record.mask.shape)}; the shortest episode, the first 9 columns:")
for part in ("observations", "actions", "rewards", "mask"):
    print(f"  {part:13s}", getattr(record, part)[shortest, :9].tolist())

# %% [markdown]
# How good was an episode? The lecture adds up its rewards, $r(\tau) = \sum_{t=1}^{T} r(s_t, a_t)$. Often a reward
# counts for less the later it comes: with a **discount factor** $\gamma \in [0, 1]$
#
# $$r(\tau) = \sum_{t=1}^{T} \gamma^{\,t-1}\, r(s_t, a_t).$$
#
# Read $\gamma$ as patience, or as the probability that the world goes on for another step. $\gamma = 1$ is the
# lecture's sum. Behind the end of an episode stands padding, which is worth nothing whatever is written there.

# %% ex="7.5" title="The return of an episode" points=1 minutes=5 difficulty="easy"
def episode_returns(rewards, mask, gamma):
    """The discounted return of each episode.

    rewards (B, T) float, mask (B, T) bool, True from the first step of an episode to its last
    -> (B,) float.
    """
    # BEGIN SOLUTION
    discounts = gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    return (rewards * mask * discounts).sum(1)
    # END SOLUTION

# %% ex="7.5" role="check"
episode_returns = check("7.5", episode_returns)

# %% [markdown] ex="7.5" role="hints"
# <details><summary>Hint 1</summary>The first reward has the factor γ⁰ = 1, the second γ¹, ...: one row of factors serves
# all episodes.</details>
# <details><summary>Hint 2</summary><code>rewards * mask</code> is 0 on padding; <code>torch.arange(T)</code> are the
# exponents; sum over dimension 1.</details>

# %% tags=["again"]
returns = torch.as_tensor(episode_returns(record.rewards, record.mask, args.gamma)).double()
outcome = record.rewards.sum(1)  # all that is ever paid, is paid at the end
for end, paid_there in (("star", 1), ("pit", -1), ("time limit", 0)):
    ended = outcome == paid_there
    print(f"{end:10s} {accuracy(ended)}   mean discounted return {returns[ended].mean():+.3f}")

# %% [markdown]
# **What you saw.** The pit lies on more of the random agent's ways than the star, so most of its episodes end badly;
# some are cut off. Discounting makes both outcomes small, for they come late.
#
# ## A policy is a distribution over trajectories
# The agent chooses, the world answers, in turn. So the probability of a whole trajectory
# $\tau = (s_1, a_1, s_2, a_2, \dots)$ is a product,
#
# $$p_\theta(\tau) = p(s_1) \prod_{t=1}^{T} \pi_\theta(a_t \mid s_t)\; p(s_{t+1} \mid s_t, a_t).$$
#
# (The lecture writes $\tau = (a_1, s_1, \dots, a_T, s_T)$; since $a_t$ is chosen in $s_t$, we let the state come
# first.) Only one kind of factor depends on $\theta$. Lesson 08 lives on that.

# %% ex="7.6" title="The probability of a trajectory" points=1 minutes=7 difficulty="easy"
def trajectory_probability(start, P, pi, states, actions):
    """p(tau), for a trajectory with T actions and T + 1 states, the last one where it ended.

    start (S,), P (S, A, S), pi (S, A) tensors of probabilities; states, actions: lists of int
    -> a number.
    """
    # BEGIN SOLUTION
    probability = start[states[0]]
    for t, action in enumerate(actions):
        probability = probability * pi[states[t], action] * P[states[t], action, states[t + 1]]
    return float(probability)
    # END SOLUTION

# %% ex="7.6" role="check"
trajectory_probability = check("7.6", trajectory_probability)

# %% [markdown] ex="7.6" role="hints"
# <details><summary>Hint 1</summary>1 + 2T factors: one for the first state, and two for every action.</details>
# <details><summary>Hint 2</summary>The action at t is looked up in <code>pi[states[t]]</code>, and leads from
# <code>states[t]</code> to <code>states[t + 1]</code>.</details>

# %% [markdown]
# Take a map of six cells, three steps, and some arbitrary policy. Then *all* trajectories can be listed. If the formula
# is right, their probabilities sum to 1: sum over $s_{T+1}$ first, and the last factor $p(s_{T+1} \mid s_T, a_T)$
# becomes 1; then over $a_T$, and $\pi_\theta(a_T \mid s_T)$ does; and so on down to $p(s_1)$.

# %%
small = GridWorld("small", slip=args.slip)
tiny, HORIZON = small.to_mdp(gamma=args.gamma), 3
mixed = TabularPolicy(tiny.states, 4)
mixed.logits.data = torch.randn(tiny.states, 4, generator=seeded(2))
pi_mixed = mdp.probabilities(tiny, mixed).detach()

# %% ex="7.7" title="Every trajectory" points=2 minutes=15 difficulty="medium"
def trajectories(P, pi, terminal, state, steps):
    """All (states, actions) that can happen from a state on, a list: so many steps, or fewer
    where the episode ends.

    P (S, A, S), pi (S, A) tensors; terminal (S,) bool; state, steps: int. What has probability
    0 is left out.
    """
    # BEGIN SOLUTION
    if steps == 0 or terminal[state]:
        return [([state], [])]
    found = []
    for action, after in (pi[state][:, None] * P[state] > 0).nonzero().tolist():
        for states, actions in trajectories(P, pi, terminal, after, steps - 1):
            found.append(([state, *states], [action, *actions]))
    return found
    # END SOLUTION

# %% ex="7.7" role="check"
trajectories = check("7.7", trajectories)

# %% [markdown] ex="7.7" role="hints"
# <details><summary>Hint 1</summary>A function that calls itself: what can happen in `steps` steps is a first step, and then
# whatever can happen in one step less.</details>
# <details><summary>Hint 2</summary>With no steps left, or in a state where the episode is over, there is one trajectory:
# <code>([state], [])</code>.</details>

# %% tags=["again"]
listed = trajectories(tiny.P, pi_mixed, tiny.terminal, int(tiny.start.argmax()), HORIZON)
p = [float(trajectory_probability(tiny.start, tiny.P, pi_mixed, *tau)) for tau in listed]
print(*small.map, sep="\n")
for likeliest in sorted(range(len(p)), key=lambda place: -p[place])[:3]:
    places, moves = listed[likeliest]
    words = f"{[small.cells[s] for s in places]} by {', '.join(ACTIONS[a] for a in moves)}"
    print(f"p = {p[likeliest]:.3f}   {words}")
print(f"{len(p):,} trajectories, probabilities sum to {sum(p):.12f}")

every, every_final, chances = mdp.enumerate_trajectories(tiny, mixed, HORIZON)  # the package's

# %% [markdown]
# The other half of the claim: the agent really produces them that often. Let it run 20,000 times, count each trajectory,
# and ask with χ² again. If the claim is right, p is any number between 0 and 1, all alike: one p in ten is below 0.1,
# and proves nothing. So do it ten times. And test the test: with a policy whose logits are a tenth larger.

# %% tags=["again"]
def counted(policy, seed, runs=20_000):
    """(how often each listed trajectory came, p of the χ² test) in that many episodes."""
    episodes = collect(tiny, policy, runs, horizon=HORIZON, generator=seeded(seed))
    found = mdp.count_trajectories(*episodes, every, every_final).double()
    rare = runs * chances < 5  # the test is not made for them: they are counted together
    groups = [torch.cat([x[~rare], x[rare].sum()[None]]) for x in (found, runs * chances)]
    return found, chi_square(*groups)


tenth_larger = TabularPolicy(tiny.states, 4)
tenth_larger.logits.data = 1.1 * mixed.logits.data
tallies = {}
for who, acts in (("the policy", mixed), ("10 % larger", tenth_larger)):
    tallies[who] = [counted(acts, 10 + k) for k in range(10)]
    print(f"{who:11s} p =", " ".join(f"{x:.2g}" for x in sorted(x for _, x in tallies[who])))

# %%
figure, axes = pyplot.subplots(figsize=(4.6, 3.3))
figure_counts = sum(found for found, _ in tallies["the policy"]) / 200_000
band = 1.96 * (chances * (1 - chances) / 200_000).sqrt()
figure_order = chances.argsort()
axes.fill_between(chances[figure_order], (chances - band).clamp(min=1e-7)[figure_order],
                  (chances + band)[figure_order], color="gray", alpha=0.35, linewidth=0,
                  label="95 % of counts")  # fmt: skip
axes.scatter(chances, figure_counts, s=7, linewidth=0, label="a trajectory")
axes.set(xscale="log", yscale="log", ylim=(2e-6, 1), xlabel="probability, by the formula")
axes.set(ylabel="share of episodes", title=f"{len(p):,} trajectories of three steps")
axes.legend(loc="upper left", fontsize=8)
figure_inside = ((figure_counts - chances).abs() <= band)[chances >= 5 / 200_000]
show(figure, alt="Sampled against exact probability of each trajectory, on log axes: points "
     "on the diagonal, more tightly the likelier they are; of the common ones "
     f"{figure_inside.double().mean():.0%} in the 95 % band.")

# %% [markdown]
# **What you saw.** [C24] The ten p's are spread between 0 and 1 (the smallest of ten is below 0.01 in one such table out
# of ten); those of the other policy are so small that chance is no explanation. A policy, in a world, *is* a
# distribution over trajectories, to be seen from two sides: as something that is sampled, and as numbers. Learning will
# use the first, and be checked against the second.
#
# ## The objective
# The agent's objective is to find parameters $\theta$ that maximise the expected return,
#
# $$J(\theta) = \mathbb E_{\tau \sim p_\theta(\tau)} \Big[ \sum_{t=1}^{T} \gamma^{t-1} r(s_t, a_t) \Big]
#   = \sum_\tau p_\theta(\tau)\, r(\tau),$$
#
# with $\gamma = 1$ the lecture's; here `gamma`, 0.9. An expectation over 1,000 trajectories is a sum you can do. Usually it has to be estimated: run $N$ episodes and take
# the mean return. The mean of $N$ independent returns has variance $\sigma^2 / N$, so its **standard error** is
# $s / \sqrt N$, with $s$ the standard deviation of the sample. An estimate without it says nothing.

# %% ex="7.8" title="A mean and its error" points=1 minutes=5 difficulty="easy"
def mean_and_error(returns):
    """The mean of the returns, and its standard error, with N - 1 in the variance.

    returns (N,) float tensor -> two numbers.
    """
    # BEGIN SOLUTION
    return returns.mean(), returns.std() / len(returns) ** 0.5
    # END SOLUTION

# %% ex="7.8" role="check"
mean_and_error = check("7.8", mean_and_error)

# %% [markdown] ex="7.8" role="hints"
# <details><summary>Hint 1</summary>How much does one return vary, and how much less does the mean of N of them?</details>
# <details><summary>Hint 2</summary><code>returns.std()</code> already divides by N − 1.</details>

# %%
def interval(returns):
    """Mean return with its 95 % interval."""
    mean, error = map(float, mean_and_error(returns))
    return Estimate(mean, mean - 1.96 * error, mean + 1.96 * error, len(returns))


def sampled_returns(arrays, policy, episodes, horizon, seed):
    """Discounted returns of that many fresh episodes, (N,) float64."""
    fresh, _ = collect(arrays, policy, episodes, horizon=horizon, generator=seeded(seed))
    return torch.as_tensor(episode_returns(fresh.rewards, fresh.mask, arrays.gamma)).double()


# %% tags=["again"]
enumerated = chances @ torch.as_tensor(episode_returns(every.rewards, every.mask, tiny.gamma))
recursion = mdp.objective(tiny, pi_mixed, horizon=HORIZON)
estimate = interval(sampled_returns(tiny, mixed, 20_000, HORIZON, 30))
print(f"J, summed over {len(p):,} trajectories: {enumerated:+.6f}")
print(f"J, computed from the arrays:       {recursion:+.6f}")
print(f"J, mean of 20,000 episodes:        {estimate.mean:+.6f}, "
      f"95 % in [{estimate.low:+.4f}, {estimate.high:+.4f}]")  # fmt: skip

# %% [markdown]
# ## How good is an estimate?
# Back to the larger map and the uniform policy. Enumeration is out of the question there:

# %% tags=["again"]
ways = torch.ones(len(P)).double()
for _ in range(100):
    ways = torch.where(arrays.terminal, 1.0, (P > 0).double().sum(1) @ ways)
exact, cut_off = (float(mdp.objective(arrays, pi, horizon)) for horizon in (None, 100))
print(f"{start @ ways:.0e} trajectories within 100 steps")
print(f"J(uniform) = {exact:+.5f} exactly, {cut_off:+.5f} with a time limit of 100 steps")

# %% [markdown]
# (Computed from the arrays? The section after this one says how.) One interval cannot show whether intervals are right.
# So make many, each from episodes of its own, and count how many contain the exact $J$. It should be 95 in a hundred.

# %% ex="7.9" title="Do intervals keep their word?" points=2 minutes=10 difficulty="medium"
def intervals(returns, size, truth):
    """(low (K,), high (K,), share): the ends of K intervals of 95 %, and the share of them
    that contains the truth.

    returns (N,) float tensor; the first `size` of them make the first interval, mean ± 1.96
    standard errors, the next `size` the second, and so on; a rest that is too short is left
    out.
    """
    # BEGIN SOLUTION
    groups = returns[: len(returns) // size * size].view(-1, size)
    pairs = [mean_and_error(group) for group in groups]
    mean, error = torch.tensor(pairs, dtype=returns.dtype).T
    low, high = mean - 1.96 * error, mean + 1.96 * error
    inside = (low <= truth) & (truth <= high)
    return low, high, float(inside.double().mean())
    # END SOLUTION

# %% ex="7.9" role="check"
intervals = check("7.9", intervals)

# %% [markdown] ex="7.9" role="hints"
# <details><summary>Hint 1</summary>Cut off the rest, and <code>view(-1, size)</code> makes a row of each group. Then what
# 7.8 does, for every row.</details>
# <details><summary>Hint 2</summary>An interval contains the truth if it is above its lower end <i>and</i> below its upper
# end: <code>(low <= truth) & (truth <= high)</code>, and the mean of that.</details>

# %% tags=["again"]
SIZES = (10, 20, 40, 80, 160)
pool = torch.cat([sampled_returns(arrays, uniform, 16_000, 100, 40 + k) for k in range(4)])
spread, coverage, width = [], [], {}
for size in SIZES:
    low, high, share = intervals(pool[: 400 * size], size, cut_off)
    spread.append(float((low + high).std() / 2))  # how much the estimates really vary
    coverage.append(wilson(float(share), 400))
    width[size] = float((high - low).mean())
    print(f"N = {size:3d}: estimates vary by {spread[-1]:.4f}, sigma / sqrt(N) = "
          f"{pool.std() / size**0.5:.4f}; J inside {coverage[-1]}")  # fmt: skip
halved = f"4 times: {width[160] / width[40]:.2f} times as wide"
guesses.reveal("episodes_for_half_the_width", halved)

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
figure_law = [float(pool.std()) / size**0.5 for size in SIZES]
left.plot(SIZES, figure_law, color="gray", linestyle="--", label="σ / √N")
left.plot(SIZES, spread, "o", color=figures.COLORS[0], label="400 estimates each")
left.set(yscale="log", ylabel="standard deviation", title="The error of an estimate")
left.set_yticks((0.005, 0.01, 0.02, 0.04), ("0.005", "0.01", "0.02", "0.04"))
left.legend(fontsize=8)
figures.curve(right, SIZES, coverage, "95 % intervals", 1)
right.axhline(0.95, color="black", linestyle=":", linewidth=1)
right.set(ylim=(0.7, 1), ylabel="share that contains J", title="Do intervals keep their word?")
for axes in (left, right):
    axes.set(xscale="log", xlabel="episodes N")
    axes.set_xticks(SIZES, SIZES)
    axes.minorticks_off()
show(figure, alt="Left: the spread of the estimates falls along sigma / sqrt(N), from "
     f"{spread[0]:.3f} to {spread[-1]:.4f}. Right: the share of intervals that contain J, "
     f"{coverage[0].mean:.2f} at N = 10, {coverage[-1].mean:.2f} at N = 160; dotted: 0.95.")

# %% [markdown]
# **What you saw.** [C24] Computed and sampled agree, and the error falls with $1/\sqrt N$: **half the width costs four
# times the episodes**, one more digit a hundred times. And a warning that will return: with few episodes the intervals
# are too narrow, here up to forty. The factor 1.96 belongs to large samples; and most returns here are nearly 0 while a
# few are large, so a small sample often misses the large ones, and then believes that little varies.
#
# ## Values
# Why could $J$ be computed although so many trajectories cannot be summed? Because of Markov: what happens
# after $s_t$ does not depend on how the agent got there. So collect the trajectories by the state they pass. Let
# $V^\pi(s)$ be the expected return from $s$ on. Take the first step out of the sum,
#
# $$V^\pi(s) = \mathbb E\Big[\sum_{t=1}^{T} \gamma^{t-1} r(s_t, a_t) \,\Big|\, s_1 = s\Big]
#   = \sum_a \pi_\theta(a \mid s) \sum_{s'} p(s' \mid s, a)\, \big[\, r(s, a, s') + \gamma V^\pi(s') \,\big],$$
#
# where the rest of the sum, seen from $s'$, is $V^\pi(s')$ again. This **Bellman equation** has one line per state and
# is linear in $V$: with $r_\pi(s) = \sum_a \pi_\theta(a \mid s)\, r(s, a)$ and $P_\pi(s, s') = \sum_a \pi_\theta(a \mid
# s)\, p(s' \mid s, a)$ it reads $V = r_\pi + \gamma P_\pi V$. And $J(\theta) = \mathbb E_{s_1 \sim p(s_1)}
# [V^\pi(s_1)]$. Exponentially many trajectories, 22 unknowns.

# %% ex="7.10" title="Policy evaluation" points=2 minutes=12 difficulty="medium"
def policy_values(P, R, pi, gamma):
    """V(s) of a policy: the expected discounted return from each state on, gamma below 1.

    P (S, A, S), R (S, A, S), pi (S, A) float64 tensors, gamma a number -> (S,) tensor.
    """
    # BEGIN SOLUTION
    rewards = (pi * (P * R).sum(-1)).sum(1)
    transitions = (pi[:, :, None] * P).sum(1)
    return torch.linalg.solve(torch.eye(len(P), dtype=P.dtype) - gamma * transitions, rewards)
    # END SOLUTION

# %% ex="7.10" role="check"
policy_values = check("7.10", policy_values)

# %% [markdown] ex="7.10" role="hints"
# <details><summary>Hint 1</summary>Two ways. Solve (I − γ P_π) V = r_π. Or start from V = 0 and put it into the right side
# of the Bellman equation again and again: the error shrinks by γ each time.</details>
# <details><summary>Hint 2</summary><code>(P * R).sum(-1)</code> is r(s, a), shape (S, A);
# <code>(pi[:, :, None] * P).sum(1)</code> is P_π, shape (S, S); then <code>torch.linalg.solve</code>.</details>

# %% tags=["again"]
values = torch.as_tensor(policy_values(P, R, pi, args.gamma)).double()
assert torch.allclose(values, mdp.state_values(arrays, pi), atol=1e-4)  # the package's
hits = []
for state in going:  # start there, and see
    elsewhere = mdp.MDP(P, R, one_hot(torch.tensor(state), len(P)), args.gamma)
    begun = interval(sampled_returns(elsewhere, uniform, 4000, 200, 50 + state))
    hits.append(bool(begun.low <= values[state] <= begun.high))
print(f"V lies in the 95 % interval of 4,000 episodes in {sum(hits)} of {len(hits)} states")
dry = float(mdp.objective(GridWorld("default").to_mdp(args.gamma), pi))
print(f"J(uniform): {start @ values:+.6f} on this floor, {dry:+.6f} on a dry one")
guesses.reveal("slippery_minus_dry", round(exact - dry, 9))

# %% [markdown]
# **What you saw.** All cells are right at once: $V$ lies in all twenty intervals, where 95 % would allow one miss. And
# for the *uniform* policy the floor makes no difference at all: a random move that slips to a random side is a random
# move. Being slippery harms only an agent that knows what it wants.
#
# One more definition, for later. $Q^\pi(s, a)$ is the same expectation when the first action is $a$, whatever the
# policy would have done: the bracket, averaged over $s'$ and not yet over actions,
#
# $$Q^\pi(s, a) = \sum_{s'} p(s' \mid s, a)\, \big[\, r(s, a, s') + \gamma V^\pi(s') \,\big], \qquad
#   V^\pi(s) = \sum_a \pi_\theta(a \mid s)\, Q^\pi(s, a).$$

# %% tags=["again"]
q = mdp.action_values(arrays, values)
corner = world.cells.index((3, 4))
print(f"cell (3, 4), above the star and beside the pit: V = {values[corner]:+.3f}, and Q of")
print("  ".join(f"{word} {worth:+.3f}" for word, worth in zip(ACTIONS, q[corner])))

# %% [markdown]
# ## The best policy
# If $V(s')$ were known for the best policy, the best action would be the one with the largest bracket. So replace the
# average over actions by the maximum,
#
# $$V(s) \leftarrow \max_a \sum_{s'} p(s' \mid s, a)\, \big[\, r(s, a, s') + \gamma V(s') \,\big],$$
#
# and repeat until nothing changes. After each such sweep of **value iteration** the largest error $|V - V^*|$, against the
# best policy's $V^*$, is at most $\gamma$ times what it was.

# %% ex="7.11" title="A sweep of value iteration" points=1 minutes=8 difficulty="easy"
def sweep(P, R, gamma, values):
    """One sweep of value iteration, all states at once from the old values.

    P (S, A, S), R (S, A, S) tensors, gamma a number, values (S,) tensor, not to be changed
    -> (S,) tensor.
    """
    # BEGIN SOLUTION
    return (P * (R + gamma * values)).sum(-1).max(1).values
    # END SOLUTION

# %% ex="7.11" role="check"
sweep = check("7.11", sweep)

# %% [markdown] ex="7.11" role="hints"
# <details><summary>Hint 1</summary>The agent chooses the action, so maximise over a; the world chooses s', so average over
# s'. In which order?</details>
# <details><summary>Hint 2</summary><code>R + gamma * values</code> has shape (S, A, S): the last dimension is s'. Weigh
# with P, sum over it, and you have one number per action.</details>

# %% ex="7.12" title="Value iteration" points=2 minutes=12 difficulty="medium"
def value_iteration(P, R, gamma, tolerance=1e-12):
    """(V*, greedy): the values (S,), swept from 0 until none changes by more than the
    tolerance, and a policy (S, A).

    The policy takes, with probability 1, in each state the action of the largest bracket; of
    several the first.
    """
    # BEGIN SOLUTION
    values, change = torch.zeros(len(P), dtype=P.dtype), float("inf")
    while change > tolerance:
        new = sweep(P, R, gamma, values)
        change = float((new - values).abs().max())
        values = new
    brackets = (P * (R + gamma * values)).sum(-1)
    greedy = one_hot(brackets.argmax(1), P.shape[1]).to(P.dtype)
    return values, greedy
    # END SOLUTION

# %% ex="7.12" role="check"
value_iteration = check("7.12", value_iteration)

# %% [markdown] ex="7.12" role="hints"
# <details><summary>Hint 1</summary>Keep the old values until you have measured how far the new ones are from them.</details>
# <details><summary>Hint 2</summary>The bracket of each action is what <code>sweep</code> takes the maximum of:
# <code>argmax(1)</code> in its place, then <code>torch.nn.functional.one_hot</code>.</details>

# %% tags=["again"]
best, greedy = value_iteration(P, R, args.gamma)
assert torch.allclose(mdp.state_values(arrays, greedy), best)  # it is worth what was promised
print(f"J(best) = {start @ best:+.4f}, J(uniform) = {exact:+.4f}")

# %% [markdown]
# Is that really the best? On the small map there are only $4^4$ deterministic policies. Evaluate them all.

# %% ex="7.13" title="Every policy" points=2 minutes=10 difficulty="medium"
def every_objective(P, R, start, terminal, gamma):
    """J of every deterministic policy, a list of A^n numbers in any order, for n states that
    are not terminal; what is done in terminal states makes no difference. gamma is below 1.

    P, R (S, A, S), start (S,) float64 tensors, terminal (S,) bool.
    """
    # BEGIN SOLUTION
    acting = (~terminal).nonzero()[:, 0].tolist()
    found = []
    for choice in product(range(P.shape[1]), repeat=len(acting)):
        actions = torch.zeros(len(P), dtype=torch.long)
        actions[acting] = torch.tensor(choice)
        policy = one_hot(actions, P.shape[1]).to(P.dtype)
        found.append(float(start @ policy_values(P, R, policy, gamma)))
    return found
    # END SOLUTION

# %% ex="7.13" role="check"
every_objective = check("7.13", every_objective)

# %% [markdown] ex="7.13" role="hints"
# <details><summary>Hint 1</summary>A deterministic policy is one action for each state: <code>product(range(A),
# repeat=n)</code> from <code>itertools</code> goes through all choices. Make a table (S, A) of each, with a 1 per row, and
# let 7.10 evaluate it.</details>
# <details><summary>Hint 2</summary>J is the mean of V over first states, <code>start @ values</code>. In terminal states
# take action 0 whatever the choice.</details>

# %% tags=["again"]
tried = every_objective(tiny.P, tiny.R, tiny.start, tiny.terminal, tiny.gamma)
optimum = float(tiny.start @ value_iteration(tiny.P, tiny.R, tiny.gamma)[0])
assert abs(max(tried) - optimum) < 1e-6
print(f"J of {len(tried)} policies: {min(tried):+.4f} to {max(tried):+.4f}; "
      f"value iteration finds {optimum:+.4f}")  # fmt: skip

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
maps = {"Uniform policy": (values, pi), "Best policy": (best, greedy)}
for axes, (name, (worth_of, arrows)) in zip(panels, maps.items()):
    limits = float(worth_of[going].min()), float(worth_of[going].max())
    figures.value_map(axes, world, worth_of, arrows, limits=limits)
    axes.set_title(f"{name}: V, J = {float(start @ worth_of):+.2f}")
show(figure, alt="Two maps of V with arrows. Uniform: values between "
     f"{values.min():.2f} and {values.max():.2f}, lowest at the pit. Best: values rise along "
     f"the arrows, which lead to the star, from {best[going].min():.2f} to {best.max():.2f}.")

# %% [markdown]
# **What you saw.** Two policies, two landscapes (and two scales: look at the bars of colour). The uniform agent is
# worth least beside the pit. The values of the best policy rise towards the star, and its arrows go uphill; no rule
# sent it around the walls, that follows from $P$, $R$ and the maximum. In `G` and `X` the episode is over and nothing
# more is to come, so $V = 0$: the reward belongs to the step into them.
#
# Watch both. Episodes are cut off after 60 steps.

# %%
def paths(policy, seed):
    """States of three episodes, the last one included."""
    some, ends = collect(arrays, policy, 3, horizon=60, generator=seeded(seed))
    rows = zip(some.observations, some.mask, ends.tolist())
    return [[*seen[acted].tolist(), end] for seen, acted, end in rows]


def best_policy(observations):
    return greedy.log()[observations]  # log 0 = -inf: an action that is never taken


film = {"uniform policy": paths(uniform, 80), "best policy": paths(best_policy, 81)}
show(figures.animation(world, film), alt="Two agents on the map, step by step: the uniform "
     "policy wanders, the best policy walks towards the star.")

# %% [markdown]
# ## What patience does
# For several $\gamma$: $V^*$ at the start, and what becomes of the policy that is greedy about $V^*$, each action the
# first of those that look best. With a reward of 1 at one end alone, $J$ without discounting is the chance to get there.

# %% tags=["again"]
to_star = GridWorld("default", slip=args.slip, pit_reward=0.0).to_mdp()
to_pit = GridWorld("default", slip=args.slip, goal_reward=0.0, pit_reward=1.0).to_mdp()
patience = {gamma: value_iteration(P, R, gamma) for gamma in (0.5, 0.9, 0.99, 1.0)}
for gamma, (worth_then, greedy_then) in patience.items():
    star, pit = (mdp.objective(ends, greedy_then, horizon=100) for ends in (to_star, to_pit))
    print(f"gamma {gamma:4}: V* = {start @ worth_then:.4f}; "
          f"within 100 steps star {star:.1%}, pit {pit:.1%}")
patient = patience[1.0][0][going]
guesses.reveal("values_give_a_direction", bool(patient.max() - patient.min() > 1e-6))

# %%
figure, panels = pyplot.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
for axes, (gamma, pair) in zip(panels, patience.items()):
    figures.value_map(axes, world, *pair, numbers=False, limits=(0, 1))
    axes.set_title(f"γ = {gamma}")
show(figure, alt="Four maps of V* with greedy arrows. With small γ only the cells at the star "
     "are bright; with 0.99 the arrows beside the pit point away from it; with 1 all cells "
     "have the same colour, and some arrows point into the border.")

# %% [markdown]
# **What you saw.** Look at the cells beside the pit. An agent in a hurry passes it, though one time in ten it slips in.
# With $\gamma = 0.99$ it pushes *away* from the pit, against the border if need be, waits for a lucky slip, and takes
# no risk at all.
#
# But with $\gamma = 1$ and no cost per step, $V^*$ is 1 in *every* cell: whatever happens, there is always time to reach
# the star and always a way around the pit. So the values give no direction. In exact numbers every safe action looks
# best, and the first of them, up, would push against the border for ever: $V^*$ is right, and being greedy about it is
# not optimal. That the last line above still reaches the star is owed to the hair by which values swept from 0 stay
# below 1. Discounting (or a cost per step, `step_reward=-0.01`) makes the agent hurry. It is a decision about what you
# *want*, not a detail of the algorithm.

# %% [markdown]
# ## Why it is hard
# The lecture names three challenges: trials may be expensive, the reward signal sparse, and many samples needed. How
# many? A learner that starts from nothing is a random agent, and before its first reward it has nothing to learn from.
#
# Without a time limit, the expected number of steps until the star is one more linear system. Let $h(s)$ be that number
# from $s$ on: $h = 1 + P_\pi h$, the Bellman equation of a world that pays 1 in every step. In a corridor it has a
# closed form: a random agent needs $2L(L+1)$ steps to get $L$ cells along.

# %% ex="7.14" title="Steps until the end" points=1 minutes=8 difficulty="medium"
def expected_steps(P, pi, terminal):
    """h(s), the mean number of steps until the episode is over, from each state on; 0 where it
    is over already.

    P (S, A, S), pi (S, A) tensors, terminal (S,) bool -> (S,). The end is reached sooner or
    later from everywhere.
    """
    # BEGIN SOLUTION
    going = ~terminal
    transitions = (pi[:, :, None] * P).sum(1)[going][:, going]
    identity = torch.eye(len(transitions), dtype=P.dtype)
    steps = torch.zeros(len(P), dtype=P.dtype)
    steps[going] = torch.linalg.solve(identity - transitions, identity.sum(1))
    return steps
    # END SOLUTION

# %% ex="7.14" role="check"
expected_steps = check("7.14", expected_steps)

# %% [markdown] ex="7.14" role="hints"
# <details><summary>Hint 1</summary>Policy evaluation with a reward of 1 in every step and γ = 1, in which the states where
# the episode is over have the value 0.</details>
# <details><summary>Hint 2</summary>With all states in it, I − P_π cannot be inverted: keep the rows and columns of those
# that are not terminal, <code>P_pi[going][:, going]</code>.</details>

# %% [markdown]
# With a limit of $H$ steps, an episode finds the star with probability $\rho = J$ (reward 1, $\gamma = 1$, horizon $H$),
# so the first success comes after $1/\rho$ episodes on average.

# %% tags=["again"]
def random_walk(rows):
    """A dry world as arrays, and the uniform policy in it."""
    dry_world = GridWorld(rows).to_mdp()
    return dry_world, torch.full((dry_world.states, 4), 0.25).double()


for length in (4, 8, 16):
    corridor, even = random_walk(["S" + "." * (length - 1) + "G"])
    needed = corridor.start @ expected_steps(corridor.P, even, corridor.terminal)
    print(f"{length:2d} cells: {needed:.1f} steps; 2 L (L + 1) = {2 * length * (length + 1)}")

# %%
LIMIT, SIDES = 100, [n for n in (2, 3, 4, 6, 8, 12, 16, 24) if n <= args.side]


def empty_map(n):
    """A square of n by n cells, the start in one corner and the star in the opposite one."""
    return ["S" + "." * (n - 1), *["." * n] * (n - 2), "." * (n - 1) + "G"]


def waiting_times(arrays, policy, episodes):
    """Episodes up to and including each success, one after the other."""
    options, parts = {"horizon": LIMIT, "generator": seeded(90)}, 1 + int(episodes) // 5000
    won = [collect(arrays, policy, 5000, **options)[0].terminated for _ in range(parts)]
    return torch.cat(won).nonzero()[:, 0].diff(prepend=torch.tensor([-1])).double()


# %% tags=["again"]
foretold, measured = {}, {}  # {side: (steps, episodes)}
for n in progress(SIDES, "random walks"):
    walk, even = random_walk(empty_map(n))
    alone = walk.start @ expected_steps(walk.P, even, walk.terminal)
    foretold[n] = float(alone), 1 / float(mdp.objective(walk, even, horizon=LIMIT))
    agent = TabularPolicy(walk.states, 4)
    unlimited, _ = collect(walk, agent, 400, horizon=1_000_000, generator=seeded(91))
    waits = waiting_times(walk, agent, 200 * foretold[n][1])
    measured[n] = interval(unlimited.mask.sum(1).double()), interval(waits)
    pairs = [f"{a:7.1f}, measured {b.mean:7.1f}" for a, b in zip(foretold[n], measured[n])]
    print(f"{n:2d} x {n:2d}: steps {pairs[0]}; episodes {pairs[1]}")

# %%
figure, panels = pyplot.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
figure_units = ("steps, no time limit", f"episodes of {LIMIT} steps")
for axes, k, unit in zip(panels, (0, 1), figure_units):
    axes.plot(SIDES, [foretold[n][k] for n in SIDES], color="gray", label="exact")
    figure_marks = [measured[n][k] for n in SIDES]
    whiskers = [e.high - e.mean for e in figure_marks]
    axes.errorbar(SIDES, [e.mean for e in figure_marks], whiskers, fmt="o", capsize=3,
                  color=figures.COLORS[0], markersize=4, label="measured, 95 % interval")
    axes.set(xscale="log", yscale="log", xlabel="side of the map, cells", ylabel=unit)
    axes.set_title("Until the first reward")
    axes.set_xticks(SIDES, SIDES)
    axes.minorticks_off()
panels[0].legend(fontsize=8)
(first, rare), (last, rarest) = foretold[SIDES[0]], foretold[SIDES[-1]]
show(figure, alt="Left: expected steps until the star against the side of the map, from "
     f"{first:.0f} to {last:,.0f}, nearly straight on log axes. Right: episodes until the "
     f"first reward, from {rare:.0f} to {rarest:.0f}, bending upwards. Measured points lie on "
     "the lines.")

# %% tags=["again"]
for n in SIDES:
    if 2 * n in foretold:
        times = [there / here for there, here in zip(foretold[2 * n], foretold[n])]
        print(f"{n:2d} to {2 * n:2d}: steps x {times[0]:.1f}, episodes x {times[1]:.1f}")
guesses.reveal("times_as_many_steps", times[0])
guesses.reveal("times_as_many_episodes", times[1])
per_success = foretold[SIDES[-1]][1]
print(f"largest map: {LIMIT * per_success:,.0f} steps for one success; "
      f"100 episodes see none with probability {(1 - 1 / per_success) ** 100:.0%}")

# %% [markdown]
# **What you saw.** [C25] Without a limit, doubling the side costs five to seven times the steps, the larger the map the
# nearer to the area's four. With a limit the episodes grow far faster, for most are cut off before they could have
# arrived. Remember the intervals that were too narrow? Here is the extreme: a hundred episodes usually see nothing, the
# estimate is 0, and so is its standard error. A robot that needs a minute for a hundred steps would need ten hours for
# its first success by chance.
#
# ## Does a denser reward help?
# Learning means telling a better policy from a worse one. So take two: the uniform one, and one that prefers right and
# down a little (27.5 % each instead of 25 %). Draw $N$ episodes from each and say which is better. Then judge *the same
# episodes* by a dense reward: **progress**, the number of cells by which a step came closer to the star. Its sum
# telescopes to $d(s_1) - d(s_{T+1})$, $d$ the distance to the star.

# %%
field = GridWorld(empty_map(args.side))
open_field, leaning = field.to_mdp(), TabularPolicy(len(field.cells), 4)
leaning.logits.data[:, [ACTIONS.index("right"), ACTIONS.index("down")]] = 0.2
distance = torch.tensor([2.0 * (args.side - 1) - row - column for row, column in field.cells])
NUMBERS, TRIALS = (1, 2, 4, 8, 16, 32, 64, 128), 200
judged = {"sparse: 1 at the star": [], "dense: progress": []}
for seed, policy in enumerate((TabularPolicy(len(field.cells), 4), leaning)):
    drawn, ends = collect(open_field, policy, TRIALS * NUMBERS[-1], horizon=LIMIT,
                          generator=seeded(92 + seed))  # fmt: skip
    come_closer = distance[drawn.observations[:, 0]] - distance[ends]
    for found, totals in zip(judged.values(), (drawn.rewards.sum(1), come_closer)):
        found.append(totals.view(TRIALS, -1).double())

# %% tags=["again"]
right_answers = {}
coin = torch.rand(TRIALS, generator=seeded(94)) < 0.5  # decides when the two look alike
for kind, (worse, better) in judged.items():
    leads = [(better[:, :count] - worse[:, :count]).mean(1) for count in NUMBERS]
    right_answers[kind] = [accuracy(torch.where(lead == 0, coin, lead > 0)) for lead in leads]
    shares = [f"N={count}: {e.mean:.2f}" for count, e in zip(NUMBERS, right_answers[kind])]
    # normal approximation: right in 95 % when the difference is 1.645 of its standard errors
    noise, gap = worse.var() + better.var(), better.mean() - worse.mean()
    print(f"{kind:22s}", "  ".join(shares[1::2]), f"  95 %: N={1.645**2 * noise / gap**2:.0f}")

# %%
figure, axes = pyplot.subplots(figsize=(5, 3.1))
for index, (kind, line) in enumerate(right_answers.items()):
    figures.curve(axes, NUMBERS, line, kind, index)
axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
axes.set(xscale="log", ylim=(0.4, 1.02), xlabel="episodes of each policy")
axes.set(ylabel="share of right answers", title="Which of two policies is better?")
axes.set_xticks(NUMBERS, NUMBERS)
axes.minorticks_off()
axes.legend(loc="lower right", fontsize=8)
sparse_line, dense_line = right_answers.values()
show(figure, alt="Share of right answers against the number of episodes. Dense: "
     f"{dense_line[2].mean:.2f} with 4; sparse: {sparse_line[2].mean:.2f} with 4 and "
     f"{sparse_line[-1].mean:.2f} with 128. Dotted: guessing.")  # fmt: skip

# %% [markdown]
# **What you saw.** [C25] The same policies, the same episodes; with the sparse reward it takes many times the trials to
# see which is better. On small maps the difference vanishes (try `side=4`): where the star is easily found, a sparse
# reward is not sparse.
#
# ## The wrong dense reward
# So why not always pay for being on the way? Two ways to do it: pay for **progress** $\gamma\Phi(s') - \Phi(s)$, with
# $\Phi = -d$, or pay for **being close**, $1 - d(s)/d_{\max}$ for the cell that is entered. Both come on top of the
# star's 1. What is the best policy then, on 8 by 8 cells? Write the first.

# %% ex="7.15" title="Paying for progress" points=1 minutes=7 difficulty="easy"
def with_progress(R, terminal, potential, gamma):
    """The rewards with gamma Phi(s') - Phi(s) added, 0 where the episode is over already.

    R (S, A, S), terminal (S,) bool, potential (S,) tensors, gamma a number -> (S, A, S).
    """
    # BEGIN SOLUTION
    gained = gamma * potential[None, :] - potential[:, None]  # (s, s')
    return torch.where(terminal[:, None, None], 0.0, R + gained[:, None, :])
    # END SOLUTION

# %% ex="7.15" role="check"
with_progress = check("7.15", with_progress)

# %% [markdown] ex="7.15" role="hints"
# <details><summary>Hint 1</summary>What is added depends on s and s', not on a: a table (S, S) first, the row for s.
# </details>
# <details><summary>Hint 2</summary><code>gained[:, None, :]</code> fits R, (S, A, S). The states that are over are rows:
# <code>terminal[:, None, None]</code>.</details>

# %% tags=["again"]
meadow, bend = GridWorld(empty_map(8)), 0.99
lawn = meadow.to_mdp(bend)
away = torch.tensor([14.0 - row - column for row, column in meadow.cells]).double()
close = torch.where(lawn.terminal[:, None, None], 0.0, lawn.R + 1 - away / away.max())
paying = {"star alone": lawn.R, "star + being close": close,
          "star + progress": with_progress(lawn.R, lawn.terminal, -away, bend)}  # fmt: skip
shaped = {kind: value_iteration(lawn.P, table, bend) for kind, table in paying.items()}
for kind, (worth_there, greedy_there) in shaped.items():
    arrives = mdp.objective(meadow.to_mdp(), greedy_there, horizon=1000)
    print(f"{kind:19s} V* at the start {lawn.start @ worth_there:5.2f}, "
          f"reaches the star: {arrives:.0%}")
assert torch.allclose(shaped["star + progress"][0], shaped["star alone"][0] + away, atol=1e-6)
guesses.reveal("best_policy_when_close_is_paid", "walks up to the star and never enters")

# %% [markdown]
# **What you saw.** Paid for being close, the best policy walks up to the star and *never enters*: entering would end its
# income. It does what was paid for, not what was meant. You will meet this as reward hacking, with language models, in
# lesson 13. Progress is safe, and there is a theorem: with rewards $\gamma\Phi(s') - \Phi(s)$ added, all returns from
# $s$ change by the same constant $-\Phi(s)$ (the sum telescopes; the star must have $\Phi = 0$), so the best policies
# stay the best (Ng et al., 1999). The cell asserts exactly that, $V^*_\text{new} = V^* - \Phi$.
#
# [Explore it](../docs/interactive/grid_world.html): move walls, change slip and γ, and watch $V$, $V^*$ and the policy
# follow.
#
# ## Recap
# - A world is $p(s' \mid s, a)$, rewards and a start; a policy makes it a distribution over trajectories,
#   $p_\theta(\tau) = p(s_1) \prod_t \pi_\theta(a_t \mid s_t)\, p(s_{t+1} \mid s_t, a_t)$.
# - The objective $J(\theta)$ is the expected return. In a small world it can be summed, solved or sampled: the three
#   agree. This exact answer is what lessons 08 to 11 hold every estimator against.
# - Estimates from episodes have an error that falls with $1/\sqrt N$, and one that misleads when rewards are rare.
# - Values satisfy one linear equation per state. With a maximum in place of the average they lead to the best policy,
#   if something makes the agent hurry.
# - The first reward by chance may be hundreds of episodes away. Denser rewards tell two policies apart sooner, and may
#   change which is best unless they are differences of a potential.
#
# What is missing: $P$ is not known outside of toy worlds, and tables do not fit. The next lesson improves a policy from
# sampled trajectories alone.
#
# ## Try next
# - `slip=(0.05, …` and `slip=(0.6, …` in `arguments`: what happens to $J$ of the best policy, and where do its arrows turn?
# - `GridWorld("cliff", step_reward=-1.0, pit_reward=-100.0, slip=...)`: from which slip on does the best policy keep away
#   from the edge?
# - Show that discounting is dying: let every move end the episode with probability $1 - \gamma$, and compare $J$ without
#   discounting.
# - Put a wall between start and star. Is progress as the crow flies still a good dense reward? Is it still safe?
#
# ## References
# - Sutton and Barto (2018), *Reinforcement Learning: An Introduction*, chapters 3 and 4.
# - Bellman (1957), *Dynamic Programming*.
# - Towers et al. (2024), *Gymnasium: A Standard Interface for Reinforcement Learning Environments*.
# - Ng, Harada and Russell (1999), *Policy Invariance Under Reward Transformations: Theory and Application to Reward
#   Shaping*.
