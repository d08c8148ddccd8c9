"""Tasks: verifiers that know right from wrong, a split that holds, and rewards that are checked one by one."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from ptlearn.pocket import tasks as pocket
from ptlearn.rl import tasks
from ptlearn.rl.tasks import Problem, Task, pass_at_k, prompt_texts, score


def judged_by(verifier, low=0.0, high=1.0):
    problem = Problem("2 + 2?", verifier)
    return Task("sums", (problem,), (problem,), max_new_tokens=4, low=low, high=high)


def test_prompts_are_chat_prompts_where_the_task_is_a_chat(llama_lm):
    from ptlearn.lm.models import load_lm

    lm = load_lm("pocket-s")
    task = pocket.arithmetic(train=2, held_out=1)
    assert prompt_texts(lm, task, task.train[:1]) == [f"User: {task.train[0].prompt}\nAssistant:"]
    reviews = pocket.sentiment()
    assert prompt_texts(llama_lm, reviews, reviews.train[:2]) == [problem.prompt for problem in reviews.train[:2]]
    with pytest.raises(ValueError, match="has no chat template"):
        prompt_texts(llama_lm, task, task.train)


# ---------------------------------------------------------------- rewards


def test_a_verifier_that_raises_is_named_with_prompt_and_completion():
    task = judged_by(lambda text: 1 / 0)
    with pytest.raises(ValueError) as error:
        score(task, task.train, ["four\nor five"])
    message = str(error.value)
    assert message == (
        "the verifier of task 'sums' raised ZeroDivisionError('division by zero'): "
        "prompt '2 + 2?', completion 'four\\nor five'"
    )
    assert isinstance(error.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("reward", "shown"),
    [
        (float("nan"), "nan"), (float("inf"), "inf"), (torch.tensor(1.0), r"tensor\(1\.\)"), ("1", "'1'"),
        (None, "None"), (1.5, r"1\.5"), (-0.1, r"-0\.1"), ([1.0], r"\[1\.0\]"), (np.ones(2), r"array\("),
    ],
)  # fmt: skip
def test_a_reward_that_is_no_number_in_range_is_one_line(reward, shown):
    task = judged_by(lambda text: reward)
    with pytest.raises(ValueError, match=f"^the verifier of task 'sums' returned {shown}") as error:
        score(task, task.train, ["four"])
    assert "expected a number from 0 to 1: prompt '2 + 2?', completion 'four'" in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_of_every_kind_within_the_declared_range():
    for reward in (True, 1, 1.0, np.float32(1), np.int64(1)):
        task = judged_by(lambda text, reward=reward: reward)
        assert score(task, task.train, ["x"]) == [1.0]
    wide = judged_by(lambda text: -3, low=-5, high=5)
    assert score(wide, wide.train, ["x"]) == [-3.0]


def test_no_problems_or_too_few_completions_are_one_line():
    task = judged_by(len)
    with pytest.raises(ValueError, match="^task 'sums' was given no problems: expected at least one$"):
        score(task, [], [])
    with pytest.raises(ValueError, match="^completions: 1 given for 2 problems, expected one for each$"):
        score(task, task.train * 2, ["x"])


# ---------------------------------------------------------------- pass@k


@pytest.mark.parametrize("samples", [1, 4, 6])
def test_pass_at_k_is_the_share_of_choices_with_a_success(samples):
    for successes in range(samples + 1):
        outcomes = [True] * successes + [False] * (samples - successes)
        for k in range(1, samples + 1):
            choices = list(itertools.combinations(outcomes, k))
            assert pass_at_k(successes, samples, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-15)


def test_pass_at_k_is_unbiased_and_the_plug_in_is_not():
    """Over all numbers of successes among n = 5 of a problem that is solved with probability p."""
    p, n, k = 0.3, 5, 3
    binomial = [len(list(itertools.combinations(range(n), c))) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    truth = 1 - (1 - p) ** k
    assert sum(b * pass_at_k(c, n, k) for c, b in enumerate(binomial)) == pytest.approx(truth, abs=1e-14)
    assert abs(sum(b * (1 - (1 - c / n) ** k) for c, b in enumerate(binomial)) - truth) > 0.02


def test_pass_at_k_refuses_what_was_not_sampled():
    for arguments, message in (((1, 4, 5), "^k=5: expected between 1 and samples=4$"), ((1, 4, 0), "^k=0"),
                               ((5, 4, 1), "^successes=5: expected between 0 and samples=4$")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            pass_at_k(*arguments)


# ---------------------------------------------------------------- GSM8K


def line(question="How many?", answer="2+3=<<2+3=5>>5 apples.\n#### 5"):
    return json.dumps({"question": question, "answer": answer})


def test_gsm8k_reads_questions_and_verifies_final_numbers(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(line() + "\n\n" + line(answer="It is negative.\n#### -1,250"), encoding="utf-8")
    first, second = tasks.read_gsm8k(path)
    assert (first.prompt, first.response) == ("How many?", "2+3=5 apples.\n#### 5")
    right = ("#### 5", "2 + 3 = 5", "There are 5.", "It costs $5.00", "First 7.\n#### 5")
    wrong = ("#### 15", "5 - 1 = 4", "five", "", "The answer is 5\n#### 6", "0.5", "-5")
    assert [first.score(text) for text in right] == [1.0] * 5
    assert [first.score(text) for text in wrong] == [0.0] * 7
    assert second.score("-1250") == 1 and second.score("#### -1,250.") == 1 and second.score("1250") == 0
    task = tasks.gsm8k(path, path)
    assert score(task, task.train, [problem.response for problem in task.train]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("9 * 2 = 18\n#### 18\n\nQuestion: Tom has 5 apples", 1),
        ("#### 7\n\nQuestion: Ann has 18 pens", 0),
        ("#### 18\nAnn has 5.\n#### 5", 0),  # the last #### counts
        ("#### 5\nNo.\n#### 18", 1),
        ("#### $18 for 2 days", 1),
        ("#### 18\r\nAnn has 5.", 1),
        ("18\n####", 0),
        ("18\n#### none", 0),
        ("####\nAnn has 18 pens", 0),
        ("so 18", 1),
    ],
)
def test_gsm8k_reads_the_first_number_after_the_last_hashes_on_their_line(tmp_path, completion, reward):
    path = tmp_path / "problems.jsonl"
    path.write_text(line(answer="9 * 2 = 18\n#### 18"), encoding="utf-8")
    assert tasks.read_gsm8k(path)[0].score(completion) == reward


def test_gsm8k_stops_where_a_model_asks_a_question_of_its_own(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(line(), encoding="utf-8")
    task = tasks.gsm8k(path, path)
    for runs_on in ("#### 5\n\nQuestion: Tom", "#### 5\nUser: Why?"):
        assert any(string in runs_on for string in task.stop)
    assert not any(string in task.train[0].response for string in task.stop)


# ---------------------------------------------------------------- signs


# minus sign, hyphens, figure and en dash, small and full-width hyphen
@pytest.mark.parametrize("minus", "-\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d")
def test_a_minus_is_one_however_it_is_written(minus):
    score = tasks.ends_on(-2)
    for text in ("It is -2", "It is -2.", "3 - 5 = -2", "-$2"):
        assert score(text.replace("-", minus)) == 1, text
    for text in ("48-2", "1990-2", "- 2", "2"):
        assert score(text.replace("-", minus)) == 0 and tasks.ends_on(2)(text.replace("-", minus)) == 1, text
    assert tasks.ends_on(18)("The answer\u201418") == 1  # a long dash divides


@pytest.mark.parametrize("mark", ",\u00a0\u2009\u202f\uff0c")
def test_digits_are_grouped_by_commas_and_spaces_that_do_not_break(mark):
    assert tasks.ends_on(1_234_567)(f"1{mark}234{mark}567 in all") == 1
    assert tasks.ends_on(7)(f"1{mark} 7") == 1


def test_digits_of_other_scripts_are_digits():
    assert tasks.ends_on(18)("\uff11\uff18") == tasks.ends_on(18)("\u0661\u0668") == 1
    assert tasks.ends_on(5)("5 m\u00b2") == 1  # a raised two is none


def test_a_number_is_one_whatever_holds_it():
    for number in (42, 42.0, "42", np.int64(42), np.float32(42), torch.tensor(42)):
        assert tasks.ends_on(number)("40 + 2 = 42") == 1 and tasks.ends_on(number)("43") == 0
    assert tasks.ends_on(0.1)("0.10") == tasks.ends_on(100_000)("1e5") == tasks.ends_on("-0.0015")("-1.5e-3") == 1
    assert tasks.ends_on(5)("1e5") == 0 and tasks.ends_on(2)("1e2x5 2") == 1
    for number in ("", "four", None, math.nan, math.inf, torch.ones(2)):
        with pytest.raises(ValueError, match="^number=(.|\n)*: expected a finite number$"):
            tasks.ends_on(number)


def test_sign_and_point_belong_to_a_number():
    for gold, other in (("-3", "3"), ("3.5", "3 5"), ("3.5", "35")):
        assert tasks.matches(f"it is {gold}")(f"It is {gold}.") == 1
        assert tasks.matches(gold)(other) == tasks.matches(other)(gold) == 0
    assert tasks.matches("4-3")("4-3") == tasks.matches("a b")("a - b.") == 1


@pytest.mark.parametrize("verifier", [tasks.matches, tasks.in_place])
def test_a_gold_without_words_is_refused(verifier):
    for gold in ("", " \n"):
        with pytest.raises(ValueError, match="^gold=.*: expected a word"):
            verifier(gold)
    with pytest.raises(ValueError, match="^gold='[+]': expected a word or a number$"):
        tasks.matches("+")


# right and left quotes, high-reversed, modifier letter, prime, acute, grave, full-width
@pytest.mark.parametrize("quote", "'\u2019\u2018\u201b\u02bc\u2032\u00b4`\uff07")
def test_an_apostrophe_and_an_accent_are_the_same_however_they_are_written(quote):
    written = f"L{quote}eau du cafe\u0301."
    for gold in ("l'eau du caf\u00e9", "l\u2019eau du cafe\u0301"):
        assert tasks.matches(gold)(written) == 1 and tasks.matches(gold)("l'eau du cafe") == 0
    assert tasks.bleu("L'eau du caf\u00e9.")(written) == 1
    assert tasks.in_place("l'eau du caf\u00e9.")(written.lower()) == 1
    assert tasks.matches("l'eau")(f"{quote}l'eau{quote}") == 1  # quotation marks are punctuation


def test_what_takes_no_room_does_not_count():
    assert tasks.matches("co-operate now")("\ufeffco\u2011oper\u00adate\u200b now") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line() + "\n{", "line 2: not JSON"),
        ('{"question": "Why?"}', "line 1: expected the strings question and answer"),
        (line(answer="five"), "line 1: the answer ends with 'five', expected #### and a number"),
        (line(answer="5\n#### none"), "line 1: the answer ends with .*expected #### and a number"),
    ],
)
def test_what_is_not_gsm8k_is_one_line_with_its_number(tmp_path, text, message):
    path = tmp_path / "problems.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        tasks.read_gsm8k(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nowhere"):
        tasks.read_gsm8k(tmp_path / "nowhere.jsonl")
