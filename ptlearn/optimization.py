"""One gradient step: in pieces that fit into memory, clipped, refused where it is not finite; and scores without one.

On several processes the gradient is that of the sum over the rows of all.
Deliberately not here: the loss and its weights (policy_gradient), the loops (finetuning.sft, rl.training).
Order: gradient_step; update, micro_batches; score_actions.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ptlearn.policy_gradient import entropies, policy_gradient_loss, prompt_groups
from ptlearn.processes import averages, gathered, in_step, size, total, whole
from ptlearn.rollout import Rollout, action_logprobs, condense, distinct_rows, take_rows


def gradient_step(
    optimizer: torch.optim.Optimizer, losses: Iterable[Tensor], clip_norm: float = math.inf, averaged: bool = False
) -> tuple[float, float]:
    """One step down the sum of some losses, each differentiated as it comes: one graph at a time is held.

    Args:    losses, scalars with gradient, on several processes each one's own, as many on all; clip_norm, the largest
             norm of a step; averaged, whether a wrapper averages gradients over processes, else they are summed here.
    Returns: (the sum of the losses, the gradient's norm before clipping), of all processes.
    Raises:  ValueError if the norm is not finite; the parameters are then as before.
    """
    if not clip_norm > 0:
        raise ValueError(f"clip_norm={clip_norm}: expected a number above 0")
    optimizer.zero_grad()
    seen = []
    for loss in losses:
        (loss * size() if averaged else loss).backward()
        seen.append(loss.detach())
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not averaged and size() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(total(parameter.grad))
    norm = float(whole(nn.utils.clip_grad_norm_(parameters, clip_norm)))
    if not math.isfinite(norm):
        raise ValueError(f"the gradient's norm is {norm}: expected a finite number (are rewards and weights finite?)")
    optimizer.step()
    return total(sum(map(float, seen))), norm  # read last: each reading waits for the device


def update(
    policy: nn.Module, optimizer: torch.optim.Optimizer, rollout: Rollout, weights: Tensor, *,
    normalizer: float | Tensor | None = None, micro_batch: int | None = None, clip_norm: float = math.inf,
) -> float:  # fmt: skip
    """One gradient step on `policy_gradient_loss`; returns the gradient's norm before clipping.

    For a language model, equal rows and those without weight are left to `rollout.condense`: the gradient is the same.

    On several processes each gives its own rows, weights and normalizer: numbers are summed, and (B, 1) counts for the
    rows of all.

    Args:   policy (B, T) -> (B, T, A); weights (B, T) without gradient; normalizer, what the sum over the batch is
            divided by (default: the episodes), or (B, 1), what each row's sum is; micro_batch, rows per forward pass:
            the gradient is the same, the memory less; clip_norm, the largest norm of a step.
    Raises: ValueError if the gradient is not finite; the parameters are then as before.
    """
    if getattr(weights, "shape", None) != rollout.mask.shape:
        given = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(f"weights is {given}: expected a tensor of shape {tuple(rollout.mask.shape)}, as mask")
    normalizer = len(weights) if normalizer is None else normalizer
    if isinstance(normalizer, Tensor) and normalizer.dim():
        if normalizer.shape != (len(weights), 1):
            raise ValueError(f"normalizer has shape {tuple(normalizer.shape)}: expected {(len(weights), 1)}, or none")
        weights, normalizer = weights / normalizer, total(len(weights)) / len(weights)
    else:
        normalizer = total(normalizer)
    if hasattr(policy, "logits_at"):
        rollout, weights = condense(rollout, weights)

    def losses() -> Iterator[Tensor]:
        pieces = list(micro_batches(rollout, micro_batch, _shares_prompts(policy)))
        for (piece, rows), counts in in_step(policy, pieces):
            part = weights[rows, : piece.mask.shape[1]] * counts
            yield policy_gradient_loss(action_logprobs(policy, piece), part, piece.mask, normalizer)

    with _recomputing(policy):
        return gradient_step(optimizer, losses(), clip_norm, averages(policy))[1]


def _shares_prompts(policy: nn.Module) -> bool:
    return getattr(policy, "shares_prompts", False)


@contextmanager
def _recomputing(policy: nn.Module) -> Iterator[None]:
    """Inside, layers with gradient checkpointing do it, though dropout is off: they do it in training mode alone."""
    layers = [layer for layer in policy.modules() if getattr(layer, "gradient_checkpointing", False)]
    # their parts stay in evaluation mode; a layer that drops out by itself (OPT) has its rate as an attribute
    idle = [layer for layer in layers if not layer.training and not _drops_out(layer)]
    for layer in idle:
        layer.training = True
    try:
        yield
    finally:
        for layer in idle:
            layer.training = False


def _drops_out(layer: nn.Module) -> bool:
    return any("dropout" in name and isinstance(rate, float) and rate > 0 for name, rate in vars(layer).items())


def micro_batches(rollout: Rollout, size: int | None, by_prompt: bool = False) -> Iterator[tuple[Rollout, Tensor]]:
    """The rollout in pieces of at most `size` rows, of similar length (None: in one), and the numbers of these rows.

    Args: by_prompt, whether rows of one prompt stay together, for a policy that reads it once.
    """
    if size is None or size >= len(rollout.mask):
        yield rollout, torch.arange(len(rollout.mask), device=rollout.mask.device)
        return
    steps = torch.arange(1, rollout.mask.shape[1] + 1, device=rollout.mask.device)
    lengths = (rollout.mask * steps).max(1).values
    if by_prompt:
        groups = prompt_groups(rollout.observations, rollout.mask)
        longest = torch.zeros_like(lengths).scatter_reduce(0, groups, lengths, "amax")
        lengths = longest[groups] * len(groups) + groups
    for rows in lengths.argsort(descending=True, stable=True).split(size):
        yield take_rows(rollout, rows), rows


@torch.no_grad()
def score_actions(policy: nn.Module, rollout: Rollout, micro_batch: int | None = None) -> tuple[Tensor, Tensor]:
    """The log-probability of each action and the entropy of each choice, nats (B, T), without gradient.

    Args: micro_batch, rows at a time for a language model, which reads equal rows once; all at once if None.
    """
    if not hasattr(policy, "logits_at"):
        logits = policy(rollout.observations)
        return action_logprobs(lambda _: logits, rollout), entropies(logits)
    first, which = distinct_rows(rollout)
    scores = rollout.logprobs.new_zeros(2, len(first), rollout.mask.shape[1])
    with gathered(policy):
        for piece, rows in micro_batches(take_rows(rollout, first), micro_batch, _shares_prompts(policy)):
            logits = policy.logits_at(piece.observations, piece.mask)
            logprobs = action_logprobs(SimpleNamespace(logits_at=lambda *_, known=logits: known), piece)
            choices = torch.zeros_like(logprobs).masked_scatter(piece.mask, entropies(logits).to(logprobs.dtype))
            scores[:, rows, : piece.mask.shape[1]] = torch.stack((logprobs, choices)).to(scores)
    return tuple(scores[:, which])
