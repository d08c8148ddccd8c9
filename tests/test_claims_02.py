"""C05 to C07 on the shipped models: demonstrations induce a task, even one that no weight can know, and can mislead.

Shares are over different queries, with the lesson's own evaluation; sizes and orders are compared over five draws.
"""

import random

import pytest

from ptlearn.course.exercise import exercise
from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import corpus_bleu, few_shot_prompt, score_choices
from ptlearn.lm.text import complete
from ptlearn.pocket import probes, relations, tales
from ptlearn.statistics import Estimate, over_seeds

TASKS = ("fact", "category", "combine", "pick a kind", "2 labels", "4 labels")


@pytest.fixture(scope="module")
def lm():
    return load_lm("pocket-m")


def curve(lm, name, count, seed=0):
    """Exact match without and with eight demonstrations, over the different queries among `count`."""
    rng = random.Random(f"{name}:{seed}")
    found = exercise("2.4").reference(
        lambda prompts: complete(lm, prompts, max_new_tokens=20),
        lambda shots: relations.episode(relations.EVALUATED[name], shots, rng), (0, 8), count)  # fmt: skip
    return Estimate(*found[0]), Estimate(*found[8])


def test_c05_demonstrations_induce_translation(lm):
    rng = random.Random(5)
    episodes = [relations.episode(relations.RELATIONS["french to english"], 1, rng) for _ in range(80)]
    assert len({query for _, (query, _) in episodes}) == 80
    gold = [answer for _, (_, answer) in episodes]
    bleu = []
    for shots in (0, 1):
        prompts = [few_shot_prompt(demonstrations[:shots], query) for demonstrations, (query, _) in episodes]
        bleu.append(corpus_bleu(complete(lm, prompts), gold))
    assert bleu[0] < 30 and bleu[1] > 80


def test_c06_demonstrations_help_on_native_and_on_arbitrary_tasks(lm):
    found = {name: curve(lm, name, 40) for name in TASKS}
    assert sum(eight.n for _, eight in found.values()) >= 120
    assert all(eight.mean > none.mean + 0.25 and eight.low > none.high for none, eight in found.values())
    none, eight = curve(lm, "pick a place", 40)
    assert eight.low < 1 / 3 < eight.high, "the one that it has not learned"


def test_c06_no_weight_changes(lm):
    before = [p.clone() for p in lm.parameters()]
    probes.few_shot(lm, "2 labels", 4, 10)
    assert all((a == b).all() for a, b in zip(before, lm.parameters(), strict=True))


def test_c06_larger_models_learn_more_from_context(lm):
    small = load_lm("pocket-s")
    gains = [sum(curve(lm, name, 8, seed)[1].mean - curve(small, name, 8, seed)[1].mean for name in TASKS)
             for seed in range(5)]  # fmt: skip
    assert over_seeds(gains).low > 0


def test_c07_the_small_model_leans_to_the_label_shown_last():
    """The same four reviews in two orders, for five sets: how often the second label is predicted, last less first."""
    lm, words, leanings = load_lm("pocket-s"), ("left", "right"), []
    for seed in range(5):
        rng = random.Random(seed)

        def review(label, rng=rng):
            return tales.opinion(rng, ("negative", "positive")[label], rng.choice(tales.ABOUT), 2), words[label]

        zeros, ones = ([review(label) for _ in range(2)] for label in (0, 1))
        texts = [review(label)[0] for label in [0, 1] * 12]
        shares = []
        for shown in ([*ones, *zeros], [*zeros, *ones]):
            prompts = [few_shot_prompt(shown, text, template=probes.SENTIMENT_TEMPLATE) for text in texts]
            shares.append(score_choices(lm, prompts, words).logprobs.argmax(1).float().mean().item())
        leanings.append(shares[1] - shares[0])
    assert over_seeds(leanings).low > 0.1


def test_c07_the_choice_matters_and_calibration_helps(lm):
    raw, calibrated = probes.order_spread(lm, count=40, choices=16, seed=1)
    assert max(raw) - min(raw) >= 0.1
    assert max(calibrated) - min(calibrated) <= (max(raw) - min(raw)) * 2 / 3
