"""Collecting episodes: thousands at once where the world is known as arrays, one after another from any environment.

Here: `collect` samples an MDP in batches; `from_gymnasium` makes an MDP of an environment that publishes its arrays;
`collect_from` steps an environment that does not. Both collectors return the same record.
Deliberately not here: the record itself (rollout), expectations that need no sampling (mdp).
Order: collect, then what it is made of; from_gymnasium; collect_from, Bins.

A policy is any callable `policy(observations (B, T)) -> logits (B, T, A)`. Its observations are states, finitely many:
it is asked once about all of them, and each step is a look-up in that table.
"""

import functools
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from math import isnan, prod
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor
from torch.nn.functional import pad

from ptlearn.grid.mdp import MDP, Policy, check_table, probabilities
from ptlearn.rollout import Rollout, check_counts

_STRETCH = 16  # steps between two looks at which episodes have ended


def collect(
    mdp: MDP, policy: Policy, episodes: int, *, horizon: int, generator: torch.Generator | None = None
) -> tuple[Rollout, Tensor]:
    """Sample episodes of an MDP, all at the same time.

    Args:    policy (B, T) -> (B, T, A) logits; episodes, B; horizon, the time limit in steps; generator, on the CPU:
             the result depends on its state alone.
    Returns: (Rollout of B episodes, as long as the longest of them; the state after each one's last step, (B,) int64).
             rewards and logprobs have the dtype of the logits; padding is 0. An episode that is cut off at the horizon
             is not terminated: bootstrap from its final state.
    Raises:  ValueError if episodes or horizon is below 1, or the logits do not fit the MDP.
    Source:  claim C24.
    >>> stairs = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [[0], [1], [0]], [0.5, 0.5, 0])  # start on step 0 or 1
    >>> down = lambda observations: torch.zeros(*observations.shape, 1)
    >>> rollout, final_states = collect(stairs, down, 100, horizon=9, generator=torch.Generator().manual_seed(0))
    >>> rollout.rewards.unique(dim=0), final_states.unique(), rollout.terminated.all()
    (tensor([[0., 1.],
            [1., 0.]]), tensor([2]), tensor(True))
    """
    check_counts(episodes=episodes, horizon=horizon)
    pi, logprobs = _policy_table(policy, mdp.states, mdp.actions)
    chances, successors = mdp.outcomes
    tables = _step_tables(mdp, logprobs, successors)
    uniform = _numpy_generator(generator).random
    states = _invert(_levels(mdp.start[None]), np.zeros(episodes, dtype=np.intp), uniform(episodes))
    # one number chooses action and successor together
    levels = _levels((pi[:, :, None] * chances).flatten(1))
    drawn = _walk(levels, tables.successors, mdp.terminal.numpy(), states, horizon, uniform)
    longest = int(tables.mask.take(drawn).any(0).sum())
    final_states = torch.from_numpy(states)
    return Rollout(*_look_up(tables[1:], drawn[:, :longest]), mdp.terminal[final_states]), final_states


class _StepTables(NamedTuple):
    """All that a step can be (state, action, successor), numbered: state * slots + outcome, `slots` for each state.

    After the successors come the fields of a rollout. They are 0 in terminal states, whose numbers stand for padding.
    """

    successors: np.ndarray
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    logprobs: np.ndarray
    mask: np.ndarray


def _step_tables(mdp: MDP, logprobs: Tensor, successors: Tensor) -> _StepTables:
    states, actions, width = successors.shape
    mask = ~mdp.terminal[:, None, None]

    def table(values: Tensor) -> np.ndarray:
        rows = values.expand(successors.shape).flatten(1)
        return pad(rows, (0, _slots(actions * width) - actions * width)).flatten().numpy()

    state, action = torch.arange(states)[:, None, None], torch.arange(actions)[:, None]
    rewards = mdp.R.gather(-1, successors).to(logprobs.dtype)
    fields = (state, action, rewards, logprobs[:, :, None], mask)
    padded = [table(torch.where(mask, field, torch.zeros_like(field))) for field in fields]
    return _StepTables(table(successors), *padded)


def _walk(
    levels: list[np.ndarray], successors: np.ndarray, terminal: np.ndarray, states: np.ndarray, horizon: int, uniform
) -> np.ndarray:
    """Step all episodes until each has ended: the number of every step (B, T). Moves `states` to the last ones."""
    stretches, length = [], 0
    rows = np.flatnonzero(~terminal[states])  # the episodes that still go on
    while length < horizon and len(rows):
        now, drawn = states[rows], np.empty((min(_STRETCH, horizon - length), len(rows)), dtype=np.intp)
        for step, numbers in enumerate(uniform(drawn.shape)):
            drawn[step] = _invert(levels, now, numbers)
            now = successors.take(drawn[step])
        states[rows] = now
        stretches.append((rows, drawn))
        length += len(drawn)
        rows = rows[~terminal[now]]
    # after an end comes a step of a terminal state, whichever (without one, nothing ends)
    numbers = np.full((len(states), length), terminal.argmax() * (len(successors) // len(terminal)))
    for stretch, (rows, drawn) in enumerate(stretches):
        numbers[rows, stretch * _STRETCH : stretch * _STRETCH + len(drawn)] = drawn.T
    return numbers


def _look_up(tables: Sequence[np.ndarray], drawn: np.ndarray) -> list[Tensor]:
    """Each table at the numbers drawn (B, T), as tensors.

    They share one block of memory: the system hands out, and the allocator keeps, one large block far faster than many.
    """
    ends = np.cumsum([0] + [table.itemsize * drawn.size for table in tables])
    block = np.empty(ends[-1], dtype=np.uint8)
    fields = []
    for table, begin, end in zip(tables, ends, ends[1:]):
        fields.append(block[begin:end].view(table.dtype).reshape(drawn.shape))
        table.take(drawn, out=fields[-1], mode="clip")  # the default mode would go through a copy
    return list(map(torch.from_numpy, fields))


def _slots(outcomes: int) -> int:
    """The power of two that holds so many outcomes."""
    return 1 << (outcomes - 1).bit_length()


def _cumulative(p: Tensor) -> np.ndarray:
    """Cumulative probabilities along the last dimension, exactly 1 from the last possible outcome on.

    The first entry above a number in [0, 1) then always belongs to an outcome that can happen: one of probability 0
    has the entry of the one before it, or 0.
    """
    total = p.double().cumsum(-1)
    return (total / total[..., -1:]).numpy()


def _levels(p: Tensor) -> list[np.ndarray]:
    """Cumulative probabilities (S, outcomes) as search trees, one per row, level by level and flat.

    Entry i of a level belongs to a row and a range of its outcomes: those below it are in range 2 i of the next
    level, the others in range 2 i + 1.
    """
    slots = _slots(p.shape[1])
    cdf = _cumulative(pad(p, (0, slots - p.shape[1])))
    halves = [slots >> depth for depth in range(1, slots.bit_length())]
    return [cdf[:, half - 1 :: 2 * half].flatten() for half in halves]


def _invert(levels: list[np.ndarray], rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Draw an outcome of each row by inverting its cumulative probabilities: its number, row * slots + outcome."""
    found = rows
    for level in levels:
        found = found + found + (level.take(found) <= numbers)
    return found


class _Sizes(NamedTuple):
    states: int
    actions: int


@torch.no_grad()
def _policy_table(policy: Policy, states: int, actions: int) -> tuple[Tensor, Tensor]:
    """pi (S, A) float64, and its logarithm as `action_logprobs` computes it, in the dtype of the logits."""
    try:
        logits = policy(torch.arange(states)[None])
    except IndexError as error:
        raise ValueError(f"policy does not take all {states} states: {error}") from error
    pi = probabilities(_Sizes(states, actions), lambda _: logits)
    if pi.isnan().any():
        raise ValueError(f"policy returned logits that are not finite for state {int(pi.isnan().nonzero()[0, 0])}")
    logits = logits[0] if logits.dtype in (torch.float32, torch.float64) else logits[0].float()
    return pi, logits - logits.logsumexp(-1, keepdim=True)


def _numpy_generator(generator: torch.Generator | None) -> np.random.Generator:
    """NumPy's generator, several times as fast, seeded from torch's."""
    return np.random.Generator(np.random.SFC64(int(torch.randint(2**62, (), generator=generator))))


# ---------------------------------------------------------------- worlds that others made


def from_gymnasium(environment: gymnasium.Env, *, gamma: float = 1.0) -> MDP:
    """The MDP of an environment that publishes its arrays: FrozenLake, CliffWalking, Taxi.

    In some of them the state that ends an episode has moves of its own, as if it went on. Here it becomes terminal: it
    loops to itself without reward. Should an episode also pass through it without ending, one terminal state is
    appended and the ends lead there. Where two outcomes differ in the reward alone, R is their mean, so that returns
    are right in expectation. The environment's time limit is not part of it: give it as the horizon.

    Args:   environment, with `P[state][action] = [(probability, next state, reward, terminated), ...]` and
            `initial_state_distrib`.
    Raises: ValueError if it has none, if its passenger is fickle (which its P does not tell), or as `check_table`.
    >>> mdp = from_gymnasium(gymnasium.make("CliffWalking-v1"))
    >>> mdp.states, mdp.terminal.nonzero().tolist(), mdp.R[35, 2, 47].item()
    (48, [[47]], -1.0)
    """
    world = getattr(environment, "unwrapped", environment)
    if not (hasattr(world, "P") and hasattr(world, "initial_state_distrib")):
        raise ValueError(f"{type(world).__name__} publishes no P with initial_state_distrib: expected e.g. FrozenLake")
    if getattr(world, "fickle_passenger", False):
        raise ValueError("fickle_passenger=True is not in the environment's P: expected False")
    start = torch.as_tensor(world.initial_state_distrib, dtype=torch.float64)
    moves = [
        (state, action, after, chance, reward, ends)
        for state, actions in world.P.items()
        for action, outcomes in actions.items()
        for chance, after, reward, ends in outcomes
        if chance > 0
    ]
    ends = {after for _, _, after, _, _, terminated in moves if terminated}
    appended = not ends.isdisjoint(_passed(moves, start))
    last = len(start)
    states, ends = (last + 1, {last}) if appended else (last, ends)
    check_table(states, len(world.P[0]))
    P, R = torch.zeros(2, states, len(world.P[0]), states, dtype=torch.float64)
    for state, action, after, chance, reward, terminated in moves:
        after = last if terminated and appended else after
        P[state, action, after] += chance
        R[state, action, after] += chance * reward
    R = torch.where(P > 0, R / P, 0)
    for state in ends:
        P[state], R[state] = 0, 0
        P[state, :, state] = 1
    return MDP(P, R, pad(start, (0, states - last)), gamma)


def _passed(moves: Iterable[tuple], start: Tensor) -> set[int]:
    """The states in which an episode can be without having ended."""
    follow: dict[int, set[int]] = {}
    for state, _, after, _, _, terminated in moves:
        if not terminated:
            follow.setdefault(state, set()).add(after)
    passed = set(start.nonzero()[:, 0].tolist())
    frontier = list(passed)
    while frontier:
        new = follow.get(frontier.pop(), set()) - passed
        passed |= new
        frontier += new
    return passed


# ---------------------------------------------------------------- any environment


def collect_from(
    environments: gymnasium.Env | Sequence[gymnasium.Env], policy: Policy, episodes: int, *,
    horizon: int | None = None, generator: torch.Generator | None = None, encode: Callable | None = None,
) -> tuple[Rollout, Tensor]:  # fmt: skip
    """Sample episodes of any environment with finitely many actions by stepping it; several take the episodes in turn.

    Each episode begins with `reset(seed=...)`, the seed drawn from the generator: the result depends on that alone.

    Args:    episodes, B; horizon, a time limit in steps beside the environment's own (one of the two must be there);
             encode, observation -> state, with the number of states as `.states`, such as `Bins`; not needed where
             the observations are `Discrete`.
    Returns: (Rollout, states after the last steps (B,) int64), as `collect` does. Only an end by the environment's own
             rules is terminated; its time limit and the horizon are not.
    Raises:  ValueError if one is no `gymnasium.Env` (a vector environment is none), its actions are not Discrete, the
             observations are not and encode is missing, the logits do not fit, or episodes or horizon is below 1.
    """
    check_counts(episodes=episodes)
    check_counts(none=True, horizon=horizon)
    environments = environments if isinstance(environments, Sequence) else [environments]
    _check_spaces(environments, encode)
    observed, taken = environments[0].observation_space, environments[0].action_space
    states = observed.n if encode is None else encode.states
    pi, logprobs = _policy_table(policy, int(states), int(taken.n))
    if encode is None:
        encode = int if observed.start == 0 else lambda observation: int(observation) - int(observed.start)
    *seeds, last = torch.randint(2**31, (episodes + 1,), generator=generator).tolist()
    table, uniform = _cumulative(pi), random.Random(last).random
    # a few of many states are met: a row becomes plain numbers when it is
    cdf = functools.cache(lambda state: table[state].tolist())
    played = [
        _play(environments[i % len(environments)], seed, encode, cdf, uniform, int(taken.start), horizon)
        for i, seed in enumerate(seeds)
    ]
    return _as_rollout(played, logprobs)


def _play(environment, seed, encode, cdf, uniform, first_action, horizon) -> tuple[list, list, list, bool]:
    """One episode: states (one more than steps), actions, rewards, terminated. Plain numbers are fastest here."""
    observation, _ = environment.reset(seed=seed)
    states, actions, rewards = [encode(observation)], [], []
    terminated = truncated = False
    while not (terminated or truncated or len(rewards) == horizon):
        action = bisect_right(cdf(states[-1]), uniform())
        observation, reward, terminated, truncated, _ = environment.step(first_action + action)
        states.append(encode(observation))
        actions.append(action)
        rewards.append(reward)
    return states, actions, rewards, bool(terminated)


def _as_rollout(played: list[tuple[list, list, list, bool]], logprobs: Tensor) -> tuple[Rollout, Tensor]:
    states, actions, rewards, terminated = zip(*played)
    lengths = torch.tensor([len(episode) for episode in actions])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]

    def padded(episodes: Iterable[list], dtype: torch.dtype) -> Tensor:
        table = torch.zeros(mask.shape, dtype=dtype)
        table[mask] = torch.tensor(list(chain.from_iterable(episodes)), dtype=dtype)
        return table

    observations, actions = padded((episode[:-1] for episode in states), torch.long), padded(actions, torch.long)
    taken = torch.where(mask, logprobs[observations, actions], 0)
    rollout = Rollout(observations, actions, padded(rewards, logprobs.dtype), taken, mask, torch.tensor(terminated))
    return rollout, torch.tensor([episode[-1] for episode in states])


def _check_spaces(environments: Sequence[gymnasium.Env], encode: Callable | None) -> None:
    if not environments:
        raise ValueError("environments is empty: expected at least one")
    if encode is not None and not hasattr(encode, "states"):
        raise ValueError("encode has no attribute states: expected the number of states it can return, as Bins has")
    for i, environment in enumerate(environments):
        if not isinstance(environment, gymnasium.Env):
            raise ValueError(f"environments[{i}] is a {type(environment).__name__}: expected a gymnasium.Env")
        observed, taken = environment.observation_space, environment.action_space
        if not isinstance(taken, Discrete):
            raise ValueError(f"environments[{i}] has the action space {taken}: expected Discrete")
        if encode is None and not isinstance(observed, Discrete):
            raise ValueError(f"environments[{i}] has the observation space {observed}: expected Discrete, or encode")
        if (observed, taken) != (environments[0].observation_space, environments[0].action_space):
            raise ValueError(f"environments[{i}] has other spaces than environments[0]: expected the same")


class Bins:
    """A product grid over observations that are vectors: which bin each component is in, as one state.

    Args:   edges, for each of the D components the ascending values that separate its bins (n edges, n + 1 bins).
    Raises: ValueError if edges do not ascend, or an observation has another number of components or holds NaN.
    >>> bins = Bins([[0.0], [-1.0, 1.0]])
    >>> bins.states, bins([-0.5, 0.0]), bins([0.5, 2.0])
    (6, 1, 5)
    >>> bins.centers[1]
    tensor([-0.5000,  0.0000])
    """

    def __init__(self, edges: Sequence[Sequence[float]]):
        self.edges = [[float(edge) for edge in component] for component in edges]
        for i, component in enumerate(self.edges):
            if any(map(isnan, component)) or not all(left < right for left, right in pairwise(component)):
                raise ValueError(f"edges[{i}] is {component}: expected ascending numbers")
        self.states = prod(len(component) + 1 for component in self.edges)

    def __call__(self, observation: np.ndarray | Sequence[float]) -> int:
        values = observation.tolist() if isinstance(observation, np.ndarray) else observation
        if len(values) != len(self.edges):
            raise ValueError(f"observation has {len(values)} components: expected {len(self.edges)}, as edges has")
        if any(map(isnan, values)):
            raise ValueError(f"observation is {list(values)}: expected numbers, no NaN")
        state = 0
        for component, value in zip(self.edges, values):
            state = state * (len(component) + 1) + bisect_right(component, value)
        return state

    @property
    def centers(self) -> Tensor:
        """(S, D) float: the middle of every bin; the outermost, without an end, count as wide as those beside them."""
        grids = torch.meshgrid(*map(_middles, self.edges), indexing="ij")
        return torch.stack([grid.flatten() for grid in grids], 1)


def _middles(edges: list[float]) -> Tensor:
    """The middles of the bins between edges; a bin without any neighbour of known width counts as 1 wide."""
    if len(edges) < 2:
        return torch.tensor([edge + side for edge in edges for side in (-0.5, 0.5)] or [0.0])
    ends = [2 * edges[0] - edges[1], *edges, 2 * edges[-1] - edges[-2]]
    return torch.tensor([(left + right) / 2 for left, right in pairwise(ends)])
