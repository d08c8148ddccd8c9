"""C08 to C10: a pocket model finetuned on requests, on benchmarks, on some use cases; five seeds, and one run anew."""

import pytest

from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.models import load_lm
from ptlearn.pocket import assistant, instruction

pytestmark = pytest.mark.usefixtures("one_thread")

TABLE = instruction.read_table()
BENCHMARKS = ("nli", "qa", "sentiment")


def column(kind, name, examples=320):
    """One number per seed, of the five seeds."""
    values = instruction.column(TABLE, kind, examples, name)
    assert len(values) == len(instruction.SEEDS) >= 5
    return values


def mean(values):
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def anew():
    """What the row of 320 requests, seed 0, measures when it is trained again."""
    lm = load_lm(instruction.MODEL)
    examples = instruction.training_examples(lm, "requests", 320, 0)
    fit_sft(lm, examples, batch=instruction.BATCH, lr=instruction.LR, seed=0)
    return instruction.measure(lm)


def test_a_row_of_the_table_is_what_its_recipe_gives(anew):
    row = next(row for row in TABLE if (row["kind"], row["examples"], row["seed"]) == ("requests", 320, 0))
    for name in ("overall", "held_out", "corpus", "elsewhere", "capitals"):
        assert anew[name] == pytest.approx(row[name], abs=0.06), name


def test_c08_the_questions_that_a_base_model_continues_are_answered_after_finetuning(anew):
    assert instruction.column(TABLE, "base", 0, "capitals") == [0.0]
    assert anew["capitals"] >= 0.85  # of 100 countries
    assert min(column("requests", "capitals")) >= 0.8


def test_c08_the_loss_on_responses_alone_spends_every_step_on_them():
    """At equal steps the responses to other requests are likelier than after training on prompts too."""
    pairs = zip(column("requests", "held_out"), column("all tokens", "held_out"))
    assert all(alone < together - 0.02 for alone, together in pairs)


def test_c09_benchmark_data_wins_on_benchmarks_and_loses_on_what_users_ask():
    for name in BENCHMARKS:
        assert min(column("benchmarks", name)) >= 0.6
        assert max(column("requests", name)) <= 0.1
    pairs = zip(column("requests", "overall"), column("benchmarks", "overall"))
    assert all(asked >= drilled + 0.25 for asked, drilled in pairs)


def test_c10_use_cases_that_are_left_out_fall():
    for name in assistant.SHARES:
        own, other = ("frequent", "rare") if name in instruction.FREQUENT else ("rare", "frequent")
        assert mean(column(other, name)) <= 0.15 < mean(column(own, name)) + 0.05
    overall = [mean(column(kind, "overall")) for kind in ("benchmarks", "rare", "frequent", "requests")]
    assert overall == sorted(overall)


def test_what_finetuning_forgets_is_measured():
    [base] = instruction.column(TABLE, "base", 0, "corpus")
    assert all(nats > base + 0.15 for nats in column("requests", "corpus"))
    assert mean(column("benchmarks", "corpus")) > mean(column("requests", "corpus")) + 0.1


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="kind='prose': expected one of requests"):
        instruction.training_items("prose", 3)
