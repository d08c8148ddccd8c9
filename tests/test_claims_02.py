"""C05 to C07 on the shipped models: demonstrations induce a task, even one that no weight can know, and can mislead."""

import random

import pytest

from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import corpus_bleu, few_shot_prompt
from ptlearn.lm.text import complete
from ptlearn.pocket import probes, relations


@pytest.fixture(scope="module")
def lm():
    return load_lm("pocket-m")


def test_c05_demonstrations_induce_translation(lm):
    rng = random.Random(5)
    episodes = [relations.episode(relations.RELATIONS["french to english"], 4, rng) for _ in range(60)]
    gold = [answer for _, (_, answer) in episodes]
    bleu = []
    for shots in (0, 4):
        prompts = [few_shot_prompt(demonstrations[:shots], query) for demonstrations, (query, _) in episodes]
        bleu.append(corpus_bleu(complete(lm, prompts), gold))
    assert bleu[0] < 30 and bleu[1] > 80


@pytest.mark.parametrize("relation", ["capital", "language", "plural", "add", "region labels", "4 labels"])
def test_c06_more_demonstrations_are_better(lm, relation):
    none, eight = (probes.few_shot(lm, relation, shots, 80).mean for shots in (0, 8))
    assert eight > none + 0.25


def test_c06_no_weight_changes(lm):
    before = [p.clone() for p in lm.parameters()]
    probes.few_shot(lm, "2 labels", 4, 10)
    assert all((a == b).all() for a, b in zip(before, lm.parameters(), strict=True))


def test_c06_larger_models_learn_more_from_context():
    small, medium = (probes.all_relations(load_lm(name), count=15) for name in ("pocket-s", "pocket-m"))
    assert small.high < medium.low


def test_c07_the_choice_matters_and_calibration_helps(lm):
    raw, calibrated = probes.order_spread(lm, count=40, choices=16, seed=1)
    assert max(raw) - min(raw) >= 0.1
    assert max(calibrated) - min(calibrated) <= (max(raw) - min(raw)) * 2 / 3
