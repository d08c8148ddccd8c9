"""Loading by name: the right model comes back, and whatever is wrong is said in one line."""

import copy
import hashlib
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from conftest import WINDOW, tiny_model, tiny_tokenizer
from ptlearn.finetuning.adapter_files import save_adapter
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.lm import models
from ptlearn.lm.models import LanguageModel, load_lm, pocket_models
from ptlearn.lm.text import encode
from ptlearn.pocket.cards import loss_table, model_card


@pytest.fixture
def pocket(tmp_path, tiny_folders, monkeypatch):
    """A weights folder with one small 'pocket-m', made as the shipped ones are."""
    folder = tmp_path / "pocket-m"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_folders["llama"] / name, folder)
    shutil.copy(tiny_folders["llama"] / "tokenizer.json", tmp_path)
    shutil.copy(models.WEIGHTS / "chat_template.jinja", tmp_path)
    (folder / "card.md").write_text("# pocket-m\n")
    (folder / "losses.csv").write_text("tokens,flops,train_loss\n1000,2e9,\n2000,4e9,3.5\n")
    sums = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("config.json", "model.safetensors")
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    return folder


def refuses(kind, message, name):
    with pytest.raises(kind, match=message) as error:
        load_lm(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_gives_the_model_that_was_saved(tiny_lm, tiny_folders):
    tokens = torch.randint(0, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    logits = tiny_lm(tokens)
    assert logits.shape == (2, 9, 300) and logits.dtype == torch.float32
    kind = tiny_lm.model.config.model_type
    saved = load_file(tiny_folders[kind] / "model.safetensors")
    held = tiny_lm.model.state_dict()
    assert all(torch.equal(held[name], value) for name, value in saved.items())
    assert (tiny_lm.context, tiny_lm.end_tokens, tiny_lm.training) == (64, (0,), False)
    assert tiny_lm.name == str(tiny_folders[kind])


def test_dtype_and_device(tiny_folders):
    lm = load_lm(tiny_folders["llama"], dtype=torch.bfloat16, device="cpu")
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.bfloat16}
    assert lm.device.type == "cpu"


def test_loading_is_silent(tiny_folders, capfd):
    load_lm(tiny_folders["llama"])
    assert capfd.readouterr() == ("", "")


def test_no_library_of_models_is_imported_early():
    code = "import sys, ptlearn.lm.models, ptlearn.lm.text; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_pocket_model_is_found_by_name(pocket):
    assert pocket_models() == ["pocket-m"]
    lm = load_lm()
    assert isinstance(lm, LanguageModel) and lm.name == "pocket-m"
    assert (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id, lm.tokenizer.pad_token_id) == (0, 0, 0)
    assert model_card() == "# pocket-m\n"
    first, last = loss_table("pocket-m")
    assert first["tokens"] == 1000 and first["train_loss"] != first["train_loss"]
    assert last == {"tokens": 2000.0, "flops": 4e9, "train_loss": 3.5}


def test_unknown_names_list_what_exists(pocket):
    for name in ("pocket-xl", "pocket-s", "gpt2"):
        refuses(ValueError, f"unknown model '{name}': expected one of pocket-m, a local folder, or a hub id", name)
    with pytest.raises(ValueError, match="unknown pocket model 'm': expected one of pocket-m"):
        model_card("m")
    refuses(FileNotFoundError, "no folder './nowhere/model'", "./nowhere/model")


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_damaged_pocket_weights_are_named_with_both_checksums(pocket, damage):
    path = pocket / "model.safetensors"
    data = bytearray(path.read_bytes())
    expected = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:-100])
    message = refuses(ValueError, "model.safetensors is damaged", "pocket-m")
    assert expected in message and hashlib.sha256(path.read_bytes()).hexdigest() in message


def test_missing_files_are_named(pocket, tmp_path, tiny_folders):
    (pocket / "SHA256SUMS").write_text("00  extra.txt\n")
    refuses(FileNotFoundError, "extra.txt is missing though SHA256SUMS names it", "pocket-m")
    (tmp_path / "tokenizer.json").unlink()
    refuses(FileNotFoundError, "tokenizer.json is missing", "pocket-m")
    empty = tmp_path / "empty"
    empty.mkdir()
    refuses(FileNotFoundError, "has no config.json and no .*safetensors and no tokenizer.json", empty)
    half = shutil.copytree(tiny_folders["gpt2"], tmp_path / "half")
    (half / "config.json").unlink()
    refuses(FileNotFoundError, "has no config.json$", half)


def test_a_folder_with_bad_weights_is_refused(tmp_path, tiny_folders, capfd):
    folder = shutil.copytree(tiny_folders["qwen2"], tmp_path / "copy")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.write_bytes(path.read_bytes()[:-10])
    refuses(ValueError, "model.safetensors is damaged or truncated", folder)
    without = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp.down_proj" not in name}
    save_file(without, path, {"format": "pt"})
    refuses(ValueError, "lack 1 tensors of the model, such as 'model.layers.1.mlp.down_proj.weight'", folder)
    (folder / "config.json").write_text("{}")
    refuses(ValueError, "cannot load", folder)
    (folder / "config.json").write_text("{")
    refuses(ValueError, "cannot load", folder)
    assert capfd.readouterr() == ("", "")


def test_a_pickle_is_not_loaded(tmp_path, tiny_folders):
    folder = shutil.copytree(tiny_folders["gpt2"], tmp_path / "pickled")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    refuses(FileNotFoundError, r"has no \*.safetensors", folder)


def test_a_hub_id_without_network_names_the_pocket_models(pocket, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the client reads the variable once, when it is imported
    refuses(FileNotFoundError, "cannot load 'Qwen/none-such': no network .* work offline: pocket-m", "Qwen/none-such")


def test_an_unreachable_hub_counts_as_no_network(pocket, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    refuses(FileNotFoundError, "no network", "Qwen/none-such")


# ---------------------------------------------------------------- what fits together

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TURNS = ("<|im_start|>", "<|im_end|>")


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("extra", ["score.weight", "{block}.mlp.router.weight", "lm_head.adapters.default.A"])
def test_weights_without_a_place_are_refused_by_name(tmp_path, tiny_folders, kind, extra, capfd):
    extra = extra.format(block={"llama": "model.layers.0", "gpt2": "transformer.h.0"}[kind])
    folder = shutil.copytree(tiny_folders[kind], tmp_path / "copy")
    change_weights(folder, lambda tensors: tensors.update({extra: torch.zeros(2, 32)}))
    refuses(ValueError, f"hold 1 tensors that the model lacks, such as '{extra}'", folder)
    assert capfd.readouterr() == ("", "")


def test_an_adapter_beside_the_weights_is_not_put_into_them_without_a_word(tmp_path, tiny_folders):
    folder = shutil.copytree(tiny_folders["llama"], tmp_path / "copy")
    save_adapter(lora(load_lm(folder), targets="q_proj"), folder)
    refuses(ValueError, "holds a model and an adapter: expected one of them", folder)


def test_biases_that_the_configuration_switches_off_are_refused(tmp_path, tiny_folders):
    folder = shutil.copytree(tiny_folders["llama"], tmp_path / "copy")
    config = (folder / "config.json").read_text().replace('"attention_bias": true', '"attention_bias": false')
    (folder / "config.json").write_text(config)
    refuses(ValueError, "hold 8 tensors that the model lacks, such as 'model.layers.0.self_attn.k_proj.bias'", folder)


@pytest.mark.parametrize("kind, names", [
    ("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]),
    ("gpt2", ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"]),
    ("gpt-neo", ["transformer.h.0.attn.attention.bias", "transformer.h.0.attn.attention.masked_bias"]),
    ("gpt-neox", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"]),
])  # fmt: skip
def test_buffers_of_older_files_change_nothing(tmp_path, kind, names):
    model = tiny_model(kind)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.update({name: torch.ones(1, 1, 4, 4) for name in names}))
    tokens = torch.tensor([[0, 5, 9]])
    assert torch.equal(load_lm(tmp_path)(tokens), model(tokens).logits)


@pytest.mark.parametrize("family, sizes", [
    ("Bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}),
    ("Mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}),
])  # fmt: skip
def test_a_model_without_a_longest_text_is_refused(tmp_path, family, sizes):
    config = getattr(transformers, family + "Config")(vocab_size=300, **sizes)
    getattr(transformers, family + "ForCausalLM")(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    refuses(ValueError, f"is a {family}ForCausalLM without max_position_embeddings: expected a model with", tmp_path)


def test_a_tokenizer_that_outgrew_the_embedding_is_refused(tmp_path, tiny_folders):
    folder = shutil.copytree(tiny_folders["gpt2"], tmp_path / "grown")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(folder)
    refuses(ValueError, "has 301 tokens, the embedding 300 rows: expected as many", folder)
    model = tiny_model("gpt2")
    model.resize_token_embeddings(301)
    assert LanguageModel(model, tokenizer, "resized")(torch.tensor([[300]])).shape == (1, 1, 301)
    assert LanguageModel(model, tiny_tokenizer(), "rows to spare").end_tokens == (0,)


def test_control_tokens_may_lie_behind_the_embedding_and_are_refused_where_they_are_read():
    """As Gemma 3's token for images does in its models of text."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<img>"]})
    lm = LanguageModel(tiny_model("llama"), tokenizer, "tiny")
    assert encode(lm, ["a fine day"])[0][0] == 0
    with pytest.raises(ValueError, match=r"^texts\[1\] has token 300: expected those of the embedding, below 300$"):
        encode(lm, ["a", "a<img>"])


@pytest.mark.parametrize("generation, config, named, ends", [
    (None, None, "<|im_end|>", (0, 2)),
    ([1, 2], 0, "<|endoftext|>", (0, 1, 2)),
    (None, [7], "<|endoftext|>", (0, 7)),
    (2, 50256, None, (0, 2)),  # 50256 is the default of GPT-2's configuration, beyond this vocabulary
])  # fmt: skip
def test_end_tokens_are_all_that_anything_names(generation, config, named, ends):
    model = tiny_model("llama")
    model.generation_config.eos_token_id, model.config.eos_token_id = generation, config
    assert LanguageModel(model, tiny_tokenizer(*TURNS, eos_token=named), "tiny").end_tokens == ends


def test_a_token_that_only_begins_texts_ends_none():
    model = tiny_model("llama")
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    vocabulary = tiny_tokenizer("<s>", "</s>", bos_token="<s>", eos_token="</s>")
    vocabulary._tokenizer.post_processor = begins_with("<s>", 1)
    lm = LanguageModel(model, vocabulary, "tiny")
    assert lm.document_start == 1 and 1 not in lm.end_tokens


def begins_with(token, number):
    """What makes a tokenizer put a token before every text by itself, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single=f"{token} $A", special_tokens=[(token, number)])


def ends_with(token, number):
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single=f"$A {token}", special_tokens=[(token, number)])


@pytest.mark.parametrize("names, processor, template, start", [
    ({}, None, None, 0),  # GPT-2, Pythia
    ({}, None, CHATML.replace("<|im_end|>", "{{ eos_token }}"), 0),  # the pocket LMs
    ({"bos_token": None}, None, CHATML, None),  # Qwen
    ({"bos_token": None}, ends_with("<|im_end|>", 2), None, None),
    ({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}, None, CHATML, 0),  # SmolLM2
    ({"bos_token": "<|im_start|>"}, None, None, 1),  # nothing says that it begins turns
    ({"bos_token": "<|im_start|>"}, begins_with("<|im_start|>", 1), CHATML, 1),  # Llama: the tokenizer says it itself
    ({"bos_token": None}, begins_with("<|im_start|>", 1), None, 1),
])  # fmt: skip
def test_what_stands_before_a_document(names, processor, template, start):
    vocabulary = tiny_tokenizer(*TURNS, **names)
    vocabulary.chat_template = template
    if processor is not None:
        vocabulary._tokenizer.post_processor = processor
    lm = LanguageModel(tiny_model("llama"), vocabulary, "tiny")
    assert lm.document_start == start
    lm.document_start = 2
    assert lm.document_start == 2


def test_the_window_is_the_narrowest_and_none_where_all_is_seen(windowed_lm, tiny_lm):
    assert (windowed_lm.window, tiny_lm.window) == (WINDOW, None)


def test_a_running_state_has_no_window_that_could_be_masked():
    model = transformers.Lfm2ForCausalLM(transformers.Lfm2Config(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"], max_position_embeddings=64,
    ))  # fmt: skip
    assert LanguageModel(model, tiny_tokenizer(), "running state").window == 0


def test_what_selects_positions_stands_still(fresh):
    """torch.compile looks once at what stands before a layer: a compiled model would go on with what it saw then."""
    lm, tokens, mask, seen = fresh("llama"), torch.tensor([[5, 6, 7]]), torch.tensor([[False, True, True]]), []
    head = lm.model.get_output_embeddings()
    lm.model.model.norm.register_forward_hook(lambda *_: seen.append(list(head._forward_pre_hooks.items())))
    for _ in range(2):
        torch.testing.assert_close(lm.logits_at(tokens, mask), lm(tokens)[mask])
    assert len(seen) == 4 and all(hooks == seen[0] for hooks in seen) and len(seen[0]) == 1


def test_the_output_layer_may_be_another_one_later(fresh):
    lm, tokens = fresh("llama"), torch.tensor([[5, 6, 7]])
    mask = torch.tensor([[False, True, True]])
    before = lm.logits_at(tokens, mask)
    lm.model.set_output_embeddings(torch.nn.Linear(32, 300, bias=False))
    torch.testing.assert_close(lm.logits_at(tokens, mask), lm(tokens)[mask])
    assert not torch.allclose(lm(tokens)[mask], before)
    twin = copy.deepcopy(lm)
    torch.testing.assert_close(twin.logits_at(tokens, mask), lm(tokens)[mask])
    assert lm(tokens).shape == (1, 3, 300)


def test_in_bfloat16_the_logits_are_those_of_a_float32_layer_on_rounded_states():
    lm = load_lm("pocket-s")
    tokens, weight = torch.arange(24).view(2, 12), lm.model.lm_head.weight
    with torch.no_grad():
        exact = lm(tokens)
        with torch.autocast("cpu", torch.bfloat16):
            states, coarse = lm.model.model(tokens).last_hidden_state, lm(tokens)
        lm.bf16 = True
        mask = tokens % 3 == 0
        found = lm(tokens)
        assert torch.equal(lm.logits_at(tokens, mask), found[mask])
        assert not torch.is_autocast_enabled("cpu")
    assert torch.allclose(found, states.float() @ weight.T, atol=1e-4) and found.dtype == torch.float32
    assert coarse.dtype == torch.bfloat16 and 1e-4 < (found - exact).abs().mean() < (coarse - exact).abs().mean()
    lm(tokens).sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in lm.parameters())
