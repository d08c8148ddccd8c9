"""Lesson 08: log p(tau), the score, the proof, a sampler, REINFORCE's weights, loss and loop, z-scores, six bugs.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` and in the lab alone.
"""

import math
import statistics

import torch

from ptlearn.course.cases import log_softmax, masks, softmax
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.course.lab import lab_of_runs
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.grid.mdp import MDP, objective, probabilities
from ptlearn.policy_gradient import episode_returns, policy_gradient_loss, total_return
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rollout import Rollout, action_logprobs


def table(rng, *shape, low=-1.5, high=1.5):
    """Nested lists of numbers, none close to 0 when low and high have different signs."""
    if len(shape) > 1:
        return [table(rng, *shape[1:], low=low, high=high) for _ in range(shape[0])]
    return [round(rng.uniform(low, high), 4) + 0.00005 for _ in range(shape[0])]


# 8.1 The probability of a trajectory --------------------------------------------------------------------------------


def log_probability(logits, actions, mask):
    """The package's answer: log pi of the taken actions, summed over the steps that were acted."""
    logprobs = logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return logprobs.where(mask, logprobs.new_zeros(())).sum(1)


def probability_cases(rng):
    """Two sizes, and logits whose exponentials are too large for a float."""
    cases = []
    for batch, steps, actions, lengths, around in ((3, 4, 5, [4, 2, 3], 0), (2, 5, 3, [1, 5], 0), (1, 2, 2, [2], 900)):
        taken = [[rng.randrange(actions) for _ in range(steps)] for _ in range(batch)]
        logits = table(rng, batch, steps, actions, low=around - 1.5, high=around + 1.5)
        cases.append({"logits": logits, "actions": taken, "mask": masks(lengths, steps)})
    return cases


def expect_probability(case):
    logits, actions, mask = case["logits"], case["actions"], case["mask"]
    episodes, steps = range(len(mask)), range(len(mask[0]))

    def total(value, counts=lambda b, t: mask[b][t]):
        """For each episode the sum of value(b, t) over the steps that count."""
        return [sum(value(b, t) for t in steps if counts(b, t)) for b in episodes]

    def logp(b, t):
        return log_softmax(logits[b][t])[actions[b][t]]

    def over_time(b, t):
        return log_softmax([logits[b][other][actions[b][t]] for other in steps])[t]

    def over_batch(b, t):
        return log_softmax([logits[other][t][actions[b][t]] for other in episodes])[b]

    expected = total(logp)
    mistakes = {
        "softmax runs over the time steps: at each step the probabilities of the actions sum to 1": total(over_time),
        "softmax runs over the episodes: at each step the probabilities of the actions sum to 1": total(over_batch),
        "a mean over all T steps, padding included: the logarithm of a product is a sum, where mask is True": [
            x / len(steps) for x in total(logp, lambda b, t: True)
        ],
        "the most likely action is scored: score the one that was taken": total(
            lambda b, t: max(log_softmax(logits[b][t]))
        ),
        "one number per step: add them up over time": [
            [logp(b, t) if mask[b][t] else 0.0 for t in steps] for b in episodes
        ],
        "one number for the whole batch: each episode has its own": sum(expected),
        "the mean over the batch: each episode has a number of its own": sum(expected) / len(expected),
    }
    return expected, mistakes


# 8.2 The score of a softmax policy ----------------------------------------------------------------------------------


def score(pi, states, actions):
    """The package's answer: the sum over steps of one-hot(a_t) - pi(. | s_t), in the row of s_t."""
    states, actions = torch.as_tensor(states), torch.as_tensor(actions)
    result = torch.zeros_like(pi).index_put((states, actions), torch.ones_like(pi[0, 0]), accumulate=True)
    return result - result.sum(1, keepdim=True) * pi


def score_cases(rng):
    """Two paths: a pair (s, a) twice, a state with two different actions, and one state never."""
    cases = []
    for count, actions in ((4, 3), (5, 4)):
        pi = [softmax(row) for row in table(rng, count, actions)]
        first, second, third, *_ = rng.sample(range(count), count)
        a, b, c = rng.sample(range(actions), 3)
        path = [(first, a), (second, b), (first, a), (first, c), (third, rng.randrange(actions)), (second, c)]
        states, taken = zip(*path)
        cases.append({"pi": pi, "states": list(states), "actions": list(taken)})
    return cases


def expect_score(case):
    pi, path = case["pi"], list(zip(case["states"], case["actions"]))
    rows, columns = range(len(pi)), range(len(pi[0]))

    def summed(term, steps=path):
        """sum over steps of term(b, s, a) in the row of s."""
        return [[sum(term(b, s, a) for s, a in steps if s == row) for b in columns] for row in rows]

    def residual(b, s, a):
        return (a == b) - pi[s][b]

    def less_pi(counts, visited):
        return [[counts[s][b] - visited(s) * pi[s][b] for b in columns] for s in rows]

    expected = summed(residual)
    counts = summed(lambda b, s, a: float(a == b))
    pairs_once = [[float((s, b) in path) for b in columns] for s in rows]
    visits = [sum(state == row for state, _ in path) for row in rows]
    once = "a step that repeats is counted once: with repeated indices, `x[i] += 1` adds only once, so add step by step"
    mistakes = {
        "pi is not subtracted: pushing one action up pulls the others of that state down, one-hot minus pi": counts,
        "this is the derivative by the probabilities, 1/pi: the parameters are logits": summed(
            lambda b, s, a: (a == b) / pi[s][b]
        ),
        "pi is subtracted from the taken action only: the softmax takes from all actions of the state": summed(
            lambda b, s, a: (a == b) * (1 - pi[s][b])
        ),
        "this is the gradient of pi: that of log pi has no factor pi(a|s) in front": summed(
            lambda b, s, a: pi[s][a] * residual(b, s, a)
        ),
        "only the last step counts: add up all steps of the trajectory": summed(residual, path[-1:]),
        "pi is subtracted in every state, visited or not: only the row of s_t changes at step t": less_pi(
            counts, lambda s: len(path)
        ),
    }
    mistakes[once] = Alternatives(
        less_pi(pairs_once, lambda s: min(visits[s], 1)),
        less_pi(pairs_once, lambda s: visits[s]),
        less_pi(counts, lambda s: min(visits[s], 1)),
        less_pi(pairs_once, lambda s: sum(pairs_once[s])),
    )
    return expected, mistakes


# 8.3 The proof, line by line ----------------------------------------------------------------------------------------


def proof(pi, nature, states, actions):
    """The package's answer: p(tau), its gradient by the product rule, that of its logarithm, and the score."""
    chosen = pi[states, actions]
    changes = torch.zeros(len(states), *pi.shape, dtype=pi.dtype)  # of each factor, by the logits
    for t, (state, action) in enumerate(zip(states, actions)):
        changes[t, state] = -pi[state, action] * pi[state]
        changes[t, state, action] += pi[state, action]
    p = nature * chosen.prod()
    grad_p = (p / chosen)[:, None, None] * changes
    return {"p": p, "grad_p": grad_p.sum(0), "grad_log_p": grad_p.sum(0) / p, "score": score(pi, states, actions)}


def proof_cases(rng):
    """The paths of the score's cases, and what the world answered, a probability."""
    return [case | {"nature": round(rng.uniform(0.1, 0.6), 4)} for case in score_cases(rng)]


def expect_proof(case):
    pi, nature, path = case["pi"], case["nature"], list(zip(case["states"], case["actions"]))
    rows, columns = range(len(pi)), range(len(pi[0]))
    chosen = math.prod(pi[s][a] for s, a in path)

    def summed(term, steps=path):
        """sum over steps of term(b, s, a) in the row of s."""
        return [[sum(term(b, s, a) for s, a in steps if s == row) for b in columns] for row in rows]

    def residual(b, s, a):
        return (a == b) - pi[s][b]

    def scaled(factor, table):
        return [[factor * x for x in row] for row in table]

    p, by_logits = nature * chosen, summed(residual)
    expected = {"p": p, "grad_p": scaled(p, by_logits), "grad_log_p": by_logits, "score": by_logits}
    mistakes = {
        ("p", "what the world answered is missing: p(tau) is nature times the product of pi(a_t | s_t)"): chosen,
        ("p", "pi is added: a probability of all steps is a product"): nature * sum(pi[s][a] for s, a in path),
        ("p", "nature is counted at every step: it is the product of all that the world answered, once"):
            nature ** len(path) * chosen,
        ("p", "this is log p(tau)"): math.log(p),
        ("grad_p", "what the world answered is missing: it is a constant factor, and stays"):
            scaled(chosen, by_logits),
        ("grad_p", "the other factors are missing: the product rule keeps them at every step"):
            summed(lambda b, s, a: pi[s][a] * residual(b, s, a)),
        ("grad_p", "the other factors of a step are missing, all but nature: the product rule keeps them"):
            scaled(nature, summed(lambda b, s, a: pi[s][a] * residual(b, s, a))),
        ("grad_p", "the step's own factor is counted twice: it changes, and the *others* stay as they are"):
            scaled(p, summed(lambda b, s, a: pi[s][a] * residual(b, s, a))),
        ("grad_p", "this is the derivative by the probabilities: the parameters are logits, and pi(a|s) changes by "
         "pi(a|s) (one-hot - pi)"): scaled(p, summed(lambda b, s, a: (a == b) / pi[s][b])),
        ("grad_p", "only the taken action's logit has a gradient: the softmax takes from all actions of the state"):
            scaled(p, summed(lambda b, s, a: (a == b) * (1 - pi[s][b]))),
        ("grad_p", "pi is not subtracted: pi(a|s) changes by pi(a|s) (one-hot - pi)"):
            scaled(p, summed(lambda b, s, a: float(a == b))),
        ("grad_p", "one step alone: the product rule sums over all factors"): Alternatives(
            scaled(p, summed(residual, path[-1:])), scaled(p, summed(residual, path[:1]))),
        ("grad_p", "this is the gradient of log p: p is missing"): by_logits,
        ("grad_log_p", "this is the gradient of p: that of log p is divided by p"): scaled(p, by_logits),
        ("grad_log_p", "divided by the policy's part alone: nature is a factor of p too, and cancels"):
            scaled(nature, by_logits),
        ("grad_log_p", "multiplied by p instead of divided"): scaled(p * p, by_logits),
        ("grad_log_p", "divided by log p: the derivative of a logarithm is 1/p"): scaled(p / math.log(p), by_logits),
        ("score", "nature does not appear: log nature is a constant"): scaled(nature, by_logits),
        ("score", "no p in front: the score is the sum of one-hot - pi"): scaled(p, by_logits),
    }  # fmt: skip
    return expected, mistakes


# 8.4 A batch of episodes --------------------------------------------------------------------------------------------


def play(world, pi, episodes, horizon, generator):
    """The package's answer: all episodes step at the same time; a state where nothing goes on is not acted in."""

    def draw(chances):
        return torch.multinomial(chances, 1, generator=generator)[:, 0]

    state, columns = draw(world.start.expand(episodes, -1)), []
    for _ in range(horizon):
        action = draw(pi[state])
        after = draw(world.P[state, action])
        columns.append((state, action, world.R[state, action, after], ~world.terminal[state]))
        state = after
    return tuple(torch.stack(column, 1) for column in zip(*columns))


NOTHING_PLAYED = dict.fromkeys(("steps", "starts", "actions", "moves", "paid"))  # of the other kind of case


def play_cases(rng):
    """A walk without chance, that ends before the horizon or not; and chances of all kinds, to be counted."""
    pays = table(rng, 2, low=0.2, high=2.0)
    share = {name: round(rng.uniform(0.15, 0.35), 3) for name in ("start", "slip", "left")}
    walks = [{"kind": "walk", "pays": pays, "horizon": horizon} for horizon in (4, 2)]
    return [*walks, {"kind": "chance", "pays": table(rng, 8)} | share]


def walk_of(case):
    """Cells 0, 1, 2 and 3, the end; action 1 goes on, action 0 goes back; entering 2 and 3 pays."""
    P, R = torch.zeros(4, 2, 4), torch.zeros(4, 2, 4)
    for cell in range(4):
        end = cell == 3
        P[cell, 1, cell if end else cell + 1] = P[cell, 0, cell if end else max(cell - 1, 0)] = 1
    R[1, 1, 2], R[2, 1, 3] = case["pays"]
    return MDP(P, R, [1, 0, 0, 0])


def chance_of(case):
    """Two first states, two actions of which either may slip, and an end two steps away; each way pays another sum."""
    slip, P, R = case["slip"], torch.zeros(5, 2, 5), torch.zeros(5, 2, 5)
    P[:2, 0, 2], P[:2, 0, 3], P[:2, 1, 2], P[:2, 1, 3] = 1 - slip, slip, slip, 1 - slip
    P[2:, :, 4] = 1
    R[:2, :, 2:4] = torch.tensor(case["pays"]).view(2, 2, 2)
    return MDP(P, R, [case["start"], 1 - case["start"], 0, 0, 0])


def drive_play(answer, case):
    """What was played: for a walk the steps [s, a, r] of each episode; for chances whether the shares are right."""
    generator = torch.Generator().manual_seed(1)
    if case["kind"] == "walk":
        pi = torch.tensor([[0.0, 1.0]] * 4, dtype=torch.float64)
        states, actions, rewards, mask = answer(walk_of(case), pi, 3, case["horizon"], generator)
        if mask.shape == (case["horizon"], 3):
            return NOTHING_PLAYED | {"steps": "a row for each step"}
        steps = torch.stack([states.double(), actions.double(), rewards.double()], -1)
        return NOTHING_PLAYED | {"steps": [row[acted].tolist() for row, acted in zip(steps, mask)]}
    pi = torch.tensor([[case["left"], 1 - case["left"]]] * 5, dtype=torch.float64)
    world = chance_of(case)
    states, actions, rewards, _ = answer(world, pi, 2000, 2, generator)
    first, left = states[:, 0], actions[:, 0] == 0
    shares = {"starts": (first == 0, case["start"]), "actions": (left, case["left"]),
              "moves": ((states[:, 1] == 3) == left, case["slip"])}  # fmt: skip
    right = {name: abs(float(found.double().mean()) - share) < 0.05 for name, (found, share) in shares.items()}
    earned = world.R[first, actions[:, 0], states[:, 1]]
    paid = bool(torch.isclose(rewards[:, 0].double(), earned, atol=1e-5).all())
    return NOTHING_PLAYED | right | {"paid": paid}


def expect_play(case):
    if case["kind"] == "chance":
        wrong = {
            ("starts", "the first states do not come from world.start"): False,
            ("actions", "the actions do not come from pi: sample them, in each episode anew; the best one is not asked "
             "for"): False,
            ("paid", "the reward is not that of the way that was taken: world.R[s, a, s'], with the state that is "
             "entered"): False,
            ("moves", "the next states do not come from world.P[s, a]: the world chooses, in each episode anew"): False,
        }  # fmt: skip
        return NOTHING_PLAYED | dict.fromkeys(("starts", "actions", "moves", "paid"), True), wrong
    horizon = case["horizon"]
    path = [[0, 1, 0.0], [1, 1, case["pays"][0]], [2, 1, case["pays"][1]], [3, 1, 0.0], [3, 1, 0.0]]
    stayed, ended = [3 * [path[:steps]] for steps in (min(horizon, 3), min(horizon, 2))]
    late = [path[0], [1, 1, 0.0], [2, 1, case["pays"][0]]][: min(horizon, 3)]
    unpaid = [[s, a, 0.0] for s, a, _ in path[: min(horizon, 3)]]
    moved = [[s + 1, a, r] for s, a, r in path[: min(horizon, 3)]]
    mistakes = {
        "the axes are exchanged: (B, T), a row for each episode": "a row for each step",
        "the episode goes on after its end: mask is False where world.terminal[s_t]": 3 * [path[:horizon]],
        "the step that ends the episode is lost: mask asks whether s_t is terminal, before the move": ended,
        "one step too many: at most `horizon` steps": 3 * [path[: min(horizon + 1, 3)]],
        "one step too few: `horizon` steps, unless the episode ends": 3 * [path[: min(horizon - 1, 3)]],
        "nothing is earned: the reward is world.R[s, a, s'], with the state that is entered": 3 * [unpaid],
        "the rewards come a step late: r_t is paid on the way from s_t to s_{t+1}": 3 * [late],
        "the state after the move is recorded: s_t is where the action was chosen": 3 * [moved],
    }
    return NOTHING_PLAYED | {"steps": stayed}, {("steps", words): value for words, value in mistakes.items()}


# 8.5 The weights of REINFORCE ---------------------------------------------------------------------------------------


def weights_cases(rng):
    """Rewards on padding are not 0, so that counting them shows; the first case has no discount."""
    cases = []
    for gamma, steps, lengths in ((1.0, 4, [4, 2, 3]), (0.5, 5, [2, 5])):
        rewards = table(rng, len(lengths), steps, low=0.2, high=2.0)
        cases.append({"rewards": rewards, "mask": masks(lengths, steps), "gamma": gamma})
    return cases


def expect_weights(case):
    rewards, mask, gamma = case["rewards"], case["mask"], case["gamma"]
    steps, lengths = range(len(mask[0])), [sum(row) for row in case["mask"]]

    def spread(value):
        """value(row of rewards, t, its length) on every acted step, 0 on padding."""
        return [[value(row, t, n) if t < n else 0.0 for t in steps] for row, n in zip(rewards, lengths)]

    def discounted(row, n, start=0, power=0):
        return sum(gamma ** (t - start + power) * row[t] for t in range(start, n))

    expected = spread(lambda row, t, n: discounted(row, n))
    returns = [discounted(row, n) for row, n in zip(rewards, lengths)]
    mistakes = {
        "this is the reward-to-go: a better weight, but of lesson 09; here every step gets r(tau) whole": spread(
            lambda row, t, n: discounted(row, n, start=t)
        ),
        "each step gets its own reward alone: a step that leads to the star three steps later earns nothing": spread(
            lambda row, t, n: row[t]
        ),
        "each step gets its own discounted reward alone: every step gets the return of the whole episode": spread(
            lambda row, t, n: gamma**t * row[t]
        ),
        "the rewards up to t: every step gets the return of the whole episode": spread(
            lambda row, t, n: discounted(row, t + 1)
        ),
        "only the last reward counts: the return is the sum over all steps": spread(lambda row, t, n: row[n - 1]),
        "only the last step gets the return: all actions of the episode share it": spread(
            lambda row, t, n: discounted(row, n) if t == n - 1 else 0.0
        ),
        "rewards on padding are counted: nothing is earned after the end": spread(
            lambda row, t, n: discounted(row, len(row))
        ),
        "weights on padding are not 0: nobody acted there": [[x for _ in steps] for x in returns],
        "every episode gets the mean return of the batch: each is weighted by its own": spread(
            lambda row, t, n: statistics.mean(returns)
        ),
        "one number per episode: repeat it on each of its steps, 0 on padding": returns,
        "one number per episode, in a column: repeat it on each of its steps, 0 on padding": [[x] for x in returns],
    }
    return expected, mistakes


# 8.6 The loss -------------------------------------------------------------------------------------------------------


def loss_cases(rng):
    """Log-probabilities and weights on padding are not 0, so that counting them shows."""
    return [
        {
            "logprobs": table(rng, len(lengths), steps, low=-2.0, high=-0.2),
            "weights": table(rng, len(lengths), steps, low=-2.0, high=2.0),
            "mask": masks(lengths, steps),
        }
        for steps, lengths in ((5, [5, 2, 4]), (3, [1, 3]))
    ]


def expect_loss(case):
    logprobs, weights, mask = case["logprobs"], case["weights"], case["mask"]
    episodes, steps, lengths = len(mask), len(mask[0]), list(map(sum, mask))

    def outcome(factor):
        """-sum factor(b, t) * weight * logprob."""
        return -sum(factor(b, t) * weights[b][t] * logprobs[b][t] for t in range(steps) for b in range(episodes))

    expected = outcome(lambda b, t: mask[b][t] / episodes)
    mistakes = {
        "the sign is turned: losses are minimised, so this would make good episodes less likely": outcome(
            lambda b, t: -mask[b][t] / episodes
        ),
        "divided by the number of steps: 1/N is over episodes, or long ones count less": outcome(
            lambda b, t: mask[b][t] / sum(lengths)
        ),
        "each episode is divided by its own length: the gradient of log p(tau) is a sum over steps": outcome(
            lambda b, t: mask[b][t] / (episodes * lengths[b])
        ),
    }
    return expected, mistakes


# 8.7 A gradient for every episode -----------------------------------------------------------------------------------


def episode_gradients(pi, states, actions, weights):
    """The package's answer: for each episode the sum over steps of weight times one-hot(a_t) - pi(. | s_t)."""
    index = torch.arange(len(weights))[:, None].expand_as(weights)
    taken = torch.zeros(len(weights), *pi.shape, dtype=weights.dtype)
    taken.index_put_((index, states, actions), weights, accumulate=True)
    return taken - taken.sum(-1, keepdim=True) * pi


def gradients_cases(rng):
    """Three episodes that come back to states, with weights that differ at every step, 0 on padding."""
    cases = []
    for count, actions, steps, lengths in ((3, 4, 5, [5, 2, 4]), (4, 3, 6, [3, 6])):
        states = [[rng.randrange(count) for _ in range(steps)] for _ in lengths]
        taken = [[rng.randrange(actions) for _ in range(steps)] for _ in lengths]
        states[0][1], taken[0][1] = states[0][0], taken[0][0]
        weights = [[x if t < n else 0.0 for t, x in enumerate(row)]
                   for row, n in zip(table(rng, len(lengths), steps, low=0.5, high=2.0), lengths)]  # fmt: skip
        pi = [softmax(row) for row in table(rng, count, actions)]
        cases.append({"pi": pi, "states": states, "actions": taken, "weights": weights})
    return cases


def expect_gradients(case):
    pi, rows, columns = case["pi"], range(len(case["pi"])), range(len(case["pi"][0]))
    episodes = [list(zip(*three)) for three in zip(case["states"], case["actions"], case["weights"])]

    def summed(term, chosen=lambda steps: steps):
        """For each episode the sum over its steps of term(b, s, a, w) in the row of s."""
        return [[[sum(term(b, s, a, w) for s, a, w in chosen(steps) if s == row) for b in columns] for row in rows]
                for steps in episodes]  # fmt: skip

    def acted(steps):
        return [step for step in steps if step[2]]

    def last_of_each(steps):
        return list({(s, a): (s, a, w) for s, a, w in steps if w}.values())

    expected = summed(lambda b, s, a, w: w * ((a == b) - pi[s][b]))
    total = [[sum(one[row][b] for one in expected) for b in columns] for row in rows]
    mistakes = {
        "pi is not subtracted: the score is one-hot minus pi": summed(lambda b, s, a, w: w * (a == b)),
        "pi is subtracted without the weight: weight times (one-hot - pi)": Alternatives(
            summed(lambda b, s, a, w: w * (a == b) - pi[s][b], acted),
            summed(lambda b, s, a, w: w * (a == b) - pi[s][b])),
        "the weights are missing": Alternatives(
            summed(lambda b, s, a, w: (a == b) - pi[s][b], acted), summed(lambda b, s, a, w: (a == b) - pi[s][b])),
        "pi is subtracted from the taken action only": summed(lambda b, s, a, w: w * (a == b) * (1 - pi[s][b])),
        "a pair (s, a) that comes back is counted once: add step by step":
            summed(lambda b, s, a, w: w * ((a == b) - pi[s][b]), last_of_each),
        "the episodes are added up: each has a gradient of its own": total,
        "the mean over the episodes: each has a gradient of its own":
            [[x / len(episodes) for x in row] for row in total],
        "the first step alone: sum over the steps":
            summed(lambda b, s, a, w: w * ((a == b) - pi[s][b]), lambda steps: steps[:1]),
    }  # fmt: skip
    return expected, mistakes


# 8.8 z-scores -------------------------------------------------------------------------------------------------------


def z_scores(estimates, exact):
    """The package's answer: the distance of the mean from the truth in standard errors of the mean."""
    error = estimates.std(dim=0) / len(estimates) ** 0.5
    return (estimates.mean(dim=0) - exact) / error


def z_cases(rng):
    """Few estimates, of parameters with different spreads, so that every shortcut shows."""
    cases = []
    for count, parameters in ((6, 3), (5, 4)):
        exact = table(rng, parameters)
        spreads = [0.2 + 0.4 * k for k in range(parameters)]
        shifts = [3.0 * (-1) ** k for k in range(parameters)]  # far out on either side, so that the sign shows
        estimates = [[e + s * rng.gauss(x, 1) for e, s, x in zip(exact, spreads, shifts)] for _ in range(count)]
        cases.append({"estimates": estimates, "exact": exact})
    return cases


def expect_z(case):
    columns, exact = list(zip(*case["estimates"])), case["exact"]
    count = len(case["estimates"])
    means = [statistics.mean(column) for column in columns]
    spreads = [statistics.stdev(column) for column in columns]
    pooled = math.sqrt(statistics.mean(s**2 for s in spreads))
    away = [m - e for m, e in zip(means, exact)]
    expected = [a * math.sqrt(count) / s for a, s in zip(away, spreads)]
    mistakes = {
        "divided by the standard deviation of one estimate: the mean of K is sqrt(K) times as exact": [
            a / s for a, s in zip(away, spreads)
        ],
        "the standard error is s / sqrt(K), not s / K": [a * count / s for a, s in zip(away, spreads)],
        "this is the variance, not its root: the standard error is s / sqrt(K)": [
            a * count / s**2 for a, s in zip(away, spreads)
        ],
        "divided by the variance of one estimate: the standard error is s / sqrt(K)": [
            a / s**2 for a, s in zip(away, spreads)
        ],
        "the squared deviations are divided by K: from the sample's own mean it is K - 1": [
            x * math.sqrt(count / (count - 1)) for x in expected
        ],
        "the sign is lost: a z-score says in which direction the mean is off": [abs(x) for x in expected],
        "the sign is turned: estimate minus truth": [-x for x in expected],
        "compared with 0: the question is the distance from the exact gradient": [
            m * math.sqrt(count) / s for m, s in zip(means, spreads)
        ],
        "one spread for all parameters: each has a standard error of its own": Alternatives(
            *([a * math.sqrt(count) / one for a in away] for one in (pooled, statistics.stdev(sum(columns, ()))))
        ),
        "not divided by a standard error: is this distance small or large?": away,
        "relative errors: they do not say what chance alone would do": [a / e for a, e in zip(away, exact)],
        "one z-score per estimate: average over the estimates first": [
            [(x - e) / s for x, e, s in zip(row, exact, spreads)] for row in case["estimates"]
        ],
    }
    return expected, mistakes


# 8.9 The loop -------------------------------------------------------------------------------------------------------


def reinforce(policy, sample, weigh, updates, lr, watch):
    """The package's answer: a fresh batch, the loss on it, one step of Adam, again; returns the updates made."""
    adam = torch.optim.Adam(policy.parameters(), lr=lr)
    for update in range(1, updates + 1):
        batch = sample(policy)
        loss = policy_gradient_loss(action_logprobs(policy, batch), weigh(batch.rewards, batch.mask), batch.mask)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if watch(policy, loss.item()):
            return update
    return updates


NOTHING_LEARNED = dict.fromkeys(("logits", "batches", "watched", "returned", "rises"))  # in the other kind of case


def loop_cases(rng):
    """Scripted batches, another at each update, with junk on padding; and a world in which the return must rise."""
    script = {"kind": "script", "logits": table(rng, 3, 3), "updates": 4, "lr": 0.3}
    batches = []
    for number in range(6):
        lengths = [[3, 1, 2], [1, 3, 3]][number % 2]
        states, actions = ([[rng.randrange(3) for _ in range(3)] for _ in lengths] for _ in range(2))
        states[0][0] = 0
        batches.append({"observations": states, "actions": actions, "rewards": table(rng, 3, 3, low=-1, high=2),
                        "mask": masks(lengths, 3)})  # fmt: skip
    script |= {"batches": batches, "stop": None}
    return [script, script | {"stop": 2}, {"kind": "world"}]


def recorded(batch):
    """A batch of a script as the record that a sampler returns."""
    fields = {name: torch.tensor(batch[name]) for name in ("observations", "actions", "mask")}
    rewards = torch.tensor(batch["rewards"], dtype=torch.float64)
    return Rollout(**fields, rewards=rewards, logprobs=0 * rewards, terminated=fields["mask"].all(1))


def drive_loop(answer, case):
    """Where the policy ends and what was asked for; in the world, whether the star is reached at the end."""
    if case["kind"] == "world":
        world = GridWorld(["S..G"]).to_mdp()
        policy, source = TabularPolicy(world.states, 4), torch.Generator().manual_seed(1)
        answer(policy, lambda now: collect(world, now, 32, horizon=6, generator=source)[0], total_return, 60, 0.1,
               lambda now, loss: False)  # fmt: skip
        reached = float(objective(world, probabilities(world, policy).detach(), 6))
        return NOTHING_LEARNED | {"rises": reached > 0.8}
    policy = TabularPolicy(3, 3).double()
    with torch.no_grad():
        policy.logits.copy_(torch.tensor(case["logits"]))
    asked, seen = [], []

    def sample(now):
        asked.append(now is policy)
        return recorded(case["batches"][(len(asked) - 1) % len(case["batches"])])

    def watch(now, loss):
        seen.append([float(loss), now.logits.detach()[0, 0].item()])
        return len(seen) == case["stop"]

    made = answer(policy, sample, total_return, case["updates"], case["lr"], watch)
    found = {"logits": policy.logits.detach(), "batches": len(asked), "watched": seen, "returned": made}
    return NOTHING_LEARNED | found


def expect_loop(case):
    if case["kind"] == "world":
        stays = ("rises", "on a corridor of 4 cells the agent does not learn to reach the star")
        return NOTHING_LEARNED | {"rises": True}, {stays: False}
    updates = min(case["updates"], case["stop"] or case["updates"])
    expected = simulated(case, updates)
    mistakes = {
        "sampled once: after the first step these are another policy's episodes; sample at every update": simulated(
            case, updates, fresh=False
        )
        | {"batches": 1},
        "gradients add up: set them to zero before each backward pass": simulated(case, updates, zero=False),
        "a new Adam at every update forgets its moments: make it once, before the loop": simulated(
            case, updates, renew=True
        ),
        "the step is plain gradient descent: use torch.optim.Adam": simulated(case, updates, adam=False),
        "the agent gets worse: the sign of the loss is turned": simulated(case, updates, sign=-1.0),
        "padding is trained on: the loss needs the mask": simulated(case, updates, masked=False),
        "divided by the number of steps: the loss is a mean over episodes": simulated(case, updates, per_step=True),
        "pi stands where log pi belongs: use log_softmax": simulated(case, updates, log=False),
        "the softmax runs over the time steps: it belongs over the actions, the last axis": simulated(
            case, updates, over_time=True
        ),
        "a step is weighted by its own reward: ask weigh(batch.rewards, batch.mask)": simulated(
            case, updates, own=True
        ),
        "nothing is learned: no step is made": simulated(case, updates, adam=False, sign=0.0),
        ("returned", "nothing is returned: the number of updates that were made is asked for"): None,
        ("returned", "one update too few is counted: the first is number 1"): updates - 1,
    }
    on = simulated(case, case["updates"])
    if case["stop"]:
        mistakes["training goes on: stop when watch(policy, loss) is true"] = on
    ran, seen = simulated(case, updates - 1) if case["stop"] else expected, expected["watched"]
    before = [[loss, x] for (loss, _), x in zip(seen, [case["logits"][0][0], *(x for _, x in seen)])]
    early = expected | {"logits": ran["logits"], "watched": before}
    mistakes["the policy is watched before the step: watch it after the step"] = early
    mistakes["watch is never called: call watch(policy, loss) after every step"] = on | {"watched": []}
    return expected, mistakes


def simulated(case, updates, *, fresh=True, **change):
    """Where REINFORCE with a change goes on the scripted batches, in plain Python."""
    theta = [list(row) for row in case["logits"]]
    shape = [[0.0] * 3 for _ in range(3)]
    moments, summed, seen = (shape, shape), shape, []
    for number in range(updates):
        loss, gradient = loss_and_gradient(theta, case["batches"][number if fresh else 0], change)
        if not change.get("zero", True):
            gradient = summed = combined(lambda x, y: x + y, summed, gradient)
        step, clock = gradient, number + 1
        if change.get("adam", True):
            if change.get("renew"):
                moments, clock = (shape, shape), 1
            first = combined(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
            second = combined(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradient)
            moments, a, b = (first, second), 1 - 0.9**clock, 1 - 0.999**clock
            step = combined(lambda m, v, a=a, b=b: m / a / (math.sqrt(v / b) + 1e-8), first, second)
        theta = combined(lambda x, y: x - case["lr"] * y, theta, step)
        seen.append([loss, theta[0][0]])
    return NOTHING_LEARNED | {"logits": theta, "batches": updates, "watched": seen, "returned": updates}


def combined(function, left, right):
    """A function of two tables, entry by entry."""
    return [[function(x, y) for x, y in zip(*pair)] for pair in zip(left, right)]


def loss_and_gradient(theta, batch, change):
    """REINFORCE's loss on a batch and its gradient by the logits, 3 x 3; `change` names what is done wrong."""
    sign, masked, log = change.get("sign", 1.0), change.get("masked", True), change.get("log", True)
    lengths, gradient, loss = [sum(row) for row in batch["mask"]], [[0.0] * 3 for _ in range(3)], 0.0
    divisor = sum(lengths) if change.get("per_step") else len(lengths)
    rows = zip(batch["observations"], batch["actions"], batch["rewards"], lengths)
    for states, actions, rewards, length in rows:
        for t in range(length if masked else 3):
            weight = (rewards[t] if change.get("own") else sum(rewards[:length])) / divisor
            s, a = states[t], actions[t]
            pi = softmax(theta[s])
            value, slopes = math.log(pi[a]), {(s, b): (a == b) - pi[b] for b in range(3)}
            if not log:
                value, slopes = pi[a], {place: pi[a] * x for place, x in slopes.items()}
            if change.get("over_time"):
                chances = softmax([theta[state][a] for state in states])
                value, slopes = math.log(chances[t]), {}
                for k, state in enumerate(states):
                    slopes[state, a] = slopes.get((state, a), 0.0) + (k == t) - chances[k]
            loss -= weight * value * (sign or 1.0)
            for (row, column), slope in slopes.items():
                gradient[row][column] -= weight * slope * sign
    return loss, gradient


# 8.10 Silent bugs ---------------------------------------------------------------------------------------------------


def ascent(losses, *, reuse=False):
    """A run: plain gradient steps on the mean of losses(policy, batch), one loss per episode."""

    def run(policy, sample, updates, lr):
        batch = None
        for _ in range(updates):
            batch = batch if reuse and batch is not None else sample(policy)
            (gradient,) = torch.autograd.grad(losses(policy, batch).mean(), policy.logits)
            with torch.no_grad():
                policy.logits -= lr * gradient

    return run


def weighted(policy, batch, weights):
    """Minus the sum of weight times log pi over the steps, (B,)."""
    return -(weights * action_logprobs(policy, batch)).sum(1)


def unmasked(policy, batch):
    """REINFORCE's losses with the steps after the end."""
    logprobs = policy(batch.observations).log_softmax(-1).gather(-1, batch.actions[..., None])[..., 0]
    return -episode_returns(batch.rewards, batch.mask) * logprobs.sum(1)


def right(policy, batch):
    return weighted(policy, batch, total_return(batch.rewards, batch.mask))


RUNS = {
    "right": ascent(right),
    "own reward": ascent(lambda policy, batch: weighted(policy, batch, batch.rewards)),
    "padding": ascent(unmasked),
    "reused": ascent(right, reuse=True),
    "no log": ascent(lambda policy, batch: -(
        total_return(batch.rewards, batch.mask) * action_logprobs(policy, batch).exp()).sum(1)),
    "per step": ascent(lambda policy, batch: right(policy, batch) / batch.mask.double().sum(1).mean()),
    "batch return": ascent(lambda policy, batch: weighted(
        policy, batch, episode_returns(batch.rewards, batch.mask).mean() * batch.mask)),
}  # fmt: skip
HINTS = {
    "own reward": "let an episode be paid at one step alone, and ask what the others learn",
    "padding": "let episodes end at different times, and ask what happens to what stands behind their end",
    "reused": "make more than one update, and ask for which of them a batch was sampled",
    "no log": "start from a policy that is not uniform, and ask for the size of the step too",
    "per step": "ask for the size of the step, on episodes longer than one step",
    "batch return": "let the episodes of a batch have different returns",
}


def refuses_the_wrong(run):
    """The package's test: a step is lr times the closed form of the estimate, and each has a batch of its own."""
    world, source = GridWorld("small").to_mdp(), torch.Generator().manual_seed(3)
    policy, batches = TabularPolicy(world.states, 4).double(), []
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=source))
    pi, before = probabilities(world, policy).detach(), policy.logits.detach().clone()

    def sample(now):
        batches.append(collect(world, now, 40, horizon=6, generator=source)[0])
        return batches[-1]

    run(policy, sample, 1, 0.5)
    moved, first = policy.logits.detach() - before, batches[0]
    scores = [score(pi, s[acted], a[acted]) for s, a, acted in zip(first.observations, first.actions, first.mask)]
    estimate = (torch.stack(scores) * episode_returns(first.rewards, first.mask)[:, None, None]).mean(0)
    run(policy, sample, 2, 0.5)
    return torch.allclose(moved, 0.5 * estimate) and len(batches) == 3


def weights_of(rewards, mask, gamma=1.0):
    """The package's `total_return`, called as the student's."""
    return total_return(rewards, mask, gamma=gamma)


EXERCISES = {
    "8.1": Exercise(probability_cases, None, expect_probability, points=1, reference=log_probability,
        signature="log_probability(logits: float[B T A], actions: int[B T], mask: bool[B T]) -> float[B]"),
    "8.2": Exercise(score_cases, None, expect_score, points=1, reference=score,
        signature="score(pi: float[S A], states: list, actions: list) -> float[S A]"),
    "8.3": Exercise(proof_cases, None, expect_proof, points=3, reference=proof, tolerance=1e-7,
        signature="proof(pi: float[S A], nature: number, states: list, actions: list) -> "
        "{p: number, grad_p: float[S A], grad_log_p: float[S A], score: float[S A]}"),
    "8.4": Exercise(play_cases, drive_play, expect_play, points=2, reference=play,
        signature="play(world: any, pi: float[S A], episodes: int, horizon: int, generator: any)"
        " -> (int[B T], int[B T], float[B T], bool[B T])"),
    "8.5": Exercise(weights_cases, None, expect_weights, points=1, reference=weights_of,
        signature="reinforce_weights(rewards: float[B T], mask: bool[B T], gamma: number) -> float[B T]"),
    "8.6": Exercise(loss_cases, None, expect_loss, points=2, reference=policy_gradient_loss,
        signature="reinforce_loss(logprobs: float[B T], weights: float[B T], mask: bool[B T]) -> float[] with"
        " gradient of logprobs"),
    "8.7": Exercise(gradients_cases, None, expect_gradients, points=2, reference=episode_gradients,
        signature="episode_gradients(pi: float[S A], states: int[B T], actions: int[B T], weights: float[B T])"
        " -> float[B S A]"),
    "8.8": Exercise(z_cases, None, expect_z, points=2, reference=z_scores,
        signature="z_scores(estimates: float[K P], exact: float[P]) -> float[P]"),
    "8.9": Exercise(loop_cases, drive_loop, expect_loop, points=4, reference=reinforce),
    "8.10": lab_of_runs(RUNS, HINTS, refuses_the_wrong, levels=(2, 4, 6)),
}  # fmt: skip
