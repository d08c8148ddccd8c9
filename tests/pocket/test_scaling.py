"""Nano models: what their budgets pay for, how one is trained, and the table that is shipped."""

import math

import pytest

from ptlearn.pocket import pretrain, scaling

SMALL = 2.5e9  # operations, a few more than the fewest steps at width 8


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch):
    monkeypatch.setattr(scaling, "HELDOUT_TOKENS", 2000)


def test_a_budget_pays_for_whole_steps_of_each_width():
    for width in scaling.LAYERS:
        tokens = scaling.tokens_for(width, 1e11)
        config = pretrain.build(scaling.shape(width)).config
        assert tokens % scaling.PER_STEP == 0
        assert abs(pretrain.training_flops(config, tokens) - 1e11) <= pretrain.training_flops(config, scaling.PER_STEP)


def test_refusals_are_one_line():
    with pytest.raises(ValueError, match=r"^width=7: expected one of 8, 16, [^\n]*$"):
        scaling.train(7, 1e11)
    with pytest.raises(ValueError, match=r"^budget=1e\+09: pays for \d+ steps at width 8, expected at least 20$"):
        scaling.train(8, 1e9)


def test_a_run_learns_and_repeats():
    first, again = (scaling.train(8, SMALL) for _ in range(2))
    del first["seconds"], again["seconds"]
    assert first == again
    assert 4 < first["heldout_loss"] < math.log(pretrain.VOCABULARY)
    assert first["heldout_loss"] != scaling.train(8, SMALL, seed=1)["heldout_loss"]


def test_a_table_that_was_begun_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "LAYERS", {8: 2})
    path = tmp_path / "runs" / "scaling.csv"
    scaling.main(path, [SMALL])
    before = path.read_text()
    scaling.main(path, [SMALL])
    assert path.read_text() == before
    [row] = scaling.table(path)
    assert tuple(row) == scaling.COLUMNS and row["width"] == 8 and row["budget"] == SMALL


def test_the_shipped_table_is_of_the_recipe():
    rows = scaling.table()
    assert {row["budget"] for row in rows} == set(scaling.BUDGETS)
    for row in rows:
        width = int(row["width"])
        assert row["layers"] == scaling.LAYERS[width] and row["tokens"] == scaling.tokens_for(width, row["budget"])
        assert row["flops"] == pytest.approx(row["budget"], rel=0.05)
        assert 1 < row["heldout_loss"] < math.log(pretrain.VOCABULARY)
