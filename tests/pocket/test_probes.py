"""What the shipped pocket-m can do: each promise of docs/pocket.md, on smaller samples than the document's own."""

import pytest

from ptlearn.lm.models import load_lm
from ptlearn.pocket import probes


@pytest.fixture(scope="module")
def lm():
    return load_lm("pocket-m")


def test_questions_are_continued_and_cloze_is_answered(lm):
    assert probes.capital_questions(lm).mean <= 0.05
    assert probes.capital_cloze(lm).mean >= 0.95


def test_sentiment_by_verbalizer(lm):
    assert probes.sentiment(lm, 200).mean >= 0.88


def test_french_needs_demonstrations(lm):
    assert probes.few_shot(lm, "french to english", 0, 100).mean <= 0.2
    assert probes.few_shot(lm, "french to english", 8, 100).mean >= 0.75


def test_labels_that_no_weight_can_know(lm):
    assert probes.few_shot(lm, "2 labels", 12, 100).mean >= 0.7
    assert probes.few_shot(lm, "4 labels", 16, 100).mean >= 0.7
    assert probes.label_choice(lm, "2 labels", 12, 100).mean >= 0.9
    assert probes.label_choice(lm, "4 labels", 16, 60).mean >= 0.75
    # one demonstration names one label: whoever takes it is right half of the time
    assert 0.3 < probes.label_choice(lm, "2 labels", 1, 100).mean < 0.7


def test_some_rules_need_more_than_one_demonstration(lm):
    for name in ("2 labels", "4 labels", "region labels", "gender labels"):
        one, eight = (probes.few_shot(lm, name, shots, 100).mean for shots in (1, 8))
        assert eight >= 0.6 and one <= 0.7 * eight, name


def test_one_sided_demonstrations_mislead_and_calibration_helps(lm):
    raw, calibrated = probes.order_spread(lm, count=40)
    assert max(raw) - min(raw) >= 0.1
    assert max(calibrated) - min(calibrated) <= (max(raw) - min(raw)) * 2 / 3


def test_a_tenth_of_the_corpus_is_french():
    assert 0.08 < probes.french_share(500) < 0.14
