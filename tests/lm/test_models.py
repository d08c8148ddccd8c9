"""Loading by name: the right model comes back, and whatever is wrong is said in one line."""

import hashlib
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from ptlearn.lm import models
from ptlearn.lm.models import LanguageModel, load_lm, pocket_models
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
