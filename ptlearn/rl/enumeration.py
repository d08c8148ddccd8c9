"""All texts of a tiny language model with their probabilities: exact J and its exact gradient, for text.

What `mdp` is for worlds. With 6 tokens and 4 steps there are about a thousand texts, and an expectation is their sum.
Deliberately not here: models small enough (models.toy_lm), sampling (text_collection).
Order: enumerate_texts; text_objective, exact_text_gradient; text_values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ptlearn.lm.text import encode, record
from ptlearn.policy_gradient import episode_returns, prompt_groups, reward_to_go
from ptlearn.rollout import Rollout, action_logprobs


def enumerate_texts(lm, prompts: Sequence[str], *, max_new_tokens: int, limit: int = 100_000) -> tuple[Rollout, Tensor]:
    """Every completion of every prompt: it ends with an end token, or where there is no room for more.

    Args:    prompts, all equally likely and different; max_new_tokens; limit, the number of texts to refuse.
    Returns: (Rollout of N texts, rewards 0 and all terminated; probabilities (N,) that sum to 1).
    Raises:  ValueError if there are more than `limit` texts, or as `text.encode`.
    Source:  claim C39.
    >>> from ptlearn.lm.models import toy_lm
    >>> rollout, probabilities = enumerate_texts(toy_lm(["end", "a", "b"]), [""], max_new_tokens=2)
    >>> rollout.mask.sum(1).tolist(), round(float(probabilities.sum()), 12)
    ([1, 2, 2, 2, 2, 2, 2], 1.0)
    """
    vocabulary = range(lm.model.config.vocab_size)
    if len(prompts) * len(vocabulary) ** max_new_tokens > limit:
        raise ValueError(f"{len(prompts)} prompts, max_new_tokens={max_new_tokens}: expected at most limit={limit} "
                         f"texts over {len(vocabulary)} tokens")  # fmt: skip
    ended, going = [], [[]]
    for _ in range(max_new_tokens):
        longer = [[*ids, token] for ids in going for token in vocabulary]
        ended += [ids for ids in longer if ids[-1] in lm.end_tokens]
        going = [ids for ids in longer if ids[-1] not in lm.end_tokens]
    texts = ended + going
    starts = [start for start in encode(lm, prompts) for _ in texts]
    silent = [torch.zeros(len(ids)) for ids in texts] * len(prompts)
    rollout = record(lm, starts, texts * len(prompts), silent, [True] * len(starts))
    with torch.no_grad():
        logprobs = action_logprobs(lm, rollout)
    rollout = replace(rollout, logprobs=logprobs, rewards=rollout.rewards.to(logprobs.dtype))
    return rollout, logprobs.sum(1).exp() / len(prompts)


def text_objective(lm, rollout: Rollout) -> Tensor:
    """J, the expected return over all texts and prompts: a scalar with gradient in the model's parameters.

        J = mean over prompts of the sum over texts of p(text | prompt) r(text)

    Args:   rollout, from `enumerate_texts`, with rewards (`text_collection.pay`) that do not depend on the policy.
    Source: claim C39.
    """
    prompts = int(prompt_groups(rollout.observations, rollout.mask).max()) + 1
    returns = episode_returns(rollout.rewards, rollout.mask)
    return action_logprobs(lm, rollout).sum(1).exp() @ returns / prompts


def exact_text_gradient(lm, rollout: Rollout) -> Tensor:
    """grad J by autograd through the sum of all probabilities, end to end in the order of the parameters: (P,).

    No log-derivative trick is used. Parameters that are frozen are left out, as in `mdp.exact_gradient`.
    """
    parameters = [parameter for parameter in lm.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(text_objective(lm, rollout), parameters)
    return torch.cat([gradient.flatten() for gradient in gradients])


def text_values(rollout: Rollout, probabilities: Tensor) -> Tensor:
    """V before each action: the expected reward from there on, over all texts that begin with the same tokens.

    Args:    rollout and probabilities, from `enumerate_texts`, with rewards.
    Returns: (N, T), 0 where mask is False.
    """
    values, to_go = torch.zeros_like(rollout.rewards), reward_to_go(rollout.rewards, rollout.mask)
    # the same tokens after another prompt leave room for another number of tokens
    seen = torch.cat([prompt_groups(rollout.observations, rollout.mask)[:, None], rollout.observations], 1)
    for step in range(rollout.mask.shape[1]):
        acted = rollout.mask[:, step]
        prefixes = seen[acted, : step + 2].unique(dim=0, return_inverse=True)[1]
        mass, worth = probabilities[acted], probabilities[acted] * to_go[acted, step]
        sums = values.new_zeros(2, len(mass))
        sums[0].index_add_(0, prefixes, mass)
        sums[1].index_add_(0, prefixes, worth)
        values[acted, step] = (sums[1] / sums[0])[prefixes]
    return values
