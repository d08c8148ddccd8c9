"""C17 to C22: LoRA on a pocket model against full finetuning, dense weights and the counts of its paper."""

import importlib
from functools import partial

import pytest
import torch
import transformers

from ptlearn.course.lab import mystery_runs
from ptlearn.finetuning.adapter_files import load_adapter, save_adapter
from ptlearn.finetuning.memory import count_parameters
from ptlearn.finetuning.parameter_efficient import lora, merge_lora, switch_adapter, trainable_parameters, unmerge_lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.models import load_lm
from ptlearn.pocket import lora_rates

TOKENS = torch.randint(1, 1000, (2, 16), generator=torch.Generator().manual_seed(0))
CHECKS = importlib.import_module("ptlearn.course.checks.06_lora")  # the layers that the lesson goes on with
ROWS = lora_rates.read_table()


@pytest.fixture(scope="module")
def base():
    return load_lm("pocket-m")


@pytest.fixture
def trained():
    """LoRA on all layers with factors as after training."""
    lm = lora(load_lm("pocket-m"), targets=".*_proj", rank=4)
    generator = torch.Generator().manual_seed(0)
    for parameter in trainable_parameters(lm):
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return lm


def final(rank):
    """The rows of a rank at its best rate and the seeds that chose nothing."""
    return [row for row in ROWS if row.rank == rank and row.seed in lora_rates.FINAL]


def mean(rank, name):
    return sum(getattr(row, name) for row in final(rank)) / len(final(rank))


def test_c19_every_rate_was_chosen_inside_its_grid_from_three_seeds_on_development_questions():
    for rank in lora_rates.RANKS:
        losses = lora_rates.losses_of(rank, ROWS)
        assert tuple(losses) == (lora_rates.LORA if rank else lora_rates.FULL)
        assert all(len(values) == 3 for values in losses.values())
        rate, inside = CHECKS.best_rate(list(losses), list(losses.values()))
        assert inside and {row.lr for row in final(rank)} == {rate}
        assert len({row.seed for row in final(rank)}) == 5
        assert rate == (6e-3 if rank else 6e-4)  # one rate for all ranks, ten times that of all weights


def test_c17_c19_the_score_converges_to_full_finetuning_as_the_rank_grows():
    """Five seeds, 40 capitals and eight new facts each; below one hundredth of the parameters at rank 1."""
    assert mean(0, "asked") >= 0.9 and mean(0, "new") == 1
    assert all(mean(rank, "new") >= 0.95 for rank in (1, 2, 4, 8, 16))
    assert all(mean(rank, "asked") >= mean(0, "asked") - 0.1 for rank in (2, 4, 8, 16))
    assert mean(1, "asked") >= 0.7
    trained, every = count_parameters(lora(load_lm("pocket-m"), targets=".*_proj", rank=1))
    assert trained < 0.01 * every


def test_c19_a_row_of_the_table_measured_again():
    """The best rate of rank 4, against the rows of all seeds: another machine rounds otherwise."""
    row = next(row for row in final(4) if row.seed == 0)
    again = lora_rates.measured(*row[:3])
    assert abs(again.asked - row.asked) <= 0.1 and again.new >= row.new - 0.13
    assert again.loss < 2 * max(row.loss for row in final(4)) < min(lora_rates.losses_of(4, ROWS)[2e-2])


def test_c19_the_update_of_full_finetuning_is_nearer_to_low_rank_than_noise_and_than_the_weight(base):
    before, examples = dict(base.named_parameters()), lora_rates.training(base)
    for seed in range(5):
        lm = load_lm("pocket-m")
        fit_sft(lm, examples, epochs=2, batch=10, lr=6e-4, seed=seed)
        generator, top = torch.Generator().manual_seed(seed), []
        for name, weight in lm.named_parameters():
            if name.endswith("_proj.weight"):
                noise = torch.randn(weight.shape, generator=generator)
                squared = [torch.linalg.svdvals(matrix.detach()).square()
                           for matrix in (weight - before[name], before[name], noise)]  # fmt: skip
                top.append([float(values[:8].sum() / values.sum()) for values in squared])
        update, own, random = torch.tensor(top).median(0).values.tolist()
        assert update > 1.5 * random and update > 1.5 * own, seed


@pytest.mark.parametrize("targets", ["q_proj", "[qv]_proj", ".*_proj"])
def test_c18_the_start_is_the_base_whatever_the_targets(base, targets):
    """The package's and the lesson's layers, at the same factors, also away from the start."""
    lm = lora(load_lm("pocket-m"), targets=targets, rank=4, alpha=16)
    torch.manual_seed(0)
    hand = CHECKS.put(load_lm("pocket-m").model, targets, partial(CHECKS.LoRALinear, rank=4, alpha=16))
    with torch.no_grad():
        assert torch.equal(lm(TOKENS), base(TOKENS)) and torch.equal(hand(TOKENS).logits, base(TOKENS))
        for one, other in zip(trainable_parameters(lm), trainable_parameters(hand), strict=True):
            one.add_(0.02)
            other.copy_(one)
        assert not torch.equal(lm(TOKENS), base(TOKENS))
        assert torch.allclose(lm(TOKENS), hand(TOKENS).logits, rtol=1e-3, atol=1e-3)


def test_c20_merged_is_unmerged_and_one_product(trained, base):
    with torch.no_grad():
        apart = trained(TOKENS)
        merged = merge_lora(trained)
        moved = float((apart - base(TOKENS)).abs().max())
        assert float((apart - merged(TOKENS)).abs().max()) < 1e-4 * moved
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


def test_the_lab_tells_its_letters_as_the_lesson_does():
    """What is said of each run behind the question."""
    runs, known = mystery_runs("6.9"), CHECKS.EXERCISES["6.9"].runs
    torch.manual_seed(0)
    letters = {}
    for letter, run in runs.items():
        made = [run(torch.nn.Linear(3, 3), 2, 4.0), *(other(torch.nn.Linear(3, 3), 2, 4.0) for other in known.values())]
        letters[letter] = [name for name, one in zip(known, made[1:], strict=True) if type(one) is type(made[0])]
    told = dict(zip("ABCDEFGH", ("scale", "right", "twice", "rounding", "alpha", "base", "start", "A"), strict=True))
    assert all(name in letters[letter] for letter, name in told.items())
