"""The sampler apart from the learner: it draws what `sample_text` draws, keeps up, and what it rounds is repaired."""

import copy
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.distributed.fsdp import fully_shard
from transformers import AutoConfig, AutoTokenizer

from conftest import CONTEXT, tiny_model, tiny_tokenizer
from ptlearn import policy_gradient as pg
from ptlearn.finetuning.parameter_efficient import adapters, lora, merge_lora, switch_adapter
from ptlearn.lm import decode_attention, fast_sampling, joined_weights
from ptlearn.lm.fast_sampling import FastSampler, draw
from ptlearn.lm.models import LanguageModel, build_model, load_lm, toy_lm
from ptlearn.lm.text import completions, invert_cdf, sample_text
from ptlearn.lm.vllm_sampling import VLLMSampler
from ptlearn.rl.enumeration import enumerate_texts, exact_text_gradient
from ptlearn.rl.text_collection import pay
from ptlearn.rollout import action_logprobs, check_behavior, sampling_logprobs

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = ["The capital of Kenya is", "", "3 + 4 =", "The capital of Kenya is", "A dull film. Verdict:"]
FIELDS = ("observations", "actions", "rewards", "mask", "terminated")


def same(lm, sampler, prompts=PROMPTS, **options):
    """Both roads from the same random numbers: the same tokens, and log-probabilities off by rounding alone."""
    expected, found = sample_text(lm, prompts, **options), sampler(lm, prompts, **options)
    assert all(torch.equal(getattr(found, field), getattr(expected, field)) for field in FIELDS)
    assert found.logprobs.dtype == expected.logprobs.dtype
    return bool((found.logprobs - expected.logprobs).abs().max() < 1e-4) and expected


def shaken_lora(lm, targets=(".*_proj", "lm_head")):
    """LoRA whose paths do something, as after training."""
    lora(lm, targets=targets, rank=2)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(0, 0.3)


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def any_lm(request):
    return LanguageModel(tiny_model(request.param), tiny_tokenizer(), request.param)


def test_it_draws_the_tokens_of_sample_text(any_lm):
    """Prompts of different lengths, repeated ones and an empty one; end tokens, stop strings, truncated draws."""
    sampler = FastSampler()
    assert joined_weights.can_join(any_lm.model)
    any_lm.end_tokens = tuple(range(0, 300, 15))
    rollout = same(any_lm, sampler, PROMPTS * 2, max_new_tokens=35, seed=3)
    assert rollout.terminated.any() and rollout.mask.sum(1).min() < 16 < rollout.mask.sum(1).max()
    any_lm.end_tokens = (0,)
    rollout = same(any_lm, sampler, max_new_tokens=20, temperature=0.7, stop=("a", "é"), seed=4)
    assert rollout.terminated.any() and any("a" in any_lm.tokenizer.decode(row) for row in rollout.actions)
    assert same(any_lm, sampler, PROMPTS[1:], max_new_tokens=9, temperature=1.3, top_k=40, top_p=0.8)
    assert same(any_lm, sampler, PROMPTS * 7, max_new_tokens=2)
    numbers = torch.rand(len(PROMPTS), 8, generator=torch.Generator().manual_seed(5))
    assert same(any_lm, sampler, max_new_tokens=8, seed=numbers)
    assert torch.equal(sampler(any_lm, PROMPTS, max_new_tokens=8, seed=5).actions,
                       sampler(any_lm, PROMPTS, max_new_tokens=8, seed=numbers).actions)  # fmt: skip


def test_it_draws_the_tokens_of_sample_text_on_a_pocket_model(monkeypatch):
    monkeypatch.setattr(fast_sampling, "_READ", 8)  # prompts are read in parts
    lm = load_lm("pocket-m")
    rollout = same(lm, FastSampler(), max_new_tokens=24, stop="\n", seed=1)
    assert any(text for text in completions(lm, rollout, "\n"))


def test_it_keeps_up_with_the_model_and_its_lora_in_the_same_memory():
    lm, sampler = LanguageModel(tiny_model("qwen2"), tiny_tokenizer(), "tiny"), FastSampler()
    options = {"max_new_tokens": 12, "seed": 1}  # with seed 0 a number lies 2e-7 from where the next token begins
    before = same(lm, sampler, **options)
    places = [weight.data_ptr() for layer in sampler._weights.layers for weight in layer.values() if weight is not None]
    lora(lm, targets=[".*_proj", "lm_head"], rank=2)
    assert torch.equal(same(lm, sampler, **options).actions, before.actions)  # B is 0
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if name.endswith(".B") or "layernorm" in name:
                parameter.add_(0.3)
    assert not torch.equal(same(lm, sampler, **options).actions, before.actions)
    merge_lora(lm)
    assert same(lm, sampler, **options)
    assert places == [weight.data_ptr() for layer in sampler._weights.layers for weight in layer.values()
                      if weight is not None]  # fmt: skip
    assert all(parameter.grad_fn is None and not parameter.is_inference() for parameter in lm.parameters())


def test_another_model_and_what_cannot_be_joined():
    lm, sampler = LanguageModel(tiny_model("llama"), tiny_tokenizer(), "tiny"), FastSampler()
    other = LanguageModel(tiny_model("qwen3"), tiny_tokenizer(), "tiny")
    assert same(lm, sampler, max_new_tokens=4) and same(other, sampler, max_new_tokens=4)
    bottlenecks = adapters(LanguageModel(tiny_model("llama"), tiny_tokenizer(), "tiny"), size=2)
    gpt2, windowed = (LanguageModel(tiny_model(kind), tiny_tokenizer(), "tiny") for kind in ("gpt2", "qwen2-window"))
    moving = copy.deepcopy(lm)
    moving.model.model.rotary_emb.rope_type = "dynamic"
    for each in (bottlenecks, gpt2, windowed, moving):
        assert not joined_weights.can_join(each.model)
        assert same(each, sampler, max_new_tokens=4, temperature=0.8, stop="a", seed=torch.rand(len(PROMPTS), 4))


def test_switched_adapters_are_two_policies():
    lm, sampler = LanguageModel(tiny_model("llama"), tiny_tokenizer(), "tiny"), FastSampler()
    shaken_lora(lm)
    adapted = same(lm, sampler, max_new_tokens=12)
    switch_adapter(lm, None)
    assert not torch.equal(same(lm, sampler, max_new_tokens=12).actions, adapted.actions)


def test_bad_input_is_named():
    lm, sampler = LanguageModel(tiny_model("llama"), tiny_tokenizer(), "tiny"), FastSampler()
    for options, words in (
        ({"temperature": 0.0}, "temperature=0.0: expected"), ({"max_new_tokens": 0}, "max_new_tokens=0: expected"),
        ({"stop": ""}, "stop="), ({"max_new_tokens": 200}, "more than the context"),
        ({"seed": torch.rand(5, 3)}, r"seed has shape \(5, 3\): expected \(5, 32\)"),
    ):  # fmt: skip
        for call in (sampler, sample_text):
            with pytest.raises(ValueError, match=words):
                call(lm, PROMPTS, **options)
    weight = lm.model.model.layers[0].self_attn.v_proj.weight.detach()
    value = float(weight[3, 3])
    weight[3, 3] = math.nan
    with pytest.raises(ValueError, match="the logits of 'tiny' are not finite"):
        sampler(lm, PROMPTS)
    weight[3, 3] = value
    assert same(lm, sampler, max_new_tokens=4)  # nothing of the broken model is left in the cache


def test_the_draw_in_two_levels_is_the_inverse_of_the_distribution():
    """The share of the numbers that falls on a word is its probability, and on words that are ruled out none does."""
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(0)).double() * 2
    logits[0, 5:20] = logits[0, 128:256] = -math.inf
    numbers = (torch.arange(4_000, dtype=torch.float64) + 0.5) / 4_000
    tokens, logprobs = draw(logits.expand(4_000, -1), numbers, torch.tensor(1.5, dtype=torch.float64))
    exact = sampling_logprobs(logits, 1.5)[0]
    shares = torch.bincount(tokens, minlength=300) / 4_000
    assert (shares - exact.exp()).abs().max() < 1.1 / 4_000
    assert torch.allclose(logprobs, exact[tokens], atol=1e-12)
    assert torch.equal(tokens, invert_cdf(exact.exp().expand(4_000, -1), numbers))
    edges = torch.tensor([0.0, 1 - 2**-24])
    logits[0, :3] = logits[0, 298:] = -math.inf
    tokens, logprobs = draw(logits.float().expand(2, -1), edges, torch.tensor(1.0))
    assert tokens.tolist() == [3, 297] and logprobs.isfinite().all()
    for bad in (math.nan, math.inf):
        assert draw(logits.clone().index_fill(1, torch.tensor([7]), bad), numbers[:1], torch.tensor(1.0))[1].isnan()
    assert draw(torch.full((1, 4), -math.inf), numbers[:1], torch.tensor(1.0))[1].isnan()


def test_a_step_asks_the_device_for_no_number(monkeypatch):
    """Fake tensors have shapes and no numbers: what looks at one, and so waits for a GPU, is an error."""
    sampler, model = FastSampler(), tiny_model("qwen3")
    with FakeTensorMode(allow_non_fake_inputs=True):
        sampler._take_over(model, torch.device("cpu"))
        room = sampler._room_for(5, 40)
        room.begin([[1, 2, 3], [4]] * 2, torch.rand(4, 12), (1.0, None, None))
        for room.sampling in ((1.0, None, None), (0.7, 20, 0.9)):
            room.advance()
        monkeypatch.setattr(fast_sampling, "wide", lambda states, head: states[: int(room.step)])
        with pytest.raises(DataDependentOutputException):
            room.advance()


def test_a_sampler_in_bfloat16_is_close_and_its_own_policy():
    lm = LanguageModel(tiny_model("llama"), tiny_tokenizer(), "tiny")
    rollout = FastSampler(dtype=torch.bfloat16)(lm, PROMPTS * 6, max_new_tokens=16, temperature=2.0)
    gap = check_behavior(lm, rollout, atol=1.0, temperature=2.0)
    assert 1e-3 < gap < 0.5
    # what it records are probabilities of its own, whose sum over the vocabulary is 1: E[pi / mu] = 1 under mu
    with torch.no_grad():
        logprobs = action_logprobs(lm, rollout, temperature=2.0)
    ratios = pg.truncated_ratio(logprobs, rollout.logprobs, rollout.mask)[rollout.mask]
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / len(ratios) ** 0.5


def test_a_truncated_ratio_repairs_what_was_sampled_otherwise():
    """One-token texts drawn at temperature 0.5: exact where the cap does not bind, off without the ratio."""
    lm = toy_lm(["end", "a", "b", "c"])
    rollout, _ = enumerate_texts(lm, ["", "a", "b a"], max_new_tokens=1)
    rollout = pay(rollout, [float(3 * number % 5) for number in range(len(rollout.actions))])
    with torch.no_grad():
        behavior = action_logprobs(lm, rollout, temperature=0.5)
    logprobs = action_logprobs(lm, rollout)
    shares = torch.where(rollout.mask, behavior.exp(), 0)
    parameters = list(lm.parameters())

    def expected(weights):
        loss = pg.policy_gradient_loss(logprobs, weights * rollout.rewards * shares, rollout.mask, 3)
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        return -torch.cat([gradient.flatten() for gradient in gradients])

    exact = exact_text_gradient(lm, rollout)
    ratios = {cap: pg.truncated_ratio(logprobs, behavior, rollout.mask, cap=cap) for cap in (1.0, 2.0, 1e9)}
    errors = {cap: float((expected(ratio) - exact).norm() / exact.norm()) for cap, ratio in ratios.items()}
    assert errors[1e9] < 1e-10 and not ratios[1e9].requires_grad and ratios[1e9].max() > 2
    assert 0.01 < errors[2.0] < errors[1.0]
    assert (expected(torch.ones_like(behavior)) - exact).norm() > 0.1 * exact.norm()
    assert all((ratio <= cap).all() and (ratio[~rollout.mask] == 0).all() for cap, ratio in ratios.items())
    with pytest.raises(ValueError, match="cap=0.0: expected a number above 0"):
        pg.truncated_ratio(logprobs, behavior, rollout.mask, cap=0.0)


class FakeEngine:
    """What of vLLM is called: a model of its own under plain names, which goes on with the likeliest tokens."""

    def __init__(self, folder, *, load_format, dtype, max_model_len, gpu_memory_utilization, logprobs_mode):
        assert (load_format, logprobs_mode) == ("dummy", "processed_logprobs") and max_model_len == CONTEXT
        self.model = build_model(AutoConfig.from_pretrained(folder))
        assert AutoTokenizer.from_pretrained(folder).vocab_size == 300
        self.loaded = []

    def apply_model(self, function):
        self.load_weights = lambda weights: self.model.load_state_dict(dict(weights), strict=False).missing_keys
        return function(self)

    def reset_prefix_cache(self):
        self.loaded.append(self.model.model.norm.weight.clone())

    @torch.no_grad()
    def generate(self, rows, settings, *, use_tqdm):
        assert len({each.seed for each in settings}) == len(rows) == len(settings)
        return [SimpleNamespace(outputs=[self.continued(row["prompt_token_ids"], each)])
                for row, each in zip(rows, settings, strict=True)]  # fmt: skip

    def continued(self, prompt, given):
        ids, scores = [], []
        while len(ids) < given.max_tokens and not (ids and ids[-1] in given.stop_token_ids):
            logits = self.model(torch.tensor([prompt + ids])).logits[0, -1]
            logprobs = sampling_logprobs(logits, given.temperature, given.top_k or None, given.top_p)
            ids.append(int(logprobs.argmax()))
            scores.append({ids[-1]: SimpleNamespace(logprob=float(logprobs.max()))})
        reason = "stop" if ids[-1] in given.stop_token_ids else "length"
        return SimpleNamespace(token_ids=ids, logprobs=scores, finish_reason=reason)


def test_vllm_behind_the_same_call(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match="vllm is not installed: pip install vllm"):
        VLLMSampler()
    fake = SimpleNamespace(LLM=FakeEngine, SamplingParams=lambda **given: SimpleNamespace(**given))
    monkeypatch.setitem(sys.modules, "vllm", fake)
    lm, sampler = LanguageModel(tiny_model("qwen2"), tiny_tokenizer(), "tiny"), VLLMSampler()
    lm.end_tokens = tuple(range(0, 300, 15))
    for change in (lambda: None, lambda: shaken_lora(lm), lambda: merge_lora(lm)):
        change()
        rollout = sampler(lm, PROMPTS, max_new_tokens=9, temperature=0.8, top_k=50)
        check_behavior(lm, rollout, atol=1e-4, temperature=0.8, top_k=50)
        assert rollout.terminated.any() and rollout.mask.sum(1).max() > 1
        for row, ended in zip(range(len(PROMPTS)), rollout.terminated.tolist(), strict=True):
            assert ended == (int(rollout.actions[row][rollout.mask[row]][-1]) in lm.end_tokens)
    assert len(sampler.engine.loaded) == 3


def test_weights_that_fsdp2_shares_out_are_put_together():
    """In one process: the parameters are DTensors all the same."""
    lm = LanguageModel(tiny_model("llama"), tiny_tokenizer(), "tiny")
    shaken_lora(lm)
    expected = sample_text(lm, PROMPTS, max_new_tokens=6)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        for module in (*lm.model.model.layers, lm.model):
            fully_shard(module, mesh=mesh)
        assert all(type(parameter).__name__ == "DTensor" for parameter in lm.parameters())
        assert torch.equal(FastSampler()(lm, PROMPTS, max_new_tokens=6).actions, expected.actions)
    finally:
        distributed.destroy_process_group()


def test_the_shapes_of_the_benchmark_have_the_published_numbers_of_parameters(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks" / "gpu")
    from shapes import configuration, shaped_lm

    for name, published in {"qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304}.items():
        with torch.device("meta"):
            model = build_model(configuration(name), dtype=torch.bfloat16)
        assert sum(parameter.numel() for parameter in model.parameters()) == published
        assert joined_weights.can_join(model)
    with pytest.raises(ValueError, match="shape 'qwen': expected one of qwen2.5-0.5b, qwen2.5-1.5b, pocket-s"):
        shaped_lm("qwen", dtype=torch.float32, device="cpu")


# ---------------------------------------------------------------- where there is a GPU, or Triton's interpreter

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.skipif(not (decode_attention.triton and (INTERPRETED or torch.cuda.is_available())), reason="no Triton")
@pytest.mark.parametrize("sizes", [(2, 7, 64, False), (2, 2, 32, True), (1, 20, 16, False)])
def test_the_kernel_computes_what_plain_torch_does(sizes):
    key_heads, group, size, normed = sizes
    device = "cpu" if INTERPRETED else "cuda"
    generator, rows, columns, column = torch.Generator().manual_seed(0), 4, 200, 150

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(device, torch.float16)

    joined, angles = normal(rows, key_heads * (group + 2) * size), normal(rows, 1, size // 2).repeat(1, 1, 2)
    rotation, norms = (angles.cos(), angles.sin()), (normal(size), normal(size)) if normed else (None, None)
    caches = normal(2, rows, key_heads, columns, size)
    caches[:, :, :, column:] = math.nan  # what is not filled yet must not be looked at
    first = torch.tensor([0, 3, 64, column], device=device)
    mine, plain = caches.clone(), caches.clone()
    span = torch.stack((first, torch.full_like(first, column)), 1)
    mixed = decode_attention.attend(joined, norms, rotation, *mine, span, scaling=size**-0.5, eps=1e-6)
    query = joined_weights.store_heads(joined, norms, rotation, *plain, torch.tensor([column], device=device), 1e-6)
    seen = plain[:, :, :, : column + 1]
    mask = (torch.arange(column + 1, device=device) >= first[:, None])[:, None, None]
    queries = query.view(rows, key_heads, -1, size)
    expected = torch.nn.functional.scaled_dot_product_attention(queries, *seen, attn_mask=mask, scale=size**-0.5)
    assert torch.allclose(mixed, expected.transpose(1, 2).reshape(rows, -1), atol=5e-3)
    assert torch.allclose(mine[:, :, :, : column + 1], seen, atol=5e-3) and mine[:, :, :, column + 1 :].isnan().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-3), (torch.bfloat16, 0.5)])
def test_captured_graphs_follow_the_weights(dtype, atol):
    lm, sampler = load_lm("pocket-m", device="cuda"), FastSampler(dtype=dtype)
    for seed in range(3):
        for options in ({}, {"temperature": 0.7}, {"top_p": 0.9}):
            rollout = sampler(lm, PROMPTS * 5, max_new_tokens=70, seed=seed, **options)
            if "top_p" not in options:  # rounding moves words in and out of a truncation
                check_behavior(lm, rollout, atol=atol, **options)
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.mul_(1.02)
