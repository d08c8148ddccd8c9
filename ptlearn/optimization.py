"""One gradient step: in pieces that fit into memory, clipped, refused where it is not finite; and scores without one.

Deliberately not here: the loss and its weights (policy_gradient), the loops (rl.training, finetuning.sft).
Order: update, apply_gradient; score_actions; check_counts.
"""

import math
from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ptlearn.policy_gradient import entropies, policy_gradient_loss
from ptlearn.rollout import Rollout, action_logprobs, condense, distinct_rows, take_rows


def update(
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    weights: Tensor,
    *,
    normalizer: float | None = None,
    micro_batch: int | None = None,
    clip_norm: float = math.inf,
) -> float:
    """One gradient step on `policy_gradient_loss`; returns the gradient's norm before clipping.

    For a language model, equal rows and those without weight are left to `rollout.condense`: the gradient is the same.

    Args:   policy (B, T) -> (B, T, A); weights (B, T) without gradient; normalizer as in the loss (default: episodes);
            micro_batch, rows per forward pass: the gradient is the same, the memory less; clip_norm, the largest norm
            of a step.
    Raises: ValueError if the gradient is not finite; the parameters are then as before.
    """
    normalizer = len(weights) if normalizer is None else normalizer
    if hasattr(policy, "logits_at"):
        rollout, weights = condense(rollout, weights)
    optimizer.zero_grad()
    for piece, rows in _pieces(rollout, micro_batch):
        part = weights[rows, : piece.mask.shape[1]]
        policy_gradient_loss(action_logprobs(policy, piece), part, piece.mask, normalizer).backward()
    return apply_gradient(optimizer, clip_norm)


def _pieces(rollout: Rollout, size: int | None) -> Iterator[tuple[Rollout, Tensor]]:
    """The rollout in pieces of at most `size` rows, of similar length (None: in one), and the numbers of these rows."""
    if size is None or size >= len(rollout.mask):
        yield rollout, torch.arange(len(rollout.mask), device=rollout.mask.device)
        return
    steps = torch.arange(1, rollout.mask.shape[1] + 1, device=rollout.mask.device)
    longest_first = (rollout.mask * steps).max(1).values.argsort(descending=True, stable=True)
    for rows in longest_first.split(size):
        yield take_rows(rollout, rows), rows


def apply_gradient(optimizer: torch.optim.Optimizer, clip_norm: float) -> float:
    """Clip and step; returns the gradient's norm before clipping.

    Raises: ValueError, with the parameters as they were, if the norm is not finite.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    if not math.isfinite(norm):
        raise ValueError(f"the gradient's norm is {norm}: expected a finite number (are rewards and weights finite?)")
    optimizer.step()
    return norm


@torch.no_grad()
def score_actions(policy: nn.Module, rollout: Rollout, micro_batch: int | None) -> tuple[Tensor, Tensor]:
    """The log-probability of each action and the entropy of each choice, nats (B, T), without gradient.

    Args: micro_batch, rows at a time for a language model, which reads equal rows once; all at once if None.
    """
    if not hasattr(policy, "logits_at"):
        logits = policy(rollout.observations)
        return action_logprobs(lambda _: logits, rollout), entropies(logits)
    first, which = distinct_rows(rollout)
    scores = rollout.logprobs.new_zeros(2, len(first), rollout.mask.shape[1])
    for piece, rows in _pieces(take_rows(rollout, first), micro_batch):
        logits = policy.logits_at(piece.observations, piece.mask)
        logprobs = action_logprobs(SimpleNamespace(logits_at=lambda *_, known=logits: known), piece)
        choices = torch.zeros_like(logprobs).masked_scatter(piece.mask, entropies(logits).to(logprobs.dtype))
        scores[:, rows, : piece.mask.shape[1]] = torch.stack((logprobs, choices)).to(scores)
    return tuple(scores[:, which])


def check_counts(**counts: int | None) -> None:
    """Raise ValueError naming the first count below 1; None is one that was not given."""
    for name, given in counts.items():
        if given is not None and given < 1:
            raise ValueError(f"{name}={given}: expected at least 1")
