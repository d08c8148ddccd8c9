"""Prompts against hand-written texts, scores against whole-text log-likelihoods, intervals against published ones."""

import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import conftest
from conftest import WINDOW, tiny_model
from ptlearn.lm.models import LanguageModel
from ptlearn.lm.prompting import (
    ChoiceScores,
    contextual_calibration,
    corpus_bleu,
    exact_match,
    few_shot_prompt,
    first_line,
    per_token,
    rouge_l,
    sample_demonstrations,
    score_choices,
    verbalizer_ids,
    verbalizer_probabilities,
)
from ptlearn.lm.text import encode
from ptlearn.statistics import accuracy

CONTEXT = 48
PROMPTS = ["The film was great fun. Verdict:", "The capital of Kenya is", "great =", "A dull film\n"]
CHOICES = ["great", "awful film", "Nairobi is the capital", "dull"]


def tiny_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    corpus = [
        "The film was great fun. Verdict: great\n",
        "A dull film: awful\n",
        "The capital of Kenya is Nairobi.\n\n",
    ]
    tokenizer.train_from_iterator(corpus * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def lm(request):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    size = len(tokenizer)
    if request.param == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=size,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=CONTEXT,
                initializer_range=0.3,  # far from uniform, so that a wrong position or mask shows
            )
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.3)
        )
    return LanguageModel(model.double().eval(), tokenizer, "tiny")


@torch.no_grad()
def log_likelihood(lm, text):
    """log p(text) of the whole text, one token after the other, with no batching, padding or cache."""
    ids = torch.tensor(encode(lm, [text]))
    logprobs = lm(ids).log_softmax(-1)[0, :-1]
    return logprobs[range(len(logprobs)), ids[0, 1:]].sum().item()


def join(prompt, choice):
    return prompt + choice if prompt.endswith("\n") else f"{prompt} {choice}"


def expected_scores(lm, prompts, choices):
    rows = [[log_likelihood(lm, join(p, c)) - log_likelihood(lm, p) for c in choices] for p in prompts]
    return torch.tensor(rows, dtype=torch.float)


# prompts


def test_few_shot_prompt_is_the_text_written_by_hand():
    pairs = [("sky", "blue"), ("grass", "green")]
    assert few_shot_prompt(pairs, "snow") == "sky = blue\ngrass = green\nsnow ="
    assert few_shot_prompt([], "snow") == "snow ="
    template = "Review: {input}\nVerdict: {output}."
    expected = "Review: sky\nVerdict: blue.\n\nReview: snow\nVerdict:"
    assert few_shot_prompt(pairs[:1], "snow", template=template, separator="\n\n") == expected
    assert few_shot_prompt([], "snow", template="{input}\n{output}") == "snow\n"


def test_few_shot_prompt_leaves_braces_and_fields_in_the_data_alone():
    assert few_shot_prompt([("{output}", "{input}")], "{x}") == "{output} = {input}\n{x} ="


@pytest.mark.parametrize(
    "template", ["{input}", "{output}", "", "{output} = {input}", "{input}{output}{output}", "{input} {output} {input}"]
)
def test_few_shot_prompt_refuses_a_template_by_name(template):
    with pytest.raises(ValueError) as error:
        few_shot_prompt([("a", "b")], "c", template=template)
    assert repr(template) in str(error.value)


def test_a_prompt_stops_at_a_token_boundary_of_the_joint_text(lm):
    prompt = few_shot_prompt([("film", "great")], "fun")
    tokens, joint = encode(lm, [prompt, prompt + " dull"])
    assert joint[: len(tokens)] == tokens


def test_demonstrations_are_drawn_without_replacement_and_repeat_with_the_seed():
    pool = [(str(i), str(-i)) for i in range(10)]
    drawn = sample_demonstrations(pool, 9, random.Random(3), exclude="4")
    assert sorted(drawn) == [pair for pair in pool if pair[0] != "4"]
    assert drawn == sample_demonstrations(pool, 9, random.Random(3), exclude=["4"])
    assert drawn != sample_demonstrations(pool, 9, random.Random(4), exclude="4")
    assert sample_demonstrations(pool, 0, random.Random(0)) == []


def test_demonstrations_name_both_numbers_when_the_pool_is_too_small():
    with pytest.raises(ValueError, match=r"k=3 .* 2 "):
        sample_demonstrations([("a", "b"), ("c", "d")], 3, random.Random(0))


# scores


def test_scores_are_differences_of_whole_text_log_likelihoods(lm):
    scores = score_choices(lm, PROMPTS, CHOICES)
    expected = expected_scores(lm, PROMPTS, CHOICES)
    assert scores.logprobs.shape == scores.lengths.shape == (4, 4)
    torch.testing.assert_close(scores.logprobs, expected, atol=1e-4, rtol=0)
    assert expected.std() > 1  # the tolerance would not hide a shift of choices or prompts
    assert not torch.allclose(expected.roll(1, 0), expected, atol=0.1)


def test_scores_do_not_depend_on_batching_or_order(lm):
    scores = score_choices(lm, PROMPTS, CHOICES).logprobs
    for batch_size in (1, 4, 8):
        again = score_choices(lm, PROMPTS, CHOICES, batch_size=batch_size).logprobs
        torch.testing.assert_close(again, scores, atol=1e-4, rtol=0)
    reversed_scores = score_choices(lm, PROMPTS[::-1], CHOICES[::-1]).logprobs
    torch.testing.assert_close(reversed_scores.flip(0, 1), scores, atol=1e-4, rtol=0)


def test_single_token_choices_are_log_softmax_at_the_last_prompt_token(lm):
    words = ["great", "dull"]
    scores = score_choices(lm, PROMPTS[:3], words)
    assert scores.lengths.tolist() == [[1, 1]] * 3
    for prompt, row in zip(PROMPTS[:3], scores.logprobs, strict=True):
        with torch.no_grad():
            logprobs = lm(torch.tensor(encode(lm, [prompt]))).log_softmax(-1)[0, -1]
        torch.testing.assert_close(row, logprobs[verbalizer_ids(lm, words)].float(), atol=1e-4, rtol=0)


def test_a_trailing_space_in_the_prompt_or_a_leading_one_in_the_choice_changes_nothing(lm):
    plain = score_choices(lm, ["The film was"], ["great", "awful film"])
    for prompt, choices in [("The film was ", ["great", "awful film"]), ("The film was", [" great", " awful film"])]:
        torch.testing.assert_close(score_choices(lm, [prompt], choices).logprobs, plain.logprobs)


@pytest.mark.parametrize("order", [1, -1])
def test_a_token_across_the_boundary_counts_to_every_choice(lm, order):
    """A double line break is one token at the end of a prompt, two before a word, and whole before more of them."""
    choices = ["great", "awful film", "\n\n"][::order]
    stem, prompt, *joint = encode(lm, ["film", "film\n\n", *("film\n\n" + choice for choice in choices)])
    assert len(prompt) == len(stem) + 1 and sum(tokens[: len(prompt)] == prompt for tokens in joint) == 1
    scores = score_choices(lm, ["film\n\n"], choices)
    assert scores.lengths.tolist() == [[len(tokens) - len(stem) for tokens in joint]]
    expected = [log_likelihood(lm, "film\n\n" + choice) - log_likelihood(lm, "film") for choice in choices]
    torch.testing.assert_close(scores.logprobs, torch.tensor([expected]), atol=1e-4, rtol=0)


def test_probabilities_of_all_one_token_choices_sum_to_one(lm):
    tokens = [lm.tokenizer.decode([index]) for index in range(len(lm.tokenizer))]
    words = [token for token in tokens if token.startswith(" ") and token.strip().isalpha()]
    total = score_choices(lm, ["The film was"], words).logprobs.exp().sum()
    with torch.no_grad():
        probabilities = lm(torch.tensor(encode(lm, ["The film was"]))).softmax(-1)[0, -1]
    assert total.item() == pytest.approx(probabilities[verbalizer_ids(lm, words)].sum().item(), abs=1e-5)


def test_per_token_divides_by_the_number_of_tokens(lm):
    scores = score_choices(lm, PROMPTS[:2], CHOICES)
    lengths = [len(encode(lm, [" " + choice])[0]) - 1 for choice in CHOICES]
    assert scores.lengths.tolist() == [lengths] * 2 and max(lengths) > 1
    by_hand = per_token(ChoiceScores(torch.tensor([[-6.0, -4.0]]), torch.tensor([[3, 1]])))
    assert by_hand.tolist() == [[-2.0, -4.0]]  # the long choice wins per token, the short one in total


def test_a_prompt_may_fill_the_context_exactly_and_no_more(lm):
    room = CONTEXT - len(encode(lm, [""])[0])
    prompt = " great" * room
    assert len(encode(lm, [prompt])[0]) == CONTEXT
    fitting = score_choices(lm, ["fun", prompt], ["dull", "great"]).logprobs
    torch.testing.assert_close(fitting, score_choices(lm, ["fun", prompt], ["dull", "great"], batch_size=2).logprobs)
    for choices, texts in [(["dull film"], prompt), (["dull"], prompt + " great")]:
        with pytest.raises(ValueError, match=rf"{CONTEXT + 1} tokens .* {CONTEXT}"):
            score_choices(lm, [texts], choices)
    with pytest.raises(ValueError, match=f"context of {CONTEXT}"):
        verbalizer_probabilities(lm, [prompt + " great"], ["dull"])


def test_padding_of_short_choices_never_reads_beyond_the_context(lm):
    """Beside a prompt whose choices take more tokens, a prompt at the edge of the context keeps its own score."""
    choices = ["dull film", "dull"]
    full = " great" * (CONTEXT - len(encode(lm, ["film"])[0]))
    alone = score_choices(lm, [full], choices)
    together = score_choices(lm, ["film\n\n", full], choices)
    assert together.lengths[0].max() > together.lengths[1].max()
    torch.testing.assert_close(together.logprobs[1:], alone.logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(alone.logprobs, expected_scores(lm, [full], choices), atol=1e-4, rtol=0)


def test_dropout_is_off_while_scoring_and_back_afterwards(lm):
    expected = score_choices(lm, PROMPTS, CHOICES).logprobs
    model = lm.model.train()
    try:
        # Llama has no dropout of its own, GPT-2 drops one value in ten
        torch.testing.assert_close(score_choices(lm, PROMPTS, CHOICES).logprobs, expected, atol=1e-4, rtol=0)
        assert all(module.training for module in model.modules())
    finally:
        lm.eval()


def test_a_prompt_may_be_empty_only_where_a_first_token_stands_for_it(lm):
    expected = [log_likelihood(lm, choice) for choice in CHOICES]
    torch.testing.assert_close(score_choices(lm, [""], CHOICES).logprobs, torch.tensor([expected]), atol=1e-4, rtol=0)
    bare = tiny_tokenizer()
    bare.bos_token = None  # as in Qwen's tokenizers
    with pytest.raises(ValueError, match="prompts: '' leaves no token"):
        score_choices(LanguageModel(lm.model, bare, "bare"), ["fun", ""], CHOICES)


def test_choices_behind_a_window_score_as_the_plain_forward_pass(windowed_lm):
    """Texts within the window, at its edge and beyond, alone and beside a longer one."""
    prompts = ["3 +", "3 + 4 =", "The film was great", "The film was great fun. The capital of Kenya is Nairobi.\n3"]
    choices = ["7", "4 = 7", "Nairobi Nairobi Nairobi Nairobi"]
    lengths = [len(ids) for ids in encode(windowed_lm, prompts)]
    assert min(lengths) < WINDOW - 2 and max(lengths) > 2 * WINDOW
    expected = expected_scores(windowed_lm, prompts, choices)
    for subset in ([0], [1], [2], [3], [0, 1], [0, 1, 2, 3]):
        for size in (1, 64):
            scored = score_choices(windowed_lm, [prompts[i] for i in subset], choices, batch_size=size).logprobs
            torch.testing.assert_close(scored, expected[subset], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_scores_of_a_diverged_model_are_refused_and_a_token_that_is_ruled_out_is_not(kind):
    lm = LanguageModel(tiny_model(kind), conftest.tiny_tokenizer(), "tiny")
    prompts, choices = ["The film was great fun. Verdict:"], ["great", "awful film"]
    head = lm.model.get_output_embeddings()
    padding = torch.tensor([0])
    ruled_out = head.register_forward_hook(lambda head, inputs, logits: logits.index_fill(-1, padding, -torch.inf))
    scored = score_choices(lm, prompts, choices).logprobs  # padding counts nothing
    assert scored.isfinite().all()
    torch.testing.assert_close(scored, expected_scores(lm, prompts, choices), atol=1e-4, rtol=0)
    ruled_out.remove()
    head.weight.data[7] = float("nan")
    with pytest.raises(ValueError, match="the logits of 'tiny' are not finite: expected a model that has not diverged"):
        score_choices(lm, prompts, choices)


def test_words_that_utf8_cannot_write_are_named(lm):
    for call in (verbalizer_ids, lambda lm, words: score_choices(lm, ["a"], words)):
        with pytest.raises(ValueError, match="has a lone surrogate, '.ud83d'"):
            call(lm, ["good", "\ud83d"])


@pytest.mark.parametrize(
    ("prompts", "choices", "message"),
    [
        ([], ["a"], r"prompts .* \[\]"),
        (["a"], [], r"choices .* \[\]"),
        ("a text", ["a"], "prompts .* 'a text'"),
        (["a"], ["b", " "], "choices: ' ' is blank"),
    ],
)
def test_bad_prompts_and_choices_are_named(lm, prompts, choices, message):
    with pytest.raises(ValueError, match=message):
        score_choices(lm, prompts, choices)


# verbalizers


def test_verbalizer_probabilities_are_the_softmax_over_the_label_words(lm):
    words = ["great", "awful", "dull"]
    found = verbalizer_probabilities(lm, [*PROMPTS[:3], PROMPTS[0] + " "], words)
    ids = verbalizer_ids(lm, words)
    assert lm.tokenizer.convert_ids_to_tokens(ids) == ["Ġgreat", "Ġawful", "Ġdull"]
    for prompt, row in zip(PROMPTS[:3], found, strict=False):
        with torch.no_grad():
            logits = lm(torch.tensor(encode(lm, [prompt])))[0, -1, ids]
        torch.testing.assert_close(row, logits.softmax(-1).float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[3], found[0])
    swapped = verbalizer_probabilities(lm, PROMPTS[:1], ["dull", "great", "awful"])
    torch.testing.assert_close(swapped[0], found[0, [2, 0, 1]])


@pytest.mark.parametrize("word", ["zebra", "great fun", ""])
def test_a_verbalizer_of_several_tokens_is_named(lm, word):
    with pytest.raises(ValueError, match=f"words: '{word}'"):
        verbalizer_ids(lm, ["great", word])
    with pytest.raises(ValueError, match="words"):
        verbalizer_probabilities(lm, ["a"], [])


# calibration


def test_calibration_by_hand():
    # (0.5/0.8, 0.5/0.2) = (0.625, 2.5), which sums to 3.125
    found = contextual_calibration(torch.tensor([[0.5, 0.5]]), torch.tensor([0.8, 0.2]))
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.8]]))


def test_calibration_makes_the_content_free_input_uniform_and_a_uniform_one_changes_nothing():
    probabilities = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)).double().softmax(-1)
    bias = probabilities[0]
    calibrated = contextual_calibration(probabilities, bias)
    torch.testing.assert_close(calibrated[0], torch.full((3,), 1 / 3, dtype=torch.double))
    torch.testing.assert_close(calibrated.sum(-1), torch.ones(6).double())
    torch.testing.assert_close(contextual_calibration(probabilities, torch.ones(3) / 3), probabilities)
    torch.testing.assert_close(contextual_calibration(probabilities, 7 * bias), calibrated)
    order = [2, 0, 1]
    torch.testing.assert_close(contextual_calibration(probabilities[:, order], bias[order]), calibrated[:, order])
    assert not torch.allclose(calibrated, probabilities, atol=1e-3)


def test_calibration_averages_several_content_free_inputs():
    probabilities, inputs = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1], [0.7, 0.3]])
    found = contextual_calibration(probabilities, inputs)
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.8]]))


@pytest.mark.parametrize(
    ("probabilities", "content_free", "message"),
    [
        ([[0.5, 0.5]], [0.2, 0.3, 0.5], r"\(1, 2\) and content_free \(3,\)"),
        ([0.5, 0.5], [0.5, 0.5], r"probabilities \(2,\)"),
        ([[0.5, 0.5]], [1.0, 0.0], "content_free must be positive"),
        ([[0.0, 0.0]], [0.5, 0.5], "positive sum"),
        ([[-1.0, 2.0]], [0.5, 0.5], "non-negative"),
    ],
)
def test_calibration_refuses_wrong_shapes_and_zeros(probabilities, content_free, message):
    with pytest.raises(ValueError, match=message):
        contextual_calibration(torch.tensor(probabilities), torch.tensor(content_free))


# metrics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_the_published_ones(successes, n, low, high):
    """Newcombe 1998, table I, method 3 (score without continuity correction)."""
    found = accuracy([True] * successes + [False] * (n - successes))
    assert found.mean == successes / n and found.n == n
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    mirrored = accuracy([False] * successes + [True] * (n - successes))
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high))


def test_accuracy_prints_and_accepts_tensors_and_refuses_the_rest():
    assert str(accuracy(torch.arange(200) < 186)) == "0.93 [0.89, 0.96] (n=200)"
    for wrong in ([], [0.5], [2]):
        with pytest.raises(ValueError, match="correct"):
            accuracy(wrong)


def test_exact_match_forgives_white_space_only():
    assert exact_match([" a  b\n", "ab", "A b", "a b."], ["a b"] * 4) == [True, False, False, False]
    for predictions, references in [([], []), (["a"], ["a", "b"]), ("a", ["a"])]:
        for metric in (exact_match, corpus_bleu):
            with pytest.raises(ValueError, match="predictions"):
                metric(predictions, references)


def test_bleu_by_hand():
    reference = "the cat sat on the mat"
    assert corpus_bleu([reference], [reference]) == pytest.approx(100)
    assert corpus_bleu(["dogs bark at all strangers loudly"], [reference]) < 15
    # precisions 5/6, 4/5, 3/4, 2/3, no brevity penalty: (1/3)^(1/4)
    assert corpus_bleu(["the cat sat on the rug"], [reference]) == pytest.approx(100 * (1 / 3) ** 0.25)


def test_rouge_l_by_hand():
    # the longest common subsequence has 3 words: precision 3/4, recall 3/6, F = 0.6
    assert rouge_l("the cat sat down", "the cat sat on the mat") == pytest.approx(0.6)
    assert rouge_l("dogs", "the cat") == 0


def test_first_line():
    assert first_line(" Nairobi\nUganda = Kampala") == "Nairobi"
    assert first_line("\nmore") == "" and first_line("") == ""
