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
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ptlearn.checkpoints import load_checkpoint, read_state, save_checkpoint
from ptlearn.finetuning.parameter_efficient import adapter_off
from ptlearn.optimization import apply_gradient, check_counts, score_actions, update
from ptlearn.policy_gradient import (
    advantage,
    effective_sample_size,
    episode_returns,
    kl_estimates,
)
from ptlearn.rollout import Rollout, check_logprobs

Collect = Callable[[nn.Module, torch.Generator], tuple[Rollout, Tensor]]
Weigh = Callable[[Rollout, Tensor, Tensor, Tensor], Tensor]


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
