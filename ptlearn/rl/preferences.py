"""Learning from pairs: which of two completions is better. Reward models, DPO and best-of-n.

    pairs = label_pairs(rollout, error_rate=0.1)             # a verifier's word, sometimes wrong
    fit_reward_model(model, pairs)                           # then RL: train_policy(lm, paid_by(model, collect), ...)
    fit_dpo(lm, pairs, beta=0.1)                             # or the policy at once, without a reward model

Both minimise the same loss, -log sigma(r(chosen) - r(rejected)). A reward model computes r; in DPO, r is beta times the
log-ratio of the policy to its reference, and then the gradient is that of `policy_gradient_loss` with other weights.
Deliberately not here: reinforcement learning against the model and its KL penalty (training), other people's data.
Order: Pairs, label_pairs; preference_loss, accuracy; RewardModel and its training; DPO; what is best, exactly.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ptlearn.optimization import gradient_step, score_actions
from ptlearn.policy_gradient import policy_gradient_loss, prompt_groups
from ptlearn.rl.policies import hidden_states, scalar_head
from ptlearn.rl.text_collection import pay
from ptlearn.rl.training import Collect, ask_reference, check_reference
from ptlearn.rollout import Rollout, action_logprobs, check_counts, distinct_rows, take_rows

_ROWS = 256  # completions that are scored at a time


class Pairs(NamedTuple):
    """Completions, and P pairs of them as numbers of rows."""

    rollout: Rollout
    chosen: Tensor  # (P,) int
    rejected: Tensor  # (P,) int
    ties: int = 0  # pairs that were left out, since their rewards were equal


def label_pairs(rollout: Rollout, *, error_rate: float = 0.0, seed: int = 0) -> Pairs:
    """All pairs of completions of the same prompt, the better one chosen: by its reward, or sometimes wrongly.

    Args:    rollout, several completions for each prompt, with rewards; error_rate, the probability that the label of
             a pair is the wrong way round, each on its own; seed of these errors.
    Returns: Pairs, without those of equal rewards, which are counted.
    Raises:  ValueError if error_rate is not in [0, 0.5), a row has no action, or no two rewards differ.
    >>> prompts, said, rewards = torch.tensor([[7]] * 3), torch.arange(3)[:, None], torch.tensor([[0.3], [0.8], [0.3]])
    >>> label_pairs(Rollout(prompts, said, rewards, rewards, prompts == 7, prompts[:, 0] == 7))[1:]
    (tensor([1, 1]), tensor([0, 2]), 1)
    """
    if not 0 <= error_rate < 0.5:
        raise ValueError(f"error_rate={error_rate}: expected a number in [0, 0.5), below that of a coin")
    _check_acted(rollout)
    rewards, groups = rollout.rewards.sum(1), prompt_groups(rollout.observations, rollout.mask)
    first, second = (groups[:, None] == groups).triu(1).nonzero().T
    different = rewards[first] != rewards[second]
    ties = int((~different).sum())
    first, second = first[different], second[different]
    if not len(first):
        raise ValueError(f"rollout has {len(rewards)} completions of {int(groups.max()) + 1} prompts and {ties} pairs "
                         "of equal reward: expected a pair of different rewards")  # fmt: skip
    wrong = torch.rand(len(first), generator=torch.Generator().manual_seed(seed)).to(rewards.device) < error_rate
    first_wins = (rewards[first] > rewards[second]) ^ wrong
    return Pairs(rollout, torch.where(first_wins, first, second), torch.where(first_wins, second, first), ties)


# ---------------------------------------------------------------- the loss of a pair


def preference_loss(rewards: Tensor, chosen: Tensor, rejected: Tensor) -> Tensor:
    """How surprising the choices are, if a reward r wins over another with probability sigma(r - r'): Bradley-Terry.

        loss = -mean over pairs of log sigma(r(chosen) - r(rejected))

    Args:    rewards (B,); chosen, rejected (P,) int, the rows of each pair.
    Returns: scalar, nats, with the gradient of the rewards.
    Source:  Bradley & Terry 1952; Ouyang et al. 2022, eq. 1.
    >>> preference_loss(torch.tensor([0.0, 1.0]), torch.tensor([1]), torch.tensor([0]))
    tensor(0.3133)
    """
    return -logsigmoid(rewards[chosen] - rewards[rejected]).mean()


def accuracy(rewards: Tensor, chosen: Tensor, rejected: Tensor) -> float:
    """Share of pairs in which the chosen completion has the higher reward; equal ones count as half.

    With an error rate e in the labels, knowing the truth has 1 - e on average, and nothing has more.

    >>> accuracy(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1, 1]), torch.tensor([0, 2]))
    0.75
    """
    return float(((rewards[chosen] - rewards[rejected]).sign().double().mean() + 1) / 2)


@dataclass
class PreferenceHistory:
    """What each step saw before it was made: the loss in nats per pair, and the share of pairs ranked as labelled."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    held_out_step: list[int] = field(default_factory=list)  # steps done when the held-out pairs were ranked
    held_out_loss: list[float] = field(default_factory=list)
    held_out_accuracy: list[float] = field(default_factory=list)


# ---------------------------------------------------------------- the reward model


class RewardModel(nn.Module):
    """A reward for each completion, linear in what a language model holds at its last token; 0 at the start.

    Everything of it that requires a gradient is trained: freeze the language model for a head on fixed features, put
    LoRA on it, or leave it as it is and all of it learns. It is not the policy: give it a copy of its own.

    Holds: lm; head. Called with a rollout of B rows it returns (B,), with gradient.
    """

    def __init__(self, lm):
        super().__init__()
        self.lm, self.head = lm, scalar_head(lm)

    def forward(self, rollout: Rollout) -> Tensor:
        # the last action is in no observation
        tokens = torch.cat([rollout.observations[:, :1], rollout.actions], 1)
        last = rollout.mask.shape[1] - rollout.mask.flip(1).to(torch.uint8).argmax(1)
        states = hidden_states(self.lm, tokens)
        return self.head(states[torch.arange(len(last), device=last.device), last])[:, 0]


@torch.no_grad()
def model_rewards(model: Callable[[Rollout], Tensor], rollout: Rollout) -> Tensor:
    """The model's reward of each completion, (B,), without gradient; equal completions are read once.

    Raises: ValueError if a row has no action.
    """
    _check_acted(rollout)
    first, which = distinct_rows(rollout)
    return torch.cat([model(take_rows(rollout, rows)) for rows in first.split(_ROWS)])[which]


def paid_by(model: RewardModel, collect: Collect) -> Collect:
    """The same completions with the model's rewards instead of the verifier's, as `training.train_policy` takes them.

    Args:   collect, such as `text_collection.text_collector(task)`.
    Raises: ValueError if the policy is of another vocabulary than the model.
    """

    def collect_and_pay(lm, generator: torch.Generator) -> tuple[Rollout, Tensor]:
        if lm.tokenizer.get_vocab() != model.lm.tokenizer.get_vocab():
            raise ValueError(f"the reward model has a vocabulary of {len(model.lm.tokenizer)} tokens, the policy "
                             f"another of {len(lm.tokenizer)}: expected the same")  # fmt: skip
        rollout, last = collect(lm, generator)
        return pay(rollout, model_rewards(model, rollout)), last

    return collect_and_pay


def fit_reward_model(
    model: RewardModel, pairs: Pairs, *, epochs: int = 1, batch: int = 32, lr: float = 1e-3,
    clip_norm: float = math.inf, held_out: Pairs | None = None, seed: int = 0,
) -> PreferenceHistory:  # fmt: skip
    """Make the rewards of chosen completions higher than those of rejected ones, by `preference_loss`.

    Args:   batch, pairs per step; clip_norm, the largest norm of a step; held_out, pairs that are ranked after every
            epoch; seed, of the order.
    Raises: ValueError if there are no pairs, a count is below 1, nothing requires a gradient or one is not finite.
    Source: Ouyang et al. 2022, section 3.5.
    """
    check_counts(epochs=epochs, batch=batch)
    history, optimizer, generator = PreferenceHistory(), _optimizer(model, lr), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for piece, _ in _batches(pairs, batch, generator):
            rewards = model(piece.rollout)
            loss = preference_loss(rewards, piece.chosen, piece.rejected)
            _step(loss, rewards, piece, optimizer, clip_norm, history)
        if held_out is not None:
            _rank(held_out, model_rewards(model, held_out.rollout), history)
    return history


# ---------------------------------------------------------------- DPO


def implicit_rewards(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """The reward for which a policy is the best one: beta (log pi(completion) - log reference(completion)).

    It is known up to a number for each prompt, which cancels in every pair. See `best_policy`.

    Args:    logprobs, reference_logprobs (B, T) nats; mask (B, T) bool; beta, nats to rewards.
    Returns: (B,).
    Source:  Rafailov et al. 2023 (DPO), eq. 5.
    >>> mask = torch.tensor([[True, True]])
    >>> implicit_rewards(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -2.0]]), mask, beta=0.5)
    tensor([0.5000])
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta={beta}: expected a finite number above 0")
    return beta * torch.where(mask, logprobs - reference_logprobs, 0).sum(1)


def dpo_weights(
    logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, chosen: Tensor, rejected: Tensor, *, beta: float
) -> Tensor:
    """DPO as weights: every token of the chosen completion up, of the rejected one down, the more the less settled.

        +- beta sigma(-margin),    margin = implicit reward of the chosen - that of the rejected

    The gradient of `policy_gradient_loss` with them and the number of pairs as its normalizer is that of
    `preference_loss` of the implicit rewards.

    Args:    as `implicit_rewards`; chosen, rejected (P,) int, the rows of each pair.
    Returns: (B, T) without gradient, 0 where mask is False; a row in several pairs has the sum.
    Source:  Rafailov et al. 2023 (DPO), section 4, the gradient of eq. 7.
    >>> mask = torch.tensor([[True, True], [True, False]])
    >>> dpo_weights(-torch.ones(2, 2), -torch.ones(2, 2), mask, torch.tensor([0]), torch.tensor([1]), beta=0.5)
    tensor([[ 0.2500,  0.2500],
            [-0.2500,  0.0000]])
    """
    rewards = implicit_rewards(logprobs.detach(), reference_logprobs, mask, beta=beta)
    push = beta * torch.sigmoid(rewards[rejected] - rewards[chosen])
    rows = torch.zeros_like(rewards).index_add(0, chosen, push).index_add(0, rejected, -push)
    return torch.where(mask, rows[:, None], 0)


def fit_dpo(
    policy: nn.Module, pairs: Pairs, *, beta: float = 0.1, reference: nn.Module | None = None, epochs: int = 1,
    batch: int = 32, lr: float = 1e-4, clip_norm: float = math.inf, held_out: Pairs | None = None, seed: int = 0,
) -> PreferenceHistory:  # fmt: skip
    """Direct preference optimisation: the one loss with `dpo_weights`, on pairs. Changes `policy`.

    What the reference thinks of the pairs does not change, so it is asked once, before the first step.

    Args:   beta, how dear the distance to the reference is; reference, the policy as it comes in if None; another
            model; or `policy` itself, for a language model with its LoRA adapter off; the others as `fit_reward_model`.
    Raises: ValueError as `fit_reward_model`; if beta <= 0, or the reference is of another vocabulary.
    Source: Rafailov et al. 2023 (DPO), eq. 7.
    """
    check_counts(epochs=epochs, batch=batch)
    check_reference(policy, reference, 0.0)
    history, optimizer, generator = PreferenceHistory(), _optimizer(policy, lr), torch.Generator().manual_seed(seed)
    known = _asked(policy, reference, pairs.rollout)
    held_out_known = None if held_out is None else _asked(policy, reference, held_out.rollout)
    for _ in range(epochs):
        for piece, rows in _batches(pairs, batch, generator):
            mask = piece.rollout.mask
            logprobs, others = action_logprobs(policy, piece.rollout), known[rows, : mask.shape[1]]
            weights = dpo_weights(logprobs, others, mask, piece.chosen, piece.rejected, beta=beta)
            loss = policy_gradient_loss(logprobs, weights, mask, normalizer=len(piece.chosen))
            rewards = implicit_rewards(logprobs, others, mask, beta=beta)
            _step(loss, rewards, piece, optimizer, clip_norm, history)
        if held_out is not None:
            logprobs, mask = score_actions(policy, held_out.rollout, _ROWS)[0], held_out.rollout.mask
            _rank(held_out, implicit_rewards(logprobs, held_out_known, mask, beta=beta), history)
    return history


def _asked(policy: nn.Module, reference: nn.Module | None, rollout: Rollout) -> Tensor:
    """The reference's log-probability of each action, (B, T)."""
    _check_acted(rollout)
    if reference is None:
        return score_actions(policy, rollout, _ROWS)[0]
    return ask_reference(policy, reference, rollout, _ROWS)


# ---------------------------------------------------------------- what is best, exactly


def best_policy(reference: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    """The policy with the highest E[r] - beta KL(policy || reference): reference(y) exp(r(y) / beta), normalised.

    Both RL with a KL penalty and DPO look for it.

    Args:    reference (N,), probabilities of all completions of a prompt; rewards (N,).
    Returns: (N,) probabilities.
    Source:  Rafailov et al. 2023 (DPO), eq. 4.
    >>> best_policy(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 3.0]).log1p(), beta=1.0)
    tensor([0.2000, 0.8000])
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta={beta}: expected a finite number above 0")
    return (reference.log() + rewards / beta).softmax(0)


def best_of_n(probabilities: Tensor, rewards: Tensor, n: int) -> Tensor:
    """How likely each completion is to be the best of n samples, where equal ones are chosen from at random.

        P(highest reward = r) p(y) / P(r),    P(highest reward <= r) = P(reward <= r)^n

    Args:    probabilities (N,) of completions, or 1 / N for N samples; rewards (N,).
    Returns: (N,) probabilities: their product with any reward is its expected value.
    Raises:  ValueError if n is below 1, shapes differ, probabilities do not sum to 1, or a reward is NaN.
    >>> best_of_n(torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.0, 1.0, 1.0]), n=2)
    tensor([0.2500, 0.3750, 0.3750])
    """
    check_counts(n=n)
    if probabilities.shape != rewards.shape or not abs(float(probabilities.sum()) - 1) < 1e-4:
        raise ValueError(f"probabilities have shape {tuple(probabilities.shape)} and sum to "
                         f"{float(probabilities.sum()):.4f}: expected {tuple(rewards.shape)} and 1")  # fmt: skip
    if rewards.isnan().any():
        raise ValueError(f"rewards[{int(rewards.isnan().nonzero()[0])}] is NaN: expected numbers that can be compared")
    levels, level = rewards.unique(return_inverse=True)
    mass = probabilities.new_zeros(len(levels)).index_add(0, level, probabilities)
    up_to = mass.cumsum(0)
    gained = up_to**n - (up_to - mass).clamp(min=0) ** n
    return probabilities * torch.where(mass > 0, gained / mass, 0)[level]


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n: the KL of the best of n samples to one sample, if no two samples are ever equally good.

    Equal samples, also the same one twice, leave less to choose from: then it is an upper bound.

    Source: Stiennon et al. 2020, appendix G.3; Beirami et al. 2024.
    >>> round(best_of_n_kl(4), 4)
    0.6363
    """
    return math.log(n) - (n - 1) / n


# ---------------------------------------------------------------- inside


def _batches(pairs: Pairs, size: int, generator: torch.Generator) -> Iterator[tuple[Pairs, Tensor]]:
    """All pairs in random order, `size` at a time with the rows that they need, and the numbers of these rows."""
    if not len(pairs.chosen):
        raise ValueError("pairs is empty: expected at least one")
    _check_acted(pairs.rollout)
    both = torch.stack([pairs.chosen, pairs.rejected])
    for some in torch.randperm(both.shape[1], generator=generator).split(size):
        rows, which = both[:, some.to(both.device)].unique(return_inverse=True)
        yield Pairs(take_rows(pairs.rollout, rows), *which), rows


def _step(loss, rewards, pairs: Pairs, optimizer, clip_norm: float, history: PreferenceHistory) -> None:
    try:
        norm = gradient_step(optimizer, [loss], clip_norm)[1]
    except ValueError as error:
        raise ValueError(f"step {len(history.loss)}: {error}") from error
    history.gradient_norm.append(norm)
    history.loss.append(float(preference_loss(rewards.detach(), pairs.chosen, pairs.rejected)))
    history.accuracy.append(accuracy(rewards.detach(), pairs.chosen, pairs.rejected))


def _rank(held_out: Pairs, rewards: Tensor, history: PreferenceHistory) -> None:
    history.held_out_step.append(len(history.loss))
    history.held_out_loss.append(float(preference_loss(rewards, held_out.chosen, held_out.rejected)))
    history.held_out_accuracy.append(accuracy(rewards, held_out.chosen, held_out.rejected))


def _optimizer(module: nn.Module, lr: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("nothing requires a gradient: expected some parameters to train")
    return torch.optim.Adam(parameters, lr=lr)


def _check_acted(rollout: Rollout) -> None:
    silent = (~rollout.mask.any(1)).nonzero()
    if len(silent):
        raise ValueError(f"row {int(silent[0])} of the rollout has no action: expected a completion of at least one "
                         "token")  # fmt: skip
