"""The loop around the estimator: collect, score, weigh, step, record; a checkpoint to resume from exactly.

    rollout, final = collect(policy, generator)              # a world (collection), or a task (text_collection)
    logprobs, entropies = score_actions(policy, rollout)     # optimization: the policy's own word on what was done
    weights = weigh(rollout, values, bootstrap, logprobs)    # policy_gradient: the only thing that differs
    update(policy, optimizer, rollout, weights)              # optimization: one gradient step on the one loss

The policy may be a table or a language model. One for which a forward pass is much work says so with `logits_at` (see
rollout): then nothing is computed twice, and nothing that does not count.

On several processes (ptlearn.processes) each one collects, scores and weighs episodes of its own, and the step is that
of all of them; so whatever is compared in `weigh`, such as the group of a prompt, has to be on one process.
Deliberately not here: a trainer class, callbacks. A lesson that needs another loop makes it from `update`.
Order: History, train_policy, learn; fit_critic; the reference.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ptlearn.checkpoints import Run
from ptlearn.finetuning.parameter_efficient import adapter_off
from ptlearn.optimization import gradient_step, score_actions, update
from ptlearn.policy_gradient import advantage, effective_sample_size, episode_returns, kl_estimates
from ptlearn.processes import averages, gather, most, total
from ptlearn.rollout import Rollout, behavior_tolerance, check_counts, check_logprobs, check_seed

Collect = Callable[[nn.Module, torch.Generator], tuple[Rollout, Tensor]]
Weigh = Callable[[Rollout, Tensor, Tensor, Tensor], Tensor]
Normalize = Callable[[Rollout], float | Tensor]


@dataclass
class History:
    """What each update saw, one number per update; every list has the same length, but for those that say otherwise.

    The numbers are those of the episodes of all processes.
    """

    episodes: list[int] = field(default_factory=list)  # collected so far
    steps: list[int] = field(default_factory=list)  # environment steps so far
    returns: list[float] = field(default_factory=list)  # mean discounted return of the batch, without KL penalty
    length: list[float] = field(default_factory=list)  # steps per episode
    entropy: list[float] = field(default_factory=list)  # nats per action
    gradient_norm: list[float] = field(default_factory=list)
    effective_sample_size: list[float] = field(default_factory=list)  # share of the batch, last epoch; 1 = fresh
    clip_fraction: list[float] = field(default_factory=list)  # of weights not 0 at the first epoch, those 0 at the last
    sampler_gap: list[float] = field(default_factory=list)  # mean |log p - log p as sampled| before the first, nats
    kl: list[float] = field(default_factory=list)  # to the reference, nats per episode; empty without one
    held_out_update: list[int] = field(default_factory=list)  # updates made when `evaluate` was asked
    held_out: list[float] = field(default_factory=list)  # what it said then

    def record(self, rollout: Rollout, **numbers: float) -> None:
        """Append one update's numbers, and count its episodes and steps."""
        before = (self.episodes[-1], self.steps[-1]) if self.episodes else (0, 0)
        self.episodes.append(before[0] + total(len(rollout.mask)))
        self.steps.append(before[1] + total(int(rollout.mask.sum())))
        for name, value in numbers.items():
            getattr(self, name).append(float(value))

    def record_held_out(self, updates: int, value: float) -> None:
        self.held_out_update.append(updates)
        self.held_out.append(float(value))


def train_policy(
    policy: nn.Module, collect: Collect, weigh: Weigh, *, updates: int, lr: float = 0.1,
    critic: nn.Module | None = None, critic_lr: float = 0.1, gamma: float = 1.0, lam: float = 1.0,
    epochs: int = 1, normalizer: Normalize | None = None, micro_batch: int | None = None, clip_norm: float = math.inf,
    reference: nn.Module | None = None, beta: float = 0.0, atol: float | None = None, seed: int = 0,
    evaluate: Callable[[nn.Module], float] | None = None, evaluate_every: int = 10,
    checkpoint: str | os.PathLike | None = None, checkpoint_every: int = 50,
    until: Callable[[nn.Module, History], bool] | None = None,
) -> History:  # fmt: skip
    """Collect, score, weigh, step, again and again; changes `policy` (and `critic`) and returns what happened.

    Args:   collect(policy, generator) -> (Rollout, final observations (B,));
            weigh(rollout, values, bootstrap, logprobs) -> weights (B, T), where values (B, T) and bootstrap (B,) come
            from the critic (0 without one, and 0 after a terminated episode) and logprobs are the current policy's
            (those of the sampler are in the rollout), all without gradient; gamma and lam, of the critic's targets
            (gamma also of the recorded returns); epochs, updates made of each rollout; normalizer(rollout), as in
            `update`: by default the mean over episodes, `mask.sum()` over tokens, `len(mask) * mask.sum(1,
            keepdim=True)` first within each episode; micro_batch as in `update`; reference, a policy whose distance is
            recorded, or `policy` itself, for a language model with its LoRA adapter off; beta, what a nat of it costs:
            rewards are lowered by beta * k1 before they are weighed; atol as in `check_behavior`; seed, of the
            generator; evaluate, asked for a number before the first update, every `evaluate_every` and after the last;
            checkpoint, a file that is resumed from when it is there (functions are yours to keep the same); until,
            tells after an update whether to stop. On several processes each calls all of these; one `until` stops all.
    Raises: ValueError naming the update if the rollout is not the policy's own, or a return or gradient is not finite;
            if beta is negative or has no reference, the reference is of another vocabulary, a count is below 1, or the
            checkpoint is of another run (other parameters, models or settings; more updates are the same run).
    """
    check_reference(policy, reference, beta)
    check_counts(updates=updates, epochs=epochs, evaluate_every=evaluate_every)
    check_counts(none=True, micro_batch=micro_batch)
    atol = behavior_tolerance(policy) if atol is None else atol
    modules, rates = {"policy": policy}, {"policy": lr, "critic": critic_lr}
    if critic is not None:
        modules["critic"] = critic
    run = Run(
        History(), modules, {name: torch.optim.Adam(m.parameters(), lr=rates[name]) for name, m in modules.items()},
        {"generator": torch.Generator().manual_seed(check_seed(seed))},
        settings={"lr": lr, "critic_lr": critic_lr, "gamma": gamma, "lam": lam, "epochs": epochs, "beta": beta,
                  "clip_norm": clip_norm, "seed": seed},
        free={"normalizer": normalizer, "micro_batch": micro_batch, "atol": atol},
        fixed={"reference": reference}, path=checkpoint, every=checkpoint_every,
    )  # fmt: skip
    history = run.resume()
    if evaluate is not None and not history.held_out:
        history.record_held_out(len(history.returns), evaluate(policy))  # 0, or where a run goes on
    if history.returns and _stops(until, policy, history):
        return history  # it was over when it was saved
    for number in range(len(history.returns) + 1, updates + 1):
        with run.naming(f"update {number - 1}"):
            learn(run, weigh, *collect(policy, run.generators["generator"]))
        if evaluate is not None and (number == updates or number % evaluate_every == 0):
            history.record_held_out(number, evaluate(policy))
        over = _stops(until, policy, history) or number == updates
        run.save(number, last=over)
        if over:
            break
    return history


def _stops(until: Callable[[nn.Module, History], bool] | None, policy: nn.Module, history: History) -> bool:
    """Whether it is over for one process, which makes it so for all, also for those that were given no `until`."""
    return bool(most(int(until is not None and bool(until(policy, history)))))


def learn(run: Run, weigh: Weigh, rollout: Rollout, final: Tensor) -> None:
    """All that one rollout teaches: score, weigh, step, record. Source: claims C26, C31, C34, C38."""
    policy, critic, reference = run.modules["policy"], run.modules.get("critic"), run.fixed["reference"]
    given, mask = SimpleNamespace(**run.settings, **run.free), rollout.mask
    returns = _mean_return(rollout, given.gamma)
    logprobs, choices = score_actions(policy, rollout, given.micro_batch)
    check_logprobs(logprobs, rollout, given.atol)
    seen = {"returns": returns, "entropy": _per(mask, choices),
            "length": total(float(mask.sum())) / total(len(mask)),
            "sampler_gap": _per(mask, (logprobs - rollout.logprobs).abs())}  # fmt: skip
    if reference is not None:
        kl = kl_estimates(logprobs, ask_reference(policy, reference, rollout, given.micro_batch), mask)
        seen["kl"] = gather(kl.k3.sum(1)).mean()
        rollout = replace(rollout, rewards=rollout.rewards - given.beta * kl.k1)
    values, bootstrap = _values(critic, rollout, final)
    options = {"micro_batch": given.micro_batch, "clip_norm": given.clip_norm}
    if given.normalizer is not None:
        options["normalizer"] = given.normalizer(rollout)
    for epoch in range(given.epochs):
        if epoch:
            logprobs, _ = score_actions(policy, rollout, given.micro_batch)
        weights = weigh(rollout, values, bootstrap, logprobs)
        seen["gradient_norm"] = update(policy, run.optimizers["policy"], rollout, weights, **options)
        if not epoch:
            counted = mask & (weights != 0)
    if critic is not None:
        targets = values + advantage(rollout.rewards, values, mask, bootstrap, gamma=given.gamma, lam=given.lam)
        fit_critic(critic, run.optimizers["critic"], rollout, targets)
    ratios = gather(torch.where(mask, logprobs - rollout.logprobs, 0).sum(1).exp())
    seen["clip_fraction"] = _per(counted, (weights == 0).to(choices))
    run.history.record(rollout, effective_sample_size=effective_sample_size(ratios) / len(ratios), **seen)


def _per(mask: Tensor, values: Tensor) -> Tensor:
    """The mean over the steps of the mask, of all processes; 0 if there are none."""
    return total(torch.where(mask, values, 0).sum()) / total(mask.sum()).clamp(min=1)


def _mean_return(rollout: Rollout, gamma: float) -> float:
    mean = float(gather(episode_returns(rollout.rewards, rollout.mask, gamma=gamma)).mean())
    if not math.isfinite(mean):
        raise ValueError(f"the mean return is {mean}: expected finite rewards")
    return mean


def fit_critic(critic: nn.Module, optimizer: torch.optim.Optimizer, rollout: Rollout, targets: Tensor) -> float:
    """One step of regression: half the mean squared error of V against targets (B, T). Returns the error before it.

    Source: claim C34. With targets from `advantage(..., lam) + values` this is TD(lam).
    """
    errors = (critic(rollout.observations) - targets.detach())[rollout.mask]
    part = len(errors) / total(len(errors))  # of the steps of all processes
    return 2 * gradient_step(optimizer, [0.5 * (errors**2).mean() * part], averaged=averages(critic))[0]


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
