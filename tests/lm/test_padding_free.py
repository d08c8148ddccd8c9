"""One line of tokens against the model's own forward pass over rows: logits and every gradient, in float64."""

import pytest
import torch
from torch import nn

from conftest import tiny_model, tiny_tokenizer
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.lm.chat import Example, as_packed_rollout, response_logprobs
from ptlearn.lm.models import LanguageModel, attention_bias, load_lm
from ptlearn.lm.padding_free import can_leave_out_padding, masked_logits

KINDS = ("llama", "qwen2", "qwen3")
TOKENS = torch.randint(5, 300, (4, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([  # a row to its end, one that ends early, one that nothing is asked of, one with a gap
    [0, 0, 0, 0, 0, 0, 0, 1, 1],
    [0, 0, 1, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 1, 0, 0, 0, 0],
]).bool()  # fmt: skip


class Counting(nn.Module):
    """An MLP with an adapter beside it, which notes how many tokens it reads."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp, self.seen = mlp, []

    def forward(self, states):
        self.seen.append(states.shape[:-1].numel())
        return self.mlp(states) + states


def exact_lm(kind):
    """A tiny model in float64, its norms too: the library's own go through float32."""
    model = tiny_model(kind).double()
    for name, module in list(model.named_modules()):
        if name.endswith("norm"):
            exact = nn.RMSNorm(module.weight.shape, module.variance_epsilon, dtype=torch.float64)
            exact.weight.data.copy_(torch.linspace(0.5, 1.5, module.weight.numel()))
            model.set_submodule(name, exact)
    for layer in model.model.layers:
        layer.mlp = Counting(layer.mlp)
    return LanguageModel(model, tiny_tokenizer(), kind)


def reads(lm):
    """How many tokens the MLP of each layer has read since the last time."""
    found = [count for layer in lm.model.model.layers for count in layer.mlp.seen]
    for layer in lm.model.model.layers:
        layer.mlp.seen.clear()
    return found


def gradients(lm, logits):
    lm.zero_grad()
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (logits * weights).sum().backward()
    return {name: p.grad.clone() for name, p in lm.named_parameters() if p.requires_grad}


def same(lm, found, expected):
    """To rounding: a gradient that lacks a hundred millionth of itself is another one."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients(lm, found), gradients(lm, expected), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_the_models_own(kind):
    lm = exact_lm(kind)
    same(lm, lm.logits_at(TOKENS, MASK), lm(TOKENS)[MASK])


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_read_than_the_loss_needs(kind):
    lm = exact_lm(kind)
    lm.logits_at(TOKENS, MASK)
    assert reads(lm) == [9 + 3 + 0 + 5, 5]
    lm.logits_at(TOKENS, torch.ones_like(MASK))
    assert reads(lm) == [36, 36]
    lm(TOKENS)
    assert reads(lm) == [36, 36]


def test_what_stands_behind_the_last_position_is_not_even_looked_up():
    lm, other = exact_lm("llama"), TOKENS.clone()
    other[1, 3:], other[2], other[3, 5:] = 10**6, 10**6, 10**6  # no such token
    assert torch.equal(lm.logits_at(other, MASK), lm.logits_at(TOKENS, MASK))


def test_one_position_and_none():
    lm = exact_lm("llama")
    one = torch.zeros_like(MASK)
    one[2, 0] = True
    same(lm, lm.logits_at(TOKENS, one), lm(TOKENS)[one])
    assert lm.logits_at(TOKENS, torch.zeros_like(MASK)).shape == (0, 300)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_and_positions_of_ones_own(kind):
    """Each token sees itself and the one before it, and positions count by threes."""
    lm, steps = exact_lm(kind), torch.arange(9)
    near = (steps[:, None] - steps) % 9 < 2
    given = {"attention_mask": attention_bias(lm, near.expand(4, 9, 9)), "position_ids": (3 * steps).expand(4, 9)}
    expected = lm.model(input_ids=TOKENS, **given).logits[MASK]
    assert not torch.allclose(expected, lm(TOKENS)[MASK])
    reads(lm)
    found = lm.logits_at(TOKENS, MASK, **given)
    assert reads(lm) == [36, 5]  # who sees what is behind it is not known, so that all is read
    same(lm, found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_examples_that_share_a_row(kind):
    lm = exact_lm(kind)
    examples = [Example([7, 8, 9, 10], [False, False, True, True]), Example([11, 12, 13], [False, True, False])]
    packed, segments = as_packed_rollout([examples, examples[:1]])
    alone, _ = as_packed_rollout([[example] for example in (*examples, examples[0])])
    together, apart = (response_logprobs(lm, *given) for given in ((packed, segments), (alone,)))
    torch.testing.assert_close(together[packed.mask], apart[alone.mask], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "given"), [("RMSNorm", {}), ("RMSNorm", {"elementwise_affine": False}), ("LayerNorm", {})]
)
def test_a_norm_without_epsilon_or_weight_and_another_one(kind, given):
    lm = exact_lm("llama")
    lm.model.model.layers[0].input_layernorm = getattr(nn, kind)(32, dtype=torch.float64, **given)
    with torch.no_grad():
        lm.model.model.embed_tokens.weight *= 1e-8  # so small that what is added to the mean counts
    same(lm, lm.logits_at(TOKENS, MASK), lm(TOKENS)[MASK])


def test_lora_learns_the_same():
    lm = lora(exact_lm("llama"), targets=".*_proj", rank=2)
    for name, parameter in lm.named_parameters():
        if parameter.requires_grad:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    found = lm.logits_at(TOKENS, MASK)
    assert reads(lm) == [17, 5]
    same(lm, found, lm(TOKENS)[MASK])


def test_a_pocket_model_in_float32():
    lm = load_lm("pocket-s").train()  # no trees
    found, expected = (gradients(lm, logits) for logits in (lm.logits_at(TOKENS, MASK), lm(TOKENS)[MASK]))
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) < 1e-5 * float(gradient.abs().max()), name


def hooked(lm):
    lm.model.model.layers[0].self_attn.register_forward_hook(lambda *_: None)


def hooked_inside(lm):
    lm.model.model.layers[0].mlp.mlp.up_proj.register_forward_pre_hook(lambda *_: None)


def recomputed(lm):
    lm.model.gradient_checkpointing_enable()
    lm.train()


def dropping(lm):
    for layer in lm.model.model.layers:
        layer.self_attn.attention_dropout = 1e-12
    lm.train()


def compiled(lm):
    lm.model.model.layers[0].compile(backend="eager")


def flexible(lm):
    lm.model.config._attn_implementation = "flex_attention"


def halved(lm):
    lm.model.bfloat16()


@pytest.mark.parametrize("change", [hooked, hooked_inside, recomputed, dropping, compiled, flexible, halved])
def test_a_model_that_wants_its_layers_called_as_they_are(change):
    lm = exact_lm("llama")
    assert can_leave_out_padding(lm.model)
    change(lm)
    assert not can_leave_out_padding(lm.model)
    if change is not flexible:  # of which there is none for a CPU with gradients
        assert lm.logits_at(TOKENS, MASK).shape == (5, 300)
        assert reads(lm) == [36, 36]


def test_autocast_and_bfloat16_are_the_models_own():
    lm = load_lm("pocket-s").train()  # no trees
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_leave_out_padding(lm.model)
        assert torch.equal(lm.logits_at(TOKENS, MASK), lm(TOKENS)[MASK])
    lm.bf16 = True
    assert torch.equal(lm.logits_at(TOKENS, MASK), lm(TOKENS)[MASK])


def test_another_layout_and_a_sliding_window(gpt2_lm, windowed_lm):
    assert not can_leave_out_padding(gpt2_lm.model) and not can_leave_out_padding(windowed_lm.model)


def test_a_mask_of_whole_columns_goes_to_the_model():
    lm, columns = exact_lm("llama"), torch.ones(4, 9).long()
    found = lm.logits_at(TOKENS, MASK, attention_mask=columns)
    assert reads(lm) == [36, 36]
    same(lm, found, lm(TOKENS)[MASK])


def test_there_is_no_second_derivative():
    lm = exact_lm("llama")
    weight = lm.model.model.norm.weight
    [first] = torch.autograd.grad(masked_logits(lm.model, TOKENS, MASK).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
