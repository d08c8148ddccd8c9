"""The loop around the estimator: collect, weigh, step; with a history, and checkpoints that resume exactly.

    rollout, final = collect(policy, generator)              # a world: collection, or text
    weights = weigh(rollout, values, bootstrap, logprobs)    # policy_gradient: the only thing that differs
    update(policy, optimizer, rollout, weights)              # one gradient step on the one loss

Deliberately not here: a trainer class, callbacks, schedules. A lesson that needs another loop makes it from `update`.
Order: update, fit_critic, History, train_policy, checkpoints.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptlearn.policy_gradient import advantage, effective_sample_size, entropy, episode_returns, policy_gradient_loss
from ptlearn.rollout import Rollout, action_logprobs, check_behavior

Collect = Callable[[nn.Module, torch.Generator], tuple[Rollout, Tensor]]
Weigh = Callable[[Rollout, Tensor, Tensor, Tensor], Tensor]


def update(
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    weights: Tensor,
    *,
    normalizer: float | None = None,
    clip_norm: float = math.inf,
) -> float:
    """One gradient step on `policy_gradient_loss`; returns the gradient's norm before clipping.

    Args:   policy (B, T) -> (B, T, A); weights (B, T) without gradient; normalizer as in the loss (default: episodes);
            clip_norm, the largest norm of a step.
    Raises: ValueError if the gradient is not finite; the parameters are then as before.
    """
    loss = policy_gradient_loss(action_logprobs(policy, rollout), weights, rollout.mask, normalizer)
    return _step(loss, optimizer, clip_norm)


def fit_critic(critic: nn.Module, optimizer: torch.optim.Optimizer, rollout: Rollout, targets: Tensor) -> float:
    """One step of regression: half the mean squared error of V against targets (B, T). Returns the error before it.

    Source: claim C34. With targets from `advantage(..., lam) + values` this is TD(lam).
    """
    errors = (critic(rollout.observations) - targets.detach())[rollout.mask]
    loss = 0.5 * (errors**2).mean()
    _step(loss, optimizer, math.inf)
    return float(2 * loss.detach())


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float) -> float:
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    if not math.isfinite(norm):
        raise ValueError(f"the gradient's norm is {norm}: expected a finite number (are rewards and weights finite?)")
    optimizer.step()
    return norm


@dataclass
class History:
    """What each update saw, one number per update; every list has the same length."""

    episodes: list[int] = field(default_factory=list)  # collected so far
    steps: list[int] = field(default_factory=list)  # environment steps so far
    returns: list[float] = field(default_factory=list)  # mean discounted return of the batch
    entropy: list[float] = field(default_factory=list)  # nats per action
    gradient_norm: list[float] = field(default_factory=list)
    effective_sample_size: list[float] = field(default_factory=list)  # share of the batch, at the last epoch; 1 = fresh

    def record(self, rollout: Rollout, **numbers: float) -> None:
        """Append one update's numbers, and count its episodes and steps."""
        before = (self.episodes[-1], self.steps[-1]) if self.episodes else (0, 0)
        self.episodes.append(before[0] + len(rollout.mask))
        self.steps.append(before[1] + int(rollout.mask.sum()))
        for name, value in numbers.items():
            getattr(self, name).append(float(value))


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
    clip_norm: float = math.inf,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: int = 50,
    until: Callable[[nn.Module, History], bool] | None = None,
) -> History:
    """Collect, weigh, step, again and again; changes `policy` (and `critic`) and returns what happened.

    Args:   collect(policy, generator) -> (Rollout, final observations (B,));
            weigh(rollout, values, bootstrap, logprobs) -> weights (B, T), where values (B, T) and bootstrap (B,) come
            from the critic (0 without one, and 0 after a terminated episode) and logprobs are the current policy's,
            all without gradient; gamma and lam, of the critic's targets (gamma also of the recorded returns);
            epochs, updates made of each rollout; seed, of the generator; checkpoint, a file that is resumed from when
            it is there; until, tells after an update whether to stop.
    Raises: ValueError naming the update if the rollout is not the policy's own, or a return or gradient is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = {"policy": policy} | ({"critic": critic} if critic is not None else {})
    optimizers = {"policy_adam": torch.optim.Adam(policy.parameters(), lr=lr)}
    if critic is not None:
        optimizers["critic_adam"] = torch.optim.Adam(critic.parameters(), lr=critic_lr)
    history = History()
    if checkpoint is not None and checkpoint.exists():
        history = History(**load_checkpoint(checkpoint, modules, optimizers, {"generator": generator}))
    for number in range(len(history.returns), updates):
        try:
            rollout, final = collect(policy, generator)
            _learn(rollout, final, weigh, modules, optimizers, history, gamma, lam, epochs, clip_norm)
        except ValueError as error:
            raise ValueError(f"update {number}: {error}") from error
        over = (until is not None and until(policy, history)) or number + 1 == updates
        if checkpoint is not None and (over or (number + 1) % checkpoint_every == 0):
            save_checkpoint(checkpoint, asdict(history), modules, optimizers, {"generator": generator})
        if over:
            break
    return history


def _learn(rollout, final, weigh, modules, optimizers, history, gamma, lam, epochs, clip_norm) -> None:
    """All that one rollout teaches: updates of the policy, one regression of the critic, one row of history."""
    policy, critic, mask = modules["policy"], modules.get("critic"), rollout.mask
    returns = episode_returns(rollout.rewards, mask, gamma=gamma).mean()
    if not math.isfinite(returns):
        raise ValueError(f"the mean return is {float(returns)}: expected finite rewards")
    with torch.no_grad():
        logits = policy(rollout.observations)
        check_behavior(lambda _: logits, rollout)
        values, bootstrap = torch.zeros_like(rollout.rewards), rollout.rewards.new_zeros(len(mask))
        if critic is not None:
            values = critic(rollout.observations)
            bootstrap = torch.where(rollout.terminated, 0, critic(final[:, None])[:, 0])
    for epoch in range(epochs):
        logprobs = rollout.logprobs
        if epoch > 0:
            with torch.no_grad():
                logprobs = action_logprobs(policy, rollout)
        weights = weigh(rollout, values, bootstrap, logprobs)
        norm = update(policy, optimizers["policy_adam"], rollout, weights, clip_norm=clip_norm)
    if critic is not None:
        targets = values + advantage(rollout.rewards, values, mask, bootstrap, gamma=gamma, lam=lam)
        fit_critic(critic, optimizers["critic_adam"], rollout, targets)
    ratios = torch.where(mask, logprobs - rollout.logprobs, 0).sum(1).exp()
    history.record(
        rollout,
        returns=returns,
        entropy=entropy(logits, mask),
        gradient_norm=norm,
        effective_sample_size=effective_sample_size(ratios) / len(ratios),
    )


# ---------------------------------------------------------------- checkpoints


def save_checkpoint(
    path: Path,
    state: dict,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    generators: dict[str, torch.Generator],
) -> None:
    """Parameters, optimizer states and random states in one safetensors file, with `state` (JSON) as its header.

    Written under a temporary name and renamed: whenever the program is killed, a whole file is there.
    """
    tensors = {f"{name}.{key}": p.detach() for name, module in modules.items() for key, p in module.named_parameters()}
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors |= {name: generator.get_state() for name, generator in generators.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file({key: t.contiguous().clone() for key, t in tensors.items()}, temporary, {"state": json.dumps(state)})
    os.replace(temporary, path)


def read_state(path: Path) -> dict:
    """The plain part of a checkpoint, without loading its tensors."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["state"])


def load_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    generators: dict[str, torch.Generator],
) -> dict:
    """Put everything back that `save_checkpoint` wrote; returns `state`."""
    tensors = load_file(path)
    with torch.no_grad():
        for name, module in modules.items():
            for key, parameter in module.named_parameters():
                parameter.copy_(tensors[f"{name}.{key}"])
    for name, optimizer in optimizers.items():
        saved = optimizer.state_dict() | {"state": {}}
        for key, value in tensors.items():
            if key.startswith(name + "."):
                _, index, entry = key.split(".")
                saved["state"].setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(saved)
    for name, generator in generators.items():
        generator.set_state(tensors[name])
    return read_state(path)
