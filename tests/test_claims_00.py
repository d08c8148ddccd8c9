"""C01: more pretraining compute lowers held-out perplexity, predictably, measured on the shipped pocket models."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from ptlearn.course.exercise import exercise
from ptlearn.lm.models import load_lm, pocket_models
from ptlearn.lm.text import perplexity, token_logprobs
from ptlearn.pocket import corpus, pretrain, scaling, world
from ptlearn.pocket.cards import loss_table

NAMES = ("pocket-s", "pocket-m", "pocket-l")
TABLES = {name: loss_table(name) for name in pocket_models()}
DOCUMENTS = [corpus.document(index, seed=8_000_000) + corpus.END for index in range(80)]


@pytest.fixture(scope="module")
def models():
    return {name: load_lm(name) for name in NAMES}


@pytest.fixture(scope="module")
def losses(models):
    """For every model, nats and tokens of the same held-out documents: (K,), (K,)."""
    scores = {name: token_logprobs(model, DOCUMENTS) for name, model in models.items()}
    lengths = np.array([len(values) for values in scores["pocket-s"]])
    return {name: np.array([-float(values.sum()) for values in found]) for name, found in scores.items()}, lengths


def interval(nats, lengths):
    """95 % bootstrap interval over documents, nats per token."""
    chosen = np.random.default_rng(0).integers(len(nats), size=(1000, len(nats)))
    return np.quantile(nats[chosen].sum(1) / lengths[chosen].sum(1), [0.025, 0.975])


def test_all_three_sizes_are_shipped():
    assert tuple(TABLES) == NAMES


def test_perplexity_is_a_thousandth_of_guessing(losses):
    nats, lengths = losses
    for name in NAMES:
        assert 1.5 < math.exp(nats[name].sum() / lengths.sum()) < 6, name


def test_the_tables_tell_the_loss_of_the_weights_beside_them(losses):
    nats, lengths = losses
    for name in NAMES:
        low, high = interval(nats[name], lengths)
        # the table scores windows that begin inside a document, which costs a little
        assert low - 0.1 < TABLES[name][-1]["heldout_loss"] < high + 0.15, name


def test_c01_the_middle_model_beats_the_small_one_on_the_same_documents(losses):
    nats, lengths = losses
    low, high = interval(nats["pocket-s"] - nats["pocket-m"], lengths)
    assert 0.02 < low < high < 0.6
    low, high = interval(nats["pocket-s"] - nats["pocket-l"], lengths)
    assert 0.02 < low < high < 0.8


def test_c01_compute_lowers_the_loss_of_every_run():
    for name, rows in TABLES.items():
        peak = max(row["learning_rate"] for row in rows)
        at_peak = [row["heldout_loss"] for row in rows if row["tokens"] > 1e6 and row["learning_rate"] == peak]
        assert rows[0]["heldout_loss"] > 1.5 * rows[-1]["heldout_loss"]
        assert all(after < before + 0.01 for before, after in zip(at_peak, at_peak[1:])), name
        assert rows[-1]["heldout_loss"] == min(row["heldout_loss"] for row in rows)


def test_at_equal_tokens_more_parameters_are_better():
    for fewer, more in zip(NAMES, NAMES[1:]):
        tokens = np.geomspace(1e6, min(rows[-1]["tokens"] for rows in TABLES.values()) / 2, 6)  # learning rate still up
        small, large = (
            np.interp(np.log(tokens), *zip(*[(math.log(row["tokens"]), row["heldout_loss"]) for row in TABLES[name]]))
            for name in (fewer, more)
        )
        assert (small > large + 0.01).all(), (fewer, more)


def test_flops_are_six_per_parameter_and_token_and_attention(models):
    for name, model in models.items():
        row, config = TABLES[name][-1], model.model.config
        attention = 6 * config.num_hidden_layers * config.hidden_size * (pretrain.CONTEXT + 1)
        assert row["flops"] == pytest.approx((6 * model.model.num_parameters() + attention) * row["tokens"], rel=1e-9)


@pytest.fixture(scope="module")
def runs():
    """N and D in millions, budget and loss of the nano models, each (runs,)."""
    keys = ("parameters", "tokens", "budget", "heldout_loss")
    N, D, budget, loss = (np.array([row[key] for row in scaling.table()]) for key in keys)
    return N / 1e6, D / 1e6, budget, loss


def law_of(N, D, loss):
    """The law E + A / N^alpha + B / D^beta of some runs, as a function."""
    law = exercise("0.10").reference(N, D, loss, np.arange(0.1, 1.51, 0.1))
    return lambda N, D: law["E"] + law["A"] * N ** -law["alpha"] + law["B"] * D ** -law["beta"]


def test_compute_lowers_the_best_loss_and_a_middle_size_has_it(runs):
    N, _, budget, loss = runs
    best = [loss[budget == each].min() for each in np.unique(budget)]
    assert (np.diff(best) < -0.05).all()


def test_a_law_of_the_small_budgets_predicts_the_largest(runs):
    N, D, budget, loss = runs
    top = budget == budget.max()
    expected = law_of(N[~top], D[~top], loss[~top])(N[top], D[top])
    assert expected == pytest.approx(loss[top], rel=0.1)
    # no change from the budget before would not pass
    assert loss[~top].min() > 1.05 * loss[top].min()


def test_c01_a_law_of_all_smaller_runs_predicts_the_largest_model(models, runs):
    N, D, _, loss = runs
    sizes = {name: models[name].model.num_parameters() / 1e6 for name in NAMES}
    ends = {name: TABLES[name][-1] for name in NAMES}
    N, D, loss = (np.append(known, [found(name) for name in NAMES[:2]]) for known, found in (
        (N, sizes.get), (D, lambda name: ends[name]["tokens"] / 1e6), (loss, lambda name: ends[name]["heldout_loss"])))
    expected = law_of(N, D, loss)(sizes[NAMES[2]], ends[NAMES[2]]["tokens"] / 1e6)
    assert expected == pytest.approx(ends[NAMES[2]]["heldout_loss"], rel=0.15)


def test_the_floor_knows_how_inventories_are_written(monkeypatch):
    monkeypatch.setattr(world, "WORDS", {"letter": ("a", "b", "c", "d")})
    monkeypatch.setattr(corpus, "SHARES", {"inventory": 1.0})
    rng, draws = random.Random(0), 20_000
    counts = Counter(corpus.KINDS["inventory"](rng) for _ in range(draws))
    assert sum(math.exp(-corpus.inventory_nats(document)) for document in counts) == pytest.approx(1, abs=0.01)
    for document, count in counts.most_common(5):
        assert count / draws == pytest.approx(math.exp(-corpus.inventory_nats(document)), abs=0.006)


def test_no_model_beats_the_entropy_of_random_lists_and_a_trained_one_comes_close(models):
    rng = random.Random(3)
    documents = [corpus.KINDS["inventory"](rng) for _ in range(50)]
    floor = np.array([corpus.inventory_nats(document) for document in documents])
    excess = {}
    for name, model in list(models.items())[:2]:
        scores = token_logprobs(model, [document + corpus.END for document in documents])
        nats, lengths = np.array([-float(s.sum()) for s in scores]), np.array([len(s) for s in scores])
        low, excess[name] = interval(nats - floor, lengths)
        assert low > 0, name
    assert excess["pocket-m"] < 0.6
    assert excess["pocket-m"] < excess["pocket-s"]


def test_likelihood_is_the_label_loss_of_hugging_face(models):
    lm = models["pocket-m"]
    ids = torch.tensor([[0, *lm.tokenizer("The capital of Kenya is Nairobi.")["input_ids"]]])
    with torch.no_grad():
        label_loss = float(lm.model(input_ids=ids, labels=ids).loss)
    assert math.log(perplexity(lm, ["The capital of Kenya is Nairobi."])) == pytest.approx(label_loss, abs=1e-4)
    # a fact the corpus states often: everything after the country is nearly certain
    assert float(token_logprobs(lm, ["The capital of Kenya is Nairobi."])[0][5:].sum().exp()) > 0.5
