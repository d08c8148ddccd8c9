"""Completions with rewards: what is paid where, to whom, how often; and what is refused in one line."""

import warnings

import pytest
import torch
from toy_tasks import WORDS, toy_task

from ptlearn.lm.models import toy_lm
from ptlearn.lm.text import completions, sample_text
from ptlearn.policy_gradient import prompt_groups
from ptlearn.rl.enumeration import enumerate_texts
from ptlearn.rl.tasks import Problem
from ptlearn.rl.text_collection import attempt, collect_text, pay, sampled_scores, text_collector
from ptlearn.rollout import check_behavior


@pytest.fixture(scope="module")
def lm():
    return toy_lm(WORDS)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_the_reward_stands_on_the_last_action_and_is_the_verifiers(lm):
    task = toy_task()
    problems = [problem for problem in task.train for _ in range(6)]
    rollout = attempt(task, lm, problems, seed=3)
    texts = completions(lm, rollout)
    assert rollout.terminated.all() and check_behavior(lm, rollout) <= 1e-6
    for row, (problem, text) in enumerate(zip(problems, texts, strict=True)):
        last = int(rollout.mask[row].nonzero()[-1])
        expected = torch.zeros(rollout.mask.shape[1])
        expected[last] = problem.score(text)
        assert torch.equal(rollout.rewards[row], expected)
    assert rollout.rewards.any() and len(set(rollout.mask.sum(1).tolist())) > 1  # of several lengths


def test_paying_needs_no_more_than_the_mask():
    rollout, _ = enumerate_texts(toy_lm(WORDS[:3]), ["", "a"], max_new_tokens=2)
    paid = pay(rollout, range(len(rollout.mask)))
    assert paid.rewards.dtype == torch.float64 and paid.rewards.sum(1).tolist() == list(range(len(rollout.mask)))
    assert ((paid.rewards != 0).sum(1) <= 1).all() and not paid.rewards[~rollout.mask].any()
    rows = len(rollout.mask)
    for rewards in ([1.0], range(rows + 1), 1.0, torch.ones(rows, 1)):
        with pytest.raises(ValueError, match=rf"^rewards has shape \(.*\): expected \({rows},\)$"):
            pay(rollout, rewards)


def test_another_sampler_takes_the_place_of_ours(lm):
    calls = []

    def sample(*given, **options):
        calls.append(options)
        return sample_text(*given, **options | {"temperature": 0.5})

    task = toy_task()
    theirs = sampled_scores(task, lm, samples=2, sample=sample), attempt(task, lm, task.train, sample=sample)
    ours = (sampled_scores(task, lm, samples=2, temperature=0.5), attempt(task, lm, task.train, temperature=0.5))
    assert torch.equal(theirs[0], ours[0]) and torch.equal(theirs[1].actions, ours[1].actions)
    sizes = {"prompts": 2, "group": 3}
    rollout, _ = text_collector(task, **sizes, sample=sample)(lm, seeded(0))
    ours = collect_text(task, lm, **sizes, generator=seeded(0), temperature=0.5)[0]
    assert torch.equal(rollout.actions, ours.actions)
    assert len(calls) == 3 and calls[2]["seed"].shape == (6, task.max_new_tokens)


def test_groups_of_completions_lie_side_by_side(lm):
    rollout, last = collect_text(toy_task(), lm, prompts=3, group=4, generator=seeded(0))
    groups = prompt_groups(rollout.observations, rollout.mask)
    assert groups.view(3, 4).eq(groups.view(3, 4)[:, :1]).all() and len(groups.unique()) == 3
    for row in range(12):
        assert last[row] == rollout.actions[row][rollout.mask[row]][-1]


def test_the_generator_alone_decides(lm):
    def collected(generator):
        return collect_text(toy_task(), lm, prompts=3, group=4, generator=generator)[0]

    one, other = seeded(1), seeded(1)
    for _ in range(2):  # also the state that is left behind
        first, second = collected(one), collected(other)
        assert torch.equal(first.observations, second.observations) and torch.equal(first.logprobs, second.logprobs)
    another = collected(one)
    assert another.mask.shape != first.mask.shape or not torch.equal(another.actions, first.actions)


def test_every_training_problem_is_drawn_and_no_other(lm):
    task, generator = toy_task(), seeded(2)
    starts = set()
    for _ in range(20):
        rollout, _ = collect_text(task, lm, prompts=2, group=1, generator=generator)
        starts |= {tuple(row[: int(kept.to(torch.uint8).argmax()) + 1].tolist())
                   for row, kept in zip(rollout.observations, rollout.mask, strict=True)}  # fmt: skip
    assert len(starts) == 5


def test_mean_scores_are_the_exact_objective(lm):
    task = toy_task()
    scores = sampled_scores(task, lm, samples=1500, seed=4)
    assert scores.shape == (2, 1500)
    for row, problem in enumerate(task.held_out):
        rollout, probabilities = enumerate_texts(lm, [problem.prompt], max_new_tokens=4)
        rewards = torch.tensor([problem.score(text) for text in completions(lm, rollout)], dtype=torch.float64)
        error = float(scores[row].mean() - probabilities @ rewards)
        assert abs(error) < 4 * float(scores[row].std()) / 1500**0.5
    assert torch.equal(scores, sampled_scores(task, lm, samples=1500, seed=4))


# ---------------------------------------------------------------- what is said


def test_rewards_that_are_equal_for_long_are_mentioned_once_with_task_and_share(lm):
    collect = text_collector(toy_task(train=(Problem("a", lambda text: 0.25),)), prompts=1, group=4)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for number in range(60):
            collect(lm, seeded(number))
            assert len(seen) == (number >= 19)
    message = str(seen[0].message)
    assert message.startswith("task 'count': 100% of the groups of the last 20 collections had equal rewards (now 0.25")
    assert "\n" not in message


def test_rewards_that_differ_are_not_mentioned(lm):
    collect = text_collector(toy_task(), prompts=4, group=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(30):
            rollout, last = collect(lm, seeded(number))
    assert len(rollout.mask) == len(last) == 24


BROKEN = {
    "^prompts=0: expected at least 1$": {"prompts": 0},
    "^group=0: expected at least 1$": {"group": 0},
    "^prompts=6: expected at most 5, the training problems of task 'count'$": {"prompts": 6},
    "^temperature=0: expected a finite number above 0$": {"temperature": 0},
}


@pytest.mark.parametrize("message", BROKEN)
def test_bad_counts_are_one_line(lm, message):
    with pytest.raises(ValueError, match=message):
        collect_text(toy_task(), lm, **{"prompts": 2, "group": 2, **BROKEN[message]})


TASKS = {
    "^prompts=1: expected at most 0, the training problems of task 'count'$": {"train": ()},
    "has 1 tokens, with max_new_tokens=64 more than the context: expected at most 64 together$": {
        "train": (Problem("", len),), "max_new_tokens": 64,
    },
    "^the verifier of task 'count' returned nan: expected a number from 0 to 1: prompt 'a', completion '": {
        "train": (Problem("a", lambda text: float("nan")),)
    },
    "^the verifier of task 'count' raised KeyError": {"train": (Problem("a", lambda text: {}[text]),)},
    r"^stop='\\n' would never be met: the tokenizer of 'toy' writes '', expected a string that it can produce$": {
        "stop": ("\n",)
    },
}  # fmt: skip


@pytest.mark.parametrize("message", TASKS)
def test_a_broken_task_is_one_line(lm, message):
    with pytest.raises(ValueError, match=message) as error:
        collect_text(toy_task(**TASKS[message]), lm, prompts=1, group=2)
    assert "\n" not in str(error.value)


def test_no_held_out_problems_are_one_line(lm):
    with pytest.raises(ValueError, match="^task 'count' was given no problems: expected at least one$"):
        sampled_scores(toy_task(held_out=()), lm)


def test_a_stop_string_that_can_be_produced_ends_a_row(lm):
    task = toy_task(stop=("c",))
    rollout = attempt(task, lm, list(task.train) * 20, seed=1)
    tokens = [row[kept].tolist() for row, kept in zip(rollout.actions, rollout.mask, strict=True)]
    assert all(3 not in row[:-1] for row in tokens) and any(row[-1] == 3 for row in tokens)
