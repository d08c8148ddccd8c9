"""A language model at work on a task: what `collection` is for worlds, for text.

A prompt is the first state, a token an action, the text so far the state that follows; the verifier pays at the last
token, and then the episode is over, also where the room for the completion was used up. Of several processes each
samples whole groups of its own; what a row says does not depend on how many processes there are.
Deliberately not here: sampling itself (text), tasks and their verifiers (tasks), learning (training).
Order: attempt, collect_text, text_collector; sampled_scores.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ptlearn.lm.text import completions, sample_text, uniform_numbers
from ptlearn.policy_gradient import prompt_groups
from ptlearn.processes import rank, share, size, total
from ptlearn.rl.tasks import Problem, Task, prompt_texts, score
from ptlearn.rollout import Rollout, check_counts

_ROWS = 512  # completions that are sampled at a time in an evaluation
_WINDOW = 20  # collections that are looked back on
_SILENT = 0.95  # share of groups with equal rewards from which on it is said that they teach nothing


def attempt(
    task: Task, lm, problems: Sequence[Problem], *, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, seed: int | Tensor = 0, sample: Callable[..., Rollout] = sample_text,
) -> Rollout:  # fmt: skip
    """Sample one completion for each problem (a repeated one is read once) and pay its reward at its last token.

    Args:    as `sample_text`; sample, that function or another sampler that is called as it is.
    Returns: Rollout of one row per problem, as `sample_text` records it, with every row terminated: nothing comes after
             the verifier's word.
    Raises:  ValueError as `sample_text` and `tasks.score`.
    Source:  claims C39, C40.
    """
    rollout = sample(
        lm, prompt_texts(lm, task, problems), max_new_tokens=task.max_new_tokens, stop=task.stop,
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
    )  # fmt: skip
    rollout = replace(rollout, terminated=torch.ones_like(rollout.terminated))
    return pay(rollout, score(task, problems, completions(lm, rollout, task.stop)))


def pay(rollout: Rollout, rewards: Sequence[float]) -> Rollout:
    """The same rollout with one reward per row, at its last action. Raises: ValueError for more or fewer rewards."""
    steps = torch.arange(rollout.mask.shape[1], device=rollout.mask.device)
    last = torch.where(rollout.mask, steps, -1).max(1).values
    paid = torch.as_tensor(rewards).to(rollout.rewards)
    if paid.shape != rollout.terminated.shape:
        raise ValueError(f"rewards has shape {tuple(paid.shape)}: expected {tuple(rollout.terminated.shape)}")
    return replace(rollout, rewards=torch.where(steps == last[:, None], paid[:, None], 0))


def collect_text(
    task: Task, lm, *, prompts: int = 16, group: int = 8, generator: torch.Generator | None = None, **sampling
) -> tuple[Rollout, Tensor]:
    """Draw training problems and sample a group of completions for each: the counterpart of `collection.collect`.

    Args:    prompts, different problems of the task, of all processes together; group, completions for each, on
             consecutive rows; generator, on the CPU, in the same state on every process: the result depends on it
             alone; sampling, temperature, top_k, top_p and sample of `attempt`.
    Returns: (Rollout of prompts * group rows, the token of each one's last step, (B,) int); of several processes each
             has as many whole groups.
    Raises:  ValueError if prompts or group is below 1, if the task has fewer problems, if prompts is no multiple of the
             number of processes, or as `attempt`.
    """
    check_counts(prompts=prompts, group=group)
    if prompts > len(task.train):
        raise ValueError(f"prompts={prompts}: expected at most {len(task.train)}, the training problems of task "
                         f"{task.name!r}")  # fmt: skip
    if prompts % size():
        raise ValueError(f"prompts={prompts}: expected a multiple of the number of processes, {size()}")
    drawn = torch.randperm(len(task.train), generator=generator)[:prompts].tolist()
    seed = int(torch.randint(2**62, (), generator=generator))
    uniforms = uniform_numbers(prompts * group, task.max_new_tokens, seed).unflatten(0, (prompts, group))
    problems = [task.train[index] for index in share(drawn) for _ in range(group)]
    rollout = attempt(task, lm, problems, seed=share(uniforms).flatten(0, 1), **sampling)
    last = rollout.mask.shape[1] - 1 - rollout.mask.flip(1).to(torch.uint8).argmax(1)
    return rollout, rollout.actions.gather(1, last[:, None])[:, 0]


def text_collector(task: Task, **options) -> Callable[[torch.nn.Module, torch.Generator], tuple[Rollout, Tensor]]:
    """`collect_text` as `training.train_policy` calls it, `collect(lm, generator)`, with its options fixed.

    Warns once if over many collections hardly a group had rewards that differ, naming the task and the share.
    """
    shares: deque[float] = deque(maxlen=_WINDOW)
    warned = False

    def collect(lm, generator: torch.Generator) -> tuple[Rollout, Tensor]:
        nonlocal warned
        rollout, last = collect_text(task, lm, generator=generator, **options)
        shares.append(total(_share_of_equals(rollout)) / size())
        share = sum(shares) / len(shares)
        if len(shares) == _WINDOW and share >= _SILENT and not warned and rank() == 0:
            warned = True
            warnings.warn(
                f"task {task.name!r}: {share:.0%} of the groups of the last {_WINDOW} collections had equal rewards "
                f"(now {float(rollout.rewards.sum(1).mean()):.2f} on average), from which a group baseline learns "
                "nothing: expected a task that is neither solved nor out of reach",
                stacklevel=2,
            )
        return rollout, last

    return collect


def _share_of_equals(rollout: Rollout) -> float:
    rewards, groups = rollout.rewards.sum(1), prompt_groups(rollout.observations, rollout.mask)
    varied = {int(g) for g in groups.unique() if len(rewards[groups == g].unique()) > 1}
    return 1 - len(varied) / len(groups.unique())


def sampled_scores(
    task: Task, lm, problems: Sequence[Problem] | None = None, *, samples: int = 1, seed: int = 0, **sampling
) -> Tensor:
    """The rewards of several sampled completions of each problem, (problems, samples); held-out ones by default.

    Their mean is the expected reward, and with rewards of 0 and 1 that is pass@1; `tasks.pass_at_k` takes the number of
    successes in a row. `sampling` as in `collect_text`. Every process computes all of them.
    """
    problems = task.held_out if problems is None else problems
    rows = [problem for problem in problems for _ in range(samples)]
    rewards = [
        attempt(task, lm, rows[first : first + _ROWS], seed=seed + first, **sampling).rewards.sum(1)
        for first in range(0, max(1, len(rows)), _ROWS)  # none at all is refused by `attempt`
    ]
    return torch.cat(rewards).view(len(problems), samples)
