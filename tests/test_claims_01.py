"""C02 to C04 on the shipped pocket model: questions are continued, cloze prompts answered, and wording decides."""

import random
import re

import pytest
import torch

from ptlearn.lm.models import load_lm
from ptlearn.lm.prompting import per_token, rouge_l, score_choices, verbalizer_probabilities
from ptlearn.lm.text import complete, completions, sample_text
from ptlearn.pocket import probes, relations, tales, world
from ptlearn.statistics import accuracy, wilson

FACTS = relations.stated("capital")
NEVER_STATED = [(c.name, c.capital) for c in world.COUNTRIES if world.is_held_out(f"capital|{c.name}")]
REVIEWS = probes.reviews(100, seed=1)
CUES = {"TL;DR": "\nTL;DR:", "request": "\nPlease sum up this story:"}


@pytest.fixture(scope="module")
def lm():
    return load_lm("pocket-m")


def share_right(lm, wording, pairs):
    """Share of (country, capital) pairs whose greedy continuation starts with the capital."""
    texts = complete(lm, [wording.format(name) for name, _ in pairs], max_new_tokens=10, stop=("\n", "."))
    return accuracy(text.strip().startswith(capital) for (_, capital), text in zip(pairs, texts, strict=True))


def share_positive_right(lm, prompts, words):
    probabilities = verbalizer_probabilities(lm, prompts, words)
    gold = torch.tensor([polarity == "positive" for *_, polarity in REVIEWS])
    return accuracy(((probabilities[:, 0] > probabilities[:, 1]) == gold).tolist())


@pytest.fixture(scope="module")
def native():
    return [f"{body} This {about} is" for body, about, _ in REVIEWS]


def test_c02_a_question_is_continued_by_questions_and_not_answered(lm):
    assert len(FACTS) >= 80
    prompts = [f"What is the capital of {name}?" for name, _ in FACTS]
    greedy = complete(lm, prompts, max_new_tokens=24, stop=())
    sampled = completions(lm, sample_text(lm, prompts, max_new_tokens=24))
    for texts in (greedy, sampled):
        named = [re.search(rf"(?<![\w-]){re.escape(c)}(?![\w-])", text) for (_, c), text in zip(FACTS, texts)]
        assert accuracy(bool(found) for found in named).high <= 0.05
        assert accuracy("?" in text for text in texts).low > 0.8  # fluent ones, not noise


def test_c03_the_same_facts_come_out_of_a_cloze_prompt(lm):
    assert probes.capital_cloze(lm, ("The capital of {} is",)).low >= 0.95


def test_c03_a_prompt_does_not_teach_what_was_never_stated(lm):
    assert len(NEVER_STATED) >= 8  # all there are; what was stated is asserted above
    assert share_right(lm, "The capital of {} is", NEVER_STATED).high <= 0.4


def test_c03_the_answer_is_likely_after_the_cloze_and_unlikely_after_the_question(lm):
    asked, completed = (
        score_choices(lm, [prompt], ["Nairobi"]).logprobs.item()
        for prompt in ("What is the capital of Kenya?", "The capital of Kenya is")
    )
    assert completed > -1 and asked < completed - 4  # nats


def test_c03_sentiment_by_verbalizer_and_not_by_question(lm, native):
    asked = [f"{body} Is this review positive or negative?" for body, *_ in REVIEWS]
    by_verbalizer = share_positive_right(lm, native, ("great", "awful"))
    assert by_verbalizer.low >= 0.88
    assert share_positive_right(lm, asked, ("positive", "negative")).high <= by_verbalizer.low - 0.1


def test_c03_tldr_sums_up_better_than_the_first_sentence_and_a_request_does_not(lm):
    rng = random.Random(3)
    stories, summaries = zip(*(tales.plot(rng) for _ in range(80)), strict=True)
    texts = {name: complete(lm, [story + cue for story in stories], max_new_tokens=30) for name, cue in CUES.items()}
    texts["first sentence"] = [story.partition(". ")[0] for story in stories]
    assert len(set(stories)) == 80
    rouge = {name: wilson(sum(map(rouge_l, found, summaries)) / 80, 80) for name, found in texts.items()}
    assert rouge["TL;DR"].low >= rouge["first sentence"].high + 0.15
    assert rouge["request"].high <= rouge["first sentence"].low


def test_c04_accuracy_depends_on_the_wording(lm):
    rare = share_right(lm, "Anyone who lands in {} should see", FACTS)
    foreign = share_right(lm, "Q: What is the capital of {}?\nA:", FACTS)
    assert rare.low >= 0.5 and foreign.high <= 0.3


PROMPTS = ("What is {input} in French?", "{input} =", "English: the {input}\nFrench: le",
           "English: the {input} is small\nFrench: le")  # fmt: skip


def test_c04_prompts_for_one_task_lie_far_apart_and_the_order_holds_on_other_items(lm):
    assert len(probes.french_nouns(held_out=True)) >= 80
    for half in (False, True):
        worst, plain, better, best = (probes.noun_translation(lm, text, held_out=half) for text in PROMPTS)
        assert worst.high < 0.1 < 0.25 < plain.low and plain.high < 0.6 < better.low and best.mean > better.mean
        assert best.low > 0.8


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
    quiz = random.Random(0).sample(FACTS, 80)
    rights, longer = [], []
    for group in (quiz[start : start + 20] for start in range(0, 80, 20)):
        scores = score_choices(lm, [f"What is the capital of {name}?" for name, _ in group], [c for _, c in group])
        without_prior = scores.logprobs - scores.logprobs.logsumexp(0)
        picks = [v.argmax(1) for v in (per_token(scores), scores.logprobs, without_prior)]
        rights.append([(pick == torch.arange(20)).float() for pick in picks])
        lengths = scores.lengths[0].float()
        longer.append(lengths[picks[0]].mean() - lengths.mean())
    by_mean, by_sum, by_information = (accuracy(torch.cat(found).tolist()) for found in zip(*rights))
    assert min(longer) > 1  # tokens: the mean per token picks long names
    assert by_mean.high < by_information.low - 0.2 and by_sum.high < by_information.low
