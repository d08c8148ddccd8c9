"""Supervised finetuning: the likelihood of other people's responses goes up. The one loss, with weights 1.

    rows = ...                                               # the examples of a step, one a row or packed
    logprobs = response_logprobs(lm, rollout)                # lm.chat
    loss = policy_gradient_loss(logprobs, ones, mask, normalizer=response tokens of the step)
    gradient_step(optimizer, [loss])                         # optimization

On several processes (ptlearn.processes) each takes its share of the rows of a step; the numbers are those of one.
Deliberately not here: what an example is (lm.chat), which parameters learn (parameter_efficient).
Order: SFTHistory, fit_sft, sft_loss; the plan of a run; a step.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from ptlearn.checkpoints import Run
from ptlearn.finetuning.parameter_efficient import trainable_parameters
from ptlearn.lm.chat import (
    Example,
    as_packed_rollout,
    as_rollout,
    batches_by_length,
    check_examples,
    pack,
    response_logprobs,
)
from ptlearn.lm.text import evaluation
from ptlearn.optimization import gradient_step
from ptlearn.policy_gradient import policy_gradient_loss
from ptlearn.processes import averages, in_step, rank, share, total
from ptlearn.rollout import Rollout, check_counts, check_seed

_AT_ONCE = 32  # rows that a CPU trains on at a time: more of them take memory and are no faster


@dataclass
class SFTHistory:
    """What each step of supervised finetuning saw; losses are nats per response token."""

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # response tokens trained on so far
    held_out_step: list[int] = field(default_factory=list)  # steps done when the held-out loss was taken
    held_out_loss: list[float] = field(default_factory=list)

    def record(self, loss: float, gradient_norm: float, tokens: int) -> None:
        """Append what one step saw, and count its response tokens."""
        self.loss.append(loss)
        self.gradient_norm.append(gradient_norm)
        self.tokens.append((self.tokens[-1] if self.tokens else 0) + tokens)

    def since_best(self) -> int:
        """How many held-out losses were taken after the lowest; -1 if none was taken."""
        losses = self.held_out_loss
        return len(losses) - 1 - losses.index(min(losses)) if losses else -1


def fit_sft(
    lm, examples: Sequence[Example], *, epochs: int = 1, batch: int = 32, micro_batch: int | None = None,
    lr: float = 1e-3, warmup: float = 0.1, weight_decay: float = 0.0, clip_norm: float = 1.0,
    bf16: bool = False, packed: int | None = None, seed: int = 0,
    held_out: Sequence[Example] = (), evaluate_every: int | None = None, patience: int | None = None,
    checkpoint: str | os.PathLike | None = None, checkpoint_every: int = 100,
    progress: Callable[[Sequence], Iterable] = iter,
) -> SFTHistory:  # fmt: skip
    """Supervised finetuning: the likelihood of the responses goes up. Changes `lm`, and returns what happened.

        loss = -(1 / number of response tokens) sum over response tokens of log p(token | the tokens before it)

    which is `policy_gradient_loss` with weights 1. Only parameters that require grad are trained, so the same call
    serves LoRA and its relatives. The learning rate rises over the first `warmup` of all steps and falls linearly to 0.

    Args:    examples, from `chat.render`; batch, examples per step; micro_batch, rows per forward pass (None: 32 on a
             CPU, elsewhere all): the gradient is the same, the memory less; bf16, forward passes in bfloat16; packed, a
             row length in tokens: examples share rows and do not see each other; seed, of the order (and of dropout);
             held_out, examples whose loss is taken every `evaluate_every` steps (default: once an epoch); patience,
             stop after so many of those without a new best, and leave the weights of the best in `lm`; checkpoint, a
             file that is resumed from when it is there; progress, wraps the steps.
    Raises:  ValueError for no examples, an example without a response or longer than the context or `packed`, nothing
             to train, a count below 1, patience without held_out, a checkpoint of another run; naming the step and the
             last checkpoint if a loss or gradient is not finite.
    Source:  claim C08; Ouyang et al. 2022, section 3.5.
    """
    check_counts(epochs=epochs, batch=batch)
    check_counts(none=True, micro_batch=micro_batch, packed=packed, evaluate_every=evaluate_every, patience=patience)
    _check_examples(lm, "examples", examples, packed=packed)
    _check_held_out(lm, held_out, patience)
    plan, parameters = _plan(examples, epochs, batch, check_seed(seed)), _parameters(lm)
    period = evaluate_every or -(-len(plan) // epochs)
    best = nn.ParameterList([] if patience is None else [p.detach().clone() for p in parameters])
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    run = Run(
        SFTHistory(), {"lm": lm, "best": best}, {"lm": optimizer},
        settings={"epochs": epochs, "batch": batch, "lr": lr, "warmup": warmup, "weight_decay": weight_decay,
                  "clip_norm": clip_norm, "bf16": bf16, "packed": packed, "seed": seed,
                  "evaluate_every": evaluate_every, "patience": patience},
        fixed={"examples": list(examples), "held_out": list(held_out)}, path=checkpoint, every=checkpoint_every,
    )  # fmt: skip
    history = run.resume()
    for step in progress(range(len(history.loss), len(plan))):
        if patience is not None and history.since_best() >= patience:
            run.save(step, last=True)
            break
        rows = _rows([examples[i] for i in plan[step]], packed)
        _set_rate(optimizer, lr * _schedule(step, len(plan), warmup))
        with run.naming(f"step {step}"), _training(lm, seed + step):
            loss, norm = gradient_step(optimizer, _losses(lm, rows, micro_batch, bf16), clip_norm, averages(lm))
        history.record(loss, norm, _response_tokens(rows))
        last = step + 1 == len(plan)
        if held_out and (last or (step + 1) % period == 0):
            _evaluate(lm, held_out, batch, history, best)
        run.save(step + 1, last)
    if history.held_out_loss:
        _copy(best, parameters)
    return history


@torch.no_grad()
def sft_loss(lm, examples: Sequence[Example], *, batch: int = 32) -> float:
    """Mean of -log p over all response tokens of all examples, nats; dropout off. Shared by several processes."""
    _check_examples(lm, "examples", examples)
    check_counts(batch=batch)
    loss, tokens = 0.0, 0
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens))
    with evaluation(lm):
        for first in share(range(0, len(order), batch)):
            rollout = _on_device(as_rollout([examples[i] for i in order[first : first + batch]]), lm.device)
            loss -= float(response_logprobs(lm, rollout).double().sum())
            tokens += int(rollout.mask.sum())
    return total(loss) / total(tokens)


# ---------------------------------------------------------------- the plan of a run


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


def _parameters(lm) -> list[nn.Parameter]:
    parameters = trainable_parameters(lm)
    if not parameters:
        raise ValueError("lm has no parameter that requires grad: expected some to train")
    return parameters


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate at a step: up in a line, down in a line, never 0."""
    rising = max(1, round(warmup * steps))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising))


# ---------------------------------------------------------------- a step


@contextmanager
def _training(lm, seed: int) -> Iterator[None]:
    """Inside, dropout is on, and a function of the seed and of the process's number alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + (rank() << 32))
        lm.train()
        try:
            yield
        finally:
            lm.eval()


def _losses(lm, rows: list[list[Example]], micro_batch: int | None, bf16: bool) -> Iterator[Tensor]:
    """This process's part of the loss of one step, in pieces whose gradients add up to that of the whole."""
    count = _response_tokens(rows)
    # where there are fewer rows than processes, some read one that others count
    own, idle = share(rows) or rows[:1], not share(rows)
    own = sorted(own, key=lambda row: -sum(len(example.tokens) for example in row))  # similar ones: less padding
    size = micro_batch or (_AT_ONCE if lm.device.type == "cpu" else len(own))
    for piece, counts in in_step(lm, [own[first : first + size] for first in range(0, len(own), size)]):
        rollout, segments = as_packed_rollout(piece)
        rollout = _on_device(rollout, lm.device)
        # a row of one example needs no segments: nothing before its padding sees it
        apart = segments.to(lm.device) if max(map(len, piece)) > 1 else None
        with torch.autocast(lm.device.type, torch.bfloat16, enabled=bf16):
            logprobs = response_logprobs(lm, rollout, apart)
        weights = torch.full_like(logprobs, counts and not idle)
        yield policy_gradient_loss(logprobs, weights, rollout.mask, normalizer=count)


def _response_tokens(rows: list[list[Example]]) -> int:
    return sum(sum(example.mask[1:]) for row in rows for example in row)


def _evaluate(lm, held_out: Sequence[Example], batch: int, history: SFTHistory, best: nn.ParameterList) -> None:
    """Record the held-out loss; where it is a new best, `best` (unless it is empty) takes the parameters over."""
    history.held_out_step.append(len(history.loss))
    history.held_out_loss.append(sft_loss(lm, held_out, batch=batch))
    if history.since_best() == 0:
        _copy(trainable_parameters(lm), best)


@torch.no_grad()
def _copy(source: Iterable[Tensor], target: nn.ParameterList | list) -> None:
    """Values from one list of parameters into another; nothing where one of them is empty."""
    for old, new in zip(source, target, strict=False):
        new.copy_(old)


def _on_device(rollout: Rollout, device: torch.device) -> Rollout:
    return Rollout(**{f.name: getattr(rollout, f.name).to(device) for f in fields(rollout)})


def _check_held_out(lm, held_out: Sequence[Example], patience: int | None) -> None:
    _check_examples(lm, "held_out", held_out, at_least=0)
    if patience is not None and not held_out:
        raise ValueError(f"patience={patience} and no held_out: expected examples whose loss says when to stop")


def _check_examples(
    lm, name: str, examples: Sequence[Example], at_least: int = 1, packed: int | None = None
) -> None:  # fmt: skip
    if len(examples) < at_least:
        raise ValueError(f"{name} is empty: expected at least one")
    check_examples(name, examples)
    for index, example in enumerate(examples):
        if not any(example.mask[1:]):
            raise ValueError(f"{name}[{index}] has no response token: expected at least one to train on")
        if len(example.tokens) > lm.context:
            raise ValueError(f"{name}[{index}] has {len(example.tokens)} tokens: expected at most the context, "
                             f"{lm.context}")  # fmt: skip
        if packed is not None and len(example.tokens) > packed:
            raise ValueError(f"{name}[{index}] has {len(example.tokens)} tokens: expected at most packed={packed}")
        if max(example.tokens) >= lm.rows:
            raise ValueError(f"{name}[{index}] has token {max(example.tokens)}: expected those of the embedding, "
                             f"below {lm.rows}")  # fmt: skip


