"""Supervised finetuning: the one loss with weights 1 on other people's text.

Order: SFTHistory, fit_sft, sft_loss.
"""

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from ptlearn.checkpoints import save_checkpoint
from ptlearn.lm.chat import Example, as_packed_rollout, as_rollout, batches_by_length, pack, response_logprobs
from ptlearn.optimization import apply_gradient, check_counts
from ptlearn.policy_gradient import policy_gradient_loss
from ptlearn.rl.training import _kept, _resumed, _trained
from ptlearn.rollout import Rollout


@dataclass
class SFTHistory:
    """What each step of supervised finetuning saw; losses are nats per response token."""

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # response tokens trained on so far
    held_out_step: list[int] = field(default_factory=list)  # steps done when the held-out loss was taken
    held_out_loss: list[float] = field(default_factory=list)


def fit_sft(
    lm,
    examples: Sequence[Example],
    *,
    epochs: int = 1,
    batch: int = 32,
    micro_batch: int | None = None,
    lr: float = 1e-3,
    warmup: float = 0.1,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
    bf16: bool = False,
    packed: int | None = None,
    held_out: Sequence[Example] = (),
    evaluate_every: int | None = None,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
    progress: Callable[[Sequence], Iterable] = iter,
) -> SFTHistory:
    """Supervised finetuning: the likelihood of the responses goes up. Changes `lm`, and returns what happened.

        loss = -(1 / number of response tokens) sum over response tokens of log p(token | the tokens before it)

    which is `policy_gradient_loss` with weights 1. Only parameters that require grad are trained, so the same call
    serves LoRA and its relatives. The learning rate rises over the first `warmup` of all steps and falls linearly to 0.

    Args:    examples, from `chat.render`; batch, examples per step; micro_batch, rows per forward pass: the gradient
             is the same, the memory less; bf16, forward passes in bfloat16; packed, a row length in tokens: examples
             share rows and do not see each other; held_out, examples whose loss is taken every `evaluate_every` steps
             (default: once an epoch); patience, stop after so many of those without a new best, and leave the weights
             of the best in `lm`; seed, of the order (and of dropout); checkpoint, a file that is resumed from when it
             is there; progress, wraps the steps.
    Raises:  ValueError for no examples, an example without a response or longer than the context, nothing to train, a
             count below 1, a checkpoint of another run; naming the step and the last checkpoint if a loss or gradient
             is not finite.
    Source:  claim C08; Ouyang et al. 2022, section 3.5.
    """
    _check_examples(lm, "examples", examples)
    _check_examples(lm, "held_out", held_out, at_least=0)
    check_counts(epochs=epochs, batch=batch, micro_batch=micro_batch, evaluate_every=evaluate_every)
    parameters = [parameter for parameter in lm.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("lm has no parameter that requires grad: expected some to train")
    plan = _plan(examples, epochs, batch, seed)
    evaluate_every = evaluate_every or -(-len(plan) // epochs)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    best = None if patience is None else nn.ParameterList(p.detach().clone() for p in parameters)
    modules = {"lm": lm} if best is None else {"lm": lm, "best": best}
    run = {
        "examples": len(examples), "checksum": zlib.crc32(repr([tuple(e) for e in examples]).encode()),
        "trained": _trained(lm), "epochs": epochs, "batch": batch, "lr": lr,
        "warmup": warmup, "weight_decay": weight_decay, "clip_norm": clip_norm, "seed": seed, "patience": patience,
    }  # fmt: skip
    history = SFTHistory(**_resumed(checkpoint, run, modules, {"adam": optimizer}, {}))
    lm.train()
    try:
        for step in progress(range(len(history.loss), len(plan))):
            if _out_of_patience(history, patience):
                break
            _set_rate(optimizer, lr * _schedule(step, len(plan), warmup))
            rows = _rows([examples[i] for i in plan[step]], packed)
            try:
                _sft_step(lm, rows, optimizer, history, micro_batch, bf16, clip_norm, seed + step)
            except ValueError as error:
                raise ValueError(f"step {step}: {error}{_kept(checkpoint)}") from error
            last = step + 1 == len(plan)
            if held_out and (last or (step + 1) % evaluate_every == 0):
                _evaluate(lm, held_out, batch, history, parameters, best)
            if checkpoint is not None and (last or (step + 1) % checkpoint_every == 0):
                save_checkpoint(checkpoint, {"run": run, "history": asdict(history)}, modules, {"adam": optimizer}, {})
    finally:
        lm.eval()
    if best is not None and history.held_out_loss:
        _copy(best, parameters)
    return history


@torch.no_grad()
def sft_loss(lm, examples: Sequence[Example], *, batch: int = 32) -> float:
    """Mean of -log p over all response tokens of all examples, nats; dropout off."""
    _check_examples(lm, "examples", examples)
    was_training, total, tokens = lm.training, 0.0, 0
    lm.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens))
    for first in range(0, len(order), batch):
        rollout = _on_device(as_rollout([examples[i] for i in order[first : first + batch]]), lm.device)
        total -= float(response_logprobs(lm, rollout).double().sum())
        tokens += int(rollout.mask.sum())
    lm.train(was_training)
    return total / tokens


def _plan(examples: Sequence[Example], epochs: int, batch: int, seed: int) -> list[list[int]]:
    """For each step the numbers of its examples."""
    rng = random.Random(seed)
    lengths = [len(example.tokens) for example in examples]
    return [rows for _ in range(epochs) for rows in batches_by_length(lengths, batch, rng)]


def _rows(members: list[Example], packed: int | None) -> list[list[Example]]:
    """One example a row, or as many as fit into `packed` tokens."""
    if packed is None:
        return [[example] for example in members]
    return [[members[i] for i in row] for row in pack(members, packed)]


def _sft_step(lm, rows, optimizer, history, micro_batch, bf16, clip_norm, seed) -> None:
    """One step on rows of examples, in pieces whose gradients add up to that of the whole."""
    count = sum(sum(example.mask[1:]) for row in rows for example in row)
    size = len(rows) if micro_batch is None else micro_batch
    optimizer.zero_grad()
    total = 0.0
    with torch.random.fork_rng(devices=[]), torch.autocast(lm.device.type, torch.bfloat16, enabled=bf16):
        torch.manual_seed(seed)
        for first in range(0, len(rows), size):
            piece = rows[first : first + size]
            rollout, segments = as_packed_rollout(piece)
            rollout = _on_device(rollout, lm.device)
            # a row of one example needs no segments: nothing before its padding sees it
            apart = segments.to(lm.device) if max(map(len, piece)) > 1 else None
            logprobs = response_logprobs(lm, rollout, apart)
            loss = policy_gradient_loss(logprobs, torch.ones_like(logprobs), rollout.mask, normalizer=count)
            loss.backward()
            total += float(loss.detach())
    norm = apply_gradient(optimizer, clip_norm)
    history.loss.append(total)
    history.gradient_norm.append(norm)
    history.tokens.append((history.tokens[-1] if history.tokens else 0) + count)


def _evaluate(lm, held_out, batch, history, parameters, best) -> None:
    """Record the held-out loss; where it is a new best, `best` (if any) takes the parameters over."""
    history.held_out_step.append(len(history.loss))
    history.held_out_loss.append(sft_loss(lm, held_out, batch=batch))
    if best is not None and _since_best(history) == 0:
        _copy(parameters, best)


@torch.no_grad()
def _copy(source: Iterable[Tensor], target: Iterable[Tensor]) -> None:
    for old, new in zip(source, target, strict=True):
        new.copy_(old)


def _since_best(history: SFTHistory) -> int:
    """How many held-out losses were taken after the lowest."""
    losses = history.held_out_loss
    return len(losses) - 1 - losses.index(min(losses))


def _out_of_patience(history: SFTHistory, patience: int | None) -> bool:
    return patience is not None and bool(history.held_out_loss) and _since_best(history) >= patience


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate at a step: up in a line, down in a line, never 0."""
    rising = max(1, round(warmup * steps))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising))


def _on_device(rollout: Rollout, device: torch.device) -> Rollout:
    return Rollout(**{f.name: getattr(rollout, f.name).to(device) for f in fields(rollout)})


def _check_examples(lm, name: str, examples: Sequence[Example], at_least: int = 1) -> None:
    if len(examples) < at_least:
        raise ValueError(f"{name} is empty: expected at least one")
    for index, example in enumerate(examples):
        if not any(example.mask[1:]):
            raise ValueError(f"{name}[{index}] has no response token: expected at least one to train on")
        if len(example.tokens) > lm.context:
            raise ValueError(f"{name}[{index}] has {len(example.tokens)} tokens: expected at most the context, "
                             f"{lm.context}")  # fmt: skip


