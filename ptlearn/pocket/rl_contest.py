"""The contest of lesson 12: a language model, a verifier, and 600 answers to learn from.

    lm, ask = start(), asker()
    rollout = ask(lm, prompts=8, group=4)    # 32 of the 600
    share_right(answers(lm))                 # pass@1 on sums that nobody trains on

Deliberately not here: how to learn.
"""

import copy
import functools

import torch

from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import completions
from ptlearn.pocket import assistant, tasks
from ptlearn.rl.text_collection import attempt, collect_text
from ptlearn.rollout import check_counts

BUDGET = 600  # answers
MODEL, EXAMPLES, LR = "pocket-m", 300, 1e-3
SAMPLES, SEED = 4, 1206


def start():
    """The model to begin with, a copy of its own at each call: pocket-m after 300 conversations."""
    return finetuned(MODEL, EXAMPLES)


def finetuned(model: str, examples: int):
    """A model after one epoch on so many conversations about sums and differences, a copy of its own at each call."""
    return copy.deepcopy(_finetuned(model, examples))


@functools.cache
def _finetuned(model: str, examples: int):
    lm = load_lm(model)
    requests = assistant.requests(examples, use_cases=["other"])
    fit_sft(lm, render_all(lm, assistant.conversations(requests))[0], lr=LR)
    return lm


@functools.cache
def _task():
    return tasks.arithmetic()


def asker(seed: int = 0, budget: int = BUDGET):
    """A sampler that counts: ask(policy, prompts, group) -> Rollout, answers of the policy with their rewards.

    `ask.left()` tells how many answers are left.
    Raises (from ask): ValueError where more are asked for than are left, or as `collect_text`.
    """
    generator, left = torch.Generator().manual_seed(seed), budget

    def ask(policy, prompts: int, group: int):
        nonlocal left
        check_counts(prompts=prompts, group=group)
        if prompts * group > left:
            raise ValueError(f"the budget of {budget} answers is used up: {left} are left, "
                             f"{prompts} prompts with {group} answers each are asked for")  # fmt: skip
        left -= prompts * group
        return collect_text(_task(), policy, prompts=prompts, group=group, generator=generator)[0]

    ask.left = lambda: left
    return ask


def changed(lm) -> bool:
    """Whether a model differs from the start."""
    then, now = _finetuned(MODEL, EXAMPLES).state_dict(), lm.state_dict()
    return now.keys() != then.keys() or any(not torch.equal(value, then[name]) for name, value in now.items())


def answers(lm) -> list[str]:
    """What a model says to the held-out sums at temperature 1, several answers to each, in a row."""
    asked = [problem for problem in _quiz() for _ in range(SAMPLES)]
    return completions(lm, attempt(_task(), lm, asked, seed=SEED), _task().stop)


def share_right(said: list[str]) -> float:
    """pass@1, from the answers. Raises: ValueError unless there are as many as `answers` gives."""
    if len(said) != SAMPLES * len(_quiz()):
        raise ValueError(f"said: expected {SAMPLES * len(_quiz())} answers, not {len(said)}")
    asked = [problem for problem in _quiz() for _ in range(SAMPLES)]
    return sum(problem.score(text) for problem, text in zip(asked, said)) / len(said)


def _quiz():
    return _task().held_out[100:]
