"""The decoders against the model's plain forward pass over the whole text, one row at a time."""

import pytest
import torch
from torch import nn

from conftest import WINDOW, tiny_model
from ptlearn.lm import decoding
from ptlearn.lm.joined_weights import JoinedWeights

PROMPTS = [[0, 5, 17, 9, 33, 250], [0], [0, 8, 8], [0, 5, 17, 9, 33, 250], [4, 3, 2, 1]]


def exact(model, tokens):
    """Logits after the last token, without a cache, padding or a batch."""
    return model(torch.tensor([tokens]), use_cache=False).logits[0, -1]


def follow(lm, prompts, steps, drop=None, cls=None, max_new_tokens=None):
    """Feed fixed tokens to a decoder and compare every step with the exact logits; drop rows on the way."""
    tokens = torch.randint(1, 300, (len(prompts), steps), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        decoder, logits = decoding.start(lm.model, prompts, max_new_tokens=max_new_tokens or steps + 1)
        assert cls is None or type(decoder) is cls
        rows = list(range(len(prompts)))
        worst = 0.0
        for step in range(steps + 1):
            expected = torch.stack([exact(lm.model, prompts[row] + tokens[row, :step].tolist()) for row in rows])
            worst = max(worst, float((logits - expected).abs().max()))
            if step == drop:
                keep = torch.tensor([3, 1])
                decoder.keep(keep)
                rows = [rows[index] for index in keep]
            if step < steps:
                logits = decoder.step(tokens[rows, step])
    return worst


@pytest.fixture(params=[decoding.JoinedDecoder, decoding.LlamaDecoder])
def llama_decoder(request, monkeypatch):
    """What runs a small Llama layout, and what runs one whose weights are too many to be copied."""
    if request.param is decoding.LlamaDecoder:
        monkeypatch.setattr(decoding, "_COPIED", 1000)
    return request.param


def test_ragged_prompts_equal_the_plain_forward_pass(tiny_lm, llama_decoder):
    expected = decoding.CacheDecoder if tiny_lm.model.config.model_type == "gpt2" else llama_decoder
    assert follow(tiny_lm, PROMPTS, 6, drop=3, cls=expected) < 1e-4


def test_prompts_of_one_length_need_no_mask(tiny_lm):
    assert follow(tiny_lm, [[0, 1], [7, 2], [0, 1]], 4) < 1e-4


def test_the_general_decoder_agrees_on_every_architecture(tiny_lm, monkeypatch):
    monkeypatch.setattr(decoding, "has_llama_layout", lambda model: False)
    assert follow(tiny_lm, PROMPTS, 6, drop=2, cls=decoding.CacheDecoder) < 1e-4


def test_windows_slide_as_in_the_plain_forward_pass(windowed_lm):
    assert follow(windowed_lm, PROMPTS, 3 * WINDOW, drop=WINDOW, cls=decoding.CacheDecoder) < 1e-4
    tokens = torch.tensor([PROMPTS[0] + list(range(20, 20 + 3 * WINDOW))])
    changed = tokens.index_fill(1, torch.tensor([1]), 99)
    before, after = (windowed_lm(read)[0].detach() for read in (tokens, changed))
    # through two layers a token reaches twice as far as one of them looks back, unless one sees everything
    far = float((before - after)[2 * WINDOW :].abs().max())
    assert (far == 0) == (windowed_lm.name == "mistral") and (before - after)[1:WINDOW].abs().max() > 1e-2


def test_buffers_grow(llama_lm, llama_decoder, monkeypatch):
    monkeypatch.setattr(decoding, "_MORE", 2)
    assert follow(llama_lm, PROMPTS, 11, drop=7, max_new_tokens=30, cls=llama_decoder) < 1e-4


def test_a_visible_padding_would_show(llama_lm, llama_decoder, monkeypatch):
    opened = llama_decoder._open_column
    monkeypatch.setattr(llama_decoder, "_open_column", lambda self: (opened(self), self.bias.zero_()))
    assert follow(llama_lm, PROMPTS, 6, cls=llama_decoder) > 1e-2


def test_half_precision_stays_close(tiny_folders):
    from ptlearn.lm.models import load_lm

    lm = load_lm(tiny_folders["llama"], dtype=torch.bfloat16)
    full = load_lm(tiny_folders["llama"])
    tokens = torch.tensor([11, 12, 13, 14, 15])
    with torch.inference_mode():
        decoder, _ = decoding.start(lm.model, PROMPTS, max_new_tokens=4)
        logits = decoder.step(tokens)
        expected = torch.stack([exact(full.model, [*p, int(t)]) for p, t in zip(PROMPTS, tokens, strict=True)])
    # eight bits of mantissa through two layers
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


class Doubled(nn.Module):
    """A stand-in for LoRA and adapters: a wrapper at the place of a projection."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, states):
        return 2 * self.base(states)


@pytest.mark.parametrize("place", ["self_attn.q_proj", "self_attn.o_proj", "mlp", "mlp.up_proj", "input_layernorm"])
def test_wrapped_projections_are_called(tiny_folders, place):
    from ptlearn.lm.models import load_lm

    lm = load_lm(tiny_folders["llama"])
    layer = lm.model.model.layers[1]
    layer.set_submodule(place, Doubled(layer.get_submodule(place)))
    assert follow(lm, PROMPTS, 3, cls=decoding.LlamaDecoder) < 1e-4


def test_lora_is_added_into_the_copy_and_a_hook_is_called(tiny_folders):
    from ptlearn.finetuning.parameter_efficient import lora
    from ptlearn.lm.models import load_lm

    lm = load_lm(tiny_folders["qwen3"])
    before = exact(lm.model, PROMPTS[0])
    lora(lm, targets=[".*_proj"], rank=2)
    torch.manual_seed(1)
    for name, parameter in lm.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(parameter, std=0.3)
    assert (exact(lm.model, PROMPTS[0]) - before).abs().max() > 1e-2
    lm(torch.tensor(PROMPTS[:1]))  # leaves a hook that does nothing here
    assert follow(lm, PROMPTS, 3, cls=decoding.JoinedDecoder) < 1e-4
    lm.model.model.layers[0].mlp.down_proj.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert follow(lm, PROMPTS, 3, cls=decoding.LlamaDecoder) < 1e-4


class Loud(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, *args, **options):
        output = self.base(*args, **options)
        return (1.5 * output[0], *output[1:]) if isinstance(output, tuple) else 1.5 * output


def test_a_layer_that_was_replaced_takes_the_general_road(tiny_folders):
    from ptlearn.lm.models import load_lm

    lm = load_lm(tiny_folders["llama"])
    lm.model.model.layers[0] = Loud(lm.model.model.layers[0])
    assert follow(lm, PROMPTS, 3, cls=decoding.CacheDecoder) < 1e-4
    lm = load_lm(tiny_folders["qwen2"])
    lm.model.model.layers[1].self_attn = Loud(lm.model.model.layers[1].self_attn)
    assert follow(lm, PROMPTS, 3, cls=decoding.CacheDecoder) < 1e-4


def test_sliding_windows_take_the_general_road():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=300, num_hidden_layers=2, **sizes, **window)).eval()
    assert not decoding.has_llama_layout(model)


def test_weights_for_one_use_are_the_models_own_and_never_written_into():
    model = tiny_model("llama")
    shared, own = (JoinedWeights(model, torch.float32, copied=copied) for copied in (False, True))
    embedding = model.get_input_embeddings().weight
    assert shared.embedding.data_ptr() == embedding.data_ptr() != own.embedding.data_ptr()
    for mine, others in zip(shared.layers, own.layers, strict=True):
        assert all(mine[name] is None or torch.equal(mine[name], others[name]) for name in others)
    before = embedding.detach().clone()
    with pytest.raises(ValueError, match="^copied=False: expected weights of its own"):
        shared.take_over(model)
    assert torch.equal(embedding, before)


def test_computing_in_place_leaves_the_model_as_it_was(tiny_folders):
    from ptlearn.lm.models import load_lm

    lm = load_lm(tiny_folders["qwen2"])
    before = {name: parameter.detach().clone() for name, parameter in lm.named_parameters()}
    assert follow(lm, PROMPTS, 6, drop=3, cls=decoding.JoinedDecoder) < 1e-4
    assert all(torch.equal(parameter, before[name]) for name, parameter in lm.named_parameters())
