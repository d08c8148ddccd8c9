"""C02 to C04 on the shipped pocket model: questions are continued, cloze prompts answered, and wording decides."""

import random

import pytest
import torch

from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import per_token, rouge_l, score_choices, verbalizer_probabilities
from ptlearn.lm.text import complete, completions, sample_text
from ptlearn.pocket import probes, relations, tales, world
from ptlearn.statistics import accuracy

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
    assert share_right(lm, "The capital of {} is", FACTS[::8]) >= 0.9  # where it was stated, the same prompt works


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
    foreign = [share_right(lm, w, facts) for w in ("Q: What is the capital of {}?\nA:", "Country: {}\nCapital:")]
    assert usual >= 0.95 and usual >= rare >= 0.5
    assert max(foreign) <= 0.3


def test_c04_accuracy_depends_on_the_label_words_and_their_prior(lm, native):
    words = ("great", "awful", "good", "bad", "positive", "negative", "happy", "yes")
    logprobs = score_choices(lm, native, words).logprobs
    gold = torch.tensor([polarity == "positive" for *_, polarity in REVIEWS])

    def right(scores, first, second):
        return ((scores[:, words.index(first)] > scores[:, words.index(second)]) == gold).float().mean().item()

    pairs = (("great", "awful"), ("good", "bad"), ("positive", "negative"))
    mixed = (("great", "negative"), ("yes", "bad"), ("happy", "awful"))
    matched = min(right(logprobs, *pair) for pair in pairs)
    assert matched >= 0.85
    assert min(right(logprobs, *pair) for pair in mixed) <= matched - 0.1
    without_prior = logprobs - logprobs.logsumexp(0)
    assert min(right(without_prior, *pair) for pair in mixed) >= 0.85


def test_c04_each_score_of_choices_has_its_own_bias(lm):
    quiz = random.Random(0).sample(FACTS, 30)
    scores = score_choices(lm, [f"What is the capital of {name}?" for name, _ in quiz], [c for _, c in quiz])
    without_prior = scores.logprobs - scores.logprobs.logsumexp(0)
    by_sum, by_mean, by_information = (v.argmax(1) for v in (scores.logprobs, per_token(scores), without_prior))
    lengths, truth = scores.lengths[0].float(), torch.arange(30)
    assert lengths[by_mean].mean() > lengths.mean() + 1  # tokens: the mean per token picks long names
    rights = [(choice == truth).float().mean() for choice in (by_mean, by_sum, by_information)]
    assert rights[0] < rights[2] - 0.2 and rights[1] < rights[2]
