"""The loop around the estimator: collect, weigh, step; with a history, and a checkpoint to resume from exactly.

    rollout, final = collect(policy, generator)              # a world (collection), or a task (text_collection)
    weights = weigh(rollout, values, bootstrap, logprobs)    # policy_gradient: the only thing that differs
    update(policy, optimizer, rollout, weights)              # one gradient step on the one loss

The policy may be a table or a language model. One for which a forward pass is much work says so with `logits_at` (see
rollout): then nothing is computed twice, and nothing that does not count.

Supervised finetuning is the same loss with weights 1 on other people's text: `fit_sft`.

Deliberately not here: a trainer class, callbacks. A lesson that needs another loop makes it from `update`.
Order: update, fit_critic, History, train_policy; SFTHistory, fit_sft, sft_loss.
"""

import math
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ptlearn.chat import Example, as_packed_rollout, as_rollout, batches_by_length, pack, response_logprobs
from ptlearn.checkpoints import load_checkpoint, read_state, save_checkpoint
from ptlearn.parameter_efficient import adapter_off
from ptlearn.policy_gradient import (
    advantage,
    effective_sample_size,
    entropies,
    episode_returns,
    kl_estimates,
    policy_gradient_loss,
)
from ptlearn.rollout import Rollout, action_logprobs, check_logprobs, condense, distinct_rows, take_rows

Collect = Callable[[nn.Module, torch.Generator], tuple[Rollout, Tensor]]
Weigh = Callable[[Rollout, Tensor, Tensor, Tensor], Tensor]


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


def fit_critic(critic: nn.Module, optimizer: torch.optim.Optimizer, rollout: Rollout, targets: Tensor) -> float:
    """One step of regression: half the mean squared error of V against targets (B, T). Returns the error before it.

    Source: claim C34. With targets from `advantage(..., lam) + values` this is TD(lam).
    """
    errors = (critic(rollout.observations) - targets.detach())[rollout.mask]
    loss = 0.5 * (errors**2).mean()
    optimizer.zero_grad()
    loss.backward()
    apply_gradient(optimizer, math.inf)
    return float(2 * loss.detach())


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


@dataclass
class History:
    """What each update saw, one number per update; every list has the same length, but for those that say otherwise."""

    episodes: list[int] = field(default_factory=list)  # collected so far
    steps: list[int] = field(default_factory=list)  # environment steps so far
    returns: list[float] = field(default_factory=list)  # mean discounted return of the batch, without KL penalty
    entropy: list[float] = field(default_factory=list)  # nats per action
    gradient_norm: list[float] = field(default_factory=list)
    effective_sample_size: list[float] = field(default_factory=list)  # share of the batch, at the last epoch; 1 = fresh
    kl: list[float] = field(default_factory=list)  # to the reference, nats per episode; empty without one
    held_out_update: list[int] = field(default_factory=list)  # updates made when `evaluate` was asked
    held_out: list[float] = field(default_factory=list)  # what it said then

    def record(self, rollout: Rollout, **numbers: float) -> None:
        """Append one update's numbers, and count its episodes and steps."""
        before = (self.episodes[-1], self.steps[-1]) if self.episodes else (0, 0)
        self.episodes.append(before[0] + len(rollout.mask))
        self.steps.append(before[1] + int(rollout.mask.sum()))
        for name, value in numbers.items():
            getattr(self, name).append(float(value))

    def record_held_out(self, updates: int, value: float) -> None:
        self.held_out_update.append(updates)
        self.held_out.append(float(value))


def train_policy(
    policy: nn.Module,
    collect: Collect,
    weigh: Weigh,
    *,
    updates: int,
    lr: float = 0.1,
    critic: nn.Module | None = None,
    critic_lr: float = 0.1,
    gamma: float = 1.0,
    lam: float = 1.0,
    epochs: int = 1,
    micro_batch: int | None = None,
    reference: nn.Module | None = None,
    beta: float = 0.0,
    clip_norm: float = math.inf,
    atol: float = 1e-3,
    seed: int = 0,
    evaluate: Callable[[nn.Module], float] | None = None,
    evaluate_every: int = 10,
    checkpoint: Path | None = None,
    checkpoint_every: int = 50,
    until: Callable[[nn.Module, History], bool] | None = None,
) -> History:
    """Collect, weigh, step, again and again; changes `policy` (and `critic`) and returns what happened.

    Args:   collect(policy, generator) -> (Rollout, final observations (B,));
            weigh(rollout, values, bootstrap, logprobs) -> weights (B, T), where values (B, T) and bootstrap (B,) come
            from the critic (0 without one, and 0 after a terminated episode) and logprobs are the current policy's,
            all without gradient; gamma and lam, of the critic's targets (gamma also of the recorded returns);
            epochs, updates made of each rollout; micro_batch as in `update`; reference, a policy whose distance is
            recorded, or `policy` itself, for a language model with its LoRA adapter off; beta, what a nat of it costs:
            rewards are lowered by beta * k1 before they are weighed; atol as in `check_behavior`; seed, of the
            generator; evaluate, asked for a number before the first update, every `evaluate_every` and after the last;
            checkpoint, a file that is resumed from when it is there; until, tells after an update whether to stop.
    Raises: ValueError naming the update if the rollout is not the policy's own, or a return or gradient is not finite;
            if beta is negative or has no reference, the reference is of another vocabulary, a count is below 1, or the
            checkpoint is of another run (other parameters or settings; more updates are the same run, gone on with).
    """
    check_reference(policy, reference, beta)
    check_counts(
        epochs=epochs, micro_batch=micro_batch, evaluate_every=evaluate_every, checkpoint_every=checkpoint_every
    )
    generator = torch.Generator().manual_seed(seed)
    modules = {"policy": policy} | ({"critic": critic} if critic is not None else {})
    optimizers = {"policy_adam": torch.optim.Adam(policy.parameters(), lr=lr)}
    if critic is not None:
        optimizers["critic_adam"] = torch.optim.Adam(critic.parameters(), lr=critic_lr)
    run = {
        "trained": {name: _trained(module) for name, module in modules.items()}, "lr": lr, "critic_lr": critic_lr,
        "gamma": gamma, "lam": lam, "epochs": epochs, "beta": beta, "clip_norm": clip_norm, "seed": seed,
    }  # fmt: skip
    history = History(**_resumed(checkpoint, run, modules, optimizers, {"generator": generator}))
    learn = partial(
        _learn, weigh=weigh, modules=modules, optimizers=optimizers, history=history, gamma=gamma, lam=lam,
        epochs=epochs, micro_batch=micro_batch, reference=reference, beta=beta, clip_norm=clip_norm, atol=atol,
    )  # fmt: skip
    if evaluate is not None and not history.held_out:
        history.record_held_out(0, evaluate(policy))
    for number in range(len(history.returns), updates):
        try:
            learn(*collect(policy, generator))
        except ValueError as error:
            raise ValueError(f"update {number}: {error}{_kept(checkpoint)}") from error
        last = number + 1 == updates
        if evaluate is not None and (last or (number + 1) % evaluate_every == 0):
            history.record_held_out(number + 1, evaluate(policy))
        over = (until is not None and until(policy, history)) or last
        if checkpoint is not None and (over or (number + 1) % checkpoint_every == 0):
            state = {"run": run, "history": asdict(history)}
            save_checkpoint(checkpoint, state, modules, optimizers, {"generator": generator})
        if over:
            break
    return history


def _learn(
    rollout, final, *, weigh, modules, optimizers, history, gamma, lam, epochs, micro_batch, reference, beta, clip_norm,
    atol,
) -> None:  # fmt: skip
    """All that one rollout teaches: updates of the policy, one regression of the critic, one row of history."""
    policy, critic, mask = modules["policy"], modules.get("critic"), rollout.mask
    numbers = {"returns": episode_returns(rollout.rewards, mask, gamma=gamma).mean()}
    if not math.isfinite(numbers["returns"]):
        raise ValueError(f"the mean return is {float(numbers['returns'])}: expected finite rewards")
    recomputed, choices = score_actions(policy, rollout, micro_batch)
    check_logprobs(recomputed, rollout, atol)
    numbers["entropy"] = torch.where(mask, choices, 0).sum() / mask.sum().clamp(min=1)
    if reference is not None:
        kl = kl_estimates(rollout.logprobs, ask_reference(policy, reference, rollout, micro_batch), mask)
        numbers["kl"] = kl.k3.sum(1).mean()
        rollout = replace(rollout, rewards=rollout.rewards - beta * kl.k1)
    values, bootstrap = _values(critic, rollout, final)
    for epoch in range(epochs):
        logprobs = rollout.logprobs if epoch == 0 else score_actions(policy, rollout, micro_batch)[0]
        weights = weigh(rollout, values, bootstrap, logprobs)
        norm = update(policy, optimizers["policy_adam"], rollout, weights, micro_batch=micro_batch, clip_norm=clip_norm)
    if critic is not None:
        targets = values + advantage(rollout.rewards, values, mask, bootstrap, gamma=gamma, lam=lam)
        fit_critic(critic, optimizers["critic_adam"], rollout, targets)
    ratios = torch.where(mask, logprobs - rollout.logprobs, 0).sum(1).exp()
    share = effective_sample_size(ratios) / len(ratios)
    history.record(rollout, gradient_norm=norm, effective_sample_size=share, **numbers)


def _resumed(checkpoint: Path | None, run: dict, modules: dict, optimizers: dict, generators: dict) -> dict:
    """The history in a checkpoint of this run, with everything put back; empty without one."""
    if checkpoint is None or not checkpoint.exists():
        return {}
    saved = read_state(checkpoint).get("run", {})
    differing = [f"{name} was {saved.get(name)}, now {run[name]}" for name in run if saved.get(name) != run[name]]
    if differing:
        raise ValueError(f"checkpoint {checkpoint} is of another run: {'; '.join(differing)}")
    return load_checkpoint(checkpoint, modules, optimizers, generators)["history"]


def _trained(module: nn.Module) -> int:
    """How many numbers change."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _kept(checkpoint: Path | None) -> str:
    return f"; the last checkpoint is {checkpoint}" if checkpoint is not None and checkpoint.exists() else ""


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


def _values(critic: nn.Module | None, rollout: Rollout, final: Tensor) -> tuple[Tensor, Tensor]:
    """V before each step (B, T), and after the last one (B,), where the episode goes on."""
    values, bootstrap = torch.zeros_like(rollout.rewards), rollout.rewards.new_zeros(len(rollout.mask))
    if critic is None:
        return values, bootstrap
    with torch.no_grad():
        values = critic(rollout.observations)
        if not rollout.terminated.all():  # one token alone is no state of a text, but a text always terminates
            bootstrap = torch.where(rollout.terminated, 0, critic(final[:, None])[:, 0])
    return values, bootstrap


def ask_reference(policy, reference, rollout: Rollout, micro_batch: int | None) -> Tensor:
    """The reference's log-probability of each action, (B, T); `policy` itself means that its LoRA adapter is off."""
    if reference is not policy:
        return score_actions(reference, rollout, micro_batch)[0]
    with adapter_off(policy):
        return score_actions(policy, rollout, micro_batch)[0]


def check_reference(policy, reference, beta: float) -> None:
    """Raise ValueError unless beta >= 0 has a reference to measure from, and both have one vocabulary."""
    if not beta >= 0 or (beta and reference is None):
        raise ValueError(f"beta={beta}: expected a number from 0 on, and a reference")
    tokenizers = [getattr(model, "tokenizer", None) for model in (policy, reference)]
    if None not in tokenizers and tokenizers[0].get_vocab() != tokenizers[1].get_vocab():
        sizes = [len(tokenizer) for tokenizer in tokenizers]
        raise ValueError(f"reference {reference.name!r} has a vocabulary of {sizes[1]} tokens, the policy another of "
                         f"{sizes[0]}: expected the same")  # fmt: skip


# ---------------------------------------------------------------- supervised finetuning


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


def check_counts(**counts: int | None) -> None:
    """Raise ValueError naming the first count below 1; None is one that was not given."""
    for name, given in counts.items():
        if given is not None and given < 1:
            raise ValueError(f"{name}={given}: expected at least 1")
