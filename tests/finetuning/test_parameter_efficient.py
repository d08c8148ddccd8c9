"""Each method against identities: the base at the start, dense weights W + alpha/r B A, and the peft library.

The tiny models come in Llama, Qwen2, Qwen3 and GPT-2 layouts; rounding is kept out of comparisons by float64.
"""

import copy
import json
from functools import partial

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import KINDS
from ptlearn.finetuning.adapter_files import export_merged, load_adapter, save_adapter
from ptlearn.finetuning.parameter_efficient import (
    adapter_names,
    adapters,
    bitfit,
    freeze,
    last_k,
    lora,
    merge_lora,
    switch_adapter,
    trainable_parameters,
    trainable_state_dict,
    unmerge_lora,
)
from ptlearn.finetuning.wrappers import LoRA, lora_layers
from ptlearn.lm import decoding
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import sample_text
from ptlearn.rollout import check_behavior

TOKENS = torch.randint(1, 300, (3, 10), generator=torch.Generator().manual_seed(5))
EVERY = {"gpt2": "c_attn|c_proj|c_fc"} | dict.fromkeys(("llama", "qwen2", "qwen3"), ".*_proj")
METHODS = {
    "last_k": lambda model, kind: last_k(model, k=1),
    "bitfit": lambda model, kind: bitfit(model),
    "adapters": lambda model, kind: adapters(model, size=5),
    "lora": lambda model, kind: lora(model, targets=EVERY[kind], rank=4),
}
CASES = [(method, kind) for method in METHODS for kind in KINDS if (method, kind) != ("bitfit", "qwen3")]


def disturb(model, seed=0):
    """Random numbers for whatever is trained, as if training had moved it; returns the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable_parameters(model):
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model


def loss(model):
    return model(TOKENS).double().log_softmax(-1)[..., 7].mean()


def logits(model):
    with torch.no_grad():
        return model(TOKENS)


# ---------------------------------------------------------------- what every method has in common


@pytest.mark.parametrize("method, kind", CASES)
def test_a_method_starts_at_the_base_and_trains_what_it_says_alone(fresh, method, kind):
    lm = fresh(kind)
    base = logits(lm)
    assert METHODS[method](lm, kind) is lm
    assert torch.equal(logits(lm), base)
    before = {name: parameter.clone() for name, parameter in lm.named_parameters()}
    optimizer = torch.optim.AdamW(trainable_parameters(lm), lr=0.01, weight_decay=0)
    for _ in range(2):  # the first step moves only B, while B = 0 hides A
        loss(lm).backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {name for name, parameter in lm.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == set(trainable_state_dict(lm)) != set()
    assert not torch.equal(logits(lm), base)


@pytest.mark.parametrize("method, kind", CASES)
def test_a_bare_model_and_its_wrapper_are_treated_alike(fresh, method, kind):
    lm, bare = fresh(kind), fresh(kind).model
    METHODS[method](lm, kind)
    assert METHODS[method](bare, kind) is bare
    inner = {name.removeprefix("model."): value for name, value in trainable_state_dict(lm).items()}
    outer = trainable_state_dict(bare)
    assert inner.keys() == outer.keys() and all(torch.equal(inner[name], outer[name]) for name in inner)


@pytest.mark.parametrize("method, kind", CASES)
def test_the_trained_part_alone_carries_the_result_over(fresh, method, kind):
    trained, other = (METHODS[method](fresh(kind), kind) for _ in range(2))
    disturb(trained)
    assert not torch.allclose(logits(trained), logits(other), atol=1e-3)
    assert other.load_state_dict(trainable_state_dict(trained), strict=False).unexpected_keys == []
    assert torch.equal(logits(trained), logits(other))


@pytest.mark.parametrize("method", ["adapters", "lora"])
def test_train_and_eval_change_nothing(fresh, method):
    lm = disturb(METHODS[method](fresh("llama"), "llama"))
    before = logits(lm)
    assert torch.equal(logits(lm.train()), before) and torch.equal(logits(lm.eval()), before)


def test_freeze_leaves_nothing_to_train(fresh):
    lm = fresh("llama")
    assert freeze(lm) is lm and trainable_parameters(lm) == [] and trainable_state_dict(lm) == {}


# ---------------------------------------------------------------- select


@pytest.mark.parametrize("kind, block, norm", [("llama", "layers.1", "norm"), ("gpt2", "h.1", "ln_f")])
def test_last_k_trains_whole_blocks_and_the_last_norm(fresh, kind, block, norm):
    lm = last_k(fresh(kind), k=1)
    names = {name for name, _ in lm.model.named_parameters()}
    expected = {name for name in names if f".{block}." in name or f".{norm}." in name and "layer" not in name}
    assert {name.removeprefix("model.") for name in trainable_state_dict(lm.model)} == {
        name.removeprefix("model.") for name in expected
    }
    assert not lm.model.get_output_embeddings().weight.requires_grad
    last_k(lm, k=2)
    assert {f".{block[:-1]}0." in name or f".{block}." in name for name in trainable_state_dict(lm)} == {True, False}


@pytest.mark.parametrize("k", [0, -1, 3])
def test_last_k_out_of_range(fresh, k):
    with pytest.raises(ValueError, match=f"k={k}: expected between 1 and the number of transformer blocks, 2"):
        last_k(fresh("llama"), k=k)


def test_bitfit_trains_every_bias_and_says_when_there_is_none(fresh):
    lm = bitfit(fresh("gpt2"))
    assert set(trainable_state_dict(lm)) == {name for name, _ in lm.named_parameters() if name.endswith(".bias")}
    with pytest.raises(ValueError, match="Qwen3ForCausalLM has no biases: expected layers with a bias"):
        bitfit(fresh("qwen3"))


# ---------------------------------------------------------------- adapters


PLACES = {
    "GPTNeoX": ("attention.dense", "dense_4h_to_h", {}),
    "GPTNeo": ("out_proj", "c_proj", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}),
    "GPTJ": ("out_proj", "fc_out", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "Phi": ("dense", "fc2", {}),
    "OPT": ("out_proj", "fc2", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Starcoder2": ("o_proj", "c_proj", {}),
}


@pytest.mark.parametrize("family", PLACES)
def test_adapters_know_the_places_of_other_families(family):
    """Where each family's block adds to its stream: two places in a block, and at the start the base alone."""
    attention, mlp, sizes = PLACES[family]
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2} | sizes
    config = getattr(transformers, family + "Config")(vocab_size=300, **sizes)
    model = getattr(transformers, family + "ForCausalLM")(config).eval()
    with torch.no_grad():
        base = model(TOKENS).logits
        disturbed = disturb(adapters(model, size=3))
        names = [name for name, module in model.named_modules() if type(module).__name__ == "Adapter"]
        assert [name.endswith((attention, mlp)[i % 2]) for i, name in enumerate(names)] == [True] * 4
        assert (disturbed(TOKENS).logits - base).abs().max() > 1e-3


@pytest.mark.parametrize("kind, ends", [("llama", ("o_proj", "down_proj")), ("gpt2", ("attn.c_proj", "mlp.c_proj"))])
def test_an_adapter_stands_behind_attention_and_mlp_and_computes_its_equation(fresh, kind, ends):
    lm = disturb(adapters(fresh(kind, torch.float64), size=5))
    found = [(name, module) for name, module in lm.named_modules() if type(module).__name__ == "Adapter"]
    assert [name.endswith(ends) for name, _ in found] == [True] * 4
    adapter = found[-1][1]
    states = torch.randn(7, adapter.base.weight.shape[kind == "llama"], dtype=torch.float64)
    y = adapter.base(states)
    bent = torch.special.erf((low := y @ adapter.down.T + adapter.down_bias) / 2**0.5)
    expected = y + (low * (1 + bent) / 2) @ adapter.up.T + adapter.up_bias
    torch.testing.assert_close(adapter(states), expected, rtol=0, atol=1e-12)


def test_adapters_are_seeded_and_refuse_what_they_cannot_do(fresh):
    first, again, other = (adapters(fresh("llama"), size=3, seed=seed) for seed in (0, 0, 1))
    down = "model.model.layers.0.mlp.down_proj.down"
    assert torch.equal(first.get_parameter(down), again.get_parameter(down))
    assert not torch.equal(first.get_parameter(down), other.get_parameter(down))
    with pytest.raises(ValueError, match="model has Adapter at 'model.layers.0.self_attn.o_proj' already"):
        adapters(first, size=3)
    with pytest.raises(ValueError, match="model has Adapter"):
        lora(first, targets="q_proj")
    with pytest.raises(ValueError, match="model has LoRA"):
        adapters(lora(fresh("llama"), targets="q_proj"), size=3)
    with pytest.raises(ValueError, match="size=0: expected at least 1"):
        adapters(fresh("llama"), size=0)
    with pytest.raises(ValueError, match="match no linear layer.*'0'"):
        adapters(nn.Sequential(nn.Linear(2, 2)), size=1)
    lm = fresh("llama")
    lm.model.model.layers[0].mlp = nn.Identity()
    with pytest.raises(ValueError, match="3 places for adapters in 2 blocks: expected two in each"):
        adapters(lm, size=3)


# ---------------------------------------------------------------- LoRA is a change of the weights


def dense(kind, fresh, lm):
    """A plain model whose weights are W + alpha/r B A, and {layer: its weight as (out, in)}."""
    plain, weights = fresh(kind, torch.float64), {}
    for name, layer in lora_layers(lm):
        factors, target = layer.adapters["default"], plain.model.get_submodule(name)
        delta = (factors.alpha / factors.A.shape[0]) * factors.B @ factors.A
        with torch.no_grad():
            target.weight += delta.T if kind == "gpt2" else delta
        weights[name] = target.weight
    return plain, weights


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_the_changed_weights(fresh, kind):
    lm = disturb(lora(fresh(kind, torch.float64), targets=EVERY[kind], rank=3, alpha=7))
    plain, weights = dense(kind, fresh, lm)
    torch.testing.assert_close(logits(lm), logits(plain), rtol=0, atol=1e-11)
    loss(lm).backward()
    loss(plain).backward()
    for name, layer in lora_layers(lm):
        factors, grad = layer.adapters["default"], weights[name].grad
        grad = grad.T if kind == "gpt2" else grad
        scale = float(grad.abs().max())
        torch.testing.assert_close(factors.A.grad, 7 / 3 * factors.B.T @ grad, rtol=0, atol=1e-10 * scale + 1e-15)
        torch.testing.assert_close(factors.B.grad, 7 / 3 * grad @ factors.A.T, rtol=0, atol=1e-10 * scale + 1e-15)
        assert layer.base.weight.grad is None and layer.base.bias is None or layer.base.bias.grad is None


def test_factors_start_as_the_paper_says(fresh):
    lm, again, other = (lora(fresh("llama"), targets=".*_proj", rank=8, seed=seed) for seed in (0, 0, 1))
    firsts = []
    for (name, layer), (_, same), (_, different) in zip(*map(lora_layers, (lm, again, other)), strict=True):
        factors = layer.adapters["default"]
        out, into = layer.base.weight.shape
        assert factors.A.shape == (8, into) and factors.B.shape == (out, 8) and not factors.B.any(), name
        # uniform in +-1/sqrt(in): never outside, close to the edge among hundreds, and with variance 1/(3 in)
        assert 0.9 < factors.A.abs().max() * into**0.5 <= 1 and 0.8 < 3 * into * factors.A.var() < 1.2
        assert torch.equal(factors.A, same.adapters["default"].A)
        assert not torch.equal(factors.A, different.adapters["default"].A)
        firsts.append(factors.A[0, 0].item())
    assert len(set(firsts)) == len(firsts) == 14


@pytest.mark.parametrize(
    "targets, expected",
    [
        ("q_proj", ["layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj"]),
        (["q_proj", "self_attn.v_proj"], [f"layers.{i}.self_attn.{c}_proj" for i in (0, 1) for c in "qv"]),
        (r"layers\.1\.mlp\..*", [f"layers.1.mlp.{part}_proj" for part in ("gate", "up", "down")]),
        ("lm_head", ["lm_head"]),
    ],
)
def test_targets_are_ends_of_names_or_patterns(fresh, targets, expected):
    names = [name.removeprefix("model.") for name, _ in lora_layers(lora(fresh("llama"), targets=targets, rank=2))]
    assert names == expected


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"targets": ["q_proj", "query"]},
            "targets 'query' match no linear layer: .*'down_proj', 'gate_proj', 'k_proj'",
        ),
        ({"targets": "proj"}, "targets 'proj' match no"),
        ({"targets": "all-linear"}, r"'all-linear' match no linear layer: .* or a pattern .* such as '\.\*_proj'"),
        ({"targets": "embed_tokens"}, "targets 'embed_tokens' match no linear layer"),
        ({"targets": []}, "match no linear layer"),
        ({"targets": "(q_proj"}, r"targets: '\(q_proj' is no regular expression"),
        ({"rank": 0}, "rank=0: expected between 1 and 16, the smaller side of 'model.layers.0.self_attn.k_proj'"),
        ({"rank": 17}, "rank=17: expected between 1 and 16"),
        ({"alpha": 0}, "alpha=0: expected a finite number above 0"),
        ({"alpha": float("inf")}, "alpha=inf"),
        ({"name": "a.b"}, "name='a.b': expected a word without dots"),
        ({"name": ""}, "name='': expected"),
        ({"name": "keys"}, "name='keys': expected"),
        ({"name": "training"}, "name='training': expected"),
    ],
)
def test_a_bad_request_gets_one_line_and_changes_nothing(fresh, options, message):
    lm = fresh("llama")
    with pytest.raises(ValueError, match=message) as caught:
        lora(lm, **{"targets": "k_proj", **options})
    assert "\n" not in str(caught.value)
    assert list(lora_layers(lm)) == [] and all(parameter.requires_grad for parameter in lm.parameters())


def test_half_precision_keeps_float32_factors(fresh):
    lm = disturb(lora(fresh("llama", torch.bfloat16), targets=".*_proj"))
    full = disturb(lora(fresh("llama"), targets=".*_proj"))
    assert {parameter.dtype for parameter in trainable_parameters(lm)} == {torch.float32}
    assert lm(TOKENS).dtype == torch.bfloat16
    assert (logits(lm).float() - logits(full)).abs().max() < 0.1 * logits(
        full
    ).abs().max()  # eight bits of mantissa through two layers
    loss(lm).backward()
    assert {parameter.grad.dtype for parameter in trainable_parameters(lm)} == {torch.float32}
    own = [layer.base.weight.clone() for _, layer in lora_layers(lm)]
    unmerge_lora(merge_lora(lm))
    assert all(torch.equal(layer.base.weight, weight) for weight, (_, layer) in zip(own, lora_layers(lm), strict=True))


# ---------------------------------------------------------------- merge and switch


@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_unmerged_and_unmerging_returns_the_base(fresh, kind):
    lm = disturb(lora(fresh(kind, torch.float64), targets=EVERY[kind] + "|lm_head", rank=3))
    base = logits(fresh(kind, torch.float64))
    own = {name: layer.base.weight for name, layer in lora_layers(lm)}
    unmerged = logits(lm)
    assert (unmerged - base).abs().max() > 0.1
    assert merge_lora(lm) is lm
    torch.testing.assert_close(logits(lm), unmerged, rtol=0, atol=1e-11)
    torch.testing.assert_close(logits(lm.train().eval()), unmerged, rtol=0, atol=1e-11)
    assert unmerge_lora(lm) is lm
    assert torch.equal(logits(lm), unmerged)
    assert all(layer.base.weight is own[name] for name, layer in lora_layers(lm))
    assert torch.equal(logits(switch_adapter(lm, None)), base)


def test_merging_a_tied_head_leaves_the_embedding_alone(fresh):
    lm = disturb(lora(fresh("llama"), targets="lm_head", rank=4))
    embedding = lm.model.get_input_embeddings().weight
    before = embedding.clone()
    assert lm.model.lm_head.base.weight is embedding
    merge_lora(lm)
    assert torch.equal(embedding, before) and not torch.allclose(lm.model.lm_head.base.weight, before, atol=1e-3)
    unmerge_lora(lm)
    assert lm.model.lm_head.base.weight is lm.model.get_input_embeddings().weight


def test_what_is_merged_refuses_a_second_change(fresh):
    lm = lora(fresh("llama"), targets="q_proj")
    with pytest.raises(ValueError, match="nothing is merged"):
        unmerge_lora(lm)
    merge_lora(lm)
    for change in (
        merge_lora,
        partial(switch_adapter, name=None),
        partial(lora, targets="v_proj", name="other"),
    ):
        with pytest.raises(ValueError, match="adapter 'default' is merged into the weights: unmerge_lora first"):
            change(lm)
    switch_adapter(unmerge_lora(lm), None)
    with pytest.raises(ValueError, match="no adapter is active: switch_adapter to one of 'default' first"):
        merge_lora(lm)


def test_several_adapters_share_a_base(fresh):
    requests = {"a": {"targets": ["q_proj", "v_proj"], "rank": 2}, "b": {"targets": ".*_proj", "rank": 5, "seed": 1}}
    alone = {name: disturb(lora(fresh("llama"), **options)) for name, options in requests.items()}
    both = fresh("llama")
    base = logits(both)
    for name, options in requests.items():
        disturb(lora(both, name=name, **options))
    assert adapter_names(both) == ["a", "b"]
    for name in ("a", "b", "a"):
        switch_adapter(both, name)
        assert torch.equal(logits(both), logits(alone[name]))
        assert {key.split(".adapters.")[1][0] for key in trainable_state_dict(both)} == {name}
        assert len(trainable_parameters(both)) == len(trainable_parameters(alone[name]))
        torch.testing.assert_close(logits(merge_lora(both)), logits(alone[name]), rtol=0, atol=1e-4)
        unmerge_lora(both)
    assert torch.equal(logits(switch_adapter(both, None)), base) and trainable_parameters(both) == []
    with pytest.raises(ValueError, match="name='c': expected None or one of 'a', 'b'"):
        switch_adapter(both, "c")
    with pytest.raises(ValueError, match="name='a' is taken: the model holds adapters 'a', 'b'"):
        lora(both, targets="q_proj", name="a")
    with pytest.raises(ValueError, match="model has no LoRA layers"):
        switch_adapter(fresh("llama"), None)


def test_a_copy_of_a_merged_model_stands_on_its_own(fresh):
    lm = merge_lora(disturb(lora(fresh("llama"), targets="q_proj")))
    twin = copy.deepcopy(lm)
    assert torch.equal(logits(switch_adapter(unmerge_lora(twin), None)), logits(fresh("llama")))
    assert all(layer.merged for _, layer in lora_layers(lm))


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["unmerged", "merged", "off", "adapters"])
def test_sampling_scores_as_the_model_itself(fresh, kind, state):
    base = fresh(kind)
    lm = fresh(kind)
    if state == "adapters":
        disturb(adapters(lm, size=5))
    else:
        disturb(lora(lm, targets=EVERY[kind] + "|lm_head", rank=4))
    if state == "merged":
        merge_lora(lm)
    if state == "off":
        switch_adapter(lm, None)
    assert decoding.has_llama_layout(lm.model) == (kind != "gpt2")
    rollout = sample_text(lm, ["The film", "un café = a", "3 +"], max_new_tokens=8)
    check_behavior(lm, rollout)
    if state != "off":
        with pytest.raises(ValueError):
            check_behavior(base, rollout)
    else:
        check_behavior(base, rollout)


# ---------------------------------------------------------------- against peft


def peft_model(kind, fresh, dtype, **options):
    import peft

    config = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=TARGETS[kind], fan_in_fan_out=kind == "gpt2", **options
    )
    return peft.get_peft_model(fresh(kind, dtype).model, config)


TARGETS = {"gpt2": ["c_attn", "c_fc"]} | dict.fromkeys(("llama", "qwen2", "qwen3"), ["q_proj", "v_proj", "down_proj"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 3e-6)])
def test_same_factors_give_the_logits_and_gradients_of_peft(fresh, kind, dtype, tolerance):
    lm = disturb(lora(fresh(kind, dtype), targets=TARGETS[kind], rank=4, alpha=6))
    peer = peft_model(kind, fresh, dtype, r=4, lora_alpha=6)
    pairs = []
    for name, layer in lora_layers(lm):
        twin = peer.get_submodule("base_model.model." + name)
        for own, other in zip(layer.adapters["default"].parameters(), (twin.lora_A, twin.lora_B), strict=True):
            other.default.weight.data.copy_(own.data)
            pairs.append((own, other.default.weight))
    expected = peer(input_ids=TOKENS).logits
    # relative to the largest: in float32 the two orders of summation differ by a few units in the last place
    assert (lm(TOKENS) - expected).abs().max() <= tolerance * expected.abs().max()
    loss(lm).backward()
    expected.double().log_softmax(-1)[..., 7].mean().backward()
    largest = max(float(other.grad.abs().max()) for _, other in pairs)
    assert len(pairs) == len(trainable_parameters(lm)) == len(trainable_parameters(peer))
    for own, other in pairs:
        assert (own.grad - other.grad).abs().max() <= tolerance * max(largest, 1.0)
        assert (1.001 * own.grad - other.grad).abs().max() > 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_files_go_to_peft_and_back(fresh, kind, tmp_path):
    import peft

    own = disturb(lora(fresh(kind), targets=TARGETS[kind], rank=4, alpha=6, name="french"))
    assert save_adapter(own, tmp_path / "own", name="french") == tmp_path / "own"
    layer = {"gpt2": "transformer.h.1.attn.c_attn"}.get(kind, "model.layers.1.self_attn.q_proj")
    mine = load_file(tmp_path / "own" / "adapter_model.safetensors")
    assert mine[f"base_model.model.{layer}.lora_A.weight"].shape == (4, 32)  # (r, in)
    loaded = peft.PeftModel.from_pretrained(fresh(kind).model, tmp_path / "own").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=TOKENS).logits, logits(own), rtol=0, atol=1e-4)
    loaded.save_pretrained(tmp_path / "theirs")
    theirs = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
    back = load_adapter(fresh(kind), tmp_path / "theirs")
    assert torch.equal(logits(back), logits(own))
    assert trainable_state_dict(back).keys() == {key.replace("french", "default") for key in trainable_state_dict(own)}
    config = json.loads((tmp_path / "own" / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == set(TARGETS[kind]) and (config["r"], config["lora_alpha"]) == (4, 6)
    written = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    assert {key: written[key] for key in config if key not in ("target_modules", "base_model_name_or_path")} == {
        key: value for key, value in config.items() if key not in ("target_modules", "base_model_name_or_path")
    }


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_part_of_the_layers_is_saved_under_whole_names(fresh, tmp_path):
    import peft

    own = disturb(lora(fresh("llama"), targets=r"layers\.1\..*_proj|lm_head", rank=2))
    save_adapter(own, tmp_path)
    loaded = peft.PeftModel.from_pretrained(fresh("llama").model, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=TOKENS).logits, logits(own), rtol=0, atol=1e-4)


def test_saving_while_merged_and_of_an_inactive_adapter(fresh, tmp_path):
    lm = disturb(lora(fresh("llama"), targets="q_proj"))
    expected = logits(lm)
    save_adapter(lm, tmp_path / "plain")
    save_adapter(merge_lora(lm), tmp_path / "merged")
    save_adapter(disturb(lora(unmerge_lora(lm), targets="v_proj", name="other"), 1), tmp_path / "inactive")
    files = [(tmp_path / kind / "adapter_model.safetensors").read_bytes() for kind in ("plain", "merged", "inactive")]
    assert files[0] == files[1] == files[2]
    second = load_adapter(lora(fresh("llama"), targets="q_proj", name="first"), tmp_path / "merged", name="second")
    assert adapter_names(second) == ["first", "second"] and torch.equal(logits(second), expected)
    with pytest.raises(ValueError, match="name='none': expected one of the model's adapters, 'default', 'other'"):
        save_adapter(lm, tmp_path, name="none")


def rewrite(folder, change_config=None, change_tensors=None):
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    (change_config or (lambda config: None))(config)
    (change_tensors or (lambda tensors: None))(tensors)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")


LAYER = "base_model.model.model.layers.0.self_attn.k_proj"
ENDS = (".lora_A.weight", ".lora_B.weight")
OTHER_RANK = {"change_config": lambda config: config.update(r=4)}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"change_config": lambda c: c.update(use_dora=True)}, "has use_dora=True: expected plain LoRA without"),
        ({"change_config": lambda c: c.update(bias="all")}, "has bias='all'"),
        ({"change_config": lambda c: c.update(alpha_pattern={"q_proj": 3})}, "has alpha_pattern="),
        ({"change_config": lambda c: c.update(init_lora_weights="pissa")}, "has init_lora_weights='pissa': expected"),
        ({"change_config": lambda c: c.update(init_lora_weights="olora")}, "has init_lora_weights='olora'"),
        ({"change_config": lambda c: c.update(init_lora_weights="loftq")}, "has init_lora_weights='loftq'"),
        ({"change_config": lambda c: c.update(alora_invocation_tokens=[5])}, r"has alora_invocation_tokens=\[5\]"),
        ({"change_config": lambda c: c.update(layer_replication=[[0, 2]])}, r"has layer_replication=\[\[0, 2\]\]"),
        ({"change_config": lambda c: c.update(use_of_next_year=1.5)}, "has use_of_next_year=1.5: expected plain LoRA"),
        ({"change_config": lambda c: c.update(lora_alpha="16")}, "has lora_alpha='16': expected a finite number"),
        ({"change_config": lambda c: c.update(lora_alpha=True)}, "has lora_alpha=True: expected"),
        ({"change_config": lambda c: c.update(lora_alpha=None)}, "has lora_alpha=None: expected"),
        ({"change_config": lambda c: c.update(lora_alpha=-1)}, "has lora_alpha=-1: expected"),
        ({"change_config": lambda c: c.update(lora_alpha=float("nan"))}, "has lora_alpha=nan: expected"),
        (OTHER_RANK, "has r=4: expected 8, the rank of 'model.layers.0"),
        (
            {"change_tensors": lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(300, 32)})},
            "holds 'lm_head.weight', not as in this base: expected LoRA alone",
        ),
        (
            {"change_tensors": lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.ones(301, 32)})},
            "holds 'model.embed_tokens.weight', not as in this base",
        ),
        (
            {"change_tensors": lambda t: t.update({LAYER + ".lora_magnitude_vector.default": torch.ones(16)})},
            "holds 'model.layers.0.self_attn.k_proj.lora_magnitude_vector.default', not as in this base",
        ),
        ({"change_config": lambda c: c.update(peft_type="IA3")}, "peft_type 'IA3': expected 'LORA'"),
        ({"change_tensors": lambda t: t.pop(LAYER + ".lora_B.weight")}, "k_proj.lora_B.weight' is one half of a pair"),
        (
            {"change_tensors": lambda t: t.update({LAYER + ".lora_B.weight": torch.zeros(32, 8)})},
            r"another base: 'model.layers.0.self_attn.k_proj' has A \(8, 32\), B \(32, 8\) for a weight \(16, 32\)",
        ),
        (
            {"change_tensors": lambda t: t.update({LAYER + ".lora_B.weight": torch.zeros(16, 4)})},
            r"has A \(8, 32\), B \(16, 4\)",
        ),
        (
            {
                "change_tensors": lambda t: t.update(
                    {LAYER.replace("k_proj", "x") + end: t[LAYER + end] + 0 for end in ENDS}
                )
            },
            "another base: the model has no linear layer 'model.layers.0.self_attn.x'",
        ),
    ],
)
def test_a_file_that_does_not_fit_says_why(fresh, tmp_path, change, message):
    save_adapter(lora(fresh("llama"), targets="k_proj"), tmp_path)
    rewrite(tmp_path, **change)
    lm = fresh("llama")
    with pytest.raises(ValueError, match=message) as caught:
        load_adapter(lm, tmp_path)
    assert "\n" not in str(caught.value) and not any(isinstance(module, LoRA) for module in lm.modules())


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("targets", ["lm_head", "q_proj|lm_head"])
def test_an_adapter_of_the_head_comes_back_from_peft(fresh, kind, targets, tmp_path):
    """peft writes the head's own weight beside it, tied (llama) or not: the base's own changes nothing."""
    import peft

    own = disturb(lora(fresh(kind), targets=targets, rank=2))
    save_adapter(own, tmp_path / "own")
    peft.PeftModel.from_pretrained(fresh(kind).model, tmp_path / "own").save_pretrained(tmp_path / "theirs")
    assert any(
        key.endswith("base_layer.weight") for key in load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    )
    assert torch.equal(logits(load_adapter(fresh(kind), tmp_path / "theirs")), logits(own))
    second = load_adapter(lora(fresh(kind), targets="lm_head", name="first"), tmp_path / "theirs", name="second")
    assert torch.equal(logits(second), logits(own))
    other = fresh(kind)
    other.model.get_output_embeddings().weight.data[7] += 1
    with pytest.raises(ValueError, match="holds 'lm_head.weight', not as in this base"):
        load_adapter(other, tmp_path / "theirs")


HARMLESS = {
    "init_lora_weights": ["gaussian", "orthogonal", True, False],
    "lora_dropout": [0.1],
    "layers_to_transform": [[0]],
    "exclude_modules": [["lm_head"]],
}


@pytest.mark.parametrize("key, value", [(key, value) for key, values in HARMLESS.items() for value in values])
def test_what_peft_says_of_training_alone_is_accepted(fresh, key, value, tmp_path):
    peer = peft_model("llama", fresh, torch.float32, r=4, lora_alpha=6, **{key: value})
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        expected = peer.eval()(input_ids=TOKENS).logits
    peer.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_adapter(fresh("llama"), tmp_path)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_belongs_to_a_changed_base_is_refused(fresh, start, tmp_path):
    peft_model("llama", fresh, torch.float32, r=4, init_lora_weights=start).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"has init_lora_weights='{start}': expected plain LoRA without"):
        load_adapter(fresh("llama"), tmp_path)


# ---------------------------------------------------------------- an ordinary folder


def plainly(folder):
    """Logits of the folder's model as `transformers` loads it, and the model."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        return model(TOKENS).logits, model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["plain", "unmerged", "merged", "off", "one of two", "head", "merged head"])
def test_an_exported_model_is_the_model_for_transformers_alone(fresh, kind, state, tmp_path):
    lm = fresh(kind)
    tied = lm.model.config.tie_word_embeddings
    if state != "plain":
        disturb(lora(lm, targets="lm_head" if "head" in state else EVERY[kind], rank=3))
    if state == "one of two":
        switch_adapter(disturb(lora(lm, targets=EVERY[kind], rank=2, name="second"), 1), "default")
    if "merged" in state.split():
        merge_lora(lm)
    if state == "off":
        switch_adapter(lm, None)
    before, names = logits(lm), [name for name, _ in lm.named_parameters()]
    assert export_merged(lm, tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    found, model = plainly(tmp_path / "new" / "folder")
    torch.testing.assert_close(found, before, rtol=0, atol=1e-4)
    assert model.config.tie_word_embeddings == (tied and "head" not in state)
    back = load_lm(tmp_path / "new" / "folder")
    torch.testing.assert_close(logits(back), before, rtol=0, atol=1e-4)
    assert back.tokenizer("a café")["input_ids"] == lm.tokenizer("a café")["input_ids"]
    # and the model goes on as it was
    assert torch.equal(logits(lm), before) and [name for name, _ in lm.named_parameters()] == names
    assert lm.model.config.tie_word_embeddings == tied
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]


def test_an_export_keeps_precision_template_and_end_tokens(fresh, tmp_path):
    lm = disturb(lora(fresh("qwen2", torch.bfloat16), targets="q_proj"))
    lm.tokenizer.chat_template, lm.model.generation_config.eos_token_id = "{{ messages[0].content }}", [0, 7]
    export_merged(lm, tmp_path)  # an empty folder will do
    back = load_lm(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(logits(back), logits(merge_lora(lm))) and back.end_tokens == (0, 7)
    assert back.tokenizer.chat_template == "{{ messages[0].content }}"
    saved = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}


def test_an_export_writes_all_or_nothing(fresh, tmp_path, monkeypatch):
    lm = fresh("llama")
    export_merged(lm, tmp_path / "model")
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    (tmp_path / "file").write_text("")
    for taken in ("model", "file"):
        with pytest.raises(ValueError, match=f"{taken}' holds something: expected a new or an empty one"):
            export_merged(lm, tmp_path / taken)
    with pytest.raises(ValueError, match="model has Adapter at 'model.layers.0.self_attn.o_proj', which cannot be"):
        export_merged(adapters(fresh("llama"), size=2), tmp_path / "adapters")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(lm.tokenizer), "save_pretrained", full)
    with pytest.raises(OSError):
        export_merged(lm, tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]
    assert before == {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}


def test_missing_and_damaged_files(fresh, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no adapter_config.json: expected a saved adapter"):
        load_adapter(fresh("llama"), tmp_path)
    save_adapter(lora(fresh("llama"), targets="k_proj"), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        load_adapter(fresh("llama"), tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_adapter(fresh("llama"), tmp_path)
