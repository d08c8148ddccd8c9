"""Trees against the texts that they were made of, and against the same model reading one text at a time."""

import itertools
import random

import pytest
import torch

from conftest import tiny_model, tiny_tokenizer
from ptlearn.lm import models
from ptlearn.lm.models import LanguageModel
from ptlearn.lm.shared_prefixes import forest
from ptlearn.optimization import micro_batches, score_actions, update
from ptlearn.rollout import Rollout, pad_and_stack

WIDTH = 32  # of the tiny models


def answers(prompts=3, group=6, seed=0, alphabet=5):
    """Prompts of 9 to 14 tokens, each with answers of 1 to 6 tokens that often begin alike: (tokens, mask)."""
    rng, texts, masks = random.Random(seed), [], []
    for _ in range(prompts):
        prompt = [rng.randrange(20, 300) for _ in range(rng.randint(9, 14))]
        for _ in range(group):
            answer = [rng.randrange(alphabet) for _ in range(rng.randint(1, 6))]
            texts.append(prompt + answer)
            masks.append([False] * (len(prompt) - 1) + [True] * len(answer))
    order = rng.sample(range(len(texts)), len(texts))
    tokens, mask = (pad_and_stack([rows[i] for i in order])[0] for rows in (texts, masks))
    return tokens, mask


def rollout_of(tokens, mask):
    zeros = torch.zeros(mask.shape)
    return Rollout(tokens[:, :-1], tokens[:, 1:], zeros, zeros, mask, torch.ones(len(mask), dtype=torch.bool))


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def lm(request, monkeypatch):
    monkeypatch.setattr(models, "_SLOW", WIDTH)
    return LanguageModel(tiny_model(request.param), tiny_tokenizer(), request.param)


def alone(lm, observations, mask):
    """Logits of the masked steps, each row read by itself and without what stands behind its last one."""
    found = []
    for row, chosen in zip(observations, mask):
        length = int(chosen.nonzero().max()) + 1
        found.append(lm.model(row[None, :length]).logits[0][chosen[:length]])
    return torch.cat(found)


@pytest.mark.parametrize("seed", range(5))
def test_a_walk_up_a_tree_spells_the_text(seed):
    tokens, mask = answers(seed=seed)
    trees = forest(tokens[:, :-1], mask, WIDTH)
    visible = trees.visible()
    steps = zip(mask.nonzero().tolist(), trees.tree.tolist(), trees.place.tolist(), strict=True)
    for (row, step), tree, place in steps:
        seen = visible[tree, place]
        assert trees.tokens[tree][seen].tolist() == tokens[row, : step + 1].tolist()
        assert trees.positions[tree][seen].tolist() == list(range(step + 1))


@pytest.mark.parametrize("seed", range(5))
def test_no_token_is_read_twice_where_all_texts_share_one_tree(seed):
    tokens, mask = answers(prompts=1, group=8, seed=seed)
    trees = forest(tokens[:, :-1], mask, WIDTH)
    texts = [row[: int(chosen.nonzero().max()) + 1].tolist() for row, chosen in zip(tokens, mask)]
    prefixes = {tuple(text[: end + 1]) for text in texts for end in range(len(text))}
    assert len(trees.tokens) == 1 and int((trees.ends > 0).sum()) == len(prefixes) < sum(map(len, texts)) / 2


@pytest.mark.parametrize("seed", range(3))
def test_a_model_says_of_trees_what_it_says_of_texts(lm, seed):
    tokens, mask = answers(seed=seed)
    with torch.no_grad():
        expected = alone(lm, tokens[:, :-1], mask)
        found = lm.logits_at(tokens[:, :-1], mask)
        other = tokens.clone()
        other[:, 3] += 1  # of every prompt
        changed = lm.logits_at(other[:, :-1], mask)
    assert forest(tokens[:, :-1], mask, WIDTH) is not None
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert float((changed - expected).abs().max()) > 1e-2


@pytest.mark.parametrize("micro_batch", [None, 4, 7])
def test_the_gradient_is_that_of_the_texts(lm, micro_batch):
    tokens, mask = answers()
    rollout, weights = rollout_of(tokens, mask), torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    logprobs = alone(lm, rollout.observations, mask).log_softmax(-1).gather(1, rollout.actions[mask][:, None])[:, 0]
    gradients = torch.autograd.grad(-(logprobs * weights[mask]).sum() / len(mask), list(lm.parameters()))
    optimizer = torch.optim.SGD(lm.parameters(), lr=0.0)
    update(lm, optimizer, rollout, weights, micro_batch=micro_batch)
    for parameter, gradient in zip(lm.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3)
    scores = score_actions(lm, rollout, micro_batch)[0][mask]
    torch.testing.assert_close(scores, logprobs.detach(), atol=2e-5, rtol=0)


def test_a_prompt_is_read_once(lm, monkeypatch):
    tokens, mask = answers(prompts=2, group=8)
    read = []
    lm.model.get_input_embeddings().register_forward_hook(lambda _, inputs, output: read.append(inputs[0].numel()))
    with torch.no_grad():
        lm.logits_at(tokens[:, :-1], mask)
        monkeypatch.setattr(LanguageModel, "shares_prompts", False)
        lm.logits_at(tokens[:, :-1], mask)
    assert 2 * read[0] < read[1] == mask.numel()


def test_pieces_of_a_batch_keep_prompts_together():
    tokens, mask = answers(prompts=4, group=4)
    pieces = list(micro_batches(rollout_of(tokens, mask), 4, by_prompt=True))
    assert [len({tuple(row[:9]) for row in piece.observations.tolist()}) for piece, _ in pieces] == [1] * 4
    assert sorted(itertools.chain(*(rows.tolist() for _, rows in pieces))) == list(range(16))
    lengths = [piece.mask.shape[1] for piece, _ in pieces]
    assert lengths == sorted(lengths, reverse=True)


def test_rows_are_read_as_they_are_where_that_is_less_work():
    tokens, mask = answers(prompts=12, group=1)
    assert forest(tokens[:, :-1], mask, WIDTH) is None  # nothing in common
    assert forest(tokens[:, :-1], torch.zeros_like(mask), WIDTH) is None  # nothing asked
    assert forest(tokens[:0, :-1], mask[:0], WIDTH) is None  # no row at all
    long = torch.arange(4000).repeat(3, 1)
    long[:, 2000:] += torch.arange(3)[:, None] * 4000
    late = torch.ones_like(long, dtype=torch.bool)
    assert forest(long, late, width=16) is None  # a row of 8,000 tokens, all compared with each other
    assert forest(long, late, width=16_000) is not None


def test_models_that_cannot_read_trees_and_dropout_read_rows(lm, monkeypatch):
    assert lm.shares_prompts
    monkeypatch.setattr(models, "_SLOW", WIDTH + 1)
    assert not lm.shares_prompts
    monkeypatch.setattr(models, "_SLOW", WIDTH)
    assert not lm.train().shares_prompts
    lm.eval().model.config._attn_implementation = "flash_attention_2"
    assert not lm.shares_prompts
    assert not LanguageModel(tiny_model("gpt2"), tiny_tokenizer(), "gpt2").shares_prompts
    assert not LanguageModel(tiny_model("mistral"), tiny_tokenizer(), "mistral").shares_prompts
