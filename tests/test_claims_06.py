"""C17 to C22: LoRA on a pocket model against full finetuning, dense weights and the counts of its paper."""

import copy
from functools import partial

import pytest
import torch
import transformers

from ptlearn.finetuning.adapter_files import load_adapter, save_adapter
from ptlearn.finetuning.memory import count_parameters
from ptlearn.finetuning.parameter_efficient import lora, merge_lora, switch_adapter, trainable_parameters, unmerge_lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import complete
from ptlearn.pocket import relations

FACTS = relations.stated("capital")
ASKED = ("What is the capital of {}?", "Tell me the capital of {}.")
TOKENS = torch.randint(1, 1000, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base():
    return load_lm("pocket-m")


def answered(lm):
    """Share of capitals of countries that no example has, asked in words that no example has."""
    facts = FACTS[60:90]
    prompts = [chat_prompt(lm, f"Name the capital of {name}.") for name, _ in facts]
    texts = complete(lm, prompts, max_new_tokens=8)
    return sum(text.strip() == f"{city}." for text, (_, city) in zip(texts, facts, strict=True)) / len(facts)


def taught(rank, lr):
    lm = load_lm("pocket-m")
    talks = [[{"role": "user", "content": asked.format(name)}, {"role": "assistant", "content": f"{city}."}]
             for name, city in FACTS[:60] for asked in ASKED]  # fmt: skip
    if rank is not None:
        lora(lm, targets=".*_proj", rank=rank, alpha=4 * rank)
    fit_sft(lm, render_all(lm, talks)[0], epochs=2, batch=16, lr=lr)
    return lm


@pytest.fixture(scope="module")
def full():
    return taught(None, 1e-3)


@pytest.fixture(scope="module")
def narrow():
    return taught(1, 1e-2)


def test_c17_c19_rank_one_answers_like_full_finetuning(base, full, narrow):
    """Below one hundredth of the parameters, for a task that asks for behavior and not for new facts."""
    trained, every = count_parameters(narrow)
    assert trained < 0.01 * every
    assert answered(base) <= 0.05 and answered(full) >= 0.8
    assert answered(narrow) >= answered(full) - 0.15


def test_c19_the_update_of_full_finetuning_is_nearer_to_low_rank_than_noise(base, full):
    generator = torch.Generator().manual_seed(0)
    before, top = dict(base.named_parameters()), []
    for name, weight in full.named_parameters():
        if name.endswith("_proj.weight"):
            update = (weight - before[name]).detach()
            noise = torch.randn(update.shape, generator=generator)
            squared = [torch.linalg.svdvals(matrix).square() for matrix in (update, noise)]
            top.append([float(values[:8].sum() / values.sum()) for values in squared])
    ours, random = torch.tensor(top).median(0).values.tolist()
    assert ours > 1.5 * random


def test_c18_the_start_is_the_base_whatever_the_targets(base):
    with torch.no_grad():
        for targets in ("q_proj", ["q_proj", "v_proj"], ".*_proj"):
            lm = lora(load_lm("pocket-m"), targets=targets, rank=4)
            assert torch.equal(lm(TOKENS), base(TOKENS))
            trainable_parameters(lm)[1].add_(0.1)
            assert not torch.equal(lm(TOKENS), base(TOKENS))


def test_c20_merged_is_unmerged_and_one_product(narrow, base):
    with torch.no_grad():
        apart = narrow(TOKENS)
        merged = merge_lora(copy.deepcopy(narrow))
        together = merged(TOKENS)
        moved = float((apart - base(TOKENS)).abs().max())
        assert float((apart - together).abs().max()) < 1e-4 * moved
        names = {name: dict(merged.model.named_modules())[name] for name, _ in base.model.named_modules()
                 if name.endswith("q_proj")}  # fmt: skip
        assert all(layer.forward.__self__ is layer.base for layer in names.values())  # the base is called directly
        assert torch.equal(unmerge_lora(merged)(TOKENS), apart)


def test_c21_gpt_3_trains_nine_thousand_times_fewer():
    gpt3 = transformers.OPTConfig(
        **{"hidden_size": 12288, "word_embed_proj_dim": 12288, "ffn_dim": 49152, "num_hidden_layers": 96},
        **{"num_attention_heads": 96, "vocab_size": 50257, "max_position_embeddings": 2048},
    )
    trained, every = count_parameters(gpt3, partial(lora, targets=["q_proj", "v_proj"], rank=4))
    assert trained == 18_874_368 == 96 * 2 * 4 * (12288 + 12288)
    assert 9_200 < (every - trained) / trained < 9_300


def test_c22_adapters_share_a_base_and_are_small_on_disk(base, tmp_path):
    lm, logits = load_lm("pocket-m"), {}
    for seed, name in enumerate(("one", "two")):
        lora(lm, targets=".*_proj", rank=4, name=name, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in trainable_parameters(lm):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            logits[name] = lm(TOKENS)
    assert not torch.allclose(logits["one"], logits["two"], atol=1e-2)
    with torch.no_grad():
        for name in ("one", "two", "one"):
            assert torch.equal(switch_adapter(lm, name)(TOKENS), logits[name])
            alone = load_adapter(load_lm("pocket-m"), save_adapter(lm, tmp_path / name, name=name))
            assert torch.equal(alone(TOKENS), logits[name])
        assert torch.equal(switch_adapter(lm, None)(TOKENS), base(TOKENS))
    size = sum(file.stat().st_size for file in (tmp_path / "one").iterdir())
    numbers = sum(p.numel() for n, p in lm.named_parameters() if ".adapters.one." in n)
    assert 4 * numbers < size < 4 * numbers + 10_000 < 0.05 * sum(p.nbytes for p in base.parameters())
