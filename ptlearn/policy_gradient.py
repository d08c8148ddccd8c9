"""One loss for the whole course, and the weights that turn it into each method.

    loss = -(1/N) sum over episodes and steps of  weights * log pi(a_t | s_t)

Supervised finetuning has weights 1 (and divides by tokens), REINFORCE the total return, actor-critic an advantage,
PPO a clipped ratio times an advantage: only the weights change, and they never carry a gradient. The value of the
loss means nothing; look at returns, gradient norm, entropy and the effective sample size.

Deliberately not here: where log-probabilities come from (rollout), and the step that calls backward (optimization).
Order: the loss; returns; the one backward recursion; several episodes in a row; baselines; importance ratios, also
truncated or self-normalised; clipping; distance to a reference; what to look at.
All tensors are (B, T), B episodes of T steps, unless a docstring says otherwise; mask is True where the policy acted.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ptlearn.rollout import check_counts, upcast


def policy_gradient_loss(
    logprobs: Tensor, weights: Tensor, mask: Tensor, normalizer: float | Tensor | None = None
) -> Tensor:
    """The loss whose gradient is minus the policy gradient estimate: weights scale it, they do not carry one.

    Args:    logprobs (B, T) nats, with gradient; weights (B, T) without; mask (B, T) bool; normalizer, what the sum
             is divided by: by default the number of episodes, which makes the estimate of grad J unbiased. Pass the
             whole batch's number when the batch is split.
    Returns: scalar, to be minimised.
    Raises:  ValueError if weights require grad, shapes differ, or logprobs or weights are not floating.
    Source:  Williams 1992; Schulman et al. 2016 (GAE), eq. 1, whose Psi_t are the weights. Claim C26.
    >>> logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    >>> policy_gradient_loss(logprobs, torch.tensor([[3.0, 5.0]]), torch.tensor([[True, False]]))
    tensor(3., grad_fn=<DivBackward0>)
    """
    _check_shapes(logprobs=logprobs, weights=weights, mask=mask)
    if weights.requires_grad:
        raise ValueError("weights require grad: expected them detached, they scale the gradient")
    normalizer = len(logprobs) if normalizer is None else normalizer
    # both are cut off before the product: 0 * inf on padding would be NaN, in the gradient too
    return -(torch.where(mask, weights, 0) * torch.where(mask, logprobs, 0)).sum() / normalizer


# ---------------------------------------------------------------- returns


def discounts(mask: Tensor, *, gamma: float) -> Tensor:
    """gamma^t at the t-th action of an episode, t counted from 0; 0 where mask is False: (B, T) float64.

    >>> discounts(torch.tensor([[False, True, True]]), gamma=0.5)
    tensor([[0.0000, 1.0000, 0.5000]], dtype=torch.float64)
    """
    # not float32, whose 0.9 is off by 3e-8: products with float64 rewards would be no better
    return torch.where(mask, torch.tensor(gamma, dtype=torch.float64) ** (mask.cumsum(1) - 1).clamp(min=0), 0.0)


def episode_returns(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """r(tau): the discounted sum of an episode's rewards, (B,).

    >>> episode_returns(torch.tensor([[1.0, 1.0]]), torch.tensor([[True, True]]), gamma=0.5)
    tensor([1.5000])
    """
    _check_shapes(rewards=rewards, mask=mask)
    return (torch.where(mask, rewards, 0) * discounts(mask, gamma=gamma).to(rewards.dtype)).sum(1)


def total_return(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Every action gets the return of its whole episode: REINFORCE as the log-derivative trick gives it.

    Returns: (B, T), 0 where mask is False.
    Source:  Williams 1992. Claims C26, C27.
    >>> total_return(torch.tensor([[1.0, 2.0]]), torch.tensor([[True, True]]))
    tensor([[3., 3.]])
    """
    return episode_returns(rewards, mask, gamma=gamma)[:, None] * mask


def advantage(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap: Tensor, *, gamma: float = 1.0, lam: float = 1.0
) -> Tensor:
    """How much better an action was than expected: generalized advantage estimation, the one backward recursion.

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t),    A_t = delta_t + gamma lam A_{t+1}

    lam = 0 is the TD residual; lam = 1 the return minus V; values = 0 with lam = 1 the reward-to-go.

    Args:    rewards, values (B, T), V at the observation before each action; mask (B, T) bool; bootstrap (B,), V after
             the last step: 0 where the episode terminated; gamma, lam in [0, 1].
    Returns: (B, T) without gradient, 0 where mask is False; nothing leaks from one row to another.
    Raises:  ValueError on shapes that differ, integer rewards or values, or gamma or lam outside [0, 1].
    Source:  Schulman et al. 2016, eq. 11 and 16. Claims C33, C34.
    >>> r, v, m = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[True, True]])
    >>> advantage(r, v, m, torch.zeros(1), gamma=1.0, lam=0.0)
    tensor([[0.0000, 0.5000]])
    """
    _check_shapes(rewards=rewards, values=values, mask=mask)
    _check_rows(rewards, bootstrap=bootstrap)
    for name, given in (("gamma", gamma), ("lam", lam)):
        if not 0 <= given <= 1:
            raise ValueError(f"{name}={given}: expected a number in [0, 1]")
    # in bfloat16 a sum of ones would end at 256
    earned, values, next_value = upcast(rewards), upcast(values.detach()), upcast(bootstrap.detach())
    running = torch.zeros_like(next_value)
    # columns taken apart at once: indexing them one by one costs as much as the recursion
    steps, sums = list(zip(earned.unbind(1), values.unbind(1), mask.unbind(1))), []
    for reward, value, acted in reversed(steps):
        residual = reward + gamma * next_value - value
        running = torch.where(acted, residual + gamma * lam * running, running)
        next_value = torch.where(acted, value, next_value)
        sums.append(running)
    return torch.where(mask, torch.stack(sums[::-1], 1), 0).to(rewards.dtype) if steps else torch.zeros_like(rewards)


def reward_to_go(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """The return from each step on, G_t = r_t + gamma G_{t+1}: an action cannot change what came before it.

    With gamma < 1 the unbiased weight for the discounted J is `discounts(mask, gamma=gamma) * reward_to_go(...)`.

    Returns: (B, T), 0 where mask is False.
    Source:  Sutton & Barto 2018, eq. 3.9 (there r_t is R_{t+1}). Claim C30.
    >>> reward_to_go(torch.tensor([[0.0, 1.0]]), torch.tensor([[True, True]]), gamma=0.5)
    tensor([[0.5000, 1.0000]])
    """
    return advantage(rewards, torch.zeros_like(rewards), mask, rewards.new_zeros(len(rewards)), gamma=gamma, lam=1.0)


def n_step_advantage(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap: Tensor, *, n: int, gamma: float = 1.0
) -> Tensor:
    """n rewards, then the critic: the sum of n discounted TD residuals.

        A_t = r_t + gamma r_{t+1} + ... + gamma^n V(s_{t+n}) - V(s_t)

    Args:    as `advantage`; n, steps before the critic takes over, at least 1 (1 is the TD residual).
    Returns: (B, T) without gradient, 0 where mask is False.
    Source:  Sutton & Barto 2018, eq. 7.1. Claim C34.
    >>> r, v, m = torch.tensor([[1.0, 1.0, 1.0]]), torch.zeros(1, 3), torch.tensor([[True, True, True]])
    >>> n_step_advantage(r, v, m, torch.zeros(1), n=2)
    tensor([[2., 2., 1.]])
    """
    check_counts(n=n)
    _check_shapes(rewards=rewards, values=values, mask=mask)
    acted = mask.sum(1)
    residuals = advantage(upcast(rewards), values, mask, bootstrap, gamma=gamma, lam=0.0)
    # residuals of the k-th action of each row, side by side, so that holes in the mask do not count as steps
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    packed = residuals.gather(1, order)
    total = torch.zeros_like(packed)
    for k in range(min(n, packed.shape[1])):
        total[:, : packed.shape[1] - k] += gamma**k * packed[:, k:]
    valid = torch.arange(packed.shape[1], device=mask.device) < acted[:, None]
    return torch.zeros_like(total).scatter(1, order, torch.where(valid, total, 0)).to(rewards.dtype)


class Episodes(NamedTuple):
    """What `advantage` takes, one row per episode; see `split_episodes`."""

    rewards: Tensor
    values: Tensor
    mask: Tensor
    bootstrap: Tensor


def split_episodes(rewards: Tensor, values: Tensor, done: Tensor, bootstrap: Tensor) -> Episodes:
    """A row for each episode, out of a buffer whose rows hold several one after another: what `advantage` takes.

    The way back into the buffer's shape is `found[episodes.mask].view_as(rewards)`.

    Args:    rewards, values (N, T); done (N, T) bool, True at the last step of an episode (CleanRL notes it one step
             later); bootstrap (N,), V after the buffer's last step, counted where that episode is not done. To an
             episode that a time limit ended before, add gamma * V(final observation) to its last reward.
    Returns: rewards, values, mask (B, longest), bootstrap (B,): the episodes of the first row, of the second, ...
    >>> rewards, done = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[False, True, False]])
    >>> episodes = split_episodes(rewards, torch.zeros(1, 3), done, torch.tensor([8.0]))
    >>> advantage(*episodes)[episodes.mask].view_as(rewards)
    tensor([[ 3.,  2., 12.]])
    """
    _check_shapes(rewards=rewards, values=values, done=done)
    _check_rows(rewards, bootstrap=bootstrap)
    last = done.clone()
    last[:, -1] = True
    ends = last.flatten().nonzero()[:, 0]
    lengths = ends.diff(prepend=ends.new_tensor([-1]))
    mask = torch.arange(int(lengths.max()) if len(lengths) else 0, device=done.device) < lengths[:, None]
    rows = [torch.zeros_like(mask, dtype=each.dtype).masked_scatter(mask, each) for each in (rewards, values)]
    return Episodes(*rows, mask, torch.where(done, 0, bootstrap[:, None])[last])


# ---------------------------------------------------------------- baselines


def mean_baseline(values: Tensor, mask: Tensor | None = None, groups: Tensor | None = None) -> Tensor:
    """The average over the batch (or over the rows of the same group), each row included.

    Including itself makes weights minus baseline too small by the factor 1 - 1/N: the bias of order 1/N of claim C31.

    Args:    values (B,), or (B, T) for one average per step; mask, like values, which of them count (default all);
             groups (B,) int, rows that are averaged together (default one group).
    Returns: like values, 0 where mask is False.
    >>> mean_baseline(torch.tensor([1.0, 3.0]))
    tensor([2., 2.])
    """
    total, count, mask = _group_sums(values, mask, groups)
    return torch.where(mask, total / count.clamp(min=1), 0)


def leave_one_out(values: Tensor, mask: Tensor | None = None, groups: Tensor | None = None) -> Tensor:
    """The average over the *other* rows (of the same group): a baseline that does not know its own sample.

    Args and Returns as `mean_baseline`; 0 where no other row counts.
    Source:  Kool et al. 2019; RLOO, Ahmadian et al. 2024, eq. 9. Claim C31.
    >>> leave_one_out(torch.tensor([1.0, 2.0, 6.0]))
    tensor([4.0000, 3.5000, 1.5000])
    """
    total, count, mask = _group_sums(values, mask, groups)
    return torch.where(mask & (count > 1), (total - values) / (count - 1).clamp(min=1), 0)


def standardized(values: Tensor, groups: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    """GRPO's advantage: how many standard deviations a value lies above the mean of its group.

        (r - mean) / (std + eps),  with the unbiased std

    The division makes every group count alike, however small its differences: a bias that Dr. GRPO, which subtracts
    the mean alone, does without.

    Args:    values (B,); groups (B,) int (default one group); eps > 0, in the unit of the values (TRL: 1e-4).
    Returns: (B,), exactly 0 in a group of equal values.
    Source:  Shao et al. 2024 (GRPO), section 4.1; Liu et al. 2025 (Dr. GRPO).
    >>> standardized(torch.tensor([0.0, 1.0, 5.0, 5.0]), torch.tensor([0, 0, 1, 1]))
    tensor([-0.7071,  0.7071,  0.0000,  0.0000])
    """
    _check_positive(eps=eps)
    group = _numbered(values, groups)
    # counted from one of the group's own values: the deviations of equal ones are 0 then, and not rounding over eps
    shifted = values - torch.empty_like(values).scatter(0, group, values)[group]
    total, count, _ = _group_sums(shifted, None, group)
    deviations = shifted - total / count
    squares, _, _ = _group_sums(deviations**2, None, group)
    return deviations / ((squares / (count - 1).clamp(min=1)).sqrt() + eps)


def prompt_groups(observations: Tensor, mask: Tensor) -> Tensor:
    """Which rows belong together: those that saw the same up to their first action, such as the same prompt.

    Returns: (B,) int, numbers of groups, for `mean_baseline`, `leave_one_out` and `standardized`.
    >>> observations = torch.tensor([[7, 8, 1], [7, 9, 1], [7, 8, 2]])
    >>> prompt_groups(observations, torch.tensor([[False, True, True]] * 3))
    tensor([0, 1, 0])
    """
    first = mask.to(torch.uint8).argmax(1, keepdim=True)
    steps = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(steps <= first, observations, -1).unique(dim=0, return_inverse=True)[1]


def optimal_baseline(squared_norms: Tensor, returns: Tensor) -> Tensor:
    """The constant baseline with the least variance: E[|g|^2 r] / E[|g|^2], with g = grad log p(tau).

    Args:    squared_norms (B,), the squared norm of each episode's score; returns (B,).
    Returns: scalar.
    Source:  Greensmith et al. 2004. Claim C31.
    >>> optimal_baseline(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 4.0]))
    tensor(3.)
    """
    return (squared_norms * returns).sum() / squared_norms.sum()


# ---------------------------------------------------------------- data of another policy


def trajectory_ratio(logprobs: Tensor, behavior_logprobs: Tensor, mask: Tensor) -> Tensor:
    """pi(tau) / mu(tau) of the whole episode, at each of its steps: unbiased with Monte Carlo returns.

    Args:    logprobs, behavior_logprobs (B, T) nats of the same actions; mask (B, T) bool.
    Returns: (B, T) without gradient, 0 where mask is False.
    Source:  Precup et al. 2000. Claims C36-C38.
    >>> p, m = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[True, True]])
    >>> trajectory_ratio(p, torch.tensor([[0.25, 0.5]]).log(), m)
    tensor([[2., 2.]])
    """
    return torch.where(mask, _log_ratio(logprobs, behavior_logprobs, mask).sum(1, keepdim=True).exp(), 0)


def prefix_ratio(logprobs: Tensor, behavior_logprobs: Tensor, mask: Tensor) -> Tensor:
    """pi / mu of the actions up to and including each step: unbiased with a TD residual of the exact V.

    >>> p, m = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[True, True]])
    >>> prefix_ratio(p, torch.tensor([[0.5, 0.25]]).log(), m)
    tensor([[1., 2.]])
    """
    return torch.where(mask, _log_ratio(logprobs, behavior_logprobs, mask).cumsum(1).exp(), 0)


def step_ratio(logprobs: Tensor, behavior_logprobs: Tensor, mask: Tensor) -> Tensor:
    """pi(a_t | s_t) / mu(a_t | s_t): biased, since states still come from mu; PPO's choice (claim C37).

    >>> p, m = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[True, True]])
    >>> step_ratio(p, torch.tensor([[0.25, 0.5]]).log(), m)
    tensor([[2., 1.]])
    """
    return torch.where(mask, _log_ratio(logprobs, behavior_logprobs, mask).exp(), 0)


def truncated_ratio(logprobs: Tensor, behavior_logprobs: Tensor, mask: Tensor, *, cap: float = 2.0) -> Tensor:
    """min(pi / mu, cap) at each step: corrects for a sampler that rounds otherwise than the learner.

    Such a sampler is a policy mu of its own, close to pi at every step; the cap bounds the variance where rounding
    pulled the two apart, at the price of a bias that is 0 where it does not bind.

    Args:    logprobs, of the learner, behavior_logprobs, of the sampler, (B, T) nats; mask (B, T) bool; cap > 0.
    Returns: (B, T) without gradient, 0 where mask is False.
    Source:  Ionides 2008, truncated importance sampling; Yao et al. 2025, "Your efficient RL framework secretly brings
             you off-policy RL training".
    >>> p, m = torch.tensor([[0.5, 0.9]]).log(), torch.tensor([[True, True]])
    >>> truncated_ratio(p, torch.tensor([[0.4, 0.3]]).log(), m)
    tensor([[1.2500, 2.0000]])
    """
    _check_positive(cap=cap)
    return step_ratio(logprobs, behavior_logprobs, mask).clamp(max=cap)


def self_normalized(ratios: Tensor, mask: Tensor) -> Tensor:
    """Ratios divided, step by step, by their mean over all episodes: biased by O(1/N), far less variance.

    An episode that is over keeps the ratio of its last action: with those still acting alone, the mean would estimate
    P_pi(alive) / P_mu(alive) instead of 1, and no N would repair that. Before its first action a ratio is 1.

    Args:    ratios (B, T), `trajectory_ratio` or `prefix_ratio`; mask (B, T) bool. Not `step_ratio`: its mean is 1 over
             those that act, and an ended episode's last one says nothing: divide by `mean_baseline(ratios, mask)`.
    Returns: (B, T), 0 where mask is False.
    Source:  Precup et al. 2000 (weighted importance sampling). Claim C36.
    >>> self_normalized(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[True, True], [True, False]]))
    tensor([[0.5000, 0.8000],
            [1.5000, 0.0000]])
    """
    _check_shapes(ratios=ratios, mask=mask)
    latest = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1).cummax(1).values
    carried = torch.where(latest < 0, 1, ratios.gather(1, latest.clamp(min=0)))
    return torch.where(mask, ratios / carried.mean(0), 0)


def clipped_weights(
    ratios: Tensor, advantages: Tensor, *, epsilon: float = 0.2, epsilon_high: float | None = None
) -> Tensor:
    """PPO as weights: ratio times advantage, and 0 where the ratio has moved past 1 +- epsilon in its favour.

    The gradient of min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A) is exactly this times grad log pi.

    Args:    ratios (B, T), `step_ratio` of the current policy; advantages (B, T); epsilon > 0; epsilon_high > 0, for
             the side above 1 (default epsilon; a larger one, "clip-higher", leaves room to unlikely actions).
    Returns: (B, T) without gradient.
    Source:  Schulman et al. 2017 (PPO), eq. 7; Yu et al. 2025 (DAPO), section 3.1. Claim C38.
    >>> clipped_weights(torch.tensor([[1.5, 1.5, 1.1]]), torch.tensor([[1.0, -1.0, 1.0]]))
    tensor([[ 0.0000, -1.5000,  1.1000]])
    """
    low, high = _clip_range(epsilon, epsilon_high)
    gone = torch.where(advantages > 0, ratios > high, ratios < low)
    return torch.where(gone, 0, ratios * advantages).detach()


def clipped_surrogate(
    logprobs: Tensor, behavior_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, epsilon: float = 0.2,
    epsilon_high: float | None = None, normalizer: float | Tensor | None = None,
) -> Tensor:  # fmt: skip
    """PPO's loss as published, for who logs its value; its gradient is that of the one loss with `clipped_weights`.

    Args:    logprobs, of the current policy, with gradient, behavior_logprobs and advantages (B, T); mask (B, T) bool;
             epsilon, epsilon_high as in `clipped_weights`; normalizer as in `policy_gradient_loss`.
    Returns: scalar, to be minimised: minus the sum of min(ratio A, clip(ratio) A) over the normalizer.
    >>> p, m = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[True, True]])
    >>> clipped_surrogate(p, torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, -1.0]]), m)
    tensor(-0.4000)
    """
    _check_shapes(logprobs=logprobs, behavior_logprobs=behavior_logprobs, advantages=advantages, mask=mask)
    ratios, advantages = torch.where(mask, upcast(logprobs) - behavior_logprobs, 0).exp(), advantages.detach()
    gains = torch.minimum(ratios * advantages, ratios.clamp(*_clip_range(epsilon, epsilon_high)) * advantages)
    return policy_gradient_loss(gains, torch.ones_like(gains), mask, normalizer)


# ---------------------------------------------------------------- distance to a reference


class KLEstimates(NamedTuple):
    """Three numbers for each action that a policy took; see `kl_estimates`."""

    k1: Tensor
    k2: Tensor
    k3: Tensor


def kl_estimates(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> KLEstimates:
    """How far a policy is from a reference, judged by actions that the policy took: KL(policy || reference).

        k1 = -log r,   k2 = (log r)^2 / 2,   k3 = r - 1 - log r,   with r = reference / policy

    k1 and k3 have the KL as their mean; k3 is never negative and varies less where r is near 1; k2 is biased. The
    penalty belongs into the rewards, r_t - beta * k1: then the gradient is that of J - beta * KL of whole episodes.

    Args:    logprobs, reference_logprobs (B, T) nats of the same actions; mask (B, T) bool.
    Returns: k1, k2, k3, each (B, T) without gradient, 0 where mask is False.
    Source:  Schulman 2020, "Approximating KL divergence".
    >>> p, m = torch.tensor([[0.5]]).log(), torch.tensor([[True]])
    >>> [round(float(k), 4) for k in kl_estimates(p, torch.tensor([[0.25]]).log(), m)]
    [0.6931, 0.2402, 0.1931]
    """
    k1 = _log_ratio(logprobs, reference_logprobs, mask)
    return KLEstimates(k1, k1**2 / 2, (-k1).expm1() + k1)


def kl_divergence(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(policy || reference) over all actions, exactly: sum over a of p(a) (log p(a) - log q(a)), in nats.

    Args:    logits, reference_logits (..., A). Returns: (...).
    >>> kl_divergence(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    tensor(0.1438)
    """
    logprobs, reference = (upcast(each).log_softmax(-1) for each in (logits, reference_logits))
    # an action that the policy never takes adds nothing, whatever the reference thinks of it
    return (logprobs.exp() * torch.where(logprobs.isneginf(), 0, logprobs - reference)).sum(-1)


# ---------------------------------------------------------------- what to look at


def effective_sample_size(ratios: Tensor) -> Tensor:
    """How many on-policy episodes the weighted ones are worth: (sum w)^2 / sum w^2, between 1 and B.

    Args:    ratios (B,), one weight per episode.
    Source:  Kong 1992. Claim C38.
    >>> effective_sample_size(torch.tensor([1.0, 1.0, 0.0]))
    tensor(2.)
    """
    return ratios.sum() ** 2 / (ratios**2).sum()


def entropies(logits: Tensor) -> Tensor:
    """-sum p log p over the actions of each choice, in nats: (..., A) -> (...)."""
    logprobs = upcast(logits).log_softmax(-1)
    # an impossible action has p = 0 and log p = -inf: it adds nothing, and its gradient is not 0 * inf
    return -(logprobs.exp() * torch.where(logprobs.isinf(), 0, logprobs)).sum(-1)


def entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over acted steps of -sum p log p over the actions, in nats (not the mean of -log p of the taken ones).

    Args:    logits (B, T, A); mask (B, T) bool. Returns: scalar.
    >>> entropy(torch.zeros(1, 1, 2), torch.tensor([[True]]))
    tensor(0.6931)
    """
    return torch.where(mask, entropies(logits), 0).sum() / mask.sum().clamp(min=1)


# ---------------------------------------------------------------- inside


def _check_shapes(**tensors: Tensor) -> None:
    """Raise ValueError unless all are tensors (B, T), the last of them bool and the others floating."""
    _check_tensors(**tensors)
    first, *_, last = tensors
    expected = tuple(tensors[first].shape)
    if len(expected) != 2:
        raise ValueError(f"{first} has shape {expected}: expected (B, T)")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {expected}, as {first} has")
        if not (tensor.dtype == torch.bool if name == last else tensor.is_floating_point()):
            raise ValueError(f"{name} has dtype {tensor.dtype}: expected {'bool' if name == last else 'float'}")


def _check_tensors(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}: expected a tensor")


def _check_rows(rows: Tensor, **tensors: Tensor) -> None:
    _check_tensors(**tensors)
    for name, tensor in tensors.items():
        if tensor.shape != rows.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {tuple(rows.shape[:1])}")


def _check_positive(**numbers: float) -> None:
    for name, given in numbers.items():
        if not given > 0:
            raise ValueError(f"{name}={given}: expected a number above 0")


def _clip_range(epsilon: float, epsilon_high: float | None) -> tuple[float, float]:
    epsilon_high = epsilon if epsilon_high is None else epsilon_high
    _check_positive(epsilon=epsilon, epsilon_high=epsilon_high)
    return 1 - epsilon, 1 + epsilon_high


def _log_ratio(logprobs: Tensor, behavior_logprobs: Tensor, mask: Tensor) -> Tensor:
    _check_shapes(logprobs=logprobs, behavior_logprobs=behavior_logprobs, mask=mask)
    return torch.where(mask, upcast(logprobs.detach()) - behavior_logprobs, 0)


def _numbered(values: Tensor, groups: Tensor | None) -> Tensor:
    """The number of each row's group, counted from 0, (B,); one group if None."""
    _check_tensors(values=values)
    groups = torch.zeros(len(values), dtype=torch.long, device=values.device) if groups is None else groups
    _check_rows(values, groups=groups)
    return groups.unique(return_inverse=True)[1]


def _group_sums(values: Tensor, mask: Tensor | None, groups: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Sum and number of the values that count, over each row's group, beside each row; and the mask."""
    _check_tensors(values=values)
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    if mask.shape != values.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected {tuple(values.shape)}, as values has")
    values, group = upcast(values), _numbered(values, groups)  # in bfloat16 a count would end at 256
    sums = values.new_zeros(int(group.max()) + 1 if len(group) else 0, *values.shape[1:])
    if 1 < len(values) == len(sums):
        raise ValueError(f"groups are {len(values)} of one row each: expected rows that share one, to be compared")
    total = sums.index_add(0, group, torch.where(mask, values, 0))[group]
    count = sums.index_add(0, group, mask.to(values.dtype))[group]
    return total, count, mask
