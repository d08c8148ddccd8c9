"""The contest of lesson 12: a start of one's own, answers that are counted, a score from what a model says."""

import copy

import pytest
import torch

from ptlearn.lm.models import load_lm
from ptlearn.pocket import rl_contest


@pytest.fixture
def small(monkeypatch):
    """The contest with a model that costs nothing."""
    monkeypatch.setattr(rl_contest, "MODEL", "pocket-s")
    monkeypatch.setattr(rl_contest, "EXAMPLES", 8)
    return rl_contest.start()


def test_each_start_is_a_copy_and_what_differs_is_seen(small):
    assert rl_contest.start() is not small and not rl_contest.changed(small)
    assert not rl_contest.changed(copy.deepcopy(small))
    with torch.no_grad():
        next(small.parameters()).view(-1)[0] += 1e-3
    assert rl_contest.changed(small) and not rl_contest.changed(rl_contest.start())
    assert rl_contest.changed(load_lm("pocket-m"))  # of another size


def test_answers_are_counted_and_no_more_than_the_budget_is_given(small):
    ask = rl_contest.asker(seed=3, budget=7)
    first = ask(small, 2, 2)
    assert len(first.mask) == 4 and ask.left() == 3
    with pytest.raises(ValueError, match="the budget of 7 answers is used up: 3 are left, 2 prompts with 2"):
        ask(small, 2, 2)
    with pytest.raises(ValueError, match="^group"):
        ask(small, 2, 0)
    assert ask.left() == 3 and len(ask(small, 3, 1).mask) == 3 and ask.left() == 0
    again = rl_contest.asker(seed=3)(small, 2, 2)
    assert torch.equal(again.actions, first.actions)


def test_the_score_is_the_share_of_right_answers(small):
    quiz = [problem for problem in rl_contest._quiz() for _ in range(rl_contest.SAMPLES)]
    right = [str(sum(map(int, problem.prompt.removeprefix("What is ").rstrip("?").split(" + ")))) for problem in quiz]
    assert rl_contest.share_right(right) == 1 and rl_contest.share_right(["0"] * len(right)) == 0
    assert rl_contest.share_right(right[:100] + ["no"] * (len(right) - 100)) == 100 / len(right)
    for said in (right[1:], [*right, "1"]):
        with pytest.raises(ValueError, match=f"expected {len(right)} answers"):
            rl_contest.share_right(said)
    said = rl_contest.answers(small)
    assert len(said) == len(right) and said == rl_contest.answers(small)
    assert not set(rl_contest._quiz()) & set(rl_contest._task().train)
