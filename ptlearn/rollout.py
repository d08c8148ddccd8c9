"""The record that flows: what a policy saw, what it did, and how likely it was to do so.

Here: the record, the log-probabilities of the actions in it, the check that a policy really produced it, and the same
record with fewer rows. Deliberately not here: where rollouts come from (collection, text_collection) and what they
teach (policy_gradient).
Order: Rollout, pad_and_stack; check_counts, check_seed, check_sampling, sampling_logprobs, upcast, action_logprobs;
check_behavior, behavior_tolerance, check_logprobs; take_rows, distinct_rows, condense.

A policy is anything callable as `policy(observations (B, T)) -> logits (B, T, A)`: a table or a language model. One for
which that is much work may also have `logits_at(observations, mask) -> (n, A)`: the logits of the n masked steps alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rollout:
    """B episodes of at most T steps. In text, the observation at t is token t and the action is token t + 1.

    Raises: ValueError naming the field when a shape or dtype is not the one below.
    """

    observations: Tensor  # (B, T) int    state index, or input token
    actions: Tensor  # (B, T) int    action, or next token
    rewards: Tensor  # (B, T) float  text: zero except where a verifier or a KL penalty pays
    logprobs: Tensor  # (B, T) float  log mu(a_t | s_t) in nats, as sampled (temperature and truncation included)
    mask: Tensor  # (B, T) bool   True where the policy chose the action
    terminated: Tensor  # (B,) bool   ended by the world; False = cut off by the time limit, so bootstrap

    def __post_init__(self):
        for field, kind in _FIELDS.items():
            value = getattr(self, field)
            if not isinstance(value, Tensor):
                raise ValueError(f"{field} is a {type(value).__name__}: expected a {kind} tensor")
            shape = tuple(self.observations.shape)
            if _kind(value.dtype) != kind:
                raise ValueError(f"{field} has dtype {value.dtype}: expected {kind}")
            if len(shape) != 2:
                raise ValueError(f"observations has shape {shape}: expected (B, T)")
            expected = shape[:1] if field == "terminated" else shape
            if tuple(value.shape) != expected:
                raise ValueError(f"{field} has shape {tuple(value.shape)}: expected {expected}, as observations has")


_FIELDS = {
    "observations": "int", "actions": "int", "rewards": "float", "logprobs": "float", "mask": "bool",
    "terminated": "bool",
}  # fmt: skip


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point or dtype.is_complex:
        return "float" if dtype.is_floating_point else "complex"
    return "bool" if dtype == torch.bool else "int"


def pad_and_stack(
    sequences: Sequence[Tensor | Sequence], *, length: int | None = None, value: float = 0
) -> tuple[Tensor, Tensor]:
    """Stack sequences of different lengths into one tensor, padded on the right.

    Args:    sequences, B one-dimensional tensors or lists of numbers; length, the T to pad to (default: the longest);
             value, what padding holds.
    Returns: (B, T) tensor, and (B, T) bool mask, True where a sequence had an element. The mask comes from the
             lengths, never from comparing with the padding, so that an end token equal to it still counts.
    Raises:  ValueError if there are no sequences, one is not one-dimensional, or one is longer than `length`; if their
             common dtype cannot hold `value`.
    >>> pad_and_stack([[5, 6, 7], [8]])
    (tensor([[5, 6, 7],
            [8, 0, 0]]), tensor([[ True,  True,  True],
            [ True, False, False]]))
    """
    rows = [torch.as_tensor(sequence) for sequence in sequences]
    if not rows:
        raise ValueError("sequences is empty: expected at least one")
    for index, row in enumerate(rows):
        if row.dim() != 1:
            raise ValueError(f"sequences[{index}] has shape {tuple(row.shape)}: expected one dimension")
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"sequences[{int(lengths.argmax())}] has {longest} elements: expected at most length={length}")
    # an empty list has no element to take a dtype from: let the others decide, together
    dtypes = [row.dtype for row in rows if len(row)] or [rows[0].dtype]
    dtype = functools.reduce(torch.promote_types, dtypes)
    if not dtype.is_floating_point and torch.tensor(value).to(dtype) != value:
        raise ValueError(f"value={value}: expected one that {dtype} holds, as the sequences do")
    padded = torch.full((len(rows), length), value, dtype=dtype, device=rows[0].device)
    for row, target in zip(rows, padded, strict=True):
        target[: len(row)] = row
    return padded, (torch.arange(length) < lengths[:, None]).to(padded.device)


def check_counts(*, none: bool = False, **counts: int | None) -> None:
    """Raise ValueError naming the first that counts nothing: below 1, or not whole. None may pass if `none` says so."""
    for name, given in counts.items():
        if none and given is None:
            continue
        if not isinstance(given, Integral):
            raise ValueError(f"{name}={given!r:.60}: expected a whole number")
        if given < 1:
            raise ValueError(f"{name}={given}: expected at least 1")


def check_seed(seed: int) -> int:
    """The seed as a number of Python's. Raises: ValueError if it is not whole; torch and random take other kinds each.
    """
    if not isinstance(seed, Integral):
        raise ValueError(f"seed={seed!r:.60}: expected a whole number")
    return int(seed)


def check_sampling(temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> None:
    """Raise ValueError unless temperature > 0, top_k >= 1 and 0 < top_p <= 1 (None switches a truncation off)."""
    if not isinstance(temperature, Real) or not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r}: expected a finite number above 0")
    if top_k is not None and not (isinstance(top_k, Integral) and top_k >= 1):
        raise ValueError(f"top_k={top_k!r}: expected a whole number of at least 1, or None")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: expected a number in (0, 1], or None")


def sampling_logprobs(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Log-probabilities an action is really drawn from: tempered, truncated, then renormalised.

    The scorer calls this and the sampler `sampling_probabilities`: both are of the same logits, tempered and truncated
    in one place, so that they cannot disagree about the distribution.

    Args:    logits (..., A); temperature divides them; top_k keeps the k most likely actions (and ties with the
             k-th); top_p then keeps the smallest set of most likely actions that holds at least that mass.
    Returns: (..., A) nats, at least float32; -inf for an action that is never drawn.
    Raises:  ValueError for a temperature, top_k or top_p out of range.
    Source:  top-p: Holtzman et al. 2020, eq. 2-3.
    >>> sampling_logprobs(torch.tensor([0.0, 0.0, -9.0]), top_k=2).exp()
    tensor([0.5000, 0.5000, 0.0000])
    """
    return _kept(logits, temperature, top_k, top_p).log_softmax(-1)


def sampling_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The probabilities (..., A) whose logarithms are `sampling_logprobs`, at half the cost of exp of those.

    Args, Raises: as `sampling_logprobs`.
    >>> sampling_probabilities(torch.tensor([0.0, 0.0, -9.0]), top_k=2)
    tensor([0.5000, 0.5000, 0.0000])
    """
    return _kept(logits, temperature, top_k, top_p).softmax(-1)


def _kept(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """The logits, tempered, and -inf where an action is ruled out. Raises: as `sampling_logprobs`."""
    check_sampling(temperature, top_k, top_p)
    logits = _scaled(logits, temperature)
    if top_k is not None and top_k < logits.shape[-1]:
        smallest_kept = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < smallest_kept, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.softmax(-1).sort(descending=True)
        # an action goes if those before it hold the mass already: the one that crosses top_p stays
        dropped = ordered.cumsum(-1) - ordered >= top_p
        logits = logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)
    return logits


def upcast(tensor: Tensor) -> Tensor:
    """The tensor in at least float32: half precision is too coarse for a sum over a vocabulary."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return upcast(logits) if temperature == 1 else upcast(logits) / temperature


def action_logprobs(
    policy: Callable[[Tensor], Tensor], rollout: Rollout, *, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:  # fmt: skip
    """Log-probability, under a policy, of each action that was taken.

    Args:    policy (B, T) -> (B, T, A) logits; rollout; temperature, top_k, top_p as in `sampling_logprobs`: give
             the values the actions were sampled with.
    Returns: (B, T) nats with gradient, 0 where mask is False; -inf where the truncation rules the action out.
    Raises:  ValueError if the logits do not cover the rollout.
    >>> states, zeros, taken = torch.tensor([[0, 1, 2]]), torch.zeros(1, 3), torch.tensor([[True, True, False]])
    >>> rollout = Rollout(states, states % 2, zeros, zeros, taken, torch.tensor([True]))
    >>> fair_coin = lambda observations: torch.zeros(*observations.shape, 2)
    >>> action_logprobs(fair_coin, rollout)
    tensor([[-0.6931, -0.6931,  0.0000]])
    """
    check_sampling(temperature, top_k, top_p)
    logits, taken = _acted(policy, rollout)
    if taken.numel() and int(taken.max()) >= logits.shape[-1]:
        raise ValueError(f"policy returned logits for {logits.shape[-1]} actions: the rollout has action "
                         f"{int(taken.max())}")  # fmt: skip
    taken = taken.long().unsqueeze(-1)
    if top_k is None and top_p is None:
        # the same number as the branch below without a second tensor of logits
        logits = _scaled(logits, temperature)
        logprobs = logits.gather(-1, taken).squeeze(-1) - logits.logsumexp(-1)
    else:
        logprobs = sampling_logprobs(logits, temperature, top_k, top_p).gather(-1, taken).squeeze(-1)
    if logprobs.dim() == 1:
        return torch.zeros_like(rollout.mask, dtype=logprobs.dtype).masked_scatter(rollout.mask, logprobs)
    return logprobs.where(rollout.mask, torch.zeros_like(logprobs))


def _acted(policy: Callable[[Tensor], Tensor], rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Logits and the action taken: of all steps, (B, T, A) and (B, T), or of the masked ones, (n, A) and (n,)."""
    if hasattr(policy, "logits_at"):
        return policy.logits_at(rollout.observations, rollout.mask), rollout.actions[rollout.mask]
    logits = policy(rollout.observations)
    if logits.dim() != 3 or logits.shape[:2] != rollout.actions.shape:
        raise ValueError(f"policy returned shape {tuple(logits.shape)}: expected {(*rollout.actions.shape, 'A')}")
    return logits, rollout.actions


@torch.no_grad()
def check_behavior(
    policy: Callable[[Tensor], Tensor], rollout: Rollout, *, atol: float | None = None, temperature: float = 1.0,
    top_k: int | None = None, top_p: float | None = None,
) -> float:  # fmt: skip
    """Recompute the log-probabilities of a fresh rollout and refuse it when they are not the recorded ones.

    One call after every collection catches a wrong shift, padding, dropout and sampling temperature at once.

    Args:    policy, called as it is (a model left in training mode is one of the bugs to catch); rollout; atol in
             nats, by default the policy's `behavior_tolerance`; temperature, top_k, top_p as sampled.
    Returns: the largest difference, nats.
    Raises:  ValueError with the largest difference and where it is, if it is above atol.
    """
    recomputed = action_logprobs(policy, rollout, temperature=temperature, top_k=top_k, top_p=top_p)
    return check_logprobs(recomputed, rollout, behavior_tolerance(policy) if atol is None else atol)


def behavior_tolerance(policy: Callable[[Tensor], Tensor]) -> float:
    """How far a policy may be from itself, in nats, where one token at a time and all at once round differently.

    Returns: 128 roundings of the coarsest parameter, and no less than 1e-3: 1 in bfloat16, 0.125 in float16. Measured
             over 8,000 tokens of the pocket models: 0.5, 0.08 and in float32 4e-5; at a wrong temperature of 0.9, 1.3.
    """
    parameters = policy.parameters() if isinstance(policy, torch.nn.Module) else ()
    return max([1e-3, *(128 * torch.finfo(each.dtype).eps for each in parameters if each.is_floating_point())])


def check_logprobs(recomputed: Tensor, rollout: Rollout, atol: float = 1e-3) -> float:
    """`check_behavior` where the log-probabilities (B, T) have been recomputed already."""
    difference = torch.where(rollout.mask, (recomputed.detach() - rollout.logprobs).abs(), 0)
    if difference.numel() == 0:
        return 0.0
    row, step = divmod(int(difference.argmax()), difference.shape[1])
    largest = float(difference[row, step])
    # written so that NaN, for which every comparison is false, is refused too
    if not largest <= atol:
        raise ValueError(
            f"logprobs are off by up to {largest:.3g} nats, expected at most atol={atol:g}: at row {row}, step {step} "
            f"recorded {rollout.logprobs[row, step]:.4f}, recomputed {recomputed[row, step]:.4f}; "
            "suspect the shift, padding, dropout, temperature, a policy changed since, or an atol below its precision"
        )
    return largest


# ---------------------------------------------------------------- fewer rows


def take_rows(rollout: Rollout, rows: Tensor) -> Rollout:
    """The rows of these numbers, in this order, without the columns behind their last action."""
    acted = rollout.mask[rows].any(0).nonzero()
    columns = slice(0, int(acted.max()) + 1 if len(acted) else 1)
    chosen = {field.name: getattr(rollout, field.name)[rows] for field in fields(rollout)}
    return Rollout(**{name: value[:, columns] if value.dim() == 2 else value for name, value in chosen.items()})


def distinct_rows(rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Rows with the same observations, actions and mask, found: a policy need be asked about one of them only.

    Returns: (n,) int, the first row of each kind; (B,) int, which of the n kinds a row is of.
    """
    keys = torch.cat([rollout.observations, rollout.actions, rollout.mask.to(rollout.actions.dtype)], 1)
    kinds, which = keys.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(which), device=which.device)
    return torch.zeros_like(which[: len(kinds)]).scatter_reduce(0, which, rows, "amin", include_self=False), which


def condense(rollout: Rollout, weights: Tensor) -> tuple[Rollout, Tensor]:
    """The same sum of weights times log-probabilities from less: what a gradient step need not look at is left out.

    Equal rows become one with the sum of their weights; rows and steps of weight 0 leave; columns are cut. Exact, if
    the loss is given the normalizer of the whole batch.

    Returns: (Rollout, weights) of at least one row, the mask True where the weight is not 0. Rewards are those of the
             first of equal rows.
    >>> tokens, zeros, taken = torch.tensor([[1, 2], [1, 3], [1, 2]]), torch.zeros(3, 2), torch.tensor([[True] * 2] * 3)
    >>> rollout = Rollout(tokens, tokens, zeros, zeros, taken, torch.tensor([True] * 3))
    >>> condense(rollout, torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, -1.0]]))[1]
    tensor([[2.]])
    """
    rows, which = distinct_rows(rollout)
    summed = weights.new_zeros(len(rows), weights.shape[1])
    summed = summed.index_add(0, which, torch.where(rollout.mask, weights, 0))
    kept = (summed != 0).any(1)
    # a batch that teaches nothing still has a gradient, of 0: an optimizer with momentum moves on
    kept[0] |= ~kept.any()
    needed = torch.zeros_like(rollout.mask)
    needed[rows] = summed != 0
    lean = take_rows(replace(rollout, mask=needed), rows[kept])
    return lean, summed[kept, : lean.mask.shape[1]]
