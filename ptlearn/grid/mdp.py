"""A Markov decision process as arrays, and everything about it that can be computed instead of sampled.

Here: exact values, the exact objective J and its exact gradient, optimal policies, how often states are visited, and
all trajectories of a small problem with their probabilities. What a lesson estimates, it holds against these.
Deliberately not here: sampling (collection) and learning (training).
Order: MDP; values of a policy; J and its gradient; each episode's gradient; optimal policies; enumeration.

Everything is float64. Probabilities pi (S, A) may carry a gradient, which passes through the linear solve.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ptlearn.rollout import Rollout, check_counts

Policy = Callable[[Tensor], Tensor]
LARGEST = 25_000_000  # numbers in a table of transitions: 0.2 GB, of which making it needs several


@dataclass(frozen=True)
class MDP:
    """States 0..S-1, actions 0..A-1. A state that only loops to itself without reward is terminal.

    Args:   P (S, A, S), P[s, a, s'] the probability of moving to s'; R (S, A, S), the reward on the way there, or
            (S, A) where it does not depend on s'; start (S,) the distribution of the first state; gamma in [0, 1].
    Raises: ValueError naming what does not fit: a shape, a state and action whose probabilities do not sum to 1, gamma.
    """

    P: Tensor
    R: Tensor
    start: Tensor
    gamma: float = 1.0

    def __post_init__(self):
        for name in ("P", "R", "start"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
        if self.P.dim() != 3 or self.P.shape[0] != self.P.shape[2]:
            raise ValueError(f"P has shape {tuple(self.P.shape)}: expected (S, A, S)")
        if self.R.shape == self.P.shape[:2]:
            object.__setattr__(self, "R", self.R[:, :, None].expand_as(self.P))
        for name, expected in (("R", self.P.shape), ("start", self.P.shape[:1])):
            if getattr(self, name).shape != expected:
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}: expected {tuple(expected)}")
        if not bool(torch.isfinite(self.R).all()):
            raise ValueError("R has a reward that is not finite")
        bad = ((self.P.sum(-1) - 1).abs() > 1e-6) | (self.P < 0).any(-1) | ~torch.isfinite(self.P).all(-1)
        if bad.any():
            state, action = bad.nonzero()[0].tolist()
            raise ValueError(
                f"P[{state}, {action}] (state {state}, action {action}) sums to {self.P[state, action].sum():.6g} with "
                f"smallest entry {self.P[state, action].min():.3g}: expected probabilities that sum to 1"
            )
        # written so that NaN, for which every comparison is false, is refused too
        if not (abs(float(self.start.sum()) - 1) <= 1e-6 and (self.start >= 0).all()):
            raise ValueError(
                f"start sums to {float(self.start.sum()):.6g} with smallest entry {float(self.start.min()):.3g}: "
                "expected probabilities that sum to 1"
            )
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma={self.gamma}: expected a number in [0, 1]")
        for name in ("P", "start"):  # thirds in float32 sum to 1 + 3e-8: make it 1
            object.__setattr__(self, name, getattr(self, name) / getattr(self, name).sum(-1, keepdim=True))

    @property
    def states(self) -> int:
        return self.P.shape[0]

    @property
    def actions(self) -> int:
        return self.P.shape[1]

    @cached_property
    def outcomes(self) -> tuple[Tensor, Tensor]:
        """Where each action can lead: (probabilities, successors), each (S, A, K), K the most that any action has."""
        return self.P.topk(int((self.P > 0).sum(-1).max()))

    @cached_property
    def expected_rewards(self) -> Tensor:
        """E[r | s, a], (S, A)."""
        return torch.einsum("sat,sat->sa", self.P, self.R)

    @cached_property
    def terminal(self) -> Tensor:
        """(S,) bool: no action leaves the state, and none pays there."""
        stays = self.P.diagonal(dim1=0, dim2=2).T == 1  # (S, A)
        return (stays & (self.R.diagonal(dim1=0, dim2=2).T == 0)).all(1)


def check_table(states: int, actions: int) -> None:
    """Refuse a table of transitions that would fill the memory, before it is made.

    Raises: ValueError if states * actions * states is above 25 million numbers: 2,500 states with four actions.
    """
    if states * actions * states > LARGEST:
        raise ValueError(
            f"{states:,} states and {actions} actions make a table of {states * actions * states:,} transitions "
            f"({8e-9 * states * actions * states:.1f} GB, and several are needed): expected at most {LARGEST:,}"
        )


def probabilities(mdp: MDP, policy: Policy) -> Tensor:
    """pi(a | s) of a policy for every state at once, (S, A) float64, with gradient.

    Raises: ValueError if the policy's logits do not have one entry per action.
    """
    logits = policy(torch.arange(mdp.states)[None])[0]
    if logits.shape != (mdp.states, mdp.actions):
        raise ValueError(
            f"policy returned logits of shape {tuple(logits.shape)} for all states: "
            f"expected {(mdp.states, mdp.actions)}, one per action"
        )
    return logits.double().softmax(-1)


# ---------------------------------------------------------------- the values of a policy


def state_values(mdp: MDP, pi: Tensor) -> Tensor:
    """V(s), the expected discounted return from s on when following pi, without a time limit: (S,).

        V = r_pi + gamma P_pi V,  solved as a linear system over the states that are not terminal

    Raises: ValueError if gamma = 1 and pi never ends from some state (then V does not exist).
    Source: Sutton & Barto 2018, eq. 4.3. Claims C24, C32.
    >>> coin = MDP([[[0.5, 0.5]], [[0.0, 1.0]]], [[1.0], [0.0]], [1.0, 0.0])  # +1 until tails
    >>> state_values(coin, torch.ones(2, 1))
    tensor([2., 0.], dtype=torch.float64)
    """
    going = ~mdp.terminal
    transitions, rewards = _under(mdp, pi)
    if mdp.gamma == 1:
        _check_ends(transitions.detach(), going)
    inner = transitions[going][:, going]
    solved = torch.linalg.solve(torch.eye(len(inner), dtype=torch.float64) - mdp.gamma * inner, rewards[going])
    return torch.zeros(mdp.states, dtype=torch.float64).index_put((going.nonzero()[:, 0],), solved)


def horizon_values(mdp: MDP, pi: Tensor, horizon: int) -> Tensor:
    """V at each time under a time limit: row t is the expected discounted return of the steps t .. horizon - 1.

    Returns: (horizon + 1, S); the last row is 0.
    Raises:  ValueError if horizon is below 1.
    """
    check_counts(horizon=horizon)
    transitions, rewards = _under(mdp, pi)
    discounted, values = mdp.gamma * transitions, [torch.zeros(mdp.states, dtype=torch.float64)]
    for _ in range(horizon):
        values.append(rewards + discounted @ values[-1])
    return torch.stack(values[::-1])


def action_values(mdp: MDP, values: Tensor) -> Tensor:
    """Q(s, a) = E[r + gamma V(s')], given the values (S,) of the states that follow: (S, A). Q - V is the advantage."""
    chances, successors = mdp.outcomes
    return mdp.expected_rewards + mdp.gamma * (chances * values[successors]).sum(-1)


def occupancy(mdp: MDP, pi: Tensor, horizon: int | None = None) -> Tensor:
    """How often each state is visited, discounted: the sum over t of gamma^t Pr(s_t = s), terminal states left out.

    Args:    horizon, steps to count (default: all).
    Returns: (S,); its product with r_pi sums to J.
    >>> coin = MDP([[[0.5, 0.5]], [[0.0, 1.0]]], [[1.0], [0.0]], [1.0, 0.0])
    >>> occupancy(coin, torch.ones(2, 1)), occupancy(coin, torch.ones(2, 1), horizon=2)
    (tensor([2., 0.], dtype=torch.float64), tensor([1.5000, 0.0000], dtype=torch.float64))
    """
    going = ~mdp.terminal
    transitions, _ = _under(mdp, pi)
    inner, start = mdp.gamma * transitions[going][:, going], mdp.start[going]
    if horizon is None:
        if mdp.gamma == 1:
            _check_ends(transitions.detach(), going)
        visits = torch.linalg.solve((torch.eye(len(inner), dtype=torch.float64) - inner).T, start)
    else:
        visits, now = torch.zeros_like(start), start
        for _ in range(horizon):
            visits, now = visits + now, inner.T @ now
    return torch.zeros(mdp.states, dtype=torch.float64).index_put((going.nonzero()[:, 0],), visits)


# ---------------------------------------------------------------- the objective


def objective(mdp: MDP, pi: Tensor, horizon: int | None = None) -> Tensor:
    """J, the expected discounted return: E over start states of V. Exact, and differentiable in pi.

    Args:    pi (S, A); horizon, the time limit in steps (default: none).
    Source:  Claims C24, C32.
    >>> coin = MDP([[[0.5, 0.5]], [[0.0, 1.0]]], [[1.0], [0.0]], [1.0, 0.0])
    >>> float(objective(coin, torch.ones(2, 1))), float(objective(coin, torch.ones(2, 1), horizon=2))
    (2.0, 1.5)
    """
    values = state_values(mdp, pi) if horizon is None else horizon_values(mdp, pi, horizon)[0]
    return mdp.start @ values


def exact_gradient(mdp: MDP, policy: torch.nn.Module, horizon: int | None = None) -> Tensor:
    """grad J with respect to the policy's parameters, end to end in order: (P,) float64. Nothing is sampled.

    Autograd passes through the linear solve, or through the finite recursion when there is a horizon.

    Source: Claim C26.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(objective(mdp, probabilities(mdp, policy), horizon), parameters)
    return torch.cat([gradient.double().flatten() for gradient in gradients])


def episode_gradients(pi: Tensor, states: Tensor, actions: Tensor, weights: Tensor) -> Tensor:
    """For each episode the sum over its steps of weight times grad log pi(a_t | s_t), by the logits of a table.

        grad log pi(a | s) in row s:  one-hot(a) - pi(. | s)

    Args:    pi (S, A) probabilities; states, actions (B, T) int; weights (B, T), 0 on padding.
    Returns: (B, S, A); the mean over episodes is the estimate of grad J that these weights make.
    Source:  Claims C26, C29.
    >>> episode_gradients(torch.tensor([[0.5, 0.5]]), torch.tensor([[0]]), torch.tensor([[1]]), torch.tensor([[2.0]]))
    tensor([[[-1.,  1.]]])
    """
    taken = torch.zeros(len(weights), pi.numel(), dtype=weights.dtype)
    taken.scatter_add_(1, states * pi.shape[1] + actions, weights)
    taken = taken.unflatten(1, pi.shape)
    return taken - taken.sum(-1, keepdim=True) * pi


# ---------------------------------------------------------------- optimal policies


def greedy(mdp: MDP, values: Tensor) -> Tensor:
    """The deterministic policy (S, A) that takes the first of the best actions, one step ahead of `values`."""
    q = action_values(mdp, values)
    best = (q >= q.max(1, keepdim=True).values - 1e-9).to(torch.uint8).argmax(1)
    return torch.nn.functional.one_hot(best, mdp.actions).double()


def value_iteration(mdp: MDP, *, tolerance: float = 1e-10, limit: int = 100_000) -> Tensor:
    """V of the best policy, by repeating V = max over a of E[r + gamma V(s')]: (S,).

    Raises:  ValueError if it has not settled after `limit` sweeps (with gamma = 1 and a reward that can be collected
             for ever, it never does).
    Source:  Bellman 1957; Sutton & Barto 2018, eq. 4.10.
    """
    values = torch.zeros(mdp.states, dtype=torch.float64)
    for _ in range(limit):
        new = action_values(mdp, values).max(1).values
        if float((new - values).abs().max()) <= tolerance:
            return new
        values = new
    raise ValueError(
        f"values still change after {limit} sweeps: with gamma={mdp.gamma} the best return may be infinite"
    )


# ---------------------------------------------------------------- every trajectory


def enumerate_trajectories(mdp: MDP, policy: Policy, horizon: int, *, limit: int = 1_000_000):
    """All trajectories of positive probability, up to a time limit: expectations become finite sums.

    Args:    policy, the one that acts (and whose log-probabilities are recorded); horizon, the time limit in steps;
             limit, the number of trajectories to refuse.
    Returns: (Rollout of N episodes, final states (N,) int, probabilities (N,) float64 that sum to 1).
    Raises:  ValueError if there are more than `limit`, or if horizon is below 1.
    """
    check_counts(horizon=horizon)
    with torch.no_grad():
        pi = probabilities(mdp, policy)
    step = (pi[:, :, None] * mdp.P).where(~mdp.terminal[:, None, None], torch.zeros(()).double())  # (S, A, S)
    paths = [((state,), (), float(mdp.start[state])) for state in mdp.start.nonzero()[:, 0].tolist()]
    ended: list = []
    for _ in range(horizon):
        longer = []
        for states, actions, probability in paths:
            moves = step[states[-1]].nonzero().tolist()
            if not moves:
                ended.append((states, actions, probability))
            for action, after in moves:
                longer.append(
                    ((*states, after), (*actions, action), probability * float(step[states[-1], action, after]))
                )
        paths = longer
        if len(paths) + len(ended) > limit:
            raise ValueError(f"more than {limit} trajectories within horizon={horizon}: shorten it, or sample")
    return _as_rollout(mdp, pi, ended + paths)


def count_trajectories(rollout: Rollout, final: Tensor, listed: Rollout, listed_final: Tensor) -> Tensor:
    """How often each of the listed trajectories occurs among sampled ones: (N,) int.

    Args:   rollout, final (B,), episodes and where they ended; listed, listed_final (N,), of `enumerate_trajectories`,
            with at least as many steps.
    Raises: ValueError if an episode is none of those listed.
    """

    def names(episodes, ends):
        steps = zip(episodes.observations.tolist(), episodes.actions.tolist(), episodes.mask.sum(1).tolist())
        return [(*states[:n], *actions[:n], end) for (states, actions, n), end in zip(steps, ends.tolist())]

    places = {name: place for place, name in enumerate(names(listed, listed_final))}
    found = [places.get(name, -1) for name in names(rollout, final)]
    if -1 in found:
        raise ValueError(f"rollout: episode {found.index(-1)} is none of the {len(places)} listed trajectories")
    return torch.bincount(torch.tensor(found), minlength=len(places))


def _as_rollout(mdp: MDP, pi: Tensor, paths: list) -> tuple[Rollout, Tensor, Tensor]:
    """A Rollout of enumerated paths (states, actions, probability), with final states and probabilities."""
    length = max(len(actions) for _, actions, _ in paths)
    shape = (len(paths), length)
    observations, actions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    after, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    for row, (states, taken, _) in enumerate(paths):
        steps = len(taken)
        observations[row, :steps], after[row, :steps] = torch.tensor(states[:-1]), torch.tensor(states[1:])
        actions[row, :steps], mask[row, :steps] = torch.tensor(taken), True
    final = torch.tensor([states[-1] for states, _, _ in paths])
    rewards = mdp.R[observations, actions, after] * mask
    logprobs = torch.where(mask, pi.log()[observations, actions], 0)
    rollout = Rollout(observations, actions, rewards, logprobs, mask, mdp.terminal[final])
    return rollout, final, torch.tensor([probability for _, _, probability in paths], dtype=torch.float64)


# ---------------------------------------------------------------- inside


def _under(mdp: MDP, pi: Tensor) -> tuple[Tensor, Tensor]:
    """Transition matrix (S, S) and expected reward (S,) when following pi."""
    if pi.shape != (mdp.states, mdp.actions):
        raise ValueError(f"pi has shape {tuple(pi.shape)}: expected {(mdp.states, mdp.actions)}")
    pi = pi.double()
    return torch.einsum("sa,sat->st", pi, mdp.P), (pi * mdp.expected_rewards).sum(-1)


def _check_ends(transitions: Tensor, going: Tensor) -> None:
    """Refuse a policy that, from some state, has no way to a terminal one."""
    reaches = ~going
    for _ in range(len(going)):
        more = reaches | (transitions[:, reaches].sum(1) > 0)
        if (more == reaches).all():
            break
        reaches = more
    if not reaches.all():
        state = int((~reaches).nonzero()[0])
        raise ValueError(f"with gamma=1 the episode never ends from state {state}: use gamma below 1 or a horizon")
