"""C02 to C04 on the shipped pocket model: questions are continued, cloze prompts answered, and wording decides."""

import random

import pytest
import torch

from ptlearn.models import load_lm
from ptlearn.pocket import probes, relations, tales, world
from ptlearn.prompting import accuracy, per_token, rouge_l, score_choices, verbalizer_probabilities
from ptlearn.text import complete, completions, sample_text

FACTS = relations.stated("capital")
NEVER_STATED = [(c.name, c.capital) for c in world.COUNTRIES if world.is_held_out(f"capital|{c.name}")]
REVIEWS = probes.reviews(160, seed=1)
CUES = {"TL;DR": "\nTL;DR:", "request": "\nPlease sum up this story:"}


@pytest.fixture(scope="module")
def lm():
    return load_lm("pocket-m")


def share_right(lm, wording, pairs):
    """Share of (country, capital) pairs whose greedy continuation starts with the capital."""
    texts = complete(lm, [wording.format(name) for name, _ in pairs], max_new_tokens=10, stop=("\n", "."))
    return accuracy(text.strip().startswith(capital) for (_, capital), text in zip(pairs, texts, strict=True)).mean


def share_positive_right(lm, prompts, words):
    probabilities = verbalizer_probabilities(lm, prompts, words)
    gold = torch.tensor([polarity == "positive" for *_, polarity in REVIEWS])
    return ((probabilities[:, 0] > probabilities[:, 1]) == gold).float().mean().item()


@pytest.fixture(scope="module")
def native():
    return [f"{body} This {about} is" for body, about, _ in REVIEWS]


def test_c02_a_question_is_continued_by_questions_and_not_answered(lm):
    assert probes.capital_questions(lm).high <= 0.05
    prompts = [f"What is the capital of {name}?" for name, _ in FACTS]
    texts = completions(lm, sample_text(lm, prompts, max_new_tokens=24))
    assert accuracy(capital in text for (_, capital), text in zip(FACTS, texts, strict=True)).mean <= 0.05
    assert sum("?" in text for text in texts) > 0.8 * len(texts)  # fluent ones, not noise


def test_c03_the_same_facts_come_out_of_a_cloze_prompt(lm):
    assert probes.capital_cloze(lm).mean >= 0.95


def test_c03_a_prompt_does_not_teach_what_was_never_stated(lm):
    assert len(NEVER_STATED) >= 8
    assert share_right(lm, "The capital of {} is", NEVER_STATED) <= 0.2


def test_c03_the_answer_is_likely_after_the_cloze_and_unlikely_after_the_question(lm):
    asked, completed = (
        score_choices(lm, [prompt], ["Nairobi"]).logprobs.item()
        for prompt in ("What is the capital of Kenya?", "The capital of Kenya is")
    )
    assert completed > -1 and asked < completed - 4  # nats


def test_c03_sentiment_by_verbalizer_and_not_by_question(lm, native):
    asked = [f"{body} Is this review positive or negative?" for body, *_ in REVIEWS]
    by_verbalizer = share_positive_right(lm, native, ("great", "awful"))
    assert by_verbalizer >= 0.88
    assert share_positive_right(lm, asked, ("positive", "negative")) <= by_verbalizer - 0.1


def test_c03_tldr_sums_up_better_than_the_first_sentence_and_a_request_does_not(lm):
    rng = random.Random(3)
    stories, summaries = zip(*(tales.plot(rng) for _ in range(40)), strict=True)
    texts = {name: complete(lm, [story + cue for story in stories], max_new_tokens=30) for name, cue in CUES.items()}
    texts["first sentence"] = [story.partition(". ")[0] for story in stories]
    rouge = {name: sum(map(rouge_l, found, summaries)) / len(stories) for name, found in texts.items()}
    assert rouge["TL;DR"] >= rouge["first sentence"] + 0.15
    assert rouge["request"] <= rouge["first sentence"] - 0.1


def test_c04_accuracy_depends_on_the_wording(lm):
    facts = FACTS[::2]
    usual, rare = (share_right(lm, w, facts) for w in ("The capital of {} is", "Anyone who lands in {} should see"))
    foreign = share_right(lm, "Q: What is the capital of {}?\nA:", facts)
    assert usual >= 0.9 and foreign <= 0.3
    assert rare <= usual


def test_c04_accuracy_depends_on_the_label_words(lm, native):
    shares = {
        words: share_positive_right(lm, native, words)
        for words in (("great", "awful"), ("good", "bad"), ("red", "blue"), ("positive", "negative"))
    }
    assert min(shares["great", "awful"], shares["good", "bad"]) >= 0.75
    assert abs(shares["red", "blue"] - 0.5) <= 0.15
    assert shares["great", "awful"] >= shares["positive", "negative"] + 0.1


def test_c04_each_score_of_choices_has_its_own_bias(lm):
    quiz = random.Random(0).sample(FACTS, 30)
    scores = score_choices(lm, [f"What is the capital of {name}?" for name, _ in quiz], [c for _, c in quiz])
    lengths = scores.lengths[0].float()
    by_sum, by_mean = (lengths[choice.argmax(1)].mean() for choice in (scores.logprobs, per_token(scores)))
    assert by_mean > lengths.mean() + 0.5 > by_sum
