"""Heads looked at and switched off, in models small enough to compute them by hand."""

import pytest
import torch

from ptlearn.lm.attention import attention_weights, output_projections, silence, silenced, token_spans
from ptlearn.lm.models import LanguageModel, load_lm, toy_lm
from ptlearn.lm.text import encode

WORDS = ["end", "a", "b", "c"]


@pytest.fixture
def toy():
    return toy_lm(WORDS, layers=2)


def test_each_row_is_a_distribution_over_what_stands_before(toy):
    weights = attention_weights(toy, "a b c a")
    assert weights.shape == (2, 2, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 5))
    assert weights.triu(1).abs().max() == 0
    assert toy.model.config._attn_implementation == "sdpa"


@torch.inference_mode()
def test_the_weights_are_those_of_queries_and_keys():
    lm = load_lm("pocket-s")
    seen = {}
    layer = lm.model.model.layers[0].self_attn
    handle = layer.register_forward_hook(lambda module, given, kept, out: seen.update(kept), with_kwargs=True)
    weights = attention_weights(lm, "the cat sees")
    handle.remove()
    states, (cosine, sine) = seen["hidden_states"], seen["position_embeddings"]

    def rotated(project):
        heads = project(states).view(1, -1, 2, 32).transpose(1, 2)
        left, right = heads.chunk(2, -1)
        return heads * cosine + torch.cat((-right, left), -1) * sine

    scores = rotated(layer.q_proj) @ rotated(layer.k_proj).transpose(2, 3) / 32**0.5
    masked = scores + torch.full(scores.shape[2:], -torch.inf).triu(1)
    torch.testing.assert_close(weights[0], masked.softmax(-1)[0], atol=1e-5, rtol=1e-4)


def test_spans_are_the_tokens_of_the_pieces():
    lm = load_lm("pocket-s")
    pieces = ["chimpanzee =", " zave", "\n", "mango ="]
    [ids] = encode(lm, ["".join(pieces)])
    spans = token_spans(lm, pieces)
    assert [lm.tokenizer.decode(ids[slice(*span)]) for span in spans] == pieces
    assert spans[0][0] == 1 and spans[-1][1] == len(ids)  # behind the document's start
    with pytest.raises(ValueError, match="pieces: a token reaches across the end of 'the ca'"):
        token_spans(lm, ["the ca", "t"])


def test_a_silent_head_adds_nothing_and_comes_back(toy):
    tokens = torch.tensor([[0, 1, 2, 3]])
    whole = toy(tokens)
    weight = output_projections(toy)[1].weight
    kept = weight.detach().clone()
    with silenced(toy, [(1, 0)]):
        silent = toy(tokens)
    assert not torch.allclose(silent, whole) and torch.equal(toy(tokens), whole) and torch.equal(weight, kept)
    with torch.no_grad():
        weight[:, :4] = 0  # the columns that read head 0
    torch.testing.assert_close(toy(tokens), silent)


def test_several_heads_of_a_layer(toy):
    tokens = torch.tensor([[0, 1, 2]])
    with silenced(toy, [(0, 0), (0, 1)]):
        both = toy(tokens)
    with torch.no_grad():
        output_projections(toy)[0].weight.zero_()
    torch.testing.assert_close(toy(tokens), both)


def test_heads_of_another_layout_and_bad_input():
    import transformers

    config = transformers.GPT2Config(vocab_size=4, n_embd=8, n_layer=2, n_head=2, n_positions=16)
    lm = LanguageModel(transformers.GPT2LMHeadModel(config).eval(), toy_lm(WORDS).tokenizer, "gpt2")
    tokens = torch.tensor([[0, 1, 2]])
    with silenced(lm, [(0, 1)]):
        silent = lm(tokens)
    assert not torch.allclose(silent, lm(tokens)) and attention_weights(lm, "a b").shape[:2] == (2, 2)
    with pytest.raises(ValueError, match=r"heads: \(2, 0\) given, expected a layer below 2 and a head below 2"):
        silence(lm, [(2, 0)])
    with pytest.raises(ValueError, match="text: .* tokens given, expected at most the context of 16"):
        attention_weights(lm, "a " * 30)
    lm.model.config.n_layer = 3
    with pytest.raises(ValueError, match="lm: 2 output projections found in gpt2, expected one for each of 3"):
        output_projections(lm)
