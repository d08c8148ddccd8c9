"""Sampling and scoring against exact distributions, the plain forward pass and the label loss of `transformers`."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch

from conftest import WINDOW, tiny_model, tiny_tokenizer
from ptlearn.lm import decoding, text
from ptlearn.lm.models import LanguageModel
from ptlearn.lm.text import complete, completions, encode, invert_cdf, perplexity, sample_text, token_logprobs
from ptlearn.rollout import check_behavior, sampling_logprobs

NAN = float("nan")
PROMPTS = ["The capital of Kenya is", "", "3 + 4 =", "The capital of Kenya is", "A dull film. Verdict:"]


class Scripted(torch.nn.Module):
    """Gives fixed logits at every position, whatever it reads: a language model with a known distribution."""

    def __init__(self, lm, logits):
        super().__init__()
        self.base, self.logits = lm.model, logits
        self.config, self.generation_config, self.device = lm.model.config, lm.model.generation_config, "cpu"

    def get_input_embeddings(self):
        return self.base.get_input_embeddings()

    def forward(self, input_ids, **options):
        output = self.base(input_ids, **options)
        output.logits = self.logits.expand(*output.logits.shape[:2], -1)
        return output


def scripted(lm, logits):
    return LanguageModel(Scripted(lm, logits), lm.tokenizer, "scripted")


def certain(token):
    """Logits (1, 300) that always give one token."""
    return torch.full((1, 300), -100.0).index_fill(1, torch.tensor([token]), 100.0)


def test_encoding_starts_with_the_beginning_of_text(llama_lm):
    with_start, bare = encode(llama_lm, ["a coffee", ""]), encode(llama_lm, ["a coffee", ""], bos=False)
    assert with_start == [[0, *ids] for ids in bare] and bare[1] == []
    assert llama_lm.tokenizer.decode(bare[0]) == "a coffee"


def test_a_tokenizer_without_beginning_gives_bare_prompts(tiny_folders):
    from ptlearn.lm.models import load_lm

    lm = load_lm(tiny_folders["qwen2"])
    lm.tokenizer.bos_token = None
    assert encode(lm, ["a"]) == encode(lm, ["a"], bos=False)
    assert len(token_logprobs(lm, ["a coffee"])[0]) == len(encode(lm, ["a coffee"])[0]) - 1
    with pytest.raises(ValueError, match=r"prompts\[1\] is empty: this tokenizer has no beginning-of-text token"):
        sample_text(lm, ["a", ""])
    with pytest.raises(ValueError, match="no token to score"):
        perplexity(lm, [""])


def test_no_text_gets_a_second_beginning(llama_lm, pocket_s):
    assert encode(llama_lm, ["<|endoftext|>a coffee"]) == encode(llama_lm, ["a coffee"])
    assert encode(llama_lm, ["<|endoftext|><|endoftext|>a"])[0][:3] == [0, 0, *encode(llama_lm, ["a"], bos=False)[0]]
    rendered = pocket_s.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert encode(pocket_s, [rendered, "User: Hi\n"]) == [[0, *encode(pocket_s, ["User: Hi\n"], bos=False)[0]]] * 2


def test_the_document_start_is_not_the_first_token_of_the_chat_template():
    """As in SmolLM2, whose bos_token begins turns: a document starts with another, a rendered turn with its own."""
    vocabulary = tiny_tokenizer("<|im_start|>", "<|im_end|>", bos_token="<|im_start|>", eos_token="<|im_end|>")
    vocabulary.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    lm = LanguageModel(tiny_model("llama"), vocabulary, "tiny")
    document, turn = encode(lm, ["a coffee", "<|im_start|>a coffee"])
    assert document == [0, *turn[1:]] and turn[0] == 1
    lm.document_start = None
    assert encode(lm, ["a coffee", "<|im_start|>a coffee"]) == [document[1:], turn]


NOT_FINITE = "the logits of 'tiny' are not finite: expected a model that has not diverged"


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("entries", [slice(None), slice(7, 8)])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_logits_that_are_not_finite_are_an_error(kind, value, entries):
    lm = LanguageModel(tiny_model(kind), tiny_tokenizer(), "tiny")

    def spoil(head, inputs, logits):
        logits[..., entries] = value

    lm.model.get_output_embeddings().register_forward_hook(spoil)
    calls = [complete, sample_text, partial(sample_text, top_k=5), partial(sample_text, top_p=0.9)]
    for call in [*calls, lambda lm, texts, max_new_tokens: perplexity(lm, texts)]:
        if value == -math.inf and entries == slice(7, 8):
            call(lm, ["one", "two"], max_new_tokens=2)  # a token that is ruled out: the others can be drawn
            continue
        with pytest.raises(ValueError) as error:
            call(lm, ["one", "two"], max_new_tokens=2)
        assert str(error.value) == NOT_FINITE
    lm.model.get_output_embeddings()._forward_hooks.clear()
    assert len(complete(lm, ["one", "two"], max_new_tokens=2)) == 2


def test_a_model_that_diverges_in_one_row_or_late_is_found(llama_lm):
    class Late(Scripted):
        def forward(self, input_ids, position_ids=None, **options):
            output = self.base(input_ids, position_ids=position_ids, **options)
            output.logits[position_ids[:, -1] > 8] = NAN
            return output

    lm = LanguageModel(Late(llama_lm, None), llama_lm.tokenizer, "tiny")
    for call in (complete, sample_text):
        call(lm, ["3 +", ""], max_new_tokens=3)
        for prompts, count in ((["", "A dull film. Verdict: awful"], 1), (["3 +"], 12)):
            with pytest.raises(ValueError) as error:
                call(lm, prompts, max_new_tokens=count, stop=())
            assert str(error.value) == NOT_FINITE


@pytest.mark.parametrize("half", ["\ud83d", "\udc00"])
def test_half_a_surrogate_pair_is_named(llama_lm, half):
    message = re.escape(f"[1] has a lone surrogate, {half!r}: expected text that UTF-8 can write")
    for call in (encode, complete, sample_text, token_logprobs):
        with pytest.raises(ValueError, match=message):
            call(llama_lm, ["a \U0001f600", "a " + half])
    with pytest.raises(ValueError, match="lone surrogate"):
        complete(llama_lm, ["a"], stop=half)


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.7}, {"temperature": 1.5, "top_k": 20}, {"top_k": 50, "top_p": 0.8}]
)
def test_recorded_logprobs_are_the_recomputed_ones(tiny_lm, sampling):
    rollout = sample_text(tiny_lm, PROMPTS, max_new_tokens=12, seed=5, **sampling)
    assert check_behavior(tiny_lm, rollout, atol=1e-4, **sampling) > 0
    if sampling:
        with pytest.raises(ValueError, match="logprobs are off"):
            check_behavior(tiny_lm, rollout)


def test_the_record_is_laid_out_as_promised(tiny_lm):
    rollout = sample_text(tiny_lm, PROMPTS, max_new_tokens=9, seed=1)
    assert torch.equal(rollout.observations[:, 1:], rollout.actions[:, :-1])
    for row, prompt in enumerate(encode(tiny_lm, PROMPTS)):
        tokens = [int(rollout.observations[row, 0]), *rollout.actions[row].tolist()]
        taken = rollout.mask[row].nonzero()[:, 0].tolist()
        assert tokens[: len(prompt)] == prompt
        assert taken == list(range(len(prompt) - 1, len(prompt) - 1 + len(taken)))
        ended = rollout.actions[row, taken[-1]] == 0
        assert rollout.terminated[row] == ended and (ended or len(taken) == 9)
        assert set(tokens[taken[-1] + 2 :]) <= {0}
    assert not rollout.rewards.any() and not rollout.logprobs[~rollout.mask].any()
    # gradients may flow through arithmetic with the record
    assert not rollout.logprobs.is_inference() and not rollout.actions.is_inference()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 0.5), (torch.float64, 5e-6)])
def test_every_precision_is_recorded_in_float32(tiny_folders, dtype, atol):
    from ptlearn.lm.models import load_lm

    lm = load_lm(tiny_folders["llama"], dtype=dtype)
    rollout = sample_text(lm, PROMPTS, max_new_tokens=6)
    # in float64 the norms of transformers stay in float32, those of the sampler do not
    assert rollout.logprobs.dtype == torch.float32
    check_behavior(lm, rollout, atol=atol)
    assert len(complete(lm, PROMPTS, max_new_tokens=6)) == len(PROMPTS)


def test_one_row_is_the_same_alone_and_in_a_batch(tiny_lm):
    batch = complete(tiny_lm, PROMPTS, max_new_tokens=12, stop=())
    assert batch == [complete(tiny_lm, [prompt], max_new_tokens=12, stop=())[0] for prompt in PROMPTS]
    assert len(set(batch)) == len(set(PROMPTS))
    # with seed 0 one number lies 2e-7 from where the next token begins, and rounding chooses
    together, alone = (sample_text(tiny_lm, prompts, max_new_tokens=12, seed=1) for prompts in (PROMPTS, PROMPTS[:1]))
    assert completions(tiny_lm, together)[:1] == completions(tiny_lm, alone)
    torch.testing.assert_close(together.logprobs[0][together.mask[0]], alone.logprobs[0][alone.mask[0]])


def test_some_rows_with_their_own_numbers_are_those_of_the_whole_batch(llama_lm):
    """So that several processes may share the rows of a batch."""
    prompts, steps = ["The", "A dull", "un café", "3 + 4"], 6
    whole = sample_text(llama_lm, prompts, max_new_tokens=steps, seed=5)
    uniforms = torch.rand(len(prompts), steps, generator=torch.Generator().manual_seed(5))
    part = sample_text(llama_lm, prompts[1::2], max_new_tokens=steps, seed=uniforms[1::2])
    for row in range(2):
        assert torch.equal(part.actions[row][part.mask[row]], whole.actions[2 * row + 1][whole.mask[2 * row + 1]])
    other = sample_text(llama_lm, prompts[1::2], max_new_tokens=steps, seed=uniforms[::2])
    assert not torch.equal(part.actions[part.mask], other.actions[other.mask])
    with pytest.raises(ValueError, match=r"^seed has shape \(4, 6\): expected \(2, 6\), a number per prompt and"):
        sample_text(llama_lm, prompts[:2], max_new_tokens=steps, seed=uniforms)


def test_greedy_text_is_what_the_plain_forward_pass_prefers(tiny_lm):
    (prompt,) = encode(tiny_lm, [PROMPTS[0]])
    tokens = list(prompt)
    for _ in range(8):
        tokens.append(int(tiny_lm(torch.tensor([tokens]))[0, -1].argmax()))
    new = tokens[len(prompt) :]
    new = new[: new.index(0)] if 0 in new else new
    assert complete(tiny_lm, [PROMPTS[0]], max_new_tokens=8, stop=()) == [tiny_lm.tokenizer.decode(new)]


def test_the_seed_decides(llama_lm):
    draws = [completions(llama_lm, sample_text(llama_lm, PROMPTS, seed=seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0] != draws[0][3]  # the same prompt twice, two draws


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("sampling", [{}, {"temperature": 2.0}, {"top_k": 4}, {"top_p": 0.7}])
def test_sampled_frequencies_follow_the_distribution(llama_lm, sampling):
    logits = torch.full((1, 300), -torch.inf)
    logits[0, 40:46] = torch.tensor([1.5, 1.0, 0.5, 0.0, -0.5, -1.0])
    lm = scripted(llama_lm, logits)
    rollout = sample_text(lm, ["3 + 4 ="] * 500, max_new_tokens=20, seed=3, **sampling)
    counts = torch.bincount(rollout.actions[rollout.mask], minlength=300).double()
    probabilities = sampling_logprobs(logits[0].double(), **sampling).exp()
    kept = probabilities > 0
    assert counts.sum() == 10_000 and counts[~kept].sum() == 0
    # 99.9 % of chi-square with five degrees of freedom is 20.5
    assert chi_square(counts[kept], probabilities[kept]) < 20.5
    perturbed = probabilities.where(~kept, probabilities + torch.arange(300).remainder(2) * 0.06)
    assert chi_square(counts[kept], perturbed[kept] / perturbed[kept].sum()) > 20.5


def test_inverting_the_cdf_never_draws_what_is_impossible():
    probabilities = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]]).expand(5, 5)
    uniforms = torch.tensor([0.0, 0.2999, 0.3001, 0.9999, 1 - 2**-24])
    assert invert_cdf(probabilities, uniforms).tolist() == [1, 1, 3, 3, 3]
    many = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert invert_cdf(many, torch.tensor([1 - 2**-24])).item() < 4000


@pytest.mark.parametrize("size", [1, 3999, 4000, 4001, 4096])  # 4001 is a prime number
def test_inverting_the_cdf_is_finding_a_number_among_the_running_sums(size):
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(500, size, generator=generator)).softmax(-1)
    probabilities[:, 1::3] = 0  # between others, and a whole block of them
    probabilities[:, 200:600] = 0
    uniforms = torch.rand(500, generator=generator)
    uniforms[0], uniforms[1] = 0, 1 - 2**-24
    sums = probabilities.double().cumsum(-1)
    drawn, targets = invert_cdf(probabilities, uniforms), uniforms.double() * sums[:, -1]
    here = sums.gather(1, drawn[:, None])[:, 0]
    mass = probabilities.double().gather(1, drawn[:, None])[:, 0]
    assert bool((mass > 0).all()) and bool((targets < here + 1e-6).all() and (targets > here - mass - 1e-6).all())
    assert not bool((targets < here + 1e-6 - mass).all())  # the entry before would not do
    invalid = invert_cdf(torch.full((2, size), torch.nan), uniforms[:2])
    assert invalid.tolist() == [size - 1] * 2


def test_truncation_keeps_to_its_set(llama_lm):
    for sampling in ({"top_k": 1}, {"top_p": 1e-6}):
        rollout = sample_text(llama_lm, PROMPTS, max_new_tokens=6, **sampling)
        assert completions(llama_lm, rollout) == complete(llama_lm, PROMPTS, max_new_tokens=6, stop=())
        assert not rollout.logprobs.any()


def test_the_end_token_terminates_and_is_trained(llama_lm):
    rollout = sample_text(scripted(llama_lm, certain(0)), PROMPTS[:2], max_new_tokens=5)
    assert rollout.terminated.all()
    assert rollout.mask.sum(1).tolist() == [1, 1]
    assert rollout.actions[rollout.mask].tolist() == [0, 0]
    assert completions(llama_lm, rollout) == ["", ""]


def test_the_time_limit_does_not_terminate(llama_lm):
    (token,) = encode(llama_lm, ["7"], bos=False)[0]
    rollout = sample_text(scripted(llama_lm, certain(token)), PROMPTS[:2], max_new_tokens=5)
    assert not rollout.terminated.any() and rollout.mask.sum(1).tolist() == [5, 5]
    assert completions(llama_lm, rollout) == ["77777"] * 2


@pytest.mark.parametrize("stop", ["777", "77", "é"])
def test_stop_strings_span_tokens(llama_lm, stop):
    script = encode(llama_lm, ["x" + stop], bos=False)[0]
    longest = len(script)
    assert longest > 2

    class Spelling(Scripted):
        """Spells the script, one token after another, from the end of a prompt of one token."""

        def forward(self, input_ids, position_ids=None, **options):
            output = self.base(input_ids, position_ids=position_ids, **options)
            ahead = torch.tensor(script * 20)[position_ids[:, -1:]]
            output.logits = torch.zeros_like(output.logits).scatter(-1, ahead[..., None], 100.0)
            return output

    lm = LanguageModel(Spelling(llama_lm, None), llama_lm.tokenizer, "spelling")
    rollout = sample_text(lm, ["", ""], max_new_tokens=15, stop=("never", stop))
    assert rollout.mask.sum(1).tolist() == [longest] * 2 and rollout.terminated.all()
    assert completions(lm, rollout) == ["x" + stop] * 2
    assert completions(lm, rollout, stop) == ["x"] * 2 == complete(lm, ["", ""], max_new_tokens=15, stop=stop)


def test_a_stop_string_in_the_prompt_does_not_count(llama_lm):
    (token,) = encode(llama_lm, ["7"], bos=False)[0]
    rollout = sample_text(scripted(llama_lm, certain(token)), ["77\n"], max_new_tokens=3, stop="777")
    assert rollout.mask.sum() == 3


def test_completions_that_end_leave_the_batch_without_a_trace(llama_lm, monkeypatch):
    """Rows of very different lengths, with rows dropped at every chance and never."""
    records = []
    for crowd in (0.0, 0.75, 1.0):
        monkeypatch.setattr(text, "_CROWD", crowd)
        records.append(sample_text(llama_lm, PROMPTS * 4, max_new_tokens=30, stop=("e", "\n"), seed=2))
    lengths = records[0].mask.sum(1)
    assert len(set(lengths.tolist())) > 5
    for record in records[1:]:
        assert torch.equal(record.actions, records[0].actions)
        torch.testing.assert_close(record.logprobs, records[0].logprobs, atol=1e-4, rtol=0)


def test_many_prompts_are_completed_in_their_order(llama_lm, monkeypatch):
    monkeypatch.setattr(text, "_ROWS", 2)
    assert complete(llama_lm, PROMPTS, max_new_tokens=5) == [
        complete(llama_lm, [prompt], max_new_tokens=5)[0] for prompt in PROMPTS
    ]


def test_sampling_switches_dropout_off_and_leaves_the_modes_alone(tiny_folders):
    from ptlearn.lm.models import load_lm

    lm = load_lm(tiny_folders["gpt2"])
    lm.train()
    lm.model.transformer.h[0].eval()
    modes = [module.training for module in lm.modules()]
    rollout = sample_text(lm, PROMPTS, max_new_tokens=8)
    assert [module.training for module in lm.modules()] == modes
    with pytest.raises(ValueError, match="suspect"):
        check_behavior(lm, rollout)
    assert check_behavior(lm.eval(), rollout) < 1e-4


def test_token_logprobs_and_perplexity_equal_the_label_loss(tiny_lm, monkeypatch):
    texts = ["The film was great fun.", "", "un café = a coffee\n", "3"]
    monkeypatch.setattr(text, "_LOGITS", 300 * 30)  # several batches
    scores = token_logprobs(tiny_lm, texts)
    total = 0.0
    for ids, values in zip(encode(tiny_lm, texts), scores, strict=True):
        assert len(values) == len(ids) - 1
        if len(ids) > 1:
            tokens = torch.tensor([ids])
            loss = tiny_lm.model(tokens, labels=tokens).loss.item()
            assert math.isclose(-float(values.mean()), loss, rel_tol=1e-5)
            total += loss * len(values)
    expected = math.exp(total / sum(len(values) for values in scores))
    assert math.isclose(perplexity(tiny_lm, texts), expected, rel_tol=1e-5)


def test_perplexity_of_a_uniform_model_is_the_vocabulary(llama_lm):
    assert math.isclose(perplexity(scripted(llama_lm, torch.zeros(1, 300)), ["a coffee"]), 300, rel_tol=1e-5)


BAD = [
    ({"prompts": []}, "prompts is empty"),
    ({"prompts": "one"}, "prompts is the string 'one': expected a list"),
    ({"prompts": ["a", 3]}, r"prompts\[1\] is 3: expected a string"),
    ({"prompts": ["a", "film " * 80]}, r"prompts\[1\] has \d+ tokens, with max_new_tokens=32 more than the context"),
    ({"max_new_tokens": 0}, "max_new_tokens=0: expected at least 1"),
    ({"max_new_tokens": 64}, r"prompts\[0\] has \d+ tokens, with max_new_tokens=64 .* at most 64 together"),
    ({"max_new_tokens": 2.5}, "max_new_tokens=2.5: expected a whole number"),
    ({"stop": ("",)}, r"stop=\('',\): expected strings"),
]
BAD_SAMPLING = [
    ({"temperature": 0.0}, "temperature=0.0: expected"),
    ({"temperature": -1}, "temperature=-1: expected"),
    ({"temperature": None}, "temperature=None: expected"),
    ({"top_k": 0}, "top_k=0: expected"),
    ({"top_k": 2.5}, "top_k=2.5: expected a whole number"),
    ({"top_p": 0.0}, "top_p=0.0: expected"),
    ({"top_p": 1.1}, "top_p=1.1: expected"),
]


def test_beyond_the_window_sampling_and_scoring_are_the_plain_forward_pass(windowed_lm):
    rollout = sample_text(windowed_lm, PROMPTS, max_new_tokens=3 * WINDOW, seed=1)
    assert int(rollout.mask.sum(1).max()) > 2 * WINDOW
    check_behavior(windowed_lm, rollout, atol=1e-4)
    for ids, values in zip(encode(windowed_lm, PROMPTS), token_logprobs(windowed_lm, PROMPTS), strict=True):
        alone = windowed_lm(torch.tensor([ids])).log_softmax(-1)[0, :-1]
        torch.testing.assert_close(values, alone[range(len(values)), ids[1:]], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("bad", "message"), BAD + BAD_SAMPLING)
def test_bad_input_is_named_in_one_line(llama_lm, bad, message):
    arguments = {"prompts": ["a"]} | bad
    calls = [sample_text] if bad.keys() & {"temperature", "top_k", "top_p"} else [sample_text, complete]
    for call in calls:
        with pytest.raises(ValueError, match=message) as error:
            call(llama_lm, **arguments)
        assert "\n" not in str(error.value)


def test_seeds_that_are_no_seeds_are_named(llama_lm):
    for seed in (None, 1.5, "0"):
        with pytest.raises(ValueError, match="^seed=.*: expected a whole number$"):
            sample_text(llama_lm, ["a"], max_new_tokens=1, seed=seed)
    almost = torch.tensor([[1 - 1e-9]], dtype=torch.float64)  # 1 in the precision of the probabilities
    outside = [torch.full((1, 1), number) for number in (-0.1, 1.0, math.nan)]
    for seed in (*outside, almost, torch.zeros(1, 1).int()):
        with pytest.raises(ValueError, match=r"^seed is a tensor of .*: expected floating numbers in \[0, 1\)$"):
            sample_text(llama_lm, ["a"], max_new_tokens=1, top_k=2, seed=seed)
    drawn = [sample_text(llama_lm, ["a"], max_new_tokens=4, seed=seed).actions for seed in (3, np.int64(3))]
    assert torch.equal(*drawn)


def test_no_text_is_no_tokens(llama_lm):
    assert encode(llama_lm, []) == token_logprobs(llama_lm, []) == []
    with pytest.raises(ValueError, match="texts have no token to score"):
        perplexity(llama_lm, [])


def test_texts_too_long_to_score_are_named(llama_lm):
    with pytest.raises(ValueError, match=r"texts\[1\] has \d+ tokens: expected at most the context, 64"):
        perplexity(llama_lm, ["a", "film " * 80])
    with pytest.raises(ValueError, match="texts is the string"):
        perplexity(llama_lm, "a coffee")


@pytest.mark.parametrize("general", [False, True])
def test_rows_that_went_the_same_way_are_computed_once(tiny_lm, monkeypatch, general):
    """They part one by one, end one by one, and each is still recorded as the model sees it alone."""
    if general:
        monkeypatch.setattr(decoding, "has_llama_layout", lambda model: False)
    sizes = []
    for cls in (decoding.JoinedDecoder, decoding.CacheDecoder):
        step = cls.step

        def counted(self, tokens, step=step):
            sizes.append(len(tokens))
            return step(self, tokens)

        monkeypatch.setattr(cls, "step", counted)
    prompts = ["The capital of", "un café"] * 20
    rollout = sample_text(tiny_lm, prompts, max_new_tokens=6, seed=2, top_k=2)
    assert check_behavior(tiny_lm, rollout, atol=1e-4, top_k=2) <= 1e-4
    for step, size in enumerate(sizes):
        read = {
            (index % 2, *row[kept][: step + 1].tolist())
            for index, (row, kept) in enumerate(zip(rollout.actions, rollout.mask, strict=True))
        }
        assert size <= len(read)
    assert 2 < sizes[0] <= 4 < max(sizes) < 40
    sizes.clear()
    sample_text(tiny_lm, prompts, max_new_tokens=4, top_k=1)
    assert max(sizes) <= 2
